//! The canary: a class whose trials fail, so that a test can see the whole way of a failure: the trial
//! panics, the line that replays it is printed, the others go on, the command ends with an error. A
//! driver that loses failures on that way would pass every class.

use crate::trials::{Class, Counts, Trials};

/// Every second trial fails.
pub const CANARY: Class = Class {
    name: "canary",
    about: "the canary: trials with odd seeds must fail, and the command with them",
    unit: "trials",
    submission: 4,
    full: 4,
    release: 4,
    run,
};

fn run(trials: &Trials) -> Counts {
    trials.each_seed(|seed, counts| {
        assert!(seed.is_multiple_of(2), "seed {seed}: the canary is dead, as it must be");
        counts.add("canaries alive", 1);
    })
}
