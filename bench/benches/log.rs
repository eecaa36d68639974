//! Appending to the log: records of 32 + 512 bytes are encoded into the block that the next commit
//! writes, alone and in batches of 16. Commits, in between, are not measured.

mod memory;

use std::path::Path;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use memory::MemoryEnv;
use pinion_engine::log::{Log, LogOp, LogOptions, LogPosition, LogReplay};
use pinion_engine::{
    DatabaseId, HybridTime, Identity, NamespaceId, Options, Origin, Partition, RecordKind, Stamp,
};

/// Operations per measured call: less than a block holds.
const OPERATIONS: usize = 1024;
const BATCH: usize = 16;
const SOUND: &str = "a world of memory does not fail";

fn open(env: &MemoryEnv) -> Log<MemoryEnv> {
    let identity = Identity { database: DatabaseId(1), shard: 0, partitions: 1024, shards: 1 };
    let options = LogOptions { segment_bytes: 16 << 20, ..LogOptions::from(&Options::default()) };
    env.block_on(async {
        let opened = LogReplay::open(env, Path::new("/shard"), identity, options, LogPosition::ZERO).await;
        let mut replay = opened.expect(SOUND);
        while replay.next().await.expect(SOUND).is_some() {}
        replay.finish().await.expect(SOUND)
    })
}

/// Writes what is staged, and lets its segments be used again.
async fn commit(log: &Log<MemoryEnv>) {
    while log.has_staged() {
        let durable = log.commit().await.expect(SOUND);
        log.release(durable);
    }
}

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("log");
    group.throughput(Throughput::Elements(OPERATIONS as u64));
    let env = MemoryEnv::default();
    let log = open(&env);
    let keys: Vec<Vec<u8>> = (0..OPERATIONS).map(|number| format!("{number:032x}").into_bytes()).collect();
    let op = |key| LogOp {
        kind: RecordKind::Value,
        partition: Partition(7),
        namespace: NamespaceId(0),
        key,
        expiry_ms: 0,
        value: &[b'v'; 512],
    };
    let ops: Vec<LogOp<'_>> = keys.iter().map(|key| op(key)).collect();
    let stamp = Stamp { time: HybridTime(1), origin: Origin(1) };
    for (name, batch) in [("append", 1), ("append in batches of 16", BATCH)] {
        group.bench_function(name, |b| {
            b.iter_batched(
                || env.block_on(commit(&log)),
                |()| {
                    for batch in ops.chunks(batch) {
                        log.append(stamp, batch).expect("a block has room for all");
                    }
                },
                BatchSize::PerIteration,
            );
        });
    }
    drop(group);
    drop(log);
    env.end();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = append
}
criterion_main!(benches);
