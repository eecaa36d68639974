//! The preface of a connection and the header of a frame.
//!
//! The preface is what makes a connection recognisably neither RESP nor HTTP nor TLS; the header
//! carries its own length so that it can grow: a reader skips what it does not know.

use crate::error::ProtocolError;
use crate::heads::{FrameHead, Head, flags_within, length};
use crate::{VERSION_HIGHEST, VERSION_LOWEST};

/// Bytes of the preface.
pub const PREFACE_BYTES: usize = 8;

/// The first four bytes of a connection.
pub const PREFACE_MAGIC: [u8; 4] = [0xB1, b'P', b'I', b'N'];

/// Bytes of the header that this version writes, and the least it accepts.
pub const HEADER_BYTES: usize = 32;

/// Header flag: the frame answers a request.
pub const FLAG_RESPONSE: u8 = 1;
/// Header flag: the answer is an error.
pub const FLAG_ERROR: u8 = 2;
/// Header flag, reserved: more frames of the same answer follow. Nothing sends it yet.
pub const FLAG_MORE: u8 = 4;

/// What a client sends first: the versions that it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preface {
    /// The lowest.
    pub lowest: u16,
    /// The highest.
    pub highest: u16,
}

impl Preface {
    /// The versions that this crate speaks.
    pub const OURS: Self = Self { lowest: VERSION_LOWEST, highest: VERSION_HIGHEST };

    /// The bytes to send.
    pub fn to_bytes(self) -> [u8; PREFACE_BYTES] {
        let [m0, m1, m2, m3] = PREFACE_MAGIC;
        let ([l0, l1], [h0, h1]) = (self.lowest.to_le_bytes(), self.highest.to_le_bytes());
        [m0, m1, m2, m3, l0, l1, h0, h1]
    }

    /// From the first bytes received; `None` = more are needed.
    ///
    /// # Errors
    /// [`ProtocolError::BadPreface`] at the first byte that does not fit.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, ProtocolError> {
        if bytes.iter().zip(&PREFACE_MAGIC).any(|(found, expected)| found != expected) {
            return Err(ProtocolError::BadPreface);
        }
        let Some([_, _, _, _, l0, l1, h0, h1]) = bytes.first_chunk::<PREFACE_BYTES>() else {
            return Ok(None);
        };
        let preface =
            Self { lowest: u16::from_le_bytes([*l0, *l1]), highest: u16::from_le_bytes([*h0, *h1]) };
        if preface.lowest > preface.highest {
            return Err(ProtocolError::BadPreface);
        }
        Ok(Some(preface))
    }

    /// The highest version that both sides speak.
    ///
    /// # Errors
    /// [`ProtocolError::NoCommonVersion`]: answer it to HELLO and close.
    pub fn negotiate(self) -> Result<u16, ProtocolError> {
        let version = self.highest.min(VERSION_HIGHEST);
        if version >= self.lowest.max(VERSION_LOWEST) {
            Ok(version)
        } else {
            Err(ProtocolError::NoCommonVersion { lowest: self.lowest, highest: self.highest })
        }
    }
}

macro_rules! opcodes {
    ($($(#[$meta:meta])* $opcode:ident = $number:literal $name:literal,)*) => {
        /// What a frame asks or answers. The numbers are sent.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Opcode {
            $($(#[$meta])* $opcode = $number,)*
        }

        impl Opcode {
            /// Every opcode.
            pub const ALL: &[Self] = &[$(Self::$opcode,)*];

            /// From the number that was sent.
            pub const fn from_u8(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$opcode),)*
                    _ => None,
                }
            }

            /// The name that PROTOCOL.md uses, in small letters.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$opcode => $name,)*
                }
            }
        }
    };
}

opcodes! {
    /// Opens a session.
    Hello = 1 "hello",
    /// Reads one key.
    Get = 2 "get",
    /// Reads several keys.
    MultiGet = 3 "multi_get",
    /// Writes a value.
    Put = 4 "put",
    /// Removes a record.
    Delete = 5 "delete",
    /// Writes a value if a condition holds.
    PutIf = 6 "put_if",
    /// Removes a record if a condition holds.
    DeleteIf = 7 "delete_if",
    /// Changes a record by one of a closed set of operations.
    Update = 8 "update",
    /// Several puts and deletes.
    Batch = 9 "batch",
    /// One page of a scan.
    Scan = 10 "scan",
    /// Version, expiry and size of a record.
    Stat = 11 "stat",
    /// Creates a namespace.
    NamespaceCreate = 12 "namespace_create",
    /// Lists the namespaces.
    NamespaceList = 13 "namespace_list",
    /// Drops a namespace.
    NamespaceDrop = 14 "namespace_drop",
    /// Changes a namespace's default TTL.
    NamespaceSet = 15 "namespace_set",
    /// What the server says about itself.
    ServerInfo = 16 "server_info",
    /// An echo.
    Ping = 17 "ping",
}

impl Opcode {
    /// The number that is sent.
    pub const fn to_u8(self) -> u8 {
        self as u8
    }

    /// Whether its reply is a [`crate::Written`].
    pub const fn is_single_write(self) -> bool {
        matches!(self, Self::Put | Self::Delete | Self::PutIf | Self::DeleteIf | Self::Update)
    }
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the whole frame, this header included.
    pub frame_bytes: u32,
    /// Bytes of the header: where the body starts.
    pub header_bytes: u16,
    /// An [`Opcode`]'s number, or one that this version does not know.
    pub opcode: u8,
    /// [`FLAG_RESPONSE`], [`FLAG_ERROR`], [`FLAG_MORE`].
    pub flags: u8,
    /// Chosen by the client, unique among its requests in flight; an answer repeats it.
    pub request_id: u64,
    /// The version of the cluster map that the sender knows.
    pub epoch: u64,
    /// Request: the time that remains, in microseconds; 0 = no deadline. Answer: 0.
    pub deadline_us: u32,
}

impl Header {
    /// From the front of a frame; `None` = more bytes are needed.
    ///
    /// # Errors
    /// [`ProtocolError::BadHeader`]; the limit on frames is checked by [`crate::Frames`].
    #[inline]
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, ProtocolError> {
        let Some(front) = bytes.get(..HEADER_BYTES) else { return Ok(None) };
        let head = FrameHead::read(front)?;
        let header = Self {
            frame_bytes: head.frame_bytes.to_native(),
            header_bytes: head.header_bytes.to_native(),
            opcode: head.opcode,
            flags: head.flags,
            request_id: head.request_id.to_native(),
            epoch: head.epoch.to_native(),
            deadline_us: head.deadline_us.to_native(),
        };
        if usize::from(header.header_bytes) < HEADER_BYTES {
            return Err(ProtocolError::BadHeader("the header is shorter than 32 bytes"));
        }
        if header.frame_bytes < u32::from(header.header_bytes) {
            return Err(ProtocolError::BadHeader("the frame is shorter than its header"));
        }
        if head.reserved != [0; 4] {
            return Err(ProtocolError::BadHeader("reserved bytes are not zero"));
        }
        Ok(Some(header))
    }

    /// Whether the frame is an answer.
    pub const fn is_response(&self) -> bool {
        self.flags & FLAG_RESPONSE != 0
    }

    /// Whether the frame is an error answer.
    pub const fn is_error(&self) -> bool {
        self.flags & FLAG_ERROR != 0
    }

    /// Whether there is more in the header than what every header has: see [`crate::Extension`].
    pub const fn is_extended(&self) -> bool {
        self.header_bytes as usize > HEADER_BYTES
    }

    /// Bytes of the body.
    pub const fn body_bytes(&self) -> u32 {
        self.frame_bytes - self.header_bytes as u32
    }
}

/// The flags of a request: none are known.
///
/// # Errors
/// [`ProtocolError::BadBody`] for an answer, [`ProtocolError::Unsupported`] for flags to come.
#[inline]
pub(crate) fn request_flags(header: &Header) -> Result<(), ProtocolError> {
    if header.flags & FLAG_RESPONSE != 0 {
        return Err(ProtocolError::BadBody("an answer where a request belongs"));
    }
    flags_within(header.flags, 0)
}

/// Appends one frame: the header, then what `body` appends. Leaves `out` as it was on error.
pub(crate) fn write_frame(
    out: &mut Vec<u8>,
    kind: (u8, u8),
    fields: (u64, u64, u32),
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), ProtocolError>,
) -> Result<(), ProtocolError> {
    write_extended(out, kind, fields, &[], body)
}

/// As [`write_frame`] with bytes that belong to the header.
pub(crate) fn write_extended(
    out: &mut Vec<u8>,
    kind: (u8, u8),
    fields: (u64, u64, u32),
    extension: &[u8],
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), ProtocolError>,
) -> Result<(), ProtocolError> {
    let start = out.len();
    put_head(out, kind, fields, 0);
    if !extension.is_empty() {
        let header_bytes: u16 = length("header", extension, usize::from(u16::MAX) - HEADER_BYTES)
            .map(|bytes: u16| bytes + HEADER_BYTES as u16)
            .inspect_err(|_| out.truncate(start))?;
        out[start + 4..start + 6].copy_from_slice(&header_bytes.to_le_bytes());
        out.extend_from_slice(extension);
    }
    let written = body(out).and_then(|()| frame_length((out.len() - start) as u64));
    match written {
        Ok(frame_bytes) => {
            out[start..start + 4].copy_from_slice(&frame_bytes.to_le_bytes());
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}

/// Appends the header of a frame whose length is known: (opcode, flags) and (request id, epoch,
/// deadline in microseconds).
#[inline]
pub(crate) fn put_head(
    out: &mut Vec<u8>,
    (opcode, flags): (u8, u8),
    (request_id, epoch, deadline_us): (u64, u64, u32),
    frame_bytes: u32,
) {
    FrameHead {
        frame_bytes: frame_bytes.into(),
        header_bytes: (HEADER_BYTES as u16).into(),
        opcode,
        flags,
        request_id: request_id.into(),
        epoch: epoch.into(),
        deadline_us: deadline_us.into(),
        reserved: [0; 4],
    }
    .put(out);
}

/// A frame's length as its header says it.
#[inline]
pub(crate) fn frame_length(bytes: u64) -> Result<u32, ProtocolError> {
    u32::try_from(bytes).map_err(|_| ProtocolError::TooLarge {
        what: "frame",
        bytes,
        max: u64::from(u32::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preface_is_refused_at_its_first_wrong_byte() {
        let bytes = Preface::OURS.to_bytes();
        assert_eq!(bytes, [0xB1, b'P', b'I', b'N', 1, 0, 1, 0]);
        assert_eq!(Preface::read(&bytes), Ok(Some(Preface::OURS)));
        assert_eq!(Preface::read(&bytes[..7]), Ok(None));
        assert_eq!(Preface::read(b"G"), Err(ProtocolError::BadPreface));
        assert_eq!(Preface::read(&[0xB1, b'P', b'X']), Err(ProtocolError::BadPreface));
        assert_eq!(Preface::read(&[0xB1, b'P', b'I', b'N', 2, 0, 1, 0]), Err(ProtocolError::BadPreface));
    }

    #[test]
    fn the_highest_common_version_is_chosen() {
        assert_eq!(Preface { lowest: 0, highest: 9 }.negotiate(), Ok(VERSION_HIGHEST));
        let newer = Preface { lowest: VERSION_HIGHEST + 1, highest: VERSION_HIGHEST + 2 };
        let error = newer.negotiate().unwrap_err();
        assert!(error.is_fatal());
        assert_eq!(error.code(), crate::ErrorCode::Unsupported);
    }

    #[test]
    fn opcodes_are_their_numbers_in_order() {
        for (index, opcode) in Opcode::ALL.iter().enumerate() {
            assert_eq!(usize::from(opcode.to_u8()), index + 1);
            assert_eq!(Opcode::from_u8(opcode.to_u8()), Some(*opcode));
            assert!(!opcode.name().is_empty());
        }
        assert_eq!(Opcode::from_u8(0), None);
        assert_eq!(Opcode::from_u8(18), None);
        assert_eq!(Opcode::PutIf.name(), "put_if");
    }

    #[test]
    fn a_header_that_contradicts_itself_is_refused() {
        let mut frame = Vec::new();
        write_frame(&mut frame, (2, 0), (7, 8, 9), |_| Ok(())).unwrap();
        assert_eq!(frame.len(), HEADER_BYTES);
        let header = Header::read(&frame).unwrap().unwrap();
        assert_eq!((header.request_id, header.epoch, header.deadline_us), (7, 8, 9));
        assert_eq!(Header::read(&frame[..31]), Ok(None));
        for (at, byte) in [(0, 31), (4, 31), (4, 33), (28, 1)] {
            let mut bad = frame.clone();
            bad[at] = byte;
            assert!(matches!(Header::read(&bad), Err(ProtocolError::BadHeader(_))), "{at} {byte}");
        }
    }
}
