//! One call from its first try to its result: stamps, retries and what remains in doubt.
//!
//! A call does no I/O. Its driver sends the operation when told, hands the result of the try to
//! [`Call::finish`], and does what the answer says: send again after a moment, or return.
//!
//! What may be tried again:
//! - reads, always;
//! - puts, deletes and batches, because every try carries the stamp of the first one, within the
//!   server's retry window;
//! - conditional writes, updates and changes of namespaces only when it is known that no earlier
//!   try was applied.
//!
//! A put answered `superseded` on a try that cannot have been applied before met a record with a
//! newer stamp, though it was called later: it is sent once more with a newer stamp, so that of
//! two puts by one client the second wins.

use std::time::Instant;

use pinion_protocol::TraceParent;

use super::operation::{BatchStatus, Operation, Repeat, Reply, Try};
use super::retry;
use super::session::Session;
use crate::ErrorCode;
use crate::error::{Error, Outcome, Result};

/// A call under way.
#[derive(Debug)]
pub(crate) struct Call {
    operation: Operation,
    /// The trace that all its tries belong to.
    trace: Option<TraceParent>,
    deadline: Instant,
    retries_max: u32,
    attempts: u32,
    /// An earlier try may have been applied.
    in_doubt: bool,
    /// When the stamp was chosen.
    stamped: Option<Instant>,
    /// The one more try after `superseded` was made.
    renewed: bool,
    /// The server refused this client's stamps: let it choose one.
    unstamped: bool,
    /// Results of a batch whose superseded operations are tried once more.
    first_batch: Option<Vec<BatchStatus>>,
}

/// What the driver must do.
#[derive(Debug)]
pub(crate) enum Step {
    /// Send [`Call::operation`] at this time or later.
    Send(Instant),
    /// Return this.
    Done(Result<Reply>),
}

impl Call {
    pub(crate) fn new(operation: Operation, deadline: Instant, retries_max: u32) -> Self {
        Self {
            operation,
            trace: None,
            deadline,
            retries_max,
            attempts: 0,
            in_doubt: false,
            stamped: None,
            renewed: false,
            unstamped: false,
            first_batch: None,
        }
    }

    /// The same call as part of a trace.
    pub(crate) fn traced(self, trace: Option<TraceParent>) -> Self {
        Self { trace, ..self }
    }

    /// What to send now: see [`Call::operation`].
    pub(crate) fn attempt(&mut self, session: &mut Session, now: Instant) -> Try {
        Try { operation: self.operation(session, now), trace: self.trace }
    }

    /// When the caller stops waiting.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The operation to send now. Chooses its stamp at the first try.
    pub(crate) fn operation(&mut self, session: &mut Session, now: Instant) -> Operation {
        self.attempts += 1;
        if self.operation.repeat() == Repeat::SameStamp && self.stamped.is_none() && !self.unstamped {
            // The parts of one batch come with the stamp that they share.
            let stamp = self.operation.stamp().or_else(|| session.clock.issue(now));
            self.operation.set_stamp(stamp);
            self.unstamped = stamp.is_none();
            self.stamped = stamp.map(|_| now);
        }
        self.operation.clone()
    }

    /// Judges the result of a try.
    pub(crate) fn finish(&mut self, session: &mut Session, now: Instant, result: Result<Reply>) -> Step {
        match result {
            Ok(reply) => {
                session.budget.earn();
                if !self.in_doubt && !self.renewed && self.stamped.is_some() && self.supersede(&reply) {
                    self.renewed = true;
                    self.stamped = None;
                    self.operation.set_stamp(None);
                    return Step::Send(now);
                }
                Step::Done(Ok(self.merged(reply)))
            }
            Err(error) => self.failed(session, now, error),
        }
    }

    /// Whether something of this reply is to be tried with a newer stamp; narrows the operation
    /// to it.
    fn supersede(&mut self, reply: &Reply) -> bool {
        match reply {
            Reply::Written(written) => written.superseded,
            Reply::Batch(statuses) => {
                let again: Vec<usize> = (0..statuses.len())
                    .filter(|index| matches!(&statuses[*index], Ok(written) if written.superseded))
                    .collect();
                if again.is_empty() {
                    return false;
                }
                self.operation.keep_only(&again);
                self.first_batch = Some(statuses.clone());
                true
            }
            _ => false,
        }
    }

    /// Puts the results of a narrowed batch back among the first ones.
    fn merged(&mut self, reply: Reply) -> Reply {
        match (reply, self.first_batch.take()) {
            (Reply::Batch(again), Some(mut first)) => {
                let superseded =
                    first.iter_mut().filter(|status| matches!(status, Ok(written) if written.superseded));
                for (slot, status) in superseded.zip(again) {
                    *slot = status;
                }
                Reply::Batch(first)
            }
            (reply, _) => reply,
        }
    }

    fn failed(&mut self, session: &mut Session, now: Instant, error: Error) -> Step {
        let repeat = self.operation.repeat();
        if repeat != Repeat::Always && error.outcome() != Outcome::NotApplied {
            self.in_doubt = true;
        }
        let restamp = !self.in_doubt && self.refused_stamp(&error);
        let window_open = self
            .stamped
            .is_none_or(|stamped| now.saturating_duration_since(stamped) < session.retry_window());
        let safe = match repeat {
            Repeat::Always => true,
            Repeat::SameStamp => !self.in_doubt || (window_open && !self.unstamped),
            Repeat::IfNotApplied => !self.in_doubt,
        };
        let allowed = safe && (restamp || error.is_retryable()) && self.attempts <= self.retries_max;
        if allowed && (error.never_sent() || session.budget.spend()) {
            let wait = retry::delay(self.attempts, &mut session.random).max(error.retry_after());
            if let Some(at) = now.checked_add(wait)
                && at < self.deadline
            {
                return Step::Send(at);
            }
        }
        Step::Done(self.give_up(error))
    }

    /// Whether the server refused the stamp itself; forgets the stamp then. One that is too old
    /// waited too long here and is chosen anew; one that is ahead shows that this client's idea
    /// of the server's time is wrong, so the server chooses.
    fn refused_stamp(&mut self, error: &Error) -> bool {
        match error.code() {
            Some(ErrorCode::StampTooOld) => {
                self.stamped = None;
                self.operation.set_stamp(None);
                true
            }
            Some(ErrorCode::StampAhead) => {
                self.stamped = None;
                self.unstamped = true;
                self.operation.set_stamp(None);
                true
            }
            _ => false,
        }
    }

    fn give_up(&mut self, error: Error) -> Result<Reply> {
        let error = if self.in_doubt { error.in_doubt() } else { error };
        match self.first_batch.take() {
            // The first try answered for every operation; only the superseded ones are open.
            Some(mut first) => {
                for status in &mut first {
                    if matches!(status, Ok(written) if written.superseded) {
                        *status = Err(error.clone());
                    }
                }
                Ok(Reply::Batch(first))
            }
            None => Err(error),
        }
    }
}
