//! A scan under way: which pages to ask for next, and the records in their order.
//!
//! A scan has one lane for each source: one for a placement or tag scan, one per shard for a scan
//! in key order. A lane holds at most one page that is being read and one that follows it, asked
//! for when half of the first is used up; the least first key of all lanes comes next.
//! Memory is bounded by two pages per lane, and pages are smaller when there are many lanes.

use std::collections::VecDeque;

use bytes::Bytes;

use super::map::ServerMap;
use super::operation::{Operation, Page, PageRequest, Route};
use crate::error::{Error, Outcome, Result};
use crate::scan::{Kind, ScanRange, ScanRecord};

/// Bytes of all pages of a scan together; a lane's share is at least [`PAGE_BYTES_MIN`].
const PAGES_BYTES_MAX: u32 = 1 << 20;
/// The least that a page may be asked to hold, in bytes.
const PAGE_BYTES_MIN: u32 = 16 << 10;
/// The most records that a page is asked to hold.
const PAGE_RECORDS_MAX: u32 = 4096;

/// A scan under way.
#[derive(Debug)]
pub(crate) struct ScanState {
    range: ScanRange,
    lanes: Vec<Lane>,
    page_bytes: u32,
    /// Records still to be yielded.
    remaining: u64,
}

#[derive(Debug)]
struct Lane {
    route: Route,
    shard: Option<u16>,
    records: VecDeque<ScanRecord>,
    /// The size of the last page: half of it is when the next one is asked for.
    page_records: usize,
    cursor: Bytes,
    asked: bool,
    done: bool,
}

impl ScanState {
    /// Plans a scan of the server that `map` describes.
    pub(crate) fn new(range: ScanRange, map: &ServerMap) -> Self {
        let lanes = match &range.kind {
            Kind::Placement(_) => vec![Lane::new(Route::Any, None)],
            Kind::Tag(tag) => vec![Lane::new(Route::Tag(tag.clone()), None)],
            Kind::Ordered => {
                (0..map.shards()).map(|shard| Lane::new(Route::Shard(shard), Some(shard))).collect()
            }
        };
        let share = PAGES_BYTES_MAX / u32::try_from(lanes.len()).unwrap_or(u32::MAX).max(1);
        let remaining = range.limit.unwrap_or(u64::MAX);
        Self { page_bytes: share.max(PAGE_BYTES_MIN), lanes, remaining, range }
    }

    /// The pages to ask for now: lane and operation. Each must be answered by
    /// [`ScanState::received`].
    pub(crate) fn requests(&mut self) -> Vec<(usize, Operation)> {
        let mut requests = Vec::new();
        if self.remaining == 0 {
            return requests;
        }
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            if lane.done || lane.asked || lane.records.len() > lane.page_records / 2 {
                continue;
            }
            lane.asked = true;
            let operation = Operation::Scan(PageRequest {
                namespace: 0,
                range: self.range.clone(),
                route: lane.route.clone(),
                shard: lane.shard,
                cursor: lane.cursor.clone(),
                records_max: u32::try_from(self.remaining).unwrap_or(u32::MAX).min(PAGE_RECORDS_MAX),
                bytes_max: self.page_bytes,
            });
            requests.push((index, operation));
        }
        requests
    }

    /// Takes the page that a lane asked for.
    pub(crate) fn received(&mut self, lane: usize, page: Page) -> Result<()> {
        let Some(lane) = self.lanes.get_mut(lane) else { return Ok(()) };
        if !page.done && page.cursor == lane.cursor {
            return Err(Error::Protocol {
                outcome: Outcome::NotApplied,
                message: "a page of a scan ends where it began".into(),
            });
        }
        lane.asked = false;
        lane.page_records = page.records.len();
        lane.records.extend(page.records);
        lane.cursor = page.cursor;
        lane.done = page.done;
        Ok(())
    }

    /// The next record; `None` when pages are missing or the scan is over.
    pub(crate) fn pop(&mut self) -> Option<ScanRecord> {
        if self.remaining == 0 || self.lanes.iter().any(|lane| lane.records.is_empty() && !lane.done) {
            return None;
        }
        let keys = self
            .lanes
            .iter()
            .enumerate()
            .filter_map(|(index, lane)| Some((&lane.records.front()?.key, index)));
        let (_, next) = if self.range.reverse { keys.max() } else { keys.min() }?;
        self.remaining -= 1;
        self.lanes[next].records.pop_front()
    }

    /// Whether every record has been yielded.
    #[cfg(test)]
    pub(crate) fn is_over(&self) -> bool {
        self.remaining == 0 || self.lanes.iter().all(|lane| lane.done && lane.records.is_empty())
    }
}

impl Lane {
    fn new(route: Route, shard: Option<u16>) -> Self {
        Self {
            route,
            shard,
            records: VecDeque::new(),
            page_records: 0,
            cursor: Bytes::new(),
            asked: false,
            done: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::map::Limits;
    use super::*;
    use crate::Version;

    fn map(shards: u16) -> ServerMap {
        ServerMap {
            cores: shards,
            partitions: 1024,
            shard_cores: (0..shards).collect(),
            limits: Limits {
                key_bytes_max: 4096,
                value_bytes_max: 1 << 20,
                batch_operations_max: 100,
                batch_bytes_max: 1 << 20,
                frame_bytes_max: 2 << 20,
            },
            retry_window: Duration::from_secs(60),
        }
    }

    fn page(keys: &[&'static str], cursor: &'static str) -> Page {
        let record = |key: &&'static str| ScanRecord {
            key: Bytes::from_static(key.as_bytes()),
            value: Bytes::new(),
            version: Version([1; 16]),
            expiry: None,
        };
        Page {
            records: keys.iter().map(record).collect(),
            cursor: Bytes::from_static(cursor.as_bytes()),
            done: cursor.is_empty(),
        }
    }

    fn keys(state: &mut ScanState) -> Vec<String> {
        std::iter::from_fn(|| state.pop())
            .map(|record| String::from_utf8(record.key.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn lanes_are_merged_in_key_order_and_paged() {
        let mut state = ScanState::new(ScanRange::prefix("k"), &map(2));
        assert_eq!(state.requests().len(), 2);
        assert!(state.requests().is_empty(), "each lane asks once at a time");
        state.received(0, page(&["k1", "k4"], "more")).unwrap();
        assert_eq!(state.pop(), None, "the other lane may have a lesser key");
        state.received(1, page(&["k2", "k3", "k9"], "")).unwrap();
        assert_eq!(keys(&mut state), ["k1", "k2", "k3", "k4"]);
        assert!(!state.is_over());
        let next = state.requests();
        assert_eq!(next.len(), 1);
        state.received(next[0].0, page(&["k5"], "")).unwrap();
        assert_eq!(keys(&mut state), ["k5", "k9"]);
        assert!(state.is_over());
    }

    #[test]
    fn a_reverse_scan_yields_the_greatest_first_and_stops_at_its_limit() {
        let mut state = ScanState::new(ScanRange::range("a"..).reverse().limit(3), &map(2));
        state.requests();
        state.received(0, page(&["d", "b"], "")).unwrap();
        state.received(1, page(&["c", "a"], "more")).unwrap();
        assert_eq!(keys(&mut state), ["d", "c", "b"]);
        assert!(state.is_over());
        assert!(state.requests().is_empty());
    }

    #[test]
    fn a_page_that_does_not_advance_is_an_error() {
        let mut state = ScanState::new(ScanRange::all(), &map(2));
        assert_eq!(state.requests().len(), 1);
        state.received(0, page(&["b"], "x")).unwrap();
        assert_eq!(keys(&mut state), ["b"]);
        state.requests();
        assert!(state.received(0, page(&[], "x")).is_err());
    }

    #[test]
    fn the_next_page_is_asked_for_when_half_of_this_one_is_used() {
        let mut state = ScanState::new(ScanRange::all(), &map(1));
        state.requests();
        state.received(0, page(&["a", "b", "c", "d"], "x")).unwrap();
        assert!(state.requests().is_empty());
        state.pop();
        assert!(state.requests().is_empty());
        state.pop();
        assert_eq!(state.requests().len(), 1);
        assert!(state.pop().is_some(), "what is there is yielded meanwhile");
    }
}
