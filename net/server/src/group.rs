//! Requests of one connection that lie together in one chunk.
//!
//! Small gets spend most of their time waiting for memory: the index's slot, the record's header, the
//! record. Those of a group are therefore dealt with in a pipeline: while one is answered, memory is on
//! its way for those behind it (software pipelining: Kocberber, Falsafi, Grot, "Asynchronous memory
//! access chaining", 2015). Gets that follow each other and that memory can answer are answered straight
//! into the connection's out buffer, with what is checked and counted for all of them done once.

use std::cell::Cell;
use std::ops::Range;

use pinion_engine::{Ahead, Key};
use pinion_env::Monotonic;
use pinion_protocol::{Frames, Header};

use crate::connection::{Connection, Finished};
use crate::coordinator::get_here;
use crate::core::{Core, CoreShard, ReplyTo, Ticket};
use crate::counters::{OperationClass, add};
use crate::message::ServerEnv;
use crate::read;
use crate::watch;

/// Requests that are looked at before the first of them is dealt with, at most.
pub(crate) const GROUP_MAX: usize = 16;
/// How many gets have their headers asked for together.
pub(crate) const HEADERS_TOGETHER: usize = 4;
/// How many requests later they have: by then their places in the index have come.
pub(crate) const HEADERS_BETWEEN: usize = 2;
/// How many requests before its own turn the record of a get is asked for.
pub(crate) const RECORD_AHEAD: usize = 6;

/// A GET of a key of this core.
pub(crate) struct Get<'c, 'a, E: ServerEnv> {
    pub(crate) shard: &'c CoreShard<E>,
    pub(crate) key: Key<'a>,
    pub(crate) request_id: u64,
    pub(crate) deadline_us: u32,
    pub(crate) ahead: Ahead,
}

impl<'c, 'a, E: ServerEnv> Get<'c, 'a, E> {
    /// What asks for a key of this shard.
    #[inline]
    pub(crate) fn new(header: &Header, shard: &'c CoreShard<E>, key: Key<'a>) -> Self {
        let Header { request_id, deadline_us, .. } = *header;
        Self { shard, key, request_id, deadline_us, ahead: Ahead::default() }
    }
}

/// Whole frames at the front of a chunk, at most `MAX`.
pub(crate) struct Group<'c, 'a, E: ServerEnv, const MAX: usize> {
    /// Their bytes: a decoded frame is larger than it takes to decode it again.
    frames: [&'a [u8]; MAX],
    gets: [Option<Get<'c, 'a, E>>; MAX],
    count: usize,
    /// So many, from the first on, have had their headers asked for.
    headers: usize,
    /// So many, from the first on, have had their records asked for.
    records: Cell<usize>,
}

/// How far [`Group::answer_gets`] came.
pub(crate) struct Run {
    /// Gets answered.
    pub(crate) answered: usize,
    /// It ended at a get that memory cannot answer.
    pub(crate) needs_read: bool,
}

/// The turn in which a group is dealt with.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    /// When its bytes were received.
    pub(crate) received: Monotonic,
    /// The time of the turn.
    pub(crate) now: Monotonic,
}

impl<'c, 'a, E: ServerEnv> Group<'c, 'a, E, 1> {
    /// A get that came by itself, whose memory has been asked for. Without its frame.
    #[inline]
    pub(crate) fn alone(get: Get<'c, 'a, E>) -> Self {
        Self { frames: [&[]], gets: [Some(get)], count: 1, headers: 1, records: Cell::new(1) }
    }
}

impl<'c, 'a, E: ServerEnv, const MAX: usize> Group<'c, 'a, E, MAX> {
    /// No frames yet. To be filled where it lies: of [`GROUP_MAX`] it is some 3 KiB.
    #[inline]
    pub(crate) fn new() -> Self {
        // A constant would be copied as a whole, what is made here is marked as empty.
        Self {
            frames: [&[]; MAX],
            gets: std::array::from_fn(|_| None),
            count: 0,
            headers: 0,
            records: Cell::new(0),
        }
    }

    /// Takes the frames that lie whole at the front of `bytes`.
    pub(crate) fn fill(&mut self, core: &'c Core<E>, frames: &Frames, bytes: &'a [u8]) {
        let mut rest = bytes;
        while self.count < MAX {
            let front = rest;
            let Some(frame) = frames.next_in_place(&mut rest) else { break };
            let get = get_here(core, &frame);
            if let Some(get) = &get {
                get.shard.look_ahead(get.key.hash);
            }
            self.gets[self.count] = get;
            self.frames[self.count] = &front[..frame.header.frame_bytes as usize];
            self.count += 1;
            if self.count - self.headers == HEADERS_TOGETHER + HEADERS_BETWEEN {
                self.look_ahead_headers(core, HEADERS_TOGETHER);
            }
            // One by one: the processor forgets some of what is asked for all at once.
            if self.records.get() + HEADERS_TOGETHER < self.headers {
                self.look_ahead_record();
            }
        }
        if self.count > 1 {
            self.look_ahead_headers(core, self.count - self.headers);
        }
    }

    /// Asks for the headers of the next so many.
    fn look_ahead_headers(&mut self, core: &'c Core<E>, count: usize) {
        let gets = &mut self.gets[self.headers..self.headers + count];
        for (_, shard) in core.shards() {
            let gets = gets.iter_mut().flatten().filter(|get| std::ptr::eq(get.shard, shard));
            shard.look_ahead_headers(gets.map(|get| (get.key.hash, &mut get.ahead)));
        }
        self.headers += count;
    }

    /// Asks for the record of the next one.
    #[inline]
    fn look_ahead_record(&self) {
        let at = self.records.get();
        if let Some(Some(Get { shard, key, ahead, .. })) = self.gets.get(at) {
            shard.look_ahead_record(key.hash, *ahead);
        }
        self.records.set(at + 1);
    }

    /// The bytes of the frames.
    pub(crate) fn frames(&self) -> &[&'a [u8]] {
        &self.frames[..self.count]
    }

    /// The get that a frame is, if it is one of a key of this core.
    pub(crate) fn get(&self, at: usize) -> Option<&Get<'c, 'a, E>> {
        self.gets[at].as_ref()
    }

    /// Answers the gets from `from` on, at most `requests_max`, as far as there is nothing else between
    /// them, memory can answer, and nothing speaks against them. What it ends at has not been dealt with.
    pub(crate) fn answer_gets(
        &self,
        core: &Core<E>,
        connection: &Connection,
        from: usize,
        requests_max: usize,
        moment: Moment,
    ) -> Run {
        let mut run = Run { answered: 0, needs_read: false };
        if self.gets[from].is_none() || !core.admits_more() {
            return run;
        }
        let end = self.count.min(from + requests_max);
        while self.records.get() < end.min(from + RECORD_AHEAD) {
            self.look_ahead_record();
        }
        let room = core.out_room(connection);
        let mut out = connection.out.borrow_mut();
        let received = moment.received;
        let mut alike = Finished { class: OperationClass::Read, namespace: 0, received, count: 0 };
        for at in from..end {
            let Some(get) = &self.gets[at] else { break };
            let Get { shard, key, request_id, deadline_us, ahead } = get;
            let late = core.deadline(moment.received, *deadline_us).is_some_and(|by| by <= moment.now);
            if late || out.len() >= room || !core.is_live(key.namespace.0) {
                break;
            }
            if self.records.get() < self.count {
                self.look_ahead_record();
            }
            let answered = shard.get_ahead(key, *ahead, |record| {
                if out.capacity() == 0 {
                    *out = core.take_buffer();
                }
                read::put_answer(core, *request_id, record, &mut out);
            });
            if answered.is_err() {
                run.needs_read = true;
                break;
            }
            run.answered += 1;
            if key.namespace.0 != alike.namespace {
                if alike.count > 0 {
                    connection.finish_at_once(alike);
                }
                alike = Finished { namespace: key.namespace.0, count: 0, ..alike };
            }
            alike.count += 1;
        }
        drop(out);
        if run.answered > 0 {
            let answered = run.answered as u64;
            add(&core.counters.frames, answered);
            add(&core.counters.answers, answered);
            add(&core.counters.gets_in_memory, answered);
            connection.finish_at_once(alike);
            core.count_out(connection);
            core.access_all(answered as u32, |at| self.get(from + at).map(|get| get.key));
            if core.watch.is_slow(moment.received) {
                self.note_slow(core, connection, from..from + run.answered, moment);
            }
        }
        run
    }

    /// Notes gets that have been answered and had waited for long.
    #[cold]
    fn note_slow(&self, core: &Core<E>, connection: &Connection, gets: Range<usize>, moment: Moment) {
        let reply = ReplyTo::Connection(connection.id);
        for Get { key, request_id, .. } in self.gets[gets].iter().flatten() {
            let ticket = Ticket::of_get(reply, key.namespace.0, *request_id, moment);
            core.trail(&ticket, key);
            core.look_back(&ticket, connection, watch::OK);
        }
    }
}
