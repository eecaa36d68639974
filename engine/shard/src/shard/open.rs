//! Opening a shard (which is recovery) and closing it.
//!
//! The manifest names the tables and the log's release point; files it does not name are orphans
//! of a job that a crash cut short, and are removed in the end. The log is replayed from the release
//! point into memtables under the same caps as in service: a full one is flushed while replay goes on.
//! The old segments stay until their records are in tables; writing goes on in a new segment.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use pinion_env::{Env, TaskClass, create_dir_all};

use super::compact::job_bytes_max;
use super::counters::Counters;
use super::memtables::Memtables;
use super::output::is_out_of_space;
use super::pending::Pending;
use super::replay::Flushes;
use super::tables::Tables;
use super::version::{Run, Version};
use super::{Inner, Shard, State};
use crate::cache::{BlockCache, RowCache};
use crate::codec::COUNTED_MAX;
use crate::compaction::{DEEP, Pace, PaceOptions, Slices};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::key::{Partition, partitions_of_shard};
use crate::log::{LogPosition, LogReplay};
use crate::manifest::{Manifest, ManifestState};
use crate::operation::Waiter;
use crate::options::Options;
use crate::signal::Signal;
use crate::stamp::{HybridClock, HybridTime, Origin};
use crate::table::{Table, table_number, table_path};

/// How often closing looks whether the disk is full, in milliseconds.
const CLOSE_LOOK_MS: u64 = 50;

impl<E: Env, W: Waiter> Shard<E, W> {
    /// Opens the shard in `dir`, an existing directory, creating what is missing, and recovers
    /// everything that was acknowledged. Starts the shard's tasks on `env`.
    ///
    /// # Errors
    /// [`Error::Damaged`] with file and offset if a file is not what was written; no segment of the log
    /// and no table has been changed then, but what the log holds before the damage may be in tables by now. [`Error::BadOptions`] if the options contradict each other.
    pub async fn open(
        env: E,
        dir: PathBuf,
        identity: Identity,
        origin: Origin,
        options: Options,
    ) -> Result<Self> {
        options.check()?;
        for part in ["wal", "table", "quarantine"] {
            let part = dir.join(part);
            create_dir_all(&env, &part).await.map_err(|error| Error::io(part, error))?;
        }
        // Syncs the directory, whether these are new or left by a start that was cut short.
        let (manifest, state) = Manifest::open(&env, &dir, identity, options.manifest_edit_bytes).await?;
        let (version, last_run) = open_tables(&env, &dir, identity, &state).await?;
        let orphans = orphans(&env, &dir, &version).await?;
        let replay = LogReplay::open(&env, &dir, identity, (&options).into(), state.log_released).await?;

        let shard =
            Self { inner: Rc::new(inner(env, dir, identity, origin, options, manifest, version, &state)) };
        shard.inner.last_run.set(last_run);
        shard.inner.number_after(&orphans);
        let flushes = Flushes::default();
        let recovered = flushes.beside(&shard, shard.recover(replay, &orphans, &flushes)).await;
        let flush = flushes.started();
        if let Err(error) = recovered {
            // Who opens the directory again finds nobody writing there.
            if let Some(flush) = flush {
                _ = flush.await;
            }
            return Err(error);
        }
        let inner = &*shard.inner;
        // The first block carries the clock's ceiling over into the new segment.
        inner.mark_wanted.set(true);
        inner.make_memory_ahead();
        inner.update_debt();
        // Nothing is waited for before this: the flush, which nobody polls now, may have yielded.
        shard.spawn_commit_tasks();
        shard.spawn_flush_task(flush);
        shard.spawn_compaction_task();
        if inner.disk_full.get() {
            let waiting = shard.clone();
            inner.env.spawn(TaskClass::Background, async move { waiting.inner.wait_for_space().await });
        }
        Ok(shard)
    }

    /// Puts the log's records back and opens the log for writing.
    async fn recover(&self, mut replay: LogReplay<E>, orphans: &[u64], flushes: &Flushes) -> Result<()> {
        let inner = &*self.inner;
        let next_file = replay.next_segment_file();
        next_file.beside(self.replay(&mut replay, flushes)).await?;
        let wall_ms = inner.env.wall_ms();
        {
            let mut clock = inner.clock.borrow_mut();
            clock.observe(replay.clock_ceiling());
            clock.now(wall_ms);
        }
        let log = replay.finish().await?;
        log.release(inner.log_released.get());
        inner.durable.set(log.start());
        inner.memtables.borrow().active().log_end.set(log.start());
        inner.active_log_start.set(log.start());
        inner.appended.set(log.start());
        let set = inner.log.set(log);
        assert!(set.is_ok(), "the log is opened once");

        inner.remove_orphans(orphans).await?;
        inner.look_at_space().await;
        Ok(())
    }

    /// Stops taking requests, waits for what is pending, writes the memtable out and the clock
    /// down, and ends the shard's tasks. A second call waits for nothing.
    ///
    /// # Errors
    /// [`Error::StorageFailed`] if the shard has failed: what was acknowledged is in the log and is
    /// recovered at the next start.
    pub async fn close(&self) -> Result<()> {
        let inner = &*self.inner;
        if !matches!(*inner.state.borrow(), State::Open) {
            return inner.fail_if_failed();
        }
        *inner.state.borrow_mut() = State::Closing;
        inner.notify_all();
        let flushed = self.flush_unless_full().await;
        while inner.jobs.get() > 0 {
            inner.jobs_ended.changed().await;
        }
        let has_space = !inner.log().is_disk_full();
        if !has_space {
            // A commit that waits for a segment would wait until space returns: its writes end
            // unknown.
            inner.log().shut_down();
        }
        while !inner.pending.borrow().is_empty() {
            inner.fail_if_failed()?;
            inner.published.changed().await;
        }
        // The mark proves the last commit and carries the exact clock.
        inner.mark_wanted.set(has_space);
        inner.commit_wanted.notify();
        while inner.mark_wanted.get() || inner.log().is_writing() {
            inner.fail_if_failed()?;
            inner.committed.changed().await;
        }
        // The mark may have met a log that had failed since the last commit.
        inner.fail_if_failed()?;
        *inner.state.borrow_mut() = State::Closed;
        inner.log().shut_down();
        inner.notify_all();
        flushed
    }
}

impl<E: Env, W: Waiter> Shard<E, W> {
    /// Writes the memtable out, but gives up when the disk is full: the log has everything, and
    /// nobody should wait for space to stop a node.
    async fn flush_unless_full(&self) -> Result<()> {
        let inner = &*self.inner;
        let mut flush = pin!(self.flush());
        while !inner.disk_full.get() && !inner.log().is_disk_full() {
            let mut pause = pin!(inner.env.sleep(Duration::from_millis(CLOSE_LOOK_MS)));
            let flushed = poll_fn(|context| match flush.as_mut().poll(context) {
                Poll::Ready(flushed) => Poll::Ready(Some(flushed)),
                Poll::Pending => pause.as_mut().poll(context).map(|()| None),
            });
            if let Some(flushed) = flushed.await {
                return flushed;
            }
        }
        Ok(())
    }
}

#[expect(clippy::too_many_arguments, reason = "one call site that gathers what opening has found")]
fn inner<E: Env, W: Waiter>(
    env: E,
    dir: PathBuf,
    identity: Identity,
    origin: Origin,
    options: Options,
    manifest: Manifest<E>,
    version: Version<E>,
    state: &ManifestState,
) -> Inner<E, W> {
    let stamp_floor = version.stamp_max();
    let slices = version.slices();
    Inner {
        clock: RefCell::new(HybridClock::new(origin, stamp_floor.time.max(state.clock_ceiling))),
        ceiling_durable: Cell::new(HybridTime::default()),
        stamp_floor: Cell::new(stamp_floor),
        log: std::cell::OnceCell::new(),
        durable: Cell::new(LogPosition::default()),
        appended: Cell::new(state.log_released),
        active_log_start: Cell::new(LogPosition::default()),
        log_released: Cell::new(state.log_released),
        mark_wanted: Cell::new(false),
        pending: RefCell::new(Pending::default()),
        memtables: RefCell::new(Memtables::new(options.memtable_bytes as usize, state.log_released)),
        sequence: Cell::new(0),
        version: RefCell::new(Rc::new(version)),
        manifest: RefCell::new(Some(manifest)),
        manifest_free: Signal::default(),
        next_file: Cell::new(state.next_file.max(1)),
        last_run: Cell::new(0),
        flush_epoch: Cell::new(0),
        compaction_cursors: RefCell::new(
            state.cursors().into_iter().map(Option::unwrap_or_default).collect(),
        ),
        quarantine: RefCell::default(),
        compaction_rests: Cell::new(false),
        urgency: env.urgency(),
        pace: RefCell::new(Pace::new(pace_options(&options), env.now())),
        block_cache: Rc::new(BlockCache::new(options.block_cache_bytes, env.random())),
        row_cache: RefCell::new(RowCache::new(options.row_cache_bytes as usize)),
        namespaces: RefCell::default(),
        disk_full: Cell::new(false),
        slices,
        job_bytes: Cell::new(job_bytes_max(&options)),
        lookups: Cell::new(0),
        jobs: Cell::new(0),
        commit_wanted: Signal::default(),
        committed: Signal::default(),
        published: Signal::default(),
        flush_wanted: Signal::default(),
        flushed: Signal::default(),
        compaction_wanted: Signal::default(),
        jobs_ended: Signal::default(),
        counters: Rc::new(Counters::default()),
        state: RefCell::new(State::Open),
        env,
        dir,
        identity,
        options,
    }
}

/// Debt is soft at 16 memtables and hard at 128; runs above each other are where something is always due, and
/// at twice as many.
fn pace_options(options: &Options) -> PaceOptions {
    let runs_max = options.runs_max as usize;
    PaceOptions {
        soft_debt_bytes: options.memtable_bytes * 16,
        hard_debt_bytes: options.memtable_bytes * 128,
        runs_soft: runs_max * DEEP,
        runs_hard: runs_max * DEEP * 2,
        ..PaceOptions::default()
    }
}

async fn open_tables<E: Env>(
    env: &E,
    dir: &std::path::Path,
    identity: Identity,
    state: &ManifestState,
) -> Result<(Version<E>, u64)> {
    let partitions = partitions_of_shard(identity.shard, identity.shards, identity.partitions);
    let slices = Slices::new(Partition(partitions.start as u16), partitions.len() as u32);
    let (mut runs, mut levels) = (BTreeMap::<u64, Vec<_>>::new(), Vec::<Vec<_>>::new());
    let mut last_run = 0;
    let table_dir = dir.join("table");
    for (level, run, meta) in state.tables() {
        let table = Table::open(env, &table_dir, meta.clone(), &identity).await?;
        last_run = last_run.max(run);
        let level = usize::from(level);
        if level > 0 {
            levels.resize_with(levels.len().max(level), Default::default);
            levels[level - 1].push(table);
        } else {
            runs.entry(run).or_default().push(table);
        }
    }
    let in_order = |mut tables: Vec<Rc<Table<E>>>| {
        tables.sort_by(|left, right| left.meta().first.cmp(&right.meta().first));
        Tables::new(slices, tables)
    };
    let runs = runs.into_iter().rev().map(|(number, tables)| Run { number, tables: in_order(tables) });
    let version = Version::new(slices, runs.collect(), levels.into_iter().map(in_order).collect());
    Ok((version, last_run))
}

/// Numbers of table files that the manifest does not name.
async fn orphans<E: Env>(env: &E, dir: &std::path::Path, version: &Version<E>) -> Result<Vec<u64>> {
    let table_dir = dir.join("table");
    let live: BTreeSet<u64> = version.tables().map(|(_, table)| table.meta().number).collect();
    let entries = env.list(&table_dir).await.map_err(|error| Error::io(&table_dir, error))?;
    let numbers = entries.iter().filter_map(|entry| table_number(&entry.name));
    Ok(numbers.filter(|number| !live.contains(number)).collect())
}

impl<E: Env, W: Waiter> Inner<E, W> {
    /// Has no new table take the place of an orphan.
    fn number_after(&self, orphans: &[u64]) {
        let ours = orphans.iter().filter(|number| **number < COUNTED_MAX);
        let next = ours.max().map_or(0, |number| number + 1);
        self.next_file.set(self.next_file.get().max(next));
    }

    /// Removes orphans, once the log is known to hold what the manifest says that it does, and a
    /// manifest without them is durable. Not before: if a disk hid the end of the manifest that was
    /// read, the next start sees it again, and the tables that it names.
    async fn remove_orphans(&self, orphans: &[u64]) -> Result<()> {
        if orphans.is_empty() {
            return Ok(());
        }
        match self.apply_edits(&[]).await {
            // They may be what fills the disk.
            Err(error) if is_out_of_space(&error) => {}
            applied => applied?,
        }
        let table_dir = self.table_dir();
        for number in orphans {
            let path = table_path(&table_dir, *number);
            self.env.remove(&path).await.map_err(|error| Error::io(path, error))?;
        }
        Ok(())
    }
}
