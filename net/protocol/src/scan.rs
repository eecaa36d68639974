//! Scans: what is asked, a page of the answer, and the cursor between two pages.
//!
//! A cursor is the server's position, sealed with a checksum that also covers which scan of which
//! node it belongs to: a damaged, forged or foreign cursor is `BAD_CURSOR`, never a wrong page.

use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use crate::entries::Records;
use crate::error::ProtocolError;
use crate::heads::{BodyReader, Head, ScanHead, ScanReplyHead, flags_within, length, reserved_is_zero};
use crate::list::List;

/// The longest cursor, in bytes: a longest key, a position around it and the seal.
pub const CURSOR_BYTES_MAX: usize = 4_200;

const SEAL_BYTES: usize = 8;
const FLAG_KEYS_ONLY: u8 = 1;
const NO_SHARD: u16 = 0xFFFF;

/// Which records a scan visits, and in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanKind<'a> {
    /// The keys whose tag is this (bare, without braces), in key order: they share a partition.
    /// With a prefix of `{tag}` it is one short range; without, the partition is searched.
    Tag(&'a [u8]),
    /// The whole namespace in placement order (partition, then key), from any core; with a start,
    /// what lies at the place of that key and after it, whether or not there is such a record. Takes
    /// no other bounds. Every record that lives through the scan comes exactly once.
    Placement,
    /// The keys of one shard of the node that was asked, in key order; the client merges shards.
    Ordered {
        /// Which shard.
        shard: u16,
    },
}

/// The order of a scan within its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// Ascending.
    #[default]
    Forward,
    /// Descending.
    Reverse,
}

/// SCAN: one page of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan<'a> {
    /// In which namespace.
    pub namespace: u32,
    /// Which records.
    pub kind: ScanKind<'a>,
    /// In which direction.
    pub direction: Direction,
    /// Records of this page at most; 0 = as the server likes.
    pub limit: u32,
    /// Bytes of this page's records at most, but always one record; 0 = as the server likes.
    pub bytes_max: u32,
    /// Leave out the values.
    pub keys_only: bool,
    /// The first key of the range, inclusive, in the order of the scan's kind; empty = from the
    /// first. The same for both directions.
    pub start: &'a [u8],
    /// The end of the range, exclusive; empty = to the last.
    pub end: &'a [u8],
    /// Only keys that start with this.
    pub prefix: &'a [u8],
    /// Empty for the first page, then the cursor of the page before, all else being equal
    /// (`limit`, `bytes_max` and `keys_only` may change).
    pub cursor: &'a [u8],
}

impl Scan<'_> {
    /// Appends the cursor for `position` of this scan to `out`. `node` is what binds it to the
    /// data it was made from, such as a hash of the database's identity and partition count.
    ///
    /// # Errors
    /// [`ProtocolError::TooLarge`] over [`CURSOR_BYTES_MAX`].
    pub fn seal_cursor(&self, node: u64, position: &[u8], out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        length::<u16>("cursor", position, CURSOR_BYTES_MAX - SEAL_BYTES)?;
        out.extend_from_slice(&xxh3_64_with_seed(position, self.binding(node)).to_le_bytes());
        out.extend_from_slice(position);
        Ok(())
    }

    /// The position in this request's cursor; `None` = the scan begins.
    ///
    /// # Errors
    /// [`ProtocolError::BadCursor`] when it was not sealed for this scan and node.
    pub fn open_cursor(&self, node: u64) -> Result<Option<&[u8]>, ProtocolError> {
        if self.cursor.is_empty() {
            return Ok(None);
        }
        let (seal, position) =
            self.cursor.split_first_chunk::<SEAL_BYTES>().ok_or(ProtocolError::BadCursor)?;
        if u64::from_le_bytes(*seal) == xxh3_64_with_seed(position, self.binding(node)) {
            Ok(Some(position))
        } else {
            Err(ProtocolError::BadCursor)
        }
    }

    /// A hash of everything that a cursor depends on.
    fn binding(&self, node: u64) -> u64 {
        let (kind, shard, tag) = self.kind.to_wire();
        let mut hash = Xxh3::with_seed(node);
        hash.update(&self.namespace.to_le_bytes());
        hash.update(&shard.to_le_bytes());
        hash.update(&[kind, self.direction.to_u8()]);
        for bytes in [tag, self.start, self.end, self.prefix] {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        hash.digest()
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        self.check()?;
        let (kind, shard, tag) = self.kind.to_wire();
        let key_length = |what, bytes| length::<u16>(what, bytes, usize::from(u16::MAX));
        ScanHead {
            namespace: self.namespace.into(),
            limit: self.limit.into(),
            bytes_max: self.bytes_max.into(),
            shard: shard.into(),
            kind,
            direction: self.direction.to_u8(),
            flags: if self.keys_only { FLAG_KEYS_ONLY } else { 0 },
            reserved: [0; 1],
            tag_len: key_length("tag", tag)?.into(),
            start_len: key_length("start", self.start)?.into(),
            end_len: key_length("end", self.end)?.into(),
            prefix_len: key_length("prefix", self.prefix)?.into(),
            cursor_len: length::<u16>("cursor", self.cursor, CURSOR_BYTES_MAX)?.into(),
            reserved_too: [0; 4],
        }
        .put(out);
        for bytes in [tag, self.start, self.end, self.prefix, self.cursor] {
            out.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// What a kind does not take must be left out.
    fn check(&self) -> Result<(), ProtocolError> {
        let bounded = !(self.end.is_empty() && self.prefix.is_empty());
        match self.kind {
            ScanKind::Placement if bounded => {
                Err(ProtocolError::BadBody("a placement scan takes a start, but no end and no prefix"))
            }
            ScanKind::Tag([]) => Err(ProtocolError::BadBody("a tag scan without a tag")),
            ScanKind::Ordered { shard: NO_SHARD } => {
                Err(ProtocolError::BadBody("an ordered scan without a shard"))
            }
            _ => Ok(()),
        }
    }
}

impl<'a> Scan<'a> {
    pub(crate) fn take(body: &mut BodyReader<'a>) -> Result<Self, ProtocolError> {
        let head = body.head::<ScanHead>()?;
        reserved_is_zero(&head.reserved)?;
        reserved_is_zero(&head.reserved_too)?;
        flags_within(head.flags, FLAG_KEYS_ONLY)?;
        let tag = body.short(head.tag_len)?;
        let start = body.short(head.start_len)?;
        let end = body.short(head.end_len)?;
        let prefix = body.short(head.prefix_len)?;
        let cursor = body.short(head.cursor_len)?;
        if cursor.len() > CURSOR_BYTES_MAX {
            return Err(ProtocolError::BadCursor);
        }
        let scan = Self {
            namespace: head.namespace.to_native(),
            kind: ScanKind::from_wire(head.kind, head.shard.to_native(), tag)?,
            direction: Direction::from_u8(head.direction)?,
            limit: head.limit.to_native(),
            bytes_max: head.bytes_max.to_native(),
            keys_only: head.flags & FLAG_KEYS_ONLY != 0,
            start,
            end,
            prefix,
            cursor,
        };
        scan.check()?;
        Ok(scan)
    }
}

impl<'a> ScanKind<'a> {
    /// Kind, shard and tag as the head has them.
    const fn to_wire(self) -> (u8, u16, &'a [u8]) {
        match self {
            Self::Tag(tag) => (1, NO_SHARD, tag),
            Self::Placement => (2, NO_SHARD, &[]),
            Self::Ordered { shard } => (3, shard, &[]),
        }
    }

    const fn from_wire(kind: u8, shard: u16, tag: &'a [u8]) -> Result<Self, ProtocolError> {
        match (kind, shard, tag) {
            (1, NO_SHARD, tag) => Ok(Self::Tag(tag)),
            (2, NO_SHARD, []) => Ok(Self::Placement),
            (3, shard, []) => Ok(Self::Ordered { shard }),
            (1..=3, _, _) => Err(ProtocolError::BadBody("tag or shard does not fit the kind of scan")),
            _ => Err(ProtocolError::Unsupported("kind of scan")),
        }
    }
}

impl Direction {
    const fn to_u8(self) -> u8 {
        match self {
            Self::Forward => 0,
            Self::Reverse => 1,
        }
    }

    const fn from_u8(number: u8) -> Result<Self, ProtocolError> {
        match number {
            0 => Ok(Self::Forward),
            1 => Ok(Self::Reverse),
            _ => Err(ProtocolError::Unsupported("direction")),
        }
    }
}

/// Answer to SCAN: a page. A page may be empty before the scan is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScanReply<'a> {
    /// Nothing follows; the cursor is empty.
    pub done: bool,
    /// The largest hybrid time that the server has seen.
    pub stamp_seen: u64,
    /// The records in the order of the scan.
    pub records: List<'a, Records>,
    /// For the request of the next page.
    pub cursor: &'a [u8],
}

impl<'a> ScanReply<'a> {
    pub(crate) fn put(&self, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        ScanReplyHead {
            done: u8::from(self.done),
            reserved: [0; 1],
            cursor_len: length::<u16>("cursor", self.cursor, CURSOR_BYTES_MAX)?.into(),
            count: self.records.len().into(),
            stamp_seen: self.stamp_seen.into(),
        }
        .put(out);
        out.extend_from_slice(self.records.as_bytes());
        out.extend_from_slice(self.cursor);
        Ok(())
    }

    pub(crate) fn take(body: &mut BodyReader<'a>) -> Result<Self, ProtocolError> {
        let head = body.head::<ScanReplyHead>()?;
        Ok(Self {
            done: head.done != 0,
            stamp_seen: head.stamp_seen.to_native(),
            records: List::take(body, head.count.to_native())?,
            cursor: body.short(head.cursor_len)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan<'a>() -> Scan<'a> {
        Scan {
            namespace: 3,
            kind: ScanKind::Ordered { shard: 1 },
            direction: Direction::Forward,
            limit: 10,
            bytes_max: 0,
            keys_only: false,
            start: b"a",
            end: b"z",
            prefix: b"",
            cursor: b"",
        }
    }

    #[test]
    fn a_cursor_opens_only_where_it_was_sealed() {
        let mut cursor = Vec::new();
        scan().seal_cursor(7, b"position", &mut cursor).unwrap();
        let again = Scan { cursor: &cursor, limit: 1, keys_only: true, ..scan() };
        assert_eq!(again.open_cursor(7), Ok(Some(&b"position"[..])));
        assert_eq!(scan().open_cursor(7), Ok(None));

        let others = [
            Scan { namespace: 4, ..again },
            Scan { kind: ScanKind::Ordered { shard: 2 }, ..again },
            Scan { direction: Direction::Reverse, ..again },
            Scan { start: b"az", end: b"", ..again },
            Scan { prefix: b"a", ..again },
            Scan { cursor: &cursor[..7], ..again },
            Scan { cursor: &cursor[..12], ..again },
        ];
        for other in others {
            assert_eq!(other.open_cursor(7), Err(ProtocolError::BadCursor));
        }
        assert_eq!(again.open_cursor(8), Err(ProtocolError::BadCursor));
        for at in 0..cursor.len() {
            let mut damaged = cursor.clone();
            damaged[at] ^= 1;
            assert_eq!(Scan { cursor: &damaged, ..again }.open_cursor(7), Err(ProtocolError::BadCursor));
        }
    }

    #[test]
    fn a_cursor_has_a_limit() {
        let mut cursor = Vec::new();
        assert!(scan().seal_cursor(7, &[0; CURSOR_BYTES_MAX - 8], &mut cursor).is_ok());
        assert_eq!(cursor.len(), CURSOR_BYTES_MAX);
        assert!(scan().seal_cursor(7, &[0; CURSOR_BYTES_MAX - 7], &mut cursor).is_err());
        assert_eq!(cursor.len(), CURSOR_BYTES_MAX);
    }

    #[test]
    fn a_scan_says_only_what_its_kind_takes() {
        let mut out = Vec::new();
        let placement = Scan { kind: ScanKind::Placement, ..scan() };
        assert!(placement.put(&mut out).is_err());
        assert!(Scan { end: b"", prefix: b"a", ..placement }.put(&mut out).is_err());
        assert!(Scan { end: b"", ..placement }.put(&mut out).is_ok());
        assert!(Scan { kind: ScanKind::Tag(b""), ..scan() }.put(&mut out).is_err());
        assert!(Scan { kind: ScanKind::Ordered { shard: NO_SHARD }, ..scan() }.put(&mut out).is_err());
        assert!(Scan { kind: ScanKind::Tag(b"t"), ..scan() }.put(&mut out).is_ok());
    }
}
