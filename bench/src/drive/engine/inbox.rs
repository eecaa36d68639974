//! Where the answers of a core's shards come in, for the core's load to take.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use pinion_engine::{Error as EngineError, Outcome, Result as EngineResult, Waiter, Written};

use crate::drive::speech::{Answer, Answers};

/// Answers that have come and were not taken yet: at most one for each operation in flight.
#[derive(Default)]
pub(super) struct Inbox {
    answers: RefCell<Answers>,
    waker: Cell<Option<Waker>>,
}

impl Inbox {
    /// Puts an answer in.
    pub(super) fn put(&self, slot: usize, answer: Answer) {
        self.answers.borrow_mut().push(slot, answer);
        self.wake();
    }

    /// Puts a value in.
    pub(super) fn put_value(&self, slot: usize, value: &[u8]) {
        self.answers.borrow_mut().push_value(slot, value);
        self.wake();
    }

    /// Puts in what an operation failed with.
    pub(super) fn put_error(&self, slot: usize, error: &EngineError) {
        self.put(slot, failed(error));
    }

    /// Exchanges what has come for an empty list. False if there is nothing.
    pub(super) fn take(&self, answers: &mut Answers) -> bool {
        let mut inside = self.answers.borrow_mut();
        answers.clear();
        std::mem::swap(&mut *inside, answers);
        !answers.list.is_empty()
    }

    /// Ready when there is something.
    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<()> {
        if self.answers.borrow().list.is_empty() {
            self.waker.set(Some(context.waker().clone()));
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

fn failed(error: &EngineError) -> Answer {
    let message = error.to_string();
    match error {
        EngineError::Overloaded { retry_after_ms } => {
            Answer::Refused { retry_after_ms: *retry_after_ms, message }
        }
        _ => Answer::Failed { is_unknown: error.outcome() == Outcome::Unknown, message },
    }
}

/// Waits for the write of a slot.
pub(super) struct Ended {
    pub(super) slot: usize,
    pub(super) inbox: Rc<Inbox>,
}

impl Waiter for Ended {
    fn complete(self, result: EngineResult<Written>) {
        match result {
            Ok(_) => self.inbox.put(self.slot, Answer::Done),
            Err(error) => self.inbox.put_error(self.slot, &error),
        }
    }
}
