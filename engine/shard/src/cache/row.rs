//! The row cache: single records that are read again and again.
//!
//! A block cache spends 4 KiB on one hot record; this one spends its own size. It is a log in a
//! ring (as in segment-structured caches: Yang et al., "Segcache", 2021, and "FIFO queues are all
//! you need", 2023): records are appended, the oldest leave, and one that was read since it was
//! appended goes to the front once more. An index of sets with 8 ways (16 bits of the key's hash
//! and a place in the ring) finds them; the whole key is always compared. Everything is allocated
//! at the start and touched as it fills: nothing grows, is rehashed or allocates later.
//!
//! Admission: a record is taken at its second miss while the doorkeeper, a table of 16-bit
//! fingerprints, still remembers the first. One pass over many keys therefore leaves no trace.
//!
//! Never stale. A record read from a table may be older than a write that was published while the
//! read was under way. So a reader takes a [`Ticket`] before it looks anywhere, and
//! [`RowCache::offer`] refuses if the key's set has seen a write since. Every published write must
//! be told by [`RowCache::update_if_present`] or [`RowCache::invalidate`].
//!
//! Bounds: records over [`ROW_BYTES_MAX`] (or 1/64 of the ring) are not cached; one call carries
//! at most [`MOVED_MAX`] records to the front and drops what is in their way.

use std::cell::Cell;

use pinion_env::prefetch;

use crate::key::Key;
use crate::record::{RecordKind, RecordView};
use crate::stamp::Stamp;

/// Records whose key, value and header take more are left to the block cache.
pub const ROW_BYTES_MAX: usize = 16 << 10;

/// Records that one call carries from the old end to the front.
const MOVED_MAX: usize = 8;
const WAYS: usize = 8;
/// The ring per set of ways: one way for every 128 bytes, so that small records find a way.
const BYTES_PER_SET: usize = 1024;
/// Below this a cache is not worth its code: it is switched off.
const BYTES_MIN: usize = 64 << 10;
/// What is asked for ahead of a record whose size is not known yet.
const PREFETCH_BYTES: usize = 512;
/// Places in the ring are multiples of this.
const UNIT_BYTES: usize = 8;

// An entry in the ring: length u32, key length u16, kind u8 (0 = filler), hit u8; the rest is
// missing in a filler: hash u64, stamp 12 bytes, namespace u32, expiry u64, value length u32, key,
// value, padding. In memory only.
const LENGTH: usize = 0;
const KEY_BYTES: usize = 4;
const KIND: usize = 6;
const HIT: usize = 7;
const HASH: usize = 8;
const STAMP: usize = 16;
const NAMESPACE: usize = 28;
const EXPIRY: usize = 32;
const VALUE_BYTES: usize = 40;
const HEADER_BYTES: usize = 44;
const FILLER: u8 = 0;

const _: () = assert!(STAMP + Stamp::BYTES == NAMESPACE && HIT < UNIT_BYTES);

/// A reader's proof that nothing was written to a key since it began to look.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Ticket {
    writes: u32,
}

/// 8 ways in 64 bytes. Plain numbers, so that the sets come zeroed from the system, untouched.
///
/// Words 0 to 7: per way, the place in the ring in units, plus one; 0 = free. Words 8 to 11: per
/// way, 16 bits of the hash. Word 12: writes seen, wrapping. Words 13 to 15: fingerprints of six
/// records that were turned away once.
type Set = [u32; 16];

const TAGS: usize = WAYS;
const WRITES: usize = TAGS + WAYS / 2;
const SEATS: usize = WRITES + 1;
const _: () = assert!(SEATS < size_of::<Set>() / size_of::<u32>());

/// What the cache has done since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowCacheStats {
    /// Lookups that found a record.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// Offered records that were taken.
    pub admitted: u64,
    /// Offered records turned away: first seen, too large, or overtaken by a write.
    pub refused: u64,
    /// Records dropped to make room.
    pub evicted: u64,
}

/// Records by key, within a fixed number of bytes. See the module's header.
#[derive(Debug)]
pub struct RowCache {
    sets: Vec<Set>,
    ring: Vec<u8>,
    /// Where the next entry goes.
    head: usize,
    /// The oldest entry.
    tail: usize,
    /// Bytes from tail to head, around the end.
    used: usize,
    row_bytes_max: usize,
    /// Whether anybody has ever taken a ticket. Before that nothing can be cached or under way, and
    /// publishing a write need not touch the index, which would be a miss in the processor's caches.
    in_use: Cell<bool>,
    stats: RowCacheStats,
}

impl RowCache {
    /// A cache of about `bytes` bytes in all; never more. Under 64 KiB it caches nothing.
    pub fn new(bytes: usize) -> Self {
        let bytes = if bytes < BYTES_MIN { 0 } else { bytes.min(u32::MAX as usize * UNIT_BYTES) };
        let sets = bytes / BYTES_PER_SET;
        let ring = (bytes - sets * size_of::<Set>()) / UNIT_BYTES * UNIT_BYTES;
        Self {
            sets: vec![[0; 16]; sets],
            ring: vec![0; ring],
            head: 0,
            tail: 0,
            used: 0,
            row_bytes_max: (ring / 64).min(ROW_BYTES_MAX) / UNIT_BYTES * UNIT_BYTES,
            in_use: Cell::new(false),
            stats: RowCacheStats::default(),
        }
    }

    /// Shows the record of a key to `visit`, be it a tombstone or expired.
    pub fn get<R>(&mut self, key: &Key<'_>, visit: impl FnOnce(&RecordView<'_>) -> R) -> Option<R> {
        let found = if self.in_use.get() { self.find(key) } else { None };
        let Some((_, _, at)) = found else {
            self.stats.misses += 1;
            return None;
        };
        self.stats.hits += 1;
        self.ring[at + HIT] = 1;
        Some(visit(&self.record(at)))
    }

    /// Asks for the part of the index that a key with this hash belongs to.
    pub fn prefetch(&self, hash: u64) {
        if self.in_use.get() && !self.is_off() {
            prefetch(&self.sets[self.set_of(hash)]);
        }
    }

    /// Asks for the records that a key with this hash may be: call [`RowCache::prefetch`] some time
    /// before. Not for a cache that is [empty](RowCache::is_empty).
    pub fn prefetch_record(&self, hash: u64) {
        let set = &self.sets[self.set_of(hash)];
        let wanted = tag(hash);
        for way in (0..WAYS).filter(|way| set[*way] != 0 && tag_of(set, *way) == wanted) {
            let entry = &self.ring[(set[way] - 1) as usize * UNIT_BYTES..];
            prefetch(&entry[..entry.len().min(PREFETCH_BYTES)]);
        }
    }

    /// Take one before looking for a key in memtables and tables.
    pub fn ticket(&self, key: &Key<'_>) -> Ticket {
        self.in_use.set(true);
        Ticket { writes: if self.is_off() { 0 } else { self.sets[self.set_of(key.hash)][WRITES] } }
    }

    /// Offers what was found in a table after the ticket was taken. Refused if a write may have
    /// overtaken it. Answers whether the cache holds the key now.
    pub fn offer(&mut self, ticket: Ticket, key: &Key<'_>, record: &RecordView<'_>) -> bool {
        if self.is_off() {
            return false;
        }
        let set = self.set_of(key.hash);
        if self.sets[set][WRITES] != ticket.writes {
            self.stats.refused += 1;
            return false;
        }
        if self.find(key).is_some() {
            return true;
        }
        let bytes = entry_bytes(key, record);
        if bytes > self.row_bytes_max || !self.knocked_before(set, key.hash) {
            self.stats.refused += 1;
            return false;
        }
        let at = self.append(bytes);
        self.write(at, bytes, key, record);
        let way = self.free_way(set);
        set_tag(&mut self.sets[set], way, tag(key.hash));
        self.sets[set][way] = place(at);
        self.stats.admitted += 1;
        self.reclaim();
        true
    }

    /// Tells of a published write: a cached record of the key is replaced if `record` supersedes
    /// it.
    pub fn update_if_present(&mut self, key: &Key<'_>, record: &RecordView<'_>) {
        if self.is_off() || !self.in_use.get() {
            return;
        }
        let set = self.set_of(key.hash);
        self.sets[set][WRITES] = self.sets[set][WRITES].wrapping_add(1);
        let Some((_, way, at)) = self.find(key) else { return };
        if !record.supersedes(&self.record(at)) {
            return;
        }
        let bytes = entry_bytes(key, record);
        let held = self.length_at(at);
        if bytes <= held {
            let hit = self.ring[at + HIT];
            self.write(at, held, key, record);
            self.ring[at + HIT] = hit;
        } else if bytes <= self.row_bytes_max {
            let at = self.append(bytes);
            self.write(at, bytes, key, record);
            self.sets[set][way] = place(at);
            self.reclaim();
        } else {
            self.sets[set][way] = 0;
        }
    }

    /// Tells of a published write, or of anything else that makes a cached record wrong.
    pub fn invalidate(&mut self, key: &Key<'_>) {
        if self.is_off() || !self.in_use.get() {
            return;
        }
        let set = self.set_of(key.hash);
        self.sets[set][WRITES] = self.sets[set][WRITES].wrapping_add(1);
        if let Some((set, way, _)) = self.find(key) {
            self.sets[set][way] = 0;
        }
    }

    /// What it has done.
    pub const fn stats(&self) -> RowCacheStats {
        self.stats
    }

    /// Bytes of memory held, touched or not; fixed.
    pub fn memory_bytes(&self) -> usize {
        self.ring.len() + self.sets.len() * size_of::<Set>()
    }

    /// Whether it holds no record.
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    const fn is_off(&self) -> bool {
        self.ring.is_empty()
    }

    /// The low half of the hash; tags take other bits, and partitions the top ones.
    fn set_of(&self, hash: u64) -> usize {
        ((u64::from(hash as u32) * self.sets.len() as u64) >> 32) as usize
    }

    /// Set, way and place in the ring of a key.
    fn find(&self, key: &Key<'_>) -> Option<(usize, usize, usize)> {
        if self.is_off() {
            return None;
        }
        let index = self.set_of(key.hash);
        let set = &self.sets[index];
        let wanted = tag(key.hash);
        (0..WAYS).find_map(|way| {
            let place = set[way];
            if tag_of(set, way) != wanted || place == 0 {
                return None;
            }
            let at = (place - 1) as usize * UNIT_BYTES;
            let entry = &self.ring[at..];
            let length = usize::from(u16::from_le_bytes(array(entry, KEY_BYTES)));
            let same = u32::from_le_bytes(array(entry, NAMESPACE)) == key.namespace.0
                && &entry[HEADER_BYTES..HEADER_BYTES + length] == key.user;
            same.then_some((index, way, at))
        })
    }

    /// A free way, or the one whose record is the oldest in the ring.
    fn free_way(&mut self, set: usize) -> usize {
        let age = |place: u32| {
            let at = (place - 1) as usize * UNIT_BYTES;
            if at >= self.tail { at - self.tail } else { at + self.ring.len() - self.tail }
        };
        let places = &self.sets[set][..WAYS];
        if let Some(way) = places.iter().position(|place| *place == 0) {
            return way;
        }
        self.stats.evicted += 1;
        (0..WAYS).min_by_key(|way| age(places[*way])).expect("a set has ways")
    }

    /// Whether this key was turned away not long ago; remembers it if not. A set remembers its last
    /// six.
    fn knocked_before(&mut self, set: usize, hash: u64) -> bool {
        let seats = &mut self.sets[set][SEATS..];
        // 0 is an empty seat.
        let fingerprint = u32::from(tag(hash).max(1));
        for seat in &mut *seats {
            for shift in [0, 16] {
                if (*seat >> shift) & 0xffff == fingerprint {
                    *seat &= !(0xffff << shift);
                    return true;
                }
            }
        }
        let mut newest = fingerprint;
        for seat in seats {
            (newest, *seat) = (*seat >> 16, *seat << 16 | newest);
        }
        false
    }

    fn length_at(&self, at: usize) -> usize {
        u32::from_le_bytes(array(&self.ring[at..], LENGTH)) as usize
    }

    fn record(&self, at: usize) -> RecordView<'_> {
        let entry = &self.ring[at..];
        let key_bytes = usize::from(u16::from_le_bytes(array(entry, KEY_BYTES)));
        let value_bytes = u32::from_le_bytes(array(entry, VALUE_BYTES)) as usize;
        RecordView {
            kind: RecordKind::from_u8(entry[KIND]).expect("the index names whole entries only"),
            stamp: Stamp::from_bytes(array(entry, STAMP)),
            expiry_ms: u64::from_le_bytes(array(entry, EXPIRY)),
            value: &entry[HEADER_BYTES + key_bytes..][..value_bytes],
        }
    }

    /// Fills the entry of `bytes` bytes at a place.
    fn write(&mut self, at: usize, bytes: usize, key: &Key<'_>, record: &RecordView<'_>) {
        let entry = &mut self.ring[at..at + bytes];
        let mut put = |at: usize, bytes: &[u8]| entry[at..at + bytes.len()].copy_from_slice(bytes);
        put(LENGTH, &(bytes as u32).to_le_bytes());
        put(KEY_BYTES, &(key.user.len() as u16).to_le_bytes());
        put(KIND, &[record.kind as u8, 0]);
        put(HASH, &key.hash.to_le_bytes());
        put(STAMP, &record.stamp.to_bytes());
        put(NAMESPACE, &key.namespace.0.to_le_bytes());
        put(EXPIRY, &record.expiry_ms.to_le_bytes());
        put(VALUE_BYTES, &(record.value.len() as u32).to_le_bytes());
        put(HEADER_BYTES, key.user);
        put(HEADER_BYTES + key.user.len(), record.value);
    }

    /// What appending `bytes` takes: the entry, and the filler if it does not fit before the end.
    fn taken_by(&self, bytes: usize) -> usize {
        let to_end = self.ring.len() - self.head;
        if to_end < bytes { to_end + bytes } else { bytes }
    }

    /// Makes an entry at the head; [`RowCache::reclaim`] must follow when the index knows it.
    fn append(&mut self, bytes: usize) -> usize {
        let taken = self.taken_by(bytes);
        debug_assert!(self.used + taken <= self.ring.len(), "the gap is larger than two entries");
        let filler = taken - bytes;
        if filler > 0 {
            let length = (filler as u32).to_le_bytes();
            self.ring[self.head + LENGTH..self.head + LENGTH + 4].copy_from_slice(&length);
            self.ring[self.head + KIND] = FILLER;
            self.head = 0;
        }
        let at = self.head;
        self.head = (at + bytes) % self.ring.len();
        self.used += taken;
        at
    }

    /// Keeps the gap between head and tail at four of the largest entries: an append takes at most
    /// two of them (itself and a filler), so what is carried to the front always has room.
    fn reclaim(&mut self) {
        let mut moved = 0;
        while self.ring.len() - self.used < 4 * self.row_bytes_max {
            let at = self.tail;
            let bytes = self.length_at(at);
            debug_assert!(bytes >= UNIT_BYTES && bytes <= self.used);
            if self.ring[at + KIND] != FILLER
                && let Some((set, way)) = self.way_of(at)
            {
                let fits = self.used + self.taken_by(bytes) <= self.ring.len();
                if self.ring[at + HIT] != 0 && moved < MOVED_MAX && fits {
                    moved += 1;
                    let to = self.append(bytes);
                    self.ring.copy_within(at..at + bytes, to);
                    self.ring[to + HIT] = 0;
                    self.sets[set][way] = place(to);
                } else {
                    self.sets[set][way] = 0;
                    self.stats.evicted += 1;
                }
            }
            self.tail = (at + bytes) % self.ring.len();
            self.used -= bytes;
        }
    }

    /// The way that names the entry at a place; none if it was replaced or dropped.
    fn way_of(&self, at: usize) -> Option<(usize, usize)> {
        let set = self.set_of(u64::from_le_bytes(array(&self.ring[at..], HASH)));
        let wanted = place(at);
        self.sets[set][..WAYS].iter().position(|place| *place == wanted).map(|way| (set, way))
    }
}

/// Bytes that a record takes in the ring.
fn entry_bytes(key: &Key<'_>, record: &RecordView<'_>) -> usize {
    (HEADER_BYTES + key.user.len() + record.value.len()).next_multiple_of(UNIT_BYTES)
}

fn place(at: usize) -> u32 {
    (at / UNIT_BYTES + 1) as u32
}

fn tag_of(set: &Set, way: usize) -> u16 {
    (set[TAGS + way / 2] >> (way % 2 * 16)) as u16
}

fn set_tag(set: &mut Set, way: usize, tag: u16) {
    let word = &mut set[TAGS + way / 2];
    let shift = way % 2 * 16;
    *word = *word & !(0xffff << shift) | u32::from(tag) << shift;
}

const fn tag(hash: u64) -> u16 {
    (hash >> 32) as u16
}

fn array<const N: usize>(entry: &[u8], at: usize) -> [u8; N] {
    *entry[at..].first_chunk().expect("a header lies whole in the ring")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::key::NamespaceId;
    use crate::stamp::{HybridTime, Origin};

    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Record {
        time: u64,
        value: Vec<u8>,
    }

    impl Record {
        fn view(&self) -> RecordView<'_> {
            RecordView {
                kind: if self.value.is_empty() { RecordKind::Tombstone } else { RecordKind::Value },
                stamp: Stamp { time: HybridTime(self.time), origin: Origin(0) },
                expiry_ms: self.time + 1,
                value: &self.value,
            }
        }

        fn of(view: &RecordView<'_>) -> Self {
            assert_eq!(view.expiry_ms, view.stamp.time.0 + 1);
            assert_eq!(view.kind == RecordKind::Tombstone, view.value.is_empty());
            Self { time: view.stamp.time.0, value: view.value.to_vec() }
        }
    }

    fn key(number: u16) -> Vec<u8> {
        format!("key {number}").into_bytes()
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// A reader misses and looks elsewhere.
        BeginRead(u16),
        /// The n-th reader under way comes back with what it saw when it began.
        EndRead(usize),
        Write(u16, usize),
        Invalidate(u16),
        Get(u16),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let number = 0_u16..300;
        let step = prop_oneof![
            4 => number.clone().prop_map(Step::BeginRead),
            4 => any::<usize>().prop_map(Step::EndRead),
            2 => (number.clone(), prop_oneof![0_usize..40, 0_usize..2_000]).prop_map(|(n, l)| Step::Write(n, l)),
            1 => number.clone().prop_map(Step::Invalidate),
            4 => number.prop_map(Step::Get),
        ];
        proptest::collection::vec(step, 1..6_000)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn what_it_answers_is_the_newest(steps in steps()) {
            let mut cache = RowCache::new(64 << 10);
            let mut truth: HashMap<u16, Record> = HashMap::new();
            let mut reads: Vec<(u16, Ticket, Record)> = Vec::new();
            let mut time = 0;
            for step in steps {
                match step {
                    Step::BeginRead(n) => {
                        let user = key(n);
                        let key = Key::new(NamespaceId(0), &user, 64);
                        if let Some(record) = truth.get(&n) {
                            reads.push((n, cache.ticket(&key), record.clone()));
                        }
                    }
                    Step::EndRead(which) if !reads.is_empty() => {
                        let (n, ticket, record) = reads.swap_remove(which % reads.len());
                        let user = key(n);
                        let key = Key::new(NamespaceId(0), &user, 64);
                        let _ = cache.offer(ticket, &key, &record.view());
                    }
                    Step::EndRead(_) => {}
                    Step::Write(n, length) => {
                        time += 1;
                        let record = Record { time, value: vec![time as u8; length] };
                        let user = key(n);
                        cache.update_if_present(&Key::new(NamespaceId(0), &user, 64), &record.view());
                        truth.insert(n, record);
                    }
                    Step::Invalidate(n) => {
                        let user = key(n);
                        let key = Key::new(NamespaceId(0), &user, 64);
                        cache.invalidate(&key);
                        prop_assert!(cache.get(&key, |_| ()).is_none());
                    }
                    Step::Get(n) => {
                        let user = key(n);
                        let found = cache.get(&Key::new(NamespaceId(0), &user, 64), Record::of);
                        if let Some(found) = found {
                            prop_assert_eq!(Some(&found), truth.get(&n));
                        }
                        // Another namespace is another key.
                        prop_assert!(cache.get(&Key::new(NamespaceId(3), &user, 64), |_| ()).is_none());
                    }
                }
            }
        }
    }

    fn read(cache: &mut RowCache, number: u16, length: usize) -> bool {
        let user = key(number);
        let key = Key::new(NamespaceId(0), &user, 64);
        if cache.get(&key, |_| ()).is_some() {
            return true;
        }
        let ticket = cache.ticket(&key);
        let record = Record { time: 1, value: vec![number as u8; length] };
        let _ = cache.offer(ticket, &key, &record.view());
        false
    }

    #[test]
    fn hot_records_stay_and_one_pass_leaves_no_trace() {
        let mut cache = RowCache::new(1 << 20);
        for _ in 0..3 {
            for number in 0..500 {
                read(&mut cache, number, 400);
            }
        }
        let admitted = cache.stats().admitted;
        assert!(admitted >= 498, "all but colliding records: {admitted}");
        for number in 1_000..60_000 {
            read(&mut cache, number, 400);
        }
        let after = cache.stats();
        assert!(after.admitted - admitted < 60, "a pass admits only colliding fingerprints: {after:?}");
        let hits = (0..500).filter(|number| read(&mut cache, *number, 400)).count();
        assert!(hits > 480, "{hits} of 500 stayed");
    }

    #[test]
    fn records_read_again_survive_many_laps() {
        let mut cache = RowCache::new(256 << 10);
        for _ in 0..2 {
            for number in 0..50 {
                read(&mut cache, number, 500);
            }
        }
        // Thirty rings' worth of admitted records, between which the hot ones are read.
        for round in 0..150_u16 {
            for number in 0..100 {
                let cold = 1_000 + round * 100 + number;
                read(&mut cache, cold, 500);
                read(&mut cache, cold, 500);
            }
            for number in 0..50 {
                read(&mut cache, number, 500);
            }
        }
        let hits = (0..50).filter(|number| read(&mut cache, *number, 500)).count();
        assert!(hits >= 40, "{hits} of 50 stayed");
        assert!(cache.stats().evicted > 10_000);
    }

    #[test]
    fn sizes_are_kept() {
        for bytes in [0, 1, BYTES_MIN - 1, BYTES_MIN, 1 << 20, (1 << 20) + 77] {
            let mut cache = RowCache::new(bytes);
            assert!(cache.memory_bytes() <= bytes);
            for _ in 0..2 {
                assert!(!read(&mut cache, 1, ROW_BYTES_MAX), "too large to be cached");
            }
            read(&mut cache, 2, 10);
            read(&mut cache, 2, 10);
            assert_eq!(read(&mut cache, 2, 10), bytes >= BYTES_MIN);
        }
    }
}
