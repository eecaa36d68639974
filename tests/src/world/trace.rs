//! The trace: a running hash over everything that happens in a world.
//!
//! Two runs of one seed must give the same hash; when they do not, some code has looked outside of
//! its environment (a real clock, an address, an unseeded map). The last steps are kept in words, to
//! be printed when a run fails.

use std::collections::VecDeque;
use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

/// What happened. The two numbers noted with a step say to whom and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A task was polled: task, 0.
    Turn,
    /// A task started: task, class.
    Spawn,
    /// An event came due: its number, 0.
    Event,
    /// A node started: node, cores.
    Start,
    /// A node ended: node, its life.
    End,
    /// A node was paused (1) or resumed (0): node, which.
    Pause,
    /// A disk operation had a fault: the fault's number, operations of that disk before.
    DiskFault,
    /// The power of a node was cut: node, how much was lost.
    PowerCut,
    /// A file operation that changes no file: result in bytes, 0.
    Inspect,
    /// A directory was changed or a file opened, created or locked: success, 0.
    Directory,
    /// Bytes were read: offset, bytes.
    Read,
    /// Bytes were written: offset, bytes.
    Write,
    /// An off-core job ran: 0, 0.
    OffCore,
    /// A client asked for a connection: node, port.
    Connect,
    /// A connection was given to a core: connection, core.
    Accept,
    /// Bytes arrived in a receive window: pipe, bytes.
    Deliver,
    /// A chunk was received: pipe, bytes.
    Receive,
    /// A message was taken: from, to.
    Message,
    /// A frame arrived at a node: node, bytes.
    Frame,
    /// Something went wrong on purpose: how often so far, and its name.
    Fault,
    /// Messages are held back from now on: from, to.
    Hold,
    /// Messages are not held back any more: from, to.
    Release,
}

/// Steps kept for the report of a failure.
const TAIL_STEPS: usize = 40;

#[derive(Default)]
pub(super) struct Trace {
    hash: u64,
    steps: u64,
    tail: VecDeque<(u64, Step, u64, u64)>,
}

impl Trace {
    pub(super) fn note(&mut self, nanos: u64, step: Step, first: u64, second: u64) {
        for word in [nanos, step as u64, first, second] {
            self.mix(word);
        }
        self.steps += 1;
        if self.tail.len() == TAIL_STEPS {
            self.tail.pop_front();
        }
        self.tail.push_back((nanos, step, first, second));
    }

    /// Content that moved: what a step's numbers do not show.
    pub(super) fn content(&mut self, bytes: &[u8]) {
        self.mix(xxh3_64(bytes));
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    fn mix(&mut self, word: u64) {
        self.hash = (self.hash.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} steps, hash {:016x}; the last ones:", self.steps, self.hash)?;
        for (nanos, step, first, second) in &self.tail {
            writeln!(f, "  {:>12.3} us  {step:?} {first} {second}", *nanos as f64 / 1000.0)?;
        }
        Ok(())
    }
}
