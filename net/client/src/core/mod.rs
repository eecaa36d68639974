//! The client without I/O: state machines that are told the time and handed bytes.
//!
//! [`connection`] turns requests into bytes and bytes into answers. [`call`] decides what happens
//! between the first try of a request and its result. [`session`] is what the connections and calls
//! of one client share. [`fanout`] and [`scan`] make one answer of many. The asynchronous and the
//! blocking client only move the bytes and keep the time.

pub(crate) mod call;
pub(crate) mod connection;
pub(crate) mod fanout;
pub(crate) mod map;
pub(crate) mod operation;
pub(crate) mod random;
pub(crate) mod retry;
pub(crate) mod scan;
pub(crate) mod session;
pub(crate) mod stamp;
mod wire;

#[cfg(test)]
mod tests;
