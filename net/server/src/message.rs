//! What the cores of a node tell each other.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use pinion_engine::{DataDir, Identity, QuarantinedTable};
use pinion_env::{Monotonic, NodeEnv};
use pinion_protocol::Header;
use pinion_protocol::resp::RespVersion;

use crate::counters::LatencyReport;
use crate::namespaces::NamespaceTable;
use crate::watch::{ClientsReport, HotReport, SlowReport, UsageReport};

/// The environment that a server runs in: one whose cores exchange [`CoreMessage`]s.
pub trait ServerEnv: NodeEnv<Message = CoreMessage<<Self as NodeEnv>::Handoff>> {}

impl<E> ServerEnv for E where E: NodeEnv<Message = CoreMessage<<E as NodeEnv>::Handoff>> {}

/// A message from one core of a node to another. `H` is the environment's socket on its way.
#[derive(Debug)]
pub struct CoreMessage<H>(pub(crate) Message<H>);

impl<H> CoreMessage<H> {
    /// Tells a core to stop: send one to every core. The first lets requests under way finish, a
    /// second stops at once.
    pub const fn shutdown() -> Self {
        Self(Message::Shutdown)
    }
}

/// See [`CoreMessage`].
#[derive(Debug)]
pub(crate) enum Message<H> {
    /// Stop.
    Shutdown,
    /// Core 0 has opened the data directory: open your shards. It is locked as long as a core holds
    /// `directory`.
    Start { facts: Arc<NodeFacts>, directory: Arc<DataDir> },
    /// A core could not start; the node ends.
    Failed { core: u16, reason: Arc<str> },
    /// To core 0: this core's shards are open.
    Ready,
    /// From core 0: every core is ready, accept.
    Go,
    /// A connection whose HELLO names the receiver.
    Connection(HandedOff<H>),
    /// A request for a shard of the receiver.
    Request(Forwarded),
    /// The answer to a [`Message::Request`], and how long it took to make.
    Answer { token: Token, frame: Vec<u8>, took: Duration },
    /// The catalogue as it stands on disk now.
    Namespaces { table: Arc<NamespaceTable> },
    /// To core 0: the receiver of [`Message::Namespaces`] obeys the catalogue of this sequence.
    NamespacesSeen { sequence: u64 },
    /// Tell what you have seen.
    ReportWanted { core: u16, token: Token, about: About },
    /// The answer to [`Message::ReportWanted`].
    Report { token: Token, report: Report },
    /// No request of this core's connections is under way any more.
    Drained,
    /// To itself: stopping is finished.
    Finished,
}

/// What every core needs to know of the node; the same for the node's life.
#[derive(Debug, Clone)]
pub(crate) struct NodeFacts {
    /// The database and its counts; `shard` is to be filled in.
    pub(crate) identity: Identity,
    /// 16 random bytes of the node.
    pub(crate) node_id: [u8; 16],
    /// Grows with every start.
    pub(crate) incarnation: u64,
    /// The directory of each shard.
    pub(crate) shard_dirs: Vec<PathBuf>,
    /// The catalogue at start.
    pub(crate) namespaces: Arc<NamespaceTable>,
}

/// Names an outstanding request of a core; never reused soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// A connection on its way to the core that its HELLO names.
#[derive(Debug)]
pub(crate) struct HandedOff<H> {
    pub(crate) handoff: H,
    /// All that was received: preface, HELLO and whatever followed.
    pub(crate) received: Vec<u8>,
    /// How many cores have passed it on because they were full; HELLO asks for any.
    pub(crate) passed: u16,
}

/// A request on its way to the core that owns its shard.
#[derive(Debug)]
pub(crate) struct Forwarded {
    /// Where the answer goes.
    pub(crate) core: u16,
    pub(crate) token: Token,
    pub(crate) kind: ForwardedKind,
    /// The body of the frame, or the command.
    pub(crate) body: Vec<u8>,
    /// When its bytes were received.
    pub(crate) received: Monotonic,
    /// When it is too late.
    pub(crate) deadline: Option<Monotonic>,
}

/// In which words a forwarded request is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ForwardedKind {
    /// A frame with the client's header, request id included.
    Frame(Header),
    /// A command of RESP, to be answered in this version.
    Command(RespVersion),
}

/// What a core is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// What it has counted.
    Counts,
    SlowOperations,
    /// That it is to forget its slow operations.
    ForgottenSlow,
    HotKeys,
    Clients,
}

/// What a core tells.
#[derive(Debug)]
pub(crate) enum Report {
    Counts(Box<CoreReport>),
    Slow(SlowReport),
    Hot(HotReport),
    Clients(ClientsReport),
}

/// What one core has counted.
#[derive(Debug)]
pub(crate) struct CoreReport {
    pub(crate) core: u16,
    pub(crate) connections: u64,
    pub(crate) requests: u64,
    /// Bytes of answers that wait, and of frames that are not complete.
    pub(crate) answer_bytes: u64,
    pub(crate) gathered_bytes: u64,
    pub(crate) counters: Vec<(&'static str, u64)>,
    /// What the world has counted for the core.
    pub(crate) runtime: Vec<(&'static str, u64)>,
    pub(crate) latencies: LatencyReport,
    /// How long commits of the logs of its shards took.
    pub(crate) commit: Histogram<u64>,
    pub(crate) usage: UsageReport,
    /// Time since the core's start that its thread ran, and that it did not, in nanoseconds.
    pub(crate) busy_ns: u64,
    pub(crate) idle_ns: u64,
    /// Shard number, and the engine's numbers by name.
    pub(crate) shards: Vec<(u16, Vec<(&'static str, u64)>)>,
    /// Shard number, and a table that compaction leaves alone.
    pub(crate) quarantine: Vec<(u16, QuarantinedTable)>,
}
