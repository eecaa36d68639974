//! REST and administration over HTTP/1.1: an ordinary client of the cores.
//!
//! A [`Gateway`] is one thread of its own with a tokio runtime on it. Nothing of it runs on a data
//! core's thread, and it knows no more of a node than any other user of `pinion-client` does: what it
//! shows of the cores comes from the node's own server info. It keeps no state, so any number of
//! gateways may stand before a node. `pinion serve` runs one beside its cores, `pinion gateway` runs
//! one alone.
//!
//! What a request passes, in this order: the limits of connections (`places`) and the time for its head
//! (`connection`), the list of names it may be sent to (against DNS rebinding), the router
//! (`routes`), the checks of its query, headers and body (`request`), the client. What comes back
//! wrong is a `problem` document with what is known of the write in it.
//!
//! Bounds (see [`Limits`]): connections, bytes and time of a head, time of a body, bytes of all bodies and
//! answers in memory, requests that read many records at once, records and bytes of a page, the time a
//! peer may take nothing of its answer.
//!
//! There is no CORS, so that a page from elsewhere can neither read an answer nor send what browsers ask
//! leave for: PUT, DELETE, or a batch, which must name its content type. Values are sent as bytes that
//! browsers may not take for a page.

mod answer;
mod budget;
mod config;
mod connection;
mod handle;
mod health;
mod hosts;
mod kv;
mod metrics;
mod namespaces;
mod node;
mod pages;
mod places;
mod problem;
mod request;
mod routes;
mod run;
mod sections;
mod service;
mod stall;
mod status;
mod traffic;
mod version;

pub use config::{Config, Error, LISTEN_DEFAULT, Limits};
pub use run::Gateway;
pub use service::Service;
