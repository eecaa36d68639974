//! The records of a load, and the order in which they are asked for.
//!
//! A record is known by its number: key and value follow from it, so that every answer can be
//! checked without keeping anything. The order is seeded: the same seed asks for the same records.

use crate::error::{Error, Result};

/// The shortest key, in bytes: a number in hexadecimal.
pub const KEY_BYTES_MIN: usize = 16;
/// The shortest value, in bytes: its record's number.
pub const VALUE_BYTES_MIN: usize = 8;

/// The shape of the records.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    count: u64,
    /// Of a record, without its number.
    value: Vec<u8>,
    key_bytes: usize,
}

impl Records {
    /// # Errors
    /// [`Error::Usage`] when a size is below its least or there are no records.
    pub(crate) fn new(count: u64, key_bytes: usize, value_bytes: usize) -> Result<Self> {
        if count == 0 {
            return Err(Error::Usage("there must be at least one key".to_owned()));
        }
        if !(KEY_BYTES_MIN..=4096).contains(&key_bytes) {
            return Err(Error::Usage(format!("keys have {KEY_BYTES_MIN} to 4096 bytes, not {key_bytes}")));
        }
        if !(VALUE_BYTES_MIN..=1 << 20).contains(&value_bytes) {
            return Err(Error::Usage(format!(
                "values have {VALUE_BYTES_MIN} bytes to 1 MiB, not {value_bytes} bytes"
            )));
        }
        // Bytes that do not compress.
        let mut random = Random::new(0);
        let value = (0..value_bytes).map(|_| random.next().to_le_bytes()[3]).collect();
        Ok(Self { count, value, key_bytes })
    }

    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    pub(crate) const fn value_bytes(&self) -> usize {
        self.value.len()
    }

    pub(crate) fn key(&self, number: u64) -> Vec<u8> {
        let mut key = vec![b'k'; self.key_bytes];
        self.set_key(number, &mut key);
        key
    }

    /// Makes `key`, which is that of any record, the key of this one.
    pub(crate) fn set_key(&self, number: u64, key: &mut [u8]) {
        let start = self.key_bytes - KEY_BYTES_MIN;
        for (digit, byte) in key[start..].iter_mut().enumerate() {
            *byte = b"0123456789abcdef"[(number >> (60 - 4 * digit)) as usize & 15];
        }
    }

    pub(crate) fn value(&self, number: u64) -> Vec<u8> {
        let mut value = self.value.clone();
        self.set_value(number, &mut value);
        value
    }

    /// Makes `value`, which is that of any record, the value of this one.
    pub(crate) fn set_value(&self, number: u64, value: &mut [u8]) {
        value[..VALUE_BYTES_MIN].copy_from_slice(&number.to_le_bytes());
    }

    /// Whether `value` is that of this record: its length, its number and its last byte. The rest is
    /// not looked at, to leave the generator's cpu to the load.
    pub(crate) fn is_value(&self, number: u64, value: &[u8]) -> bool {
        value.len() == self.value.len()
            && value[..VALUE_BYTES_MIN] == number.to_le_bytes()
            && (value.len() == VALUE_BYTES_MIN || value.last() == self.value.last())
    }
}

/// Which records are asked for.
#[derive(Debug)]
pub(crate) enum Order {
    /// Each once, from the first to the last.
    Each {
        /// The next.
        next: u64,
        /// How many there are.
        count: u64,
    },
    /// Any, for ever, all equally likely.
    Uniform {
        /// Where they come from.
        random: Random,
        /// How many there are.
        count: u64,
    },
    /// None.
    Ended,
}

impl Iterator for Order {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        match self {
            Self::Each { next, count } => {
                let number = *next;
                *next += u64::from(number < *count);
                (number < *count).then_some(number)
            }
            Self::Uniform { random, count } => Some(random.below(*count)),
            Self::Ended => None,
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): a step is three multiplications, and any seed is good.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, by the high half of a product: unequal by less than `bound` in 2^64.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_follows_from_its_number() {
        let records = Records::new(1000, 32, 512).unwrap();
        assert_eq!(records.key(0x2a), b"kkkkkkkkkkkkkkkk000000000000002a");
        let mut value = records.value(1);
        assert!(records.is_value(1, &value) && !records.is_value(2, &value));
        records.set_value(2, &mut value);
        assert!(records.is_value(2, &value) && !records.is_value(2, &value[..511]));
        for (count, key, value) in [(0, 32, 512), (1, 15, 512), (1, 32, 7), (1, 4097, 8)] {
            assert!(matches!(Records::new(count, key, value), Err(Error::Usage(_))));
        }
    }

    #[test]
    fn orders_stay_within_the_records() {
        assert!(Order::Each { next: 0, count: 5 }.eq(0..5));
        let uniform = || Order::Uniform { random: Random::new(7), count: 10 };
        let mut seen = [0u32; 10];
        uniform().take(10_000).for_each(|number| seen[number as usize] += 1);
        assert!(seen.iter().all(|times| (800..1200).contains(times)), "{seen:?}");
        assert!(uniform().take(50).eq(uniform().take(50)));
    }
}
