//! Rare interleavings, each of which once lost, revived or stalled something: writes that overtake
//! a lookup, retries of what is not durable yet, memtables cut elsewhere at recovery, full disks at
//! awkward moments, logs that only grow.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use super::*;
use crate::shard::commit::PUBLISH_ENTRIES_MAX;

fn client_stamp(time: HybridTime) -> WriteOptions {
    let stamp = Stamp { time, origin: Origin(Origin::CLIENT_BIT | 1) };
    WriteOptions { stamp: Some(stamp), ..WriteOptions::default() }
}

/// Whether an answer is there without anything running.
fn is_answered(answer: &mut Answer) -> bool {
    Pin::new(answer).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

fn start_batch(shard: &TestShard, operations: &[(&str, &[u8])], options: WriteOptions) -> Answer {
    let operations: Vec<BatchOperation<'_>> = operations
        .iter()
        .map(|(user, value)| BatchOperation {
            key: key(user),
            value: Some(value),
            lifetime: Lifetime::Forever,
        })
        .collect();
    let (teller, answer) = answer();
    shard.write_batch(&operations, options, teller);
    answer
}

/// Every lookup in a table reads the device.
fn uncached() -> Options {
    Options { block_cache_bytes: 0, ..small() }
}

#[test]
fn an_update_that_had_to_read_is_newer_than_what_overtook_it() {
    let env = TestEnv::new(30);
    let shard = open_with(&env, uncached()).unwrap();
    write(&env, &shard, "n", put(b"5")).unwrap();
    env.block_on(shard.flush()).unwrap();
    let add = start(&shard, "n", Operation::Update(Update::Add(1)), WriteOptions::default());
    let put = start(&shard, "n", put(b"10"), WriteOptions::default());
    env.block_on(put).unwrap();
    let added = env.block_on(add).unwrap();
    assert_eq!((added.effect, added.number), (Effect::Applied, 11));
    assert_eq!(get(&env, &shard, "n").unwrap().as_deref(), Some(&b"11"[..]));
}

#[test]
fn a_batch_that_had_to_read_does_not_come_to_stand_above_a_newer_write() {
    let env = TestEnv::new(31);
    let shard = open_with(&env, uncached()).unwrap();
    let early = HybridTime::from_millis(shard.clock_ms());
    write(&env, &shard, "read", put(b"old")).unwrap();
    env.block_on(shard.flush()).unwrap();
    let late = client_stamp(early);
    let batch = start_batch(&shard, &[("free", b"batch"), ("read", b"batch")], late);
    // It has found "free" nowhere and reads the block of "read".
    env.block_on(env.yield_now());
    let newer = start(&shard, "free", put(b"newer"), WriteOptions::default());
    shard.inner.freeze();
    assert_eq!(env.block_on(batch).unwrap().superseded, vec![0, 1]);
    env.block_on(newer).unwrap();
    assert_eq!(get(&env, &shard, "free").unwrap().as_deref(), Some(&b"newer"[..]));
}

#[test]
fn a_retried_batch_is_the_same_batch() {
    let env = TestEnv::new(32);
    let shard = open(&env);
    let options = client_stamp(HybridTime::from_millis(shard.clock_ms()));
    let operations: [(&str, &[u8]); 2] = [("a", b"1"), ("b", b"2")];
    for _ in 0..2 {
        let written = env.block_on(start_batch(&shard, &operations, options)).unwrap();
        assert_eq!((written.effect, written.superseded), (Effect::Applied, vec![]));
        env.block_on(shard.flush()).unwrap();
    }
}

#[test]
fn what_is_answered_by_a_pending_version_waits_for_the_log() {
    let env = TestEnv::new(33);
    let shard = open(&env);
    env.settle();
    let options = client_stamp(HybridTime::from_millis(shard.clock_ms()));
    let create = Operation::PutIf { condition: Condition::Absent, value: b"x", lifetime: Lifetime::Forever };
    env.fail(Op::Write, "wal", 0, 1, ErrorKind::Other);
    let first = start(&shard, "key", put(b"value"), options);
    let first_batch = start_batch(&shard, &[("batch", b"value")], options);
    shard.inner.freeze();
    let mut waiting = [
        start(&shard, "key", put(b"value"), options),
        start_batch(&shard, &[("batch", b"value")], options),
        start(&shard, "key", create, WriteOptions::default()),
    ];
    for answer in &mut waiting {
        assert!(!is_answered(answer), "answered before the log has it");
    }
    for answer in [first, first_batch].into_iter().chain(waiting) {
        let result = env.block_on(answer);
        assert!(matches!(result, Err(Error::StorageFailed(_))), "{result:?}");
    }
    env.heal();
    env.crash();
    let shard = open(&env);
    assert_eq!(get(&env, &shard, "key").unwrap(), None);

    // The same on a device that is well.
    let first = start(&shard, "key", put(b"value"), options);
    shard.inner.freeze();
    let retried = start(&shard, "key", put(b"value"), options);
    let failed = start(&shard, "key", create, WriteOptions::default());
    for (answer, effect) in
        [(first, Effect::Applied), (retried, Effect::Applied), (failed, Effect::ConditionFailed)]
    {
        assert_eq!(env.block_on(answer).unwrap().effect, effect);
    }
}

#[test]
fn a_retry_is_not_answered_before_readers_see_what_it_repeats() {
    let env = TestEnv::new(36);
    let shard = open(&env);
    env.settle();
    let options = client_stamp(HybridTime::from_millis(shard.clock_ms()));
    let before = (0..PUBLISH_ENTRIES_MAX)
        .map(|number| start(&shard, &format!("before-{number}"), put(b"value"), WriteOptions::default()));
    let mut before: Vec<Answer> = before.collect();
    let first = start(&shard, "key", put(b"value"), options);
    // The log has all of them in one block, and as many are published as go in a row.
    env.block_on(before.swap_remove(0)).unwrap();
    let is_shown = || shard.get_now(&key("key"), |record| record.is_some()).unwrap();
    assert!(shard.inner.durable.get() >= shard.inner.appended.get());
    assert!(!is_shown());
    shard.inner.freeze();
    let create = Operation::PutIf { condition: Condition::Absent, value: b"x", lifetime: Lifetime::Forever };
    let mut waiting = [
        start(&shard, "key", put(b"value"), options),
        start_batch(&shard, &[("key", b"value")], options),
        start(&shard, "key", create, WriteOptions::default()),
    ];
    for answer in &mut waiting {
        assert!(!is_answered(answer), "answered before readers see the write");
    }
    for answer in [first].into_iter().chain(waiting) {
        env.block_on(answer).unwrap();
        assert!(is_shown());
    }
}

#[test]
fn memtables_cut_elsewhere_at_recovery_revive_nothing() {
    let env = TestEnv::new(34);
    let shard = open(&env);
    let base = shard.hybrid_time().0 + 1;
    let newer = client_stamp(HybridTime(base + 1));
    let older = client_stamp(HybridTime(base));
    write_with(&env, &shard, "key", put(b"newer"), newer).unwrap();
    for number in 0..40 {
        write(&env, &shard, &format!("fill-{number}"), put(&[1; 400])).unwrap();
    }
    let late = write_with(&env, &shard, "key", put(b"older"), older).unwrap();
    assert_eq!(late.effect, Effect::Superseded);
    assert_eq!(shard.stats().counters.flushes, 0, "all of it lies in one memtable");
    env.crash();
    let options = Options { memtable_bytes: 16 << 10, ..small() };
    let shard = open_with(&env, options).unwrap();
    assert!(shard.stats().counters.flushes > 0, "recovery has cut elsewhere");
    assert_eq!(get(&env, &shard, "key").unwrap().as_deref(), Some(&b"newer"[..]));
    env.block_on(shard.settle()).unwrap();
    assert_eq!(get(&env, &shard, "key").unwrap().as_deref(), Some(&b"newer"[..]));
}

#[test]
fn a_shard_opened_on_a_full_disk_takes_writes_when_space_returns() {
    let env = TestEnv::new(35);
    let options = Options { disk_reserve_bytes: 1 << 20, ..small() };
    let shard = open_with(&env, options.clone()).unwrap();
    write(&env, &shard, "before", put(b"kept")).unwrap();
    env.block_on(shard.close()).unwrap();
    env.set_capacity(1 << 20);
    let shard = open_with(&env, options).unwrap();
    assert!(matches!(write(&env, &shard, "full", put(b"")), Err(Error::DiskFull)));
    assert_eq!(get(&env, &shard, "before").unwrap().as_deref(), Some(&b"kept"[..]));
    env.set_capacity(1 << 30);
    env.block_on(env.sleep(Duration::from_secs(10)));
    write(&env, &shard, "after", put(b"")).unwrap();
}

#[test]
fn a_shard_opens_on_a_full_disk_though_recovery_wants_to_flush() {
    let env = TestEnv::new(40);
    let shard = open(&env);
    let base = shard.hybrid_time().0 + 1;
    let of = |number: u64| format!("fill-{number:03}");
    write_with(&env, &shard, "key", put(b"newer"), client_stamp(HybridTime(base + 1))).unwrap();
    for number in 0..80 {
        write(&env, &shard, &of(number), put(&[1; 400])).unwrap();
    }
    write_with(&env, &shard, "key", put(b"older"), client_stamp(HybridTime(base))).unwrap();
    assert_eq!(shard.stats().counters.flushes, 0, "all of it lies in one memtable");
    env.crash();
    env.set_capacity(1);
    // Recovery cuts memtables four times as small and can write none of them.
    let options = Options { memtable_bytes: 16 << 10, disk_reserve_bytes: 1, ..small() };
    let check = |shard: &TestShard| {
        assert_eq!(get(&env, shard, "key").unwrap().as_deref(), Some(&b"newer"[..]));
        for number in 0..80 {
            assert_eq!(get(&env, shard, &of(number)).unwrap().as_deref(), Some(&[1; 400][..]), "{number}");
        }
    };
    let shard = open_with(&env, options.clone()).unwrap();
    assert_eq!(shard.stats().counters.flushes, 0);
    check(&shard);
    assert!(matches!(write(&env, &shard, "full", put(b"")), Err(Error::DiskFull)));
    env.block_on(shard.close()).unwrap();
    env.crash();
    let shard = open_with(&env, options.clone()).unwrap();
    env.set_capacity(1 << 30);
    env.block_on(env.sleep(Duration::from_secs(10)));
    write(&env, &shard, "after", put(b"")).unwrap();
    env.block_on(shard.settle()).unwrap();
    assert!(shard.stats().counters.flushes > 1, "recovery has cut elsewhere");
    check(&shard);
    env.crash();
    check(&open_with(&env, options).unwrap());
}

#[test]
fn a_full_disk_does_not_keep_a_shard_from_closing() {
    let env = TestEnv::new(36);
    // The memtable cannot be written out.
    let shard = open(&env);
    write(&env, &shard, "key", put(b"kept")).unwrap();
    env.set_capacity(1);
    env.block_on(shard.close()).unwrap();
    env.crash();
    // There is not even a segment to write to.
    let shard = open_with(&env, Options { disk_reserve_bytes: 1, ..small() }).unwrap();
    assert_eq!(get(&env, &shard, "key").unwrap().as_deref(), Some(&b"kept"[..]));
    env.block_on(shard.close()).unwrap();
    env.crash();
    env.set_capacity(1 << 30);
    let shard = open(&env);
    assert_eq!(get(&env, &shard, "key").unwrap().as_deref(), Some(&b"kept"[..]));
}

#[test]
fn tables_that_the_manifest_could_not_take_leave_no_files() {
    let env = TestEnv::new(37);
    let shard = open(&env);
    env.block_on(shard.close()).unwrap();
    // The first edit after opening makes a new manifest.
    let shard = open(&env);
    write(&env, &shard, "key", put(b"kept")).unwrap();
    env.fail(Op::Open, "MANIFEST", 0, 5, ErrorKind::StorageFull);
    env.block_on(shard.flush()).unwrap();
    assert!(shard.stats().counters.disk_full >= 5);
    assert_eq!(env.names("shard/table").len(), 1, "{:?}", env.names("shard/table"));
    assert_eq!(get(&env, &shard, "key").unwrap().as_deref(), Some(&b"kept"[..]));
}

#[test]
fn the_log_of_a_shard_that_is_hardly_written_stays_bounded() {
    let env = TestEnv::new(38);
    let options = Options { log_segment_bytes: 128 << 10, batch_bytes_max: 16 << 10, ..small() };
    let check_files = || {
        let files = env.names("shard/wal").len();
        assert!(files <= 12, "{files} files");
    };
    for round in 0..20 {
        let shard = open_with(&env, options.clone()).unwrap();
        write(&env, &shard, &format!("key-{round}"), put(b"value")).unwrap();
        env.block_on(env.sleep(Duration::from_secs(2)));
        env.crash();
        check_files();
    }
    let shard = open_with(&env, options).unwrap();
    for round in 0..20 {
        assert!(get(&env, &shard, &format!("key-{round}")).unwrap().is_some());
    }
    // Readers that meet expired records make the log carry the clock, and nothing else.
    let of = |number: u64| format!("ttl-{number}");
    for number in 0..300 {
        let lifetime = Lifetime::Millis(10_000 + number * 300);
        write(&env, &shard, &of(number), Operation::Put { value: b"", lifetime }).unwrap();
    }
    env.advance(Duration::from_secs(10));
    for number in 0..300 {
        env.block_on(env.sleep(Duration::from_millis(300)));
        assert_eq!(get(&env, &shard, &of(number)).unwrap(), None);
        check_files();
    }
}

#[test]
fn what_was_dropped_by_a_clock_stays_dropped_when_a_crash_takes_the_clock_back() {
    let env = TestEnv::new(41);
    let shard = open(&env);
    let wall_ms = shard.clock_ms();
    let first = client_stamp(HybridTime::from_millis(wall_ms));
    write_with(&env, &shard, "key", put(b"old"), first).unwrap();
    write(&env, &shard, "key", Operation::Delete).unwrap();
    // The wall clock jumps; by it the tombstone may go, and nothing is written any more.
    env.set_wall_ms(wall_ms + 300_000);
    env.block_on(shard.settle()).unwrap();
    let tombstones: u64 = shard.stats().levels.iter().map(|level| level.tombstones).sum();
    assert_eq!(tombstones, 0, "the tombstone is gone");
    env.kill();
    env.crash();
    drop(shard);
    env.set_wall_ms(wall_ms + 1_000);
    let shard = open(&env);
    let late = write_with(&env, &shard, "key", put(b"old"), first);
    assert!(matches!(late, Err(Error::StampTooOld { .. })), "{late:?}");
    assert_eq!(get(&env, &shard, "key").unwrap(), None);
}

/// Found by the server histories (seed 13807): an update was told that its record had expired, and then
/// a crash and a clock set back showed the record again.
#[test]
fn an_expiry_that_a_condition_was_told_of_is_final() {
    let lifetime = Lifetime::Millis(1_000);
    let update = Operation::Update(Update::SetExpiry(Lifetime::Millis(500)));
    let present =
        Operation::PutIf { condition: Condition::Present, value: b"x", lifetime: Lifetime::Forever };
    for (operation, in_tables) in [(update, false), (update, true), (present, false)] {
        let env = TestEnv::new(44);
        let shard = open(&env);
        write(&env, &shard, "key", Operation::Put { value: b"short", lifetime }).unwrap();
        if in_tables {
            env.block_on(shard.flush()).unwrap();
        }
        let wall_ms = shard.clock_ms();
        env.set_wall_ms(wall_ms + 10_000);
        let told = write(&env, &shard, "key", operation).unwrap();
        assert_eq!(told.effect, Effect::ConditionFailed);
        env.kill();
        env.crash();
        drop(shard);
        env.set_wall_ms(wall_ms + 100);
        let shard = open(&env);
        assert_eq!(get(&env, &shard, "key").unwrap(), None, "it came back");
    }
}

/// Found by the storage histories: a buffered write was answered, a crash took it, and the clock,
/// which the log had not been told of for a while, gave its stamp to another write.
#[test]
fn a_stamp_that_was_told_is_never_given_again() {
    let present = Operation::PutIf { condition: Condition::Absent, value: b"x", lifetime: Lifetime::Forever };
    for (seed, finds_pending) in [(42, false), (43, true)] {
        let env = TestEnv::new(seed);
        let shard = open(&env);
        env.settle();
        env.advance(Duration::from_secs(1));
        let wall_ms = env.wall_ms();
        let buffered = WriteOptions { durability: Durability::Buffered, ..WriteOptions::default() };
        let pending = finds_pending.then(|| start(&shard, "lost", put(b"value"), WriteOptions::default()));
        let operation = if finds_pending { present } else { put(b"value") };
        let mut answer = start(&shard, "lost", operation, buffered);
        // Publication has its turn before the log has.
        let mut context = Context::from_waker(Waker::noop());
        assert!(pin!(shard.inner.publish_durable()).poll(&mut context).is_pending());
        let told = match Pin::new(&mut answer).poll(&mut context) {
            Poll::Ready(written) => Some(written.unwrap().stamp),
            Poll::Pending => None,
        };
        drop((shard, pending));
        env.crash();
        env.set_wall_ms(wall_ms - 500);
        let shard = open(&env);
        assert_eq!(get(&env, &shard, "lost").unwrap(), None);
        let next = write(&env, &shard, "next", put(b"value")).unwrap().stamp;
        assert!(told.is_none_or(|told| told < next), "{next:?} is not after {told:?}");
    }
}

#[test]
fn a_failed_sync_of_the_table_directory_stops_the_shard_in_flush_and_compaction() {
    // The first are of flushes, then they alternate with compactions.
    for skip in 0..16 {
        let env = TestEnv::new(40);
        let shard = open(&env);
        env.fail(Op::SyncDir, "shard/table", skip, 1, ErrorKind::Other);
        let failed = (0..4_000).find_map(|number| {
            write(&env, &shard, &format!("key-{:03}", number % 300), put(&[1; 560])).err()
        });
        assert!(matches!(failed, Some(Error::StorageFailed(_))), "{skip}: {failed:?}");
        assert!(shard.stats().failed.is_some(), "{skip}");
        env.heal();
        env.crash();
        let shard = open(&env);
        assert_eq!(get(&env, &shard, "key-000").unwrap().as_deref(), Some(&[1; 560][..]), "{skip}");
    }
}

#[test]
fn closing_tells_of_a_log_that_has_failed_since_the_last_commit() {
    let env = TestEnv::new(41);
    let shard = open(&env);
    env.settle();
    env.fail(Op::Sync, "wal", 0, u64::MAX, ErrorKind::Other);
    // Half-way through a segment the next one is made, in vain.
    let failed = (0..100).find_map(|_| write(&env, &shard, "key", put(&[1; 10 << 10])).err());
    assert!(matches!(failed, Some(Error::StorageFailed(_))), "{failed:?}");
    let closed = env.block_on(shard.close());
    assert!(matches!(closed, Err(Error::StorageFailed(_))), "{closed:?}");
}

#[test]
fn a_job_under_way_when_the_shard_fails_installs_nothing() {
    let env = TestEnv::new(42);
    let shard = open(&env);
    write(&env, &shard, "key", put(b"value")).unwrap();
    env.block_on(shard.flush()).unwrap();
    let tables: Vec<_> =
        shard.inner.version.borrow().tables().map(|(_, table)| std::rc::Rc::clone(table)).collect();
    env.block_on(shard.inner.install(&tables, &[])).unwrap();
    // Another job's sync of the directory has failed: this one's would succeed without its names.
    shard.inner.fail(&Error::StorageFailed("sync of a directory".into()));
    let installed = env.block_on(shard.inner.install(&tables, &[]));
    assert!(matches!(installed, Err(Error::StorageFailed(_))), "{installed:?}");
}

#[test]
fn a_retry_of_a_put_that_has_expired_is_answered_as_the_first_time() {
    let env = TestEnv::new(1);
    let shard = open(&env);
    let stamp =
        Stamp { time: HybridTime::from_millis(shard.clock_ms()), origin: Origin(Origin::CLIENT_BIT | 1) };
    let options = WriteOptions { stamp: Some(stamp), ..WriteOptions::default() };
    let operation = Operation::Put { value: b"short", lifetime: Lifetime::Millis(1_000) };
    let first = write_with(&env, &shard, "key", operation, options).unwrap();
    assert_eq!(first.expiry_ms, stamp.millis() + 1_000);
    // It expires, and compaction makes it a tombstone of the same stamp.
    env.advance(Duration::from_secs(5));
    fill(&env, &shard, 400, 1);
    let tombstones: u64 = shard.stats().levels.iter().map(|level| level.tombstones).sum();
    assert_eq!(tombstones, 1, "the expired record is a tombstone");
    let again = write_with(&env, &shard, "key", operation, options).unwrap();
    assert_eq!(again, first);
    assert_eq!(get(&env, &shard, "key").unwrap(), None);
}
