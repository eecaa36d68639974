//! Columns: what lies above each other in a slice, and which of it is due.
//!
//! Lazy leveling (Dayan, Idreos, "Dostoevsky: better space-time trade-offs for LSM-tree based key-value
//! stores via adaptive removal of superfluous merging", 2018): runs of a like size are merged with each
//! other first, and what they hold goes down once it is much of what it meets there. All runs together hold
//! up to `runs_percent` of what the base level does, and the column that has most goes first: it holds about
//! twice that share, columns take turns, and old versions never fill more than that share of the disk.

use std::cmp::Reverse;
use std::ops::Range;

use super::levels::{Levels, PickOptions, total_bytes};
use crate::key::OwnedPosition;
use crate::table::TableMeta;

/// Runs that do not lie above each other cost reads nothing, but a scan has to know of all: there may be
/// so many times as many.
const SIDE_BY_SIDE: usize = 64;
/// Above each other there may be so many times as many: [`super::Pace`] slows writes down from there on, so
/// something must be due there.
const DEEP: usize = 4;
/// A run of a group holds at most so many times as much as those before it have on average.
const ALIKE: u64 = 2;

/// So many hundredths of a number of bytes.
fn percent(bytes: u64, percent: u32) -> u64 {
    (u128::from(bytes) * u128::from(percent) / 100) as u64
}

/// A slice of all runs and of the base level.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) slice: u32,
    /// The runs with tables in it, newest first: their places in the list of runs, and bytes.
    pub(super) runs: Vec<(usize, u64)>,
    /// Bytes of the base level in it.
    below: u64,
}

impl Column {
    /// Bytes of its runs.
    pub(super) fn bytes(&self) -> u64 {
        self.runs.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Bytes of its runs for each thousand that lie below.
    fn weight(&self) -> u128 {
        u128::from(self.bytes()) * 1000 / u128::from(self.below.max(1))
    }

    /// The newest `width` runs or more that follow each other and are alike, if they should be merged with
    /// each other: not if they are so much of what lies below that they go down soon.
    fn group(&self, width: usize, runs_percent: u32) -> Option<Range<usize>> {
        let width = width.max(2);
        let bytes_max = percent(self.below, runs_percent);
        (0..self.runs.len()).find_map(|start| {
            let (mut end, mut bytes) = (start, 0);
            while let Some((_, more)) = self.runs.get(end)
                && more * (end - start) as u64 <= bytes * ALIKE
            {
                (end, bytes) = (end + 1, bytes + more);
            }
            (end - start >= width && bytes <= bytes_max).then_some(start..end)
        })
    }
}

/// What is due of the runs.
#[derive(Debug)]
pub(super) enum DueRuns<'c> {
    Nothing,
    /// To be merged into the base level: these columns, the one that has most first.
    Down(Vec<&'c Column>),
    /// To be merged with each other: these runs of these columns.
    Across(Vec<(&'c Column, Range<usize>)>),
}

/// All columns of a version.
#[derive(Debug)]
pub(super) struct Columns {
    all: Vec<Column>,
    /// How many runs are merged with each other or go down.
    width: usize,
    /// So many hundredths of the base level may be in runs.
    runs_percent: u32,
    runs: usize,
    runs_bytes: u64,
    below_bytes: u64,
}

impl Columns {
    pub(super) fn new(levels: &Levels<'_>, base: usize, options: &PickOptions<'_>) -> Self {
        let slice = |slice| Column { slice, runs: Vec::new(), below: 0 };
        let mut all: Vec<_> = (0..options.slices.count()).map(slice).collect();
        for (index, run) in levels.runs.iter().enumerate() {
            for (column, bytes) in run.tables.iter().flat_map(|table| shares(table, options)) {
                let runs = &mut all[column].runs;
                match runs.last_mut() {
                    Some((last, sum)) if *last == index => *sum += bytes,
                    _ => runs.push((index, bytes)),
                }
            }
        }
        for (column, bytes) in levels.level(base).iter().flat_map(|table| shares(table, options)) {
            all[column].below += bytes;
        }
        Self {
            all,
            width: options.runs_max.max(1),
            runs_percent: options.runs_percent,
            runs: levels.runs.len(),
            runs_bytes: levels.runs.iter().map(|run| total_bytes(&run.tables)).sum(),
            below_bytes: levels.level_bytes(base),
        }
    }

    /// The greatest number of runs in a column: so many a read may have to look at.
    pub(super) fn depth(&self) -> usize {
        self.all.iter().map(|column| column.runs.len()).max().unwrap_or(0)
    }

    /// Whether there are so many runs that the oldest must go, however little it holds.
    pub(super) fn has_many_runs(&self) -> bool {
        self.runs >= self.width * SIDE_BY_SIDE
    }

    /// Bytes of runs that should be below.
    fn excess_bytes(&self) -> u64 {
        let is_due = self.depth() >= self.width;
        let allowed = percent(self.below_bytes, self.runs_percent);
        if is_due { self.runs_bytes.saturating_sub(allowed) } else { 0 }
    }

    /// Columns whose turn it is: of all, if there is too much in runs, else those with too much of their own.
    fn heavy(&self) -> Vec<&Column> {
        let heaviest = self.all.iter().map(Column::weight).max().unwrap_or(0);
        let own_max = u128::from(self.runs_percent) * 2 * 10;
        let all = self.excess_bytes() > 0;
        let is_heavy = |column: &&Column| {
            // What is light has its turn when more has come: now it would cost more.
            let turn = all && column.weight() * 2 >= heaviest;
            turn || column.runs.len() >= self.width && column.weight() > own_max
        };
        let mut heavy: Vec<_> = self.all.iter().filter(is_heavy).collect();
        heavy.sort_by_key(|column| Reverse(column.weight()));
        heavy
    }

    fn groups(&self) -> Vec<(&Column, Range<usize>)> {
        let group = |column: &Column| column.group(self.width, self.runs_percent);
        self.all.iter().filter_map(|column| Some((column, group(column)?))).collect()
    }

    /// Columns with so many runs that they go down although these are neither much nor alike: reads have to
    /// look at each.
    fn deep(&self) -> Vec<&Column> {
        let mut deep: Vec<_> =
            self.all.iter().filter(|column| column.runs.len() >= self.width * DEEP).collect();
        deep.sort_by_key(|column| Reverse(column.runs.len()));
        deep
    }

    pub(super) fn due(&self) -> DueRuns<'_> {
        let heavy = self.heavy();
        if !heavy.is_empty() {
            return DueRuns::Down(heavy);
        }
        let groups = self.groups();
        if !groups.is_empty() {
            return DueRuns::Across(groups);
        }
        let deep = self.deep();
        if deep.is_empty() { DueRuns::Nothing } else { DueRuns::Down(deep) }
    }

    /// What merging the runs would have to read: bytes of runs that should be below, and in all.
    pub(super) fn debt_bytes(&self) -> (u64, u64) {
        let excess = self.excess_bytes();
        // The column that goes down holds twice the share of all.
        let met = u128::from(excess) * 50 / u128::from(self.runs_percent.max(1));
        let met = met.min(u128::from(self.below_bytes)) as u64;
        let down = |columns: &[&Column]| columns.iter().map(|column| column.bytes() + column.below).sum();
        let other: u64 = match self.due() {
            DueRuns::Nothing => 0,
            DueRuns::Down(_) if excess > 0 => 0,
            DueRuns::Down(columns) => down(&columns),
            DueRuns::Across(groups) => {
                let bytes = |(column, group): &(&Column, Range<usize>)| {
                    column.runs[group.clone()].iter().map(|(_, bytes)| bytes).sum::<u64>()
                };
                groups.iter().map(bytes).sum()
            }
        };
        (excess, excess + met + other)
    }
}

/// The slices that a table reaches into, with its bytes shared out to them.
fn shares(table: &TableMeta, options: &PickOptions<'_>) -> impl Iterator<Item = (usize, u64)> {
    let of = |position: &OwnedPosition| options.slices.of(position.partition) as usize;
    let slices = of(&table.first)..of(&table.last) + 1;
    let each = table.file_bytes / slices.len() as u64;
    slices.map(move |slice| (slice, each))
}
