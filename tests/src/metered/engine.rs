//! A shard that a test asks directly.
//!
//! What is counted are the shard's own tasks and the calls that a test makes through [`Rig`]: the key
//! with its hash, and the call. Values have 512 bytes, keys 32.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use pinion_engine::{
    DatabaseId, Found, Identity, Key, Lifetime, NamespaceId, Operation, Options, Origin, OwnedPosition,
    Partition, RecordView, Result, ScanKind, ScanRange, ScanSink, Shard, Waiter, WriteOptions, Written,
};
use pinion_env::{Env, create_dir_all};

use super::{Meter, MeteredEnv, metered};
use crate::world::{NodeConfig, SimEnv, World};

const PARTITIONS: u32 = 64;
const KEY_BYTES: usize = 32;
const VALUE: [u8; 512] = [7; 512];
const DISK_BYTES: u64 = 1 << 30;
/// Longer than anything takes that follows a write, and shorter than an idle shard waits for more.
const QUIET: Duration = Duration::from_millis(5);

/// Counts ended writes and allocates nothing.
#[derive(Debug)]
pub struct Tally(Rc<Cell<u64>>);

impl Waiter for Tally {
    fn complete(self, result: Result<Written>) {
        result.expect("nothing stands in the way of a write");
        self.0.set(self.0.get() + 1);
    }
}

/// A shard on a core whose work is metered.
pub struct Rig<M: Meter> {
    /// The core's world.
    pub env: MeteredEnv<SimEnv, M>,
    /// The shard, to be asked for what does not count.
    pub shard: Shard<MeteredEnv<SimEnv, M>, Tally>,
    meter: M,
    ended: Rc<Cell<u64>>,
}

/// Runs `test` on the core of a new shard with these options.
///
/// # Panics
/// When the shard does not open or close, and with whatever the test panics.
pub fn with_shard<M: Meter>(options: &Options, meter: &M, test: impl AsyncFn(&Rig<M>) + Clone + 'static) {
    let world = World::new(1);
    let (options, meter) = (options.clone(), meter.clone());
    let config = NodeConfig { disk_bytes: DISK_BYTES, ..NodeConfig::default() };
    let node = world.start_node(config, move |env: SimEnv| {
        let (test, options, meter) = (test.clone(), options.clone(), meter.clone());
        async move {
            let env = MeteredEnv::new(env, &meter);
            let identity = Identity { database: DatabaseId(1), shard: 0, partitions: PARTITIONS, shards: 1 };
            create_dir_all(&env, "shard".as_ref()).await.expect("the disk is empty");
            let shard = Shard::open(env.clone(), "shard".into(), identity, Origin(1), options).await;
            let shard = shard.expect("the options are sound");
            let rig = Rig { env, shard, meter, ended: Rc::default() };
            test(&rig).await;
            rig.shard.close().await.expect("the disk is sound");
        }
    });
    world.run_until(world.ended(node));
}

/// Options of a shard that neither flushes nor starts a segment during a few thousand writes.
pub fn roomy() -> Options {
    Options {
        log_segment_bytes: 8 << 20,
        log_block_bytes_max: 128 << 10,
        memtable_bytes: 32 << 20,
        disk_reserve_bytes: 0,
        ..Options::default()
    }
}

/// Keys that follow each other lie far apart.
fn name(number: u64) -> [u8; KEY_BYTES] {
    let mut name = [b'k'; KEY_BYTES];
    name[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    name
}

impl<M: Meter> Rig<M> {
    /// Puts these keys, `burst` at a time, and waits until all have ended.
    pub async fn put(&self, numbers: impl Iterator<Item = u64>, burst: u64) {
        let mut started = self.ended.get();
        for number in numbers {
            let name = name(number);
            let waiter = Tally(Rc::clone(&self.ended));
            self.meter.inside(|| {
                let key = Key::new(NamespaceId(0), &name, PARTITIONS);
                let operation = Operation::Put { value: &VALUE, lifetime: Lifetime::Forever };
                self.shard.write(&key, operation, WriteOptions::default(), waiter);
            });
            started += 1;
            while started.is_multiple_of(burst) && self.ended.get() < started {
                self.env.yield_now().await;
            }
        }
        while self.ended.get() < started {
            self.env.yield_now().await;
        }
    }

    /// Gets these keys.
    ///
    /// # Panics
    /// When memory cannot answer.
    pub fn get(&self, numbers: impl Iterator<Item = u64>) {
        for number in numbers {
            let name = name(number);
            let bytes = self.meter.inside(|| {
                let key = Key::new(NamespaceId(0), &name, PARTITIONS);
                self.shard.get_now(&key, |record| record.map_or(0, |record| record.value.len()))
            });
            assert_eq!(bytes, Ok(VALUE.len()), "key {number} is in memory");
        }
    }

    /// Writes the keys below `keys` out and reads them until they are cached. Counts nothing of note.
    ///
    /// # Panics
    /// When the disk fails.
    pub async fn cache(&self, keys: u64) {
        self.put(0..keys, 16).await;
        self.shard.flush().await.expect("the disk is sound");
        for _ in 0..3 {
            for number in 0..keys {
                let name = name(number);
                let key = Key::new(NamespaceId(0), &name, PARTITIONS);
                let found: Option<Found> = self.shard.get(&key).await.expect("the disk is sound");
                assert!(found.is_some(), "key {number} was put");
            }
        }
    }

    /// Lets the shard end what it does after its writes have ended.
    pub async fn quiet(&self) {
        self.env.sleep(QUIET).await;
    }

    /// Reads one page of so many records in placement order; how many there were.
    ///
    /// # Panics
    /// When the disk fails.
    pub async fn scan(&self, records_max: u32) -> u64 {
        let range = ScanRange {
            namespace: NamespaceId(0),
            kind: ScanKind::Placed { first: Partition(0), last: Partition(PARTITIONS as u16 - 1) },
            start: Vec::new(),
            end: None,
            resume: None,
            reverse: false,
            records_max,
        };
        let mut page = Page::default();
        let scan = metered(&self.meter, self.shard.scan(&range, &mut page));
        let _next: Option<OwnedPosition> = scan.await.expect("the disk is sound");
        page.records
    }
}

/// Adds up what a page holds.
#[derive(Default)]
struct Page {
    records: u64,
    bytes: usize,
}

impl ScanSink for Page {
    fn push(&mut self, user_key: &[u8], record: RecordView<'_>) -> bool {
        self.records += 1;
        self.bytes += user_key.len() + record.value.len();
        true
    }
}
