//! Sleeping tasks of one core.
//!
//! Timers live in an ordered map and are looked at in every turn of the driver; only a core that
//! goes to sleep asks the ring for an alarm, one for all of them. glommio's timers are not used:
//! it looks at them only when no task is runnable or its preemption timer has fired, and that
//! timer may make it park beside runnable tasks (see `runtime`).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::core::Core;
use crate::sys::monotonic_nanos;

/// When, and which of those of the same nanosecond.
type Moment = (u64, u64);

/// The timers that have not fired.
#[derive(Default)]
pub(crate) struct Timers {
    waiting: RefCell<BTreeMap<Moment, Waker>>,
    next_number: Cell<u64>,
}

impl Timers {
    /// When the first timer fires, in nanoseconds of the monotonic clock.
    pub(crate) fn first(&self) -> Option<u64> {
        self.waiting.borrow().first_key_value().map(|(moment, _)| moment.0)
    }

    /// Wakes everybody whose time has come by `now`; returns whether that was anybody.
    pub(crate) fn fire(&self, now: u64) -> bool {
        let mut any = false;
        while let Some(waker) = self.pop_due(now) {
            waker.wake();
            any = true;
        }
        any
    }

    fn pop_due(&self, now: u64) -> Option<Waker> {
        let mut waiting = self.waiting.borrow_mut();
        let first = waiting.first_entry()?;
        if first.key().0 > now { None } else { Some(first.remove()) }
    }

    fn insert(&self, deadline: u64, waker: Waker) -> Moment {
        let number = self.next_number.get();
        self.next_number.set(number.wrapping_add(1));
        self.waiting.borrow_mut().insert((deadline, number), waker);
        (deadline, number)
    }

    fn remove(&self, moment: Moment) -> Option<Waker> {
        self.waiting.borrow_mut().remove(&moment)
    }
}

/// Waits for a time; the clock starts at the first poll.
pub(crate) struct Sleep {
    core: Rc<Core>,
    stage: Stage,
}

enum Stage {
    New(Duration),
    Waiting(Moment),
    Over,
}

impl Sleep {
    pub(crate) fn new(core: &Rc<Core>, duration: Duration) -> Self {
        Self { core: Rc::clone(core), stage: Stage::New(duration) }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let timers = self.core.timers();
        match self.stage {
            Stage::New(duration) => {
                let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
                let deadline = monotonic_nanos().saturating_add(nanos);
                let moment = timers.insert(deadline, context.waker().clone());
                // A sleeping driver must set its alarm anew.
                self.core.kick();
                self.stage = Stage::Waiting(moment);
                Poll::Pending
            }
            Stage::Waiting(moment) => {
                let mut waiting = timers.waiting.borrow_mut();
                let Some(waker) = waiting.get_mut(&moment) else {
                    drop(waiting);
                    self.stage = Stage::Over;
                    return Poll::Ready(());
                };
                if !waker.will_wake(context.waker()) {
                    let displaced = mem::replace(waker, context.waker().clone());
                    // Dropping a waker may drop its task, which may come back here.
                    drop(waiting);
                    drop(displaced);
                }
                Poll::Pending
            }
            Stage::Over => Poll::Ready(()),
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Stage::Waiting(moment) = self.stage {
            drop(self.core.timers().remove(moment));
        }
    }
}
