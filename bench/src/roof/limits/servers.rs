//! The bare servers under the load generator: sockets alone, and sockets with a synced log.
//!
//! The servers, the frames and the number of connections are those of `pinion bench hot`, whose
//! denominators these are.

use std::path::Path;

use super::{LimitsPlan, tell};
use crate::error::Result;
use crate::load::{self, Dialect, Plan, Report, Work};
use crate::ratio::server::Scratch;
use crate::ratio::stop::Running;
use crate::ratio::{roof_name, start_roof};

const CONNECTIONS: usize = 64;
const DEPTHS: [usize; 2] = [1, 16];
// They give the frames their sizes.
const KEYS: u64 = 100_000;
const KEY_BYTES: usize = 32;
const VALUE_BYTES: usize = 512;

/// Both servers at each depth.
pub(super) fn measure(plan: &LimitsPlan, scratch: &Path, running: &Running) -> Result<Vec<Report>> {
    let mut found = Vec::new();
    for work in [Work::Get, Work::Put] {
        for depth in DEPTHS {
            let directory = Scratch::create(scratch.join("server"))?;
            let mut load = load(plan, work, depth);
            let server =
                start_roof(&plan.roof, work, load.frames()?, directory.path(), plan.server_cpu, running)?;
            load.target = server.address();
            load.server_process = Some(server.process());
            let report = load::run(&load)?;
            tell(&format!("{}, depth {depth}", roof_name(work)), report.ops_per_second, "ops/s");
            found.push(report);
        }
    }
    Ok(found)
}

fn load(plan: &LimitsPlan, work: Work, depth: usize) -> Plan {
    Plan {
        target: ([127, 0, 0, 1], 0).into(),
        dialect: Dialect::Raw,
        work,
        connections: CONNECTIONS,
        depth,
        keys: KEYS,
        key_bytes: KEY_BYTES,
        value_bytes: VALUE_BYTES,
        seed: 1,
        prepare: false,
        warmup: plan.warmup(),
        measure: plan.measure,
        cpu: Some(plan.generator_cpu),
        server_process: None,
    }
}
