//! The in-memory world, crash rigs and end-to-end tests.
//!
//! [`world`] runs whole nodes in one thread on virtual time; [`storage`] takes the engine in it through
//! kills and power cuts, [`model`] compares it with a map, and [`server_histories`] has clients ask a server in it and judges the answers by [`linear`];
//! [`process`] runs the real binary, [`rig`] puts it under fire and [`overload`] asks too much of it;
//! [`fuzz`] throws bytes at whatever decodes them; [`counts`] bounds what a request costs, in counts, with a
//! world that is [`metered`]; [`trials`] counts what all of it withstands, and [`told`] is told of writes. The
//! rules of the repository itself are checked by `tests/tidy.rs`.

pub mod counts;
pub mod fuzz;
pub mod linear;
pub mod metered;
pub mod model;
pub mod overload;
pub mod planted;
pub mod process;
pub mod resp;
pub mod rig;
pub mod served;
pub mod server_histories;
pub mod storage;
pub mod told;
pub mod trials;
pub mod world;
