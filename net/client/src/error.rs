//! The one error type, and what each error says about the write that met it.
//!
//! Two questions matter to a caller. [`Error::outcome`]: did the write happen? [`Error::is_retryable`]:
//! may the same call succeed later? They are independent: a timeout is worth another try, but its
//! write may have happened already. The client answers the safe cases itself before it returns an
//! error (see the crate's notes on retries), so an error is what is left.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::{ErrorCode, Version};

/// What is known of a write that ended in an error. Reads change nothing: theirs is `NotApplied`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The server carried it out, but its answer could not be used.
    Applied,
    /// It did not happen and will not.
    NotApplied,
    /// It may have happened, or may still happen: the answer was lost or came too late.
    Unknown,
}

/// The result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection could be made; the request was never sent.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: String,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// The connection was lost before the answer came.
    #[error("connection lost: {reason}")]
    Disconnected {
        /// `NotApplied` if the request had not been sent.
        outcome: Outcome,
        /// What ended it.
        reason: String,
    },
    /// The deadline passed first.
    #[error("deadline exceeded{}", if *.outcome == Outcome::Unknown { "; the write may have been applied" } else { "" })]
    TimedOut {
        /// `Unknown` for a write that had been sent.
        outcome: Outcome,
    },
    /// A conditional write found something else.
    #[error("condition failed")]
    ConditionFailed {
        /// The version found; `None` if the key is absent.
        current: Option<Version>,
    },
    /// The server refused or failed.
    #[error("{}{}{message}", .code.name(), if .message.is_empty() { "" } else { ": " })]
    Server {
        /// Which refusal.
        code: ErrorCode,
        /// What it says about the write.
        outcome: Outcome,
        /// How long the server asks to wait before another try; zero if it does not say.
        retry_after: Duration,
        /// For people.
        message: String,
    },
    /// The namespace does not exist.
    #[error("no such namespace: {0}")]
    NoSuchNamespace(String),
    /// The request breaks a limit or rule and was not sent.
    #[error("{0}")]
    Invalid(String),
    /// The client's own queue for this connection is full: more calls wait than `queue_max`.
    #[error("too many calls are waiting for the connection")]
    Busy,
    /// The server does not speak a version of the protocol that this client does, or broke it.
    #[error("protocol error: {message}")]
    Protocol {
        /// What is known of the write.
        outcome: Outcome,
        /// What was wrong.
        message: String,
    },
    /// The client is closed.
    #[error("the client is closed")]
    Closed,
}

impl Error {
    /// Whether the same call may succeed if it is made again. Says nothing about whether the
    /// first one happened: see [`Error::outcome`].
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Disconnected { .. } | Self::TimedOut { .. } | Self::Busy => true,
            Self::Server { code, .. } => code.is_retryable(),
            Self::ConditionFailed { .. }
            | Self::NoSuchNamespace(_)
            | Self::Invalid(_)
            | Self::Protocol { .. }
            | Self::Closed => false,
        }
    }

    /// What is known of the write that met this error.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Disconnected { outcome, .. }
            | Self::TimedOut { outcome }
            | Self::Server { outcome, .. }
            | Self::Protocol { outcome, .. } => *outcome,
            Self::Connect { .. }
            | Self::ConditionFailed { .. }
            | Self::NoSuchNamespace(_)
            | Self::Invalid(_)
            | Self::Busy
            | Self::Closed => Outcome::NotApplied,
        }
    }

    /// The server's code, if the server sent one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Server { code, .. } => Some(*code),
            Self::ConditionFailed { .. } => Some(ErrorCode::ConditionFailed),
            Self::NoSuchNamespace(_) => Some(ErrorCode::NoSuchNamespace),
            _ => None,
        }
    }

    /// How long the server asks to wait before another try; zero if it does not say.
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Server { retry_after, .. } => *retry_after,
            _ => Duration::ZERO,
        }
    }

    /// Whether the request certainly never reached a server.
    pub(crate) fn never_sent(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. } | Self::Disconnected { outcome: Outcome::NotApplied, .. } | Self::Busy
        )
    }

    /// The same error with another outcome, where it has one.
    pub(crate) fn with_outcome(mut self, known: Outcome) -> Self {
        match &mut self {
            Self::Disconnected { outcome, .. }
            | Self::TimedOut { outcome }
            | Self::Server { outcome, .. }
            | Self::Protocol { outcome, .. } => *outcome = known,
            _ => {}
        }
        self
    }

    /// The same error of a write that an earlier attempt may have carried out.
    pub(crate) fn in_doubt(self) -> Self {
        let unknown = Outcome::Unknown;
        match self {
            Self::Connect { address, source } => Self::Disconnected {
                outcome: unknown,
                reason: format!("cannot connect to {address}: {source}"),
            },
            Self::Busy | Self::Closed => Self::Disconnected { outcome: unknown, reason: self.to_string() },
            Self::NoSuchNamespace(name) => Self::Server {
                code: ErrorCode::NoSuchNamespace,
                outcome: unknown,
                retry_after: Duration::ZERO,
                message: name,
            },
            other => other.with_outcome(unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_attempt_in_doubt_makes_the_outcome_unknown() {
        let refused = Error::Connect {
            address: "localhost:1".into(),
            source: Arc::new(io::Error::from(io::ErrorKind::ConnectionRefused)),
        };
        assert_eq!(refused.outcome(), Outcome::NotApplied);
        assert!(refused.is_retryable());
        let doubtful = refused.in_doubt();
        assert_eq!(doubtful.outcome(), Outcome::Unknown);
        assert!(doubtful.is_retryable());
    }
}
