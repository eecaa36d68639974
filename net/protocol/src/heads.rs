//! The fixed heads: the header of frames, one head per opcode and direction, one per list entry.
//!
//! Every head is `repr(C)` of portable little-endian integers and byte arrays, alignment 1, so
//! that it is validated and read in place wherever it lies in a buffer (rkyv with bytecheck), and
//! its layout is what PROTOCOL.md's byte tables say. The sizes are asserted when compiled.

use rkyv::Portable;
use rkyv::api::low::LowValidator;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Failure;
use rkyv::rend::unaligned::{i64_ule, u16_ule, u32_ule, u64_ule};

use crate::error::ProtocolError;

/// A head that can be read in place and appended.
pub(crate) trait Head: Portable + for<'a> CheckBytes<LowValidator<'a, Failure>> + Sized {
    /// Its size.
    const BYTES: usize;

    /// Appends it.
    fn put(&self, out: &mut Vec<u8>);

    /// The head that `bytes` are, in place; exactly [`Head::BYTES`] bytes.
    fn read(bytes: &[u8]) -> Result<&Self, ProtocolError> {
        if bytes.len() != Self::BYTES {
            return Err(ProtocolError::BadBody("shorter than its head"));
        }
        rkyv::api::low::access::<Self, Failure>(bytes).map_err(|_| ProtocolError::BadBody("invalid head"))
    }
}

/// A field of a head.
trait Field {
    /// Writes it at `at`; returns where the next one goes.
    fn write(&self, bytes: &mut [u8], at: usize) -> usize;
}

impl<const N: usize> Field for [u8; N] {
    #[inline]
    fn write(&self, bytes: &mut [u8], at: usize) -> usize {
        bytes[at..at + N].copy_from_slice(self);
        at + N
    }
}

impl Field for u8 {
    #[inline]
    fn write(&self, bytes: &mut [u8], at: usize) -> usize {
        [*self].write(bytes, at)
    }
}

macro_rules! integer_fields {
    ($($integer:ty)*) => {$(
        impl Field for $integer {
            #[inline]
            fn write(&self, bytes: &mut [u8], at: usize) -> usize {
                self.to_native().to_le_bytes().write(bytes, at)
            }
        }
    )*};
}
integer_fields!(u16_ule u32_ule u64_ule i64_ule);

macro_rules! heads {
    ($($(#[$meta:meta])* $name:ident [$bytes:literal] { $($field:ident: $kind:ty,)* })*) => {$(
        $(#[$meta])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, rkyv::Portable, rkyv::bytecheck::CheckBytes)]
        #[rkyv(crate = rkyv)]
        #[bytecheck(crate = rkyv::bytecheck)]
        pub(crate) struct $name { $(pub(crate) $field: $kind,)* }

        const _: () = assert!(size_of::<$name>() == $bytes && align_of::<$name>() == 1);

        impl Head for $name {
            const BYTES: usize = $bytes;

            #[inline]
            fn put(&self, out: &mut Vec<u8>) {
                let mut bytes = [0; $bytes];
                let mut at = 0;
                $(at = self.$field.write(&mut bytes, at);)*
                debug_assert_eq!(at, $bytes);
                out.extend_from_slice(&bytes);
            }
        }
    )*};
}

heads! {
    /// Front of every frame.
    FrameHead [32] {
        frame_bytes: u32_ule, header_bytes: u16_ule, opcode: u8, flags: u8,
        request_id: u64_ule, epoch: u64_ule, deadline_us: u32_ule, reserved: [u8; 4],
    }

    HelloHead [16] { wanted_core: u16_ule, name_len: u16_ule, reserved: [u8; 4], features: u64_ule, }
    HelloReplyHead [80] {
        version: u16_ule, core: u16_ule, cores: u16_ule, shards: u16_ule,
        partitions: u32_ule, key_bytes_max: u32_ule, features: u64_ule, node_id: [u8; 16],
        incarnation: u64_ule, stamp: u64_ule, value_bytes_max: u32_ule, batch_ops_max: u32_ule,
        batch_bytes_max: u32_ule, frame_bytes_max: u32_ule, in_flight_max: u32_ule,
        retry_window_ms: u32_ule,
    }
    /// Entry of HELLO's shard map.
    ShardCoreHead [2] { core: u16_ule, }

    /// GET and STAT.
    KeyHead [8] { namespace: u32_ule, key_len: u16_ule, reserved: [u8; 2], }
    /// Replies of GET and, before [`AccessesHead`], of STAT.
    ValueReplyHead [40] {
        found: u8, reserved: [u8; 3], value_len: u32_ule, version: [u8; 16], expiry_ms: u64_ule,
        stamp_seen: u64_ule,
    }
    /// Ends the reply of STAT.
    AccessesHead [8] { accesses: u64_ule, }
    MultiGetHead [8] { namespace: u32_ule, count: u32_ule, }
    /// Entry of MULTI_GET.
    KeyItemHead [2] { key_len: u16_ule, }
    /// Replies that are lists.
    ListReplyHead [16] { count: u32_ule, reserved: [u8; 4], stamp_seen: u64_ule, }
    /// Entry of MULTI_GET's reply.
    ValueItemHead [32] {
        found: u8, reserved: [u8; 3], value_len: u32_ule, version: [u8; 16], expiry_ms: u64_ule,
    }

    PutHead [32] {
        namespace: u32_ule, key_len: u16_ule, durability: u8, flags: u8, ttl_ms: u64_ule,
        stamp_time: u64_ule, stamp_origin: u32_ule, value_len: u32_ule,
    }
    DeleteHead [24] {
        namespace: u32_ule, key_len: u16_ule, durability: u8, flags: u8, stamp_time: u64_ule,
        stamp_origin: u32_ule, reserved: [u8; 4],
    }
    /// Follows the put or delete head in PUT_IF and DELETE_IF.
    ConditionHead [24] { condition: u8, reserved: [u8; 7], version: [u8; 16], }
    UpdateHead [40] {
        namespace: u32_ule, key_len: u16_ule, durability: u8, flags: u8, stamp_time: u64_ule,
        stamp_origin: u32_ule, operation: u8, reserved: [u8; 3], operand: i64_ule,
        value_len: u32_ule, reserved_too: [u8; 4],
    }
    /// Replies of PUT, DELETE, PUT_IF, DELETE_IF and UPDATE.
    WrittenHead [48] {
        outcome: u8, reserved: [u8; 7], version: [u8; 16], stamp_seen: u64_ule, expiry_ms: u64_ule,
        number: i64_ule,
    }

    BatchHead [24] {
        namespace: u32_ule, count: u32_ule, durability: u8, flags: u8, reserved: [u8; 2],
        stamp_origin: u32_ule, stamp_time: u64_ule,
    }
    /// Entry of BATCH.
    OperationHead [16] { kind: u8, flags: u8, key_len: u16_ule, value_len: u32_ule, ttl_ms: u64_ule, }
    /// Entry of BATCH's reply.
    OperationResultHead [24] {
        status: u8, outcome: u8, code: u16_ule, retry_after_ms: u32_ule, version: [u8; 16],
    }

    ScanHead [32] {
        namespace: u32_ule, limit: u32_ule, bytes_max: u32_ule, shard: u16_ule, kind: u8,
        direction: u8, flags: u8, reserved: [u8; 1], tag_len: u16_ule, start_len: u16_ule,
        end_len: u16_ule, prefix_len: u16_ule, cursor_len: u16_ule, reserved_too: [u8; 4],
    }
    ScanReplyHead [16] {
        done: u8, reserved: [u8; 1], cursor_len: u16_ule, count: u32_ule, stamp_seen: u64_ule,
    }
    /// Entry of SCAN's reply.
    RecordHead [32] {
        key_len: u16_ule, reserved: [u8; 2], value_len: u32_ule, version: [u8; 16],
        expiry_ms: u64_ule,
    }

    /// NAMESPACE_CREATE and NAMESPACE_SET.
    NamespaceOptionsHead [16] { default_ttl_ms: u64_ule, name_len: u16_ule, reserved: [u8; 6], }
    NamespaceDropHead [8] { name_len: u16_ule, reserved: [u8; 6], }
    /// Replies of NAMESPACE_CREATE, NAMESPACE_SET and NAMESPACE_DROP.
    NamespaceReplyHead [8] { id: u32_ule, reserved: [u8; 4], }
    NamespaceListHead [8] { reserved: [u8; 8], }
    /// Entry of NAMESPACE_LIST's reply.
    NamespaceItemHead [16] {
        id: u32_ule, state: u8, reserved: [u8; 1], name_len: u16_ule, default_ttl_ms: u64_ule,
    }

    ServerInfoHead [8] { section: u8, reserved: [u8; 7], }
    /// Replies of SERVER_INFO, and PING in both directions.
    BytesHead [8] { bytes_len: u32_ule, reserved: [u8; 4], }

    ErrorHead [40] {
        code: u16_ule, outcome: u8, reserved: [u8; 1], retry_after_ms: u32_ule, version: [u8; 16],
        stamp_seen: u64_ule, lowest: u16_ule, highest: u16_ule, message_len: u16_ule,
        reserved_too: [u8; 2],
    }
}

/// Reads heads and raw bytes from the front of a body. Never past its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyReader<'a> {
    rest: &'a [u8],
}

impl<'a> BodyReader<'a> {
    pub(crate) const fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn head<H: Head>(&mut self) -> Result<&'a H, ProtocolError> {
        H::read(self.raw(H::BYTES)?)
    }

    pub(crate) fn raw(&mut self, count: usize) -> Result<&'a [u8], ProtocolError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(ProtocolError::BadBody("shorter than its lengths say"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// Raw bytes whose length is a `u32` of a head.
    pub(crate) fn long(&mut self, length: u32_ule) -> Result<&'a [u8], ProtocolError> {
        self.raw(length.to_native() as usize)
    }

    /// Raw bytes whose length is a `u16` of a head.
    pub(crate) fn short(&mut self, length: u16_ule) -> Result<&'a [u8], ProtocolError> {
        self.raw(usize::from(length.to_native()))
    }

    pub(crate) fn end(&self) -> Result<(), ProtocolError> {
        if self.rest.is_empty() { Ok(()) } else { Err(ProtocolError::BadBody("longer than its lengths say")) }
    }
}

/// A length as a head has it.
///
/// # Errors
/// [`ProtocolError::TooLarge`] when the bytes are longer than `max` or than the field can say.
pub(crate) fn length<L: TryFrom<usize>>(
    what: &'static str,
    bytes: &[u8],
    max: usize,
) -> Result<L, ProtocolError> {
    let too_large = ProtocolError::TooLarge { what, bytes: bytes.len() as u64, max: max as u64 };
    if bytes.len() > max {
        return Err(too_large);
    }
    L::try_from(bytes.len()).map_err(|_| too_large)
}

/// Reserved bytes of a request must be zero, so that a later version can give them a meaning.
pub(crate) fn reserved_is_zero(bytes: &[u8]) -> Result<(), ProtocolError> {
    if bytes.iter().all(|byte| *byte == 0) {
        Ok(())
    } else {
        Err(ProtocolError::BadBody("reserved bytes are not zero"))
    }
}

/// Flags of a request that this version does not know are refused.
pub(crate) fn flags_within(flags: u8, known: u8) -> Result<(), ProtocolError> {
    if flags & !known == 0 { Ok(()) } else { Err(ProtocolError::Unsupported("flags")) }
}
