//! Between cores: requests that another core owns, answers on their way back, and messages that
//! found a queue full.
//!
//! A forwarded request is the client's frame, copied; its answer is a whole frame too, which goes
//! into the client's connection unchanged, because it carries the client's request id already. So it is
//! with commands of RESP and their replies, which the connection puts in order. Parts of a request that
//! spans cores come back to a function instead.
//!
//! The front of a key stays behind: should its request be slow in the end, that may have become so on
//! the way back, when its owner knows no more of it.
//!
//! Bounds: at most `core_forwards_max` requests of a core are outstanding elsewhere, each with the front of
//! a key. An outbox holds what a core's queue did not take; answers and control messages only, so it is
//! bounded by the forwards of all cores.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use pinion_env::{Monotonic, NodeEnv, TaskClass};
use pinion_protocol::{Header, ProtocolError, Request};

use crate::coordinator::{self, Arrival};
use crate::core::{Core, ReplyTo, Ticket};
use crate::counters::add;
use crate::group::Moment;
use crate::info::Reports;
use crate::message::{CoreMessage, Forwarded, ForwardedKind, Message, ServerEnv, Token};
use crate::resp;
use crate::watch::{KeyFront, KeyPlace};

/// How long a full queue is left alone before it is tried again.
const OUTBOX_RETRY: Duration = Duration::from_micros(200);

/// What takes an answer that came by message.
pub(crate) type PartTaker<E> = Box<dyn FnOnce(&Rc<Core<E>>, Vec<u8>)>;

/// Who waits for an answer from another core.
pub(crate) enum Waiting<E: ServerEnv> {
    /// A request forwarded whole.
    Whole(Ticket),
    /// A part of the request of this ticket.
    Part(Ticket, PartTaker<E>),
    /// A report for server info.
    Report(Rc<Reports>),
}

/// The requests of a core that others are answering.
pub(crate) struct Awaited<E: ServerEnv> {
    slots: RefCell<Vec<Slot<E>>>,
    free: RefCell<Vec<u32>>,
    count: Cell<u32>,
}

struct Slot<E: ServerEnv> {
    generation: u32,
    waiting: Option<Waiting<E>>,
    /// Which key its request is about, or the first of several: the shard, and the front in memory that
    /// the slot's next request uses again.
    shard: Option<u16>,
    front: KeyFront,
}

impl<E: ServerEnv> Default for Awaited<E> {
    fn default() -> Self {
        Self { slots: RefCell::default(), free: RefCell::default(), count: Cell::new(0) }
    }
}

impl<E: ServerEnv> Awaited<E> {
    /// How many are outstanding.
    pub(crate) fn count(&self) -> u32 {
        self.count.get()
    }

    /// Enters one with the key that it is about; the caller has checked the bound.
    pub(crate) fn insert(&self, waiting: Waiting<E>, key: Option<KeyPlace<'_>>) -> Token {
        let mut slots = self.slots.borrow_mut();
        let slot = self.free.borrow_mut().pop().unwrap_or_else(|| {
            slots.push(Slot { generation: 0, waiting: None, shard: None, front: KeyFront::default() });
            u32::try_from(slots.len() - 1).expect("forwards are limited far below 2^32")
        });
        let entry = &mut slots[slot as usize];
        entry.waiting = Some(waiting);
        entry.shard = key.map(|key| key.shard);
        entry.front.set(key.map_or(&[], |key| key.user));
        self.count.set(self.count.get() + 1);
        Token { slot, generation: entry.generation }
    }

    /// Takes one out; `None` if the token is stale.
    pub(crate) fn take(&self, token: Token) -> Option<Waiting<E>> {
        let mut slots = self.slots.borrow_mut();
        let entry = slots.get_mut(token.slot as usize)?;
        if entry.generation != token.generation {
            return None;
        }
        let waiting = entry.waiting.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.borrow_mut().push(token.slot);
        self.count.set(self.count.get() - 1);
        Some(waiting)
    }

    /// Which key the request was about that was taken out of a slot last; its next one overwrites that.
    fn key_of(&self, slot: u32) -> Option<(u16, KeyFront)> {
        let slots = self.slots.borrow();
        let entry = slots.get(slot as usize)?;
        Some((entry.shard?, entry.front.clone()))
    }
}

impl<E: ServerEnv> Core<E> {
    /// Sends a request to the core that owns it, for it is about this key.
    pub(crate) fn forward(
        &self,
        core: u16,
        ticket: Ticket,
        (header, body): (&Header, &[u8]),
        key: Option<KeyPlace<'_>>,
    ) {
        if self.awaited.count() >= self.limits().core_forwards_max {
            self.refuse_overloaded(&ticket, "too many requests are being forwarded");
            return;
        }
        let mut copy = self.take_buffer();
        copy.extend_from_slice(body);
        let times = (ticket.received, ticket.deadline);
        let token = self.awaited.insert(Waiting::Whole(ticket), key);
        self.forward_to(core, ForwardedKind::Frame(*header), copy, times, token);
    }

    /// Sends a command of RESP to the core that owns its key, or what else it is about.
    pub(crate) fn forward_command(
        &self,
        core: u16,
        ticket: Ticket,
        command: &[u8],
        key: Option<KeyPlace<'_>>,
    ) {
        if self.awaited.count() >= self.limits().core_forwards_max {
            self.refuse_overloaded(&ticket, "too many requests are being forwarded");
            return;
        }
        let mut copy = self.take_buffer();
        copy.extend_from_slice(command);
        let times = (ticket.received, ticket.deadline);
        let kind = ForwardedKind::Command(ticket.resp_version());
        let token = self.awaited.insert(Waiting::Whole(ticket), key);
        self.forward_to(core, kind, copy, times, token);
    }

    /// Sends a command made for that core to it; `taker` gets the reply. `first`: the first of its keys.
    /// The caller has made sure that there is room.
    pub(crate) fn forward_command_part(
        &self,
        core: u16,
        ticket: &Ticket,
        put: impl FnOnce(&mut Vec<u8>),
        first: Option<KeyPlace<'_>>,
        taker: PartTaker<E>,
    ) {
        let mut command = self.take_buffer();
        put(&mut command);
        let times = (ticket.received, ticket.deadline);
        let kind = ForwardedKind::Command(ticket.resp_version());
        let token = self.awaited.insert(Waiting::Part(*ticket, taker), first);
        self.forward_to(core, kind, command, times, token);
    }

    /// Sends a part of a request, made for that core, to it; `taker` gets the answer. `first`: the first
    /// of its keys. The caller has made sure that there is room.
    ///
    /// # Errors
    /// The part does not fit a frame.
    pub(crate) fn forward_part(
        &self,
        core: u16,
        ticket: &Ticket,
        part: &Request<'_>,
        first: Option<KeyPlace<'_>>,
        taker: PartTaker<E>,
    ) -> Result<(), ProtocolError> {
        let mut frame = self.take_buffer();
        part.encode(ticket.request_id, 0, 0, &mut frame)?;
        let header = Header::read(&frame)?.ok_or(ProtocolError::BadHeader("the frame is cut off"))?;
        frame.drain(..usize::from(header.header_bytes));
        let times = (ticket.received, ticket.deadline);
        let token = self.awaited.insert(Waiting::Part(*ticket, taker), first);
        self.forward_to(core, ForwardedKind::Frame(header), frame, times, token);
        Ok(())
    }

    fn forward_to(
        &self,
        core: u16,
        kind: ForwardedKind,
        body: Vec<u8>,
        (received, deadline): (Monotonic, Option<Monotonic>),
        token: Token,
    ) {
        add(&self.counters.forwarded, 1);
        let request = Forwarded { core: self.index, token, kind, body, received, deadline };
        self.post(core, Message::Request(request));
    }

    /// An answer has come back; making it took so long there.
    pub(crate) fn on_answer(self: &Rc<Self>, token: Token, frame: Vec<u8>, took: Duration) {
        let key = || self.awaited.key_of(token.slot);
        match self.awaited.take(token) {
            Some(Waiting::Whole(ticket)) => {
                self.trail_back(&ticket, key, Some(took));
                if self.refuse_full(&ticket) {
                    self.give_buffer(frame);
                } else {
                    self.answer_frame(&ticket, frame);
                }
            }
            Some(Waiting::Part(ticket, taker)) => {
                // Parts run beside each other, so the time of one says nothing of the whole.
                self.trail_back(&ticket, key, None);
                taker(self, frame);
            }
            // A stale token, or an answer of the wrong kind: nobody waits for it.
            Some(Waiting::Report(_)) | None => {}
        }
    }

    /// A request that another core forwarded has come.
    pub(crate) fn on_forwarded(self: &Rc<Self>, request: Forwarded) {
        add(&self.counters.forwarded_here, 1);
        let reply = ReplyTo::Core { core: request.core, token: request.token };
        let Forwarded { kind, body, received, deadline, .. } = request;
        match kind {
            ForwardedKind::Frame(header) => {
                let now = self.tick();
                let ticket = Ticket::new(reply, (&header, &body), Moment { received, now }, deadline);
                let arrival = Arrival { ticket, header, body: &body, now, get: None };
                coordinator::arrive(self, &arrival);
            }
            ForwardedKind::Command(version) => {
                resp::arrive(self, reply, version, &body, (received, deadline));
            }
        }
        self.give_buffer(body);
    }
}

/// Messages that did not fit the queue of their core.
pub(crate) struct Outboxes<E: ServerEnv> {
    to: Vec<Rc<Outbox<E>>>,
}

struct Outbox<E: ServerEnv> {
    waiting: RefCell<VecDeque<CoreMessage<<E as NodeEnv>::Handoff>>>,
}

impl<E: ServerEnv> Outboxes<E> {
    pub(crate) fn new(cores: u16) -> Self {
        Self { to: (0..cores).map(|_| Rc::new(Outbox { waiting: RefCell::default() })).collect() }
    }

    /// Sends, or queues behind what waits already. Order is kept.
    pub(crate) fn post(&self, core: &Core<E>, to: u16, message: Message<<E as NodeEnv>::Handoff>) {
        let Some(outbox) = self.to.get(usize::from(to)) else { return };
        let message = CoreMessage(message);
        if !outbox.waiting.borrow().is_empty() {
            add(&core.counters.messages_delayed, 1);
            outbox.waiting.borrow_mut().push_back(message);
            return;
        }
        let Err(message) = core.env.send(usize::from(to), message) else { return };
        add(&core.counters.messages_delayed, 1);
        outbox.waiting.borrow_mut().push_back(message);
        let (env, outbox) = (core.env.clone(), Rc::clone(outbox));
        core.env.spawn(TaskClass::Foreground, async move { drain(&env, &outbox, usize::from(to)).await });
    }

    /// Whether nothing waits for room in another core's queue.
    pub(crate) fn are_empty(&self) -> bool {
        self.to.iter().all(|outbox| outbox.waiting.borrow().is_empty())
    }
}

/// Sends what waits, in order; ends when nothing is left.
async fn drain<E: ServerEnv>(env: &E, outbox: &Outbox<E>, to: usize) {
    loop {
        env.sleep(OUTBOX_RETRY).await;
        loop {
            let Some(message) = outbox.waiting.borrow_mut().pop_front() else { return };
            if let Err(message) = env.send(to, message) {
                outbox.waiting.borrow_mut().push_front(message);
                break;
            }
        }
    }
}
