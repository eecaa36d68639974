//! Memory: how fast one core copies.
//!
//! Copies of a record's size go from random places of a working set far larger than the caches into
//! one small buffer, as values go into the answers of a connection: what they cost is the way to the
//! memory and to the page's address. Copies of large blocks, one after another, say how wide that way
//! is. The order is made up while copying, by a few multiplications for each.
//!
//! Limit: whether the set lies in large pages is the system's choice (transparent_hugepage), and random
//! copies feel it.

use std::hint::black_box;
use std::time::Instant;

use pinion_runtime::env::AlignedBuf;
use serde::Serialize;

use super::disk::randomise;
use super::{LimitsPlan, tell};
use crate::error::{Error, Result};
use crate::load::Random;
use crate::ratio::stop::Running;

/// The set that is copied from, in bytes.
const SET_BYTES: usize = 64 << 20;
/// What is copied between two looks at the clock, in bytes.
const BATCH_BYTES: usize = 4 << 20;

/// Sizes of copies, and whether their places are random.
const KINDS: [(usize, bool); 3] = [(512, true), (4096, true), (1 << 20, false)];

/// What one kind of copy came to.
#[derive(Debug, Clone, Serialize)]
pub struct Copies {
    /// Bytes of a copy.
    pub bytes: usize,
    /// Whether the places follow no order.
    pub random: bool,
    /// Bytes of the set that they lie in.
    pub set_bytes: usize,
    /// How long it was measured.
    pub seconds: f64,
    /// Copies per second.
    pub copies_per_second: f64,
    /// Thousand millions of bytes per second; a byte that is read and written counts once.
    pub gb_per_second: f64,
}

/// Each kind of copy.
pub(super) fn copies(plan: &LimitsPlan, running: &Running) -> Result<Vec<Copies>> {
    let mut set = AlignedBuf::zeroed(SET_BYTES);
    randomise(&mut Random::new(1), &mut set);
    let mut found = Vec::new();
    for (bytes, random) in KINDS {
        let copies = copy(plan, &set, (bytes, random), running)?;
        let order = if random { "random" } else { "in sequence" };
        tell(&format!("copy {bytes} B, {order}"), copies.gb_per_second * 1e3, "MB/s");
        found.push(copies);
    }
    Ok(found)
}

fn copy(
    plan: &LimitsPlan,
    set: &AlignedBuf,
    (bytes, random): (usize, bool),
    running: &Running,
) -> Result<Copies> {
    let places = (SET_BYTES / bytes) as u64;
    let mut target = AlignedBuf::zeroed(bytes);
    let mut order = Random::new(bytes as u64);
    let (mut copied, mut next) = (0_u64, 0_u64);
    let mut batch = || {
        for _ in 0..BATCH_BYTES / bytes {
            next = if random { order.below(places) } else { (next + 1) % places };
            let from = next as usize * bytes;
            target[..bytes].copy_from_slice(&set[from..from + bytes]);
            black_box(&mut target);
        }
        (BATCH_BYTES / bytes) as u64
    };
    let warm = Instant::now() + plan.warmup();
    while Instant::now() < warm {
        batch();
    }
    let start = Instant::now();
    while start.elapsed() < plan.measure {
        if running.is_stopped() {
            return Err(Error::Stopped);
        }
        copied += batch();
    }
    let seconds = start.elapsed().as_secs_f64();
    let copies_per_second = copied as f64 / seconds;
    Ok(Copies {
        bytes,
        random,
        set_bytes: SET_BYTES,
        seconds,
        copies_per_second,
        gb_per_second: copies_per_second * bytes as f64 / 1e9,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::roof::limits::tests::plan;

    #[test]
    fn every_kind_is_counted() {
        let found = copies(&plan(Path::new("unused")), &Running::default()).unwrap();
        assert_eq!(found.len(), KINDS.len());
        for copies in found {
            let gb = copies.copies_per_second * copies.bytes as f64 / 1e9;
            assert!(gb > 0.0 && (copies.gb_per_second - gb).abs() < 1e-9, "{copies:?}");
        }
    }

    #[test]
    fn batches_are_whole() {
        let whole = |bytes| BATCH_BYTES.is_multiple_of(bytes) && SET_BYTES.is_multiple_of(bytes);
        assert!(KINDS.iter().all(|(bytes, _)| whole(*bytes)));
    }
}
