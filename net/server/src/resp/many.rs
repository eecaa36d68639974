//! Commands of several keys: MGET, MSET, DEL, UNLINK, EXISTS.
//!
//! MGET and MSET are MULTI_GET and BATCH of native frames, put into other words. The others count: keys
//! of this core one by one, those of other cores by a command to each core with the keys that it owns,
//! whose numbers are added up.
//!
//! Limits: as many keys as operations of a batch, and tables are read by at most [`READERS_MAX`] tasks.
//! Failure: the first part that fails decides what is answered; if others have deleted keys, it is not said
//! that nothing was applied.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pinion_engine::{Condition, Effect, Operation, Result, Written};
use pinion_env::TaskClass;
use pinion_protocol::resp::{Command, append_command, parse_integer, reply};
use pinion_protocol::{Batch, BatchOperation, Durability, ListBuf, Operations, Ttl};

use crate::batch;
use crate::coordinator::Place;
use crate::core::{Core, CoreShard, Ticket};
use crate::counters::add;
use crate::message::ServerEnv;
use crate::multi_get;
use crate::read::{OwnedKey, look_up};
use crate::refusal::Refusal;
use crate::resp::failure::{self, PartsFailed};
use crate::resp::outcome::{self, Then};
use crate::resp::route::Call;
use crate::resp::table::{Name, Spec};
use crate::watch::{self, KeyPlace};
use crate::write::{WriteWaiter, count_refused};

/// Tables that one command reads at the same time.
const READERS_MAX: usize = 16;

/// DEL or UNLINK of one key.
pub(super) fn delete_one<E: ServerEnv>(call: &Call<'_, E>) -> bool {
    call.write(Operation::DeleteIf { condition: Condition::Present }, Then::OneOrZero)
}

/// EXISTS of one key.
pub(super) fn exists_one<E: ServerEnv>(call: &Call<'_, E>) -> bool {
    look_up(call.core, &call.ticket, call.shard, &call.key, |core, ticket, record| {
        core.answer(ticket, |out| reply::integer(out, i64::from(record.is_some())));
    });
    true
}

/// MGET of one key.
pub(super) fn get_one<E: ServerEnv>(call: &Call<'_, E>) -> bool {
    look_up(call.core, &call.ticket, call.shard, &call.key, |core, ticket, record| {
        core.answer(ticket, |out| {
            reply::array(out, 1);
            match record {
                Some(record) => reply::bulk(out, record.value),
                None => reply::null(out, ticket.resp_version()),
            }
        });
    });
    true
}

/// A command of several keys. Answers whether it is decided what it does to them.
pub(super) fn carry_out<E: ServerEnv>(
    core: &Rc<Core<E>>,
    ticket: Ticket,
    spec: &Spec,
    command: &Command<'_>,
    namespace: u32,
) -> bool {
    let (found, max) = (spec.keys(command.len()), core.options.batch_ops_max);
    if found > max as usize {
        core.refuse(&ticket, &Refusal::too_large("command (keys)", found, max));
        return true;
    }
    let keys = command.args_from(1);
    match spec.is {
        Name::MSet if command.len().is_multiple_of(2) => core.fail(&ticket, failure::arity(spec.name)),
        Name::MSet => set(core, ticket, command, namespace),
        Name::MGet => multi_get::gather(core, ticket, namespace, keys),
        _ => return count(core, ticket, spec, keys, namespace),
    }
    true
}

/// MSET, as a BATCH: plain puts, which are decided when they come to their shards.
fn set<E: ServerEnv>(core: &Rc<Core<E>>, ticket: Ticket, command: &Command<'_>, namespace: u32) {
    let mut operations = ListBuf::<Operations>::with_buffer(core.take_buffer());
    let mut args = command.args_from(1);
    while let (Some(key), Some(value)) = (args.next(), args.next()) {
        let put = BatchOperation::Put { key, value, ttl: Ttl::NamespaceDefault };
        if let Err(error) = operations.push(&put) {
            return core.refuse(&ticket, &Refusal::protocol(&error));
        }
    }
    let durability = match core.config.resp.durability {
        pinion_engine::Durability::Sync => Durability::Sync,
        pinion_engine::Durability::Buffered => Durability::Buffered,
    };
    let list = operations.list();
    batch::batch(core, ticket, &Batch { namespace, durability, stamp: None, operations: list });
    core.give_buffer(operations.into_buffer());
}

/// A count whose parts are coming in.
struct Counting<E: ServerEnv> {
    core: Rc<Core<E>>,
    ticket: Ticket,
    /// What is counted goes.
    deletes: bool,
    sum: Cell<i64>,
    /// Parts under way, and one while the command is being taken apart.
    waiting: Cell<u32>,
    failed: PartsFailed,
    /// Keys that wait for a reader.
    to_read: RefCell<Vec<(CoreShard<E>, OwnedKey)>>,
}

/// A write that counts.
pub(crate) struct CountPart<E: ServerEnv>(Rc<Counting<E>>);

/// DEL, UNLINK or EXISTS of several keys.
fn count<'a, E: ServerEnv>(
    core: &Rc<Core<E>>,
    ticket: Ticket,
    spec: &Spec,
    keys: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
    namespace: u32,
) -> bool {
    // A bad key refuses the command before anything is under way.
    for user in keys.clone() {
        if core.refuse_bad_key(&ticket, user) {
            return true;
        }
    }
    let counting = Rc::new(Counting {
        core: Rc::clone(core),
        ticket,
        deletes: spec.is == Name::Del,
        sum: Cell::new(0),
        waiting: Cell::new(1),
        failed: PartsFailed::default(),
        to_read: RefCell::default(),
    });
    let mut elsewhere: Vec<(u16, KeyPlace<'_>, Vec<&[u8]>)> = Vec::new();
    let mut decided = true;
    for user in keys {
        let key = core.key(namespace, user);
        let shard = match core.place(key.partition) {
            Place::Here(shard) => {
                core.access(&key);
                core.trail(&ticket, &key);
                shard
            }
            Place::Core(owner) => {
                match elsewhere.iter_mut().find(|(core, ..)| *core == owner) {
                    Some((.., args)) => args.push(user),
                    None => elsewhere.push((owner, core.place_of(&key), vec![spec.name.as_bytes(), user])),
                }
                continue;
            }
        };
        if counting.deletes {
            counting.begin();
            let waiter = WriteWaiter::Count(CountPart(Rc::clone(&counting)));
            let operation = Operation::DeleteIf { condition: Condition::Present };
            decided &= shard.write(&key, operation, outcome::options(core, &ticket), waiter);
        } else if shard.get_now(&key, |record| counting.add(i64::from(record.is_some()))).is_ok() {
            add(&core.counters.gets_in_memory, 1);
        } else {
            counting.to_read.borrow_mut().push((shard.clone(), OwnedKey::of(&key)));
        }
    }
    for (owner, first, args) in elsewhere {
        decided = false;
        counting.ask(owner, first, &args);
    }
    counting.start_readers();
    counting.part_done();
    decided
}

impl<E: ServerEnv> Counting<E> {
    fn begin(&self) {
        self.waiting.set(self.waiting.get() + 1);
    }

    fn add(&self, number: i64) {
        if self.deletes && number > 0 {
            self.failed.changed();
        }
        self.sum.set(self.sum.get() + number);
    }

    /// Sends another core the keys that it owns.
    fn ask(self: &Rc<Self>, owner: u16, first: KeyPlace<'_>, args: &[&[u8]]) {
        let core = &self.core;
        if core.awaited.count() >= core.limits().core_forwards_max {
            add(&core.counters.overloaded, 1);
            let what = "too many requests are being forwarded";
            return self.failed.refuse(&Refusal::overloaded(what, core.limits().overload_retry_ms));
        }
        self.begin();
        let counting = Rc::clone(self);
        core.forward_command_part(
            owner,
            &self.ticket,
            |out| append_command(out, args.iter().copied()),
            Some(first),
            Box::new(move |core, answer| {
                match integer(&answer) {
                    Some(number) => counting.add(number),
                    None => counting.failed.answered(&answer),
                }
                core.give_buffer(answer);
                counting.part_done();
            }),
        );
    }

    /// Starts tasks for the keys that need a table.
    fn start_readers(self: &Rc<Self>) {
        let wanted = self.to_read.borrow().len();
        let readers = wanted.min(READERS_MAX).min(self.core.reads_free() as usize);
        if wanted > 0 && readers == 0 {
            add(&self.core.counters.overloaded, 1);
            let retry_ms = self.core.limits().overload_retry_ms;
            return self.failed.refuse(&Refusal::overloaded("too many reads are under way", retry_ms));
        }
        for _ in 0..readers {
            self.begin();
            let (counting, place) = (Rc::clone(self), self.core.read_place());
            self.core.env.spawn(TaskClass::Foreground, async move {
                loop {
                    let Some((shard, key)) = counting.to_read.borrow_mut().pop() else { break };
                    add(&counting.core.counters.gets_from_disk, 1);
                    let read = shard.get(&key.borrow()).await;
                    counting.core.tick();
                    counting.core.trail(&counting.ticket, &key.borrow());
                    match read {
                        Ok(found) => counting.add(i64::from(found.is_some())),
                        Err(error) => counting.failed.refuse(&Refusal::engine(&error)),
                    }
                }
                drop(place);
                counting.part_done();
            });
        }
    }

    /// One part less is under way; answers after the last.
    fn part_done(&self) {
        self.waiting.set(self.waiting.get() - 1);
        if self.waiting.get() > 0 {
            return;
        }
        match self.failed.take() {
            Some(line) => {
                self.core.count_error(&self.ticket);
                self.core.answer_as(&self.ticket, watch::ERR, |out| out.extend_from_slice(&line));
            }
            None => self.core.answer(&self.ticket, |out| reply::integer(out, self.sum.get())),
        }
    }
}

impl<E: ServerEnv> CountPart<E> {
    /// Whose command it is a part of.
    #[inline]
    pub(crate) fn about(&self) -> (&Core<E>, &Ticket) {
        (&self.0.core, &self.0.ticket)
    }

    /// Takes the answer of a shard of this core.
    pub(crate) fn complete(self, result: Result<Written>) {
        let counting = self.0;
        match result {
            Ok(written) => {
                counting.core.see_stamp(written.stamp.time);
                counting.add(i64::from(written.effect != Effect::ConditionFailed));
            }
            Err(error) => {
                if !counting.failed.any() {
                    count_refused(&counting.core, &error);
                }
                counting.failed.refuse(&Refusal::engine(&error));
            }
        }
        counting.part_done();
    }
}

/// The number of an integer reply.
pub(super) fn integer(answer: &[u8]) -> Option<i64> {
    parse_integer(answer.strip_prefix(b":")?.strip_suffix(b"\r\n")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_back() {
        assert_eq!(integer(b":12\r\n"), Some(12));
        assert_eq!(integer(b"-ERR no\r\n"), None);
        assert_eq!(integer(b":12"), None);
    }
}
