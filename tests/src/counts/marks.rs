//! How a process says which of its instructions count: by signals to itself.
//!
//! Whoever steps through the process sees a signal before the process does, and swallows it: nothing
//! is shared, no address is looked up, and a segment between two marks costs the same few instructions
//! wherever it is. That cost is measured once, around nothing, and taken off.
//!
//! Marks are made only while they are *armed*. A process that makes them without being stepped through
//! is killed by the first.

use std::cell::Cell;

use rustix::process::{Signal, getpid, kill_process};

use crate::metered::Meter;

/// Sent where counting begins.
pub(super) const BEGIN: Signal = Signal::USR1;
/// Sent where it ends.
pub(super) const END: Signal = Signal::USR2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing is marked.
    Unarmed,
    Outside,
    Inside,
}

thread_local! {
    static PLACE: Cell<Place> = const { Cell::new(Place::Unarmed) };
}

/// Marks what is inside, while armed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Marks;

impl Marks {
    /// From now on what runs inside is marked.
    pub(super) fn arm(self) {
        PLACE.set(Place::Outside);
    }

    /// No longer.
    pub(super) fn disarm(self) {
        assert_eq!(PLACE.replace(Place::Unarmed), Place::Outside, "marks end where they began");
    }
}

impl Meter for Marks {
    fn inside<T>(&self, run: impl FnOnce() -> T) -> T {
        between(Place::Outside, Place::Inside, run)
    }

    fn outside<T>(run: impl FnOnce() -> T) -> T {
        between(Place::Inside, Place::Outside, run)
    }
}

/// Runs something elsewhere, if it is called from `here`.
fn between<T>(here: Place, elsewhere: Place, run: impl FnOnce() -> T) -> T {
    if PLACE.get() != here {
        return run();
    }
    cross(elsewhere);
    let result = run();
    cross(here);
    result
}

/// Not inlined, so that a mark costs the same everywhere.
#[inline(never)]
fn cross(to: Place) {
    PLACE.set(to);
    let signal = if to == Place::Inside { BEGIN } else { END };
    kill_process(getpid(), signal).expect("a process may signal itself");
}
