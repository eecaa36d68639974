//! Accepting connections on the core's ring.
//!
//! All cores accept from one listening socket, each with a multishot accept on its own ring. The
//! accept is armed by the first `poll_accept`. If taking connections falls behind, it is cancelled
//! at [`QUEUED_CONNECTIONS_MAX`] and the rest waits in the socket's backlog. Running out of
//! descriptors or memory is reported once, and accepting pauses for [`RETRY_DELAY`]: the waiting
//! connection stays in the backlog, and trying at once would fail at once.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pinion_env::Listener;

use crate::core::Core;
use crate::op::Op;
use crate::ring::Completion;
use crate::slab::Key;
use crate::socket::RealSocket;
use crate::sys;
use crate::timers::Sleep;
use crate::waker::WakerSlot;

/// Accepted connections that wait to be taken before accepting is paused.
const QUEUED_CONNECTIONS_MAX: usize = 256;

/// Pause after an error that the next attempt would meet again.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// What the accept in flight refers to.
pub(crate) struct ListenerState {
    core: Rc<Core>,
    /// `None` on a node that listens on nothing.
    socket: Option<Arc<OwnedFd>>,
    queue: RefCell<Queue>,
    acceptor: WakerSlot,
    pausing: Cell<bool>,
}

#[derive(Default)]
struct Queue {
    connections: VecDeque<OwnedFd>,
    error: Option<io::Error>,
    armed: Option<Key>,
    cancelling: bool,
    closed: bool,
}

impl ListenerState {
    pub(crate) fn descriptor(&self) -> RawFd {
        self.socket.as_ref().map_or(-1, |socket| socket.as_raw_fd())
    }

    /// A completion of the accept in flight.
    pub(crate) fn accepted(self: &Rc<Self>, completion: Completion) {
        let mut queue = self.queue.borrow_mut();
        if !completion.more() {
            queue.armed = None;
            queue.cancelling = false;
        }
        match completion.result {
            descriptor @ 0.. => {
                let connection = sys::own(descriptor);
                if !queue.closed {
                    queue.connections.push_back(connection);
                }
            }
            error => match -error {
                libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
                number => {
                    queue.error = Some(io::Error::from_raw_os_error(number));
                    // These concern one connection; all others the next one as well.
                    if !matches!(number, libc::ECONNABORTED | libc::EPROTO | libc::EPERM) && !queue.closed {
                        self.pause();
                    }
                }
            },
        }
        if queue.connections.len() >= QUEUED_CONNECTIONS_MAX {
            self.cancel(&mut queue);
        }
        drop(queue);
        self.acceptor.wake();
    }

    fn pause(self: &Rc<Self>) {
        if self.pausing.replace(true) {
            return;
        }
        let state = Rc::clone(self);
        glommio::spawn_local(async move {
            Sleep::new(&state.core, RETRY_DELAY).await;
            state.pausing.set(false);
            state.acceptor.wake();
        })
        .detach();
    }

    fn cancel(&self, queue: &mut Queue) {
        if let Some(key) = queue.armed
            && !queue.cancelling
        {
            queue.cancelling = true;
            self.core.cancel(key);
        }
    }

    fn close(&self) {
        let mut queue = self.queue.borrow_mut();
        queue.closed = true;
        queue.connections.clear();
        self.cancel(&mut queue);
    }
}

/// This core's view of the listening socket. See [`pinion_env::Listener`]. Dropping it closes it.
pub struct RealListener {
    state: Rc<ListenerState>,
}

impl RealListener {
    pub(crate) fn new(core: &Rc<Core>, socket: Option<Arc<OwnedFd>>) -> Self {
        Self {
            state: Rc::new(ListenerState {
                core: Rc::clone(core),
                socket,
                queue: RefCell::default(),
                acceptor: WakerSlot::default(),
                pausing: Cell::new(false),
            }),
        }
    }
}

impl Listener for RealListener {
    type Socket = RealSocket;

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<RealSocket>> {
        let state = &self.state;
        let mut queue = state.queue.borrow_mut();
        if queue.closed || state.socket.is_none() {
            return Poll::Pending;
        }
        if let Some(connection) = queue.connections.pop_front() {
            return Poll::Ready(Ok(RealSocket::new(&state.core, connection)));
        }
        if let Some(error) = queue.error.take() {
            return Poll::Ready(Err(error));
        }
        state.acceptor.register(context);
        if queue.armed.is_none() && !state.pausing.get() {
            queue.armed = state.core.start(Op::Accept(Rc::clone(state)));
        }
        Poll::Pending
    }

    fn close(&self) {
        self.state.close();
    }
}

impl Drop for RealListener {
    fn drop(&mut self) {
        self.state.close();
    }
}

impl std::fmt::Debug for RealListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RealListener").field("descriptor", &self.state.descriptor()).finish_non_exhaustive()
    }
}
