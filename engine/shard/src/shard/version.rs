//! The set of tables a reader sees: immutable, replaced as a whole.
//!
//! Places from newest to oldest: flushed runs (level 0), newest first, then levels 1, 2, ... For
//! one key a newer place holds a newer stamp, so a read stops at the first record it finds.

use std::rc::Rc;

use pinion_env::Env;

use crate::compaction::{Levels, RunView};
use crate::key::Position;
use crate::stamp::Stamp;
use crate::table::{Table, TableMeta};

/// Levels below the flushed runs. With a growth of 8 the last holds 8^5 times the first.
pub(crate) const LEVELS_MAX: usize = 6;

/// Tables that came from one flush: disjoint, in order.
pub(crate) struct Run<E: Env> {
    /// Greater = newer.
    pub number: u64,
    /// In order of their ranges.
    pub tables: Vec<Rc<Table<E>>>,
}

impl<E: Env> Clone for Run<E> {
    fn clone(&self) -> Self {
        Self { number: self.number, tables: self.tables.clone() }
    }
}

/// The tables of a shard at one moment.
pub(crate) struct Version<E: Env> {
    /// Flushed runs, newest first.
    pub runs: Vec<Run<E>>,
    /// Levels 1 and deeper: `levels[0]` is level 1. Each is disjoint and in order.
    pub levels: Vec<Vec<Rc<Table<E>>>>,
}

impl<E: Env> Clone for Version<E> {
    fn clone(&self) -> Self {
        Self { runs: self.runs.clone(), levels: self.levels.clone() }
    }
}

impl<E: Env> Default for Version<E> {
    fn default() -> Self {
        Self { runs: Vec::new(), levels: Vec::new() }
    }
}

impl<E: Env> Version<E> {
    /// The tables that may hold a position, newest place first.
    pub(crate) fn covering<'a>(
        &'a self,
        position: &'a Position<'a>,
    ) -> impl Iterator<Item = &'a Rc<Table<E>>> {
        self.places().filter_map(move |tables| covering(tables, position))
    }

    /// All places, newest first: each a list of disjoint tables in order.
    pub(crate) fn places(&self) -> impl Iterator<Item = &[Rc<Table<E>>]> {
        let runs = self.runs.iter().map(|run| run.tables.as_slice());
        runs.chain(self.levels.iter().map(Vec::as_slice)).filter(|tables| !tables.is_empty())
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
        self.levels.iter().skip(level).any(|tables| covering(tables, position).is_some())
    }

    /// The version after replacing tables. `added` go to `level` (0: as a new run `run`).
    pub(crate) fn edited(&self, removed: &[u64], level: usize, run: u64, added: Vec<Rc<Table<E>>>) -> Self {
        let mut next = self.clone();
        let stays = |table: &Rc<Table<E>>| !removed.contains(&table.meta().number);
        for run in &mut next.runs {
            run.tables.retain(stays);
        }
        next.runs.retain(|run| !run.tables.is_empty());
        for tables in &mut next.levels {
            tables.retain(stays);
        }
        if added.is_empty() {
            return next;
        }
        if level == 0 {
            next.runs.insert(0, Run { number: run, tables: added });
        } else {
            while next.levels.len() < level {
                next.levels.push(Vec::new());
            }
            let tables = &mut next.levels[level - 1];
            tables.extend(added);
            tables.sort_by(|left, right| left.meta().first.cmp(&right.meta().first));
        }
        next.check();
        next
    }

    /// Panics if tables of one place overlap: such a version must never be installed.
    pub(crate) fn check(&self) {
        for tables in self.places() {
            for pair in tables.windows(2) {
                assert!(
                    pair[0].meta().last < pair[1].meta().first,
                    "tables {} and {} of one place overlap",
                    pair[0].meta().number,
                    pair[1].meta().number
                );
            }
        }
    }
}

/// The one table of disjoint ordered tables that covers a position.
fn covering<'a, E: Env>(tables: &'a [Rc<Table<E>>], position: &Position<'_>) -> Option<&'a Rc<Table<E>>> {
    let ends_before = |meta: &TableMeta| meta.last.borrow() < *position;
    let table = tables.get(tables.partition_point(|table| ends_before(table.meta())))?;
    (table.meta().first.borrow() <= *position).then_some(table)
}
