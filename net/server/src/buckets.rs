//! A histogram as counts between fixed bounds, for those who add them up over time and over nodes.

use hdrhistogram::Histogram;

/// Upper bounds in nanoseconds: six to a decade, from 1 us to 10 s. What is longer counts beyond the last.
pub(crate) const BOUNDS_NS: [u64; 43] = [
    1_000,
    1_500,
    2_000,
    3_000,
    5_000,
    7_000,
    10_000,
    15_000,
    20_000,
    30_000,
    50_000,
    70_000,
    100_000,
    150_000,
    200_000,
    300_000,
    500_000,
    700_000,
    1_000_000,
    1_500_000,
    2_000_000,
    3_000_000,
    5_000_000,
    7_000_000,
    10_000_000,
    15_000_000,
    20_000_000,
    30_000_000,
    50_000_000,
    70_000_000,
    100_000_000,
    150_000_000,
    200_000_000,
    300_000_000,
    500_000_000,
    700_000_000,
    1_000_000_000,
    1_500_000_000,
    2_000_000_000,
    3_000_000_000,
    5_000_000_000,
    7_000_000_000,
    10_000_000_000,
];

/// Bounds, and one place for what is longer than the last.
const PLACES: usize = BOUNDS_NS.len() + 1;

/// How often something took up to each bound and longer than the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts([u64; PLACES]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; PLACES])
    }
}

impl Counts {
    /// Counts in a place that [`place`] has found.
    pub(crate) fn count(&mut self, place: usize, count: u64) {
        self.0[place] += count;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// How many there are.
    pub(crate) fn sum(&self) -> u64 {
        self.0.iter().sum()
    }

    pub(crate) fn values(&self) -> &[u64] {
        &self.0
    }
}

/// Where a time in nanoseconds is counted: the bounds are looked through from the first that the quarter of
/// its power of two can have, so at most two are.
#[inline]
pub(crate) fn place(nanos: u64) -> usize {
    let mut place = usize::from(FIRST[Quarters::place(nanos)]);
    while place < BOUNDS_NS.len() && BOUNDS_NS[place] < nanos {
        place += 1;
    }
    place
}

/// By place in [`Quarters`]: where its smallest time is counted.
static FIRST: [u8; 64 << PARTS_LOG2] = {
    let mut first = [0; 64 << PARTS_LOG2];
    let (mut quarter, mut place) = (1, 0);
    while quarter < first.len() {
        while place < BOUNDS_NS.len() && BOUNDS_NS[place] <= Quarters::last_of(quarter - 1) {
            place += 1;
        }
        first[quarter] = place as u8;
        quarter += 1;
    }
    first
};

/// Places for each power of two, as a power of two.
const PARTS_LOG2: u32 = 2;

/// How often something took how long, to a quarter: what costs a few instructions to count.
#[derive(Debug, Clone)]
pub(crate) struct Quarters([u64; 64 << PARTS_LOG2]);

impl Default for Quarters {
    fn default() -> Self {
        Self([0; 64 << PARTS_LOG2])
    }
}

impl Quarters {
    /// Counts a time in nanoseconds.
    #[inline]
    pub(crate) fn count(&mut self, nanos: u64, count: u64) {
        self.0[Self::place(nanos)] += count;
    }

    #[inline]
    fn place(nanos: u64) -> usize {
        let nanos = nanos.max(1 << PARTS_LOG2);
        let power = nanos.ilog2();
        let part = (nanos >> (power - PARTS_LOG2)) as usize & ((1 << PARTS_LOG2) - 1);
        (power as usize) << PARTS_LOG2 | part
    }

    /// The largest time that is counted in a place.
    const fn last_of(place: usize) -> u64 {
        let (power, part) = (place >> PARTS_LOG2, place & ((1 << PARTS_LOG2) - 1));
        let parts = (1_u128 << PARTS_LOG2) + part as u128 + 1;
        // At most the largest there is.
        ((parts << power >> PARTS_LOG2) - 1) as u64
    }

    /// Adds all to a histogram, each as the largest time of its place.
    pub(crate) fn add_to(&self, histogram: &mut Histogram<u64>) {
        for (place, count) in self.0.iter().enumerate().filter(|(_, count)| **count > 0) {
            histogram.saturating_record_n(Self::last_of(place), *count);
        }
    }
}

/// How many values lie up to each bound and above the one before it, and how many beyond the last. A value
/// counts where the histogram's own rounding, two digits, puts it.
pub(crate) fn counts(histogram: &Histogram<u64>) -> [u64; PLACES] {
    let mut counts = [0; PLACES];
    for value in histogram.iter_recorded() {
        let bucket = BOUNDS_NS.partition_point(|bound| *bound < value.value_iterated_to());
        counts[bucket] += value.count_since_last_iteration();
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::empty_histogram;

    #[test]
    fn a_time_is_counted_up_to_its_bound() {
        for (nanos, expected) in [(0, 0), (1_000, 0), (1_001, 1), (10_000_000_000, 42), (u64::MAX, 43)] {
            assert_eq!(place(nanos), expected, "{nanos}");
        }
        let around = (0..64)
            .flat_map(|power| (0..40).map(move |part| ((1_u64 << power) / 32).saturating_mul(32 + part)));
        let bounds = BOUNDS_NS.iter().flat_map(|bound| [bound - 1, *bound, bound + 1]);
        for nanos in around.chain(bounds) {
            assert_eq!(place(nanos), BOUNDS_NS.partition_point(|bound| *bound < nanos), "{nanos}");
        }
        let (mut one, mut two) = (Counts::default(), Counts::default());
        one.count(0, 2);
        two.count(43, 3);
        one.add(&two);
        assert_eq!((one.sum(), one.values()[0], one.values()[43]), (5, 2, 3));
    }

    #[test]
    fn quarters_are_right_to_a_quarter() {
        for power in 0..64 {
            for nanos in [1_u64 << power, (1_u64 << power) + (1_u64 << power) / 3, u64::MAX >> (63 - power)] {
                let last = Quarters::last_of(Quarters::place(nanos));
                assert!(last >= nanos && last - nanos <= nanos / 4 + 8, "{nanos}: {last}");
                let after = Quarters::place(last.saturating_add(1));
                assert!(last == u64::MAX || after > Quarters::place(nanos), "{nanos}: {last}");
            }
        }
        let mut quarters = Quarters::default();
        for nanos in [0, 1_000, u64::MAX] {
            quarters.count(nanos, 2);
        }
        let mut histogram = empty_histogram();
        quarters.add_to(&mut histogram);
        assert_eq!(histogram.len(), 6);
    }

    #[test]
    fn every_value_is_counted_once() {
        let mut histogram = empty_histogram();
        assert_eq!(counts(&histogram).iter().sum::<u64>(), 0);
        for nanos in [1, 999, 1_200, 40_000, 9_000_000_000, 50_000_000_000] {
            histogram.saturating_record_n(nanos, 2);
        }
        let counts = counts(&histogram);
        assert_eq!(counts.iter().sum::<u64>(), 12);
        assert_eq!((counts[0], counts[1], counts[10], counts[42], counts[43]), (4, 2, 2, 2, 2));
        assert!(BOUNDS_NS.is_sorted());
    }
}
