//! The keys of a core that are accessed most.
//!
//! One access in [`SAMPLED_ONE_IN`], at random distances so that no pattern escapes, goes into HeavyKeeper
//! (Gong et al., "HeavyKeeper: An Accurate Algorithm for Finding Top-k Elephant Flows", 2018): rows of
//! buckets, each with the fingerprint of one key and a count. A key that meets another's bucket takes away
//! one from its count with a probability that falls with the count; so the rare make room, and the frequent
//! stay and are hardly overcounted. The keys with the highest counts are kept beside it. The counts answer
//! for any key, too.
//!
//! All counts are halved every [`HALVED_EVERY`]: what was hot and is not goes.
//!
//! Limits: 64 KiB of buckets and [`TOP`] fronts of keys for a core; an access that is not sampled costs a
//! decrement.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use pinion_engine::Key;
use pinion_env::Monotonic;

use super::key::KeyFront;

/// One access in so many is sampled, on average.
pub(crate) const SAMPLED_ONE_IN: u32 = 64;

/// How often counts are halved.
pub(crate) const HALVED_EVERY: Duration = Duration::from_secs(60);

/// Keys that are kept with their names.
const TOP: usize = 64;

/// Rows of buckets, and buckets in each: a power of two.
const ROWS: usize = 2;
const BUCKETS: usize = 4_096;

const _: () = assert!(ROWS * BUCKETS * size_of::<Bucket>() <= 256 << 10);

/// A count of one falls with probability 1/1.08 when another key comes, one of two with 1/1.08^2, and so on:
/// the base of the paper. From here on it does not fall.
const DECAY_BASE: f64 = 1.08;
const DECAYING_MAX: usize = 256;

/// The accesses of one core.
#[derive(Debug)]
pub(crate) struct HotKeys {
    /// Accesses until the next is sampled, that one included; at least 1.
    left: Cell<u32>,
    sketch: RefCell<Sketch>,
}

/// A key that is accessed much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HotKey {
    pub(crate) namespace: u32,
    pub(crate) key: KeyFront,
    /// Samples of it.
    pub(crate) samples: u32,
}

/// What a core knows of its hot keys.
#[derive(Debug, Clone)]
pub(crate) struct HotReport {
    pub(crate) core: u16,
    /// Samples of all keys.
    pub(crate) samples: u64,
    /// When counts were last halved, or began, in milliseconds since 1970.
    pub(crate) since_ms: u64,
    /// Hottest first.
    pub(crate) keys: Vec<HotKey>,
}

impl HotKeys {
    pub(super) fn new(seed: u64, now: Monotonic) -> Self {
        let mut sketch = Sketch::new(seed, now);
        Self { left: Cell::new(sketch.distance()), sketch: RefCell::new(sketch) }
    }

    /// Counts an access.
    #[inline]
    pub(super) fn access(&self, key: &Key<'_>, now: Monotonic) {
        let left = self.left.get() - 1;
        self.left.set(left);
        if left == 0 {
            self.sample(key, now);
        }
    }

    /// Counts so many accesses at once; `key` says of which key one of them is.
    #[inline]
    pub(super) fn access_all<'k>(&self, count: u32, now: Monotonic, key: impl Fn(usize) -> Option<Key<'k>>) {
        let left = self.left.get();
        if count < left {
            self.left.set(left - count);
        } else {
            self.sample_all(count, now, key);
        }
    }

    #[cold]
    fn sample_all<'k>(&self, count: u32, now: Monotonic, key: impl Fn(usize) -> Option<Key<'k>>) {
        let mut done = 0;
        while count - done >= self.left.get() {
            done += self.left.get();
            match key(done as usize - 1) {
                Some(key) => self.sample(&key, now),
                None => self.left.set(SAMPLED_ONE_IN),
            }
        }
        self.left.set(self.left.get() - (count - done));
    }

    #[cold]
    fn sample(&self, key: &Key<'_>, now: Monotonic) {
        let mut sketch = self.sketch.borrow_mut();
        sketch.age(now);
        sketch.add(key);
        self.left.set(sketch.distance());
    }

    /// About how often a key was accessed lately.
    pub(super) fn accesses(&self, key: &Key<'_>, now: Monotonic) -> u64 {
        let mut sketch = self.sketch.borrow_mut();
        sketch.age(now);
        u64::from(sketch.estimate(key.hash)) * u64::from(SAMPLED_ONE_IN)
    }

    /// What is known now.
    pub(super) fn report(&self, core: u16, now: Monotonic, wall_ms: u64) -> HotReport {
        let mut sketch = self.sketch.borrow_mut();
        sketch.age(now);
        let since = u64::try_from(now.since(sketch.since).as_millis()).unwrap_or(u64::MAX);
        let mut keys = sketch.top.clone();
        keys.sort_by_key(|key| std::cmp::Reverse(key.samples));
        HotReport { core, samples: sketch.samples, since_ms: wall_ms.saturating_sub(since), keys }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    fingerprint: u32,
    /// 0 = nobody's.
    count: u32,
}

#[derive(Debug)]
struct Sketch {
    buckets: Box<[Bucket]>,
    /// By count: a number below which a random one of 32 bits means that it falls.
    decay: Box<[u32; DECAYING_MAX]>,
    /// Hashes of `top`, in the same order.
    hashes: Vec<u64>,
    top: Vec<HotKey>,
    /// Room for the fronts of further keys: counting allocates nothing.
    spare: Vec<KeyFront>,
    samples: u64,
    /// When counts were last halved, or began.
    since: Monotonic,
    random: u64,
}

impl Sketch {
    fn new(seed: u64, now: Monotonic) -> Self {
        let decay = |count: usize| (DECAY_BASE.powi(-(count as i32)) * f64::from(u32::MAX)) as u32;
        Self {
            buckets: vec![Bucket::default(); ROWS * BUCKETS].into(),
            decay: Box::new(std::array::from_fn(decay)),
            hashes: Vec::with_capacity(TOP),
            top: Vec::with_capacity(TOP),
            spare: (0..TOP).map(|_| KeyFront::with_room()).collect(),
            samples: 0,
            since: now,
            random: seed | 1,
        }
    }

    /// Accesses from one sample to the next: from 1 to one less than twice the mean, each as likely.
    fn distance(&mut self) -> u32 {
        1 + self.random() % (2 * SAMPLED_ONE_IN - 1)
    }

    /// xorshift64* (Marsaglia 2003, Vigna 2016): fast, and good enough to sample.
    fn random(&mut self) -> u32 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    fn add(&mut self, key: &Key<'_>) {
        self.samples += 1;
        let mine = fingerprint(key.hash);
        let mut estimate = 0;
        for place in places(key.hash) {
            let random = self.random();
            let bucket = &mut self.buckets[place];
            if bucket.fingerprint != mine || bucket.count == 0 {
                let falls = self.decay.get(bucket.count as usize).is_some_and(|below| random < *below);
                bucket.count -= u32::from(falls && bucket.count > 0);
                if bucket.count > 0 {
                    continue;
                }
                bucket.fingerprint = mine;
            }
            bucket.count = bucket.count.saturating_add(1);
            estimate = estimate.max(bucket.count);
        }
        self.keep(key, estimate);
    }

    /// Keeps the key's name if it is one of the hottest.
    fn keep(&mut self, key: &Key<'_>, samples: u32) {
        if let Some(at) = self.hashes.iter().position(|hash| *hash == key.hash) {
            self.top[at].samples = self.top[at].samples.max(samples);
            return;
        }
        if self.top.len() < TOP {
            if samples > 0 {
                let mut front = self.spare.pop().unwrap_or_default();
                front.set(key.user);
                self.top.push(HotKey { namespace: key.namespace.0, key: front, samples });
                self.hashes.push(key.hash);
            }
            return;
        }
        let coolest = self.top.iter_mut().enumerate().min_by_key(|(_, kept)| kept.samples);
        if let Some((at, kept)) = coolest.filter(|(_, kept)| kept.samples < samples) {
            kept.key.set(key.user);
            (kept.namespace, kept.samples) = (key.namespace.0, samples);
            self.hashes[at] = key.hash;
        }
    }

    fn estimate(&self, hash: u64) -> u32 {
        let mine = fingerprint(hash);
        let found = places(hash).into_iter().map(|place| self.buckets[place]);
        found.filter(|bucket| bucket.fingerprint == mine).map(|bucket| bucket.count).max().unwrap_or(0)
    }

    /// Halves the counts as often as it is due.
    fn age(&mut self, now: Monotonic) {
        let passed = now.since(self.since);
        if passed < HALVED_EVERY {
            return;
        }
        let periods = passed.as_nanos() / HALVED_EVERY.as_nanos();
        self.since =
            self.since.after(HALVED_EVERY.saturating_mul(u32::try_from(periods).unwrap_or(u32::MAX)));
        let halvings = periods.min(31) as u32;
        self.buckets.iter_mut().for_each(|bucket| bucket.count >>= halvings);
        self.samples >>= halvings;
        let mut at = 0;
        while at < self.top.len() {
            self.top[at].samples >>= halvings;
            if self.top[at].samples == 0 {
                self.spare.push(self.top.swap_remove(at).key);
                self.hashes.swap_remove(at);
            } else {
                at += 1;
            }
        }
    }
}

/// The bucket of a key in each row.
fn places(hash: u64) -> [usize; ROWS] {
    [hash as usize % BUCKETS, BUCKETS + (hash >> 12) as usize % BUCKETS]
}

const fn fingerprint(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use pinion_engine::NamespaceId;

    use super::*;

    fn key(user: &[u8]) -> Key<'_> {
        Key::new(NamespaceId(3), user, 64)
    }

    fn names(report: &HotReport) -> Vec<String> {
        report.keys.iter().map(|hot| hot.key.text()).collect()
    }

    #[test]
    fn the_hottest_keys_of_a_million_accesses_are_found() {
        let hot = HotKeys::new(7, Monotonic::default());
        let now = Monotonic::from_nanos(5);
        let mut random = 1_u64;
        // A hundred thousand keys that are as rare as each other, and ten that are accessed 10,000 times each.
        for index in 0..1_000_000_u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let name = match index % 100 {
                0..10 => format!("hot {}", index % 100),
                _ => format!("cold {}", (random >> 33) % 100_000),
            };
            hot.access(&key(name.as_bytes()), now);
        }
        let report = hot.report(0, now, 1_000);
        let mut first: Vec<String> = names(&report).into_iter().take(10).collect();
        first.sort();
        assert_eq!(first, (0..10).map(|number| format!("hot {number}")).collect::<Vec<_>>());
        for hot in &report.keys[..10] {
            let accesses = hot.samples * SAMPLED_ONE_IN;
            assert!((7_500..=12_500).contains(&accesses), "{accesses}");
            assert_eq!(hot.namespace, 3);
        }
        assert!((14_800..16_500).contains(&report.samples), "{}", report.samples);
        assert!(report.keys.len() <= TOP);
        let known = hot.accesses(&key(b"hot 3"), now);
        assert!((7_500..=12_500).contains(&known), "{known}");
        assert!(hot.accesses(&key(b"cold 5"), now) < 1_000);
    }

    #[test]
    fn a_run_is_sampled_as_its_accesses_would_be() {
        let (one, many) = (HotKeys::new(9, Monotonic::default()), HotKeys::new(9, Monotonic::default()));
        let now = Monotonic::default();
        let users: Vec<Vec<u8>> = (0..500_u32).map(|number| number.to_le_bytes().to_vec()).collect();
        for run in [1_usize, 16, 3, 256] {
            for chunk in users.chunks(run) {
                chunk.iter().for_each(|user| one.access(&key(user), now));
                many.access_all(chunk.len() as u32, now, |at| chunk.get(at).map(|user| key(user)));
                assert_eq!(one.left, many.left);
            }
        }
        assert_eq!(one.report(0, now, 0).keys, many.report(0, now, 0).keys);
        assert!(one.report(0, now, 0).samples > 20);
    }

    #[test]
    fn what_was_hot_is_forgotten() {
        let hot = HotKeys::new(1, Monotonic::default());
        let accessed = |count: u32, name: &[u8], now| (0..count).for_each(|_| hot.access(&key(name), now));
        let start = Monotonic::default();
        accessed(64_000, b"then", start);
        let before = hot.accesses(&key(b"then"), start);
        let next = start.after(HALVED_EVERY);
        let report = hot.report(0, next.after(Duration::from_secs(2)), 10_000);
        assert_eq!(report.since_ms, 8_000);
        assert_eq!(hot.accesses(&key(b"then"), next) / 64, before / 64 / 2);
        let later = start.after(HALVED_EVERY * 6);
        accessed(6_400, b"now", later);
        assert_eq!(names(&hot.report(0, later, 0))[0], "now");
        let long_after = start.after(HALVED_EVERY * 100);
        assert!(hot.report(0, long_after, 0).keys.is_empty());
        assert_eq!(hot.accesses(&key(b"then"), long_after), 0);
    }
}
