//! The engine: a shard that is warm.

use pinion_engine::Options;
use pinion_env::Env;
use pinion_tests::metered::engine::{Rig, roomy, with_shard};

use crate::counting::Count;
use crate::{GROWTH_PER_OPERATION_MAX, per_operation};

/// Writes in flight together.
const BURST: u64 = 16;

/// Runs `test` with a shard and what its core allocates.
fn counted(options: &Options, test: impl AsyncFn(&Counted<'_>) + Clone + 'static) {
    let count = Count::default();
    let counted = count.clone();
    with_shard(options, &count, async move |rig: &Rig<Count>| test(&Counted { rig, count: &counted }).await);
}

struct Counted<'r> {
    rig: &'r Rig<Count>,
    count: &'r Count,
}

impl Counted<'_> {
    /// Puts these keys, a burst at a time, and returns how much that allocated.
    async fn put(&self, numbers: impl Iterator<Item = u64>) -> u64 {
        let before = self.count.get();
        self.rig.put(numbers, BURST).await;
        // What was counted so far is of polls that have ended.
        self.rig.env.yield_now().await;
        self.count.get() - before
    }

    /// Gets these keys from memory and returns how much that allocated.
    fn get(&self, numbers: impl Iterator<Item = u64>) -> u64 {
        let before = self.count.get();
        self.rig.get(numbers);
        self.count.get() - before
    }
}

#[test]
fn puts_allocate_only_what_the_memtable_grows_by() {
    counted(&roomy(), async |counted| {
        counted.put(0..2_000).await;
        // Overwrites: chunks of the arena, one in some 1,700 writes here, and about ten small things
        // for the file of each segment of the log.
        let overwritten = counted.put((0..8_000).map(|number| number % 2_000)).await;
        assert!(overwritten > 0, "the arena grows: whoever counts nothing does not count");
        assert!(per_operation("overwrites", overwritten, 8_000) <= GROWTH_PER_OPERATION_MAX / 10.0);
        // New keys: also a leaf of the memtable's order in 64 to 128 keys; its upper level and the
        // hash index double.
        let new = counted.put(10_000..18_000).await;
        assert!(per_operation("puts of new keys", new, 8_000) <= GROWTH_PER_OPERATION_MAX);
    });
}

#[test]
fn gets_from_the_memtable_allocate_nothing() {
    counted(&roomy(), async |counted| {
        counted.put(0..2_000).await;
        counted.get(0..10);
        let allocations = counted.get((0..10_000).map(|number| number % 2_000));
        assert_eq!((per_operation("memtable", allocations, 10_000), allocations), (0.0, 0));
    });
}

#[test]
fn gets_from_the_row_cache_allocate_nothing() {
    // Rows are offered when their block was read.
    counted(&Options { block_cache_bytes: 0, ..roomy() }, async |counted| {
        counted.rig.cache(500).await;
        counted.get(0..500);
        let hits = counted.rig.shard.stats().counters.row_cache_hits;
        let allocations = counted.get((0..10_000).map(|number| number % 500));
        assert_eq!(counted.rig.shard.stats().counters.row_cache_hits - hits, 10_000);
        assert_eq!((per_operation("row cache", allocations, 10_000), allocations), (0.0, 0));
    });
}

#[test]
fn gets_from_cached_blocks_allocate_nothing() {
    counted(&Options { row_cache_bytes: 0, ..roomy() }, async |counted| {
        counted.rig.cache(500).await;
        counted.get(0..500);
        let before = counted.rig.shard.stats().counters;
        let allocations = counted.get((0..10_000).map(|number| number % 500));
        let after = counted.rig.shard.stats().counters;
        assert_eq!(after.blocks_searched - before.blocks_searched, 10_000);
        assert_eq!(after.blocks_read, before.blocks_read);
        assert_eq!((per_operation("cached blocks", allocations, 10_000), allocations), (0.0, 0));
    });
}
