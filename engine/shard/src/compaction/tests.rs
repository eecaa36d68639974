//! A small LSM in memory that does what the picker says, checked after every job.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::columns::DEEP;
use super::levels::{Levels, PickOptions, RunView, debt};
use super::picker::{Job, Work, pick};
use super::slices::Slices;
use crate::key::{NamespaceId, OwnedPosition, Partition};
use crate::namespaces::LiveNamespaces;
use crate::stamp::{HybridTime, Origin, Stamp};
use crate::table::TableMeta;

const RECORD_BYTES: u64 = 100;
const TABLE_RECORDS: usize = 10;
const TABLE_BYTES: u64 = TABLE_RECORDS as u64 * RECORD_BYTES;
const LEVELS_MAX: usize = 5;
/// How long after a stamp a late retry may still come, in milliseconds.
const WINDOW_MS: u64 = 50;
/// Keys of one partition; 600 keys are in as many as there are slices.
const PARTITION_KEYS: u16 = 38;
/// Keys of one namespace; 600 keys are in four.
const NAMESPACE_KEYS: u16 = 150;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    time_ms: u64,
    tombstone: bool,
    /// 0 = never.
    expiry_ms: u64,
}

#[derive(Debug, Clone)]
struct Table {
    meta: TableMeta,
    records: BTreeMap<u16, Record>,
}

/// What the picker is told beside the tables.
#[derive(Debug, Clone, Copy)]
struct Shape {
    runs_max: usize,
    runs_percent: u32,
    /// In tables.
    base: u64,
    growth: u64,
    job_tables_max: u64,
    /// Which keys the slices are made for.
    keys: u16,
}

impl Default for Shape {
    /// Slices are too large for a job.
    fn default() -> Self {
        Self { runs_max: 3, runs_percent: 25, base: 4, growth: 4, job_tables_max: 0, keys: 600 }
    }
}

#[derive(Debug, Default)]
struct Lsm {
    shape: Shape,
    /// Newest first.
    runs: Vec<(u64, Vec<Table>)>,
    levels: Vec<Vec<Table>>,
    cursors: Vec<OwnedPosition>,
    under_way: Vec<Job>,
    quarantined: BTreeSet<u64>,
    next: u64,
    now_ms: u64,
    truth: BTreeMap<u16, Record>,
    namespaces: LiveNamespaces,
}

fn namespace(key: u16) -> NamespaceId {
    NamespaceId(u32::from(key / NAMESPACE_KEYS))
}

fn partition(key: u16) -> Partition {
    Partition(key / PARTITION_KEYS)
}

fn position(key: u16) -> OwnedPosition {
    let user = key.to_be_bytes().to_vec();
    OwnedPosition { partition: partition(key), namespace: namespace(key), user }
}

fn stamp(ms: u64) -> Stamp {
    Stamp { time: HybridTime::from_millis(ms), origin: Origin(0) }
}

impl Table {
    fn new(number: u64, records: BTreeMap<u16, Record>) -> Self {
        let stamps = || records.values().map(|record| record.time_ms);
        let tombstones = || records.values().filter(|record| record.tombstone);
        let values = || records.values().filter(|record| !record.tombstone);
        let expiries = || values().map(|record| record.expiry_ms).filter(|expiry| *expiry > 0);
        let for_ever = values().any(|record| record.expiry_ms == 0);
        let meta = TableMeta {
            number,
            file_bytes: records.len() as u64 * RECORD_BYTES,
            checksum: 0,
            first: position(*records.keys().next().unwrap()),
            last: position(*records.keys().next_back().unwrap()),
            records: records.len() as u64,
            tombstones: tombstones().count() as u64,
            raw_bytes: 0,
            stamp_min: stamp(stamps().min().unwrap()),
            stamp_max: stamp(stamps().max().unwrap()),
            oldest_tombstone: tombstones().map(|record| stamp(record.time_ms)).min().unwrap_or(Stamp::ZERO),
            expiry_min_ms: expiries().min().unwrap_or(u64::MAX),
            expiry_max_ms: if for_ever { u64::MAX } else { expiries().max().unwrap_or(0) },
            expiring: expiries().count() as u64,
            blob_bytes: 0,
            namespaces: records.keys().map(|key| namespace(*key)).collect(),
        };
        Self { meta, records }
    }
}

impl Lsm {
    fn tables(&mut self, records: BTreeMap<u16, Record>) -> Vec<Table> {
        let slices = self.slices();
        let (Some(first), Some(last)) = (records.keys().next(), records.keys().next_back()) else {
            return Vec::new();
        };
        let wanted = TABLE_RECORDS as u64 / 4;
        let between = slices.between(partition(*first), partition(*last));
        let width = Slices::width(records.len() as u64, between, wanted);
        let piece = |key: &u16| slices.of(partition(*key)) / width;
        let mut cut: Vec<BTreeMap<u16, Record>> = Vec::new();
        for (key, record) in records {
            let goes_on = cut.last().is_some_and(|table| {
                let same = table.last_key_value().is_some_and(|(last, _)| piece(last) == piece(&key));
                table.len() < TABLE_RECORDS && (same || table.len() < TABLE_RECORDS / 10)
            });
            if !goes_on {
                cut.push(BTreeMap::new());
            }
            cut.last_mut().unwrap().insert(key, record);
        }
        let numbered = cut.into_iter().map(|records| {
            self.next += 1;
            Table::new(self.next, records)
        });
        numbered.collect()
    }

    fn slices(&self) -> Slices {
        Slices::new(Partition(0), u32::from(self.shape.keys.div_ceil(PARTITION_KEYS)))
    }

    fn is_dropped(&self, key: u16) -> bool {
        self.namespaces.is_dropped(namespace(key))
    }

    fn holds_dropped(&self) -> bool {
        self.places().flat_map(|table| table.records.keys()).any(|key| self.is_dropped(*key))
    }

    /// Drops the namespaces of these keys; nothing is written to them any more.
    fn drop_namespaces(&mut self, keys: std::ops::Range<u16>) {
        let gone = namespace(keys.start)..namespace(keys.end);
        let live = (0..u32::from(u16::MAX)).map(NamespaceId).filter(|id| !gone.contains(id));
        self.namespaces = LiveNamespaces::new(NamespaceId(u32::from(u16::MAX)), live);
    }

    fn flush(&mut self, writes: &[(u16, u8, u8)]) {
        let mut memtable = BTreeMap::new();
        for (key, kind, life) in writes.iter().filter(|write| !self.namespaces.is_dropped(namespace(write.0)))
        {
            self.now_ms += 1;
            let record = Record {
                time_ms: self.now_ms,
                tombstone: *kind == 0,
                expiry_ms: if *kind == 1 { self.now_ms + 1 + u64::from(*life) } else { 0 },
            };
            memtable.insert(*key, record);
            self.truth.insert(*key, record);
        }
        let tables = self.tables(memtable);
        if tables.is_empty() {
            return;
        }
        self.next += 1;
        self.runs.insert(0, (self.next, tables));
    }

    fn horizon_ms(&self) -> u64 {
        self.now_ms.saturating_sub(WINDOW_MS)
    }

    fn view<T>(&self, see: impl FnOnce(&Levels<'_>, &PickOptions<'_>) -> T) -> T {
        let run = |run: &'_ (u64, Vec<Table>)| run.0;
        let runs = self.runs.iter();
        let runs = runs.map(|each| RunView {
            number: run(each),
            tables: each.1.iter().map(|table| &table.meta).collect(),
        });
        let levels = self.levels.iter().map(|tables| tables.iter().map(|table| &table.meta).collect());
        let levels = Levels { runs: runs.collect(), levels: levels.collect() };
        let options = PickOptions {
            runs_max: self.shape.runs_max,
            runs_percent: self.shape.runs_percent,
            levels_max: LEVELS_MAX,
            level_base_bytes: self.shape.base * TABLE_BYTES,
            level_growth: self.shape.growth,
            table_bytes: TABLE_BYTES,
            job_bytes_max: self.shape.job_tables_max * TABLE_BYTES,
            slices: self.slices(),
            now_ms: self.now_ms,
            drop_horizon: HybridTime::from_millis(self.horizon_ms()),
            namespaces: &self.namespaces,
            quarantined: &self.quarantined,
            under_way: &self.under_way,
            cursors: &self.cursors,
        };
        see(&levels, &options)
    }

    fn pick(&self) -> Option<Job> {
        self.view(pick)
    }

    fn debt(&self) -> u64 {
        self.view(debt).bytes
    }

    fn depth(&self) -> usize {
        self.view(debt).depth
    }

    fn is_shallow(&self) -> bool {
        self.depth() < DEEP * self.shape.runs_max
    }

    /// The records of a job's inputs, newest place first.
    fn inputs(&self, job: &Job) -> Vec<Table> {
        let tables = self.runs.iter().flat_map(|run| &run.1).chain(self.levels.iter().flatten());
        let takes_part = |table: &&Table| {
            job.sources.contains(&table.meta.number) || job.targets.contains(&table.meta.number)
        };
        let inputs: Vec<Table> = tables.filter(takes_part).cloned().collect();
        assert_eq!(inputs.len(), job.sources.len() + job.targets.len(), "inputs exist and are named once");
        assert_eq!(inputs.iter().map(|table| table.meta.file_bytes).sum::<u64>(), job.bytes);
        let busy = self.under_way.iter().flat_map(|job| job.sources.iter().chain(&job.targets));
        let busy: Vec<u64> = busy.copied().collect();
        assert!(inputs.iter().all(|table| !busy.contains(&table.meta.number)), "a busy table was picked");
        let unreadable = inputs.iter().any(|table| self.quarantined.contains(&table.meta.number));
        assert!(job.work != Work::Merge || !unreadable, "a merge reads a table in quarantine");
        inputs
    }

    /// Installs the result of a job: all at once, as a shard does. Returns its bytes.
    fn run(&mut self, job: &Job) -> u64 {
        let inputs = self.inputs(job);
        let gone: Vec<u64> = inputs.iter().map(|table| table.meta.number).collect();
        for run in &mut self.runs {
            run.1.retain(|table| !gone.contains(&table.meta.number));
        }
        self.runs.retain(|run| !run.1.is_empty());
        for level in &mut self.levels {
            level.retain(|table| !gone.contains(&table.meta.number));
        }
        let outputs = match job.work {
            Work::Drop => {
                for key in inputs.iter().flat_map(|table| table.records.keys()) {
                    self.assert_droppable(*key, &inputs);
                }
                Vec::new()
            }
            Work::Move => inputs,
            Work::Merge => {
                let mut merged = BTreeMap::new();
                for table in &inputs {
                    for (key, record) in &table.records {
                        // Newest place first.
                        merged.entry(*key).or_insert(*record);
                    }
                }
                merged.retain(|key, record| !self.turns_to_nothing(job.to, *key, record));
                self.tables(merged)
            }
        };
        let bytes = outputs.iter().map(|table| table.meta.file_bytes).sum();
        if job.to == 0 {
            let at = self.runs.partition_point(|run| run.0 > job.run);
            if self.runs.get(at).is_none_or(|run| run.0 != job.run) {
                self.runs.insert(at, (job.run, Vec::new()));
            }
            self.runs[at].1.extend(outputs);
            self.runs[at].1.sort_by_key(|table| table.meta.first.clone());
            self.runs.retain(|run| !run.1.is_empty());
            return bytes;
        }
        while self.levels.len() < job.to {
            self.levels.push(Vec::new());
        }
        if !outputs.is_empty() {
            let level = &mut self.levels[job.to - 1];
            level.extend(outputs);
            level.sort_by_key(|table| table.meta.first.clone());
        }
        if self.cursors.len() <= job.from {
            self.cursors.resize(job.from + 1, OwnedPosition::default());
        }
        self.cursors[job.from] = job.cursor.clone();
        bytes
    }

    /// What a merge does to a record: true = it goes.
    fn turns_to_nothing(&self, level: usize, key: u16, record: &mut Record) -> bool {
        if self.is_dropped(key) {
            return true;
        }
        if record.expiry_ms != 0 && record.expiry_ms <= self.now_ms {
            *record = Record { tombstone: true, expiry_ms: 0, ..*record };
        }
        let covers = |table: &Table| table.meta.first <= position(key) && position(key) <= table.meta.last;
        let deeper = self.levels.iter().skip(level).flatten().any(covers);
        record.tombstone && record.time_ms <= self.horizon_ms() && level > 0 && !deeper
    }

    fn assert_droppable(&self, key: u16, inputs: &[Table]) {
        if self.is_dropped(key) {
            return;
        }
        for record in inputs.iter().filter_map(|table| table.records.get(&key)) {
            assert!(record.tombstone || (record.expiry_ms != 0 && record.expiry_ms <= self.now_ms));
            assert!(record.time_ms <= self.horizon_ms());
            // Whatever remains of the key is newer.
            let newest = self.places().find_map(|table| table.records.get(&key));
            assert!(
                newest.is_none_or(|newest| newest.time_ms > record.time_ms),
                "an older record comes back"
            );
        }
    }

    /// Puts one of the tables in quarantine.
    fn damage(&mut self, choice: u16) {
        let count = self.places().count();
        let number = self.places().nth(usize::from(choice) % count.max(1)).map(|table| table.meta.number);
        self.quarantined.extend(number);
    }

    /// Whether a table in quarantine stands in the uppermost level, or in a run above something in that
    /// level, so that runs may pile up.
    fn has_no_level_left(&self) -> bool {
        let first = self.levels.first().map_or(&[][..], Vec::as_slice);
        let quarantines = |table: &&Table| self.quarantined.contains(&table.meta.number);
        let covers = |table: &Table| {
            first
                .iter()
                .any(|below| below.meta.first <= table.meta.last && table.meta.first <= below.meta.last)
        };
        let mut in_runs = self.runs.iter().flat_map(|run| &run.1).filter(quarantines);
        first.iter().any(|table| quarantines(&table)) || in_runs.any(covers)
    }

    fn places(&self) -> impl Iterator<Item = &Table> {
        self.runs.iter().flat_map(|run| &run.1).chain(self.levels.iter().flatten())
    }

    fn check(&self) {
        for tables in self.runs.iter().map(|run| &run.1).chain(&self.levels) {
            assert!(tables.windows(2).all(|pair| pair[0].meta.last < pair[1].meta.first), "a place overlaps");
        }
        let mut newest: BTreeMap<u16, Record> = BTreeMap::new();
        let mut last: BTreeMap<u16, u64> = BTreeMap::new();
        for table in self.places() {
            for (key, record) in &table.records {
                let above = last.insert(*key, record.time_ms);
                assert!(above.is_none_or(|above| above > record.time_ms), "an older record above a newer");
                newest.entry(*key).or_insert(*record);
            }
        }
        let dead =
            |record: &Record| record.tombstone || (record.expiry_ms != 0 && record.expiry_ms <= self.now_ms);
        for (key, record) in self.truth.iter().filter(|(key, _)| !self.is_dropped(**key)) {
            match newest.get(key) {
                Some(found) => {
                    assert_eq!((found.time_ms, dead(found)), (record.time_ms, dead(record)), "key {key}");
                }
                None => assert!(dead(record), "key {key} is lost"),
            }
        }
    }

    /// Runs jobs until none is due; fails if that takes for ever.
    fn settle(&mut self) -> u64 {
        let mut read = 0;
        for _ in 0..2_000 {
            let Some(job) = self.pick() else { return read };
            read += if job.work == Work::Merge { job.bytes } else { 0 };
            self.run(&job);
            self.check();
        }
        panic!("compaction does not end: {:?}", self.pick());
    }
}

/// Key, kind and life of each write of a flush, and how many jobs follow it.
type Flush = (Vec<(u16, u8, u8)>, u8);

fn flushes() -> impl Strategy<Value = Vec<Flush>> {
    let key = prop_oneof![4 => 0_u16..600, 1 => 100_u16..130];
    let write = (key, 0_u8..6, any::<u8>());
    let size = prop_oneof![2 => 1_usize..8, 3 => 20_usize..60];
    let flush = size.prop_flat_map(move |size| proptest::collection::vec(write.clone(), size));
    proptest::collection::vec((flush, 0_u8..6), 1..60)
}

fn shapes() -> impl Strategy<Value = Shape> {
    let percent = prop_oneof![Just(25_u32), Just(100), Just(1_000)];
    let whole = (1_usize..5, percent, 4_u64..400, 2_u64..6, 4_u64..40);
    let whole = whole.prop_map(|(runs_max, runs_percent, base, growth, job_tables_max)| Shape {
        runs_max,
        runs_percent,
        base,
        growth,
        job_tables_max,
        ..Shape::default()
    });
    prop_oneof![1 => Just(Shape::default()), 3 => whole]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn jobs_keep_the_order_of_places_and_come_to_an_end(
        shape in shapes(),
        flushes in flushes(),
        drop_after in 0_usize..90,
    ) {
        let mut lsm = Lsm { shape, ..Lsm::default() };
        for (index, (writes, jobs)) in flushes.into_iter().enumerate() {
            lsm.flush(&writes);
            if index == drop_after {
                lsm.drop_namespaces(NAMESPACE_KEYS..3 * NAMESPACE_KEYS);
            }
            for _ in 0..jobs {
                let Some(job) = lsm.pick() else { break };
                lsm.run(&job);
                lsm.check();
            }
        }
        lsm.settle();
        prop_assert!(lsm.is_shallow(), "{} runs above each other", lsm.depth());
        prop_assert_eq!(lsm.debt(), 0);
        prop_assert!(!lsm.holds_dropped(), "a dropped namespace stays");
        // When every life is over and every late retry too, what is dead is gone but for a rest. Where
        // only some values expire, that takes as long as they were written over (see `sweep`).
        lsm.now_ms = 2 * lsm.now_ms + 1_000;
        lsm.settle();
        let dead = |table: &Table| table.meta.tombstones + table.meta.expiring;
        for table in lsm.levels.iter().flatten() {
            let (dead, records) = (dead(table), table.meta.records);
            prop_assert!(dead * 4 <= records + 3, "{dead} of {records} are dead");
        }
        // Runs that are a small part of what lies below may hold dead records.
        let in_runs: u64 = lsm.runs.iter().flat_map(|run| &run.1).map(dead).sum();
        let records: u64 = lsm.places().map(|table| table.meta.records).sum();
        prop_assert!(in_runs * 4 <= records + 8, "{in_runs} of {records} are dead in runs");
    }

    #[test]
    fn tables_in_quarantine_stay_and_the_others_go_on(
        shape in shapes(),
        flushes in flushes(),
        damaged in proptest::collection::vec((0_usize..60, any::<u16>()), 1..4),
        drop_after in 0_usize..90,
    ) {
        let mut lsm = Lsm { shape, ..Lsm::default() };
        for (index, (writes, jobs)) in flushes.into_iter().enumerate() {
            lsm.flush(&writes);
            if index == drop_after {
                lsm.drop_namespaces(NAMESPACE_KEYS..3 * NAMESPACE_KEYS);
            }
            for (_, choice) in damaged.iter().filter(|(after, _)| *after == index) {
                lsm.damage(*choice);
            }
            for _ in 0..jobs {
                let Some(job) = lsm.pick() else { break };
                lsm.run(&job);
                lsm.check();
            }
        }
        lsm.settle();
        if !lsm.has_no_level_left() {
            prop_assert!(lsm.is_shallow(), "{} runs above each other", lsm.depth());
            prop_assert_eq!(lsm.debt(), 0);
        }
        // Whatever was damaged can be read again after a restart, or was replaced.
        lsm.quarantined.clear();
        lsm.settle();
        prop_assert!(lsm.is_shallow(), "{} runs above each other", lsm.depth());
        prop_assert_eq!(lsm.debt(), 0);
        prop_assert!(!lsm.holds_dropped(), "a dropped namespace stays");
    }

    #[test]
    fn jobs_side_by_side_do_not_meet(
        shape in shapes(),
        flushes in flushes(),
        choices in proptest::collection::vec(any::<u8>(), 1..400),
    ) {
        let mut lsm = Lsm { shape, ..Lsm::default() };
        let mut flushes = flushes.into_iter();
        for choice in choices {
            match choice % 4 {
                0 => {
                    if let Some((writes, _)) = flushes.next() {
                        lsm.flush(&writes);
                    }
                    if choice == 0 {
                        lsm.drop_namespaces(NAMESPACE_KEYS..2 * NAMESPACE_KEYS);
                    }
                }
                1 | 2 => {
                    if let Some(job) = lsm.pick() {
                        let _ = lsm.inputs(&job);
                        lsm.under_way.push(job);
                    }
                }
                _ => {
                    if !lsm.under_way.is_empty() {
                        let job = lsm.under_way.swap_remove(usize::from(choice) % lsm.under_way.len());
                        lsm.run(&job);
                        lsm.check();
                    }
                }
            }
        }
    }
}

/// What uniform overwrites of `keys` keys cost once it is steady, in flushes of `flush` records.
struct Cost {
    /// Bytes read by jobs for each byte flushed.
    read: f64,
    /// Bytes written by jobs for each byte flushed.
    written: f64,
    /// Records held for each key, at most.
    held: f64,
    /// Runs above each other, at most.
    depth: usize,
    /// Jobs, and those of more than nine tables.
    jobs: usize,
    large: usize,
    largest_bytes: u64,
    lsm: Lsm,
}

fn overwrite(shape: Shape, flush: usize, rounds: u32) -> Cost {
    let mut cost = Cost {
        read: 0.0,
        written: 0.0,
        depth: 0,
        held: 0.0,
        jobs: 0,
        large: 0,
        largest_bytes: 0,
        lsm: Lsm { shape, ..Lsm::default() },
    };
    let mut key = 1_u32;
    let (mut written, mut read, mut rewritten) = (0, 0, 0);
    for round in 0..rounds {
        let writes: Vec<_> = (0..flush)
            .map(|_| {
                key = key.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (((u64::from(key) * u64::from(shape.keys)) >> 32) as u16, 2, 0)
            })
            .collect();
        cost.lsm.flush(&writes);
        let is_steady = round >= rounds / 2;
        while let Some(job) = cost.lsm.pick() {
            let bytes = cost.lsm.run(&job);
            if is_steady && job.work == Work::Merge {
                cost.jobs += 1;
                cost.large += usize::from(job.sources.len() + job.targets.len() > 9);
                cost.largest_bytes = cost.largest_bytes.max(job.bytes);
                (read, rewritten) = (read + job.bytes, rewritten + bytes);
            }
        }
        if is_steady {
            written += flush as u64 * RECORD_BYTES;
            let held: usize = cost.lsm.places().map(|table| table.records.len()).sum();
            cost.held = cost.held.max(held as f64 / cost.lsm.truth.len() as f64);
            cost.depth = cost.depth.max(cost.lsm.depth());
        }
    }
    cost.lsm.check();
    cost.read = read as f64 / written as f64;
    cost.written = rewritten as f64 / written as f64;
    cost
}

#[test]
fn jobs_below_a_slice_are_small_and_amplification_is_bounded() {
    let shape = Shape { keys: 3_000, ..Shape::default() };
    let Cost { read, jobs, large, lsm, .. } = overwrite(shape, 40, 400);
    assert!(large * 20 <= jobs, "{large} of {jobs} jobs are large");
    // Growth 4 and three levels; each costs at most growth + 1, plus fragments.
    assert!(read <= 20.0, "{read} bytes read for each written");
    let last = lsm.levels[LEVELS_MAX - 1].iter().map(|table| table.records.len()).sum::<usize>();
    assert!(last * 10 >= lsm.truth.len() * 6, "most keys are in the last level: {last}");
}

/// Ten times the memory: 80 memtables of keys, overwritten in any order.
#[test]
fn whole_slices_cost_less() {
    let shape = Shape {
        runs_max: 4,
        runs_percent: 25,
        base: 512 * 8,
        growth: 8,
        job_tables_max: 16 * 8,
        keys: 80 * 80,
    };
    let whole = overwrite(shape, 80, 240);
    let table = overwrite(Shape { base: 4 * 8, job_tables_max: 0, ..shape }, 80, 240);
    assert!(whole.written < 3.7, "{} bytes written by jobs for each flushed", whole.written);
    assert!(whole.read * 2.0 < table.read, "{} and {} read for each written", whole.read, table.read);
    assert!(whole.largest_bytes <= 5 * 8 * TABLE_BYTES, "{} in a job", whole.largest_bytes);
    assert!(whole.held < 1.25, "{} records for each key", whole.held);
    assert!(whole.depth <= 12, "{} runs above each other", whole.depth);
}

#[test]
fn an_idle_shard_gives_deleted_space_back() {
    let mut lsm = Lsm::default();
    for round in 0..20 {
        let puts: Vec<_> = (round * 50..round * 50 + 50).map(|key| (key, 2, 0)).collect();
        lsm.flush(&puts);
        lsm.settle();
    }
    // Far too few bytes for any level to be over its target.
    let deletes: Vec<_> = (0..1000).map(|key| (key, 0, 0)).collect();
    lsm.flush(&deletes);
    lsm.settle();
    lsm.check();
    lsm.now_ms += WINDOW_MS + 1;
    lsm.settle();
    assert_eq!(lsm.places().count(), 0, "nothing lives, nothing is kept");
}

#[test]
fn tables_that_do_not_touch_are_moved_and_dead_ones_dropped_unread() {
    let mut lsm = Lsm { shape: Shape { runs_max: 1, ..Shape::default() }, ..Lsm::default() };
    for round in 0..5 {
        let puts: Vec<_> = (round * 40..round * 40 + 40).map(|key| (key, 1, 250)).collect();
        lsm.flush(&puts);
    }
    let before = lsm.places().count();
    assert_eq!(lsm.settle(), 0, "keys in order cost no merge");
    assert!(lsm.places().count() == before && lsm.runs.len() < 3);
    lsm.now_ms += 1_000;
    assert_eq!(lsm.settle(), 0, "a dropped table is not read");
    assert_eq!(lsm.places().count(), 0);
}

#[test]
fn a_dropped_namespace_is_taken_out_where_it_is() {
    let mut lsm = Lsm::default();
    let puts = |keys: std::ops::Range<u16>| keys.map(|key| (key, 2, 0)).collect::<Vec<_>>();
    for keys in [5..600, 500..510, 500..510] {
        lsm.flush(&puts(keys));
    }
    lsm.settle();
    let before = lsm.places().count();
    lsm.drop_namespaces(NAMESPACE_KEYS..2 * NAMESPACE_KEYS);
    let read = lsm.settle();
    assert!(!lsm.holds_dropped());
    assert!(lsm.places().count() <= before - 13);
    // Tables with nothing else in them are not read, nor are those without it.
    assert!((1..=4 * TABLE_RECORDS as u64 * RECORD_BYTES).contains(&read), "{read}");

    // What lies in a run goes down with it.
    lsm.flush(&puts(2 * NAMESPACE_KEYS - 5..2 * NAMESPACE_KEYS + 15));
    lsm.drop_namespaces(NAMESPACE_KEYS..3 * NAMESPACE_KEYS);
    assert!(lsm.holds_dropped());
    lsm.settle();
    assert!(!lsm.holds_dropped());
}

#[test]
fn nothing_is_dropped_within_the_retry_window() {
    let mut lsm = Lsm::default();
    lsm.flush(&[(1, 1, 0), (2, 0, 0)]);
    lsm.now_ms += 2;
    assert_eq!(lsm.pick(), None, "expired, but a late retry may still come");
    lsm.now_ms += WINDOW_MS;
    assert_eq!(lsm.pick().map(|job| job.work), Some(Work::Drop));
}
