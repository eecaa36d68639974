//! Conditions on what stands under a key, and what a waiter is told of it.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use pinion_env::Env;

use super::{IDENTITY, fill, key, open, put, small, write};
use crate::answer::{Teller, answer};
use crate::error::Result;
use crate::key::Key;
use crate::operation::{Condition, Effect, Expiring, Lifetime, Operation, Update, Waiter, Written};
use crate::options::Options;
use crate::record::RecordView;
use crate::shard::Shard;
use crate::stamp::Origin;
use crate::testing::TestEnv;

/// Remembers the values that decisions were made on.
struct Witness(Teller, Rc<RefCell<Vec<Option<Vec<u8>>>>>);

/// Remembers the keys of what was published, and empty ones for how often many were told.
struct Published(Teller, Rc<RefCell<Vec<Vec<u8>>>>);

impl Waiter for Published {
    fn first_of_many(&self) {
        self.1.borrow_mut().push(Vec::new());
    }

    fn published(&self, key: &Key<'_>) {
        self.1.borrow_mut().push(key.user.to_vec());
    }

    fn complete(self, result: Result<Written>) {
        self.0.complete(result);
    }
}

/// Remembers whose answers were told in a row.
struct Asked {
    asker: u32,
    told: Rc<RefCell<Vec<Vec<u32>>>>,
}

impl Waiter for Asked {
    fn first_of_many(&self) {
        self.told.borrow_mut().push(Vec::new());
    }

    fn goes_with(&self, other: &Self) -> bool {
        self.asker == other.asker
    }

    fn complete(self, result: Result<Written>) {
        result.expect("the write is applied");
        self.told.borrow_mut().last_mut().expect("told of the first of many").push(self.asker);
    }
}

impl Waiter for Witness {
    fn decided(&mut self, present: Option<&RecordView<'_>>) {
        self.1.borrow_mut().push(present.map(|record| record.value.to_vec()));
    }

    fn complete(self, result: Result<Written>) {
        self.0.complete(result);
    }
}

const NEVER: Expiring = Expiring { from_ms: 1, to_ms: 0, never: true };

fn put_if<'a>(condition: Condition<'a>, value: &'a [u8], lifetime: Lifetime) -> Operation<'a> {
    Operation::PutIf { condition, value, lifetime }
}

fn open_for<W: Waiter>(env: &TestEnv, options: Options) -> Shard<TestEnv, W> {
    let dir = PathBuf::from("shard");
    env.block_on(async {
        pinion_env::create_dir_all(env, &dir).await.expect("the test disk takes directories");
        env.sync_dir("".as_ref()).await.expect("the root can be synced");
        Shard::open(env.clone(), dir, IDENTITY, Origin(1), options).await
    })
    .unwrap()
}

#[test]
fn a_waiter_is_told_what_was_replaced_pending_or_not() {
    let env = TestEnv::new(31);
    let shard: Shard<TestEnv, Witness> = open_for(&env, small());
    let seen = Rc::new(RefCell::new(Vec::new()));
    let start = |operation| {
        let (teller, answer) = answer();
        shard.write(&key("k"), operation, Default::default(), Witness(teller, Rc::clone(&seen)));
        answer
    };
    // Nothing is durable when the next is decided.
    let answers = [
        start(put_if(Condition::Always, b"one", Lifetime::Forever)),
        start(put_if(Condition::Absent, b"no", Lifetime::Forever)),
        start(put(b"two")),
        start(Operation::DeleteIf { condition: Condition::Present }),
        start(Operation::Update(Update::Append(b"three"))),
    ];
    for (answer, effect) in answers.into_iter().zip([true, false, true, true, true]) {
        let written = env.block_on(answer).unwrap();
        assert_eq!(written.effect == Effect::Applied, effect);
    }
    let bytes = |text: &str| Some(text.as_bytes().to_vec());
    // A plain put does not look.
    assert_eq!(seen.take(), [None, bytes("one"), bytes("two"), None]);
    env.block_on(shard.flush()).unwrap();
    env.block_on(start(put_if(Condition::Always, b"four", Lifetime::Forever))).unwrap();
    assert_eq!(seen.take(), [bytes("three")], "from a table");
}

#[test]
fn writes_that_are_durable_together_are_told_one_after_the_other_with_their_keys() {
    let env = TestEnv::new(33);
    let shard: Shard<TestEnv, Published> = open_for(&env, small());
    let told = Rc::new(RefCell::new(Vec::new()));
    let mut answers = Vec::new();
    for name in ["a", "b", "c"] {
        let (teller, answer) = answer();
        shard.write(&key(name), put(b"v"), Default::default(), Published(teller, Rc::clone(&told)));
        answers.push(answer);
    }
    answers.into_iter().for_each(|answer| drop(env.block_on(answer).unwrap()));
    let told = told.take();
    assert_eq!(told[..2], [vec![], b"a".to_vec()], "asked for the time before the first");
    let keys: Vec<_> = told.iter().filter(|key| !key.is_empty()).collect();
    assert_eq!(keys, [b"a", b"b", b"c"]);
}

#[test]
fn answers_that_go_together_are_told_in_a_row_within_a_bound() {
    let env = TestEnv::new(34);
    let shard: Shard<TestEnv, Asked> = open_for(&env, Options { memtable_bytes: 1 << 20, ..small() });
    let told = Rc::new(RefCell::new(Vec::new()));
    // Many who ask once, one who asks a little, and one who asks for more than is told in a row.
    let askers = (0..240).chain([1_000; 40]).chain([2_000; 300]);
    for asker in askers.clone() {
        shard.write(&key("k"), put(b"v"), Default::default(), Asked { asker, told: Rc::clone(&told) });
    }
    while told.borrow().iter().map(Vec::len).sum::<usize>() < 580 {
        env.block_on(env.sleep(Duration::from_millis(1)));
    }
    let told = told.take();
    assert_eq!(told.iter().map(Vec::len).collect::<Vec<_>>(), [192, 256, 132]);
    assert!(told.concat().into_iter().eq(askers));
}

#[test]
fn conditions_look_at_the_value_and_its_expiry() {
    let env = TestEnv::new(32);
    let shard = open(&env);
    let now_ms = shard.clock_ms();
    let applies = |operation| write(&env, &shard, "k", operation).unwrap().effect == Effect::Applied;
    let touch_if = |moments, moment_ms| Operation::UpdateIf {
        condition: Condition::Expires(moments),
        update: Update::SetExpiry(Lifetime::Until(moment_ms)),
    };
    let (soon_ms, late_ms) = (now_ms + 100_000, now_ms + 200_000);
    assert!(!applies(put_if(Condition::ValueIs(b""), b"x", Lifetime::Forever)), "there is none");
    assert!(!applies(touch_if(Expiring { from_ms: 1, to_ms: u64::MAX, never: true }, soon_ms)));
    assert!(applies(put_if(Condition::Always, b"a", Lifetime::Forever)));
    assert!(!applies(put_if(Condition::ValueIs(b"b"), b"x", Lifetime::Forever)));
    for round in 0..2 {
        // From memory, then from tables.
        assert!(applies(put_if(Condition::ValueIs(b"a"), b"a", Lifetime::Forever)), "{round}");
        assert!(!applies(touch_if(Expiring { from_ms: 1, to_ms: u64::MAX, never: false }, soon_ms)));
        assert!(applies(touch_if(NEVER, soon_ms)));
        assert!(!applies(touch_if(NEVER, late_ms)));
        assert!(!applies(touch_if(Expiring { from_ms: 1, to_ms: soon_ms - 1, never: true }, late_ms)));
        assert!(applies(touch_if(Expiring { from_ms: soon_ms, to_ms: soon_ms, never: false }, late_ms)));
        let kept = write(&env, &shard, "k", put_if(Condition::Always, b"a", Lifetime::Keep)).unwrap();
        assert_eq!(kept.expiry_ms, late_ms);
        fill(&env, &shard, 150, round);
    }
    // A moment that has passed: the value is gone at once, and stays so.
    assert!(applies(put_if(Condition::Present, b"a", Lifetime::Until(0))));
    assert_eq!(super::get(&env, &shard, "k").unwrap(), None);
    assert!(!applies(Operation::DeleteIf { condition: Condition::Present }));
}
