//! What faults do to the bytes of a file.

use std::collections::BTreeMap;

use pinion_env::PAGE_BYTES;

use super::{Content, SyncMark, pieces};

/// The write number of a sector whose sync has failed: the kernel counts it as clean, so no later
/// sync covers it, and the device may or may not have it.
const LIMBO: u32 = u32::MAX;

impl Content {
    /// A sync fails: what it was to cover is in limbo, but for sectors that `kept` says it has done.
    pub(in crate::world::disk) fn fail_sync(&mut self, mark: SyncMark, mut kept: impl FnMut() -> bool) {
        self.pending.retain(|_, pending| {
            for write in pending.writes.iter_mut().filter(|write| (1..=mark.writes).contains(*write)) {
                *write = if kept() { 0 } else { LIMBO };
            }
            !pending.is_over()
        });
    }

    /// From now on keeps what a page held before its last write.
    pub(in crate::world::disk) fn keep_old(&mut self) {
        self.old.get_or_insert_default();
    }

    /// Puts older bytes over those just read; says whether that changed any.
    pub(in crate::world::disk) fn put_old(&self, offset: u64, target: &mut [u8]) -> bool {
        let empty = BTreeMap::new();
        let old = self.old.as_ref().unwrap_or(&empty);
        let mut changed = false;
        for (page, inside, piece) in pieces(offset, target.len()) {
            if let Some(old) = old.get(&page) {
                let target = &mut target[piece];
                let old = &old[inside..inside + target.len()];
                changed |= target != old;
                target.copy_from_slice(old);
            }
        }
        changed
    }

    /// Flips a stored bit.
    pub(in crate::world::disk) fn flip(&mut self, offset: u64, bit: u64) {
        let (page, inside) = (offset / PAGE_BYTES as u64, (offset % PAGE_BYTES as u64) as usize);
        let content = self.pages.entry(page).or_insert_with(super::zero_page);
        content[inside] ^= 1 << (bit % 8);
    }

    /// Makes the page of an offset unreadable until it is written.
    pub(in crate::world::disk) fn make_unreadable(&mut self, offset: u64) {
        self.unreadable.insert(offset / PAGE_BYTES as u64);
    }

    pub(in crate::world::disk) fn make_readable(&mut self) {
        self.unreadable.clear();
    }

    pub(in crate::world::disk) fn is_readable(&self, offset: u64, bytes: usize) -> bool {
        let pages = offset / PAGE_BYTES as u64..(offset + bytes as u64).div_ceil(PAGE_BYTES as u64);
        self.unreadable.is_empty() || self.unreadable.range(pages).next().is_none()
    }
}
