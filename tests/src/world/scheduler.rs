//! The scheduler: tasks, the order they run in, and events at points of virtual time.
//!
//! One task is polled per turn, drawn by the seed from those that were woken. Nothing here knows
//! what tasks and events do. Tasks and events may belong to a process and end with it.
//!
//! Futures and actions are never run or dropped while one of the cells here is borrowed: they call
//! back into the world.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use pinion_env::TaskClass;

use super::disk::Disk;
use super::random::Random;

pub(super) type TaskId = u64;

/// The future given to `run_until`; it lives on the caller's stack, not in the table.
pub(super) const DRIVER: TaskId = 0;

/// One run of a node: from its start to its crash or end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProcessId {
    pub(super) node: u32,
    pub(super) life: u32,
}

/// Where a task came from, for the report of a deadlock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) process: Option<ProcessId>,
    pub(super) core: usize,
    pub(super) class: TaskClass,
    pub(super) place: &'static Location<'static>,
}

/// When an event is due, and its number: events of one instant fire in the order they were made.
pub(super) type EventKey = (u64, u64);

pub(super) type Action = Box<dyn FnOnce()>;

pub(super) struct Event {
    pub(super) process: Option<ProcessId>,
    /// Whether the outside may already have done it when the process dies (a write under way).
    pub(super) may_outlive: bool,
    /// Whose effect it is: while that disk stands still the event waits.
    pub(super) disk: Option<Rc<Disk>>,
    pub(super) action: Action,
}

pub(super) type TaskFuture = Pin<Box<dyn Future<Output = ()>>>;

struct Task {
    /// `None` while it is being polled.
    future: Option<TaskFuture>,
    signal: Arc<TaskSignal>,
    origin: Origin,
}

struct TaskSignal {
    task: TaskId,
    queued: AtomicBool,
    woken: Arc<Mutex<Vec<TaskId>>>,
}

impl Wake for TaskSignal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.woken.lock().expect("nothing panics while it holds this list").push(self.task);
        }
    }
}

/// The driver's side of the scheduler.
pub(super) struct Driver(Arc<TaskSignal>);

impl Driver {
    /// Polls the driver's future once.
    pub(super) fn poll<F: Future>(&self, future: Pin<&mut F>) -> Poll<F::Output> {
        self.0.queued.store(false, Ordering::Relaxed);
        future.poll(&mut Context::from_waker(&Waker::from(self.0.clone())))
    }
}

#[derive(Default)]
pub(super) struct Scheduler {
    tasks: RefCell<BTreeMap<TaskId, Task>>,
    ready: RefCell<Vec<TaskId>>,
    woken: Arc<Mutex<Vec<TaskId>>>,
    events: RefCell<BTreeMap<EventKey, Event>>,
    /// Events that were due while their disk stood still.
    held: RefCell<Vec<Event>>,
    /// Nodes whose tasks do not run.
    paused: RefCell<BTreeSet<u32>>,
    /// Tasks of paused nodes that could run.
    resting: RefCell<Vec<TaskId>>,
    last_task: Cell<TaskId>,
    last_event: Cell<u64>,
    /// The world is being dropped: nothing starts any more.
    closed: Cell<bool>,
}

impl Scheduler {
    /// Adds a task, runnable at once. `None` (and the future is dropped) when the world has ended.
    pub(super) fn spawn(&self, origin: Origin, future: TaskFuture) -> Option<TaskId> {
        if self.closed.get() {
            return None;
        }
        let task = self.last_task.get() + 1;
        self.last_task.set(task);
        let signal = self.signal(task);
        signal.wake_by_ref();
        self.tasks.borrow_mut().insert(task, Task { future: Some(future), signal, origin });
        Some(task)
    }

    /// What wakes the driver, already woken once. Wake-ups left from earlier drivers are forgotten.
    pub(super) fn driver(&self) -> Driver {
        self.collect_woken();
        self.ready.borrow_mut().retain(|task| *task != DRIVER);
        let signal = self.signal(DRIVER);
        signal.wake_by_ref();
        Driver(signal)
    }

    /// Draws the task whose turn it is; `None` when all of them wait.
    pub(super) fn draw(&self, random: &RefCell<Random>) -> Option<TaskId> {
        self.collect_woken();
        let mut ready = self.ready.borrow_mut();
        while !ready.is_empty() {
            let place = random.borrow_mut().below(ready.len() as u64) as usize;
            let task = ready.swap_remove(place);
            if !self.rests(task) {
                return Some(task);
            }
            self.resting.borrow_mut().push(task);
        }
        None
    }

    /// Lets the tasks of a node rest, whatever wakes them. Its operations go on and end.
    pub(super) fn pause(&self, node: u32) {
        self.paused.borrow_mut().insert(node);
    }

    pub(super) fn resume(&self, node: u32) {
        if self.paused.borrow_mut().remove(&node) {
            self.ready.borrow_mut().append(&mut self.resting.borrow_mut());
        }
    }

    fn rests(&self, task: TaskId) -> bool {
        if self.paused.borrow().is_empty() {
            return false;
        }
        let tasks = self.tasks.borrow();
        self.is_paused(tasks.get(&task).and_then(|task| task.origin.process))
    }

    /// Whether a process is of a paused node.
    pub(super) fn is_paused(&self, process: Option<ProcessId>) -> bool {
        process.is_some_and(|process| self.paused.borrow().contains(&process.node))
    }

    /// Polls a task once. Ended tasks are dropped; so is one whose core ended in its own turn.
    pub(super) fn poll(&self, task: TaskId) {
        let (mut future, signal) = {
            let mut tasks = self.tasks.borrow_mut();
            // Wakers outlive their tasks.
            let Some(entry) = tasks.get_mut(&task) else { return };
            let future = entry.future.take().expect("a task is not polled inside its own turn");
            (future, entry.signal.clone())
        };
        // From here on a wake-up counts for the next turn.
        signal.queued.store(false, Ordering::Relaxed);
        let waker = Waker::from(signal);
        let over = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let mut tasks = self.tasks.borrow_mut();
        if over {
            tasks.remove(&task);
        } else if let Some(entry) = tasks.get_mut(&task) {
            entry.future = Some(future);
            return;
        }
        drop(tasks);
        drop(future);
    }

    /// Has an event at a point of virtual time; the action comes back when the world has ended.
    pub(super) fn at(&self, nanos: u64, event: Event) -> Result<EventKey, Event> {
        if self.closed.get() {
            return Err(event);
        }
        let number = self.last_event.get() + 1;
        self.last_event.set(number);
        self.events.borrow_mut().insert((nanos, number), event);
        Ok((nanos, number))
    }

    /// Takes an event back that has not fired. Drop the answer outside of any borrow.
    pub(super) fn cancel(&self, key: EventKey) -> Option<Event> {
        self.events.borrow_mut().remove(&key)
    }

    /// The next event due at `nanos` or before.
    pub(super) fn take_due(&self, nanos: u64) -> Option<(EventKey, Event)> {
        let mut events = self.events.borrow_mut();
        let due = events.first_entry().filter(|entry| entry.key().0 <= nanos)?;
        Some(due.remove_entry())
    }

    /// Keeps an event that was due until its process ends.
    pub(super) fn hold(&self, event: Event) {
        self.held.borrow_mut().push(event);
    }

    /// When the next event is due.
    pub(super) fn next_event_nanos(&self) -> Option<u64> {
        self.events.borrow().first_key_value().map(|((nanos, _), _)| *nanos)
    }

    /// Takes away the tasks of one core of a process: their futures, to be dropped.
    pub(super) fn take_tasks(&self, process: ProcessId, core: usize) -> Vec<TaskFuture> {
        let mut tasks = self.tasks.borrow_mut();
        let of_core = |task: &Task| task.origin.process == Some(process) && task.origin.core == core;
        let owned = tasks.extract_if(.., |_, task| of_core(task));
        owned.filter_map(|(_, task)| task.future).collect()
    }

    /// Takes away everything that belongs to a process: its futures, to be dropped, and its events,
    /// those that were due first.
    pub(super) fn take_process(&self, process: ProcessId) -> (Vec<TaskFuture>, Vec<Event>) {
        let mut tasks = self.tasks.borrow_mut();
        let owned = tasks.extract_if(.., |_, task| task.origin.process == Some(process));
        let futures = owned.filter_map(|(_, task)| task.future).collect();
        let mut held = self.held.borrow_mut();
        let held = held.extract_if(.., |event| event.process == Some(process));
        let mut events = self.events.borrow_mut();
        let events = events.extract_if(.., |_, event| event.process == Some(process));
        (futures, held.chain(events.map(|(_, event)| event)).collect())
    }

    /// Ends everything; nothing can be added afterwards.
    pub(super) fn close(&self) {
        self.closed.set(true);
        let tasks = self.tasks.take();
        let events = self.events.take();
        let held = self.held.take();
        drop((tasks, events, held));
    }

    /// The tasks that wait, one line each, for the report of a deadlock.
    pub(super) fn waiting(&self) -> Vec<String> {
        let tasks = self.tasks.borrow();
        let line = |task: &Task| {
            let Origin { process, core, class, place } = task.origin;
            match process {
                Some(process) => format!("node {} core {core} {class:?}, spawned at {place}", process.node),
                None => format!("outside of the nodes, spawned at {place}"),
            }
        };
        tasks.values().map(line).collect()
    }

    fn signal(&self, task: TaskId) -> Arc<TaskSignal> {
        Arc::new(TaskSignal { task, queued: AtomicBool::new(false), woken: self.woken.clone() })
    }

    fn collect_woken(&self) {
        let mut woken = self.woken.lock().expect("nothing panics while it holds this list");
        let mut ready = self.ready.borrow_mut();
        for task in woken.drain(..) {
            // A driver that has returned may have left wakers behind.
            if task != DRIVER || !ready.contains(&DRIVER) {
                ready.push(task);
            }
        }
    }
}
