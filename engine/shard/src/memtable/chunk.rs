//! The memory that entries lie in, and its reuse from one memtable to the next.
//!
//! The first touch of fresh memory is expensive (the kernel clears it), so chunks of retired
//! memtables go to a pool and serve again, and while the pool holds few more are made
//! [ahead of time](ChunkPool::wanted) on another thread.
//!
//! Made ahead, a chunk comes in large pages. One that had to be made on the spot does not, and every
//! look into it costs more for as long as it lives: it is not used again.
//!
//! Limits: a pool keeps at most as many chunks as one memtable of its size has, and twice as many as it
//! keeps ready: what waits when a memtable comes back would be freed only to be made again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::large::{LARGE_BYTES_MIN, LargeArray};

/// Chunks that wait for use while a memtable grows: what a load at full speed takes while the next
/// one is made.
const CHUNKS_AHEAD: usize = 4;

/// Memory that is filled from its start and emptied all at once.
#[derive(Debug)]
pub struct Chunk {
    memory: LargeArray<u8>,
    used: usize,
    /// Made on the spot although it was large.
    makeshift: bool,
}

impl Chunk {
    /// An empty chunk of at least `bytes`.
    pub(super) fn new(bytes: usize) -> Self {
        let memory = LargeArray::zeroed(bytes);
        Self { makeshift: memory.len() >= LARGE_BYTES_MIN, memory, used: 0 }
    }

    /// An empty chunk whose memory has been touched.
    pub fn touched(bytes: usize) -> Self {
        Self { memory: LargeArray::touched(bytes), used: 0, makeshift: false }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.memory
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    /// Bytes that it can hold.
    pub(super) fn capacity(&self) -> usize {
        self.memory.len()
    }

    /// Bytes taken from its start.
    pub(super) const fn used(&self) -> usize {
        self.used
    }

    /// Takes the next `bytes`, whatever they hold.
    pub(super) fn take(&mut self, bytes: usize) -> &mut [u8] {
        let start = self.used;
        self.used += bytes;
        &mut self.memory[start..start + bytes]
    }
}

/// Empty chunks of one size, for the memtables of one shard.
#[derive(Debug)]
pub struct ChunkPool {
    chunk_bytes: usize,
    /// Chunks that wait for use, at most.
    chunks_max: usize,
    /// How many of them are made ahead; none if they are so small that making one takes no time.
    ahead: usize,
    chunks: RefCell<Vec<Chunk>>,
    asked: Cell<bool>,
}

impl ChunkPool {
    /// An empty pool of chunks of `chunk_bytes` for memtables of at most `memtable_chunks`.
    pub(super) fn new(chunk_bytes: usize, memtable_chunks: usize) -> Rc<Self> {
        let ahead = if chunk_bytes >= LARGE_BYTES_MIN { CHUNKS_AHEAD.min(memtable_chunks) } else { 0 };
        let chunks_max = memtable_chunks + 2 * ahead;
        Rc::new(Self { chunk_bytes, chunks_max, ahead, chunks: RefCell::default(), asked: Cell::new(false) })
    }

    /// Size of its chunks.
    pub(super) const fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// A chunk, used before if possible.
    pub(super) fn take(&self) -> Chunk {
        self.chunks.borrow_mut().pop().unwrap_or_else(|| Chunk::new(self.chunk_bytes))
    }

    /// Size of the chunk to be made ahead: by [`Chunk::touched`] on another thread, for
    /// [`ChunkPool::give`]. `None` if there are enough, if one was asked for already, or if they are
    /// so small that making one takes no time.
    pub fn wanted(&self) -> Option<usize> {
        let wanted = self.chunks.borrow().len() < self.ahead;
        (wanted && !self.asked.replace(true)).then_some(self.chunk_bytes)
    }

    /// Takes the chunk that was asked for.
    pub fn give(&self, chunk: Chunk) {
        self.asked.set(false);
        self.keep(chunk);
    }

    /// Takes a chunk that nobody reads any more; returns it if there are enough.
    pub(super) fn keep(&self, mut chunk: Chunk) -> Option<Chunk> {
        let mut chunks = self.chunks.borrow_mut();
        if chunk.capacity() != self.chunk_bytes || chunk.makeshift || chunks.len() >= self.chunks_max {
            return Some(chunk);
        }
        chunk.used = 0;
        chunks.push(chunk);
        None
    }

    /// Bytes of memory held by empty chunks.
    pub fn memory_bytes(&self) -> usize {
        self.chunks.borrow().len() * self.chunk_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_serve_again_within_a_bound() {
        let pool = ChunkPool::new(LARGE_BYTES_MIN, 2);
        for made in 1..=2 {
            assert_eq!(pool.wanted(), Some(LARGE_BYTES_MIN));
            assert_eq!(pool.wanted(), None, "asked for already");
            pool.give(Chunk::touched(LARGE_BYTES_MIN));
            assert_eq!(pool.memory_bytes(), made * LARGE_BYTES_MIN);
        }
        assert_eq!(pool.wanted(), None, "there are enough");
        let mut chunk = pool.take();
        assert_eq!(pool.wanted(), Some(LARGE_BYTES_MIN));
        chunk.take(10).fill(7);
        assert_eq!((chunk.used(), chunk.bytes()[9]), (10, 7));
        assert!(pool.keep(chunk).is_none());
        assert_eq!(pool.take().used(), 0);
        (0..4).for_each(|_| pool.give(Chunk::touched(LARGE_BYTES_MIN)));
        assert!(pool.keep(Chunk::new(1)).is_some(), "of another size");
        assert!(pool.keep(Chunk::new(LARGE_BYTES_MIN)).is_some(), "made on the spot, in small pages");
        assert!(pool.keep(Chunk::touched(LARGE_BYTES_MIN)).is_none());
        assert!(pool.keep(Chunk::touched(LARGE_BYTES_MIN)).is_some(), "there are enough");
    }

    #[test]
    fn small_chunks_are_not_made_ahead() {
        assert_eq!(ChunkPool::new(4096, 2).wanted(), None);
    }
}
