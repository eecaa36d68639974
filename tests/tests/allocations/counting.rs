//! An environment that counts what the code on a core allocates, and not what the world does.
//!
//! [`CountingEnv`] passes every call on to the environment it wraps, with counting off, and polls every
//! spawned task with counting on. A task that is spawned counts as one allocation of whoever spawns it.
//! Giving memory back is not counted.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use pinion_env::{
    AlignedBuf, DirEntry, Env, File, FileLock, Listener, Monotonic, NodeEnv, OpenMode, Socket, Space,
    TaskClass, WriteMode,
};

/// Allocations so far. Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Count(Rc<Cell<u64>>);

impl Count {
    pub(crate) fn get(&self) -> u64 {
        self.0.get()
    }

    fn add(&self, allocations: u64) {
        self.0.set(self.0.get() + allocations);
    }

    /// Runs a task whose allocations count.
    pub(crate) async fn counted(&self, task: impl Future<Output = ()>) {
        let mut task = pin!(task);
        let mut waker: Option<(Waker, Waker)> = None;
        poll_fn(|context| {
            let mut result = Poll::Pending;
            let known = waker.as_ref().is_some_and(|(inner, _)| inner.will_wake(context.waker()));
            if !known {
                let inner = context.waker().clone();
                waker = Some((inner.clone(), Waker::from(Arc::new(Uncounted(inner)))));
            }
            let (_, waker) = waker.as_ref().expect("just set");
            let mut context = Context::from_waker(waker);
            let info = allocation_counter::measure(|| result = task.as_mut().poll(&mut context));
            self.add(info.count_total);
            result
        })
        .await;
    }
}

/// Wakes with counting off: how a world notes that is its own affair.
struct Uncounted(Waker);

impl Wake for Uncounted {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        outside(|| self.0.wake_by_ref());
    }
}

/// Calls the world.
fn outside<T>(call: impl FnOnce() -> T) -> T {
    let mut result = None;
    allocation_counter::opt_out(|| result = Some(call()));
    result.expect("the call was made")
}

/// Waits for something of the world.
async fn later<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|context| outside(|| future.as_mut().poll(context))).await
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct CountingEnv<E> {
    env: E,
    count: Count,
}

impl<E: Env> CountingEnv<E> {
    pub(crate) fn new(env: E, count: &Count) -> Self {
        Self { env, count: count.clone() }
    }
}

impl<E: Env> Env for CountingEnv<E> {
    type File = CountingFile<E::File>;

    fn now(&self) -> Monotonic {
        outside(|| self.env.now())
    }

    fn cpu_time(&self) -> Duration {
        outside(|| self.env.cpu_time())
    }

    fn wall_ms(&self) -> u64 {
        outside(|| self.env.wall_ms())
    }

    fn random(&self) -> u64 {
        outside(|| self.env.random())
    }

    #[track_caller]
    fn spawn<F>(&self, class: TaskClass, task: F)
    where
        F: Future<Output = ()> + 'static,
    {
        self.count.add(1);
        let count = self.count.clone();
        outside(|| self.env.spawn(class, async move { count.counted(task).await }));
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        later(outside(|| self.env.sleep(duration)))
    }

    fn yield_now(&self) -> impl Future<Output = ()> + 'static {
        later(outside(|| self.env.yield_now()))
    }

    fn off_core<T, J>(&self, job: J) -> impl Future<Output = T> + 'static
    where
        T: Send + 'static,
        J: FnOnce() -> T + Send + 'static,
    {
        later(outside(|| self.env.off_core(job)))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> impl Future<Output = io::Result<Self::File>> + 'static {
        let opened = later(outside(|| self.env.open(path, mode)));
        async move { opened.await.map(CountingFile) }
    }

    fn create_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        later(outside(|| self.env.create_dir(path)))
    }

    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        later(outside(|| self.env.rename(from, to)))
    }

    fn remove(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        later(outside(|| self.env.remove(path)))
    }

    fn sync_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        later(outside(|| self.env.sync_dir(path)))
    }

    fn list(&self, path: &Path) -> impl Future<Output = io::Result<Vec<DirEntry>>> + 'static {
        later(outside(|| self.env.list(path)))
    }

    fn space(&self, path: &Path) -> impl Future<Output = io::Result<Space>> + 'static {
        later(outside(|| self.env.space(path)))
    }

    fn lock(&self, path: &Path) -> impl Future<Output = io::Result<Option<FileLock>>> + 'static {
        later(outside(|| self.env.lock(path)))
    }
}

impl<E: NodeEnv> NodeEnv for CountingEnv<E> {
    type Message = E::Message;
    type Listener = CountingListener<E::Listener>;
    type Socket = CountingSocket<E::Socket>;
    type Handoff = E::Handoff;

    fn core(&self) -> usize {
        self.env.core()
    }

    fn cores(&self) -> usize {
        self.env.cores()
    }

    fn send(&self, core: usize, message: Self::Message) -> Result<(), Self::Message> {
        outside(|| self.env.send(core, message))
    }

    fn poll_message(&self, context: &mut Context<'_>) -> Poll<Self::Message> {
        outside(|| self.env.poll_message(context))
    }

    fn listener(&self) -> Self::Listener {
        CountingListener(outside(|| self.env.listener()))
    }

    fn adopt(&self, handoff: Self::Handoff) -> Self::Socket {
        CountingSocket(outside(|| self.env.adopt(handoff)))
    }
}

pub(crate) struct CountingFile<F>(F);

impl<F: File> File for CountingFile<F> {
    fn read(
        &self,
        offset: u64,
        buffer: AlignedBuf,
        bytes: usize,
    ) -> impl Future<Output = (io::Result<usize>, AlignedBuf)> + 'static {
        later(outside(|| self.0.read(offset, buffer, bytes)))
    }

    fn write(
        &self,
        offset: u64,
        buffer: AlignedBuf,
        range: Range<usize>,
        mode: WriteMode,
    ) -> impl Future<Output = (io::Result<()>, AlignedBuf)> + 'static {
        later(outside(|| self.0.write(offset, buffer, range, mode)))
    }

    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static {
        later(outside(|| self.0.sync()))
    }

    fn bytes(&self) -> impl Future<Output = io::Result<u64>> + 'static {
        later(outside(|| self.0.bytes()))
    }
}

pub(crate) struct CountingListener<L>(L);

impl<L: Listener> Listener for CountingListener<L> {
    type Socket = CountingSocket<L::Socket>;

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Self::Socket>> {
        outside(|| self.0.poll_accept(context)).map(|accepted| accepted.map(CountingSocket))
    }

    fn close(&self) {
        outside(|| self.0.close());
    }
}

pub(crate) struct CountingSocket<S>(S);

impl<S: Socket> Socket for CountingSocket<S> {
    type Chunk = S::Chunk;
    type Handoff = S::Handoff;

    fn poll_receive(&self, context: &mut Context<'_>) -> Poll<io::Result<Option<Self::Chunk>>> {
        outside(|| self.0.poll_receive(context))
    }

    fn start_streaming(&self) {
        outside(|| self.0.start_streaming());
    }

    fn pause_receive(&self) {
        outside(|| self.0.pause_receive());
    }

    fn receive_ready(&self) -> Option<Self::Chunk> {
        outside(|| self.0.receive_ready())
    }

    fn start_send(&self, buffers: Vec<Vec<u8>>) {
        outside(|| self.0.start_send(buffers));
    }

    fn poll_sent(&self, context: &mut Context<'_>) -> Poll<(io::Result<()>, Vec<Vec<u8>>)> {
        outside(|| self.0.poll_sent(context))
    }

    fn hand_off(self) -> Self::Handoff {
        outside(|| self.0.hand_off())
    }

    fn peer(&self) -> String {
        self.0.peer()
    }
}
