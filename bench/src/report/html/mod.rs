//! A run as one page that needs nothing else: no script, font or image from anywhere.
//!
//! It opens with the headline and with what makes it doubtful, then tables and charts, then everything
//! needed to repeat the run. What came from outside, names of targets and properties above all, passes
//! through [`Text`], which leaves no markup in it.
//!
//! | file | what |
//! |---|---|
//! | `scale` | axes: positions and ticks |
//! | `chart` | lines over axes, as SVG |
//! | `page.css` | light, dark, phone and paper |

mod chart;
mod scale;

use std::fmt::{self, Display, Write as _};

use self::chart::{Axis, Chart, Line, PLANNED};
use self::scale::{Scale, nines_of};
use super::figures::{figure, grouped, latency, short, utc};
use super::{Interval, KindReport, RunReport};

/// Percentiles of the table.
const TABLE: [(f64, &str); 6] =
    [(50.0, "p50"), (90.0, "p90"), (95.0, "p95"), (99.0, "p99"), (99.9, "p99.9"), (99.99, "p99.99")];
/// The end of the curve of percentiles: 99.999.
const CURVE_NINES: f64 = 5.0;
/// Steps of the throughput's axis.
const RATE_STEPS: usize = 5;

/// The page.
pub fn page(report: &RunReport) -> String {
    Page(report).to_string()
}

/// Text from outside as markup has it.
struct Text<'t>(&'t str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\n' | '\t' => f.write_char(character)?,
                // A page may not hold them, however they are written.
                _ if character.is_control() => f.write_char(char::REPLACEMENT_CHARACTER)?,
                _ => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

struct Page<'r>(&'r RunReport);

impl Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        writeln!(f, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">")?;
        writeln!(f, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")?;
        let rate = grouped(report.ops_per_second);
        let (workload, target) = (Text(&report.workload), Text(&report.target));
        writeln!(f, "<title>Workload {workload} on {target}: {rate} ops/s</title>")?;
        writeln!(f, "<style>\n{}</style>\n</head>\n<body>", include_str!("page.css"))?;
        self.headline(f)?;
        self.kinds(f)?;
        self.curve(f)?;
        self.time(f)?;
        self.counters(f)?;
        facts(f, "Workload", &report.properties)?;
        facts(f, "Target", &report.target_facts)?;
        facts(f, "Machine of the generator", &report.machine_facts)?;
        let (tool, started) = (Text(&report.tool_version), utc(report.started_unix_s));
        writeln!(f, "<footer><p>Run began {started}; pinion bench {tool}.</p></footer>\n</body>\n</html>")
    }
}

impl Page<'_> {
    fn headline(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        let (workload, target, phase) = (Text(&report.workload), Text(&report.target), Text(&report.phase));
        writeln!(f, "<header>\n<h1>Workload {workload} on {target}</h1>")?;
        writeln!(
            f,
            "<p class=\"faint\">{phase}; {}; {:.1} s measured after {:.1} s of warm-up</p>",
            report.plan(),
            report.seconds,
            report.warmup_seconds
        )?;
        f.write_str("<ul class=\"tiles\">\n")?;
        tile(f, &grouped(report.ops_per_second), "ops/s")?;
        for kind in report.kinds.iter().filter(|kind| kind.ok > 0) {
            let p99 = latency(kind.latency.percentile_us(99.0));
            tile(f, &p99, &format!("{} p99", kind.name))?;
        }
        let (generator, target) = match report.is_in_process() {
            true => ("threads of the load, of their cpus", "all of the process, of one cpu"),
            false => ("generator, of its cpus", "target, of one cpu"),
        };
        tile(f, &format!("{:.0} %", report.generator_cpu_percent), generator)?;
        if let Some(percent) = report.target_cpu_percent {
            tile(f, &format!("{percent:.0} %"), target)?;
        }
        f.write_str("</ul>\n")?;
        if report.ended.is_some() || !report.warnings.is_empty() {
            f.write_str("<div class=\"warnings\" role=\"note\">\n")?;
            if let Some(why) = &report.ended {
                writeln!(f, "<p><strong>Ended early:</strong> {}</p>", Text(why))?;
            }
            for warning in &report.warnings {
                writeln!(f, "<p><strong>Warning:</strong> {}</p>", Text(warning))?;
            }
            f.write_str("</div>\n")?;
        }
        f.write_str("</header>\n")
    }

    fn kinds(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        f.write_str("<section>\n<h2>Operations</h2>\n")?;
        if report.kinds.is_empty() {
            return f.write_str("<p>No operation was counted.</p>\n</section>\n");
        }
        let clock = match report.rate_per_second {
            Some(_) => "from the time at which the operation was due",
            None => "from sending to the answer",
        };
        writeln!(
            f,
            "<div class=\"scroll\">\n<table>\n<caption>Latencies in µs, {clock}; refused ones were sent again</caption>"
        )?;
        f.write_str("<thead><tr><th></th>")?;
        for kind in &report.kinds {
            write!(f, "<th class=\"n\" scope=\"col\">{}</th>", Text(&kind.name))?;
        }
        f.write_str("</tr></thead>\n<tbody>\n")?;
        let count = |count: u64| grouped(count as f64);
        self.row(f, "succeeded", |kind| count(kind.ok))?;
        self.row(f, "per second", |kind| report.per_second(kind).map_or_else(|| "–".to_owned(), figure))?;
        // No latency is 0: that is none.
        let us = |us: f64| if us > 0.0 { figure(us) } else { "–".to_owned() };
        self.row(f, "mean", |kind| us(kind.latency.mean_us))?;
        self.row(f, "least", |kind| us(kind.latency.min_us))?;
        for (percentile, name) in TABLE {
            // Of fewer operations than it takes to have one beyond, it would be the greatest again.
            let told = |kind: &KindReport| kind.ok as f64 >= 10f64.powf(nines_of(percentile) - 1e-6);
            let at = |kind: &KindReport| kind.latency.percentile_us(percentile);
            self.row(f, name, |kind| us(if told(kind) { at(kind) } else { 0.0 }))?;
        }
        self.row(f, "greatest", |kind| us(kind.latency.max_us))?;
        self.row(f, "not found", |kind| count(kind.not_found))?;
        self.row(f, "failed", |kind| count(kind.failed))?;
        self.row(f, "refused", |kind| count(kind.refused))?;
        f.write_str("</tbody>\n</table>\n</div>\n</section>\n")
    }

    fn row(
        &self,
        f: &mut fmt::Formatter<'_>,
        name: &str,
        cell: impl Fn(&KindReport) -> String,
    ) -> fmt::Result {
        write!(f, "<tr><th scope=\"row\">{name}</th>")?;
        for kind in &self.0.kinds {
            let class = if name == "failed" && kind.failed > 0 { "n bad" } else { "n" };
            write!(f, "<td class=\"{class}\">{}</td>", cell(kind))?;
        }
        f.write_str("</tr>\n")
    }

    fn curve(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<Line<'_>> =
            self.0.kinds.iter().enumerate().filter(|(_, kind)| kind.ok > 0).map(curve_of).collect();
        let latencies = lines.iter().flat_map(|line| &line.points).map(|(_, us)| *us);
        let Some(y) = Scale::log_around(latencies) else { return Ok(()) };
        let most = self.0.kinds.iter().map(|kind| kind.ok).max().unwrap_or(0);
        let chart = Chart {
            about: "Latency by percentile, a line for each kind of operation",
            x: Axis { title: "percentile (%)", scale: Scale::tail_of(most, CURVE_NINES), label_width: 44.0 },
            y: Axis { title: "latency (log scale)", scale: y, label_width: 44.0 },
            lines,
            marks: None,
        };
        writeln!(f, "<section>\n<h2>Latency by percentile</h2>\n{chart}</section>")
    }

    fn time(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        let Some(last) = report.intervals.last() else {
            return f.write_str(
                "<section>\n<h2>Over time</h2>\n<p>The run ended before its first second did: there is \
                 nothing to draw.</p>\n</section>\n",
            );
        };
        let (unit_s, title) = match last.end_s {
            end_s if end_s <= 600.0 => (1.0, "time (s)"),
            end_s if end_s <= 36_000.0 => (60.0, "time (min)"),
            _ => (3600.0, "time (h)"),
        };
        let time = Axis {
            title,
            scale: Scale::Linear { max: (last.end_s / unit_s).max(f64::MIN_POSITIVE) },
            label_width: 44.0,
        };
        let points = |y: fn(&Interval) -> f64| -> Vec<(f64, f64)> {
            report.intervals.iter().map(|interval| (interval.end_s / unit_s, y(interval))).collect()
        };
        let measured = points(|interval| interval.ops_per_second);
        let mut lines = vec![Line { name: "successful operations", colour: 0, points: measured }];
        let asked = report.rate_per_second.map(|rate| format!("asked for: {}", short(rate)));
        if let (Some(rate), Some(name)) = (report.rate_per_second, &asked) {
            lines.push(Line {
                name,
                colour: PLANNED,
                points: vec![(0.0, rate), (last.end_s / unit_s, rate)],
            });
        }
        let rates = lines.iter().flat_map(|line| &line.points).map(|(_, rate)| *rate);
        let failed = report.intervals.iter().filter(|interval| interval.failed > 0);
        let throughput = Chart {
            about: "Operations per second over time",
            x: time,
            y: Axis {
                title: "operations per second",
                scale: Scale::linear_over(rates, RATE_STEPS),
                label_width: 44.0,
            },
            lines,
            marks: Some(("operations failed", failed.map(|interval| interval.end_s / unit_s).collect())),
        };
        writeln!(f, "<section>\n<h2>Throughput over time</h2>\n{throughput}</section>")?;
        let lines = vec![
            Line { name: "p50", colour: 0, points: points(|interval| interval.p50_us) },
            Line { name: "p99", colour: 1, points: points(|interval| interval.p99_us) },
            Line { name: "p99.9", colour: 2, points: points(|interval| interval.p999_us) },
        ];
        let latencies = lines.iter().flat_map(|line| &line.points).map(|(_, us)| *us);
        let Some(y) = Scale::log_around(latencies) else { return Ok(()) };
        let chart = Chart {
            about: "Latency percentiles of all operations over time",
            x: throughput.x,
            y: Axis { title: "latency of all kinds (log scale)", scale: y, label_width: 44.0 },
            lines,
            marks: None,
        };
        writeln!(f, "<section>\n<h2>Latency over time</h2>\n{chart}</section>")
    }

    fn counters(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counters = &self.0.target_counters;
        let changed = || counters.iter().filter(|(_, before, after)| before != after);
        if changed().next().is_none() {
            return Ok(());
        }
        f.write_str("<section>\n<h2>Counters of the target</h2>\n<div class=\"scroll\">\n<table>\n")?;
        let same = counters.len() - changed().count();
        if same > 0 {
            writeln!(f, "<caption>Those that changed; {same} did not</caption>")?;
        }
        f.write_str("<thead><tr><th scope=\"col\">name</th>")?;
        for column in ["before", "after", "difference"] {
            write!(f, "<th class=\"n\" scope=\"col\">{column}</th>")?;
        }
        f.write_str("</tr></thead>\n<tbody>\n")?;
        for (name, before, after) in changed() {
            let sign = if after < before { "−" } else { "" };
            write!(f, "<tr><th scope=\"row\">{}</th>", Text(name))?;
            for (sign, count) in [("", *before), ("", *after), (sign, after.abs_diff(*before))] {
                write!(f, "<td class=\"n\">{sign}{}</td>", grouped(count as f64))?;
            }
            f.write_str("</tr>\n")?;
        }
        f.write_str("</tbody>\n</table>\n</div>\n</section>\n")
    }
}

fn tile(f: &mut fmt::Formatter<'_>, figure: &str, meaning: &str) -> fmt::Result {
    writeln!(f, "<li><b>{}</b><span>{}</span></li>", Text(figure), Text(meaning))
}

fn facts(f: &mut fmt::Formatter<'_>, title: &str, facts: &[(String, String)]) -> fmt::Result {
    if facts.is_empty() {
        return Ok(());
    }
    writeln!(f, "<section class=\"facts\">\n<h2>{title}</h2>\n<table>\n<tbody>")?;
    for (name, value) in facts {
        writeln!(f, "<tr><th scope=\"row\">{}</th><td>{}</td></tr>", Text(name), Text(value))?;
    }
    f.write_str("</tbody>\n</table>\n</section>\n")
}

/// From the least latency on; it ends where no operation is rarer, with the greatest.
fn curve_of((colour, kind): (usize, &KindReport)) -> Line<'_> {
    let rarest = (kind.ok as f64).log10();
    let told = |point: &&(f64, f64)| nines_of(point.0) <= rarest.min(CURVE_NINES) + 1e-6;
    let mut points = vec![(0.0, kind.latency.min_us)];
    points.extend(kind.latency.percentiles.iter().filter(told));
    if rarest <= CURVE_NINES {
        points.push((100.0 - 100.0 / kind.ok as f64, kind.latency.max_us));
    }
    Line { name: &kind.name, colour, points }
}

#[cfg(test)]
mod tests;
