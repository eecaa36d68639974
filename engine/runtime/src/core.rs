//! What one core owns: its ring, its operations in flight, its receive buffers.
//!
//! [`Core::start`] puts an operation into the slab and its entry on the ring. [`Core::turn`], called
//! by the driver task only, submits, reaps and hands every completion to whom it concerns. Both are
//! re-entrancy safe by a simple rule: no borrow of the slab or the ring is held while anything else
//! is called.
//!
//! After [`Core::stop`] nothing is started any more: futures of this core never complete then.
#![expect(unsafe_code, reason = "pushing entries whose memory the slab keeps alive")]

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use io_uring::{opcode, types};

use crate::op::{Op, Progress, Request};
use crate::pool::ReceivePool;
use crate::rest::Rest;
use crate::ring::{ALARM, Completion, Entered, NOBODY, REAP_MAX, Ring};
use crate::rounds::Rounds;
use crate::slab::{Key, Slab};
use crate::socket::SocketState;
use crate::sys;
use crate::timers::Timers;
use crate::waker::WakerSlot;

/// Places in the slab made at start; it grows beyond when more is in flight.
const OPERATIONS_AT_START: usize = 1024;

/// So many reads of files go to the kernel at once, not at the turn's end: until then the device would
/// rest while the core works on what it has read already. Fewer would be a system call for each.
const READS_TOGETHER: u32 = 4;

/// One core's ring and everything in flight on it.
pub(crate) struct Core {
    ring: RefCell<Option<Ring>>,
    operations: RefCell<Slab<Op>>,
    /// Operations whose last completion has not been seen.
    in_flight: Cell<usize>,
    pool: Rc<ReceivePool>,
    /// Sockets whose receive found no buffer; armed again at the end of the turn.
    starved: RefCell<Vec<Rc<SocketState>>>,
    /// Sockets whose chunk is answered at the end of the turn.
    answering: RefCell<Vec<Rc<SocketState>>>,
    /// Writes to logs whose completion has not been seen.
    durable_writes: Cell<u32>,
    rest: Rest,
    /// Reads of files since the ring was last entered.
    reads_queued: Cell<u32>,
    batch: Cell<Vec<Completion>>,
    timers: Timers,
    rounds: Rounds,
    driver: WakerSlot,
    kicked: Cell<bool>,
    yielding: Cell<usize>,
    /// Times that there was nothing left to do.
    sleeps: Cell<u64>,
    stopping: Cell<bool>,
}

impl Core {
    /// Makes the ring and the receive buffers, on the thread that will drive them.
    pub(crate) fn new(
        ring_entries: u32,
        receive_buffers: u16,
        receive_buffer_bytes: u32,
        eventfd: BorrowedFd<'_>,
    ) -> io::Result<Rc<Self>> {
        let mut ring = Ring::new(ring_entries)?;
        ring.register_eventfd(eventfd)?;
        let pool = ReceivePool::new(&mut ring, receive_buffers, receive_buffer_bytes)?;
        Ok(Rc::new(Self {
            ring: RefCell::new(Some(ring)),
            operations: RefCell::new(Slab::with_capacity(OPERATIONS_AT_START)),
            in_flight: Cell::new(0),
            pool,
            starved: RefCell::default(),
            answering: RefCell::default(),
            durable_writes: Cell::new(0),
            rest: Rest::default(),
            reads_queued: Cell::new(0),
            batch: Cell::new(Vec::with_capacity(REAP_MAX)),
            timers: Timers::default(),
            rounds: Rounds::default(),
            driver: WakerSlot::default(),
            kicked: Cell::new(false),
            yielding: Cell::new(0),
            sleeps: Cell::new(0),
            stopping: Cell::new(false),
        }))
    }

    pub(crate) fn pool(&self) -> &Rc<ReceivePool> {
        &self.pool
    }

    pub(crate) fn timers(&self) -> &Timers {
        &self.timers
    }

    /// Starts an operation. `None` while stopping: the operation is dropped unstarted.
    pub(crate) fn start(&self, op: Op) -> Option<Key> {
        if self.stopping.get() {
            return None;
        }
        let mut operations = self.operations.borrow_mut();
        let key = operations.insert(op);
        let op = operations.get_mut(key)?;
        self.durable_writes.set(self.durable_writes.get() + u32::from(op.is_durable_write()));
        let device_waits = op.is_durable_write() || (op.is_file_read() && self.has_reads_together());
        let entry = op.entry().user_data(key.bits());
        if let Some(ring) = self.ring.borrow_mut().as_mut() {
            // SAFETY: the entry points only to what the op owns on the heap (see `op`), and the op
            // stays in the slab, untouched, until its last completion.
            unsafe { ring.push(entry) };
            if device_waits {
                ring.submit();
                self.reads_queued.set(0);
            }
        }
        drop(operations);
        self.in_flight.set(self.in_flight.get() + 1);
        self.kick();
        Some(key)
    }

    /// Counts a read; whether enough have been queued since the last were submitted.
    fn has_reads_together(&self) -> bool {
        self.reads_queued.set(self.reads_queued.get() + 1);
        self.reads_queued.get() >= READS_TOGETHER
    }

    /// Asks for the end of an operation. It still completes, as cancelled or otherwise.
    pub(crate) fn cancel(&self, key: Key) {
        self.push_cancel(opcode::AsyncCancel::new(key.bits()).build());
    }

    /// Wakes the driver, if it waits: there is something to submit or to look at.
    pub(crate) fn kick(&self) {
        self.kicked.set(true);
        self.driver.wake();
    }

    /// The eventfd was signalled. The core has slept on that, unless somebody who ran kicked the driver before.
    pub(crate) fn signalled(&self) {
        if !self.kicked.get() {
            self.rounds.slept();
        }
        self.kick();
    }

    /// Whether the driver was kicked since the last turn; remembers it for waking otherwise.
    pub(crate) fn poll_kick(&self, context: &Context<'_>) -> Poll<()> {
        if self.kicked.get() {
            return Poll::Ready(());
        }
        self.driver.register(context);
        Poll::Pending
    }

    /// Notes a task that yields, until the guard is dropped.
    pub(crate) fn yielding(self: &Rc<Self>) -> Yielding {
        self.yielding.set(self.yielding.get() + 1);
        Yielding(Rc::clone(self))
    }

    /// Whether a task of this core has yielded and will run again by itself.
    pub(crate) fn has_yielding(&self) -> bool {
        self.yielding.get() > 0
    }

    /// Submits, reaps, hands out completions. Returns whether there may be more at once.
    pub(crate) fn turn(&self) -> bool {
        self.kicked.set(false);
        self.reads_queued.set(0);
        let mut batch = self.batch.take();
        let entered = match self.ring.borrow_mut().as_mut() {
            Some(ring) => ring.enter_if_needed(),
            None => return false,
        };
        let mut reaped = 0;
        // Bounded: completions are made by entering, and this loop enters only for a full batch.
        loop {
            batch.clear();
            if let Some(ring) = self.ring.borrow_mut().as_mut() {
                ring.reap(&mut batch);
            }
            reaped += batch.len();
            for completion in &batch {
                self.complete(*completion);
            }
            if batch.len() < REAP_MAX {
                break;
            }
        }
        batch.clear();
        self.batch.set(batch);
        self.answer_arrivals();
        self.feed_starved();
        let now = sys::monotonic_nanos();
        if reaped > 0 {
            self.rest.ended(now);
        }
        self.rounds.look(now);
        let fired = self.timers.fire(now);
        reaped > 0 || fired || entered == Entered::NotYet || self.has_unsubmitted()
    }

    /// With nothing to do: whether to look again at once instead of sleeping.
    pub(crate) fn lingers(&self) -> bool {
        self.rest.lingers(sys::monotonic_nanos()) && self.durable_writes.get() > 0
    }

    /// Sets the alarm and turns wake-ups on; false if there is, or may be, something to do after all.
    pub(crate) fn prepare_sleep(&self) -> bool {
        let mut ring = self.ring.borrow_mut();
        let Some(ring) = ring.as_mut() else { return false };
        if self.kicked.get() {
            return false;
        }
        if let Some(first) = self.timers.first() {
            ring.set_alarm(first);
        }
        let quiet = ring.quiet_with_wakeups();
        self.sleeps.set(self.sleeps.get() + u64::from(quiet));
        quiet
    }

    /// What the ring and its buffers have done so far, by name.
    pub(crate) fn counters(&self) -> Vec<(&'static str, u64)> {
        let ring = self.ring.borrow().as_ref().map(Ring::counters).unwrap_or_default();
        let mut counters = vec![
            ("ring_enters", ring.enters),
            ("ring_entries", ring.entries),
            ("ring_completions", ring.completions),
            ("sleeps", self.sleeps.get()),
            ("chunks_copied", self.pool.copied_chunks()),
        ];
        counters.extend(self.rounds.counters());
        counters
    }

    /// Turns wake-ups off again.
    pub(crate) fn end_sleep(&self) {
        if let Some(ring) = self.ring.borrow_mut().as_mut() {
            ring.disable_wakeups();
        }
    }

    /// Tells the driver to end.
    pub(crate) fn stop(&self) {
        self.stopping.set(true);
        self.kick();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Ends connections with something in flight, whose tasks will never run again, cancels
    /// everything, waits for the kernel to let go and drops the ring. What the kernel does not let
    /// go of in time is leaked, never freed under its hands.
    pub(crate) fn close(self: &Rc<Self>) {
        const ROUNDS_MAX: usize = 20;
        const ROUND: Duration = Duration::from_millis(50);
        self.stopping.set(true);
        self.starved.borrow_mut().clear();
        for op in self.operations.borrow().values() {
            if let Op::Receive { socket, .. } | Op::Send { socket, .. } = op {
                sys::shut_down(socket.descriptor());
            }
        }
        if self.in_flight.get() > 0 {
            self.push_cancel(opcode::AsyncCancel2::new(types::CancelBuilder::any()).build());
        }
        for _ in 0..ROUNDS_MAX {
            self.turn();
            if self.in_flight.get() == 0 {
                break;
            }
            if let Some(ring) = self.ring.borrow_mut().as_mut() {
                ring.wait(ROUND);
            }
        }
        if self.in_flight.get() > 0 {
            std::mem::forget(Rc::clone(self));
        }
        drop(self.ring.borrow_mut().take());
    }

    fn push_cancel(&self, entry: io_uring::squeue::Entry) {
        if let Some(ring) = self.ring.borrow_mut().as_mut() {
            // SAFETY: a cancellation points to no memory.
            unsafe { ring.push(entry.user_data(NOBODY)) };
        }
        self.kick();
    }

    fn has_unsubmitted(&self) -> bool {
        self.ring.borrow_mut().as_mut().is_some_and(Ring::has_unsubmitted)
    }

    fn complete(&self, completion: Completion) {
        match completion.user_data {
            NOBODY => return,
            ALARM => {
                if let Some(ring) = self.ring.borrow_mut().as_mut() {
                    ring.alarm_ended();
                }
                return;
            }
            _ => {}
        }
        let key = Key::from_bits(completion.user_data);
        let mut operations = self.operations.borrow_mut();
        // What goes on is told by reference; what has ended leaves the slab.
        if completion.more() {
            match operations.get_mut(key) {
                Some(Op::Receive { socket, .. }) => {
                    let socket = Rc::clone(socket);
                    drop(operations);
                    socket.received(completion);
                }
                Some(Op::Accept(listener)) => {
                    let listener = Rc::clone(listener);
                    drop(operations);
                    listener.accepted(completion);
                }
                _ => debug_assert!(false, "only accepting and receiving complete more than once"),
            }
            return;
        }
        self.in_flight.set(self.in_flight.get() - 1);
        if operations.get_mut(key).is_some_and(|op| op.is_durable_write()) {
            self.durable_writes.set(self.durable_writes.get() - 1);
        }
        if let Some(Op::Request { progress, .. }) = operations.get_mut(key)
            && let Progress::Running(waker) = progress
        {
            let waker = std::mem::take(waker);
            *progress = Progress::Done(completion.result);
            drop(operations);
            waker.wake();
            return;
        }
        let ended = operations.remove(key);
        drop(operations);
        match ended {
            Some(Op::Receive { socket, .. }) => {
                if completion.result == -libc::ENOBUFS && socket.wants_more() {
                    self.starved.borrow_mut().push(Rc::clone(&socket));
                }
                socket.received(completion);
            }
            Some(Op::Send { socket, outgoing }) => socket.sent(outgoing, completion.result),
            Some(Op::Accept(listener)) => listener.accepted(completion),
            Some(Op::Request { request, .. }) => request.discard(completion.result),
            None => debug_assert!(false, "a completion without an operation"),
        }
    }

    /// Has the socket's handler answer what it was offered when all completions have been handed out.
    pub(crate) fn answer_later(&self, socket: Rc<SocketState>) {
        self.answering.borrow_mut().push(socket);
    }

    fn answer_arrivals(&self) {
        // Answering adds nobody to the list: that takes a completion.
        let mut answering = self.answering.take();
        answering.drain(..).for_each(SocketState::answer);
        self.answering.replace(answering);
    }

    /// Buffers came back while completions were handled: see `pool`.
    fn feed_starved(&self) {
        // Arming adds nobody to the list: that takes a completion.
        let mut starved = self.starved.take();
        for socket in starved.drain(..) {
            socket.arm_again();
        }
        self.starved.replace(starved);
    }
}

/// Marks a task as runnable by itself; dropping it tells the driver that the task runs.
pub(crate) struct Yielding(Rc<Core>);

impl Drop for Yielding {
    fn drop(&mut self) {
        self.0.yielding.set(self.0.yielding.get() - 1);
        self.0.kick();
    }
}

/// A request as a future: starts when first polled, gives the request and its memory back with
/// the result. Dropped early, the request goes on and its result is discarded.
pub(crate) struct Operation {
    core: Rc<Core>,
    stage: Stage,
}

enum Stage {
    New(Request),
    Running(Key),
    /// Collected, or refused because the core stops.
    Over,
}

impl Operation {
    pub(crate) fn new(core: &Rc<Core>, request: Request) -> Self {
        Self { core: Rc::clone(core), stage: Stage::New(request) }
    }
}

impl Future for Operation {
    /// The kernel's result (a count, a descriptor or a negated error number) and the request.
    type Output = (i32, Request);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match std::mem::replace(&mut this.stage, Stage::Over) {
            Stage::New(request) => {
                let waker = WakerSlot::default();
                waker.register(context);
                let op = Op::Request { request, progress: Progress::Running(waker) };
                if let Some(key) = this.core.start(op) {
                    this.stage = Stage::Running(key);
                }
                Poll::Pending
            }
            Stage::Running(key) => {
                let mut operations = this.core.operations.borrow_mut();
                match operations.get_mut(key) {
                    Some(Op::Request { progress: Progress::Running(waker), .. }) => {
                        let displaced = waker.register(context);
                        this.stage = Stage::Running(key);
                        // Dropping a waker may drop its task, which may come back here.
                        drop(operations);
                        drop(displaced);
                        Poll::Pending
                    }
                    Some(Op::Request { progress: Progress::Done(result), .. }) => {
                        let result = *result;
                        match operations.remove(key) {
                            Some(Op::Request { request, .. }) => Poll::Ready((result, request)),
                            _ => unreachable!("just looked at"),
                        }
                    }
                    _ => unreachable!("a running request stays in the slab until it is collected"),
                }
            }
            Stage::Over => Poll::Pending,
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let Stage::Running(key) = self.stage else { return };
        let mut operations = self.core.operations.borrow_mut();
        if let Some(Op::Request { progress, .. }) = operations.get_mut(key) {
            if let Progress::Done(result) = *progress {
                let ended = operations.remove(key);
                drop(operations);
                if let Some(Op::Request { request, .. }) = ended {
                    request.discard(result);
                }
                return;
            }
            // The old waker is dropped after the borrow: it may be the last of its task.
            let old = std::mem::replace(progress, Progress::Abandoned);
            drop(operations);
            drop(old);
        }
    }
}

/// An error from a completion's result.
pub(crate) fn to_result(result: i32) -> io::Result<u32> {
    if result >= 0 { Ok(result as u32) } else { Err(io::Error::from_raw_os_error(-result)) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::task::Waker;

    use pinion_env::{AlignedBuf, PAGE_BYTES};

    use super::*;
    use crate::file::Descriptor;

    #[test]
    fn reads_of_files_go_to_the_kernel_in_fours() {
        let eventfd = sys::eventfd().expect("an eventfd");
        let core = Core::new(16, 8, 4096, eventfd.as_fd()).expect("a core");
        let path = std::env::current_exe().expect("this test is a file");
        let file = Descriptor::new(&core, std::fs::File::open(path).expect("it can be read").into());
        let read = || {
            let buffer = AlignedBuf::zeroed(PAGE_BYTES);
            Request::Read { file: Rc::clone(&file), buffer, range: 0..PAGE_BYTES, offset: 0 }
        };
        let mut context = Context::from_waker(Waker::noop());
        let mut reads: Vec<_> = (0..9).map(|_| Box::pin(Operation::new(&core, read()))).collect();
        for (number, read) in (1..).zip(&mut reads) {
            assert!(read.as_mut().poll(&mut context).is_pending());
            assert_eq!(core.has_unsubmitted(), number % 4 != 0, "after read {number}");
        }
        for read in &mut reads {
            let done = loop {
                match read.as_mut().poll(&mut context) {
                    Poll::Ready((result, _)) => break result,
                    Poll::Pending => core.turn(),
                };
            };
            assert_eq!(done, PAGE_BYTES as i32);
        }
        drop((reads, file));
        core.close();
    }
}
