//! The list of classes: what there is to run, and in which sizes.

use super::Class;
use crate::{counts, fuzz, model, overload, planted, resp, rig, server_histories, storage};

/// Every class, in the order of the guarantees table in README.md.
pub const CLASSES: &[Class] = &[
    // The engine in the simulated world.
    storage::STORAGE_CRASH,
    storage::STORAGE_SWEEP,
    storage::SIM_FAULTS,
    model::MODEL,
    // Real servers.
    rig::KILL,
    rig::POWER_CUT,
    rig::TORN,
    rig::STOPPED,
    rig::REAL_FAULTS,
    rig::REAL_FLIPS,
    overload::OVERLOAD,
    overload::ABUSE,
    overload::SOAK,
    // Servers in the world.
    server_histories::SERVER_HISTORIES,
    resp::RESP_PIPELINES,
    // Bytes from outside, and from a disk.
    fuzz::FUZZ_FRAMES,
    fuzz::FUZZ_COMMANDS,
    fuzz::FUZZ_HTTP,
    fuzz::BIT_FLIPS,
    fuzz::FUZZ_FILES,
    // What a request costs.
    counts::COUNTS,
    // The classes themselves.
    planted::PLANTED,
    planted::LIES,
];

/// Classes that fail by design: what shows that a failure is told. No run of all classes has them.
pub const MUST_FAIL: &[Class] = &[planted::CANARY, planted::LYING_DISK];

/// Classes that are part of others, which run them as processes of their own.
pub const PARTS: &[Class] = &[counts::COUNTED_WORK];
