//! The in-memory world, crash rigs and end-to-end tests.
//!
//! [`world`] runs whole nodes in one thread on virtual time; [`process`] runs the real binary,
//! [`rig`] puts it under fire and [`overload`] asks too much of it; [`fuzz`] throws bytes at whatever
//! decodes them; [`trials`] counts what all of it withstands. The rules of the repository itself are
//! checked by `tests/tidy.rs`.

pub mod fuzz;
pub mod overload;
pub mod process;
pub mod rig;
pub mod trials;
pub mod world;
