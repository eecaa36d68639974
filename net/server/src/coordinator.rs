//! The coordinator: every request passes here on its way from a connection to a shard.
//!
//! It admits a request (the node's state, deadline, queued work), decodes it, decides who must see
//! it and sends it there. Today a partition has one replica and that is on this node, so the
//! decision is between a shard of this core and another core. Replication enters in
//! [`Core::place`] and in the handlers' answers; connections know nothing of either.

use std::rc::Rc;

use pinion_engine::{KEY_BYTES_MAX, Key, NamespaceId, Partition};
use pinion_env::Monotonic;
use pinion_protocol::{Header, KeyRequest, Opcode, ProtocolError, Request, Response};

use crate::core::{Core, CoreShard, Phase, ReplyTo, Ticket};
use crate::counters::OperationClass;
use crate::message::ServerEnv;
use crate::refusal::Refusal;
use crate::{info, multi_get, namespaces, read, scan, write};

/// A frame that came from a connection or from another core.
pub(crate) struct Arrival<'a> {
    pub(crate) reply: ReplyTo,
    pub(crate) header: Header,
    pub(crate) body: &'a [u8],
    /// When its bytes were received.
    pub(crate) received: Monotonic,
    /// The time of this turn.
    pub(crate) now: Monotonic,
    /// When it is too late.
    pub(crate) deadline: Option<Monotonic>,
}

/// Who owns a partition.
pub(crate) enum Place<'a, E: ServerEnv> {
    /// A shard of this core.
    Here(&'a CoreShard<E>),
    /// Another core of this node.
    Core(u16),
}

/// Takes in a request; it will be answered exactly once.
pub(crate) fn arrive<E: ServerEnv>(core: &Rc<Core<E>>, arrival: Arrival<'_>) {
    let Arrival { reply, header, body, received, now, deadline } = arrival;
    core.begin();
    let opcode = header.opcode;
    let class = Opcode::from_u8(opcode).map_or(OperationClass::Other, OperationClass::of);
    let ticket = Ticket { reply, opcode, class, request_id: header.request_id, received, deadline };
    if core.phase.get() != Phase::Serving {
        return core.refuse(&ticket, &Refusal::SHUTTING_DOWN);
    }
    if core.requests() > core.limits().core_requests_max {
        return core.refuse_overloaded(&ticket, "too many requests are under way");
    }
    if core.refuse_late(&ticket, now) {
        return;
    }
    match Request::decode(&header, body) {
        Ok(request) => submit(core, ticket, header, body, request),
        Err(error) => core.refuse(&ticket, &Refusal::protocol(&error)),
    }
}

fn submit<E: ServerEnv>(
    core: &Rc<Core<E>>,
    ticket: Ticket,
    header: Header,
    body: &[u8],
    request: Request<'_>,
) {
    // The shard of a single key with the key and its namespace's default TTL; `None` when the
    // request has been sent elsewhere or refused.
    let placed = |namespace, user| {
        let (key, default_ttl_ms) = core.checked_key(&ticket, namespace, user)?;
        match core.place(key.partition) {
            Place::Here(shard) => Some((shard, key, default_ttl_ms)),
            Place::Core(owner) => {
                core.forward(owner, ticket, header, body);
                None
            }
        }
    };
    match request {
        Request::Get(KeyRequest { namespace, key }) => {
            if let Some((shard, key, _)) = placed(namespace, key) {
                read::get(core, ticket, shard, &key);
            }
        }
        Request::Stat(KeyRequest { namespace, key }) => {
            if let Some((shard, key, _)) = placed(namespace, key) {
                read::stat(core, ticket, shard, &key);
            }
        }
        Request::Put(put) => {
            if let Some((shard, key, default_ttl_ms)) = placed(put.write.namespace, put.write.key) {
                write::put(core, ticket, shard, &key, &put, None, default_ttl_ms);
            }
        }
        Request::PutIf(put, condition) => {
            if let Some((shard, key, default_ttl_ms)) = placed(put.write.namespace, put.write.key) {
                write::put(core, ticket, shard, &key, &put, Some(condition), default_ttl_ms);
            }
        }
        Request::Delete(delete) => {
            if let Some((shard, key, _)) = placed(delete.namespace, delete.key) {
                write::delete(core, ticket, shard, &key, &delete, None);
            }
        }
        Request::DeleteIf(delete, condition) => {
            if let Some((shard, key, _)) = placed(delete.namespace, delete.key) {
                write::delete(core, ticket, shard, &key, &delete, Some(condition));
            }
        }
        Request::Update(update) => {
            if let Some((shard, key, default_ttl_ms)) = placed(update.write.namespace, update.write.key) {
                write::update(core, ticket, shard, &key, &update, default_ttl_ms);
            }
        }
        Request::MultiGet(request) => multi_get::multi_get(core, ticket, &request),
        Request::Batch(batch) => crate::batch::batch(core, ticket, &batch),
        Request::Scan(page) => {
            if let Some(owner) = scan::page(core, ticket, (header, body), &page) {
                core.forward(owner, ticket, header, body);
            }
        }
        Request::NamespaceCreate(_) | Request::NamespaceDrop(_) | Request::NamespaceSet(_) => {
            if core.index == 0 {
                namespaces::change(core, ticket, &request);
            } else {
                core.forward(0, ticket, header, body);
            }
        }
        Request::NamespaceList => namespaces::list(core, ticket),
        Request::ServerInfo { section } => info::gather(core, ticket, section),
        Request::Ping(bytes) => core.answer_with(&ticket, &Response::Ping(bytes)),
        Request::Hello(_) => {
            let error = ProtocolError::BadBody("HELLO opens a connection and is not repeated");
            core.refuse(&ticket, &Refusal::protocol(&error));
        }
    }
}

impl<E: ServerEnv> Core<E> {
    /// Who owns a partition.
    pub(crate) fn place(&self, partition: Partition) -> Place<'_, E> {
        let shard = partition.shard(self.layout.shards, self.layout.partitions);
        match self.shard(shard) {
            Some(shard) => Place::Here(shard),
            None => Place::Core(self.layout.core_of(shard)),
        }
    }

    /// A key with its place, and the default TTL of its namespace; refuses the request if either
    /// cannot be.
    pub(crate) fn checked_key<'k>(
        &self,
        ticket: &Ticket,
        namespace: u32,
        user: &'k [u8],
    ) -> Option<(Key<'k>, u64)> {
        let default_ttl_ms = self.checked_namespace(ticket, namespace)?;
        if user.is_empty() || user.len() > KEY_BYTES_MAX {
            let bytes = user.len() as u64;
            let error = pinion_engine::Error::TooLarge { what: "key", bytes, max: KEY_BYTES_MAX as u64 };
            self.refuse(ticket, &Refusal::engine(&error));
            return None;
        }
        Some((Key::new(NamespaceId(namespace), user, self.layout.partitions), default_ttl_ms))
    }

    /// The default TTL of a live namespace; refuses the request if there is none of that id.
    pub(crate) fn checked_namespace(&self, ticket: &Ticket, namespace: u32) -> Option<u64> {
        let default_ttl_ms = self.namespaces.borrow().default_ttl_ms(namespace);
        if default_ttl_ms.is_none() {
            self.refuse(ticket, &Refusal::no_such_namespace());
        }
        default_ttl_ms
    }
}
