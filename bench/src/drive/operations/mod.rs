//! The operations of one thread of a load, whatever way they take to the target.
//!
//! A slot is a place for one operation in flight. An operation goes through one or two requests (an
//! update reads before it writes) and keeps its slot until it ends. In a closed loop a slot that becomes
//! free takes the next operation at once. In an open loop operations are due at fixed times, whatever the
//! target does: one that is due takes a free slot or waits for one, and its latency counts from when it was
//! due (Tene, "How NOT to measure latency", 2013: no coordinated omission). Over sockets a fast load is begun in
//! bursts (see `PACE_NS`).
//!
//! What the target refuses rests for a while in its slot and is asked again.
//!
//! Those who carry requests (`sockets`, `engine`, `blocking`) go through the same turn: [`look`], [`tick`],
//! what has [`rested`], what is [`next`], and when nothing is left to do at once, sleeping until [`wake_ns`].
//!
//! [`look`]: Operations::look
//! [`tick`]: Operations::tick
//! [`rested`]: Operations::rested
//! [`next`]: Operations::next
//! [`wake_ns`]: Operations::wake_ns

mod answers;

use std::collections::VecDeque;
use std::iter;
use std::ops::Range;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Barrier};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::batch::Batch;
use super::part::Part;
use super::shared::Shared;
use super::span::Span;
use super::speech::{Ask, AskOptions};
use super::tally::{Second, Tally};
use super::target::Target;
use super::{Phase, Plan, signals};
use crate::error::{Error, Result};
use crate::load::{Random, thread_cpu_time};
use crate::rests::Rests;
use crate::workload::draw::Chooser;
use crate::workload::record::{Stamp, ValueForm};
use crate::workload::{Kind, ScanOrder};

/// Open loop over sockets: what falls due within so long of an operation that was begun is begun together.
/// One by one, a fast load would be awake all the time, and on a machine of few processors it would keep what
/// else must run there waiting: the kernel's own threads, which end the target's synced writes, for
/// milliseconds. Latencies count from when an operation was due, so this is in them.
const PACE_NS: u64 = 50_000;
/// No answer on any connection for so long, while one is due, is a failure.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// How long operations in flight may take to end when the time is over.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Records that are looked at for one that may be written, when values are verified.
const WRITABLE_TRIES: usize = 64;
const SECOND_NS: u64 = 1_000_000_000;
/// A thread that counts its operations itself tells of so many at a time.
const COUNTED: u64 = 64;

/// What all threads are given.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) plan: Arc<Plan>,
    pub(super) phase: Phase,
    pub(super) shared: Arc<Shared>,
    /// Where threads wait until all are ready.
    pub(super) ready: Arc<Barrier>,
    pub(super) span: Arc<Span>,
    /// Takes every second of every thread.
    pub(super) seconds: Sender<Second>,
}

/// What a thread has come to: what it counted, and why it ended early, if it did.
pub(super) type Ended = (Tally, Option<Error>);

/// What comes after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// The operation has ended: its slot goes to another, or is to be freed.
    Ends,
    /// It has another request.
    Asks,
    /// It was refused, and rests.
    Rests,
}

/// A place for one operation.
#[derive(Debug, Default)]
struct Slot {
    kind: Option<Kind>,
    number: u64,
    /// What it asks now.
    step: Step,
    /// When it was due, and when its present request was first sent.
    due_ns: u64,
    step_ns: u64,
    /// When its present request was sent last; none when that has been answered.
    sent_ns: Option<u64>,
    key: Vec<u8>,
    value: Vec<u8>,
    /// The records of a write of many.
    batch: Batch,
    scan_limit: u64,
    refusals: u32,
    /// The version that it writes; 0 = values are not verified.
    version: u64,
    /// The least version that it may read.
    floor: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Step {
    #[default]
    Get,
    Put,
    PutMany,
    Delete,
    Scan,
}

/// Whether the thread measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Warming,
    Measuring,
    Draining { until_ns: u64 },
}

/// See the module.
pub(super) struct Operations {
    job: Job,
    part: Part,
    /// By connection, then by depth.
    slots: Vec<Slot>,
    free: VecDeque<usize>,
    rests: Rests<usize>,
    /// Numbers that were taken from the budget and not used yet.
    numbers: Range<u64>,
    random: Random,
    chooser: Chooser,
    tally: Tally,
    second: Second,
    stage: Stage,
    /// When the measurement began.
    measured_from_ns: u64,
    /// Open loop: when the next operation is due, and how much later the one after it.
    next_due_ns: u64,
    due_step_ns: Option<f64>,
    /// Open loop: what was due by then is begun.
    begun_by_ns: u64,
    /// At the earliest so long after that, more is.
    pace_ns: u64,
    /// Operations that were due before, and the thread's part of a step: threads take turns.
    due_count: f64,
    /// No operation is begun any more.
    is_ended: bool,
    /// What ends now was begun in time but ends too late to count.
    is_late: bool,
    now_ns: u64,
    /// When the target was heard last, or nothing was to be heard.
    heard_ns: u64,
    /// Processor time of the thread when it began.
    cpu: Duration,
}

impl Job {
    /// How writes and scans are made.
    pub(super) fn ask_options(&self) -> AskOptions {
        let workload = &self.plan.workload;
        AskOptions {
            durability: workload.durability,
            ttl_ms: workload.ttl_ms,
            scanned: workload.share(Kind::Scan) > 0.0,
            scan_order: workload.setup.scan_order.unwrap_or(ScanOrder::Placement),
            verified: self.plan.verify,
        }
    }

    /// Connections of each thread.
    pub(super) fn connections(&self) -> usize {
        self.plan.connections / self.plan.threads
    }

    fn warmup_ns(&self) -> u64 {
        if self.phase == Phase::Run { self.plan.warmup.as_nanos() as u64 } else { 0 }
    }

    /// Ends a thread that has nothing to ask with, and the load with it.
    pub(super) fn fail(&self, error: Error) -> Ended {
        self.shared.stop();
        self.ready.wait();
        (Tally::default(), Some(error))
    }
}

impl Operations {
    /// Of a thread by its number. They begin with [`Operations::begin`].
    pub(super) fn new(job: Job, index: usize, part: Part) -> Self {
        let Plan { workload, depth, seed, rate, threads, target, .. } = &*job.plan;
        let seed = seed.wrapping_mul(0x9E37_79B9).wrapping_add(index as u64);
        // Who has records of his own goes through all of them.
        let lane = if part.is_own() { (0, 1) } else { (index as u64, *threads as u64) };
        let chooser = Chooser::new(
            workload.distribution,
            (workload.insert_start, workload.insert_count),
            job.plan.expected_inserts(),
            seed ^ 0x5DEE_CE66,
            lane,
        );
        let slots = job.connections() * *depth;
        let pace_ns = if matches!(target, Target::Network { .. }) { PACE_NS } else { 0 };
        let rate = rate.filter(|_| job.phase == Phase::Run).map(|rate| rate / *threads as f64);
        // Threads take turns, so that together they ask evenly.
        let (due_step_ns, due_count) =
            (rate.map(|rate| SECOND_NS as f64 / rate), index as f64 / *threads as f64);
        Self {
            job,
            part,
            slots: (0..slots).map(|_| Slot::default()).collect(),
            free: (0..slots).collect(),
            rests: Rests::new(seed),
            numbers: 0..0,
            random: Random::new(seed),
            chooser,
            tally: Tally::default(),
            second: Second::new(0),
            stage: Stage::Warming,
            measured_from_ns: 0,
            next_due_ns: due_step_ns.map_or(0, |step_ns| (due_count * step_ns) as u64),
            due_step_ns,
            begun_by_ns: 0,
            pace_ns,
            due_count,
            is_ended: false,
            is_late: false,
            now_ns: 0,
            heard_ns: 0,
            cpu: Duration::ZERO,
        }
    }

    /// Waits until all threads are ready.
    pub(super) fn begin(&mut self) {
        self.job.ready.wait();
        self.cpu = thread_cpu_time();
        self.look();
        self.heard();
    }

    /// Ends the thread's part; the load too, if it failed.
    pub(super) fn end(mut self, result: Result<()>) -> Ended {
        self.end_second(u64::MAX);
        let error = result.err();
        if error.is_some() {
            self.job.shared.stop();
        }
        self.tally.cpu = thread_cpu_time().saturating_sub(self.cpu);
        self.job.span.end();
        (self.tally, error)
    }

    /// Looks at the clock.
    pub(super) fn look(&mut self) {
        self.now_ns = self.job.span.elapsed_ns();
    }

    /// When that was.
    pub(super) const fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// The target has answered.
    pub(super) const fn heard(&mut self) {
        self.heard_ns = self.now_ns;
    }

    /// Whether the load is over: nothing is in flight any more, or it has taken too long to end.
    ///
    /// # Errors
    /// [`Error::Silent`], [`Error::Unanswered`]: the target does not answer.
    pub(super) fn is_over(&mut self) -> Result<bool> {
        let busy = self.slots.len() - self.free.len();
        let is_due = matches!(self.stage, Stage::Draining { until_ns } if self.now_ns >= until_ns);
        if self.is_ended && (busy == 0 || is_due) {
            if signals::is_stopped() {
                return Err(Error::Stopped);
            }
            if busy == 0 || self.job.shared.is_stopped() {
                return Ok(true);
            }
            let operations = self.unanswered();
            if operations > 0 {
                return Err(Error::Unanswered { operations, seconds: DRAIN_MAX.as_secs() });
            }
            // What is left was refused, and asked again since. Where every record counts it is waited for.
            if self.job.phase == Phase::Run && !self.job.plan.verify {
                return Ok(true);
            }
        }
        if busy == 0 || busy == self.rests.len() {
            self.heard();
        } else if self.now_ns >= self.silent_ns() {
            return Err(Error::Silent(SILENCE_MAX.as_secs()));
        }
        Ok(false)
    }

    /// Requests that were sent before the load was over and have no answer.
    fn unanswered(&self) -> usize {
        let sent_by_ns = self.now_ns.saturating_sub(DRAIN_MAX.as_nanos() as u64);
        self.slots.iter().filter(|slot| slot.sent_ns.is_some_and(|sent_ns| sent_ns <= sent_by_ns)).count()
    }

    fn silent_ns(&self) -> u64 {
        self.heard_ns + SILENCE_MAX.as_nanos() as u64
    }

    /// A slot whose rest is over: it asks again.
    pub(super) fn rested(&mut self) -> Option<usize> {
        let slot = self.rests.take_due(self.now_ns)?;
        self.slots[slot].sent_ns = Some(self.now_ns);
        Some(slot)
    }

    /// Begins an operation in a free slot, if there is one and an operation is due.
    pub(super) fn next(&mut self) -> Option<usize> {
        if !self.is_due() {
            return None;
        }
        let slot = self.free.pop_front()?;
        if !self.begin_in(slot) {
            self.free.push_front(slot);
            return None;
        }
        Some(slot)
    }

    /// Whether there is an operation to begin, and a slot for it.
    pub(super) fn has_next(&self) -> bool {
        self.is_due() && !self.free.is_empty()
    }

    /// After an operation has ended: begins the next one in its slot if the loop is closed, which it
    /// says; frees the slot otherwise.
    pub(super) fn again(&mut self, slot: usize) -> bool {
        let has_next = self.due_step_ns.is_none() && self.is_due() && self.begin_in(slot);
        if !has_next {
            self.free(slot);
        }
        has_next
    }

    /// After an operation has ended: its slot is free.
    pub(super) fn free(&mut self, slot: usize) {
        self.free.push_back(slot);
    }

    /// The warm-up or the time may be over, or a second.
    pub(super) fn tick(&mut self) {
        if self.next_due_ns <= self.now_ns && self.now_ns >= self.begun_by_ns + self.pace_ns {
            self.begun_by_ns = self.now_ns;
        }
        let plan = &self.job.plan;
        if self.stage == Stage::Warming && self.now_ns >= self.job.warmup_ns() {
            self.tally.restart();
            self.measured_from_ns = self.job.warmup_ns();
            self.second = Second::new(0);
            self.stage = Stage::Measuring;
        }
        let measured_ns = self.now_ns.saturating_sub(self.measured_from_ns);
        if self.stage == Stage::Measuring {
            let seconds = plan.seconds.filter(|_| self.job.phase == Phase::Run);
            let end_ns =
                seconds.map_or(u64::MAX, |seconds| self.measured_from_ns + seconds.as_nanos() as u64);
            if measured_ns / SECOND_NS > self.second.index {
                self.end_second(measured_ns / SECOND_NS);
            }
            if self.now_ns >= end_ns {
                // In an open loop what was due in time is still begun, however late it is.
                let is_behind = self.due_step_ns.is_some() && self.next_due_ns < end_ns;
                let is_hopeless = self.now_ns - end_ns >= DRAIN_MAX.as_nanos() as u64;
                self.is_ended |= !is_behind || is_hopeless;
                self.is_late = self.due_step_ns.is_none();
            }
        }
        self.is_ended |= self.job.shared.is_stopped() || signals::is_stopped();
        if self.is_ended && !matches!(self.stage, Stage::Draining { .. }) {
            if self.stage == Stage::Warming {
                self.tally.restart();
            }
            self.stage = Stage::Draining { until_ns: self.now_ns + DRAIN_MAX.as_nanos() as u64 };
        }
    }

    /// Tells the second that has ended, and begins another.
    fn end_second(&mut self, next: u64) {
        let ended = std::mem::replace(&mut self.second, Second::new(next));
        // Nobody listens any more when the load has failed.
        drop(self.job.seconds.send(ended));
    }

    /// When there will be something to do, whatever the target does.
    pub(super) fn wake_ns(&self) -> u64 {
        let rest = self.rests.next_due_ns().unwrap_or(u64::MAX);
        let due = if self.is_ended || self.due_step_ns.is_none() || self.free.is_empty() {
            u64::MAX
        } else {
            self.next_due_ns.max(self.begun_by_ns + self.pace_ns)
        };
        // Often enough to see that the time is over, and that others have stopped.
        self.silent_ns().min(rest).min(due).min(self.now_ns + SECOND_NS / 10)
    }

    fn is_due(&self) -> bool {
        !self.is_ended && (self.due_step_ns.is_none() || self.next_due_ns <= self.begun_by_ns)
    }

    /// Which operation comes next, and on which record; `None` if there is none.
    fn draw(&mut self) -> Option<(Kind, u64)> {
        let Self { job, part, chooser, random, .. } = self;
        let (phase, shared, workload) = (job.phase, &*job.shared, &job.plan.workload);
        if phase != Phase::Run && part.is_own() {
            let mut number = part.next_record(workload.insert_start + shared.budget())?;
            // Of what a run has inserted, only what was acknowledged is there for certain.
            let is_certain = |number| {
                let ledger = shared.ledger.as_ref();
                number < workload.record_count || ledger.is_some_and(|ledger| ledger.floor(number) > 0)
            };
            while phase == Phase::Verify && !is_certain(number) {
                number = part.next_record(workload.insert_start + shared.budget())?;
            }
            if self.numbers.is_empty() {
                shared.count(COUNTED);
                self.numbers = 0..COUNTED;
            }
            self.numbers.next();
            return Some((if phase == Phase::Load { Kind::Insert } else { Kind::Verify }, number));
        }
        if phase == Phase::Run && part.has_none() {
            return None;
        }
        if self.numbers.is_empty() {
            self.numbers = shared.begin();
        }
        let operation = self.numbers.next()?;
        match phase {
            Phase::Load => Some((Kind::Insert, workload.insert_start + operation * workload.batch_records)),
            Phase::Verify => Some((Kind::Verify, workload.insert_start + operation)),
            Phase::Run => match workload.draw_kind(random) {
                Kind::Insert => match part.next_insert(&shared.inserts) {
                    Some(number) => Some((Kind::Insert, number)),
                    None => Some((Kind::Read, part.draw(chooser, &shared.inserts)?)),
                },
                kind => Some((kind, part.draw(chooser, &shared.inserts)?)),
            },
        }
    }

    /// Begins an operation in a slot. False if there is none to begin.
    fn begin_in(&mut self, index: usize) -> bool {
        let Some((kind, number)) = self.draw() else {
            self.is_ended = true;
            return false;
        };
        let due_ns = match self.due_step_ns {
            None => self.now_ns,
            Some(step_ns) => {
                let due_ns = self.next_due_ns;
                self.due_count += 1.0;
                self.next_due_ns = (self.due_count * step_ns) as u64;
                due_ns
            }
        };
        let slot = &mut self.slots[index];
        (slot.kind, slot.number, slot.due_ns, slot.refusals) = (Some(kind), number, due_ns, 0);
        slot.version = 0;
        let workload = &self.job.plan.workload;
        let blind = workload.write_all_fields || matches!(workload.value, ValueForm::Plain { .. });
        slot.step = match kind {
            Kind::Read | Kind::Verify | Kind::ReadModifyWrite => Step::Get,
            Kind::Update if !blind => Step::Get,
            Kind::Update | Kind::Insert if workload.batch_records > 1 => Step::PutMany,
            Kind::Update | Kind::Insert => Step::Put,
            Kind::Delete => Step::Delete,
            Kind::Scan => Step::Scan,
        };
        if matches!(kind, Kind::Update | Kind::Insert | Kind::ReadModifyWrite) {
            self.claim(index);
        }
        let workload = &self.job.plan.workload;
        let slot = &mut self.slots[index];
        slot.key.clear();
        workload.key.append(slot.number, &mut slot.key);
        match slot.step {
            Step::Scan => slot.scan_limit = workload.scan_lengths.draw(&mut self.random).max(1),
            Step::Put => {
                let stamp = stamp(slot);
                slot.value.clear();
                workload.value.append_new(&mut self.random, stamp, &mut slot.value);
            }
            Step::PutMany => self.fill_batch(index),
            Step::Get | Step::Delete => {}
        }
        let slot = &mut self.slots[index];
        (slot.step_ns, slot.sent_ns) = (self.now_ns, Some(self.now_ns));
        slot.floor = self.job.shared.ledger.as_ref().map_or(0, |ledger| ledger.floor(slot.number));
        true
    }

    /// Chooses the records of a write of many, the first of which is chosen already.
    fn fill_batch(&mut self, index: usize) {
        let Self { job, part, chooser, random, slots, .. } = self;
        let (workload, inserts) = (&job.plan.workload, &job.shared.inserts);
        let Slot { kind, number: first, batch, .. } = &mut slots[index];
        let (first, count) = (*first, workload.batch_records);
        match (job.phase, kind) {
            (Phase::Load, _) => {
                let end = workload.insert_start + workload.insert_count;
                batch.fill(workload, random, first..end.min(first + count));
            }
            (_, Some(Kind::Insert)) => {
                let others = (1..count).map_while(|_| part.next_insert(inserts));
                batch.fill(workload, random, iter::once(first).chain(others));
            }
            _ => {
                let others = (1..count).map_while(|_| part.draw(chooser, inserts));
                batch.fill(workload, random, iter::once(first).chain(others));
            }
        }
    }

    /// When values are verified: makes the record of a slot one that nobody else writes.
    fn claim(&mut self, index: usize) {
        let shared = &*self.job.shared;
        let Some(ledger) = &shared.ledger else { return };
        let slot = &mut self.slots[index];
        let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_micros() as u64);
        for _ in 0..WRITABLE_TRIES {
            // Greater than any before, of this load or of another.
            let version = micros.max(ledger.ceiling(slot.number).unwrap_or(0) + 1);
            if ledger.begin(slot.number, version) {
                slot.version = version;
                return;
            }
            let Some(number) = self.part.draw(&mut self.chooser, &shared.inserts) else { break };
            slot.number = number;
        }
        // All of them are being written: this one reads instead.
        slot.kind = Some(Kind::Read);
        slot.step = Step::Get;
    }

    /// The present request of a slot.
    pub(super) fn ask(&self, index: usize) -> Ask<'_> {
        let slot = &self.slots[index];
        let (key, value) = (slot.key.as_slice(), slot.value.as_slice());
        match slot.step {
            Step::Get => Ask::Get { key },
            Step::Put => Ask::Put { key, value, is_new: slot.kind == Some(Kind::Insert) },
            Step::PutMany => {
                Ask::PutMany { records: slot.batch.records(), are_new: slot.kind == Some(Kind::Insert) }
            }
            Step::Delete => Ask::Delete { key },
            Step::Scan => Ask::Scan { start: key, limit: slot.scan_limit },
        }
    }
}

fn stamp(slot: &Slot) -> Option<Stamp> {
    (slot.version > 0).then_some(Stamp { number: slot.number, version: slot.version })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::super::speech::Answer;
    use super::*;
    use crate::workload::Workload;

    /// One thread with two operations in flight, at a clock that only the test moves.
    fn operations(phase: Phase, seconds: Option<u64>, verify: bool) -> Operations {
        let plan = Plan {
            workload: Workload::new("small", &[], &["recordcount=2".to_owned()]).unwrap(),
            target: "redis://127.0.0.1:1".parse().unwrap(),
            threads: 1,
            connections: 1,
            depth: 2,
            rate: None,
            seconds: seconds.map(Duration::from_secs),
            warmup: Duration::ZERO,
            verify,
            seed: 1,
            cpus: Vec::new(),
            target_process: None,
            progress: false,
        };
        let shared = Shared::new(plan.budget(phase), 1, 0, None);
        let job = Job {
            plan: Arc::new(plan),
            phase,
            shared: Arc::new(shared),
            ready: Arc::new(Barrier::new(1)),
            span: Arc::new(Span::new(None)),
            seconds: channel().0,
        };
        let mut operations = Operations::new(job, 0, Part::whole());
        operations.begin();
        operations.now_ns = 0;
        operations.tick();
        operations
    }

    fn pass(operations: &mut Operations, seconds: u64) {
        operations.now_ns += seconds * SECOND_NS;
        operations.tick();
    }

    fn refused() -> Answer {
        Answer::Refused { retry_after_ms: 3_600_000, message: "too much".to_owned() }
    }

    #[test]
    fn a_run_that_leaves_operations_unanswered_has_failed() {
        let mut operations = operations(Phase::Run, Some(5), false);
        let slots = [operations.next().unwrap(), operations.next().unwrap()];
        pass(&mut operations, 5);
        operations.answered(slots[0], &Answer::Absent, &[]).unwrap();
        operations.free(slots[0]);
        pass(&mut operations, 9);
        assert!(!operations.is_over().unwrap(), "it may still come");
        pass(&mut operations, 1);
        let error = operations.is_over().unwrap_err().to_string();
        assert!(error.starts_with("1 operations had no answer 10 s after the load was over"), "{error}");
    }

    #[test]
    fn what_rests_at_the_end_of_a_run_was_answered_and_counts_where_all_must_be_done() {
        for (phase, verify, is_over) in
            [(Phase::Run, false, true), (Phase::Run, true, false), (Phase::Load, false, false)]
        {
            let mut operations = operations(phase, Some(5), verify);
            let slot = operations.next().unwrap();
            assert_eq!(operations.answered(slot, &refused(), &[]).unwrap(), Then::Rests);
            operations.is_ended = true;
            pass(&mut operations, 5);
            pass(&mut operations, 10);
            assert_eq!(operations.is_over().unwrap(), is_over, "{phase:?} {verify}");
            // It is believed to a bound, asked again, and has as long as any other to be answered.
            assert_eq!(operations.rested(), Some(slot));
            pass(&mut operations, 9);
            assert_eq!(operations.is_over().unwrap(), is_over, "{phase:?} {verify}");
        }
    }

    #[test]
    fn refusals_alone_end_a_load() {
        let mut operations = operations(Phase::Load, None, false);
        let slots = [operations.next().unwrap(), operations.next().unwrap()];
        // Long after it began: nothing was refused until now.
        pass(&mut operations, 1000);
        operations.answered(slots[0], &refused(), &[]).unwrap();
        pass(&mut operations, 59);
        operations.answered(slots[0], &refused(), &[]).unwrap();
        operations.answered(slots[1], &Answer::Done, &[]).unwrap();
        pass(&mut operations, 1);
        operations.answered(slots[0], &refused(), &[]).unwrap();
        pass(&mut operations, 60);
        let error = operations.answered(slots[0], &refused(), &[]).unwrap_err().to_string();
        assert_eq!(error, "the server refused everything for 60 s: too much");
    }
}
