//! Reading ahead of a scan: how much, and where it stays until the cursor gets there.
//!
//! A scan that reads block by block waits for the device at every block, and half a page of records
//! may be ten. So the read of a block that is not in memory takes along those that will most likely
//! be wanted next, in one go:
//!
//! - As many as the caller expects to take from this table ([`Ahead::new`]). Who wants one record
//!   reads one block.
//! - Where that was too few, half as much again as was read since the seek, so that reads grow
//!   however wrong the expectation was, and little is read in vain.
//! - Never beyond the end of the range, and at most [`READ_AHEAD_PAGES_MAX`].
//!
//! What was read stays as it is ([`Window`]), one for each cursor. A block is checked when the cursor
//! enters it, exactly as one that is read alone, and only then given to the block cache: damage ahead
//! is nobody's business, and blocks that are not wanted after all push nothing out.

use pinion_env::{AlignedBuf, PAGE_BYTES};

use super::BlockHandle;
use super::meta::TableMeta;
use super::reader::BlockAt;

/// Pages of one read ahead: 64 KiB.
pub(crate) const READ_AHEAD_PAGES_MAX: u32 = 16;

/// What a cursor expects to read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ahead {
    /// Pages behind the block that is entered.
    wanted: u32,
    /// Pages read since the seek.
    read: u32,
    /// The last block that can matter, in the direction of the scan.
    stop: Option<BlockAt>,
}

impl Ahead {
    /// For a scan that takes about `records` records of a table whose data has `data_pages`.
    pub(super) fn new(records: u64, meta: &TableMeta, data_pages: u32, stop: BlockAt) -> Self {
        // The first record may be the last of its block.
        let behind = records.saturating_sub(1).saturating_mul(u64::from(data_pages));
        let wanted = behind.div_ceil(meta.records.max(1));
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        // Some more: a second read costs far more than a page.
        Self { wanted: wanted.saturating_add(wanted / 4), read: 0, stop: Some(stop) }
    }

    /// The same for the next table, about whose blocks nothing is known.
    pub(crate) const fn beyond_table(self) -> Self {
        Self { stop: None, ..self }
    }

    /// The cursor has gone on to the next block.
    pub(super) const fn stepped(&mut self, pages: u32) {
        self.wanted = self.wanted.saturating_sub(pages);
    }

    /// So much was read.
    pub(super) const fn has_read(&mut self, pages: u32) {
        self.read = self.read.saturating_add(pages);
    }

    /// Reading ahead has failed: block by block for now.
    pub(super) const fn shorten(&mut self) {
        (self.wanted, self.read) = (0, 0);
    }

    /// How many pages to read for a block that is not in memory.
    pub(super) fn pages(&self, block_pages: u32) -> u32 {
        let expected = block_pages.saturating_add(self.wanted);
        expected.max(self.read.div_ceil(2)).min(READ_AHEAD_PAGES_MAX).max(block_pages)
    }

    pub(super) fn is_stop(&self, at: BlockAt, forward: bool) -> bool {
        self.stop.is_some_and(|stop| if forward { at >= stop } else { at <= stop })
    }
}

/// Pages of a table as they were read.
#[derive(Default)]
pub(super) struct Window {
    buffer: AlignedBuf,
    first: u32,
    end: u32,
}

impl Window {
    pub(super) const fn new(buffer: AlignedBuf, first: u32, end: u32) -> Self {
        Self { buffer, first, end }
    }

    pub(super) const fn holds(&self, handle: BlockHandle) -> bool {
        self.first <= handle.page && handle.page + handle.pages <= self.end
    }

    /// A block that it holds, unchecked.
    pub(super) fn block(&self, handle: BlockHandle) -> &[u8] {
        &self.buffer[(handle.page - self.first) as usize * PAGE_BYTES..][..handle.bytes()]
    }

    /// Empties it and gives its buffer away.
    pub(super) fn take_buffer(&mut self) -> AlignedBuf {
        std::mem::take(self).buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_grow_with_what_was_read_and_stop_growing() {
        let mut ahead = Ahead::default();
        let mut reads = Vec::new();
        for _ in 0..12 {
            let pages = ahead.pages(1);
            ahead.stepped(1);
            ahead.has_read(pages);
            reads.push(pages);
        }
        assert_eq!(reads, [1, 1, 1, 2, 3, 4, 6, 9, 14, 16, 16, 16]);
        assert_eq!(ahead.pages(40), 40);
        ahead.shorten();
        assert_eq!(ahead.pages(1), 1);
    }
}
