//! Requests that outlive the frame that carried them: those that wait for a table.

use crate::key::{Key, NamespaceId, Partition};
use crate::operation::{Condition, Lifetime, Operation, Update};

/// A key that outlives the request that named it.
pub(super) struct OwnedKey {
    partition: Partition,
    namespace: NamespaceId,
    user: Vec<u8>,
    hash: u64,
}

impl OwnedKey {
    pub(super) fn of(key: &Key<'_>) -> Self {
        Self { partition: key.partition, namespace: key.namespace, user: key.user.to_vec(), hash: key.hash }
    }

    pub(super) fn key(&self) -> Key<'_> {
        Key { partition: self.partition, namespace: self.namespace, user: &self.user, hash: self.hash }
    }
}

/// An operation that outlives its request.
pub(super) enum OwnedOperation {
    Put(Vec<u8>, Lifetime),
    Delete,
    PutIf(Condition, Vec<u8>, Lifetime),
    DeleteIf(Condition),
    Append(Vec<u8>),
    SetRange(u32, Vec<u8>),
    Other(Update<'static>),
}

impl OwnedOperation {
    pub(super) fn of(operation: Operation<'_>) -> Self {
        match operation {
            Operation::Put { value, lifetime } => Self::Put(value.to_vec(), lifetime),
            Operation::Delete => Self::Delete,
            Operation::PutIf { condition, value, lifetime } => {
                Self::PutIf(condition, value.to_vec(), lifetime)
            }
            Operation::DeleteIf { condition } => Self::DeleteIf(condition),
            Operation::Update(Update::Append(bytes)) => Self::Append(bytes.to_vec()),
            Operation::Update(Update::SetRange { offset, bytes }) => Self::SetRange(offset, bytes.to_vec()),
            Operation::Update(Update::Add(operand)) => Self::Other(Update::Add(operand)),
            Operation::Update(Update::SetExpiry(lifetime)) => Self::Other(Update::SetExpiry(lifetime)),
        }
    }

    pub(super) fn borrow(&self) -> Operation<'_> {
        match self {
            Self::Put(value, lifetime) => Operation::Put { value, lifetime: *lifetime },
            Self::Delete => Operation::Delete,
            Self::PutIf(condition, value, lifetime) => {
                Operation::PutIf { condition: *condition, value, lifetime: *lifetime }
            }
            Self::DeleteIf(condition) => Operation::DeleteIf { condition: *condition },
            Self::Append(bytes) => Operation::Update(Update::Append(bytes)),
            Self::SetRange(offset, bytes) => Operation::Update(Update::SetRange { offset: *offset, bytes }),
            Self::Other(update) => Operation::Update(*update),
        }
    }
}
