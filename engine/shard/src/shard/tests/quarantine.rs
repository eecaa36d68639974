//! Damage that compaction meets: the table stays, everything else goes on, and nothing comes back.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::compaction::DEEP;

const KEYS: u32 = 300;
/// An offset in the first data block of a table.
const DAMAGED_BYTE: u64 = 200;

fn user(number: u32) -> String {
    format!("fill-{number:06}")
}

/// Runs of a like size that call for compaction.
const RUNS_MAX: u64 = 4;
/// Runs above each other of which some are always due.
const RUNS_DEEP: u64 = DEEP as u64 * RUNS_MAX;

/// Small tables, and no cache that would hide what the disk holds.
fn options() -> Options {
    Options {
        table_bytes: 16 << 10,
        level_base_bytes: 512 << 10,
        runs_max: RUNS_MAX as u32,
        block_cache_bytes: 0,
        retry_window_ms_max: 100,
        deadline_ms_max: 0,
        ..small()
    }
}

/// What was written, and which of it may be answered with damage: what lay in the bad block.
struct Truth {
    values: BTreeMap<u32, Option<u8>>,
    lost: Vec<u32>,
}

/// A shard with tables below, and a byte flipped in the first data block of one of them.
fn damaged(env: &TestEnv, settle: bool) -> (TestShard, Truth) {
    // What is to be damaged as a table of a run must not be on its way down.
    let runs_max = if settle { options().runs_max } else { u32::MAX };
    let shard = open_with(env, Options { runs_max, ..options() }).unwrap();
    let mut values = BTreeMap::new();
    for number in 0..KEYS {
        write(env, &shard, &user(number), put(&[1; 560])).unwrap();
        values.insert(number, Some(1));
    }
    if settle { env.block_on(shard.settle()) } else { env.block_on(shard.flush()) }.unwrap();
    let dir = Path::new("shard/table");
    // Not the first table, and none that compaction has done with and is about to remove.
    for name in env.names(dir).split_off(1) {
        if !env.names(dir).contains(&name) {
            continue;
        }
        env.flip(dir.join(&name), DAMAGED_BYTE, 1);
        let lost: Vec<u32> =
            (0..KEYS).filter(|number| is_damaged(get(env, &shard, &user(*number)))).collect();
        if !lost.is_empty() {
            assert!(lost.len() < 20, "{lost:?}");
            assert_eq!(shard.stats().levels[0].tables > 0, !settle);
            env.block_on(shard.close()).unwrap();
            let shard = open_with(env, options()).unwrap();
            return (shard, Truth { values, lost });
        }
        if env.names(dir).contains(&name) {
            env.flip(dir.join(&name), DAMAGED_BYTE, 1);
        }
    }
    panic!("no table that is read");
}

fn is_damaged(found: Result<Option<Vec<u8>>>) -> bool {
    match found {
        Ok(_) => false,
        Err(Error::Damaged(_)) => true,
        Err(error) => panic!("{error}"),
    }
}

impl Truth {
    /// Writes some of the keys again, or deletes them; never refused for good.
    fn round(&mut self, env: &TestEnv, shard: &TestShard, round: u8) {
        for number in (0..KEYS).filter(|number| (number + u32::from(round)) % 3 != 0) {
            // One of the lost stays as it was.
            if self.lost.first() == Some(&number) {
                continue;
            }
            if (number + u32::from(round)).is_multiple_of(7) {
                write(env, shard, &user(number), Operation::Delete).unwrap();
                self.values.insert(number, None);
            } else {
                write(env, shard, &user(number), put(&[round; 560])).unwrap();
                self.values.insert(number, Some(round));
            }
            self.lost.retain(|lost| *lost != number);
        }
    }

    /// Every key reads as it was written last; what lay in the bad block and was not written since is
    /// an error.
    fn check(&self, env: &TestEnv, shard: &TestShard) {
        for (number, value) in &self.values {
            let found = get(env, shard, &user(*number));
            if self.lost.contains(number) {
                assert!(is_damaged(found), "{number} was lost and is answered");
            } else {
                assert_eq!(found.unwrap(), value.map(|byte| vec![byte; 560]), "{number}");
            }
        }
    }
}

fn quarantined(shard: &TestShard) -> usize {
    shard.stats().quarantine.len()
}

#[test]
fn a_damaged_table_of_a_level_does_not_stop_the_others() {
    let env = TestEnv::new(50);
    let (shard, mut truth) = damaged(&env, true);
    for round in 2..40 {
        truth.round(&env, &shard, round);
        env.advance(Duration::from_millis(500));
    }
    env.block_on(shard.settle()).unwrap();
    truth.check(&env, &shard);
    let stats = shard.stats();
    let [table] = stats.quarantine.as_slice() else { panic!("{:?}", stats.quarantine) };
    assert!(table.level > 1 && table.damage.file.starts_with("shard/table"), "{table:?}");
    assert!(stats.counters.flushes > 30 && stats.counters.compactions > 30, "{stats:?}");
    assert!(stats.runs < RUNS_DEEP && stats.compaction_debt_bytes == 0, "{stats:?}");
    assert!(stats.failed.is_none());

    // It is found again after a restart: nothing of it is stored.
    env.block_on(shard.close()).unwrap();
    let shard = open_with(&env, options()).unwrap();
    assert_eq!(quarantined(&shard), 0);
    for round in 40..80 {
        truth.round(&env, &shard, round);
    }
    env.block_on(shard.settle()).unwrap();
    truth.check(&env, &shard);
    assert_eq!(quarantined(&shard), 1);
    assert!(shard.stats().runs < RUNS_DEEP);
}

#[test]
fn a_damaged_table_of_a_run_is_put_aside_unread() {
    let env = TestEnv::new(51);
    let (shard, mut truth) = damaged(&env, false);
    for round in 2..40 {
        truth.round(&env, &shard, round);
    }
    env.block_on(shard.settle()).unwrap();
    truth.check(&env, &shard);
    let stats = shard.stats();
    let [table] = stats.quarantine.as_slice() else { panic!("{:?}", stats.quarantine) };
    assert!(table.level > 0, "{table:?}");
    assert!(stats.runs < RUNS_DEEP, "{stats:?}");
}

#[test]
fn a_damaged_table_that_is_wholly_dead_goes_as_any_other() {
    let env = TestEnv::new(52);
    let shard = open_with(&env, options()).unwrap();
    let short = Operation::Put { value: &[1; 560], lifetime: Lifetime::Millis(2_000) };
    for number in 0..KEYS {
        write(&env, &shard, &user(number), short).unwrap();
    }
    env.block_on(shard.settle()).unwrap();
    let dir = Path::new("shard/table");
    let name = env.names(dir).swap_remove(1);
    env.flip(dir.join(name), 200, 1);
    fill(&env, &shard, KEYS / 2, 7);
    env.block_on(shard.settle()).unwrap();
    let before = quarantined(&shard);
    env.advance(Duration::from_secs(10));
    env.block_on(shard.settle()).unwrap();
    assert_eq!(quarantined(&shard), 0, "{before} before");
    for number in 0..KEYS {
        let expected = (number < KEYS / 2).then(|| vec![7; 560]);
        assert_eq!(get(&env, &shard, &user(number)).unwrap(), expected);
    }
}

#[test]
fn a_table_that_can_be_read_again_is_merged_after_a_restart() {
    let env = TestEnv::new(53);
    let (shard, mut truth) = damaged(&env, true);
    for round in 2..12 {
        truth.round(&env, &shard, round);
    }
    env.block_on(shard.settle()).unwrap();
    let damage = shard.stats().quarantine.swap_remove(0).damage;
    env.block_on(shard.close()).unwrap();
    env.flip(&damage.file, DAMAGED_BYTE, 1);
    truth.lost.clear();
    let shard = open_with(&env, options()).unwrap();
    for round in 12..30 {
        truth.round(&env, &shard, round);
    }
    env.block_on(shard.settle()).unwrap();
    truth.check(&env, &shard);
    assert_eq!(quarantined(&shard), 0);
    assert!(!env.names("shard/table").iter().any(|name| damage.file.ends_with(name)));
}

#[test]
fn tables_that_could_not_be_read_for_a_while_are_merged_again() {
    let env = TestEnv::new(54);
    let shard = open_with(&env, options()).unwrap();
    let mut truth = Truth { values: BTreeMap::new(), lost: Vec::new() };
    truth.values.extend((0..KEYS).map(|number| (number, None)));
    truth.round(&env, &shard, 2);
    env.block_on(shard.settle()).unwrap();
    // Of one table only: one that was just written and does not read back is a failed write.
    let name = env.names("shard/table").swap_remove(1);
    env.fail(Op::Read, &name, 0, u64::MAX, ErrorKind::Other);
    for round in 3..8 {
        truth.round(&env, &shard, round);
    }
    assert!(quarantined(&shard) > 0 && shard.stats().failed.is_none());
    env.heal();
    env.advance(Duration::from_secs(61));
    truth.round(&env, &shard, 8);
    env.block_on(shard.settle()).unwrap();
    assert_eq!(quarantined(&shard), 0);
    truth.check(&env, &shard);
}
