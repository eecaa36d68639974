//! Sockets of a world: the environment's [`Socket`] over one side of a connection.
//!
//! Nodes and clients use the same type. The contract of the trait is checked: handing a socket off
//! at the wrong moment, a second send in flight and a chunk held across an await are panics, because
//! the real world answers them with lost bytes or a starved buffer pool.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use pinion_env::{Socket, SocketHandler};

use super::link::{Armed, Ends};
use super::scheduler::ProcessId;
use super::shared::Shared;

/// One side of a connection.
pub struct SimSocket {
    ends: Ends,
    stage: Cell<Stage>,
    streaming: Cell<bool>,
}

/// How far a socket is on the way on which it may be handed off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    Asked,
    /// All chunks that were asked for one by one were given.
    Answered,
    InUse,
}

impl SimSocket {
    pub(super) fn new(ends: Ends) -> Self {
        Self { ends, stage: Cell::new(Stage::New), streaming: Cell::new(false) }
    }

    fn chunk(&self, bytes: Vec<u8>) -> SimChunk {
        let shared = Rc::clone(&self.ends.shared);
        SimChunk { bytes, turn: shared.turn.get(), shared }
    }
}

impl Socket for SimSocket {
    type Chunk = SimChunk;
    type Handoff = SimHandoff;

    fn poll_receive(&self, context: &mut Context<'_>) -> Poll<io::Result<Option<SimChunk>>> {
        let armed = if self.streaming.get() { Armed::Stream } else { Armed::Once };
        let received = self.ends.incoming.poll_receive(&self.ends.shared, armed, context);
        self.stage.set(match (self.stage.get(), received.is_ready()) {
            (Stage::InUse, _) => Stage::InUse,
            (_, true) => Stage::Answered,
            (_, false) => Stage::Asked,
        });
        received.map_ok(|chunk| chunk.map(|bytes| self.chunk(bytes)))
    }

    fn start_streaming(&self) {
        self.stage.set(Stage::InUse);
        self.streaming.set(true);
        self.ends.incoming.arm(&self.ends.shared, Armed::Stream);
    }

    fn pause_receive(&self) {
        self.stage.set(Stage::InUse);
        self.ends.incoming.arm(&self.ends.shared, Armed::Off);
    }

    fn receive_ready(&self) -> Option<SimChunk> {
        self.ends.incoming.take_chunk(&self.ends.shared).map(|bytes| self.chunk(bytes))
    }

    fn start_send(&self, buffers: Vec<Vec<u8>>) {
        assert!(!self.ends.outgoing.is_sending(), "a send is in flight");
        self.stage.set(Stage::InUse);
        self.ends.outgoing.start_send(&self.ends.shared, buffers);
    }

    fn poll_sent(&self, context: &mut Context<'_>) -> Poll<(io::Result<()>, Vec<Vec<u8>>)> {
        self.ends.outgoing.poll_sent(context)
    }

    fn handle_with(&self, handler: Rc<dyn SocketHandler>) {
        assert!(!self.ends.outgoing.is_sending(), "a send is in flight");
        self.ends.incoming.offer_to(self.ends.process, Rc::clone(&handler));
        self.ends.outgoing.on_sent(handler);
    }

    fn hand_off(self) -> SimHandoff {
        let stage = self.stage.get();
        assert!(
            matches!(stage, Stage::New | Stage::Answered),
            "handed off only before anything was asked, or after a chunk asked for by itself: {stage:?}"
        );
        let shared = Rc::clone(&self.ends.shared);
        let abandoned = Arc::clone(&shared.links.abandoned);
        SimHandoff { number: Some(shared.links.park(self.ends)), abandoned }
    }

    fn peer(&self) -> String {
        self.ends.peer.clone()
    }
}

impl fmt::Debug for SimSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimSocket").field("peer", &self.ends.peer).field("stage", &self.stage).finish()
    }
}

/// Received bytes.
///
/// # Panics
/// When it is dropped in a later turn than it was received in: real chunks are few.
pub struct SimChunk {
    bytes: Vec<u8>,
    turn: u64,
    shared: Rc<Shared>,
}

impl Deref for SimChunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for SimChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimChunk").field("bytes", &self.bytes.len()).finish()
    }
}

impl Drop for SimChunk {
    fn drop(&mut self) {
        let same_turn = self.turn == self.shared.turn.get();
        assert!(same_turn || std::thread::panicking(), "a received chunk was held across an await");
    }
}

/// A socket on its way to another core of its node. Dropping it closes the connection.
pub struct SimHandoff {
    /// `None` once it is adopted.
    number: Option<u64>,
    abandoned: Arc<Mutex<Vec<u64>>>,
}

impl SimHandoff {
    /// The socket, in the hands of a process.
    pub(super) fn adopt(mut self, shared: &Shared, process: ProcessId) -> SimSocket {
        let number = self.number.take().expect("a hand-off is adopted once, by value");
        let parked = shared.links.parked.borrow_mut().remove(&number);
        let ends = parked.expect("a connection stays parked until its hand-off is adopted or dropped");
        assert_eq!(ends.process, Some(process), "a socket cannot leave its node");
        SimSocket::new(ends)
    }
}

impl fmt::Debug for SimHandoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimHandoff").field("number", &self.number).finish()
    }
}

impl Drop for SimHandoff {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.abandoned.lock().expect("nothing panics while it holds this list").push(number);
        }
    }
}
