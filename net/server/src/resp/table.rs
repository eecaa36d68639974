//! The commands there are: names, how many arguments they take, what they touch.
//!
//! A name is found by a table that is laid out when the crate is built: one look for a name that
//! exists, for the most part.

use crate::counters::OperationClass;
use crate::resp::replies::Access;

/// Which command it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Append,
    Auth,
    Client,
    Command,
    Config,
    DbSize,
    Decr,
    DecrBy,
    Del,
    Echo,
    Exists,
    Expire,
    ExpireAt,
    ExpireTime,
    FlushAll,
    Get,
    GetDel,
    GetEx,
    GetRange,
    GetSet,
    Hello,
    Incr,
    IncrBy,
    Info,
    Keys,
    MGet,
    MSet,
    PExpire,
    PExpireAt,
    PExpireTime,
    PSetEx,
    PTtl,
    Persist,
    Ping,
    Quit,
    Reset,
    Role,
    Scan,
    Select,
    Set,
    SetEx,
    SetNx,
    SetRange,
    SlowLog,
    StrLen,
    Time,
    Ttl,
    Type,
    /// Not of Redis: what a browser sends that was talked into it.
    Http,
}

/// What a command is about, and so who carries it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// The connection or the node: the core of the connection.
    Node,
    /// The key after its name: the core that owns it.
    Key(Access),
    /// Keys from there on, of which each is followed by so many other arguments: the cores that own them.
    Keys(Access, usize),
    /// All keys: every core, or the one that a cursor names.
    Everything,
}

/// A command.
#[derive(Debug)]
pub(super) struct Spec {
    /// In small letters.
    pub(super) name: &'static str,
    pub(super) is: Name,
    /// Arguments, the name included; negative: at least so many.
    pub(super) arity: i32,
    pub(super) scope: Scope,
    /// What it is counted under.
    pub(super) class: OperationClass,
    /// For COMMAND.
    pub(super) group: &'static str,
    /// For COMMAND: since which version of Redis.
    pub(super) since: &'static str,
    /// For COMMAND.
    pub(super) summary: &'static str,
}

impl Spec {
    /// Whether a command of so many arguments, the name included, has as many as it takes.
    #[inline]
    pub(super) const fn takes(&self, args: usize) -> bool {
        let args = args as i32;
        if self.arity < 0 { args >= -self.arity } else { args == self.arity }
    }

    /// How many keys a command of so many arguments has, the name included.
    pub(super) const fn keys(&self, args: usize) -> usize {
        match self.scope {
            Scope::Node | Scope::Everything => 0,
            Scope::Key(_) => 1,
            Scope::Keys(_, between) => (args - 1).div_ceil(between + 1),
        }
    }

    /// For COMMAND.
    pub(super) fn flags(&self) -> &'static [&'static str] {
        match (self.scope, self.is) {
            (Scope::Key(Access::Read) | Scope::Keys(Access::Read, _), _) => &["readonly", "fast"],
            (Scope::Key(_) | Scope::Keys(..), _) => &["write", "denyoom", "fast"],
            (Scope::Everything, Name::FlushAll) => &["write"],
            (Scope::Everything, _) => &["readonly"],
            (Scope::Node, Name::Auth | Name::Hello | Name::Quit | Name::Reset) => {
                &["noscript", "loading", "stale", "fast", "no_auth", "allow_busy"]
            }
            (Scope::Node, Name::Config | Name::SlowLog) => &["admin", "noscript", "loading", "stale"],
            (Scope::Node, _) => &["loading", "stale", "fast"],
        }
    }

    /// For COMMAND: first key, last key (-1: the last argument), step.
    pub(super) const fn key_places(&self) -> (i64, i64, i64) {
        match self.scope {
            Scope::Key(_) => (1, 1, 1),
            Scope::Keys(_, between) => (1, -1, 1 + between as i64),
            Scope::Node | Scope::Everything => (0, 0, 0),
        }
    }
}

macro_rules! commands {
    ($($name:literal $is:ident $arity:literal $scope:expr, $class:ident, $group:literal $since:literal $summary:literal;)*) => {
        /// All of them, by name.
        pub(super) static COMMANDS: &[Spec] = &[$(Spec {
            name: $name,
            is: Name::$is,
            arity: $arity,
            scope: $scope,
            class: OperationClass::$class,
            group: $group,
            since: $since,
            summary: $summary,
        },)*];
    };
}

use Access::{Change, Read as Reads, Write as Writes};
use Scope::{Everything, Key, Keys, Node};

commands! {
    "append" Append 3 Key(Change), Write, "string" "2.0.0" "Append a value to a key";
    "auth" Auth -2 Node, Other, "connection" "1.0.0" "Authenticate to the server";
    "client" Client -2 Node, Other, "connection" "2.4.0" "A container for client connection commands";
    "command" Command -1 Node, Other, "server" "2.8.13" "Get array of command details";
    "config" Config -2 Node, Other, "server" "2.0.0" "A container for server configuration commands";
    "dbsize" DbSize 1 Everything, Scan, "server" "1.0.0" "Count the keys, or estimate their number";
    "decr" Decr 2 Key(Change), Write, "string" "1.0.0" "Decrement the integer value of a key by one";
    "decrby" DecrBy 3 Key(Change), Write, "string" "1.0.0" "Decrement the integer value of a key";
    "del" Del -2 Keys(Change, 0), Write, "generic" "1.0.0" "Delete keys";
    "echo" Echo 2 Node, Other, "connection" "1.0.0" "Echo the given string";
    "exists" Exists -2 Keys(Reads, 0), Read, "generic" "1.0.0" "Count how many of the keys exist";
    "expire" Expire -3 Key(Change), Write, "generic" "1.0.0" "Set a key's time to live in seconds";
    "expireat" ExpireAt -3 Key(Change), Write, "generic" "1.2.0" "Set a key's expiry as a UNIX time";
    "expiretime" ExpireTime 2 Key(Reads), Read, "generic" "7.0.0" "Get a key's expiry as a UNIX time";
    "flushall" FlushAll -1 Everything, Scan, "server" "1.0.0" "Remove all keys";
    "flushdb" FlushAll -1 Everything, Scan, "server" "1.0.0" "Remove all keys";
    "get" Get 2 Key(Reads), Read, "string" "1.0.0" "Get the value of a key";
    "getdel" GetDel 2 Key(Change), Write, "string" "6.2.0" "Get the value of a key and delete the key";
    "getex" GetEx -2 Key(Change), Write, "string" "6.2.0" "Get the value of a key and set its expiry";
    "getrange" GetRange 4 Key(Reads), Read, "string" "2.4.0" "Get a part of the value of a key";
    "getset" GetSet 3 Key(Change), Write, "string" "1.0.0" "Set the value of a key and get the old one";
    "hello" Hello -1 Node, Other, "connection" "6.0.0" "Handshake with the server";
    "host:" Http -1 Node, Other, "" "" "";
    "incr" Incr 2 Key(Change), Write, "string" "1.0.0" "Increment the integer value of a key by one";
    "incrby" IncrBy 3 Key(Change), Write, "string" "1.0.0" "Increment the integer value of a key";
    "info" Info -1 Node, Other, "server" "1.0.0" "Get information about the server";
    "keys" Keys 2 Everything, Scan, "generic" "1.0.0" "Find all keys that fit a pattern";
    "mget" MGet -2 Keys(Reads, 0), MultiRead, "string" "1.0.0" "Get the values of keys";
    "mset" MSet -3 Keys(Writes, 1), Batch, "string" "1.0.1" "Set the values of keys";
    "persist" Persist 2 Key(Change), Write, "generic" "2.2.0" "Remove the expiry of a key";
    "pexpire" PExpire -3 Key(Change), Write, "generic" "2.6.0" "Set a key's time to live in milliseconds";
    "pexpireat" PExpireAt -3 Key(Change), Write, "generic" "2.6.0" "Set a key's expiry in milliseconds";
    "pexpiretime" PExpireTime 2 Key(Reads), Read, "generic" "7.0.0" "Get a key's expiry in milliseconds";
    "ping" Ping -1 Node, Other, "connection" "1.0.0" "Ping the server";
    "post" Http -1 Node, Other, "" "" "";
    "psetex" PSetEx 4 Key(Writes), Write, "string" "2.6.0" "Set value and time to live in milliseconds";
    "pttl" PTtl 2 Key(Reads), Read, "generic" "2.6.0" "Get a key's time to live in milliseconds";
    "quit" Quit -1 Node, Other, "connection" "1.0.0" "Close the connection";
    "reset" Reset 1 Node, Other, "connection" "6.2.0" "Reset the connection";
    "role" Role 1 Node, Other, "server" "2.8.12" "Return the role of the instance";
    "scan" Scan -2 Everything, Scan, "generic" "2.8.0" "Iterate over the keys";
    "select" Select 2 Node, Other, "connection" "1.0.0" "Change the selected database: there is one";
    "set" Set -3 Key(Change), Write, "string" "1.0.0" "Set the value of a key";
    "setex" SetEx 4 Key(Writes), Write, "string" "2.0.0" "Set the value and time to live of a key";
    "setnx" SetNx 3 Key(Change), Write, "string" "1.0.0" "Set the value of a key if there is none";
    "setrange" SetRange 4 Key(Change), Write, "string" "2.2.0" "Overwrite a part of the value of a key";
    "slowlog" SlowLog -2 Node, Other, "server" "2.2.12" "Tell or forget the operations that took long";
    "strlen" StrLen 2 Key(Reads), Read, "string" "2.2.0" "Get the length of the value of a key";
    "time" Time 1 Node, Other, "server" "2.6.0" "Return the server's time";
    "ttl" Ttl 2 Key(Reads), Read, "generic" "1.0.0" "Get a key's time to live in seconds";
    "type" Type 2 Key(Reads), Read, "generic" "1.0.0" "Get the type of the value of a key";
    "unlink" Del -2 Keys(Change, 0), Write, "generic" "4.0.0" "Delete keys";
}

/// The number of a command that there is none of.
pub(super) const UNKNOWN: u8 = 0;

/// The number of a command: where it stands in [`COMMANDS`], counted from 1.
#[inline]
pub(super) fn number_of(spec: &'static Spec) -> u8 {
    let offset = std::ptr::from_ref(spec).addr() - COMMANDS.as_ptr().addr();
    (offset / size_of::<Spec>()) as u8 + 1
}

/// The name of the command of a number.
pub(crate) fn name_of(number: u8) -> &'static str {
    let at = usize::from(number).checked_sub(1);
    at.and_then(|at| COMMANDS.get(at)).map_or("unknown", |spec| spec.name)
}

/// The longest name in bytes.
const NAME_BYTES_MAX: usize = 11;

/// Places for names: a power of two with room to spare.
const PLACES: usize = 256;

/// Where in [`COMMANDS`] the name of each place is, counted from 1; 0 = nowhere.
static PLACED: [u8; PLACES] = place_all();

/// Where a name is looked for first.
const fn place_of(name: &[u8]) -> usize {
    let (first, middle, last) = (name[0], name[name.len() / 2], name[name.len() - 1]);
    (name.len() * 59 + first as usize * 7 + middle as usize * 31 + last as usize * 3) % PLACES
}

const fn place_all() -> [u8; PLACES] {
    let mut places = [0; PLACES];
    let mut index = 0;
    while index < COMMANDS.len() {
        let name = COMMANDS[index].name.as_bytes();
        assert!(name.len() <= NAME_BYTES_MAX);
        let mut place = place_of(name);
        while places[place] != 0 {
            place = (place + 1) % PLACES;
        }
        places[place] = index as u8 + 1;
        index += 1;
    }
    places
}

/// The command of a name, whatever its letters' case.
#[inline]
pub(super) fn find(name: &[u8]) -> Option<&'static Spec> {
    let mut letters = [0; NAME_BYTES_MAX];
    let small = letters.get_mut(..name.len()).filter(|small| !small.is_empty())?;
    small.copy_from_slice(name);
    small.make_ascii_lowercase();
    let mut place = place_of(small);
    loop {
        let spec = COMMANDS.get(usize::from(PLACED[place]).checked_sub(1)?)?;
        if spec.name.as_bytes() == small {
            return Some(spec);
        }
        place = (place + 1) % PLACES;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_by_its_name() {
        for spec in COMMANDS {
            for name in [spec.name.to_owned(), spec.name.to_uppercase()] {
                assert!(std::ptr::eq(find(name.as_bytes()).unwrap(), spec), "{name}");
            }
            assert_eq!(name_of(number_of(spec)), spec.name);
        }
        assert!(COMMANDS.is_sorted_by_key(|spec| spec.name));
        assert_eq!((name_of(UNKNOWN), name_of(u8::MAX)), ("unknown", "unknown"));
        for name in ["", "g", "gett", "lpush", "pexpiretimes", "g\0t", "SETX"] {
            assert!(find(name.as_bytes()).is_none(), "{name}");
        }
    }

    #[test]
    fn arguments_are_counted() {
        let takes = |name: &str, args| find(name.as_bytes()).unwrap().takes(args);
        assert!(takes("get", 2) && !takes("get", 1) && !takes("get", 3));
        assert!(takes("set", 3) && takes("set", 9) && !takes("set", 2));
    }
}
