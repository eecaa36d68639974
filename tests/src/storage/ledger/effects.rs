//! What a write makes of what it finds: the possibilities, when what it finds is not known.
//!
//! A conditional write or update runs on the newest version that had entered the log before it. With
//! several writes in flight that may be one of a few; with all of them answered it is one.

use pinion_engine::{Condition, Lifetime, Stamp};

use super::attempt::{Action, Attempt, Fate, Number};
use super::{Entry, Ledger, Outcome, Outcomes};

/// Possibilities after which everything is possible.
const OUTCOMES_MAX: usize = 64;

/// What a write found under its key: its stamp's range and what it was; `None` = nothing visible.
pub(super) type Base = Option<((Stamp, Stamp), Outcome)>;

/// What a write may do to a key.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// What it may leave.
    pub(super) outcomes: Vec<Outcome>,
    /// Its condition may not hold, or there may be nothing to change.
    pub(super) may_not_hold: bool,
    /// It may not fit what it finds.
    pub(super) may_not_fit: bool,
    /// There are too many possibilities to tell.
    pub(super) unknown: bool,
}

impl Ledger {
    /// What an entry leaves if it is the newest: every possibility; `None` if there are too many.
    pub(super) fn outcomes(
        &self,
        key: usize,
        entry: &Entry,
        visited: &mut Vec<Number>,
    ) -> Option<Vec<Outcome>> {
        let attempt = &self.attempts[entry.number];
        match &attempt.actions[entry.action].1 {
            Action::Put { value, lifetime } => {
                let expiry_ms = expiry_range(*lifetime, attempt, (0, 0));
                Some(vec![Outcome { value: value.clone(), expiry_ms }])
            }
            Action::Delete => Some(Vec::new()),
            _ => match &entry.outcomes {
                Outcomes::Known(outcomes) => Some(outcomes.clone()),
                Outcomes::Anything => None,
                Outcomes::Open => {
                    let effects = self.effects(key, entry, visited);
                    (!effects.unknown).then_some(effects.outcomes)
                }
            },
        }
    }

    /// What a conditional write or update may do.
    pub(super) fn effects(&self, key: usize, entry: &Entry, visited: &mut Vec<Number>) -> Effects {
        let attempt = &self.attempts[entry.number];
        let action = &attempt.actions[entry.action].1;
        let mut effects = Effects::default();
        let Some(bases) = self.bases(key, entry, visited) else {
            return Effects { may_not_hold: true, may_not_fit: true, unknown: true, ..effects };
        };
        for base in &bases {
            if let Some(condition) = attempt.condition {
                let (may, may_not) = may_hold(condition, base);
                effects.may_not_hold |= may_not;
                if !may {
                    continue;
                }
            }
            match self.apply(attempt, action, base) {
                Applied::Becomes(outcome) => {
                    if !effects.outcomes.contains(&outcome) {
                        effects.outcomes.push(outcome);
                    }
                }
                Applied::Removes => effects.outcomes.push(Outcome { value: Vec::new(), expiry_ms: (0, 0) }),
                Applied::NothingThere => effects.may_not_hold = true,
                Applied::DoesNotFit => effects.may_not_fit = true,
            }
        }
        effects.unknown = effects.outcomes.len() > OUTCOMES_MAX;
        effects
    }

    /// What an entry may have found; `None` if there are too many possibilities.
    fn bases(&self, key: usize, entry: &Entry, visited: &mut Vec<Number>) -> Option<Vec<Base>> {
        let attempt = &self.attempts[entry.number];
        visited.push(entry.number);
        let entries = &self.keys[key].entries;
        // The newest version that was there for certain when this one was issued.
        let certain = |other: &&Entry| {
            let other_attempt = &self.attempts[other.number];
            !other.superseded
                && other_attempt.fate == Fate::Applied
                && other_attempt.answered < attempt.issued
                && other_attempt.high < attempt.low
        };
        let floor = entries.iter().filter(certain).map(|other| self.attempts[other.number].low).max();
        let mut bases = Vec::new();
        if floor.is_none() {
            bases.push(None);
        }
        let clock_ms = if attempt.is_stamped() { attempt.high.millis() } else { self.clock_ms_max() };
        for other in entries {
            let found = &self.attempts[other.number];
            let impossible = visited.contains(&other.number)
                || found.fate == Fate::Void
                || found.low > attempt.high
                || floor.is_some_and(|floor| found.high < floor);
            if impossible {
                continue;
            }
            let Some(outcomes) = self.outcomes(key, other, visited) else {
                visited.pop();
                return None;
            };
            if outcomes.is_empty() {
                bases.push(None);
            }
            for outcome in outcomes {
                if other.dead {
                    // It is there as something that nobody sees.
                    bases.push(None);
                    continue;
                }
                let (first_ms, last_ms) = outcome.expiry_ms;
                if first_ms != 0 && first_ms <= clock_ms + 1 {
                    bases.push(None);
                }
                if last_ms == 0 || last_ms + 1 > attempt.low.millis() {
                    bases.push(Some(((found.low, found.high), outcome)));
                }
            }
            if bases.len() > OUTCOMES_MAX {
                visited.pop();
                return None;
            }
        }
        visited.pop();
        Some(bases)
    }

    fn apply(&self, attempt: &Attempt, action: &Action, base: &Base) -> Applied {
        let outcome = base.as_ref().map(|(_, outcome)| outcome);
        let present = outcome.map_or(&[][..], |outcome| &outcome.value);
        let kept = outcome.map_or((0, 0), |outcome| outcome.expiry_ms);
        let value = match action {
            Action::Put { value, lifetime } => {
                let expiry_ms = expiry_range(*lifetime, attempt, kept);
                return Applied::Becomes(Outcome { value: value.clone(), expiry_ms });
            }
            Action::Delete => return Applied::Removes,
            Action::SetExpiry(lifetime) => {
                let Some(outcome) = outcome else { return Applied::NothingThere };
                let expiry_ms = expiry_range(*lifetime, attempt, kept);
                return Applied::Becomes(Outcome { value: outcome.value.clone(), expiry_ms });
            }
            Action::Add(operand) => {
                let number = match outcome {
                    None => Some(0),
                    Some(_) => std::str::from_utf8(present).ok().and_then(|text| {
                        text.parse::<i64>().ok().filter(|number| number.to_string() == text)
                    }),
                };
                match number.and_then(|number| number.checked_add(*operand)) {
                    Some(sum) => sum.to_string().into_bytes(),
                    None => return Applied::DoesNotFit,
                }
            }
            Action::Append(bytes) => [present, bytes].concat(),
            Action::SetRange { offset, bytes } => {
                let (start, end) = (*offset as usize, *offset as usize + bytes.len());
                let mut value = present.to_vec();
                value.resize(value.len().max(end), 0);
                value[start..end].copy_from_slice(bytes);
                value
            }
        };
        if value.len() > self.value_bytes_max {
            return Applied::DoesNotFit;
        }
        Applied::Becomes(Outcome { value, expiry_ms: kept })
    }
}

enum Applied {
    Becomes(Outcome),
    Removes,
    NothingThere,
    DoesNotFit,
}

/// Whether a condition may hold, and whether it may not.
fn may_hold(condition: Condition<'_>, base: &Base) -> (bool, bool) {
    match (condition, base) {
        (Condition::Absent, base) => (base.is_none(), base.is_some()),
        (Condition::Present, base) => (base.is_some(), base.is_none()),
        (Condition::Always, _) => (true, false),
        (Condition::VersionIs(_) | Condition::ValueIs(_) | Condition::Expires(_), None) => (false, true),
        // Histories draw none of these: whatever is answered may be.
        (Condition::ValueIs(_) | Condition::Expires(_), Some(_)) => (true, true),
        (Condition::VersionIs(stamp), Some(((low, high), _))) => {
            (*low <= stamp && stamp <= *high, *low != stamp || *high != stamp)
        }
    }
}

/// When a value with this lifetime expires, by what is known of its stamp.
pub(super) fn expiry_range(lifetime: Lifetime, attempt: &Attempt, kept: (u64, u64)) -> (u64, u64) {
    (lifetime.expiry_ms(attempt.low, kept.0), lifetime.expiry_ms(attempt.high, kept.1))
}
