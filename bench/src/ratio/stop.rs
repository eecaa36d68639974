//! SIGTERM and SIGINT: a comparison that is stopped leaves no process and no directory behind.
//!
//! One thread waits for signals. The first kills all processes of the comparison and lets no other
//! start: what it is doing then fails, wherever it is, and it cleans up as after any failure. A
//! second ends this process at once.
//!
//! Every process leads a group of its own, so that what it starts stops and ends with it.
//!
//! Limits: after the second, or SIGKILL, directories stay, and after SIGKILL servers run on.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::{Error, Result};

/// Exit code of a process that a signal ended, less the signal's number.
const SIGNAL_EXIT_BASE: i32 = 128;

/// The processes of a comparison, and whether another may start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Running(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    children: Vec<Child>,
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
    /// Starts a process and hands it to `look` for what it has to give.
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
        let mut child = command.process_group(0).spawn().map_err(refused)?;
        let looked = look(&mut child);
        state.children.push(child);
        Ok(looked)
    }

    /// Sends a signal to a process and to what it has started, if it still runs.
    pub(crate) fn signal(&self, process: u32, signal: Signal) {
        if let Some(child) = self.state().children.iter().find(|child| child.id() == process) {
            signal_group(child, signal);
        }
    }

    /// Waits until a process has ended. Until [`Running::end`] the system still tells of it.
    ///
    /// # Errors
    /// The system's: it is no process of this comparison.
    pub(crate) fn wait(process: u32) -> io::Result<()> {
        let id = i32::try_from(process).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        loop {
            match waitid(WaitId::Pid(id), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Ends a process, unless it has ended, and waits until it is gone; how it ended, if it is one of
    /// this comparison. Its data is thrown away after, so there is nothing to end in order.
    pub(crate) fn end(&self, process: u32) -> Option<ExitStatus> {
        let mut child = {
            let mut state = self.state();
            let index = state.children.iter().position(|child| child.id() == process)?;
            state.children.swap_remove(index)
        };
        signal_group(&child, Signal::KILL);
        child.wait().ok()
    }

    /// Kills all processes and lets no other start.
    pub(crate) fn stop(&self) {
        let mut state = self.state();
        state.stopped = true;
        state.children.iter().for_each(|child| signal_group(child, Signal::KILL));
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Its number is its own until it was waited for. Fails only if nobody of the group is left.
fn signal_group(child: &Child, signal: Signal) {
    let _ = kill_process_group(Pid::from_child(child), signal);
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::Stdio;

    use super::*;

    fn sleep(running: &Running) -> Result<u32> {
        running.start(Command::new("sleep").arg("1000"), Error::Io, |child| child.id())
    }

    #[test]
    fn what_is_stopped_ends_and_nothing_else_starts() {
        let running = Running::default();
        let (first, second, third) =
            (sleep(&running).unwrap(), sleep(&running).unwrap(), sleep(&running).unwrap());
        assert!(running.end(first).is_some_and(|status| !status.success()));
        assert!(running.end(first).is_none() && first != second);
        running.stop();
        assert!(running.is_stopped());
        for process in [second, third] {
            // Would wait for a thousand seconds otherwise.
            Running::wait(process).unwrap();
            running.end(process).unwrap();
        }
        assert!(matches!(sleep(&running), Err(Error::Stopped)));
    }

    #[test]
    fn what_a_process_has_started_ends_with_it() {
        let running = Running::default();
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 1000 & echo $!; wait"]).stdout(Stdio::piped());
        let start = |child: &mut Child| (child.id(), child.stdout.take().unwrap());
        let (process, output) = running.start(&mut shell, Error::Io, start).unwrap();
        let mut said = String::new();
        let mut output = BufReader::new(output);
        output.read_line(&mut said).unwrap();
        running.signal(process, Signal::STOP);
        running.end(process).unwrap();
        // The pipe ends when nobody is left who could write to it.
        assert_eq!(output.read_line(&mut said).unwrap(), 0);
    }
}
