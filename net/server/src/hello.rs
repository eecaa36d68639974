//! The answer to HELLO: who the node is, where its shards are, and what it allows.

use pinion_engine::KEY_BYTES_MAX;
use pinion_protocol::{FEATURES, HelloReply, ListBuf, ProtocolError, Response, ShardCores};

use crate::core::Core;
use crate::message::ServerEnv;
use crate::opening::Opening;
use crate::refusal::MAP_EPOCH;

/// Appends the answer.
///
/// # Errors
/// The shard map does not fit a frame; impossible with the shards that partitions allow.
pub(crate) fn put_answer<E: ServerEnv>(
    core: &Core<E>,
    opening: &Opening,
    out: &mut Vec<u8>,
) -> Result<(), ProtocolError> {
    let mut shard_cores = ListBuf::<ShardCores>::new();
    for shard in 0..core.layout.shards {
        shard_cores.push(&core.layout.core_of(shard))?;
    }
    let limits = core.limits();
    let reply = HelloReply {
        version: opening.version,
        core: core.index,
        cores: core.layout.cores,
        partitions: core.layout.partitions,
        key_bytes_max: KEY_BYTES_MAX as u32,
        features: opening.features & FEATURES,
        node_id: core.facts.node_id,
        incarnation: core.facts.incarnation,
        stamp: core.now_stamp().0,
        value_bytes_max: core.options.value_bytes_max,
        batch_ops_max: core.options.batch_ops_max,
        batch_bytes_max: core.options.batch_bytes_max,
        frame_bytes_max: limits.frame_bytes_max,
        in_flight_max: limits.connection_requests_max,
        retry_window_ms: u32::try_from(core.options.retry_window_ms_max).unwrap_or(u32::MAX),
        shard_cores: shard_cores.list(),
    };
    Response::Hello(reply).encode(opening.header.request_id, MAP_EPOCH, out)
}
