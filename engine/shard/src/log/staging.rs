//! Records waiting to be written: encoded into the block they will be written with.
//!
//! Blocks form a queue: the front is written next, the back takes records. A block's place in the
//! log is fixed when it is opened, which is what lets an append answer with the record's position;
//! the next block opens only after the one before it is sealed, when its padded size is known.
//! A block that does not fit what is left of a segment goes to the start of the next one.
//!
//! Appending allocates nothing once the buffers exist: they are reused last in, first out, so that
//! small commits stay in the same cache lines. Only a record larger than the usual block gets a
//! buffer of its own. The queue is bounded by `queue_bytes_max` (one record always fits).

use std::collections::VecDeque;

use pinion_env::{AlignedBuf, PAGE_BYTES, page_round_up, prefetch};

use super::format::{
    BLOCK_HEADER_BYTES, BLOCKS_START, Binding, BlockHeader, encode_record, fold_checksum, record_bytes,
};
use super::{AppendError, LogOp, LogOptions, LogPosition};
use crate::checksum::SeededHash;
use crate::stamp::{HybridTime, Stamp};

/// Buffers kept for reuse; more are in use only while the queue is long.
const POOL_BUFFERS_MAX: usize = 3;
/// Bytes of a block that are asked for ahead at most.
const AHEAD_BYTES_MAX: usize = 1 << 10;

pub(super) struct Staging {
    blocks: VecDeque<StagedBlock>,
    pool: Vec<AlignedBuf>,
    /// Where the next block goes once the back of the queue is sealed.
    next_segment: u32,
    next_offset: u32,
    /// Blocks are padded to this.
    unit_bytes: u32,
    segment_bytes: u32,
    /// Capacity of the usual buffer.
    buffer_bytes: usize,
    queue_bytes_max: u64,
    /// Record bytes staged and not yet durable, those in flight included.
    queued_bytes: u64,
    hash: SeededHash,
}

/// One block, filling or sealed.
pub(super) struct StagedBlock {
    pub(super) buffer: AlignedBuf,
    pub(super) segment: u32,
    pub(super) offset: u32,
    used_bytes: u32,
    /// What `used_bytes` may reach.
    bytes_max: u32,
    records: u32,
    records_fold: u64,
}

impl Staging {
    pub(super) fn new(options: &LogOptions, unit_bytes: u32, first_segment: u32, seed: u64) -> Self {
        let buffer_bytes = options.buffer_bytes();
        let blocks_max = options.queue_bytes_max as usize / buffer_bytes + 4;
        Self {
            blocks: VecDeque::with_capacity(blocks_max),
            // Made here, where nobody waits: touching a fresh buffer of a mebibyte takes longer than
            // anything a write may do.
            pool: (0..POOL_BUFFERS_MAX).map(|_| AlignedBuf::lasting(buffer_bytes)).collect(),
            next_segment: first_segment,
            next_offset: BLOCKS_START,
            unit_bytes,
            segment_bytes: options.segment_bytes,
            buffer_bytes,
            queue_bytes_max: u64::from(options.queue_bytes_max),
            queued_bytes: 0,
            hash: SeededHash::new(seed),
        }
    }

    pub(super) fn append(&mut self, stamp: Stamp, ops: &[LogOp<'_>]) -> Result<LogPosition, AppendError> {
        let bytes_max = self.segment_bytes as usize - BLOCKS_START as usize - BLOCK_HEADER_BYTES;
        let bytes = record_bytes(ops).unwrap_or(usize::MAX);
        if bytes > bytes_max {
            return Err(AppendError::TooLarge { bytes: bytes as u64, max: bytes_max as u64 });
        }
        if self.queued_bytes + bytes as u64 > self.queue_bytes_max && self.queued_bytes > 0 {
            return Err(AppendError::Full);
        }
        let fits = self.blocks.back().is_some_and(|block| block.used_bytes + bytes as u32 <= block.bytes_max);
        if !fits {
            self.open_block(bytes);
        }
        self.queued_bytes += bytes as u64;
        let block = self.blocks.back_mut().expect("a block was found or opened");
        let start = block.used_bytes as usize;
        let checksum = encode_record(&mut block.buffer[start..start + bytes], stamp, ops, &self.hash);
        block.records_fold = fold_checksum(block.records_fold, checksum);
        block.records += 1;
        block.used_bytes += bytes as u32;
        // Where the next record goes, most likely as large.
        let end = start + bytes;
        prefetch(&block.buffer[end..block.buffer.len().min(end + bytes.min(AHEAD_BYTES_MAX))]);
        Ok(LogPosition::new(block.segment, block.offset + block.used_bytes))
    }

    /// Makes sure there is a block to write, an empty one if need be.
    pub(super) fn stage_mark(&mut self) {
        if self.blocks.is_empty() {
            self.open_block(0);
        }
    }

    fn open_block(&mut self, record_bytes: usize) {
        self.seal_back();
        let needed = (BLOCK_HEADER_BYTES + record_bytes) as u32;
        if self.segment_bytes - self.next_offset < needed {
            self.next_segment += 1;
            self.next_offset = BLOCKS_START;
        }
        let capacity = page_round_up(needed as usize).max(self.buffer_bytes);
        let usual = capacity == self.buffer_bytes;
        let pooled = if usual { self.pool.pop() } else { None };
        self.blocks.push_back(StagedBlock {
            buffer: pooled.unwrap_or_else(|| AlignedBuf::zeroed(capacity)),
            segment: self.next_segment,
            offset: self.next_offset,
            used_bytes: BLOCK_HEADER_BYTES as u32,
            bytes_max: (capacity as u32).min(self.segment_bytes - self.next_offset),
            records: 0,
            records_fold: 0,
        });
    }

    /// Fixes the size of the block at the back, so that the next one's place is known.
    fn seal_back(&mut self) {
        if let Some(back) = self.blocks.back() {
            self.next_segment = back.segment;
            self.next_offset = back.offset + back.padded_bytes(self.unit_bytes);
        }
    }

    /// The segment of the block to write next.
    pub(super) fn front_segment(&self) -> Option<u32> {
        self.blocks.front().map(|block| block.segment)
    }

    pub(super) fn has_records(&self) -> bool {
        self.blocks.front().is_some_and(|block| block.records > 0)
    }

    /// Takes the block to write next; its padding is zeroed, its header not yet written.
    pub(super) fn take_front(&mut self) -> Option<StagedBlock> {
        if self.blocks.len() == 1 {
            self.seal_back();
        }
        let mut block = self.blocks.pop_front()?;
        let end = block.padded_bytes(self.unit_bytes) as usize;
        let used = block.used_bytes as usize;
        block.buffer[used..end].fill(0);
        Some(block)
    }

    /// Gives a written block's buffer back.
    pub(super) fn written(&mut self, header: &BlockHeader, buffer: AlignedBuf) {
        self.queued_bytes -= u64::from(header.used_bytes) - BLOCK_HEADER_BYTES as u64;
        if buffer.capacity() != self.buffer_bytes {
            return;
        }
        if self.pool.len() < POOL_BUFFERS_MAX {
            self.pool.push(buffer);
        } else if buffer.is_large()
            && let Some(makeshift) = self.pool.iter_mut().find(|pooled| !pooled.is_large())
        {
            // Made when the queue was long.
            *makeshift = buffer;
        }
    }

    pub(super) fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    pub(super) fn unit_bytes(&self) -> u32 {
        self.unit_bytes
    }
}

impl StagedBlock {
    /// The header that goes with what was staged.
    pub(super) fn header(
        &self,
        unit_bytes: u32,
        number: u64,
        synced_through: LogPosition,
        clock_ceiling: HybridTime,
    ) -> BlockHeader {
        BlockHeader {
            segment: self.segment,
            number,
            offset: self.offset,
            block_bytes: self.padded_bytes(unit_bytes),
            used_bytes: self.used_bytes,
            records: self.records,
            synced_through,
            clock_ceiling,
            records_fold: self.records_fold,
        }
    }

    pub(super) fn encode_header(&mut self, header: &BlockHeader, binding: &Binding) {
        header.encode(binding, &mut self.buffer);
    }

    fn padded_bytes(&self, unit_bytes: u32) -> u32 {
        self.used_bytes.next_multiple_of(unit_bytes)
    }
}

impl LogOptions {
    /// A usual block holds a record that is as large as a block may be, and its key.
    fn buffer_bytes(&self) -> usize {
        let largest = (self.segment_bytes - BLOCKS_START) as usize;
        page_round_up(self.block_bytes_max as usize + 2 * PAGE_BYTES).min(largest)
    }
}
