//! Speaking to a target: requests out, answers in, one connection.
//!
//! A request belongs to a *slot*, a place for one operation in flight. Answers are gathered in an
//! [`Answers`], whose bytes are one buffer for all, so that an answer costs one copy and no allocation.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;

use super::batch::Record;
use super::native::Native;
use super::resp::Resp;
use super::target::Speech;
use crate::error::{Error, Result};
use crate::load::GREETING_MAX;
use crate::workload::{ScanOrder, WriteDurability};

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
    /// Up to `limit` records from `start` on, in the order of scans.
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
    /// A scan has read this many records; where they are in [`Answers::bytes`], each as
    /// [`append_record`] puts it, or nothing if nobody looks at them.
    Scanned(u64, Range<usize>),
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

    /// Of a scan; `records` as [`append_record`] puts them.
    pub(super) fn push_scanned(&mut self, slot: usize, found: u64, records: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(records);
        self.push(slot, Answer::Scanned(found, start..self.bytes.len()));
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.bytes.clear();
    }
}

/// Appends a record of a scan: the length of its key (four bytes), the key, the same of its value.
pub(super) fn append_record(key: &[u8], value: &[u8], records: &mut Vec<u8>) {
    for part in [key, value] {
        let bytes = u32::try_from(part.len()).expect("keys and values are shorter than 4 GiB");
        records.extend_from_slice(&bytes.to_le_bytes());
        records.extend_from_slice(part);
    }
}

/// Keys and values of records that [`append_record`] has put.
pub(super) fn records(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    fn part<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        *bytes = rest;
        Some(part)
    }
    std::iter::from_fn(move || Some((part(&mut bytes)?, part(&mut bytes)?)))
}

/// How writes and scans are to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct AskOptions {
    pub(super) durability: WriteDurability,
    /// 0 = for ever.
    pub(super) ttl_ms: u64,
    /// Whether there are scans, for which a target without an order of keys needs an index.
    pub(super) scanned: bool,
    /// How scans of Pinion read; other targets have one order.
    pub(super) scan_order: ScanOrder,
    /// Whether somebody looks at the records of a scan.
    pub(super) verified: bool,
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
        options: AskOptions,
    ) -> Result<(TcpStream, Self)> {
        let refused = |error| Error::Connect { target, error };
        let mut socket = TcpStream::connect_timeout(&target, GREETING_MAX).map_err(refused)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(GREETING_MAX))?;
        let talk = match speech {
            Speech::Pinion => {
                Native::greet(&mut socket, depth, options).map(|native| Self::Native(Box::new(native)))
            }
            Speech::Resp => Resp::greet(&mut socket, options).map(Self::Resp),
        };
        let talk = talk.map_err(|error| match error {
            Error::Io(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let waited = format!("it did not greet within {} s", GREETING_MAX.as_secs());
                refused(io::Error::new(ErrorKind::TimedOut, waited))
            }
            other => other,
        })?;
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
