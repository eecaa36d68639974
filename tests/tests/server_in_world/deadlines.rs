//! Deadlines: a request that its core takes in when its time is over is answered so and not done,
//! whatever it asks for. The core takes it late because what the other core sends is held back.

use std::collections::BTreeMap;
use std::time::Duration;

use pinion_protocol::{
    Batch, BatchOperation, Condition, Durability, ErrorCode, KeyRequest, Keys, ListBuf, MultiGet,
    NamespaceOptions, OperationResult, Operations, Outcome, Put, Request, Response, ScanKind, Ttl, Update,
    UpdateOperation,
};

use super::client::{Answer, Client, TestNode, get, put, write};
use super::{counter, in_worlds, info, key, scan};

/// The time that late requests have, in microseconds: long enough to be forwarded in.
const SHORT_US: u32 = 10_000;

/// Nothing here takes so long, in microseconds.
const LONG_US: u32 = 60_000_000;

/// Asks all of these, which go on to core `to`, and lets them arrive there after [`SHORT_US`] more.
/// Gives the answers in the order of the requests.
async fn ask_held_back(
    node: &TestNode,
    client: &mut Client,
    to: u16,
    requests: &[Request<'_>],
    deadline_us: u32,
) -> Vec<Answer> {
    let (from, to) = (usize::from(client.core), usize::from(to));
    node.served.hold_messages(from, to);
    let mut frames = Vec::new();
    let ids: Vec<u64> =
        requests.iter().map(|request| client.encode(request, deadline_us, &mut frames)).collect();
    client.stream.write_all(&frames).await.expect("the node takes requests");
    node.until(|| node.served.untaken_messages(from, to) >= requests.len()).await;
    node.world.sleep(Duration::from_micros(u64::from(SHORT_US))).await;
    node.served.release_messages(from, to);
    let mut answers = BTreeMap::new();
    for _ in requests {
        let answer = client.receive().await;
        answers.insert(answer.header.request_id, answer);
    }
    ids.iter().map(|id| answers.remove(id).expect("each is answered once")).collect()
}

/// The request was not begun, because it was too late.
fn expect_late(request: &Request<'_>, answer: &Answer) {
    let Response::Error { error, .. } = answer.response() else {
        panic!("begun after its deadline: {request:?} is answered {:?}", answer.response())
    };
    assert_eq!((error.code, error.outcome), (ErrorCode::Deadline, Outcome::NotApplied), "{request:?}");
}

#[test]
fn nothing_is_begun_after_its_deadline() {
    in_worlds(async |node| {
        let mut client = node.connect(0).await;
        let name = client.key_of(1);
        let Response::Put(first) = client.put(&name, b"first").await.response() else { panic!() };
        let mut keys = ListBuf::<Keys>::new();
        keys.push(&&name[..]).unwrap();
        let mut operations = ListBuf::<Operations>::new();
        operations.push(&BatchOperation::Delete { key: &name }).unwrap();
        let conditional = Put { write: write(&name), ttl: Ttl::Never, value: b"conditional" };
        let requests = [
            get(&name),
            Request::Stat(KeyRequest { namespace: 0, key: &name }),
            Request::MultiGet(MultiGet { namespace: 0, keys: keys.list() }),
            Request::Scan(scan(ScanKind::Ordered { shard: 1 })),
            put(&name, b"late"),
            Request::PutIf(conditional, Condition::Version(first.version)),
            Request::Update(Update { write: write(&name), operation: UpdateOperation::Append(b"x") }),
            Request::Delete(write(&name)),
            Request::DeleteIf(write(&name), Condition::Present),
            Request::Batch(Batch {
                namespace: 0,
                durability: Durability::Sync,
                stamp: None,
                operations: operations.list(),
            }),
        ];
        for (request, answer) in
            requests.iter().zip(ask_held_back(node, &mut client, 1, &requests, SHORT_US).await)
        {
            expect_late(request, &answer);
        }
        assert_eq!(client.get(&name).await.unwrap(), b"first");
        let told = info(&mut client).await;
        assert_eq!(counter(&told, "deadlines_missed"), requests.len() as u64, "{told}");

        // It was the deadline and not the delay: with more time all are begun.
        for (request, answer) in
            requests.iter().zip(ask_held_back(node, &mut client, 1, &requests, LONG_US).await)
        {
            let begun = match answer.response() {
                Response::Error { error, .. } => error.code == ErrorCode::ConditionFailed,
                _ => true,
            };
            assert!(begun, "{request:?} is answered {:?}", answer.response());
        }
    });
}

#[test]
fn a_namespace_is_not_created_after_the_deadline() {
    in_worlds(async |node| {
        let mut client = node.connect(1).await;
        let create = [Request::NamespaceCreate(NamespaceOptions { name: "late", default_ttl_ms: 0 })];
        let answers = ask_held_back(node, &mut client, 0, &create, SHORT_US).await;
        expect_late(&create[0], &answers[0]);
        let listed = client.call(&Request::NamespaceList).await;
        let Response::NamespaceList(list) = listed.response() else { panic!() };
        assert!(list.iter().all(|entry| entry.name != "late"));
        let answers = ask_held_back(node, &mut client, 0, &create, LONG_US).await;
        let Response::NamespaceCreate(_) = answers[0].response() else {
            panic!("{:?}", answers[0].response())
        };

        // Taken in in time, but its time ends while core 1 has not said that it obeys another change.
        let mut client = node.connect(0).await;
        node.served.hold_messages(1, 0);
        let mut frames = Vec::new();
        for (name, deadline_us) in [("first", LONG_US), ("second", SHORT_US)] {
            let create = Request::NamespaceCreate(NamespaceOptions { name, default_ttl_ms: 0 });
            client.encode(&create, deadline_us, &mut frames);
        }
        client.stream.write_all(&frames).await.unwrap();
        node.until(|| node.served.untaken_messages(1, 0) > 0).await;
        node.world.sleep(2 * Duration::from_micros(u64::from(SHORT_US))).await;
        node.served.release_messages(1, 0);
        let Response::NamespaceCreate(_) = client.receive().await.response() else { panic!() };
        expect_late(&create[0], &client.receive().await);
        assert_eq!(counter(&info(&mut client).await, "deadlines_missed"), 2);
    });
}

#[test]
fn a_write_whose_time_ends_while_tables_are_read_is_not_done() {
    let node = TestNode::start(11, |_| {});
    node.world.run_until(async {
        const KEYS: u32 = 3_000;
        let mut client = node.connect(0).await;
        for index in 0..KEYS {
            let Response::Put(_) = client.put(&key(index), &[b'v'; 400]).await.response() else { panic!() };
        }
        let mut late = 0;
        for index in (0..KEYS).step_by(100) {
            let name = key(index);
            let put = Put { write: write(&name), ttl: Ttl::Never, value: b"late" };
            let update = Request::PutIf(put, Condition::Present);
            let mut frame = Vec::new();
            client.encode(&update, 1, &mut frame);
            client.stream.write_all(&frame).await.unwrap();
            let answer = client.receive().await;
            if !matches!(answer.response(), Response::PutIf(_)) {
                expect_late(&update, &answer);
                assert_eq!(client.get(&name).await.unwrap(), [b'v'; 400]);
                late += 1;
            }
        }
        assert!(late > 0, "no key had to be looked up in a table");
        assert_eq!(counter(&info(&mut client).await, "deadlines_missed"), late);
    });
}

#[test]
fn the_part_of_a_request_that_comes_late_to_another_core_is_not_begun() {
    in_worlds(async |node| {
        let mut client = node.connect(0).await;
        let (own, foreign) = (client.key_of(0), client.key_of(1));
        let mut keys = ListBuf::<Keys>::new();
        let mut operations = ListBuf::<Operations>::new();
        for key in [&own, &foreign] {
            keys.push(&&key[..]).unwrap();
            operations.push(&BatchOperation::Put { key, value: b"batch", ttl: Ttl::Never }).unwrap();
        }
        let requests = [
            Request::MultiGet(MultiGet { namespace: 0, keys: keys.list() }),
            Request::Batch(Batch {
                namespace: 0,
                durability: Durability::Sync,
                stamp: None,
                operations: operations.list(),
            }),
        ];
        let answers = ask_held_back(node, &mut client, 1, &requests, SHORT_US).await;
        expect_late(&requests[0], &answers[0]);
        let Response::Batch(reply) = answers[1].response() else { panic!("{:?}", answers[1].response()) };
        let results: Vec<OperationResult> = reply.results.iter().collect();
        let late = matches!(
            results[1],
            OperationResult::Failed { code: ErrorCode::Deadline, outcome: Outcome::NotApplied, .. }
        );
        assert!(matches!(results[0], OperationResult::Applied(_)) && late, "{results:?}");
        assert_eq!(client.get(&own).await.unwrap(), b"batch");
        assert_eq!(client.get(&foreign).await, None);
        let told = info(&mut client).await;
        assert_eq!(counter(&told, "deadlines_missed"), requests.len() as u64, "{told}");
    });
}
