//! Whom a load is for: addresses and directories, and what a target over the network says of itself.

use std::fmt;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use pinion_client::blocking;

use crate::error::{Error, Result};

/// How long a target may take to tell of itself.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// The longest line of RESP that tells a length.
const RESP_LINE_BYTES_MAX: u64 = 512;

/// What a target over the network speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// Pinion's own protocol.
    Pinion,
    /// Redis' protocol, version 2.
    Resp,
}

/// An engine that runs in this process, without a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Pinion's own.
    Pinion,
    /// RocksDB, if it was compiled in (feature `peers`).
    Rocksdb,
    /// fjall, if it was compiled in (feature `peers`).
    Fjall,
}

impl Engine {
    const ALL: [Self; 3] = [Self::Pinion, Self::Rocksdb, Self::Fjall];

    /// What a target begins with.
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::Pinion => "engine",
            Self::Rocksdb => "rocksdb",
            Self::Fjall => "fjall",
        }
    }

    /// As its makers call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pinion => "Pinion's engine",
            Self::Rocksdb => "RocksDB",
            Self::Fjall => "fjall",
        }
    }

    /// Whether it was compiled in.
    pub const fn is_built(self) -> bool {
        matches!(self, Self::Pinion) || cfg!(feature = "peers")
    }
}

/// What a target says of itself; nothing when it does not answer.
#[derive(Debug, Default)]
pub struct Description {
    /// Names and values: product, version, cores.
    pub facts: Vec<(String, String)>,
    /// Counters.
    pub counters: Vec<(String, u64)>,
}

/// A target, as it was given: `pinion://HOST:PORT`, `redis://HOST:PORT`, or `engine:DIR`, `rocksdb:DIR`,
/// `fjall:DIR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A server.
    Network {
        /// What it speaks.
        speech: Speech,
        /// Host and port.
        authority: String,
    },
    /// An engine in this process.
    InProcess {
        /// Which.
        engine: Engine,
        /// Where its data is; made if it is not there.
        dir: PathBuf,
    },
}

/// Where a server is.
///
/// # Errors
/// [`Error::NoAddress`].
pub(super) fn address(target: &Target, authority: &str) -> Result<SocketAddr> {
    let unknown = |why: &str| Error::NoAddress { target: target.to_string(), reason: why.to_owned() };
    let mut found = authority.to_socket_addrs().map_err(|error| unknown(&error.to_string()))?;
    found.next().ok_or_else(|| unknown("the name has no address"))
}

impl Target {
    /// The engine, if it is one in this process.
    pub const fn engine(&self) -> Option<Engine> {
        match self {
            Self::Network { .. } => None,
            Self::InProcess { engine, .. } => Some(*engine),
        }
    }

    /// Whether it is reached over the network by Redis' protocol.
    pub const fn is_resp(&self) -> bool {
        matches!(self, Self::Network { speech: Speech::Resp, .. })
    }

    /// Where to connect; `None` for an engine in this process.
    ///
    /// # Errors
    /// [`Error::NoAddress`].
    pub fn address(&self) -> Result<Option<SocketAddr>> {
        match self {
            Self::Network { authority, .. } => address(self, authority).map(Some),
            Self::InProcess { .. } => Ok(None),
        }
    }

    /// What a server says of itself. An engine in this process says it while it runs.
    pub fn describe(&self) -> Description {
        let description = match self {
            Self::Network { speech: Speech::Pinion, authority } => describe_pinion(authority),
            Self::Network { speech: Speech::Resp, authority } => {
                address(self, authority).ok().and_then(describe_resp)
            }
            Self::InProcess { .. } => None,
        };
        description.unwrap_or_default()
    }
}

fn describe_pinion(authority: &str) -> Option<Description> {
    let client = blocking::Client::builder()
        .connect(authority.to_owned())
        .deadline(ANSWER_MAX)
        .build_blocking()
        .ok()?;
    let info: serde_json::Value = serde_json::from_str(&client.server_info().ok()?).ok()?;
    let mut facts = vec![("product".to_owned(), "Pinion".to_owned())];
    for name in ["version", "cores", "shards", "partitions"] {
        let value = info.get(name)?;
        facts.push((name.to_owned(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
    }
    let mut counters = Vec::new();
    for part in ["counters", "runtime", "storage"] {
        let numbers = info.get(part)?.as_object()?;
        counters.extend(
            numbers.iter().filter_map(|(name, value)| Some((format!("{part}.{name}"), value.as_u64()?))),
        );
    }
    Some(Description { facts, counters })
}

fn describe_resp(address: SocketAddr) -> Option<Description> {
    let mut socket = TcpStream::connect_timeout(&address, ANSWER_MAX).ok()?;
    socket.set_read_timeout(Some(ANSWER_MAX)).ok()?;
    socket
        .write_all(b"*1\r\n$4\r\nINFO\r\n*3\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n$11\r\nappendfsync\r\n")
        .ok()?;
    let mut reader = BufReader::new(socket);
    let text = resp_bulk(&mut reader)?;
    let fields = || text.lines().filter_map(|line| line.trim().split_once(':'));
    let named = ["redis_version", "redis_mode", "aof_enabled", "maxmemory_human", "io_threads_active"];
    let facts = fields().filter(|(name, _)| named.contains(name));
    let mut facts: Vec<(String, String)> =
        facts.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let counters = fields().filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
    // Servers that are like Redis may not tell.
    facts.extend(resp_pairs(&mut reader).unwrap_or_default());
    Some(Description { facts, counters: counters.collect() })
}

fn resp_line(reader: &mut impl BufRead, kind: char) -> Option<u64> {
    let mut line = String::new();
    reader.take(RESP_LINE_BYTES_MAX).read_line(&mut line).ok()?;
    line.trim().strip_prefix(kind)?.parse().ok()
}

fn resp_bulk(reader: &mut impl BufRead) -> Option<String> {
    let bytes = resp_line(reader, '$')?;
    let mut text = String::new();
    reader.take(bytes + 2).read_to_string(&mut text).ok()?;
    text.truncate(text.strip_suffix("\r\n")?.len());
    Some(text)
}

/// Names and values, as CONFIG GET answers.
fn resp_pairs(reader: &mut impl BufRead) -> Option<Vec<(String, String)>> {
    let count = resp_line(reader, '*')?;
    (0..count / 2).map(|_| Some((resp_bulk(reader)?, resp_bulk(reader)?))).collect()
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || {
            format!(
                "{text:?} is no target: pinion://HOST:PORT or redis://HOST:PORT, or an engine in this \
                 process: engine:DIR, rocksdb:DIR or fjall:DIR"
            )
        };
        let (scheme, rest) = text.split_once(':').ok_or_else(wanted)?;
        if let Some(engine) = Engine::ALL.into_iter().find(|engine| engine.scheme() == scheme) {
            if !engine.is_built() {
                let name = engine.name();
                return Err(format!("this build has no {name}: cargo build --release --features peers"));
            }
            if rest.is_empty() || rest.starts_with("//") {
                return Err(format!("{text:?} has no directory: {scheme}:DIR, {scheme}:/var/bench for one"));
            }
            return Ok(Self::InProcess { engine, dir: PathBuf::from(rest) });
        }
        let speech = match scheme {
            "pinion" => Speech::Pinion,
            "redis" => Speech::Resp,
            _ => return Err(wanted()),
        };
        let authority = rest.strip_prefix("//").ok_or_else(wanted)?.trim_end_matches('/');
        let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none() {
            return Err(wanted());
        }
        Ok(Self::Network { speech, authority: authority.to_owned() })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network { speech: Speech::Pinion, authority } => write!(f, "pinion://{authority}"),
            Self::Network { speech: Speech::Resp, authority } => write!(f, "redis://{authority}"),
            Self::InProcess { engine, dir } => write!(f, "{}:{}", engine.scheme(), dir.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_a_host_and_a_port_or_a_directory() {
        let target: Target = "redis://localhost:6379/".parse().unwrap();
        let authority = "localhost:6379".to_owned();
        assert_eq!(target, Target::Network { speech: Speech::Resp, authority });
        let target: Target = "engine:some/dir".parse().unwrap();
        assert_eq!(target, Target::InProcess { engine: Engine::Pinion, dir: PathBuf::from("some/dir") });
        assert_eq!((target.engine(), target.address().unwrap()), (Some(Engine::Pinion), None));
        for text in ["pinion://127.0.0.1:7600", "redis://[::1]:6379", "engine:/some:where"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for wrong in [
            "127.0.0.1:7600",
            "http://a:1",
            "pinion://host",
            "redis://host:port",
            "engine",
            "engine:",
            "engine://a",
        ] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn peers_are_there_if_they_were_compiled_in() {
        for (text, name) in [("rocksdb:dir", "RocksDB"), ("fjall:dir", "fjall")] {
            match text.parse::<Target>() {
                Ok(target) => assert!(cfg!(feature = "peers") && target.to_string() == text),
                Err(error) => {
                    let said = format!("this build has no {name}: cargo build --release --features peers");
                    assert!(!cfg!(feature = "peers") && error == said, "{error}");
                }
            }
        }
    }
}
