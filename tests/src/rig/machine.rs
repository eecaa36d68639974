//! Programs of the machine: mounts, loop devices and what else takes root.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long something that is busy is tried again: an io_uring process that has just ended may
/// still hold its files for a moment.
const BUSY: Duration = Duration::from_secs(1);
const BUSY_DELAY: Duration = Duration::from_millis(5);

/// Runs a program and gives what it printed.
///
/// # Errors
/// Its name and what it said, when it does not succeed.
pub(super) fn run(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name}: {}: {}", output.status, said.trim().replace('\n', "; ")))
}

/// Tries again for a second what may be busy.
pub(super) fn while_busy<T>(mut attempt: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let start = Instant::now();
    loop {
        match attempt() {
            Err(_) if start.elapsed() < BUSY => thread::sleep(BUSY_DELAY),
            result => return result,
        }
    }
}

/// Tells a person what could not be cleaned up; the next run tries again.
pub(super) fn complain(result: Result<impl Sized, String>) {
    if let Err(error) = result {
        eprintln!("left behind: {error}");
    }
}
