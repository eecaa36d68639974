//! The connections of one core: what of a connection is reachable from outside its task.
//!
//! A connection's task owns its socket. Whoever completes a request finds the connection by slot
//! and generation, appends the answer to its out buffer and wakes the task, which sends all that
//! has gathered meanwhile at once. A slot's generation changes when the connection ends, so that
//! late answers find nobody.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::task::Waker;

use pinion_env::Monotonic;
use pinion_protocol::TraceParent;

use crate::counters::OperationClass;
use crate::resp::Replies;

/// Capacity for requests of different receipts that a connection keeps between sends.
const FINISHED_KEPT_MAX: usize = 256;

/// Names a connection of a core: its slot, and above it the slot's generation. One number, because
/// it is copied with every request: two halves, written apart and read as one, make the processor
/// wait until they have reached its cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionId(u64);

impl ConnectionId {
    fn new(slot: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(slot))
    }

    const fn slot(self) -> u32 {
        self.0 as u32
    }

    const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// Neither has begun.
    Nothing,
    Native,
    Resp2,
    Resp3,
}

impl Speaks {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "none yet",
            Self::Native => "native",
            Self::Resp2 => "resp2",
            Self::Resp3 => "resp3",
        }
    }
}

/// Who is at the other end.
#[derive(Debug, Default)]
pub(crate) struct Who {
    pub(crate) peer: String,
    /// What it calls itself; empty if it has not said so.
    pub(crate) name: String,
}

/// Requests that were answered and not sent yet: what they are counted under, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) class: OperationClass,
    pub(crate) namespace: u32,
    pub(crate) received: Monotonic,
    pub(crate) count: u32,
}

impl Finished {
    /// Whether both are counted alike.
    #[inline]
    fn is_like(&self, other: &Self) -> bool {
        self.received == other.received && self.class == other.class && self.namespace == other.namespace
    }
}

/// The shared part of a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    /// Unique within the node.
    pub(crate) number: u64,
    pub(crate) since: Monotonic,
    pub(crate) who: RefCell<Who>,
    pub(crate) speaks: Cell<Speaks>,
    /// When bytes came last.
    pub(crate) heard: Cell<Monotonic>,
    /// Requests whose answers have been sent, or are being sent.
    pub(crate) answered: Cell<u64>,
    /// The traces of its requests without an answer, by request id; there once one has come with a trace.
    pub(crate) traces: OnceCell<Box<RefCell<HashMap<u64, TraceParent>>>>,
    /// Answers not sent yet.
    pub(crate) out: RefCell<Vec<u8>>,
    /// Requests without an answer.
    pub(crate) requests: Cell<u32>,
    /// Requests answered since the last send.
    finished: RefCell<Vec<Finished>>,
    /// The connection's task. Not woken while it is running, when it looks at the out buffer anyway, or
    /// while a send is in flight: see [`Connection::sent`].
    waker: RefCell<Option<Waker>>,
    awake: Cell<bool>,
    /// The task waits for the end of the send in flight, whether there are more answers then or not.
    wants_sent: Cell<bool>,
    /// The task waits for a chunk and has nothing left that came before it.
    wants_chunk: Cell<bool>,
    /// While HELLO is outstanding: when it is too late.
    hello_until: Cell<Option<Monotonic>>,
    /// To be closed at once.
    doomed: Cell<bool>,
    /// Bytes of answers that are being sent, and since when.
    pub(crate) sending_bytes: Cell<usize>,
    pub(crate) sending_since: Cell<Monotonic>,
    /// The list that the send in flight gives back: one allocation for the connection's life.
    pub(crate) send_list: RefCell<Vec<Vec<u8>>>,
    /// What of the bytes that wait here is in the core's sum (see `pressure`).
    pub(crate) counted_bytes: Cell<usize>,
    /// Bytes of a frame that is not complete, and when it began.
    pub(crate) gathered_bytes: Cell<usize>,
    pub(crate) gathering_since: Cell<Monotonic>,
    /// Its incomplete frame has to go.
    evicted: Cell<bool>,
    /// Of a RESP connection: the order of its answers.
    pub(crate) replies: OnceCell<Box<RefCell<Replies>>>,
}

impl Connection {
    /// Notes an answered request, to be timed when the answer's send starts.
    #[inline]
    pub(crate) fn finish(&self, class: OperationClass, namespace: u32, received: Monotonic) {
        self.requests.set(self.requests.get().saturating_sub(1));
        self.finish_at_once(Finished { class, namespace, received, count: 1 });
    }

    /// As [`Connection::finish`] for requests received together that were never outstanding.
    #[inline]
    pub(crate) fn finish_at_once(&self, run: Finished) {
        let mut finished = self.finished.borrow_mut();
        match finished.last_mut() {
            Some(last) if last.is_like(&run) => last.count += run.count,
            _ => finished.push(run),
        }
    }

    /// Hands out and forgets what [`Connection::finish`] noted.
    pub(crate) fn take_finished(&self, mut visit: impl FnMut(&Finished)) {
        let mut finished = self.finished.borrow_mut();
        let mut answered = 0;
        finished.drain(..).for_each(|run| {
            answered += u64::from(run.count);
            visit(&run);
        });
        self.answered.set(self.answered.get() + answered);
        // A turn may finish requests of many receipts; idle connections keep little.
        if finished.capacity() > FINISHED_KEPT_MAX {
            *finished = Vec::new();
        }
    }

    /// Says who is at the other end.
    pub(crate) fn introduce(&self, speaks: Speaks, peer: String, name: String) {
        self.speaks.set(speaks);
        *self.who.borrow_mut() = Who { peer, name };
    }

    /// Remembers the trace of a request until its answer.
    pub(crate) fn keep_trace(&self, request_id: u64, trace: TraceParent) {
        self.traces.get_or_init(Box::default).borrow_mut().insert(request_id, trace);
    }

    /// The trace of a request that is answered.
    pub(crate) fn take_trace(&self, request_id: u64) -> Option<TraceParent> {
        self.traces.get()?.borrow_mut().remove(&request_id)
    }

    /// Lets the connection's task run unless it will anyway.
    pub(crate) fn touch(&self) {
        if !self.awake.replace(true)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }

    /// The task runs: it need not be woken until [`Connection::rest`].
    pub(crate) fn run(&self, waker: &Waker) {
        self.awake.set(true);
        let mut slot = self.waker.borrow_mut();
        if !slot.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }

    /// The task is about to wait. `sending`: a send is in flight, and there is no use for answers before
    /// it has ended. `wants_sent`: its end runs the task in any case. `wants_chunk`: nothing is left that came
    /// before the next chunk.
    pub(crate) fn rest(&self, sending: bool, wants_sent: bool, wants_chunk: bool) {
        self.awake.set(sending);
        self.wants_sent.set(wants_sent);
        self.wants_chunk.set(wants_chunk && !wants_sent);
    }

    /// Whether a chunk that comes now finds nothing before it that was received and not looked at, and no answer
    /// that waits to be sent.
    pub(crate) fn wants_chunk(&self) -> bool {
        self.wants_chunk.get() && !self.awake.get() && !self.is_doomed() && !self.is_evicted()
    }

    /// A send starts, and the task has not run for it.
    pub(crate) fn send_without_task(&self) {
        self.awake.set(true);
    }

    /// The send in flight has ended: the task runs if it has been waiting for that, or if answers have
    /// gathered meanwhile, or if it `must`.
    pub(crate) fn sent(&self, must: bool) {
        let runs = must || self.wants_sent.get() || !self.out.borrow().is_empty();
        self.awake.set(runs);
        if runs && let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Whether a send is in flight.
    pub(crate) fn is_sending(&self) -> bool {
        self.sending_bytes.get() > 0
    }

    /// Closes the connection at the next chance.
    pub(crate) fn doom(&self) {
        self.doomed.set(true);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Bytes of answers that wait or are being sent.
    pub(crate) fn held_bytes(&self) -> usize {
        let before_their_turn = self.replies.get().map_or(0, |replies| replies.borrow().held_bytes());
        self.out.borrow().len() + self.sending_bytes.get() + before_their_turn
    }

    /// Its incomplete frame has to go: the connection's task is to say so and to end.
    pub(crate) fn evict(&self) {
        self.evicted.set(true);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Whether [`Connection::evict`] was called.
    pub(crate) fn is_evicted(&self) -> bool {
        self.evicted.get()
    }

    pub(crate) fn is_doomed(&self) -> bool {
        self.doomed.get()
    }

    pub(crate) fn expect_hello(&self, until: Monotonic) {
        self.hello_until.set(Some(until));
    }

    pub(crate) fn hello_done(&self) {
        self.hello_until.set(None);
    }
}

/// The connections of a core.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<u32>>,
    open: Cell<u32>,
    /// How many there have been.
    made: Cell<u64>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    connection: Option<Rc<Connection>>,
}

impl Connections {
    /// Makes room for one more. The caller checks the limit with [`Connections::open`]. They are numbered
    /// from `first` on in steps of `step`.
    pub(crate) fn insert(&self, (first, step): (u64, u64), now: Monotonic) -> Rc<Connection> {
        let mut slots = self.slots.borrow_mut();
        let slot = self.free.borrow_mut().pop().unwrap_or_else(|| {
            slots.push(Slot::default());
            u32::try_from(slots.len() - 1).expect("connections are limited far below 2^32")
        });
        let entry = &mut slots[slot as usize];
        let made = self.made.replace(self.made.get() + 1);
        let connection = Rc::new(Connection {
            id: ConnectionId::new(slot, entry.generation),
            number: first + made * step,
            since: now,
            who: RefCell::default(),
            speaks: Cell::new(Speaks::Nothing),
            heard: Cell::new(now),
            answered: Cell::new(0),
            traces: OnceCell::new(),
            out: RefCell::default(),
            requests: Cell::new(0),
            finished: RefCell::default(),
            waker: RefCell::default(),
            awake: Cell::new(false),
            wants_sent: Cell::new(false),
            wants_chunk: Cell::new(false),
            hello_until: Cell::new(None),
            doomed: Cell::new(false),
            sending_bytes: Cell::new(0),
            sending_since: Cell::default(),
            send_list: RefCell::default(),
            counted_bytes: Cell::new(0),
            gathered_bytes: Cell::new(0),
            gathering_since: Cell::default(),
            evicted: Cell::new(false),
            replies: OnceCell::new(),
        });
        entry.connection = Some(Rc::clone(&connection));
        self.open.set(self.open.get() + 1);
        connection
    }

    /// Forgets a connection: answers that are still to come are dropped.
    pub(crate) fn remove(&self, id: ConnectionId) {
        let mut slots = self.slots.borrow_mut();
        let Some(entry) = slots.get_mut(id.slot() as usize) else { return };
        if entry.generation == id.generation() && entry.connection.take().is_some() {
            entry.generation = entry.generation.wrapping_add(1);
            self.free.borrow_mut().push(id.slot());
            self.open.set(self.open.get() - 1);
        }
    }

    /// Calls `visit` with the connection if it is still there.
    pub(crate) fn with<R>(&self, id: ConnectionId, visit: impl FnOnce(&Connection) -> R) -> Option<R> {
        let slots = self.slots.borrow();
        let entry = slots.get(id.slot() as usize)?;
        if entry.generation != id.generation() {
            return None;
        }
        entry.connection.as_deref().map(visit)
    }

    /// How many are open.
    pub(crate) fn open(&self) -> u32 {
        self.open.get()
    }

    /// Calls `visit` with each.
    pub(crate) fn for_each(&self, visit: impl FnMut(&Connection)) {
        self.slots.borrow().iter().filter_map(|slot| slot.connection.as_deref()).for_each(visit);
    }

    /// Dooms those whose HELLO is overdue; returns how many, and whether any is still waited for.
    pub(crate) fn doom_overdue(&self, now: Monotonic) -> (u64, bool) {
        let (mut doomed, mut waiting) = (0, false);
        self.for_each(|connection| match connection.hello_until.get() {
            Some(until) if until > now => waiting = true,
            Some(_) if !connection.is_doomed() => {
                doomed += 1;
                connection.doom();
            }
            _ => {}
        });
        (doomed, waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(connections: &Connections) -> Rc<Connection> {
        connections.insert((1, 1), Monotonic::default())
    }

    #[test]
    fn late_answers_find_nobody() {
        let connections = Connections::default();
        let first = insert(&connections);
        assert_eq!(connections.with(first.id, |found| found.id), Some(first.id));
        connections.remove(first.id);
        connections.remove(first.id);
        assert_eq!(connections.with(first.id, |found| found.id), None);
        let second = insert(&connections);
        assert_eq!(second.id.slot(), first.id.slot());
        assert_ne!(second.id, first.id);
        assert_eq!(connections.with(first.id, |found| found.id), None);
        assert_eq!(connections.open(), 1);
    }

    #[test]
    fn equal_receipts_are_timed_together() {
        let connections = Connections::default();
        let connection = insert(&connections);
        connection.requests.set(5);
        let (early, late) = (Monotonic::from_nanos(5), Monotonic::from_nanos(9));
        for (class, namespace, received) in [
            (OperationClass::Read, 0, early),
            (OperationClass::Read, 0, early),
            (OperationClass::Read, 1, early),
            (OperationClass::Write, 1, early),
            (OperationClass::Write, 1, late),
        ] {
            connection.finish(class, namespace, received);
        }
        let mut seen = Vec::new();
        connection.take_finished(|run| seen.push((run.class, run.namespace, run.received, run.count)));
        let expected = [
            (OperationClass::Read, 0, early, 2),
            (OperationClass::Read, 1, early, 1),
            (OperationClass::Write, 1, early, 1),
            (OperationClass::Write, 1, late, 1),
        ];
        assert_eq!(seen, expected);
        assert_eq!((connection.requests.get(), connection.answered.get()), (0, 5));
    }

    #[test]
    fn traces_are_kept_until_they_are_taken() {
        let connection = insert(&Connections::default());
        assert_eq!(connection.take_trace(1), None);
        let trace = TraceParent { trace_id: [1; 16], parent_id: [2; 8], flags: 0 };
        connection.keep_trace(1, trace);
        assert_eq!((connection.take_trace(2), connection.take_trace(1)), (None, Some(trace)));
        assert_eq!(connection.take_trace(1), None);
    }

    #[test]
    fn connections_of_two_cores_have_numbers_of_their_own() {
        let (here, there) = (Connections::default(), Connections::default());
        let numbers = [(&here, 1), (&there, 2), (&here, 1), (&there, 2)]
            .map(|(connections, first)| connections.insert((first, 2), Monotonic::default()).number);
        assert_eq!(numbers, [1, 2, 3, 4]);
    }

    #[test]
    fn only_overdue_hellos_are_doomed() {
        let connections = Connections::default();
        let [slow, fresh, done] = [(); 3].map(|()| insert(&connections));
        slow.expect_hello(Monotonic::from_nanos(10));
        fresh.expect_hello(Monotonic::from_nanos(20));
        done.expect_hello(Monotonic::from_nanos(10));
        done.hello_done();
        assert_eq!(connections.doom_overdue(Monotonic::from_nanos(10)), (1, true));
        assert!(slow.is_doomed() && !fresh.is_doomed() && !done.is_doomed());
        assert_eq!(connections.doom_overdue(Monotonic::from_nanos(30)), (1, false));
    }
}
