//! Writes between the log's queue and their visibility.
//!
//! A write is staged in a memtable's arena, invisible, when it enters the log, and published when
//! the log says it is durable (`sync`) or at the next turn (`buffered`). Both queues are in log
//! order. A conditional or read-modify-write operation runs on the newest pending version of its
//! key; it is found by walking the queue, because that costs nothing on the path of plain writes,
//! and the queue is bounded by `pending_ops_max`.

use std::collections::VecDeque;

use crate::log::LogPosition;
use crate::memtable::EntryRef;
use crate::operation::{Durability, Waiter, Written};
use crate::stamp::{HybridTime, Stamp};

/// A staged record: in which memtable, and where in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct StagedEntry {
    /// Hash of its key.
    pub hash: u64,
    /// Number of the memtable.
    pub memtable: u64,
    /// Where in the memtable.
    pub entry: EntryRef,
}

/// A write that is to be published and answered.
pub(super) struct PendingWrite<W> {
    /// The log is durable up to here when the write is.
    pub position: LogPosition,
    /// How many staged entries belong to it.
    pub entries: u32,
    /// Its version.
    pub stamp: Stamp,
    /// Its expiry.
    pub expiry_ms: u64,
    /// The number an update answers.
    pub number: i64,
    /// Who waits.
    pub waiter: W,
    /// For a batch: which of its operations are staged.
    pub batch: Option<Box<StagedBatch>>,
    /// It changes nothing, has no entries, and is answered so as soon as the log is durable.
    pub answer: Option<Box<Written>>,
}

/// What a batch has staged.
pub(super) struct StagedBatch {
    /// Index of the operation of each staged entry, ascending.
    pub operations: Vec<u32>,
    /// Indexes of operations that were superseded before staging.
    pub superseded: Vec<u32>,
}

impl<W> PendingWrite<W> {
    /// The operation that a staged entry belongs to.
    pub(super) fn operation_of(&self, entry: u32) -> u32 {
        self.batch.as_ref().map_or(entry, |batch| batch.operations[entry as usize])
    }
}

/// One queue in log order.
struct Queue<W> {
    writes: VecDeque<PendingWrite<W>>,
    entries: VecDeque<StagedEntry>,
}

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Self { writes: VecDeque::new(), entries: VecDeque::new() }
    }
}

/// The pending writes of a shard.
pub(super) struct Pending<W> {
    sync: Queue<W>,
    buffered: Queue<W>,
    /// Answers that rest on an expiry which a crash could take back: they wait for the clock too.
    by_clock: VecDeque<PendingWrite<W>>,
}

impl<W> Default for Pending<W> {
    fn default() -> Self {
        Self { sync: Queue::default(), buffered: Queue::default(), by_clock: VecDeque::new() }
    }
}

impl<W: Waiter> Pending<W> {
    /// Operations that wait, batches counted by their operations; writes that only wait for their
    /// answer count too.
    pub(super) fn operations(&self) -> usize {
        self.sync.entries.len().max(self.sync.writes.len())
            + self.buffered.entries.len()
            + self.by_clock.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sync.writes.is_empty() && self.buffered.writes.is_empty() && self.by_clock.is_empty()
    }

    /// Adds a staged entry of the write that [`Pending::push`] finishes.
    pub(super) fn stage(&mut self, durability: Durability, entry: StagedEntry) {
        self.queue(durability).entries.push_back(entry);
    }

    /// Adds a write whose entries have been staged.
    pub(super) fn push(&mut self, durability: Durability, write: PendingWrite<W>) {
        self.queue(durability).writes.push_back(write);
    }

    /// Adds one that has no entries, and is answered when the log is durable up to its position and its
    /// clock up to the time of its stamp. Both never fall from one to the next.
    pub(super) fn push_by_clock(&mut self, write: PendingWrite<W>) {
        debug_assert!(write.entries == 0 && write.answer.is_some());
        self.by_clock.push_back(write);
    }

    /// The next write that may be published now that the log is durable up to `durable` and its
    /// clock up to `ceiling`. Its entries are taken with [`Pending::pop_entry`].
    ///
    /// A buffered write waits for the clock: a crash may take the write, but its stamp, once told,
    /// is never given to another.
    pub(super) fn pop(
        &mut self,
        durable: LogPosition,
        ceiling: HybridTime,
    ) -> Option<(Durability, PendingWrite<W>)> {
        let is_certain =
            |write: &mut PendingWrite<W>| write.stamp.time <= ceiling && write.position <= durable;
        if let Some(write) = self.by_clock.pop_front_if(is_certain) {
            return Some((Durability::Sync, write));
        }
        let told = |write: &mut PendingWrite<W>| write.stamp.time <= ceiling || write.position <= durable;
        if let Some(write) = self.buffered.writes.pop_front_if(told) {
            return Some((Durability::Buffered, write));
        }
        if self.sync.writes.front()?.position > durable {
            return None;
        }
        self.sync.writes.pop_front().map(|write| (Durability::Sync, write))
    }

    /// The next entry of the write just popped.
    pub(super) fn pop_entry(&mut self, durability: Durability) -> StagedEntry {
        self.queue(durability).entries.pop_front().expect("a pending write has all its entries")
    }

    /// Who waits for the next write of one durability, durable or not.
    pub(super) fn next_waiter(&self, durability: Durability) -> Option<&W> {
        let queue = match durability {
            Durability::Sync => &self.sync,
            Durability::Buffered => &self.buffered,
        };
        queue.writes.front().map(|write| &write.waiter)
    }

    /// The entries of one durability in the order of their publication.
    pub(super) fn next_entries(&self, durability: Durability) -> impl Iterator<Item = &StagedEntry> {
        match durability {
            Durability::Sync => self.sync.entries.iter(),
            Durability::Buffered => self.buffered.entries.iter(),
        }
    }

    /// Takes everything, for answering after a failure.
    pub(super) fn drain(&mut self) -> Vec<PendingWrite<W>> {
        self.sync.entries.clear();
        self.buffered.entries.clear();
        let writes = self.buffered.writes.drain(..).chain(self.sync.writes.drain(..));
        writes.chain(self.by_clock.drain(..)).collect()
    }

    /// Staged entries with this hash. The caller compares keys.
    pub(super) fn entries_of(&self, hash: u64) -> impl Iterator<Item = StagedEntry> + '_ {
        let all = self.sync.entries.iter().chain(&self.buffered.entries);
        all.filter(move |entry| entry.hash == hash).copied()
    }

    fn queue(&mut self, durability: Durability) -> &mut Queue<W> {
        match durability {
            Durability::Sync => &mut self.sync,
            Durability::Buffered => &mut self.buffered,
        }
    }
}
