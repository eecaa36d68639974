//! Walks a table in order.
//!
//! A cursor stands on a record or nowhere. It holds its table and its current block, so that it
//! stays valid when the table is replaced. Stepping within a block touches no file.
//!
//! Two ways of reading: a user's scan goes through the block cache, block by block, admitted cold
//! so that it does not push out what point reads use; compaction reads 128 KiB at a time beside
//! the cache, and there every block is also checked for order before it is rewritten.

use std::rc::Rc;

use pinion_env::{AlignedBuf, Env, page_round_up};

use super::WINDOW_BYTES;
use super::block::{Block, BlockShape, BlockView};
use super::reader::{BlockAt, Table};
use crate::cache::{Admission, BlockCache};
use crate::error::Result;
use crate::key::Position;
use crate::record::RecordView;

/// How a cursor reads.
#[derive(Clone)]
pub enum ReadStyle {
    /// Block by block through the cache; for scans, in both directions.
    Cached(Rc<BlockCache>),
    /// 128 KiB at a time beside the cache; for compaction, forward.
    Sequential,
}

/// A place in a table. See the module.
pub struct TableCursor<E: Env> {
    table: Rc<Table<E>>,
    style: ReadStyle,
    at: Option<BlockAt>,
    record: usize,
    loaded: Loaded,
    window: AlignedBuf,
    /// First page of the window and behind its last.
    window_pages: (u32, u32),
}

/// The block that the cursor stands in.
enum Loaded {
    Nothing,
    Cached(Rc<Block>),
    /// At this offset in the window.
    InWindow(usize, BlockShape),
}

impl<E: Env> TableCursor<E> {
    /// A cursor that stands nowhere.
    pub fn new(table: Rc<Table<E>>, style: ReadStyle) -> Self {
        Self {
            table,
            style,
            at: None,
            record: 0,
            loaded: Loaded::Nothing,
            window: AlignedBuf::default(),
            window_pages: (0, 0),
        }
    }

    /// The table.
    pub const fn table(&self) -> &Rc<Table<E>> {
        &self.table
    }

    /// The record it stands on.
    pub fn current(&self) -> Option<(Position<'_>, RecordView<'_>)> {
        let view = self.view()?;
        Some((view.position(self.record), view.record(self.record)))
    }

    /// Goes to the first record.
    ///
    /// # Errors
    /// Reading fails ([`crate::Error::Io`], [`crate::Error::Damaged`]); the cursor stands nowhere
    /// then. All moves fail this way only.
    pub async fn seek_first(&mut self) -> Result<()> {
        self.enter(Some(self.table.first_block()), Side::First).await
    }

    /// Goes to the last record.
    ///
    /// # Errors
    /// See [`TableCursor::seek_first`].
    pub async fn seek_last(&mut self) -> Result<()> {
        self.enter(Some(self.table.last_block()), Side::Last).await
    }

    /// Goes to the first record that is not before `position`; nowhere if there is none.
    ///
    /// # Errors
    /// See [`TableCursor::seek_first`].
    pub async fn seek(&mut self, position: &Position<'_>) -> Result<()> {
        if self.table.meta().last.borrow() < *position {
            self.leave();
            return Ok(());
        }
        let Some(at) = self.table.block_of(position) else {
            return self.seek_first().await;
        };
        self.enter(Some(at), Side::First).await?;
        let Some(view) = self.view() else { return Ok(()) };
        let (found, records) = (view.lower_bound(position), view.len());
        if found < records {
            self.record = found;
            return Ok(());
        }
        self.enter(self.table.after(at), Side::First).await
    }

    /// Goes to the last record before `position`; nowhere if there is none.
    ///
    /// # Errors
    /// See [`TableCursor::seek_first`].
    pub async fn seek_last_before(&mut self, position: &Position<'_>) -> Result<()> {
        if *position <= self.table.meta().first.borrow() {
            self.leave();
            return Ok(());
        }
        let Some(at) = self.table.block_of(position) else {
            self.leave();
            return Ok(());
        };
        self.enter(Some(at), Side::First).await?;
        let found = self.view().map_or(0, |view| view.lower_bound(position));
        if let Some(record) = found.checked_sub(1) {
            self.record = record;
            return Ok(());
        }
        self.enter(self.table.before(at), Side::Last).await
    }

    /// Goes to the next record; nowhere after the last. Stays nowhere.
    ///
    /// # Errors
    /// See [`TableCursor::seek_first`].
    pub async fn next(&mut self) -> Result<()> {
        if self.next_in_block() {
            return Ok(());
        }
        let after = self.at.and_then(|at| self.table.after(at));
        self.enter(after, Side::First).await
    }

    /// Goes to the previous record; nowhere before the first. Stays nowhere.
    ///
    /// # Errors
    /// See [`TableCursor::seek_first`].
    pub async fn previous(&mut self) -> Result<()> {
        if self.previous_in_block() {
            return Ok(());
        }
        let before = self.at.and_then(|at| self.table.before(at));
        self.enter(before, Side::Last).await
    }

    /// Goes to the next record if it is in the same block; says whether it did.
    pub fn next_in_block(&mut self) -> bool {
        let stays = self.view().is_some_and(|view| self.record + 1 < view.len());
        self.record += usize::from(stays);
        stays
    }

    /// Goes to the previous record if it is in the same block; says whether it did.
    pub fn previous_in_block(&mut self) -> bool {
        let stays = self.view().is_some() && self.record > 0;
        self.record -= usize::from(stays);
        stays
    }

    fn view(&self) -> Option<BlockView<'_>> {
        match &self.loaded {
            Loaded::Nothing => None,
            Loaded::Cached(block) => Some(block.view()),
            Loaded::InWindow(offset, shape) => Some(shape.view(&self.window[*offset..])),
        }
    }

    fn leave(&mut self) {
        self.at = None;
        self.loaded = Loaded::Nothing;
    }

    async fn enter(&mut self, at: Option<BlockAt>, side: Side) -> Result<()> {
        // Nowhere until the block is there, so that an error leaves nothing half done.
        self.leave();
        let Some(at) = at else { return Ok(()) };
        self.loaded = match &self.style {
            ReadStyle::Cached(cache) => {
                let handle = self.table.handle(at);
                Loaded::Cached(self.table.block_for(handle, cache, Admission::Scan).await?)
            }
            ReadStyle::Sequential => self.load_in_window(at).await?,
        };
        self.at = Some(at);
        self.record = match side {
            Side::First => 0,
            Side::Last => self.view().map_or(0, |view| view.len() - 1),
        };
        Ok(())
    }

    async fn load_in_window(&mut self, at: BlockAt) -> Result<Loaded> {
        let handle = self.table.handle(at);
        let end = handle.page + handle.pages;
        if handle.page < self.window_pages.0 || end > self.window_pages.1 {
            // As many whole blocks as fit, at least this one.
            let (mut last, mut window_end) = (at, end);
            while let Some(next) = self.table.after(last) {
                let next_end = self.table.handle(next).page + self.table.handle(next).pages;
                if (next_end - handle.page) as usize * pinion_env::PAGE_BYTES > WINDOW_BYTES {
                    break;
                }
                (last, window_end) = (next, next_end);
            }
            let bytes = (window_end - handle.page) as usize * pinion_env::PAGE_BYTES;
            let mut buffer = std::mem::take(&mut self.window);
            self.window_pages = (0, 0);
            let usual = WINDOW_BYTES.min(page_round_up(self.table.meta().file_bytes as usize)).max(bytes);
            if buffer.capacity() < bytes || buffer.capacity() > usual {
                buffer = AlignedBuf::zeroed(usual);
            }
            self.window = self.table.read_raw(handle.offset(), buffer, bytes).await?;
            self.window_pages = (handle.page, window_end);
        }
        let offset = (handle.page - self.window_pages.0) as usize * pinion_env::PAGE_BYTES;
        let view = self.table.open_in_order(at, &self.window[offset..offset + handle.bytes()])?;
        Ok(Loaded::InWindow(offset, view.shape()))
    }
}

#[derive(Clone, Copy)]
enum Side {
    First,
    Last,
}
