//! What a power cut leaves of names and sizes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pinion_env::WriteMode;

use super::super::{Disk, Inode, PowerCut};
use super::{counted, create, disk, page, sync, sync_dir, write};
use crate::world::random::Random;

fn rename(disk: &Disk, from: &str, to: &str) {
    disk.rename(Path::new(from), Path::new(to)).unwrap();
}

fn files(disk: &Disk) -> Vec<String> {
    disk.files().iter().map(|path| path.to_str().unwrap().to_owned()).collect()
}

/// A file of one durable page of `byte`; its name is pending.
fn filled(disk: &Disk, path: &str, byte: u8) -> Inode {
    let file = create(disk, path);
    write(disk, &file, 0, byte, WriteMode::Durable).unwrap();
    file
}

fn first_byte(disk: &Disk, path: &str) -> u8 {
    disk.read(Path::new(path)).unwrap()[0]
}

#[test]
fn names_stay_only_with_a_sync_of_their_directory() {
    let disk = disk(1 << 20, 512);
    disk.create_dir(Path::new("data")).unwrap();
    sync_dir(&disk, "").unwrap();
    let old = filled(&disk, "data/old", 1);
    sync(&disk, &old).unwrap();
    disk.cut(&PowerCut::drop_all());
    assert_eq!(files(&disk), Vec::<String>::new(), "a sync of the file does not make its name durable");
    assert_eq!(disk.used_bytes(), 0);

    filled(&disk, "data/old", 1);
    sync_dir(&disk, "data").unwrap();
    let mark = disk.begin_sync_dir();
    filled(&disk, "data/new", 2);
    disk.sync_dir(Path::new("data"), mark).unwrap();
    sync_dir(&disk, "").unwrap();
    disk.cut(&PowerCut::drop_all());
    assert_eq!(files(&disk), ["data/old"], "a sync covers what was done when it began");

    filled(&disk, "data/new", 2);
    sync_dir(&disk, "data").unwrap();
    rename(&disk, "data/new", "data/old");
    assert_eq!(first_byte(&disk, "data/old"), 2);
    disk.cut(&PowerCut::drop_all());
    assert_eq!(files(&disk), ["data/new", "data/old"]);
    assert_eq!((first_byte(&disk, "data/new"), first_byte(&disk, "data/old")), (2, 1));
    assert_eq!(disk.used_bytes(), 2 * 4096);

    disk.remove(Path::new("data/old")).unwrap();
    disk.cut(&PowerCut::drop_all());
    assert_eq!(first_byte(&disk, "data/old"), 1);
    rename(&disk, "data/new", "data/old");
    sync_dir(&disk, "data").unwrap();
    disk.cut(&PowerCut::drop_all());
    assert_eq!((files(&disk), first_byte(&disk, "data/old")), (vec!["data/old".to_owned()], 2));
    let space = disk.space(Path::new("data")).unwrap();
    assert_eq!(space.available_bytes, (1 << 20) - 4096);
    for name in ["creation dropped", "rename dropped", "removal dropped"] {
        assert!(counted(&disk, name) > 0, "{name}");
    }
}

#[test]
fn what_lies_in_a_new_directory_goes_with_it() {
    let disk = disk(1 << 20, 512);
    disk.create_dir(Path::new("data")).unwrap();
    disk.create_dir(Path::new("data/shard")).unwrap();
    filled(&disk, "data/shard/log", 1);
    sync_dir(&disk, "data/shard").unwrap();
    sync_dir(&disk, "data").unwrap();
    disk.cut(&PowerCut::drop_all());
    assert!(disk.list(Path::new("data")).is_err());
    disk.create_dir(Path::new("data")).unwrap();
    assert!(disk.list(Path::new("data")).unwrap().is_empty(), "nothing comes back from under a lost name");
}

#[test]
fn a_rename_between_directories_is_durable_with_either() {
    for synced in ["from", "to"] {
        let disk = disk(1 << 20, 512);
        disk.create_dir(Path::new("from")).unwrap();
        disk.create_dir(Path::new("to")).unwrap();
        sync_dir(&disk, "").unwrap();
        filled(&disk, "from/a", 1);
        rename(&disk, "from/a", "to/b");
        sync_dir(&disk, synced).unwrap();
        disk.cut(&PowerCut::drop_all());
        assert_eq!(files(&disk), ["to/b"], "synced: {synced}");
    }
}

#[test]
fn pending_names_are_kept_as_a_prefix_or_as_any_consistent_subset() {
    for in_order in [true, false] {
        let mut seen = BTreeSet::new();
        for seed in 0..400 {
            let disk = Disk::new(1 << 20, 512, Random::new(seed));
            filled(&disk, "current", 1);
            sync_dir(&disk, "").unwrap();
            filled(&disk, "temporary", 2);
            rename(&disk, "temporary", "current");
            filled(&disk, "other", 3);
            let cut = PowerCut { name_dropped: 128, names_in_order: in_order, ..PowerCut::keep_all() };
            disk.cut(&cut);
            let current = first_byte(&disk, "current");
            seen.insert((files(&disk).join(" "), current));
        }
        let mut expected =
            vec![("current", 1), ("current temporary", 1), ("current", 2), ("current other", 2)];
        if !in_order {
            expected.extend([("current other", 1), ("current other temporary", 1)]);
        }
        let expected: BTreeSet<_> =
            expected.iter().map(|(names, byte)| ((*names).to_owned(), *byte)).collect();
        assert_eq!(seen, expected, "in order: {in_order}");
    }
}

#[test]
fn a_file_removed_behind_the_nodes_back_does_not_return() {
    let disk = disk(1 << 20, 512);
    filled(&disk, "a", 1);
    sync_dir(&disk, "").unwrap();
    rename(&disk, "a", "b");
    disk.delete(Path::new("b")).unwrap();
    for cut in [PowerCut::drop_all(), PowerCut::keep_all()] {
        disk.cut(&cut);
        assert_eq!(disk.files(), Vec::<PathBuf>::new());
    }
}

#[test]
fn growth_is_durable_with_a_durable_write_or_a_sync() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let disk = Disk::new(1 << 20, 512, Random::new(seed));
        let file = filled(&disk, "file", 1);
        sync_dir(&disk, "").unwrap();
        disk.write_at(&file, 4096, &page(2), 0..4096, WriteMode::Unsynced).unwrap();
        let cut = PowerCut { sector_dropped: 256, size_cut: 128, ..PowerCut::keep_all() };
        disk.cut(&cut);
        let left = disk.read(Path::new("file")).unwrap();
        assert_eq!(left[..4096], [1; 4096], "what was durable stays");
        assert!(left[4096..].iter().all(|byte| *byte == 0), "dropped data reads as zeros");
        seen.insert(left.len());

        disk.write_at(&file, 8192, &page(3), 0..4096, WriteMode::Unsynced).unwrap();
        sync(&disk, &file).unwrap();
        disk.cut(&PowerCut::drop_all());
        assert_eq!(disk.read(Path::new("file")).unwrap()[8192..], [3; 4096]);
    }
    assert!(seen.contains(&4096) && seen.contains(&8192) && seen.len() > 4, "{seen:?}");
}

#[test]
fn cuts_differ_some_keep_all_and_some_drop_all() {
    let mut random = Random::new(1);
    let cuts: Vec<_> = (0..2000).map(|_| PowerCut::draw(&mut random)).collect();
    let share = |wanted: fn(&PowerCut) -> bool| cuts.iter().filter(|cut| wanted(cut)).count();
    let keeps_all = |cut: &PowerCut| cut.sector_dropped == 0 && cut.name_dropped == 0 && cut.size_cut == 0;
    let drops_all =
        |cut: &PowerCut| cut.sector_dropped == 256 && cut.name_dropped == 256 && cut.size_cut == 256;
    assert!(share(keeps_all) > 100 && share(drops_all) > 100);
    assert!(share(|cut| cut.sector_garbled > 0) > 200 && share(|cut| cut.sector_torn > 0) > 200);
    assert!(share(|cut| cut.names_in_order) > 500 && share(|cut| !cut.names_in_order) > 500);
}
