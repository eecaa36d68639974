//! Whom a load is for: addresses, and what the target says of itself.

use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::str::FromStr;
use std::time::Duration;

use pinion_client::blocking;

use crate::error::{Error, Result};

/// How long a target may take to tell of itself.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What a target speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// Pinion's own protocol.
    Pinion,
    /// Redis' protocol, version 2.
    Resp,
}

/// What a target says of itself; nothing when it does not answer.
#[derive(Debug, Default)]
pub struct Description {
    /// Names and values: product, version, cores.
    pub facts: Vec<(String, String)>,
    /// Counters.
    pub counters: Vec<(String, u64)>,
}

/// A target, as it was given: `pinion://HOST:PORT` or `redis://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// What it speaks.
    pub speech: Speech,
    /// Host and port.
    pub authority: String,
}

impl Target {
    /// Where to connect.
    ///
    /// # Errors
    /// [`Error::Usage`] when the name has no address.
    pub fn address(&self) -> Result<SocketAddr> {
        let unknown = |why: &str| Error::Usage(format!("{self}: {why}"));
        let mut found = self.authority.to_socket_addrs().map_err(|error| unknown(&error.to_string()))?;
        found.next().ok_or_else(|| unknown("the name has no address"))
    }

    /// What it says of itself.
    pub fn describe(&self) -> Description {
        match self.speech {
            Speech::Pinion => self.describe_pinion().unwrap_or_default(),
            Speech::Resp => self.describe_resp().unwrap_or_default(),
        }
    }

    fn describe_pinion(&self) -> Option<Description> {
        let client = blocking::Client::builder()
            .connect(self.authority.clone())
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

    fn describe_resp(&self) -> Option<Description> {
        let mut socket = TcpStream::connect_timeout(&self.address().ok()?, ANSWER_MAX).ok()?;
        socket.set_read_timeout(Some(ANSWER_MAX)).ok()?;
        socket.write_all(b"*1\r\n$4\r\nINFO\r\n").ok()?;
        let mut reader = BufReader::new(socket);
        let mut head = String::new();
        reader.read_line(&mut head).ok()?;
        let bytes: u64 = head.trim().strip_prefix('$')?.parse().ok()?;
        let mut text = String::new();
        reader.take(bytes).read_to_string(&mut text).ok()?;
        let fields = || text.lines().filter_map(|line| line.trim().split_once(':'));
        let named = ["redis_version", "redis_mode", "aof_enabled", "maxmemory_human", "io_threads_active"];
        let facts = fields().filter(|(name, _)| named.contains(name));
        let counters = fields().filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
        Some(Description {
            facts: facts.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            counters: counters.collect(),
        })
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("{text:?} is no target: pinion://HOST:PORT or redis://HOST:PORT");
        let (scheme, authority) = text.split_once("://").ok_or_else(wanted)?;
        let speech = match scheme {
            "pinion" => Speech::Pinion,
            "redis" => Speech::Resp,
            _ => return Err(wanted()),
        };
        let authority = authority.trim_end_matches('/');
        let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none() {
            return Err(wanted());
        }
        Ok(Self { speech, authority: authority.to_owned() })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.speech == Speech::Pinion { "pinion" } else { "redis" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_a_scheme_a_host_and_a_port() {
        let target: Target = "redis://localhost:6379/".parse().unwrap();
        assert_eq!((target.speech, target.authority.as_str()), (Speech::Resp, "localhost:6379"));
        assert_eq!(
            "pinion://127.0.0.1:7600".parse::<Target>().unwrap().to_string(),
            "pinion://127.0.0.1:7600"
        );
        for wrong in ["127.0.0.1:7600", "http://a:1", "pinion://host", "redis://host:port"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }
}
