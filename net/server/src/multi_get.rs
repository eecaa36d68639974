//! MULTI_GET: keys of any shard of the node, answered together and in order.
//!
//! Keys in memory are copied at once. Keys that need a table are read by at most
//! [`READERS_MAX`] tasks; keys of other cores go there as MULTI_GETs of their own. The answer
//! leaves when the last part is in. What does not fit the largest frame, or found no place for a
//! read or a forward, is marked as not read, and the client asks again; if that would be
//! everything, the request is refused as overloaded.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

use pinion_engine::RecordView;
use pinion_env::TaskClass;
use pinion_protocol::resp::{RespVersion, reply};
use pinion_protocol::{
    Header, Keys, ListBuf, MultiGet, MultiGetReply, Request, Response, Value, ValueItem, Values, Version,
};

use crate::coordinator::Place;
use crate::core::{Core, CoreShard, Dialect, Ticket};
use crate::counters::add;
use crate::message::ServerEnv;
use crate::pressure::AnswerBytes;
use crate::read::OwnedKey;
use crate::refusal::{Refusal, version_of};
use crate::watch::KeyPlace;

/// Tables that one request reads at the same time.
const READERS_MAX: usize = 16;

/// Bytes of an entry beside its value, and of everything around the entries.
const ENTRY_BYTES: usize = 32;
const AROUND_BYTES: usize = 128;

/// What is known of one key.
#[derive(Debug, Clone)]
enum Item {
    NotRead,
    Missing,
    /// The value's place in [`Gathering::values`].
    Found {
        version: Version,
        expiry_ms: u64,
        value: Range<usize>,
    },
}

/// A MULTI_GET whose parts are coming in.
struct Gathering<E: ServerEnv> {
    core: Rc<Core<E>>,
    ticket: Ticket,
    items: RefCell<Vec<Item>>,
    values: RefCell<Vec<u8>>,
    /// Bytes of values that the answer may have.
    values_bytes_max: usize,
    /// A value was left out because it would be more, here or by another core.
    too_large: Cell<bool>,
    /// What `values` holds counts as waiting answers.
    held: AnswerBytes<E>,
    /// Parts under way, and one while the request is being taken apart.
    waiting: Cell<u32>,
    /// The first part that failed decides for all.
    failed: RefCell<Option<Refusal<'static>>>,
    /// Keys that wait for a reader.
    to_read: RefCell<Vec<(u32, CoreShard<E>, OwnedKey)>>,
}

/// The keys of another core.
struct Part<'k> {
    first: Option<KeyPlace<'k>>,
    /// Their indexes in the request, ascending.
    indexes: Vec<u32>,
    keys: ListBuf<Keys>,
}

/// Answers a MULTI_GET of these keys, or an MGET.
pub(crate) fn gather<'k, E: ServerEnv>(
    core: &Rc<Core<E>>,
    ticket: Ticket,
    namespace: u32,
    keys: impl ExactSizeIterator<Item = &'k [u8]>,
) {
    if core.checked_namespace(&ticket, namespace).is_none() {
        return;
    }
    let count = keys.len();
    if count > core.options.batch_ops_max as usize {
        return core.refuse(&ticket, &Refusal::too_large("multi-get", count, core.options.batch_ops_max));
    }
    let around = count * ENTRY_BYTES + AROUND_BYTES;
    let gathering = Rc::new(Gathering {
        core: Rc::clone(core),
        ticket,
        items: RefCell::new(vec![Item::NotRead; count]),
        values: RefCell::new(core.take_buffer()),
        held: AnswerBytes::new(core),
        values_bytes_max: (core.limits().frame_bytes_max as usize).saturating_sub(around),
        too_large: Cell::new(false),
        waiting: Cell::new(1),
        failed: RefCell::default(),
        to_read: RefCell::default(),
    });
    let mut elsewhere: Vec<(u16, Part<'_>)> = Vec::new();
    for (index, user) in (0..).zip(keys) {
        // A bad key refuses, and thereby answers, the request; nothing is under way yet.
        let Some(key) = core.checked_key(&ticket, namespace, user) else { return };
        match core.place(key.partition) {
            Place::Here(shard) => {
                core.access(&key);
                core.trail(&ticket, &key);
                if shard.get_now(&key, |record| gathering.found(index, record)).is_ok() {
                    add(&core.counters.gets_in_memory, 1);
                } else {
                    gathering.to_read.borrow_mut().push((index, shard.clone(), OwnedKey::of(&key)));
                }
            }
            Place::Core(owner) => {
                let part = match elsewhere.iter_mut().find(|(core, ..)| *core == owner) {
                    Some((_, part)) => part,
                    None => {
                        let first = Some(core.place_of(&key));
                        let part = Part { first, indexes: Vec::new(), keys: ListBuf::new() };
                        &mut elsewhere.push_mut((owner, part)).1
                    }
                };
                part.indexes.push(index);
                if part.keys.push(&user).is_err() {
                    return core.refuse(&ticket, &Refusal::bad_request("a key does not fit"));
                }
            }
        }
    }
    for (owner, part) in elsewhere {
        gathering.ask(owner, part, namespace);
    }
    gathering.start_readers();
    gathering.part_done();
}

impl<E: ServerEnv> Gathering<E> {
    /// Takes what a key's record is.
    fn found(&self, index: u32, record: Option<RecordView<'_>>) {
        match record {
            None => self.set(index, Item::Missing),
            Some(record) => {
                self.core.see_stamp(record.stamp.time);
                self.keep(index, version_of(record.stamp), record.expiry_ms, record.value);
            }
        }
    }

    /// Copies a value if the answer has room for it.
    fn keep(&self, index: u32, version: Version, expiry_ms: u64, value: &[u8]) {
        let mut values = self.values.borrow_mut();
        let start = values.len();
        if start + value.len() > self.values_bytes_max {
            return self.too_large.set(true);
        }
        if !self.held.grow(value.len()) {
            return;
        }
        values.extend_from_slice(value);
        self.set(index, Item::Found { version, expiry_ms, value: start..start + value.len() });
    }

    fn set(&self, index: u32, item: Item) {
        if let Some(slot) = self.items.borrow_mut().get_mut(index as usize) {
            *slot = item;
        }
    }

    /// Sends the keys of another core there; leaves them unread if too much is being forwarded.
    fn ask(self: &Rc<Self>, owner: u16, Part { first, indexes, keys }: Part<'_>, namespace: u32) {
        if self.core.awaited.count() >= self.core.limits().core_forwards_max {
            return;
        }
        let part = Request::MultiGet(MultiGet { namespace, keys: keys.list() });
        let gathering = Rc::clone(self);
        self.waiting.set(self.waiting.get() + 1);
        let sent = self.core.forward_part(
            owner,
            &self.ticket,
            &part,
            first,
            Box::new(move |_, frame| {
                gathering.answered(&indexes, &frame);
                gathering.core.give_buffer(frame);
                gathering.part_done();
            }),
        );
        if let Err(error) = sent {
            self.fail(Refusal::protocol(&error));
            self.part_done();
        }
    }

    /// Takes another core's answer.
    fn answered(&self, indexes: &[u32], frame: &[u8]) {
        let response = match Header::read(frame) {
            Ok(Some(header)) => Response::decode(&header, &frame[usize::from(header.header_bytes)..]),
            _ => return self.fail(Refusal::bad_request("an answer between cores was cut off")),
        };
        match response {
            Ok(Response::MultiGet(reply)) => {
                for (index, item) in indexes.iter().zip(&reply.values) {
                    match item {
                        ValueItem::Missing => self.set(*index, Item::Missing),
                        ValueItem::Found(value) => {
                            self.keep(*index, value.version, value.expiry_ms, value.bytes);
                        }
                        ValueItem::NotRead => {}
                    }
                }
                // Why keys were not read it does not say. If one more of the largest values fits, there was
                // room for all that were; if not, that is taken to be why.
                let largest = self.core.options.value_bytes_max as usize;
                let is_full = self.values.borrow().len() + largest > self.values_bytes_max;
                if is_full && reply.values.iter().any(|item| item == ValueItem::NotRead) {
                    self.too_large.set(true);
                }
            }
            Ok(Response::Error { error, .. }) => self.fail(Refusal::answered(&error)),
            Ok(_) => self.fail(Refusal::bad_request("an answer between cores was of another kind")),
            Err(error) => self.fail(Refusal::protocol(&error)),
        }
    }

    /// Starts tasks for the keys that need a table, as far as there are places.
    fn start_readers(self: &Rc<Self>) {
        let wanted = self.to_read.borrow().len();
        let readers = wanted.min(READERS_MAX).min(self.core.reads_free() as usize);
        if wanted > 0 && self.core.is_late(&self.ticket, self.core.env.now()) {
            self.fail(Refusal::DEADLINE);
            return;
        }
        for _ in 0..readers {
            self.waiting.set(self.waiting.get() + 1);
            let (gathering, place) = (Rc::clone(self), self.core.read_place());
            self.core.env.spawn(TaskClass::Foreground, async move {
                gathering.read().await;
                drop(place);
                gathering.part_done();
            });
        }
    }

    /// Reads keys until none is left.
    async fn read(&self) {
        loop {
            let Some((index, shard, key)) = self.to_read.borrow_mut().pop() else { return };
            add(&self.core.counters.gets_from_disk, 1);
            let read = shard.get(&key.borrow()).await;
            self.core.tick();
            self.core.trail(&self.ticket, &key.borrow());
            match read {
                Ok(found) => self.found(index, found.as_ref().map(|found| found.view())),
                Err(error) => self.fail(Refusal::engine(&error)),
            }
        }
    }

    fn fail(&self, refusal: Refusal<'_>) {
        self.failed.borrow_mut().get_or_insert_with(|| refusal.into_owned());
    }

    /// One part less is under way; answers after the last.
    fn part_done(&self) {
        self.waiting.set(self.waiting.get() - 1);
        if self.waiting.get() == 0 {
            self.answer();
        }
    }

    fn answer(&self) {
        let (items, values) = (self.items.take(), self.values.take());
        if let Some(refusal) = self.failed.take() {
            return self.core.refuse(&self.ticket, &refusal);
        }
        if !items.is_empty() && items.iter().all(|item| matches!(item, Item::NotRead)) {
            return self
                .core
                .refuse_overloaded(&self.ticket, "too many reads, or bytes of answers, are under way");
        }
        if let Dialect::Resp(version, _) = self.ticket.dialect {
            return self.answer_command(&items, values, version);
        }
        let mut list = ListBuf::<Values>::with_buffer(self.core.take_buffer());
        for item in items {
            let entry = match item {
                Item::NotRead => ValueItem::NotRead,
                Item::Missing => ValueItem::Missing,
                Item::Found { version, expiry_ms, value } => {
                    ValueItem::Found(Value { version, expiry_ms, bytes: &values[value] })
                }
            };
            if let Err(error) = list.push(&entry) {
                return self.core.refuse(&self.ticket, &Refusal::protocol(&error));
            }
        }
        let stamp_seen = self.core.stamp_seen.get().0;
        let reply = Response::MultiGet(MultiGetReply { values: list.list(), stamp_seen });
        self.core.answer_with(&self.ticket, &reply);
        self.core.give_buffer(list.into_buffer());
        self.core.give_buffer(values);
    }

    /// Answers an MGET, whose reply has all values or is an error.
    fn answer_command(&self, items: &[Item], values: Vec<u8>, version: RespVersion) {
        if items.iter().any(|item| matches!(item, Item::NotRead)) {
            if self.too_large.get() {
                let what = "the values are more bytes than one reply may have: ask for fewer keys";
                return self.core.refuse(&self.ticket, &Refusal::bad_request(what));
            }
            let what = "too many reads, or bytes of answers, are under way";
            return self.core.refuse_overloaded(&self.ticket, what);
        }
        self.core.answer(&self.ticket, |out| {
            reply::array(out, items.len());
            for item in items {
                match item {
                    Item::Found { value, .. } => reply::bulk(out, &values[value.clone()]),
                    Item::Missing | Item::NotRead => reply::null(out, version),
                }
            }
        });
        self.core.give_buffer(values);
    }
}
