//! Counts what the code on a core allocates, and not what the world does. A task that is spawned counts
//! as one allocation of whoever spawns it. Giving memory back is not counted.

use std::cell::Cell;
use std::rc::Rc;

use pinion_tests::metered::Meter;

/// Allocations so far. Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Count(Rc<Cell<u64>>);

impl Count {
    pub(crate) fn get(&self) -> u64 {
        self.0.get()
    }
}

impl Meter for Count {
    fn inside<T>(&self, run: impl FnOnce() -> T) -> T {
        let mut result = None;
        let info = allocation_counter::measure(|| result = Some(run()));
        self.0.set(self.0.get() + info.count_total);
        result.expect("it was run")
    }

    fn outside<T>(run: impl FnOnce() -> T) -> T {
        let mut result = None;
        allocation_counter::opt_out(|| result = Some(run()));
        result.expect("it was run")
    }

    fn spawned(&self) {
        self.0.set(self.0.get() + 1);
    }
}
