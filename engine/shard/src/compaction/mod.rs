//! Compaction: which tables to merge next, and how fast.
//!
//! Leveled, with small jobs. Flushed runs (level 0) and levels 1 to `levels_max` form a list of
//! places from newest to oldest; for one key a newer place holds a newer stamp. Every job keeps
//! that true: from level 0 only the oldest runs move, a job takes all tables of the target level
//! that its sources' range touches, and its outputs stay within the range of its inputs.
//!
//! Everything here is pure: `levels` describes a version, [`pick`] chooses the next job from it,
//! `sweep` finds tables full of dead records, [`Pace`] says when a job may go on and when writes
//! must wait. The job itself is run by the shard.

mod levels;
mod pace;
mod picker;
mod sweep;
#[cfg(test)]
mod tests;

pub use levels::{Levels, PickOptions, RunView, debt_bytes};
pub use pace::{Pace, PaceOptions, Permit, Verdict};
pub use picker::{INPUTS_MAX, Job, Work, pick};
