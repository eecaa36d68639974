//! Namespaces over the wire: every core knows of a change before it is answered, and what is dropped
//! gives its space back.

use std::ops::Range;
use std::time::Duration;

use pinion_protocol::{
    ErrorCode, KeyRequest, Keys, ListBuf, MultiGet, NamespaceOptions, Put, Request, Response, Ttl, Write,
};

use super::client::{Client, TestNode, write};
use super::{counter, in_worlds, info, key};

#[test]
fn namespaces_are_known_and_forgotten_by_all_cores_at_once() {
    in_worlds(async |node| {
        let (mut zero, mut one) = (node.connect(0).await, node.connect(1).await);
        let create = Request::NamespaceCreate(NamespaceOptions { name: "books", default_ttl_ms: 40 });
        let Response::NamespaceCreate(namespace) = one.call(&create).await.response() else { panic!() };
        assert_eq!(zero.call(&create).await.error().code, ErrorCode::NamespaceExists);
        for (client, index) in [(&mut zero, 1), (&mut one, 2)] {
            let answer = client.call(&Request::NamespaceList).await;
            let Response::NamespaceList(list) = answer.response() else { panic!() };
            let names: Vec<_> =
                list.iter().map(|entry| (entry.id, entry.name, entry.default_ttl_ms)).collect();
            assert_eq!(names, [(0, "default", 0), (namespace, "books", 40)]);
            let name = key(index);
            let in_books = Write { namespace, ..write(&name) };
            let put = Request::Put(Put { write: in_books, ttl: Ttl::NamespaceDefault, value: b"v" });
            let Response::Put(written) = client.call(&put).await.response() else { panic!() };
            assert!(written.expiry_ms > 0);
            let get = Request::Get(KeyRequest { namespace, key: &name });
            assert_eq!(client.call(&get).await.value().unwrap(), b"v");
            assert_eq!(client.get(&name).await, None);
        }
        let set = Request::NamespaceSet(NamespaceOptions { name: "books", default_ttl_ms: 0 });
        let Response::NamespaceSet(_) = zero.call(&set).await.response() else { panic!() };
        let Response::NamespaceDrop(dropped) = zero.call(&Request::NamespaceDrop("books")).await.response()
        else {
            panic!()
        };
        assert_eq!(dropped, namespace);
        for client in [&mut zero, &mut one] {
            for index in 1..3 {
                let get = Request::Get(KeyRequest { namespace, key: &key(index) });
                assert_eq!(client.call(&get).await.error().code, ErrorCode::NoSuchNamespace);
            }
            let mut keys = ListBuf::<Keys>::new();
            (1..3).for_each(|index| keys.push(&key(index).as_slice()).unwrap());
            let many = Request::MultiGet(MultiGet { namespace, keys: keys.list() });
            assert_eq!(client.call(&many).await.error().code, ErrorCode::NoSuchNamespace);
        }
        assert_eq!(one.call(&Request::NamespaceDrop("books")).await.error().code, ErrorCode::NoSuchNamespace);
        assert_eq!(one.call(&Request::NamespaceDrop("default")).await.error().code, ErrorCode::BadRequest);
        let Response::NamespaceCreate(again) = one.call(&create).await.response() else { panic!() };
        assert_ne!(again, namespace);
    });
}

#[test]
fn dropped_namespaces_give_back_their_space_and_are_not_counted() {
    let node = TestNode::start(12, |_| {});
    node.world.run_until(async {
        let mut client = node.connect(0).await;
        for round in 0..1_100_u32 {
            let namespace = create(&mut client, "brief").await;
            put_in(&mut client, namespace, round..round + 1).await;
            let Response::NamespaceDrop(_) = client.call(&Request::NamespaceDrop("brief")).await.response()
            else {
                panic!("drop {round} is refused")
            };
        }
        let namespace = create(&mut client, "large").await;
        put_in(&mut client, 0, 0..800).await;
        put_in(&mut client, namespace, 0..4_000).await;
        let full = counter(&info(&mut client).await, "table_bytes");
        assert!(full > 1 << 20, "{full}");
        let Response::NamespaceDrop(_) = client.call(&Request::NamespaceDrop("large")).await.response()
        else {
            panic!()
        };
    });
    // It is over before the node has done much about it.
    node.world.crash(node.served.node);
    node.restart(2);
    node.world.run_until(async {
        let mut client = node.connect(1).await;
        let mut tries = 0;
        // 800 records of 400 bytes are left.
        while counter(&info(&mut client).await, "table_bytes") > 600 << 10 {
            node.world.sleep(Duration::from_millis(100)).await;
            tries += 1;
            assert!(tries < 600, "{}", info(&mut client).await);
        }
        for index in (0..800).step_by(17) {
            assert!(client.get(&key(index)).await.is_some());
        }
    });
}

async fn create(client: &mut Client, name: &str) -> u32 {
    let create = Request::NamespaceCreate(NamespaceOptions { name, default_ttl_ms: 0 });
    let Response::NamespaceCreate(namespace) = client.call(&create).await.response() else { panic!() };
    namespace
}

/// Puts 400 bytes under each of these keys of a namespace.
async fn put_in(client: &mut Client, namespace: u32, indexes: Range<u32>) {
    let value = [7; 400];
    for first in indexes.clone().step_by(200) {
        let mut frames = Vec::new();
        let last = indexes.end.min(first + 200);
        for index in first..last {
            let name = key(index);
            let write = Write { namespace, ..write(&name) };
            let put = Request::Put(Put { write, ttl: Ttl::NamespaceDefault, value: &value });
            client.encode(&put, 0, &mut frames);
        }
        client.stream.write_all(&frames).await.expect("the node takes requests");
        for _ in first..last {
            let Response::Put(_) = client.receive().await.response() else { panic!() };
        }
    }
}
