//! Connections on the core's ring.
//!
//! Receiving: a new socket asks for one chunk at a time, so that it can be handed to another core
//! while nothing is in flight; after `start_streaming` one multishot receive delivers chunks until
//! it is cancelled, runs out of buffers or the stream ends, and the next `poll_receive` arms it
//! again. Chunks wait in a queue of the socket. A consumer that falls [`QUEUED_CHUNKS_MAX`] behind
//! is paused: the rest stays in the kernel's socket buffer and TCP slows the peer down.
//!
//! A chunk that comes while none waits is offered to the socket's handler; what that answers, the consumer never
//! sees and is not woken for. It is offered twice: at its completion, and at the end of the turn.
//!
//! Sending: one operation per `start_send`, continued here if the kernel took less than all.
//!
//! Dropping a socket cancels its receive and lets a send in flight finish, but for no longer than
//! [`LINGER`] without progress; then the descriptor is closed. The state below outlives the
//! [`RealSocket`] because the operations in the slab refer to it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use pinion_env::{Answer, Socket, SocketHandler};

use crate::core::Core;
use crate::op::{Op, Outgoing};
use crate::pool::Chunk;
use crate::ring::Completion;
use crate::slab::Key;
use crate::sys;
use crate::waker::WakerSlot;

/// Chunks that wait for a consumer before its stream is paused. The kernel may deliver some more
/// before it notices.
pub(crate) const QUEUED_CHUNKS_MAX: usize = 32;

/// How long a send of a dropped socket may make no progress.
const LINGER: Duration = Duration::from_secs(5);

/// What operations of a connection refer to.
pub(crate) struct SocketState {
    core: Rc<Core>,
    raw: RawFd,
    descriptor: Cell<Option<OwnedFd>>,
    incoming: RefCell<Incoming>,
    receiver: WakerSlot,
    outbound: Cell<Outbound>,
    sender: WakerSlot,
    /// Who is told of ends of sends, instead of `sender`, and may answer chunks.
    handler: RefCell<Option<Rc<dyn SocketHandler>>>,
}

struct Incoming {
    chunks: VecDeque<Chunk>,
    /// The receive in flight.
    armed: Option<Key>,
    /// Its cancellation is under way.
    cancelling: bool,
    streaming: bool,
    /// The socket was dropped: nobody takes chunks any more.
    dropped: bool,
    end: Option<End>,
}

/// How the stream ended.
#[derive(Clone, Copy)]
enum End {
    Closed,
    /// With this error number, told at every call.
    Failed(i32),
}

enum Outbound {
    Idle(Box<Outgoing>),
    InFlight,
    Sent(io::Result<()>, Box<Outgoing>),
}

impl SocketState {
    pub(crate) fn descriptor(&self) -> RawFd {
        self.raw
    }

    /// A completion of the receive in flight.
    pub(crate) fn received(self: &Rc<Self>, completion: Completion) {
        let mut incoming = self.incoming.borrow_mut();
        if !completion.more() {
            incoming.armed = None;
            incoming.cancelling = false;
        }
        let mut unwanted = None;
        match (completion.result, completion.buffer()) {
            (bytes @ 1.., Some(buffer)) => {
                let chunk = self.core.pool().take(buffer, bytes as usize);
                if incoming.dropped {
                    unwanted = Some(chunk);
                } else if completion.more() && incoming.streaming && incoming.chunks.is_empty() {
                    drop(incoming);
                    return self.offer(chunk);
                } else {
                    incoming.chunks.push_back(chunk);
                }
            }
            (result, buffer) => {
                if let Some(buffer) = buffer {
                    self.core.pool().discard(buffer);
                }
                match -result {
                    0 => incoming.end = Some(End::Closed),
                    // Armed again by the next poll, or by the core when buffers are back.
                    libc::ECANCELED | libc::ENOBUFS | libc::EINTR | libc::EAGAIN => {}
                    error => incoming.end = Some(End::Failed(error)),
                }
            }
        }
        if incoming.chunks.len() >= QUEUED_CHUNKS_MAX {
            self.cancel_receive(&mut incoming);
        }
        drop(incoming);
        drop(unwanted);
        self.receiver.wake();
    }

    /// Keeps a chunk that nothing waits before, to be answered at the end of the turn if the handler has
    /// a mind to.
    fn offer(self: &Rc<Self>, chunk: Chunk) {
        let handler =
            self.handler.borrow().clone().filter(|_| self.is_send_idle() && !self.core.is_stopping());
        let answers = handler.is_some_and(|handler| handler.arrived(&chunk));
        self.incoming.borrow_mut().chunks.push_back(chunk);
        if answers {
            self.core.answer_later(Rc::clone(self));
        } else {
            self.receiver.wake();
        }
    }

    /// Has the handler answer the chunk that was offered, or lets the consumer have it. No task has run since:
    /// it is the first that waits. One behind it has woken the consumer.
    pub(crate) fn answer(self: Rc<Self>) {
        let chunk = self.incoming.borrow_mut().chunks.pop_front();
        let handler = self.handler.borrow().clone();
        let (Some(chunk), Some(handler)) = (chunk, handler) else { return };
        match handler.answer(&chunk) {
            Answer::Send(buffers) => self.start_send(buffers),
            Answer::Later => {}
            Answer::Left => {
                self.incoming.borrow_mut().chunks.push_front(chunk);
                self.receiver.wake();
            }
        }
    }

    fn is_send_idle(&self) -> bool {
        let outbound = self.outbound.take();
        let idle = matches!(outbound, Outbound::Idle(_));
        self.outbound.set(outbound);
        idle
    }

    /// Whether a receive that found no buffer is still wanted.
    pub(crate) fn wants_more(&self) -> bool {
        let incoming = self.incoming.borrow();
        !incoming.dropped && !incoming.cancelling
    }

    /// Arms the receive that found no buffer, unless somebody was faster.
    pub(crate) fn arm_again(self: &Rc<Self>) {
        if self.wants_more() {
            self.arm();
        }
    }

    /// The send in flight has completed.
    pub(crate) fn sent(self: Rc<Self>, mut outgoing: Box<Outgoing>, result: i32) {
        let outcome = match result {
            1.. => {
                outgoing.advance(result as usize);
                if outgoing.is_finished() { Some(Ok(())) } else { None }
            }
            0 => Some(Err(io::Error::from(io::ErrorKind::WriteZero))),
            _ if -result == libc::EINTR || -result == libc::EAGAIN => None,
            error => Some(Err(io::Error::from_raw_os_error(-error))),
        };
        match outcome {
            Some(outcome) => self.send_ended(outcome, outgoing),
            None => self.send(outgoing),
        }
    }

    fn send_ended(&self, outcome: io::Result<()>, mut outgoing: Box<Outgoing>) {
        let handler = self.handler.borrow().clone();
        match handler {
            Some(handler) => {
                let buffers = outgoing.unload();
                self.outbound.set(Outbound::Idle(outgoing));
                handler.sent(outcome, buffers);
            }
            None => {
                self.outbound.set(Outbound::Sent(outcome, outgoing));
                self.sender.wake();
            }
        }
    }

    fn start_send(self: Rc<Self>, buffers: Vec<Vec<u8>>) {
        match self.outbound.replace(Outbound::InFlight) {
            Outbound::Idle(mut outgoing) => {
                outgoing.load(buffers);
                if outgoing.is_finished() {
                    self.send_ended(Ok(()), outgoing);
                } else {
                    self.send(outgoing);
                }
            }
            Outbound::InFlight | Outbound::Sent(..) => panic!("a send is in flight"),
        }
    }

    fn send(self: Rc<Self>, outgoing: Box<Outgoing>) {
        self.outbound.set(Outbound::InFlight);
        let core = Rc::clone(&self.core);
        core.start(Op::Send { socket: self, outgoing });
    }

    fn arm(self: &Rc<Self>) {
        let mut incoming = self.incoming.borrow_mut();
        if incoming.armed.is_none() && incoming.end.is_none() {
            let streaming = incoming.streaming;
            incoming.armed = self.core.start(Op::Receive { socket: Rc::clone(self), streaming });
        }
    }

    fn cancel_receive(&self, incoming: &mut Incoming) {
        if let Some(key) = incoming.armed
            && !incoming.cancelling
        {
            incoming.cancelling = true;
            self.core.cancel(key);
        }
    }
}

/// A connection. See [`pinion_env::Socket`].
pub struct RealSocket {
    state: Rc<SocketState>,
}

/// A connection on its way to another core.
#[derive(Debug)]
pub struct SocketHandoff(OwnedFd);

impl RealSocket {
    pub(crate) fn new(core: &Rc<Core>, descriptor: OwnedFd) -> Self {
        let incoming = Incoming {
            chunks: VecDeque::new(),
            armed: None,
            cancelling: false,
            streaming: false,
            dropped: false,
            end: None,
        };
        Self {
            state: Rc::new(SocketState {
                core: Rc::clone(core),
                raw: descriptor.as_raw_fd(),
                descriptor: Cell::new(Some(descriptor)),
                incoming: RefCell::new(incoming),
                receiver: WakerSlot::default(),
                outbound: Cell::new(Outbound::Idle(Outgoing::new())),
                sender: WakerSlot::default(),
                handler: RefCell::default(),
            }),
        }
    }

    pub(crate) fn adopt(core: &Rc<Core>, handoff: SocketHandoff) -> Self {
        Self::new(core, handoff.0)
    }
}

impl Socket for RealSocket {
    type Chunk = Chunk;
    type Handoff = SocketHandoff;

    fn poll_receive(&self, context: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        let mut incoming = self.state.incoming.borrow_mut();
        if let Some(chunk) = incoming.chunks.pop_front() {
            return Poll::Ready(Ok(Some(chunk)));
        }
        match incoming.end {
            Some(End::Closed) => return Poll::Ready(Ok(None)),
            Some(End::Failed(error)) => return Poll::Ready(Err(io::Error::from_raw_os_error(error))),
            None => {}
        }
        let idle = incoming.armed.is_none();
        drop(incoming);
        self.state.receiver.register(context);
        if idle {
            self.state.arm();
        }
        Poll::Pending
    }

    fn start_streaming(&self) {
        self.state.incoming.borrow_mut().streaming = true;
    }

    fn pause_receive(&self) {
        self.state.cancel_receive(&mut self.state.incoming.borrow_mut());
    }

    fn receive_ready(&self) -> Option<Chunk> {
        self.state.incoming.borrow_mut().chunks.pop_front()
    }

    fn start_send(&self, buffers: Vec<Vec<u8>>) {
        Rc::clone(&self.state).start_send(buffers);
    }

    fn poll_sent(&self, context: &mut Context<'_>) -> Poll<(io::Result<()>, Vec<Vec<u8>>)> {
        match self.state.outbound.take() {
            Outbound::Sent(outcome, mut outgoing) => {
                let buffers = outgoing.unload();
                self.state.outbound.set(Outbound::Idle(outgoing));
                Poll::Ready((outcome, buffers))
            }
            waiting => {
                self.state.outbound.set(waiting);
                self.state.sender.register(context);
                Poll::Pending
            }
        }
    }

    fn handle_with(&self, handler: Rc<dyn SocketHandler>) {
        assert!(self.state.is_send_idle(), "a send is in flight");
        self.state.handler.replace(Some(handler));
    }

    fn hand_off(self) -> SocketHandoff {
        let incoming = self.state.incoming.borrow();
        assert!(incoming.armed.is_none() && incoming.chunks.is_empty(), "a receive is in flight");
        drop(incoming);
        let outbound = self.state.outbound.take();
        assert!(matches!(outbound, Outbound::Idle(_)), "a send is in flight");
        let descriptor = self.state.descriptor.take();
        SocketHandoff(descriptor.expect("only handing off takes the descriptor, and it consumes the socket"))
    }

    fn peer(&self) -> String {
        let Some(descriptor) = self.state.descriptor.take() else { return String::new() };
        let stream = TcpStream::from(descriptor);
        let peer =
            stream.peer_addr().map_or_else(|_| "disconnected".to_owned(), |address| address.to_string());
        self.state.descriptor.set(Some(OwnedFd::from(stream)));
        peer
    }
}

impl Drop for RealSocket {
    fn drop(&mut self) {
        let mut incoming = self.state.incoming.borrow_mut();
        incoming.dropped = true;
        let chunks = mem::take(&mut incoming.chunks);
        self.state.cancel_receive(&mut incoming);
        drop(incoming);
        drop(chunks);
        drop(self.state.handler.take());
        let outbound = self.state.outbound.take();
        if matches!(outbound, Outbound::InFlight)
            && let Some(descriptor) = self.state.descriptor.take()
        {
            // Refused for what is not TCP; then the send ends with the connection.
            drop(sys::set_user_timeout(descriptor.as_fd(), LINGER));
            self.state.descriptor.set(Some(descriptor));
        }
        self.state.outbound.set(outbound);
    }
}

impl Default for Outbound {
    /// What stands in while the real value is looked at.
    fn default() -> Self {
        Self::InFlight
    }
}

impl std::fmt::Debug for RealSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RealSocket").field("descriptor", &self.state.raw).finish_non_exhaustive()
    }
}
