//! What goes wrong on links, how often, and how it is counted.
//!
//! Rates are "one in so many" of the things that pass: pieces of byte streams, connection attempts,
//! frames between nodes. 0 is never, and costs no random number: a world without faults runs as if
//! there were none to have. [`LinkFaults::swarm`] draws another mix for every seed, with most faults
//! absent from most mixes, because what always happens hides what happens only after it
//! (Groce et al., "Swarm testing", 2012).
//!
//! A byte stream is TCP: as long as it lives nothing in it is lost, repeated or reordered. It may
//! stop for a while, break with a reset (both ends learn at once), or fall into a hole: from then on
//! nothing passes in one direction or both, its ends learn nothing, and a sender with something
//! unsent gives up after seconds. Healing lets what is still waited for pass.

use std::time::Duration;

use super::random::Random;
use super::shared::Shared;
use super::trace::Step;

/// Rates and bounds of the faults on all links of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkFaults {
    /// Pieces, frames and connection attempts, one in so many, are late by up to `late_max`.
    pub late_one_in: u64,
    /// See `late_one_in`.
    pub late_max: Duration,
    /// One piece in so many stops its direction of the stream for up to `clog_max`.
    pub clog_one_in: u64,
    /// See `clog_one_in`.
    pub clog_max: Duration,
    /// One piece in so many resets its connection.
    pub reset_one_in: u64,
    /// One piece in so many falls into a hole, and all that follow it.
    pub hole_one_in: u64,
    /// One connection attempt in so many is refused.
    pub refuse_one_in: u64,
    /// One connection attempt in so many is lost: it times out, and half of those were accepted.
    pub lose_attempt_one_in: u64,
    /// One pipe in so many has a receive window of a few bytes.
    pub tiny_window_one_in: u64,
    /// One frame in so many is lost.
    pub lose_one_in: u64,
    /// One frame in so many comes twice.
    pub duplicate_one_in: u64,
    /// One frame in so many may be overtaken by later ones.
    pub reorder_one_in: u64,
    /// One frame in so many cuts its direction between two nodes for up to `cut_max`.
    pub cut_one_in: u64,
    /// See `cut_one_in`.
    pub cut_max: Duration,
}

impl LinkFaults {
    /// Nothing goes wrong.
    pub const NONE: Self = Self {
        late_one_in: 0,
        late_max: Duration::ZERO,
        clog_one_in: 0,
        clog_max: Duration::ZERO,
        reset_one_in: 0,
        hole_one_in: 0,
        refuse_one_in: 0,
        lose_attempt_one_in: 0,
        tiny_window_one_in: 0,
        lose_one_in: 0,
        duplicate_one_in: 0,
        reorder_one_in: 0,
        cut_one_in: 0,
        cut_max: Duration::ZERO,
    };

    /// A mix of faults: each is absent, rare or frequent, and short or long.
    pub fn swarm(random: &mut Random) -> Self {
        let mut rate = |rare: u64, frequent: u64| match random.below(4) {
            0 | 1 => 0,
            2 => rare,
            _ => frequent,
        };
        let mut faults = Self {
            late_one_in: rate(50, 4),
            clog_one_in: rate(300, 40),
            reset_one_in: rate(400, 60),
            hole_one_in: rate(600, 150),
            refuse_one_in: rate(20, 3),
            lose_attempt_one_in: rate(20, 4),
            tiny_window_one_in: rate(20, 3),
            lose_one_in: rate(50, 5),
            duplicate_one_in: rate(50, 5),
            reorder_one_in: rate(20, 2),
            cut_one_in: rate(500, 50),
            ..Self::NONE
        };
        let mut up_to = |shortest_ms: u64, doublings: u64| {
            Duration::from_millis(shortest_ms << random.below(doublings + 1))
        };
        faults.late_max = up_to(1, 6);
        faults.clog_max = up_to(50, 7);
        faults.cut_max = up_to(50, 7);
        faults
    }
}

impl Shared {
    /// Whether a fault of this rate happens now. Never draws a number for what never happens.
    pub(super) fn happens(&self, one_in: u64) -> bool {
        one_in != 0 && self.one_in(one_in)
    }

    /// How much later than usual something comes.
    pub(super) fn lateness_nanos(&self) -> u64 {
        let faults = self.link_faults.get();
        if !self.happens(faults.late_one_in) {
            return 0;
        }
        self.fault("late");
        self.below(nanos(faults.late_max))
    }

    /// Counts a fault and folds it into the trace.
    pub(super) fn fault(&self, name: &'static str) {
        let mut counts = self.fault_counts.borrow_mut();
        let count = counts.entry(name).or_default();
        *count += 1;
        self.note_content(Step::Fault, *count, name.as_bytes());
    }
}

/// Saturates.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
