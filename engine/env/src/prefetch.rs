//! Asking for memory before it is needed.
//!
//! A look into a table of hundreds of MiB waits for main memory: some 100 to 300 ns, the cost of a
//! whole request otherwise. Whoever knows the next sixteen keys can have all those waits at once.
#![expect(unsafe_code, reason = "the processor's hint takes an address; see the SAFETY argument")]

/// Bytes of a cache line on every processor Pinion runs on.
const LINE_BYTES: usize = 64;

/// Asks the processor for the cache lines of `bytes`. A hint: changes nothing, waits for nothing.
#[inline]
pub fn prefetch(bytes: &[u8]) {
    for line in bytes.chunks(LINE_BYTES) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the instruction is part of every x86-64 processor, reads nothing that the program
        // can see and does not fault, whatever the address; this one is inside a live slice.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = line;
    }
}
