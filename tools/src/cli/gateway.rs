//! `pinion gateway`
//!
//! The gateway that `serve` runs beside its cores, alone: it keeps no state, so several may stand before one
//! node. Standard output says where it listens; logs go to standard error. A signal stops it in good order.

use std::io::Write;

use pinion_gateway::{Config, Gateway, LISTEN_DEFAULT};

use super::ServerOptions;
use super::failure::{Failure, Result};
use crate::logs::{self, LogFormat, REPEATS_DEFAULT};
use crate::serve;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Address to serve HTTP on; port 0 lets the system choose
    #[arg(long, env = "PINION_HTTP", value_name = "HOST:PORT", default_value = LISTEN_DEFAULT)]
    http: String,
    /// Names that requests may be sent to, beside localhost and addresses in numbers; * = any
    #[arg(long, env = "PINION_HTTP_HOSTS", value_name = "NAME,...", value_delimiter = ',')]
    http_hosts: Vec<String>,
    /// Addresses of the node, tried in turn until one answers; instead of --connect
    #[arg(long, env = "PINION_SEEDS", value_name = "HOST:PORT,...", value_delimiter = ',')]
    seeds: Vec<String>,
    /// Listen on an address that others can reach: there is no authentication and no encryption
    #[arg(long, env = "PINION_INSECURE")]
    insecure: bool,
    /// What a line of the logs on standard error looks like
    #[arg(long, env = "PINION_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// Lines that one place in the code may log in ten seconds; more are counted and left out; 0 = all are
    /// written
    #[arg(long, env = "PINION_LOG_REPEATS", value_name = "N", default_value_t = REPEATS_DEFAULT)]
    log_repeats: u32,
}

pub(super) fn run(server: &ServerOptions, arguments: Arguments) -> Result<()> {
    let _logs = logs::to_stderr(arguments.log_format, arguments.log_repeats).map_err(Failure::System)?;
    let listen = serve::address(&arguments.http).map_err(Failure::Usage)?;
    let mut config = Config::new(listen, server.connect.clone());
    if !arguments.seeds.is_empty() {
        config.seeds = arguments.seeds;
    }
    config.hosts = arguments.http_hosts;
    config.insecure = arguments.insecure;
    config.deadline = server.timeout;
    config.check().map_err(|error| Failure::Usage(error.to_string()))?;
    let gateway = Gateway::start(config).map_err(|error| Failure::System(error.to_string()))?;
    let mut out = std::io::stdout().lock();
    // Whoever reads our output may be gone; that is no reason to stop.
    let _ = writeln!(out, "listening on {}", gateway.address()).and_then(|()| out.flush());
    serve::wait_for_stop().map_err(|error| Failure::System(format!("cannot wait for signals: {error}")))?;
    gateway.stop_and_wait();
    Ok(())
}
