//! The manifest against crashes, damage and full disks.

use super::*;
use crate::identity::DatabaseId;
use crate::key::{NamespaceId, OwnedPosition, Partition};
use crate::log::LogPosition;
use crate::namespaces::TableNamespaces;
use crate::stamp::{HybridTime, Stamp};
use crate::table::TableMeta;
use crate::testing::{Op, TestEnv, assert_golden};

const GOLDEN: &[u8] = include_bytes!("../../golden/manifest.bin");
const GOLDEN_CURRENT: &[u8] = include_bytes!("../../golden/current.bin");
const DIR: &str = "/";

fn identity() -> Identity {
    Identity { database: DatabaseId(77), shard: 2, partitions: 64, shards: 4 }
}

fn position(user: &[u8]) -> OwnedPosition {
    OwnedPosition { partition: Partition(3), namespace: NamespaceId(4), user: user.to_vec() }
}

fn meta(number: u64) -> TableMeta {
    TableMeta {
        number,
        file_bytes: 8192,
        checksum: number * 3,
        first: position(b"a"),
        last: position(b"z"),
        records: 9,
        tombstones: 1,
        raw_bytes: 100,
        stamp_min: Stamp::ZERO,
        stamp_max: Stamp::ZERO,
        oldest_tombstone: Stamp::ZERO,
        expiry_min_ms: 5,
        expiry_max_ms: u64::MAX,
        expiring: 1,
        blob_bytes: 0,
        namespaces: TableNamespaces::from_iter([NamespaceId(4)]),
    }
}

const EDIT_BYTES: u32 = 1 << 20;

fn add(number: u64) -> Edit {
    Edit::AddTable { level: 0, run: number, meta: meta(number) }
}

async fn open(env: &TestEnv) -> Result<(Manifest<TestEnv>, ManifestState)> {
    Manifest::open(env, Path::new(DIR), identity(), EDIT_BYTES).await
}

/// Applies `count` edits from file number `first` on.
fn apply(env: &TestEnv, first: u64, count: u64) -> ManifestState {
    env.block_on(async {
        let (mut manifest, _) = open(env).await.unwrap();
        for number in first..first + count {
            let position = LogPosition::new(number as u32, 8);
            manifest.apply(&[add(number), Edit::LogReleased { position }]).await.unwrap();
        }
        manifest.state().clone()
    })
}

fn reopened(env: &TestEnv) -> Result<ManifestState> {
    env.block_on(open(env)).map(|(_, state)| state)
}

#[test]
fn edits_survive_a_crash_and_add_up() {
    let env = TestEnv::new(1);
    apply(&env, 1, 3);
    env.crash();
    env.block_on(async {
        let (mut manifest, _) = open(&env).await.unwrap();
        let moved = Edit::AddTable { level: 1, run: 0, meta: meta(2) };
        let cursor = Edit::CompactCursor { level: 1, position: position(b"m") };
        manifest.apply(&[Edit::RemoveTable { number: 2 }, moved, cursor]).await.unwrap();
        manifest.apply(&[Edit::RemoveTable { number: 1 }, Edit::NextFile { number: 50 }]).await.unwrap();
        let back = Edit::LogReleased { position: LogPosition::ZERO };
        let (late, early) = (HybridTime(9), HybridTime(8));
        manifest.apply(&[Edit::ClockCeiling { time: late }]).await.unwrap();
        manifest
            .apply(&[back, Edit::NextFile { number: 4 }, Edit::ClockCeiling { time: early }])
            .await
            .unwrap();
    });
    env.crash();
    let state = reopened(&env).unwrap();
    let tables: Vec<_> = state.tables().map(|(level, run, meta)| (level, run, meta.number)).collect();
    assert_eq!(tables, [(1, 0, 2), (0, 3, 3)]);
    assert_eq!((state.log_released, state.next_file), (LogPosition::new(3, 8), 50));
    assert_eq!(state.clock_ceiling, HybridTime(9));
    assert_eq!(state.cursors(), [None, Some(position(b"m"))]);
    // Nothing was written by opening.
    let writes = env.count(Op::Write);
    assert_eq!(reopened(&env).unwrap(), state);
    assert_eq!(env.count(Op::Write), writes);
}

#[test]
fn a_full_file_is_followed_by_a_snapshot() {
    let env = TestEnv::new(1);
    let state = env.block_on(async {
        let (mut manifest, _) = open(&env).await.unwrap();
        for number in 1..400 {
            manifest.apply(&[add(number)]).await.unwrap();
            if number > 5 {
                manifest.apply(&[Edit::RemoveTable { number: number - 5 }]).await.unwrap();
            }
        }
        manifest.state().clone()
    });
    let names = env.names(DIR);
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(manifest_number(&names[1]).unwrap() > 4, "{names:?}");
    env.crash();
    assert_eq!(reopened(&env).unwrap(), state);
}

#[test]
fn a_crash_at_any_operation_leaves_the_old_state_or_the_new() {
    for op in [Op::Open, Op::Write, Op::Sync, Op::SyncDir, Op::Rename, Op::Remove] {
        for number in 0.. {
            let env = TestEnv::new(1);
            let before = apply(&env, 1, 2);
            env.fail(op, "", number, 1, io::ErrorKind::Other);
            let applied = env.block_on(async {
                let (mut manifest, _) = open(&env).await?;
                let applied = manifest.apply(&[add(3)]).await;
                if let Err(Error::StorageFailed(_)) = &applied {
                    assert!(matches!(manifest.apply(&[add(4)]).await, Err(Error::StorageFailed(_))));
                }
                applied
            });
            env.heal();
            env.crash();
            let state = reopened(&env).unwrap();
            let has_new = state.tables().any(|(_, _, meta)| meta.number == 3);
            assert!(has_new || state == before);
            assert!(has_new || applied.is_err(), "{op:?} {number}: acknowledged and lost");
            if applied.is_ok() {
                break;
            }
        }
    }
}

/// The newest manifest file.
fn manifest_path(env: &TestEnv) -> PathBuf {
    let names = env.names(DIR);
    let name = names.iter().filter(|name| manifest_number(name).is_some()).max();
    Path::new(DIR).join(name.expect("there is a manifest"))
}

#[test]
fn every_flipped_byte_is_found_or_harmless() {
    let env = TestEnv::new(1);
    env.set_block_bytes(512);
    let state = apply(&env, 1, 3);
    let path = manifest_path(&env);
    let used = env.content(&path).iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
    for offset in 0..used {
        let env = env.fork();
        env.flip(&path, offset, 0x40);
        match reopened(&env) {
            Ok(found) => assert_eq!(found, state, "byte {offset}"),
            Err(Error::Damaged(damage)) => assert_eq!(damage.file, path),
            Err(other) => panic!("byte {offset}: {other}"),
        }
    }
    for offset in 0..40 {
        let env = env.fork();
        env.flip("/CURRENT", offset, 0x40);
        assert!(matches!(reopened(&env), Err(Error::Damaged(_))), "byte {offset} of CURRENT");
    }
}

#[test]
fn a_torn_last_frame_ends_the_manifest() {
    let env = TestEnv::new(1);
    env.set_block_bytes(512);
    let before = apply(&env, 1, 2);
    let after = env.block_on(async {
        let (mut manifest, _) = open(&env).await.unwrap();
        manifest.apply(&[add(3)]).await.unwrap();
        // The frame lands, its mark does not.
        env.fail(Op::Write, "MANIFEST", 1, 1, io::ErrorKind::Other);
        assert!(manifest.apply(&[add(4)]).await.is_err());
        env.heal();
        manifest.state().clone()
    });
    env.crash();
    let path = manifest_path(&env);
    let content = env.content(&path);
    let end = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let frames: Vec<usize> =
        (0..end).step_by(512).filter(|at| content[*at..].get(8..12) == Some(b"PNMF")).collect();
    let last = *frames.last().unwrap();
    for cut in last..end {
        let env = env.fork();
        let mut torn = content.clone();
        torn[cut..].fill(0);
        env.put(&path, &torn);
        assert_eq!(reopened(&env).unwrap(), after, "cut at {cut}");
    }
    // One frame earlier stands a mark, and before it a frame that was answered.
    let env = env.fork();
    env.flip(&path, frames[frames.len() - 3] as u64 + 100, 1);
    assert!(matches!(reopened(&env), Err(Error::Damaged(_))));
    assert_ne!(before, after);
}

#[test]
fn what_was_read_after_a_kill_survives_a_power_cut() {
    let env = TestEnv::new(1);
    apply(&env, 1, 2);
    env.block_on(async {
        let (mut manifest, _) = open(&env).await.unwrap();
        manifest.apply(&[add(3)]).await.unwrap();
        // The frame reaches the device's cache: its first half holds the whole edit.
        env.fail(Op::Write, "MANIFEST", 0, 1, io::ErrorKind::Other);
        assert!(manifest.apply(&[add(4)]).await.is_err());
    });
    env.heal();
    env.kill();
    let state = reopened(&env).unwrap();
    assert_eq!(state.tables().count(), 4);
    env.crash();
    assert_eq!(reopened(&env).unwrap(), state);
}

#[test]
fn a_full_disk_changes_nothing_and_passes() {
    let env = TestEnv::new(1);
    let state = apply(&env, 1, 1);
    env.block_on(async {
        let (mut manifest, _) = open(&env).await.unwrap();
        env.set_capacity(1 << 20);
        assert!(matches!(manifest.apply(&[add(2)]).await, Err(Error::DiskFull)));
        assert_eq!(manifest.state(), &state);
        env.set_capacity(1 << 30);
        manifest.apply(&[add(2)]).await.unwrap();
        // From here on edits need no new space.
        env.set_capacity(1);
        manifest.apply(&[add(3)]).await.unwrap();
    });
    assert_eq!(reopened(&env).unwrap().tables().count(), 3);
}

#[test]
fn a_lost_current_and_foreign_files_are_refused() {
    let env = TestEnv::new(1);
    apply(&env, 1, 1);
    let foreign = Identity { shard: 3, ..identity() };
    let refused = env.block_on(Manifest::open(&env, Path::new(DIR), foreign, EDIT_BYTES)).map(|_| ());
    assert!(matches!(refused, Err(Error::WrongFormat { .. })));
    env.block_on(async {
        env.create_dir(Path::new("/wal")).await.unwrap();
        env.remove(Path::new("/CURRENT")).await.unwrap();
    });
    env.put("/wal/0000000001.log", b"x");
    assert!(matches!(reopened(&env), Err(Error::Damaged(_))));
    let env = TestEnv::new(1);
    apply(&env, 1, 1);
    env.block_on(env.remove(&manifest_path(&env))).unwrap();
    assert!(matches!(reopened(&env), Err(Error::Damaged(_))));
}

#[test]
fn the_format_is_frozen() {
    let env = TestEnv::new(1);
    env.set_block_bytes(512);
    env.block_on(async {
        let (mut manifest, _) = open(&env).await.unwrap();
        let cursor = Edit::CompactCursor { level: 1, position: position(b"m") };
        let released = Edit::LogReleased { position: LogPosition::new(1, 4096) };
        manifest.apply(&[add(7), add(8), released, Edit::NextFile { number: 12 }]).await.unwrap();
        let clock = Edit::ClockCeiling { time: HybridTime(0x0102_0304_0506_0708) };
        manifest.apply(&[Edit::RemoveTable { number: 7 }, cursor, clock]).await.unwrap();
    });
    let content = env.content(manifest_path(&env));
    let end = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    assert_golden("current.bin", &env.content("/CURRENT")[..40], GOLDEN_CURRENT);
    assert_golden("manifest.bin", &content[..end.next_multiple_of(512)], GOLDEN);
}
