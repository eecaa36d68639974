//! A whole shard in the test world: rules that the generated histories do not single out.

mod ahead;
mod conditions;
mod hazards;
mod namespaces;
mod quarantine;
mod scans;

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use pinion_env::{Env, Urgency};

use super::{ScanKind, ScanRange, ScanSink, Shard};
use crate::answer::{Answer, Teller, answer};
use crate::error::{Error, Result};
use crate::identity::{DatabaseId, Identity};
use crate::key::{Key, NamespaceId, Partition};
use crate::operation::{
    BatchOperation, Condition, Durability, Effect, Lifetime, Operation, Update, WriteOptions, Written,
};
use crate::options::Options;
use crate::record::RecordView;
use crate::stamp::{HybridTime, Origin, Stamp};
use crate::table::PART_RECORDS_MAX;
use crate::testing::{Op, TestEnv};

type TestShard = Shard<TestEnv, Teller>;

const PARTITIONS: u32 = 64;
const IDENTITY: Identity = Identity { database: DatabaseId(5), shard: 0, partitions: PARTITIONS, shards: 1 };

fn small() -> Options {
    Options {
        value_bytes_max: 16 << 10,
        batch_ops_max: 64,
        batch_bytes_max: 64 << 10,
        log_segment_bytes: 256 << 10,
        log_queue_bytes_max: 512 << 10,
        memtable_bytes: 64 << 10,
        table_bytes: 32 << 10,
        level_base_bytes: 128 << 10,
        level_growth: 4,
        block_cache_bytes: 128 << 10,
        row_cache_bytes: 0,
        retry_window_ms_max: 60_000,
        deadline_ms_max: 1_000,
        disk_reserve_bytes: 0,
        ..Options::default()
    }
}

fn open_with(env: &TestEnv, options: Options) -> Result<TestShard> {
    env.block_on(async {
        let dir = PathBuf::from("shard");
        pinion_env::create_dir_all(env, &dir).await.expect("the test disk takes directories");
        env.sync_dir("".as_ref()).await.expect("the root can be synced");
        Shard::open(env.clone(), dir, IDENTITY, Origin(1), options).await
    })
}

fn open(env: &TestEnv) -> TestShard {
    open_with(env, small()).unwrap()
}

fn key(user: &str) -> Key<'_> {
    Key::new(NamespaceId(0), user.as_bytes(), PARTITIONS)
}

fn start(shard: &TestShard, user: &str, operation: Operation<'_>, options: WriteOptions) -> Answer {
    let (teller, answer) = answer();
    shard.write(&key(user), operation, options, teller);
    answer
}

fn write(env: &TestEnv, shard: &TestShard, user: &str, operation: Operation<'_>) -> Result<Written> {
    write_with(env, shard, user, operation, WriteOptions::default())
}

fn write_with(
    env: &TestEnv,
    shard: &TestShard,
    user: &str,
    operation: Operation<'_>,
    options: WriteOptions,
) -> Result<Written> {
    loop {
        match env.block_on(start(shard, user, operation, options)) {
            Err(Error::Overloaded { .. }) => env.block_on(shard.settle())?,
            result => return result,
        }
    }
}

fn put<'a>(value: &'a [u8]) -> Operation<'a> {
    Operation::Put { value, lifetime: Lifetime::Forever }
}

fn get(env: &TestEnv, shard: &TestShard, user: &str) -> Result<Option<Vec<u8>>> {
    let found = env.block_on(shard.get(&key(user)))?;
    Ok(found.map(|found| found.view().value.to_vec()))
}

/// Fills the shard with `count` records of about 600 bytes and lets it come to rest.
fn fill(env: &TestEnv, shard: &TestShard, count: u32, round: u8) {
    for number in 0..count {
        write(env, shard, &format!("fill-{number:06}"), put(&[round; 560])).unwrap();
    }
    env.block_on(shard.settle()).unwrap();
}

#[test]
fn a_late_retry_does_not_bring_a_deleted_key_back() {
    let env = TestEnv::new(1);
    let shard = open(&env);
    let stamp =
        Stamp { time: HybridTime::from_millis(shard.clock_ms()), origin: Origin(Origin::CLIENT_BIT | 1) };
    let options = WriteOptions { stamp: Some(stamp), ..WriteOptions::default() };
    let first = write_with(&env, &shard, "key", put(b"old"), options).unwrap();
    assert_eq!((first.effect, first.stamp), (Effect::Applied, stamp));
    // The retry of a put that is still the newest is the same put.
    let again = write_with(&env, &shard, "key", put(b"old"), options).unwrap();
    assert_eq!((again.effect, again.stamp), (Effect::Applied, stamp));

    let deleted = write(&env, &shard, "key", Operation::Delete).unwrap();
    env.block_on(shard.settle()).unwrap();
    let retried = write_with(&env, &shard, "key", put(b"old"), options).unwrap();
    assert_eq!((retried.effect, retried.stamp), (Effect::Superseded, deleted.stamp));

    // Once the tombstone is old enough to go, so is the retry.
    env.advance(Duration::from_secs(120));
    fill(&env, &shard, 400, 1);
    env.block_on(shard.settle()).unwrap();
    let tombstones: u64 = shard.stats().levels.iter().map(|level| level.tombstones).sum();
    assert_eq!(tombstones, 0, "the tombstone is gone");
    let late = write_with(&env, &shard, "key", put(b"old"), options);
    assert!(matches!(late, Err(Error::StampTooOld { window_ms: 60_000 })), "{late:?}");
    assert_eq!(get(&env, &shard, "key").unwrap(), None);
}

#[test]
fn stamps_ahead_of_the_clock_are_refused() {
    let env = TestEnv::new(1);
    let shard = open(&env);
    let at = |ahead_ms: u64| Stamp {
        time: HybridTime::from_millis(shard.clock_ms() + ahead_ms),
        origin: Origin(Origin::CLIENT_BIT | 1),
    };
    let with = |stamp| WriteOptions { stamp: Some(stamp), ..WriteOptions::default() };
    assert!(matches!(write_with(&env, &shard, "a", put(b""), with(at(600))), Err(Error::StampAhead)));
    assert!(write_with(&env, &shard, "a", put(b""), with(at(400))).is_ok());
    let conditional = Operation::DeleteIf { condition: Condition::Present };
    assert!(matches!(write_with(&env, &shard, "a", conditional, with(at(0))), Err(Error::BadOperation(_))));
}

#[test]
fn the_first_failed_log_write_stops_the_shard() {
    let env = TestEnv::new(2);
    let shard = open(&env);
    write(&env, &shard, "before", put(b"kept")).unwrap();
    env.fail(Op::Write, "wal", 0, 1, ErrorKind::Other);
    let one = start(&shard, "one", put(b"?"), WriteOptions::default());
    let two = start(&shard, "two", put(b"?"), WriteOptions::default());
    assert!(matches!(env.block_on(one), Err(Error::StorageFailed(_))));
    assert!(matches!(env.block_on(two), Err(Error::StorageFailed(_))));
    // The device is well again; the shard stays stopped, and still answers reads.
    env.heal();
    assert!(matches!(write(&env, &shard, "three", put(b"?")), Err(Error::StorageFailed(_))));
    assert_eq!(get(&env, &shard, "before").unwrap().as_deref(), Some(&b"kept"[..]));
    assert!(shard.stats().failed.is_some());
    env.crash();
    let shard = open(&env);
    assert_eq!(get(&env, &shard, "before").unwrap().as_deref(), Some(&b"kept"[..]));
    assert_eq!(get(&env, &shard, "three").unwrap(), None);
}

#[test]
fn a_failed_table_sync_stops_the_shard_and_loses_nothing() {
    let env = TestEnv::new(3);
    let shard = open(&env);
    write(&env, &shard, "key", put(b"kept")).unwrap();
    env.fail(Op::Sync, "table", 0, 1, ErrorKind::Other);
    assert!(matches!(env.block_on(shard.flush()), Err(Error::StorageFailed(_))));
    env.heal();
    env.crash();
    let shard = open(&env);
    assert_eq!(get(&env, &shard, "key").unwrap().as_deref(), Some(&b"kept"[..]));
}

#[test]
fn nothing_acknowledged_is_lost_when_unsynced_bytes_are() {
    // Every crash forgets what was not synced: files, directory entries, renames.
    let env = TestEnv::new(4);
    let mut expected = std::collections::BTreeMap::<String, Vec<u8>>::new();
    for round in 0..12_u8 {
        let shard = open(&env);
        for (user, value) in &expected {
            let found = get(&env, &shard, user).unwrap();
            assert_eq!(found.as_ref(), Some(value), "{user} after {round} crashes");
        }
        for number in 0..90 {
            let user = format!("key-{:03}", (number * 7 + u32::from(round)) % 200);
            let value = vec![round; 400 + number as usize];
            write(&env, &shard, &user, put(&value)).unwrap();
            expected.insert(user, value);
        }
        if round % 3 == 0 {
            env.block_on(shard.flush()).unwrap();
        }
        env.crash();
    }
}

#[test]
fn a_full_disk_refuses_writes_answers_reads_and_recovers() {
    let env = TestEnv::new(5);
    let options = Options { disk_reserve_bytes: 512 << 10, ..small() };
    let shard = open_with(&env, options.clone()).unwrap();
    env.set_capacity(4 << 20);
    let mut written = Vec::new();
    let refused = loop {
        let user = format!("key-{:05}", written.len());
        match env.block_on(start(&shard, &user, put(&[7; 2000]), WriteOptions::default())) {
            Ok(_) => written.push(user),
            Err(Error::Overloaded { .. }) => {
                env.block_on(env.sleep(Duration::from_millis(20)));
            }
            Err(error) => break error,
        }
        assert!(written.len() < 20_000, "4 MiB never fill up");
    };
    assert!(matches!(refused, Error::DiskFull), "{refused}");
    for user in &written {
        assert!(get(&env, &shard, user).unwrap().is_some(), "{user}");
    }
    assert!(shard.stats().failed.is_none(), "a full disk is not a failure");
    env.set_capacity(1 << 30);
    let mut tries = 0;
    while write(&env, &shard, "after", put(b"again")).is_err() {
        env.block_on(env.sleep(Duration::from_secs(1)));
        tries += 1;
        assert!(tries < 100, "space has returned and writes have not");
    }
    env.crash();
    let shard = open_with(&env, options).unwrap();
    for user in written.iter().map(String::as_str).chain(["after"]) {
        assert!(get(&env, &shard, user).unwrap().is_some(), "{user}");
    }
}

#[test]
fn compaction_is_urgent_while_runs_lie_deep_above_each_other() {
    let env = TestEnv::new(20);
    let runs_max = small().runs_max as usize;
    // Nothing is merged until it is opened again.
    let shard = open_with(&env, Options { runs_max: u32::MAX, ..small() }).unwrap();
    for round in 0..(runs_max * crate::compaction::DEEP * 2) as u8 {
        write(&env, &shard, "key", put(&[round; 1_000])).unwrap();
        env.block_on(shard.flush()).unwrap();
    }
    assert_eq!(env.urgency(), 0);
    env.block_on(shard.close()).unwrap();
    drop(shard);
    let shard = open(&env);
    assert_eq!(env.urgency(), Urgency::MAX, "{:?}", shard.stats());
    env.block_on(shard.settle()).unwrap();
    assert_eq!(env.urgency(), 0, "{:?}", shard.stats());
}

#[test]
fn expired_records_stay_away_when_the_clock_is_set_back() {
    let env = TestEnv::new(6);
    let shard = open(&env);
    let lifetime = Lifetime::Millis(1_000);
    let short = write(&env, &shard, "key", Operation::Put { value: b"short", lifetime }).unwrap();
    let wall_ms = shard.clock_ms();
    assert!(get(&env, &shard, "key").unwrap().is_some());
    env.advance(Duration::from_millis(10_000));
    assert_eq!(get(&env, &shard, "key").unwrap(), None);
    env.crash();
    env.set_wall_ms(wall_ms - 5_000);
    let shard = open(&env);
    assert_eq!(get(&env, &shard, "key").unwrap(), None, "it came back");
    let stamp = write(&env, &shard, "key", put(b"new")).unwrap().stamp;
    assert!(stamp > short.stamp && stamp.millis() >= short.expiry_ms, "stamps run back");
}

#[test]
fn expired_data_gives_its_space_back() {
    let env = TestEnv::new(7);
    let options =
        Options { retry_window_ms_max: 100, deadline_ms_max: 100, sweep_interval_ms: 500, ..small() };
    let shard = open_with(&env, options).unwrap();
    let lifetime = Lifetime::Millis(2_000);
    for number in 0..600 {
        let operation = Operation::Put { value: &[1; 500], lifetime };
        write(&env, &shard, &format!("key-{number}"), operation).unwrap();
    }
    env.block_on(shard.settle()).unwrap();
    let bytes = |shard: &TestShard| shard.stats().levels.iter().map(|level| level.bytes).sum::<u64>();
    assert!(bytes(&shard) > 200 << 10);
    env.advance(Duration::from_secs(10));
    env.block_on(async {
        for _ in 0..20 {
            env.sleep(Duration::from_millis(600)).await;
        }
    });
    env.block_on(shard.settle()).unwrap();
    assert_eq!(bytes(&shard), 0);
}

#[test]
fn space_is_compared_with_the_largest_level_or_run() {
    let env = TestEnv::new(7);
    let shard = open(&env);
    assert_eq!(shard.stats().largest_level_bytes, 0);
    for _ in 0..2 {
        for number in 0..20 {
            write(&env, &shard, &format!("key-{number}"), put(&[1; 500])).unwrap();
        }
        env.block_on(shard.flush()).unwrap();
    }
    let stats = shard.stats();
    let bytes: u64 = stats.levels.iter().map(|level| level.bytes).sum();
    assert!(stats.runs > 1 && stats.levels[0].bytes == bytes, "{stats:?}");
    assert!((bytes.div_ceil(stats.runs)..bytes).contains(&stats.largest_level_bytes), "{stats:?}");
    fill(&env, &shard, 600, 1);
    let stats = shard.stats();
    let largest = stats.levels[1..].iter().map(|level| level.bytes).max();
    assert_eq!(Some(stats.largest_level_bytes), largest);
}

#[test]
fn a_batch_is_one_and_its_last_operation_on_a_key_wins() {
    let env = TestEnv::new(9);
    let shard = open(&env);
    let element = |user: &'static str, value: Option<&'static [u8]>| BatchOperation {
        key: Key::new(NamespaceId(0), user.as_bytes(), PARTITIONS),
        value,
        lifetime: Lifetime::Forever,
    };
    let batch = |operations: &[BatchOperation<'_>], options: WriteOptions| {
        let (teller, answer) = answer();
        shard.write_batch(operations, options, teller);
        env.block_on(answer)
    };
    let operations =
        [element("a", Some(b"1")), element("b", Some(b"2")), element("a", None), element("b", Some(b"3"))];
    let written = batch(&operations, WriteOptions::default()).unwrap();
    assert_eq!((written.effect, written.superseded.len()), (Effect::Applied, 0));
    assert_eq!(get(&env, &shard, "a").unwrap(), None);
    assert_eq!(get(&env, &shard, "b").unwrap().as_deref(), Some(&b"3"[..]));

    // A late batch is superseded key by key, and says which.
    env.block_on(shard.flush()).unwrap();
    let late = Stamp { time: HybridTime(written.stamp.time.0 - 1), origin: Origin(Origin::CLIENT_BIT) };
    let options = WriteOptions { stamp: Some(late), ..WriteOptions::default() };
    let operations = [element("c", Some(b"4")), element("b", Some(b"5")), element("a", Some(b"6"))];
    let written = batch(&operations, options).unwrap();
    assert_eq!((written.effect, written.superseded), (Effect::Applied, vec![1, 2]));
    assert_eq!(get(&env, &shard, "a").unwrap(), None);
    assert_eq!(get(&env, &shard, "b").unwrap().as_deref(), Some(&b"3"[..]));
    assert_eq!(get(&env, &shard, "c").unwrap().as_deref(), Some(&b"4"[..]));
}

#[test]
fn conditional_writes_run_on_the_pending_version() {
    let env = TestEnv::new(10);
    let shard = open(&env);
    let options = WriteOptions::default();
    // None of these has been committed when the next is decided.
    let answers: Vec<Answer> =
        (0..50).map(|_| start(&shard, "n", Operation::Update(Update::Add(1)), options)).collect();
    let create = Operation::PutIf { condition: Condition::Absent, value: b"x", lifetime: Lifetime::Forever };
    let refused = start(&shard, "n", create, options);
    for (number, answer) in answers.into_iter().enumerate() {
        assert_eq!(env.block_on(answer).unwrap().number, number as i64 + 1);
    }
    assert_eq!(env.block_on(refused).unwrap().effect, Effect::ConditionFailed);
    assert_eq!(get(&env, &shard, "n").unwrap().as_deref(), Some(&b"50"[..]));
}

#[test]
fn a_buffered_write_is_visible_before_it_is_durable() {
    let env = TestEnv::new(11);
    let shard = open(&env);
    env.settle();
    let before = env.count(Op::Write);
    let options = WriteOptions { durability: Durability::Buffered, ..WriteOptions::default() };
    let answer = start(&shard, "key", put(b"value"), options);
    env.block_on(answer).unwrap();
    assert_eq!(get(&env, &shard, "key").unwrap().as_deref(), Some(&b"value"[..]));
    assert!(env.count(Op::Write) <= before + 1, "it waited for the log");
}

#[test]
fn background_work_is_cut_into_bounded_steps() {
    let env = TestEnv::new(12);
    let options = Options { step_records_max: 16, step_bytes_max: 8 << 10, ..small() };
    let shard = open_with(&env, options).unwrap();
    for round in 0..4 {
        fill(&env, &shard, 600, round);
    }
    let counters = shard.stats().counters;
    assert!(counters.flushes > 4 && counters.compactions > 4);
    assert!(counters.step_records_max <= 16, "{} records in one step", counters.step_records_max);
    // A step ends with the record that crosses the bound.
    assert!(counters.step_bytes_max <= (8 << 10) + 600, "{} bytes in one step", counters.step_bytes_max);
    assert!(counters.steps * 16 >= 4 * 600, "steps were not counted");
    let filter_keys = 1..=PART_RECORDS_MAX as u64;
    assert!(filter_keys.contains(&counters.filter_keys_max), "{} keys", counters.filter_keys_max);
    // Every memtable that was written out is freed, and that off the core.
    env.settle();
    let counters = shard.stats().counters;
    assert_eq!(counters.memtables_freed, counters.flushes);
}

#[test]
fn a_hit_reads_one_block_and_a_miss_none() {
    let env = TestEnv::new(13);
    // No cache, so that every block looked into is read.
    let options = Options { block_cache_bytes: 0, ..small() };
    let shard = open_with(&env, options).unwrap();
    let count = 3_000;
    for round in 0..3 {
        fill(&env, &shard, count, round);
    }
    let before = shard.stats().counters;
    for number in 0..count {
        assert_eq!(get(&env, &shard, &format!("fill-{number:06}")).unwrap(), Some(vec![2; 560]));
    }
    let hits = shard.stats().counters;
    for number in 0..count {
        assert_eq!(get(&env, &shard, &format!("miss-{number:06}")).unwrap(), None);
    }
    let misses = shard.stats().counters;
    let per_hit = (hits.blocks_read - before.blocks_read) as f64 / f64::from(count);
    let per_miss = (misses.blocks_read - hits.blocks_read) as f64 / f64::from(count);
    assert!(per_hit <= 1.01, "{per_hit} blocks read per hit");
    assert!(per_miss <= 0.01, "{per_miss} blocks read per miss");
}

/// Reads all that [`fill`] wrote in rounds up to `round`, and returns how many blocks that read.
fn read_back(env: &TestEnv, shard: &TestShard, count: u32, round: u8) -> u64 {
    let before = shard.stats().counters;
    for number in 0..count {
        assert_eq!(get(env, shard, &format!("fill-{number:06}")).unwrap(), Some(vec![round; 560]));
    }
    let after = shard.stats().counters;
    assert!(after.blocks_searched - before.blocks_searched > u64::from(count) / 2, "tables answered");
    after.blocks_read - before.blocks_read
}

#[test]
fn what_was_in_memory_stays_there_when_tables_are_written() {
    let env = TestEnv::new(13);
    let options = Options { block_cache_bytes: 4 << 20, ..small() };
    let shard = open_with(&env, options.clone()).unwrap();
    let count = 300;
    fill(&env, &shard, count, 0);
    assert!(shard.stats().counters.flushes > 0, "it does not fit a memtable");
    assert_eq!(read_back(&env, &shard, count, 0), 0, "blocks were read after flushes");
    for round in 1..9 {
        fill(&env, &shard, count, round);
    }
    let compacted = shard.stats().counters;
    assert!(compacted.compactions > 0, "there were as many runs as call for it");
    assert_eq!(read_back(&env, &shard, count, 8), 0, "blocks were read after compaction");
    // What nobody has in memory is written without a copy there.
    env.block_on(shard.close()).unwrap();
    let shard = open_with(&env, options).unwrap();
    fill(&env, &shard, 0, 0);
    assert!(read_back(&env, &shard, count, 8) > 0, "a new cache is empty");
}

#[test]
fn a_flipped_byte_in_a_table_is_an_error_or_a_right_answer() {
    let env = TestEnv::new(14);
    let options = Options { block_cache_bytes: 0, ..small() };
    let shard = open_with(&env, options.clone()).unwrap();
    fill(&env, &shard, 60, 9);
    env.block_on(shard.close()).unwrap();
    let dir = PathBuf::from("shard/table");
    let mut detected = 0;
    for name in env.names(&dir) {
        let path = dir.join(&name);
        let bytes = env.content(&path).len() as u64;
        for offset in (0..bytes).step_by(97) {
            let env = env.fork();
            env.flip(&path, offset, 0x10);
            let Ok(shard) = open_with(&env, options.clone()) else {
                detected += 1;
                continue;
            };
            for number in 0..60 {
                match get(&env, &shard, &format!("fill-{number:06}")) {
                    Ok(found) => assert_eq!(found, Some(vec![9; 560]), "byte {offset} of {name}"),
                    Err(Error::Damaged(corruption)) => {
                        assert!(corruption.file.ends_with(&name), "{corruption}");
                        detected += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    assert!(detected > 100, "only {detected} flips were noticed");
}

#[test]
fn limits_are_typed_errors() {
    let env = TestEnv::new(15);
    let shard = open(&env);
    let too_large = |result: Result<Written>, subject: &str| {
        assert!(matches!(result, Err(Error::TooLarge { what, .. }) if what == subject), "{subject}");
    };
    too_large(write(&env, &shard, "", put(b"")), "key");
    too_large(write(&env, &shard, &"k".repeat(4097), put(b"")), "key");
    too_large(write(&env, &shard, "k", put(&vec![0; (16 << 10) + 1])), "value");
    too_large(
        write(&env, &shard, "k", Operation::Update(Update::SetRange { offset: u32::MAX, bytes: b"x" })),
        "value",
    );
    let past =
        WriteOptions { deadline: Some(pinion_env::Monotonic::from_nanos(0)), ..WriteOptions::default() };
    assert!(matches!(write_with(&env, &shard, "k", put(b""), past), Err(Error::Deadline)));
    env.block_on(shard.close()).unwrap();
    assert!(matches!(write(&env, &shard, "k", put(b"")), Err(Error::ShuttingDown)));
    let bad = Options { log_segment_bytes: 64 << 10, ..small() };
    assert!(matches!(open_with(&env, bad), Err(Error::BadOptions(_))));
}

#[test]
fn a_page_shows_one_moment() {
    struct Keys(Vec<String>);
    impl ScanSink for Keys {
        fn push(&mut self, user_key: &[u8], _: RecordView<'_>) -> bool {
            self.0.push(String::from_utf8_lossy(user_key).into_owned());
            true
        }
    }
    let env = TestEnv::new(16);
    let options = Options { step_records_max: 1, ..small() };
    let shard = open_with(&env, options).unwrap();
    for number in 0..40 {
        write(&env, &shard, &format!("{{t}}{number:02}"), put(b"old")).unwrap();
    }
    let partition = key("{t}").partition;
    let range = ScanRange {
        namespace: NamespaceId(0),
        kind: ScanKind::Placed { first: partition, last: Partition(partition.0) },
        start: Vec::new(),
        end: None,
        resume: None,
        reverse: false,
        records_max: 1_000,
    };
    let mut page = Keys(Vec::new());
    // The scan yields after every record; writes are published meanwhile.
    let writes: Vec<Answer> = (0..40)
        .map(|number| start(&shard, &format!("{{t}}{number:02}-new"), put(b"new"), WriteOptions::default()))
        .collect();
    let resume = env.block_on(shard.scan(&range, &mut page)).unwrap();
    assert_eq!(resume, None);
    assert_eq!(page.0.len(), 40, "writes that were published meanwhile are seen");
    for write in writes {
        env.block_on(write).unwrap();
    }
}
