//! A histogram as counts between fixed bounds, for those who add them up over time and over nodes.

use hdrhistogram::Histogram;
use pinion_engine::Quarters;

use crate::counters::empty_histogram;

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
static FIRST: [u8; Quarters::PLACES] = {
    let mut first = [0; Quarters::PLACES];
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

/// As a histogram, each time as the largest of its place.
pub(crate) fn histogram<'q>(all: impl IntoIterator<Item = &'q Quarters>) -> Histogram<u64> {
    let mut histogram = empty_histogram();
    for (nanos, count) in all.into_iter().flat_map(Quarters::counted) {
        histogram.saturating_record_n(nanos, count);
    }
    histogram
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
    fn what_several_counted_becomes_one_histogram() {
        let (mut one, mut two) = (Quarters::default(), Quarters::default());
        one.count(0, 2);
        one.count(1_000, 1);
        two.count(1_001, 1);
        two.count(u64::MAX, 2);
        let histogram = histogram([&one, &two]);
        assert_eq!((histogram.len(), histogram.value_at_percentile(50.0)), (6, 1_023));
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
