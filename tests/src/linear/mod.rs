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
//! Open calls are what makes it slow: their number of orders is that of all permutations, and hardly
//! any of them is needed. So orders in which few open calls follow each other without an answered one
//! in between are searched first ([`RUNS`]). What such a search finds is an order like any other; that
//! there is none is said only by a search that left nothing out.
//!
//! Limits: the time is exponential at worst. [`check`] gives up after so many steps and says so.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

/// How many open calls may follow each other in the searches before the one without this limit.
const RUNS: [u32; 3] = [1, 2, 4];

/// Share of the steps that each of those may take: one in so many.
const RUN_STEPS_SHARE: u64 = 4;

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
    /// The search was given up. What it had found until then, as above.
    Undecided {
        /// Positions of the operations in the longest order.
        order: Vec<usize>,
        /// Positions of the answered operations that were next.
        stuck: Vec<usize>,
    },
}

/// Looks for an order of the operations of one key, from an initial state. Takes up to `steps_max`
/// steps, and three quarters as many before in the searches that leave orders out.
pub fn check<M: Model>(
    model: &M,
    initial: M::State,
    operations: &[Operation<M::Call>],
    steps_max: u64,
) -> Verdict {
    let mut by_call: Vec<usize> = (0..operations.len()).collect();
    by_call.sort_by_key(|position| operations[*position].called);
    let searches = { RUNS.into_iter().map(|run_max| (run_max, steps_max / RUN_STEPS_SHARE)) }
        .chain([(u32::MAX, steps_max)]);
    let mut verdict = Verdict::Undecided { order: Vec::new(), stuck: Vec::new() };
    for (run_max, steps_max) in searches {
        let mut search = Search {
            model,
            operations,
            by_call: by_call.clone(),
            taken: Taken::new(operations.len()),
            seen: HashMap::new(),
            run_max,
            left_out: false,
        };
        verdict = search.run(initial.clone(), steps_max);
        let is_final = match verdict {
            Verdict::Linearizable(_) => true,
            Verdict::Impossible { .. } => !search.left_out,
            Verdict::Undecided { .. } => false,
        };
        if is_final {
            return verdict;
        }
    }
    verdict
}

struct Search<'a, M: Model> {
    model: &'a M,
    operations: &'a [Operation<M::Call>],
    by_call: Vec<usize>,
    taken: Taken,
    /// What was entered, and with how many open calls at the end: with more than that, nothing is
    /// possible that was not possible then.
    seen: HashMap<(Taken, M::State), u32>,
    /// Open calls that may follow each other.
    run_max: u32,
    /// Whether that limit has left orders out.
    left_out: bool,
}

/// A set of operations.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Taken(Box<[u64]>);

/// A point of the search: a state, and the ways on that have not been tried.
struct Branch<S> {
    state: S,
    /// The operation that led here; `None` at the start.
    by: Option<usize>,
    /// Open operations that led here since the last answered one.
    run: u32,
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
        let mut path = vec![Branch { state: initial, by: None, run: 0, candidates, ways: Vec::new() }];
        let order =
            |path: &[Branch<M::State>]| path.iter().filter_map(|branch| branch.by).collect::<Vec<_>>();
        if self.is_done() {
            return Verdict::Linearizable(Vec::new());
        }
        while let Some(branch) = path.last_mut() {
            if let Some((operation, state)) = branch.ways.pop() {
                let run = if self.operations[operation].returned.is_none() { branch.run + 1 } else { 0 };
                self.taken.put(operation, true);
                if !self.enter(&state, run) {
                    self.taken.put(operation, false);
                    continue;
                }
                let candidates = self.candidates();
                path.push(Branch { state, by: Some(operation), run, candidates, ways: Vec::new() });
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
            if self.operations[operation].returned.is_none() && branch.run >= self.run_max {
                self.left_out = true;
                continue;
            }
            steps += 1;
            if steps > steps_max {
                return Verdict::Undecided { order: longest.0, stuck: longest.1 };
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

    /// Whether there is something to look for in this state, after the operations taken.
    fn enter(&mut self, state: &M::State, run: u32) -> bool {
        match self.seen.entry((self.taken.clone(), state.clone())) {
            Entry::Vacant(entry) => {
                entry.insert(run);
                true
            }
            // Without a limit the way here does not matter.
            Entry::Occupied(entry) if self.run_max == u32::MAX || *entry.get() <= run => false,
            Entry::Occupied(mut entry) => {
                entry.insert(run);
                true
            }
        }
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
