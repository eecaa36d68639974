//! `pinion completions`

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;
use super::failure::Result;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Which shell
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    // Gathered first: the generator panics when its output fails.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "pinion", &mut script);
    Ok(io::stdout().lock().write_all(&script)?)
}
