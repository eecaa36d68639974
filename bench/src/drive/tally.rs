//! What one thread of a load has counted, and what all have.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::load::latency_histogram;
use crate::report::{Interval, KindReport, LatencyReport, hdr};
use crate::workload::Kind;

/// Counts of one kind of operation.
#[derive(Debug, Default)]
struct OfKind {
    latency_ns: Option<Histogram<u64>>,
    not_found: u64,
    failed: u64,
    refused: u64,
}

/// Counts of a thread; added to those of others at the end.
#[derive(Debug, Default)]
pub(super) struct Tally {
    kinds: [OfKind; Kind::ALL.len()],
    /// What was wrong first.
    pub(super) first_failure: Option<String>,
    /// Processor time of the threads.
    pub(super) cpu: Duration,
}

/// Counts of a thread in one second.
#[derive(Debug)]
pub(super) struct Second {
    /// Which, from the beginning of the measurement.
    pub(super) index: u64,
    pub(super) latency_ns: Histogram<u64>,
    pub(super) failed: u64,
}

impl Second {
    pub(super) fn new(index: u64) -> Self {
        Self { index, latency_ns: latency_histogram(), failed: 0 }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.latency_ns.add(&other.latency_ns).expect("all have the same bounds");
        self.failed += other.failed;
    }

    /// `seconds` is how long it was: the last is short.
    pub(super) fn report(&self, seconds: f64) -> Interval {
        let us = |quantile| self.latency_ns.value_at_quantile(quantile) as f64 / 1e3;
        Interval {
            end_s: self.index as f64 + seconds,
            ops_per_second: self.latency_ns.len() as f64 / seconds.max(1e-9),
            failed: self.failed,
            p50_us: us(0.5),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: self.latency_ns.max() as f64 / 1e3,
        }
    }
}

impl Tally {
    fn of(&mut self, kind: Kind) -> &mut OfKind {
        &mut self.kinds[kind as usize]
    }

    pub(super) fn ok(&mut self, kind: Kind, latency_ns: u64) {
        self.of(kind).latency_ns.get_or_insert_with(latency_histogram).saturating_record(latency_ns);
    }

    pub(super) fn not_found(&mut self, kind: Kind) {
        self.of(kind).not_found += 1;
    }

    pub(super) fn failed(&mut self, kind: Kind, message: impl FnOnce() -> String) {
        self.of(kind).failed += 1;
        if self.first_failure.is_none() {
            self.first_failure = Some(format!("{}: {}", kind.name(), message()));
        }
    }

    pub(super) fn refused(&mut self, kind: Kind) {
        self.of(kind).refused += 1;
    }

    /// Forgets what came while warming up, but not what failed.
    pub(super) fn restart(&mut self) {
        for of in &mut self.kinds {
            *of = OfKind { failed: of.failed, ..OfKind::default() };
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        for (ours, theirs) in self.kinds.iter_mut().zip(other.kinds) {
            match (&mut ours.latency_ns, theirs.latency_ns) {
                (Some(ours), Some(theirs)) => ours.add(&theirs).expect("all have the same bounds"),
                (ours @ None, theirs) => *ours = theirs,
                (Some(_), None) => {}
            }
            ours.not_found += theirs.not_found;
            ours.failed += theirs.failed;
            ours.refused += theirs.refused;
        }
        if self.first_failure.is_none() {
            self.first_failure = other.first_failure;
        }
        self.cpu += other.cpu;
    }

    /// Operations that ended well, whether their record was there or not. What is timed in its parts too
    /// counts once.
    pub(super) fn operations(&self) -> u64 {
        let of = |kind: Kind| {
            let of = &self.kinds[kind as usize];
            of.latency_ns.as_ref().map_or(0, Histogram::len) + of.not_found
        };
        let all: u64 = Kind::ALL.into_iter().map(of).sum();
        // Each has a READ and an UPDATE beside.
        all - 2 * self.kinds[Kind::ReadModifyWrite as usize].latency_ns.as_ref().map_or(0, Histogram::len)
    }

    /// Operations that failed.
    pub(super) fn failures(&self) -> u64 {
        self.kinds.iter().map(|of| of.failed).sum()
    }

    pub(super) fn report(&self) -> Vec<KindReport> {
        let occurred = |of: &&(Kind, &OfKind)| {
            of.1.latency_ns.is_some() || of.1.not_found + of.1.failed + of.1.refused > 0
        };
        let report = |(kind, of): (Kind, &OfKind)| {
            let empty;
            let latency_ns = match &of.latency_ns {
                Some(latency_ns) => latency_ns,
                None => {
                    empty = latency_histogram();
                    &empty
                }
            };
            KindReport {
                name: kind.name().to_owned(),
                ok: latency_ns.len(),
                not_found: of.not_found,
                failed: of.failed,
                refused: of.refused,
                latency: LatencyReport::of(latency_ns, hdr::encode(latency_ns)),
            }
        };
        Kind::ALL.into_iter().zip(&self.kinds).filter(|of| occurred(&of)).map(report).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_threads_are_added() {
        let mut one = Tally::default();
        one.ok(Kind::Read, 1_000);
        one.restart();
        one.ok(Kind::Read, 2_000_000);
        one.not_found(Kind::Read);
        let mut other = Tally::default();
        other.ok(Kind::Read, 4_000_000);
        for kind in [Kind::Read, Kind::Update, Kind::ReadModifyWrite] {
            other.ok(kind, 1_000_000);
        }
        other.failed(Kind::Insert, || "no".to_owned());
        other.refused(Kind::Insert);
        one.add(other);
        assert_eq!(
            (one.operations(), one.failures(), one.first_failure.as_deref()),
            (4, 1, Some("INSERT: no"))
        );
        let report = one.report();
        let names: Vec<&str> = report.iter().map(|kind| kind.name.as_str()).collect();
        assert_eq!(names, ["READ", "UPDATE", "INSERT", "READ-MODIFY-WRITE"]);
        assert_eq!((report[0].ok, report[0].not_found, report[2].failed, report[2].refused), (3, 1, 1, 1));
        assert!((report[0].latency.max_us - 4_000.0).abs() < 10.0);
    }
}
