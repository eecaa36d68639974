//! What a gateway is started with.

use std::net::SocketAddr;
use std::time::Duration;

/// Where a gateway listens unless told otherwise.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:7601";

/// The settings of a gateway.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Whether others may reach that address.
    pub insecure: bool,
    /// Names that requests may be sent to beside `localhost` and addresses in numbers; `*` = any.
    pub hosts: Vec<String>,
    /// Addresses of the node as `HOST:PORT`; they are tried in turn until one answers.
    pub seeds: Vec<String>,
    /// How long the node may take for a request, retries included.
    pub deadline: Duration,
    /// The bounds of everything.
    pub limits: Limits,
}

impl Config {
    /// A gateway on `listen` before the node at `seed`, with the default limits.
    pub fn new(listen: SocketAddr, seed: impl Into<String>) -> Self {
        Self {
            listen,
            insecure: false,
            hosts: Vec::new(),
            seeds: vec![seed.into()],
            deadline: Duration::from_secs(5),
            limits: Limits::default(),
        }
    }

    /// Refuses what cannot be meant.
    ///
    /// # Errors
    /// [`Error::Reachable`] for an address that others can reach, unless [`Config::insecure`] is set;
    /// [`Error::NoSeeds`].
    pub fn check(&self) -> Result<(), Error> {
        if !self.insecure && !self.listen.ip().is_loopback() {
            return Err(Error::Reachable(self.listen));
        }
        if self.seeds.is_empty() { Err(Error::NoSeeds) } else { Ok(()) }
    }
}

/// Bounds of a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections with a request under way; one more request is answered 503. Connections that wait for a
    /// request give way to newcomers, the one that has waited longest first.
    pub connections_max: u32,
    /// Connections beside those, for requests that look after the node: health, metrics, administration.
    pub connections_reserved: u32,
    /// Bytes of a request's line and headers, give or take what one read brings; more are answered 431.
    pub head_bytes_max: u32,
    /// Time for a request's line and headers, from the moment the connection is free for it. A connection
    /// that is kept alive without a request is closed after it, too.
    pub head_ms_max: u32,
    /// Time for a request's body; later is answered 408.
    pub body_ms_max: u32,
    /// Time in which a peer must take something of what it is sent, before it is cut off.
    pub stall_ms_max: u32,
    /// Bytes of all bodies and answers in memory; a request over it is answered 503.
    pub buffer_bytes_max: u32,
    /// Batches and pages of scans at once; one more is answered 429.
    pub wide_requests_max: u32,
    /// Records of a page; a larger `limit` is answered 400.
    pub page_records_max: u32,
    /// Bytes of a page, beyond which it ends early, and of the values that a batch reads.
    pub page_bytes_max: u32,
    /// Time for requests under way when the gateway is told to stop.
    pub drain_ms_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 512,
            connections_reserved: 16,
            head_bytes_max: 32 << 10,
            head_ms_max: 10_000,
            body_ms_max: 30_000,
            stall_ms_max: 10_000,
            buffer_bytes_max: 64 << 20,
            wide_requests_max: 16,
            page_records_max: 1_000,
            page_bytes_max: 1 << 20,
            drain_ms_max: 2_000,
        }
    }
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address can be reached by others.
    #[error(
        "{0} can be reached by others, and there is no authentication and no encryption yet: everyone who reaches \
         it can read and change everything. Serve HTTP on 127.0.0.1 (behind an SSH tunnel or a proxy that asks \
         who is there), or say --insecure if the network keeps strangers out"
    )]
    Reachable(SocketAddr),
    /// No address of a node.
    #[error("a gateway needs the address of a node")]
    NoSeeds,
    /// The address cannot be listened on.
    #[error("cannot serve HTTP on {address}: {source}; choose another address with --http, or none")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The thread or its runtime could not be set up.
    #[error("cannot start the thread of the gateway: {0}")]
    Thread(std::io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_served_unasked() {
        for (listen, loopback) in [("127.0.0.1:0", true), ("[::1]:1", true), ("0.0.0.0:1", false)] {
            let mut config = Config::new(listen.parse().unwrap(), "127.0.0.1:7600");
            assert_eq!(config.check().is_ok(), loopback, "{listen}");
            config.insecure = true;
            config.check().unwrap();
            config.seeds.clear();
            assert!(matches!(config.check(), Err(Error::NoSeeds)));
        }
    }
}
