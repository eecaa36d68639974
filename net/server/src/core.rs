//! The state of one core of a node, and how requests are counted in and answered out.
//!
//! Everything here belongs to one thread. A request is a [`Ticket`] from its receipt to its
//! answer; it is counted in by [`Core::begin`] and out by [`Core::answer`], exactly once each, so
//! that draining at shutdown and the bounds on requests are exact.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pinion_engine::{HybridTime, Identity, Options, Shard};
use pinion_env::Monotonic;
use pinion_protocol::resp::RespVersion;
use pinion_protocol::{Header, Opcode, Response};

use crate::config::{Limits, ServerConfig};
use crate::connection::{ConnectionId, Connections};
use crate::counters::{Counters, Latencies, OperationClass, add};
use crate::forward::{Awaited, Outboxes};
use crate::group::Moment;
use crate::layout::Layout;
use crate::message::{Message, NodeFacts, ServerEnv, Token};
use crate::namespaces::{CatalogueQueue, NamespaceTable};
use crate::pressure::Pressure;
use crate::prompt::Arrivals;
use crate::refusal::{MAP_EPOCH, Refusal};
use crate::resp::{self, RespCore, Then};
use crate::watch::{self, Listener, Watch};
use crate::write::WriteWaiter;

/// The namespace of requests that are about none.
pub(crate) const NO_NAMESPACE: u32 = u32::MAX;

/// A shard as the server holds it.
pub(crate) type CoreShard<E> = Shard<E, WriteWaiter<E>>;

/// Where an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyTo {
    /// Into the out buffer of a connection of this core.
    Connection(ConnectionId),
    /// By message to the core that forwarded the request.
    Core {
        /// That core.
        core: u16,
        /// Its name for the request.
        token: Token,
    },
}

/// In which words a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// A frame, in any order.
    Native,
    /// A reply of RESP, in the order of commands; a write's says this of it.
    Resp(RespVersion, Then),
}

/// What goes with a request until its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    pub(crate) reply: ReplyTo,
    pub(crate) dialect: Dialect,
    /// The opcode's number, known or not; of a command its number in the table of commands.
    pub(crate) opcode: u8,
    /// What it is counted under.
    pub(crate) class: OperationClass,
    /// As the request says it, live or not; or [`NO_NAMESPACE`].
    pub(crate) namespace: u32,
    /// From its receipt until it was dealt with, in units of 1,024 ns.
    queued: u32,
    /// The client's; of a command its place in the order of its connection.
    pub(crate) request_id: u64,
    /// When its bytes were received.
    pub(crate) received: Monotonic,
    /// When it is too late.
    pub(crate) deadline: Option<Monotonic>,
}

impl Ticket {
    /// Of a request with this header and body that is dealt with now.
    #[inline]
    pub(crate) fn new(
        reply: ReplyTo,
        (header, body): (&Header, &[u8]),
        Moment { received, now }: Moment,
        deadline: Option<Monotonic>,
    ) -> Self {
        let Header { opcode, request_id, .. } = *header;
        let class = Opcode::from_u8(opcode).map_or(OperationClass::Other, OperationClass::of);
        // What is about keys begins with their namespace.
        let namespace = match body.first_chunk() {
            Some(bytes) if class != OperationClass::Other => u32::from_le_bytes(*bytes),
            _ => NO_NAMESPACE,
        };
        let queued = queued(received, now);
        let dialect = Dialect::Native;
        Self { reply, dialect, opcode, class, namespace, queued, request_id, received, deadline }
    }

    /// Of a GET that was answered in a group.
    pub(crate) fn of_get(
        reply: ReplyTo,
        namespace: u32,
        request_id: u64,
        Moment { received, now }: Moment,
    ) -> Self {
        let (opcode, class) = (Opcode::Get.to_u8(), OperationClass::Read);
        let (dialect, queued, deadline) = (Dialect::Native, queued(received, now), None);
        Self { reply, dialect, opcode, class, namespace, queued, request_id, received, deadline }
    }

    /// Of a command of RESP that is dealt with now.
    #[inline]
    pub(crate) fn of_command(
        reply: ReplyTo,
        version: RespVersion,
        (opcode, class, namespace): (u8, OperationClass, u32),
        request_id: u64,
        Moment { received, now }: Moment,
        deadline: Option<Monotonic>,
    ) -> Self {
        let (dialect, queued) = (Dialect::Resp(version, Then::Ok), queued(received, now));
        Self { reply, dialect, opcode, class, namespace, queued, request_id, received, deadline }
    }

    /// From its receipt until it was dealt with.
    pub(crate) fn queued(&self) -> Duration {
        Duration::from_nanos(u64::from(self.queued) << 10)
    }

    /// The version of RESP to answer in, for answers that only commands have.
    pub(crate) const fn resp_version(&self) -> RespVersion {
        match self.dialect {
            Dialect::Resp(version, _) => version,
            Dialect::Native => RespVersion::Two,
        }
    }
}

fn queued(received: Monotonic, now: Monotonic) -> u32 {
    let units = now.nanos().saturating_sub(received.nanos()) >> 10;
    u32::try_from(units).unwrap_or(u32::MAX)
}

/// How far a core's stopping has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Requests are taken.
    Serving,
    /// New requests are refused; those under way go on.
    Stopping,
    /// Connections end.
    Ending,
}

/// One core of a node.
pub(crate) struct Core<E: ServerEnv> {
    pub(crate) env: E,
    pub(crate) config: Arc<ServerConfig>,
    /// The engine's options, the same for every shard.
    pub(crate) options: Options,
    pub(crate) facts: Arc<NodeFacts>,
    pub(crate) layout: Layout,
    pub(crate) index: u16,
    first_shard: u16,
    shards: Vec<CoreShard<E>>,
    pub(crate) namespaces: RefCell<Arc<NamespaceTable>>,
    /// On core 0 only: the catalogue's file and the changes that wait for it.
    pub(crate) catalogue: Option<CatalogueQueue<E>>,
    pub(crate) listener: E::Listener,
    pub(crate) connections: Connections,
    pub(crate) counters: Counters,
    pub(crate) latencies: Latencies,
    pub(crate) awaited: Awaited<E>,
    pub(crate) outboxes: Outboxes<E>,
    buffers: RefCell<Vec<Vec<u8>>>,
    pub(crate) arrivals: Arrivals,
    cursor_seal: u64,
    /// The largest hybrid time that went through this core: answers carry it, so that clients can
    /// follow without a look at the shard's clock.
    pub(crate) stamp_seen: Cell<HybridTime>,
    requests: Cell<u32>,
    /// Reads of tables under way.
    reads: Cell<u32>,
    pub(crate) pressure: Pressure,
    pub(crate) phase: Cell<Phase>,
    pub(crate) drained_cores: Cell<u16>,
    pub(crate) hello_watch: Cell<bool>,
    pub(crate) resp: RespCore,
    pub(crate) watch: Watch,
}

impl<E: ServerEnv> Core<E> {
    /// The core of `env`, with its shards open.
    pub(crate) fn new(
        env: E,
        config: Arc<ServerConfig>,
        options: Options,
        facts: Arc<NodeFacts>,
        layout: Layout,
        shards: Vec<CoreShard<E>>,
        catalogue: Option<CatalogueQueue<E>>,
    ) -> Rc<Self> {
        let index = env.core() as u16;
        Rc::new(Self {
            layout,
            index,
            first_shard: layout.shards_of(index).start,
            shards,
            namespaces: RefCell::new(Arc::clone(&facts.namespaces)),
            catalogue,
            listener: env.listener(),
            connections: Connections::default(),
            counters: Counters::default(),
            latencies: Latencies::new(),
            awaited: Awaited::default(),
            outboxes: Outboxes::new(layout.cores),
            buffers: RefCell::default(),
            arrivals: Arrivals::default(),
            cursor_seal: Identity { shard: 0, ..facts.identity }.seed()
                ^ u64::from(facts.identity.partitions),
            stamp_seen: Cell::default(),
            requests: Cell::new(0),
            reads: Cell::new(0),
            pressure: Pressure::default(),
            phase: Cell::new(Phase::Serving),
            drained_cores: Cell::new(0),
            hello_watch: Cell::new(false),
            resp: RespCore::new(&config.resp, &config.limits, &facts.namespaces, env.now()),
            watch: Watch::new(&env, config.slow_us, facts.identity.seed() ^ u64::from(index) << 32),
            env,
            config,
            options,
            facts,
        })
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.config.limits
    }

    /// A shard of this core.
    pub(crate) fn shard(&self, shard: u16) -> Option<&CoreShard<E>> {
        self.shards.get(usize::from(shard.checked_sub(self.first_shard)?))
    }

    /// The shards of this core with their numbers.
    pub(crate) fn shards(&self) -> impl Iterator<Item = (u16, &CoreShard<E>)> {
        (self.first_shard..).zip(&self.shards)
    }

    /// Connections that this core may hold.
    pub(crate) fn connections_max(&self) -> u32 {
        self.limits().connections_max.div_ceil(u32::from(self.layout.cores)).max(1)
    }

    /// The hybrid time now: of this core's shards, or of the wall clock on a core without data.
    pub(crate) fn now_stamp(&self) -> HybridTime {
        let wall = || HybridTime::from_millis(self.env.wall_ms());
        let now = self.shards.iter().map(|shard| shard.hybrid_time()).max().unwrap_or_else(wall);
        self.see_stamp(now)
    }

    /// Takes notice of a hybrid time; returns the largest one seen.
    pub(crate) fn see_stamp(&self, time: HybridTime) -> HybridTime {
        let largest = self.stamp_seen.get().max(time);
        self.stamp_seen.set(largest);
        largest
    }

    /// Requests under way on this core, those of other cores included.
    pub(crate) fn requests(&self) -> u32 {
        self.requests.get()
    }

    /// Counts a request in. [`Core::answer`] or one of its kin counts it out.
    pub(crate) fn begin(&self) {
        self.requests.set(self.requests.get() + 1);
    }

    /// Whether a request may be let in as far as the core's state and queue say.
    pub(crate) fn admits_more(&self) -> bool {
        self.phase.get() == Phase::Serving && self.requests() < self.limits().core_requests_max
    }

    /// Answers a request with what `encode` appends to the buffer it is given: one whole frame, or
    /// reply.
    pub(crate) fn answer(&self, ticket: &Ticket, encode: impl FnOnce(&mut Vec<u8>)) {
        self.answer_as(ticket, watch::OK, encode);
    }

    /// As [`Core::answer`] for a request that ended so.
    pub(crate) fn answer_as(
        &self,
        ticket: &Ticket,
        outcome: &'static str,
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        self.end();
        // These take their time, and the clock was last read when they began.
        if matches!(ticket.class, OperationClass::MultiRead | OperationClass::Batch | OperationClass::Scan) {
            self.tick();
        }
        match ticket.reply {
            ReplyTo::Connection(id) => {
                self.connections.with(id, |connection| {
                    {
                        let mut out = connection.out.borrow_mut();
                        if out.capacity() == 0 {
                            *out = self.take_buffer();
                        }
                        match connection.replies.get() {
                            None => encode(&mut out),
                            Some(replies) => replies.borrow_mut().answer(ticket.request_id, &mut out, encode),
                        }
                    }
                    self.count_out(connection);
                    connection.finish(ticket.class, ticket.namespace, ticket.received);
                    self.look_back(ticket, connection, outcome);
                    connection.touch();
                });
            }
            ReplyTo::Core { core, token } => {
                let mut frame = self.take_buffer();
                encode(&mut frame);
                let took = self.took_here(ticket);
                self.post(core, Message::Answer { token, frame, took });
            }
        }
    }

    /// Answers a request with a frame made elsewhere.
    pub(crate) fn answer_frame(&self, ticket: &Ticket, frame: Vec<u8>) {
        match ticket.reply {
            ReplyTo::Connection(_) => {
                let outcome = self.outcome_of(ticket, &frame);
                self.answer_as(ticket, outcome, |out| out.extend_from_slice(&frame));
                self.give_buffer(frame);
            }
            ReplyTo::Core { core, token } => {
                self.end();
                let took = self.took_here(ticket);
                self.post(core, Message::Answer { token, frame, took });
            }
        }
    }

    /// Answers a request with an error.
    pub(crate) fn refuse(&self, ticket: &Ticket, refusal: &Refusal<'_>) {
        self.count_error(ticket);
        let stamp_seen = self.stamp_seen.get();
        self.answer_as(ticket, refusal.code.name(), |out| match ticket.dialect {
            Dialect::Native => refusal.put(ticket.opcode, ticket.request_id, stamp_seen, out),
            Dialect::Resp(..) => resp::put_refusal(refusal, out),
        });
    }

    /// Answers a native request with a response; with an error if that does not fit a frame.
    pub(crate) fn answer_with(&self, ticket: &Ticket, response: &Response<'_>) {
        self.answer(ticket, |out| {
            if let Err(error) = response.encode(ticket.request_id, MAP_EPOCH, out) {
                self.count_error(ticket);
                let refusal = Refusal::protocol(&error);
                refusal.put(ticket.opcode, ticket.request_id, self.stamp_seen.get(), out);
            }
        });
    }

    /// Counts a request that is answered with an error.
    pub(crate) fn count_error(&self, ticket: &Ticket) {
        add(&self.counters.errors, 1);
        let listener = match ticket.dialect {
            Dialect::Native => Listener::Native,
            Dialect::Resp(..) => Listener::Resp,
        };
        self.watch.usage.failed(listener, ticket.class, ticket.namespace, |id| self.is_live(id));
    }

    /// Answers a request with OVERLOADED.
    pub(crate) fn refuse_overloaded(&self, ticket: &Ticket, what: &'static str) {
        add(&self.counters.overloaded, 1);
        self.refuse(ticket, &Refusal::overloaded(what, self.limits().overload_retry_ms));
    }

    /// Whether a request's time is over; if so it has been answered.
    pub(crate) fn refuse_late(&self, ticket: &Ticket, now: Monotonic) -> bool {
        let late = self.is_late(ticket, now);
        if late {
            self.refuse(ticket, &Refusal::DEADLINE);
        }
        late
    }

    /// Whether a request's time is over; if so it has been counted, and is to be refused.
    pub(crate) fn is_late(&self, ticket: &Ticket, now: Monotonic) -> bool {
        let late = ticket.deadline.is_some_and(|deadline| deadline <= now);
        if late {
            add(&self.counters.deadlines_missed, 1);
        }
        late
    }

    /// Takes one of the places for reads of tables; the request is refused if there is none.
    pub(crate) fn begin_read(self: &Rc<Self>, ticket: &Ticket) -> Option<ReadPlace<E>> {
        if self.reads.get() >= self.limits().core_reads_max {
            self.refuse_overloaded(ticket, "too many reads are under way");
            return None;
        }
        Some(self.read_place())
    }

    /// Takes a place for a part of a request that has been let in already.
    pub(crate) fn read_place(self: &Rc<Self>) -> ReadPlace<E> {
        self.reads.set(self.reads.get() + 1);
        ReadPlace(Rc::clone(self))
    }

    /// How many more reads of tables may start.
    pub(crate) fn reads_free(&self) -> u32 {
        self.limits().core_reads_max.saturating_sub(self.reads.get())
    }

    /// Sends a message to a core; if its queue is full the message waits its turn here.
    pub(crate) fn post(&self, core: u16, message: Message<<E as pinion_env::NodeEnv>::Handoff>) {
        self.outboxes.post(self, core, message);
    }

    /// An empty buffer, used before if possible.
    pub(crate) fn take_buffer(&self) -> Vec<u8> {
        self.buffers.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(4_096))
    }

    /// Takes a buffer back.
    pub(crate) fn give_buffer(&self, mut buffer: Vec<u8>) {
        let mut buffers = self.buffers.borrow_mut();
        if buffer.capacity() > 0
            && buffer.capacity() <= self.limits().pooled_buffer_bytes_max as usize
            && buffers.len() < self.limits().pooled_buffers_max as usize
        {
            buffer.clear();
            buffers.push(buffer);
        }
    }

    /// The deadline of a request received at `received` with `deadline_us` remaining; at most the
    /// engine's `deadline_ms_max` away.
    pub(crate) fn deadline(&self, received: Monotonic, deadline_us: u32) -> Option<Monotonic> {
        let longest_us = self.options.deadline_ms_max.saturating_mul(1_000);
        let remaining_us = u64::from(deadline_us).min(longest_us);
        (deadline_us != 0).then(|| received.after(Duration::from_micros(remaining_us)))
    }

    /// What binds cursors to this database.
    pub(crate) const fn cursor_seal(&self) -> u64 {
        self.cursor_seal
    }

    fn end(&self) {
        add(&self.counters.answers, 1);
        debug_assert!(self.requests.get() > 0, "answered more than was asked");
        self.requests.set(self.requests.get().saturating_sub(1));
    }
}

/// One of the places for reads of tables, held until it is dropped.
pub(crate) struct ReadPlace<E: ServerEnv>(Rc<Core<E>>);

impl<E: ServerEnv> Drop for ReadPlace<E> {
    fn drop(&mut self) {
        self.0.reads.set(self.0.reads.get().saturating_sub(1));
    }
}
