//! Torn writes, flipped bytes, stale blocks, missing files.

use std::path::Path;

use super::super::format::BLOCKS_START;
use super::super::{LogOptions, LogPosition, ReplayMode};
use super::{append, commit, damage_of, options, replay, replay_as, replayed_numbers, segment, world};
use crate::error::Error;
use crate::testing::TestEnv;
use pinion_env::Env;

/// Starts of all block headers in a file's bytes.
fn blocks(content: &[u8]) -> Vec<usize> {
    (BLOCKS_START as usize..content.len())
        .step_by(512)
        .filter(|at| content[at + 8..at + 12] == *b"PNWB")
        .collect()
}

/// Three commits of two records each; with a mark at the end if asked.
fn small_log(mark: bool) -> TestEnv {
    let env = world();
    let log = replay(&env).unwrap().log;
    for first in [0, 2, 4] {
        commit(&env, &log, first..first + 2, 150);
    }
    if mark {
        env.block_on(log.commit_mark()).unwrap();
    }
    drop(log);
    env.crash();
    env
}

fn used_end(content: &[u8]) -> usize {
    content.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

#[test]
fn a_torn_last_block_ends_the_log_at_every_cut() {
    let env = small_log(false);
    let content = env.content(segment(1));
    let end = used_end(&content);
    let last = *blocks(&content).last().unwrap();
    for cut in last..=end {
        for filler in [0, 0xA5] {
            let env = env.fork();
            let mut torn = content.clone();
            torn[cut..end.next_multiple_of(512)].fill(filler);
            env.put(segment(1), &torn);
            let whole = torn[..end] == content[..end];
            let expected: &[u64] = if whole { &[0, 1, 2, 3, 4, 5] } else { &[0, 1, 2, 3] };
            let replayed = replay(&env).unwrap_or_else(|error| panic!("cut {cut}: {error}"));
            assert_eq!(replayed.numbers, expected, "cut {cut}");
            // Life goes on, and the torn block stays behind for ever.
            commit(&env, &replayed.log, 6..7, 50);
            env.crash();
            assert_eq!(replayed_numbers(&env).unwrap(), [expected, &[6]].concat(), "cut {cut}");
        }
    }
}

#[test]
fn every_flipped_byte_of_a_proven_log_is_found_or_harmless() {
    let env = small_log(true);
    let content = env.content(segment(1));
    for offset in 0..used_end(&content) {
        for mask in [0x01, 0x80, 0xFF] {
            let env = env.fork();
            env.flip(segment(1), offset as u64, mask);
            match replayed_numbers(&env) {
                Ok(numbers) => assert_eq!(numbers, [0, 1, 2, 3, 4, 5], "byte {offset}"),
                Err(Error::Damaged(damage)) => {
                    assert_eq!(damage.file, segment(1));
                    assert!(
                        damage.offset <= offset as u64 && offset as u64 - damage.offset < 1024,
                        "{damage}"
                    );
                }
                Err(other) => panic!("byte {offset}: {other}"),
            }
        }
    }
}

#[test]
fn a_flipped_byte_of_the_unproven_last_commit_drops_it_whole() {
    let env = small_log(false);
    let content = env.content(segment(1));
    let last = *blocks(&content).last().unwrap();
    let mut dropped = 0;
    for offset in 0..used_end(&content) {
        let env = env.fork();
        env.flip(segment(1), offset as u64, 0x20);
        match replayed_numbers(&env) {
            Ok(numbers) if numbers == [0, 1, 2, 3] => {
                assert!(offset >= last, "byte {offset} is proven");
                dropped += 1;
            }
            Ok(numbers) => assert_eq!(numbers, [0, 1, 2, 3, 4, 5], "byte {offset}"),
            Err(Error::Damaged(_)) => assert!(offset < last, "byte {offset} is not proven"),
            Err(other) => panic!("byte {offset}: {other}"),
        }
    }
    assert!(dropped > 400);
}

#[test]
fn sound_records_of_another_block_in_the_same_place_are_not_taken() {
    let one_block = |first: u64| {
        let env = world();
        let log = replay(&env).unwrap().log;
        commit(&env, &log, first..first + 2, 150);
        env.content(segment(1))
    };
    // The header sector of one write, the rest of another that was torn there before.
    let (new, old) = (one_block(0), one_block(8));
    let records = BLOCKS_START as usize + 96;
    let env = world();
    drop(replay(&env).unwrap());
    env.put(segment(1), &[&new[..records], &old[records..]].concat());
    assert!(replayed_numbers(&env).unwrap().is_empty());
    env.put(segment(1), &old);
    assert_eq!(replayed_numbers(&env).unwrap(), [8, 9]);
}

#[test]
fn damage_before_a_mark_is_named_with_file_and_offset() {
    let env = small_log(true);
    let second = blocks(&env.content(segment(1)))[1] as u64;
    env.flip(segment(1), second + 200, 1);
    let damage = damage_of(replay(&env));
    assert_eq!(damage.file, segment(1));
    assert!((second..second + 512).contains(&damage.offset));
    assert_eq!(damage.what, "checksum of a record");
    let text = Error::from(damage).to_string();
    assert!(text.contains("expected") && text.contains("found"), "{text}");
}

/// Two segments with three full blocks each, and a mark.
fn two_segments() -> TestEnv {
    let env = world();
    let log = replay(&env).unwrap().log;
    for number in 0..6 {
        commit(&env, &log, number..number + 1, 19_000);
    }
    env.block_on(log.commit_mark()).unwrap();
    assert_eq!(log.segments(), 2);
    drop(log);
    env.crash();
    assert_eq!(replayed_numbers(&env).unwrap(), [0, 1, 2, 3, 4, 5]);
    env.crash();
    env
}

#[test]
fn damage_in_any_block_of_any_segment_is_found() {
    let env = two_segments();
    for id in [1, 2] {
        for block in &blocks(&env.content(segment(id)))[..3] {
            for offset in [8, 60, 5_000] {
                let env = env.fork();
                env.flip(segment(id), *block as u64 + offset, 1);
                let damage = damage_of(replay(&env));
                assert_eq!(damage.file, segment(id), "block {block} + {offset}");
                assert!((*block as u64..*block as u64 + 512).contains(&damage.offset), "{damage}");
            }
        }
    }
}

#[test]
fn missing_segments_and_bad_headers_are_found() {
    let env = two_segments();
    for id in [1, 2] {
        let env = env.fork();
        env.flip(segment(id), 20, 1);
        assert_eq!(damage_of(replay(&env)).file, segment(id));
        let env = env.fork();
        env.truncate(segment(id), 30_000);
        assert_eq!(damage_of(replay(&env)).file, segment(id));
    }
    let gap = env.fork();
    gap.block_on(gap.remove(&segment(1))).unwrap();
    assert_eq!(damage_of(replay(&gap)).file, segment(1));
    let from = LogPosition::new(2, 5_000);
    assert_eq!(replay_as(&gap, options(), from, ReplayMode::Strict).unwrap().numbers, [3, 4, 5]);
    let gone = gap.fork();
    gone.block_on(async {
        for name in gone.names("/shard/wal") {
            gone.remove(&Path::new("/shard/wal").join(name)).await.unwrap();
        }
    });
    let lost = replay_as(&gone, options(), from, ReplayMode::Strict);
    assert_eq!(damage_of(lost).file, segment(2));
}

#[test]
fn a_log_that_ends_before_the_release_point_is_damaged() {
    let env = small_log(false);
    let content = env.content(segment(1));
    let last = *blocks(&content).last().unwrap();
    let from = LogPosition::new(1, last as u32 + 300);
    env.flip(segment(1), last as u64 + 100, 1);
    let damage = damage_of(replay_as(&env, options(), from, ReplayMode::Strict));
    assert_eq!(damage.file, segment(1));
}

#[test]
fn stale_blocks_of_a_recycled_segment_end_the_log() {
    let env = world();
    let log = replay(&env).unwrap().log;
    // Blocks of one size everywhere, so that stale ones stand exactly where the next is expected.
    let mut last = LogPosition::ZERO;
    let mut number = 0;
    while log.stats().segments_recycled < 2 {
        last = commit(&env, &log, number..number + 1, 1_000);
        env.settle();
        number += 1;
        log.release(last);
    }
    let first = number;
    for number in first..first + 3 {
        commit(&env, &log, number..number + 1, 1_000);
    }
    drop(log);
    env.crash();
    let replayed = replay_as(&env, options(), last, ReplayMode::Strict).unwrap();
    assert_eq!(replayed.numbers, [first, first + 1, first + 2]);
    let mut stale = 0;
    for name in env.names("/shard/wal") {
        stale += blocks(&env.content(Path::new("/shard/wal").join(name))).len();
    }
    assert!(stale > 50, "the files hold stale blocks");
}

#[test]
fn a_stale_block_in_the_middle_is_corruption() {
    let env = two_segments();
    // A lost write: the second block of segment 2 is what stood there before.
    let old = env.content(segment(1));
    let mut content = env.content(segment(2));
    let (from, to) = (blocks(&content)[1], blocks(&content)[2]);
    content[from..to].copy_from_slice(&old[from..to]);
    env.put(segment(2), &content);
    let damage = damage_of(replay(&env));
    assert_eq!((damage.file.clone(), damage.offset), (segment(2), from as u64));
    assert_eq!((damage.expected.as_str(), damage.found.as_str()), ("2", "1"), "{damage}");
}

#[test]
fn salvage_keeps_what_lies_before_the_damage() {
    let env = two_segments();
    let second = blocks(&env.content(segment(1)))[1] as u64;
    env.flip(segment(1), second + 600, 1);
    let salvage = |env: &TestEnv, from| replay_as(env, options(), from, ReplayMode::Salvage).unwrap();
    let replayed = salvage(&env, LogPosition::ZERO);
    assert_eq!(replayed.numbers, [0]);
    assert_eq!(replayed.damage.unwrap().file, segment(1));
    // The first block says where the log ends now, before and after the old segments are released.
    commit(&env, &replayed.log, 10..12, 100);
    let start = replayed.log.start();
    drop(replayed.log);
    env.crash();
    assert_eq!(replayed_numbers(&env).unwrap(), [0, 10, 11]);
    env.crash();
    assert_eq!(replay_as(&env, options(), start, ReplayMode::Strict).unwrap().numbers, [10, 11]);

    let env = two_segments();
    env.flip(segment(2), 20, 1);
    assert_eq!(salvage(&env, LogPosition::ZERO).numbers, [0, 1, 2]);
    let env = two_segments();
    env.block_on(env.remove(&segment(1))).unwrap();
    let replayed = salvage(&env, LogPosition::ZERO);
    assert_eq!((replayed.numbers.len(), replayed.damage.is_some()), (0, true));
}

#[test]
fn a_foreign_segment_is_named_as_such() {
    let env = small_log(true);
    let other = crate::identity::Identity { shard: 0, ..super::identity() };
    let options = LogOptions { ..options() };
    let opened =
        env.block_on(super::LogReplay::open(&env, Path::new("/shard"), other, options, LogPosition::ZERO));
    assert!(matches!(opened.map(|_| ()), Err(Error::WrongFormat { .. })));
}

#[test]
fn a_torn_block_in_a_new_segment_is_not_written_over() {
    // The log's first block of segment 2 is torn after its header: the segment counts as used.
    let env = two_segments();
    let mut content = env.content(segment(2));
    content[BLOCKS_START as usize + 512..].fill(0);
    env.put(segment(2), &content);
    let replayed = replay(&env).unwrap();
    assert_eq!(replayed.numbers, [0, 1, 2]);
    assert_eq!(replayed.log.start().segment(), 3);
    append(&replayed.log, 9, 10).unwrap();
    env.block_on(replayed.log.commit()).unwrap();
    env.crash();
    assert_eq!(replayed_numbers(&env).unwrap(), [0, 1, 2, 9]);
}

#[test]
fn what_was_read_after_a_kill_survives_a_power_cut() {
    let env = small_log(true);
    env.set_block_bytes(4096);
    let log = replay(&env).unwrap().log;
    // The write reaches the device's cache: its first half holds the whole record.
    append(&log, 6, 10).unwrap();
    env.fail(crate::testing::Op::Write, "", 0, 1, std::io::ErrorKind::Other);
    assert!(env.block_on(log.commit()).is_err());
    drop(log);
    env.heal();
    env.kill();
    let replayed = replay(&env).unwrap();
    assert_eq!(replayed.numbers.last(), Some(&6));
    commit(&env, &replayed.log, 10..11, 10);
    env.crash();
    assert_eq!(replayed_numbers(&env).unwrap(), [0, 1, 2, 3, 4, 5, 6, 10]);
}
