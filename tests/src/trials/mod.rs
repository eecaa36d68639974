//! Trials: what is shown by counts, class by class.
//!
//! A [`Class`] is one promise and the machine that tries to break it: so many histories, kills,
//! frames. Every class runs in three sizes: with every submission (inside `cargo test`), in a full
//! run before a release candidate, and before a release. One command per class prints its counts:
//!
//! ```sh
//! cargo run --release -p pinion-tests -- list
//! cargo run --release -p pinion-tests -- storage-crash --count 20000
//! ```
//!
//! A trial is one seed. A trial that fails panics; the run goes on with a few others, prints for
//! each failure one line that replays it, and fails at the end.

mod classes;
mod counts;
mod result;

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

pub use classes::{CLASSES, MUST_FAIL, PARTS};
pub use counts::Counts;
pub use result::{append_result, result_json};

/// Failures after which a run stops looking for more.
const FAILURES_MAX: usize = 8;

/// How often a long run says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

thread_local! {
    /// The command that runs this thread's trial again.
    static REPLAY: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Has every panic of a trial followed by the line that replays it. A hook, because where a panic
/// aborts (release builds) nothing runs after it.
fn say_how_to_replay() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panicked| {
            before(panicked);
            if let Some(replay) = REPLAY.take() {
                eprintln!("replay: {replay}");
            }
        }));
    });
}

/// One class of trials.
#[derive(Debug)]
pub struct Class {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it does and which promise it checks, in one line.
    pub about: &'static str,
    /// What is counted: histories, kills, frames, seconds.
    pub unit: &'static str,
    /// How many of them with every submission.
    pub submission: u64,
    /// How many of them in a full run.
    pub full: u64,
    /// How many of them before a release.
    pub release: u64,
    /// Runs them; panics when one fails.
    pub run: fn(&Trials) -> Counts,
}

impl Class {
    /// The class of a name, those that must fail and those that are parts of others included.
    pub fn named(name: &str) -> Option<&'static Self> {
        CLASSES.iter().chain(MUST_FAIL).chain(PARTS).find(|class| class.name == name)
    }

    /// Runs the class in the size of a submission, prints its counts and gives them.
    ///
    /// # Panics
    /// When a trial fails, or there is no class of this name.
    pub fn submit(name: &str) -> Counts {
        let class = Self::named(name).expect("the class is in the list");
        let trials = Trials::new(class, class.submission);
        let begun = Instant::now();
        let counts = (class.run)(&trials);
        println!("{}: {counts} in {:.1} s", class.name, begun.elapsed().as_secs_f64());
        counts
    }
}

/// One run of a class: which seeds, on how many threads.
#[derive(Debug, Clone)]
pub struct Trials {
    /// The class, for the line that replays a failure.
    pub class: &'static str,
    /// The first seed. Seeds follow each other.
    pub first_seed: u64,
    /// How many trials, in the class's unit.
    pub count: u64,
    /// Threads that run trials.
    pub workers: usize,
    /// Whether to say on standard error how far it is.
    pub progress: bool,
}

impl Trials {
    /// So many trials of a class from seed 0 on every online cpu. `PINION_SEED` replaces the first
    /// seed; with it goes one trial only.
    ///
    /// # Panics
    /// When `PINION_SEED` is not a number.
    pub fn new(class: &Class, count: u64) -> Self {
        let workers = pinion_runtime::online_cpus().len().max(1);
        let mut trials = Self { class: class.name, first_seed: 0, count, workers, progress: false };
        if let Ok(seed) = std::env::var("PINION_SEED") {
            trials.first_seed = seed.parse().expect("PINION_SEED is a number");
            trials.count = 1;
        }
        trials
    }

    /// Runs `trial` once for each seed, on all workers, and adds up what it counted.
    ///
    /// # Panics
    /// When a trial has panicked; each failure is followed on standard error by the line that
    /// replays it.
    pub fn each_seed(&self, trial: impl Fn(u64, &mut Counts) + Sync) -> Counts {
        let next = AtomicU64::new(0);
        let stop = AtomicBool::new(false);
        let sum = Mutex::new(Counts::default());
        let failures = Mutex::new(Vec::new());
        let begun = Instant::now();
        let said = Mutex::new(begun);
        say_how_to_replay();
        let work = || {
            let mut counts = Counts::default();
            while !stop.load(Ordering::Relaxed) {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= self.count {
                    break;
                }
                let seed = self.first_seed.wrapping_add(index);
                let mut one = Counts::default();
                REPLAY.set(Some(self.replay(seed)));
                if catch_unwind(AssertUnwindSafe(|| trial(seed, &mut one))).is_err() {
                    let mut failures = failures.lock().expect("nothing panics while it holds this list");
                    failures.push(seed);
                    stop.fetch_or(failures.len() >= FAILURES_MAX, Ordering::Relaxed);
                }
                counts.merge(&one);
                self.say(index + 1, begun, &said);
            }
            sum.lock().expect("nothing panics while it holds the sum").merge(&counts);
        };
        std::thread::scope(|scope| {
            for _ in 0..self.workers.max(1) {
                scope.spawn(work);
            }
        });
        let failures = failures.into_inner().expect("the workers have ended");
        assert!(failures.is_empty(), "{}: {} trials failed: {failures:?}", self.class, failures.len());
        sum.into_inner().expect("the workers have ended")
    }

    /// The command that runs one trial again.
    pub fn replay(&self, seed: u64) -> String {
        let profile = if cfg!(debug_assertions) { "" } else { " --release" };
        format!("cargo run{profile} -p pinion-tests -- {} --seed {seed} --count 1", self.class)
    }

    fn say(&self, done: u64, begun: Instant, said: &Mutex<Instant>) {
        if !self.progress {
            return;
        }
        let mut said = said.lock().expect("nothing panics while it holds this moment");
        if said.elapsed() >= PROGRESS_EVERY {
            *said = Instant::now();
            let per_second = done as f64 / begun.elapsed().as_secs_f64();
            eprintln!("{}: {done} of {}, {per_second:.0}/s", self.class, self.count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trials(count: u64) -> Trials {
        Trials { class: "none", first_seed: 10, count, workers: 2, progress: false }
    }

    #[test]
    fn every_seed_runs_once_and_counts_add_up() {
        let seeds = Mutex::new(Vec::new());
        let counts = trials(100).each_seed(|seed, counts| {
            seeds.lock().unwrap().push(seed);
            counts.add("trials", 1);
            counts.add("odd", seed % 2);
        });
        let mut seeds = seeds.into_inner().unwrap();
        seeds.sort_unstable();
        assert_eq!(seeds, (10..110).collect::<Vec<_>>());
        assert_eq!((counts.get("trials"), counts.get("odd"), counts.get("even")), (100, 50, 0));
    }

    #[test]
    #[should_panic(expected = "none: 1 trials failed: [17]")]
    fn a_failing_trial_fails_the_run_and_is_named() {
        trials(20).each_seed(|seed, _| assert_ne!(seed, 17, "this one is meant to fail"));
    }
}
