//! How often something took how long, as plain numbers of one core: what costs a few instructions to count.

/// Places for each power of two, as a power of two.
const PARTS_LOG2: u32 = 2;

/// How often something took how long, in nanoseconds, to a quarter of its power of two. Two kilobytes.
#[derive(Debug, Clone)]
pub struct Quarters([u64; Self::PLACES]);

impl Default for Quarters {
    fn default() -> Self {
        Self([0; Self::PLACES])
    }
}

impl Quarters {
    /// Places that are told apart.
    pub const PLACES: usize = 64 << PARTS_LOG2;

    /// Counts a time in nanoseconds.
    #[inline]
    pub fn count(&mut self, nanos: u64, count: u64) {
        self.0[Self::place(nanos)] += count;
    }

    /// Where a time in nanoseconds is counted.
    #[inline]
    pub fn place(nanos: u64) -> usize {
        let nanos = nanos.max(1 << PARTS_LOG2);
        let power = nanos.ilog2();
        let part = (nanos >> (power - PARTS_LOG2)) as usize & ((1 << PARTS_LOG2) - 1);
        (power as usize) << PARTS_LOG2 | part
    }

    /// The largest time that is counted in a place.
    pub const fn last_of(place: usize) -> u64 {
        let (power, part) = (place >> PARTS_LOG2, place & ((1 << PARTS_LOG2) - 1));
        let parts = (1_u128 << PARTS_LOG2) + part as u128 + 1;
        // At most the largest there is.
        ((parts << power >> PARTS_LOG2) - 1) as u64
    }

    /// What was counted: the largest time of each place that is not empty, and how often; in order.
    pub fn counted(&self) -> impl Iterator<Item = (u64, u64)> {
        let places = self.0.iter().enumerate().filter(|(_, count)| **count > 0);
        places.map(|(place, count)| (Self::last_of(place), *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_right_to_a_quarter() {
        for power in 0..64 {
            for nanos in [1_u64 << power, (1_u64 << power) + (1_u64 << power) / 3, u64::MAX >> (63 - power)] {
                let last = Quarters::last_of(Quarters::place(nanos));
                assert!(last >= nanos && last - nanos <= nanos / 4 + 8, "{nanos}: {last}");
                let after = Quarters::place(last.saturating_add(1));
                assert!(last == u64::MAX || after > Quarters::place(nanos), "{nanos}: {last}");
            }
        }
        let mut quarters = Quarters::default();
        for nanos in [0, 1_000, 1_001, u64::MAX] {
            quarters.count(nanos, 2);
        }
        assert_eq!(quarters.counted().collect::<Vec<_>>(), [(4, 2), (1_023, 4), (u64::MAX, 2)]);
    }
}
