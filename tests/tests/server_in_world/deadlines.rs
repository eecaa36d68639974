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

/// A key that a core owns.
fn key_of(client: &Client, core: u16) -> Vec<u8> {
    (0..).map(key).find(|key| client.owner(key) == core).expect("both cores own keys")
}

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
    while node.served.untaken_messages(from, to) < requests.len() {
        node.world.sleep(Duration::from_millis(1)).await;
    }
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
        let name = key_of(&client, 1);
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
    });
}

#[test]
fn the_part_of_a_request_that_comes_late_to_another_core_is_not_begun() {
    in_worlds(async |node| {
        let mut client = node.connect(0).await;
        let (own, foreign) = (key_of(&client, 0), key_of(&client, 1));
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
    });
}
