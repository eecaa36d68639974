//! When values expire: EXPIRE and its kin, PERSIST, TTL and its kin.
//!
//! Times are those of the shard's clock, which judges expiry. A time that has passed removes the value.

use pinion_engine::{Condition, Expiring, Lifetime, Operation, Update};
use pinion_protocol::resp::{Command, parse_integer, reply};

use crate::message::ServerEnv;
use crate::read::look_up;
use crate::resp::failure;
use crate::resp::outcome::Then;
use crate::resp::route::Call;
use crate::resp::strings::MORTAL;
use crate::resp::table::{Name, Spec};

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Millis,
}

/// From when on a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    FromNow,
    Since1970,
}

impl Unit {
    /// What the options of SET and GETEX mean.
    pub(super) fn of_option(option: &[u8]) -> Option<(Self, Clock)> {
        let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
        match option.len() {
            2 if is("ex") => Some((Self::Seconds, Clock::FromNow)),
            2 if is("px") => Some((Self::Millis, Clock::FromNow)),
            4 if is("exat") => Some((Self::Seconds, Clock::Since1970)),
            4 if is("pxat") => Some((Self::Millis, Clock::Since1970)),
            _ => None,
        }
    }

    const fn millis(self) -> i64 {
        match self {
            Self::Seconds => 1_000,
            Self::Millis => 1,
        }
    }
}

/// Why a time makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadTime {
    NotAnInteger,
    /// For the command of this name.
    OutOfRange(&'static str),
}

impl BadTime {
    pub(super) fn bytes(self) -> Vec<u8> {
        match self {
            Self::NotAnInteger => failure::NOT_AN_INTEGER.into(),
            Self::OutOfRange(name) => failure::expire_time(name).into(),
        }
    }
}

/// Until when a value lives that is written now.
pub(super) fn moment<E: ServerEnv>(
    call: &Call<'_, E>,
    name: &'static str,
    unit: Unit,
    clock: Clock,
    number: &[u8],
) -> Result<Lifetime, BadTime> {
    let number = parse_integer(number).ok_or(BadTime::NotAnInteger)?;
    let bad = BadTime::OutOfRange(name);
    let millis =
        Some(number).filter(|number| *number > 0).and_then(|number| number.checked_mul(unit.millis()));
    let millis = millis.ok_or(bad)?;
    let moment_ms = match clock {
        Clock::FromNow => millis.checked_add(call.shard.clock_ms().cast_signed()).ok_or(bad)?,
        Clock::Since1970 => millis,
    };
    Ok(Lifetime::Until(moment_ms.cast_unsigned()))
}

/// TTL, PTTL, EXPIRETIME, PEXPIRETIME.
pub(super) fn read<E: ServerEnv>(spec: &Spec, call: &Call<'_, E>) -> bool {
    let from_now = matches!(spec.is, Name::Ttl | Name::PTtl);
    let seconds = matches!(spec.is, Name::Ttl | Name::ExpireTime);
    // Of the moment at which it is asked.
    let now_ms = if from_now { call.shard.clock_ms() } else { 0 };
    look_up(call.core, &call.ticket, call.shard, &call.key, move |core, ticket, record| {
        let left = match record.map(|record| record.expiry_ms) {
            None => -2,
            Some(0) => -1,
            Some(moment_ms) => {
                let millis = moment_ms.saturating_sub(now_ms).cast_signed();
                if seconds { millis.saturating_add(500) / 1_000 } else { millis }
            }
        };
        core.answer(ticket, |out| reply::integer(out, left));
    });
    true
}

/// EXPIRE, PEXPIRE, EXPIREAT, PEXPIREAT, PERSIST.
pub(super) fn write<E: ServerEnv>(spec: &Spec, call: &Call<'_, E>) -> bool {
    let command = &call.command;
    if spec.is == Name::Persist {
        let update = Update::SetExpiry(Lifetime::Forever);
        let operation = Operation::UpdateIf { condition: Condition::Expires(MORTAL), update };
        return call.write(operation, Then::OneOrZero);
    }
    let when = match When::read(command) {
        Ok(when) => when,
        Err(text) => return call.fail(text),
    };
    let Some(number) = parse_integer(command.arg(2)) else { return call.fail(failure::NOT_AN_INTEGER) };
    let unit = if matches!(spec.is, Name::Expire | Name::ExpireAt) { Unit::Seconds } else { Unit::Millis };
    let now_ms = call.shard.clock_ms().cast_signed();
    let from_now = matches!(spec.is, Name::Expire | Name::PExpire);
    let base_ms = if from_now { now_ms } else { 0 };
    // A number below zero makes sense: a moment that has passed.
    let Some(moment_ms) = number.checked_mul(unit.millis()).and_then(|millis| millis.checked_add(base_ms))
    else {
        return call.fail(failure::expire_time(spec.name));
    };
    let condition = when.condition(moment_ms);
    if moment_ms <= now_ms {
        return call.write(Operation::DeleteIf { condition }, Then::OneOrZero);
    }
    let update = Update::SetExpiry(Lifetime::Until(moment_ms.cast_unsigned()));
    call.write(Operation::UpdateIf { condition, update }, Then::OneOrZero)
}

/// On which of the present expiries a new one may follow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct When {
    never: bool,
    some: bool,
    greater: bool,
    less: bool,
}

impl When {
    fn read(command: &Command<'_>) -> Result<Self, Vec<u8>> {
        let mut when = Self::default();
        for option in command.args_from(3) {
            let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
            if is("nx") {
                when.never = true;
            } else if is("xx") {
                when.some = true;
            } else if is("gt") {
                when.greater = true;
            } else if is("lt") {
                when.less = true;
            } else {
                return Err(failure::about("ERR Unsupported option ", option, ""));
            }
        }
        if when.never && (when.some || when.greater || when.less) {
            return Err("ERR NX and XX, GT or LT options at the same time are not compatible".into());
        }
        if when.greater && when.less {
            return Err("ERR GT and LT options at the same time are not compatible".into());
        }
        Ok(when)
    }

    /// What must stand under the key for it to expire at `moment_ms` from now on. A value that never
    /// expires counts as one that expires later than all.
    fn condition(self, moment_ms: i64) -> Condition<'static> {
        let moment_ms = u64::try_from(moment_ms).unwrap_or(0);
        if self == Self::default() {
            return Condition::Present;
        }
        if self.never {
            return Condition::Expires(Expiring { from_ms: 1, to_ms: 0, never: true });
        }
        Condition::Expires(Expiring {
            from_ms: if self.less { moment_ms.saturating_add(1) } else { 1 },
            to_ms: if self.greater { moment_ms.saturating_sub(1) } else { u64::MAX },
            never: self.less && !self.some,
        })
    }
}

#[cfg(test)]
mod tests {
    use pinion_engine::{HybridTime, Origin, RecordKind, RecordView, Stamp};

    use super::*;

    #[test]
    fn options_choose_by_the_present_expiry() {
        let stamp = Stamp { time: HybridTime(1), origin: Origin(1) };
        let record = |expiry_ms| RecordView { kind: RecordKind::Value, stamp, expiry_ms, value: b"" };
        let (never, some, greater, less) = (
            When { never: true, ..When::default() },
            When { some: true, ..When::default() },
            When { greater: true, ..When::default() },
            When { less: true, ..When::default() },
        );
        let both = |one: When, other: When| When {
            some: one.some || other.some,
            greater: one.greater || other.greater,
            less: one.less || other.less,
            never: false,
        };
        // A moment of 100, where there is: no expiry, one before, the same, one after.
        for (when, expected) in [
            (When::default(), [true; 4]),
            (never, [true, false, false, false]),
            (some, [false, true, true, true]),
            (greater, [false, true, false, false]),
            (less, [true, false, false, true]),
            (both(some, greater), [false, true, false, false]),
            (both(some, less), [false, false, false, true]),
        ] {
            for (expiry_ms, expected) in [0, 99, 100, 101].into_iter().zip(expected) {
                let holds = when.condition(100).holds(Some(&record(expiry_ms)));
                assert_eq!(holds, expected, "{when:?} {expiry_ms}");
            }
            assert!(!when.condition(100).holds(None), "there is nothing to expire");
        }
    }
}
