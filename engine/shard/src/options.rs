//! The sizes and limits of a shard.
//!
//! Everything is small enough to be set in a test, so that a short history flushes and compacts.

use pinion_env::PAGE_BYTES;

use crate::error::{Error, Result};

/// The largest value a configuration may allow.
pub const VALUE_BYTES_MAX_CEILING: u32 = 16 << 20;

/// The sizes and limits of one shard. `Default` is for production; [`Options::for_memory`] splits
/// one memory budget.
#[derive(Debug, Clone)]
pub struct Options {
    /// Largest value in bytes; at most [`VALUE_BYTES_MAX_CEILING`].
    pub value_bytes_max: u32,
    /// Operations in one batch.
    pub batch_ops_max: u32,
    /// Keys and values of one batch in bytes; a batch fits a log segment.
    pub batch_bytes_max: u32,

    /// Size of a log segment in bytes.
    pub log_segment_bytes: u32,
    /// Bytes that may wait for the log; beyond it writes are refused as overloaded.
    pub log_queue_bytes_max: u32,
    /// A log block (one group commit) is closed at this size.
    pub log_block_bytes_max: u32,
    /// Spare segments kept for reuse.
    pub log_spare_segments_max: u32,
    /// Writes that may be pending.
    pub pending_ops_max: u32,
    /// Room for edits in a manifest file; a full one is followed by the next.
    pub manifest_edit_bytes: u32,

    /// A memtable is frozen at this size, overhead included. One is written to, at most two wait
    /// to be flushed.
    pub memtable_bytes: u64,
    /// Target size of a table.
    pub table_bytes: u64,
    /// Bytes of one write to a table, whole pages.
    pub table_write_bytes: u32,
    /// Most that the first level below the runs is meant to hold.
    pub level_base_bytes: u64,
    /// Each level is this many times as large as the one above.
    pub level_growth: u32,
    /// Runs of a like size that are merged with each other or into a level.
    pub runs_max: u32,
    /// Runs are merged into the level below when all of them hold so many hundredths of what the levels do: about
    /// so much of the disk may be old versions.
    pub runs_percent: u32,

    /// Bytes of the block cache.
    pub block_cache_bytes: u64,
    /// Bytes of the row cache.
    pub row_cache_bytes: u64,

    /// Records read or written by a background job between two yields.
    pub step_records_max: u32,
    /// Bytes read or written by a background job between two yields.
    pub step_bytes_max: u32,

    /// How late a client may repeat a write with its stamp, in milliseconds.
    pub retry_window_ms_max: u64,
    /// The longest deadline a request may carry, in milliseconds.
    pub deadline_ms_max: u64,
    /// How far a client's stamp may be ahead of the wall clock, in milliseconds.
    pub stamp_ahead_ms_max: u64,
    /// Space left free for compaction: user writes are refused below it, in bytes.
    pub disk_reserve_bytes: u64,
    /// Records that one page of a scan may hold.
    pub scan_records_max: u32,
    /// Bytes of keys and values that one page of a scan may hold (one record always fits).
    pub scan_bytes_max: u32,
    /// How often tables are looked through for expired data, in milliseconds.
    pub sweep_interval_ms: u64,
}

/// The least memory a shard runs with.
pub const MEMORY_BYTES_MIN: u64 = 64 << 20;

impl Default for Options {
    fn default() -> Self {
        Self {
            value_bytes_max: 1 << 20,
            batch_ops_max: 1024,
            batch_bytes_max: 4 << 20,
            log_segment_bytes: 64 << 20,
            log_queue_bytes_max: 8 << 20,
            log_block_bytes_max: 1 << 20,
            log_spare_segments_max: 2,
            pending_ops_max: 65_536,
            manifest_edit_bytes: 1 << 20,
            memtable_bytes: 64 << 20,
            table_bytes: 16 << 20,
            table_write_bytes: 128 << 10,
            level_base_bytes: 32 << 30,
            level_growth: 8,
            runs_max: 4,
            runs_percent: 25,
            block_cache_bytes: 256 << 20,
            row_cache_bytes: 128 << 20,
            step_records_max: 64,
            step_bytes_max: 64 << 10,
            retry_window_ms_max: 60_000,
            deadline_ms_max: 60_000,
            stamp_ahead_ms_max: 500,
            disk_reserve_bytes: 256 << 20,
            scan_records_max: 10_000,
            scan_bytes_max: 1 << 20,
            sweep_interval_ms: 60_000,
        }
    }
}

impl Options {
    /// Splits the memory of one shard: three memtables of an eighth each (at least 8 MiB), half of
    /// the rest for blocks, a quarter for rows; index, filters and buffers have what is left.
    ///
    /// # Errors
    /// [`Error::BadOptions`] below [`MEMORY_BYTES_MIN`].
    pub fn for_memory(memory_bytes: u64) -> Result<Self> {
        if memory_bytes < MEMORY_BYTES_MIN {
            return Err(Error::BadOptions(format!(
                "memory of {} MiB per shard is too small: at least {} MiB per shard are needed; \
                 raise --memory or start with fewer cores",
                memory_bytes >> 20,
                MEMORY_BYTES_MIN >> 20
            )));
        }
        // Large memtables absorb overwrites: what never leaves one is never flushed or compacted.
        // The log that recovery reads is as long as the memtables are large, hence the upper bound.
        let memtable_bytes = (memory_bytes / 8).clamp(8 << 20, 1 << 30);
        let rest = memory_bytes - 3 * memtable_bytes;
        let defaults = Self::default();
        // A flush gives back about as many segments as one memtable takes.
        let spares = memtable_bytes / u64::from(defaults.log_segment_bytes) + 2;
        Ok(Self {
            memtable_bytes,
            log_spare_segments_max: spares as u32,
            table_bytes: (memtable_bytes / 4).clamp(4 << 20, 32 << 20),
            level_base_bytes: memtable_bytes * 512,
            block_cache_bytes: rest / 2,
            row_cache_bytes: rest / 4,
            log_queue_bytes_max: (memtable_bytes / 2).clamp(4 << 20, 32 << 20) as u32,
            ..defaults
        })
    }

    /// Checks that the sizes fit each other.
    ///
    /// # Errors
    /// [`Error::BadOptions`] naming the two that do not.
    pub fn check(&self) -> Result<()> {
        let bad = |text: String| Err(Error::BadOptions(text));
        if self.value_bytes_max > VALUE_BYTES_MAX_CEILING {
            return bad(format!(
                "value_bytes_max of {} is above {VALUE_BYTES_MAX_CEILING}",
                self.value_bytes_max
            ));
        }
        let largest = u64::from(self.value_bytes_max).max(u64::from(self.batch_bytes_max)) + (64 << 10);
        if u64::from(self.log_segment_bytes) < 64 << 10 {
            return bad(format!("log_segment_bytes of {} is below 65536", self.log_segment_bytes));
        }
        if largest > u64::from(self.log_segment_bytes) {
            return bad(format!(
                "a value or batch of {largest} bytes does not fit log_segment_bytes of {}",
                self.log_segment_bytes
            ));
        }
        if self.table_write_bytes == 0 || !self.table_write_bytes.is_multiple_of(PAGE_BYTES as u32) {
            return bad(format!("table_write_bytes of {} is not whole pages", self.table_write_bytes));
        }
        if self.level_growth < 2 || self.runs_max == 0 || self.step_records_max == 0 {
            return bad("level_growth is at least 2; runs_max and step_records_max at least 1".into());
        }
        if self.runs_percent == 0 {
            return bad("runs_percent is at least 1".into());
        }
        Ok(())
    }
}
