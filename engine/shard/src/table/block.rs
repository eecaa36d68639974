//! Data blocks: the unit of reading, of caching and of checksums.
//!
//! A block's payload is a small directory (groups of records that share partition and namespace,
//! then a slot and a tag per record) and the records in order. A key is found by its tag, one byte
//! of its hash: one look at the directory, one at the record, where a bisection would touch
//! several. Places in the order are found by bisection. Nothing is decoded ahead: a [`BlockView`]
//! is the payload itself, checked once when it comes from the disk, after which no access can fail.
//!
//! Sizes: 27 bytes per record beside key and value (19 without an expiry), 8 per group, 36 per
//! block; so seven records of 32 + 512 bytes fit 4 KiB, whatever partitions they belong to.

use std::cmp::Ordering;

use pinion_env::{AlignedBuf, PAGE_BYTES};

use super::UNIT_BYTES_MAX;
use super::format::{BLOCK_HEADER_BYTES, BlockPlace, BlockType, Damage, open_block};
use crate::codec::Decoder;
use crate::key::{KEY_BYTES_MAX, Key, NamespaceId, Partition, Position};
use crate::record::{RecordKind, RecordView};
use crate::stamp::Stamp;

/// Records u16, groups u16.
pub(super) const COUNTS_BYTES: usize = 4;
/// First record u16, partition u16, namespace u32.
pub(super) const GROUP_BYTES: usize = 8;
/// Where a record starts, u16.
const SLOT_BYTES: usize = 2;
/// The low byte of a key's hash. (The high bits are spent: they choose the partition.)
const TAG_BYTES: usize = 1;
/// What the directory holds of each record.
pub(super) const LISTED_BYTES: usize = SLOT_BYTES + TAG_BYTES;
/// Stamp, key length u16, kind u8, flags u8.
pub(super) const RECORD_HEAD_BYTES: usize = Stamp::BYTES + 4;
pub(super) const EXPIRY_BYTES: usize = 8;
/// Flag: an expiry follows the head.
pub(super) const FLAG_EXPIRY: u8 = 1;

// The layout exists for this: a hit of the common sizes is one aligned 4 KiB read of a full block.
const _: () = assert!(
    BLOCK_HEADER_BYTES
        + COUNTS_BYTES
        + 7 * (GROUP_BYTES + LISTED_BYTES + RECORD_HEAD_BYTES + EXPIRY_BYTES + 32 + 512)
        <= PAGE_BYTES
);
// Slots are u16: every record that shares a block starts below 64 KiB.
const _: () = assert!(UNIT_BYTES_MAX <= 1 << 16);

/// Where a run of records with equal partition and namespace starts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    pub(super) first: u16,
    pub(super) partition: Partition,
    pub(super) namespace: NamespaceId,
}

/// The checked payload of a data block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockView<'a> {
    payload: &'a [u8],
    records: usize,
    groups: usize,
}

impl<'a> BlockView<'a> {
    /// Checks header, checksum and layout of a block with its padding.
    pub(crate) fn open(block: &'a [u8], place: &BlockPlace) -> Result<Self, Damage> {
        let payload = open_block(block, place)?;
        Self::check(payload).map_err(|mut damage| {
            damage.at += BLOCK_HEADER_BYTES as u64;
            damage
        })
    }

    /// Checks everything that accesses rely on, so that none of them can fail or panic.
    fn check(payload: &'a [u8]) -> Result<Self, Damage> {
        let short = || Damage::new(0, "block layout", "counts, groups and slots", payload.len());
        let mut fields = Decoder::new(payload);
        let records = usize::from(fields.u16().ok_or_else(short)?);
        let groups = usize::from(fields.u16().ok_or_else(short)?);
        if groups == 0 || groups > records {
            return Err(Damage::new(0, "records and groups", "1 or more", format!("{records}, {groups}")));
        }
        let directory = COUNTS_BYTES + groups * GROUP_BYTES + records * LISTED_BYTES;
        if directory > payload.len() {
            return Err(short());
        }
        let view = Self { payload, records, groups };
        let mut previous: Option<Group> = None;
        for index in 0..groups {
            let group = view.group(index);
            let ascends = previous.is_none_or(|previous| {
                previous.first < group.first
                    && (previous.partition, previous.namespace) < (group.partition, group.namespace)
            });
            let starts = previous.is_some() || group.first == 0;
            if !ascends || !starts || usize::from(group.first) >= records {
                let at = COUNTS_BYTES + index * GROUP_BYTES;
                return Err(Damage::new(at, "group order", "ascending from record 0", format!("{group:?}")));
            }
            previous = Some(group);
        }
        let mut expected = directory;
        for index in 0..records {
            let at = view.slot(index);
            let end = if index + 1 < records { view.slot(index + 1) } else { payload.len() };
            let whole = payload.get(at..end).filter(|_| at == expected).and_then(check_record);
            expected = end;
            if whole.is_none() {
                return Err(Damage::new(at, "record", "a whole record", format!("bytes {at} to {end}")));
            }
        }
        Ok(view)
    }

    /// How many records: at least one.
    pub(crate) const fn len(&self) -> usize {
        self.records
    }

    pub(crate) const fn shape(&self) -> BlockShape {
        BlockShape { payload_bytes: self.payload.len(), records: self.records, groups: self.groups }
    }

    /// The record under a position.
    pub(crate) fn find(&self, position: &Position<'_>) -> Option<RecordView<'a>> {
        let index = self.lower_bound(position);
        if index == self.records || self.position(index) != *position {
            return None;
        }
        Some(self.record(index))
    }

    /// The number of the record under a key.
    pub(crate) fn search(&self, key: &Key<'_>) -> Option<usize> {
        let (low, high) = self.group_of(&key.position()).ok()?;
        let tag = tag_of(key.hash);
        let tags = COUNTS_BYTES + self.groups * GROUP_BYTES + self.records * SLOT_BYTES;
        let tags = &self.payload[tags + low..tags + high];
        let candidates = (low..high).zip(tags).filter(|(_, found)| **found == tag);
        candidates.map(|(index, _)| index).find(|index| self.user(*index) == key.user)
    }

    /// The tag of a record.
    pub(crate) fn tag(&self, index: usize) -> u8 {
        self.payload[COUNTS_BYTES + self.groups * GROUP_BYTES + self.records * SLOT_BYTES + index]
    }

    /// The first record that is not before a position; [`Self::len`] if all are.
    pub(crate) fn lower_bound(&self, position: &Position<'_>) -> usize {
        let (mut low, mut high) = match self.group_of(position) {
            Ok(range) => range,
            Err(next) => return next,
        };
        while low < high {
            let middle = low.midpoint(high);
            if self.user(middle) < position.user {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The records that share partition and namespace with a position, or the first one behind
    /// where they would be.
    fn group_of(&self, position: &Position<'_>) -> Result<(usize, usize), usize> {
        let wanted = (position.partition, position.namespace);
        // A block has one group or two, rarely more.
        for index in 0..self.groups {
            let group = self.group(index);
            let first = usize::from(group.first);
            match (group.partition, group.namespace).cmp(&wanted) {
                Ordering::Less => {}
                Ordering::Greater => return Err(first),
                Ordering::Equal if index + 1 == self.groups => return Ok((first, self.records)),
                Ordering::Equal => return Ok((first, usize::from(self.group(index + 1).first))),
            }
        }
        Err(self.records)
    }

    /// The position of a record.
    pub(crate) fn position(&self, index: usize) -> Position<'a> {
        let mut group = self.group(0);
        for next in 1..self.groups {
            let next = self.group(next);
            if usize::from(next.first) > index {
                break;
            }
            group = next;
        }
        Position { partition: group.partition, namespace: group.namespace, user: self.user(index) }
    }

    /// A record.
    pub(crate) fn record(&self, index: usize) -> RecordView<'a> {
        let (head, body) = self.split(index);
        let expiry = expiry_bytes(head);
        let expiry_ms = body[..expiry].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        RecordView {
            kind: RecordKind::from_u8(head[14]).expect("kinds are checked when the block is opened"),
            stamp: Stamp::from_bytes(*head.first_chunk().expect("a head starts with a stamp")),
            expiry_ms,
            value: &body[expiry + key_bytes(head)..],
        }
    }

    fn user(&self, index: usize) -> &'a [u8] {
        let (head, body) = self.split(index);
        &body[expiry_bytes(head)..][..key_bytes(head)]
    }

    /// The head of a record and what follows it.
    fn split(&self, index: usize) -> (&'a [u8; RECORD_HEAD_BYTES], &'a [u8]) {
        let start = self.slot(index);
        let end = if index + 1 < self.records { self.slot(index + 1) } else { self.payload.len() };
        self.payload[start..end].split_first_chunk().expect("records are checked when the block is opened")
    }

    fn slot(&self, index: usize) -> usize {
        let at = COUNTS_BYTES + self.groups * GROUP_BYTES + index * SLOT_BYTES;
        usize::from(u16::from_le_bytes([self.payload[at], self.payload[at + 1]]))
    }

    fn group(&self, index: usize) -> Group {
        let at = COUNTS_BYTES + index * GROUP_BYTES;
        let [a, b, c, d, e, f, g, h] =
            *self.payload[at..].first_chunk().expect("groups are checked when the block is opened");
        Group {
            first: u16::from_le_bytes([a, b]),
            partition: Partition(u16::from_le_bytes([c, d])),
            namespace: NamespaceId(u32::from_le_bytes([e, f, g, h])),
        }
    }
}

/// What the directory keeps of a key's hash.
pub(crate) const fn tag_of(hash: u64) -> u8 {
    hash as u8
}

fn check_record(record: &[u8]) -> Option<()> {
    let (head, body) = record.split_first_chunk::<RECORD_HEAD_BYTES>()?;
    RecordKind::from_u8(head[14])?;
    let key = key_bytes(head);
    let plausible = head[15] & !FLAG_EXPIRY == 0 && (1..=KEY_BYTES_MAX).contains(&key);
    (plausible && body.len() >= expiry_bytes(head) + key).then_some(())
}

fn key_bytes(head: &[u8; RECORD_HEAD_BYTES]) -> usize {
    usize::from(u16::from_le_bytes([head[12], head[13]]))
}

fn expiry_bytes(head: &[u8; RECORD_HEAD_BYTES]) -> usize {
    if head[15] & FLAG_EXPIRY == 0 { 0 } else { EXPIRY_BYTES }
}

/// What is known of a checked block: turns its bytes into a [`BlockView`] again without a check.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockShape {
    payload_bytes: usize,
    records: usize,
    groups: usize,
}

impl BlockShape {
    /// The view of the block that this shape was taken of; `block` starts with its header.
    pub(crate) fn view<'a>(&self, block: &'a [u8]) -> BlockView<'a> {
        let payload = &block[BLOCK_HEADER_BYTES..][..self.payload_bytes];
        BlockView { payload, records: self.records, groups: self.groups }
    }
}

/// A data block in memory, in the buffer it was read into.
#[derive(Debug)]
pub struct Block {
    buffer: AlignedBuf,
    shape: BlockShape,
}

impl Block {
    /// Checks what was read: `bytes` at the front of `buffer`.
    pub(crate) fn open(
        buffer: AlignedBuf,
        bytes: usize,
        table: u64,
        page: u32,
        seed: u64,
    ) -> Result<Self, Damage> {
        let place = BlockPlace { kind: BlockType::Data, table, page, seed };
        let shape = BlockView::open(&buffer[..bytes], &place)?.shape();
        Ok(Self { buffer, shape })
    }

    /// The record under a position.
    pub fn find(&self, position: &Position<'_>) -> Option<RecordView<'_>> {
        self.view().find(position)
    }

    /// The index of the record under a key, for [`Block::record`]. The quick way: by the key's
    /// hash.
    pub fn search(&self, key: &Key<'_>) -> Option<usize> {
        self.view().search(key)
    }

    /// The index of the record under a position, for [`Block::record`].
    pub fn index_of(&self, position: &Position<'_>) -> Option<usize> {
        let view = self.view();
        let index = view.lower_bound(position);
        (index < self.shape.records && view.position(index) == *position).then_some(index)
    }

    /// The record of an index.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn record(&self, index: usize) -> RecordView<'_> {
        self.view().record(index)
    }

    /// How many records it holds.
    pub const fn records(&self) -> usize {
        self.shape.records
    }

    /// Memory in bytes.
    pub fn resident_bytes(&self) -> usize {
        size_of::<Self>() + self.buffer.capacity()
    }

    pub(crate) fn view(&self) -> BlockView<'_> {
        self.shape.view(&self.buffer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::block_builder::BlockBuilder;
    use super::*;
    use crate::stamp::{HybridTime, Origin};

    const PLACE: BlockPlace = BlockPlace { kind: BlockType::Data, table: 4, page: 2, seed: 1 };

    type Owned = ((u16, u32, Vec<u8>), (bool, u64, u64, Vec<u8>));

    fn record(of: &Owned) -> (Position<'_>, RecordView<'_>) {
        let ((partition, namespace, user), (tombstone, time, expiry_ms, value)) = of;
        let kind = if *tombstone { RecordKind::Tombstone } else { RecordKind::Value };
        let stamp = Stamp { time: HybridTime(*time), origin: Origin(*time as u32) };
        let position =
            Position { partition: Partition(*partition), namespace: NamespaceId(*namespace), user };
        (position, RecordView { kind, stamp, expiry_ms: *expiry_ms, value })
    }

    fn key<'a>(position: &Position<'a>) -> Key<'a> {
        Key::placed(position.partition, position.namespace, position.user)
    }

    fn seal(records: &[Owned]) -> Vec<u8> {
        let (mut builder, mut out) = (BlockBuilder::default(), Vec::new());
        for of in records {
            let (position, view) = record(of);
            let expected = builder.bytes_with(&position, &view);
            builder.push(&position, key(&position).hash, &view);
            assert_eq!(builder.bytes(), expected);
        }
        let bytes = builder.bytes();
        builder.seal_into(&PLACE, &mut out);
        assert_eq!(out.len(), bytes);
        assert!(builder.is_empty());
        out
    }

    fn keys() -> impl Strategy<Value = (u16, u32, Vec<u8>)> {
        (0u16..4, 0u32..3, prop::collection::vec(prop::sample::select(b"\0ab\xFF".to_vec()), 1..6))
    }

    fn values() -> impl Strategy<Value = (bool, u64, u64, Vec<u8>)> {
        (
            any::<bool>(),
            any::<u64>(),
            prop_oneof![Just(0), any::<u64>()],
            prop::collection::vec(any::<u8>(), 0..50),
        )
    }

    proptest! {
        #[test]
        fn a_block_answers_like_a_map(
            records in prop::collection::btree_map(keys(), values(), 1..60),
            probes in prop::collection::vec(keys(), 0..60),
        ) {
            let records: Vec<Owned> = records.into_iter().collect();
            let sealed = seal(&records);
            let view = BlockView::open(&sealed, &PLACE).unwrap();
            prop_assert_eq!(view.len(), records.len());
            for (index, of) in records.iter().enumerate() {
                let (position, expected) = record(of);
                prop_assert_eq!(view.position(index), position);
                prop_assert_eq!(view.record(index), expected);
                prop_assert_eq!(view.find(&position), Some(expected));
                prop_assert_eq!(view.search(&key(&position)), Some(index));
                prop_assert_eq!(view.tag(index), tag_of(key(&position).hash));
            }
            for probe in probes {
                let expected = records.iter().position(|(key, _)| *key >= probe).unwrap_or(records.len());
                let of = (probe, (false, 0, 0, Vec::new()));
                let position = record(&of).0;
                prop_assert_eq!(view.lower_bound(&position), expected);
                let there = records.get(expected).filter(|(key, _)| *key == of.0);
                prop_assert_eq!(view.find(&position), there.map(|found| record(found).1));
                prop_assert_eq!(view.search(&key(&position)), there.map(|_| expected));
            }
        }

        #[test]
        fn a_payload_of_any_bytes_is_refused_or_readable(
            mut payload in prop::collection::vec(any::<u8>(), 0..300),
            counts in (0u16..5, 0u16..3),
        ) {
            if payload.len() >= 4 {
                payload[..2].copy_from_slice(&counts.0.to_le_bytes());
                payload[2..4].copy_from_slice(&counts.1.to_le_bytes());
            }
            walk(&payload);
        }
    }

    fn walk(payload: &[u8]) {
        if let Ok(view) = BlockView::check(payload) {
            for index in 0..view.len() {
                _ = (view.position(index), view.record(index));
                _ = (view.find(&view.position(index)), view.search(&key(&view.position(index))));
            }
        }
    }

    #[test]
    fn a_damaged_layout_is_refused_or_readable() {
        let records: Vec<Owned> = (0..9)
            .map(|number| {
                ((number / 3, 1, vec![number as u8, 7]), (number == 4, 5, u64::from(number % 2), vec![9; 5]))
            })
            .collect();
        let sealed = seal(&records);
        let payload = &sealed[BLOCK_HEADER_BYTES..];
        for at in 0..payload.len() {
            walk(&payload[..at]);
            for mask in 1..=255 {
                let mut damaged = payload.to_vec();
                damaged[at] ^= mask;
                walk(&damaged);
            }
        }
    }

    #[test]
    fn a_record_larger_than_any_unit_has_a_block_of_its_own() {
        let large: Owned = ((1, 2, b"key".to_vec()), (false, 3, 4, vec![5; 300_000]));
        let sealed = seal(std::slice::from_ref(&large));
        let view = BlockView::open(&sealed, &PLACE).unwrap();
        let (position, expected) = record(&large);
        assert_eq!(view.find(&position), Some(expected));
    }
}
