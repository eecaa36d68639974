//! Clients that ask for much and read little or nothing.

use std::net::TcpStream;

use pinion_client::blocking::Client;
use pinion_protocol::{KeyRequest, Request};
use rustix::net::sockopt::set_socket_recv_buffer_size;

use super::{CONNECTION_BYTES_MAX, SLOW, Scene, limits, room_for};
use crate::overload::line::Line;
use crate::process::Rig;
use crate::trials::Counts;

/// Receive buffer of a client that reads little: the kernel keeps little for it.
const RECEIVE_BYTES: usize = 8 << 10;

/// Values that are asked for by slow readers, and how many of them each asks for.
const SLOW_VALUE_BYTES: usize = 16 << 10;
const SLOW_GETS: u64 = 16;

/// What a slow reader reads in one go.
const SIP_BYTES: usize = 2 << 10;

/// Clients that never read, what their values have, and how many each asks for.
const NEVER: usize = 400;
const NEVER_VALUE_BYTES: usize = 200 << 10;
const NEVER_GETS: u64 = 1_000;

/// Keys from disk: more than fit any cache.
const COLD_KEYS: u64 = 300;

/// What received requests may take while a connection is left unread, in bytes: the socket's queue
/// of 32 chunks of 16 KiB (`engine/runtime`), and some more that came before it was noticed.
const UNREAD_BYTES_MAX: u64 = 656 << 10;

/// How long the runtime lets a send go on whose connection was closed, in milliseconds.
const LINGER_MS: u64 = 5_000;

/// What may wait to be sent, and be on its way there, over all connections: for each core its bound
/// and one answer that passes it, in buffers that grow by doubling; as much again for each time that
/// it can be filled and closed while sends of closed connections linger; and what its reads and its
/// forwarded requests bring at once.
fn out_bytes_max() -> u64 {
    let fills = 1 + LINGER_MS.div_ceil(limits::SEND_STALL_MS_MAX);
    let waiting = fills * 2 * (limits::CORE_OUT_BYTES_MAX + limits::VALUE_BYTES_MAX);
    let coming = limits::CORE_READS_MAX * 2 * limits::VALUE_BYTES_MAX
        + limits::CORE_FORWARDS_MAX * NEVER_VALUE_BYTES as u64;
    limits::CORES * (waiting + coming)
}

fn line(address: &str) -> Line {
    let stream = TcpStream::connect(address).expect("the server takes connections");
    set_socket_recv_buffer_size(&stream, RECEIVE_BYTES).expect("it is a TCP socket");
    Line::over(stream)
}

/// A thousand clients that ask for sixteen values each and sip them: all come in the end.
pub(super) fn slow(counts: &mut Counts) {
    let room = room_for(SLOW, counts);
    let mut scene = Scene::open("slow readers", Rig::new());
    let client = scene.server.client();
    client.put("slow", vec![5; SLOW_VALUE_BYTES]).expect("a put is acknowledged");
    let mut lines: Vec<Line> = (0..room).map(|_| line(scene.server.address())).collect();
    for line in &mut lines {
        let get = Request::Get(KeyRequest { namespace: 0, key: b"slow" });
        (0..SLOW_GETS).for_each(|number| line.push(number + 2, &get));
        line.flush().expect("the connection lives");
    }
    let (mut sip, mut answered, mut refused) = (vec![0; SIP_BYTES], vec![0; room], 0);
    while answered.iter().any(|answers| *answers < SLOW_GETS) {
        for (line, answers) in lines.iter_mut().zip(&mut answered) {
            let came = line.sip(&mut sip);
            *answers += came.answers;
            refused += came.refused;
        }
        scene.look();
    }
    scene.bystander.goes_on();
    scene.holds_at_most(room as u64 + 2, room as u64 * CONNECTION_BYTES_MAX + out_bytes_max());
    assert_eq!(answered.iter().sum::<u64>(), SLOW_GETS * room as u64);
    counts.add("slow readers answered", room as u64);
    counts.add("slow readers' gets refused as overloaded", refused);
    drop((lines, client));
    scene.close(counts);
}

/// Clients that ask for two hundred megabytes each, and never read.
pub(super) fn never(counts: &mut Counts) {
    let mut scene = Scene::open("clients that never read", Rig::new());
    let client = scene.server.client();
    client.put("never", vec![6; NEVER_VALUE_BYTES]).expect("a put is acknowledged");
    abandon(&mut scene, &client, counts, |_| "never".to_owned());
    scene.close(counts);
}

/// As [`never`], of values that must be read from tables: their answers are many when they come.
pub(super) fn never_from_disk(counts: &mut Counts) {
    // Few tables: descriptors are counted, and a table is one.
    let rig = Rig::new().engine("table_bytes", "\"16MiB\"").engine("level_base_bytes", "\"64MiB\"");
    let mut scene = Scene::open("clients that never read, from disk", rig);
    let client = scene.server.client();
    for number in 0..COLD_KEYS {
        client.put(format!("cold {number}"), vec![number as u8; NEVER_VALUE_BYTES]).expect("acknowledged");
    }
    abandon(&mut scene, &client, counts, |number| format!("cold {}", number % COLD_KEYS));
    let read = scene.counted("gets_from_disk");
    assert!(read > 0, "every get was answered from memory");
    counts.add("gets from disk that nobody read", read);
    scene.close(counts);
}

fn abandon(scene: &mut Scene, client: &Client, counts: &mut Counts, key: impl Fn(u64) -> String) {
    let mut lines: Vec<Line> = (0..NEVER).map(|_| line(scene.server.address())).collect();
    let mut asked = 0;
    for line in &mut lines {
        for number in 0..NEVER_GETS {
            let key = key(asked + number);
            line.push(number + 2, &Request::Get(KeyRequest { namespace: 0, key: key.as_bytes() }));
        }
        asked += NEVER_GETS;
        // The server may have had enough of it already; then the rest stays unsent.
        drop(line.flush());
        scene.look();
    }
    scene.bystander.goes_on();
    for _ in 0..50 {
        lines.iter_mut().for_each(|line| drop(line.flush()));
        client.get("nothing").expect("others are served");
        scene.look();
    }
    scene.bystander.goes_on();
    let unread = NEVER as u64 * (CONNECTION_BYTES_MAX + UNREAD_BYTES_MAX);
    scene.holds_at_most(NEVER as u64 + 4, unread + out_bytes_max());
    counts.add("clients that never read", NEVER as u64);
}
