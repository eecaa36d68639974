//! `pinion delete`

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use super::ServerOptions;
use super::failure::Result;
use super::put::{ConditionOptions, DurabilityOption};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The key
    key: OsString,

    #[command(flatten)]
    durability: DurabilityOption,

    #[command(flatten)]
    condition: ConditionOptions,
}

pub(super) fn run(server: &ServerOptions, arguments: &Arguments) -> Result<()> {
    let (client, key) = (server.client()?, arguments.key.as_bytes());
    match arguments.condition.condition() {
        Some(condition) => client.delete_if(key, condition)?,
        None => client.delete_with(key, arguments.durability.durability())?,
    };
    Ok(())
}
