//! Tests of the disk: by itself, and under nodes of a world.

mod cuts;
mod damage;
mod errors;
mod fault_points;
mod files;
mod sectors;
mod under_nodes;

use std::io;
use std::path::Path;

use pinion_env::{AlignedBuf, OpenMode, PAGE_BYTES, WriteMode};

use super::{Disk, Inode};
use crate::world::random::Random;

fn disk(total_bytes: u64, block_bytes: u32) -> Disk {
    Disk::new(total_bytes, block_bytes, Random::new(1))
}

fn page(byte: u8) -> AlignedBuf {
    let mut buffer = AlignedBuf::zeroed(PAGE_BYTES);
    buffer.fill(byte);
    buffer
}

/// A count by its name.
fn counted(disk: &Disk, name: &str) -> u64 {
    let counts = disk.fault_counts();
    counts.iter().find(|(found, _)| *found == name).expect("the count has this name").1
}

fn create(disk: &Disk, path: &str) -> Inode {
    disk.open(Path::new(path), OpenMode::CreateNew).unwrap()
}

/// A file of durable pages of these bytes, its name durable as well.
fn filled(disk: &Disk, path: &str, bytes: &[u8]) -> Inode {
    let file = create(disk, path);
    for (number, byte) in (0..).zip(bytes) {
        write(disk, &file, number, *byte, WriteMode::Durable).unwrap();
    }
    sync_dir(disk, "").unwrap();
    file
}

/// Fills a page of a file with a byte.
fn write(disk: &Disk, file: &Inode, number: u64, byte: u8, mode: WriteMode) -> io::Result<()> {
    disk.write_at(file, number * PAGE_BYTES as u64, &page(byte), 0..PAGE_BYTES, mode)
}

/// The pages of a file as the node reads them.
fn read(disk: &Disk, file: &Inode) -> io::Result<Vec<u8>> {
    let mut buffer = AlignedBuf::zeroed(file.borrow().bytes() as usize);
    let bytes = buffer.capacity();
    let read = disk.read_at(file, 0, &mut buffer, bytes)?;
    Ok(buffer[..read].to_vec())
}

fn sync(disk: &Disk, file: &Inode) -> io::Result<()> {
    let mark = file.borrow_mut().begin_sync();
    disk.sync(file, mark)
}

fn sync_dir(disk: &Disk, path: &str) -> io::Result<()> {
    disk.sync_dir(Path::new(path), disk.begin_sync_dir())
}
