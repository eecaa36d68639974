//! Tables that compaction met damage in.
//!
//! One bad block must not stop a shard: the table stays where it is, reads of its other blocks are
//! answered, reads of the bad one say so, and compaction goes on around it (`compaction::picker`).
//! Merging the rest of it is no way out: its records cannot be told from those that are lost, and what
//! lies beneath the lost ones would come to light.
//!
//! It is known in memory only. The first job that meets the table after a restart finds the damage
//! again, at the cost of that job; a file that was put back needs nobody to say so. A table that the
//! system could not read at all may be sound: it is tried again after [`READ_RETRY`], so that a device
//! that fails for a while does not end compaction table by table.
//!
//! Limit: what is newer than such a table stays above it. That takes one level for every table in
//! quarantine above another; when the last is taken (a table in quarantine in level 1, or one in a run
//! above it), runs that overlap it pile up until writes are refused as damaged. Tombstones above it
//! stay too. A record of the log that is older than what tables hold is looked up when it is replayed:
//! if its key lies in a bad block, the shard does not open.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pinion_env::Monotonic;

use crate::error::Corruption;

/// How long a table is left alone that the system could not read.
pub(super) const READ_RETRY: Duration = Duration::from_secs(60);

/// The tables in quarantine, and why.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    numbers: BTreeSet<u64>,
    damage: BTreeMap<u64, Arc<Corruption>>,
    /// Those that are tried again, and when.
    unread: BTreeMap<u64, Monotonic>,
}

impl Quarantine {
    /// A table is damaged.
    pub(super) fn insert(&mut self, number: u64, damage: Arc<Corruption>) {
        self.numbers.insert(number);
        self.damage.insert(number, damage);
    }

    /// A table cannot be read now.
    pub(super) fn insert_unread(&mut self, number: u64, damage: Arc<Corruption>, now: Monotonic) {
        self.insert(number, damage);
        self.unread.insert(number, now.after(READ_RETRY));
    }

    /// Lets those out that it is time to try again.
    pub(super) fn release(&mut self, now: Monotonic) {
        if self.unread.values().any(|until| *until <= now) {
            let due = self.unread.iter().filter(|(_, until)| **until <= now);
            let due: Vec<u64> = due.map(|(number, _)| *number).collect();
            self.remove(&due);
        }
    }

    /// Forgets tables that are gone.
    pub(super) fn remove(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.numbers.remove(number);
            self.damage.remove(number);
            self.unread.remove(number);
        }
    }

    pub(super) fn numbers(&self) -> &BTreeSet<u64> {
        &self.numbers
    }

    pub(super) fn get(&self, number: u64) -> Option<&Arc<Corruption>> {
        self.damage.get(&number)
    }

    /// One of them.
    pub(super) fn first(&self) -> Option<&Arc<Corruption>> {
        self.damage.values().next()
    }
}
