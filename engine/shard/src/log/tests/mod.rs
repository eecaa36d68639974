//! The log against crashes, damage, full disks and time.
//!
//! Records are numbered; record `n` has content that only `n` has, so that a wrong record cannot
//! pass for another. Most tests use 64 KiB segments and 512-byte blocks.

mod damage;
mod history;
mod space;
mod writing;

use std::path::{Path, PathBuf};

use super::files::segment_name;
use super::{Log, LogOp, LogOptions, LogPosition, LogReplay, ReplayMode};
use crate::error::{Corruption, Error, Result};
use crate::identity::{DatabaseId, Identity};
use crate::key::{NamespaceId, Partition};
use crate::record::RecordKind;
use crate::stamp::{HybridTime, Origin, Stamp};
use crate::testing::TestEnv;

const DIR: &str = "/shard";

fn identity() -> Identity {
    Identity { database: DatabaseId(0x5eed), shard: 1, partitions: 64, shards: 2 }
}

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: LogOptions::SEGMENT_BYTES_MIN,
        block_bytes_max: 16 << 10,
        queue_bytes_max: 1 << 20,
        spare_segments_max: 2,
        disk_reserve_bytes: 0,
    }
}

/// A world with an empty log directory and small blocks.
fn world() -> TestEnv {
    let env = TestEnv::new(1);
    env.set_block_bytes(512);
    env.block_on(pinion_env::create_dir_all(&env, &Path::new(DIR).join("wal"))).unwrap();
    env.block_on(async {
        use pinion_env::Env;
        env.sync_dir(Path::new(DIR)).await.unwrap();
        env.sync_dir(Path::new("/")).await.unwrap();
    });
    env
}

fn segment(id: u32) -> PathBuf {
    Path::new(DIR).join("wal").join(segment_name(id))
}

fn stamp(number: u64) -> Stamp {
    Stamp { time: HybridTime(number + 1), origin: Origin(7) }
}

fn value(number: u64, bytes: usize) -> Vec<u8> {
    number.to_le_bytes().iter().copied().cycle().take(bytes).collect()
}

/// Stages record `number`: a put of `bytes` value bytes and a delete.
fn append(log: &Log<TestEnv>, number: u64, bytes: usize) -> Result<LogPosition, super::AppendError> {
    let key = number.to_be_bytes();
    let value = value(number, bytes);
    let op = LogOp {
        kind: RecordKind::Value,
        partition: Partition(number as u16 % 64),
        namespace: NamespaceId(number as u32 % 3),
        key: &key,
        expiry_ms: number * 10,
        value: &value,
    };
    log.append(stamp(number), &[op, LogOp { kind: RecordKind::Tombstone, key: b"gone", value: b"", ..op }])
}

/// What replay found.
struct Replayed {
    numbers: Vec<u64>,
    positions: Vec<LogPosition>,
    clock_ceiling: HybridTime,
    damage: Option<Corruption>,
    log: Log<TestEnv>,
}

/// Reads the log from `from` on, checks every record's content, and opens it.
fn replay_as(env: &TestEnv, options: LogOptions, from: LogPosition, mode: ReplayMode) -> Result<Replayed> {
    env.block_on(async {
        let (mut numbers, mut positions) = (Vec::new(), Vec::new());
        let mut replay = LogReplay::open_as(env, Path::new(DIR), identity(), options, from, mode).await?;
        let next_file = replay.next_segment_file();
        let read_back = async {
            while let Some(batch) = replay.next().await? {
                let number = batch.stamp().time.0 - 1;
                let ops: Vec<LogOp<'_>> = batch.ops().collect();
                assert_eq!(batch.stamp(), stamp(number));
                assert_eq!(ops.len(), 2);
                assert_eq!(ops[0].key, number.to_be_bytes());
                assert_eq!(ops[0].value, value(number, ops[0].value.len()));
                assert_eq!((ops[0].kind, ops[0].expiry_ms), (RecordKind::Value, number * 10));
                assert_eq!((ops[0].partition.0, ops[0].namespace.0), (number as u16 % 64, number as u32 % 3));
                assert_eq!(
                    (ops[1].kind, ops[1].key, ops[1].value),
                    (RecordKind::Tombstone, &b"gone"[..], &b""[..])
                );
                numbers.push(number);
                positions.push(batch.position());
            }
            Ok(())
        };
        next_file.beside(read_back).await?;
        let clock_ceiling = replay.clock_ceiling();
        let damage = replay.damage().cloned();
        assert!(positions.is_sorted_by(|left, right| left < right));
        let log = replay.finish().await?;
        Ok(Replayed { numbers, positions, clock_ceiling, damage, log })
    })
}

fn replay(env: &TestEnv) -> Result<Replayed> {
    replay_as(env, options(), LogPosition::ZERO, ReplayMode::Strict)
}

fn replayed_numbers(env: &TestEnv) -> Result<Vec<u64>> {
    replay(env).map(|replayed| replayed.numbers)
}

/// Appends the numbers and commits until they are durable: one block if they fit one.
fn commit(env: &TestEnv, log: &Log<TestEnv>, numbers: std::ops::Range<u64>, bytes: usize) -> LogPosition {
    let last = numbers.map(|number| append(log, number, bytes).unwrap()).last().unwrap();
    while env.block_on(log.commit()).unwrap() < last {
        assert!(log.has_staged());
    }
    last
}

fn damage_of<T>(result: Result<T>) -> Corruption {
    match result {
        Err(Error::Damaged(damage)) => Corruption::clone(&damage),
        Err(other) => panic!("not damage: {other}"),
        Ok(_) => panic!("damage was not found"),
    }
}
