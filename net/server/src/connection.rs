//! The connections of one core: what of a connection is reachable from outside its task.
//!
//! A connection's task owns its socket. Whoever completes a request finds the connection by slot
//! and generation, appends the answer to its out buffer and wakes the task, which sends all that
//! has gathered meanwhile at once. A slot's generation changes when the connection ends, so that
//! late answers find nobody.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use pinion_env::Monotonic;

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

/// The shared part of a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    /// Answers not sent yet.
    pub(crate) out: RefCell<Vec<u8>>,
    /// Requests without an answer.
    pub(crate) requests: Cell<u32>,
    /// Requests answered since the last send: class, time of receipt, how many alike.
    finished: RefCell<Vec<(OperationClass, Monotonic, u32)>>,
    /// The connection's task. Not woken while it is running or while a send is in flight: it looks
    /// at the out buffer anyway then.
    waker: RefCell<Option<Waker>>,
    awake: Cell<bool>,
    /// While HELLO is outstanding: when it is too late.
    hello_until: Cell<Option<Monotonic>>,
    /// To be closed at once.
    doomed: Cell<bool>,
    /// Bytes of answers that are being sent, and since when.
    pub(crate) sending_bytes: Cell<usize>,
    pub(crate) sending_since: Cell<Monotonic>,
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
    pub(crate) fn finish(&self, class: OperationClass, received: Monotonic) {
        self.requests.set(self.requests.get().saturating_sub(1));
        self.finish_at_once(class, received, 1);
    }

    /// As [`Connection::finish`] for requests received together that were never outstanding.
    pub(crate) fn finish_at_once(&self, class: OperationClass, received: Monotonic, requests: u32) {
        let mut finished = self.finished.borrow_mut();
        match finished.last_mut() {
            Some((last, time, count)) if *last == class && *time == received => *count += requests,
            _ => finished.push((class, received, requests)),
        }
    }

    /// Hands out and forgets what [`Connection::finish`] noted.
    pub(crate) fn take_finished(&self, mut visit: impl FnMut(OperationClass, Monotonic, u32)) {
        let mut finished = self.finished.borrow_mut();
        finished.drain(..).for_each(|(class, received, count)| visit(class, received, count));
        // A turn may finish requests of many receipts; idle connections keep little.
        if finished.capacity() > FINISHED_KEPT_MAX {
            *finished = Vec::new();
        }
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

    /// The task is about to wait. `sending`: a send is in flight and its end will run the task, which
    /// has no use for answers before.
    pub(crate) fn rest(&self, sending: bool) {
        self.awake.set(sending);
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
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    connection: Option<Rc<Connection>>,
}

impl Connections {
    /// Makes room for one more. The caller checks the limit with [`Connections::open`].
    pub(crate) fn insert(&self) -> Rc<Connection> {
        let mut slots = self.slots.borrow_mut();
        let slot = self.free.borrow_mut().pop().unwrap_or_else(|| {
            slots.push(Slot::default());
            u32::try_from(slots.len() - 1).expect("connections are limited far below 2^32")
        });
        let entry = &mut slots[slot as usize];
        let connection = Rc::new(Connection {
            id: ConnectionId::new(slot, entry.generation),
            out: RefCell::default(),
            requests: Cell::new(0),
            finished: RefCell::default(),
            waker: RefCell::default(),
            awake: Cell::new(false),
            hello_until: Cell::new(None),
            doomed: Cell::new(false),
            sending_bytes: Cell::new(0),
            sending_since: Cell::default(),
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

    #[test]
    fn late_answers_find_nobody() {
        let connections = Connections::default();
        let first = connections.insert();
        assert_eq!(connections.with(first.id, |found| found.id), Some(first.id));
        connections.remove(first.id);
        connections.remove(first.id);
        assert_eq!(connections.with(first.id, |found| found.id), None);
        let second = connections.insert();
        assert_eq!(second.id.slot(), first.id.slot());
        assert_ne!(second.id, first.id);
        assert_eq!(connections.with(first.id, |found| found.id), None);
        assert_eq!(connections.open(), 1);
    }

    #[test]
    fn equal_receipts_are_timed_together() {
        let connections = Connections::default();
        let connection = connections.insert();
        connection.requests.set(3);
        let (early, late) = (Monotonic::from_nanos(5), Monotonic::from_nanos(9));
        connection.finish(OperationClass::Read, early);
        connection.finish(OperationClass::Read, early);
        connection.finish(OperationClass::Read, late);
        let mut seen = Vec::new();
        connection.take_finished(|class, time, count| seen.push((class, time, count)));
        assert_eq!(seen, [(OperationClass::Read, early, 2), (OperationClass::Read, late, 1)]);
        assert_eq!(connection.requests.get(), 0);
    }

    #[test]
    fn only_overdue_hellos_are_doomed() {
        let connections = Connections::default();
        let (slow, fresh, done) = (connections.insert(), connections.insert(), connections.insert());
        slow.expect_hello(Monotonic::from_nanos(10));
        fresh.expect_hello(Monotonic::from_nanos(20));
        done.expect_hello(Monotonic::from_nanos(10));
        done.hello_done();
        assert_eq!(connections.doom_overdue(Monotonic::from_nanos(10)), (1, true));
        assert!(slow.is_doomed() && !fresh.is_doomed() && !done.is_doomed());
        assert_eq!(connections.doom_overdue(Monotonic::from_nanos(30)), (1, false));
    }
}
