//! What a run has found, in every form in which people read it.
//!
//! A [`RunReport`] is plain data, made by whoever ran the load and also when a run ended early (see
//! [`RunReport::ended`]). It is its own JSON; the other forms are made from it.
//!
//! | file | form |
//! |---|---|
//! | `text` | the lines of YCSB, as its users' scripts parse them |
//! | `csv` | one row for each second |
//! | `hdr` | an HdrHistogram log of intervals, for its plotters |
//! | `html` | one page that needs nothing else |
//! | `compare` | which differences between two sets of runs are real |
//!
//! `figures` writes numbers for those that people read.

pub mod compare;
pub mod csv;
pub(crate) mod figures;
pub mod hdr;
pub mod html;
pub mod text;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// One run of a workload against one target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// Version of this structure: 1.
    pub report_version: u32,
    /// Of the tool.
    pub tool_version: String,
    /// When the run began, in seconds since 1970 (UTC).
    pub started_unix_s: u64,
    /// `load` or `run`.
    pub phase: String,
    /// The workload's name, such as `a` or `small`.
    pub workload: String,
    /// Every property that described the workload, standard names first, sorted by name.
    pub properties: Vec<(String, String)>,
    /// The target as it was given.
    pub target: String,
    /// What the target says of itself (product, version, cores, shards): name and value.
    pub target_facts: Vec<(String, String)>,
    /// The machine: cpu model, cpus, memory, kernel.
    pub machine_facts: Vec<(String, String)>,
    /// Threads of the generator.
    pub threads: u32,
    /// Connections of all threads.
    pub connections: u32,
    /// Operations in flight on each connection at most.
    pub depth: u32,
    /// Operations per second that were asked for; `None` = as many as possible (closed loop).
    pub rate_per_second: Option<f64>,
    /// Seconds that were measured, the warm-up not included.
    pub seconds: f64,
    /// Seconds of the warm-up.
    pub warmup_seconds: f64,
    /// Successful operations in that time.
    pub operations: u64,
    /// Successful operations per second.
    pub ops_per_second: f64,
    /// How busy the generator was, in percent of the cpus it had threads on.
    pub generator_cpu_percent: f64,
    /// How busy the target's process was, in percent of one cpu; `None` when not known.
    pub target_cpu_percent: Option<f64>,
    /// What makes the numbers doubtful, in sentences: a busy generator, shared cpus, an early end.
    pub warnings: Vec<String>,
    /// Why it ended before its time; `None` when it did not. What was counted until then is valid.
    pub ended: Option<String>,
    /// By kind of operation, in the order READ, UPDATE, INSERT, SCAN, READ-MODIFY-WRITE, DELETE,
    /// VERIFY; only kinds that occurred.
    pub kinds: Vec<KindReport>,
    /// Second by second, from the beginning of the measurement.
    pub intervals: Vec<Interval>,
    /// Counters of the target before and after: name, before, after.
    pub target_counters: Vec<(String, u64, u64)>,
}

/// One kind of operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KindReport {
    /// YCSB's name: `READ`, `UPDATE`, `INSERT`, `SCAN`, `READ-MODIFY-WRITE`, `DELETE`.
    pub name: String,
    /// Those that succeeded.
    pub ok: u64,
    /// Those whose record was not there.
    pub not_found: u64,
    /// Those that failed.
    pub failed: u64,
    /// Times that the target refused one as overloaded; it was sent again.
    pub refused: u64,
    /// Of those that succeeded, in microseconds.
    pub latency: LatencyReport,
}

/// A distribution of latencies, in microseconds. In an open loop they count from the intended start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LatencyReport {
    /// The mean.
    pub mean_us: f64,
    /// The least.
    pub min_us: f64,
    /// The greatest.
    pub max_us: f64,
    /// Percentile (50, 90, 99, 99.9, ...) and latency: enough points to draw the curve, ascending.
    pub percentiles: Vec<(f64, f64)>,
    /// The histogram (nanoseconds) as HdrHistogram's compressed V2 base64, for merging and plotting.
    pub hdr_base64: String,
}

/// One second of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Its end, in seconds since the beginning of the measurement.
    pub end_s: f64,
    /// Successful operations per second in it.
    pub ops_per_second: f64,
    /// Failed operations in it.
    pub failed: u64,
    /// Latency percentiles of all kinds together, in microseconds.
    pub p50_us: f64,
    /// 99 of 100 are faster.
    pub p99_us: f64,
    /// 999 of 1000 are faster.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
}

impl RunReport {
    /// The version of the structure that this build writes and reads.
    pub const VERSION: u32 = 1;

    /// The load, in words.
    fn plan(&self) -> String {
        let Self { threads, connections, depth, .. } = self;
        let rate = match self.rate_per_second {
            Some(rate) => format!("at {} ops/s", figures::grouped(rate)),
            None => "closed loop".to_owned(),
        };
        // An engine in the process of the load has a directory for a target, and no connections.
        let connections = match self.target.contains("://") {
            true => format!("{connections} connections, "),
            false => String::new(),
        };
        format!("{threads} threads, {connections}depth {depth}, {rate}")
    }

    /// A count of the measured time by its length; 0 of a run that ended before it.
    fn per_second(&self, count: u64) -> f64 {
        if self.seconds > 0.0 { count as f64 / self.seconds } else { 0.0 }
    }
}

/// The percentiles of a curve: dense where tails are looked at.
pub(crate) const CURVE: [f64; 20] = [
    1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 80.0, 90.0, 95.0, 97.5, 98.0, 99.0, 99.5, 99.8, 99.9, 99.95, 99.98,
    99.99, 99.995, 99.999,
];

impl LatencyReport {
    /// Of a histogram of nanoseconds.
    pub fn of(histogram: &Histogram<u64>, hdr_base64: String) -> Self {
        let us = |ns: u64| ns as f64 / 1e3;
        // Divided as whole numbers: 99.9 / 100 is a little more than 0.999, and of 1000 latencies that
        // asks for the last and not the one before.
        let quantile = |percentile: f64| (percentile * 1e3).round() / 1e5;
        let at = |percentile: f64| (percentile, us(histogram.value_at_quantile(quantile(percentile))));
        let min = if histogram.is_empty() { 0 } else { histogram.min() };
        Self {
            mean_us: histogram.mean() / 1e3,
            min_us: us(min),
            max_us: us(histogram.max()),
            percentiles: CURVE.into_iter().map(at).collect(),
            hdr_base64,
        }
    }

    /// The latency of a percentile of the curve, in microseconds; 0 for one that is not on it.
    pub fn percentile_us(&self, percentile: f64) -> f64 {
        let same = |point: &&(f64, f64)| (point.0 - percentile).abs() < 1e-9;
        self.percentiles.iter().find(same).map_or(0.0, |point| point.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Latencies of 1 to 1000 times `us` microseconds, each once.
    pub(super) fn spread(us: u64) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 100_000_000_000, 3).unwrap();
        (1..=1000).for_each(|step| histogram.record(step * us * 1000).unwrap());
        histogram
    }

    /// Two kinds, four seconds, round numbers.
    pub(super) fn report() -> RunReport {
        let kind = |name: &str, us: u64, not_found, failed| {
            let histogram = spread(us);
            let latency = LatencyReport::of(&histogram, hdr::encode(&histogram));
            KindReport {
                name: name.to_owned(),
                ok: 1000,
                not_found,
                failed,
                refused: 0,
                // Exactly, where a histogram has it to three digits.
                latency: LatencyReport { mean_us: 500.5 * us as f64, ..latency },
            }
        };
        let interval = |second: u32| Interval {
            end_s: second.into(),
            ops_per_second: f64::from(second * 100 + 300),
            failed: (second == 3).into(),
            p50_us: 600.0,
            p99_us: 1800.0,
            p999_us: 1990.0,
            max_us: 2000.0,
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        RunReport {
            report_version: RunReport::VERSION,
            tool_version: "0.1.0".to_owned(),
            started_unix_s: 1_767_225_599,
            phase: "run".to_owned(),
            workload: "a".to_owned(),
            properties: vec![pair("readproportion", "0.5"), pair("recordcount", "1000")],
            target: "pinion://127.0.0.1:7600".to_owned(),
            target_facts: vec![pair("product", "pinion 0.1.0"), pair("shards", "2")],
            machine_facts: vec![pair("cpu", "a cpu"), pair("cpus", "2")],
            threads: 2,
            connections: 64,
            depth: 16,
            rate_per_second: None,
            seconds: 4.0,
            warmup_seconds: 1.0,
            operations: 2000,
            ops_per_second: 500.0,
            generator_cpu_percent: 45.0,
            target_cpu_percent: Some(180.0),
            warnings: Vec::new(),
            ended: None,
            kinds: vec![kind("READ", 1, 3, 0), kind("UPDATE", 2, 0, 2)],
            intervals: (1..=4).map(interval).collect(),
            target_counters: vec![
                ("gets".to_owned(), 1000, 3500),
                ("unchanged".to_owned(), 7, 7),
                ("memory_bytes".to_owned(), 10, 7),
            ],
        }
    }

    #[test]
    fn a_report_is_its_own_json() {
        let json = serde_json::to_string(&report()).unwrap();
        assert_eq!(serde_json::from_str::<RunReport>(&json).unwrap(), report());
    }
}
