//! What a crash left: one moment of the log must explain all of it.

use super::attempt::{Attempt, Event, Fate, Number};
use super::views::Explained;
use super::{Entry, Ledger, Moment, Seen};
use pinion_engine::{HybridTime, Stamp};

/// What a crash took.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Writes whose fate was open and that are there.
    pub kept: u64,
    /// Writes that were never answered and are not there.
    pub lost: u64,
    /// Buffered writes that were answered and are not there.
    pub lost_buffered: u64,
    /// Writes of which nothing tells.
    pub untold: u64,
}

impl Ledger {
    /// The shard was opened again after a crash, its clock stands at `clock`, and its keys show
    /// `seen`.
    ///
    /// # Panics
    /// When no prefix of the log explains that.
    pub(crate) fn recovered(
        &mut self,
        seen: &[Option<Seen>],
        moment: Moment,
        clock: HybridTime,
    ) -> Recovered {
        if clock < self.kept_time {
            self.fail(self.kept_last, &format!("its time is later than the clock, {:x}", clock.0));
        }
        self.now += 1;
        for key in &mut self.keys {
            (key.seen, key.hidden_at) = (Stamp::ZERO, 0);
        }
        let ends = self.possible_ends();
        let mut fits = vec![true; ends.len()];
        for (key, seen) in seen.iter().enumerate() {
            self.narrow_ends(key, seen.as_ref(), moment, &ends, &mut fits);
        }
        let mut fitting = ends.iter().zip(&fits).filter(|(_, fits)| **fits).map(|(end, _)| *end);
        let Some(first) = fitting.next() else { self.fail_recovery(seen, moment, &ends) };
        let last = fitting.next_back().unwrap_or(first);
        let owners: Vec<Option<usize>> = seen
            .iter()
            .enumerate()
            .map(|(key, seen)| {
                let seen = seen.as_ref()?;
                let explained = self.explain_end(key, Some(seen), moment, last);
                // A write whose stamp is all but known is preferred: an open update that keeps the
                // value it found looks the same, but has a stamp of its own.
                let width = |place: &usize| {
                    let attempt = &self.attempts[self.keys[key].entries[*place].number];
                    attempt.high.time.0 - attempt.low.time.0
                };
                explained.places.into_iter().min_by_key(width)
            })
            .collect();
        for (key, place) in owners.iter().enumerate() {
            let (Some(place), Some(seen)) = (place, &seen[key]) else { continue };
            let number = self.keys[key].entries[*place].number;
            self.own_stamp(number, seen.stamp);
            self.note_outcome(key, *place, seen);
        }
        let recovered = self.settle(first, last, &owners);
        for (key, place) in owners.into_iter().enumerate() {
            self.settle_key(key, place, seen[key].as_ref(), moment);
        }
        recovered
    }

    /// Where the log may end: after all that must survive; one moment of each stretch in which
    /// nothing changes.
    pub(super) fn possible_ends(&self) -> Vec<Event> {
        let attempts = &self.attempts[self.settled..];
        // A repeat may have been answered by what it repeats: it is no part of the log then.
        let kept = attempts.iter().filter(|attempt| attempt.durable && attempt.repeats.is_none());
        let first = kept.map(|attempt| attempt.issued).max().unwrap_or(0);
        let doubtful = attempts.iter().filter(|attempt| self.is_doubtful(attempt));
        let mut ends: Vec<Event> = doubtful
            .flat_map(|attempt| [attempt.issued, attempt.entered])
            .filter(|end| *end > first && *end != Event::MAX)
            .collect();
        ends.push(first);
        ends.sort_unstable();
        ends.dedup();
        ends
    }

    fn is_doubtful(&self, attempt: &Attempt) -> bool {
        !attempt.durable && matches!(attempt.fate, Fate::Open | Fate::Applied | Fate::Superseded)
    }

    /// Crosses out the ends of the log that do not explain what a key shows.
    pub(super) fn narrow_ends(
        &self,
        key: usize,
        seen: Option<&Seen>,
        moment: Moment,
        ends: &[Event],
        fits: &mut [bool],
    ) {
        let entries = self.keys[key].entries.iter().map(|entry| &self.attempts[entry.number]);
        let doubtful = entries.filter(|attempt| self.is_doubtful(attempt));
        let mut changes: Vec<Event> =
            doubtful.flat_map(|attempt| [attempt.issued, attempt.entered]).collect();
        changes.sort_unstable();
        let mut passed = None;
        let mut explained = false;
        for (end, fits) in ends.iter().zip(fits) {
            let before = changes.partition_point(|change| change <= end);
            if passed != Some(before) {
                passed = Some(before);
                explained = !self.explain_end(key, seen, moment, *end).is_none();
            }
            *fits &= explained;
        }
    }

    /// What explains a key if the log ends there.
    fn explain_end(&self, key: usize, seen: Option<&Seen>, moment: Moment, end: Event) -> Explained {
        let possible = |attempt: &Attempt| attempt.durable || attempt.issued <= end;
        let certain = |entry: &Entry, attempt: &Attempt| {
            attempt.has_effect() && !entry.superseded && (attempt.durable || attempt.entered <= end)
        };
        self.explain(key, seen, moment, possible, certain)
    }

    /// Decides what can be decided about the writes that the crash left open, now that the log is
    /// known to end between `first` and `last`.
    fn settle(&mut self, first: Event, last: Event, owners: &[Option<usize>]) -> Recovered {
        let mut recovered = Recovered::default();
        let found: Vec<Number> = owners
            .iter()
            .enumerate()
            .filter_map(|(key, place)| place.map(|place| self.keys[key].entries[place].number))
            .collect();
        for number in self.settled..self.attempts.len() {
            let attempt = &self.attempts[number];
            if !self.is_doubtful(attempt) {
                continue;
            }
            let was_applied = attempt.fate == Fate::Applied;
            let is_there = attempt.has_effect() && attempt.entered <= first;
            if found.contains(&number) || is_there {
                self.attempts[number].fate = Fate::Applied;
                self.attempts[number].answered = self.attempts[number].answered.min(self.now);
                self.keep(number);
                recovered.kept += 1;
            } else if attempt.issued > last {
                recovered.lost += u64::from(!was_applied);
                recovered.lost_buffered += u64::from(was_applied);
                self.attempts[number].fate = Fate::Void;
                if self.doubted {
                    // The block that is gone carried the clock's ceiling too.
                    self.stamps.retain(|_, owner| *owner != number);
                }
            } else {
                recovered.untold += 1;
                self.attempts[number].fate = Fate::Maybe;
            }
        }
        self.settled = self.attempts.len();
        recovered
    }

    /// Forgets what the check has made impossible under a key.
    fn settle_key(&mut self, key: usize, owner: Option<usize>, seen: Option<&Seen>, moment: Moment) {
        match (owner, seen) {
            (Some(place), Some(seen)) => {
                let entry = self.keys[key].entries[place].clone();
                let state = &mut self.keys[key];
                state.entries = vec![Entry { superseded: false, ..entry }];
                state.seen = seen.stamp;
            }
            _ => {
                self.note_expired(key, moment);
                let attempts = &self.attempts;
                let state = &mut self.keys[key];
                state.entries.retain(|entry| attempts[entry.number].fate != Fate::Void);
                for entry in &mut state.entries {
                    entry.dead = true;
                }
                state.hidden_at = moment.began;
            }
        }
    }

    pub(super) fn fail_recovery(&self, seen: &[Option<Seen>], moment: Moment, ends: &[Event]) -> ! {
        // The end that explains most says best what is wrong.
        let unexplained = |end: Event| -> Vec<usize> {
            let keys = seen.iter().enumerate();
            keys.filter(|(key, seen)| self.explain_end(*key, seen.as_ref(), moment, end).is_none())
                .map(|(key, _)| key)
                .collect()
        };
        let best = ends.iter().map(|end| (*end, unexplained(*end))).min_by_key(|(_, keys)| keys.len());
        let (end, keys) = best.expect("there is an end before everything that is open");
        let keys: Vec<String> = keys
            .iter()
            .map(|key| format!("{}\n  shows {}", self.describe(*key), Seen::brief(seen[*key].as_ref())))
            .collect();
        let kept = self.attempts.iter().rposition(|attempt| attempt.durable);
        let kept = kept.map(|number| (number, &self.attempts[number]));
        panic!(
            "no prefix of the log explains what was recovered ({moment:?}, ends {ends:?}); \
             with its end at {end} these keys are wrong:\n{}\nthe last write that must be there: {kept:?}",
            keys.join("\n")
        );
    }
}

#[cfg(test)]
mod tests {
    use pinion_engine::{Durability, Effect, Lifetime, Origin, Written};
    use pinion_env::Monotonic;

    use super::super::{Action, Request};
    use super::*;

    const MOMENT: Moment = Moment { began: 0, before_ms: 0, after_ms: 0 };

    fn stamp(time: u64) -> Stamp {
        Stamp { time: HybridTime(time), origin: Origin(1) }
    }

    fn put(value: &[u8]) -> Action {
        Action::Put { value: value.to_vec(), lifetime: Lifetime::Forever }
    }

    fn shows(value: &[u8], time: u64) -> Option<Seen> {
        Some(Seen { value: value.to_vec(), stamp: stamp(time), expiry_ms: 0 })
    }

    /// Under way: an update of the first key that would leave what it finds, a batch of both keys with
    /// the stamp 11 and a put of the first key with the stamp 12, whose number is returned.
    fn under_way() -> (Ledger, Number) {
        let labels = vec!["first".to_owned(), "second".to_owned()];
        let mut ledger = Ledger::new(labels, 1_000, 1_000);
        let issue = |ledger: &mut Ledger, actions, after: u64| {
            let request = Request { durability: Durability::Sync, ..Request::default() };
            let number = ledger.issue(actions, request, HybridTime(after));
            ledger.issued(number, HybridTime(after + 1));
            number
        };
        issue(&mut ledger, vec![(0, Action::SetExpiry(Lifetime::Forever))], 9);
        issue(&mut ledger, vec![(0, put(b"a")), (1, put(b"b"))], 10);
        let last = issue(&mut ledger, vec![(0, put(b"c"))], 11);
        (ledger, last)
    }

    #[test]
    fn an_update_does_not_take_the_stamp_of_the_batch_whose_value_it_would_keep() {
        let (mut ledger, _) = under_way();
        ledger.crashed(Monotonic::default());
        let seen = [shows(b"a", 11), shows(b"b", 11)];
        let recovered = ledger.recovered(&seen, MOMENT, HybridTime(20));
        assert_eq!(recovered, Recovered { kept: 1, lost: 1, lost_buffered: 0, untold: 1 });
    }

    #[test]
    #[should_panic(expected = "no prefix of the log explains")]
    fn an_open_update_does_not_explain_a_version_older_than_one_that_must_be_there() {
        let (mut ledger, last) = under_way();
        let written = Written {
            effect: Effect::Applied,
            stamp: stamp(12),
            expiry_ms: 0,
            number: 0,
            superseded: Vec::new(),
        };
        ledger.answer(last, &Ok(written), Monotonic::default());
        ledger.crashed(Monotonic::default());
        ledger.recovered(&[shows(b"a", 11), shows(b"b", 11)], MOMENT, HybridTime(20));
    }
}
