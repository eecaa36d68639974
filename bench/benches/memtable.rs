//! The memtable's hot pieces: insert, overwrite, get and miss, with 32-byte keys and 512-byte values.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pinion_engine::{HybridTime, Key, Memtable, NamespaceId, Origin, RecordKind, RecordView, Stamp};

const KEYS: u64 = 50_000;
const PARTITIONS: u32 = 1024;
const BYTES_MAX: usize = 256 << 20;
/// Operations per measured call, so that making and freeing the memtable is not measured.
const OPERATIONS: u64 = 1000;

/// The user key of a number.
fn user_key(number: u64) -> Vec<u8> {
    format!("{number:032x}").into_bytes()
}

fn put(memtable: &mut Memtable, user: &[u8], time: u64) {
    let stamp = Stamp { time: HybridTime(time), origin: Origin(1) };
    let record = RecordView { kind: RecordKind::Value, stamp, expiry_ms: 0, value: &[b'v'; 512] };
    let entry = memtable.stage(&Key::new(NamespaceId(0), user, PARTITIONS), &record);
    memtable.publish(entry, time);
}

fn filled() -> Memtable {
    let mut memtable = Memtable::new(BYTES_MAX);
    (0..KEYS).for_each(|number| put(&mut memtable, &user_key(number), 1));
    memtable
}

fn memtable(c: &mut Criterion) {
    let mut group = c.benchmark_group("memtable");
    group.throughput(Throughput::Elements(OPERATIONS)).sample_size(20);
    let keys: Vec<_> = (0..OPERATIONS).map(|index| user_key(index * 7919 % KEYS)).collect();
    let fresh: Vec<_> = (0..OPERATIONS).map(|index| user_key(KEYS + index)).collect();

    group.bench_function("insert", |b| {
        b.iter_batched_ref(
            filled,
            |table| fresh.iter().for_each(|key| put(table, key, 2)),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("overwrite", |b| {
        b.iter_batched_ref(
            filled,
            |table| keys.iter().for_each(|key| put(table, key, 2)),
            BatchSize::PerIteration,
        );
    });
    let table = filled();
    for (name, keys) in [("get", &keys), ("miss", &fresh)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let get = |key: &Vec<u8>| {
                    table.get(&Key::new(NamespaceId(0), black_box(key), PARTITIONS)).is_some()
                };
                keys.iter().filter(|key| get(key)).count()
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = memtable
}
criterion_main!(benches);
