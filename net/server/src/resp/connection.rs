//! Commands about the connection and the node: answered by the core of the connection.

use std::rc::Rc;

use pinion_protocol::resp::{Command, RespVersion, parse_integer, reply};

use crate::core::{Core, Ticket};
use crate::message::ServerEnv;
use crate::resp::intake::{Client, Taken};
use crate::resp::table::{Name, Spec};
use crate::resp::{config, docs, failure, info, seen};

/// The version of Redis whose behaviour is followed, for clients that choose by it.
pub(super) const REDIS_VERSION: &str = "7.0.15";

/// The user that everybody is.
const DEFAULT_USER: &[u8] = b"default";

/// Longest name that a client can give itself or its library, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// Carries out a command. A few end the connection.
pub(super) fn carry_out<E: ServerEnv>(
    core: &Rc<Core<E>>,
    ticket: &Ticket,
    spec: &Spec,
    command: &Command<'_>,
    client: &mut Client,
) -> Taken {
    let version = client.version;
    let is_long = match spec.is {
        Name::Ping => command.len() > 1,
        Name::Echo | Name::Command | Name::Config | Name::Info | Name::Client | Name::SlowLog => true,
        _ => false,
    };
    // As a read is: its answer waits too.
    if is_long && core.refuse_if_full(ticket) {
        return Taken::Command;
    }
    match spec.is {
        Name::Ping if command.len() > 2 => core.fail(ticket, failure::arity(spec.name)),
        Name::Ping => match command.get(1) {
            Some(bytes) => core.answer(ticket, |out| reply::bulk(out, bytes)),
            None => core.answer(ticket, |out| reply::simple(out, "PONG")),
        },
        Name::Echo => core.answer(ticket, |out| reply::bulk(out, command.arg(1))),
        Name::Quit => {
            core.answer(ticket, ok);
            return Taken::End;
        }
        Name::Reset => {
            client.version = RespVersion::Two;
            client.name.clear();
            core.answer(ticket, |out| reply::simple(out, "RESET"));
        }
        Name::Select => match parse_integer(command.arg(1)).map(i32::try_from) {
            Some(Ok(0)) => core.answer(ticket, ok),
            Some(Ok(_)) => core.fail(ticket, "ERR DB index is out of range"),
            Some(Err(_)) | None => core.fail(ticket, failure::NOT_AN_INTEGER),
        },
        Name::Time => {
            let wall_ms = core.env.wall_ms();
            core.answer(ticket, |out| {
                reply::array(out, 2);
                reply::bulk(out, (wall_ms / 1_000).to_string().as_bytes());
                reply::bulk(out, (wall_ms % 1_000 * 1_000).to_string().as_bytes());
            });
        }
        Name::Role => core.answer(ticket, |out| {
            reply::array(out, 3);
            reply::bulk(out, b"master");
            reply::integer(out, 0);
            reply::array(out, 0);
        }),
        Name::Auth => authenticate(core, ticket, command),
        Name::Hello => hello(core, ticket, command, client),
        Name::Client => about_client(core, ticket, command, client),
        Name::Command => docs::carry_out(core, ticket, command, version),
        Name::Config => config::carry_out(core, ticket, command, version),
        Name::Info => info::gather(core, *ticket, command),
        Name::SlowLog => seen::slow_log(core, ticket, command),
        _ => core.fail(ticket, failure::unknown_command(command.name(), command.args_from(1))),
    }
    Taken::Command
}

fn ok(out: &mut Vec<u8>) {
    reply::simple(out, "OK");
}

/// AUTH: there is one user, who needs no password, as in a Redis without one.
fn authenticate<E: ServerEnv>(core: &Core<E>, ticket: &Ticket, command: &Command<'_>) {
    match command.len() {
        2 => core.fail(
            ticket,
            "ERR AUTH <password> called without any password configured for the default user. Are you sure \
             your configuration is correct?",
        ),
        3 if command.arg(1) == DEFAULT_USER => core.answer(ticket, ok),
        3 => core.fail(ticket, failure::WRONG_PASS),
        _ => core.fail(ticket, failure::SYNTAX),
    }
}

fn hello<E: ServerEnv>(core: &Core<E>, ticket: &Ticket, command: &Command<'_>, client: &mut Client) {
    let mut version = client.version;
    if let Some(wanted) = command.get(1) {
        version = match parse_integer(wanted) {
            Some(2) => RespVersion::Two,
            Some(3) => RespVersion::Three,
            Some(_) => return core.fail(ticket, "NOPROTO unsupported protocol version"),
            None => {
                return core.fail(ticket, "ERR Protocol version is not an integer or out of range");
            }
        };
    }
    let (mut name, mut user) = (None, None);
    let mut args = command.args_from(2);
    while let Some(option) = args.next() {
        let is = |known: &str| option.eq_ignore_ascii_case(known.as_bytes());
        if is("auth") && args.len() >= 2 {
            user = args.next();
            // Whatever the password: none is needed.
            args.next();
        } else if is("setname") && args.len() >= 1 {
            name = args.next();
        } else {
            return core.fail(ticket, failure::about("ERR Syntax error in HELLO option '", option, "'"));
        }
    }
    if user.is_some_and(|user| user != DEFAULT_USER) {
        return core.fail(ticket, failure::WRONG_PASS);
    }
    if let Some(name) = name {
        if let Err(text) = check_name(name, "Client names") {
            return core.fail(ticket, text);
        }
        client.name = name.to_vec();
    }
    client.version = version;
    core.answer(ticket, |out| {
        reply::map(out, 7, version);
        for (name, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
            reply::bulk(out, name.as_bytes());
            reply::bulk(out, value.as_bytes());
        }
        reply::bulk(out, b"proto");
        reply::integer(out, if version == RespVersion::Three { 3 } else { 2 });
        reply::bulk(out, b"id");
        reply::integer(out, client.id.cast_signed());
        for (name, value) in [("mode", "standalone"), ("role", "master")] {
            reply::bulk(out, name.as_bytes());
            reply::bulk(out, value.as_bytes());
        }
        reply::bulk(out, b"modules");
        reply::array(out, 0);
    });
}

/// CLIENT SETNAME, GETNAME, ID, INFO, LIST, SETINFO.
fn about_client<E: ServerEnv>(
    core: &Rc<Core<E>>,
    ticket: &Ticket,
    command: &Command<'_>,
    client: &mut Client,
) {
    let asked = command.arg(1).to_ascii_lowercase();
    let subcommand = match asked.as_slice() {
        b"setname" => ("client|setname", 3),
        b"getname" => ("client|getname", 2),
        b"id" => ("client|id", 2),
        b"info" => ("client|info", 2),
        b"list" => ("client|list", 2),
        b"setinfo" => ("client|setinfo", 4),
        _ => return core.fail(ticket, failure::unknown_subcommand("client", command.arg(1))),
    };
    if command.len() != subcommand.1 {
        return core.fail(ticket, failure::arity(subcommand.0));
    }
    let version = client.version;
    match asked.as_slice() {
        b"setname" => match check_name(command.arg(2), "Client names") {
            Ok(()) => {
                client.name = command.arg(2).to_vec();
                core.answer(ticket, ok);
            }
            Err(text) => core.fail(ticket, text),
        },
        b"getname" if client.name.is_empty() => core.answer(ticket, |out| reply::null(out, version)),
        b"getname" => core.answer(ticket, |out| reply::bulk(out, &client.name)),
        b"list" => seen::client_list(core, ticket),
        b"id" => core.answer(ticket, |out| reply::integer(out, client.id.cast_signed())),
        b"info" => {
            let text = line(client, core.env.now().since(client.since).as_secs());
            core.answer(ticket, |out| reply::verbatim(out, &text, version));
        }
        _ => set_info(core, ticket, command, client),
    }
}

fn set_info<E: ServerEnv>(core: &Core<E>, ticket: &Ticket, command: &Command<'_>, client: &mut Client) {
    let attribute = command.arg(2).to_ascii_lowercase();
    let (place, what) = match attribute.as_slice() {
        b"lib-name" => (0, "lib-name"),
        b"lib-ver" => (1, "lib-ver"),
        _ => {
            return core.fail(ticket, failure::about("ERR Unrecognized option '", command.arg(2), "'"));
        }
    };
    match check_name(command.arg(3), what) {
        Ok(()) => {
            client.driver[place] = command.arg(3).to_vec();
            core.answer(ticket, ok);
        }
        Err(text) => core.fail(ticket, text),
    }
}

/// Names stand in lines of words.
fn check_name(name: &[u8], what: &str) -> Result<(), String> {
    if !name.iter().all(|byte| matches!(byte, b'!'..=b'~')) {
        return Err(format!("ERR {what} cannot contain spaces, newlines or special characters."));
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("ERR {what} cannot be longer than {NAME_BYTES_MAX} bytes"));
    }
    Ok(())
}

/// What CLIENT INFO says.
fn line(client: &Client, age_s: u64) -> String {
    let text = String::from_utf8_lossy;
    let resp = if client.version == RespVersion::Three { 3 } else { 2 };
    format!(
        "id={} addr={} name={} age={age_s} idle=0 flags=N db=0 sub=0 psub=0 ssub=0 multi=-1 cmd=client|info \
         user=default redir=-1 resp={resp} lib-name={} lib-ver={}\n",
        client.id,
        client.peer,
        text(&client.name),
        text(&client.driver[0]),
        text(&client.driver[1]),
    )
}
