//! The engine of one shard.
//!
//! A shard is one directory with everything in it: log, manifest, tables. One core owns it alone.

mod cache;
#[expect(dead_code, reason = "its users arrive with the log and the tables")]
mod codec;
mod compaction;
mod error;
mod identity;
mod key;
mod memtable;
mod record;
mod stamp;
mod table;
#[cfg(test)]
mod testing;

pub use cache::{ROW_BYTES_MAX, RowCache, RowCacheStats, Ticket};
pub use compaction::{
    INPUTS_MAX, Job, Levels, Pace, PaceOptions, Permit, PickOptions, RunView, Verdict, Work, debt_bytes, pick,
};
pub use error::{Corruption, Error, Outcome, Result};
pub use identity::{DatabaseId, Identity};
pub use key::{
    KEY_BYTES_MAX, Key, NamespaceId, OwnedPosition, PARTITIONS_MAX, PARTITIONS_MIN, Partition, Position,
    key_hash, partition_of, tag,
};
pub use memtable::{EntryRef, MEMTABLE_BYTES_MAX, Memtable, MemtableCursor, Published, Remains};
pub use record::{RecordKind, RecordView};
pub use stamp::{HybridClock, HybridTime, Origin, Stamp};
pub use table::TableMeta;
