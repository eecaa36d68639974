//! The open connections of a core, for people.

use std::time::Duration;

use pinion_env::Monotonic;

use crate::connection::{Connection, Connections, Speaks};

/// Connections that a core tells of, at most.
const SHOWN_MAX: usize = 1_000;

/// A connection.
#[derive(Debug, Clone)]
pub(crate) struct ClientReport {
    pub(crate) id: u64,
    pub(crate) peer: String,
    pub(crate) name: String,
    pub(crate) speaks: Speaks,
    pub(crate) age: Duration,
    /// Since bytes came last.
    pub(crate) idle: Duration,
    /// Requests whose answers have been sent.
    pub(crate) requests: u64,
    pub(crate) outstanding: u32,
    pub(crate) out_bytes: usize,
}

/// The connections of a core.
#[derive(Debug, Clone)]
pub(crate) struct ClientsReport {
    pub(crate) core: u16,
    pub(crate) total: u32,
    pub(crate) shown: Vec<ClientReport>,
}

impl ClientsReport {
    pub(super) fn of(core: u16, connections: &Connections, now: Monotonic) -> Self {
        let mut shown = Vec::new();
        connections.for_each(|connection| {
            if shown.len() < SHOWN_MAX {
                shown.push(client(connection, now));
            }
        });
        Self { core, total: connections.open(), shown }
    }
}

fn client(connection: &Connection, now: Monotonic) -> ClientReport {
    let who = connection.who.borrow();
    ClientReport {
        id: connection.number,
        peer: who.peer.clone(),
        name: who.name.clone(),
        speaks: connection.speaks.get(),
        age: now.since(connection.since),
        idle: now.since(connection.heard.get()),
        requests: connection.answered.get(),
        outstanding: connection.requests.get(),
        out_bytes: connection.held_bytes(),
    }
}
