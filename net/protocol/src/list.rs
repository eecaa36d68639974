//! Lists in bodies: entries of (head, key, value), read in place.
//!
//! A [`List`] was walked once when it was decoded, so that iterating over it cannot fail and its
//! count is true. A [`ListBuf`] gathers the entries of a list to be sent, and is reusable.

use std::fmt;
use std::marker::PhantomData;

use crate::error::ProtocolError;
use crate::heads::BodyReader;

/// What a list holds. Implemented by the markers of this crate only.
pub trait ListKind: sealed::Sealed {
    /// An entry, borrowed from the list.
    type Item<'a>: fmt::Debug + PartialEq;

    /// Reads one entry from the front.
    #[doc(hidden)]
    fn read<'a>(from: &mut sealed::Reader<'a>) -> Result<Self::Item<'a>, ProtocolError>;

    /// Appends one entry.
    #[doc(hidden)]
    fn put(item: &Self::Item<'_>, out: &mut Vec<u8>) -> Result<(), ProtocolError>;
}

pub(crate) mod sealed {
    pub trait Sealed {}

    /// Hides the crate's reader from the public trait.
    #[derive(Debug, Clone, Copy)]
    pub struct Reader<'a>(pub(crate) crate::heads::BodyReader<'a>);
}

/// A list in a body that was found to be whole.
pub struct List<'a, K> {
    bytes: &'a [u8],
    count: u32,
    kind: PhantomData<K>,
}

impl<'a, K: ListKind> List<'a, K> {
    /// A list of nothing.
    pub const EMPTY: Self = Self { bytes: &[], count: 0, kind: PhantomData };

    /// Entries.
    pub const fn len(&self) -> u32 {
        self.count
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The entries in order.
    pub fn iter(&self) -> ListIter<'a, K> {
        ListIter { from: sealed::Reader(BodyReader::new(self.bytes)), left: self.count, kind: PhantomData }
    }

    /// The encoded entries.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Walks `count` entries at the front of `body` and takes them. The work is bounded by the
    /// body: no entry is empty.
    pub(crate) fn take(body: &mut BodyReader<'a>, count: u32) -> Result<Self, ProtocolError> {
        let all = body.rest();
        let mut from = sealed::Reader(*body);
        for _ in 0..count {
            K::read(&mut from)?;
        }
        *body = from.0;
        Ok(Self { bytes: &all[..all.len() - body.rest().len()], count, kind: PhantomData })
    }
}

impl<K> Clone for List<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for List<'_, K> {}

impl<K> PartialEq for List<'_, K> {
    fn eq(&self, other: &Self) -> bool {
        (self.count, self.bytes) == (other.count, other.bytes)
    }
}

impl<K: ListKind> fmt::Debug for List<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a, K: ListKind> IntoIterator for &List<'a, K> {
    type Item = K::Item<'a>;
    type IntoIter = ListIter<'a, K>;

    fn into_iter(self) -> ListIter<'a, K> {
        self.iter()
    }
}

/// The entries of a [`List`].
#[derive(Debug, Clone)]
pub struct ListIter<'a, K> {
    from: sealed::Reader<'a>,
    left: u32,
    kind: PhantomData<K>,
}

impl<'a, K: ListKind> Iterator for ListIter<'a, K> {
    type Item = K::Item<'a>;

    fn next(&mut self) -> Option<K::Item<'a>> {
        self.left = self.left.checked_sub(1)?;
        // Every entry was read once when the list was taken or pushed.
        K::read(&mut self.from).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl<K: ListKind> ExactSizeIterator for ListIter<'_, K> {}

/// Entries of a list to be sent, encoded as they are pushed.
pub struct ListBuf<K> {
    bytes: Vec<u8>,
    count: u32,
    kind: PhantomData<K>,
}

impl<K: ListKind> ListBuf<K> {
    /// An empty list.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), count: 0, kind: PhantomData }
    }

    /// An empty list that uses the memory of `buffer`.
    pub fn with_buffer(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self { bytes: buffer, count: 0, kind: PhantomData }
    }

    /// Appends an entry.
    ///
    /// # Errors
    /// [`ProtocolError::TooLarge`] when a key or value does not fit its length field; the list is
    /// unchanged.
    pub fn push(&mut self, item: &K::Item<'_>) -> Result<(), ProtocolError> {
        let count = self.count.checked_add(1).ok_or(ProtocolError::TooLarge {
            what: "list",
            bytes: self.bytes.len() as u64,
            max: u64::from(u32::MAX),
        })?;
        let before = self.bytes.len();
        if let Err(error) = K::put(item, &mut self.bytes) {
            self.bytes.truncate(before);
            return Err(error);
        }
        self.count = count;
        Ok(())
    }

    /// Entries.
    pub const fn len(&self) -> u32 {
        self.count
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the encoded entries.
    pub const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The list.
    pub fn list(&self) -> List<'_, K> {
        List { bytes: &self.bytes, count: self.count, kind: PhantomData }
    }

    /// Removes the entries and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
    }

    /// Gives the memory back.
    pub fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }
}

impl<K: ListKind> Default for ListBuf<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: ListKind> fmt::Debug for ListBuf<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.list().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entries::Keys;

    #[test]
    fn a_list_claims_no_more_than_it_holds() {
        let mut keys = ListBuf::<Keys>::new();
        keys.push(&&b"a"[..]).unwrap();
        keys.push(&&b""[..]).unwrap();
        assert_eq!(keys.list().iter().collect::<Vec<_>>(), [&b"a"[..], b""]);

        let bytes = keys.into_buffer();
        assert!(List::<Keys>::take(&mut BodyReader::new(&bytes), u32::MAX).is_err());
        let mut body = BodyReader::new(&bytes);
        assert_eq!(List::<Keys>::take(&mut body, 1).unwrap().len(), 1);
        assert_eq!(body.rest(), [0, 0]);
    }

    #[test]
    fn an_entry_that_does_not_fit_leaves_the_list_as_it_was() {
        let mut keys = ListBuf::<Keys>::new();
        keys.push(&&b"a"[..]).unwrap();
        assert!(matches!(keys.push(&&vec![0; 65_536][..]), Err(ProtocolError::TooLarge { .. })));
        assert_eq!((keys.len(), keys.bytes()), (1, 3));
    }
}
