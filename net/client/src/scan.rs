//! What to scan and what a scan yields.

use std::ops::{Bound, RangeBounds};
use std::time::SystemTime;

use bytes::Bytes;

use crate::Version;
use crate::error::{Error, Result};

/// Which records a scan yields, and in which order.
///
/// There are three kinds, and they cost differently:
/// - [`ScanRange::all`] and [`ScanRange::all_from`]: a whole namespace in placement order (which looks
///   random), or what follows the place of a key in it. The cheapest way to see everything; every record
///   that lives through the scan is seen exactly once.
/// - [`ScanRange::prefix`] and [`ScanRange::range`]: key order. Every shard yields its part in
///   order and the client merges them, one page of each in memory.
/// - [`ScanRange::tag`]: the keys that share a `{tag}`, in key order, from the one core that has them.
///
/// A page is consistent within its core; a scan of several pages is not a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanRange {
    pub(crate) kind: Kind,
    pub(crate) start: Bytes,
    pub(crate) end: Bytes,
    pub(crate) prefix: Bytes,
    pub(crate) reverse: bool,
    pub(crate) keys_only: bool,
    pub(crate) limit: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// From the place of this key on; empty = from the first.
    Placement(Bytes),
    Ordered,
    Tag(Bytes),
}

impl ScanRange {
    /// A whole namespace in placement order.
    pub fn all() -> Self {
        Self::of_kind(Kind::Placement(Bytes::new()))
    }

    /// What a namespace holds from the place of `key` on, in placement order: the keys of its partition
    /// that are not less, then those of the partitions behind. There need be no record of that key. A
    /// [reversed](ScanRange::reverse) scan ends at that place.
    pub fn all_from(key: impl AsRef<[u8]>) -> Self {
        Self::of_kind(Kind::Placement(Bytes::copy_from_slice(key.as_ref())))
    }

    /// The keys that start with `prefix`, in key order. An empty prefix: every key.
    pub fn prefix(prefix: impl AsRef<[u8]>) -> Self {
        Self { prefix: Bytes::copy_from_slice(prefix.as_ref()), ..Self::of_kind(Kind::Ordered) }
    }

    /// The keys within a range, in key order: `"a".."b"`, `"a"..`, `..="z"`.
    pub fn range<K: AsRef<[u8]>>(range: impl RangeBounds<K>) -> Self {
        Self::of_kind(Kind::Ordered).within(range)
    }

    /// The keys that carry `{tag}`, in key order. `tag` is what stands between the braces.
    pub fn tag(tag: impl AsRef<[u8]>) -> Self {
        Self::of_kind(Kind::Tag(Bytes::copy_from_slice(tag.as_ref())))
    }

    /// Yields only keys within a range as well. Not for [`ScanRange::all`] and
    /// [`ScanRange::all_from`], which have no key order.
    pub fn within<K: AsRef<[u8]>>(mut self, range: impl RangeBounds<K>) -> Self {
        self.start = match range.start_bound() {
            Bound::Unbounded => Bytes::new(),
            Bound::Included(key) => Bytes::copy_from_slice(key.as_ref()),
            Bound::Excluded(key) => successor(key.as_ref()),
        };
        self.end = match range.end_bound() {
            Bound::Unbounded => Bytes::new(),
            Bound::Excluded(key) => Bytes::copy_from_slice(key.as_ref()),
            Bound::Included(key) => successor(key.as_ref()),
        };
        self
    }

    /// Yields the records in the opposite order.
    pub fn reverse(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// Yields keys and versions without values.
    pub fn keys_only(mut self) -> Self {
        self.keys_only = true;
        self
    }

    /// Ends after this many records.
    pub fn limit(mut self, records: u64) -> Self {
        self.limit = Some(records);
        self
    }

    /// Refuses what no server answers.
    pub(crate) fn check(&self) -> Result<()> {
        let bounded = !(self.start.is_empty() && self.end.is_empty());
        match &self.kind {
            Kind::Placement(_) if bounded => Err(Error::Invalid(
                "a scan in placement order takes no range; scan a range in key order".into(),
            )),
            Kind::Tag(tag) if tag.is_empty() => Err(Error::Invalid("a tag has at least one byte".into())),
            _ => Ok(()),
        }
    }

    fn of_kind(kind: Kind) -> Self {
        Self {
            kind,
            start: Bytes::new(),
            end: Bytes::new(),
            prefix: Bytes::new(),
            reverse: false,
            keys_only: false,
            limit: None,
        }
    }
}

/// The least key greater than `key`.
fn successor(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// A record that a scan yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanRecord {
    /// The key.
    pub key: Bytes,
    /// The value; empty in a scan of keys only.
    pub value: Bytes,
    /// Its version.
    pub version: Version,
    /// When it expires, by the server's clock; `None` = never.
    pub expiry: Option<SystemTime>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_turned_into_a_start_and_an_end() {
        let range = ScanRange::range("a".."c");
        assert_eq!((range.start.as_ref(), range.end.as_ref()), (&b"a"[..], &b"c"[..]));
        let range = ScanRange::range(..="c");
        assert_eq!((range.start.as_ref(), range.end.as_ref()), (&b""[..], &b"c\0"[..]));
        let range = ScanRange::tag("user").within::<&str>((Bound::Excluded("k"), Bound::Unbounded));
        assert_eq!((range.start.as_ref(), range.end.as_ref()), (&b"k\0"[..], &b""[..]));
    }
}
