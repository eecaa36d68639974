//! Lines for scripts that parse YCSB, and a table for a terminal.
//!
//! [`ycsb`] follows the text exporter of YCSB 0.17 with `hdrhistogram.percentiles=50,95,99,99.9`: one
//! `[WHAT], name, value` a line, latencies cut to whole microseconds, fractions as Java writes a
//! double, and a `Return=` line only for what was returned at least once. `Operations` and latencies
//! are of those that succeeded, as there. What YCSB has no line for begins with `# `, which its
//! parsers pass over.

use std::fmt::{self, Display};

use super::figures::{figure, grouped};
use super::{KindReport, RunReport};

/// YCSB's name of each percentile that it is asked for; only whole ones get an ordinal's ending.
const YCSB_PERCENTILES: [(f64, &str); 4] = [(50.0, "50th"), (95.0, "95th"), (99.0, "99th"), (99.9, "99.9")];

/// The lines of YCSB.
pub fn ycsb(report: &RunReport) -> String {
    Ycsb(report).to_string()
}

/// The plan, a table of kinds, and what to mind, in some 100 columns.
pub fn summary(report: &RunReport) -> String {
    Summary(report).to_string()
}

struct Ycsb<'r>(&'r RunReport);

impl Display for Ycsb<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        let warnings = report.warnings.iter().map(|warning| ("warning", warning));
        let ended = report.ended.iter().map(|why| ("ended early", why));
        for (what, text) in warnings.chain(ended) {
            writeln!(f, "# {what}: {}", text.replace('\n', "\n# "))?;
        }
        writeln!(f, "[OVERALL], RunTime(ms), {:.0}", report.seconds * 1e3)?;
        writeln!(f, "[OVERALL], Throughput(ops/sec), {}", JavaDouble(report.ops_per_second))?;
        for kind in &report.kinds {
            let KindReport { name, latency, .. } = kind;
            writeln!(f, "[{name}], Operations, {}", kind.ok)?;
            writeln!(f, "[{name}], AverageLatency(us), {}", JavaDouble(latency.mean_us))?;
            writeln!(f, "[{name}], MinLatency(us), {}", latency.min_us as u64)?;
            writeln!(f, "[{name}], MaxLatency(us), {}", latency.max_us as u64)?;
            for (percentile, ordinal) in YCSB_PERCENTILES {
                let us = latency.percentile_us(percentile) as u64;
                writeln!(f, "[{name}], {ordinal}PercentileLatency(us), {us}")?;
            }
            let returns = [("OK", kind.ok), ("NOT_FOUND", kind.not_found), ("ERROR", kind.failed)];
            for (status, count) in returns.into_iter().filter(|(_, count)| *count > 0) {
                writeln!(f, "[{name}], Return={status}, {count}")?;
            }
        }
        Ok(())
    }
}

/// A number as Java's `Double.toString` writes it: always a fraction, and an exponent where the number
/// is below a thousandth or from ten million on.
struct JavaDouble(f64);

impl Display for JavaDouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0;
        if number == 0.0 || (1e-3..1e7).contains(&number.abs()) {
            return write!(f, "{number:?}");
        }
        let text = format!("{number:E}");
        match text.split_once('E') {
            Some((whole, exponent)) if !whole.contains('.') => write!(f, "{whole}.0E{exponent}"),
            _ => f.write_str(&text),
        }
    }
}

struct Summary<'r>(&'r RunReport);

impl Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        writeln!(f, "workload {} ({}) on {}", report.workload, report.phase, report.target)?;
        writeln!(
            f,
            "{}; {:.1} s measured after {:.1} s of warm-up",
            report.plan(),
            report.seconds,
            report.warmup_seconds
        )?;
        let (operations, rate) = (grouped(report.operations as f64), grouped(report.ops_per_second));
        writeln!(f, "{operations} operations, {rate} ops/s")?;
        if !report.kinds.is_empty() {
            writeln!(
                f,
                "\n{:<18}{:>11}{:>9}{:>9}{:>9}{:>10}{:>11}{:>11}{:>9}{:>9}",
                "kind",
                "ops/s",
                "p50 us",
                "p90 us",
                "p99 us",
                "p99.9 us",
                "max us",
                "not found",
                "failed",
                "refused"
            )?;
        }
        for kind in &report.kinds {
            let at = |percentile| figure(kind.latency.percentile_us(percentile));
            writeln!(
                f,
                "{:<18}{:>11}{:>9}{:>9}{:>9}{:>10}{:>11}{:>11}{:>9}{:>9}",
                kind.name,
                figure(report.per_second(kind.ok)),
                at(50.0),
                at(90.0),
                at(99.0),
                at(99.9),
                figure(kind.latency.max_us),
                grouped(kind.not_found as f64),
                grouped(kind.failed as f64),
                grouped(kind.refused as f64)
            )?;
        }
        write!(f, "\ngenerator: {:.0} % of its cpus; target: ", report.generator_cpu_percent)?;
        match report.target_cpu_percent {
            Some(percent) => writeln!(f, "{percent:.0} % of one cpu")?,
            None => writeln!(f, "cpu not known")?,
        }
        for warning in &report.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        if let Some(why) = &report.ended {
            writeln!(f, "ended early: {why}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hdrhistogram::Histogram;

    use super::super::LatencyReport;
    use super::super::tests::report;
    use super::*;

    #[test]
    fn lines_are_those_of_ycsb() {
        let mut report = report();
        report.warnings = vec!["the generator was busy\nall the time".to_owned()];
        report.ended = Some("the target went away".to_owned());
        let expected = "\
# warning: the generator was busy
# all the time
# ended early: the target went away
[OVERALL], RunTime(ms), 4000
[OVERALL], Throughput(ops/sec), 500.0
[READ], Operations, 1000
[READ], AverageLatency(us), 500.5
[READ], MinLatency(us), 1
[READ], MaxLatency(us), 1000
[READ], 50thPercentileLatency(us), 500
[READ], 95thPercentileLatency(us), 950
[READ], 99thPercentileLatency(us), 990
[READ], 99.9PercentileLatency(us), 999
[READ], Return=OK, 1000
[READ], Return=NOT_FOUND, 3
[UPDATE], Operations, 1000
[UPDATE], AverageLatency(us), 1001.0
[UPDATE], MinLatency(us), 2
[UPDATE], MaxLatency(us), 2000
[UPDATE], 50thPercentileLatency(us), 1000
[UPDATE], 95thPercentileLatency(us), 1900
[UPDATE], 99thPercentileLatency(us), 1980
[UPDATE], 99.9PercentileLatency(us), 1998
[UPDATE], Return=OK, 1000
[UPDATE], Return=ERROR, 2
";
        assert_eq!(ycsb(&report), expected);
    }

    /// As scripts around YCSB read its lines: all before the first `[OVERALL]` is passed over, then come
    /// groups of lines with three fields, whose last is a whole number or, with a point, a fraction.
    fn read(text: &str) -> BTreeMap<String, BTreeMap<String, f64>> {
        let mut groups: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
        let mut last = String::new();
        for line in text.lines().skip_while(|line| !line.starts_with("[OVERALL]")) {
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            let [group, name, value] = fields[..] else { panic!("three fields: {line}") };
            let group = group.strip_prefix('[').and_then(|group| group.strip_suffix(']')).unwrap();
            assert!(group.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-'), "{line}");
            assert!(last == group || !groups.contains_key(group), "a group stands together: {line}");
            last = group.to_owned();
            let number: f64 = value.parse().unwrap();
            let is_whole = value.bytes().all(|byte| byte.is_ascii_digit());
            let is_latency = name.ends_with("Latency(us)") && name != "AverageLatency(us)";
            assert!(
                is_whole || (value.contains('.') && !is_latency && !name.starts_with("Return=")),
                "{line}"
            );
            let before = groups.entry(last.clone()).or_default().insert(name.to_owned(), number);
            assert_eq!(before, None, "{line}");
        }
        groups
    }

    #[test]
    fn lines_are_read_by_what_reads_those_of_ycsb() {
        let mut report = report();
        let groups = read(&ycsb(&report));
        assert_eq!(groups.keys().collect::<Vec<_>>(), ["OVERALL", "READ", "UPDATE"]);
        assert_eq!(
            (groups["OVERALL"]["RunTime(ms)"], groups["OVERALL"]["Throughput(ops/sec)"]),
            (4000.0, 500.0)
        );
        let update = &groups["UPDATE"];
        assert_eq!(
            (update["Operations"], update["Return=OK"], update["Return=ERROR"]),
            (1000.0, 1000.0, 2.0)
        );
        assert_eq!(
            (update["95thPercentileLatency(us)"], update["99.9PercentileLatency(us)"]),
            (1900.0, 1998.0)
        );
        // Of a run that ended before it had begun, with commas and brackets in the reason; and of a fast one.
        report.ended = Some("[READ], gone\n[OVERALL], too".to_owned());
        (report.seconds, report.operations, report.ops_per_second) = (0.0, 0, 0.0);
        report.kinds.truncate(1);
        let empty = Histogram::new_with_bounds(1, 1000, 3).unwrap();
        report.kinds[0] = KindReport {
            ok: 0,
            latency: LatencyReport::of(&empty, String::new()),
            ..report.kinds[0].clone()
        };
        report.kinds[0].name = "READ-MODIFY-WRITE".to_owned();
        assert_eq!(read(&ycsb(&report))["READ-MODIFY-WRITE"]["Operations"], 0.0);
        report.ops_per_second = 12_345_678.9;
        assert_eq!(read(&ycsb(&report))["OVERALL"]["Throughput(ops/sec)"], 12_345_678.9);
    }

    #[test]
    fn fractions_are_java_s() {
        let java = |number| JavaDouble(number).to_string();
        assert_eq!([0.0, 1.0, 0.001, 9_999_999.5].map(java), ["0.0", "1.0", "0.001", "9999999.5"]);
        assert_eq!([1e7, 12_345_678.9, 0.00025].map(java), ["1.0E7", "1.23456789E7", "2.5E-4"]);
    }

    #[test]
    fn a_summary_has_the_plan_the_kinds_and_the_doubts() {
        let mut report = report();
        let text = summary(&report);
        assert!(text.starts_with("workload a (run) on pinion://127.0.0.1:7600\n"), "{text}");
        assert!(text.contains("2 threads, 64 connections, depth 16, closed loop; 4.0 s"), "{text}");
        assert!(text.contains("2,000 operations, 500 ops/s"), "{text}");
        let read = text.lines().find(|line| line.starts_with("READ")).unwrap();
        let fields: Vec<&str> = read.split_whitespace().collect();
        assert_eq!(fields, ["READ", "250", "500", "900", "990", "999", "1,000", "3", "0", "0"]);
        report.rate_per_second = Some(1500.0);
        report.ended = Some("stopped by a signal".to_owned());
        report.kinds.clear();
        let text = summary(&report);
        assert!(text.contains("at 1,500 ops/s") && text.ends_with("ended early: stopped by a signal\n"));
    }
}
