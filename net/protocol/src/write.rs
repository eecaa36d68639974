//! Requests that write: put, delete, their conditional forms, update and batch.
//!
//! All carry the namespace, the durability and, if the client likes, its own stamp. The limits on
//! keys, values and batches are the server's; here only the length fields bound them.

use crate::entries::Operations;
use crate::error::ProtocolError;
use crate::header::{Header, request_flags};
use crate::heads::{
    BatchHead, BodyReader, ConditionHead, DeleteHead, Head, PutHead, UpdateHead, flags_within, length,
    reserved_is_zero,
};
use crate::list::List;
use crate::types::{Condition, Durability, ProposedStamp, Ttl};

/// Flag of writes: the client gives the stamp.
const FLAG_STAMP: u8 = 1;
/// Flag of writes and of batch operations: a TTL is given, else the namespace's applies.
pub(crate) const FLAG_TTL: u8 = 2;

/// What every single write says; alone it is a DELETE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write<'a> {
    /// In which namespace.
    pub namespace: u32,
    /// The key.
    pub key: &'a [u8],
    /// When it is acknowledged.
    pub durability: Durability,
    /// The client's own stamp; `None` = the server issues one.
    pub stamp: Option<ProposedStamp>,
}

/// PUT: a value under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Put<'a> {
    /// Where and how.
    pub write: Write<'a>,
    /// How long it lives.
    pub ttl: Ttl,
    /// The value.
    pub value: &'a [u8],
}

/// UPDATE: changes what stands under a key. Not idempotent unless the operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Update<'a> {
    /// Where and how.
    pub write: Write<'a>,
    /// What to do.
    pub operation: UpdateOperation<'a>,
}

/// The closed set of updates. A record keeps its expiry, except in `SetExpiry`; one that an update
/// creates has its namespace's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateOperation<'a> {
    /// Adds to a value that is a decimal `i64` in ASCII; a missing record counts as 0. Overflow and
    /// other values are `BAD_REQUEST`.
    Add(i64),
    /// Appends bytes; a missing record counts as empty.
    Append(&'a [u8]),
    /// Overwrites from an offset on, extending with zero bytes as needed; a missing record counts
    /// as empty.
    SetRange {
        /// Where, in bytes.
        offset: u32,
        /// What.
        bytes: &'a [u8],
    },
    /// Sets the time to live in milliseconds from the write's stamp; 0 = never expires. A missing
    /// record stays missing.
    SetExpiry {
        /// The time.
        ttl_ms: u64,
    },
}

/// BATCH: puts and deletes with one stamp; atomic for the keys of one partition.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Batch<'a> {
    /// In which namespace.
    pub namespace: u32,
    /// When it is acknowledged.
    pub durability: Durability,
    /// The client's own stamp; `None` = the server issues one.
    pub stamp: Option<ProposedStamp>,
    /// The operations; the last one on a key wins.
    pub operations: List<'a, Operations>,
}

impl Write<'_> {
    fn flags(&self) -> u8 {
        if self.stamp.is_some() { FLAG_STAMP } else { 0 }
    }

    pub(crate) fn head(&self) -> Result<DeleteHead, ProtocolError> {
        let (stamp_time, stamp_origin) = ProposedStamp::to_wire(self.stamp);
        Ok(DeleteHead {
            namespace: self.namespace.into(),
            key_len: length::<u16>("key", self.key, usize::from(u16::MAX))?.into(),
            durability: self.durability.to_u8(),
            flags: self.flags(),
            stamp_time: stamp_time.into(),
            stamp_origin: stamp_origin.into(),
            reserved: [0; 4],
        })
    }
}

pub(crate) fn delete_body<'a>(
    head: &DeleteHead,
    from: &mut BodyReader<'a>,
) -> Result<Write<'a>, ProtocolError> {
    reserved_is_zero(&head.reserved)?;
    flags_within(head.flags, FLAG_STAMP)?;
    Ok(Write {
        namespace: head.namespace.to_native(),
        key: from.short(head.key_len)?,
        durability: Durability::from_u8(head.durability)?,
        stamp: take_stamp(head.flags, head.stamp_time.to_native(), head.stamp_origin.to_native())?,
    })
}

impl<'a> Put<'a> {
    /// A PUT, without the way through every other request.
    ///
    /// # Errors
    /// As [`crate::Request::decode`].
    #[inline]
    pub fn decode(header: &Header, body: &'a [u8]) -> Result<Self, ProtocolError> {
        request_flags(header)?;
        let mut body = BodyReader::new(body);
        let put = put_body(body.head()?, &mut body)?;
        body.end()?;
        Ok(put)
    }

    pub(crate) fn head(&self) -> Result<PutHead, ProtocolError> {
        let (ttl_given, ttl_ms) = self.ttl.to_wire();
        let (stamp_time, stamp_origin) = ProposedStamp::to_wire(self.write.stamp);
        Ok(PutHead {
            namespace: self.write.namespace.into(),
            key_len: length::<u16>("key", self.write.key, usize::from(u16::MAX))?.into(),
            durability: self.write.durability.to_u8(),
            flags: self.write.flags() | if ttl_given { FLAG_TTL } else { 0 },
            ttl_ms: ttl_ms.into(),
            stamp_time: stamp_time.into(),
            stamp_origin: stamp_origin.into(),
            value_len: length::<u32>("value", self.value, u32::MAX as usize)?.into(),
        })
    }

    pub(crate) fn raw(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.write.key);
        out.extend_from_slice(self.value);
    }
}

#[inline]
pub(crate) fn put_body<'a>(head: &PutHead, from: &mut BodyReader<'a>) -> Result<Put<'a>, ProtocolError> {
    flags_within(head.flags, FLAG_STAMP | FLAG_TTL)?;
    Ok(Put {
        write: Write {
            namespace: head.namespace.to_native(),
            key: from.short(head.key_len)?,
            durability: Durability::from_u8(head.durability)?,
            stamp: take_stamp(head.flags, head.stamp_time.to_native(), head.stamp_origin.to_native())?,
        },
        ttl: Ttl::from_wire(head.flags & FLAG_TTL != 0, head.ttl_ms.to_native())?,
        value: from.long(head.value_len)?,
    })
}

#[inline]
fn take_stamp(flags: u8, time: u64, origin: u32) -> Result<Option<ProposedStamp>, ProtocolError> {
    ProposedStamp::from_wire(flags & FLAG_STAMP != 0, time, origin)
}

pub(crate) fn take_condition(from: &mut BodyReader<'_>) -> Result<Condition, ProtocolError> {
    let head = from.head::<ConditionHead>()?;
    reserved_is_zero(&head.reserved)?;
    Condition::from_wire(head.condition, head.version)
}

pub(crate) fn put_condition(condition: Condition, out: &mut Vec<u8>) {
    let (condition, version) = condition.to_wire();
    ConditionHead { condition, reserved: [0; 7], version }.put(out);
}

impl<'a> Update<'a> {
    pub(crate) fn take(from: &mut BodyReader<'a>) -> Result<Self, ProtocolError> {
        let head = from.head::<UpdateHead>()?;
        reserved_is_zero(&head.reserved)?;
        reserved_is_zero(&head.reserved_too)?;
        flags_within(head.flags, FLAG_STAMP)?;
        let write = Write {
            namespace: head.namespace.to_native(),
            key: from.short(head.key_len)?,
            durability: Durability::from_u8(head.durability)?,
            stamp: take_stamp(head.flags, head.stamp_time.to_native(), head.stamp_origin.to_native())?,
        };
        let bytes = from.long(head.value_len)?;
        let operand = head.operand.to_native();
        let operation = match (head.operation, operand, bytes) {
            (1, delta, []) => UpdateOperation::Add(delta),
            (2, 0, bytes) => UpdateOperation::Append(bytes),
            (3, offset, bytes) => UpdateOperation::SetRange {
                offset: u32::try_from(offset)
                    .map_err(|_| ProtocolError::BadBody("the offset does not fit 32 bits"))?,
                bytes,
            },
            (4, ttl_ms, []) => UpdateOperation::SetExpiry { ttl_ms: ttl_ms.cast_unsigned() },
            (1..=4, _, _) => return Err(ProtocolError::BadBody("operand or value does not fit the update")),
            _ => return Err(ProtocolError::Unsupported("update operation")),
        };
        Ok(Self { write, operation })
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        let (operation, operand, bytes) = match self.operation {
            UpdateOperation::Add(delta) => (1, delta, &[][..]),
            UpdateOperation::Append(bytes) => (2, 0, bytes),
            UpdateOperation::SetRange { offset, bytes } => (3, i64::from(offset), bytes),
            UpdateOperation::SetExpiry { ttl_ms } => (4, ttl_ms.cast_signed(), &[][..]),
        };
        let write = self.write.head()?;
        UpdateHead {
            namespace: write.namespace,
            key_len: write.key_len,
            durability: write.durability,
            flags: write.flags,
            stamp_time: write.stamp_time,
            stamp_origin: write.stamp_origin,
            operation,
            reserved: [0; 3],
            operand: operand.into(),
            value_len: length::<u32>("value", bytes, u32::MAX as usize)?.into(),
            reserved_too: [0; 4],
        }
        .put(out);
        out.extend_from_slice(self.write.key);
        out.extend_from_slice(bytes);
        Ok(())
    }
}

impl<'a> Batch<'a> {
    pub(crate) fn take(from: &mut BodyReader<'a>) -> Result<Self, ProtocolError> {
        let head = from.head::<BatchHead>()?;
        reserved_is_zero(&head.reserved)?;
        flags_within(head.flags, FLAG_STAMP)?;
        Ok(Self {
            namespace: head.namespace.to_native(),
            durability: Durability::from_u8(head.durability)?,
            stamp: take_stamp(head.flags, head.stamp_time.to_native(), head.stamp_origin.to_native())?,
            operations: List::take(from, head.count.to_native())?,
        })
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let (stamp_time, stamp_origin) = ProposedStamp::to_wire(self.stamp);
        BatchHead {
            namespace: self.namespace.into(),
            count: self.operations.len().into(),
            durability: self.durability.to_u8(),
            flags: if self.stamp.is_some() { FLAG_STAMP } else { 0 },
            reserved: [0; 2],
            stamp_origin: stamp_origin.into(),
            stamp_time: stamp_time.into(),
        }
        .put(out);
        out.extend_from_slice(self.operations.as_bytes());
    }
}
