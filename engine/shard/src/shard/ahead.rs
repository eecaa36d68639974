//! Looking ahead: asking for the memory that lookups of several keys will read.
//!
//! A lookup is a chain of misses to main memory: a place in an index, the header of the record there, the record.
//! It takes three steps to ask for it, each of which waits for what the one before has asked for, so other
//! keys should have theirs between two. The caller takes the steps. Hints that change nothing but time.
//!
//! Headers are asked for four at a time, because their places in memory are worked out side by side then;
//! records one at a time, because the processor forgets some of what is asked for all at once.

use pinion_env::{Env, prefetch_fronts};

use super::Shard;
use crate::memtable::{EntryRef, LOOK_AHEAD_MAX};
use crate::operation::Waiter;

/// Where looking ahead has found what is most likely a key's record: nowhere yet, by default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ahead {
    /// The memtable that was the active one.
    pub(super) memtable: u64,
    /// The key's first version there.
    pub(super) root: Option<EntryRef>,
}

impl<E: Env, W: Waiter> Shard<E, W> {
    /// First step for a key, given by its hash: asks for its places in the indexes.
    #[inline]
    pub fn look_ahead(&self, hash: u64) {
        let inner = &*self.inner;
        for slot in inner.memtables.borrow().newest_first() {
            slot.table.borrow().look_ahead(hash);
        }
        let row_cache = inner.row_cache.borrow();
        if !row_cache.is_empty() {
            row_cache.prefetch(hash);
        }
    }

    /// Second step, of a few keys in one go: asks for the headers of their records.
    pub fn look_ahead_headers<'a>(&self, keys: impl Iterator<Item = (u64, &'a mut Ahead)>) {
        let inner = &*self.inner;
        let memtables = inner.memtables.borrow();
        let active = memtables.active();
        let table = active.table.borrow();
        let mut records = [&[][..]; LOOK_AHEAD_MAX];
        let mut count = 0;
        for (hash, ahead) in keys {
            *ahead = Ahead { memtable: active.number, root: None };
            if let Some((root, record)) = table.record_ahead(hash) {
                ahead.root = Some(root);
                if count == LOOK_AHEAD_MAX {
                    prefetch_fronts(&records);
                    count = 0;
                }
                records[count] = record;
                count += 1;
            } else {
                for slot in memtables.newest_first().skip(1) {
                    slot.table.borrow().look_ahead_header(hash);
                }
                let row_cache = inner.row_cache.borrow();
                if !row_cache.is_empty() {
                    row_cache.prefetch_record(hash);
                }
            }
        }
        prefetch_fronts(&records[..count]);
    }

    /// Third step: asks for the record that [`Shard::get_ahead`] will find.
    #[inline]
    pub fn look_ahead_record(&self, hash: u64, ahead: Ahead) {
        let memtables = self.inner.memtables.borrow();
        match ahead.root {
            Some(root) if memtables.active().number == ahead.memtable => {
                memtables.active().table.borrow().look_ahead_record(root);
            }
            _ => {
                for slot in memtables.newest_first().skip(1) {
                    let table = slot.table.borrow();
                    if let Some(root) = table.look_ahead_header(hash) {
                        table.look_ahead_record(root);
                    }
                }
            }
        }
    }
}
