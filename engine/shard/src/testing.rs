//! A small in-memory world for the engine's own unit tests.
//!
//! One [`TestEnv`] is one core: [`TestEnv::block_on`] runs a future together with all spawned
//! tasks, in a fixed order, woken by real wakers; when nothing is ready, virtual time jumps to the
//! next sleeper, and when nothing sleeps either, the test panics instead of hanging. Clones share
//! everything, so a test closes what it opened and opens it again through the same value.
//!
//! Every file operation takes effect when first polled and completes one turn later, so that
//! operations overlap as they do in the real world. The disk keeps what is durable apart from
//! what is written: [`TestEnv::crash`] forgets writes without a sync, creations, renames and
//! removals without a directory sync, tasks and locks. [`TestEnv::fail`] plants errors; `flip`,
//! `truncate`, `content`, `put` look at and damage files from outside.
//!
//! Misuse (unaligned direct I/O) panics. Not a simulator: no torn sectors and no reordering.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use pinion_env::{AlignedBuf, DirEntry, Env, File, FileLock, Monotonic, OpenMode, PAGE_BYTES, Space};
use pinion_env::{TaskClass, WriteMode};

/// Turns without anything ready to run before a test counts as hung.
const IDLE_TURNS_MAX: u32 = 10_000_000;

/// What a planted fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Op {
    Open,
    Read,
    Write,
    Sync,
    SyncDir,
    Rename,
    Remove,
}

/// One core of the test world. Clones share it.
#[derive(Clone)]
pub(crate) struct TestEnv {
    world: Rc<World>,
}

struct World {
    now_ns: Cell<u64>,
    wall_offset_ms: Cell<u64>,
    random: Cell<u64>,
    block_bytes: Cell<u32>,
    capacity_bytes: Cell<u64>,
    tasks: RefCell<BTreeMap<u64, Task>>,
    next_task: Cell<u64>,
    sleepers: RefCell<BTreeMap<(u64, u64), Waker>>,
    next_sleeper: Cell<u64>,
    directories: RefCell<BTreeMap<PathBuf, Directory>>,
    locks: RefCell<BTreeMap<PathBuf, Arc<AtomicBool>>>,
    faults: RefCell<Vec<Fault>>,
    counts: RefCell<BTreeMap<Op, u64>>,
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    ready: Arc<Ready>,
}

struct Ready(AtomicBool);

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Clone, Default)]
struct Directory {
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

struct Fault {
    op: Op,
    path_part: String,
    skip: u64,
    times: u64,
    error: io::ErrorKind,
}

impl TestEnv {
    /// An empty world: root directory only, 4 KiB blocks, 1 TiB of space, wall clock in 2026.
    pub(crate) fn new(seed: u64) -> Self {
        let root = |path: &str| (PathBuf::from(path), Directory::default());
        Self {
            world: Rc::new(World {
                now_ns: Cell::new(0),
                wall_offset_ms: Cell::new(1_800_000_000_000),
                random: Cell::new(seed),
                block_bytes: Cell::new(PAGE_BYTES as u32),
                capacity_bytes: Cell::new(1 << 40),
                tasks: RefCell::default(),
                next_task: Cell::new(0),
                sleepers: RefCell::default(),
                next_sleeper: Cell::new(0),
                directories: RefCell::new(BTreeMap::from([root(""), root("/")])),
                locks: RefCell::default(),
                faults: RefCell::default(),
                counts: RefCell::default(),
            }),
        }
    }

    /// Runs `future` and all tasks until it is done. Tasks that are not done stay for the next call.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let ready = Arc::new(Ready(AtomicBool::new(true)));
        let waker = Waker::from(ready.clone());
        for _ in 0..IDLE_TURNS_MAX {
            let mut ran = false;
            if ready.0.swap(false, Ordering::Relaxed) {
                ran = true;
                if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return output;
                }
            }
            ran |= self.run_tasks_once();
            if !ran && !self.wake_next_sleeper() {
                panic!("nothing is ready and nothing sleeps: the future waits for ever");
            }
        }
        panic!("still not done after {IDLE_TURNS_MAX} turns");
    }

    /// Runs tasks until none is ready, without advancing time.
    pub(crate) fn settle(&self) {
        while self.run_tasks_once() {}
    }

    fn run_tasks_once(&self) -> bool {
        let ids: Vec<u64> = self.world.tasks.borrow().keys().copied().collect();
        let mut ran = false;
        for id in ids {
            let task = self.world.tasks.borrow_mut().remove(&id);
            let Some(mut task) = task else { continue };
            if task.ready.0.swap(false, Ordering::Relaxed) {
                ran = true;
                let waker = Waker::from(task.ready.clone());
                if task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                    continue;
                }
            }
            self.world.tasks.borrow_mut().insert(id, task);
        }
        ran
    }

    fn wake_next_sleeper(&self) -> bool {
        let first = self.world.sleepers.borrow_mut().pop_first();
        let Some(((due_ns, _), waker)) = first else { return false };
        self.world.now_ns.set(self.world.now_ns.get().max(due_ns));
        waker.wake();
        true
    }

    /// Moves the clocks on without running anything.
    pub(crate) fn advance(&self, duration: Duration) {
        self.world.now_ns.set(self.world.now_ns.get() + duration.as_nanos() as u64);
    }

    /// Sets the wall clock, which then runs on with virtual time.
    pub(crate) fn set_wall_ms(&self, wall_ms: u64) {
        self.world.wall_offset_ms.set(wall_ms.saturating_sub(self.world.now_ns.get() / 1_000_000));
    }

    /// The device's block, 512 to 4,096 bytes.
    pub(crate) fn set_block_bytes(&self, bytes: u32) {
        self.world.block_bytes.set(bytes);
    }

    /// How many bytes all files may have together; growing a file beyond it fails.
    pub(crate) fn set_capacity(&self, bytes: u64) {
        self.world.capacity_bytes.set(bytes);
    }

    /// Plants an error: operations `op` on paths that contain `path_part` fail from number
    /// `skip` (0 = the next one) on, `times` times. A failing write writes its first half.
    pub(crate) fn fail(&self, op: Op, path_part: &str, skip: u64, times: u64, error: io::ErrorKind) {
        self.world.faults.borrow_mut().push(Fault { op, path_part: path_part.into(), skip, times, error });
    }

    /// Removes all planted errors.
    pub(crate) fn heal(&self) {
        self.world.faults.borrow_mut().clear();
    }

    /// How many operations of a kind were started.
    pub(crate) fn count(&self, op: Op) -> u64 {
        self.world.counts.borrow().get(&op).copied().unwrap_or(0)
    }

    /// The process dies: tasks and locks end, files stay as they are.
    pub(crate) fn kill(&self) {
        let tasks = std::mem::take(&mut *self.world.tasks.borrow_mut());
        drop(tasks);
        self.world.sleepers.borrow_mut().clear();
        self.world.locks.borrow_mut().clear();
    }

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

    fn used_bytes(&self) -> u64 {
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

    fn open_now(&self, path: &Path, mode: OpenMode) -> io::Result<TestFile> {
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

    fn create_dir_now(&self, path: &Path) -> io::Result<()> {
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

    fn rename_now(&self, from: &Path, to: &Path) -> io::Result<()> {
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

    fn remove_now(&self, path: &Path) -> io::Result<()> {
        self.admit(Op::Remove, path)?;
        let (parent, name) = split(path);
        let mut directories = self.world.directories.borrow_mut();
        let parent = directories.get_mut(&parent).ok_or(io::ErrorKind::NotFound)?;
        parent.entries.remove(&name).ok_or(io::ErrorKind::NotFound)?;
        Ok(())
    }

    fn sync_dir_now(&self, path: &Path) -> io::Result<()> {
        self.admit(Op::SyncDir, path)?;
        let mut directories = self.world.directories.borrow_mut();
        let directory = directories.get_mut(path).ok_or(io::ErrorKind::NotFound)?;
        directory.durable = directory.entries.clone();
        Ok(())
    }

    fn list_now(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
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

    fn lock_now(&self, path: &Path) -> io::Result<Option<FileLock>> {
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

/// Pending once, with the waker already woken.
async fn one_turn() {
    let mut waited = false;
    std::future::poll_fn(|context| {
        if waited {
            return Poll::Ready(());
        }
        waited = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Env for TestEnv {
    type File = TestFile;

    fn now(&self) -> Monotonic {
        Monotonic::from_nanos(self.world.now_ns.get())
    }

    fn cpu_time(&self) -> Duration {
        Duration::from_nanos(self.world.now_ns.get())
    }

    fn wall_ms(&self) -> u64 {
        self.world.wall_offset_ms.get() + self.world.now_ns.get() / 1_000_000
    }

    fn random(&self) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        let state = self.world.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.world.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn spawn<F>(&self, _class: TaskClass, task: F)
    where
        F: Future<Output = ()> + 'static,
    {
        let id = self.world.next_task.get();
        self.world.next_task.set(id + 1);
        let task = Task { future: Box::pin(task), ready: Arc::new(Ready(AtomicBool::new(true))) };
        self.world.tasks.borrow_mut().insert(id, task);
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        let env = self.clone();
        let due_ns = self.world.now_ns.get() + duration.as_nanos() as u64;
        let number = self.world.next_sleeper.get();
        self.world.next_sleeper.set(number + 1);
        let mut polled = false;
        std::future::poll_fn(move |context| {
            if polled && env.world.now_ns.get() >= due_ns {
                env.world.sleepers.borrow_mut().remove(&(due_ns, number));
                return Poll::Ready(());
            }
            polled = true;
            env.world.sleepers.borrow_mut().insert((due_ns, number), context.waker().clone());
            Poll::Pending
        })
    }

    fn yield_now(&self) -> impl Future<Output = ()> + 'static {
        one_turn()
    }

    fn off_core<T, J>(&self, job: J) -> impl Future<Output = T> + 'static
    where
        T: Send + 'static,
        J: FnOnce() -> T + Send + 'static,
    {
        let turn = one_turn();
        async move {
            let output = job();
            turn.await;
            output
        }
    }

    fn open(&self, path: &Path, mode: OpenMode) -> impl Future<Output = io::Result<TestFile>> + 'static {
        let (env, path) = (self.clone(), path.to_path_buf());
        async move {
            let opened = env.open_now(&path, mode);
            one_turn().await;
            opened
        }
    }

    fn create_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let (env, path) = (self.clone(), path.to_path_buf());
        async move {
            let made = env.create_dir_now(&path);
            one_turn().await;
            made
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let (env, from, to) = (self.clone(), from.to_path_buf(), to.to_path_buf());
        async move {
            let renamed = env.rename_now(&from, &to);
            one_turn().await;
            renamed
        }
    }

    fn remove(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let (env, path) = (self.clone(), path.to_path_buf());
        async move {
            let removed = env.remove_now(&path);
            one_turn().await;
            removed
        }
    }

    fn sync_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let (env, path) = (self.clone(), path.to_path_buf());
        async move {
            let synced = env.sync_dir_now(&path);
            one_turn().await;
            synced
        }
    }

    fn list(&self, path: &Path) -> impl Future<Output = io::Result<Vec<DirEntry>>> + 'static {
        let (env, path) = (self.clone(), path.to_path_buf());
        async move {
            let listed = env.list_now(&path);
            one_turn().await;
            listed
        }
    }

    fn space(&self, _path: &Path) -> impl Future<Output = io::Result<Space>> + 'static {
        let env = self.clone();
        async move {
            one_turn().await;
            let total_bytes = env.world.capacity_bytes.get();
            Ok(Space {
                total_bytes,
                available_bytes: total_bytes.saturating_sub(env.used_bytes()),
                block_bytes: env.world.block_bytes.get(),
            })
        }
    }

    fn lock(&self, path: &Path) -> impl Future<Output = io::Result<Option<FileLock>>> + 'static {
        let (env, path) = (self.clone(), path.to_path_buf());
        async move {
            one_turn().await;
            env.lock_now(&path)
        }
    }
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

/// Compares bytes with a golden file; says where they differ and what they are now.
pub(crate) fn assert_golden(name: &str, found: &[u8], golden: &[u8]) {
    if found == golden {
        return;
    }
    let same = found.iter().zip(golden).take_while(|(left, right)| left == right).count();
    let hex: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
    panic!("golden/{name} differs from byte {same} on; a stored format may never change. Found: {hex}");
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn write(env: &TestEnv, path: &str, byte: u8, mode: WriteMode) -> io::Result<()> {
        let file = match env.open(Path::new(path), OpenMode::ReadWrite).await {
            Ok(file) => file,
            Err(_) => env.open(Path::new(path), OpenMode::CreateNew).await?,
        };
        let mut buffer = AlignedBuf::zeroed(PAGE_BYTES);
        buffer.fill(byte);
        file.write(0, buffer, 0..PAGE_BYTES, mode).await.0
    }

    #[test]
    fn a_crash_keeps_exactly_what_was_synced() {
        let env = TestEnv::new(1);
        let dir = Path::new("/data");
        env.block_on(async {
            pinion_env::create_dir_all(&env, dir).await.unwrap();
            env.sync_dir(Path::new("/")).await.unwrap();
            write(&env, "/data/a", 1, WriteMode::Durable).await.unwrap();
            env.sync_dir(dir).await.unwrap();
            write(&env, "/data/b", 2, WriteMode::Durable).await.unwrap();
            write(&env, "/data/a", 3, WriteMode::Unsynced).await.unwrap();
            env.rename(Path::new("/data/a"), Path::new("/data/c")).await.unwrap();
            env.create_dir(Path::new("/data/d")).await.unwrap();
        });
        let fork = env.fork();
        env.crash();
        assert_eq!(env.names("/data"), ["a"]);
        assert_eq!(env.content("/data/a")[0], 1);
        assert_eq!(fork.names("/data"), ["b", "c", "d"]);
        env.flip("/data/a", 9, 0xFF);
        env.truncate("/data/a", 10);
        assert_eq!(env.content("/data/a"), [1, 1, 1, 1, 1, 1, 1, 1, 1, 0xFE]);
        env.put("/data/z", b"z");
        env.block_on(async {
            env.remove(Path::new("/data/z")).await.unwrap();
            assert_eq!(env.list(dir).await.unwrap().len(), 1);
        });
        fork.crash();
        assert_eq!(fork.content("/data/a")[0], 1);
    }

    #[test]
    fn planted_faults_hit_the_chosen_operation() {
        let env = TestEnv::new(1);
        env.fail(Op::Write, "/a", 1, 1, io::ErrorKind::Other);
        env.block_on(async {
            assert!(write(&env, "/a", 1, WriteMode::Durable).await.is_ok());
            assert!(write(&env, "/b", 1, WriteMode::Durable).await.is_ok());
            env.set_block_bytes(512);
            assert!(write(&env, "/a", 2, WriteMode::Durable).await.is_err());
            assert!(write(&env, "/a", 3, WriteMode::Durable).await.is_ok());
            env.set_capacity(2 * PAGE_BYTES as u64);
            let full = write(&env, "/c", 1, WriteMode::Durable).await.unwrap_err();
            assert_eq!(full.kind(), io::ErrorKind::StorageFull);
            env.heal();
        });
        assert_eq!(env.count(Op::Write), 5);
    }

    #[test]
    fn tasks_run_beside_the_main_future_in_virtual_time() {
        let env = TestEnv::new(7);
        let hits = Rc::new(Cell::new(0));
        for _ in 0..3 {
            let (env, hits) = (env.clone(), hits.clone());
            env.clone().spawn(TaskClass::Background, async move {
                env.sleep(Duration::from_secs(5)).await;
                hits.set(hits.get() + 1);
            });
        }
        let start = env.wall_ms();
        env.settle();
        assert_eq!((hits.get(), env.now().nanos()), (0, 0));
        env.block_on(async {
            env.sleep(Duration::from_secs(9)).await;
            assert_eq!(env.off_core(|| 4).await, 4);
        });
        assert_eq!((hits.get(), env.wall_ms() - start), (3, 9_000));
        env.set_wall_ms(50_000);
        env.advance(Duration::from_secs(1));
        assert_eq!(env.wall_ms(), 51_000);
        assert_eq!(TestEnv::new(3).random(), TestEnv::new(3).random());
    }

    #[test]
    fn a_lock_is_exclusive_until_dropped_or_killed() {
        let env = TestEnv::new(1);
        env.block_on(async {
            let path = Path::new("/LOCK");
            let held = env.lock(path).await.unwrap();
            assert!(held.is_some());
            assert!(env.lock(path).await.unwrap().is_none());
            drop(held);
            let held = env.lock(path).await.unwrap();
            assert!(held.is_some());
            env.kill();
            assert!(env.lock(path).await.unwrap().is_some());
        });
    }
}
