//! Faults that leave or give wrong bytes while the operation succeeds.

use std::path::Path;

use pinion_env::{PAGE_BYTES, WriteMode};

use super::super::{Disk, Fault, Faults, Operation, PowerCut};
use super::{counted, disk, filled, read, write};
use crate::world::random::Random;

fn wrong_bits(found: &[u8], right: u8) -> u32 {
    found.iter().map(|byte| (byte ^ right).count_ones()).sum()
}

#[test]
fn flipped_bits_pass_and_rotten_ones_stay() {
    let disk = disk(1 << 20, 4096);
    let file = filled(&disk, "file", &[7, 7]);
    disk.fail_nth(Operation::Read, 1, Fault::Flip);
    assert_eq!(wrong_bits(&read(&disk, &file).unwrap(), 7), 1);
    assert_eq!(wrong_bits(&read(&disk, &file).unwrap(), 7), 0);
    disk.fail_nth(Operation::Read, 1, Fault::Rot);
    let rotten = read(&disk, &file).unwrap();
    assert_eq!(wrong_bits(&rotten, 7), 1);
    assert_eq!(read(&disk, &file).unwrap(), rotten);
    disk.fail_nth(Operation::Write, 1, Fault::Rot);
    write(&disk, &file, 0, 7, WriteMode::Durable).unwrap();
    write(&disk, &file, 1, 7, WriteMode::Durable).unwrap();
    let rotten = read(&disk, &file).unwrap();
    assert_eq!(wrong_bits(&rotten[..PAGE_BYTES], 7), 1);
    let last = disk.injected().pop().unwrap();
    assert_ne!(rotten[last.offset as usize], 7, "the place is told");
    disk.flip_bit(Path::new("file"), 4096, 0).unwrap();
    assert_eq!(wrong_bits(&read(&disk, &file).unwrap(), 7), 2);
    disk.flip_bit(Path::new("file"), 8192, 0).unwrap_err();
}

#[test]
fn an_unreadable_page_stays_so_until_it_is_written() {
    let disk = disk(1 << 20, 4096);
    let file = filled(&disk, "file", &[1, 2]);
    disk.fail_nth(Operation::Read, 1, Fault::Unreadable);
    for _ in 0..3 {
        read(&disk, &file).unwrap_err();
    }
    assert_eq!(counted(&disk, "read of an unreadable sector"), 3);
    disk.cut(&PowerCut::keep_all());
    read(&disk, &file).unwrap_err();
    write(&disk, &file, 0, 3, WriteMode::Durable).unwrap();
    write(&disk, &file, 1, 3, WriteMode::Durable).unwrap();
    read(&disk, &file).unwrap();
    disk.make_unreadable(Path::new("file"), 5000).unwrap();
    read(&disk, &file).unwrap_err();
    disk.heal();
    read(&disk, &file).unwrap();
}

#[test]
fn stale_reads_give_older_bytes_once() {
    let disk = disk(1 << 20, 4096);
    disk.fail_nth(Operation::Read, 2, Fault::Stale);
    let file = filled(&disk, "file", &[1, 1]);
    write(&disk, &file, 0, 2, WriteMode::Durable).unwrap();
    let page = |page: usize, read: &[u8]| read[page * PAGE_BYTES];
    let honest = read(&disk, &file).unwrap();
    let stale = read(&disk, &file).unwrap();
    assert_eq!((page(0, &honest), page(1, &honest)), (2, 1));
    assert_eq!((page(0, &stale), page(1, &stale)), (1, 1));
    assert_eq!(read(&disk, &file).unwrap(), honest);
    assert_eq!(counted(&disk, "stale read"), 1);

    disk.remove(Path::new("file")).unwrap();
    let file = filled(&disk, "file", &[3, 3]);
    disk.fail_nth(Operation::Read, 1, Fault::Stale);
    let stale = read(&disk, &file).unwrap();
    let pages = (page(0, &stale), page(1, &stale));
    assert!(pages == (2, 3) || pages == (3, 1), "one block belonged to a file that is gone: {pages:?}");
    assert_eq!(counted(&disk, "stale read"), 2);
}

#[test]
fn short_reads_end_before_the_file_does() {
    let disk = disk(1 << 20, 4096);
    let file = filled(&disk, "file", &[1, 2]);
    disk.fail_nth(Operation::Read, 1, Fault::Short);
    let mut buffer = pinion_env::AlignedBuf::zeroed(2 * PAGE_BYTES);
    assert!(disk.read_at(&file, 0, &mut buffer, 2 * PAGE_BYTES).unwrap() < 2 * PAGE_BYTES);
    assert_eq!(disk.read_at(&file, 0, &mut buffer, 2 * PAGE_BYTES).unwrap(), 2 * PAGE_BYTES);
    assert_eq!(counted(&disk, "short read"), 1);
}

#[test]
fn lost_writes_leave_what_was_there() {
    let disk = disk(1 << 20, 4096);
    let file = filled(&disk, "file", &[1]);
    disk.set_faults(Faults::none().with(Operation::Write, Fault::Skipped, 1));
    write(&disk, &file, 0, 2, WriteMode::Durable).unwrap();
    write(&disk, &file, 1, 2, WriteMode::Durable).unwrap();
    disk.cut(&PowerCut::drop_all());
    let left = read(&disk, &file).unwrap();
    assert_eq!((left[0], left[PAGE_BYTES], left.len()), (1, 0, 2 * PAGE_BYTES));
}

#[test]
fn misdirected_operations_go_to_another_place() {
    let (mut same, mut other) = (0, 0);
    for seed in 0..100 {
        let disk = Disk::new(1 << 20, 4096, Random::new(seed));
        let file = filled(&disk, "file", &[1, 2, 3]);
        filled(&disk, "other", &[4, 5]);
        let all = |disk: &Disk| {
            let mut all = disk.read(Path::new("file")).unwrap();
            all.extend(disk.read(Path::new("other")).unwrap());
            all.chunks(PAGE_BYTES).map(|page| page[0]).collect::<Vec<_>>()
        };
        disk.fail_nth(Operation::Write, 1, Fault::Misdirected);
        write(&disk, &file, 3, 9, WriteMode::Durable).unwrap();
        let left = all(&disk);
        assert_eq!((left.len(), left[3]), (6, 0), "its own place has grown, by zeros");
        let hit = left.iter().position(|byte| *byte == 9).expect("it went somewhere");
        let told = disk.injected().pop().unwrap();
        let place = if told.path == Path::new("file") { 0 } else { 4 } + told.offset as usize / PAGE_BYTES;
        assert_eq!(place, hit);
        if hit < 4 {
            same += 1
        } else {
            other += 1
        }

        disk.fail_nth(Operation::Read, 1, Fault::Misdirected);
        let mut buffer = pinion_env::AlignedBuf::zeroed(PAGE_BYTES);
        let right = all(&disk)[0];
        assert_eq!(disk.read_at(&file, 0, &mut buffer, PAGE_BYTES).unwrap(), PAGE_BYTES);
        assert_ne!(buffer[0], right);
        assert_eq!(counted(&disk, "misdirected read"), 1);
        assert_eq!(all(&disk), left, "a read changes nothing");
    }
    assert!(same > 20 && other > 20, "{same} {other}");
}
