//! Which differences between two sets of runs are real.
//!
//! Runs are paired by position: the first of A with the first of B and so on, as rounds that ran one
//! after the other, so that what slows a machine for a while slows both of a pair. For each measure the
//! ratio B/A is formed in every pair. The median of the ratios says how large the difference is; whether
//! there is one is said by the 95 % confidence interval of the mean logarithm of the ratios, by Student's
//! t over the pairs: a difference is real when the interval does not hold a ratio of 1. One pair has no
//! interval, and then nothing is known.
//!
//! Every measure is judged by itself. Of twenty measures without any difference one is expected to be
//! called different, so a regression needs more: worse, and by more than a bound. More failures or early
//! ends than A has are one at once.

mod alike;
mod file;
mod student;

use std::fmt::{self, Display};

pub use self::file::read_runs;
use self::student::Interval95;
use super::RunReport;
use super::figures::figure;
use crate::error::Result;

/// Percentiles that are compared.
const PERCENTILES: [f64; 3] = [50.0, 99.0, 99.9];

/// What the comparison found.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// How much worse a measure may be, in percent, before it is a regression.
    pub bound_percent: f64,
    /// How many pairs of runs there were.
    pub pairs: usize,
    /// What both sets ran: workload, phase, load.
    pub setup: String,
    /// Throughput, then the percentiles of each kind.
    pub measures: Vec<Measure>,
    /// In what B did not do its work where A did, in sentences: more failures, more early ends. Each is a
    /// regression, however few pairs there are.
    pub undone: Vec<String>,
    /// What else to know about the runs, in sentences: failures, warnings, early ends.
    pub notes: Vec<String>,
}

/// One measure in both sets.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    /// With its unit: `throughput, ops/s` or `READ p99, us`.
    pub name: String,
    /// Median of the runs of A.
    pub a: f64,
    /// Median of the runs of B.
    pub b: f64,
    /// Median of the ratios B/A of the pairs; `None` when a run had no such operation.
    pub ratio: Option<f64>,
    /// 95 % confidence interval of the mean ratio (geometric); `None` when there is only one pair.
    pub interval: Option<(f64, f64)>,
    /// How B is, compared with A.
    pub verdict: Verdict,
    /// How many percent worse the median ratio is; below 0 when it is better.
    pub worse_percent: f64,
}

/// How B is, compared with A.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Faster, and not by chance.
    Better,
    /// Slower, and not by chance.
    Worse,
    /// What is seen may well be chance.
    NoDifference,
    /// There are not enough runs to tell.
    Unknown,
}

/// Compares runs B with runs A, which ran first, last or alternately, but in pairs.
///
/// # Errors
/// [`Error::Incomparable`](crate::Error::Incomparable): the runs are not of the same work, or not in
/// pairs, or one of them did nothing.
pub fn compare(a: &[RunReport], b: &[RunReport], bound_percent: f64) -> Result<Comparison> {
    alike::check(a, b)?;
    let first = &a[0];
    let mut measures =
        vec![Measure::new("throughput, ops/s".to_owned(), a, b, 1.0, |run| Some(run.ops_per_second))];
    for name in kinds(a, b) {
        for percentile in PERCENTILES {
            let title = format!("{name} p{percentile}, us");
            measures.push(Measure::new(title, a, b, -1.0, |run| latency_us(run, name, percentile)));
        }
    }
    Ok(Comparison {
        bound_percent,
        pairs: a.len(),
        setup: format!("workload {} ({}), {}", first.workload, first.phase, first.plan()),
        measures,
        undone: undone(a, b),
        notes: [notes('A', a), notes('B', b)].concat(),
    })
}

impl Comparison {
    /// Whether a measure is worse by more than the bound, or less was done.
    pub fn regressed(&self) -> bool {
        !self.undone.is_empty() || self.regressions().next().is_some()
    }

    fn regressions(&self) -> impl Iterator<Item = &Measure> {
        let beyond = |measure: &&Measure| {
            measure.verdict == Verdict::Worse && measure.worse_percent > self.bound_percent
        };
        self.measures.iter().filter(beyond)
    }
}

impl Measure {
    /// `good` is 1 when more is better, and -1 when less is.
    fn new(
        name: String,
        a: &[RunReport],
        b: &[RunReport],
        good: f64,
        value: impl Fn(&RunReport) -> Option<f64>,
    ) -> Self {
        // A logarithm needs more than 0, and 0 of either is the absence of any such operation.
        let value = |run: &RunReport| value(run).filter(|value| *value > 0.0 && value.is_finite());
        let pairs: Option<Vec<(f64, f64)>> =
            a.iter().zip(b).map(|(a, b)| Some((value(a)?, value(b)?))).collect();
        let Some(pairs) = pairs else {
            let median_of = |runs: &[RunReport]| median(runs.iter().filter_map(value).collect());
            return Self {
                name,
                a: median_of(a),
                b: median_of(b),
                ratio: None,
                interval: None,
                verdict: Verdict::Unknown,
                worse_percent: 0.0,
            };
        };
        let ratio = median(pairs.iter().map(|(a, b)| b / a).collect());
        let logarithms: Vec<f64> = pairs.iter().map(|(a, b)| (b / a).ln()).collect();
        let interval = Interval95::of_mean(&logarithms);
        let verdict = match interval {
            None => Verdict::Unknown,
            Some(interval) if interval.low <= 0.0 && interval.high >= 0.0 => Verdict::NoDifference,
            Some(interval) if interval.low * good > 0.0 => Verdict::Better,
            Some(_) => Verdict::Worse,
        };
        Self {
            name,
            a: median(pairs.iter().map(|pair| pair.0).collect()),
            b: median(pairs.iter().map(|pair| pair.1).collect()),
            ratio: Some(ratio),
            interval: interval.map(|interval| (interval.low.exp(), interval.high.exp())),
            verdict,
            worse_percent: 100.0 * (1.0 - ratio) * good,
        }
    }
}

/// Names of the kinds that occurred in any run, in the order in which they were reported.
fn kinds<'r>(a: &'r [RunReport], b: &'r [RunReport]) -> Vec<&'r str> {
    let mut names = Vec::new();
    for kind in a.iter().chain(b).flat_map(|run| &run.kinds) {
        if !names.contains(&kind.name.as_str()) {
            names.push(kind.name.as_str());
        }
    }
    names
}

fn latency_us(run: &RunReport, kind: &str, percentile: f64) -> Option<f64> {
    let kind = run.kinds.iter().find(|found| found.name == kind && found.ok > 0)?;
    Some(kind.latency.percentile_us(percentile))
}

/// 0 of nothing.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let Some(last) = numbers.len().checked_sub(1) else { return 0.0 };
    f64::midpoint(numbers[last / 2], numbers[last.div_ceil(2)])
}

fn failures(runs: &[RunReport]) -> u64 {
    runs.iter().flat_map(|run| &run.kinds).map(|kind| kind.failed).sum()
}

fn undone(a: &[RunReport], b: &[RunReport]) -> Vec<String> {
    let ended = |runs: &[RunReport]| runs.iter().filter(|run| run.ended.is_some()).count() as u64;
    [("operations that failed", failures(a), failures(b)), ("runs that ended early", ended(a), ended(b))]
        .into_iter()
        .filter(|(_, of_a, of_b)| of_b > of_a)
        .map(|(what, of_a, of_b)| format!("{what}: {of_a} of A, {of_b} of B"))
        .collect()
}

/// Each sentence once, with the runs that say it.
fn notes(set: char, runs: &[RunReport]) -> Vec<String> {
    let failed = failures(runs);
    let mut said: Vec<(String, Vec<String>)> = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        let ended = run.ended.iter().map(|why| format!("ended early: {why}"));
        for text in ended.chain(run.warnings.iter().cloned()) {
            let number = (index + 1).to_string();
            match said.iter_mut().find(|(known, _)| *known == text) {
                Some((_, numbers)) => numbers.push(number),
                None => said.push((text, vec![number])),
            }
        }
    }
    let failed = (failed > 0).then(|| format!("{set}: {failed} operations failed"));
    let said = said.into_iter().map(|(text, numbers)| format!("{set}, run {}: {text}", numbers.join(", ")));
    failed.into_iter().chain(said).collect()
}

impl Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::NoDifference => "no difference",
            Self::Unknown => "unknown",
        })
    }
}

impl Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bound_percent, pairs, setup, .. } = self;
        writeln!(f, "{setup}; {pairs} {}", if *pairs == 1 { "pair" } else { "pairs" })?;
        writeln!(
            f,
            "\n{:<28}{:>12}{:>12}{:>8}  {:<16}  verdict",
            "median of", "A", "B", "B/A", "95 % interval"
        )?;
        for measure in &self.measures {
            let ratio = measure.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
            let range = |(low, high)| format!("{low:.3} to {high:.3}");
            let interval = measure.interval.map_or_else(|| "-".to_owned(), range);
            writeln!(
                f,
                "{:<28}{:>12}{:>12}{:>8}  {:<16}  {}",
                measure.name,
                figure(measure.a),
                figure(measure.b),
                ratio,
                interval,
                measure.verdict
            )?;
        }
        writeln!(f)?;
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        for undone in &self.undone {
            writeln!(f, "regression: {undone}")?;
        }
        for Measure { name, worse_percent, .. } in self.regressions() {
            writeln!(f, "regression: {name}: {worse_percent:.1} % worse")?;
        }
        if *pairs == 1 {
            writeln!(f, "not judged: one pair of runs cannot tell a difference from chance")
        } else if self.regressed() {
            Ok(())
        } else {
            writeln!(f, "no regression beyond {bound_percent} %")
        }
    }
}

#[cfg(test)]
mod tests;
