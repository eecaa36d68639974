//! What all parts of a world hold on to: clock, scheduler, randomness, trace, nodes and links.
//!
//! Every part has its own cell, borrowed only for a few lines and never while foreign code (a
//! future, a waker, a destructor) runs.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::panic::Location;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pinion_env::{Monotonic, TaskClass};

use super::disk::{Disk, Operation};
use super::frames::Directions;
use super::link::{Ends, Pipe};
use super::link_faults::LinkFaults;
use super::node::Node;
use super::random::Random;
use super::scheduler::{Action, Event, EventKey, Origin, ProcessId, Scheduler};
use super::trace::{Step, Trace};

/// What a turn of a task takes, in nanoseconds: enough that a loop around `yield_now` sees time
/// pass and its I/O complete.
pub(super) const TURN_NANOS: u64 = 200;

pub(super) struct Shared {
    pub(super) seed: u64,
    /// Nanoseconds since the world's start.
    pub(super) clock: Cell<u64>,
    /// Turns so far: tells whether two moments lie in the same one.
    pub(super) turn: Cell<u64>,
    /// Whether `run_until` is on the stack.
    pub(super) runs: Cell<bool>,
    pub(super) scheduler: Scheduler,
    pub(super) random: RefCell<Random>,
    pub(super) trace: RefCell<Trace>,
    pub(super) nodes: RefCell<BTreeMap<u32, Node>>,
    pub(super) links: Links,
    pub(super) directions: Directions,
    pub(super) link_faults: Cell<LinkFaults>,
    /// Links made from now on cut nothing.
    pub(super) whole_pieces: Cell<bool>,
    /// Faults so far, by name.
    pub(super) fault_counts: RefCell<BTreeMap<&'static str, u64>>,
}

/// Connections that are not in any socket's hands, and their numbers.
#[derive(Default)]
pub(super) struct Links {
    last_pipe: Cell<u64>,
    last_handoff: Cell<u64>,
    /// Handed off and not adopted yet.
    pub(super) parked: RefCell<BTreeMap<u64, Ends>>,
    /// Pipes with a chunk that is to be answered when all have come that come together, and the most that ever
    /// did.
    pub(super) offered: RefCell<Vec<Rc<Pipe>>>,
    pub(super) answered_together_max: Cell<usize>,
    /// Pipes that fell into a hole, for healing.
    pub(super) holes: RefCell<Vec<Weak<Pipe>>>,
    /// Hand-offs that were dropped. Shared with them; they may be on any thread.
    pub(super) abandoned: Arc<Mutex<Vec<u64>>>,
}

impl Links {
    pub(super) fn next_pipe(&self) -> u64 {
        self.last_pipe.set(self.last_pipe.get() + 1);
        self.last_pipe.get()
    }

    pub(super) fn park(&self, ends: Ends) -> u64 {
        let handoff = self.last_handoff.get() + 1;
        self.last_handoff.set(handoff);
        self.parked.borrow_mut().insert(handoff, ends);
        handoff
    }
}

impl Shared {
    pub(super) fn new(seed: u64) -> Rc<Self> {
        Rc::new(Self {
            seed,
            clock: Cell::new(0),
            turn: Cell::new(0),
            runs: Cell::new(false),
            scheduler: Scheduler::default(),
            random: RefCell::new(Random::new(seed)),
            trace: RefCell::new(Trace::default()),
            nodes: RefCell::new(BTreeMap::new()),
            links: Links::default(),
            directions: Directions::default(),
            link_faults: Cell::new(LinkFaults::NONE),
            whole_pieces: Cell::new(false),
            fault_counts: RefCell::default(),
        })
    }

    pub(super) fn now(&self) -> Monotonic {
        Monotonic::from_nanos(self.clock.get())
    }

    pub(super) fn below(&self, bound: u64) -> u64 {
        self.random.borrow_mut().below(bound)
    }

    pub(super) fn one_in(&self, times: u64) -> bool {
        self.random.borrow_mut().one_in(times)
    }

    pub(super) fn note(&self, step: Step, first: u64, second: u64) {
        self.trace.borrow_mut().note(self.clock.get(), step, first, second);
    }

    pub(super) fn note_content(&self, step: Step, first: u64, bytes: &[u8]) {
        let mut trace = self.trace.borrow_mut();
        trace.note(self.clock.get(), step, first, bytes.len() as u64);
        trace.content(bytes);
    }

    fn note_fault(&self, disk: &Disk) {
        if let Some(fault) = disk.take_unnoted() {
            self.note(Step::DiskFault, fault, disk.operations());
        }
    }

    /// Whether a process (or the outside, `None`) still runs.
    pub(super) fn is_alive(&self, process: Option<ProcessId>) -> bool {
        let Some(process) = process else { return true };
        self.nodes.borrow().get(&process.node).is_some_and(|node| node.runs(process))
    }

    pub(super) fn spawn(&self, origin: Origin, task: impl Future<Output = ()> + 'static) {
        if self.is_alive(origin.process)
            && let Some(number) = self.scheduler.spawn(origin, Box::pin(task))
        {
            self.note(Step::Spawn, number, origin.class as u64);
        }
    }

    /// Starts a task outside of the nodes and gives its output.
    #[track_caller]
    pub(super) fn spawn_outside<F>(&self, task: F) -> impl Future<Output = F::Output> + use<F> + 'static
    where
        F: Future + 'static,
    {
        let slot = Rc::new(Slot::default());
        let filled = Rc::clone(&slot);
        let place = Location::caller();
        let origin = Origin { process: None, core: 0, class: TaskClass::Foreground, place };
        self.spawn(origin, async move { filled.fill(task.await) });
        slot.filled()
    }

    /// Has an action after a while. The world drops it when it has ended.
    pub(super) fn after(&self, nanos: u64, action: Action) -> Option<EventKey> {
        let event = Event { process: None, may_outlive: false, disk: None, action };
        self.scheduler.at(self.clock.get().saturating_add(nanos), event).ok()
    }

    /// An operation of a process: starts when it is first polled, has its effect within
    /// `nanos_max`, and then whether or not somebody still waits for it.
    pub(super) fn operation<T: 'static, E>(
        self: &Rc<Self>,
        process: ProcessId,
        nanos_max: u64,
        effect: E,
    ) -> impl Future<Output = T> + use<T, E> + 'static
    where
        E: FnOnce(&Self) -> T + 'static,
    {
        self.schedule(process, None, nanos_max, false, effect)
    }

    /// An operation on the disk of a process.
    pub(super) fn disk_operation<T: 'static, E>(
        self: &Rc<Self>,
        process: ProcessId,
        disk: &Rc<Disk>,
        operation: Operation,
        nanos_max: u64,
        effect: E,
    ) -> impl Future<Output = T> + use<T, E> + 'static
    where
        E: FnOnce(&Self, &Disk) -> T + 'static,
    {
        // What it changes may be there although the process has not lived to see it end.
        let may_outlive = !matches!(operation, Operation::Read | Operation::Sync | Operation::Inspect);
        let own = Rc::clone(disk);
        self.schedule(process, Some((Rc::clone(disk), operation)), nanos_max, may_outlive, move |shared| {
            let result = effect(shared, &own);
            own.ended(operation);
            shared.note_fault(&own);
            result
        })
    }

    fn schedule<T: 'static, E>(
        self: &Rc<Self>,
        process: ProcessId,
        on: Option<(Rc<Disk>, Operation)>,
        nanos_max: u64,
        may_outlive: bool,
        effect: E,
    ) -> impl Future<Output = T> + use<T, E> + 'static
    where
        E: FnOnce(&Self) -> T + 'static,
    {
        let shared = Rc::clone(self);
        async move {
            let slot = Rc::new(Slot::default());
            if shared.is_alive(Some(process)) {
                // Some complete at once, as cached ones do.
                let mut nanos = if shared.one_in(8) { 0 } else { shared.below(nanos_max) };
                let disk = on.map(|(disk, operation)| {
                    nanos += disk.delay_nanos(operation);
                    shared.note_fault(&disk);
                    disk
                });
                let (world, filled) = (Rc::clone(&shared), Rc::clone(&slot));
                let action: Action = Box::new(move || filled.fill(effect(&world)));
                let event = Event { process: Some(process), may_outlive, disk, action };
                drop(shared.scheduler.at(shared.clock.get() + nanos, event));
            }
            slot.filled().await
        }
    }

    /// Does what is due now: events, answers to chunks that came with them, and closing connections whose
    /// hand-off was dropped.
    pub(super) fn settle(self: &Rc<Self>) {
        while let Some(((_, number), event)) = self.scheduler.take_due(self.clock.get()) {
            if event.disk.as_ref().is_some_and(|disk| disk.is_stopped()) {
                self.scheduler.hold(event);
                continue;
            }
            self.note(Step::Event, number, 0);
            (event.action)();
        }
        let offered = self.links.offered.take();
        let together_max = self.links.answered_together_max.get().max(offered.len());
        self.links.answered_together_max.set(together_max);
        offered.iter().for_each(|pipe| pipe.answer(self));
        loop {
            let list = self.links.abandoned.lock().expect("nothing panics while it holds this list").pop();
            let Some(handoff) = list else { break };
            let ends = self.links.parked.borrow_mut().remove(&handoff);
            drop(ends);
        }
    }

    /// Opens a connection from the outside.
    pub(super) fn connect(
        self: &Rc<Self>,
        node: u32,
        port: u16,
    ) -> impl Future<Output = io::Result<Ends>> + use<> + 'static {
        let shared = Rc::clone(self);
        async move {
            let slot = Rc::new(Slot::default());
            let (world, filled) = (Rc::clone(&shared), Rc::clone(&slot));
            let faults = shared.link_faults.get();
            let lost = shared.happens(faults.lose_attempt_one_in);
            if lost {
                shared.fault("attempt lost");
                let given_up = Rc::clone(&slot);
                let timed_out = move || given_up.fill(Err(io::Error::from(ErrorKind::TimedOut)));
                shared.after(super::link::give_up_nanos(&shared), Box::new(timed_out));
                if shared.one_in(2) {
                    return slot.filled().await;
                }
            }
            let refused = shared.happens(faults.refuse_one_in);
            if refused {
                shared.fault("attempt refused");
            }
            let arrive = move || {
                world.note(Step::Connect, u64::from(node), u64::from(port));
                let accepting = world.nodes.borrow().get(&node).and_then(Node::process).and_then(
                    |(process, accepting)| {
                        (accepting.port() == port && !refused).then(|| (process, Rc::clone(accepting)))
                    },
                );
                let accepted = accepting.and_then(|(process, accepting)| {
                    let (client, server) = Ends::pair(&world, process);
                    accepting.arrive(&world, server).ok().map(|()| client)
                });
                // Of a lost attempt the server may know; what it knows of closes at once.
                if !lost {
                    filled.fill(accepted.ok_or_else(|| io::Error::from(ErrorKind::ConnectionRefused)));
                }
            };
            let nanos = shared.below(super::link::LATENCY_NANOS_MAX) + shared.lateness_nanos();
            shared.after(nanos, Box::new(arrive));
            slot.filled().await
        }
    }
}

/// Waits for at least a duration, from the first poll on; forgets its event when dropped.
pub(super) struct Sleep {
    shared: Rc<Shared>,
    duration: Duration,
    started: Option<Option<EventKey>>,
    slot: Rc<Slot<()>>,
}

impl Sleep {
    pub(super) fn new(shared: Rc<Shared>, duration: Duration) -> Self {
        Self { shared, duration, started: None, slot: Rc::default() }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.started.is_none() {
            let nanos = u64::try_from(self.duration.as_nanos()).unwrap_or(u64::MAX);
            let slot = Rc::clone(&self.slot);
            let key = self.shared.after(nanos, Box::new(move || slot.fill(())));
            self.started = Some(key);
        }
        self.slot.poll_filled(context)
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(Some(key)) = self.started {
            drop(self.shared.scheduler.cancel(key));
        }
    }
}

/// Lets others go first, once.
pub(super) fn yield_once() -> impl Future<Output = ()> + 'static {
    let mut yielded = false;
    poll_fn(move |context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
}

/// A result on its way from an event to the task that waits for it.
pub(super) struct Slot<T> {
    value: Cell<Option<T>>,
    waker: Cell<Option<Waker>>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { value: Cell::new(None), waker: Cell::new(None) }
    }
}

impl<T: 'static> Slot<T> {
    pub(super) fn fill(&self, value: T) {
        self.value.set(Some(value));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    pub(super) fn poll_filled(&self, context: &mut Context<'_>) -> Poll<T> {
        if let Some(value) = self.value.take() {
            return Poll::Ready(value);
        }
        self.waker.set(Some(context.waker().clone()));
        Poll::Pending
    }

    pub(super) fn filled(self: Rc<Self>) -> impl Future<Output = T> + 'static {
        poll_fn(move |context| self.poll_filled(context))
    }
}
