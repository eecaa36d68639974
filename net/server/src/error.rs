//! Why a node could not start or had to stop. What clients are told is the protocol's error code.

/// Why serving ended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Limits that contradict each other.
    #[error("{0}")]
    BadConfig(String),
    /// The engine could not open or close its files.
    #[error(transparent)]
    Engine(#[from] pinion_engine::Error),
    /// Another core of this node failed to start, so this one stopped too.
    #[error("core {core} could not start: {reason}")]
    OtherCore {
        /// The core that failed.
        core: usize,
        /// Its error.
        reason: String,
    },
    /// Told to stop a second time: requests under way were dropped, and recovery at the next start
    /// replays what was acknowledged.
    #[error("stopped at once")]
    Aborted,
}

/// The server's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;
