//! Seeing into a core: what took long, which keys are accessed most, who is connected.
//!
//! All of it is made to cost requests that are fast, untraced and not sampled next to nothing: the time is
//! read where it is read anyway ([`Core::tick`]) and compared with a request's receipt when that is
//! answered. A request that is slow by then leaves its key ([`Core::trail`]) just before its answer, where
//! the key is at hand anyway, and whoever answers it picks that up.
//!
//! A request is timed until its answer is in its connection's out buffer: a peer that is slow to take it
//! makes no slow operation. Requests of the node and of connections count as others do. A forwarded
//! request is an operation of the core of its connection, which has kept the key; the owner of the key
//! sends back how long the request took there. Of one with several keys, the key is that of what ended
//! last, or the first of the part that came last from another core.
//!
//! Limits: see `slow`, `hot`, `clients` and `usage`.

mod clients;
mod hot;
mod key;
mod slow;
mod text;
mod usage;

pub(crate) use clients::{ClientReport, ClientsReport};
pub(crate) use hot::HotReport;
pub(crate) use key::KeyFront;
pub(crate) use slow::SlowOperation;
pub(crate) use text::{clients as clients_text, hot as hot_text, slow as slow_text};
pub(crate) use usage::{Listener, UsageReport};

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::time::Duration;

use pinion_engine::Key;
use pinion_env::Monotonic;
use pinion_protocol::{ErrorCode, FLAG_ERROR, Header, Opcode};

use crate::connection::Connection;
use crate::core::{Core, Dialect, NO_NAMESPACE, ReplyTo, Ticket};
use crate::message::ServerEnv;
use crate::resp;
use hot::HotKeys;
use slow::{SlowLog, Stages};
use usage::Usage;

/// How requests end that do not fail.
pub(crate) const OK: &str = "ok";

/// What a core sees of itself.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The time when it was last read.
    clock: Cell<Monotonic>,
    /// From here on a request is slow, in nanoseconds; `u64::MAX` = never.
    slow_ns: u64,
    slow: RefCell<SlowLog>,
    /// The key of a slow request that is about to be answered.
    trail: RefCell<Option<Trail>>,
    hot: HotKeys,
    pub(crate) usage: Usage,
    /// When the core began, and the processor's time that its thread had used by then.
    began: (Monotonic, Duration),
}

/// What is known of a slow request beside its ticket.
#[derive(Debug)]
struct Trail {
    /// Whose it is: where its answer goes, and its id.
    of: (ReplyTo, u64),
    /// The shard and the key, if they are known.
    key: Option<(u16, KeyFront)>,
    /// Of a request forwarded whole: the time that it took on the core that owns its key.
    elsewhere: Option<Duration>,
}

/// A key and its shard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyPlace<'k> {
    pub(crate) shard: u16,
    pub(crate) user: &'k [u8],
}

/// The slow operations of a core.
#[derive(Debug, Clone)]
pub(crate) struct SlowReport {
    pub(crate) core: u16,
    pub(crate) seen: u64,
    /// Oldest first.
    pub(crate) kept: Vec<SlowOperation>,
}

/// The slow operations of all cores with their cores, newest first.
pub(crate) fn newest_first(reports: &[SlowReport]) -> Vec<(u16, &SlowOperation)> {
    let of_core = |report: &'_ SlowReport| report.core;
    let mut all: Vec<_> = reports
        .iter()
        .flat_map(|report| report.kept.iter().map(move |operation| (of_core(report), operation)))
        .collect();
    all.sort_by_key(|(core, operation)| (Reverse(operation.ended_ms), *core, Reverse(operation.number)));
    all
}

impl Watch {
    /// Requests of `slow_us` microseconds are slow; 0 = none is.
    pub(crate) fn new<E: ServerEnv>(env: &E, slow_us: u32, seed: u64) -> Self {
        let now = env.now();
        let slow_ns = if slow_us == 0 { u64::MAX } else { u64::from(slow_us) * 1_000 };
        Self {
            clock: Cell::new(now),
            slow_ns,
            slow: RefCell::default(),
            trail: RefCell::default(),
            hot: HotKeys::new(seed, now),
            usage: Usage::new(),
            began: (now, env.cpu_time()),
        }
    }

    /// Whether a request that was received then is slow, by the time that was last read.
    #[inline]
    pub(crate) fn is_slow(&self, received: Monotonic) -> bool {
        self.clock.get().nanos().saturating_sub(received.nanos()) >= self.slow_ns
    }

    /// The time that was last read.
    #[inline]
    pub(crate) fn last_tick(&self) -> Monotonic {
        self.clock.get()
    }

    fn take_trail(&self, ticket: &Ticket) -> Option<Trail> {
        self.trail.borrow_mut().take_if(|trail| trail.of == (ticket.reply, ticket.request_id))
    }
}

impl<E: ServerEnv> Core<E> {
    /// The time now, which counts for what is slow until it is read again.
    #[inline]
    pub(crate) fn tick(&self) -> Monotonic {
        let now = self.env.now();
        self.watch.clock.set(now);
        now
    }

    /// Says which key a request is about that may be answered next. Costs nothing if it is not slow.
    #[inline]
    pub(crate) fn trail(&self, ticket: &Ticket, key: &Key<'_>) {
        if self.watch.is_slow(ticket.received) {
            self.leave_trail(ticket, self.place_of(key));
        }
    }

    /// As [`Core::trail`] for a page of a scan that began at this key.
    pub(crate) fn trail_scan(&self, ticket: &Ticket, start: KeyPlace<'_>) {
        if self.watch.is_slow(ticket.received) {
            self.leave_trail(ticket, start);
        }
    }

    /// A key with its shard.
    pub(crate) fn place_of<'k>(&self, key: &Key<'k>) -> KeyPlace<'k> {
        KeyPlace { shard: self.shard_of(key.partition), user: key.user }
    }

    #[cold]
    fn leave_trail(&self, ticket: &Ticket, KeyPlace { shard, user }: KeyPlace<'_>) {
        // The core that forwarded a request has kept its key.
        if matches!(ticket.reply, ReplyTo::Connection(_)) {
            let key = Some((shard, KeyFront::of(user)));
            let trail = Trail { of: (ticket.reply, ticket.request_id), key, elsewhere: None };
            *self.watch.trail.borrow_mut() = Some(trail);
        }
    }

    /// Notes that a request of a connection has been answered, if it took long; forgets its trace.
    #[inline]
    pub(crate) fn look_back(&self, ticket: &Ticket, connection: &Connection, outcome: &'static str) {
        if connection.traces.get().is_some() || self.watch.is_slow(ticket.received) {
            self.note_answered(ticket, connection, outcome);
        }
    }

    #[cold]
    fn note_answered(&self, ticket: &Ticket, connection: &Connection, outcome: &'static str) {
        let trace = connection.take_trace(ticket.request_id);
        if !self.watch.is_slow(ticket.received) {
            return;
        }
        let now = self.watch.clock.get();
        let (key, elsewhere) =
            self.watch.take_trail(ticket).map_or((None, None), |trail| (trail.key, trail.elsewhere));
        let (total, queued) = (now.since(ticket.received), ticket.queued());
        let forwarded = elsewhere.map_or(Duration::ZERO, |there| total.saturating_sub(queued + there));
        let (operation, is_resp) = match ticket.dialect {
            Dialect::Native => (Opcode::from_u8(ticket.opcode).map_or("unknown", Opcode::name), false),
            Dialect::Resp(..) => (resp::name_of(ticket.opcode), true),
        };
        let who = connection.who.borrow();
        let (shard, key) = key.map_or((None, KeyFront::default()), |(shard, key)| (Some(shard), key));
        let slow = SlowOperation {
            number: 0,
            ended_ms: self.env.wall_ms(),
            shard,
            operation,
            is_resp,
            namespace: (ticket.namespace != NO_NAMESPACE).then(|| self.namespace_name(ticket.namespace)),
            key,
            connection: connection.number,
            client: who.name.clone(),
            peer: who.peer.clone(),
            stages: Stages::of(total, queued, forwarded),
            outcome,
            trace,
        };
        self.watch.slow.borrow_mut().push(self.index, now, slow);
    }

    /// How long a forwarded request has taken here by now, for the core of its connection.
    #[inline]
    pub(crate) fn took_here(&self, ticket: &Ticket) -> Duration {
        self.watch.clock.get().since(ticket.received).saturating_sub(ticket.queued())
    }

    /// A forwarded request, or a part of one, has come back: says what its key is, and of a whole one how
    /// long it took elsewhere.
    pub(crate) fn trail_back(
        &self,
        ticket: &Ticket,
        key: impl FnOnce() -> Option<(u16, KeyFront)>,
        elsewhere: Option<Duration>,
    ) {
        if self.watch.is_slow(ticket.received) {
            let trail = Trail { of: (ticket.reply, ticket.request_id), key: key(), elsewhere };
            *self.watch.trail.borrow_mut() = Some(trail);
        }
    }

    /// How a forwarded request ended, by the answer that came back.
    pub(crate) fn outcome_of(&self, ticket: &Ticket, answer: &[u8]) -> &'static str {
        if !self.watch.is_slow(ticket.received) {
            return OK;
        }
        match ticket.dialect {
            Dialect::Resp(..) if answer.first() == Some(&b'-') => ERR,
            Dialect::Resp(..) => OK,
            Dialect::Native => match Header::read(answer) {
                Ok(Some(header)) if header.flags & FLAG_ERROR != 0 => {
                    let code = answer.get(usize::from(header.header_bytes)..).and_then(<[u8]>::first_chunk);
                    code.map_or(ERR, |code| ErrorCode::from_u16(u16::from_le_bytes(*code)).name())
                }
                _ => OK,
            },
        }
    }

    /// Counts an access of a key of this core.
    #[inline]
    pub(crate) fn access(&self, key: &Key<'_>) {
        self.watch.hot.access(key, self.watch.clock.get());
    }

    /// Counts so many accesses at once; `key` says of which key one of them is.
    #[inline]
    pub(crate) fn access_all<'k>(&self, count: u32, key: impl Fn(usize) -> Option<Key<'k>>) {
        self.watch.hot.access_all(count, self.watch.clock.get(), key);
    }

    /// About how often a key of this core was accessed lately.
    pub(crate) fn accesses(&self, key: &Key<'_>) -> u64 {
        self.watch.hot.accesses(key, self.tick())
    }

    /// This core's slow operations.
    pub(crate) fn slow_report(&self) -> SlowReport {
        let slow = self.watch.slow.borrow();
        SlowReport { core: self.index, seen: slow.seen(), kept: slow.kept().cloned().collect() }
    }

    /// Forgets this core's slow operations.
    pub(crate) fn forget_slow(&self) {
        self.watch.slow.borrow_mut().clear();
    }

    /// This core's hot keys.
    pub(crate) fn hot_report(&self) -> HotReport {
        self.watch.hot.report(self.index, self.tick(), self.env.wall_ms())
    }

    /// This core's connections.
    pub(crate) fn clients_report(&self) -> ClientsReport {
        ClientsReport::of(self.index, &self.connections, self.tick())
    }

    /// How long this core's thread has run since its start, and for how long it has not, in nanoseconds. What
    /// other processes took of its processor counts as not run.
    pub(crate) fn busy_and_idle_ns(&self) -> (u64, u64) {
        let (began, used) = self.watch.began;
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let busy = self.env.cpu_time().saturating_sub(used);
        (nanos(busy), nanos(self.env.now().since(began).saturating_sub(busy)))
    }

    /// The name of a namespace; of one that is gone its number.
    pub(crate) fn namespace_name(&self, id: u32) -> String {
        let table = self.namespaces.borrow();
        let found = table.live().iter().find(|namespace| namespace.id == id);
        found.map_or_else(|| format!("#{id}"), |namespace| namespace.name.clone())
    }
}

/// How a command ends that fails in the words of Redis.
pub(crate) const ERR: &str = "ERR";
