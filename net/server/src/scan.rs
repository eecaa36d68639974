//! SCAN: one page of one of the three kinds of scan.
//!
//! A page never leaves its shard: tag scans have one partition, ordered scans name their shard,
//! and a placement scan's page ends at the border of a shard, with a cursor that continues in the
//! next one, on whichever core that is. The cursor is a position, sealed against the request and
//! the database.
//!
//! Limits: `scan_records_max` and `scan_bytes_max` of the engine bound a page (one record always
//! fits). A tag scan without a prefix looks at other keys of its partition too; they count, so a
//! page may be empty before the scan is done.

use std::rc::Rc;

use pinion_engine::{
    NamespaceId, OwnedPosition, Partition, RecordView, ScanKind, ScanRange, ScanSink, partition_of, tag,
};
use pinion_env::TaskClass;
use pinion_protocol::{
    Direction, Header, ListBuf, ProtocolError, Record, Records, Request, Response, Scan, ScanReply, Value,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::core::{Core, CoreShard, ReplyTo, Ticket};
use crate::layout::Layout;
use crate::message::ServerEnv;
use crate::pressure::AnswerBytes;
use crate::refusal::{Refusal, version_of};
use crate::watch::KeyPlace;

/// Where a scan goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Resume {
    /// At the first key of a partition in the direction of the scan.
    Partition(u16),
    /// At this key, inclusive.
    Key(u16, Vec<u8>),
}

impl Resume {
    const fn partition(&self) -> u16 {
        match self {
            Self::Partition(partition) | Self::Key(partition, _) => *partition,
        }
    }

    /// Kind (0 partition, 1 key), partition (u16 little-endian), key.
    fn encode(&self) -> Vec<u8> {
        let (kind, user): (u8, &[u8]) = match self {
            Self::Partition(_) => (0, &[]),
            Self::Key(_, user) => (1, user),
        };
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&self.partition().to_le_bytes());
        bytes.extend_from_slice(user);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let ([kind, low, high], user) = bytes.split_first_chunk::<3>()?;
        let partition = u16::from_le_bytes([*low, *high]);
        match (kind, user) {
            (0, []) => Some(Self::Partition(partition)),
            (1, user) => Some(Self::Key(partition, user.to_vec())),
            _ => None,
        }
    }
}

/// What a page covers.
struct Page {
    shard: u16,
    /// Partitions, first and last; meaningless for ordered scans.
    partitions: (u16, u16),
    resume: Option<Resume>,
    /// Whether the scan's bounds are those of this page.
    is_bounded: bool,
}

impl Page {
    /// The range of user keys of which it is a page.
    fn bounds(&self, scan: &Scan<'_>) -> (Vec<u8>, Option<Vec<u8>>) {
        if self.is_bounded { bounds(scan) } else { (Vec::new(), None) }
    }
}

/// Answers a page of a scan, or sends it to the core that owns it.
pub(crate) fn page<E: ServerEnv>(
    core: &Rc<Core<E>>,
    ticket: Ticket,
    (header, body): (&Header, &[u8]),
    scan: &Scan<'_>,
) {
    if core.checked_namespace(&ticket, scan.namespace).is_none() {
        return;
    }
    let page = match plan(core, scan) {
        Ok(page) => page,
        Err(refusal) => return core.refuse(&ticket, &refusal),
    };
    let Some(shard) = core.shard(page.shard) else {
        if matches!(ticket.reply, ReplyTo::Core { .. }) {
            return core.refuse(&ticket, &Refusal::bad_request("the page belongs to another core"));
        }
        let (start, _) = page.bounds(scan);
        let start = KeyPlace { shard: page.shard, user: &start };
        return core.forward(core.layout.core_of(page.shard), ticket, (header, body), Some(start));
    };
    let Some(place) = core.begin_read(&ticket) else { return };
    let (core, shard, header, body) = (Rc::clone(core), shard.clone(), *header, body.to_vec());
    core.env.clone().spawn(TaskClass::Foreground, async move {
        // The task outlives the frame, so it reads its own copy of the body.
        match Request::decode(&header, &body) {
            Ok(Request::Scan(scan)) => read_page(&core, &ticket, &shard, &scan, page).await,
            _ => core.refuse(&ticket, &Refusal::bad_request("not a scan")),
        }
        drop(place);
    });
}

/// Which shard and partitions a page covers.
fn plan<E: ServerEnv>(core: &Core<E>, scan: &Scan<'_>) -> Result<Page, Refusal<'static>> {
    let layout = core.layout;
    let position =
        scan.open_cursor(core.cursor_seal()).map_err(|error| Refusal::protocol(&error).into_owned())?;
    let bad_cursor = || Refusal::protocol(&ProtocolError::BadCursor).into_owned();
    let resume = position.map(|position| Resume::decode(position).ok_or_else(bad_cursor)).transpose()?;
    let reverse = scan.direction == Direction::Reverse;
    match scan.kind {
        pinion_protocol::ScanKind::Tag(wanted) => {
            let partition = Partition::of_hash(xxh3_64(wanted), layout.partitions);
            let shard = partition.shard(layout.shards, layout.partitions);
            Ok(Page { shard, partitions: (partition.0, partition.0), resume, is_bounded: true })
        }
        pinion_protocol::ScanKind::Placement => {
            let (lowest, highest) = (lowest_partition(scan, layout), (layout.partitions - 1) as u16);
            let resume = resume.unwrap_or_else(|| match (reverse, scan.start) {
                (true, _) => Resume::Partition(highest),
                (false, []) => Resume::Partition(lowest),
                (false, start) => Resume::Key(lowest, start.to_vec()),
            });
            let from = resume.partition();
            if !(lowest..=highest).contains(&from) {
                return Err(bad_cursor());
            }
            let shard = Partition(from).shard(layout.shards, layout.partitions);
            let (first, last) = layout.partitions_of(shard);
            let is_bounded = reverse && from == lowest;
            let partitions = match scan.start {
                _ if !reverse => (from, last),
                // Backwards, the partition where the start ends the scan has a page of its own: there the
                // start is a bound, and nowhere else.
                [_, ..] if !is_bounded => (first.max(lowest + 1), from),
                _ => (first.max(lowest), from),
            };
            Ok(Page { shard, partitions, resume: Some(resume), is_bounded })
        }
        pinion_protocol::ScanKind::Ordered { shard } => {
            if shard >= layout.shards {
                return Err(Refusal::bad_request("the node has no shard of this number"));
            }
            Ok(Page { shard, partitions: (0, 0), resume, is_bounded: true })
        }
    }
}

async fn read_page<E: ServerEnv>(
    core: &Rc<Core<E>>,
    ticket: &Ticket,
    shard: &CoreShard<E>,
    scan: &Scan<'_>,
    page: Page,
) {
    let (first, last) = page.partitions;
    let kind = match scan.kind {
        pinion_protocol::ScanKind::Ordered { .. } => ScanKind::Ordered,
        _ => ScanKind::Placed { first: Partition(first), last: Partition(last) },
    };
    let (start, end) = page.bounds(scan);
    let namespace = NamespaceId(scan.namespace);
    let within = |asked: u32, max: u32| if asked == 0 { max } else { asked.min(max) };
    let range = ScanRange {
        namespace,
        kind,
        start,
        end,
        resume: match page.resume {
            Some(Resume::Key(partition, user)) => {
                Some(OwnedPosition { partition: Partition(partition), namespace, user })
            }
            _ => None,
        },
        reverse: scan.direction == Direction::Reverse,
        // Keys of other tags count too: they bound the work of a page.
        records_max: match scan.kind {
            pinion_protocol::ScanKind::Tag(_) => core.options.scan_records_max,
            _ => within(scan.limit, core.options.scan_records_max),
        },
    };
    let mut sink = PageSink {
        held: AnswerBytes::new(core),
        records: ListBuf::with_buffer(core.take_buffer()),
        records_max: within(scan.limit, core.options.scan_records_max),
        bytes_max: within(scan.bytes_max, core.options.scan_bytes_max) as usize,
        keys_only: scan.keys_only,
        tag: match scan.kind {
            pinion_protocol::ScanKind::Tag(wanted) => Some(wanted),
            _ => None,
        },
    };
    let scanned = shard.scan(&range, &mut sink).await;
    core.tick();
    core.trail_scan(ticket, KeyPlace { shard: page.shard, user: &range.start });
    let ended = match scanned {
        Ok(ended) => ended,
        Err(error) => return core.refuse(ticket, &Refusal::engine(&error)),
    };
    if core.namespaces.borrow().default_ttl_ms(scan.namespace).is_none() {
        return core.refuse(ticket, &Refusal::no_such_namespace());
    }
    let next = match ended {
        Some(position) => Some(Resume::Key(position.partition.0, position.user)),
        None => next_shard(core, scan, (first, last)),
    };
    let mut cursor = Vec::new();
    if let Some(next) = &next
        && let Err(error) = scan.seal_cursor(core.cursor_seal(), &next.encode(), &mut cursor)
    {
        return core.refuse(ticket, &Refusal::protocol(&error));
    }
    let reply = ScanReply {
        done: next.is_none(),
        stamp_seen: core.stamp_seen.get().0,
        records: sink.records.list(),
        cursor: &cursor,
    };
    core.answer_with(ticket, &Response::Scan(reply));
    core.give_buffer(sink.records.into_buffer());
}

/// Where a scan goes on when its shard is exhausted.
fn next_shard<E: ServerEnv>(core: &Core<E>, scan: &Scan<'_>, (first, last): (u16, u16)) -> Option<Resume> {
    if scan.kind != pinion_protocol::ScanKind::Placement {
        return None;
    }
    match scan.direction {
        Direction::Forward if u32::from(last) + 1 < core.layout.partitions => {
            Some(Resume::Partition(last + 1))
        }
        Direction::Reverse if first > lowest_partition(scan, core.layout) => {
            Some(Resume::Partition(first - 1))
        }
        _ => None,
    }
}

/// The first partition of a placement scan.
fn lowest_partition(scan: &Scan<'_>, layout: Layout) -> u16 {
    if scan.start.is_empty() { 0 } else { partition_of(scan.start, layout.partitions).0 }
}

/// The range of user keys: what start, end and prefix leave together.
fn bounds(scan: &Scan<'_>) -> (Vec<u8>, Option<Vec<u8>>) {
    let start = scan.start.max(scan.prefix).to_vec();
    let end = (!scan.end.is_empty()).then(|| scan.end.to_vec());
    let prefix_end = if scan.prefix.is_empty() { None } else { after_prefix(scan.prefix) };
    let end = match (end, prefix_end) {
        (Some(end), Some(prefix_end)) => Some(end.min(prefix_end)),
        (end, prefix_end) => end.or(prefix_end),
    };
    (start, end)
}

/// The first key after all that start with `prefix`; `None` if there is none.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// Gathers a page.
struct PageSink<'a, E: ServerEnv> {
    /// What `records` holds counts as waiting answers.
    held: AnswerBytes<E>,
    records: ListBuf<Records>,
    records_max: u32,
    bytes_max: usize,
    keys_only: bool,
    /// Only keys with this tag; others are passed over.
    tag: Option<&'a [u8]>,
}

impl<E: ServerEnv> ScanSink for PageSink<'_, E> {
    fn push(&mut self, user: &[u8], record: RecordView<'_>) -> bool {
        if self.tag.is_some_and(|wanted| tag(user) != wanted) {
            return true;
        }
        let bytes = if self.keys_only { &[] } else { record.value };
        let full = self.records.len() >= self.records_max
            || self.records.bytes() + user.len() + bytes.len() > self.bytes_max;
        let full = full || !self.held.grow(user.len() + bytes.len());
        if full && !self.records.is_empty() {
            return false;
        }
        let value = Value { version: version_of(record.stamp), expiry_ms: record.expiry_ms, bytes };
        self.records.push(&Record { key: user, value }).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resume_survives_encoding() {
        for resume in [Resume::Partition(0), Resume::Partition(1_023), Resume::Key(7, b"key".to_vec())] {
            assert_eq!(Resume::decode(&resume.encode()), Some(resume));
        }
        for bad in [&b""[..], &[0, 1], &[0, 1, 0, 9], &[2, 0, 0]] {
            assert_eq!(Resume::decode(bad), None);
        }
    }

    #[test]
    fn bounds_are_what_start_end_and_prefix_leave() {
        let scan = |start, end, prefix| Scan {
            namespace: 0,
            kind: pinion_protocol::ScanKind::Ordered { shard: 0 },
            direction: Direction::Forward,
            limit: 0,
            bytes_max: 0,
            keys_only: false,
            start,
            end,
            prefix,
            cursor: b"",
        };
        type Case<'a> = (Scan<'a>, &'a [u8], Option<&'a [u8]>);
        let cases: [Case<'_>; 6] = [
            (scan(b"", b"", b""), b"", None),
            (scan(b"b", b"d", b""), b"b", Some(b"d")),
            (scan(b"", b"", b"ab"), b"ab", Some(b"ac")),
            (scan(b"abx", b"aby", b"ab"), b"abx", Some(b"aby")),
            (scan(b"", b"b", b"ab\xff"), b"ab\xff", Some(b"ac")),
            (scan(b"", b"", b"\xff\xff"), b"\xff\xff", None),
        ];
        for (scan, start, end) in cases {
            assert_eq!(bounds(&scan), (start.to_vec(), end.map(<[u8]>::to_vec)));
        }
    }
}
