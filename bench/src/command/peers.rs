//! `pinion bench peers`: its options, and when it fails.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::{NAME, seconds};
use crate::error::Result;
use crate::peers::{self, PeersPlan};

/// Memory of engines whose records all fit into it, and of those with ten times as many.
const MEMORY_MIB_DEFAULT: u64 = 512;
const MEMORY_MIB_STEADY: u64 = 128;

#[derive(Debug, clap::Args)]
pub(super) struct PeersArgs {
    /// Compare engines that hold ten times as much data as memory, with compaction in its steady state:
    /// takes as long as it takes.
    #[arg(long)]
    steady: bool,
    /// Rows to compare, by name or by the first words of it, such as get or engine-put; a wrong one lists
    /// all.
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    only: Vec<String>,
    /// Rounds of each peer in each row.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of load that are measured, in each round.
    #[arg(long, default_value = "3", value_parser = seconds)]
    seconds: Duration,
    /// Seconds of load before they are measured.
    #[arg(long, default_value = "1", value_parser = seconds)]
    warmup: Duration,
    /// Seconds for which a server is overwritten before its first row that writes.
    #[arg(long, default_value = "10", value_parser = seconds)]
    settle: Duration,
    /// Connections to servers.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// How many records servers hold.
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// How many records engines hold.
    #[arg(long, default_value_t = 500_000)]
    engine_keys: u64,
    /// Memory of an engine in MiB [default: 512, which holds all records; with --steady 128].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    memory_mib: Option<u64>,
    /// Bytes of a key.
    #[arg(long, default_value_t = 32)]
    key_bytes: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 512)]
    value_bytes: usize,
    /// Of the order in which records are asked for.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the peers' directories are made (and removed).
    #[arg(long, default_value = "pinion-bench")]
    dir: PathBuf,
    /// Leave the directories where they are, with the full report of every round.
    #[arg(long)]
    keep: bool,
    /// The cpu of the servers.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// The cpu of the load, for servers.
    #[arg(long, default_value_t = 1)]
    generator_cpu: usize,
    /// The program that serves Pinion; this one if not given.
    #[arg(long)]
    pinion: Option<PathBuf>,
    /// A further argument of `serve`; may be repeated.
    #[arg(long = "serve-arg", allow_hyphen_values = true)]
    serve_args: Vec<String>,
    /// Redis' server.
    #[arg(long, default_value = "redis-server")]
    redis: PathBuf,
    /// Write everything that was measured to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the tables to this file, too.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// Compares. The code is a failure when a peer failed a row, or there was none to measure.
pub(super) fn peers(args: PeersArgs) -> Result<ExitCode> {
    let this = std::env::current_exe()?;
    let memory_mib =
        args.memory_mib.unwrap_or(if args.steady { MEMORY_MIB_STEADY } else { MEMORY_MIB_DEFAULT });
    let plan = PeersPlan {
        pinion: args.pinion.unwrap_or_else(|| this.clone()),
        tool: (this, vec![NAME.to_owned()]),
        serve_args: args.serve_args,
        redis: args.redis,
        dir: args.dir,
        keep: args.keep,
        only: args.only,
        steady: args.steady,
        rounds: args.rounds,
        connections: args.connections,
        keys: args.keys,
        engine_keys: args.engine_keys,
        memory_bytes: memory_mib << 20,
        key_bytes: args.key_bytes,
        value_bytes: args.value_bytes,
        seed: args.seed,
        warmup: args.warmup,
        measure: args.seconds,
        settle: args.settle,
        server_cpu: args.server_cpu,
        generator_cpu: args.generator_cpu,
    };
    let verdict = peers::run(&plan, args.json.as_deref(), args.markdown.as_deref())?;
    let sound = verdict.failures == 0 && verdict.measured > 0;
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: PeersArgs,
    }

    #[test]
    fn options_have_their_defaults_and_limits() {
        let parse = |line: &str| Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.args);
        let args = parse("peers").unwrap();
        assert_eq!((args.rounds, args.seconds, args.keys), (5, Duration::from_secs(3), 100_000));
        assert_eq!((args.engine_keys, args.memory_mib, args.steady), (500_000, None, false));
        assert_eq!((args.server_cpu, args.generator_cpu), (0, 1));
        let args =
            parse("peers --only get,put-16 --only engine --steady --keep --serve-arg --memory").unwrap();
        assert_eq!(args.only, ["get", "put-16", "engine"]);
        assert!(args.steady && args.keep && args.serve_args == ["--memory"]);
        for wrong in ["peers --rounds x", "peers --seconds -1", "peers --memory-mib 0", "peers get"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
