//! What a load has counted, and the report of it.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::script::{FrameSizes, Work};

/// The longest latency that is told apart, in nanoseconds: 100 s.
const LATENCY_NS_MAX: u64 = 100_000_000_000;
/// Digits of a latency that are kept.
const LATENCY_DIGITS: u8 = 3;

/// What may be wrong with an answer that follows the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// An error came.
    Failed,
    /// The record should be there.
    Missing,
    /// The value is not the record's.
    Wrong,
}

/// Counts of a load. Flaws are counted from the first request on, the rest since the last
/// [`Tally::restart`].
#[derive(Debug)]
pub(crate) struct Tally {
    latency_ns: Histogram<u64>,
    flaws: Flaws,
    refused: u64,
    response_bytes: u32,
}

/// Answers that were not what was asked for.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Flaws {
    /// Errors from the server.
    pub failed: u64,
    /// Records that should be there.
    pub missing: u64,
    /// Values that are not the record's.
    pub wrong: u64,
    /// The first of all.
    pub first: Option<String>,
}

impl Flaws {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.failed + self.missing + self.wrong
    }
}

/// Latencies, in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    /// Half are faster.
    pub p50_us: f64,
    /// 99 of 100 are faster.
    pub p99_us: f64,
    /// 999 of 1000 are faster.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
    /// The mean.
    pub mean_us: f64,
}

impl Latency {
    /// Of nanoseconds.
    pub(crate) fn of(latency_ns: &Histogram<u64>) -> Self {
        let at = |quantile| latency_ns.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: latency_ns.max() as f64 / 1e3,
            mean_us: latency_ns.mean() / 1e3,
        }
    }
}

/// An empty histogram of nanoseconds, up to [`LATENCY_NS_MAX`].
pub(crate) fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS).expect("the bounds are in order")
}

/// What a load has found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was asked.
    pub work: Work,
    /// Connections.
    pub connections: usize,
    /// Requests in flight on each.
    pub depth: usize,
    /// How long it was measured.
    pub seconds: f64,
    /// Right answers in that time.
    pub operations: u64,
    /// Right answers per second.
    pub ops_per_second: f64,
    /// From making a request to reading its answer, the generator's own queue included.
    pub latency: Latency,
    /// Answers that were not right, warming up included.
    pub flaws: Flaws,
    /// Times that the server refused a request as overloaded while it was measured. Each was sent
    /// again after a rest, and its latency counts from the first time.
    pub refused: u64,
    /// The same while the records were written and read once.
    pub refused_preparing: u64,
    /// How busy the generator's thread was, in percent of a cpu: near 100 it is the generator that
    /// was measured.
    pub generator_cpu_percent: f64,
    /// How busy the server's process was, in percent of a cpu; `None` when it is not known.
    pub server_cpu_percent: Option<f64>,
    /// On the wire.
    pub frames: FrameSizes,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Latency { p50_us, p99_us, p999_us, max_us, .. } = self.latency;
        writeln!(
            f,
            "{:?}, {} connections x {}, {:.1} s: {:.0} ops/s",
            self.work, self.connections, self.depth, self.seconds, self.ops_per_second
        )?;
        writeln!(
            f,
            "latency: p50 {p50_us:.0} us, p99 {p99_us:.0} us, p99.9 {p999_us:.0} us, max {max_us:.0} us"
        )?;
        let FrameSizes { request_bytes, response_bytes } = self.frames;
        write!(f, "frames: {request_bytes} and {response_bytes} bytes; ")?;
        write!(f, "generator: {:.0} % of a cpu", self.generator_cpu_percent)?;
        if let Some(percent) = self.server_cpu_percent {
            write!(f, "; server: {percent:.0} %")?;
        }
        if self.refused + self.refused_preparing > 0 {
            let Self { refused, refused_preparing, .. } = self;
            write!(f, "\noverloaded: {refused} refused and sent again, {refused_preparing} while preparing")?;
        }
        let Flaws { failed, missing, wrong, first } = &self.flaws;
        if let Some(first) = first {
            write!(f, "\nnot right: {failed} failed, {missing} missing, {wrong} wrong; first: {first}")?;
        }
        Ok(())
    }
}

/// The time that was measured, and the cpu time that it took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) wall: Duration,
    pub(crate) generator_cpu: Duration,
    pub(crate) server_cpu: Option<Duration>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self { latency_ns: latency_histogram(), flaws: Flaws::default(), refused: 0, response_bytes: 0 }
    }

    pub(crate) fn right(&mut self, latency_ns: u64, response_bytes: u32) {
        self.latency_ns.saturating_record(latency_ns);
        self.response_bytes = response_bytes;
    }

    /// A request that was not applied, and will be sent again.
    pub(crate) const fn refused(&mut self) {
        self.refused += 1;
    }

    pub(crate) fn flawed(&mut self, flaw: Flaw, text: String) {
        match flaw {
            Flaw::Failed => self.flaws.failed += 1,
            Flaw::Missing => self.flaws.missing += 1,
            Flaw::Wrong => self.flaws.wrong += 1,
        }
        self.flaws.first.get_or_insert(text);
    }

    pub(crate) const fn flaws(&self) -> &Flaws {
        &self.flaws
    }

    /// Right answers.
    #[cfg(test)]
    pub(crate) fn answered(&self) -> u64 {
        self.latency_ns.len()
    }

    pub(crate) const fn refusals(&self) -> u64 {
        self.refused
    }

    /// Forgets what came while warming up, but not what was wrong with it.
    pub(crate) fn restart(&mut self) {
        self.latency_ns.reset();
        self.refused = 0;
    }

    /// `request_bytes` is what was sent; the answers tell their own size. Of preparing nothing is known
    /// here.
    pub(crate) fn report(
        &self,
        work: Work,
        (connections, depth): (usize, usize),
        request_bytes: usize,
        span: Span,
    ) -> Report {
        let seconds = span.wall.as_secs_f64();
        let percent = |time: Duration| 100.0 * time.as_secs_f64() / seconds;
        Report {
            work,
            connections,
            depth,
            seconds,
            operations: self.latency_ns.len(),
            ops_per_second: self.latency_ns.len() as f64 / seconds,
            latency: Latency::of(&self.latency_ns),
            flaws: self.flaws.clone(),
            refused: self.refused,
            refused_preparing: 0,
            generator_cpu_percent: percent(span.generator_cpu),
            server_cpu_percent: span.server_cpu.map(percent),
            frames: FrameSizes { request_bytes, response_bytes: self.response_bytes as usize },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_what_came_after_warming_up_and_every_flaw() {
        let mut tally = Tally::new();
        tally.right(5_000_000, 1);
        tally.flawed(Flaw::Missing, "first".to_owned());
        tally.refused();
        tally.restart();
        tally.refused();
        tally.refused();
        (1..=1000).for_each(|us| tally.right(us * 1000, 584));
        tally.flawed(Flaw::Failed, "second".to_owned());
        let wall = Duration::from_millis(500);
        let span = Span { wall, generator_cpu: wall / 2, server_cpu: None };
        let report = tally.report(Work::Get, (64, 16), 72, span);
        assert_eq!((report.operations, report.ops_per_second), (1000, 2000.0));
        assert!((report.latency.p99_us - 990.0).abs() < 2.0 && report.latency.max_us < 1002.0);
        assert_eq!((report.flaws.total(), report.flaws.first.as_deref()), (2, Some("first")));
        assert_eq!((report.generator_cpu_percent, report.server_cpu_percent), (50.0, None));
        assert_eq!((report.refused, report.refused_preparing), (2, 0));
        assert!(report.to_string().contains("overloaded: 2 refused and sent again, 0 while preparing"));
        assert_eq!(report.frames, FrameSizes { request_bytes: 72, response_bytes: 584 });
    }
}
