//! Replies, appended to a buffer. Where RESP2 and RESP3 differ the version is asked for.

use super::RespVersion;
use super::number::put_integer;

/// `+OK`, or another text of one line.
#[inline]
pub fn simple(out: &mut Vec<u8>, text: &str) {
    out.push(b'+');
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// An error: a code in capitals, a blank, and a text. What is no part of a line becomes a blank, and
/// goes from the end.
pub fn error(out: &mut Vec<u8>, text: &[u8]) {
    let end = text.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    out.push(b'-');
    out.extend(text[..end].iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }));
    out.extend_from_slice(b"\r\n");
}

/// An integer.
#[inline]
pub fn integer(out: &mut Vec<u8>, number: i64) {
    head(out, b':', number);
}

/// A string of any bytes.
#[inline]
pub fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() + 32);
    head(out, b'$', bytes.len() as i64);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// No value.
#[inline]
pub fn null(out: &mut Vec<u8>, version: RespVersion) {
    out.extend_from_slice(match version {
        RespVersion::Two => b"$-1\r\n",
        RespVersion::Three => b"_\r\n",
    });
}

/// Of an array of so many replies, which follow.
pub fn array(out: &mut Vec<u8>, count: usize) {
    head(out, b'*', count as i64);
}

/// Of a set of so many replies, which follow.
pub fn set(out: &mut Vec<u8>, count: usize, version: RespVersion) {
    let kind = if version == RespVersion::Three { b'~' } else { b'*' };
    head(out, kind, count as i64);
}

/// Of a map of so many pairs: key and value follow, and so on.
pub fn map(out: &mut Vec<u8>, pairs: usize, version: RespVersion) {
    match version {
        RespVersion::Two => head(out, b'*', 2 * pairs as i64),
        RespVersion::Three => head(out, b'%', pairs as i64),
    }
}

/// Text for people.
pub fn verbatim(out: &mut Vec<u8>, text: &str, version: RespVersion) {
    match version {
        RespVersion::Two => bulk(out, text.as_bytes()),
        RespVersion::Three => {
            head(out, b'=', text.len() as i64 + 4);
            out.extend_from_slice(b"txt:");
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

#[inline]
fn head(out: &mut Vec<u8>, kind: u8, number: i64) {
    out.push(kind);
    put_integer(out, number);
    out.extend_from_slice(b"\r\n");
}
