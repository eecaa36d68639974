//! CONFIG GET: what clients and tools of Redis ask for, in its names.
//!
//! Nothing can be set this way: settings are those of `serve`.

use pinion_protocol::resp::{Command, RespVersion, reply};

use crate::core::{Core, Ticket};
use crate::message::ServerEnv;
use crate::resp::{failure, glob};

/// Most patterns of a CONFIG GET.
const PATTERNS_MAX: usize = 64;

/// CONFIG and its subcommands, of which there is GET.
pub(super) fn carry_out<E: ServerEnv>(
    core: &Core<E>,
    ticket: &Ticket,
    command: &Command<'_>,
    version: RespVersion,
) {
    if !command.arg(1).eq_ignore_ascii_case(b"get") {
        return core.fail(ticket, failure::unknown_subcommand("config", command.arg(1)));
    }
    if command.len() < 3 {
        return core.fail(ticket, failure::arity("config|get"));
    }
    if command.len() - 2 > PATTERNS_MAX {
        return core.fail(ticket, format!("ERR CONFIG GET takes at most {PATTERNS_MAX} patterns"));
    }
    let mut found = settings(core);
    found.retain(|(name, _)| {
        command.args_from(2).any(|pattern| glob::fits_any_case(pattern, name.as_bytes()))
    });
    core.answer(ticket, |out| {
        reply::map(out, found.len(), version);
        for (name, value) in &found {
            reply::bulk(out, name.as_bytes());
            reply::bulk(out, value.as_bytes());
        }
    });
}

fn settings<E: ServerEnv>(core: &Core<E>) -> Vec<(&'static str, String)> {
    let sync = core.config.resp.durability == pinion_engine::Durability::Sync;
    let text = |value: &str| value.to_owned();
    vec![
        // Everything is in a log, which is synced before a write is acknowledged or soon after.
        ("appendfsync", text(if sync { "always" } else { "everysec" })),
        ("appendonly", text("yes")),
        ("cluster-enabled", text("no")),
        ("databases", text("1")),
        ("dir", core.config.data.display().to_string()),
        ("maxclients", core.limits().connections_max.to_string()),
        // A database, not a cache: nothing is evicted.
        ("maxmemory", text("0")),
        ("maxmemory-policy", text("noeviction")),
        ("notify-keyspace-events", text("")),
        ("proto-max-bulk-len", core.options.value_bytes_max.to_string()),
        ("save", text("")),
        ("timeout", text("0")),
    ]
}
