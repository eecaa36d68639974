//! The environment of one core in a world.

use std::cell::OnceCell;
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::Location;
use std::path::Path;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use pinion_env::{DirEntry, Env, FileLock, Monotonic, NodeEnv, OpenMode, Space, TaskClass, Urgency};

use super::NodeId;
use super::disk::{Disk, Operation};
use super::file::{DISK_NANOS_MAX, SimFile};
use super::frames::{self, NodeFrame};
use super::listen::SimListener;
use super::node::Process;
use super::scheduler::Origin;
use super::shared::{Shared, Sleep, yield_once};
use super::socket::{SimHandoff, SimSocket};
use super::trace::Step;

/// Longest time until an off-core job has run.
const OFF_CORE_NANOS_MAX: u64 = 500_000;

/// A core that pauses does so at one in so many messages.
const PAUSE_ONE_IN: u64 = 3;

/// The wall clock when a world begins: some moment in 2030.
pub(super) const WALL_START_MS: u64 = 1_900_000_000_000;

/// One core of one process, as its code sees the world. `M` is what its cores tell each other.
pub struct SimEnv<M = ()> {
    shared: Rc<Shared>,
    process: Rc<Process<M>>,
    core: usize,
}

impl<M> SimEnv<M> {
    pub(super) fn new(shared: Rc<Shared>, process: Rc<Process<M>>, core: usize) -> Self {
        Self { shared, process, core }
    }

    /// An operation on the disk that changes no file's content. It is done at a kill or it is not.
    fn on_disk<T, E>(
        &self,
        operation: Operation,
        effect: E,
    ) -> impl Future<Output = io::Result<T>> + use<T, E, M> + 'static
    where
        T: 'static,
        E: FnOnce(&Disk) -> io::Result<T> + 'static,
    {
        let (process, disk) = (self.process.id, &self.process.disk);
        let step = match operation {
            Operation::List | Operation::Inspect => Step::Inspect,
            _ => Step::Directory,
        };
        self.shared.disk_operation(process, disk, operation, DISK_NANOS_MAX, move |shared, disk| {
            let result = effect(disk);
            shared.note(step, u64::from(result.is_ok()), 0);
            result
        })
    }
}

impl<M> SimEnv<M> {
    /// Sends a frame to a core of another node, without knowing whether it arrives.
    pub fn send_frame(&self, to: NodeId, core: usize, bytes: Vec<u8>) {
        if self.shared.is_alive(Some(self.process.id)) {
            frames::send(&self.shared, self.process.id.node, to.0, core, bytes);
        }
    }

    /// From now on what this core sends another stays under way, as it may for any time, until
    /// [`SimEnv::release_messages`].
    pub fn hold_messages(&self, to: usize) {
        self.shared.note(Step::Hold, self.core as u64, to as u64);
        self.process.hold(self.core, to, true);
    }

    /// Lets what [`SimEnv::hold_messages`] holds back arrive, in its order.
    pub fn release_messages(&self, to: usize) {
        self.shared.note(Step::Release, self.core as u64, to as u64);
        self.process.hold(self.core, to, false);
    }

    /// How many messages from this core to another have not been taken.
    pub fn untaken_messages(&self, to: usize) -> usize {
        self.process.untaken(self.core, to)
    }

    /// The next frame that was sent to this core. One task per core receives.
    pub fn poll_frame(&self, context: &mut Context<'_>) -> Poll<NodeFrame> {
        self.process.inbox.poll(self.core, context)
    }
}

impl<M> Clone for SimEnv<M> {
    fn clone(&self) -> Self {
        Self { shared: Rc::clone(&self.shared), process: Rc::clone(&self.process), core: self.core }
    }
}

impl<M> fmt::Debug for SimEnv<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.process.id.node;
        f.debug_struct("SimEnv").field("node", &node).field("core", &self.core).finish()
    }
}

impl<M: Send + 'static> Env for SimEnv<M> {
    type File = SimFile;

    fn now(&self) -> Monotonic {
        self.shared.now()
    }

    fn cpu_time(&self) -> Duration {
        Duration::from_nanos(self.shared.clock.get())
    }

    fn wall_ms(&self) -> u64 {
        let since_start = self.shared.clock.get() / 1_000_000;
        (WALL_START_MS + since_start).saturating_add_signed(self.process.wall_shift_ms.get())
    }

    fn random(&self) -> u64 {
        self.process.random(self.core)
    }

    #[track_caller]
    fn spawn<F>(&self, class: TaskClass, task: F)
    where
        F: Future<Output = ()> + 'static,
    {
        let place = Location::caller();
        self.shared.spawn(Origin { process: Some(self.process.id), core: self.core, class, place }, task);
    }

    fn urgency(&self) -> Urgency {
        Urgency::default()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        Sleep::new(Rc::clone(&self.shared), duration)
    }

    fn yield_now(&self) -> impl Future<Output = ()> + 'static {
        yield_once()
    }

    fn off_core<T, J>(&self, job: J) -> impl Future<Output = T> + 'static
    where
        T: Send + 'static,
        J: FnOnce() -> T + Send + 'static,
    {
        self.shared.operation(self.process.id, OFF_CORE_NANOS_MAX, move |shared| {
            shared.note(Step::OffCore, 0, 0);
            job()
        })
    }

    fn open(&self, path: &Path, mode: OpenMode) -> impl Future<Output = io::Result<SimFile>> + 'static {
        let path = path.to_owned();
        let (shared, process) = (Rc::clone(&self.shared), self.process.id);
        let disk = Rc::clone(&self.process.disk);
        let operation = match mode {
            OpenMode::Read | OpenMode::ReadWrite => Operation::Open,
            OpenMode::CreateNew => Operation::Create,
        };
        self.on_disk(operation, move |_| {
            let inode = disk.open(&path, mode)?;
            Ok(SimFile::new(shared, process, disk, inode, mode != OpenMode::Read))
        })
    }

    fn create_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let path = path.to_owned();
        self.on_disk(Operation::CreateDirectory, move |disk| disk.create_dir(&path))
    }

    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.on_disk(Operation::Rename, move |disk| disk.rename(&from, &to))
    }

    fn remove(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let path = path.to_owned();
        self.on_disk(Operation::Remove, move |disk| disk.remove(&path))
    }

    fn sync_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let path = path.to_owned();
        let mark = Rc::new(OnceCell::new());
        let (disk, begun) = (Rc::clone(&self.process.disk), Rc::clone(&mark));
        let operation = self.on_disk(Operation::SyncDirectory, move |disk| {
            disk.sync_dir(&path, *mark.get().expect("an operation begins before it ends"))
        });
        async move {
            // Only what is done by now, when it is first polled, is covered.
            begun.get_or_init(|| disk.begin_sync_dir());
            operation.await
        }
    }

    fn list(&self, path: &Path) -> impl Future<Output = io::Result<Vec<DirEntry>>> + 'static {
        let path = path.to_owned();
        self.on_disk(Operation::List, move |disk| disk.list(&path))
    }

    fn space(&self, path: &Path) -> impl Future<Output = io::Result<Space>> + 'static {
        let path = path.to_owned();
        self.on_disk(Operation::Inspect, move |disk| disk.space(&path))
    }

    fn lock(&self, path: &Path) -> impl Future<Output = io::Result<Option<FileLock>>> + 'static {
        let path = path.to_owned();
        self.on_disk(Operation::Lock, move |disk| disk.lock(&path))
    }
}

impl<M: Send + 'static> NodeEnv for SimEnv<M> {
    type Message = M;
    type Listener = SimListener;
    type Socket = SimSocket;
    type Handoff = SimHandoff;

    fn core(&self) -> usize {
        self.core
    }

    fn cores(&self) -> usize {
        self.process.cores()
    }

    fn send(&self, core: usize, message: M) -> Result<(), M> {
        if !self.shared.is_alive(Some(self.process.id)) {
            return Err(message);
        }
        self.process.send(self.core, core, message)
    }

    fn poll_message(&self, context: &mut Context<'_>) -> Poll<M> {
        if self.process.is_paused(self.core, context) {
            return Poll::Pending;
        }
        if let Some(nanos) = self.process.may_pause(self.core)
            && self.shared.one_in(PAUSE_ONE_IN)
        {
            let (process, core) = (Rc::clone(&self.process), self.core);
            let ends = Box::new(move || process.end_pause(core));
            if self.shared.after(self.shared.below(nanos), ends).is_some() {
                self.process.pause(self.core, context);
                return Poll::Pending;
            }
        }
        let draw = |senders| self.shared.below(senders);
        self.process.poll_message(self.core, draw, context).map(|(from, message)| {
            self.shared.note(Step::Message, from as u64, self.core as u64);
            message
        })
    }

    fn listener(&self) -> SimListener {
        SimListener::new(Rc::clone(&self.shared), Rc::clone(&self.process.accepting), self.core)
    }

    fn adopt(&self, handoff: SimHandoff) -> SimSocket {
        handoff.adopt(&self.shared, self.process.id)
    }
}
