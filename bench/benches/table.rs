//! What a lookup in a table is made of, and the longest step of writing one: the search in a block,
//! the look at the filter and at the index, and the building of a part's filter.
//!
//! Lookups ask for a thousand of 28,000 records, so what they touch is in the processor's caches: it is
//! their work that is measured, and not the memory.

mod memory;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use memory::MemoryEnv;
use pinion_engine::{
    Block, BlockCache, DatabaseId, FilterWidth, HybridTime, Identity, Key, NamespaceId, Origin,
    PART_RECORDS_MAX, RecordKind, RecordView, Stamp, Table, TableOptions, TableWriter, table_path,
};
use pinion_runtime::env::Env as _;

const PARTITIONS: u32 = 1024;
/// Records of a table of 16 MiB, if they are of 32 + 512 bytes.
const RECORDS: u64 = 28_000;
/// Lookups per measured call.
const LOOKUPS: u64 = 1000;
const SOUND: &str = "a world of memory does not fail";
const IDENTITY: Identity = Identity { database: DatabaseId(1), shard: 0, partitions: PARTITIONS, shards: 1 };

/// The user keys of `RECORDS` numbers from `first` on, in the order of records.
fn users(first: u64, key_bytes: usize) -> Vec<Vec<u8>> {
    let mut users: Vec<Vec<u8>> =
        (first..first + RECORDS).map(|number| format!("{number:0key_bytes$x}").into_bytes()).collect();
    users.sort_by(|left, right| key(left).position().cmp(&key(right).position()));
    users
}

fn key(user: &[u8]) -> Key<'_> {
    Key::new(NamespaceId(0), user, PARTITIONS)
}

fn record(value: &[u8]) -> RecordView<'_> {
    let stamp = Stamp { time: HybridTime(1), origin: Origin(1) };
    RecordView { kind: RecordKind::Value, stamp, expiry_ms: 0, value }
}

/// Every so many of them, in an order that is not theirs.
fn some(users: &[Vec<u8>]) -> Vec<Key<'_>> {
    (0..LOOKUPS).map(|index| key(&users[(index * 7919 % RECORDS) as usize])).collect()
}

async fn write(env: &MemoryEnv, number: u64, users: &[Vec<u8>], value: &[u8]) -> Rc<Table<MemoryEnv>> {
    let dir = Path::new("/table");
    let created = TableWriter::create(env, dir, number, &IDENTITY, TableOptions::default()).await;
    let mut writer = created.expect(SOUND);
    for user in users {
        writer.add(&key(user), &record(value));
        if writer.is_full_enough_to_write() {
            writer.write_out().await.expect(SOUND);
        }
    }
    let meta = writer.finish().await.expect(SOUND);
    Table::open(env, dir, meta, &IDENTITY).await.expect(SOUND)
}

fn lookups(c: &mut Criterion) {
    let env = MemoryEnv::default();
    for (number, key_bytes, value_bytes) in [(1, 32, 512), (2, 16, 64)] {
        let mut group = c.benchmark_group(format!("table of {key_bytes} + {value_bytes} B"));
        group.throughput(Throughput::Elements(LOOKUPS));
        let (users, strangers) = (users(0, key_bytes), users(RECORDS, key_bytes));
        let table = env.block_on(write(&env, number, &users, &vec![b'v'; value_bytes]));
        let (present, absent) = (some(&users), some(&strangers));

        // All but 15 of a million strangers end at the filter.
        for (name, keys) in [("locate", &present), ("filter out", &absent)] {
            group.bench_function(name, |b| {
                b.iter(|| keys.iter().filter(|key| table.locate(black_box(key)).is_some()).count());
            });
        }

        let cache = BlockCache::new(64 << 20, 1);
        let block_of = |key: &Key<'_>| -> Rc<Block> {
            let handle = table.locate(key).expect("it is in the table");
            env.block_on(table.block(handle, &cache)).expect(SOUND)
        };
        let blocks: Vec<Rc<Block>> = present.iter().map(block_of).collect();
        // What a filter lets through by mistake is of a partition that the block has, too.
        let by_partition: BTreeMap<_, _> =
            strangers.iter().map(|user| (key(user).partition, key(user))).collect();
        let mistaken: Vec<_> = present
            .iter()
            .map(|key| by_partition.get(&key.partition).copied().expect("27 of each partition"))
            .collect();
        for (name, keys) in [("search a block", &present), ("search a block in vain", &mistaken)] {
            group.bench_function(name, |b| {
                b.iter(|| {
                    let pairs = blocks.iter().zip(keys);
                    pairs.filter(|(block, key)| block.search(black_box(key)).is_some()).count()
                });
            });
        }
        group.bench_function("bisect a block", |b| {
            b.iter(|| {
                let pairs = blocks.iter().zip(&present);
                pairs.filter(|(block, key)| block.index_of(black_box(&key.position())).is_some()).count()
            });
        });
        group.finish();
    }
    env.end();
}

/// A table whose first part is complete and waits for its filter, with nothing else to write out.
async fn with_a_full_part(env: &MemoryEnv, users: &[Vec<u8>], filter: FilterWidth) -> TableWriter<MemoryEnv> {
    let options = TableOptions { filter, write_bytes: 1 << 20, ..TableOptions::default() };
    let path = Path::new("/part");
    drop(env.remove(&table_path(path, 1)).await);
    let created = TableWriter::create(env, path, 1, &IDENTITY, options).await;
    let mut writer = created.expect(SOUND);
    let mut users = users.iter();
    while !writer.is_full_enough_to_write() {
        let user = users.next().expect("a table has several parts");
        writer.add(&key(user), &record(b""));
    }
    writer
}

fn filters(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("filter of {PART_RECORDS_MAX} keys"));
    group.throughput(Throughput::Elements(PART_RECORDS_MAX as u64));
    let (env, users) = (MemoryEnv::default(), users(0, 16));
    for (name, width) in [("build 8 bits", FilterWidth::Eight), ("build 16 bits", FilterWidth::Sixteen)] {
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || env.block_on(with_a_full_part(&env, &users, width)),
                |writer| env.block_on(writer.write_out()).expect(SOUND),
                BatchSize::PerIteration,
            );
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = lookups, filters
}
criterion_main!(benches);
