//! Integers as Redis reads and writes them.

/// Digits and sign of the longest 64-bit integer.
pub(super) const INTEGER_BYTES_MAX: usize = 20;

/// A 64-bit integer in the only way to write it: decimal, no sign but a minus, no leading zeros, no
/// blanks.
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    if text == b"0" {
        return Some(0);
    }
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if !matches!(digits, [b'1'..=b'9', ..]) || digits.len() >= INTEGER_BYTES_MAX {
        return None;
    }
    let mut number = 0_u64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // Nineteen digits fit.
        number = number * 10 + u64::from(digit);
    }
    if negative { 0_i64.checked_sub_unsigned(number) } else { i64::try_from(number).ok() }
}

/// Appends an integer in decimal.
#[inline]
pub(super) fn put_integer(out: &mut Vec<u8>, number: i64) {
    let mut digits = [0; INTEGER_BYTES_MAX];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_one_way_to_be_written() {
        for number in [0, 1, -1, 9, 10, 1_234_567_890, i64::MAX, i64::MIN, i64::MAX - 1, i64::MIN + 1] {
            let mut text = Vec::new();
            put_integer(&mut text, number);
            assert_eq!(text, number.to_string().as_bytes());
            assert_eq!(parse_integer(&text), Some(number));
        }
        let bad = ["", "-", "+1", "-0", "00", "01", " 1", "1 ", "1.0", "0x1", "9223372036854775808"];
        for text in bad.into_iter().chain(["-9223372036854775809", "18446744073709551616", "1:", "1/"]) {
            assert_eq!(parse_integer(text.as_bytes()), None, "{text}");
        }
    }
}
