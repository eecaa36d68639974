//! The gateway's thread: from the listening socket to the last connection.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::TcpListener as Listener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::config::{Config, Error};
use crate::connection;
use crate::handle::{App, Front};
use crate::places::Places;

/// How long to wait when the system accepts nothing, for want of descriptors for example.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);
/// Threads for what would block: looking up the names of seeds.
const BLOCKING_THREADS_MAX: usize = 1;

/// A gateway that is running.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Gateway {
    /// Listens, and starts the thread. Does not wait for the node: until it answers, requests for it are
    /// answered 503 and `/readyz` says why.
    ///
    /// The thread runs on the CPUs that the caller's thread may use.
    ///
    /// # Errors
    /// What [`Config::check`] refuses, and [`Error::Listen`] or [`Error::Thread`].
    pub fn start(config: Config) -> Result<Self, Error> {
        config.check()?;
        let at = config.listen;
        let cannot_listen = |source| Error::Listen { address: at, source };
        let listener = TcpListener::bind(at).map_err(cannot_listen)?;
        listener.set_nonblocking(true).map_err(cannot_listen)?;
        let address = listener.local_addr().map_err(cannot_listen)?;
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name("gateway-names")
            .build()
            .map_err(Error::Thread)?;
        let (stop, stopping) = watch::channel(false);
        let thread = thread::Builder::new()
            .name("gateway".into())
            .spawn(move || serve(runtime, listener, config, stopping))
            .map_err(Error::Thread)?;
        Ok(Self { address, stop, thread })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells it to stop: it takes no more connections, finishes the requests under way, and ends after
    /// [`Limits::drain_ms_max`](crate::Limits::drain_ms_max) at the latest.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Whether its thread has ended.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Tells it to stop and waits until it has.
    pub fn stop_and_wait(self) {
        self.stop();
        if self.thread.join().is_err() {
            tracing::error!("the thread of the gateway panicked");
        }
    }
}

/// The thread, from its begin to its end.
fn serve(runtime: Runtime, listener: TcpListener, config: Config, stopping: watch::Receiver<bool>) {
    runtime.block_on(async {
        match Listener::from_std(listener) {
            Ok(listener) => accept(listener, config, stopping).await,
            Err(error) => tracing::error!("HTTP is not served: {error}"),
        }
    });
    // Connections that are still there are not waited for.
    runtime.shutdown_background();
}

async fn accept(listener: Listener, config: Config, mut stopping: watch::Receiver<bool>) {
    let limits = config.limits;
    let places = Arc::new(Places::new(limits.connections_max, limits.connections_reserved));
    // Every connection has a sender; that there are none left is what the receiver is told in the end.
    let (open, mut all_over) = mpsc::channel::<()>(1);
    let app = Arc::new(App::new(config, stopping.clone()));
    let front = Arc::new(Front::new(Arc::clone(&app)));
    let connecting = tokio::spawn({
        let app = Arc::clone(&app);
        async move { app.node.connect(&app.config).await }
    });
    while let Some(accepted) = connection::unless_stopped(&mut stopping, listener.accept()).await {
        match accepted {
            Ok((socket, _)) => match places.enter() {
                Some((place, gave_way)) => {
                    if gave_way {
                        app.traffic.gave_way();
                    }
                    let (front, stopping, open) = (Arc::clone(&front), stopping.clone(), open.clone());
                    tokio::spawn(async move {
                        connection::serve(socket, place, front, stopping).await;
                        drop(open);
                    });
                }
                None => {
                    app.traffic.refused_connection();
                    connection::refuse(&socket);
                }
            },
            Err(error) => {
                tracing::debug!("cannot accept a connection over HTTP: {error}");
                sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
    drop(listener);
    connecting.abort();
    drop(open);
    let drain = Duration::from_millis(u64::from(limits.drain_ms_max));
    if timeout(drain, all_over.recv()).await.is_err() {
        tracing::warn!("connections over HTTP that did not end in time were cut off");
    }
}
