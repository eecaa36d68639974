//! What one history is like: the shard's sizes and how often what happens, all drawn from its seed.
//!
//! Rates differ from history to history (Groce et al., "Swarm testing", 2012): one that never deletes
//! or never pauses reaches states that an even mixture does not.

use pinion_engine::{Key, NamespaceId, Options, Partition};

use crate::world::Random;

/// Namespaces that keys lie in.
pub(crate) const NAMESPACES: [u32; 2] = [0, 7];

/// A key of a history.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyName {
    /// Its namespace.
    pub(crate) namespace: u32,
    /// Its bytes.
    pub(crate) user: Vec<u8>,
    /// Its values spell integers.
    pub(crate) counts: bool,
}

impl KeyName {
    /// The key as the shard takes it.
    pub(crate) fn key(&self, partitions: u32) -> Key<'_> {
        Key::new(NamespaceId(self.namespace), &self.user, partitions)
    }
}

/// How often an operation is chosen: parts of the sum of all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weights {
    /// Plain puts.
    pub(crate) put: u64,
    /// Plain deletes.
    pub(crate) delete: u64,
    /// Puts with a stamp of the client's, late or early.
    pub(crate) stamped: u64,
    /// Repeats of writes with a stamp of the client's.
    pub(crate) repeat: u64,
    /// Conditional puts and deletes.
    pub(crate) conditional: u64,
    /// Updates.
    pub(crate) update: u64,
    /// Batches.
    pub(crate) batch: u64,
    /// Gets.
    pub(crate) get: u64,
    /// Scans.
    pub(crate) scan: u64,
    /// Explicit flushes.
    pub(crate) flush: u64,
    /// Pauses.
    pub(crate) pause: u64,
}

impl Weights {
    /// In the order of the fields.
    pub(crate) fn all(&self) -> [u64; 11] {
        let Self { put, delete, stamped, repeat, conditional, update, batch, get, scan, flush, pause } =
            *self;
        [put, delete, stamped, repeat, conditional, update, batch, get, scan, flush, pause]
    }
}

/// What one history is like.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// The shard's sizes.
    pub(crate) options: Options,
    /// Partitions of the shard.
    pub(crate) partitions: u32,
    /// Block of the disk in bytes.
    pub(crate) block_bytes: u32,
    /// The keys, by namespace and name.
    pub(crate) keys: Vec<KeyName>,
    /// The partition of each.
    pub(crate) places: Vec<Partition>,
    /// How often what is chosen.
    pub(crate) weights: Weights,
    /// Writes that may be in flight.
    pub(crate) open_max: usize,
    /// One write in so many is buffered; 0 = none.
    pub(crate) buffered_one_in: u64,
    /// One put in so many expires; 0 = none.
    pub(crate) expiring_one_in: u64,
    /// The longest lifetime in milliseconds.
    pub(crate) lifetime_ms_max: u64,
    /// One value in so many is large; 0 = none.
    pub(crate) large_one_in: u64,
    /// The largest of the other values in bytes.
    pub(crate) value_bytes: u64,
    /// Whether the wall clock may be set back while the node is down.
    pub(crate) clock_goes_back: bool,
}

/// Largest value that a history writes.
pub(crate) const VALUE_BYTES_MAX: u32 = 3 << 10;

/// Keys of a short history.
const SHORT_KEYS_MAX: usize = 14;

impl Shape {
    /// The shape of a seed.
    pub(crate) fn draw(random: &mut Random) -> Self {
        // Some histories live within few keys, so that most writes meet an older version.
        let keys = if random.one_in(4) { random.between(3, 10) } else { random.between(15, 45) };
        let keys = draw_keys(random, keys as usize);
        let partitions = 2 << random.below(3);
        Self {
            options: options(random),
            partitions,
            block_bytes: 512 << random.below(4),
            places: keys.iter().map(|key| key.key(partitions).partition).collect(),
            keys,
            weights: weights(random),
            open_max: [1, 4, 12, 30][random.below(4) as usize],
            buffered_one_in: [0, 8, 3, 2][random.below(4) as usize],
            expiring_one_in: [0, 8, 2][random.below(3) as usize],
            lifetime_ms_max: [5, 60, 800][random.below(3) as usize],
            large_one_in: [0, 20, 5][random.below(3) as usize],
            value_bytes: [100, 250, 500][random.below(3) as usize],
            clock_goes_back: random.one_in(2),
        }
    }

    /// The same for so few steps that a crash can be tried at each of their operations on files: few
    /// keys, values that are large for the memtable, and so few runs that they are compacted soon.
    pub(crate) fn short(mut self) -> Self {
        self.keys.truncate(SHORT_KEYS_MAX);
        self.places.truncate(SHORT_KEYS_MAX);
        let options = Options {
            memtable_bytes: 32 << 10,
            table_bytes: 16 << 10,
            table_write_bytes: 16 << 10,
            runs_max: 1,
            ..self.options
        };
        Self { options, large_one_in: 3, ..self }
    }
}

fn options(random: &mut Random) -> Options {
    // Of its own, so that histories which were found by their seeds stay what they are.
    let mut other = random.clone();
    Options {
        value_bytes_max: VALUE_BYTES_MAX,
        batch_ops_max: 16,
        batch_bytes_max: 8 << 10,
        log_segment_bytes: 72 << 10,
        log_queue_bytes_max: 16 << (10 + random.below(3)),
        log_block_bytes_max: 1 << (10 + random.below(4)),
        log_spare_segments_max: random.below(3) as u32,
        pending_ops_max: 256,
        manifest_edit_bytes: 8 << (10 + random.below(3)),
        memtable_bytes: 16 << (10 + random.below(2)),
        table_bytes: 8 << (10 + random.below(2)),
        table_write_bytes: 4 << (10 + random.below(3)),
        level_base_bytes: 16 << (10 + random.below(3)),
        level_growth: 2 + random.below(4) as u32,
        runs_max: 1 + random.below(2) as u32,
        block_cache_bytes: 32 << 10,
        row_cache_bytes: random.below(2) * (64 << 10),
        step_records_max: 1 << random.below(7),
        step_bytes_max: 1 << (9 + random.below(7)),
        retry_window_ms_max: [0, 30, 300, 3_000][random.below(4) as usize],
        deadline_ms_max: [0, 30, 300][random.below(3) as usize],
        disk_reserve_bytes: 0,
        scan_records_max: 1 + random.below(60) as u32,
        scan_bytes_max: 1 << (9 + random.below(6)),
        sweep_interval_ms: 20 << random.below(5),
        runs_percent: [25, 100, 1_000][other.below(3) as usize],
        ..Options::default()
    }
}

fn weights(random: &mut Random) -> Weights {
    let flush = u64::from(random.one_in(3));
    let mut some = |often: u64| if random.one_in(4) { 0 } else { 1 + random.below(2 * often) };
    Weights {
        put: 40,
        delete: some(12),
        stamped: some(8),
        repeat: some(4),
        conditional: some(10),
        update: some(8),
        batch: some(8),
        get: some(10),
        scan: some(3),
        flush,
        pause: some(4),
    }
}

fn draw_keys(random: &mut Random, count: usize) -> Vec<KeyName> {
    let mut keys = std::collections::BTreeSet::new();
    while keys.len() < count {
        let namespace = NAMESPACES[random.below(NAMESPACES.len() as u64) as usize];
        let number = random.below(1_000);
        let user = match random.below(4) {
            0 => format!("{{tag{}}}/{number:03}", random.below(3)),
            1 => format!("{number}"),
            2 => format!("key-{number:03}"),
            _ => format!("a-rather-long-common-prefix/{number:03}"),
        };
        keys.insert(KeyName { namespace, user: user.into_bytes(), counts: random.one_in(6) });
    }
    let mut keys: Vec<KeyName> = keys.into_iter().collect();
    keys.dedup_by(|left, right| (left.namespace, &left.user) == (right.namespace, &right.user));
    keys
}
