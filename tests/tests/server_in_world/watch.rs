//! Seeing into a node: slow operations with their traces, hot keys, clients, and what is counted by
//! listener and by namespace.

use std::time::Duration;

use pinion_protocol::{
    ErrorCode, KeyRequest, Keys, ListBuf, MultiGet, NamespaceOptions, Put, Request, Response, Section,
    TraceParent, Ttl, Write,
};
use pinion_tests::resp::Reply;
use serde_json::Value;

use super::client::{Client, TestNode, get, put, write};
use super::resp::RespClient;
use super::{SEEDS, in_worlds, key};

const TRACE: TraceParent = TraceParent { trace_id: [0xAB; 16], parent_id: [0xCD; 8], flags: 1 };

/// A section of server info.
async fn section(client: &mut Client, section: Section) -> Value {
    let answer = client.call(&Request::ServerInfo { section: section.to_u8() }).await;
    let Response::ServerInfo(text) = answer.response() else { panic!("{:?}", answer.response()) };
    serde_json::from_str(text).expect("server info is JSON")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

/// Runs a test in worlds in which every request is slow that takes any time.
fn in_slow_worlds(test: impl AsyncFn(&TestNode)) {
    for seed in 0..SEEDS {
        let node = TestNode::start(seed, |config| config.slow_us = 1);
        node.world.run_until(test(&node));
    }
}

/// Sends a request as part of the trace; answers its id.
async fn send_traced(client: &mut Client, request: &Request<'_>, id: u64) {
    let mut out = Vec::new();
    request.encode_traced((id, 0, 0), &TRACE, &mut out).expect("it fits");
    client.stream.write_all(&out).await.expect("the node listens");
}

#[test]
fn a_slow_write_is_remembered_with_its_key_client_and_trace() {
    in_slow_worlds(async |node| {
        let mut client = node.connect(0).await;
        let name = [&client.key_of(0)[..], b"\\\xff"].concat();
        // Its place changes with the two bytes: whichever core owns it.
        let owner = client.owner(&name);
        send_traced(&mut client, &put(&name, b"v"), 1_000).await;
        let Response::Put(_) = client.receive().await.response() else { panic!() };
        let slow = section(&mut client, Section::SlowOperations).await;
        assert_eq!(slow["threshold_us"], 1);
        let entry = &slow["slow"][0];
        assert_eq!(entry["operation"], "put", "{slow}");
        assert_eq!(entry["trace"], TRACE.to_string());
        let shown = format!("{}\\x5c\\xff", String::from_utf8_lossy(&name[..name.len() - 2]));
        assert_eq!((&entry["key"], &entry["key_bytes"]), (&Value::from(shown), &Value::from(name.len())));
        assert_eq!((&entry["namespace"], &entry["protocol"]), (&"default".into(), &"native".into()));
        assert_eq!((&entry["client"], &entry["outcome"]), (&"test".into(), &"ok".into()));
        assert_eq!((&entry["core"], &entry["shard"]), (&0.into(), &owner.into()));
        let stage = |name: &str| entry["stages_us"][name].as_u64().unwrap();
        let sum = stage("queued") + stage("forwarded") + stage("storage");
        assert_eq!(entry["total_us"].as_u64(), Some(sum));
        assert!(stage("storage") > 0, "{entry}");
        let wall_ms = entry["time_ms"].as_u64().unwrap();
        assert!(wall_ms > 1_000_000_000_000, "{wall_ms}");
        let kept = list(&slow["slow"]).len() as u64;
        assert_eq!(slow["kept"].as_u64(), Some(kept));
        assert!(slow["seen"].as_u64() >= Some(kept));
        // The trace was that of the request, not of its connection.
        client.put(&name, b"again").await;
        let slow = section(&mut client, Section::SlowOperations).await;
        assert_eq!((&slow["slow"][0]["operation"], &slow["slow"][0]["trace"]), (&"put".into(), &Value::Null));
    });
}

#[test]
fn a_forwarded_operation_is_one_of_its_connections_core() {
    in_slow_worlds(async |node| {
        let mut client = node.connect(0).await;
        let name = client.key_of(1);
        client.put(&name, b"v").await;
        let slow = section(&mut client, Section::SlowOperations).await;
        let entries: Vec<&Value> =
            list(&slow["slow"]).iter().filter(|entry| entry["operation"] == "put").collect();
        assert_eq!(entries.len(), 1, "once, not on both cores");
        assert_eq!((&entries[0]["core"], &entries[0]["client"]), (&0.into(), &"test".into()));
        let mut other = RespClient::connect_to(node, 0).await;
        assert_eq!(other.call(&["CLIENT", "SETNAME", "me"]).await, Reply::ok());
        let text = String::from_utf8(name.clone()).unwrap();
        assert_eq!(
            other.call(&["INCRBY", &text, "x"]).await.error(),
            "ERR value is not an integer or out of range"
        );
        for _ in 0..20 {
            assert_eq!(other.call(&["SET", &text, "7"]).await, Reply::ok());
        }
        let slow = section(&mut client, Section::SlowOperations).await;
        let sets: Vec<_> = list(&slow["slow"]).iter().filter(|entry| entry["operation"] == "set").collect();
        assert!(sets.iter().all(|set| set["client"] == "me" && set["protocol"] == "resp"), "{slow}");
        // The owner tells the key of what was slow before it left there.
        let mut with_key = 0;
        for set in sets.iter().filter(|set| set["stages_us"]["storage"].as_u64() > Some(0)) {
            assert_eq!((&set["key"], &set["shard"]), (&text.clone().into(), &1.into()), "{set}");
            with_key += 1;
        }
        assert!(with_key > 0, "{slow}");
        // The same in the words of Redis; what asked for it is there, too.
        let Reply::Array(entries) = other.call(&["SLOWLOG", "GET", "-1"]).await else { panic!() };
        let args = Reply::Array(vec![Reply::bulk("set"), Reply::bulk(&text)]);
        let fields: Vec<_> = entries.iter().map(Reply::members).filter(|fields| fields[3] == args).collect();
        assert!(fields.len() >= with_key && fields[0][5] == Reply::bulk("me"), "{fields:?}");
        let Reply::Array(newest) = other.call(&["SLOWLOG", "GET", "1"]).await else { panic!() };
        assert_eq!(newest.len(), 1);
        let Reply::Integer(count) = other.call(&["SLOWLOG", "LEN"]).await else { panic!() };
        assert!(count >= 2);
        assert_eq!(other.call(&["SLOWLOG", "RESET"]).await, Reply::ok());
        let slow = section(&mut client, Section::SlowOperations).await;
        assert!(list(&slow["slow"]).iter().all(|entry| entry["operation"] != "set"), "{slow}");
        assert!(slow["seen"].as_u64() > Some(0));
    });
}

#[test]
fn a_damaged_extension_costs_its_request_only() {
    in_worlds(async |node| {
        let mut client = node.connect(0).await;
        let name = client.key_of(0);
        let mut frames = Vec::new();
        put(&name, b"v").encode_traced((1_000, 0, 0), &TRACE, &mut frames).unwrap();
        // A trace of all zeros is none.
        frames[34..50].fill(0);
        get(&name).encode_traced((1_001, 0, 0), &TRACE, &mut frames).unwrap();
        get(&name).encode(1_002, 0, 0, &mut frames).unwrap();
        client.stream.write_all(&frames).await.unwrap();
        let mut answers = Vec::new();
        for _ in 0..3 {
            answers.push(client.receive().await);
        }
        answers.sort_by_key(|answer| answer.header.request_id);
        assert_eq!(answers[0].error().code, ErrorCode::BadRequest);
        assert_eq!((answers[1].value(), answers[2].value()), (None, None), "not applied");
    });
}

#[test]
fn nothing_is_slow_when_that_is_turned_off() {
    let node = TestNode::start(1, |config| config.slow_us = 0);
    node.world.run_until(async {
        let mut client = node.connect(0).await;
        send_traced(&mut client, &put(b"k", b"v"), 1_000).await;
        client.receive().await;
        let slow = section(&mut client, Section::SlowOperations).await;
        assert_eq!((&slow["threshold_us"], &slow["seen"], &slow["kept"]), (&0.into(), &0.into(), &0.into()));
    });
}

#[test]
fn a_hot_key_is_found_among_others_and_counted() {
    for pipelined in [1, 16] {
        let node = TestNode::start(pipelined, |_| {});
        node.world.run_until(async {
            let mut client = node.connect(0).await;
            let hot = client.key_of(0);
            client.put(&hot, b"v").await;
            let (mut frames, mut asked) = (Vec::new(), 0_u32);
            for round in 0..10_000_u32 {
                let other = key(1_000 + round % 700);
                client.encode(&get(&hot), 0, &mut frames);
                client.encode(&get(&other), 0, &mut frames);
                asked += 2;
                if asked as u64 >= 2 * pipelined {
                    client.stream.write_all(&frames).await.unwrap();
                    for _ in 0..asked {
                        client.receive().await;
                    }
                    (frames, asked) = (Vec::new(), 0);
                }
            }
            for _ in 0..asked {
                client.receive().await;
            }
            let found = section(&mut client, Section::HotKeys).await;
            let first = &found["hot"][0];
            assert_eq!(first["key"], String::from_utf8_lossy(&hot).into_owned(), "{found}");
            assert_eq!((&first["namespace"], &first["core"]), (&"default".into(), &0.into()));
            let accesses = first["accesses"].as_u64().unwrap();
            assert!((8_000..=12_000).contains(&accesses), "{accesses}");
            let share = first["share"].as_f64().unwrap();
            assert!((0.4..=0.6).contains(&share), "{share}");
            assert_eq!(found["sampled_one_in"], 64);
            // STAT knows it, too, and little of others.
            let stat = client.call(&Request::Stat(KeyRequest { namespace: 0, key: &hot })).await;
            let Response::Stat(stat) = stat.response() else { panic!() };
            assert!((8_000..=12_000).contains(&stat.accesses), "{}", stat.accesses);
            let rare = client.call(&Request::Stat(KeyRequest { namespace: 0, key: b"never seen" })).await;
            let Response::Stat(rare) = rare.response() else { panic!() };
            assert_eq!((rare.accesses, rare.stat), (0, None));
        });
    }
}

#[test]
fn connections_are_told_with_what_they_do() {
    in_worlds(async |node| {
        let mut client = node.connect(1).await;
        let mut other = RespClient::connect(node).await;
        assert_eq!(other.call(&["CLIENT", "SETNAME", "redis"]).await, Reply::ok());
        let silent = node.connect_bare().await;
        node.world.sleep(Duration::from_millis(20)).await;
        for index in 0..5 {
            client.get(&key(index)).await;
        }
        let found = section(&mut client, Section::Clients).await;
        assert_eq!((&found["total"], &found["shown"]), (&3.into(), &3.into()), "{found}");
        let of = |protocol: &str| {
            list(&found["clients"]).iter().find(|client| client["protocol"] == protocol).unwrap().clone()
        };
        let (native, resp, nothing) = (of("native"), of("resp2"), of("none yet"));
        assert_eq!((&native["name"], &native["core"]), (&"test".into(), &1.into()));
        assert_eq!((&native["requests"], &native["outstanding"]), (&5.into(), &1.into()));
        assert_eq!((&native["idle_ms"], &native["namespace"]), (&0.into(), &Value::Null));
        assert!(native["age_ms"].as_u64() >= Some(20), "{native}");
        assert!(!native["peer"].as_str().unwrap().is_empty());
        assert_eq!((&resp["name"], &resp["requests"]), (&"redis".into(), &1.into()));
        assert!(resp["idle_ms"].as_u64() >= Some(20), "{resp}");
        assert_eq!((&resp["namespace"], &nothing["requests"]), (&"default".into(), &0.into()));
        let ids: Vec<_> = [&native, &resp, &nothing].map(|client| client["id"].as_u64().unwrap()).into();
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
        let lines = other.call(&["CLIENT", "LIST"]).await;
        let Reply::Bulk(lines) = lines else { panic!("{lines:?}") };
        let lines = String::from_utf8(lines).unwrap();
        assert_eq!(lines.lines().count(), 3, "{lines}");
        assert!(
            lines.lines().any(|line| line.contains(" name=redis ") && line.contains(" resp=2")),
            "{lines}"
        );
        drop(silent);
    });
}

#[test]
fn a_section_that_is_not_known_is_refused() {
    in_worlds(async |node| {
        let mut client = node.connect(0).await;
        let answer = client.call(&Request::ServerInfo { section: 77 }).await;
        assert_eq!(answer.error().code, ErrorCode::Unsupported);
    });
}
