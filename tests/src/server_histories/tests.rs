//! What a key is, by histories that a server may and may not have.

use std::rc::Rc;

use pinion_engine::Stamp;

use super::history::{History, Name, Span};
use super::model::{Answer, Asked, Change, Condition, Content, Found, stamp};
use crate::trials::Counts;

/// Milliseconds at which these histories begin.
const START_MS: u64 = 1_900_000_000_000;

fn at(ms: u64) -> Stamp {
    stamp((START_MS + ms) << 16, 1 << 31)
}

fn name() -> Name {
    (0, b"key"[..].into())
}

fn put(value: &str) -> Change {
    Change::Put { value: Content::of(value.as_bytes()), ttl_ms: 0 }
}

fn read(value: &str, version: Stamp) -> Asked {
    let value = Ok(Content::of(value.as_bytes()));
    Asked::Read(Some(Found { value, version, expiry_ms: 0 }))
}

fn applied(version: Stamp) -> Answer {
    Answer::Applied { version, expiry_ms: None, number: None }
}

fn write(change: Change, answer: Answer) -> Asked {
    Asked::Write { condition: None, change, answer }
}

/// Calls one after the other, a second apart; those of unknown outcome stay open.
fn in_turn(asked: Vec<Asked>) -> Result<(), super::history::Wrong> {
    let history = History::default();
    let mut from_ms = START_MS;
    for asked in asked {
        let is_open = matches!(
            asked,
            Asked::Write { answer: Answer::Unknown, .. } | Asked::Stamped { answer: Answer::Unknown, .. }
        );
        let called = history.moment();
        let returned = (!is_open).then(|| (history.moment(), from_ms + 1));
        history.note(&name(), history.begin(), Span { called, from_ms, returned }, asked);
        from_ms += 10_000;
    }
    history.judge(history.moment(), &mut Counts::default())
}

#[test]
fn what_a_correct_server_answers_is_explained() {
    let stamped = |stamp, value, answer| Asked::Stamped { stamp, change: put(value), answer };
    in_turn(vec![
        Asked::Read(None),
        write(put("a"), applied(at(1))),
        read("a", at(1)),
        // A lost write of the server's stamp, found later, with whatever version it got.
        write(put("b"), Answer::Unknown),
        read("a", at(1)),
        read("b", at(77)),
        // An older stamp is superseded and changes nothing.
        Asked::Superseded(at(50)),
        stamped(at(60), "late", Answer::Unknown),
        read("b", at(77)),
        stamped(at(80), "c", applied(at(80))),
        Asked::Write {
            condition: Some(Condition::Version(at(80))),
            change: Change::Delete,
            answer: applied(at(90)),
        },
        Asked::Write {
            condition: Some(Condition::Version(at(80))),
            change: put("x"),
            answer: Answer::Failed { current: None },
        },
        Asked::Read(None),
        write(Change::Add(5), Answer::Applied { version: at(91), expiry_ms: Some(0), number: Some(5) }),
        write(
            Change::Append(b"0"[..].into()),
            Answer::Applied { version: at(92), expiry_ms: Some(0), number: Some(2) },
        ),
        read("50", at(92)),
    ])
    .unwrap();
}

#[test]
fn what_a_server_must_not_answer_is_not() {
    let stamped = |stamp, value, answer| Asked::Stamped { stamp, change: put(value), answer };
    let put_if = |version, value, answer| Asked::Write {
        condition: Some(Condition::Version(version)),
        change: put(value),
        answer,
    };
    let bad: [(&str, Vec<Asked>); 12] = [
        ("an acknowledged write is lost", vec![write(put("a"), applied(at(1))), Asked::Read(None)]),
        (
            "a read goes back",
            vec![write(put("a"), applied(at(1))), write(put("b"), applied(at(2))), read("a", at(1))],
        ),
        (
            "an unknown write is seen and then unseen",
            vec![
                write(put("a"), applied(at(1))),
                write(put("b"), Answer::Unknown),
                read("b", at(2)),
                read("a", at(1)),
            ],
        ),
        (
            "an unknown write has two versions",
            vec![write(put("a"), Answer::Unknown), read("a", at(1)), read("a", at(2))],
        ),
        (
            "a retry is applied over a newer write",
            vec![
                stamped(at(1), "a", Answer::Unknown),
                stamped(at(2), "b", applied(at(2))),
                read("b", at(2)),
                read("a", at(1)),
            ],
        ),
        ("a refused write is seen", vec![read("refused", at(1))]),
        (
            "one version is the condition of two successes",
            vec![
                write(put("a"), applied(at(1))),
                put_if(at(1), "b", applied(at(2))),
                put_if(at(1), "c", applied(at(3))),
            ],
        ),
        (
            "a condition fails that holds",
            vec![
                write(put("a"), applied(at(1))),
                put_if(at(1), "b", Answer::Failed { current: Some(at(1)) }),
            ],
        ),
        (
            "an addition is counted twice",
            vec![
                write(Change::Add(1), Answer::Unknown),
                write(Change::Add(1), Answer::Applied { version: at(2), expiry_ms: None, number: Some(3) }),
            ],
        ),
        ("nothing newer supersedes", vec![write(put("a"), applied(at(1))), Asked::Superseded(at(2))]),
        ("a version is reused", vec![write(put("a"), applied(at(2))), write(put("b"), applied(at(2)))]),
        (
            "a deleted record returns",
            vec![
                write(put("a"), applied(at(1))),
                write(Change::Delete, applied(at(2))),
                Asked::Read(None),
                read("a", at(1)),
            ],
        ),
    ];
    for (what, asked) in bad {
        assert!(in_turn(asked).is_err(), "{what}");
    }
}

fn ttl_put(ttl_ms: u64) -> Asked {
    let change = Change::Put { value: Content::of(b"a"), ttl_ms };
    let answer = Answer::Applied { version: at(0), expiry_ms: Some(START_MS + ttl_ms), number: None };
    Asked::Stamped { stamp: at(0), change, answer }
}

fn seen(ttl_ms: u64) -> Asked {
    let value = Ok(Content::of(b"a"));
    Asked::Read(Some(Found { value, version: at(0), expiry_ms: START_MS + ttl_ms }))
}

#[test]
fn expiry_is_neither_early_nor_late_nor_undone() {
    // The second call runs at 10,000 ms, the third at 20,000 ms.
    in_turn(vec![ttl_put(15_000), seen(15_000), Asked::Read(None)]).unwrap();
    assert!(in_turn(vec![ttl_put(15_000), Asked::Read(None)]).is_err(), "too early");
    assert!(in_turn(vec![ttl_put(9_000), seen(9_000)]).is_err(), "too late");
    assert!(in_turn(vec![ttl_put(10_500), Asked::Read(None), seen(10_500)]).is_err(), "undone");
    assert!(in_turn(vec![ttl_put(15_000), seen(16_000)]).is_err(), "another expiry");
    // What expired has a stamp all the same.
    let late = Asked::Stamped { stamp: at(0), change: put("late"), answer: applied(at(0)) };
    assert!(in_turn(vec![ttl_put(5_000), Asked::Read(None), late]).is_err(), "written over by an older one");
}

#[test]
fn a_clock_that_is_set_back_under_a_call_is_what_the_call_may_have_seen() {
    let judged = |shift_ms| {
        let history = History::default();
        let at = |from_ms| {
            let called = history.moment();
            Span { called, from_ms, returned: Some((history.moment(), from_ms + 1)) }
        };
        history.note(&name(), history.begin(), at(START_MS), ttl_put(5_000));
        let reading = at(START_MS + 9_000);
        history.shift(shift_ms);
        history.note(&name(), history.begin(), reading, seen(5_000));
        history.judge(history.moment(), &mut Counts::default())
    };
    assert!(judged(0).is_err(), "it has expired");
    judged(-6_000).unwrap();
}

#[test]
fn a_lost_batch_is_seen_whole() {
    let other: Name = (0, b"other"[..].into());
    let judged = |seen_on_other: bool| {
        let history = History::default();
        let batch = at(5);
        let open = Span { called: history.moment(), from_ms: START_MS, returned: None };
        for name in [&name(), &other] {
            let change = put("batch");
            history.note(name, 1, open, Asked::Stamped { stamp: batch, change, answer: Answer::Unknown });
        }
        history.note_open_batch(batch, vec![name(), other.clone()]);
        let settled = history.moment();
        let span = || {
            let called = history.moment();
            Span { called, from_ms: START_MS, returned: Some((history.moment(), START_MS + 1)) }
        };
        history.note(&name(), 2, span(), read("batch", batch));
        let found = if seen_on_other { read("batch", batch) } else { Asked::Read(None) };
        history.note(&other, 3, span(), found);
        history.judge(settled, &mut Counts::default())
    };
    judged(true).unwrap();
    assert!(judged(false).is_err());
}

#[test]
fn a_dropped_namespace_stays_away() {
    let history = Rc::new(History::default());
    history.dropping(7, history.moment());
    history.namespace_answered(7, history.moment());
    history.namespace_missing(7);
    history.judge(0, &mut Counts::default()).unwrap();
    history.dropped(7, history.moment());
    history.namespace_answered(7, history.moment());
    assert!(history.judge(0, &mut Counts::default()).is_err());
    let history = History::default();
    history.namespace_missing(7);
    assert!(history.judge(0, &mut Counts::default()).is_err());
}
