//! One shard: everything under one directory, owned by one core.
//!
//! [`Shard`] is a handle on shared state ([`Inner`]); its tasks hold it too. The parts:
//! * `write`: checks, stamps, decisions, staging;
//! * `commit`: the log's loop, publication, answers, failure;
//! * `read`, `scan`: the ways to records;
//! * `flush`, `compact`, `output`: memtables to tables, tables to tables;
//! * `memtables`, `pending`, `version`: the state they share;
//! * `open`: recovery and shutdown.
//!
//! What must stay true: nothing is answered before it is durable (or queued, if the caller asked
//! for `buffered`); for one key a newer place holds a newer stamp; a file is removed or a log
//! segment recycled only after the manifest that makes it superfluous is durable; after the first
//! failed write nothing is acknowledged.

mod ahead;
mod commit;
mod compact;
mod counters;
mod flush;
mod memtables;
mod open;
mod output;
mod owned;
mod pending;
mod place_cursor;
mod quarantine;
mod read;
mod replay;
mod scan;
mod stats;
mod tables;
#[cfg(test)]
mod tests;
mod update;
mod version;
mod write;

pub use ahead::Ahead;
pub use counters::ShardCounters;
pub use read::{Found, NeedsRead};
pub use scan::{ScanKind, ScanRange, ScanSink};
pub use stats::{LevelStats, QuarantinedTable, ShardStats};

use std::cell::{Cell, OnceCell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use pinion_env::{Env, Urgency};

use crate::cache::{BlockCache, RowCache};
use crate::compaction::{Pace, Slices};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::key::{NamespaceId, OwnedPosition};
use crate::log::{Log, LogPosition};
use crate::manifest::{Edit, Manifest};
use crate::namespaces::LiveNamespaces;
use crate::operation::Waiter;
use crate::options::Options;
use crate::signal::Signal;
use crate::stamp::{HybridClock, HybridTime, Stamp};
use counters::Counters;
use memtables::Memtables;
use pending::Pending;
use quarantine::Quarantine;
use version::Version;

/// A handle on one shard. Cheap to clone; stays on its core.
pub struct Shard<E: Env, W: Waiter> {
    inner: Rc<Inner<E, W>>,
}

impl<E: Env, W: Waiter> Clone for Shard<E, W> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

/// Whether the shard takes requests.
#[derive(Debug, Clone)]
enum State {
    Open,
    /// Draining; new writes are refused.
    Closing,
    /// Its tasks have ended or are about to.
    Closed,
    /// A write failed: nothing is acknowledged any more.
    Failed(Arc<str>),
}

impl State {
    const fn is_stopped(&self) -> bool {
        matches!(self, Self::Closed | Self::Failed(_))
    }
}

/// The state that a shard's tasks share.
struct Inner<E: Env, W: Waiter> {
    env: E,
    dir: PathBuf,
    identity: Identity,
    options: Options,
    state: RefCell<State>,

    clock: RefCell<HybridClock>,
    /// The clock's ceiling that the log has durably.
    ceiling_durable: Cell<HybridTime>,
    /// The greatest stamp in frozen memtables and tables.
    stamp_floor: Cell<Stamp>,

    /// Set when recovery has replayed the old one.
    log: OnceCell<Log<E>>,
    /// The log is durable up to here.
    durable: Cell<LogPosition>,
    /// End of the last record staged.
    appended: Cell<LogPosition>,
    /// Where the log stood when the active memtable was started.
    active_log_start: Cell<LogPosition>,
    /// Everything up to here is in tables.
    log_released: Cell<LogPosition>,
    /// An empty block is wanted.
    mark_wanted: Cell<bool>,
    pending: RefCell<Pending<W>>,
    memtables: RefCell<Memtables>,
    /// Number of the last publication.
    sequence: Cell<u64>,

    version: RefCell<Rc<Version<E>>>,
    manifest: RefCell<Option<Manifest<E>>>,
    manifest_free: Signal,
    next_file: Cell<u64>,
    last_run: Cell<u64>,
    /// Grows with every flush, so that a slow lookup knows that it may have missed one.
    flush_epoch: Cell<u64>,
    /// Where the last job of each level ended.
    compaction_cursors: RefCell<Vec<OwnedPosition>>,
    quarantine: RefCell<Quarantine>,
    /// Compaction has found nothing to do.
    compaction_rests: Cell<bool>,
    /// How urgent compaction is, for the core's shares.
    urgency: Urgency,
    pace: RefCell<Pace>,
    block_cache: Rc<BlockCache>,
    slices: Slices,
    /// Bytes that a job of a whole slice may read at present.
    job_bytes: Cell<u64>,
    row_cache: RefCell<RowCache>,
    namespaces: RefCell<LiveNamespaces>,

    disk_full: Cell<bool>,
    /// Writes waiting for a table read.
    lookups: Cell<u32>,
    /// Background jobs that have not ended.
    jobs: Cell<u32>,

    commit_wanted: Signal,
    committed: Signal,
    published: Signal,
    flush_wanted: Signal,
    flushed: Signal,
    compaction_wanted: Signal,
    jobs_ended: Signal,
    counters: Rc<Counters>,
}

impl<E: Env, W: Waiter> Shard<E, W> {
    /// The clock by which expiry is judged, in milliseconds since 1970.
    pub fn clock_ms(&self) -> u64 {
        self.inner.clock_ms()
    }

    /// The greatest hybrid time this shard has issued or seen.
    pub fn hybrid_time(&self) -> HybridTime {
        self.inner.clock.borrow_mut().now(self.inner.env.wall_ms())
    }

    /// Tells which namespaces live: records of those that do no more are removed from now on, and
    /// the caller refuses requests for them. A shard that was never told removes none.
    pub fn set_live_namespaces(&self, namespaces: LiveNamespaces) {
        *self.inner.namespaces.borrow_mut() = namespaces;
        self.inner.compaction_wanted.notify();
    }

    /// The limits it was opened with.
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Writes the active memtable out, and waits until nothing waits to be flushed.
    ///
    /// # Errors
    /// [`Error::StorageFailed`] if the shard has failed.
    pub async fn flush(&self) -> Result<()> {
        let inner = &*self.inner;
        while !inner.pending.borrow().is_empty() {
            inner.fail_if_failed()?;
            inner.published.changed().await;
        }
        loop {
            inner.fail_if_failed()?;
            let (empty, can_freeze) = {
                let memtables = inner.memtables.borrow();
                (memtables.active().table.borrow().is_empty(), memtables.can_freeze())
            };
            if empty {
                break;
            }
            if can_freeze {
                inner.freeze();
                break;
            }
            inner.flushed.changed().await;
        }
        while inner.memtables.borrow().oldest_frozen().is_some() {
            inner.fail_if_failed()?;
            inner.flushed.changed().await;
        }
        inner.fail_if_failed()
    }

    /// Waits until compaction has nothing left to do.
    ///
    /// # Errors
    /// [`Error::StorageFailed`] if the shard has failed.
    pub async fn settle(&self) -> Result<()> {
        self.flush().await?;
        while self.inner.has_compaction_work() {
            self.inner.fail_if_stopped()?;
            self.inner.compaction_wanted.notify();
            self.inner.jobs_ended.changed().await;
        }
        Ok(())
    }
}

impl<E: Env, W: Waiter> Inner<E, W> {
    fn clock_ms(&self) -> u64 {
        self.clock.borrow_mut().now(self.env.wall_ms()).millis()
    }

    fn log(&self) -> &Log<E> {
        self.log.get().expect("the log is open before the first request")
    }

    fn table_dir(&self) -> PathBuf {
        self.dir.join("table")
    }

    fn is_dropped(&self, namespace: NamespaceId) -> bool {
        self.namespaces.borrow().is_dropped(namespace)
    }

    /// Errors if the shard has failed.
    fn fail_if_failed(&self) -> Result<()> {
        match &*self.state.borrow() {
            State::Failed(reason) => Err(Error::StorageFailed(Arc::clone(reason))),
            State::Closed => Err(Error::ShuttingDown),
            State::Open | State::Closing => Ok(()),
        }
    }

    /// Errors unless the shard takes requests.
    fn fail_if_stopped(&self) -> Result<()> {
        match &*self.state.borrow() {
            State::Closing => Err(Error::ShuttingDown),
            _ => self.fail_if_failed(),
        }
    }

    /// Makes edits durable. One task at a time writes the manifest.
    async fn apply_edits(&self, edits: &[Edit]) -> Result<()> {
        let mut manifest = loop {
            let free = self.manifest.borrow_mut().take();
            match free {
                Some(manifest) => break manifest,
                None => self.manifest_free.changed().await,
            }
        };
        let mut all = edits.to_vec();
        all.push(Edit::NextFile { number: self.next_file.get() });
        let result = manifest.apply(&all).await;
        *self.manifest.borrow_mut() = Some(manifest);
        self.manifest_free.notify();
        result
    }

    fn notify_all(&self) {
        for signal in [
            &self.commit_wanted,
            &self.committed,
            &self.published,
            &self.flush_wanted,
            &self.flushed,
            &self.compaction_wanted,
            &self.jobs_ended,
            &self.manifest_free,
        ] {
            signal.notify();
        }
    }
}
