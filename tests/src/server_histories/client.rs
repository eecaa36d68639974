//! A client in a world: stamps, retries and deadlines as PROTOCOL.md lays them down (section 8),
//! written against that page alone.
//!
//! A client keeps a few connections and opens them again when they break. Several lanes use it at
//! once. A call ends in one of three ways: answered, not applied, or unknown.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use pinion_env::Monotonic;
use pinion_protocol::{ErrorCode, ErrorReply, Outcome, ProposedStamp, Request, Response};

use super::wire::{Heard, Reply, Wire};
use crate::trials::Counts;
use crate::world::{NodeId, Outside, Random};

/// How long opening a connection may take.
const OPEN_MAX: Duration = Duration::from_secs(2);

/// Longest pause before another try.
const PAUSE_MS_MAX: u64 = 20;

/// One client.
pub(super) struct Client {
    pub(super) outside: Outside,
    node: NodeId,
    origin: u32,
    clock: RefCell<Clock>,
    lines: Vec<Line>,
    random: RefCell<Random>,
    pub(super) counts: RefCell<Counts>,
    /// How long it waits for an answer, from very impatient to patient.
    patience_ms: u64,
    /// No more faults: ask until it is answered.
    insist: Cell<bool>,
}

#[derive(Default)]
struct Line {
    wire: RefCell<Option<Wire>>,
    opening: Cell<bool>,
}

/// The time that stamps are made of.
#[derive(Default)]
struct Clock {
    /// When a HELLO was answered, and the milliseconds it told.
    anchor: Option<(Monotonic, u64)>,
    latest: u64,
}

/// How a call is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// Which connection.
    pub(super) line: usize,
    /// Tries at most.
    pub(super) tries_max: u32,
    /// What a try may be done about when its outcome is unknown.
    pub(super) repeat: bool,
    /// Put into requests, in microseconds; 0 = none.
    pub(super) deadline_us: u32,
}

/// How a call ended.
pub(super) enum Ended {
    Answered {
        reply: Reply,
        /// An earlier try may have been applied.
        in_doubt: bool,
        /// When the answered try began.
        tried: u64,
        tried_ms: u64,
    },
    NotApplied(ErrorCode),
    /// No try reached a server.
    NotSent,
    Unknown,
}

impl Client {
    pub(super) fn new(outside: Outside, node: NodeId, lines: usize, mut random: Random) -> Rc<Self> {
        let patience_ms = 5 << random.below(9);
        Rc::new(Self {
            node,
            origin: ProposedStamp::ORIGIN_CLIENT_BIT | random.word() as u32,
            clock: RefCell::default(),
            lines: (0..lines).map(|_| Line::default()).collect(),
            random: RefCell::new(random),
            counts: RefCell::default(),
            patience_ms,
            insist: Cell::new(false),
            outside,
        })
    }

    pub(super) fn lines(&self) -> usize {
        self.lines.len()
    }

    /// From now on it waits long enough for every answer.
    pub(super) fn insist(&self) {
        self.insist.set(true);
    }

    pub(super) fn insists(&self) -> bool {
        self.insist.get()
    }

    pub(super) fn count(&self, name: &str) {
        self.counts.borrow_mut().add(name, 1);
    }

    /// A number below `bound`.
    pub(super) fn below(&self, bound: u64) -> u64 {
        self.random.borrow_mut().below(bound)
    }

    pub(super) fn one_in(&self, times: u64) -> bool {
        self.random.borrow_mut().one_in(times)
    }

    /// A new stamp, once a connection has told the time.
    pub(super) fn stamp(&self) -> Option<ProposedStamp> {
        let mut clock = self.clock.borrow_mut();
        let (taken, server_ms) = clock.anchor?;
        let elapsed = self.outside.now().since(taken).as_millis() as u64;
        clock.latest = ((server_ms + elapsed) << 16).max(clock.latest + 1);
        Some(ProposedStamp { time: clock.latest, origin: self.origin })
    }

    /// Makes sure that the client knows the time, if a connection can be had.
    pub(super) async fn meet(&self, line: usize) {
        if self.clock.borrow().anchor.is_none() {
            self.wire(line).await;
        }
    }

    /// Takes notice of a stamp in an answer.
    pub(super) fn see(&self, time: u64) {
        let mut clock = self.clock.borrow_mut();
        clock.latest = clock.latest.max(time);
    }

    /// Sends a request once and does not care what becomes of it.
    pub(super) fn send_blindly(&self, line: usize, request: &Request<'_>) {
        let wire = self.lines[line].wire.borrow().clone();
        if let Some(wire) = wire.filter(|wire| !wire.is_over()) {
            let id = wire.send(request, 0);
            wire.abandon(id);
            self.count("duplicates sent");
        }
    }

    /// Closes a connection: what is under way there stays under way.
    pub(super) fn hang_up(&self, line: usize) {
        let wire = self.lines[line].wire.take();
        drop(wire);
    }

    /// Asks until there is an answer, or asking again is not safe, or it was tried often enough.
    /// `begun` gives the number and the wall clock of a try.
    pub(super) async fn call(
        &self,
        request: &Request<'_>,
        manner: Manner,
        begun: impl Fn() -> (u64, u64),
    ) -> Ended {
        let (mut in_doubt, mut sent, mut refused) = (false, false, None);
        for attempt in 0..if self.insist.get() { 200 } else { manner.tries_max } {
            if attempt > 0 {
                self.count("retries");
                let pause_ms = self.below(PAUSE_MS_MAX << attempt.min(4));
                self.outside.sleep(Duration::from_millis(pause_ms)).await;
            }
            let (tried, tried_ms) = begun();
            let Some(wire) = self.wire(manner.line).await else { continue };
            let id = wire.send(request, manner.deadline_us);
            match wire.hear(&self.outside, id, self.patience()).await {
                Heard::Reply(reply) => {
                    sent = true;
                    let Some(error) = error(&reply) else {
                        return Ended::Answered { reply, in_doubt, tried, tried_ms };
                    };
                    self.see(error.0.stamp_seen);
                    self.count(error.0.code.name());
                    if error.0.code == ErrorCode::ConditionFailed {
                        return Ended::Answered { reply, in_doubt, tried, tried_ms };
                    }
                    assert!(is_expected(error.0.code), "the node answers {error:?} to {request:?}");
                    refused = Some(error.0.code);
                    in_doubt |= error.0.outcome == Outcome::Unknown;
                    if !error.0.code.is_retryable() || (in_doubt && !manner.repeat) {
                        break;
                    }
                    self.outside.sleep(Duration::from_millis(u64::from(error.0.retry_after_ms))).await;
                }
                heard @ (Heard::Broken | Heard::TimedOut) => {
                    sent = true;
                    in_doubt = true;
                    let timed_out = matches!(heard, Heard::TimedOut);
                    self.count(if timed_out { "tries timed out" } else { "tries cut off" });
                    // Some keep a connection that does not answer, some try another one.
                    if timed_out && self.one_in(2) {
                        self.hang_up(manner.line);
                    }
                    if !manner.repeat {
                        break;
                    }
                }
            }
        }
        match refused {
            _ if in_doubt => Ended::Unknown,
            Some(code) => Ended::NotApplied(code),
            None if sent => Ended::Unknown,
            None => Ended::NotSent,
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(if self.insist.get() { 30_000 } else { self.patience_ms + self.below(20) })
    }

    /// The open connection of a line, opened now if need be.
    async fn wire(&self, line: usize) -> Option<Wire> {
        let place = &self.lines[line];
        while place.opening.get() {
            self.outside.sleep(Duration::from_millis(1)).await;
        }
        let open = place.wire.borrow().clone();
        if let Some(wire) = open.filter(|wire| !wire.is_over()) {
            return Some(wire);
        }
        place.opening.set(true);
        let wanted = match self.below(4) {
            3 => None,
            core => Some(core as u16),
        };
        let opened = Wire::open(&self.outside, self.node, wanted, OPEN_MAX).await;
        place.opening.set(false);
        let Some((wire, reply)) = opened else {
            self.count("connections failed");
            return None;
        };
        match reply.response() {
            Response::Hello(hello) => {
                self.count("connections");
                let mut clock = self.clock.borrow_mut();
                clock.anchor = Some((self.outside.now(), hello.stamp >> 16));
                clock.latest = clock.latest.max(hello.stamp);
            }
            Response::Error { error, .. } => {
                assert!(is_expected(error.code), "HELLO is answered with {error:?}");
                self.count(error.code.name());
                return None;
            }
            other => panic!("HELLO is answered with {other:?}"),
        }
        *place.wire.borrow_mut() = Some(wire.clone());
        Some(wire)
    }
}

/// The error in a reply, and its opcode.
pub(super) fn error(reply: &Reply) -> Option<(ErrorReply<'_>, u8)> {
    match reply.response() {
        Response::Error { error, opcode } => Some((error, opcode)),
        _ => None,
    }
}

/// Whether a correct client may be answered this here. A namespace may be dropped by another one.
fn is_expected(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::Overloaded
            | ErrorCode::Deadline
            | ErrorCode::TooManyConnections
            | ErrorCode::NoSuchNamespace
            | ErrorCode::NamespaceExists
            | ErrorCode::ConditionFailed
            | ErrorCode::StampTooOld
            | ErrorCode::StampAhead
            | ErrorCode::ShuttingDown
            | ErrorCode::StorageFailed
    )
}
