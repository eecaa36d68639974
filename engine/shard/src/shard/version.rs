//! The set of tables a reader sees: immutable, replaced as a whole.
//!
//! Places from newest to oldest: runs (level 0), newest first, then levels 1, 2, ... For
//! one key a newer place holds a newer stamp, so a read stops at the first record it finds.
//!
//! Most runs have tables in some slices only. So a version knows of each slice which places have any
//! there: a read looks at these, and not into each run.

use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;

use pinion_env::Env;

use super::tables::{Tables, covering};
use crate::compaction::{Levels, RunView, Slices};
use crate::key::Position;
use crate::stamp::Stamp;
use crate::table::{Table, TableMeta};

/// Levels below the runs. With a growth of 8 the last holds 8^5 times the first.
pub(crate) const LEVELS_MAX: usize = 6;

/// What came from one flush, or from runs that were merged with each other.
pub(crate) struct Run<E: Env> {
    /// Greater = newer.
    pub number: u64,
    pub tables: Rc<Tables<E>>,
}

impl<E: Env> Clone for Run<E> {
    fn clone(&self) -> Self {
        Self { number: self.number, tables: Rc::clone(&self.tables) }
    }
}

/// The tables of a shard at one moment.
pub(crate) struct Version<E: Env> {
    /// Newest first.
    pub runs: Vec<Run<E>>,
    /// Levels 1 and deeper: `levels[0]` is level 1.
    pub levels: Vec<Rc<Tables<E>>>,
    slices: Slices,
    /// By slice: the tables of each place that reach into it, newest place first.
    columns: Vec<Vec<Part>>,
}

/// Some tables of a place.
struct Part {
    /// Runs are counted first, then levels.
    place: usize,
    tables: Range<usize>,
}

impl<E: Env> Version<E> {
    /// A version of these runs, newest first, and levels.
    pub(crate) fn new(slices: Slices, runs: Vec<Run<E>>, levels: Vec<Rc<Tables<E>>>) -> Self {
        let mut columns: Vec<Vec<Part>> = (0..slices.count()).map(|_| Vec::new()).collect();
        for (place, tables) in runs.iter().map(|run| &run.tables).chain(&levels).enumerate() {
            let parts = tables.parts().iter().zip(&mut columns).filter(|(part, _)| !part.is_empty());
            parts.for_each(|(part, column)| column.push(Part { place, tables: part.clone() }));
        }
        Self { runs, levels, slices, columns }
    }

    /// How the shard is divided.
    pub(crate) const fn slices(&self) -> Slices {
        self.slices
    }

    /// The tables that may hold a position, newest place first.
    pub(crate) fn covering<'a>(
        &'a self,
        position: &'a Position<'a>,
    ) -> impl Iterator<Item = &'a Rc<Table<E>>> {
        let column = &self.columns[self.slices.of(position.partition) as usize];
        column.iter().filter_map(|part| {
            let levels = part.place.checked_sub(self.runs.len());
            let tables = levels.map_or_else(|| &self.runs[part.place].tables, |level| &self.levels[level]);
            covering(&tables[part.tables.clone()], position)
        })
    }

    /// All places with any tables, newest first.
    pub(crate) fn places(&self) -> impl Iterator<Item = &Rc<Tables<E>>> {
        self.runs.iter().map(|run| &run.tables).chain(&self.levels).filter(|tables| !tables.is_empty())
    }

    /// The tables of these numbers, in order of their ranges.
    pub(crate) fn tables_of(&self, numbers: &[u64]) -> Vec<Rc<Table<E>>> {
        let named = self.tables().filter(|(_, table)| numbers.contains(&table.meta().number));
        let mut tables: Vec<_> = named.map(|(_, table)| Rc::clone(table)).collect();
        tables.sort_by(|left, right| left.meta().first.cmp(&right.meta().first));
        tables
    }

    /// What the picker sees.
    pub(crate) fn levels_view(&self) -> Levels<'_> {
        fn metas<E: Env>(tables: &[Rc<Table<E>>]) -> Vec<&TableMeta> {
            tables.iter().map(|table| table.meta()).collect()
        }
        Levels {
            runs: self
                .runs
                .iter()
                .map(|run| RunView { number: run.number, tables: metas(&run.tables) })
                .collect(),
            levels: self.levels.iter().map(|tables| metas(tables)).collect(),
        }
    }

    /// Every table with its level.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (usize, &Rc<Table<E>>)> {
        let runs = self.runs.iter().flat_map(|run| run.tables.iter().map(|table| (0, table)));
        let levels = self.levels.iter().enumerate();
        runs.chain(levels.flat_map(|(index, tables)| tables.iter().map(move |table| (index + 1, table))))
    }

    /// The greatest stamp in any table.
    pub(crate) fn stamp_max(&self) -> Stamp {
        self.tables().map(|(_, table)| table.meta().stamp_max).max().unwrap_or_default()
    }

    /// Whether a level deeper than `level` may hold this position.
    pub(crate) fn deeper_may_hold(&self, level: usize, position: &Position<'_>) -> bool {
        self.levels.iter().skip(level).any(|tables| tables.covering(position).is_some())
    }

    /// The version after replacing tables. `added` go to `level` (0: to the run `run`).
    pub(crate) fn edited(&self, removed: &[u64], level: usize, run: u64, added: Vec<Rc<Table<E>>>) -> Self {
        let (mut runs, mut levels) = (self.runs.clone(), self.levels.clone());
        let removed: BTreeSet<u64> = removed.iter().copied().collect();
        let goes = |table: &Rc<Table<E>>| removed.contains(&table.meta().number);
        for tables in runs.iter_mut().map(|run| &mut run.tables).chain(&mut levels) {
            if tables.iter().any(goes) {
                *tables =
                    Tables::new(self.slices, tables.iter().filter(|table| !goes(table)).cloned().collect());
            }
        }
        if !added.is_empty() {
            let tables = if level == 0 {
                let at = runs.partition_point(|other| other.number > run);
                if runs.get(at).is_none_or(|other| other.number != run) {
                    runs.insert(at, Run { number: run, tables: Tables::new(self.slices, Vec::new()) });
                }
                &mut runs[at].tables
            } else {
                levels.resize_with(levels.len().max(level), || Tables::new(self.slices, Vec::new()));
                &mut levels[level - 1]
            };
            let mut all: Vec<_> = tables.iter().cloned().chain(added).collect();
            all.sort_by(|left, right| left.meta().first.cmp(&right.meta().first));
            *tables = Tables::new(self.slices, all);
        }
        runs.retain(|run| !run.tables.is_empty());
        Self::new(self.slices, runs, levels)
    }
}
