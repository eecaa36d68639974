//! `pinion bench load` and `pinion bench run`: the options of the load tool, and where its report goes.

use std::io::{IsTerminal as _, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use std::{fmt, fs};

use super::seconds;
use crate::drive::{self, Engine, Phase, Plan, Slo, Target};
use crate::error::{Error, Result};
use crate::output::{note, say};
use crate::report::{RunReport, csv, hdr, html, text};
use crate::workload::Workload;

/// Connections, unless something is said.
const CONNECTIONS_DEFAULT: usize = 64;
/// Of a run that is measured for some time.
const WARMUP_DEFAULT: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(super) struct DriveArgs {
    /// The workload: a to f are YCSB's core workloads, core has its defaults; small (32 B + 512 B) and
    /// large (256 B + 10 KB) are plain keys and values [default: a, or core with -P].
    #[arg(short, long)]
    workload: Option<String>,
    /// A file of properties, as YCSB has them; may be repeated.
    #[arg(short = 'P', long = "properties", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// One property, after those of files; may be repeated.
    #[arg(short, long = "property", value_name = "NAME=VALUE")]
    property: Vec<String>,
    /// When a write counts as done: sync or buffered [or the property durability].
    #[arg(long)]
    durability: Option<String>,
    /// The target: a server (pinion://HOST:PORT, redis://HOST:PORT), or an engine in this process
    /// (engine:DIR is Pinion's; rocksdb:DIR and fjall:DIR, if they were compiled in).
    #[arg(long, default_value = "pinion://127.0.0.1:7600")]
    target: Target,
    /// Threads of the generator [default: 1]. Of engine:DIR each is a core with shards of its own, of
    /// rocksdb:DIR and fjall:DIR each has one operation in flight [default there: the property
    /// threadcount].
    #[arg(long)]
    threads: Option<usize>,
    /// Connections of all threads to a server, a multiple of them [default: 64 or a little more, or the
    /// property threadcount].
    #[arg(long)]
    connections: Option<usize>,
    /// Operations in flight on each connection, or of each thread of engine:DIR [default: 1; there: the
    /// property threadcount, shared by the threads].
    #[arg(long)]
    depth: Option<usize>,
    /// Check every value that is read; a run is followed by reading every record. The records must have
    /// been loaded with --verify.
    #[arg(long)]
    verify: bool,
    /// Of everything that is drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Cpus of the threads, in turn; an engine in this process stays on them.
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,
    /// The target's process, to tell how busy it was.
    #[arg(long)]
    target_process: Option<u32>,
    #[command(flatten)]
    forms: Forms,
}

#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    drive: DriveArgs,
    /// Operations per second, timed from when they were due (open loop); without it as many as possible
    /// (closed loop) [or the property target].
    #[arg(long)]
    rate: Option<f64>,
    /// Seconds that are measured [default: 10, unless operationcount or maxexecutiontime says otherwise].
    #[arg(long, value_parser = seconds)]
    seconds: Option<Duration>,
    /// Seconds before them [default: 2, or none when it is operations that end the run].
    #[arg(long, value_parser = seconds)]
    warmup: Option<Duration>,
    /// Search the highest rate that keeps every --slo.
    #[arg(long, requires = "slo")]
    find_max: bool,
    /// A promise, such as p99<1ms; may be repeated. A run that does not keep it fails.
    #[arg(long, value_name = "PROMISE")]
    slo: Vec<Slo>,
}

/// Where a report goes beside standard output.
#[derive(Debug, clap::Args)]
struct Forms {
    /// Print the lines of YCSB instead of a table.
    #[arg(long)]
    ycsb: bool,
    /// Write everything to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write one row for each second.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write an HdrHistogram log.
    #[arg(long, value_name = "FILE")]
    hdr: Option<PathBuf>,
    /// Write a page to look at.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl DriveArgs {
    /// What a file says alone is what YCSB would make of it, and is called as the file.
    fn workload(&self, properties: &[String]) -> Result<Workload> {
        let file = self.files.last().and_then(|path| path.file_stem());
        let (name, called) = match (&self.workload, file) {
            (Some(name), _) => (name.as_str(), name.clone()),
            (None, None) => ("a", "a".to_owned()),
            (None, Some(file)) => ("core", file.to_string_lossy().into_owned()),
        };
        let workload = Workload::new(name, &self.files, properties)?;
        Ok(Workload { name: called, ..workload })
    }

    fn plan(&self) -> Result<Plan> {
        let durability = self.durability.iter().map(|durability| format!("durability={durability}"));
        let properties: Vec<String> = self.property.iter().cloned().chain(durability).collect();
        let workload = self.workload(&properties)?;
        let said = (workload.thread_count > 0).then_some(workload.thread_count);
        let engine = self.target.engine();
        let is_peer = engine.is_some_and(|engine| engine != Engine::Pinion);
        let threads = self.threads.or(said.filter(|_| is_peer)).unwrap_or(1);
        let connections = match engine {
            None => {
                let even = CONNECTIONS_DEFAULT.next_multiple_of(threads.max(1));
                self.connections.or(said).unwrap_or(even)
            }
            Some(_) => self.connections.unwrap_or(threads),
        };
        let shared_out = said.filter(|_| engine == Some(Engine::Pinion));
        let depth = self.depth.or(shared_out.map(|all| all.div_ceil(threads.max(1)))).unwrap_or(1);
        Ok(Plan {
            rate: (workload.rate > 0.0).then_some(workload.rate),
            seconds: (workload.seconds_max > 0).then(|| Duration::from_secs(workload.seconds_max)),
            workload,
            target: self.target.clone(),
            threads,
            connections,
            depth,
            warmup: Duration::ZERO,
            verify: self.verify,
            seed: self.seed,
            cpus: self.cpus.clone(),
            target_process: self.target_process,
            progress: true,
        })
    }
}

/// Inserts the records.
pub(super) fn load(args: &DriveArgs) -> Result<ExitCode> {
    let plan = args.plan()?;
    drive::stop_on_signals()?;
    args.forms.write(&args.forms.begun(&plan, Phase::Load, drive::run(&plan, Phase::Load))?)
}

/// Does the workload's operations.
pub(super) fn run(args: &RunArgs) -> Result<ExitCode> {
    let mut plan = args.drive.plan()?;
    plan.rate = args.rate.or(plan.rate);
    let has_end = plan.seconds.is_some() || plan.workload.operation_count > 0;
    plan.seconds = args.seconds.or(plan.seconds).or((!has_end).then_some(Duration::from_secs(10)));
    if plan.seconds.is_some_and(|seconds| seconds.is_zero()) {
        return Err(Error::Usage("there must be some time to measure".to_owned()));
    }
    let default = if plan.seconds.is_some() { WARMUP_DEFAULT } else { Duration::ZERO };
    plan.warmup = args.warmup.unwrap_or(default);
    drive::stop_on_signals()?;
    if args.find_max { find_max(args, &plan) } else { run_once(args, &plan) }
}

fn run_once(args: &RunArgs, plan: &Plan) -> Result<ExitCode> {
    let forms = &args.drive.forms;
    let report = forms.begun(plan, Phase::Run, drive::run(plan, Phase::Run))?;
    let written = forms.write(&report)?;
    match drive::breach(&report, &args.slo).filter(|_| !args.slo.is_empty()) {
        Some(breach) => {
            forms.remark(format_args!("the promise was not kept: {breach}"));
            Ok(ExitCode::FAILURE)
        }
        None => Ok(written),
    }
}

fn find_max(args: &RunArgs, plan: &Plan) -> Result<ExitCode> {
    let forms = &args.drive.forms;
    let found = drive::find_max(plan, &args.slo, |rate, _, breach| {
        forms.remark(format_args!("{rate:>10.0} ops/s: {}", breach.unwrap_or("kept")));
    });
    let found = forms.begun(plan, Phase::Run, found)?;
    if let Some(best) = &found.best {
        let so_far = if found.ended.is_some() { " until the search ended early" } else { "" };
        let rate = best.rate_per_second.unwrap_or(0.0);
        forms.remark(format_args!("highest rate that kept its promise{so_far}: {rate:.0} ops/s"));
    } else if found.ended.is_none() {
        let least = drive::rate_least(plan, &args.slo);
        forms.remark(format_args!(
            "no rate kept the promise; below {least:.0} ops/s a run is too short to tell: --seconds"
        ));
    }
    // What ended early is told when there is nothing better to tell.
    let written = match found.best.as_ref().or(found.ended.as_ref()) {
        Some(report) => forms.write(report)?,
        None => ExitCode::FAILURE,
    };
    match found.ended.filter(|_| found.best.is_some()) {
        Some(RunReport { rate_per_second, ended, .. }) => {
            let (rate, why) = (rate_per_second.unwrap_or(0.0), ended.unwrap_or_default());
            forms.remark(format_args!("the search ended early, at {rate:.0} ops/s: {why}"));
            Ok(ExitCode::FAILURE)
        }
        None => Ok(written),
    }
}

impl Forms {
    /// A line beside a report on standard output; among the lines of YCSB it is a comment.
    fn remark(&self, text: fmt::Arguments<'_>) {
        // What cannot be told here cannot be told at the end, which is an error.
        drop(say(format_args!("{}{text}\n", if self.ycsb { "# " } else { "" })));
    }

    /// What a load came to. If it did not begin, for its target could not be reached, the files say so, lest
    /// those of an earlier run stand for this one.
    fn begun<T>(&self, plan: &Plan, phase: Phase, came_to: Result<T>) -> Result<T> {
        came_to.inspect_err(|error| {
            if !matches!(error, Error::Usage(_)) {
                // That nothing began is the worse news.
                drop(self.write_files(&drive::not_begun(plan, phase, error)));
            }
        })
    }

    /// Writes a report in every form that is wanted. The code is a failure when the run ended early or an
    /// operation failed.
    ///
    /// # Errors
    /// Standard output or a file could not be written; the others were.
    fn write(&self, report: &RunReport) -> Result<ExitCode> {
        let text = if self.ycsb { text::ycsb(report) } else { text::summary(report) };
        let told = say(format_args!("{text}"));
        let written = told.and(self.write_files(report));
        if let Some(ended) = &report.ended
            && !stdout().is_terminal()
        {
            note(format_args!("ended early: {ended}\n"));
        }
        written?;
        let failed: u64 = report.kinds.iter().map(|kind| kind.failed).sum();
        Ok(if report.ended.is_none() && failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
    fn write_files(&self, report: &RunReport) -> Result<()> {
        let json = || {
            let text = serde_json::to_string_pretty(report).expect("numbers and text only");
            Ok(text + "\n")
        };
        let written = [
            write(self.json.as_deref(), json),
            write(self.csv.as_deref(), || Ok(csv::intervals(report))),
            write(self.hdr.as_deref(), || hdr::log(report)),
            write(self.html.as_deref(), || Ok(html::page(report))),
        ];
        written.into_iter().collect()
    }
}

fn write(path: Option<&Path>, text: impl FnOnce() -> Result<String>) -> Result<()> {
    match path {
        Some(path) => fs::write(path, text()?).map_err(Error::file(path)),
        None => Ok(()),
    }
}
