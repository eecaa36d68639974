//! `pinion touch`

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::failure::{Failure, Result};
use super::{ServerOptions, duration};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The key
    key: OsString,

    #[command(flatten)]
    lifetime: Lifetime,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Lifetime {
    /// Let the value live this much longer from now
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    ttl: Option<Duration>,

    /// Let the value live for ever
    #[arg(long)]
    persist: bool,
}

pub(super) fn run(server: &ServerOptions, arguments: &Arguments) -> Result<()> {
    let (client, key) = (server.client()?, arguments.key.as_bytes());
    let touched = match arguments.lifetime.ttl {
        Some(ttl) => client.touch(key, ttl)?,
        None => client.persist(key)?,
    };
    touched.map(|_| ()).ok_or(Failure::Missing)
}
