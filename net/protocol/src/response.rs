//! Responses: what a server answers.
//!
//! Decoding is lenient where requests are strict: reserved bytes and unknown flags of an answer are
//! skipped and unknown error codes are kept as numbers, so that an older client understands a newer
//! server. The server's hot answers have direct encoders beside [`Response::encode`]; none of them
//! allocates except by growing `out`.

use crate::entries::{Namespaces, OperationResults, ShardCores, Value, Values};
use crate::error::{ErrorCode, Outcome, ProtocolError};
use crate::header::{
    FLAG_ERROR, FLAG_RESPONSE, HEADER_BYTES, Header, Opcode, frame_length, put_head, write_frame,
};
use crate::heads::{
    AccessesHead, BodyReader, BytesHead, ErrorHead, Head, HelloReplyHead, ListReplyHead, NamespaceReplyHead,
    ValueReplyHead, WrittenHead, length,
};
use crate::list::{List, ListKind};
use crate::scan::ScanReply;
use crate::types::{Version, WriteOutcome};
use crate::{ERROR_MESSAGE_BYTES_MAX, PING_BYTES_MAX};

/// Answer to HELLO. The header's epoch is that of the map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HelloReply<'a> {
    /// The version of the protocol that both sides speak from now on.
    pub version: u16,
    /// The core that owns the connection.
    pub core: u16,
    /// Cores of the node.
    pub cores: u16,
    /// Partitions of the cluster: a power of two.
    pub partitions: u32,
    /// The longest key, in bytes.
    pub key_bytes_max: u32,
    /// The features that both sides know.
    pub features: u64,
    /// The node, for as long as its data directory lives.
    pub node_id: [u8; 16],
    /// Grows with every start of the node.
    pub incarnation: u64,
    /// The node's hybrid time: the base of the client's own stamps.
    pub stamp: u64,
    /// The longest value, in bytes.
    pub value_bytes_max: u32,
    /// Operations of a batch and keys of a MULTI_GET at most.
    pub batch_ops_max: u32,
    /// Bytes of a batch's operations at most.
    pub batch_bytes_max: u32,
    /// The longest frame that the server takes and sends, in bytes.
    pub frame_bytes_max: u32,
    /// Requests of a connection that may wait for their answers at once.
    pub in_flight_max: u32,
    /// How old a proposed stamp may be, in milliseconds.
    pub retry_window_ms: u32,
    /// The core of each shard of the node, by shard number.
    pub shard_cores: List<'a, ShardCores>,
}

/// Answer to GET.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GetReply<'a> {
    /// What stands under the key.
    pub value: Option<Value<'a>>,
    /// The largest hybrid time that the server has seen.
    pub stamp_seen: u64,
}

/// Answer to STAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatReply {
    /// The record under the key.
    pub stat: Option<Stat>,
    /// About how often the key has been accessed lately, whether or not there is a record; 0 = not often
    /// enough to be known.
    pub accesses: u64,
    /// The largest hybrid time that the server has seen.
    pub stamp_seen: u64,
}

/// What is known of a record without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Its version.
    pub version: Version,
    /// When it expires, in milliseconds since 1970; 0 = never.
    pub expiry_ms: u64,
    /// Bytes of the value.
    pub value_bytes: u32,
}

/// Answer to MULTI_GET.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MultiGetReply<'a> {
    /// One entry per key, in the order of the request.
    pub values: List<'a, Values>,
    /// The largest hybrid time that the server has seen.
    pub stamp_seen: u64,
}

/// Answer to PUT, DELETE, PUT_IF, DELETE_IF and UPDATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// What became of it.
    pub outcome: WriteOutcome,
    /// Applied: the version written. Superseded: the version that stands if the server knows it,
    /// else absent. Missing: absent.
    pub version: Version,
    /// The largest hybrid time that the server has seen.
    pub stamp_seen: u64,
    /// When the written record expires, in milliseconds since 1970; 0 = never.
    pub expiry_ms: u64,
    /// Of an update: the new number (`Add`) or the new length in bytes; else 0.
    pub number: i64,
}

/// Answer to BATCH.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchReply<'a> {
    /// One entry per operation, in the order of the request.
    pub results: List<'a, OperationResults>,
    /// The largest hybrid time that the server has seen.
    pub stamp_seen: u64,
}

/// The answer to a request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorReply<'a> {
    /// Why.
    pub code: ErrorCode,
    /// Whether the request may have been applied.
    pub outcome: Outcome,
    /// When to try again, in milliseconds; 0 = not said.
    pub retry_after_ms: u32,
    /// `CONDITION_FAILED`: the current version, absent if there is no record. Else absent.
    pub version: Version,
    /// The largest hybrid time that the server has seen; 0 = not said.
    pub stamp_seen: u64,
    /// `UNSUPPORTED` protocol version: the lowest and highest that the server speaks. Else zeros.
    pub versions: (u16, u16),
    /// For people, at most [`ERROR_MESSAGE_BYTES_MAX`] bytes; longer ones are cut when encoded.
    pub message: &'a str,
}

impl<'a> ErrorReply<'a> {
    /// An error that was not applied, with nothing but its message.
    pub const fn new(code: ErrorCode, message: &'a str) -> Self {
        Self {
            code,
            outcome: Outcome::NotApplied,
            retry_after_ms: 0,
            version: Version::ABSENT,
            stamp_seen: 0,
            versions: (0, 0),
            message,
        }
    }
}

/// A response.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Response<'a> {
    /// To HELLO.
    Hello(HelloReply<'a>),
    /// To GET.
    Get(GetReply<'a>),
    /// To MULTI_GET.
    MultiGet(MultiGetReply<'a>),
    /// To PUT.
    Put(Written),
    /// To DELETE.
    Delete(Written),
    /// To PUT_IF.
    PutIf(Written),
    /// To DELETE_IF.
    DeleteIf(Written),
    /// To UPDATE.
    Update(Written),
    /// To BATCH.
    Batch(BatchReply<'a>),
    /// To SCAN.
    Scan(ScanReply<'a>),
    /// To STAT.
    Stat(StatReply),
    /// To NAMESPACE_CREATE: the new namespace's id.
    NamespaceCreate(u32),
    /// To NAMESPACE_LIST.
    NamespaceList(List<'a, Namespaces>),
    /// To NAMESPACE_DROP: the dropped namespace's id.
    NamespaceDrop(u32),
    /// To NAMESPACE_SET: the namespace's id.
    NamespaceSet(u32),
    /// To SERVER_INFO: JSON, for people and diagnosis.
    ServerInfo(&'a str),
    /// To PING: the request's bytes.
    Ping(&'a [u8]),
    /// To any request that failed.
    Error {
        /// The request's opcode, known or not; 0 = no request could be read.
        opcode: u8,
        /// What went wrong.
        error: ErrorReply<'a>,
    },
}

impl<'a> Response<'a> {
    /// The response in a frame, borrowed from its body.
    ///
    /// # Errors
    /// [`ProtocolError`]: the server is broken or no server; close the connection.
    pub fn decode(header: &Header, body: &'a [u8]) -> Result<Self, ProtocolError> {
        if !header.is_response() {
            return Err(ProtocolError::BadBody("a request where an answer belongs"));
        }
        let mut body = BodyReader::new(body);
        let from = &mut body;
        if header.is_error() {
            let error = ErrorReply::take(from)?;
            body.end()?;
            return Ok(Self::Error { opcode: header.opcode, error });
        }
        let opcode = Opcode::from_u8(header.opcode).ok_or(ProtocolError::UnknownOpcode(header.opcode))?;
        let response = match opcode {
            Opcode::Hello => Self::Hello(HelloReply::take(from)?),
            Opcode::Get => {
                let head = from.head::<ValueReplyHead>()?;
                let bytes = from.long(head.value_len)?;
                Self::Get(GetReply {
                    value: (head.found != 0).then_some(Value {
                        version: Version(head.version),
                        expiry_ms: head.expiry_ms.to_native(),
                        bytes,
                    }),
                    stamp_seen: head.stamp_seen.to_native(),
                })
            }
            Opcode::MultiGet => {
                let (values, stamp_seen) = take_list(from)?;
                Self::MultiGet(MultiGetReply { values, stamp_seen })
            }
            Opcode::Put => Self::Put(Written::take(from)?),
            Opcode::Delete => Self::Delete(Written::take(from)?),
            Opcode::PutIf => Self::PutIf(Written::take(from)?),
            Opcode::DeleteIf => Self::DeleteIf(Written::take(from)?),
            Opcode::Update => Self::Update(Written::take(from)?),
            Opcode::Batch => {
                let (results, stamp_seen) = take_list(from)?;
                Self::Batch(BatchReply { results, stamp_seen })
            }
            Opcode::Scan => Self::Scan(ScanReply::take(from)?),
            Opcode::Stat => {
                let head = from.head::<ValueReplyHead>()?;
                Self::Stat(StatReply {
                    stat: (head.found != 0).then_some(Stat {
                        version: Version(head.version),
                        expiry_ms: head.expiry_ms.to_native(),
                        value_bytes: head.value_len.to_native(),
                    }),
                    stamp_seen: head.stamp_seen.to_native(),
                    accesses: from.head::<AccessesHead>()?.accesses.to_native(),
                })
            }
            Opcode::NamespaceCreate => Self::NamespaceCreate(take_namespace(from)?),
            Opcode::NamespaceList => Self::NamespaceList(take_list(from)?.0),
            Opcode::NamespaceDrop => Self::NamespaceDrop(take_namespace(from)?),
            Opcode::NamespaceSet => Self::NamespaceSet(take_namespace(from)?),
            Opcode::ServerInfo => {
                let text = std::str::from_utf8(take_bytes(from)?);
                Self::ServerInfo(text.map_err(|_| ProtocolError::BadBody("text is not UTF-8"))?)
            }
            Opcode::Ping => Self::Ping(take_bytes(from)?),
        };
        body.end()?;
        Ok(response)
    }

    /// Its opcode's number.
    pub const fn opcode(&self) -> u8 {
        let opcode = match self {
            Self::Hello(_) => Opcode::Hello,
            Self::Get(_) => Opcode::Get,
            Self::MultiGet(_) => Opcode::MultiGet,
            Self::Put(_) => Opcode::Put,
            Self::Delete(_) => Opcode::Delete,
            Self::PutIf(_) => Opcode::PutIf,
            Self::DeleteIf(_) => Opcode::DeleteIf,
            Self::Update(_) => Opcode::Update,
            Self::Batch(_) => Opcode::Batch,
            Self::Scan(_) => Opcode::Scan,
            Self::Stat(_) => Opcode::Stat,
            Self::NamespaceCreate(_) => Opcode::NamespaceCreate,
            Self::NamespaceList(_) => Opcode::NamespaceList,
            Self::NamespaceDrop(_) => Opcode::NamespaceDrop,
            Self::NamespaceSet(_) => Opcode::NamespaceSet,
            Self::ServerInfo(_) => Opcode::ServerInfo,
            Self::Ping(_) => Opcode::Ping,
            Self::Error { opcode, .. } => return *opcode,
        };
        opcode.to_u8()
    }

    /// Appends the frame to `out`.
    ///
    /// # Errors
    /// [`ProtocolError::TooLarge`] or [`ProtocolError::BadBody`] when a field does not fit; `out`
    /// is unchanged.
    pub fn encode(&self, request_id: u64, epoch: u64, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        let error = if matches!(self, Self::Error { .. }) { FLAG_ERROR } else { 0 };
        write_frame(out, (self.opcode(), FLAG_RESPONSE | error), (request_id, epoch, 0), |out| self.put(out))
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        match self {
            Self::Hello(reply) => reply.put(out)?,
            Self::Get(reply) => {
                let value =
                    reply.value.unwrap_or(Value { version: Version::ABSENT, expiry_ms: 0, bytes: &[] });
                let value_len: u32 = length("value", value.bytes, u32::MAX as usize)?;
                let stat =
                    Stat { version: value.version, expiry_ms: value.expiry_ms, value_bytes: value_len };
                value_head(reply.value.is_some(), &stat, reply.stamp_seen).put(out);
                out.extend_from_slice(value.bytes);
            }
            Self::Stat(reply) => {
                let absent = Stat { version: Version::ABSENT, expiry_ms: 0, value_bytes: 0 };
                value_head(reply.stat.is_some(), &reply.stat.unwrap_or(absent), reply.stamp_seen).put(out);
                AccessesHead { accesses: reply.accesses.into() }.put(out);
            }
            Self::MultiGet(reply) => put_list(reply.values, reply.stamp_seen, out),
            Self::Put(written)
            | Self::Delete(written)
            | Self::PutIf(written)
            | Self::DeleteIf(written)
            | Self::Update(written) => written.head().put(out),
            Self::Batch(reply) => put_list(reply.results, reply.stamp_seen, out),
            Self::Scan(reply) => reply.put(out)?,
            Self::NamespaceCreate(id) | Self::NamespaceDrop(id) | Self::NamespaceSet(id) => {
                NamespaceReplyHead { id: (*id).into(), reserved: [0; 4] }.put(out);
            }
            Self::NamespaceList(namespaces) => put_list(*namespaces, 0, out),
            Self::ServerInfo(text) => put_bytes(text.as_bytes(), u32::MAX as usize, out)?,
            Self::Ping(bytes) => put_bytes(bytes, PING_BYTES_MAX, out)?,
            Self::Error { error, .. } => error.put(out),
        }
        Ok(())
    }
}

/// Appends the answer to a GET that found a value, without the value's bytes: the caller sends
/// exactly `value_bytes` bytes after it.
///
/// # Errors
/// [`ProtocolError::TooLarge`] when the frame's length does not fit 32 bits; `out` is unchanged.
#[inline]
pub fn encode_value_head(
    stat: &Stat,
    stamp_seen: u64,
    request_id: u64,
    epoch: u64,
    out: &mut Vec<u8>,
) -> Result<(), ProtocolError> {
    const HEADS_BYTES: usize = HEADER_BYTES + ValueReplyHead::BYTES;
    let bytes = HEADS_BYTES as u64 + u64::from(stat.value_bytes);
    let frame_bytes = frame_length(bytes)?;
    out.reserve(bytes as usize);
    put_head(out, (Opcode::Get.to_u8(), FLAG_RESPONSE), (request_id, epoch, 0), frame_bytes);
    value_head(true, stat, stamp_seen).put(out);
    Ok(())
}

/// Appends the answer to a single write: an opcode of which [`Opcode::is_single_write`] is true.
pub fn encode_written(opcode: Opcode, written: &Written, request_id: u64, epoch: u64, out: &mut Vec<u8>) {
    debug_assert!(opcode.is_single_write());
    write_frame(out, (opcode.to_u8(), FLAG_RESPONSE), (request_id, epoch, 0), |out| {
        written.head().put(out);
        Ok(())
    })
    .expect("a head of fixed size always fits a frame");
}

/// Appends an error answer to a request of any opcode, known or not.
pub fn encode_error(opcode: u8, error: &ErrorReply<'_>, request_id: u64, epoch: u64, out: &mut Vec<u8>) {
    write_frame(out, (opcode, FLAG_RESPONSE | FLAG_ERROR), (request_id, epoch, 0), |out| {
        error.put(out);
        Ok(())
    })
    .expect("a head and a message of bounded size always fit a frame");
}

impl<'a> HelloReply<'a> {
    fn take(from: &mut BodyReader<'a>) -> Result<Self, ProtocolError> {
        let head = from.head::<HelloReplyHead>()?;
        Ok(Self {
            version: head.version.to_native(),
            core: head.core.to_native(),
            cores: head.cores.to_native(),
            partitions: head.partitions.to_native(),
            key_bytes_max: head.key_bytes_max.to_native(),
            features: head.features.to_native(),
            node_id: head.node_id,
            incarnation: head.incarnation.to_native(),
            stamp: head.stamp.to_native(),
            value_bytes_max: head.value_bytes_max.to_native(),
            batch_ops_max: head.batch_ops_max.to_native(),
            batch_bytes_max: head.batch_bytes_max.to_native(),
            frame_bytes_max: head.frame_bytes_max.to_native(),
            in_flight_max: head.in_flight_max.to_native(),
            retry_window_ms: head.retry_window_ms.to_native(),
            shard_cores: List::take(from, u32::from(head.shards.to_native()))?,
        })
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        let shards = u16::try_from(self.shard_cores.len()).map_err(|_| ProtocolError::TooLarge {
            what: "shard map",
            bytes: self.shard_cores.as_bytes().len() as u64,
            max: 2 * u64::from(u16::MAX),
        })?;
        HelloReplyHead {
            version: self.version.into(),
            core: self.core.into(),
            cores: self.cores.into(),
            shards: shards.into(),
            partitions: self.partitions.into(),
            key_bytes_max: self.key_bytes_max.into(),
            features: self.features.into(),
            node_id: self.node_id,
            incarnation: self.incarnation.into(),
            stamp: self.stamp.into(),
            value_bytes_max: self.value_bytes_max.into(),
            batch_ops_max: self.batch_ops_max.into(),
            batch_bytes_max: self.batch_bytes_max.into(),
            frame_bytes_max: self.frame_bytes_max.into(),
            in_flight_max: self.in_flight_max.into(),
            retry_window_ms: self.retry_window_ms.into(),
        }
        .put(out);
        out.extend_from_slice(self.shard_cores.as_bytes());
        Ok(())
    }
}

impl Written {
    fn take(from: &mut BodyReader<'_>) -> Result<Self, ProtocolError> {
        let head = from.head::<WrittenHead>()?;
        Ok(Self {
            outcome: WriteOutcome::from_u8(head.outcome)?,
            version: Version(head.version),
            stamp_seen: head.stamp_seen.to_native(),
            expiry_ms: head.expiry_ms.to_native(),
            number: head.number.to_native(),
        })
    }

    fn head(&self) -> WrittenHead {
        WrittenHead {
            outcome: self.outcome.to_u8(),
            reserved: [0; 7],
            version: self.version.0,
            stamp_seen: self.stamp_seen.into(),
            expiry_ms: self.expiry_ms.into(),
            number: self.number.into(),
        }
    }
}

impl<'a> ErrorReply<'a> {
    fn take(from: &mut BodyReader<'a>) -> Result<Self, ProtocolError> {
        let head = from.head::<ErrorHead>()?;
        let message = std::str::from_utf8(from.short(head.message_len)?)
            .map_err(|_| ProtocolError::BadBody("text is not UTF-8"))?;
        Ok(Self {
            code: ErrorCode::from_u16(head.code.to_native()),
            outcome: Outcome::from_u8(head.outcome),
            retry_after_ms: head.retry_after_ms.to_native(),
            version: Version(head.version),
            stamp_seen: head.stamp_seen.to_native(),
            versions: (head.lowest.to_native(), head.highest.to_native()),
            message,
        })
    }

    fn put(&self, out: &mut Vec<u8>) {
        let cut = self.message.floor_char_boundary(ERROR_MESSAGE_BYTES_MAX);
        let message = &self.message[..cut];
        ErrorHead {
            code: self.code.to_u16().into(),
            outcome: self.outcome.to_u8(),
            reserved: [0; 1],
            retry_after_ms: self.retry_after_ms.into(),
            version: self.version.0,
            stamp_seen: self.stamp_seen.into(),
            lowest: self.versions.0.into(),
            highest: self.versions.1.into(),
            message_len: (message.len() as u16).into(),
            reserved_too: [0; 2],
        }
        .put(out);
        out.extend_from_slice(message.as_bytes());
    }
}

const _: () = assert!(ERROR_MESSAGE_BYTES_MAX <= u16::MAX as usize);

fn value_head(found: bool, stat: &Stat, stamp_seen: u64) -> ValueReplyHead {
    ValueReplyHead {
        found: u8::from(found),
        reserved: [0; 3],
        value_len: stat.value_bytes.into(),
        version: stat.version.0,
        expiry_ms: stat.expiry_ms.into(),
        stamp_seen: stamp_seen.into(),
    }
}

fn take_list<'a, K: ListKind>(from: &mut BodyReader<'a>) -> Result<(List<'a, K>, u64), ProtocolError> {
    let head = from.head::<ListReplyHead>()?;
    Ok((List::take(from, head.count.to_native())?, head.stamp_seen.to_native()))
}

fn put_list<K: ListKind>(list: List<'_, K>, stamp_seen: u64, out: &mut Vec<u8>) {
    ListReplyHead { count: list.len().into(), reserved: [0; 4], stamp_seen: stamp_seen.into() }.put(out);
    out.extend_from_slice(list.as_bytes());
}

fn take_namespace(from: &mut BodyReader<'_>) -> Result<u32, ProtocolError> {
    Ok(from.head::<NamespaceReplyHead>()?.id.to_native())
}

fn take_bytes<'a>(from: &mut BodyReader<'a>) -> Result<&'a [u8], ProtocolError> {
    let head = from.head::<BytesHead>()?;
    from.long(head.bytes_len)
}

fn put_bytes(bytes: &[u8], max: usize, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
    let bytes_len: u32 = length("body", bytes, max)?;
    BytesHead { bytes_len: bytes_len.into(), reserved: [0; 4] }.put(out);
    out.extend_from_slice(bytes);
    Ok(())
}
