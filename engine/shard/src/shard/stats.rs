//! What a shard tells about itself.

use std::rc::Rc;
use std::sync::Arc;

use pinion_env::Env;

use super::counters::ShardCounters;
use super::{Shard, State};
use crate::error::Corruption;
use crate::log::LogStats;
use crate::operation::Waiter;
use crate::quarters::Quarters;
use crate::table::Table;

/// One level of tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LevelStats {
    /// Tables.
    pub tables: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Records, tombstones included.
    pub records: u64,
    /// Tombstones.
    pub tombstones: u64,
}

/// A table that compaction leaves alone because it is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedTable {
    /// Its level; 0 = a flushed run.
    pub level: usize,
    /// Bytes of its file.
    pub file_bytes: u64,
    /// Where and what.
    pub damage: Arc<Corruption>,
}

/// A shard at one moment.
#[derive(Debug, Clone, Default)]
pub struct ShardStats {
    /// Its number.
    pub shard: u16,
    /// Why it has stopped, if it has.
    pub failed: Option<String>,
    /// Whether writes are refused for want of space.
    pub disk_full: bool,
    /// Its counters.
    pub counters: ShardCounters,
    /// The log's counters.
    pub log: LogStats,
    /// How long the log's commits took.
    pub commit_times: Quarters,
    /// Runs (level 0) first, then levels 1 and deeper.
    pub levels: Vec<LevelStats>,
    /// Tables that compaction leaves alone, and where they are damaged.
    pub quarantine: Vec<QuarantinedTable>,
    /// Bytes of the largest level or, if that is more, of the largest flushed run. Each has a key at most once:
    /// the bytes of all levels divided by this are an estimate of space amplification, which takes everything
    /// beside it for overwritten and nothing in it.
    pub largest_level_bytes: u64,
    /// Runs, in one slice or another.
    pub runs: u64,
    /// Bytes that compaction still has to move. What a table in quarantine holds up does not count.
    pub compaction_debt_bytes: u64,
    /// Operations that wait for the log.
    pub pending_operations: u64,
    /// Memory of the memtables in bytes.
    pub memtable_bytes: u64,
    /// Keys of the memtables, deleted ones included; one that is in several counts in each.
    pub memtable_records: u64,
    /// Memory of index and filters in bytes.
    pub index_bytes: u64,
    /// Memory of the block cache in bytes.
    pub block_cache_bytes: u64,
    /// Memory of the row cache in bytes.
    pub row_cache_bytes: u64,
}

impl<E: Env, W: Waiter> Shard<E, W> {
    /// The shard's counters and sizes.
    pub fn stats(&self) -> ShardStats {
        let inner = &*self.inner;
        let version = inner.version.borrow().clone();
        let mut levels = vec![LevelStats::default(); version.levels.len() + 1];
        let (mut index_bytes, mut quarantine) = (0, Vec::new());
        for (level, table) in version.tables() {
            let meta = table.meta();
            let stats = &mut levels[level];
            stats.tables += 1;
            stats.bytes += meta.file_bytes;
            stats.records += meta.records;
            stats.tombstones += meta.tombstones;
            index_bytes += table.resident_bytes() as u64;
            if let Some(damage) = inner.quarantine.borrow().get(meta.number) {
                let damage = Arc::clone(damage);
                quarantine.push(QuarantinedTable { level, file_bytes: meta.file_bytes, damage });
            }
        }
        let cached = inner.block_cache.stats();
        inner.counters.scan_reads.raise(cached.scan_reads);
        inner.counters.scan_read_bytes.raise(cached.scan_read_bytes);
        let failed = match &*inner.state.borrow() {
            State::Failed(reason) => Some(reason.to_string()),
            _ => None,
        };
        ShardStats {
            shard: inner.identity.shard,
            failed,
            disk_full: inner.disk_full.get(),
            counters: inner.counters.snapshot(),
            log: inner.log().stats(),
            commit_times: inner.log().commit_times(),
            levels,
            largest_level_bytes: version.places().map(|tables| bytes_of(tables)).max().unwrap_or(0),
            quarantine,
            runs: version.runs.len() as u64,
            compaction_debt_bytes: inner.debt_bytes(),
            pending_operations: inner.pending.borrow().operations() as u64,
            memtable_bytes: inner.memtables.borrow().memory_bytes() as u64,
            memtable_records: inner.memtables.borrow().records() as u64,
            index_bytes,
            block_cache_bytes: cached.bytes,
            row_cache_bytes: inner.row_cache.borrow().memory_bytes() as u64,
        }
    }
}

/// Bytes of the files of tables.
fn bytes_of<E: Env>(tables: &[Rc<Table<E>>]) -> u64 {
    tables.iter().map(|table| table.meta().file_bytes).sum()
}
