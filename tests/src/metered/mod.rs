//! A world that is told when the code on a core runs and when it calls the world.
//!
//! [`MeteredEnv`] passes every call on to the environment it wraps. What a core's code does runs
//! *inside* the [`Meter`]: every poll of a task that was spawned, and what a test puts there by
//! [`Meter::inside`] and [`metered`]. Every call of the world, and every wake-up, runs *outside*. So a
//! meter counts what the product does, whatever the world around it costs.
//!
//! [`engine`] and [`server`] are a shard and a node in such a world, warm and ready to be asked.

pub mod engine;
pub mod server;

use std::future::{Future, poll_fn};
use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use pinion_env::{
    AlignedBuf, Answer, DirEntry, Env, File, FileLock, Listener, Monotonic, NodeEnv, OpenMode, Socket,
    SocketHandler, Space, TaskClass, Urgency, WriteMode,
};

/// What counts. Clones count together.
pub trait Meter: Clone + 'static {
    /// Runs what counts.
    fn inside<T>(&self, run: impl FnOnce() -> T) -> T;

    /// Runs what does not count, inside of [`Meter::inside`] or anywhere else.
    fn outside<T>(run: impl FnOnce() -> T) -> T;

    /// A task was spawned: the world keeps it somewhere, at the expense of whoever spawned it.
    fn spawned(&self) {}
}

/// Runs a future whose polls count.
pub async fn metered<M: Meter, F: Future>(meter: &M, future: F) -> F::Output {
    let mut future = pin!(future);
    let mut waker: Option<(Waker, Waker)> = None;
    poll_fn(|context| {
        let known = waker.as_ref().is_some_and(|(inner, _)| inner.will_wake(context.waker()));
        if !known {
            let inner = context.waker().clone();
            let outer = Waker::from(Arc::new(OutsideWaker::<M>(inner.clone(), PhantomData)));
            waker = Some((inner, outer));
        }
        let (_, waker) = waker.as_ref().expect("just set");
        let mut context = Context::from_waker(waker);
        meter.inside(|| future.as_mut().poll(&mut context))
    })
    .await
}

/// Wakes outside: how a world notes that is its own affair.
struct OutsideWaker<M>(Waker, PhantomData<fn() -> M>);

impl<M: Meter> Wake for OutsideWaker<M> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        M::outside(|| self.0.wake_by_ref());
    }
}

/// Waits for something of the world.
async fn later<M: Meter, F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|context| M::outside(|| future.as_mut().poll(context))).await
}

/// A world with a meter; see the module.
#[derive(Debug, Clone)]
pub struct MeteredEnv<E, M> {
    env: E,
    meter: M,
}

impl<E: Env, M: Meter> MeteredEnv<E, M> {
    /// Wraps a world.
    pub fn new(env: E, meter: &M) -> Self {
        Self { env, meter: meter.clone() }
    }
}

impl<E: Env, M: Meter> Env for MeteredEnv<E, M> {
    type File = MeteredFile<E::File, M>;

    fn now(&self) -> Monotonic {
        M::outside(|| self.env.now())
    }

    fn cpu_time(&self) -> Duration {
        M::outside(|| self.env.cpu_time())
    }

    fn wall_ms(&self) -> u64 {
        M::outside(|| self.env.wall_ms())
    }

    fn random(&self) -> u64 {
        M::outside(|| self.env.random())
    }

    #[track_caller]
    fn spawn<F>(&self, class: TaskClass, task: F)
    where
        F: Future<Output = ()> + 'static,
    {
        self.meter.spawned();
        let meter = self.meter.clone();
        M::outside(|| self.env.spawn(class, async move { metered(&meter, task).await }));
    }

    fn urgency(&self) -> Urgency {
        M::outside(|| self.env.urgency())
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        later::<M, _>(M::outside(|| self.env.sleep(duration)))
    }

    fn yield_now(&self) -> impl Future<Output = ()> + 'static {
        later::<M, _>(M::outside(|| self.env.yield_now()))
    }

    fn off_core<T, J>(&self, job: J) -> impl Future<Output = T> + 'static
    where
        T: Send + 'static,
        J: FnOnce() -> T + Send + 'static,
    {
        later::<M, _>(M::outside(|| self.env.off_core(job)))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> impl Future<Output = io::Result<Self::File>> + 'static {
        let opened = later::<M, _>(M::outside(|| self.env.open(path, mode)));
        async move { opened.await.map(|inner| MeteredFile(inner, PhantomData)) }
    }

    fn create_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        later::<M, _>(M::outside(|| self.env.create_dir(path)))
    }

    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        later::<M, _>(M::outside(|| self.env.rename(from, to)))
    }

    fn remove(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        later::<M, _>(M::outside(|| self.env.remove(path)))
    }

    fn sync_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        later::<M, _>(M::outside(|| self.env.sync_dir(path)))
    }

    fn list(&self, path: &Path) -> impl Future<Output = io::Result<Vec<DirEntry>>> + 'static {
        later::<M, _>(M::outside(|| self.env.list(path)))
    }

    fn space(&self, path: &Path) -> impl Future<Output = io::Result<Space>> + 'static {
        later::<M, _>(M::outside(|| self.env.space(path)))
    }

    fn lock(&self, path: &Path) -> impl Future<Output = io::Result<Option<FileLock>>> + 'static {
        later::<M, _>(M::outside(|| self.env.lock(path)))
    }
}

impl<E: NodeEnv, M: Meter> NodeEnv for MeteredEnv<E, M> {
    type Message = E::Message;
    type Listener = MeteredListener<E::Listener, M>;
    type Socket = MeteredSocket<E::Socket, M>;
    type Handoff = E::Handoff;

    fn core(&self) -> usize {
        self.env.core()
    }

    fn cores(&self) -> usize {
        self.env.cores()
    }

    fn send(&self, core: usize, message: Self::Message) -> Result<(), Self::Message> {
        M::outside(|| self.env.send(core, message))
    }

    fn poll_message(&self, context: &mut Context<'_>) -> Poll<Self::Message> {
        M::outside(|| self.env.poll_message(context))
    }

    fn listener(&self) -> Self::Listener {
        MeteredListener(M::outside(|| self.env.listener()), self.meter.clone())
    }

    fn adopt(&self, handoff: Self::Handoff) -> Self::Socket {
        MeteredSocket(M::outside(|| self.env.adopt(handoff)), self.meter.clone())
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        M::outside(|| self.env.counters())
    }
}

/// An open file.
#[derive(Debug)]
pub struct MeteredFile<F, M>(F, PhantomData<fn() -> M>);

impl<F: File, M: Meter> File for MeteredFile<F, M> {
    fn read(
        &self,
        offset: u64,
        buffer: AlignedBuf,
        bytes: usize,
    ) -> impl Future<Output = (io::Result<usize>, AlignedBuf)> + 'static {
        later::<M, _>(M::outside(|| self.0.read(offset, buffer, bytes)))
    }

    fn write(
        &self,
        offset: u64,
        buffer: AlignedBuf,
        range: Range<usize>,
        mode: WriteMode,
    ) -> impl Future<Output = (io::Result<()>, AlignedBuf)> + 'static {
        later::<M, _>(M::outside(|| self.0.write(offset, buffer, range, mode)))
    }

    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static {
        later::<M, _>(M::outside(|| self.0.sync()))
    }

    fn bytes(&self) -> impl Future<Output = io::Result<u64>> + 'static {
        later::<M, _>(M::outside(|| self.0.bytes()))
    }
}

/// A listening socket.
#[derive(Debug)]
pub struct MeteredListener<L, M>(L, M);

impl<L: Listener, M: Meter> Listener for MeteredListener<L, M> {
    type Socket = MeteredSocket<L::Socket, M>;

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Self::Socket>> {
        M::outside(|| self.0.poll_accept(context))
            .map(|accepted| accepted.map(|inner| MeteredSocket(inner, self.1.clone())))
    }

    fn close(&self) {
        M::outside(|| self.0.close());
    }
}

/// A byte stream.
#[derive(Debug)]
pub struct MeteredSocket<S, M>(S, M);

impl<S: Socket, M: Meter> Socket for MeteredSocket<S, M> {
    type Chunk = S::Chunk;
    type Handoff = S::Handoff;

    fn poll_receive(&self, context: &mut Context<'_>) -> Poll<io::Result<Option<Self::Chunk>>> {
        M::outside(|| self.0.poll_receive(context))
    }

    fn start_streaming(&self) {
        M::outside(|| self.0.start_streaming());
    }

    fn pause_receive(&self) {
        M::outside(|| self.0.pause_receive());
    }

    fn receive_ready(&self) -> Option<Self::Chunk> {
        M::outside(|| self.0.receive_ready())
    }

    fn start_send(&self, buffers: Vec<Vec<u8>>) {
        M::outside(|| self.0.start_send(buffers));
    }

    fn poll_sent(&self, context: &mut Context<'_>) -> Poll<(io::Result<()>, Vec<Vec<u8>>)> {
        M::outside(|| self.0.poll_sent(context))
    }

    fn handle_with(&self, handler: Rc<dyn SocketHandler>) {
        let handler = MeteredHandler(handler, self.1.clone());
        M::outside(|| self.0.handle_with(Rc::new(handler)));
    }

    fn hand_off(self) -> Self::Handoff {
        M::outside(|| self.0.hand_off())
    }

    fn peer(&self) -> String {
        self.0.peer()
    }
}

/// What is done about a socket at once.
struct MeteredHandler<M>(Rc<dyn SocketHandler>, M);

impl<M: Meter> SocketHandler for MeteredHandler<M> {
    fn sent(&self, outcome: io::Result<()>, buffers: Vec<Vec<u8>>) {
        self.1.inside(|| self.0.sent(outcome, buffers));
    }

    fn arrived(&self, chunk: &[u8]) -> bool {
        self.1.inside(|| self.0.arrived(chunk))
    }

    fn answer(&self, chunk: &[u8]) -> Answer {
        self.1.inside(|| self.0.answer(chunk))
    }
}
