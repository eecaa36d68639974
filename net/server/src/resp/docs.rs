//! COMMAND: which commands there are, for clients that ask before they use one.

use pinion_protocol::resp::{Command, RespVersion, reply};

use crate::core::{Core, Ticket};
use crate::message::ServerEnv;
use crate::resp::failure;
use crate::resp::replies::Access;
use crate::resp::table::{COMMANDS, Name, Scope, Spec, find};

/// Most names that INFO and DOCS take: what is said of one is longer than the name.
const NAMES_MAX: usize = 256;

/// COMMAND, COMMAND COUNT, COMMAND INFO, COMMAND DOCS.
pub(super) fn carry_out<E: ServerEnv>(
    core: &Core<E>,
    ticket: &Ticket,
    command: &Command<'_>,
    version: RespVersion,
) {
    if command.len() > 2 + NAMES_MAX {
        return core.fail(ticket, format!("ERR COMMAND takes at most {NAMES_MAX} names"));
    }
    let asked = command.get(1).map(<[u8]>::to_ascii_lowercase);
    match asked.as_deref() {
        None => core.answer(ticket, |out| {
            reply::array(out, known().count());
            known().for_each(|spec| put_info(out, spec, version));
        }),
        Some(b"count") if command.len() != 2 => core.fail(ticket, failure::arity("command|count")),
        Some(b"count") => core.answer(ticket, |out| reply::integer(out, known().count() as i64)),
        Some(b"info") if command.len() == 2 => core.answer(ticket, |out| {
            reply::array(out, known().count());
            known().for_each(|spec| put_info(out, spec, version));
        }),
        Some(b"info") => core.answer(ticket, |out| {
            reply::array(out, command.len() - 2);
            for name in command.args_from(2) {
                match find(name).filter(|spec| spec.is != Name::Http) {
                    Some(spec) => put_info(out, spec, version),
                    None if version == RespVersion::Three => reply::null(out, version),
                    None => out.extend_from_slice(b"*-1\r\n"),
                }
            }
        }),
        Some(b"docs") => core.answer(ticket, |out| {
            let asked: Vec<&Spec> = match command.len() {
                2 => known().collect(),
                _ => command.args_from(2).filter_map(find).filter(|spec| spec.is != Name::Http).collect(),
            };
            reply::map(out, asked.len(), version);
            for spec in asked {
                put_docs(out, spec, version);
            }
        }),
        Some(_) => core.fail(ticket, failure::unknown_subcommand("command", command.arg(1))),
    }
}

fn known() -> impl Iterator<Item = &'static Spec> {
    COMMANDS.iter().filter(|spec| spec.is != Name::Http)
}

/// Name, arity, flags, places of keys, categories, tips, key specifications, subcommands.
fn put_info(out: &mut Vec<u8>, spec: &Spec, version: RespVersion) {
    reply::array(out, 10);
    reply::bulk(out, spec.name.as_bytes());
    reply::integer(out, i64::from(spec.arity));
    let flags = spec.flags();
    reply::set(out, flags.len(), version);
    flags.iter().for_each(|flag| reply::simple(out, flag));
    let (first, last, step) = spec.key_places();
    [first, last, step].into_iter().for_each(|place| reply::integer(out, place));
    let categories: &[&str] = match spec.scope {
        Scope::Key(Access::Read) | Scope::Keys(Access::Read, _) => &["@read", "@string", "@fast"],
        Scope::Key(_) | Scope::Keys(..) => &["@write", "@string", "@fast"],
        Scope::Everything => &["@keyspace", "@slow"],
        Scope::Node => &["@connection", "@fast"],
    };
    reply::set(out, categories.len(), version);
    categories.iter().for_each(|category| reply::simple(out, category));
    (0..3).for_each(|_| reply::array(out, 0));
}

/// What there is to say of a command.
fn put_docs(out: &mut Vec<u8>, spec: &Spec, version: RespVersion) {
    reply::bulk(out, spec.name.as_bytes());
    reply::map(out, 3, version);
    for (name, value) in [("summary", spec.summary), ("since", spec.since), ("group", spec.group)] {
        reply::bulk(out, name.as_bytes());
        reply::bulk(out, value.as_bytes());
    }
}
