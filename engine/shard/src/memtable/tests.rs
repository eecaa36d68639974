//! The memtable against `BTreeMap`, and its accounting.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::key::{NamespaceId, OwnedPosition, Partition};
use crate::record::RecordKind;
use crate::stamp::{HybridTime, Origin};

/// An owned record to compare with.
type Model = BTreeMap<OwnedPosition, Vec<(u64, RecordKind, Stamp, Vec<u8>)>>;

#[derive(Debug, Clone)]
struct Write {
    partition: u16,
    namespace: u32,
    user: Vec<u8>,
    time: u64,
    value: Option<Vec<u8>>,
    published: bool,
}

/// Keys that collide often, share long prefixes, contain zeros and differ in length only.
fn user() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(0_u8..3, 1..6),
        (0_u32..400).prop_map(|n| format!("user:profile:{n:06}").into_bytes()),
        (0_u32..400).prop_map(|n| format!("user:{n}").into_bytes()),
        (1_usize..80).prop_map(|length| vec![0; length]),
        (1_usize..80).prop_map(|length| vec![b'u'; length]),
        proptest::collection::vec(any::<u8>(), 1..20),
    ]
}

fn write() -> impl Strategy<Value = Write> {
    let value = proptest::option::weighted(0.8, proptest::collection::vec(any::<u8>(), 0..40));
    (0_u16..3, 0_u32..2, user(), 0_u64..50, value, proptest::bool::weighted(0.9)).prop_map(
        |(partition, namespace, user, time, value, published)| Write {
            partition,
            namespace,
            user,
            time,
            value,
            published,
        },
    )
}

impl Write {
    fn key(&self) -> Key<'_> {
        Key::placed(Partition(self.partition), NamespaceId(self.namespace), &self.user)
    }

    fn record(&self) -> RecordView<'_> {
        RecordView {
            kind: if self.value.is_some() { RecordKind::Value } else { RecordKind::Tombstone },
            stamp: Stamp { time: HybridTime(self.time), origin: Origin(7) },
            expiry_ms: self.time * 3,
            value: self.value.as_deref().unwrap_or_default(),
        }
    }

    fn apply(&self, memtable: &mut Memtable, model: &mut Model, sequence: u64) {
        let entry = memtable.stage(&self.key(), &self.record());
        assert_eq!(memtable.resolve(entry), (self.key().position(), self.record()));
        if !self.published {
            memtable.abandon(entry);
            return;
        }
        let record = self.record();
        let versions = model.entry(self.key().position().to_owned()).or_default();
        let expected = match versions.last() {
            None => Published::Inserted,
            Some((_, kind, stamp, value)) => {
                let old = RecordView { kind: *kind, stamp: *stamp, expiry_ms: 0, value };
                if record.supersedes(&old) { Published::Replaced } else { Published::Superseded }
            }
        };
        if expected != Published::Superseded {
            versions.push((sequence, record.kind, record.stamp, record.value.to_vec()));
        }
        assert_eq!(memtable.publish(entry, sequence), expected);
    }
}

fn owned(record: &RecordView<'_>) -> (RecordKind, Stamp, Vec<u8>) {
    (record.kind, record.stamp, record.value.to_vec())
}

fn newest(versions: &[(u64, RecordKind, Stamp, Vec<u8>)], at: u64) -> Option<(RecordKind, Stamp, Vec<u8>)> {
    let version = versions.iter().rev().find(|version| version.0 <= at)?;
    Some((version.1, version.2, version.3.clone()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn it_holds_what_a_map_holds(writes in proptest::collection::vec(write(), 1..900), probe in write()) {
        let mut memtable = Memtable::new(1 << 20);
        let mut model = Model::new();
        for (at, write) in writes.iter().enumerate() {
            write.apply(&mut memtable, &mut model, at as u64);
        }
        prop_assert_eq!(memtable.records(), model.len());
        prop_assert_eq!(memtable.pending(), 0);
        for write in writes.iter().chain([&probe]) {
            let versions = model.get(&write.key().position().to_owned());
            let found = memtable.get(&write.key()).as_ref().map(owned);
            prop_assert_eq!(found, versions.and_then(|versions| newest(versions, u64::MAX)));
            for at in [0, writes.len() as u64 / 2] {
                let found = memtable.get_at(&write.key(), at).as_ref().map(owned);
                prop_assert_eq!(found, versions.and_then(|versions| newest(versions, at)));
            }
        }

        let mut cursor = MemtableCursor::new();
        cursor.seek_first(&memtable);
        for (position, versions) in &model {
            let (found, record) = cursor.current(&memtable).expect("as many as in the model");
            prop_assert_eq!(found, position.borrow());
            prop_assert_eq!(Some(owned(&record)), newest(versions, u64::MAX));
            let half = writes.len() as u64 / 2;
            let (_, record) = cursor.current_at(&memtable, half).expect("it stands on a key");
            prop_assert_eq!(record.as_ref().map(owned), newest(versions, half));
            cursor.next(&memtable);
        }
        prop_assert!(cursor.current(&memtable).is_none());
        cursor.seek_last(&memtable);
        for position in model.keys().rev() {
            prop_assert_eq!(cursor.current(&memtable).expect("as many as in the model").0, position.borrow());
            cursor.previous(&memtable);
        }
        prop_assert!(cursor.current(&memtable).is_none());
    }

    #[test]
    fn cursors_survive_publishing(
        steps in proptest::collection::vec((write(), 0_u8..8, write()), 1..500),
    ) {
        let mut memtable = Memtable::new(1 << 20);
        let mut model = Model::new();
        let mut cursor = MemtableCursor::new();
        let mut stands: Option<OwnedPosition> = None;
        for (at, (write, step, target)) in steps.iter().enumerate() {
            write.apply(&mut memtable, &mut model, at as u64);
            let goal = target.key().position().to_owned();
            stands = match *step {
                0 => {
                    cursor.seek(&memtable, &goal.borrow());
                    model.range(goal..).next().map(|(position, _)| position.clone())
                }
                1 => {
                    cursor.seek_before(&memtable, &goal.borrow());
                    model.range(..goal).next_back().map(|(position, _)| position.clone())
                }
                2 => {
                    cursor.seek_first(&memtable);
                    model.keys().next().cloned()
                }
                3 => {
                    cursor.seek_last(&memtable);
                    model.keys().next_back().cloned()
                }
                4 | 5 => {
                    cursor.next(&memtable);
                    let after = |position| (std::ops::Bound::Excluded(position), std::ops::Bound::Unbounded);
                    stands.and_then(|position| model.range(after(position)).next()).map(|(key, _)| key.clone())
                }
                _ => {
                    cursor.previous(&memtable);
                    stands.and_then(|position| model.range(..position).next_back()).map(|(key, _)| key.clone())
                }
            };
            let found = cursor.current(&memtable).map(|(position, _)| position.to_owned());
            prop_assert_eq!(&found, &stands);
        }
    }

    #[test]
    fn room_is_never_promised_in_vain(
        writes in proptest::collection::vec((write(), 0_usize..6000), 1..600),
        bytes_max in 60_000_usize..400_000,
    ) {
        let mut memtable = Memtable::new(bytes_max);
        for (mut write, length) in writes {
            write.value = Some(vec![1; length]);
            if !memtable.has_room(1, write.user.len() + length) {
                prop_assert!(memtable.memory_bytes() * 2 > bytes_max, "refused when half empty");
                return Ok(());
            }
            let entry = memtable.stage(&write.key(), &write.record());
            memtable.publish(entry, 1);
            prop_assert!(memtable.memory_bytes() <= bytes_max);
        }
    }
}

#[test]
fn keys_in_order_and_in_reverse_fill_many_leaves() {
    for reverse in [false, true] {
        let mut memtable = Memtable::new(8 << 20);
        let count = 20_000_u32;
        for number in 0..count {
            let number = if reverse { count - 1 - number } else { number };
            let user = format!("a rather long shared prefix of keys, longer than is skipped:{number:08}");
            let write = Write {
                partition: 5,
                namespace: 0,
                user: user.into_bytes(),
                time: 1,
                value: Some(Vec::new()),
                published: true,
            };
            write.apply(&mut memtable, &mut Model::new(), 0);
        }
        let mut cursor = MemtableCursor::new();
        cursor.seek_first(&memtable);
        for number in 0..count {
            let (position, _) = cursor.current(&memtable).unwrap();
            assert!(position.user.ends_with(format!("{number:08}").as_bytes()));
            cursor.next(&memtable);
        }
        assert!(cursor.current(&memtable).is_none());
    }
}

#[test]
fn leaves_whose_keys_begin_alike_are_told_apart() {
    // Around what the upper level holds of a key, and what a leaf may skip.
    for shared in [0, 8, 10, 12, 38, 40, 42, 44, 60] {
        let mut memtable = Memtable::new(8 << 20);
        let mut users = std::collections::BTreeSet::new();
        for number in 0..4_000_u32 {
            // In no order, of different lengths, some with zeros at their end.
            let number = number.wrapping_mul(2_654_435_761) >> 8;
            let mut user = vec![b'k'; shared];
            user.extend_from_slice(&number.to_be_bytes()[..1 + number as usize % 4]);
            let partition = (number % 2) as u16;
            if !users.insert((partition, user.clone())) {
                continue;
            }
            let write =
                Write { partition, namespace: 0, user, time: 1, value: Some(Vec::new()), published: true };
            write.apply(&mut memtable, &mut Model::new(), 0);
        }
        assert!(users.len() > 1_000, "many leaves");
        let mut cursor = MemtableCursor::new();
        cursor.seek_first(&memtable);
        for (partition, user) in &users {
            let (position, _) = cursor.current(&memtable).unwrap();
            assert_eq!(
                (position.partition.0, position.user),
                (*partition, &user[..]),
                "{shared} bytes shared"
            );
            cursor.next(&memtable);
        }
        assert!(cursor.current(&memtable).is_none());
        for (partition, user) in &users {
            let key = Key::placed(Partition(*partition), NamespaceId(0), user);
            cursor.seek(&memtable, &key.position());
            assert_eq!(cursor.current(&memtable).unwrap().0, key.position(), "{shared} bytes shared");
        }
    }
}

#[test]
fn staged_records_are_invisible_and_counted() {
    let mut memtable = Memtable::new(1 << 20);
    assert!(memtable.is_empty() && memtable.memory_bytes() == 0);
    let key = Key::new(NamespaceId(0), b"key", 64);
    let record = |time, value| RecordView {
        kind: RecordKind::Value,
        stamp: Stamp { time: HybridTime(time), origin: Origin(1) },
        expiry_ms: 0,
        value,
    };
    let first = memtable.stage(&key, &record(3, b"first"));
    let second = memtable.stage(&key, &record(5, b"second"));
    let third = memtable.stage(&key, &record(4, b"third"));
    assert_eq!(memtable.get(&key), None);
    assert_eq!((memtable.pending(), memtable.records()), (3, 0));
    assert_eq!(memtable.publish(first, 10), Published::Inserted);
    assert_eq!(memtable.get(&key).unwrap().value, b"first");
    assert_eq!(memtable.publish(second, 20), Published::Replaced);
    assert_eq!(memtable.publish(third, 30), Published::Superseded);
    assert_eq!(memtable.get(&key).unwrap().value, b"second");
    assert_eq!(memtable.get_at(&key, 19).unwrap().value, b"first");
    assert_eq!(memtable.get_at(&key, 9), None);
    assert_eq!((memtable.pending(), memtable.records()), (0, 1));
    assert_eq!(memtable.stamp_max().time, HybridTime(5));
    assert_eq!(memtable.stamp_min().unwrap().time, HybridTime(3));
    let mut remains = memtable.dismantle();
    while remains.free_some() {}
}

#[test]
#[should_panic(expected = "published or abandoned once")]
fn an_entry_is_published_once() {
    let mut memtable = Memtable::new(1 << 20);
    let write = Write { partition: 0, namespace: 0, user: vec![1], time: 0, value: None, published: true };
    let entry = memtable.stage(&write.key(), &write.record());
    memtable.publish(entry, 1);
    memtable.abandon(entry);
}

#[test]
fn the_index_grows_into_slots_made_elsewhere() {
    fn key(name: &str) -> Key<'_> {
        Key::new(NamespaceId(0), name.as_bytes(), 64)
    }
    let mut memtable = Memtable::new(64 << 20);
    let record = RecordView {
        kind: RecordKind::Value,
        stamp: Stamp { time: HybridTime(1), origin: Origin(1) },
        expiry_ms: 0,
        value: b"value",
    };
    let names: Vec<String> = (0..60_000).map(|number| format!("{number:08}")).collect();
    let mut given = Vec::new();
    for name in &names {
        let entry = memtable.stage(&key(name), &record);
        assert_eq!(memtable.publish(entry, 1), Published::Inserted);
        if let Some(slots) = memtable.slots_wanted() {
            given.push(slots);
            let before = memtable.memory_bytes();
            memtable.give_slots(IndexSlots::new(slots));
            assert_eq!(memtable.memory_bytes(), before + slots * 8);
            // Once more, or of another size: not taken.
            memtable.give_slots(IndexSlots::new(slots));
            memtable.give_slots(IndexSlots::new(slots / 2));
            assert_eq!(memtable.memory_bytes(), before + slots * 8);
        }
    }
    assert_eq!(given, [32 << 10, 64 << 10, 128 << 10]);
    assert!(names.iter().all(|name| memtable.get(&key(name)).is_some()));
    assert_eq!(memtable.get(&key("missing")), None);
}

#[test]
fn looking_ahead_changes_nothing_and_an_index_that_grew_settles() {
    let mut memtable = Memtable::new(64 << 20);
    let names: Vec<String> = (0..50_000).map(|number| format!("{number:08}")).collect();
    let key = |name: &'static str| Key::new(NamespaceId(0), name.as_bytes(), 64);
    let missing = key("missing").hash;
    memtable.look_ahead(missing);
    assert_eq!(memtable.look_ahead_header(missing), None);
    let stamp = |time| Stamp { time: HybridTime(time), origin: Origin(1) };
    let mut entries = Vec::new();
    for (time, value) in [(1, &[1; 700][..]), (2, b"newer")] {
        for name in &names {
            let key = Key::new(NamespaceId(0), name.as_bytes(), 64);
            let record = RecordView { kind: RecordKind::Value, stamp: stamp(time), expiry_ms: 0, value };
            let entry = memtable.stage(&key, &record);
            memtable.prefetch_to_publish(entry, key.hash);
            memtable.look_ahead_to_publish(&[(entry, key.hash)]);
            memtable.publish(entry, time);
            entries.push((entry, key.hash));
        }
        if time == 1 {
            // 50,000 of 65,536 slots: it has just grown, and no insert comes any more.
            let grown = memtable.memory_bytes();
            let steps = (1..).find(|_| !memtable.settle_index(4096)).unwrap();
            assert!((2..=16).contains(&steps), "{steps} steps");
            assert!(memtable.memory_bytes() < grown, "the old slots are gone");
        }
    }
    assert!(!memtable.settle_index(4096));
    for group in entries.chunks(LOOK_AHEAD_MAX) {
        let hashes: Vec<u64> = group.iter().map(|(_, hash)| *hash).chain([missing]).collect();
        hashes.iter().for_each(|hash| memtable.look_ahead(*hash));
        let roots: Vec<_> = hashes.iter().map(|hash| memtable.look_ahead_header(*hash)).collect();
        roots.into_iter().flatten().for_each(|root| memtable.look_ahead_record(root));
    }
    let mut by_root = 0;
    for name in &names {
        let key = Key::new(NamespaceId(0), name.as_bytes(), 64);
        let root = memtable.look_ahead_header(key.hash).unwrap();
        let found = memtable.get(&key).unwrap();
        assert_eq!((found.value, found.stamp), (&b"newer"[..], stamp(2)));
        if let Some(record) = memtable.get_by_root(root, &key) {
            assert_eq!(record, found);
            by_root += 1;
        }
        let other = Key { user: b"another", ..key };
        assert_eq!(memtable.get_by_root(root, &other), None);
    }
    // Of so many keys hardly two have the same 32 bits of hash.
    assert!(by_root >= names.len() - 10, "{by_root} of {}", names.len());
}

#[test]
fn what_is_left_may_leave_the_core() {
    fn sendable<T: Send>() {}
    sendable::<Remains>();
}
