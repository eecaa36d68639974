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

mod disk;
mod tests;

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

use pinion_env::{
    DirEntry, Env, FileLock, Monotonic, OpenMode, PAGE_BYTES, Space, TaskClass, Urgencies, Urgency,
};

use disk::{Directory, Fault, TestFile};

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
    reads_now: Cell<u64>,
    reads_at_once: Cell<u64>,
    urgencies: Urgencies,
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
                reads_now: Cell::new(0),
                reads_at_once: Cell::new(0),
                urgencies: Urgencies::default(),
            }),
        }
    }

    /// How urgent the most urgent background work is.
    pub(crate) fn urgency(&self) -> u32 {
        self.world.urgencies.max()
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

    /// The most reads that were in flight at the same time since this was asked last.
    pub(crate) fn reads_at_once(&self) -> u64 {
        self.world.reads_at_once.replace(self.world.reads_now.get())
    }

    /// The process dies: tasks and locks end, files stay as they are.
    pub(crate) fn kill(&self) {
        let tasks = std::mem::take(&mut *self.world.tasks.borrow_mut());
        drop(tasks);
        self.world.sleepers.borrow_mut().clear();
        self.world.locks.borrow_mut().clear();
    }
}

/// A read in flight.
struct Flight(Rc<World>);

impl Flight {
    fn new(env: &TestEnv) -> Self {
        let world = Rc::clone(&env.world);
        world.reads_now.set(world.reads_now.get() + 1);
        world.reads_at_once.set(world.reads_at_once.get().max(world.reads_now.get()));
        Self(world)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.reads_now.set(self.0.reads_now.get() - 1);
    }
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

    fn urgency(&self) -> Urgency {
        self.world.urgencies.add()
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

/// Compares bytes with a golden file; says where they differ and what they are now.
pub(crate) fn assert_golden(name: &str, found: &[u8], golden: &[u8]) {
    if found == golden {
        return;
    }
    let same = found.iter().zip(golden).take_while(|(left, right)| left == right).count();
    let hex: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
    panic!("golden/{name} differs from byte {same} on; a stored format may never change. Found: {hex}");
}
