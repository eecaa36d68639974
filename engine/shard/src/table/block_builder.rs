//! Fills one data block; the counterpart of `block`, which reads it.

use super::block::{
    COUNTS_BYTES, EXPIRY_BYTES, FLAG_EXPIRY, GROUP_BYTES, Group, LISTED_BYTES, RECORD_HEAD_BYTES, tag_of,
};
use super::format::{BLOCK_HEADER_BYTES, BlockPlace, seal_block};
use crate::key::Position;
use crate::record::RecordView;

/// Bytes a block of one record needs beside the record, header included.
pub(crate) const BLOCK_OVERHEAD_BYTES: usize = BLOCK_HEADER_BYTES + COUNTS_BYTES;

/// What a record adds to a block.
pub(crate) const fn record_bytes(key_bytes: usize, record: &RecordView<'_>, new_group: bool) -> usize {
    let expiry = if record.expiry_ms == 0 { 0 } else { EXPIRY_BYTES };
    let group = if new_group { GROUP_BYTES } else { 0 };
    group + LISTED_BYTES + RECORD_HEAD_BYTES + expiry + key_bytes + record.value.len()
}

/// Collects the records of one block.
#[derive(Debug, Default)]
pub(crate) struct BlockBuilder {
    records: Vec<u8>,
    starts: Vec<usize>,
    tags: Vec<u8>,
    groups: Vec<Group>,
}

impl BlockBuilder {
    pub(crate) fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Records so far.
    pub(crate) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Stored length with header, without padding.
    pub(crate) fn bytes(&self) -> usize {
        BLOCK_OVERHEAD_BYTES
            + self.groups.len() * GROUP_BYTES
            + self.len() * LISTED_BYTES
            + self.records.len()
    }

    /// Whether a record of this place opens a new group.
    pub(crate) fn opens_group(&self, position: &Position<'_>) -> bool {
        self.groups.last().is_none_or(|group| {
            (group.partition, group.namespace) != (position.partition, position.namespace)
        })
    }

    /// Stored length if this record were added.
    pub(crate) fn bytes_with(&self, position: &Position<'_>, record: &RecordView<'_>) -> usize {
        self.bytes() + record_bytes(position.user.len(), record, self.opens_group(position))
    }

    /// Adds a record that sorts behind all others; `hash` is that of its key.
    pub(crate) fn push(&mut self, position: &Position<'_>, hash: u64, record: &RecordView<'_>) {
        if self.opens_group(position) {
            let first = self.len() as u16;
            self.groups.push(Group { first, partition: position.partition, namespace: position.namespace });
        }
        self.starts.push(self.records.len());
        self.tags.push(tag_of(hash));
        self.records.extend_from_slice(&record.stamp.to_bytes());
        self.records.extend_from_slice(&(position.user.len() as u16).to_le_bytes());
        self.records.push(record.kind as u8);
        if record.expiry_ms == 0 {
            self.records.push(0);
        } else {
            self.records.push(FLAG_EXPIRY);
            self.records.extend_from_slice(&record.expiry_ms.to_le_bytes());
        }
        self.records.extend_from_slice(position.user);
        self.records.extend_from_slice(record.value);
    }

    /// Replaces `out` with the sealed block, without padding, and becomes empty.
    pub(crate) fn seal_into(&mut self, place: &BlockPlace, out: &mut Vec<u8>) {
        out.clear();
        out.reserve(self.bytes());
        out.resize(BLOCK_HEADER_BYTES, 0);
        out.extend_from_slice(&(self.len() as u16).to_le_bytes());
        out.extend_from_slice(&(self.groups.len() as u16).to_le_bytes());
        for group in &self.groups {
            out.extend_from_slice(&group.first.to_le_bytes());
            out.extend_from_slice(&group.partition.0.to_le_bytes());
            out.extend_from_slice(&group.namespace.0.to_le_bytes());
        }
        let records = COUNTS_BYTES + self.groups.len() * GROUP_BYTES + self.len() * LISTED_BYTES;
        for start in &self.starts {
            let slot = u16::try_from(records + start).expect("only a block of one record exceeds its unit");
            out.extend_from_slice(&slot.to_le_bytes());
        }
        out.extend_from_slice(&self.tags);
        out.extend_from_slice(&self.records);
        seal_block(out, place);
        self.records.clear();
        self.starts.clear();
        self.tags.clear();
        self.groups.clear();
    }
}
