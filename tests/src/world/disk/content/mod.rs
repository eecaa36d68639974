//! The bytes of a file: what they are now, and what the device holds where they are not yet durable.
//!
//! The pages hold the newest bytes, which is what reads see. A sector written without being made
//! durable is *pending*: beside the pages stands what the device has for it. A sync forgets that for
//! the writes that were finished when it began, a cut draws for each pending sector what is left.
//! Old bytes are copied only where a pending write covers durable ones, so writing new files, which
//! is nearly all that an engine without update in place does, copies nothing.

mod damage;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Weak;

use pinion_env::{PAGE_BYTES, page_round_up};

use super::cut::{CERTAIN, PowerCut};
use super::tally::{Outcome, Tally};
use crate::world::random::Random;

/// What is kept or lost as one at a cut. Devices tear at their own block, which may be larger; the
/// smallest there is makes the hardest test.
pub(super) const SECTOR_BYTES: usize = 512;

const PAGE_SECTORS: usize = PAGE_BYTES / SECTOR_BYTES;

/// A file's content, which lives as long as its name or somebody who has it open.
pub(in crate::world) type Inode = Rc<RefCell<Content>>;

type Page = Box<[u8; PAGE_BYTES]>;

#[derive(Debug, Default)]
pub(in crate::world) struct Content {
    /// Its name, for whoever looks for it by a part of that.
    pub(super) path: PathBuf,
    bytes: u64,
    /// By page number; a page that is missing is all zeros.
    pages: BTreeMap<u64, Page>,
    /// Size that a cut leaves at least.
    durable_bytes: u64,
    /// By page number; pages that are missing are durable.
    pending: BTreeMap<u64, Pending>,
    /// The number of the last pending write; they count from 1.
    writes: u32,
    /// The last write that some sync, perhaps under way, is to make durable.
    syncing: u32,
    /// By page number, what the page held before its last write; only where faults may ask for it.
    old: Option<BTreeMap<u64, Page>>,
    /// Pages that cannot be read until they are written.
    unreadable: BTreeSet<u64>,
    /// Removed or replaced: its space has been given back.
    pub(super) unlinked: bool,
    pub(super) lock: Weak<()>,
}

/// A page with pending sectors.
#[derive(Debug, Default)]
struct Pending {
    /// The last write of each sector; 0 if it is durable.
    writes: [u32; PAGE_SECTORS],
    /// What the device has in the pending sectors; zeros if missing.
    durable: Option<Page>,
}

/// What a sync that begins now makes durable.
#[derive(Debug, Clone, Copy)]
pub(in crate::world) struct SyncMark {
    writes: u32,
    bytes: u64,
}

impl Content {
    pub(in crate::world) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn allocated_bytes(&self) -> u64 {
        round_up(self.bytes)
    }

    /// Grows by zeros or shrinks. Growth is pending until a sync or a durable write.
    pub(super) fn resize(&mut self, bytes: u64) {
        if bytes < self.bytes {
            let (page, inside) = (bytes / PAGE_BYTES as u64, (bytes % PAGE_BYTES as u64) as usize);
            drop(self.pages.split_off(&bytes.div_ceil(PAGE_BYTES as u64)));
            drop(self.pending.split_off(&bytes.div_ceil(PAGE_BYTES as u64)));
            if let Some(content) = self.pages.get_mut(&page) {
                content[inside..].fill(0);
            }
            if let Some(pending) = self.pending.get_mut(&page) {
                pending.writes[inside.div_ceil(SECTOR_BYTES)..].fill(0);
            }
            self.durable_bytes = self.durable_bytes.min(bytes);
        }
        self.bytes = bytes;
    }

    /// Fills the front of `target` and says how many bytes the file had there.
    pub(super) fn read(&self, offset: u64, target: &mut [u8]) -> usize {
        let bytes = self.bytes.saturating_sub(offset).min(target.len() as u64) as usize;
        for (page, inside, piece) in pieces(offset, bytes) {
            match self.pages.get(&page) {
                Some(content) => {
                    target[piece.clone()].copy_from_slice(&content[inside..inside + piece.len()])
                }
                None => target[piece].fill(0),
            }
        }
        bytes
    }

    /// Writes inside of the file; durable at once, as is the size up to there.
    pub(super) fn write_durable(&mut self, offset: u64, source: &[u8]) {
        for (page, inside, piece) in pieces(offset, source.len()) {
            let source = &source[piece];
            if !self.pending.is_empty()
                && let Some(pending) = self.pending.get_mut(&page)
            {
                pending.writes[sectors(inside, source.len())].fill(0);
                if pending.is_over() {
                    self.pending.remove(&page);
                }
            }
            self.put(page, inside, source);
        }
        self.durable_bytes = self.durable_bytes.max(offset + source.len() as u64);
    }

    /// Writes inside of the file; pending until synced.
    pub(super) fn write_pending(&mut self, offset: u64, source: &[u8], random: &mut Random) {
        self.writes += 1;
        for (page, inside, piece) in pieces(offset, source.len()) {
            let source = &source[piece];
            let before = self.pages.get(&page);
            // Zeros over zeros, as when a log segment is filled: nothing to keep or to lose.
            if before.is_some() || !is_zero(source) {
                let pending = self.pending.entry(page).or_default();
                for sector in sectors(inside, source.len()) {
                    pending.cover(sector, before, self.writes, self.syncing, random);
                }
            }
            self.put(page, inside, source);
        }
    }

    pub(in crate::world) fn begin_sync(&mut self) -> SyncMark {
        self.syncing = self.writes;
        SyncMark { writes: self.writes, bytes: self.bytes }
    }

    pub(super) fn sync(&mut self, mark: SyncMark) {
        self.pending.retain(|_, pending| {
            for write in &mut pending.writes {
                // Sectors whose sync failed stay as they are: their number is above all others.
                *write = if *write <= mark.writes { 0 } else { *write };
            }
            !pending.is_over()
        });
        self.durable_bytes = self.durable_bytes.max(mark.bytes.min(self.bytes));
    }

    /// Draws for each pending sector what is left of it, and the size if it grew.
    pub(super) fn cut(&mut self, cut: &PowerCut, random: &mut Random, tally: &mut Tally) {
        for (page, pending) in std::mem::take(&mut self.pending) {
            let lost = |random: &mut Random| {
                // The order is that of the chances: what is dropped cannot be torn.
                [cut.sector_dropped, cut.sector_torn, cut.sector_garbled]
                    .iter()
                    .position(|chance| PowerCut::happens(*chance, random))
            };
            for sector in (0..PAGE_SECTORS).filter(|sector| pending.writes[*sector] != 0) {
                let Some(loss) = lost(random) else {
                    tally.add(Outcome::SectorKept, 1);
                    continue;
                };
                let place = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
                let zeros = [0; SECTOR_BYTES];
                let old = pending.durable.as_ref().map_or(&zeros[..], |durable| &durable[place.clone()]);
                let content = self.pages.entry(page).or_insert_with(zero_page);
                let new = &mut content[place];
                match loss {
                    0 => {
                        new.copy_from_slice(old);
                        tally.add(Outcome::SectorDropped, 1);
                    }
                    1 => {
                        let border = random.below(SECTOR_BYTES as u64) as usize;
                        let from_old = if random.one_in(2) { 0..border } else { border..SECTOR_BYTES };
                        new[from_old.clone()].copy_from_slice(&old[from_old]);
                        tally.add(Outcome::SectorTorn, 1);
                    }
                    _ => {
                        for word in new.chunks_mut(8) {
                            word.copy_from_slice(&random.word().to_le_bytes());
                        }
                        tally.add(Outcome::SectorGarbled, 1);
                    }
                }
            }
        }
        if self.bytes > self.durable_bytes {
            if PowerCut::happens(cut.size_cut, random) {
                let sector = SECTOR_BYTES as u64;
                let grown = (self.bytes - self.durable_bytes).div_ceil(sector);
                // Often all of the growth; some file systems remember a part of it.
                let all = cut.size_cut >= CERTAIN || random.one_in(2);
                let left = if all { 0 } else { random.below(grown) };
                self.resize(self.durable_bytes + left * sector);
                tally.add(Outcome::SizeCut, 1);
            } else {
                tally.add(Outcome::SizeKept, 1);
            }
        }
        self.durable_bytes = self.bytes;
        (self.writes, self.syncing) = (0, 0);
    }

    fn put(&mut self, page: u64, inside: usize, source: &[u8]) {
        if !self.unreadable.is_empty() {
            self.unreadable.remove(&page);
        }
        if let (Some(old), Some(content)) = (&mut self.old, self.pages.get(&page)) {
            old.insert(page, content.clone());
        }
        if source.len() == PAGE_BYTES && is_zero(source) {
            self.pages.remove(&page);
            return;
        }
        let content = self.pages.entry(page).or_insert_with(zero_page);
        content[inside..inside + source.len()].copy_from_slice(source);
    }
}

impl Pending {
    /// A write is about to replace a sector that now holds what `before` says.
    fn cover(&mut self, sector: usize, before: Option<&Page>, write: u32, syncing: u32, random: &mut Random) {
        let last = std::mem::replace(&mut self.writes[sector], write);
        // The device may have taken an earlier pending write by now; it must have if a sync that
        // was begun for it succeeds.
        let settled = last == 0 || last <= syncing || random.one_in(2);
        if !settled {
            return;
        }
        let place = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
        match (before, &mut self.durable) {
            (Some(before), durable) => {
                durable.get_or_insert_with(zero_page)[place.clone()].copy_from_slice(&before[place]);
            }
            (None, Some(durable)) => durable[place].fill(0),
            (None, None) => {}
        }
    }

    fn is_over(&self) -> bool {
        self.writes.iter().all(|write| *write == 0)
    }
}

fn zero_page() -> Page {
    Box::new([0; PAGE_BYTES])
}

/// At most a page. Compared as a whole: files are filled with zeros often.
fn is_zero(bytes: &[u8]) -> bool {
    bytes == &[0; PAGE_BYTES][..bytes.len()]
}

/// The sectors that a piece of a page touches.
fn sectors(inside: usize, bytes: usize) -> Range<usize> {
    inside / SECTOR_BYTES..(inside + bytes).div_ceil(SECTOR_BYTES)
}

/// Cuts a stretch of a file at page borders: page, offset in the page, place in the stretch.
fn pieces(offset: u64, bytes: usize) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == bytes {
            return None;
        }
        let at = offset + done as u64;
        let inside = (at % PAGE_BYTES as u64) as usize;
        let start = done;
        done = bytes.min(done + PAGE_BYTES - inside);
        Some((at / PAGE_BYTES as u64, inside, start..done))
    })
}

pub(super) fn round_up(bytes: u64) -> u64 {
    page_round_up(bytes as usize) as u64
}
