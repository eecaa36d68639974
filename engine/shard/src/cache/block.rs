//! The block cache: data blocks of tables, checked and ready to search.
//!
//! Eviction is S3-FIFO (Yang et al., "FIFO Queues are All You Need for Cache Eviction", 2023):
//! a new block enters a probation queue of a tenth of the space; one that is used again there
//! moves to the main queue when its turn comes, one that is not leaves, and only its fingerprint
//! stays in a table of ghosts, which lets it straight into the main queue if it is soon wanted
//! again. Blocks that a scan reads neither count as used nor leave a ghost, so a scan of any
//! length costs point reads at most the probation queue. Blocks that a flush or a
//! compaction writes come in the same way, so that what was in memory a moment ago is not read back from the disk.
//!
//! All memory of the bookkeeping is taken at the start: nothing rehashes or moves later, and the
//! work of one call is bounded. Blocks of up to 64 KiB lie in one mapping.
//!
//! Full of blocks that are all in use elsewhere, the cache forgets them all the same: holders keep
//! them alive, so memory may exceed the capacity by what readers hold at that moment.

use std::cell::RefCell;
use std::rc::Rc;

use ahash::{AHashMap, RandomState};
use pinion_env::{AlignedBuf, PAGE_BYTES, PagePool};

use super::slot_index::SlotIndex;
use crate::table::{Block, BlockHandle};

/// Bookkeeping per block: slot, index entries, ghosts.
const ENTRY_BYTES: usize = 96;
/// The probation queue's part of the capacity.
const PROBATION_DIVISOR: usize = 10;
/// A block larger than this part of the capacity is not cached.
const BLOCK_DIVISOR: usize = 8;
/// Uses that are remembered of a block: so often it survives its turn in the main queue.
const USES_MAX: u8 = 3;
/// Blocks that may survive their turn in a row before one is evicted in spite of its uses.
const SPARED_MAX: usize = 16;
/// Room for reads under way, and for blocks that had to leave while somebody holds them.
const READS_BYTES: usize = 1 << 20;

/// Why a block is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// A read of one key: worth remembering.
    Point,
    /// One of many blocks that are read, or written, in passing.
    Scan,
}

/// What a block cache has done since it was made, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockCacheStats {
    /// Lookups that found their block.
    pub hits: u64,
    /// Lookups that went on to a read from disk.
    pub misses: u64,
    /// Blocks taken in.
    pub inserts: u64,
    /// Blocks that had to leave.
    pub evictions: u64,
    /// Bytes of these reads.
    pub read_bytes: u64,
    /// Reads from disk for scans, several blocks at once counted as one.
    pub scan_reads: u64,
    /// Bytes of these, whether the scan got there or not.
    pub scan_read_bytes: u64,
    /// Blocks held.
    pub blocks: u64,
    /// Memory held, in bytes.
    pub bytes: u64,
}

/// A cache of fixed size. See the module.
pub struct BlockCache {
    pages: PagePool,
    inner: RefCell<Inner>,
}

impl BlockCache {
    /// A cache of `capacity_bytes` (0: holds nothing). `seed` keys the hashes, which live in
    /// memory only.
    pub fn new(capacity_bytes: u64, seed: u64) -> Self {
        let pages = PagePool::new(capacity_bytes as usize + READS_BYTES);
        Self { pages, inner: RefCell::new(Inner::new(capacity_bytes as usize, seed)) }
    }

    /// A block, if it is held.
    pub fn get(&self, table: u64, handle: BlockHandle) -> Option<Rc<Block>> {
        self.get_for(table, handle, Admission::Point)
    }

    /// A block, if it is held; only [`Admission::Point`] counts as a use.
    pub fn get_for(&self, table: u64, handle: BlockHandle, admission: Admission) -> Option<Rc<Block>> {
        self.inner.borrow_mut().get(table, handle.page, admission)
    }

    /// Whether a block is held. Neither a use nor a lookup that counts.
    pub(crate) fn holds(&self, table: u64, handle: BlockHandle) -> bool {
        let inner = self.inner.borrow();
        inner.find(inner.hashes.hash_one((table, handle.page)), table, handle.page).is_some()
    }

    /// Takes in a block that was read. Does nothing if it is held already or too large.
    pub fn insert(&self, table: u64, handle: BlockHandle, block: Rc<Block>, admission: Admission) {
        self.inner.borrow_mut().insert(table, handle.page, block, admission);
    }

    /// Takes in a copy of a block that was read or written among others, once it is checked, and gives it;
    /// `None` if it fails a check. `bytes` may lack the padding.
    pub(crate) fn insert_copy(
        &self,
        table: u64,
        handle: BlockHandle,
        bytes: &[u8],
        seed: u64,
    ) -> Option<Rc<Block>> {
        let mut buffer = self.take_buffer(handle.bytes());
        buffer[..bytes.len()].copy_from_slice(bytes);
        buffer[bytes.len()..handle.bytes()].fill(0);
        let block = Rc::new(Block::open(buffer, handle.bytes(), table, handle.page, seed).ok()?);
        self.insert(table, handle, block.clone(), Admission::Scan);
        Some(block)
    }

    /// Whether a block is small enough to be held.
    pub(crate) fn takes(&self, handle: BlockHandle) -> bool {
        self.inner.borrow().takes(handle.bytes() + ENTRY_BYTES)
    }

    /// The blocks of a table will not be asked for again: they leave at their next turn.
    pub fn forget_table(&self, table: u64) {
        let mut inner = self.inner.borrow_mut();
        if let Some(blocks) = inner.tables.get_mut(&table) {
            blocks.forgotten = true;
        }
    }

    /// What it has done and holds.
    pub fn stats(&self) -> BlockCacheStats {
        let inner = self.inner.borrow();
        BlockCacheStats { bytes: inner.bytes as u64, ..inner.stats }
    }

    /// A buffer for a read of `bytes`; its content is undefined.
    pub(crate) fn take_buffer(&self, bytes: usize) -> AlignedBuf {
        self.pages.take(bytes)
    }

    pub(crate) fn count_read(&self, bytes: usize, admission: Admission) {
        let stats = &mut self.inner.borrow_mut().stats;
        stats.misses += 1;
        stats.read_bytes += bytes as u64;
        if admission == Admission::Scan {
            stats.scan_reads += 1;
            stats.scan_read_bytes += bytes as u64;
        }
    }
}

struct Inner {
    capacity_bytes: usize,
    bytes: usize,
    slots: Vec<Slot>,
    free: Option<u32>,
    index: SlotIndex,
    ghosts: Box<[u32]>,
    probation: Queue,
    main: Queue,
    tables: AHashMap<u64, TableBlocks>,
    hashes: RandomState,
    stats: BlockCacheStats,
}

struct Slot {
    block: Option<Rc<Block>>,
    table: u64,
    page: u32,
    hash: u64,
    bytes: u32,
    uses: u8,
    admission: Admission,
    /// The next in its queue, or the next free one.
    next: Option<u32>,
}

#[derive(Default)]
struct Queue {
    head: Option<u32>,
    tail: Option<u32>,
    bytes: usize,
}

#[derive(Default)]
struct TableBlocks {
    blocks: u32,
    forgotten: bool,
}

impl Inner {
    fn new(capacity_bytes: usize, seed: u64) -> Self {
        let slots_max = capacity_bytes / (PAGE_BYTES + ENTRY_BYTES) + 1;
        Self {
            capacity_bytes,
            bytes: 0,
            slots: Vec::with_capacity(slots_max),
            free: None,
            index: SlotIndex::new(slots_max),
            ghosts: vec![0; slots_max.next_power_of_two()].into(),
            probation: Queue::default(),
            main: Queue::default(),
            tables: AHashMap::with_hasher(RandomState::with_seeds(seed, 1, 2, 3)),
            hashes: RandomState::with_seeds(seed, 4, 5, 6),
            stats: BlockCacheStats::default(),
        }
    }

    fn get(&mut self, table: u64, page: u32, admission: Admission) -> Option<Rc<Block>> {
        let hash = self.hashes.hash_one((table, page));
        let slot = self.find(hash, table, page)?;
        self.stats.hits += 1;
        let slot = &mut self.slots[slot as usize];
        if admission == Admission::Point {
            slot.uses = (slot.uses + 1).min(USES_MAX);
        }
        slot.block.clone()
    }

    fn insert(&mut self, table: u64, page: u32, block: Rc<Block>, admission: Admission) {
        let bytes = block.resident_bytes() + ENTRY_BYTES;
        let hash = self.hashes.hash_one((table, page));
        if !self.takes(bytes) || self.find(hash, table, page).is_some() {
            return;
        }
        while self.bytes + bytes > self.capacity_bytes {
            self.evict_one();
        }
        let remembered = admission == Admission::Point && self.take_ghost(hash);
        let slot = Slot {
            block: Some(block),
            table,
            page,
            hash,
            bytes: bytes as u32,
            uses: 0,
            admission,
            next: None,
        };
        let number = self.take_slot(slot);
        self.index.insert(hash, number);
        self.push(number, remembered);
        self.bytes += bytes;
        self.tables.entry(table).or_default().blocks += 1;
        self.stats.inserts += 1;
        self.stats.blocks += 1;
    }

    fn takes(&self, bytes: usize) -> bool {
        bytes <= self.capacity_bytes / BLOCK_DIVISOR
    }

    /// Evicts one block. There is one: the caller needs space although every block fits alone.
    fn evict_one(&mut self) {
        for _ in 0..SPARED_MAX {
            let on_probation = self.main.head.is_none()
                || (self.probation.head.is_some()
                    && self.probation.bytes >= self.capacity_bytes / PROBATION_DIVISOR);
            let Some(number) = self.pop(on_probation) else { return };
            let slot = &mut self.slots[number as usize];
            let forgotten = self.tables.get(&slot.table).is_some_and(|blocks| blocks.forgotten);
            if slot.uses == 0 || forgotten {
                let leaves_ghost = on_probation && slot.admission == Admission::Point && !forgotten;
                return self.remove(number, leaves_ghost);
            }
            slot.uses = if on_probation { 0 } else { slot.uses - 1 };
            self.push(number, true);
        }
        if let Some(number) = self.pop(self.main.head.is_none()) {
            self.remove(number, false);
        }
    }

    /// Frees a slot that is in no queue any more.
    fn remove(&mut self, number: u32, leaves_ghost: bool) {
        let slot = &mut self.slots[number as usize];
        let (hash, table, bytes) = (slot.hash, slot.table, slot.bytes as usize);
        slot.next = self.free.replace(number);
        drop(slot.block.take());
        self.index.remove(hash, number);
        self.bytes -= bytes;
        if leaves_ghost {
            let place = self.ghost_place(hash);
            self.ghosts[place] = fingerprint(hash);
        }
        if let Some(blocks) = self.tables.get_mut(&table) {
            blocks.blocks -= 1;
            if blocks.blocks == 0 {
                self.tables.remove(&table);
            }
        }
        self.stats.evictions += 1;
        self.stats.blocks -= 1;
    }

    fn take_slot(&mut self, slot: Slot) -> u32 {
        match self.free {
            Some(number) => {
                self.free = self.slots[number as usize].next;
                self.slots[number as usize] = slot;
                number
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        }
    }

    fn push(&mut self, number: u32, to_main: bool) {
        let bytes = self.slots[number as usize].bytes as usize;
        let queue = if to_main { &mut self.main } else { &mut self.probation };
        queue.bytes += bytes;
        match queue.tail.replace(number) {
            Some(tail) => self.slots[tail as usize].next = Some(number),
            None => queue.head = Some(number),
        }
        self.slots[number as usize].next = None;
    }

    fn pop(&mut self, from_probation: bool) -> Option<u32> {
        let queue = if from_probation { &mut self.probation } else { &mut self.main };
        let number = queue.head?;
        let slot = &self.slots[number as usize];
        queue.head = slot.next;
        queue.bytes -= slot.bytes as usize;
        if queue.head.is_none() {
            queue.tail = None;
        }
        Some(number)
    }

    fn find(&self, hash: u64, table: u64, page: u32) -> Option<u32> {
        self.index.find(hash, |number| {
            let slot = &self.slots[number as usize];
            (slot.table, slot.page) == (table, page)
        })
    }

    fn take_ghost(&mut self, hash: u64) -> bool {
        let place = self.ghost_place(hash);
        let ghost = &mut self.ghosts[place];
        let known = *ghost == fingerprint(hash);
        if known {
            *ghost = 0;
        }
        known
    }

    fn ghost_place(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.ghosts.len() - 1)
    }
}

/// Never 0, which stands for no ghost.
fn fingerprint(hash: u64) -> u32 {
    hash as u32 | 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::testing::block_of;

    fn handle(page: u32) -> BlockHandle {
        BlockHandle { page, pages: 1 }
    }

    /// Reads a block as a table would.
    fn read(cache: &BlockCache, table: u64, page: u32, admission: Admission) -> bool {
        if cache.get_for(table, handle(page), admission).is_some() {
            return true;
        }
        cache.insert(table, handle(page), Rc::new(block_of(table, page, 100)), admission);
        false
    }

    const CAPACITY: u64 = 1 << 20;

    #[test]
    fn it_holds_what_fits_and_no_more() {
        let cache = BlockCache::new(CAPACITY, 1);
        for page in 0..2000 {
            assert!(!read(&cache, 1, page, Admission::Point));
            assert!(cache.stats().bytes <= CAPACITY);
            assert!(cache.get(1, handle(page)).is_some());
        }
        let stats = cache.stats();
        assert_eq!(stats.inserts, 2000);
        assert_eq!(stats.inserts - stats.evictions, stats.blocks);
        assert!(stats.bytes > CAPACITY * 9 / 10);
        assert!(cache.get(2, handle(1999)).is_none());
    }

    #[test]
    fn a_scan_does_not_push_out_what_is_used() {
        let cache = BlockCache::new(CAPACITY, 2);
        for _ in 0..4 {
            for page in 0..150 {
                read(&cache, 1, page, Admission::Point);
            }
        }
        for page in 0..10_000 {
            read(&cache, 2, page, Admission::Scan);
        }
        let kept = (0..150).filter(|page| cache.get(1, handle(*page)).is_some()).count();
        assert!(kept >= 140, "{kept} of 150 kept");
    }

    #[test]
    fn a_block_that_comes_back_soon_enters_the_main_queue() {
        let cache = BlockCache::new(CAPACITY, 3);
        // More than fits, twice: the second round finds ghosts of the first.
        for page in (0..400).chain(0..400) {
            read(&cache, 1, page, Admission::Point);
        }
        assert!(cache.inner.borrow().main.bytes > 0);
    }

    #[test]
    fn blocks_of_a_forgotten_table_leave_first() {
        let cache = BlockCache::new(CAPACITY, 4);
        for _ in 0..5 {
            for page in 0..100 {
                read(&cache, 1, page, Admission::Point);
                read(&cache, 2, page, Admission::Point);
            }
        }
        cache.forget_table(1);
        for page in 0..100 {
            read(&cache, 3, page, Admission::Point);
            read(&cache, 3, page, Admission::Point);
        }
        let left = |table| (0..100).filter(|page| cache.get(table, handle(*page)).is_some()).count();
        assert!(left(2) > 90 && left(1) < 60, "{} and {}", left(2), left(1));
        assert!(cache.inner.borrow().tables.len() <= 3);
    }

    #[test]
    fn large_blocks_and_a_cache_of_nothing_are_harmless() {
        let cache = BlockCache::new(0, 5);
        assert!(!read(&cache, 1, 1, Admission::Point));
        assert!(!read(&cache, 1, 1, Admission::Point));
        let cache = BlockCache::new(CAPACITY, 5);
        let large = BlockHandle { page: 9, pages: 50 };
        cache.insert(1, large, Rc::new(block_of(1, 9, 190_000)), Admission::Point);
        assert_eq!(cache.stats().blocks, 0);
        let middle = BlockHandle { page: 9, pages: 13 };
        cache.insert(1, middle, Rc::new(block_of(1, 9, 50_000)), Admission::Point);
        assert_eq!(cache.stats().blocks, 1);
    }

    #[test]
    fn the_index_agrees_with_a_map_under_churn() {
        let cache = BlockCache::new(64 * 5000, 7);
        let mut state = 1u64;
        for _ in 0..50_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (table, page) = (state >> 62, (state >> 40) as u32 % 64);
            read(&cache, table, page, if state & 1 == 0 { Admission::Point } else { Admission::Scan });
        }
        let inner = cache.inner.borrow();
        let held = inner.slots.iter().filter(|slot| slot.block.is_some());
        let mut count = 0;
        for slot in held {
            let found = inner.find(slot.hash, slot.table, slot.page).unwrap();
            assert!(inner.slots[found as usize].page == slot.page);
            count += 1;
        }
        assert_eq!(count, inner.index.len());
        assert_eq!(count as u64, inner.stats.blocks);
        assert_eq!(inner.probation.bytes + inner.main.bytes, inner.bytes);
    }
}
