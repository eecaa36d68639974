//! What read-modify-write operations make of a value.

use crate::error::{Error, Misfit, Result};
use crate::operation::Update;

/// The new value of an update, and the number it answers.
pub(super) fn updated(
    present: &[u8],
    exists: bool,
    update: Update<'_>,
    value_bytes_max: u32,
) -> Result<(Vec<u8>, i64)> {
    let within = |bytes: usize| {
        if bytes > value_bytes_max as usize {
            return Err(Error::TooLarge {
                what: "value",
                bytes: bytes as u64,
                max: u64::from(value_bytes_max),
            });
        }
        Ok(())
    };
    match update {
        Update::Add(operand) => {
            let number = if exists { parse_integer(present)? } else { 0 };
            let sum = number.checked_add(operand).ok_or(Error::BadOperation(Misfit::Overflow))?;
            Ok((sum.to_string().into_bytes(), sum))
        }
        Update::Append(bytes) => {
            within(present.len() + bytes.len())?;
            let value = [present, bytes].concat();
            let length = value.len() as i64;
            Ok((value, length))
        }
        Update::SetRange { offset, bytes } => {
            let offset = offset as usize;
            let end = offset + bytes.len();
            within(end.max(present.len()))?;
            let mut value = present.to_vec();
            if !bytes.is_empty() {
                value.resize(value.len().max(end), 0);
                value[offset..end].copy_from_slice(bytes);
            }
            let length = value.len() as i64;
            Ok((value, length))
        }
        Update::SetExpiry(_) => Err(Error::BadOperation(Misfit::NotAChange)),
    }
}

/// A 64-bit integer as Redis writes one: decimal, no spaces, no plus sign, no leading zeros.
fn parse_integer(bytes: &[u8]) -> Result<i64> {
    let bad = Error::BadOperation(Misfit::NotAnInteger);
    let text = std::str::from_utf8(bytes).map_err(|_| bad.clone())?;
    let number: i64 = text.parse().map_err(|_| bad.clone())?;
    if number.to_string() == text { Ok(number) } else { Err(bad) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_redis_writes_them() {
        assert_eq!(parse_integer(b"-12").unwrap(), -12);
        for bad in ["", "+1", " 1", "1 ", "01", "-0", "1.0", "9223372036854775808"] {
            assert!(parse_integer(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn updates_compute_new_values() {
        let limit = 16;
        assert_eq!(updated(b"", false, Update::Add(5), limit).unwrap(), (b"5".to_vec(), 5));
        assert_eq!(updated(b"7", true, Update::Add(-8), limit).unwrap(), (b"-1".to_vec(), -1));
        assert!(updated(b"", true, Update::Add(1), limit).is_err());
        assert!(updated(b"9223372036854775807", true, Update::Add(1), 64).is_err());
        assert_eq!(updated(b"ab", true, Update::Append(b"c"), limit).unwrap(), (b"abc".to_vec(), 3));
        let set = |offset, bytes| Update::SetRange { offset, bytes };
        assert_eq!(updated(b"ab", true, set(4, b"x"), limit).unwrap(), (b"ab\0\0x".to_vec(), 5));
        assert_eq!(updated(b"abcd", true, set(1, b"x"), limit).unwrap(), (b"axcd".to_vec(), 4));
        assert!(matches!(updated(b"", false, set(16, b"x"), limit), Err(Error::TooLarge { .. })));
    }
}
