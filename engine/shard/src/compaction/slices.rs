//! Slices: equal parts of a shard's partitions, and so, keys being hashed, of its records.
//!
//! A table ends where a slice does, once it is large enough to stand alone. So the tables of a slice, in
//! all runs and in a level, meet each other and hardly anything else, and one job can merge them all:
//! each record then costs a share of what lies below, where a table at a time would cost all of it.

use crate::key::Partition;

/// In how many slices a shard is divided, at most.
const COUNT: u32 = 16;

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
}

#[cfg(test)]
mod tests {
    use super::*;

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
