//! Single writes: PUT, DELETE, their conditional forms, and UPDATE.
//!
//! The engine is handed the borrowed key and value and a [`WriteWaiter`]; when the group commit
//! that carries the write is durable, the waiter appends the answer to the connection's out buffer
//! and wakes the connection once, however many of its writes the commit carried. Nothing is
//! allocated here for a request.

use std::rc::Rc;

use pinion_engine::{
    Condition, Durability, Effect, Error, Key, Lifetime, Operation, Origin, RecordView, Result, Stamp,
    Teller, Update, Waiter, WriteOptions, Written,
};
use pinion_protocol::{Opcode, UpdateOperation, WriteOutcome, encode_written};

use crate::batch::BatchPart;
use crate::core::{Core, CoreShard, Dialect, Ticket};
use crate::counters::add;
use crate::message::ServerEnv;
use crate::refusal::{MAP_EPOCH, Refusal, stamp_of, version_of};
use crate::resp::{CountPart, RespWrite, answer_write};

/// Answers when a write has ended.
pub(crate) enum WriteWaiter<E: ServerEnv> {
    /// A write by itself.
    Single {
        /// Where its answer goes.
        core: Rc<Core<E>>,
        /// Whose answer it is.
        ticket: Ticket,
    },
    /// The operations of a batch that belong to one shard.
    Part(BatchPart<E>),
    /// A command of RESP that tells of the value that stood there. Apart, for every write carries as
    /// much as the largest waiter has.
    Resp(Box<RespWrite<E>>),
    /// One key of a command of RESP that counts.
    Count(CountPart<E>),
    /// A batch of a task that waits for it.
    Told(Teller),
}

impl<E: ServerEnv> WriteWaiter<E> {
    /// Whose write it is.
    #[inline]
    fn about(&self) -> Option<(&Core<E>, &Ticket)> {
        match self {
            Self::Single { core, ticket } => Some((core, ticket)),
            Self::Part(part) => Some(part.about()),
            Self::Resp(write) => Some(write.about()),
            Self::Count(part) => Some(part.about()),
            Self::Told(_) => None,
        }
    }
}

impl<E: ServerEnv> Waiter for WriteWaiter<E> {
    fn first_of_many(&self) {
        if let Some((core, _)) = self.about() {
            core.tick();
        }
    }

    fn goes_with(&self, other: &Self) -> bool {
        match (self.about(), other.about()) {
            (Some((_, ticket)), Some((_, other))) => ticket.reply == other.reply,
            _ => false,
        }
    }

    #[inline]
    fn published(&self, key: &Key<'_>) {
        if let Some((core, ticket)) = self.about() {
            core.trail(ticket, key);
        }
    }

    fn decided(&mut self, present: Option<&RecordView<'_>>) {
        if let Self::Resp(write) = self {
            write.decided(present);
        }
    }

    fn complete(self, result: Result<Written>) {
        // What changes nothing does not come with others.
        if !matches!(&result, Ok(Written { effect: Effect::Applied, .. })) {
            self.first_of_many();
        }
        match self {
            Self::Single { core, ticket } => match ticket.dialect {
                Dialect::Native => answer(&core, &ticket, result),
                Dialect::Resp(version, then) => answer_write(&core, &ticket, version, then, result),
            },
            Self::Part(part) => part.complete(result),
            Self::Resp(write) => write.complete(result),
            Self::Count(part) => part.complete(result),
            Self::Told(teller) => teller.complete(result),
        }
    }
}

/// Answers PUT and PUT_IF.
pub(crate) fn put<E: ServerEnv>(
    core: &Rc<Core<E>>,
    ticket: Ticket,
    shard: &CoreShard<E>,
    key: &Key<'_>,
    put: &pinion_protocol::Put<'_>,
    condition: Option<pinion_protocol::Condition>,
    default_ttl_ms: u64,
) {
    let lifetime = lifetime(put.ttl.millis_or(default_ttl_ms));
    let operation = match condition {
        None => Operation::Put { value: put.value, lifetime },
        Some(condition) => match engine_condition(condition) {
            Some(condition) => Operation::PutIf { condition, value: put.value, lifetime },
            None => return core.refuse(&ticket, &FOREIGN_VERSION),
        },
    };
    start(core, ticket, shard, key, operation, &put.write, lifetime);
}

/// Answers DELETE and DELETE_IF.
pub(crate) fn delete<E: ServerEnv>(
    core: &Rc<Core<E>>,
    ticket: Ticket,
    shard: &CoreShard<E>,
    key: &Key<'_>,
    delete: &pinion_protocol::Write<'_>,
    condition: Option<pinion_protocol::Condition>,
) {
    let operation = match condition {
        None => Operation::Delete,
        Some(condition) => match engine_condition(condition) {
            Some(condition) => Operation::DeleteIf { condition },
            None => return core.refuse(&ticket, &FOREIGN_VERSION),
        },
    };
    start(core, ticket, shard, key, operation, delete, Lifetime::Forever);
}

/// Answers UPDATE.
pub(crate) fn update<E: ServerEnv>(
    core: &Rc<Core<E>>,
    ticket: Ticket,
    shard: &CoreShard<E>,
    key: &Key<'_>,
    update: &pinion_protocol::Update<'_>,
    default_ttl_ms: u64,
) {
    let operation = match update.operation {
        UpdateOperation::Add(amount) => Update::Add(amount),
        UpdateOperation::Append(bytes) => Update::Append(bytes),
        UpdateOperation::SetRange { offset, bytes } => Update::SetRange { offset, bytes },
        UpdateOperation::SetExpiry { ttl_ms } => Update::SetExpiry(lifetime(ttl_ms)),
    };
    let created = lifetime(default_ttl_ms);
    start(core, ticket, shard, key, Operation::Update(operation), &update.write, created);
}

/// How long a value lives; 0 = for ever.
pub(crate) const fn lifetime(ttl_ms: u64) -> Lifetime {
    if ttl_ms == 0 { Lifetime::Forever } else { Lifetime::Millis(ttl_ms) }
}

/// What goes with a write.
pub(crate) fn write_options(
    ticket: &Ticket,
    durability: pinion_protocol::Durability,
    stamp: Option<pinion_protocol::ProposedStamp>,
) -> WriteOptions {
    WriteOptions {
        durability: match durability {
            pinion_protocol::Durability::Sync => Durability::Sync,
            pinion_protocol::Durability::Buffered => Durability::Buffered,
        },
        stamp: stamp
            .map(|stamp| Stamp { time: pinion_engine::HybridTime(stamp.time), origin: Origin(stamp.origin) }),
        deadline: ticket.deadline,
        ..WriteOptions::default()
    }
}

/// A version that no server gave out cannot be under any key.
const FOREIGN_VERSION: Refusal<'static> =
    Refusal::bad_request("the condition's version is none of this server's");

fn start<E: ServerEnv>(
    core: &Rc<Core<E>>,
    ticket: Ticket,
    shard: &CoreShard<E>,
    key: &Key<'_>,
    operation: Operation<'_>,
    write: &pinion_protocol::Write<'_>,
    created: Lifetime,
) {
    core.access(key);
    core.trail(&ticket, key);
    let options = WriteOptions { created, ..write_options(&ticket, write.durability, write.stamp) };
    shard.write(key, operation, options, WriteWaiter::Single { core: Rc::clone(core), ticket });
}

fn engine_condition(condition: pinion_protocol::Condition) -> Option<Condition<'static>> {
    Some(match condition {
        pinion_protocol::Condition::Absent => Condition::Absent,
        pinion_protocol::Condition::Present => Condition::Present,
        pinion_protocol::Condition::Version(version) => Condition::VersionIs(stamp_of(version)?),
    })
}

/// Counts a request that a shard has refused under the reason.
pub(crate) fn count_refused<E: ServerEnv>(core: &Core<E>, error: &Error) {
    match error {
        Error::Overloaded { .. } => add(&core.counters.overloaded, 1),
        Error::Deadline => add(&core.counters.deadlines_missed, 1),
        _ => {}
    }
}

fn answer<E: ServerEnv>(core: &Core<E>, ticket: &Ticket, result: Result<Written>) {
    let written = match result {
        Ok(written) => written,
        Err(error) => {
            count_refused(core, &error);
            return core.refuse(ticket, &Refusal::engine(&error));
        }
    };
    let opcode = Opcode::from_u8(ticket.opcode).expect("a write's opcode was decoded");
    let outcome = match written.effect {
        Effect::Applied => WriteOutcome::Applied,
        Effect::Superseded => WriteOutcome::Superseded,
        // An update has no condition but that there is something to update.
        Effect::ConditionFailed if opcode == Opcode::Update => WriteOutcome::Missing,
        Effect::ConditionFailed => return core.refuse(ticket, &Refusal::condition_failed(written.stamp)),
    };
    let reply = pinion_protocol::Written {
        outcome,
        version: version_of(written.stamp),
        stamp_seen: core.see_stamp(written.stamp.time).0,
        expiry_ms: written.expiry_ms,
        number: written.number,
    };
    core.answer(ticket, |out| encode_written(opcode, &reply, ticket.request_id, MAP_EPOCH, out));
}
