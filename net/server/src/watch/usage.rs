//! What listeners and namespaces are used for: requests by class, how long they took, how many failed.
//!
//! Counted once for a run of requests that are alike, when their answers are sent; failures when they are
//! answered, on the core that finds them.
//!
//! Limits: [`NAMED_MAX`] namespaces have counts of their own; those beyond, those that are gone and what
//! asks for namespaces that never were share one.

use std::cell::{Cell, RefCell};

use crate::buckets::{self, Counts};
use crate::connection::Finished;
use crate::counters::OperationClass;

/// Namespaces with counts of their own.
const NAMED_MAX: usize = 32;

/// Which door requests come through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listener {
    Native,
    Resp,
}

impl Listener {
    pub(crate) const ALL: [Self; 2] = [Self::Native, Self::Resp];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Resp => "resp",
        }
    }
}

/// What came through one door.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListenerCounts {
    /// By class: requests that failed.
    pub(crate) errors: [u64; OperationClass::ALL.len()],
    /// By class: how long requests took. Their sum is how many there were.
    pub(crate) times: [Counts; OperationClass::ALL.len()],
}

impl ListenerCounts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.errors.iter_mut().zip(&other.errors).for_each(|(mine, theirs)| *mine += theirs);
        for (mine, theirs) in self.times.iter_mut().zip(&other.times) {
            mine.add(theirs);
        }
    }

    /// Requests of all classes.
    pub(crate) fn requests(&self) -> u64 {
        self.times.iter().map(Counts::sum).sum()
    }
}

/// What a namespace was used for.
#[derive(Debug, Clone, Default)]
pub(crate) struct NamespaceCounts {
    /// `None`: of all that have none of their own.
    pub(crate) id: Option<u32>,
    pub(crate) scans: u64,
    pub(crate) errors: u64,
    /// How long reads and writes took. Their sums are how many there were.
    pub(crate) reads: Counts,
    pub(crate) writes: Counts,
}

impl NamespaceCounts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.scans += other.scans;
        self.errors += other.errors;
        self.reads.add(&other.reads);
        self.writes.add(&other.writes);
    }

    fn count(&mut self, class: OperationClass, bucket: usize, count: u64) {
        match class {
            OperationClass::Read | OperationClass::MultiRead => self.reads.count(bucket, count),
            OperationClass::Write | OperationClass::Batch => self.writes.count(bucket, count),
            OperationClass::Scan => self.scans += count,
            OperationClass::Other => {}
        }
    }
}

/// The counts of one core.
#[derive(Debug)]
pub(crate) struct Usage {
    listeners: RefCell<[ListenerCounts; Listener::ALL.len()]>,
    /// The first is of all that have none of their own.
    namespaces: RefCell<Vec<NamespaceCounts>>,
    /// Where in `namespaces` was counted last.
    last: Cell<usize>,
}

impl Usage {
    pub(super) fn new() -> Self {
        let namespaces = RefCell::new(vec![NamespaceCounts::default()]);
        Self { listeners: RefCell::default(), namespaces, last: Cell::new(0) }
    }

    /// Counts requests that took so many nanoseconds each. `is_live` tells whether there is such a namespace.
    pub(crate) fn finished(
        &self,
        listener: Listener,
        run: &Finished,
        took_ns: u64,
        is_live: impl FnOnce(u32) -> bool,
    ) {
        let (bucket, count) = (buckets::place(took_ns), u64::from(run.count));
        self.listeners.borrow_mut()[listener as usize].times[run.class as usize].count(bucket, count);
        if run.class != OperationClass::Other {
            let mut namespaces = self.namespaces.borrow_mut();
            let at = self.place(&mut namespaces, run.namespace, is_live);
            namespaces[at].count(run.class, bucket, count);
        }
    }

    /// Counts a request that failed.
    pub(crate) fn failed(
        &self,
        listener: Listener,
        class: OperationClass,
        namespace: u32,
        is_live: impl FnOnce(u32) -> bool,
    ) {
        self.listeners.borrow_mut()[listener as usize].errors[class as usize] += 1;
        if class != OperationClass::Other {
            let mut namespaces = self.namespaces.borrow_mut();
            let at = self.place(&mut namespaces, namespace, is_live);
            namespaces[at].errors += 1;
        }
    }

    /// Where a namespace is counted.
    fn place(
        &self,
        namespaces: &mut Vec<NamespaceCounts>,
        id: u32,
        is_live: impl FnOnce(u32) -> bool,
    ) -> usize {
        if namespaces[self.last.get()].id == Some(id) {
            return self.last.get();
        }
        let found = namespaces.iter().position(|counts| counts.id == Some(id));
        let at = match found {
            Some(at) => at,
            None if namespaces.len() <= NAMED_MAX && is_live(id) => {
                namespaces.push(NamespaceCounts { id: Some(id), ..NamespaceCounts::default() });
                namespaces.len() - 1
            }
            None => 0,
        };
        self.last.set(at);
        at
    }

    /// Namespaces that are gone give up their counts.
    pub(crate) fn keep_live(&self, is_live: impl Fn(u32) -> bool) {
        let mut namespaces = self.namespaces.borrow_mut();
        let gone: Vec<_> =
            namespaces.extract_if(1.., |counts| counts.id.is_none_or(|id| !is_live(id))).collect();
        gone.iter().for_each(|counts| namespaces[0].add(counts));
        self.last.set(0);
    }

    /// A copy of all.
    pub(crate) fn report(&self) -> UsageReport {
        UsageReport {
            listeners: self.listeners.borrow().clone(),
            namespaces: self.namespaces.borrow().clone(),
        }
    }
}

/// What a core, or all of them, were used for.
#[derive(Debug, Clone, Default)]
pub(crate) struct UsageReport {
    /// By [`Listener`].
    pub(crate) listeners: [ListenerCounts; Listener::ALL.len()],
    pub(crate) namespaces: Vec<NamespaceCounts>,
}

impl UsageReport {
    /// The reports of all cores added up: namespaces by number, and last what has none of its own, if there
    /// is such.
    pub(crate) fn sum<'a>(reports: impl Iterator<Item = &'a Self>) -> Self {
        let mut sum = Self::default();
        for report in reports {
            for (mine, theirs) in sum.listeners.iter_mut().zip(&report.listeners) {
                mine.add(theirs);
            }
            for counts in &report.namespaces {
                match sum.namespaces.iter_mut().find(|known| known.id == counts.id) {
                    Some(known) => known.add(counts),
                    None => sum.namespaces.push(counts.clone()),
                }
            }
        }
        sum.bound();
        sum
    }

    /// Cores may have counted different namespaces: as many stay as one core may have.
    fn bound(&mut self) {
        self.namespaces.sort_by_key(|counts| counts.id.map_or(u64::MAX, u64::from));
        let others: Vec<_> = self.namespaces.split_off(
            NAMED_MAX.min(self.namespaces.iter().take_while(|counts| counts.id.is_some()).count()),
        );
        let mut other = NamespaceCounts::default();
        others.iter().for_each(|counts| other.add(counts));
        let used = other.scans + other.errors + other.reads.sum() + other.writes.sum();
        if used > 0 {
            self.namespaces.push(other);
        }
    }
}

#[cfg(test)]
mod tests {
    use pinion_env::Monotonic;

    use super::*;

    fn run(class: OperationClass, namespace: u32, count: u32) -> Finished {
        Finished { class, namespace, received: Monotonic::default(), count }
    }

    #[test]
    fn runs_are_counted_by_listener_and_namespace() {
        let (usage, took) = (Usage::new(), 40_000);
        let live = |id: u32| id < 5;
        usage.finished(Listener::Native, &run(OperationClass::Read, 0, 16), took, live);
        usage.finished(Listener::Resp, &run(OperationClass::MultiRead, 0, 1), took, live);
        usage.finished(Listener::Native, &run(OperationClass::Write, 3, 2), took, live);
        usage.finished(Listener::Native, &run(OperationClass::Scan, 3, 4), took, live);
        usage.finished(Listener::Native, &run(OperationClass::Other, 9, 7), took, live);
        usage.finished(Listener::Native, &run(OperationClass::Read, 9, 5), took, live);
        usage.failed(Listener::Resp, OperationClass::Write, 3, live);
        usage.failed(Listener::Native, OperationClass::Other, u32::MAX, live);
        let sum = UsageReport::sum([usage.report(), usage.report()].iter());
        let [native, resp] = &sum.listeners;
        assert_eq!((native.requests(), native.errors), (2 * 34, [0, 0, 0, 0, 0, 2]));
        assert_eq!((resp.requests(), resp.errors), (2, [0, 0, 2, 0, 0, 0]));
        let told: Vec<_> = sum
            .namespaces
            .iter()
            .map(|counts| (counts.id, counts.reads.sum(), counts.writes.sum(), counts.scans, counts.errors))
            .collect();
        assert_eq!(told, [(Some(0), 34, 0, 0, 0), (Some(3), 0, 4, 8, 2), (None, 10, 0, 0, 0)]);
    }

    #[test]
    fn namespaces_are_bounded_and_make_room_when_they_go() {
        let (usage, took) = (Usage::new(), 1_000);
        for id in 0..100 {
            usage.finished(Listener::Native, &run(OperationClass::Read, id, 1), took, |_| true);
        }
        let report = UsageReport::sum([usage.report()].iter());
        assert_eq!(report.namespaces.len(), NAMED_MAX + 1);
        assert_eq!(report.namespaces[NAMED_MAX].reads.sum(), 100 - NAMED_MAX as u64);
        usage.keep_live(|id| id == 7);
        usage.finished(Listener::Native, &run(OperationClass::Read, 99, 1), took, |_| true);
        let report = UsageReport::sum([usage.report()].iter());
        let told: Vec<_> = report.namespaces.iter().map(|counts| (counts.id, counts.reads.sum())).collect();
        assert_eq!(told, [(Some(7), 1), (Some(99), 1), (None, 99)]);
        // Two cores that know others.
        let other = Usage::new();
        for id in 200..232 {
            other.finished(Listener::Native, &run(OperationClass::Write, id, 1), took, |_| true);
        }
        let sum = UsageReport::sum([usage.report(), other.report()].iter());
        assert_eq!((sum.namespaces.len(), sum.namespaces[NAMED_MAX].writes.sum()), (NAMED_MAX + 1, 2));
    }
}
