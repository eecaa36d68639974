//! How a client is set up, and what its two forms share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::blocking;
use crate::client::Client;
use crate::core::call::Call;
use crate::core::connection::Terms;
use crate::core::map::ServerMap;
use crate::core::operation::Try;
use crate::core::random::Random;
use crate::core::scan::ScanState;
use crate::core::session::Session;
use crate::error::{Error, Result};
use crate::record::Namespace;
use crate::scan::ScanRange;

/// Where a client connects unless told otherwise.
pub const ADDRESS_DEFAULT: &str = "127.0.0.1:7600";
/// The name of the namespace that always exists.
pub const NAMESPACE_DEFAULT: &str = "default";

/// Sets up a [`Client`] or a [`blocking::Client`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it is built"]
pub struct Builder {
    pub(crate) config: Config,
}

#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) address: String,
    pub(crate) namespace: String,
    pub(crate) client_name: String,
    pub(crate) deadline: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) max_retries: u32,
    pub(crate) retry_budget: u32,
    pub(crate) queue_max: usize,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            config: Config {
                address: ADDRESS_DEFAULT.to_owned(),
                namespace: NAMESPACE_DEFAULT.to_owned(),
                client_name: concat!("pinion-client/", env!("CARGO_PKG_VERSION")).to_owned(),
                deadline: Duration::from_secs(5),
                connect_timeout: Duration::from_secs(2),
                max_retries: 5,
                retry_budget: 100,
                queue_max: 1024,
            },
        }
    }
}

impl Builder {
    /// The server's address as `HOST:PORT`. Default: [`ADDRESS_DEFAULT`].
    pub fn connect(mut self, address: impl Into<String>) -> Self {
        self.config.address = address.into();
        self
    }

    /// The namespace of the client's keys. Default: `default`, which always exists. Any other is
    /// looked up at the first call that needs it.
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.config.namespace = name.into();
        self
    }

    /// How the client calls itself in the server's logs; at most 64 bytes.
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.config.client_name = name.into();
        self
    }

    /// How long a call may take, all its tries together. Travels with every request, so that the
    /// server does not work on what nobody waits for. Default: 5 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.config.deadline = deadline;
        self
    }

    /// How long connecting and HELLO may take. Default: 2 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect_timeout = timeout;
        self
    }

    /// How often a call is tried again where that is safe. Default: 5; 0 = never.
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.config.max_retries = retries;
        self
    }

    /// Tokens that all calls of the client share for their retries: a retry spends one, a success
    /// earns a tenth. Retries of requests that could not be sent are free. Default: 100.
    pub fn retry_budget(mut self, tokens: u32) -> Self {
        self.config.retry_budget = tokens;
        self
    }

    /// Requests per connection that may wait while as many are in flight as the server allows;
    /// beyond that, calls of the asynchronous client wait their turn and calls of the blocking one
    /// fail with [`Error::Busy`]. Default: 1,024.
    pub fn queue_max(mut self, requests: usize) -> Self {
        self.config.queue_max = requests.max(1);
        self
    }

    /// Connects the asynchronous client. Needs a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    /// [`Error::Connect`] when there is no server, [`Error::Server`] or [`Error::Protocol`] when it
    /// refuses or is none.
    pub async fn build(self) -> Result<Client> {
        Client::open(self.config).await
    }

    /// Connects the blocking client, which needs no runtime.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn build_blocking(self) -> Result<blocking::Client> {
        blocking::Client::open(self.config)
    }
}

/// What the connections and clones of one client share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    session: Mutex<Session>,
}

impl Shared {
    pub(crate) fn new(config: Config) -> Result<Arc<Self>> {
        if config.client_name.len() > pinion_protocol::CLIENT_NAME_BYTES_MAX {
            let max = pinion_protocol::CLIENT_NAME_BYTES_MAX;
            return Err(Error::Invalid(format!("a client name has at most {max} bytes")));
        }
        let session = Session::new(Random::from_system(), config.retry_budget);
        Ok(Arc::new(Self { config, session: Mutex::new(session) }))
    }

    pub(crate) fn session(&self) -> MutexGuard<'_, Session> {
        // Nothing panics while it holds the lock, and every state of a session is a good one.
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn terms(&self, wanted_core: Option<u16>) -> Terms {
        Terms {
            wanted_core,
            client_name: self.config.client_name.clone(),
            greeting_max: self.config.connect_timeout,
            waiting_max: self.config.queue_max,
        }
    }

    /// A call with the client's deadline, if the server's limits allow it.
    pub(crate) fn call(&self, attempt: Try, now: Instant) -> Result<Call> {
        let Try { operation, trace } = attempt;
        if let Some(map) = self.session().map() {
            operation.check(map)?;
        }
        Ok(Call::new(operation, now + self.config.deadline, self.config.max_retries).traced(trace))
    }

    /// What a scan will ask for.
    pub(crate) fn plan_scan(&self, range: ScanRange) -> Result<ScanState> {
        range.check()?;
        let map = self.map()?;
        Ok(ScanState::new(range, &map))
    }

    /// The newest map; there is one from the first HELLO on, which building the client waits for.
    pub(crate) fn map(&self) -> Result<Arc<ServerMap>> {
        self.session().map().cloned().ok_or(Error::Closed)
    }

    /// What to send for the next try of a call, and to which core.
    pub(crate) fn attempt(&self, call: &mut Call, now: Instant) -> (u16, Try) {
        let mut session = self.session();
        let attempt = call.attempt(&mut session, now);
        let home = session.home;
        (session.map().map_or(home, |map| attempt.operation.core(map, home)), attempt)
    }
}

/// A namespace by name; its number is looked up once.
#[derive(Debug)]
pub(crate) struct NamespaceCell {
    name: String,
    /// The number plus one; 0 = not known.
    known: AtomicU64,
}

impl NamespaceCell {
    pub(crate) fn new(name: String) -> Arc<Self> {
        let known =
            if name == NAMESPACE_DEFAULT { u64::from(pinion_protocol::NAMESPACE_DEFAULT) + 1 } else { 0 };
        Arc::new(Self { name, known: AtomicU64::new(known) })
    }

    /// The number, if it is known.
    pub(crate) fn id(&self) -> Option<u32> {
        self.known.load(Ordering::Relaxed).checked_sub(1).and_then(|id| u32::try_from(id).ok())
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Takes the number from the server's list.
    pub(crate) fn learn(&self, list: &[Namespace]) -> Result<u32> {
        let live = list.iter().find(|namespace| namespace.name == self.name && !namespace.dropped);
        self.known.store(live.map_or(0, |namespace| u64::from(namespace.id) + 1), Ordering::Relaxed);
        live.map(|namespace| namespace.id).ok_or_else(|| Error::NoSuchNamespace(self.name.clone()))
    }
}
