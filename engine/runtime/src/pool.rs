//! The receive buffers of one core.
//!
//! One mapping holds a ring of buffer entries (shared with the kernel), another the buffers, in large
//! pages if possible. The kernel takes a buffer from the ring when data arrives; [`Chunk`] is the taken
//! buffer, and dropping it puts the buffer back.
//!
//! The pool is bounded and must not run dry because somebody keeps chunks: while more than three
//! quarters of the buffers are taken, a new chunk is copied to the heap and its buffer goes back
//! at once. So at least a quarter always returns to the kernel, and a receive that found no buffer
//! can be armed again right after the completions were reaped. How much one connection can pile up
//! is bounded in `socket`.
//!
//! The kernel uses the buffers of the ring in turn, so all of those are written before one comes again, and
//! what is in the processor's cache goes for them. So only [`READY_MAX`] lie in the ring; the others wait
//! beside it, and the one that came back last goes in first.
#![expect(unsafe_code, reason = "memory shared with the kernel; see each SAFETY argument")]

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use pinion_env::page_round_up;

use crate::ring::Ring;

/// The one buffer group of a ring.
pub(crate) const BUFFER_GROUP: u16 = 0;

/// Buffers that lie in the ring, if there are as many. One enter looks at some 20 connections, of which
/// each takes one buffer for a burst of requests; a stream may take up to 32 and leave none for
/// others, whose receives are armed again then.
const READY_MAX: u16 = 64;

/// The receive buffers of one core.
pub(crate) struct ReceivePool {
    /// The ring of entries.
    entries: Mapping,
    /// The buffers, one after the other.
    memory: Mapping,
    buffer_bytes: usize,
    /// How many buffers there are: a power of two.
    buffers: u16,
    tail: Cell<u16>,
    /// Buffers in the ring.
    ready: Cell<u16>,
    /// Buffers beside it, the last that came back at the end.
    spare: RefCell<Vec<u16>>,
    /// Buffers inside live chunks.
    taken: Cell<u16>,
    copied_chunks: Cell<u64>,
}

impl ReceivePool {
    /// Makes `buffers` (a power of two) buffers of `buffer_bytes` and fills the ring with some of them.
    pub(crate) fn new(ring: &mut Ring, buffers: u16, buffer_bytes: u32) -> io::Result<Rc<Self>> {
        assert!(buffers.is_power_of_two() && buffers <= 1 << 15, "checked with the configuration");
        let buffer_bytes = buffer_bytes as usize;
        let pool = Rc::new(Self {
            entries: Mapping::new(usize::from(buffers) * size_of::<BufRingEntry>())?,
            memory: Mapping::new(usize::from(buffers) * buffer_bytes)?,
            buffer_bytes,
            buffers,
            tail: Cell::new(0),
            ready: Cell::new(0),
            spare: RefCell::new(Vec::with_capacity(usize::from(buffers))),
            taken: Cell::new(buffers),
            copied_chunks: Cell::new(0),
        });
        // SAFETY: the mapping is page-aligned and large enough for the entries, which name buffers
        // inside the other. Both are unmapped when the last reference to the pool goes; `Core` keeps one
        // until its ring is drained and dropped, and for ever if it could not be drained.
        unsafe { ring.register_buffers(pool.entries.start.as_ptr() as u64, buffers, BUFFER_GROUP)? };
        for buffer in 0..buffers {
            pool.give_back(buffer);
        }
        Ok(pool)
    }

    /// Takes the buffer of a completion that received `bytes`.
    pub(crate) fn take(self: &Rc<Self>, buffer: u16, bytes: usize) -> Chunk {
        assert!(
            buffer < self.buffers && bytes <= self.buffer_bytes,
            "the kernel fills only what it was given"
        );
        self.left_ring();
        let chunk = Chunk(Content::Pooled { pool: Rc::clone(self), buffer, bytes });
        let low_mark = self.buffers - self.buffers / 4;
        if self.taken.get() > low_mark {
            self.copied_chunks.set(self.copied_chunks.get() + 1);
            return Chunk(Content::Copied(chunk.to_vec()));
        }
        chunk
    }

    /// Puts a buffer back that a completion named but that holds nothing.
    pub(crate) fn discard(&self, buffer: u16) {
        self.left_ring();
        self.give_back(buffer);
    }

    /// The kernel has used a buffer of the ring: another one goes in.
    fn left_ring(&self) {
        self.taken.set(self.taken.get() + 1);
        self.ready.set(self.ready.get() - 1);
        let spare = self.spare.borrow_mut().pop();
        if let Some(buffer) = spare {
            self.put_in_ring(buffer);
        }
    }

    /// How many chunks had to be copied because too many buffers were taken.
    pub(crate) fn copied_chunks(&self) -> u64 {
        self.copied_chunks.get()
    }

    fn address(&self, buffer: u16) -> NonNull<u8> {
        debug_assert!(buffer < self.buffers);
        // SAFETY: the offset of every buffer lies inside the mapping.
        unsafe { self.memory.start.add(usize::from(buffer) * self.buffer_bytes) }
    }

    fn give_back(&self, buffer: u16) {
        self.taken.set(self.taken.get() - 1);
        if self.ready.get() < READY_MAX {
            self.put_in_ring(buffer);
        } else {
            self.spare.borrow_mut().push(buffer);
        }
    }

    fn put_in_ring(&self, buffer: u16) {
        let tail = self.tail.get();
        let entries = self.entries.start.cast::<BufRingEntry>().as_ptr();
        // SAFETY: the index is masked to the number of entries, all inside the mapping, and the
        // kernel does not read entries at or beyond the tail. Only this thread writes them. The
        // fields are set one by one because the tail lives in a field of entry 0.
        unsafe {
            let entry = entries.add(usize::from(tail & (self.buffers - 1)));
            (*entry).set_addr(self.address(buffer).as_ptr() as u64);
            (*entry).set_len(self.buffer_bytes as u32);
            (*entry).set_bid(buffer);
        }
        let tail = tail.wrapping_add(1);
        // SAFETY: the tail is an aligned u16 inside the mapping that only this thread writes; the
        // kernel reads it with acquire, and the release makes the entry visible before it.
        unsafe { AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()).store(tail, Ordering::Release) };
        self.tail.set(tail);
        self.ready.set(self.ready.get() + 1);
    }
}

/// Received bytes. Returns its buffer to the core's pool on drop.
pub struct Chunk(Content);

enum Content {
    Pooled { pool: Rc<ReceivePool>, buffer: u16, bytes: usize },
    Copied(Vec<u8>),
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Content::Pooled { pool, buffer, bytes } => {
                // SAFETY: the kernel has written `bytes` initialised bytes into this buffer and
                // does not touch it again before it is given back, which drop does; the mapping
                // lives as long as the pool, which this chunk keeps alive.
                unsafe { std::slice::from_raw_parts(pool.address(*buffer).as_ptr(), *bytes) }
            }
            Content::Copied(bytes) => bytes,
        }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Content::Pooled { pool, buffer, .. } = &self.0 {
            pool.give_back(*buffer);
        }
    }
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunk").field("bytes", &self.len()).finish()
    }
}

/// Anonymous memory, touched once so that receiving never faults; in large pages if it is a whole number
/// of those and the system allows it, for every page that is not in the processor's table costs a walk.
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    fn new(bytes: usize) -> io::Result<Self> {
        let bytes = page_round_up(bytes);
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing of ours.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping is ours and of this size. Both only make it ready; without them it is slower.
        unsafe {
            libc::madvise(start, bytes, libc::MADV_HUGEPAGE);
            libc::madvise(start, bytes, libc::MADV_POPULATE_WRITE);
        }
        let start = NonNull::new(start.cast()).expect("the kernel maps nothing at address 0 unasked");
        Ok(Self { start, bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and of this size, and nobody refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_that_came_back_last_goes_into_the_ring_first() {
        let mut ring = Ring::new(8).expect("a ring");
        let pool = ReceivePool::new(&mut ring, 128, 4096).expect("a pool");
        let in_ring = || (pool.ready.get(), pool.taken.get(), pool.spare.borrow().len());
        assert_eq!(in_ring(), (64, 0, 64));
        // Had the kernel used these two, which went in first.
        let chunks = [pool.take(0, 1), pool.take(1, 2)];
        assert_eq!(in_ring(), (64, 2, 62));
        drop(chunks);
        assert_eq!(in_ring(), (64, 0, 64));
        assert_eq!(pool.spare.borrow()[62..], [0, 1]);
        pool.discard(2);
        assert_eq!((in_ring(), pool.spare.borrow()[63]), ((64, 0, 64), 2), "1 is in the ring instead");
        // A pool that is nearly empty fills the ring before anything waits beside it.
        let chunks: Vec<_> = (3..64).chain([2, 0]).map(|buffer| pool.take(buffer, 1)).collect();
        assert_eq!(in_ring(), (64, 63, 1));
        drop((chunks, ring));
        assert_eq!(in_ring(), (64, 0, 64));
    }
}
