//! Whole tables: written, read, damaged.

mod reading_ahead;

use std::io::ErrorKind;
use std::path::Path;
use std::rc::Rc;

use proptest::prelude::*;

use super::testing::{DIR, Owned, Records, identity, key_at, mixed, open, place, write};
use super::*;
use crate::cache::BlockCache;
use crate::error::{Error, Result};
use crate::key::{OwnedPosition, Position};
use crate::record::RecordView;
use crate::stamp::Stamp;
use crate::testing::{Op, TestEnv};

const SMALL: TableOptions = TableOptions {
    filter: FilterWidth::Sixteen,
    unit: Some(BlockUnit::Four),
    part_records_max: 40,
    write_bytes: WINDOW_BYTES,
};

fn cache() -> Rc<BlockCache> {
    Rc::new(BlockCache::new(1 << 20, 1))
}

async fn get(table: &Table<TestEnv>, position: &OwnedPosition, cache: &BlockCache) -> Result<Option<Owned>> {
    let key = key_at(position);
    let Some(handle) = table.locate(&key) else { return Ok(None) };
    let block = table.block(handle, cache).await?;
    let found = block.search(&key).map(|number| block.record(number));
    assert_eq!(found, block.find(&position.borrow()));
    Ok(found.map(|record| owned(&record)))
}

fn owned(record: &RecordView<'_>) -> Owned {
    Owned {
        kind: record.kind,
        stamp: record.stamp,
        expiry_ms: record.expiry_ms,
        value: record.value.to_vec(),
    }
}

fn at(cursor: &TableCursor<TestEnv>) -> Option<(OwnedPosition, Owned)> {
    cursor.current().map(|(position, record)| (position.to_owned(), owned(&record)))
}

fn pair<'a>((position, record): (&'a OwnedPosition, &'a Owned)) -> (OwnedPosition, Owned) {
    (position.clone(), record.clone())
}

/// Positions around the records: each one, and its neighbours that are not there.
fn probes(records: &Records) -> Vec<OwnedPosition> {
    let mut probes = vec![place(0, 0, b""), place(u16::MAX, u32::MAX, b"\xFF\xFF")];
    for position in records.keys() {
        let mut after = position.clone();
        after.user.push(0);
        let mut before = position.clone();
        before.user.pop();
        probes.extend([position.clone(), after, before]);
    }
    probes
}

async fn check_reads(env: &TestEnv, meta: &TableMeta, records: &Records) {
    let (table, cache) = (open(env, meta).await.unwrap(), cache());
    for position in probes(records) {
        assert_eq!(get(&table, &position, &cache).await.unwrap().as_ref(), records.get(&position));
    }
    for style in [ReadStyle::Cached(cache), ReadStyle::Sequential] {
        let mut cursor = TableCursor::new(table.clone(), style);
        cursor.seek_first().await.unwrap();
        for expected in records {
            assert_eq!(at(&cursor), Some(pair(expected)));
            cursor.next().await.unwrap();
        }
        assert_eq!(at(&cursor), None);
        cursor.next().await.unwrap();
        assert_eq!(at(&cursor), None);
        cursor.seek_last().await.unwrap();
        for expected in records.iter().rev() {
            assert_eq!(at(&cursor), Some(pair(expected)));
            cursor.previous().await.unwrap();
        }
        assert_eq!(at(&cursor), None);
        for probe in probes(records) {
            cursor.seek(&probe.borrow()).await.unwrap();
            assert_eq!(at(&cursor), records.range(probe.clone()..).next().map(pair));
            cursor.seek_last_before(&probe.borrow()).await.unwrap();
            assert_eq!(at(&cursor), records.range(..probe).next_back().map(pair));
        }
    }
    let report =
        verify_table(env, Path::new(DIR), meta.number, Some(meta.clone()), &identity()).await.unwrap();
    assert_eq!((report.records, report.bytes), (records.len() as u64, meta.file_bytes));
}

#[test]
fn a_table_answers_like_a_map() {
    let env = TestEnv::new(1);
    env.block_on(async {
        for (number, (count, value_bytes)) in
            [(1, 10), (2, 0), (500, 20), (700, 512), (30, 9_000)].iter().enumerate()
        {
            let records = mixed(*count, *value_bytes);
            let meta = write(&env, number as u64, &records, SMALL).await.unwrap();
            check_reads(&env, &meta, &records).await;
        }
    });
}

#[test]
fn tables_of_all_options_answer_alike() {
    let env = TestEnv::new(1);
    let (mut records, mut number) = (mixed(400, 300), 0);
    records.insert(place(2, 1, b"large"), Owned::value(9, &vec![1; 300_000]));
    records.insert(place(2, 1, &[b'k'; 4096]), Owned::value(9, b"long key"));
    env.block_on(async {
        for filter in [FilterWidth::Eight, FilterWidth::Sixteen] {
            for unit in [None, Some(BlockUnit::Four), Some(BlockUnit::Eight), Some(BlockUnit::Sixteen)] {
                for part_records_max in [1, 100, PART_RECORDS_MAX] {
                    number += 1;
                    let options = TableOptions { filter, unit, part_records_max, ..SMALL };
                    let meta = write(&env, number, &records, options).await.unwrap();
                    check_reads(&env, &meta, &records).await;
                }
            }
        }
    });
}

fn record() -> impl Strategy<Value = Owned> {
    (any::<bool>(), 1u64..1000, prop_oneof![Just(0), 1u64..9], prop_oneof![0usize..40, 0usize..6000])
        .prop_map(|(tombstone, time, expiry_ms, bytes)| {
            let value = Owned { expiry_ms, ..Owned::value(time, &vec![time as u8; bytes]) };
            if tombstone { Owned::tombstone(time) } else { value }
        })
}

fn position() -> impl Strategy<Value = OwnedPosition> {
    let namespace = prop_oneof![0u32..3, Just(254), Just(255), Just(u32::MAX)];
    let user = prop_oneof![
        prop::collection::vec(prop::sample::select(vec![0, b'a', b'b', 255]), 1..8),
        (0u32..500).prop_map(|number| format!("customer:{number:06}").into_bytes()),
    ];
    (0u16..3, namespace, user).prop_map(|(partition, namespace, user)| place(partition, namespace, &user))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_records_are_read_back(
        records in prop::collection::btree_map(position(), record(), 1..150),
        part_records_max in 1usize..60,
        unit in prop::sample::select(vec![None, Some(BlockUnit::Four), Some(BlockUnit::Sixteen)]),
    ) {
        let env = TestEnv::new(1);
        env.block_on(async {
            let options = TableOptions { unit, part_records_max, filter: FilterWidth::Eight, ..SMALL };
            let meta = write(&env, 1, &records, options).await.unwrap();
            check_reads(&env, &meta, &records).await;
        });
    }
}

#[test]
fn properties_are_those_of_the_records() {
    let env = TestEnv::new(1);
    let mut records = mixed(100, 10);
    records.retain(|_, record| record.expiry_ms > 0);
    let largest = records.values().map(|record| record.expiry_ms).max().unwrap();
    let meta = env.block_on(write(&env, 1, &records, SMALL)).unwrap();
    assert_eq!((meta.records, meta.tombstones, meta.expiring), (records.len() as u64, 0, meta.records));
    assert_eq!((meta.expiry_max_ms, meta.oldest_tombstone), (largest, Stamp::ZERO));
    assert_eq!((&meta.first, &meta.last), (records.keys().next().unwrap(), records.keys().last().unwrap()));
    let raw: usize = records.iter().map(|(position, record)| position.user.len() + record.value.len()).sum();
    assert_eq!(meta.raw_bytes, raw as u64);
    assert_eq!(meta.file_bytes, env.content(table_path(Path::new(DIR), 1)).len() as u64);

    records.insert(place(60, 0, b"gone"), Owned::tombstone(77));
    let meta = env.block_on(write(&env, 2, &records, SMALL)).unwrap();
    assert_eq!((meta.tombstones, meta.oldest_tombstone.time.0, meta.expiry_max_ms), (1, 77, largest));
}

#[test]
fn seven_common_records_fill_one_page_and_a_hit_is_one_read() {
    let env = TestEnv::new(1);
    let mut records = Records::new();
    for number in 0..700u32 {
        let record = Owned { expiry_ms: 1, ..Owned::value(1, &[7; 512]) };
        records.insert(place((number % 3) as u16, 0, format!("{number:032}").as_bytes()), record);
    }
    env.block_on(async {
        let meta = write(&env, 1, &records, TableOptions::default()).await.unwrap();
        let (table, cache) = (open(&env, &meta).await.unwrap(), cache());
        assert_eq!(table.data_pages(), 100);
        let before = env.count(Op::Read);
        for (reads, position) in records.keys().step_by(7).enumerate() {
            assert!(get(&table, position, &cache).await.unwrap().is_some());
            assert_eq!(env.count(Op::Read) - before, reads as u64 + 1);
        }
        // What is cached needs no read, what is absent neither.
        for position in probes(&records) {
            get(&table, &position, &cache).await.unwrap();
        }
        assert!(env.count(Op::Read) - before <= 101);
        let mut cursor = TableCursor::new(table.clone(), ReadStyle::Sequential);
        let before = env.count(Op::Read);
        cursor.seek_first().await.unwrap();
        while cursor.current().is_some() {
            cursor.next().await.unwrap();
        }
        assert_eq!(env.count(Op::Read) - before, 100usize.div_ceil(WINDOW_BYTES / 4096) as u64);
        assert!(table.resident_bytes() < 700 * 8);
    });
}

#[test]
#[should_panic(expected = "in order")]
fn records_out_of_order_are_never_written() {
    let env = TestEnv::new(1);
    env.block_on(async {
        pinion_env::create_dir_all(&env, Path::new(DIR)).await.unwrap();
        let mut writer = TableWriter::create(&env, Path::new(DIR), 1, &identity(), SMALL).await.unwrap();
        for user in [b"b", b"a"] {
            writer.add(&key_at(&place(1, 1, user)), &Owned::value(1, b"").view());
        }
    });
}

#[test]
fn failing_writes_are_reported_and_leave_no_table() {
    let env = TestEnv::new(1);
    let records = mixed(2000, 200);
    let dir = Path::new(DIR);
    env.block_on(async {
        for (number, (op, kind)) in [
            (Op::Open, ErrorKind::PermissionDenied),
            (Op::Write, ErrorKind::Other),
            (Op::Sync, ErrorKind::Other),
        ]
        .into_iter()
        .enumerate()
        {
            env.fail(op, ".table", 0, 1, kind);
            let failed = write(&env, number as u64, &records, SMALL).await.unwrap_err();
            assert!(matches!(failed, Error::StorageFailed(_)), "{failed}");
        }
        env.set_capacity(200_000);
        assert!(matches!(write(&env, 9, &records, SMALL).await.unwrap_err(), Error::DiskFull));
        env.set_capacity(1 << 30);
        let mut writer = TableWriter::create(&env, dir, 10, &identity(), SMALL).await.unwrap();
        writer.add(&key_at(&place(1, 1, b"a")), &Owned::value(1, b"").view());
        writer.abandon().await.unwrap();
        assert!(!env.names(DIR).contains(&"000000000000000a.table".to_owned()));
        let meta = write(&env, 11, &records, SMALL).await.unwrap();
        env.fail(Op::Read, ".table", 0, 1, ErrorKind::Other);
        assert!(matches!(open(&env, &meta).await.err(), Some(Error::Io { .. })));
        assert!(open(&env, &meta).await.is_ok());
    });
}

#[test]
fn a_table_opens_only_as_what_it_is() {
    let env = TestEnv::new(1);
    let dir = Path::new(DIR);
    env.block_on(async {
        let meta = write(&env, 1, &mixed(50, 10), SMALL).await.unwrap();
        let path = table_path(dir, 1);
        let other = crate::Identity { shard: 3, ..identity() };
        assert!(Table::open(&env, dir, meta.clone(), &other).await.is_err());
        let more = TableMeta { records: meta.records + 1, ..meta.clone() };
        assert!(open(&env, &more).await.is_err());
        env.put(table_path(dir, 2), &env.content(&path));
        assert!(matches!(Table::open_number(&env, dir, 2, &identity()).await.err(), Some(Error::Damaged(_))));
        for bytes in [0, 1, 4096, meta.file_bytes - 4096, meta.file_bytes - 1] {
            let copy = env.fork();
            copy.truncate(&path, bytes);
            assert!(matches!(open(&copy, &meta).await.err(), Some(Error::Damaged(_))), "{bytes}");
        }
        assert!(matches!(Table::open_number(&env, dir, 9, &identity()).await.err(), Some(Error::Io { .. })));
    });
}

/// Every flipped byte is found by a verification, and no read of a flipped table answers wrongly.
#[test]
fn every_flipped_byte_is_detected() {
    let env = TestEnv::new(1);
    let records = mixed(60, 90);
    let meta = env.block_on(write(&env, 1, &records, SMALL)).unwrap();
    let path = table_path(Path::new(DIR), 1);
    let content = env.content(&path);
    let (mut opened, mut failed) = (0, 0);
    for offset in 0..meta.file_bytes {
        // In padding one byte is like another.
        if content[offset as usize] == 0 && offset % 61 != 0 {
            continue;
        }
        env.flip(&path, offset, 0x10);
        env.block_on(async {
            let verified = verify_table(&env, Path::new(DIR), 1, Some(meta.clone()), &identity()).await;
            let Err(Error::Damaged(damage)) = verified else { panic!("byte {offset}: {verified:?}") };
            assert!(damage.file == path && damage.offset <= meta.file_bytes);
            let Ok(table) = open(&env, &meta).await else { return };
            opened += 1;
            let cache = cache();
            for (position, record) in records.iter().step_by(5) {
                match get(&table, position, &cache).await {
                    Ok(found) => assert_eq!(found.as_ref(), Some(record), "byte {offset}"),
                    Err(Error::Damaged(_)) => failed += 1,
                    Err(error) => panic!("byte {offset}: {error}"),
                }
            }
        });
        env.flip(&path, offset, 0x10);
    }
    assert!(opened > 1000 && failed > 1000, "{opened} and {failed}");
}

#[test]
fn a_block_written_to_the_wrong_place_is_detected() {
    let env = TestEnv::new(1);
    let records = mixed(200, 100);
    let path = table_path(Path::new(DIR), 1);
    env.block_on(async {
        let meta = write(&env, 1, &records, SMALL).await.unwrap();
        let mut content = env.content(&path);
        content.copy_within(4096..8192, 8192);
        env.put(&path, &content);
        let table = open(&env, &meta).await.unwrap();
        let misdirected = table.block(BlockHandle { page: 2, pages: 1 }, &cache()).await;
        let Err(Error::Damaged(damage)) = misdirected else { panic!("a block of page 1 at page 2") };
        assert_eq!((damage.what, damage.offset), ("page of a block", 8192 + 16));
        let mut cursor = TableCursor::new(table.clone(), ReadStyle::Sequential);
        let mut steps = cursor.seek_first().await;
        while steps.is_ok() && cursor.current().is_some() {
            steps = cursor.next().await;
        }
        assert!(matches!(steps, Err(Error::Damaged(_))) && cursor.current().is_none());
    });
}

#[test]
fn the_golden_table_is_written_byte_for_byte() {
    let env = TestEnv::new(1);
    let meta = env.block_on(write(&env, 0x21, &golden_records(), GOLDEN_OPTIONS)).unwrap();
    let content = env.content(table_path(Path::new(DIR), 0x21));
    let golden = include_bytes!("../../golden/table-1.table");
    assert!(content == golden, "the table format changed: bump its version and add a golden file");
    let mut encoded = Vec::new();
    meta.encode(&mut encoded);
    assert_eq!(encoded, include_bytes!("../../golden/table-1.meta"));
}

#[test]
fn the_golden_table_is_read_back() {
    let env = TestEnv::new(1);
    env.block_on(async {
        pinion_env::create_dir_all(&env, Path::new(DIR)).await.unwrap();
        env.put(table_path(Path::new(DIR), 0x21), include_bytes!("../../golden/table-1.table"));
        let meta = include_bytes!("../../golden/table-1.meta");
        let meta = TableMeta::decode(&mut crate::codec::Decoder::new(meta)).unwrap();
        check_reads(&env, &meta, &golden_records()).await;
    });
}

const GOLDEN_OPTIONS: TableOptions =
    TableOptions { filter: FilterWidth::Eight, unit: None, part_records_max: 20, write_bytes: 8 << 10 };

fn golden_records() -> Records {
    let mut records = mixed(30, 30);
    records.insert(place(4, 0, b"a value of two pages"), Owned::value(5, &[0xAB; 5000]));
    records.insert(place(4, 300, b"\0\0"), Owned::value(6, b"a namespace of five bytes"));
    records
}

/// Writes the golden files anew: `cargo test -p pinion-engine golden -- --ignored`.
#[test]
#[ignore = "writes into the source tree"]
#[expect(clippy::disallowed_methods, reason = "golden files are made by hand, outside of any world")]
fn make_golden_files() {
    let env = TestEnv::new(1);
    let meta = env.block_on(write(&env, 0x21, &golden_records(), GOLDEN_OPTIONS)).unwrap();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("table-1.table"), env.content(table_path(Path::new(DIR), 0x21))).unwrap();
    let mut encoded = Vec::new();
    meta.encode(&mut encoded);
    std::fs::write(dir.join("table-1.meta"), encoded).unwrap();
}

#[test]
fn names_of_table_files() {
    let path = table_path(Path::new("/x"), 0xAB);
    assert_eq!(path, Path::new("/x/00000000000000ab.table"));
    assert_eq!(table_number("00000000000000ab.table"), Some(0xAB));
    for other in ["ab.table", "00000000000000AB.table", "00000000000000ab.tmp", "+0000000000000ab.table", ""]
    {
        assert_eq!(table_number(other), None);
    }
}

#[test]
fn positions_outside_of_a_table_are_not_looked_for() {
    let env = TestEnv::new(1);
    env.block_on(async {
        let records = mixed(50, 10);
        let meta = write(&env, 1, &records, SMALL).await.unwrap();
        let table = open(&env, &meta).await.unwrap();
        let user: &[u8] = b"zzz";
        let beyond = Position { user, ..meta.last.borrow() };
        let mut cursor = TableCursor::new(table.clone(), ReadStyle::Sequential);
        let before = env.count(Op::Read);
        cursor.seek(&beyond).await.unwrap();
        cursor.seek_last_before(&meta.first.borrow()).await.unwrap();
        assert!(cursor.current().is_none() && env.count(Op::Read) == before);
    });
}
