//! Streams of commands, drawn from a seed.

use crate::world::Random;

use super::{Args, words};

/// Commands that a stream has at most.
const STREAM_COMMANDS_MAX: u64 = 48;

/// How a command was drawn.
#[derive(Debug, Clone)]
pub struct Drawn {
    /// The command.
    pub args: Args,
    /// How far numbers in its reply may be apart, because the clocks of two servers are.
    pub tolerance: i64,
}

/// Draws commands on a few keys.
#[derive(Debug)]
pub struct Draws {
    random: Random,
    keys: Vec<Vec<u8>>,
    /// Times drawn so far: no two are alike, for which of two is the later must not hang on a
    /// millisecond.
    times: u64,
}

impl Draws {
    /// Of a seed, on so many keys.
    pub fn new(seed: u64, keys: u64) -> Self {
        let mut keys: Vec<Vec<u8>> = (0..keys).map(|number| format!("key:{number}").into_bytes()).collect();
        keys.push(b"{tag}:a".to_vec());
        keys.push(b"\x00\xff\r\n binary".to_vec());
        Self { random: Random::labelled(seed, 0x4E59), keys, times: 0 }
    }

    /// The source of chance.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.random.below(of.len() as u64) as usize]
    }

    fn key(&mut self) -> Vec<u8> {
        let index = self.random.below(self.keys.len() as u64) as usize;
        self.keys[index].clone()
    }

    fn value(&mut self) -> Vec<u8> {
        match self.random.below(8) {
            0 => Vec::new(),
            1 => b"\r\n$3\r\n\x00\xfe".to_vec(),
            2 => vec![self.random.below(256) as u8; self.random.below(900) as usize],
            3 => b"9223372036854775807".to_vec(),
            4 => b"+1".to_vec(),
            _ => (self.random.below(200) as i64 - 100).to_string().into_bytes(),
        }
    }

    fn number(&mut self) -> Vec<u8> {
        (self.random.below(60) as i64 - 30).to_string().into_bytes()
    }

    /// A command that [`super::Model`] knows.
    pub fn plain(&mut self) -> Args {
        let (key, other, value) = (self.key(), self.key(), self.value());
        let name = |name: &str| name.as_bytes().to_vec();
        match self.random.below(26) {
            0..4 => vec![name("GET"), key],
            4..7 => vec![name("SET"), key, value],
            7 => {
                let option = self.one(&["NX", "XX", "GET", "KEEPTTL"]);
                vec![name("SET"), key, value, name(option)]
            }
            8 => vec![name("SET"), key, value, name("IFEQ"), self.value()],
            9 => vec![name("SET"), key, value, name("GET"), name(self.one(&["NX", "XX"]))],
            10 => vec![name("SETNX"), key, value],
            11 => vec![name("GETSET"), key, value],
            12 => vec![name("GETDEL"), key],
            13 => vec![name(self.one(&["DEL", "UNLINK"])), key],
            14 => vec![name("DEL"), key, other, self.key()],
            15 => vec![name("EXISTS"), key.clone(), other, key],
            16 => vec![name("MGET"), key, other, self.key()],
            17 => vec![name("MSET"), key, value, other, self.value()],
            18 => vec![name("APPEND"), key, value],
            19 => {
                let offset = self.random.below(40).to_string();
                vec![name("SETRANGE"), key, name(&offset), value]
            }
            20 => vec![name("GETRANGE"), key, self.number(), self.number()],
            21 => vec![name("STRLEN"), key],
            22 => vec![name(self.one(&["INCR", "DECR"])), key],
            23 => vec![name(self.one(&["INCRBY", "DECRBY"])), key, self.number()],
            24 => vec![name("TYPE"), key],
            _ => vec![name(self.one(&["PING", "DBSIZE"]))],
        }
    }

    /// Commands that [`super::Model`] knows, to be sent together.
    pub fn plain_stream(&mut self) -> Vec<Args> {
        let count = 1 + self.random.below(STREAM_COMMANDS_MAX);
        (0..count).map(|_| self.plain()).collect()
    }

    /// Any command that Redis 7 and we both know, and some that neither does; with whatever arguments.
    pub fn any(&mut self) -> Drawn {
        let plain = |args| Drawn { args, tolerance: 0 };
        match self.random.below(10) {
            0..4 => loop {
                let args = self.plain();
                // Of a later version than the one that is at hand.
                if !args.contains(&b"IFEQ".to_vec()) {
                    return plain(args);
                }
            },
            4..7 => self.timed(),
            7 => plain(self.about_the_connection()),
            8 => plain(self.wrong()),
            _ => {
                let mut drawn = self.timed();
                self.spoil(&mut drawn.args);
                drawn
            }
        }
    }

    /// Any commands, to be sent together.
    pub fn any_stream(&mut self) -> Vec<Drawn> {
        let count = 1 + self.random.below(STREAM_COMMANDS_MAX);
        (0..count).map(|_| self.any()).collect()
    }

    /// A time in seconds, at least a quarter of an hour, unlike all before by ten seconds.
    fn seconds(&mut self) -> u64 {
        self.times += 1;
        1_000 + 10 * (self.times * 7_919 % 100_003)
    }

    /// A unit, and a time in it from now or since 1970.
    fn time(&mut self) -> (&'static str, Vec<u8>) {
        const FAR_S: u64 = 4_000_000_000;
        let seconds = self.seconds();
        let (option, number) = match self.random.below(4) {
            0 => ("EX", seconds),
            1 => ("PX", seconds * 1_000),
            2 => ("EXAT", FAR_S + seconds),
            _ => ("PXAT", (FAR_S + seconds) * 1_000 + 1),
        };
        (option, number.to_string().into_bytes())
    }

    /// A command about expiry.
    fn timed(&mut self) -> Drawn {
        let (key, value) = (self.key(), self.value());
        let name = |name: &str| name.as_bytes().to_vec();
        let (option, time) = self.time();
        let plain = |args| Drawn { args, tolerance: 0 };
        match self.random.below(12) {
            0 => plain(vec![name("SET"), key, value, name(option), time]),
            1 => plain(vec![name("SET"), key, value, name("XX"), name(option), time, name("GET")]),
            2 => plain(vec![name("SETEX"), key, self.seconds().to_string().into(), value]),
            3 => plain(vec![name("PSETEX"), key, (self.seconds() * 1_000).to_string().into(), value]),
            4 => plain(vec![name("GETEX"), key, name(option), time]),
            5 => plain(vec![name("GETEX"), key, name("PERSIST")]),
            6 => plain(vec![name("PERSIST"), key]),
            7 | 8 => {
                let command = match option {
                    "EX" => "EXPIRE",
                    "PX" => "PEXPIRE",
                    "EXAT" => "EXPIREAT",
                    _ => "PEXPIREAT",
                };
                let mut args = vec![name(command), key, time];
                for _ in 0..self.random.below(3) {
                    args.push(name(self.one(&["NX", "XX", "GT", "LT", "gt", "xx"])));
                }
                plain(args)
            }
            9 => {
                let command = self.one(&["EXPIRE", "PEXPIRE", "EXPIREAT", "PEXPIREAT"]);
                let moment = self.one(&["0", "-1", "1", "-1000000"]);
                // One millisecond from now is a race.
                let moment = if command == "PEXPIRE" && moment == "1" { "0" } else { moment };
                let moment = if command == "EXPIRE" && moment == "1" { "-5" } else { moment };
                plain(vec![name(command), key, name(moment)])
            }
            10 => Drawn { args: vec![name(self.one(&["TTL", "EXPIRETIME"])), key], tolerance: 30 },
            _ => Drawn { args: vec![name(self.one(&["PTTL", "PEXPIRETIME"])), key], tolerance: 30_000 },
        }
    }

    fn about_the_connection(&mut self) -> Args {
        match self.random.below(9) {
            0 => words(["PING"]),
            1 => vec![b"ping".to_vec(), self.value()],
            2 => vec![b"ECHO".to_vec(), self.value()],
            3 => words(["SELECT", "0"]),
            4 => words(["CLIENT", "SETNAME", self.one(&["a-name", "another", "with blank", ""])]),
            5 => words(["CLIENT", "GETNAME"]),
            6 => words(["ROLE"]),
            7 => words(["AUTH", "default", "whatever"]),
            _ => words(["SCAN", "0", "COUNT", "1000", "MATCH", "no such key"]),
        }
    }

    /// Something that makes no sense.
    fn wrong(&mut self) -> Args {
        let key = String::from_utf8_lossy(&self.key()).into_owned();
        let key = key.as_str();
        match self.random.below(30) {
            0 => words(["GET"]),
            1 => words(["GET", key, "more"]),
            2 => words(["SET", key]),
            3 => words(["SET", key, "v", "NX", "XX"]),
            4 => words(["SET", key, "v", "EX"]),
            5 => words(["SET", key, "v", "EX", "10", "PX", "10"]),
            6 => words(["SET", key, "v", "EX", "0"]),
            7 => words(["SET", key, "v", "PX", "-1"]),
            8 => words(["SET", key, "v", "EX", "9223372036854775807"]),
            9 => words(["SET", key, "v", "EX", "x"]),
            10 => words(["SET", key, "v", "KEEPTTL", "EX", "5"]),
            11 => words(["SET", key, "v", "WHAT"]),
            12 => words(["SETEX", key, "0", "v"]),
            13 => words(["SETEX", key, "x", "v"]),
            14 => words(["MSET", key]),
            15 => words(["MSET", key, "v", "w"]),
            16 => words(["MSET", key, "v", key, "w", key]),
            17 => words(["INCRBY", key, "1.5"]),
            18 => words(["DECRBY", key, "-9223372036854775808"]),
            19 => words(["SETRANGE", key, "-1", "x"]),
            20 => words(["SETRANGE", key, "x", "x"]),
            21 => words(["GETRANGE", key, "a", "1"]),
            22 => words(["EXPIRE", key, "x"]),
            23 => words(["EXPIRE", key, "10", "NX", "GT"]),
            24 => words(["EXPIRE", key, "10", self.one(&["GT", "HM", "nx\r\n"]), "LT"]),
            25 => words(["EXPIRE", key, "9223372036854775807"]),
            26 => words(["GETEX", key, "EX", self.one(&["0", "x", "9223372036854775807"])]),
            27 => words(["NOSUCH", key, "with", "some\r\nmore", "arguments"]),
            28 => words(["SELECT", self.one(&["x", ""])]),
            _ => words(["CLIENT", self.one(&["NOSUCH", "SETNAME", "GETNAME", "ID"]), "a", "b", "c"]),
        }
    }

    /// Leaves out an argument, or adds one.
    fn spoil(&mut self, args: &mut Args) {
        let at = 1 + self.random.below(args.len() as u64) as usize;
        match self.random.below(3) {
            0 if at < args.len() => drop(args.remove(at)),
            1 => args.insert(at, self.one(&["NX", "GET", "EX", "10000"]).into()),
            // What an option is followed by may become a time that is over soon.
            _ => args.push(b"more".to_vec()),
        }
        // What stands where a key should is one that both take.
        if let Some(key) = args.get_mut(1).filter(|key| key.is_empty()) {
            key.push(b'0');
        }
    }
}
