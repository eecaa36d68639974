//! The unit that data blocks are filled to.
//!
//! Small blocks make hits cheap (one 4 KiB read), but records of awkward sizes leave much of them
//! empty. So a table takes the smallest unit that wastes less than a tenth, judged by its first
//! records; if none does, the one that wastes least.

use pinion_env::page_round_up;

use super::UNIT_BYTES_MAX;
use super::block_builder::BLOCK_OVERHEAD_BYTES;

/// Padding that is acceptable, in hundredths of the stored size.
const PADDING_PERCENT_MAX: u64 = 10;

/// What data blocks are filled to. A record that does not fit has a block of its own, in whole
/// pages of 4 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockUnit {
    /// 4 KiB.
    Four,
    /// 8 KiB.
    Eight,
    /// 16 KiB.
    Sixteen,
}

impl BlockUnit {
    const ALL: [Self; 3] = [Self::Four, Self::Eight, Self::Sixteen];

    /// In bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Four => 4 << 10,
            Self::Eight => 8 << 10,
            Self::Sixteen => UNIT_BYTES_MAX,
        }
    }

    /// The unit for records that take these bytes within a block.
    pub(crate) fn choose(record_bytes: &[usize]) -> Self {
        let mut best = (u64::MAX, Self::Four);
        for unit in Self::ALL {
            let percent = unit.padding_percent(record_bytes);
            if percent < PADDING_PERCENT_MAX {
                return unit;
            }
            if percent < best.0 {
                best = (percent, unit);
            }
        }
        best.1
    }

    /// Padding of all blocks but the last, which is not full for other reasons.
    fn padding_percent(self, record_bytes: &[usize]) -> u64 {
        let (mut stored, mut used, mut block) = (0, 0, 0);
        for bytes in record_bytes {
            if block > 0 && block + bytes > self.bytes() {
                stored += page_round_up(block);
                used += block;
                block = 0;
            }
            if block == 0 {
                block = BLOCK_OVERHEAD_BYTES;
            }
            block += bytes;
        }
        if stored == 0 {
            // One block holds everything: judge that one.
            (stored, used) = (page_round_up(block), block);
        }
        ((stored - used) * 100 / stored.max(1)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_unit_with_little_padding_is_chosen() {
        let of = |bytes: usize| BlockUnit::choose(&vec![bytes; 200]);
        assert_eq!(of(40), BlockUnit::Four);
        assert_eq!(of(26 + 32 + 512), BlockUnit::Four);
        // Two of 1,500 bytes leave a quarter of 4 KiB empty, five fill 8 KiB.
        assert_eq!(of(1500), BlockUnit::Eight);
        assert_eq!(of(3000), BlockUnit::Sixteen);
        // Own blocks in any case: no larger unit helps.
        assert_eq!(of(100_000), BlockUnit::Four);
        assert_eq!(BlockUnit::choose(&[]), BlockUnit::Four);
        assert_eq!(BlockUnit::choose(&[10]), BlockUnit::Four);
    }
}
