//! How much the hot paths allocate: GET and PUT, once warm.
//!
//! Counted in the in-memory world, whose own allocations are left out: the count is the same on every
//! machine. That the real runtime adds nothing is counted by its own test (`engine/runtime`).
//!
//! What a GET answered from memory and a PUT may not do is allocate for themselves. What may grow is
//! storage that many of them share, argued where it is asserted.

mod counting;
mod engine;
mod protocol;
mod server;

/// The most allocations per operation where storage grows with the data.
const GROWTH_PER_OPERATION_MAX: f64 = 0.05;

/// Prints what was counted, for who runs the test to see it.
fn per_operation(what: &str, allocations: u64, operations: u64) -> f64 {
    let each = allocations as f64 / operations as f64;
    println!("{what}: {allocations} allocations in {operations} operations, {each:.4} each");
    each
}
