//! What one history is made of, drawn from its seed: another mix of calls, sizes, limits and
//! accidents for every seed.

use std::time::Duration;

use pinion_engine::Options;
use pinion_server::{EngineSizes, ServerConfig};

use crate::world::{LinkFaults, Random};

/// Kinds of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Get,
    Stat,
    MultiGet,
    Put,
    Delete,
    PutIf,
    DeleteIf,
    Add,
    Append,
    SetExpiry,
    Batch,
    Scan,
    Namespace,
}

const KINDS: [Kind; 13] = [
    Kind::Get,
    Kind::Put,
    Kind::Stat,
    Kind::MultiGet,
    Kind::Delete,
    Kind::PutIf,
    Kind::DeleteIf,
    Kind::Add,
    Kind::Append,
    Kind::SetExpiry,
    Kind::Batch,
    Kind::Scan,
    Kind::Namespace,
];

impl Kind {
    /// What its calls are counted as.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "calls get",
            Self::Stat => "calls stat",
            Self::MultiGet => "calls multi-get",
            Self::Put => "calls put",
            Self::Delete => "calls delete",
            Self::PutIf => "calls put-if",
            Self::DeleteIf => "calls delete-if",
            Self::Add => "calls add",
            Self::Append => "calls append",
            Self::SetExpiry => "calls set-expiry",
            Self::Batch => "calls batch",
            Self::Scan => "calls scan",
            Self::Namespace => "calls namespace",
        }
    }
}

/// How a process ends in the middle of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// As by `kill -9`.
    Crash,
    /// As when the power fails.
    PowerCut,
    /// As by SIGTERM.
    Shutdown,
}

/// One thing that happens to the node, when so many calls have begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Accident {
    pub(super) at_call: u64,
    pub(super) ending: Ending,
    /// How long it stays away.
    pub(super) pause: Duration,
    /// Cores of the next process.
    pub(super) cores: usize,
    /// How far the wall clock is shifted meanwhile, in milliseconds.
    pub(super) shift_ms: i64,
}

/// One history.
#[derive(Debug)]
pub(super) struct Plan {
    weights: [u64; KINDS.len()],
    pub(super) config: ServerConfig,
    pub(super) partitions: u32,
    pub(super) cores: usize,
    pub(super) faults: LinkFaults,
    pub(super) clients: usize,
    pub(super) lines: usize,
    pub(super) lanes: usize,
    pub(super) calls_per_lane: u64,
    pub(super) pause_us_max: u64,
    pub(super) plain_keys: u64,
    pub(super) value_bytes_max: u64,
    pub(super) second_ttl_ms: Option<u64>,
    pub(super) drops_namespace: bool,
    pub(super) accidents: Vec<Accident>,
}

impl Plan {
    pub(super) fn draw_from(random: &mut Random) -> Self {
        let mut weights = [0; KINDS.len()];
        for weight in &mut weights {
            *weight = [0, 1, 3, 8][random.below(4) as usize];
        }
        // A history in which nothing is read or written shows nothing.
        weights[0] += 2;
        weights[1] += 2;
        weights[KINDS.len() - 1] = weights[KINDS.len() - 1].min(1);
        let (clients, lines, lanes) =
            (random.between(2, 4) as usize, random.between(1, 2) as usize, random.between(1, 3) as usize);
        let calls = random.between(100, 200);
        let calls_per_lane = calls.div_ceil((clients * lanes) as u64);
        let faults = if random.one_in(8) { LinkFaults::NONE } else { LinkFaults::swarm(random) };
        let mut accidents: Vec<Accident> = (0..random.below(4))
            .map(|_| Accident {
                at_call: random.below(calls),
                ending: [Ending::Crash, Ending::Crash, Ending::PowerCut, Ending::PowerCut, Ending::Shutdown]
                    [random.below(5) as usize],
                pause: Duration::from_millis(random.below(100)),
                cores: random.between(1, 3) as usize,
                shift_ms: if random.one_in(4) { random.below(8_000) as i64 - 4_000 } else { 0 },
            })
            .collect();
        accidents.sort_by_key(|accident| accident.at_call);
        let config = config(random);
        Self {
            weights,
            partitions: config.partitions,
            config,
            cores: 2,
            faults,
            clients,
            lines,
            lanes,
            calls_per_lane,
            pause_us_max: 1 << random.between(6, 14),
            plain_keys: random.between(1, 6),
            value_bytes_max: 1 << random.between(7, 13),
            second_ttl_ms: random.one_in(2).then(|| random.below(3) * 500),
            drops_namespace: random.one_in(3),
            accidents,
        }
    }

    /// The kind of the next call.
    pub(super) fn draw(&self, random: &mut Random) -> Kind {
        let mut drawn = random.below(self.weights.iter().sum());
        for (kind, weight) in KINDS.iter().zip(self.weights) {
            if drawn < weight {
                return *kind;
            }
            drawn -= weight;
        }
        Kind::Get
    }
}

/// A server so small that a hundred calls fill its memtables and meet its limits.
fn config(random: &mut Random) -> ServerConfig {
    let mut options = Options {
        value_bytes_max: 16 << 10,
        batch_ops_max: 64,
        batch_bytes_max: 64 << 10,
        log_segment_bytes: 128 << 10,
        log_queue_bytes_max: 128 << 10,
        memtable_bytes: 16 << 10 << random.below(4),
        table_bytes: 32 << 10,
        level_base_bytes: 64 << 10,
        block_cache_bytes: 64 << 10 << random.below(4),
        row_cache_bytes: 16 << 10,
        disk_reserve_bytes: 0,
        scan_records_max: random.between(1, 50) as u32,
        scan_bytes_max: 32 << 10,
        runs_max: random.between(1, 4) as u32,
        ..Options::default()
    };
    if random.one_in(2) {
        options.runs_percent = 500;
    }
    if random.one_in(3) {
        options.retry_window_ms_max = random.between(200, 2_000);
    }
    if random.one_in(4) {
        options.pending_ops_max = random.between(1, 8) as u32;
    }
    if random.one_in(4) {
        options.sweep_interval_ms = random.between(50, 1_000);
    }
    let mut config = ServerConfig::new("data", EngineSizes::Each(Box::new(options)));
    config.partitions = 64;
    config.shards = Some(random.between(2, 4) as u16);
    config.limits.frame_bytes_max = 256 << 10;
    if random.one_in(4) {
        config.limits.core_requests_max = random.between(1, 6) as u32;
    }
    if random.one_in(4) {
        config.limits.core_forwards_max = random.between(1, 4) as u32;
    }
    if random.one_in(8) {
        config.limits.connections_max = random.between(4, 9) as u32;
    }
    if random.one_in(4) {
        config.limits.connection_requests_max = random.between(1, 3) as u32;
    }
    if random.one_in(4) {
        config.limits.connection_out_bytes_max = 4_096;
    }
    config.limits.hello_ms_max = random.between(50, 5_000) as u32;
    config.limits.drain_ms_max = random.between(10, 2_000) as u32;
    config
}
