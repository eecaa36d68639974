//! RESP as a client speaks it, for tests: commands are encoded here, replies decoded by somebody else's
//! implementation, so that what servers send is judged by the same eyes, whoever they are.

mod draw;
mod model;
mod pipelines;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

use redis_protocol::{resp2, resp3};

pub use draw::{Drawn, Draws};
pub use model::Model;
pub use pipelines::RESP_PIPELINES;

/// The arguments of a command.
pub type Args = Vec<Vec<u8>>;

/// A reply. Sets and maps are sorted, texts of whatever kind are their bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reply {
    /// A text of one line, such as `OK`.
    Simple(Vec<u8>),
    /// An error.
    Error(String),
    /// A number.
    Integer(i64),
    /// A string.
    Bulk(Vec<u8>),
    /// Nothing.
    Null,
    /// Several replies.
    Array(Vec<Reply>),
    /// Several replies in no order; of RESP3 only.
    Set(Vec<Reply>),
    /// Pairs of replies; of RESP3 only.
    Map(Vec<(Reply, Reply)>),
}

impl Reply {
    /// `OK`.
    pub fn ok() -> Self {
        Self::Simple(b"OK".to_vec())
    }

    /// A string.
    pub fn bulk(bytes: impl AsRef<[u8]>) -> Self {
        Self::Bulk(bytes.as_ref().to_vec())
    }

    /// A string, or nothing.
    pub fn value(value: Option<&Vec<u8>>) -> Self {
        value.map_or(Self::Null, Self::bulk)
    }

    /// The text of an error; empty for what is none.
    pub fn error(&self) -> &str {
        match self {
            Self::Error(text) => text,
            _ => "",
        }
    }

    /// The members of an array or set; none for what is neither.
    pub fn members(&self) -> &[Self] {
        match self {
            Self::Array(members) | Self::Set(members) => members,
            _ => &[],
        }
    }
}

/// A command from words.
pub fn words<const N: usize>(words: [&str; N]) -> Args {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

/// Appends a command.
pub fn encode(args: &[Vec<u8>], out: &mut Vec<u8>) {
    pinion_protocol::resp::append_command(out, args.iter().map(Vec::as_slice));
}

/// The reply at the front of `bytes` and how many bytes it is; `None` if it is not complete.
///
/// # Panics
/// When it is no reply.
pub fn decode(resp3: bool, bytes: &[u8]) -> Option<(Reply, usize)> {
    if resp3 {
        let found = resp3::decode::complete::decode(bytes).expect("servers send replies of RESP3");
        found.map(|(frame, bytes)| (of_resp3(frame), bytes))
    } else {
        let found = resp2::decode::decode(bytes).expect("servers send replies of RESP2");
        found.map(|(frame, bytes)| (of_resp2(frame), bytes))
    }
}

/// How many replies or parts of replies stand in `bytes`, whatever their texts, and how many bytes they
/// are.
///
/// # Panics
/// When something else stands there.
pub fn walk(bytes: &[u8]) -> (u64, usize) {
    let (mut count, mut at) = (0, 0);
    while let Some(line) = bytes[at..].windows(2).position(|end| end == b"\r\n") {
        let (kind, text) =
            bytes[at..at + line].split_first().expect("a reply does not begin with a line end");
        let mut next = at + line + 2;
        match kind {
            b'+' | b'-' | b':' | b'_' | b'*' | b'%' | b'~' => {}
            b'$' | b'=' => {
                let text = std::str::from_utf8(text).expect("a length is a number");
                let length: i64 = text.parse().expect("a length is a number");
                if let Ok(length) = usize::try_from(length) {
                    next += length + 2;
                }
            }
            other => panic!("no reply begins with {other:#x}"),
        }
        if next > bytes.len() {
            break;
        }
        (count, at) = (count + 1, next);
    }
    (count, at)
}

fn of_resp2(frame: resp2::types::OwnedFrame) -> Reply {
    use resp2::types::OwnedFrame as Frame;
    match frame {
        Frame::SimpleString(bytes) => Reply::Simple(bytes),
        Frame::Error(text) => Reply::Error(text),
        Frame::Integer(number) => Reply::Integer(number),
        Frame::BulkString(bytes) => Reply::Bulk(bytes),
        Frame::Array(members) => Reply::Array(members.into_iter().map(of_resp2).collect()),
        Frame::Null => Reply::Null,
    }
}

fn of_resp3(frame: resp3::types::OwnedFrame) -> Reply {
    use resp3::types::OwnedFrame as Frame;
    match frame {
        Frame::SimpleString { data, .. } => Reply::Simple(data),
        Frame::SimpleError { data, .. } => Reply::Error(data),
        Frame::Number { data, .. } => Reply::Integer(data),
        Frame::BlobString { data, .. } | Frame::VerbatimString { data, .. } => Reply::Bulk(data),
        Frame::Null => Reply::Null,
        Frame::Array { data, .. } => Reply::Array(data.into_iter().map(of_resp3).collect()),
        Frame::Set { data, .. } => {
            let mut members: Vec<_> = data.into_iter().map(of_resp3).collect();
            members.sort();
            Reply::Set(members)
        }
        Frame::Map { data, .. } => {
            let mut pairs: Vec<_> =
                data.into_iter().map(|(name, value)| (of_resp3(name), of_resp3(value))).collect();
            pairs.sort();
            Reply::Map(pairs)
        }
        other => panic!("no command of ours is answered with {other:?}"),
    }
}

/// A connection to a real server, by whatever way.
trait Stream: Read + Write + std::fmt::Debug {}

impl<T: Read + Write + std::fmt::Debug> Stream for T {}

/// A connection to a real server.
#[derive(Debug)]
pub struct RespConnection {
    stream: Box<dyn Stream>,
    received: Vec<u8>,
    resp3: bool,
}

impl RespConnection {
    /// Connects; replies are those of RESP2 until [`RespConnection::speak_resp3`].
    ///
    /// # Panics
    /// When nobody listens there.
    pub fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(crate::process::PATIENCE)).expect("the timeout is not zero");
        stream.set_nodelay(true).expect("a TCP socket");
        Self { stream: Box::new(stream), received: Vec::new(), resp3: false }
    }

    /// As [`RespConnection::connect`] by a socket in the file system.
    ///
    /// # Errors
    /// Nobody listens there yet.
    pub fn connect_unix(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(crate::process::PATIENCE))?;
        Ok(Self { stream: Box::new(stream), received: Vec::new(), resp3: false })
    }

    /// Says HELLO 3; the reply.
    ///
    /// # Panics
    /// When the server does not answer.
    pub fn speak_resp3(&mut self) -> Reply {
        self.send(&[words(["HELLO", "3"])]);
        self.resp3 = true;
        self.receive()
    }

    /// Sends commands in one go.
    ///
    /// # Panics
    /// When the server takes no more.
    pub fn send(&mut self, commands: &[Args]) {
        let mut bytes = Vec::new();
        commands.iter().for_each(|args| encode(args, &mut bytes));
        self.send_bytes(&bytes);
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// When the server takes no more.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// The next reply.
    ///
    /// # Panics
    /// When the connection ends instead.
    pub fn receive(&mut self) -> Reply {
        self.try_receive().expect("the server answers").expect("the server does not close the connection")
    }

    /// The next reply; `None` when the server closes.
    ///
    /// # Errors
    /// The connection was reset.
    pub fn try_receive(&mut self) -> io::Result<Option<Reply>> {
        let mut chunk = [0; 16 << 10];
        loop {
            if !self.received.is_empty()
                && let Some((reply, bytes)) = decode(self.resp3, &self.received)
            {
                self.received.drain(..bytes);
                return Ok(Some(reply));
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                // With a timeout a read is not taken up again after a signal.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends one command and waits for its reply.
    ///
    /// # Panics
    /// When the connection ends instead.
    pub fn call(&mut self, args: Args) -> Reply {
        self.send(&[args]);
        self.receive()
    }
}
