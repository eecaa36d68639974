//! The bytes of a log segment: its header page, blocks, records and operations.
//!
//! Written out in `engine/FORMAT.md`, section Log. Every byte that counts is covered by exactly one XXH3-64: a
//! record's bytes by the record's checksum, and the block's header, which contains a fold of the
//! records' checksums in their order, by the header's. Payload bytes are therefore hashed once,
//! while they are staged, and a record left over from another block in the same place is still
//! found, because it is not in the fold.

use std::path::Path;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{LogOp, LogPosition};
use crate::checksum::SeededHash;
use crate::codec::Decoder;
use crate::error::{Corruption, Error, Result};
use crate::framing::{HeaderFault, HeaderKind, PRELUDE_BYTES};
use crate::identity::{DatabaseId, Identity};
use crate::key::{NamespaceId, Partition};
use crate::record::RecordKind;
use crate::stamp::{HybridTime, Stamp};

/// Where the first block of a segment starts: behind the header page.
pub(super) const BLOCKS_START: u32 = 4096;
/// Blocks start on multiples of this, whatever the device: the step of a search for blocks.
pub(super) const BLOCK_STEP_BYTES: u32 = 512;
/// Bytes of a record's header.
pub(super) const RECORD_HEADER_BYTES: usize = 32;
/// Bytes of an operation's header.
pub(super) const OP_HEADER_BYTES: usize = 24;
/// Bytes of a block's header.
pub(super) const BLOCK_HEADER_BYTES: usize = BLOCK.bytes;

const SEGMENT: HeaderKind = HeaderKind { name: "a log segment", magic: *b"PNWS", version: 1, bytes: 48 };
const BLOCK: HeaderKind = HeaderKind { name: "a log block", magic: *b"PNWB", version: 1, bytes: 96 };

const _: () = assert!(SEGMENT.bytes <= BLOCKS_START as usize);
const _: () = assert!(BLOCK.bytes + RECORD_HEADER_BYTES + OP_HEADER_BYTES < BLOCK_STEP_BYTES as usize);

/// What binds a log's bytes to its shard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Binding {
    pub(super) seed: u64,
    database: DatabaseId,
    database_hash: u64,
    shard: u16,
}

impl Binding {
    pub(super) fn new(identity: &Identity) -> Self {
        Self {
            seed: identity.seed(),
            database: identity.database,
            database_hash: xxh3_64(&identity.database.0.to_le_bytes()),
            shard: identity.shard,
        }
    }
}

/// The header page of a segment. Written once when the file is made, kept when it is recycled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Padding unit of the device it was made on, in bytes.
    pub(super) unit_bytes: u32,
    /// Size of the file in bytes.
    pub(super) segment_bytes: u64,
}

impl SegmentHeader {
    pub(super) fn encode(&self, binding: &Binding, page: &mut [u8]) {
        let header = &mut page[..SEGMENT.bytes];
        header[16..32].copy_from_slice(&binding.database.0.to_le_bytes());
        header[32..34].copy_from_slice(&binding.shard.to_le_bytes());
        header[34..36].fill(0);
        header[36..40].copy_from_slice(&self.unit_bytes.to_le_bytes());
        header[40..48].copy_from_slice(&self.segment_bytes.to_le_bytes());
        // Not seeded: a segment of another shard should be named as such, not as damage.
        SEGMENT.seal(header, 0);
    }

    pub(super) fn decode(page: &[u8], binding: &Binding, file: &Path) -> Result<Self> {
        let mut fields = SEGMENT.open(page, 0).map_err(|fault| SEGMENT.error(fault, file, 0))?;
        let mut read =
            || Some((fields.array::<16>()?, fields.u16()?, fields.u16()?, fields.u32()?, fields.u64()?));
        let (database, shard, _, unit_bytes, segment_bytes) = read().expect("48 bytes hold the fields");
        if u128::from_le_bytes(database) != binding.database.0 || shard != binding.shard {
            return Err(Error::WrongFormat {
                file: file.to_path_buf(),
                reason: format!("the log segment belongs to another database or shard (shard {shard} of it)"),
            });
        }
        Ok(Self { unit_bytes, segment_bytes })
    }
}

/// The header of a block: one write of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockHeader {
    pub(super) segment: u32,
    /// Counts all blocks of a shard, one by one.
    pub(super) number: u64,
    /// Where the block starts in its segment.
    pub(super) offset: u32,
    /// Bytes of the block with its padding: the next one starts behind them.
    pub(super) block_bytes: u32,
    /// Bytes of header and records.
    pub(super) used_bytes: u32,
    pub(super) records: u32,
    /// Everything up to here was durable when this block was written.
    pub(super) synced_through: LogPosition,
    pub(super) clock_ceiling: HybridTime,
    /// The records' checksums, folded in order by [`fold_checksum`].
    pub(super) records_fold: u64,
}

/// Why there is no good block of the expected segment at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockFault {
    /// The segment's file ends here.
    SegmentEnd,
    Header(HeaderFault),
    /// A sound block of another database or shard, or one that belongs elsewhere.
    Elsewhere {
        what: &'static str,
        expected: u64,
        found: u64,
    },
    /// A record that does not fit its block, or whose checksum is wrong.
    Record {
        at: u32,
        what: &'static str,
        expected: u64,
        found: u64,
    },
}

impl BlockHeader {
    pub(super) fn encode(&self, binding: &Binding, header: &mut [u8]) {
        let header = &mut header[..BLOCK.bytes];
        let first_record = if self.records == 0 { 0 } else { BLOCK.bytes as u32 };
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let words = [
            binding.database_hash,
            u64::from(binding.shard) | u64::from(self.segment) << 32,
            self.number,
            pair(self.offset, self.block_bytes),
            pair(self.used_bytes, self.records),
            u64::from(first_record),
            self.synced_through.0,
            self.clock_ceiling.0,
            self.records_fold,
            0,
        ];
        for (field, word) in header[PRELUDE_BYTES..].chunks_exact_mut(8).zip(words) {
            field.copy_from_slice(&word.to_le_bytes());
        }
        BLOCK.seal(header, binding.seed);
    }

    /// Checks the header alone. What it says of earlier blocks holds even if its own records were
    /// torn off.
    pub(super) fn decode(
        bytes: &[u8],
        binding: &Binding,
        segment: u32,
        offset: u32,
    ) -> Result<Self, BlockFault> {
        let mut fields = BLOCK.open(bytes, binding.seed).map_err(BlockFault::Header)?;
        let mut words = [0; 10];
        for word in &mut words {
            *word = fields.u64().expect("96 bytes hold the fields");
        }
        let [database_hash, place, number, span, used, _first_record, synced_through, ceiling, fold, _] =
            words;
        let halves = |word: u64| (word as u32, (word >> 32) as u32);
        let (offset_found, block_bytes) = halves(span);
        let (used_bytes, records) = halves(used);
        let segment_found = halves(place).1;
        let header_bytes = BLOCK.bytes as u64;
        let checks: [(&'static str, u64, u64); 4] = [
            ("database of a block", binding.database_hash, database_hash),
            ("shard of a block", u64::from(binding.shard), place & 0xFFFF),
            ("segment id of a block", u64::from(segment), u64::from(segment_found)),
            ("offset of a block", u64::from(offset), u64::from(offset_found)),
        ];
        for (what, expected, found) in checks {
            if expected != found {
                return Err(BlockFault::Elsewhere { what, expected, found });
            }
        }
        if u64::from(used_bytes) < header_bytes
            || block_bytes < used_bytes
            || !block_bytes.is_multiple_of(BLOCK_STEP_BYTES)
        {
            let found = u64::from(block_bytes);
            return Err(BlockFault::Elsewhere {
                what: "size of a block",
                expected: u64::from(used_bytes),
                found,
            });
        }
        Ok(Self {
            segment,
            number,
            offset,
            block_bytes,
            used_bytes,
            records,
            synced_through: LogPosition(synced_through),
            clock_ceiling: HybridTime(ceiling),
            records_fold: fold,
        })
    }

    /// Checks all records of the block, whose used bytes `block` starts with.
    pub(super) fn check_records(&self, block: &[u8], binding: &Binding) -> Result<(), BlockFault> {
        let mut at = BLOCK.bytes;
        let mut fold = 0;
        let used = self.used_bytes as usize;
        for _ in 0..self.records {
            let fault = |what, expected, found| BlockFault::Record { at: at as u32, what, expected, found };
            let rest = &block[at..used];
            let Some(head) = RecordHead::decode(rest) else {
                return Err(fault("space for a record", RECORD_HEADER_BYTES as u64, rest.len() as u64));
            };
            let Some(record) = rest.get(..head.bytes as usize).filter(|r| r.len() >= RECORD_HEADER_BYTES)
            else {
                return Err(fault("length of a record", rest.len() as u64, u64::from(head.bytes)));
            };
            let computed = xxh3_64_with_seed(&record[8..], binding.seed);
            if computed != head.checksum {
                return Err(fault("checksum of a record", computed, head.checksum));
            }
            fold = fold_checksum(fold, computed);
            at += record.len();
        }
        let fault = |what, expected, found| BlockFault::Record { at: at as u32, what, expected, found };
        if at != used {
            return Err(fault("used bytes of a block", used as u64, at as u64));
        }
        if fold != self.records_fold {
            return Err(fault("records of a block", self.records_fold, fold));
        }
        Ok(())
    }

    /// Where the block ends with its padding.
    pub(super) fn end(&self) -> LogPosition {
        LogPosition::new(self.segment, self.offset + self.block_bytes)
    }
}

impl BlockFault {
    /// The fault as an error of the segment file.
    pub(super) fn corruption(self, file: &Path, offset: u32) -> Corruption {
        let (at, (what, expected, found)) = match self {
            Self::SegmentEnd => (0, ("block", "a log block".into(), "the end of the segment".into())),
            Self::Header(fault) => (0, BLOCK.describe(fault)),
            Self::Elsewhere { what, expected, found } => (0, (what, expected.to_string(), found.to_string())),
            Self::Record { at, what, expected, found } => {
                (at, (what, format!("{expected:#x}"), format!("{found:#x}")))
            }
        };
        let offset = u64::from(offset) + u64::from(at);
        Corruption { file: file.to_path_buf(), offset, what, expected, found }
    }
}

/// Whether a block may start here: cheap, for searching.
pub(super) fn looks_like_block(bytes: &[u8]) -> bool {
    bytes.get(8..12) == Some(&BLOCK.magic)
}

/// Adds a record's checksum to a block's fold. For a fixed left side it is a bijection of the
/// right one and the other way round, and it does not commute.
pub(super) const fn fold_checksum(fold: u64, checksum: u64) -> u64 {
    (fold ^ checksum).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31)
}

/// Bytes that a record of these operations takes; `None` if a length does not fit its field.
pub(super) fn record_bytes(ops: &[LogOp<'_>]) -> Option<usize> {
    let mut bytes = RECORD_HEADER_BYTES;
    for op in ops {
        if op.key.len() > usize::from(u16::MAX) || op.value.len() > u32::MAX as usize {
            return None;
        }
        bytes = bytes.checked_add(OP_HEADER_BYTES + op.key.len())?.checked_add(op.value.len())?;
    }
    Some(bytes)
}

/// Writes a record over `record`, which is exactly [`record_bytes`] long, and gives its checksum.
pub(super) fn encode_record(record: &mut [u8], stamp: Stamp, ops: &[LogOp<'_>], hash: &SeededHash) -> u64 {
    let bytes = record.len() as u64;
    let (head, mut rest) = record.split_at_mut(RECORD_HEADER_BYTES);
    put_word(head, 1, bytes | (ops.len() as u64) << 32);
    put_word(head, 2, stamp.time.0);
    put_word(head, 3, u64::from(stamp.origin.0));
    for op in ops {
        let (op_head, tail) = rest.split_at_mut(OP_HEADER_BYTES);
        let place = u64::from(op.partition.0) << 16 | u64::from(op.namespace.0) << 32;
        put_word(op_head, 0, op.kind as u64 | place);
        put_word(op_head, 1, op.expiry_ms);
        put_word(op_head, 2, op.value.len() as u64 | (op.key.len() as u64) << 32);
        let (key, tail) = tail.split_at_mut(op.key.len());
        key.copy_from_slice(op.key);
        let (value, tail) = tail.split_at_mut(op.value.len());
        value.copy_from_slice(op.value);
        rest = tail;
    }
    debug_assert!(rest.is_empty());
    let checksum = hash.hash(&record[8..]);
    put_word(record, 0, checksum);
    checksum
}

fn put_word(bytes: &mut [u8], index: usize, word: u64) {
    bytes[index * 8..index * 8 + 8].copy_from_slice(&word.to_le_bytes());
}

/// The header of a record: one atomic batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHead {
    pub(super) checksum: u64,
    /// Bytes of the whole record.
    pub(super) bytes: u32,
    pub(super) ops: u32,
    pub(super) stamp: Stamp,
}

impl RecordHead {
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Decoder::new(bytes.get(..RECORD_HEADER_BYTES)?);
        Some(Self { checksum: from.u64()?, bytes: from.u32()?, ops: from.u32()?, stamp: from.stamp()? })
    }
}

/// Reads one operation from the front of `from`; `None` if it is not one.
fn decode_op<'a>(from: &mut Decoder<'a>) -> Option<LogOp<'a>> {
    let kind = RecordKind::from_u8(from.u8()?)?;
    let _reserved = from.u8()?;
    let partition = Partition(from.u16()?);
    let namespace = NamespaceId(from.u32()?);
    let expiry_ms = from.u64()?;
    let value_bytes = from.u32()?;
    let key_bytes = from.u16()?;
    let _reserved = from.u16()?;
    let key = from.bytes(usize::from(key_bytes))?;
    let value = from.bytes(value_bytes as usize)?;
    Some(LogOp { kind, partition, namespace, key, expiry_ms, value })
}

/// The operations of a replayed record, in order.
#[derive(Debug, Clone)]
pub struct Ops<'a> {
    from: Decoder<'a>,
    left: u32,
}

impl<'a> Ops<'a> {
    /// The operations behind a record's header. Ends early if a byte sequence is not an operation;
    /// [`Ops::are_sound`] tells.
    pub(super) fn new(body: &'a [u8], count: u32) -> Self {
        Self { from: Decoder::new(body), left: count }
    }

    /// Whether there are as many operations as said, with nothing behind them.
    pub(super) fn are_sound(mut self) -> bool {
        while self.left > 0 {
            if self.next().is_none() {
                return false;
            }
        }
        self.from.rest().is_empty()
    }
}

impl<'a> Iterator for Ops<'a> {
    type Item = LogOp<'a>;

    fn next(&mut self) -> Option<LogOp<'a>> {
        self.left = self.left.checked_sub(1)?;
        decode_op(&mut self.from)
    }
}
