//! Commands about all keys: SCAN, DBSIZE, KEYS, FLUSHALL.

use std::collections::BTreeSet;

use pinion_tests::resp::{Args, Reply, words};

use super::client::RespClient;
use crate::client::TestNode;
use crate::{SEEDS, in_worlds};

fn text(reply: &Reply) -> String {
    match reply {
        Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => panic!("{other:?}"),
    }
}

/// A page: the next cursor, and the keys.
async fn page(client: &mut RespClient, cursor: &str, options: &[&str]) -> (String, Vec<String>) {
    let reply = client.call(&[&["SCAN", cursor][..], options].concat()).await;
    let [next, keys] = reply.members() else { panic!("{reply:?}") };
    (text(next), keys.members().iter().map(text).collect())
}

async fn set_all(client: &mut RespClient, names: impl Iterator<Item = String>) {
    let commands: Vec<Args> = names.map(|name| words(["SET", &name, "v"])).collect();
    for commands in commands.chunks(200) {
        client.send(commands).await;
        assert!(client.receive_all(commands.len()).await.iter().all(|reply| *reply == Reply::ok()));
    }
}

#[test]
fn a_scan_finds_every_key_that_lives_through_it_once() {
    in_worlds(async |node| {
        let mut client = RespClient::connect(node).await;
        set_all(&mut client, (0..500).map(|at| format!("stays:{at}"))).await;
        set_all(&mut client, (0..200).map(|at| format!("goes:{at}"))).await;
        let (mut cursor, mut found, mut pages) = ("0".to_owned(), BTreeSet::new(), 0);
        loop {
            // Another connection, perhaps of another core, goes on.
            let mut other = RespClient::connect(node).await;
            let (next, keys) = page(&mut other, &cursor, &["COUNT", "37"]).await;
            assert!(keys.len() <= 37);
            if pages % 3 == 0 {
                // A reply that was lost is asked for again.
                assert_eq!(page(&mut other, &cursor, &["COUNT", "37"]).await.1, keys);
            }
            for key in keys {
                assert!(found.insert(key.clone()), "{key} twice");
            }
            let gone = format!("goes:{}", pages * 7 % 200);
            client.send(&[words(["DEL", &gone]), words(["SET", &format!("new:{pages}"), "v"])]).await;
            client.receive_all(2).await;
            pages += 1;
            cursor = next;
            if cursor == "0" {
                break;
            }
        }
        assert!(pages >= 12, "{pages} pages");
        assert_eq!(found.iter().filter(|key| key.starts_with("stays:")).count(), 500);
    });
}

#[test]
fn a_scan_is_narrowed_by_its_options() {
    in_worlds(async |node| {
        let mut client = RespClient::connect(node).await;
        set_all(&mut client, (0..120).map(|at| format!("key:{at}"))).await;
        for (options, expected) in [
            (&["MATCH", "key:1?"][..], 10),
            (&["match", "*", "TYPE", "string", "COUNT", "1000"], 120),
            (&["TYPE", "list"], 0),
            (&["MATCH", "key:[^0-9]*"], 0),
        ] {
            let (mut cursor, mut keys) = ("0".to_owned(), Vec::new());
            loop {
                let (next, more) = page(&mut client, &cursor, options).await;
                keys.extend(more);
                cursor = next;
                if cursor == "0" {
                    break;
                }
            }
            assert_eq!(keys.len(), expected, "{options:?}");
        }
        for (args, error) in [
            (&["SCAN", "x"][..], "ERR invalid cursor"),
            (&["SCAN", "0", "COUNT", "0"], "ERR syntax error"),
            (&["SCAN", "0", "COUNT", "x"], "ERR value is not an integer or out of range"),
            (&["SCAN", "0", "COUNT"], "ERR syntax error"),
            (&["SCAN", "0", "WHAT", "x"], "ERR syntax error"),
        ] {
            assert_eq!(client.call(args).await.error(), error, "{args:?}");
        }
    });
}

#[test]
fn a_cursor_that_is_not_known_is_an_error() {
    for seed in 0..SEEDS {
        let node = TestNode::start(seed, |config| config.limits.resp_cursors_max = 2);
        let cursor = node.world.run_until(async {
            let mut client = RespClient::connect(&node).await;
            set_all(&mut client, (0..100).map(|at| format!("key:{at}"))).await;
            let mut cursors = Vec::new();
            for _ in 0..3 {
                cursors.push(page(&mut client, "0", &["COUNT", "5"]).await.0);
            }
            let unknown = client.call(&["SCAN", &cursors[0]]).await;
            assert!(unknown.error().starts_with("ERR unknown cursor"), "{unknown:?}");
            page(&mut client, &cursors[2], &[]).await;
            for never in ["1023", "1024", "99999999999", "9007199254740991", "18446744073709551615"] {
                let unknown = client.call(&["SCAN", never]).await;
                assert!(unknown.error().starts_with("ERR unknown cursor"), "{unknown:?}");
            }
            node.served.shut_down();
            node.world.ended(node.served.node).await;
            cursors.pop().unwrap()
        });
        node.restart(2);
        node.world.run_until(async {
            let mut client = RespClient::connect(&node).await;
            let unknown = client.call(&["SCAN", &cursor]).await;
            assert!(unknown.error().starts_with("ERR unknown cursor"), "{unknown:?}");
        });
    }
}

#[test]
fn all_keys_are_counted_and_listed_and_removed_if_that_is_allowed() {
    for seed in 0..SEEDS {
        let node = TestNode::start(seed, |config| config.resp.sweeping = true);
        node.world.run_until(async {
            let mut client = RespClient::connect(&node).await;
            set_all(&mut client, (0..700).map(|at| format!("key:{at}"))).await;
            // Each sees what stands before it in the pipeline, and nothing of what follows.
            client
                .send(&[
                    words(["SET", "one more", "v"]),
                    words(["DBSIZE"]),
                    words(["SET", "yet another", "v"]),
                    words(["KEYS", "key:1?"]),
                    words(["KEYS", "*another"]),
                    words(["DEL", "key:10"]),
                    words(["KEYS", "key:1?"]),
                    words(["FLUSHALL"]),
                    words(["SET", "after", "v"]),
                    words(["DBSIZE"]),
                    words(["FLUSHALL", "ASYNC"]),
                    words(["DBSIZE"]),
                    words(["FLUSHALL", "NOW"]),
                ])
                .await;
            let replies = client.receive_all(13).await;
            assert_eq!(replies[1], Reply::Integer(701));
            assert_eq!(replies[3].members().len(), 10);
            assert_eq!(replies[4], Reply::Array(vec![Reply::bulk("yet another")]));
            assert_eq!(replies[6].members().len(), 9);
            assert_eq!(
                replies[7..12],
                [Reply::ok(), Reply::ok(), Reply::Integer(1), Reply::ok(), Reply::Integer(0)]
            );
            assert_eq!(replies[12].error(), "ERR syntax error");
        });
    }
    in_worlds(async |node| {
        let mut client = RespClient::connect(node).await;
        assert_eq!(client.call(&["SET", "k", "v"]).await, Reply::ok());
        for args in [&["KEYS", "*"][..], &["FLUSHALL"], &["FLUSHDB"]] {
            let refused = client.call(args).await;
            assert!(refused.error().contains("--resp-sweeping"), "{refused:?}");
        }
        assert_eq!(client.call(&["DBSIZE"]).await, Reply::Integer(1));
    });
}
