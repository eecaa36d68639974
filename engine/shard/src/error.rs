//! The engine's errors. Each says whether the operation was applied, and what to do.

use std::path::PathBuf;
use std::sync::Arc;

/// Bytes on disk that are not what was written there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: damaged at byte {offset}: {what}: expected {expected}, found {found}", file.display())]
pub struct Corruption {
    /// The damaged file.
    pub file: PathBuf,
    /// Where in the file.
    pub offset: u64,
    /// Which check failed.
    pub what: &'static str,
    /// What should stand there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

/// What is known about an operation that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It changed nothing and never will.
    NotApplied,
    /// It may or may not have been, or still be, applied.
    Unknown,
}

/// Why an operation does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// Something is to be added to other text than a decimal 64-bit integer.
    #[error("the value is not a 64-bit integer in decimal")]
    NotAnInteger,
    /// The sum is beyond a 64-bit integer.
    #[error("the sum does not fit a 64-bit integer")]
    Overflow,
    /// A conditional write or update came with a stamp.
    #[error("a conditional write or update takes no stamp of the client's")]
    Stamped,
    /// Setting an expiry was given where a value is computed.
    #[error("an expiry is not a change of the value")]
    NotAChange,
}

/// Why an operation or opening a shard failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A key, value or batch over its limit, or an empty key.
    #[error("{what} of {bytes} bytes is outside 1 to {max} bytes")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The operation does not fit the value it found (adding to something that is no number).
    #[error("the operation does not fit the value: {0}")]
    BadOperation(Misfit),
    /// The proposed stamp is older than the retry window: too late to tell a retry from news.
    #[error("the stamp is older than the retry window of {window_ms} ms")]
    StampTooOld {
        /// `retry_window_ms_max`.
        window_ms: u64,
    },
    /// The proposed stamp is ahead of the clock.
    #[error("the stamp is ahead of the server's clock by more than 500 ms")]
    StampAhead,
    /// More work is queued than the shard may hold. Try again after the given time.
    #[error("overloaded: retry after {retry_after_ms} ms")]
    Overloaded {
        /// When to try again, in milliseconds.
        retry_after_ms: u32,
    },
    /// The request's time was over before the write entered the log.
    #[error("the deadline passed before the operation started")]
    Deadline,
    /// The disk is (nearly) full: reads go on, writes are refused until space returns.
    #[error("the disk is full: writes are refused until space returns")]
    DiskFull,
    /// Stored bytes failed a check.
    #[error(transparent)]
    Damaged(Arc<Corruption>),
    /// A write or sync failed: the shard acknowledges nothing any more. Restart the node when the
    /// device is healthy; it recovers what was acknowledged.
    #[error("storage failed, the shard has stopped: {0}")]
    StorageFailed(Arc<str>),
    /// The node is stopping and takes no new requests.
    #[error("shutting down")]
    ShuttingDown,
    /// The directory or a file in it was written by another version or another database.
    #[error("{}: {reason}", file.display())]
    WrongFormat {
        /// The file.
        file: PathBuf,
        /// What does not fit, and what to do.
        reason: String,
    },
    /// Another process has the data directory open.
    #[error("{}: locked by another process: stop it, or choose another directory", dir.display())]
    Locked {
        /// The data directory.
        dir: PathBuf,
    },
    /// Options that contradict each other or the data directory.
    #[error("{0}")]
    BadOptions(String),
    /// Reading or opening failed; nothing was changed.
    #[error("{}: {error}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        error: Arc<std::io::Error>,
    },
}

impl Error {
    /// What is known about a write that failed with this error.
    pub const fn outcome(&self) -> Outcome {
        match self {
            // The write may have reached the device before the failure.
            Self::StorageFailed(_) => Outcome::Unknown,
            _ => Outcome::NotApplied,
        }
    }

    /// An I/O error at a file.
    pub fn io(file: impl Into<PathBuf>, error: std::io::Error) -> Self {
        Self::Io { file: file.into(), error: Arc::new(error) }
    }
}

impl From<Corruption> for Error {
    fn from(corruption: Corruption) -> Self {
        Self::Damaged(Arc::new(corruption))
    }
}

/// The engine's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;
