//! Between the owned operations of this crate and the borrowed messages of the protocol.

use std::time::Duration;

use bytes::Bytes;
use pinion_protocol as protocol;
use pinion_protocol::{
    Batch, Direction, ErrorReply, FEATURES, GetReply, Header, Hello, HelloReply, KeyRequest, ListBuf,
    MultiGet, NamespaceOptions, NamespaceState, OperationResult, ProtocolError, Put, Request, Response, Scan,
    ScanKind, UpdateOperation, Value, ValueItem, WriteOutcome,
};

use super::connection::Terms;
use super::map::{Limits, ServerMap};
use super::operation::{Operation, Page, PageRequest, Reply, Try, Update, Write};
use super::session::Welcome;
use crate::ErrorCode;
use crate::error::{Error, Outcome, Result};
use crate::record::{Entry, Namespace, Stat, Written, expiry};
use crate::scan::{Kind, ScanRecord};
use crate::ttl::Ttl;

/// Appends the frame of HELLO.
pub(crate) fn encode_hello(terms: &Terms, request_id: u64, out: &mut Vec<u8>) -> Result<()> {
    let hello = Hello { wanted_core: terms.wanted_core, features: FEATURES, client_name: &terms.client_name };
    Request::Hello(hello).encode(request_id, 0, 0, out).map_err(|error| invalid(&error))
}

/// What the answer to HELLO tells.
pub(crate) fn decode_hello(header: &Header, body: &[u8]) -> Result<Welcome> {
    match Response::decode(header, body).map_err(|error| broken(&error))? {
        Response::Hello(reply) => welcome(&reply),
        Response::Error { error, .. } => Err(refused(&error)),
        _ => Err(nonsense("the first answer is not to HELLO")),
    }
}

/// Appends the frame of a try. `out` is unchanged on error.
pub(crate) fn encode(
    Try { operation, trace }: &Try,
    request_id: u64,
    deadline_us: u32,
    out: &mut Vec<u8>,
) -> Result<()> {
    // The map's epoch matters between nodes; one node answers for any.
    let send = |request: Request<'_>, out: &mut Vec<u8>| match trace {
        None => request.encode(request_id, 0, deadline_us, out),
        Some(trace) => request.encode_traced((request_id, 0, deadline_us), trace, out),
    };
    let sent = match operation {
        Operation::Get { namespace, key } => {
            send(Request::Get(KeyRequest { namespace: *namespace, key }), out)
        }
        Operation::Stat { namespace, key } => {
            send(Request::Stat(KeyRequest { namespace: *namespace, key }), out)
        }
        Operation::GetMany { namespace, keys, .. } => {
            let mut list = ListBuf::new();
            keys.iter().try_for_each(|key| list.push(&key.as_ref())).and_then(|()| {
                send(Request::MultiGet(MultiGet { namespace: *namespace, keys: list.list() }), out)
            })
        }
        Operation::Put { write, value, ttl } => send(Request::Put(put(write, value, *ttl)), out),
        Operation::PutIf { write, value, ttl, condition } => {
            send(Request::PutIf(put(write, value, *ttl), *condition), out)
        }
        Operation::Delete { write } => send(Request::Delete(borrowed(write)), out),
        Operation::DeleteIf { write, condition } => send(Request::DeleteIf(borrowed(write), *condition), out),
        Operation::Update { write, update } => {
            let operation = match update {
                Update::Add(by) => UpdateOperation::Add(*by),
                Update::Append(bytes) => UpdateOperation::Append(bytes),
                Update::SetRange { offset, bytes } => UpdateOperation::SetRange { offset: *offset, bytes },
                Update::SetExpiry { ttl_ms } => UpdateOperation::SetExpiry { ttl_ms: *ttl_ms },
            };
            send(Request::Update(protocol::Update { write: borrowed(write), operation }), out)
        }
        Operation::Batch { namespace, durability, stamp, operations, .. } => {
            let mut list = ListBuf::new();
            operations
                .iter()
                .try_for_each(|operation| {
                    list.push(&match &operation.value {
                        Some(value) => protocol::BatchOperation::Put {
                            key: &operation.key,
                            value,
                            ttl: sent_ttl(operation.ttl),
                        },
                        None => protocol::BatchOperation::Delete { key: &operation.key },
                    })
                })
                .and_then(|()| {
                    let batch = Batch {
                        namespace: *namespace,
                        durability: *durability,
                        stamp: *stamp,
                        operations: list.list(),
                    };
                    send(Request::Batch(batch), out)
                })
        }
        Operation::Scan(page) => send(Request::Scan(scan(page)), out),
        Operation::NamespaceCreate { name, default_ttl_ms } => {
            let options = NamespaceOptions { name, default_ttl_ms: *default_ttl_ms };
            send(Request::NamespaceCreate(options), out)
        }
        Operation::NamespaceSet { name, default_ttl_ms } => {
            let options = NamespaceOptions { name, default_ttl_ms: *default_ttl_ms };
            send(Request::NamespaceSet(options), out)
        }
        Operation::NamespaceDrop { name } => send(Request::NamespaceDrop(name), out),
        Operation::NamespaceList => send(Request::NamespaceList, out),
        Operation::ServerInfo { section } => send(Request::ServerInfo { section: section.to_u8() }, out),
        Operation::Ping { bytes, .. } => send(Request::Ping(bytes), out),
    };
    sent.map_err(|error| invalid(&error))
}

/// The answer in a frame and the largest stamp that the server has seen (0 = not said).
///
/// # Errors
/// The outer one: the server broke the protocol and the connection must be closed.
pub(crate) fn decode(header: &Header, body: &[u8]) -> Result<(Result<Reply>, u64), ProtocolError> {
    let answer = match Response::decode(header, body)? {
        Response::Get(GetReply { value, stamp_seen }) => (Reply::Entry(value.map(entry)), stamp_seen),
        Response::MultiGet(reply) => {
            let item = |item| match item {
                ValueItem::Missing => Some(None),
                ValueItem::Found(value) => Some(Some(entry(value))),
                ValueItem::NotRead => None,
            };
            (Reply::Entries(reply.values.iter().map(item).collect()), reply.stamp_seen)
        }
        Response::Put(reply)
        | Response::Delete(reply)
        | Response::PutIf(reply)
        | Response::DeleteIf(reply) => (Reply::Written(written(&reply)), reply.stamp_seen),
        Response::Update(reply) => {
            let updated = match reply.outcome {
                WriteOutcome::Missing => Reply::Missing,
                WriteOutcome::Applied | WriteOutcome::Superseded => {
                    Reply::Updated { written: written(&reply), number: reply.number }
                }
            };
            (updated, reply.stamp_seen)
        }
        Response::Batch(reply) => {
            let status = |result| match result {
                OperationResult::Applied(version) => Ok(Written { version, expiry: None, superseded: false }),
                OperationResult::Superseded(version) => {
                    Ok(Written { version, expiry: None, superseded: true })
                }
                OperationResult::Failed { code, outcome, retry_after_ms } => {
                    Err(refused(&ErrorReply { outcome, retry_after_ms, ..ErrorReply::new(code, "") }))
                }
            };
            (Reply::Batch(reply.results.iter().map(status).collect()), reply.stamp_seen)
        }
        Response::Scan(reply) => {
            let record = |record: protocol::Record<'_>| ScanRecord {
                key: Bytes::copy_from_slice(record.key),
                value: Bytes::copy_from_slice(record.value.bytes),
                version: record.value.version,
                expiry: expiry(record.value.expiry_ms),
            };
            let page = Page {
                records: reply.records.iter().map(record).collect(),
                cursor: Bytes::copy_from_slice(reply.cursor),
                done: reply.done,
            };
            (Reply::Page(page), reply.stamp_seen)
        }
        Response::Stat(reply) => {
            let stat = |stat: protocol::Stat| Stat {
                version: stat.version,
                expiry: expiry(stat.expiry_ms),
                value_bytes: stat.value_bytes,
                accesses: reply.accesses,
            };
            (Reply::Stat(reply.stat.map(stat)), reply.stamp_seen)
        }
        Response::NamespaceCreate(id) | Response::NamespaceDrop(id) | Response::NamespaceSet(id) => {
            (Reply::Namespace(id), 0)
        }
        Response::NamespaceList(list) => {
            let namespace = |info: protocol::NamespaceInfo<'_>| Namespace {
                id: info.id,
                name: info.name.to_owned(),
                default_ttl: (info.default_ttl_ms != 0).then(|| Duration::from_millis(info.default_ttl_ms)),
                dropped: info.state == NamespaceState::Dropped,
            };
            (Reply::Namespaces(list.iter().map(namespace).collect()), 0)
        }
        Response::ServerInfo(text) => (Reply::Info(text.to_owned()), 0),
        Response::Ping(bytes) => (Reply::Pong(Bytes::copy_from_slice(bytes)), 0),
        Response::Error { error, .. } => return Ok((Err(refused(&error)), error.stamp_seen)),
        Response::Hello(_) => return Err(ProtocolError::BadBody("a second answer to HELLO")),
    };
    Ok((Ok(answer.0), answer.1))
}

/// The error that closes a connection whose server broke the protocol.
pub(crate) fn broken(error: &ProtocolError) -> Error {
    Error::Protocol { outcome: Outcome::NotApplied, message: error.to_string() }
}

/// The error that a server sends with request id 0 before it closes: it could not, or would not, read
/// what we sent.
pub(crate) fn farewell(header: &Header, body: &[u8]) -> Error {
    match Response::decode(header, body) {
        Ok(Response::Error { error, .. }) => refused(&error),
        Ok(_) => nonsense("an answer to a request that was not made"),
        Err(error) => broken(&error),
    }
}

/// As [`broken`], found by this crate.
pub(crate) fn nonsense(what: &str) -> Error {
    Error::Protocol { outcome: Outcome::NotApplied, message: what.to_owned() }
}

/// The error of a request that cannot be sent.
fn invalid(error: &ProtocolError) -> Error {
    Error::Invalid(error.to_string())
}

fn refused(error: &ErrorReply<'_>) -> Error {
    if error.code == ErrorCode::ConditionFailed {
        return Error::ConditionFailed { current: (!error.version.is_absent()).then_some(error.version) };
    }
    Error::Server {
        code: error.code,
        outcome: match error.outcome {
            protocol::Outcome::NotApplied => Outcome::NotApplied,
            protocol::Outcome::Unknown => Outcome::Unknown,
        },
        retry_after: Duration::from_millis(u64::from(error.retry_after_ms)),
        message: error.message.to_owned(),
    }
}

fn welcome(reply: &HelloReply<'_>) -> Result<Welcome> {
    let shard_cores: Vec<u16> = reply.shard_cores.iter().collect();
    let fits = protocol::placement::partition_of_tag(&[], reply.partitions).is_some()
        && !shard_cores.is_empty()
        && reply.core < reply.cores
        && shard_cores.iter().all(|core| *core < reply.cores);
    if !fits {
        return Err(nonsense("HELLO's map of shards and cores contradicts itself"));
    }
    let map = ServerMap {
        cores: reply.cores,
        partitions: reply.partitions,
        shard_cores,
        limits: Limits {
            key_bytes_max: reply.key_bytes_max as usize,
            value_bytes_max: reply.value_bytes_max as usize,
            batch_operations_max: reply.batch_ops_max as usize,
            batch_bytes_max: reply.batch_bytes_max as usize,
            frame_bytes_max: reply.frame_bytes_max as usize,
        },
        retry_window: Duration::from_millis(u64::from(reply.retry_window_ms)),
    };
    Ok(Welcome { map, core: reply.core, stamp: reply.stamp, in_flight_max: reply.in_flight_max })
}

fn borrowed(write: &Write) -> protocol::Write<'_> {
    protocol::Write {
        namespace: write.namespace,
        key: &write.key,
        durability: write.durability,
        stamp: write.stamp,
    }
}

fn put<'a>(write: &'a Write, value: &'a [u8], ttl: Ttl) -> Put<'a> {
    Put { write: borrowed(write), ttl: sent_ttl(ttl), value }
}

fn sent_ttl(ttl: Ttl) -> protocol::Ttl {
    ttl.millis().map_or(protocol::Ttl::NamespaceDefault, protocol::Ttl::from_millis)
}

fn scan(page: &PageRequest) -> Scan<'_> {
    Scan {
        namespace: page.namespace,
        kind: match &page.range.kind {
            Kind::Placement(_) => ScanKind::Placement,
            Kind::Tag(tag) => ScanKind::Tag(tag),
            Kind::Ordered => ScanKind::Ordered { shard: page.shard.unwrap_or_default() },
        },
        direction: if page.range.reverse { Direction::Reverse } else { Direction::Forward },
        limit: page.records_max,
        bytes_max: page.bytes_max,
        keys_only: page.range.keys_only,
        start: match &page.range.kind {
            Kind::Placement(from) => from,
            Kind::Tag(_) | Kind::Ordered => &page.range.start,
        },
        end: &page.range.end,
        prefix: &page.range.prefix,
        cursor: &page.cursor,
    }
}

fn entry(value: Value<'_>) -> Entry {
    Entry {
        value: Bytes::copy_from_slice(value.bytes),
        version: value.version,
        expiry: expiry(value.expiry_ms),
    }
}

fn written(reply: &protocol::Written) -> Written {
    Written {
        version: reply.version,
        expiry: expiry(reply.expiry_ms),
        superseded: reply.outcome == WriteOutcome::Superseded,
    }
}
