//! Point reads: memtables, row cache, then tables from the newest place down.
//!
//! The memtables come first because their index is small enough to stay in the processor's cache,
//! while a look into the row cache's is a miss to main memory, found or not.
//!
//! [`Shard::get_now`] answers from memory and copies nothing; only when a block must be read from
//! the device does the caller take the asynchronous way, [`Shard::get`].

use std::rc::Rc;

use pinion_env::Env;

use super::{Ahead, Shard};
use crate::error::Result;
use crate::key::Key;
use crate::operation::Waiter;
use crate::record::{RecordKind, RecordView};
use crate::stamp::{HybridTime, Stamp};
use crate::table::Block;

/// The answer is not in memory: ask [`Shard::get`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeedsRead;

/// A record found by [`Shard::get`]. Shares the block it stands in.
pub struct Found {
    kind: RecordKind,
    stamp: Stamp,
    expiry_ms: u64,
    value: FoundValue,
}

enum FoundValue {
    /// The record of this index.
    InBlock(Rc<Block>, usize),
    Owned(Vec<u8>),
}

impl Found {
    /// The record.
    pub fn view(&self) -> RecordView<'_> {
        let value = match &self.value {
            FoundValue::InBlock(block, index) => block.record(*index).value,
            FoundValue::Owned(bytes) => bytes,
        };
        RecordView { kind: self.kind, stamp: self.stamp, expiry_ms: self.expiry_ms, value }
    }

    fn owned(record: &RecordView<'_>) -> Self {
        let RecordView { kind, stamp, expiry_ms, value } = *record;
        Self { kind, stamp, expiry_ms, value: FoundValue::Owned(value.to_vec()) }
    }

    fn in_block(block: Rc<Block>, key: &Key<'_>) -> Option<Self> {
        let index = block.search(key)?;
        let RecordView { kind, stamp, expiry_ms, .. } = block.record(index);
        Some(Self { kind, stamp, expiry_ms, value: FoundValue::InBlock(block, index) })
    }
}

/// Where a walk through the tables stands.
enum Step {
    /// The record of this index.
    Found(Rc<Block>, usize),
    Missing,
    /// A block must be read.
    Read,
}

impl<E: Env, W: Waiter> Shard<E, W> {
    /// As [`Shard::get_now`] for a key that was looked ahead for.
    ///
    /// # Errors
    /// As [`Shard::get_now`].
    #[inline]
    pub fn get_ahead<R>(
        &self,
        key: &Key<'_>,
        ahead: Ahead,
        visit: impl FnOnce(Option<RecordView<'_>>) -> R,
    ) -> Result<R, NeedsRead> {
        let inner = &*self.inner;
        let memtables = inner.memtables.borrow();
        let active = memtables.active();
        // What stands in the active memtable is the newest of all, and nothing ever leaves it.
        if let Some(root) = ahead.root.filter(|_| active.number == ahead.memtable)
            && let Some(record) = active.table.borrow().get_by_root(root, key)
        {
            let visible = inner.is_visible_now(&record)?;
            inner.counters.count_get(visible);
            return Ok(visit(visible.then_some(record)));
        }
        drop(memtables);
        self.get_now(key, visit)
    }

    /// Looks a key up in memory. `visit` is called with the visible record, or `None` if the key
    /// is missing, deleted or expired. Takes no time for I/O and allocates nothing.
    ///
    /// # Errors
    /// [`NeedsRead`] if a table must be read; `visit` has not been called then.
    pub fn get_now<R>(
        &self,
        key: &Key<'_>,
        visit: impl FnOnce(Option<RecordView<'_>>) -> R,
    ) -> Result<R, NeedsRead> {
        let inner = &*self.inner;
        let mut visit = Some(visit);
        let mut judge = |record: &RecordView<'_>| -> Result<R, NeedsRead> {
            let visible = inner.is_visible_now(record)?;
            inner.counters.count_get(visible);
            let visit = visit.take().expect("a lookup ends at the first record");
            Ok(visit(visible.then_some(*record)))
        };
        for slot in inner.memtables.borrow().newest_first() {
            if let Some(record) = slot.table.borrow().get(key) {
                return judge(&record);
            }
        }
        if let Some(answer) = inner.row_cache.borrow_mut().get(key, &mut judge) {
            inner.counters.row_cache_hits.add(1);
            return answer;
        }
        match inner.walk_tables(key, true) {
            Step::Found(block, index) => judge(&block.record(index)),
            Step::Missing => {
                inner.counters.count_get(false);
                let visit = visit.take().expect("no record was found before");
                Ok(visit(None))
            }
            Step::Read => Err(NeedsRead),
        }
    }

    /// Looks a key up, reading at most as many blocks as filters let through: for a key that
    /// exists this is one block on average, for one that does not almost none.
    ///
    /// # Errors
    /// A damaged block, or a failed read. Nothing is retried.
    pub async fn get(&self, key: &Key<'_>) -> Result<Option<Found>> {
        let inner = &*self.inner;
        loop {
            let ticket = inner.row_cache.borrow().ticket(key);
            let mut found = None;
            let in_memory = self.get_now(key, |record| found = record.map(|record| Found::owned(&record)));
            if in_memory.is_ok() {
                return Ok(found);
            }
            if inner.is_in_memtable(key) {
                // It is there, but whether it has expired cannot be told yet.
                inner.extend_ceiling().await?;
                continue;
            }
            let epoch = inner.flush_epoch.get();
            let record = inner.get_from_tables(key).await?;
            if inner.flush_epoch.get() != epoch || inner.is_in_memtable(key) {
                // Something newer may have been written or flushed meanwhile.
                continue;
            }
            let Some(record) = record else {
                inner.counters.count_get(false);
                return Ok(None);
            };
            let Ok(visible) = inner.is_visible_now(&record.view()) else {
                inner.extend_ceiling().await?;
                continue;
            };
            inner.counters.count_get(visible);
            if visible {
                inner.row_cache.borrow_mut().offer(ticket, key, &record.view());
            }
            return Ok(visible.then_some(record));
        }
    }
}

impl<E: Env, W: Waiter> super::Inner<E, W> {
    /// Whether a reader sees a record: it is neither deleted nor expired. An expiry is final only up to
    /// the clock's persisted ceiling (a clock set back at the next start must not revive it): beyond it
    /// the asynchronous way extends the ceiling first.
    #[inline]
    pub(super) fn is_visible_now(&self, record: &RecordView<'_>) -> Result<bool, NeedsRead> {
        if record.kind == RecordKind::Tombstone {
            return Ok(false);
        }
        if record.expiry_ms == 0 {
            return Ok(true);
        }
        let now_ms = self.clock_ms();
        if !record.is_expired(now_ms) {
            return Ok(true);
        }
        if record.is_expired(self.ceiling_durable.get().millis()) {
            return Ok(false);
        }
        Err(NeedsRead)
    }

    /// Makes the clock's present time durable, so that expiry can be judged by it.
    pub(super) async fn extend_ceiling(&self) -> Result<()> {
        let now = HybridTime::from_millis(self.clock_ms());
        while self.ceiling_durable.get() < now {
            self.fail_if_stopped()?;
            self.mark_wanted.set(true);
            self.commit_wanted.notify();
            self.committed.changed().await;
        }
        Ok(())
    }

    /// The newest record of a key in the tables, tombstones included; its blocks are read if they
    /// are not cached.
    pub(super) async fn get_from_tables(&self, key: &Key<'_>) -> Result<Option<Found>> {
        let position = key.position();
        // The walk sees one set of tables even if a compaction replaces it meanwhile: the files
        // stay open as long as the version is held.
        let version = self.version.borrow().clone();
        for table in version.covering(&position) {
            let Some(handle) = table.locate(key) else { continue };
            self.counters.blocks_searched.add(1);
            let block = match self.block_cache.get(table.meta().number, handle) {
                Some(block) => block,
                None => {
                    self.counters.blocks_read.add(1);
                    table
                        .block(handle, &self.block_cache)
                        .await
                        .inspect_err(|_| self.counters.damaged.add(1))?
                }
            };
            if let Some(found) = Found::in_block(block, key) {
                return Ok(Some(found));
            }
            self.counters.filter_false_positives.add(1);
        }
        Ok(None)
    }

    /// Walks the tables as far as cached blocks allow. `count` says whether this is a user's read.
    fn walk_tables(&self, key: &Key<'_>, count: bool) -> Step {
        let position = key.position();
        let version = self.version.borrow();
        for table in version.covering(&position) {
            let Some(handle) = table.locate(key) else { continue };
            let Some(block) = self.block_cache.get(table.meta().number, handle) else {
                return Step::Read;
            };
            if count {
                self.counters.blocks_searched.add(1);
            }
            if let Some(index) = block.search(key) {
                return Step::Found(block, index);
            }
            if count {
                self.counters.filter_false_positives.add(1);
            }
        }
        Step::Missing
    }

    /// The newest record of a key in cached tables, for writes that must look before they write.
    pub(super) fn tables_now<R>(
        &self,
        key: &Key<'_>,
        visit: impl FnOnce(Option<RecordView<'_>>) -> R,
    ) -> Result<R, NeedsRead> {
        match self.walk_tables(key, false) {
            Step::Found(block, index) => Ok(visit(Some(block.record(index)))),
            Step::Missing => Ok(visit(None)),
            Step::Read => Err(NeedsRead),
        }
    }

    /// Whether a published record of a key is in a memtable.
    fn is_in_memtable(&self, key: &Key<'_>) -> bool {
        self.memtables.borrow().newest_first().any(|slot| slot.table.borrow().get(key).is_some())
    }

    /// The newest record of a key that is pending or in a memtable, tombstones included.
    pub(super) fn newest_in_memory<R>(
        &self,
        key: &Key<'_>,
        visit: impl FnOnce(RecordView<'_>) -> R,
    ) -> Option<R> {
        let memtables = self.memtables.borrow();
        let mut newest: Option<(u64, crate::memtable::EntryRef)> = None;
        let position = key.position();
        for staged in self.pending.borrow().entries_of(key.hash) {
            let Some(slot) = memtables.slot(staged.memtable) else { continue };
            let table = slot.table.borrow();
            let (at, record) = table.resolve(staged.entry);
            if at != position {
                continue;
            }
            let supersedes = newest.is_none_or(|(memtable, entry)| {
                memtables
                    .slot(memtable)
                    .is_some_and(|slot| record.supersedes(&slot.table.borrow().resolve(entry).1))
            });
            if supersedes {
                newest = Some((staged.memtable, staged.entry));
            }
        }
        let published = memtables.newest_first().find(|slot| slot.table.borrow().get(key).is_some());
        match (newest.and_then(|(memtable, entry)| Some((memtables.slot(memtable)?, entry))), published) {
            (None, None) => None,
            (None, Some(slot)) => slot.table.borrow().get(key).map(visit),
            (Some((slot, entry)), None) => Some(visit(slot.table.borrow().resolve(entry).1)),
            (Some((pending_slot, entry)), Some(slot)) => {
                let (pending_table, table) = (pending_slot.table.borrow(), slot.table.borrow());
                let pending = pending_table.resolve(entry).1;
                let published = table.get(key)?;
                Some(visit(if pending.supersedes(&published) { pending } else { published }))
            }
        }
    }
}
