//! Sweeps: a short history that goes down at each of its file operations in turn, from the first of
//! its opening to the last of its closing, and then, for a few of those crashes, at each operation of
//! the recovery as well.
//!
//! A random crash finds what is likely. Between two operations that follow each other at once there is
//! a moment that it hits once in thousands of histories; a sweep hits each once.
//!
//! All histories of a sweep have one seed, so they take the same course up to their crash: that the
//! crash comes, and that the operations swept are those of the first run, is checked.

use super::history::{Down, Ending, Life, Totals, run_shaped};
use super::shape::Shape;
use crate::trials::{Class, Counts, Trials};
use crate::world::Random;

/// The class of these sweeps.
pub const STORAGE_SWEEP: Class = Class {
    name: "storage-sweep",
    about: "a crash at every file operation of a short history, and of its recovery, loses nothing",
    unit: "sweeps",
    submission: 24,
    full: 1_000,
    release: 20_000,
    run: run_sweeps,
};

/// Crashes of a sweep whose recovery is swept as well.
const RECOVERIES_SWEPT: u64 = 3;

/// Operations that may be under way when a shard is closed: readings ahead and removals.
const OUTLIVING_MAX: u64 = 4;

/// Sweeps of which fewer may all lie below the shares of `check_counts` by chance.
const SWEEPS_CHECKED_MIN: u64 = 24;

fn run_sweeps(trials: &Trials) -> Counts {
    let counts = trials.each_seed(sweep);
    check_counts(&counts, trials.count);
    counts
}

/// One sweep.
fn sweep(seed: u64, counts: &mut Counts) {
    let mut random = Random::labelled(seed, 0x5eeb);
    let steps = random.between(35, 60) as u32;
    let down = if seed.is_multiple_of(2) { Down::PowerCut } else { Down::Kill };
    let first = |at: u64| Life { steps, ending: Ending::CrashOrClose(at, down) };

    let whole = run_shaped(seed, &[first(u64::MAX)], Shape::short);
    assert_eq!((whole.crashes, whole.closes), (0, 1), "a history that nothing stops is closed");
    let operations = whole.operations_by_life[0];
    let swept: Vec<u64> = (0..RECOVERIES_SWEPT).map(|_| random.below(operations)).collect();
    for at in 0..operations {
        let crashed = run_shaped(seed, &[first(at)], Shape::short);
        if crashed.closes == 1 && at + OUTLIVING_MAX >= operations {
            // What is left was under way when the node had ended: the kernel's, not the node's.
            break;
        }
        assert_eq!((crashed.crashes, crashed.closes), (1, 0), "no crash at {at} of {operations}");
        count_crashes(&crashed, down, counts);
        if !swept.contains(&at) {
            continue;
        }
        let recovery = crashed.operations_by_life[1] - crashed.operations_by_life[0];
        for again_at in 0..recovery {
            let again_down = if random.one_in(2) { Down::Kill } else { Down::PowerCut };
            let again = Life { steps: 0, ending: Ending::CrashEarly(again_at, again_down) };
            let twice = run_shaped(seed, &[first(at), again], Shape::short);
            assert_eq!(twice.crashes, 2, "no crash at {again_at} of {recovery} after {at} of {operations}");
            counts.add("crashes in recovery", 1);
            count_crashes(&twice, again_down, counts);
        }
        counts.add("recoveries swept", 1);
    }
    counts.add("file operations swept", operations);
    counts.add("sweeps", 1);
    counts.add("sweeps of histories that flushed", u64::from(whole.flushes > 0));
    counts.add("sweeps of histories that compacted", u64::from(whole.compactions > 0));
    counts.add("sweeps of histories that recycled a log segment", u64::from(whole.recycled > 0));
}

/// What the last crash of a history was, and what the history's crashes took.
fn count_crashes(totals: &Totals, down: Down, counts: &mut Counts) {
    let name = if down == Down::Kill { "kills" } else { "power cuts" };
    counts.add(name, 1);
    counts.add("crashes", 1);
    counts.add("recoveries", totals.recoveries);
    counts.add("writes in flight that were kept", totals.recovered.kept);
    counts.add("writes in flight that were lost", totals.recovered.lost);
    counts.add("buffered writes lost", totals.recovered.lost_buffered);
}

/// Whether the run was worth its name.
fn check_counts(counts: &Counts, sweeps: u64) {
    if sweeps < SWEEPS_CHECKED_MIN {
        return;
    }
    let percent = |name: &str| counts.get(name) * 100 / sweeps;
    assert!(percent("sweeps of histories that flushed") >= 90, "too few histories flush: {counts}");
    assert!(percent("sweeps of histories that compacted") >= 50, "too few histories compact: {counts}");
    for name in ["kills", "power cuts", "crashes in recovery", "writes in flight that were kept"] {
        assert!(counts.get(name) >= sweeps, "hardly any {name}: {counts}");
    }
}
