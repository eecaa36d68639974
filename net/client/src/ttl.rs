//! How long values live, and how people write that.

use std::str::FromStr;
use std::time::Duration;

/// Longest text of a time, in bytes.
const TEXT_BYTES_MAX: usize = 32;

/// How long a written value lives.
///
/// Read from text it is a number and a unit: `250ms`, `30s`, `10m`, `1.5h`, `7d`; a bare number is seconds,
/// and `never` is [`Ttl::Never`].
///
/// ```
/// # use std::time::Duration;
/// # use pinion_client::Ttl;
/// assert_eq!("1.5h".parse(), Ok(Ttl::After(Duration::from_secs(5_400))));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ttl {
    /// As the namespace says (for ever, unless it was created otherwise).
    #[default]
    Default,
    /// Until it is overwritten or deleted, whatever the namespace says.
    Never,
    /// This long, counted from the write. Milliseconds; anything shorter counts as one.
    After(Duration),
}

/// What was to be a [`Ttl`] is not a time, or not longer than zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a time longer than zero, such as 30s, 250ms, 10m, 1.5h, 7d, or never")]
pub struct NotATtl;

impl Ttl {
    /// After so many seconds.
    ///
    /// # Errors
    /// It is not a number above zero, or more than [`Duration`] holds.
    pub fn try_from_secs_f64(seconds: f64) -> Result<Self, NotATtl> {
        let duration = Duration::try_from_secs_f64(seconds).map_err(|_| NotATtl)?;
        if duration.is_zero() { Err(NotATtl) } else { Ok(Self::After(duration)) }
    }

    /// Milliseconds as the protocol counts them: `None` = the namespace's, 0 = never.
    pub(crate) fn millis(self) -> Option<u64> {
        match self {
            Self::Default => None,
            Self::Never => Some(0),
            Self::After(duration) => Some(millis(duration)),
        }
    }
}

impl From<Duration> for Ttl {
    fn from(duration: Duration) -> Self {
        Self::After(duration)
    }
}

impl FromStr for Ttl {
    type Err = NotATtl;

    fn from_str(text: &str) -> Result<Self, NotATtl> {
        if text == "never" {
            return Ok(Self::Never);
        }
        let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let unit_seconds = match &text[digits.len()..] {
            "ms" => 0.001,
            "" | "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return Err(NotATtl),
        };
        // No signs, no exponents, nothing that only floating point knows.
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if !plain || text.len() > TEXT_BYTES_MAX {
            return Err(NotATtl);
        }
        let number: f64 = digits.parse().map_err(|_| NotATtl)?;
        Self::try_from_secs_f64(number * unit_seconds)
    }
}

/// Milliseconds of a TTL: at least one, so that none becomes "never".
pub(crate) fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_units() {
        let cases =
            [("30s", 30_000), ("30", 30_000), ("1.5h", 5_400_000), ("250ms", 250), ("7d", 604_800_000)];
        for (text, millis) in cases {
            assert_eq!(text.parse(), Ok(Ttl::After(Duration::from_millis(millis))), "{text}");
        }
        assert_eq!("never".parse(), Ok(Ttl::Never));
        let bad = [
            "", "s", "0", "0s", "-1s", "+1s", "1e3", "1e300d", "5w", "5 weeks", "NaN", "inf", "1.2.3", "1 s",
            "\u{661}s", "Never",
        ];
        for bad in bad {
            assert_eq!(bad.parse::<Ttl>(), Err(NotATtl), "{bad}");
        }
        assert_eq!("9".repeat(40).parse::<Ttl>(), Err(NotATtl));
    }

    #[test]
    fn seconds_are_more_than_none() {
        assert_eq!(Ttl::try_from_secs_f64(0.25), Ok(Ttl::After(Duration::from_millis(250))));
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(Ttl::try_from_secs_f64(bad), Err(NotATtl), "{bad}");
        }
    }

    #[test]
    fn a_ttl_never_rounds_to_never() {
        assert_eq!(Ttl::Default.millis(), None);
        assert_eq!(Ttl::Never.millis(), Some(0));
        assert_eq!(Ttl::from(Duration::from_nanos(5)).millis(), Some(1));
        assert_eq!(Ttl::from(Duration::MAX).millis(), Some(u64::MAX));
    }
}
