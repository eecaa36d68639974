//! Logs: lines on standard error, as text for people or as JSON for programs.
//!
//! `PINION_LOG` chooses what is logged: `warn`, `pinion_server=debug`, ... A place in the code that logs too
//! often is left out for a while, and how often is told ([`repeats`]): a disk that is full or a peer that
//! misbehaves must not fill another disk, nor hide everything else.

mod repeats;

use std::io::IsTerminal;

use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use self::repeats::{Repeats, Teller};

/// The environment variable that chooses what is logged.
const LOG_VARIABLE: &str = "PINION_LOG";
const LOG_DEFAULT: &str = "info";

/// Lines of one place in the code in ten seconds, unless told otherwise.
pub(crate) const REPEATS_DEFAULT: u32 = 50;

/// What a line looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people: time, level, place, words
    #[default]
    Text,
    /// For programs: one JSON object per line
    Json,
}

/// Logs to standard error from now on. At most `repeats_max` lines of one place in the code are written in
/// ten seconds; 0 = all are.
///
/// What is returned tells at its end what was left out and not yet told.
///
/// # Errors
/// A sentence, if the thread that tells cannot be started.
pub(crate) fn to_stderr(format: LogFormat, repeats_max: u32) -> Result<Teller, String> {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new(LOG_DEFAULT));
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let (repeats, teller) = Repeats::new(repeats_max);
    tracing_subscriber::registry().with(lines).with(filter).with(repeats).init();
    teller.start().map_err(|error| format!("cannot start the thread of the logs: {error}"))?;
    Ok(teller)
}
