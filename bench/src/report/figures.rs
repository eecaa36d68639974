//! How numbers and times are written for people.

use std::fmt::Write as _;

/// A count with a comma between groups of three digits.
pub(crate) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.write_char(digit).expect("a string takes everything");
    }
    grouped
}

/// What was measured, as a column of a table has it: no unit, three digits or all whole ones.
pub(super) fn figure(number: f64) -> String {
    if number < 9.995 {
        format!("{number:.2}")
    } else if number < 99.95 {
        format!("{number:.1}")
    } else {
        grouped(number)
    }
}

/// Microseconds with the unit that suits them, to three digits: `1.25 ms`.
pub(super) fn latency(us: f64) -> String {
    let (number, unit) = match us {
        _ if us < 0.9995 => (us * 1e3, "ns"),
        _ if us < 999.5 => (us, "µs"),
        _ if us < 999.5e3 => (us / 1e3, "ms"),
        _ => (us / 1e6, "s"),
    };
    format!("{} {unit}", three_digits(number))
}

/// A count to three digits: `41.2k`.
pub(super) fn short(number: f64) -> String {
    match number {
        _ if number < 999.5 => three_digits(number),
        _ if number < 999.5e3 => three_digits(number / 1e3) + "k",
        _ if number < 999.5e6 => three_digits(number / 1e6) + "M",
        _ => three_digits(number / 1e9) + "G",
    }
}

fn three_digits(number: f64) -> String {
    let decimals = match number {
        _ if number < 9.995 => 2,
        _ if number < 99.95 => 1,
        _ => return format!("{number:.0}"),
    };
    let text = format!("{number:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Seconds since 1970 as a date and time of day.
///
/// The days of a year are counted from 1 March, so that the leap day comes last (Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`).
pub(crate) fn utc(unix_s: u64) -> String {
    const ERA_DAYS: u64 = 146_097;
    let days = unix_s / 86_400 + 719_468;
    let (era, day_of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let second = unix_s % 86_400;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        assert_eq!([999.4, 1000.0, 1_234_567.0].map(grouped), ["999", "1,000", "1,234,567"]);
    }

    #[test]
    fn figures_keep_three_digits_and_change_their_unit() {
        assert_eq!([0.5, 12.34, 99.96, 1234.5].map(figure), ["0.50", "12.3", "100", "1,234"]);
        assert_eq!(
            [0.2, 1.0, 31.04, 999.6, 20_000.0, 2.5e6].map(latency),
            ["200 ns", "1 µs", "31 µs", "1 ms", "20 ms", "2.5 s"]
        );
        assert_eq!([0.0, 250.0, 41_152.0, 999_999.0, 2e9].map(short), ["0", "250", "41.2k", "1M", "2G"]);
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_767_225_599), "2025-12-31 23:59:59 UTC");
    }
}
