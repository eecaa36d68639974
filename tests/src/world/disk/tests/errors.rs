//! Faults that the operation reports, and lies about durability.

use std::io::{self, ErrorKind};
use std::path::Path;

use pinion_env::{OpenMode, PAGE_BYTES, WriteMode};
use rustix::io::Errno;

use super::super::{Disk, Fault, Faults, Filter, Operation, PowerCut};
use super::{counted, create, disk, filled, page, read, sync, sync_dir, write};
use crate::world::random::Random;

fn is_broken<T: std::fmt::Debug>(result: io::Result<T>) -> bool {
    result.unwrap_err().raw_os_error() == Some(Errno::IO.raw_os_error())
}

fn pages(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| [*byte; PAGE_BYTES]).collect()
}

#[test]
fn the_nth_operation_of_a_kind_fails_and_no_other() {
    let disk = disk(1 << 20, 4096);
    let file = filled(&disk, "file", &[1]);
    disk.fail_nth(Operation::Write, 3, Fault::Error);
    disk.fail_nth(Filter::from(Operation::Open).on("fil"), 2, Fault::Error);
    let written: Vec<bool> =
        (1..=5).map(|byte| write(&disk, &file, 0, byte, WriteMode::Durable).is_ok()).collect();
    assert_eq!(written, [true, true, false, true, true]);
    create(&disk, "other");
    let open = |path| disk.open(Path::new(path), OpenMode::Read);
    open("file").unwrap();
    open("other").unwrap();
    assert!(is_broken(open("file")));
    open("file").unwrap();
    assert_eq!((counted(&disk, "write EIO"), counted(&disk, "open EIO")), (1, 1));
    let injected: Vec<_> = disk.injected().into_iter().map(|fault| (fault.name, fault.path)).collect();
    assert_eq!(injected, [("write EIO", "file".into()), ("open EIO", "file".into())]);

    disk.fail_from(Filter::any().on("file"), 2, Fault::Error);
    read(&disk, &file).unwrap();
    assert!(is_broken(read(&disk, &file)) && is_broken(sync(&disk, &file)) && is_broken(disk.bytes(&file)));
    disk.rename(Path::new("file"), Path::new("renamed")).unwrap_err();
    disk.heal();
    disk.rename(Path::new("file"), Path::new("renamed")).unwrap();
    assert_eq!(read(&disk, &file).unwrap(), pages(&[5]));
}

#[test]
fn a_failed_sync_is_not_mended_by_the_next_one() {
    for (cut, left) in [(PowerCut::drop_all(), [1, 3]), (PowerCut::keep_all(), [2, 3])] {
        let disk = disk(1 << 20, 4096);
        let file = filled(&disk, "file", &[1, 1]);
        write(&disk, &file, 0, 2, WriteMode::Unsynced).unwrap();
        disk.fail_nth(Operation::Sync, 1, Fault::Error);
        assert!(is_broken(sync(&disk, &file)));
        write(&disk, &file, 1, 3, WriteMode::Unsynced).unwrap();
        sync(&disk, &file).unwrap();
        assert_eq!(read(&disk, &file).unwrap(), pages(&[2, 3]), "the page cache has it");
        disk.cut(&cut);
        assert_eq!(read(&disk, &file).unwrap(), pages(&left));

        write(&disk, &file, 0, 4, WriteMode::Unsynced).unwrap();
        disk.fail_nth(Operation::Sync, 1, Fault::Error);
        assert!(is_broken(sync(&disk, &file)));
        write(&disk, &file, 0, 5, WriteMode::Unsynced).unwrap();
        sync(&disk, &file).unwrap();
        disk.cut(&PowerCut::drop_all());
        assert_eq!(read(&disk, &file).unwrap()[0], 5, "what is written anew is covered");
    }
}

#[test]
fn a_sync_that_fails_half_way_leaves_a_part() {
    let disk = disk(1 << 20, 4096);
    let file = filled(&disk, "file", &[1, 1]);
    write(&disk, &file, 0, 2, WriteMode::Unsynced).unwrap();
    write(&disk, &file, 1, 2, WriteMode::Unsynced).unwrap();
    disk.fail_nth(Operation::Sync, 1, Fault::Torn);
    assert!(is_broken(sync(&disk, &file)));
    disk.cut(&PowerCut::drop_all());
    let left = read(&disk, &file).unwrap();
    let new = left.chunks(512).filter(|sector| sector[0] == 2).count();
    assert!((1..16).contains(&new), "{new} of 16 sectors");
}

#[test]
fn names_of_a_failed_directory_sync_are_not_mended_either() {
    let disk = disk(1 << 20, 4096);
    let file = create(&disk, "temporary");
    write(&disk, &file, 0, 1, WriteMode::Durable).unwrap();
    disk.fail_nth(Operation::SyncDirectory, 1, Fault::Error);
    assert!(is_broken(sync_dir(&disk, "")));
    disk.rename(Path::new("temporary"), Path::new("current")).unwrap();
    create(&disk, "other");
    sync_dir(&disk, "").unwrap();
    disk.cut(&PowerCut::drop_all());
    assert_eq!(disk.files(), [Path::new("other")], "the rename builds on a name that was never durable");
}

#[test]
fn lies_about_durability_are_found_out_by_a_cut() {
    let lies = [
        (Operation::Sync, Fault::Skipped, "skipped sync"),
        (Operation::SyncDirectory, Fault::Skipped, "skipped directory sync"),
        (Operation::Write, Fault::Early, "durable write ended early"),
    ];
    for (operation, fault, name) in lies {
        let disk = disk(1 << 20, 4096);
        let file = filled(&disk, "file", &[1, 1]);
        disk.set_faults(Faults::none().with(operation, fault, 1));
        write(&disk, &file, 0, 2, WriteMode::Unsynced).unwrap();
        sync(&disk, &file).unwrap();
        write(&disk, &file, 1, 2, WriteMode::Durable).unwrap();
        disk.rename(Path::new("file"), Path::new("renamed")).unwrap();
        sync_dir(&disk, "").unwrap();
        disk.cut(&PowerCut::drop_all());
        let (name_left, left) = match name {
            "skipped sync" => ("renamed", pages(&[1, 2])),
            "skipped directory sync" => ("file", pages(&[2, 2])),
            _ => ("renamed", pages(&[2, 1])),
        };
        assert_eq!(disk.read(Path::new(name_left)).unwrap(), left, "{name}");
        assert_eq!(counted(&disk, name), 1);
    }
}

#[test]
fn failed_writes_leave_a_prefix_and_a_full_disk_fails_growth_only() {
    let mut prefixes = std::collections::BTreeSet::new();
    for seed in 0..60 {
        let disk = Disk::new(1 << 20, 4096, Random::new(seed));
        let file = filled(&disk, "file", &[1, 1]);
        disk.fail_nth(Operation::Write, 1, Fault::Torn);
        let failed = disk.write_at(&file, 4096, &page(2), 0..4096, WriteMode::Durable);
        assert!(is_broken(failed));
        let left = read(&disk, &file).unwrap();
        let prefix = left[4096..].iter().take_while(|byte| **byte == 2).count();
        assert!(prefix.is_multiple_of(512) && left[4096 + prefix..].iter().all(|byte| *byte == 1));
        prefixes.insert(prefix);

        disk.set_faults(Faults::none().with(Operation::Write, Fault::Full, 1));
        write(&disk, &file, 0, 3, WriteMode::Durable).unwrap();
        let full = write(&disk, &file, 2, 3, WriteMode::Durable).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        assert!(file.borrow().bytes() < 3 * 4096);
        disk.set_faults(Faults::none());
        write(&disk, &file, 2, 3, WriteMode::Durable).unwrap();
    }
    assert_eq!(prefixes.len(), 9, "{prefixes:?}");
}

#[test]
fn some_failed_changes_of_names_have_happened() {
    let disk = disk(1 << 20, 4096);
    disk.fail_nth(Operation::Create, 1, Fault::Torn);
    assert!(is_broken(disk.open(Path::new("a"), OpenMode::CreateNew)));
    disk.fail_nth(Operation::Rename, 1, Fault::Torn);
    assert!(is_broken(disk.rename(Path::new("a"), Path::new("b"))));
    assert_eq!(disk.files(), [Path::new("b")]);
    disk.fail_nth(Operation::Remove, 1, Fault::Torn);
    assert!(is_broken(disk.remove(Path::new("b"))));
    assert!(disk.files().is_empty());
    disk.fail_nth(Operation::Remove, 1, Fault::Torn);
    let missing = disk.remove(Path::new("b")).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound, "an honest failure stays what it is");
    disk.fail_nth(Operation::Create, 1, Fault::Full);
    let full = disk.open(Path::new("a"), OpenMode::CreateNew).unwrap_err();
    assert_eq!((full.kind(), disk.files().len()), (ErrorKind::StorageFull, 0));
}
