//! The command line of the bench: what `pinion bench` takes.
//!
//! Mount it as a subcommand named `bench`, which is how its roof servers find themselves again:
//!
//! ```
//! #[derive(clap::Parser)]
//! struct Cli {
//!     #[command(subcommand)]
//!     command: Command,
//! }
//!
//! #[derive(clap::Subcommand)]
//! enum Command {
//!     /// Measure this machine and this build.
//!     Bench(pinion_bench::command::Args),
//! }
//!
//! fn run(cli: Cli) -> pinion_bench::Result<std::process::ExitCode> {
//!     match cli.command {
//!         Command::Bench(args) => pinion_bench::command::run(args),
//!     }
//! }
//! # use clap::Parser;
//! # // Refused before anything is measured: this is an example, not a measurement.
//! # let cli = Cli::parse_from(["pinion", "bench", "run", "--seconds", "0"]);
//! # assert!(matches!(run(cli), Err(pinion_bench::Error::Usage(_))));
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::load::Work;
use crate::output::say;
use crate::ratio::{self, HotPlan};
use crate::report::compare::read_runs;
use crate::roof::limits;
use crate::{flame, report, roof, stall};

mod drive;
mod peers;

/// The name of the subcommand that [`Args`] belong to.
const NAME: &str = "bench";

/// Measure what a server can do.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Compare this build with bare servers on this machine: GET and synced PUT.
    ///
    /// Starts its own servers on one cpu, in directories of their own, and the load on another.
    Hot(HotArgs),
    /// Insert the records of a workload into a target: a running server, or an engine in this process.
    Load(drive::DriveArgs),
    /// Run a workload against a target that was loaded.
    Run(drive::RunArgs),
    /// Measure how long work holds a core, in processor time.
    ///
    /// Loads one shard in this process with more data than its memory holds.
    Stall(StallArgs),
    /// Tell which differences between two sets of runs are real.
    ///
    /// Fails when B is worse than A by more than the bound, and not by chance.
    Compare(CompareArgs),
    /// Measure what this machine can do: bare servers, disk and memory, without Pinion.
    ///
    /// Makes files of its own and removes them.
    Roofs(RoofsArgs),
    /// Compare this build with Redis, and its engine with RocksDB and fjall.
    ///
    /// Starts the servers that are installed; says what is missing. Takes about a quarter of an hour.
    Peers(peers::PeersArgs),
    /// Draw a flame graph of what `perf script` printed, or of folded stacks.
    Flame(FlameArgs),
    /// A bare server that answers bytes with bytes.
    #[command(hide = true)]
    RoofEcho(RoofArgs),
    /// A bare server that logs bytes durably before it answers.
    #[command(hide = true)]
    RoofLog(RoofLogArgs),
}

/// The records and the connections, for both kinds of measurement.
#[derive(Debug, clap::Args)]
struct ShapeArgs {
    /// Connections.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// How many records there are.
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Bytes of a key.
    #[arg(long, default_value_t = 32)]
    key_bytes: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 512)]
    value_bytes: usize,
    /// Of the order in which records are asked for.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds of load before it is measured.
    #[arg(long, default_value = "1", value_parser = seconds)]
    warmup: Duration,
    /// Seconds of load that are measured.
    #[arg(long, default_value = "5", value_parser = seconds)]
    seconds: Duration,
}

#[derive(Debug, clap::Args)]
struct HotArgs {
    /// Where the servers' directories are made (and removed).
    #[arg(long, default_value = "pinion-bench")]
    dir: PathBuf,
    /// Rounds of each server.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Kinds of work.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "get,put")]
    work: Vec<Work>,
    /// Requests in flight on each connection.
    #[arg(long, value_delimiter = ',', default_value = "1,16")]
    depths: Vec<usize>,
    #[command(flatten)]
    shape: ShapeArgs,
    /// The cpu of the servers.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// The cpu of the load.
    #[arg(long, default_value_t = 1)]
    generator_cpu: usize,
    /// The program to compare; this one if not given.
    #[arg(long)]
    pinion: Option<PathBuf>,
    /// A further argument of `serve`; may be repeated.
    #[arg(long = "serve-arg", allow_hyphen_values = true)]
    serve_args: Vec<String>,
    /// Write everything that was measured to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Fail when any ratio is below this.
    #[arg(long)]
    at_least: Option<f64>,
}

#[derive(Debug, clap::Args)]
struct StallArgs {
    /// Where the shard's directory is made (and removed).
    #[arg(long, default_value = "pinion-bench")]
    dir: PathBuf,
    /// Memory of the shard in MiB.
    #[arg(long, default_value_t = 64)]
    memory_mib: u64,
    /// How many times as large as the memory the data is.
    #[arg(long, default_value_t = 10)]
    times: u64,
    /// How many writes each key gets on average.
    #[arg(long, default_value_t = 2)]
    rounds: u64,
    /// Bytes of a key.
    #[arg(long, default_value_t = 32)]
    key_bytes: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 512)]
    value_bytes: usize,
    /// Of the order of writes and gets.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The cpu of the shard.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// Fail when the p99.9 of any kind of work is above this, in microseconds.
    #[arg(long)]
    at_most_us: Option<f64>,
    /// Write everything that was measured to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct CompareArgs {
    /// Reports of runs as JSON: one, or a list of rounds.
    a: PathBuf,
    /// The same of what is compared with them, each round with the round of A in its place.
    b: PathBuf,
    /// How much worse anything may be, in percent.
    #[arg(long, default_value = "5", value_parser = percent)]
    bound_percent: f64,
}

#[derive(Debug, clap::Args)]
struct RoofsArgs {
    /// Where files are made (and removed): on the disk that is meant.
    #[arg(long, default_value = "pinion-bench")]
    dir: PathBuf,
    /// Seconds of each measurement.
    #[arg(long, default_value = "3", value_parser = seconds)]
    seconds: Duration,
    /// The cpu of the bare servers, and of disk and memory.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// The cpu of the load.
    #[arg(long, default_value_t = 1)]
    generator_cpu: usize,
    /// Size of the file that is read at random, in MiB.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    file_mib: u64,
    /// Write everything that was measured to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct FlameArgs {
    /// Text of `perf script -F comm,tid,time,event,ip,sym,dso`, or folded stacks.
    input: PathBuf,
    /// The drawing: an SVG file.
    #[arg(long)]
    out: PathBuf,
    /// Colour by the difference from this profile: red is more, blue is less.
    #[arg(long)]
    diff: Option<PathBuf>,
    /// Write the folded stacks to this file, too.
    #[arg(long)]
    folded: Option<PathBuf>,
    /// Above the drawing; the name of the input if not given.
    #[arg(long)]
    title: Option<String>,
    /// What the profile counts.
    #[arg(long, default_value = "samples")]
    unit: String,
}

#[derive(Debug, clap::Args)]
struct RoofArgs {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Bytes of a request.
    #[arg(long)]
    request_bytes: usize,
    /// Bytes of its answer.
    #[arg(long)]
    response_bytes: usize,
}

#[derive(Debug, clap::Args)]
struct RoofLogArgs {
    #[command(flatten)]
    roof: RoofArgs,
    /// The log: a new file.
    #[arg(long)]
    log: PathBuf,
}

/// Runs a command. The code is a failure when what was measured is not good enough.
///
/// # Errors
/// See [`crate::Error`]: nothing could be measured.
pub fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::Hot(args) => hot(args),
        Command::Load(args) => drive::load(&args),
        Command::Run(args) => drive::run(&args),
        Command::Stall(args) => stall(args),
        Command::Compare(args) => compare(&args),
        Command::Roofs(args) => roofs(args),
        Command::Peers(args) => peers::peers(args),
        Command::Flame(args) => flame(args),
        Command::RoofEcho(args) => roof(args, None),
        Command::RoofLog(args) => roof(args.roof, Some(&args.log)),
    }
}

fn hot(args: HotArgs) -> Result<ExitCode> {
    let this = std::env::current_exe()?;
    let plan = HotPlan {
        pinion: args.pinion.unwrap_or_else(|| this.clone()),
        serve_args: args.serve_args,
        roof: (this, vec![NAME.to_owned()]),
        dir: args.dir,
        rounds: args.rounds,
        works: args.work,
        depths: args.depths,
        connections: args.shape.connections,
        keys: args.shape.keys,
        key_bytes: args.shape.key_bytes,
        value_bytes: args.shape.value_bytes,
        seed: args.shape.seed,
        warmup: args.shape.warmup,
        measure: args.shape.seconds,
        server_cpu: args.server_cpu,
        generator_cpu: args.generator_cpu,
    };
    let verdict = ratio::run(&plan, args.json.as_deref())?;
    let enough = args.at_least.is_none_or(|least| verdict.ratio_min >= least);
    Ok(if enough && verdict.flaws == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn stall(args: StallArgs) -> Result<ExitCode> {
    let report = stall::run(&stall::Plan {
        dir: args.dir,
        memory_bytes: args.memory_mib << 20,
        times: args.times,
        rounds: args.rounds,
        key_bytes: args.key_bytes,
        value_bytes: args.value_bytes,
        seed: args.seed,
        cpu: args.cpu,
    })?;
    say(format_args!("{report}\n"));
    if let Some(path) = args.json {
        let text = serde_json::to_string_pretty(&report).expect("numbers and text only");
        std::fs::write(&path, text + "\n").map_err(Error::file(path))?;
    }
    let enough = args.at_most_us.is_none_or(|most| report.p999_us_max() <= most);
    Ok(if enough { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn compare(args: &CompareArgs) -> Result<ExitCode> {
    let (a, b) = (read_runs(&args.a)?, read_runs(&args.b)?);
    let comparison = report::compare::compare(&a, &b, args.bound_percent)?;
    say(format_args!("{comparison}"));
    Ok(if comparison.regressed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A part of a whole, as an option has it.
fn percent(text: &str) -> Result<f64, String> {
    let percent = text.parse().ok().filter(|percent: &f64| percent.is_finite() && *percent >= 0.0);
    percent.ok_or_else(|| "not a percentage".to_owned())
}

fn roofs(args: RoofsArgs) -> Result<ExitCode> {
    let plan = limits::LimitsPlan {
        roof: (std::env::current_exe()?, vec![NAME.to_owned()]),
        dir: args.dir,
        measure: args.seconds,
        server_cpu: args.server_cpu,
        generator_cpu: args.generator_cpu,
        file_bytes: args.file_mib << 20,
    };
    let report = limits::run(&plan, args.json.as_deref())?;
    let flaws: u64 = report.servers.iter().map(|server| server.flaws.total()).sum();
    Ok(if flaws == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn flame(args: FlameArgs) -> Result<ExitCode> {
    let title = args.title.unwrap_or_else(|| args.input.display().to_string());
    let shares = flame::run(&flame::FlamePlan {
        input: args.input,
        other: args.diff,
        out: args.out,
        folded: args.folded,
        title,
        unit: args.unit,
    })?;
    say(format_args!("{shares}\n"));
    Ok(ExitCode::SUCCESS)
}

/// A time in seconds, as an option has it.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// Serves until it is killed; says on standard output where it listens.
fn roof(args: RoofArgs, log: Option<&Path>) -> Result<ExitCode> {
    let RoofArgs { listen, request_bytes, response_bytes } = args;
    // It stays on the cpu on which it was started.
    let options = roof::Options { listen, cpu: None, request_bytes, response_bytes };
    let bound = |address| say(format_args!("listening on {address}\n"));
    let stop = AtomicBool::new(false);
    match log {
        None => roof::echo::serve(&options, bound, &stop)?,
        Some(log) => roof::log::serve(&options, log, bound, &stop)?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn options_have_their_defaults_and_limits() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.args.command);
        let Ok(Command::Hot(hot)) = parse("bench hot --serve-arg --memory --serve-arg 1GiB") else {
            panic!("it should parse");
        };
        assert_eq!((hot.rounds, hot.depths, hot.work), (5, vec![1, 16], vec![Work::Get, Work::Put]));
        assert_eq!((hot.shape.connections, hot.shape.keys, hot.shape.value_bytes), (64, 100_000, 512));
        assert_eq!(hot.serve_args, ["--memory", "1GiB"]);
        assert!(matches!(
            parse("bench run -w b -p recordcount=5 --rate 10 --slo p99<1ms"),
            Ok(Command::Run(_))
        ));
        assert!(matches!(
            parse("bench load -P some.file --target redis://localhost:6379"),
            Ok(Command::Load(_))
        ));
        assert!(matches!(parse("bench run --target engine:dir --threads 2 --depth 16"), Ok(Command::Run(_))));
        let Ok(Command::Compare(compare)) = parse("bench compare A.json B.json") else {
            panic!("it should parse");
        };
        assert_eq!((compare.a, compare.bound_percent), (PathBuf::from("A.json"), 5.0));
        let Ok(Command::Roofs(roofs)) = parse("bench roofs --file-mib 64 --seconds 0.3") else {
            panic!("it should parse");
        };
        assert_eq!((roofs.file_mib, roofs.seconds), (64, Duration::from_millis(300)));
        for wrong in [
            "bench",
            "bench compare A.json",
            "bench compare A B --bound-percent NaN",
            "bench flame x",
            "bench hot --work scan",
            "bench load --target 127.0.0.1:7600",
            "bench load --target engine:",
            "bench roof-log",
            "bench roofs --file-mib 0",
            "bench run --find-max",
            "bench run --seconds -1",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
