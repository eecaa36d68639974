//! Scans: pages of records in order, each consistent at one moment.
//!
//! A page takes the memtables, the set of tables and a sequence number at its start; whatever is
//! published later is invisible to it. The places are merged newest first: of several records under
//! one key the newest place's wins, and it is shown if it is visible.
//!
//! Two orders. *Placed* goes by partition, then user key: one seek per partition (none where the
//! merge stands there already). *Ordered* goes by user key across the partitions of the shard: one
//! seek per partition and page, keeping the smallest `records_max` keys seen so far.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;

use pinion_env::Env;

use super::memtables::Slot;
use super::place_cursor::{PlaceCursor, Reach};
use super::version::Version;
use super::{Inner, Shard};
use crate::error::Result;
use crate::key::{NamespaceId, OwnedPosition, Partition, Position};
use crate::memtable::MemtableCursor;
use crate::operation::Waiter;
use crate::record::RecordView;
use crate::together::together;

/// The order of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScanKind {
    /// By partition, then user key, through these partitions (both included; those of other shards
    /// are left out). One partition: the keys of a tag.
    Placed {
        /// First partition.
        first: Partition,
        /// Last partition.
        last: Partition,
    },
    /// By user key, merging all partitions of the shard.
    Ordered,
}

/// What a page covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanRange {
    /// The namespace.
    pub namespace: NamespaceId,
    /// The order.
    pub kind: ScanKind,
    /// First user key, included. With [`ScanKind::Placed`] it applies in each partition.
    pub start: Vec<u8>,
    /// End of the user keys, excluded; `None` = no end.
    pub end: Option<Vec<u8>>,
    /// Where the page before ended: the first position not delivered.
    pub resume: Option<OwnedPosition>,
    /// From the last key to the first.
    pub reverse: bool,
    /// Records in the page; cut to `scan_records_max`.
    pub records_max: u32,
}

/// Takes the records of a page.
pub trait ScanSink {
    /// Takes one record, or answers `false` if it does not fit: the page ends before it.
    fn push(&mut self, user_key: &[u8], record: RecordView<'_>) -> bool;
}

impl<E: Env, W: Waiter> Shard<E, W> {
    /// Reads one page. Answers the first position that was not delivered, or `None` at the end of
    /// the range.
    ///
    /// # Errors
    /// A damaged block, or a failed read.
    pub async fn scan(&self, range: &ScanRange, sink: &mut impl ScanSink) -> Result<Option<OwnedPosition>> {
        let inner = &*self.inner;
        inner.counters.scans.add(1);
        let mut merge = Merge::new(inner, range.reverse);
        let records_max = range.records_max.clamp(1, inner.options.scan_records_max);
        match range.kind {
            ScanKind::Placed { first, last } => {
                let own = inner.partitions();
                let (first, last) = (first.0.max(own.start), last.0.min(own.end - 1));
                let left = Cell::new(records_max);
                inner
                    .scan_placed(&mut merge, range, first..=last, &left, &mut |key, record| {
                        if left.get() == 0 || !sink.push(key, record) {
                            return false;
                        }
                        left.set(left.get() - 1);
                        true
                    })
                    .await
            }
            ScanKind::Ordered => inner.scan_ordered(&mut merge, range, records_max, sink).await,
        }
    }
}

impl<E: Env, W: Waiter> Inner<E, W> {
    /// The partitions that belong to this shard.
    pub(super) fn partitions(&self) -> std::ops::Range<u16> {
        let (partitions, shards) = (self.identity.partitions, u32::from(self.identity.shards));
        let start = |shard: u32| (shard * partitions).div_ceil(shards) as u16;
        let shard = u32::from(self.identity.shard);
        start(shard)..start(shard + 1)
    }

    async fn scan_placed(
        &self,
        merge: &mut Merge<E>,
        range: &ScanRange,
        partitions: std::ops::RangeInclusive<u16>,
        left: &Cell<u32>,
        take: &mut impl FnMut(&[u8], RecordView<'_>) -> bool,
    ) -> Result<Option<OwnedPosition>> {
        let (mut low, mut high) = (*partitions.start(), *partitions.end());
        if let Some(resume) = &range.resume {
            if range.reverse {
                high = high.min(resume.partition.0)
            } else {
                low = low.max(resume.partition.0)
            }
        }
        // Whole partitions are read ahead of across their borders.
        let is_whole = range.start.is_empty() && range.end.is_none();
        let last = Bounds::of(range, Partition(if range.reverse { low } else { high }));
        while low <= high {
            let partition = Partition(if range.reverse { high } else { low });
            let bounds = Bounds::of(range, partition);
            let outlook = Outlook { records: left.get(), until: if is_whole { &last } else { &bounds } };
            let ended = self.scan_partition(merge, &bounds, &outlook, take).await?;
            if ended.is_some() {
                return Ok(ended);
            }
            // The merge stands on the next record there is: partitions before it are empty.
            let Some(next) = merge.head() else { return Ok(None) };
            if range.reverse {
                if high == 0 {
                    return Ok(None);
                }
                high = (high - 1).min(next.partition.0);
            } else {
                let Some(after) = low.checked_add(1) else { return Ok(None) };
                low = after.max(next.partition.0);
            }
        }
        Ok(None)
    }

    /// Walks one partition; answers the position at which `take` refused.
    async fn scan_partition(
        &self,
        merge: &mut Merge<E>,
        bounds: &Bounds,
        outlook: &Outlook<'_>,
        take: &mut impl FnMut(&[u8], RecordView<'_>) -> bool,
    ) -> Result<Option<OwnedPosition>> {
        merge.seek(bounds, outlook).await?;
        let mut step = self.step();
        while let Some(head) = merge.head() {
            if !bounds.contains(head) {
                break;
            }
            let verdict = merge.with_record(|record| {
                if !step.take(head.user.len() + record.value.len()) {
                    return Verdict::Yield;
                }
                match self.is_visible_now(&record) {
                    Err(super::NeedsRead) => Verdict::ExtendCeiling,
                    Ok(true) if !take(&head.user, record) => Verdict::Full,
                    Ok(_) => Verdict::Next,
                }
            });
            match verdict {
                Verdict::Full => return Ok(Some(head.clone())),
                Verdict::ExtendCeiling => self.extend_ceiling().await?,
                Verdict::Next => merge.advance().await?,
                Verdict::Yield => {
                    self.note_step(&step);
                    step = self.step();
                    self.env.yield_now().await;
                }
            }
        }
        Ok(None)
    }

    /// Keeps the first `records_max` keys (and at most `scan_bytes_max` bytes) of all partitions.
    async fn scan_ordered(
        &self,
        merge: &mut Merge<E>,
        range: &ScanRange,
        records_max: u32,
        sink: &mut impl ScanSink,
    ) -> Result<Option<OwnedPosition>> {
        let mut best = Best::new(range.reverse, records_max as usize, self.options.scan_bytes_max as usize);
        // In the direction of the scan, so that the merge never goes back.
        let mut partitions: Vec<u16> = self.partitions().collect();
        if range.reverse {
            partitions.reverse();
        }
        for (visited, partition) in partitions.into_iter().enumerate() {
            let mut bounds = Bounds::of(range, Partition(partition));
            best.tighten(&mut bounds);
            if bounds.is_empty() {
                continue;
            }
            // Of the best of so many partitions, each has its part.
            let outlook = Outlook { records: records_max / (visited as u32 + 1) + 1, until: &bounds };
            self.scan_partition(merge, &bounds, &outlook, &mut |key, record| best.offer(key, &record))
                .await?;
            self.env.yield_now().await;
        }
        let place =
            |user: Vec<u8>| OwnedPosition { partition: Partition(0), namespace: range.namespace, user };
        let Best { records, cut, .. } = best;
        let mut deliver = |(key, record): (Vec<u8>, OwnedRecord)| {
            if sink.push(&key, record.view()) { None } else { Some(place(key)) }
        };
        let refused = if range.reverse {
            records.into_iter().rev().find_map(&mut deliver)
        } else {
            records.into_iter().find_map(&mut deliver)
        };
        Ok(refused.or(cut.map(place)))
    }
}

enum Verdict {
    Next,
    Full,
    ExtendCeiling,
    Yield,
}

/// What a walk is expected to take, from all places together.
struct Outlook<'a> {
    /// About so many records.
    records: u32,
    /// None beyond these bounds.
    until: &'a Bounds,
}

/// The part of a scan that lies in one partition.
struct Bounds {
    partition: Partition,
    namespace: NamespaceId,
    /// Included.
    low: Vec<u8>,
    /// Excluded; `None` = to the end of the namespace.
    high: Option<Vec<u8>>,
}

impl Bounds {
    fn of(range: &ScanRange, partition: Partition) -> Self {
        let mut bounds =
            Self { partition, namespace: range.namespace, low: range.start.clone(), high: range.end.clone() };
        let Some(resume) = &range.resume else { return bounds };
        if range.kind != ScanKind::Ordered && resume.partition != partition {
            return bounds;
        }
        if range.reverse {
            // The position itself was not delivered yet: the bound is right after it.
            let mut after = resume.user.clone();
            after.push(0);
            bounds.high = Some(bounds.high.map_or(after.clone(), |high| high.min(after)));
        } else {
            bounds.low = bounds.low.max(resume.user.clone());
        }
        bounds
    }

    fn is_empty(&self) -> bool {
        self.high.as_ref().is_some_and(|high| *high <= self.low)
    }

    fn contains(&self, position: &OwnedPosition) -> bool {
        position.partition == self.partition
            && position.namespace == self.namespace
            && position.user >= self.low
            && self.high.as_ref().is_none_or(|high| position.user < *high)
    }

    fn first(&self) -> Position<'_> {
        Position { partition: self.partition, namespace: self.namespace, user: &self.low }
    }

    /// Where a scan comes from, and where it stops.
    fn way(&self, reverse: bool) -> (Position<'_>, Position<'_>) {
        if reverse { (self.end(), self.first()) } else { (self.first(), self.end()) }
    }

    /// The position right after the last.
    fn end(&self) -> Position<'_> {
        match &self.high {
            Some(high) => Position { partition: self.partition, namespace: self.namespace, user: high },
            None => match self.namespace.0.checked_add(1) {
                Some(next) => Position { partition: self.partition, namespace: NamespaceId(next), user: &[] },
                None => Position {
                    partition: Partition(self.partition.0.saturating_add(1)),
                    namespace: NamespaceId(0),
                    user: &[],
                },
            },
        }
    }
}

/// A record kept until the page is complete.
struct OwnedRecord {
    kind: crate::record::RecordKind,
    stamp: crate::stamp::Stamp,
    expiry_ms: u64,
    value: Vec<u8>,
}

impl OwnedRecord {
    fn view(&self) -> RecordView<'_> {
        RecordView { kind: self.kind, stamp: self.stamp, expiry_ms: self.expiry_ms, value: &self.value }
    }
}

/// The best records seen so far, and from where on they are incomplete.
struct Best {
    reverse: bool,
    records_max: usize,
    bytes_max: usize,
    bytes: usize,
    records: BTreeMap<Vec<u8>, OwnedRecord>,
    /// The first key (in scan order) that was left out.
    cut: Option<Vec<u8>>,
}

impl Best {
    fn new(reverse: bool, records_max: usize, bytes_max: usize) -> Self {
        Self { reverse, records_max, bytes_max, bytes: 0, records: BTreeMap::new(), cut: None }
    }

    /// Leaves out of the bounds what would be cut anyway.
    fn tighten(&self, bounds: &mut Bounds) {
        let Some(cut) = &self.cut else { return };
        if self.reverse {
            let mut after = cut.clone();
            after.push(0);
            bounds.low = bounds.low.clone().max(after);
        } else {
            bounds.high = Some(bounds.high.take().map_or(cut.clone(), |high| high.min(cut.clone())));
        }
    }

    /// Takes a record; answers whether later ones of the same partition can still be among the best.
    fn offer(&mut self, key: &[u8], record: &RecordView<'_>) -> bool {
        if let Some(cut) = &self.cut
            && (if self.reverse { key <= cut.as_slice() } else { key >= cut.as_slice() })
        {
            return false;
        }
        let RecordView { kind, stamp, expiry_ms, value } = *record;
        self.bytes += key.len() + value.len();
        self.records.insert(key.to_vec(), OwnedRecord { kind, stamp, expiry_ms, value: value.to_vec() });
        while self.records.len() > self.records_max || (self.bytes > self.bytes_max && self.records.len() > 1)
        {
            let worst = if self.reverse { self.records.pop_first() } else { self.records.pop_last() };
            let Some((key, record)) = worst else { break };
            self.bytes -= key.len() + record.value.len();
            self.cut = Some(key);
        }
        true
    }
}

/// All places of a shard at one moment, merged in order, newest place first.
struct Merge<E: Env> {
    reverse: bool,
    sequence: u64,
    sources: Vec<Source<E>>,
    /// The source that holds the present record, if any: the first of a list of those that stand on one,
    /// in the order of the scan, and of those under one key the newest place first.
    first: Option<usize>,
}

struct Source<E: Env> {
    place: Place<E>,
    /// About how many records it has.
    records: u64,
    /// Where it stands; the buffer is reused.
    head: Option<OwnedPosition>,
    /// The head is known from a table's range, beyond the bounds, and its record was not read.
    unread: bool,
    /// There is a seek to do.
    aimed: bool,
    /// The next one in the list of those that stand on a record.
    behind: Option<usize>,
}

enum Place<E: Env> {
    Memtable { slot: Rc<Slot>, cursor: MemtableCursor },
    Tables(PlaceCursor<E>),
}

impl<E: Env> Merge<E> {
    fn new<W: Waiter>(shard: &Inner<E, W>, reverse: bool) -> Self {
        let version: Rc<Version<E>> = shard.version.borrow().clone();
        let memtables = shard.memtables.borrow();
        let memory = memtables.newest_first().filter(|slot| !slot.table.borrow().is_empty());
        let memory =
            memory.map(|slot| Place::Memtable { slot: Rc::clone(slot), cursor: MemtableCursor::new() });
        let tables = version
            .places()
            .map(|tables| Place::Tables(PlaceCursor::cached(Rc::clone(tables), &shard.block_cache)));
        let sources = memory.chain(tables).map(Source::new).collect();
        Self { reverse, sequence: shard.sequence.get(), sources, first: None }
    }

    /// The position it stands on.
    fn head(&self) -> Option<&OwnedPosition> {
        self.sources[self.first?].head.as_ref()
    }

    /// The record it stands on, tombstones included.
    fn with_record<R>(&self, visit: impl FnOnce(RecordView<'_>) -> R) -> R {
        let source = &self.sources[self.first.expect("there is a head")];
        match &source.place {
            Place::Memtable { slot, cursor } => {
                let table = slot.table.borrow();
                let current = cursor.current_at(&table, self.sequence);
                visit(current.and_then(|(_, record)| record).expect("the cursor stands on a visible version"))
            }
            Place::Tables(cursor) => visit(cursor.current().expect("the cursor stands on a record").1),
        }
    }

    /// Goes to the first (or last, in reverse) position within the bounds or beyond them. Each
    /// source will be asked for its share of what is expected. What they have to read first they
    /// read all at once.
    async fn seek(&mut self, bounds: &Bounds, outlook: &Outlook<'_>) -> Result<()> {
        let (reverse, sequence) = (self.reverse, self.sequence);
        for source in &mut self.sources {
            source.aim(bounds, reverse, sequence);
        }
        let all = self.sources.iter().filter(|source| !source.unread).map(|source| source.records);
        let all = all.sum::<u64>().max(1);
        let mut reads = Vec::new();
        for source in self.sources.iter_mut().filter(|source| source.aimed) {
            let records = u64::from(outlook.records).saturating_mul(source.records).div_ceil(all);
            let reach = Reach { records, stop: outlook.until.way(reverse).1 };
            reads.extend(source.first_read(bounds, &reach, reverse).map(Box::pin));
        }
        // One alone is the seek's own.
        if reads.len() > 1 {
            together(reads).await?;
        } else {
            drop(reads);
        }
        for source in self.sources.iter_mut().filter(|source| source.aimed) {
            source.seek(bounds, reverse, sequence).await?;
        }
        self.first = None;
        (0..self.sources.len()).for_each(|index| self.insert(index));
        Ok(())
    }

    /// Goes to the next position.
    async fn advance(&mut self) -> Result<()> {
        let Some(chosen) = self.pop() else { return Ok(()) };
        // Older places under the same key are passed over with it.
        while let Some(other) = self.first
            && self.sources[other].head == self.sources[chosen].head
        {
            self.pop();
            self.pass(other).await?;
        }
        self.pass(chosen).await
    }

    /// Takes the first source out of the list.
    fn pop(&mut self) -> Option<usize> {
        let first = self.first?;
        self.first = self.sources[first].behind.take();
        Some(first)
    }

    /// Takes a source that is not in the list further.
    async fn pass(&mut self, index: usize) -> Result<()> {
        self.sources[index].advance(self.reverse, self.sequence).await?;
        self.insert(index);
        Ok(())
    }

    /// Puts a source into the list; not if it has ended.
    fn insert(&mut self, index: usize) {
        let Some(head) = &self.sources[index].head else { return };
        let comes_later = |other: usize| {
            let there = self.sources[other].head.as_ref();
            let order = there.map(|there| if self.reverse { head.cmp(there) } else { there.cmp(head) });
            order.is_some_and(|order| order.then(other.cmp(&index)).is_gt())
        };
        // Most of the time it is the largest place's, and comes first again.
        let (mut before, mut behind) = (None, self.first);
        while let Some(other) = behind.filter(|other| !comes_later(*other)) {
            (before, behind) = (Some(other), self.sources[other].behind);
        }
        self.sources[index].behind = behind;
        match before {
            Some(before) => self.sources[before].behind = Some(index),
            None => self.first = Some(index),
        }
    }
}

impl<E: Env> Source<E> {
    fn new(place: Place<E>) -> Self {
        let records = match &place {
            Place::Memtable { slot, .. } => slot.table.borrow().records() as u64,
            Place::Tables(cursor) => cursor.records(),
        };
        Self { place, records, head: None, unread: false, aimed: false, behind: None }
    }

    /// Finds out whether there is a seek to do, and does what needs no table.
    fn aim(&mut self, bounds: &Bounds, reverse: bool, sequence: u64) {
        self.aimed = false;
        // One that stands at or beyond the start (and before nothing it has passed) stays.
        if let Some(head) = &self.head {
            let stands = if reverse { head.borrow() < bounds.end() } else { head.borrow() >= bounds.first() };
            if stands && !(self.unread && bounds.contains(head)) {
                return;
            }
        }
        self.unread = false;
        match &mut self.place {
            Place::Memtable { slot, cursor } => {
                let table = slot.table.borrow();
                if reverse {
                    cursor.seek_before(&table, &bounds.end());
                } else {
                    cursor.seek(&table, &bounds.first());
                }
                drop(table);
                self.settle(reverse, sequence);
            }
            Place::Tables(cursor) => {
                let (from, stop) = bounds.way(reverse);
                if let Some(position) = cursor.beyond(&from, &stop, reverse) {
                    assign(&mut self.head, &position);
                    self.unread = true;
                    cursor.leave();
                } else {
                    self.aimed = true;
                }
            }
        }
    }

    /// The read that the seek begins with, if it begins with one. The seek does it, if the caller
    /// does not.
    fn first_read(
        &mut self,
        bounds: &Bounds,
        reach: &Reach<'_>,
        reverse: bool,
    ) -> Option<impl Future<Output = Result<()>> + use<'_, E>> {
        let Place::Tables(cursor) = &mut self.place else { return None };
        cursor.aim(&bounds.way(reverse).0, reach, reverse)
    }

    /// Does the seek that was prepared.
    async fn seek(&mut self, bounds: &Bounds, reverse: bool, sequence: u64) -> Result<()> {
        match &mut self.place {
            Place::Tables(cursor) if reverse => cursor.seek_before(&bounds.end()).await?,
            Place::Tables(cursor) => cursor.seek(&bounds.first()).await?,
            Place::Memtable { .. } => {}
        }
        self.settle(reverse, sequence);
        Ok(())
    }

    async fn advance(&mut self, reverse: bool, sequence: u64) -> Result<()> {
        match &mut self.place {
            Place::Memtable { slot, cursor } => {
                let table = slot.table.borrow();
                if reverse { cursor.previous(&table) } else { cursor.next(&table) }
            }
            Place::Tables(cursor) if reverse => cursor.previous().await?,
            Place::Tables(cursor) => cursor.next().await?,
        }
        self.settle(reverse, sequence);
        Ok(())
    }

    /// Remembers where it stands; passes over keys of a memtable that are younger than the page.
    fn settle(&mut self, reverse: bool, sequence: u64) {
        match &mut self.place {
            Place::Memtable { slot, cursor } => {
                let table = slot.table.borrow();
                loop {
                    match cursor.current_at(&table, sequence) {
                        None => break self.head = None,
                        Some((position, Some(_))) => break assign(&mut self.head, &position),
                        Some((_, None)) if reverse => cursor.previous(&table),
                        Some((_, None)) => cursor.next(&table),
                    }
                }
            }
            Place::Tables(cursor) => match cursor.current() {
                None => self.head = None,
                Some((position, _)) => assign(&mut self.head, &position),
            },
        }
    }
}

/// Copies a position, reusing the buffer.
fn assign(head: &mut Option<OwnedPosition>, position: &Position<'_>) {
    let head = head.get_or_insert_default();
    head.partition = position.partition;
    head.namespace = position.namespace;
    head.user.clear();
    head.user.extend_from_slice(position.user);
}
