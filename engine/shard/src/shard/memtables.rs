//! The memtables of a shard: one that takes writes, and at most two waiting to be flushed (more
//! only after recovery on a full disk).
//!
//! A frozen memtable still publishes what was staged in it; it is flushed when nothing in it is
//! pending any more, oldest first.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use crate::key::Key;
use crate::log::LogPosition;
use crate::memtable::{ChunkPool, Memtable};
use crate::stamp::Stamp;

/// Frozen memtables that may wait for their flush.
pub(super) const FROZEN_MAX: usize = 2;

/// One memtable with its number and its place in the log.
pub(super) struct Slot {
    /// Unique within the shard's life; greater = newer.
    pub number: u64,
    /// The records.
    pub table: RefCell<Memtable>,
    /// End of the last log record staged in it.
    pub log_end: Cell<LogPosition>,
}

/// The memtables, newest first: the active one and the frozen ones.
pub(super) struct Memtables {
    active: Rc<Slot>,
    /// Oldest first.
    frozen: VecDeque<Rc<Slot>>,
    bytes_max: usize,
    pool: Rc<ChunkPool>,
}

impl Memtables {
    /// One empty memtable of at most `bytes_max` bytes.
    pub(super) fn new(bytes_max: usize, log_end: LogPosition) -> Self {
        let pool = Memtable::pool(bytes_max);
        let active = Rc::new(slot(1, bytes_max, &pool, log_end));
        Self { active, frozen: VecDeque::new(), bytes_max, pool }
    }

    /// Where memtables take their chunks from.
    pub(super) fn pool(&self) -> &Rc<ChunkPool> {
        &self.pool
    }

    /// The memtable that takes writes.
    pub(super) fn active(&self) -> &Rc<Slot> {
        &self.active
    }

    /// All of them, newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Rc<Slot>> {
        std::iter::once(&self.active).chain(self.frozen.iter().rev())
    }

    /// The memtable of a number.
    pub(super) fn slot(&self, number: u64) -> Option<&Rc<Slot>> {
        self.newest_first().find(|slot| slot.number == number)
    }

    /// The next to be flushed.
    pub(super) fn oldest_frozen(&self) -> Option<&Rc<Slot>> {
        self.frozen.front()
    }

    /// Whether the active memtable can be frozen now.
    pub(super) fn can_freeze(&self) -> bool {
        self.frozen.len() < FROZEN_MAX
    }

    /// Freezes the active memtable and starts a new one.
    ///
    /// # Panics
    /// When [`FROZEN_MAX`] wait already.
    pub(super) fn freeze(&mut self) {
        assert!(self.can_freeze(), "at most {FROZEN_MAX} memtables wait to be flushed");
        self.freeze_replayed();
    }

    /// Freezes the active memtable during recovery, where more may wait: on a full disk all that
    /// the log holds stays in memory.
    pub(super) fn freeze_replayed(&mut self) {
        let log_end = self.active.log_end.get();
        let next = Rc::new(slot(self.active.number + 1, self.bytes_max, &self.pool, log_end));
        self.frozen.push_back(std::mem::replace(&mut self.active, next));
    }

    /// The stamp of the newest record of a key in frozen memtables.
    pub(super) fn frozen_stamp(&self, key: &Key<'_>) -> Option<Stamp> {
        self.frozen.iter().rev().find_map(|slot| slot.table.borrow().get(key).map(|record| record.stamp))
    }

    /// Takes out the oldest frozen memtable, whose records are in tables now.
    pub(super) fn remove_oldest(&mut self) -> Option<Rc<Slot>> {
        self.frozen.pop_front()
    }

    /// Keys of all memtables, tombstones included.
    pub(super) fn records(&self) -> usize {
        self.newest_first().map(|slot| slot.table.borrow().records()).sum()
    }

    /// Memory held by all of them and for the next, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        let held: usize = self.newest_first().map(|slot| slot.table.borrow().memory_bytes()).sum();
        held + self.pool.memory_bytes()
    }
}

fn slot(number: u64, bytes_max: usize, pool: &Rc<ChunkPool>, log_end: LogPosition) -> Slot {
    let table = Memtable::with_pool(bytes_max, Rc::clone(pool));
    Slot { number, table: RefCell::new(table), log_end: Cell::new(log_end) }
}
