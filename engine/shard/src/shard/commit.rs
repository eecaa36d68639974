//! The commit loop: from staged to durable to visible to answered.
//!
//! Two tasks. One writes the log: whenever something is staged and no write is in flight it writes
//! all of it as one block (group commit without a timer). The other publishes what has become
//! durable and answers the waiters, in slices, while the next block is in flight already.
//!
//! The first failure of a write to the log ends the shard: everything pending is answered
//! `StorageFailed` (outcome unknown), nothing is retried, and nothing is acknowledged any more.

use std::time::Duration;

use pinion_env::{Env, TaskClass};

use super::pending::{PendingWrite, StagedEntry};
use super::{Inner, Shard, State};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::log::AppendError;
use crate::memtable::{Chunk, IndexSlots, LOOK_AHEAD_MAX, Published};
use crate::operation::{Durability, Effect, Waiter, Written};
use crate::record::RecordKind;
use crate::stamp::{HybridTime, Stamp};

/// Entries published between two yields.
pub(super) const PUBLISH_ENTRIES_MAX: u32 = 256;
/// After so many it yields already, if the next write is not answered together with the last one:
/// answers of one asker that are told apart travel apart, and so do its next requests.
const PUBLISH_ENTRIES_ENOUGH: u32 = 192;
/// Slots of a growing index moved between two yields.
const SETTLED_SLOTS: usize = 4096;
/// How far ahead of the wall clock the durable ceiling is set, in milliseconds. After a crash the
/// clock starts at the ceiling, so an expiry can be seen this much early once. Measured from the
/// wall clock, or crashes in quick succession would carry the clock away from it; well below
/// `stamp_ahead_ms_max`, or a client with stamps from one shard's clock would be refused by another.
const CEILING_AHEAD_MS: u64 = 200;
/// Idle time after which an empty block proves the last commit, in milliseconds.
const IDLE_MARK_MS: u64 = 100;
/// Log that one memtable may span, in segments beyond its own size, before it is frozen although
/// it is not full: the log of a slowly filled memtable is mostly padding.
const LOG_SEGMENTS_SPARE: u64 = 4;
/// Log that an idle shard may keep, in segments beyond the size of a memtable: with fewer, short
/// pauses would cut memtables off long before they are full.
const LOG_SEGMENTS_IDLE_SPARE: u64 = 2;

impl<E: Env, W: Waiter> Shard<E, W> {
    pub(super) fn spawn_commit_tasks(&self) {
        let env = &self.inner.env;
        let shard = self.clone();
        env.spawn(TaskClass::Log, async move { shard.inner.write_log().await });
        let shard = self.clone();
        env.spawn(TaskClass::Foreground, async move { shard.inner.publish_durable().await });
        let shard = self.clone();
        env.spawn(TaskClass::Background, async move { shard.inner.mark_when_idle().await });
    }
}

impl<E: Env, W: Waiter> Inner<E, W> {
    /// Writes the log until the shard stops.
    async fn write_log(&self) {
        loop {
            while !self.log().has_staged() && !self.mark_wanted.get() {
                if self.state.borrow().is_stopped() {
                    return;
                }
                self.commit_wanted.changed().await;
            }
            self.mark_wanted.set(false);
            let ceiling = self.next_ceiling();
            self.log().set_clock_ceiling(ceiling);
            let written = if self.log().has_staged() {
                self.log().commit().await
            } else {
                self.log().commit_mark().await
            };
            match written {
                Ok(durable) => {
                    self.durable.set(durable);
                    self.ceiling_durable.set(ceiling);
                    self.committed.notify();
                    self.bound_log();
                }
                // Closed on a full disk with nothing in the queue: nothing is lost but the mark.
                Err(Error::ShuttingDown) if self.pending.borrow().is_empty() && !self.log().has_staged() => {
                    return self.committed.notify();
                }
                Err(error) => return self.fail(&error),
            }
        }
    }

    /// A ceiling ahead of the wall clock and not behind our own; the clock itself once the shard is
    /// closing, so that a clean restart loses no time.
    fn next_ceiling(&self) -> HybridTime {
        let wall_ms = self.env.wall_ms();
        let now = self.clock.borrow_mut().now(wall_ms);
        let ahead = if matches!(*self.state.borrow(), State::Open) { CEILING_AHEAD_MS } else { 0 };
        HybridTime::from_millis(wall_ms + ahead).max(self.ceiling_durable.get()).max(now)
    }

    /// Publishes and answers what the log has made durable.
    pub(super) async fn publish_durable(&self) {
        loop {
            let (mut published, mut looked_ahead) = (0, 0);
            // Of this queue so many entries have been asked for already.
            let mut asked = (Durability::Sync, 0);
            while let Some((durability, write)) = self.next_durable() {
                if published == 0 {
                    write.waiter.first_of_many();
                }
                if looked_ahead <= published {
                    if published == 0 || asked.0 != durability {
                        asked = (durability, 0);
                    }
                    looked_ahead = published + self.look_ahead_to_publish(durability, &mut asked.1);
                }
                if asked.0 == durability {
                    asked.1 = asked.1.saturating_sub(write.entries as usize);
                }
                published += write.entries.max(1);
                let is_over = published >= PUBLISH_ENTRIES_MAX
                    || published >= PUBLISH_ENTRIES_ENOUGH && !self.goes_on(durability, &write);
                self.publish(durability, write);
                if is_over {
                    (published, looked_ahead) = (0, 0);
                    self.env.yield_now().await;
                }
            }
            self.make_memory_ahead();
            self.published.notify();
            if self.state.borrow().is_stopped() {
                return;
            }
            if self.settle_index() {
                self.env.yield_now().await;
            } else {
                self.committed.changed().await;
            }
        }
    }

    /// Asks for the memory that publishing the next entries will read; how many entries. For as many
    /// entries after them it asks for what is read first, so that it is there the next time. `asked`: for so
    /// many entries that was done already, or will have been.
    fn look_ahead_to_publish(&self, durability: Durability, asked: &mut usize) -> u32 {
        let (pending, memtables) = (self.pending.borrow(), self.memtables.borrow());
        let row_cache = self.row_cache.borrow();
        let entries = || pending.next_entries(durability).take(2 * LOOK_AHEAD_MAX);
        let Some(first) = entries().next() else { return 1 };
        let Some(slot) = memtables.slot(first.memtable) else { return 1 };
        let table = slot.table.borrow();
        let is_there = |next: &&StagedEntry| next.memtable == first.memtable;
        for next in entries().skip(*asked).take_while(is_there) {
            row_cache.prefetch(next.hash);
            table.prefetch_to_publish(next.entry, next.hash);
            *asked += 1;
        }
        let (mut near, mut count) = ([(first.entry, first.hash); LOOK_AHEAD_MAX], 0);
        for (place, next) in near.iter_mut().zip(entries().take_while(is_there)) {
            *place = (next.entry, next.hash);
            count += 1;
        }
        table.look_ahead_to_publish(&near[..count]);
        count as u32
    }

    /// Brings the index of a memtable on; whether more is left.
    fn settle_index(&self) -> bool {
        self.memtables.borrow().newest_first().any(|slot| slot.table.borrow_mut().settle_index(SETTLED_SLOTS))
    }

    /// Has memory for the memtable made ready before it is needed, off the core.
    pub(super) fn make_memory_ahead(&self) {
        let pool = std::rc::Rc::clone(self.memtables.borrow().pool());
        if let Some(bytes) = pool.wanted() {
            let env = self.env.clone();
            self.env.spawn(TaskClass::Foreground, async move {
                let mut wanted = Some(bytes);
                while let Some(bytes) = wanted {
                    pool.give(env.off_core(move || Chunk::touched(bytes)).await);
                    wanted = pool.wanted();
                }
            });
        }
        let slot = std::rc::Rc::clone(self.memtables.borrow().active());
        let Some(slots) = slot.table.borrow_mut().slots_wanted() else { return };
        let env = self.env.clone();
        self.env.spawn(TaskClass::Foreground, async move {
            let slots = env.off_core(move || IndexSlots::new(slots)).await;
            slot.table.borrow_mut().give_slots(slots);
        });
    }

    fn next_durable(&self) -> Option<(Durability, PendingWrite<W>)> {
        self.pending.borrow_mut().pop(self.durable.get(), self.ceiling_durable.get())
    }

    /// Whether the next write is answered together with this one.
    fn goes_on(&self, durability: Durability, write: &PendingWrite<W>) -> bool {
        self.pending.borrow().next_waiter(durability).is_some_and(|next| write.waiter.goes_with(next))
    }

    /// Makes one write visible and answers it. A batch becomes visible under one sequence number.
    fn publish(&self, durability: Durability, mut write: PendingWrite<W>) {
        if let Some(answer) = write.answer.take() {
            return write.waiter.complete(Ok(*answer));
        }
        let sequence = self.sequence.get() + 1;
        let memtables = self.memtables.borrow();
        let mut newest = write.stamp;
        let mut superseded = Vec::new();
        for index in 0..write.entries {
            let staged = self.pending.borrow_mut().pop_entry(durability);
            let slot =
                memtables.slot(staged.memtable).expect("a memtable stays until nothing in it is pending");
            let mut table = slot.table.borrow_mut();
            let published = table.publish(staged.entry, sequence);
            let (position, record) = table.resolve(staged.entry);
            let key = Key {
                partition: position.partition,
                namespace: position.namespace,
                user: position.user,
                hash: staged.hash,
            };
            if index == 0 {
                write.waiter.published(&key);
            }
            if published == Published::Superseded {
                let present = table.get(&key).map_or(write.stamp, |record| record.stamp);
                if present > write.stamp {
                    newest = newest.max(present);
                    superseded.push(write.operation_of(index));
                }
                continue;
            }
            let mut row_cache = self.row_cache.borrow_mut();
            match record.kind {
                RecordKind::Tombstone => row_cache.invalidate(&key),
                _ => row_cache.update_if_present(&key, &record),
            }
        }
        self.sequence.set(sequence);
        drop(memtables);
        let PendingWrite { entries, stamp, expiry_ms, number, waiter, batch, .. } = write;
        if batch.is_none() && superseded.is_empty() {
            let superseded = Vec::new();
            let written = Written { effect: Effect::Applied, stamp, expiry_ms, number, superseded };
            return waiter.complete(Ok(written));
        }
        let all_superseded = superseded.len() == entries as usize;
        let mut listed = batch.map_or_else(Vec::new, |batch| batch.superseded);
        if !superseded.is_empty() {
            listed.append(&mut superseded);
            listed.sort_unstable();
        }
        waiter.complete(Ok(Written {
            effect: if all_superseded { Effect::Superseded } else { Effect::Applied },
            stamp: if all_superseded { newest } else { stamp },
            expiry_ms,
            number,
            superseded: listed,
        }));
    }

    /// Writes an empty block some time after the last commit, so that only the very last commit
    /// before a crash is unproven against later rot.
    async fn mark_when_idle(&self) {
        let mut proven = self.durable.get();
        loop {
            while self.durable.get() == proven {
                if self.state.borrow().is_stopped() {
                    return;
                }
                self.committed.changed().await;
            }
            let seen = self.durable.get();
            self.env.sleep(Duration::from_millis(IDLE_MARK_MS)).await;
            if self.durable.get() == seen && matches!(*self.state.borrow(), State::Open) {
                self.mark_wanted.set(true);
                self.commit_wanted.notify();
                while self.mark_wanted.get() && matches!(*self.state.borrow(), State::Open) {
                    self.committed.changed().await;
                }
                proven = self.durable.get();
            }
        }
    }

    /// Makes sure that the active memtable takes this much, freezing it if it is full.
    pub(super) fn make_room(&self, operations: usize, bytes: usize) -> Result<()> {
        {
            let memtables = self.memtables.borrow();
            let active = memtables.active();
            let log_span = self.appended.get().0.saturating_sub(self.active_log_start.get().0) >> 32;
            let log_span_max = LOG_SEGMENTS_SPARE + self.memtable_segments();
            let table = active.table.borrow();
            let full = !table.has_room(operations, bytes);
            if !full && (log_span < log_span_max || table.is_empty()) {
                return Ok(());
            }
            if !memtables.can_freeze() {
                if !full {
                    return Ok(());
                }
                self.counters.memtable_full.add(1);
                return Err(Error::Overloaded { retry_after_ms: 10 });
            }
        }
        self.freeze();
        Ok(())
    }

    /// Gives log segments back that hold little but marks (of an idle shard whose readers meet
    /// expired records, of one that was started often): the memtable alone would never fill.
    fn bound_log(&self) {
        let is_idle = matches!(*self.state.borrow(), State::Open)
            && !self.log().has_staged()
            && self.pending.borrow().is_empty();
        if !is_idle || self.log().segments() as u64 <= LOG_SEGMENTS_IDLE_SPARE + self.memtable_segments() {
            return;
        }
        if self.memtables.borrow().oldest_frozen().is_none() {
            // All that was staged is durable: the memtable's log ends where the log ends.
            self.appended.set(self.durable.get());
            self.memtables.borrow().active().log_end.set(self.durable.get());
            self.freeze();
        }
    }

    /// The size of a memtable in log segments.
    fn memtable_segments(&self) -> u64 {
        self.options.memtable_bytes / u64::from(self.options.log_segment_bytes)
    }

    /// Freezes the active memtable and wakes the flush.
    pub(super) fn freeze(&self) {
        let mut memtables = self.memtables.borrow_mut();
        let stamp_max = memtables.active().table.borrow().stamp_max();
        self.raise_stamp_floor(stamp_max);
        memtables.freeze();
        self.active_log_start.set(self.appended.get());
        self.flush_wanted.notify();
    }

    /// From now on a write up to this stamp must look for newer versions in frozen memtables and
    /// tables.
    pub(super) fn raise_stamp_floor(&self, stamp: Stamp) {
        self.stamp_floor.set(self.stamp_floor.get().max(stamp));
    }

    /// Stops the shard for good after a failure, and answers everything pending.
    pub(super) fn fail(&self, error: &Error) {
        let reason: std::sync::Arc<str> = match error {
            Error::StorageFailed(reason) => std::sync::Arc::clone(reason),
            other => other.to_string().into(),
        };
        let first = !matches!(*self.state.borrow(), State::Failed(_));
        if first {
            *self.state.borrow_mut() = State::Failed(std::sync::Arc::clone(&reason));
        }
        let pending = self.pending.borrow_mut().drain();
        for write in pending {
            write.waiter.complete(Err(Error::StorageFailed(std::sync::Arc::clone(&reason))));
        }
        self.notify_all();
    }

    pub(super) fn append_error(&self, error: AppendError) -> Error {
        match error {
            AppendError::Full => {
                self.counters.log_queue_full.add(1);
                Error::Overloaded { retry_after_ms: 2 }
            }
            AppendError::TooLarge { bytes, max } => Error::TooLarge { what: "log record", bytes, max },
            AppendError::DiskFull => Error::DiskFull,
            AppendError::Failed(reason) => Error::StorageFailed(reason),
        }
    }
}
