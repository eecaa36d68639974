//! What goes wrong in one history: which operation, on which files, how, when, and for how long; and
//! what a correct shard may make of it.

use pinion_engine::Error;

use crate::world::{Disk, Fault, Filter, Operation, Random};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// An operation has a fault.
    Fault(Operation, Fault),
    /// The disk has so many bytes left.
    Full(u64),
}

/// When it goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// While the shard is made and opened for the first time.
    FirstOpening,
    /// While it serves.
    Serving,
    /// While it is opened again.
    Reopening,
}

/// How a life of the node ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The shard is closed.
    Close,
    /// The process is killed.
    Kill,
    /// The power is cut.
    PowerCut,
}

/// The fault of one history.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) effect: Effect,
    /// Part of the paths that it is about; empty = all.
    files: &'static str,
    /// The so many-th such operation has it.
    nth: u64,
    /// And all that follow.
    lasts: bool,
    pub(super) when: When,
}

/// Every fault that a node can notice, and how often it is chosen. Of those that promise a durability
/// that is not there no node can notice any.
const CHOICES: &[(Operation, Fault, u64)] = &[
    (Operation::Read, Fault::Error, 4),
    (Operation::Read, Fault::Unreadable, 4),
    (Operation::Read, Fault::Short, 4),
    (Operation::Read, Fault::Flip, 5),
    (Operation::Read, Fault::Rot, 5),
    (Operation::Read, Fault::Stale, 9),
    (Operation::Read, Fault::Misdirected, 6),
    (Operation::Write, Fault::Error, 6),
    (Operation::Write, Fault::Torn, 6),
    (Operation::Write, Fault::Full, 5),
    (Operation::Write, Fault::Rot, 6),
    (Operation::Write, Fault::Misdirected, 6),
    (Operation::Write, Fault::Skipped, 6),
    (Operation::Sync, Fault::Error, 5),
    (Operation::Sync, Fault::Torn, 5),
    (Operation::SyncDirectory, Fault::Error, 4),
    (Operation::SyncDirectory, Fault::Torn, 4),
    (Operation::Open, Fault::Error, 4),
    (Operation::Create, Fault::Error, 3),
    (Operation::Create, Fault::Torn, 3),
    (Operation::Create, Fault::Full, 3),
    (Operation::CreateDirectory, Fault::Error, 2),
    (Operation::CreateDirectory, Fault::Torn, 2),
    (Operation::CreateDirectory, Fault::Full, 2),
    (Operation::Rename, Fault::Error, 4),
    (Operation::Rename, Fault::Torn, 4),
    (Operation::Rename, Fault::Full, 4),
    (Operation::Remove, Fault::Error, 3),
    (Operation::Remove, Fault::Torn, 3),
    (Operation::List, Fault::Error, 2),
    (Operation::Inspect, Fault::Error, 3),
];

/// What a disk that becomes full counts in `CHOICES`.
const FULL_WEIGHT: u64 = 10;

/// The most that a disk has left when it becomes full: room for a table, hardly for a segment.
const LEFT_BYTES_MAX: u64 = 200 << 10;

/// Operations that are let pass before one is hit, at most, and one.
const FAR: u64 = 10;

/// The names that the faults chosen here are counted under by the disk.
pub(super) const NAMES: &[&str] = &[
    "read EIO",
    "read of an unreadable sector",
    "short read",
    "bit flipped in a read",
    "stored bit flipped before a read",
    "stale read",
    "misdirected read",
    "write EIO",
    "write EIO after a part",
    "write ENOSPC",
    "stored bit flipped in a write",
    "misdirected write",
    "lost write",
    "sync EIO",
    "sync EIO after a part",
    "directory sync EIO",
    "directory sync EIO after a part",
    "open EIO",
    "create EIO",
    "create EIO when done",
    "create ENOSPC",
    "directory create EIO",
    "directory create EIO when done",
    "directory create ENOSPC",
    "rename EIO",
    "rename EIO when done",
    "rename ENOSPC",
    "remove EIO",
    "remove EIO when done",
    "list EIO",
    "inspect EIO",
];

impl Plan {
    /// The plan of a seed.
    pub(super) fn draw(random: &mut Random) -> Self {
        let effect = draw_effect(random);
        let operation = match effect {
            Effect::Fault(operation, _) => Some(operation),
            Effect::Full(_) => None,
        };
        let when = match (operation, random.below(8)) {
            (Some(Operation::CreateDirectory), _) => When::FirstOpening,
            (Some(Operation::List), 0..4) => When::FirstOpening,
            (Some(Operation::List), _) => When::Reopening,
            (Some(Operation::Read), 0..4) => When::Reopening,
            (_, 0) => When::FirstOpening,
            (_, 1 | 2) => When::Reopening,
            _ => When::Serving,
        };
        // Only a write that makes a file longer needs space.
        let grows = ["table/", ".tmp", "segment.tmp"];
        let files = match effect {
            Effect::Fault(Operation::Write, Fault::Full) => grows[random.below(3) as usize],
            Effect::Fault(Operation::List | Operation::CreateDirectory | Operation::Inspect, _) => "",
            _ => ["", "", "", "", "wal", "table", "table", "MANIFEST", "CURRENT"][random.below(9) as usize],
        };
        let nth = if random.one_in(2) { 1 } else { 1 + random.below(FAR) };
        Self { effect, files, nth, lasts: random.one_in(2), when }
    }

    /// A read of the manifest that ends too early while the shard is opened again.
    #[cfg(test)]
    pub(super) fn short_manifest() -> Self {
        let effect = Effect::Fault(Operation::Read, Fault::Short);
        Self { effect, files: "MANIFEST", nth: 1, lasts: false, when: When::Reopening }
    }

    /// Has the disk do it from now on.
    pub(super) fn arm(&self, disk: &Disk) {
        match self.effect {
            Effect::Full(left) => disk.set_total_bytes(disk.used_bytes() + left),
            Effect::Fault(operation, fault) => {
                let filter = Filter::from(operation).on(self.files);
                // Of damage one piece is promised to be found, not any number of them at once.
                match self.lasts && !self.is_damage() {
                    true => disk.fail_from(filter, self.nth, fault),
                    false => disk.fail_nth(filter, self.nth, fault),
                }
            }
        }
    }

    /// Space runs out.
    pub(super) fn is_full(&self) -> bool {
        matches!(self.effect, Effect::Full(_) | Effect::Fault(_, Fault::Full))
    }

    /// An operation succeeds with wrong bytes.
    pub(super) fn is_damage(&self) -> bool {
        match self.effect {
            Effect::Full(_) => false,
            Effect::Fault(_, fault) => matches!(
                fault,
                Fault::Flip | Fault::Rot | Fault::Short | Fault::Stale | Fault::Misdirected | Fault::Skipped
            ),
        }
    }

    /// It stays when the disk is well again.
    pub(super) fn stays(&self) -> bool {
        let Effect::Fault(operation, fault) = self.effect else { return false };
        self.is_damage() && (operation == Operation::Write || fault == Fault::Rot)
    }

    /// A shard that serves must stop: what has failed cannot be trusted any more.
    pub(super) fn must_stop(&self) -> bool {
        use Operation::{Create, Rename, Sync, SyncDirectory, Write};
        match self.effect {
            Effect::Fault(Write | Sync | SyncDirectory | Create | Rename, fault) => {
                matches!(fault, Fault::Error | Fault::Torn)
            }
            _ => false,
        }
    }

    /// Whether the fault can be the reason of an error, given to a request or (`opening`) by a start.
    pub(super) fn explains(&self, error: &Error, opening: bool) -> bool {
        let (is_full, is_damage) = (self.is_full(), self.is_damage());
        let is_read = matches!(self.effect, Effect::Fault(Operation::Read, _));
        match error {
            Error::DiskFull => is_full,
            Error::StorageFailed(reason) => !is_full && !reason.is_empty(),
            Error::Damaged(damage) => (is_damage || is_read) && is_ours(&damage.file),
            Error::Io { file, .. } => (opening || is_read) && is_ours(file),
            _ => false,
        }
    }
}

/// A file of the shard.
fn is_ours(file: &std::path::Path) -> bool {
    file.starts_with(super::story::DIR)
}

fn draw_effect(random: &mut Random) -> Effect {
    let sum: u64 = CHOICES.iter().map(|(_, _, weight)| weight).sum();
    let mut drawn = random.below(sum + FULL_WEIGHT);
    for (operation, fault, weight) in CHOICES {
        if drawn < *weight {
            return Effect::Fault(*operation, *fault);
        }
        drawn -= weight;
    }
    Effect::Full(random.below(LEFT_BYTES_MAX))
}
