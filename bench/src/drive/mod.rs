//! The load tool: runs a workload against a target and reports what it saw.
//!
//! A load has threads, each with connections on a bare io_uring of its own, each connection with a
//! number of operations in flight. An engine in this process is asked without connections: Pinion's by one
//! thread on each of its cores, with operations in flight, others by threads that wait. Closed loop: as many
//! as possible, which finds the ceiling. Open loop: at a given rate, which tells the latency that users
//! would see at that rate.
//!
//! Phases: *load* inserts the records, in the order of their numbers; *run* does the workload's
//! operations. When values are verified, *verify* follows: every record is read, and must hold what
//! was acknowledged last, or a write whose outcome is unknown.
//!
//! Failure: when a connection breaks, the target goes silent or a signal comes ([`stop_on_signals`]), the
//! load ends, and what was counted until then is reported, with the reason in [`RunReport::ended`].
//!
//! | file | subject |
//! |---|---|
//! | `target` | addresses and directories, what a target says of itself |
//! | `crew` | the threads of a phase |
//! | `operations` | one thread: what it asks, and what comes of it |
//! | `part` | which records it asks for |
//! | `shared` | what threads share: budget, inserts, the ledger of verified values |
//! | `span` | when a phase begins and ends |
//! | `speech` | requests and answers, whatever the way |
//! | `sockets` | the way over the network |
//! | `native`, `resp` | the two protocols |
//! | `engine` | Pinion's engine in this process |
//! | `peers` | other engines in this process |
//! | `blocking` | a thread that waits for an engine |
//! | `process` | what the system counts of this process |
//! | `batch` | writes of many records at once |
//! | `tally` | counts |
//! | `live` | the progress line |
//! | `find` | the highest rate that keeps a promise |
//! | `signals` | an end before the time |

mod batch;
mod blocking;
mod crew;
mod engine;
mod find;
mod live;
mod native;
mod operations;
mod part;
mod peers;
mod process;
mod resp;
mod shared;
mod signals;
mod sockets;
mod span;
mod speech;
mod tally;
mod target;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub use find::{Found, Slo, breach, find_max, rate_least};
pub use signals::stop_on_signals;
pub use target::{Description, Engine, Speech, Target};

use crew::Outcome;
use shared::{Ledger, Shared};

use crate::error::{Error, Result};
use crate::load::{CONNECTIONS_MAX, DEPTH_MAX};
use crate::ratio::summary::Machine;
use crate::report::{KindReport, RunReport};
use crate::workload::{Kind, ScanOrder, Workload, WriteDurability};

/// A generator that is busier than this measures itself, in percent of a cpu.
pub(crate) const GENERATOR_CPU_PERCENT_MAX: f64 = 80.0;
/// New records that are expected of a run that ends by its time, as a multiple of those that were loaded:
/// then every tenth draw at least is of a record that is there.
const EXPECTED_INSERTS_MAX: u64 = 9;
/// Records may be verified up to this many: each takes 16 bytes.
const VERIFIED_RECORDS_MAX: u64 = 200_000_000;

/// A part of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Inserts the records.
    Load,
    /// Does the workload's operations.
    Run,
    /// Reads every record and compares.
    Verify,
}

/// A load.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is asked.
    pub workload: Workload,
    /// Whom.
    pub target: Target,
    /// Threads of the generator.
    pub threads: usize,
    /// Connections of all threads, a multiple of the threads; as many as threads for an engine in this
    /// process, where there are none.
    pub connections: usize,
    /// Operations in flight on each; 1 for peers in this process, whose callers wait.
    pub depth: usize,
    /// Operations per second of a run; `None` = as many as possible.
    pub rate: Option<f64>,
    /// How long a run is measured; `None` = until its operations are done.
    pub seconds: Option<Duration>,
    /// How long a run goes before it is measured.
    pub warmup: Duration,
    /// Whether every value that is read is checked.
    pub verify: bool,
    /// Of everything that is drawn.
    pub seed: u64,
    /// The cpus of the threads, in turn; empty = wherever the system likes. Pinion's engine takes the
    /// first cpus then, and its cores stay on them; a peer in this process stays on all of these, with the
    /// threads that it has of its own.
    pub cpus: Vec<usize>,
    /// The target's process, to tell how busy it was; an engine in this process tells by itself.
    pub target_process: Option<u32>,
    /// Whether a progress line is shown on standard error.
    pub progress: bool,
}

impl Plan {
    fn check(&self, phase: Phase) -> Result<()> {
        let usage = |text: String| Err(Error::Usage(text));
        if self.threads == 0 || self.connections == 0 || !self.connections.is_multiple_of(self.threads) {
            let (connections, threads) = (self.connections, self.threads);
            return usage(format!(
                "{connections} connections cannot be shared evenly by {threads} threads: --connections is a \
                 multiple of --threads"
            ));
        }
        if let Some(engine) = self.target.engine() {
            self.check_in_process(engine)?;
        } else {
            self.check_network()?;
        }
        if self.connections / self.threads > CONNECTIONS_MAX {
            return usage(format!("a thread has at most {CONNECTIONS_MAX} connections"));
        }
        if !(1..=DEPTH_MAX).contains(&self.depth) {
            return usage(format!("depth is 1 to {DEPTH_MAX}"));
        }
        if self.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            return usage("a rate is above 0".to_owned());
        }
        if phase == Phase::Run && self.seconds.is_none() && self.workload.operation_count == 0 {
            return usage("a run needs an end: --seconds or operationcount".to_owned());
        }
        if self.verify {
            if self.workload.batch_records > 1 {
                return usage("records that are written in batches cannot be verified".to_owned());
            }
            let dies = self.workload.share(Kind::Delete) > 0.0 || self.workload.ttl_ms > 0;
            if dies {
                return usage("what is deleted or expires cannot be verified".to_owned());
            }
            if self.workload.record_count > VERIFIED_RECORDS_MAX {
                return usage(format!("at most {VERIFIED_RECORDS_MAX} records can be verified"));
            }
        }
        Ok(())
    }

    fn check_network(&self) -> Result<()> {
        let setup = &self.workload.setup;
        let named = [
            ("memorymib", setup.memory_mib.is_some()),
            ("shards", setup.shards.is_some()),
            ("directio", setup.direct_io.is_some()),
        ];
        if let Some((name, _)) = named.into_iter().find(|(_, is_given)| *is_given) {
            let target = &self.target;
            return Err(Error::Usage(format!(
                "property {name} is for an engine in this process: {target} has settings of its own"
            )));
        }
        let is_resp = self.target.is_resp();
        if is_resp && setup.scan_order == Some(ScanOrder::Placement) {
            let text = "Redis is scanned in the order of keys, from a sorted set: scanorder=keys";
            return Err(Error::Usage(text.to_owned()));
        }
        if is_resp && self.workload.batch_records > 1 && self.workload.ttl_ms > 0 {
            let text = "Redis writes no batch whose records expire: batchsize or ttlms, but not both";
            return Err(Error::Usage(text.to_owned()));
        }
        Ok(())
    }

    fn check_in_process(&self, engine: Engine) -> Result<()> {
        let (name, setup) = (engine.name(), &self.workload.setup);
        let usage = |text: String| Err(Error::Usage(text));
        if self.connections != self.threads {
            return usage(format!(
                "{name} in this process has no connections: --threads and --depth say all"
            ));
        }
        if self.workload.batch_records > 1 {
            return usage("batchsize is for servers: engines in this process write one by one".to_owned());
        }
        if self.target_process.is_some() {
            return usage(format!("{name} runs in this process: there is no other one to watch"));
        }
        if engine == Engine::Pinion {
            if setup.direct_io == Some(false) {
                return usage(format!("{name} always reads and writes past the page cache"));
            }
            return Ok(());
        }
        if self.depth != 1 {
            return usage(format!("{name} is asked by threads that wait: --threads, not --depth"));
        }
        if self.workload.ttl_ms > 0 {
            return usage(format!("{name} has no time to live for each record"));
        }
        if setup.shards.is_some() {
            return usage(format!("{name} has no shards"));
        }
        if setup.scan_order == Some(ScanOrder::Placement) {
            return usage(format!("{name} places records in the order of keys: scanorder=keys"));
        }
        if engine == Engine::Fjall && setup.direct_io == Some(true) {
            return usage(format!("{name} has no direct I/O"));
        }
        Ok(())
    }

    /// New records that a run may bring, which a distribution must know beforehand if what is popular is
    /// not to change with every insert. YCSB's guess is twice what the operations should come to. Where
    /// it is time that ends the run, the rate tells the operations; without one, the guess is as many as
    /// there are. Records beyond the guess are not asked for; too high a guess costs draws (see
    /// [`Chooser::new`](crate::workload::draw::Chooser::new)), so it has a bound.
    fn expected_inserts(&self) -> u64 {
        let Workload { operation_count, insert_count, .. } = self.workload;
        let share = self.workload.share(Kind::Insert);
        let guess = |operations: f64| (operations * share * 2.0) as u64;
        match (operation_count, self.rate, self.seconds) {
            _ if share <= 0.0 => 0,
            (0, Some(rate), Some(seconds)) => {
                let operations = rate * (self.warmup + seconds).as_secs_f64();
                guess(operations).min(EXPECTED_INSERTS_MAX * insert_count)
            }
            (0, ..) => insert_count,
            (operations, ..) => guess(operations as f64),
        }
    }

    fn budget(&self, phase: Phase) -> u64 {
        match phase {
            Phase::Load => self.workload.insert_count.div_ceil(self.workload.batch_records),
            Phase::Verify => self.workload.insert_count,
            Phase::Run if self.workload.operation_count == 0 => u64::MAX,
            Phase::Run => self.workload.operation_count,
        }
    }
}

/// Runs one phase to its end; a verified run is followed by reading every record.
///
/// # Errors
/// [`Error::Usage`], or the target could not be reached at all: see [`not_begun`]. What happens later is in
/// the report.
pub fn run(plan: &Plan, phase: Phase) -> Result<RunReport> {
    plan.check(phase)?;
    let workload = &plan.workload;
    let next_insert = if phase == Phase::Load { workload.insert_start } else { workload.record_count };
    let ledger = plan.verify.then(|| {
        let expected = (workload.operation_count as f64 * workload.share(Kind::Insert) * 1.1) as u64;
        let expected = if workload.share(Kind::Insert) > 0.0 { expected.max(1 << 20) } else { 0 };
        let records = workload.record_count.max(workload.insert_count);
        Arc::new(Ledger::new(workload.insert_start, records, expected))
    });
    let shared = Arc::new(Shared::new(plan.budget(phase), plan.threads, next_insert, ledger.clone()));
    let mut outcome = crew::drive(plan, phase, &shared)?;
    let mut kinds = outcome.tally.report();
    if plan.verify && phase == Phase::Run && outcome.error.is_none() {
        // Those that the run has inserted, too.
        let end = shared.inserts.end();
        let again = Arc::new(Shared::new(end - workload.insert_start, plan.threads, end, ledger));
        let verified = crew::drive(plan, Phase::Verify, &again).unwrap_or_else(Outcome::failed);
        kinds.extend(verified.tally.report());
        outcome.error = outcome.error.or(verified.error);
        if outcome.tally.first_failure.is_none() {
            outcome.tally.first_failure = verified.tally.first_failure;
        }
    }
    let first_failure = outcome.tally.first_failure.take();
    let mut report = report(plan, phase, outcome, kinds);
    warn(&mut report, plan, first_failure);
    Ok(report)
}

/// The report of a load that did not begin, for [`run`] failed with this: what was asked for, and no numbers.
pub fn not_begun(plan: &Plan, phase: Phase, error: &Error) -> RunReport {
    let outcome = Outcome { started_unix_s: crew::now_unix_s(), ..Outcome::default() };
    RunReport { ended: Some(error.to_string()), ..report(plan, phase, outcome, Vec::new()) }
}

fn report(plan: &Plan, phase: Phase, outcome: Outcome, kinds: Vec<KindReport>) -> RunReport {
    let workload = &plan.workload;
    let after: BTreeMap<String, u64> = outcome.after.counters.into_iter().collect();
    let counters = outcome
        .before
        .counters
        .into_iter()
        .filter_map(|(name, value)| Some((name.clone(), value, *after.get(&name)?)));
    let seconds = outcome.seconds.max(1e-9);
    let cpu = |time: Duration| 100.0 * time.as_secs_f64() / outcome.wall_seconds.max(1e-9);
    let generator_cpu_percent = cpu(outcome.tally.cpu) / plan.threads as f64;
    let operations = outcome.tally.operations();
    RunReport {
        report_version: RunReport::VERSION,
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        started_unix_s: outcome.started_unix_s,
        phase: if phase == Phase::Load { "load" } else { "run" }.to_owned(),
        workload: workload.name.clone(),
        properties: workload.properties.clone(),
        target: plan.target.to_string(),
        target_facts: outcome.before.facts,
        machine_facts: Machine::this().facts(),
        threads: plan.threads as u32,
        connections: plan.connections as u32,
        depth: plan.depth as u32,
        rate_per_second: plan.rate.filter(|_| phase == Phase::Run),
        seconds,
        warmup_seconds: if phase == Phase::Run { plan.warmup.as_secs_f64() } else { 0.0 },
        operations,
        ops_per_second: if operations == 0 { 0.0 } else { operations as f64 / seconds },
        generator_cpu_percent,
        target_cpu_percent: outcome.target_cpu.map(cpu),
        warnings: Vec::new(),
        ended: outcome.error.as_ref().map(why),
        kinds,
        intervals: outcome.intervals,
        target_counters: counters.collect(),
    }
}

/// Why a load ended early, for somebody who has not seen it happen.
fn why(error: &Error) -> String {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error {
        Error::Io(error)
            if matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe) =>
        {
            format!("the target closed a connection ({error}); what was under way then may have been applied")
        }
        other => other.to_string(),
    }
}

/// Says when writes over RESP, which cannot ask for it, are not synced as the workload would have them.
fn unsynced(facts: &[(String, String)], durability: WriteDurability) -> Option<String> {
    let fact = |name| facts.iter().find(|fact| fact.0 == name).map(|fact| fact.1.as_str());
    let said = match (fact("aof_enabled"), fact("appendfsync")) {
        (Some("0"), _) => "appendonly no".to_owned(),
        (_, Some(when)) if when != "always" => format!("appendfsync {when}"),
        _ => return None,
    };
    (durability == WriteDurability::Sync).then(|| {
        format!("writes were not synced: the server has {said}; say durability=buffered, or set appendfsync always")
    })
}

/// Says when target and generator are on the same cpus of a machine, must be, or may be. Of the target is known
/// how many cores it has and, if its process is, on which cpus it has threads that may run nowhere else.
fn sharing(
    generator_cpus: &[usize],
    target_pinned: &BTreeSet<usize>,
    target_cores: usize,
    machine_cpus: usize,
) -> Option<String> {
    if generator_cpus.is_empty() {
        return Some(
            "target and generator share this machine's cpus: pin the target, and use --cpus".to_owned(),
        );
    }
    if let Some(cpu) = generator_cpus.iter().find(|cpu| target_pinned.contains(cpu)) {
        return Some(format!(
            "both the target and the generator have threads on cpu {cpu}: give --cpus others"
        ));
    }
    let generator = generator_cpus.iter().collect::<BTreeSet<_>>().len();
    (target_cores + generator > machine_cpus).then(|| {
        format!(
            "{target_cores} cores of the target and {generator} of the generator share this machine's \
             {machine_cpus} cpus: give the target fewer (pinion serve --cores)"
        )
    })
}

fn warn(report: &mut RunReport, plan: &Plan, first_failure: Option<String>) {
    let warnings = &mut report.warnings;
    if let Some(failure) = first_failure {
        warnings.push(format!("not every operation went well; the first that did not: {failure}"));
    }
    if report.operations == 0 && plan.warmup > Duration::ZERO {
        warnings.push("nothing was measured: it ended during its warm-up".to_owned());
    }
    let missing: u64 = report.kinds.iter().map(|kind| kind.not_found).sum();
    if missing > 0 && plan.workload.share(Kind::Delete) == 0.0 && plan.workload.ttl_ms == 0 {
        warnings.push(format!(
            "{missing} times a record was not there, though none is deleted: load the same workload with the \
             same recordcount first"
        ));
    }
    let engine = plan.target.engine();
    // In one process the generator's time is the engine's, too.
    if engine.is_none() && report.generator_cpu_percent > GENERATOR_CPU_PERCENT_MAX {
        let percent = report.generator_cpu_percent;
        warnings.push(format!(
            "the generator's threads were busy for {percent:.0} % of the time: it may be the generator that was \
             measured; give it more threads on cpus of their own"
        ));
    }
    if let Some(rate) = report.rate_per_second
        && report.ops_per_second < 0.98 * rate
    {
        let reached = report.ops_per_second;
        warnings.push(format!("{rate:.0} operations per second were asked for, {reached:.0} were reached"));
    }
    if plan.target.is_resp() {
        let reads = [Kind::Read, Kind::Scan, Kind::Verify].map(Kind::name);
        let has_written = report.kinds.iter().any(|kind| !reads.contains(&kind.name.as_str()));
        warnings.extend(unsynced(&report.target_facts, plan.workload.durability).filter(|_| has_written));
    }
    let is_local = plan.target.address().is_ok_and(|address| address.is_some_and(|it| it.ip().is_loopback()));
    let cores = report.target_facts.iter().find(|(name, _)| name == "cores");
    let cores = cores.and_then(|(_, cores)| cores.parse().ok()).unwrap_or(1);
    let pinned = plan.target_process.map(process::pinned_cpus).unwrap_or_default();
    let sharing = is_local.then(|| sharing(&plan.cpus, &pinned, cores, Machine::this().cpus));
    warnings.extend(sharing.flatten());
    if plan.workload.batch_records > 1 {
        let batches =
            format!("of {} records each, counted and timed as one operation", plan.workload.batch_records);
        report.target_facts.push(("writes".to_owned(), batches));
    }
    if report.kinds.iter().any(|kind| kind.name == Kind::Scan.name()) {
        let order = match (engine, plan.workload.setup.scan_order) {
            (None, _) if plan.target.is_resp() => {
                "scans read in the order of keys, from a sorted set beside the records"
            }
            (None, Some(ScanOrder::Keys)) => "scans read in the order of keys, merged over all shards",
            (None, _) => {
                "scans read in the order of placement (partition, then key) from their start key, as \
                 Cassandra's binding of YCSB reads by token"
            }
            (Some(Engine::Pinion), Some(ScanOrder::Keys)) => {
                "scans read in the order of keys, merged over the shards of a core"
            }
            (Some(Engine::Pinion), _) => {
                "scans read in the order of placement (partition, then key) from their start key, over the \
                 shards of a core"
            }
            (Some(_), _) => "scans read in the order of keys",
        };
        report.target_facts.push(("scan order".to_owned(), order.to_owned()));
    }
}
