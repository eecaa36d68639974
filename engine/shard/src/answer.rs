//! A waiter that is a future: for callers who would rather await a write than be told.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::error::{Error, Result};
use crate::operation::{Waiter, Written};

#[derive(Default)]
struct Slot {
    result: Option<Result<Written>>,
    waker: Option<Waker>,
    /// The teller is gone: nothing will come any more.
    abandoned: bool,
}

/// The shard's end: hand it to a write.
pub struct Teller(Rc<RefCell<Slot>>);

/// The caller's end: resolves when the write has ended.
pub struct Answer(Rc<RefCell<Slot>>);

/// The two ends of one answer.
pub fn answer() -> (Teller, Answer) {
    let slot = Rc::new(RefCell::new(Slot::default()));
    (Teller(Rc::clone(&slot)), Answer(slot))
}

impl Waiter for Teller {
    fn complete(self, result: Result<Written>) {
        self.0.borrow_mut().result = Some(result);
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        let mut slot = self.0.borrow_mut();
        slot.abandoned = true;
        if let Some(waker) = slot.waker.take() {
            waker.wake();
        }
    }
}

impl Future for Answer {
    type Output = Result<Written>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.0.borrow_mut();
        if let Some(result) = slot.result.take() {
            return Poll::Ready(result);
        }
        if slot.abandoned {
            // A shard answers every write; only one that is dropped whole does not.
            return Poll::Ready(Err(Error::StorageFailed("the shard was dropped".into())));
        }
        slot.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
