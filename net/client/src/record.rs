//! What is read and written: entries, versions, options.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::{Durability, Ttl, Version};

/// A value as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Bytes,
    /// Its version, for conditional writes.
    pub version: Version,
    /// When it expires, by the server's clock; `None` = never.
    pub expiry: Option<SystemTime>,
}

/// What is known of a value without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Its version, for conditional writes.
    pub version: Version,
    /// When it expires, by the server's clock; `None` = never.
    pub expiry: Option<SystemTime>,
    /// Length of the value in bytes.
    pub value_bytes: u32,
    /// About how often the key has been read or written lately, as the server estimates from a sample; 0 =
    /// not often enough to be known.
    pub accesses: u64,
}

/// An acknowledged write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The version that the write created.
    pub version: Version,
    /// When the value expires, by the server's clock; `None` = never.
    pub expiry: Option<SystemTime>,
    /// A newer write of the same key was there already, so that this one is as if it had been
    /// overwritten at once.
    pub superseded: bool,
}

/// How a write is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PutOptions {
    /// How long the value lives.
    pub ttl: Ttl,
    /// When the write is acknowledged.
    pub durability: Durability,
}

impl PutOptions {
    /// Sets how long the value lives.
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = ttl.into();
        self
    }

    /// Sets when the write is acknowledged.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }
}

/// A namespace as the server lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Its number; never reused.
    pub id: u32,
    /// Its name: 1 to 64 of `A-Z a-z 0-9 _ . -`.
    pub name: String,
    /// What values live that are written without a TTL; `None` = for ever.
    pub default_ttl: Option<Duration>,
    /// Dropped: refuses requests while its space is given back.
    pub dropped: bool,
}

/// The time of an expiry in milliseconds since 1970; 0 = never.
pub(crate) fn expiry(millis: u64) -> Option<SystemTime> {
    if millis == 0 { None } else { SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_of_zero_is_none() {
        assert_eq!(expiry(0), None);
        assert_eq!(expiry(1_500), SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(1_500)));
    }
}
