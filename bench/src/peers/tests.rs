//! Plans, rounds and reports that the tests of all files share, and the comparison as a whole with peers
//! that are not there.

use super::outcome::Round;
use super::*;
use crate::report::{Interval, KindReport, LatencyReport, RunReport, hdr};

/// The defaults of the command.
pub(super) fn plan() -> PeersPlan {
    PeersPlan {
        tool: (PathBuf::from("pinion"), vec!["bench".to_owned()]),
        pinion: PathBuf::from("pinion"),
        serve_args: Vec::new(),
        redis: PathBuf::from("redis-server"),
        dir: PathBuf::from("unused"),
        keep: false,
        only: Vec::new(),
        steady: false,
        rounds: 5,
        connections: 64,
        keys: 100_000,
        engine_keys: 500_000,
        memory_bytes: 512 << 20,
        key_bytes: 32,
        value_bytes: 512,
        seed: 1,
        warmup: Duration::from_secs(1),
        measure: Duration::from_secs(3),
        settle: Duration::from_secs(10),
        server_cpu: 0,
        generator_cpu: 1,
    }
}

/// Of 1,000 operations with latencies of 1 to 1000 microseconds, each once, and 500 checks.
pub(super) fn report(ops_per_second: f64) -> RunReport {
    let mut histogram = crate::load::latency_histogram();
    (1..=1000).for_each(|us| histogram.record(us * 1000).unwrap());
    let mut latency = LatencyReport::of(&histogram, hdr::encode(&histogram));
    for (percentile, us) in &mut latency.percentiles {
        // A histogram has them to three digits.
        *us = (*percentile * 10.0).round();
    }
    let kind = |name: &str, ok| KindReport {
        name: name.to_owned(),
        ok,
        not_found: 0,
        failed: 0,
        refused: 0,
        latency: latency.clone(),
    };
    RunReport {
        report_version: RunReport::VERSION,
        tool_version: "0".to_owned(),
        started_unix_s: 0,
        phase: "run".to_owned(),
        workload: "small".to_owned(),
        properties: Vec::new(),
        target: "pinion://127.0.0.1:1".to_owned(),
        target_facts: vec![("version".to_owned(), "7".to_owned())],
        machine_facts: Vec::new(),
        threads: 1,
        connections: 64,
        depth: 1,
        rate_per_second: None,
        seconds: 1.0,
        warmup_seconds: 0.0,
        operations: 1000,
        ops_per_second,
        generator_cpu_percent: 99.0,
        target_cpu_percent: Some(180.0),
        warnings: Vec::new(),
        ended: None,
        kinds: vec![kind("READ", 1000), kind("VERIFY", 500)],
        intervals: Vec::<Interval>::new(),
        target_counters: Vec::new(),
    }
}

pub(super) fn round(ops_per_second: f64) -> Round {
    Round::new(report(ops_per_second), vec!["pinion".to_owned(), "bench".to_owned()], None, None)
}

/// Of a row with three peers.
pub(super) fn outcome_of(row: &Row, sides: [Rounds; 3]) -> RowOutcome {
    RowOutcome::new(row.clone(), &plan(), row.peers.iter().copied().zip(sides).collect())
}

#[test]
fn plans_that_make_no_sense_are_refused() {
    assert!(plan().check().is_ok());
    for wrong in [
        PeersPlan { rounds: 0, ..plan() },
        PeersPlan { measure: Duration::ZERO, ..plan() },
        PeersPlan { value_bytes: STAMP_BYTES, ..plan() },
        PeersPlan { steady: true, memory_bytes: 1, ..plan() },
    ] {
        assert!(matches!(wrong.check(), Err(Error::Usage(_))), "{wrong:?}");
    }
}

#[test]
fn a_comparison_without_anybody_tells_of_everybody() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = |name: &str| dir.path().join("nowhere").join(name);
    let plan = PeersPlan {
        tool: (nowhere("tool"), Vec::new()),
        pinion: nowhere("pinion"),
        redis: nowhere("redis-server"),
        only: vec!["put".to_owned()],
        ..plan()
    };
    let rows = rows::chosen(&plan).unwrap();
    let outcome = compare(&plan, rows, dir.path(), &Running::default()).unwrap();
    let sides: Vec<_> = outcome.rows.iter().flat_map(|row| &row.sides).collect();
    assert!(sides.iter().all(|side| matches!(side.state, State::Missing { .. })) && sides.len() == 8);
    let text = outcome.to_string();
    assert!(text.matches("--redis").count() == 2 && text.contains("--pinion"), "{text}");
}
