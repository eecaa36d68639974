//! XXH3-64 with one seed for many inputs.

use xxhash_rust::const_xxh3::const_custom_default_secret;
use xxhash_rust::xxh3::{xxh3_64_with_secret, xxh3_64_with_seed};

/// Inputs up to this many bytes are hashed without a secret of the seed's own.
const SHORT_BYTES_MAX: usize = 240;

/// Hashes as [`xxh3_64_with_seed`] does. That one derives 192 bytes of secret from the seed for every
/// long input, which takes as long as hashing a small record: here they are derived once.
#[derive(Clone)]
pub(crate) struct SeededHash {
    seed: u64,
    secret: [u8; 192],
}

impl SeededHash {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { seed, secret: const_custom_default_secret(seed) }
    }

    pub(crate) fn hash(&self, bytes: &[u8]) -> u64 {
        if bytes.len() > SHORT_BYTES_MAX {
            xxh3_64_with_secret(bytes, &self.secret)
        } else {
            xxh3_64_with_seed(bytes, self.seed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_xxh3_with_a_seed() {
        let bytes: Vec<u8> = (0..3000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for seed in [0, 1, 0x9e37_79b9_7f4a_7c15, u64::MAX] {
            let hash = SeededHash::new(seed);
            for length in (0..600).chain([1023, 1024, 1025, 2999]) {
                assert_eq!(hash.hash(&bytes[..length]), xxh3_64_with_seed(&bytes[..length], seed));
            }
        }
    }
}
