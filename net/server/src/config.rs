//! What a node is started with: where its data lives, how its memory is split, and every limit of
//! the server, each with its unit in the name.
//!
//! The engine's own limits are in [`pinion_engine::Options`]. [`ServerConfig::check`] refuses
//! values that contradict each other before anything is opened.

use std::path::PathBuf;

use pinion_engine::{DEFAULT_NAMESPACE, Durability, Options};

use crate::error::{Error, Result};
use crate::resp::CURSOR_PLACES_MAX;

/// Where the engine's sizes come from.
#[derive(Debug, Clone)]
pub enum EngineSizes {
    /// One budget for the whole node in bytes, divided by the number of its shards.
    MemoryBytes(u64),
    /// The same options for every shard.
    Each(Box<Options>),
}

/// The bounds of one node's server part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections of the node, shared out evenly between its cores.
    pub connections_max: u32,
    /// Requests of one connection that may await their answers; HELLO tells clients. Beyond it
    /// requests are left unread until answers have been given.
    pub connection_requests_max: u32,
    /// Bytes of answers that may wait on one connection before its requests are left unread; reading
    /// goes on below half of it. One answer may exceed it.
    pub connection_out_bytes_max: u32,
    /// Bytes of answers that may wait on all connections of a core together. Connections share it
    /// evenly; when it is full, reads get `OVERLOADED` and connections whose peers take nothing are
    /// closed. One answer, what all reads under way bring, and for 5 s the sends of those that were
    /// closed may exceed it.
    pub core_out_bytes_max: u64,
    /// How long a peer may take nothing of a send while `core_out_bytes_max` is full, in
    /// milliseconds.
    pub send_stall_ms_max: u32,
    /// Largest frame in bytes, in both directions.
    pub frame_bytes_max: u32,
    /// Bytes that all connections of a core may hold in frames that are not complete yet. Beyond it
    /// the one goes that has been incomplete for longest.
    pub core_gather_bytes_max: u64,
    /// Requests of one core that may await their answers; beyond it new ones get `OVERLOADED`.
    pub core_requests_max: u32,
    /// Reads of tables (gets and pages of scans) that one core may have under way.
    pub core_reads_max: u32,
    /// Requests that one core may have forwarded to others without an answer yet.
    pub core_forwards_max: u32,
    /// Changes of the catalogue that may wait for their turn.
    pub catalogue_changes_max: u32,
    /// How long a new connection may take to finish its HELLO, in milliseconds.
    pub hello_ms_max: u32,
    /// How long a stopping node waits for requests under way and for answers to leave, in
    /// milliseconds.
    pub drain_ms_max: u32,
    /// What `OVERLOADED` advises a client to wait, in milliseconds.
    pub overload_retry_ms: u32,
    /// Chunks that one connection may consume in a row before others get their turn.
    pub turn_chunks_max: u32,
    /// Requests that one connection may start in a row before others get their turn.
    pub turn_requests_max: u32,
    /// Bytes of capacity up to which a used send buffer is kept for reuse.
    pub pooled_buffer_bytes_max: u32,
    /// Send buffers that a core keeps for reuse.
    pub pooled_buffers_max: u32,
    /// Scans of RESP connections that a core remembers between two pages, at most 4,096; the one that
    /// was not heard of for longest makes room.
    pub resp_cursors_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            connection_requests_max: 1_024,
            connection_out_bytes_max: 1 << 20,
            core_out_bytes_max: 256 << 20,
            send_stall_ms_max: 2_000,
            frame_bytes_max: 20 << 20,
            core_gather_bytes_max: 256 << 20,
            core_requests_max: 65_536,
            core_reads_max: 1_024,
            core_forwards_max: 8_192,
            catalogue_changes_max: 64,
            hello_ms_max: 5_000,
            drain_ms_max: 10_000,
            overload_retry_ms: 10,
            turn_chunks_max: 16,
            turn_requests_max: 256,
            pooled_buffer_bytes_max: 256 << 10,
            pooled_buffers_max: 256,
            resp_cursors_max: CURSOR_PLACES_MAX,
        }
    }
}

/// What RESP connections work on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RespConfig {
    /// The name of their namespace. Commands are refused as long as there is none of that name.
    pub namespace: String,
    /// When their writes are acknowledged.
    pub durability: Durability,
    /// Whether KEYS and FLUSHALL are allowed, which work on every key.
    pub sweeping: bool,
}

impl Default for RespConfig {
    fn default() -> Self {
        Self { namespace: DEFAULT_NAMESPACE.to_owned(), durability: Durability::Sync, sweeping: false }
    }
}

/// How a node is run.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The data directory; formatted at the first start.
    pub data: PathBuf,
    /// Shards to format a new directory with; `None` = one per core. Fixed from then on.
    pub shards: Option<u16>,
    /// Partitions to format a new directory with: a power of two. Fixed from then on.
    pub partitions: u32,
    /// Sizes of the engine.
    pub engine: EngineSizes,
    /// Bounds of the server.
    pub limits: Limits,
    /// What RESP connections work on.
    pub resp: RespConfig,
    /// A request that takes at least so long is remembered and logged as slow, in microseconds; 0 = none is.
    pub slow_us: u32,
}

/// From here on a request is slow unless configured otherwise, in microseconds.
pub const SLOW_US_DEFAULT: u32 = 10_000;

impl ServerConfig {
    /// A configuration with default limits.
    pub fn new(data: impl Into<PathBuf>, engine: EngineSizes) -> Self {
        let (limits, resp) = (Limits::default(), RespConfig::default());
        let slow_us = SLOW_US_DEFAULT;
        Self { data: data.into(), shards: None, partitions: 1_024, engine, limits, resp, slow_us }
    }

    /// Checks that the limits fit each other.
    ///
    /// # Errors
    /// [`Error::BadConfig`] naming the limit.
    pub fn check(&self) -> Result<()> {
        let limits = &self.limits;
        let at_least = [
            ("connections_max", limits.connections_max, 1),
            ("connection_requests_max", limits.connection_requests_max, 1),
            ("connection_out_bytes_max", limits.connection_out_bytes_max, 4_096),
            ("send_stall_ms_max", limits.send_stall_ms_max, 1),
            ("frame_bytes_max", limits.frame_bytes_max, 16 << 10),
            ("core_requests_max", limits.core_requests_max, 1),
            ("core_reads_max", limits.core_reads_max, 1),
            ("core_forwards_max", limits.core_forwards_max, 1),
            ("catalogue_changes_max", limits.catalogue_changes_max, 1),
            ("hello_ms_max", limits.hello_ms_max, 1),
            ("turn_chunks_max", limits.turn_chunks_max, 1),
            ("turn_requests_max", limits.turn_requests_max, 1),
            ("resp_cursors_max", limits.resp_cursors_max, 1),
        ];
        for (name, value, least) in at_least {
            if value < least {
                return Err(Error::BadConfig(format!("{name} of {value} is below {least}")));
            }
        }
        if limits.core_out_bytes_max < u64::from(limits.connection_out_bytes_max) {
            return Err(Error::BadConfig(format!(
                "core_out_bytes_max of {} is below connection_out_bytes_max of {}",
                limits.core_out_bytes_max, limits.connection_out_bytes_max
            )));
        }
        if limits.resp_cursors_max > CURSOR_PLACES_MAX {
            return Err(Error::BadConfig(format!(
                "resp_cursors_max of {} is above {CURSOR_PLACES_MAX}",
                limits.resp_cursors_max
            )));
        }
        if !self.partitions.is_power_of_two()
            || !(pinion_engine::PARTITIONS_MIN..=pinion_engine::PARTITIONS_MAX).contains(&self.partitions)
        {
            return Err(Error::BadConfig(format!(
                "partitions of {} is not a power of two from {} to {}",
                self.partitions,
                pinion_engine::PARTITIONS_MIN,
                pinion_engine::PARTITIONS_MAX
            )));
        }
        if let EngineSizes::Each(options) = &self.engine {
            options.check()?;
            check_frames(limits, options)?;
        }
        Ok(())
    }

    /// The engine's options for one of `shards` shards.
    ///
    /// # Errors
    /// Too little memory, or values that do not fit a frame.
    pub fn options_for(&self, shards: u16) -> Result<Options> {
        let options = match &self.engine {
            EngineSizes::MemoryBytes(bytes) => Options::for_memory(bytes / u64::from(shards.max(1)))?,
            EngineSizes::Each(options) => Options::clone(options),
        };
        options.check()?;
        check_frames(&self.limits, &options)?;
        Ok(options)
    }
}

/// Whatever the engine stores or returns must fit a frame, heads included.
fn check_frames(limits: &Limits, options: &Options) -> Result<()> {
    let largest = options.value_bytes_max.max(options.batch_bytes_max).max(options.scan_bytes_max);
    let heads = (64 << 10) + u64::from(options.batch_ops_max.max(options.scan_records_max)) * 48;
    let needed = u64::from(largest) + heads;
    if needed > u64::from(limits.frame_bytes_max) {
        return Err(Error::BadConfig(format!(
            "frame_bytes_max of {} is too small for the largest value, batch or page: {needed} are needed",
            limits.frame_bytes_max
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_fit_each_other() {
        let config = ServerConfig::new("data", EngineSizes::Each(Box::default()));
        config.check().unwrap();
        config.options_for(2).unwrap();
    }

    #[test]
    fn contradictions_are_named() {
        let mut config = ServerConfig::new("data", EngineSizes::MemoryBytes(1 << 20));
        assert!(config.options_for(1).unwrap_err().to_string().contains("too small"));
        config.engine = EngineSizes::Each(Box::default());
        config.limits.frame_bytes_max = 1 << 20;
        assert!(config.check().unwrap_err().to_string().contains("frame_bytes_max"));
        config.limits.frame_bytes_max = 20 << 20;
        config.partitions = 100;
        assert!(config.check().unwrap_err().to_string().contains("partitions"));
        config.partitions = 1_024;
        config.limits.hello_ms_max = 0;
        assert!(config.check().unwrap_err().to_string().contains("hello_ms_max"));
    }
}
