//! Linearizability: whether concurrent calls can be put in one order that explains all answers.
//!
//! The search of Wing and Gong ("Testing and verifying concurrent objects", 1993) with the memory of
//! Lowe ("Testing for linearizability", 2017): take any call that began before every call not taken
//! yet had returned, see whether its answer is possible in the present state, go on from there, and
//! never enter the same pair of (calls taken, state) twice. Linearizability is local (Herlihy and
//! Wing, 1990), so a history is checked key by key.
//!
//! A call whose answer is not known ([`Operation::returned`] is `None`) may have taken effect at any
//! moment after it began, or never. A model may allow several next states (what an answer does not
//! tell, such as the version that a lost write got); all of them are searched.
//!
//! Limits: the time is exponential at worst. [`check`] gives up after so many steps and says so.

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::hash::Hash;

/// What one key is: its states and what calls do to them.
pub trait Model {
    /// Everything that later answers depend on.
    type State: Clone + Eq + Hash;
    /// A call with its answer.
    type Call;

    /// Adds each state in which `state` may be after the call; none if the answer is impossible in it.
    fn step(&self, state: &Self::State, call: &Self::Call, next: &mut Vec<Self::State>);

    /// Of open calls those of the lowest rank are tried first. A hint: it changes how long the search
    /// takes, not what it finds.
    fn rank(&self, _call: &Self::Call) -> u64 {
        0
    }
}

/// A call and when it ran, on any clock that never gives two moments the same number.
#[derive(Debug, Clone)]
pub struct Operation<C> {
    /// When it began.
    pub called: u64,
    /// When its answer came; `None` = its outcome is unknown.
    pub returned: Option<u64>,
    /// What was asked and answered.
    pub call: C,
}

/// What the search has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order; the operations in it, by position. Open ones that did not take effect are
    /// not in it.
    Linearizable(Vec<usize>),
    /// There is none. The longest beginning of one, and the answered operations that could not
    /// follow it.
    Impossible {
        /// Positions of the operations in the longest order.
        order: Vec<usize>,
        /// Positions of the answered operations that were next.
        stuck: Vec<usize>,
    },
    /// The search was given up.
    Undecided,
}

/// Looks for an order of the operations of one key, from an initial state.
pub fn check<M: Model>(
    model: &M,
    initial: M::State,
    operations: &[Operation<M::Call>],
    steps_max: u64,
) -> Verdict {
    let mut by_call: Vec<usize> = (0..operations.len()).collect();
    by_call.sort_by_key(|position| operations[*position].called);
    let mut search =
        Search { model, operations, by_call, taken: Taken::new(operations.len()), seen: HashSet::new() };
    search.run(initial, steps_max)
}

struct Search<'a, M: Model> {
    model: &'a M,
    operations: &'a [Operation<M::Call>],
    by_call: Vec<usize>,
    taken: Taken,
    seen: HashSet<(Taken, M::State)>,
}

/// A set of operations.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Taken(Box<[u64]>);

/// A point of the search: a state, and the ways on that have not been tried.
struct Branch<S> {
    state: S,
    /// The operation that led here; `None` at the start.
    by: Option<usize>,
    /// Operations to try, the best last.
    candidates: Vec<usize>,
    /// States that the candidate tried last leads to.
    ways: Vec<(usize, S)>,
}

impl<M: Model> Search<'_, M> {
    fn run(&mut self, initial: M::State, steps_max: u64) -> Verdict {
        let mut longest: (Vec<usize>, Vec<usize>) = (Vec::new(), self.answered_next());
        let mut steps = 0;
        let candidates = self.candidates();
        let mut path = vec![Branch { state: initial, by: None, candidates, ways: Vec::new() }];
        let order =
            |path: &[Branch<M::State>]| path.iter().filter_map(|branch| branch.by).collect::<Vec<_>>();
        if self.is_done() {
            return Verdict::Linearizable(Vec::new());
        }
        while let Some(branch) = path.last_mut() {
            if let Some((operation, state)) = branch.ways.pop() {
                self.taken.put(operation, true);
                if !self.seen.insert((self.taken.clone(), state.clone())) {
                    self.taken.put(operation, false);
                    continue;
                }
                let candidates = self.candidates();
                path.push(Branch { state, by: Some(operation), candidates, ways: Vec::new() });
                if self.is_done() {
                    return Verdict::Linearizable(order(&path));
                }
                if path.len() - 1 > longest.0.len() {
                    longest = (order(&path), self.answered_next());
                }
                continue;
            }
            let Some(operation) = branch.candidates.pop() else {
                if let Some(operation) = branch.by {
                    self.taken.put(operation, false);
                }
                path.pop();
                continue;
            };
            steps += 1;
            if steps > steps_max {
                return Verdict::Undecided;
            }
            let mut next = Vec::new();
            self.model.step(&branch.state, &self.operations[operation].call, &mut next);
            // Nothing is gained by taking a call that need not be taken and changes nothing.
            if self.operations[operation].returned.is_none() {
                next.retain(|state| *state != branch.state);
            }
            branch.ways.extend(next.into_iter().rev().map(|state| (operation, state)));
        }
        Verdict::Impossible { order: longest.0, stuck: longest.1 }
    }

    /// Operations that may come next: they began before any of the others had returned. Answered
    /// ones first, by their return: open ones are taken when nothing else helps.
    fn candidates(&self) -> Vec<usize> {
        let left = |position: &&usize| !self.taken.has(**position);
        let first_return = { self.by_call.iter().filter(left) }
            .filter_map(|position| self.operations[*position].returned)
            .min()
            .unwrap_or(u64::MAX);
        let mut candidates: Vec<usize> = { self.by_call.iter().filter(left) }
            .copied()
            .take_while(|position| self.operations[*position].called < first_return)
            .collect();
        candidates.sort_by_key(|position| {
            let operation = &self.operations[*position];
            let rank = if operation.returned.is_none() { self.model.rank(&operation.call) } else { 0 };
            std::cmp::Reverse((operation.returned.unwrap_or(u64::MAX), rank, operation.called))
        });
        candidates
    }

    fn answered_next(&self) -> Vec<usize> {
        let mut next = self.candidates();
        next.retain(|position| self.operations[*position].returned.is_some());
        next
    }

    fn is_done(&self) -> bool {
        let left = |(position, operation): (usize, &Operation<_>)| {
            operation.returned.is_some() && !self.taken.has(position)
        };
        !self.operations.iter().enumerate().any(left)
    }
}

impl Taken {
    fn new(operations: usize) -> Self {
        Self(vec![0; operations.div_ceil(64)].into_boxed_slice())
    }

    fn has(&self, position: usize) -> bool {
        self.0[position / 64] >> (position % 64) & 1 == 1
    }

    fn put(&mut self, position: usize, taken: bool) {
        let bit = 1 << (position % 64);
        let word = &mut self.0[position / 64];
        *word = if taken { *word | bit } else { *word & !bit };
    }
}
