//! SIGTERM and SIGINT: a comparison that is stopped leaves no process and no directory behind.
//!
//! One thread waits for signals. The first kills the server that runs and lets no other start: what
//! the comparison is doing then fails, wherever it is, and it cleans up as after any failure. A
//! second ends this process at once.
//!
//! Limits: after the second, or SIGKILL, directories stay, and after SIGKILL the server runs on.

use std::io;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::{Error, Result};

/// Exit code of a process that a signal ended, less the signal's number.
const SIGNAL_EXIT_BASE: i32 = 128;

/// The one server process of a comparison, and whether another may start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Running(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    child: Option<Child>,
}

/// Starts the thread that waits for signals, for the rest of this process.
///
/// # Errors
/// Handlers or the thread could not be set up.
pub(crate) fn watch(running: Running) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            running.stop();
        }
        if let Some(signal) = signals.next() {
            std::process::exit(SIGNAL_EXIT_BASE + signal);
        }
    })?;
    Ok(())
}

impl Running {
    /// Starts the server and hands it to `look` for what it has to give.
    ///
    /// # Errors
    /// [`Error::Stopped`], or the system's as `refused` makes it.
    pub(crate) fn start<T>(
        &self,
        command: &mut Command,
        refused: impl FnOnce(io::Error) -> Error,
        look: impl FnOnce(&mut Child) -> T,
    ) -> Result<T> {
        // Under one lock, so that no stop falls between the question and the start.
        let mut state = self.state();
        if state.stopped {
            return Err(Error::Stopped);
        }
        assert!(state.child.is_none(), "a server is ended before the next starts");
        Ok(look(state.child.insert(command.spawn().map_err(refused)?)))
    }

    /// Ends the server, if there is one, and waits until it is gone. Its data is thrown away after, so
    /// there is nothing to end in order.
    pub(crate) fn end(&self) {
        let child = self.state().child.take();
        if let Some(mut child) = child {
            // These fail only if it has ended.
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Kills the server and lets no other start.
    pub(crate) fn stop(&self) {
        let mut state = self.state();
        state.stopped = true;
        if let Some(child) = &mut state.child {
            drop(child.kill());
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stopped_ends_and_nothing_else_starts() {
        let running = Running::default();
        let start = || running.start(Command::new("sleep").arg("1000"), Error::Io, |child| child.id());
        let process = start().unwrap();
        running.end();
        let next = start().unwrap();
        assert_ne!(process, next);
        running.stop();
        assert!(running.is_stopped());
        // Would wait for a thousand seconds otherwise.
        drop(running.state().child.as_mut().unwrap().wait());
        running.end();
        assert!(matches!(start(), Err(Error::Stopped)));
    }
}
