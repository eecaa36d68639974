//! Fault histories: an operation of the disk fails under a shard, or lies; nothing acknowledged is lost,
//! and no answer is wrong.
//!
//! * `plan`: which fault, when, and what a shard may make of it;
//! * `story`: one history with it: lives of a node, and what is demanded in each;
//! * `serve`: the shard's requests, with answers that may be errors.
//!
//! What is promised (and asserted) for which fault:
//! * a write, sync, creation or renaming that fails under a serving shard stops it: nothing that is
//!   asked later is acknowledged, reads go on and are right;
//! * a full disk is no failure: writes are refused, and once space returns the shard goes on by itself;
//! * a read that fails is an error that names the file; one that gives wrong bytes is an error that
//!   names the file, or is right;
//! * a start that meets a fault is refused with a reason, or does without what failed;
//! * when the fault is gone, a start finds everything acknowledged. Where bytes stay damaged it is
//!   refused as damaged, or finds what is sound.
//!
//! One exception, which is documented: damage to a block of the log that nothing has proven yet looks
//! like a write that a crash has cut short. Such writes may be gone, the rest must be a prefix.
//!
//! Not covered: lies about durability, which no node can notice, and more than one piece of damage.

mod plan;
mod serve;
mod story;

use plan::NAMES;
use story::{Met, run};

use crate::trials::{Class, Counts, Trials};

/// The class of these histories.
pub const SIM_FAULTS: Class = Class {
    name: "sim-faults",
    about: "failing, short, full, stale, misdirected and rotten I/O: told or mended, nothing lost or wrong",
    unit: "histories",
    submission: 5_000,
    full: 100_000,
    release: 1_000_000,
    run: run_faults,
};

/// One history in so many runs twice and must take the same course.
const TWICE_ONE_IN: u64 = 100;

/// Every fault is met once in so many histories, at least.
const HISTORIES_PER_FAULT: u64 = 200;

/// Seeds beyond those of a submission whose histories failed once.
const FAILED_ONCE: [u64; 1] = [
    // Damage took a write, and its stamp was given again.
    90_249,
];

/// Runs the histories that failed once.
pub(super) fn run_failed_once() {
    for seed in FAILED_ONCE {
        run(seed);
    }
}

fn run_faults(trials: &Trials) -> Counts {
    let counts = trials.each_seed(|seed, counts| {
        let met = run(seed);
        if seed.is_multiple_of(TWICE_ONE_IN) {
            assert_eq!(met, run(seed), "two runs of seed {seed} differ");
            counts.add("run twice", 1);
        }
        count(&met, counts);
    });
    check_counts(&counts, trials.count);
    counts
}

fn count(met: &Met, counts: &mut Counts) {
    counts.add("histories", 1);
    counts.add("faults met", u64::from(met.name.is_some()));
    if let Some(name) = met.name {
        counts.add(&format!("met: {name}"), 1);
    }
    if let Some(files) = met.files {
        counts.add(&format!("met in: {files}"), 1);
    }
    for (name, more) in &met.numbers {
        counts.add(name, *more);
    }
}

/// Whether the run was worth its name.
fn check_counts(counts: &Counts, histories: u64) {
    if histories < 2_000 {
        return;
    }
    assert!(counts.get("faults met") * 10 >= histories * 7, "most faults are not met: {counts}");
    let wanted = histories / HISTORIES_PER_FAULT;
    for name in NAMES.iter().copied().chain(["full disk"]) {
        let name = format!("met: {name}");
        assert!(counts.get(&name) >= wanted, "fewer than {wanted} times {name}: {counts}");
    }
    for name in ["shards stopped", "shards that went on when space returned", "starts refused"] {
        assert!(counts.get(name) >= wanted, "hardly any {name}: {counts}");
    }
}

#[cfg(test)]
mod tests {
    use super::plan::Plan;
    use super::story::{run, run_planned};

    /// Found by reading on: an older state of the manifest was believed, and the tables that it does
    /// not name were removed as orphans.
    #[test]
    fn a_manifest_that_is_read_in_part_is_not_taken_for_a_short_one() {
        let met = (0..400).filter(|seed| run_planned(*seed, |_| Plan::short_manifest()).name.is_some());
        assert!(met.count() > 200);
    }

    /// A start read an old block in place of the manifest's end, and removed the tables that the end
    /// names; the next start, which read it whole, did not find them.
    #[test]
    fn tables_that_only_the_end_of_the_manifest_names_outlive_a_start_that_did_not_see_it() {
        assert_eq!(run(45_529).name, Some("stale read"));
    }
}
