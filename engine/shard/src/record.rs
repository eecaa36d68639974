//! Records: what stands under a key.

use crate::stamp::Stamp;

/// What a record is. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// The bytes of a value.
    Value = 1,
    /// The key was deleted.
    Tombstone = 2,
    /// A pointer into a blob file. Reserved: nothing writes it yet.
    BlobPointer = 3,
}

impl RecordKind {
    /// From the stored number.
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Value),
            2 => Some(Self::Tombstone),
            3 => Some(Self::BlobPointer),
            _ => None,
        }
    }
}

/// A record, borrowed from wherever it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// What it is.
    pub kind: RecordKind,
    /// Its version.
    pub stamp: Stamp,
    /// When it stops being visible, in milliseconds since 1970; 0 = never.
    pub expiry_ms: u64,
    /// The value; empty for a tombstone.
    pub value: &'a [u8],
}

impl RecordView<'_> {
    /// Whether a reader whose clock stands at `now_ms` sees a value.
    pub const fn is_visible(&self, now_ms: u64) -> bool {
        matches!(self.kind, RecordKind::Value | RecordKind::BlobPointer) && !self.is_expired(now_ms)
    }

    /// Whether its time is over.
    pub const fn is_expired(&self, now_ms: u64) -> bool {
        self.expiry_ms != 0 && self.expiry_ms <= now_ms
    }

    /// Whether it wins over `other` under the same key: the greater stamp; on a tie the
    /// tombstone, then the greater value bytes, so that all replicas agree.
    pub fn supersedes(&self, other: &RecordView<'_>) -> bool {
        let rank = |record: &RecordView<'_>| (record.stamp, record.kind == RecordKind::Tombstone);
        (rank(self), self.value) > (rank(other), other.value)
    }
}
