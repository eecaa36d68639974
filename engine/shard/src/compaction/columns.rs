//! Columns: what lies above each other in a slice, and which of it is due.
//!
//! Lazy leveling (Dayan, Idreos, "Dostoevsky: better space-time trade-offs for LSM-tree based key-value
//! stores via adaptive removal of superfluous merging", 2018): runs of a like size are merged with each
//! other first, and what they hold goes down once it is much of what it meets there. All runs together hold
//! up to `runs_percent` of what the levels do, and the column that has most goes first: it holds about
//! twice that share, columns take turns, and old versions fill about that share of the disk at most.

use std::cmp::Reverse;
use std::ops::Range;

use super::levels::{Levels, PickOptions, total_bytes};
use crate::key::OwnedPosition;
use crate::table::TableMeta;

/// Runs that do not lie above each other cost reads nothing, but a scan has to know of all: there may be
/// so many times as many.
const SIDE_BY_SIDE: usize = 64;
/// Above each other there may be so many times as many as are merged with each other, whatever they hold: from
/// there on something is always due, because [`super::Pace`] slows writes down there.
pub(crate) const DEEP: usize = 4;
/// A run of a group holds at most so many times as much as those before it have on average.
const ALIKE: u64 = 2;
/// Runs that hold less than this part of the levels are left alone by the sweep.
const SWEEP_DIVISOR: u64 = 8;

/// So many hundredths of a number of bytes.
fn percent(bytes: u64, percent: u32) -> u64 {
    (u128::from(bytes) * u128::from(percent) / 100) as u64
}

/// A slice of all runs and of the levels.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) slice: u32,
    /// The runs with tables in it, newest first: their places in the list of runs, and bytes.
    pub(super) runs: Vec<(usize, u64)>,
    /// Bytes of the levels in it.
    below: u64,
}

impl Column {
    /// Bytes of its runs.
    pub(super) fn bytes(&self) -> u64 {
        self.runs.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Whether dead records in its runs are worth rewriting what lies below: what is left alone is a small part.
    pub(super) fn is_worth_a_sweep(&self) -> bool {
        self.bytes() >= self.below / SWEEP_DIVISOR
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

/// All columns of a version.
#[derive(Debug)]
pub(super) struct Columns {
    all: Vec<Column>,
    /// How many runs are merged with each other or go down.
    width: usize,
    /// So many hundredths of the levels may be in runs.
    runs_percent: u32,
    runs: usize,
    runs_bytes: u64,
    /// Bytes of the base level and of those below it: when another level becomes the base, no more is due.
    below_bytes: u64,
    base_bytes: u64,
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
        let below = || (base..=options.levels_max).flat_map(|level| levels.level(level));
        for (column, bytes) in below().flat_map(|table| shares(table, options)) {
            all[column].below += bytes;
        }
        Self {
            all,
            width: options.runs_max.max(1),
            runs_percent: options.runs_percent,
            runs: levels.runs.len(),
            runs_bytes: levels.runs.iter().map(|run| total_bytes(&run.tables)).sum(),
            below_bytes: below().map(|table| table.file_bytes).sum(),
            base_bytes: levels.level_bytes(base),
        }
    }

    pub(super) fn all(&self) -> &[Column] {
        &self.all
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
    pub(super) fn heavy(&self) -> Vec<&Column> {
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

    /// Runs that should be merged with each other.
    pub(super) fn groups(&self) -> Vec<(&Column, Range<usize>)> {
        let group = |column: &Column| column.group(self.width, self.runs_percent);
        self.all.iter().filter_map(|column| Some((column, group(column)?))).collect()
    }

    /// Columns with so many runs that they go down although these are neither much nor alike: reads have to
    /// look at each.
    pub(super) fn deep(&self) -> Vec<&Column> {
        let mut deep: Vec<_> =
            self.all.iter().filter(|column| column.runs.len() >= self.width * DEEP).collect();
        deep.sort_by_key(|column| Reverse(column.runs.len()));
        deep
    }

    /// What merging the runs would have to read: bytes of runs that should be below, and in all.
    pub(super) fn debt_bytes(&self) -> (u64, u64) {
        let excess = self.excess_bytes();
        // The column that goes down holds twice the share of all.
        let met = u128::from(excess) * 50 / u128::from(self.runs_percent.max(1));
        let met = met.min(u128::from(self.base_bytes)) as u64;
        // One after the other: all of them at once would be a leap.
        let first = self.heavy().into_iter().chain(self.deep()).next().filter(|_| excess == 0);
        let first = first.map_or(0, |column| column.bytes() + column.below);
        let groups = self.groups();
        let across = groups.iter().flat_map(|(column, group)| &column.runs[group.clone()]);
        let other = first + across.map(|(_, bytes)| bytes).sum::<u64>();
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
