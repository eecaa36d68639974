//! Where a memtable's bytes live: chunks that are only appended to.
//!
//! Every version of every key is one entry: a header of 48 bytes, the key, the value, padded to 8
//! bytes. An entry never moves and its key and value never change, so a 4-byte [`EntryRef`] names
//! it for the life of the memtable and cursors need no copies of keys. Chunks have one size, and
//! their buffers are reserved whole, so that the memory in use is known exactly; an entry larger
//! than an eighth of a chunk gets a chunk of its own, which bounds what is wasted at their ends.
//!
//! Header (memory only, never stored): sequence u64, stamp 12 bytes, namespace u32, expiry
//! u64, value length u32, link u32 (while staged: hash bits of the key), key length u16, partition
//! u16, kind u8, state u8, 2 unused.

use std::rc::Rc;

use pinion_env::{FRONT_BYTES, prefetch};

use super::chunk::{Chunk, ChunkPool};
use crate::key::{KEY_BYTES_MAX, Key, NamespaceId, Partition, Position};
use crate::record::{RecordKind, RecordView};
use crate::stamp::Stamp;

/// Bytes of an entry before its key.
pub(super) const HEADER_BYTES: usize = 48;
/// Entries start at multiples of this.
const UNIT_BYTES: usize = 8;
const CHUNK_BYTES_MIN: usize = 4 << 10;
const CHUNK_BYTES_MAX: usize = 8 << 20;
/// Bytes of an entry, or of its key and value, that are asked for ahead at most: what follows is read in
/// order, and the processor sees that.
const START_BYTES_MAX: usize = 1 << 10;

const SEQUENCE: usize = 0;
const STAMP: usize = 8;
const NAMESPACE: usize = 20;
const EXPIRY: usize = 24;
const VALUE_BYTES: usize = 32;
const LINK: usize = 36;
const KEY_BYTES: usize = 40;
const PARTITION: usize = 42;
const KIND: usize = 44;
const STATE: usize = 45;

const _: () = assert!(STAMP + Stamp::BYTES == NAMESPACE && STATE < HEADER_BYTES);
// The front of an entry, which is asked for ahead, has its header.
const _: () = assert!(HEADER_BYTES <= FRONT_BYTES);
const _: () = assert!(KEY_BYTES_MAX <= u16::MAX as usize && HEADER_BYTES.is_multiple_of(UNIT_BYTES));

/// Names one entry of one memtable for as long as that memtable lives. Meaningless in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntryRef(pub(super) u32);

/// What has become of a staged entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    Staged = 0,
    Settled = 1,
}

/// Append-only storage of entries.
#[derive(Debug)]
pub(super) struct Arena {
    chunks: Vec<Chunk>,
    pool: Rc<ChunkPool>,
    /// The chunk that small entries go to; `usize::MAX` before the first.
    active: usize,
    chunk_bytes: usize,
    /// Low bits of a reference that count units within a chunk.
    unit_bits: u32,
    allocated_bytes: usize,
    /// How large an entry most likely is.
    likely_bytes: usize,
}

impl Arena {
    /// The pool for the arenas of memtables of at most `bytes_max`: chunks of about 1/32 of it.
    pub(super) fn pool(bytes_max: usize) -> Rc<ChunkPool> {
        let share = (bytes_max / 32).max(1).next_power_of_two();
        let chunk_bytes = share.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
        ChunkPool::new(chunk_bytes, bytes_max / chunk_bytes)
    }

    /// An arena that takes no memory before its first entry.
    pub(super) fn new(pool: Rc<ChunkPool>) -> Self {
        let chunk_bytes = pool.chunk_bytes();
        Self {
            chunks: Vec::new(),
            pool,
            active: usize::MAX,
            chunk_bytes,
            unit_bits: (chunk_bytes / UNIT_BYTES).trailing_zeros(),
            allocated_bytes: 0,
            likely_bytes: FRONT_BYTES,
        }
    }

    /// Bytes an entry takes.
    pub(super) const fn entry_bytes(key_bytes: usize, value_bytes: usize) -> usize {
        (HEADER_BYTES + key_bytes + value_bytes).next_multiple_of(UNIT_BYTES)
    }

    /// Bytes of memory held, used or not.
    pub(super) const fn allocated_bytes(&self) -> usize {
        self.allocated_bytes + self.chunks.capacity() * size_of::<Chunk>()
    }

    /// At most this much more memory is held after `entries` more entries that take
    /// `entries_bytes` together, whatever their sizes.
    pub(super) fn growth_bytes_max(&self, entries: usize, entries_bytes: usize) -> usize {
        let free = self.chunks.get(self.active).map_or(0, |chunk| chunk.capacity() - chunk.used());
        let entry_max = self.chunk_bytes / 8;
        if entries_bytes <= free && entries_bytes <= entry_max {
            return 0;
        }
        // Small entries fill a new chunk to at least seven eighths; large ones fill theirs.
        let small = entries_bytes.div_ceil(self.chunk_bytes - entry_max) * self.chunk_bytes;
        let chunks = self.chunks.len() + entries.min(entries_bytes / entry_max + 1);
        let held = self.chunks.capacity();
        let table = if chunks > held { chunks.max(held * 2).max(4) - held } else { 0 };
        // A chunk of one entry is rounded up to whole pages, which for the smallest is most of it.
        let rounding =
            if entries_bytes > entry_max { entries.min(entries_bytes / entry_max + 1) * 4096 } else { 0 };
        small + rounding + table * size_of::<Chunk>()
    }

    /// Copies an entry in, staged.
    ///
    /// # Panics
    /// Past 2^32 units of 8 bytes or chunks; memtables are capped far below.
    pub(super) fn push(&mut self, key: &Key<'_>, record: &RecordView<'_>) -> EntryRef {
        let bytes = Self::entry_bytes(key.user.len(), record.value.len());
        self.likely_bytes = bytes.min(START_BYTES_MAX);
        let index = self.chunk_for(bytes);
        let chunk = &mut self.chunks[index];
        let start = chunk.used();
        let address = (index as u64) << self.unit_bits | (start / UNIT_BYTES) as u64;
        // The greatest reference is left out: the hash index stores references plus one.
        assert!(address < u64::from(u32::MAX), "a memtable's cap keeps it within its address space");
        let entry = EntryRef(address as u32);

        let mut header = [0; HEADER_BYTES];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(SEQUENCE, &u64::MAX.to_le_bytes());
        put(STAMP, &record.stamp.to_bytes());
        put(NAMESPACE, &key.namespace.0.to_le_bytes());
        put(EXPIRY, &record.expiry_ms.to_le_bytes());
        put(
            VALUE_BYTES,
            &u32::try_from(record.value.len()).expect("values are far below 4 GiB").to_le_bytes(),
        );
        put(LINK, &hash_bits(key.hash).to_le_bytes());
        put(KEY_BYTES, &u16::try_from(key.user.len()).expect("keys are at most KEY_BYTES_MAX").to_le_bytes());
        put(PARTITION, &key.partition.0.to_le_bytes());
        put(KIND, &[record.kind as u8]);
        put(STATE, &[State::Staged as u8]);

        // What pads the entry may be anything: nobody reads it.
        let (to_header, rest) = chunk.take(bytes).split_at_mut(HEADER_BYTES);
        let (to_key, rest) = rest.split_at_mut(key.user.len());
        to_header.copy_from_slice(&header);
        to_key.copy_from_slice(key.user);
        rest[..record.value.len()].copy_from_slice(record.value);
        // What is written next, most likely as large: while it is fetched, the next request is decoded.
        let (start, bytes) = (chunk.used(), self.likely_bytes);
        prefetch(&chunk.bytes()[start..chunk.capacity().min(start + bytes)]);
        entry
    }

    /// A chunk with room for `bytes`.
    fn chunk_for(&mut self, bytes: usize) -> usize {
        if bytes > self.chunk_bytes / 8 {
            return self.add_chunk(Chunk::new(bytes));
        }
        let fits = |chunk: &Chunk| chunk.capacity() - chunk.used() >= bytes;
        if !self.chunks.get(self.active).is_some_and(fits) {
            self.active = self.add_chunk(self.pool.take());
        }
        self.active
    }

    fn add_chunk(&mut self, chunk: Chunk) -> usize {
        self.allocated_bytes += chunk.capacity();
        self.chunks.push(chunk);
        self.chunks.len() - 1
    }

    #[inline]
    fn bytes_at(&self, entry: EntryRef) -> &[u8] {
        let index = (entry.0 >> self.unit_bits) as usize;
        let units = (entry.0 & ((1 << self.unit_bits) - 1)) as usize;
        &self.chunks[index].bytes()[units * UNIT_BYTES..]
    }

    #[inline]
    fn header(&self, entry: EntryRef) -> (&[u8; HEADER_BYTES], &[u8]) {
        self.bytes_at(entry).split_first_chunk().expect("a reference names a whole entry of this memtable")
    }

    #[inline]
    fn header_mut(&mut self, entry: EntryRef) -> &mut [u8] {
        let index = (entry.0 >> self.unit_bits) as usize;
        let units = (entry.0 & ((1 << self.unit_bits) - 1)) as usize;
        &mut self.chunks[index].bytes_mut()[units * UNIT_BYTES..][..HEADER_BYTES]
    }

    /// The place of an entry.
    #[inline]
    pub(super) fn position(&self, entry: EntryRef) -> Position<'_> {
        let (header, rest) = self.header(entry);
        position_of(header, rest)
    }

    /// The stamp of an entry's record.
    #[inline]
    pub(super) fn stamp(&self, entry: EntryRef) -> Stamp {
        stamp_at(self.header(entry).0)
    }

    /// The record of an entry.
    #[inline]
    pub(super) fn record(&self, entry: EntryRef) -> RecordView<'_> {
        let (header, rest) = self.header(entry);
        record_of(header, rest)
    }

    /// The newest version of a key whose first version may be `root`; `None` if that is another key's.
    #[inline]
    pub(super) fn newest_of(&self, root: EntryRef, position: &Position<'_>) -> Option<RecordView<'_>> {
        let (header, rest) = self.header(root);
        if position_of(header, rest) != *position {
            return None;
        }
        let newest = EntryRef(u32_at(header, LINK));
        Some(if newest == root { record_of(header, rest) } else { self.record(newest) })
    }

    /// The number under which the entry was published; `u64::MAX` before.
    pub(super) fn sequence(&self, entry: EntryRef) -> u64 {
        u64_at(self.header(entry).0, SEQUENCE)
    }

    /// An entry's header and the start of its key, found without a look at it.
    #[inline]
    pub(super) fn front(&self, entry: EntryRef) -> &[u8] {
        let bytes = self.bytes_at(entry);
        &bytes[..bytes.len().min(FRONT_BYTES)]
    }

    /// Asks for an entry's front.
    #[inline]
    pub(super) fn prefetch_header(&self, entry: EntryRef) {
        prefetch(self.front(entry));
    }

    /// As many bytes from the start of an entry on as it most likely has, found without a look at it:
    /// records are mostly of one size, so the one that was added last tells.
    #[inline]
    pub(super) fn likely(&self, entry: EntryRef) -> &[u8] {
        let bytes = self.bytes_at(entry);
        &bytes[..bytes.len().min(self.likely_bytes)]
    }

    /// Asks for the key and the value of a key's newest version, given its first one, or for the first
    /// [`START_BYTES_MAX`] of them. Versions of a key are mostly of one size: the newest one's is not known yet.
    #[inline]
    pub(super) fn prefetch_newest(&self, root: EntryRef) {
        let (header, rest) = self.header(root);
        let newest = EntryRef(u32_at(header, LINK));
        let bytes = usize::from(u16_at(header, KEY_BYTES)) + u32_at(header, VALUE_BYTES) as usize;
        let bytes = bytes.min(START_BYTES_MAX);
        if newest == root {
            return prefetch(&rest[..bytes.min(rest.len())]);
        }
        let entry = self.bytes_at(newest);
        prefetch(&entry[..(HEADER_BYTES + bytes).min(entry.len())]);
    }

    /// The hash bits of the key of a staged entry.
    #[inline]
    pub(super) fn hash_bits(&self, entry: EntryRef) -> u32 {
        u32_at(self.header(entry).0, LINK)
    }

    /// The entry that a published one points to (see [`super::Memtable`]).
    #[inline]
    pub(super) fn link(&self, entry: EntryRef) -> EntryRef {
        EntryRef(u32_at(self.header(entry).0, LINK))
    }

    #[inline]
    pub(super) fn set_link(&mut self, entry: EntryRef, to: EntryRef) {
        self.header_mut(entry)[LINK..LINK + 4].copy_from_slice(&to.0.to_le_bytes());
    }

    /// Marks a staged entry as published under a sequence number, or abandoned (`u64::MAX`).
    ///
    /// # Panics
    /// When it was already: that would break the count of pending entries.
    pub(super) fn settle(&mut self, entry: EntryRef, sequence: u64) {
        let header = self.header_mut(entry);
        header[SEQUENCE..SEQUENCE + 8].copy_from_slice(&sequence.to_le_bytes());
        assert_eq!(header[STATE], State::Staged as u8, "an entry is published or abandoned once");
        header[STATE] = State::Settled as u8;
    }

    /// Gives its chunks back to the pool; those that it does not keep are to be freed one by one.
    pub(super) fn into_chunks(self) -> Vec<Chunk> {
        self.chunks.into_iter().filter_map(|chunk| self.pool.keep(chunk)).collect()
    }
}

/// The bits of a key's hash that the hash index uses. Partitions are the top bits, so within a
/// shard those say little.
pub(super) const fn hash_bits(hash: u64) -> u32 {
    hash as u32
}

#[inline]
fn position_of<'a>(header: &[u8; HEADER_BYTES], rest: &'a [u8]) -> Position<'a> {
    Position {
        partition: Partition(u16_at(header, PARTITION)),
        namespace: NamespaceId(u32_at(header, NAMESPACE)),
        user: &rest[..usize::from(u16_at(header, KEY_BYTES))],
    }
}

#[inline]
fn record_of<'a>(header: &[u8; HEADER_BYTES], rest: &'a [u8]) -> RecordView<'a> {
    let key_bytes = usize::from(u16_at(header, KEY_BYTES));
    RecordView {
        kind: RecordKind::from_u8(header[KIND]).expect("a header holds the kind it was given"),
        stamp: stamp_at(header),
        expiry_ms: u64_at(header, EXPIRY),
        value: &rest[key_bytes..key_bytes + u32_at(header, VALUE_BYTES) as usize],
    }
}

#[inline]
fn stamp_at(header: &[u8; HEADER_BYTES]) -> Stamp {
    let mut stamp = [0; Stamp::BYTES];
    stamp.copy_from_slice(&header[STAMP..STAMP + Stamp::BYTES]);
    Stamp::from_bytes(stamp)
}

#[inline]
fn u16_at(header: &[u8; HEADER_BYTES], at: usize) -> u16 {
    u16::from_le_bytes([header[at], header[at + 1]])
}

#[inline]
fn u32_at(header: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

#[inline]
fn u64_at(header: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from(u32_at(header, at)) | u64::from(u32_at(header, at + 4)) << 32
}
