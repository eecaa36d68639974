//! Where a peer is: a server that was started for it, or the directory of an engine.
//!
//! A server is started once, filled, and then stopped by a signal whenever another is measured: what it
//! has left to do (flushing, compaction, rewriting its log) it does in its own rounds and not in those
//! of others. What the kernel still has to write is written before every round.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::PeersPlan;
use super::measure::{Tool, directory_bytes, sync_files};
use super::outcome::Round;
use super::redis_benchmark;
use super::rows::{Peer, Row, Section, Work};
use crate::drive::Target;
use crate::error::{Error, Result};
use crate::output::note;
use crate::ratio::server::Server;
use crate::ratio::stop::Running;
use crate::report::RunReport;

/// Ports that are tried for a server that cannot choose one itself: another process may take it first.
const PORT_TRIES: usize = 5;
/// What Redis says when its port is taken.
const PORT_TAKEN: &str = "already in use";
/// What Redis says when it answers.
const REDIS_READY: &str = "Ready to accept connections";

/// Why a peer cannot be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Absence {
    /// It is not here; what to do about it.
    Missing(String),
    /// It is here and did not work.
    Failed(String),
}

/// One peer, for all rows of a section.
#[derive(Debug)]
pub(super) struct Site {
    peer: Peer,
    section: Section,
    place: Place,
    target: String,
    /// The directory of all sites.
    scratch: PathBuf,
    /// How the server was started; empty for an engine.
    pub(super) command: Vec<String>,
    filled: bool,
    settled: bool,
    /// Whether the keys of `redis-benchmark` are there.
    has_benchmark_keys: bool,
}

#[derive(Debug)]
enum Place {
    Server(Server),
    Directory(PathBuf),
}

impl Site {
    /// Starts the peer's server, or finds out whether the load tool has its engine.
    pub(super) fn new(
        plan: &PeersPlan,
        section: Section,
        peer: Peer,
        scratch: &Path,
        running: &Running,
    ) -> Result<Self, Absence> {
        let failed = |error: Error| Absence::Failed(error.to_string());
        let dir = scratch.join(peer.label());
        fs::create_dir(&dir).map_err(Error::file(&dir)).map_err(failed)?;
        let data = dir.join("data");
        let (place, target, command) = if peer.is_server() {
            let program = if peer == Peer::Pinion { &plan.pinion } else { &plan.redis };
            version(peer, program)?;
            let started = if peer == Peer::Pinion {
                start_pinion(plan, &data, &dir.join("stderr"), running)
            } else {
                start_redis(plan, peer, &data, &dir.join("stderr"), running)
            };
            let (server, command) = started.map_err(failed)?;
            server.pause();
            let scheme = if peer == Peer::Pinion { "pinion" } else { "redis" };
            let target = format!("{scheme}://{}", server.address());
            (Place::Server(server), target, command)
        } else {
            let target = format!("{}:{}", peer.label(), data.display());
            // It fails if the engine was not compiled in, and says what to do about that.
            target.parse::<Target>().map_err(Absence::Missing)?;
            (Place::Directory(data), target, Vec::new())
        };
        let scratch = scratch.to_owned();
        Ok(Self {
            peer,
            section,
            place,
            target,
            scratch,
            command,
            filled: false,
            settled: false,
            has_benchmark_keys: false,
        })
    }

    /// Measures one round of a row, and what is needed before it.
    ///
    /// # Errors
    /// Why there is no sound result, in words.
    pub(super) fn measure(
        &mut self,
        plan: &PeersPlan,
        row: &Row,
        round: usize,
        tool: &Tool<'_>,
    ) -> Result<Round, String> {
        if row.work == Work::Load {
            self.clear()?;
        } else {
            self.prepare(plan, row, tool)?;
        }
        let name = format!("{}-{}", row.name, round + 1);
        if row.work == Work::RedisBenchmark {
            let (report, command) = self.run_redis_benchmark(plan, row, tool, &name)?;
            return Ok(Round::new(report, command, None, None));
        }
        let words = row.arguments(plan, self.peer, &self.target, round);
        let report = self.run(plan, tool, words.clone(), &name)?;
        self.filled = true;
        let space_bytes = match &self.place {
            Place::Server(_) => None,
            Place::Directory(data) => Some(directory_bytes(data)),
        };
        // Of operations that were warming up, what they wrote is known, but not how many there were.
        let written_bytes = written_bytes(&report).filter(|_| row.work != Work::Timed);
        Ok(Round::new(report, tool.command(&words), written_bytes, space_bytes))
    }

    /// Fills it once, and before the first row for which it matters brings it into the state in which it
    /// stays.
    fn prepare(&mut self, plan: &PeersPlan, row: &Row, tool: &Tool<'_>) -> Result<(), String> {
        if !self.filled {
            note(format_args!("filling {}\n", self.peer.name()));
            self.run(plan, tool, self.section.fill(plan, self.peer, &self.target), "fill")
                .map_err(|error| format!("filling it: {error}"))?;
            self.filled = true;
        }
        if (row.writes || row.section == Section::Steady) && !self.settled {
            if let Some(words) = self.section.settle(plan, self.peer, &self.target) {
                note(format_args!("overwriting {} until its files have their size\n", self.peer.name()));
                self.run(plan, tool, words, "settle").map_err(|error| format!("overwriting it: {error}"))?;
            }
            self.settled = true;
        }
        Ok(())
    }

    fn run(
        &self,
        plan: &PeersPlan,
        tool: &Tool<'_>,
        mut words: Vec<String>,
        name: &str,
    ) -> Result<RunReport, String> {
        // What others have left to the kernel is not written in this one's time.
        sync_files(&self.scratch)?;
        let name = format!("{}-{name}", self.peer.label());
        let Place::Server(server) = &self.place else { return tool.measure(&words, None, &name) };
        words.extend(["--target-process".to_owned(), server.process().to_string()]);
        server.resume();
        let measured = tool.measure(&words, Some(plan.generator_cpu), &name);
        server.pause();
        measured
    }

    /// As [`Site::run`], with the generator of Redis.
    fn run_redis_benchmark(
        &mut self,
        plan: &PeersPlan,
        row: &Row,
        tool: &Tool<'_>,
        name: &str,
    ) -> Result<(RunReport, Vec<String>), String> {
        sync_files(&self.scratch)?;
        let Place::Server(server) = &self.place else {
            return Err("redis-benchmark asks servers only".to_owned());
        };
        let name = format!("{}-{name}", self.peer.label());
        server.resume();
        let filled = if row.writes || self.has_benchmark_keys {
            Ok(())
        } else {
            redis_benchmark::fill(plan, server, tool, &format!("{name}-fill"))
        };
        let measured = filled.and_then(|()| redis_benchmark::measure(plan, row, server, tool, &name));
        server.pause();
        self.has_benchmark_keys |= !row.writes && measured.is_ok();
        measured
    }

    /// Throws away an engine's data.
    fn clear(&mut self) -> Result<(), String> {
        if let Place::Directory(data) = &self.place
            && data.exists()
        {
            fs::remove_dir_all(data).map_err(|error| Error::file(data)(error).to_string())?;
        }
        (self.filled, self.settled) = (false, false);
        Ok(())
    }
}

/// What the load tool's process had devices write while it worked.
fn written_bytes(report: &RunReport) -> Option<u64> {
    let counter = report.target_counters.iter().find(|(name, ..)| name == "process.write_bytes");
    counter.map(|(_, before, after)| after.saturating_sub(*before))
}

/// What a server's program says of its version.
///
/// # Errors
/// It is missing, or does not say.
pub(super) fn version(peer: Peer, program: &Path) -> Result<String, Absence> {
    let shown = program.display();
    let output = match Command::new(program).arg("--version").output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Absence::Missing(match peer {
                Peer::Pinion => {
                    format!("there is no program {shown}: build it, or name another with --pinion")
                }
                _ => format!(
                    "there is no program {shown}: install it (Debian: apt-get install redis-server), or name it \
                     with --redis"
                ),
            }));
        }
        other => other.map_err(|error| Absence::Failed(format!("{shown}: {error}")))?,
    };
    let said = String::from_utf8_lossy(&output.stdout);
    // Redis goes on with how it was built.
    let line = said.lines().next().unwrap_or_default().split(" sha=").next().unwrap_or_default().trim();
    if !output.status.success() || line.is_empty() {
        return Err(Absence::Failed(format!("{shown} --version: {}", output.status)));
    }
    Ok(line.to_owned())
}

fn start_pinion(
    plan: &PeersPlan,
    data: &Path,
    log: &Path,
    running: &Running,
) -> Result<(Server, Vec<String>)> {
    let mut args: Vec<OsString> =
        ["serve", "--listen", "127.0.0.1:0", "--cores", "1", "--data"].map(OsString::from).into();
    args.push(data.into());
    args.extend(plan.serve_args.iter().map(OsString::from));
    let server = Server::start(&plan.pinion, &args, plan.server_cpu, log, running)?;
    Ok((server, command_of(&plan.pinion, &args)))
}

fn start_redis(
    plan: &PeersPlan,
    peer: Peer,
    data: &Path,
    log: &Path,
    running: &Running,
) -> Result<(Server, Vec<String>)> {
    fs::create_dir(data).map_err(Error::file(data))?;
    let appendfsync = if peer == Peer::RedisAlways { "always" } else { "everysec" };
    let mut tries = 0;
    loop {
        // It cannot choose a port itself: one that is free now.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let port = address.port().to_string();
        let mut args: Vec<OsString> = [
            ["--bind", "127.0.0.1"],
            ["--port", &port],
            ["--daemonize", "no"],
            ["--logfile", ""],
            // The append-only file is what keeps the data; snapshots beside it would only cost.
            ["--save", ""],
            ["--appendonly", "yes"],
            ["--appendfsync", appendfsync],
        ]
        .as_flattened()
        .iter()
        .map(OsString::from)
        .collect();
        args.extend(["--dir".into(), data.into()]);
        let ready = move |line: &str| -> Option<SocketAddr> { line.contains(REDIS_READY).then_some(address) };
        match Server::start_announced_by(&plan.redis, &args, plan.server_cpu, log, running, ready) {
            Ok(server) => return Ok((server, command_of(&plan.redis, &args))),
            Err(error) if tries + 1 < PORT_TRIES && error.to_string().contains(PORT_TAKEN) => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

fn command_of(program: &Path, args: &[OsString]) -> Vec<String> {
    let words = args.iter().map(|word| word.to_string_lossy().into_owned());
    std::iter::once(program.display().to_string()).chain(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::tests::plan;

    #[test]
    fn what_is_missing_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let plan = PeersPlan {
            redis: dir.path().join("redis-server"),
            pinion: PathBuf::from("/bin/false"),
            ..plan()
        };
        let absence =
            |peer| Site::new(&plan, Section::Network, peer, dir.path(), &Running::default()).unwrap_err();
        let Absence::Missing(what) = absence(Peer::RedisAlways) else { panic!("it is not installed") };
        assert!(what.contains("apt-get install redis-server") && what.contains("--redis"), "{what}");
        let Absence::Failed(why) = absence(Peer::Pinion) else { panic!("it is there") };
        assert!(why.contains("exit status: 1"), "{why}");
    }

    #[test]
    fn engines_are_there_if_they_were_compiled_in() {
        let dir = tempfile::tempdir().unwrap();
        let site = |peer| Site::new(&plan(), Section::Engines, peer, dir.path(), &Running::default());
        assert!(site(Peer::Engine).is_ok_and(|site| site.target.starts_with("engine:/")));
        for peer in [Peer::RocksDb, Peer::Fjall] {
            let site = site(peer);
            assert_eq!(site.is_ok(), cfg!(feature = "peers"), "{site:?}");
            if let Err(absence) = site {
                let Absence::Missing(what) = absence else { panic!("{absence:?}") };
                assert!(what.contains("--features peers"), "{what}");
            }
        }
    }

    #[test]
    fn a_version_is_the_first_line() {
        assert!(version(Peer::RedisAlways, Path::new("/bin/ls")).unwrap().starts_with("ls "));
    }
}
