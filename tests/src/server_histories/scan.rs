//! Scans as a lane makes them: pages one after the other, each with its retries.
//!
//! A record of a page is a read at some moment of that page. A key that did not come was missing at
//! some moment of the scan, if the scan was to visit it: "every record that lives through the whole
//! scan comes exactly once". No version comes twice, and the order is the one that was asked for.

use std::collections::BTreeSet;

use pinion_protocol::{Request, Response, Scan, ScanKind, placement};

use super::history::Name;
use super::history::Span;
use super::lane::{Lane, found, page};
use super::model::Asked;

/// Pages after which a scan of a few keys is not making progress.
const PAGES_MAX: usize = 10_000;

/// A scan of everything, of the keys of a tag, or of a shard.
pub(super) async fn scan(lane: &Lane) {
    let tag = format!("tag-{}", lane.below(2)).into_bytes();
    let limit = lane.below(4) as u32;
    match lane.below(3) {
        0 => {
            let prefix = [b"{", &tag[..], b"}"].concat();
            let mut scan = page(0, ScanKind::Tag(&tag), limit, b"");
            if lane.one_in(2) {
                scan.prefix = &prefix;
            }
            if lane.one_in(2) {
                scan.direction = pinion_protocol::Direction::Reverse;
            }
            pages(lane, scan, |name| name.0 == 0 && placement::tag(&name.1) == &tag[..]).await;
        }
        1 => {
            let shards = lane.scene.plan.config.shards.expect("every history has its number of shards");
            let shard = lane.below(u64::from(shards)) as u16;
            let partitions = lane.scene.plan.partitions;
            let of_shard = |key: &[u8]| {
                let partition = placement::partition_of(key, partitions)?;
                placement::shard_of(partition, shards, partitions)
            };
            let scan = page(0, ScanKind::Ordered { shard }, limit, b"");
            pages(lane, scan, |name| name.0 == 0 && of_shard(&name.1) == Some(shard)).await;
        }
        _ if lane.one_in(2) => everything(lane, 0, limit).await,
        _ => {
            let (_, start) = lane.any_name();
            let partitions = lane.scene.plan.partitions;
            let mut scan = page(0, ScanKind::Placement, limit, b"");
            scan.start = &start;
            if lane.one_in(2) {
                scan.direction = pinion_protocol::Direction::Reverse;
            }
            let first = place(partitions, &start);
            pages(lane, scan, |name| name.0 == 0 && place(partitions, &name.1) >= first).await;
        }
    }
}

/// Where a key stands in the order of placement.
fn place(partitions: u32, key: &[u8]) -> (Option<u16>, &[u8]) {
    (placement::partition_of(key, partitions), key)
}

/// A scan of a whole namespace.
pub(super) async fn everything(lane: &Lane, namespace: u32, limit: u32) {
    pages(lane, page(namespace, ScanKind::Placement, limit, b""), |name| name.0 == namespace).await;
}

/// Reads all pages and notes what came and what did not.
async fn pages(lane: &Lane, scan: Scan<'_>, visits: impl Fn(&Name) -> bool) {
    let history = &lane.scene.history;
    let call = history.begin();
    let (called, from_ms) = lane.moment();
    let mut expected: BTreeSet<Name> = history.names().into_iter().filter(|name| visits(name)).collect();
    let partitions = lane.scene.plan.partitions;
    let order = |key: &[u8]| match scan.kind {
        ScanKind::Placement => placement::partition_of(key, partitions),
        ScanKind::Tag(_) | ScanKind::Ordered { .. } => None,
    };
    let (mut came, mut cursor, mut last) = (BTreeSet::new(), Vec::new(), None::<Vec<u8>>);
    for _ in 0..PAGES_MAX {
        let request = Request::Scan(Scan { cursor: &cursor, ..scan });
        let Some((reply, span)) = lane.read(scan.namespace, &request).await else { return };
        let Response::Scan(reply) = reply.response() else { panic!("{:?}", reply.response()) };
        lane.client.see(reply.stamp_seen);
        assert!(scan.limit == 0 || reply.records.len() <= scan.limit, "a page is longer than asked for");
        for record in &reply.records {
            let name: Name = (scan.namespace, record.key.into());
            if !visits(&name) {
                history.wrong(format!("a scan visits {:?}", name.1.escape_ascii().to_string()));
            }
            let in_order = last.as_deref().is_none_or(|last| match scan.direction {
                pinion_protocol::Direction::Forward => (order(last), last) < (order(record.key), record.key),
                pinion_protocol::Direction::Reverse => (order(last), last) > (order(record.key), record.key),
            });
            if !in_order {
                history
                    .wrong(format!("a scan is out of order at {:?}", record.key.escape_ascii().to_string()));
            }
            last = Some(record.key.to_vec());
            if !came.insert((name.1.clone(), record.value.version.0)) {
                history.wrong(format!("a scan shows {:?} twice", record.key.escape_ascii().to_string()));
            }
            expected.remove(&name);
            lane.note_read(&name, call, span, Some(found(&record.value)));
        }
        if reply.done {
            let whole = Span { called, from_ms, returned: span.returned };
            expected.iter().for_each(|name| history.note(name, call, whole, Asked::Read(None)));
            return lane.client.count("scans finished");
        }
        cursor = reply.cursor.to_vec();
    }
    history.wrong(format!("a scan is not over after {PAGES_MAX} pages"));
}
