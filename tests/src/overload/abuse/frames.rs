//! Frames that do not come whole: half-open ones, dribbled ones, and clients that vanish in the
//! middle.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use pinion_protocol::{Durability, KeyRequest, Put, Request, Ttl, Write as Head};
use rustix::net::sockopt::set_socket_linger;

use super::{CONNECTION_BYTES_MAX, SLOW, Scene, limits, room_for, until};
use crate::overload::line::{Line, opening};
use crate::process::Rig;
use crate::trials::Counts;

/// What a half-open frame claims to have, and what of it comes.
const CLAIMED_BYTES: u32 = 16 << 20;
const SENT_BYTES: usize = 1 << 20;

/// Connections with half-open frames: so many that together they hold four times
/// `core_gather_bytes_max` of every core.
const HALF_OPEN: usize = (4 * limits::CORES * limits::CORE_GATHER_BYTES_MAX) as usize / SENT_BYTES;

/// Bytes of the value in a dribbled frame, and how many pieces it comes in.
const DRIBBLED_BYTES: usize = 1_024;
const PIECES: usize = 64;

/// Clients that vanish.
const VANISHING: usize = 3_000;

fn put_frame(request_id: u64, key: &str, value: &[u8]) -> Vec<u8> {
    let write = Head { namespace: 0, key: key.as_bytes(), durability: Durability::Sync, stamp: None };
    let mut frame = Vec::new();
    let put = Request::Put(Put { write, ttl: Ttl::NamespaceDefault, value });
    put.encode(request_id, 0, 0, &mut frame).expect("the frame fits");
    frame
}

/// Frames of which one part comes, and then nothing more. The bytes that wait are bounded over all
/// connections; who has waited longest goes when there are too many, not who comes with the next
/// honest frame.
pub(super) fn half_open(counts: &mut Counts) {
    let mut scene = Scene::open("half-open frames", Rig::new());
    let mut half = vec![0; SENT_BYTES];
    half[..32].copy_from_slice(&put_frame(7, "half", b"")[..32]);
    half[..4].copy_from_slice(&CLAIMED_BYTES.to_le_bytes());
    let mut lines = Vec::new();
    for _ in 0..HALF_OPEN {
        let line = Line::connect(scene.server.address());
        let mut stream = line.stream().try_clone().expect("there are descriptors");
        stream.set_nonblocking(false).expect("it is a TCP socket");
        // The server may have had enough of it already.
        let sent = stream.write_all(&half).is_ok();
        counts.add("half-open frames", u64::from(sent));
        lines.push(line);
        scene.look();
    }
    scene.bystander.goes_on();
    // A buffer grows by doubling.
    scene.holds_at_most(HALF_OPEN as u64, 2 * limits::CORES * limits::CORE_GATHER_BYTES_MAX);
    let refused = scene.counted("gathers_evicted");
    assert!(refused > 0, "nothing had to go: the scene is too small");
    counts.add("half-open frames that had to go", refused);
    drop(lines);
    scene.close(counts);
}

/// A thousand frames at once, each a few bytes at a time: they are put together, and answered. More may be
/// complete at one time than cores forward to each other: what is refused is sent again.
pub(super) fn dribbled(counts: &mut Counts) {
    let room = room_for(SLOW, counts);
    let mut scene = Scene::open("slow writers", Rig::new());
    let mut lines: Vec<Line> = (0..room).map(|_| Line::connect(scene.server.address())).collect();
    let frame = |number: usize| put_frame(2, &format!("dribbled {number}"), &[number as u8; DRIBBLED_BYTES]);
    for (number, line) in lines.iter_mut().enumerate() {
        line.push_bytes(&frame(number));
    }
    let step = lines[0].unsent().div_ceil(PIECES);
    while lines.iter().any(|line| line.unsent() > 0) {
        for line in &mut lines {
            line.flush_at_most(step).expect("the connection lives");
        }
        scene.look();
    }
    for (number, line) in lines.iter_mut().enumerate() {
        until("the answer to a dribbled frame", || {
            let came = line.answers_or_refusals();
            if came.refused > 0 {
                counts.add("slow writers refused and answered later", 1);
                line.push_bytes(&frame(number));
            }
            line.flush().expect("the connection lives");
            came.answers > came.refused
        });
    }
    scene.bystander.goes_on();
    let frames = room as u64 * 2 * DRIBBLED_BYTES as u64;
    scene.holds_at_most(room as u64, room as u64 * CONNECTION_BYTES_MAX + frames);
    counts.add("slow writers answered", room as u64);
    drop(lines);
    scene.close(counts);
}

/// Clients that go in the middle of something: by reset, by closing only their sending side, or
/// both; in the middle of a frame, with requests under way, with answers unread.
pub(super) fn vanishing(counts: &mut Counts) {
    let mut scene = Scene::open("vanishing clients", Rig::new());
    let large = put_frame(2, "vanishing", &[3; 20_000]);
    let mut get = Vec::new();
    let key = KeyRequest { namespace: 0, key: b"vanishing" };
    Request::Get(key).encode(3, 0, 0, &mut get).expect("the frame fits");
    for number in 0..VANISHING {
        let mut stream = TcpStream::connect(scene.server.address()).expect("the server takes connections");
        let mut bytes = opening();
        match number % 3 {
            0 => bytes.extend_from_slice(&large[..large.len() / 2]),
            1 => bytes.extend_from_slice(&large),
            _ => (0..20).for_each(|_| bytes.extend_from_slice(&get)),
        }
        stream.write_all(&bytes).expect("the server reads");
        match number / 3 % 3 {
            0 => set_socket_linger(&stream, Some(Duration::ZERO)).expect("a TCP socket lingers or not"),
            1 => stream.shutdown(Shutdown::Write).expect("the connection lives"),
            _ => {}
        }
        if number % 100 == 0 {
            scene.look();
        }
    }
    scene.holds_at_most(VANISHING as u64, 2 * limits::CORES * limits::CORE_GATHER_BYTES_MAX);
    counts.add("clients that vanished", VANISHING as u64);
    scene.close(counts);
}
