//! Times to live as people write them.

use std::time::{Duration, SystemTime};

use pinion_client::Ttl;

/// Longest text of a time.
const TEXT_BYTES_MAX: usize = 32;

/// Reads `30s`, `250ms`, `1.5h`, `10m`, `7d`; a bare number is seconds, `never` is for ever whatever the
/// namespace says.
///
/// # Errors
/// What a time looks like.
pub(crate) fn parse(text: &str) -> Result<Ttl, String> {
    if text == "never" {
        return Ok(Ttl::Never);
    }
    let bad = || "is a time longer than zero, such as 30s, 250ms, 10m, 1.5h, 7d, or never".to_owned();
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit_seconds = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(bad()),
    };
    // No signs, no exponents, nothing that only floating point knows.
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if !plain || text.len() > TEXT_BYTES_MAX {
        return Err(bad());
    }
    let number: f64 = digits.parse().map_err(|_| bad())?;
    seconds(number * unit_seconds).ok_or_else(bad)
}

/// A number of seconds, if it is more than none.
pub(crate) fn seconds(seconds: f64) -> Option<Ttl> {
    let duration = Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero())?;
    Some(Ttl::After(duration))
}

/// What is left until an expiry, in seconds to the millisecond by this machine's clock; at least one
/// millisecond, so that a value at its end is not taken for one that lives for ever.
pub(crate) fn left(expiry: SystemTime) -> f64 {
    let left = expiry.duration_since(SystemTime::now()).unwrap_or_default();
    (left.as_secs_f64() * 1_000.0).round().max(1.0) / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_units() {
        for (text, millis) in
            [("30s", 30_000), ("30", 30_000), ("1.5h", 5_400_000), ("250ms", 250), ("7d", 604_800_000)]
        {
            assert_eq!(parse(text), Ok(Ttl::After(Duration::from_millis(millis))), "{text}");
        }
        assert_eq!(parse("never"), Ok(Ttl::Never));
        for bad in ["", "s", "0", "0s", "-1s", "+1s", "1e3", "5w", "NaN", "inf", "1.2.3", "1 s", "\u{661}s"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse(&"9".repeat(40)).is_err());
    }
}
