//! Real server processes under fire: kills, power cuts, torn sectors, failing and full disks,
//! flipped bits, stopped processes and throttled disks.
//!
//! Everything here runs the real binary on real files. [`Oracle`] knows what may stand under every
//! key after whatever happened; the modules beside it make things happen. Most classes need root for
//! loop devices and mounts. What a machine cannot do is printed with its reason and counted as
//! skipped; with `PINION_REQUIRE_TOOLS=1` it is a failure, so that a machine that is known to have
//! everything cannot lose a test in silence.
//!
//! A trial is one *life*: a data directory that goes through several kills or cuts, so that what
//! was recovered is recovered from again. A life and all random choices in it follow from its seed;
//! how far the server had come at a given moment does not.

mod cuts;
mod faults;
mod fuse;
mod image;
mod kill;
mod machine;
mod oracle;
mod pass_through;
mod place;
mod real_faults;
mod real_flips;
mod stopped;
mod template;
mod throttle;
mod torn;
mod volatile;

pub use cuts::POWER_CUT;
pub use kill::KILL;
pub use oracle::{Oracle, Progress, Rules, WrittenMeanwhile};
pub use real_faults::REAL_FAULTS;
pub use real_flips::REAL_FLIPS;
pub use stopped::STOPPED;
pub use template::{Records, Template, check_answers, files, kind};
pub use torn::TORN;

use crate::trials::{Counts, Trials};

/// Set to 1 where every tool is known to work: then nothing may be skipped.
const REQUIRE_VARIABLE: &str = "PINION_REQUIRE_TOOLS";

/// What a skipped trial is counted as.
const SKIPPED: &str = "skipped";

/// Runs as many lives as it takes for `count` trials, `each` in one life.
fn lives(trials: &Trials, each: u64, life: impl Fn(u64, &mut Counts) + Sync) -> Counts {
    Trials { count: trials.count.div_ceil(each), ..trials.clone() }.each_seed(life)
}

/// Says why the trials of a class cannot run here, and counts them.
///
/// # Panics
/// When this machine is said to have every tool.
pub fn skip(class: &str, count: u64, reason: &str) -> Counts {
    assert!(
        std::env::var_os(REQUIRE_VARIABLE).is_none_or(|value| value != "1"),
        "{class} cannot run, and {REQUIRE_VARIABLE} is 1: {reason}"
    );
    println!("skipped {count} of {class}: {reason}");
    let mut counts = Counts::default();
    counts.add(SKIPPED, count);
    counts
}
