//! Between cores: requests that another core owns, answers on their way back, and messages that
//! found a queue full.
//!
//! A forwarded request is the client's frame, copied; its answer is a whole frame too, which goes
//! into the client's connection unchanged, because it carries the client's request id already. So it is
//! with commands of RESP and their replies, which the connection puts in order. Parts of a request that
//! spans cores come back to a function instead.
//!
//! Bounds: at most `core_forwards_max` requests of a core are outstanding elsewhere. An outbox
//! holds what a core's queue did not take; answers and control messages only, so it is bounded by
//! the forwards of all cores.

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
use crate::watch::Elsewhere;

/// How long a full queue is left alone before it is tried again.
const OUTBOX_RETRY: Duration = Duration::from_micros(200);

/// What takes an answer that came by message.
pub(crate) type PartTaker<E> = Box<dyn FnOnce(&Rc<Core<E>>, Vec<u8>)>;

/// Who waits for an answer from another core.
pub(crate) enum Waiting<E: ServerEnv> {
    /// A request forwarded whole.
    Whole(Ticket),
    /// A part of a request.
    Part(PartTaker<E>),
    /// A report for server info.
    Report(Rc<Reports>),
}

/// The requests of a core that others are answering.
pub(crate) struct Awaited<E: ServerEnv> {
    slots: RefCell<Vec<(u32, Option<Waiting<E>>)>>,
    free: RefCell<Vec<u32>>,
    count: Cell<u32>,
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

    /// Enters one; the caller has checked the bound.
    pub(crate) fn insert(&self, waiting: Waiting<E>) -> Token {
        let mut slots = self.slots.borrow_mut();
        let slot = self.free.borrow_mut().pop().unwrap_or_else(|| {
            slots.push((0, None));
            u32::try_from(slots.len() - 1).expect("forwards are limited far below 2^32")
        });
        let entry = &mut slots[slot as usize];
        entry.1 = Some(waiting);
        self.count.set(self.count.get() + 1);
        Token { slot, generation: entry.0 }
    }

    /// Takes one out; `None` if the token is stale.
    pub(crate) fn take(&self, token: Token) -> Option<Waiting<E>> {
        let mut slots = self.slots.borrow_mut();
        let entry = slots.get_mut(token.slot as usize)?;
        if entry.0 != token.generation {
            return None;
        }
        let waiting = entry.1.take()?;
        entry.0 = entry.0.wrapping_add(1);
        self.free.borrow_mut().push(token.slot);
        self.count.set(self.count.get() - 1);
        Some(waiting)
    }
}

impl<E: ServerEnv> Core<E> {
    /// Sends a request to the core that owns it.
    pub(crate) fn forward(&self, core: u16, ticket: Ticket, header: Header, body: &[u8]) {
        if self.awaited.count() >= self.limits().core_forwards_max {
            self.refuse_overloaded(&ticket, "too many requests are being forwarded");
            return;
        }
        let mut copy = self.take_buffer();
        copy.extend_from_slice(body);
        let times = (ticket.received, ticket.deadline);
        self.forward_to(core, ForwardedKind::Frame(header), copy, times, Waiting::Whole(ticket));
    }

    /// Sends a command of RESP to the core that owns its key.
    pub(crate) fn forward_command(&self, core: u16, ticket: Ticket, command: &[u8]) {
        if self.awaited.count() >= self.limits().core_forwards_max {
            self.refuse_overloaded(&ticket, "too many requests are being forwarded");
            return;
        }
        let mut copy = self.take_buffer();
        copy.extend_from_slice(command);
        let times = (ticket.received, ticket.deadline);
        let kind = ForwardedKind::Command(ticket.resp_version());
        self.forward_to(core, kind, copy, times, Waiting::Whole(ticket));
    }

    /// Sends a command made for that core to it; `taker` gets the reply. The caller has made sure that
    /// there is room.
    pub(crate) fn forward_command_part(
        &self,
        core: u16,
        ticket: &Ticket,
        put: impl FnOnce(&mut Vec<u8>),
        taker: PartTaker<E>,
    ) {
        let mut command = self.take_buffer();
        put(&mut command);
        let times = (ticket.received, ticket.deadline);
        let kind = ForwardedKind::Command(ticket.resp_version());
        self.forward_to(core, kind, command, times, Waiting::Part(taker));
    }

    /// Sends a part of a request, made for that core, to it; `taker` gets the answer. The caller
    /// has made sure that there is room.
    ///
    /// # Errors
    /// The part does not fit a frame.
    pub(crate) fn forward_part(
        &self,
        core: u16,
        ticket: &Ticket,
        part: &Request<'_>,
        taker: PartTaker<E>,
    ) -> Result<(), ProtocolError> {
        let mut frame = self.take_buffer();
        part.encode(ticket.request_id, 0, 0, &mut frame)?;
        let header = Header::read(&frame)?.ok_or(ProtocolError::BadHeader("the frame is cut off"))?;
        frame.drain(..usize::from(header.header_bytes));
        let times = (ticket.received, ticket.deadline);
        self.forward_to(core, ForwardedKind::Frame(header), frame, times, Waiting::Part(taker));
        Ok(())
    }

    fn forward_to(
        &self,
        core: u16,
        kind: ForwardedKind,
        body: Vec<u8>,
        (received, deadline): (Monotonic, Option<Monotonic>),
        waiting: Waiting<E>,
    ) {
        add(&self.counters.forwarded, 1);
        let token = self.awaited.insert(waiting);
        let request = Forwarded { core: self.index, token, kind, body, received, deadline };
        self.post(core, Message::Request(request));
    }

    /// An answer has come back.
    pub(crate) fn on_answer(self: &Rc<Self>, token: Token, frame: Vec<u8>, seen: Option<Box<Elsewhere>>) {
        match self.awaited.take(token) {
            Some(Waiting::Whole(ticket)) => {
                self.trail_elsewhere(&ticket, seen);
                if self.refuse_full(&ticket) {
                    self.give_buffer(frame);
                } else {
                    self.answer_frame(&ticket, frame);
                }
            }
            Some(Waiting::Part(taker)) => taker(self, frame),
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
