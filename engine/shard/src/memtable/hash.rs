//! Finds the entry of a key without walking the order.
//!
//! Open addressing with linear probing over slots of 8 bytes: 32 bits of the key's hash and the
//! entry. The hash bits alone place a slot, so growing never touches the entries. Growing doubles
//! the slots and moves a few old ones with every insert: no insert moves more than
//! [`MOVED_PER_INSERT`] slots, whatever the size. Nothing is ever removed.
//!
//! Fresh memory for many slots takes milliseconds to touch. Whoever owns the memtable asks ahead
//! of time what is [wanted](HashIndex::wanted) and has it made elsewhere; slots that come too late
//! are made here all the same.

use pinion_env::prefetch_start;

use super::arena::{Arena, EntryRef};
use crate::key::Position;
use crate::large::LargeArray;

/// One page of them.
const SLOTS_MIN: usize = 512;
/// Old slots moved by one insert. At 3/4 full, doubling leaves room for 3/4 of the old slots' number
/// more inserts, so anything from 2 up finishes in time.
const MOVED_PER_INSERT: usize = 8;
/// Fewer slots than these (256 KiB) are made when they are needed.
const SLOTS_WANTED_MIN: usize = 32 << 10;

/// Key hash to entry.
#[derive(Debug, Default)]
pub(super) struct HashIndex {
    /// Hash bits << 32 | entry + 1; 0 = empty. A power of two, or none.
    slots: LargeArray<u64>,
    entries: usize,
    /// The slots before the last growth; those before `moved` are in `slots` too.
    old: LargeArray<u64>,
    moved: usize,
    /// For the next growth; empty until it is given.
    next: LargeArray<u64>,
    /// Whether the next growth's slots were asked for.
    asked: bool,
}

/// Memory for slots, made ready on another thread.
#[derive(Debug)]
pub struct IndexSlots(LargeArray<u64>);

impl IndexSlots {
    /// Takes the memory and touches all of it.
    pub fn new(slots: usize) -> Self {
        Self(LargeArray::touched(slots))
    }
}

impl HashIndex {
    /// The entry of a key.
    pub(super) fn find(&self, arena: &Arena, bits: u32, position: &Position<'_>) -> Option<EntryRef> {
        self.probe(bits, |entry| arena.position(entry) == *position)
    }

    /// Asks for the memory that [`HashIndex::candidate`] will read.
    #[inline]
    pub(super) fn prefetch(&self, bits: u32) {
        for slots in [&self.slots, &self.old] {
            if let Some(slot) = slots.get(bits as usize & slots.len().wrapping_sub(1)) {
                prefetch_start(slot);
            }
        }
    }

    /// The first entry under these hash bits: nearly always the one that [`HashIndex::find`] will
    /// find, told without a look at the entry.
    pub(super) fn candidate(&self, bits: u32) -> Option<EntryRef> {
        self.probe(bits, |_| true)
    }

    /// The first entry under these hash bits that is `wanted`.
    #[inline]
    fn probe(&self, bits: u32, wanted: impl Fn(EntryRef) -> bool) -> Option<EntryRef> {
        Self::probe_in(&self.slots, bits, &wanted).or_else(|| Self::probe_in(&self.old, bits, &wanted))
    }

    #[inline]
    fn probe_in(slots: &[u64], bits: u32, wanted: impl Fn(EntryRef) -> bool) -> Option<EntryRef> {
        let mask = slots.len().checked_sub(1)?;
        let mut at = bits as usize & mask;
        loop {
            let slot = slots[at];
            if slot == 0 {
                return None;
            }
            let entry = EntryRef(slot as u32 - 1);
            if (slot >> 32) as u32 == bits && wanted(entry) {
                return Some(entry);
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds the entry of a key that has none.
    pub(super) fn insert(&mut self, bits: u32, entry: EntryRef) {
        if (self.entries + 1) * 4 > self.slots.len() * 3 {
            // Nothing is left to move: see MOVED_PER_INSERT.
            debug_assert_eq!(self.moved, self.old.len());
            let slots = self.slots_next();
            let next = std::mem::take(&mut self.next);
            let grown = if next.len() == slots { next } else { LargeArray::zeroed(slots) };
            self.asked = false;
            self.old = std::mem::replace(&mut self.slots, grown);
            self.moved = 0;
        }
        self.place(u64::from(bits) << 32 | u64::from(entry.0 + 1));
        self.entries += 1;
        self.move_some(MOVED_PER_INSERT);
    }

    fn slots_next(&self) -> usize {
        (self.slots.len() * 2).max(SLOTS_MIN)
    }

    /// How many slots the next growth takes, if they are many and it is near. Told once.
    pub(super) fn wanted(&mut self) -> Option<usize> {
        let near = !self.asked && self.entries * 2 > self.slots.len();
        let wanted = near && self.slots_next() >= SLOTS_WANTED_MIN;
        self.asked |= wanted;
        wanted.then(|| self.slots_next())
    }

    /// Takes slots for the next growth.
    pub(super) fn give(&mut self, slots: IndexSlots) {
        if self.next.is_empty() && slots.0.len() == self.slots_next() {
            self.next = slots.0;
        }
    }

    /// The memory, to be freed elsewhere.
    pub(super) fn into_slots(self) -> [LargeArray<u64>; 3] {
        [self.slots, self.old, self.next]
    }

    fn place(&mut self, slot: u64) {
        let mask = self.slots.len() - 1;
        let mut at = (slot >> 32) as usize & mask;
        while self.slots[at] != 0 {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
    }

    /// Moves on this many slots of the last growth; whether more are left. Inserts do it as they
    /// come; without any more of them, every lookup would have to look into both.
    pub(super) fn move_some(&mut self, slots: usize) -> bool {
        if self.old.is_empty() {
            return false;
        }
        let end = (self.moved + slots).min(self.old.len());
        for at in self.moved..end {
            // The old slot stays: emptying it would cut probe sequences that pass over it.
            if self.old[at] != 0 {
                self.place(self.old[at]);
            }
        }
        self.moved = end;
        if end == self.old.len() {
            self.old = LargeArray::default();
            self.moved = 0;
        }
        !self.old.is_empty()
    }

    /// Bytes of memory held.
    pub(super) fn allocated_bytes(&self) -> usize {
        (self.slots.len() + self.old.len() + self.next.len()) * size_of::<u64>()
    }

    /// At most this much more memory is held after `entries` more inserts.
    pub(super) fn growth_bytes_max(&self, entries: usize) -> usize {
        let wanted = (self.entries + entries) * 4;
        if wanted <= self.slots.len() * 3 {
            return 0;
        }
        let slots = wanted.div_ceil(3).next_power_of_two().max(SLOTS_MIN);
        if slots == self.next.len() { 0 } else { slots * size_of::<u64>() }
    }
}
