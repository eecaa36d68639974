//! How urgent background work is.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

/// How urgent the background work of one owner is, in thousandths: 0 may wait for everything else, at
/// [`Urgency::MAX`] it gets as much of the core as requests do. Until it is set it is 0, and when its
/// owner has dropped it nobody asks for anything.
#[derive(Debug, Default)]
pub struct Urgency(Rc<Cell<u32>>);

impl Urgency {
    /// As urgent as requests.
    pub const MAX: u32 = 1000;

    /// Says how urgent it is from now on, at most [`Urgency::MAX`].
    pub fn set(&self, thousandths: u32) {
        self.0.set(thousandths.min(Self::MAX));
    }
}

/// Those of one core.
#[derive(Debug, Default)]
pub struct Urgencies(RefCell<Vec<Weak<Cell<u32>>>>);

impl Urgencies {
    /// One more.
    pub fn add(&self) -> Urgency {
        let added = Urgency::default();
        let mut all = self.0.borrow_mut();
        all.retain(|one| one.strong_count() > 0);
        all.push(Rc::downgrade(&added.0));
        added
    }

    /// The most urgent, 0 if there is none.
    pub fn max(&self) -> u32 {
        self.0.borrow().iter().filter_map(Weak::upgrade).map(|one| one.get()).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_urgent_owner_counts_until_it_is_gone() {
        let all = Urgencies::default();
        assert_eq!(all.max(), 0);
        let (first, second) = (all.add(), all.add());
        first.set(200);
        second.set(5000);
        assert_eq!(all.max(), Urgency::MAX);
        drop(second);
        assert_eq!(all.max(), 200);
        first.set(0);
        assert_eq!(all.max(), 0);
    }
}
