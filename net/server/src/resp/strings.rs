//! Strings: GET, SET and their kin, APPEND, SETRANGE, GETRANGE, STRLEN; and TYPE, for all values are strings.

use pinion_engine::{Condition, Expiring, Lifetime, Operation, RecordView, Update};
use pinion_protocol::resp::{Command, parse_integer, reply};

use crate::core::{Core, Ticket};
use crate::message::ServerEnv;
use crate::read::look_up;
use crate::resp::expiry::{Clock, Unit, moment};
use crate::resp::failure;
use crate::resp::outcome::{Tell, Then};
use crate::resp::route::Call;
use crate::resp::table::{Name, Spec};

/// A value that expires some time.
pub(super) const MORTAL: Expiring = Expiring { from_ms: 1, to_ms: u64::MAX, never: false };

/// GET, STRLEN, GETRANGE, TYPE.
pub(super) fn read<E: ServerEnv>(spec: &Spec, call: &Call<'_, E>) -> bool {
    let Call { core, ticket, command, shard, key, .. } = call;
    match spec.is {
        Name::StrLen => look_up(core, ticket, shard, key, |core, ticket, record| {
            let bytes = record.map_or(0, |record| record.value.len());
            core.answer(ticket, |out| reply::integer(out, bytes as i64));
        }),
        Name::Type => look_up(core, ticket, shard, key, |core, ticket, record| {
            core.answer(ticket, |out| reply::simple(out, if record.is_some() { "string" } else { "none" }));
        }),
        Name::GetRange => {
            let (Some(start), Some(end)) = (parse_integer(command.arg(2)), parse_integer(command.arg(3)))
            else {
                return call.fail(failure::NOT_AN_INTEGER);
            };
            look_up(core, ticket, shard, key, move |core, ticket, record| {
                let value = record.map_or(&[][..], |record| record.value);
                core.answer(ticket, |out| reply::bulk(out, part(value, start, end)));
            });
        }
        _ => look_up(core, ticket, shard, key, answer_value),
    }
    true
}

/// Answers with a value or nothing.
pub(super) fn answer_value<E: ServerEnv>(core: &Core<E>, ticket: &Ticket, record: Option<RecordView<'_>>) {
    core.answer(ticket, |out| match record {
        Some(record) => {
            core.see_stamp(record.stamp.time);
            reply::bulk(out, record.value);
        }
        None => reply::null(out, ticket.resp_version()),
    });
}

/// The bytes from `start` to `end`, both included, counted from the end if negative.
fn part(value: &[u8], start: i64, end: i64) -> &[u8] {
    if start < 0 && end < 0 && start > end {
        return &[];
    }
    let bytes = value.len() as i64;
    let place = |index: i64| (if index < 0 { index + bytes } else { index }).max(0);
    let (start, end) = (place(start), place(end).min(bytes - 1));
    if start > end { &[] } else { &value[start as usize..=end as usize] }
}

/// Whether a SET writes whatever stands under its key.
pub(super) fn is_plain_set(command: &Command<'_>) -> bool {
    let expiry = |option: &[u8]| Unit::of_option(option).is_some();
    command.len() == 3 || (command.len() == 5 && expiry(command.arg(3)))
}

/// Whether a command that may change something only reads this time: it must wait for what is written
/// before it.
pub(super) fn only_reads(name: Name, command: &Command<'_>) -> bool {
    match name {
        Name::GetEx => command.len() == 2,
        Name::SetRange => command.arg(3).is_empty(),
        _ => false,
    }
}

/// What the options of SET or GETEX say.
#[derive(Debug, Clone, Copy)]
struct Options<'a> {
    condition: Condition<'a>,
    get: bool,
    keep_ttl: bool,
    persist: bool,
    expiry: Option<(Unit, Clock, &'a [u8])>,
}

impl<'a> Options<'a> {
    /// Reads the arguments from `first` on; `None` if they make no sense.
    fn read(command: &Command<'a>, first: usize, of_set: bool) -> Option<Self> {
        let mut options =
            Self { condition: Condition::Always, get: false, keep_ttl: false, persist: false, expiry: None };
        let mut args = command.args_from(first);
        while let Some(option) = args.next() {
            let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
            if let Some((unit, clock)) = Unit::of_option(option) {
                let other = options.expiry.is_some_and(|(known, by, _)| (known, by) != (unit, clock));
                if other || options.keep_ttl || options.persist {
                    return None;
                }
                options.expiry = Some((unit, clock, args.next()?));
            } else if of_set && is("nx") && matches!(options.condition, Condition::Always | Condition::Absent)
            {
                options.condition = Condition::Absent;
            } else if of_set
                && is("xx")
                && matches!(options.condition, Condition::Always | Condition::Present)
            {
                options.condition = Condition::Present;
            } else if of_set && is("ifeq") && matches!(options.condition, Condition::Always) {
                options.condition = Condition::ValueIs(args.next()?);
            } else if of_set && is("get") {
                options.get = true;
            } else if of_set && is("keepttl") && options.expiry.is_none() {
                options.keep_ttl = true;
            } else if !of_set && is("persist") && options.expiry.is_none() {
                options.persist = true;
            } else {
                return None;
            }
        }
        Some(options)
    }
}

/// SET, SETEX, PSETEX, SETNX, GETSET, GETDEL, GETEX.
pub(super) fn write<E: ServerEnv>(spec: &Spec, call: &Call<'_, E>) -> bool {
    let command = &call.command;
    let value = command.arg(2);
    match spec.is {
        Name::SetNx => call.write(
            Operation::PutIf { condition: Condition::Absent, value, lifetime: call.default_lifetime },
            Then::OneOrZero,
        ),
        Name::GetSet => call.write_and_tell(
            Operation::PutIf { condition: Condition::Always, value, lifetime: call.default_lifetime },
            Tell::Value,
        ),
        Name::GetDel => {
            call.write_and_tell(Operation::DeleteIf { condition: Condition::Present }, Tell::Value)
        }
        Name::SetEx | Name::PSetEx => {
            let unit = if spec.is == Name::SetEx { Unit::Seconds } else { Unit::Millis };
            match moment(call, spec.name, unit, Clock::FromNow, command.arg(2)) {
                Ok(lifetime) => call.write(Operation::Put { value: command.arg(3), lifetime }, Then::Ok),
                Err(text) => call.fail(text.bytes()),
            }
        }
        Name::GetEx => get_ex(spec, call),
        _ => set(spec, call),
    }
}

fn set<E: ServerEnv>(spec: &Spec, call: &Call<'_, E>) -> bool {
    let value = call.command.arg(2);
    let lifetime = call.default_lifetime;
    if call.command.len() == 3 {
        return call.write(Operation::Put { value, lifetime }, Then::Ok);
    }
    let Some(options) = Options::read(&call.command, 3, true) else { return call.fail(failure::SYNTAX) };
    let lifetime = match options.expiry {
        Some((unit, clock, number)) => match moment(call, spec.name, unit, clock, number) {
            Ok(lifetime) => lifetime,
            Err(text) => return call.fail(text.bytes()),
        },
        None if options.keep_ttl => Lifetime::Keep,
        None => lifetime,
    };
    let operation = match options.condition {
        Condition::Always if !options.get && !options.keep_ttl => Operation::Put { value, lifetime },
        condition => Operation::PutIf { condition, value, lifetime },
    };
    if options.get { call.write_and_tell(operation, Tell::Value) } else { call.write(operation, Then::Ok) }
}

fn get_ex<E: ServerEnv>(spec: &Spec, call: &Call<'_, E>) -> bool {
    let Call { core, ticket, command, shard, key, .. } = call;
    let Some(options) = Options::read(command, 2, false) else { return call.fail(failure::SYNTAX) };
    let update = |condition, lifetime| {
        let update = Update::SetExpiry(lifetime);
        call.write_and_tell(Operation::UpdateIf { condition, update }, Tell::Value)
    };
    match options.expiry {
        Some((unit, clock, number)) => match moment(call, spec.name, unit, clock, number) {
            Ok(lifetime) => update(Condition::Present, lifetime),
            Err(bad) => {
                // No value expires in no set of moments: this only looks.
                let nothing = Expiring { from_ms: 1, to_ms: 0, never: false };
                let operation = Operation::DeleteIf { condition: Condition::Expires(nothing) };
                call.write_and_tell(operation, Tell::BadTime(bad))
            }
        },
        None if options.persist => update(Condition::Expires(MORTAL), Lifetime::Forever),
        None => {
            look_up(core, ticket, shard, key, answer_value);
            true
        }
    }
}

/// APPEND, SETRANGE.
pub(super) fn change<E: ServerEnv>(spec: &Spec, call: &Call<'_, E>) -> bool {
    let Call { core, ticket, command, shard, key, .. } = call;
    if spec.is == Name::Append {
        return call.write(Operation::Update(Update::Append(command.arg(2))), Then::Number);
    }
    let bytes = command.arg(3);
    let Some(offset) = parse_integer(command.arg(2)) else { return call.fail(failure::NOT_AN_INTEGER) };
    if offset < 0 {
        return call.fail("ERR offset is out of range");
    }
    if bytes.is_empty() {
        // Nothing is changed, nor made.
        look_up(core, ticket, shard, key, |core, ticket, record| {
            let bytes = record.map_or(0, |record| record.value.len());
            core.answer(ticket, |out| reply::integer(out, bytes as i64));
        });
        return true;
    }
    match u32::try_from(offset) {
        Ok(offset) => call.write(Operation::Update(Update::SetRange { offset, bytes }), Then::Number),
        Err(_) => call.fail(failure::TOO_LONG),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_cut_as_redis_cuts_them() {
        let value = b"This is a string";
        for (start, end, expected) in [
            (0, 3, "This"),
            (-3, -1, "ing"),
            (0, -1, "This is a string"),
            (10, 100, "string"),
            (5, 3, ""),
            (-1, -5, ""),
            (-100, 3, "This"),
            (-100, -50, "T"),
            (100, 200, ""),
            (i64::MIN, i64::MAX, "This is a string"),
            (i64::MIN, i64::MIN, "T"),
        ] {
            assert_eq!(part(value, start, end), expected.as_bytes(), "{start} {end}");
        }
        assert_eq!(part(b"", 0, -1), b"");
        assert_eq!(part(b"", -2, 5), b"");
    }
}
