//! What HELLO told: which core owns a key, and the server's limits.

use std::time::Duration;

use pinion_protocol::placement;

use crate::error::{Error, Result};

/// The server as the newest HELLO described it. Fixed: a new HELLO makes a new map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerMap {
    pub(crate) cores: u16,
    pub(crate) partitions: u32,
    /// The core of each shard; at least one.
    pub(crate) shard_cores: Vec<u16>,
    pub(crate) limits: Limits,
    /// How long a proposed stamp stays good.
    pub(crate) retry_window: Duration,
}

/// Largest sizes that the server takes, as it told them at the newest HELLO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a key.
    pub key_bytes_max: usize,
    /// Bytes of a value.
    pub value_bytes_max: usize,
    /// Operations of a batch.
    pub batch_operations_max: usize,
    /// Bytes of a batch.
    pub batch_bytes_max: usize,
    /// Bytes of a frame.
    pub frame_bytes_max: usize,
}

impl ServerMap {
    /// The core that owns a key.
    pub(crate) fn core_of(&self, key: &[u8]) -> u16 {
        self.core_of_tag(placement::tag(key))
    }

    /// The core that owns the keys with this tag (what stands between braces).
    pub(crate) fn core_of_tag(&self, tag: &[u8]) -> u16 {
        // A map is only made of numbers that fit (see `wire`), so both are there.
        placement::partition_of_tag(tag, self.partitions)
            .and_then(|partition| placement::shard_of(partition, self.shards(), self.partitions))
            .map_or(0, |shard| self.core_of_shard(shard))
    }

    /// The core that owns a shard; core 0 for a shard that does not exist.
    pub(crate) fn core_of_shard(&self, shard: u16) -> u16 {
        self.shard_cores.get(usize::from(shard)).copied().unwrap_or(0)
    }

    /// The number of shards.
    pub(crate) fn shards(&self) -> u16 {
        u16::try_from(self.shard_cores.len()).unwrap_or(u16::MAX)
    }
}

impl Limits {
    /// Refuses a key that the server would refuse.
    pub(crate) fn check_key(&self, key: &[u8]) -> Result<()> {
        if key.is_empty() || key.len() > self.key_bytes_max {
            return Err(Error::Invalid(format!(
                "a key of {} bytes: keys have 1 to {} bytes",
                key.len(),
                self.key_bytes_max
            )));
        }
        Ok(())
    }

    /// Refuses a value that the server would refuse.
    pub(crate) fn check_value(&self, value: &[u8]) -> Result<()> {
        if value.len() > self.value_bytes_max {
            return Err(Error::Invalid(format!(
                "a value of {} bytes: this server takes at most {} bytes",
                value.len(),
                self.value_bytes_max
            )));
        }
        Ok(())
    }
}
