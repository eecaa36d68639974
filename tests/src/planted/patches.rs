//! The list of planted bugs. The first two are planted with every submission.

use crate::counts::COUNTS;

/// A bug and who catches it.
#[derive(Debug)]
pub struct Patch {
    /// What it is called; the patch is `tests/planted/<name>.patch`.
    pub name: &'static str,
    /// The class that catches it.
    pub class: &'static str,
    /// Within how many trials, from seed 0.
    pub trials: u64,
    /// Part of the message it is caught with: another failure would be an accident.
    pub says: &'static str,
    /// What `git apply` is given.
    pub text: &'static str,
}

macro_rules! patch {
    ($name:literal, $class:literal, $trials:literal, $says:literal) => {
        Patch {
            name: $name,
            class: $class,
            trials: $trials,
            says: $says,
            text: include_str!(concat!("../../planted/", $name, ".patch")),
        }
    };
}

impl Patch {
    /// Whether the class must be built as tests are: its bounds are those of that build.
    pub(super) fn needs_test_build(&self) -> bool {
        self.class == COUNTS.name
    }
}

/// Every planted bug.
pub const PATCHES: &[Patch] = &[
    patch!("condition-ignores-pending", "server-histories", 20, "no order explains what was answered"),
    patch!("log-released-too-far", "storage-crash", 20, "no prefix of the log explains what was recovered"),
    patch!(
        "acknowledged-before-durable",
        "storage-crash",
        500,
        "no prefix of the log explains what was recovered"
    ),
    patch!("log-written-unsynced", "storage-crash", 20, "magic: expected PNWB"),
    patch!("table-not-synced", "storage-crash", 20, "size of a table: expected two or more whole pages"),
    patch!("table-directory-not-synced", "storage-crash", 20, "table: entity not found"),
    patch!("clock-ceiling-forgotten", "storage-crash", 200, "is the stamp of write"),
    patch!(
        "tombstone-dropped-early",
        "storage-crash",
        300,
        "no prefix of the log explains what was recovered"
    ),
    patch!("horizon-ignored", "storage-crash", 200, "applied over the newer write"),
    patch!("stale-replay-put-back", "model", 350, "is expected"),
    patch!("late-write-not-looked-up", "model", 10, "Superseded by Stamp"),
    patch!("row-cache-kept-on-overwrite", "model", 20, "holds Some("),
    patch!("filter-forgets-a-key", "model", 10, "is missing, Some(Entry"),
    patch!("block-checksum-not-checked", "bit-flips", 80, "were written"),
    patch!("namespace-answered-too-soon", "server-histories", 500, "namespace 1 "),
    patch!("multi-get-mixes-up-cores", "server-histories", 10, "no order explains what was answered"),
    patch!("resp-reads-before-a-write-is-there", "resp-pipelines", 400, "in answer to "),
    patch!("batch-loses-the-refusal-of-a-core", "server-histories", 20, "was written as Version("),
    patch!("get-hashes-its-key-twice", "counts", 1, "server: get in 16: instructions: "),
    patch!("value-copied-on-its-way-out", "counts", 1, "server: get in 16: bytes copied: "),
    patch!("ring-entered-once-more", "counts", 1, "process: get 64 x 1: ring entered, with sleeps: "),
];
