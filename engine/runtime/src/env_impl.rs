//! One core's handle to the outside world: the traits of [`pinion_env`], implemented.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use glommio::TaskQueueHandle;
use pinion_env::{
    DirEntry, Env, FileLock, Monotonic, NodeEnv, OpenMode, Space, TaskClass, Urgencies, Urgency,
};

use crate::core::Core;
use crate::directory;
use crate::file::RealFile;
use crate::listener::RealListener;
use crate::mail::{Doorbell, Mailbox};
use crate::off_core::{JobTable, OffCoreJobs};
use crate::runtime::AbortOnPanic;
use crate::socket::{RealSocket, SocketHandoff};
use crate::sys;
use crate::timers::Sleep;
use crate::waker::WakerSlot;

/// What all handles of one core share.
pub(crate) struct Node<M> {
    pub(crate) core: Rc<Core>,
    pub(crate) index: usize,
    pub(crate) mailboxes: Arc<[Mailbox<M>]>,
    pub(crate) queues: Queues,
    pub(crate) listening: Option<Arc<OwnedFd>>,
    pub(crate) jobs: OffCoreJobs,
    pub(crate) job_table: JobTable,
    pub(crate) message_receiver: WakerSlot,
    pub(crate) random: Cell<u64>,
    pub(crate) urgencies: Rc<Urgencies>,
}

/// glommio's queues, one per task class.
#[derive(Clone, Copy)]
pub(crate) struct Queues {
    pub(crate) log: TaskQueueHandle,
    pub(crate) foreground: TaskQueueHandle,
    pub(crate) flush: TaskQueueHandle,
    pub(crate) background: TaskQueueHandle,
}

impl<M: Send + 'static> Node<M> {
    pub(crate) fn mailbox(&self) -> &Mailbox<M> {
        &self.mailboxes[self.index]
    }

    pub(crate) fn doorbell(&self) -> &Doorbell {
        &self.mailbox().doorbell
    }

    /// Wakes those whom messages and finished jobs concern. Returns whether anybody was woken.
    pub(crate) fn collect_mail(&self) -> bool {
        let jobs = self.job_table.collect(self.mailbox());
        // Without a waiting receiver there is nobody to wake; it looks by itself when it gets to it.
        let messages = !self.mailbox().messages.is_empty() && self.message_receiver.wake();
        jobs || messages
    }
}

/// One core's handle to time, tasks, files, sockets and the other cores. Cheap to clone; stays on
/// its core.
pub struct RealEnv<M: Send + 'static> {
    node: Rc<Node<M>>,
}

impl<M: Send + 'static> RealEnv<M> {
    pub(crate) fn new(node: Rc<Node<M>>) -> Self {
        Self { node }
    }

    async fn blocking<T: Send + 'static>(node: Rc<Node<M>>, job: impl FnOnce() -> T + Send + 'static) -> T {
        let mailboxes = Arc::clone(&node.mailboxes);
        node.job_table.run(&node.jobs, mailboxes, node.index, job).await
    }
}

impl<M: Send + 'static> Clone for RealEnv<M> {
    fn clone(&self) -> Self {
        Self { node: Rc::clone(&self.node) }
    }
}

async fn yield_to_others(core: Rc<Core>) {
    let _yielding = core.yielding();
    glommio::executor().yield_task_queue_now().await;
}

impl<M: Send + 'static> Env for RealEnv<M> {
    type File = RealFile;

    fn now(&self) -> Monotonic {
        Monotonic::from_nanos(sys::monotonic_nanos())
    }

    fn cpu_time(&self) -> Duration {
        sys::thread_cpu_time()
    }

    fn wall_ms(&self) -> u64 {
        sys::coarse_wall_ms()
    }

    fn random(&self) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014), seeded by the kernel: for seeds and jitter.
        let state = self.node.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.node.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn spawn<F>(&self, class: TaskClass, task: F)
    where
        F: Future<Output = ()> + 'static,
    {
        let queues = self.node.queues;
        let queue = match class {
            TaskClass::Log => queues.log,
            TaskClass::Foreground => queues.foreground,
            TaskClass::Flush => queues.flush,
            TaskClass::Background => queues.background,
        };
        let task = async {
            let _guard = AbortOnPanic;
            task.await;
        };
        glommio::spawn_local_into(task, queue).expect("the queues live as long as the core").detach();
    }

    fn urgency(&self) -> Urgency {
        self.node.urgencies.add()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        let core = Rc::clone(&self.node.core);
        async move {
            // A timer that has expired already would be a busy loop through the driver.
            if duration.is_zero() {
                yield_to_others(core).await;
            } else {
                Sleep::new(&core, duration).await;
            }
        }
    }

    fn yield_now(&self) -> impl Future<Output = ()> + 'static {
        yield_to_others(Rc::clone(&self.node.core))
    }

    fn off_core<T, J>(&self, job: J) -> impl Future<Output = T> + 'static
    where
        T: Send + 'static,
        J: FnOnce() -> T + Send + 'static,
    {
        Self::blocking(Rc::clone(&self.node), job)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> impl Future<Output = io::Result<RealFile>> + 'static {
        RealFile::open(Rc::clone(&self.node.core), path.to_owned(), mode)
    }

    fn create_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        directory::create(Rc::clone(&self.node.core), path.to_owned())
    }

    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        directory::rename(Rc::clone(&self.node.core), from.to_owned(), to.to_owned())
    }

    fn remove(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        directory::remove(Rc::clone(&self.node.core), path.to_owned())
    }

    fn sync_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        directory::sync(Rc::clone(&self.node.core), path.to_owned())
    }

    fn list(&self, path: &Path) -> impl Future<Output = io::Result<Vec<DirEntry>>> + 'static {
        let path = path.to_owned();
        Self::blocking(Rc::clone(&self.node), move || directory::list(&path))
    }

    fn space(&self, path: &Path) -> impl Future<Output = io::Result<Space>> + 'static {
        let path = path.to_owned();
        Self::blocking(Rc::clone(&self.node), move || directory::space(&path))
    }

    fn lock(&self, path: &Path) -> impl Future<Output = io::Result<Option<FileLock>>> + 'static {
        let path = path.to_owned();
        Self::blocking(Rc::clone(&self.node), move || directory::lock(&path))
    }
}

impl<M: Send + 'static> NodeEnv for RealEnv<M> {
    type Message = M;
    type Listener = RealListener;
    type Socket = RealSocket;
    type Handoff = SocketHandoff;

    fn core(&self) -> usize {
        self.node.index
    }

    fn cores(&self) -> usize {
        self.node.mailboxes.len()
    }

    fn send(&self, core: usize, message: M) -> Result<(), M> {
        let Some(mailbox) = self.node.mailboxes.get(core) else { return Err(message) };
        mailbox.messages.push(message)?;
        if core == self.node.index {
            self.node.message_receiver.wake();
        } else {
            mailbox.doorbell.ring();
        }
        Ok(())
    }

    fn poll_message(&self, context: &mut Context<'_>) -> Poll<M> {
        match self.node.mailbox().messages.pop() {
            Some(message) => Poll::Ready(message),
            None => {
                // What is pushed from now on is seen by the driver's next turn, or wakes it.
                self.node.message_receiver.register(context);
                Poll::Pending
            }
        }
    }

    fn listener(&self) -> RealListener {
        RealListener::new(&self.node.core, self.node.listening.clone())
    }

    fn adopt(&self, handoff: SocketHandoff) -> RealSocket {
        RealSocket::adopt(&self.node.core, handoff)
    }

    /// System calls into the ring, entries and completions, how often the core went to sleep,
    /// received chunks that had to be copied because too many receive buffers were taken (a sign that
    /// there are too few of them), and rounds that took long.
    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.node.core.counters()
    }
}

impl<M: Send + 'static> std::fmt::Debug for RealEnv<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RealEnv").field("core", &self.node.index).finish_non_exhaustive()
    }
}
