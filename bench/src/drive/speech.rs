//! Speaking to a target: requests out, answers in, one connection.
//!
//! A request belongs to a *slot*, a place for one operation in flight. Answers are gathered in an
//! [`Answers`], whose bytes are one buffer for all, so that an answer costs one copy and no allocation.

use std::net::{SocketAddr, TcpStream};
use std::ops::Range;

use super::batch::Record;
use super::native::Native;
use super::resp::Resp;
use super::target::Speech;
use crate::error::{Error, Result};
use crate::load::GREETING_MAX;
use crate::workload::WriteDurability;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ask<'a> {
    Get {
        key: &'a [u8],
    },
    Put {
        key: &'a [u8],
        value: &'a [u8],
        is_new: bool,
    },
    /// Many records, all of them new or none.
    PutMany {
        records: &'a [Record],
        are_new: bool,
    },
    Delete {
        key: &'a [u8],
    },
    /// Up to `limit` records in the order of their keys, from `start` on.
    Scan {
        start: &'a [u8],
        limit: u64,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// A value: where it is in [`Answers::bytes`].
    Value(Range<usize>),
    /// There is no such record.
    Absent,
    /// Written.
    Done,
    /// A scan has read this many records.
    Scanned(u64),
    /// The target has too much to do; not applied. 0 ms = it does not say when to come again.
    Refused { retry_after_ms: u32, message: String },
    /// An error; whether it was applied is unknown if `is_unknown`.
    Failed { is_unknown: bool, message: String },
}

/// The answers of one receive.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) list: Vec<(usize, Answer)>,
    pub(super) bytes: Vec<u8>,
}

impl Answers {
    pub(super) fn push(&mut self, slot: usize, answer: Answer) {
        self.list.push((slot, answer));
    }

    pub(super) fn push_value(&mut self, slot: usize, value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.push(slot, Answer::Value(start..self.bytes.len()));
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.bytes.clear();
    }
}

/// How writes are to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct WriteOptions {
    pub(super) durability: WriteDurability,
    /// 0 = for ever.
    pub(super) ttl_ms: u64,
    /// Whether there are scans, for which a target without an order of keys needs an index.
    pub(super) scanned: bool,
}

/// One connection, whatever it speaks.
#[derive(Debug)]
pub(super) enum Talk {
    Native(Box<Native>),
    Resp(Resp),
}

impl Talk {
    /// Connects and greets.
    ///
    /// # Errors
    /// [`Error::Connect`]; [`Error::Refused`].
    pub(super) fn open(
        speech: Speech,
        target: SocketAddr,
        depth: usize,
        options: WriteOptions,
    ) -> Result<(TcpStream, Self)> {
        let refused = |error| Error::Connect { target, error };
        let mut socket = TcpStream::connect_timeout(&target, GREETING_MAX).map_err(refused)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(GREETING_MAX))?;
        let talk = match speech {
            Speech::Pinion => Self::Native(Box::new(Native::greet(&mut socket, depth, options)?)),
            Speech::Resp => Self::Resp(Resp::greet(&mut socket, options)?),
        };
        socket.set_read_timeout(None)?;
        Ok((socket, talk))
    }

    /// Appends a request of a slot, whose last one has been answered.
    pub(super) fn ask(&mut self, slot: usize, ask: Ask<'_>, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Native(native) => native.ask(slot, ask, out),
            Self::Resp(resp) => {
                resp.ask(slot, ask, out);
                Ok(())
            }
        }
    }

    /// Takes bytes; gathers the answers in them. What has to be asked further for a scan goes to `out`.
    ///
    /// # Errors
    /// The bytes are not the protocol's, or answer nothing that was asked.
    pub(super) fn receive(&mut self, bytes: &[u8], answers: &mut Answers, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Native(native) => native.receive(bytes, answers, out),
            Self::Resp(resp) => resp.receive(bytes, answers, out),
        }
    }
}
