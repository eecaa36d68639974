//! SLOWLOG and CLIENT LIST: what the cores have seen, in the words of Redis.
//!
//! An entry of SLOWLOG has the name of its operation and its key in the place of arguments: the others are not
//! kept. Operations of native connections are there too.

use std::fmt::Write;
use std::rc::Rc;

use pinion_protocol::resp::{Command, parse_integer, reply};

use crate::connection::Speaks;
use crate::core::{Core, Ticket};
use crate::info::{self, Wanted};
use crate::message::ServerEnv;
use crate::resp::failure;
use crate::watch::{ClientReport, ClientsReport, SlowReport, newest_first};

/// Entries that SLOWLOG GET answers unless told otherwise.
const ENTRIES_DEFAULT: usize = 10;

/// What SLOWLOG is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlowLogAsked {
    /// So many entries, the newest.
    Get(usize),
    /// How many there are.
    Len,
    /// To forget them.
    Reset,
}

/// Answers SLOWLOG when all cores have reported.
pub(super) fn slow_log<E: ServerEnv>(core: &Rc<Core<E>>, ticket: &Ticket, command: &Command<'_>) {
    let asked = match (command.arg(1).to_ascii_lowercase().as_slice(), command.len()) {
        (b"get", 2) => SlowLogAsked::Get(ENTRIES_DEFAULT),
        (b"get", 3) => match parse_integer(command.arg(2)) {
            Some(-1) => SlowLogAsked::Get(usize::MAX),
            Some(count) if count >= 0 => SlowLogAsked::Get(usize::try_from(count).unwrap_or(usize::MAX)),
            _ => return core.fail(ticket, "ERR count should be greater than or equal to -1"),
        },
        (b"len", 2) => SlowLogAsked::Len,
        (b"reset", 2) => SlowLogAsked::Reset,
        (b"get", _) => return core.fail(ticket, failure::arity("slowlog|get")),
        (b"len", _) => return core.fail(ticket, failure::arity("slowlog|len")),
        (b"reset", _) => return core.fail(ticket, failure::arity("slowlog|reset")),
        _ => return core.fail(ticket, failure::unknown_subcommand("slowlog", command.arg(1))),
    };
    info::gather_for(core, *ticket, Wanted::SlowLog(asked));
}

/// What SLOWLOG answers.
pub(crate) fn put_slow_log(out: &mut Vec<u8>, asked: SlowLogAsked, reports: &[SlowReport], cores: u16) {
    let mut entries = newest_first(reports);
    match asked {
        SlowLogAsked::Reset => return reply::simple(out, "OK"),
        SlowLogAsked::Len => return reply::integer(out, entries.len() as i64),
        SlowLogAsked::Get(count) => entries.truncate(count),
    }
    reply::array(out, entries.len());
    for (core, slow) in entries {
        reply::array(out, 6);
        // Each core counts for itself.
        reply::integer(out, (slow.number * u64::from(cores) + u64::from(core)).cast_signed());
        reply::integer(out, (slow.ended_ms / 1_000).cast_signed());
        reply::integer(out, slow.stages.total_us.cast_signed());
        let has_key = slow.key.bytes() > 0;
        reply::array(out, 1 + usize::from(has_key));
        reply::bulk(out, slow.operation.as_bytes());
        if has_key {
            reply::bulk(out, slow.key.front());
        }
        reply::bulk(out, slow.peer.as_bytes());
        reply::bulk(out, slow.client.as_bytes());
    }
}

/// Answers CLIENT LIST when all cores have reported.
pub(super) fn client_list<E: ServerEnv>(core: &Rc<Core<E>>, ticket: &Ticket) {
    info::gather_for(core, *ticket, Wanted::ClientList);
}

/// What CLIENT LIST answers: a line for each connection.
pub(crate) fn client_lines(reports: &[ClientsReport]) -> String {
    let mut text = String::new();
    for client in reports.iter().flat_map(|report| &report.shown) {
        let ClientReport { id, peer, name, age, idle, out_bytes, .. } = client;
        let resp = match client.speaks {
            Speaks::Resp3 => "3",
            Speaks::Resp2 => "2",
            Speaks::Native | Speaks::Nothing => "0",
        };
        let (age_s, idle_s) = (age.as_secs(), idle.as_secs());
        // A name of a native client may have blanks, and the line has words.
        let name: String = name.chars().map(|letter| if letter <= ' ' { '_' } else { letter }).collect();
        writeln!(
            text,
            "id={id} addr={peer} name={name} age={age_s} idle={idle_s} flags=N db=0 sub=0 psub=0 ssub=0 \
             multi=-1 omem={out_bytes} user=default redir=-1 resp={resp}"
        )
        .expect("writing to a string never fails");
    }
    text
}
