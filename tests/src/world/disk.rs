//! The disk of a node: directories and files in memory, kept across crashes of the node.
//!
//! Fault-free: every write that finished is there after a crash, whether it was synced or not.
//! Alignment is checked as direct I/O does, and space runs out at a size: growing beyond it fails
//! with `StorageFull` and changes nothing, overwriting goes on. Pages of zeros take no memory, so a
//! pre-filled log segment costs nothing. Paths are relative to one root; `..` is refused.
//!
//! The methods of [`Disk`] that tests see bypass the node: they look at files, or damage them,
//! without virtual time passing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Weak};

use pinion_env::{AlignedBuf, DirEntry, FileLock, OpenMode, PAGE_BYTES, Space, page_round_up};

/// A node's disk.
#[derive(Debug)]
pub struct Disk {
    entries: RefCell<BTreeMap<PathBuf, Entry>>,
    space: RefCell<Space>,
}

#[derive(Debug, Clone)]
enum Entry {
    Directory,
    File(Inode),
}

/// A file's content, which lives as long as its name or somebody who has it open.
pub(super) type Inode = Rc<RefCell<Content>>;

#[derive(Debug, Default)]
pub(super) struct Content {
    bytes: u64,
    /// By page number; a page that is missing is all zeros.
    pages: BTreeMap<u64, Box<[u8; PAGE_BYTES]>>,
    /// Removed or replaced: its space has been given back.
    unlinked: bool,
    lock: Weak<()>,
}

/// What a test sees of a disk.
impl Disk {
    /// The paths of all files, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        let entries = self.entries.borrow();
        let files = entries.iter().filter(|(_, entry)| matches!(entry, Entry::File(_)));
        files.map(|(path, _)| path.clone()).collect()
    }

    /// The whole content of a file.
    ///
    /// # Errors
    /// No such file.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let inode = self.file(path)?;
        let content = inode.borrow();
        let mut whole = vec![0; content.bytes as usize];
        content.read(0, &mut whole);
        Ok(whole)
    }

    /// Puts bytes at an offset of a file, growing it if need be; alignment and space do not matter.
    ///
    /// # Errors
    /// No such file.
    pub fn overwrite(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let inode = self.file(path)?;
        let mut content = inode.borrow_mut();
        let end = content.bytes.max(offset + bytes.len() as u64);
        self.resize(&mut content, end);
        content.write(offset, bytes);
        Ok(())
    }

    /// Makes a file shorter, or longer by zeros.
    ///
    /// # Errors
    /// No such file.
    pub fn truncate(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let inode = self.file(path)?;
        self.resize(&mut inode.borrow_mut(), bytes);
        Ok(())
    }

    /// Removes a file behind the node's back.
    ///
    /// # Errors
    /// No such file.
    pub fn delete(&self, path: &Path) -> io::Result<()> {
        self.remove(path)
    }

    /// Changes the size of the disk. It may become smaller than what it holds: nothing grows then.
    pub fn set_total_bytes(&self, total_bytes: u64) {
        let used = self.used_bytes();
        let mut space = self.space.borrow_mut();
        space.total_bytes = total_bytes;
        space.available_bytes = total_bytes.saturating_sub(used);
    }

    /// Bytes taken by files, in whole pages.
    pub fn used_bytes(&self) -> u64 {
        let entries = self.entries.borrow();
        let bytes = |entry: &Entry| match entry {
            Entry::Directory => 0,
            Entry::File(inode) => inode.borrow().allocated_bytes(),
        };
        entries.values().map(bytes).sum()
    }
}

/// What the node's environment does with it.
impl Disk {
    /// An empty disk.
    ///
    /// # Panics
    /// When the block is not a power of two from 512 to [`PAGE_BYTES`].
    pub(super) fn new(total_bytes: u64, block_bytes: u32) -> Self {
        let fits = block_bytes.is_power_of_two() && (512..=PAGE_BYTES as u32).contains(&block_bytes);
        assert!(fits, "a block of {block_bytes} bytes");
        let root = BTreeMap::from([(PathBuf::new(), Entry::Directory)]);
        let space = Space { total_bytes, available_bytes: total_bytes, block_bytes };
        Self { entries: RefCell::new(root), space: RefCell::new(space) }
    }

    pub(super) fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Inode> {
        match mode {
            OpenMode::Read | OpenMode::ReadWrite => self.file(path),
            OpenMode::CreateNew => {
                self.create(path, || Entry::File(Inode::default())).and_then(|()| self.file(path))
            }
        }
    }

    pub(super) fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.create(path, || Entry::Directory)
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (inside(from)?, inside(to)?);
        let moved = self.file(&from)?;
        self.parent_exists(&to)?;
        let replaced = match self.entries.borrow().get(&to) {
            Some(Entry::Directory) => return Err(failed(ErrorKind::IsADirectory, &to)),
            Some(Entry::File(replaced)) => Some(replaced.clone()),
            None => None,
        };
        if let Some(replaced) = replaced.filter(|replaced| !Rc::ptr_eq(replaced, &moved)) {
            self.unlink(&replaced);
        }
        let mut entries = self.entries.borrow_mut();
        entries.remove(&from);
        entries.insert(to, Entry::File(moved));
        Ok(())
    }

    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let path = inside(path)?;
        let inode = self.file(&path)?;
        self.unlink(&inode);
        self.entries.borrow_mut().remove(&path);
        Ok(())
    }

    pub(super) fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.directory(&inside(path)?)
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let path = inside(path)?;
        self.directory(&path)?;
        let entries = self.entries.borrow();
        // Paths are ordered by their parts, so what is below a directory follows it without a gap.
        let below = entries.range(path.clone()..).skip(1).take_while(|(entry, _)| entry.starts_with(&path));
        let mut listed = Vec::new();
        for (child, entry) in below.filter(|(child, _)| child.parent() == Some(&path)) {
            let Some(name) = child.file_name().and_then(|name| name.to_str()) else { continue };
            let (is_dir, bytes) = match entry {
                Entry::Directory => (true, 0),
                Entry::File(inode) => (false, inode.borrow().bytes),
            };
            listed.push(DirEntry { name: name.to_owned(), is_dir, bytes });
        }
        Ok(listed)
    }

    pub(super) fn space(&self, path: &Path) -> io::Result<Space> {
        let path = inside(path)?;
        match self.entries.borrow().contains_key(&path) {
            true => Ok(*self.space.borrow()),
            false => Err(failed(ErrorKind::NotFound, &path)),
        }
    }

    pub(super) fn lock(&self, path: &Path) -> io::Result<Option<FileLock>> {
        match self.create(path, || Entry::File(Inode::default())) {
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
    pub(super) fn release_locks(&self) {
        for entry in self.entries.borrow().values() {
            if let Entry::File(inode) = entry {
                inode.borrow_mut().lock = Weak::new();
            }
        }
    }

    pub(super) fn read_at(
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
        Ok(inode.borrow().read(offset, &mut buffer[..bytes]))
    }

    pub(super) fn write_at(
        &self,
        inode: &Inode,
        offset: u64,
        buffer: &AlignedBuf,
        range: Range<usize>,
    ) -> io::Result<()> {
        let block = self.space.borrow().block_bytes as usize;
        let aligned = offset.is_multiple_of(block as u64)
            && range.start.is_multiple_of(PAGE_BYTES)
            && range.len().is_multiple_of(block);
        if !aligned || range.start > range.end || range.end > buffer.capacity() {
            let capacity = buffer.capacity();
            return Err(refused(format!("write of {range:?} of {capacity} at {offset}, blocks of {block}")));
        }
        let mut content = inode.borrow_mut();
        let end = offset
            .checked_add(range.len() as u64)
            .filter(|end| *end <= i64::MAX as u64)
            .ok_or_else(|| refused(format!("write at {offset}, beyond the largest file")))?;
        if end > content.bytes && !range.is_empty() {
            let more = round_up(end) - content.allocated_bytes();
            if !content.unlinked && more > self.space.borrow().available_bytes {
                return Err(io::Error::from(ErrorKind::StorageFull));
            }
            self.resize(&mut content, end);
        }
        content.write(offset, &buffer[range]);
        Ok(())
    }

    fn create(&self, path: &Path, entry: impl FnOnce() -> Entry) -> io::Result<()> {
        let path = inside(path)?;
        if self.entries.borrow().contains_key(&path) {
            return Err(failed(ErrorKind::AlreadyExists, &path));
        }
        self.parent_exists(&path)?;
        self.entries.borrow_mut().insert(path, entry());
        Ok(())
    }

    fn parent_exists(&self, path: &Path) -> io::Result<()> {
        path.parent().map_or(Ok(()), |parent| self.directory(parent))
    }

    fn directory(&self, path: &Path) -> io::Result<()> {
        match self.entries.borrow().get(path) {
            Some(Entry::Directory) => Ok(()),
            Some(Entry::File(_)) => Err(failed(ErrorKind::NotADirectory, path)),
            None => Err(failed(ErrorKind::NotFound, path)),
        }
    }

    fn file(&self, path: &Path) -> io::Result<Inode> {
        let path = inside(path)?;
        match self.entries.borrow().get(&path) {
            Some(Entry::File(inode)) => Ok(inode.clone()),
            Some(Entry::Directory) => Err(failed(ErrorKind::IsADirectory, &path)),
            None => Err(failed(ErrorKind::NotFound, &path)),
        }
    }

    fn resize(&self, content: &mut Content, bytes: u64) {
        let before = content.allocated_bytes();
        content.resize(bytes);
        if content.unlinked {
            return;
        }
        let mut space = self.space.borrow_mut();
        space.available_bytes =
            (space.available_bytes + before).saturating_sub(content.allocated_bytes()).min(space.total_bytes);
    }

    fn unlink(&self, inode: &Inode) {
        inode.borrow_mut().unlinked = true;
        // The sum over the other files; a disk made smaller than its content stays full.
        let used = self.used_bytes() - inode.borrow().allocated_bytes();
        let mut space = self.space.borrow_mut();
        space.available_bytes = space.total_bytes.saturating_sub(used);
    }
}

impl Content {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn allocated_bytes(&self) -> u64 {
        round_up(self.bytes)
    }

    fn resize(&mut self, bytes: u64) {
        if bytes < self.bytes {
            drop(self.pages.split_off(&bytes.div_ceil(PAGE_BYTES as u64)));
            let last = bytes / PAGE_BYTES as u64;
            if let Some(page) = self.pages.get_mut(&last) {
                page[(bytes % PAGE_BYTES as u64) as usize..].fill(0);
            }
        }
        self.bytes = bytes;
    }

    /// Fills the front of `target` and says how many bytes the file had there.
    fn read(&self, offset: u64, target: &mut [u8]) -> usize {
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

    fn write(&mut self, offset: u64, source: &[u8]) {
        for (page, inside, piece) in pieces(offset, source.len()) {
            let source = &source[piece];
            if source.len() == PAGE_BYTES && source.iter().all(|byte| *byte == 0) {
                self.pages.remove(&page);
                continue;
            }
            let content = self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE_BYTES]));
            content[inside..inside + source.len()].copy_from_slice(source);
        }
    }
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

fn round_up(bytes: u64) -> u64 {
    page_round_up(bytes as usize) as u64
}

/// The path below the disk's root; absolute paths and paths from `.` mean the same here.
fn inside(path: &Path) -> io::Result<PathBuf> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn page(byte: u8) -> AlignedBuf {
        let mut buffer = AlignedBuf::zeroed(PAGE_BYTES);
        buffer.fill(byte);
        buffer
    }

    #[test]
    fn files_keep_bytes_and_directories_list_them_sorted() {
        let disk = Disk::new(1 << 20, 512);
        disk.create_dir(Path::new("/data")).unwrap();
        let file = disk.open(Path::new("./data/b"), OpenMode::CreateNew).unwrap();
        disk.open(Path::new("data/a"), OpenMode::CreateNew).unwrap();
        disk.create_dir(Path::new("data/c")).unwrap();
        disk.open(Path::new("data/c/hidden"), OpenMode::CreateNew).unwrap();
        disk.write_at(&file, 512, &page(7), 0..1024).unwrap();

        let mut buffer = AlignedBuf::zeroed(2 * PAGE_BYTES);
        buffer.fill(9);
        assert_eq!(disk.read_at(&file, 0, &mut buffer, 2 * PAGE_BYTES).unwrap(), 1536);
        assert!(buffer[..512].iter().all(|byte| *byte == 0));
        assert!(buffer[512..1536].iter().all(|byte| *byte == 7));
        assert_eq!(disk.read_at(&file, 4096, &mut buffer, PAGE_BYTES).unwrap(), 0);

        let listed = disk.list(Path::new("data")).unwrap();
        let names: Vec<_> =
            listed.iter().map(|entry| (entry.name.as_str(), entry.is_dir, entry.bytes)).collect();
        assert_eq!(names, [("a", false, 0), ("b", false, 1536), ("c", true, 0)]);
        assert_eq!(disk.list(Path::new("/")).unwrap().len(), 1);
    }

    #[test]
    fn renames_replace_and_removed_files_stay_readable_while_open() {
        let disk = Disk::new(1 << 20, 4096);
        let old = disk.open(Path::new("old"), OpenMode::CreateNew).unwrap();
        let new = disk.open(Path::new("new"), OpenMode::CreateNew).unwrap();
        disk.write_at(&old, 0, &page(1), 0..4096).unwrap();
        disk.write_at(&new, 0, &page(2), 0..4096).unwrap();
        disk.rename(Path::new("new"), Path::new("old")).unwrap();
        assert_eq!(disk.files(), [PathBuf::from("old")]);
        assert_eq!(disk.used_bytes(), 4096);
        assert_eq!(disk.read(Path::new("old")).unwrap(), vec![2; 4096]);
        let mut buffer = AlignedBuf::zeroed(PAGE_BYTES);
        assert_eq!(disk.read_at(&old, 0, &mut buffer, 4096).unwrap(), 4096);
        assert_eq!(buffer[0], 1);
        disk.remove(Path::new("old")).unwrap();
        assert_eq!(disk.space(Path::new("")).unwrap().available_bytes, 1 << 20);
        let again = disk.open(Path::new("old"), OpenMode::Read).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_full_disk_refuses_growth_and_takes_overwrites() {
        let disk = Disk::new(2 * 4096, 4096);
        let file = disk.open(Path::new("file"), OpenMode::CreateNew).unwrap();
        disk.write_at(&file, 0, &page(1), 0..4096).unwrap();
        disk.write_at(&file, 4096, &page(1), 0..4096).unwrap();
        let full = disk.write_at(&file, 8192, &page(1), 0..4096).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        disk.write_at(&file, 4096, &page(2), 0..4096).unwrap();
        disk.set_total_bytes(3 * 4096);
        disk.write_at(&file, 8192, &page(3), 0..4096).unwrap();
        disk.truncate(Path::new("file"), 5000).unwrap();
        assert_eq!(disk.space(Path::new("file")).unwrap().available_bytes, 4096);
    }

    #[test]
    fn what_direct_io_refuses_is_refused() {
        let disk = Disk::new(1 << 20, 512);
        let file = disk.open(Path::new("file"), OpenMode::CreateNew).unwrap();
        let kind = |result: io::Result<()>| result.unwrap_err().kind();
        assert_eq!(kind(disk.write_at(&file, 100, &page(1), 0..512)), ErrorKind::InvalidInput);
        assert_eq!(kind(disk.write_at(&file, 0, &page(1), 0..100)), ErrorKind::InvalidInput);
        assert_eq!(kind(disk.write_at(&file, 0, &page(1), 512..1024)), ErrorKind::InvalidInput);
        assert_eq!(kind(disk.write_at(&file, 0, &page(1), 0..8192)), ErrorKind::InvalidInput);
        let mut buffer = AlignedBuf::zeroed(PAGE_BYTES);
        assert!(disk.read_at(&file, 512, &mut buffer, 4096).is_err());
        assert!(disk.read_at(&file, 0, &mut buffer, 512).is_err());
        assert!(disk.read_at(&file, 0, &mut buffer, 8192).is_err());
        assert!(disk.create_dir(Path::new("../escape")).is_err());
        assert!(disk.create_dir(Path::new("missing/child")).is_err());
    }

    #[test]
    fn a_lock_has_one_holder() {
        let disk = Disk::new(1 << 20, 512);
        let held = disk.lock(Path::new("LOCK")).unwrap().unwrap();
        assert!(disk.lock(Path::new("LOCK")).unwrap().is_none());
        drop(held);
        let _leaked = disk.lock(Path::new("LOCK")).unwrap().unwrap();
        disk.release_locks();
        assert!(disk.lock(Path::new("LOCK")).unwrap().is_some());
    }
}
