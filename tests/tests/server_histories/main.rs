//! The submission's share of the whole-server histories, and what they must have gone through.

use pinion_tests::trials::Class;

/// What must have happened, and how often in 2,000 histories.
const LEAST: [(&str, u64); 27] = [
    ("histories", 2_000),
    ("histories run twice", 20),
    ("calls", 200_000),
    ("operations judged", 200_000),
    ("operations of unknown outcome", 2_000),
    ("lost batches found applied", 100),
    ("crashes", 1_000),
    ("power cuts", 500),
    ("shutdowns", 200),
    ("namespaces dropped", 50),
    ("histories whose last process made flushes", 200),
    ("histories whose last process made compactions", 50),
    ("fault late", 1_000),
    ("fault clog", 1_000),
    ("fault reset", 1_000),
    ("fault hole one way", 200),
    ("fault hole both ways", 200),
    ("fault gave up", 100),
    ("fault attempt lost", 500),
    ("fault attempt refused", 500),
    ("fault tiny window", 500),
    ("OVERLOADED", 100),
    ("DEADLINE", 1),
    ("CONDITION_FAILED", 1_000),
    ("STAMP_TOO_OLD", 50),
    ("STAMP_AHEAD", 50),
    ("writes superseded", 500),
];

#[test]
fn server_histories_are_explained() {
    let counts = Class::submit("server-histories");
    if std::env::var_os("PINION_SEED").is_some() {
        return;
    }
    let missed: Vec<_> = LEAST.iter().filter(|(name, least)| counts.get(name) < *least).collect();
    assert!(missed.is_empty(), "not often enough: {missed:?}");
}
