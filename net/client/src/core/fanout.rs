//! Requests for many keys: cut into one part per core, and the answers put back in order.
//!
//! A part goes to the core that owns its keys, so nothing is forwarded inside the server. The cut
//! keeps every key's operations in order and every partition whole, so what is atomic stays so.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use pinion_protocol::ProposedStamp;

use super::map::{Limits, ServerMap};
use super::operation::{Operation, Reply, Route};
use crate::batch::{BatchOperation, BatchResults, WriteBatch};
use crate::error::{Error, Outcome, Result};
use crate::record::Entry;

/// The most keys that one request for many keys carries.
const KEYS_PER_REQUEST_MAX: usize = 1024;

/// A read of many keys under way.
#[derive(Debug)]
pub(crate) struct ManyReads {
    keys: Vec<Bytes>,
    entries: Vec<Option<Entry>>,
    /// Positions that have no answer yet and are not being asked for.
    open: Vec<usize>,
}

/// One request of a read of many keys.
#[derive(Debug)]
pub(crate) struct ReadPart {
    positions: Vec<usize>,
    pub(crate) operation: Operation,
}

impl ManyReads {
    /// Refuses keys that the server would refuse.
    pub(crate) fn new(keys: Vec<Bytes>, limits: &Limits) -> Result<Self> {
        keys.iter().try_for_each(|key| limits.check_key(key))?;
        let (open, entries) = ((0..keys.len()).collect(), vec![None; keys.len()]);
        Ok(Self { keys, entries, open })
    }

    /// The requests to send now, one for each core; empty when every key has its answer.
    pub(crate) fn parts(&mut self, map: &ServerMap) -> Vec<ReadPart> {
        let per_request = KEYS_PER_REQUEST_MAX.min(map.limits.batch_operations_max).max(1);
        let mut by_core: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        for position in self.open.drain(..) {
            by_core.entry(map.core_of(&self.keys[position])).or_default().push(position);
        }
        let mut parts = Vec::new();
        for (core, positions) in by_core {
            let (now, later) = positions.split_at(positions.len().min(per_request));
            let keys: Arc<[Bytes]> = now.iter().map(|position| self.keys[*position].clone()).collect();
            let operation = Operation::GetMany { namespace: 0, keys, route: Route::Core(core) };
            parts.push(ReadPart { positions: now.to_vec(), operation });
            self.open.extend_from_slice(later);
        }
        parts
    }

    /// Takes the answer of a part. Keys whose values did not fit it are asked for again.
    pub(crate) fn received(&mut self, positions: &[usize], reply: Reply) -> Result<()> {
        let Reply::Entries(entries) = reply else { return Err(reply.unexpected()) };
        if entries.len() != positions.len() || (entries.iter().all(Option::is_none) && !positions.is_empty())
        {
            return Err(Error::Protocol {
                outcome: Outcome::NotApplied,
                message: "the answer does not fit the keys that were asked for".into(),
            });
        }
        for (position, entry) in positions.iter().zip(entries) {
            match entry {
                Some(entry) => self.entries[*position] = entry,
                None => self.open.push(*position),
            }
        }
        Ok(())
    }

    /// The answers in the order of the keys.
    pub(crate) fn finish(self) -> Vec<Option<Entry>> {
        self.entries
    }
}

impl ReadPart {
    /// What to send, and what to hand back with the answer.
    pub(crate) fn split(self) -> (Vec<usize>, Operation) {
        (self.positions, self.operation)
    }
}

/// A batch cut into the parts of each core.
#[derive(Debug)]
pub(crate) struct BatchParts {
    pub(crate) parts: Vec<(Vec<usize>, Operation)>,
    count: usize,
}

impl BatchParts {
    /// Refuses a batch that breaks the server's limits as a whole.
    /// All parts carry the same stamp.
    pub(crate) fn new(batch: WriteBatch, stamp: Option<ProposedStamp>, map: &ServerMap) -> Result<Self> {
        let WriteBatch { operations, durability } = batch;
        let limits = &map.limits;
        if operations.len() > limits.batch_operations_max {
            return Err(Error::Invalid(format!(
                "a batch of {} operations: this server takes at most {}",
                operations.len(),
                limits.batch_operations_max
            )));
        }
        let mut bytes = 0;
        for operation in &operations {
            limits.check_key(&operation.key)?;
            bytes += operation.key.len();
            if let Some(value) = &operation.value {
                limits.check_value(value)?;
                bytes += value.len();
            }
        }
        if bytes > limits.batch_bytes_max {
            return Err(Error::Invalid(format!(
                "a batch of {bytes} bytes: this server takes at most {}",
                limits.batch_bytes_max
            )));
        }
        let count = operations.len();
        let mut by_core: BTreeMap<u16, (Vec<usize>, Vec<BatchOperation>)> = BTreeMap::new();
        for (position, operation) in operations.into_iter().enumerate() {
            let (positions, part) = by_core.entry(map.core_of(&operation.key)).or_default();
            positions.push(position);
            part.push(operation);
        }
        let parts = by_core
            .into_iter()
            .map(|(core, (positions, operations))| {
                let route = Route::Core(core);
                (positions, Operation::Batch { namespace: 0, durability, stamp, operations, route })
            })
            .collect();
        Ok(Self { parts, count })
    }

    /// The results in the order of the batch. A part that failed as a whole gives its error to
    /// each of its operations.
    pub(crate) fn merge(count: usize, answers: Vec<(Vec<usize>, Result<Reply>)>) -> BatchResults {
        let missing = Error::Protocol {
            outcome: Outcome::Unknown,
            message: "the answer lacks the result of an operation".into(),
        };
        let mut results = vec![Err(missing); count];
        for (positions, answer) in answers {
            match answer {
                Ok(Reply::Batch(statuses)) => {
                    for (position, status) in positions.into_iter().zip(statuses) {
                        results[position] = status;
                    }
                }
                Ok(reply) => {
                    let error = reply.unexpected();
                    positions.into_iter().for_each(|position| results[position] = Err(error.clone()));
                }
                Err(error) => {
                    positions.into_iter().for_each(|position| results[position] = Err(error.clone()))
                }
            }
        }
        BatchResults { results }
    }

    /// The number of operations.
    pub(crate) fn count(&self) -> usize {
        self.count
    }
}
