//! RESP, the protocol of Redis: commands read in place, and replies in its versions 2 and 3; no I/O.
//!
//! [`Commands`] is to RESP what [`crate::Frames`] is to native frames: it cuts received chunks into
//! commands and copies only one that spans chunks. A [`Command`] borrows its arguments. The functions
//! of [`reply`] append replies to the caller's buffer.
//!
//! The grammar is that of Redis 7, inline commands and its tolerance for line ends included; so are the
//! texts of errors. What the commands mean is the server's business: see `net/protocol/RESP.md`.
//!
//! ```
//! use pinion_protocol::resp::{Commands, reply};
//!
//! let mut commands = Commands::new(1 << 20);
//! let mut chunk = &b"*2\r\n$4\r\nECHO\r\n$5\r\nhello\r\nPING\r\n"[..];
//! let command = commands.next_command(&mut chunk)?.expect("it is whole");
//! assert_eq!((command.name(), command.arg(1)), (&b"ECHO"[..], &b"hello"[..]));
//! let command = commands.next_command(&mut chunk)?.expect("an inline command");
//! assert_eq!(command.name(), b"PING");
//!
//! let mut out = Vec::new();
//! reply::bulk(&mut out, b"hello");
//! assert_eq!(out, b"$5\r\nhello\r\n");
//! # Ok::<(), pinion_protocol::resp::CommandError>(())
//! ```

mod command;
mod inline;
mod number;
pub mod reply;

pub use command::{ARGS_MAX, Command, CommandError, Commands, LINE_BYTES_MAX, append_command};
pub use number::parse_integer;

/// Which replies a connection is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RespVersion {
    /// RESP2: what a connection starts with.
    #[default]
    Two,
    /// RESP3: after `HELLO 3`.
    Three,
}
