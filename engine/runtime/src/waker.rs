//! A place for the one waker of a task that waits.

use std::cell::Cell;
use std::task::{Context, Waker};

/// Holds at most one waker. Waking empties it, so that a task is not woken again for something it
/// does not wait for.
#[derive(Default)]
pub(crate) struct WakerSlot(Cell<Option<Waker>>);

impl WakerSlot {
    /// Remembers the task of `context`; the last one to register is the one woken. Returns the
    /// waker of another task that it takes the place of, for callers that hold a borrow which
    /// dropping that task might want.
    pub(crate) fn register(&self, context: &Context<'_>) -> Option<Waker> {
        match self.0.take() {
            Some(waker) if waker.will_wake(context.waker()) => {
                self.0.set(Some(waker));
                None
            }
            displaced => {
                self.0.set(Some(context.waker().clone()));
                displaced
            }
        }
    }

    /// Wakes the task, if one waits.
    pub(crate) fn wake(&self) -> bool {
        match self.0.take() {
            Some(waker) => {
                waker.wake();
                true
            }
            None => false,
        }
    }
}
