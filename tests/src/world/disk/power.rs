//! Cutting the power: the stop at an exact operation, the cut itself, and the counts of both.

use std::task::Waker;

use super::content::Inode;
use super::cut::PowerCut;
use super::tally::{Operation, Outcome};
use super::{Disk, Power};

/// What a test sees.
impl Disk {
    /// Operations that have ended so far, over all lives of the node.
    pub fn operations(&self) -> u64 {
        self.tally.borrow().operations()
    }

    /// Operations of one kind that have ended so far.
    pub fn operations_of(&self, operation: Operation) -> u64 {
        self.tally.borrow().operations[operation as usize]
    }

    /// How often each fault and each outcome of a cut or kill has happened so far: all names there
    /// are, those that never happened with 0.
    pub fn fault_counts(&self) -> Vec<(&'static str, u64)> {
        self.tally.borrow().named().collect()
    }

    /// Whether the disk stands still, waiting for the power cut (or the kill) to come.
    pub fn is_stopped(&self) -> bool {
        self.power.get() == Power::Stopped
    }
}

/// What the world does with it.
impl Disk {
    /// Stops when so many operations have ended in all; at once if they have.
    pub(in crate::world) fn stop_at(&self, operations: u64) {
        self.stop_at.set(Some(operations));
        self.stop_if_due();
    }

    pub(in crate::world) fn wait_for_stop(&self, waker: &Waker) {
        let mut waiters = self.stop_waiters.borrow_mut();
        if !waiters.iter().any(|waiter| waiter.will_wake(waker)) {
            waiters.push(waker.clone());
        }
    }

    /// An operation has had its effect.
    pub(in crate::world) fn ended(&self, operation: Operation) {
        self.tally.borrow_mut().operations[operation as usize] += 1;
        self.stop_if_due();
    }

    pub(in crate::world) fn count(&self, outcome: Outcome) {
        self.tally.borrow_mut().add(outcome, 1);
    }

    /// Whether what was under way at a cut has begun.
    pub(in crate::world) fn draws_begun(&self, cut: &PowerCut) -> bool {
        PowerCut::happens(cut.under_way_begun, &mut self.random.borrow_mut())
    }

    pub(in crate::world) fn draw_cut(&self) -> PowerCut {
        PowerCut::draw(&mut self.random.borrow_mut())
    }

    /// From here to [`Disk::cut`] the effects of what was under way become pending.
    pub(in crate::world) fn fade(&self) {
        self.power.set(Power::Fading);
    }

    /// The disk goes on where a kill found it.
    pub(in crate::world) fn resume(&self) {
        self.stop_at.set(None);
        self.power.set(Power::On);
    }

    /// Draws what is left of all that was not durable. Gives how much was lost: a number for the trace.
    pub(in crate::world) fn cut(&self, cut: &PowerCut) -> u64 {
        let (mut random, mut tally) = (self.random.borrow_mut(), self.tally.borrow_mut());
        let lost = |outcomes: &[u64]| -> u64 {
            let lossy = [
                Outcome::SectorDropped,
                Outcome::SectorTorn,
                Outcome::SectorGarbled,
                Outcome::SizeCut,
                Outcome::CreationDropped,
                Outcome::DirectoryDropped,
                Outcome::RenameDropped,
                Outcome::RemovalDropped,
            ];
            lossy.iter().map(|outcome| outcomes[*outcome as usize]).sum()
        };
        let before = lost(&tally.outcomes);
        let mut tree = self.tree.borrow_mut();
        for (_, inode) in tree.files() {
            inode.borrow_mut().unlinked = true;
        }
        tree.cut(cut, &mut random, &mut tally);
        let mut used_bytes = 0;
        let files: Vec<(_, Inode)> =
            tree.files().map(|(path, inode)| (path.clone(), inode.clone())).collect();
        for (path, inode) in files {
            let mut content = inode.borrow_mut();
            content.cut(cut, &mut random, &mut tally);
            content.unlinked = false;
            content.path = path;
            used_bytes += content.allocated_bytes();
        }
        let mut space = self.space.borrow_mut();
        space.available_bytes = space.total_bytes.saturating_sub(used_bytes);
        let lost = lost(&tally.outcomes) - before;
        tally.add(Outcome::PowerCut, 1);
        tally.add(Outcome::LossyPowerCut, u64::from(lost > 0));
        drop((random, tally, tree, space));
        self.resume();
        lost
    }

    pub(super) fn is_on(&self) -> bool {
        self.power.get() == Power::On
    }

    fn stop_if_due(&self) {
        let due = self.stop_at.get().is_some_and(|stop_at| self.operations() >= stop_at);
        if due && self.power.get() == Power::On {
            self.power.set(Power::Stopped);
            for waiter in self.stop_waiters.take() {
                waiter.wake();
            }
        }
    }
}
