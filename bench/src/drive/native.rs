//! Pinion's own protocol, as a load speaks it.
//!
//! A scan reads in the order of keys, so every shard is asked in turn for as many records as are
//! wanted, page by page; what is counted is what a merge of them would give.

use std::net::TcpStream;

use pinion_protocol::{
    Direction, Durability, ErrorCode, FRAME_BYTES_MAX_DEFAULT, Frames, KeyRequest, NAMESPACE_DEFAULT,
    Outcome, Put, Request, Response, Scan, ScanKind, Ttl, Write,
};

use super::speech::{Answer, Answers, Ask, WriteOptions};
use crate::error::{Error, Result};
use crate::load::greet;
use crate::workload::WriteDurability;

#[derive(Debug)]
pub(super) struct Native {
    frames: Frames,
    slots: Vec<Slot>,
    shards: u16,
    durability: Durability,
    ttl: Ttl,
}

/// A place for one request.
#[derive(Debug, Default)]
struct Slot {
    /// Of its last request. Modulo the number of slots it is the slot's index.
    request_id: u64,
    in_flight: bool,
    scan: ScanState,
}

/// Where a scan is.
#[derive(Debug, Default)]
struct ScanState {
    start: Vec<u8>,
    cursor: Vec<u8>,
    shard: u16,
    /// Records wanted, found in this shard, and in all shards before.
    limit: u64,
    found: u64,
    found_before: u64,
}

impl Native {
    pub(super) fn greet(socket: &mut TcpStream, depth: usize, options: WriteOptions) -> Result<Self> {
        let mut frames = Frames::new(FRAME_BYTES_MAX_DEFAULT);
        let shards = greet(socket, &mut frames, depth)?;
        Ok(Self {
            frames,
            slots: (0..depth).map(|index| Slot { request_id: index as u64, ..Slot::default() }).collect(),
            shards,
            durability: match options.durability {
                WriteDurability::Sync => Durability::Sync,
                WriteDurability::Buffered => Durability::Buffered,
            },
            ttl: if options.ttl_ms == 0 { Ttl::NamespaceDefault } else { Ttl::from_millis(options.ttl_ms) },
        })
    }

    pub(super) fn ask(&mut self, index: usize, ask: Ask<'_>, out: &mut Vec<u8>) -> Result<()> {
        let namespace = NAMESPACE_DEFAULT;
        let write = |key| Write { namespace, key, durability: self.durability, stamp: None };
        let request = match ask {
            Ask::Get { key } => Request::Get(KeyRequest { namespace, key }),
            Ask::Put { key, value, .. } => Request::Put(Put { write: write(key), ttl: self.ttl, value }),
            Ask::Delete { key } => Request::Delete(write(key)),
            Ask::Scan { start, limit } => {
                let scan = &mut self.slots[index].scan;
                scan.start.clear();
                scan.start.extend_from_slice(start);
                scan.cursor.clear();
                (scan.shard, scan.limit, scan.found, scan.found_before) = (0, limit, 0, 0);
                return self.ask_page(index, out);
            }
        };
        let request_id = self.next_id(index);
        Ok(request.encode(request_id, 0, 0, out)?)
    }

    fn next_id(&mut self, index: usize) -> u64 {
        let depth = self.slots.len() as u64;
        let slot = &mut self.slots[index];
        slot.in_flight = true;
        slot.request_id += depth;
        slot.request_id
    }

    fn ask_page(&mut self, index: usize, out: &mut Vec<u8>) -> Result<()> {
        let request_id = self.next_id(index);
        let scan = &self.slots[index].scan;
        let request = Request::Scan(Scan {
            namespace: NAMESPACE_DEFAULT,
            kind: ScanKind::Ordered { shard: scan.shard },
            direction: Direction::Forward,
            limit: u32::try_from(scan.limit - scan.found).unwrap_or(u32::MAX),
            bytes_max: 0,
            keys_only: false,
            start: &scan.start,
            end: &[],
            prefix: &[],
            cursor: &scan.cursor,
        });
        Ok(request.encode(request_id, 0, 0, out)?)
    }

    pub(super) fn receive(
        &mut self,
        mut chunk: &[u8],
        answers: &mut Answers,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let depth = self.slots.len() as u64;
        loop {
            let Some(frame) = self.frames.next_frame(&mut chunk)? else { return Ok(()) };
            let request_id = frame.header.request_id;
            let index = (request_id % depth) as usize;
            if request_id == 0
                && let Response::Error { error, .. } = Response::decode(&frame.header, frame.body)?
            {
                return Err(Error::Refused(format!("{}: {}", error.code.name(), error.message)));
            }
            let slot = &mut self.slots[index];
            if !slot.in_flight || slot.request_id != request_id {
                return Err(Error::Answer(format!("request id {request_id} is not in flight")));
            }
            slot.in_flight = false;
            match Response::decode(&frame.header, frame.body)? {
                Response::Get(reply) => match reply.value {
                    Some(value) => answers.push_value(index, value.bytes),
                    None => answers.push(index, Answer::Absent),
                },
                Response::Put(_) | Response::Delete(_) => answers.push(index, Answer::Done),
                Response::Scan(page) => {
                    let scan = &mut slot.scan;
                    scan.found += page.records.len() as u64;
                    scan.cursor.clear();
                    if !page.done && scan.found < scan.limit {
                        scan.cursor.extend_from_slice(page.cursor);
                        self.ask_page(index, out)?;
                        continue;
                    }
                    scan.found_before += std::mem::take(&mut scan.found);
                    scan.shard += 1;
                    if scan.shard < self.shards {
                        self.ask_page(index, out)?;
                    } else {
                        answers.push(index, Answer::Scanned(scan.found_before.min(scan.limit)));
                    }
                }
                Response::Error { error, .. } => {
                    let message = format!("{}: {}", error.code.name(), error.message);
                    let is_applied = error.outcome != Outcome::NotApplied;
                    answers.push(
                        index,
                        if error.code == ErrorCode::Overloaded && !is_applied {
                            Answer::Refused { retry_after_ms: error.retry_after_ms, message }
                        } else {
                            Answer::Failed { is_unknown: is_applied, message }
                        },
                    );
                }
                other => return Err(Error::Answer(format!("opcode {} was not asked for", other.opcode()))),
            }
        }
    }
}
