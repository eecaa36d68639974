//! Counts the properties of a table, record by record. Writer and verifier share it, so that what
//! was promised and what is found are computed alike.

use super::meta::TableMeta;
use crate::key::{OwnedPosition, Position};
use crate::namespaces::TableNamespaces;
use crate::record::{RecordKind, RecordView};
use crate::stamp::{HybridTime, Origin, Stamp};

/// Greater than every stamp that is issued.
const STAMP_MAX: Stamp = Stamp { time: HybridTime(u64::MAX), origin: Origin(u32::MAX) };

/// Properties so far.
#[derive(Debug)]
pub(crate) struct Tally {
    first: OwnedPosition,
    last: OwnedPosition,
    records: u64,
    tombstones: u64,
    raw_bytes: u64,
    stamp_min: Stamp,
    stamp_max: Stamp,
    oldest_tombstone: Stamp,
    expiry_min_ms: u64,
    expiry_max_ms: u64,
    expiring: u64,
    namespaces: TableNamespaces,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            first: OwnedPosition::default(),
            last: OwnedPosition::default(),
            records: 0,
            tombstones: 0,
            raw_bytes: 0,
            stamp_min: STAMP_MAX,
            stamp_max: Stamp::ZERO,
            oldest_tombstone: STAMP_MAX,
            expiry_min_ms: u64::MAX,
            expiry_max_ms: 0,
            expiring: 0,
            namespaces: TableNamespaces::default(),
        }
    }
}

impl Tally {
    /// Counts the next record.
    pub(crate) fn add(&mut self, position: &Position<'_>, record: &RecordView<'_>) {
        if self.records == 0 {
            self.first = position.to_owned();
        }
        // A run of records of one namespace is looked at once.
        if self.records == 0 || self.last.namespace != position.namespace {
            self.namespaces.insert(position.namespace);
        }
        self.last.copy_from(position);
        self.records += 1;
        self.raw_bytes += (position.user.len() + record.value.len()) as u64;
        self.stamp_min = self.stamp_min.min(record.stamp);
        self.stamp_max = self.stamp_max.max(record.stamp);
        if record.kind == RecordKind::Tombstone {
            self.tombstones += 1;
            self.oldest_tombstone = self.oldest_tombstone.min(record.stamp);
        }
        if record.expiry_ms == 0 {
            // Tombstones have no say: they end with their stamps.
            if record.kind != RecordKind::Tombstone {
                self.expiry_max_ms = u64::MAX;
            }
        } else {
            self.expiring += 1;
            self.expiry_min_ms = self.expiry_min_ms.min(record.expiry_ms);
            self.expiry_max_ms = self.expiry_max_ms.max(record.expiry_ms);
        }
    }

    /// Records so far.
    pub(crate) const fn records(&self) -> u64 {
        self.records
    }

    /// The last position.
    pub(crate) fn last(&self) -> Option<Position<'_>> {
        (self.records > 0).then(|| self.last.borrow())
    }

    /// The properties of a table with these records.
    pub(crate) fn into_meta(self, number: u64, file_bytes: u64, checksum: u64) -> TableMeta {
        TableMeta {
            number,
            file_bytes,
            checksum,
            first: self.first,
            last: self.last,
            records: self.records,
            tombstones: self.tombstones,
            raw_bytes: self.raw_bytes,
            stamp_min: self.stamp_min,
            stamp_max: self.stamp_max,
            oldest_tombstone: if self.tombstones == 0 { Stamp::ZERO } else { self.oldest_tombstone },
            expiry_min_ms: self.expiry_min_ms,
            expiry_max_ms: self.expiry_max_ms,
            expiring: self.expiring,
            blob_bytes: 0,
            namespaces: self.namespaces,
        }
    }
}
