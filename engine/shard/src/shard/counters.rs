//! What a shard counts about itself: plain numbers of one core, read by `stats`.

use std::cell::Cell;

/// A number that only its core touches.
#[derive(Debug, Default)]
pub(crate) struct Counter(Cell<u64>);

impl Counter {
    pub(crate) fn add(&self, amount: u64) {
        self.0.set(self.0.get().wrapping_add(amount));
    }

    /// Keeps the largest amount seen.
    pub(crate) fn raise(&self, amount: u64) {
        self.0.set(self.0.get().max(amount));
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.get()
    }
}

/// Defines the counters once: the cells and the snapshot users see.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of a shard since it was opened.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $($(#[$doc])* pub(crate) $name: Counter,)*
        }

        /// A snapshot of a shard's counters since it was opened.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct ShardCounters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> ShardCounters {
                ShardCounters { $($name: self.$name.get(),)* }
            }
        }

        impl ShardCounters {
            /// Every counter with its name, in a fixed order.
            pub fn entries(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Point reads that found a visible value.
    gets_found,
    /// Point reads that found none.
    gets_missing,
    /// Point reads answered by the row cache.
    row_cache_hits,
    /// Blocks looked into by point reads, cached or not.
    blocks_searched,
    /// Blocks read from the device for point reads and lookups.
    blocks_read,
    /// Blocks looked into in vain because a filter let a key through.
    filter_false_positives,
    /// Blocks that failed a check.
    damaged,
    /// Pages of scans.
    scans,
    /// Reads from the device for scans; several blocks that are read at once count as one.
    scan_reads,
    /// Bytes of these, whether the scan got there or not.
    scan_read_bytes,
    /// Operations staged: puts, deletes, updates, elements of batches.
    writes,
    /// Keys and values staged, in bytes.
    bytes_ingested,
    /// Writes refused before they were staged.
    writes_refused,
    /// Conditional writes whose condition did not hold.
    conditions_failed,
    /// Writes refused because all memtables were full.
    memtable_full,
    /// Writes refused because the log's queue was full.
    log_queue_full,
    /// Memtables written out.
    flushes,
    /// Bytes of tables written by flushes.
    flush_bytes,
    /// Time spent in flushes, in microseconds.
    flush_us,
    /// Memtables freed.
    memtables_freed,
    /// Compactions finished.
    compactions,
    /// Those of them that merged runs with each other.
    run_merges,
    /// Tables moved down a level without being rewritten.
    tables_moved,
    /// Tables dropped whole because everything in them had expired or was of dropped namespaces.
    tables_expired,
    /// Bytes of tables read by compactions.
    compaction_read_bytes,
    /// Bytes of tables written by compactions.
    compaction_written_bytes,
    /// Records that compactions left out: overwritten, deleted, expired, or of a dropped namespace.
    records_dropped,
    /// Expired values that became tombstones.
    records_expired,
    /// Operations replayed from the log when the shard was opened.
    records_replayed,
    /// Times the disk was full.
    disk_full,
    /// Steps of background jobs.
    steps,
    /// Records in the largest step.
    step_records_max,
    /// Bytes in the largest step.
    step_bytes_max,
    /// Keys of the largest filter built: what one step beside the counted ones may take.
    filter_keys_max,
}

impl Counters {
    pub(crate) fn count_get(&self, found: bool) {
        if found { self.gets_found.add(1) } else { self.gets_missing.add(1) }
    }
}
