//! How often and how soon a call may be tried again.
//!
//! Two bounds work together. Each wait grows exponentially to a cap, with jitter. And all calls of
//! a client share a budget of tokens: a retry spends one, a success earns a tenth of one back. So
//! when a server is in trouble, retries add at most a tenth to its load instead of multiplying it.

use std::time::Duration;

use super::random::Random;

/// The wait before the first retry.
pub(crate) const RETRY_DELAY_FIRST: Duration = Duration::from_millis(10);
/// The longest wait between two tries, of calls and of connections.
pub(crate) const RETRY_DELAY_MAX: Duration = Duration::from_secs(1);

/// Tenths of a token that a retry costs.
const RETRY_COST: u32 = 10;

/// The tokens shared by all calls of a client.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    tenths: u32,
    tenths_max: u32,
}

impl RetryBudget {
    /// Starts full.
    pub(crate) fn new(tokens: u32) -> Self {
        let tenths_max = tokens.saturating_mul(RETRY_COST);
        Self { tenths: tenths_max, tenths_max }
    }

    /// A call succeeded.
    pub(crate) fn earn(&mut self) {
        self.tenths = self.tenths_max.min(self.tenths + 1);
    }

    /// Whether one more retry may be made; it is paid for by this call.
    pub(crate) fn spend(&mut self) -> bool {
        let paid = self.tenths >= RETRY_COST;
        if paid {
            self.tenths -= RETRY_COST;
        }
        paid
    }
}

/// The wait before try number `attempt` (1 = the first retry).
pub(crate) fn delay(attempt: u32, random: &mut Random) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    random.jitter(RETRY_DELAY_FIRST.saturating_mul(1 << doublings).min(RETRY_DELAY_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_successes_pay_for_one_retry() {
        let mut budget = RetryBudget::new(1);
        assert!(budget.spend());
        assert!(!budget.spend());
        for _ in 0..9 {
            budget.earn();
        }
        assert!(!budget.spend());
        budget.earn();
        assert!(budget.spend());
        for _ in 0..1_000 {
            budget.earn();
        }
        assert!(budget.spend());
        assert!(!budget.spend(), "the budget is capped");
    }

    #[test]
    fn delays_grow_to_their_cap() {
        let mut random = Random::seeded(3);
        assert!(delay(1, &mut random) <= RETRY_DELAY_FIRST);
        assert!(delay(4, &mut random) > RETRY_DELAY_FIRST);
        assert!(delay(1_000, &mut random) <= RETRY_DELAY_MAX);
    }
}
