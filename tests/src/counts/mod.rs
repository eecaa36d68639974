//! What a request costs, in counts: instructions, bytes copied, allocations, system calls, synced writes.
//!
//! Times on a shared machine are good to a fifth; counts are good to the last digit, so they can gate a
//! submission. Three kinds, each counted where it is exact:
//!
//! * `frames`, `engine`, `server`: the instructions of our own code for one request, bytes that it has
//!   memcpy copy, times that it asks for memory. The unmodified engine and server run in the in-memory
//!   world, in a process that [`stepper`] steps through; what the world does is left out ([`marks`]);
//! * `process`: system calls of a real server's core, and its synced writes ([`calls`]).
//!
//! `tests/counts.txt` says how much each may be at most, for a dev build (what every submission is
//! tested with) and for a release build. A figure over its bound fails; one that has become far smaller
//! asks for a tighter bound. `PINION_COUNTS=propose` prints the list as it should be instead
//! (`perf/counts.sh`).

mod bounds;
mod calls;
mod crowd;
mod marks;
mod stepper;
mod work;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::process::profile_directory;
use crate::trials::{Class, Counts, Trials};

pub use work::COUNTED_WORK;

use bounds::{BOUNDS, Build, Figure, Verdict, judge, parse, propose, shown};
use stepper::Stepper;
use work::{KNOWN, KNOWN_BYTES, KNOWN_REQUESTS, WORKS};

/// Counts and compares with the bounds.
pub const COUNTS: Class = Class {
    name: "counts",
    about: "no request costs more instructions, copies, allocations or system calls than its bound",
    unit: "rounds",
    submission: 1,
    full: 1,
    release: 1,
    run,
};

/// Set to `propose`, this variable has the list of bounds printed as it follows from what is counted.
const VARIABLE: &str = "PINION_COUNTS";

/// Everything that could be counted, and what could not, with the reason.
#[derive(Debug, Default)]
struct Counted {
    figures: Vec<Figure>,
    skipped: Vec<(String, String)>,
}

fn run(trials: &Trials) -> Counts {
    let mut counts = Counts::default();
    for _ in 0..trials.count {
        let counted = count(trials.workers);
        let Some(build) = Build::this(BOUNDS) else {
            println!("no bounds for a build that is optimised like this one; figures: {:?}", counted.figures);
            counts.add("figures without bounds", counted.figures.len() as u64);
            continue;
        };
        if std::env::var(VARIABLE).is_ok_and(|wanted| wanted == "propose") {
            print!("{}", propose(BOUNDS, &counted.figures, build.profile));
            continue;
        }
        if !build.same_compiler {
            println!("another compiler than that of the bounds: its instructions are judged with more room");
        }
        print_figures(&counted, build);
        let verdict = enforce(&counted, build);
        counts.add("figures within their bounds", verdict.within as u64);
        counts.add("figures far below their bounds", verdict.loose.len() as u64);
        counts.add("figures skipped", counted.skipped.len() as u64);
    }
    counts
}

/// Compares with the bounds in force.
///
/// # Panics
/// When a figure is over its bound, or one is without the other.
fn enforce(counted: &Counted, build: Build) -> Verdict {
    let skipped: Vec<String> = counted.skipped.iter().map(|(name, _)| name.clone()).collect();
    let verdict = judge(&parse(BOUNDS), &counted.figures, &skipped, build);
    for line in &verdict.loose {
        println!("{line}: tighten its bound in tests/counts.txt (perf/counts.sh --propose)");
    }
    let wrong = &verdict.wrong;
    assert!(
        wrong.is_empty(),
        "{} of {} figures of a {:?} build (tests/counts.txt, perf/counts.sh):\n  {}",
        wrong.len(),
        counted.figures.len(),
        build.profile,
        wrong.join("\n  ")
    );
    verdict
}

/// Counts everything, as many works at a time as there are workers.
fn count(workers: usize) -> Counted {
    let mut counted = Counted::default();
    let program = profile_directory().join("pinion-tests");
    match Stepper::new(program).and_then(|stepper| step_all(&stepper, workers)) {
        Ok(figures) => counted.figures = figures,
        Err(reason) => {
            let kinds = ["frames: ", "engine: ", "server: "];
            counted.skipped.extend(kinds.map(|kind| (kind.to_owned(), reason.clone())));
        }
    }
    let calls = calls::count();
    counted.figures.extend(calls.figures);
    counted.skipped.extend(calls.skipped);
    counted
}

fn step_all(stepper: &Stepper, workers: usize) -> Result<Vec<Figure>, String> {
    let known = stepper.count(&KNOWN)?;
    let expected = (KNOWN_REQUESTS, KNOWN_REQUESTS * KNOWN_BYTES as u64, KNOWN_REQUESTS);
    assert_eq!((known.copies, known.copied_bytes, known.allocations), expected, "known work: {known:?}");
    let next = AtomicUsize::new(0);
    let found = Mutex::new(BTreeMap::new());
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(work) = WORKS.get(at) else { break };
            let steps = stepper.count(work);
            found.lock().expect("nothing panics while it holds this map").insert(at, steps);
        }
    };
    thread::scope(|scope| {
        for _ in 0..workers.max(1) {
            scope.spawn(work);
        }
    });
    let found = found.into_inner().expect("the workers have ended");
    let mut figures = Vec::new();
    for (work, steps) in WORKS.iter().zip(found.into_values()) {
        let steps = steps?;
        for (what, count) in [
            ("instructions", steps.instructions),
            ("bytes copied", steps.copied_bytes),
            ("allocations", steps.allocations),
        ] {
            let value = count as f64 / steps.requests as f64;
            figures.push(Figure { name: format!("{}: {what}", work.name), value });
        }
    }
    Ok(figures)
}

/// Prints the figures beside their bounds.
fn print_figures(counted: &Counted, build: Build) {
    let bounds = parse(BOUNDS);
    println!("{:<58} {:>8} {:>8}", "for one request", "counted", "at most");
    for Figure { name, value } in &counted.figures {
        let bound = bounds.iter().find(|bound| bound.name == *name);
        let most = bound.map_or_else(|| "-".to_owned(), |bound| shown(bound.at(build)));
        println!("{name:<58} {:>8} {most:>8}", shown(*value));
    }
    for (name, reason) in &counted.skipped {
        println!("skipped {name}: {reason}");
    }
}

#[cfg(test)]
mod tests {
    use super::bounds::Profile;
    use super::*;

    const DEV: Build = Build { profile: Profile::Dev, same_compiler: true };

    /// Figures that are just what they may be.
    fn at_their_bounds(build: Build) -> Counted {
        let figures =
            parse(BOUNDS).into_iter().map(|bound| Figure { value: bound.at(build), name: bound.name });
        Counted { figures: figures.collect(), skipped: Vec::new() }
    }

    #[test]
    fn figures_at_the_bounds_in_force_pass() {
        for profile in [Profile::Dev, Profile::Release] {
            let build = Build { profile, same_compiler: true };
            let counted = at_their_bounds(build);
            assert_eq!(enforce(&counted, build).within, counted.figures.len());
        }
    }

    #[test]
    #[should_panic(expected = "server: get in 16: instructions: ")]
    fn one_figure_that_is_too_large_fails() {
        let mut counted = at_their_bounds(DEV);
        let name = "server: get in 16: instructions";
        let figure = counted.figures.iter_mut().find(|figure| figure.name == name).unwrap();
        figure.value *= 1.01;
        enforce(&counted, DEV);
    }

    #[test]
    fn where_ptrace_is_refused_the_rest_is_still_compared() {
        let mut counted = at_their_bounds(DEV);
        let refused = "ptrace is refused here: EPERM".to_owned();
        counted.figures.retain(|figure| figure.name.ends_with(calls::SYNCED_WRITES));
        counted.skipped = ["frames: ", "engine: ", "server: ", "process: "]
            .map(|kind| (kind.to_owned(), refused.clone()))
            .into();
        assert!(enforce(&counted, DEV).within > 0);
        counted.figures[0].value *= 2.0;
        let failed = std::panic::catch_unwind(|| enforce(&counted, DEV));
        assert!(failed.is_err(), "what could be counted is over its bound");
    }
}
