//! How a write is answered in RESP.

use std::rc::Rc;

use pinion_engine::{
    Durability, Effect, Error, Misfit, Operation, RecordView, Result, WriteOptions, Written,
};
use pinion_protocol::resp::{RespVersion, reply};

use crate::core::{Core, Dialect, Ticket};
use crate::message::ServerEnv;
use crate::pressure::AnswerBytes;
use crate::refusal::Refusal;
use crate::resp::expiry::BadTime;
use crate::resp::failure;
use crate::resp::route::Call;
use crate::write::{WriteWaiter, count_refused};

/// What a write is answered with that needs to know no more than its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// `OK`, or nothing if the condition did not hold.
    Ok,
    /// 1, or 0 if the condition did not hold.
    OneOrZero,
    /// The number that an update computes.
    Number,
}

/// What a write is answered with that tells of the value that stood there, whether or not the condition
/// held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tell {
    /// The value.
    Value,
    /// This error if there is a value, else nothing.
    BadTime(BadTime),
}

/// Answers a command that tells of the value that stood there when its write has ended.
pub(crate) struct RespWrite<E: ServerEnv> {
    core: Rc<Core<E>>,
    ticket: Ticket,
    tell: Tell,
    /// The value, if it is to be answered.
    value: Option<Vec<u8>>,
    /// It counts as a waiting answer.
    held: AnswerBytes<E>,
    /// Whether a value stood there.
    was_there: bool,
}

impl<E: ServerEnv> Call<'_, E> {
    /// Writes, and answers when it is done. Answers whether it is decided what the write does.
    pub(super) fn write(&self, operation: Operation<'_>, then: Then) -> bool {
        let mut ticket = self.ticket;
        ticket.dialect = Dialect::Resp(ticket.resp_version(), then);
        self.start(operation, WriteWaiter::Single { core: Rc::clone(self.core), ticket })
    }

    /// As [`Call::write`], and answers with what stood there.
    pub(super) fn write_and_tell(&self, operation: Operation<'_>, tell: Tell) -> bool {
        // A value will have to wait until the write is done: not if too many wait already.
        if tell == Tell::Value && self.core.refuse_if_full(&self.ticket) {
            return true;
        }
        let waiter = RespWrite {
            core: Rc::clone(self.core),
            ticket: self.ticket,
            tell,
            value: None,
            held: AnswerBytes::new(self.core),
            was_there: false,
        };
        self.start(operation, WriteWaiter::Resp(Box::new(waiter)))
    }

    fn start(&self, operation: Operation<'_>, waiter: WriteWaiter<E>) -> bool {
        let options = WriteOptions { created: self.default_lifetime, ..options(self.core, &self.ticket) };
        self.shard.write(&self.key, operation, options, waiter)
    }
}

/// Answers a write.
pub(crate) fn answer_write<E: ServerEnv>(
    core: &Core<E>,
    ticket: &Ticket,
    version: RespVersion,
    then: Then,
    result: Result<Written>,
) {
    let written = match result {
        Ok(written) => written,
        Err(error) => return refuse(core, ticket, &error),
    };
    core.see_stamp(written.stamp.time);
    let held = written.effect != Effect::ConditionFailed;
    core.answer(ticket, |out| match then {
        Then::Ok if held => reply::simple(out, "OK"),
        Then::Ok => reply::null(out, version),
        Then::OneOrZero => reply::integer(out, i64::from(held)),
        Then::Number => reply::integer(out, written.number),
    });
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
        let Some(present) = present.filter(|_| self.tell == Tell::Value) else { return };
        let mut value = self.core.take_buffer();
        value.extend_from_slice(present.value);
        self.held.count(value.len());
        self.value = Some(value);
    }

    /// Answers.
    pub(crate) fn complete(self, result: Result<Written>) {
        let Self { core, ticket, tell, value, held, was_there } = self;
        let written = match result {
            Ok(written) => written,
            Err(error) => return refuse(&core, &ticket, &error),
        };
        core.see_stamp(written.stamp.time);
        // From here on it counts where it goes.
        drop(held);
        match (tell, value) {
            (Tell::BadTime(bad), _) if was_there => core.fail(&ticket, bad.bytes()),
            (Tell::Value, Some(value)) => {
                core.answer(&ticket, |out| reply::bulk(out, &value));
                core.give_buffer(value);
            }
            (Tell::BadTime(_) | Tell::Value, _) => {
                core.answer(&ticket, |out| reply::null(out, ticket.resp_version()));
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

/// What goes with a write.
pub(super) fn options<E: ServerEnv>(core: &Core<E>, ticket: &Ticket) -> WriteOptions {
    let durability: Durability = core.config.resp.durability;
    WriteOptions { durability, deadline: ticket.deadline, ..WriteOptions::default() }
}
