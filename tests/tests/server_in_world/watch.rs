//! Seeing into a node: slow operations with their traces, hot keys, clients, and what is counted by
//! listener and by namespace.

use std::time::Duration;

use pinion_protocol::{
    Batch, BatchOperation, Condition, Direction, Durability, ErrorCode, KeyRequest, Keys, ListBuf, MultiGet,
    NamespaceOptions, Operations, Put, Request, Response, Scan, ScanKind, Section, TraceParent, Ttl, Write,
};
use pinion_tests::resp::Reply;
use pinion_tests::world::{Fault, Faults, Operation};
use serde_json::Value;

use super::client::{Client, TestNode, get, put, write};
use super::resp::RespClient;
use super::{SEEDS, in_worlds, key};

/// What is slow in microseconds: what the disk does, and nothing else.
const SLOW_US: u32 = 900;

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

/// Runs a test in worlds whose disks take at least a millisecond for every write, which is slow.
fn in_slow_worlds(test: impl AsyncFn(&TestNode, Client)) {
    for seed in 0..SEEDS {
        let node = TestNode::start(seed, |config| config.slow_us = SLOW_US);
        node.world.run_until(async {
            let client = node.connect(0).await;
            let slow = Faults::none().with(Operation::Write, Fault::Slow, 1);
            node.world.disk(node.served.node).set_faults(slow);
            test(&node, client).await;
        });
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
    in_slow_worlds(async |_, mut client| {
        let mut names = (0..).map(|index| [&key(index)[..], b"\\\xff"].concat());
        let name = names.find(|name| client.owner(name) == 0).unwrap();
        send_traced(&mut client, &put(&name, b"v"), 1_000).await;
        let Response::Put(_) = client.receive().await.response() else { panic!() };
        client.get(&name).await;
        let slow = section(&mut client, Section::SlowOperations).await;
        assert_eq!(
            (&slow["threshold_us"], &slow["kept"], &slow["seen"]),
            (&SLOW_US.into(), &1.into(), &1.into())
        );
        let entry = &slow["slow"][0];
        assert_eq!(
            (&entry["operation"], &entry["trace"]),
            (&"put".into(), &TRACE.to_string().into()),
            "{slow}"
        );
        let shown = format!("{}\\x5c\\xff", String::from_utf8_lossy(&name[..name.len() - 2]));
        assert_eq!((&entry["key"], &entry["key_bytes"]), (&Value::from(shown), &Value::from(name.len())));
        assert_eq!((&entry["namespace"], &entry["protocol"]), (&"default".into(), &"native".into()));
        assert_eq!((&entry["client"], &entry["outcome"]), (&"test".into(), &"ok".into()));
        assert_eq!((&entry["core"], &entry["shard"]), (&0.into(), &0.into()));
        let stage = |name: &str| entry["stages_us"][name].as_u64().unwrap();
        assert_eq!(entry["total_us"].as_u64(), Some(stage("queued") + stage("storage")));
        assert_eq!(stage("forwarded"), 0);
        assert!(stage("storage") >= 1_000, "{entry}");
        assert!(entry["time_ms"].as_u64() > Some(1_000_000_000_000), "{entry}");
        // The trace was that of the request, not of its connection.
        let condition = Put { write: write(&name), ttl: Ttl::NamespaceDefault, value: b"again" };
        client.call(&Request::PutIf(condition, Condition::Present)).await;
        let slow = section(&mut client, Section::SlowOperations).await;
        let newest = &slow["slow"][0];
        assert_eq!((&newest["operation"], &newest["trace"]), (&"put_if".into(), &Value::Null));
        assert_eq!((&slow["slow"][1], &newest["key"]), (entry, &entry["key"]));
    });
}

#[test]
fn a_forwarded_operation_is_one_of_its_connections_core() {
    in_slow_worlds(async |node, mut client| {
        let name = client.key_of(1);
        let text = String::from_utf8(name.clone()).unwrap();
        client.put(&name, b"v").await;
        let slow = section(&mut client, Section::SlowOperations).await;
        assert_eq!(slow["seen"], 1, "once, not on both cores: {slow}");
        let entry = &slow["slow"][0];
        assert_eq!((&entry["core"], &entry["shard"]), (&0.into(), &1.into()));
        assert_eq!((&entry["key"], &entry["client"]), (&text.clone().into(), &"test".into()));
        let stages = &entry["stages_us"];
        let sum: u64 =
            ["queued", "forwarded", "storage"].iter().map(|name| stages[name].as_u64().unwrap()).sum();
        assert_eq!(entry["total_us"].as_u64(), Some(sum));
        assert!(stages["storage"].as_u64() >= Some(900), "the owner tells how long it took: {entry}");
        let mut other = RespClient::connect_to(node, 0).await;
        assert_eq!(other.call(&["CLIENT", "SETNAME", "me"]).await, Reply::ok());
        assert_eq!(other.call(&["SET", &text, "7"]).await, Reply::ok());
        assert_eq!(other.call(&["MSET", &text, "x", "another", "y"]).await, Reply::ok());
        other.call(&["INCR", &text]).await.error();
        let slow = section(&mut client, Section::SlowOperations).await;
        let told: Vec<_> =
            list(&slow["slow"]).iter().map(|entry| entry["operation"].as_str().unwrap()).collect();
        assert_eq!(told, ["mset", "set", "put"], "newest first, and what is refused at once is not slow");
        let entry = &slow["slow"][1];
        assert_eq!((&entry["protocol"], &entry["client"]), (&"resp".into(), &"me".into()));
        assert_eq!((&entry["key"], &entry["shard"]), (&text.clone().into(), &1.into()), "{entry}");
        // The same in the words of Redis.
        let Reply::Array(entries) = other.call(&["SLOWLOG", "GET", "2"]).await else { panic!() };
        assert_eq!((entries.len(), other.call(&["SLOWLOG", "LEN"]).await), (2, Reply::Integer(3)));
        let fields = entries[1].members();
        assert_eq!(fields[3], Reply::Array(vec![Reply::bulk("set"), Reply::bulk(&text)]));
        assert_eq!(fields[5], Reply::bulk("me"));
        assert_eq!(other.call(&["SLOWLOG", "RESET"]).await, Reply::ok());
        let slow = section(&mut client, Section::SlowOperations).await;
        assert_eq!((&slow["kept"], &slow["seen"]), (&0.into(), &3.into()), "{slow}");
    });
}

/// What is slow in microseconds where nothing is but what is held back.
const HELD_US: u32 = 50_000;

/// Lets what core 1 has for core 0 arrive, when it has been under way for so long that its request is slow.
async fn arrive_late(node: &TestNode) {
    node.until(|| node.served.untaken_messages(1, 0) > 0).await;
    node.world.sleep(Duration::from_micros(HELD_US.into())).await;
    node.served.release_messages(1, 0);
}

#[test]
fn an_operation_that_became_slow_on_its_way_back_is_remembered_with_its_key() {
    for seed in 0..SEEDS {
        let node = TestNode::start(seed, |config| config.slow_us = HELD_US);
        node.world.run_until(async {
            let mut client = node.connect(0).await;
            let (name, near) = (client.key_of(1), client.key_of(0));
            let [text, near_text] = [&name, &near].map(|key| String::from_utf8(key.clone()).unwrap());
            client.put(&name, b"v").await;
            let (mut keys, mut operations) = (ListBuf::<Keys>::new(), ListBuf::<Operations>::new());
            for key in [&near, &name] {
                keys.push(&key.as_slice()).unwrap();
                operations.push(&BatchOperation::Delete { key }).unwrap();
            }
            let keys = MultiGet { namespace: 0, keys: keys.list() };
            let batch = Batch {
                namespace: 0,
                durability: Durability::Sync,
                stamp: None,
                operations: operations.list(),
            };
            let shard = client.shard_cores.iter().position(|core| *core == 1).unwrap() as u16;
            let page = Scan {
                namespace: 0,
                kind: ScanKind::Ordered { shard },
                direction: Direction::Forward,
                limit: 0,
                bytes_max: 0,
                keys_only: false,
                start: &name,
                end: b"",
                prefix: b"",
                cursor: b"",
            };
            let refused = Put { write: write(&name), ttl: Ttl::NamespaceDefault, value: b"x" };
            let requests = [
                get(&name),
                put(&name, b"w"),
                Request::PutIf(refused, Condition::Absent),
                Request::Scan(page),
                Request::MultiGet(keys),
                Request::Batch(batch),
            ];
            let told = ["get", "put", "put_if", "scan", "multi_get", "batch"];
            for request in &requests {
                node.served.hold_messages(1, 0);
                client.send(request).await;
                arrive_late(&node).await;
                client.receive().await;
            }
            let mut other = RespClient::connect_to(&node, 0).await;
            let commands: [&[&str]; 3] = [&["GET", &text], &["INCR", &text], &["EXISTS", &near_text, &text]];
            for command in commands {
                node.served.hold_messages(1, 0);
                other.send(&[command.iter().map(|arg| arg.as_bytes().to_vec()).collect()]).await;
                arrive_late(&node).await;
                other.receive().await;
            }
            let slow = section(&mut client, Section::SlowOperations).await;
            let entries: Vec<_> = list(&slow["slow"]).iter().rev().collect();
            let told: Vec<_> = told.into_iter().chain(["get", "incr", "exists"]).collect();
            assert_eq!(entries.iter().map(|entry| &entry["operation"]).collect::<Vec<_>>(), told);
            for (entry, operation) in entries.iter().zip(told) {
                assert_eq!(
                    (&entry["key"], &entry["shard"]),
                    (&text.clone().into(), &shard.into()),
                    "{operation}: {entry}"
                );
                assert_eq!(entry["core"], 0, "{operation}: {entry}");
            }
            // The owner tells how long it took, slow or not: the rest is the way.
            let stages = |entry: &Value, name: &str| entry["stages_us"][name].as_u64().unwrap();
            assert!(stages(entries[0], "forwarded") >= HELD_US.into(), "{}", entries[0]);
            assert!(stages(entries[1], "storage") > 0, "a put waits for the disk: {}", entries[1]);
            assert!(stages(entries[1], "forwarded") >= HELD_US.into(), "{}", entries[1]);
        });
    }
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
        let slow = Faults::none().with(Operation::Write, Fault::Slow, 1);
        node.world.disk(node.served.node).set_faults(slow);
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
#[test]
fn requests_are_counted_by_listener_and_namespace() {
    in_worlds(async |node| {
        let mut client = node.connect(0).await;
        let create = Request::NamespaceCreate(NamespaceOptions { name: "books", default_ttl_ms: 0 });
        let Response::NamespaceCreate(books) = client.call(&create).await.response() else { panic!() };
        let mut frames = Vec::new();
        let mut asked = 0;
        for index in 0..20 {
            // Runs of gets of two namespaces, of keys of both cores.
            let name = key(index);
            client.encode(&Request::Get(KeyRequest { namespace: 0, key: &name }), 0, &mut frames);
            client.encode(&Request::Get(KeyRequest { namespace: books, key: &name }), 0, &mut frames);
            asked += 2;
        }
        for index in 0..7 {
            let name = key(index);
            let write = Write { namespace: books, ..write(&name) };
            let put = Put { write, ttl: Ttl::NamespaceDefault, value: b"v" };
            client.encode(&Request::Put(put), 0, &mut frames);
            asked += 1;
        }
        let mut keys = ListBuf::<Keys>::new();
        (0..5).for_each(|index| keys.push(&key(index).as_slice()).unwrap());
        client.encode(&Request::MultiGet(MultiGet { namespace: books, keys: keys.list() }), 0, &mut frames);
        for index in 0..4 {
            let name = key(index);
            client.encode(&Request::Get(KeyRequest { namespace: 999, key: &name }), 0, &mut frames);
        }
        client.stream.write_all(&frames).await.unwrap();
        for _ in 0..asked + 5 {
            client.receive().await;
        }
        let mut redis = RespClient::connect(node).await;
        assert_eq!(redis.call(&["SET", "a", "x"]).await, Reply::ok());
        for _ in 0..3 {
            assert_eq!(redis.call(&["GET", "a"]).await, Reply::bulk("x"));
        }
        redis.call(&["INCR", "a"]).await.error();
        let info = section(&mut client, Section::All).await;
        let told: Vec<_> = list(&info["by_namespace"])
            .iter()
            .map(|counts| {
                let number = |name: &str| counts[name].as_u64().unwrap();
                for (kind, buckets) in [("reads", "read_ns_buckets"), ("writes", "write_ns_buckets")] {
                    assert_eq!(sum(&counts[buckets]), number(kind), "{counts}");
                    assert_eq!(
                        list(&counts[buckets]).len(),
                        list(&info["latency_buckets"]["bounds_ns"]).len() + 1
                    );
                }
                let name = counts["name"].as_str().unwrap();
                (name, number("reads"), number("writes"), number("scans"), number("errors"))
            })
            .collect();
        assert_eq!(told, [("default", 23, 2, 0, 1), ("books", 21, 7, 0, 0), ("*", 4, 0, 0, 4)], "{info}");
        let (native, resp) = (&info["by_listener"]["native"], &info["by_listener"]["resp"]);
        // The namespace was created before.
        assert_eq!((native["requests"].as_u64(), native["errors"].as_u64()), (Some(asked + 5 + 1), Some(4)));
        assert_eq!((resp["requests"].as_u64(), resp["errors"].as_u64()), (Some(5), Some(1)));
        assert_eq!(native["errors_by_operation"]["read"], 4, "{native}");
        assert_eq!(resp["errors_by_operation"]["write"], 1, "{resp}");
        for class in ["read", "multi_read", "write", "batch", "scan", "other"] {
            let listeners = sum(&native["latency_buckets"][class]) + sum(&resp["latency_buckets"][class]);
            assert_eq!(info["latency_ns"][class]["count"].as_u64(), Some(listeners), "{class}");
        }
        // Each was dealt with some time after its receipt; so is the one that asks.
        assert!(info["queue_delay_ns"]["count"].as_u64() >= Some(asked + 5 + 5), "{info}");
        assert_eq!(info["commit_ns"]["count"], info["storage"]["log_commits"], "{info}");
        assert_eq!(sum(&info["delay_buckets"]["commit"]), info["storage"]["log_commits"].as_u64().unwrap());
        assert!(info["commit_ns"]["p50"].as_u64() > Some(0), "{info}");
        assert_eq!(info["stall_ns"]["count"].as_u64(), Some(0), "time stands still while a core works");
        let utilisation = &info["utilisation"];
        assert!(utilisation["busy_ns"].as_u64() > Some(0) && utilisation["idle_ns"].is_u64());
        for core in list(&info["per_core"]) {
            assert!(core["utilisation"]["busy_ns"].is_u64() && core["queue_delay_ns"]["count"].is_u64());
        }
        // What is dropped gives up its counts, not the sum.
        client.call(&Request::NamespaceDrop("books")).await;
        let info = section(&mut client, Section::All).await;
        let told: Vec<_> =
            list(&info["by_namespace"]).iter().map(|counts| counts["name"].as_str().unwrap()).collect();
        assert_eq!(told, ["default", "*"]);
        let reads: u64 =
            list(&info["by_namespace"]).iter().map(|counts| counts["reads"].as_u64().unwrap()).sum();
        assert_eq!(reads, 48);
    });
}

fn sum(numbers: &Value) -> u64 {
    list(numbers).iter().map(|number| number.as_u64().expect("a count")).sum()
}
