//! What rounds come to: medians, spread, and Pinion by each peer; as data, which is also the JSON.

use serde::Serialize;

use super::PeersPlan;
use super::rows::{Peer, Row};
use super::site::Absence;
use crate::drive::GENERATOR_CPU_PERCENT_MAX;
use crate::ratio::summary::{Machine, Spread};
use crate::report::RunReport;

/// A whole comparison.
#[derive(Debug, Serialize)]
pub(super) struct Outcome<'p> {
    /// Of this tool.
    pub(super) version: &'static str,
    pub(super) started_unix_s: u64,
    pub(super) seconds: f64,
    pub(super) machine: Machine,
    pub(super) plan: &'p PeersPlan,
    /// What each peer says of its version.
    pub(super) versions: Vec<(Peer, String)>,
    /// How servers were started.
    pub(super) servers: Vec<(Peer, Vec<String>)>,
    pub(super) rows: Vec<RowOutcome>,
    /// What makes numbers doubtful.
    pub(super) warnings: Vec<String>,
}

/// One row.
#[derive(Debug, Serialize)]
pub(super) struct RowOutcome {
    pub(super) row: Row,
    pub(super) sides: Vec<Side>,
}

/// One peer in a row.
#[derive(Debug, Serialize)]
pub(super) struct Side {
    pub(super) peer: Peer,
    #[serde(flatten)]
    pub(super) state: State,
}

#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub(super) enum State {
    Missing {
        what_to_do: String,
    },
    Failed {
        why: String,
        /// Those before.
        rounds: Vec<Round>,
    },
    Measured(Box<Figures>),
}

/// What the rounds of one peer come to.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub(super) ops_per_second: Spread,
    pub(super) p50_us: Spread,
    pub(super) p99_us: Spread,
    pub(super) p999_us: Spread,
    /// Of one cpu.
    pub(super) generator_cpu_percent: Spread,
    pub(super) target_cpu_percent: Option<Spread>,
    /// Bytes that the device was given, by the bytes of all keys and values that were put.
    pub(super) written_per_byte: Option<Spread>,
    /// Bytes of all files, by the bytes of all keys and values.
    pub(super) space_per_byte: Option<Spread>,
    /// Operations of Pinion by operations of this peer; `None` of Pinion itself, and when it failed.
    pub(super) ratio: Option<Ratio>,
    pub(super) rounds: Vec<Round>,
}

/// Pinion by a peer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Ratio {
    /// Of the medians.
    pub(super) of_medians: f64,
    /// The lowest and highest of two neighbouring rounds: how far the machine can be trusted.
    pub(super) min: f64,
    pub(super) max: f64,
}

/// One round of one peer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Round {
    pub(super) command: Vec<String>,
    pub(super) seconds: f64,
    pub(super) operations: u64,
    pub(super) ops_per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) p999_us: f64,
    pub(super) max_us: f64,
    /// Times that the target refused an operation as overloaded; it was sent again.
    pub(super) refused: u64,
    /// Records that were read and checked after it.
    pub(super) checked: u64,
    pub(super) generator_cpu_percent: f64,
    pub(super) target_cpu_percent: Option<f64>,
    pub(super) written_bytes: Option<u64>,
    pub(super) space_bytes: Option<u64>,
    /// What the target says of itself.
    pub(super) target_facts: Vec<(String, String)>,
    pub(super) warnings: Vec<String>,
}

impl Round {
    pub(super) fn new(
        report: RunReport,
        command: Vec<String>,
        written_bytes: Option<u64>,
        space_bytes: Option<u64>,
    ) -> Self {
        let checked = |name: &str| name == "VERIFY";
        // Rows have one kind of operation each.
        let kind = report.kinds.iter().filter(|kind| !checked(&kind.name)).max_by_key(|kind| kind.ok);
        let us = |percentile| kind.map_or(0.0, |kind| kind.latency.percentile_us(percentile));
        Self {
            command,
            seconds: report.seconds,
            operations: report.operations,
            ops_per_second: report.ops_per_second,
            p50_us: us(50.0),
            p99_us: us(99.0),
            p999_us: us(99.9),
            max_us: kind.map_or(0.0, |kind| kind.latency.max_us),
            refused: report.kinds.iter().map(|kind| kind.refused).sum(),
            checked: report.kinds.iter().filter(|kind| checked(&kind.name)).map(|kind| kind.ok).sum(),
            generator_cpu_percent: report.generator_cpu_percent,
            target_cpu_percent: report.target_cpu_percent,
            written_bytes,
            space_bytes,
            target_facts: report.target_facts,
            warnings: report.warnings,
        }
    }
}

impl RowOutcome {
    /// Of each peer's rounds, in the order in which they ran, Pinion first.
    pub(super) fn new(row: Row, plan: &PeersPlan, sides: Vec<(Peer, Rounds)>) -> Self {
        let pinion: Vec<f64> = match sides.first() {
            Some((_, Rounds { absence: None, rounds })) => {
                rounds.iter().map(|round| round.ops_per_second).collect()
            }
            _ => Vec::new(),
        };
        let put_bytes = (plan.key_bytes + plan.value_bytes) as f64;
        let all_bytes = row.records(plan) as f64 * put_bytes;
        let side = |(index, (peer, rounds)): (usize, (Peer, Rounds))| {
            let state = rounds.state(put_bytes, all_bytes, if index == 0 { &[] } else { &pinion });
            Side { peer, state }
        };
        Self { sides: sides.into_iter().enumerate().map(side).collect(), row }
    }

    /// The peers that failed, and why.
    pub(super) fn failures(&self) -> impl Iterator<Item = (Peer, &str)> {
        self.sides.iter().filter_map(|side| match &side.state {
            State::Failed { why, .. } => Some((side.peer, why.as_str())),
            State::Missing { .. } | State::Measured(_) => None,
        })
    }

    /// Says when it may be the load that was measured.
    pub(super) fn warning(&self) -> Option<String> {
        // An engine works in the threads that ask it.
        let servers = self.sides.iter().filter(|side| side.peer.is_server());
        let busy = servers.filter_map(|side| match &side.state {
            State::Measured(figures) => Some((side.peer, figures.generator_cpu_percent.median)),
            State::Missing { .. } | State::Failed { .. } => None,
        });
        let busy: Vec<String> = busy
            .filter(|(_, percent)| *percent > GENERATOR_CPU_PERCENT_MAX)
            .map(|(peer, percent)| format!("{percent:.0} % with {}", peer.name()))
            .collect();
        (!busy.is_empty()).then(|| {
            format!(
                "{}: the load was busy for {} of its cpu: it may be the load that was measured",
                self.row.name,
                busy.join(", ")
            )
        })
    }
}

/// The rounds of one peer in one row, and why there are not more.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    pub(super) rounds: Vec<Round>,
    pub(super) absence: Option<Absence>,
}

impl Rounds {
    fn state(self, put_bytes: f64, all_bytes: f64, pinion: &[f64]) -> State {
        match self.absence {
            Some(Absence::Missing(what_to_do)) => State::Missing { what_to_do },
            Some(Absence::Failed(why)) => State::Failed { why, rounds: self.rounds },
            None => State::Measured(Box::new(Figures::new(self.rounds, put_bytes, all_bytes, pinion))),
        }
    }
}

impl Figures {
    /// Of at least one round.
    fn new(rounds: Vec<Round>, put_bytes: f64, all_bytes: f64, pinion: &[f64]) -> Self {
        let spread = |number: fn(&Round) -> f64| {
            Spread::of(rounds.iter().map(number)).expect("a comparison has at least one round")
        };
        let ops_per_second = spread(|round| round.ops_per_second);
        let written =
            |round: &Round| Some(round.written_bytes? as f64 / (round.operations as f64 * put_bytes));
        Self {
            ops_per_second,
            p50_us: spread(|round| round.p50_us),
            p99_us: spread(|round| round.p99_us),
            p999_us: spread(|round| round.p999_us),
            generator_cpu_percent: spread(|round| round.generator_cpu_percent),
            target_cpu_percent: Spread::of(rounds.iter().filter_map(|round| round.target_cpu_percent)),
            written_per_byte: Spread::of(rounds.iter().filter_map(written)),
            space_per_byte: Spread::of(
                rounds.iter().filter_map(|round| Some(round.space_bytes? as f64 / all_bytes)),
            ),
            ratio: Ratio::new(pinion, &rounds, ops_per_second.median),
            rounds,
        }
    }
}

impl Ratio {
    fn new(pinion: &[f64], rounds: &[Round], median: f64) -> Option<Self> {
        let by_round = pinion.iter().zip(rounds).map(|(pinion, round)| pinion / round.ops_per_second);
        let by_round = Spread::of(by_round)?;
        let of_medians = Spread::of(pinion.iter().copied())?.median / median;
        Some(Self { of_medians, min: by_round.min, max: by_round.max })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{outcome_of, plan, report, round};
    use super::*;
    use crate::peers::rows::{Section, chosen};

    #[test]
    fn ratios_are_of_medians_with_the_spread_of_neighbours() {
        let pinion = [90.0, 150.0, 160.0];
        let rounds = [100.0, 100.0, 400.0].map(round);
        let ratio = Ratio::new(&pinion, &rounds, 100.0).unwrap();
        assert_eq!(ratio, Ratio { of_medians: 1.5, min: 0.4, max: 1.5 });
        assert_eq!(Ratio::new(&[], &rounds, 100.0), None);
    }

    #[test]
    fn a_round_is_the_one_kind_of_its_row() {
        let made = Round::new(report(1234.0), vec!["pinion".to_owned()], Some(7), None);
        assert_eq!((made.ops_per_second, made.operations, made.checked), (1234.0, 1000, 500));
        assert_eq!((made.p50_us, made.p99_us, made.p999_us), (500.0, 990.0, 999.0));
        assert_eq!(made.written_bytes, Some(7));
    }

    #[test]
    fn peers_that_fail_or_miss_leave_the_others() {
        let plan = plan();
        let row = chosen(&plan).unwrap().into_iter().find(|row| row.name == "get-16").unwrap();
        let measured = |rate: f64| Rounds { rounds: vec![round(rate)], absence: None };
        let failed = Rounds { rounds: vec![round(1.0)], absence: Some(Absence::Failed("died".to_owned())) };
        let missing = Rounds { rounds: Vec::new(), absence: Some(Absence::Missing("install".to_owned())) };
        let outcome = outcome_of(&row, [measured(300.0), failed, missing]);
        assert_eq!(outcome.failures().collect::<Vec<_>>(), [(Peer::RedisAlways, "died")]);
        let json = serde_json::to_value(&outcome).unwrap();
        assert_eq!(json["sides"][1]["state"], "failed");
        assert_eq!(json["sides"][2]["what_to_do"], "install");
        assert_eq!(json["sides"][0]["ops_per_second"]["median"], 300.0);
        // Without Pinion there is no ratio.
        let failed = Rounds { rounds: Vec::new(), absence: Some(Absence::Failed("died".to_owned())) };
        let outcome = outcome_of(&row, [failed, measured(1.0), measured(2.0)]);
        let State::Measured(figures) = &outcome.sides[1].state else { panic!("it was measured") };
        assert_eq!(figures.ratio, None);
    }

    #[test]
    fn a_busy_load_is_told_of_servers_only() {
        let plan = plan();
        let rows = chosen(&plan).unwrap();
        let busy = |rate: f64| Rounds { rounds: vec![round(rate)], absence: None };
        for row in rows.iter().filter(|row| ["get-1", "engine-get"].contains(&row.name.as_str())) {
            let outcome = outcome_of(row, [busy(1.0), busy(1.0), busy(1.0)]);
            assert_eq!(outcome.warning().is_some(), row.section == Section::Network);
        }
    }

    #[test]
    fn what_was_written_and_kept_is_by_the_byte_put() {
        let mut one = round(100.0);
        // 1,000 operations of 544 bytes; 1,000,000 records of as many.
        (one.written_bytes, one.space_bytes) = (Some(1_088_000), Some(816_000_000));
        let figures = Figures::new(vec![one], 544.0, 544.0e6, &[]);
        assert!((figures.written_per_byte.unwrap().median - 2.0).abs() < 1e-9);
        assert!((figures.space_per_byte.unwrap().median - 1.5).abs() < 1e-9);
    }
}
