//! What a page of a scan reads, from which places, and when.

use std::collections::BTreeMap;

use super::*;

#[derive(Default)]
struct Keys(Vec<String>);

impl ScanSink for Keys {
    fn push(&mut self, user_key: &[u8], _: RecordView<'_>) -> bool {
        self.0.push(String::from_utf8_lossy(user_key).into_owned());
        true
    }
}

/// Runs stay runs, of one table each, and every block is read from disk.
fn options() -> Options {
    Options {
        runs_max: 8,
        memtable_bytes: 1 << 20,
        log_segment_bytes: 2 << 20,
        table_bytes: 1 << 20,
        block_cache_bytes: 0,
        ..small()
    }
}

/// A shard with a flushed run of each list of keys.
fn runs(env: &TestEnv, runs: &[Vec<String>]) -> TestShard {
    let shard = open_with(env, options()).unwrap();
    for keys in runs {
        for user in keys {
            write(env, &shard, user, put(&[7; 512])).unwrap();
        }
        env.block_on(shard.flush()).unwrap();
    }
    assert_eq!(shard.stats().runs, runs.len() as u64);
    shard
}

/// A page through some partitions, and the reads and bytes that it took.
fn page(
    env: &TestEnv,
    shard: &TestShard,
    partitions: (Partition, Partition),
    reverse: bool,
    records_max: u32,
) -> (Vec<String>, u64, u64) {
    let (first, last) = partitions;
    let range = ScanRange {
        namespace: NamespaceId(0),
        kind: ScanKind::Placed { first, last },
        start: Vec::new(),
        end: None,
        resume: None,
        reverse,
        records_max,
    };
    let before = shard.stats().counters;
    let mut keys = Keys::default();
    env.block_on(shard.scan(&range, &mut keys)).unwrap();
    let after = shard.stats().counters;
    (keys.0, after.scan_reads - before.scan_reads, after.scan_read_bytes - before.scan_read_bytes)
}

/// All keys of three runs of one tag, strewn.
fn strewn() -> Vec<Vec<String>> {
    (0..3).map(|run| (run..240).step_by(3).map(|number| format!("{{t}}{number:027}")).collect()).collect()
}

#[test]
fn places_are_read_at_once() {
    let env = TestEnv::new(31);
    let shard = runs(&env, &strewn());
    let mut sorted = strewn().concat();
    sorted.sort();
    let partition = key("{t}").partition;
    for reverse in [false, true] {
        env.reads_at_once();
        let (keys, reads, bytes) = page(&env, &shard, (partition, partition), reverse, 60);
        assert_eq!(env.reads_at_once(), 3, "a read of each run at the same time");
        assert_eq!(keys, sorted[..60], "{reverse}");
        // Twenty records of each run lie in three or four blocks, and no second read was needed.
        assert_eq!(reads, 3);
        assert!((3 * 3 * 4096..=3 * 5 * 4096).contains(&bytes), "{bytes}");
        // Of one record a page reads no more than the block of each run that it may lie in.
        let (keys, reads, bytes) = page(&env, &shard, (partition, partition), reverse, 1);
        assert_eq!((keys.as_slice(), reads, bytes), (&sorted[..1], 3, 3 * 4096));
        sorted.reverse();
    }
}

#[test]
fn the_first_error_in_the_order_of_places_is_answered() {
    let env = TestEnv::new(32);
    let shard = runs(&env, &strewn());
    let partition = key("{t}").partition;
    let range = ScanRange {
        namespace: NamespaceId(0),
        kind: ScanKind::Placed { first: partition, last: partition },
        start: Vec::new(),
        end: None,
        resume: None,
        reverse: false,
        records_max: 1,
    };
    // The newest run is read first: the second and third read fail.
    env.fail(Op::Read, ".table", 1, 1, ErrorKind::PermissionDenied);
    env.fail(Op::Read, ".table", 1, 1, ErrorKind::NotFound);
    let before = env.count(Op::Read);
    let failed = env.block_on(shard.scan(&range, &mut Keys::default())).unwrap_err();
    assert!(
        matches!(&failed, Error::Io { error, .. } if error.kind() == ErrorKind::PermissionDenied),
        "{failed:?}"
    );
    assert_eq!(env.count(Op::Read) - before, 3, "nothing is retried");
    env.heal();
    env.block_on(shard.scan(&range, &mut Keys::default())).unwrap();
}

#[test]
fn a_place_with_nothing_in_the_range_reads_nothing() {
    let env = TestEnv::new(33);
    let tagged = |tag: &str| (0..20).map(|number| format!("{{{tag}}}{number:027}")).collect::<Vec<_>>();
    // Each run in a partition of its own.
    let mut by_partition = BTreeMap::new();
    for tag in ["a", "b", "c", "d", "e", "f"] {
        by_partition.entry(key(&format!("{{{tag}}}")).partition.0).or_insert_with(|| tagged(tag));
    }
    assert!(by_partition.len() >= 3, "{by_partition:?}");
    let lists: Vec<Vec<String>> = by_partition.values().cloned().collect();
    let shard = runs(&env, &lists);
    let whole = (Partition(0), Partition(PARTITIONS as u16 - 1));
    for reverse in [false, true] {
        for (partition, expected) in &by_partition {
            let mut expected = expected.clone();
            if reverse {
                expected.reverse();
            }
            let partition = Partition(*partition);
            let (keys, reads, _) = page(&env, &shard, (partition, partition), reverse, 10);
            assert_eq!((keys.as_slice(), reads), (&expected[..10], 1), "{reverse}");
        }
        let mut expected = lists.concat();
        if reverse {
            expected.reverse();
        }
        let (keys, ..) = page(&env, &shard, whole, reverse, 1000);
        assert_eq!(keys, expected, "{reverse}");
    }
    let range = ScanRange {
        namespace: NamespaceId(0),
        kind: ScanKind::Ordered,
        start: Vec::new(),
        end: None,
        resume: None,
        reverse: false,
        records_max: 1000,
    };
    let (mut keys, mut expected) = (Keys::default(), lists.concat());
    env.block_on(shard.scan(&range, &mut keys)).unwrap();
    expected.sort();
    assert_eq!(keys.0, expected);
}
