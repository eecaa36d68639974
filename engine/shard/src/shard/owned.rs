//! Requests that outlive the frame that carried them: those that wait for a table.

use crate::key::{Key, NamespaceId, Partition};
use crate::operation::{Condition, Expiring, Lifetime, Operation, Update};
use crate::stamp::Stamp;

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

/// A condition that outlives its request.
pub(super) enum OwnedCondition {
    Always,
    Absent,
    Present,
    VersionIs(Stamp),
    ValueIs(Vec<u8>),
    Expires(Expiring),
}

impl OwnedCondition {
    fn of(condition: Condition<'_>) -> Self {
        match condition {
            Condition::Always => Self::Always,
            Condition::Absent => Self::Absent,
            Condition::Present => Self::Present,
            Condition::VersionIs(stamp) => Self::VersionIs(stamp),
            Condition::ValueIs(bytes) => Self::ValueIs(bytes.to_vec()),
            Condition::Expires(moments) => Self::Expires(moments),
        }
    }

    fn borrow(&self) -> Condition<'_> {
        match self {
            Self::Always => Condition::Always,
            Self::Absent => Condition::Absent,
            Self::Present => Condition::Present,
            Self::VersionIs(stamp) => Condition::VersionIs(*stamp),
            Self::ValueIs(bytes) => Condition::ValueIs(bytes),
            Self::Expires(moments) => Condition::Expires(*moments),
        }
    }
}

/// An update that outlives its request.
pub(super) enum OwnedUpdate {
    Append(Vec<u8>),
    SetRange(u32, Vec<u8>),
    Other(Update<'static>),
}

impl OwnedUpdate {
    fn of(update: Update<'_>) -> Self {
        match update {
            Update::Append(bytes) => Self::Append(bytes.to_vec()),
            Update::SetRange { offset, bytes } => Self::SetRange(offset, bytes.to_vec()),
            Update::Add(operand) => Self::Other(Update::Add(operand)),
            Update::SetExpiry(lifetime) => Self::Other(Update::SetExpiry(lifetime)),
        }
    }

    fn borrow(&self) -> Update<'_> {
        match self {
            Self::Append(bytes) => Update::Append(bytes),
            Self::SetRange(offset, bytes) => Update::SetRange { offset: *offset, bytes },
            Self::Other(update) => *update,
        }
    }
}

/// An operation that outlives its request.
pub(super) enum OwnedOperation {
    Put(Vec<u8>, Lifetime),
    Delete,
    PutIf(OwnedCondition, Vec<u8>, Lifetime),
    DeleteIf(OwnedCondition),
    Update(OwnedUpdate),
    UpdateIf(OwnedCondition, OwnedUpdate),
}

impl OwnedOperation {
    pub(super) fn of(operation: Operation<'_>) -> Self {
        match operation {
            Operation::Put { value, lifetime } => Self::Put(value.to_vec(), lifetime),
            Operation::Delete => Self::Delete,
            Operation::PutIf { condition, value, lifetime } => {
                Self::PutIf(OwnedCondition::of(condition), value.to_vec(), lifetime)
            }
            Operation::DeleteIf { condition } => Self::DeleteIf(OwnedCondition::of(condition)),
            Operation::Update(update) => Self::Update(OwnedUpdate::of(update)),
            Operation::UpdateIf { condition, update } => {
                Self::UpdateIf(OwnedCondition::of(condition), OwnedUpdate::of(update))
            }
        }
    }

    pub(super) fn borrow(&self) -> Operation<'_> {
        match self {
            Self::Put(value, lifetime) => Operation::Put { value, lifetime: *lifetime },
            Self::Delete => Operation::Delete,
            Self::PutIf(condition, value, lifetime) => {
                Operation::PutIf { condition: condition.borrow(), value, lifetime: *lifetime }
            }
            Self::DeleteIf(condition) => Operation::DeleteIf { condition: condition.borrow() },
            Self::Update(update) => Operation::Update(update.borrow()),
            Self::UpdateIf(condition, update) => {
                Operation::UpdateIf { condition: condition.borrow(), update: update.borrow() }
            }
        }
    }
}
