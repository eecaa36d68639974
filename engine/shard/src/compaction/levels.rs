//! The shape of a version: places, sizes, targets, debt.
//!
//! Target sizes follow the data from below, as RocksDB's dynamic level sizes do: the last level is
//! always number `levels_max`, each level above it is meant to hold a `level_growth`-th of the one
//! below, and runs are merged into the *base level*, the uppermost that is in use. A shard
//! therefore has runs and one level; when that outgrows `level_base_bytes`, the level above
//! becomes the base. So of what levels hold at least 1 - 1/growth stays in the last one (space), no data
//! is written through levels that are not needed (wear), and no level ever changes its number. With
//! fixed sizes counted from the top instead, the last level could hold little more than the one
//! above it, and half of the disk be old versions.
//!
//! `level_base_bytes` also bounds jobs: a slice of a base level that is larger would be too large for one.

use std::collections::BTreeSet;

use super::columns::Columns;
use super::picker::Job;
use super::slices::Slices;
use crate::key::OwnedPosition;
use crate::namespaces::LiveNamespaces;
use crate::stamp::HybridTime;
use crate::table::TableMeta;

/// The tables of a version, as the picker sees them.
#[derive(Debug, Clone, Default)]
pub struct Levels<'a> {
    /// Newest first.
    pub runs: Vec<RunView<'a>>,
    /// Levels 1 and deeper (`levels[0]` is level 1), each disjoint and in order. Missing levels
    /// are empty.
    pub levels: Vec<Vec<&'a TableMeta>>,
}

/// The tables of one flush, or of runs that were merged with each other, disjoint and in order.
#[derive(Debug, Clone)]
pub struct RunView<'a> {
    /// Greater = newer.
    pub number: u64,
    /// In order.
    pub tables: Vec<&'a TableMeta>,
}

/// What the picker needs to know beside the tables.
#[derive(Debug, Clone, Copy)]
pub struct PickOptions<'a> {
    /// Runs of a like size at which merging them is due.
    pub runs_max: usize,
    /// So many hundredths of what the levels hold may be in runs.
    pub runs_percent: u32,
    /// Number of the last level, at least 1.
    pub levels_max: usize,
    /// Most that the base level is meant to hold, in bytes.
    pub level_base_bytes: u64,
    /// How many times as large each level is as the one above, at least 2.
    pub level_growth: u64,
    /// Target size of a table in bytes.
    pub table_bytes: u64,
    /// Bytes that a job of a whole slice may read.
    pub job_bytes_max: u64,
    /// Where tables end.
    pub slices: Slices,
    /// Time by the shard's hybrid clock, in milliseconds: judges expiry.
    pub now_ms: u64,
    /// Tombstones and expired values with stamps up to this time may go. It must be the same that
    /// the job will judge by, else the sweep picks a table again and again.
    pub drop_horizon: HybridTime,
    /// Tells the records of dropped namespaces, which may go at once. It must not know more than the
    /// job will go by.
    pub namespaces: &'a LiveNamespaces,
    /// Numbers of tables that cannot be read: they stay as they are, and what lies above them stays
    /// above.
    pub quarantined: &'a BTreeSet<u64>,
    /// Jobs that were picked and whose results are not in the version yet.
    pub under_way: &'a [Job],
    /// Where the last job of each level ended ([`super::Job::cursor`]), by level; may be short.
    pub cursors: &'a [OwnedPosition],
}

/// Target sizes of levels.
#[derive(Debug)]
pub(super) struct Shape {
    /// The level that runs are merged into.
    pub base: usize,
    /// In bytes, by level; meaningless above the base.
    pub targets: Vec<u64>,
}

impl<'a> Levels<'a> {
    /// Tables of level 1 or deeper.
    pub(super) fn level(&self, level: usize) -> &[&'a TableMeta] {
        self.levels.get(level - 1).map_or(&[], Vec::as_slice)
    }

    pub(super) fn level_bytes(&self, level: usize) -> u64 {
        total_bytes(self.level(level))
    }

    /// Whether a place older than `run` (an index into the runs; none = older than all runs) and
    /// deeper than `level` touches a table's range.
    pub(super) fn older_touches(&self, run: Option<usize>, level: usize, table: &TableMeta) -> bool {
        let older_runs = run.map_or(&[][..], |run| &self.runs[run + 1..]);
        older_runs.iter().any(|run| !touching(&run.tables, &table.first, &table.last).is_empty())
            || self
                .levels
                .iter()
                .skip(level)
                .any(|tables| !touching(tables, &table.first, &table.last).is_empty())
    }

    pub(super) fn shape(&self, options: &PickOptions<'_>) -> Shape {
        let last = options.levels_max.max(1);
        let growth = options.level_growth.max(2);
        let uppermost = (1..=last).find(|level| !self.level(*level).is_empty()).unwrap_or(last);
        let largest = (1..=last).map(|level| self.level_bytes(level)).max().unwrap_or(0);
        // A base that is hardly larger than a run would be merged over and over.
        let floor = (options.level_base_bytes / growth).min(options.table_bytes * 8).max(1);
        let mut targets = vec![u64::MAX; last + 1];
        // Nothing can be merged into a level where a table in quarantine is in the way: runs end above
        // all of these, in a level that takes what would else pile up as runs.
        let damaged = (1..=last).find(|level| options.quarantines_any(self.level(*level)));
        let lowest = damaged.map_or(last, |level| level - 1);
        let mut base = last;
        let mut target = largest;
        while base > 1 && (base > uppermost.min(lowest) || target > options.level_base_bytes) {
            base -= 1;
            target /= growth;
            targets[base] = target.max(floor);
        }
        Shape { base, targets }
    }
}

impl PickOptions<'_> {
    /// Those of a place's tables that reach into a slice.
    pub(super) fn in_slice<'t, 'a>(&self, slice: u32, tables: &'t [&'a TableMeta]) -> &'t [&'a TableMeta] {
        let of = |position: &OwnedPosition| self.slices.of(position.partition);
        let start = tables.partition_point(|table| of(&table.last) < slice);
        let count = tables[start..].partition_point(|table| of(&table.first) <= slice);
        &tables[start..start + count]
    }

    pub(super) fn quarantines(&self, table: &TableMeta) -> bool {
        self.quarantined.contains(&table.number)
    }

    fn quarantines_any(&self, tables: &[&TableMeta]) -> bool {
        !self.quarantined.is_empty() && tables.iter().any(|table| self.quarantines(table))
    }

    /// Bytes of a level's tables that can go nowhere: those in quarantine, and those above them.
    pub(super) fn stuck_bytes(&self, levels: &Levels<'_>, level: usize) -> u64 {
        if self.quarantined.is_empty() {
            return 0;
        }
        let below = levels.level(level + 1);
        let is_stuck = |table: &&&TableMeta| {
            self.quarantines(table) || self.quarantines_any(touching(below, &table.first, &table.last))
        };
        levels.level(level).iter().filter(is_stuck).map(|table| table.file_bytes).sum()
    }
}

/// What compaction owes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Debt {
    /// Bytes that it would have to read.
    pub bytes: u64,
    /// Runs above each other, at most: so many a read may have to look at.
    pub depth: usize,
}

/// How many bytes compaction would have to read to bring the version back into its shape: the
/// excess of every place, times what it meets below, carried on downwards. Grows smoothly with
/// what is written; 0 when nothing is due. What a table in quarantine holds up is no debt: compaction
/// could not pay it, and writes would be refused for nothing.
pub fn debt(levels: &Levels<'_>, options: &PickOptions<'_>) -> Debt {
    let shape = levels.shape(options);
    let columns = Columns::new(levels, shape.base, options);
    let (mut carried, mut debt) = columns.debt_bytes();
    for level in shape.base..options.levels_max {
        let bytes = levels.level_bytes(level) - options.stuck_bytes(levels, level) + carried;
        carried = bytes.saturating_sub(shape.targets[level]);
        let below = levels.level_bytes(level + 1);
        let met = u128::from(carried) * u128::from(below) / u128::from(bytes.max(1));
        debt = debt.saturating_add(carried).saturating_add(u64::try_from(met).unwrap_or(u64::MAX));
    }
    Debt { bytes: debt, depth: columns.depth() }
}

pub(super) fn total_bytes(tables: &[&TableMeta]) -> u64 {
    tables.iter().map(|table| table.file_bytes).sum()
}

/// The tables of a place that share a position with the range from `first` to `last`.
pub(super) fn touching<'t, 'a>(
    tables: &'t [&'a TableMeta],
    first: &OwnedPosition,
    last: &OwnedPosition,
) -> &'t [&'a TableMeta] {
    let start = tables.partition_point(|table| table.last < *first);
    let count = tables[start..].partition_point(|table| table.first <= *last);
    &tables[start..start + count]
}
