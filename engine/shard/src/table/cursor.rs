//! Walks a table in order.
//!
//! A cursor stands on a record or nowhere. It holds its table and its current block, so that it
//! stays valid when the table is replaced. Stepping within a block touches no file.
//!
//! Two ways of reading: a user's scan goes through the block cache, admitted cold so that it does
//! not push out what point reads use, and what is not there it reads as far ahead as it expects to
//! go (`ahead`); compaction reads 128 KiB at a time beside the cache, and there every block is also
//! checked for order before it is rewritten.
//!
//! Memory of a cursor: the block it stands in, and its window, at most
//! [`READ_AHEAD_PAGES_MAX`](super::ahead::READ_AHEAD_PAGES_MAX) pages or [`WINDOW_BYTES`].

use std::future::Future;
use std::rc::Rc;

use pinion_env::{AlignedBuf, Env, PAGE_BYTES, page_round_up};

use super::ahead::{Ahead, Window};
use super::block::{Block, BlockShape, BlockView};
use super::reader::{BlockAt, Table};
use super::{BlockHandle, WINDOW_BYTES};
use crate::cache::{Admission, BlockCache};
use crate::error::Result;
use crate::key::Position;
use crate::record::RecordView;

/// How a cursor reads.
#[derive(Clone)]
pub enum ReadStyle {
    /// Through the cache; for scans, in both directions.
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
    ahead: Ahead,
    window: Window,
}

/// The block that the cursor stands in.
enum Loaded {
    Nothing,
    Cached(Rc<Block>),
    InWindow(BlockHandle, BlockShape),
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
            ahead: Ahead::default(),
            window: Window::default(),
        }
    }

    /// Says what is expected of the next seek and the steps after it: about so many records, and
    /// none at or beyond `stop` (before it, in reverse). A cursor that is told nothing expects one.
    pub fn expect(&mut self, records: u64, stop: &Position<'_>) {
        let stop = self.table.block_of(stop).unwrap_or_else(|| self.table.first_block());
        self.ahead = Ahead::new(records, self.table.meta(), self.table.data_pages(), stop);
    }

    /// What it still expects.
    pub(crate) const fn ahead(&self) -> Ahead {
        self.ahead
    }

    /// Goes on where a cursor of another table ends.
    pub(crate) const fn continue_from(&mut self, ahead: Ahead) {
        self.ahead = ahead.beyond_table();
    }

    /// The table.
    pub const fn table(&self) -> &Rc<Table<E>> {
        &self.table
    }

    /// The block it stands in, of a cursor that reads beside the cache.
    pub(crate) const fn handle(&self) -> Option<BlockHandle> {
        match self.loaded {
            Loaded::InWindow(handle, _) => Some(handle),
            Loaded::Nothing | Loaded::Cached(_) => None,
        }
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
        let Some(at) = self.first_block_for(position, Side::First) else {
            self.leave();
            return Ok(());
        };
        self.enter(Some(at), Side::First).await?;
        let Some(view) = self.view() else { return Ok(()) };
        let (found, records) = (view.lower_bound(position), view.len());
        if found < records {
            self.record = found;
            return Ok(());
        }
        self.step_to(self.table.after(at), Side::First).await
    }

    /// Goes to the last record before `position`; nowhere if there is none.
    ///
    /// # Errors
    /// See [`TableCursor::seek_first`].
    pub async fn seek_last_before(&mut self, position: &Position<'_>) -> Result<()> {
        let Some(at) = self.first_block_for(position, Side::Last) else {
            self.leave();
            return Ok(());
        };
        self.enter(Some(at), Side::Last).await?;
        let found = self.view().map_or(0, |view| view.lower_bound(position));
        if let Some(record) = found.checked_sub(1) {
            self.record = record;
            return Ok(());
        }
        self.step_to(self.table.before(at), Side::Last).await
    }

    /// The read that a seek to `position` begins with, for callers that seek several cursors and let
    /// their reads overlap; `None` if the seek begins in memory. `reverse`: for
    /// [`TableCursor::seek_last_before`]. The seek that follows finds what was read.
    pub(crate) fn first_read(
        &mut self,
        position: &Position<'_>,
        reverse: bool,
    ) -> Option<impl Future<Output = Result<()>> + use<'_, E>> {
        let side = if reverse { Side::Last } else { Side::First };
        let ReadStyle::Cached(cache) = &self.style else { return None };
        let at = self.first_block_for(position, side)?;
        let handle = self.table.handle(at);
        if self.window.holds(handle) || cache.holds(self.table.meta().number, handle) {
            return None;
        }
        let cache = Rc::clone(cache);
        Some(async move {
            let (first, end) = self.pages_ahead(at, side, &cache);
            match self.read_window(first, end, &cache).await {
                // The block that is wanted is read alone, then.
                Err(_) if end - first > handle.pages => {
                    self.ahead.shorten();
                    Ok(())
                }
                read => read,
            }
        })
    }

    /// The block that a seek enters first; `None` if it ends nowhere.
    fn first_block_for(&self, position: &Position<'_>, side: Side) -> Option<BlockAt> {
        let meta = self.table.meta();
        let nowhere = match side {
            Side::First => meta.last.borrow() < *position,
            Side::Last => meta.first.borrow() >= *position,
        };
        if nowhere {
            return None;
        }
        Some(self.table.block_of(position).unwrap_or_else(|| self.table.first_block()))
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
        self.step_to(after, Side::First).await
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
        self.step_to(before, Side::Last).await
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
            Loaded::InWindow(handle, shape) => Some(shape.view(self.window.block(*handle))),
        }
    }

    fn leave(&mut self) {
        self.at = None;
        self.loaded = Loaded::Nothing;
    }

    /// Enters the next block of a walk.
    async fn step_to(&mut self, at: Option<BlockAt>, side: Side) -> Result<()> {
        if let Some(at) = at {
            self.ahead.stepped(self.table.handle(at).pages);
        }
        self.enter(at, side).await
    }

    async fn enter(&mut self, at: Option<BlockAt>, side: Side) -> Result<()> {
        // Nowhere until the block is there, so that an error leaves nothing half done.
        self.leave();
        let Some(at) = at else { return Ok(()) };
        self.loaded = match &self.style {
            ReadStyle::Cached(cache) => {
                let cache = Rc::clone(cache);
                Loaded::Cached(self.load_cached(at, side, &cache).await?)
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

    async fn load_cached(&mut self, at: BlockAt, side: Side, cache: &BlockCache) -> Result<Rc<Block>> {
        let handle = self.table.handle(at);
        if let Some(block) = cache.get_for(self.table.meta().number, handle, Admission::Scan) {
            return Ok(block);
        }
        if !self.window.holds(handle) {
            let (first, end) = self.pages_ahead(at, side, cache);
            // One that fails says nothing of the block that is wanted.
            if end - first > handle.pages && self.read_window(first, end, cache).await.is_err() {
                self.ahead.shorten();
            }
        }
        if self.window.holds(handle) {
            if let Some(block) = self.table.block_in(self.window.block(handle), handle, cache) {
                return Ok(block);
            }
        } else {
            self.ahead.has_read(handle.pages);
        }
        self.table.block_for(handle, cache, Admission::Scan).await
    }

    /// What to read, first page and behind the last, for a block that is not in memory: whole
    /// blocks in the direction of the walk, up to the last one that is not in the cache either.
    fn pages_ahead(&self, at: BlockAt, side: Side, cache: &BlockCache) -> (u32, u32) {
        let handle = self.table.handle(at);
        let (mut first, mut end) = (handle.page, handle.page + handle.pages);
        let pages = self.ahead.pages(handle.pages);
        let forward = matches!(side, Side::First);
        let mut last = at;
        while !self.ahead.is_stop(last, forward) {
            let Some(next) = (if forward { self.table.after(last) } else { self.table.before(last) }) else {
                break;
            };
            let there = self.table.handle(next);
            let (low, high) = (first.min(there.page), end.max(there.page + there.pages));
            if high - low > pages {
                break;
            }
            if !cache.holds(self.table.meta().number, there) {
                (first, end) = (low, high);
            }
            last = next;
        }
        (first, end)
    }

    async fn read_window(&mut self, first: u32, end: u32, cache: &BlockCache) -> Result<()> {
        drop(self.window.take_buffer());
        let handle = BlockHandle { page: first, pages: end - first };
        let buffer = cache.take_buffer((handle.pages.next_power_of_two() as usize) * PAGE_BYTES);
        cache.count_read(handle.bytes(), Admission::Scan);
        let buffer = self.table.read_raw(handle.offset(), buffer, handle.bytes()).await?;
        self.window = Window::new(buffer, first, end);
        self.ahead.has_read(handle.pages);
        Ok(())
    }

    async fn load_in_window(&mut self, at: BlockAt) -> Result<Loaded> {
        let handle = self.table.handle(at);
        if !self.window.holds(handle) {
            // As many whole blocks as fit, at least this one.
            let (mut last, mut end) = (at, handle.page + handle.pages);
            while let Some(next) = self.table.after(last) {
                let next_end = self.table.handle(next).page + self.table.handle(next).pages;
                if (next_end - handle.page) as usize * PAGE_BYTES > WINDOW_BYTES {
                    break;
                }
                (last, end) = (next, next_end);
            }
            let bytes = (end - handle.page) as usize * PAGE_BYTES;
            let mut buffer = self.window.take_buffer();
            let usual = WINDOW_BYTES.min(page_round_up(self.table.meta().file_bytes as usize)).max(bytes);
            if buffer.capacity() < bytes || buffer.capacity() > usual {
                buffer = AlignedBuf::zeroed(usual);
            }
            let buffer = self.table.read_raw(handle.offset(), buffer, bytes).await?;
            self.window = Window::new(buffer, handle.page, end);
        }
        let view = self.table.open_in_order(at, self.window.block(handle))?;
        Ok(Loaded::InWindow(handle, view.shape()))
    }
}

/// Where a block is entered: at its first record by a walk forward, at its last by one in reverse.
#[derive(Clone, Copy)]
enum Side {
    First,
    Last,
}
