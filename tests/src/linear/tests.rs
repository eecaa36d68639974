//! The checker against brute force on small random histories, and against histories that are
//! wrong in known ways.

use super::*;
use crate::world::Random;

/// A register with compare-and-set.
struct Register;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Read(u8),
    Write(u8),
    /// Sets the second if the first stands: whether it did. `None` = nobody knows.
    Swap(u8, u8, Option<bool>),
}

impl Model for Register {
    type State = u8;
    type Call = Call;

    fn step(&self, state: &u8, call: &Call, next: &mut Vec<u8>) {
        match *call {
            Call::Read(value) if value == *state => next.push(*state),
            Call::Read(_) => {}
            Call::Write(value) => next.push(value),
            Call::Swap(from, to, Some(true)) if from == *state => next.push(to),
            Call::Swap(from, _, Some(false)) if from != *state => next.push(*state),
            Call::Swap(_, _, Some(_)) => {}
            Call::Swap(from, to, None) => next.push(if from == *state { to } else { *state }),
        }
    }
}

fn operation(called: u64, returned: Option<u64>, call: Call) -> Operation<Call> {
    Operation { called, returned, call }
}

fn answered(called: u64, returned: u64, call: Call) -> Operation<Call> {
    operation(called, Some(returned), call)
}

fn is_linearizable(operations: &[Operation<Call>]) -> bool {
    match check(&Register, 0, operations, u64::MAX) {
        Verdict::Linearizable(order) => {
            assert!(explains(operations, &order), "{order:?} does not explain {operations:?}");
            true
        }
        Verdict::Impossible { .. } => false,
        Verdict::Undecided { .. } => panic!("there is no limit"),
    }
}

/// Whether an order holds all answered operations, respects time and explains every answer.
fn explains(operations: &[Operation<Call>], order: &[usize]) -> bool {
    let answered = (0..operations.len()).filter(|position| operations[*position].returned.is_some());
    let all = { answered }.all(|position| order.contains(&position));
    let in_time = order.iter().enumerate().all(|(place, later)| {
        order[place + 1..].iter().all(|earlier| {
            operations[*earlier].returned.is_none_or(|returned| returned > operations[*later].called)
        })
    });
    let mut state = 0;
    all && in_time
        && order.iter().all(|position| {
            let mut next = Vec::new();
            Register.step(&state, &operations[*position].call, &mut next);
            next.first().is_some_and(|next| {
                state = *next;
                true
            })
        })
}

/// Tries every order of every choice of operations.
fn by_brute_force(operations: &[Operation<Call>], order: &mut Vec<usize>) -> bool {
    if explains(operations, order) {
        return true;
    }
    (0..operations.len()).any(|position| {
        if order.contains(&position) {
            return false;
        }
        order.push(position);
        let found = by_brute_force(operations, order);
        order.pop();
        found
    })
}

/// Up to six operations of three clients, with answers that are right, old or invented.
fn random_history(random: &mut Random) -> Vec<Operation<Call>> {
    let mut operations = Vec::new();
    let count = random.between(2, 6);
    let mut moments: Vec<u64> = (0..2 * count).collect();
    for place in (1..moments.len()).rev() {
        moments.swap(place, random.below(place as u64 + 1) as usize);
    }
    for pair in moments.chunks_exact(2) {
        let (called, returned) = (pair[0].min(pair[1]), pair[0].max(pair[1]));
        let open = random.one_in(4);
        let (from, to) = (random.below(3) as u8, random.between(1, 3) as u8);
        let call = match random.below(3) {
            0 if !open => Call::Read(from),
            0 | 1 => Call::Write(to),
            _ => Call::Swap(from, to, if open { None } else { Some(random.one_in(2)) }),
        };
        operations.push(operation(called, (!open).then_some(returned), call));
    }
    operations
}

#[test]
fn it_agrees_with_brute_force() {
    let mut found = [0; 2];
    for seed in 0..20_000 {
        let operations = random_history(&mut Random::new(seed));
        let linearizable = is_linearizable(&operations);
        let expected = by_brute_force(&operations, &mut Vec::new());
        assert_eq!(linearizable, expected, "seed {seed}: {operations:?}");
        found[usize::from(linearizable)] += 1;
    }
    assert!(found.iter().all(|count| *count > 2_000), "{found:?} are impossible and possible");
}

#[test]
fn answers_in_an_order_that_explains_them_are_linearizable() {
    // Overlapping writes in the order that the reads show, which is not that of their calls.
    let operations = [
        answered(0, 10, Call::Write(1)),
        answered(1, 9, Call::Write(2)),
        answered(11, 12, Call::Read(1)),
        answered(2, 8, Call::Read(2)),
    ];
    assert!(is_linearizable(&operations));
    // An open write that took effect long after it was given up.
    let operations = [
        operation(0, None, Call::Write(1)),
        answered(1, 2, Call::Read(0)),
        answered(3, 4, Call::Write(2)),
        answered(5, 6, Call::Read(2)),
        answered(7, 8, Call::Read(1)),
    ];
    assert!(is_linearizable(&operations));
}

#[test]
fn what_must_not_happen_is_impossible() {
    let write = |value, called| answered(called, called + 1, Call::Write(value));
    let read = |value, called| answered(called, called + 1, Call::Read(value));
    let swap = |from, to, called| answered(called, called + 1, Call::Swap(from, to, Some(true)));
    let bad: [(&str, Vec<Operation<Call>>); 6] = [
        ("a stale read", vec![write(1, 0), write(2, 2), read(1, 4)]),
        ("a lost write", vec![write(1, 0), read(0, 2)]),
        ("a value from nowhere", vec![write(1, 0), read(3, 2)]),
        ("seen and unseen", vec![operation(0, None, Call::Write(1)), read(1, 2), read(0, 4)]),
        ("two swaps of one value", vec![swap(0, 1, 0), answered(0, 3, Call::Swap(0, 2, Some(true)))]),
        (
            "an open write that takes effect twice",
            vec![operation(0, None, Call::Write(1)), read(1, 2), write(2, 4), read(1, 6)],
        ),
    ];
    for (what, operations) in bad {
        assert!(!is_linearizable(&operations), "{what}");
    }
}

#[test]
fn it_says_where_it_got_stuck_and_when_it_gives_up() {
    let operations = [
        answered(0, 1, Call::Write(1)),
        answered(2, 3, Call::Read(1)),
        answered(4, 5, Call::Read(2)),
        answered(6, 7, Call::Write(3)),
    ];
    let stuck = Verdict::Impossible { order: vec![0, 1], stuck: vec![2] };
    assert_eq!(check(&Register, 0, &operations, 1_000), stuck);
    let given_up = Verdict::Undecided { order: vec![0], stuck: vec![1] };
    assert_eq!(check(&Register, 0, &operations, 1), given_up);
    assert_eq!(check(&Register, 0, &[], 1), Verdict::Linearizable(Vec::new()));
}

#[test]
fn many_open_writes_do_not_stop_it() {
    let mut operations: Vec<_> = (0..40).map(|called| operation(called, None, Call::Write(9))).collect();
    for round in 0..40_u64 {
        let value = (round % 5) as u8;
        operations.push(answered(100 + round * 4, 101 + round * 4, Call::Write(value)));
        operations.push(answered(102 + round * 4, 103 + round * 4, Call::Read(value)));
    }
    let Verdict::Linearizable(order) = check(&Register, 0, &operations, 10_000) else {
        panic!("it is linearizable at once");
    };
    assert_eq!(order.len(), 80);
}

/// A text that is appended to; an answer tells how long it has become.
struct Text;

impl Model for Text {
    type State = Vec<u8>;
    type Call = (u8, Option<usize>);

    fn step(&self, state: &Vec<u8>, (byte, answered): &Self::Call, next: &mut Vec<Vec<u8>>) {
        let longer = [state.as_slice(), &[*byte]].concat();
        if answered.is_none_or(|bytes| bytes == longer.len()) {
            next.push(longer);
        }
    }
}

#[test]
fn the_orders_of_open_calls_do_not_stop_it() {
    // Any one of twenty explains the length; twenty have more orders than can be searched.
    let open = (0..20).map(|byte| Operation { called: u64::from(byte), returned: None, call: (byte, None) });
    let last = |bytes| Operation { called: 100, returned: Some(101), call: (99, Some(bytes)) };
    let operations: Vec<_> = open.clone().chain([last(2)]).collect();
    let verdict = check(&Text, Vec::new(), &operations, 10_000);
    assert!(matches!(&verdict, Verdict::Linearizable(order) if order.len() == 2), "{verdict:?}");
    // That there is no order is never said by a search that left some out.
    let operations: Vec<_> = open.clone().take(6).chain([last(7)]).collect();
    let verdict = check(&Text, Vec::new(), &operations, 1_000_000);
    assert!(matches!(&verdict, Verdict::Linearizable(order) if order.len() == 7), "{verdict:?}");
    let operations: Vec<_> = open.take(6).chain([last(8)]).collect();
    let verdict = check(&Text, Vec::new(), &operations, 1_000_000);
    assert!(matches!(verdict, Verdict::Impossible { .. }), "{verdict:?}");
}
