//! Starting the cores, running their mains, ending.
//!
//! [`Runtime::new`] finds out everything that may stand in the way (kernel, limits, CPUs, the port)
//! before any thread exists. [`Runtime::run`] starts one thread per core; when all are up, each
//! runs `main`. A core ends when its main returns: its ring is closed, connections end, tasks that
//! still wait are never run again. `run` returns when all cores have ended.
//!
//! A panic on a core or in an off-core job aborts the process, in every build profile.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use glommio::{Latency, LocalExecutorBuilder, Placement, Shares, SharesManager};
use pinion_env::{Urgencies, Urgency};

use crate::config::{RuntimeConfig, RuntimeError};
use crate::core::Core;
use crate::driver;
use crate::env_impl::{Node, Queues, RealEnv};
use crate::mail::{Mailbox, Remote};
use crate::off_core::{JOBS_MAX, JobTable, OffCoreJobs, OffCoreThreads};
use crate::ring::Ring;
use crate::sys;
use crate::waker::WakerSlot;

/// What glommio asks for per executor, in bytes.
const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;

/// glommio's own I/O buffers per executor, in bytes; hardly used, since I/O is on our ring.
const IO_MEMORY_BYTES: usize = 1 << 20;

/// glommio's preemption timer, practically off. If it (or anything else on its latency ring) fires
/// between glommio's look at its I/O and its first task, glommio 0.9 takes that for "nothing is
/// runnable" and parks beside runnable tasks: with a timer of 500 us on a busy machine that hangs a
/// core within some ten thousand sleeps. Nothing here needs it: the driver yields its task queue
/// every turn, `yield_now` does too, and sockets, files, timers and messages are not glommio's.
const PREEMPT_TIMER: Duration = Duration::from_secs(24 * 3600);

/// How long a port may stay busy after its last owner was killed: the kernel tears rings, and the
/// sockets in them, down in the background.
const BIND_PATIENCE: Duration = Duration::from_secs(1);
const BIND_RETRY_DELAY: Duration = Duration::from_millis(20);

/// Shares of each task class but the background's.
const SHARES_MAX: usize = 1000;
/// Shares of the background when nothing in it is urgent.
const BACKGROUND_SHARES_MIN: usize = 100;

/// Shares of the background, by the most urgent of its work; glommio asks four times a second.
struct BackgroundShares(Rc<Urgencies>);

impl SharesManager for BackgroundShares {
    fn shares(&self) -> usize {
        let more = (SHARES_MAX - BACKGROUND_SHARES_MIN) * self.0.max() as usize / Urgency::MAX as usize;
        BACKGROUND_SHARES_MIN + more
    }
}

/// The cores of a node, ready to run.
pub struct Runtime<M: Send + 'static> {
    config: RuntimeConfig,
    mailboxes: Arc<[Mailbox<M>]>,
    listening: Option<Arc<OwnedFd>>,
    local_addr: Option<SocketAddr>,
}

impl<M: Send + 'static> Runtime<M> {
    /// Checks the machine, binds the listening socket once and makes the cores' mailboxes.
    ///
    /// # Errors
    /// Anything that stands in the way of running; see [`RuntimeError`].
    pub fn new(config: RuntimeConfig) -> Result<Self, RuntimeError> {
        config.check()?;
        let have = sys::raise_memlock(MEMLOCK_BYTES_MIN)?;
        if have < MEMLOCK_BYTES_MIN {
            return Err(RuntimeError::MemlockTooLow { have, need: MEMLOCK_BYTES_MIN });
        }
        probe_io_uring()?;
        let mailboxes = config
            .cpus
            .iter()
            .map(|_| Mailbox::new(config.message_queue_max, JOBS_MAX))
            .collect::<io::Result<Arc<[_]>>>()?;
        let listener = config.listen.map(|addr| bind(addr, config.listen_backlog)).transpose()?;
        let local_addr = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let listening = listener.map(|listener| Arc::new(OwnedFd::from(listener)));
        Ok(Self { config, mailboxes, listening, local_addr })
    }

    /// The address that was bound, with the port the kernel chose if none was given.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local_addr
    }

    /// A handle for sending messages to the cores from any thread.
    pub fn remote(&self) -> Remote<M> {
        Remote::new(Arc::clone(&self.mailboxes))
    }

    /// Runs `main` on every core and blocks until all have returned.
    ///
    /// # Errors
    /// A core that could not be set up; then no main has run.
    pub fn run<Main, Fut>(self, main: Main) -> Result<(), RuntimeError>
    where
        Main: Fn(RealEnv<M>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let off_core = OffCoreThreads::start(self.config.off_core_threads)?;
        let gate = Arc::new(Gate::new(self.config.cpus.len()));
        let mut threads = Vec::with_capacity(self.config.cpus.len());
        for (index, cpu) in self.config.cpus.iter().enumerate() {
            let seat = Seat {
                index,
                cpu: *cpu,
                config: self.config.clone(),
                mailboxes: Arc::clone(&self.mailboxes),
                listening: self.listening.clone(),
                jobs: off_core.jobs(),
                gate: Arc::clone(&gate),
            };
            let main = main.clone();
            let thread = thread::Builder::new()
                .name(format!("pinion-{index}"))
                .spawn(move || {
                    let _guard = AbortOnPanic;
                    if let Err(error) = seat.run(main) {
                        seat.gate.arrive(Err(error));
                    }
                })
                .inspect_err(|_| gate.give_up())?;
            threads.push(thread);
        }
        for thread in threads {
            // A panicked core has ended the process.
            drop(thread.join());
        }
        if let Some(listening) = &self.listening {
            // A task that never ran again may still hold it; the port is free all the same.
            sys::shut_down(listening.as_raw_fd());
        }
        gate.take_error().map_or(Ok(()), Err)
    }
}

/// Ends the process if it is dropped by a panic. Each thread and each task holds one: a panic that
/// unwound through the executor would be followed by others that say nothing.
pub(crate) struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::abort();
        }
    }
}

/// Where cores wait until all are up, or one is not.
struct Gate {
    state: Mutex<GateState>,
    moved: Condvar,
}

struct GateState {
    missing: usize,
    failed: bool,
    error: Option<RuntimeError>,
}

impl Gate {
    fn new(cores: usize) -> Self {
        Self {
            state: Mutex::new(GateState { missing: cores, failed: false, error: None }),
            moved: Condvar::new(),
        }
    }

    /// Says how this core's set-up went and waits for the others. True: go.
    fn arrive(&self, outcome: Result<(), RuntimeError>) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(()) => state.missing = state.missing.saturating_sub(1),
            Err(error) => {
                state.failed = true;
                state.error.get_or_insert(error);
            }
        }
        self.moved.notify_all();
        while state.missing > 0 && !state.failed {
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.failed
    }

    /// Sends the cores home that wait already.
    fn give_up(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).failed = true;
        self.moved.notify_all();
    }

    fn take_error(&self) -> Option<RuntimeError> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).error.take()
    }
}

/// What one core's thread starts with.
struct Seat<M> {
    index: usize,
    cpu: usize,
    config: RuntimeConfig,
    mailboxes: Arc<[Mailbox<M>]>,
    listening: Option<Arc<OwnedFd>>,
    jobs: OffCoreJobs,
    gate: Arc<Gate>,
}

impl<M: Send + 'static> Seat<M> {
    fn run<Main, Fut>(&self, main: Main) -> Result<(), RuntimeError>
    where
        Main: Fn(RealEnv<M>) -> Fut,
        Fut: Future<Output = ()> + 'static,
    {
        let failed = |reason: String| RuntimeError::Core { core: self.index, reason };
        let executor = LocalExecutorBuilder::new(Placement::Fixed(self.cpu))
            .name(&format!("pinion-{}", self.index))
            .preempt_timer(PREEMPT_TIMER)
            .io_memory(IO_MEMORY_BYTES)
            .make()
            .map_err(|error| failed(error.to_string()))?;
        executor.run(async {
            // The first park of a process registers a memory barrier, which takes milliseconds.
            glommio::timer::sleep(Duration::from_millis(1)).await;
            let node = self.node().map_err(|error| failed(error.to_string()))?;
            if !self.gate.arrive(Ok(())) {
                return Ok(());
            }
            let foreground = node.queues.foreground;
            let spawned = "the queue lives as long as the core";
            let ended = Rc::new(Cell::new(false));
            let watcher = driver::watch(Rc::clone(&node), Rc::clone(&ended));
            let watcher = glommio::spawn_local_into(watcher, foreground).expect(spawned);
            let driver =
                glommio::spawn_local_into(driver::drive(Rc::clone(&node)), foreground).expect(spawned);
            let main = main(RealEnv::new(Rc::clone(&node)));
            let main = async {
                let _guard = AbortOnPanic;
                main.await;
            };
            glommio::spawn_local_into(main, foreground).expect(spawned).await;

            node.core.stop();
            driver.await;
            node.core.close();
            ended.set(true);
            node.doorbell().signal();
            watcher.await;
            Ok(())
        })
    }

    fn node(&self) -> io::Result<Rc<Node<M>>> {
        let config = &self.config;
        let core = Core::new(
            config.ring_entries,
            config.receive_buffers,
            config.receive_buffer_bytes,
            self.mailboxes[self.index].doorbell.eventfd(),
        )?;
        let queue = |shares, name| glommio::executor().create_task_queue(shares, Latency::NotImportant, name);
        let urgencies = Rc::new(Urgencies::default());
        let background = Shares::Dynamic(Rc::new(BackgroundShares(Rc::clone(&urgencies))));
        Ok(Rc::new(Node {
            core,
            index: self.index,
            mailboxes: Arc::clone(&self.mailboxes),
            queues: Queues {
                log: queue(Shares::Static(SHARES_MAX), "log"),
                foreground: queue(Shares::Static(SHARES_MAX), "foreground"),
                flush: queue(Shares::Static(SHARES_MAX), "flush"),
                background: queue(background, "background"),
            },
            listening: self.listening.clone(),
            jobs: self.jobs.clone(),
            job_table: JobTable::new(),
            message_receiver: WakerSlot::default(),
            random: Cell::new(sys::entropy()),
            urgencies,
        }))
    }
}

/// Binds without SO_REUSEPORT, so that a second node on the port is refused, and with SO_REUSEADDR,
/// so that a restart does not wait for old connections.
fn bind(addr: SocketAddr, backlog: u32) -> Result<TcpListener, RuntimeError> {
    let start = Instant::now();
    let listener = loop {
        match TcpListener::bind(addr) {
            Ok(listener) => break listener,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if start.elapsed() > BIND_PATIENCE {
                    return Err(RuntimeError::PortInUse { addr });
                }
                thread::sleep(BIND_RETRY_DELAY);
            }
            Err(source) => return Err(RuntimeError::Listen { addr, source }),
        }
    };
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    sys::set_backlog(listener.as_fd(), backlog)
        .and_then(|()| sys::set_no_delay(listener.as_fd()))
        .map_err(|source| RuntimeError::Listen { addr, source })?;
    Ok(listener)
}

/// Makes and drops a ring like those of the cores.
fn probe_io_uring() -> Result<(), RuntimeError> {
    const ENTRIES: u32 = 8;
    let Err(source) = Ring::new(ENTRIES) else { return Ok(()) };
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => Err(RuntimeError::IoUringForbidden { source }),
        Some(libc::EINVAL) => {
            let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
            Err(RuntimeError::KernelTooOld { release: release.trim().to_owned() })
        }
        _ => Err(RuntimeError::System(source)),
    }
}

impl<M: Send + 'static> std::fmt::Debug for Runtime<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime")
            .field("cpus", &self.config.cpus)
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_background_has_a_tenth_and_as_much_as_requests_when_it_is_urgent() {
        let urgencies = Rc::new(Urgencies::default());
        let background = BackgroundShares(Rc::clone(&urgencies));
        assert_eq!(background.shares(), 100);
        let urgency = urgencies.add();
        urgency.set(500);
        assert_eq!(background.shares(), 550);
        urgency.set(Urgency::MAX);
        assert_eq!(background.shares(), SHARES_MAX);
        drop(urgency);
        assert_eq!(background.shares(), 100);
    }
}
