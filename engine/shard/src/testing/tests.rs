//! The test world keeps its promises.

use std::time::Duration;

use std::cell::Cell;
use std::io;
use std::path::Path;
use std::rc::Rc;

use pinion_env::{AlignedBuf, Env, File, OpenMode, PAGE_BYTES, TaskClass, WriteMode};

use super::{Op, TestEnv};

async fn write(env: &TestEnv, path: &str, byte: u8, mode: WriteMode) -> io::Result<()> {
    let file = match env.open(Path::new(path), OpenMode::ReadWrite).await {
        Ok(file) => file,
        Err(_) => env.open(Path::new(path), OpenMode::CreateNew).await?,
    };
    let mut buffer = AlignedBuf::zeroed(PAGE_BYTES);
    buffer.fill(byte);
    file.write(0, buffer, 0..PAGE_BYTES, mode).await.0
}

#[test]
fn a_crash_keeps_exactly_what_was_synced() {
    let env = TestEnv::new(1);
    let dir = Path::new("/data");
    env.block_on(async {
        pinion_env::create_dir_all(&env, dir).await.unwrap();
        env.sync_dir(Path::new("/")).await.unwrap();
        write(&env, "/data/a", 1, WriteMode::Durable).await.unwrap();
        env.sync_dir(dir).await.unwrap();
        write(&env, "/data/b", 2, WriteMode::Durable).await.unwrap();
        write(&env, "/data/a", 3, WriteMode::Unsynced).await.unwrap();
        env.rename(Path::new("/data/a"), Path::new("/data/c")).await.unwrap();
        env.create_dir(Path::new("/data/d")).await.unwrap();
    });
    let fork = env.fork();
    env.crash();
    assert_eq!(env.names("/data"), ["a"]);
    assert_eq!(env.content("/data/a")[0], 1);
    assert_eq!(fork.names("/data"), ["b", "c", "d"]);
    env.flip("/data/a", 9, 0xFF);
    env.truncate("/data/a", 10);
    assert_eq!(env.content("/data/a"), [1, 1, 1, 1, 1, 1, 1, 1, 1, 0xFE]);
    env.put("/data/z", b"z");
    env.block_on(async {
        env.remove(Path::new("/data/z")).await.unwrap();
        assert_eq!(env.list(dir).await.unwrap().len(), 1);
    });
    fork.crash();
    assert_eq!(fork.content("/data/a")[0], 1);
}

#[test]
fn planted_faults_hit_the_chosen_operation() {
    let env = TestEnv::new(1);
    env.fail(Op::Write, "/a", 1, 1, io::ErrorKind::Other);
    env.block_on(async {
        assert!(write(&env, "/a", 1, WriteMode::Durable).await.is_ok());
        assert!(write(&env, "/b", 1, WriteMode::Durable).await.is_ok());
        env.set_block_bytes(512);
        assert!(write(&env, "/a", 2, WriteMode::Durable).await.is_err());
        assert!(write(&env, "/a", 3, WriteMode::Durable).await.is_ok());
        env.set_capacity(2 * PAGE_BYTES as u64);
        let full = write(&env, "/c", 1, WriteMode::Durable).await.unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        env.heal();
    });
    assert_eq!(env.count(Op::Write), 5);
}

#[test]
fn tasks_run_beside_the_main_future_in_virtual_time() {
    let env = TestEnv::new(7);
    let hits = Rc::new(Cell::new(0));
    for _ in 0..3 {
        let (env, hits) = (env.clone(), hits.clone());
        env.clone().spawn(TaskClass::Background, async move {
            env.sleep(Duration::from_secs(5)).await;
            hits.set(hits.get() + 1);
        });
    }
    let start = env.wall_ms();
    env.settle();
    assert_eq!((hits.get(), env.now().nanos()), (0, 0));
    env.block_on(async {
        env.sleep(Duration::from_secs(9)).await;
        assert_eq!(env.off_core(|| 4).await, 4);
    });
    assert_eq!((hits.get(), env.wall_ms() - start), (3, 9_000));
    env.set_wall_ms(50_000);
    env.advance(Duration::from_secs(1));
    assert_eq!(env.wall_ms(), 51_000);
    assert_eq!(TestEnv::new(3).random(), TestEnv::new(3).random());
}

#[test]
fn a_lock_is_exclusive_until_dropped_or_killed() {
    let env = TestEnv::new(1);
    env.block_on(async {
        let path = Path::new("/LOCK");
        let held = env.lock(path).await.unwrap();
        assert!(held.is_some());
        assert!(env.lock(path).await.unwrap().is_none());
        drop(held);
        let held = env.lock(path).await.unwrap();
        assert!(held.is_some());
        env.kill();
        assert!(env.lock(path).await.unwrap().is_some());
    });
}
