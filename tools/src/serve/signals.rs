//! SIGTERM and SIGINT: the first stops the node in good order, a second ends the process at once.
//!
//! One thread waits for signals. It lets the gateway finish what it has begun while the cores still answer,
//! then tells every core to stop; what happens then is the server's.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use pinion_gateway::Gateway;
use pinion_runtime::{Remote, SocketHandoff};
use pinion_server::CoreMessage;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// How long to wait before looking at the gateway, or telling a core with a full queue, again.
const RETRY_DELAY: Duration = Duration::from_millis(1);

/// Exit code of a process that a signal ended, less the signal's number.
const SIGNAL_EXIT_BASE: i32 = 128;

/// Starts the thread that waits for signals.
///
/// # Errors
/// Handlers or the thread could not be set up.
pub(crate) fn watch(
    remote: Remote<CoreMessage<SocketHandoff>>,
    gateway: Option<Arc<Gateway>>,
) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        if signals.forever().next().is_none() {
            return;
        }
        tracing::info!("stopping: requests under way are finished first; a second signal stops at once");
        let mut wait = || {
            if let Some(signal) = signals.pending().next() {
                at_once(signal);
            }
            thread::sleep(RETRY_DELAY);
        };
        if let Some(gateway) = gateway {
            gateway.stop();
            // It bounds the time that it takes.
            while !gateway.has_ended() {
                wait();
            }
        }
        for core in 0..remote.cores() {
            while remote.send(core, CoreMessage::shutdown()).is_err() {
                wait();
            }
        }
        if let Some(signal) = signals.forever().next() {
            at_once(signal);
        }
    })?;
    Ok(())
}

/// Waits for the first signal.
///
/// # Errors
/// Handlers could not be set up.
pub(crate) fn wait_for_stop() -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    signals.forever().next();
    Ok(())
}

/// What was acknowledged is in the log: the next start recovers it.
fn at_once(signal: i32) -> ! {
    tracing::warn!("stopped at once by a second signal; the next start recovers what was acknowledged");
    std::process::exit(SIGNAL_EXIT_BASE + signal);
}
