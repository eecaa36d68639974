//! What happens to a connection at once, outside of its task: the ends of its sends, and gets that come alone.
//!
//! A client that waits for each answer sends one small request at a time. To have a task woken and run for
//! it costs more than the answer. So a chunk that is one GET of a key of this core, and nothing else, is
//! answered where it arrives, if memory can; if not, its read begins there. Its memory is asked for when it
//! arrives, and it is answered when all that arrived together have been looked at. Everything else is left to
//! the task.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use pinion_engine::{Ahead, Key, NamespaceId, Partition};
use pinion_env::{Answer, Monotonic, SocketHandler};
use pinion_protocol::Frames;

use crate::connection::{Connection, ConnectionId};
use crate::coordinator::{Place, get_here};
use crate::core::{Core, Phase};
use crate::counters::add;
use crate::group::{Get, Group, HEADERS_BETWEEN, HEADERS_TOGETHER, Moment, RECORD_AHEAD};
use crate::message::ServerEnv;
use crate::session;
use crate::watch::Listener;

/// So many gets are answered by one look at the clock: each takes well below a microsecond, unless its value is
/// larger than this many bytes.
const ANSWERS_PER_TICK: usize = 4;
const VALUE_BYTES_PER_TICK: usize = 4 << 10;

/// The handler of a connection's socket.
pub(crate) struct Prompt<E: ServerEnv> {
    core: Rc<Core<E>>,
    connection: Rc<Connection>,
    /// Gathers nothing.
    frames: Frames,
    /// Which of those that arrived together is this connection's.
    at: Cell<usize>,
}

/// The gets of one core that arrived together.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    gets: RefCell<Vec<Arrived>>,
    /// When the first of them did.
    received: Cell<Monotonic>,
    /// How many have been answered or left to tasks.
    answered: Cell<usize>,
    /// So many, from the first on, have had their headers asked for.
    headers: Cell<usize>,
    /// So many, from the first on, have had their records asked for.
    records: Cell<usize>,
}

/// A get whose key is the end of its chunk.
#[derive(Debug, Clone, Copy)]
struct Arrived {
    connection: ConnectionId,
    request_id: u64,
    deadline_us: u32,
    namespace: NamespaceId,
    partition: Partition,
    key_bytes: usize,
    hash: u64,
    ahead: Ahead,
}

impl Arrivals {
    /// Takes one more in and asks for memory; returns its place.
    fn take_in<E: ServerEnv>(&self, core: &Core<E>, connection: ConnectionId, get: &Get<'_, '_, E>) -> usize {
        get.shard.look_ahead(get.key.hash);
        let mut gets = self.gets.borrow_mut();
        if gets.is_empty() || self.answered.get() > 0 {
            gets.clear();
            self.received.set(core.tick());
            [&self.answered, &self.headers, &self.records].into_iter().for_each(|count| count.set(0));
        }
        let Key { partition, namespace, user, hash } = get.key;
        let (request_id, deadline_us) = (get.request_id, get.deadline_us);
        let (key_bytes, ahead) = (user.len(), Ahead::default());
        gets.push(Arrived {
            connection,
            request_id,
            deadline_us,
            namespace,
            partition,
            key_bytes,
            hash,
            ahead,
        });
        if gets.len() - self.headers.get() == HEADERS_TOGETHER + HEADERS_BETWEEN {
            self.look_ahead_headers(core, &mut gets, HEADERS_TOGETHER);
        }
        if self.records.get() + HEADERS_TOGETHER < self.headers.get() {
            self.look_ahead_record(core, &gets);
        }
        gets.len() - 1
    }

    /// The one at a place, which is to be answered, with the memory of those behind it asked for.
    fn take_out<E: ServerEnv>(&self, core: &Core<E>, at: usize) -> Arrived {
        let mut gets = self.gets.borrow_mut();
        if self.headers.get() < gets.len() && gets.len() > 1 {
            let left = gets.len() - self.headers.get();
            self.look_ahead_headers(core, &mut gets, left);
        }
        if self.answered.get().is_multiple_of(ANSWERS_PER_TICK) {
            core.tick();
        }
        self.answered.set(self.answered.get() + 1);
        // Two for each, until as many have theirs as are kept ahead.
        for _ in 0..2 {
            if self.records.get() < self.headers.get().min(at + RECORD_AHEAD) {
                self.look_ahead_record(core, &gets);
            }
        }
        gets[at]
    }

    fn look_ahead_headers<E: ServerEnv>(&self, core: &Core<E>, gets: &mut [Arrived], count: usize) {
        let from = self.headers.get();
        let gets = &mut gets[from..from + count];
        for (number, shard) in core.shards() {
            let gets = gets.iter_mut().filter(|get| core.shard_of(get.partition) == number);
            shard.look_ahead_headers(gets.map(|get| (get.hash, &mut get.ahead)));
        }
        self.headers.set(from + count);
    }

    fn look_ahead_record<E: ServerEnv>(&self, core: &Core<E>, gets: &[Arrived]) {
        let at = self.records.get();
        let Arrived { partition, hash, ahead, .. } = gets[at];
        if let Place::Here(shard) = core.place(partition) {
            shard.look_ahead_record(hash, ahead);
        }
        self.records.set(at + 1);
    }
}

impl<E: ServerEnv> Prompt<E> {
    pub(crate) fn new(core: &Rc<Core<E>>, connection: &Rc<Connection>) -> Self {
        Self {
            core: Rc::clone(core),
            connection: Rc::clone(connection),
            frames: Frames::new(core.limits().frame_bytes_max),
            at: Cell::new(0),
        }
    }
}

impl<E: ServerEnv> SocketHandler for Prompt<E> {
    fn sent(&self, outcome: io::Result<()>, mut buffers: Vec<Vec<u8>>) {
        let Self { core, connection, .. } = self;
        add(&core.counters.sent_bytes, connection.sending_bytes.take() as u64);
        core.count_out(connection);
        buffers.drain(..).for_each(|buffer| core.give_buffer(buffer));
        connection.send_list.replace(buffers);
        match outcome {
            Ok(()) => connection.sent(core.phase.get() == Phase::Ending),
            Err(_) => connection.doom(),
        }
    }

    fn arrived(&self, chunk: &[u8]) -> bool {
        if !self.connection.wants_chunk() || self.core.is_over(&self.connection, false) {
            return false;
        }
        let mut rest = chunk;
        let frame = self.frames.next_in_place(&mut rest).filter(|_| rest.is_empty());
        let get = frame.and_then(|frame| get_here(&self.core, &frame));
        get.is_some_and(|get| {
            self.at.set(self.core.arrivals.take_in(&self.core, self.connection.id, &get));
            true
        })
    }

    fn answer(&self, chunk: &[u8]) -> Answer {
        let Self { core, connection, .. } = self;
        let arrived = core.arrivals.take_out(core, self.at.get());
        let Arrived { request_id, deadline_us, namespace, partition, key_bytes, hash, ahead, .. } = arrived;
        // Nobody's value may go to another, whatever else goes wrong.
        if arrived.connection != connection.id || !connection.wants_chunk() {
            return Answer::Left;
        }
        let Place::Here(shard) = core.place(partition) else { return Answer::Left };
        let (_, user) = chunk.split_at(chunk.len() - key_bytes);
        let key = Key { partition, namespace, user, hash };
        let moment = Moment { received: core.arrivals.received.get(), now: core.watch.last_tick() };
        let group = Group::alone(Get { shard, key, request_id, deadline_us, ahead });
        let run = group.answer_gets(core, connection, 0, 1, moment);
        if run.answered == 0 && !run.needs_read {
            return Answer::Left;
        }
        connection.heard.set(moment.received);
        add(&core.counters.received_chunks, 1);
        add(&core.counters.received_bytes, chunk.len() as u64);
        core.latencies.queued(moment.now.nanos().saturating_sub(moment.received.nanos()), 1);
        if run.needs_read {
            let frame = self.frames.next_in_place(&mut { chunk }).expect("it was read when it arrived");
            session::arrive(core, connection, &frame, group.get(0), moment);
            return Answer::Later;
        }
        let is_large = connection.out.borrow().len() > VALUE_BYTES_PER_TICK;
        let now = if is_large { core.tick() } else { moment.now };
        connection.send_without_task();
        Answer::Send(session::to_send(core, connection, Listener::Native, now))
    }
}
