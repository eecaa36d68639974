//! What has happened to a disk, counted: operations by kind, every fault, every outcome of every cut.
//!
//! A count that stays at zero is a fault point that nothing has tested, so the names are listed
//! whether or not anything was counted under them.

use super::faults::POINTS;

/// What a node asks of its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Reading from a file.
    Read,
    /// Writing to a file.
    Write,
    /// Making a file's content and size durable.
    Sync,
    /// Making a directory's names durable.
    SyncDirectory,
    /// Opening a file that is there.
    Open,
    /// Making a file.
    Create,
    /// Making a directory.
    CreateDirectory,
    /// Renaming a file.
    Rename,
    /// Removing a file.
    Remove,
    /// Listing a directory.
    List,
    /// Asking for a size or for the space left.
    Inspect,
    /// Taking a lock.
    Lock,
}

/// Kinds of [`Operation`].
pub(super) const OPERATIONS: usize = Operation::Lock as usize + 1;

macro_rules! outcomes {
    ($($variant:ident $name:literal,)+) => {
        /// What can become of something at a cut or a kill.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(in crate::world) enum Outcome {
            $($variant,)+
        }

        /// By the number of their [`Outcome`].
        pub(super) const OUTCOME_NAMES: &[&str] = &[$($name,)+];
    };
}

outcomes! {
    Kill "kill",
    PowerCut "power cut",
    LossyPowerCut "power cut that lost something",
    UnderWayBegun "operation under way begun",
    UnderWayLost "operation under way lost",
    SectorKept "sector kept",
    SectorDropped "sector dropped",
    SectorTorn "sector torn",
    SectorGarbled "sector garbled",
    SizeKept "size kept",
    SizeCut "size cut",
    CreationKept "creation kept",
    CreationDropped "creation dropped",
    DirectoryKept "directory kept",
    DirectoryDropped "directory dropped",
    RenameKept "rename kept",
    RenameDropped "rename dropped",
    RemovalKept "removal kept",
    RemovalDropped "removal dropped",
}

/// The counts of one disk, over all its nodes' lives.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) operations: [u64; OPERATIONS],
    pub(super) outcomes: [u64; OUTCOME_NAMES.len()],
    pub(super) faults: [u64; POINTS.len()],
}

impl Default for Tally {
    fn default() -> Self {
        Self { operations: [0; OPERATIONS], outcomes: [0; OUTCOME_NAMES.len()], faults: [0; POINTS.len()] }
    }
}

impl Tally {
    pub(super) fn add(&mut self, outcome: Outcome, more: u64) {
        self.outcomes[outcome as usize] += more;
    }

    pub(super) fn operations(&self) -> u64 {
        self.operations.iter().sum()
    }

    /// Names and numbers, zeros included.
    pub(super) fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let faults = POINTS.iter().map(|(_, _, name)| *name).zip(self.faults);
        OUTCOME_NAMES.iter().copied().zip(self.outcomes).chain(faults)
    }
}
