//! Writes of many records at once: what a slot holds of them.
//!
//! A batch is one operation: it is sent, answered, timed and counted as a whole.

use crate::load::Random;
use crate::workload::Workload;

/// A record to write.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// The records of one write; kept for its memory when it has ended.
#[derive(Debug, Default)]
pub(super) struct Batch {
    numbers: Vec<u64>,
    records: Vec<Record>,
}

impl Batch {
    /// Makes records of these numbers, all of their values new.
    pub(super) fn fill(
        &mut self,
        workload: &Workload,
        random: &mut Random,
        numbers: impl Iterator<Item = u64>,
    ) {
        self.numbers.clear();
        self.numbers.extend(numbers);
        self.records.resize_with(self.numbers.len(), Record::default);
        for (number, Record { key, value }) in self.numbers.iter().zip(&mut self.records) {
            key.clear();
            value.clear();
            workload.key.append(*number, key);
            workload.value.append_new(random, None, value);
        }
    }

    pub(super) fn numbers(&self) -> &[u64] {
        &self.numbers
    }

    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }
}
