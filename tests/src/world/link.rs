//! Links: the byte streams between a client and a node.
//!
//! A connection is two pipes. A pipe carries what its sender started to send, piece by piece after a
//! latency, into the receiver's small window; from there it is cut into chunks when the receiver has
//! asked for them. Sizes and latencies come from the seed: frames span chunks, chunks hold several
//! frames, and a receiver that does not ask stops its sender.
//!
//! Bytes are never lost or reordered in a stream that lives, and a side that closes still delivers
//! what it has started to send. How a stream may stop, break or fall silent: `link_faults`. When a
//! process dies, what it had not delivered is cut off; the other side then sees the end of the stream,
//! or a reset if the dead one had bytes it never took.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use pinion_env::{Answer, SocketHandler};

use super::link_faults::nanos;
use super::random::Random;
use super::scheduler::ProcessId;
use super::shared::Shared;
use super::trace::Step;

/// Longest time that a piece of a stream or a connection attempt is on its way.
pub(super) const LATENCY_NANOS_MAX: u64 = 200_000;

/// Half of what comes to a receiver that may answer at once comes at multiples of this time: together with
/// what others have sent, as a core finds it that was busy meanwhile.
const ARRIVALS_NANOS: u64 = 100_000;

/// Bounds of the receive window, in bytes; drawn for each pipe.
const WINDOW_BYTES_MIN: u64 = 1 << 10;
const WINDOW_BYTES_MAX: u64 = 1 << 15;

/// Longest receive window of a pipe that is meant to have a tiny one, in bytes.
const TINY_WINDOW_BYTES_MAX: u64 = 64;

/// How long a sender waits in a hole before it gives up.
const GIVE_UP_NANOS_MIN: u64 = 500_000_000;
const GIVE_UP_NANOS_MAX: u64 = 20_000_000_000;

/// Longest chunk, in bytes.
const CHUNK_BYTES_MAX: u64 = 4096;

/// Receive window and longest chunk of a pipe that cuts nothing, in bytes: the chunk is that of a real
/// core's receive buffer.
const WHOLE_WINDOW_BYTES: usize = 1 << 20;
const WHOLE_CHUNK_BYTES_MAX: usize = 16 << 10;

/// Chunks that a receiver holds without having taken them.
const CHUNKS_MAX: usize = 4;

/// What the receiver has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Armed {
    Off,
    /// One chunk.
    Once,
    /// Chunks until it is told to stop.
    Stream,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
    /// The peer has not been heard of for too long.
    TimedOut,
}

/// A send in flight: the buffers and how far they have been delivered.
struct Sending {
    buffers: Vec<Vec<u8>>,
    buffer: usize,
    offset: usize,
}

type Sent = (io::Result<()>, Vec<Vec<u8>>);

/// One direction of a connection.
pub(super) struct Pipe {
    number: u64,
    /// The other direction.
    other: RefCell<Weak<Self>>,
    state: RefCell<State>,
}

struct State {
    sending: Option<Sending>,
    sent: Option<Sent>,
    sender: Option<Waker>,
    /// Who is told of ends of sends, instead of `sender`.
    send_end: Option<Rc<dyn SocketHandler>>,
    /// Who may answer chunks, on the receiver's side, and of which process it is.
    answerer: Option<(Option<ProcessId>, Rc<dyn SocketHandler>)>,
    sender_gone: bool,
    /// A piece is on its way.
    delivering: bool,
    /// Nothing passes any more.
    hole: bool,
    /// A reset that a hole holds back.
    reset_waits: bool,
    window: VecDeque<u8>,
    window_bytes_max: usize,
    /// What is sent together arrives together.
    whole: bool,
    armed: Armed,
    chunks: VecDeque<Vec<u8>>,
    receiver: Option<Waker>,
    receiver_gone: bool,
    end: Option<End>,
}

impl Pipe {
    fn new(shared: &Shared) -> Rc<Self> {
        let whole = shared.whole_pieces.get();
        let mut window_bytes_max = if whole {
            WHOLE_WINDOW_BYTES
        } else {
            shared.random.borrow_mut().between(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX) as usize
        };
        if shared.happens(shared.link_faults.get().tiny_window_one_in) {
            shared.fault("tiny window");
            window_bytes_max = 1 + shared.below(TINY_WINDOW_BYTES_MAX) as usize;
        }
        let state = State {
            sending: None,
            sent: None,
            sender: None,
            send_end: None,
            answerer: None,
            sender_gone: false,
            delivering: false,
            hole: false,
            reset_waits: false,
            window: VecDeque::new(),
            window_bytes_max,
            whole,
            armed: Armed::Off,
            chunks: VecDeque::new(),
            receiver: None,
            receiver_gone: false,
            end: None,
        };
        let other = RefCell::default();
        Rc::new(Self { number: shared.links.next_pipe(), other, state: RefCell::new(state) })
    }

    pub(super) fn is_sending(&self) -> bool {
        let state = self.state.borrow();
        state.sending.is_some() || state.sent.is_some()
    }

    /// Starts a send. The caller has seen that none is in flight.
    pub(super) fn start_send(self: &Rc<Self>, shared: &Rc<Shared>, buffers: Vec<Vec<u8>>) {
        self.state.borrow_mut().sending = Some(Sending { buffers, buffer: 0, offset: 0 });
        self.go_on(shared);
    }

    pub(super) fn poll_sent(&self, context: &mut Context<'_>) -> Poll<Sent> {
        let mut state = self.state.borrow_mut();
        match state.sent.take() {
            Some(sent) => Poll::Ready(sent),
            None => {
                state.sender = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Says who is told of ends of sends.
    pub(super) fn on_sent(&self, end: Rc<dyn SocketHandler>) {
        self.state.borrow_mut().send_end = Some(end);
    }

    /// Says who may answer chunks.
    pub(super) fn offer_to(&self, process: Option<ProcessId>, answerer: Rc<dyn SocketHandler>) {
        self.state.borrow_mut().answerer = Some((process, answerer));
    }

    /// The next chunk; arms the pipe if there is none.
    pub(super) fn poll_receive(
        self: &Rc<Self>,
        shared: &Rc<Shared>,
        armed: Armed,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Vec<u8>>>> {
        if let Some(chunk) = self.take_chunk(shared) {
            return Poll::Ready(Ok(Some(chunk)));
        }
        self.arm(shared, armed);
        if let Some(chunk) = self.take_chunk(shared) {
            return Poll::Ready(Ok(Some(chunk)));
        }
        let mut state = self.state.borrow_mut();
        match state.end {
            Some(End::Closed) => Poll::Ready(Ok(None)),
            Some(End::Reset) => Poll::Ready(Err(io::Error::from(ErrorKind::ConnectionReset))),
            Some(End::TimedOut) => Poll::Ready(Err(io::Error::from(ErrorKind::TimedOut))),
            None => {
                state.receiver = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Says what the receiver asks for from now on.
    pub(super) fn arm(self: &Rc<Self>, shared: &Rc<Shared>, armed: Armed) {
        {
            let mut state = self.state.borrow_mut();
            state.armed = armed;
            state.cut_chunks(&mut shared.random.borrow_mut());
        }
        self.go_on(shared);
    }

    /// A chunk that was cut already.
    pub(super) fn take_chunk(self: &Rc<Self>, shared: &Rc<Shared>) -> Option<Vec<u8>> {
        let chunk = {
            let mut state = self.state.borrow_mut();
            let chunk = state.chunks.pop_front()?;
            state.cut_chunks(&mut shared.random.borrow_mut());
            chunk
        };
        shared.note_content(Step::Receive, self.number, &chunk);
        self.go_on(shared);
        Some(chunk)
    }

    /// The sender goes: cut off in the middle, or after what it has started.
    fn close_sending(self: &Rc<Self>, shared: &Rc<Shared>, cut: bool, reset: bool) {
        let gone;
        let unsent = {
            let mut state = self.state.borrow_mut();
            state.sender_gone = true;
            state.sender = None;
            gone = state.send_end.take();
            if reset && state.hole {
                state.reset_waits = true;
            } else if reset {
                state.end = Some(End::Reset);
            }
            if cut { state.sending.take() } else { None }
        };
        drop((unsent, gone));
        if reset {
            self.wake_receiver();
        }
        self.go_on(shared);
    }

    /// The receiver goes: whatever is sent from now on fails. Answers whether it left bytes behind.
    fn close_receiving(self: &Rc<Self>, shared: &Rc<Shared>) -> bool {
        let gone;
        let unread = {
            let mut state = self.state.borrow_mut();
            state.receiver_gone = true;
            state.receiver = None;
            gone = state.answerer.take();
            state.armed = Armed::Off;
            let unread = !state.window.is_empty() || !state.chunks.is_empty();
            state.window.clear();
            state.chunks.clear();
            unread
        };
        drop(gone);
        self.go_on(shared);
        unread
    }

    /// Sends the next piece on its way if there is one and it may go.
    fn go_on(self: &Rc<Self>, shared: &Rc<Shared>) {
        {
            let mut state = self.state.borrow_mut();
            if state.delivering || state.hole || !state.has_something_to_deliver() {
                return;
            }
            state.delivering = true;
        }
        let mut latency = shared.below(LATENCY_NANOS_MAX) + shared.lateness_nanos();
        if self.state.borrow().answerer.is_some() && shared.one_in(2) {
            let now = shared.now().nanos();
            latency = (now + latency).next_multiple_of(ARRIVALS_NANOS) - now;
        }
        let faults = shared.link_faults.get();
        if shared.happens(faults.clog_one_in) {
            shared.fault("clog");
            latency = latency.saturating_add(shared.below(nanos(faults.clog_max)));
        }
        let (pipe, world) = (Rc::clone(self), Rc::clone(shared));
        if shared.happens(faults.reset_one_in) {
            shared.fault("reset");
            shared.after(latency, Box::new(move || pipe.break_off(&world)));
        } else if shared.happens(faults.hole_one_in) {
            self.state.borrow_mut().delivering = false;
            self.fall_silent(shared);
        } else {
            shared.after(latency, Box::new(move || pipe.deliver(&world)));
        }
    }

    /// Nothing passes from now on, here or in both directions.
    fn fall_silent(self: &Rc<Self>, shared: &Rc<Shared>) {
        let other = if shared.one_in(2) { self.other.borrow().upgrade() } else { None };
        shared.fault(if other.is_some() { "hole both ways" } else { "hole one way" });
        for pipe in [Some(Rc::clone(self)), other].into_iter().flatten() {
            pipe.state.borrow_mut().hole = true;
            shared.links.holes.borrow_mut().push(Rc::downgrade(&pipe));
            let world = Rc::clone(shared);
            let weak = Rc::downgrade(&pipe);
            let give_up = move || {
                if let Some(pipe) = weak.upgrade() {
                    pipe.give_up(&world);
                }
            };
            shared.after(give_up_nanos(shared), Box::new(give_up));
        }
    }

    /// The sender has waited too long: its side of the connection fails, the other learns nothing.
    fn give_up(self: &Rc<Self>, shared: &Rc<Shared>) {
        {
            let mut state = self.state.borrow_mut();
            if !state.hole || !state.fail_send(ErrorKind::TimedOut) {
                return;
            }
            // Whoever is heard of again after that is answered with a reset.
            state.reset_waits = true;
        }
        shared.fault("gave up");
        self.wake_both();
        if let Some(other) = self.other.borrow().upgrade() {
            other.state.borrow_mut().end.get_or_insert(End::TimedOut);
            other.wake_both();
        }
    }

    /// Lets pass again what waits.
    pub(super) fn heal(self: &Rc<Self>, shared: &Rc<Shared>) {
        self.state.borrow_mut().hole = false;
        self.go_on(shared);
    }

    /// Both directions end with a reset, and both ends learn of it.
    fn break_off(self: &Rc<Self>, shared: &Rc<Shared>) {
        shared.note(Step::Deliver, self.number, 0);
        self.state.borrow_mut().delivering = false;
        let other = self.other.borrow().upgrade();
        for pipe in [Some(Rc::clone(self)), other].into_iter().flatten() {
            {
                let mut state = pipe.state.borrow_mut();
                state.hole = false;
                state.end.get_or_insert(End::Reset);
                state.fail_send(ErrorKind::ConnectionReset);
                // What had arrived may or may not be read before the reset is.
                if shared.one_in(2) {
                    state.window.clear();
                    state.chunks.clear();
                }
            }
            pipe.wake_both();
        }
    }

    fn deliver(self: &Rc<Self>, shared: &Rc<Shared>) {
        let (waited, moved) = {
            let mut state = self.state.borrow_mut();
            let mut random = shared.random.borrow_mut();
            state.delivering = false;
            let waited = state.chunks.len();
            let moved = state.move_piece(&mut random);
            state.cut_chunks(&mut random);
            (waited, moved)
        };
        shared.note(Step::Deliver, self.number, moved as u64);
        let ended = self.state.borrow().sent.is_some();
        if ended {
            self.wake_sender();
        }
        let news = {
            let state = self.state.borrow();
            !state.chunks.is_empty() || state.end.is_some()
        };
        if news && !self.offer(shared, waited) {
            self.wake_receiver();
        }
        self.go_on(shared);
    }

    /// Offers a chunk that has just come, if none waited before it, to whoever may answer it when all have come
    /// that come together. Whether he will, and nothing else is new.
    fn offer(self: &Rc<Self>, shared: &Rc<Shared>, waited: usize) -> bool {
        let is_send_idle = self.other.borrow().upgrade().is_some_and(|back| !back.is_sending());
        let (handler, chunk) = {
            let mut state = self.state.borrow_mut();
            let offered =
                waited == 0 && is_send_idle && state.armed == Armed::Stream && state.chunks.len() == 1;
            let Some((process, handler)) = state.answerer.clone().filter(|_| offered) else { return false };
            if shared.scheduler.is_paused(process) {
                return false;
            }
            (handler, state.chunks.pop_front().expect("it holds one"))
        };
        let answers = handler.arrived(&chunk);
        let mut state = self.state.borrow_mut();
        state.chunks.push_front(chunk);
        let more = state.end.is_some();
        drop(state);
        if answers {
            shared.links.offered.borrow_mut().push(Rc::clone(self));
        }
        answers && !more
    }

    /// Has the chunk that was offered answered, or lets the receiver have it.
    pub(super) fn answer(self: &Rc<Self>, shared: &Rc<Shared>) {
        let (handler, chunk) = {
            let mut state = self.state.borrow_mut();
            // The connection may have broken since.
            let Some((_, handler)) = state.answerer.clone() else { return };
            let Some(chunk) = state.chunks.pop_front() else { return };
            (handler, chunk)
        };
        let answer = handler.answer(&chunk);
        if answer == Answer::Left {
            self.state.borrow_mut().chunks.push_front(chunk);
            return self.wake_receiver();
        }
        shared.note_content(Step::Receive, self.number, &chunk);
        self.state.borrow_mut().cut_chunks(&mut shared.random.borrow_mut());
        if let Answer::Send(buffers) = answer {
            let back = self.other.borrow().upgrade().expect("it is answered by who sends on it");
            assert!(!back.is_sending(), "a send is in flight");
            back.start_send(shared, buffers);
        }
        if !self.state.borrow().chunks.is_empty() {
            self.wake_receiver();
        }
        self.go_on(shared);
    }

    fn wake_both(&self) {
        self.wake_sender();
        self.wake_receiver();
    }

    fn wake_sender(&self) {
        let mut state = self.state.borrow_mut();
        if let Some(end) = state.send_end.clone() {
            let sent = state.sent.take();
            drop(state);
            if let Some((outcome, buffers)) = sent {
                end.sent(outcome, buffers);
            }
        } else if let Some(sender) = state.sender.take() {
            drop(state);
            sender.wake();
        }
    }

    fn wake_receiver(&self) {
        let receiver = self.state.borrow_mut().receiver.take();
        if let Some(receiver) = receiver {
            receiver.wake();
        }
    }
}

impl State {
    fn free_bytes(&self) -> usize {
        self.window_bytes_max.saturating_sub(self.window.len())
    }

    fn has_something_to_deliver(&self) -> bool {
        match &self.sending {
            Some(_) => self.receiver_gone || self.end.is_some() || self.free_bytes() > 0,
            None => (self.sender_gone || self.reset_waits) && self.end.is_none(),
        }
    }

    /// Moves a piece of the send in flight into the window, or the end of the stream after it.
    fn move_piece(&mut self, random: &mut Random) -> usize {
        let Some(mut sending) = self.sending.take() else {
            if self.reset_waits {
                self.end.get_or_insert(End::Reset);
            }
            if self.sender_gone {
                self.end.get_or_insert(End::Closed);
            }
            return 0;
        };
        if self.receiver_gone || self.end.is_some() {
            self.sent = Some((Err(io::Error::from(ErrorKind::BrokenPipe)), sending.buffers));
            return 0;
        }
        let room = self.free_bytes() as u64;
        let piece = if self.whole {
            room
        } else if random.one_in(8) {
            random.between(1, 16)
        } else {
            random.between(1, room.max(1))
        };
        let piece = piece.min(room) as usize;
        let mut moved = 0;
        while let Some(buffer) = sending.buffers.get(sending.buffer) {
            let part = &buffer[sending.offset..];
            let part = &part[..part.len().min(piece - moved)];
            self.window.extend(part);
            moved += part.len();
            sending.offset += part.len();
            if sending.offset < buffer.len() {
                break;
            }
            sending.buffer += 1;
            sending.offset = 0;
        }
        if sending.buffer == sending.buffers.len() {
            self.sent = Some((Ok(()), sending.buffers));
        } else {
            self.sending = Some(sending);
        }
        moved
    }

    /// Ends the send in flight with an error; false when none is.
    fn fail_send(&mut self, kind: ErrorKind) -> bool {
        let Some(sending) = self.sending.take() else { return false };
        self.sent = Some((Err(io::Error::from(kind)), sending.buffers));
        true
    }

    /// Cuts the chunks that the receiver has asked for.
    fn cut_chunks(&mut self, random: &mut Random) {
        while self.armed != Armed::Off && !self.window.is_empty() && self.chunks.len() < CHUNKS_MAX {
            let there = self.window.len();
            let bytes = if self.whole {
                there.min(WHOLE_CHUNK_BYTES_MAX)
            } else if random.one_in(2) {
                there.min(CHUNK_BYTES_MAX as usize)
            } else {
                let bytes_max = if random.one_in(4) { 8 } else { CHUNK_BYTES_MAX };
                random.between(1, bytes_max.min(there as u64)) as usize
            };
            self.chunks.push_back(self.window.drain(..bytes).collect());
            if self.armed == Armed::Once {
                self.armed = Armed::Off;
            }
        }
    }
}

/// How long somebody waits for an answer from a hole.
pub(super) fn give_up_nanos(shared: &Shared) -> u64 {
    shared.random.borrow_mut().between(GIVE_UP_NANOS_MIN, GIVE_UP_NANOS_MAX)
}

/// One side of a connection. Dropping it closes that side.
pub(super) struct Ends {
    pub(super) shared: Rc<Shared>,
    /// The process it belongs to; `None` outside of the nodes.
    pub(super) process: Option<ProcessId>,
    pub(super) outgoing: Rc<Pipe>,
    pub(super) incoming: Rc<Pipe>,
    pub(super) peer: String,
}

impl Ends {
    /// A new connection: the client's side and the server's.
    pub(super) fn pair(shared: &Rc<Shared>, server: ProcessId) -> (Self, Self) {
        let (up, down) = (Pipe::new(shared), Pipe::new(shared));
        *up.other.borrow_mut() = Rc::downgrade(&down);
        *down.other.borrow_mut() = Rc::downgrade(&up);
        let client = Self {
            shared: Rc::clone(shared),
            process: None,
            outgoing: Rc::clone(&up),
            incoming: Rc::clone(&down),
            peer: format!("node-{}", server.node),
        };
        let peer = format!("outside-{}", up.number);
        let shared = Rc::clone(shared);
        (client, Self { shared, process: Some(server), outgoing: down, incoming: up, peer })
    }

    pub(super) fn number(&self) -> u64 {
        self.outgoing.number
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        let cut = !self.shared.is_alive(self.process);
        let unread = self.incoming.close_receiving(&self.shared);
        self.outgoing.close_sending(&self.shared, cut, cut && unread);
    }
}
