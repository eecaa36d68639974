//! What the threads of a load share: how much is left to do, which records there are, and, when values
//! are verified, what each record must hold.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Room for records that a run inserts, beyond those that were loaded, in a ledger.
const LEDGER_INSERTS_MAX: u64 = 4 << 20;
/// Operations that a thread takes from the budget at a time, at most ...
const STRIDE_MAX: u64 = 64;
/// ... and at least so often that all threads end at about the same time.
const STRIDES_MIN: u64 = 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    /// Operations begun.
    begun: AtomicU64,
    /// Operations that may be begun.
    budget: u64,
    /// How many a thread takes at a time.
    stride: u64,
    pub(super) inserts: Inserts,
    pub(super) ledger: Option<Arc<Ledger>>,
    stop: AtomicBool,
}

impl Shared {
    pub(super) fn new(budget: u64, threads: usize, next_insert: u64, ledger: Option<Arc<Ledger>>) -> Self {
        Self {
            begun: AtomicU64::new(0),
            budget,
            stride: (budget / STRIDES_MIN / threads.max(1) as u64).clamp(1, STRIDE_MAX),
            inserts: Inserts::new(next_insert),
            ledger,
            stop: AtomicBool::new(false),
        }
    }

    /// The numbers of some further operations; empty if there were enough.
    pub(super) fn begin(&self) -> Range<u64> {
        if self.budget == u64::MAX {
            // Nobody counts them, and threads do not meet here.
            return 0..u64::MAX;
        }
        let start = self.begun.fetch_add(self.stride, Ordering::Relaxed);
        start.min(self.budget)..(start + self.stride).min(self.budget)
    }

    /// Operations that may be begun in all.
    pub(super) const fn budget(&self) -> u64 {
        self.budget
    }

    /// A thread that numbers its operations itself has begun so many.
    pub(super) fn count(&self, operations: u64) {
        self.begun.fetch_add(operations, Ordering::Relaxed);
    }

    /// Operations that have not begun; `None` without a bound.
    pub(super) fn left(&self) -> Option<u64> {
        let begun = self.begun.load(Ordering::Relaxed).min(self.budget);
        (self.budget < u64::MAX).then(|| self.budget - begun)
    }

    /// Ends the load: one of its threads has failed, or a signal came.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Numbers of new records. What was inserted may be asked for once it and all before it were
/// acknowledged.
#[derive(Debug)]
pub(super) struct Inserts {
    next: AtomicU64,
    /// All below are acknowledged.
    acknowledged: AtomicU64,
    /// None of this number or a greater one is.
    end: AtomicU64,
    /// Acknowledged before one of a smaller number.
    early: Mutex<BTreeSet<u64>>,
}

impl Inserts {
    fn new(next: u64) -> Self {
        let at_next = || AtomicU64::new(next);
        Self { next: at_next(), acknowledged: at_next(), end: at_next(), early: Mutex::default() }
    }

    pub(super) fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The newest record that may be asked for.
    pub(super) fn last(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed).saturating_sub(1)
    }

    /// Behind the greatest number that was acknowledged; below it may be some that were not.
    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    /// One was acknowledged, or has failed: then it is asked for like the others, and not found.
    pub(super) fn acknowledge(&self, number: u64) {
        self.end.fetch_max(number + 1, Ordering::Relaxed);
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        early.insert(number);
        let mut next = self.acknowledged.load(Ordering::Relaxed);
        while early.remove(&next) {
            next += 1;
        }
        self.acknowledged.store(next, Ordering::Relaxed);
    }
}

/// What each record must hold: the version whose write was acknowledged last, or a later one that was
/// begun. One write of a record at a time, so that versions are acknowledged in their order; a write
/// whose outcome is unknown is the last of its record.
#[derive(Debug)]
pub(super) struct Ledger {
    first: u64,
    entries: Vec<Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    /// 0 = none since the load began.
    acknowledged: AtomicU64,
    /// Greater than `acknowledged` while a write is under way, and after one of unknown outcome.
    begun: AtomicU64,
}

impl Ledger {
    /// For `records` from `first` on, and those that will be inserted behind them.
    pub(super) fn new(first: u64, records: u64, expected_inserts: u64) -> Self {
        let count = records + expected_inserts.min(LEDGER_INSERTS_MAX);
        Self { first, entries: (0..count).map(|_| Entry::default()).collect() }
    }

    fn entry(&self, number: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// Begins a write of this version, unless one is under way or of unknown outcome.
    pub(super) fn begin(&self, number: u64, version: u64) -> bool {
        let Some(entry) = self.entry(number) else { return true };
        let acknowledged = entry.acknowledged.load(Ordering::Acquire);
        // Another thread may have written a later one since the version was chosen.
        if version <= acknowledged {
            return false;
        }
        entry.begun.compare_exchange(acknowledged, version, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    pub(super) fn acknowledge(&self, number: u64, version: u64) {
        if let Some(entry) = self.entry(number) {
            entry.acknowledged.store(version, Ordering::Release);
        }
    }

    /// A write was not applied.
    pub(super) fn give_up(&self, number: u64) {
        if let Some(entry) = self.entry(number) {
            entry.begun.store(entry.acknowledged.load(Ordering::Acquire), Ordering::Release);
        }
    }

    /// The least version that a read which begins now may find; 0 = any, or none.
    pub(super) fn floor(&self, number: u64) -> u64 {
        self.entry(number).map_or(0, |entry| entry.acknowledged.load(Ordering::Acquire))
    }

    /// The greatest version that a read which ends now may find, if this load has written the record.
    pub(super) fn ceiling(&self, number: u64) -> Option<u64> {
        let begun = self.entry(number)?.begun.load(Ordering::Acquire);
        (begun > 0).then_some(begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_kept_and_inserts_are_told_without_holes() {
        let shared = Shared::new(2, 1, 10, None);
        assert_eq!((shared.begin(), shared.left()), (0..1, Some(1)));
        assert_eq!((shared.begin(), shared.left()), (1..2, Some(0)));
        assert!(shared.begin().is_empty());
        let large = Shared::new(1_000_001, 4, 0, None);
        let taken: Vec<u64> = std::iter::repeat_with(|| large.begin())
            .take_while(|some| !some.is_empty())
            .map(|some| some.end - some.start)
            .collect();
        assert_eq!((taken[0], taken.iter().sum::<u64>(), large.left()), (64, 1_000_001, Some(0)));
        let endless = Shared::new(u64::MAX, 1, 0, None);
        assert_eq!((endless.begin(), endless.left()), (0..u64::MAX, None));
        let inserts = &shared.inserts;
        assert_eq!((inserts.last(), inserts.next(), inserts.next(), inserts.next()), (9, 10, 11, 12));
        inserts.acknowledge(12);
        inserts.acknowledge(11);
        assert_eq!((inserts.last(), inserts.end()), (9, 13));
        inserts.acknowledge(10);
        assert_eq!((inserts.last(), inserts.end()), (12, 13));
    }

    #[test]
    fn a_ledger_knows_what_a_read_may_find() {
        let ledger = Ledger::new(100, 10, 5);
        assert_eq!((ledger.floor(100), ledger.ceiling(100)), (0, None));
        assert!(ledger.begin(100, 7) && !ledger.begin(100, 8));
        assert_eq!((ledger.floor(100), ledger.ceiling(100)), (0, Some(7)));
        ledger.acknowledge(100, 7);
        assert!(ledger.begin(100, 9));
        ledger.give_up(100);
        assert_eq!((ledger.floor(100), ledger.ceiling(100)), (7, Some(7)));
        assert!(ledger.begin(100, 11));
        assert_eq!((ledger.floor(100), ledger.ceiling(100)), (7, Some(11)));
        assert!(ledger.begin(99, 1) && ledger.begin(1 << 40, 1), "what it does not know it does not judge");
        assert!(ledger.begin(114, 1) && !ledger.begin(114, 2));
    }
}
