//! What the rounds of a comparison come to: medians, spread, ratio; as a table and as JSON.

use std::fmt;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::load::{FrameSizes, Report, Work};
use crate::report::figures::grouped;

/// A whole comparison.
#[derive(Debug, Serialize)]
pub(super) struct Comparison<P: Serialize> {
    pub(super) version: &'static str,
    pub(super) machine: Machine,
    pub(super) plan: P,
    pub(super) cells: Vec<Cell>,
}

/// Where it was measured: numbers of two machines are not to be compared.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    kernel: String,
    cpu: String,
    cpus: usize,
    memory_bytes: u64,
}

/// One kind of work at one depth, against its roof.
#[derive(Debug, Serialize)]
pub(super) struct Cell {
    pub(super) work: Work,
    pub(super) connections: usize,
    pub(super) depth: usize,
    pub(super) frames: FrameSizes,
    pub(super) roof: Side,
    pub(super) pinion: Side,
    /// Median of Pinion's rounds by median of the roof's.
    pub(super) ratio: f64,
    /// The same of operations per second of the server's own cpu time: steadier on a machine that
    /// others use too, but blind to waiting. `None` when cpu times are not known.
    ratio_per_cpu: Option<f64>,
    /// The lowest and highest ratio of two neighbouring rounds: how far the machine can be trusted.
    ratio_min: f64,
    ratio_max: f64,
}

/// One server's rounds.
#[derive(Debug, Serialize)]
pub(super) struct Side {
    pub(super) server: &'static str,
    ops_per_second: Spread,
    p50_us: Spread,
    p99_us: Spread,
    p999_us: Spread,
    ops_per_cpu_second: Option<Spread>,
    server_cpu_percent: Option<Spread>,
    generator_cpu_percent: Spread,
    pub(super) rounds: Vec<Report>,
}

/// Of some numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let (below, above) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { median: (below + above) / 2.0, min, max })
    }
}

impl Side {
    fn new(server: &'static str, rounds: Vec<Report>) -> Self {
        let spread = |number: fn(&Report) -> f64| {
            Spread::of(rounds.iter().map(number)).expect("a comparison has at least one round")
        };
        Self {
            server,
            ops_per_second: spread(|report| report.ops_per_second),
            p50_us: spread(|report| report.latency.p50_us),
            p99_us: spread(|report| report.latency.p99_us),
            p999_us: spread(|report| report.latency.p999_us),
            ops_per_cpu_second: Spread::of(rounds.iter().filter_map(|report| {
                let percent = report.server_cpu_percent.filter(|percent| *percent > 0.0)?;
                Some(100.0 * report.ops_per_second / percent)
            })),
            server_cpu_percent: Spread::of(rounds.iter().filter_map(|report| report.server_cpu_percent)),
            generator_cpu_percent: spread(|report| report.generator_cpu_percent),
            rounds,
        }
    }
}

impl Cell {
    /// Rounds of both, in the order in which they ran; at least one each.
    pub(super) fn new(roof: (&'static str, Vec<Report>), pinion: Vec<Report>) -> Self {
        let (roof, pinion) = (Side::new(roof.0, roof.1), Side::new("pinion", pinion));
        let pairs = pinion.rounds.iter().zip(&roof.rounds);
        let by_round = Spread::of(pairs.map(|(pinion, roof)| pinion.ops_per_second / roof.ops_per_second))
            .expect("a comparison has at least one round");
        let per_cpu = pinion.ops_per_cpu_second.zip(roof.ops_per_cpu_second);
        let first = &pinion.rounds[0];
        Self {
            work: first.work,
            connections: first.connections,
            depth: first.depth,
            frames: first.frames,
            ratio: pinion.ops_per_second.median / roof.ops_per_second.median,
            ratio_per_cpu: per_cpu.map(|(pinion, roof)| pinion.median / roof.median),
            ratio_min: by_round.min,
            ratio_max: by_round.max,
            roof,
            pinion,
        }
    }

    /// Answers of Pinion that were not right, and the first of them.
    pub(super) fn flaws(&self) -> (u64, Option<&str>) {
        let flaws = self.pinion.rounds.iter().map(|report| &report.flaws);
        let first = flaws.clone().find_map(|flaws| flaws.first.as_deref());
        (flaws.map(crate::load::Flaws::total).sum(), first)
    }
}

impl<P: Serialize> Comparison<P> {
    /// # Errors
    /// [`Error::File`].
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).expect("numbers and text only");
        text.push('\n');
        fs::write(path, text).map_err(Error::file(path))
    }
}

impl<P: Serialize> fmt::Display for Comparison<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}; the server on one cpu, the generator on another", self.machine)?;
        writeln!(
            f,
            "{:<12} {:<10} {:>11} {:>11} {:>11} {:>9} {:>9} {:>9} {:>7} {:>7}",
            "work", "server", "ops/s", "min", "max", "p50 us", "p99 us", "p99.9 us", "cpu %", "gen %"
        )?;
        for cell in &self.cells {
            let mut work = format!("{:?} {}x{}", cell.work, cell.connections, cell.depth);
            for side in [&cell.roof, &cell.pinion] {
                let ops = side.ops_per_second;
                let server_cpu = side
                    .server_cpu_percent
                    .map_or_else(|| "-".to_owned(), |percent| format!("{:.0}", percent.median));
                writeln!(
                    f,
                    "{:<12} {:<10} {:>11} {:>11} {:>11} {:>9.0} {:>9.0} {:>9.0} {:>7} {:>7.0}",
                    std::mem::take(&mut work),
                    side.server,
                    grouped(ops.median),
                    grouped(ops.min),
                    grouped(ops.max),
                    side.p50_us.median,
                    side.p99_us.median,
                    side.p999_us.median,
                    server_cpu,
                    side.generator_cpu_percent.median
                )?;
            }
            let (flaws, first) = cell.flaws();
            write!(
                f,
                "{:<12} {:<10} {:>11.2} {:>11.2} {:>11.2}   frames of {} and {} bytes",
                "",
                "ratio",
                cell.ratio,
                cell.ratio_min,
                cell.ratio_max,
                cell.frames.request_bytes,
                cell.frames.response_bytes
            )?;
            if let Some(ratio) = cell.ratio_per_cpu {
                write!(f, "; {ratio:.2} per second of cpu")?;
            }
            let refused = cell.pinion.rounds.iter().map(|report| report.refused).sum::<u64>();
            if refused > 0 {
                write!(f, "; {refused} refused as overloaded and sent again")?;
            }
            if flaws > 0 {
                write!(f, "; {flaws} answers were not right: {}", first.unwrap_or_default())?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Machine {
    /// Names and values.
    pub(crate) fn facts(&self) -> Vec<(String, String)> {
        let facts = [
            ("cpu", self.cpu.clone()),
            ("cpus", self.cpus.to_string()),
            ("memory", format!("{} MiB", self.memory_bytes >> 20)),
            ("kernel", self.kernel.clone()),
        ];
        facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    pub(crate) fn this() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let (cpus, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let kibibytes = field(&memory, "MemTotal").and_then(|text| text.split(' ').next()?.parse().ok());
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: field(&cpus, "model name").unwrap_or("unknown cpu").to_owned(),
            cpus: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            memory_bytes: 1024 * kibibytes.unwrap_or(0u64),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, cpu, cpus, .. } = self;
        write!(f, "{cpu}, {cpus} cpus, Linux {kernel}")
    }
}

/// The value in the first `name : value` line.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Flaws, Latency};

    fn report(ops_per_second: f64) -> Report {
        Report {
            work: Work::Get,
            connections: 64,
            depth: 16,
            seconds: 1.0,
            operations: ops_per_second as u64,
            ops_per_second,
            latency: Latency { p50_us: 1.0, p99_us: 2.0, p999_us: 3.0, max_us: 4.0, mean_us: 1.0 },
            flaws: Flaws::default(),
            refused: 0,
            refused_preparing: 0,
            generator_cpu_percent: 99.0,
            server_cpu_percent: None,
            frames: FrameSizes { request_bytes: 72, response_bytes: 584 },
        }
    }

    #[test]
    fn ratios_are_of_medians_with_the_spread_of_rounds() {
        let roof = [100.0, 200.0, 1_000_000.0].map(report).to_vec();
        let pinion = [90.0, 150.0, 160.0].map(report).to_vec();
        let cell = Cell::new(("bare echo", roof), pinion);
        assert_eq!((cell.ratio, cell.ratio_min, cell.ratio_max), (0.75, 0.00016, 0.9));
        let plan = "none";
        let comparison = Comparison { version: "0", machine: Machine::this(), plan, cells: vec![cell] };
        let table = comparison.to_string();
        assert!(table.contains("Get 64x16") && table.contains("1,000,000"), "{table}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("result.json");
        comparison.save(&path).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        assert_eq!(json["cells"][0]["roof"]["ops_per_second"]["median"], 200.0);
    }

    #[test]
    fn the_median_of_an_even_count_is_between() {
        assert_eq!(Spread::of([4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of([]), None);
    }
}
