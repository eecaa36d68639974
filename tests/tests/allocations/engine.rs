//! The engine: a shard that is warm.

use std::cell::Cell;
use std::rc::Rc;

use pinion_engine::{
    DatabaseId, Identity, Key, Lifetime, NamespaceId, Operation, Options, Origin, Result, Shard, Waiter,
    WriteOptions, Written,
};
use pinion_env::{Env, create_dir_all};
use pinion_tests::world::{NodeConfig, SimEnv, World};

use crate::counting::{Count, CountingEnv};
use crate::{GROWTH_PER_OPERATION_MAX, per_operation};

const PARTITIONS: u32 = 64;
const KEY_BYTES: usize = 32;
const VALUE: [u8; 512] = [7; 512];
/// Writes in flight together.
const BURST: u64 = 16;

type TestShard = Shard<CountingEnv<SimEnv>, Tally>;

/// Counts ended writes and allocates nothing.
struct Tally(Rc<Cell<u64>>);

impl Waiter for Tally {
    fn complete(self, result: Result<Written>) {
        result.expect("nothing stands in the way of a write");
        self.0.set(self.0.get() + 1);
    }
}

/// A shard and what its core allocates.
struct Rig {
    env: CountingEnv<SimEnv>,
    shard: TestShard,
    count: Count,
    ended: Rc<Cell<u64>>,
}

/// Runs `test` on the core of a shard with these options.
fn with_shard(options: &Options, test: impl AsyncFn(&Rig) + Clone + 'static) {
    let world = World::new(1);
    let count = Count::default();
    let options = options.clone();
    let config = NodeConfig { disk_bytes: 1 << 30, ..NodeConfig::default() };
    let node = world.start_node(config, {
        move |env: SimEnv| {
            let (test, options, count) = (test.clone(), options.clone(), count.clone());
            async move {
                let env = CountingEnv::new(env, &count);
                let everything = async {
                    let identity =
                        Identity { database: DatabaseId(1), shard: 0, partitions: PARTITIONS, shards: 1 };
                    create_dir_all(&env, "shard".as_ref()).await.unwrap();
                    let shard = Shard::open(env.clone(), "shard".into(), identity, Origin(1), options).await;
                    let rig = Rig {
                        env: env.clone(),
                        shard: shard.unwrap(),
                        count: count.clone(),
                        ended: Rc::default(),
                    };
                    test(&rig).await;
                    rig.shard.close().await.unwrap();
                };
                count.counted(everything).await;
            }
        }
    });
    world.run_until(world.ended(node));
}

fn options() -> Options {
    Options {
        log_segment_bytes: 8 << 20,
        log_block_bytes_max: 128 << 10,
        memtable_bytes: 32 << 20,
        disk_reserve_bytes: 0,
        ..Options::default()
    }
}

fn name(number: u64) -> [u8; KEY_BYTES] {
    let mut name = [b'k'; KEY_BYTES];
    name[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    name
}

impl Rig {
    /// Puts these keys, a burst at a time, and returns how much that allocated.
    async fn put(&self, numbers: impl Iterator<Item = u64>) -> u64 {
        let before = self.count.get();
        let mut started = self.ended.get();
        for number in numbers {
            let name = name(number);
            let key = Key::new(NamespaceId(0), &name, PARTITIONS);
            let operation = Operation::Put { value: &VALUE, lifetime: Lifetime::Forever };
            self.shard.write(&key, operation, WriteOptions::default(), Tally(Rc::clone(&self.ended)));
            started += 1;
            while started.is_multiple_of(BURST) && self.ended.get() < started {
                self.env.yield_now().await;
            }
        }
        while self.ended.get() < started {
            self.env.yield_now().await;
        }
        // What was counted so far is of polls that have ended.
        self.env.yield_now().await;
        self.count.get() - before
    }

    /// Gets these keys from memory and returns how much that allocated.
    async fn get(&self, numbers: impl Iterator<Item = u64>) -> u64 {
        self.env.yield_now().await;
        let before = self.count.get();
        for number in numbers {
            let name = name(number);
            let key = Key::new(NamespaceId(0), &name, PARTITIONS);
            let bytes = self.shard.get_now(&key, |record| record.map_or(0, |record| record.value.len()));
            assert_eq!(bytes, Ok(VALUE.len()), "key {number} is in memory");
        }
        self.env.yield_now().await;
        self.count.get() - before
    }
}

#[test]
fn puts_allocate_only_what_the_memtable_grows_by() {
    with_shard(&options(), async |rig| {
        rig.put(0..2_000).await;
        // Overwrites: chunks of the arena, one in some 1,700 writes here, and about ten small things
        // for the file of each segment of the log.
        let overwritten = rig.put((0..8_000).map(|number| number % 2_000)).await;
        assert!(per_operation("overwrites", overwritten, 8_000) <= GROWTH_PER_OPERATION_MAX / 10.0);
        // New keys: also a leaf of the memtable's order in 64 to 128 keys; its upper level and the
        // hash index double.
        let new = rig.put(10_000..18_000).await;
        assert!(per_operation("puts of new keys", new, 8_000) <= GROWTH_PER_OPERATION_MAX);
    });
}

#[test]
fn gets_from_the_memtable_allocate_nothing() {
    with_shard(&options(), async |rig| {
        rig.put(0..2_000).await;
        rig.get(0..10).await;
        let allocations = rig.get((0..10_000).map(|number| number % 2_000)).await;
        assert_eq!((per_operation("memtable", allocations, 10_000), allocations), (0.0, 0));
    });
}

/// Writes records out and reads them until they are cached.
async fn cached(rig: &Rig, keys: u64) {
    rig.put(0..keys).await;
    rig.shard.flush().await.unwrap();
    for _ in 0..3 {
        for number in 0..keys {
            let name = name(number);
            let found = rig.shard.get(&Key::new(NamespaceId(0), &name, PARTITIONS)).await.unwrap();
            assert!(found.is_some());
        }
    }
}

#[test]
fn gets_from_the_row_cache_allocate_nothing() {
    // Rows are offered when their block was read.
    with_shard(&Options { block_cache_bytes: 0, ..options() }, async |rig| {
        cached(rig, 500).await;
        rig.get(0..500).await;
        let hits = rig.shard.stats().counters.row_cache_hits;
        let allocations = rig.get((0..10_000).map(|number| number % 500)).await;
        assert_eq!(rig.shard.stats().counters.row_cache_hits - hits, 10_000);
        assert_eq!((per_operation("row cache", allocations, 10_000), allocations), (0.0, 0));
    });
}

#[test]
fn gets_from_cached_blocks_allocate_nothing() {
    with_shard(&Options { row_cache_bytes: 0, ..options() }, async |rig| {
        cached(rig, 500).await;
        rig.get(0..500).await;
        let before = rig.shard.stats().counters;
        let allocations = rig.get((0..10_000).map(|number| number % 500)).await;
        let after = rig.shard.stats().counters;
        assert_eq!(after.blocks_searched - before.blocks_searched, 10_000);
        assert_eq!(after.blocks_read, before.blocks_read);
        assert_eq!((per_operation("cached blocks", allocations, 10_000), allocations), (0.0, 0));
    });
}
