//! A connection after HELLO, to its last byte.
//!
//! One task runs in turns: take what was received, decode frames in place, hand each to the
//! coordinator, and start one send for every answer that has gathered. At most one send is in
//! flight; answers that complete meanwhile gather for the next one.
//!
//! Limits: a connection with too many requests or too many bytes outstanding is left unread
//! (mid-chunk if need be: the rest of the chunk is copied aside) until half of the bytes have
//! left. What all connections may hold together is the subject of `pressure`. A turn takes at most
//! `turn_chunks_max` chunks and `turn_requests_max` requests.
//!
//! Requests that come together are the subject of `group`. A get that comes alone is mostly answered before
//! the task would run: see `prompt`.
//!
//! Failure: bytes that are no frame are answered with an error and the connection ends, because
//! the next frame cannot be found. A body that makes no sense costs only its own request.
//!
//! A connection that began with RESP differs in what is read: commands, of which one may have to wait
//! for those before it; then the connection is left unread until an answer has been given (see `resp`).

use std::rc::Rc;
use std::task::{Context, Poll};

use pinion_env::{Monotonic, Socket};
use pinion_protocol::resp::reply;
use pinion_protocol::{Extension, Frame, Frames, Opcode, ProtocolError};

use crate::connection::Connection;
use crate::coordinator::{self, Arrival};
use crate::core::{Core, Phase, ReplyTo, Ticket};
use crate::counters::add;
use crate::group::{GROUP_MAX, Get, Group, Moment};
use crate::message::ServerEnv;
use crate::prompt::Prompt;
use crate::refusal::Refusal;
use crate::resp::{Intake, Taken};
use crate::watch::Listener;

/// A connection after HELLO.
pub(crate) struct Session<E: ServerEnv> {
    core: Rc<Core<E>>,
    connection: Rc<Connection>,
    socket: E::Socket,
    frames: Frames,
    /// Frames that [`Session::frames`] had gathered when its bytes were last counted: another number
    /// means that another frame is incomplete now.
    gathered_frames: u64,
    /// Of a RESP connection: what reads its commands.
    resp: Option<Box<Intake>>,
    /// Received, but not dealt with: too much was outstanding.
    stash: Vec<u8>,
    stash_received: Monotonic,
    /// Whether requests are still taken: neither has the peer closed nor sent garbage.
    reading: bool,
    paused: bool,
}

/// What is left of one turn of a connection.
struct Turn {
    chunks_left: u32,
    requests_left: u32,
    /// One look at the clock for everything that is taken in this turn.
    now: Option<Monotonic>,
}

impl Turn {
    const fn is_spent(&self) -> bool {
        self.chunks_left == 0 || self.requests_left == 0
    }
}

impl<E: ServerEnv> Session<E> {
    fn new(core: &Rc<Core<E>>, connection: &Rc<Connection>, socket: E::Socket) -> Self {
        socket.handle_with(Rc::new(Prompt::new(core, connection)));
        Self {
            core: Rc::clone(core),
            connection: Rc::clone(connection),
            socket,
            frames: Frames::new(core.limits().frame_bytes_max),
            gathered_frames: 0,
            resp: None,
            stash: Vec::new(),
            stash_received: Monotonic::default(),
            reading: true,
            paused: false,
        }
    }

    /// A session that takes requests from now on; `received` is what came behind HELLO.
    pub(crate) fn streaming(
        core: &Rc<Core<E>>,
        connection: &Rc<Connection>,
        socket: E::Socket,
        received: &[u8],
    ) -> Self {
        socket.start_streaming();
        let mut session = Self::new(core, connection, socket);
        session.stash.extend_from_slice(received);
        session.stash_received = core.env.now();
        session
    }

    /// A session that takes commands of RESP from now on; `received` is what came so far.
    pub(crate) fn of_commands(
        core: &Rc<Core<E>>,
        connection: &Rc<Connection>,
        socket: E::Socket,
        received: &[u8],
    ) -> Self {
        let intake = Intake::new(core, connection);
        let mut session = Self::streaming(core, connection, socket, received);
        session.resp = Some(Box::new(intake));
        session
    }

    /// A session that only says why there is none, to a RESP connection.
    pub(crate) fn refusing_commands(
        core: &Rc<Core<E>>,
        connection: &Rc<Connection>,
        socket: E::Socket,
        text: &str,
    ) -> Self {
        let mut session = Self::new(core, connection, socket);
        session.reading = false;
        reply::error(&mut connection.out.borrow_mut(), text.as_bytes());
        session
    }

    /// A session that only says why there is none.
    pub(crate) fn refusing(
        core: &Rc<Core<E>>,
        connection: &Rc<Connection>,
        socket: E::Socket,
        request_id: u64,
        refusal: &Refusal<'_>,
    ) -> Self {
        let mut session = Self::new(core, connection, socket);
        session.reading = false;
        let hello = Opcode::Hello.to_u8();
        refusal.put(hello, request_id, core.stamp_seen.get(), &mut connection.out.borrow_mut());
        session
    }

    /// Runs once: takes what was received, starts a send if there is something to send. Ready when
    /// the connection has ended.
    pub(crate) fn turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.connection.run(context.waker());
        if self.connection.is_evicted() && self.reading {
            self.give_up_gathering();
        }
        let limits = self.core.limits();
        let mut turn =
            Turn { chunks_left: limits.turn_chunks_max, requests_left: limits.turn_requests_max, now: None };
        if self.connection.is_doomed() || !self.receive(context, &mut turn) {
            return Poll::Ready(());
        }
        if !self.connection.is_sending() && !self.connection.out.borrow().is_empty() {
            self.start_send(turn.now);
        }
        if self.is_finished() {
            return Poll::Ready(());
        }
        // A send that is stuck does not keep a command waiting.
        let sending = self.connection.is_sending() && !self.waits();
        let wants_chunk = self.resp.is_none() && self.stash.is_empty() && self.frames.waiting_bytes() == 0;
        self.connection.rest(sending, self.paused || !self.reading, wants_chunk);
        Poll::Pending
    }

    /// Takes chunks until there is none, too much is outstanding, or the turn is over. False when
    /// the connection is broken.
    fn receive(&mut self, context: &mut Context<'_>, turn: &mut Turn) -> bool {
        while self.reading && self.core.phase.get() < Phase::Ending {
            if self.core.is_over(&self.connection, self.paused) {
                if !std::mem::replace(&mut self.paused, true) {
                    add(&self.core.counters.receive_pauses, 1);
                    self.socket.pause_receive();
                }
                return true;
            }
            self.paused = false;
            if turn.is_spent() {
                context.waker().wake_by_ref();
                return true;
            }
            // A command that waits may have been gathered from chunks that are gone.
            if !self.stash.is_empty() || self.waits() {
                let mut stash = std::mem::take(&mut self.stash);
                turn.now.get_or_insert_with(|| self.core.tick());
                let used = self.consume(&stash, self.stash_received, turn);
                stash.drain(..used);
                self.stash = stash;
                if self.waits() {
                    // The answer that it waits for runs this task.
                    return !self.connection.is_doomed();
                }
                continue;
            }
            turn.chunks_left -= 1;
            match self.socket.poll_receive(context) {
                Poll::Ready(Ok(Some(chunk))) => {
                    add(&self.core.counters.received_chunks, 1);
                    add(&self.core.counters.received_bytes, chunk.len() as u64);
                    let received = *turn.now.get_or_insert_with(|| self.core.tick());
                    self.connection.heard.set(received);
                    let used = self.consume(&chunk, received, turn);
                    if used < chunk.len() {
                        self.stash(&chunk[used..], received);
                    }
                    if self.waits() {
                        return !self.connection.is_doomed();
                    }
                }
                Poll::Ready(Ok(None)) => self.reading = false,
                Poll::Ready(Err(_)) => return false,
                Poll::Pending => return true,
            }
        }
        self.paused = false;
        true
    }

    fn stash(&mut self, bytes: &[u8], received: Monotonic) {
        self.stash.extend_from_slice(bytes);
        self.stash_received = received;
    }

    /// Hands the frames in `bytes` to the coordinator until too much is outstanding or the turn is
    /// over. Returns how many bytes were used.
    fn consume(&mut self, bytes: &[u8], received: Monotonic, turn: &mut Turn) -> usize {
        let before = turn.requests_left;
        let used = match self.resp.is_some() {
            true => self.consume_commands(bytes, received, turn),
            false => self.consume_frames(bytes, received, turn),
        };
        let taken = before - turn.requests_left;
        if taken > 0 {
            let now = turn.now.unwrap_or(received);
            let delay_ns = now.nanos().saturating_sub(received.nanos());
            self.core.latencies.queued(delay_ns, u64::from(taken));
        }
        used
    }

    /// As [`Session::consume`] for frames.
    fn consume_frames(&mut self, bytes: &[u8], received: Monotonic, turn: &mut Turn) -> usize {
        let mut rest = bytes;
        while self.takes_requests(turn) {
            if self.consume_group(&mut rest, received, turn) {
                continue;
            }
            match self.frames.next_frame(&mut rest) {
                Ok(Some(frame)) => {
                    let moment = Moment { received, now: turn.now.unwrap_or(received) };
                    turn.requests_left -= 1;
                    arrive(&self.core, &self.connection, &frame, None, moment);
                }
                Ok(None) => break,
                Err(error) => {
                    self.give_up(&Refusal::protocol(&error));
                    break;
                }
            }
        }
        self.count_gathered(received);
        if self.reading { bytes.len() - rest.len() } else { bytes.len() }
    }

    /// As [`Session::consume`] for commands of RESP, until one must wait.
    fn consume_commands(&mut self, bytes: &[u8], received: Monotonic, turn: &mut Turn) -> usize {
        let mut rest = bytes;
        if let Some(intake) = &mut self.resp {
            intake.begin();
        }
        while self.takes_requests(turn) {
            let moment = Moment { received, now: turn.now.unwrap_or(received) };
            let Some(intake) = &mut self.resp else { break };
            match intake.take(&self.core, &self.connection, &mut rest, moment) {
                Taken::Command => turn.requests_left -= 1,
                Taken::Waits | Taken::Nothing => break,
                Taken::End => self.reading = false,
                Taken::Close => {
                    self.reading = false;
                    self.connection.doom();
                }
            }
        }
        self.count_gathered(received);
        if self.reading { bytes.len() - rest.len() } else { bytes.len() }
    }

    /// Whether the next command must wait for one that is under way.
    fn waits(&self) -> bool {
        self.reading && self.resp.as_ref().is_some_and(|intake| intake.waits())
    }

    /// As [`Session::consume`] for some frames that lie whole in `rest`, the first of them a GET. False if there
    /// is none.
    fn consume_group(&self, rest: &mut &[u8], received: Monotonic, turn: &mut Turn) -> bool {
        // Nothing is gained by looking at others before anything else than a GET.
        let first = self.frames.next_in_place(&mut { *rest });
        if first.is_none_or(|first| first.header.opcode != Opcode::Get.to_u8()) {
            return false;
        }
        let mut group = Group::<E, GROUP_MAX>::new();
        group.fill(&self.core, &self.frames, rest);
        let moment = Moment { received, now: turn.now.unwrap_or(received) };
        let frames = group.frames();
        let mut done = 0;
        while done < frames.len() && self.takes_requests(turn) {
            let most = turn.requests_left as usize;
            let run = group.answer_gets(&self.core, &self.connection, done, most, moment);
            turn.requests_left -= run.answered as u32;
            done += run.answered;
            if done < frames.len() && self.takes_requests(turn) {
                let get = group.get(done).filter(|_| run.needs_read);
                let frame = self.frames.next_in_place(&mut { frames[done] });
                let frame = frame.expect("a group is made of whole frames");
                turn.requests_left -= 1;
                arrive(&self.core, &self.connection, &frame, get, moment);
                done += 1;
            }
        }
        let used: usize = frames[..done].iter().map(|frame| frame.len()).sum();
        *rest = &rest[used..];
        true
    }

    /// Whether another request may be taken in this turn.
    fn takes_requests(&self, turn: &Turn) -> bool {
        self.reading && turn.requests_left > 0 && !self.core.is_over(&self.connection, false)
    }

    /// Says why no more requests are taken.
    fn give_up(&mut self, refusal: &Refusal<'_>) {
        add(&self.core.counters.frames_bad, 1);
        self.reading = false;
        // A frame that is only too long says which request it is; of garbage nothing is known.
        let (opcode, request_id) =
            self.frames.failed_header().map_or((0, 0), |header| (header.opcode, header.request_id));
        let mut out = self.connection.out.borrow_mut();
        refusal.put(opcode, request_id, self.core.stamp_seen.get(), &mut out);
    }

    /// Keeps the core's sum of bytes in incomplete frames. Somebody's frame has to go when it is over
    /// the bound: perhaps this one.
    fn count_gathered(&mut self, received: Monotonic) {
        let (gathered, frames) = match &self.resp {
            None => (self.frames.waiting_bytes(), self.frames.gathered_frames()),
            Some(intake) => (intake.waiting_bytes(), intake.gathered_commands()),
        };
        let another = self.connection.gathered_bytes.get() == 0 || frames != self.gathered_frames;
        self.gathered_frames = frames;
        if gathered != self.connection.gathered_bytes.get() {
            self.core.count_gathered(&self.connection, gathered, another.then_some(received));
        }
        if self.connection.is_evicted() && self.reading {
            self.give_up_gathering();
        }
    }

    /// The incomplete frame has to go: says so to whoever sent it, if its header has come.
    fn give_up_gathering(&mut self) {
        self.stash = Vec::new();
        self.reading = false;
        if let Some(intake) = &mut self.resp {
            return intake.give_up(&self.core, &self.connection);
        }
        let header = self.frames.waiting_header();
        let (opcode, request_id) = header.map_or((0, 0), |header| (header.opcode, header.request_id));
        add(&self.core.counters.frames_gathered, self.frames.gathered_frames());
        self.frames = Frames::new(self.core.limits().frame_bytes_max);
        add(&self.core.counters.overloaded, 1);
        let retry_ms = self.core.limits().overload_retry_ms;
        let refusal = Refusal::overloaded("too many bytes of incomplete frames", retry_ms);
        let mut out = self.connection.out.borrow_mut();
        refusal.put(opcode, request_id, self.core.stamp_seen.get(), &mut out);
    }

    /// Nothing is left to do: no more requests come, and every answer has left.
    fn is_finished(&self) -> bool {
        let ending = self.core.phase.get() == Phase::Ending;
        (ending || (!self.reading && self.connection.requests.get() == 0))
            && !self.connection.is_sending()
            && self.connection.out.borrow().is_empty()
    }

    /// Sends what waits. `began`: when the turn took requests, if it did.
    fn start_send(&mut self, began: Option<Monotonic>) {
        let now = self.core.tick();
        let listener = if self.resp.is_some() { Listener::Resp } else { Listener::Native };
        if let Some(began) = began {
            self.core.latencies.turn(now.nanos().saturating_sub(began.nanos()));
        }
        self.socket.start_send(to_send(&self.core, &self.connection, listener, now));
    }

    /// Gives back what the connection holds of the core.
    pub(crate) fn end(self) {
        self.core.forget_bytes(&self.connection);
        add(&self.core.counters.frames_gathered, self.frames.gathered_frames());
        self.core.give_buffer(self.connection.out.take());
    }
}

/// Takes what waits to be sent and counts the requests that it answers.
pub(crate) fn to_send<E: ServerEnv>(
    core: &Core<E>,
    connection: &Connection,
    listener: Listener,
    now: Monotonic,
) -> Vec<Vec<u8>> {
    let out = connection.out.take();
    connection.take_finished(|run| {
        let took_ns = now.nanos().saturating_sub(run.received.nanos());
        core.latencies.record(run.class, took_ns, u64::from(run.count));
        core.watch.usage.finished(listener, run, took_ns, |id| core.is_live(id));
    });
    add(&core.counters.sends, 1);
    connection.sending_bytes.set(out.len());
    connection.sending_since.set(now);
    let mut list = connection.send_list.take();
    list.push(out);
    list
}

/// Counts a request in and hands it to the coordinator; `get` is what it is, if memory cannot answer it.
pub(crate) fn arrive<E: ServerEnv>(
    core: &Rc<Core<E>>,
    connection: &Connection,
    frame: &Frame<'_>,
    get: Option<&Get<'_, '_, E>>,
    moment: Moment,
) {
    add(&core.counters.frames, 1);
    connection.requests.set(connection.requests.get() + 1);
    let Frame { header, extension, body } = *frame;
    let deadline = core.deadline(moment.received, header.deadline_us);
    let ticket = Ticket::new(ReplyTo::Connection(connection.id), (&header, body), moment, deadline);
    if header.is_extended()
        && let Err(error) = keep_trace(connection, header.request_id, extension)
    {
        core.begin();
        return core.refuse(&ticket, &Refusal::protocol(&error));
    }
    coordinator::arrive(core, &Arrival { ticket, header, body, now: moment.now, get });
}

/// Remembers the trace that a request's header names, if it does.
#[cold]
fn keep_trace(connection: &Connection, request_id: u64, extension: &[u8]) -> Result<(), ProtocolError> {
    if let Some(trace) = Extension::read(extension)?.trace {
        connection.keep_trace(request_id, trace);
    }
    Ok(())
}
