//! Makes a failing plan smaller: fewer steps, fewer writes in a step.
//!
//! Any part of a plan's steps is a plan, so this is delta debugging (Zeller and Hildebrandt, 2002)
//! in its simple form: halves, quarters, ... are left out as long as what is left still fails,
//! however it fails. Then each step that holds several writes loses what it can.

use super::plan::{Pair, Plan, Step};

/// Runs that shrinking may take.
const RUNS_MAX: usize = 800;

/// The smallest plan found that `fails`. `plan` itself does.
pub(super) fn shrink(plan: Plan, fails: impl Fn(&Plan) -> bool) -> Plan {
    let mut shrinker = Shrinker { best: plan, fails, runs_left: RUNS_MAX };
    shrinker.flags();
    loop {
        let before = size(&shrinker.best);
        shrinker.steps();
        shrinker.parts();
        if size(&shrinker.best) == before || shrinker.runs_left == 0 {
            return shrinker.best;
        }
    }
}

struct Shrinker<F> {
    best: Plan,
    fails: F,
    runs_left: usize,
}

impl<F: Fn(&Plan) -> bool> Shrinker<F> {
    /// Keeps a plan if it still fails.
    fn keep(&mut self, smaller: Plan) -> bool {
        if self.runs_left == 0 || smaller == self.best {
            return false;
        }
        self.runs_left -= 1;
        let fails = (self.fails)(&smaller);
        if fails {
            self.best = smaller;
        }
        fails
    }

    /// Does without the second run, the end that drops everything, and a second set of sizes.
    fn flags(&mut self) {
        self.keep(Plan { twice: false, ..self.best.clone() });
        self.keep(Plan { purge: false, ..self.best.clone() });
        let mut same = self.best.clone();
        same.setup = Pair(same.setup.0.clone(), same.setup.0.clone());
        self.keep(same);
    }

    fn steps(&mut self) {
        let mut chunk = self.best.steps.len().div_ceil(2).max(1);
        loop {
            let mut start = 0;
            while start < self.best.steps.len() {
                let mut smaller = self.best.clone();
                let end = (start + chunk).min(smaller.steps.len());
                smaller.steps.drain(start..end);
                if !self.keep(smaller) {
                    start = end;
                }
            }
            if chunk == 1 {
                return;
            }
            chunk = chunk.div_ceil(2);
        }
    }

    /// Leaves out writes, elements of batches, and steps between pages, one by one.
    fn parts(&mut self) {
        for index in 0..self.best.steps.len() {
            let mut part = 0;
            while part < parts_of(&self.best.steps[index]) {
                let mut smaller = self.best.clone();
                remove_part(&mut smaller.steps[index], part);
                if !self.keep(smaller) {
                    part += 1;
                }
            }
        }
    }
}

fn size(plan: &Plan) -> usize {
    plan.steps.iter().map(|step| 1 + parts_of(step)).sum()
}

fn parts_of(step: &Step) -> usize {
    match step {
        // The last element stays: an empty batch is refused.
        Step::Batch(batch) => batch.elements.len().saturating_sub(1),
        Step::Together(writes) | Step::KillDuring(writes, ..) => writes.len(),
        Step::Scan(scan) => scan.between.len(),
        _ => 0,
    }
}

fn remove_part(step: &mut Step, part: usize) {
    match step {
        Step::Batch(batch) => drop(batch.elements.remove(part)),
        Step::Together(writes) | Step::KillDuring(writes, ..) => drop(writes.remove(part)),
        Step::Scan(scan) => drop(scan.between.remove(part)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::draw::draw_plan;

    #[test]
    fn what_a_failure_needs_is_all_that_stays() {
        let mut plan = draw_plan(1);
        plan.steps.insert(plan.steps.len() / 3, Step::Elapse(7));
        plan.steps.push(Step::ShiftClock(-7));
        let needs = |plan: &Plan| {
            let place = |wanted: &Step| plan.steps.iter().position(|step| step == wanted);
            match (place(&Step::Elapse(7)), place(&Step::ShiftClock(-7))) {
                (Some(first), Some(second)) => first < second,
                _ => false,
            }
        };
        let shrunk = shrink(plan, needs);
        assert_eq!(shrunk.steps, [Step::Elapse(7), Step::ShiftClock(-7)]);
        assert!(!shrunk.twice && !shrunk.purge);
    }
}
