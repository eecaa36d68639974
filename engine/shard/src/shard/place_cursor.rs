//! A cursor over the disjoint, ordered tables of one place: a run or a level.

use std::future::Future;
use std::rc::Rc;

use pinion_env::Env;

use super::tables::Tables;
use crate::cache::BlockCache;
use crate::error::Result;
use crate::key::Position;
use crate::record::RecordView;
use crate::table::{BlockHandle, ReadStyle, Table, TableCursor};

/// What a scan will want of a place.
#[derive(Clone, Copy)]
pub(super) struct Reach<'a> {
    /// About so many records.
    pub records: u64,
    /// None at or beyond this position; in reverse, none before it.
    pub stop: Position<'a>,
}

/// Stands on a record of one of its tables, or nowhere.
pub(super) struct PlaceCursor<E: Env> {
    tables: Rc<Tables<E>>,
    style: ReadStyle,
    /// The table the cursor stands in.
    index: usize,
    cursor: Option<TableCursor<E>>,
}

impl<E: Env> PlaceCursor<E> {
    /// For user scans: blocks go through the cache.
    pub(super) fn cached(tables: Rc<Tables<E>>, cache: &Rc<BlockCache>) -> Self {
        Self { tables, style: ReadStyle::Cached(Rc::clone(cache)), index: 0, cursor: None }
    }

    /// For compaction: long reads past the cache.
    pub(super) fn sequential(tables: Rc<Tables<E>>) -> Self {
        Self { tables, style: ReadStyle::Sequential, index: 0, cursor: None }
    }

    pub(super) fn current(&self) -> Option<(Position<'_>, RecordView<'_>)> {
        self.cursor.as_ref()?.current()
    }

    /// The block that a sequential cursor stands in, and its table's number.
    pub(super) fn block(&self) -> Option<(u64, BlockHandle)> {
        let cursor = self.cursor.as_ref()?;
        Some((cursor.table().meta().number, cursor.handle()?))
    }

    /// The table it stands in.
    pub(super) fn table(&self) -> Option<&Rc<Table<E>>> {
        self.cursor.as_ref().map(TableCursor::table)
    }

    /// How many records it has, hidden ones included.
    pub(super) fn records(&self) -> u64 {
        self.tables.records()
    }

    /// The first record from `from` on (in reverse: the last one before it), if the ranges of the
    /// tables say alone that it does not lie before `stop` (in reverse: not behind it).
    pub(super) fn beyond(
        &self,
        from: &Position<'_>,
        stop: &Position<'_>,
        reverse: bool,
    ) -> Option<Position<'_>> {
        if reverse {
            let last = self.tables[self.tables.index_before(from)?].meta().last.borrow();
            (last < *stop && last < *from).then_some(last)
        } else {
            let first = self.tables.get(self.tables.index_from(from))?.meta().first.borrow();
            (first >= *stop && first >= *from).then_some(first)
        }
    }

    /// Stands nowhere.
    pub(super) fn leave(&mut self) {
        self.cursor = None;
    }

    /// Prepares a seek to `from` (in reverse: before it). Answers the read that it begins with, if
    /// it begins with one; the seek does it, if the caller does not.
    pub(super) fn aim(
        &mut self,
        from: &Position<'_>,
        reach: &Reach<'_>,
        reverse: bool,
    ) -> Option<impl Future<Output = Result<()>> + use<'_, E>> {
        let index = if reverse { self.tables.index_before(from)? } else { self.tables.index_from(from) };
        let cursor = self.stand_in(index)?;
        cursor.expect(reach.records, &reach.stop);
        cursor.first_read(from, reverse)
    }

    /// Goes to the first record at or after `position`.
    pub(super) async fn seek(&mut self, position: &Position<'_>) -> Result<()> {
        if let Some(cursor) = self.stand_in(self.tables.index_from(position)) {
            cursor.seek(position).await?;
        }
        Ok(())
    }

    /// Goes to the first record.
    pub(super) async fn seek_first(&mut self) -> Result<()> {
        if let Some(cursor) = self.stand_in(0) {
            cursor.seek_first().await?;
        }
        Ok(())
    }

    /// Goes to the last record before `position`.
    pub(super) async fn seek_before(&mut self, position: &Position<'_>) -> Result<()> {
        match self.tables.index_before(position).and_then(|index| self.stand_in(index)) {
            Some(cursor) => cursor.seek_last_before(position).await,
            None => {
                self.cursor = None;
                Ok(())
            }
        }
    }

    pub(super) async fn next(&mut self) -> Result<()> {
        let Some(cursor) = &mut self.cursor else { return Ok(()) };
        cursor.next().await?;
        if cursor.current().is_none()
            && let Some(cursor) = self.stand_in(self.index + 1)
        {
            cursor.seek_first().await?;
        }
        Ok(())
    }

    pub(super) async fn previous(&mut self) -> Result<()> {
        let Some(cursor) = &mut self.cursor else { return Ok(()) };
        cursor.previous().await?;
        if cursor.current().is_none()
            && let Some(index) = self.index.checked_sub(1)
            && let Some(cursor) = self.stand_in(index)
        {
            cursor.seek_last().await?;
        }
        Ok(())
    }

    /// A cursor in the table of this index (the present one if it stands there), or none past the
    /// last table.
    fn stand_in(&mut self, index: usize) -> Option<&mut TableCursor<E>> {
        if self.cursor.is_none() || self.index != index {
            let ahead = self.cursor.as_ref().map(TableCursor::ahead).unwrap_or_default();
            self.cursor = self.tables.get(index).map(|table| {
                let mut cursor = TableCursor::new(Rc::clone(table), self.style.clone());
                cursor.continue_from(ahead);
                cursor
            });
            self.index = index;
        }
        self.cursor.as_mut()
    }
}
