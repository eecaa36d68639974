//! Slices: equal parts of a shard's partitions, and so, keys being hashed, of its records.
//!
//! A table ends where a slice does, or a few of them where it would be too small to stand alone: a power of
//! two, the same for all tables that are written together, so that the ends of large tables are among those of
//! small ones. So the tables of a slice, in all runs and in a level, meet each other and hardly anything else,
//! and one job can merge them all: each record then costs a share of what lies below, where a table at a time
//! would cost all of it.

use crate::key::Partition;

/// In how many slices a shard is divided, at most.
const COUNT: u32 = 64;

/// How a shard is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slices {
    first: u32,
    partitions: u32,
    count: u32,
}

impl Slices {
    /// Of the partitions from `first` on.
    pub fn new(first: Partition, partitions: u32) -> Self {
        let partitions = partitions.max(1);
        Self { first: u32::from(first.0), partitions, count: partitions.min(COUNT) }
    }

    /// How many there are.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The slice of a partition.
    pub fn of(&self, partition: Partition) -> u32 {
        let place = u32::from(partition.0).saturating_sub(self.first).min(self.partitions - 1);
        place * self.count / self.partitions
    }

    /// How many slices there are from one partition to another.
    pub fn between(&self, first: Partition, last: Partition) -> u32 {
        self.of(last).saturating_sub(self.of(first)) + 1
    }

    /// How many slices a table takes if it is to have about `bytes_wanted`, and half of that at least, where
    /// `bytes` are written in `slices`.
    pub fn width(bytes: u64, slices: u32, bytes_wanted: u64) -> u32 {
        let each = (bytes / u64::from(slices.max(1))).max(1);
        let width = bytes_wanted.div_ceil(each).clamp(1, u64::from(COUNT)) as u32;
        1 << width.ilog2()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_cut_so_that_tables_are_large_enough() {
        let width = |bytes| Slices::width(bytes, 64, 1_000);
        assert_eq!([640_000, 64_000, 63_000, 20_000, 12_000, 1].map(width), [1, 1, 2, 4, 4, 64]);
        let slices = Slices::new(Partition(256), 256);
        assert_eq!((slices.count(), slices.between(Partition(300), Partition(315))), (64, 4));
    }

    #[test]
    fn slices_are_equal_parts_in_order() {
        for (first, partitions) in [(0, 1_024), (256, 256), (1_000, 24), (7, 3), (5, 1)] {
            let slices = Slices::new(Partition(first), partitions);
            let of = |place: u32| slices.of(Partition(first + place as u16));
            let mut sizes = vec![0; slices.count() as usize];
            for place in 0..partitions {
                sizes[of(place) as usize] += 1;
                assert!(place == 0 || of(place - 1) <= of(place));
            }
            let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            assert!(*least > 0 && most - least <= 1, "{sizes:?}");
            // What is not its own belongs to the nearest slice.
            assert_eq!((slices.of(Partition(0)), of(partitions)), (0, slices.count() - 1));
        }
    }
}
