//! Many connections: idle ones, storms of them, more than there may be, and one that asks for more
//! than it may.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use pinion_protocol::{
    Durability, ErrorCode, FRAME_BYTES_MAX_DEFAULT, Frames, KeyRequest, Put, Request, Response, Ttl,
    Write as Head,
};
use rustix::net::sockopt::set_socket_linger;

use super::{CONNECTION_BYTES_MAX, IDLE, Scene, limits, room_for, until};
use crate::overload::line::{Line, opening};
use crate::overload::meter::Held;
use crate::process::{PATIENCE, Rig, Server};
use crate::trials::Counts;

/// Connections of a storm: together, and by how many threads.
const STORM: usize = 8_000;
const STORM_THREADS: usize = 4;

/// `connections_max` of the server that has too few.
const FEW: u64 = 64;

/// Requests that are sent at once where [`limits::CONNECTION_REQUESTS_MAX`] may be in flight.
const PIPELINED: u64 = 20_000;

/// Ten thousand connections that say HELLO and nothing more, twice: the second time must not cost
/// more than the first.
pub(super) fn idle(counts: &mut Counts) {
    let room = room_for(IDLE, counts);
    let mut scene = Scene::open("idle connections", Rig::new());
    let mut after_first = None;
    for _ in 0..2 {
        let mut lines: Vec<Line> = (0..room).map(|_| Line::connect(scene.server.address())).collect();
        scene.bystander.goes_on();
        scene.holds_at_most(room as u64, room as u64 * CONNECTION_BYTES_MAX);
        let now = Held::by(scene.server.pid()).memory_bytes;
        let first = *after_first.get_or_insert(now);
        assert!(now <= first + first / 4 + (16 << 20), "{first} bytes grew to {now} by the same crowd");
        // They were not forgotten.
        lines.iter_mut().for_each(|line| line.push(2, &Request::Ping(b"still there?")));
        lines.iter_mut().for_each(|line| line.flush().expect("the connection lives"));
        for line in &mut lines {
            until("an idle connection's answer", || line.answers() == 1);
        }
        counts.add("idle connections", room as u64);
        drop(lines);
        let before = scene.before.sockets;
        until("sockets of idle connections", || Held::by(scene.server.pid()).sockets <= before + 4);
    }
    scene.close(counts);
}

/// Connections that come and go at once: without a word, in the middle of HELLO, after it; closed
/// in order, half, or by reset.
pub(super) fn storm(counts: &mut Counts) {
    let mut scene = Scene::open("connection storms", Rig::new());
    let address = scene.server.address().to_owned();
    let threads: Vec<_> = (0..STORM_THREADS)
        .map(|first| {
            let address = address.clone();
            thread::spawn(move || {
                for number in (first..STORM).step_by(STORM_THREADS) {
                    pass_by(&address, number);
                }
            })
        })
        .collect();
    while threads.iter().any(|thread| !thread.is_finished()) {
        scene.look();
        thread::sleep(Duration::from_millis(20));
    }
    for thread in threads {
        assert!(thread.join().is_ok(), "connecting failed");
    }
    // Those that never say HELLO are cut off by `hello_ms_max`; at most all of them are there.
    scene.holds_at_most(STORM as u64, STORM as u64 * CONNECTION_BYTES_MAX);
    counts.add("connections of storms", STORM as u64);
    scene.close(counts);
}

fn pass_by(address: &str, number: usize) {
    let mut stream = TcpStream::connect(address).expect("the server takes connections");
    let hello = opening();
    let said = match number % 4 {
        0 => 0,
        1 => hello.len() / 2,
        _ => hello.len(),
    };
    stream.write_all(&hello[..said]).expect("the server reads");
    if number % 4 == 3 {
        let mut answer = [0; 16];
        stream.read_exact(&mut answer).expect("the server answers HELLO");
    }
    match number / 4 % 3 {
        0 => set_socket_linger(&stream, Some(Duration::ZERO)).expect("a TCP socket lingers or not"),
        1 => stream.shutdown(Shutdown::Write).expect("the connection lives"),
        _ => {}
    }
}

/// More connections than `connections_max`: each of those that are too many is told so; those that
/// are open work on, and when some go, others may come.
pub(super) fn too_many(counts: &mut Counts) {
    let mut scene = Scene::open("too many connections", Rig::new().limit("connections_max", FEW));
    let (mut inside, mut refused) = (Vec::new(), 0);
    for _ in 0..FEW * 2 {
        match knock(scene.server.address()) {
            Ok(stream) => inside.push(stream),
            Err(code) => {
                assert_eq!(code, ErrorCode::TooManyConnections);
                refused += 1;
            }
        }
    }
    assert!(inside.len() as u64 <= FEW, "{} connections of {FEW}", inside.len());
    assert!(refused >= FEW, "{refused} were refused");
    scene.bystander.goes_on();
    scene.holds_at_most(FEW, FEW * CONNECTION_BYTES_MAX);
    counts.add("connections refused with TOO_MANY_CONNECTIONS", refused);
    drop(inside);
    until("room for a new connection", || knock(scene.server.address()).is_ok());
    scene.close(counts);
}

/// Says HELLO; the connection, or why there is none.
fn knock(address: &str) -> Result<TcpStream, ErrorCode> {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("the timeout is not zero");
    stream.write_all(&opening()).expect("the server reads");
    let (mut frames, mut chunk) = (Frames::new(FRAME_BYTES_MAX_DEFAULT), [0; 4096]);
    loop {
        let received = match stream.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            received => received.expect("the server answers HELLO"),
        };
        assert!(received > 0, "closed without an answer");
        let mut rest = &chunk[..received];
        let Some(frame) = frames.next_frame(&mut rest).expect("the server sends frames") else { continue };
        match Response::decode(&frame.header, frame.body).expect("the server sends answers") {
            Response::Hello(_) => return Ok(stream),
            Response::Error { error, .. } => return Err(error.code),
            other => panic!("HELLO was answered by {other:?}"),
        }
    }
}

/// A client that sends requests far beyond what HELLO allows in flight, and reads nothing until
/// all are sent: the rest is left unread, never more are under way than allowed, and in the end
/// each has its one answer.
pub(super) fn beyond_in_flight(counts: &mut Counts) {
    let mut scene = Scene::open("beyond in-flight", Rig::new());
    let mut line = Line::connect(scene.server.address());
    assert_eq!(u64::from(line.in_flight_max), limits::CONNECTION_REQUESTS_MAX, "HELLO tells the bound");
    let client = scene.server.client();
    for number in 0..PIPELINED {
        let key = format!("beyond {}", number % 100);
        let write = Head { namespace: 0, key: key.as_bytes(), durability: Durability::Sync, stamp: None };
        let put = Request::Put(Put { write, ttl: Ttl::NamespaceDefault, value: &[1; 200] });
        let get = Request::Get(KeyRequest { namespace: 0, key: key.as_bytes() });
        line.push(number + 2, if number % 2 == 0 { &put } else { &get });
    }
    let (mut answered, mut most) = (0, 0);
    while answered < PIPELINED {
        line.flush().expect("the connection lives");
        // Ours, the bystander's and the question itself; those for the other core count there again.
        let requests = Server::number(&client, &["requests"]);
        most = most.max(requests);
        let requests_max = 2 * (limits::CONNECTION_REQUESTS_MAX + 2) + 1;
        assert!(requests <= requests_max, "{requests} requests are under way");
        if line.unsent() == 0 || requests == 0 || answered > 0 {
            answered += line.answers_or_refusals().answers;
        } else {
            // Full: as soon as nothing more goes out, reading must begin.
            let unsent = line.unsent();
            line.flush().expect("the connection lives");
            if line.unsent() == unsent {
                answered += line.answers_or_refusals().answers;
            }
        }
    }
    assert_eq!(answered, PIPELINED, "one answer to each request");
    scene.bystander.goes_on();
    scene.holds_at_most(2, limits::CONNECTION_OUT_BYTES_MAX);
    counts.add("requests beyond in-flight", PIPELINED);
    counts.add("most requests under way", most);
    drop((line, client));
    scene.close(counts);
}
