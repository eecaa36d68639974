//! Writing tables: what a flush and a compaction share.
//!
//! An [`Output`] takes records in order and cuts them into tables of the target size. It also is
//! the one place where work is cut into steps: between two yields a job adds at most
//! `step_records_max` records and `step_bytes_max` bytes.

use std::rc::Rc;
use std::time::Duration;

use pinion_env::Env;

use super::Inner;
use crate::compaction::Slices;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::manifest::Edit;
use crate::operation::Waiter;
use crate::record::RecordView;
use crate::table::{FilterWidth, Table, TableOptions, TableWriter, table_path, write_error};

/// A table takes so many slices that it has this part of its target size, and is large enough for the pages
/// that every table has beside its data: this size, or half of its target.
const WANTED_DIVISOR: u64 = 4;
const WANTED_BYTES_MIN: u64 = 64 << 10;

/// How often a full disk is looked at, in milliseconds.
const SPACE_RETRY_MS: u64 = 500;

/// The budget of one step.
#[derive(Debug)]
pub(super) struct Step {
    records: u32,
    bytes: u32,
    records_max: u32,
    bytes_max: u32,
}

impl Step {
    /// Bytes taken.
    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.bytes)
    }

    /// Takes one record of this size from the budget; the first always fits.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        if self.records >= self.records_max || (self.records > 0 && self.bytes >= self.bytes_max) {
            return false;
        }
        self.records += 1;
        self.bytes = self.bytes.saturating_add(bytes.min(u32::MAX as usize) as u32);
        true
    }
}

/// Records on their way into tables.
pub(super) struct Output<'a, E: Env, W: Waiter> {
    shard: &'a Inner<E, W>,
    filter: FilterWidth,
    writer: Option<TableWriter<E>>,
    /// A table is cut before the next record.
    full: bool,
    /// How many slices a table takes, and what it must have for that.
    width: u32,
    bytes_min: u64,
    /// Where the record added last lies, in tables of that width.
    piece: u32,
    finished: Vec<Rc<Table<E>>>,
    /// The record that waits for a new writer: creating a file is asynchronous, adding is not.
    held: Option<HeldRecord>,
    /// Numbers of the files made, to be removed if the job fails.
    numbers: Vec<u64>,
}

/// A record that came when there was no open table.
struct HeldRecord {
    partition: crate::key::Partition,
    namespace: crate::key::NamespaceId,
    user: Vec<u8>,
    hash: u64,
    kind: crate::record::RecordKind,
    stamp: crate::stamp::Stamp,
    expiry_ms: u64,
    value: Vec<u8>,
    warm: bool,
}

impl<'a, E: Env, W: Waiter> Output<'a, E, W> {
    /// For about so many bytes, in so many slices.
    pub(super) fn new(shard: &'a Inner<E, W>, filter: FilterWidth, bytes: u64, slices: u32) -> Self {
        let target = shard.options.table_bytes;
        let least = WANTED_BYTES_MIN.min(target / 2);
        let wanted = (target / WANTED_DIVISOR).max(least);
        Self {
            shard,
            filter,
            writer: None,
            full: false,
            width: Slices::width(bytes, slices, wanted),
            // Half of what is wanted may be due, slices are not all alike, and records may go.
            bytes_min: (wanted / 4).max(least),
            piece: 0,
            finished: Vec::new(),
            held: None,
            numbers: Vec::new(),
        }
    }

    /// Adds the next record; `warm`: readers have it in memory, and so the block that it gets into goes
    /// into the block cache. Call [`Output::write_out`] when [`Output::wants_writing`] says so.
    pub(super) fn add(&mut self, key: &Key<'_>, record: &RecordView<'_>, warm: bool) {
        assert!(self.held.is_none(), "write_out follows an add that wants it");
        let piece = self.shard.slices.of(key.partition) / self.width;
        if std::mem::replace(&mut self.piece, piece) != piece {
            self.full |= self.writer.as_ref().is_some_and(|writer| writer.file_bytes() >= self.bytes_min);
        }
        match &mut self.writer {
            Some(writer) if !self.full => {
                writer.add(key, record);
                if warm {
                    writer.keep_block(&self.shard.block_cache);
                }
                self.full = writer.file_bytes() >= self.shard.options.table_bytes;
            }
            _ => {
                self.held = Some(HeldRecord {
                    partition: key.partition,
                    namespace: key.namespace,
                    user: key.user.to_vec(),
                    hash: key.hash,
                    kind: record.kind,
                    stamp: record.stamp,
                    expiry_ms: record.expiry_ms,
                    value: record.value.to_vec(),
                    warm,
                });
            }
        }
    }

    /// Whether enough has gathered to be written, or a table must be opened.
    pub(super) fn wants_writing(&self) -> bool {
        self.held.is_some() || self.writer.as_ref().is_some_and(TableWriter::is_full_enough_to_write)
    }

    /// Writes what has gathered.
    pub(super) async fn write_out(&mut self) -> Result<()> {
        if let Some(held) = self.held.take() {
            self.finish_table().await?;
            let shard = self.shard;
            let write_bytes = shard.options.table_write_bytes as usize;
            let options = TableOptions { filter: self.filter, write_bytes, ..TableOptions::default() };
            let number = shard.next_file_number();
            let dir = shard.table_dir();
            self.numbers.push(number);
            let mut writer = TableWriter::create(&shard.env, &dir, number, &shard.identity, options).await?;
            let HeldRecord { partition, namespace, user, hash, kind, stamp, expiry_ms, value, warm } = held;
            let key = Key { partition, namespace, user: &user, hash };
            writer.add(&key, &RecordView { kind, stamp, expiry_ms, value: &value });
            if warm {
                writer.keep_block(&shard.block_cache);
            }
            self.writer = Some(writer);
            self.full = false;
        }
        if let Some(writer) = &mut self.writer
            && writer.is_full_enough_to_write()
        {
            writer.write_out().await?;
        }
        Ok(())
    }

    /// Finishes the last table and gives all of them, opened and synced. The directory is not
    /// synced yet.
    pub(super) async fn finish(&mut self) -> Result<Vec<Rc<Table<E>>>> {
        self.write_out().await?;
        self.finish_table().await?;
        Ok(std::mem::take(&mut self.finished))
    }

    /// Removes the files of a job that failed.
    pub(super) async fn abandon(self) {
        drop(self.writer);
        let dir = self.shard.table_dir();
        for number in self.numbers {
            self.shard.block_cache.forget_table(number);
            // A file that stays is an orphan, removed at the next open.
            let _ = self.shard.env.remove(&table_path(&dir, number)).await;
        }
    }

    async fn finish_table(&mut self) -> Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let meta = writer.finish().await?;
        let shard = self.shard;
        let table = Table::open(&shard.env, &shard.table_dir(), meta, &shard.identity).await?;
        shard.counters.filter_keys_max.raise(table.part_records_max());
        self.finished.push(table);
        Ok(())
    }
}

impl<E: Env, W: Waiter> Inner<E, W> {
    /// The budget until the next yield.
    pub(super) fn step(&self) -> Step {
        Step {
            records: 0,
            bytes: 0,
            records_max: self.options.step_records_max,
            bytes_max: self.options.step_bytes_max,
        }
    }

    /// Keeps the largest step ever taken, for the test that bounds it.
    pub(super) fn note_step(&self, step: &Step) {
        self.counters.step_records_max.raise(u64::from(step.records));
        self.counters.step_bytes_max.raise(u64::from(step.bytes));
        self.counters.steps.add(1);
    }

    /// A number that no file of this shard has had.
    pub(super) fn next_file_number(&self) -> u64 {
        let number = self.next_file.get();
        self.next_file.set(number + 1);
        number
    }

    /// Makes tables that were written and synced, and the edits that name them, durable. When space
    /// runs out nothing was applied: the tables go at once, or every try would leave some behind.
    pub(super) async fn install(&self, tables: &[Rc<Table<E>>], edits: &[Edit]) -> Result<()> {
        let installed = async {
            if !tables.is_empty() {
                let dir = self.table_dir();
                // Not an error of reading: names that may not be durable stop the shard.
                self.env.sync_dir(&dir).await.map_err(|error| write_error(&dir, &error))?;
                // A failed sync is told once, to whoever asked first: had another job's failed
                // meanwhile, this one would not cover the names that that one was to cover.
                self.fail_if_failed()?;
            }
            self.apply_edits(edits).await
        };
        let result = installed.await;
        if result.as_ref().is_err_and(is_out_of_space) {
            let numbers: Vec<u64> = tables.iter().map(|table| table.meta().number).collect();
            self.remove_files(&numbers).await;
        }
        result
    }

    /// Refuses writes until the file system has room again.
    pub(super) async fn wait_for_space(&self) {
        self.counters.disk_full.add(1);
        self.disk_full.set(true);
        while self.disk_full.get() && !self.state.borrow().is_stopped() {
            self.env.sleep(Duration::from_millis(SPACE_RETRY_MS)).await;
            self.look_at_space().await;
        }
    }

    /// Compares the free space with the reserve.
    pub(super) async fn look_at_space(&self) {
        if let Ok(space) = self.env.space(&self.dir).await {
            self.disk_full.set(space.available_bytes < self.options.disk_reserve_bytes);
        }
    }
}

/// Whether an error means that the file system is full.
pub(super) fn is_out_of_space(error: &Error) -> bool {
    match error {
        Error::DiskFull => true,
        Error::Io { error, .. } => {
            matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        }
        _ => false,
    }
}
