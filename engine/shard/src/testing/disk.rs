//! The test world's disk: what is written, what is durable, and what a test does to files from outside.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pinion_env::{AlignedBuf, DirEntry, File, FileLock, OpenMode, PAGE_BYTES, WriteMode};

use super::{Flight, Op, TestEnv, one_turn};

#[derive(Clone, Default)]
pub(super) struct Directory {
    entries: BTreeMap<String, Node>,
    durable: BTreeMap<String, Node>,
}

#[derive(Clone)]
enum Node {
    Directory,
    File(Rc<Inode>),
}

#[derive(Default)]
struct Inode {
    written: RefCell<Vec<u8>>,
    durable: RefCell<Vec<u8>>,
}

pub(super) struct Fault {
    pub(super) op: Op,
    pub(super) path_part: String,
    pub(super) skip: u64,
    pub(super) times: u64,
    pub(super) error: io::ErrorKind,
}

impl TestEnv {
    /// Power is lost: like [`TestEnv::kill`], and what was not synced is gone.
    pub(crate) fn crash(&self) {
        self.kill();
        let mut directories = self.world.directories.borrow_mut();
        for directory in directories.values_mut() {
            directory.entries = directory.durable.clone();
            for node in directory.entries.values() {
                if let Node::File(inode) = node {
                    *inode.written.borrow_mut() = inode.durable.borrow().clone();
                }
            }
        }
        let reachable: Vec<PathBuf> = directories.keys().cloned().collect();
        for path in reachable {
            let gone = path.parent().zip(path.file_name()).is_some_and(|(parent, name)| {
                let name = name.to_str().expect("test paths are UTF-8");
                directories.get(parent).is_none_or(|parent| !parent.entries.contains_key(name))
            });
            if gone {
                directories.remove(&path);
            }
        }
    }

    /// A file's bytes as they stand now.
    pub(crate) fn content(&self, path: impl AsRef<Path>) -> Vec<u8> {
        self.inode(path.as_ref()).expect("the file is there").written.borrow().clone()
    }

    /// Replaces or makes a file, durably.
    pub(crate) fn put(&self, path: impl AsRef<Path>, bytes: &[u8]) {
        let inode = Rc::new(Inode { written: bytes.to_vec().into(), durable: bytes.to_vec().into() });
        let (parent, name) = split(path.as_ref());
        let mut directories = self.world.directories.borrow_mut();
        let directory = directories.get_mut(&parent).expect("the directory is there");
        directory.entries.insert(name.clone(), Node::File(inode.clone()));
        directory.durable.insert(name, Node::File(inode));
    }

    /// Changes one byte of a file, durably.
    pub(crate) fn flip(&self, path: impl AsRef<Path>, offset: u64, mask: u8) {
        let inode = self.inode(path.as_ref()).expect("the file is there");
        inode.written.borrow_mut()[offset as usize] ^= mask;
        let mut durable = inode.durable.borrow_mut();
        if let Some(byte) = durable.get_mut(offset as usize) {
            *byte ^= mask;
        }
    }

    /// Cuts a file, durably.
    pub(crate) fn truncate(&self, path: impl AsRef<Path>, bytes: u64) {
        let inode = self.inode(path.as_ref()).expect("the file is there");
        inode.written.borrow_mut().truncate(bytes as usize);
        inode.durable.borrow_mut().truncate(bytes as usize);
    }

    /// Removes a directory and what is in it, durably.
    pub(crate) fn remove_dir(&self, path: impl AsRef<Path>) {
        let (parent, name) = split(path.as_ref());
        let mut directories = self.world.directories.borrow_mut();
        directories.retain(|found, _| !found.starts_with(path.as_ref()));
        let parent = directories.get_mut(&parent).expect("the parent is there");
        parent.entries.remove(&name);
        parent.durable.remove(&name);
    }

    /// The names of a directory's files, sorted.
    pub(crate) fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let directories = self.world.directories.borrow();
        directories.get(path.as_ref()).map_or_else(Vec::new, |found| found.entries.keys().cloned().collect())
    }

    /// A world with the same files and nothing shared, for tests that damage many variants.
    pub(crate) fn fork(&self) -> Self {
        let copy = Self::new(self.world.random.get());
        copy.world.block_bytes.set(self.world.block_bytes.get());
        copy.world.capacity_bytes.set(self.world.capacity_bytes.get());
        copy.world.wall_offset_ms.set(self.world.wall_offset_ms.get());
        copy.world.now_ns.set(self.world.now_ns.get());
        let mut directories = copy.world.directories.borrow_mut();
        let mut copies: BTreeMap<*const Inode, Rc<Inode>> = BTreeMap::new();
        let mut copy_names = |names: &BTreeMap<String, Node>| -> BTreeMap<String, Node> {
            let mut copied = BTreeMap::new();
            for (name, node) in names {
                let node = match node {
                    Node::Directory => Node::Directory,
                    Node::File(inode) => Node::File(
                        copies
                            .entry(Rc::as_ptr(inode))
                            .or_insert_with(|| {
                                Rc::new(Inode {
                                    written: inode.written.clone(),
                                    durable: inode.durable.clone(),
                                })
                            })
                            .clone(),
                    ),
                };
                copied.insert(name.clone(), node);
            }
            copied
        };
        for (path, directory) in self.world.directories.borrow().iter() {
            let entries = copy_names(&directory.entries);
            let durable = copy_names(&directory.durable);
            directories.insert(path.clone(), Directory { entries, durable });
        }
        drop(directories);
        copy
    }

    fn inode(&self, path: &Path) -> Option<Rc<Inode>> {
        let (parent, name) = split(path);
        match self.world.directories.borrow().get(&parent)?.entries.get(&name)? {
            Node::File(inode) => Some(inode.clone()),
            Node::Directory => None,
        }
    }

    pub(super) fn used_bytes(&self) -> u64 {
        let directories = self.world.directories.borrow();
        let nodes = directories.values().flat_map(|directory| directory.entries.values());
        nodes
            .map(|node| match node {
                Node::File(inode) => inode.written.borrow().len() as u64,
                Node::Directory => 0,
            })
            .sum()
    }

    /// Counts an operation and answers with the planted error, if one is due.
    fn admit(&self, op: Op, path: &Path) -> io::Result<()> {
        *self.world.counts.borrow_mut().entry(op).or_insert(0) += 1;
        let path = path.to_string_lossy();
        for fault in self.world.faults.borrow_mut().iter_mut() {
            if fault.op == op && path.contains(fault.path_part.as_str()) {
                if fault.skip > 0 {
                    fault.skip -= 1;
                } else if fault.times > 0 {
                    fault.times -= 1;
                    return Err(fault.error.into());
                }
            }
        }
        Ok(())
    }

    pub(super) fn open_now(&self, path: &Path, mode: OpenMode) -> io::Result<TestFile> {
        self.admit(Op::Open, path)?;
        let found = self.inode(path);
        let inode = match (mode, found) {
            (OpenMode::CreateNew, Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (OpenMode::CreateNew, None) => {
                let (parent, name) = split(path);
                let mut directories = self.world.directories.borrow_mut();
                let directory = directories.get_mut(&parent).ok_or(io::ErrorKind::NotFound)?;
                let inode = Rc::new(Inode::default());
                directory.entries.insert(name, Node::File(inode.clone()));
                inode
            }
            (_, Some(inode)) => inode,
            (_, None) => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(TestFile { env: self.clone(), path: path.to_path_buf(), inode })
    }

    pub(super) fn create_dir_now(&self, path: &Path) -> io::Result<()> {
        let mut directories = self.world.directories.borrow_mut();
        if directories.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (parent, name) = split(path);
        let parent = directories.get_mut(&parent).ok_or(io::ErrorKind::NotFound)?;
        parent.entries.insert(name, Node::Directory);
        directories.insert(path.to_path_buf(), Directory::default());
        Ok(())
    }

    pub(super) fn rename_now(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.admit(Op::Rename, from)?;
        let (from_parent, from_name) = split(from);
        let (to_parent, to_name) = split(to);
        let mut directories = self.world.directories.borrow_mut();
        if !directories.contains_key(&to_parent) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let source = directories.get_mut(&from_parent).ok_or(io::ErrorKind::NotFound)?;
        let node = source.entries.remove(&from_name).ok_or(io::ErrorKind::NotFound)?;
        let target = directories.get_mut(&to_parent).expect("looked up above");
        target.entries.insert(to_name, node);
        Ok(())
    }

    pub(super) fn remove_now(&self, path: &Path) -> io::Result<()> {
        self.admit(Op::Remove, path)?;
        let (parent, name) = split(path);
        let mut directories = self.world.directories.borrow_mut();
        let parent = directories.get_mut(&parent).ok_or(io::ErrorKind::NotFound)?;
        parent.entries.remove(&name).ok_or(io::ErrorKind::NotFound)?;
        Ok(())
    }

    pub(super) fn sync_dir_now(&self, path: &Path) -> io::Result<()> {
        self.admit(Op::SyncDir, path)?;
        let mut directories = self.world.directories.borrow_mut();
        let directory = directories.get_mut(path).ok_or(io::ErrorKind::NotFound)?;
        directory.durable = directory.entries.clone();
        Ok(())
    }

    pub(super) fn list_now(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let directories = self.world.directories.borrow();
        let directory = directories.get(path).ok_or(io::ErrorKind::NotFound)?;
        let entry = |(name, node): (&String, &Node)| match node {
            Node::Directory => DirEntry { name: name.clone(), is_dir: true, bytes: 0 },
            Node::File(inode) => {
                DirEntry { name: name.clone(), is_dir: false, bytes: inode.written.borrow().len() as u64 }
            }
        };
        Ok(directory.entries.iter().map(entry).collect())
    }

    pub(super) fn lock_now(&self, path: &Path) -> io::Result<Option<FileLock>> {
        if self.inode(path).is_none() {
            self.open_now(path, OpenMode::CreateNew)?;
        }
        let mut locks = self.world.locks.borrow_mut();
        let held = locks.entry(path.to_path_buf()).or_default();
        if held.swap(true, Ordering::Relaxed) {
            return Ok(None);
        }
        Ok(Some(FileLock::new(HeldLock(held.clone()))))
    }
}

struct HeldLock(Arc<AtomicBool>);

impl Drop for HeldLock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

fn split(path: &Path) -> (PathBuf, String) {
    let parent = path.parent().unwrap_or(Path::new("")).to_path_buf();
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("").to_owned();
    (parent, name)
}

/// An open file of the test world.
pub(crate) struct TestFile {
    env: TestEnv,
    path: PathBuf,
    inode: Rc<Inode>,
}

impl TestFile {
    fn handle(&self) -> Self {
        Self { env: self.env.clone(), path: self.path.clone(), inode: self.inode.clone() }
    }

    fn read_now(&self, offset: u64, buffer: &mut AlignedBuf, bytes: usize) -> io::Result<usize> {
        assert!(
            offset.is_multiple_of(PAGE_BYTES as u64) && bytes.is_multiple_of(PAGE_BYTES),
            "unaligned read"
        );
        assert!(bytes <= buffer.capacity(), "a read larger than its buffer");
        self.env.admit(Op::Read, &self.path)?;
        let written = self.inode.written.borrow();
        let there = written.get(offset as usize..).unwrap_or_default();
        let count = there.len().min(bytes);
        buffer[..count].copy_from_slice(&there[..count]);
        Ok(count)
    }

    fn write_now(&self, offset: u64, bytes: &[u8], mode: WriteMode) -> io::Result<()> {
        let unit = self.env.world.block_bytes.get() as usize;
        assert!(offset.is_multiple_of(unit as u64) && bytes.len().is_multiple_of(unit), "unaligned write");
        let admitted = self.env.admit(Op::Write, &self.path);
        let bytes = if admitted.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        let length = self.inode.written.borrow().len() as u64;
        let growth = (offset + bytes.len() as u64).saturating_sub(length);
        if growth > 0 && self.env.used_bytes() + growth > self.env.world.capacity_bytes.get() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        store(&mut self.inode.written.borrow_mut(), offset, bytes);
        if mode == WriteMode::Durable && admitted.is_ok() {
            store(&mut self.inode.durable.borrow_mut(), offset, bytes);
        }
        admitted
    }
}

fn store(into: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let end = offset as usize + bytes.len();
    if into.len() < end {
        into.resize(end, 0);
    }
    into[offset as usize..end].copy_from_slice(bytes);
}

impl File for TestFile {
    fn read(
        &self,
        offset: u64,
        mut buffer: AlignedBuf,
        bytes: usize,
    ) -> impl Future<Output = (io::Result<usize>, AlignedBuf)> + 'static {
        let file = self.handle();
        async move {
            let _flight = Flight::new(&file.env);
            let count = file.read_now(offset, &mut buffer, bytes);
            one_turn().await;
            (count, buffer)
        }
    }

    fn write(
        &self,
        offset: u64,
        buffer: AlignedBuf,
        range: std::ops::Range<usize>,
        mode: WriteMode,
    ) -> impl Future<Output = (io::Result<()>, AlignedBuf)> + 'static {
        let file = self.handle();
        async move {
            assert!(range.start.is_multiple_of(PAGE_BYTES), "unaligned buffer range");
            let written = file.write_now(offset, &buffer[range], mode);
            one_turn().await;
            (written, buffer)
        }
    }

    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static {
        let file = self.handle();
        async move {
            let admitted = file.env.admit(Op::Sync, &file.path);
            if admitted.is_ok() {
                *file.inode.durable.borrow_mut() = file.inode.written.borrow().clone();
            }
            one_turn().await;
            admitted
        }
    }

    fn bytes(&self) -> impl Future<Output = io::Result<u64>> + 'static {
        let bytes = self.inode.written.borrow().len() as u64;
        async move { Ok(bytes) }
    }
}
