//! Percent-encoding (RFC 3986, 2.1): how any byte stands in an address.

use crate::problem::Problem;

/// The bytes that a part of an address stands for.
///
/// # Errors
/// A `%` without two hexadecimal digits. It is not taken as it stands: keys would be mistaken.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, after @ ..] = after else { return Err(bad(text)) };
        let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (Some(high), Some(low)) = (digit(high), digit(low)) else { return Err(bad(text)) };
        bytes.push(high << 4 | low);
        rest = after;
    }
    Ok(bytes)
}

/// As [`decode`], for the values of a query, where forms write a blank as `+`.
pub(crate) fn decode_form(text: &str) -> Result<Vec<u8>, Problem> {
    decode(&text.replace('+', " "))
}

fn bad(text: &str) -> Problem {
    let detail = format!("{text:?} has a % without two hexadecimal digits; write % itself as %25");
    Problem::bad_request("bad_encoding", detail)
}
