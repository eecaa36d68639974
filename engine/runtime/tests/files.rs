//! Files and directories, in direct mode on a real disk.

#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]

mod rig;

use std::io::ErrorKind;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Waker};

use pinion_runtime::env::{
    AlignedBuf, Env, File, OpenMode, PAGE_BYTES, TaskClass, WriteMode, create_dir_all,
};
use rig::{deadline, run_one};

/// A directory on a file system that knows direct I/O: beside the build, not on a memory disk.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn filled(bytes: usize, with: u8) -> AlignedBuf {
    let mut buffer = AlignedBuf::zeroed(bytes);
    buffer.fill(with);
    buffer
}

#[test]
fn what_is_written_is_read() {
    let _deadline = deadline("write and read");
    let dir = directory();
    let path = dir.path().join("data");
    run_one(move |env| {
        let path = path.clone();
        async move {
            let file = env.open(&path, OpenMode::CreateNew).await.unwrap();
            let existing = env.open(&path, OpenMode::CreateNew).await.unwrap_err();
            assert_eq!(existing.kind(), ErrorKind::AlreadyExists);
            let missing = env.open(&path.with_extension("no"), OpenMode::Read).await.unwrap_err();
            assert_eq!(missing.kind(), ErrorKind::NotFound);

            let mut buffer = filled(3 * PAGE_BYTES, 1);
            buffer[PAGE_BYTES..].fill(2);
            let (outcome, buffer) = file.write(0, buffer, 0..2 * PAGE_BYTES, WriteMode::Durable).await;
            outcome.unwrap();
            // From the middle of the buffer, a block that is not a page.
            let range = PAGE_BYTES..PAGE_BYTES + 512;
            let (outcome, buffer) =
                file.write(2 * PAGE_BYTES as u64, buffer, range, WriteMode::Unsynced).await;
            outcome.unwrap();
            file.sync().await.unwrap();
            assert_eq!(file.bytes().await.unwrap(), 2 * PAGE_BYTES as u64 + 512);

            // Past the end: exactly what there is.
            let file = env.open(&path, OpenMode::Read).await.unwrap();
            let (read, back) = file.read(PAGE_BYTES as u64, buffer, 3 * PAGE_BYTES).await;
            assert_eq!(read.unwrap(), PAGE_BYTES + 512);
            assert!(back[..PAGE_BYTES + 512].iter().all(|byte| *byte == 2));
            let (read, back) = file.read(1 << 20, back, PAGE_BYTES).await;
            assert_eq!(read.unwrap(), 0);

            let (refused, back) = file.read(0, back, 4 * PAGE_BYTES).await;
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
            let (refused, back) = file.read(1, back, PAGE_BYTES).await;
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
            let (refused, back) = file.write(0, back, PAGE_BYTES..5 * PAGE_BYTES, WriteMode::Unsynced).await;
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
            let (refused, back) = file.write(0, back, 0..PAGE_BYTES, WriteMode::Unsynced).await;
            assert!(refused.is_err(), "opened for reading");
            assert_eq!(back.capacity(), 3 * PAGE_BYTES);
        }
    });
}

#[test]
fn many_operations_are_in_flight_at_once() {
    let _deadline = deadline("parallel files");
    let dir = directory();
    let path = dir.path().join("data");
    run_one(move |env| {
        let path = path.clone();
        async move {
            const PAGES: usize = 3000;
            let file = std::rc::Rc::new(env.open(&path, OpenMode::CreateNew).await.unwrap());
            for write in [true, false] {
                let left = std::rc::Rc::new(std::cell::Cell::new(PAGES));
                for page in 0..PAGES {
                    let (file, left) = (file.clone(), left.clone());
                    env.spawn(TaskClass::Foreground, async move {
                        let offset = (page * PAGE_BYTES) as u64;
                        if write {
                            let buffer = filled(PAGE_BYTES, page as u8);
                            file.write(offset, buffer, 0..PAGE_BYTES, WriteMode::Unsynced).await.0.unwrap();
                        } else {
                            let (read, back) = file.read(offset, filled(PAGE_BYTES, 0), PAGE_BYTES).await;
                            assert_eq!(read.unwrap(), PAGE_BYTES);
                            assert!(back.iter().all(|byte| *byte == page as u8));
                        }
                        left.set(left.get() - 1);
                    });
                }
                while left.get() > 0 {
                    env.yield_now().await;
                }
            }
            file.sync().await.unwrap();
        }
    });
}

/// A future dropped at any stage leaves the operation to end by itself, with its memory alive.
#[test]
fn dropped_operations_keep_their_memory() {
    let _deadline = deadline("dropped operations");
    let dir = directory();
    let path = dir.path().join("data");
    run_one(move |env| {
        let path = path.clone();
        async move {
            let file = env.open(&path, OpenMode::CreateNew).await.unwrap();
            let mut context = Context::from_waker(Waker::noop());
            for number in 0..500u32 {
                let buffer = filled(64 * PAGE_BYTES, number as u8);
                let mode = if number % 8 == 0 { WriteMode::Durable } else { WriteMode::Unsynced };
                {
                    let mut write = pin!(file.write(0, buffer, 0..64 * PAGE_BYTES, mode));
                    assert!(write.as_mut().poll(&mut context).is_pending());
                }
                {
                    let mut open = pin!(env.open(&path, OpenMode::Read));
                    assert!(open.as_mut().poll(&mut context).is_pending());
                }
                if number % 3 == 0 {
                    env.yield_now().await;
                }
                drop(file.read(0, AlignedBuf::default(), 0));
            }
            let (outcome, buffer) =
                file.write(0, filled(PAGE_BYTES, 77), 0..PAGE_BYTES, WriteMode::Durable).await;
            outcome.unwrap();
            assert_eq!(buffer[0], 77);
        }
    });
}

#[test]
fn directories_are_made_listed_renamed_and_synced() {
    let _deadline = deadline("directories");
    let dir = directory();
    let root = dir.path().to_owned();
    run_one(move |env| {
        let root = root.clone();
        async move {
            let deep = root.join("a/b/c");
            create_dir_all(&env, &deep).await.unwrap();
            create_dir_all(&env, &deep).await.unwrap();
            let again = env.create_dir(&deep).await.unwrap_err();
            assert_eq!(again.kind(), ErrorKind::AlreadyExists);

            for name in ["two", "one", "three"] {
                let file = env.open(&deep.join(name), OpenMode::CreateNew).await.unwrap();
                let buffer = filled(PAGE_BYTES, 4);
                file.write(0, buffer, 0..PAGE_BYTES, WriteMode::Durable).await.0.unwrap();
            }
            env.create_dir(&deep.join("sub")).await.unwrap();
            env.rename(&deep.join("one"), &deep.join("two")).await.unwrap();
            env.remove(&deep.join("three")).await.unwrap();
            assert_eq!(env.remove(&deep.join("three")).await.unwrap_err().kind(), ErrorKind::NotFound);
            env.sync_dir(&deep).await.unwrap();
            assert!(env.sync_dir(&deep.join("two")).await.is_err());

            let entries = env.list(&deep).await.unwrap();
            let seen: Vec<_> =
                entries.iter().map(|entry| (entry.name.as_str(), entry.is_dir, entry.bytes)).collect();
            assert_eq!(seen, [("sub", true, 0), ("two", false, PAGE_BYTES as u64)]);
            assert!(env.list(Path::new("/nowhere")).await.is_err());
        }
    });
}

#[test]
fn space_and_locks_are_told() {
    let _deadline = deadline("space and locks");
    let dir = directory();
    let root = dir.path().to_owned();
    run_one(move |env| {
        let root = root.clone();
        async move {
            let space = env.space(&root).await.unwrap();
            assert!(space.available_bytes > 0 && space.available_bytes <= space.total_bytes);
            assert!(space.block_bytes.is_power_of_two());
            assert!((512..=PAGE_BYTES as u32).contains(&space.block_bytes));

            let path = root.join("lock");
            let held = env.lock(&path).await.unwrap();
            assert!(held.is_some());
            assert!(env.lock(&path).await.unwrap().is_none());
            drop(held);
            assert!(env.lock(&path).await.unwrap().is_some());
        }
    });
}

/// Tasks that do nothing but yield keep nobody's I/O waiting.
#[test]
fn files_are_served_beside_yielding_tasks() {
    let _deadline = deadline("beside yielding");
    let dir = directory();
    let path = dir.path().join("data");
    run_one(move |env| {
        let path = path.clone();
        async move {
            let stop = std::rc::Rc::new(std::cell::Cell::new(false));
            for class in [TaskClass::Background, TaskClass::Flush] {
                let (inner, stop) = (env.clone(), stop.clone());
                env.spawn(class, async move {
                    while !stop.get() {
                        inner.yield_now().await;
                    }
                });
            }
            let file = env.open(&path, OpenMode::CreateNew).await.unwrap();
            for _ in 0..500 {
                let buffer = filled(PAGE_BYTES, 1);
                file.write(0, buffer, 0..PAGE_BYTES, WriteMode::Unsynced).await.0.unwrap();
                file.read(0, AlignedBuf::zeroed(PAGE_BYTES), PAGE_BYTES).await.0.unwrap();
            }
            stop.set(true);
        }
    });
}

#[test]
fn dropped_files_are_closed() {
    let _deadline = deadline("closing");
    let dir = directory();
    let here = dir.path().canonicalize().unwrap();
    let path = here.clone();
    run_one(move |env| {
        let path = path.clone();
        async move {
            let open = || {
                let files = std::fs::read_dir("/proc/self/fd").unwrap();
                let targets = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
                targets.filter(|target| target.starts_with(&path)).count()
            };
            let mut files = Vec::new();
            for number in 0..20 {
                let file = env.open(&path.join(number.to_string()), OpenMode::CreateNew).await.unwrap();
                let buffer = AlignedBuf::zeroed(PAGE_BYTES);
                // An operation that outlives its file.
                let mut write = pin!(file.write(0, buffer, 0..PAGE_BYTES, WriteMode::Unsynced));
                assert!(write.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
                files.push(file);
            }
            assert_eq!(open(), 20);
            drop(files);
            while open() > 0 {
                env.yield_now().await;
            }
        }
    });
}
