//! Overload and abuse of one node: real servers on loopback, and clients that ask too much of them.
//!
//! [`OVERLOAD`] offers ten times what the server sustains; [`ABUSE`] has idle crowds, slow readers and
//! writers, half-open frames, clients that vanish or never read; [`SOAK`] goes on for long.

mod abuse;
mod line;
mod meter;
mod open_loop;
mod small;
mod soak;
mod tenfold;

pub use abuse::{ABUSE, Bystander};
pub use line::{Line, Sip, opening};
pub use meter::{Held, files_in, raise_descriptors};
pub use open_loop::{OpenLoop, Pace, Round};
pub use small::Small;
pub use soak::SOAK;
pub use tenfold::{Bounds, OVERLOAD, tenfold};
