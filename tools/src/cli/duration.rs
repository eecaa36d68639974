//! Durations as people write them.

use std::time::Duration;

use pinion_client::Ttl;

/// Parses `90`, `90s`, `1.5h`, `250ms`, `10m`, `7d`; a bare number is seconds.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    // Written as times to live are, of which one never ends.
    match text.parse() {
        Ok(Ttl::After(duration)) => Ok(duration),
        _ => Err("not a time longer than zero, such as 30s, 250ms, 10m, 1.5h, 7d".to_owned()),
    }
}

/// In the largest unit that gives at least one.
pub(super) fn show(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    let (unit_seconds, unit) = match seconds {
        s if s >= 2.0 * 86_400.0 => (86_400.0, "days"),
        s if s >= 2.0 * 3_600.0 => (3_600.0, "hours"),
        s if s >= 120.0 => (60.0, "minutes"),
        _ => (1.0, "s"),
    };
    let number = format!("{:.1}", seconds / unit_seconds);
    format!("{} {unit}", number.strip_suffix(".0").unwrap_or(&number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_with_their_units() {
        assert_eq!(parse("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("1.5h"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "s", "-1s", "0", "5w", "never"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_shown_in_a_fitting_unit() {
        assert_eq!(show(Duration::from_secs(59)), "59 s");
        assert_eq!(show(Duration::from_millis(1_500)), "1.5 s");
        assert_eq!(show(Duration::from_secs(3 * 86_400)), "3 days");
    }
}
