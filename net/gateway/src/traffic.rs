//! What the gateway counts about itself.
//!
//! One mutex, taken for a moment per request: this is not the data path of the cores. Routes and
//! methods are the router's, so the table cannot grow with what peers send.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Upper bounds of the histogram of durations, in microseconds.
pub(crate) const BOUNDS_US: [u64; 12] =
    [250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000];

/// Counters of the gateway.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    routes: Mutex<BTreeMap<Line, Numbers>>,
    open: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    gave_way: AtomicU64,
}

/// What a row is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Line {
    /// As the router has it.
    pub(crate) route: &'static str,
    pub(crate) method: &'static str,
    pub(crate) status: u16,
}

/// The numbers of a row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Numbers {
    pub(crate) requests: u64,
    pub(crate) nanos: u64,
    /// Per bound, and beyond the last.
    pub(crate) buckets: [u64; BOUNDS_US.len() + 1],
}

/// Counts a connection as open for as long as it is held.
pub(crate) struct Open<'a>(&'a Traffic);

impl Traffic {
    pub(crate) fn opened(&self) -> Open<'_> {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(self)
    }

    pub(crate) fn refused_connection(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn gave_way(&self) {
        self.gave_way.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn answered(&self, line: Line, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS_US.len());
        let mut routes = self.lock();
        let numbers = routes.entry(line).or_default();
        numbers.requests += 1;
        numbers.nanos = numbers.nanos.saturating_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        numbers.buckets[bucket] += 1;
    }

    /// All rows, in a fixed order.
    pub(crate) fn rows(&self) -> Vec<(Line, Numbers)> {
        self.lock().iter().map(|(line, numbers)| (line.clone(), numbers.clone())).collect()
    }

    /// Requests, and those that ended with a status of 500 and more.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let routes = self.lock();
        let sum = |least: u16| {
            routes.iter().filter(|(line, _)| line.status >= least).map(|(_, numbers)| numbers.requests).sum()
        };
        (sum(0), sum(500))
    }

    /// Connections: open now; accepted, refused and made to give way since the start.
    pub(crate) fn connections(&self) -> [u64; 4] {
        [&self.open, &self.accepted, &self.refused, &self.gave_way]
            .map(|counter| counter.load(Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Line, Numbers>> {
        // Nothing panics while it holds the lock.
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Numbers {
    /// Adds those of another row.
    pub(crate) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.nanos = self.nanos.saturating_add(other.nanos);
        for (sum, count) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += count;
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_what_they_asked_and_got() {
        let traffic = Traffic::default();
        let line = |status| Line { route: "/kv/{key}", method: "GET", status };
        traffic.answered(line(200), Duration::from_micros(250));
        traffic.answered(line(200), Duration::from_secs(100));
        traffic.answered(line(404), Duration::from_micros(251));
        let rows = traffic.rows();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].1.requests, rows[0].1.buckets[0], rows[0].1.buckets[12]), (2, 1, 1));
        assert_eq!(rows[1].1.buckets[1], 1);
        let mut sum = rows[0].1.clone();
        sum.add(&rows[1].1);
        assert_eq!((sum.requests, sum.buckets[..2].to_vec()), (3, vec![1, 1]));
        assert_eq!(traffic.totals(), (3, 0));
        let open = traffic.opened();
        traffic.refused_connection();
        traffic.gave_way();
        assert_eq!(traffic.connections(), [1, 1, 1, 1]);
        drop(open);
        assert_eq!(traffic.connections(), [0, 1, 1, 1]);
    }
}
