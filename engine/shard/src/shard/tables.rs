//! The tables of one place: a run or a level.

use std::ops::{Deref, Range};
use std::rc::Rc;

use pinion_env::Env;

use crate::compaction::Slices;
use crate::key::Position;
use crate::table::{Table, TableMeta};

/// Disjoint tables in order of their ranges. Immutable, as a version is: shared by versions, and by
/// the cursors that walk it.
///
/// It knows where each slice's tables are, so that a seek does not look at all of them.
pub(crate) struct Tables<E: Env> {
    tables: Vec<Rc<Table<E>>>,
    slices: Slices,
    /// By slice: the tables that reach into it; if none does, empty and where it would be.
    parts: Vec<Range<usize>>,
    records: u64,
}

impl<E: Env> Tables<E> {
    /// These tables.
    ///
    /// # Panics
    /// If they overlap or are out of order: such a version must never be installed.
    pub(crate) fn new(slices: Slices, tables: Vec<Rc<Table<E>>>) -> Rc<Self> {
        for pair in tables.windows(2) {
            assert!(
                pair[0].meta().last < pair[1].meta().first,
                "tables {} and {} of one place overlap",
                pair[0].meta().number,
                pair[1].meta().number
            );
        }
        let (mut start, mut end) = (0, 0);
        let meta = |index: usize| tables.get(index).map(|table| table.meta());
        let parts = (0..slices.count()).map(|slice| {
            while meta(start).is_some_and(|meta| slices.of(meta.last.partition) < slice) {
                start += 1;
            }
            while meta(end).is_some_and(|meta| slices.of(meta.first.partition) <= slice) {
                end += 1;
            }
            start..end
        });
        let parts = parts.collect();
        let records = tables.iter().map(|table| table.meta().records).sum();
        Rc::new(Self { tables, slices, parts, records })
    }

    /// By slice: the tables that reach into it.
    pub(crate) fn parts(&self) -> &[Range<usize>] {
        &self.parts
    }

    /// How many records they have, hidden ones included.
    pub(crate) const fn records(&self) -> u64 {
        self.records
    }

    /// The table that holds the first record from a position on, or one past the last.
    pub(crate) fn index_from(&self, position: &Position<'_>) -> usize {
        self.index(position, |meta| meta.last.borrow() < *position)
    }

    /// The table that holds the last record before a position.
    pub(crate) fn index_before(&self, position: &Position<'_>) -> Option<usize> {
        self.index(position, |meta| meta.first.borrow() < *position).checked_sub(1)
    }

    /// The table whose range has a position in it.
    pub(crate) fn covering(&self, position: &Position<'_>) -> Option<&Rc<Table<E>>> {
        covering(&self.tables[self.part(position)], position)
    }

    /// The tables that reach into a position's slice.
    fn part(&self, position: &Position<'_>) -> Range<usize> {
        self.parts[self.slices.of(position.partition) as usize].clone()
    }

    /// The first table that is not `before` a position: it reaches into the position's slice, or is the
    /// first behind that.
    fn index(&self, position: &Position<'_>, before: impl Fn(&TableMeta) -> bool) -> usize {
        let part = self.part(position);
        part.start + self.tables[part.clone()].partition_point(|table| before(table.meta()))
    }
}

impl<E: Env> Deref for Tables<E> {
    type Target = [Rc<Table<E>>];

    fn deref(&self) -> &Self::Target {
        &self.tables
    }
}

/// The one of disjoint ordered tables whose range has a position in it.
pub(crate) fn covering<'a, E: Env>(
    tables: &'a [Rc<Table<E>>],
    position: &Position<'_>,
) -> Option<&'a Rc<Table<E>>> {
    let ends_before = |meta: &TableMeta| meta.last.borrow() < *position;
    let table = tables.get(tables.partition_point(|table| ends_before(table.meta())))?;
    (table.meta().first.borrow() <= *position).then_some(table)
}
