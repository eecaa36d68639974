//! From a hash to the slot of a cached block: a fixed table that never rehashes.
//!
//! Open addressing with linear probing, at most half full. A removal moves the entries behind it
//! up instead of leaving a tombstone, so that no clean-up ever falls due. Keys stand in the slots;
//! the caller compares them.

/// A table for a fixed number of slots.
pub(super) struct SlotIndex {
    entries: Box<[Entry]>,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    /// The low half of the hash.
    tag: u32,
    /// Number of the slot + 1; 0 = empty.
    slot: u32,
}

impl SlotIndex {
    /// For at most `slots_max` entries at a time.
    pub(super) fn new(slots_max: usize) -> Self {
        let places = (slots_max.max(1) * 2).next_power_of_two();
        Self { entries: vec![Entry::default(); places].into() }
    }

    /// The slot with this hash that `is_wanted`.
    pub(super) fn find(&self, hash: u64, is_wanted: impl Fn(u32) -> bool) -> Option<u32> {
        let tag = hash as u32;
        let mut place = self.home(tag);
        loop {
            let entry = self.entries[place];
            let number = entry.slot.checked_sub(1)?;
            if entry.tag == tag && is_wanted(number) {
                return Some(number);
            }
            place = self.after(place);
        }
    }

    /// Adds a slot.
    pub(super) fn insert(&mut self, hash: u64, number: u32) {
        let tag = hash as u32;
        let mut place = self.home(tag);
        while self.entries[place].slot != 0 {
            place = self.after(place);
        }
        self.entries[place] = Entry { tag, slot: number + 1 };
    }

    /// Removes a slot that was added with this hash.
    pub(super) fn remove(&mut self, hash: u64, number: u32) {
        let mut hole = self.home(hash as u32);
        while self.entries[hole].slot != number + 1 {
            assert!(self.entries[hole].slot != 0, "a slot is removed once");
            hole = self.after(hole);
        }
        let mask = self.entries.len() - 1;
        let mut place = self.after(hole);
        while self.entries[place].slot != 0 {
            let home = self.home(self.entries[place].tag);
            // It may move up if that does not take it before its home.
            if place.wrapping_sub(home) & mask >= place.wrapping_sub(hole) & mask {
                self.entries[hole] = self.entries[place];
                hole = place;
            }
            place = self.after(place);
        }
        self.entries[hole] = Entry::default();
    }

    fn home(&self, tag: u32) -> usize {
        tag as usize & (self.entries.len() - 1)
    }

    fn after(&self, place: usize) -> usize {
        (place + 1) & (self.entries.len() - 1)
    }
}

#[cfg(test)]
impl SlotIndex {
    /// Entries.
    pub(super) fn len(&self) -> usize {
        self.entries.iter().filter(|entry| entry.slot != 0).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_a_list_under_churn_and_collisions() {
        let mut index = SlotIndex::new(32);
        let mut there: Vec<Option<u64>> = vec![None; 32];
        let mut state = 1u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let number = (state >> 40) as usize % 32;
            match there[number].take() {
                Some(hash) => index.remove(hash, number as u32),
                None => {
                    // Few distinct homes, some at the end of the table.
                    let hash = 60 + (state >> 50) % 7;
                    index.insert(hash, number as u32);
                    there[number] = Some(hash);
                }
            }
            for (number, hash) in there.iter().enumerate() {
                let found = (58..70).find(|hash| index.find(*hash, |found| found == number as u32).is_some());
                assert_eq!(found, *hash);
            }
        }
        assert_eq!(index.len(), there.iter().flatten().count());
    }
}
