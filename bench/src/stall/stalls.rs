//! How long the core was held without a yield: histograms by kind of work, and the longest.

use std::cell::RefCell;
use std::panic::Location;
use std::time::Duration;

use hdrhistogram::Histogram;
use pinion_runtime::env::TaskClass;
use serde::Serialize;

/// The longest stall that is told apart, in nanoseconds: 10 s.
const STALL_NS_MAX: u64 = 10_000_000_000;
/// Digits of a stall that are kept.
const STALL_DIGITS: u8 = 3;
/// How many of the longest stalls are kept.
const LONGEST_MAX: usize = 5;
/// What nothing on a core should exceed, in nanoseconds.
const RULE_NS: u64 = 200_000;

/// What held the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// A poll of the task that writes the log.
    Log,
    /// A poll of a foreground task: publishing, reads of tables.
    Foreground,
    /// A poll of a flush.
    Flush,
    /// A poll of a compaction or another background task.
    Background,
    /// A call that stages a write.
    Write,
    /// A call that looks a key up in memory.
    Get,
}

impl Work {
    const ALL: [Self; 6] =
        [Self::Log, Self::Foreground, Self::Flush, Self::Background, Self::Write, Self::Get];

    /// As tables name it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Log => "log tasks",
            Self::Foreground => "foreground tasks",
            Self::Flush => "flush tasks",
            Self::Background => "background tasks",
            Self::Write => "write calls",
            Self::Get => "get calls",
        }
    }
}

impl From<TaskClass> for Work {
    fn from(class: TaskClass) -> Self {
        match class {
            TaskClass::Log => Self::Log,
            TaskClass::Foreground => Self::Foreground,
            TaskClass::Flush => Self::Flush,
            TaskClass::Background => Self::Background,
        }
    }
}

/// Everything noted on one core.
#[derive(Debug)]
pub struct Stalls {
    by_work: RefCell<[Histogram<u64>; Work::ALL.len()]>,
    longest: RefCell<Vec<Stall>>,
}

/// One stall.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Stall {
    /// What held the core.
    pub work: Work,
    /// How long, in microseconds of the thread's processor time.
    pub us: f64,
    /// File and line that spawned the task or made the call.
    #[serde(serialize_with = "as_text")]
    pub place: &'static Location<'static>,
}

fn as_text<S: serde::Serializer>(place: &&'static Location<'static>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(place)
}

/// The stalls of one kind of work, in microseconds of processor time.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// What held the core.
    pub work: Work,
    /// How many there were.
    pub count: u64,
    /// Half are shorter.
    pub p50_us: f64,
    /// 99 of 100 are shorter.
    pub p99_us: f64,
    /// 999 of 1000 are shorter.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
    /// How many were longer than 200 us.
    pub over_200_us: u64,
}

impl Default for Stalls {
    fn default() -> Self {
        let histogram =
            |_| Histogram::new_with_bounds(1, STALL_NS_MAX, STALL_DIGITS).expect("the bounds are in order");
        Self { by_work: RefCell::new(Work::ALL.map(histogram)), longest: RefCell::default() }
    }
}

impl Stalls {
    /// Notes that `work`, which began at `place`, held the core for `cpu_time`.
    pub(super) fn note(&self, work: Work, place: &'static Location<'static>, cpu_time: Duration) {
        let nanos = u64::try_from(cpu_time.as_nanos()).unwrap_or(u64::MAX);
        self.by_work.borrow_mut()[work as usize].saturating_record(nanos.max(1));
        let us = micros(nanos);
        let mut longest = self.longest.borrow_mut();
        if longest.len() < LONGEST_MAX || longest.last().is_some_and(|least| least.us < us) {
            let at = longest.partition_point(|other| other.us >= us);
            longest.insert(at, Stall { work, us, place });
            longest.truncate(LONGEST_MAX);
        }
    }

    /// Forgets everything.
    pub(super) fn restart(&self) {
        self.by_work.borrow_mut().iter_mut().for_each(Histogram::reset);
        self.longest.borrow_mut().clear();
    }

    /// The kinds of work that there were.
    pub fn summaries(&self) -> Vec<Summary> {
        let by_work = self.by_work.borrow();
        let used = Work::ALL.into_iter().zip(&*by_work).filter(|(_, stalls)| !stalls.is_empty());
        let summary = |(work, stalls): (Work, &Histogram<u64>)| Summary {
            work,
            count: stalls.len(),
            p50_us: micros(stalls.value_at_quantile(0.5)),
            p99_us: micros(stalls.value_at_quantile(0.99)),
            p999_us: micros(stalls.value_at_quantile(0.999)),
            max_us: micros(stalls.max()),
            over_200_us: stalls.count_between(RULE_NS + 1, STALL_NS_MAX),
        };
        used.map(summary).collect()
    }

    /// The longest of all, longest first.
    pub fn longest(&self) -> Vec<Stall> {
        self.longest.borrow().clone()
    }
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_are_kept_in_order() {
        let (stalls, here) = (Stalls::default(), Location::caller());
        for us in [3, 900, 1, 250, 4, 80, 2] {
            stalls.note(Work::Flush, here, Duration::from_micros(us));
        }
        stalls.note(Work::Get, here, Duration::ZERO);
        let longest: Vec<f64> = stalls.longest().iter().map(|stall| stall.us).collect();
        assert_eq!(longest, [900.0, 250.0, 80.0, 4.0, 3.0]);
        let summaries = stalls.summaries();
        assert_eq!(summaries.len(), 2);
        assert_eq!((summaries[0].work, summaries[0].count, summaries[0].over_200_us), (Work::Flush, 7, 2));
        stalls.restart();
        assert!(stalls.summaries().is_empty() && stalls.longest().is_empty());
    }
}
