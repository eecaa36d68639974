//! The list of classes: what there is to run, and in which sizes.

use super::Class;
use crate::{fuzz, overload, rig};

/// Every class, in the order of the guarantees table in README.md.
pub const CLASSES: &[Class] = &[
    // Real servers.
    rig::KILL,
    rig::POWER_CUT,
    rig::TORN,
    overload::OVERLOAD,
    // Bytes from outside.
    fuzz::FUZZ_FRAMES,
];
