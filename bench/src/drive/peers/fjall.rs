//! fjall: one keyspace of one database.

use std::path::Path;

use fjall::config::{BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::Sizes;
use crate::drive::blocking::Store;
use crate::drive::process;
use crate::drive::target::Description;
use crate::error::Result;

/// The name of the keyspace.
const KEYSPACE: &str = "records";
/// Of a filter.
const BITS_PER_KEY: f32 = 10.0;

/// An open database.
pub(super) struct Fjall {
    db: Database,
    records: Keyspace,
    sizes: Sizes,
    is_sync: bool,
}

impl Fjall {
    /// Opens the database in a directory, or makes it.
    pub(super) fn open(dir: &Path, sizes: Sizes, is_sync: bool) -> Result<Self, String> {
        let db = Database::builder(dir)
            .cache_size(sizes.cache_bytes)
            .journal_compression(CompressionType::None)
            .open()
            .map_err(said)?;
        let options = || {
            let filter = FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(BITS_PER_KEY));
            KeyspaceCreateOptions::default()
                .max_memtable_size(sizes.write_buffer_bytes)
                .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
                .index_block_compression_policy(CompressionPolicy::all(CompressionType::None))
                .filter_policy(FilterPolicy::all(filter))
        };
        let records = db.keyspace(KEYSPACE, options).map_err(said)?;
        Ok(Self { db, records, sizes, is_sync })
    }

    /// After a write: it is in the journal's file already.
    fn persist(&self) -> Result<(), String> {
        if self.is_sync { self.db.persist(PersistMode::SyncData).map_err(said) } else { Ok(()) }
    }
}

fn said(error: fjall::Error) -> String {
    error.to_string()
}

impl Store for Fjall {
    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, String> {
        let found = self.records.get(key).map_err(said)?;
        if let Some(found) = &found {
            value.extend_from_slice(found);
        }
        Ok(found.is_some())
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), String> {
        self.records.insert(key, value).map_err(said)?;
        self.persist()
    }

    fn delete(&self, key: &[u8]) -> Result<(), String> {
        self.records.remove(key).map_err(said)?;
        self.persist()
    }

    fn scan(&self, start: &[u8], limit: u64, records: &mut Vec<u8>) -> Result<u64, String> {
        let mut found = 0;
        for record in self.records.range(start..).take(usize::try_from(limit).unwrap_or(usize::MAX)) {
            let (key, value) = record.into_inner().map_err(said)?;
            records.extend_from_slice(&key);
            records.extend_from_slice(&value);
            found += 1;
        }
        Ok(found)
    }

    fn describe(&self) -> Description {
        let fact = |name: &str, value: String| (name.to_owned(), value);
        let mib = |bytes: u64| bytes >> 20;
        let facts = vec![
            fact("product", "fjall, in the process of the load".to_owned()),
            fact("version", super::locked_version("fjall").to_owned()),
            fact(
                "memory",
                format!(
                    "write buffers of {} MiB, {} MiB of block cache",
                    mib(self.sizes.write_buffer_bytes),
                    mib(self.sizes.cache_bytes)
                ),
            ),
            fact("files", "through the page cache".to_owned()),
            fact(
                "tables",
                "no compression, bloom filters of 10 bits for each key, blocks of 4 KiB".to_owned(),
            ),
        ];
        let counter = |name: &str, value: u64| (format!("storage.{name}"), value);
        let mut counters = vec![
            counter("table_bytes", self.records.disk_space()),
            counter("memtable_bytes", self.db.write_buffer_size()),
            counter("tables", self.records.table_count() as u64),
            counter("running_compactions", self.db.active_compactions() as u64),
            counter("compactions", self.db.compactions_completed() as u64),
        ];
        counters.extend(process::counters());
        Description { facts, counters }
    }
}
