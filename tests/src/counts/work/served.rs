//! Requests to a whole server in the in-memory world, from the bytes of a connection to those of its
//! answers: alone, and sixteen in one send.

use crate::counts::marks::Marks;
use crate::metered::server::{Ask, with_server};

/// Keys of the node, all of them written before anything counts.
const KEYS: u64 = 256;
/// Rounds of 16 before anything counts: every key several times.
const WARM_UP: u64 = 100;
const DEPTH: u64 = 16;
/// Requests alone that count: few, because a step takes long.
const ALONE: u64 = 2;
const SCAN_RECORDS: u32 = 16;

pub(super) fn get_alone(marks: Marks) -> u64 {
    served(marks, Ask::Get, ALONE, 1)
}

pub(super) fn get_in_16(marks: Marks) -> u64 {
    served(marks, Ask::Get, 1, DEPTH)
}

pub(super) fn put_alone(marks: Marks) -> u64 {
    served(marks, Ask::Put, ALONE, 1)
}

pub(super) fn put_in_16(marks: Marks) -> u64 {
    served(marks, Ask::Put, 1, DEPTH)
}

pub(super) fn scan(marks: Marks) -> u64 {
    served(marks, Ask::Scan(SCAN_RECORDS), 1, 1)
}

fn served(marks: Marks, ask: Ask, rounds: u64, depth: u64) -> u64 {
    with_server(&marks, async |rig| {
        rig.ask(Ask::Put, WARM_UP, DEPTH, KEYS).await;
        rig.ask(ask, WARM_UP, depth, KEYS).await;
        for _ in 0..rounds {
            rig.quiet().await;
            marks.arm();
            rig.ask(ask, 1, depth, KEYS).await;
            rig.quiet().await;
            marks.disarm();
        }
    });
    rounds * depth
}
