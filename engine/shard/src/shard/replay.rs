//! Putting the log's records back into memtables, and flushing those that are full meanwhile.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use pinion_env::Env;

use super::flush::Flush;
use super::output::is_out_of_space;
use super::{Inner, Shard};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::log::{LogReplay, ReplayedBatch};
use crate::memtable::{EntryRef, Memtable};
use crate::operation::Waiter;
use crate::record::RecordView;

/// Records are made visible so many later than they are copied: the memory that this takes has come
/// by then.
const STAGED_MAX: usize = 16;

/// Records copied into the active memtable that are not visible yet, with their sequence numbers.
#[derive(Default)]
struct Staged(VecDeque<(EntryRef, u64)>);

impl Staged {
    /// Makes the oldest visible until `left` are left.
    fn publish(&mut self, table: &mut Memtable, left: usize) {
        let ready = self.0.len().saturating_sub(left);
        for (entry, sequence) in self.0.drain(..ready) {
            table.publish(entry, sequence);
        }
    }
}

/// The flushes of recovery, one after the other.
#[derive(Default)]
pub(super) struct Flushes {
    running: RefCell<Option<Flush>>,
    failed: RefCell<Option<Error>>,
}

impl Flushes {
    /// Polls recovery to its end, and the flushes that it starts beside it: the disk reads the log
    /// while a memtable is written. On a full disk memtables stay in memory, however many: a node
    /// that cannot write must still start and answer reads, and what the log holds was in memory
    /// before.
    pub(super) async fn beside<E: Env, W: Waiter>(
        &self,
        shard: &Shard<E, W>,
        recovery: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let mut recovery = pin!(recovery);
        let recovered = poll_fn(|context| {
            // First: it may wait for a flush that it has only now started.
            let recovered = recovery.as_mut().poll(context);
            if recovered.is_ready() {
                return recovered;
            }
            let mut running = self.running.borrow_mut();
            while let Some(flush) = running.as_mut() {
                let Poll::Ready(flushed) = flush.as_mut().poll(context) else { break };
                *running = match flushed {
                    Ok(()) => shard.start_flush(),
                    Err(error) if is_out_of_space(&error) => None,
                    Err(error) => {
                        *self.failed.borrow_mut() = Some(error);
                        None
                    }
                };
                shard.inner.flushed.notify();
            }
            Poll::Pending
        })
        .await;
        recovered.and(self.fail_if_failed())
    }

    /// The flush that is not over yet.
    pub(super) fn started(self) -> Option<Flush> {
        self.running.into_inner()
    }

    fn fail_if_failed(&self) -> Result<()> {
        self.failed.borrow_mut().take().map_or(Ok(()), Err)
    }

    /// Waits until another memtable may be frozen.
    async fn room<E: Env, W: Waiter>(&self, shard: &Shard<E, W>) -> Result<()> {
        while !shard.inner.memtables.borrow().can_freeze() && self.running.borrow().is_some() {
            shard.inner.flushed.changed().await;
        }
        self.fail_if_failed()
    }

    /// Sees to it that the oldest frozen memtable is flushed.
    fn start<E: Env, W: Waiter>(&self, shard: &Shard<E, W>) {
        let mut running = self.running.borrow_mut();
        if running.is_none() {
            *running = shard.start_flush();
        }
    }
}

impl<E: Env, W: Waiter> Shard<E, W> {
    /// Puts the log's records back into memtables.
    pub(super) async fn replay(&self, replay: &mut LogReplay<E>, flushes: &Flushes) -> Result<()> {
        let inner = &*self.inner;
        let mut staged = Staged::default();
        while let Some(batch) = replay.next().await? {
            let bytes: usize = batch.ops().map(|op| op.key.len() + op.value.len()).sum();
            let operations = batch.ops().count();
            let full = !inner.memtables.borrow().active().table.borrow().has_room(operations, bytes);
            if full {
                flushes.room(self).await?;
                inner.freeze_replayed(&mut staged);
                flushes.start(self);
            }
            let stale = inner.stale_operations(&batch).await?;
            inner.put_back(&batch, &stale, &mut staged);
            let step = u64::from(inner.options.step_records_max);
            let steps = inner.counters.records_replayed.get() / step;
            inner.counters.records_replayed.add(operations as u64);
            if inner.counters.records_replayed.get() / step != steps {
                inner.make_memory_ahead();
                inner.env.yield_now().await;
            }
        }
        staged.publish(&mut inner.memtables.borrow().active().table.borrow_mut(), 0);
        flushes.fail_if_failed()
    }
}

impl<E: Env, W: Waiter> Inner<E, W> {
    /// Indexes of operations that tables or frozen memtables hold an equal or newer version of.
    /// Memtables may be cut elsewhere than before the crash (other sizes, other pauses), and what
    /// was settled within one of them then lies in two: the older version, logged later, must not
    /// come to stand above.
    async fn stale_operations(&self, batch: &ReplayedBatch<'_>) -> Result<Vec<usize>> {
        let mut stale = Vec::new();
        if batch.stamp() > self.stamp_floor.get() {
            return Ok(stale);
        }
        for (index, op) in batch.ops().enumerate() {
            let key = Key::placed(op.partition, op.namespace, op.key);
            let frozen = self.memtables.borrow().frozen_stamp(&key);
            let present = match frozen {
                Some(stamp) => Some(stamp),
                None => self.get_from_tables(&key).await?.map(|present| present.view().stamp),
            };
            if present.is_some_and(|present| present >= batch.stamp()) {
                stale.push(index);
            }
        }
        Ok(stale)
    }

    /// Copies one record of the log, but for stale operations, into the active memtable, and makes
    /// visible what was copied long enough ago.
    fn put_back(&self, batch: &ReplayedBatch<'_>, stale: &[usize], staged: &mut Staged) {
        let (stamp, position) = (batch.stamp(), batch.position());
        self.clock.borrow_mut().observe(stamp.time);
        let sequence = self.sequence.get() + 1;
        let memtables = self.memtables.borrow();
        let active = memtables.active();
        let mut table = active.table.borrow_mut();
        for (_, op) in batch.ops().enumerate().filter(|(index, _)| !stale.contains(index)) {
            let key = Key::placed(op.partition, op.namespace, op.key);
            let record = RecordView { kind: op.kind, stamp, expiry_ms: op.expiry_ms, value: op.value };
            let entry = table.stage(&key, &record);
            table.prefetch_to_publish(entry, key.hash);
            staged.0.push_back((entry, sequence));
        }
        staged.publish(&mut table, STAGED_MAX);
        self.sequence.set(sequence);
        active.log_end.set(position);
        self.durable.set(position);
    }

    /// Freezes during replay, when there is no log to write to yet.
    fn freeze_replayed(&self, staged: &mut Staged) {
        let mut memtables = self.memtables.borrow_mut();
        staged.publish(&mut memtables.active().table.borrow_mut(), 0);
        let stamp_max = memtables.active().table.borrow().stamp_max();
        self.raise_stamp_floor(stamp_max);
        memtables.freeze_replayed();
    }
}
