//! Operations that have a fault: what is done of them, and what they answer.
//!
//! A fault that would change nothing (a stale read of a page that was written once, a misdirected
//! read of equal bytes) does not happen and is not counted.

use std::io::{self, ErrorKind};
use std::path::Path;

use pinion_env::{PAGE_BYTES, WriteMode};
use rustix::io::Errno;

use super::Disk;
use super::content::{Inode, SECTOR_BYTES, SyncMark};
use super::faults::{Due, Fault};
use super::tally::Operation;

/// How often another place is looked for.
const PLACES_TRIED: usize = 8;

impl Disk {
    /// An operation on names, which happens or fails as a whole.
    pub(super) fn on_names<T>(
        &self,
        operation: Operation,
        paths: &[&Path],
        honest: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let Some(due) = self.due(operation, paths) else { return honest() };
        let path = paths.first().copied().unwrap_or(Path::new(""));
        match due.fault {
            // What would have failed anyway keeps its own error.
            Fault::Torn => {
                honest()?;
                self.inject(operation, due.fault, path, 0, 0);
                Err(broken())
            }
            Fault::Full => {
                self.inject(operation, due.fault, path, 0, 0);
                Err(io::Error::from(ErrorKind::StorageFull))
            }
            _ => {
                self.inject(operation, due.fault, path, 0, 0);
                Err(broken())
            }
        }
    }

    pub(super) fn read_content(
        &self,
        inode: &Inode,
        offset: u64,
        target: &mut [u8],
        due: Option<Due>,
    ) -> io::Result<usize> {
        let asked = target.len();
        let Some(Due { fault, .. }) = due else {
            let content = inode.borrow();
            return match content.is_readable(offset, asked) {
                true => Ok(content.read(offset, target)),
                false => {
                    self.inject(Operation::Read, Fault::Unreadable, &content.path, offset, asked as u64);
                    Err(broken())
                }
            };
        };
        let there = inode.borrow().bytes().saturating_sub(offset).min(asked as u64);
        let inject = |path: &Path, offset, bytes| self.inject(Operation::Read, fault, path, offset, bytes);
        let draw = |below: u64| self.random.borrow_mut().below(below);
        let path = inode.borrow().path.clone();
        match fault {
            Fault::Error => {
                inject(&path, offset, asked as u64);
                return Err(broken());
            }
            Fault::Unreadable if there > 0 => inode.borrow_mut().make_unreadable(offset + draw(there)),
            Fault::Rot if there > 0 => {
                let at = offset + draw(there);
                inode.borrow_mut().flip(at, draw(8));
                inject(&path, at, 1);
            }
            _ => {}
        }
        let read = self.read_content(inode, offset, target, None)?;
        let target = &mut target[..read];
        match fault {
            Fault::Flip if read > 0 => {
                let at = draw(read as u64) as usize;
                target[at] ^= 1 << draw(8);
                inject(&path, offset + at as u64, 1);
            }
            Fault::Short if read > 0 => {
                inject(&path, offset, asked as u64);
                return Ok(draw(read as u64) as usize);
            }
            Fault::Stale => {
                if let Some((at, bytes)) = self.make_stale(inode, offset, target) {
                    inject(&path, offset + at, bytes);
                }
            }
            Fault::Misdirected => {
                for _ in 0..PLACES_TRIED {
                    let Some((other, place)) = self.other_place(inode, offset, read) else { break };
                    let mut found = vec![0; read];
                    other.borrow().read(place, &mut found);
                    if let Some((at, bytes)) = self.put_block(target, &found) {
                        inject(&other.borrow().path, place + at, bytes);
                        break;
                    }
                }
            }
            _ => {}
        }
        Ok(read)
    }

    /// Writes inside of what is aligned and has room; the file does not have its new size yet.
    pub(super) fn write_content(
        &self,
        inode: &Inode,
        offset: u64,
        source: &[u8],
        mode: WriteMode,
        due: Option<Due>,
    ) -> io::Result<()> {
        let end = offset + source.len() as u64;
        let grows = !source.is_empty() && end > inode.borrow().bytes();
        let due = due.filter(|due| due.fault != Fault::Full || due.planned || grows);
        let Some(Due { fault, .. }) = due else {
            self.put(inode, offset, source, mode);
            return Ok(());
        };
        let path = inode.borrow().path.clone();
        let inject = |path: &Path, at, bytes| self.inject(Operation::Write, fault, path, at, bytes);
        let draw = |below: u64| self.random.borrow_mut().below(below);
        match fault {
            Fault::Error => {
                inject(&path, offset, source.len() as u64);
                Err(broken())
            }
            Fault::Torn | Fault::Full => {
                let sectors = (source.len() / SECTOR_BYTES) as u64;
                let most = if fault == Fault::Torn { sectors + 1 } else { sectors };
                let done = if draw(2) == 0 { 0 } else { draw(most) as usize * SECTOR_BYTES };
                self.put(inode, offset, &source[..done], WriteMode::Unsynced);
                inject(&path, offset, source.len() as u64);
                let full = || io::Error::from(ErrorKind::StorageFull);
                Err(if fault == Fault::Full { full() } else { broken() })
            }
            Fault::Rot => {
                self.put(inode, offset, source, mode);
                if !source.is_empty() {
                    let at = offset + draw(source.len() as u64);
                    inode.borrow_mut().flip(at, draw(8));
                    inject(&path, at, 1);
                }
                Ok(())
            }
            Fault::Early if mode == WriteMode::Durable => {
                self.put(inode, offset, source, WriteMode::Unsynced);
                inject(&path, offset, source.len() as u64);
                Ok(())
            }
            Fault::Skipped => {
                self.grow_only(inode, end, mode);
                inject(&path, offset, source.len() as u64);
                Ok(())
            }
            Fault::Misdirected => {
                let Some((other, place)) = self.other_place(inode, offset, source.len()) else {
                    self.put(inode, offset, source, mode);
                    return Ok(());
                };
                self.put(&other, place, source, mode);
                self.grow_only(inode, end, mode);
                inject(&other.borrow().path, place, source.len() as u64);
                Ok(())
            }
            _ => {
                self.put(inode, offset, source, mode);
                Ok(())
            }
        }
    }

    pub(super) fn sync_content(&self, inode: &Inode, mark: SyncMark, due: Option<Due>) -> io::Result<()> {
        let Some(Due { fault, .. }) = due else {
            inode.borrow_mut().sync(mark);
            return Ok(());
        };
        let path = inode.borrow().path.clone();
        self.inject(Operation::Sync, fault, &path, 0, 0);
        if fault == Fault::Skipped {
            return Ok(());
        }
        let mut random = self.random.borrow_mut();
        inode.borrow_mut().fail_sync(mark, || fault == Fault::Torn && random.one_in(2));
        Err(broken())
    }

    pub(super) fn sync_names(&self, path: &Path, up_to: u64, due: Option<Due>) -> io::Result<()> {
        let mut tree = self.tree.borrow_mut();
        let Some(Due { fault, .. }) = due else {
            tree.sync(path, up_to, || true);
            return Ok(());
        };
        self.inject(Operation::SyncDirectory, fault, path, 0, 0);
        if fault == Fault::Skipped {
            return Ok(());
        }
        let mut random = self.random.borrow_mut();
        tree.sync(path, up_to, || fault == Fault::Torn && random.one_in(2));
        Err(broken())
    }

    fn put(&self, inode: &Inode, offset: u64, source: &[u8], mode: WriteMode) {
        if source.is_empty() {
            return;
        }
        let mut content = inode.borrow_mut();
        if self.keeps_old.get() {
            content.keep_old();
        }
        let end = content.bytes().max(offset + source.len() as u64);
        self.resize(&mut content, end);
        if mode == WriteMode::Durable && self.is_on() {
            content.write_durable(offset, source);
        } else {
            content.write_pending(offset, source, &mut self.random.borrow_mut());
        }
    }

    /// The file system believes in a write that the device has lost.
    fn grow_only(&self, inode: &Inode, end: u64, mode: WriteMode) {
        let mut content = inode.borrow_mut();
        let bytes = content.bytes().max(end);
        self.resize(&mut content, bytes);
        if mode == WriteMode::Durable {
            content.write_durable(end, &[]);
        }
    }

    /// Older bytes of a block of the range, or those of a file that is gone: its place may be this one
    /// now. Where in the range, and how many; `None` if there are none that differ.
    fn make_stale(&self, inode: &Inode, offset: u64, target: &mut [u8]) -> Option<(u64, u64)> {
        let mut found = target.to_vec();
        if inode.borrow().put_old(offset, &mut found) {
            return self.put_block(target, &found);
        }
        let removed = self.removed.borrow();
        if removed.is_empty() {
            return None;
        }
        let drawn = self.random.borrow_mut().below(removed.len() as u64) as usize;
        let gone = removed[drawn].borrow();
        let whole = gone.read(offset, &mut found) == found.len();
        whole.then(|| self.put_block(target, &found)).flatten()
    }

    /// Puts one of the device's blocks that differ into `target`: where, and how many bytes.
    fn put_block(&self, target: &mut [u8], found: &[u8]) -> Option<(u64, u64)> {
        let block = self.space.borrow().block_bytes as usize;
        let blocks = target.chunks(block).zip(found.chunks(block)).enumerate();
        let differ: Vec<usize> =
            blocks.filter(|(_, (right, wrong))| right != wrong).map(|(index, _)| index * block).collect();
        if differ.is_empty() {
            return None;
        }
        let at = differ[self.random.borrow_mut().below(differ.len() as u64) as usize];
        let end = target.len().min(at + block);
        target[at..end].copy_from_slice(&found[at..end]);
        Some((at as u64, (end - at) as u64))
    }

    /// Another place that holds so many bytes: as often in the same file as in any.
    fn other_place(&self, inode: &Inode, offset: u64, bytes: usize) -> Option<(Inode, u64)> {
        if bytes == 0 {
            return None;
        }
        let tree = self.tree.borrow();
        let fits = |file: &Inode| file.borrow().bytes() >= bytes as u64;
        let files: Vec<&Inode> = tree.files().map(|(_, file)| file).filter(|file| fits(file)).collect();
        let mut random = self.random.borrow_mut();
        for _ in 0..PLACES_TRIED {
            let drawn = random.below(files.len() as u64) as usize;
            let file = if random.one_in(2) && fits(inode) { inode } else { files.get(drawn).copied()? };
            let last_page = (file.borrow().bytes() - bytes as u64) / PAGE_BYTES as u64;
            let place = random.between(0, last_page) * PAGE_BYTES as u64;
            if place != offset || !std::rc::Rc::ptr_eq(file, inode) {
                return Some((file.clone(), place));
            }
        }
        None
    }
}

/// What a device's failure becomes.
fn broken() -> io::Error {
    io::Error::from(Errno::IO)
}
