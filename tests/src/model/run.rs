//! One run of a plan: a shard in a world of its own, and the reference beside it.
//!
//! The run is the driver of its world, so it can crash the node and set its clock. The node itself
//! only hands its environment out; the shard's own tasks live in the node and die with it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use pinion_engine::{Ahead, DatabaseId, Identity, Key, LiveNamespaces, NamespaceId, Origin, Shard, Stamp};
use pinion_env::{Env, Monotonic, create_dir_all};

use super::plan::{Batch, Change, DRIFT_MAX, Get, Life, Plan, Setup, Side, Step, UNIT_MS};
use super::reference::{Place, Reference};
use crate::told::Told;
use crate::trials::Counts;
use crate::world::{NodeConfig, NodeId, SimEnv, World};

/// Partitions of the only shard.
pub(super) const PARTITIONS: u32 = 64;
/// Keys that a comparison of everything looks up one by one; all of them are scanned.
const POINT_READS_MAX: usize = 24;

/// What is wrong, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong(pub String);

/// Nothing, or what is wrong.
pub(super) type Done = Result<(), Wrong>;

/// Says what is wrong unless something holds.
pub(super) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Done {
    if holds { Ok(()) } else { Err(Wrong(what())) }
}

/// An error that no step of a plan may meet.
pub(super) fn unexpected(error: impl Debug) -> Wrong {
    Wrong(format!("an error that nothing explains: {error:?}"))
}

/// An answer without what two runs may differ in (stamps and times).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// Effect, number, whether it will expire, superseded elements.
    Written(&'static str, i64, bool, Vec<u32>),
    Failed(&'static str),
    /// Length and hash of a value.
    Value(Option<(usize, u64)>),
    /// Number and hash of records.
    Records(usize, u64),
}

/// Runs one side of a plan in a new world.
pub(super) fn run(plan: &Plan, side: Side, counts: &mut Counts) -> Result<Vec<Said>, Wrong> {
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let world = World::new(*plan.worlds.of(side));
        world.run_until(Run::through(&world, plan, side, counts))
    }));
    ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without words");
        Err(Wrong(format!("a panic: {text}")))
    })
}

/// The last write of a key (or batch) that carried a client's stamp.
#[derive(Debug, Clone)]
pub(super) struct Proposal<T> {
    pub stamp: Stamp,
    pub what: T,
}

pub(super) struct Run<'r> {
    pub world: &'r World,
    pub plan: &'r Plan,
    pub side: Side,
    pub counts: &'r mut Counts,
    node: NodeId,
    handed_out: Rc<RefCell<Option<SimEnv>>>,
    pub env: SimEnv,
    pub shard: Shard<SimEnv, Told>,
    pub reference: Reference,
    pub said: Vec<Said>,
    pub keys: Vec<Vec<u8>>,
    /// Numbers of the namespaces that live, the default one first.
    live: Vec<u32>,
    next_namespace: u32,
    pub proposals: BTreeMap<Place, Proposal<(Change, Life)>>,
    pub proposed_batch: Option<Proposal<Batch>>,
    /// A buffered write was acknowledged and no synced one after it.
    pub unsynced: bool,
    /// Counts stamps that this client made.
    pub stamps: u64,
    began: Monotonic,
    elapsed: Duration,
    checks: usize,
}

impl<'r> Run<'r> {
    /// Does all steps of a plan; what was answered.
    async fn through(
        world: &'r World,
        plan: &'r Plan,
        side: Side,
        counts: &'r mut Counts,
    ) -> Result<Vec<Said>, Wrong> {
        let config = NodeConfig { block_bytes: *plan.disk_blocks.of(side), ..NodeConfig::default() };
        let handed_out: Rc<RefCell<Option<SimEnv>>> = Rc::default();
        let node = world.start_node(config, hand_out(&handed_out));
        let env = take(world, &handed_out).await;
        create_dir_all(&env, &directory()).await.map_err(unexpected)?;
        let began = env.now();
        let shard = open(&env, plan, plan.setup.of(side)).await?;
        let mut run = Run {
            world,
            plan,
            side,
            counts,
            node,
            handed_out,
            env,
            shard,
            reference: Reference::default(),
            said: Vec::new(),
            keys: plan.keys.iter().map(super::plan::KeyShape::bytes).collect(),
            live: vec![0],
            next_namespace: 1,
            proposals: BTreeMap::new(),
            proposed_batch: None,
            unsynced: false,
            stamps: 0,
            began,
            elapsed: Duration::ZERO,
            checks: 0,
        };
        run.tell_namespaces();
        for (index, step) in plan.steps.iter().enumerate() {
            let step = match step {
                Step::OnlySecond(_) if side == Side::First => continue,
                Step::OnlySecond(step) if run.would_set_back(step) => {
                    run.counts.add("kills left out of second runs", 1);
                    continue;
                }
                Step::OnlySecond(step) => {
                    run.counts.add("steps inserted into second runs", 1);
                    step
                }
                step => step,
            };
            let place = |Wrong(what)| Wrong(format!("step {index}, {step:?} ({side:?} run): {what}"));
            run.step(step).await.map_err(place)?;
        }
        let last = |Wrong(what)| Wrong(format!("after the last step ({side:?} run): {what}"));
        run.finish().await.map_err(last)?;
        Ok(run.said)
    }

    /// Whether a step of one run alone would part the clocks of the two: a wall clock that was set back
    /// shows itself after a kill, as far as nobody was told a later time. Until then the shard stays at
    /// the later one.
    fn would_set_back(&self, step: &Step) -> bool {
        let kills = matches!(step, Step::Kill(_) | Step::KillDuring(..));
        kills && self.env.wall_ms() + (DRIFT_MAX.as_millis() as u64) < self.shard.clock_ms()
    }

    pub(super) async fn step(&mut self, step: &Step) -> Done {
        self.counts.add("operations", 1);
        match step {
            Step::Write(write) => self.write(write).await,
            Step::Together(writes) => self.together(writes).await,
            Step::Batch(batch) => self.batch(batch).await,
            Step::Get(get) => self.get(get).await,
            Step::Scan(scan) => self.scan(scan).await,
            Step::Refused(refused) => self.refused(*refused).await,
            Step::Flush => {
                self.counts.add("flushes asked for", 1);
                self.shard.flush().await.map_err(unexpected)
            }
            Step::Settle => self.settle().await,
            Step::CheckAll => self.check_all().await,
            Step::Elapse(units) => self.elapse(*units).await,
            Step::Pause(millis) => {
                self.env.sleep(Duration::from_millis(u64::from(*millis))).await;
                Ok(())
            }
            Step::ShiftClock(units) => {
                let way = if *units < 0 { "clocks set back" } else { "clocks set forward" };
                self.counts.add(way, 1);
                // The shard sees the time before and after, in every run: left to commits and sweeps,
                // it would have been seen in one and not in the other.
                self.shard.clock_ms();
                self.world.shift_wall_clock(self.node, i64::from(*units) * UNIT_MS as i64);
                self.shard.clock_ms();
                Ok(())
            }
            Step::Reopen(setups) => {
                self.counts.add("restarts with other sizes", 1);
                self.close().await?;
                self.open(setups.of(self.side)).await?;
                self.check_all().await
            }
            Step::Kill(setups) => {
                self.counts.add("kills", 1);
                self.make_durable().await?;
                self.kill();
                self.restart(setups.of(self.side)).await?;
                self.check_all().await
            }
            Step::KillDuring(writes, turns, setups) => {
                self.counts.add("kills amid writes", 1);
                self.make_durable().await?;
                let doubts = self.start_and_forget(writes);
                for _ in 0..*turns {
                    self.env.yield_now().await;
                }
                self.kill();
                self.restart(setups.of(self.side)).await?;
                self.resolve(doubts).await?;
                self.check_all().await
            }
            Step::MakeNamespace => {
                self.counts.add("namespaces made", 1);
                self.live.push(self.next_namespace);
                self.next_namespace += 1;
                // Its elements would now name other namespaces.
                self.proposed_batch = None;
                self.tell_namespaces();
                Ok(())
            }
            Step::DropNamespace(index) => {
                // The default one stays.
                if self.live.len() > 1 {
                    self.counts.add("namespaces dropped", 1);
                    let dropped = self.live.remove(1 + usize::from(*index) % (self.live.len() - 1));
                    self.reference.drop_namespace(dropped);
                    self.proposals.retain(|(_, namespace, _), _| *namespace != dropped);
                    self.proposed_batch = None;
                    self.tell_namespaces();
                }
                Ok(())
            }
            Step::OnlySecond(_) => Err(Wrong("a step inside of a step".into())),
        }
    }

    async fn finish(&mut self) -> Done {
        self.check_all().await?;
        self.digest().await?;
        if self.plan.purge {
            self.counts.add("histories ended by dropping every namespace", 1);
            self.shard.set_live_namespaces(LiveNamespaces::new(NamespaceId(self.next_namespace), []));
            self.shard.settle().await.map_err(unexpected)?;
            let levels = self.shard.stats().levels;
            let left: u64 = levels.iter().map(|level| level.records).sum();
            ensure(left == 0, || format!("{left} records of dropped namespaces stay: {levels:?}"))?;
        }
        let drift = self.env.now().since(self.began).saturating_sub(self.elapsed);
        ensure(!self.plan.twice || drift <= DRIFT_MAX, || {
            format!("operations took {drift:?}: two runs can no longer be compared")
        })?;
        self.close().await
    }

    async fn settle(&mut self) -> Done {
        self.counts.add("settles asked for", 1);
        self.shard.settle().await.map_err(unexpected)?;
        self.note_levels();
        Ok(())
    }

    /// Lets time pass. After a settle nothing is due but what time brings: that is the sweep's.
    async fn elapse(&mut self, units: u8) -> Done {
        self.counts.add("times elapsed", 1);
        self.shard.settle().await.map_err(unexpected)?;
        let before = self.shard.stats().counters;
        let time = Duration::from_millis(u64::from(units) * UNIT_MS);
        self.env.sleep(time).await;
        self.elapsed += time;
        let after = self.shard.stats().counters;
        let swept = after.compactions + after.tables_expired - before.compactions - before.tables_expired;
        self.counts.add("jobs of the sweep", swept);
        Ok(())
    }

    fn tell_namespaces(&mut self) {
        let live = self.live.iter().copied().map(NamespaceId);
        self.shard.set_live_namespaces(LiveNamespaces::new(NamespaceId(self.next_namespace), live));
    }

    async fn open(&mut self, setup: &Setup) -> Done {
        self.shard = open(&self.env, self.plan, setup).await?;
        self.tell_namespaces();
        Ok(())
    }

    async fn close(&mut self) -> Done {
        self.note_levels();
        self.shard.close().await.map_err(unexpected)?;
        self.note_counters();
        self.unsynced = false;
        Ok(())
    }

    fn kill(&mut self) {
        self.note_levels();
        self.note_counters();
        self.world.crash(self.node);
    }

    async fn restart(&mut self, setup: &Setup) -> Done {
        let config =
            NodeConfig { block_bytes: *self.plan.disk_blocks.of(self.side), ..NodeConfig::default() };
        self.world.restart_node(self.node, config, hand_out(&self.handed_out));
        self.env = take(self.world, &self.handed_out).await;
        self.open(setup).await
    }

    fn note_counters(&mut self) {
        let counters = self.shard.stats().counters;
        for (name, more) in [
            ("flushes", counters.flushes),
            ("compactions", counters.compactions),
            ("runs merged with each other", counters.run_merges),
            ("tables moved", counters.tables_moved),
            ("tables dropped whole", counters.tables_expired),
            ("values that became tombstones", counters.records_expired),
            ("records compacted away", counters.records_dropped),
            ("row cache hits", counters.row_cache_hits),
            ("operations replayed", counters.records_replayed),
        ] {
            self.counts.add(name, more);
        }
    }

    fn note_levels(&mut self) {
        const NAMES: [&str; 7] = [
            "seen in runs",
            "seen in level 1",
            "seen in level 2",
            "seen in level 3",
            "seen in level 4",
            "seen in level 5",
            "seen in level 6",
        ];
        for (name, level) in NAMES.iter().zip(self.shard.stats().levels) {
            self.counts.add(name, u64::from(level.tables > 0));
        }
    }

    /// The number of a namespace that lives.
    pub(super) fn namespace(&self, index: u8) -> u32 {
        self.live[usize::from(index) % self.live.len()]
    }

    pub(super) fn place(&self, namespace: u8, key: u16) -> Place {
        let namespace = self.namespace(namespace);
        let user = self.keys[usize::from(key) % self.keys.len()].clone();
        (Key::new(NamespaceId(namespace), &user, PARTITIONS).partition, namespace, user)
    }

    async fn get(&mut self, get: &Get) -> Done {
        self.counts.add("gets", 1);
        let place = self.place(get.namespace, get.key);
        let said = self.check_key(&place, get.asynchronous).await?;
        self.said.push(said);
        Ok(())
    }

    /// Compares one key with the reference, allowing for time that passes meanwhile.
    pub(super) async fn check_key(&mut self, place: &Place, asynchronous: bool) -> Result<Said, Wrong> {
        let key = key_of(place);
        let before_ms = self.shard.clock_ms();
        let own =
            |record: pinion_engine::RecordView<'_>| (record.value.to_vec(), record.stamp, record.expiry_ms);
        let in_memory = if asynchronous {
            None
        } else {
            self.shard.look_ahead(key.hash);
            let mut ahead = Ahead::default();
            self.shard.look_ahead_headers([(key.hash, &mut ahead)].into_iter());
            self.shard.look_ahead_record(key.hash, ahead);
            self.shard.get_ahead(&key, ahead, |record| record.map(own)).ok()
        };
        let found = match in_memory {
            Some(found) => {
                self.counts.add("gets answered from memory", 1);
                found
            }
            None => self.shard.get(&key).await.map_err(unexpected)?.map(|found| own(found.view())),
        };
        let after_ms = self.shard.clock_ms();
        let expected = self.reference.get(place);
        match (&found, expected) {
            (None, expected) => {
                let missing = expected.filter(|entry| entry.is_visible(after_ms));
                ensure(missing.is_none(), || format!("{place:?} is missing, {missing:?} is expected"))?;
            }
            (Some((value, stamp, expiry_ms)), Some(entry)) => {
                let same =
                    (Some(value), *stamp, *expiry_ms) == (entry.value.as_ref(), entry.stamp, entry.expiry_ms);
                ensure(same && entry.is_visible(before_ms), || {
                    format!("{place:?} holds {found:?}, {entry:?} is expected at {before_ms}")
                })?;
            }
            (Some(found), None) => {
                return Err(Wrong(format!("{place:?} holds {found:?} and should not exist")));
            }
        }
        Ok(Said::Value(found.map(|(value, ..)| (value.len(), xxhash_rust::xxh3::xxh3_64(&value)))))
    }

    /// Compares everything: scans of every namespace in two of the four ways, in turn, and keys one
    /// by one, the absent ones too.
    async fn check_all(&mut self) -> Done {
        self.counts.add("comparisons of everything", 1);
        self.checks += 1;
        let turn = self.checks;
        for namespace in self.live.clone() {
            self.scan_whole(namespace, false, turn.is_multiple_of(2)).await?;
            self.scan_whole(namespace, true, !turn.is_multiple_of(2)).await?;
        }
        let keys = self.keys.len();
        for at in 0..keys.min(POINT_READS_MAX) {
            let key = (turn * POINT_READS_MAX + at) % keys;
            let place = self.place((turn + at) as u8, key as u16);
            self.check_key(&place, at.is_multiple_of(4)).await?;
        }
        Ok(())
    }

    /// What is left in the end.
    async fn digest(&mut self) -> Done {
        for namespace in self.live.clone() {
            let said = self.scan_whole(namespace, false, true).await?;
            self.said.push(said);
        }
        Ok(())
    }
}

pub(super) fn key_of(place: &Place) -> Key<'_> {
    Key::new(NamespaceId(place.1), &place.2, PARTITIONS)
}

fn directory() -> PathBuf {
    PathBuf::from("data/0")
}

async fn open(env: &SimEnv, plan: &Plan, setup: &Setup) -> Result<Shard<SimEnv, Told>, Wrong> {
    let identity = Identity { database: DatabaseId(1), shard: 0, partitions: PARTITIONS, shards: 1 };
    let options = setup.options(plan);
    Shard::open(env.clone(), directory(), identity, Origin(1), options).await.map_err(unexpected)
}

/// The main function of a node that gives its environment away and lives on.
fn hand_out(to: &Rc<RefCell<Option<SimEnv>>>) -> impl Fn(SimEnv) -> std::future::Pending<()> + use<> {
    let to = Rc::clone(to);
    move |env| {
        *to.borrow_mut() = Some(env);
        std::future::pending()
    }
}

async fn take(world: &World, from: &Rc<RefCell<Option<SimEnv>>>) -> SimEnv {
    let outside = world.outside();
    loop {
        let taken = from.borrow_mut().take();
        match taken {
            Some(env) => return env,
            None => outside.yield_now().await,
        }
    }
}
