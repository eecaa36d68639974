//! Requests to a shard whose disk may fail: answers may be errors then, and each must have its reason;
//! what is no error must be right.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use pinion_engine::{Effect, Error, HybridTime, Lifetime, Result, Shard, Written};
use pinion_env::Env;

use super::story::Story;
use crate::storage::generator::Step;
use crate::storage::history::give;
use crate::storage::ledger::{Action, Fate, Moment, Number, Request};
use crate::storage::observe::{Page, Scan, get, shown};
use crate::storage::shape::NAMESPACES;
use crate::told::Told;
use crate::world::SimEnv;

/// How long anything may take on a disk that has space, in virtual time: far more than it does.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long something is waited for that may be waiting for space.
const PATIENCE_FULL: Duration = Duration::from_secs(2);

type TestShard = Shard<SimEnv, Told>;

impl Story {
    /// What a future gives; `None` if it may wait for space and does.
    pub(super) async fn patiently<T>(&self, env: &SimEnv, future: impl Future<Output = T>) -> Option<T> {
        let may_wait = self.plan.is_full();
        let patience = if may_wait { PATIENCE_FULL } else { PATIENCE };
        let (mut future, mut limit) = (pin!(future), pin!(env.sleep(patience)));
        let given = poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(given) => Poll::Ready(Some(given)),
            Poll::Pending => limit.as_mut().poll(context).map(|()| None),
        })
        .await;
        assert!(given.is_some() || may_wait, "a request is never answered");
        if given.is_none() {
            self.was_full.set(true);
            self.count("requests that waited for space", 1);
        }
        given
    }

    /// One step.
    pub(super) async fn step(self: &Rc<Self>, shard: &TestShard, env: &SimEnv) {
        let (began, clock) = self.clocks(shard, env);
        let step = Step::draw(&mut self.random.borrow_mut(), &self.shape, &self.ledger.borrow(), clock);
        match step {
            Step::Write { actions, request } => {
                self.write(shard, &actions, request);
                if let Some(pause_ms) = self.refused_for.take() {
                    env.sleep(Duration::from_millis(u64::from(pause_ms))).await;
                }
                self.patiently(env, self.room_for(self.shape.open_max - 1)).await;
            }
            Step::Get(key) => self.get(shard, env, key).await,
            Step::Scan => {
                let scan = Scan::draw(&mut self.random.borrow_mut(), &self.shape);
                self.scan(shard, env, &scan).await;
            }
            Step::Flush => match self.patiently(env, shard.flush()).await {
                Some(Ok(())) => self.ledger.borrow_mut().flushed(began),
                Some(Err(error)) => self.tolerate(&error, "a flush"),
                None => {}
            },
            Step::Pause(micros) => env.sleep(Duration::from_micros(micros)).await,
        }
        let yields = self.random.borrow_mut().below(8);
        for _ in 4..yields {
            env.yield_now().await;
        }
        self.count("steps", 1);
    }

    /// One put, and whether it was acknowledged.
    pub(super) async fn probe(self: &Rc<Self>, shard: &TestShard, env: &SimEnv) -> bool {
        self.clocks(shard, env);
        let key = self.shape.keys.iter().position(|key| !key.counts).unwrap_or(0);
        let number = self.ledger.borrow().next_number();
        let value = format!("{}", number * 32_000).into_bytes();
        let actions = [(key, Action::Put { value, lifetime: Lifetime::Forever })];
        self.write(shard, &actions, Request::default());
        self.refused_for.set(None);
        self.patiently(env, self.room_for(0)).await;
        self.ledger.borrow().attempts()[number].fate == Fate::Applied
    }

    /// Tells the ledger of an answer.
    fn told(&self, number: Number, result: &Result<Written>) {
        if let Some(shard) = &*self.shard.borrow() {
            self.commits.borrow_mut().insert(number, shard.stats().log.commits);
        }
        match result {
            Err(Error::ShuttingDown) if self.closing.get() => self.ledger.borrow_mut().refuse(number),
            Err(error @ Error::StorageFailed(_)) => {
                self.tolerate(error, "a write");
                self.count("writes left open", 1);
                let mut ledger = self.ledger.borrow_mut();
                if self.failed_at.get().is_none() {
                    self.failed_at.set(Some(ledger.next_number()));
                }
                match self.giving.get() == Some(number) {
                    // Refused by the call itself: it is nowhere.
                    true => ledger.refuse(number),
                    false => ledger.left_open(number),
                }
            }
            Err(error @ (Error::DiskFull | Error::Damaged(_) | Error::Io { .. })) => {
                self.tolerate(error, "a write");
                self.count("writes refused", 1);
                self.ledger.borrow_mut().refuse(number);
            }
            _ => {
                if let Err(Error::Overloaded { retry_after_ms }) = result {
                    self.refused_for.set(Some(*retry_after_ms));
                }
                let mut ledger = self.ledger.borrow_mut();
                let acknowledged = matches!(result, Ok(Written { effect: Effect::Applied, .. }));
                // One whose commit was under way already may be, and a repeat of what is there.
                let begun_later = self.failed_at.get().is_some_and(|first| number >= first);
                let is_new = begun_later && ledger.attempts()[number].repeats.is_none();
                assert!(!(is_new && acknowledged), "write {number} begins after a failure: {result:?}");
                self.count("writes acknowledged", u64::from(acknowledged));
                ledger.answer(number, result, self.outside.now());
            }
        }
        if let Some(room) = self.room.take() {
            room.wake();
        }
    }

    fn write(self: &Rc<Self>, shard: &TestShard, actions: &[(usize, Action)], request: Request) {
        let clock = shard.hybrid_time();
        let number = self.ledger.borrow_mut().issue(actions.to_vec(), request, clock);
        self.giving.set(Some(number));
        let story = Rc::clone(self);
        let told = Told::call(move |result| story.told(number, &result));
        give(shard, &self.shape, actions, request, told);
        self.giving.set(None);
        self.ledger.borrow_mut().issued(number, shard.hybrid_time());
    }

    /// Waits until at most so many writes are open.
    fn room_for(&self, open: usize) -> impl Future<Output = ()> {
        poll_fn(move |context| {
            if self.ledger.borrow().open() <= open {
                return Poll::Ready(());
            }
            self.room.set(Some(context.waker().clone()));
            Poll::Pending
        })
    }

    async fn get(&self, shard: &TestShard, env: &SimEnv, key: usize) {
        let (began, clock) = self.clocks(shard, env);
        match self.patiently(env, get(shard, &self.shape, key)).await {
            Some(Ok(found)) => {
                let moment = Moment { began, before_ms: clock.millis(), after_ms: shard.clock_ms() };
                self.ledger.borrow_mut().read(key, found.as_ref(), moment);
                self.count("reads answered", 1);
            }
            Some(Err(error)) => {
                self.tolerate(&error, "a read");
                self.count("reads that failed", 1);
            }
            None => {}
        }
        self.ledger.borrow_mut().read_ended();
    }

    /// Reads everything, in a running shard.
    pub(super) async fn read_all(&self, shard: &TestShard, env: &SimEnv) {
        for key in 0..self.shape.keys.len() {
            self.get(shard, env, key).await;
        }
        self.scan_all(shard, env).await;
    }

    /// Scans everything.
    pub(super) async fn scan_all(&self, shard: &TestShard, env: &SimEnv) {
        for namespace in NAMESPACES {
            let scan = Scan::whole(&mut self.random.borrow_mut(), namespace);
            self.scan(shard, env, &scan).await;
        }
    }

    async fn scan(&self, shard: &TestShard, env: &SimEnv, scan: &Scan) {
        let mut keys = scan.keys(&self.shape);
        let mut resume = None;
        loop {
            let (began, clock) = self.clocks(shard, env);
            let records_max = 1 + self.random.borrow_mut().below(40);
            let mut page = Page::new(&self.shape, scan, records_max as usize);
            let range = scan.range(&self.shape, resume.take(), 1 + self.random.borrow_mut().below(60) as u32);
            match self.patiently(env, shard.scan(&range, &mut page)).await {
                Some(Ok(next)) => resume = next,
                failed => {
                    if let Some(Err(error)) = failed {
                        self.tolerate(&error, "a scan");
                        self.count("reads that failed", 1);
                    }
                    return self.ledger.borrow_mut().read_ended();
                }
            }
            let is_last = resume.is_none();
            assert!(is_last || !page.records.is_empty(), "a page of {scan:?} makes no progress");
            let moment = Moment { began, before_ms: clock.millis(), after_ms: shard.clock_ms() };
            self.count("reads answered", 1);
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

    /// Closes the shard; `false` if it has failed, and is as good as killed.
    pub(super) async fn close(&self, shard: &TestShard, env: &SimEnv) -> bool {
        self.clocks(shard, env);
        self.closing.set(true);
        match self.patiently(env, shard.close()).await {
            Some(Ok(())) => {
                self.ledger.borrow_mut().closed();
                true
            }
            Some(Err(error)) => {
                self.tolerate(&error, "closing");
                false
            }
            None => false,
        }
    }

    /// The ledger's time and the shard's clock.
    pub(super) fn clocks(&self, shard: &TestShard, env: &SimEnv) -> (u32, HybridTime) {
        let clock = shard.hybrid_time();
        let mut ledger = self.ledger.borrow_mut();
        ledger.note_clocks(env.wall_ms(), clock);
        (ledger.read_begins(), clock)
    }
}
