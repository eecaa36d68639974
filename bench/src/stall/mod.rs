//! How long work holds a core: a shard under more load than it has memory, timed poll by poll.
//!
//! One shard on one core of the real runtime, in this process, with little memory: it takes
//! overwrites of several times that, so that memtables are frozen, flushed and freed, tables are
//! compacted and filters built, while gets go on beside. Every poll of every task of the shard and
//! every call into it is timed in processor time of the thread ([`TimedEnv`]).
//!
//! What it cannot see: the runtime's own driver, which is bounded by the completions of one turn.

mod ingest;
mod stalls;
mod timed;

pub use stalls::{Stall, Stalls, Summary, Work};
pub use timed::TimedEnv;

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use pinion_runtime::{RealEnv, Runtime, RuntimeConfig};
use serde::Serialize;

use crate::error::{Error, Result};

/// What to load.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// Where the shard's directory is made (and removed).
    pub dir: PathBuf,
    /// Memory of the shard in bytes.
    pub memory_bytes: u64,
    /// The keys' records are this many times as large as the memory.
    pub times: u64,
    /// How many writes each key gets on average.
    pub rounds: u64,
    /// Bytes of a key.
    pub key_bytes: usize,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Of the order of writes and gets.
    pub seed: u64,
    /// The cpu of the shard.
    pub cpu: usize,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was asked for.
    pub plan: Plan,
    /// Keys there are.
    pub keys: u64,
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Gets that were answered.
    pub gets: u64,
    /// Times the load rested because the shard was busy.
    pub overloaded: u64,
    /// How long the load took.
    pub seconds: f64,
    /// How long until compaction had nothing left to do.
    pub settled_seconds: f64,
    /// Memtables written out.
    pub flushes: u64,
    /// Compactions finished.
    pub compactions: u64,
    /// Steps of flushes and compactions.
    pub steps: u64,
    /// Records in the largest step.
    pub step_records_max: u64,
    /// Bytes in the largest step.
    pub step_bytes_max: u64,
    /// The stalls of each kind of work.
    pub by_work: Vec<Summary>,
    /// The longest of all.
    pub longest: Vec<Stall>,
}

impl Report {
    /// The highest p99.9 of any kind of work, in microseconds.
    pub fn p999_us_max(&self) -> f64 {
        self.by_work.iter().map(|summary| summary.p999_us).fold(0.0, f64::max)
    }
}

/// Makes a shard, loads it and removes it.
///
/// # Errors
/// The directory, the runtime or the shard failed.
pub fn run(plan: &Plan) -> Result<Report> {
    fs::create_dir_all(&plan.dir).map_err(Error::file(&plan.dir))?;
    let shard = plan.dir.join("stall");
    fs::create_dir(&shard).map_err(Error::file(&shard))?;
    let report = on_a_core(plan, &shard);
    fs::remove_dir_all(&shard).map_err(Error::file(&shard))?;
    report
}

fn on_a_core(plan: &Plan, dir: &std::path::Path) -> Result<Report> {
    let runtime = Runtime::<()>::new(RuntimeConfig::new(vec![plan.cpu]))?;
    let outcome = Arc::new(Mutex::new(None));
    let main = {
        let (outcome, dir, plan) = (Arc::clone(&outcome), dir.to_owned(), plan.clone());
        move |env: RealEnv<()>| {
            let (outcome, dir, plan) = (Arc::clone(&outcome), dir.clone(), plan.clone());
            async move {
                let report = ingest::run(TimedEnv::new(env), dir, plan).await;
                *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
            }
        }
    };
    runtime.run(main)?;
    let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
    outcome.take().expect("the core's main has returned")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} keys, {} MiB of memory: {} writes and {} gets in {:.1} s, settled after {:.1} s",
            self.keys,
            self.plan.memory_bytes >> 20,
            self.writes,
            self.gets,
            self.seconds,
            self.settled_seconds
        )?;
        writeln!(
            f,
            "{} flushes, {} compactions; {} steps of at most {} records and {} bytes\n",
            self.flushes, self.compactions, self.steps, self.step_records_max, self.step_bytes_max
        )?;
        writeln!(
            f,
            "{:<18}{:>12}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "cpu time, us", "count", "p50", "p99", "p99.9", "max", "> 200 us"
        )?;
        for Summary { work, count, p50_us, p99_us, p999_us, max_us, over_200_us } in &self.by_work {
            writeln!(
                f,
                "{:<18}{count:>12}{p50_us:>10.1}{p99_us:>10.1}{p999_us:>10.1}{max_us:>10.1}{over_200_us:>10}",
                work.name()
            )?;
        }
        write!(f, "\nthe longest:")?;
        for Stall { work, us, place } in &self.longest {
            write!(f, "\n{us:>10.1}  {}, from {place}", work.name())?;
        }
        Ok(())
    }
}
