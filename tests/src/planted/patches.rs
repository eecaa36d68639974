//! The list of planted bugs. The first two are planted with every submission.

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

/// Every planted bug.
pub const PATCHES: &[Patch] = &[
    patch!("filter-forgets-a-key", "model", 200, "panicked"),
    patch!("condition-ignores-pending", "server-histories", 600, "panicked"),
    patch!("tombstone-dropped-early", "model", 2000, "panicked"),
    patch!("overwrite-keeps-old-row", "model", 1000, "panicked"),
    patch!("late-write-not-looked-up", "model", 1000, "panicked"),
    patch!("stale-replay-put-back", "model", 2000, "panicked"),
    patch!("acknowledged-before-durable", "server-histories", 1000, "panicked"),
    patch!("deadline-ignored", "server-histories", 600, "panicked"),
    patch!("block-checksum-not-checked", "bit-flips", 2000, "panicked"),
    patch!("table-not-synced", "storage-crash", 2000, "panicked"),
    patch!("table-directory-not-synced", "storage-crash", 2000, "panicked"),
    patch!("log-written-unsynced", "storage-crash", 2000, "panicked"),
    patch!("log-released-too-far", "storage-crash", 2000, "panicked"),
    patch!("clock-ceiling-forgotten", "storage-crash", 4000, "panicked"),
];
