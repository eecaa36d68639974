//! Lying disks: storage histories in a world whose disk promises a durability that is not there, or
//! gives what a block held before. The engine is the sound one and cannot notice most of it, so the
//! histories must fail: an oracle that explains such a disk away would also explain an engine that
//! forgets a sync.
//!
//! The histories are those of the class `storage-crash`, which passes on an honest disk. They run in
//! a process of their own, because a failing trial ends a release build. That process is the command
//! of this crate in the build's directory: cargo puts it there before it runs integration tests.

use super::{Outcome, command, outcome};
use crate::storage::{draw_lives, run_on};
use crate::trials::{Class, Counts, Trials};
use crate::world::{Fault, Faults, Operation};

/// Every lie is caught.
pub const LIES: Class = Class {
    name: "lies",
    about: "storage histories on a disk that lies fail: the oracle sees what is missing",
    unit: "lies",
    submission: ALL.len() as u64,
    full: ALL.len() as u64,
    release: ALL.len() as u64,
    run,
};

/// The histories themselves.
pub const LYING_DISK: Class = Class {
    name: "lying-disk",
    about: "histories on a disk that lies: seed 100,000 x lie + history; what the class lies runs",
    unit: "histories",
    submission: 1,
    full: 1,
    release: 1,
    run: run_histories,
};

/// Seeds of one lie.
const SEEDS_PER_LIE: u64 = 100_000;

/// What a disk does, and how that is seen.
struct Lie {
    name: &'static str,
    operation: Operation,
    fault: Fault,
    /// Once in so many operations.
    one_in: u64,
    /// Within how many histories it is caught.
    histories: u64,
    /// Part of what the oracle then says.
    says: &'static str,
}

const ALL: [Lie; 4] = [
    Lie {
        name: "a file's sync is skipped",
        operation: Operation::Sync,
        fault: Fault::Skipped,
        one_in: 32,
        histories: 300,
        // Whichever file lacks it: the manifest, CURRENT, a table.
        says: "the shard does not open: data/0/",
    },
    Lie {
        name: "a directory's sync is skipped",
        operation: Operation::SyncDirectory,
        fault: Fault::Skipped,
        one_in: 32,
        histories: 300,
        says: "table: entity not found",
    },
    Lie {
        name: "a durable write ends before it is durable",
        operation: Operation::Write,
        fault: Fault::Early,
        one_in: 8,
        histories: 300,
        says: "magic: expected PNMF, found",
    },
    Lie {
        name: "a read gives what the block held before",
        operation: Operation::Read,
        fault: Fault::Stale,
        one_in: 32,
        histories: 300,
        says: "identity of a table: expected table",
    },
];

fn run(trials: &Trials) -> Counts {
    let mut counts = Counts::default();
    let mut missed = Vec::new();
    for index in trials.first_seed..trials.first_seed + trials.count {
        let lie = lie(index);
        match outcome(&command(), LYING_DISK.name, index * SEEDS_PER_LIE, lie.histories) {
            Outcome::Failed(said) => {
                println!("caught that {}: {}", lie.name, said.line_with(lie.says, lie.name));
                counts.add("lies caught", 1);
            }
            Outcome::Passed => missed.push(lie.name),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
    counts
}

fn run_histories(trials: &Trials) -> Counts {
    trials.each_seed(|seed, counts| {
        let (lie, history) = (lie(seed / SEEDS_PER_LIE), seed % SEEDS_PER_LIE);
        run_on(history, &draw_lives(history), &Faults::none().with(lie.operation, lie.fault, lie.one_in));
        counts.add("histories that saw no lie", 1);
    })
}

fn lie(index: u64) -> &'static Lie {
    let lie = usize::try_from(index).ok().and_then(|index| ALL.get(index));
    lie.unwrap_or_else(|| panic!("there are {} lies, the first is number 0", ALL.len()))
}
