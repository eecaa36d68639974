//! The engine of one shard.
//!
//! A shard is one directory with everything in it: log, manifest, tables. One core owns it alone.

mod error;
mod key;
mod record;
mod stamp;

pub use error::{Corruption, Error, Outcome, Result};
pub use key::{
    KEY_BYTES_MAX, Key, NamespaceId, OwnedPosition, PARTITIONS_MAX, PARTITIONS_MIN, Partition, Position,
    key_hash, partition_of, tag,
};
pub use record::{RecordKind, RecordView};
pub use stamp::{HybridClock, HybridTime, Origin, Stamp};
