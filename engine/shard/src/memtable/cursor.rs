//! Walks a memtable in order, both ways, while records are published between the steps.
//!
//! A cursor borrows nothing: it remembers the entry it stands on, whose key never moves, and finds
//! its place again when the order has changed since. So it may be kept across awaits and costs no
//! copies of keys. Every call must name the memtable that the cursor was placed in.

use super::Memtable;
use super::arena::EntryRef;
use super::order::{Order, Place};
use crate::key::Position;
use crate::record::RecordView;

/// How far [`MemtableCursor::look_ahead`] looks, in keys.
const NEAR_KEYS: usize = 4;

/// A place in the order of one [`Memtable`]. Stands on a key, or nowhere (as new, and after a step
/// past either end).
#[derive(Debug, Clone, Default)]
pub struct MemtableCursor {
    at: Option<At>,
}

#[derive(Debug, Clone, Copy)]
struct At {
    place: Place,
    /// The first version of the key; what the order holds.
    root: EntryRef,
    version: u64,
}

impl MemtableCursor {
    /// A cursor that stands nowhere.
    pub const fn new() -> Self {
        Self { at: None }
    }

    /// Goes to the first key at or after `position`.
    pub fn seek(&mut self, memtable: &Memtable, position: &Position<'_>) {
        self.stand(memtable, |order| order.seek(&memtable.arena, position));
    }

    /// Goes to the last key before `position`.
    pub fn seek_before(&mut self, memtable: &Memtable, position: &Position<'_>) {
        self.stand(memtable, |order| order.seek_before(&memtable.arena, position));
    }

    /// Goes to the first key.
    pub fn seek_first(&mut self, memtable: &Memtable) {
        self.stand(memtable, Order::first);
    }

    /// Goes to the last key.
    pub fn seek_last(&mut self, memtable: &Memtable) {
        self.stand(memtable, Order::last);
    }

    /// Goes to the next key, published since or not. Stays nowhere if it stands nowhere.
    pub fn next(&mut self, memtable: &Memtable) {
        let at = self.at;
        self.stand(memtable, |order| order.next(at?.place_in(order, memtable)?));
    }

    /// Goes to the key before. Stays nowhere if it stands nowhere.
    pub fn previous(&mut self, memtable: &Memtable) {
        let at = self.at;
        self.stand(memtable, |order| order.previous(at?.place_in(order, memtable)?));
    }

    /// The key it stands on and its newest record, tombstones and expired ones included.
    pub fn current<'m>(&self, memtable: &'m Memtable) -> Option<(Position<'m>, RecordView<'m>)> {
        let at = self.at?;
        let newest = memtable.arena.link(at.root);
        Some((memtable.arena.position(at.root), memtable.arena.record(newest)))
    }

    /// The key it stands on and the newest record of it published at or before
    /// `sequence`; no record if the key came later.
    pub fn current_at<'m>(
        &self,
        memtable: &'m Memtable,
        sequence: u64,
    ) -> Option<(Position<'m>, Option<RecordView<'m>>)> {
        let at = self.at?;
        let version = memtable.version_at(at.root, sequence);
        Some((memtable.arena.position(at.root), version.map(|entry| memtable.arena.record(entry))))
    }

    /// Asks for the memory of the keys that come next: the newest record of the one that is
    /// [`NEAR_KEYS`] away, and what leads to that of the one twice as far. To be called at every
    /// step of a walk in order.
    pub fn look_ahead(&self, memtable: &Memtable) {
        let order = memtable.ordered();
        let Some(at) = self.at.filter(|at| at.version == order.version()) else { return };
        if let Some(far) = order.later(at.place, 2 * NEAR_KEYS) {
            memtable.arena.prefetch_header(far);
        }
        if let Some(near) = order.later(at.place, NEAR_KEYS) {
            memtable.arena.prefetch_newest(near);
        }
    }

    fn stand(&mut self, memtable: &Memtable, place: impl FnOnce(&Order) -> Option<Place>) {
        let order = memtable.ordered();
        self.at = place(&order).map(|place| At { place, root: order.entry(place), version: order.version() });
    }
}

impl At {
    /// Its place in the order as it is now.
    fn place_in(&self, order: &Order, memtable: &Memtable) -> Option<Place> {
        if self.version == order.version() {
            return Some(self.place);
        }
        let place = order.seek(&memtable.arena, &memtable.arena.position(self.root));
        debug_assert_eq!(place.map(|place| order.entry(place)), Some(self.root));
        place
    }
}
