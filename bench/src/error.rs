//! Why a measurement could not be made.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use pinion_protocol::ProtocolError;

/// A measurement that failed. Nothing of it is reported then: half a measurement misleads.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option, or a combination of them, makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A socket or the ring failed; a connection that the server closed comes as
    /// [`io::ErrorKind::UnexpectedEof`] or [`io::ErrorKind::ConnectionReset`].
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The server could not be reached.
    #[error("connecting to {target}: {error}")]
    Connect {
        /// Its address.
        target: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The server's name has no address, or none could be found out.
    #[error("{target}: {reason}")]
    NoAddress {
        /// The server, as it was given.
        target: String,
        /// Why.
        reason: String,
    },
    /// The generator could not be kept on its cpu.
    #[error("running on cpu {cpu}: {error}")]
    Cpu {
        /// The cpu.
        cpu: usize,
        /// Why.
        error: io::Error,
    },
    /// A file or directory of the measurement failed.
    #[error("{path}: {error}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// What was found could not be told.
    #[error("standard output: {0}")]
    Output(io::Error),
    /// The server's bytes are not the protocol's.
    #[error("the server breaks the protocol: {0}")]
    Protocol(#[from] ProtocolError),
    /// An answer that fits no request, or does not fit its request.
    #[error("an answer that does not fit: {0}")]
    Answer(String),
    /// The server refused the connection or the filling of its records.
    #[error("the server refused: {0}")]
    Refused(String),
    /// For a long time every answer was that the server is overloaded.
    #[error("the server refused everything for {seconds} s: {message}")]
    Overloaded {
        /// How long.
        seconds: u64,
        /// What it said last.
        message: String,
    },
    /// No answer came for a long time.
    #[error("no answer for {0} s")]
    Silent(u64),
    /// The load was over, and a long time later some of its operations had no answer.
    #[error(
        "{operations} operations had no answer {seconds} s after the load was over; writes among them may have \
         been applied"
    )]
    Unanswered {
        /// How many, of one thread of the load.
        operations: usize,
        /// How long after.
        seconds: u64,
    },
    /// A shard in this process failed.
    #[error("the shard failed: {0}")]
    Engine(#[from] pinion_engine::Error),
    /// Another engine in this process could not be opened.
    #[error("{name} in {dir}: {reason}", dir = dir.display())]
    Peer {
        /// Which.
        name: &'static str,
        /// Its directory.
        dir: PathBuf,
        /// What it said.
        reason: String,
    },
    /// The runtime in this process did not start.
    #[error("{0}")]
    Runtime(#[from] pinion_runtime::RuntimeError),
    /// A signal ended the measurement; what it had started and made is gone.
    #[error("stopped by a signal")]
    Stopped,
    /// A file that should hold reports of runs does not.
    #[error("{path}: {problem}", path = path.display())]
    Report {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Runs that differ in more than what is compared; nothing was compared.
    #[error("the runs cannot be compared: {0}")]
    Incomparable(String),
    /// A histogram in a report is not HdrHistogram's compressed V2 encoding.
    #[error("not a histogram: {0}")]
    Histogram(String),
    /// A server process did not start, or ended.
    #[error("{0}")]
    Server(String),
}

/// Of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::File { path, error }
    }
}
