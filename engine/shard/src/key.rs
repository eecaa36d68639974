//! Keys, partitions and namespaces: where a record belongs and how records are ordered.
//!
//! Records are ordered by the tuple (partition, namespace, user key), compared as a tuple: its
//! concatenation would not sort. A partition is therefore one contiguous range of every table.

use std::cmp::Ordering;
use std::ops::Range;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The longest user key.
pub const KEY_BYTES_MAX: usize = 4096;

/// Partitions of a cluster: a power of two between these.
pub const PARTITIONS_MIN: u32 = 64;
/// See [`PARTITIONS_MIN`].
pub const PARTITIONS_MAX: u32 = 16_384;

/// The unit of placement between nodes: the top bits of the hash of a key's tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Partition(pub u16);

/// A namespace's number; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NamespaceId(pub u32);

/// The part of a user key that decides its partition: what stands in the first pair of braces if
/// that is not empty (as in Redis Cluster), else the whole key.
pub fn tag(user: &[u8]) -> &[u8] {
    // Most keys have none, and this looks at eight bytes at a time.
    if !user.contains(&b'{') {
        return user;
    }
    if let Some(open) = user.iter().position(|byte| *byte == b'{') {
        let rest = &user[open + 1..];
        if let Some(close) = rest.iter().position(|byte| *byte == b'}')
            && close > 0
        {
            return &rest[..close];
        }
    }
    user
}

/// The partition of a user key in a cluster of `partitions` partitions.
pub fn partition_of(user: &[u8], partitions: u32) -> Partition {
    Partition::of_hash(xxh3_64(tag(user)), partitions)
}

impl Partition {
    /// The partition that a tag's hash (XXH3-64, seed 0) falls into.
    pub fn of_hash(hash: u64, partitions: u32) -> Self {
        debug_assert!(partitions.is_power_of_two() && partitions >= 2);
        Self((hash >> (64 - partitions.trailing_zeros())) as u16)
    }

    /// The shard of this partition on a node of `shards` shards.
    #[inline]
    pub fn shard(self, shards: u16, partitions: u32) -> u16 {
        // Partitions are a power of two, and dividing takes longer than a look into a memtable.
        debug_assert!(partitions.is_power_of_two());
        ((u32::from(self.0) * u32::from(shards)) >> partitions.trailing_zeros()) as u16
    }
}

/// The partitions of a shard of a node, which are contiguous.
pub fn partitions_of_shard(shard: u16, shards: u16, partitions: u32) -> Range<u32> {
    let first = |shard: u32| (shard * partitions).div_ceil(u32::from(shards));
    first(u32::from(shard))..first(u32::from(shard) + 1)
}

/// A key as it is looked up: its place in the order and its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'a> {
    /// Where the key is placed.
    pub partition: Partition,
    /// Its namespace.
    pub namespace: NamespaceId,
    /// The user's bytes, 1 to [`KEY_BYTES_MAX`].
    pub user: &'a [u8],
    /// XXH3-64 of the user's bytes, seeded with the namespace: feeds filters and maps.
    pub hash: u64,
}

impl<'a> Key<'a> {
    /// Computes partition and hash.
    #[inline(always)]
    pub fn new(namespace: NamespaceId, user: &'a [u8], partitions: u32) -> Self {
        let hash = key_hash(namespace, user);
        let tag = tag(user);
        let placed = if namespace.0 == 0 && tag.len() == user.len() { hash } else { xxh3_64(tag) };
        Self { partition: Partition::of_hash(placed, partitions), namespace, user, hash }
    }

    /// Of a key whose partition is known (read from a file).
    pub fn placed(partition: Partition, namespace: NamespaceId, user: &'a [u8]) -> Self {
        Self { partition, namespace, user, hash: key_hash(namespace, user) }
    }

    /// The position in the order of records.
    pub fn position(&self) -> Position<'a> {
        Position { partition: self.partition, namespace: self.namespace, user: self.user }
    }
}

/// XXH3-64 of a user key, seeded with its namespace.
pub fn key_hash(namespace: NamespaceId, user: &[u8]) -> u64 {
    if namespace.0 == 0 { xxh3_64(user) } else { xxh3_64_with_seed(user, u64::from(namespace.0)) }
}

/// A place in the order of records; the user part may be empty (the start of a namespace).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position<'a> {
    /// First in the order.
    pub partition: Partition,
    /// Second.
    pub namespace: NamespaceId,
    /// Last: bytewise.
    pub user: &'a [u8],
}

impl Position<'_> {
    /// A number that orders like the position, except that positions whose user keys agree in
    /// their first ten bytes (zero padded) may share it: compare the rest only when it is equal.
    pub fn prefix(&self) -> u128 {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&self.partition.0.to_be_bytes());
        bytes[2..6].copy_from_slice(&self.namespace.0.to_be_bytes());
        let shared = self.user.len().min(10);
        bytes[6..6 + shared].copy_from_slice(&self.user[..shared]);
        u128::from_be_bytes(bytes)
    }

    /// An owned copy.
    pub fn to_owned(&self) -> OwnedPosition {
        OwnedPosition { partition: self.partition, namespace: self.namespace, user: self.user.to_vec() }
    }
}

/// An owned [`Position`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct OwnedPosition {
    /// First in the order.
    pub partition: Partition,
    /// Second.
    pub namespace: NamespaceId,
    /// Last: bytewise.
    pub user: Vec<u8>,
}

impl OwnedPosition {
    /// The borrowed form.
    pub fn borrow(&self) -> Position<'_> {
        Position { partition: self.partition, namespace: self.namespace, user: &self.user }
    }

    /// Takes on another position without giving up its memory.
    pub(crate) fn copy_from(&mut self, position: &Position<'_>) {
        self.partition = position.partition;
        self.namespace = position.namespace;
        self.user.clear();
        self.user.extend_from_slice(position.user);
    }

    /// Compares with a borrowed position.
    pub fn compare(&self, other: &Position<'_>) -> Ordering {
        self.borrow().cmp(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_follow_redis_cluster() {
        assert_eq!(tag(b"plain"), b"plain");
        assert_eq!(tag(b"{user}.name"), b"user");
        assert_eq!(tag(b"a{user}{x}"), b"user");
        assert_eq!(tag(b"{}empty"), b"{}empty");
        assert_eq!(tag(b"{open"), b"{open");
    }

    #[test]
    fn partitions_map_to_shards_in_contiguous_ranges() {
        let mut last = 0;
        for partition in 0..1024 {
            let shard = Partition(partition).shard(3, 1024);
            assert!(shard >= last && shard < 3);
            assert!(partitions_of_shard(shard, 3, 1024).contains(&u32::from(partition)));
            last = shard;
        }
        assert_eq!(last, 2);
    }

    #[test]
    fn prefixes_order_like_positions() {
        let users: [&[u8]; 6] = [b"", b"a", b"a\0", b"aaaaaaaaaaaa", b"aaaaaaaaaaab", b"b"];
        for partition in [0, 7] {
            for namespace in [0, 9] {
                for left in users {
                    for right in users {
                        let place = |user| Position {
                            partition: Partition(partition),
                            namespace: NamespaceId(namespace),
                            user,
                        };
                        let (left, right) = (place(left), place(right));
                        if left.prefix() != right.prefix() {
                            assert_eq!(left.prefix() < right.prefix(), left < right);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_hash_of_a_key_is_frozen() {
        // Stored in filters and decides placement: these may never change.
        assert_eq!(key_hash(NamespaceId(0), b"pinion"), xxh3_64(b"pinion"));
        assert_eq!(partition_of(b"{pinion}:1", 1024), partition_of(b"pinion", 1024));
    }
}
