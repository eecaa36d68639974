//! The kinds of lists: what an entry is and how its bytes lie.
//!
//! One marker per kind, named after what the list holds. Reading an entry never looks past the
//! list; writing one fails only when a key or value does not fit its length field.

use crate::NAMESPACE_NAME_BYTES_MAX;
use crate::error::{ErrorCode, Outcome, ProtocolError};
use crate::heads::{
    Head, KeyItemHead, NamespaceItemHead, OperationHead, OperationResultHead, RecordHead, ShardCoreHead,
    ValueItemHead, flags_within, length,
};
use crate::list::{ListKind, sealed};
use crate::types::{NamespaceState, Ttl, Version};
use crate::write::FLAG_TTL;

/// A value with what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'a> {
    /// The record's version.
    pub version: Version,
    /// When it expires, in milliseconds since 1970; 0 = never.
    pub expiry_ms: u64,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// List kind of MULTI_GET: keys.
#[derive(Debug, Clone, Copy)]
pub enum Keys {}

impl sealed::Sealed for Keys {}
impl ListKind for Keys {
    type Item<'a> = &'a [u8];

    fn read<'a>(from: &mut sealed::Reader<'a>) -> Result<&'a [u8], ProtocolError> {
        let head = from.0.head::<KeyItemHead>()?;
        from.0.short(head.key_len)
    }

    fn put(key: &&[u8], out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        let key_len: u16 = length("key", key, usize::from(u16::MAX))?;
        KeyItemHead { key_len: key_len.into() }.put(out);
        out.extend_from_slice(key);
        Ok(())
    }
}

/// List kind of MULTI_GET's reply: one entry per key, in the order of the request.
#[derive(Debug, Clone, Copy)]
pub enum Values {}

/// What MULTI_GET found under one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueItem<'a> {
    /// No visible record.
    Missing,
    /// This.
    Found(Value<'a>),
    /// The reply was full before this key: ask again.
    NotRead,
}

impl sealed::Sealed for Values {}
impl ListKind for Values {
    type Item<'a> = ValueItem<'a>;

    fn read<'a>(from: &mut sealed::Reader<'a>) -> Result<ValueItem<'a>, ProtocolError> {
        let head = from.0.head::<ValueItemHead>()?;
        let bytes = from.0.long(head.value_len)?;
        let value = Value { version: Version(head.version), expiry_ms: head.expiry_ms.to_native(), bytes };
        match head.found {
            0 => Ok(ValueItem::Missing),
            1 => Ok(ValueItem::Found(value)),
            2 => Ok(ValueItem::NotRead),
            _ => Err(ProtocolError::Unsupported("found mark")),
        }
    }

    fn put(item: &ValueItem<'_>, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        let nothing = Value { version: Version::ABSENT, expiry_ms: 0, bytes: &[] };
        let (found, value) = match item {
            ValueItem::Missing => (0, &nothing),
            ValueItem::Found(value) => (1, value),
            ValueItem::NotRead => (2, &nothing),
        };
        let value_len: u32 = length("value", value.bytes, u32::MAX as usize)?;
        ValueItemHead {
            found,
            reserved: [0; 3],
            value_len: value_len.into(),
            version: value.version.0,
            expiry_ms: value.expiry_ms.into(),
        }
        .put(out);
        out.extend_from_slice(value.bytes);
        Ok(())
    }
}

/// List kind of BATCH: puts and deletes. The last operation on a key wins.
#[derive(Debug, Clone, Copy)]
pub enum Operations {}

/// One operation of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchOperation<'a> {
    /// Writes a value.
    Put {
        /// Under this key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
        /// How long it lives.
        ttl: Ttl,
    },
    /// Removes a record.
    Delete {
        /// Under this key.
        key: &'a [u8],
    },
}

impl<'a> BatchOperation<'a> {
    /// The key it writes.
    pub const fn key(&self) -> &'a [u8] {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

impl sealed::Sealed for Operations {}
impl ListKind for Operations {
    type Item<'a> = BatchOperation<'a>;

    fn read<'a>(from: &mut sealed::Reader<'a>) -> Result<BatchOperation<'a>, ProtocolError> {
        let head = from.0.head::<OperationHead>()?;
        let key = from.0.short(head.key_len)?;
        let value = from.0.long(head.value_len)?;
        flags_within(head.flags, FLAG_TTL)?;
        let ttl = Ttl::from_wire(head.flags & FLAG_TTL != 0, head.ttl_ms.to_native())?;
        match head.kind {
            1 => Ok(BatchOperation::Put { key, value, ttl }),
            2 if value.is_empty() && ttl == Ttl::NamespaceDefault => Ok(BatchOperation::Delete { key }),
            2 => Err(ProtocolError::BadBody("a delete with a value or a TTL")),
            _ => Err(ProtocolError::Unsupported("batch operation")),
        }
    }

    fn put(item: &BatchOperation<'_>, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        let (kind, key, value, ttl) = match *item {
            BatchOperation::Put { key, value, ttl } => (1, key, value, ttl),
            BatchOperation::Delete { key } => (2, key, &[][..], Ttl::NamespaceDefault),
        };
        let (ttl_given, ttl_ms) = ttl.to_wire();
        let key_len: u16 = length("key", key, usize::from(u16::MAX))?;
        let value_len: u32 = length("value", value, u32::MAX as usize)?;
        OperationHead {
            kind,
            flags: if ttl_given { FLAG_TTL } else { 0 },
            key_len: key_len.into(),
            value_len: value_len.into(),
            ttl_ms: ttl_ms.into(),
        }
        .put(out);
        out.extend_from_slice(key);
        out.extend_from_slice(value);
        Ok(())
    }
}

/// List kind of BATCH's reply: one entry per operation, in the order of the request.
#[derive(Debug, Clone, Copy)]
pub enum OperationResults {}

/// What became of one operation of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationResult {
    /// It stands, or stood before a later operation of the batch on the same key.
    Applied(Version),
    /// An equal or newer stamp already stands.
    Superseded(Version),
    /// It failed, and with it all operations on keys of its partition.
    Failed {
        /// Why.
        code: ErrorCode,
        /// Whether it may have been applied.
        outcome: Outcome,
        /// When to try again, in milliseconds; 0 = not said.
        retry_after_ms: u32,
    },
}

impl sealed::Sealed for OperationResults {}
impl ListKind for OperationResults {
    type Item<'a> = OperationResult;

    fn read(from: &mut sealed::Reader<'_>) -> Result<OperationResult, ProtocolError> {
        let head = from.0.head::<OperationResultHead>()?;
        let version = Version(head.version);
        match head.status {
            0 => Ok(OperationResult::Applied(version)),
            1 => Ok(OperationResult::Superseded(version)),
            2 => Ok(OperationResult::Failed {
                code: ErrorCode::from_u16(head.code.to_native()),
                outcome: Outcome::from_u8(head.outcome),
                retry_after_ms: head.retry_after_ms.to_native(),
            }),
            _ => Err(ProtocolError::Unsupported("operation status")),
        }
    }

    fn put(item: &OperationResult, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        let blank = OperationResultHead {
            status: 0,
            outcome: 0,
            code: 0.into(),
            retry_after_ms: 0.into(),
            version: [0; 16],
        };
        match *item {
            OperationResult::Applied(version) => OperationResultHead { version: version.0, ..blank },
            OperationResult::Superseded(version) => {
                OperationResultHead { status: 1, version: version.0, ..blank }
            }
            OperationResult::Failed { code, outcome, retry_after_ms } => OperationResultHead {
                status: 2,
                outcome: outcome.to_u8(),
                code: code.to_u16().into(),
                retry_after_ms: retry_after_ms.into(),
                ..blank
            },
        }
        .put(out);
        Ok(())
    }
}

/// List kind of SCAN's reply: records.
#[derive(Debug, Clone, Copy)]
pub enum Records {}

/// A record that a scan found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The key.
    pub key: &'a [u8],
    /// What stands under it; without bytes when only keys were asked for.
    pub value: Value<'a>,
}

impl sealed::Sealed for Records {}
impl ListKind for Records {
    type Item<'a> = Record<'a>;

    fn read<'a>(from: &mut sealed::Reader<'a>) -> Result<Record<'a>, ProtocolError> {
        let head = from.0.head::<RecordHead>()?;
        let key = from.0.short(head.key_len)?;
        let bytes = from.0.long(head.value_len)?;
        let value = Value { version: Version(head.version), expiry_ms: head.expiry_ms.to_native(), bytes };
        Ok(Record { key, value })
    }

    fn put(item: &Record<'_>, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        let key_len: u16 = length("key", item.key, usize::from(u16::MAX))?;
        let value_len: u32 = length("value", item.value.bytes, u32::MAX as usize)?;
        RecordHead {
            key_len: key_len.into(),
            reserved: [0; 2],
            value_len: value_len.into(),
            version: item.value.version.0,
            expiry_ms: item.value.expiry_ms.into(),
        }
        .put(out);
        out.extend_from_slice(item.key);
        out.extend_from_slice(item.value.bytes);
        Ok(())
    }
}

/// List kind of NAMESPACE_LIST's reply.
#[derive(Debug, Clone, Copy)]
pub enum Namespaces {}

/// A namespace of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamespaceInfo<'a> {
    /// Its number; never reused.
    pub id: u32,
    /// Its state.
    pub state: NamespaceState,
    /// How long records live that say nothing else, in milliseconds; 0 = for ever.
    pub default_ttl_ms: u64,
    /// Its name.
    pub name: &'a str,
}

impl sealed::Sealed for Namespaces {}
impl ListKind for Namespaces {
    type Item<'a> = NamespaceInfo<'a>;

    fn read<'a>(from: &mut sealed::Reader<'a>) -> Result<NamespaceInfo<'a>, ProtocolError> {
        let head = from.0.head::<NamespaceItemHead>()?;
        let name = namespace_name(from.0.short(head.name_len)?)?;
        Ok(NamespaceInfo {
            id: head.id.to_native(),
            state: NamespaceState::from_u8(head.state)?,
            default_ttl_ms: head.default_ttl_ms.to_native(),
            name,
        })
    }

    fn put(item: &NamespaceInfo<'_>, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        let name_len: u16 = length("namespace name", item.name.as_bytes(), NAMESPACE_NAME_BYTES_MAX)?;
        namespace_name(item.name.as_bytes())?;
        NamespaceItemHead {
            id: item.id.into(),
            state: item.state.to_u8(),
            reserved: [0; 1],
            name_len: name_len.into(),
            default_ttl_ms: item.default_ttl_ms.into(),
        }
        .put(out);
        out.extend_from_slice(item.name.as_bytes());
        Ok(())
    }
}

/// A namespace's name: 1 to 64 of `A-Z a-z 0-9 _ . -`.
pub(crate) fn namespace_name(bytes: &[u8]) -> Result<&str, ProtocolError> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
    if bytes.is_empty() || bytes.len() > NAMESPACE_NAME_BYTES_MAX || !bytes.iter().all(allowed) {
        return Err(ProtocolError::BadBody("a namespace name is 1 to 64 of A-Z a-z 0-9 _ . -"));
    }
    std::str::from_utf8(bytes).map_err(|_| ProtocolError::BadBody("a namespace name is ASCII"))
}

/// List kind of HELLO's shard map: the core of each shard of the node, by shard number.
#[derive(Debug, Clone, Copy)]
pub enum ShardCores {}

impl sealed::Sealed for ShardCores {}
impl ListKind for ShardCores {
    type Item<'a> = u16;

    fn read(from: &mut sealed::Reader<'_>) -> Result<u16, ProtocolError> {
        Ok(from.0.head::<ShardCoreHead>()?.core.to_native())
    }

    fn put(core: &u16, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        ShardCoreHead { core: (*core).into() }.put(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_namespaces_are_plain() {
        assert_eq!(namespace_name(b"a-Z_0.9"), Ok("a-Z_0.9"));
        for bad in [&b""[..], b"a b", b"a/b", &[b'x'; 65], "\u{e4}".as_bytes()] {
            assert!(namespace_name(bad).is_err());
        }
    }
}
