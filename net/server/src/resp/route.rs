//! Where a command is carried out: by a shard of this core, or by the core that owns its key.
//!
//! A command of one key is forwarded whole, as the bytes that came; its reply comes back as bytes for
//! the connection. A command that was forwarded is carried out for what this core owns: of keys it has
//! those of this core, and of all keys it means this core's share.

use std::rc::Rc;

use pinion_engine::{Key, Lifetime};
use pinion_env::Monotonic;
use pinion_protocol::resp::{Command, Commands, RespVersion};

use crate::coordinator::{self, Place};
use crate::core::{Core, CoreShard, ReplyTo, Ticket};
use crate::group::Moment;
use crate::message::ServerEnv;
use crate::refusal::Refusal;
use crate::resp::replies::Access;
use crate::resp::table::{self, Name, Scope, Spec};
use crate::resp::{expiry, failure, keys, many, numbers, strings};
use crate::write::lifetime;

/// A command on a key of a shard of this core.
pub(super) struct Call<'a, E: ServerEnv> {
    pub(super) core: &'a Rc<Core<E>>,
    pub(super) ticket: Ticket,
    pub(super) command: Command<'a>,
    pub(super) shard: &'a CoreShard<E>,
    pub(super) key: Key<'a>,
    /// How long a value lives of which nothing is said.
    pub(super) default_lifetime: Lifetime,
}

impl<E: ServerEnv> Call<'_, E> {
    /// Answers with an error, whereby it is decided that nothing is written.
    pub(super) fn fail(&self, text: impl AsRef<[u8]>) -> bool {
        self.core.fail(&self.ticket, text);
        true
    }
}

/// Carries a command out, or forwards it. `key`: that of a command of one, if it has been hashed.
/// Answers whether it is decided what it does to its keys: what is written to them from now on comes
/// after it.
pub(super) fn carry_out<E: ServerEnv>(
    core: &Rc<Core<E>>,
    ticket: Ticket,
    spec: &Spec,
    command: &Command<'_>,
    key: Option<Key<'_>>,
) -> bool {
    let Some((namespace, default_ttl_ms)) = core.resp_namespace(&ticket) else { return true };
    if decides_alone(spec, command) && !core.has_one_replica(namespace) {
        core.fail(&ticket, failure::NO_REPLICA_DECIDES);
        return true;
    }
    match spec.scope {
        Scope::Node => {
            core.refuse(&ticket, &Refusal::bad_request("a command of the connection was forwarded"));
            true
        }
        Scope::Everything => {
            keys::carry_out(core, ticket, spec, command, namespace);
            true
        }
        Scope::Keys(..) if command.len() > 2 => many::carry_out(core, ticket, spec, command, namespace),
        Scope::Key(access) | Scope::Keys(access, _) => {
            let key = key.unwrap_or_else(|| core.key(namespace, command.arg(1)));
            if core.refuse_bad_key(&ticket, key.user) {
                return true;
            }
            match core.place(key.partition) {
                Place::Here(shard) => {
                    core.access(&key);
                    core.trail(&ticket, &key);
                    let default_lifetime = lifetime(default_ttl_ms);
                    on_key(spec, &Call { core, ticket, command: *command, shard, key, default_lifetime })
                }
                Place::Core(owner) if matches!(ticket.reply, ReplyTo::Connection(_)) => {
                    core.forward_command(owner, ticket, command.bytes(), Some(core.place_of(&key)));
                    // The other core keeps the order in which commands reach it, and decides plain
                    // writes at once; of others nothing is known before they are answered.
                    access == Access::Write || (spec.is == Name::Set && strings::is_plain_set(command))
                }
                Place::Core(_) => {
                    core.refuse(&ticket, &Refusal::bad_request("the key belongs to another core"));
                    true
                }
            }
        }
    }
}

/// Whether a command decides by what stands under its key.
fn decides_alone(spec: &Spec, command: &Command<'_>) -> bool {
    spec.scope == Scope::Key(Access::Change) && !(spec.is == Name::Set && strings::is_plain_set(command))
}

fn on_key<E: ServerEnv>(spec: &Spec, call: &Call<'_, E>) -> bool {
    match spec.is {
        Name::Get | Name::StrLen | Name::GetRange | Name::Type => strings::read(spec, call),
        Name::Set | Name::SetEx | Name::PSetEx | Name::SetNx | Name::GetSet | Name::GetDel | Name::GetEx => {
            strings::write(spec, call)
        }
        Name::Append | Name::SetRange => strings::change(spec, call),
        Name::Ttl | Name::PTtl | Name::ExpireTime | Name::PExpireTime => expiry::read(spec, call),
        Name::Expire | Name::PExpire | Name::ExpireAt | Name::PExpireAt | Name::Persist => {
            expiry::write(spec, call)
        }
        Name::Incr | Name::Decr | Name::IncrBy | Name::DecrBy => numbers::add(spec, call),
        Name::Del => many::delete_one(call),
        Name::Exists => many::exists_one(call),
        Name::MGet => many::get_one(call),
        // MSET of one argument has too few, and the others have no key.
        _ => call.fail(failure::arity(spec.name)),
    }
}

/// A command that another core forwarded has come.
pub(crate) fn arrive<E: ServerEnv>(
    core: &Rc<Core<E>>,
    reply: ReplyTo,
    version: RespVersion,
    mut bytes: &[u8],
    (received, deadline): (Monotonic, Option<Monotonic>),
) {
    let parser = core.resp.parser.borrow_mut().take();
    let mut parser = parser.unwrap_or_else(|| Commands::new(u32::MAX));
    let command = parser.next_command(&mut bytes).ok().flatten();
    let spec = command.as_ref().and_then(|command| table::find(command.name()));
    let now = core.tick();
    let about = core.about_command(spec);
    let ticket = Ticket::of_command(reply, version, about, 0, Moment { received, now }, deadline);
    core.begin();
    match (spec, &command) {
        (Some(spec), Some(command)) => {
            if coordinator::admit(core, &ticket, now) {
                carry_out(core, ticket, spec, command, None);
            }
            *core.resp.parser.borrow_mut() = Some(parser);
        }
        // A parser that met this is of no use any more.
        _ => core.refuse(&ticket, &Refusal::unknown("a command between cores was cut off")),
    }
}

impl<E: ServerEnv> Core<E> {
    /// The namespace of RESP connections with its default TTL; refuses the command if there is none.
    pub(super) fn resp_namespace(&self, ticket: &Ticket) -> Option<(u32, u64)> {
        let id = self.resp.namespace.get();
        let found = id.and_then(|id| Some((id, self.namespaces.borrow().default_ttl_ms(id)?)));
        if found.is_none() {
            let name = &self.config.resp.namespace;
            self.fail(
                ticket,
                format!(
                    "ERR this listener's namespace `{name}` does not exist: create it first (not applied)"
                ),
            );
        }
        found
    }

    /// Whether one replica decides what a conditional write does. Every namespace has one replica today;
    /// those that come to have several that are eventually alike are told apart here, and nowhere else.
    fn has_one_replica(&self, _namespace: u32) -> bool {
        true
    }
}
