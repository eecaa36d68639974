//! SIGINT and SIGTERM while loads run: the load ends, and what it had counted until then is reported. A
//! second signal ends the process at once.
//!
//! Signals are sent to a process, so what is here is the process', too. A program that has other plans
//! with its signals does not call [`stop_on_signals`].

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Exit code of a process that a signal ended, less the signal's number.
const SIGNAL_EXIT_BASE: i32 = 128;

static STOPPED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on a signal ends the load that runs, and every later one as soon as it begins.
///
/// # Errors
/// The system's: a handler could not be set up.
pub fn stop_on_signals() -> io::Result<()> {
    let stopped = STOPPED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag unset.
        flag::register_conditional_shutdown(signal, SIGNAL_EXIT_BASE + signal, Arc::clone(stopped))?;
        flag::register(signal, Arc::clone(stopped))?;
    }
    Ok(())
}

/// Whether a signal came.
pub(super) fn is_stopped() -> bool {
    STOPPED.get().is_some_and(|stopped| stopped.load(Ordering::Relaxed))
}
