//! The coordinator: every request passes here on its way from a connection to a shard.
//!
//! It admits a request (the node's state, deadline, queued work), decodes it, decides who must see
//! it and sends it there. Today a partition has one replica and that is on this node, so the
//! decision is between a shard of this core and another core. Replication enters in
//! [`Core::place`] and in the handlers' answers; connections know nothing of either.

use std::rc::Rc;

use pinion_engine::{KEY_BYTES_MAX, Key, LOOK_AHEAD_MAX, NamespaceId, Partition};
use pinion_env::Monotonic;
use pinion_protocol::{Frame, Header, KeyRequest, Opcode, ProtocolError, Put, Request, Response};

use crate::core::{Core, CoreShard, Phase, Ticket};
use crate::message::ServerEnv;
use crate::refusal::Refusal;
use crate::{info, multi_get, namespaces, read, scan, write};

/// Requests that are looked at before the first of them is dealt with, at most.
pub(crate) const GROUP_MAX: usize = LOOK_AHEAD_MAX;

/// A frame that came from a connection or from another core.
pub(crate) struct Arrival<'a> {
    pub(crate) ticket: Ticket,
    pub(crate) header: Header,
    pub(crate) body: &'a [u8],
    /// The time of this turn.
    pub(crate) now: Monotonic,
    /// It is a GET of this key, as [`look_ahead`] has found out.
    pub(crate) get: Option<Key<'a>>,
}

/// Tells the keys of those of a group of requests, at most [`GROUP_MAX`], that are GETs, and asks
/// for the memory that they will read. The misses of one after the other would take most of the time
/// of small gets.
pub(crate) fn look_ahead<'a, E: ServerEnv>(
    core: &Core<E>,
    group: &[Frame<'a>],
) -> [Option<Key<'a>>; GROUP_MAX] {
    let mut keys = [None; GROUP_MAX];
    for (key, frame) in keys.iter_mut().zip(group) {
        *key = get_key(core, frame);
    }
    for (number, shard) in core.shards() {
        let mut hashes = [0; GROUP_MAX];
        let mut count = 0;
        for key in keys.iter().flatten().filter(|key| core.shard_of(key.partition) == number) {
            hashes[count] = key.hash;
            count += 1;
        }
        if count > 1 {
            shard.look_ahead(&hashes[..count]);
        }
    }
    keys
}

/// As [`look_ahead`] for a request by itself: whether it is a GET of this core. Waits for less,
/// because nothing overlaps with it.
pub(crate) fn look_ahead_alone<E: ServerEnv>(core: &Core<E>, frame: &Frame<'_>) -> bool {
    let Some(key) = get_key(core, frame) else { return false };
    let Place::Here(shard) = core.place(key.partition) else { return false };
    shard.look_ahead_alone(key.hash);
    true
}

/// The key of a GET.
#[inline]
fn get_key<'a, E: ServerEnv>(core: &Core<E>, frame: &Frame<'a>) -> Option<Key<'a>> {
    let KeyRequest { namespace, key } = KeyRequest::decode_get(&frame.header, frame.body)?;
    is_key(key).then(|| core.key(namespace, key))
}

/// Who owns a partition.
pub(crate) enum Place<'a, E: ServerEnv> {
    /// A shard of this core.
    Here(&'a CoreShard<E>),
    /// Another core of this node.
    Core(u16),
}

/// Takes in a request; it will be answered exactly once.
pub(crate) fn arrive<E: ServerEnv>(core: &Rc<Core<E>>, arrival: &Arrival<'_>) {
    let Arrival { ticket, header, body, now, get } = arrival;
    core.begin();
    if core.phase.get() != Phase::Serving {
        return core.refuse(ticket, &Refusal::SHUTTING_DOWN);
    }
    if core.requests() > core.limits().core_requests_max {
        return core.refuse_overloaded(ticket, "too many requests are under way");
    }
    if core.refuse_late(ticket, *now) || core.refuse_full(ticket) {
        return;
    }
    if let Some(key) = get {
        if core.checked_namespace(ticket, key.namespace.0).is_some() {
            match core.place(key.partition) {
                Place::Here(shard) => read::get(core, ticket, shard, key),
                Place::Core(owner) => core.forward(owner, *ticket, *header, body),
            }
        }
        return;
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
        Request::MultiGet(ref request) => multi_get::multi_get(core, *ticket, request),
        Request::Batch(ref batch) => crate::batch::batch(core, *ticket, batch),
        Request::Scan(ref page) => {
            if let Some(owner) = scan::page(core, *ticket, (*header, body), page) {
                core.forward(owner, *ticket, *header, body);
            }
        }
        Request::NamespaceCreate(_) | Request::NamespaceDrop(_) | Request::NamespaceSet(_) => {
            if core.index == 0 {
                namespaces::change(core, *ticket, request);
            } else {
                core.forward(0, *ticket, *header, body);
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
    (header, body): (&Header, &[u8]),
    namespace: u32,
    user: &'k [u8],
) -> Option<(&'c CoreShard<E>, Key<'k>, u64)> {
    let default_ttl_ms = core.checked_namespace(ticket, namespace)?;
    let key = core.checked_key(ticket, namespace, user)?;
    match core.place(key.partition) {
        Place::Here(shard) => Some((shard, key, default_ttl_ms)),
        Place::Core(owner) => {
            core.forward(owner, *ticket, *header, body);
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
    fn shard_of(&self, partition: Partition) -> u16 {
        partition.shard(self.layout.shards, self.layout.partitions)
    }

    /// A key of this database.
    #[inline]
    fn key<'k>(&self, namespace: u32, user: &'k [u8]) -> Key<'k> {
        Key::new(NamespaceId(namespace), user, self.layout.partitions)
    }

    /// A key with its place; refuses the request if it is too short or too long.
    pub(crate) fn checked_key<'k>(&self, ticket: &Ticket, namespace: u32, user: &'k [u8]) -> Option<Key<'k>> {
        if is_key(user) {
            return Some(self.key(namespace, user));
        }
        let bytes = user.len() as u64;
        let error = pinion_engine::Error::TooLarge { what: "key", bytes, max: KEY_BYTES_MAX as u64 };
        self.refuse(ticket, &Refusal::engine(&error));
        None
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
