//! RESP in the world: pipelines of any mix on a node of two cores, and all that may befall them.

mod client;
mod memory;
mod order;
mod parts;
mod scans;

use std::time::Duration;

use pinion_engine::Durability;
use pinion_tests::resp::{Reply, words};

pub(crate) use self::client::RespClient;
use crate::client::{Client, TestNode};
use crate::{SEEDS, counter, in_worlds, info};

#[test]
fn a_client_introduces_itself() {
    in_worlds(async |node| {
        let mut client = RespClient::connect(node).await;
        assert_eq!(client.call(&["ping"]).await, Reply::Simple(b"PONG".to_vec()));
        let Reply::Array(two) = client.call(&["HELLO", "2", "SETNAME", "me"]).await else { panic!() };
        assert_eq!(two.len(), 14);
        client.send(&[words(["HELLO", "3", "AUTH", "default", "any"])]).await;
        client.resp3 = true;
        let Reply::Map(three) = client.receive().await else { panic!() };
        assert!(three.contains(&(Reply::bulk("proto"), Reply::Integer(3))));
        assert_eq!(client.call(&["CLIENT", "GETNAME"]).await, Reply::bulk("me"));
        assert_eq!(client.call(&["GET", "nothing"]).await, Reply::Null);
        for (args, error) in [
            (&["HELLO", "4"][..], "NOPROTO unsupported protocol version"),
            (&["HELLO", "x"], "ERR Protocol version is not an integer or out of range"),
            (
                &["HELLO", "3", "AUTH", "me", "pw"],
                "WRONGPASS invalid username-password pair or user is disabled.",
            ),
            (&["HELLO", "3", "SETNAME"], "ERR Syntax error in HELLO option 'SETNAME'"),
            (&["SELECT", "1"], "ERR DB index is out of range"),
            (&["CONFIG", "SET", "a", "b"], "ERR unknown subcommand 'SET'. Try CONFIG HELP."),
            (&["LPUSH", "k", "v"], "ERR unknown command 'LPUSH', with args beginning with: 'k' 'v' "),
        ] {
            assert_eq!(client.call(args).await.error(), error);
        }
        let Reply::Map(found) = client.call(&["CONFIG", "GET", "save", "append*"]).await else { panic!() };
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(client.call(&["COMMAND", "INFO", "get", "nosuch"]).await.members()[1], Reply::Null);
        let count = client.call(&["COMMAND", "COUNT"]).await;
        let all = client.call(&["COMMAND"]).await;
        assert_eq!(count, Reply::Integer(all.members().len() as i64));
        let Reply::Map(docs) = client.call(&["COMMAND", "DOCS"]).await else { panic!() };
        assert_eq!(docs.len(), all.members().len());
        let Reply::Bulk(text) = client.call(&["INFO"]).await else { panic!() };
        let text = String::from_utf8(text).unwrap();
        for field in ["# Server\r\nredis_version:7", "\r\nconnected_clients:1\r\n", "\r\nrole:master\r\n"] {
            assert!(text.contains(field), "{text}");
        }
        let Reply::Bulk(text) = client.call(&["INFO", "Clients", "nosuch"]).await else { panic!() };
        assert!(text.starts_with(b"# Clients\r\n"));
        client.send(&[words(["RESET"]), words(["GET", "nothing"]), words(["QUIT"]), words(["PING"])]).await;
        client.resp3 = false;
        assert_eq!(
            client.receive_all(3).await,
            [Reply::Simple(b"RESET".to_vec()), Reply::Null, Reply::ok(),]
        );
        assert_eq!(client.try_receive().await, None, "nothing is answered after QUIT");
    });
}

#[test]
fn frames_and_resp_see_the_same_records() {
    in_worlds(async |node| {
        let mut native = node.connect(0).await;
        let mut client = RespClient::connect(node).await;
        for core in 0..2 {
            let key = native.key_of(core);
            native.put(&key, b"by a frame").await;
            let text = std::str::from_utf8(&key).unwrap();
            assert_eq!(client.call(&["GET", text]).await, Reply::bulk("by a frame"));
            assert_eq!(client.call(&["SET", text, "by a command", "PX", "100000"]).await, Reply::ok());
            assert_eq!(native.get(&key).await.unwrap(), b"by a command");
            node.world.sleep(Duration::from_millis(100_001)).await;
            assert_eq!(native.get(&key).await, None);
            assert_eq!(client.call(&["TTL", text]).await, Reply::Integer(-2));
        }
    });
}

#[test]
fn values_expire_when_they_were_told_to() {
    in_worlds(async |node| {
        let mut client = RespClient::connect(node).await;
        for key in ["a", "b", "c", "d"] {
            assert_eq!(client.call(&["SET", key, "v", "EX", "10"]).await, Reply::ok());
            let Reply::Integer(left) = client.call(&["PTTL", key]).await else { panic!() };
            assert!((9_000..=10_000).contains(&left), "{left}");
            assert_eq!(client.call(&["TTL", key]).await, Reply::Integer(10));
        }
        assert_eq!(client.call(&["EXPIRE", "a", "5", "GT"]).await, Reply::Integer(0));
        assert_eq!(client.call(&["EXPIRE", "a", "5", "LT"]).await, Reply::Integer(1));
        assert_eq!(client.call(&["PERSIST", "b"]).await, Reply::Integer(1));
        assert_eq!(client.call(&["PERSIST", "b"]).await, Reply::Integer(0));
        assert_eq!(client.call(&["SET", "c", "w", "KEEPTTL", "GET"]).await, Reply::bulk("v"));
        assert_eq!(client.call(&["EXPIRE", "d", "0"]).await, Reply::Integer(1));
        assert_eq!(client.call(&["EXPIRE", "d", "0"]).await, Reply::Integer(0));
        node.world.sleep(Duration::from_secs(7)).await;
        assert_eq!(client.call(&["EXISTS", "a", "b", "c", "d"]).await, Reply::Integer(2));
        node.world.sleep(Duration::from_secs(7)).await;
        assert_eq!(client.call(&["EXISTS", "a", "b", "c", "d"]).await, Reply::Integer(1));
        assert_eq!(client.call(&["TTL", "b"]).await, Reply::Integer(-1));
        assert_eq!(client.call(&["PEXPIREAT", "b", "4000000000123"]).await, Reply::Integer(1));
        assert_eq!(client.call(&["PEXPIRETIME", "b"]).await, Reply::Integer(4_000_000_000_123));
        assert_eq!(client.call(&["EXPIRETIME", "b"]).await, Reply::Integer(4_000_000_000));
    });
}

#[test]
fn what_is_no_command_ends_the_connection_after_what_came_before() {
    in_worlds(async |node| {
        for (bytes, error) in [
            (&b"*1\r\n:1\r\n"[..], "ERR Protocol error: expected '$', got ':'"),
            (b"*x\r\n", "ERR Protocol error: invalid multibulk length"),
            (b"*1\r\n$600000\r\n", "ERR Protocol error: invalid bulk length"),
            (b"SET \"a\r\n", "ERR Protocol error: unbalanced quotes in request"),
        ] {
            let mut client = RespClient::connect(node).await;
            client.send(&[words(["SET", "before", "v"]), words(["GET", "before"])]).await;
            // It may close before it has read all of this.
            drop(client.try_send_bytes(&[bytes, b"SET after v\r\n"].concat()).await);
            let replies = client.receive_all(3).await;
            assert_eq!(replies[..2], [Reply::ok(), Reply::bulk("v")]);
            assert_eq!(replies[2].error(), error);
            assert_eq!(client.try_receive().await, None);
        }
        let mut client = RespClient::connect(node).await;
        assert_eq!(client.call(&["GET", "after"]).await, Reply::Null);
        let long = "x".repeat(70_000);
        let refused = client.call(&["SET", "k", &long]).await;
        assert!(refused.error().starts_with("ERR string exceeds maximum allowed size"), "{refused:?}");
        let refused = client.call(&["GET", ""]).await;
        assert!(refused.error().starts_with("ERR key of 0 bytes"), "{refused:?}");
        assert_eq!(client.call(&["PING"]).await, Reply::Simple(b"PONG".to_vec()), "the connection lives");
    });
}

#[test]
fn browsers_are_shown_the_door() {
    in_worlds(async |node| {
        for request in [&b"POST / HTTP/1.1\r\n"[..], b"GET / HTTP/1.1\r\nHost: here\r\n\r\nSET k v\r\n"] {
            let mut client = RespClient::connect(node).await;
            // It may close before it has read all of this.
            drop(client.try_send_bytes(request).await);
            while client.try_receive().await.is_some() {}
        }
        let mut client = RespClient::connect(node).await;
        assert_eq!(client.call(&["GET", "k"]).await, Reply::Null);
    });
}

#[test]
fn a_listener_has_a_namespace_and_a_durability() {
    for seed in 0..SEEDS {
        let node = TestNode::start(seed, |config| {
            config.resp.namespace = "redis".to_owned();
            config.resp.durability = Durability::Buffered;
        });
        node.world.run_until(async {
            let mut client = RespClient::connect(&node).await;
            let refused = client.call(&["SET", "k", "v"]).await;
            assert!(refused.error().contains("`redis` does not exist"), "{refused:?}");
            let mut native = node.connect(0).await;
            let create = pinion_protocol::NamespaceOptions { name: "redis", default_ttl_ms: 50_000 };
            native.call(&pinion_protocol::Request::NamespaceCreate(create)).await.response();
            assert_eq!(client.call(&["SET", "k", "v"]).await, Reply::ok());
            assert_eq!(client.call(&["GET", "k"]).await, Reply::bulk("v"));
            assert_eq!(client.call(&["TTL", "k"]).await, Reply::Integer(50), "the namespace's default");
            assert_eq!(native.get(b"k").await, None, "another namespace");
            assert_eq!(client.call(&["INCR", "n"]).await, Reply::Integer(1));
            assert_eq!(client.call(&["DBSIZE"]).await, Reply::Integer(2));
            native.call(&pinion_protocol::Request::NamespaceDrop("redis")).await.response();
            assert!(client.call(&["GET", "k"]).await.error().contains("does not exist"));
        });
    }
}

#[test]
fn connections_beyond_the_limit_are_told_so_and_full_cores_pass_them_on() {
    for seed in 0..SEEDS {
        let node = TestNode::start(seed, |config| config.limits.connections_max = 4);
        node.world.run_until(async {
            let mut inside = Vec::new();
            for _ in 0..4 {
                let mut client = RespClient::connect(&node).await;
                assert_eq!(client.call(&["SET", "k", "v"]).await, Reply::ok());
                inside.push(client);
            }
            let mut client = RespClient::connect(&node).await;
            // It is answered and closed as soon as the first bytes tell that it speaks RESP.
            drop(client.try_send_bytes(b"*1\r\n$4\r\nPING\r\n").await);
            assert_eq!(client.receive().await.error(), "ERR max number of clients reached");
            assert_eq!(client.try_receive().await, None);
            for client in &mut inside {
                assert_eq!(client.call(&["GET", "k"]).await, Reply::bulk("v"));
            }
        });
    }
}

#[test]
fn commands_are_counted_and_frames_are_not_touched_by_it() {
    in_worlds(async |node| {
        let mut native: Client = node.connect(0).await;
        let mut client = RespClient::connect(node).await;
        let before = info(&mut native).await;
        for _ in 0..10 {
            client.call(&["SET", "k", "v"]).await;
            client.call(&["GET", "k"]).await;
        }
        let after = info(&mut native).await;
        let more = |name: &str| counter(&after, name) - counter(&before, name);
        assert_eq!((more("commands"), more("frames"), more("gets_in_memory")), (20, 1, 10));
    });
}
