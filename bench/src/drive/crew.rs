//! The threads of a phase: starts them by the way of the target, gathers their seconds, and adds up what
//! they have come to.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::live::Line;
use super::operations::{Ended, Job};
use super::shared::Shared;
use super::span::Span;
use super::tally::{Second, Tally};
use super::target::{self, Description, Engine, Target};
use super::{Phase, Plan, engine, peers, sockets};
use crate::error::{Error, Result};
use crate::report::Interval;

/// A last second that is shorter than this is none of its own.
const REST_SECONDS_MIN: f64 = 0.1;

/// What a phase came to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) tally: Tally,
    pub(super) intervals: Vec<Interval>,
    pub(super) started_unix_s: u64,
    /// Measured, and of the whole phase.
    pub(super) seconds: f64,
    pub(super) wall_seconds: f64,
    /// Processor time of the target's process in the whole phase.
    pub(super) target_cpu: Option<Duration>,
    /// What the target said of itself before and after.
    pub(super) before: Description,
    pub(super) after: Description,
    pub(super) error: Option<Error>,
}

impl Outcome {
    /// Nothing but why.
    pub(super) fn failed(error: Error) -> Self {
        Self { error: Some(error), ..Self::default() }
    }
}

/// The threads have ended, and what the target said of itself before and after.
#[derive(Debug, Default)]
pub(super) struct Crew {
    pub(super) ended: Vec<Ended>,
    pub(super) before: Description,
    pub(super) after: Description,
}

/// The time, in seconds since 1970.
pub(super) fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Runs the threads of a phase.
///
/// # Errors
/// The target could not be reached or opened at all. What happens later is in the outcome.
pub(super) fn drive(plan: &Plan, phase: Phase, shared: &Arc<Shared>) -> Result<Outcome> {
    let started_unix_s = now_unix_s();
    let in_process = plan.target.engine().map(|_| std::process::id());
    let span = Arc::new(Span::new(in_process.or(plan.target_process)));
    let (sender, receiver) = mpsc::channel();
    let job = Job {
        plan: Arc::new(plan.clone()),
        phase,
        shared: Arc::clone(shared),
        ready: Arc::new(Barrier::new(plan.threads)),
        span: Arc::clone(&span),
        seconds: sender,
    };
    let crew = thread::Builder::new().name("load".to_owned()).spawn(move || run(job))?;
    let seconds = gather(&receiver, plan, phase, shared);
    let Crew { ended, before, after } =
        crew.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let (mut tally, mut error) = (Tally::default(), None);
    for (counts, thread_error) in ended {
        tally.add(counts);
        error = error.or(thread_error);
    }
    // A connection that stood and broke at once is a load that ended early.
    let stood = matches!(
        error,
        None | Some(
            Error::Io(_)
                | Error::Silent(_)
                | Error::Unanswered { .. }
                | Error::Overloaded { .. }
                | Error::Answer(_)
                | Error::Protocol(_)
        )
    );
    if tally.operations() + tally.failures() == 0
        && !stood
        && let Some(error) = error
    {
        return Err(error);
    }
    let wall_seconds = span.wall().as_secs_f64();
    let warmup = if phase == Phase::Run { plan.warmup.as_secs_f64() } else { 0.0 };
    let longest =
        plan.seconds.filter(|_| phase == Phase::Run).map_or(f64::INFINITY, |time| time.as_secs_f64());
    // An open loop that fell behind took as long as it took; in a closed one nothing counts that ends late.
    let longest = if plan.rate.is_some() { f64::INFINITY } else { longest };
    let measured = (wall_seconds - warmup).max(0.0).min(longest);
    Ok(Outcome {
        tally,
        intervals: intervals(&seconds, measured),
        started_unix_s,
        seconds: measured,
        wall_seconds,
        target_cpu: span.target_cpu(),
        before,
        after,
        error,
    })
}

/// The threads, until they have ended.
fn run(job: Job) -> Result<Crew> {
    match &job.plan.target {
        Target::Network { speech, authority } => {
            let (target, speech) = (job.plan.target.clone(), *speech);
            let address = target::address(&target, authority)?;
            let before = target.describe();
            let ended = threads(job, |job, index| sockets::run(job, index, speech, address))?;
            Ok(Crew { ended, before, after: target.describe() })
        }
        Target::InProcess { engine: Engine::Pinion, dir } => {
            let dir = dir.clone();
            engine::run(job, &dir)
        }
        Target::InProcess { engine: peer @ (Engine::Rocksdb | Engine::Fjall), dir } => {
            let (peer, dir) = (*peer, dir.clone());
            peers::run(job, peer, &dir)
        }
    }
}

/// Runs as many threads as the load has, by number.
pub(super) fn threads(job: Job, run: impl Fn(Job, usize) -> Ended + Sync) -> Result<Vec<Ended>> {
    thread::scope(|scope| {
        let mut workers = Vec::new();
        for index in 0..job.plan.threads {
            let (job, run) = (job.clone(), &run);
            let thread = thread::Builder::new().name(format!("load-{index}"));
            workers.push(thread.spawn_scoped(scope, move || run(job, index))?);
        }
        // Whoever gathers their seconds must not wait for this one.
        drop(job);
        let ended = workers.into_iter().map(|worker| worker.join());
        Ok(ended.map(|ended| ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect())
    })
}

/// Adds up the seconds of all threads, and shows them, until there are no more threads.
fn gather(receiver: &Receiver<Second>, plan: &Plan, phase: Phase, shared: &Shared) -> BTreeMap<u64, Second> {
    let mut seconds: BTreeMap<u64, Second> = BTreeMap::new();
    let mut line = Line::new(plan, phase);
    for second in receiver {
        let index = second.index;
        match seconds.get_mut(&index) {
            Some(sum) => sum.add(&second),
            None => drop(seconds.insert(index, second)),
        }
        line.show(shared.left(), seconds.range(..=index).next_back().map(|(_, second)| second));
    }
    line.end();
    seconds
}

/// Seconds without an operation are told too. What is left after the last whole one is counted with it
/// where it is too short to have a rate. What ended while the load drained is in none.
fn intervals(seconds: &BTreeMap<u64, Second>, measured: f64) -> Vec<Interval> {
    let begun = measured.ceil() as u64;
    let has_rest = measured > 1.0 && (f64::MIN_POSITIVE..REST_SECONDS_MIN).contains(&measured.fract());
    let count = begun - u64::from(has_rest);
    (0..count)
        .map(|index| {
            let end = if index + 1 == count { begun } else { index + 1 };
            let mut sum = Second::new(index);
            seconds.range(index..end).for_each(|(_, second)| sum.add(second));
            sum.report(measured.min(end as f64) - index as f64)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_rest_belongs_to_the_last_second() {
        let second = |index, operations| {
            let mut second = Second::new(index);
            second.latency_ns.record_n(1000, operations).unwrap();
            (index, second)
        };
        let seconds = BTreeMap::from([second(0, 10), second(2, 30), second(3, 1), second(4, 7)]);
        let rates = |measured| -> Vec<f64> {
            intervals(&seconds, measured).iter().map(|it| it.ops_per_second.round()).collect()
        };
        assert_eq!(rates(3.0), [10.0, 0.0, 30.0]);
        assert_eq!(rates(3.001), [10.0, 0.0, 31.0]);
        assert_eq!(rates(3.5), [10.0, 0.0, 30.0, 2.0]);
        assert_eq!((rates(0.01), rates(0.0)), (vec![1000.0], vec![]));
        let last = intervals(&seconds, 3.001).pop().unwrap();
        assert!((last.end_s - 3.001).abs() < 1e-9);
    }
}
