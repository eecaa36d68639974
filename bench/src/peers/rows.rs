//! What is compared: rows, the peers in each, and how long all of it takes.
//!
//! A row is a workload of the load tool, its threads, connections and depth, and the peers that it is
//! for, Pinion first. That is all that the rest of the comparison knows of it, so a new row or a new
//! peer that the load tool can reach is a line here.
//!
//! Values are written with a stamp and every value that is read is checked ([`STAMP_BYTES`] of a value
//! are its own), so an answer that is missing, damaged or another record's fails the row.

use std::time::Duration;

use serde::Serialize;

use super::{PeersPlan, redis_benchmark};
use crate::error::{Error, Result};
use crate::workload::record::STAMP_BYTES;

/// Callers of the rows with many.
const CALLERS: usize = 64;
/// Readers of what is on the disk.
const READERS: usize = 32;
/// Writers of the rows that load and overwrite.
const LOADERS: usize = 8;
/// How fast records are loaded, and read to be checked, when time is estimated: per second.
const ESTIMATED_LOAD_RATE: f64 = 100_000.0;
const ESTIMATED_CHECK_RATE: f64 = 200_000.0;
const ESTIMATED_OVERWRITE_RATE: f64 = 30_000.0;
/// What a round takes beside its load: starting, connecting, syncing the file system.
const ROUND_OVERHEAD: Duration = Duration::from_millis(500);
/// How many times as large as the memory the data of the long rows is.
pub(super) const STEADY_TIMES: u64 = 10;

/// What can be compared with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Peer {
    Pinion,
    RedisAlways,
    RedisEverysec,
    Engine,
    RocksDb,
    Fjall,
}

impl Peer {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Pinion => "Pinion",
            Self::RedisAlways => "Redis, appendfsync always",
            Self::RedisEverysec => "Redis, appendfsync everysec",
            Self::Engine => "Pinion's engine",
            Self::RocksDb => "RocksDB",
            Self::Fjall => "fjall",
        }
    }

    /// For file names.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Pinion => "pinion",
            Self::RedisAlways => "redis-always",
            Self::RedisEverysec => "redis-everysec",
            Self::Engine => "engine",
            Self::RocksDb => "rocksdb",
            Self::Fjall => "fjall",
        }
    }

    /// Whether it is a process of its own, reached over the network.
    pub(super) const fn is_server(self) -> bool {
        matches!(self, Self::Pinion | Self::RedisAlways | Self::RedisEverysec)
    }
}

/// Where a row stands in the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Section {
    Network,
    Engines,
    Steady,
}

/// What a round of a row does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Work {
    /// Inserts all records into nothing.
    Load,
    /// Operations for some time.
    Timed,
    /// As many operations as there are records.
    Counted,
    /// Operations for some time, by another generator than ours.
    RedisBenchmark,
}

/// How many operations are in flight, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Shape {
    /// So many on each connection to a server.
    Depth(usize),
    /// One by each caller of an engine. Pinion's has one thread on each cpu, which hands operations over
    /// and takes their outcomes; others are called by threads that wait.
    Callers(usize),
}

/// One line of the comparison for each of its peers.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    /// What `--only` calls it.
    pub(super) name: String,
    pub(super) title: String,
    pub(super) section: Section,
    pub(super) peers: Vec<Peer>,
    pub(super) work: Work,
    /// Properties of the workload beside those of all rows of the section.
    pub(super) properties: Vec<&'static str>,
    pub(super) shape: Shape,
    /// Whether it writes.
    pub(super) writes: bool,
    /// Whether every value that is read is checked, and after a round every record.
    pub(super) verified: bool,
}

const READ: [&str; 2] = ["readproportion=1", "updateproportion=0"];
const UPDATE: [&str; 2] = ["readproportion=0", "updateproportion=1"];
const SCAN: [&str; 5] =
    ["readproportion=0", "updateproportion=0", "scanproportion=1", "minscanlength=1", "maxscanlength=100"];
const BUFFERED: &str = "durability=buffered";

/// The rows of a plan, all or those that are chosen.
///
/// # Errors
/// [`Error::Usage`] when a choice is no row.
pub(super) fn chosen(plan: &PeersPlan) -> Result<Vec<Row>> {
    let all = if plan.steady { steady() } else { [network(), redis_benchmark::rows(), engines()].concat() };
    for choice in &plan.only {
        if !all.iter().any(|row| row.is(choice)) {
            let names: Vec<&str> = all.iter().map(|row| row.name.as_str()).collect();
            let names = names.join(", ");
            return Err(Error::Usage(format!(
                "there is no row {choice}: choose from {names}, or the first words of some"
            )));
        }
    }
    let is_chosen = |row: &Row| plan.only.is_empty() || plan.only.iter().any(|choice| row.is(choice));
    Ok(all.into_iter().filter(is_chosen).collect())
}

fn network() -> Vec<Row> {
    let all = [Peer::Pinion, Peer::RedisAlways, Peer::RedisEverysec];
    let row = |name: &str, title: &str, depth, peers: &[Peer], properties: &[&'static str]| Row {
        name: format!("{name}-{depth}"),
        title: format!("{title}, depth {depth}"),
        section: Section::Network,
        peers: peers.to_vec(),
        work: Work::Timed,
        properties: properties.to_vec(),
        shape: Shape::Depth(depth),
        writes: properties.starts_with(&UPDATE),
        verified: true,
    };
    let buffered = [&UPDATE[..], &[BUFFERED]].concat();
    // Reads first: then all servers hold what was loaded, in memory.
    let rows = [1, 16].map(|depth| {
        [
            row("get", "GET", depth, &all, &READ),
            row("put", "synced PUT", depth, &[Peer::Pinion, Peer::RedisAlways], &UPDATE),
            row("put-buffered", "buffered PUT", depth, &[Peer::Pinion, Peer::RedisEverysec], &buffered),
        ]
    });
    let [[get_1, put_1, buffered_1], [get_16, put_16, buffered_16]] = rows;
    vec![get_1, get_16, put_1, put_16, buffered_1, buffered_16]
}

const ENGINES: [Peer; 3] = [Peer::Engine, Peer::RocksDb, Peer::Fjall];

fn engines() -> Vec<Row> {
    let row = |name: &str, title: &str, properties: &[&'static str], callers| Row {
        name: format!("engine-{name}"),
        title: title.to_owned(),
        section: Section::Engines,
        peers: ENGINES.to_vec(),
        work: Work::Timed,
        properties: properties.to_vec(),
        shape: Shape::Callers(callers),
        writes: properties.starts_with(&UPDATE),
        verified: true,
    };
    vec![
        Row { work: Work::Load, ..row("load", "load, buffered, 8 writers", &[BUFFERED], LOADERS) },
        row("get-one", "random get, 1 reader", &READ, 1),
        row("get-many", "random get, 64 readers", &READ, CALLERS),
        Row { verified: false, ..row("scan", "scan of 1 to 100 records, 1 reader", &SCAN, 1) },
        row("put-one", "synced put, 1 writer", &UPDATE, 1),
        row("put-many", "synced put, 64 writers", &UPDATE, CALLERS),
    ]
}

fn steady() -> Vec<Row> {
    let row = |name: &str, title: &str, work, properties: &[&'static str], callers| Row {
        name: format!("steady-{name}"),
        title: title.to_owned(),
        section: Section::Steady,
        peers: ENGINES.to_vec(),
        work,
        properties: properties.to_vec(),
        shape: Shape::Callers(callers),
        writes: work == Work::Counted,
        // Reading back ten times the memory after each round would take longer than the round.
        verified: false,
    };
    let overwrite = [&UPDATE[..], &[BUFFERED]].concat();
    vec![
        row("load", "load, buffered, 8 writers", Work::Load, &[BUFFERED], LOADERS),
        row("overwrite", "uniform overwrites, buffered, 8 writers", Work::Counted, &overwrite, LOADERS),
        row("get", "random get, 32 readers", Work::Timed, &READ, READERS),
    ]
}

impl Row {
    /// Whether a choice means it: its name, or the first words of its name.
    fn is(&self, choice: &str) -> bool {
        let rest = self.name.strip_prefix(choice);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }

    pub(super) fn records(&self, plan: &PeersPlan) -> u64 {
        self.section.records(plan)
    }

    /// The command line of one round of a peer, behind the name of this tool.
    pub(super) fn arguments(&self, plan: &PeersPlan, peer: Peer, target: &str, round: usize) -> Vec<String> {
        let phase = if self.work == Work::Load { "load" } else { "run" };
        let mut words = self.section.arguments(plan, phase, target, self.verified);
        words.extend(self.properties.iter().flat_map(|property| ["-p".to_owned(), (*property).to_owned()]));
        words.extend(self.shape.arguments(plan, peer));
        let mut add = |name: &str, value: String| words.extend([name.to_owned(), value]);
        add("--seed", plan.seed.wrapping_add(round as u64).to_string());
        match self.work {
            Work::Load | Work::RedisBenchmark => {}
            Work::Timed => {
                add("--warmup", plan.warmup.as_secs_f64().to_string());
                add("--seconds", plan.measure.as_secs_f64().to_string());
            }
            Work::Counted => add("-p", operations(self.records(plan))),
        }
        words
    }

    /// How long one round of one peer takes, as far as that can be known.
    fn round(&self, plan: &PeersPlan) -> Duration {
        let records = self.records(plan) as f64;
        let work = match self.work {
            Work::Load => Duration::from_secs_f64(records / ESTIMATED_LOAD_RATE),
            Work::Timed | Work::RedisBenchmark => plan.warmup + plan.measure,
            Work::Counted => Duration::from_secs_f64(records / ESTIMATED_OVERWRITE_RATE),
        };
        let check =
            if self.verified && self.work != Work::Load { records / ESTIMATED_CHECK_RATE } else { 0.0 };
        work + ROUND_OVERHEAD + Duration::from_secs_f64(check)
    }
}

impl Section {
    pub(super) const fn records(self, plan: &PeersPlan) -> u64 {
        match self {
            Self::Network => plan.keys,
            Self::Engines => plan.engine_keys,
            Self::Steady => STEADY_TIMES * plan.memory_bytes / (plan.key_bytes + plan.value_bytes) as u64,
        }
    }

    /// The beginning of a command line of the load tool.
    fn arguments(self, plan: &PeersPlan, phase: &str, target: &str, verified: bool) -> Vec<String> {
        let mut words: Vec<String> = [phase, "-w", "small", "--target", target].map(str::to_owned).into();
        let value_bytes = plan.value_bytes - if verified { STAMP_BYTES } else { 0 };
        let mut put = |name: &str, value: u64| words.extend(["-p".to_owned(), format!("{name}={value}")]);
        put("recordcount", self.records(plan));
        put("keybytes", plan.key_bytes as u64);
        put("valuebytes", value_bytes as u64);
        if self != Self::Network {
            put("memorymib", plan.memory_bytes >> 20);
        }
        if verified {
            words.push("--verify".to_owned());
        }
        let cpus = match self {
            Self::Network => vec![plan.generator_cpu],
            Self::Engines | Self::Steady => plan.engine_cpus(),
        };
        let cpus: Vec<String> = cpus.iter().map(usize::to_string).collect();
        words.extend(["--cpus".to_owned(), cpus.join(",")]);
        words
    }

    /// The command line that gives a target its records when no row has.
    pub(super) fn fill(self, plan: &PeersPlan, peer: Peer, target: &str) -> Vec<String> {
        let mut words = self.arguments(plan, "load", target, self != Self::Steady);
        let shape = match self {
            Self::Network => Shape::Depth(16),
            Self::Engines | Self::Steady => {
                words.extend(["-p".to_owned(), BUFFERED.to_owned()]);
                Shape::Callers(LOADERS)
            }
        };
        words.extend(shape.arguments(plan, peer));
        words
    }

    /// The command line that brings a target into the state in which it stays under writes; none if that
    /// takes no time.
    pub(super) fn settle(self, plan: &PeersPlan, peer: Peer, target: &str) -> Option<Vec<String>> {
        let mut words = self.arguments(plan, "run", target, self != Self::Steady);
        words.extend(UPDATE.iter().flat_map(|property| ["-p".to_owned(), (*property).to_owned()]));
        match self {
            Self::Network if !plan.settle.is_zero() => {
                let seconds = plan.settle.as_secs_f64().to_string();
                words.extend(["--warmup", "0", "--seconds", &seconds].map(str::to_owned));
                words.extend(Shape::Depth(16).arguments(plan, peer));
            }
            Self::Steady => {
                let operations = operations(self.records(plan));
                words.extend(["-p", BUFFERED, "-p", &operations].map(str::to_owned));
                words.extend(Shape::Callers(LOADERS).arguments(plan, peer));
            }
            Self::Network | Self::Engines => return None,
        }
        Some(words)
    }
}

impl Shape {
    fn arguments(self, plan: &PeersPlan, peer: Peer) -> Vec<String> {
        let words = match self {
            Self::Depth(depth) => {
                ["--connections", &plan.connections.to_string(), "--depth", &depth.to_string()]
                    .map(str::to_owned)
            }
            Self::Callers(callers) => {
                let threads =
                    if peer == Peer::Engine { callers.min(plan.engine_cpus().len()) } else { callers };
                let depth = callers.div_ceil(threads);
                ["--threads", &threads.to_string(), "--depth", &depth.to_string()].map(str::to_owned)
            }
        };
        words.into()
    }
}

fn operations(count: u64) -> String {
    format!("operationcount={count}")
}

/// How long rows take, as far as that can be known before.
pub(super) fn estimate(rows: &[Row], plan: &PeersPlan) -> Duration {
    let mut whole = Duration::ZERO;
    let mut peers: Vec<(Section, Peer)> = Vec::new();
    for row in rows {
        whole += row.round(plan) * (row.peers.len() * plan.rounds) as u32;
        peers.extend(row.peers.iter().map(|peer| (row.section, *peer)));
    }
    peers.sort_by_key(|(_, peer)| *peer);
    peers.dedup();
    for (section, peer) in peers {
        let records = section.records(plan) as f64;
        let own = rows.iter().filter(|row| row.peers.contains(&peer));
        if own.clone().next().is_some_and(|row| row.work != Work::Load) {
            whole += Duration::from_secs_f64(records / ESTIMATED_LOAD_RATE);
        }
        let overwrite = Duration::from_secs_f64(records / ESTIMATED_OVERWRITE_RATE);
        whole += match section {
            Section::Network if own.clone().any(|row| row.writes) => plan.settle,
            Section::Steady if own.clone().any(|row| row.work != Work::Load) => overwrite,
            Section::Network | Section::Engines | Section::Steady => Duration::ZERO,
        };
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::super::tests::plan;
    use super::*;

    #[test]
    fn rows_are_chosen_by_name_or_by_its_first_words() {
        let mut plan = plan();
        let names = |plan: &PeersPlan| -> Vec<String> {
            chosen(plan).unwrap().into_iter().map(|row| row.name).collect()
        };
        assert_eq!(names(&plan).len(), 16);
        plan.only = vec!["put-16".to_owned(), "get".to_owned()];
        assert_eq!(names(&plan), ["get-1", "get-16", "put-16"]);
        plan.only = vec!["put".to_owned()];
        assert_eq!(names(&plan), ["put-1", "put-16", "put-buffered-1", "put-buffered-16"]);
        plan.only = vec!["engine-put-one".to_owned()];
        assert_eq!(names(&plan), ["engine-put-one"]);
        for wrong in ["ge", "steady", "get-2", ""] {
            plan.only = vec![wrong.to_owned()];
            let error = chosen(&plan).unwrap_err().to_string();
            assert!(error.contains("choose from get-1, get-16"), "{wrong}: {error}");
        }
        plan.steady = true;
        plan.only = vec!["steady".to_owned()];
        assert_eq!(names(&plan), ["steady-load", "steady-overwrite", "steady-get"]);
    }

    #[test]
    fn a_round_is_a_command_of_the_load_tool() {
        let plan = plan();
        let rows = chosen(&plan).unwrap();
        let put = rows.iter().find(|row| row.name == "put-buffered-16").unwrap();
        assert_eq!(
            put.arguments(&plan, Peer::RedisEverysec, "redis://127.0.0.1:1", 2).join(" "),
            "run -w small --target redis://127.0.0.1:1 -p recordcount=100000 -p keybytes=32 -p valuebytes=488 \
             --verify --cpus 1 -p readproportion=0 -p updateproportion=1 -p durability=buffered \
             --connections 64 --depth 16 --seed 3 --warmup 1 --seconds 3"
        );
        assert_eq!(put.peers, [Peer::Pinion, Peer::RedisEverysec]);
        let put = rows.iter().find(|row| row.name == "engine-put-many").unwrap();
        let words = |peer| put.arguments(&plan, peer, "T", 0).join(" ");
        let common = "run -w small --target T -p recordcount=500000 -p keybytes=32 -p valuebytes=488 \
                      -p memorymib=512 --verify --cpus 0,1 -p readproportion=0 -p updateproportion=1";
        assert_eq!(
            words(Peer::Engine),
            format!("{common} --threads 2 --depth 32 --seed 1 --warmup 1 --seconds 3")
        );
        assert!(words(Peer::Fjall).contains("--threads 64 --depth 1 "));
    }

    #[test]
    fn the_default_rows_fit_into_twenty_minutes() {
        let plan = plan();
        let rows = chosen(&plan).unwrap();
        let whole = estimate(&rows, &plan);
        assert!(whole > Duration::from_secs(600) && whole < Duration::from_secs(1200), "{whole:?}");
        // Two peers, five rounds of four and a half seconds and a check of a half; filled and settled.
        let put: Vec<Row> = rows.into_iter().filter(|row| row.name == "put-1").collect();
        assert_eq!(estimate(&put, &plan), Duration::from_secs(2 * (5 * 5 + 1 + 10)));
    }
}
