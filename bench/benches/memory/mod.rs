//! One core whose world is memory: the engine's pieces run on it, so that a bench measures them and
//! not a device, a kernel or an executor.
//!
//! File operations are done when they are first polled, off-core jobs where they are asked for, and
//! time stands still while anything is ready to run; when nothing is, it jumps to the next sleeper.
//! Background tasks can be held back until a bench wants to time them. Nothing fails, so whatever a
//! bench leaves out to handle cannot happen here.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn, ready};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use pinion_runtime::env::{
    AlignedBuf, DirEntry, Env, File, FileLock, Monotonic, OpenMode, PAGE_BYTES, Space, TaskClass, Urgency,
    WriteMode,
};

/// The wall clock at the start: some time in 2026, in milliseconds since 1970.
const WALL_MS: u64 = 1_800_000_000_000;
const SPACE_BYTES: u64 = 1 << 40;

type Content = Rc<RefCell<Vec<u8>>>;

/// The core. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct MemoryEnv {
    /// Whether background tasks are kept from running.
    pub(crate) holds_background: Rc<Cell<bool>>,
    world: Rc<World>,
}

#[derive(Default)]
struct World {
    files: RefCell<BTreeMap<PathBuf, Content>>,
    tasks: RefCell<Vec<Task>>,
    /// By the time when they are due, in nanoseconds, and the number of the sleep.
    sleepers: RefCell<BTreeMap<(u64, u64), Waker>>,
    sleeps: Cell<u64>,
    now_ns: Cell<u64>,
    random: Cell<u64>,
}

struct Task {
    class: TaskClass,
    future: Pin<Box<dyn Future<Output = ()>>>,
    woken: Arc<Woken>,
}

struct Woken(AtomicBool);

impl Woken {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true)))
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl MemoryEnv {
    /// Runs a future and all tasks until it is done; tasks that are not done stay.
    ///
    /// # Panics
    /// When it waits for what never comes.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let woken = Woken::new();
        let waker = Waker::from(Arc::clone(&woken));
        loop {
            let is_woken = woken.take();
            if is_woken && let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return output;
            }
            if !self.run_tasks() && !is_woken && !self.wake_a_sleeper() {
                panic!("the future waits for what never comes");
            }
        }
    }

    /// Ends all tasks, which hold the world that holds them.
    pub(crate) fn end(self) {
        let tasks = self.world.tasks.take();
        drop(tasks);
    }

    /// Whether any ran.
    fn run_tasks(&self) -> bool {
        let mut tasks = self.world.tasks.take();
        let mut any = false;
        tasks.retain_mut(|task| {
            let is_held = self.holds_background.get() && task.class == TaskClass::Background;
            if is_held || !task.woken.take() {
                return true;
            }
            any = true;
            let waker = Waker::from(Arc::clone(&task.woken));
            task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending()
        });
        // Behind those that they have started.
        self.world.tasks.borrow_mut().append(&mut tasks);
        any
    }

    fn wake_a_sleeper(&self) -> bool {
        let first = self.world.sleepers.borrow_mut().pop_first();
        let Some(((due_ns, _), waker)) = first else { return false };
        self.world.now_ns.set(due_ns);
        waker.wake();
        true
    }

    fn open_now(&self, path: PathBuf, mode: OpenMode) -> io::Result<MemoryFile> {
        let mut files = self.world.files.borrow_mut();
        match (files.get(&path), mode) {
            (Some(_), OpenMode::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some(content), _) => Ok(MemoryFile(Rc::clone(content))),
            (None, OpenMode::CreateNew) => {
                let content = Content::default();
                files.insert(path, Rc::clone(&content));
                Ok(MemoryFile(content))
            }
            (None, _) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename_now(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.world.files.borrow_mut();
        let content = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), content);
        Ok(())
    }
}

/// Pending once.
async fn one_turn() {
    let mut waited = false;
    poll_fn(|context| {
        if waited {
            return Poll::Ready(());
        }
        waited = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Env for MemoryEnv {
    type File = MemoryFile;

    fn now(&self) -> Monotonic {
        Monotonic::from_nanos(self.world.now_ns.get())
    }

    fn cpu_time(&self) -> Duration {
        Duration::from_nanos(self.world.now_ns.get())
    }

    fn wall_ms(&self) -> u64 {
        WALL_MS + self.world.now_ns.get() / 1_000_000
    }

    fn random(&self) -> u64 {
        let next = self.world.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.world.random.set(next);
        next ^ (next >> 29)
    }

    fn spawn<F>(&self, class: TaskClass, task: F)
    where
        F: Future<Output = ()> + 'static,
    {
        self.world.tasks.borrow_mut().push(Task { class, future: Box::pin(task), woken: Woken::new() });
    }

    fn urgency(&self) -> Urgency {
        Urgency::default()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        let world = Rc::clone(&self.world);
        let due_ns = world.now_ns.get() + duration.as_nanos() as u64;
        let number = world.sleeps.get();
        world.sleeps.set(number + 1);
        poll_fn(move |context| {
            if world.now_ns.get() >= due_ns {
                return Poll::Ready(());
            }
            world.sleepers.borrow_mut().insert((due_ns, number), context.waker().clone());
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
        ready(job())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> impl Future<Output = io::Result<MemoryFile>> + 'static {
        ready(self.open_now(path.to_owned(), mode))
    }

    fn create_dir(&self, _path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        ready(Ok(()))
    }

    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        ready(self.rename_now(from, to))
    }

    fn remove(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let removed = self.world.files.borrow_mut().remove(path);
        ready(removed.map(drop).ok_or_else(|| io::ErrorKind::NotFound.into()))
    }

    fn sync_dir(&self, _path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        ready(Ok(()))
    }

    fn list(&self, path: &Path) -> impl Future<Output = io::Result<Vec<DirEntry>>> + 'static {
        let files = self.world.files.borrow();
        let inside = files.iter().filter(|(found, _)| found.parent() == Some(path));
        let entry = |(found, content): (&PathBuf, &Content)| {
            let name = found.file_name()?.to_str()?.to_owned();
            Some(DirEntry { name, is_dir: false, bytes: content.borrow().len() as u64 })
        };
        ready(Ok(inside.filter_map(entry).collect()))
    }

    fn space(&self, _path: &Path) -> impl Future<Output = io::Result<Space>> + 'static {
        let block_bytes = PAGE_BYTES as u32;
        ready(Ok(Space { total_bytes: SPACE_BYTES, available_bytes: SPACE_BYTES, block_bytes }))
    }

    fn lock(&self, _path: &Path) -> impl Future<Output = io::Result<Option<FileLock>>> + 'static {
        ready(Ok(Some(FileLock::new(()))))
    }
}

/// Bytes with a name.
pub(crate) struct MemoryFile(Content);

impl File for MemoryFile {
    fn read(
        &self,
        offset: u64,
        mut buffer: AlignedBuf,
        bytes: usize,
    ) -> impl Future<Output = (io::Result<usize>, AlignedBuf)> + 'static {
        let content = Rc::clone(&self.0);
        async move {
            let content = content.borrow();
            let rest = content.get(offset as usize..).unwrap_or_default();
            let count = bytes.min(rest.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            (Ok(count), buffer)
        }
    }

    fn write(
        &self,
        offset: u64,
        buffer: AlignedBuf,
        range: Range<usize>,
        _mode: WriteMode,
    ) -> impl Future<Output = (io::Result<()>, AlignedBuf)> + 'static {
        let content = Rc::clone(&self.0);
        async move {
            let mut content = content.borrow_mut();
            let (start, end) = (offset as usize, offset as usize + range.len());
            if content.len() < end {
                content.resize(end, 0);
            }
            content[start..end].copy_from_slice(&buffer[range]);
            (Ok(()), buffer)
        }
    }

    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static {
        ready(Ok(()))
    }

    fn bytes(&self) -> impl Future<Output = io::Result<u64>> + 'static {
        ready(Ok(self.0.borrow().len() as u64))
    }
}
