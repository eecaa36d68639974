//! Who may be connected, and who of them may ask.
//!
//! A connection either waits for the head of a request or has one under way. Waiting costs a peer nothing,
//! so it must not keep others out: when there is no place left, the connection that has waited longest gives
//! up its own to the newcomer. A slow peer has as long for its head as nobody else wants the place.
//!
//! Requests under way are bounded by `connections_max`. The places beyond it are for those who look after
//! the node (health, metrics, administration): they are answered however many others wait for their bodies,
//! for the node, or to be read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// All places of a gateway.
#[derive(Debug)]
pub(crate) struct Places {
    /// Requests of the ordinary kind that may be under way.
    ordinary_max: usize,
    places_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    ordinary: usize,
    /// Connections that wait for a head, in the order in which they began to.
    waiting: BTreeMap<u64, Arc<Notify>>,
    waits: u64,
}

/// The place of one connection; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    gave_up: Arc<Notify>,
    now: Mutex<Now>,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy)]
enum Now {
    /// Waits since this number. One that is not among those who wait has given up its place.
    Waiting(u64),
    /// Has a request under way, which is answered or not; the answer may still have to be sent.
    Asking { asked: Asked, answered: bool },
}

/// How a request counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// As one of at most `connections_max`.
    Ordinary,
    /// Not at all: somebody looks after the node.
    Overseer,
    /// Not at all: it is one more than there may be, and refused.
    Refused,
}

impl Places {
    pub(crate) fn new(connections_max: u32, connections_reserved: u32) -> Self {
        let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
        let ordinary_max = count(connections_max);
        let places_max = ordinary_max.saturating_add(count(connections_reserved));
        Self { ordinary_max, places_max, state: Mutex::default() }
    }

    /// A place for a new connection, and whether another one gave it up. `None` if every place is taken by a
    /// request under way.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<(Place, bool)> {
        let gave_up = Arc::new(Notify::new());
        let mut state = self.lock();
        let full = state.taken >= self.places_max;
        if full {
            let (_, longest) = state.waiting.pop_first()?;
            longest.notify_one();
        } else {
            state.taken += 1;
        }
        let now = Mutex::new(Now::Waiting(state.wait(&gave_up)));
        drop(state);
        Some((Place { places: Arc::clone(self), gave_up, now }, full))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait(&mut self, gave_up: &Arc<Notify>) -> u64 {
        self.waits += 1;
        self.waiting.insert(self.waits, Arc::clone(gave_up));
        self.waits
    }

    fn end(&mut self, asked: Asked) {
        self.ordinary -= usize::from(asked == Asked::Ordinary);
    }
}

impl Place {
    /// Ready when the place is another's: the connection is to end at once.
    pub(crate) async fn gave_up(&self) {
        self.gave_up.notified().await;
    }

    /// A head has come: what becomes of its request.
    pub(crate) fn begin(&self, overseer: bool) -> Asked {
        let mut now = self.lock();
        let mut state = self.places.lock();
        match *now {
            // Behind the answer of another, which is still being sent.
            Now::Asking { asked, .. } => state.end(asked),
            // Another took the place a moment ago.
            Now::Waiting(number) if state.waiting.remove(&number).is_none() => return Asked::Refused,
            Now::Waiting(_) => {}
        }
        let asked = match overseer {
            true => Asked::Overseer,
            false if state.ordinary < self.places.ordinary_max => Asked::Ordinary,
            false => Asked::Refused,
        };
        state.ordinary += usize::from(asked == Asked::Ordinary);
        *now = Now::Asking { asked, answered: false };
        asked
    }

    /// The request is answered; the answer is still to be sent.
    pub(crate) fn answered(&self) {
        if let Now::Asking { answered, .. } = &mut *self.lock() {
            *answered = true;
        }
    }

    /// All that was written is sent: after an answer, the connection waits for the next request.
    pub(crate) fn sent(&self) {
        let mut now = self.lock();
        if let Now::Asking { asked, answered: true } = *now {
            let mut state = self.places.lock();
            state.end(asked);
            *now = Now::Waiting(state.wait(&self.gave_up));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let now = *self.lock();
        let mut state = self.places.lock();
        match now {
            Now::Asking { asked, .. } => state.end(asked),
            Now::Waiting(number) if state.waiting.remove(&number).is_none() => return,
            Now::Waiting(_) => {}
        }
        state.taken -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn places(ordinary: u32, reserved: u32) -> Arc<Places> {
        Arc::new(Places::new(ordinary, reserved))
    }

    fn has_given_up(place: &Place) -> bool {
        pin!(place.gave_up()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn who_waits_longest_gives_way() {
        let places = places(2, 1);
        let enter = || places.enter();
        let (first, _) = enter().unwrap();
        let (second, _) = enter().unwrap();
        let (third, full) = enter().unwrap();
        assert!(!full);
        assert_eq!(first.begin(false), Asked::Ordinary);
        let (fourth, full) = enter().unwrap();
        assert!(full && has_given_up(&second));
        assert!(![&first, &third, &fourth].into_iter().any(has_given_up));
        // Whose place is another's has no request any more, and takes nothing with it.
        assert_eq!(second.begin(true), Asked::Refused);
        drop(second);
        // Once its answer is sent, the first waits again, behind the others.
        first.sent();
        first.answered();
        first.sent();
        let newest: Vec<Place> = (0..2).map(|_| enter().unwrap().0).collect();
        assert!([&third, &fourth].into_iter().all(has_given_up));
        assert_eq!(first.begin(false), Asked::Ordinary);
        assert_eq!(newest[0].begin(false), Asked::Ordinary);
        assert_eq!(newest[1].begin(true), Asked::Overseer);
        assert!(enter().is_none(), "all have requests under way");
        drop((first, newest, third, fourth));
        let state = places.lock();
        assert_eq!((state.taken, state.ordinary, state.waiting.len()), (0, 0, 0));
    }

    #[test]
    fn overseers_are_heard_when_others_are_too_many() {
        let places = places(1, 1);
        let (first, second) = (places.enter().unwrap().0, places.enter().unwrap().0);
        assert_eq!(first.begin(false), Asked::Ordinary);
        assert_eq!(second.begin(false), Asked::Refused);
        second.answered();
        second.sent();
        assert_eq!(second.begin(true), Asked::Overseer);
        // Requests may follow each other before answers are sent.
        first.answered();
        assert_eq!(first.begin(false), Asked::Ordinary);
        assert_eq!(first.begin(true), Asked::Overseer);
        assert_eq!(second.begin(false), Asked::Ordinary);
    }
}
