//! RESP on the data port: what a Redis client asks, on the same core as native frames.
//!
//! `intake` reads commands from a connection and keeps their order (`replies`). What is about the
//! connection or the node is answered there (`connection`, `info`, `config`, `docs`); what has keys is
//! sent where they live by `route`: carried out here, or forwarded whole to the core that owns the key,
//! whose reply comes back as bytes for the connection. Each family of commands is a file (`strings`,
//! `expiry`, `numbers`, `many`, `keys`), and each command is an operation that native frames have too:
//! a look-up of `read`, a write of the engine with the waiter of `outcome`, `multi_get`, `batch`, a page
//! of a scan. `ahead` asks for the memory of GETs that come together. Admission, forwarding, counting and the bounds on answers are those of frames.
//!
//! What commands mean, and where that differs from Redis, is in `net/protocol/RESP.md`.

mod ahead;
mod config;
mod connection;
mod cursors;
mod docs;
mod expiry;
mod failure;
mod glob;
mod info;
mod intake;
mod keys;
mod many;
mod numbers;
mod outcome;
mod replies;
mod route;
mod seen;
mod strings;
mod table;

pub(crate) use cursors::PLACES_MAX as CURSOR_PLACES_MAX;
pub(crate) use failure::put_refusal;
pub(crate) use info::{Sections, text as info_text};
pub(crate) use intake::{Intake, Taken};
pub(crate) use many::CountPart;
pub(crate) use outcome::{RespWrite, Then, answer_write};
pub(crate) use replies::Replies;
pub(crate) use route::arrive;
pub(crate) use seen::{SlowLogAsked, client_lines, put_slow_log};
pub(crate) use table::name_of;

use std::cell::{Cell, RefCell};
use std::time::Duration;

use pinion_env::Monotonic;
use pinion_protocol::resp::Commands;

use crate::config::{Limits, RespConfig};
use crate::core::{Core, NO_NAMESPACE};
use crate::counters::OperationClass;
use crate::message::ServerEnv;
use crate::namespaces::NamespaceTable;
use cursors::Cursors;
use table::{Scope, Spec};

/// How often a core logs that somebody talks HTTP to it.
const HTTP_WARNING_EVERY: Duration = Duration::from_secs(10);

/// What a core knows of RESP beside its connections.
#[derive(Debug)]
pub(crate) struct RespCore {
    /// The namespace of the listener's name, if there is one now.
    namespace: Cell<Option<u32>>,
    /// Reads commands that other cores forward; `None` while one is carried out.
    parser: RefCell<Option<Commands>>,
    cursors: RefCell<Cursors>,
    /// When HTTP was logged last.
    warned: Cell<Option<Monotonic>>,
    started: Monotonic,
}

impl RespCore {
    pub(crate) fn new(config: &RespConfig, limits: &Limits, table: &NamespaceTable, now: Monotonic) -> Self {
        Self {
            namespace: Cell::new(table.id_of(&config.namespace)),
            parser: RefCell::new(None),
            cursors: RefCell::new(Cursors::new(limits.resp_cursors_max)),
            warned: Cell::new(None),
            started: now,
        }
    }

    /// Goes by a new table of namespaces.
    pub(crate) fn obey(&self, config: &RespConfig, table: &NamespaceTable) {
        self.namespace.set(table.id_of(&config.namespace));
    }
}

impl<E: ServerEnv> Core<E> {
    /// What a command's ticket says of it: its number, what it is counted under, its namespace.
    fn about_command(&self, known: Option<&'static Spec>) -> (u8, OperationClass, u32) {
        let Some(spec) = known else { return (table::UNKNOWN, OperationClass::Other, NO_NAMESPACE) };
        let namespace = match spec.scope {
            Scope::Node => None,
            _ => self.resp.namespace.get(),
        };
        (table::number_of(spec), spec.class, namespace.unwrap_or(NO_NAMESPACE))
    }

    /// Logs that a connection was closed because it talks HTTP; now and then.
    fn warn_of_http(&self, peer: &str) {
        let now = self.env.now();
        if self.resp.warned.get().is_some_and(|last| now < last.after(HTTP_WARNING_EVERY)) {
            return;
        }
        self.resp.warned.set(Some(now));
        tracing::warn!(
            core = self.index,
            peer,
            "closed a connection that sends POST or Host: to the data port: somebody may be using a browser \
             to reach it, or means another port"
        );
    }
}
