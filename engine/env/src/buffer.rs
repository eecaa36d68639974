//! Page-aligned buffers for direct I/O.

use std::fmt;
use std::ops::{Deref, DerefMut};

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

/// A heap buffer that starts on a page border and is a whole number of pages long. Dereferences
/// to all its bytes.
pub struct AlignedBuf {
    pages: Box<[Page]>,
}

impl AlignedBuf {
    /// A zeroed buffer of at least `bytes` bytes, rounded up to whole pages.
    pub fn zeroed(bytes: usize) -> Self {
        Self { pages: bytemuck::allocation::zeroed_slice_box(bytes.div_ceil(PAGE_BYTES)) }
    }

    /// Length in bytes: a multiple of [`PAGE_BYTES`].
    pub fn capacity(&self) -> usize {
        self.pages.len() * PAGE_BYTES
    }
}

impl Default for AlignedBuf {
    /// An empty buffer; allocates nothing.
    fn default() -> Self {
        Self { pages: Box::default() }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.pages)
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.pages)
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
}
