//! `engine:DIR`: Pinion's engine in this process, without a network.
//!
//! The directory is a node's: `pinion serve --data DIR` opens it too, and a new one is formatted with a
//! shard for each thread unless it is said otherwise. Every thread of the load is a core of the real runtime
//! with its share of the shards, as in a node, and asks for records of its own shards only (`part`): nothing
//! passes between cores, as with clients that connect to each core. So what one core does for two is what
//! two do for themselves, and the threads' total over the total of one says how the engine scales.
//!
//! Phases open the directory and close it: what a load has left is recovered by the run, and what a run
//! has written is read back by its verification after a restart. Neither is measured.
//!
//! | file | subject |
//! |---|---|
//! | `shards` | the shards of a core, and what is asked of them |
//! | `inbox` | where answers come in |
//! | `generator` | one core's load |

mod generator;
mod inbox;
mod shards;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use pinion_engine::{DataDir, FormatOptions, MEMORY_BYTES_MIN, Meta, Options, ShardStats};
use pinion_runtime::env::NodeEnv as _;
use pinion_runtime::{RealEnv, Runtime, RuntimeConfig, online_cpus};

use super::crew::Crew;
use super::operations::{Ended, Job};
use super::process;
use super::target::Description;
use crate::error::{Error, Result};
use crate::workload::Workload;
use shards::{Dealt, Shards};

/// Partitions of a new directory; as a server has by default.
const PARTITIONS: u32 = 1024;
/// Memory unless something is said, in MiB; more where that many shards need it.
const MEMORY_MIB_DEFAULT: u64 = 256;

/// The environment of a core; cores tell each other nothing.
type CoreEnv = RealEnv<()>;

/// What a core has come to.
#[derive(Debug)]
struct CoreEnded {
    ended: Ended,
    /// Of its shards, before and after the load.
    before: Vec<ShardStats>,
    after: Vec<ShardStats>,
}

/// Runs a phase on the engine.
///
/// # Errors
/// The directory or the runtime could not be opened, or does not fit the load.
pub(super) fn run(job: Job, dir: &Path) -> Result<Crew> {
    let plan = Arc::clone(&job.plan);
    let cpus = cpus(&plan.cpus, plan.threads);
    let new_shards = new_shards(&plan.workload, plan.threads);
    // What is refused anyway is refused before anything is made.
    memory_mib(&plan.workload, new_shards)?;
    let (directory, meta) = open(dir, cpus[0], new_shards)?;
    let setup = &plan.workload.setup;
    if let Some(shards) = setup.shards.filter(|shards| *shards != meta.shards) {
        let has = meta.shards;
        return Err(Error::Usage(format!(
            "{}: shards={shards} was asked for, but the directory was formatted with {has}",
            dir.display()
        )));
    }
    if plan.threads > usize::from(meta.shards) {
        let (threads, shards) = (plan.threads, meta.shards);
        return Err(Error::Usage(format!(
            "{}: {threads} threads, but the directory was formatted with shards for {shards}: each thread \
             is a core that owns some; load into a new directory with --threads {threads}",
            dir.display()
        )));
    }
    let options = options(&plan.workload, meta.shards)?;
    let facts = facts(&plan.workload, &meta, &cpus);
    let process_before = process::counters();
    let cores = on_cores(job, cpus, Dealt { directory: Arc::new(directory), meta, options })?;
    let mut crew = Crew::default();
    crew.before.facts = facts;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for core in cores {
        crew.ended.push(core.ended);
        before.extend(core.before);
        after.extend(core.after);
    }
    let opened_records: u64 = before.iter().map(|stats| stats.counters.records_replayed).sum();
    crew.before.facts.push(("records replayed when it was opened".to_owned(), opened_records.to_string()));
    crew.before.counters = counters(&before, process_before);
    crew.after = Description { facts: Vec::new(), counters: counters(&after, process::counters()) };
    Ok(crew)
}

/// Memory of an engine in this process, in MiB.
///
/// # Errors
/// [`Error::Usage`]: too little for so many shards.
pub(super) fn memory_mib(workload: &Workload, shards: u16) -> Result<u64> {
    let each = MEMORY_BYTES_MIN >> 20;
    let least = u64::from(shards) * each;
    let mib = workload.setup.memory_mib.unwrap_or(MEMORY_MIB_DEFAULT.max(least));
    if mib < least {
        let shards = if shards == 1 { String::new() } else { format!(" for each of {shards} shards") };
        return Err(Error::Usage(format!(
            "property memorymib: {mib} is too little: {each} are needed{shards}"
        )));
    }
    Ok(mib)
}

fn options(workload: &Workload, shards: u16) -> Result<Options> {
    let bytes = memory_mib(workload, shards)? << 20;
    let mut options = Options::for_memory(bytes / u64::from(shards))?;
    // The largest that the workload writes, which is within what the engine allows.
    let value_bytes = u32::try_from(workload.value.bytes_max()).unwrap_or(u32::MAX);
    options.value_bytes_max = options.value_bytes_max.max(value_bytes);
    options.check()?;
    Ok(options)
}

/// The cpus of so many cores: those that were named, in turn, or the first ones.
fn cpus(named: &[usize], threads: usize) -> Vec<usize> {
    let online = online_cpus();
    let from = if named.is_empty() { online.as_slice() } else { named };
    from.iter().copied().cycle().take(threads).collect()
}

/// Shards of a new directory.
fn new_shards(workload: &Workload, threads: usize) -> u16 {
    workload.setup.shards.unwrap_or_else(|| u16::try_from(threads).unwrap_or(u16::MAX))
}

/// Opens the data directory, formatting it if it is new, and locks it.
fn open(dir: &Path, cpu: usize, shards: u16) -> Result<(DataDir, Meta)> {
    let runtime = Runtime::<()>::new(RuntimeConfig::new(vec![cpu]))?;
    let outcome = Arc::new(Mutex::new(None));
    let main = {
        let (outcome, dir) = (Arc::clone(&outcome), dir.to_owned());
        move |env: CoreEnv| {
            let (outcome, dir) = (Arc::clone(&outcome), dir.clone());
            async move {
                let format = FormatOptions { partitions: PARTITIONS, shards };
                let opened = DataDir::open_or_format(&env, &dir, format).await;
                *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
            }
        }
    };
    runtime.run(main)?;
    let opened = outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
    let directory = opened.expect("the core's main has returned")?;
    let meta = *directory.meta();
    Ok((directory, meta))
}

/// Runs the load on all cores, and closes their shards.
fn on_cores(job: Job, cpus: Vec<usize>, dealt: Dealt) -> Result<Vec<CoreEnded>> {
    let cores = cpus.len();
    let runtime = Runtime::<()>::new(RuntimeConfig::new(cpus))?;
    let ended = Arc::new(Mutex::new(Vec::new()));
    let main = {
        let ended = Arc::clone(&ended);
        move |env: CoreEnv| {
            let (ended, job, dealt) = (Arc::clone(&ended), job.clone(), dealt.clone());
            async move {
                let core = on_core(env.clone(), job, dealt).await;
                ended.lock().unwrap_or_else(PoisonError::into_inner).push((env.core(), core));
            }
        }
    };
    runtime.run(main)?;
    let mut ended = std::mem::take(&mut *ended.lock().unwrap_or_else(PoisonError::into_inner));
    assert_eq!(ended.len(), cores, "every core's main has returned");
    ended.sort_by_key(|(core, _)| *core);
    Ok(ended.into_iter().map(|(_, core)| core).collect())
}

/// Opens a core's shards, runs its part of the load and closes them.
async fn on_core(env: CoreEnv, job: Job, dealt: Dealt) -> CoreEnded {
    let nothing = |ended| CoreEnded { ended, before: Vec::new(), after: Vec::new() };
    let opened = Shards::open(&env, &job, &dealt).await;
    let shards = match opened {
        Ok(shards) => shards,
        Err(error) => return nothing(job.fail(error)),
    };
    let part = match shards.part(&job.plan.workload) {
        Ok(part) => part,
        Err(error) => return nothing(job.fail(error)),
    };
    let before = shards.stats();
    let (mut tally, mut error) = generator::run(&env, &shards, job, env.core(), part).await;
    let after = shards.stats();
    // A shard that does not answer is not waited for.
    if !matches!(error, Some(Error::Silent(_)))
        && let Err(failed) = shards.close().await
    {
        tally.first_failure.get_or_insert_with(|| format!("closing: {failed}"));
        error.get_or_insert(failed);
    }
    CoreEnded { ended: (tally, error), before, after }
}

fn facts(workload: &Workload, meta: &Meta, cpus: &[usize]) -> Vec<(String, String)> {
    let fact = |name: &str, value: String| (name.to_owned(), value);
    let memory_mib = memory_mib(workload, meta.shards).unwrap_or_default();
    vec![
        fact("product", "Pinion's engine, in the process of the load".to_owned()),
        fact("version", env!("CARGO_PKG_VERSION").to_owned()),
        fact("cores", format!("{} (cpus {cpus:?})", cpus.len())),
        fact("shards", meta.shards.to_string()),
        fact("partitions", meta.partitions.to_string()),
        fact("memory", format!("{memory_mib} MiB for all shards together")),
    ]
}

/// The counters and sizes of all shards together, and those of this process at the same moment.
fn counters(stats: &[ShardStats], process: Vec<(String, u64)>) -> Vec<(String, u64)> {
    let sum = |of: fn(&ShardStats) -> u64| stats.iter().map(of).sum::<u64>();
    let names = stats.first().map(|stats| stats.counters.entries()).unwrap_or_default();
    let mut counters: Vec<(String, u64)> = Vec::new();
    for (index, (name, _)) in names.iter().enumerate() {
        let values = stats.iter().map(|stats| stats.counters.entries()[index].1);
        // A greatest one is not a sum.
        let value = if name.ends_with("_max") { values.max().unwrap_or(0) } else { values.sum() };
        counters.push((format!("storage.{name}"), value));
    }
    let sizes: [(&str, u64); 6] = [
        ("table_bytes", sum(|stats| stats.levels.iter().map(|level| level.bytes).sum())),
        ("compaction_debt_bytes", sum(|stats| stats.compaction_debt_bytes)),
        ("memtable_bytes", sum(|stats| stats.memtable_bytes)),
        ("index_bytes", sum(|stats| stats.index_bytes)),
        ("block_cache_bytes", sum(|stats| stats.block_cache_bytes)),
        ("row_cache_bytes", sum(|stats| stats.row_cache_bytes)),
    ];
    counters.extend(sizes.into_iter().map(|(name, value)| (format!("storage.{name}"), value)));
    counters.extend(process);
    counters
}
