//! One connection's talk: its requests in flight, and whether the answers are right.
//!
//! Two dialects: the native protocol, whose answers come in any order and are checked by id, status
//! and value; and raw frames, as the bare roof servers speak them: a fixed number of bytes answers a
//! fixed number of bytes, in order, and only the length can be checked. Requests are the same bytes
//! in both.
//!
//! A request that is refused because the server is overloaded keeps its slot, rests (see `rests`) and
//! is sent again; the other slots go on.

use std::collections::VecDeque;

use pinion_protocol::{ErrorCode, Frame, Frames, Outcome, Response, WriteOutcome};

use super::records::Order;
use super::script::{Script, Work};
use super::tally::{Flaw, Tally};
use crate::error::{Error, Result};
use crate::rests::{Refusal, Rests};

/// How a server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// As `PROTOCOL.md` says.
    Native,
    /// With as many bytes as the protocol's answer has, for each request's bytes, in order.
    Raw,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Talk {
    dialect: Dialect,
    slots: Vec<Slot>,
    frames: Frames,
    /// Raw: slots in the order in which they were asked.
    asked: VecDeque<usize>,
    /// Raw: bytes of the next answer that are there.
    raw_bytes: usize,
}

/// A place for one request in flight.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Of its last request. Modulo the depth it is the slot's index, so that an answer finds it.
    request_id: u64,
    number: u64,
    /// When it was first sent.
    started_ns: u64,
    /// How often it was refused.
    refusals: u32,
    /// In flight or resting.
    busy: bool,
}

/// A request that rests: where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Resting {
    pub(crate) lane: usize,
    pub(crate) slot: usize,
}

/// What all connections share while they are driven.
pub(crate) struct Turn<'a> {
    pub(crate) script: &'a Script,
    pub(crate) order: &'a mut Order,
    pub(crate) tally: &'a mut Tally,
    pub(crate) rests: &'a mut Rests<Resting>,
    /// The connection that is driven.
    pub(crate) lane: usize,
    /// When the turn began: the end of the answers that it reads and the start of the requests that
    /// it makes. So what the generator itself takes counts as latency, and none of it is lost.
    pub(crate) now_ns: u64,
}

impl Talk {
    pub(crate) fn new(dialect: Dialect, depth: usize, frames: Frames) -> Self {
        let slot =
            |index| Slot { request_id: index as u64, number: 0, started_ns: 0, refusals: 0, busy: false };
        Self {
            dialect,
            slots: (0..depth).map(slot).collect(),
            frames,
            asked: VecDeque::with_capacity(depth),
            raw_bytes: 0,
        }
    }

    /// Requests in flight, and those that rest.
    pub(crate) fn busy(&self) -> usize {
        self.slots.iter().filter(|slot| slot.busy).count()
    }

    /// Fills every free place with a request, while the order has any.
    pub(crate) fn ask(&mut self, turn: &mut Turn<'_>, out: &mut Vec<u8>) {
        for index in 0..self.slots.len() {
            if !self.slots[index].busy {
                self.ask_in(index, turn, out);
            }
        }
    }

    /// Sends a request again that has rested; if the order has ended meanwhile, frees its slot.
    pub(crate) fn ask_again(&mut self, index: usize, turn: &mut Turn<'_>, out: &mut Vec<u8>) {
        let depth = self.slots.len() as u64;
        let slot = &mut self.slots[index];
        debug_assert!(slot.busy && slot.refusals > 0, "only what was refused rests");
        if matches!(turn.order, Order::Ended) {
            slot.busy = false;
            return;
        }
        slot.request_id += depth;
        turn.script.append(slot.request_id, slot.number, out);
    }

    /// Reads answers, and asks for the next record after each, unless it was a refusal.
    ///
    /// # Errors
    /// What comes is not the protocol, or an answer to nothing that was asked; the server refuses for
    /// too long.
    pub(crate) fn receive(&mut self, chunk: &[u8], turn: &mut Turn<'_>, out: &mut Vec<u8>) -> Result<()> {
        match self.dialect {
            Dialect::Native => self.receive_native(chunk, turn, out),
            Dialect::Raw => self.receive_raw(chunk.len(), turn, out),
        }
    }

    fn receive_native(&mut self, mut chunk: &[u8], turn: &mut Turn<'_>, out: &mut Vec<u8>) -> Result<()> {
        while let Some(frame) = self.frames.next_frame(&mut chunk)? {
            let request_id = frame.header.request_id;
            let index = (request_id % self.slots.len() as u64) as usize;
            let slot = self.slots[index];
            if !slot.busy || slot.request_id != request_id {
                return Err(Error::Answer(format!("request id {request_id} is not in flight")));
            }
            match judge(turn.script, slot.number, &frame)? {
                Verdict::Right => turn.tally.right(turn.now_ns - slot.started_ns, frame.header.frame_bytes),
                Verdict::Flawed(flaw, text) => turn.tally.flawed(flaw, text),
                Verdict::Refused(refusal) => {
                    turn.tally.refused();
                    let request = Resting { lane: turn.lane, slot: index };
                    turn.rests.refused(request, slot.refusals, refusal, turn.now_ns)?;
                    // Its id is no longer in flight: a second answer to it is an error.
                    self.slots[index].request_id += self.slots.len() as u64;
                    self.slots[index].refusals = slot.refusals.saturating_add(1);
                    continue;
                }
            }
            turn.rests.progress();
            self.ask_in(index, turn, out);
        }
        Ok(())
    }

    fn receive_raw(&mut self, bytes: usize, turn: &mut Turn<'_>, out: &mut Vec<u8>) -> Result<()> {
        let response_bytes = turn.script.sizes.response_bytes;
        self.raw_bytes += bytes;
        while self.raw_bytes >= response_bytes {
            self.raw_bytes -= response_bytes;
            let index = self.asked.pop_front();
            let index = index.ok_or_else(|| Error::Answer("more bytes than were asked for".to_owned()))?;
            let latency_ns = turn.now_ns - self.slots[index].started_ns;
            turn.tally.right(latency_ns, u32::try_from(response_bytes).unwrap_or(u32::MAX));
            self.ask_in(index, turn, out);
        }
        Ok(())
    }

    /// Makes the next request, if there is one, in this slot, which is free now.
    fn ask_in(&mut self, index: usize, turn: &mut Turn<'_>, out: &mut Vec<u8>) {
        let depth = self.slots.len() as u64;
        let slot = &mut self.slots[index];
        let Some(number) = turn.order.next() else {
            slot.busy = false;
            return;
        };
        *slot = Slot {
            request_id: slot.request_id + depth,
            number,
            started_ns: turn.now_ns,
            refusals: 0,
            busy: true,
        };
        turn.script.append(slot.request_id, number, out);
        if self.dialect == Dialect::Raw {
            self.asked.push_back(index);
        }
    }
}

/// What an answer comes to.
enum Verdict<'a> {
    Right,
    /// Not applied; it may be asked again later.
    Refused(Refusal<'a>),
    Flawed(Flaw, String),
}

fn judge<'a>(script: &Script, number: u64, frame: &Frame<'a>) -> Result<Verdict<'a>> {
    let verdict = match (script.work, Response::decode(&frame.header, frame.body)?) {
        (Work::Get, Response::Get(reply)) => match reply.value {
            None => Verdict::Flawed(Flaw::Missing, format!("record {number} is missing")),
            Some(value) if script.records.is_value(number, value.bytes) => Verdict::Right,
            Some(value) => {
                let bytes = value.bytes.len();
                let text = format!("record {number} has another value, of {bytes} bytes");
                Verdict::Flawed(Flaw::Wrong, text)
            }
        },
        (Work::Put, Response::Put(written)) if written.outcome == WriteOutcome::Applied => Verdict::Right,
        // Of two puts of one key in flight the older stamp may come later.
        (Work::Put, Response::Put(written)) if written.outcome == WriteOutcome::Superseded => Verdict::Right,
        (_, Response::Error { error, .. })
            if error.code == ErrorCode::Overloaded && error.outcome == Outcome::NotApplied =>
        {
            Verdict::Refused(Refusal { retry_after_ms: error.retry_after_ms, message: error.message })
        }
        (_, Response::Error { error, .. }) => {
            Verdict::Flawed(Flaw::Failed, format!("{}: {}", error.code.name(), error.message))
        }
        (work, other) => {
            return Err(Error::Answer(format!("{work:?} was answered by opcode {}", other.opcode())));
        }
    };
    Ok(verdict)
}
