//! The write path: checks, stamps, the decision of conditional writes, and staging.
//!
//! Every write ends in its waiter, exactly once. A plain put or delete does no more than this:
//! take a stamp, encode one record into the log's queue, copy it into the memtable's arena, and
//! queue the waiter; the commit loop does the rest. A write that must know what stands under its
//! key (a condition, an update, a stamp that is not newer than everything flushed) looks in memory
//! and in cached blocks first; only if a block must be read does it become a task of its own. The
//! decision and the staging happen in one step without an await, so that conditional writes on one
//! key are atomic.

use std::borrow::Cow;
use std::cell::Cell;
use std::cmp::Ordering;
use std::sync::Arc;

use pinion_env::{Env, TaskClass};

use super::owned::{OwnedKey, OwnedOperation};
use super::pending::{PendingWrite, StagedBatch, StagedEntry};
use super::update::updated;
use super::{Inner, Shard};
use crate::compaction::Verdict;
use crate::error::{Error, Misfit, Result};
use crate::key::{KEY_BYTES_MAX, Key};
use crate::log::LogOp;
use crate::operation::{
    BatchOperation, Durability, Effect, Lifetime, Operation, Update, Waiter, WriteOptions, Written,
};
use crate::record::{RecordKind, RecordView};
use crate::stamp::{HybridTime, Stamp};

/// Writes that wait for a table read at the same time.
const LOOKUPS_MAX: u32 = 1024;

/// What is to be written once the present version is known.
struct Decision<'a> {
    kind: RecordKind,
    value: Cow<'a, [u8]>,
    expiry_ms: u64,
    number: i64,
}

/// Operations of a batch that are not staged, by ascending index.
#[derive(Default)]
struct Standing {
    /// A newer version stands under the key.
    superseded: Vec<u32>,
    /// This very version does: the batch is repeated.
    applied: Vec<u32>,
    /// The newest of the versions that stand in the way.
    newest: Stamp,
}

impl Standing {
    fn holds(&self, index: u32) -> bool {
        self.superseded.binary_search(&index).is_ok() || self.applied.binary_search(&index).is_ok()
    }
}

impl<E: Env, W: Waiter> Shard<E, W> {
    /// Writes one key. Answered through the waiter, possibly before this returns. A plain put or
    /// delete allocates nothing in steady state.
    ///
    /// Returns whether it is decided what the write does, so that writes of the key that are started
    /// from now on come after it; if not, it waits for a table.
    pub fn write(&self, key: &Key<'_>, operation: Operation<'_>, options: WriteOptions, waiter: W) -> bool {
        let inner = &*self.inner;
        if let Err(error) = inner.admit(key, &operation, &options) {
            inner.counters.writes_refused.add(1);
            waiter.complete(Err(error));
            return true;
        }
        let stamp = match inner.stamp_of(&options) {
            Ok(stamp) => stamp,
            Err(error) => {
                waiter.complete(Err(error));
                return true;
            }
        };
        let plain = matches!(operation, Operation::Put { .. } | Operation::Delete);
        if plain && stamp > inner.stamp_floor.get() {
            inner.decide_and_stage(key, operation, stamp, None, &options, waiter);
            return true;
        }
        // The decision needs the present version: from memory, from cached blocks, or read.
        if inner.newest_in_memory(key, |_| ()).is_some() {
            inner.decide_and_stage(key, operation, stamp, None, &options, waiter);
            return true;
        }
        let mut waiter = Some(waiter);
        let decided = inner.tables_now(key, |record| {
            let waiter = waiter.take().expect("visited once");
            inner.decide_and_stage(key, operation, stamp, record, &options, waiter);
        });
        match (decided, waiter) {
            (Err(super::NeedsRead), Some(waiter)) => {
                self.look_and_write(key, operation, options, waiter);
                false
            }
            _ => true,
        }
    }

    /// Writes a batch atomically under one stamp; of several operations on one key the last wins.
    /// All its keys belong to this shard.
    pub fn write_batch(&self, operations: &[BatchOperation<'_>], options: WriteOptions, waiter: W) {
        let inner = &*self.inner;
        let stamp = match inner.admit_batch(operations, &options).and_then(|()| inner.stamp_of(&options)) {
            Ok(stamp) => stamp,
            Err(error) => {
                inner.counters.writes_refused.add(1);
                return waiter.complete(Err(error));
            }
        };
        if stamp > inner.stamp_floor.get() {
            return inner.stage_batch(operations, &Standing::default(), stamp, options.durability, waiter);
        }
        self.look_and_write_batch(operations, stamp, options, waiter);
    }

    /// Reads the tables for a write that needs it, then decides and stages.
    fn look_and_write(&self, key: &Key<'_>, operation: Operation<'_>, options: WriteOptions, waiter: W) {
        if let Err(error) = self.inner.begin_lookup() {
            return waiter.complete(Err(error));
        }
        let shard = self.clone();
        let owned = OwnedKey::of(key);
        let operation = OwnedOperation::of(operation);
        self.inner.env.spawn(TaskClass::Foreground, async move {
            let inner = &*shard.inner;
            let key = owned.key();
            loop {
                let epoch = inner.flush_epoch.get();
                let found = inner.get_from_tables(&key).await;
                if inner.flush_epoch.get() != epoch {
                    continue;
                }
                inner.end_lookup();
                // The read took time. A client's stamp may be too old by now; one of ours is issued
                // only now, or a write staged meanwhile would be newer than what is decided on it.
                let result = found.and_then(|found| {
                    inner.admit(&key, &operation.borrow(), &options)?;
                    Ok((found, inner.stamp_of(&options)?))
                });
                match result {
                    Ok((found, stamp)) => {
                        let record = found.as_ref().map(super::Found::view);
                        inner.decide_and_stage(&key, operation.borrow(), stamp, record, &options, waiter);
                    }
                    Err(error) => waiter.complete(Err(error)),
                }
                return;
            }
        });
    }

    /// Finds the keys of a batch that stand somewhere with an equal or newer stamp, then stages
    /// the rest.
    fn look_and_write_batch(
        &self,
        operations: &[BatchOperation<'_>],
        stamp: Stamp,
        options: WriteOptions,
        waiter: W,
    ) {
        if let Err(error) = self.inner.begin_lookup() {
            return waiter.complete(Err(error));
        }
        let shard = self.clone();
        let owned: Vec<_> = operations
            .iter()
            .map(|operation| {
                (OwnedKey::of(&operation.key), operation.value.map(<[u8]>::to_vec), operation.lifetime)
            })
            .collect();
        self.inner.env.spawn(TaskClass::Foreground, async move {
            let inner = &*shard.inner;
            let operations: Vec<BatchOperation<'_>> = owned
                .iter()
                .map(|(key, value, lifetime)| BatchOperation {
                    key: key.key(),
                    value: value.as_deref(),
                    lifetime: *lifetime,
                })
                .collect();
            let found = loop {
                let epoch = inner.flush_epoch.get();
                match inner.newest_of_each(&operations).await {
                    Ok(_) if inner.flush_epoch.get() != epoch => {}
                    result => break result,
                }
            };
            inner.end_lookup();
            let result = found.and_then(|found| {
                inner.admit_batch(&operations, &options)?;
                inner.stamp_of(&options)?;
                Ok(found)
            });
            match result {
                Ok(found) => {
                    // Looked at again: writes were staged while the tables were read.
                    let standing = inner.standing(&operations, &found, stamp);
                    inner.stage_batch(&operations, &standing, stamp, options.durability, waiter)
                }
                Err(error) => waiter.complete(Err(error)),
            }
        });
    }
}

impl<E: Env, W: Waiter> Inner<E, W> {
    /// Refuses what must not enter: too large, too late, too much.
    fn admit(&self, key: &Key<'_>, operation: &Operation<'_>, options: &WriteOptions) -> Result<()> {
        check_key(key)?;
        let (value_bytes, conditional) = match operation {
            Operation::Put { value, .. } => (value.len(), false),
            Operation::Delete => (0, false),
            Operation::PutIf { value, .. } => (value.len(), true),
            Operation::DeleteIf { .. } => (0, true),
            Operation::Update(update) | Operation::UpdateIf { update, .. } => match update {
                Update::Append(bytes) => (bytes.len(), true),
                Update::SetRange { offset, bytes } => (*offset as usize + bytes.len(), true),
                Update::Add(_) | Update::SetExpiry(_) => (0, true),
            },
        };
        self.check_value(value_bytes)?;
        if conditional && options.stamp.is_some() {
            return Err(Error::BadOperation(Misfit::Stamped));
        }
        self.admit_bytes(key.user.len() + value_bytes, 1, options)
    }

    fn admit_batch(&self, operations: &[BatchOperation<'_>], options: &WriteOptions) -> Result<()> {
        if operations.is_empty() || operations.len() > self.options.batch_ops_max as usize {
            return Err(Error::TooLarge {
                what: "batch (operations)",
                bytes: operations.len() as u64,
                max: u64::from(self.options.batch_ops_max),
            });
        }
        let mut bytes = 0;
        for operation in operations {
            check_key(&operation.key)?;
            let value_bytes = operation.value.map_or(0, <[u8]>::len);
            self.check_value(value_bytes)?;
            bytes += operation.key.user.len() + value_bytes;
        }
        if bytes > self.options.batch_bytes_max as usize {
            return Err(Error::TooLarge {
                what: "batch",
                bytes: bytes as u64,
                max: u64::from(self.options.batch_bytes_max),
            });
        }
        self.admit_bytes(bytes, operations.len(), options)
    }

    fn check_value(&self, value_bytes: usize) -> Result<()> {
        if value_bytes > self.options.value_bytes_max as usize {
            return Err(Error::TooLarge {
                what: "value",
                bytes: value_bytes as u64,
                max: u64::from(self.options.value_bytes_max),
            });
        }
        Ok(())
    }

    /// The checks that depend on the shard's state; rotates the memtable if this one is full.
    fn admit_bytes(&self, bytes: usize, operations: usize, options: &WriteOptions) -> Result<()> {
        self.fail_if_stopped()?;
        if options.deadline.is_some_and(|deadline| self.env.now() >= deadline) {
            return Err(Error::Deadline);
        }
        if self.disk_full.get() {
            return Err(Error::DiskFull);
        }
        if self.pending.borrow().operations() + operations > self.options.pending_ops_max as usize {
            return Err(Error::Overloaded { retry_after_ms: 1 });
        }
        self.make_room(operations, bytes)?;
        match self.pace.borrow_mut().admit(bytes as u64) {
            Verdict::Accept => Ok(()),
            Verdict::Refuse { retry_after_ms } => Err(match self.quarantine.borrow().first() {
                // All that is left to do is stuck at damage: trying again would never help.
                Some(damage) if self.compaction_rests.get() => Error::Damaged(Arc::clone(damage)),
                _ => Error::Overloaded { retry_after_ms },
            }),
        }
    }

    /// The stamp of a write: the client's, checked, or a new one.
    fn stamp_of(&self, options: &WriteOptions) -> Result<Stamp> {
        let wall_ms = self.env.wall_ms();
        let mut clock = self.clock.borrow_mut();
        let Some(stamp) = options.stamp else {
            return Ok(clock.issue(wall_ms));
        };
        let now = clock.now(wall_ms);
        if stamp.time > now && stamp.millis() > wall_ms + self.options.stamp_ahead_ms_max {
            return Err(Error::StampAhead);
        }
        if stamp.millis() + self.options.retry_window_ms_max < now.millis() {
            return Err(Error::StampTooOld { window_ms: self.options.retry_window_ms_max });
        }
        clock.observe(stamp.time);
        Ok(stamp)
    }

    /// Decides what an operation writes, given the newest record in the tables (memory is looked
    /// at here), and stages it. No await: nothing can come between decision and staging.
    fn decide_and_stage(
        &self,
        key: &Key<'_>,
        operation: Operation<'_>,
        stamp: Stamp,
        in_tables: Option<RecordView<'_>>,
        options: &WriteOptions,
        mut waiter: W,
    ) {
        let plain = match operation {
            Operation::Put { value, lifetime } => Some((RecordKind::Value, value, lifetime)),
            Operation::Delete => Some((RecordKind::Tombstone, &[][..], Lifetime::Forever)),
            _ => None,
        };
        if let Some((kind, value, lifetime)) = plain {
            if stamp <= self.stamp_floor.get() {
                // The tables and frozen memtables may hold a newer version; the active memtable
                // decides at publication.
                let standing = |record: RecordView<'_>| {
                    // A put that was applied and has expired since may stand as a tombstone of its
                    // stamp, which does not know the expiry any more.
                    let gone = record.stamp == stamp && record.kind != kind;
                    let expiry_ms = if gone { lifetime.expiry_ms(stamp, 0) } else { record.expiry_ms };
                    (record.stamp, expiry_ms)
                };
                let in_memory = self.newest_in_memory(key, standing);
                let newest = in_memory.or(in_tables.map(standing));
                if let Some((present, expiry_ms)) = newest.filter(|(present, _)| *present >= stamp) {
                    let effect = if present == stamp { Effect::Applied } else { Effect::Superseded };
                    let written =
                        Written { effect, stamp: present, expiry_ms, number: 0, superseded: Vec::new() };
                    return match in_memory {
                        Some(_) => {
                            self.answer_by_memory(written, self.is_visible(key), options.durability, waiter)
                        }
                        None => waiter.complete(Ok(written)),
                    };
                }
            }
            let decision = Decision {
                kind,
                value: Cow::Borrowed(value),
                expiry_ms: lifetime.expiry_ms(stamp, 0),
                number: 0,
            };
            return self.stage(key, &decision, stamp, options.durability, waiter);
        }
        // Never a client's stamp: see `admit`.
        let now_ms = stamp.millis();
        let ceiling_ms = self.ceiling_durable.get().millis();
        let rests_on_clock = Cell::new(false);
        let mut decide = |current: Option<RecordView<'_>>| {
            // By a clock that a crash and a clock set back would take back with it.
            let expires_early = |record: &RecordView<'_>| {
                record.kind != RecordKind::Tombstone
                    && record.is_expired(now_ms)
                    && !record.is_expired(ceiling_ms)
            };
            rests_on_clock.set(current.as_ref().is_some_and(expires_early));
            let current = current.filter(|record| record.is_visible(now_ms));
            waiter.decided(current.as_ref());
            self.decide(operation, stamp, current, options.created).ok_or_else(|| Written {
                effect: Effect::ConditionFailed,
                stamp: current.map_or(Stamp::ZERO, |record| record.stamp),
                expiry_ms: current.map_or(0, |record| record.expiry_ms),
                number: 0,
                superseded: Vec::new(),
            })
        };
        let by_memory = self.newest_in_memory(key, |record| decide(Some(record)));
        let is_by_memory = by_memory.is_some();
        match by_memory.unwrap_or_else(|| decide(in_tables)) {
            Ok(Ok(decision)) => self.stage(key, &decision, stamp, options.durability, waiter),
            Ok(Err(error)) => waiter.complete(Err(error)),
            Err(failed) => {
                self.counters.conditions_failed.add(1);
                if rests_on_clock.get() {
                    self.answer_by_clock(failed, now_ms, waiter);
                } else if is_by_memory {
                    self.answer_by_memory(failed, self.is_visible(key), options.durability, waiter);
                } else {
                    waiter.complete(Ok(failed));
                }
            }
        }
    }

    /// What a conditional write or update makes of the visible record; `None` if the condition
    /// does not hold.
    fn decide(
        &self,
        operation: Operation<'_>,
        stamp: Stamp,
        current: Option<RecordView<'_>>,
        created: Lifetime,
    ) -> Option<Result<Decision<'static>>> {
        let kept = current.map_or(0, |record| record.expiry_ms);
        let value = |value: Vec<u8>, lifetime: Lifetime, number: i64| Decision {
            kind: RecordKind::Value,
            value: Cow::Owned(value),
            expiry_ms: lifetime.expiry_ms(stamp, kept),
            number,
        };
        Some(match operation {
            Operation::PutIf { condition, .. }
            | Operation::DeleteIf { condition }
            | Operation::UpdateIf { condition, .. }
                if !condition.holds(current.as_ref()) =>
            {
                return None;
            }
            Operation::PutIf { value: bytes, lifetime, .. } => Ok(value(bytes.to_vec(), lifetime, 0)),
            Operation::Put { value: bytes, lifetime } => Ok(value(bytes.to_vec(), lifetime, 0)),
            Operation::Delete | Operation::DeleteIf { .. } => Ok(Decision {
                kind: RecordKind::Tombstone,
                value: Cow::Borrowed(&[]),
                expiry_ms: 0,
                number: 0,
            }),
            Operation::Update(Update::SetExpiry(lifetime))
            | Operation::UpdateIf { update: Update::SetExpiry(lifetime), .. } => match current {
                None => return None,
                Some(record) => Ok(value(record.value.to_vec(), lifetime, 0)),
            },
            Operation::Update(update) | Operation::UpdateIf { update, .. } => {
                let present = current.map_or(&[][..], |record| record.value);
                updated(present, current.is_some(), update, self.options.value_bytes_max).map(
                    |(bytes, number)| {
                        value(bytes, if current.is_some() { Lifetime::Keep } else { created }, number)
                    },
                )
            }
        })
    }

    /// Puts one record into the log's queue and the memtable's arena.
    fn stage(&self, key: &Key<'_>, decision: &Decision<'_>, stamp: Stamp, durability: Durability, waiter: W) {
        let record =
            RecordView { kind: decision.kind, stamp, expiry_ms: decision.expiry_ms, value: &decision.value };
        let position = match self.log().append(stamp, &[log_op(key, &record)]) {
            Ok(position) => position,
            Err(error) => return waiter.complete(Err(self.append_error(error))),
        };
        let mut pending = self.pending.borrow_mut();
        pending.stage(durability, self.stage_in_memtable(key, &record, position));
        pending.push(
            durability,
            PendingWrite {
                position,
                entries: 1,
                stamp,
                expiry_ms: decision.expiry_ms,
                number: decision.number,
                waiter,
                batch: None,
                answer: None,
            },
        );
        drop(pending);
        self.counters.writes.add(1);
        self.counters.bytes_ingested.add((key.user.len() + decision.value.len()) as u64);
        self.wake_commit(durability);
    }

    /// Stages a batch but for the operations that are superseded or were applied before. Operations
    /// that are followed by another on the same key are left out: the last one wins.
    fn stage_batch(
        &self,
        operations: &[BatchOperation<'_>],
        standing: &Standing,
        stamp: Stamp,
        durability: Durability,
        waiter: W,
    ) {
        let last = last_of_each_key(operations);
        let staged = |index: &usize| last.contains(index) && !standing.holds(*index as u32);
        // Those that were left out are not told apart at publication either.
        let superseded = || {
            let indexes = standing.superseded.iter().copied();
            indexes.filter(|index| last.contains(&(*index as usize))).collect::<Vec<u32>>()
        };
        let indexes: Vec<usize> = (0..operations.len()).filter(staged).collect();
        let records: Vec<(&Key<'_>, RecordView<'_>)> = indexes
            .iter()
            .map(|index| {
                let operation = &operations[*index];
                let (kind, value) = match operation.value {
                    Some(value) => (RecordKind::Value, value),
                    None => (RecordKind::Tombstone, &[][..]),
                };
                let expiry_ms = match operation.value {
                    Some(_) => operation.lifetime.expiry_ms(stamp, 0),
                    None => 0,
                };
                (&operation.key, RecordView { kind, stamp, expiry_ms, value })
            })
            .collect();
        if records.is_empty() {
            let repeated = !standing.applied.is_empty();
            let written = Written {
                effect: if repeated { Effect::Applied } else { Effect::Superseded },
                stamp: if repeated { stamp } else { standing.newest },
                expiry_ms: 0,
                number: 0,
                superseded: superseded(),
            };
            let is_visible = operations.iter().all(|operation| self.is_visible(&operation.key));
            return self.answer_by_memory(written, is_visible, durability, waiter);
        }
        let ops: Vec<LogOp<'_>> = records.iter().map(|(key, record)| log_op(key, record)).collect();
        let position = match self.log().append(stamp, &ops) {
            Ok(position) => position,
            Err(error) => return waiter.complete(Err(self.append_error(error))),
        };
        let mut pending = self.pending.borrow_mut();
        for (key, record) in &records {
            pending.stage(durability, self.stage_in_memtable(key, record, position));
            self.counters.bytes_ingested.add((key.user.len() + record.value.len()) as u64);
        }
        let write = PendingWrite {
            position,
            entries: records.len() as u32,
            stamp,
            expiry_ms: 0,
            number: 0,
            waiter,
            batch: Some(Box::new(StagedBatch {
                operations: indexes.iter().map(|index| *index as u32).collect(),
                superseded: superseded(),
            })),
            answer: None,
        };
        pending.push(durability, write);
        drop(pending);
        self.counters.writes.add(records.len() as u64);
        self.wake_commit(durability);
    }

    /// Something was staged: wakes the log, and for a buffered write the publisher too.
    fn wake_commit(&self, durability: Durability) {
        self.commit_wanted.notify();
        if durability == Durability::Buffered {
            self.committed.notify();
        }
    }

    fn stage_in_memtable(
        &self,
        key: &Key<'_>,
        record: &RecordView<'_>,
        position: crate::log::LogPosition,
    ) -> StagedEntry {
        let memtables = self.memtables.borrow();
        let active = memtables.active();
        active.log_end.set(position);
        self.appended.set(position);
        let entry = active.table.borrow_mut().stage(key, record);
        StagedEntry { hash: key.hash, memtable: active.number, entry }
    }

    /// The newest version of each operation's key, in memory or in the tables.
    async fn newest_of_each(&self, operations: &[BatchOperation<'_>]) -> Result<Vec<Option<Stamp>>> {
        let mut newest = Vec::with_capacity(operations.len());
        for operation in operations {
            newest.push(match self.newest_in_memory(&operation.key, |record| record.stamp) {
                Some(present) => Some(present),
                None => self.get_from_tables(&operation.key).await?.map(|found| found.view().stamp),
            });
        }
        Ok(newest)
    }

    /// Compares a batch with what was found under its keys and with what is in memory now.
    fn standing(&self, operations: &[BatchOperation<'_>], found: &[Option<Stamp>], stamp: Stamp) -> Standing {
        let mut standing = Standing::default();
        for (index, (operation, found)) in operations.iter().zip(found).enumerate() {
            let present = self.newest_in_memory(&operation.key, |record| record.stamp).max(*found);
            match present.map(|present| present.cmp(&stamp)) {
                Some(Ordering::Greater) => {
                    standing.superseded.push(index as u32);
                    standing.newest = standing.newest.max(present.unwrap_or_default());
                }
                Some(Ordering::Equal) => standing.applied.push(index as u32),
                Some(Ordering::Less) | None => {}
            }
        }
        standing
    }

    /// Answers a write that changed nothing by what was found in memory. Readers may not see that yet,
    /// and it may not be durable: then the answer waits, or a read after it would show what was there
    /// before, or a crash could take what it was given for. A buffered one waits for readers, and for the
    /// clock if the stamp that it tells could be given again after a crash.
    fn answer_by_memory(&self, written: Written, is_visible: bool, durability: Durability, waiter: W) {
        let position = self.appended.get();
        let is_kept = position <= self.durable.get()
            || (durability == Durability::Buffered && written.stamp.time <= self.ceiling_durable.get());
        if is_visible && is_kept {
            return waiter.complete(Ok(written));
        }
        // What it waits for is published before it: writes that were staged earlier, in their order.
        let write = PendingWrite {
            position,
            entries: 0,
            stamp: written.stamp,
            expiry_ms: written.expiry_ms,
            number: written.number,
            waiter,
            batch: None,
            answer: Some(Box::new(written)),
        };
        self.pending.borrow_mut().push(Durability::Sync, write);
    }

    /// Answers a write that changed nothing because its record has expired, once neither what was found
    /// nor the clock by which it has expired can be lost: or a restart with the clock set back would show
    /// the record again. What *is* written on the strength of an expiry has a stamp of the same clock,
    /// and its commit carries the ceiling.
    fn answer_by_clock(&self, written: Written, now_ms: u64, waiter: W) {
        if self.log().is_disk_full() {
            return waiter.complete(Err(Error::DiskFull));
        }
        let time = HybridTime::from_millis(now_ms);
        let write = PendingWrite {
            position: self.appended.get(),
            entries: 0,
            stamp: Stamp { time, ..Stamp::ZERO },
            expiry_ms: written.expiry_ms,
            number: written.number,
            waiter,
            batch: None,
            answer: Some(Box::new(written)),
        };
        self.pending.borrow_mut().push_by_clock(write);
        self.mark_wanted.set(true);
        self.commit_wanted.notify();
    }

    /// Whether nothing is pending under a key: readers see the newest version there is.
    fn is_visible(&self, key: &Key<'_>) -> bool {
        self.pending.borrow().entries_of(key.hash).next().is_none()
    }

    fn begin_lookup(&self) -> Result<()> {
        if self.lookups.get() >= LOOKUPS_MAX {
            return Err(Error::Overloaded { retry_after_ms: 2 });
        }
        self.lookups.set(self.lookups.get() + 1);
        Ok(())
    }

    fn end_lookup(&self) {
        self.lookups.set(self.lookups.get() - 1);
    }
}

fn check_key(key: &Key<'_>) -> Result<()> {
    if key.user.is_empty() || key.user.len() > KEY_BYTES_MAX {
        return Err(Error::TooLarge { what: "key", bytes: key.user.len() as u64, max: KEY_BYTES_MAX as u64 });
    }
    Ok(())
}

fn log_op<'a>(key: &Key<'a>, record: &RecordView<'a>) -> LogOp<'a> {
    LogOp {
        kind: record.kind,
        partition: key.partition,
        namespace: key.namespace,
        key: key.user,
        expiry_ms: record.expiry_ms,
        value: record.value,
    }
}

/// Which operations of a batch are the last on their key.
fn last_of_each_key(operations: &[BatchOperation<'_>]) -> std::collections::BTreeSet<usize> {
    let mut last = std::collections::BTreeMap::new();
    for (index, operation) in operations.iter().enumerate() {
        last.insert((operation.key.namespace, operation.key.user), index);
    }
    last.into_values().collect()
}
