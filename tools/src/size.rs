//! Sizes in bytes as people write and read them: `512MiB`, `2G`, `1.5 GiB`.
//!
//! `KiB MiB GiB TiB` and the short `K M G T` count in steps of 1,024, `kB MB GB TB` in steps of
//! 1,000. A number alone is bytes.

use std::fmt;
use std::str::FromStr;

/// Units by name in lower case, longest names first.
const UNITS: [(&str, u64); 13] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("b", 1),
];

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ByteSize(pub(crate) u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is no size: write 512MiB, 2GiB or a number of bytes");
        let lower = text.trim().to_ascii_lowercase();
        let (number, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| Some((lower.strip_suffix(name)?, *unit)))
            .unwrap_or((&lower, 1));
        let number = number.trim_end().replace('_', "");
        if !number.starts_with(|first: char| first.is_ascii_digit()) {
            return Err(bad());
        }
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(unit).map(Self).ok_or_else(|| format!("`{text}` is too large"));
        }
        let bytes = number.parse::<f64>().map_err(|_| bad())? * unit as f64;
        if unit > 1 && bytes < u64::MAX as f64 { Ok(Self(bytes as u64)) } else { Err(bad()) }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        match scale.into_iter().find(|(_, shift)| self.0 >> shift > 0) {
            Some((name, shift)) if self.0.trailing_zeros() >= shift => {
                write!(f, "{} {name}", self.0 >> shift)
            }
            Some((name, shift)) => write!(f, "{:.1} {name}", self.0 as f64 / (1_u64 << shift) as f64),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("4096", 4096),
            ("2GiB", 2 << 30),
            ("2 gib", 2 << 30),
            ("2G", 2 << 30),
            ("64m", 64 << 20),
            ("1.5MiB", 3 << 19),
            ("10kB", 10_000),
            ("1_000b", 1_000),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "GiB", "-1", "1.5", "1e3", "2XiB", "inf", "99999999999999G", "1e30G"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_short() {
        for (bytes, text) in [(0, "0 bytes"), (1023, "1023 bytes"), (1 << 20, "1 MiB"), (3 << 29, "1.5 GiB")]
        {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }
}
