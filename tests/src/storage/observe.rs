//! Reading a shard: gets and scans, as the ledger wants to be told of them.

use std::collections::BTreeMap;

use pinion_engine::{
    NamespaceId, OwnedPosition, Partition, RecordView, ScanKind, ScanRange, ScanSink, Shard, Waiter,
};
use pinion_env::Env;

use super::ledger::Seen;
use super::shape::{KeyName, Shape};
use crate::world::Random;

fn seen(record: RecordView<'_>) -> Seen {
    Seen { value: record.value.to_vec(), stamp: record.stamp, expiry_ms: record.expiry_ms }
}

/// Reads one key, from memory or from tables.
///
/// # Errors
/// As [`Shard::get`].
pub(crate) async fn get<E: Env, W: Waiter>(
    shard: &Shard<E, W>,
    shape: &Shape,
    key: usize,
) -> pinion_engine::Result<Option<Seen>> {
    let key = shape.keys[key].key(shape.partitions);
    match shard.get_now(&key, |record| record.map(seen)) {
        Ok(found) => Ok(found),
        Err(_) => Ok(shard.get(&key).await?.map(|found| seen(found.view()))),
    }
}

/// A scan to make.
#[derive(Debug, Clone)]
pub(crate) struct Scan {
    /// Its namespace.
    pub(crate) namespace: u32,
    /// By key across partitions, or partition by partition.
    pub(crate) ordered: bool,
    /// From the last key to the first.
    pub(crate) reverse: bool,
    /// The first key, included.
    pub(crate) start: Vec<u8>,
    /// The last key, excluded.
    pub(crate) end: Option<Vec<u8>>,
}

impl Scan {
    /// All of a namespace, in some order.
    pub(crate) fn whole(random: &mut Random, namespace: u32) -> Self {
        let (ordered, reverse) = (random.one_in(2), random.one_in(2));
        Self { namespace, ordered, reverse, start: Vec::new(), end: None }
    }

    /// Some range.
    pub(crate) fn draw(random: &mut Random, shape: &Shape) -> Self {
        let mut name = || &shape.keys[random.below(shape.keys.len() as u64) as usize];
        let (one, two) = (name(), name());
        let namespace = one.namespace;
        let (start, end) = if random.one_in(2) {
            (one.user.clone().min(two.user.clone()), Some(one.user.clone().max(two.user.clone())))
        } else {
            (Vec::new(), None)
        };
        Self { namespace, ordered: random.one_in(2), reverse: random.one_in(2), start, end }
    }

    fn holds(&self, name: &KeyName) -> bool {
        name.namespace == self.namespace
            && name.user >= self.start
            && self.end.as_ref().is_none_or(|end| name.user < *end)
    }

    /// Where a key comes in the order of the scan.
    fn place<'s>(&self, shape: &'s Shape, key: usize) -> (Partition, &'s [u8]) {
        let name = &shape.keys[key];
        let partition = if self.ordered { Partition(0) } else { shape.places[key] };
        (partition, &name.user)
    }

    /// The keys it goes over, in its order.
    pub(crate) fn keys(&self, shape: &Shape) -> Vec<usize> {
        let mut keys: Vec<usize> =
            (0..shape.keys.len()).filter(|key| self.holds(&shape.keys[*key])).collect();
        keys.sort_unstable_by_key(|key| self.place(shape, *key));
        if self.reverse {
            keys.reverse();
        }
        keys
    }

    /// The request for one page.
    pub(crate) fn range(&self, shape: &Shape, resume: Option<OwnedPosition>, records_max: u32) -> ScanRange {
        let kind = if self.ordered {
            ScanKind::Ordered
        } else {
            ScanKind::Placed { first: Partition(0), last: Partition(shape.partitions as u16 - 1) }
        };
        ScanRange {
            namespace: NamespaceId(self.namespace),
            kind,
            start: self.start.clone(),
            end: self.end.clone(),
            resume,
            reverse: self.reverse,
            records_max,
        }
    }
}

/// One page of a scan.
#[derive(Debug)]
pub(crate) struct Page<'s> {
    shape: &'s Shape,
    namespace: u32,
    records_max: usize,
    /// Keys by their index and what was shown, in the order of arrival.
    pub(crate) records: Vec<(usize, Seen)>,
}

impl<'s> Page<'s> {
    /// A page that takes so many records.
    pub(crate) fn new(shape: &'s Shape, scan: &Scan, records_max: usize) -> Self {
        Self { shape, namespace: scan.namespace, records_max, records: Vec::new() }
    }
}

impl ScanSink for Page<'_> {
    fn push(&mut self, user_key: &[u8], record: RecordView<'_>) -> bool {
        if self.records.len() >= self.records_max {
            return false;
        }
        let named = |name: &KeyName| (name.namespace, name.user.as_slice()).cmp(&(self.namespace, user_key));
        let key = self.shape.keys.binary_search_by(named);
        let key = key.unwrap_or_else(|_| panic!("a scan shows {user_key:?}, which nobody wrote"));
        self.records.push((key, seen(record)));
        true
    }
}

/// Takes the records of a page off the keys a scan goes over: what each of them showed, up to where
/// the next page resumes, or to the end of the range if this was the last one.
///
/// # Panics
/// When the records are out of order, keys come twice, or the page resumes before its end.
pub(crate) fn shown(
    keys: &mut Vec<usize>,
    page: Page<'_>,
    scan: &Scan,
    resume: Option<&OwnedPosition>,
) -> Vec<(usize, Option<Seen>)> {
    let shape = page.shape;
    let mut records: BTreeMap<usize, Seen> = BTreeMap::new();
    let mut order = keys.iter();
    let mut delivered = 0;
    for (key, seen) in page.records {
        let skipped = order.position(|next| *next == key);
        let skipped = skipped.unwrap_or_else(|| panic!("a scan shows key {key} twice or out of order"));
        delivered += skipped + 1;
        records.insert(key, seen);
    }
    let rest = match resume {
        None => Vec::new(),
        Some(resume) => {
            let resume = (resume.partition, resume.user.as_slice());
            let is_before = |key: &usize| {
                let place = scan.place(shape, *key);
                if scan.reverse { place > resume } else { place < resume }
            };
            let covered = keys.partition_point(is_before);
            assert!(covered >= delivered, "{scan:?} resumes before the end of the page");
            keys.split_off(covered)
        }
    };
    std::mem::replace(keys, rest).into_iter().map(|key| (key, records.remove(&key))).collect()
}
