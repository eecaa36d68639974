//! What the clients of one world asked and were answered, and the judgement over it.
//!
//! Every call becomes one operation on each key it concerns, with the moments between which it had
//! its effect; the checker then looks for one order per key that explains all answers (`model` says
//! what a key is). Beyond single keys: a batch is atomic for keys of one partition, a namespace that
//! was dropped stays dropped, and what was answered `not applied` is no operation at all, so that
//! seeing it is inexplicable.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use pinion_engine::Stamp;

use super::model::{Answer, Asked, Change, Content, Found, KeyCall, Record, Records, rank};
use crate::linear::{Operation, Verdict, check};
use crate::trials::Counts;

/// Steps that the search for an order of one key's calls may take.
const STEPS_MAX: u64 = 2_000_000;

/// A key of a namespace.
pub(super) type Name = (u32, Rc<[u8]>);

/// When a call began and ended: numbers of events in the world, and milliseconds of the wall clock
/// outside of the node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) called: u64,
    pub(super) from_ms: u64,
    /// `None` = its outcome is not known.
    pub(super) returned: Option<(u64, u64)>,
}

/// How far the node's wall clock is shifted from the one outside, and the least and the most that it
/// ever was, in milliseconds.
#[derive(Debug, Default, Clone, Copy)]
struct Shift {
    now: i64,
    least: i64,
    most: i64,
}

/// Everything that was asked and answered in one world.
#[derive(Default)]
pub(super) struct History {
    moments: Cell<u64>,
    shift_ms: Cell<Shift>,
    calls: Cell<usize>,
    keys: RefCell<BTreeMap<Name, Vec<Operation<KeyCall>>>>,
    /// Parts of batches that are all applied or none, and whose answer was lost.
    open_batches: RefCell<Vec<(Stamp, Vec<Name>)>>,
    /// When each namespace was known to be dropped, and when somebody first asked for it.
    dropped: RefCell<BTreeMap<u32, (u64, Option<u64>)>>,
    /// What is wrong already.
    faults: RefCell<Vec<String>>,
}

/// A history that no correct server has.
#[derive(Debug)]
pub(super) struct Wrong(String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl History {
    /// The number of the next event.
    pub(super) fn moment(&self) -> u64 {
        self.moments.set(self.moments.get() + 1);
        self.moments.get()
    }

    /// Counts a call; gives its number.
    pub(super) fn begin(&self) -> usize {
        self.calls.set(self.calls.get() + 1);
        self.calls.get()
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.get()
    }

    /// The node's wall clock is shifted by this much more.
    pub(super) fn shift(&self, by_ms: i64) {
        let Shift { now, least, most } = self.shift_ms.get();
        let now = now + by_ms;
        self.shift_ms.set(Shift { now, least: least.min(now), most: most.max(now) });
    }

    /// Notes what one call asked of one key, when it is over: the clock may have been shifted since it
    /// began.
    pub(super) fn note(&self, name: &Name, call: usize, span: Span, asked: Asked) {
        let shift = self.shift_ms.get();
        let from_ms = span.from_ms.saturating_add_signed(shift.least);
        let until_ms =
            span.returned.map_or(u64::MAX, |(_, until_ms)| until_ms.saturating_add_signed(shift.most));
        let operation = Operation {
            called: span.called,
            returned: span.returned.map(|(returned, _)| returned),
            call: KeyCall { asked, from_ms, until_ms, call, rank: 0 },
        };
        self.keys.borrow_mut().entry(name.clone()).or_default().push(operation);
    }

    /// Notes keys of one partition that a batch of unknown outcome writes.
    pub(super) fn note_open_batch(&self, stamp: Stamp, names: Vec<Name>) {
        self.open_batches.borrow_mut().push((stamp, names));
    }

    /// Somebody asks for a namespace to be dropped.
    pub(super) fn dropping(&self, namespace: u32, called: u64) {
        let mut dropped = self.dropped.borrow_mut();
        let (first, _) = dropped.entry(namespace).or_insert((called, None));
        *first = (*first).min(called);
    }

    /// That was answered.
    pub(super) fn dropped(&self, namespace: u32, returned: u64) {
        let mut dropped = self.dropped.borrow_mut();
        let (_, known) = dropped.entry(namespace).or_insert((returned, None));
        *known = Some(known.map_or(returned, |known| known.min(returned)));
    }

    pub(super) fn was_dropped(&self, namespace: u32) -> bool {
        self.dropped.borrow().contains_key(&namespace)
    }

    /// A call on this namespace was carried out.
    pub(super) fn namespace_answered(&self, namespace: u32, called: u64) {
        if let Some((_, Some(known))) = self.dropped.borrow().get(&namespace)
            && called > *known
        {
            self.wrong(format!("namespace {namespace} answers at {called} after it was dropped at {known}"));
        }
    }

    /// A call was told that this namespace does not exist.
    pub(super) fn namespace_missing(&self, namespace: u32) {
        if !self.was_dropped(namespace) {
            self.wrong(format!("namespace {namespace} is gone, though nobody dropped it"));
        }
    }

    /// Notes what no order of calls could explain.
    pub(super) fn wrong(&self, what: String) {
        self.faults.borrow_mut().push(what);
    }

    /// The keys that were written or read.
    pub(super) fn names(&self) -> Vec<Name> {
        self.keys.borrow().keys().cloned().collect()
    }

    /// Whether one order per key explains everything. `settled` is a moment after which nothing was
    /// under way any more.
    pub(super) fn judge(&self, settled: u64, counts: &mut Counts) -> Result<(), Wrong> {
        if let Some(wrong) = self.faults.borrow().first() {
            return Err(Wrong(wrong.clone()));
        }
        let mut keys = self.keys.borrow_mut();
        self.close_seen_batches(&mut keys, settled, counts);
        for ((namespace, key), operations) in &mut *keys {
            rank(operations);
            counts.add("keys judged", 1);
            counts.add("operations judged", operations.len() as u64);
            let open = operations.iter().filter(|operation| operation.returned.is_none()).count();
            counts.add("operations of unknown outcome", open as u64);
            match check(&Records, Record::NONE, operations, STEPS_MAX) {
                Verdict::Linearizable(_) => {}
                Verdict::Undecided { order, stuck } => {
                    let title = format!("{STEPS_MAX} steps do not decide about {}", key.escape_ascii());
                    println!("{}", title + &explained(operations, &order, &stuck));
                    counts.add("keys undecided", 1);
                }
                Verdict::Impossible { order, stuck } => {
                    let key = key.escape_ascii();
                    let title = format!("no order explains what was answered about {key} of {namespace}");
                    return Err(Wrong(title + &explained(operations, &order, &stuck)));
                }
            }
        }
        Ok(())
    }

    /// A batch that was seen on one key was applied to all keys of its partition.
    fn close_seen_batches(
        &self,
        keys: &mut BTreeMap<Name, Vec<Operation<KeyCall>>>,
        settled: u64,
        counts: &mut Counts,
    ) {
        for (stamp, names) in &*self.open_batches.borrow() {
            let seen = |name: &Name| {
                let operations = keys.get(name).into_iter().flatten();
                operations
                    .filter_map(|operation| seen_stamp(&operation.call.asked))
                    .any(|seen| seen == *stamp)
            };
            if !names.iter().any(seen) {
                continue;
            }
            counts.add("lost batches found applied", 1);
            for name in names {
                let operations = keys.get_mut(name).into_iter().flatten();
                for operation in operations {
                    if matches!(&operation.call.asked, Asked::Stamped { stamp: of, .. } if of == stamp) {
                        operation.returned.get_or_insert(settled);
                    }
                }
            }
        }
    }
}

/// The version that an answer has shown.
fn seen_stamp(asked: &Asked) -> Option<Stamp> {
    match asked {
        Asked::Read(found) => found.as_ref().map(|found| found.version),
        Asked::Write { answer: Answer::Failed { current }, .. } => *current,
        _ => None,
    }
}

/// The calls on a key as far as an order was found, and what could not follow.
fn explained(operations: &[Operation<KeyCall>], order: &[usize], stuck: &[usize]) -> String {
    let line = |position: &usize| {
        let Operation { called, returned, call } = &operations[*position];
        let returned = returned.map_or("?".into(), |returned| returned.to_string());
        let until_ms = if call.until_ms == u64::MAX { "?".into() } else { call.until_ms.to_string() };
        let times = format!("{called}..{returned} ({}..{until_ms} ms)", call.from_ms);
        format!("\n  {times} call {}: {}", call.call, said(&call.asked))
    };
    let ordered: String = order.iter().map(line).collect();
    let stuck_lines: String = stuck.iter().map(line).collect();
    let taken: BTreeSet<&usize> = order.iter().chain(stuck).collect();
    let left: Vec<usize> = (0..operations.len()).filter(|position| !taken.contains(position)).collect();
    let left: String = left.iter().map(line).collect();
    format!(":{ordered}\nand then none of:{stuck_lines}\nnot yet or never:{left}")
}

fn said(asked: &Asked) -> String {
    let change = |change: &Change| match change {
        Change::Put { value, ttl_ms } => format!("put {value} ttl {ttl_ms}"),
        other => format!("{other:?}"),
    };
    match asked {
        Asked::Read(None) => "read: none".into(),
        Asked::Read(Some(Found { value, version, expiry_ms })) => {
            let value = value.as_ref().map_or("not shown".into(), Content::to_string);
            format!("read: {value} of {version:?} until {expiry_ms}")
        }
        Asked::Stamped { stamp, change: wanted, answer } => {
            format!("{} stamped {stamp:?}: {answer:?}", change(wanted))
        }
        Asked::Write { condition, change: wanted, answer } => {
            format!("{} if {condition:?}: {answer:?}", change(wanted))
        }
        Asked::Superseded(stamp) => format!("superseded {stamp:?}"),
    }
}
