//! Writes of one key: how they are made from a plan, and whether their answers are right.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pinion_engine::{
    Answer, Condition, Durability, Effect as Answered, Error, Expiring, HybridTime, Operation, Origin,
    Result as Engine, Stamp, Update, WriteOptions, Written, answer,
};
use pinion_env::Env;

use super::plan::{Change, DRIFT_MAX, Life, Proposed, Wanted, Write};
use super::reference::{Effect, Entry, Place, effect, expiry_ms, lifetime};
use super::run::{Done, Proposal, Run, Said, Wrong, ensure, key_of, unexpected};

/// How often a write that is refused for want of room is tried again.
const ATTEMPTS_MAX: usize = 100;
/// A deadline that nothing reaches.
const DEADLINE: Duration = Duration::from_secs(1 << 30);
/// As far ahead of the wall clock as a stamp of ours goes; half of what is allowed.
const AHEAD_MS: u64 = 250;

/// A write as it goes to the shard.
#[derive(Debug, Clone)]
struct Prepared {
    place: Place,
    change: Change,
    created: Life,
    value: Vec<u8>,
    /// What stands under the key by the reference.
    standing: Stamp,
    /// Its bytes; none if it is deleted.
    bytes: Vec<u8>,
    options: WriteOptions,
    before_ms: u64,
}

impl Prepared {
    fn operation(&self) -> Operation<'_> {
        let value = self.value.as_slice();
        match &self.change {
            Change::Put(_, life) => Operation::Put { value, lifetime: lifetime(*life) },
            Change::Delete => Operation::Delete,
            Change::PutIf(wanted, _, life) => {
                Operation::PutIf { condition: self.condition(*wanted), value, lifetime: lifetime(*life) }
            }
            Change::DeleteIf(wanted) => Operation::DeleteIf { condition: self.condition(*wanted) },
            Change::Add(operand) => Operation::Update(Update::Add(*operand)),
            Change::Append(_) => Operation::Update(Update::Append(value)),
            Change::SetRange(offset, _) => {
                Operation::Update(Update::SetRange { offset: *offset, bytes: value })
            }
            Change::SetExpiry(life) => Operation::Update(Update::SetExpiry(lifetime(*life))),
        }
    }

    fn condition(&self, wanted: Wanted) -> Condition<'_> {
        match wanted {
            Wanted::Absent => Condition::Absent,
            Wanted::Present => Condition::Present,
            Wanted::Standing => Condition::VersionIs(self.standing),
            Wanted::Other => Condition::VersionIs(Stamp { origin: Origin(77), ..self.standing }),
            Wanted::Zero => Condition::VersionIs(Stamp::ZERO),
            Wanted::Always => Condition::Always,
            Wanted::Bytes => Condition::ValueIs(&self.bytes),
            Wanted::Lasting => Condition::Expires(Expiring { from_ms: 1, to_ms: 0, never: true }),
            Wanted::Mortal => Condition::Expires(Expiring { from_ms: 1, to_ms: u64::MAX, never: false }),
        }
    }
}

/// Writes in flight when the process ends.
pub(super) struct Doubts(Vec<(Prepared, Answer)>);

impl Run<'_> {
    pub(super) async fn write(&mut self, write: &Write) -> Done {
        let prepared = self.prepare(write);
        let result = self.attempt(&prepared).await?;
        self.judge(&prepared, result)
    }

    /// Starts writes of different keys without waiting in between.
    pub(super) async fn together(&mut self, writes: &[Write]) -> Done {
        self.counts.add("groups of writes in flight together", 1);
        let prepared: Vec<Prepared> = writes.iter().map(|write| self.prepare(write)).collect();
        let answers: Vec<Answer> = prepared.iter().map(|prepared| self.start(prepared)).collect();
        let mut results = Vec::new();
        for answer in answers {
            results.push(answer.await);
        }
        for (prepared, result) in prepared.iter().zip(results) {
            let result = match result {
                Err(Error::Overloaded { .. }) => self.attempt(prepared).await?,
                result => result,
            };
            self.judge(prepared, result)?;
        }
        // One that had to read a table went into the log after those that were started later.
        self.unsynced |= writes.iter().any(|write| write.buffered);
        Ok(())
    }

    fn prepare(&mut self, write: &Write) -> Prepared {
        let place = self.place(write.namespace, write.key);
        let (mut change, mut created) = (write.change.clone(), write.created);
        let stamp = match write.proposed {
            Proposed::Again => self.proposals.get(&place).map(|proposal| {
                (change, created) = proposal.what.clone();
                self.counts.add("writes repeated", 1);
                proposal.stamp
            }),
            proposed => self.propose(proposed, [&place]),
        };
        if let Some(stamp) = stamp {
            self.proposals.insert(place.clone(), Proposal { stamp, what: (change.clone(), created) });
        }
        let (value, name) = match &change {
            Change::Put(value, _) => (value.bytes(), "puts"),
            Change::Delete => (Vec::new(), "deletes"),
            Change::PutIf(_, value, _) => (value.bytes(), "conditional puts"),
            Change::DeleteIf(_) => (Vec::new(), "conditional deletes"),
            Change::Add(_) => (Vec::new(), "updates: add"),
            Change::Append(value) => (value.bytes(), "updates: append"),
            Change::SetRange(_, value) => (value.bytes(), "updates: set range"),
            Change::SetExpiry(_) => (Vec::new(), "updates: set expiry"),
        };
        self.counts.add(name, 1);
        self.counts.add("buffered writes", u64::from(write.buffered));
        Prepared {
            standing: self.reference.stamp(&place),
            bytes: self.reference.get(&place).and_then(|entry| entry.value.clone()).unwrap_or_default(),
            place,
            change,
            created,
            value,
            options: WriteOptions {
                durability: if write.buffered { Durability::Buffered } else { Durability::Sync },
                stamp,
                created: lifetime(created),
                deadline: write.deadline.then(|| self.env.now().after(DEADLINE)),
            },
            before_ms: self.shard.clock_ms(),
        }
    }

    /// A stamp as a client makes one, for a write of these keys.
    ///
    /// Two stamps of the same place on the grid tie but for what operations took, and a restart
    /// leaves the shard's clock a little ahead of the wall's: late by one unit after one unit may
    /// then be a bit older than late by none before. In plans that run twice, maybe with a restart
    /// in one run only, such a tie goes to the later proposal. Plans that run once keep it as it is.
    pub(super) fn propose<'p>(
        &mut self,
        proposed: Proposed,
        places: impl IntoIterator<Item = &'p Place>,
    ) -> Option<Stamp> {
        let millis = match proposed {
            Proposed::Late(units) => {
                self.counts.add("late stamps", 1);
                self.shard.clock_ms() - Proposed::late_ms(units)
            }
            Proposed::Ahead => {
                self.counts.add("stamps ahead", 1);
                self.env.wall_ms() + AHEAD_MS
            }
            Proposed::Nothing | Proposed::Again => return None,
        };
        // Within a millisecond greater than the stamps that the shard issues after the one before.
        self.stamps += 1;
        let mut time = HybridTime(HybridTime::from_millis(millis).0 | ((self.stamps << 8) & 0xffff));
        if self.plan.twice {
            let tie_ends = HybridTime::from_millis(millis + DRIFT_MAX.as_millis() as u64);
            let standing = places.into_iter().map(|place| self.reference.stamp(place).time);
            if let Some(tied) = standing.filter(|standing| (time..tie_ends).contains(standing)).max() {
                self.counts.add("ties given to the later stamp", 1);
                time = tied.next();
            }
        }
        Some(Stamp { time, origin: Origin(Origin::CLIENT_BIT | 5) })
    }

    fn start(&self, prepared: &Prepared) -> Answer {
        let (teller, answer) = answer();
        self.shard.write(&key_of(&prepared.place), prepared.operation(), prepared.options, teller);
        answer
    }

    /// A write, repeated as long as it is refused for want of room.
    async fn attempt(&mut self, prepared: &Prepared) -> Result<Engine<Written>, Wrong> {
        for _ in 0..ATTEMPTS_MAX {
            match self.start(prepared).await {
                Err(Error::Overloaded { .. }) => self.make_room().await?,
                result => return Ok(result),
            }
        }
        Err(Wrong(format!("refused as overloaded {ATTEMPTS_MAX} times: {:?}", self.shard.stats())))
    }

    /// Waits until nothing stands in the way of a write that was refused.
    pub(super) async fn make_room(&mut self) -> Done {
        self.counts.add("writes refused as overloaded", 1);
        self.shard.settle().await.map_err(unexpected)
    }

    /// Whether a stamp that was refused or taken is too old is checked against the window.
    pub(super) fn judge_age(&self, stamp: Option<Stamp>, refused: bool, before_ms: u64) -> Done {
        let Some(stamp) = stamp else {
            return ensure(!refused, || "too old without a stamp".into());
        };
        let end_ms = stamp.millis() + self.plan.window_ms();
        let after_ms = self.shard.clock_ms();
        let right = if refused { end_ms < after_ms } else { end_ms >= before_ms };
        ensure(right, || format!("{stamp:?} is refused: {refused}, between {before_ms} and {after_ms}"))
    }

    /// Compares an answer with the reference, and takes the change over.
    fn judge(&mut self, prepared: &Prepared, result: Engine<Written>) -> Done {
        let Prepared { place, change, created, standing, options, before_ms, .. } = prepared;
        if let Err(Error::StampTooOld { .. }) = result {
            self.counts.add("stamps too old", 1);
            self.said.push(Said::Failed("too old"));
            return self.judge_age(options.stamp, true, *before_ms);
        }
        if options.stamp.is_some() {
            self.judge_age(options.stamp, false, *before_ms)?;
        }
        if let Some(stamp) = options.stamp.filter(|stamp| stamp <= standing) {
            // The very same version is there already, or a newer one.
            let (effect, name) = if stamp == *standing {
                (Answered::Applied, "writes repeated to no effect")
            } else {
                (Answered::Superseded, "writes superseded")
            };
            self.counts.add(name, 1);
            let written = result.map_err(unexpected)?;
            self.said.push(Said::Written(name, 0, false, Vec::new()));
            return ensure((written.effect, written.stamp) == (effect, *standing), || {
                format!("{written:?} for {stamp:?}, {effect:?} by {standing:?} is expected")
            });
        }
        let entry = self.reference.get(place);
        let stamp = result.as_ref().map_or(Stamp::ZERO, |written| written.stamp);
        let after_ms = self.shard.clock_ms();
        let at = |now_ms: u64| (now_ms, effect(change, entry, now_ms, stamp, *created));
        let visible = |now_ms: u64| entry.filter(|entry| entry.is_visible(now_ms));
        let fits = |(now_ms, effect): &(u64, Effect)| match (&result, effect) {
            (Ok(written), Effect::Becomes { expiry_ms, number, .. }) => {
                written.effect == Answered::Applied
                    && (written.expiry_ms, written.number) == (*expiry_ms, *number)
                    && options.stamp.is_none_or(|proposed| proposed == stamp)
                    && stamp > *standing
            }
            (Ok(written), Effect::Fails) => {
                let found = visible(*now_ms).map_or((Stamp::ZERO, 0), |entry| (entry.stamp, entry.expiry_ms));
                written.effect == Answered::ConditionFailed && (written.stamp, written.expiry_ms) == found
            }
            (Err(Error::BadOperation(_)), Effect::Unfit) => true,
            (Err(Error::TooLarge { .. }), Effect::TooLarge) => true,
            _ => false,
        };
        let fitting = [at(*before_ms), at(after_ms)].into_iter().find(fits);
        let Some((_, effect)) = fitting else {
            return Err(Wrong(format!(
                "{change:?} on {entry:?} answers {result:?} between {before_ms} and {after_ms}"
            )));
        };
        let said = match effect {
            Effect::Becomes { value, expiry_ms, number } => {
                self.counts.add("writes applied", 1);
                self.unsynced = options.durability == Durability::Buffered;
                self.reference.set(place.clone(), Entry { value, expiry_ms, stamp });
                Said::Written("applied", number, expiry_ms != 0, Vec::new())
            }
            Effect::Fails => {
                self.counts.add("conditions that failed", 1);
                Said::Written("condition failed", 0, false, Vec::new())
            }
            Effect::Unfit => {
                self.counts.add("updates that do not fit the value", 1);
                Said::Failed("unfit")
            }
            Effect::TooLarge => {
                self.counts.add("values that would be too large", 1);
                Said::Failed("too large")
            }
        };
        self.said.push(said);
        Ok(())
    }

    /// Makes what was acknowledged before it was durable survive a kill: by a synced write of a key
    /// that nothing else uses.
    pub(super) async fn make_durable(&mut self) -> Done {
        // A shard starts at the time that its last commit before the kill has made durable. When that
        // was, no two runs have in common; so what is compared makes the time it has seen durable.
        if !self.unsynced && !self.plan.twice {
            return Ok(());
        }
        let user = b"a fence".to_vec();
        let place = (pinion_engine::partition_of(&user, super::run::PARTITIONS), 0, user);
        let fence = Prepared {
            place,
            change: Change::Delete,
            created: Life::Forever,
            value: Vec::new(),
            standing: Stamp::ZERO,
            bytes: Vec::new(),
            options: WriteOptions::default(),
            before_ms: self.shard.clock_ms(),
        };
        let written = self.attempt(&fence).await?.map_err(unexpected)?;
        self.unsynced = false;
        ensure(written.effect == Answered::Applied, || format!("a delete answers {written:?}"))
    }

    /// Starts writes that a kill will meet.
    pub(super) fn start_and_forget(&mut self, writes: &[Write]) -> Doubts {
        let started = writes.iter().map(|write| {
            let prepared = self.prepare(write);
            let answer = self.start(&prepared);
            (prepared, answer)
        });
        Doubts(started.collect())
    }

    /// After a kill amid writes: what was acknowledged is there; of the rest each is there or not.
    pub(super) async fn resolve(&mut self, doubts: Doubts) -> Done {
        for (prepared, answer) in doubts.0 {
            let synced = prepared.options.durability == Durability::Sync;
            let answered = pin!(answer).poll(&mut Context::from_waker(Waker::noop()));
            match answered {
                // The slot of a write that was never answered says that the shard is gone.
                Poll::Pending | Poll::Ready(Err(Error::StorageFailed(_))) => {}
                Poll::Ready(Err(Error::Overloaded { .. })) => continue,
                Poll::Ready(result) if synced => {
                    self.counts.add("writes acknowledged before a kill", 1);
                    self.judge(&prepared, result)?;
                    continue;
                }
                Poll::Ready(_) => {}
            }
            self.counts.add("writes in doubt after a kill", 1);
            self.adopt(&prepared).await?;
        }
        Ok(())
    }

    /// Takes what recovery left under a key into the reference, if it is one of the two outcomes.
    async fn adopt(&mut self, prepared: &Prepared) -> Done {
        let Prepared { place, change, .. } = prepared;
        let found = self.shard.get(&key_of(place)).await.map_err(unexpected)?;
        let now_ms = self.shard.clock_ms();
        let old = self.reference.get(place);
        let (value, life) = match change {
            Change::Put(_, Life::Keep) => (Some(&prepared.value), Life::Forever),
            Change::Put(_, life) => (Some(&prepared.value), *life),
            _ => (None, Life::Forever),
        };
        match (found.as_ref().map(pinion_engine::Found::view), value) {
            (Some(record), _) if old.is_some_and(|old| old.stamp == record.stamp) => {
                let same = old.is_some_and(|old| old.value.as_deref() == Some(record.value));
                ensure(same, || format!("{place:?} holds {record:?} under the stamp of {old:?}"))
            }
            (Some(record), Some(value)) => {
                let expiry_ms = expiry_ms(life, record.stamp, 0);
                let same = (record.value, record.expiry_ms) == (value.as_slice(), expiry_ms);
                ensure(same && record.stamp > prepared.standing, || {
                    format!("{place:?} holds {record:?}, which nobody wrote")
                })?;
                let entry = Entry { value: Some(value.clone()), expiry_ms, stamp: record.stamp };
                self.reference.set(place.clone(), entry);
                Ok(())
            }
            (Some(record), None) => Err(Wrong(format!("{place:?} holds {record:?} after a delete in doubt"))),
            (None, Some(_)) => {
                let lost = old.filter(|old| old.is_visible(now_ms));
                ensure(lost.is_none(), || format!("{place:?} is lost: {lost:?}"))
            }
            (None, None) => {
                // Deleted or never there: nothing is visible, but the stamp is not known. A delete
                // whose stamp is makes the reference exact again.
                let delete = Prepared { options: WriteOptions::default(), ..prepared.clone() };
                let result = self.attempt(&delete).await?;
                self.judge(&delete, result)
            }
        }
    }
}
