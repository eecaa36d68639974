//! Scans of all kinds, page by page, against the reference as it is at each page.

use pinion_engine::{
    NamespaceId, OwnedPosition, Partition, RecordView, ScanKind, ScanRange, ScanSink, Stamp,
};
use xxhash_rust::xxh3::Xxh3;

use super::plan::{Kind, Scan};
use super::reference::{Entry, Place};
use super::run::{Done, PARTITIONS, Run, Said, Wrong, ensure, unexpected};

/// A page as a caller takes it: no more records than it likes.
struct Page {
    records: Vec<(Vec<u8>, Vec<u8>, Stamp, u64)>,
    accepts: usize,
}

impl ScanSink for Page {
    fn push(&mut self, user_key: &[u8], record: RecordView<'_>) -> bool {
        if self.records.len() >= self.accepts {
            return false;
        }
        let RecordView { stamp, expiry_ms, value, .. } = record;
        self.records.push((user_key.to_vec(), value.to_vec(), stamp, expiry_ms));
        true
    }
}

impl Run<'_> {
    pub(super) async fn scan(&mut self, scan: &Scan) -> Done {
        let whole = Partition(0)..=Partition(PARTITIONS as u16 - 1);
        let (kind, partitions, name) = match scan.kind {
            Kind::Tag(key) => {
                let partition = self.place(scan.namespace, key).0;
                (ScanKind::Placed { first: partition, last: partition }, partition..=partition, "of a tag")
            }
            Kind::Placed(one, two) => {
                let (first, last) = (Partition(one.min(two)), Partition(one.max(two)));
                (ScanKind::Placed { first, last }, first..=last, "by place")
            }
            Kind::Ordered => (ScanKind::Ordered, whole, "in order"),
        };
        let direction = if scan.reverse { "backward" } else { "forward" };
        self.counts.add(&format!("scans {name}, {direction}"), 1);
        let (start, end) = match scan.bounds {
            None => (Vec::new(), None),
            Some((one, two)) => {
                self.counts.add("scans between two keys", 1);
                let (one, two) = (self.place(0, one).2, self.place(0, two).2);
                (one.clone().min(two.clone()), Some(one.max(two)))
            }
        };
        let mut range = ScanRange {
            namespace: NamespaceId(self.namespace(scan.namespace)),
            kind,
            start,
            end,
            resume: None,
            reverse: scan.reverse,
            records_max: 0,
        };
        let mut digest = Digest::default();
        let mut between = scan.between.iter();
        for page in scan.pages.iter().cycle() {
            range.records_max = u32::from(page.0);
            range.resume = self.page(&range, partitions.clone(), usize::from(page.1), &mut digest).await?;
            if range.resume.is_none() {
                break;
            }
            if let Some(step) = between.next() {
                self.counts.add("steps between the pages of a scan", 1);
                Box::pin(self.step(step)).await?;
            }
        }
        for step in between {
            Box::pin(self.step(step)).await?;
        }
        if scan.between.is_empty() {
            // Else the place of the pages' ends decides what is seen.
            self.said.push(digest.said());
        }
        Ok(())
    }

    /// Everything of a namespace, in large pages.
    pub(super) async fn scan_whole(
        &mut self,
        namespace: u32,
        reverse: bool,
        ordered: bool,
    ) -> Result<Said, Wrong> {
        let (first, last) = (Partition(0), Partition(PARTITIONS as u16 - 1));
        let mut range = ScanRange {
            namespace: NamespaceId(namespace),
            kind: if ordered { ScanKind::Ordered } else { ScanKind::Placed { first, last } },
            start: Vec::new(),
            end: None,
            resume: None,
            reverse,
            records_max: u32::MAX,
        };
        let mut digest = Digest::default();
        loop {
            range.resume = self.page(&range, first..=last, usize::MAX, &mut digest).await?;
            if range.resume.is_none() {
                return Ok(digest.said());
            }
        }
    }

    /// Reads one page and compares it with what the reference holds from `resume` on.
    async fn page(
        &mut self,
        range: &ScanRange,
        partitions: std::ops::RangeInclusive<Partition>,
        accepts: usize,
        digest: &mut Digest,
    ) -> Result<Option<OwnedPosition>, Wrong> {
        self.counts.add("pages of scans", 1);
        self.counts.add("pages that go on from a cursor", u64::from(range.resume.is_some()));
        let before_ms = self.shard.clock_ms();
        let mut page = Page { records: Vec::new(), accepts };
        let resume = self.shard.scan(range, &mut page).await.map_err(unexpected)?;
        let after_ms = self.shard.clock_ms();

        let ordered = range.kind == ScanKind::Ordered;
        let expected = self.expected(range, &partitions, before_ms);
        let mut expected = expected.into_iter().peekable();
        let expires = |entry: &Entry| !entry.is_visible(after_ms);
        for (user, value, stamp, expiry_ms) in &page.records {
            let here = loop {
                match expected.next() {
                    Some((place, entry)) if place.2 == *user => break Some(entry),
                    Some((_, entry)) if expires(entry) => {}
                    other => {
                        return Err(Wrong(format!(
                            "{range:?} shows {user:?} where {:?} is expected",
                            other.map(|(place, _)| place)
                        )));
                    }
                }
            };
            let same = here.is_some_and(|entry| {
                (Some(value), *stamp, *expiry_ms) == (entry.value.as_ref(), entry.stamp, entry.expiry_ms)
            });
            ensure(same, || format!("{range:?} shows {user:?} = {value:?} of {stamp:?}, not {here:?}"))?;
            digest.add(user, value);
        }
        while expected.next_if(|(_, entry)| expires(entry)).is_some() {}
        let next = expected.next();
        match (&resume, next) {
            (None, None) => {}
            (Some(resume), Some((place, entry))) => {
                let at = if ordered { Partition(0) } else { place.0 };
                let goes_on = (resume.partition, resume.namespace.0, &resume.user) == (at, place.1, &place.2);
                ensure(goes_on, || format!("{range:?} goes on at {resume:?}, not at {place:?}"))?;
                let bytes = |user: &[u8], value: usize| user.len() + value;
                let held: usize = page.records.iter().map(|record| bytes(&record.0, record.1.len())).sum();
                let more = bytes(&place.2, entry.value.as_ref().map_or(0, Vec::len));
                let limits = self.shard.options();
                let most = range.records_max.clamp(1, limits.scan_records_max) as usize;
                let full = page.records.len() == most.min(accepts)
                    || (ordered && held + more > limits.scan_bytes_max as usize);
                ensure(full && !page.records.is_empty(), || {
                    format!("{range:?} ends after {} records without a reason", page.records.len())
                })?;
            }
            (resume, next) => {
                let next = next.map(|(place, _)| place);
                return Err(Wrong(format!("{range:?} goes on at {resume:?}, {next:?} is expected")));
            }
        }
        Ok(resume)
    }

    /// What a page may show, in the order of the scan.
    fn expected(
        &self,
        range: &ScanRange,
        partitions: &std::ops::RangeInclusive<Partition>,
        now_ms: u64,
    ) -> Vec<(&Place, &Entry)> {
        let ordered = range.kind == ScanKind::Ordered;
        let after_cursor = |place: &Place| {
            let Some(resume) = &range.resume else { return true };
            let at = if ordered { Partition(0) } else { place.0 };
            let (here, there) = ((at, &place.2), (resume.partition, &resume.user));
            if range.reverse { here <= there } else { here >= there }
        };
        let shown = |place: &Place, entry: &Entry| {
            place.1 == range.namespace.0
                && partitions.contains(&place.0)
                && place.2 >= range.start
                && range.end.as_ref().is_none_or(|end| place.2 < *end)
                && after_cursor(place)
                && entry.is_visible(now_ms)
        };
        let mut expected: Vec<(&Place, &Entry)> =
            self.reference.iter().filter(|(place, entry)| shown(place, entry)).collect();
        if ordered {
            expected.sort_by(|left, right| left.0.2.cmp(&right.0.2));
        }
        if range.reverse {
            expected.reverse();
        }
        expected
    }
}

/// What a whole scan showed.
#[derive(Default)]
struct Digest {
    records: usize,
    hash: Xxh3,
}

impl Digest {
    fn add(&mut self, user: &[u8], value: &[u8]) {
        self.records += 1;
        for part in [user, value] {
            self.hash.update(&(part.len() as u64).to_le_bytes());
            self.hash.update(part);
        }
    }

    fn said(&self) -> Said {
        Said::Records(self.records, self.hash.digest())
    }
}
