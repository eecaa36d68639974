//! The bytes of a manifest: frames of edits, and the file CURRENT.

use std::path::Path;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{Edit, MANIFEST_NUMBER_MAX};
use crate::codec::{Decoder, put_position};
use crate::error::{Corruption, Error, Result};
use crate::framing::{HeaderFault, HeaderKind};
use crate::identity::Identity;
use crate::log::LogPosition;
use crate::stamp::HybridTime;
use crate::table::TableMeta;

/// Frames start on multiples of this, whatever the device: the step of a search for frames.
pub(super) const FRAME_STEP_BYTES: usize = 512;
/// Bytes of a frame's header.
pub(super) const FRAME_HEADER_BYTES: usize = FRAME.bytes;

const FRAME: HeaderKind = HeaderKind { name: "a manifest", magic: *b"PNMF", version: 1, bytes: 72 };
const CURRENT: HeaderKind = HeaderKind { name: "CURRENT", magic: *b"PNCU", version: 1, bytes: 40 };

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum FrameKind {
    /// Edits that were applied together.
    Edits = 1,
    /// Part of the state that the file starts with; more parts follow.
    Snapshot = 2,
    /// The last part of it.
    SnapshotEnd = 3,
    /// Nothing: it proves the frames before it.
    Mark = 4,
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) kind: FrameKind,
    /// The number in the file's name.
    pub(super) manifest: u64,
    /// Counts the frames of a file, from 0.
    pub(super) number: u32,
    /// Where the frame starts in its file.
    pub(super) offset: u32,
    /// Bytes of the frame with its padding.
    pub(super) frame_bytes: u32,
    /// Bytes of edits behind the header.
    pub(super) body_bytes: u32,
    /// XXH3-64 of the edits.
    pub(super) body_checksum: u64,
}

/// What binds a shard's manifest to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Binding {
    pub(super) seed: u64,
    database_hash: u64,
    shard: u16,
}

impl Binding {
    pub(super) fn new(identity: &Identity) -> Self {
        let database_hash = xxh3_64(&identity.database.0.to_le_bytes());
        Self { seed: identity.seed(), database_hash, shard: identity.shard }
    }
}

/// Why there is no good frame at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameFault {
    Header(HeaderFault),
    Field { what: &'static str, expected: u64, found: u64 },
}

impl FrameFault {
    pub(super) fn error(self, file: &Path, offset: u64) -> Error {
        match self {
            Self::Header(fault) => FRAME.error(fault, file, offset),
            Self::Field { what, expected, found } => {
                let (expected, found) = (format!("{expected:#x}"), format!("{found:#x}"));
                Corruption { file: file.to_path_buf(), offset, what, expected, found }.into()
            }
        }
    }
}

/// Appends a frame of at least one unit to `out`, zero-padded to whole units.
pub(super) fn put_frame(
    out: &mut Vec<u8>,
    binding: &Binding,
    kind: FrameKind,
    place: (u64, u32, u32),
    body: &[u8],
    unit_bytes: usize,
) {
    let (manifest, number, offset) = place;
    let start = out.len();
    let frame_bytes = (FRAME.bytes + body.len()).next_multiple_of(unit_bytes);
    out.resize(start + FRAME.bytes, 0);
    out.extend_from_slice(body);
    out.resize(start + frame_bytes, 0);
    let header = &mut out[start..start + FRAME.bytes];
    header[16..24].copy_from_slice(&binding.database_hash.to_le_bytes());
    header[24..26].copy_from_slice(&binding.shard.to_le_bytes());
    header[26..28].copy_from_slice(&(kind as u16).to_le_bytes());
    header[28..32].copy_from_slice(&number.to_le_bytes());
    header[32..40].copy_from_slice(&manifest.to_le_bytes());
    header[40..44].copy_from_slice(&offset.to_le_bytes());
    header[44..48].copy_from_slice(&(frame_bytes as u32).to_le_bytes());
    header[48..52].copy_from_slice(&(body.len() as u32).to_le_bytes());
    header[56..64].copy_from_slice(&xxh3_64_with_seed(body, binding.seed).to_le_bytes());
    FRAME.seal(header, binding.seed);
}

impl FrameHeader {
    /// Checks the header of the frame that should stand at `offset` of a manifest.
    pub(super) fn decode(
        bytes: &[u8],
        binding: &Binding,
        manifest: u64,
        offset: u32,
    ) -> Result<Self, FrameFault> {
        let mut fields = FRAME.open(bytes, binding.seed).map_err(FrameFault::Header)?;
        let mut read = || {
            let database = fields.u64()?;
            let shard = fields.u16()?;
            let kind = fields.u16()?;
            let number = fields.u32()?;
            let manifest = fields.u64()?;
            let offset = fields.u32()?;
            let frame_bytes = fields.u32()?;
            let body_bytes = fields.u32()?;
            let _reserved = fields.u32()?;
            let body_checksum = fields.u64()?;
            Some((database, shard, kind, number, manifest, offset, frame_bytes, body_bytes, body_checksum))
        };
        let (database, shard, kind, number, found, at, frame_bytes, body_bytes, body_checksum) =
            read().expect("72 bytes hold the fields");
        let checks: [(&'static str, u64, u64); 4] = [
            ("database of a manifest frame", binding.database_hash, database),
            ("shard of a manifest frame", u64::from(binding.shard), u64::from(shard)),
            ("number of a manifest", manifest, found),
            ("offset of a manifest frame", u64::from(offset), u64::from(at)),
        ];
        for (what, expected, found) in checks {
            if expected != found {
                return Err(FrameFault::Field { what, expected, found });
            }
        }
        let kind = match kind {
            1 => FrameKind::Edits,
            2 => FrameKind::Snapshot,
            3 => FrameKind::SnapshotEnd,
            4 => FrameKind::Mark,
            other => {
                let what = "kind of a manifest frame";
                return Err(FrameFault::Field { what, expected: 1, found: u64::from(other) });
            }
        };
        let least = FRAME.bytes as u64 + u64::from(body_bytes);
        if u64::from(frame_bytes) < least || !(frame_bytes as usize).is_multiple_of(FRAME_STEP_BYTES) {
            let found = u64::from(frame_bytes);
            return Err(FrameFault::Field { what: "size of a manifest frame", expected: least, found });
        }
        Ok(Self { kind, manifest, number, offset, frame_bytes, body_bytes, body_checksum })
    }

    /// The frame's edits, checked; `frame` starts with the frame.
    pub(super) fn body<'a>(&self, frame: &'a [u8], binding: &Binding) -> Result<&'a [u8], FrameFault> {
        let end = FRAME.bytes + self.body_bytes as usize;
        let Some(body) = frame.get(FRAME.bytes..end) else {
            let (expected, found) = (end as u64, frame.len() as u64);
            return Err(FrameFault::Field { what: "bytes of a manifest frame", expected, found });
        };
        let computed = xxh3_64_with_seed(body, binding.seed);
        if computed != self.body_checksum {
            let what = "checksum of a manifest frame";
            return Err(FrameFault::Field { what, expected: computed, found: self.body_checksum });
        }
        Ok(body)
    }
}

const ADD_TABLE: u8 = 1;
const REMOVE_TABLE: u8 = 2;
const LOG_RELEASED: u8 = 3;
const NEXT_FILE: u8 = 4;
const COMPACT_CURSOR: u8 = 5;
const CLOCK_CEILING: u8 = 6;

/// Appends an edit's bytes.
pub(super) fn put_edit(out: &mut Vec<u8>, edit: &Edit) {
    match edit {
        Edit::AddTable { level, run, meta } => {
            out.extend_from_slice(&[ADD_TABLE, *level]);
            out.extend_from_slice(&run.to_le_bytes());
            meta.encode(out);
        }
        Edit::RemoveTable { number } => {
            out.push(REMOVE_TABLE);
            out.extend_from_slice(&number.to_le_bytes());
        }
        Edit::LogReleased { position } => {
            out.push(LOG_RELEASED);
            out.extend_from_slice(&position.0.to_le_bytes());
        }
        Edit::NextFile { number } => {
            out.push(NEXT_FILE);
            out.extend_from_slice(&number.to_le_bytes());
        }
        Edit::CompactCursor { level, position } => {
            out.extend_from_slice(&[COMPACT_CURSOR, *level]);
            put_position(out, &position.borrow());
        }
        Edit::ClockCeiling { time } => {
            out.push(CLOCK_CEILING);
            out.extend_from_slice(&time.0.to_le_bytes());
        }
    }
}

/// Reads one edit; `None` if the bytes are none.
pub(super) fn decode_edit(from: &mut Decoder<'_>) -> Option<Edit> {
    Some(match from.u8()? {
        ADD_TABLE => Edit::AddTable { level: from.u8()?, run: from.u64()?, meta: TableMeta::decode(from)? },
        REMOVE_TABLE => Edit::RemoveTable { number: from.u64()? },
        LOG_RELEASED => Edit::LogReleased { position: LogPosition(from.u64()?) },
        NEXT_FILE => Edit::NextFile { number: from.u64()? },
        COMPACT_CURSOR => Edit::CompactCursor { level: from.u8()?, position: from.position()? },
        CLOCK_CEILING => Edit::ClockCeiling { time: HybridTime(from.u64()?) },
        _ => return None,
    })
}

/// The content of CURRENT.
pub(super) fn encode_current(binding: &Binding, manifest: u64) -> Vec<u8> {
    let mut header = vec![0; CURRENT.bytes];
    header[16..24].copy_from_slice(&binding.database_hash.to_le_bytes());
    header[24..26].copy_from_slice(&binding.shard.to_le_bytes());
    header[32..40].copy_from_slice(&manifest.to_le_bytes());
    CURRENT.seal(&mut header, 0);
    header
}

/// The manifest that CURRENT names.
pub(super) fn decode_current(bytes: &[u8], binding: &Binding, file: &Path) -> Result<u64> {
    let mut fields = CURRENT.open(bytes, 0).map_err(|fault| CURRENT.error(fault, file, 0))?;
    let mut read = || {
        let (database, shard) = (fields.u64()?, fields.u16()?);
        fields.bytes(6)?;
        Some((database, shard, fields.u64()?))
    };
    let (database, shard, manifest) = read().expect("40 bytes hold the fields");
    if database != binding.database_hash || shard != binding.shard {
        return Err(Error::WrongFormat {
            file: file.to_path_buf(),
            reason: format!("it belongs to another database or shard (shard {shard} of it)"),
        });
    }
    if manifest > MANIFEST_NUMBER_MAX {
        let (expected, found) = (format!("at most {MANIFEST_NUMBER_MAX}"), manifest.to_string());
        return Err(
            Corruption { file: file.to_path_buf(), offset: 32, what: "manifest", expected, found }.into()
        );
    }
    Ok(manifest)
}
