//! Random numbers that depend on a seed and nothing else.
//!
//! SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014): one
//! word of state, every seed is good, streams split by hashing a label into the seed. Not for secrets.

/// A seeded stream of random numbers.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// An independent stream of the same seed, named by a label.
    pub fn labelled(seed: u64, label: u64) -> Self {
        Self { state: finish(seed ^ finish(label.wrapping_add(GAMMA))) }
    }

    /// The next 64 random bits.
    pub fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GAMMA);
        finish(self.state)
    }

    /// A number below `bound`; 0 if the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product; its bias is below bound / 2^64.
        ((u128::from(self.word()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    ///
    /// # Panics
    /// When `low` is greater than `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "an empty range: {low}..={high}");
        match (high - low).checked_add(1) {
            Some(width) => low + self.below(width),
            None => self.word(),
        }
    }

    /// True once in `times` on average.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

fn finish(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_seed_and_stay_in_range() {
        let draw = |mut random: Random| (0..100).map(|_| random.between(3, 9)).collect::<Vec<_>>();
        let first = draw(Random::new(1));
        assert_eq!(first, draw(Random::new(1)));
        assert_ne!(first, draw(Random::new(2)));
        assert_ne!(draw(Random::labelled(1, 1)), draw(Random::labelled(1, 2)));
        assert!((3..=9).all(|wanted| first.contains(&wanted)));
        assert!(first.iter().all(|drawn| (3..=9).contains(drawn)));
        assert_eq!(Random::new(1).below(0), 0);
        Random::new(1).between(0, u64::MAX);
    }
}
