//! How a connection opens: preface, HELLO, and the way to the core that HELLO names; or RESP.
//!
//! The first byte tells: native frames begin with one that no text begins with, and RESP with `*` or
//! text. A RESP connection stays where it was accepted, if that core has room, since its commands go to
//! the cores that own their keys.
//!
//! What is received is asked for chunk by chunk until HELLO is whole, so that nothing is in flight
//! then and the socket can move to the wanted core, which answers. If that core does not keep up
//! with its messages the connection stays, the answer says where, and requests are forwarded. A
//! connection for any core goes on from a core that is full to the next, until one has room.
//!
//! Limits: HELLO has a deadline and a longest frame; connections beyond the limit are told so after
//! their HELLO, and beyond [`REFUSALS_MAX`] of those dropped unheard.
//!
//! Failure: what begins with neither is dropped without an answer; everything else gets an error before
//! the connection ends.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use pinion_env::{Socket, TaskClass};
use pinion_protocol::{Header, Opcode, PREFACE_BYTES, Preface, ProtocolError, Request};

use crate::connection::{Connection, Speaks};
use crate::core::{Core, Phase};
use crate::counters::add;
use crate::hello;
use crate::message::{CoreMessage, HandedOff, Message, ServerEnv};
use crate::refusal::Refusal;
use crate::session::Session;

/// The longest HELLO frame in bytes; real ones have at most 112.
const HELLO_BYTES_MAX: u32 = 4_096;

/// Connections above the limit that may wait to be told so; more are dropped unheard.
const REFUSALS_MAX: u32 = 64;

/// Names the core that a client does not care about.
const ANY_CORE: u16 = u16::MAX;

/// Takes in a connection. `handed` is what came with it from another core and how many cores have
/// passed it on, `None` if it was accepted here.
pub(crate) fn start<E: ServerEnv>(core: &Rc<Core<E>>, socket: E::Socket, handed: Option<(Vec<u8>, u16)>) {
    if core.phase.get() != Phase::Serving
        || core.connections.open() >= core.connections_max().saturating_add(REFUSALS_MAX)
    {
        add(&core.counters.connections_refused, 1);
        return;
    }
    let (first, step) = (u64::from(core.index) + 1, u64::from(core.layout.cores));
    let connection = core.connections.insert((first, step), core.tick());
    core.share_out();
    let until = core.env.now().after(Duration::from_millis(u64::from(core.limits().hello_ms_max)));
    connection.expect_hello(until);
    watch_hellos(core);
    let task_core = Rc::clone(core);
    core.env.spawn(TaskClass::Foreground, async move {
        let id = connection.id;
        if let Some(mut session) = open(&task_core, &connection, socket, handed).await {
            poll_fn(|context| session.turn(context)).await;
            session.end();
        }
        task_core.connections.remove(id);
        task_core.share_out();
    });
}

/// Ends connections whose HELLO is overdue. Runs only while there are such that wait, so that an
/// idle node has no timer.
fn watch_hellos<E: ServerEnv>(core: &Rc<Core<E>>) {
    if core.hello_watch.replace(true) {
        return;
    }
    let task_core = Rc::clone(core);
    core.env.spawn(TaskClass::Background, async move {
        let core = task_core;
        let step = Duration::from_millis(u64::from(core.limits().hello_ms_max).div_ceil(2));
        loop {
            core.env.sleep(step).await;
            let (doomed, waiting) = core.connections.doom_overdue(core.env.now());
            add(&core.counters.hello_timeouts, doomed);
            if !waiting {
                core.hello_watch.set(false);
                return;
            }
        }
    });
}

/// What a connection opened with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    pub(crate) version: u16,
    pub(crate) header: Header,
    wanted_core: u16,
    pub(crate) features: u64,
    /// What the client calls itself.
    name: String,
    /// Bytes of preface and HELLO.
    bytes: usize,
}

/// What a connection has begun with.
#[derive(Debug, PartialEq, Eq)]
enum Begun {
    /// Preface and HELLO.
    Native(Opening),
    /// A command, or the front of one.
    Resp,
}

/// Whether RESP begins with this byte: an array of strings, or a line as a person types it.
const fn begins_resp(byte: u8) -> bool {
    byte.is_ascii_graphic() || byte.is_ascii_whitespace()
}

/// Looks at the front of what was received; `None` = more is needed. The error comes with the request
/// id to answer to.
fn begun(received: &[u8]) -> Result<Option<Begun>, (ProtocolError, u64)> {
    if received.first().is_some_and(|byte| begins_resp(*byte)) {
        return Ok(Some(Begun::Resp));
    }
    Ok(read_opening(received)?.map(Begun::Native))
}

/// Reads preface and HELLO from the front of what was received; `None` = more is needed. The
/// error comes with the request id to answer to.
fn read_opening(received: &[u8]) -> Result<Option<Opening>, (ProtocolError, u64)> {
    let Some(preface) = Preface::read(received).map_err(|error| (error, 0))? else { return Ok(None) };
    let rest = received.get(PREFACE_BYTES..).unwrap_or_default();
    let header = match (preface.negotiate(), Header::read(rest)) {
        // The answer waits for HELLO: closing on unread bytes would reset it away.
        (_, Ok(None)) => return Ok(None),
        (Err(error), header) => {
            return Err((error, header.ok().flatten().map_or(0, |header| header.request_id)));
        }
        (Ok(_), Err(error)) => return Err((error, 0)),
        (Ok(version), Ok(Some(header))) => (version, header),
    };
    let (version, header) = header;
    let fail = |error| Err((error, header.request_id));
    if header.opcode != Opcode::Hello.to_u8() || header.is_response() {
        return fail(ProtocolError::BadHeader("a connection opens with HELLO"));
    }
    if header.frame_bytes > HELLO_BYTES_MAX {
        return fail(ProtocolError::FrameTooLarge { bytes: header.frame_bytes, max: HELLO_BYTES_MAX });
    }
    let Some(body) = rest.get(usize::from(header.header_bytes)..header.frame_bytes as usize) else {
        return Ok(None);
    };
    match Request::decode(&header, body) {
        Ok(Request::Hello(hello)) => Ok(Some(Opening {
            version,
            header,
            wanted_core: hello.wanted_core.unwrap_or(ANY_CORE),
            features: hello.features,
            name: hello.client_name.to_owned(),
            bytes: PREFACE_BYTES + header.frame_bytes as usize,
        })),
        Ok(_) => fail(ProtocolError::BadHeader("a connection opens with HELLO")),
        Err(error) => fail(error),
    }
}

/// Receives preface and HELLO and answers, or hands the connection to the core it asks for.
/// `None` when there is nothing more to do here.
async fn open<E: ServerEnv>(
    core: &Rc<Core<E>>,
    connection: &Rc<Connection>,
    socket: E::Socket,
    handed: Option<(Vec<u8>, u16)>,
) -> Option<Session<E>> {
    let adopted = handed.is_some();
    let (mut received, passed) = handed.unwrap_or_default();
    let opening = loop {
        match begun(&received) {
            Ok(Some(begun)) => break Ok(begun),
            Ok(None) => {}
            Err((ProtocolError::BadPreface, _)) => {
                add(&core.counters.frames_bad, 1);
                return None;
            }
            Err(failed) => break Err(failed),
        }
        let chunk = poll_fn(|context| {
            connection.run(context.waker());
            if connection.is_doomed() || core.phase.get() == Phase::Ending {
                return Poll::Ready(None);
            }
            let polled = socket.poll_receive(context);
            connection.rest(false, false, false);
            polled.map(|chunk| chunk.ok().flatten())
        })
        .await?;
        add(&core.counters.received_chunks, 1);
        add(&core.counters.received_bytes, chunk.len() as u64);
        received.extend_from_slice(&chunk);
    };
    let opening = match opening {
        Ok(Begun::Native(opening)) => opening,
        Ok(Begun::Resp) => return open_resp(core, connection, socket, received, passed),
        Err((error, request_id)) => {
            add(&core.counters.frames_bad, 1);
            return Some(Session::refusing(core, connection, socket, request_id, &Refusal::protocol(&error)));
        }
    };
    let request_id = opening.header.request_id;
    let refusing = |socket, refusal: &Refusal<'_>| {
        Some(Session::refusing(core, connection, socket, request_id, refusal))
    };
    if core.phase.get() != Phase::Serving {
        return refusing(socket, &Refusal::SHUTTING_DOWN);
    }
    let cores = core.layout.cores;
    // Counted where a connection stays, itself included.
    let full = core.connections.open() > core.connections_max();
    let next = if opening.wanted_core < cores {
        (!adopted && opening.wanted_core != core.index).then_some((opening.wanted_core, cores))
    } else {
        (full && passed + 1 < cores).then_some(((core.index + 1) % cores, passed + 1))
    };
    let socket = if let Some((next, passed)) = next {
        match hand_off(core, socket, next, received, passed) {
            Ok(()) => return None,
            // The other core does not keep up with its messages: the connection stays here, and
            // the answer says so.
            Err((socket, back)) => {
                received = back;
                socket
            }
        }
    } else {
        socket
    };
    if full {
        add(&core.counters.connections_refused, 1);
        return refusing(socket, &Refusal::TOO_MANY_CONNECTIONS);
    }
    connection.hello_done();
    let mut answer = core.take_buffer();
    if let Err(error) = hello::put_answer(core, &opening, &mut answer) {
        return refusing(socket, &Refusal::protocol(&error));
    }
    *connection.out.borrow_mut() = answer;
    connection.introduce(Speaks::Native, socket.peer(), opening.name);
    Some(Session::streaming(core, connection, socket, &received[opening.bytes..]))
}

/// Takes a RESP connection in, or gives it to the next core if this one is full.
fn open_resp<E: ServerEnv>(
    core: &Rc<Core<E>>,
    connection: &Rc<Connection>,
    mut socket: E::Socket,
    received: Vec<u8>,
    passed: u16,
) -> Option<Session<E>> {
    connection.hello_done();
    let refusing = |socket, text| Some(Session::refusing_commands(core, connection, socket, text));
    if core.phase.get() != Phase::Serving {
        return refusing(socket, "STOPPING the node is stopping (not applied)");
    }
    if core.connections.open() > core.connections_max() {
        let cores = core.layout.cores;
        if passed + 1 < cores {
            match hand_off(core, socket, (core.index + 1) % cores, received, passed + 1) {
                Ok(()) => return None,
                Err((back, _)) => socket = back,
            }
        }
        add(&core.counters.connections_refused, 1);
        return refusing(socket, "ERR max number of clients reached");
    }
    add(&core.counters.connections_resp, 1);
    connection.introduce(Speaks::Resp2, socket.peer(), String::new());
    Some(Session::of_commands(core, connection, socket, &received))
}

/// Gives the socket to another core; gives everything back if that core's queue is full.
fn hand_off<E: ServerEnv>(
    core: &Rc<Core<E>>,
    socket: E::Socket,
    wanted: u16,
    received: Vec<u8>,
    passed: u16,
) -> Result<(), (E::Socket, Vec<u8>)> {
    let message = Message::Connection(HandedOff { handoff: socket.hand_off(), received, passed });
    match core.env.send(usize::from(wanted), CoreMessage(message)) {
        Ok(()) => {
            add(&core.counters.connections_handed_off, 1);
            Ok(())
        }
        Err(CoreMessage(Message::Connection(back))) => Err((core.env.adopt(back.handoff), back.received)),
        Err(_) => unreachable!("a full queue gives back the message it was given"),
    }
}

#[cfg(test)]
mod tests {
    use pinion_protocol::{HEADER_BYTES, Hello};

    use super::*;

    fn opening(preface: Preface, wanted_core: Option<u16>) -> Vec<u8> {
        let mut bytes = preface.to_bytes().to_vec();
        Request::Hello(Hello { wanted_core, features: 0, client_name: "test" })
            .encode(9, 0, 0, &mut bytes)
            .unwrap();
        bytes
    }

    #[test]
    fn an_opening_is_read_from_any_number_of_pieces() {
        let bytes = opening(Preface::OURS, Some(1));
        for end in 0..bytes.len() {
            assert_eq!(read_opening(&bytes[..end]), Ok(None), "{end}");
        }
        let mut longer = bytes.clone();
        longer.push(7);
        for received in [&bytes, &longer] {
            let opening = read_opening(received).unwrap().unwrap();
            assert_eq!((opening.wanted_core, opening.bytes), (1, bytes.len()));
            assert_eq!(opening.header.request_id, 9);
        }
        let any = read_opening(&opening(Preface::OURS, None)).unwrap().unwrap();
        assert_eq!(any.wanted_core, ANY_CORE);
    }

    #[test]
    fn what_is_no_opening_is_refused_early() {
        for first in [0, 1, 0x16, 0x7F, 0x80, 0xB0, 0xB2, 0xFF] {
            assert_eq!(begun(&[first, b'P']).unwrap_err().0, ProtocolError::BadPreface, "{first}");
        }
        assert_eq!(begun(&[0xB1, b'P', b'X']).unwrap_err().0, ProtocolError::BadPreface);
        let future = opening(Preface { lowest: 900, highest: 901 }, None);
        let (error, request_id) = read_opening(&future).unwrap_err();
        assert!(matches!(error, ProtocolError::NoCommonVersion { .. }));
        assert_eq!(request_id, 9);
        assert_eq!(read_opening(&future[..PREFACE_BYTES]), Ok(None));

        let mut other = Preface::OURS.to_bytes().to_vec();
        Request::Ping(b"").encode(3, 0, 0, &mut other).unwrap();
        assert_eq!(read_opening(&other).unwrap_err().1, 3);

        let mut huge = opening(Preface::OURS, None);
        huge[PREFACE_BYTES..PREFACE_BYTES + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        let error = read_opening(&huge[..PREFACE_BYTES + HEADER_BYTES]).unwrap_err().0;
        assert!(matches!(error, ProtocolError::FrameTooLarge { .. }));
    }

    #[test]
    fn the_first_byte_tells_resp_from_frames() {
        assert_eq!(begun(b""), Ok(None));
        for bytes in
            [&b"*"[..], b"*1\r\n$4\r\nPING\r\n", b"PING\r\n", b"\r\n", b" ping", b"GET / HTTP/1.1\r\n"]
        {
            assert_eq!(begun(bytes), Ok(Some(Begun::Resp)));
        }
        let bytes = opening(Preface::OURS, Some(1));
        assert_eq!(begun(&bytes[..1]), Ok(None));
        assert!(matches!(begun(&bytes), Ok(Some(Begun::Native(_)))));
    }
}
