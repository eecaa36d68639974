//! What the manifest and a table's own properties say of a table.

use crate::codec::{Decoder, put_position};
use crate::key::OwnedPosition;
use crate::namespaces::TableNamespaces;
use crate::stamp::Stamp;

/// The properties of one table. Immutable like the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableMeta {
    /// File number: names the file, never reused within a shard.
    pub number: u64,
    /// Size of the file in bytes.
    pub file_bytes: u64,
    /// XXH3-64 of the whole file before its footer.
    pub checksum: u64,
    /// First position (with a user key).
    pub first: OwnedPosition,
    /// Last position.
    pub last: OwnedPosition,
    /// Records, tombstones included.
    pub records: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Bytes of keys and values before blocks and compression.
    pub raw_bytes: u64,
    /// Smallest stamp.
    pub stamp_min: Stamp,
    /// Largest stamp.
    pub stamp_max: Stamp,
    /// Smallest stamp of a tombstone; [`Stamp::ZERO`] if there is none.
    pub oldest_tombstone: Stamp,
    /// Smallest expiry of a record that has one, in milliseconds; `u64::MAX` if none has.
    pub expiry_min_ms: u64,
    /// Largest expiry in milliseconds; `u64::MAX` if some value has none, 0 if there are only
    /// tombstones.
    pub expiry_max_ms: u64,
    /// Records that have an expiry.
    pub expiring: u64,
    /// Bytes of blob files referenced. Always 0 until blob files exist.
    pub blob_bytes: u64,
    /// The namespaces of its records.
    pub namespaces: TableNamespaces,
}

impl TableMeta {
    /// Appends the encoded form: the fields in order, little-endian, positions as partition u16,
    /// namespace u32, key length u16, key, and the namespaces as number u16 and that many u32.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.number, self.file_bytes, self.checksum] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        put_position(out, &self.first.borrow());
        put_position(out, &self.last.borrow());
        for number in [self.records, self.tombstones, self.raw_bytes] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for stamp in [self.stamp_min, self.stamp_max, self.oldest_tombstone] {
            out.extend_from_slice(&stamp.to_bytes());
        }
        for number in [self.expiry_min_ms, self.expiry_max_ms, self.expiring, self.blob_bytes] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        self.namespaces.encode(out);
    }

    /// Reads the encoded form.
    pub(crate) fn decode(from: &mut Decoder<'_>) -> Option<Self> {
        Some(Self {
            number: from.u64()?,
            file_bytes: from.u64()?,
            checksum: from.u64()?,
            first: from.position()?,
            last: from.position()?,
            records: from.u64()?,
            tombstones: from.u64()?,
            raw_bytes: from.u64()?,
            stamp_min: from.stamp()?,
            stamp_max: from.stamp()?,
            oldest_tombstone: from.stamp()?,
            expiry_min_ms: from.u64()?,
            expiry_max_ms: from.u64()?,
            expiring: from.u64()?,
            blob_bytes: from.u64()?,
            namespaces: TableNamespaces::decode(from)?,
        })
    }

    /// Whether the ranges of two tables share a position.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}
