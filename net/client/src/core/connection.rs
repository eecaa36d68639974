//! One connection as a state machine: bytes and time in, bytes and finished requests out. No I/O.
//!
//! Its life: the preface and HELLO go out at once; nothing else may until HELLO is answered. Then
//! requests are sent as they come, many in flight, and answers are matched by request id.
//!
//! Bounds: `in_flight_max` requests on the wire (told by HELLO), `waiting_max` behind them,
//! `OUTPUT_BYTES_MAX` of encoded requests that the socket has not taken (one request may exceed
//! it). Deadlines are checked by one timer: the earliest of them when it was last set, so a
//! request that is answered in time costs the timer nothing.
//!
//! Failure: a connection that breaks or breaks the protocol fails once and for all, and every
//! request with it: those that were on the wire with their outcome unknown if they write. A server
//! that says nothing for `SILENCE_MAX` while it owes an answer is taken for dead.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pinion_protocol::{Frames, Header, Preface};

use super::operation::{Reply, Try};
use super::session::Welcome;
use super::wire;
use crate::error::{Error, Outcome, Result};

/// Encoded requests that wait for the socket, in bytes; no more are encoded above this.
const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// How long the server may say nothing while it owes an answer.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// The most requests in flight, whatever the server allows.
const IN_FLIGHT_MAX: u32 = 4096;
/// The longest frame that is taken from a server, in bytes.
const RECEIVED_FRAME_BYTES_MAX: u32 = 64 << 20;
/// The request id of HELLO; the others have a slot's generation, which starts at 1, above 32 bits.
const HELLO_ID: u64 = 0;

/// What a connection is told when it is made.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// The core to be connected to; `None` = any.
    pub(crate) wanted_core: Option<u16>,
    /// How the client calls itself.
    pub(crate) client_name: String,
    /// How long HELLO may take.
    pub(crate) greeting_max: Duration,
    /// Requests that may wait to be sent.
    pub(crate) waiting_max: usize,
}

/// A connection; `T` is what the driver knows a request by.
#[derive(Debug)]
pub(crate) struct Connection<T> {
    phase: Phase,
    frames: Frames,
    output: Vec<u8>,
    /// Bytes of `output` that the socket has taken.
    written: usize,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    in_flight_max: u32,
    frame_bytes_max: usize,
    waiting: VecDeque<Waiting<T>>,
    waiting_max: usize,
    /// No request's deadline is earlier.
    check_at: Option<Instant>,
    /// When bytes last came, or the first request went out after an idle time.
    heard: Instant,
    finished: VecDeque<(T, Result<Reply>)>,
    welcome: Option<Welcome>,
    stamp_seen: u64,
}

#[derive(Debug)]
enum Phase {
    /// HELLO is on its way.
    Greeting {
        until: Instant,
    },
    Ready,
    Failed(Error),
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    state: SlotState<T>,
}

#[derive(Debug)]
enum SlotState<T> {
    Free,
    Sent {
        ticket: T,
        deadline: Instant,
        outcome_if_lost: Outcome,
    },
    /// Nobody waits any more, but the server still owes the answer.
    Abandoned,
}

#[derive(Debug)]
struct Waiting<T> {
    ticket: T,
    attempt: Try,
    deadline: Instant,
}

impl<T> Connection<T> {
    /// A connection whose socket is open. Its first output is there at once.
    pub(crate) fn new(terms: &Terms, now: Instant) -> Self {
        let mut output = Preface::OURS.to_bytes().to_vec();
        let phase = match wire::encode_hello(terms, HELLO_ID, &mut output) {
            Ok(()) => Phase::Greeting { until: now + terms.greeting_max },
            Err(error) => Phase::Failed(error),
        };
        Self {
            phase,
            frames: Frames::new(RECEIVED_FRAME_BYTES_MAX),
            output,
            written: 0,
            slots: Vec::new(),
            free: Vec::new(),
            in_flight_max: 0,
            frame_bytes_max: 0,
            waiting: VecDeque::new(),
            waiting_max: terms.waiting_max,
            check_at: None,
            heard: now,
            finished: VecDeque::new(),
            welcome: None,
            stamp_seen: 0,
        }
    }

    /// Why the connection must be closed; `None` while it is good.
    pub(crate) fn failure(&self) -> Option<&Error> {
        match &self.phase {
            Phase::Failed(error) => Some(error),
            Phase::Greeting { .. } | Phase::Ready => None,
        }
    }

    /// Whether [`Connection::submit`] has room.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() < self.waiting_max
    }

    /// Whether no request is waited for.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.free.len() == self.slots.len()
    }

    /// Sends a request, now or when there is room. It will be finished exactly once.
    pub(crate) fn submit(&mut self, now: Instant, ticket: T, attempt: impl Into<Try>, deadline: Instant) {
        if let Phase::Failed(error) = &self.phase {
            let error = unsent(error);
            self.finished.push_back((ticket, Err(error)));
        } else if !self.has_room() {
            self.finished.push_back((ticket, Err(Error::Busy)));
        } else {
            self.watch(deadline);
            self.waiting.push_back(Waiting { ticket, attempt: attempt.into(), deadline });
            self.pump(now);
        }
    }

    /// The bytes to send.
    pub(crate) fn output(&self) -> &[u8] {
        &self.output[self.written..]
    }

    /// Takes the bytes to send: the caller will send them or report the loss.
    pub(crate) fn take_output(&mut self, now: Instant) -> Vec<u8> {
        let mut taken = std::mem::take(&mut self.output);
        taken.drain(..std::mem::take(&mut self.written));
        self.pump(now);
        taken
    }

    /// The socket has taken this many of them.
    pub(crate) fn wrote(&mut self, now: Instant, bytes: usize) {
        self.written += bytes;
        if self.written >= self.output.len() {
            self.output.clear();
            self.written = 0;
            if self.output.capacity() > 4 * OUTPUT_BYTES_MAX {
                self.output.shrink_to(OUTPUT_BYTES_MAX);
            }
        }
        self.pump(now);
    }

    /// Takes bytes that were received.
    pub(crate) fn receive(&mut self, now: Instant, mut bytes: &[u8]) {
        self.heard = now;
        // Taken out so that a frame may borrow from it while the rest of the connection changes.
        let mut frames = std::mem::replace(&mut self.frames, Frames::new(RECEIVED_FRAME_BYTES_MAX));
        while self.failure().is_none() {
            match frames.next_frame(&mut bytes) {
                Ok(Some(frame)) => self.frame(&frame.header, frame.body),
                Ok(None) => break,
                Err(error) => self.fail(wire::broken(&error)),
            }
        }
        self.frames = frames;
        self.pump(now);
    }

    /// When [`Connection::expire`] must be called, unless something else happens before.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Failed(_) => None,
            Phase::Greeting { until } => Some(self.check_at.map_or(*until, |check| check.min(*until))),
            Phase::Ready => {
                let silence = (self.free.len() < self.slots.len()).then(|| self.heard + SILENCE_MAX);
                [self.check_at, silence].into_iter().flatten().min()
            }
        }
    }

    /// Ends the requests whose deadline has passed, and the connection if the server is silent.
    pub(crate) fn expire(&mut self, now: Instant) {
        match &self.phase {
            Phase::Greeting { until } if *until <= now => {
                self.fail(Error::TimedOut { outcome: Outcome::NotApplied });
            }
            Phase::Ready if self.free.len() < self.slots.len() && self.heard + SILENCE_MAX <= now => {
                let reason = format!("the server has said nothing for {} s", SILENCE_MAX.as_secs());
                self.fail(Error::Disconnected { outcome: Outcome::NotApplied, reason });
            }
            _ => {}
        }
        if self.check_at.is_some_and(|at| at <= now) {
            self.expire_requests(now);
        }
    }

    /// No socket could be opened.
    pub(crate) fn refused(&mut self, error: Error) {
        self.fail(error);
    }

    /// The socket failed or was closed by the other side.
    pub(crate) fn lost(&mut self, reason: String) {
        self.fail(Error::Disconnected { outcome: Outcome::NotApplied, reason });
    }

    /// A request that has its result.
    pub(crate) fn next_finished(&mut self) -> Option<(T, Result<Reply>)> {
        self.finished.pop_front()
    }

    /// What HELLO told, once.
    pub(crate) fn take_welcome(&mut self) -> Option<Welcome> {
        self.welcome.take()
    }

    /// The largest stamp seen in answers since the last call; 0 = none.
    pub(crate) fn take_stamp_seen(&mut self) -> u64 {
        std::mem::take(&mut self.stamp_seen)
    }

    fn frame(&mut self, header: &Header, body: &[u8]) {
        if !header.is_response() {
            return self.fail(wire::nonsense("a request came from the server"));
        }
        if let Phase::Greeting { .. } = self.phase {
            return self.greeted(header, body);
        }
        if header.request_id == 0 && header.is_error() {
            // Not to one of our requests: why the server is about to close.
            return self.fail(wire::farewell(header, body));
        }
        let (index, generation) = (header.request_id as u32, (header.request_id >> 32) as u32);
        let known = self.slots.get_mut(index as usize).filter(|slot| slot.generation == generation);
        let Some(slot) = known else {
            return self.fail(wire::nonsense("an answer to a request that was not made"));
        };
        let state = std::mem::replace(&mut slot.state, SlotState::Free);
        slot.generation = slot.generation.wrapping_add(1).max(1);
        if matches!(state, SlotState::Free) {
            return self.fail(wire::nonsense("a second answer to a request"));
        }
        self.free.push(index);
        let (reply, broken) = match wire::decode(header, body) {
            Ok((reply, stamp_seen)) => {
                self.stamp_seen = self.stamp_seen.max(stamp_seen);
                (reply, None)
            }
            Err(error) => {
                let broken = wire::broken(&error);
                // An answer that is not an error says that the request was carried out.
                let outcome = if header.is_error() { Outcome::Unknown } else { Outcome::Applied };
                (Err(broken.clone().with_outcome(outcome)), Some(broken))
            }
        };
        if let SlotState::Sent { ticket, outcome_if_lost, .. } = state {
            let reply = reply.map_err(|error| match outcome_if_lost {
                Outcome::NotApplied => error.with_outcome(Outcome::NotApplied),
                Outcome::Applied | Outcome::Unknown => error,
            });
            self.finished.push_back((ticket, reply));
        }
        if let Some(broken) = broken {
            self.fail(broken);
        }
    }

    fn greeted(&mut self, header: &Header, body: &[u8]) {
        match wire::decode_hello(header, body) {
            Ok(welcome) => {
                self.in_flight_max = welcome.in_flight_max.clamp(1, IN_FLIGHT_MAX);
                self.frame_bytes_max = welcome.map.limits.frame_bytes_max;
                self.welcome = Some(welcome);
                self.phase = Phase::Ready;
            }
            Err(error) => self.fail(error),
        }
    }

    /// Encodes waiting requests while there is room on the wire.
    fn pump(&mut self, now: Instant) {
        while matches!(self.phase, Phase::Ready)
            && self.output.len() - self.written < OUTPUT_BYTES_MAX
            && (!self.free.is_empty() || self.slots.len() < self.in_flight_max as usize)
        {
            let Some(Waiting { ticket, attempt, deadline }) = self.waiting.pop_front() else { return };
            if deadline <= now {
                self.finished.push_back((ticket, Err(Error::TimedOut { outcome: Outcome::NotApplied })));
                continue;
            }
            let index = self.free.last().copied().unwrap_or(self.slots.len() as u32);
            let generation = self.slots.get(index as usize).map_or(1, |slot| slot.generation);
            let request_id = u64::from(generation) << 32 | u64::from(index);
            let start = self.output.len();
            let encoded =
                wire::encode(&attempt, request_id, frame_deadline_us(deadline - now), &mut self.output)
                    .and_then(|()| within_frame(self.output.len() - start, self.frame_bytes_max));
            if let Err(error) = encoded {
                self.output.truncate(start);
                self.finished.push_back((ticket, Err(error)));
                continue;
            }
            if self.free.len() == self.slots.len() {
                // The silence that counts begins when the server starts to owe something.
                self.heard = now;
            }
            let outcome_if_lost = attempt.operation.outcome_if_lost();
            let state = SlotState::Sent { ticket, deadline, outcome_if_lost };
            match self.free.pop() {
                Some(_) => self.slots[index as usize].state = state,
                None => self.slots.push(Slot { generation, state }),
            }
        }
    }

    /// Makes sure that the timer fires no later than a deadline.
    fn watch(&mut self, deadline: Instant) {
        self.check_at = Some(self.check_at.map_or(deadline, |at| at.min(deadline)));
    }

    fn expire_requests(&mut self, now: Instant) {
        self.check_at = None;
        let mut earliest: Option<Instant> = None;
        for slot in &mut self.slots {
            let SlotState::Sent { deadline, outcome_if_lost, .. } = &slot.state else { continue };
            if *deadline > now {
                earliest = Some(earliest.map_or(*deadline, |at| at.min(*deadline)));
                continue;
            }
            let outcome = *outcome_if_lost;
            if let SlotState::Sent { ticket, .. } = std::mem::replace(&mut slot.state, SlotState::Abandoned) {
                self.finished.push_back((ticket, Err(Error::TimedOut { outcome })));
            }
        }
        for _ in 0..self.waiting.len() {
            let Some(waiting) = self.waiting.pop_front() else { break };
            if waiting.deadline > now {
                earliest = Some(earliest.map_or(waiting.deadline, |at| at.min(waiting.deadline)));
                self.waiting.push_back(waiting);
            } else {
                let error = Error::TimedOut { outcome: Outcome::NotApplied };
                self.finished.push_back((waiting.ticket, Err(error)));
            }
        }
        self.check_at = earliest;
    }

    fn fail(&mut self, error: Error) {
        if matches!(self.phase, Phase::Failed(_)) {
            return;
        }
        for slot in &mut self.slots {
            if let SlotState::Sent { ticket, outcome_if_lost, .. } =
                std::mem::replace(&mut slot.state, SlotState::Free)
            {
                let outcome = outcome_if_lost;
                let reason = error.to_string();
                let error = match &error {
                    Error::Disconnected { reason, .. } => {
                        Error::Disconnected { outcome, reason: reason.clone() }
                    }
                    _ => Error::Disconnected { outcome, reason },
                };
                self.finished.push_back((ticket, Err(error)));
            }
        }
        self.slots.clear();
        self.free.clear();
        for waiting in self.waiting.drain(..) {
            self.finished.push_back((waiting.ticket, Err(unsent(&error))));
        }
        self.output.clear();
        self.written = 0;
        self.check_at = None;
        self.phase = Phase::Failed(error);
    }
}

/// The error of a request that was never sent because of `failure`.
fn unsent(failure: &Error) -> Error {
    match failure {
        Error::Disconnected { reason, .. } => {
            Error::Disconnected { outcome: Outcome::NotApplied, reason: reason.clone() }
        }
        Error::TimedOut { .. } => Error::Disconnected {
            outcome: Outcome::NotApplied,
            reason: "the server did not answer HELLO".into(),
        },
        other => other.clone(),
    }
}

/// The time to live that a frame carries: a little less than what remains, so that the server's
/// own answer "too late, not applied" can arrive before this side must say "unknown".
fn frame_deadline_us(remaining: Duration) -> u32 {
    let margin = (remaining / 8).min(Duration::from_millis(5));
    u32::try_from((remaining - margin).as_micros()).unwrap_or(u32::MAX).max(1)
}

fn within_frame(bytes: usize, max: usize) -> Result<()> {
    if bytes <= max {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "a request of {bytes} bytes: this server takes frames of at most {max} bytes"
    )))
}
