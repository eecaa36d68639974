//! The one binary of Pinion.
//!
//! Every command of a client is a module of [`cli`]; what a command needs of the house stands in its
//! module. [`serve`] runs a node, [`doctor`] and it share the [`checks`] of the machine. [`logs`] are those of
//! what runs for long.

mod checks;
mod cli;
mod doctor;
mod logs;
mod serve;
mod size;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
