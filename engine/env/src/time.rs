//! Points on the monotonic clock.

use std::time::Duration;

/// A point in time of one world, in nanoseconds since an arbitrary start. Comparable only within
/// that world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Monotonic(u64);

impl Monotonic {
    /// From nanoseconds since the world's start.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the world's start.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The point `duration` later; the far future on overflow.
    pub const fn after(self, duration: Duration) -> Self {
        let nanos = duration.as_nanos();
        if nanos > u64::MAX as u128 { Self(u64::MAX) } else { Self(self.0.saturating_add(nanos as u64)) }
    }
}
