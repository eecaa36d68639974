//! Whether a core with nothing to do sleeps at once or looks again for a while.
//!
//! Sleeping and waking cost a core some ten microseconds and whoever is waited for as much again. Beside a
//! write to a log, where whoever waits for it will ask again as soon as it has ended, the next rest is most
//! likely as short as the last one: if that was shorter than [`LINGER_NS`], the core looks at its ring until
//! something completes or it has looked for that long. Longer rests are slept through: other threads may need
//! the CPU, those that carry out the core's own writes to tables among them. An idle core writes no log.

use std::cell::Cell;

/// For how long a core looks again, in nanoseconds.
const LINGER_NS: u64 = 60_000;

/// The rests of one core: from the last completion before it had nothing to do to the next one.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    /// When something completed last, in nanoseconds of the monotonic clock.
    completed_at: Cell<u64>,
    /// Whether there has been nothing to do since.
    rests: Cell<bool>,
    /// Whether the last rest was short.
    brief: Cell<bool>,
}

impl Rest {
    /// Something has completed.
    #[inline]
    pub(crate) fn ended(&self, now: u64) {
        if self.rests.replace(false) {
            self.brief.set(self.is_short(now));
        }
        self.completed_at.set(now);
    }

    /// There is nothing to do; whether to look again.
    #[inline]
    pub(crate) fn lingers(&self, now: u64) -> bool {
        self.rests.set(true);
        self.brief.get() && self.is_short(now)
    }

    fn is_short(&self, now: u64) -> bool {
        now.saturating_sub(self.completed_at.get()) < LINGER_NS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_lingers_after_a_short_rest_and_not_after_a_long_one() {
        let rest = Rest::default();
        let mut now = 1_000_000;
        rest.ended(now);
        assert!(!rest.lingers(now + 1), "nothing is known yet");
        now += LINGER_NS - 1;
        rest.ended(now);
        assert!(rest.lingers(now + LINGER_NS - 1));
        assert!(!rest.lingers(now + LINGER_NS), "it has taken that long");
        rest.ended(now + LINGER_NS);
        assert!(!rest.lingers(now + LINGER_NS + 1), "the last one was long");
        // Work without a rest between tells nothing.
        now += 2 * LINGER_NS;
        rest.ended(now);
        rest.ended(now + 1);
        assert!(!rest.lingers(now + 2), "still the long one");
        rest.ended(now + 3);
        assert!(rest.lingers(now + 4));
    }
}
