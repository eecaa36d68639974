//! BATCH: puts and deletes, split by shard.
//!
//! A batch is atomic for the keys of one partition: the operations of one shard are one engine
//! batch. Operations of other cores go there as BATCHes of their own. When all belong to one
//! shard, its error is the request's error; otherwise each operation carries its own result.
//! Shards stamp their parts themselves unless the client gave the stamp.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pinion_engine::{BatchOperation as EngineOperation, Effect, Key, Result, Written};
use pinion_protocol::resp::reply;
use pinion_protocol::{
    Batch, BatchOperation, BatchReply, Header, ListBuf, OperationResult, OperationResults, Operations,
    Outcome, Request, Response, Ttl, Version,
};

use crate::coordinator::Place;
use crate::core::{Core, Dialect, Ticket};
use crate::message::ServerEnv;
use crate::refusal::{Refusal, version_of};
use crate::watch::KeyPlace;
use crate::write::{WriteWaiter, count_refused, lifetime, write_options};

/// A batch whose parts are under way.
struct Gathering<E: ServerEnv> {
    core: Rc<Core<E>>,
    ticket: Ticket,
    results: RefCell<Vec<OperationResult>>,
    /// Parts under way, and one while the batch is being split.
    waiting: Cell<u32>,
    /// How many parts the batch was split into.
    parts: u32,
    /// Why a part failed: the last that did.
    failed: RefCell<Option<Refusal<'static>>>,
}

/// The operations of a batch that one shard or one other core carries out.
pub(crate) struct BatchPart<E: ServerEnv> {
    gathering: Rc<Gathering<E>>,
    /// Their indexes in the batch, ascending.
    indexes: Vec<u32>,
}

/// The operations of one shard of this core.
struct Here<'a> {
    shard: u16,
    indexes: Vec<u32>,
    operations: Vec<EngineOperation<'a>>,
}

/// The operations of another core.
struct Elsewhere<'a> {
    core: u16,
    /// The first of their keys.
    first: Option<KeyPlace<'a>>,
    indexes: Vec<u32>,
    operations: ListBuf<Operations>,
}

/// Answers a BATCH.
pub(crate) fn batch<E: ServerEnv>(core: &Rc<Core<E>>, ticket: Ticket, batch: &Batch<'_>) {
    let Some(default_ttl_ms) = core.checked_namespace(&ticket, batch.namespace) else { return };
    let (count, bytes) = (batch.operations.len() as usize, batch.operations.as_bytes().len());
    let options = &core.options;
    if count > options.batch_ops_max as usize {
        return core.refuse(&ticket, &Refusal::too_large("batch (operations)", count, options.batch_ops_max));
    }
    if bytes > options.batch_bytes_max as usize + count * 16 {
        return core.refuse(&ticket, &Refusal::too_large("batch", bytes, options.batch_bytes_max));
    }
    let (mut here, mut elsewhere) = (Vec::<Here<'_>>::new(), Vec::<Elsewhere<'_>>::new());
    for (index, operation) in (0..).zip(&batch.operations) {
        let Some(key) = core.checked_key(&ticket, batch.namespace, operation.key()) else { return };
        match core.place(key.partition) {
            Place::Here(_) => {
                core.access(&key);
                let shard = core.shard_of(key.partition);
                let part = match here.iter_mut().find(|part| part.shard == shard) {
                    Some(part) => part,
                    None => here.push_mut(Here { shard, indexes: Vec::new(), operations: Vec::new() }),
                };
                part.indexes.push(index);
                part.operations.push(engine_operation(key, &operation, default_ttl_ms));
            }
            Place::Core(owner) => {
                let part = match elsewhere.iter_mut().find(|part| part.core == owner) {
                    Some(part) => part,
                    None => elsewhere.push_mut(Elsewhere {
                        core: owner,
                        first: Some(core.place_of(&key)),
                        indexes: Vec::new(),
                        operations: ListBuf::new(),
                    }),
                };
                part.indexes.push(index);
                if part.operations.push(&operation).is_err() {
                    return core.refuse(&ticket, &Refusal::bad_request("an operation does not fit"));
                }
            }
        }
    }
    if core.awaited.count() as usize + elsewhere.len() > core.limits().core_forwards_max as usize {
        return core.refuse_overloaded(&ticket, "too many requests are being forwarded");
    }
    let blank = OperationResult::Applied(Version::ABSENT);
    let gathering = Rc::new(Gathering {
        core: Rc::clone(core),
        ticket,
        results: RefCell::new(vec![blank; count]),
        waiting: Cell::new(1),
        parts: (here.len() + elsewhere.len()) as u32,
        failed: RefCell::default(),
    });
    for part in elsewhere {
        gathering.send(part, batch);
    }
    for Here { shard, indexes, operations } in here {
        let Some(shard) = core.shard(shard) else { continue };
        let part = gathering.part(indexes);
        let options = write_options(&ticket, batch.durability, batch.stamp);
        shard.write_batch(&operations, options, WriteWaiter::Part(part));
    }
    gathering.part_done();
}

fn engine_operation<'a>(
    key: Key<'a>,
    operation: &BatchOperation<'a>,
    default_ttl_ms: u64,
) -> EngineOperation<'a> {
    match *operation {
        BatchOperation::Put { value, ttl, .. } => {
            EngineOperation { key, value: Some(value), lifetime: lifetime(ttl.millis_or(default_ttl_ms)) }
        }
        BatchOperation::Delete { .. } => {
            EngineOperation { key, value: None, lifetime: lifetime(Ttl::Never.millis_or(0)) }
        }
    }
}

impl<E: ServerEnv> Gathering<E> {
    /// Counts a part in.
    fn part(self: &Rc<Self>, indexes: Vec<u32>) -> BatchPart<E> {
        self.waiting.set(self.waiting.get() + 1);
        BatchPart { gathering: Rc::clone(self), indexes }
    }

    /// Sends a part to its core.
    fn send(self: &Rc<Self>, elsewhere: Elsewhere<'_>, batch: &Batch<'_>) {
        let request = Request::Batch(Batch {
            namespace: batch.namespace,
            durability: batch.durability,
            stamp: batch.stamp,
            operations: elsewhere.operations.list(),
        });
        let part = self.part(elsewhere.indexes.clone());
        let sent = self.core.forward_part(
            elsewhere.core,
            &self.ticket,
            &request,
            elsewhere.first,
            Box::new(move |core, frame| {
                part.answered(&frame);
                core.give_buffer(frame);
            }),
        );
        if let Err(error) = sent {
            // The part went with the function that was to take its answer.
            BatchPart { gathering: Rc::clone(self), indexes: elsewhere.indexes }
                .fail(&Refusal::protocol(&error));
        }
    }

    /// One part less is under way; answers after the last.
    fn part_done(&self) {
        self.waiting.set(self.waiting.get() - 1);
        if self.waiting.get() > 0 {
            return;
        }
        if self.ticket.dialect != Dialect::Native {
            return self.answer_command();
        }
        if self.parts == 1
            && let Some(refusal) = self.failed.take()
        {
            return self.core.refuse(&self.ticket, &refusal);
        }
        let mut results = ListBuf::<OperationResults>::with_buffer(self.core.take_buffer());
        for result in self.results.take() {
            if let Err(error) = results.push(&result) {
                return self.core.refuse(&self.ticket, &Refusal::protocol(&error));
            }
        }
        let stamp_seen = self.core.stamp_seen.get().0;
        let reply = Response::Batch(BatchReply { results: results.list(), stamp_seen });
        self.core.answer_with(&self.ticket, &reply);
        self.core.give_buffer(results.into_buffer());
    }
}

impl<E: ServerEnv> Gathering<E> {
    /// Answers a command of RESP, which has one reply for all its keys.
    fn answer_command(&self) {
        let results = self.results.take();
        // Another core answers for each key if several shards of it were asked; then no part has failed.
        let of_a_key = || results.iter().find_map(Refusal::of_result);
        let Some(mut refusal) = self.failed.take().or_else(of_a_key) else {
            return self.core.answer(&self.ticket, |out| reply::simple(out, "OK"));
        };
        let not_applied = |result: &OperationResult| {
            matches!(result, OperationResult::Failed { outcome: Outcome::NotApplied, .. })
        };
        refusal.outcome = match results.iter().all(not_applied) {
            true => Outcome::NotApplied,
            false => Outcome::Unknown,
        };
        self.core.refuse(&self.ticket, &refusal);
    }
}

impl<E: ServerEnv> BatchPart<E> {
    /// Whose batch it is.
    #[inline]
    pub(crate) fn about(&self) -> (&Core<E>, &Ticket) {
        (&self.gathering.core, &self.gathering.ticket)
    }

    /// Takes the answer of a shard of this core.
    pub(crate) fn complete(self, result: Result<Written>) {
        match result {
            Err(error) => {
                // Once, however many of its parts are refused.
                if self.gathering.failed.borrow().is_none() {
                    count_refused(&self.gathering.core, &error);
                }
                self.fail(&Refusal::engine(&error));
            }
            Ok(written) => {
                self.gathering.core.see_stamp(written.stamp.time);
                let version = version_of(written.stamp);
                for (within, index) in (0_u32..).zip(&self.indexes) {
                    let superseded = written.effect == Effect::Superseded
                        || written.superseded.binary_search(&within).is_ok();
                    self.set(
                        *index,
                        match superseded {
                            true => OperationResult::Superseded(version),
                            false => OperationResult::Applied(version),
                        },
                    );
                }
                self.gathering.part_done();
            }
        }
    }

    /// Takes the answer of another core.
    fn answered(self, frame: &[u8]) {
        let response = match Header::read(frame) {
            Ok(Some(header)) => Response::decode(&header, &frame[usize::from(header.header_bytes)..]),
            _ => return self.fail(&Refusal::unknown("an answer between cores was cut off")),
        };
        match response {
            Ok(Response::Batch(reply)) => {
                for (index, result) in self.indexes.iter().zip(&reply.results) {
                    self.set(*index, result);
                }
                self.gathering.part_done();
            }
            Ok(Response::Error { error, .. }) => self.fail(&Refusal::answered(&error)),
            _ => self.fail(&Refusal::unknown("an answer between cores was of another kind")),
        }
    }

    fn set(&self, index: u32, result: OperationResult) {
        if let Some(slot) = self.gathering.results.borrow_mut().get_mut(index as usize) {
            *slot = result;
        }
    }

    fn fail(self, refusal: &Refusal<'_>) {
        let Refusal { code, outcome, retry_after_ms, .. } = *refusal;
        for index in &self.indexes {
            self.set(*index, OperationResult::Failed { code, outcome, retry_after_ms });
        }
        *self.gathering.failed.borrow_mut() = Some(refusal.clone().into_owned());
        self.gathering.part_done();
    }
}
