//! Reads: what a key may show.

use super::attempt::{Action, Attempt, Event, Fate};
use super::{Entry, Ledger, Moment, Outcome, Seen};

/// The versions that explain what was read.
#[derive(Debug, Default)]
pub(super) struct Explained {
    /// Places of entries among those of the key.
    pub(super) places: Vec<usize>,
    /// There may have been nothing at all.
    pub(super) absent: bool,
}

impl Explained {
    pub(super) fn is_none(&self) -> bool {
        self.places.is_empty() && !self.absent
    }
}

impl Ledger {
    /// A reader of the running shard was shown `seen` under a key, or nothing.
    ///
    /// # Panics
    /// When that cannot be.
    pub(crate) fn read(&mut self, key: usize, seen: Option<&Seen>, moment: Moment) {
        let certain = |entry: &Entry, attempt: &Attempt| {
            attempt.fate == Fate::Applied && attempt.answered <= moment.began && !entry.superseded
        };
        let explained = self.explain(key, seen, moment, |_| true, certain);
        let state = &self.keys[key];
        match seen {
            Some(seen) => {
                let new = |place: &usize| {
                    let attempt = &self.attempts[state.entries[*place].number];
                    attempt.answered == Event::MAX || attempt.answered > state.hidden_at
                };
                let places: Vec<usize> = explained.places.iter().copied().filter(new).collect();
                if places.is_empty() || seen.stamp < state.seen {
                    self.fail_read(key, Some(seen), moment);
                }
                if let [place] = places[..] {
                    let number = state.entries[place].number;
                    self.own_stamp(number, seen.stamp);
                    self.note_outcome(key, place, seen);
                    let attempt = &mut self.attempts[number];
                    attempt.entered = attempt.entered.min(self.now);
                    // What a reader has seen of it does not go away.
                    if self.is_sync(number) {
                        self.keep(number);
                    }
                }
                self.keys[key].seen = seen.stamp;
            }
            None => {
                if explained.is_none() {
                    self.fail_read(key, None, moment);
                }
                self.note_expired(key, moment);
                self.keys[key].hidden_at = moment.began;
            }
        }
    }

    /// Nothing was found: if that can only be because the newest version has expired, it is gone
    /// for good.
    pub(super) fn note_expired(&mut self, key: usize, moment: Moment) {
        let state = &self.keys[key];
        let attempt = |entry: &Entry| &self.attempts[entry.number];
        let is_sure = |entry: &&Entry| attempt(entry).fate == Fate::Applied && attempt(entry).is_stamped();
        if !state.entries.iter().all(|entry| is_sure(&entry)) {
            return;
        }
        let newest = state.entries.iter().filter(|entry| !entry.superseded);
        let Some(newest) = newest.max_by_key(|entry| attempt(entry).low) else { return };
        let stamp = attempt(newest).low;
        if attempt(newest).answered > moment.began || state.expired.contains(&stamp) {
            return;
        }
        let outcomes = self.outcomes(key, newest, &mut Vec::new()).unwrap_or_default();
        if let [outcome] = &outcomes[..]
            && outcome.expiry_ms.0 != 0
        {
            self.keys[key].expired.push(stamp);
        }
    }

    /// Which versions explain what was read, out of those that are possible, given those that are
    /// there for certain.
    pub(super) fn explain(
        &self,
        key: usize,
        seen: Option<&Seen>,
        moment: Moment,
        possible: impl Fn(&Attempt) -> bool,
        certain: impl Fn(&Entry, &Attempt) -> bool,
    ) -> Explained {
        let state = &self.keys[key];
        let mut floor = None;
        for entry in &state.entries {
            let attempt = &self.attempts[entry.number];
            if floor < Some(attempt.low) && certain(entry, attempt) {
                floor = Some(attempt.low);
            }
        }
        let mut explained = Explained { places: Vec::new(), absent: seen.is_none() && floor.is_none() };
        // A write whose stamp is not known may be newer than what is there for certain; what it is
        // said to show may not be older.
        if seen.is_some_and(|seen| Some(seen.stamp) < floor) {
            return explained;
        }
        for (place, entry) in state.entries.iter().enumerate() {
            let attempt = &self.attempts[entry.number];
            let may_be_it = attempt.fate != Fate::Void
                && floor.is_none_or(|floor| attempt.high >= floor)
                && possible(attempt);
            if may_be_it && self.shows(key, entry, seen, moment) {
                explained.places.push(place);
            }
        }
        explained
    }

    /// Whether a key whose newest version this is may look like that.
    fn shows(&self, key: usize, entry: &Entry, seen: Option<&Seen>, moment: Moment) -> bool {
        let attempt = &self.attempts[entry.number];
        let action = &attempt.actions[entry.action].1;
        let Some(seen) = seen else {
            if entry.dead || matches!(action, Action::Delete) {
                return true;
            }
            let may_have_expired = |first_ms: u64| first_ms != 0 && first_ms <= moment.after_ms;
            if let Action::Put { lifetime, .. } = action {
                return may_have_expired(lifetime.expiry_ms(attempt.low, 0));
            }
            let outcomes = self.outcomes(key, entry, &mut Vec::new());
            return outcomes
                .is_none_or(|outcomes| outcomes.iter().any(|outcome| may_have_expired(outcome.expiry_ms.0)));
        };
        if entry.dead
            || attempt.fate == Fate::Maybe
            || !self.may_own(entry.number, seen.stamp)
            || self.keys[key].expired.contains(&seen.stamp)
            || (seen.expiry_ms != 0 && seen.expiry_ms <= moment.before_ms)
        {
            return false;
        }
        match action {
            Action::Delete => false,
            Action::Put { value, lifetime } => {
                *value == seen.value && lifetime.expiry_ms(seen.stamp, 0) == seen.expiry_ms
            }
            _ => {
                let agrees = |outcome: &Outcome| {
                    let (first_ms, last_ms) = outcome.expiry_ms;
                    outcome.value == seen.value && first_ms <= seen.expiry_ms && seen.expiry_ms <= last_ms
                };
                let outcomes = self.outcomes(key, entry, &mut Vec::new());
                outcomes.is_none_or(|outcomes| outcomes.iter().any(agrees))
            }
        }
    }

    fn fail_read(&self, key: usize, seen: Option<&Seen>, moment: Moment) -> ! {
        let seen = Seen::brief(seen);
        panic!("a read shows {seen} at {moment:?}\n{}", self.describe(key));
    }
}
