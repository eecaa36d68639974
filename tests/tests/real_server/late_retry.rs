//! A put that is repeated with its stamp after the key was deleted: within the retry window it is
//! known to be old, and after compaction has forgotten the deletion it is refused as too old. It
//! never comes back.

use std::thread;
use std::time::{Duration, Instant};

use pinion_client::blocking::Client;
use pinion_protocol::{
    Durability, ErrorCode, KeyRequest, Outcome, ProposedStamp, Put, Request, Ttl, Write, WriteOutcome,
};
use pinion_tests::process::{PATIENCE, RawAnswer, RawConnection, Rig, Server};

const KEY: &[u8] = b"late";
const ORIGIN: u32 = 0x8000_0001;
/// The window, short enough for a test to outlive it.
const RETRY_WINDOW_MS: u64 = 300;
const DEADLINE_MS: u64 = 100;
const LOOK_DELAY: Duration = Duration::from_millis(20);

/// Enough to fill memtables several times.
const FILLING_BYTES: usize = 20_000;
const FILLINGS: u32 = 150;

fn put(connection: &mut RawConnection, time: u64) -> RawAnswer {
    let stamp = Some(ProposedStamp { time, origin: ORIGIN });
    let write = Write { namespace: 0, key: KEY, durability: Durability::Sync, stamp };
    connection.call(&Request::Put(Put { write, ttl: Ttl::NamespaceDefault, value: b"from the past" }))
}

fn get(connection: &mut RawConnection) -> RawAnswer {
    connection.call(&Request::Get(KeyRequest { namespace: 0, key: KEY }))
}

#[test]
fn a_deleted_value_does_not_come_back_by_a_late_retry() {
    let rig = Rig::with_shards(1)
        .flag("partitions", "64")
        .engine("retry_window_ms_max", RETRY_WINDOW_MS)
        .engine("deadline_ms_max", DEADLINE_MS)
        .engine("sweep_interval_ms", 50);
    let server = rig.start();
    let client = server.client();
    let mut connection = RawConnection::connect(server.address());
    let time = connection.stamp;
    assert!(matches!(put(&mut connection, time), RawAnswer::Written { outcome: WriteOutcome::Applied, .. }));
    assert_eq!(get(&mut connection), RawAnswer::Value(Some(b"from the past".to_vec())));
    client.delete(KEY).expect("a delete is acknowledged");

    // At once: superseded by the deletion, or out of the window already on a slow machine.
    let early = put(&mut connection, time);
    assert!(is_superseded(&early) || is_too_old(&early), "{early:?}");
    assert_eq!(get(&mut connection), RawAnswer::Value(None));

    compact_until_forgotten(&client);
    let late = put(&mut connection, time);
    assert!(is_too_old(&late), "{late:?}");
    assert_eq!(get(&mut connection), RawAnswer::Value(None));

    // A restart knows no better.
    server.kill();
    let server = rig.start();
    let mut connection = RawConnection::connect(server.address());
    let late = put(&mut connection, time);
    assert!(is_too_old(&late), "{late:?}");
    assert_eq!(get(&mut connection), RawAnswer::Value(None));
    server.stop();
}

#[test]
fn within_the_window_compaction_keeps_the_deletion() {
    // The window outlives the test.
    let rig = Rig::with_shards(1)
        .flag("partitions", "64")
        .engine("retry_window_ms_max", 3_600_000)
        .engine("sweep_interval_ms", 50);
    let server = rig.start();
    let client = server.client();
    let mut connection = RawConnection::connect(server.address());
    let time = connection.stamp;
    put(&mut connection, time);
    client.delete(KEY).expect("a delete is acknowledged");
    let before = Server::storage(&client, "compactions");
    fill(&client, || Server::storage(&client, "compactions") > before + 2);
    assert!(is_superseded(&put(&mut connection, time)));
    assert_eq!(get(&mut connection), RawAnswer::Value(None));

    server.kill();
    let server = rig.start();
    let mut connection = RawConnection::connect(server.address());
    assert!(is_superseded(&put(&mut connection, time)));
    assert_eq!(get(&mut connection), RawAnswer::Value(None));
    server.stop();
}

fn is_superseded(answer: &RawAnswer) -> bool {
    matches!(answer, RawAnswer::Written { outcome: WriteOutcome::Superseded, .. })
}

fn is_too_old(answer: &RawAnswer) -> bool {
    *answer == RawAnswer::Error { code: ErrorCode::StampTooOld, outcome: Outcome::NotApplied }
}

/// Writes until compaction has dropped every tombstone from the tables, after one was in them.
fn compact_until_forgotten(client: &Client) {
    let dropped = Server::storage(client, "records_dropped");
    thread::sleep(Duration::from_millis(RETRY_WINDOW_MS + DEADLINE_MS));
    fill(client, || {
        Server::storage(client, "flushes") > 2
            && Server::storage(client, "table_tombstones") == 0
            && Server::storage(client, "records_dropped") > dropped
    });
}

/// Overwrites other keys until `done`.
fn fill(client: &Client, done: impl Fn() -> bool) {
    let start = Instant::now();
    for round in 0_u64.. {
        for number in 0..FILLINGS {
            client
                .put(format!("filling {number}"), vec![round as u8; FILLING_BYTES])
                .expect("a put is acknowledged");
        }
        if done() {
            return;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "compaction does not come that far: {}",
            client.server_info().expect("info")
        );
        thread::sleep(LOOK_DELAY);
    }
}
