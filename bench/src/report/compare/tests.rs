//! Comparisons whose outcome can be worked out by hand.

use super::*;
use crate::error::Error;
use crate::report::tests::report;

/// As many runs as there are numbers; latencies are `slower` times the usual.
fn runs(rates: &[f64], slower: f64) -> Vec<RunReport> {
    let run = |rate: &f64| {
        let mut run = report();
        run.ops_per_second = *rate;
        for point in run.kinds.iter_mut().flat_map(|kind| &mut kind.latency.percentiles) {
            point.1 *= slower;
        }
        run
    };
    rates.iter().map(run).collect()
}

fn measure<'c>(comparison: &'c Comparison, name: &str) -> &'c Measure {
    comparison.measures.iter().find(|measure| measure.name == name).unwrap()
}

#[test]
fn an_interval_of_known_ratios_is_the_one_by_hand() {
    // Ratios e^0.1 to e^0.5: the logarithms are a tenth of 1 to 5, so 0.3 ± 0.27760 sqrt(0.5).
    let a = runs(&[100.0, 200.0, 300.0, 400.0, 500.0], 1.0);
    let b: Vec<f64> = (1..=5).map(|k| 100.0 * f64::from(k) * (0.1 * f64::from(k)).exp()).collect();
    let comparison = compare(&a, &runs(&b, 1.0), 5.0).unwrap();
    let throughput = measure(&comparison, "throughput, ops/s");
    let (low, high) = throughput.interval.unwrap();
    assert!((low.ln() - 0.103_707).abs() < 1e-5 && (high.ln() - 0.496_293).abs() < 1e-5, "{low} {high}");
    assert!((throughput.ratio.unwrap() - 0.3f64.exp()).abs() < 1e-9);
    assert_eq!((throughput.verdict, throughput.a), (Verdict::Better, 300.0));
    assert_eq!(measure(&comparison, "READ p99, us").verdict, Verdict::NoDifference);
    assert_eq!(comparison.measures.len(), 1 + 2 * 3);
    assert!(!comparison.regressed());
}

#[test]
fn worse_is_a_regression_only_beyond_the_bound() {
    let a = runs(&[1000.0, 1100.0, 1050.0], 1.0);
    let slow = runs(&[920.0, 1001.0, 966.0], 1.0);
    let comparison = compare(&a, &slow, 5.0).unwrap();
    assert_eq!(measure(&comparison, "throughput, ops/s").verdict, Verdict::Worse);
    assert!(comparison.regressed());
    assert!(comparison.to_string().contains("regression: throughput, ops/s: 8.0 % worse\n"), "{comparison}");
    let tolerant = compare(&a, &slow, 10.0).unwrap();
    assert!(!tolerant.regressed());
    assert!(tolerant.to_string().ends_with("no regression beyond 10 %\n"));
    // What scatters as widely as it differs may be chance.
    let noisy = compare(&a, &runs(&[600.0, 1400.0, 800.0], 1.0), 5.0).unwrap();
    assert_eq!(measure(&noisy, "throughput, ops/s").verdict, Verdict::NoDifference);
    assert!(!noisy.regressed());
    // Of latencies less is better.
    let rates = [1000.0, 1000.0];
    let late = compare(&runs(&rates, 1.0), &runs(&rates, 1.2), 5.0).unwrap();
    let p999 = measure(&late, "UPDATE p99.9, us");
    assert_eq!(p999.verdict, Verdict::Worse);
    assert!((p999.worse_percent - 20.0).abs() < 1e-6 && late.regressed());
    let early = compare(&runs(&rates, 1.0), &runs(&rates, 0.8), 5.0).unwrap();
    assert_eq!(measure(&early, "READ p50, us").verdict, Verdict::Better);
}

#[test]
fn one_pair_tells_nothing() {
    let comparison = compare(&runs(&[1000.0], 1.0), &runs(&[10.0], 1.0), 5.0).unwrap();
    let throughput = measure(&comparison, "throughput, ops/s");
    assert_eq!((throughput.verdict, throughput.interval), (Verdict::Unknown, None));
    assert_eq!(throughput.ratio, Some(0.01));
    assert!(!comparison.regressed());
    let table = comparison.to_string();
    assert!(table.contains("1 pair\n") && table.contains("0.010  -                 unknown\n"), "{table}");
    assert!(
        table.ends_with("\nnot judged: one pair of runs cannot tell a difference from chance\n"),
        "{table}"
    );
}

#[test]
fn runs_of_other_work_are_refused_with_the_difference() {
    let a = runs(&[1000.0, 1000.0], 1.0);
    let refusal = |edit: fn(&mut Vec<RunReport>)| {
        let mut b = a.clone();
        edit(&mut b);
        let Err(Error::Incomparable(why)) = compare(&a, &b, 5.0) else { panic!("they should differ") };
        why
    };
    assert_eq!(refusal(|b| b[1].workload = "b".to_owned()), "workload: a in run 1 of A, b in run 2 of B");
    assert_eq!(refusal(|b| b[0].phase = "load".to_owned()), "phase: run in run 1 of A, load in run 1 of B");
    assert_eq!(
        refusal(|b| b[0].rate_per_second = Some(500.0)),
        "rate: as many as possible in run 1 of A, 500 in run 1 of B"
    );
    assert_eq!(refusal(|b| b[0].threads = 3), "threads: 2 in run 1 of A, 3 in run 1 of B");
    assert_eq!(refusal(|b| b[0].connections = 3), "connections: 64 in run 1 of A, 3 in run 1 of B");
    assert_eq!(refusal(|b| b[0].depth = 3), "depth: 16 in run 1 of A, 3 in run 1 of B");
    assert_eq!(refusal(|b| b.truncate(1)), "A has 2 runs and B has 1: they are compared in pairs");
    assert_eq!(refusal(|b| b[1].operations = 0), "run 2 of B has no operation that succeeded");
    assert_eq!(
        refusal(|b| b[1].properties[1].1 = "9".to_owned()),
        "property recordcount: 1000 in run 2 of A, 9 in run 2 of B"
    );
    assert_eq!(
        refusal(|b| b[0].properties.truncate(1)),
        "property recordcount: 1000 in run 1 of A, not given in run 1 of B"
    );
    assert!(matches!(compare(&[], &[], 5.0), Err(Error::Incomparable(_))));
}

#[test]
fn a_kind_that_a_run_lacks_is_unknown_and_failures_are_noted() {
    let a = runs(&[1000.0, 1000.0], 1.0);
    let mut b = a.clone();
    b[1].kinds[0].ok = 0;
    b[1].kinds[0].failed = 7;
    for run in &mut b {
        run.warnings.push("the generator was busy".to_owned());
    }
    b[0].ended = Some("stopped by a signal".to_owned());
    let comparison = compare(&a, &b, 5.0).unwrap();
    let read = measure(&comparison, "READ p50, us");
    assert_eq!((read.verdict, read.ratio), (Verdict::Unknown, None));
    let table = comparison.to_string();
    assert!(
        table.contains("A: 4 operations failed\n") && table.contains("B: 11 operations failed\n"),
        "{table}"
    );
    assert!(table.contains("B, run 1: ended early: stopped by a signal\n"), "{table}");
    assert!(table.contains("B, run 1, 2: the generator was busy\n"), "{table}");
    assert!(comparison.regressed(), "B did less");
    assert!(table.contains("\nregression: operations that failed: 4 of A, 11 of B\n"), "{table}");
    assert!(table.ends_with("\nregression: runs that ended early: 0 of A, 1 of B\n"), "{table}");
    assert!(!compare(&b, &a, 5.0).unwrap().regressed());
}

#[test]
fn columns_stay_apart() {
    let comparison = compare(&runs(&[1.0, 1.0], 1.0), &runs(&[1.0, 3.0], 1.0), 5.0).unwrap();
    let (_, high) = measure(&comparison, "throughput, ops/s").interval.unwrap();
    assert!(high > 1000.0, "wider than its column: {high}");
    let table = comparison.to_string();
    let throughput = table.lines().find(|line| line.starts_with("throughput")).unwrap();
    assert!(throughput.ends_with(&format!("{high:.3}  no difference")), "{throughput}");
}
