//! Compaction: which tables to merge next, and how fast.
//!
//! Lazy leveling, a slice at a time. Runs (level 0) and levels 1 to `levels_max` form a list of
//! places from newest to oldest; for one key a newer place holds a newer stamp. Every job keeps
//! that true: a table of a run moves only after, or with, all that it touches in older runs, a job takes
//! all tables of the target level that its sources' range touches, and its outputs stay within the
//! range of its inputs. Runs that are merged with each other follow each other, and become part of the
//! newest of them.
//!
//! Everything here is pure: `levels` describes a version, `slices` divides it, `columns` tells which runs
//! are due, [`pick`] chooses the next job from it, `sweep` finds tables full of dead records, [`Pace`] says
//! when a job may go on and when writes must wait. The job itself is run by the shard.

mod columns;
mod levels;
mod pace;
mod picker;
mod slices;
mod sweep;
#[cfg(test)]
mod tests;

pub(crate) use columns::DEEP;
pub use levels::{Debt, Levels, PickOptions, RunView, debt};
pub use pace::{Pace, PaceOptions, Permit, Verdict};
pub use picker::{Job, Work, pick};
pub use slices::Slices;
