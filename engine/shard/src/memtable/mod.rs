//! The memtable: the newest records of a shard, in memory and in order.
//!
//! Writing has two phases, because a record must not be seen before the log has it durably:
//! [`Memtable::stage`] copies it into the arena, invisible, and [`Memtable::publish`] puts it under
//! its key if it supersedes what stands there. A staged record that is not wanted any more is
//! [abandoned](Memtable::abandon); its bytes stay used until the memtable goes.
//!
//! Three structures share the entries: an append-only arena (`arena`), a hash index for gets and
//! overwrites (`hash`), a two-level sorted array for scans and the flush (`order`). The index and
//! the order hold a key's first version, its *root*, and never change when it is overwritten: a
//! root links to the newest version and every other version links to the one before it. Overwriting
//! therefore costs one hash lookup, and a reader can go back to the version that was the newest at
//! a sequence number. That walk is as long as the number of versions published since.
//!
//! Only scans and the flush need the order. So a new root waits in a short list until the list is full
//! or somebody walks, and the whole list goes into the order at once, which costs a third of doing it
//! one by one.
//!
//! Memory is counted exactly, overhead included, and no operation does more than a bounded amount
//! of work. Nothing is removed but all at once, in slices (see [`Remains`]). One core, one writer:
//! there is nothing to synchronise.

mod arena;
mod chunk;
mod cursor;
mod hash;
mod order;
#[cfg(test)]
mod tests;

pub use arena::EntryRef;
pub use chunk::{Chunk, ChunkPool};
pub use cursor::MemtableCursor;
pub use hash::IndexSlots;

use std::cell::{Cell, Ref, RefCell};
use std::rc::Rc;

use arena::{Arena, hash_bits};
use hash::HashIndex;
use order::{ADDED_MAX, Leaves, Order};
use pinion_env::prefetch_fronts;

use crate::key::{Key, Position};
use crate::large::LargeArray;
use crate::record::RecordView;
use crate::stamp::Stamp;

/// The largest `bytes_max` of a memtable; larger settings are cut to it.
pub const MEMTABLE_BYTES_MAX: usize = 2 << 30;

/// Keys that may be looked ahead for at once. More would outgrow what a core keeps in
/// flight.
pub(crate) const LOOK_AHEAD_MAX: usize = 16;

/// Records, and bytes of keys and values, that room is looked for beyond what is asked for, so that not
/// every write has to look.
const ROOM: (usize, usize) = (64, 64 << 10);

/// Bytes of the list of roots that are not in the order.
const UNORDERED_BYTES: usize = ADDED_MAX * size_of::<EntryRef>();

/// What publishing an entry did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The key is new to this memtable.
    Inserted,
    /// It took the place of an older record.
    Replaced,
    /// A newer record, or the same one, stands there already: nothing has changed.
    Superseded,
}

/// Records in memory. See the module's header.
#[derive(Debug)]
pub struct Memtable {
    arena: Arena,
    index: HashIndex,
    /// Brought up to date by [`Memtable::ordered`].
    order: RefCell<Order>,
    /// Roots that the order lacks.
    unordered: RefCell<Vec<EntryRef>>,
    bytes_max: usize,
    /// Records, and bytes of their keys and values, that were found to have room and are not asked for yet.
    room: Cell<(usize, usize)>,
    keys: usize,
    entries: usize,
    pending: usize,
    stamps: Option<(Stamp, Stamp)>,
    /// The greatest stamp that is visible. What is newer supersedes everything here, unseen.
    visible_stamp_max: Option<Stamp>,
}

impl Memtable {
    /// An empty memtable meant to take at most `bytes_max` bytes of memory, overhead included. No
    /// memory is taken before the first record.
    pub fn new(bytes_max: usize) -> Self {
        Self::with_pool(bytes_max, Self::pool(bytes_max))
    }

    /// A pool for memtables of at most `bytes_max` bytes each, to take chunks from and leave them to.
    pub fn pool(bytes_max: usize) -> Rc<ChunkPool> {
        Arena::pool(bytes_max.min(MEMTABLE_BYTES_MAX))
    }

    /// As [`Memtable::new`], with a pool that was made for the same `bytes_max`.
    pub fn with_pool(bytes_max: usize, pool: Rc<ChunkPool>) -> Self {
        let bytes_max = bytes_max.min(MEMTABLE_BYTES_MAX);
        Self {
            arena: Arena::new(pool),
            index: HashIndex::default(),
            order: RefCell::default(),
            unordered: RefCell::default(),
            bytes_max,
            room: Cell::default(),
            keys: 0,
            entries: 0,
            pending: 0,
            stamps: None,
            visible_stamp_max: None,
        }
    }

    /// Whether `records` more records with `key_value_bytes` bytes of keys and values in all fit
    /// under the cap. An empty memtable has room for anything, so that one record or batch larger
    /// than the cap is not refused for ever.
    ///
    /// [`Memtable::stage`] does not ask: ask once for a whole batch, and start a new memtable if
    /// the answer is no. A yes counts as used: whoever asks twice takes twice.
    pub fn has_room(&self, records: usize, key_value_bytes: usize) -> bool {
        let (records_left, bytes_left) = self.room.get();
        if records <= records_left && key_value_bytes <= bytes_left {
            self.room.set((records_left - records, bytes_left - key_value_bytes));
            return true;
        }
        let (more_records, more_bytes) = ROOM;
        let more = self.entries > 0
            && self.takes(records.saturating_add(more_records), key_value_bytes.saturating_add(more_bytes));
        self.room.set(if more { ROOM } else { (0, 0) });
        more || self.takes(records, key_value_bytes)
    }

    fn takes(&self, records: usize, key_value_bytes: usize) -> bool {
        let entries_bytes = Arena::entry_bytes(0, 0).saturating_add(8).saturating_mul(records);
        let entries_bytes = entries_bytes.saturating_add(key_value_bytes);
        // Staged entries are not in the index and the order yet but will be.
        let indexed = records.saturating_add(self.pending);
        let unordered = self.unordered.borrow();
        let ordered = indexed.saturating_add(unordered.len());
        let list = if unordered.capacity() == 0 { UNORDERED_BYTES } else { 0 };
        let after = self
            .memory_bytes()
            .saturating_add(self.arena.growth_bytes_max(records, entries_bytes))
            .saturating_add(self.index.growth_bytes_max(indexed))
            .saturating_add(self.order.borrow().growth_bytes_max(ordered))
            .saturating_add(list);
        self.entries == 0 || after <= self.bytes_max
    }

    /// Copies a record in, invisible.
    pub fn stage(&mut self, key: &Key<'_>, record: &RecordView<'_>) -> EntryRef {
        let entry = self.arena.push(key, record);
        self.entries += 1;
        self.pending += 1;
        let (low, high) = self.stamps.unwrap_or((record.stamp, record.stamp));
        self.stamps = Some((low.min(record.stamp), high.max(record.stamp)));
        entry
    }

    /// Makes a staged record visible if it supersedes the visible one. `sequence` never falls from
    /// one call to the next; records that become visible together share it.
    ///
    /// # Panics
    /// When the entry was published or abandoned before.
    pub fn publish(&mut self, entry: EntryRef, sequence: u64) -> Published {
        self.arena.settle(entry, sequence);
        self.pending -= 1;
        let is_newest = self.is_newer_than_all(entry);
        if is_newest {
            self.visible_stamp_max = Some(self.arena.stamp(entry));
        }
        let bits = self.arena.hash_bits(entry);
        let position = self.arena.position(entry);
        let Some(root) = self.index.find(&self.arena, bits, &position) else {
            self.index.insert(bits, entry);
            self.arena.set_link(entry, entry);
            self.keys += 1;
            self.add_to_order(entry);
            return Published::Inserted;
        };
        let newest = self.arena.link(root);
        if !is_newest && !self.arena.record(entry).supersedes(&self.arena.record(newest)) {
            return Published::Superseded;
        }
        debug_assert!(self.arena.sequence(newest) <= sequence);
        self.arena.set_link(entry, newest);
        self.arena.set_link(root, entry);
        Published::Replaced
    }

    /// Whether an entry is newer than all that is visible here. Stamps of this shard's own clock come in
    /// order, so nearly every write is, and the version it takes the place of need not be looked at.
    #[inline]
    fn is_newer_than_all(&self, entry: EntryRef) -> bool {
        Some(self.arena.stamp(entry)) > self.visible_stamp_max
    }

    /// Gives up a staged record: it will never be visible.
    ///
    /// # Panics
    /// When the entry was published or abandoned before.
    pub fn abandon(&mut self, entry: EntryRef) {
        self.arena.settle(entry, u64::MAX);
        self.pending -= 1;
    }

    /// The visible record of a key, be it a tombstone or expired.
    pub fn get(&self, key: &Key<'_>) -> Option<RecordView<'_>> {
        let root = self.root(key)?;
        Some(self.arena.record(self.arena.link(root)))
    }

    /// The record of a key that was visible at a sequence number.
    pub fn get_at(&self, key: &Key<'_>, sequence: u64) -> Option<RecordView<'_>> {
        let root = self.root(key)?;
        self.version_at(root, sequence).map(|entry| self.arena.record(entry))
    }

    /// The visible record of a key whose first version may be `root`, found by
    /// [`Memtable::look_ahead_header`]; `None` if it is another key's.
    #[inline]
    pub fn get_by_root(&self, root: EntryRef, key: &Key<'_>) -> Option<RecordView<'_>> {
        self.arena.newest_of(root, &key.position())
    }

    /// First step of looking ahead for a get: asks for the place in the index of a key, given by its
    /// hash. Every step waits for what the one before has asked for, so let other keys have theirs
    /// between two.
    #[inline]
    pub fn look_ahead(&self, hash: u64) {
        self.index.prefetch(hash_bits(hash));
    }

    /// Second step: asks for the header of what is most likely the key's first version.
    #[inline]
    pub fn look_ahead_header(&self, hash: u64) -> Option<EntryRef> {
        let root = self.index.candidate(hash_bits(hash));
        if let Some(root) = root {
            self.arena.prefetch_header(root);
        }
        root
    }

    /// The second step of several keys: what is most likely the key's first version, and where its bytes
    /// most likely lie. The caller asks for all of them at once, with [`prefetch_fronts`].
    #[inline]
    pub(crate) fn record_ahead(&self, hash: u64) -> Option<(EntryRef, &[u8])> {
        self.index.candidate(hash_bits(hash)).map(|root| (root, self.arena.likely(root)))
    }

    /// Third step: asks for the newest version.
    #[inline]
    pub fn look_ahead_record(&self, root: EntryRef) {
        self.arena.prefetch_newest(root);
    }

    /// Asks for the memory that publishing entries will read, given with the hashes of their keys: at
    /// most [`LOOK_AHEAD_MAX`] of them, for which [`Memtable::prefetch_to_publish`] was called some time before.
    ///
    /// Each step of the way is taken for all keys before the next, so that their misses overlap.
    pub fn look_ahead_to_publish(&self, entries: &[(EntryRef, u64)]) {
        if self.keys == 0 {
            return;
        }
        let (mut found, mut fronts) = ([None; LOOK_AHEAD_MAX], [&[][..]; LOOK_AHEAD_MAX]);
        let mut count = 0;
        for (entry, hash) in entries {
            if let Some(root) = self.index.candidate(hash_bits(*hash)) {
                (found[count], fronts[count]) = (Some((root, *entry)), self.arena.front(root));
                count += 1;
            }
        }
        prefetch_fronts(&fronts[..count]);
        let mut compared = 0;
        for (root, entry) in found[..count].iter().flatten() {
            if !self.is_newer_than_all(*entry) {
                fronts[compared] = self.arena.front(self.arena.link(*root));
                compared += 1;
            }
        }
        prefetch_fronts(&fronts[..compared]);
    }

    /// What can be asked for at once, for an entry that is published some time later.
    pub fn prefetch_to_publish(&self, entry: EntryRef, hash: u64) {
        self.arena.prefetch_header(entry);
        self.index.prefetch(hash_bits(hash));
    }

    /// Position and record of an entry, visible or not.
    #[inline]
    pub fn resolve(&self, entry: EntryRef) -> (Position<'_>, RecordView<'_>) {
        (self.arena.position(entry), self.arena.record(entry))
    }

    /// Bytes of memory held, overhead included.
    pub fn memory_bytes(&self) -> usize {
        self.arena.allocated_bytes()
            + self.index.allocated_bytes()
            + self.order.borrow().allocated_bytes()
            + self.unordered.borrow().capacity() * size_of::<EntryRef>()
    }

    /// The cap it was made for, in bytes of memory.
    pub const fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Visible keys, tombstones included: what a flush will write.
    pub const fn records(&self) -> usize {
        self.keys
    }

    /// Whether nothing was ever staged.
    pub const fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Entries staged and neither published nor abandoned. A flush waits until there are none.
    pub const fn pending(&self) -> usize {
        self.pending
    }

    /// The greatest stamp ever staged; [`Stamp::ZERO`] if none.
    pub fn stamp_max(&self) -> Stamp {
        self.stamps.map_or(Stamp::ZERO, |(_, high)| high)
    }

    /// The least stamp ever staged.
    pub fn stamp_min(&self) -> Option<Stamp> {
        self.stamps.map(|(low, _)| low)
    }

    /// How many slots its index will need soon, if making them takes long: have them made by
    /// [`IndexSlots::new`] on another thread and [give](Memtable::give_slots) them. Told once for
    /// each growth.
    pub fn slots_wanted(&mut self) -> Option<usize> {
        self.index.wanted()
    }

    /// Takes slots for the index. Dropped if they come too late.
    pub fn give_slots(&mut self, slots: IndexSlots) {
        self.index.give(slots);
        // They count as memory from now on.
        self.room.set((0, 0));
    }

    /// Brings its index on by at most this many slots if it is still growing; whether more are
    /// left. Inserts do it too, but they may have ended.
    pub fn settle_index(&mut self, slots: usize) -> bool {
        self.index.move_some(slots)
    }

    /// Takes it apart: chunks go back to the pool, the rest is to be freed in slices or on another thread.
    pub fn dismantle(self) -> Remains {
        let Self { arena, index, order, .. } = self;
        let order = order.into_inner();
        Remains { chunks: arena.into_chunks(), leaves: order.into_leaves(), slots: index.into_slots() }
    }

    /// Puts a new root where the order will find it.
    fn add_to_order(&mut self, root: EntryRef) {
        let unordered = self.unordered.get_mut();
        if unordered.capacity() == 0 {
            unordered.reserve_exact(ADDED_MAX);
        }
        unordered.push(root);
        if unordered.len() == ADDED_MAX {
            self.order.get_mut().add(&self.arena, unordered);
        }
    }

    /// The order, with every key in it.
    fn ordered(&self) -> Ref<'_, Order> {
        let mut unordered = self.unordered.borrow_mut();
        if !unordered.is_empty() {
            self.order.borrow_mut().add(&self.arena, &mut unordered);
        }
        drop(unordered);
        self.order.borrow()
    }

    fn root(&self, key: &Key<'_>) -> Option<EntryRef> {
        self.index.find(&self.arena, hash_bits(key.hash), &key.position())
    }

    /// The newest version of a key, given its root, up to a sequence number.
    fn version_at(&self, root: EntryRef, sequence: u64) -> Option<EntryRef> {
        let mut version = self.arena.link(root);
        while self.arena.sequence(version) > sequence {
            if version == root {
                return None;
            }
            version = self.arena.link(version);
        }
        Some(version)
    }
}

/// What is left of a memtable. Freeing 64 MiB at once would stall a core: call
/// [`Remains::free_some`] with yields between, or send it away and drop it there.
#[derive(Debug)]
pub struct Remains {
    chunks: Vec<Chunk>,
    leaves: Leaves,
    slots: [LargeArray<u64>; 3],
}

/// Leaves freed in one step: about as many bytes as one chunk.
const LEAVES_PER_STEP: usize = 64;

impl Remains {
    /// Frees at most one chunk, a few leaves and the index; answers whether something is left.
    pub fn free_some(&mut self) -> bool {
        self.chunks.pop();
        self.slots = Default::default();
        self.leaves.truncate(self.leaves.len().saturating_sub(LEAVES_PER_STEP));
        !(self.chunks.is_empty() && self.leaves.is_empty())
    }
}
