//! Jobs that would hold a core too long, on a few threads of their own.
//!
//! A job carries its number; when it has run, its result lies in a place shared with the waiting
//! future, its number goes into the core's queue of finished jobs and the doorbell rings. Each core
//! has at most [`JOBS_MAX`] jobs under way, so neither that queue nor the threads' queue can
//! overflow; further callers wait. The threads are not pinned. A job that panics ends the process,
//! as a panic on a core does.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread::{self, JoinHandle};

use crate::mail::Mailbox;
use crate::runtime::AbortOnPanic;
use crate::waker::WakerSlot;

/// Jobs of one core that are waiting, running or not yet noticed as finished.
pub(crate) const JOBS_MAX: usize = 1024;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic while holding the lock has ended the process.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The threads. Dropping this lets them finish what is queued and joins them.
pub(crate) struct OffCoreThreads {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl OffCoreThreads {
    /// Starts `count` threads, with the CPU affinity of the caller.
    pub(crate) fn start(count: usize) -> std::io::Result<Self> {
        let mut started = Self { shared: Arc::default(), threads: Vec::with_capacity(count) };
        for number in 0..count {
            let shared = Arc::clone(&started.shared);
            let thread =
                thread::Builder::new().name(format!("pinion-off-{number}")).spawn(move || work(&shared))?;
            started.threads.push(thread);
        }
        Ok(started)
    }

    /// A handle for giving jobs.
    pub(crate) fn jobs(&self) -> OffCoreJobs {
        OffCoreJobs { shared: Arc::clone(&self.shared) }
    }
}

impl Drop for OffCoreThreads {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.filled.notify_all();
        for thread in self.threads.drain(..) {
            // A panicked thread has ended the process.
            drop(thread.join());
        }
    }
}

fn work(shared: &Shared) {
    let _guard = AbortOnPanic;
    let mut queue = shared.lock();
    loop {
        match queue.jobs.pop_front() {
            Some(job) => {
                drop(queue);
                job();
                queue = shared.lock();
            }
            None if queue.closed => return,
            None => queue = shared.filled.wait(queue).unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// Takes jobs for the threads.
#[derive(Clone)]
pub(crate) struct OffCoreJobs {
    shared: Arc<Shared>,
}

impl OffCoreJobs {
    fn push(&self, job: Job) {
        self.shared.lock().jobs.push_back(job);
        self.shared.filled.notify_one();
    }
}

/// One core's jobs under way.
pub(crate) struct JobTable {
    /// By job number; `None` is free.
    running: RefCell<Vec<Option<Rc<Waiting>>>>,
    free: RefCell<Vec<u32>>,
    /// Tasks that wait for a free number.
    crowd: RefCell<Vec<Rc<WakerSlot>>>,
}

#[derive(Default)]
struct Waiting {
    finished: Cell<bool>,
    waker: WakerSlot,
}

impl JobTable {
    pub(crate) fn new() -> Self {
        Self { running: RefCell::default(), free: RefCell::default(), crowd: RefCell::default() }
    }

    /// Notes finished jobs and wakes who waits for them. Returns whether there were any.
    pub(crate) fn collect<M>(&self, mailbox: &Mailbox<M>) -> bool {
        let mut any = false;
        while let Some(number) = mailbox.finished_jobs.pop() {
            any = true;
            let waiting = self.running.borrow_mut()[number as usize].take();
            self.free.borrow_mut().push(number);
            if let Some(waiting) = waiting {
                waiting.finished.set(true);
                waiting.waker.wake();
            }
        }
        if any {
            // All of them: who was dropped meanwhile must not swallow another's turn.
            for waiting in self.crowd.take() {
                waiting.wake();
            }
        }
        any
    }

    /// Runs a job on one of the threads. `core` is the mailbox of this core.
    pub(crate) async fn run<M, T>(
        &self,
        jobs: &OffCoreJobs,
        mailboxes: Arc<[Mailbox<M>]>,
        core: usize,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> T
    where
        M: Send + 'static,
        T: Send + 'static,
    {
        let number = loop {
            if let Some(number) = self.number() {
                break number;
            }
            let slot = Rc::new(WakerSlot::default());
            self.crowd.borrow_mut().push(Rc::clone(&slot));
            let mut waited = false;
            poll_fn(|context| {
                if std::mem::replace(&mut waited, true) {
                    return Poll::Ready(());
                }
                slot.register(context);
                Poll::Pending
            })
            .await;
        };
        let waiting = Rc::new(Waiting::default());
        self.running.borrow_mut()[number as usize] = Some(Rc::clone(&waiting));
        let place = Arc::new(Mutex::new(None));
        let result = Arc::clone(&place);
        jobs.push(Box::new(move || {
            let value = job();
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
            let mailbox = &mailboxes[core];
            assert!(mailbox.finished_jobs.push(number).is_ok(), "as many places as job numbers");
            mailbox.doorbell.ring();
        }));
        poll_fn(|context| {
            if waiting.finished.get() {
                return Poll::Ready(());
            }
            waiting.waker.register(context);
            Poll::Pending
        })
        .await;
        let value = place.lock().unwrap_or_else(PoisonError::into_inner).take();
        value.expect("a finished job has left its result")
    }

    /// A free job number, below [`JOBS_MAX`].
    fn number(&self) -> Option<u32> {
        if let Some(number) = self.free.borrow_mut().pop() {
            return Some(number);
        }
        let mut running = self.running.borrow_mut();
        if running.len() == JOBS_MAX {
            return None;
        }
        running.push(None);
        Some(running.len() as u32 - 1)
    }
}
