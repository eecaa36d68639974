//! Appending, committing, rolling, failing.

use std::io;
use std::time::Duration;

use super::super::{AppendError, LogOp, LogOptions, LogPosition, ReplayMode};
use super::{append, commit, options, replay, replay_as, replayed_numbers, segment, stamp, world};
use crate::error::Error;
use crate::key::{NamespaceId, Partition};
use crate::record::RecordKind;
use crate::stamp::HybridTime;
use crate::testing::{Op, assert_golden};

const GOLDEN: &[u8] = include_bytes!("../../../golden/segment.bin");

#[test]
fn what_was_committed_is_replayed_with_its_positions() {
    let env = world();
    let log = replay(&env).unwrap().log;
    assert_eq!(log.position(), log.start());
    let mut positions = Vec::new();
    for number in 0..20 {
        positions.push(append(&log, number, 100).unwrap());
        if number % 3 == 2 {
            assert!(env.block_on(log.commit()).unwrap() >= positions[number as usize]);
        }
    }
    assert_eq!(log.position(), positions[19]);
    assert!(log.has_staged() && log.synced_through() < positions[19]);
    env.crash();
    let replayed = replay(&env).unwrap();
    assert_eq!(replayed.numbers, (0..18).collect::<Vec<_>>());
    assert_eq!(replayed.positions, positions[..18]);
    // From a release point on.
    let from = positions[10];
    let replayed = replay_as(&env, options(), from, ReplayMode::Strict).unwrap();
    assert_eq!(replayed.numbers, (11..18).collect::<Vec<_>>());
}

#[test]
fn a_commit_is_timed_from_its_write_until_it_is_seen() {
    let env = world();
    let log = replay(&env).unwrap().log;
    env.block_on(log.commit()).unwrap();
    assert_eq!(log.commit_times().counted().count(), 0, "nothing was written");
    append(&log, 0, 10).unwrap();
    env.block_on(async {
        let mut commit = Box::pin(log.commit());
        let mut polls = 0;
        std::future::poll_fn(|context| {
            let polled = commit.as_mut().poll(context);
            if polls == 0 {
                assert!(polled.is_pending());
                env.advance(Duration::from_millis(30));
            }
            polls += 1;
            polled
        })
        .await
        .unwrap();
    });
    let times: Vec<_> = log.commit_times().counted().collect();
    let [(nanos, 1)] = times[..] else { panic!("{times:?}") };
    assert!((30_000_000..40_000_000).contains(&nanos), "{nanos}");
    // What failed says nothing about how long commits take.
    env.fail(Op::Write, "wal", 0, 1, io::ErrorKind::Other);
    append(&log, 1, 10).unwrap();
    env.block_on(log.commit()).unwrap_err();
    assert_eq!(log.commit_times().counted().count(), 1);
}

#[test]
fn appends_go_on_while_a_commit_is_in_flight() {
    let env = world();
    let log = replay(&env).unwrap().log;
    append(&log, 0, 10).unwrap();
    env.block_on(async {
        let mut commit = Box::pin(log.commit());
        // The first poll starts the write.
        let mut polls = 0;
        std::future::poll_fn(|context| {
            if polls == 0 {
                assert!(commit.as_mut().poll(context).is_pending());
                assert!(log.is_writing());
                append(&log, 1, 10).unwrap();
            }
            polls += 1;
            commit.as_mut().poll(context)
        })
        .await
        .unwrap();
        assert!(log.has_staged() && !log.is_writing());
        log.staged().await;
        log.commit().await.unwrap();
    });
    env.crash();
    assert_eq!(replayed_numbers(&env).unwrap(), [0, 1]);
}

#[test]
fn segments_roll_and_large_records_get_a_block_of_their_own() {
    let env = world();
    let log = replay(&env).unwrap().log;
    let sizes = [100, 40_000, 100, 20_000, 50_000, 10, 15_000, 16_000, 55_000];
    for (number, bytes) in sizes.iter().enumerate() {
        append(&log, number as u64, *bytes).unwrap();
    }
    while log.has_staged() {
        env.block_on(log.commit()).unwrap();
    }
    assert!(log.segments() > 3);
    assert_eq!(log.stats().segments_made, log.segments() as u64);
    env.crash();
    assert_eq!(replayed_numbers(&env).unwrap(), (0..sizes.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_record_larger_than_a_segment_is_refused_and_the_largest_fits() {
    let env = world();
    let log = replay(&env).unwrap().log;
    let AppendError::TooLarge { bytes, max } = append(&log, 0, 70_000).unwrap_err() else { panic!() };
    let largest = 70_000 - (bytes - max) as usize;
    assert!(matches!(append(&log, 0, largest + 1), Err(AppendError::TooLarge { .. })));
    commit(&env, &log, 0..1, 10);
    commit(&env, &log, 1..2, largest);
    commit(&env, &log, 2..3, largest);
    env.crash();
    assert_eq!(replayed_numbers(&env).unwrap(), [0, 1, 2]);
}

#[test]
fn the_queue_is_bounded_and_one_record_always_fits() {
    let env = world();
    let small = LogOptions { queue_bytes_max: 1000, ..options() };
    let log = replay_as(&env, small, LogPosition::ZERO, ReplayMode::Strict).unwrap().log;
    append(&log, 0, 5_000).unwrap();
    assert_eq!(append(&log, 1, 1), Err(AppendError::Full));
    assert!(log.stats().queued_bytes > 5_000);
    env.block_on(log.commit()).unwrap();
    assert_eq!(log.stats().queued_bytes, 0);
    append(&log, 1, 1).unwrap();
}

#[test]
fn the_first_failed_write_is_final() {
    let env = world();
    let log = replay(&env).unwrap().log;
    commit(&env, &log, 0..1, 10);
    env.fail(Op::Write, "wal", 0, 1, io::ErrorKind::Other);
    append(&log, 1, 10).unwrap();
    let first = env.block_on(log.commit()).unwrap_err();
    assert!(matches!(first, Error::StorageFailed(_)));
    for _ in 0..2 {
        assert!(matches!(append(&log, 2, 10), Err(AppendError::Failed(_))));
        assert_eq!(env.block_on(log.commit()).unwrap_err().to_string(), first.to_string());
        assert!(env.block_on(log.commit_mark()).is_err());
    }
    env.block_on(log.staged());
    assert_eq!(log.failure().unwrap().to_string(), first.to_string());
    drop(log);
    env.crash();
    assert_eq!(replayed_numbers(&env).unwrap(), [0]);
}

#[test]
fn an_abandoned_commit_is_a_failure() {
    let env = world();
    let log = replay(&env).unwrap().log;
    append(&log, 0, 10).unwrap();
    env.block_on(async {
        let mut commit = Box::pin(log.commit());
        std::future::poll_fn(|context| {
            assert!(commit.as_mut().poll(context).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
    });
    assert!(matches!(append(&log, 1, 10), Err(AppendError::Failed(_))));
}

#[test]
fn marks_prove_the_last_commit_and_carry_the_clock() {
    let env = world();
    let log = replay(&env).unwrap().log;
    assert!(!log.needs_mark());
    commit(&env, &log, 0..1, 10);
    assert!(log.needs_mark());
    let ceiling = HybridTime::from_millis(77);
    log.set_clock_ceiling(ceiling);
    log.set_clock_ceiling(HybridTime::from_millis(5));
    assert_eq!(log.clock_ceiling_durable(), HybridTime::default());
    let before = log.stats().commits;
    env.block_on(log.commit_mark()).unwrap();
    assert_eq!((log.stats().commits - before, log.clock_ceiling_durable()), (1, ceiling));
    assert!(!log.needs_mark());
    // Nothing staged: a plain commit writes nothing.
    env.block_on(log.commit()).unwrap();
    assert_eq!(log.stats().commits - before, 1);
    env.crash();
    let replayed = replay(&env).unwrap();
    assert_eq!((replayed.numbers.as_slice(), replayed.clock_ceiling), (&[0][..], ceiling));
    assert!(replayed.log.needs_mark(), "what was replayed is proven by the first block of the new segment");
    assert_eq!(replayed.log.clock_ceiling(), ceiling);
}

#[test]
fn restarts_without_writes_use_the_same_files() {
    let env = world();
    let log = replay(&env).unwrap().log;
    commit(&env, &log, 0..2, 100);
    for _ in 0..5 {
        env.crash();
        assert_eq!(replayed_numbers(&env).unwrap(), [0, 1]);
    }
    assert_eq!(env.names("/shard/wal").len(), 2);
}

#[test]
fn a_device_with_larger_blocks_reads_and_continues_the_log() {
    let env = world();
    let log = replay(&env).unwrap().log;
    commit(&env, &log, 0..2, 100);
    commit(&env, &log, 2..3, 1_000);
    env.crash();
    env.set_block_bytes(4096);
    let log = replay(&env).unwrap().log;
    commit(&env, &log, 3..5, 100);
    commit(&env, &log, 5..6, 100);
    env.crash();
    env.set_block_bytes(512);
    assert_eq!(replayed_numbers(&env).unwrap(), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn the_format_is_frozen() {
    let env = world();
    let log = replay(&env).unwrap().log;
    let op = LogOp {
        kind: RecordKind::Value,
        partition: Partition(513),
        namespace: NamespaceId(3),
        key: b"key",
        expiry_ms: 1_800_000_000_123,
        value: b"value",
    };
    log.set_clock_ceiling(HybridTime::from_millis(1_800_000_000_000));
    log.append(stamp(1), &[op]).unwrap();
    env.block_on(log.commit()).unwrap();
    log.append(stamp(2), &[LogOp { kind: RecordKind::Tombstone, value: b"", expiry_ms: 0, ..op }, op])
        .unwrap();
    log.append(stamp(3), &[op]).unwrap();
    env.block_on(log.commit()).unwrap();
    let content = env.content(segment(1));
    assert_golden("segment.bin", &content[..5120], GOLDEN);
    assert!(content[5120..].iter().all(|byte| *byte == 0));
}
