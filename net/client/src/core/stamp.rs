//! Stamps proposed by this client.
//!
//! A put that is retried must carry the stamp of its first attempt: then it does not matter how
//! often it arrives. So the client stamps puts, deletes and batches itself. It never asks its own
//! wall clock, which may be wrong by hours: time is the server's (told in HELLO), carried on by the
//! client's monotonic clock, and pushed up by the largest stamp seen in any reply, so that a
//! client's later write wins over everything it has seen.

use std::time::{Duration, Instant};

use pinion_protocol::ProposedStamp;

/// A hybrid time is milliseconds above a counter of this many bits.
const COUNTER_BITS: u32 = 16;

/// Issues stamps in growing order.
#[derive(Debug)]
pub(crate) struct StampClock {
    origin: u32,
    anchor: Option<Anchor>,
    latest: u64,
}

#[derive(Debug, Clone, Copy)]
struct Anchor {
    taken: Instant,
    server_ms: u64,
}

impl StampClock {
    /// A clock that knows no time yet. `random` decides the origin, which tells clients apart.
    pub(crate) fn new(random: u64) -> Self {
        Self { origin: ProposedStamp::ORIGIN_CLIENT_BIT | (random as u32), anchor: None, latest: 0 }
    }

    /// Takes the server's time from HELLO. The newest answer is the best one: it has drifted least.
    pub(crate) fn anchor(&mut self, now: Instant, stamp: u64) {
        self.anchor = Some(Anchor { taken: now, server_ms: stamp >> COUNTER_BITS });
        self.observe(stamp);
    }

    /// Takes notice of a stamp seen in a reply: later stamps are greater.
    pub(crate) fn observe(&mut self, time: u64) {
        self.latest = self.latest.max(time);
    }

    /// A stamp greater than all issued and seen; `None` before the first HELLO.
    pub(crate) fn issue(&mut self, now: Instant) -> Option<ProposedStamp> {
        let anchor = self.anchor?;
        let elapsed = now.saturating_duration_since(anchor.taken);
        let wall = anchor.server_ms.saturating_add(millis(elapsed)) << COUNTER_BITS;
        self.latest = wall.max(self.latest.saturating_add(1));
        Some(ProposedStamp { time: self.latest, origin: self.origin })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_follow_the_server_and_never_run_back() {
        let start = Instant::now();
        let mut clock = StampClock::new(7);
        assert_eq!(clock.issue(start), None);
        clock.anchor(start, 1_000 << 16);
        let first = clock.issue(start).unwrap();
        assert_eq!(first.origin, ProposedStamp::ORIGIN_CLIENT_BIT | 7);
        assert!(first.time > 1_000 << 16);
        let later = clock.issue(start + Duration::from_millis(5)).unwrap();
        assert_eq!(later.time, 1_005 << 16);
        clock.observe(2_000 << 16);
        let seen = clock.issue(start + Duration::from_millis(6)).unwrap();
        assert_eq!(seen.time, (2_000 << 16) + 1);
        // A server whose clock was set back does not take stamps back with it.
        clock.anchor(start, 10 << 16);
        assert!(clock.issue(start).unwrap() > seen);
    }
}
