//! Tests of the disk: by itself, and under nodes of a world.

mod cuts;
mod files;
mod sectors;
mod under_nodes;

use pinion_env::{AlignedBuf, PAGE_BYTES};

use super::Disk;
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
