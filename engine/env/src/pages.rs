//! Buffers of few pages out of one mapping.
//!
//! Single pages on page borders are what a general allocator is worst at: glibc's takes two for each, and
//! changes the address space of the whole process for it, which waits for whatever another thread does
//! there. A [`PagePool`] maps once, touches nothing before it is used, and takes pages back.
#![expect(unsafe_code, reason = "several buffers lie in one mapping")]

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::slice;

use memmap2::{MmapOptions, MmapRaw};

use crate::buffer::{AlignedBuf, PAGE_BYTES};

/// The largest buffer of a pool, in pages.
const PIECE_PAGES_MAX: usize = 16;

/// A place for buffers of up to 64 KiB, of one core. Buffers may outlive it; their memory comes back to it when
/// they are dropped.
pub struct PagePool {
    /// `None`: the system has no address space left.
    whole: Option<Rc<Whole>>,
}

impl PagePool {
    /// A pool of as many bytes, rounded up to whole pages; none of them is touched yet.
    pub fn new(bytes: usize) -> Self {
        let pages = bytes.div_ceil(PAGE_BYTES).clamp(1, u32::MAX as usize);
        let mapping = MmapOptions::new().len(pages * PAGE_BYTES).no_reserve_swap().map_anon();
        let whole = mapping.ok().map(|mapping| {
            let free = Free { untouched: 0, end: pages as u32, pieces: Default::default() };
            Rc::new(Whole { mapping: mapping.into(), free: RefCell::new(free) })
        });
        Self { whole }
    }

    /// A buffer of at least `bytes` bytes, rounded up to whole pages; its content is undefined. It comes from
    /// the allocator if it is too large for the pool, or the pool has no room for it.
    pub fn take(&self, bytes: usize) -> AlignedBuf {
        let pages = bytes.div_ceil(PAGE_BYTES);
        let whole = self.whole.as_ref().filter(|_| (1..=PIECE_PAGES_MAX).contains(&pages));
        let piece = whole.and_then(|whole| {
            let page = whole.free.borrow_mut().take(pages)?;
            Some(Piece { whole: Rc::clone(whole), page, pages: pages as u32 })
        });
        piece.map_or_else(|| AlignedBuf::zeroed(bytes), AlignedBuf::of_piece)
    }
}

impl fmt::Debug for PagePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pages = self.whole.as_ref().map_or(0, |whole| whole.free.borrow().end);
        f.debug_struct("PagePool").field("pages", &pages).finish_non_exhaustive()
    }
}

/// The mapping, and which of its pages are nobody's.
struct Whole {
    mapping: MmapRaw,
    free: RefCell<Free>,
}

struct Free {
    /// This page and all behind it have never been taken.
    untouched: u32,
    end: u32,
    /// First pages of what came back, by the number of pages.
    pieces: [Vec<u32>; PIECE_PAGES_MAX + 1],
}

impl Free {
    /// The first of so many pages, which are nobody's any more.
    fn take(&mut self, pages: usize) -> Option<u32> {
        if let Some(page) = self.pieces[pages].pop() {
            return Some(page);
        }
        if (self.end - self.untouched) as usize >= pages {
            let page = self.untouched;
            self.untouched += pages as u32;
            return Some(page);
        }
        let larger = (pages + 1..=PIECE_PAGES_MAX).find(|larger| !self.pieces[*larger].is_empty())?;
        let page = self.pieces[larger].pop()?;
        self.pieces[larger - pages].push(page + pages as u32);
        Some(page)
    }
}

/// Some pages of a pool, as a buffer of their own.
pub(crate) struct Piece {
    whole: Rc<Whole>,
    page: u32,
    pages: u32,
}

impl Piece {
    pub(crate) const fn len(&self) -> usize {
        self.pages as usize * PAGE_BYTES
    }

    const fn offset(&self) -> usize {
        self.page as usize * PAGE_BYTES
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `Free::take` gave these pages, which lie in the mapping, and gives them to nobody else
        // before `Piece::drop` puts them back; `whole` keeps the mapping, which nothing else refers to. An
        // anonymous mapping is initialized.
        unsafe { slice::from_raw_parts(self.whole.mapping.as_ptr().add(self.offset()), self.len()) }
    }

    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `Piece::bytes`, and this is the only reference to the only owner of these pages.
        unsafe { slice::from_raw_parts_mut(self.whole.mapping.as_mut_ptr().add(self.offset()), self.len()) }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.whole.free.borrow_mut().pieces[self.pages as usize].push(self.page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_have_pages_of_their_own() {
        let pool = PagePool::new(7 * PAGE_BYTES);
        let mut buffers: Vec<_> = [1, 2, 3].map(|pages| pool.take(pages * PAGE_BYTES)).into();
        for (number, buffer) in buffers.iter_mut().enumerate() {
            assert_eq!((buffer.len(), buffer.as_ptr() as usize % PAGE_BYTES), ((number + 1) * PAGE_BYTES, 0));
            assert!(buffer.iter().all(|byte| *byte == 0));
            buffer.fill(number as u8 + 1);
        }
        for (number, buffer) in buffers.iter().enumerate() {
            assert!(buffer.iter().all(|byte| *byte == number as u8 + 1));
        }
    }

    #[test]
    fn pages_come_back_whole_or_in_parts() {
        let pool = PagePool::new(4 * PAGE_BYTES);
        let (large, small) = (pool.take(3 * PAGE_BYTES), pool.take(1));
        let (at_large, at_small) = (large.as_ptr(), small.as_ptr());
        drop((large, small));
        let again = pool.take(3 * PAGE_BYTES);
        assert_eq!(again.as_ptr(), at_large);
        drop(again);
        assert_eq!(pool.take(PAGE_BYTES).as_ptr(), at_small);
        let parts = [pool.take(PAGE_BYTES), pool.take(2 * PAGE_BYTES), pool.take(PAGE_BYTES)];
        let mut places = parts.each_ref().map(|part| part.as_ptr().addr());
        places.sort_unstable();
        let first = at_large.addr();
        assert_eq!(places, [0, 2, 3].map(|page| first + page * PAGE_BYTES));
    }

    #[test]
    fn what_does_not_fit_comes_from_elsewhere() {
        let pool = PagePool::new(PAGE_BYTES);
        let held = pool.take(PAGE_BYTES);
        for bytes in [0, 1, 17 * PAGE_BYTES] {
            let mut buffer = pool.take(bytes);
            assert_eq!(buffer.len(), bytes.next_multiple_of(PAGE_BYTES));
            buffer.fill(1);
        }
        assert!(held.iter().all(|byte| *byte == 0));
        drop(pool);
        assert_eq!(held[PAGE_BYTES - 1], 0);
    }
}
