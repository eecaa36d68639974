//! How long a core's rounds take: from one look of the driver at its ring to the next, with all that ran
//! between. A request that comes meanwhile is not seen before the next, whoever took the time: a turn of a
//! connection, a step of a background job, a timer, or another process on the same CPU.
//!
//! Sleep is no round. While the driver waits to be kicked others may still run, and the core sleeps only when
//! they have all ended: it did if the first to kick the driver is the watcher. So a step that runs while the
//! driver waits is seen if it yields or starts an operation, as steps do, and is not if it does neither.

use std::array;
use std::cell::Cell;

/// Rounds that are told: those that took at least so long, in nanoseconds, each with its name.
const OVER: [(&str, u64); 4] = [
    ("rounds_over_100us", 100_000),
    ("rounds_over_1ms", 1_000_000),
    ("rounds_over_10ms", 10_000_000),
    ("rounds_over_100ms", 100_000_000),
];

/// The rounds of one core.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    /// When the driver looked last, if the core has not slept since.
    began: Cell<Option<u64>>,
    over: [Cell<u64>; OVER.len()],
}

impl Rounds {
    /// The driver looks at its ring; `now` is in nanoseconds of the monotonic clock.
    #[inline]
    pub(crate) fn look(&self, now: u64) {
        if let Some(began) = self.began.replace(Some(now)) {
            let took = now.saturating_sub(began);
            if took >= OVER[0].1 {
                self.count(took);
            }
        }
    }

    #[cold]
    fn count(&self, took: u64) {
        for ((_, least), counter) in OVER.iter().zip(&self.over) {
            counter.set(counter.get() + u64::from(took >= *least));
        }
    }

    /// The core has slept: a round begins with the next look.
    pub(crate) fn slept(&self) {
        self.began.set(None);
    }

    /// How many took long, by name; each is also among those that took less.
    pub(crate) fn counters(&self) -> [(&'static str, u64); OVER.len()] {
        array::from_fn(|at| (OVER[at].0, self.over[at].get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_counted_by_their_length_and_sleep_is_none() {
        let rounds = Rounds::default();
        let mut now = 5_000_000_000;
        rounds.look(now);
        for took in [99_999, 100_000, 1_000_000, 10_000_001, 2_000_000_000] {
            now += took;
            rounds.look(now);
        }
        let expected = [4, 3, 2, 1];
        assert_eq!(rounds.counters().map(|(_, count)| count), expected);
        rounds.slept();
        rounds.look(now + 1_000_000_000);
        assert_eq!(rounds.counters().map(|(_, count)| count), expected);
        rounds.look(now + 1_000_500_000);
        assert_eq!(rounds.counters()[0], ("rounds_over_100us", 5));
    }
}
