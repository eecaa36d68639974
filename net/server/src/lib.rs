//! A node: sessions, coordinator, shards.
//!
//! Every core of a node runs [`serve_core`] and owns its shards and connections alone; cores talk
//! by [`CoreMessage`]s. The crate reaches the world only through the environment it is generic
//! over ([`ServerEnv`]), so the same code runs on sockets and files and in a simulated world.
//!
//! The walk of a request: `opening` brings a connection to its core, `session` receives
//! and cuts frames; `coordinator` admits it and decides
//! who must see it; `read`, `multi_get`, `write`, `batch`, `scan`, `namespaces` and `info` carry it
//! out on the engine; `forward` takes it to another core and its answer back;
//! `core` puts the answer into the connection's out buffer, and the session sends it with all
//! others of the turn. `watch` sees what took long, which keys are hot and who is connected. A
//! connection that begins with RESP takes the same way, with `resp` in the place of frames: other
//! words for the same operations.
//!
//! Bounds are in [`Limits`] and in the engine's options; each has a defined answer when reached.

mod batch;
mod buckets;
mod config;
mod connection;
mod coordinator;
mod core;
mod counters;
mod error;
mod forward;
mod group;
mod hello;
mod info;
mod json;
mod layout;
mod message;
mod multi_get;
mod namespaces;
mod node;
mod opening;
mod pressure;
mod prompt;
mod read;
mod refusal;
mod resp;
mod scan;
mod session;
mod watch;
mod write;

pub use config::{EngineSizes, Limits, RespConfig, SLOW_US_DEFAULT, ServerConfig};
pub use error::{Error, Result};
pub use message::{CoreMessage, ServerEnv};
pub use node::{NodeSummary, serve_core};
