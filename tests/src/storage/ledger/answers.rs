//! Answers of the shard to writes: what each tells, and whether it can be true.

use pinion_engine::{Condition, Effect, Error, Outcome as ErrorOutcome, Stamp, Written};
use pinion_env::Monotonic;

use super::attempt::{Action, Fate, Number};
use super::effects::Effects;
use super::{Entry, Ledger, Outcome, Outcomes};

impl Ledger {
    /// The shard has answered a write.
    ///
    /// # Panics
    /// When the answer cannot be true, or is the second one.
    pub(crate) fn answer(&mut self, number: Number, result: &Result<Written, Error>, at: Monotonic) {
        self.now += 1;
        if self.attempts[number].fate != Fate::Open {
            self.fail(number, &format!("answered a second time: {result:?}"));
        }
        self.open -= 1;
        self.answered_at[number] = at;
        match result {
            Err(error) => self.refused(number, error),
            Ok(written) => match written.effect {
                Effect::Applied => self.applied(number, written),
                Effect::Superseded => self.superseded(number, written),
                Effect::ConditionFailed => self.condition_failed(number, written),
            },
        }
        let attempt = &mut self.attempts[number];
        attempt.entered = attempt.entered.min(self.now);
        for index in 0..self.attempts[number].actions.len() {
            self.prune(self.attempts[number].actions[index].0);
        }
    }

    fn refused(&mut self, number: Number, error: &Error) {
        let attempt = &self.attempts[number];
        let plausible = match error {
            Error::Overloaded { .. } => true,
            Error::StampAhead => attempt.proposed.is_some_and(|stamp| stamp.millis() > self.wall_ms),
            Error::StampTooOld { .. } => attempt
                .proposed
                .is_some_and(|stamp| stamp.millis() + self.retry_window_ms < self.clock_ms_max()),
            Error::BadOperation(_) | Error::TooLarge { .. } if attempt.actions[0].1.is_update() => {
                let (key, entry) = self.entry_of(number, 0);
                self.effects(key, entry, &mut Vec::new()).may_not_fit
            }
            _ => false,
        };
        if !plausible || error.outcome() != ErrorOutcome::NotApplied {
            self.fail(number, &format!("answered {error:?}"));
        }
        self.attempts[number].fate = Fate::Void;
    }

    fn applied(&mut self, number: Number, written: &Written) {
        self.own_stamp(number, written.stamp);
        let sync = self.is_sync(number);
        for index in 0..self.attempts[number].actions.len() {
            let Some(place) = self.place_of(number, index) else { continue };
            let key = self.attempts[number].actions[index].0;
            if written.superseded.contains(&(index as u32)) {
                self.keys[key].entries[place].superseded = true;
                self.check_superseded(number, key);
                continue;
            }
            self.check_not_superseded(number, key);
            let entry = &self.keys[key].entries[place];
            if self.attempts[number].is_direct() || self.attempts[number].proposed.is_some() {
                self.check_expiry(number, index, written);
                continue;
            }
            let effects = self.effects(key, entry, &mut Vec::new());
            let outcomes = self.narrowed(number, index, written, &effects);
            if outcomes.is_empty() && !effects.unknown {
                self.fail(number, &format!("cannot be applied to anything: {written:?} {effects:?}"));
            }
            self.check_not_decided_twice(number, key);
            if self.attempts[number].actions[index].1.is_update() {
                let known = if effects.unknown { Outcomes::Anything } else { Outcomes::Known(outcomes) };
                self.keys[key].entries[place].outcomes = known;
            }
        }
        let attempt = &mut self.attempts[number];
        attempt.fate = Fate::Applied;
        attempt.answered = self.now;
        if sync {
            self.keep(number);
        }
    }

    /// Those outcomes that agree with what was answered.
    fn narrowed(&self, number: Number, index: usize, written: &Written, effects: &Effects) -> Vec<Outcome> {
        let action = &self.attempts[number].actions[index].1;
        let agrees = |outcome: &&Outcome| {
            let numbers = match action {
                Action::Add(_) => outcome.value == written.number.to_string().into_bytes(),
                Action::Append(_) | Action::SetRange { .. } => outcome.value.len() as i64 == written.number,
                _ => true,
            };
            let (first_ms, last_ms) = outcome.expiry_ms;
            let deletes = matches!(action, Action::Delete);
            numbers && (deletes || (first_ms <= written.expiry_ms && written.expiry_ms <= last_ms))
        };
        let exact = |outcome: &Outcome| Outcome {
            expiry_ms: (written.expiry_ms, written.expiry_ms),
            ..outcome.clone()
        };
        effects.outcomes.iter().filter(agrees).map(exact).collect()
    }

    fn superseded(&mut self, number: Number, written: &Written) {
        let attempt = &self.attempts[number];
        if !attempt.batch {
            let key = attempt.actions[0].0;
            if written.stamp <= attempt.low {
                self.fail(number, &format!("superseded by what is older: {written:?}"));
            }
            let high = attempt.high.min(written.stamp);
            self.attempts[number].high = high;
            self.check_superseded(number, key);
            self.note_found(number, key, written.stamp, false);
        } else {
            for index in 0..attempt.actions.len() {
                if self.place_of(number, index).is_some() {
                    self.check_superseded(number, self.attempts[number].actions[index].0);
                }
            }
        }
        self.attempts[number].fate = Fate::Superseded;
    }

    fn condition_failed(&mut self, number: Number, written: &Written) {
        let (key, entry) = self.entry_of(number, 0);
        let effects = self.effects(key, entry, &mut Vec::new());
        if !effects.may_not_hold {
            self.fail(number, &format!("its condition holds: {written:?} {effects:?}"));
        }
        self.attempts[number].fate = Fate::Void;
        if written.stamp != Stamp::ZERO {
            self.note_found(number, key, written.stamp, true);
        }
    }

    /// A write was answered by a version that it found: that one is there. One that changed nothing
    /// is as durable as its answer. (A write that is in the log itself may be superseded by a buffered
    /// one that is lost before it: what stands then is what was asked for.)
    fn note_found(&mut self, number: Number, key: usize, stamp: Stamp, changed_nothing: bool) {
        let entries = self.keys[key].entries.iter();
        let found: Vec<Number> = entries
            .map(|entry| entry.number)
            .filter(|other| {
                *other != number && self.may_own(*other, stamp) && self.attempts[*other].fate != Fate::Void
            })
            .collect();
        if found.is_empty() {
            self.fail(number, &format!("answered {stamp:?}, which no write has"));
        }
        if let [owner] = found[..] {
            self.own_stamp(owner, stamp);
            if changed_nothing && self.is_sync(number) && self.attempts[owner].fate != Fate::Superseded {
                self.keep(owner);
            }
        }
    }

    /// Something newer may be there.
    fn check_superseded(&self, number: Number, key: usize) {
        let attempt = &self.attempts[number];
        let newer = self.keys[key].entries.iter().any(|entry| {
            let other = &self.attempts[entry.number];
            entry.number != number && other.fate != Fate::Void && other.high > attempt.low
        });
        if !newer {
            self.fail(number, &format!("superseded by nothing on key {key}"));
        }
    }

    /// Nothing newer was answered before it was issued.
    fn check_not_superseded(&self, number: Number, key: usize) {
        let attempt = &self.attempts[number];
        for entry in &self.keys[key].entries {
            let other = &self.attempts[entry.number];
            let before = other.fate == Fate::Applied && other.answered < attempt.issued && !entry.superseded;
            if before && other.is_newer_than(attempt) {
                self.fail(number, &format!("applied over the newer write {}", entry.number));
            }
        }
    }

    /// No two writes are decided on the same version, unless a client's stamp came between.
    fn check_not_decided_twice(&self, number: Number, key: usize) {
        let attempt = &self.attempts[number];
        let Some(Condition::VersionIs(base)) = attempt.condition else { return };
        for entry in &self.keys[key].entries {
            let other = &self.attempts[entry.number];
            let between = other.fate == Fate::Applied && other.low > base && other.high < attempt.low;
            if between && other.proposed.is_none() && other.life == attempt.life {
                self.fail(number, &format!("write {} came after the version it is decided on", entry.number));
            }
        }
    }

    fn check_expiry(&self, number: Number, index: usize, written: &Written) {
        let attempt = &self.attempts[number];
        let Action::Put { lifetime, .. } = &attempt.actions[index].1 else { return };
        let expiry_ms = lifetime.expiry_ms(written.stamp, 0);
        if !attempt.batch && attempt.repeats.is_none() && expiry_ms != written.expiry_ms {
            self.fail(number, &format!("expires at {expiry_ms}: {written:?}"));
        }
    }

    /// Where the entry of an action stands among those of its key; `None` if a later action of the
    /// batch is on the same key.
    fn place_of(&self, number: Number, action: usize) -> Option<usize> {
        let key = self.attempts[number].actions[action].0;
        let is_it = |entry: &Entry| entry.number == number && entry.action == action;
        self.keys[key].entries.iter().rposition(is_it)
    }

    fn entry_of(&self, number: Number, action: usize) -> (usize, &Entry) {
        let place = self.place_of(number, action).expect("an open write is on its keys");
        let key = self.attempts[number].actions[action].0;
        (key, &self.keys[key].entries[place])
    }
}
