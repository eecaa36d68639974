//! A generator of load that does not wait for its server: every request has a moment at which it
//! is meant to be sent, and its latency counts from that moment, whatever keeps it from being sent
//! (coordinated omission would hide just the delays that overload makes).
//!
//! What HELLO asks of a client is kept: never more unanswered requests than `in_flight_max`, and
//! after OVERLOADED a rest of `retry_after_ms` on that connection. A request that may not be sent
//! for one of these reasons when its moment comes is given up: in an overload that does not end it
//! would wait for ever. It counts as offered.
//!
//! One thread, many connections, one `poll`. The generator's own delays count as latency, too; how
//! late it was is reported, so that a busy machine can be told from a slow server.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use pinion_protocol::{
    Durability, ErrorCode, KeyRequest, Outcome, Put, Request, Response, Ttl, Write, WriteOutcome,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::line::Line;
use crate::process::{PATIENCE, Random};

/// The longest latency told apart, in microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;

/// Keys that are read and written.
const KEYS: u64 = 8_192;

/// Bytes of a value.
const VALUE_BYTES: usize = 100;

/// One request of so many is a write.
const WRITE_EVERY: u64 = 8;

/// How often the generator looks whether requests are due: those of a tick are sent together.
const TICK: Duration = Duration::from_micros(200);

/// How fast requests are meant to be sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// As many as may be in flight: what comes back is what the server can sustain.
    AsAnswered,
    /// So many in a second, evenly.
    PerSecond(f64),
}

/// What happened in one round.
#[derive(Debug, Clone)]
pub struct Round {
    /// How long it took.
    pub took: Duration,
    /// Requests that were meant to be sent.
    pub offered: u64,
    /// Given up because `in_flight_max` were unanswered on their connection.
    pub held_back: u64,
    /// Given up because their connection was asked to rest.
    pub rested: u64,
    /// Answered with what was asked for.
    pub accepted: u64,
    /// Refused by the server, and not applied.
    pub refused: u64,
    /// Latencies of accepted requests, from the intended send, in microseconds.
    pub latencies_us: Histogram<u64>,
    /// The longest that the generator itself was away, in microseconds.
    pub away_us_max: u64,
}

impl Round {
    fn new() -> Self {
        let latencies_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("constants that fit");
        Self {
            took: Duration::ZERO,
            offered: 0,
            held_back: 0,
            rested: 0,
            accepted: 0,
            refused: 0,
            latencies_us,
            away_us_max: 0,
        }
    }

    /// Accepted requests per second.
    pub fn goodput(&self) -> f64 {
        self.accepted as f64 / self.took.as_secs_f64()
    }

    /// The latency that 99 of 100 accepted requests did not exceed, in microseconds.
    pub fn p99_us(&self) -> u64 {
        self.latencies_us.value_at_quantile(0.99)
    }
}

/// Connections to one server and what is in flight on them.
#[derive(Debug)]
pub struct OpenLoop {
    talks: Vec<Talk>,
    random: Random,
    chunk: Vec<u8>,
    /// The talk whose turn the next request is.
    next: usize,
}

#[derive(Debug)]
struct Talk {
    line: Line,
    /// By request id modulo their number: when it was meant to be sent, and its id.
    slots: Vec<Option<(Instant, u64)>>,
    free: Vec<u32>,
    issued: u64,
    rests_until: Option<Instant>,
}

impl OpenLoop {
    /// Opens connections, and writes every key once.
    ///
    /// # Panics
    /// When the server does not answer.
    pub fn connect(address: &str, connections: usize) -> Self {
        let talks = (0..connections).map(|_| Talk::new(Line::connect(address))).collect();
        let mut load = Self { talks, random: Random::new(1), chunk: vec![0; 64 << 10], next: 0 };
        let mut round = Round::new();
        let mut key = 0;
        while key < KEYS || load.in_flight() > 0 {
            while key < KEYS && load.talks[0].has_room() {
                load.talks[0].ask(Instant::now(), key, true);
                key += 1;
            }
            load.exchange(Duration::from_millis(10), &mut round);
        }
        assert_eq!(round.accepted, KEYS, "{} refused", round.refused);
        load
    }

    /// Requests that are not answered.
    pub fn in_flight(&self) -> usize {
        self.talks.iter().map(|talk| talk.slots.len() - talk.free.len()).sum()
    }

    /// Offers load for a while. What is in flight at the end stays so and is taken by the next
    /// round.
    ///
    /// # Panics
    /// When an answer is wrong, comes twice or to nothing that was asked; when a connection breaks.
    pub fn round(&mut self, pace: Pace, lasts: Duration) -> Round {
        let mut round = Round::new();
        let begun = Instant::now();
        let mut looked = begun;
        loop {
            let now = Instant::now();
            let away = now.duration_since(looked).as_micros() as u64;
            round.away_us_max = round.away_us_max.max(away);
            looked = now;
            let passed = now.duration_since(begun);
            if passed >= lasts {
                round.took = passed;
                return round;
            }
            let pause = match pace {
                Pace::AsAnswered => {
                    self.fill(now, &mut round);
                    Duration::from_millis(10)
                }
                Pace::PerSecond(rate) => {
                    // What is due in one tick goes to one connection while that has room, as it
                    // does for a client that gathers what its callers want.
                    self.next = (self.next + 1) % self.talks.len();
                    while (round.offered as f64) < passed.as_secs_f64() * rate {
                        let intended = begun + Duration::from_secs_f64(round.offered as f64 / rate);
                        self.offer(intended, now, &mut round);
                    }
                    let next = begun + Duration::from_secs_f64(round.offered as f64 / rate);
                    next.saturating_duration_since(now).max(TICK)
                }
            };
            let waited = self.exchange(pause, &mut round);
            looked += waited.min(pause);
        }
    }

    /// Waits for every answer that is still to come: a round in which nothing is offered.
    ///
    /// # Panics
    /// When one does not come.
    pub fn drain(&mut self) -> Round {
        let begun = Instant::now();
        let mut round = Round::new();
        while self.in_flight() > 0 {
            assert!(begun.elapsed() < PATIENCE, "{} answers are missing", self.in_flight());
            self.exchange(Duration::from_millis(10), &mut round);
        }
        round.took = begun.elapsed();
        round
    }

    /// One request, on the connection whose turn it is, or else on the first that may send.
    fn offer(&mut self, intended: Instant, now: Instant, round: &mut Round) {
        round.offered += 1;
        let (key, writes) = choose(&mut self.random);
        let mut resting = 0;
        for _ in 0..self.talks.len() {
            let talk = &mut self.talks[self.next];
            if talk.rests(now) {
                resting += 1;
            } else if talk.has_room() {
                return talk.ask(intended, key, writes);
            }
            self.next = (self.next + 1) % self.talks.len();
        }
        // Nothing may be sent now.
        if resting == self.talks.len() {
            round.rested += 1;
        } else {
            round.held_back += 1;
        }
    }

    /// As many requests as may be in flight.
    fn fill(&mut self, now: Instant, round: &mut Round) {
        for talk in &mut self.talks {
            while !talk.rests(now) && talk.has_room() {
                round.offered += 1;
                let (key, writes) = choose(&mut self.random);
                talk.ask(now, key, writes);
            }
        }
    }

    /// Sends, waits for something to happen, receives. Gives the time that it waited.
    fn exchange(&mut self, timeout: Duration, round: &mut Round) -> Duration {
        for talk in &mut self.talks {
            talk.line.flush().expect("the connection lives");
        }
        let flags = |talk: &Talk| {
            let sends = if talk.line.unsent() > 0 { PollFlags::OUT } else { PollFlags::empty() };
            PollFlags::IN | sends
        };
        let timeout = Timespec::try_from(timeout).expect("rounds are short");
        let mut polled: Vec<_> =
            self.talks.iter().map(|talk| PollFd::new(talk.line.stream(), flags(talk))).collect();
        let begun = Instant::now();
        match poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
        let ready: Vec<bool> = polled.iter().map(|polled| polled.revents().contains(PollFlags::IN)).collect();
        let now = Instant::now();
        for (talk, _) in self.talks.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            talk.receive(now, &mut self.chunk, round);
        }
        now.duration_since(begun)
    }
}

impl Talk {
    fn new(line: Line) -> Self {
        let slots = line.in_flight_max;
        Self {
            line,
            slots: vec![None; slots as usize],
            free: (0..slots).collect(),
            issued: 0,
            rests_until: None,
        }
    }

    fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    fn rests(&mut self, now: Instant) -> bool {
        self.rests_until = self.rests_until.filter(|until| *until > now);
        self.rests_until.is_some()
    }

    fn ask(&mut self, intended: Instant, key: u64, writes: bool) {
        let slot = self.free.pop().expect("the caller has looked for room");
        self.issued += 1;
        let request_id = self.issued * self.slots.len() as u64 + u64::from(slot);
        self.slots[slot as usize] = Some((intended, request_id));
        let name = format!("key {key:06}");
        let request = if writes {
            let write =
                Write { namespace: 0, key: name.as_bytes(), durability: Durability::Sync, stamp: None };
            Request::Put(Put { write, ttl: Ttl::NamespaceDefault, value: &[b'v'; VALUE_BYTES] })
        } else {
            Request::Get(KeyRequest { namespace: 0, key: name.as_bytes() })
        };
        self.line.push(request_id, &request);
    }

    fn receive(&mut self, now: Instant, chunk: &mut [u8], round: &mut Round) {
        let Self { line, slots, free, rests_until, .. } = self;
        let open = line.receive(chunk, |header, response| {
            let slot = (header.request_id % slots.len() as u64) as usize;
            let (intended, request_id) = slots[slot].take().expect("every answer answers a request");
            assert_eq!(header.request_id, request_id, "an answer to a request of the past");
            free.push(slot as u32);
            match response {
                Response::Get(reply) => {
                    let value = reply.value.expect("every key has been written");
                    assert_eq!(value.bytes, [b'v'; VALUE_BYTES]);
                }
                Response::Put(written) => assert_ne!(written.outcome, WriteOutcome::Missing),
                Response::Error { error, .. } => {
                    let refused = error.code == ErrorCode::Overloaded && error.outcome == Outcome::NotApplied;
                    assert!(refused, "{:?}: {}", error.code, error.message);
                    round.refused += 1;
                    let rest = Duration::from_millis(u64::from(error.retry_after_ms));
                    *rests_until = Some(now + rest).max(*rests_until);
                    return;
                }
                other => panic!("a GET or PUT was answered by opcode {}", other.opcode()),
            }
            round.accepted += 1;
            round.latencies_us.saturating_record(now.duration_since(intended).as_micros() as u64);
        });
        assert!(open.expect("the connection lives"), "the server has closed the connection");
    }
}

/// A key and whether it is written.
fn choose(random: &mut Random) -> (u64, bool) {
    let number = random.next_u64();
    (number % KEYS, (number >> 32).is_multiple_of(WRITE_EVERY))
}
