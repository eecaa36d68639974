//! The one listening socket of a process, accepted from by several of its cores.
//!
//! A core accepts from its first `poll_accept` on. A connection goes at once to one of the cores
//! that accept, drawn by the seed, whether or not its task is waiting at that moment (a multishot
//! accept of the real world does the same). It waits in the backlog while no core accepts, and is
//! refused when the backlog is full or all cores have closed.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use pinion_env::Listener;

use super::link::Ends;
use super::shared::Shared;
use super::socket::SimSocket;
use super::trace::Step;

/// Connections that wait for one process, given to a core or not.
const BACKLOG_CONNECTIONS_MAX: usize = 1024;

pub(super) struct Accepting {
    port: u16,
    state: RefCell<State>,
}

struct State {
    cores: Vec<Core>,
    backlog: VecDeque<Ends>,
}

#[derive(Default)]
struct Core {
    phase: Phase,
    given: VecDeque<Ends>,
    waker: Option<Waker>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    NotYet,
    Accepts,
    Closed,
}

impl Accepting {
    pub(super) fn new(cores: usize, port: u16) -> Self {
        let cores = (0..cores).map(|_| Core::default()).collect();
        Self { port, state: RefCell::new(State { cores, backlog: VecDeque::new() }) }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// A connection arrives; it comes back if it is refused.
    pub(super) fn arrive(&self, shared: &Shared, ends: Ends) -> Result<(), Ends> {
        let waker = {
            let mut state = self.state.borrow_mut();
            let waiting =
                state.backlog.len() + state.cores.iter().map(|core| core.given.len()).sum::<usize>();
            let closed = state.cores.iter().all(|core| core.phase == Phase::Closed);
            if closed || waiting >= BACKLOG_CONNECTIONS_MAX {
                return Err(ends);
            }
            let accepts = |core: &&mut Core| core.phase == Phase::Accepts;
            let candidates = state.cores.iter_mut().filter(accepts).count();
            if candidates == 0 {
                state.backlog.push_back(ends);
                return Ok(());
            }
            let drawn = shared.below(candidates as u64) as usize;
            let core = state.cores.iter_mut().filter(accepts).nth(drawn);
            let core = core.expect("the draw is below the number of candidates");
            core.given.push_back(ends);
            core.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Gives up every connection that waits, for the caller to drop.
    pub(super) fn take_all(&self) -> Vec<Ends> {
        let mut state = self.state.borrow_mut();
        let mut all: Vec<Ends> = state.backlog.drain(..).collect();
        for core in &mut state.cores {
            core.phase = Phase::Closed;
            core.waker = None;
            all.extend(core.given.drain(..));
        }
        all
    }

    fn poll_accept(&self, core: usize, context: &mut Context<'_>) -> Poll<Ends> {
        let mut state = self.state.borrow_mut();
        let State { cores, backlog } = &mut *state;
        let core = &mut cores[core];
        if core.phase == Phase::Closed {
            return Poll::Pending;
        }
        core.phase = Phase::Accepts;
        match core.given.pop_front().or_else(|| backlog.pop_front()) {
            Some(ends) => Poll::Ready(ends),
            None => {
                core.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// One core stops. What it was given and did not take is closed, as is the backlog when it was
    /// the last core.
    pub(super) fn close(&self, core: usize) -> Vec<Ends> {
        let mut state = self.state.borrow_mut();
        let State { cores, backlog } = &mut *state;
        cores[core].phase = Phase::Closed;
        cores[core].waker = None;
        let mut left: Vec<Ends> = cores[core].given.drain(..).collect();
        if cores.iter().all(|core| core.phase == Phase::Closed) {
            left.extend(backlog.drain(..));
        }
        left
    }
}

/// One core's view of its process's listening socket.
pub struct SimListener {
    shared: Rc<Shared>,
    accepting: Rc<Accepting>,
    core: usize,
}

impl SimListener {
    pub(super) fn new(shared: Rc<Shared>, accepting: Rc<Accepting>, core: usize) -> Self {
        Self { shared, accepting, core }
    }
}

impl Listener for SimListener {
    type Socket = SimSocket;

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<SimSocket>> {
        self.accepting.poll_accept(self.core, context).map(|ends| {
            self.shared.note(Step::Accept, ends.number(), self.core as u64);
            Ok(SimSocket::new(ends))
        })
    }

    fn close(&self) {
        drop(self.accepting.close(self.core));
    }
}

impl std::fmt::Debug for SimListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimListener").field("core", &self.core).finish()
    }
}
