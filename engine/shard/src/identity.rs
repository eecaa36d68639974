//! Whose file it is: what every checksum and header is bound to.

use xxhash_rust::xxh3::xxh3_64;

/// The 128 random bits of a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DatabaseId(pub u128);

/// The database and the shard that a file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Identity {
    /// The data directory.
    pub database: DatabaseId,
    /// The shard within it.
    pub shard: u16,
    /// How many partitions keys fall into.
    pub partitions: u32,
    /// How many shards the directory was formatted with.
    pub shards: u16,
}

impl Identity {
    /// Seeds the checksums of every block, so that a block of another database or shard fails.
    pub fn seed(&self) -> u64 {
        let mut bytes = [0; 18];
        bytes[..16].copy_from_slice(&self.database.0.to_le_bytes());
        bytes[16..].copy_from_slice(&self.shard.to_le_bytes());
        xxh3_64(&bytes)
    }
}
