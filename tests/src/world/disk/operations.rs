//! What the node's environment does with its disk. Effects are one moment; time passes elsewhere.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Weak};

use pinion_env::{AlignedBuf, DirEntry, FileLock, OpenMode, PAGE_BYTES, Space, WriteMode};

use super::Disk;
use super::content::{Content, Inode, SyncMark, round_up};
use super::tally::Operation;
use super::tree::Entry;

/// Files that are gone whose content is kept for stale reads.
const REMOVED_KEPT: usize = 4;

impl Disk {
    pub(in crate::world) fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Inode> {
        match mode {
            OpenMode::Read | OpenMode::ReadWrite => {
                self.on_names(Operation::Open, &[path], || self.file(path))
            }
            OpenMode::CreateNew => self.on_names(Operation::Create, &[path], || {
                self.create(path, Entry::File(Inode::default()))?;
                self.file(path)
            }),
        }
    }

    pub(in crate::world) fn create_dir(&self, path: &Path) -> io::Result<()> {
        let create = || self.create(path, Entry::Directory);
        self.on_names(Operation::CreateDirectory, &[path], create)
    }

    pub(in crate::world) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.on_names(Operation::Rename, &[from, to], || self.rename_now(from, to))
    }

    pub(in crate::world) fn remove(&self, path: &Path) -> io::Result<()> {
        self.on_names(Operation::Remove, &[path], || {
            let path = inside(path)?;
            let inode = self.file(&path)?;
            self.unlink(&inode);
            self.tree.borrow_mut().remove(path, inode);
            Ok(())
        })
    }

    fn rename_now(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (inside(from)?, inside(to)?);
        let moved = self.file(&from)?;
        self.parent_exists(&to)?;
        let replaced = match self.tree.borrow().get(&to) {
            Some(Entry::Directory) => return Err(failed(ErrorKind::IsADirectory, &to)),
            Some(Entry::File(replaced)) => Some(replaced.clone()),
            None => None,
        };
        if let Some(replaced) = replaced.filter(|replaced| !Rc::ptr_eq(replaced, &moved)) {
            self.unlink(&replaced);
        }
        moved.borrow_mut().path.clone_from(&to);
        self.tree.borrow_mut().rename(from, to, moved);
        Ok(())
    }

    /// What a directory sync that begins now is to make durable.
    pub(in crate::world) fn begin_sync_dir(&self) -> u64 {
        self.tree.borrow().last_change()
    }

    pub(in crate::world) fn sync_dir(&self, path: &Path, up_to: u64) -> io::Result<()> {
        let path = inside(path)?;
        self.directory(&path)?;
        if !self.is_on() {
            return Ok(());
        }
        self.sync_names(&path, up_to, self.due(Operation::SyncDirectory, &[&path]))
    }

    pub(in crate::world) fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.on_names(Operation::List, &[path], || self.list_now(path))
    }

    fn list_now(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let path = inside(path)?;
        self.directory(&path)?;
        let tree = self.tree.borrow();
        // Paths are ordered by their parts, so what is below a directory follows it without a gap.
        let below = tree.names().range(path.clone()..).skip(1);
        let below = below.take_while(|(entry, _)| entry.starts_with(&path));
        let mut listed = Vec::new();
        for (child, entry) in below.filter(|(child, _)| child.parent() == Some(&path)) {
            let Some(name) = child.file_name().and_then(|name| name.to_str()) else { continue };
            let (is_dir, bytes) = match entry {
                Entry::Directory => (true, 0),
                Entry::File(inode) => (false, inode.borrow().bytes()),
            };
            listed.push(DirEntry { name: name.to_owned(), is_dir, bytes });
        }
        Ok(listed)
    }

    pub(in crate::world) fn space(&self, path: &Path) -> io::Result<Space> {
        self.on_names(Operation::Inspect, &[path], || {
            let path = inside(path)?;
            match self.tree.borrow().get(&path) {
                Some(_) => Ok(*self.space.borrow()),
                None => Err(failed(ErrorKind::NotFound, &path)),
            }
        })
    }

    pub(in crate::world) fn bytes(&self, inode: &Inode) -> io::Result<u64> {
        let path = self.path_if_armed(inode);
        self.on_names(Operation::Inspect, &[&path], || Ok(inode.borrow().bytes()))
    }

    pub(in crate::world) fn lock(&self, path: &Path) -> io::Result<Option<FileLock>> {
        self.on_names(Operation::Lock, &[path], || self.lock_now(path))
    }

    fn lock_now(&self, path: &Path) -> io::Result<Option<FileLock>> {
        match self.create(path, Entry::File(Inode::default())) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let inode = self.file(path)?;
        let mut content = inode.borrow_mut();
        if content.lock.strong_count() > 0 {
            return Ok(None);
        }
        let holder = Arc::new(());
        content.lock = Arc::downgrade(&holder);
        Ok(Some(FileLock::new(holder)))
    }

    /// The process that held locks is gone, whoever still has its guards.
    pub(in crate::world) fn release_locks(&self) {
        for (_, inode) in self.tree.borrow().files() {
            inode.borrow_mut().lock = Weak::new();
        }
    }

    pub(in crate::world) fn read_at(
        &self,
        inode: &Inode,
        offset: u64,
        buffer: &mut AlignedBuf,
        bytes: usize,
    ) -> io::Result<usize> {
        let page = PAGE_BYTES as u64;
        if !offset.is_multiple_of(page) || !bytes.is_multiple_of(PAGE_BYTES) || bytes > buffer.capacity() {
            let capacity = buffer.capacity();
            return Err(refused(format!("read of {bytes} bytes at {offset} into a buffer of {capacity}")));
        }
        let due = self.due(Operation::Read, &[&self.path_if_armed(inode)]);
        self.read_content(inode, offset, &mut buffer[..bytes], due)
    }

    pub(in crate::world) fn write_at(
        &self,
        inode: &Inode,
        offset: u64,
        buffer: &AlignedBuf,
        range: Range<usize>,
        mode: WriteMode,
    ) -> io::Result<()> {
        let block = self.space.borrow().block_bytes as usize;
        let aligned = offset.is_multiple_of(block as u64)
            && range.start.is_multiple_of(PAGE_BYTES)
            && range.len().is_multiple_of(block);
        if !aligned || range.start > range.end || range.end > buffer.capacity() {
            let capacity = buffer.capacity();
            return Err(refused(format!("write of {range:?} of {capacity} at {offset}, blocks of {block}")));
        }
        let end = offset
            .checked_add(range.len() as u64)
            .filter(|end| *end <= i64::MAX as u64)
            .ok_or_else(|| refused(format!("write at {offset}, beyond the largest file")))?;
        let content = inode.borrow();
        if end > content.bytes() && !range.is_empty() && !content.unlinked {
            let more = round_up(end) - content.allocated_bytes();
            if more > self.space.borrow().available_bytes {
                return Err(io::Error::from(ErrorKind::StorageFull));
            }
        }
        drop(content);
        let due = self.due(Operation::Write, &[&self.path_if_armed(inode)]);
        self.write_content(inode, offset, &buffer[range], mode, due)
    }

    pub(in crate::world) fn sync(&self, inode: &Inode, mark: SyncMark) -> io::Result<()> {
        self.sync_content(inode, mark, self.due(Operation::Sync, &[&self.path_if_armed(inode)]))
    }

    /// A file's name now; nobody asks for it as long as no fault is due.
    fn path_if_armed(&self, inode: &Inode) -> PathBuf {
        if self.armed.get() { inode.borrow().path.clone() } else { PathBuf::new() }
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<Inode> {
        let path = inside(path)?;
        match self.tree.borrow().get(&path) {
            Some(Entry::File(inode)) => Ok(inode.clone()),
            Some(Entry::Directory) => Err(failed(ErrorKind::IsADirectory, &path)),
            None => Err(failed(ErrorKind::NotFound, &path)),
        }
    }

    pub(super) fn resize(&self, content: &mut Content, bytes: u64) {
        let before = content.allocated_bytes();
        content.resize(bytes);
        if content.unlinked {
            return;
        }
        let mut space = self.space.borrow_mut();
        space.available_bytes =
            (space.available_bytes + before).saturating_sub(content.allocated_bytes()).min(space.total_bytes);
    }

    pub(super) fn unlink(&self, inode: &Inode) {
        inode.borrow_mut().unlinked = true;
        // The sum over the other files; a disk made smaller than its content stays full.
        let used = self.used_bytes() - inode.borrow().allocated_bytes();
        let mut space = self.space.borrow_mut();
        space.available_bytes = space.total_bytes.saturating_sub(used);
        if self.keeps_old.get() {
            let mut removed = self.removed.borrow_mut();
            removed.truncate(REMOVED_KEPT - 1);
            removed.push_front(inode.clone());
        }
    }

    fn create(&self, path: &Path, entry: Entry) -> io::Result<()> {
        let path = inside(path)?;
        if self.tree.borrow().get(&path).is_some() {
            return Err(failed(ErrorKind::AlreadyExists, &path));
        }
        self.parent_exists(&path)?;
        if let Entry::File(inode) = &entry {
            inode.borrow_mut().path.clone_from(&path);
        }
        self.tree.borrow_mut().create(path, entry);
        Ok(())
    }

    fn parent_exists(&self, path: &Path) -> io::Result<()> {
        path.parent().map_or(Ok(()), |parent| self.directory(parent))
    }

    fn directory(&self, path: &Path) -> io::Result<()> {
        match self.tree.borrow().get(path) {
            Some(Entry::Directory) => Ok(()),
            Some(Entry::File(_)) => Err(failed(ErrorKind::NotADirectory, path)),
            None => Err(failed(ErrorKind::NotFound, path)),
        }
    }
}

/// The path below the disk's root; absolute paths and paths from `.` mean the same here.
pub(super) fn inside(path: &Path) -> io::Result<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(failed(ErrorKind::InvalidInput, path)),
        }
    }
    Ok(clean)
}

fn failed(kind: ErrorKind, path: &Path) -> io::Error {
    io::Error::new(kind, format!("{kind}: {}", path.display()))
}

/// What the kernel answers with EINVAL, in words.
fn refused(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, format!("not a direct operation: {what}"))
}
