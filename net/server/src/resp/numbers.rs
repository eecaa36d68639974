//! Numbers: INCR, DECR, INCRBY, DECRBY.

use pinion_engine::{Operation, Update};
use pinion_protocol::resp::parse_integer;

use crate::message::ServerEnv;
use crate::resp::failure;
use crate::resp::outcome::Then;
use crate::resp::route::Call;
use crate::resp::table::{Name, Spec};

pub(super) fn add<E: ServerEnv>(spec: &Spec, call: &Call<'_, E>) -> bool {
    let amount = match spec.is {
        Name::Incr => 1,
        Name::Decr => -1,
        _ => match parse_integer(call.command.arg(2)) {
            None => return call.fail(failure::NOT_AN_INTEGER),
            Some(amount) if spec.is == Name::IncrBy => amount,
            // The smallest integer has no opposite.
            Some(i64::MIN) => return call.fail("ERR decrement would overflow"),
            Some(amount) => -amount,
        },
    };
    call.write(Operation::Update(Update::Add(amount)), Then::Number)
}
