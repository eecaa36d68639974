//! The second world: whole nodes in one thread, on virtual time, in an order drawn from a seed.
//!
//! It implements the environment ([`SimEnv`]) so that engine and server run in it unmodified, many
//! nodes of several cores at once, with clients beside them:
//!
//! * scheduling: one task is polled per turn, drawn from those that can run. Time stands almost still
//!   meanwhile ([`World::run_until`] says how much) and jumps to the next event when all wait;
//! * disks keep what was written, sockets carry bytes in pieces of random size through small windows,
//!   messages between cores keep the order of each sender only;
//! * everything that happens is folded into [`World::trace_hash`]: the same seed gives the same hash.
//!
//! A crash ([`World::crash`]) is a kill: it drops a node's tasks; each file operation under way at that
//! moment is done wholly or not at all, and what was finished stays. A power cut
//! ([`World::power_cut`]) also takes what was not durable; [`Disk`] says how. [`World::set_link_faults`]
//! makes links fail. Otherwise nothing is lost, garbled or reordered that the real world keeps.
//!
//! Limits are constants beside what they limit. A run that stops making progress panics; each panic
//! inside a run is followed by the seed and the last steps on standard error.
//!
//! ```
//! use pinion_env::Env;
//! use pinion_tests::world::{NodeConfig, SimEnv, World};
//!
//! let world = World::new(7);
//! let node = world.start_node(NodeConfig::default(), |env: SimEnv| async move {
//!     env.create_dir("data".as_ref()).await.expect("the disk is empty");
//! });
//! world.run_until(world.ended(node));
//! ```

mod disk;
mod env;
mod file;
mod frames;
mod link;
mod link_faults;
mod listen;
mod node;
mod random;
mod scheduler;
mod shared;
mod socket;
mod stream;
mod trace;

#[cfg(test)]
mod link_tests;
#[cfg(test)]
mod tests;

pub use disk::{Disk, Fault, Faults, Filter, Injected, Operation, PowerCut};
pub use env::SimEnv;
pub use file::SimFile;
pub use frames::NodeFrame;
pub use link_faults::LinkFaults;
pub use listen::SimListener;
pub use node::NodeConfig;
pub use random::Random;
pub use socket::{SimChunk, SimHandoff, SimSocket};
pub use stream::ByteStream;

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::Location;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use pinion_env::{Monotonic, TaskClass};

use disk::Outcome;
use node::{Node, Process, Running};
use scheduler::{DRIVER, Origin, ProcessId};
use shared::{Shared, Sleep, TURN_NANOS, yield_once};
use trace::Step;

/// Turns that one call of [`World::run_until`] may take: far more than any test needs.
pub const TURNS_MAX: u64 = 50_000_000;

/// Virtual time that one call of [`World::run_until`] may take: idle nodes with timers would
/// otherwise wait for ever.
pub const RUN_TIME_MAX: Duration = Duration::from_secs(400 * 24 * 3600);

/// A node of a world: its number stays the same over restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

/// A world. Dropping it ends everything in it.
pub struct World {
    outside: Outside,
}

impl World {
    /// An empty world in which everything follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { outside: Outside { shared: Shared::new(seed) } }
    }

    /// Starts a new node with an empty disk: `main` is called once for each core, and its tasks run
    /// on that core. The node ends when all of them have returned.
    ///
    /// # Panics
    /// When the configuration is out of its bounds.
    #[track_caller]
    pub fn start_node<M, F, Fut>(&self, config: NodeConfig, main: F) -> NodeId
    where
        M: Send + 'static,
        F: Fn(SimEnv<M>) -> Fut,
        Fut: Future<Output = ()> + 'static,
    {
        let node = {
            let mut nodes = self.shared().nodes.borrow_mut();
            let node = nodes.len() as u32;
            nodes.insert(node, Node::new(self.shared().seed, node, &config));
            node
        };
        self.restart_node(NodeId(node), config, main);
        NodeId(node)
    }

    /// Starts a node again on the disk that its last process left.
    ///
    /// # Panics
    /// When the node is still running, or the configuration is out of its bounds.
    #[track_caller]
    pub fn restart_node<M, F, Fut>(&self, node: NodeId, config: NodeConfig, main: F)
    where
        M: Send + 'static,
        F: Fn(SimEnv<M>) -> Fut,
        Fut: Future<Output = ()> + 'static,
    {
        assert!((1..=usize::from(u16::MAX)).contains(&config.cores), "{} cores", config.cores);
        let shared = self.shared();
        let process = {
            let mut nodes = shared.nodes.borrow_mut();
            let place = nodes.get_mut(&node.0).expect("node ids come from start_node");
            assert!(place.running.is_none(), "{node} is running");
            place.lives += 1;
            place.disk.set_total_bytes(config.disk_bytes);
            let id = ProcessId { node: node.0, life: place.lives };
            let process = Rc::new(Process::<M>::new(shared.seed, id, place, &config));
            let messages = Rc::clone(&process);
            place.running = Some(Running {
                process: id,
                accepting: Rc::clone(&process.accepting),
                inbox: Rc::clone(&process.inbox),
                mains_left: config.cores,
                drop_messages: Box::new(move || messages.drop_messages()),
            });
            process
        };
        shared.note(Step::Start, u64::from(node.0), config.cores as u64);
        let place = Location::caller();
        for core in 0..config.cores {
            let origin = Origin { process: Some(process.id), core, class: TaskClass::Foreground, place };
            let main = main(SimEnv::new(Rc::clone(shared), Rc::clone(&process), core));
            let (world, id) = (Rc::clone(shared), process.id);
            shared.spawn(origin, async move {
                main.await;
                main_returned(&world, id, core);
            });
        }
    }

    /// Ends a node at once, as `kill -9` does: its tasks are dropped, its connections break off, its
    /// disk stays. A node that is not running stays as it is.
    pub fn crash(&self, node: NodeId) {
        end_process(self.shared(), node.0, End::Kill);
    }

    /// Cuts the power of a node: it ends as at a crash, and its disk loses some of what was not
    /// durable, in a manner drawn for this cut. A node that is not running loses what its last
    /// process left pending.
    pub fn power_cut(&self, node: NodeId) {
        let cut = self.disk(node).draw_cut();
        self.power_cut_as(node, &cut);
    }

    /// Cuts the power of a node in a given manner.
    pub fn power_cut_as(&self, node: NodeId, cut: &PowerCut) {
        let (shared, disk) = (self.shared(), self.disk(node));
        end_process(shared, node.0, End::PowerCut(cut));
        let lost = disk.cut(cut);
        shared.note(Step::PowerCut, u64::from(node.0), lost);
    }

    /// Stops a node's disk when so many operations of the node have ended (see [`Disk::operations`]):
    /// from then on nothing has an effect and nothing ends, until [`World::power_cut`] or
    /// [`World::crash`] treats what is under way. Completes when the disk stands still (`true`), or
    /// when the node has ended before that (`false`).
    ///
    /// One such stop is set at a time; it is forgotten with the end of the process.
    pub fn stop_disk_at(
        &self,
        node: NodeId,
        operations: u64,
    ) -> impl Future<Output = bool> + use<> + 'static {
        let (disk, mut ended) = (self.disk(node), Box::pin(self.ended(node)));
        disk.stop_at(operations);
        poll_fn(move |context| {
            if disk.is_stopped() {
                return Poll::Ready(true);
            }
            disk.wait_for_stop(context.waker());
            ended.as_mut().poll(context).map(|()| false)
        })
    }

    /// Stops a node's tasks where they are, as `kill -STOP` does, until [`World::resume`] or its end.
    /// What it has asked for goes on: its operations end, bytes arrive for it. Its clocks run. A node
    /// that is not running stays as it is.
    pub fn pause(&self, node: NodeId) {
        let shared = self.shared();
        let runs = shared.nodes.borrow().get(&node.0).is_some_and(|node| node.running.is_some());
        if runs {
            shared.note(Step::Pause, u64::from(node.0), 1);
            shared.scheduler.pause(node.0);
        }
    }

    /// Lets a paused node go on.
    pub fn resume(&self, node: NodeId) {
        self.shared().note(Step::Pause, u64::from(node.0), 0);
        self.shared().scheduler.resume(node.0);
    }

    /// How often each fault and each outcome of a cut or kill has happened so far, over all nodes:
    /// all names there are, those that never happened with 0.
    pub fn fault_counts(&self) -> Vec<(&'static str, u64)> {
        let mut sums: Vec<(&'static str, u64)> = Vec::new();
        for node in self.shared().nodes.borrow().values() {
            let counts = node.disk.fault_counts();
            if sums.is_empty() {
                sums = counts;
            } else {
                sums.iter_mut().zip(counts).for_each(|(sum, more)| sum.1 += more.1);
            }
        }
        sums
    }

    /// Completes when the node does not run: all its main functions returned, or it crashed.
    pub fn ended(&self, node: NodeId) -> impl Future<Output = ()> + use<> + 'static {
        let shared = Rc::clone(self.shared());
        poll_fn(move |context| {
            let mut nodes = shared.nodes.borrow_mut();
            match nodes.get_mut(&node.0) {
                Some(node) if node.running.is_some() => {
                    if !node.end_waiters.iter().any(|waiter| waiter.will_wake(context.waker())) {
                        node.end_waiters.push(context.waker().clone());
                    }
                    Poll::Pending
                }
                _ => Poll::Ready(()),
            }
        })
    }

    /// A node's disk, to look at or to damage.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn disk(&self, node: NodeId) -> Rc<Disk> {
        let nodes = self.shared().nodes.borrow();
        Rc::clone(&nodes.get(&node.0).expect("node ids come from start_node").disk)
    }

    /// Moves a node's wall clock forward or back, from now on and over restarts.
    pub fn shift_wall_clock(&self, node: NodeId, by_ms: i64) {
        if let Some(node) = self.shared().nodes.borrow().get(&node.0) {
            node.wall_shift_ms.set(node.wall_shift_ms.get().saturating_add(by_ms));
        }
    }

    /// Runs the world until `future` is done. The future may use the world itself; it is scheduled
    /// like any task.
    ///
    /// Each turn takes 200 ns of virtual time; when nothing can run, time jumps to the next event.
    ///
    /// # Panics
    /// On a deadlock (nothing can run and no event is due), after [`TURNS_MAX`] turns or
    /// [`RUN_TIME_MAX`], when called inside itself, and with whatever a task panics.
    pub fn run_until<F: Future>(&self, future: F) -> F::Output {
        let shared = self.shared();
        let _report = ReportPanic(shared);
        assert!(!shared.runs.replace(true), "run_until inside of run_until");
        let mut future = pin!(future);
        let driver = shared.scheduler.driver();
        let clock_end = shared.now().after(RUN_TIME_MAX).nanos();
        let turns_end = shared.turn.get().saturating_add(TURNS_MAX);
        loop {
            shared.settle();
            match shared.scheduler.draw(&shared.random) {
                Some(task) => {
                    shared.turn.set(shared.turn.get() + 1);
                    shared.note(Step::Turn, task, 0);
                    if task != DRIVER {
                        shared.scheduler.poll(task);
                    } else if let Poll::Ready(output) = driver.poll(future.as_mut()) {
                        shared.runs.set(false);
                        return output;
                    }
                    shared.clock.set(shared.clock.get() + TURN_NANOS);
                }
                None => match shared.scheduler.next_event_nanos() {
                    Some(nanos) => shared.clock.set(shared.clock.get().max(nanos)),
                    None => panic!(
                        "deadlock: nothing can run and no event is due (seed {}); waiting:\n  {}",
                        shared.seed,
                        shared.scheduler.waiting().join("\n  ")
                    ),
                },
            }
            let seed = shared.seed;
            assert!(shared.clock.get() <= clock_end, "the run is not done in {RUN_TIME_MAX:?} (seed {seed})");
            assert!(shared.turn.get() <= turns_end, "the run is not done in {TURNS_MAX} turns (seed {seed})");
        }
    }

    /// From now on links fail like this. What has failed stays so until [`World::heal_links`].
    pub fn set_link_faults(&self, faults: LinkFaults) {
        self.shared().link_faults.set(faults);
    }

    /// Connections made from now on cut nothing: what is sent together arrives together, in chunks of at
    /// most 16 KiB, as in a real core's receive buffers. For whoever counts what a request costs: how the
    /// seed cuts it would be counted too.
    pub fn keep_pieces_whole(&self) {
        self.shared().whole_pieces.set(true);
    }

    /// The most chunks that came together and were to be answered where they arrived.
    pub fn answered_together_max(&self) -> usize {
        self.shared().links.answered_together_max.get()
    }

    /// Ends all faults of links: what waits in a hole and is still wanted passes, cuts are mended.
    pub fn heal_links(&self) {
        let shared = self.shared();
        shared.link_faults.set(LinkFaults::NONE);
        shared.directions.mend_all();
        let holes = shared.links.holes.take();
        for pipe in holes.into_iter().filter_map(|pipe| pipe.upgrade()) {
            pipe.heal(shared);
        }
    }

    /// Loses all frames from one node to another from now on. The other direction goes on.
    pub fn cut_frames(&self, from: NodeId, to: NodeId) {
        self.shared().fault("frames cut");
        self.shared().directions.cut(from.0, to.0, u64::MAX);
    }

    /// Ends a cut of one direction.
    pub fn mend_frames(&self, from: NodeId, to: NodeId) {
        self.shared().directions.mend(from.0, to.0);
    }

    /// How often each fault of links has happened, by name.
    pub fn link_fault_counts(&self) -> Vec<(&'static str, u64)> {
        self.shared().fault_counts.borrow().iter().map(|(name, count)| (*name, *count)).collect()
    }

    /// A hash over everything that happened. Equal for equal seeds and code.
    pub fn trace_hash(&self) -> u64 {
        self.shared().trace.borrow().hash()
    }

    /// What a client in this world may use; for tasks, which cannot borrow the world.
    pub fn outside(&self) -> Outside {
        self.outside.clone()
    }

    /// See [`Outside::connect`].
    pub fn connect(
        &self,
        node: NodeId,
        port: u16,
    ) -> impl Future<Output = io::Result<SimSocket>> + use<> + 'static {
        self.outside.connect(node, port)
    }

    /// See [`Outside::spawn`].
    #[track_caller]
    pub fn spawn<F>(&self, task: F) -> impl Future<Output = F::Output> + use<F> + 'static
    where
        F: Future + 'static,
    {
        self.outside.spawn(task)
    }

    /// See [`Outside::sleep`].
    pub fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + use<> + 'static {
        self.outside.sleep(duration)
    }

    /// See [`Outside::now`].
    pub fn now(&self) -> Monotonic {
        self.outside.now()
    }

    /// See [`Outside::random`].
    pub fn random(&self) -> Random {
        self.outside.random()
    }

    fn shared(&self) -> &Rc<Shared> {
        &self.outside.shared
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let shared = self.shared();
        shared.scheduler.close();
        let nodes = shared.nodes.take();
        for node in nodes.into_values() {
            if let Some(running) = node.running {
                (running.drop_messages)();
                drop(running.accepting.take_all());
            }
        }
        drop(shared.links.parked.take());
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = self.shared();
        f.debug_struct("World").field("seed", &shared.seed).field("now", &shared.now()).finish()
    }
}

/// The world as a program outside of the nodes sees it. Cheap to clone.
#[derive(Clone)]
pub struct Outside {
    shared: Rc<Shared>,
}

impl Outside {
    /// Connects to a node. `ConnectionRefused` when it does not run, listens on another port, or
    /// has stopped accepting.
    pub fn connect(
        &self,
        node: NodeId,
        port: u16,
    ) -> impl Future<Output = io::Result<SimSocket>> + use<> + 'static {
        let connecting = self.shared.connect(node.0, port);
        async move { connecting.await.map(SimSocket::new) }
    }

    /// Starts a task outside of the nodes. It runs whether or not the answer, which waits for its
    /// output, is awaited.
    #[track_caller]
    pub fn spawn<F>(&self, task: F) -> impl Future<Output = F::Output> + use<F> + 'static
    where
        F: Future + 'static,
    {
        self.shared.spawn_outside(task)
    }

    /// Waits for at least `duration` of virtual time.
    pub fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + use<> + 'static {
        Sleep::new(Rc::clone(&self.shared), duration)
    }

    /// Lets others go first.
    pub fn yield_now(&self) -> impl Future<Output = ()> + use<> + 'static {
        yield_once()
    }

    /// Virtual time since the world's start.
    pub fn now(&self) -> Monotonic {
        self.shared.now()
    }

    /// Milliseconds since 1970 by a wall clock that is right.
    pub fn wall_ms(&self) -> u64 {
        env::WALL_START_MS + self.shared.clock.get() / 1_000_000
    }

    /// A stream of random numbers of its own, for a generator of operations.
    pub fn random(&self) -> Random {
        Random::new(self.shared.random.borrow_mut().word())
    }
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outside").field("seed", &self.shared.seed).finish()
    }
}

/// Says on standard error how to run it again when a run ends by a panic.
struct ReportPanic<'w>(&'w Shared);

impl Drop for ReportPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(trace) = self.0.trace.try_borrow()
        {
            eprintln!("world of seed {} after {trace}", self.0.seed);
        }
    }
}

/// The main function of one core has returned: nothing runs there any more. The process ends with the
/// last one.
fn main_returned(shared: &Rc<Shared>, process: ProcessId, core: usize) {
    let (last, accepting) = {
        let mut nodes = shared.nodes.borrow_mut();
        let running = nodes.get_mut(&process.node).and_then(|node| node.running.as_mut());
        let Some(running) = running.filter(|running| running.process == process) else { return };
        running.mains_left -= 1;
        (running.mains_left == 0, Rc::clone(&running.accepting))
    };
    if last {
        return end_process(shared, process.node, End::Exit);
    }
    drop(shared.scheduler.take_tasks(process, core));
    drop(accepting.close(core));
}

/// Why a process ends.
#[derive(Clone, Copy)]
enum End<'c> {
    /// All its main functions have returned.
    Exit,
    Kill,
    /// In this manner; what its disk loses is drawn afterwards.
    PowerCut(&'c PowerCut),
}

/// Ends the process of a node: operations under way first, then tasks, then what they left behind.
fn end_process(shared: &Rc<Shared>, node: u32, end: End<'_>) {
    let (running, disk, waiters) = {
        let mut nodes = shared.nodes.borrow_mut();
        let Some(place) = nodes.get_mut(&node) else { return };
        let Some(running) = place.running.take() else { return };
        (running, Rc::clone(&place.disk), std::mem::take(&mut place.end_waiters))
    };
    let process = running.process;
    shared.note(Step::End, u64::from(node), u64::from(process.life));
    let (futures, events) = shared.scheduler.take_process(process);
    shared.scheduler.resume(node);
    match end {
        End::Exit => disk.resume(),
        End::Kill => {
            disk.count(Outcome::Kill);
            disk.resume();
        }
        End::PowerCut(_) => disk.fade(),
    }
    for event in events.into_iter().filter(|event| event.may_outlive) {
        // The kernel may have taken it already, or never.
        let begun = match end {
            End::Exit | End::Kill => shared.one_in(2),
            End::PowerCut(cut) => disk.draws_begun(cut),
        };
        disk.count(if begun { Outcome::UnderWayBegun } else { Outcome::UnderWayLost });
        if begun {
            (event.action)();
        }
    }
    drop(futures);
    (running.drop_messages)();
    drop(running.accepting.take_all());
    let parked = {
        let mut parked = shared.links.parked.borrow_mut();
        parked.extract_if(.., |_, ends| ends.process == Some(process)).collect::<Vec<_>>()
    };
    drop(parked);
    disk.release_locks();
    for waiter in waiters {
        waiter.wake();
    }
}
