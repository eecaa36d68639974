//! Load generator and roof programs: what Pinion can do, beside what the machine can do.
//!
//! Mounted by the command line as `pinion bench` (see [`command`]). Nothing here serves anybody's
//! data.
// A reader that has gone is no panic: see `output`.
#![deny(clippy::print_stdout)]

pub mod command;
pub mod drive;
mod error;
pub mod flame;
pub mod load;
mod output;
pub mod peers;
pub mod ratio;
pub mod report;
mod rests;
pub mod roof;
pub mod stall;
pub mod workload;

pub use error::{Error, Result};
