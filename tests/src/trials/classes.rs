//! The list of classes: what there is to run, and in which sizes.

use super::Class;
use crate::fuzz::FUZZ_FRAMES;
use crate::rig::{KILL, POWER_CUT};

/// Every class, in the order of the guarantees table in README.md.
pub const CLASSES: &[Class] = &[KILL, POWER_CUT, FUZZ_FRAMES];
