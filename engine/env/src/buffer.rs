//! Page-aligned buffers for direct I/O.

use std::fmt;
use std::ops::{Deref, DerefMut};

use memmap2::{Advice, MmapMut};

use crate::pages::Piece;

/// Alignment and granularity of direct I/O: the page and the largest common device block.
pub const PAGE_BYTES: usize = 4096;

/// The smallest multiple of [`PAGE_BYTES`] that is at least `bytes`.
pub const fn page_round_up(bytes: usize) -> usize {
    bytes.div_ceil(PAGE_BYTES) * PAGE_BYTES
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_BYTES]);

const _: () = assert!(size_of::<Page>() == PAGE_BYTES && align_of::<Page>() == PAGE_BYTES);

/// The size of a large page.
pub const LARGE_PAGE_BYTES: usize = 2 << 20;

/// Touches the first `bytes` of a fresh mapping, in large pages if it has room for one and the system allows
/// it. Takes up to a millisecond for each of them.
pub fn touch(mapping: &MmapMut, bytes: usize) {
    // Only slower without either.
    if mapping.len() >= LARGE_PAGE_BYTES {
        drop(mapping.advise(Advice::HugePage));
    }
    drop(mapping.advise_range(Advice::PopulateWrite, 0, bytes));
}

/// A buffer that starts on a page border and is a whole number of pages long. Dereferences to all its
/// bytes.
pub struct AlignedBuf {
    memory: Memory,
}

enum Memory {
    Heap(Box<[Page]>),
    Piece(Piece),
    /// A mapping of whole large pages, of which the buffer is the start.
    Large {
        mapping: MmapMut,
        bytes: usize,
    },
}

impl AlignedBuf {
    /// A zeroed buffer of at least `bytes` bytes, rounded up to whole pages.
    pub fn zeroed(bytes: usize) -> Self {
        Self { memory: Memory::Heap(bytemuck::allocation::zeroed_slice_box(bytes.div_ceil(PAGE_BYTES))) }
    }

    /// As [`AlignedBuf::zeroed`] for one that is used for long: if it is worth one and the system allows
    /// it, in large pages, and touched, which takes a fraction of a millisecond. The device finds few
    /// pieces then instead of one for each page, and the processor has fewer addresses to translate.
    pub fn lasting(bytes: usize) -> Self {
        let bytes = page_round_up(bytes);
        if bytes < LARGE_PAGE_BYTES / 2 {
            return Self::zeroed(bytes);
        }
        // Kernels of the last years begin mappings of whole large pages on the border of one.
        match MmapMut::map_anon(bytes.next_multiple_of(LARGE_PAGE_BYTES)) {
            Ok(mapping) => {
                touch(&mapping, bytes);
                Self { memory: Memory::Large { mapping, bytes } }
            }
            Err(_) => Self::zeroed(bytes),
        }
    }

    pub(crate) const fn of_piece(piece: Piece) -> Self {
        Self { memory: Memory::Piece(piece) }
    }

    /// Whether it was made to last, and large enough for that.
    pub const fn is_large(&self) -> bool {
        matches!(self.memory, Memory::Large { .. })
    }

    /// Length in bytes: a multiple of [`PAGE_BYTES`].
    pub fn capacity(&self) -> usize {
        match &self.memory {
            Memory::Heap(pages) => pages.len() * PAGE_BYTES,
            Memory::Piece(piece) => piece.len(),
            Memory::Large { bytes, .. } => *bytes,
        }
    }
}

impl Default for AlignedBuf {
    /// An empty buffer; allocates nothing.
    fn default() -> Self {
        Self { memory: Memory::Heap(Box::default()) }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            Memory::Heap(pages) => bytemuck::cast_slice(pages),
            Memory::Piece(piece) => piece.bytes(),
            Memory::Large { mapping, bytes } => &mapping[..*bytes],
        }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Heap(pages) => bytemuck::cast_slice_mut(pages),
            Memory::Piece(piece) => piece.bytes_mut(),
            Memory::Large { mapping, bytes } => &mut mapping[..*bytes],
        }
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuf").field("bytes", &self.capacity()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_zeroed_and_whole_pages() {
        let mut buffer = AlignedBuf::zeroed(PAGE_BYTES + 1);
        assert_eq!(buffer.capacity(), 2 * PAGE_BYTES);
        assert_eq!(buffer.as_ptr() as usize % PAGE_BYTES, 0);
        assert!(buffer.iter().all(|byte| *byte == 0));
        buffer[PAGE_BYTES] = 7;
        assert_eq!(buffer[PAGE_BYTES], 7);
        assert_eq!(AlignedBuf::default().capacity(), 0);
    }

    #[test]
    fn lasting_buffers_are_like_others() {
        // Too small for a large page, less than one, and more than one.
        for bytes in [PAGE_BYTES + 1, LARGE_PAGE_BYTES / 2 + 1, LARGE_PAGE_BYTES + 1] {
            let mut buffer = AlignedBuf::lasting(bytes);
            assert_eq!((buffer.capacity(), buffer.len()), (page_round_up(bytes), page_round_up(bytes)));
            assert_eq!(buffer.as_ptr() as usize % PAGE_BYTES, 0);
            assert_eq!(buffer.is_large(), bytes > LARGE_PAGE_BYTES / 2);
            assert!(buffer.iter().all(|byte| *byte == 0));
            buffer[bytes] = 7;
            assert_eq!(buffer[bytes], 7);
        }
    }
}
