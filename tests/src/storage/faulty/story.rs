//! One history with a fault: lives of a node, and what is demanded in each.
//!
//! A shard is made and serves; at a point drawn from the seed a fault comes; it is judged, lifted, and
//! the node goes down. In the last life, on a disk that is well, everything acknowledged must be there.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::{Poll, Waker as TaskWaker};
use std::time::Duration;

use pinion_engine::{DatabaseId, Durability, Error, Identity, Origin, Result, Shard};
use pinion_env::{Env, create_dir_all};

use super::plan::{Effect, End, Plan, When};
use crate::storage::ledger::{Ledger, Moment, Number, Seen};
use crate::storage::observe::get;
use crate::storage::shape::{Shape, VALUE_BYTES_MAX};
use crate::told::Told;
use crate::world::{Disk, Fault, NodeConfig, Operation, Outside, Random, SimEnv, World};

/// The shard's directory.
pub(super) const DIR: &str = "data/0";

/// Steps until a fault that nothing meets is given up.
const UNMET_STEPS: u32 = 120;

/// Tries of a write after a fault: until a shard that must stop says so, until one that had no space
/// goes on. With pauses, these are 20 s of virtual time and more.
const TRIES: u32 = 200;
const TRY_PAUSE: Duration = Duration::from_millis(100);

/// Which life of the node it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing fails yet.
    Before,
    /// The fault comes, or is there from the start.
    Faulty,
    /// All is well again.
    After,
}

/// What a history was like.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Met {
    /// The fault that was met, as it is counted.
    pub(super) name: Option<&'static str>,
    /// The kind of file that it was met on.
    pub(super) files: Option<&'static str>,
    /// Other counts.
    pub(super) numbers: BTreeMap<&'static str, u64>,
    trace: u64,
}

/// What the node's main function and the driver outside of it share.
pub(super) struct Story {
    pub(super) shape: Shape,
    pub(super) plan: Plan,
    pub(super) outside: Outside,
    pub(super) random: RefCell<Random>,
    pub(super) ledger: RefCell<Ledger>,
    pub(super) shard: RefCell<Option<Shard<SimEnv, Told>>>,
    met: RefCell<Met>,
    disk: RefCell<Option<Rc<Disk>>>,
    stage: Cell<Stage>,
    armed: Cell<bool>,
    /// The fault has happened while the shard was opened.
    met_at_start: Cell<bool>,
    /// The disk was too full for something.
    pub(super) was_full: Cell<bool>,
    /// The first write that had not begun when one was answered as failed: none is acknowledged from
    /// there on.
    pub(super) failed_at: Cell<Option<Number>>,
    pub(super) closing: Cell<bool>,
    /// The write that is being given to the shard.
    pub(super) giving: Cell<Option<Number>>,
    /// The shard asked for a pause, in milliseconds.
    pub(super) refused_for: Cell<Option<u32>>,
    /// Main waits until fewer writes are open.
    pub(super) room: Cell<Option<TaskWaker>>,
    /// Commits of the log when each write was answered, in this life.
    pub(super) commits: RefCell<BTreeMap<Number, u64>>,
    /// Commits of the log of the last life with steps; `None` if that was closed.
    committed: Cell<Option<u64>>,
    end: Cell<Option<End>>,
    driver: Cell<Option<TaskWaker>>,
}

/// Runs the history of a seed.
///
/// # Panics
/// When the shard breaks a promise.
pub(super) fn run(seed: u64) -> Met {
    run_planned(seed, Plan::draw)
}

/// [`run`] with a fault of the caller's.
///
/// # Panics
/// When the shard breaks a promise.
pub(super) fn run_planned(seed: u64, plan: impl FnOnce(&mut Random) -> Plan) -> Met {
    let world = World::new(seed);
    let mut random = Random::labelled(seed, 0xfa_017);
    let shape = Shape::draw(&mut random);
    let plan = plan(&mut random);
    let config = NodeConfig { block_bytes: shape.block_bytes, ..NodeConfig::default() };
    let labels = shape.keys.iter().map(|key| format!("{}:{}", key.namespace, key.user.escape_ascii()));
    let mut ledger = Ledger::new(labels.collect(), shape.options.retry_window_ms_max, VALUE_BYTES_MAX);
    ledger.expect_faults();
    let story = Rc::new(Story {
        shape,
        plan,
        outside: world.outside(),
        random: RefCell::new(random),
        ledger: RefCell::new(ledger),
        shard: RefCell::new(None),
        met: RefCell::default(),
        disk: RefCell::new(None),
        stage: Cell::new(Stage::Before),
        armed: Cell::new(false),
        met_at_start: Cell::new(false),
        was_full: Cell::new(false),
        failed_at: Cell::new(None),
        closing: Cell::new(false),
        giving: Cell::new(None),
        refused_for: Cell::new(None),
        room: Cell::new(None),
        commits: RefCell::default(),
        committed: Cell::new(None),
        end: Cell::new(None),
        driver: Cell::new(None),
    });
    let _blame = Blame(plan);
    let stages = if plan.when == When::Reopening { &STAGES[..] } else { &STAGES[1..] };
    let mut node = None;
    for stage in stages {
        story.begin(*stage);
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
        let disk = world.disk(node);
        disk.keep_old();
        *story.disk.borrow_mut() = Some(Rc::clone(&disk));
        let end = world.run_until(story.ended());
        match end {
            End::PowerCut => world.power_cut(node),
            End::Kill | End::Close => world.crash(node),
        }
        story.down(end);
        if *stage == Stage::Faulty {
            story.lift();
        }
    }
    let mut met = story.met.take();
    met.trace = world.trace_hash();
    met
}

const STAGES: [Stage; 3] = [Stage::Before, Stage::Faulty, Stage::After];

/// Says what the fault was when a history fails.
struct Blame(Plan);

impl Drop for Blame {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the fault: {:?}", self.0);
        }
    }
}

impl Story {
    fn begin(&self, stage: Stage) {
        self.stage.set(stage);
        self.failed_at.set(None);
        self.closing.set(false);
        self.refused_for.set(None);
        self.end.set(None);
    }

    /// The node is down.
    fn down(&self, end: End) {
        let Some(shard) = self.shard.take() else { return };
        let closed = self.closing.get() && end == End::Close;
        if closed {
            // All of it is in tables.
            self.committed.set(None);
        } else {
            self.ledger.borrow_mut().crashed(self.outside.now());
            // A fault of a start is about the log of the life before.
            let of_start = self.plan.when == When::Reopening && self.met_at_start.get();
            if self.stage.get() == Stage::Before || !of_start {
                self.committed.set(Some(shard.stats().log.commits));
            }
        }
    }

    /// Blocks of the log that one piece of damage can take without leaving a trace: one, but for a
    /// write that went astray, which takes its own place and those that it went to.
    fn log_blocks_in_doubt(&self) -> u64 {
        let Effect::Fault(Operation::Write, Fault::Misdirected) = self.plan.effect else { return 1 };
        let block = u64::from(self.shape.block_bytes);
        let injected = self.disk().injected();
        1 + injected.iter().map(|injected| injected.bytes.div_ceil(block)).sum::<u64>()
    }

    /// Damage of the log may have taken what nothing had proven.
    fn doubt_the_log(&self) {
        let misdirected = matches!(self.plan.effect, Effect::Fault(_, Fault::Misdirected));
        let hits_log = |path: &Path| path.starts_with(Path::new(DIR).join("wal"));
        let in_log = misdirected || self.disk().injected().iter().any(|injected| hits_log(&injected.path));
        if self.plan.is_damage() && in_log {
            let Some(committed) = self.committed.get() else { return };
            let unproven = (committed + 1).saturating_sub(self.log_blocks_in_doubt());
            let commits = self.commits.borrow();
            // A buffered write is answered before its commit, which is the next one, or the one after
            // that if the next was under way.
            let may_be_lost = |number, durability| {
                let later = if durability == Durability::Sync { 0 } else { 2 };
                commits.get(&number).is_none_or(|commits| commits + later >= unproven)
            };
            self.ledger.borrow_mut().doubt(may_be_lost);
        }
    }

    pub(super) fn count(&self, name: &'static str, more: u64) {
        *self.met.borrow_mut().numbers.entry(name).or_default() += more;
    }

    fn disk(&self) -> Rc<Disk> {
        Rc::clone(self.disk.borrow().as_ref().expect("the node has been started"))
    }

    fn ended(&self) -> impl Future<Output = End> {
        poll_fn(|context| {
            self.driver.set(Some(context.waker().clone()));
            self.end.get().map_or(Poll::Pending, Poll::Ready)
        })
    }

    /// The life ends here.
    async fn ends(&self, end: End) {
        self.end.set(Some(end));
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
        std::future::pending::<()>().await;
    }

    fn arm(&self) {
        self.armed.set(true);
        self.plan.arm(&self.disk());
    }

    /// The disk is well again; damage stays.
    fn lift(&self) {
        self.note_met();
        let disk = self.disk();
        disk.heal();
        disk.set_total_bytes(NodeConfig::default().disk_bytes);
    }

    /// Whether the fault has happened.
    pub(super) fn is_met(&self) -> bool {
        let full = matches!(self.plan.effect, Effect::Full(_)) && self.was_full.get();
        self.armed.get() && (full || self.disk().faults_met() > 0)
    }

    fn note_met(&self) {
        let mut met = self.met.borrow_mut();
        if !self.is_met() || met.name.is_some() {
            return;
        }
        let Some(first) = self.disk().injected().into_iter().next() else {
            met.name = Some("full disk");
            return;
        };
        met.name = Some(first.name);
        let path = first.path.to_string_lossy().into_owned();
        let kinds = [("wal", "log"), ("table", "tables"), ("MANIFEST", "manifest"), ("CURRENT", "CURRENT")];
        met.files = kinds.iter().find(|(part, _)| path.contains(part)).map(|(_, kind)| *kind);
    }

    /// An error must have a reason.
    pub(super) fn tolerate(&self, error: &Error, asked: &str) {
        let stage = self.stage.get();
        let may_be = stage == Stage::Faulty || (stage == Stage::After && self.plan.stays());
        // A full disk has met whoever is told so.
        if matches!(self.plan.effect, Effect::Full(_)) && self.armed.get() {
            self.was_full.set(true);
        }
        let opening = asked == "opening";
        assert!(
            may_be && self.is_met() && self.plan.explains(error, opening),
            "{asked} is answered with: {error} ({error:?}) in {stage:?}"
        );
        if let Error::Damaged(damage) = error {
            self.count("answers that named damage", 1);
            if let Ok(bytes) = self.disk().read(&damage.file) {
                assert!(damage.offset <= bytes.len() as u64, "{asked}: no such place: {error}");
            }
        }
    }

    /// The node's main function.
    async fn live(self: Rc<Self>, env: SimEnv) {
        let stage = self.stage.get();
        if stage == Stage::Faulty && self.plan.when != When::Serving {
            self.arm();
        }
        let opened = self.open(&env).await;
        let shard = match opened {
            Ok(shard) => shard,
            Err(error) => {
                self.tolerate(&error, "opening");
                assert!(
                    !(matches!(self.plan.effect, Effect::Full(_)) && self.plan.when == When::Reopening),
                    "a full disk is no reason not to start: {error}"
                );
                self.count("starts refused", 1);
                return self.ends(End::Kill).await;
            }
        };
        *self.shard.borrow_mut() = Some(shard.clone());
        if stage == Stage::Faulty && self.is_met() {
            self.count("starts in spite of a fault", 1);
        }
        let met_at_start = self.is_met();
        self.met_at_start.set(met_at_start);
        if !self.examine(&shard, &env).await {
            return self.ends(End::Kill).await;
        }
        let end = match stage {
            Stage::Before => {
                self.steps(&shard, &env, 30, 70).await;
                self.draw_end()
            }
            Stage::Faulty => {
                self.meet(&shard, &env, met_at_start).await;
                self.draw_end()
            }
            Stage::After => {
                self.steps(&shard, &env, 5, 15).await;
                End::Close
            }
        };
        let end = match end {
            End::Close if self.close(&shard, &env).await => End::Close,
            End::Close => End::Kill,
            other => other,
        };
        self.ends(end).await;
    }

    fn draw_end(&self) -> End {
        let mut random = self.random.borrow_mut();
        match random.below(4) {
            0 => End::Close,
            // What damage and a cut do together nobody has promised anything about.
            1 | 2 if !self.plan.is_damage() => End::PowerCut,
            _ => End::Kill,
        }
    }

    async fn open(&self, env: &SimEnv) -> Result<Shard<SimEnv, Told>> {
        let dir = PathBuf::from(DIR);
        create_dir_all(env, &dir).await.map_err(|error| Error::io(&dir, error))?;
        for parent in ["", "data"] {
            env.sync_dir(parent.as_ref()).await.map_err(|error| Error::io(&dir, error))?;
        }
        let identity =
            Identity { database: DatabaseId(1), shard: 0, partitions: self.shape.partitions, shards: 1 };
        Shard::open(env.clone(), dir, identity, Origin(1), self.shape.options.clone()).await
    }

    /// Reads everything after opening; `false` if that does not tell enough to go on.
    async fn examine(&self, shard: &Shard<SimEnv, Told>, env: &SimEnv) -> bool {
        let mut seen: Vec<Option<Option<Seen>>> = Vec::with_capacity(self.shape.keys.len());
        let (began, clock) = self.clocks(shard, env);
        for key in 0..self.shape.keys.len() {
            seen.push(match self.patiently(env, get(shard, &self.shape, key)).await {
                Some(Ok(found)) => Some(found),
                Some(Err(error)) => {
                    self.tolerate(&error, "a read");
                    None
                }
                None => None,
            });
        }
        let moment = Moment { began, before_ms: clock.millis(), after_ms: shard.clock_ms() };
        self.doubt_the_log();
        let lasts = self.stage.get() == Stage::Faulty || self.plan.stays();
        let damaged = self.plan.is_damage() && lasts && self.is_met();
        let whole: Option<Vec<Option<Seen>>> = seen.iter().cloned().collect();
        match whole.filter(|_| !damaged) {
            None => {
                self.ledger.borrow_mut().recoverable(&seen, moment, clock);
                self.count("checks of what is sound", 1);
                false
            }
            Some(whole) => {
                self.ledger.borrow_mut().recovered(&whole, moment, clock);
                self.commits.borrow_mut().clear();
                self.scan_all(shard, env).await;
                self.count("checks of everything", 1);
                true
            }
        }
    }

    /// Serves until the fault is met, and judges what becomes of it.
    async fn meet(self: &Rc<Self>, shard: &Shard<SimEnv, Told>, env: &SimEnv, met_at_start: bool) {
        if self.plan.when == When::Serving {
            self.steps(shard, env, 10, 60).await;
            self.arm();
        }
        for _ in 0..UNMET_STEPS {
            if self.is_met() {
                break;
            }
            self.step(shard, env).await;
            let stats = shard.stats();
            let full = stats.disk_full || stats.counters.disk_full > 0 || stats.log.space_waits > 0;
            self.was_full.set(self.was_full.get() || full);
        }
        if !self.is_met() {
            return;
        }
        if self.plan.must_stop() && !met_at_start {
            self.try_until(
                shard,
                env,
                |story, _| story.failed_at.get().is_some(),
                "a shard goes on after a failure",
            )
            .await;
            self.count("shards stopped", 1);
        }
        self.steps(shard, env, 10, 30).await;
        self.read_all(shard, env).await;
        if self.plan.is_full() {
            assert!(self.failed_at.get().is_none(), "a full disk is no failure");
            self.lift();
            self.try_until(shard, env, |_, applied| applied, "a shard does not go on when there is space")
                .await;
            assert!(shard.stats().failed.is_none(), "a full disk is no failure");
            self.count("shards that went on when space returned", 1);
        } else if self.random.borrow_mut().one_in(2) {
            self.lift();
            self.steps(shard, env, 0, 10).await;
        }
    }

    /// Writes until something is so.
    async fn try_until(
        self: &Rc<Self>,
        shard: &Shard<SimEnv, Told>,
        env: &SimEnv,
        is_so: impl Fn(&Self, bool) -> bool,
        what: &str,
    ) {
        for _ in 0..TRIES {
            let applied = self.probe(shard, env).await;
            if is_so(self, applied) {
                return;
            }
            env.sleep(TRY_PAUSE).await;
        }
        panic!("{what}: {:?}", shard.stats());
    }

    async fn steps(self: &Rc<Self>, shard: &Shard<SimEnv, Told>, env: &SimEnv, least: u64, most: u64) {
        let steps = self.random.borrow_mut().between(least, most);
        for _ in 0..steps {
            self.step(shard, env).await;
        }
    }
}
