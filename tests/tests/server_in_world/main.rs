//! The unmodified server in the in-memory world: one node of two cores, and clients that speak
//! frames to it.

mod client;
mod deadlines;
mod groups;
mod lone_gets;
mod namespaces;
mod pressure;
mod resp;
mod stopping;
mod watch;

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use client::{Client, PARTITIONS, TestNode, get, opcode, put, write};
use pinion_protocol::{
    Batch, BatchOperation, Condition, Direction, Durability, ErrorCode, HEADER_BYTES, KeyRequest, Keys,
    ListBuf, MultiGet, Opcode, OperationResult, Operations, Outcome, Put, Request, Response, Scan, ScanKind,
    Ttl, Update, UpdateOperation, ValueItem, Version, WriteOutcome, placement,
};

const SEEDS: u64 = 8;

/// Runs a test in several worlds.
fn in_worlds(test: impl AsyncFn(&TestNode)) {
    for seed in 0..SEEDS {
        let node = TestNode::start(seed, |_| {});
        node.world.run_until(test(&node));
    }
}

fn key(index: u32) -> Vec<u8> {
    format!("key-{index:05}").into_bytes()
}

#[test]
fn hello_reaches_the_wanted_core_and_values_come_back() {
    in_worlds(async |node| {
        for core in 0..2 {
            let mut client = node.connect(core).await;
            assert_eq!(client.shard_cores, [0, 1]);
            let (name, value) = (format!("name-{core}").into_bytes(), vec![core as u8; 3_000]);
            assert_eq!(client.get(&name).await, None);
            let Response::Put(written) = client.put(&name, &value).await.response() else { panic!() };
            assert_eq!(written.outcome, WriteOutcome::Applied);
            assert!(!written.version.is_absent() && written.stamp_seen > 0);
            assert_eq!(client.get(&name).await, Some(value));
            let Response::Delete(_) = client.call(&Request::Delete(write(&name))).await.response() else {
                panic!()
            };
            assert_eq!(client.get(&name).await, None);
        }
        let mut anywhere = node.connect_bare().await;
        anywhere.say_hello(None).await;
        let mut nowhere = node.connect_bare().await;
        nowhere.say_hello(Some(99)).await;
        assert!(anywhere.core < 2 && nowhere.core < 2);
    });
}

#[test]
fn a_hello_in_single_bytes_is_handed_over_too() {
    in_worlds(async |node| {
        let mut client = node.connect_bare().await;
        for byte in Client::opening(Some(1)) {
            client.stream.write_all(&[byte]).await.unwrap();
        }
        client.hear_hello().await;
        assert_eq!(client.core, 1);
        // And so is every later frame understood.
        let mut frames = Vec::new();
        client.encode(&put(b"k", b"in pieces"), 0, &mut frames);
        client.encode(&get(b"other"), 0, &mut frames);
        for byte in frames {
            client.stream.write_all(&[byte]).await.unwrap();
        }
        let mut answered = [client.receive().await, client.receive().await].map(|answer| opcode(&answer));
        answered.sort_by_key(|opcode| opcode.map(Opcode::to_u8));
        assert_eq!(answered, [Some(Opcode::Get), Some(Opcode::Put)]);
        assert_eq!(client.get(b"k").await.unwrap(), b"in pieces");
    });
}

#[test]
fn pipelined_requests_on_either_core_are_all_answered() {
    in_worlds(async |node| {
        let mut client = node.connect(0).await;
        let mut frames = Vec::new();
        let mut asked = BTreeMap::new();
        for index in 0..300 {
            let value = vec![index as u8; index as usize % 700];
            asked.insert(client.encode(&put(&key(index), &value), 0, &mut frames), None);
        }
        client.stream.write_all(&frames).await.unwrap();
        for _ in 0..asked.len() {
            let answer = client.receive().await;
            let Response::Put(_) = answer.response() else { panic!("{:?}", answer.response()) };
            assert!(asked.remove(&answer.header.request_id).is_some(), "answered twice");
        }
        frames.clear();
        for index in 0..300 {
            asked.insert(client.encode(&get(&key(index)), 0, &mut frames), Some(index));
        }
        client.stream.write_all(&frames).await.unwrap();
        for _ in 0..300 {
            let answer = client.receive().await;
            let index = asked.remove(&answer.header.request_id).unwrap().unwrap();
            assert_eq!(answer.value(), Some(vec![index as u8; index as usize % 700]));
        }
        let owners: Vec<u16> = (0..300).map(|index| client.owner(&key(index))).collect();
        assert!(owners.contains(&0) && owners.contains(&1), "both cores own keys");
        let info = info(&mut client).await;
        let forwarded = owners.iter().filter(|owner| **owner == 1).count() * 2;
        assert_eq!(counter(&info, "forwarded"), forwarded as u64);
    });
}

/// The sum over all cores, which stands before the cores' own numbers.
fn counter(info: &str, name: &str) -> u64 {
    let (_, after) = info.split_once(&format!("\"{name}\":")).expect("the counter is reported");
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

async fn info(client: &mut Client) -> String {
    let answer = client.call(&Request::ServerInfo { section: 0 }).await;
    let Response::ServerInfo(text) = answer.response() else { panic!() };
    assert_eq!(text.matches("\"core\":").count(), 2);
    text.to_owned()
}

#[test]
fn data_larger_than_memory_is_read_from_tables() {
    let node = TestNode::start(11, |_| {});
    node.world.run_until(async {
        let mut client = node.connect(1).await;
        let value = |index: u32| vec![index as u8; 400];
        let mut frames = Vec::new();
        for round in 0..15 {
            frames.clear();
            for index in round * 200..(round + 1) * 200 {
                client.encode(&put(&key(index), &value(index)), 0, &mut frames);
            }
            client.stream.write_all(&frames).await.unwrap();
            for _ in 0..200 {
                let Response::Put(_) = client.receive().await.response() else { panic!() };
            }
        }
        let mut keys = ListBuf::<Keys>::new();
        for index in (0..3_000).step_by(13) {
            assert_eq!(client.get(&key(index)).await, Some(value(index)));
            keys.push(&key(index + 1).as_slice()).unwrap();
        }
        let answer = client.call(&Request::MultiGet(MultiGet { namespace: 0, keys: keys.list() })).await;
        let Response::MultiGet(reply) = answer.response() else { panic!("{:?}", answer.response()) };
        let found = |item| matches!(item, ValueItem::Found(value) if value.bytes.len() == 400);
        assert!(reply.values.iter().all(found));
        assert_eq!(read_all(&mut client, scan(ScanKind::Placement)).await.len(), 3_000);
        let info = info(&mut client).await;
        assert!(counter(&info, "flushes") > 0 && counter(&info, "gets_from_disk") > 0, "{info}");
        serde_json::from_str::<serde_json::Value>(&info).expect("server info is JSON");
    });
}

#[test]
fn more_work_than_allowed_is_refused_early() {
    let limits = |config: &mut pinion_server::ServerConfig| {
        config.limits.core_requests_max = 8;
        config.limits.core_forwards_max = 4;
    };
    for seed in 0..SEEDS {
        let node = TestNode::start(seed, limits);
        node.world.run_until(async {
            let mut client = node.connect(0).await;
            let mut frames = Vec::new();
            let mut asked = BTreeMap::new();
            for index in 0..100 {
                asked.insert(client.encode(&put(&key(index), b"v"), 0, &mut frames), index);
            }
            client.stream.write_all(&frames).await.unwrap();
            let (mut written, mut refused) = (Vec::new(), Vec::new());
            for _ in 0..100 {
                let answer = client.receive().await;
                let index = asked.remove(&answer.header.request_id).unwrap();
                match answer.response() {
                    Response::Put(_) => written.push(index),
                    _ => {
                        let error = answer.error();
                        assert_eq!((error.code, error.outcome), (ErrorCode::Overloaded, Outcome::NotApplied));
                        assert!(error.retry_after_ms > 0);
                        refused.push(index);
                    }
                }
            }
            assert!(!written.is_empty() && !refused.is_empty());
            for index in written {
                assert_eq!(client.get(&key(index)).await.unwrap(), b"v");
            }
            for index in refused {
                assert_eq!(client.get(&key(index)).await, None);
            }
        });
    }
}

#[test]
fn a_slow_reader_of_large_answers_stops_its_own_requests() {
    for seed in 0..SEEDS {
        let node = TestNode::start(seed, |config| config.limits.connection_out_bytes_max = 100_000);
        node.world.run_until(async {
            let mut client = node.connect(0).await;
            let value = vec![7; 60_000];
            client.put(b"large", &value).await;
            let mut frames = Vec::new();
            for _ in 0..100 {
                client.encode(&get(b"large"), 0, &mut frames);
            }
            client.stream.write_all(&frames).await.unwrap();
            for _ in 0..100 {
                assert_eq!(client.receive().await.value().as_deref(), Some(&value[..]));
            }
            assert!(counter(&info(&mut client).await, "receive_pauses") > 0);
        });
    }
}

#[test]
fn what_is_no_frame_ends_only_its_connection() {
    in_worlds(async |node| {
        let mut other = node.connect(1).await;

        // Here and below: the node may close at the first bytes, before the last are sent.
        let mut tls = node.connect_bare().await;
        let _ = tls.stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00").await;
        assert!(tls.receive_to_end().await.is_empty());

        let mut future = node.connect_bare().await;
        let mut opening = Client::opening(None);
        opening[4..8].copy_from_slice(&[9, 0, 9, 0]);
        let _ = future.stream.write_all(&opening).await;
        let answers = future.receive_to_end().await;
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].error().code, ErrorCode::Unsupported);
        assert_eq!(answers[0].error().versions, (1, 1));
        assert_eq!(answers[0].header.request_id, 77);

        let mut garbage = node.connect(0).await;
        let _ = garbage.stream.write_all(&[0xFF; HEADER_BYTES]).await;
        let answers = garbage.receive_to_end().await;
        assert_eq!(answers[0].error().outcome, Outcome::NotApplied);

        let mut oversized = node.connect(0).await;
        let mut frame = Vec::new();
        let id = oversized.encode(&put(b"k", b"v"), 0, &mut frame);
        frame[..4].copy_from_slice(&(600_u32 << 10).to_le_bytes());
        let _ = oversized.stream.write_all(&frame).await;
        let answers = oversized.receive_to_end().await;
        assert_eq!((answers[0].error().code, answers[0].header.request_id), (ErrorCode::TooLarge, id));

        let mut silent = node.connect_bare().await;
        silent.stream.write_all(&Client::opening(None)[..20]).await.unwrap();
        assert!(silent.receive_to_end().await.is_empty(), "HELLO has a deadline");

        other.put(b"still", b"here").await;
        assert_eq!(other.get(b"still").await.unwrap(), b"here");
    });
}

#[test]
fn a_bad_request_costs_only_itself() {
    in_worlds(async |node| {
        let mut client = node.connect(0).await;
        let mut frame = Vec::new();
        client.encode(&get(b"k"), 0, &mut frame);
        frame[6] = 200;
        client.stream.write_all(&frame).await.unwrap();
        let answer = client.receive().await;
        assert_eq!((answer.error().code, answer.header.opcode), (ErrorCode::Unsupported, 200));

        frame[6] = Opcode::Put.to_u8();
        client.stream.write_all(&frame).await.unwrap();
        assert_eq!(client.receive().await.error().code, ErrorCode::BadRequest);

        for (request, code) in [
            (get(b""), ErrorCode::TooLarge),
            (get(&[b'x'; 4_097]), ErrorCode::TooLarge),
            (put(b"k", &vec![0; 70_000]), ErrorCode::TooLarge),
            (Request::Get(KeyRequest { namespace: 5, key: b"k" }), ErrorCode::NoSuchNamespace),
        ] {
            let answer = client.call(&request).await;
            assert_eq!((answer.error().code, answer.error().outcome), (code, Outcome::NotApplied));
        }
        assert_eq!(client.call(&Request::Ping(b"hello")).await.response(), Response::Ping(b"hello"));
    });
}

#[test]
fn conditions_and_updates_are_carried_out() {
    in_worlds(async |node| {
        let mut client = node.connect(0).await;
        for name in [key(1), key(2), key(3)] {
            let put_if = |condition, value| {
                Request::PutIf(Put { write: write(&name), ttl: Ttl::NamespaceDefault, value }, condition)
            };
            let answer = client.call(&put_if(Condition::Present, b"no")).await;
            assert_eq!(answer.error().code, ErrorCode::ConditionFailed);
            assert!(answer.error().version.is_absent());
            let answer = client.call(&put_if(Condition::Absent, b"41")).await;
            let Response::PutIf(first) = answer.response() else { panic!() };
            let answer = client.call(&put_if(Condition::Absent, b"no")).await;
            assert_eq!(answer.error().version, first.version);

            let update = |operation| Request::Update(Update { write: write(&name), operation });
            let answer = client.call(&update(UpdateOperation::Add(1))).await;
            let Response::Update(added) = answer.response() else { panic!() };
            assert_eq!(added.number, 42);
            let answer = client.call(&put_if(Condition::Version(first.version), b"no")).await;
            assert_eq!(answer.error().version, added.version);
            let answer = client.call(&put_if(Condition::Version(Version([9; 16])), b"no")).await;
            assert_eq!(answer.error().code, ErrorCode::BadRequest);
            assert_eq!(client.get(&name).await.unwrap(), b"42");

            let answer = client.call(&update(UpdateOperation::Append(b"x"))).await;
            let Response::Update(appended) = answer.response() else { panic!() };
            assert_eq!(appended.number, 3);
            assert_eq!(
                client.call(&update(UpdateOperation::Add(1))).await.error().code,
                ErrorCode::BadRequest
            );

            let delete_if = |version| Request::DeleteIf(write(&name), Condition::Version(version));
            assert_eq!(client.call(&delete_if(first.version)).await.error().code, ErrorCode::ConditionFailed);
            let Response::DeleteIf(_) = client.call(&delete_if(appended.version)).await.response() else {
                panic!()
            };
            let answer = client.call(&update(UpdateOperation::SetExpiry { ttl_ms: 5 })).await;
            let Response::Update(missing) = answer.response() else { panic!() };
            assert_eq!(missing.outcome, WriteOutcome::Missing);
        }
    });
}

#[test]
fn values_expire_and_stat_says_when() {
    in_worlds(async |node| {
        let mut client = node.connect(0).await;
        let ttl = Ttl::Millis(NonZeroU64::new(50).unwrap());
        let put = Request::Put(Put { write: write(b"short"), ttl, value: b"lived" });
        let Response::Put(written) = client.call(&put).await.response() else { panic!() };
        let stat = Request::Stat(KeyRequest { namespace: 0, key: b"short" });
        let Response::Stat(reply) = client.call(&stat).await.response() else { panic!() };
        let found = reply.stat.unwrap();
        assert_eq!((found.version, found.expiry_ms), (written.version, written.expiry_ms));
        assert_eq!(found.value_bytes, 5);
        node.world.sleep(Duration::from_millis(60)).await;
        assert_eq!(client.get(b"short").await, None);
        let Response::Stat(reply) = client.call(&stat).await.response() else { panic!() };
        assert_eq!(reply.stat, None);
    });
}

#[test]
fn many_keys_are_read_and_written_at_once() {
    in_worlds(async |node| {
        let mut client = node.connect(1).await;
        let names: Vec<Vec<u8>> = (0..100).map(key).collect();
        let mut operations = ListBuf::<Operations>::new();
        for (index, key) in names.iter().enumerate() {
            let value = &[index as u8; 100][..];
            let ttl = Ttl::NamespaceDefault;
            operations.push(&BatchOperation::Put { key, value, ttl }).unwrap();
        }
        operations.push(&BatchOperation::Delete { key: &names[7] }).unwrap();
        let batch = |operations| {
            Request::Batch(Batch { namespace: 0, durability: Durability::Sync, stamp: None, operations })
        };
        let answer = client.call(&batch(operations.list())).await;
        let Response::Batch(reply) = answer.response() else { panic!("{:?}", answer.response()) };
        assert_eq!(reply.results.len(), 101);
        assert!(reply.results.iter().all(|result| matches!(result, OperationResult::Applied(_))));

        let mut keys = ListBuf::<Keys>::new();
        for key in &names {
            keys.push(&key.as_slice()).unwrap();
        }
        keys.push(&&b"missing"[..]).unwrap();
        let request = Request::MultiGet(MultiGet { namespace: 0, keys: keys.list() });
        let answer = client.call(&request).await;
        let Response::MultiGet(reply) = answer.response() else { panic!("{:?}", answer.response()) };
        for (index, item) in reply.values.iter().enumerate() {
            match item {
                ValueItem::Found(value) => assert_eq!(value.bytes, [index as u8; 100]),
                ValueItem::Missing => assert!(index == 7 || index == 100),
                ValueItem::NotRead => panic!("everything fits"),
            }
        }

        let mut bad = ListBuf::<Operations>::new();
        bad.push(&BatchOperation::Delete { key: b"" }).unwrap();
        assert_eq!(client.call(&batch(bad.list())).await.error().code, ErrorCode::TooLarge);
    });
}

#[test]
fn an_answer_to_many_keys_says_what_did_not_fit() {
    let node = TestNode::start(3, |_| {});
    node.world.run_until(async {
        let mut client = node.connect(0).await;
        let mut keys = ListBuf::<Keys>::new();
        for index in 0..20 {
            client.put(&key(index), &vec![1; 60_000]).await;
            keys.push(&key(index).as_slice()).unwrap();
        }
        let answer = client.call(&Request::MultiGet(MultiGet { namespace: 0, keys: keys.list() })).await;
        assert!(answer.header.frame_bytes <= node.served.config.limits.frame_bytes_max);
        let Response::MultiGet(reply) = answer.response() else { panic!() };
        let found = reply.values.iter().filter(|item| matches!(item, ValueItem::Found(_))).count();
        let unread = reply.values.iter().filter(|item| *item == ValueItem::NotRead).count();
        assert!(found >= 7 && found + unread == 20, "{found} found, {unread} not read");
    });
}

fn scan(kind: ScanKind<'_>) -> Scan<'_> {
    Scan {
        namespace: 0,
        kind,
        direction: Direction::Forward,
        limit: 0,
        bytes_max: 0,
        keys_only: false,
        start: b"",
        end: b"",
        prefix: b"",
        cursor: b"",
    }
}

/// All pages of a scan.
async fn read_all(client: &mut Client, scan: Scan<'_>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (mut records, mut cursor) = (Vec::new(), Vec::new());
    loop {
        let answer = client.call(&Request::Scan(Scan { cursor: &cursor, ..scan })).await;
        let Response::Scan(page) = answer.response() else { panic!("{:?}", answer.response()) };
        assert!(scan.limit == 0 || page.records.len() <= scan.limit);
        records.extend(page.records.iter().map(|record| (record.key.to_vec(), record.value.bytes.to_vec())));
        if page.done {
            return records;
        }
        cursor = page.cursor.to_vec();
    }
}

#[test]
fn scans_of_all_kinds_find_every_record_once() {
    in_worlds(async |node| {
        let mut client = node.connect(0).await;
        let mut model = BTreeMap::new();
        for index in 0..150 {
            let name = if index % 3 == 0 { format!("{{tag}}{index:03}") } else { format!("free{index:03}") };
            let value = vec![index as u8; 200];
            client.put(name.as_bytes(), &value).await;
            model.insert(name.into_bytes(), value);
        }
        for direction in [Direction::Forward, Direction::Reverse] {
            for limit in [0, 7] {
                let with = |kind| Scan { direction, limit, ..scan(kind) };
                let all = read_all(&mut client, with(ScanKind::Placement)).await;
                assert_eq!(all.len(), model.len());
                assert_eq!(all.into_iter().collect::<BTreeMap<_, _>>(), model);

                let mut tagged: Vec<_> =
                    model.clone().into_iter().filter(|(key, _)| key[0] == b'{').collect();
                let mut ordered: Vec<_> =
                    model.clone().into_iter().filter(|(key, _)| key.starts_with(b"free1")).collect();
                if direction == Direction::Reverse {
                    tagged.reverse();
                    ordered.reverse();
                }
                assert_eq!(read_all(&mut client, with(ScanKind::Tag(b"tag"))).await, tagged);
                let short = Scan { prefix: b"{tag}", ..with(ScanKind::Tag(b"tag")) };
                assert_eq!(read_all(&mut client, short).await, tagged);

                let mut merged = Vec::new();
                for shard in 0..2 {
                    let part = Scan { prefix: b"free1", ..with(ScanKind::Ordered { shard }) };
                    let part = read_all(&mut client, part).await;
                    assert!(
                        part.is_sorted_by(|left, right| (left < right) == (direction == Direction::Forward))
                    );
                    merged.extend(part);
                }
                merged.sort();
                if direction == Direction::Reverse {
                    merged.reverse();
                }
                assert_eq!(merged, ordered);
            }
        }
        let keys = Scan {
            keys_only: true,
            start: b"free010",
            end: b"free013",
            ..scan(ScanKind::Ordered { shard: 0 })
        };
        assert!(read_all(&mut client, keys).await.iter().all(|(key, value)| {
            value.is_empty() && *key >= b"free010".to_vec() && *key < b"free013".to_vec()
        }));
        let answer = client.call(&Request::Scan(Scan { cursor: b"forged-cursor", ..keys })).await;
        assert_eq!(answer.error().code, ErrorCode::BadCursor);
        let answer = client.call(&Request::Scan(scan(ScanKind::Ordered { shard: 9 }))).await;
        assert_eq!(answer.error().code, ErrorCode::BadRequest);
    });
}

#[test]
fn a_placement_scan_begins_at_the_place_of_its_start() {
    in_worlds(async |node| {
        let mut client = node.connect(0).await;
        let place = |key: &[u8]| placement::partition_of(key, PARTITIONS).expect("a power of two");
        let mut placed: Vec<Vec<u8>> = (0..120).map(|index| format!("free{index:03}").into_bytes()).collect();
        // These share a partition, so that a start has records before it there.
        placed.extend((0..20).map(|index| format!("{{tag}}{index:02}").into_bytes()));
        for key in &placed {
            client.put(key, b"value").await;
        }
        placed.sort_by_cached_key(|key| (place(key), key.clone()));
        let tagged = placed.iter().position(|key| key.starts_with(b"{tag}")).unwrap();
        let own: Vec<_> = placed.iter().map(|key| client.owner(key)).collect();
        let border = own.iter().position(|core| *core != own[0]).expect("two cores have records");
        // Of the first and last of all, of a core, and of a partition; and where no record is.
        let places = [0, 1, border - 1, border, tagged, tagged + 7, tagged + 19, placed.len() - 1];
        let missing = [&b"{tag}075"[..], b"{tag}", b"{tag}~", b"nobody", b"\xff"].map(<[u8]>::to_vec);
        for start in places.into_iter().map(|index| placed[index].clone()).chain(missing) {
            let from = placed.iter().filter(|key| (place(key), *key) >= (place(&start), &start));
            let mut expected: Vec<_> = from.cloned().collect();
            for (direction, limit) in [
                (Direction::Forward, 0),
                (Direction::Forward, 3),
                (Direction::Reverse, 0),
                (Direction::Reverse, 3),
            ] {
                let scan = Scan { direction, limit, start: &start, ..scan(ScanKind::Placement) };
                let found: Vec<_> =
                    read_all(&mut client, scan).await.into_iter().map(|(key, _)| key).collect();
                if direction == Direction::Reverse && limit == 0 {
                    expected.reverse();
                }
                assert_eq!(found, expected, "{:?} {direction:?}", start.escape_ascii().to_string());
            }
        }
        // The cursor of another start is another scan's.
        let first = Scan { limit: 1, start: b"free001", ..scan(ScanKind::Placement) };
        let answer = client.call(&Request::Scan(first)).await;
        let Response::Scan(page) = answer.response() else { panic!("{:?}", answer.response()) };
        let other = Scan { start: b"free002", cursor: page.cursor, ..first };
        assert_eq!(client.call(&Request::Scan(other)).await.error().code, ErrorCode::BadCursor);
    });
}

#[test]
fn too_many_connections_are_told_so() {
    let node = TestNode::start(5, |config| config.limits.connections_max = 4);
    node.world.run_until(async {
        let mut open = Vec::new();
        for core in [0, 0, 1, 1] {
            open.push(node.connect(core).await);
        }
        let mut refused = node.connect_bare().await;
        refused.stream.write_all(&Client::opening(None)).await.unwrap();
        let answers = refused.receive_to_end().await;
        assert_eq!(answers[0].error().code, ErrorCode::TooManyConnections);
        drop(open.pop());
        node.world.sleep(Duration::from_millis(10)).await;
        let mut again = node.connect(1).await;
        again.put(b"k", b"v").await;
    });
}

#[test]
fn a_node_that_cannot_start_says_why_on_every_core() {
    let node = TestNode::start(1, |config| config.shards = Some(5));
    node.world.run_until(node.world.ended(node.served.node));
    let results = node.served.results.borrow();
    assert_eq!(results.len(), 2);
    for result in &*results {
        let message = result.as_ref().unwrap_err().to_string();
        assert!(message.contains("5 shards do not fit 64 partitions"), "{message}");
    }
}
