//! Rows under Redis' own generator: `redis-benchmark`, which asks Redis and Pinion's RESP alike.
//!
//! It is somebody else's, so nobody can say that the load was made for one of the two; but it knows
//! nothing of stamps, and what it reads is not checked. An error ends it, and the row has failed. It is
//! told how many requests to make, not how long: a short run before each round finds how many fill the
//! time. A latency is that of all requests of a pipeline.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::PeersPlan;
use super::measure::{Tool, end_of};
use super::rows::{Peer, Row, Section, Shape, Work};
use crate::error::Error;
use crate::load::process_cpu_time;
use crate::ratio::server::Server;
use crate::ratio::stop::Running;
use crate::report::{KindReport, LatencyReport, RunReport};

/// Requests of the short run, by the depth.
const PROBE_REQUESTS: u64 = 5_000;
/// How often each key is set, on average, before any is read: 95 of 100 are there then.
const FILL_TIMES: u64 = 3;
/// Depth at which they are set.
const FILL_DEPTH: usize = 16;

/// GET and SET, alone and sixteen at a time. Pinion's SETs are synced, and so are compared with those of a
/// Redis that syncs.
pub(super) fn rows() -> Vec<Row> {
    let row = |name: &str, depth, peers: &[Peer]| Row {
        name: format!("resp-{name}-{depth}"),
        title: format!("redis-benchmark -t {name} -P {depth}"),
        section: Section::Network,
        peers: peers.to_vec(),
        work: Work::RedisBenchmark,
        properties: Vec::new(),
        shape: Shape::Depth(depth),
        writes: name == "set",
        verified: false,
    };
    let rows = [1, 16].map(|depth| {
        [
            row("get", depth, &[Peer::Pinion, Peer::RedisAlways, Peer::RedisEverysec]),
            row("set", depth, &[Peer::Pinion, Peer::RedisAlways]),
        ]
    });
    let [[get_1, set_1], [get_16, set_16]] = rows;
    vec![get_1, get_16, set_1, set_16]
}

/// Asks a server that runs, as often as fills the measured time. Answers the report, and the command to
/// repeat it.
///
/// # Errors
/// Why there is no sound result, in words.
pub(super) fn measure(
    plan: &PeersPlan,
    row: &Row,
    server: &Server,
    tool: &Tool<'_>,
    name: &str,
) -> Result<(RunReport, Vec<String>), String> {
    let Shape::Depth(depth) = row.shape else { return Err(format!("{} has no depth", row.name)) };
    let test = if row.writes { "set" } else { "get" };
    let probe = ask(plan, test, depth, PROBE_REQUESTS * depth as u64, server, tool, name)?;
    let requests = (probe.report.ops_per_second * plan.measure.as_secs_f64()) as u64;
    let asked = ask(plan, test, depth, requests.max(1), server, tool, name)?;
    Ok((asked.report, asked.command))
}

/// Sets the keys that are read.
///
/// # Errors
/// As [`measure`].
pub(super) fn fill(plan: &PeersPlan, server: &Server, tool: &Tool<'_>, name: &str) -> Result<(), String> {
    ask(plan, "set", FILL_DEPTH, plan.keys * FILL_TIMES, server, tool, name).map(drop)
}

struct Asked {
    report: RunReport,
    command: Vec<String>,
}

fn ask(
    plan: &PeersPlan,
    test: &str,
    depth: usize,
    requests: u64,
    server: &Server,
    tool: &Tool<'_>,
    name: &str,
) -> Result<Asked, String> {
    let program = program(&plan.redis);
    let address = server.address();
    let words = [
        ["-h", &address.ip().to_string()],
        ["-p", &address.port().to_string()],
        ["-t", test],
        ["-n", &requests.to_string()],
        ["-c", &plan.connections.to_string()],
        ["-P", &depth.to_string()],
        ["-d", &plan.value_bytes.to_string()],
        ["-r", &plan.keys.to_string()],
    ]
    .as_flattened()
    .iter()
    .map(|word| (*word).to_owned())
    .collect::<Vec<_>>();
    let log = tool.reports.join(format!("{name}.log"));
    let open = || File::create(&log).and_then(|file| Ok((file.try_clone()?, file)));
    let (said, complaints) = open().map_err(|error| Error::file(&log)(error).to_string())?;
    let mut command = Command::new(&program);
    command.args(&words).stdin(Stdio::null()).stdout(said).stderr(complaints);
    let cpu_before = process_cpu_time(server.process());
    let begun = Instant::now();
    let process = tool.start(&mut command, &program, Some(plan.generator_cpu))?;
    let waited = Running::wait(process);
    let seconds = begun.elapsed().as_secs_f64();
    let own_cpu = process_cpu_time(process);
    let cpu_after = process_cpu_time(server.process());
    let ended = tool.running.end(process);
    waited.map_err(|error| format!("waiting for process {process}: {error}"))?;
    if !ended.is_some_and(|status| status.success()) {
        let status = ended.map_or_else(|| "it is gone".to_owned(), |status| status.to_string());
        return Err(format!("redis-benchmark: {status}: {}", end_of(&log)));
    }
    let text = fs::read(&log).map_err(|error| Error::file(&log)(error).to_string())?;
    let Some(figures) = Figures::read(&String::from_utf8_lossy(&text)) else {
        return Err(format!("redis-benchmark said something else than figures: {}", end_of(&log)));
    };
    let percent = |cpu: Option<Duration>| cpu.map(|cpu| 100.0 * cpu.as_secs_f64() / seconds);
    let target_cpu = cpu_after.zip(cpu_before).map(|(after, before)| after.saturating_sub(before));
    Ok(Asked {
        report: RunReport {
            report_version: RunReport::VERSION,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            started_unix_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            phase: "run".to_owned(),
            workload: format!("redis-benchmark {test}"),
            properties: Vec::new(),
            target: format!("redis://{address}"),
            target_facts: Vec::new(),
            machine_facts: Vec::new(),
            threads: 1,
            connections: plan.connections as u32,
            depth: depth as u32,
            rate_per_second: None,
            seconds: requests as f64 / figures.per_second,
            warmup_seconds: 0.0,
            operations: requests,
            ops_per_second: figures.per_second,
            generator_cpu_percent: percent(own_cpu).unwrap_or_default(),
            target_cpu_percent: percent(target_cpu),
            warnings: Vec::new(),
            ended: None,
            kinds: vec![KindReport {
                name: if test == "set" { "UPDATE" } else { "READ" }.to_owned(),
                ok: requests,
                not_found: 0,
                failed: 0,
                refused: 0,
                latency: figures.latency,
            }],
            intervals: Vec::new(),
            target_counters: Vec::new(),
        },
        command: [vec!["redis-benchmark".to_owned()], words].concat(),
    })
}

/// It comes with Redis' server, and lies beside it.
fn program(redis: &Path) -> PathBuf {
    redis.with_file_name("redis-benchmark")
}

/// What it says in the end.
struct Figures {
    per_second: f64,
    latency: LatencyReport,
}

impl Figures {
    /// Of one test; `None` if it says something else.
    fn read(text: &str) -> Option<Self> {
        let number = |word: Option<&str>| word?.parse::<f64>().ok();
        // How far it has come stands before, in one line that is written again and again.
        let lines = || text.split(['\r', '\n']).map(str::trim);
        let per_second = lines().find_map(|line| {
            number(line.strip_prefix("throughput summary: ")?.split(' ').next()).filter(|rate| *rate > 0.0)
        })?;
        // Two lines below: avg, min, p50, p95, p99, max, in milliseconds.
        let summary = lines().skip_while(|line| !line.starts_with("latency summary")).nth(2)?;
        let figures: Option<Vec<f64>> = summary.split_whitespace().map(|word| number(Some(word))).collect();
        let [mean, min, p50, _, p99, max] = figures?[..] else { return None };
        // The first point of the curve that is no lower.
        let p999 = lines().find_map(|line| {
            let (percent, rest) = line.split_once("% <= ")?;
            number(rest.split(' ').next()).filter(|_| number(Some(percent)) >= Some(99.9))
        })?;
        let us = |millis: f64| millis * 1_000.0;
        let percentiles = vec![(50.0, us(p50)), (99.0, us(p99)), (99.9, us(p999))];
        let (mean_us, min_us, max_us) = (us(mean), us(min), us(max));
        let latency = LatencyReport { mean_us, min_us, max_us, percentiles, hdr_base64: String::new() };
        Some(Self { per_second, latency })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it is said by version 7.0, shortened.
    const SAID: &str = "GET: rps=0.0 (overall: nan) avg_msec=nan (overall: nan)\r   \r====== GET ======\n  20000 \
                        requests completed in 0.04 seconds\n\nLatency by percentile distribution:\n0.000% <= \
                        0.031 milliseconds (cumulative count 16)\n50.000% <= 0.511 milliseconds (cumulative \
                        count 10080)\n99.805% <= 1.247 milliseconds (cumulative count 19968)\n99.902% <= 1.263 \
                        milliseconds (cumulative count 19984)\n100.000% <= 1.279 milliseconds (cumulative count \
                        20000)\n\nSummary:\n  throughput summary: 487804.88 requests per second\n  latency \
                        summary (msec):\n          avg       min       p50       p95       p99       max\n       \
                        0.545     0.024     0.511     1.007     1.207     1.279\n\n";

    #[test]
    fn figures_are_those_of_the_end() {
        let figures = Figures::read(SAID).unwrap();
        assert_eq!(figures.per_second, 487_804.88);
        let latency = figures.latency;
        assert_eq!((latency.mean_us, latency.min_us, latency.max_us), (545.0, 24.0, 1_279.0));
        let all = [50.0, 99.0, 99.9].map(|percentile| latency.percentile_us(percentile).round());
        assert_eq!(all, [511.0, 1_207.0, 1_263.0]);
        for end in [0, 40, 200, SAID.len() - 60] {
            assert!(Figures::read(&SAID[..end]).is_none(), "{end}");
        }
    }

    #[test]
    fn the_program_lies_beside_the_server() {
        assert_eq!(program(Path::new("redis-server")), Path::new("redis-benchmark"));
        assert_eq!(program(Path::new("/opt/bin/redis-server")), Path::new("/opt/bin/redis-benchmark"));
    }
}
