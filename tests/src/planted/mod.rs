//! Planted bugs: what shows that the other classes can fail.
//!
//! * `planted`: a *patch* is a small mistake in the product, or something that only costs, applied to a
//!   scratch copy of the repository and built there; the class it names must then fail within the trials
//!   it is given, in the words it is expected to fail with;
//! * `lies`: no mistake but a disk that lies; the storage histories must fail;
//! * `canary`: trials that fail, for the driver.
//!
//! Nothing in the product knows of any of this: there is no switch that turns a bug on.
//!
//! The scratch copy and its build live in `<target>/planted`, so that neither the binaries of this
//! build nor its cache are touched. Files are only written when they differ, so the second patch
//! builds only what it changes. Before the patches the same trials run on the sound code, in this
//! process, and must *pass*: a class that fails on sound code would catch everything.

mod canary;
mod lies;
mod outcome;
mod patches;
mod scratch;

use crate::trials::{Class, Counts, Trials};

pub use canary::CANARY;
pub use lies::{LIES, LYING_DISK};
pub use patches::{PATCHES, Patch};

use outcome::{Outcome, command, outcome};
use scratch::Scratch;

/// Every planted bug is caught by the class it names.
pub const PLANTED: Class = Class {
    name: "planted",
    about: "each bug planted into a scratch copy is caught by the class it names",
    unit: "bugs",
    submission: 2,
    full: PATCHES.len() as u64,
    release: PATCHES.len() as u64,
    run,
};

fn run(trials: &Trials) -> Counts {
    let first = usize::try_from(trials.first_seed).expect("patches are few");
    let count = usize::try_from(trials.count).expect("patches are few");
    let patches: Vec<&Patch> = PATCHES.iter().skip(first).take(count).collect();
    assert!(!patches.is_empty(), "there are {} planted bugs, the first is number 0", PATCHES.len());
    let mut counts = Counts::default();
    let mut classes: Vec<(&str, u64)> = patches.iter().map(|patch| (patch.class, patch.trials)).collect();
    // The most trials of each class.
    classes.sort_unstable_by(|a, b| b.cmp(a));
    classes.dedup_by_key(|(class, _)| *class);
    for (class, count) in classes {
        let class = Class::named(class).expect("patches name classes of the list");
        (class.run)(&Trials { class: class.name, first_seed: 0, count, ..trials.clone() });
        counts.add("classes passed on sound code", 1);
    }
    let scratch = Scratch::new();
    let mut missed = Vec::new();
    for patch in patches {
        scratch.restore();
        scratch.apply(patch);
        scratch.build(patch.needs_test_build());
        match scratch.run(patch.class, patch.trials) {
            Outcome::Failed(said) => {
                let line = said.line_with(patch.says, patch.name);
                println!("caught {} by {}: {line}", patch.name, patch.class);
                counts.add("caught", 1);
            }
            Outcome::Passed => missed.push(patch.name),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
    counts
}
