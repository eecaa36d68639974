//! The engine against a map: generated histories, every answer checked, every history twice.
//!
//! A history is a [`plan::Plan`]: sizes, adversarial keys, and steps (writes of every kind, batches,
//! reads, scans, time and clocks that go forward and back, namespaces, flushes, clean restarts with
//! other sizes, kills). It runs on the unmodified engine in a simulated world ([`run`]), sized so
//! small that short histories flush, compact and roll their logs, beside a [`reference`]: a map that
//! knows what every answer must be. Steps are awaited one by one, or started together on different
//! keys, so each answer is known exactly; only writes in flight at a kill have two outcomes.
//!
//! Three histories of four run a second time (metamorphic): other schedule, other sizes, other
//! disk block, flushes, settles and restarts inserted. The answers and the final scans of both must
//! be the same. Stamps differ from run to run, so answers are compared without them; plans keep
//! their times on a grid so that no answer hangs on how long an operation took.
//!
//! This is a state machine test with shrinking, written here instead of with proptest's: the state
//! machine's transitions are plain data that need no state to be generated ([`plan`]), so leaving
//! steps out is all the shrinking there is to do, it needs no strategy per type, and one seed names
//! a history as everywhere in these trials. A failure prints the shrunk plan as JSON; kept in
//! `cases/` it runs for good, whatever becomes of the generator.
//!
//! What is counted is asserted: over [`BROAD`] histories nothing in [`MUST_OCCUR`] stays untested.

mod batches;
mod draw;
mod keys;
mod plan;
mod reference;
mod run;
mod scans;
mod setup;
mod shrink;
mod writes;

use draw::draw_plan;
use plan::{Plan, Side};
use run::{Wrong, run};

use crate::trials::{Class, Counts, Trials};

/// From so many histories on everything must have occurred.
const BROAD: u64 = 2_000;

/// Histories of a hundred that flush, and that compact, at least.
const FLUSHED_MIN: u64 = 90;
const COMPACTED_MIN: u64 = 50;

/// Counts that a broad run may not leave at zero.
const MUST_OCCUR: &[&str] = &[
    "puts",
    "deletes",
    "conditional puts",
    "conditional deletes",
    "updates: add",
    "updates: append",
    "updates: set range",
    "updates: set expiry",
    "batches",
    "batches repeated",
    "batches partly superseded",
    "batches superseded",
    "batches too old",
    "groups of writes in flight together",
    "buffered writes",
    "late stamps",
    "stamps ahead",
    "stamps too old",
    "writes applied",
    "writes repeated",
    "writes repeated to no effect",
    "writes superseded",
    "writes refused as overloaded",
    "conditions that failed",
    "updates that do not fit the value",
    "values that would be too large",
    "refused: EmptyKey",
    "refused: LongKey",
    "refused: LargeValue",
    "refused: FarAhead",
    "refused: StampedCondition",
    "refused: EmptyBatch",
    "refused: LongBatch",
    "refused: LargeBatch",
    "refused: PastDeadline",
    "gets",
    "gets answered from memory",
    "row cache hits",
    "scans of a tag, forward",
    "scans of a tag, backward",
    "scans by place, forward",
    "scans by place, backward",
    "scans in order, forward",
    "scans in order, backward",
    "scans between two keys",
    "pages that go on from a cursor",
    "steps between the pages of a scan",
    "comparisons of everything",
    "flushes",
    "compactions",
    "runs merged with each other",
    "tables moved",
    "tables dropped whole",
    "jobs of the sweep",
    "values that became tombstones",
    "records compacted away",
    "operations replayed",
    "seen in runs",
    "seen in level 4",
    "seen in level 5",
    "seen in level 6",
    "times elapsed",
    "clocks set forward",
    "clocks set back",
    "restarts with other sizes",
    "kills",
    "kills amid writes",
    "writes acknowledged before a kill",
    "writes in doubt after a kill",
    "namespaces made",
    "namespaces dropped",
    "histories ended by dropping every namespace",
    "steps inserted into second runs",
    "second runs with the same answers",
];

/// The class.
pub const MODEL: Class = Class {
    name: "model",
    about: "every answer of the engine is a map's, whatever the sizes, restarts and clocks",
    unit: "histories",
    submission: 2_000,
    full: 100_000,
    release: 5_000_000,
    run: histories,
};

/// Runs histories; panics when one fails, or a broad run was too tame.
fn histories(trials: &Trials) -> Counts {
    let counts = trials.each_seed(history);
    if trials.count >= BROAD {
        for name in MUST_OCCUR {
            assert!(counts.get(name) > 0, "{name}: none in {} histories", trials.count);
        }
    }
    if trials.count >= 100 {
        let share = |name| counts.get(name) * 100 / trials.count;
        let (flushed, compacted) = (share("histories that flush"), share("histories that compact"));
        assert!(
            flushed >= FLUSHED_MIN && compacted >= COMPACTED_MIN,
            "{flushed} % flush, {compacted} % compact"
        );
    }
    counts
}

/// One history; makes it smaller if it fails.
fn history(seed: u64, counts: &mut Counts) {
    let plan = draw_plan(seed);
    let Err(Wrong(what)) = check(&plan, counts) else { return };
    eprintln!("seed {seed} fails, and is made smaller: {what}");
    let shrunk = shrink::shrink(plan, |smaller| check(smaller, &mut Counts::default()).is_err());
    let what = check(&shrunk, &mut Counts::default()).err().map_or(what, |Wrong(what)| what);
    eprintln!("to be kept in tests/src/model/cases/:\n{}", as_json(&shrunk));
    for step in &shrunk.steps {
        eprintln!("  {step:?}");
    }
    panic!("seed {seed}, {} steps: {what}", shrunk.steps.len());
}

/// Runs a plan once, or twice and compares.
fn check(plan: &Plan, counts: &mut Counts) -> Result<(), Wrong> {
    let flushes = counts.get("flushes");
    let compactions = counts.get("compactions");
    let first = run(plan, Side::First, counts)?;
    counts.add("histories that flush", u64::from(counts.get("flushes") > flushes));
    counts.add("histories that compact", u64::from(counts.get("compactions") > compactions));
    if !plan.twice {
        return Ok(());
    }
    let second = run(plan, Side::Second, counts)?;
    if first != second {
        let at = first.iter().zip(&second).take_while(|(one, two)| one == two).count();
        let (one, two) = (first.get(at), second.get(at));
        return Err(Wrong(format!(
            "answer {at} of {} is {one:?}, and {two:?} with other sizes",
            first.len()
        )));
    }
    counts.add("second runs with the same answers", 1);
    counts.add("answers compared", first.len() as u64);
    Ok(())
}

fn as_json(plan: &Plan) -> String {
    serde_json::to_string(plan).expect("a plan is plain data")
}

/// Runs a plan that was kept.
///
/// # Panics
/// When it fails, or is no plan.
pub fn kept_case(name: &str, json: &str) {
    let plan: Plan = serde_json::from_str(json).expect("a plan as it was printed");
    if let Err(Wrong(what)) = check(&plan, &mut Counts::default()) {
        panic!("{name}: {what}");
    }
}
