//! Pinion's own protocol, as a load speaks it.
//!
//! A scan in the order of placement is asked for at once and answered page by page, whichever core has
//! them. For one in the order of keys every shard is asked in turn for as many records as are wanted; what
//! is counted is what a merge of them would give.

use std::net::TcpStream;

use pinion_protocol::{
    Batch, BatchOperation, Direction, Durability, ErrorCode, FRAME_BYTES_MAX_DEFAULT, Frames, KeyRequest,
    ListBuf, NAMESPACE_DEFAULT, OperationResult, Operations, Outcome, Put, Request, Response, Scan, ScanKind,
    Ttl, Write,
};

use super::batch::Record;
use super::speech::{Answer, Answers, Ask, AskOptions, append_record};
use crate::error::{Error, Result};
use crate::load::greet;
use crate::workload::{ScanOrder, WriteDurability};

#[derive(Debug)]
pub(super) struct Native {
    frames: Frames,
    slots: Vec<Slot>,
    shards: u16,
    scan_order: ScanOrder,
    /// Whether the records of a scan are handed on.
    verified: bool,
    durability: Durability,
    ttl: Ttl,
    /// Of the last batch; kept for its memory.
    operations: ListBuf<Operations>,
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
    /// In the order of keys: which shard is asked.
    shard: u16,
    /// Records wanted, found in this shard (or in the order of placement), and in all shards before.
    limit: u64,
    found: u64,
    found_before: u64,
    /// Those found, if they are handed on.
    records: Vec<u8>,
}

impl Native {
    pub(super) fn greet(socket: &mut TcpStream, depth: usize, options: AskOptions) -> Result<Self> {
        let mut frames = Frames::new(FRAME_BYTES_MAX_DEFAULT);
        let shards = greet(socket, &mut frames, depth)?;
        Ok(Self {
            frames,
            slots: (0..depth).map(|index| Slot { request_id: index as u64, ..Slot::default() }).collect(),
            shards,
            scan_order: options.scan_order,
            verified: options.verified,
            durability: match options.durability {
                WriteDurability::Sync => Durability::Sync,
                WriteDurability::Buffered => Durability::Buffered,
            },
            operations: ListBuf::new(),
            ttl: if options.ttl_ms == 0 { Ttl::NamespaceDefault } else { Ttl::from_millis(options.ttl_ms) },
        })
    }

    pub(super) fn ask(&mut self, index: usize, ask: Ask<'_>, out: &mut Vec<u8>) -> Result<()> {
        let namespace = NAMESPACE_DEFAULT;
        let write = |key| Write { namespace, key, durability: self.durability, stamp: None };
        let request = match ask {
            Ask::Get { key } => Request::Get(KeyRequest { namespace, key }),
            Ask::Put { key, value, .. } => Request::Put(Put { write: write(key), ttl: self.ttl, value }),
            Ask::PutMany { records, .. } => return self.ask_many(index, records, out),
            Ask::Delete { key } => Request::Delete(write(key)),
            Ask::Scan { start, limit } => {
                let scan = &mut self.slots[index].scan;
                scan.start.clear();
                scan.start.extend_from_slice(start);
                scan.cursor.clear();
                scan.records.clear();
                (scan.shard, scan.limit, scan.found, scan.found_before) = (0, limit, 0, 0);
                return self.ask_page(index, out);
            }
        };
        let request_id = self.next_id(index);
        Ok(request.encode(request_id, 0, 0, out)?)
    }

    fn ask_many(&mut self, index: usize, records: &[Record], out: &mut Vec<u8>) -> Result<()> {
        let request_id = self.next_id(index);
        self.operations.clear();
        for Record { key, value } in records {
            self.operations.push(&BatchOperation::Put { key, value, ttl: self.ttl })?;
        }
        let (durability, operations) = (self.durability, self.operations.list());
        let batch = Batch { namespace: NAMESPACE_DEFAULT, durability, stamp: None, operations };
        Ok(Request::Batch(batch).encode(request_id, 0, 0, out)?)
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
            kind: match self.scan_order {
                ScanOrder::Placement => ScanKind::Placement,
                ScanOrder::Keys => ScanKind::Ordered { shard: scan.shard },
            },
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
                Response::Batch(reply) => answers.push(index, of_batch(reply.results.iter())),
                Response::Scan(page) => {
                    let scan = &mut slot.scan;
                    scan.found += page.records.len() as u64;
                    if self.verified {
                        let records = page.records.iter();
                        records.for_each(|it| append_record(it.key, it.value.bytes, &mut scan.records));
                    }
                    scan.cursor.clear();
                    if !page.done && scan.found < scan.limit {
                        scan.cursor.extend_from_slice(page.cursor);
                        self.ask_page(index, out)?;
                        continue;
                    }
                    scan.found_before += std::mem::take(&mut scan.found);
                    scan.shard += 1;
                    if self.scan_order == ScanOrder::Keys && scan.shard < self.shards {
                        self.ask_page(index, out)?;
                    } else {
                        answers.push_scanned(index, scan.found_before.min(scan.limit), &scan.records);
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

/// What becomes of a batch: partitions succeed and fail by themselves. The whole is sent again when all
/// that failed was refused: puts may be repeated.
fn of_batch(results: impl Iterator<Item = OperationResult>) -> Answer {
    let (mut refused, mut failed, mut is_unknown) = (None, None, false);
    for result in results {
        let OperationResult::Failed { code, outcome, retry_after_ms } = result else { continue };
        if code == ErrorCode::Overloaded && outcome == Outcome::NotApplied {
            refused = refused.max(Some(retry_after_ms));
        } else {
            failed.get_or_insert(code);
            is_unknown |= outcome != Outcome::NotApplied;
        }
    }
    let message = |code: ErrorCode| format!("{}, for a part of a batch", code.name());
    match (failed, refused) {
        (Some(code), _) => Answer::Failed { is_unknown, message: message(code) },
        (None, Some(retry_after_ms)) => {
            Answer::Refused { retry_after_ms, message: message(ErrorCode::Overloaded) }
        }
        (None, None) => Answer::Done,
    }
}

#[cfg(test)]
mod tests {
    use pinion_protocol::{Record as Found, Records, ScanReply, Value, Version};

    use super::*;

    /// A connection to a server of two shards that has been greeted.
    fn native(scan_order: ScanOrder) -> Native {
        Native {
            frames: Frames::new(FRAME_BYTES_MAX_DEFAULT),
            slots: vec![Slot::default()],
            shards: 2,
            scan_order,
            verified: true,
            durability: Durability::Sync,
            ttl: Ttl::NamespaceDefault,
            operations: ListBuf::new(),
        }
    }

    /// Answers the request in `out` by a page; the answers that this gives.
    fn answer(native: &mut Native, out: &mut Vec<u8>, records: u32, cursor: &[u8]) -> Vec<(usize, Answer)> {
        let mut page = ListBuf::<Records>::new();
        for _ in 0..records {
            let value = Value { version: Version([1; 16]), expiry_ms: 0, bytes: b"v" };
            page.push(&Found { key: b"k", value }).unwrap();
        }
        let reply = ScanReply { done: cursor.is_empty(), stamp_seen: 0, records: page.list(), cursor };
        let (mut bytes, mut answers) = (Vec::new(), Answers::default());
        Response::Scan(reply).encode(native.slots[0].request_id, 0, &mut bytes).unwrap();
        out.clear();
        native.receive(&bytes, &mut answers, out).unwrap();
        answers.list
    }

    /// What the scan in `out` says: its shard if it is in the order of keys, its limit, start and cursor.
    fn asked(out: &[u8]) -> (Option<u16>, u32, Vec<u8>, Vec<u8>) {
        let (mut frames, mut rest) = (Frames::new(FRAME_BYTES_MAX_DEFAULT), out);
        let frame = frames.next_frame(&mut rest).unwrap().unwrap();
        let Request::Scan(scan) = Request::decode(&frame.header, frame.body).unwrap() else {
            panic!("no scan")
        };
        let shard = match scan.kind {
            ScanKind::Placement => None,
            ScanKind::Ordered { shard } => Some(shard),
            ScanKind::Tag(_) => panic!("no scan of the load"),
        };
        (shard, scan.limit, scan.start.to_vec(), scan.cursor.to_vec())
    }

    /// Of records whose keys and values are one byte each.
    fn scanned(found: u64, records: usize) -> Answer {
        Answer::Scanned(found, 0..10 * records)
    }

    #[test]
    fn a_scan_by_placement_goes_on_until_it_has_enough() {
        let (mut native, mut out) = (native(ScanOrder::Placement), Vec::new());
        native.ask(0, Ask::Scan { start: b"key", limit: 5 }, &mut out).unwrap();
        assert_eq!(asked(&out), (None, 5, b"key".to_vec(), Vec::new()));
        assert_eq!(answer(&mut native, &mut out, 3, b"on"), []);
        assert_eq!(asked(&out), (None, 2, b"key".to_vec(), b"on".to_vec()));
        assert_eq!(answer(&mut native, &mut out, 2, b"further"), [(0, scanned(5, 5))]);
        assert!(out.is_empty());
        // The end of all records.
        native.ask(0, Ask::Scan { start: b"key", limit: 5 }, &mut out).unwrap();
        assert_eq!(answer(&mut native, &mut out, 1, b""), [(0, scanned(1, 1))]);
    }

    #[test]
    fn a_scan_by_key_asks_every_shard_for_as_many() {
        let (mut native, mut out) = (native(ScanOrder::Keys), Vec::new());
        native.ask(0, Ask::Scan { start: b"key", limit: 5 }, &mut out).unwrap();
        assert_eq!(asked(&out), (Some(0), 5, b"key".to_vec(), Vec::new()));
        assert_eq!(answer(&mut native, &mut out, 4, b"on"), []);
        assert_eq!(asked(&out), (Some(0), 1, b"key".to_vec(), b"on".to_vec()));
        assert_eq!(answer(&mut native, &mut out, 1, b"on"), []);
        assert_eq!(asked(&out), (Some(1), 5, b"key".to_vec(), Vec::new()));
        assert_eq!(answer(&mut native, &mut out, 2, b""), [(0, scanned(5, 7))]);
    }

    #[test]
    fn a_batch_is_as_good_as_its_worst_part() {
        let done = OperationResult::Applied(Version([1; 16]));
        let failed =
            |code, outcome, retry_after_ms| OperationResult::Failed { code, outcome, retry_after_ms };
        let of = |results: &[OperationResult]| of_batch(results.iter().copied());
        assert_eq!(of(&[done, OperationResult::Superseded(Version([1; 16]))]), Answer::Done);
        let (busy, busier) = (
            failed(ErrorCode::Overloaded, Outcome::NotApplied, 3),
            failed(ErrorCode::Overloaded, Outcome::NotApplied, 7),
        );
        assert!(matches!(of(&[done, busy, busier, busy]), Answer::Refused { retry_after_ms: 7, .. }));
        let full = failed(ErrorCode::DiskFull, Outcome::NotApplied, 0);
        assert!(
            matches!(of(&[busy, full]), Answer::Failed { is_unknown: false, message } if message.starts_with("DISK_FULL"))
        );
        let unknown = failed(ErrorCode::Overloaded, Outcome::Unknown, 0);
        assert!(matches!(of(&[done, unknown]), Answer::Failed { is_unknown: true, .. }));
    }
}
