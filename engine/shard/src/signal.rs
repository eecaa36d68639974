//! Waking tasks of one core when something changed.
//!
//! The pattern is always `while !condition() { signal.changed().await }`: one core runs one task
//! at a time, so nothing can change between the check and the first poll of the future.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Wakes everyone who waits for a change.
#[derive(Default)]
pub(crate) struct Signal {
    generation: Cell<u64>,
    wakers: RefCell<Vec<Waker>>,
}

impl Signal {
    /// Something changed.
    pub(crate) fn notify(&self) {
        self.generation.set(self.generation.get() + 1);
        // Waking may poll nothing here (tasks run later), so the borrow is short.
        for waker in self.wakers.borrow_mut().drain(..) {
            waker.wake();
        }
    }

    /// Resolves after the next [`Signal::notify`].
    pub(crate) fn changed(&self) -> Changed<'_> {
        Changed { signal: self, seen: self.generation.get() }
    }
}

/// See [`Signal::changed`].
pub(crate) struct Changed<'a> {
    signal: &'a Signal,
    seen: u64,
}

impl Future for Changed<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.signal.generation.get() != self.seen {
            return Poll::Ready(());
        }
        let mut wakers = self.signal.wakers.borrow_mut();
        if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            wakers.push(context.waker().clone());
        }
        Poll::Pending
    }
}
