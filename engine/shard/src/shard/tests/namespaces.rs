//! Dropped namespaces: their records leave memtables, logs and tables, whenever the drop comes.

use super::*;
use crate::catalogue::{Catalogue, NAMESPACES_MAX};

fn in_namespace(id: NamespaceId, user: &str) -> Key<'_> {
    Key::new(id, user.as_bytes(), PARTITIONS)
}

fn put_into(env: &TestEnv, shard: &TestShard, id: NamespaceId, user: &str, value: &[u8]) {
    loop {
        let (teller, answer) = answer();
        shard.write(&in_namespace(id, user), put(value), WriteOptions::default(), teller);
        match env.block_on(answer) {
            Err(Error::Overloaded { .. }) => env.block_on(shard.settle()).unwrap(),
            result => return assert_eq!(result.unwrap().effect, Effect::Applied),
        }
    }
}

/// `count` records of about 600 bytes, over all partitions.
fn fill_namespace(env: &TestEnv, shard: &TestShard, id: NamespaceId, count: u32) {
    for number in 0..count {
        put_into(env, shard, id, &format!("fill-{number:06}"), &[1; 560]);
    }
}

fn has(env: &TestEnv, shard: &TestShard, id: NamespaceId, user: &str) -> bool {
    env.block_on(shard.get(&in_namespace(id, user))).unwrap().is_some()
}

/// The namespaces that tables hold records of; `None` if a table has too many to say.
fn in_tables(shard: &TestShard) -> Option<Vec<NamespaceId>> {
    let version = shard.inner.version.borrow();
    let mut all = Vec::new();
    for (_, table) in version.tables() {
        all.extend_from_slice(table.meta().namespaces.listed()?);
    }
    all.sort_unstable();
    all.dedup();
    Some(all)
}

fn table_bytes(shard: &TestShard) -> u64 {
    shard.stats().levels.iter().map(|level| level.bytes).sum()
}

fn table_records(shard: &TestShard) -> u64 {
    shard.stats().levels.iter().map(|level| level.records).sum()
}

/// A catalogue with two namespaces beside `default`.
fn catalogue() -> (Catalogue, NamespaceId, NamespaceId) {
    let mut catalogue = Catalogue::default();
    let kept = catalogue.create("kept", 0).unwrap();
    let gone = catalogue.create("gone", 0).unwrap();
    (catalogue, kept, gone)
}

#[test]
fn a_dropped_namespace_gives_its_space_back() {
    let env = TestEnv::new(8);
    let shard = open(&env);
    let (mut catalogue, kept, gone) = catalogue();
    shard.set_live_namespaces(catalogue.live_namespaces());
    fill_namespace(&env, &shard, kept, 200);
    env.block_on(shard.settle()).unwrap();
    let alone = table_bytes(&shard);
    fill_namespace(&env, &shard, gone, 600);
    env.block_on(shard.settle()).unwrap();
    assert_eq!(in_tables(&shard), Some(vec![kept, gone]));
    assert_eq!(table_records(&shard), 800);
    // Something of it is in the memtable too.
    put_into(&env, &shard, gone, "late", b"");

    catalogue.drop_namespace("gone").unwrap();
    shard.set_live_namespaces(catalogue.live_namespaces());
    env.block_on(shard.settle()).unwrap();
    assert_eq!(in_tables(&shard), Some(vec![kept]));
    assert_eq!(table_records(&shard), 200);
    assert!(table_bytes(&shard) < 2 * alone, "{} of {alone}", table_bytes(&shard));
    let tables: u64 = shard.stats().levels.iter().map(|level| level.tables).sum();
    assert_eq!(env.names("shard/table").len() as u64, tables);
    for number in 0..200 {
        assert!(has(&env, &shard, kept, &format!("fill-{number:06}")));
    }
    assert!(!has(&env, &shard, gone, "late") && !has(&env, &shard, gone, "fill-000001"));
    assert!(shard.stats().counters.step_records_max <= u64::from(shard.options().step_records_max));
}

#[test]
fn tables_of_dropped_namespaces_alone_are_not_read() {
    let env = TestEnv::new(9);
    let shard = open(&env);
    let (mut catalogue, _, gone) = catalogue();
    fill_namespace(&env, &shard, gone, 400);
    env.block_on(shard.settle()).unwrap();
    let read = shard.stats().counters.compaction_read_bytes;
    catalogue.drop_namespace("gone").unwrap();
    shard.set_live_namespaces(catalogue.live_namespaces());
    env.block_on(shard.settle()).unwrap();
    assert_eq!((table_bytes(&shard), in_tables(&shard)), (0, Some(vec![])));
    assert_eq!(shard.stats().counters.compaction_read_bytes, read);
}

#[test]
fn a_crash_at_any_moment_of_the_removal_leaves_nothing_behind() {
    for crash_after_ms in [0, 1, 3, 10, 30, 100, 300] {
        let env = TestEnv::new(10);
        let shard = open(&env);
        let (mut catalogue, kept, gone) = catalogue();
        shard.set_live_namespaces(catalogue.live_namespaces());
        for number in 0..250 {
            put_into(&env, &shard, kept, &format!("{number}"), &[1; 400]);
            put_into(&env, &shard, gone, &format!("{number}"), &[1; 400]);
        }
        catalogue.drop_namespace("gone").unwrap();
        // The catalogue is durable; this shard hears of it, or does not.
        if crash_after_ms > 0 {
            shard.set_live_namespaces(catalogue.live_namespaces());
            env.block_on(env.sleep(Duration::from_millis(crash_after_ms)));
        }
        env.crash();
        // Recovery writes replayed records out before anybody has told it what lives.
        let options = Options { memtable_bytes: 16 << 10, ..small() };
        let shard = open_with(&env, options).unwrap();
        shard.set_live_namespaces(catalogue.live_namespaces());
        env.block_on(shard.settle()).unwrap();
        assert_eq!(in_tables(&shard), Some(vec![kept]), "after {crash_after_ms} ms");
        for number in 0..250 {
            assert!(has(&env, &shard, kept, &format!("{number}")));
        }
    }
}

#[test]
fn a_write_that_overtakes_the_drop_does_not_stay() {
    let env = TestEnv::new(11);
    let shard = open_with(&env, Options { block_cache_bytes: 0, ..small() }).unwrap();
    let (mut catalogue, _, gone) = catalogue();
    shard.set_live_namespaces(catalogue.live_namespaces());
    put_into(&env, &shard, gone, "n", b"1");
    env.block_on(shard.flush()).unwrap();
    // It has been admitted and reads the table when the namespace goes.
    let (teller, answer) = answer();
    let add = Operation::Update(Update::Add(1));
    shard.write(&in_namespace(gone, "n"), add, WriteOptions::default(), teller);
    catalogue.drop_namespace("gone").unwrap();
    shard.set_live_namespaces(catalogue.live_namespaces());
    assert_eq!(env.block_on(answer).unwrap().number, 2);
    env.block_on(shard.settle()).unwrap();
    assert_eq!((in_tables(&shard), table_bytes(&shard)), (Some(vec![]), 0));
}

#[test]
fn more_namespaces_than_a_table_lists_are_removed_too() {
    let env = TestEnv::new(12);
    let options = Options { log_segment_bytes: 4 << 20, ..small() };
    let shard = open_with(&env, options.clone()).unwrap();
    let mut catalogue = Catalogue::default();
    // All of them stand in one memtable, and after the crash in one log.
    for _ in 0..NAMESPACES_MAX + 40 {
        let id = catalogue.create("one", 0).unwrap();
        put_into(&env, &shard, id, "key", b"value");
        catalogue.drop_namespace("one").unwrap();
    }
    env.crash();
    let shard = open_with(&env, options).unwrap();
    env.block_on(shard.flush()).unwrap();
    assert_eq!(in_tables(&shard), None, "too many to list");
    shard.set_live_namespaces(catalogue.live_namespaces());
    env.block_on(shard.settle()).unwrap();
    assert_eq!(in_tables(&shard), Some(vec![]));
}

#[test]
fn namespaces_come_and_go_without_an_end() {
    let env = TestEnv::new(13);
    let shard = open(&env);
    let mut catalogue = Catalogue::default();
    put_into(&env, &shard, NamespaceId(0), "kept", b"value");
    for round in 0..3_000_u32 {
        let id = catalogue.create("one", 0).unwrap();
        shard.set_live_namespaces(catalogue.live_namespaces());
        put_into(&env, &shard, id, "key", &[1; 300]);
        if round % 100 == 0 {
            env.block_on(shard.flush()).unwrap();
        }
        catalogue.drop_namespace("one").unwrap();
        shard.set_live_namespaces(catalogue.live_namespaces());
    }
    env.block_on(shard.settle()).unwrap();
    assert_eq!(in_tables(&shard), Some(vec![NamespaceId(0)]));
    assert_eq!(shard.stats().levels.iter().map(|level| level.records).sum::<u64>(), 1);
    assert_eq!(get(&env, &shard, "kept").unwrap().as_deref(), Some(&b"value"[..]));
}
