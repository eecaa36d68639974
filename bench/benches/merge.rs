//! Merging: what compaction takes for a record of four runs that become one level, and what a scan
//! takes for one of a page over the same runs.
//!
//! A run has a quarter of the keys, strewn over all the others. Compaction is timed as a whole: reading
//! and checking blocks, choosing the next record, building blocks, index and filters, opening what was
//! written, the manifest. Files are memory, so that all of it is the engine's own work.

mod memory;

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use memory::MemoryEnv;
use pinion_engine::{
    DatabaseId, Identity, Key, Lifetime, NamespaceId, Operation, Options, Origin, Partition, RecordView,
    Result, ScanKind, ScanRange, ScanSink, Shard, Waiter, WriteOptions, Written,
};
use pinion_runtime::env::Env as _;

const PARTITIONS: u32 = 1024;
/// As many as make compaction due.
const RUNS: u64 = 4;
const RUN_RECORDS: u64 = 10_000;
/// Records of a page of a scan.
const PAGE: u32 = 1000;
/// Writes that may wait for the log.
const WRITES_MAX: u64 = 1000;
const SOUND: &str = "a world of memory does not fail";

/// Counts the writes that have not ended.
struct Ended(Rc<Cell<u64>>);

impl Waiter for Ended {
    fn complete(self, result: Result<Written>) {
        result.expect(SOUND);
        self.0.set(self.0.get() - 1);
    }
}

type MemoryShard = Shard<MemoryEnv, Ended>;

/// A shard with its runs, and compaction held back.
fn loaded(env: &MemoryEnv) -> MemoryShard {
    env.holds_background.set(true);
    let identity = Identity { database: DatabaseId(1), shard: 0, partitions: PARTITIONS, shards: 1 };
    let options = Options { runs_max: RUNS as u32, ..Options::default() };
    let opened = Shard::open(env.clone(), PathBuf::from("/shard"), identity, Origin(1), options);
    let shard: MemoryShard = env.block_on(opened).expect(SOUND);
    let writing = Rc::new(Cell::new(0));
    for run in 0..RUNS {
        for number in (run..RUNS * RUN_RECORDS).step_by(RUNS as usize) {
            let user = format!("{number:032x}");
            let key = Key::new(NamespaceId(0), user.as_bytes(), PARTITIONS);
            let operation = Operation::Put { value: &[b'v'; 512], lifetime: Lifetime::Forever };
            writing.set(writing.get() + 1);
            shard.write(&key, operation, WriteOptions::default(), Ended(Rc::clone(&writing)));
            while writing.get() >= WRITES_MAX {
                env.block_on(env.yield_now());
            }
        }
        env.block_on(shard.flush()).expect(SOUND);
    }
    assert_eq!(shard.stats().runs, RUNS);
    shard
}

fn end(env: MemoryEnv, shard: MemoryShard) {
    env.holds_background.set(false);
    env.block_on(shard.close()).expect(SOUND);
    env.end();
}

/// How long it takes until compaction has nothing left to do.
fn compaction() -> Duration {
    let env = MemoryEnv::default();
    let shard = loaded(&env);
    env.holds_background.set(false);
    let start = Instant::now();
    env.block_on(shard.settle()).expect(SOUND);
    let took = start.elapsed();
    let stats = shard.stats();
    assert_eq!((stats.counters.compactions, stats.runs), (1, 0));
    assert_eq!(stats.levels[1].records, RUNS * RUN_RECORDS);
    end(env, shard);
    took
}

/// Looks at values and keeps nothing.
struct Bytes(usize);

impl ScanSink for Bytes {
    fn push(&mut self, _user_key: &[u8], record: RecordView<'_>) -> bool {
        self.0 += record.value.len();
        true
    }
}

fn merge(c: &mut Criterion) {
    let mut group = c.benchmark_group("merge of four runs");
    group.throughput(Throughput::Elements(RUNS * RUN_RECORDS)).sample_size(10);
    group.sampling_mode(SamplingMode::Flat).warm_up_time(Duration::from_millis(1));
    group.bench_function("compaction", |b| {
        b.iter_custom(|times| (0..times).map(|_| compaction()).sum());
    });

    group.throughput(Throughput::Elements(PAGE.into())).sample_size(50);
    group.warm_up_time(Duration::from_millis(500));
    let env = MemoryEnv::default();
    let shard = loaded(&env);
    let range = ScanRange {
        namespace: NamespaceId(0),
        kind: ScanKind::Placed { first: Partition(0), last: Partition(u16::MAX) },
        start: Vec::new(),
        end: None,
        resume: None,
        reverse: false,
        records_max: PAGE,
    };
    group.bench_function("a page of a scan", |b| {
        b.iter(|| {
            let mut bytes = Bytes(0);
            let next = env.block_on(shard.scan(&range, &mut bytes)).expect(SOUND);
            assert!(next.is_some() && bytes.0 == 512 * PAGE as usize);
        });
    });
    group.finish();
    end(env, shard);
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(2));
    targets = merge
}
criterion_main!(benches);
