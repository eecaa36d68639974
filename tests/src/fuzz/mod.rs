//! Fuzzing without coverage: broad generators, exact oracles, and many trials.
//!
//! [`frames`], [`commands`] and [`http`] throw bytes at everything that reads from a socket, [`storage`] at
//! everything that reads from a disk. Inputs are made three ways:
//! valid messages, mutations of them that keep most of their structure ([`mutate`]), and garbage.
//! What feedback by coverage would find is reached by construction instead: lengths at and beside
//! their limits, counts that lie, and fix-ups after a mutation so that the code behind the first
//! check is reached.
//!
//! Inputs that once failed, or that no generator is likely to draw, are files in `tests/corpora/`
//! ([`corpus`]); each run replays all of them first.

pub mod commands;
pub mod corpus;
pub mod frames;
pub mod http;
pub mod mutate;
pub mod storage;

pub use commands::FUZZ_COMMANDS;
pub use frames::FUZZ_FRAMES;
pub use http::FUZZ_HTTP;
pub use storage::files::FUZZ_FILES;
pub use storage::flips::BIT_FLIPS;
