//! One history: operations on a shard in a simulated node, crashes, recoveries, checks.
//!
//! The shard is driven from the node's main function, as a server would drive it: writes are given to
//! it without waiting, up to a bound of open ones, and reads go on beside them. The crash comes from
//! outside, at an operation on files drawn from the seed.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker as TaskWaker};
use std::time::Duration;

use pinion_engine::{
    BatchOperation, DatabaseId, Error, HybridTime, Identity, Lifetime, Operation, Options, Origin, Result,
    Shard, Update, Waiter, WriteOptions, Written,
};
use pinion_env::{Env, create_dir_all};

use super::generator::Step;
use super::ledger::{Action, Ledger, Moment, Number, Recovered, Request, Seen};
use super::observe::{Page, Scan, get, shown};
use super::shape::{NAMESPACES, Shape, VALUE_BYTES_MAX};
use crate::told::Told;
use crate::world::{Faults, NodeConfig, NodeId, Outside, Random, SimEnv, World};

/// Steps after which a life that waits for its crash stops doing more.
const STEPS_AFTER_MAX: u32 = 300;

/// How a life of the node ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The shard is closed.
    Close,
    /// The shard is closed, and then the power fails.
    CloseAndCut,
    /// Everything is checked, and that is the end of the history.
    Check,
    /// The node goes down at the so many-th file operation after its steps are done, steps going on.
    Crash(u64, Down),
    /// The node goes down at its so many-th file operation, counted from its start.
    CrashEarly(u64, Down),
    /// The same, but for a shard that is closed once its steps are done: if it is closed before, that
    /// is the end of it.
    CrashOrClose(u64, Down),
}

/// How a node goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Down {
    /// Its process is killed.
    Kill,
    /// Its power is cut.
    PowerCut,
}

/// One life of the node.
#[derive(Debug, Clone, Copy)]
pub struct Life {
    /// Steps before it ends.
    pub steps: u32,
    /// How it ends.
    pub ending: Ending,
}

/// What a history was like, in numbers.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Steps: writes, reads, scans, flushes, pauses.
    pub steps: u64,
    /// Writes given to the shard.
    pub writes: u64,
    /// Most writes in flight at a time.
    pub open_max: u64,
    /// Writes refused for want of room.
    pub refused: u64,
    /// Gets and pages of scans.
    pub reads: u64,
    /// Memtables written out.
    pub flushes: u64,
    /// Merges of tables.
    pub compactions: u64,
    /// Of runs with each other.
    pub run_merges: u64,
    /// Records that merges left out.
    pub dropped: u64,
    /// Segments of the log used again.
    pub recycled: u64,
    /// Crashes.
    pub crashes: u64,
    /// Clean ends.
    pub closes: u64,
    /// Crashes before a recovery was done.
    pub crashes_in_recovery: u64,
    /// Times the shard was opened on what a life before it had left.
    pub recoveries: u64,
    /// Operations read back from the log.
    pub replayed: u64,
    /// What the crashes took.
    pub recovered: Recovered,
    /// Operations on files.
    pub operations: u64,
    /// How many of them had ended when each life had, the last check included.
    pub operations_by_life: Vec<u64>,
    /// What the disk did at crashes, by name.
    pub faults: Vec<(&'static str, u64)>,
    /// Hash of everything that happened.
    pub trace: u64,
}

/// What the node's main function and the driver outside of it share.
struct Story {
    shape: Shape,
    outside: Outside,
    random: RefCell<Random>,
    ledger: RefCell<Ledger>,
    totals: RefCell<Totals>,
    life: Cell<Life>,
    shard: RefCell<Option<Shard<SimEnv, Told>>>,
    /// Main waits until fewer writes are open.
    room: Cell<Option<TaskWaker>>,
    /// The driver waits for the steps to be done, or for a crash at once.
    driver: Cell<Option<TaskWaker>>,
    phase: Cell<Phase>,
    /// The shard asked for a pause, in milliseconds.
    refused_for: Cell<Option<u32>>,
    closing: Cell<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Recovering,
    Stepping,
    StepsDone,
    CrashNow,
}

/// Runs the history of a seed through these lives; after the last of them the shard is opened and
/// checked once more.
///
/// # Panics
/// When the shard breaks a promise.
pub fn run(seed: u64, lives: &[Life]) -> Totals {
    run_varied(seed, lives, |shape| shape, &Faults::none())
}

/// [`run`] with something changed about what the history is like.
///
/// # Panics
/// When the shard breaks a promise.
pub(crate) fn run_shaped(seed: u64, lives: &[Life], reshape: impl FnOnce(Shape) -> Shape) -> Totals {
    run_varied(seed, lives, reshape, &Faults::none())
}

/// [`run`] on a disk with these faults, from its first operation to the last.
///
/// # Panics
/// When the shard breaks a promise, or meets a fault.
pub fn run_on(seed: u64, lives: &[Life], faults: &Faults) -> Totals {
    run_varied(seed, lives, |shape| shape, faults)
}

fn run_varied(seed: u64, lives: &[Life], reshape: impl FnOnce(Shape) -> Shape, faults: &Faults) -> Totals {
    let world = World::new(seed);
    let mut random = Random::labelled(seed, 0x570_7a6e);
    let shape = reshape(Shape::draw(&mut random));
    let config = NodeConfig { block_bytes: shape.block_bytes, ..NodeConfig::default() };
    let labels = shape.keys.iter().map(|key| format!("{}:{}", key.namespace, key.user.escape_ascii()));
    let ledger = Ledger::new(labels.collect(), shape.options.retry_window_ms_max, VALUE_BYTES_MAX);
    let story = Rc::new(Story {
        shape,
        outside: world.outside(),
        random: RefCell::new(random),
        ledger: RefCell::new(ledger),
        totals: RefCell::default(),
        life: Cell::new(Life { steps: 0, ending: Ending::Close }),
        shard: RefCell::new(None),
        room: Cell::new(None),
        driver: Cell::new(None),
        phase: Cell::new(Phase::Recovering),
        refused_for: Cell::new(None),
        closing: Cell::new(false),
    });
    let mut node = None;
    let last = Life { steps: 0, ending: Ending::Check };
    for life in lives.iter().chain([&last]) {
        story.life.set(*life);
        story.phase.set(Phase::Recovering);
        story.closing.set(false);
        let main = {
            let story = Rc::clone(&story);
            move |env: SimEnv| Rc::clone(&story).live(env)
        };
        let node = *match &mut node {
            Some(node) => {
                world.restart_node(*node, config, main);
                node
            }
            none => none.insert(world.start_node(config, main)),
        };
        world.disk(node).set_faults(faults.clone());
        match run_life(&world, node, &story) {
            Some(down) => crash(&world, node, &story, down),
            None => {
                story.totals.borrow_mut().closes += u64::from(life.ending != Ending::Check);
                story.note_stats();
                if life.ending == Ending::CloseAndCut {
                    world.power_cut(node);
                }
            }
        }
        story.totals.borrow_mut().operations_by_life.push(world.disk(node).operations());
    }
    let mut totals = story.totals.take();
    totals.operations = node.map_or(0, |node| world.disk(node).operations());
    totals.faults = world.fault_counts();
    totals.trace = world.trace_hash();
    totals
}

/// Runs one life until it has ended by itself (`None`), or is to go down.
fn run_life(world: &World, node: NodeId, story: &Rc<Story>) -> Option<Down> {
    let disk = world.disk(node);
    world.run_until(async {
        if let Ending::CrashEarly(operations, down) | Ending::CrashOrClose(operations, down) =
            story.life.get().ending
        {
            let stopped = world.stop_disk_at(node, disk.operations().saturating_add(operations));
            return first_of(stopped, story.reached(Phase::CrashNow)).await.then_some(down);
        }
        let ended = async {
            world.ended(node).await;
            false
        };
        if !first_of(ended, story.reached(Phase::StepsDone)).await {
            return None;
        }
        let Ending::Crash(operations, down) = story.life.get().ending else { return None };
        let stopped = world.stop_disk_at(node, disk.operations() + operations);
        first_of(stopped, story.reached(Phase::CrashNow)).await.then_some(down)
    })
}

/// The answer of `main`, or `true` if `other` is done before.
async fn first_of(main: impl Future<Output = bool>, other: impl Future<Output = ()>) -> bool {
    let (mut main, mut other) = (pin!(main), pin!(other));
    poll_fn(|context| match main.as_mut().poll(context) {
        Poll::Pending => other.as_mut().poll(context).map(|()| true),
        ready => ready,
    })
    .await
}

fn crash(world: &World, node: NodeId, story: &Story, down: Down) {
    story.note_stats();
    let in_recovery = story.phase.get() == Phase::Recovering;
    match down {
        Down::Kill => world.crash(node),
        Down::PowerCut => world.power_cut(node),
    }
    story.ledger.borrow_mut().crashed(world.now());
    let mut totals = story.totals.borrow_mut();
    totals.crashes += 1;
    totals.crashes_in_recovery += u64::from(in_recovery);
    let mut random = story.random.borrow_mut();
    if story.shape.clock_goes_back && random.one_in(2) {
        let shift = if random.one_in(4) { random.below(1_500) as i64 } else { -(random.below(4_000) as i64) };
        world.shift_wall_clock(node, shift);
    }
}

impl Story {
    /// The node's main function: opens the shard, checks what is there, and goes on.
    async fn live(self: Rc<Self>, env: SimEnv) {
        let dir = PathBuf::from("data/0");
        create_dir_all(&env, &dir).await.expect("directories can be made");
        for parent in ["", "data"] {
            env.sync_dir(parent.as_ref()).await.expect("directories can be synced");
        }
        let identity =
            Identity { database: DatabaseId(1), shard: 0, partitions: self.shape.partitions, shards: 1 };
        let options: Options = self.shape.options.clone();
        let opened = Shard::open(env.clone(), dir, identity, Origin(1), options).await;
        let shard: Shard<SimEnv, Told> = match opened {
            Ok(shard) => shard,
            Err(error) => panic!("the shard does not open: {error}"),
        };
        *self.shard.borrow_mut() = Some(shard.clone());
        self.check(&shard, &env).await;
        self.phase.set(Phase::Stepping);

        let Life { steps, ending } = self.life.get();
        let mut done = 0;
        while done < steps {
            done += u32::from(self.step(&shard, &env).await);
        }
        if ending == Ending::Check {
            return;
        }
        if matches!(ending, Ending::Close | Ending::CloseAndCut | Ending::CrashOrClose(..)) {
            return self.close(&shard, &env).await;
        }
        self.reach(Phase::StepsDone);
        for _ in 0..STEPS_AFTER_MAX {
            self.step(&shard, &env).await;
        }
        self.reach(Phase::CrashNow);
        std::future::pending::<()>().await;
    }

    /// Completes when a phase is reached.
    fn reached(&self, phase: Phase) -> impl Future<Output = ()> {
        poll_fn(move |context| {
            self.driver.set(Some(context.waker().clone()));
            if self.phase.get() >= phase { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    fn reach(&self, phase: Phase) {
        self.phase.set(phase);
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// Reads everything after opening, by gets and by scans.
    async fn check(&self, shard: &Shard<SimEnv, Told>, env: &SimEnv) {
        let mut seen: Vec<Option<Seen>> = Vec::with_capacity(self.shape.keys.len());
        let (began, clock) = self.clocks(shard, env);
        for key in 0..self.shape.keys.len() {
            match get(shard, &self.shape, key).await {
                Ok(found) => seen.push(found),
                Err(error) => panic!("key {key} cannot be read: {error}"),
            }
        }
        let moment = Moment { began, before_ms: clock.millis(), after_ms: shard.clock_ms() };
        let recovered = self.ledger.borrow_mut().recovered(&seen, moment, clock);
        for namespace in NAMESPACES {
            let scan = Scan::whole(&mut self.random.borrow_mut(), namespace);
            self.scan(shard, env, &scan).await;
        }
        let mut totals = self.totals.borrow_mut();
        let sum = &mut totals.recovered;
        sum.kept += recovered.kept;
        sum.lost += recovered.lost;
        sum.lost_buffered += recovered.lost_buffered;
        sum.untold += recovered.untold;
        totals.reads += seen.len() as u64;
        totals.recoveries += 1;
    }

    /// One step; `false` if the shard had no room for it.
    async fn step(self: &Rc<Self>, shard: &Shard<SimEnv, Told>, env: &SimEnv) -> bool {
        let (began, clock) = self.clocks(shard, env);
        let step = Step::draw(&mut self.random.borrow_mut(), &self.shape, &self.ledger.borrow(), clock);
        match step {
            Step::Write { actions, request } => {
                self.write(shard, &actions, request);
                if let Some(pause_ms) = self.refused_for.take() {
                    env.sleep(Duration::from_millis(u64::from(pause_ms))).await;
                    return false;
                }
                self.wait_for_room(self.shape.open_max - 1).await;
            }
            Step::Get(key) => {
                let found = match get(shard, &self.shape, key).await {
                    Ok(found) => found,
                    Err(error) => panic!("key {key} cannot be read: {error}"),
                };
                let moment = Moment { began, before_ms: clock.millis(), after_ms: shard.clock_ms() };
                let mut ledger = self.ledger.borrow_mut();
                ledger.read(key, found.as_ref(), moment);
                ledger.read_ended();
                self.totals.borrow_mut().reads += 1;
            }
            Step::Scan => {
                let scan = Scan::draw(&mut self.random.borrow_mut(), &self.shape);
                self.scan(shard, env, &scan).await;
            }
            Step::Flush => match shard.flush().await {
                Ok(()) => self.ledger.borrow_mut().flushed(began),
                Err(error) => panic!("the shard cannot flush: {error}"),
            },
            Step::Pause(micros) => env.sleep(Duration::from_micros(micros)).await,
        }
        let yields = self.random.borrow_mut().below(8);
        for _ in 4..yields {
            env.yield_now().await;
        }
        self.totals.borrow_mut().steps += 1;
        true
    }

    fn write(self: &Rc<Self>, shard: &Shard<SimEnv, Told>, actions: &[(usize, Action)], request: Request) {
        let clock = shard.hybrid_time();
        let number = self.ledger.borrow_mut().issue(actions.to_vec(), request, clock);
        let story = Rc::clone(self);
        let told = Told::call(move |result| story.told(number, &result));
        give(shard, &self.shape, actions, request, told);
        let mut ledger = self.ledger.borrow_mut();
        ledger.issued(number, shard.hybrid_time());
        let mut totals = self.totals.borrow_mut();
        totals.writes += 1;
        totals.open_max = totals.open_max.max(ledger.open() as u64);
    }

    /// Tells the ledger of an answer.
    fn told(&self, number: Number, result: &Result<Written>) {
        if let Err(Error::Overloaded { retry_after_ms }) = result {
            self.refused_for.set(Some(*retry_after_ms));
            self.totals.borrow_mut().refused += 1;
        }
        let mut ledger = self.ledger.borrow_mut();
        if self.closing.get() && matches!(result, Err(Error::ShuttingDown)) {
            ledger.refuse(number);
        } else {
            ledger.answer(number, result, self.outside.now());
        }
        drop(ledger);
        if let Some(room) = self.room.take() {
            room.wake();
        }
    }

    /// Waits until at most so many writes are open.
    async fn wait_for_room(&self, open: usize) {
        poll_fn(|context| {
            if self.ledger.borrow().open() <= open {
                return Poll::Ready(());
            }
            self.room.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    async fn scan(&self, shard: &Shard<SimEnv, Told>, env: &SimEnv, scan: &Scan) {
        let mut keys = scan.keys(&self.shape);
        let mut resume = None;
        loop {
            let (began, clock) = self.clocks(shard, env);
            let records_max = 1 + self.random.borrow_mut().below(40);
            let mut page = Page::new(&self.shape, scan, records_max as usize);
            let range = scan.range(&self.shape, resume.take(), 1 + self.random.borrow_mut().below(60) as u32);
            match shard.scan(&range, &mut page).await {
                Ok(next) => resume = next,
                Err(error) => panic!("{scan:?} cannot be read: {error}"),
            }
            let is_last = resume.is_none();
            assert!(is_last || !page.records.is_empty(), "a page of {scan:?} makes no progress");
            let moment = Moment { began, before_ms: clock.millis(), after_ms: shard.clock_ms() };
            self.totals.borrow_mut().reads += 1;
            let mut ledger = self.ledger.borrow_mut();
            for (key, seen) in shown(&mut keys, page, scan, resume.as_ref()) {
                ledger.read(key, seen.as_ref(), moment);
            }
            ledger.read_ended();
            if is_last {
                return;
            }
        }
    }

    async fn close(&self, shard: &Shard<SimEnv, Told>, env: &SimEnv) {
        if self.random.borrow_mut().one_in(2) {
            self.wait_for_room(0).await;
        }
        self.clocks(shard, env);
        self.closing.set(true);
        if let Err(error) = shard.close().await {
            panic!("the shard does not close: {error}");
        }
        self.ledger.borrow_mut().closed();
    }

    /// The ledger's time and the shard's clock.
    fn clocks(&self, shard: &Shard<SimEnv, Told>, env: &SimEnv) -> (u32, HybridTime) {
        let clock = shard.hybrid_time();
        let mut ledger = self.ledger.borrow_mut();
        ledger.note_clocks(env.wall_ms(), clock);
        (ledger.read_begins(), clock)
    }

    /// Adds up what the shard has done in this life, and lets go of it.
    fn note_stats(&self) {
        let Some(shard) = self.shard.take() else { return };
        let stats = shard.stats();
        let mut totals = self.totals.borrow_mut();
        totals.flushes += stats.counters.flushes;
        totals.compactions += stats.counters.compactions;
        totals.run_merges += stats.counters.run_merges;
        totals.dropped += stats.counters.records_dropped;
        totals.replayed += stats.counters.records_replayed;
        totals.recycled += stats.log.segments_recycled;
    }
}

/// Gives a write to a shard.
pub(crate) fn give<E: Env, W: Waiter>(
    shard: &Shard<E, W>,
    shape: &Shape,
    actions: &[(usize, Action)],
    request: Request,
    waiter: W,
) {
    let options =
        WriteOptions { durability: request.durability, stamp: request.proposed, ..WriteOptions::default() };
    let key = |index: usize| shape.keys[index].key(shape.partitions);
    if request.batch {
        let operations: Vec<BatchOperation<'_>> = actions
            .iter()
            .map(|(index, action)| {
                let (value, lifetime) = match action {
                    Action::Put { value, lifetime } => (Some(value.as_slice()), *lifetime),
                    _ => (None, Lifetime::Forever),
                };
                BatchOperation { key: key(*index), value, lifetime }
            })
            .collect();
        shard.write_batch(&operations, options, waiter);
    } else {
        let (index, action) = &actions[0];
        shard.write(&key(*index), operation(action, request), options, waiter);
    }
}

fn operation(action: &Action, request: Request) -> Operation<'_> {
    match (action, request.condition) {
        (Action::Put { value, lifetime }, Some(condition)) => {
            Operation::PutIf { condition, value, lifetime: *lifetime }
        }
        (Action::Delete, Some(condition)) => Operation::DeleteIf { condition },
        (Action::Put { value, lifetime }, None) => Operation::Put { value, lifetime: *lifetime },
        (Action::Delete, None) => Operation::Delete,
        (Action::Add(operand), _) => Operation::Update(Update::Add(*operand)),
        (Action::Append(bytes), _) => Operation::Update(Update::Append(bytes)),
        (Action::SetRange { offset, bytes }, _) => {
            Operation::Update(Update::SetRange { offset: *offset, bytes })
        }
        (Action::SetExpiry(lifetime), _) => Operation::Update(Update::SetExpiry(*lifetime)),
    }
}
