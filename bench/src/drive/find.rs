//! The highest rate at which a promise is kept.
//!
//! Short open-loop runs: the rate doubles while the promise is kept, then the interval between the last
//! rate that kept it and the first that did not is halved until it is narrow. A run keeps the promise if
//! it reached its rate, nothing failed, and every bound of every kind of operation holds. Rates so low that a
//! run has no operation beyond the promised percentile are not tried: whatever they kept would mean nothing.

use std::fmt;
use std::str::FromStr;

use super::{Phase, Plan, not_begun, run};
use crate::error::Result;
use crate::report::RunReport;
use crate::workload::Kind;

/// The interval is narrow when it is this part of its upper end.
const PRECISION: f64 = 0.03;
/// Runs at most.
const RUNS_MAX: usize = 40;
/// A rate counts as reached from this part of it on.
const REACHED: f64 = 0.98;

/// A promise: a percentile of latency, and what it must be below. `p99<1ms`, `p99.9<500us`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slo {
    /// The percentile.
    pub percentile: f64,
    /// What it must be below, in microseconds.
    pub below_us: f64,
}

impl FromStr for Slo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("{text:?} is no promise: p99<1ms, for instance");
        let (percentile, time) =
            text.strip_prefix('p').and_then(|rest| rest.split_once('<')).ok_or_else(wanted)?;
        let percentile: f64 = percentile.trim().parse().map_err(|_| wanted())?;
        let time = time.trim();
        let digits = time.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let number: f64 = digits.trim().parse().map_err(|_| wanted())?;
        let unit_us = match &time[digits.len()..] {
            "us" => 1.0,
            "ms" => 1e3,
            "s" => 1e6,
            _ => return Err(wanted()),
        };
        if !crate::report::CURVE.contains(&percentile) {
            return Err(format!("{text:?}: of percentiles there are {:?}", crate::report::CURVE));
        }
        if !number.is_finite() || number <= 0.0 {
            return Err(wanted());
        }
        Ok(Self { percentile, below_us: number * unit_us })
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}<{}us", self.percentile, self.below_us)
    }
}

/// What a search found.
#[derive(Debug, Default)]
pub struct Found {
    /// The run at the highest rate that kept the promises; none if no rate did.
    pub best: Option<RunReport>,
    /// Rates that were tried to the end, and why they did not keep the promises, if they did not.
    pub tried: Vec<(f64, Option<String>)>,
    /// The run that ended before its time, and the search with it; none if the search went to its end.
    pub ended: Option<RunReport>,
}

/// The lowest rate that is tried: one at which a run has an operation beyond every promised percentile.
pub fn rate_least(plan: &Plan, slos: &[Slo]) -> f64 {
    let beyond = slos.iter().map(|slo| 100.0 / (100.0 - slo.percentile)).filter(|count| count.is_finite());
    let seconds = plan.seconds.map_or(f64::INFINITY, |time| time.as_secs_f64());
    (beyond.fold(1.0, f64::max) / seconds).max(1.0)
}

/// Searches the highest rate; `tell` hears of every run.
///
/// # Errors
/// As [`run`], of the first rate. A later run that ended early or did not begin ends the search:
/// [`Found::ended`].
pub fn find_max(
    plan: &Plan,
    slos: &[Slo],
    mut tell: impl FnMut(f64, &RunReport, Option<&str>),
) -> Result<Found> {
    let (mut kept, mut broken) = (0.0_f64, f64::INFINITY);
    let mut found = Found::default();
    let least = rate_least(plan, slos);
    let mut rate = plan.rate.unwrap_or(1000.0).max(least);
    for _ in 0..RUNS_MAX {
        let plan = Plan { rate: Some(rate), ..plan.clone() };
        let report = match run(&plan, Phase::Run) {
            // It was there for the rates before.
            Err(error) if !found.tried.is_empty() => not_begun(&plan, Phase::Run, &error),
            ran => ran?,
        };
        if report.ended.is_some() {
            found.ended = Some(report);
            break;
        }
        let breach = breach(&report, slos);
        tell(rate, &report, breach.as_deref());
        if breach.is_none() {
            kept = rate;
            found.best = Some(report);
        } else {
            broken = rate;
        }
        found.tried.push((rate, breach));
        if broken.is_finite() && broken - kept <= PRECISION * broken {
            break;
        }
        rate = if broken.is_finite() { f64::midpoint(kept, broken) } else { 2.0 * kept };
        if rate < least {
            break;
        }
    }
    Ok(found)
}

/// Which promise a run did not keep; that it reaches its rate, if it has one, is one of them.
pub fn breach(report: &RunReport, slos: &[Slo]) -> Option<String> {
    if let Some(kind) = report.kinds.iter().find(|kind| kind.failed > 0) {
        return Some(format!("{} {} failed", kind.failed, kind.name));
    }
    if report.rate_per_second.is_some_and(|rate| report.ops_per_second < REACHED * rate) {
        return Some(format!("only {:.0} per second", report.ops_per_second));
    }
    let timed = report.kinds.iter().filter(|kind| kind.ok > 0 && kind.name != Kind::Verify.name());
    for kind in timed {
        for slo in slos {
            let us = kind.latency.percentile_us(slo.percentile);
            if us >= slo.below_us {
                return Some(format!("p{} of {} was {us:.0} us", slo.percentile, kind.name));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_are_read() {
        assert_eq!("p99<1ms".parse(), Ok(Slo { percentile: 99.0, below_us: 1000.0 }));
        assert_eq!("p99.9 < 500us".parse(), Ok(Slo { percentile: 99.9, below_us: 500.0 }));
        for wrong in ["99<1ms", "p99>1ms", "p99<1", "p42<1ms", "p99<-1ms", "p99<ms"] {
            assert!(wrong.parse::<Slo>().is_err(), "{wrong}");
        }
    }
}
