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

/// How many values lie up to each bound and above the one before it, and how many beyond the last. A value
/// counts where the histogram's own rounding, two digits, puts it.
pub(crate) fn counts(histogram: &Histogram<u64>) -> [u64; BOUNDS_NS.len() + 1] {
    let mut counts = [0; BOUNDS_NS.len() + 1];
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
