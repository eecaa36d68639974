//! `pinion serve`: one node in this process.
//!
//! Gathers the settings, looks at the machine and the data directory, starts the cores, prints what
//! it runs with, and stops at a signal. Standard output carries the start-up lines only, the last
//! of them `listening on HOST:PORT`, printed when every core takes connections; logs go to standard
//! error. Exit codes: 0 stopped in good order; 2 bad settings; 3 could not start or had to stop;
//! 128 + signal stopped at once by a second signal. A panic aborts the process.

mod cores;
mod file;
mod memory;
mod settings;
mod signals;
mod startup;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use pinion_gateway::Gateway;
use pinion_runtime::{Runtime, RuntimeConfig, SocketHandoff, online_cpus};
use pinion_server::{CoreMessage, Error, ServerConfig, serve_core};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::checks::{self, Level};
use crate::logs;

pub(crate) use self::memory::allowed_bytes;
pub(crate) use self::settings::{ServeArgs, Settings, address};
pub(crate) use self::signals::wait_for_stop;
use self::startup::Banner;

/// Exit codes for settings that make no sense, and for everything else that fails.
const EXIT_SETTINGS: u8 = 2;
const EXIT_FAILED: u8 = 3;

/// Runs a node until it is told to stop.
pub(crate) fn run(args: ServeArgs) -> ExitCode {
    let settings =
        match Settings::gather(args).and_then(|settings| settings.check_listen().map(|()| settings)) {
            Ok(settings) => settings,
            Err(text) => return fail(&text, EXIT_SETTINGS),
        };
    let _logs = match logs::to_stderr(settings.log_format, settings.log_repeats) {
        Ok(logs) => logs,
        Err(text) => return fail(&text, EXIT_FAILED),
    };
    match start(&settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => fail(&text, EXIT_FAILED),
    }
}

fn fail(text: &str, code: u8) -> ExitCode {
    eprintln!("error: {text}");
    ExitCode::from(code)
}

fn start(settings: &Settings) -> Result<(), String> {
    let meta = checks::read_meta(&settings.data).map_err(|error| error.to_string())?;
    let shards = settings.shards(meta.as_ref());
    let options = settings.options(shards).map_err(|error| error.to_string())?;
    let before = checks::before_start(settings, shards, &options);
    for check in &before {
        match check.level {
            Level::Ok => tracing::debug!("{check}"),
            Level::Warn => tracing::warn!("{check}"),
            Level::Fail => {}
        }
    }
    if let Some(check) = before.iter().find(|check| check.level == Level::Fail) {
        return Err(check.to_string());
    }
    if let Some(text) = settings.ignored(meta.as_ref()) {
        tracing::warn!("{text}");
    }

    let mut runtime = RuntimeConfig::new(settings.cpus.clone());
    runtime.listen = Some(settings.listen);
    let runtime = Runtime::new(runtime).map_err(|error| error.to_string())?;
    leave_to_cores(&settings.cpus);
    let address = runtime.local_addr().unwrap_or(settings.listen);
    // Before the cores run, and on a thread of its own.
    let gateway = match settings.gateway(address).map(Gateway::start).transpose() {
        Ok(gateway) => gateway.map(Arc::new),
        Err(error) => return Err(error.to_string()),
    };
    signals::watch(runtime.remote(), gateway.clone())
        .map_err(|error| format!("cannot wait for signals: {error}"))?;
    let config = settings.server_config(shards, options.clone());
    let http = gateway.as_ref().map(|gateway| gateway.address());
    let banner = Banner::new(settings, &options, address, http);
    serve(runtime, config, banner)
}

/// Keeps this thread and those that it starts, but for the cores' own, off the CPUs of the cores, as far as
/// there are others: HTTP and work off the core take no time from requests then.
fn leave_to_cores(cpus: &[usize]) {
    let mut others = CpuSet::new();
    for cpu in online_cpus().into_iter().filter(|cpu| *cpu < CpuSet::MAX_CPU && !cpus.contains(cpu)) {
        others.set(cpu);
    }
    if others.count() > 0
        && let Err(error) = sched_setaffinity(None, &others)
    {
        tracing::debug!("threads beside the cores may run on the cores' CPUs: {error}");
    }
}

/// Runs the cores until all have ended.
fn serve(
    runtime: Runtime<CoreMessage<SocketHandoff>>,
    config: ServerConfig,
    banner: Banner,
) -> Result<(), String> {
    let banner = Arc::new(banner);
    banner.starting();
    let config = Arc::new(config);
    let failures = Arc::new(Mutex::new(Vec::new()));
    let ended = runtime.run({
        let failures = Arc::clone(&failures);
        move |env| {
            let (config, banner, failures) =
                (Arc::clone(&config), Arc::clone(&banner), Arc::clone(&failures));
            async move {
                if let Err(error) = serve_core(env, config, |summary| banner.ready(summary)).await {
                    failures.lock().unwrap_or_else(PoisonError::into_inner).push(error);
                }
            }
        }
    });
    ended.map_err(|error| error.to_string())?;
    let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
    // What other cores say of a failure is only an echo of it.
    failures.sort_by_key(|error| matches!(error, Error::OtherCore { .. }));
    match failures.first() {
        None => {
            tracing::info!("stopped");
            Ok(())
        }
        Some(error) => Err(error.to_string()),
    }
}
