//! Files, directories, space and locks, without any cut.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use pinion_env::{AlignedBuf, OpenMode, PAGE_BYTES, WriteMode};

use super::{disk, page};

#[test]
fn files_keep_bytes_and_directories_list_them_sorted() {
    let disk = disk(1 << 20, 512);
    disk.create_dir(Path::new("/data")).unwrap();
    let file = disk.open(Path::new("./data/b"), OpenMode::CreateNew).unwrap();
    disk.open(Path::new("data/a"), OpenMode::CreateNew).unwrap();
    disk.create_dir(Path::new("data/c")).unwrap();
    disk.open(Path::new("data/c/hidden"), OpenMode::CreateNew).unwrap();
    disk.write_at(&file, 512, &page(7), 0..1024, WriteMode::Durable).unwrap();

    let mut buffer = AlignedBuf::zeroed(2 * PAGE_BYTES);
    buffer.fill(9);
    assert_eq!(disk.read_at(&file, 0, &mut buffer, 2 * PAGE_BYTES).unwrap(), 1536);
    assert!(buffer[..512].iter().all(|byte| *byte == 0));
    assert!(buffer[512..1536].iter().all(|byte| *byte == 7));
    assert_eq!(disk.read_at(&file, 4096, &mut buffer, PAGE_BYTES).unwrap(), 0);

    let listed = disk.list(Path::new("data")).unwrap();
    let names: Vec<_> = listed.iter().map(|entry| (entry.name.as_str(), entry.is_dir, entry.bytes)).collect();
    assert_eq!(names, [("a", false, 0), ("b", false, 1536), ("c", true, 0)]);
    assert_eq!(disk.list(Path::new("/")).unwrap().len(), 1);
}

#[test]
fn renames_replace_and_removed_files_stay_readable_while_open() {
    let disk = disk(1 << 20, 4096);
    let old = disk.open(Path::new("old"), OpenMode::CreateNew).unwrap();
    let new = disk.open(Path::new("new"), OpenMode::CreateNew).unwrap();
    disk.write_at(&old, 0, &page(1), 0..4096, WriteMode::Durable).unwrap();
    disk.write_at(&new, 0, &page(2), 0..4096, WriteMode::Durable).unwrap();
    disk.rename(Path::new("new"), Path::new("old")).unwrap();
    assert_eq!(disk.files(), [PathBuf::from("old")]);
    assert_eq!(disk.used_bytes(), 4096);
    assert_eq!(disk.read(Path::new("old")).unwrap(), vec![2; 4096]);
    let mut buffer = AlignedBuf::zeroed(PAGE_BYTES);
    assert_eq!(disk.read_at(&old, 0, &mut buffer, 4096).unwrap(), 4096);
    assert_eq!(buffer[0], 1);
    disk.remove(Path::new("old")).unwrap();
    assert_eq!(disk.space(Path::new("")).unwrap().available_bytes, 1 << 20);
    let again = disk.open(Path::new("old"), OpenMode::Read).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::NotFound);
}

#[test]
fn a_full_disk_refuses_growth_and_takes_overwrites() {
    let disk = disk(2 * 4096, 4096);
    let file = disk.open(Path::new("file"), OpenMode::CreateNew).unwrap();
    disk.write_at(&file, 0, &page(1), 0..4096, WriteMode::Durable).unwrap();
    disk.write_at(&file, 4096, &page(1), 0..4096, WriteMode::Durable).unwrap();
    let full = disk.write_at(&file, 8192, &page(1), 0..4096, WriteMode::Durable).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    disk.write_at(&file, 4096, &page(2), 0..4096, WriteMode::Durable).unwrap();
    disk.set_total_bytes(3 * 4096);
    disk.write_at(&file, 8192, &page(3), 0..4096, WriteMode::Durable).unwrap();
    disk.truncate(Path::new("file"), 5000).unwrap();
    assert_eq!(disk.space(Path::new("file")).unwrap().available_bytes, 4096);
}

#[test]
fn what_direct_io_refuses_is_refused() {
    let disk = disk(1 << 20, 512);
    let file = disk.open(Path::new("file"), OpenMode::CreateNew).unwrap();
    let kind = |result: io::Result<()>| result.unwrap_err().kind();
    assert_eq!(
        kind(disk.write_at(&file, 100, &page(1), 0..512, WriteMode::Durable)),
        ErrorKind::InvalidInput
    );
    assert_eq!(kind(disk.write_at(&file, 0, &page(1), 0..100, WriteMode::Durable)), ErrorKind::InvalidInput);
    assert_eq!(
        kind(disk.write_at(&file, 0, &page(1), 512..1024, WriteMode::Durable)),
        ErrorKind::InvalidInput
    );
    assert_eq!(kind(disk.write_at(&file, 0, &page(1), 0..8192, WriteMode::Durable)), ErrorKind::InvalidInput);
    let mut buffer = AlignedBuf::zeroed(PAGE_BYTES);
    assert!(disk.read_at(&file, 512, &mut buffer, 4096).is_err());
    assert!(disk.read_at(&file, 0, &mut buffer, 512).is_err());
    assert!(disk.read_at(&file, 0, &mut buffer, 8192).is_err());
    assert!(disk.create_dir(Path::new("../escape")).is_err());
    assert!(disk.create_dir(Path::new("missing/child")).is_err());
}

#[test]
fn a_lock_has_one_holder() {
    let disk = disk(1 << 20, 512);
    let held = disk.lock(Path::new("LOCK")).unwrap().unwrap();
    assert!(disk.lock(Path::new("LOCK")).unwrap().is_none());
    drop(held);
    let _leaked = disk.lock(Path::new("LOCK")).unwrap().unwrap();
    disk.release_locks();
    assert!(disk.lock(Path::new("LOCK")).unwrap().is_some());
}
