//! Both clients over real sockets against a small server in this process.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod server;

use std::future::Future;
use std::io::Read;
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use pinion_client::{
    Client, Condition, Durability, Error, ErrorCode, Outcome, PutOptions, ScanRange, WriteBatch, blocking,
};

use server::{Mood, Server};

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

async fn client(server: &Server) -> Client {
    Client::connect(&server.address).await.unwrap()
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("key{index:02}")).collect()
}

#[test]
fn values_are_written_read_and_deleted_on_their_cores() {
    let server = Server::start();
    run(async {
        let client = client(&server).await;
        for key in keys(20) {
            client.put(&key, key.clone()).await.unwrap();
        }
        for key in keys(20) {
            assert_eq!(client.get(&key).await.unwrap().unwrap(), key);
        }
        let deleted = client.delete("key03").await.unwrap();
        assert!(!deleted.superseded);
        assert_eq!(client.get("key03").await.unwrap(), None);
        let many = client.get_many(keys(20)).await.unwrap();
        assert_eq!(many.iter().filter(|entry| entry.is_some()).count(), 19);
        assert!(many[3].is_none());
        assert_eq!(many[4].as_ref().unwrap().value, "key04");
        assert_eq!(client.stat("key05").await.unwrap().unwrap().value_bytes, 5);
    });
    let store = server.store.lock().unwrap();
    assert!(store.seen.iter().all(|seen| *seen > 0), "both cores have their own connection");
    assert_eq!(store.misplaced, 0);
}

#[test]
fn many_calls_share_the_connections() {
    let server = Server::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let client = client(&server).await;
        let tasks: Vec<_> = (0..200)
            .map(|index| {
                let client = client.clone();
                tokio::spawn(async move {
                    let key = format!("key{index}");
                    client.put(&key, key.clone()).await?;
                    client.get(&key).await.map(|value| value.unwrap() == key)
                })
            })
            .collect();
        for task in tasks {
            assert!(task.await.unwrap().unwrap());
        }
    });
}

#[test]
fn conditions_updates_and_expiry() {
    let server = Server::start();
    run(async {
        let client = client(&server).await;
        let first = client.put_if("k", "1", Condition::Absent).await.unwrap();
        let error = client.put_if("k", "2", Condition::Absent).await.unwrap_err();
        assert!(matches!(error, Error::ConditionFailed { current } if current == Some(first.version)));
        assert_eq!(error.outcome(), Outcome::NotApplied);
        client.put_if("k", "2", Condition::Version(first.version)).await.unwrap();

        assert_eq!(client.increment("n", 5).await.unwrap(), 5);
        assert_eq!(client.increment("n", -7).await.unwrap(), -2);
        assert_eq!(client.append("log", "ab").await.unwrap(), 2);
        assert_eq!(client.set_range("log", 4, "cd").await.unwrap(), 6);
        assert_eq!(client.get("log").await.unwrap().unwrap(), &b"ab\0\0cd"[..]);

        let options = PutOptions::default().ttl(Duration::from_secs(9)).durability(Durability::Buffered);
        assert!(client.put_with("t", "v", options).await.unwrap().expiry.is_some());
        assert_eq!(client.persist("t").await.unwrap().unwrap().expiry, None);
        assert!(client.touch("t", Duration::from_secs(1)).await.unwrap().unwrap().expiry.is_some());
        assert!(client.get_entry("t").await.unwrap().unwrap().expiry.is_some());
        assert_eq!(client.touch("absent", Duration::from_secs(1)).await.unwrap(), None);
    });
}

#[test]
fn batches_and_scans_cover_all_cores() {
    let server = Server::start();
    run(async {
        let client = client(&server).await;
        let batch = keys(15).into_iter().fold(WriteBatch::new(), |batch, key| batch.put(&key, key.clone()));
        let results = client.batch(batch.delete("key07")).await.unwrap();
        assert_eq!(results.iter().len(), 16);
        results.all().unwrap();

        let mut expected = keys(15);
        expected.retain(|key| key != "key07");
        assert_eq!(collect(client.scan(ScanRange::prefix("key"))).await, expected);
        let placed = collect(client.scan(ScanRange::all())).await;
        assert_ne!(placed, expected);
        for start in [0, 5, 13] {
            let from = ScanRange::all_from(&placed[start]);
            assert_eq!(collect(client.scan(from.clone())).await, placed[start..]);
            let backwards = collect(client.scan(from.reverse())).await;
            assert!(backwards.iter().eq(placed[start..].iter().rev()), "{backwards:?}");
        }
        let mut all = placed;
        all.sort();
        assert_eq!(all, expected);
        expected.reverse();
        assert_eq!(collect(client.scan(ScanRange::range("a"..).reverse())).await, expected);
        let some = collect(client.scan(ScanRange::range("key02"..="key05").keys_only().limit(3))).await;
        assert_eq!(some, ["key02", "key03", "key04"]);

        client.put("{tag}b", "").await.unwrap();
        client.put("{tag}a", "").await.unwrap();
        assert_eq!(collect(client.scan(ScanRange::tag("tag"))).await, ["{tag}a", "{tag}b"]);
        let mut refused = client.scan(ScanRange::all().within("a"..));
        assert!(matches!(refused.next().await, Some(Err(Error::Invalid(_)))));
        assert!(refused.next().await.is_none());
        let mut refused = client.scan(ScanRange::all_from("a").within(.."b"));
        assert!(matches!(refused.next().await, Some(Err(Error::Invalid(_)))));
    });
}

async fn collect(mut scan: pinion_client::ScanStream) -> Vec<String> {
    let mut keys = Vec::new();
    while let Some(record) = scan.next().await {
        keys.push(String::from_utf8(record.unwrap().key.to_vec()).unwrap());
    }
    keys
}

#[test]
fn namespaces_are_looked_up_and_looked_up_again() {
    let server = Server::start();
    run(async {
        let client = client(&server).await;
        let other = client.with_namespace("other");
        assert!(matches!(other.get("k").await, Err(Error::NoSuchNamespace(_))));
        client.create_namespace("other", None).await.unwrap();
        other.put("k", "there").await.unwrap();
        assert_eq!(client.get("k").await.unwrap(), None);
        assert_eq!(other.get("k").await.unwrap().unwrap(), "there");
        server.moods(&[Mood::Refuse(ErrorCode::NoSuchNamespace)]);
        assert!(matches!(other.get("k").await, Err(Error::NoSuchNamespace(_))));
    });
}

#[test]
fn a_put_whose_answer_is_lost_is_sent_again_with_its_stamp() {
    let server = Server::start();
    run(async {
        let client = client(&server).await;
        server.moods(&[Mood::HangUp, Mood::Refuse(ErrorCode::Overloaded)]);
        let written = client.put("k", "v").await.unwrap();
        assert!(!written.superseded);
        assert_eq!(client.get("k").await.unwrap().unwrap(), "v");

        server.moods(&[Mood::HangUp]);
        let error = client.increment("n", 1).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown);
        assert!(error.is_retryable());
        assert_eq!(client.increment("n", 0).await.unwrap(), 1, "applied once");
    });
}

#[test]
fn the_second_of_two_writers_wins() {
    let server = Server::start();
    run(async {
        let (one, two) = (client(&server).await, client(&server).await);
        // The second writer has not seen how far the first one's stamps have come.
        for _ in 0..50 {
            one.put("k", "one").await.unwrap();
        }
        assert!(!two.put("k", "two").await.unwrap().superseded);
        assert_eq!(one.get("k").await.unwrap().unwrap(), "two");
    });
}

#[test]
fn a_dropped_call_does_not_disturb_the_others() {
    let server = Server::start();
    run(async {
        let client = client(&server).await;
        for _ in 0..50 {
            let call = client.get("k");
            let _ = tokio::time::timeout(Duration::ZERO, call).await;
        }
        client.put("k", "v").await.unwrap();
        assert_eq!(client.get("k").await.unwrap().unwrap(), "v");
    });
}

#[test]
fn no_server_is_an_error_at_once_and_a_mute_one_by_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mute = address.clone();
    let (gone, is_gone) = mpsc::channel();
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        drop(listener);
        gone.send(()).unwrap();
        while socket.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
    });
    let builder = Client::builder().connect(mute).connect_timeout(Duration::from_millis(50));
    assert!(run(builder.build()).is_err());
    // The mute one took only one connection.
    is_gone.recv().unwrap();
    let error = run(Client::connect(&address)).unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    assert!(matches!(blocking::Client::connect(&address), Err(Error::Connect { .. })));
}

#[test]
fn the_blocking_client_does_the_same() {
    let server = Server::start();
    let client = blocking::Client::connect(&server.address).unwrap();
    let batch = keys(15).into_iter().fold(WriteBatch::new(), |batch, key| batch.put(&key, key.clone()));
    client.batch(batch).unwrap().all().unwrap();
    let many = client.get_many(keys(16)).unwrap();
    assert_eq!(many[14].as_ref().unwrap().value, "key14");
    assert!(many[15].is_none());
    let scanned: Vec<_> = client
        .scan(ScanRange::prefix("key"))
        .map(|record| String::from_utf8(record.unwrap().key.to_vec()).unwrap())
        .collect();
    assert_eq!(scanned, keys(15));

    server.moods(&[Mood::HangUp, Mood::Refuse(ErrorCode::Overloaded)]);
    client.put("k", "v").unwrap();
    assert_eq!(client.get("k").unwrap().unwrap(), "v");
    server.moods(&[Mood::HangUp]);
    assert_eq!(client.increment("n", 1).unwrap_err().outcome(), Outcome::Unknown);
    assert_eq!(client.increment("n", 1).unwrap(), 2);
    assert!(matches!(client.put_if("k", "w", Condition::Absent), Err(Error::ConditionFailed { .. })));
    client.create_namespace("other", None).unwrap();
    client.with_namespace("other").put("k", "there").unwrap();
    assert_eq!(client.namespaces().unwrap().len(), 1);
    client.ping().unwrap();
}

#[test]
fn threads_share_the_connections_of_a_blocking_client() {
    let server = Server::start();
    let client = blocking::Client::connect(&server.address).unwrap();
    thread::scope(|scope| {
        for thread in 0..8 {
            let client = client.clone();
            scope.spawn(move || {
                for index in 0..100 {
                    let key = format!("{thread}:{index}");
                    client.put(&key, key.clone()).unwrap();
                    assert_eq!(client.get(&key).unwrap().unwrap(), key);
                }
            });
        }
    });
}
