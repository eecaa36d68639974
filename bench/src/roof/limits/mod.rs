//! `pinion bench roofs`: what this machine can do, as numbers.
//!
//! Nothing of Pinion is measured here. Four kinds of work, each in the barest form there is, say how
//! far a server of Pinion's kind could go on this machine:
//!
//! | file | roof |
//! |---|---|
//! | `servers` | the bare io_uring servers under the load generator, over loopback |
//! | `disk` | synced writes into a log, alone and in groups; random reads at several depths |
//! | `memory` | copies of records out of a set that no cache holds, and of large blocks |
//! | `direct` | the ring over one file that `disk` needs: all that is unsafe |
//! | `report` | the numbers as JSON and as a table |
//!
//! The measurements run one after another, each for the same time after a fifth of it for warming up;
//! work without sockets runs on the servers' cpu. Files are made in a directory of their own, which is
//! removed at the end, after a failure and on a signal (see `ratio::stop`).
//!
//! Limits: one run of each. Numbers of a machine that others use vary by a fifth, so what is divided
//! by a roof should come from the same minutes.
#![deny(unsafe_code)]

mod direct;
mod disk;
mod memory;
mod report;
mod servers;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde::Serialize;

pub use direct::Direct;
pub use disk::Disk;
pub use memory::Copies;
pub use report::Report;

use crate::error::{Error, Result};
use crate::load::pin_to_cpu;
use crate::output::{note, say};
use crate::ratio::as_seconds;
use crate::ratio::server::Scratch;
use crate::ratio::stop::{self, Running};
use crate::ratio::summary::Machine;

/// Of the measured time, what each measurement runs before it: one part in so many.
const WARMUP_SHARE: u32 = 5;
/// The largest file that reads are spread over, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 40;

/// What is measured, and where.
#[derive(Debug, Clone, Serialize)]
pub struct LimitsPlan {
    /// This program, and what comes before the names of the roof servers on its command line.
    #[serde(skip)]
    pub roof: (PathBuf, Vec<String>),
    /// Where files are made; itself made if it is missing.
    #[serde(skip)]
    pub dir: PathBuf,
    /// Measured time of each measurement.
    #[serde(serialize_with = "as_seconds")]
    pub measure: Duration,
    /// The cpu of servers, and of work without sockets.
    pub server_cpu: usize,
    /// The cpu of the load.
    pub generator_cpu: usize,
    /// Size of the file that is read, in bytes.
    pub file_bytes: u64,
}

impl LimitsPlan {
    fn check(&self) -> Result<()> {
        if self.measure.is_zero() {
            return Err(Error::Usage("there must be some time to measure".to_owned()));
        }
        if self.file_bytes == 0 || self.file_bytes > FILE_BYTES_MAX {
            return Err(Error::Usage("the file that is read has 1 MiB to 1 TiB".to_owned()));
        }
        Ok(())
    }

    fn warmup(&self) -> Duration {
        self.measure / WARMUP_SHARE
    }
}

/// Measures everything, prints the table, and saves the JSON if a path is given.
///
/// # Errors
/// See [`Error`].
pub fn run(plan: &LimitsPlan, json: Option<&Path>) -> Result<Report> {
    plan.check()?;
    let running = Running::default();
    stop::watch(running.clone())?;
    fs::create_dir_all(&plan.dir).map_err(Error::file(&plan.dir))?;
    let scratch = Scratch::create(plan.dir.join(format!("roofs-{}", std::process::id())))?;
    // What fails after a signal fails because of it.
    let report = measure(plan, scratch.path(), &running)
        .map_err(|error| if running.is_stopped() { Error::Stopped } else { error })?;
    drop(scratch);
    say(format_args!("{report}"));
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report).expect("numbers and text only");
        fs::write(path, text + "\n").map_err(Error::file(path))?;
    }
    Ok(report)
}

fn measure(plan: &LimitsPlan, scratch: &Path, running: &Running) -> Result<Report> {
    let servers = servers::measure(plan, scratch, running)?;
    let (log, reads, copies) = on_cpu(plan.server_cpu, || {
        let log = disk::log(plan, scratch, running)?;
        let reads = disk::reads(plan, scratch, running)?;
        Ok((log, reads, memory::copies(plan, running)?))
    })?;
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        machine: Machine::this(),
        plan: plan.clone(),
        servers,
        log,
        reads,
        copies,
    })
}

/// On a thread of its own, so that the caller stays free to go where it likes.
fn on_cpu<T: Send>(cpu: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            pin_to_cpu(cpu).map_err(|error| Error::Cpu { cpu, error })?;
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Says on standard error what was measured: the whole takes a while.
fn tell(what: &str, rate: f64, unit: &str) {
    note(format_args!("{what:<28} {rate:>12.0} {unit}\n"));
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Short, with a small file.
    pub(crate) fn plan(dir: &Path) -> LimitsPlan {
        LimitsPlan {
            roof: (PathBuf::from("unused"), Vec::new()),
            dir: dir.to_owned(),
            measure: Duration::from_millis(20),
            server_cpu: 0,
            generator_cpu: 0,
            file_bytes: 1 << 20,
        }
    }

    #[test]
    fn plans_without_time_or_file_are_refused() {
        let usual = plan(Path::new("unused"));
        assert!(usual.check().is_ok());
        for wrong in [
            LimitsPlan { measure: Duration::ZERO, ..usual.clone() },
            LimitsPlan { file_bytes: 0, ..usual.clone() },
            LimitsPlan { file_bytes: FILE_BYTES_MAX + 1, ..usual },
        ] {
            assert!(matches!(wrong.check(), Err(Error::Usage(_))));
        }
    }

    #[test]
    fn what_is_stopped_ends_and_says_so() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let running = Running::default();
        running.stop();
        let plan = plan(dir.path());
        assert!(matches!(servers::measure(&plan, dir.path(), &running), Err(Error::Stopped)));
        assert!(matches!(disk::log(&plan, dir.path(), &running), Err(Error::Stopped)));
        assert!(matches!(memory::copies(&plan, &running), Err(Error::Stopped)));
    }
}
