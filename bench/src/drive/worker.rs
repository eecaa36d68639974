//! One thread of a load: its connections, its operations in flight.
//!
//! A slot is a place for one operation; there are connections times depth of them. An operation goes
//! through one or two requests (an update reads before it writes) and keeps its slot until it ends. In
//! a closed loop a slot that becomes free takes the next operation at once. In an open loop operations
//! are due at fixed times, whatever the target does: one that is due takes a free slot or waits for one,
//! and its latency counts from when it was due (Tene, "How NOT to measure latency", 2013: no
//! coordinated omission). The thread sleeps in the ring until something comes or is due.
//!
//! What the target refuses rests for a while in its slot and is asked again.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::sync::mpsc::Sender;
use std::sync::{Barrier, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::shared::Shared;
use super::speech::{Answer, Answers, Ask, Talk, WriteOptions};
use super::tally::{Second, Tally};
use super::{Phase, Plan, signals};
use crate::error::{Error, Result};
use crate::load::{Random, Ring, Waited, thread_cpu_time};
use crate::workload::draw::Chooser;
use crate::workload::record::{Stamp, ValueForm};
use crate::workload::{Kind, Workload};

/// No answer on any connection for so long, while one is due, is a failure.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// How long operations in flight may take to end when the time is over.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Rest of a refused request when the target does not say, in milliseconds; it doubles up to a bound.
const REST_MS: u64 = 2;
const REST_MS_MAX: u64 = 250;
/// Records that are looked at for one that may be written, when values are verified.
const WRITABLE_TRIES: usize = 64;
const SECOND_NS: u64 = 1_000_000_000;

/// What all threads are given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) plan: &'a Plan,
    pub(super) phase: Phase,
    pub(super) shared: &'a Shared,
    pub(super) address: SocketAddr,
    /// Where threads wait until all are connected.
    pub(super) connected: &'a Barrier,
    /// When the load begins, by one clock for all: once all are connected.
    pub(super) begins: &'a OnceLock<Instant>,
    pub(super) threads: usize,
    /// Connections of each thread.
    pub(super) connections: usize,
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
    key: Vec<u8>,
    value: Vec<u8>,
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

pub(super) struct Worker<'a> {
    job: Job<'a>,
    workload: &'a Workload,
    talks: Vec<Talk>,
    /// By connection, then by depth.
    slots: Vec<Slot>,
    free: VecDeque<usize>,
    rests: BinaryHeap<Reverse<(u64, usize)>>,
    answers: Answers,
    random: Random,
    chooser: Chooser,
    tally: Tally,
    second: Second,
    seconds: Sender<Second>,
    stage: Stage,
    /// When the measurement began.
    measured_from_ns: u64,
    /// Open loop: when the next operation is due, and how much later the one after it.
    next_due_ns: u64,
    due_step_ns: Option<f64>,
    /// Operations that were due before, and the thread's part of a step: threads take turns.
    due_count: f64,
    /// No operation is begun any more.
    is_ended: bool,
    /// What ends now was begun in time but ends too late to count.
    is_late: bool,
    now_ns: u64,
}

impl<'a> Worker<'a> {
    /// Runs one thread's part of a load; what it counted, and why it ended early, if it did.
    pub(super) fn run(job: Job<'a>, index: usize, seconds: Sender<Second>) -> (Tally, Option<Error>) {
        let cpu = thread_cpu_time();
        let connected = Self::connect(job, index, seconds);
        job.connected.wait();
        let (mut tally, error) = match connected {
            Err(error) => (Tally::default(), Some(error)),
            Ok((mut worker, mut ring)) => {
                job.begins.get_or_init(Instant::now);
                let error = worker.drive(&mut ring).err();
                worker.end_second(u64::MAX);
                (worker.tally, error)
            }
        };
        if error.is_some() {
            job.shared.stop();
        }
        tally.cpu = thread_cpu_time().saturating_sub(cpu);
        (tally, error)
    }

    fn connect(job: Job<'a>, index: usize, seconds: Sender<Second>) -> Result<(Self, Ring)> {
        let Plan { workload, target, depth, seed, rate, .. } = job.plan;
        let options = WriteOptions {
            durability: workload.durability,
            ttl_ms: workload.ttl_ms,
            scanned: workload.share(Kind::Scan) > 0.0,
        };
        let (mut sockets, mut talks) = (Vec::new(), Vec::new());
        for _ in 0..job.connections {
            let (socket, talk) = Talk::open(target.speech, job.address, *depth, options)?;
            sockets.push(socket);
            talks.push(talk);
        }
        let burst_bytes = usize::try_from(workload.value.bytes_max()).unwrap_or(usize::MAX) + 256;
        let ring = Ring::new(sockets, burst_bytes.saturating_mul(*depth))?;
        let seed = seed.wrapping_mul(0x9E37_79B9).wrapping_add(index as u64);
        let chooser = Chooser::new(
            workload.distribution,
            (workload.insert_start, workload.insert_count),
            job.plan.expected_inserts(),
            seed ^ 0x5DEE_CE66,
            (index as u64, job.threads as u64),
        );
        let slots = job.connections * *depth;
        let rate = rate.filter(|_| job.phase == Phase::Run).map(|rate| rate / job.threads as f64);
        // Threads take turns, so that together they ask evenly.
        let (due_step_ns, due_count) =
            (rate.map(|rate| SECOND_NS as f64 / rate), index as f64 / job.threads as f64);
        let worker = Self {
            job,
            workload,
            talks,
            slots: (0..slots).map(|_| Slot::default()).collect(),
            free: (0..slots).collect(),
            rests: BinaryHeap::new(),
            answers: Answers::default(),
            random: Random::new(seed),
            chooser,
            tally: Tally::default(),
            second: Second::new(0),
            seconds,
            stage: Stage::Warming,
            measured_from_ns: 0,
            next_due_ns: due_step_ns.map_or(0, |step_ns| (due_count * step_ns) as u64),
            due_step_ns,
            due_count,
            is_ended: false,
            is_late: false,
            now_ns: 0,
        };
        Ok((worker, ring))
    }

    fn clock_ns(&self) -> u64 {
        let begins = self.job.begins.get_or_init(Instant::now);
        u64::try_from(begins.elapsed().as_nanos()).expect("a load takes less than 500 years")
    }

    fn drive(&mut self, ring: &mut Ring) -> Result<()> {
        self.now_ns = self.clock_ns();
        let mut heard_ns = self.now_ns;
        loop {
            self.go_on();
            while let Some(Reverse((_, slot))) =
                self.rests.peek().copied().filter(|rest| rest.0.0 <= self.now_ns)
            {
                self.rests.pop();
                let lane = slot / self.job.plan.depth;
                let mut result = Ok(());
                ring.write(lane, |out| result = self.send(slot, out));
                result?;
            }
            while !self.free.is_empty() && self.is_due() {
                let slot = self.free.pop_front().expect("just looked at");
                let lane = slot / self.job.plan.depth;
                let mut begun = Ok(false);
                ring.write(lane, |out| begun = self.begin(slot, out));
                if !begun? {
                    self.free.push_front(slot);
                    break;
                }
            }
            let busy = self.slots.len() - self.free.len();
            let is_drained =
                busy == 0 || matches!(self.stage, Stage::Draining { until_ns } if self.now_ns >= until_ns);
            if self.is_ended && is_drained {
                if signals::is_stopped() {
                    return Err(Error::Stopped);
                }
                // Operations of which nothing is known would pass for verified.
                let matters = self.job.phase != Phase::Run || self.job.plan.verify;
                let unknown = busy > 0 && matters && !self.job.shared.is_stopped();
                return if unknown { Err(Error::Silent(DRAIN_MAX.as_secs())) } else { Ok(()) };
            }
            let silent_ns = heard_ns + SILENCE_MAX.as_nanos() as u64;
            let waited =
                ring.wait(Duration::from_nanos(self.wake_ns(silent_ns).saturating_sub(self.now_ns)))?;
            self.now_ns = self.clock_ns();
            if waited == Waited::Woken || busy == 0 || busy == self.rests.len() {
                heard_ns = self.now_ns;
            } else if self.now_ns >= silent_ns {
                return Err(Error::Silent(SILENCE_MAX.as_secs()));
            }
            ring.handle(|lane, bytes, out| self.receive(lane, bytes, out))?;
        }
    }

    /// Looks at the clock: the warm-up or the time may be over, or a second.
    fn go_on(&mut self) {
        let plan = self.job.plan;
        if self.stage == Stage::Warming && self.now_ns >= self.job.warmup_ns() {
            self.tally.restart();
            self.measured_from_ns = self.job.warmup_ns();
            self.second = Second::new(0);
            self.stage = Stage::Measuring;
        }
        let measured_ns = self.now_ns.saturating_sub(self.measured_from_ns);
        if self.stage == Stage::Measuring {
            if measured_ns / SECOND_NS > self.second.index {
                self.end_second(measured_ns / SECOND_NS);
            }
            let seconds = plan.seconds.filter(|_| self.job.phase == Phase::Run);
            let end_ns =
                seconds.map_or(u64::MAX, |seconds| self.measured_from_ns + seconds.as_nanos() as u64);
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
        drop(self.seconds.send(ended));
    }

    fn wake_ns(&self, silent_ns: u64) -> u64 {
        let rest = self.rests.peek().map_or(u64::MAX, |Reverse((due_ns, _))| *due_ns);
        let due = if self.is_ended || self.due_step_ns.is_none() || self.free.is_empty() {
            u64::MAX
        } else {
            self.next_due_ns
        };
        // Often enough to see that the time is over, and that others have stopped.
        silent_ns.min(rest).min(due).min(self.now_ns + SECOND_NS / 10)
    }

    fn is_due(&self) -> bool {
        !self.is_ended && (self.due_step_ns.is_none() || self.next_due_ns <= self.now_ns)
    }

    /// Begins an operation in a free slot. False if there is none to begin.
    fn begin(&mut self, index: usize, out: &mut Vec<u8>) -> Result<bool> {
        let Some(operation) = self.job.shared.begin() else {
            self.is_ended = true;
            return Ok(false);
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
        let workload = self.workload;
        let (kind, number) = match self.job.phase {
            Phase::Load => (Kind::Insert, workload.insert_start + operation),
            Phase::Verify => (Kind::Verify, workload.insert_start + operation),
            Phase::Run => match workload.draw_kind(&mut self.random) {
                Kind::Insert => (Kind::Insert, self.job.shared.inserts.next()),
                kind => (kind, self.chooser.draw(self.job.shared.inserts.last())),
            },
        };
        let slot = &mut self.slots[index];
        (slot.kind, slot.number, slot.due_ns, slot.refusals) = (Some(kind), number, due_ns, 0);
        slot.version = 0;
        let blind = workload.write_all_fields || matches!(workload.value, ValueForm::Plain { .. });
        slot.step = match kind {
            Kind::Read | Kind::Verify | Kind::ReadModifyWrite => Step::Get,
            Kind::Update if !blind => Step::Get,
            Kind::Update | Kind::Insert => Step::Put,
            Kind::Delete => Step::Delete,
            Kind::Scan => Step::Scan,
        };
        if matches!(kind, Kind::Update | Kind::Insert | Kind::ReadModifyWrite) {
            self.claim(index);
        }
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
            Step::Get | Step::Delete => {}
        }
        slot.step_ns = self.now_ns;
        slot.floor = self.job.shared.ledger.as_ref().map_or(0, |ledger| ledger.floor(slot.number));
        self.send(index, out)?;
        Ok(true)
    }

    /// When values are verified: makes the record of a slot one that nobody else writes.
    fn claim(&mut self, index: usize) {
        let Some(ledger) = &self.job.shared.ledger else { return };
        let slot = &mut self.slots[index];
        let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_micros() as u64);
        for _ in 0..WRITABLE_TRIES {
            // Greater than any before, of this load or of another.
            let version = micros.max(ledger.ceiling(slot.number).unwrap_or(0) + 1);
            if ledger.begin(slot.number, version) {
                slot.version = version;
                return;
            }
            slot.number = self.chooser.draw(self.job.shared.inserts.last());
        }
        // All of them are being written: this one reads instead.
        slot.kind = Some(Kind::Read);
        slot.step = Step::Get;
    }

    /// Sends the present request of a slot, for the first time or again.
    fn send(&mut self, index: usize, out: &mut Vec<u8>) -> Result<()> {
        let slot = &self.slots[index];
        let (key, value) = (slot.key.as_slice(), slot.value.as_slice());
        let ask = match slot.step {
            Step::Get => Ask::Get { key },
            Step::Put => Ask::Put { key, value, is_new: slot.kind == Some(Kind::Insert) },
            Step::Delete => Ask::Delete { key },
            Step::Scan => Ask::Scan { start: key, limit: slot.scan_limit },
        };
        let depth = self.job.plan.depth;
        self.talks[index / depth].ask(index % depth, ask, out)
    }

    fn receive(&mut self, lane: usize, bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let mut answers = std::mem::take(&mut self.answers);
        answers.clear();
        let received = self.talks[lane].receive(bytes, &mut answers, out);
        for (slot, answer) in &answers.list {
            let index = lane * self.job.plan.depth + slot;
            if self.answered(index, answer, &answers.bytes, out)? {
                self.slots[index].kind = None;
                let has_next = self.due_step_ns.is_none() && self.is_due() && self.begin(index, out)?;
                if !has_next {
                    self.free.push_back(index);
                }
            }
        }
        self.answers = answers;
        received
    }

    /// Takes an answer. True if the operation has ended.
    fn answered(&mut self, index: usize, answer: &Answer, bytes: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        let now_ns = self.now_ns;
        let slot = &mut self.slots[index];
        let Some(kind) = slot.kind else { return Err(Error::Answer("an answer to nothing".to_owned())) };
        let (since_due_ns, since_step_ns) =
            (now_ns.saturating_sub(slot.due_ns), now_ns.saturating_sub(slot.step_ns));
        match answer {
            Answer::Refused { retry_after_ms, .. } => {
                self.tally.refused(kind);
                let rest_ms =
                    (REST_MS << slot.refusals.min(8)).min(REST_MS_MAX).max(u64::from(*retry_after_ms));
                slot.refusals += 1;
                let jitter_ns = self.random.below(rest_ms * 500_000);
                self.rests.push(Reverse((now_ns + rest_ms * 1_000_000 + jitter_ns, index)));
                return Ok(false);
            }
            Answer::Failed { is_unknown, message } => {
                let (number, version, is_unknown) = (slot.number, slot.version, *is_unknown);
                self.failed(kind, || message.clone());
                self.settle(
                    kind,
                    number,
                    version,
                    if is_unknown { Settled::Unknown } else { Settled::NotApplied },
                );
            }
            Answer::Absent => {
                let (number, version, floor) = (slot.number, slot.version, slot.floor);
                let loaded = number < self.workload.insert_start + self.workload.insert_count;
                if floor > 0 {
                    self.failed(kind, || {
                        format!("record {number} is missing, version {floor} was acknowledged")
                    });
                } else if loaded && self.job.shared.ledger.is_some() {
                    self.failed(kind, || format!("record {number}, which was loaded, is missing"));
                } else {
                    self.tally.not_found(kind);
                }
                self.settle(kind, number, version, Settled::NotApplied);
            }
            Answer::Value(range) => {
                let value = &bytes[range.clone()];
                if let Some(flaw) = self.flaw(index, value) {
                    let (number, version) = (self.slots[index].number, self.slots[index].version);
                    self.failed(kind, || flaw);
                    self.settle(kind, number, version, Settled::NotApplied);
                    return Ok(true);
                }
                let slot = &mut self.slots[index];
                if matches!(kind, Kind::Read | Kind::Verify) {
                    self.ok(kind, since_due_ns);
                    return Ok(true);
                }
                // The second half of an update.
                let stamp = stamp(slot);
                slot.value.clear();
                self.workload.value.append_updated(value, &mut self.random, stamp, &mut slot.value);
                (slot.step, slot.step_ns, slot.refusals) = (Step::Put, now_ns, 0);
                if kind == Kind::ReadModifyWrite && !self.is_late {
                    self.tally.ok(Kind::Read, since_due_ns);
                }
                self.send(index, out)?;
                return Ok(false);
            }
            Answer::Done => {
                let (number, version) = (slot.number, slot.version);
                if kind == Kind::ReadModifyWrite && !self.is_late {
                    self.tally.ok(Kind::Update, since_step_ns);
                }
                self.ok(kind, since_due_ns);
                self.settle(kind, number, version, Settled::Applied);
            }
            Answer::Scanned(_) => self.ok(kind, since_due_ns),
        }
        Ok(true)
    }

    /// What is wrong with a value, if something is.
    fn flaw(&self, index: usize, value: &[u8]) -> Option<String> {
        let slot = &self.slots[index];
        let ledger = self.job.shared.ledger.as_ref()?;
        let number = slot.number;
        let Some(stamp) = Stamp::of(value) else {
            return Some(format!("record {number} holds {} bytes without a sound stamp", value.len()));
        };
        if stamp.number != number {
            return Some(format!("record {number} holds the value of record {}", stamp.number));
        }
        if stamp.version < slot.floor {
            let floor = slot.floor;
            return Some(format!("record {number} has version {}, {floor} was acknowledged", stamp.version));
        }
        let ceiling = ledger.ceiling(number)?;
        (stamp.version > ceiling)
            .then(|| format!("record {number} has version {}, none was written", stamp.version))
    }

    fn ok(&mut self, kind: Kind, latency_ns: u64) {
        if self.is_late {
            return;
        }
        self.tally.ok(kind, latency_ns);
        self.second.latency_ns.saturating_record(latency_ns);
    }

    fn failed(&mut self, kind: Kind, message: impl FnOnce() -> String) {
        self.tally.failed(kind, message);
        self.second.failed += 1;
    }

    /// Notes what has become of a write.
    fn settle(&self, kind: Kind, number: u64, version: u64, settled: Settled) {
        if kind == Kind::Insert {
            self.job.shared.inserts.acknowledge(number);
        }
        let Some(ledger) = self.job.shared.ledger.as_ref().filter(|_| version > 0) else { return };
        match settled {
            Settled::Applied => ledger.acknowledge(number, version),
            Settled::NotApplied => ledger.give_up(number),
            Settled::Unknown => {}
        }
    }
}

/// What has become of a write.
#[derive(Debug, Clone, Copy)]
enum Settled {
    Applied,
    NotApplied,
    Unknown,
}

fn stamp(slot: &Slot) -> Option<Stamp> {
    (slot.version > 0).then_some(Stamp { number: slot.number, version: slot.version })
}

impl Job<'_> {
    fn warmup_ns(&self) -> u64 {
        if self.phase == Phase::Run { self.plan.warmup.as_nanos() as u64 } else { 0 }
    }
}
