//! `pinion bench peers`: Pinion beside what else there is, in one run.
//!
//! Over the network Pinion and Redis, each a server process on one cpu, under the same generator on
//! another. Inside a process Pinion's engine and others, by the same generator. For every row, rounds of
//! its peers alternate, and each goes first in turn: times of one machine vary by a fifth from minute to
//! minute, the ratio of neighbouring rounds does not.
//!
//! | file | subject |
//! |---|---|
//! | `rows` | what is compared, by which command, for how long |
//! | `site` | servers and directories of the peers |
//! | `measure` | one measurement |
//! | `redis_benchmark` | rows under Redis' own generator |
//! | `outcome` | medians, spread, ratios; the JSON |
//! | `markdown` | the tables |
//!
//! Nothing is installed. What a machine or this build lacks is told in its place in the table.
//!
//! Failure: a peer that does not start, dies, or gives an answer that is not right has failed its row,
//! which says why; the others go on. A signal ends everything, and nothing is left behind (see
//! `ratio::stop`).

mod markdown;
mod measure;
mod outcome;
mod redis_benchmark;
mod rows;
mod site;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use measure::Tool;
use outcome::{Outcome, Rounds, RowOutcome, State};
use rows::{Peer, Row, Section};
use site::{Absence, Site};

use crate::error::{Error, Result};
use crate::output::{note, say};
use crate::ratio::as_seconds;
use crate::ratio::server::Scratch;
use crate::ratio::stop::{self, Running};
use crate::ratio::summary::Machine;
use crate::workload::record::STAMP_BYTES;

/// What is compared, and where.
#[derive(Debug, Clone, Serialize)]
pub struct PeersPlan {
    /// This program, and what comes before the commands of the load tool on its command line.
    #[serde(skip)]
    pub tool: (PathBuf, Vec<String>),
    /// The program that serves: `PROGRAM serve ...`.
    #[serde(skip)]
    pub pinion: PathBuf,
    /// Further arguments of `serve`.
    pub serve_args: Vec<String>,
    /// Redis' server.
    #[serde(skip)]
    pub redis: PathBuf,
    /// Where directories are made, those of all peers on one file system; itself made if it is missing.
    #[serde(skip)]
    pub dir: PathBuf,
    /// Whether directories, with the full report of every round, stay.
    pub keep: bool,
    /// Rows to compare; empty = all.
    pub only: Vec<String>,
    /// Whether the rows are the long ones, with more data than memory.
    pub steady: bool,
    /// Rounds of each peer in each row.
    pub rounds: usize,
    /// Connections to servers.
    pub connections: usize,
    /// Records on servers.
    pub keys: u64,
    /// Records in engines.
    pub engine_keys: u64,
    /// Memory of an engine, of which the long rows have ten times as much data; in bytes.
    pub memory_bytes: u64,
    /// Bytes of a key.
    pub key_bytes: usize,
    /// Bytes of a value, more than a stamp's 24.
    pub value_bytes: usize,
    /// Of the order of asking; each round adds its number.
    pub seed: u64,
    /// Warming up, per round.
    #[serde(serialize_with = "as_seconds")]
    pub warmup: Duration,
    /// Measured time, per round.
    #[serde(serialize_with = "as_seconds")]
    pub measure: Duration,
    /// How long a server is overwritten before the first row that writes: by then its log and its
    /// memtables have been filled once.
    #[serde(serialize_with = "as_seconds")]
    pub settle: Duration,
    /// The servers' cpu.
    pub server_cpu: usize,
    /// The generator's cpu.
    pub generator_cpu: usize,
}

/// Whether all that could be measured was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Peers that failed a row; those that are missing do not count.
    pub failures: usize,
    /// Peers that were measured in a row.
    pub measured: usize,
}

impl PeersPlan {
    /// Where engines run: on all cpus of the comparison.
    fn engine_cpus(&self) -> Vec<usize> {
        let mut cpus = vec![self.server_cpu, self.generator_cpu];
        cpus.dedup();
        cpus
    }

    fn check(&self) -> Result<()> {
        let usage = |text: String| Err(Error::Usage(text));
        if self.rounds == 0 || self.measure.is_zero() {
            return usage("there must be at least one round, and some time to measure".to_owned());
        }
        if self.value_bytes <= STAMP_BYTES {
            return usage(format!(
                "values have more than {STAMP_BYTES} bytes, those that show that they are right"
            ));
        }
        if self.steady && Section::Steady.records(self) == 0 {
            return usage("the memory is smaller than one record".to_owned());
        }
        Ok(())
    }
}

/// Compares, prints the tables, and saves them and the JSON if paths are given.
///
/// # Errors
/// See [`Error`]: nothing could be compared. What failed in a row is no error here.
pub fn run(plan: &PeersPlan, json: Option<&Path>, markdown: Option<&Path>) -> Result<Verdict> {
    plan.check()?;
    let rows = rows::chosen(plan)?;
    let peers: usize = rows.iter().map(|row| row.peers.len()).sum();
    note(format_args!(
        "{} rows, {} rounds of {peers} peers: about {:.0} minutes\n",
        rows.len(),
        plan.rounds,
        (rows::estimate(&rows, plan).as_secs_f64() / 60.0).max(1.0)
    ));
    let running = Running::default();
    stop::watch(running.clone())?;
    // The commands of measurements name files in it.
    fs::create_dir_all(&plan.dir).map_err(Error::file(&plan.dir))?;
    let dir = fs::canonicalize(&plan.dir).map_err(Error::file(&plan.dir))?;
    let scratch = Scratch::create(dir.join(format!("peers-{}", std::process::id())))?;
    let compared = compare(plan, rows, scratch.path(), &running);
    if plan.keep {
        note(format_args!("kept, and called DIR in commands: {}\n", scratch.keep().display()));
    } else {
        drop(scratch);
    }
    let outcome = compared?;
    let told = say(format_args!("{outcome}"));
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&outcome).expect("numbers and text only");
        fs::write(path, text + "\n").map_err(Error::file(path))?;
    }
    if let Some(path) = markdown {
        fs::write(path, outcome.to_string()).map_err(Error::file(path))?;
    }
    told?;
    let sides = || outcome.rows.iter().flat_map(|row| &row.sides);
    Ok(Verdict {
        failures: outcome.rows.iter().map(|row| row.failures().count()).sum(),
        measured: sides().filter(|side| matches!(side.state, State::Measured(_))).count(),
    })
}

fn compare<'p>(
    plan: &'p PeersPlan,
    rows: Vec<Row>,
    scratch: &Path,
    running: &Running,
) -> Result<Outcome<'p>> {
    let (started, begun) = (SystemTime::now(), Instant::now());
    let reports = scratch.join("reports");
    fs::create_dir(&reports).map_err(Error::file(&reports))?;
    let tool = Tool { program: &plan.tool, scratch: scratch.to_owned(), reports, running: running.clone() };
    let mut sites: BTreeMap<Peer, Result<Site, Absence>> = BTreeMap::new();
    for row in &rows {
        for peer in &row.peers {
            sites.entry(*peer).or_insert_with(|| {
                let site = Site::new(plan, row.section, *peer, scratch, running);
                if let Err(Absence::Missing(what) | Absence::Failed(what)) = &site {
                    note(format_args!("{}: {what}\n", peer.name()));
                }
                site
            });
        }
    }
    let mut outcomes: Vec<RowOutcome> = Vec::new();
    for row in rows {
        let sides = compare_row(plan, &row, &mut sites, &tool)?;
        outcomes.push(RowOutcome::new(row, plan, sides));
    }
    let servers = sites.iter().filter_map(|(peer, site)| {
        let site = site.as_ref().ok()?;
        peer.is_server().then(|| (*peer, tool.shown(&site.command)))
    });
    Ok(Outcome {
        version: env!("CARGO_PKG_VERSION"),
        started_unix_s: started.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
        seconds: begun.elapsed().as_secs_f64(),
        machine: Machine::this(),
        plan,
        versions: versions(plan, &outcomes),
        servers: servers.collect(),
        warnings: warnings(plan, &outcomes),
        rows: outcomes,
    })
}

/// All rounds of a row.
///
/// # Errors
/// [`Error::Stopped`] only.
fn compare_row(
    plan: &PeersPlan,
    row: &Row,
    sites: &mut BTreeMap<Peer, Result<Site, Absence>>,
    tool: &Tool<'_>,
) -> Result<Vec<(Peer, Rounds)>> {
    let mut sides: Vec<(Peer, Rounds)> = row.peers.iter().map(|peer| (*peer, Rounds::default())).collect();
    for round in 0..plan.rounds {
        for turn in 0..sides.len() {
            // Each goes first in turn, so that none has the better part of a drift.
            let index = (round + turn) % sides.len();
            let (peer, rounds) = &mut sides[index];
            if rounds.absence.is_some() {
                continue;
            }
            let site = sites.get_mut(peer).expect("all peers of all rows were looked for");
            let measured = match site {
                Ok(site) => site.measure(plan, row, round, tool).map_err(Absence::Failed),
                Err(absence) => Err(absence.clone()),
            };
            // What fails after a signal fails because of it.
            if tool.running.is_stopped() {
                return Err(Error::Stopped);
            }
            let name = format!("{}, round {} of {}", row.name, round + 1, plan.rounds);
            match measured {
                Ok(measured) => {
                    note(format_args!(
                        "{name:<32} {:<28} {:>10.0} ops/s\n",
                        peer.name(),
                        measured.ops_per_second
                    ));
                    rounds.rounds.push(measured);
                }
                Err(absence) => {
                    if let Absence::Failed(why) = &absence {
                        note(format_args!("{name:<32} {:<28} failed: {why}\n", peer.name()));
                    }
                    rounds.absence = Some(absence);
                }
            }
        }
    }
    Ok(sides)
}

/// What makes numbers doubtful.
fn warnings(plan: &PeersPlan, outcomes: &[RowOutcome]) -> Vec<String> {
    let shared = plan.server_cpu == plan.generator_cpu && outcomes.iter().any(|row| row.has_server());
    let shared = shared.then(|| format!("servers and load share cpu {}", plan.server_cpu));
    shared.into_iter().chain(outcomes.iter().flat_map(RowOutcome::warnings)).collect()
}

/// What each peer that is there says of its version: a server its program, an engine the load tool.
fn versions(plan: &PeersPlan, outcomes: &[RowOutcome]) -> Vec<(Peer, String)> {
    let mut versions = BTreeMap::new();
    for side in outcomes.iter().flat_map(|row| &row.sides) {
        let State::Measured(figures) = &side.state else { continue };
        let facts = || {
            let facts = figures.rounds.first().map(|round| round.target_facts.as_slice()).unwrap_or_default();
            // The name is told anyway, and how much was replayed differs from round to round.
            let facts =
                facts.iter().filter(|(name, _)| name != "product" && !name.starts_with("records replayed"));
            facts.map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
        };
        versions.entry(side.peer).or_insert_with(|| match side.peer {
            Peer::Pinion => site::version(side.peer, &plan.pinion).unwrap_or_else(|_| facts()),
            Peer::RedisAlways | Peer::RedisEverysec => {
                site::version(side.peer, &plan.redis).unwrap_or_else(|_| facts())
            }
            Peer::Engine | Peer::RocksDb | Peer::Fjall => facts(),
        });
    }
    versions.into_iter().collect()
}

#[cfg(test)]
mod tests;
