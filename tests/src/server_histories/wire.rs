//! One connection of a client in a world: requests go out without waiting, answers come in any order.
//!
//! A task drives the socket; whoever has sent a request waits for its answer as long as it likes.
//! What the protocol forbids a server is checked here: an answer to nothing, a second answer, bytes
//! that are no frame.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pinion_env::Socket;
use pinion_protocol::{Frames, Header, Hello, Preface, Request, Response};

use crate::world::{NodeId, Outside, SimSocket};

/// The port that all nodes here listen on.
pub(super) const PORT: u16 = 7600;

/// The longest answer, in bytes.
const FRAME_BYTES_MAX: u32 = 1 << 20;

/// An answer's frame.
pub(super) struct Reply {
    header: Header,
    body: Vec<u8>,
}

impl Reply {
    pub(super) fn response(&self) -> Response<'_> {
        Response::decode(&self.header, &self.body).expect("the node answers what the protocol says")
    }
}

/// An open connection. Dropping the last clone closes it.
#[derive(Clone)]
pub(super) struct Wire {
    state: Rc<RefCell<State>>,
    /// The last one that a user holds closes the wire.
    _open: Rc<Opened>,
}

struct State {
    out: Vec<u8>,
    slots: BTreeMap<u64, Slot>,
    last_id: u64,
    over: bool,
    driver: Option<Waker>,
}

enum Slot {
    Waiting(Option<Waker>),
    Answered(Reply),
    /// Nobody waits any more.
    Abandoned,
}

struct Opened(Rc<RefCell<State>>);

impl Drop for Opened {
    fn drop(&mut self) {
        end(&self.0);
    }
}

/// What became of a request.
pub(super) enum Heard {
    Reply(Reply),
    /// The connection broke.
    Broken,
    TimedOut,
}

impl Wire {
    /// Connects and says HELLO. `None` when that fails or takes too long.
    pub(super) async fn open(
        outside: &Outside,
        node: NodeId,
        wanted_core: Option<u16>,
        timeout: Duration,
    ) -> Option<(Self, Reply)> {
        let socket = within(outside, timeout, outside.connect(node, PORT)).await?.ok()?;
        let state = Rc::new(RefCell::new(State {
            out: Preface::OURS.to_bytes().to_vec(),
            slots: BTreeMap::new(),
            last_id: 0,
            over: false,
            driver: None,
        }));
        // Dropping the answer does not end the task.
        drop(outside.spawn(drive(socket, Rc::clone(&state))));
        let wire = Self { _open: Rc::new(Opened(Rc::clone(&state))), state };
        let hello = Hello { wanted_core, features: 0, client_name: "history" };
        let id = wire.send(&Request::Hello(hello), 0);
        match wire.hear(outside, id, timeout).await {
            Heard::Reply(reply) => Some((wire, reply)),
            Heard::Broken | Heard::TimedOut => None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.state.borrow().over
    }

    /// Sends a request; answers its id.
    pub(super) fn send(&self, request: &Request<'_>, deadline_us: u32) -> u64 {
        let mut state = self.state.borrow_mut();
        state.last_id += 1;
        let id = state.last_id;
        let slot = if state.over { Slot::Abandoned } else { Slot::Waiting(None) };
        state.slots.insert(id, slot);
        request.encode(id, 0, deadline_us, &mut state.out).expect("histories ask what fits a frame");
        wake(state.driver.take());
        id
    }

    /// From now on nobody waits for this answer.
    pub(super) fn abandon(&self, id: u64) {
        self.state.borrow_mut().slots.insert(id, Slot::Abandoned);
    }

    /// Waits for an answer.
    pub(super) async fn hear(&self, outside: &Outside, id: u64, timeout: Duration) -> Heard {
        let answer = poll_fn(|context| self.poll_answer(id, context));
        match within(outside, timeout, answer).await {
            Some(heard) => heard,
            None => {
                self.abandon(id);
                Heard::TimedOut
            }
        }
    }

    fn poll_answer(&self, id: u64, context: &mut Context<'_>) -> Poll<Heard> {
        let mut state = self.state.borrow_mut();
        if matches!(state.slots.get(&id), Some(Slot::Answered(_)))
            && let Some(Slot::Answered(reply)) = state.slots.remove(&id)
        {
            return Poll::Ready(Heard::Reply(reply));
        }
        if state.over {
            return Poll::Ready(Heard::Broken);
        }
        state.slots.insert(id, Slot::Waiting(Some(context.waker().clone())));
        Poll::Pending
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn end(state: &RefCell<State>) {
    let mut wakers = Vec::new();
    {
        let mut state = state.borrow_mut();
        state.over = true;
        wakers.extend(state.driver.take());
        for slot in state.slots.values_mut() {
            if let Slot::Waiting(waker) = slot {
                wakers.extend(waker.take());
            }
        }
    }
    wakers.into_iter().for_each(Waker::wake);
}

/// Moves bytes until the connection ends.
async fn drive(socket: SimSocket, state: Rc<RefCell<State>>) {
    socket.start_streaming();
    let mut frames = Frames::new(FRAME_BYTES_MAX);
    let mut sending = false;
    poll_fn(|context| {
        loop {
            if state.borrow().over {
                return Poll::Ready(());
            }
            if sending {
                match socket.poll_sent(context) {
                    Poll::Ready((Ok(()), _)) => sending = false,
                    Poll::Ready((Err(_), _)) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
            }
            let out = if sending { Vec::new() } else { std::mem::take(&mut state.borrow_mut().out) };
            if !out.is_empty() {
                socket.start_send(vec![out]);
                sending = true;
                continue;
            }
            state.borrow_mut().driver = Some(context.waker().clone());
            match socket.poll_receive(context) {
                Poll::Ready(Ok(Some(chunk))) => take(&mut frames, &chunk, &state),
                Poll::Ready(Ok(None) | Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    end(&state);
}

/// Hands the frames in a chunk to those who wait for them.
fn take(frames: &mut Frames, mut chunk: &[u8], state: &RefCell<State>) {
    while let Some(frame) = frames.next_frame(&mut chunk).expect("the node sends frames") {
        let waker = {
            let mut state = state.borrow_mut();
            let id = frame.header.request_id;
            match state.slots.remove(&id) {
                Some(Slot::Waiting(waker)) => {
                    let reply = Reply { header: frame.header, body: frame.body.to_vec() };
                    state.slots.insert(id, Slot::Answered(reply));
                    waker
                }
                Some(Slot::Abandoned) => None,
                Some(Slot::Answered(_)) | None => panic!("an answer to no request, or a second one: {id}"),
            }
        };
        wake(waker);
    }
}

/// What a future gives, unless that takes too long.
pub(super) async fn within<F: Future>(outside: &Outside, timeout: Duration, future: F) -> Option<F::Output> {
    let (mut future, mut sleep) = (pin!(future), pin!(outside.sleep(timeout)));
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => sleep.as_mut().poll(context).map(|()| None),
    })
    .await
}
