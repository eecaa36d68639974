//! The real environment: glommio executors pinned to cores, one io_uring per core.
//!
//! [`Runtime`] starts one thread per configured CPU. Each runs a glommio executor (tasks and
//! task classes with shares) and owns one raw io_uring that carries everything hot: the
//! listening socket, connections, log and table files. A [`RealEnv`] is one core's handle to both,
//! and implements the traits of [`env`].
//!
//! How the parts meet:
//! * `ring` wraps the io_uring, `pool` the receive buffers that the kernel fills, `op` the
//!   operations in flight and the memory they lend to the kernel, `sys` the few calls std lacks.
//!   Unsafe code lives in these files only;
//! * `core` starts operations and hands completions to whom they concern;
//! * `driver` is the one task per core that submits, reaps and sleeps; `rounds` counts turns that took long,
//!   `rest` says when it looks again instead of sleeping;
//! * `socket`, `listener`, `file` and `directory` are what callers see;
//! * `mail` carries messages between cores and wakes sleeping ones, `off_core` runs long jobs on
//!   other threads, `timers` keeps sleeping tasks.
//!
//! Limits: see [`RuntimeConfig`]. Linux 6.1 or newer. A panic on a core ends the process: a node
//! with a missing core would answer nothing for its keys and look alive.
//!
//! Nothing outside this crate names glommio, so that another executor can take its place.

mod config;
mod core;
mod directory;
mod driver;
mod env_impl;
mod file;
mod listener;
mod mail;
mod off_core;
mod op;
mod pool;
mod rest;
mod ring;
mod rounds;
mod runtime;
mod slab;
mod socket;
mod sys;
mod timers;
mod waker;

pub use config::{RuntimeConfig, RuntimeError};
pub use env_impl::RealEnv;
pub use file::RealFile;
pub use listener::RealListener;
pub use mail::Remote;
pub use pinion_env as env;
pub use pool::Chunk;
pub use runtime::Runtime;
pub use socket::{RealSocket, SocketHandoff};
pub use sys::online_cpus;
