//! Batches: several puts and deletes in one request.

use bytes::Bytes;

use crate::Durability;
use crate::error::{Error, Result};
use crate::record::Written;
use crate::ttl::Ttl;

/// Puts and deletes that are sent together.
///
/// Atomic for the keys that share a partition (which keys that share a `{tag}` do): after a crash
/// either all or none of them are there. All operations carry one stamp, and the last one on a
/// key wins. A batch is never split silently: one that breaks the server's limits is refused with
/// [`Error::Invalid`] and nothing is sent. Operations for different cores travel in parallel.
#[derive(Debug, Clone, Default)]
pub struct WriteBatch {
    pub(crate) operations: Vec<BatchOperation>,
    pub(crate) durability: Durability,
}

#[derive(Debug, Clone)]
pub(crate) struct BatchOperation {
    pub(crate) key: Bytes,
    /// `None` deletes.
    pub(crate) value: Option<Bytes>,
    pub(crate) ttl: Ttl,
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a value that lives as the namespace says.
    pub fn put(self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Self {
        self.put_with_ttl(key, value, Ttl::Default)
    }

    /// Sets a value with its own TTL.
    pub fn put_with_ttl(
        mut self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        ttl: impl Into<Ttl>,
    ) -> Self {
        let key = Bytes::copy_from_slice(key.as_ref());
        self.operations.push(BatchOperation { key, value: Some(value.into()), ttl: ttl.into() });
        self
    }

    /// Removes a key.
    pub fn delete(mut self, key: impl AsRef<[u8]>) -> Self {
        let key = Bytes::copy_from_slice(key.as_ref());
        self.operations.push(BatchOperation { key, value: None, ttl: Ttl::Default });
        self
    }

    /// Sets when the batch is acknowledged.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The number of operations.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }
}

/// What became of each operation of a batch, in the order of the batch.
#[derive(Debug, Clone)]
#[must_use = "each operation has its own result"]
pub struct BatchResults {
    pub(crate) results: Vec<Result<Written>>,
}

impl BatchResults {
    /// The results in the order of the operations.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Result<Written>> {
        self.results.iter()
    }

    /// The results in the order of the operations.
    pub fn into_vec(self) -> Vec<Result<Written>> {
        self.results
    }

    /// The first error, if any operation failed.
    pub fn all(self) -> Result<(), Error> {
        self.results.into_iter().try_for_each(|result| result.map(|_| ()))
    }
}
