//! RocksDB through its C++ library, in a column family: the default one.

use std::path::Path;
use std::thread;

use rocksdb::{BlockBasedOptions, Cache, DB, DBCompressionType, Options, ReadOptions, WriteOptions};

use super::Sizes;
use crate::drive::blocking::Store;
use crate::drive::process;
use crate::drive::speech::append_record;
use crate::drive::target::Description;
use crate::error::Result;

/// Of a block of a table, in bytes; as Pinion's, and RocksDB's default.
const BLOCK_BYTES: usize = 4 << 10;
/// Of a filter.
const BITS_PER_KEY: f64 = 10.0;
/// The first level is so many write buffers large, which is when RocksDB moves them there.
const LEVEL_BASE_BUFFERS: u64 = 4;
/// Log files that are written over instead of growing new ones, as Pinion does.
const LOGS_KEPT: usize = 4;
/// Files of text that it writes about itself.
const TEXT_LOGS_KEPT: usize = 2;

/// What it says of itself: its names for it, and ours.
const PROPERTIES: [(&str, &str); 8] = [
    ("rocksdb.total-sst-files-size", "table_bytes"),
    ("rocksdb.estimate-pending-compaction-bytes", "compaction_debt_bytes"),
    ("rocksdb.cur-size-all-mem-tables", "memtable_bytes"),
    ("rocksdb.block-cache-usage", "block_cache_bytes"),
    ("rocksdb.estimate-table-readers-mem", "index_bytes"),
    ("rocksdb.num-running-compactions", "running_compactions"),
    ("rocksdb.num-running-flushes", "running_flushes"),
    ("rocksdb.actual-delayed-write-rate", "delayed_write_rate"),
];

/// An open database.
pub(super) struct Rocksdb {
    db: DB,
    write_options: WriteOptions,
    sizes: Sizes,
    direct_io: bool,
}

impl Rocksdb {
    /// Opens the database in a directory, or makes it.
    pub(super) fn open(dir: &Path, sizes: Sizes, is_sync: bool, direct_io: bool) -> Result<Self, String> {
        let db = DB::open(&options(sizes, direct_io)?, dir).map_err(said)?;
        let mut write_options = WriteOptions::default();
        write_options.set_sync(is_sync);
        Ok(Self { db, write_options, sizes, direct_io })
    }
}

fn options(sizes: Sizes, direct_io: bool) -> Result<Options, String> {
    let bytes = |bytes: u64| usize::try_from(bytes).map_err(|error| error.to_string());
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(bytes(sizes.cache_bytes)?));
    table.set_block_size(BLOCK_BYTES);
    table.set_bloom_filter(BITS_PER_KEY, false);
    // Within the memory, like blocks; those of the newest tables stay.
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(bytes(sizes.write_buffer_bytes)?);
    options.set_max_write_buffer_number(i32::try_from(sizes.write_buffers).unwrap_or(i32::MAX));
    options.set_max_bytes_for_level_base(LEVEL_BASE_BUFFERS * sizes.write_buffer_bytes);
    options.set_target_file_size_base(sizes.write_buffer_bytes);
    options.set_compression_type(DBCompressionType::None);
    options.set_bottommost_compression_type(DBCompressionType::None);
    options.set_use_direct_reads(direct_io);
    options.set_use_direct_io_for_flush_and_compaction(direct_io);
    options.set_recycle_log_file_num(LOGS_KEPT);
    options.set_keep_log_file_num(TEXT_LOGS_KEPT);
    // Flushes and compactions may use every cpu that it is given.
    let cpus = thread::available_parallelism().map_or(2, |cpus| cpus.get().max(2));
    options.increase_parallelism(i32::try_from(cpus).unwrap_or(i32::MAX));
    Ok(options)
}

fn said(error: rocksdb::Error) -> String {
    error.into_string()
}

impl Store for Rocksdb {
    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, String> {
        let found = self.db.get_pinned(key).map_err(said)?;
        if let Some(found) = &found {
            value.extend_from_slice(found);
        }
        Ok(found.is_some())
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), String> {
        self.db.put_opt(key, value, &self.write_options).map_err(said)
    }

    fn delete(&self, key: &[u8]) -> Result<(), String> {
        self.db.delete_opt(key, &self.write_options).map_err(said)
    }

    fn scan(&self, start: &[u8], limit: u64, records: &mut Vec<u8>) -> Result<u64, String> {
        let mut iterator = self.db.raw_iterator_opt(ReadOptions::default());
        iterator.seek(start);
        let mut found = 0;
        while found < limit
            && let Some((key, value)) = iterator.item()
        {
            append_record(key, value, records);
            found += 1;
            if found < limit {
                iterator.next();
            }
        }
        iterator.status().map_err(said)?;
        Ok(found)
    }

    fn describe(&self) -> Description {
        let fact = |name: &str, value: String| (name.to_owned(), value);
        let mib = |bytes: u64| bytes >> 20;
        let Sizes { write_buffer_bytes, write_buffers, cache_bytes } = self.sizes;
        // The crate's own, then RocksDB's.
        let version = super::locked_version("librocksdb-sys");
        let version = version.split_once('+').map_or(version, |(_, theirs)| theirs);
        let files = if self.direct_io { "direct I/O but for the log" } else { "through the page cache" };
        let facts = vec![
            fact("product", "RocksDB, in the process of the load".to_owned()),
            fact("version", version.to_owned()),
            fact(
                "memory",
                format!(
                    "{write_buffers} write buffers of {} MiB, {} MiB of block cache with index and filters",
                    mib(write_buffer_bytes),
                    mib(cache_bytes)
                ),
            ),
            fact("files", files.to_owned()),
            fact(
                "tables",
                "no compression, bloom filters of 10 bits for each key, blocks of 4 KiB".to_owned(),
            ),
        ];
        let value = |name: &str| self.db.property_int_value(name).ok().flatten();
        let mut counters: Vec<(String, u64)> = PROPERTIES
            .iter()
            .filter_map(|(theirs, ours)| Some((format!("storage.{ours}"), value(theirs)?)))
            .collect();
        let log_bytes = self.db.property_value("rocksdb.dbstats").ok().flatten();
        let log_bytes = log_bytes.as_deref().and_then(log_bytes_of);
        counters.extend(log_bytes.map(|bytes| ("storage.log_bytes".to_owned(), bytes)));
        counters.extend(process::counters());
        Description { facts, counters }
    }
}

/// Bytes written to the log since it was opened, to a hundredth of a GiB, as `rocksdb.dbstats` tells them.
fn log_bytes_of(stats: &str) -> Option<u64> {
    let line = stats.lines().find_map(|line| line.strip_prefix("Cumulative WAL:"))?;
    let (gib, _) = line.split_once("written: ")?.1.split_once(" GB")?;
    Some((gib.parse::<f64>().ok()? * f64::from(1 << 30)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_the_log_are_found() {
        let stats = "Cumulative writes: 81K writes, 81K keys\nCumulative WAL: 81K writes, 0 syncs, 81920.00 writes per \
                     sync, written: 0.25 GB, 8.10 MB/s\nInterval WAL: 1 writes, written: 0.01 GB";
        assert_eq!((log_bytes_of(stats), log_bytes_of("")), (Some(1 << 28), None));
    }
}
