//! Segments: made, recycled, removed, and none to be had.

use std::io;
use std::path::Path;
use std::time::Duration;

use pinion_env::Env;

use super::super::files::made_spare_name;
use super::super::{AppendError, Log, LogOptions, LogPosition, LogReplay, ReplayMode};
use super::{DIR, append, commit, identity, options, replay, replay_as, world};
use crate::error::{Error, Result};
use crate::testing::{Op, TestEnv};

const SEGMENT: u64 = LogOptions::SEGMENT_BYTES_MIN as u64;

/// Commits records of 9 KB until appends are refused; returns how many.
fn fill(env: &TestEnv, log: &Log<TestEnv>, first: u64) -> u64 {
    for number in first..first + 1000 {
        match append(log, number, 9_000) {
            Ok(_) => env.block_on(log.commit()).map(|_| ()).unwrap(),
            Err(AppendError::DiskFull) => return number - first,
            Err(other) => panic!("{other}"),
        }
        env.settle();
    }
    panic!("the disk never filled up");
}

/// A world whose log holds 20 records and no spare, after a crash.
fn crashed() -> TestEnv {
    let env = world();
    let log = replay(&env).unwrap().log;
    commit(&env, &log, 0..20, 100);
    env.crash();
    env
}

async fn open_log(env: &TestEnv) -> Result<LogReplay<TestEnv>> {
    LogReplay::open(env, Path::new(DIR), identity(), options(), LogPosition::ZERO).await
}

#[test]
fn released_segments_are_used_again_and_surplus_removed() {
    let env = world();
    let log = replay(&env).unwrap().log;
    let mut last = LogPosition::ZERO;
    for number in 0..200 {
        last = commit(&env, &log, number..number + 1, 9_000);
        if number % 60 == 59 {
            log.release(last);
        }
        env.settle();
    }
    log.release(last);
    env.settle();
    let stats = log.stats();
    assert!(stats.segments_recycled > 5, "{stats:?}");
    assert!(stats.segments_removed > 5, "{stats:?}");
    // The active one, one made ahead at most, and the spares.
    assert!(env.names("/shard/wal").len() <= 2 + options().spare_segments_max as usize);
    assert_eq!((log.segments(), stats.commits, stats.records), (1, 200, 200));
    assert!(stats.written_bytes > stats.logged_bytes && stats.logged_bytes > 200 * 9_000);
    env.crash();
    let replayed = replay_as(&env, options(), last, ReplayMode::Strict).unwrap();
    assert!(replayed.numbers.is_empty());
    assert!(replayed.log.start() > last);
}

#[test]
fn a_full_disk_refuses_appends_until_space_returns() {
    let env = world();
    let log = replay(&env).unwrap().log;
    env.set_capacity(4 * SEGMENT + 1000);
    let written = fill(&env, &log, 0);
    assert!(written >= 18 && log.is_disk_full());
    assert!(log.stats().space_waits > 0);
    // The user makes room.
    env.set_capacity(100 * SEGMENT);
    env.block_on(env.sleep(Duration::from_secs(3)));
    assert!(!log.is_disk_full());
    commit(&env, &log, written..written + 20, 1_000);
    env.crash();
    assert_eq!(replay(&env).unwrap().numbers.len() as u64, written + 20);
}

#[test]
fn released_segments_end_a_full_disk_without_new_space() {
    let env = world();
    let log = replay(&env).unwrap().log;
    env.set_capacity(4 * SEGMENT + 1000);
    let written = fill(&env, &log, 0);
    log.release(log.synced_through());
    env.block_on(env.sleep(Duration::from_secs(3)));
    assert!(!log.is_disk_full());
    commit(&env, &log, written..written + 5, 9_000);
}

#[test]
fn opening_on_a_full_disk_works_and_refuses_appends() {
    let env = world();
    let log = replay(&env).unwrap().log;
    commit(&env, &log, 0..3, 100);
    drop(log);
    env.crash();
    env.set_capacity(1);
    let tight = LogOptions { spare_segments_max: 0, ..options() };
    let replayed = replay_as(&env, tight, LogPosition::ZERO, ReplayMode::Strict).unwrap();
    assert_eq!(replayed.numbers, [0, 1, 2]);
    assert_eq!(append(&replayed.log, 3, 10), Err(AppendError::DiskFull));
    env.set_capacity(1 << 30);
    env.block_on(env.sleep(Duration::from_secs(3)));
    commit(&env, &replayed.log, 3..4, 10);
    env.crash();
    assert_eq!(replay(&env).unwrap().numbers, [0, 1, 2, 3]);
}

#[test]
fn the_reserve_is_left_free() {
    let env = world();
    env.set_capacity(20 * SEGMENT);
    let reserved = LogOptions { disk_reserve_bytes: 15 * SEGMENT, ..options() };
    let log = replay_as(&env, reserved, LogPosition::ZERO, ReplayMode::Strict).unwrap().log;
    fill(&env, &log, 0);
    let space = env.block_on(env.space(std::path::Path::new("/"))).unwrap();
    assert!(space.available_bytes >= 15 * SEGMENT);
}

#[test]
fn a_device_error_while_making_a_segment_stops_the_log() {
    let env = world();
    env.fail(Op::Sync, "segment.tmp", 0, 1, io::ErrorKind::Other);
    assert!(matches!(replay(&env).map(|_| ()), Err(Error::StorageFailed(_))));
    env.crash();
    let log = replay(&env).unwrap().log;
    env.fail(Op::Open, "segment.tmp", 0, 1, io::ErrorKind::Other);
    commit(&env, &log, 0..1, 40_000);
    env.settle();
    assert!(matches!(append(&log, 1, 10), Err(AppendError::Failed(_))));
}

#[test]
fn shutting_down_ends_a_commit_that_waits_for_space() {
    let env = world();
    let log = replay(&env).unwrap().log;
    env.set_capacity(1);
    append(&log, 0, 50_000).unwrap();
    env.block_on(log.commit()).unwrap();
    // Staged in the same turn, before the missing space was noticed.
    append(&log, 1, 50_000).unwrap();
    let log = std::rc::Rc::new(log);
    let stopper = log.clone();
    let env2 = env.clone();
    env.spawn(pinion_env::TaskClass::Foreground, async move {
        env2.sleep(Duration::from_millis(500)).await;
        stopper.shut_down();
    });
    assert!(matches!(env.block_on(log.commit()), Err(Error::ShuttingDown)));
    assert!(log.stats().segment_waits > 0);
}

#[test]
fn segments_of_another_size_are_replaced() {
    let env = world();
    let log = replay(&env).unwrap().log;
    commit(&env, &log, 0..3, 9_000);
    drop(log);
    env.crash();
    let larger = LogOptions { segment_bytes: 2 * LogOptions::SEGMENT_BYTES_MIN, ..options() };
    let replayed = replay_as(&env, larger.clone(), LogPosition::ZERO, ReplayMode::Strict).unwrap();
    let last = commit(&env, &replayed.log, 3..4, 100_000);
    replayed.log.release(last);
    env.settle();
    drop(replayed);
    env.crash();
    let replayed = replay_as(&env, larger, LogPosition::new(2, 4096), ReplayMode::Strict).unwrap();
    assert_eq!(replayed.numbers, [3]);
    for name in env.names("/shard/wal") {
        let bytes = env.content(std::path::Path::new("/shard/wal").join(&name)).len() as u64;
        assert_eq!(bytes, 2 * SEGMENT, "{name}");
    }
}

#[test]
fn the_segment_to_write_to_is_made_beside_the_replay() {
    let env = crashed();
    let before = env.names("/shard/wal");
    let mut replay_log = env.block_on(open_log(&env)).unwrap();
    let next_file = replay_log.next_segment_file();
    env.block_on(next_file.beside(async {
        while replay_log.next().await?.is_some() {}
        Ok(())
    }))
    .unwrap();
    let spares: Vec<String> =
        env.names("/shard/wal").into_iter().filter(|name| !before.contains(name)).collect();
    assert_eq!(spares, [made_spare_name()]);
    let log = env.block_on(replay_log.finish()).unwrap();
    assert_eq!((log.stats().segments_made, log.stats().segments_recycled), (1, 1));
    assert!(!env.names("/shard/wal").contains(&made_spare_name()));
}

#[test]
fn a_spare_is_not_joined_by_another_at_the_start() {
    let env = world();
    let log = replay(&env).unwrap().log;
    let last = commit(&env, &log, 0..20, 9_000);
    log.release(last);
    env.settle();
    env.crash();
    let made = env.count(Op::Write);
    let replayed = replay_as(&env, options(), last, ReplayMode::Strict).unwrap();
    assert_eq!(replayed.log.stats().segments_recycled, 1);
    assert_eq!(env.count(Op::Write), made, "no zeros are written");
}

#[test]
fn what_fails_beside_the_replay_is_told_but_for_a_full_disk() {
    for op in [Op::Write, Op::Sync, Op::Rename, Op::SyncDir] {
        let env = crashed();
        env.fail(op, "wal", 0, 1, io::ErrorKind::Other);
        let failed = replay(&env).map(|replayed| replayed.numbers);
        assert!(matches!(failed, Err(Error::StorageFailed(_))), "{op:?}: {failed:?}");
        env.heal();
        env.crash();
        env.fail(op, "wal", 0, 1, io::ErrorKind::StorageFull);
        assert_eq!(replay(&env).unwrap().numbers.len(), 20, "{op:?}");
    }
}

#[test]
fn a_replay_that_fails_stops_what_is_made_beside_it() {
    let env = crashed();
    let replay_log = env.block_on(open_log(&env)).unwrap();
    let failing = async { Err::<(), _>(Error::ShuttingDown) };
    let result = env.block_on(replay_log.next_segment_file().beside(failing));
    assert!(matches!(result, Err(Error::ShuttingDown)));
    let writes = env.count(Op::Write);
    env.settle();
    assert_eq!(env.count(Op::Write), writes, "nobody writes any more");
    assert_eq!(env.names("/shard/wal").iter().filter(|name| name.starts_with("spare")).count(), 0);
}
