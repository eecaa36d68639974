//! Opening a connection: preface and HELLO, before the ring has the socket.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use pinion_protocol::{FEATURES, FRAME_BYTES_MAX_DEFAULT, Frames, Hello, Preface, Request, Response};

use super::talk::Dialect;
use crate::error::{Error, Result};

/// How long a server may take to greet.
pub(crate) const GREETING_MAX: Duration = Duration::from_secs(20);
/// The id of HELLO: not 0, which is the id of errors without a request.
const HELLO_ID: u64 = 1;

/// A connection on which requests may follow, and the assembler of its answers.
///
/// # Errors
/// [`Error::Connect`]; [`Error::Refused`] when the server answers with an error or allows fewer than
/// `depth` requests in flight.
pub(super) fn open(target: SocketAddr, dialect: Dialect, depth: usize) -> Result<(TcpStream, Frames)> {
    let refused = |error| Error::Connect { target, error };
    let mut socket = TcpStream::connect_timeout(&target, GREETING_MAX).map_err(refused)?;
    socket.set_nodelay(true)?;
    let mut frames = Frames::new(FRAME_BYTES_MAX_DEFAULT);
    if dialect == Dialect::Native {
        socket.set_read_timeout(Some(GREETING_MAX))?;
        greet(&mut socket, &mut frames, depth)?;
        socket.set_read_timeout(None)?;
    }
    Ok((socket, frames))
}

/// Greets on a new connection that has a time limit for reading; how many shards the server has.
///
/// # Errors
/// As [`open`].
pub(crate) fn greet(socket: &mut TcpStream, frames: &mut Frames, depth: usize) -> Result<u16> {
    let mut out = Preface::OURS.to_bytes().to_vec();
    let hello = Hello { wanted_core: None, features: FEATURES, client_name: "pinion-bench" };
    Request::Hello(hello).encode(HELLO_ID, 0, 0, &mut out)?;
    socket.write_all(&out)?;
    let mut chunk = [0; 4096];
    loop {
        let bytes = match socket.read(&mut chunk) {
            // The kernel interrupts reads that have a time limit to end what a closed ring left.
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        };
        if bytes == 0 {
            return Err(Error::Refused("it closed the connection instead of greeting".to_owned()));
        }
        let mut rest = &chunk[..bytes];
        let Some(frame) = frames.next_frame(&mut rest)? else { continue };
        return match Response::decode(&frame.header, frame.body)? {
            Response::Hello(reply) if (reply.in_flight_max as usize) < depth => Err(Error::Refused(format!(
                "it allows {} requests in flight on a connection, not {depth}",
                reply.in_flight_max
            ))),
            Response::Hello(reply) => Ok(u16::try_from(reply.shard_cores.len()).unwrap_or(u16::MAX)),
            Response::Error { error, .. } => {
                Err(Error::Refused(format!("{}: {}", error.code.name(), error.message)))
            }
            other => Err(Error::Answer(format!("HELLO was answered by opcode {}", other.opcode()))),
        };
    }
}
