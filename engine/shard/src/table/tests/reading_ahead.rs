//! What scans read of a table, and when.

use super::*;
use crate::cache::Admission;

const BLOCKS: usize = 100;
const PER_BLOCK: usize = 7;

/// A table of a hundred blocks of one page with seven records each.
async fn hundred_blocks(env: &TestEnv) -> (Rc<Table<TestEnv>>, Vec<OwnedPosition>) {
    let mut records = Records::new();
    for number in 0..BLOCKS * PER_BLOCK {
        let record = Owned { expiry_ms: 1, ..Owned::value(1, &[7; 512]) };
        records.insert(place(1, 0, format!("{number:032}").as_bytes()), record);
    }
    let meta = write(env, 1, &records, TableOptions::default()).await.unwrap();
    let table = open(env, &meta).await.unwrap();
    assert_eq!(table.data_pages() as usize, BLOCKS);
    (table, records.into_keys().collect())
}

/// Takes up to `count` records from a block's first one on (in reverse: from its last one back).
async fn walk(
    cursor: &mut TableCursor<TestEnv>,
    positions: &[OwnedPosition],
    block: usize,
    count: usize,
    reverse: bool,
) -> (usize, Result<()>) {
    let mut ended = if reverse {
        let mut behind = positions[block * PER_BLOCK + PER_BLOCK - 1].clone();
        behind.user.push(0);
        cursor.seek_last_before(&behind.borrow()).await
    } else {
        cursor.seek(&positions[block * PER_BLOCK].borrow()).await
    };
    let mut taken = 0;
    while ended.is_ok() && taken < count && cursor.current().is_some() {
        let expected = if reverse { (block + 1) * PER_BLOCK - 1 - taken } else { block * PER_BLOCK + taken };
        assert_eq!(cursor.current().unwrap().0, positions[expected].borrow());
        taken += 1;
        if taken < count {
            ended = if reverse { cursor.previous().await } else { cursor.next().await };
        }
    }
    (taken, ended)
}

/// Reads and their pages for fifty records from block 40 on, if so many are expected up to `stop`.
fn cost(expected: u64, stop: usize, reverse: bool, warm: &[usize]) -> (u64, u64) {
    let env = TestEnv::new(1);
    env.block_on(async {
        let (table, positions) = hundred_blocks(&env).await;
        let cache = cache();
        for block in warm {
            get(&table, &positions[block * PER_BLOCK], &cache).await.unwrap().unwrap();
        }
        let (before, stats) = (env.count(Op::Read), cache.stats());
        let mut cursor = TableCursor::new(Rc::clone(&table), ReadStyle::Cached(Rc::clone(&cache)));
        cursor.expect(expected, &positions[stop].borrow());
        let (taken, ended) = walk(&mut cursor, &positions, 40, 50, reverse).await;
        ended.unwrap();
        assert_eq!(taken, 50);
        let reads = cache.stats().scan_reads - stats.scan_reads;
        assert_eq!(reads, env.count(Op::Read) - before);
        (reads, (cache.stats().scan_read_bytes - stats.scan_read_bytes) / PAGE_BYTES as u64)
    })
}

#[test]
fn what_is_expected_is_read_at_once() {
    let last = BLOCKS * PER_BLOCK - 1;
    for (reverse, stop) in [(false, last), (true, 0)] {
        // Eight blocks are needed; one more comes along, because shares vary.
        assert_eq!(cost(50, stop, reverse, &[]), (1, 9), "{reverse}");
        // Without an expectation reads grow: 1, 1, 1, 2 and 3 blocks.
        assert_eq!(cost(1, stop, reverse, &[]), (5, 8), "{reverse}");
        // No more than 64 KiB at once.
        assert_eq!(cost(10_000, stop, reverse, &[]), (1, 16), "{reverse}");
    }
}

#[test]
fn reading_ahead_ends_with_the_range_and_before_what_is_cached() {
    assert_eq!(cost(50, 42 * PER_BLOCK, false, &[]).1, 8);
    assert_eq!(cost(10_000, 47 * PER_BLOCK, false, &[]), (1, 8));
    assert_eq!(cost(10_000, 33 * PER_BLOCK, true, &[]), (1, 8));
    // Behind the first block all is in memory; between cold ones a cached block is read over.
    let last = BLOCKS * PER_BLOCK - 1;
    assert_eq!(cost(50, last, false, &[41, 42, 43, 44, 45, 46, 47, 48]), (1, 1));
    assert_eq!(cost(50, last, false, &[41, 42, 44, 46, 47, 48]), (1, 6));
    assert_eq!(cost(50, 0, true, &[39, 38, 36, 34, 33, 32]), (1, 6));
    // From memory on into the cold.
    assert_eq!(cost(50, last, false, &[40, 41]), (1, 7));
}

#[test]
fn one_record_costs_one_block() {
    let env = TestEnv::new(1);
    env.block_on(async {
        let (table, positions) = hundred_blocks(&env).await;
        for reverse in [false, true] {
            let cache = cache();
            let mut cursor = TableCursor::new(Rc::clone(&table), ReadStyle::Cached(Rc::clone(&cache)));
            cursor.expect(1, &positions[if reverse { 0 } else { 699 }].borrow());
            assert_eq!(walk(&mut cursor, &positions, 3, 1, reverse).await.0, 1);
            let stats = cache.stats();
            assert_eq!((stats.scan_reads, stats.scan_read_bytes), (1, PAGE_BYTES as u64));
        }
    });
}

#[test]
fn a_scan_that_reads_ahead_answers_like_a_map() {
    let env = TestEnv::new(1);
    let mut records = mixed(500, 300);
    records.insert(place(2, 1, b"key:large"), Owned::value(9, &vec![1; 300_000]));
    records.insert(place(3, 1, b"key:two pages"), Owned::value(9, &vec![1; 30_000]));
    env.block_on(async {
        let meta = write(&env, 1, &records, SMALL).await.unwrap();
        let table = open(&env, &meta).await.unwrap();
        let first = records.keys().next().unwrap().borrow();
        let last = records.keys().last().unwrap().borrow();
        for expected in [1, 2, 30, 100_000] {
            for cache_bytes in [0, 40 << 10, 1 << 20] {
                let cache = Rc::new(BlockCache::new(cache_bytes, 1));
                for probe in probes(&records).iter().step_by(37) {
                    let style = ReadStyle::Cached(Rc::clone(&cache));
                    let mut cursor = TableCursor::new(Rc::clone(&table), style);
                    cursor.expect(expected, &last);
                    cursor.seek(&probe.borrow()).await.unwrap();
                    for found in records.range(probe.clone()..) {
                        assert_eq!(at(&cursor), Some(pair(found)));
                        cursor.next().await.unwrap();
                    }
                    assert_eq!(at(&cursor), None);
                    cursor.expect(expected, &first);
                    cursor.seek_last_before(&probe.borrow()).await.unwrap();
                    for found in records.range(..probe.clone()).rev() {
                        assert_eq!(at(&cursor), Some(pair(found)));
                        cursor.previous().await.unwrap();
                    }
                    assert_eq!(at(&cursor), None);
                }
            }
        }
    });
}

#[test]
fn damage_ahead_is_met_where_it_lies() {
    let env = TestEnv::new(1);
    env.block_on(async {
        let (table, positions) = hundred_blocks(&env).await;
        let path = table_path(Path::new(DIR), 1);
        for (reverse, bad, good_blocks) in [(false, 43, 3), (true, 36, 4)] {
            env.flip(&path, bad * PAGE_BYTES as u64 + 200, 1);
            let style = ReadStyle::Cached(cache());
            let stop = positions[if reverse { 0 } else { 699 }].borrow();
            let mut cursor = TableCursor::new(Rc::clone(&table), style.clone());
            cursor.expect(50, &stop);
            let before = env.count(Op::Read);
            let (taken, ended) = walk(&mut cursor, &positions, 40, 50, reverse).await;
            assert_eq!(taken, good_blocks * PER_BLOCK);
            let Err(Error::Damaged(damage)) = ended else { panic!("{ended:?}") };
            assert_eq!((&damage.file, damage.offset / PAGE_BYTES as u64), (&path, bad));
            assert!(cursor.current().is_none());
            // Once with the others, once alone.
            assert_eq!(env.count(Op::Read) - before, 2);
            // Who stops before it never hears of it, and behind it there is nothing wrong.
            let mut cursor = TableCursor::new(Rc::clone(&table), style.clone());
            cursor.expect(50, &stop);
            let (taken, ended) = walk(&mut cursor, &positions, 40, good_blocks * PER_BLOCK, reverse).await;
            assert!(ended.is_ok() && taken == good_blocks * PER_BLOCK);
            env.flip(&path, bad * PAGE_BYTES as u64 + 200, 1);
        }
    });
}

#[test]
fn a_failed_read_ahead_is_followed_by_a_read_of_the_block_alone() {
    let env = TestEnv::new(1);
    env.block_on(async {
        let (table, positions) = hundred_blocks(&env).await;
        let cache = cache();
        let mut cursor = TableCursor::new(Rc::clone(&table), ReadStyle::Cached(Rc::clone(&cache)));
        cursor.expect(50, &positions[699].borrow());
        env.fail(Op::Read, ".table", 0, 1, ErrorKind::Other);
        let (taken, ended) = walk(&mut cursor, &positions, 40, 50, false).await;
        assert!(ended.is_ok() && taken == 50);
        env.fail(Op::Read, ".table", 0, 2, ErrorKind::Other);
        cursor.expect(50, &positions[699].borrow());
        let (taken, ended) = walk(&mut cursor, &positions, 60, 50, false).await;
        assert!(matches!(ended, Err(Error::Io { .. })) && taken == 0 && cursor.current().is_none());
        env.heal();
        // What a scan has read is there for others, and what it did not reach is not.
        let held = |block: usize| cache.holds(1, BlockHandle { page: block as u32, pages: 1 });
        assert!((40..48).all(held) && !held(49));
        assert!(cache.get_for(1, BlockHandle { page: 40, pages: 1 }, Admission::Scan).is_some());
    });
}
