//! Asking the processor for memory ahead of its use.
//!
//! A lookup in a large table is a chain of misses to main memory, some 100 ns each, in which a
//! processor has nothing to do. Asking for the lines of many lookups before the first is made lets
//! their misses overlap (group prefetching: Chen, Ailamaki, Gibbons, Mowry, "Improving hash join
//! performance through prefetching", 2004).
#![expect(unsafe_code, reason = "the instruction is only offered as an unsafe function")]

/// Bytes that memory moves in.
const CACHE_LINE_BYTES: usize = 64;

/// Bytes at the front of an item that [`prefetch_fronts`] asks for.
pub const FRONT_BYTES: usize = CACHE_LINE_BYTES + CACHE_LINE_BYTES / 2;

/// Asks for the cache lines of `items` and waits for nothing. A hint: it changes nothing but time,
/// and does nothing where the processor has no such instruction.
#[inline]
pub fn prefetch<T>(items: &[T]) {
    let range = items.as_ptr_range();
    let (mut line, end) = (range.start.cast::<u8>(), range.end.cast::<u8>());
    line = line.wrapping_sub(line.addr() % CACHE_LINE_BYTES);
    while line < end {
        prefetch_line(line);
        line = line.wrapping_add(CACHE_LINE_BYTES);
    }
}

/// As [`prefetch`] for the line that an item begins in.
#[inline]
pub fn prefetch_start<T>(item: &T) {
    prefetch_line(std::ptr::from_ref(item).cast());
}

/// As [`prefetch`] for the first [`FRONT_BYTES`] of several items in different places, and for where each
/// item ends. The first line of a page is asked for only when the page's place is known, and the processor
/// works out several places at once only if it has the instructions before it together: so the lines that
/// may lie in different pages go first, one right after the other.
#[inline]
pub fn prefetch_fronts(items: &[&[u8]]) {
    items.iter().for_each(|item| prefetch_line(item.as_ptr()));
    items.iter().for_each(|item| prefetch_line(item.as_ptr_range().end.wrapping_sub(1)));
    for item in items {
        let last = item.len().min(FRONT_BYTES);
        prefetch_line(item.as_ptr().wrapping_add(CACHE_LINE_BYTES.min(last)));
        prefetch_line(item.as_ptr().wrapping_add(last).wrapping_sub(1));
    }
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
