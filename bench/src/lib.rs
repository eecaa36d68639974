//! Load generator and roof programs: what Pinion can do, beside what the machine can do.
//!
//! Mounted by the command line as `pinion bench` (see [`command`]). Nothing here serves anybody's
//! data.

pub mod command;
mod error;
pub mod flame;
pub mod load;
pub mod ratio;
pub mod roof;
pub mod stall;

pub use error::{Error, Result};
