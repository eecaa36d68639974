//! The environment: everything that code on a core may ask of the outside world.
//!
//! The engine and the server are generic over these traits and reach files, sockets, clocks, other
//! cores and random numbers through nothing else. Two worlds implement them: the real one
//! (`pinion-runtime`: glommio executors, one io_uring per core) and a simulated one (in the tests).
//! The same node code runs in both, unmodified.
//!
//! Shape, and why:
//! * completion style: a buffer is given away for the length of an operation and comes back with
//!   its result, because the kernel owns it meanwhile. Dropping the future of an operation neither
//!   cancels it nor frees its buffer early;
//! * static: everything is a generic parameter, so that the hot path has no boxed futures and no
//!   dynamic calls;
//! * single-threaded: one value of `Env` belongs to one core. Only messages, hand-offs and off-core
//!   jobs cross threads.
//!
//! [`Env`] is what the engine needs (time, tasks, files). [`NodeEnv`] adds what a node needs
//! (sockets, messages between cores).

mod buffer;
mod pages;
mod prefetch;
mod time;
mod urgency;

pub use buffer::{AlignedBuf, LARGE_PAGE_BYTES, PAGE_BYTES, page_round_up, touch};
pub use pages::PagePool;
pub use prefetch::{FRONT_BYTES, prefetch, prefetch_fronts, prefetch_start};
pub use time::Monotonic;
pub use urgency::{Urgencies, Urgency};

use std::future::Future;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// What kind of work a task does. Each class has its own share of the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskClass {
    /// Writing the log: a short task that the device waits for whenever it does not run, so it goes
    /// before everything else.
    Log,
    /// Requests and connections: what a user waits for.
    Foreground,
    /// Writing memtables out; falls behind only under overload.
    Flush,
    /// Compaction, sweeps, scrubbing: everything that can wait, for as long as its [`Urgency`] says.
    Background,
}

/// How a file is opened. All files are read and written in direct mode: offsets, lengths and
/// buffers are multiples of [`PAGE_BYTES`] for reads and of the device's block for writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    ReadWrite,
    /// A new file, for reading and writing; fails with `AlreadyExists` if it is there.
    CreateNew,
}

/// When a write counts as finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// When the kernel has it. A later [`File::sync`] makes it durable.
    Unsynced,
    /// When the device has it durably (`RWF_DSYNC`).
    Durable,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name inside the directory. Names that are not UTF-8 are not listed: Pinion makes none.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Size in bytes; 0 for directories.
    pub bytes: u64,
}

/// Space of the file system a path lives on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Size of the file system in bytes.
    pub total_bytes: u64,
    /// Bytes that this process may still use.
    pub available_bytes: u64,
    /// The larger of the device's logical and physical block: the unit of a durable write that
    /// neither tears nor reads before it writes. A power of two, from 512 to [`PAGE_BYTES`].
    pub block_bytes: u32,
}

/// One core's view of the outside world: time, randomness, tasks and files. Cheap to clone.
pub trait Env: Clone + 'static {
    /// An open file.
    type File: File;

    /// Time since an arbitrary start; never runs back.
    fn now(&self) -> Monotonic;

    /// CPU time this core's thread has used, for stall accounting. The simulated world answers
    /// with virtual time.
    fn cpu_time(&self) -> Duration;

    /// Wall clock in milliseconds since 1970, up to 10 ms late. May jump in either direction.
    fn wall_ms(&self) -> u64;

    /// A random number, from a seed in the simulated world.
    fn random(&self) -> u64;

    /// Starts a task on this core. Tasks are never cancelled: a task that should end is told so.
    fn spawn<F>(&self, class: TaskClass, task: F)
    where
        F: Future<Output = ()> + 'static;

    /// By which one owner of background tasks on this core says how urgent they are. The share of
    /// [`TaskClass::Background`] goes by the most urgent of them.
    fn urgency(&self) -> Urgency;

    /// Waits for at least `duration`.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static;

    /// Lets other tasks and I/O of this core go first.
    fn yield_now(&self) -> impl Future<Output = ()> + 'static;

    /// Runs a job that would hold the core too long (dropping large structures, unlinking) on
    /// another thread.
    fn off_core<T, J>(&self, job: J) -> impl Future<Output = T> + 'static
    where
        T: Send + 'static,
        J: FnOnce() -> T + Send + 'static;

    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> impl Future<Output = io::Result<Self::File>> + 'static;

    /// Creates one directory; `AlreadyExists` if it is there.
    fn create_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static;

    /// Renames a file within one file system, replacing `to`. Durable after [`Env::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>> + 'static;

    /// Removes a file. Durable after [`Env::sync_dir`].
    fn remove(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static;

    /// Makes creations, renames and removals in a directory durable.
    fn sync_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static;

    /// The entries of a directory, sorted by name.
    fn list(&self, path: &Path) -> impl Future<Output = io::Result<Vec<DirEntry>>> + 'static;

    /// Space left where `path` lives.
    fn space(&self, path: &Path) -> impl Future<Output = io::Result<Space>> + 'static;

    /// Takes an exclusive lock on a file, creating it; `None` if another process holds it. The
    /// lock lives as long as the returned guard and ends with the process.
    fn lock(&self, path: &Path) -> impl Future<Output = io::Result<Option<FileLock>>> + 'static;
}

/// An exclusive lock on a file, held until it is dropped.
pub struct FileLock(Box<dyn std::any::Any + Send + Sync>);

impl FileLock {
    /// Wraps whatever holds the lock in this world. Any core may drop it.
    pub fn new(holder: impl std::any::Any + Send + Sync) -> Self {
        Self(Box::new(holder))
    }
}

impl std::fmt::Debug for FileLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("FileLock").field(&self.0.type_id()).finish()
    }
}

/// An open file. Operations take `&self` and may overlap; they start when first polled.
pub trait File: 'static {
    /// Reads `bytes` at `offset` into the front of `buffer`. Returns how many bytes were read:
    /// fewer only at the end of the file. `offset` and `bytes` are multiples of [`PAGE_BYTES`],
    /// and `bytes` is at most the buffer's capacity.
    fn read(
        &self,
        offset: u64,
        buffer: AlignedBuf,
        bytes: usize,
    ) -> impl Future<Output = (io::Result<usize>, AlignedBuf)> + 'static;

    /// Writes `buffer[range]` at `offset`, whole: a short write is finished or becomes an error.
    /// The start of the range is a multiple of [`PAGE_BYTES`]; its length and `offset` are
    /// multiples of the device's block.
    fn write(
        &self,
        offset: u64,
        buffer: AlignedBuf,
        range: std::ops::Range<usize>,
        mode: WriteMode,
    ) -> impl Future<Output = (io::Result<()>, AlignedBuf)> + 'static;

    /// Makes the file's content and size durable.
    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static;

    /// The file's size in bytes.
    fn bytes(&self) -> impl Future<Output = io::Result<u64>> + 'static;
}

/// What a node needs beyond [`Env`]: sockets and messages between cores.
pub trait NodeEnv: Env {
    /// What cores tell each other.
    type Message: Send + 'static;
    /// The node's listening socket, as one core sees it.
    type Listener: Listener<Socket = Self::Socket>;
    /// A byte stream to a client or a peer.
    type Socket: Socket<Handoff = Self::Handoff>;
    /// A socket on its way to another core.
    type Handoff: Send + 'static;

    /// Number of this core within the node, from 0.
    fn core(&self) -> usize;

    /// How many cores the node runs on.
    fn cores(&self) -> usize;

    /// Sends a message to a core (itself included). Messages from one core arrive in order. The
    /// queue is bounded: the message comes back when it is full.
    fn send(&self, core: usize, message: Self::Message) -> Result<(), Self::Message>;

    /// The next message sent to this core. One task per core receives.
    fn poll_message(&self, context: &mut Context<'_>) -> Poll<Self::Message>;

    /// This core's view of the one listening socket, bound before the cores started.
    fn listener(&self) -> Self::Listener;

    /// Takes over a socket that another core handed off.
    fn adopt(&self, handoff: Self::Handoff) -> Self::Socket;

    /// What this world has counted for this core since it began, by name: for people and diagnosis, in
    /// the same order on every core. A world may count nothing.
    fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// Accepts connections. Every core of a node accepts from the same listening socket.
pub trait Listener: 'static {
    /// The streams it gives.
    type Socket;

    /// The next connection. An error concerns one attempt (descriptors ran out, for example);
    /// accepting goes on at the next call.
    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Self::Socket>>;

    /// Stops accepting on this core. A pending [`Listener::poll_accept`] never completes.
    fn close(&self);
}

/// A byte stream. One task uses it: receiving and sending go on side by side.
///
/// Dropping a socket closes it once its operations have ended.
pub trait Socket: 'static {
    /// Received bytes in a buffer of the core's pool, returned to the pool on drop. The pool is
    /// bounded: consume a chunk before the next await, copy what must stay.
    type Chunk: Deref<Target = [u8]> + 'static;
    /// The socket on its way to another core.
    type Handoff: Send + 'static;

    /// The next bytes; `None` when the peer has closed its side.
    ///
    /// A new socket asks for one chunk per call, so that nothing is in flight when a call was ready
    /// and [`Socket::hand_off`] is possible then. [`Socket::start_streaming`] lifts that.
    fn poll_receive(&self, context: &mut Context<'_>) -> Poll<io::Result<Option<Self::Chunk>>>;

    /// From now on chunks keep arriving without being asked for one by one.
    fn start_streaming(&self);

    /// Stops asking the peer for more; chunks already received can still be taken (a
    /// `poll_receive` after them arms the stream again). How a slow consumer pushes back.
    fn pause_receive(&self);

    /// Chunks received and not yet taken, without waiting.
    fn receive_ready(&self) -> Option<Self::Chunk>;

    /// Starts sending the buffers, in order and whole. At most one send is in flight: call again
    /// only after its end, which [`Socket::poll_sent`] or [`SocketHandler::sent`] tells.
    ///
    /// # Panics
    /// When a send is in flight.
    fn start_send(&self, buffers: Vec<Vec<u8>>);

    /// Waits for the send in flight and gives its buffers back for reuse. Pending when none is.
    fn poll_sent(&self, context: &mut Context<'_>) -> Poll<(io::Result<()>, Vec<Vec<u8>>)>;

    /// From now on `handler` is told of ends of sends, and [`Socket::poll_sent`] stays pending: a task
    /// that would only take the buffers back need not run. While the socket streams, the handler may also
    /// answer what arrives.
    ///
    /// # Panics
    /// When a send is in flight.
    fn handle_with(&self, handler: Rc<dyn SocketHandler>);

    /// Detaches the socket to be adopted by another core. Only while nothing is in flight: before
    /// anything was asked, or after a [`Socket::poll_receive`] was ready and before anything else was
    /// asked, neither streaming nor a send included.
    ///
    /// # Panics
    /// When an operation is in flight.
    fn hand_off(self) -> Self::Handoff;

    /// The peer's address, for logs and `server info`.
    fn peer(&self) -> String;
}

/// What is done about a socket at once, outside of every task: see [`Socket::handle_with`]. Never called
/// once the socket is dropped.
pub trait SocketHandler: 'static {
    /// A send has ended; its buffers come back for reuse. A send of nothing may end before
    /// [`Socket::start_send`] returns.
    fn sent(&self, outcome: io::Result<()>, buffers: Vec<Vec<u8>>);

    /// A chunk has arrived, none waits before it, and no send is in flight. True: when all that has arrived at
    /// this time has been told of, and before any task runs, [`SocketHandler::answer`] is called with it, once.
    /// To ask for memory that the answer will read, and to do nothing else.
    fn arrived(&self, chunk: &[u8]) -> bool;

    /// Says what becomes of a chunk. Short: what else is to run waits.
    fn answer(&self, chunk: &[u8]) -> Answer;
}

/// What becomes of a chunk that was offered to a [`SocketHandler`].
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is dealt with, and this is sent.
    Send(Vec<Vec<u8>>),
    /// It is dealt with; what there is to send comes later.
    Later,
    /// Nothing was done about it: it waits for [`Socket::poll_receive`] like any other.
    Left,
}

/// Makes every missing directory of a path.
///
/// # Errors
/// The first directory that can be neither made nor found.
pub async fn create_dir_all<E: Env>(env: &E, path: &Path) -> io::Result<()> {
    let mut prefix = PathBuf::new();
    for part in path.components() {
        prefix.push(part);
        match env.create_dir(&prefix).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // The root and directories that may be crossed but not written.
            Err(_) if env.list(&prefix).await.is_ok() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
