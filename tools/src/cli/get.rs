//! `pinion get`

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use super::failure::{Failure, Result};
use super::{ServerOptions, output};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The key
    key: OsString,
}

pub(super) fn run(server: &ServerOptions, arguments: &Arguments) -> Result<()> {
    match server.client()?.get(arguments.key.as_bytes())? {
        Some(value) => Ok(output::value(&value)?),
        None => Err(Failure::Missing),
    }
}
