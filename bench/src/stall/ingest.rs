//! The load on the shard: uniform overwrites of more data than memory holds, with gets beside.
//!
//! The load's own task is not timed, its calls into the shard are.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::path::PathBuf;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use pinion_engine::{
    DatabaseId, Error as EngineError, Identity, Key, Lifetime, NamespaceId, Operation, Options, Origin,
    Result as EngineResult, Shard, Waiter, WriteOptions, Written,
};
use pinion_runtime::env::{Env, TaskClass};

use super::stalls::Work;
use super::timed::TimedEnv;
use super::{Plan, Report};
use crate::error::{Error, Result};
use crate::load::{Random, Records};

/// Writes that may await their answers.
const WRITES_MAX: u32 = 256;
/// Reads of tables that may be under way; gets that would be more are left out.
const READS_MAX: usize = 32;
/// Writes, and gets, between two yields of the load.
const BURST: u32 = 16;
/// How many keys the shard's partitions divide; as a server has by default.
const PARTITIONS: u32 = 1024;

/// What the load and those it waits for share.
#[derive(Debug, Default)]
struct Progress {
    in_flight: Cell<u32>,
    /// Records whose write was refused because the shard is busy, and how long it asks to wait.
    refused: RefCell<Vec<u64>>,
    rest_ms: Cell<u32>,
    failed: RefCell<Option<EngineError>>,
    waker: RefCell<Option<Waker>>,
}

impl Progress {
    /// Waits until fewer than `below` writes are in flight.
    async fn fewer_than(&self, below: u32) {
        poll_fn(|context| {
            if self.in_flight.get() < below {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn fail(&self, error: EngineError) {
        self.failed.borrow_mut().get_or_insert(error);
    }
}

/// Waits for the write of a record.
struct Ended {
    number: u64,
    progress: Rc<Progress>,
}

impl Waiter for Ended {
    fn complete(self, result: EngineResult<Written>) {
        let progress = &*self.progress;
        match result {
            Ok(_) => {}
            Err(EngineError::Overloaded { retry_after_ms }) => {
                progress.refused.borrow_mut().push(self.number);
                progress.rest_ms.set(progress.rest_ms.get().max(retry_after_ms));
            }
            Err(error) => progress.fail(error),
        }
        progress.in_flight.set(progress.in_flight.get() - 1);
        if let Some(waker) = progress.waker.take() {
            waker.wake();
        }
    }
}

/// Opens a shard in `dir`, an existing empty directory, loads it and waits until it has settled.
///
/// # Errors
/// [`Error::Engine`], and [`Error::Usage`] for memory that is too small.
pub(super) async fn run<E: Env>(env: TimedEnv<E>, dir: PathBuf, plan: Plan) -> Result<Report> {
    let options = Options::for_memory(plan.memory_bytes).map_err(|error| Error::Usage(error.to_string()))?;
    let identity = Identity { database: DatabaseId(1), shard: 0, partitions: PARTITIONS, shards: 1 };
    let shard: Shard<TimedEnv<E>, Ended> =
        Shard::open(env.clone(), dir, identity, Origin(1), options).await?;
    let record_bytes = (plan.key_bytes + plan.value_bytes) as u64;
    let keys = (plan.memory_bytes * plan.times).div_ceil(record_bytes);
    let records = Records::new(keys, plan.key_bytes, plan.value_bytes)?;
    let (mut key, mut value) = (records.key(0), records.value(0));
    let mut random = Random::new(plan.seed);
    let progress = Rc::new(Progress::default());
    let reads = Rc::new(());
    env.stalls().restart();

    let started = Instant::now();
    let (mut started_writes, writes, mut overloaded) = (0, keys * plan.rounds, 0);
    while started_writes < writes || !progress.refused.borrow().is_empty() {
        for _ in 0..BURST {
            let again = progress.refused.borrow_mut().pop();
            let number = match again {
                Some(number) => number,
                None if started_writes < writes => {
                    started_writes += 1;
                    random.below(keys)
                }
                None => break,
            };
            records.set_key(number, &mut key);
            records.set_value(number, &mut value);
            progress.in_flight.set(progress.in_flight.get() + 1);
            let ended = Ended { number, progress: Rc::clone(&progress) };
            let operation = Operation::Put { value: &value, lifetime: Lifetime::Forever };
            let key = Key::new(NamespaceId(0), &key, PARTITIONS);
            env.time(Work::Write, || shard.write(&key, operation, WriteOptions::default(), ended));
        }
        for _ in 0..BURST {
            records.set_key(random.below(keys), &mut key);
            look_up(&env, &shard, &key, &reads, &progress);
        }
        if let Some(error) = progress.failed.take() {
            return Err(error.into());
        }
        let rest_ms = progress.rest_ms.take();
        if rest_ms > 0 {
            overloaded += 1;
            env.sleep(Duration::from_millis(u64::from(rest_ms))).await;
        }
        env.yield_now().await;
        progress.fewer_than(WRITES_MAX).await;
    }
    progress.fewer_than(1).await;
    let seconds = started.elapsed().as_secs_f64();
    shard.settle().await?;
    let settled_seconds = started.elapsed().as_secs_f64();
    let counters = shard.stats().counters;
    // Closing is not a part of it.
    let (by_work, longest) = (env.stalls().summaries(), env.stalls().longest());
    shard.close().await?;
    Ok(Report {
        plan,
        keys,
        writes,
        gets: counters.gets_found + counters.gets_missing,
        overloaded,
        seconds,
        settled_seconds,
        flushes: counters.flushes,
        compactions: counters.compactions,
        steps: counters.steps,
        step_records_max: counters.step_records_max,
        step_bytes_max: counters.step_bytes_max,
        by_work,
        longest,
    })
}

/// Gets a record; if that takes a read of a table, in a task of its own.
fn look_up<E: Env>(
    env: &TimedEnv<E>,
    shard: &Shard<TimedEnv<E>, Ended>,
    user: &[u8],
    reads: &Rc<()>,
    progress: &Rc<Progress>,
) {
    let key = Key::new(NamespaceId(0), user, PARTITIONS);
    let found = env.time(Work::Get, || shard.get_now(&key, |record| record.map(|record| record.value.len())));
    if found.is_ok() || Rc::strong_count(reads) > READS_MAX {
        return;
    }
    let (shard, user) = (shard.clone(), user.to_vec());
    let (reading, progress) = (Rc::clone(reads), Rc::clone(progress));
    env.spawn(TaskClass::Foreground, async move {
        if let Err(error) = shard.get(&Key::new(NamespaceId(0), &user, PARTITIONS)).await {
            progress.fail(error);
        }
        drop(reading);
    });
}
