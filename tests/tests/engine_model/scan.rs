//! Scans of all kinds, page by page, against the model.

use std::cell::RefCell;
use std::rc::Rc;

use pinion_engine::{
    NamespaceId, OwnedPosition, Partition, RecordView, ScanKind, ScanRange, ScanSink, Shard, Stamp, Teller,
};
use pinion_tests::world::SimEnv;

use super::{Entry, History, PARTITIONS, Place};

#[derive(Default)]
struct Page {
    records: Vec<(Vec<u8>, Vec<u8>, Stamp)>,
    refuse_after: usize,
}

impl ScanSink for Page {
    fn push(&mut self, user_key: &[u8], record: RecordView<'_>) -> bool {
        if self.records.len() >= self.refuse_after {
            return false;
        }
        self.records.push((user_key.to_vec(), record.value.to_vec(), record.stamp));
        true
    }
}

pub(super) async fn scan(
    shard: &Shard<SimEnv, Teller>,
    history: &Rc<RefCell<History>>,
    namespace: u32,
    reverse: bool,
    ordered: bool,
    start: Vec<u8>,
    end: Option<Vec<u8>>,
) {
    history.borrow_mut().totals.scans += 1;
    let kind = if ordered {
        ScanKind::Ordered
    } else {
        ScanKind::Placed { first: Partition(0), last: Partition(PARTITIONS as u16 - 1) }
    };
    let before_ms = shard.clock_ms();
    let mut resume: Option<OwnedPosition> = None;
    let mut found = Vec::new();
    loop {
        let (records_max, refuse_after) = {
            let random = &mut history.borrow_mut().random;
            (1 + random.below(60) as u32, 1 + random.below(60) as usize)
        };
        let range = ScanRange {
            namespace: NamespaceId(namespace),
            kind,
            start: start.clone(),
            end: end.clone(),
            resume: resume.take(),
            reverse,
            records_max,
        };
        let mut page = Page { records: Vec::new(), refuse_after };
        resume = shard.scan(&range, &mut page).await.unwrap();
        assert!(!page.records.is_empty() || resume.is_none(), "a page that does not end makes progress");
        found.append(&mut page.records);
        if resume.is_none() {
            break;
        }
    }
    let after_ms = shard.clock_ms();
    let state = history.borrow();
    let within =
        |user: &[u8]| user >= start.as_slice() && end.as_ref().is_none_or(|end| user < end.as_slice());
    let mut expected: Vec<(&Place, &Entry)> = state
        .model
        .iter()
        .filter(|((_, of, user), entry)| *of == namespace && within(user) && entry.is_visible(before_ms))
        .collect();
    if ordered {
        expected.sort_by(|left, right| left.0.2.cmp(&right.0.2));
    }
    if reverse {
        expected.reverse();
    }
    let mut found = found.into_iter().peekable();
    for ((_, _, user), entry) in expected {
        let here = found.peek().is_some_and(|(key, ..)| key == user);
        assert!(here || !entry.is_visible(after_ms), "{} is missing", String::from_utf8_lossy(user));
        if here {
            let (_, value, stamp) = found.next().expect("it was peeked");
            assert_eq!((Some(value), stamp), (entry.value.clone(), entry.stamp));
        }
    }
    assert_eq!(found.next(), None, "the scan shows what should not exist or is out of order");
}
