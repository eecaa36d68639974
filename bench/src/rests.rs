//! Requests that the target refused because it was overloaded, and when they are sent again.
//!
//! A refused request was not applied, so it may be repeated as it is. It rests for as long as the
//! target says, longer with each refusal, and for a random time on top, so that requests that were
//! refused together do not come back together. Meanwhile its slot is taken: a load never has more
//! requests than its connections times their depth, which bounds what can rest, too.
//!
//! Nothing here waits: the loop of the load asks what is due, and when the next will be.
//!
//! Failure: when nothing but refusals came for [`PATIENCE`], the load ends.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::load::Random;

/// How long every answer may be a refusal.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest rest of what was refused again and again, in milliseconds, unless the server says
/// more; a random half may come on top.
const REST_MS_MAX: u64 = 250;
/// The longest rest that a server is believed, in milliseconds.
const ADVICE_MS_MAX: u64 = 10_000;
/// Refusals of one request after which its rests grow no more.
const DOUBLINGS_MAX: u32 = 8;

/// What the target said when it refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refusal<'a> {
    /// 0 = not said.
    pub(crate) retry_after_ms: u32,
    pub(crate) message: &'a str,
}

/// All requests of a thread that rest; a `T` says where one belongs.
#[derive(Debug)]
pub(crate) struct Rests<T> {
    /// By the time when they are due, in nanoseconds.
    due: BinaryHeap<Reverse<(u64, T)>>,
    random: Random,
    /// Since when every answer was a refusal.
    refused_since_ns: Option<u64>,
}

impl<T: Copy + Ord> Rests<T> {
    pub(crate) fn new(seed: u64) -> Self {
        Self { due: BinaryHeap::new(), random: Random::new(seed), refused_since_ns: None }
    }

    /// An answer has come that was no refusal.
    pub(crate) const fn progress(&mut self) {
        self.refused_since_ns = None;
    }

    /// Lets a request rest that was refused `times` before.
    ///
    /// # Errors
    /// [`Error::Overloaded`] when every answer has been a refusal for [`PATIENCE`].
    pub(crate) fn refused(
        &mut self,
        request: T,
        times: u32,
        refusal: Refusal<'_>,
        now_ns: u64,
    ) -> Result<()> {
        let since_ns = *self.refused_since_ns.get_or_insert(now_ns);
        if Duration::from_nanos(now_ns - since_ns) >= PATIENCE {
            let message = refusal.message.to_owned();
            return Err(Error::Overloaded { seconds: PATIENCE.as_secs(), message });
        }
        let advised_ms = u64::from(refusal.retry_after_ms).clamp(1, ADVICE_MS_MAX);
        let grown_ms = (advised_ms << times.min(DOUBLINGS_MAX)).min(REST_MS_MAX);
        let rest_ns = advised_ms.max(grown_ms) * 1_000_000;
        let due_ns = now_ns + rest_ns + self.random.below(rest_ns / 2);
        self.due.push(Reverse((due_ns, request)));
        Ok(())
    }

    /// When the next is due, in nanoseconds; `None` when nothing rests.
    pub(crate) fn next_due_ns(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((due_ns, _))| *due_ns)
    }

    /// One that is due by now.
    pub(crate) fn take_due(&mut self, now_ns: u64) -> Option<T> {
        self.next_due_ns().filter(|due_ns| *due_ns <= now_ns)?;
        self.due.pop().map(|Reverse((_, request))| request)
    }

    /// How many rest.
    pub(crate) fn len(&self) -> usize {
        self.due.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const SECOND: u64 = 1_000 * MS;

    fn said(retry_after_ms: u32) -> Refusal<'static> {
        Refusal { retry_after_ms, message: "too much" }
    }

    /// The rest in milliseconds of a request that was refused `times` before.
    fn rest_ms(times: u32, retry_after_ms: u32) -> u64 {
        let mut rests = Rests::new(1);
        rests.refused(0, times, said(retry_after_ms), SECOND).unwrap();
        (rests.next_due_ns().unwrap() - SECOND) / MS
    }

    #[test]
    fn a_rest_is_what_the_server_says_and_grows_to_a_bound() {
        assert!((10..15).contains(&rest_ms(0, 10)));
        assert!((40..60).contains(&rest_ms(2, 10)));
        assert!((1..2).contains(&rest_ms(0, 0)), "not said");
        assert!((250..375).contains(&rest_ms(u32::MAX, 10)));
        assert!((1_000..1_500).contains(&rest_ms(u32::MAX, 1_000)), "the server may ask for more");
        assert!((10_000..15_000).contains(&rest_ms(0, u32::MAX)));
    }

    #[test]
    fn requests_come_back_when_they_are_due() {
        let mut rests = Rests::new(1);
        assert_eq!((rests.next_due_ns(), rests.take_due(u64::MAX)), (None, None));
        rests.refused(1, 0, said(100), 0).unwrap();
        rests.refused(2, 0, said(10), 0).unwrap();
        assert_eq!(rests.take_due(10 * MS - 1), None);
        assert_eq!(rests.take_due(15 * MS), Some(2));
        assert_eq!(rests.take_due(15 * MS), None);
        assert!(rests.next_due_ns().unwrap() >= 100 * MS);
        assert_eq!(rests.take_due(u64::MAX), Some(1));
        assert_eq!(rests.next_due_ns(), None);
    }

    #[test]
    fn patience_ends_when_nothing_but_refusals_came() {
        let mut rests = Rests::new(1);
        rests.refused(0, 0, said(1), 59 * SECOND).unwrap();
        rests.progress();
        rests.refused(0, 1, said(1), 118 * SECOND).unwrap();
        rests.refused(0, 2, said(1), 177 * SECOND).unwrap();
        let error = rests.refused(0, 3, said(1), 178 * SECOND).unwrap_err();
        assert_eq!(error.to_string(), "the server refused everything for 60 s: too much");
    }
}
