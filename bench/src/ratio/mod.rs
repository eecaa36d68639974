//! `pinion bench hot`: Pinion beside the roof of the machine, in one run.
//!
//! For each kind of work and depth, rounds of two servers alternate on one cpu, with the generator on
//! another: a bare io_uring server that does the least that the work needs (for GET it answers with
//! as many bytes; for PUT it also writes what it got to a log, in groups, durably, before it
//! answers), and Pinion. Times of one machine vary by a fifth from minute to minute; the ratio of
//! neighbouring rounds does not, so that is what is reported, with its spread.
//!
//! Every round starts a server process in an empty directory. Pinion is given all records, and all
//! are read back and checked, before the load is measured; nothing is kept after.
//!
//! Failure: any server that does not start, or dies, ends the comparison; a measurement in which an
//! answer was not right is reported as such. A signal ends it, too, and nothing is left behind (see
//! `stop`).

pub(crate) mod server;
pub(crate) mod stop;
pub(crate) mod summary;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Serialize, Serializer};

use server::{Scratch, Server};
use stop::Running;
use summary::{Cell, Comparison, Machine};

use crate::error::{Error, Result};
use crate::load::{self, Dialect, FrameSizes, Plan, Report, Work};
use crate::output::{note, say};

/// What is compared, and where.
#[derive(Debug, Clone, Serialize)]
pub struct HotPlan {
    /// The program that serves: `PROGRAM serve ...`.
    pub pinion: PathBuf,
    /// Further arguments of `serve`.
    pub serve_args: Vec<String>,
    /// This program, and what comes before the names of the roof servers on its command line.
    pub roof: (PathBuf, Vec<String>),
    /// Where the servers' directories are made; itself made if it is missing.
    pub dir: PathBuf,
    /// Rounds of each server.
    pub rounds: usize,
    /// Kinds of work.
    pub works: Vec<Work>,
    /// Depths of each kind.
    pub depths: Vec<usize>,
    /// Connections of the generator.
    pub connections: usize,
    /// Records.
    pub keys: u64,
    /// Bytes of a key.
    pub key_bytes: usize,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Of the order of asking; each round adds its number.
    pub seed: u64,
    /// Warming up, per round.
    #[serde(serialize_with = "as_seconds")]
    pub warmup: Duration,
    /// Measured time, per round.
    #[serde(serialize_with = "as_seconds")]
    pub measure: Duration,
    /// The servers' cpu.
    pub server_cpu: usize,
    /// The generator's cpu.
    pub generator_cpu: usize,
}

/// What a comparison found, when it could be made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// The lowest ratio of all kinds of work.
    pub ratio_min: f64,
    /// Pinion's answers that were not right.
    pub flaws: u64,
}

/// Compares, prints the table, and saves the JSON if a path is given.
///
/// # Errors
/// See [`Error`].
pub fn run(plan: &HotPlan, json: Option<&Path>) -> Result<Verdict> {
    if plan.rounds == 0 || plan.works.is_empty() || plan.depths.is_empty() {
        return Err(Error::Usage("there must be at least one round, one work and one depth".to_owned()));
    }
    let running = Running::default();
    stop::watch(running.clone())?;
    fs::create_dir_all(&plan.dir).map_err(Error::file(&plan.dir))?;
    let scratch = Scratch::create(plan.dir.join(format!("bench-{}", std::process::id())))?;
    let mut cells = Vec::new();
    for work in &plan.works {
        for depth in &plan.depths {
            let cell = compare(plan, *work, *depth, scratch.path(), &running);
            // What fails after a signal fails because of it.
            cells.push(cell.map_err(|error| if running.is_stopped() { Error::Stopped } else { error })?);
        }
    }
    drop(scratch);
    let comparison = Comparison { version: env!("CARGO_PKG_VERSION"), machine: Machine::this(), plan, cells };
    say(format_args!("{comparison}"));
    if let Some(path) = json {
        comparison.save(path)?;
    }
    let ratios = comparison.cells.iter().map(|cell| cell.ratio);
    Ok(Verdict {
        ratio_min: ratios.fold(f64::INFINITY, f64::min),
        flaws: comparison.cells.iter().map(|cell| cell.flaws().0).sum(),
    })
}

fn compare(plan: &HotPlan, work: Work, depth: usize, scratch: &Path, running: &Running) -> Result<Cell> {
    let (mut roofs, mut pinions) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        // Each goes first in turn, so that neither has the better half of a drift.
        for pinion in [round % 2 == 1, round % 2 == 0] {
            let directory = Scratch::create(scratch.join("round"))?;
            let report = measure(plan, work, depth, round, pinion, directory.path(), running)?;
            note(format_args!(
                "{work:?} depth {depth}, round {} of {}, {:<9} {:>9.0} ops/s\n",
                round + 1,
                plan.rounds,
                if pinion { "pinion" } else { roof_name(work) },
                report.ops_per_second
            ));
            if pinion { pinions.push(report) } else { roofs.push(report) }
        }
    }
    if let Some(other) = pinions.iter().find(|report| report.frames != roofs[0].frames) {
        return Err(Error::Answer(format!(
            "frames of {:?} where the roof was measured with {:?}",
            other.frames, roofs[0].frames
        )));
    }
    Ok(Cell::new((roof_name(work), roofs), pinions))
}

fn measure(
    plan: &HotPlan,
    work: Work,
    depth: usize,
    round: usize,
    pinion: bool,
    directory: &Path,
    running: &Running,
) -> Result<Report> {
    let mut load = Plan {
        target: ([127, 0, 0, 1], 0).into(),
        dialect: if pinion { Dialect::Native } else { Dialect::Raw },
        work,
        connections: plan.connections,
        depth,
        keys: plan.keys,
        key_bytes: plan.key_bytes,
        value_bytes: plan.value_bytes,
        seed: plan.seed.wrapping_add(round as u64),
        prepare: pinion,
        warmup: plan.warmup,
        measure: plan.measure,
        cpu: Some(plan.generator_cpu),
        server_process: None,
    };
    let server = if pinion {
        let mut args = words(&["serve", "--listen", "127.0.0.1:0", "--cores", "1", "--data"]);
        args.push(directory.join("data").into());
        args.extend(plan.serve_args.iter().map(OsString::from));
        Server::start(&plan.pinion, &args, plan.server_cpu, &directory.join("stderr"), running)?
    } else {
        start_roof(&plan.roof, work, load.frames()?, directory, plan.server_cpu, running)?
    };
    load.target = server.address();
    load.server_process = Some(server.process());
    load::run(&load)
}

/// Starts the bare server for this work. `roof` is this program and what comes before the names of
/// the roof servers on its command line; the log and what the server complains of go to `directory`.
///
/// # Errors
/// As [`Server::start`].
pub(crate) fn start_roof(
    roof: &(PathBuf, Vec<String>),
    work: Work,
    frames: FrameSizes,
    directory: &Path,
    cpu: usize,
    running: &Running,
) -> Result<Server> {
    let mut args: Vec<OsString> = roof.1.iter().map(OsString::from).collect();
    args.extend(words(&[
        roof_command(work),
        "--request-bytes",
        &frames.request_bytes.to_string(),
        "--response-bytes",
        &frames.response_bytes.to_string(),
    ]));
    if work == Work::Put {
        args.push("--log".into());
        args.push(directory.join("log").into());
    }
    Server::start(&roof.0, &args, cpu, &directory.join("stderr"), running)
}

pub(crate) fn as_seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

pub(crate) const fn roof_name(work: Work) -> &'static str {
    match work {
        Work::Get => "bare echo",
        Work::Put => "bare log",
    }
}

/// The hidden subcommands of [`crate::command`].
const fn roof_command(work: Work) -> &'static str {
    match work {
        Work::Get => "roof-echo",
        Work::Put => "roof-log",
    }
}
