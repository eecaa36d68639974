//! A disk with a volatile cache: a file system of one file, whose sectors are kept only once synced.
//!
//! Every write waits, sector by sector, until the next sync. When the power fails each waiting sector
//! keeps what was last synced or shows one of its later writes, at random and each for itself: writes
//! are dropped, torn and reordered as real caches do it. A sector is never mixed. After that every
//! request fails until the power returns.
//!
//! At most moments little is waiting, for everything that matters is synced at once. So the power
//! fails at a chosen request: instead of a sync that would have kept so many sectors, or inside of a
//! write.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fuser::{
    Errno, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use super::fuse::attributes;
use crate::process::Random;

/// The one file.
pub(super) const DISK_NAME: &str = "disk";
const DISK_INODE: u64 = 2;
/// Nothing about it ever changes.
const FOREVER: Duration = Duration::from_secs(1 << 30);

/// In so many hundredths a waiting sector shows a later write; one of these for each cut.
const SHOWN_PERCENT: [u64; 5] = [0, 5, 50, 95, 100];

/// A cut comes at the first sync of so many waiting sectors; one of these for each cut.
const SYNC_SECTORS: [u64; 5] = [1, 4, 24, 100, 200];
/// One cut in so many comes inside of a write instead.
const WRITE_CUT_EVERY: u64 = 3;
/// Requests of the chosen kind that are let pass first, at most.
const PASSED_MAX: u64 = 6;
/// What became of the sectors that waited when the power failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) waited: u64,
    /// Show what was synced before.
    pub(super) dropped: u64,
    /// Show a write that was not the last one.
    pub(super) stale: u64,
}

/// The disk's content. Clones are the same disk.
#[derive(Debug, Clone)]
pub(super) struct VolatileDisk(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug)]
struct State {
    sector_bytes: usize,
    synced: Vec<u8>,
    /// The writes to each sector since the last sync.
    waiting: BTreeMap<usize, Vec<Box<[u8]>>>,
    powered: bool,
    planned: Option<Planned>,
    fate: Fate,
}

/// A cut that waits for its request.
#[derive(Debug)]
struct Planned {
    random: Random,
    moment: Moment,
    /// Requests of its kind that still pass.
    pass: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Instead of a sync of at least so many sectors.
    Sync(u64),
    /// Inside of a write.
    Write,
}

impl VolatileDisk {
    /// Zeros. The size is a multiple of the sector's.
    pub(super) fn new(bytes: usize, sector_bytes: usize) -> Self {
        assert!(bytes.is_multiple_of(sector_bytes), "a disk has whole sectors");
        let state = State {
            sector_bytes,
            synced: vec![0; bytes],
            waiting: BTreeMap::new(),
            powered: true,
            planned: None,
            fate: Fate::default(),
        };
        Self(Arc::new((Mutex::new(state), Condvar::new())))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power fails: at a request that is chosen at random, or when that does not come in time.
    pub(super) fn cut(&self, wait: Duration, random: &mut Random) -> Fate {
        let moment = if random.below(WRITE_CUT_EVERY) == 0 {
            Moment::Write
        } else {
            Moment::Sync(SYNC_SECTORS[random.below(SYNC_SECTORS.len() as u64) as usize])
        };
        let pass = random.below(PASSED_MAX + 1);
        let mut state = self.state();
        state.planned = Some(Planned { random: Random::new(random.next_u64()), moment, pass });
        let waiting = self.0.1.wait_timeout_while(state, wait, |state| state.powered);
        state = waiting.unwrap_or_else(PoisonError::into_inner).0;
        if let Some(planned) = state.planned.take() {
            state.cut(planned.random);
        }
        state.fate
    }

    /// The power returns.
    pub(super) fn restore(&self) {
        self.state().powered = true;
    }

    fn bytes(&self) -> u64 {
        self.state().synced.len() as u64
    }
}

impl State {
    fn sector(&mut self, sector: usize) -> &mut [u8] {
        let start = sector * self.sector_bytes;
        &mut self.synced[start..start + self.sector_bytes]
    }

    /// Reads up to the end of the disk.
    fn read(&self, offset: usize, bytes: usize) -> Vec<u8> {
        let start = offset.min(self.synced.len());
        let end = (offset + bytes).min(self.synced.len());
        let mut content = self.synced[start..end].to_vec();
        let first = start / self.sector_bytes;
        let last = end.div_ceil(self.sector_bytes);
        for (sector, writes) in self.waiting.range(first..last) {
            let newest = writes.last().expect("a waiting sector was written");
            let sector_start = sector * self.sector_bytes;
            let (from, to) = (sector_start.max(start), (sector_start + self.sector_bytes).min(end));
            content[from - start..to - start]
                .copy_from_slice(&newest[from - sector_start..to - sector_start]);
        }
        content
    }

    /// Writes up to the end of the disk; parts of sectors too, as the page cache may ask for them.
    fn write(&mut self, offset: usize, data: &[u8]) -> usize {
        let end = (offset + data.len()).min(self.synced.len());
        let mut at = offset;
        while at < end {
            let sector = at / self.sector_bytes;
            let inside = at % self.sector_bytes;
            let bytes = (self.sector_bytes - inside).min(end - at);
            let mut content = self.read(sector * self.sector_bytes, self.sector_bytes);
            content[inside..inside + bytes].copy_from_slice(&data[at - offset..at - offset + bytes]);
            self.waiting.entry(sector).or_default().push(content.into_boxed_slice());
            at += bytes;
        }
        end.saturating_sub(offset)
    }

    /// Carries out the cut that is planned for this request. Whether it did.
    fn meets(&mut self, moment: Moment) -> bool {
        let Some(planned) = &mut self.planned else { return false };
        let chosen = match (planned.moment, moment) {
            (Moment::Sync(least), Moment::Sync(waiting)) => waiting >= least,
            (wanted, moment) => wanted == moment,
        };
        if chosen && planned.pass > 0 {
            planned.pass -= 1;
        } else if chosen && let Some(planned) = self.planned.take() {
            self.cut(planned.random);
            return true;
        }
        false
    }

    fn cut(&mut self, mut random: Random) {
        self.powered = false;
        let percent = SHOWN_PERCENT[random.below(SHOWN_PERCENT.len() as u64) as usize];
        self.fate = Fate::default();
        for (sector, writes) in std::mem::take(&mut self.waiting) {
            self.fate.waited += 1;
            if random.below(100) >= percent {
                self.fate.dropped += 1;
                continue;
            }
            // Most often the last one: a cache rarely writes the same sector out twice.
            let back = if random.below(4) == 0 { random.below(writes.len() as u64) as usize } else { 0 };
            self.fate.stale += u64::from(back > 0);
            let shown = &writes[writes.len() - 1 - back];
            self.sector(sector).copy_from_slice(shown);
        }
    }

    fn sync(&mut self) {
        for (sector, writes) in std::mem::take(&mut self.waiting) {
            let newest = writes.last().expect("a waiting sector was written");
            self.sector(sector).copy_from_slice(newest);
        }
    }
}

/// The file system that shows the disk.
#[derive(Debug)]
pub(super) struct VolatileSystem(pub(super) VolatileDisk);

impl VolatileSystem {
    /// Does something with the disk. Fails when it has no power, or none afterwards.
    fn powered<T>(&self, act: impl FnOnce(&mut State) -> T) -> Result<T, Errno> {
        let mut state = self.0.state();
        if !state.powered {
            return Err(Errno::EIO);
        }
        let result = act(&mut state);
        if state.powered {
            return Ok(result);
        }
        self.0.0.1.notify_all();
        Err(Errno::EIO)
    }
}

impl Filesystem for VolatileSystem {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == DISK_NAME {
            let found = attributes(DISK_INODE, FileType::RegularFile, self.0.bytes());
            reply.entry(&FOREVER, &found, Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let found = if inode == INodeNo::ROOT {
            attributes(inode.0, FileType::Directory, 0)
        } else {
            attributes(inode.0, FileType::RegularFile, self.0.bytes())
        };
        reply.attr(&FOREVER, &found);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.powered(|state| state.read(offset as usize, size as usize)) {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.powered(|state| {
            let written = state.write(offset as usize, data);
            state.meets(Moment::Write);
            written
        });
        match written {
            Ok(written) => reply.written(written as u32),
            Err(error) => reply.error(error),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let synced = self.powered(|state| {
            if !state.meets(Moment::Sync(state.waiting.len() as u64)) {
                state.sync();
            }
        });
        match synced {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    /// Closing keeps nothing.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synced_sectors_stay_and_waiting_ones_are_dropped_or_shown() {
        let mut fates = Fate::default();
        for seed in 0..200 {
            let disk = VolatileDisk::new(64 * 512, 512);
            disk.state().write(0, &[1; 64 * 512]);
            disk.state().sync();
            disk.state().write(8 * 512, &[2; 16 * 512]);
            disk.state().write(8 * 512 + 100, &[3; 8 * 512]);
            assert_eq!(disk.state().read(8 * 512 + 99, 2), [2, 3]);
            let fate = disk.cut(Duration::ZERO, &mut Random::new(seed));
            assert!(VolatileSystem(disk.clone()).powered(|_| ()).is_err());
            disk.restore();
            let content = disk.state().read(0, 64 * 512);
            let sectors: Vec<&[u8]> = content.chunks(512).collect();
            let of = |wanted: &[u8]| sectors.iter().filter(|sector| **sector == wanted).count() as u64;
            assert!(sectors[..8].iter().chain(&sectors[24..]).all(|sector| **sector == [1; 512]), "{seed}");
            assert_eq!((fate.waited, of(&[1; 512])), (16, 48 + fate.dropped), "{seed}");
            fates.dropped += fate.dropped;
            fates.stale += fate.stale;
        }
        assert!(fates.dropped > 0 && fates.stale > 0, "{fates:?}");
    }
}
