//! The numbers of a machine, as JSON and as a table.

use std::fmt;

use serde::Serialize;

use super::{Copies, Disk, LimitsPlan};
use crate::load;
use crate::ratio::roof_name;
use crate::ratio::summary::Machine;
use crate::report::figures::grouped;

/// What this machine can do.
#[derive(Debug, Serialize)]
pub struct Report {
    pub(super) version: &'static str,
    pub(super) machine: Machine,
    /// What was asked for.
    pub plan: LimitsPlan,
    /// The bare servers: GET is the echo, PUT the log.
    pub servers: Vec<load::Report>,
    /// Synced writes to a log, by size.
    pub log: Vec<Disk>,
    /// Random reads, by depth.
    pub reads: Vec<Disk>,
    /// Copies in memory.
    pub copies: Vec<Copies>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LimitsPlan { server_cpu, generator_cpu, file_bytes, .. } = self.plan;
        writeln!(f, "{}; load on cpu {generator_cpu}, all else on cpu {server_cpu}", self.machine)?;
        writeln!(
            f,
            "{:<30} {:>12} {:>11} {:>9} {:>9}  of",
            "roof", "per second", "MB/s", "p50 us", "p99 us"
        )?;
        for report in &self.servers {
            let load::Report { work, connections, depth, frames, .. } = report;
            let name = format!("{} {connections}x{depth}", roof_name(*work));
            let bytes = frames.request_bytes + frames.response_bytes;
            let mb = report.ops_per_second * bytes as f64 / 1e6;
            let of = format!("frames of {} + {} B", frames.request_bytes, frames.response_bytes);
            row(f, &name, report.ops_per_second, mb, Some(&report.latency), &of)?;
            let flaws = report.flaws.total();
            if flaws > 0 {
                writeln!(f, "  {flaws} answers were not right")?;
            }
        }
        for disk in &self.log {
            let name = format!("synced write {}", size(disk.bytes as u64));
            row(f, &name, disk.ops_per_second, disk.mb_per_second, Some(&disk.latency), "one at a time")?;
        }
        for disk in &self.reads {
            let name = format!("random read {}, depth {}", size(disk.bytes as u64), disk.depth);
            let of = size(file_bytes);
            row(f, &name, disk.ops_per_second, disk.mb_per_second, Some(&disk.latency), &of)?;
        }
        for copies in &self.copies {
            let order = if copies.random { "random" } else { "in sequence" };
            let name = format!("copy {}, {order}", size(copies.bytes as u64));
            let of = size(copies.set_bytes as u64);
            row(f, &name, copies.copies_per_second, copies.gb_per_second * 1e3, None, &of)?;
        }
        Ok(())
    }
}

fn row(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    rate: f64,
    mb: f64,
    latency: Option<&load::Latency>,
    of: &str,
) -> fmt::Result {
    let us = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), |us| format!("{us:.0}"));
    let p50 = us(latency.map(|latency| latency.p50_us));
    let p99 = us(latency.map(|latency| latency.p99_us));
    writeln!(f, "{name:<30} {:>12} {:>11} {p50:>9} {p99:>9}  {of}", grouped(rate), grouped(mb))
}

/// In the largest unit that leaves a whole number.
fn size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let whole = units.iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{bytes} B"), |(unit, name)| format!("{} {name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::load::{Flaws, FrameSizes, Latency, Work};
    use crate::roof::limits::tests::plan;

    #[test]
    fn every_number_has_its_row() {
        let latency = Latency { p50_us: 10.0, p99_us: 20.0, p999_us: 30.0, max_us: 40.0, mean_us: 10.0 };
        let disk = |bytes, depth| Disk {
            bytes,
            depth,
            seconds: 1.0,
            operations: 7000,
            ops_per_second: 7000.0,
            mb_per_second: 28.672,
            latency: latency.clone(),
        };
        let report = Report {
            version: "0",
            machine: Machine::this(),
            plan: plan(Path::new("unused")),
            servers: vec![load::Report {
                work: Work::Put,
                connections: 64,
                depth: 16,
                seconds: 1.0,
                operations: 1_234_567,
                ops_per_second: 1_234_567.0,
                latency: latency.clone(),
                flaws: Flaws { wrong: 3, ..Flaws::default() },
                refused: 0,
                refused_preparing: 0,
                generator_cpu_percent: 99.0,
                server_cpu_percent: None,
                frames: FrameSizes { request_bytes: 600, response_bytes: 40 },
            }],
            log: vec![disk(4096, 1)],
            reads: vec![disk(4096, 32)],
            copies: vec![Copies {
                bytes: 512,
                random: true,
                set_bytes: 64 << 20,
                seconds: 1.0,
                copies_per_second: 1e7,
                gb_per_second: 5.12,
            }],
        };
        let table = report.to_string();
        for part in [
            "bare log 64x16                    1,234,567         790        10        20  frames of 600 + 40 B",
            "3 answers were not right",
            "synced write 4 KiB                    7,000          29        10        20  one at a time",
            "random read 4 KiB, depth 32           7,000          29        10        20  1 MiB",
            "copy 512 B, random               10,000,000       5,120         -         -  64 MiB",
        ] {
            assert!(table.contains(part), "{part}\n{table}");
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["reads"][0]["depth"], 32);
        assert!(json["machine"]["cpus"].as_u64().unwrap() > 0);
    }

    #[test]
    fn sizes_have_the_largest_whole_unit() {
        assert_eq!([512, 4096, 1 << 20, 3 << 30].map(size), ["512 B", "4 KiB", "1 MiB", "3 GiB"]);
    }
}
