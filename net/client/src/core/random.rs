//! A little randomness: the origin of stamps and the jitter of waits. Not for secrets.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Seeded by the operating system, through the standard library's hash keys.
    pub(crate) fn from_system() -> Self {
        Self(RandomState::new().hash_one(std::process::id()))
    }

    #[cfg(test)]
    pub(crate) const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Between half of `full` and all of it, so that clients that failed together do not return
    /// together.
    pub(crate) fn jitter(&mut self, full: Duration) -> Duration {
        let half = full / 2;
        let range = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(self.next().checked_rem(range.saturating_add(1)).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_in_its_half() {
        let mut random = Random::seeded(1);
        let full = Duration::from_millis(100);
        let drawn: Vec<_> = (0..100).map(|_| random.jitter(full)).collect();
        assert!(drawn.iter().all(|wait| *wait >= full / 2 && *wait <= full));
        assert!(drawn.iter().any(|wait| *wait != drawn[0]));
        assert_eq!(random.jitter(Duration::ZERO), Duration::ZERO);
    }
}
