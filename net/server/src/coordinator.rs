//! The coordinator: every request passes here on its way from a connection to a shard.
//!
//! It admits a request (the node's state, deadline, queued work), decodes it, decides who must see
//! it and sends it there. Today a partition has one replica and that is on this node, so the
//! decision is between a shard of this core and another core. Replication enters in
//! [`Core::place`] and in the handlers' answers; connections know nothing of either.

use std::rc::Rc;

use pinion_engine::{KEY_BYTES_MAX, Key, NamespaceId, Partition};
use pinion_env::Monotonic;
use pinion_protocol::{Frame, Header, KeyRequest, Opcode, ProtocolError, Put, Request, Response};

use crate::core::{Core, CoreShard, Phase, Ticket};
use crate::group::Get;
use crate::message::ServerEnv;
use crate::refusal::Refusal;
use crate::{info, multi_get, namespaces, read, scan, write};

/// A frame that came from a connection or from another core.
pub(crate) struct Arrival<'a, E: ServerEnv> {
    pub(crate) ticket: Ticket,
    pub(crate) header: Header,
    pub(crate) body: &'a [u8],
    /// The time of this turn.
    pub(crate) now: Monotonic,
    /// It is this GET, and memory cannot answer it.
    pub(crate) get: Option<&'a Get<'a, 'a, E>>,
}

/// If a request is a GET of a key of this core: which.
#[inline]
pub(crate) fn get_here<'c, 'a, E: ServerEnv>(core: &'c Core<E>, frame: &Frame<'a>) -> Option<Get<'c, 'a, E>> {
    let KeyRequest { namespace, key } = KeyRequest::decode_get(&frame.header, frame.body)?;
    if !is_key(key) {
        return None;
    }
    let key = core.key(namespace, key);
    match core.place(key.partition) {
        Place::Here(shard) => Some(Get::new(&frame.header, shard, key)),
        Place::Core(_) => None,
    }
}

/// Who owns a partition.
pub(crate) enum Place<'a, E: ServerEnv> {
    /// A shard of this core.
    Here(&'a CoreShard<E>),
    /// Another core of this node.
    Core(u16),
}

/// Takes in a request; it will be answered exactly once.
pub(crate) fn arrive<E: ServerEnv>(core: &Rc<Core<E>>, arrival: &Arrival<'_, E>) {
    let Arrival { ticket, header, body, now, get } = arrival;
    core.begin();
    if !admit(core, ticket, *now) {
        return;
    }
    if let Some(Get { shard, key, .. }) = get {
        return read::get_from_tables(core, ticket, shard, key);
    }
    if header.opcode == Opcode::Put.to_u8() {
        return match Put::decode(header, body) {
            Ok(ref put) => submit_put(core, ticket, (header, body), put),
            Err(error) => core.refuse(ticket, &Refusal::protocol(&error)),
        };
    }
    match Request::decode(header, body) {
        Ok(ref request) => submit(core, ticket, (header, body), request),
        Err(error) => core.refuse(ticket, &Refusal::protocol(&error)),
    }
}

/// Whether a request that has been counted in may go on; if not it has been answered.
pub(crate) fn admit<E: ServerEnv>(core: &Core<E>, ticket: &Ticket, now: Monotonic) -> bool {
    if core.phase.get() != Phase::Serving {
        core.refuse(ticket, &Refusal::SHUTTING_DOWN);
        return false;
    }
    if core.requests() > core.limits().core_requests_max {
        core.refuse_overloaded(ticket, "too many requests are under way");
        return false;
    }
    !core.refuse_late(ticket, now) && !core.refuse_full(ticket)
}

fn submit<E: ServerEnv>(
    core: &Rc<Core<E>>,
    ticket: &Ticket,
    (header, body): (&Header, &[u8]),
    request: &Request<'_>,
) {
    let placed = |namespace, user| place_key(core, ticket, (header, body), namespace, user);
    match *request {
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
        Request::Put(ref put) => submit_put(core, ticket, (header, body), put),
        Request::PutIf(ref put, condition) => {
            if let Some((shard, key, default_ttl_ms)) = placed(put.write.namespace, put.write.key) {
                write::put(core, *ticket, shard, &key, put, Some(condition), default_ttl_ms);
            }
        }
        Request::Delete(ref delete) => {
            if let Some((shard, key, _)) = placed(delete.namespace, delete.key) {
                write::delete(core, *ticket, shard, &key, delete, None);
            }
        }
        Request::DeleteIf(ref delete, condition) => {
            if let Some((shard, key, _)) = placed(delete.namespace, delete.key) {
                write::delete(core, *ticket, shard, &key, delete, Some(condition));
            }
        }
        Request::Update(ref update) => {
            if let Some((shard, key, default_ttl_ms)) = placed(update.write.namespace, update.write.key) {
                write::update(core, *ticket, shard, &key, update, default_ttl_ms);
            }
        }
        Request::MultiGet(ref request) => {
            multi_get::gather(core, *ticket, request.namespace, request.keys.iter());
        }
        Request::Batch(ref batch) => crate::batch::batch(core, *ticket, batch),
        Request::Scan(ref page) => scan::page(core, *ticket, (header, body), page),
        Request::NamespaceCreate(_) | Request::NamespaceDrop(_) | Request::NamespaceSet(_) => {
            if core.index == 0 {
                namespaces::change(core, *ticket, request);
            } else {
                core.forward(0, *ticket, (header, body), None);
            }
        }
        Request::NamespaceList => namespaces::list(core, *ticket),
        Request::ServerInfo { section } => info::gather(core, *ticket, section),
        Request::Ping(bytes) => core.answer_with(ticket, &Response::Ping(bytes)),
        Request::Hello(_) => {
            let error = ProtocolError::BadBody("HELLO opens a connection and is not repeated");
            core.refuse(ticket, &Refusal::protocol(&error));
        }
    }
}

fn submit_put<E: ServerEnv>(core: &Rc<Core<E>>, ticket: &Ticket, frame: (&Header, &[u8]), put: &Put<'_>) {
    if let Some((shard, key, default_ttl_ms)) =
        place_key(core, ticket, frame, put.write.namespace, put.write.key)
    {
        write::put(core, *ticket, shard, &key, put, None, default_ttl_ms);
    }
}

/// The shard of a single key with the key and its namespace's default TTL; `None` when the request
/// has been sent elsewhere or refused.
#[inline]
fn place_key<'c, 'k, E: ServerEnv>(
    core: &'c Core<E>,
    ticket: &Ticket,
    frame: (&Header, &[u8]),
    namespace: u32,
    user: &'k [u8],
) -> Option<(&'c CoreShard<E>, Key<'k>, u64)> {
    let default_ttl_ms = core.checked_namespace(ticket, namespace)?;
    let key = core.checked_key(ticket, namespace, user)?;
    match core.place(key.partition) {
        Place::Here(shard) => Some((shard, key, default_ttl_ms)),
        Place::Core(owner) => {
            core.forward(owner, *ticket, frame, Some(core.place_of(&key)));
            None
        }
    }
}

impl<E: ServerEnv> Core<E> {
    /// Who owns a partition.
    pub(crate) fn place(&self, partition: Partition) -> Place<'_, E> {
        let shard = self.shard_of(partition);
        match self.shard(shard) {
            Some(shard) => Place::Here(shard),
            None => Place::Core(self.layout.core_of(shard)),
        }
    }

    /// The shard of this node that a partition belongs to.
    pub(crate) fn shard_of(&self, partition: Partition) -> u16 {
        partition.shard(self.layout.shards, self.layout.partitions)
    }

    /// A key of this database.
    #[inline]
    pub(crate) fn key<'k>(&self, namespace: u32, user: &'k [u8]) -> Key<'k> {
        Key::new(NamespaceId(namespace), user, self.layout.partitions)
    }

    /// A key with its place; refuses the request if it is too short or too long.
    pub(crate) fn checked_key<'k>(&self, ticket: &Ticket, namespace: u32, user: &'k [u8]) -> Option<Key<'k>> {
        (!self.refuse_bad_key(ticket, user)).then(|| self.key(namespace, user))
    }

    /// Whether a key is too short or too long; if so the request has been answered.
    pub(crate) fn refuse_bad_key(&self, ticket: &Ticket, user: &[u8]) -> bool {
        if is_key(user) {
            return false;
        }
        let bytes = user.len() as u64;
        let error = pinion_engine::Error::TooLarge { what: "key", bytes, max: KEY_BYTES_MAX as u64 };
        self.refuse(ticket, &Refusal::engine(&error));
        true
    }

    /// Whether there is a namespace of this id.
    pub(crate) fn is_live(&self, namespace: u32) -> bool {
        self.namespaces.borrow().default_ttl_ms(namespace).is_some()
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

const fn is_key(user: &[u8]) -> bool {
    !user.is_empty() && user.len() <= KEY_BYTES_MAX
}
