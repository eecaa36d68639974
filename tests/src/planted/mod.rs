//! Planted bugs: what shows that the other classes can fail.
//!
//! A *patch* is a small mistake in the product, applied to a scratch copy of the repository and
//! built there; the class it names must then fail within the trials it is given. Nothing in the
//! product knows of any of this: there is no switch that turns a bug on.
//!
//! The scratch copy and its build live in `<target>/planted`, so that neither the binaries of this
//! build nor its cache are touched. Files are only written when they differ, so the second patch
//! builds only what it changes. Before the patches comes the copy as it is, which must *pass*:
//! a class that fails on sound code would catch everything.

mod patches;
mod scratch;

use crate::trials::{Class, Counts, Trials};

pub use patches::{PATCHES, Patch};
use scratch::{Outcome, Scratch};

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

/// Trials that a class gets on the sound copy.
const SOUND_TRIALS: u64 = 50;

fn run(trials: &Trials) -> Counts {
    let scratch = Scratch::new();
    let first = usize::try_from(trials.first_seed).expect("patches are few");
    let count = usize::try_from(trials.count).expect("patches are few");
    let patches: Vec<&Patch> = PATCHES.iter().skip(first).take(count).collect();
    assert!(!patches.is_empty(), "there are {} planted bugs, the first is number 0", PATCHES.len());
    let mut counts = Counts::default();
    scratch.restore();
    scratch.build();
    let mut classes: Vec<&str> = patches.iter().map(|patch| patch.class).collect();
    classes.sort_unstable();
    classes.dedup();
    for class in classes {
        match scratch.run(class, SOUND_TRIALS) {
            Outcome::Passed => counts.add("classes passed on sound code", 1),
            Outcome::Failed(said) => panic!("{class} fails without a planted bug:\n{said}"),
        }
    }
    let mut missed = Vec::new();
    for patch in patches {
        scratch.restore();
        scratch.apply(patch);
        scratch.build();
        match scratch.run(patch.class, patch.trials) {
            Outcome::Failed(said) => {
                let why = said.lines().find(|line| line.contains(patch.says));
                let why = why.unwrap_or_else(|| {
                    panic!("{}: failed, but not by {:?}:\n{said}", patch.name, patch.says)
                });
                println!("caught {} by {}: {}", patch.name, patch.class, why.trim());
                counts.add("caught", 1);
            }
            Outcome::Passed => missed.push(patch.name),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
    counts
}
