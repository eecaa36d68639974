//! Random histories: append, commit, release, fail, crash; what was acknowledged is there, in
//! order, and nothing else but a prefix of what was staged.

use std::io;

use pinion_env::Env;

use super::super::{AppendError, LogPosition, ReplayMode};
use super::{append, options, replay_as, world};
use crate::testing::{Op, TestEnv};

const HISTORIES: u64 = 60;
const LIVES: u64 = 8;
const STEPS: u64 = 60;

#[test]
fn acknowledged_records_survive_random_histories() {
    for seed in 0..HISTORIES {
        history(seed);
    }
}

fn history(seed: u64) {
    let dice = TestEnv::new(seed);
    let roll = |sides: u64| dice.random() % sides;
    let env = world();
    // Numbers that are in the log, and which of them were acknowledged.
    let mut present: Vec<(u64, LogPosition)> = Vec::new();
    let mut released = LogPosition::ZERO;
    let mut next = 0;
    for life in 0..LIVES {
        let replayed = replay_as(&env, options(), released, ReplayMode::Strict)
            .unwrap_or_else(|error| panic!("seed {seed} life {life}: {error}"));
        let acknowledged = present.len();
        assert!(replayed.numbers.len() >= acknowledged, "seed {seed} life {life}: a record is lost");
        for (index, (number, position)) in present.iter().enumerate() {
            assert_eq!((replayed.numbers[index], replayed.positions[index]), (*number, *position));
        }
        // What follows was staged when the crash came: in order, without a hole.
        let rest = &replayed.numbers[acknowledged..];
        assert!(rest.windows(2).all(|pair| pair[0] + 1 == pair[1]), "seed {seed} life {life}");
        present = replayed.numbers.iter().copied().zip(replayed.positions.iter().copied()).collect();
        let log = replayed.log;
        // Numbers of records that never made it are not used again.
        next += 100;
        let mut staged = Vec::new();
        if roll(3) == 0 {
            env.fail(Op::Write, "wal/", roll(40), 1, io::ErrorKind::Other);
        }
        for _ in 0..STEPS {
            match roll(10) {
                0..=5 => match append(&log, next, roll(9_000) as usize) {
                    Ok(position) => {
                        staged.push((next, position));
                        next += 1;
                    }
                    Err(AppendError::Failed(_)) => break,
                    Err(other) => panic!("seed {seed}: {other}"),
                },
                6..=7 => match env.block_on(log.commit()) {
                    Ok(durable) => {
                        let acknowledged = staged.iter().filter(|(_, position)| *position <= durable).count();
                        present.extend(staged.drain(..acknowledged));
                    }
                    Err(_) => break,
                },
                8 if !present.is_empty() && roll(3) == 0 => {
                    let (_, position) = present[roll(present.len() as u64) as usize];
                    released = position;
                    present.retain(|(_, at)| *at > released);
                    log.release(released);
                }
                _ => {
                    let _ = env.block_on(log.commit_mark()).map(|durable| {
                        let acknowledged = staged.iter().filter(|(_, position)| *position <= durable).count();
                        present.extend(staged.drain(..acknowledged));
                    });
                }
            }
        }
        drop(log);
        env.heal();
        match roll(3) {
            0 => env.kill(),
            _ => env.crash(),
        }
    }
    let files = env.names("/shard/wal").len();
    assert!(files < 60, "seed {seed}: {files} files");
}
