//! What a header may carry beyond its first 32 bytes: today the trace that a request belongs to.
//!
//! The extension is a list of entries: kind (one byte), how many bytes follow (one byte), those bytes. A
//! reader skips the kinds that it does not know. An extension that is damaged costs its request and
//! nothing else: the frame's borders are known.

use std::fmt;
use std::str::FromStr;

use crate::error::ProtocolError;

/// Kind of the entry that holds a [`TraceParent`].
const KIND_TRACE: u8 = 1;
/// Bytes of a trace parent in an entry.
const TRACE_BYTES: usize = 25;
/// Bytes of the entry.
const ENTRY_BYTES: usize = 2 + TRACE_BYTES;

/// The trace that a request belongs to, and the step of it that sent the request (W3C Trace Context).
///
/// ```
/// use pinion_protocol::TraceParent;
///
/// let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let trace: TraceParent = text.parse()?;
/// assert_eq!(trace.flags, 1);
/// assert_eq!(trace.to_string(), text);
/// # Ok::<(), pinion_protocol::ProtocolError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    /// The whole trace; not all zero.
    pub trace_id: [u8; 16],
    /// The step that sent the request; not all zero.
    pub parent_id: [u8; 8],
    /// Bit 0: the sender records the trace.
    pub flags: u8,
}

impl TraceParent {
    /// The header's extension that carries it and nothing else.
    pub(crate) fn to_extension(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..2].copy_from_slice(&[KIND_TRACE, TRACE_BYTES as u8]);
        bytes[2..18].copy_from_slice(&self.trace_id);
        bytes[18..26].copy_from_slice(&self.parent_id);
        bytes[26] = self.flags;
        bytes
    }

    fn take(bytes: &[u8]) -> Result<Self, ProtocolError> {
        let bad = ProtocolError::BadBody("a trace in the header is 25 bytes");
        let (trace_id, rest) = bytes.split_first_chunk::<16>().ok_or(bad.clone())?;
        let (parent_id, rest) = rest.split_first_chunk::<8>().ok_or(bad.clone())?;
        let [flags] = *rest else { return Err(bad) };
        Self { trace_id: *trace_id, parent_id: *parent_id, flags }.checked()
    }

    fn checked(self) -> Result<Self, ProtocolError> {
        if self.trace_id == [0; 16] || self.parent_id == [0; 8] {
            return Err(ProtocolError::BadBody("a trace and its parent are not all zero"));
        }
        Ok(self)
    }
}

/// The text of a `traceparent` header. Of versions after 00 what is known of 00 is taken.
impl FromStr for TraceParent {
    type Err = ProtocolError;

    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        const TEXT_BYTES: usize = 55;
        let bad = || ProtocolError::BadBody("a traceparent is written as 00-<32 hex>-<16 hex>-<2 hex>");
        let (known, rest) = text.as_bytes().split_at_checked(TEXT_BYTES).ok_or_else(bad)?;
        let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        let [version] = hex(&known[..2]).ok_or_else(bad)?;
        let follows = rest.is_empty() || (version > 0 && rest[0] == b'-');
        if !dashes || !follows || version == u8::MAX {
            return Err(bad());
        }
        let [flags] = hex(&known[53..]).ok_or_else(bad)?;
        let trace_id = hex(&known[3..35]).ok_or_else(bad)?;
        let parent_id = hex(&known[36..52]).ok_or_else(bad)?;
        Self { trace_id, parent_id, flags }.checked()
    }
}

/// The bytes of so many hexadecimal digits, of which letters are small.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// As a `traceparent` header has it, in version 00.
impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.parent_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{:02x}", self.flags)
    }
}

/// What the bytes of a header's extension say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extension {
    /// The trace that the request belongs to.
    pub trace: Option<TraceParent>,
}

impl Extension {
    /// Reads the entries.
    ///
    /// # Errors
    /// [`ProtocolError::BadBody`]: answer its code; the connection can go on.
    pub fn read(mut bytes: &[u8]) -> Result<Self, ProtocolError> {
        let mut extension = Self::default();
        while let [kind, length, rest @ ..] = bytes {
            let (entry, after) = rest
                .split_at_checked(usize::from(*length))
                .ok_or(ProtocolError::BadBody("an entry of the header is cut off"))?;
            if *kind == KIND_TRACE && extension.trace.replace(TraceParent::take(entry)?).is_some() {
                return Err(ProtocolError::BadBody("a second trace in the header"));
            }
            bytes = after;
        }
        if !bytes.is_empty() {
            return Err(ProtocolError::BadBody("an entry of the header is cut off"));
        }
        Ok(extension)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: TraceParent = TraceParent { trace_id: [0xAB; 16], parent_id: [7; 8], flags: 1 };

    #[test]
    fn text_is_read_as_it_is_written() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace: TraceParent = text.parse().unwrap();
        assert_eq!((trace.trace_id[0], trace.parent_id[7], trace.flags), (0x4B, 0xB7, 1));
        assert_eq!(trace.to_string(), text);
        assert_eq!(TRACE.to_string().parse(), Ok(TRACE));
        let later = text.replacen("00-", "cc-", 1);
        assert_eq!(later.parse(), Ok(trace));
        assert_eq!(format!("{later}-more").parse(), Ok(trace));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
            "00-4bf92f3577b34da6a3ce929d0e0e473\u{e9}-00f067aa0ba902b7-01",
        ] {
            assert!(bad.parse::<TraceParent>().is_err(), "{bad}");
        }
    }

    #[test]
    fn unknown_entries_are_skipped() {
        let trace = TRACE.to_extension();
        let known = Extension { trace: Some(TRACE) };
        assert_eq!(Extension::read(&[]), Ok(Extension::default()));
        assert_eq!(Extension::read(&trace), Ok(known));
        let among = [&[9, 3, 1, 2, 3][..], &trace, &[0, 0, 200, 1, 7]].concat();
        assert_eq!(Extension::read(&among), Ok(known));
        assert_eq!(Extension::read(&[9, 0]), Ok(Extension::default()));
    }

    #[test]
    fn damage_is_an_error() {
        let trace = TRACE.to_extension();
        for end in 1..trace.len() {
            assert!(Extension::read(&trace[..end]).is_err(), "{end}");
        }
        let mut zero = trace;
        zero[2..18].fill(0);
        let mut short = trace[..26].to_vec();
        short[1] = 24;
        for bad in [&[1][..], &[9, 4, 1], &[1, 0], &zero, &short, &[trace, trace].concat()] {
            assert!(matches!(Extension::read(bad), Err(ProtocolError::BadBody(_))), "{bad:?}");
        }
    }
}
