//! The write-ahead log of one shard.
//!
//! Records (atomic batches) are appended to a block in memory; a commit writes all that is staged
//! as one padded, durable write into a zero-filled segment that is reused for ever. There is no
//! timer: while one write is in flight, the next block fills. A position names a record's end;
//! what [`Log::commit`] returns covers every position at or before it.
//!
//! * [`Log`] appends, commits, and gives segments back ([`Log::release`]).
//! * [`LogReplay`] reads what is there and decides where the log ends; it turns into a [`Log`].
//!
//! Every block carries how far the log was durable when it was written (the *mark*). That proves
//! all blocks before it: a bad block before a mark is corruption and refuses to open, one at or
//! after the greatest mark is the torn write of a crash and ends the log. Only the last block is
//! unproven; [`Log::commit_mark`] proves it after an idle moment and at shutdown.
//!
//! Failure: a failed write is final. The log then answers every append and commit with that
//! failure; nothing is retried. Running out of space while a segment is made is not a failure:
//! appends answer [`AppendError::DiskFull`] until a segment could be made.
//!
//! Bytes: `engine/FORMAT.md`, section Log.

mod files;
mod format;
mod replay;
mod scan;
mod staging;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::sync::Arc;

pub use format::Ops;
pub use replay::{LOG_DIR, LogReplay, NextSegmentFile, ReplayMode, ReplayedBatch};
pub use writer::Log;

use crate::error::{Error, Result};
use crate::key::{NamespaceId, Partition};
use crate::options::Options;
use crate::record::RecordKind;

/// A place in a shard's log: segment id above, offset in the segment below. Grows with every
/// record. A record's position is where the record ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogPosition(pub u64);

impl LogPosition {
    /// Before everything.
    pub const ZERO: Self = Self(0);

    /// From its parts.
    pub const fn new(segment: u32, offset: u32) -> Self {
        Self((segment as u64) << 32 | offset as u64)
    }

    /// The segment's id; ids start at 1.
    pub const fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Bytes from the segment's start.
    pub const fn offset(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment(), self.offset())
    }
}

/// The greatest id of a segment: no log gets there, and ids beyond it are those of no segment of ours.
pub(crate) const SEGMENT_ID_MAX: u32 = u32::MAX - (1 << 20);

/// One operation of a record as the log keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOp<'a> {
    /// What it leaves under the key.
    pub kind: RecordKind,
    /// Where the key is placed.
    pub partition: Partition,
    /// Its namespace.
    pub namespace: NamespaceId,
    /// The user's key.
    pub key: &'a [u8],
    /// When it stops being visible, in milliseconds since 1970; 0 = never.
    pub expiry_ms: u64,
    /// The value; empty for a tombstone.
    pub value: &'a [u8],
}

/// The log's sizes.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Size of a segment in bytes: a multiple of 4,096, at least 64 KiB.
    pub segment_bytes: u32,
    /// A block is closed at about this size.
    pub block_bytes_max: u32,
    /// Record bytes that may be staged or in flight; one record always may.
    pub queue_bytes_max: u32,
    /// Released segments kept for reuse.
    pub spare_segments_max: u32,
    /// No segment is made when less than this would be left free, in bytes.
    pub disk_reserve_bytes: u64,
}

impl LogOptions {
    /// The smallest segment.
    pub const SEGMENT_BYTES_MIN: u32 = 64 << 10;
    /// The largest segment.
    pub const SEGMENT_BYTES_MAX: u32 = 1 << 30;

    fn check(&self) -> Result<()> {
        let sound = (Self::SEGMENT_BYTES_MIN..=Self::SEGMENT_BYTES_MAX).contains(&self.segment_bytes)
            && self.segment_bytes.is_multiple_of(4096);
        if !sound {
            return Err(Error::BadOptions(format!(
                "log_segment_bytes of {} is not a multiple of 4096 from {} to {}",
                self.segment_bytes,
                Self::SEGMENT_BYTES_MIN,
                Self::SEGMENT_BYTES_MAX
            )));
        }
        Ok(())
    }
}

impl From<&Options> for LogOptions {
    fn from(options: &Options) -> Self {
        Self {
            segment_bytes: options.log_segment_bytes,
            block_bytes_max: options.log_block_bytes_max,
            queue_bytes_max: options.log_queue_bytes_max,
            spare_segments_max: options.log_spare_segments_max,
            disk_reserve_bytes: options.disk_reserve_bytes,
        }
    }
}

/// Why a record was not staged. It is not in the log and never will be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// As much is staged as may be: try again after a commit.
    #[error("the log's queue is full")]
    Full,
    /// The record does not fit a segment, or a length does not fit its field.
    #[error("a log record of {bytes} bytes is over {max} bytes")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// No segment can be made. Ends by itself when space returns.
    #[error("no space for a log segment")]
    DiskFull,
    /// The log has failed or was shut down; [`Log::failure`] says which.
    #[error("the log has stopped: {0}")]
    Failed(Arc<str>),
}

/// What the log has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogStats {
    /// Blocks written; each is one durable write.
    pub commits: u64,
    /// Records written.
    pub records: u64,
    /// Bytes of records.
    pub logged_bytes: u64,
    /// Bytes of blocks, headers and padding included.
    pub written_bytes: u64,
    /// File and directory syncs for segments.
    pub syncs: u64,
    /// Segments made.
    pub segments_made: u64,
    /// Segments used again.
    pub segments_recycled: u64,
    /// Segments removed.
    pub segments_removed: u64,
    /// Commits that had to wait for a segment.
    pub segment_waits: u64,
    /// Times that making a segment found no space.
    pub space_waits: u64,
    /// Record bytes staged or in flight now.
    pub queued_bytes: u64,
}
