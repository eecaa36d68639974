//! Where a key lives: tag, partition, shard. What a client needs to reach the owning core.
//!
//! The engine computes the same from its own code; the vectors in PROTOCOL.md pin both.

use xxhash_rust::xxh3::xxh3_64;

/// The part of a key that decides its partition: what stands in the first pair of braces if that
/// is not empty (as in Redis Cluster), else the whole key.
pub fn tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else { return key };
    let inner = &key[open + 1..];
    match inner.iter().position(|byte| *byte == b'}') {
        Some(close) if close > 0 => &inner[..close],
        _ => key,
    }
}

/// The partition of a key among `partitions`, a power of two of at least 2 (HELLO names it);
/// `None` when it is not one.
pub fn partition_of(key: &[u8], partitions: u32) -> Option<u16> {
    partition_of_tag(tag(key), partitions)
}

/// The partition of the keys that share a tag: the top bits of XXH3-64 of the tag, seed 0.
pub fn partition_of_tag(tag: &[u8], partitions: u32) -> Option<u16> {
    if !partitions.is_power_of_two() || !(2..=1 << 16).contains(&partitions) {
        return None;
    }
    u16::try_from(xxh3_64(tag) >> (64 - partitions.trailing_zeros())).ok()
}

/// The shard of a partition on a node of `shards` shards; `None` when the numbers do not fit.
pub fn shard_of(partition: u16, shards: u16, partitions: u32) -> Option<u16> {
    if u32::from(partition) >= partitions {
        return None;
    }
    u16::try_from(u64::from(partition) * u64::from(shards) / u64::from(partitions)).ok()
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
        assert_eq!(tag(b"{}{x}"), b"{}{x}");
        assert_eq!(tag(b"{open"), b"{open");
        assert_eq!(tag(b"{{x}}"), b"{x");
    }

    #[test]
    fn shards_are_contiguous_ranges_of_partitions() {
        let shards: Vec<_> = (0..1024).map(|partition| shard_of(partition, 3, 1024)).collect();
        assert!(shards.is_sorted());
        assert_eq!((shards[341], shards[342]), (Some(0), Some(1)));
        assert_eq!(shards[1023], Some(2));
    }

    #[test]
    fn placement_is_frozen() {
        // Rows of the table in PROTOCOL.md: key in hexadecimal, hash of its tag, partition among
        // 64, 1,024 and 16,384, shard of 3 among 1,024 partitions.
        let rows = include_str!("../PROTOCOL.md")
            .lines()
            .skip_while(|line| *line != "<!-- placement vectors -->")
            .filter_map(|line| line.strip_prefix("| `"));
        let mut checked = 0;
        for row in rows {
            let cells: Vec<_> = row.split('|').map(|cell| cell.trim().trim_end_matches('`')).collect();
            let [key, hash, p64, p1024, p16384, shard, ..] = cells[..] else { break };
            let key: Vec<u8> = (0..key.len() / 2)
                .map(|at| u8::from_str_radix(&key[2 * at..2 * at + 2], 16).unwrap())
                .collect();
            assert_eq!(format!("{:016x}", xxh3_64(tag(&key))), hash.trim_start_matches('`'));
            assert_eq!(partition_of(&key, 64), p64.parse().ok());
            assert_eq!(partition_of(&key, 1024), p1024.parse().ok());
            assert_eq!(partition_of(&key, 16_384), p16384.parse().ok());
            assert_eq!(shard_of(partition_of(&key, 1024).unwrap(), 3, 1024), shard.parse().ok());
            checked += 1;
        }
        assert_eq!(checked, 9, "every row was read");
    }

    #[test]
    fn numbers_that_do_not_fit_have_no_place() {
        assert_eq!(partition_of(b"k", 0), None);
        assert_eq!(partition_of(b"k", 1), None);
        assert_eq!(partition_of(b"k", 1000), None);
        assert_eq!(shard_of(1024, 3, 1024), None);
        assert_eq!(shard_of(0, 3, 0), None);
    }
}
