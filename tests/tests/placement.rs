//! Protocol and engine place keys alike: both against the table of PROTOCOL.md and each other.

use pinion_engine::{partition_of as engine_partition_of, tag as engine_tag};
use pinion_protocol::placement::{partition_of, shard_of, tag};

/// The keys of the table, from their hexadecimal column.
fn keys() -> Vec<Vec<u8>> {
    include_str!("../../net/protocol/PROTOCOL.md")
        .lines()
        .skip_while(|line| *line != "<!-- placement vectors -->")
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .map_while(|hex| {
            (0..hex.len() / 2).map(|at| u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()).collect()
        })
        .collect()
}

#[test]
fn protocol_and_engine_place_keys_alike() {
    let mut keys = keys();
    assert!(keys.len() >= 9, "the table was found");
    for number in 0..1000 {
        keys.push(format!("key:{number}").into_bytes());
        keys.push(format!("x{{{}}}y{{z}}", number % 7).into_bytes());
    }
    for key in &keys {
        assert_eq!(tag(key), engine_tag(key));
        for partitions in [64, 1024, 16_384] {
            let engine = engine_partition_of(key, partitions);
            assert_eq!(partition_of(key, partitions), Some(engine.0));
            for shards in [1, 2, 3, 4] {
                assert_eq!(shard_of(engine.0, shards, partitions), Some(engine.shard(shards, partitions)));
            }
        }
    }
}
