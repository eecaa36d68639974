//! How a command fails: what it tells and with which code it ends.

use std::io;
use std::process::ExitCode;

use pinion_client::{Error, ErrorCode, Outcome};

/// The result of a command.
pub(super) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(super) enum Failure {
    /// The key is not there. Says nothing.
    Missing,
    /// Done in part, or a condition did not hold.
    Refused(String),
    /// The arguments do not make sense together.
    Usage(String),
    /// The server cannot be reached, or refused or failed.
    Server(Error),
    /// A file or pipe failed.
    System(String),
    /// Whoever read our output has seen enough.
    ReaderGone,
}

impl Failure {
    /// Tells standard error, and gives the exit code.
    pub(super) fn report(self) -> ExitCode {
        let (code, text) = match self {
            Self::ReaderGone => return ExitCode::SUCCESS,
            Self::Missing => return ExitCode::from(1),
            Self::Refused(text) => (1, text),
            Self::Usage(text) => (2, text),
            Self::Server(error) => (code(&error), explain(&error)),
            Self::System(text) => (3, text),
        };
        eprintln!("pinion: {text}");
        ExitCode::from(code)
    }

    /// A failure of a named file.
    pub(super) fn file(path: &std::path::Path, error: &io::Error) -> Self {
        Self::System(format!("{}: {error}", path.display()))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}

/// Of standard output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::ReaderGone
        } else {
            Self::System(format!("cannot write: {error}"))
        }
    }
}

fn code(error: &Error) -> u8 {
    match error {
        Error::ConditionFailed { .. } => 1,
        Error::Invalid(_) => 2,
        _ => 3,
    }
}

/// The error with what a person can do about it.
fn explain(error: &Error) -> String {
    let mut text = error.to_string();
    match error {
        Error::Connect { .. } => text += "\nIs a server running there? Start one with: pinion serve",
        Error::NoSuchNamespace(name) => {
            text += &format!("\nCreate it with: pinion namespace create {name}");
        }
        Error::ConditionFailed { current: Some(version) } => text += &format!(": the version is {version}"),
        Error::ConditionFailed { current: None } => text += ": the key is absent",
        _ if error.code() == Some(ErrorCode::DiskFull) => {
            text += "\nReads go on; free some space to write again."
        }
        _ => {}
    }
    // A timeout says so itself.
    if error.outcome() == Outcome::Unknown && !matches!(error, Error::TimedOut { .. }) {
        text += "\nThe write may have been applied.";
    }
    text
}
