//! GET and STAT.
//!
//! What memory can answer is answered within the connection's turn, straight into its out buffer:
//! no task, no allocation, one copy of the value. Only when a table must be read does the request
//! become a task of its own, and of those there are at most `core_reads_max`.

use std::rc::Rc;

use pinion_engine::{Key, NamespaceId, Partition, RecordView, Result};
use pinion_env::TaskClass;
use pinion_protocol::{GetReply, Response, Stat, StatReply, encode_value_head};

use crate::core::{Core, CoreShard, Ticket};
use crate::counters::add;
use crate::message::ServerEnv;
use crate::refusal::{MAP_EPOCH, Refusal, version_of};

/// Answers a GET.
pub(crate) fn get<E: ServerEnv>(core: &Rc<Core<E>>, ticket: &Ticket, shard: &CoreShard<E>, key: &Key<'_>) {
    core.access(key);
    look_up(core, ticket, shard, key, answer_get);
}

/// Answers a STAT.
pub(crate) fn stat<E: ServerEnv>(core: &Rc<Core<E>>, ticket: &Ticket, shard: &CoreShard<E>, key: &Key<'_>) {
    let accesses = core.accesses(key);
    look_up(core, ticket, shard, key, move |core, ticket, record| {
        let stat = record.as_ref().map(stat_of);
        let stamp_seen = core.stamp_seen.get().0;
        core.answer_with(ticket, &Response::Stat(StatReply { stat, accesses, stamp_seen }));
    });
}

/// Answers a GET that memory cannot answer.
pub(crate) fn get_from_tables<E: ServerEnv>(
    core: &Rc<Core<E>>,
    ticket: &Ticket,
    shard: &CoreShard<E>,
    key: &Key<'_>,
) {
    core.access(key);
    look_up_in_tables(core, ticket, shard, key, answer_get);
}

/// Looks a key up, in memory if possible, and answers with `answer`.
pub(crate) fn look_up<E: ServerEnv>(
    core: &Rc<Core<E>>,
    ticket: &Ticket,
    shard: &CoreShard<E>,
    key: &Key<'_>,
    answer: impl FnOnce(&Core<E>, &Ticket, Option<RecordView<'_>>) + Copy + 'static,
) {
    core.trail(ticket, key);
    if shard.get_now(key, |record| answer(core, ticket, record)).is_ok() {
        add(&core.counters.gets_in_memory, 1);
        return;
    }
    look_up_in_tables(core, ticket, shard, key, answer);
}

/// As [`look_up`] for a key that is not in memory.
fn look_up_in_tables<E: ServerEnv>(
    core: &Rc<Core<E>>,
    ticket: &Ticket,
    shard: &CoreShard<E>,
    key: &Key<'_>,
    answer: impl FnOnce(&Core<E>, &Ticket, Option<RecordView<'_>>) + 'static,
) {
    if core.refuse_late(ticket, core.tick()) {
        return;
    }
    let Some(place) = core.begin_read(ticket) else { return };
    add(&core.counters.gets_from_disk, 1);
    let (core, ticket, shard, key) = (Rc::clone(core), *ticket, shard.clone(), OwnedKey::of(key));
    core.env.clone().spawn(TaskClass::Foreground, async move {
        let result: Result<_> = shard.get(&key.borrow()).await;
        drop(place);
        core.tick();
        core.trail(&ticket, &key.borrow());
        match result {
            // Others have come meanwhile.
            Ok(_) if core.refuse_full(&ticket) => {}
            Ok(found) => answer(&core, &ticket, found.as_ref().map(|found| found.view())),
            Err(error) => core.refuse(&ticket, &Refusal::engine(&error)),
        }
    });
}

fn answer_get<E: ServerEnv>(core: &Core<E>, ticket: &Ticket, record: Option<RecordView<'_>>) {
    core.answer(ticket, |out| put_answer(core, ticket.request_id, record, out));
}

/// Appends the answer to a GET.
#[inline]
pub(crate) fn put_answer<E: ServerEnv>(
    core: &Core<E>,
    request_id: u64,
    record: Option<RecordView<'_>>,
    out: &mut Vec<u8>,
) {
    let Some(record) = record else {
        let reply = GetReply { value: None, stamp_seen: core.stamp_seen.get().0 };
        return Response::Get(reply)
            .encode(request_id, MAP_EPOCH, out)
            .expect("an answer without a value fits a frame");
    };
    let stamp_seen = core.see_stamp(record.stamp.time).0;
    encode_value_head(&stat_of(&record), stamp_seen, request_id, MAP_EPOCH, out)
        .expect("a stored value is far shorter than the longest frame");
    out.extend_from_slice(record.value);
}

fn stat_of(record: &RecordView<'_>) -> Stat {
    Stat {
        version: version_of(record.stamp),
        expiry_ms: record.expiry_ms,
        value_bytes: record.value.len() as u32,
    }
}

/// A key that outlives its frame.
pub(crate) struct OwnedKey {
    partition: Partition,
    namespace: NamespaceId,
    user: Vec<u8>,
}

impl OwnedKey {
    pub(crate) fn of(key: &Key<'_>) -> Self {
        Self { partition: key.partition, namespace: key.namespace, user: key.user.to_vec() }
    }

    pub(crate) fn borrow(&self) -> Key<'_> {
        Key::placed(self.partition, self.namespace, &self.user)
    }
}
