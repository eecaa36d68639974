//! The engine against a model: generated histories on an engine sized so small that short ones
//! flush, compact and roll their logs, with restarts and crashes, in the in-memory world.
//!
//! The model is a map from key to record. Operations are awaited one by one, so every answer and
//! every scan is known exactly; only writes in flight at a crash have two possible outcomes.
//! A failure names its seed: `PINION_SEED=<n> cargo test -p pinion-tests --test engine_model`.
#![expect(clippy::unwrap_used, reason = "a history that meets an error has failed")]

mod scan;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use pinion_engine::{
    Answer, BatchOperation, Condition, DatabaseId, Durability, Effect, Error, Identity, Key, Lifetime,
    NamespaceId, Operation, Options, Origin, Partition, RecordView, Shard, Stamp, Teller, Update,
    WriteOptions, Written, answer,
};
use pinion_env::{Env, create_dir_all};
use pinion_tests::world::{NodeConfig, Random, SimEnv, World};

use scan::scan;

const PARTITIONS: u32 = 64;
const NAMESPACES: [u32; 2] = [0, 7];

type Place = (Partition, u32, Vec<u8>);
/// Namespace and user key.
type Name = (u32, Vec<u8>);

/// What a key holds, deleted keys included: a late write must not come back over them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    value: Option<Vec<u8>>,
    expiry_ms: u64,
    stamp: Stamp,
}

impl Entry {
    fn is_visible(&self, now_ms: u64) -> bool {
        self.value.is_some() && (self.expiry_ms == 0 || self.expiry_ms > now_ms)
    }
}

struct History {
    random: Random,
    options: Options,
    operations_left: u32,
    model: BTreeMap<Place, Entry>,
    /// Writes in flight at a crash: the key and what it would hold.
    doubtful: Vec<(Place, Option<Vec<u8>>)>,
    crash_wanted: bool,
    totals: Totals,
}

#[derive(Debug, Default, Clone)]
struct Totals {
    operations: u64,
    flushes: u64,
    compactions: u64,
    moves: u64,
    crashes: u64,
    restarts: u64,
    scans: u64,
}

#[test]
fn the_engine_does_what_a_map_does() {
    let seeds: Vec<u64> = match std::env::var("PINION_SEED") {
        Ok(seed) => vec![seed.parse().expect("PINION_SEED is a number")],
        Err(_) => (0..histories()).collect(),
    };
    let mut sum = Totals::default();
    let (mut flushed, mut compacted) = (0, 0);
    for seed in &seeds {
        let totals = run(*seed);
        sum.operations += totals.operations;
        sum.flushes += totals.flushes;
        sum.compactions += totals.compactions;
        sum.moves += totals.moves;
        sum.crashes += totals.crashes;
        sum.restarts += totals.restarts;
        sum.scans += totals.scans;
        flushed += u64::from(totals.flushes > 0);
        compacted += u64::from(totals.compactions > 0);
    }
    println!("{} histories: {sum:?}; {flushed} flushed, {compacted} compacted", seeds.len());
    if seeds.len() >= 20 {
        let share = |part: u64| part * 100 / seeds.len() as u64;
        assert!(share(flushed) >= 90 && share(compacted) >= 50, "the histories are too tame");
        assert!(sum.crashes > 0 && sum.restarts > 0 && sum.scans > 0);
    }
}

/// How many histories a plain test run checks; `PINION_HISTORIES` sets another number.
fn histories() -> u64 {
    std::env::var("PINION_HISTORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(120)
}

fn run(seed: u64) -> Totals {
    let world = World::new(seed);
    let mut random = Random::new(seed ^ 0x5eed);
    let options = draw_options(&mut random);
    let operations_left = random.between(150, 900) as u32;
    let history = Rc::new(RefCell::new(History {
        random,
        options,
        operations_left,
        model: BTreeMap::new(),
        doubtful: Vec::new(),
        crash_wanted: false,
        totals: Totals::default(),
    }));
    let main = {
        let history = Rc::clone(&history);
        move |env: SimEnv| {
            let history = Rc::clone(&history);
            async move { live(env, history).await }
        }
    };
    let config = NodeConfig::default();
    let node = world.start_node(config, main.clone());
    loop {
        let ended = world.ended(node);
        let crash = {
            let (history, outside) = (Rc::clone(&history), world.outside());
            async move {
                while !history.borrow().crash_wanted && history.borrow().operations_left > 0 {
                    outside.sleep(Duration::from_micros(50)).await;
                }
            }
        };
        world.run_until(crash);
        if history.borrow().crash_wanted {
            world.crash(node);
            let mut state = history.borrow_mut();
            state.crash_wanted = false;
            state.totals.crashes += 1;
            drop(state);
            if history.borrow_mut().random.one_in(2) {
                let back = history.borrow_mut().random.below(5_000) as i64;
                world.shift_wall_clock(node, -back);
            }
            world.restart_node(node, config, main.clone());
            continue;
        }
        world.run_until(ended);
        return history.borrow().totals.clone();
    }
}

fn draw_options(random: &mut Random) -> Options {
    Options {
        value_bytes_max: 16 << 10,
        batch_ops_max: 32,
        batch_bytes_max: 64 << 10,
        log_segment_bytes: 192 << 10,
        log_queue_bytes_max: 256 << 10,
        log_block_bytes_max: 4096 << random.below(5),
        log_spare_segments_max: random.below(3) as u32,
        pending_ops_max: 1024,
        memtable_bytes: 16 << (10 + random.below(3)),
        table_bytes: 16 << (10 + random.below(3)),
        level_base_bytes: 64 << (10 + random.below(2)),
        level_growth: 2 + random.below(6) as u32,
        runs_max: 1 + random.below(4) as u32,
        block_cache_bytes: 64 << (10 + random.below(3)),
        row_cache_bytes: random.below(2) * (128 << 10),
        step_records_max: 1 + random.below(64) as u32,
        retry_window_ms_max: 50 + random.below(1_000),
        deadline_ms_max: random.below(1_000),
        disk_reserve_bytes: 0,
        scan_records_max: 1 + random.below(200) as u32,
        sweep_interval_ms: 100,
        ..Options::default()
    }
}

/// One life of the shard: recovers, checks everything, and goes on with the history.
async fn live(env: SimEnv, history: Rc<RefCell<History>>) {
    let dir = PathBuf::from("data/0");
    create_dir_all(&env, &dir).await.unwrap();
    let identity = Identity { database: DatabaseId(1), shard: 0, partitions: PARTITIONS, shards: 1 };
    loop {
        let options = history.borrow().options.clone();
        let shard: Shard<SimEnv, Teller> =
            Shard::open(env.clone(), dir.clone(), identity, Origin(1), options).await.unwrap();
        resolve_doubts(&shard, &history).await;
        check_all(&shard, &history).await;
        loop {
            if history.borrow().operations_left == 0 {
                check_all(&shard, &history).await;
                close(&shard, &history).await;
                return;
            }
            history.borrow_mut().operations_left -= 1;
            history.borrow_mut().totals.operations += 1;
            let choice = history.borrow_mut().random.below(1000);
            match choice {
                0..4 => {
                    let batch = history.borrow_mut().random.between(0, 12);
                    for _ in 0..batch {
                        start_and_forget(&shard, &history);
                    }
                    let steps = history.borrow_mut().random.below(40);
                    for _ in 0..steps {
                        env.yield_now().await;
                    }
                    note_totals(&shard, &history);
                    history.borrow_mut().crash_wanted = true;
                    std::future::pending::<()>().await;
                }
                4..8 => {
                    close(&shard, &history).await;
                    history.borrow_mut().totals.restarts += 1;
                    break;
                }
                8..12 => shard.flush().await.unwrap(),
                12..16 => shard.settle().await.unwrap(),
                16..40 => {
                    let millis = history.borrow_mut().random.below(400);
                    env.sleep(Duration::from_millis(millis)).await;
                }
                _ => step(&shard, &history).await,
            }
        }
    }
}

async fn close(shard: &Shard<SimEnv, Teller>, history: &Rc<RefCell<History>>) {
    shard.close().await.unwrap();
    note_totals(shard, history);
}

fn note_totals(shard: &Shard<SimEnv, Teller>, history: &Rc<RefCell<History>>) {
    let counters = shard.stats().counters;
    let totals = &mut history.borrow_mut().totals;
    totals.flushes += counters.flushes;
    totals.compactions += counters.compactions;
    totals.moves += counters.tables_moved;
}

fn draw_key(random: &mut Random) -> Name {
    let namespace = NAMESPACES[random.below(NAMESPACES.len() as u64) as usize];
    let number = random.below(120);
    let key = match random.below(3) {
        0 => format!("{{tag{}}}/{number:03}", random.below(3)),
        1 => format!("key-{number:03}"),
        _ => format!("a-rather-long-common-prefix/{number:03}"),
    };
    (namespace, key.into_bytes())
}

fn draw_value(random: &mut Random) -> Vec<u8> {
    let bytes = match random.below(20) {
        0 => random.below(9_000),
        1..4 => random.below(2_000),
        _ => random.below(300),
    };
    let fill = random.word() as u8;
    (0..bytes).map(|at| fill.wrapping_add(at as u8)).collect()
}

fn draw_lifetime(random: &mut Random) -> Lifetime {
    if random.one_in(4) { Lifetime::Millis(1 + random.below(1_500)) } else { Lifetime::Forever }
}

fn key_of((namespace, user): &Name) -> Key<'_> {
    Key::new(NamespaceId(*namespace), user, PARTITIONS)
}

fn place_of(name: &Name) -> Place {
    (key_of(name).partition, name.0, name.1.clone())
}

fn start(
    shard: &Shard<SimEnv, Teller>,
    name: &Name,
    operation: Operation<'_>,
    options: WriteOptions,
) -> Answer {
    let (teller, answer) = answer();
    shard.write(&key_of(name), operation, options, teller);
    answer
}

/// A write, repeated as long as it is refused for want of room.
async fn write(
    shard: &Shard<SimEnv, Teller>,
    name: &Name,
    operation: Operation<'_>,
    options: WriteOptions,
) -> pinion_engine::Result<Written> {
    loop {
        match start(shard, name, operation, options).await {
            Err(Error::Overloaded { .. }) => shard.settle().await.unwrap(),
            result => return result,
        }
    }
}

/// A write whose answer is not waited for: after the crash both outcomes are right.
fn start_and_forget(shard: &Shard<SimEnv, Teller>, history: &Rc<RefCell<History>>) {
    let mut state = history.borrow_mut();
    let name = draw_key(&mut state.random);
    if state.random.one_in(4) {
        drop(start(shard, &name, Operation::Delete, WriteOptions::default()));
        state.doubtful.push((place_of(&name), None));
    } else {
        let value = draw_value(&mut state.random);
        let operation = Operation::Put { value: &value, lifetime: Lifetime::Forever };
        drop(start(shard, &name, operation, WriteOptions::default()));
        state.doubtful.push((place_of(&name), Some(value)));
    }
}

/// Adopts what recovery made of the writes in flight; anything else than their outcomes is wrong.
async fn resolve_doubts(shard: &Shard<SimEnv, Teller>, history: &Rc<RefCell<History>>) {
    let doubtful = std::mem::take(&mut history.borrow_mut().doubtful);
    let places: BTreeSet<Place> = doubtful.iter().map(|(place, _)| place.clone()).collect();
    for place in places {
        let name = (place.1, place.2.clone());
        let before_ms = shard.clock_ms();
        let found = read(shard, &name).await;
        let now_ms = shard.clock_ms();
        let deleted = doubtful.iter().any(|(at, new)| *at == place && new.is_none());
        let stamp_unknown = found.is_none() && deleted;
        adopt(history, &place, &doubtful, found, (before_ms, now_ms));
        if stamp_unknown {
            // Deleted or never there: either way nothing is visible, but the stamp is not known. A
            // delete whose stamp is makes the model exact again.
            let written = write(shard, &name, Operation::Delete, WriteOptions::default()).await.unwrap();
            let entry = Entry { value: None, expiry_ms: 0, stamp: written.stamp };
            history.borrow_mut().model.insert(place, entry);
        }
    }
}

/// Takes what recovery left under one key into the model, if it is one of the possible outcomes.
fn adopt(
    history: &Rc<RefCell<History>>,
    place: &Place,
    doubtful: &[(Place, Option<Vec<u8>>)],
    found: Option<Found>,
    (before_ms, now_ms): (u64, u64),
) {
    let mut state = history.borrow_mut();
    let old = state.model.get(place).cloned();
    let old_value =
        old.as_ref().filter(|entry| entry.is_visible(now_ms)).and_then(|entry| entry.value.clone());
    let old_may_expire = old.as_ref().is_some_and(|entry| entry.is_visible(before_ms));
    let old_stamp = old.as_ref().map_or(Stamp::ZERO, |entry| entry.stamp);
    match found {
        Some((value, stamp, _)) if stamp == old_stamp => {
            assert_eq!(Some(&value), old_value.as_ref().or(Some(&value)))
        }
        Some((value, stamp, expiry_ms)) => {
            let expected = doubtful.iter().any(|(at, new)| at == place && new.as_ref() == Some(&value));
            assert!(expected && stamp > old_stamp, "{place:?} holds what nobody wrote");
            state.model.insert(place.clone(), Entry { value: Some(value), expiry_ms, stamp });
        }
        None => {
            let deleted = doubtful.iter().any(|(at, new)| at == place && new.is_none());
            assert!(deleted || old_value.is_none() || !old_may_expire, "{place:?} is lost");
        }
    }
}

type Found = (Vec<u8>, Stamp, u64);

async fn read(shard: &Shard<SimEnv, Teller>, name: &Name) -> Option<Found> {
    let key = key_of(name);
    let own = |record: RecordView<'_>| (record.value.to_vec(), record.stamp, record.expiry_ms);
    match shard.get_now(&key, |record| record.map(own)) {
        Ok(found) => found,
        Err(_) => shard.get(&key).await.unwrap().map(|found| own(found.view())),
    }
}

/// Checks one key against the model, allowing for time that passes meanwhile.
async fn check_key(shard: &Shard<SimEnv, Teller>, history: &Rc<RefCell<History>>, name: &Name) {
    let before_ms = shard.clock_ms();
    let found = read(shard, name).await;
    let after_ms = shard.clock_ms();
    let expected = history.borrow().model.get(&place_of(name)).cloned();
    match (found, expected) {
        (None, expected) => {
            assert!(expected.is_none_or(|entry| !entry.is_visible(after_ms)), "{name:?} is missing");
        }
        (Some((value, stamp, expiry_ms)), Some(entry)) => {
            assert_eq!((Some(value), stamp, expiry_ms), (entry.value.clone(), entry.stamp, entry.expiry_ms));
            assert!(entry.is_visible(before_ms), "{name:?} has expired");
        }
        (Some(found), None) => panic!("{name:?} holds {found:?} and should not exist"),
    }
}

async fn check_all(shard: &Shard<SimEnv, Teller>, history: &Rc<RefCell<History>>) {
    let names: Vec<Name> =
        history.borrow().model.keys().map(|(_, namespace, user)| (*namespace, user.clone())).collect();
    for name in names {
        check_key(shard, history, &name).await;
    }
    for namespace in NAMESPACES {
        for reverse in [false, true] {
            for ordered in [false, true] {
                scan(shard, history, namespace, reverse, ordered, Vec::new(), None).await;
            }
        }
    }
}

async fn step(shard: &Shard<SimEnv, Teller>, history: &Rc<RefCell<History>>) {
    let (name, choice) = {
        let mut state = history.borrow_mut();
        (draw_key(&mut state.random), state.random.below(100))
    };
    match choice {
        0..40 => put(shard, history, &name).await,
        40..50 => {
            let written = write(shard, &name, Operation::Delete, WriteOptions::default()).await.unwrap();
            assert_eq!(written.effect, Effect::Applied);
            let entry = Entry { value: None, expiry_ms: 0, stamp: written.stamp };
            history.borrow_mut().model.insert(place_of(&name), entry);
        }
        50..60 => conditional(shard, history, &name).await,
        60..68 => update(shard, history, &name).await,
        68..76 => batch(shard, history).await,
        76..90 => check_key(shard, history, &name).await,
        _ => {
            let (reverse, ordered, start, end) = {
                let mut state = history.borrow_mut();
                let (one, two) = (draw_key(&mut state.random).1, draw_key(&mut state.random).1);
                let bounded = state.random.one_in(2);
                let (start, end) = if bounded {
                    (one.clone().min(two.clone()), Some(one.max(two)))
                } else {
                    (Vec::new(), None)
                };
                (state.random.one_in(2), state.random.one_in(2), start, end)
            };
            scan(shard, history, name.0, reverse, ordered, start, end).await;
        }
    }
}

async fn put(shard: &Shard<SimEnv, Teller>, history: &Rc<RefCell<History>>, name: &Name) {
    let (value, lifetime, durability, late_ms) = {
        let random = &mut history.borrow_mut().random;
        let durability = if random.one_in(5) { Durability::Buffered } else { Durability::Sync };
        let late_ms = random.one_in(4).then(|| 1 + random.below(1_200));
        (draw_value(random), draw_lifetime(random), durability, late_ms)
    };
    // A buffered write may be lost in a crash; to keep the model exact it is followed by a flush
    // of the log: the next synced write.
    let stamp = late_ms.map(|late_ms| {
        let millis = shard.clock_ms().saturating_sub(late_ms);
        let counter = history.borrow_mut().random.below(1 << 16);
        Stamp {
            time: pinion_engine::HybridTime((millis << 16) | counter),
            origin: Origin(Origin::CLIENT_BIT | 5),
        }
    });
    let options = WriteOptions { durability, stamp, ..WriteOptions::default() };
    let window_ms = history.borrow().options.retry_window_ms_max;
    let result = write(shard, name, Operation::Put { value: &value, lifetime }, options).await;
    let place = place_of(name);
    let present = history.borrow().model.get(&place).map_or(Stamp::ZERO, |entry| entry.stamp);
    match result {
        Ok(written) => {
            if let Some(stamp) = stamp
                && stamp < present
            {
                assert_eq!((written.effect, written.stamp), (Effect::Superseded, present));
                return;
            }
            assert_eq!(written.effect, Effect::Applied);
            assert!(written.stamp > present);
            let entry = Entry { value: Some(value), expiry_ms: written.expiry_ms, stamp: written.stamp };
            history.borrow_mut().model.insert(place, entry);
        }
        Err(Error::StampTooOld { .. }) => {
            let stamp = stamp.expect("only a proposed stamp can be too old");
            assert!(stamp.millis() + window_ms < shard.clock_ms() + 1);
        }
        Err(error) => panic!("put {name:?}: {error}"),
    }
    if durability == Durability::Buffered {
        write(shard, &(9, b"fence".to_vec()), Operation::Delete, WriteOptions::default()).await.unwrap();
    }
}

async fn conditional(shard: &Shard<SimEnv, Teller>, history: &Rc<RefCell<History>>, name: &Name) {
    let place = place_of(name);
    let before_ms = shard.clock_ms();
    let (condition, value, delete) = {
        let state = &mut *history.borrow_mut();
        let present = state.model.get(&place).map_or(Stamp::ZERO, |entry| entry.stamp);
        let condition = match state.random.below(4) {
            0 => Condition::Absent,
            1 => Condition::Present,
            2 => Condition::VersionIs(present),
            _ => Condition::VersionIs(Stamp { origin: Origin(77), ..present }),
        };
        (condition, draw_value(&mut state.random), state.random.one_in(3))
    };
    let lifetime = Lifetime::Forever;
    let operation = if delete {
        Operation::DeleteIf { condition }
    } else {
        Operation::PutIf { condition, value: &value, lifetime }
    };
    let written = write(shard, name, operation, WriteOptions::default()).await.unwrap();
    let after_ms = shard.clock_ms();
    let mut state = history.borrow_mut();
    let current = state.model.get(&place).cloned();
    let holds_at = |now_ms| {
        condition.holds(current.as_ref().filter(|entry| entry.is_visible(now_ms)).map(|entry| entry.stamp))
    };
    let applied = written.effect == Effect::Applied;
    assert!(
        holds_at(before_ms) == applied || holds_at(after_ms) == applied,
        "{name:?} {condition:?} {written:?}"
    );
    if applied {
        let value = (!delete).then_some(value);
        state.model.insert(place, Entry { value, expiry_ms: 0, stamp: written.stamp });
    } else {
        assert_eq!(written.effect, Effect::ConditionFailed);
    }
}

async fn update(shard: &Shard<SimEnv, Teller>, history: &Rc<RefCell<History>>, name: &Name) {
    let place = place_of(name);
    let choice = history.borrow_mut().random.below(4);
    let bytes = draw_value(&mut history.borrow_mut().random);
    let bytes = &bytes[..bytes.len().min(100)];
    let operation = match choice {
        0 => Update::Add(bytes.len() as i64 - 50),
        1 => Update::Append(bytes),
        2 => Update::SetRange { offset: bytes.len() as u32, bytes },
        _ => Update::SetExpiry(Lifetime::Millis(700)),
    };
    let before_ms = shard.clock_ms();
    let result = write(shard, name, Operation::Update(operation), WriteOptions::default()).await;
    let after_ms = shard.clock_ms();
    let old = history.borrow().model.get(&place).cloned();
    let candidates: Vec<Option<Entry>> =
        [before_ms, after_ms].iter().map(|now| old.clone().filter(|entry| entry.is_visible(*now))).collect();
    let matches = candidates.iter().any(|current| {
        let present = current.as_ref().and_then(|entry| entry.value.clone()).unwrap_or_default();
        let kept = current.as_ref().map_or(0, |entry| entry.expiry_ms);
        let new = match operation {
            Update::Add(operand) => {
                let number = match current {
                    None => Some(0),
                    Some(_) => std::str::from_utf8(&present).ok().and_then(|text| {
                        text.parse::<i64>().ok().filter(|number| number.to_string() == text)
                    }),
                };
                number
                    .and_then(|number| number.checked_add(operand))
                    .map(|sum| (sum.to_string().into_bytes(), kept))
            }
            Update::Append(bytes) => Some(([&present[..], bytes].concat(), kept)),
            Update::SetRange { offset, bytes } => {
                let mut value = present.clone();
                if !bytes.is_empty() {
                    let end = offset as usize + bytes.len();
                    value.resize(value.len().max(end), 0);
                    value[offset as usize..end].copy_from_slice(bytes);
                }
                Some((value, kept))
            }
            Update::SetExpiry(lifetime) => current.as_ref().map(|_| {
                let stamp = result.as_ref().map_or(Stamp::ZERO, |written| written.stamp);
                (present.clone(), lifetime.expiry_ms(stamp, kept))
            }),
        };
        match (&result, new) {
            (Ok(written), Some((value, expiry_ms))) if written.effect == Effect::Applied => {
                assert_eq!(written.expiry_ms, expiry_ms);
                let entry = Entry { value: Some(value), expiry_ms, stamp: written.stamp };
                history.borrow_mut().model.insert(place.clone(), entry);
                true
            }
            (Ok(written), None) => written.effect == Effect::ConditionFailed,
            (Err(Error::BadOperation(_)), None) => true,
            (Err(Error::TooLarge { .. }), Some((value, _))) => value.len() > 16 << 10,
            _ => false,
        }
    });
    assert!(matches, "{name:?} {operation:?} {result:?} on {old:?}");
}

async fn batch(shard: &Shard<SimEnv, Teller>, history: &Rc<RefCell<History>>) {
    let elements: Vec<(Name, Option<Vec<u8>>)> = {
        let random = &mut history.borrow_mut().random;
        (0..random.between(1, 12))
            .map(|_| (draw_key(random), (!random.one_in(4)).then(|| draw_value(random))))
            .collect()
    };
    let operations: Vec<BatchOperation<'_>> = elements
        .iter()
        .map(|(name, value)| BatchOperation {
            key: key_of(name),
            value: value.as_deref(),
            lifetime: Lifetime::Forever,
        })
        .collect();
    let written = loop {
        let (teller, answer) = answer();
        shard.write_batch(&operations, WriteOptions::default(), teller);
        match answer.await {
            Err(Error::Overloaded { .. }) => shard.settle().await.unwrap(),
            result => break result.unwrap(),
        }
    };
    assert_eq!(written.effect, Effect::Applied);
    assert!(written.superseded.is_empty());
    for (name, value) in &elements {
        let entry = Entry { value: value.clone(), expiry_ms: 0, stamp: written.stamp };
        history.borrow_mut().model.insert(place_of(name), entry);
    }
}
