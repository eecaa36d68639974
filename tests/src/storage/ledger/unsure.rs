//! What the ledger makes of a disk that fails: answers that leave a write open, durability that damage
//! may have taken, and checks of a shard of which not everything can be read.

use pinion_engine::{Durability, HybridTime, Stamp};

use super::attempt::Number;
use super::{Ledger, Moment, Seen};

impl Ledger {
    /// From now on commits may wait for longer than any buffered write is promised to, and writes that
    /// were durable may be gone.
    pub(crate) fn expect_faults(&mut self) {
        self.buffered_nanos_max = u128::MAX;
        self.forgets = false;
    }

    /// The shard has answered that it does not know what became of a write: the next recovery tells.
    pub(crate) fn left_open(&mut self, number: Number) {
        self.now += 1;
        self.open -= 1;
        let attempt = &mut self.attempts[number];
        attempt.entered = attempt.entered.min(self.now);
    }

    /// After a crash: damage may have taken the writes, of those not settled yet, for which `may_be_lost`
    /// holds, which is told the durability that was asked for. What is left is a prefix all the same.
    pub(crate) fn doubt(&mut self, may_be_lost: impl Fn(Number, Durability) -> bool) {
        self.doubted = true;
        for number in self.settled..self.attempts.len() {
            let attempt = &mut self.attempts[number];
            attempt.durable &= !may_be_lost(number, attempt.durability);
        }
        let kept = self.attempts.iter().enumerate();
        let kept = kept.filter(|(_, attempt)| attempt.durable && attempt.is_stamped());
        let newest = kept.map(|(number, attempt)| (attempt.low.time, number)).max();
        (self.kept_time, self.kept_last) = newest.unwrap_or((HybridTime::default(), 0));
    }

    /// As [`Ledger::recovered`], where some keys could not be read (`None`): whether any prefix of the
    /// log explains the others. Decides nothing.
    ///
    /// # Panics
    /// When none does.
    pub(crate) fn recoverable(&mut self, seen: &[Option<Option<Seen>>], moment: Moment, clock: HybridTime) {
        if clock < self.kept_time {
            self.fail(self.kept_last, &format!("its time is later than the clock, {:x}", clock.0));
        }
        for key in &mut self.keys {
            (key.seen, key.hidden_at) = (Stamp::ZERO, 0);
        }
        let ends = self.possible_ends();
        let mut fits = vec![true; ends.len()];
        for (key, seen) in seen.iter().enumerate() {
            if let Some(seen) = seen {
                self.narrow_ends(key, seen.as_ref(), moment, &ends, &mut fits);
            }
        }
        if !fits.contains(&true) {
            let known: Vec<Option<Seen>> = seen.iter().map(|seen| seen.clone().flatten()).collect();
            self.fail_recovery(&known, moment, &ends);
        }
    }
}
