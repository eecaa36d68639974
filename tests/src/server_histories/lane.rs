//! What a client does: one call after the other, drawn from the weights of this history, each put
//! down with its answer.
//!
//! A lane is one of several things that a client does at once. Values are never repeated, so that
//! what is read tells which write it came from.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::time::Duration;

use pinion_protocol::{
    Batch, BatchOperation, Condition as Wanted, Durability, ErrorCode, KeyRequest, Keys, ListBuf, MultiGet,
    OperationResult, Operations, Outcome, ProposedStamp, Put, Request, Response, Scan, ScanKind, Ttl, Update,
    UpdateOperation, Value, ValueItem, Version, Write, WriteOutcome, placement,
};

use super::client::{Client, Ended, Manner, error};
use super::history::{History, Name, Span};
use super::model::{Answer, Asked, Change, Condition, Content, Found, stamp, stamp_of, version_of};
use super::plan::{Kind, Plan};
use super::scan;
use crate::world::Random;

/// What all lanes of a history share.
pub(super) struct Scene {
    pub(super) history: History,
    pub(super) plan: Plan,
    /// The namespaces in use and the default TTL of each, in milliseconds.
    pub(super) namespaces: RefCell<BTreeMap<u32, u64>>,
    values: Cell<u64>,
}

impl Scene {
    pub(super) fn new(plan: Plan) -> Self {
        Self {
            history: History::default(),
            plan,
            namespaces: RefCell::new(BTreeMap::from([(0, 0)])),
            values: Cell::new(0),
        }
    }
}

/// A lane of a client.
pub(super) struct Lane {
    pub(super) scene: Rc<Scene>,
    pub(super) client: Rc<Client>,
    pub(super) line: usize,
    pub(super) random: RefCell<Random>,
    /// Versions that were seen, for conditions.
    pub(super) seen: RefCell<BTreeMap<Name, Version>>,
}

/// A value and its TTL in milliseconds; `None` = the namespace's.
type Valued = (Vec<u8>, Option<u64>);

/// A write of one key before it is sent.
struct Wish<'a> {
    name: &'a Name,
    change: Change,
    condition: Option<Condition>,
    stamp: Option<ProposedStamp>,
}

impl Lane {
    /// Makes so many calls.
    pub(super) async fn run(&self, calls: u64) {
        self.client.meet(self.line).await;
        for _ in 0..calls {
            let pause_us = self.below(self.scene.plan.pause_us_max);
            self.client.outside.sleep(Duration::from_micros(pause_us)).await;
            let kind = self.scene.plan.draw(&mut self.random.borrow_mut());
            self.client.count(kind.name());
            match kind {
                Kind::Get => self.get(&self.any_name()).await,
                Kind::Stat => self.stat(&self.any_name()).await,
                Kind::MultiGet => self.multi_get().await,
                Kind::Put | Kind::Delete => self.put_or_delete(kind).await,
                Kind::PutIf | Kind::DeleteIf => self.conditional(kind).await,
                Kind::Add | Kind::Append | Kind::SetExpiry => self.update(kind).await,
                Kind::Batch => self.batch().await,
                Kind::Scan => scan::scan(self).await,
                Kind::Namespace => self.namespace().await,
            }
        }
    }

    pub(super) fn below(&self, bound: u64) -> u64 {
        self.random.borrow_mut().below(bound)
    }

    pub(super) fn one_in(&self, times: u64) -> bool {
        self.random.borrow_mut().one_in(times)
    }

    /// The number of an event and the wall clock at it, outside of the node.
    pub(super) fn moment(&self) -> (u64, u64) {
        (self.scene.history.moment(), self.client.outside.wall_ms())
    }

    fn namespace_of_call(&self) -> u32 {
        let namespaces = self.scene.namespaces.borrow();
        let drawn = self.below(namespaces.len() as u64 + 1).saturating_sub(1) as usize;
        namespaces.keys().nth(drawn).copied().unwrap_or(0)
    }

    fn plain_name(&self) -> Name {
        let index = self.below(self.scene.plan.plain_keys);
        (self.namespace_of_call(), format!("plain-{index}").into_bytes().into())
    }

    fn tagged_name(&self) -> Name {
        let tag = self.below(2);
        let index = self.below(4);
        (0, format!("{{tag-{tag}}}{index}").into_bytes().into())
    }

    pub(super) fn any_name(&self) -> Name {
        match self.below(6) {
            0 => (0, b"count"[..].into()),
            1 => (0, b"text"[..].into()),
            2 => self.tagged_name(),
            _ => self.plain_name(),
        }
    }

    /// A value that no other write has.
    fn value(&self) -> Vec<u8> {
        let number = self.scene.values.get() + 1;
        self.scene.values.set(number);
        let mut value = format!("v{number}.").into_bytes();
        let longer = if self.one_in(3) { self.scene.plan.value_bytes_max } else { 40 };
        value.resize(value.len() + self.below(longer) as usize, number as u8);
        value
    }

    fn ttl_ms(&self) -> Option<u64> {
        match self.below(8) {
            0 => Some(self.random.borrow_mut().between(1, 200)),
            1 => Some(self.random.borrow_mut().between(2_000, 20_000)),
            2 => Some(0),
            _ => None,
        }
    }

    pub(super) fn manner(&self, repeat: bool) -> Manner {
        let deadline_us = match self.below(6) {
            0 | 1 => 1 << self.below(21),
            _ => 0,
        };
        Manner { line: self.line, tries_max: 1 + self.below(6) as u32, repeat, deadline_us }
    }

    /// A call that changes nothing: its answer and when the answered try ran.
    pub(super) async fn read(
        &self,
        namespace: u32,
        request: &Request<'_>,
    ) -> Option<(super::wire::Reply, Span)> {
        let ended = self.client.call(request, self.manner(true), || self.moment()).await;
        match ended {
            Ended::Answered { reply, tried, tried_ms, .. } => {
                self.scene.history.namespace_answered(namespace, tried);
                let span = Span { called: tried, from_ms: tried_ms, returned: Some(self.moment()) };
                Some((reply, span))
            }
            Ended::NotApplied(ErrorCode::NoSuchNamespace) => {
                self.scene.history.namespace_missing(namespace);
                None
            }
            Ended::NotApplied(_) | Ended::NotSent | Ended::Unknown => {
                assert!(!self.client.insists(), "a read is not answered by a healed node");
                self.client.count("reads given up");
                None
            }
        }
    }

    /// Notes what a read has found under a key.
    pub(super) fn note_read(&self, name: &Name, call: usize, span: Span, found: Option<Found>) {
        if let Some(found) = &found {
            self.seen.borrow_mut().insert(name.clone(), version_of(found.version));
        }
        self.scene.history.note(name, call, span, Asked::Read(found));
    }

    pub(super) async fn get(&self, name: &Name) {
        let call = self.scene.history.begin();
        let request = Request::Get(KeyRequest { namespace: name.0, key: &name.1 });
        let Some((reply, span)) = self.read(name.0, &request).await else { return };
        let Response::Get(reply) = reply.response() else { panic!("{:?}", reply.response()) };
        self.client.see(reply.stamp_seen);
        self.note_read(name, call, span, reply.value.map(|value| found(&value)));
    }

    async fn stat(&self, name: &Name) {
        let call = self.scene.history.begin();
        let request = Request::Stat(KeyRequest { namespace: name.0, key: &name.1 });
        let Some((reply, span)) = self.read(name.0, &request).await else { return };
        let Response::Stat(reply) = reply.response() else { panic!("{:?}", reply.response()) };
        let found = reply.stat.map(|stat| Found {
            value: Err(Some(stat.value_bytes as usize)),
            version: stamp_of(stat.version).expect("a record has a version"),
            expiry_ms: stat.expiry_ms,
        });
        self.note_read(name, call, span, found);
    }

    async fn multi_get(&self) {
        let call = self.scene.history.begin();
        let names: Vec<Name> =
            if self.one_in(2) { vec![self.plain_name(), self.plain_name()] } else { self.tagged_names(4) };
        let namespace = names[0].0;
        let names: Vec<Name> = names.into_iter().filter(|name| name.0 == namespace).collect();
        let mut keys = ListBuf::<Keys>::new();
        names.iter().for_each(|name| keys.push(&&name.1[..]).expect("short keys fit"));
        let request = Request::MultiGet(MultiGet { namespace, keys: keys.list() });
        let Some((reply, span)) = self.read(namespace, &request).await else { return };
        let Response::MultiGet(reply) = reply.response() else { panic!("{:?}", reply.response()) };
        assert_eq!(reply.values.len() as usize, names.len());
        for (name, item) in names.iter().zip(&reply.values) {
            match item {
                ValueItem::Found(value) => self.note_read(name, call, span, Some(found(&value))),
                ValueItem::Missing => self.note_read(name, call, span, None),
                ValueItem::NotRead => self.client.count("values not read"),
            }
        }
    }

    fn tagged_names(&self, count: usize) -> Vec<Name> {
        let mut names: Vec<Name> = (0..count).map(|_| self.tagged_name()).collect();
        names.sort();
        names.dedup();
        names
    }

    async fn put_or_delete(&self, kind: Kind) {
        let deletes_any = kind == Kind::Delete && self.one_in(3);
        let name = if deletes_any { self.any_name() } else { self.plain_name() };
        let value = self.value();
        let ttl_ms = self.ttl_ms();
        let put = || Change::Put { value: Content::of(&value), ttl_ms: self.ttl_or_default(name.0, ttl_ms) };
        let change = if kind == Kind::Put { put() } else { Change::Delete };
        let stamp = if self.one_in(5) { None } else { self.client.stamp() };
        let write = Write { namespace: name.0, key: &name.1, durability: Durability::Sync, stamp };
        let request = match kind {
            Kind::Put => Request::Put(Put { write, ttl: sent_ttl(ttl_ms), value: &value }),
            _ => Request::Delete(write),
        };
        let may_stand = self.write(&request, Wish { name: &name, change, condition: None, stamp }).await;
        if may_stand && stamp.is_some() && self.one_in(10) {
            // As a late repetition: it must change nothing that was not changed anyway.
            let pause_ms = self.below(50);
            self.client.outside.sleep(Duration::from_millis(pause_ms)).await;
            self.client.send_blindly(self.line, &request);
        }
    }

    async fn conditional(&self, kind: Kind) {
        let name = if self.one_in(4) { self.tagged_name() } else { self.plain_name() };
        let known = self.seen.borrow().get(&name).copied();
        let wanted = match (self.below(4), known) {
            (0, _) | (_, None) => Wanted::Absent,
            (1, _) => Wanted::Present,
            (_, Some(version)) => Wanted::Version(version),
        };
        let condition = match wanted {
            Wanted::Absent => Condition::Absent,
            Wanted::Present => Condition::Present,
            Wanted::Version(version) => {
                Condition::Version(stamp_of(version).expect("a record has a version"))
            }
        };
        let value = self.value();
        let ttl_ms = self.ttl_ms();
        let write = Write { namespace: name.0, key: &name.1, durability: Durability::Sync, stamp: None };
        let put = Put { write, ttl: sent_ttl(ttl_ms), value: &value };
        let (request, change) = if kind == Kind::PutIf {
            let ttl_ms = self.ttl_or_default(name.0, ttl_ms);
            (Request::PutIf(put, wanted), Change::Put { value: Content::of(&value), ttl_ms })
        } else {
            (Request::DeleteIf(write, wanted), Change::Delete)
        };
        let condition = Some(condition);
        self.write(&request, Wish { name: &name, change, condition, stamp: None }).await;
    }

    async fn update(&self, kind: Kind) {
        let bytes = self.value();
        let bytes = &bytes[..bytes.len().min(12)];
        let amount = self.random.borrow_mut().between(1, 1 << 20) as i64 - (1 << 19);
        let ttl_ms = self.ttl_ms().unwrap_or(0);
        let (name, operation, change): (Name, _, _) = match kind {
            Kind::Add => ((0, b"count"[..].into()), UpdateOperation::Add(amount), Change::Add(amount)),
            Kind::Append => {
                ((0, b"text"[..].into()), UpdateOperation::Append(bytes), Change::Append(bytes.into()))
            }
            _ => (self.any_name(), UpdateOperation::SetExpiry { ttl_ms }, Change::SetExpiry { ttl_ms }),
        };
        let write = Write { namespace: name.0, key: &name.1, durability: Durability::Sync, stamp: None };
        let request = Request::Update(Update { write, operation });
        self.write(&request, Wish { name: &name, change, condition: None, stamp: None }).await;
    }

    fn ttl_or_default(&self, namespace: u32, ttl_ms: Option<u64>) -> u64 {
        ttl_ms.unwrap_or_else(|| self.scene.namespaces.borrow().get(&namespace).copied().unwrap_or(0))
    }

    /// Sends a write of one key and notes what became of it. Answers whether it may have been applied
    /// or still be.
    async fn write(&self, request: &Request<'_>, wish: Wish<'_>) -> bool {
        let history = &self.scene.history;
        let call = history.begin();
        let (called, from_ms) = self.moment();
        let Wish { name, change, condition, stamp: proposed } = wish;
        let own = proposed.map(|proposed| stamp(proposed.time, proposed.origin));
        let ended = self.client.call(request, self.manner(proposed.is_some()), || self.moment()).await;
        let asked = |answer| match own {
            Some(stamp) => Asked::Stamped { stamp, change: change.clone(), answer },
            None => Asked::Write { condition, change: change.clone(), answer },
        };
        let open = Span { called, from_ms, returned: None };
        let (reply, in_doubt, tried, tried_ms) = match ended {
            Ended::Answered { reply, in_doubt, tried, tried_ms } => (reply, in_doubt, tried, tried_ms),
            Ended::Unknown => {
                self.client.count("writes of unknown outcome");
                history.note(name, call, open, asked(Answer::Unknown));
                return true;
            }
            Ended::NotApplied(code) => {
                if code == ErrorCode::NoSuchNamespace {
                    history.namespace_missing(name.0);
                }
                self.client.count("writes not applied");
                return false;
            }
            Ended::NotSent => {
                self.client.count("writes not sent");
                return false;
            }
        };
        history.namespace_answered(name.0, tried);
        let closed = Span { called, from_ms, returned: Some(self.moment()) };
        if let Some((error, _)) = error(&reply) {
            assert!(error.code == ErrorCode::ConditionFailed && condition.is_some(), "{error:?}");
            if !error.version.is_absent() {
                self.seen.borrow_mut().insert(name.clone(), error.version);
            }
            self.client.count("conditions failed");
            history.note(name, call, closed, asked(Answer::Failed { current: stamp_of(error.version) }));
            return false;
        }
        let written = match reply.response() {
            Response::Put(written)
            | Response::Delete(written)
            | Response::PutIf(written)
            | Response::DeleteIf(written)
            | Response::Update(written) => written,
            other => panic!("{other:?}"),
        };
        self.client.see(written.stamp_seen);
        match written.outcome {
            WriteOutcome::Applied => {
                let version = stamp_of(written.version).expect("what was written has a version");
                if own.is_some_and(|own| own != version) {
                    history.wrong(format!("{own:?} was written as {version:?}"));
                }
                if change != Change::Delete {
                    self.seen.borrow_mut().insert(name.clone(), written.version);
                }
                self.client.count("writes applied");
                let number = matches!(change, Change::Add(_) | Change::Append(_)).then_some(written.number);
                let answer = Answer::Applied { version, expiry_ms: Some(written.expiry_ms), number };
                history.note(name, call, closed, asked(answer));
            }
            WriteOutcome::Superseded => {
                let Some(own) = own else {
                    history.wrong(format!("{change:?} with the server's stamp is superseded"));
                    return false;
                };
                self.client.count("writes superseded");
                if in_doubt {
                    history.note(name, call, open, asked(Answer::Unknown));
                }
                let told = Span { called: tried, from_ms: tried_ms, returned: closed.returned };
                history.note(name, call, told, Asked::Superseded(own));
            }
            WriteOutcome::Missing => {
                history.note(name, call, closed, asked(Answer::Failed { current: None }));
            }
        }
        true
    }

    async fn batch(&self) {
        let history = &self.scene.history;
        let Some(proposed) = self.client.stamp() else { return };
        let own = stamp(proposed.time, proposed.origin);
        let mut names = self.tagged_names(5);
        if self.one_in(3) {
            let name = self.plain_name();
            if name.0 == 0 {
                names.push(name);
            }
        }
        let writes: Vec<(Name, Option<Valued>)> = names
            .into_iter()
            .map(|name| (name, (!self.one_in(4)).then(|| (self.value(), self.ttl_ms()))))
            .collect();
        let mut operations = ListBuf::<Operations>::new();
        for ((_, key), written) in &writes {
            let operation = match written {
                Some((value, ttl_ms)) => BatchOperation::Put { key, value, ttl: sent_ttl(*ttl_ms) },
                None => BatchOperation::Delete { key },
            };
            operations.push(&operation).expect("short lists fit");
        }
        let batch = Batch {
            namespace: 0,
            durability: Durability::Sync,
            stamp: Some(proposed),
            operations: operations.list(),
        };
        let call = history.begin();
        let (called, from_ms) = self.moment();
        let request = Request::Batch(batch);
        let ended = self.client.call(&request, self.manner(true), || self.moment()).await;
        let open = Span { called, from_ms, returned: None };
        let change = |written: &Option<Valued>| match written {
            Some((value, ttl_ms)) => Change::Put { value: Content::of(value), ttl_ms: ttl_ms.unwrap_or(0) },
            None => Change::Delete,
        };
        let asked = |written, answer| Asked::Stamped { stamp: own, change: change(written), answer };
        let mut lost: Vec<Name> = Vec::new();
        match ended {
            Ended::Answered { reply, in_doubt, tried, tried_ms } => {
                let Response::Batch(reply) = reply.response() else { panic!("{:?}", reply.response()) };
                self.client.see(reply.stamp_seen);
                assert_eq!(reply.results.len() as usize, writes.len());
                let closed = Span { returned: Some(self.moment()), ..open };
                for ((name, written), result) in writes.iter().zip(&reply.results) {
                    match result {
                        OperationResult::Applied(version) => {
                            let answer = Answer::Applied { version: own, expiry_ms: None, number: None };
                            if stamp_of(version) != Some(own) {
                                history.wrong(format!("{own:?} was written as {version:?}"));
                            }
                            history.note(name, call, closed, asked(written, answer));
                        }
                        OperationResult::Superseded(_) => {
                            if in_doubt {
                                lost.push(name.clone());
                                history.note(name, call, open, asked(written, Answer::Unknown));
                            }
                            let told = Span { called: tried, from_ms: tried_ms, returned: closed.returned };
                            history.note(name, call, told, Asked::Superseded(own));
                        }
                        OperationResult::Failed { outcome, .. } => {
                            self.client.count("operations of batches refused");
                            if in_doubt || outcome == Outcome::Unknown {
                                lost.push(name.clone());
                                history.note(name, call, open, asked(written, Answer::Unknown));
                            }
                        }
                    }
                }
            }
            Ended::Unknown => {
                self.client.count("batches of unknown outcome");
                for (name, written) in &writes {
                    lost.push(name.clone());
                    history.note(name, call, open, asked(written, Answer::Unknown));
                }
            }
            Ended::NotApplied(_) | Ended::NotSent => {}
        }
        let partition = |name: &Name| placement::partition_of(&name.1, self.scene.plan.partitions);
        while let Some(first) = lost.first().map(partition) {
            let (together, rest) = lost.into_iter().partition(|name| partition(name) == first);
            history.note_open_batch(own, together);
            lost = rest;
        }
    }

    /// Drops the second namespace, or asks for the list.
    async fn namespace(&self) {
        let history = &self.scene.history;
        let second = self.scene.namespaces.borrow().keys().copied().find(|namespace| *namespace != 0);
        let Some(second) = second.filter(|_| self.scene.plan.drops_namespace && self.one_in(3)) else {
            let known: Vec<u32> = self.scene.namespaces.borrow().keys().copied().collect();
            let Some((reply, span)) = self.read(0, &Request::NamespaceList).await else { return };
            let Response::NamespaceList(list) = reply.response() else { panic!("{:?}", reply.response()) };
            for namespace in known {
                let live = list
                    .iter()
                    .any(|info| info.id == namespace && info.state == pinion_protocol::NamespaceState::Live);
                if live {
                    history.namespace_answered(namespace, span.called);
                } else {
                    history.namespace_missing(namespace);
                }
            }
            return;
        };
        history.dropping(second, self.moment().0);
        let request = Request::NamespaceDrop("second");
        let ended = self.client.call(&request, self.manner(false), || self.moment()).await;
        if let Ended::Answered { .. } = ended {
            self.client.count("namespaces dropped");
            history.dropped(second, self.moment().0);
        }
    }
}

/// A value as it was read.
pub(super) fn found(value: &Value<'_>) -> Found {
    Found {
        value: Ok(Content::of(value.bytes)),
        version: stamp_of(value.version).expect("a record has a version"),
        expiry_ms: value.expiry_ms,
    }
}

fn sent_ttl(ttl_ms: Option<u64>) -> Ttl {
    match ttl_ms {
        None => Ttl::NamespaceDefault,
        Some(ttl_ms) => NonZeroU64::new(ttl_ms).map_or(Ttl::Never, Ttl::Millis),
    }
}

/// A page of a scan.
pub(super) fn page<'a>(namespace: u32, kind: ScanKind<'a>, limit: u32, cursor: &'a [u8]) -> Scan<'a> {
    Scan {
        namespace,
        kind,
        direction: pinion_protocol::Direction::Forward,
        limit,
        bytes_max: 0,
        keys_only: false,
        start: b"",
        end: b"",
        prefix: b"",
        cursor,
    }
}
