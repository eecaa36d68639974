//! Looking ahead changes nothing but time.

use super::super::ahead::{Ahead, SINGLES_MAX};
use super::*;

#[test]
fn singles_are_few_at_any_time_and_all_end() {
    let env = TestEnv::new(1);
    let shard = open(&env);
    // Some keys in tables, some in the memtable, some nowhere.
    fill(&env, &shard, 300, 1);
    for number in 300..330 {
        write(&env, &shard, &format!("fill-{number:06}"), put(b"in memory")).unwrap();
    }
    let names: Vec<String> = (290..340).map(|number| format!("fill-{number:06}")).collect();
    let waiting = || shard.inner.singles.borrow().keys.len();
    for name in &names {
        shard.look_ahead_single(key(name).hash);
        assert!(waiting() <= SINGLES_MAX, "{} keys have not taken all steps", waiting());
    }
    assert!(waiting() > 0, "the last ones have nobody behind them");
    // They may be flushed between two steps.
    fill(&env, &shard, 300, 2);
    let calls = (1..).find(|_| {
        shard.look_ahead_rest();
        waiting() == 0
    });
    assert!(calls.unwrap() <= SINGLES_MAX, "each lookup takes at least one further");
    for (name, number) in names.iter().zip(290..) {
        let expected = match number {
            290..300 => Some(vec![2; 560]),
            300..330 => Some(b"in memory".to_vec()),
            _ => None,
        };
        assert_eq!(get(&env, &shard, name).unwrap(), expected, "{name}");
    }
}

#[test]
fn what_was_found_ahead_is_not_used_after_a_flush() {
    let env = TestEnv::new(1);
    let shard = open(&env);
    write(&env, &shard, "key", put(b"old")).unwrap();
    let mut ahead = Ahead::default();
    shard.look_ahead(key("key").hash);
    shard.look_ahead_headers([(key("key").hash, &mut ahead)].into_iter());
    assert!(ahead.root.is_some());
    let value = |ahead| shard.get_ahead(&key("key"), ahead, |record| record.map(|it| it.value.to_vec()));
    assert_eq!(value(ahead), Ok(Some(b"old".to_vec())));
    fill(&env, &shard, 300, 1);
    assert_ne!(ahead.memtable, shard.inner.memtables.borrow().active().number, "it was flushed");
    write(&env, &shard, "key", put(b"new")).unwrap();
    shard.look_ahead_record(key("key").hash, ahead);
    assert_eq!(value(ahead), Ok(Some(b"new".to_vec())));
}
