//! Compaction: merging tables down the levels, one bounded job at a time.
//!
//! The picker (`compaction::picker`) names a job: tables of runs or of a level, and the tables they overlap
//! in the next level. The job merges them record by record, in steps with yields between, and
//! leaves out what nobody can need any more:
//! * a record under which a newer one stands;
//! * a tombstone, when nothing older can lie beneath and no late retry of an older write can
//!   arrive any more (its stamp is older than the retry window and the longest deadline);
//! * an expired value likewise; before that it becomes a tombstone of the same stamp;
//! * every record of a dropped namespace.
//!
//! The clock that this is judged by becomes durable with the job's result: if a crash took it back,
//! late writes that a dropped tombstone stood against would be accepted again.
//!
//! Order as in the flush: tables synced -> directory synced -> manifest durable -> inputs removed.
//! The intent of a job lives in memory only: a crash leaves orphans, removed at the next open.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pinion_env::{Env, TaskClass};

use super::output::{Output, Step, is_out_of_space};
use super::place_cursor::PlaceCursor;
use super::tables::Tables;
use super::version::{LEVELS_MAX, Version};
use super::{Inner, Shard, State};
use crate::cache::BlockCache;
use crate::compaction::{Job, Levels, Permit, PickOptions, Work, debt, pick};
use crate::error::{Corruption, Error, Result};
use crate::key::{Key, OwnedPosition, Position};
use crate::manifest::Edit;
use crate::operation::Waiter;
use crate::options::Options;
use crate::record::{RecordKind, RecordView};
use crate::stamp::HybridTime;
use crate::table::{BlockHandle, FilterWidth, Table, TableMeta, table_path};

impl<E: Env, W: Waiter> Shard<E, W> {
    pub(super) fn spawn_compaction_task(&self) {
        let shard = self.clone();
        self.inner.env.spawn(TaskClass::Background, async move { shard.inner.compact().await });
        let shard = self.clone();
        self.inner.env.spawn(TaskClass::Background, async move { shard.inner.sweep().await });
    }
}

/// Memtables that a job of a whole slice may read.
const JOB_MEMTABLES_MAX: u64 = 16;

/// Bytes that a job of a whole slice may read.
pub(super) const fn job_bytes_max(options: &Options) -> u64 {
    options.memtable_bytes * JOB_MEMTABLES_MAX
}

/// What decides whether a record may be left out.
struct Retention {
    /// Tombstones and expired values with stamps up to this can go: nothing older is accepted as a
    /// late retry any more.
    drop_horizon: HybridTime,
    now_ms: u64,
}

/// What becomes of a record.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Keep,
    /// Its time is over but an older version may lie beneath, or a late retry may come.
    BecomeTombstone,
    Drop,
}

impl Retention {
    /// `covered` tells whether an older record of the key may lie in a deeper level.
    fn fate(&self, record: &RecordView<'_>, covered: impl FnOnce() -> bool) -> Fate {
        let tombstone = record.kind == RecordKind::Tombstone;
        if !tombstone && !record.is_expired(self.now_ms) {
            return Fate::Keep;
        }
        if record.stamp.time <= self.drop_horizon && !covered() {
            return Fate::Drop;
        }
        if tombstone { Fate::Keep } else { Fate::BecomeTombstone }
    }
}

impl<E: Env, W: Waiter> Inner<E, W> {
    /// Runs jobs until the shard stops.
    async fn compact(&self) {
        loop {
            if !matches!(*self.state.borrow(), State::Open) {
                return;
            }
            let job = self.pick();
            self.compaction_rests.set(job.is_none());
            let Some(job) = job else {
                self.compaction_wanted.changed().await;
                continue;
            };
            self.jobs.set(self.jobs.get() + 1);
            let done = self.run(&job).await;
            self.jobs.set(self.jobs.get() - 1);
            self.update_debt();
            self.jobs_ended.notify();
            match done {
                Ok(()) => {
                    // After a lack of space, jobs grow again as they get through.
                    let larger = self.job_bytes.get().saturating_mul(2).max(self.options.memtable_bytes / 4);
                    self.job_bytes.set(larger.min(job_bytes_max(&self.options)));
                }
                Err(Error::ShuttingDown) => return,
                Err(error) if is_out_of_space(&error) => {
                    // What a job writes lies beside what it read until it ends: the next takes less.
                    let less = self.job_bytes.get() / 2;
                    self.job_bytes.set(if less < self.options.memtable_bytes / 4 { 0 } else { less });
                    self.wait_for_space().await;
                }
                Err(error) if self.quarantine(&job, &error) => {}
                Err(error) => return self.fail(&error),
            }
        }
    }

    /// Leaves the input of a job alone from now on that the job could not read: writing rot on would
    /// sign it anew. False if the error is no input's: a table that was just written and does not
    /// read back is a failed write.
    fn quarantine(&self, job: &Job, error: &Error) -> bool {
        let (damage, may_pass) = match error {
            Error::Damaged(damage) => (Arc::clone(damage), false),
            // Only writes and syncs stop a shard.
            Error::Io { file, error } => {
                let what = "it cannot be read";
                let (expected, found) = ("its blocks".into(), error.to_string());
                (Corruption { file: file.clone(), offset: 0, what, expected, found }.into(), true)
            }
            _ => return false,
        };
        let dir = self.table_dir();
        let mut inputs = job.sources.iter().chain(&job.targets);
        let Some(number) = inputs.find(|number| table_path(&dir, **number) == damage.file) else {
            return false;
        };
        self.counters.damaged.add(1);
        if may_pass {
            self.quarantine.borrow_mut().insert_unread(*number, damage, self.env.now());
        } else {
            self.quarantine.borrow_mut().insert(*number, damage);
        }
        self.update_debt();
        true
    }

    /// Looks for dead records from time to time, but only while there can be some.
    async fn sweep(&self) {
        loop {
            let dying = |meta: &TableMeta| meta.tombstones > 0 || meta.expiring > 0;
            let any = self.version.borrow().tables().any(|(_, table)| dying(table.meta()));
            if self.state.borrow().is_stopped() {
                return;
            }
            if any {
                self.env.sleep(Duration::from_millis(self.options.sweep_interval_ms)).await;
                self.compaction_wanted.notify();
            } else {
                self.flushed.changed().await;
            }
        }
    }

    fn pick(&self) -> Option<Job> {
        self.quarantine.borrow_mut().release(self.env.now());
        self.with_levels(pick)
    }

    /// Shows the picker the present version.
    fn with_levels<R>(&self, look: impl FnOnce(&Levels<'_>, &PickOptions<'_>) -> R) -> R {
        let version = self.version.borrow();
        let levels = version.levels_view();
        let now_ms = self.clock_ms();
        let cursors = self.compaction_cursors.borrow();
        let (namespaces, quarantine) = (self.namespaces.borrow(), self.quarantine.borrow());
        let options = PickOptions {
            runs_max: self.options.runs_max as usize,
            runs_percent: self.options.runs_percent,
            levels_max: LEVELS_MAX,
            level_base_bytes: self.level_base_bytes(),
            level_growth: u64::from(self.options.level_growth),
            table_bytes: self.options.table_bytes,
            job_bytes_max: self.job_bytes.get(),
            slices: self.slices,
            now_ms,
            drop_horizon: self.drop_horizon(now_ms),
            namespaces: &namespaces,
            quarantined: quarantine.numbers(),
            // One job runs at a time: none is under way when the next is picked.
            under_way: &[],
            cursors: &cursors,
        };
        look(&levels, &options)
    }

    /// No more than makes slices of the base level, with the runs above them, that fit into a job.
    fn level_base_bytes(&self) -> u64 {
        let slices = u64::from(self.slices.count());
        self.options.level_base_bytes.min(job_bytes_max(&self.options) / 2 * slices)
    }

    /// Up to this time nothing late can arrive any more.
    fn drop_horizon(&self, now_ms: u64) -> HybridTime {
        let late_ms = self.options.retry_window_ms_max + self.options.deadline_ms_max;
        HybridTime::from_millis(now_ms.saturating_sub(late_ms))
    }

    pub(super) fn has_compaction_work(&self) -> bool {
        self.jobs.get() > 0 || self.pick().is_some()
    }

    pub(super) fn debt_bytes(&self) -> u64 {
        self.with_levels(debt).bytes
    }

    /// Tells the pace what is due.
    pub(super) fn update_debt(&self) {
        let debt = self.with_levels(debt);
        let mut pace = self.pace.borrow_mut();
        pace.set_debt(debt.bytes);
        pace.set_runs(debt.depth);
        self.urgency.set(pace.urgency());
    }

    async fn run(&self, job: &Job) -> Result<()> {
        let version = self.version.borrow().clone();
        let inputs: Vec<u64> = job.sources.iter().chain(&job.targets).copied().collect();
        let added = match job.work {
            Work::Drop => Vec::new(),
            Work::Move => version.tables_of(&inputs),
            Work::Merge => self.merge(&version, job).await?,
        };
        let level = |level: usize| u8::try_from(level).expect("levels are few");
        let mut edits: Vec<Edit> =
            inputs.iter().map(|number| Edit::RemoveTable { number: *number }).collect();
        edits.extend(added.iter().map(|table| Edit::AddTable {
            level: level(job.to),
            run: job.run,
            meta: table.meta().clone(),
        }));
        edits.push(Edit::CompactCursor { level: level(job.from), position: job.cursor.clone() });
        let judged_by = HybridTime::from_millis(self.clock_ms());
        if judged_by > self.ceiling_durable.get() {
            edits.push(Edit::ClockCeiling { time: judged_by });
        }
        let written = if job.work == Work::Merge { added.as_slice() } else { &[] };
        self.install(written, &edits).await?;

        {
            let mut cursors = self.compaction_cursors.borrow_mut();
            let needed = cursors.len().max(job.from + 1);
            cursors.resize(needed, OwnedPosition::default());
            cursors[job.from] = job.cursor.clone();
        }
        let next = self.version.borrow().edited(&inputs, job.to, job.run, added);
        *self.version.borrow_mut() = Rc::new(next);
        match job.work {
            Work::Move => self.counters.tables_moved.add(inputs.len() as u64),
            Work::Drop => self.counters.tables_expired.add(inputs.len() as u64),
            Work::Merge => {
                self.counters.compactions.add(1);
                self.counters.run_merges.add(u64::from(job.to == 0));
            }
        }
        if job.work != Work::Move {
            self.quarantine.borrow_mut().remove(&inputs);
            self.remove_files(&inputs).await;
        }
        Ok(())
    }

    /// Merges the inputs of a job into new tables, opened and synced. The directory is not.
    async fn merge(&self, version: &Version<E>, job: &Job) -> Result<Vec<Rc<Table<E>>>> {
        let nothing_deeper = version.levels.iter().skip(job.to).all(|tables| tables.is_empty());
        let is_last = job.to > 0 && nothing_deeper;
        let filter = if is_last { FilterWidth::Eight } else { FilterWidth::Sixteen };
        let slices = self.slices.between(job.first.partition, job.last.partition);
        let mut output = Output::new(self, filter, job.bytes, slices);
        let merged = self.merge_into(version, job, &mut output).await;
        let tables = match merged {
            Ok(()) => output.finish().await,
            Err(error) => Err(error),
        };
        match tables {
            Ok(tables) => {
                let written: u64 = tables.iter().map(|table| table.meta().file_bytes).sum();
                self.counters.compaction_read_bytes.add(job.bytes);
                self.counters.compaction_written_bytes.add(written);
                Ok(tables)
            }
            Err(error) => {
                output.abandon().await;
                Err(error)
            }
        }
    }

    async fn merge_into(&self, version: &Version<E>, job: &Job, output: &mut Output<'_, E, W>) -> Result<()> {
        let now_ms = self.clock_ms();
        let retention = Retention { now_ms, drop_horizon: self.drop_horizon(now_ms) };
        let mut places = places_of(version, job);
        let mut warmth: Vec<Warmth> = places.iter().map(|_| Warmth::default()).collect();
        for place in &mut places {
            place.seek_first().await?;
        }
        let (mut order, mut passed) = (MergeOrder::default(), Vec::new());
        (0..places.len()).for_each(|index| order.insert(index, &places));
        loop {
            let mut step = self.step();
            let ended = loop {
                let Some(best) = order.first() else { break true };
                let warm = warmth[best].of(places[best].block(), &self.block_cache);
                let (position, record) = places[best].current().expect("it was chosen for its record");
                if !step.take(position.user.len() + record.value.len()) {
                    break false;
                }
                if position < job.first.borrow() || position > job.last.borrow() {
                    return Err(out_of_range(&places[best], &position, job));
                }
                self.put(version, job.to, &retention, (&position, &record, warm), output);
                order.pop();
                // Older places under the same key are passed over with it.
                passed.push(best);
                while let Some(index) = order.first()
                    && let Some((other, older)) = places[index].current()
                    && other == position
                {
                    if older.supersedes(&record) {
                        return Err(out_of_place(&places[best], &record, &older));
                    }
                    self.counters.records_dropped.add(1);
                    step.take(other.user.len() + older.value.len());
                    passed.push(index);
                    order.pop();
                }
                for index in passed.drain(..) {
                    places[index].next().await?;
                    order.insert(index, &places);
                }
                if output.wants_writing() {
                    break false;
                }
            };
            self.note_step(&step);
            output.write_out().await?;
            if ended {
                return Ok(());
            }
            self.pause(&step).await?;
        }
    }

    /// Writes one record on, or leaves it out. `warm`: its block is in the cache.
    fn put(
        &self,
        version: &Version<E>,
        target_level: usize,
        retention: &Retention,
        (position, record, warm): (&Position<'_>, &RecordView<'_>, bool),
        output: &mut Output<'_, E, W>,
    ) {
        if self.is_dropped(position.namespace) {
            return self.counters.records_dropped.add(1);
        }
        let key = Key::placed(position.partition, position.namespace, position.user);
        match retention.fate(record, || target_level == 0 || version.deeper_may_hold(target_level, position))
        {
            Fate::Keep => output.add(&key, record, warm),
            Fate::Drop => self.counters.records_dropped.add(1),
            Fate::BecomeTombstone => {
                self.counters.records_expired.add(1);
                // The stamp stays: replicas that expire it at another moment must agree.
                let tombstone =
                    RecordView { kind: RecordKind::Tombstone, expiry_ms: 0, value: &[], ..*record };
                output.add(&key, &tombstone, warm);
            }
        }
    }

    /// Between two steps: lets others go first, and waits if compaction is ahead of its pace.
    async fn pause(&self, step: &Step) -> Result<()> {
        self.pace.borrow_mut().spend(self.env.now(), step.bytes());
        self.env.yield_now().await;
        loop {
            if !matches!(*self.state.borrow(), State::Open) {
                self.fail_if_failed()?;
                return Err(Error::ShuttingDown);
            }
            let permit = self.pace.borrow_mut().permit(self.env.now());
            match permit {
                Permit::Go => return Ok(()),
                Permit::Wait(time) => self.env.sleep(time).await,
            }
        }
    }

    /// Removes the files of tables that no version names any more. Readers that still hold one
    /// keep it open.
    pub(super) async fn remove_files(&self, numbers: &[u64]) {
        let dir = self.table_dir();
        for number in numbers {
            self.block_cache.forget_table(*number);
            // A file that stays is an orphan, removed at the next open.
            let _ = self.env.remove(&table_path(&dir, *number)).await;
            self.env.yield_now().await;
        }
    }
}

/// Whether the block that a cursor stands in is in the cache as well: looked up once for each block.
#[derive(Debug, Default)]
struct Warmth {
    block: Option<(u64, BlockHandle)>,
    is_cached: bool,
}

impl Warmth {
    fn of(&mut self, block: Option<(u64, BlockHandle)>, cache: &BlockCache) -> bool {
        if self.block != block {
            self.block = block;
            self.is_cached = block.is_some_and(|(table, handle)| cache.holds(table, handle));
        }
        self.is_cached
    }
}

/// The places that take part in a job, newest first.
fn places_of<E: Env>(version: &Version<E>, job: &Job) -> Vec<PlaceCursor<E>> {
    let inputs = job.sources.iter().chain(&job.targets);
    let inputs: BTreeSet<u64> = inputs.copied().collect();
    version
        .places()
        .map(|tables| {
            tables.iter().filter(|table| inputs.contains(&table.meta().number)).cloned().collect::<Vec<_>>()
        })
        .filter(|tables| !tables.is_empty())
        .map(|tables| PlaceCursor::sequential(Tables::new(version.slices(), tables)))
        .collect()
}

/// A newer place must hold a newer stamp: reads stop at the first record they find. Records that
/// break it were not written by an engine, and must not be rewritten as if they were.
fn out_of_place<E: Env>(place: &PlaceCursor<E>, record: &RecordView<'_>, older: &RecordView<'_>) -> Error {
    Corruption {
        file: place.table().map_or_else(Default::default, |table| table.path().to_path_buf()),
        offset: 0,
        what: "stamp of a record",
        expected: format!("one above {:?}, which an older place holds", older.stamp),
        found: format!("{:?}", record.stamp),
    }
    .into()
}

/// A record outside of its table's range: what is written would overlap other tables of its place.
fn out_of_range<E: Env>(place: &PlaceCursor<E>, position: &Position<'_>, job: &Job) -> Error {
    Corruption {
        file: place.table().map_or_else(Default::default, |table| table.path().to_path_buf()),
        offset: 0,
        what: "position of a record",
        expected: format!("one from {:?} to {:?}", job.first.borrow(), job.last.borrow()),
        found: format!("{position:?}"),
    }
    .into()
}

/// The places that stand on a record, by its position; of equal ones the newest comes first.
#[derive(Debug, Default)]
struct MergeOrder {
    /// Numbers of places, the first one at the end.
    places: Vec<usize>,
}

impl MergeOrder {
    fn first(&self) -> Option<usize> {
        self.places.last().copied()
    }

    fn pop(&mut self) {
        self.places.pop();
    }

    /// Puts a place where it belongs; nowhere, if it has ended.
    fn insert<E: Env>(&mut self, index: usize, all: &[PlaceCursor<E>]) {
        let standing = |index: usize| Some((all[index].current()?.0, index));
        let Some(new) = standing(index) else { return };
        let at = self.places.partition_point(|other| standing(*other).is_some_and(|other| other > new));
        self.places.insert(at, index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::Stamp;

    fn record(kind: RecordKind, stamp_ms: u64, expiry_ms: u64) -> RecordView<'static> {
        let stamp = Stamp { time: HybridTime::from_millis(stamp_ms), ..Stamp::ZERO };
        RecordView { kind, stamp, expiry_ms, value: b"" }
    }

    #[test]
    fn nothing_is_forgotten_too_early() {
        let retention = Retention { drop_horizon: HybridTime::from_millis(100), now_ms: 200 };
        let fate = |record: RecordView<'_>, covered: bool| retention.fate(&record, || covered);
        assert_eq!(fate(record(RecordKind::Value, 1, 0), false), Fate::Keep);
        assert_eq!(fate(record(RecordKind::Value, 1, 201), false), Fate::Keep);
        assert_eq!(fate(record(RecordKind::Value, 101, 200), false), Fate::BecomeTombstone);
        assert_eq!(fate(record(RecordKind::Value, 100, 200), true), Fate::BecomeTombstone);
        assert_eq!(fate(record(RecordKind::Value, 100, 200), false), Fate::Drop);
        assert_eq!(fate(record(RecordKind::Tombstone, 100, 0), false), Fate::Drop);
        assert_eq!(fate(record(RecordKind::Tombstone, 100, 0), true), Fate::Keep);
        assert_eq!(fate(record(RecordKind::Tombstone, 101, 0), false), Fate::Keep);
    }
}
