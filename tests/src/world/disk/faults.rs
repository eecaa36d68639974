//! Which operations fail, and how.
//!
//! Two ways to ask for a fault: rates ([`Faults`]), drawn per seed so that each history has its own
//! mix, and plans ([`Disk::fail_nth`]), which hit exactly the n-th operation of a kind. Rates that
//! are the same in every history hide bugs that need one fault often and all others never.

use std::path::{Path, PathBuf};

use super::tally::Operation;
use super::{Disk, Power};
use crate::world::random::Random;

/// What goes wrong with an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// `EIO`, and nothing is done. After a sync that fails so, what it was to cover counts as clean:
    /// later syncs succeed and do not cover it (the kernel marks failed pages clean and reports the
    /// error once). A cut may then keep or lose it.
    Error,
    /// `EIO`, and a part of it or all of it is done: a prefix of a write, some of what a sync covers,
    /// a rename that has happened.
    Torn,
    /// `ENOSPC`. A write may have written a prefix. As a rate it hits only writes that grow a file.
    Full,
    /// It takes from 1 ms to 2 s longer.
    Slow,
    /// `EIO` for a page within the range read, now and until it is written again.
    Unreadable,
    /// A read gives one wrong bit; the device still has the right one.
    Flip,
    /// One bit is wrong on the device from now on: in what is read, or in what was just written.
    Rot,
    /// A read gives fewer bytes than there are, as if the file ended there.
    Short,
    /// A read gives for one block of the range what it held before its last write, or what a removed
    /// file held there.
    Stale,
    /// It goes to another place of the same file or of another one: a read gives for one block what
    /// is there, a write replaces that and leaves its own place as it was.
    Misdirected,
    /// It says that it has succeeded and has done nothing: a lost write, a sync that a device lies
    /// about.
    Skipped,
    /// A durable write ends while it is still pending, as on a device that ignores flushes.
    Early,
}

/// A group of faults, by what a correct node makes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// The operation says that it failed, or is late.
    Error,
    /// The operation succeeds and gives or leaves wrong bytes.
    Damage,
    /// The operation promises a durability that is not there: no node can notice.
    Lie,
}

/// Every fault there is, with the name it is counted under.
pub(super) const POINTS: &[(Operation, Fault, &str)] = &[
    (Operation::Read, Fault::Error, "read EIO"),
    (Operation::Read, Fault::Unreadable, "read of an unreadable sector"),
    (Operation::Read, Fault::Slow, "slow read"),
    (Operation::Read, Fault::Flip, "bit flipped in a read"),
    (Operation::Read, Fault::Rot, "stored bit flipped before a read"),
    (Operation::Read, Fault::Short, "short read"),
    (Operation::Read, Fault::Stale, "stale read"),
    (Operation::Read, Fault::Misdirected, "misdirected read"),
    (Operation::Write, Fault::Error, "write EIO"),
    (Operation::Write, Fault::Torn, "write EIO after a part"),
    (Operation::Write, Fault::Full, "write ENOSPC"),
    (Operation::Write, Fault::Slow, "slow write"),
    (Operation::Write, Fault::Rot, "stored bit flipped in a write"),
    (Operation::Write, Fault::Misdirected, "misdirected write"),
    (Operation::Write, Fault::Skipped, "lost write"),
    (Operation::Write, Fault::Early, "durable write ended early"),
    (Operation::Sync, Fault::Error, "sync EIO"),
    (Operation::Sync, Fault::Torn, "sync EIO after a part"),
    (Operation::Sync, Fault::Slow, "slow sync"),
    (Operation::Sync, Fault::Skipped, "skipped sync"),
    (Operation::SyncDirectory, Fault::Error, "directory sync EIO"),
    (Operation::SyncDirectory, Fault::Torn, "directory sync EIO after a part"),
    (Operation::SyncDirectory, Fault::Slow, "slow directory sync"),
    (Operation::SyncDirectory, Fault::Skipped, "skipped directory sync"),
    (Operation::Open, Fault::Error, "open EIO"),
    (Operation::Create, Fault::Error, "create EIO"),
    (Operation::Create, Fault::Torn, "create EIO when done"),
    (Operation::Create, Fault::Full, "create ENOSPC"),
    (Operation::CreateDirectory, Fault::Error, "directory create EIO"),
    (Operation::CreateDirectory, Fault::Torn, "directory create EIO when done"),
    (Operation::CreateDirectory, Fault::Full, "directory create ENOSPC"),
    (Operation::Rename, Fault::Error, "rename EIO"),
    (Operation::Rename, Fault::Torn, "rename EIO when done"),
    (Operation::Rename, Fault::Full, "rename ENOSPC"),
    (Operation::Remove, Fault::Error, "remove EIO"),
    (Operation::Remove, Fault::Torn, "remove EIO when done"),
    (Operation::List, Fault::Error, "list EIO"),
    (Operation::Inspect, Fault::Error, "inspect EIO"),
    (Operation::Lock, Fault::Error, "lock EIO"),
];

/// The number of a fault that an operation can have.
pub(super) fn point(operation: Operation, fault: Fault) -> Option<usize> {
    POINTS.iter().position(|(at, what, _)| (*at, *what) == (operation, fault))
}

fn class(operation: Operation, fault: Fault) -> Class {
    match fault {
        Fault::Error | Fault::Torn | Fault::Full | Fault::Slow | Fault::Unreadable => Class::Error,
        Fault::Skipped if operation == Operation::Write => Class::Damage,
        Fault::Flip | Fault::Rot | Fault::Short | Fault::Stale | Fault::Misdirected => Class::Damage,
        Fault::Skipped | Fault::Early => Class::Lie,
    }
}

/// How often what fails.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Point, and that it is hit once in so many operations.
    rates: Vec<(usize, u64)>,
}

impl Faults {
    /// Nothing fails.
    pub fn none() -> Self {
        Self::default()
    }

    /// Some errors, delays and damage, in rates of this draw's own; no lies about durability.
    pub fn draw(random: &mut Random) -> Self {
        let mut faults = Self::errors(random);
        faults.rates.extend(Self::damage(random).rates);
        faults
    }

    /// Some of the faults that the operation itself reports (and delays).
    pub fn errors(random: &mut Random) -> Self {
        Self::drawn(random, Class::Error)
    }

    /// Some of the faults that leave or give wrong bytes while the operation succeeds.
    pub fn damage(random: &mut Random) -> Self {
        Self::drawn(random, Class::Damage)
    }

    /// One more rate: the operation has this fault once in `one_in` times, always if that is 1.
    ///
    /// # Panics
    /// When the operation cannot have that fault, or `one_in` is 0.
    #[must_use]
    pub fn with(mut self, operation: Operation, fault: Fault, one_in: u64) -> Self {
        let point = point(operation, fault).expect("the operation can have this fault");
        assert!(one_in > 0, "once in no times");
        self.rates.push((point, one_in));
        self
    }

    fn drawn(random: &mut Random, wanted: Class) -> Self {
        // A few kinds, about half of them, or every kind; rarely enough that histories go on.
        let density = [8, 2, 1][random.below(3) as usize];
        let mut faults = Self::none();
        for (index, (operation, fault, _)) in POINTS.iter().enumerate() {
            if class(*operation, *fault) == wanted && random.one_in(density) {
                faults.rates.push((index, 1 << random.between(4, 12)));
            }
        }
        faults
    }
}

/// Which operations a plan is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    operation: Option<Operation>,
    path_part: Option<String>,
}

impl Filter {
    /// All operations that can have the fault.
    pub fn any() -> Self {
        Self::default()
    }

    /// Only those on files and directories whose path now contains `part`.
    #[must_use]
    pub fn on(mut self, part: &str) -> Self {
        self.path_part = Some(part.to_owned());
        self
    }

    fn covers(&self, operation: Operation, paths: &[&Path]) -> bool {
        let named = |part: &String| paths.iter().any(|path| path.to_string_lossy().contains(part.as_str()));
        self.operation.is_none_or(|wanted| wanted == operation) && self.path_part.as_ref().is_none_or(named)
    }
}

impl From<Operation> for Filter {
    fn from(operation: Operation) -> Self {
        Self { operation: Some(operation), path_part: None }
    }
}

/// A fault that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injected {
    /// The number of the operation, counted from 1 as [`Disk::operations`] does.
    pub operation: u64,
    /// What happened, as it is counted.
    pub name: &'static str,
    /// The file or directory it was about. For misdirected operations: the place gone to.
    pub path: PathBuf,
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// Faults remembered one by one; further ones are only counted.
const INJECTED_MAX: usize = 1024;

/// What is to fail on one disk.
#[derive(Debug, Default)]
pub(super) struct Orders {
    rates: Vec<(usize, u64)>,
    plans: Vec<Plan>,
    injected: Vec<Injected>,
}

#[derive(Debug)]
struct Plan {
    filter: Filter,
    fault: Fault,
    skip: u64,
    times: u64,
}

/// A fault that is due, and whether it was planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) fault: Fault,
    pub(super) planned: bool,
}

/// What a test asks for.
impl Disk {
    /// Sets the rates of faults, in place of those before; [`Faults::none`] lets a history heal.
    /// Plans stay.
    pub fn set_faults(&self, faults: Faults) {
        self.orders.borrow_mut().rates = faults.rates;
        self.arm();
    }

    /// Has the `n`-th operation from now on (from 1) that the filter covers, and that can have the
    /// fault, have it.
    ///
    /// # Panics
    /// When `n` is 0, when the operation cannot have the fault, or for a slow operation by path.
    pub fn fail_nth(&self, filter: impl Into<Filter>, n: u64, fault: Fault) {
        self.plan(filter.into(), n, 1, fault);
    }

    /// Like [`Disk::fail_nth`] for that operation and all that follow it.
    ///
    /// # Panics
    /// As [`Disk::fail_nth`].
    pub fn fail_from(&self, filter: impl Into<Filter>, n: u64, fault: Fault) {
        self.plan(filter.into(), n, u64::MAX, fault);
    }

    /// How many faults have happened, up to 1,024.
    pub fn faults_met(&self) -> usize {
        self.orders.borrow().injected.len()
    }

    /// Keeps old content from now on, for stale reads that are asked for later.
    pub fn keep_old(&self) {
        self.keeps_old.set(true);
    }

    /// Ends all rates and plans, and makes unreadable sectors readable. Damage that was done stays.
    pub fn heal(&self) {
        let mut orders = self.orders.borrow_mut();
        orders.rates.clear();
        orders.plans.clear();
        drop(orders);
        for (_, inode) in self.tree.borrow().files() {
            inode.borrow_mut().make_readable();
        }
        self.arm();
    }

    /// The first 1,024 faults that have happened, in their order.
    pub fn injected(&self) -> Vec<Injected> {
        self.orders.borrow().injected.clone()
    }

    fn plan(&self, filter: Filter, n: u64, times: u64, fault: Fault) {
        let can = filter.operation.is_none_or(|operation| point(operation, fault).is_some());
        assert!(can, "{filter:?} cannot have {fault:?}");
        assert!(n > 0, "operations are counted from 1");
        assert!(fault != Fault::Slow || filter.path_part.is_none(), "slow operations are not told by path");
        self.orders.borrow_mut().plans.push(Plan { filter, fault, skip: n - 1, times });
        self.arm();
    }

    fn arm(&self) {
        let orders = self.orders.borrow();
        self.armed.set(!orders.rates.is_empty() || !orders.plans.is_empty());
        let stale = |(point, _): &(usize, u64)| POINTS[*point].1 == Fault::Stale;
        let planned = |plan: &Plan| plan.fault == Fault::Stale;
        if orders.rates.iter().any(stale) || orders.plans.iter().any(planned) {
            self.keeps_old.set(true);
        }
    }
}

impl Disk {
    /// The fault that an operation is to have as it takes effect.
    pub(super) fn due(&self, operation: Operation, paths: &[&Path]) -> Option<Due> {
        // What was under way at a cut has enough to bear.
        if !self.armed.get() || self.power.get() != Power::On {
            return None;
        }
        self.pick(operation, paths, |fault| fault != Fault::Slow)
    }

    /// How much longer an operation is to take that starts now.
    pub(in crate::world) fn delay_nanos(&self, operation: Operation) -> u64 {
        if !self.armed.get() || self.pick(operation, &[], |fault| fault == Fault::Slow).is_none() {
            return 0;
        }
        self.inject(operation, Fault::Slow, Path::new(""), 0, 0);
        let mut random = self.random.borrow_mut();
        let scale = random.between(20, 30);
        random.between(1 << scale, 2 << scale)
    }

    fn pick(&self, operation: Operation, paths: &[&Path], wanted: impl Fn(Fault) -> bool) -> Option<Due> {
        let mut orders = self.orders.borrow_mut();
        let mut planned = None;
        for plan in orders.plans.iter_mut().filter(|plan| wanted(plan.fault)) {
            if point(operation, plan.fault).is_none() || !plan.filter.covers(operation, paths) {
                continue;
            }
            if plan.skip > 0 {
                plan.skip -= 1;
            } else if plan.times > 0 {
                plan.times -= 1;
                planned = planned.or(Some(Due { fault: plan.fault, planned: true }));
            }
        }
        if planned.is_some() {
            return planned;
        }
        let mut random = self.random.borrow_mut();
        let mut here = orders.rates.iter().filter(|(point, _)| POINTS[*point].0 == operation);
        let hit = here.find(|(point, one_in)| wanted(POINTS[*point].1) && random.one_in(*one_in))?;
        Some(Due { fault: POINTS[hit.0].1, planned: false })
    }

    /// Counts and remembers a fault that happens.
    pub(super) fn inject(&self, operation: Operation, fault: Fault, path: &Path, offset: u64, bytes: u64) {
        let point = point(operation, fault).expect("only faults in the list are drawn");
        let mut tally = self.tally.borrow_mut();
        tally.faults[point] += 1;
        self.unnoted.set(Some(point as u64));
        let mut orders = self.orders.borrow_mut();
        if orders.injected.len() < INJECTED_MAX {
            let (operation, name) = (tally.operations() + 1, POINTS[point].2);
            orders.injected.push(Injected { operation, name, path: path.to_owned(), offset, bytes });
        }
    }

    /// The fault that has happened since the last call, for the trace.
    pub(in crate::world) fn take_unnoted(&self) -> Option<u64> {
        self.unnoted.take()
    }
}
