//! Many clients that each ask for one key at a time, all at once.

use std::thread;
use std::time::Duration;

use pinion_client::{Durability, PutOptions};
use pinion_protocol::{KeyRequest, Request, Response};
use pinion_tests::overload::Line;
use pinion_tests::process::{Rig, Server};

/// Records with 4 KiB each: more than memtables and caches hold.
const KEYS: usize = 1_500;
const CLIENTS: usize = 64;
const ROUNDS: usize = 30;
const LOOK_DELAY: Duration = Duration::from_millis(1);

fn key(number: usize) -> String {
    format!("key {number}")
}

fn value(number: usize) -> Vec<u8> {
    format!("{number:08}").into_bytes().repeat(512)
}

/// They arrive together and are answered together, from memory and from tables, each with its own value.
#[test]
fn gets_that_come_alone_at_the_same_time_get_their_own_values() {
    let rig = Rig::with_shards(1);
    let server = rig.start();
    let client = server.client();
    for number in 0..KEYS {
        let buffered = PutOptions::default().durability(Durability::Buffered);
        client.put_with(key(number), value(number), buffered).expect("a put");
    }
    let mut lines: Vec<Line> = (0..CLIENTS).map(|_| Line::connect(server.address())).collect();
    for round in 0..ROUNDS {
        // A quarter of the keys does not exist.
        let number = |at: usize| (round * 977 + at * 41) % (KEYS + KEYS / 3);
        for (at, line) in lines.iter_mut().enumerate() {
            let key = key(number(at));
            let id = (round * CLIENTS + at) as u64 + 2;
            line.push(id, &Request::Get(KeyRequest { namespace: 0, key: key.as_bytes() }));
            line.flush().expect("the server reads");
        }
        for (at, line) in lines.iter_mut().enumerate() {
            let mut answered = false;
            while !answered {
                let open = line.receive(&mut [0; 8 << 10], |header, response| {
                    assert!(!answered, "one answer for each request");
                    answered = true;
                    assert_eq!(header.request_id, (round * CLIENTS + at) as u64 + 2);
                    let Response::Get(reply) = response else { panic!("a GET was answered by {response:?}") };
                    let expected = (number(at) < KEYS).then(|| value(number(at)));
                    let found = reply.value.map(|found| found.bytes.to_vec());
                    assert!(found == expected, "round {round}, client {at}: not the value of its key");
                });
                assert!(open.expect("the connection lives"), "the server closed the connection");
                if !answered {
                    thread::sleep(LOOK_DELAY);
                }
            }
        }
    }
    let counted = |name| Server::number(&client, &["counters", name]);
    for name in ["gets_in_memory", "gets_from_disk"] {
        assert!(counted(name) > 0, "{name}: all gets went the other way");
    }
    drop(lines);
    drop(client);
    server.stop();
}
