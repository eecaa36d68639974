//! Asking the processor for memory ahead of its use.
//!
//! A lookup in a large table is a chain of misses to main memory, some 100 ns each, in which a
//! processor has nothing to do. Asking for the lines of many lookups before the first is made lets
//! their misses overlap (group prefetching: Chen, Ailamaki, Gibbons, Mowry, "Improving hash join
//! performance through prefetching", 2004).
#![expect(unsafe_code, reason = "the instruction is only offered as an unsafe function")]

/// Bytes that memory moves in.
const CACHE_LINE_BYTES: usize = 64;

/// Asks for the cache lines of `items` and waits for nothing. A hint: it changes nothing but time,
/// and does nothing where the processor has no such instruction.
#[inline]
pub fn prefetch<T>(items: &[T]) {
    let start = items.as_ptr().cast::<u8>();
    let before = start.addr() % CACHE_LINE_BYTES;
    for offset in (0..before + size_of_val(items)).step_by(CACHE_LINE_BYTES) {
        prefetch_line(start.wrapping_sub(before).wrapping_add(offset));
    }
}

/// As [`prefetch`] for the front of several items in different places, at most `front` elements of each,
/// and for where each item ends. The first line of a page is asked for only when the page's place is
/// known, and the processor works out several places at once only if it has the instructions before it
/// together: so the lines that may lie in different pages go first, one right after the other.
#[inline]
pub fn prefetch_each<T>(items: &[&[T]], front: usize) {
    items.iter().for_each(|item| prefetch_line(item.as_ptr().cast()));
    items.iter().for_each(|item| prefetch_line(item.as_ptr_range().end.cast::<u8>().wrapping_sub(1)));
    items.iter().for_each(|item| prefetch(&item[..item.len().min(front)]));
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn prefetch_line(line: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: the instruction reads nothing into the program and never faults, whatever the address;
    // every x86_64 processor has it.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn prefetch_line(_line: *const u8) {}
