//! Which core owns which shard.
//!
//! Shards are dealt to cores in contiguous ranges, so that a core's partitions are contiguous too.
//! Fewer cores than shards: a core takes several. More cores than shards: the surplus carries no
//! data.

use std::ops::Range;

use pinion_engine::partitions_of_shard;

/// The number of cores, shards and partitions of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) cores: u16,
    pub(crate) shards: u16,
    pub(crate) partitions: u32,
}

impl Layout {
    /// The core that owns a shard.
    pub(crate) fn core_of(&self, shard: u16) -> u16 {
        let used = u32::from(self.cores.min(self.shards));
        (u32::from(shard) * used / u32::from(self.shards)) as u16
    }

    /// The shards that a core owns.
    pub(crate) fn shards_of(&self, core: u16) -> Range<u16> {
        let first = (0..self.shards).find(|shard| self.core_of(*shard) >= core).unwrap_or(self.shards);
        let end = (first..self.shards).find(|shard| self.core_of(*shard) > core).unwrap_or(self.shards);
        first..end
    }

    /// The partitions of a shard: first and last.
    pub(crate) fn partitions_of(&self, shard: u16) -> (u16, u16) {
        let partitions = partitions_of_shard(shard, self.shards, self.partitions);
        (partitions.start as u16, (partitions.end - 1) as u16)
    }

    /// Cores that carry no data.
    pub(crate) fn surplus_cores(&self) -> u16 {
        self.cores.saturating_sub(self.shards)
    }
}

#[cfg(test)]
mod tests {
    use pinion_engine::Partition;

    use super::*;

    #[test]
    fn every_shard_has_one_core_and_ranges_are_contiguous() {
        for cores in 1..=9 {
            for shards in 1..=9 {
                let layout = Layout { cores, shards, partitions: 1_024 };
                let mut next = 0;
                for core in 0..cores {
                    let range = layout.shards_of(core);
                    assert_eq!(range.start, next.min(shards));
                    assert!(range.clone().all(|shard| layout.core_of(shard) == core));
                    assert_eq!(range.is_empty(), core >= shards, "cores {cores}, shards {shards}");
                    next = range.end;
                }
                assert_eq!(next, shards);
                assert_eq!(layout.surplus_cores(), cores.saturating_sub(shards));
            }
        }
    }

    #[test]
    fn partitions_of_a_shard_agree_with_placement() {
        for shards in 1..=64 {
            let layout = Layout { cores: 1, shards, partitions: 1_024 };
            for shard in 0..shards {
                let (first, last) = layout.partitions_of(shard);
                assert!(first <= last);
                for partition in first..=last {
                    assert_eq!(Partition(partition).shard(shards, 1_024), shard);
                }
            }
            assert_eq!(layout.partitions_of(shards - 1).1, 1_023);
        }
    }
}
