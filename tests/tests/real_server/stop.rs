//! SIGTERM: the first stops in good order, a second at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use pinion_client::Error;
use pinion_protocol::{Durability, KeyRequest, Put, Request, Ttl, Write};
use pinion_tests::process::{RawConnection, Rig, Server};

const WRITERS: u64 = 4;
/// Writes that are acknowledged before the server is told to stop.
const ACKNOWLEDGED: u64 = 400;
const LOOK_DELAY: Duration = Duration::from_millis(1);

/// Bytes of the answers that are left unread, far more than sockets hold.
const UNREAD_VALUE_BYTES: usize = 200 << 10;
const UNREAD_ANSWERS: usize = 500;

#[test]
fn sigterm_under_load_loses_nothing_and_leaves_nothing_to_replay() {
    let rig = Rig::new();
    let server = rig.start();
    let acknowledged = AtomicU64::new(0);
    let written = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (client, acknowledged) = (server.hasty_client(), &acknowledged);
                scope.spawn(move || {
                    for number in 0_u64.. {
                        match client.put(format!("{writer}/{number}"), number.to_string()) {
                            Ok(_) => acknowledged.fetch_add(1, Ordering::Relaxed),
                            Err(Error::Server { code, .. }) if code.name() == "OVERLOADED" => continue,
                            Err(_) => return number,
                        };
                    }
                    unreachable!("the loop ends with the server")
                })
            })
            .collect();
        while acknowledged.load(Ordering::Relaxed) < ACKNOWLEDGED {
            thread::sleep(LOOK_DELAY);
        }
        server.stop();
        writers.into_iter().map(|writer| writer.join().expect("no writer panics")).collect::<Vec<_>>()
    });

    let server = rig.start();
    let client = server.client();
    assert_eq!(Server::storage(&client, "records_replayed"), 0, "a clean stop leaves nothing to replay");
    for (writer, first_failed) in written.into_iter().enumerate() {
        for number in 0..first_failed {
            let found = client.get(format!("{writer}/{number}")).expect("a get");
            assert_eq!(found.as_deref(), Some(number.to_string().as_bytes()), "{writer}/{number}");
        }
    }
    server.stop();
}

#[test]
fn a_second_sigterm_ends_it_at_once() {
    // Would wait an hour for answers that nobody reads.
    let rig = Rig::new().limit("drain_ms_max", 3_600_000).limit("connection_out_bytes_max", "\"4MiB\"");
    let server = rig.start();
    let mut connection = RawConnection::connect(server.address());
    let write = Write { namespace: 0, key: b"large", durability: Durability::Sync, stamp: None };
    let value = vec![7; UNREAD_VALUE_BYTES];
    connection.call(&Request::Put(Put { write, ttl: Ttl::NamespaceDefault, value: &value }));
    for _ in 0..UNREAD_ANSWERS {
        let get = Request::Get(KeyRequest { namespace: 0, key: b"large" });
        connection.send(&get).expect("requests are small");
    }
    // Its answer comes from a core that has begun to answer the gets, or will after it.
    assert_eq!(server.client().get("nothing").expect("a get"), None);
    server.terminate();
    server.wait_for_log("stopping");
    server.terminate();
    let (status, log) = server.wait();
    assert!(!status.success(), "{status}: {log}");

    let server = rig.start();
    assert_eq!(
        server.client().get("large").expect("a get").map(|value| value.len()),
        Some(UNREAD_VALUE_BYTES)
    );
    server.stop();
}

#[test]
fn sigterm_while_clients_are_idle_is_quick_and_clean() {
    let rig = Rig::new();
    let server = rig.start();
    let clients: Vec<_> = (0..5).map(|_| server.client()).collect();
    clients[0].put("key", "value").expect("a put is acknowledged");
    server.stop();
    // The same client finds the next server only at its address; a new one asks it.
    let server = rig.start();
    assert_eq!(server.client().get("key").expect("a get").as_deref(), Some(&b"value"[..]));
    server.stop();
}
