//! The commands of one connection: read, put in order, and started.
//!
//! Limits: a command is at most as long as a frame. A command that must wait for an earlier one leaves
//! the connection unread from there on; see `replies` for which do.

use std::cell::RefCell;
use std::rc::Rc;

use pinion_engine::Key;
use pinion_env::Monotonic;
use pinion_protocol::resp::{Command, Commands, RespVersion};

use crate::connection::{Connection, Speaks};
use crate::coordinator;
use crate::core::{Core, ReplyTo, Ticket};
use crate::counters::add;
use crate::group::Moment;
use crate::message::ServerEnv;
use crate::resp::replies::{Access, Replies, Touches};
use crate::resp::table::{self, Name, Scope, Spec};
use crate::resp::{ahead, connection, failure, route, strings};

/// What a client has said of itself.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: u64,
    pub(super) peer: String,
    pub(super) version: RespVersion,
    /// Empty if it has none.
    pub(super) name: Vec<u8>,
    pub(super) since: Monotonic,
    /// Its name and that of its version, as told by CLIENT SETINFO.
    pub(super) driver: [Vec<u8>; 2],
}

impl Client {
    /// Lets others see what it has said.
    fn show(&self, connection: &Connection) {
        connection.speaks.set(match self.version {
            RespVersion::Two => Speaks::Resp2,
            RespVersion::Three => Speaks::Resp3,
        });
        connection.who.borrow_mut().name = String::from_utf8_lossy(&self.name).into_owned();
    }
}

/// The side of a connection that reads.
#[derive(Debug)]
pub(crate) struct Intake {
    commands: Commands,
    client: Client,
    /// The next command waits for one that is under way.
    waits: bool,
    /// So many bytes at the end of the chunk have not been looked ahead for.
    unseen: usize,
}

/// What [`Intake::take`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// A command was started.
    Command,
    /// The next command must wait.
    Waits,
    /// All bytes are used up.
    Nothing,
    /// No more commands are taken; what was answered leaves first.
    End,
    /// The connection is to be closed at once.
    Close,
}

impl Intake {
    /// Of a connection that begins; makes its replies leave in order.
    pub(crate) fn new<E: ServerEnv>(core: &Core<E>, connection: &Connection) -> Self {
        let new = connection.replies.set(Box::new(RefCell::new(Replies::default())));
        debug_assert!(new.is_ok(), "a connection opens once");
        let (id, since, version) = (connection.number, connection.since, RespVersion::Two);
        let peer = connection.who.borrow().peer.clone();
        Self {
            commands: Commands::new(core.limits().frame_bytes_max),
            client: Client { id, peer, version, name: Vec::new(), since, driver: Default::default() },
            waits: false,
            unseen: usize::MAX,
        }
    }

    /// Whether the next command must wait for one that is under way.
    pub(crate) fn waits(&self) -> bool {
        self.waits
    }

    /// Bytes of a command that is not complete.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.commands.waiting_bytes()
    }

    /// Commands that spanned chunks and were copied.
    pub(crate) fn gathered_commands(&self) -> u64 {
        self.commands.gathered_commands()
    }

    /// Other bytes come now: nothing is known of what they ask for.
    pub(crate) fn begin(&mut self) {
        self.unseen = usize::MAX;
    }

    /// Takes the next command from the front of `rest` and starts it, if it may start.
    pub(crate) fn take<E: ServerEnv>(
        &mut self,
        core: &Rc<Core<E>>,
        connection: &Connection,
        rest: &mut &[u8],
        moment: Moment,
    ) -> Taken {
        let replies = connection.replies.get().expect("a RESP connection has them");
        let front = *rest;
        if front.len() <= self.unseen {
            self.unseen = front.len() - ahead::look_ahead(core, front);
        }
        let command = match self.commands.next_command(rest) {
            Ok(Some(command)) => command,
            Ok(None) => return Taken::Nothing,
            Err(error) => {
                add(&core.counters.commands_bad, 1);
                let ticket = begin(core, connection, self.client.version, None, moment);
                core.fail(&ticket, [&b"ERR "[..], &error.text()].concat());
                return Taken::End;
            }
        };
        let spec = table::find(command.name());
        if spec.is_some_and(|spec| spec.is == Name::Http) {
            core.warn_of_http(&self.client.peer);
            return Taken::Close;
        }
        let known = spec.filter(|spec| spec.takes(command.len()));
        let (touches, key) = known.map_or((Touches::Nothing, None), |spec| touched(core, spec, &command));
        if replies.borrow().conflicts(&touches) {
            if !std::mem::replace(&mut self.waits, true) {
                add(&core.counters.commands_delayed, 1);
            }
            if !self.commands.again() {
                *rest = front;
            }
            return Taken::Waits;
        }
        self.waits = false;
        let ticket = begin(core, connection, self.client.version, known, moment);
        if !coordinator::admit(core, &ticket, moment.now) {
            return Taken::Command;
        }
        let decided = match known {
            None => {
                match spec {
                    Some(spec) => core.fail(&ticket, failure::arity(spec.name)),
                    None => {
                        core.fail(&ticket, failure::unknown_command(command.name(), command.args_from(1)))
                    }
                }
                true
            }
            Some(spec) if spec.scope == Scope::Node => {
                let taken = connection::carry_out(core, &ticket, spec, &command, &mut self.client);
                if matches!(spec.is, Name::Hello | Name::Client | Name::Reset) {
                    self.client.show(connection);
                }
                return taken;
            }
            Some(spec) => route::carry_out(core, ticket, spec, &command, key),
        };
        if touches != Touches::Nothing {
            let touches = if decided { touches.decided() } else { touches };
            replies.borrow_mut().register(ticket.request_id, touches);
        }
        Taken::Command
    }

    /// Says that the bytes of an incomplete command had to go, and forgets them.
    pub(crate) fn give_up<E: ServerEnv>(&mut self, core: &Rc<Core<E>>, connection: &Connection) {
        let now = core.env.now();
        let moment = Moment { received: now, now };
        let ticket = begin(core, connection, self.client.version, None, moment);
        self.commands = Commands::new(core.limits().frame_bytes_max);
        self.waits = false;
        core.refuse_overloaded(&ticket, "too many bytes of incomplete frames");
    }
}

/// Counts a command in.
fn begin<E: ServerEnv>(
    core: &Core<E>,
    connection: &Connection,
    version: RespVersion,
    known: Option<&'static Spec>,
    moment: Moment,
) -> Ticket {
    let replies = connection.replies.get().expect("a RESP connection has them");
    add(&core.counters.commands, 1);
    core.begin();
    connection.requests.set(connection.requests.get() + 1);
    let (reply, request_id) = (ReplyTo::Connection(connection.id), replies.borrow_mut().push());
    Ticket::of_command(reply, version, core.about_command(known), request_id, moment, None)
}

/// What a command touches, and its key if it has one.
fn touched<'k, E: ServerEnv>(
    core: &Core<E>,
    spec: &Spec,
    command: &Command<'k>,
) -> (Touches, Option<Key<'k>>) {
    // Without a namespace nothing is touched.
    let Some(namespace) = core.resp.namespace.get() else { return (Touches::Nothing, None) };
    let access = match spec.scope {
        Scope::Node => return (Touches::Nothing, None),
        Scope::Everything => return (Touches::Everything, None),
        // More keys than that are refused unseen.
        Scope::Keys(..) if spec.keys(command.len()) > core.options.batch_ops_max as usize => {
            return (Touches::Nothing, None);
        }
        Scope::Keys(access, between) if between > 0 || command.len() > 2 => {
            let hash = |user| core.key(namespace, user).hash;
            let hashes = command.args_from(1).step_by(between + 1).map(hash).collect();
            return (Touches::Keys(access, hashes), None);
        }
        Scope::Key(_) if spec.is == Name::Set && strings::is_plain_set(command) => Access::Write,
        Scope::Key(_) if strings::only_reads(spec.is, command) => Access::Read,
        Scope::Key(access) | Scope::Keys(access, _) => access,
    };
    let key = core.key(namespace, command.arg(1));
    (Touches::Key(access, key.hash), Some(key))
}
