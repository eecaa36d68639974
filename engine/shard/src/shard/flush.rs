//! Flush: a frozen memtable becomes a run of tables.
//!
//! Order, always: the log is durable up to the memtable's end -> table data -> table sync ->
//! directory sync -> manifest (which also moves the log's release point) -> only then the memtable
//! goes and its log segments are recycled. A crash anywhere leaves either the log or the tables.
//!
//! Running out of space is not a failure: the unfinished tables are removed, writes are refused as
//! `DiskFull` once both memtables are taken, and the flush is tried again when space returns. Any
//! other failure stops the shard.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use pinion_env::{Env, TaskClass};

use super::memtables::Slot;
use super::output::{Output, is_out_of_space};
use super::{Inner, Shard, State};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::manifest::Edit;
use crate::memtable::MemtableCursor;
use crate::operation::Waiter;
use crate::table::FilterWidth;

/// How long a retired memtable may be held by readers between two looks, in milliseconds.
const RETIRE_RETRY_MS: u64 = 10;

/// A flush that has been started.
pub(super) type Flush = Pin<Box<dyn Future<Output = Result<()>>>>;

impl<E: Env, W: Waiter> Shard<E, W> {
    /// Starts the task that flushes, with the flush that recovery has started.
    pub(super) fn spawn_flush_task(&self, started: Option<Flush>) {
        let shard = self.clone();
        self.inner.env.spawn(TaskClass::Flush, async move {
            if let Some(started) = started
                && !shard.inner.go_on_after(started.await).await
            {
                return;
            }
            shard.inner.flush_frozen().await;
        });
    }

    /// The flush of the oldest frozen memtable.
    pub(super) fn start_flush(&self) -> Option<Flush> {
        let slot = self.inner.memtables.borrow().oldest_frozen().cloned()?;
        let shard = self.clone();
        Some(Box::pin(async move { shard.inner.flush(&slot).await }))
    }
}

impl<E: Env, W: Waiter> Inner<E, W> {
    async fn flush_frozen(&self) {
        loop {
            if self.state.borrow().is_stopped() {
                return;
            }
            let oldest = self.memtables.borrow().oldest_frozen().cloned();
            let Some(slot) = oldest else {
                self.flush_wanted.changed().await;
                continue;
            };
            if !self.go_on_after(self.flush(&slot).await).await {
                return;
            }
        }
    }

    /// Whether to flush on, after a flush that ended so; waits for space if that is what it lacked.
    async fn go_on_after(&self, flushed: Result<()>) -> bool {
        match flushed {
            Ok(()) => true,
            Err(error) if is_out_of_space(&error) => {
                self.wait_for_space().await;
                true
            }
            Err(Error::ShuttingDown) => false,
            Err(error) => {
                self.fail(&error);
                false
            }
        }
    }

    /// Writes one memtable out. On an error nothing has changed but orphaned files, which are
    /// removed here or at the next open.
    pub(super) async fn flush(&self, slot: &Rc<Slot>) -> Result<()> {
        // What is pending in it must be published first, and a buffered write must not reach a
        // table before the log that orders it.
        while slot.table.borrow().pending() > 0 || self.durable.get() < slot.log_end.get() {
            self.fail_if_failed()?;
            self.committed_or_published().await;
        }
        let started = self.env.now();
        let filter = FilterWidth::Sixteen;
        let bytes = slot.table.borrow().memory_bytes() as u64;
        let mut output = Output::new(self, filter, bytes, self.slices.count());
        let written = self.write_memtable(slot, &mut output).await;
        let tables = match written {
            Ok(()) => output.finish().await,
            Err(error) => Err(error),
        };
        let tables = match tables {
            Ok(tables) => tables,
            Err(error) => {
                output.abandon().await;
                return Err(error);
            }
        };
        let run = slot.number.max(self.last_run.get() + 1);
        let mut edits: Vec<Edit> =
            tables.iter().map(|table| Edit::AddTable { level: 0, run, meta: table.meta().clone() }).collect();
        edits.push(Edit::LogReleased { position: slot.log_end.get() });
        self.install(&tables, &edits).await?;

        self.last_run.set(run);
        let bytes: u64 = tables.iter().map(|table| table.meta().file_bytes).sum();
        let next = self.version.borrow().edited(&[], 0, run, tables);
        *self.version.borrow_mut() = Rc::new(next);
        self.memtables.borrow_mut().remove_oldest();
        self.flush_epoch.set(self.flush_epoch.get() + 1);
        self.log_released.set(slot.log_end.get());
        if let Some(log) = self.log.get() {
            log.release(slot.log_end.get());
        }
        self.counters.flushes.add(1);
        self.counters.flush_bytes.add(bytes);
        self.counters.flush_us.add(self.env.now().since(started).as_micros() as u64);
        self.update_debt();
        self.compaction_wanted.notify();
        self.flushed.notify();
        self.retire(Rc::clone(slot));
        Ok(())
    }

    /// Adds the memtable's records to the output, in order, a step at a time.
    async fn write_memtable(&self, slot: &Slot, output: &mut Output<'_, E, W>) -> Result<()> {
        let mut cursor = MemtableCursor::new();
        cursor.seek_first(&slot.table.borrow());
        loop {
            let mut step = self.step();
            {
                let table = slot.table.borrow();
                while let Some((position, record)) = cursor.current(&table) {
                    cursor.look_ahead(&table);
                    if !step.take(position.user.len() + record.value.len()) {
                        break;
                    }
                    let key = Key::placed(position.partition, position.namespace, position.user);
                    if !self.is_dropped(position.namespace) {
                        output.add(&key, &record, true);
                    }
                    cursor.next(&table);
                    if output.wants_writing() {
                        break;
                    }
                }
                if cursor.current(&table).is_none() {
                    return Ok(());
                }
            }
            self.note_step(&step);
            output.write_out().await?;
            self.env.yield_now().await;
            self.fail_if_failed()?;
        }
    }

    /// Frees a memtable in the background, once no reader holds it.
    fn retire(&self, slot: Rc<Slot>) {
        let env = self.env.clone();
        let counters = Rc::clone(&self.counters);
        self.env.spawn(TaskClass::Background, async move {
            let mut slot = slot;
            loop {
                match Rc::try_unwrap(slot) {
                    Ok(slot) => {
                        // Freeing tens of MiB takes milliseconds: never on this core.
                        let remains = slot.table.into_inner().dismantle();
                        env.off_core(move || drop(remains)).await;
                        counters.memtables_freed.add(1);
                        return;
                    }
                    Err(held) => slot = held,
                }
                env.sleep(Duration::from_millis(RETIRE_RETRY_MS)).await;
            }
        });
    }

    /// Resolves when something was committed or published.
    async fn committed_or_published(&self) {
        if self.state.borrow().is_stopped() && !matches!(*self.state.borrow(), State::Closing) {
            return;
        }
        self.published.changed().await;
    }
}
