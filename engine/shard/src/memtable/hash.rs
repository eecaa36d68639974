//! Finds the entry of a key without walking the order.
//!
//! Open addressing with linear probing over slots of 8 bytes: 32 bits of the key's hash and the
//! entry. The hash bits alone place a slot, so growing never touches the entries. Growing doubles
//! the slots and moves a few old ones with every insert: no insert moves more than
//! [`MOVED_PER_INSERT`] slots, whatever the size. Nothing is ever removed.

use super::arena::{Arena, EntryRef};
use crate::key::Position;

const SLOTS_MIN: usize = 64;
/// Old slots moved by one insert. At 3/4 full, doubling leaves room for 3/4 of the old slots' number
/// more inserts, so anything from 2 up finishes in time.
const MOVED_PER_INSERT: usize = 8;

/// Key hash to entry.
#[derive(Debug, Default)]
pub(super) struct HashIndex {
    /// Hash bits << 32 | entry + 1; 0 = empty. A power of two, or none.
    slots: Vec<u64>,
    entries: usize,
    /// The slots before the last growth; those before `moved` are in `slots` too.
    old: Vec<u64>,
    moved: usize,
}

impl HashIndex {
    /// The entry of a key.
    pub(super) fn find(&self, arena: &Arena, bits: u32, position: &Position<'_>) -> Option<EntryRef> {
        Self::probe(&self.slots, arena, bits, position)
            .or_else(|| Self::probe(&self.old, arena, bits, position))
    }

    fn probe(slots: &[u64], arena: &Arena, bits: u32, position: &Position<'_>) -> Option<EntryRef> {
        if slots.is_empty() {
            return None;
        }
        let mask = slots.len() - 1;
        let mut at = bits as usize & mask;
        loop {
            let slot = slots[at];
            if slot == 0 {
                return None;
            }
            if (slot >> 32) as u32 == bits {
                let entry = EntryRef(slot as u32 - 1);
                if arena.position(entry) == *position {
                    return Some(entry);
                }
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds the entry of a key that has none.
    pub(super) fn insert(&mut self, bits: u32, entry: EntryRef) {
        if (self.entries + 1) * 4 > self.slots.len() * 3 {
            // Nothing is left to move: see MOVED_PER_INSERT.
            debug_assert_eq!(self.moved, self.old.len());
            let grown = vec![0; (self.slots.len() * 2).max(SLOTS_MIN)];
            self.old = std::mem::replace(&mut self.slots, grown);
            self.moved = 0;
        }
        self.place(u64::from(bits) << 32 | u64::from(entry.0 + 1));
        self.entries += 1;
        self.move_some();
    }

    fn place(&mut self, slot: u64) {
        let mask = self.slots.len() - 1;
        let mut at = (slot >> 32) as usize & mask;
        while self.slots[at] != 0 {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
    }

    fn move_some(&mut self) {
        if self.old.is_empty() {
            return;
        }
        let end = (self.moved + MOVED_PER_INSERT).min(self.old.len());
        for at in self.moved..end {
            // The old slot stays: emptying it would cut probe sequences that pass over it.
            if self.old[at] != 0 {
                self.place(self.old[at]);
            }
        }
        self.moved = end;
        if end == self.old.len() {
            self.old = Vec::new();
            self.moved = 0;
        }
    }

    /// Bytes of memory held.
    pub(super) fn allocated_bytes(&self) -> usize {
        (self.slots.capacity() + self.old.capacity()) * size_of::<u64>()
    }

    /// At most this much more memory is held after `entries` more inserts.
    pub(super) fn growth_bytes_max(&self, entries: usize) -> usize {
        let wanted = (self.entries + entries) * 4;
        if wanted <= self.slots.len() * 3 {
            return 0;
        }
        (wanted.div_ceil(3).next_power_of_two().max(SLOTS_MIN)) * size_of::<u64>()
    }
}
