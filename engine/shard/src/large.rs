//! Arrays that are read at random, made ready off the core in large pages.
//!
//! With pages of 4 KiB nearly every access to an array of many megabytes is also a miss in the
//! processor's table of pages. But clearing one large page takes a core longer than it may be held,
//! so an array that had to be made on the spot comes in small ones.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::Pod;
use memmap2::MmapMut;
use pinion_env::{LARGE_PAGE_BYTES, PAGE_BYTES, touch};

/// The least array worth a large page.
pub(crate) const LARGE_BYTES_MIN: usize = LARGE_PAGE_BYTES;

/// An array of zeros at first, of a fixed length. Its memory comes straight from the system, in
/// whole pages, untouched.
pub(crate) struct LargeArray<T> {
    /// None without elements.
    memory: Option<MmapMut>,
    elements: PhantomData<T>,
}

impl<T: Pod> LargeArray<T> {
    /// At least `length` elements: as many as fit the pages they take.
    ///
    /// # Panics
    /// When the system has no memory left, as any other allocation.
    pub(crate) fn zeroed(length: usize) -> Self {
        const { assert!(PAGE_BYTES.is_multiple_of(size_of::<T>())) };
        let bytes = (length * size_of::<T>()).next_multiple_of(PAGE_BYTES);
        if bytes == 0 {
            return Self::default();
        }
        let memory =
            MmapMut::map_anon(bytes).unwrap_or_else(|error| panic!("no memory for {bytes} bytes: {error}"));
        Self { memory: Some(memory), elements: PhantomData }
    }

    /// As [`LargeArray::zeroed`], with all of its memory touched, in large pages if possible: takes
    /// milliseconds if it is large, so not for a core's own thread.
    pub(crate) fn touched(length: usize) -> Self {
        let array = Self::zeroed(length);
        if let Some(memory) = &array.memory {
            touch(memory, memory.len());
        }
        array
    }
}

impl<T> Default for LargeArray<T> {
    fn default() -> Self {
        Self { memory: None, elements: PhantomData }
    }
}

impl<T: Pod> Deref for LargeArray<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        self.memory.as_ref().map_or(&[], |memory| bytemuck::cast_slice(memory))
    }
}

impl<T: Pod> DerefMut for LargeArray<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        self.memory.as_mut().map_or(&mut [], |memory| bytemuck::cast_slice_mut(memory))
    }
}

impl<T> fmt::Debug for LargeArray<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.memory.as_ref().map_or(0, |memory| memory.len());
        f.debug_struct("LargeArray").field("bytes", &bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_fills_its_pages_with_zeros() {
        let mut array = LargeArray::<u64>::touched(513);
        assert_eq!((array.len(), array.iter().sum::<u64>()), (1024, 0));
        array[1023] = 7;
        assert_eq!(array.last(), Some(&7));
        assert!(LargeArray::<u64>::zeroed(0).is_empty() && LargeArray::<u64>::default().is_empty());
        assert_eq!(LargeArray::<[u32; 16]>::zeroed(LARGE_BYTES_MIN / 64).len(), LARGE_BYTES_MIN / 64);
    }
}
