//! Looking ahead changes nothing but time.

use super::super::ahead::Ahead;
use super::*;

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
