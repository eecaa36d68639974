//! `pinion stat`

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::failure::{Failure, Result};
use super::{ServerOptions, duration, output};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The key
    key: OsString,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(server: &ServerOptions, arguments: &Arguments) -> Result<()> {
    let stat = server.client()?.stat(arguments.key.as_bytes())?.ok_or(Failure::Missing)?;
    let mut out = io::stdout().lock();
    if arguments.json {
        let expiry_ms = stat
            .expiry
            .and_then(|expiry| expiry.duration_since(SystemTime::UNIX_EPOCH).ok())
            .map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        let version = stat.version.to_string();
        writeln!(
            out,
            "{}",
            json!({
                "version": version,
                "bytes": stat.value_bytes,
                "expiry_ms": expiry_ms,
                "accesses": stat.accesses,
            })
        )?;
        return Ok(());
    }
    let expires = match stat.expiry {
        None => "never".to_owned(),
        Some(expiry) => {
            format!("in {}", duration::show(Duration::from_secs_f64(output::seconds_left(expiry))))
        }
    };
    writeln!(out, "version  {}\nbytes    {}\nexpires  {expires}", stat.version, stat.value_bytes)?;
    if stat.accesses > 0 {
        // Estimated from a sample: keys that are asked for rarely are not in it.
        writeln!(out, "accesses about {}, lately", stat.accesses)?;
    }
    Ok(())
}
