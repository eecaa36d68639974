//! The engine of one shard.
//!
//! A shard is one directory with everything in it: log, manifest, tables. One core owns it alone.

mod answer;
mod cache;
mod catalogue;
mod checksum;
mod codec;
mod compaction;
mod data_dir;
mod error;
mod framing;
mod identity;
mod key;
mod large;
pub mod log;
pub mod manifest;
mod memtable;
mod meta;
mod namespaces;
mod operation;
mod options;
mod quarters;
mod record;
mod shard;
mod signal;
mod small_file;
mod stamp;
mod table;
#[cfg(test)]
mod testing;
mod together;

pub use answer::{Answer, Teller, answer};
pub use cache::{Admission, BlockCache, BlockCacheStats, ROW_BYTES_MAX, RowCache, RowCacheStats, Ticket};
pub use catalogue::{
    Catalogue, CatalogueError, CatalogueFile, DEFAULT_NAMESPACE, NAMESPACE_NAME_BYTES_MAX, NAMESPACES_MAX,
    Namespace,
};
pub use compaction::{
    Debt, Job, Levels, Pace, PaceOptions, Permit, PickOptions, RunView, Slices, Verdict, Work, debt, pick,
};
pub use data_dir::{DataDir, FormatOptions};
pub use error::{Corruption, Error, Misfit, Outcome, Result};
pub use identity::{DatabaseId, Identity};
pub use key::{
    KEY_BYTES_MAX, Key, NamespaceId, OwnedPosition, PARTITIONS_MAX, PARTITIONS_MIN, Partition, Position,
    key_hash, partition_of, partitions_of_shard, tag,
};
pub use memtable::{
    Chunk, ChunkPool, EntryRef, IndexSlots, MEMTABLE_BYTES_MAX, Memtable, MemtableCursor, Published, Remains,
};
pub use meta::{META_NAMES, Meta};
pub use namespaces::{LiveNamespaces, TableNamespaces};
pub use operation::{
    BatchOperation, Condition, Durability, Effect, Expiring, Lifetime, Operation, Update, Waiter,
    WriteOptions, Written,
};
pub use options::{MEMORY_BYTES_MIN, Options, VALUE_BYTES_MAX_CEILING};
pub use quarters::Quarters;
pub use record::{RecordKind, RecordView};
pub use shard::{
    Ahead, Found, LevelStats, NeedsRead, QuarantinedTable, ScanKind, ScanRange, ScanSink, Shard,
    ShardCounters, ShardStats,
};
pub use stamp::{HybridClock, HybridTime, Origin, Stamp};
pub use table::{
    Block, BlockHandle, BlockUnit, FilterWidth, PART_RECORDS_MAX, ReadStyle, Table, TableCursor, TableMeta,
    TableOptions, TableVerifier, TableWriter, VerifyReport, table_number, table_path, verify_table,
};
