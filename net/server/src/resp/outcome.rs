//! How a write is answered in RESP.

use std::rc::Rc;

use pinion_engine::{
    Durability, Effect, Error, Misfit, Operation, RecordView, Result, WriteOptions, Written,
};
use pinion_protocol::resp::reply;

use crate::core::{Core, Ticket};
use crate::message::ServerEnv;
use crate::pressure::AnswerBytes;
use crate::refusal::Refusal;
use crate::resp::expiry::BadTime;
use crate::resp::failure;
use crate::resp::route::Call;
use crate::write::{WriteWaiter, count_refused};

/// What a write is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// `OK`, or nothing if the condition did not hold.
    Ok,
    /// 1, or 0 if the condition did not hold.
    OneOrZero,
    /// The number that an update computes.
    Number,
    /// The value that stood there, whether or not the condition held.
    Replaced,
    /// This error if there is a value, else nothing.
    BadTime(BadTime),
}

/// The value that stood under a key.
struct Replaced<E: ServerEnv> {
    value: Vec<u8>,
    /// It counts as a waiting answer.
    held: AnswerBytes<E>,
}

/// Answers a command when its write has ended.
pub(crate) struct RespWrite<E: ServerEnv> {
    core: Rc<Core<E>>,
    ticket: Ticket,
    then: Then,
    replaced: Option<Box<Replaced<E>>>,
    /// Whether a value stood there.
    was_there: bool,
}

impl<E: ServerEnv> Call<'_, E> {
    /// Writes, and answers when it is done. Answers whether it is decided what the write does.
    pub(super) fn write(&self, operation: Operation<'_>, then: Then) -> bool {
        // A value will have to wait until the write is done: not if too many wait already.
        if then == Then::Replaced && self.core.refuse_if_full(&self.ticket) {
            return true;
        }
        let options = WriteOptions {
            durability: self.core.config.resp.durability,
            created: self.default_lifetime,
            deadline: self.ticket.deadline,
            ..WriteOptions::default()
        };
        let waiter = RespWrite {
            core: Rc::clone(self.core),
            ticket: self.ticket,
            then,
            replaced: None,
            was_there: false,
        };
        self.shard.write(&self.key, operation, options, WriteWaiter::Resp(waiter))
    }
}

impl<E: ServerEnv> RespWrite<E> {
    /// Whose write it is.
    #[inline]
    pub(crate) fn about(&self) -> (&Core<E>, &Ticket) {
        (&self.core, &self.ticket)
    }

    /// Keeps the value that stands there, if it is to be answered.
    pub(crate) fn decided(&mut self, present: Option<&RecordView<'_>>) {
        self.was_there = present.is_some();
        let Some(present) = present.filter(|_| self.then == Then::Replaced) else { return };
        let mut value = self.core.take_buffer();
        value.extend_from_slice(present.value);
        let held = AnswerBytes::new(&self.core);
        held.count(value.len());
        self.replaced = Some(Box::new(Replaced { value, held }));
    }

    /// Answers.
    pub(crate) fn complete(self, result: Result<Written>) {
        let Self { core, ticket, then, replaced, was_there } = self;
        let written = match result {
            Ok(written) => written,
            Err(error) => return refuse(&core, &ticket, &error),
        };
        core.see_stamp(written.stamp.time);
        let version = ticket.resp_version();
        let held = written.effect != Effect::ConditionFailed;
        match (then, replaced) {
            (Then::Ok, _) if held => core.answer(&ticket, |out| reply::simple(out, "OK")),
            (Then::BadTime(bad), _) if was_there => core.fail(&ticket, bad.bytes()),
            (Then::Ok | Then::BadTime(_), _) | (Then::Replaced, None) => {
                core.answer(&ticket, |out| reply::null(out, version))
            }
            (Then::OneOrZero, _) => core.answer(&ticket, |out| reply::integer(out, i64::from(held))),
            (Then::Number, _) => core.answer(&ticket, |out| reply::integer(out, written.number)),
            (Then::Replaced, Some(replaced)) => {
                let Replaced { value, held } = *replaced;
                // From here on it counts where it goes.
                drop(held);
                core.answer(&ticket, |out| reply::bulk(out, &value));
                core.give_buffer(value);
            }
        }
    }
}

/// Answers a write that the engine refused: in the words of Redis if it would refuse it too.
pub(super) fn refuse<E: ServerEnv>(core: &Core<E>, ticket: &Ticket, error: &Error) {
    match error {
        Error::BadOperation(Misfit::NotAnInteger) => core.fail(ticket, failure::NOT_AN_INTEGER),
        Error::BadOperation(Misfit::Overflow) => core.fail(ticket, failure::OVERFLOW),
        Error::TooLarge { what: "value", bytes, max } => {
            core.fail(ticket, format!("{}: {bytes} bytes of at most {max} (not applied)", failure::TOO_LONG));
        }
        error => {
            count_refused(core, error);
            core.refuse(ticket, &Refusal::engine(error));
        }
    }
}

/// What goes with writes that do not answer by themselves.
pub(super) fn options<E: ServerEnv>(core: &Core<E>, ticket: &Ticket) -> WriteOptions {
    let durability: Durability = core.config.resp.durability;
    WriteOptions { durability, deadline: ticket.deadline, ..WriteOptions::default() }
}
