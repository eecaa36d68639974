//! Requests that come together in one chunk: each is answered for itself, whatever stands beside it.

use std::collections::BTreeMap;

use pinion_protocol::{ErrorCode, KeyRequest, Request, Response};

use crate::client::{TestNode, get, put, write};
use crate::{counter, in_worlds, info, key};

/// What a request of the tests is answered with.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Value(Option<Vec<u8>>),
    Refused(ErrorCode),
    Written,
    Pong,
    Bytes(u32),
}

fn value(index: u32) -> Vec<u8> {
    vec![index as u8; index as usize % 700]
}

#[test]
fn gets_and_whatever_stands_between_them_are_all_answered() {
    in_worlds(async |node| {
        let mut client = node.connect(0).await;
        for index in 0..40 {
            client.put(&key(index), &value(index)).await;
        }
        client.put(b"overwritten", b"old").await;
        client.put(b"overwritten", b"new").await;
        client.put(b"deleted", b"gone").await;
        client.call(&Request::Delete(write(b"deleted"))).await;
        let keys: Vec<_> = (0..40).map(key).collect();
        let mut asked: Vec<(Request<'_>, Said)> =
            (0..).zip(&keys).map(|(index, key)| (get(key), Said::Value(Some(value(index))))).collect();
        let others = [
            (get(b"missing"), Said::Value(None)),
            (get(b"overwritten"), Said::Value(Some(b"new".to_vec()))),
            (get(b"deleted"), Said::Value(None)),
            (get(b""), Said::Refused(ErrorCode::TooLarge)),
            (put(b"beside", b"a put"), Said::Written),
            (Request::Get(KeyRequest { namespace: 5, key: b"k" }), Said::Refused(ErrorCode::NoSuchNamespace)),
            (Request::Ping(b"hello"), Said::Pong),
            (Request::Stat(KeyRequest { namespace: 0, key: b"overwritten" }), Said::Bytes(3)),
        ];
        for (at, other) in others.into_iter().enumerate() {
            asked.insert(at * 5, other);
        }
        let before = counter(&info(&mut client).await, "gets_in_memory");
        for turn in 0..asked.len() {
            // Every request stands everywhere in its chunk once.
            asked.rotate_left(1);
            let (mut frames, mut expected) = (Vec::new(), BTreeMap::new());
            for (request, said) in &asked {
                expected.insert(client.encode(request, 0, &mut frames), said);
            }
            client.stream.write_all(&frames).await.unwrap();
            while !expected.is_empty() {
                let answer = client.receive().await;
                let said = match answer.response() {
                    Response::Get(reply) => Said::Value(reply.value.map(|value| value.bytes.to_vec())),
                    Response::Error { error, .. } => Said::Refused(error.code),
                    Response::Put(_) => Said::Written,
                    Response::Ping(_) => Said::Pong,
                    Response::Stat(reply) => Said::Bytes(reply.stat.expect("it is there").value_bytes),
                    other => panic!("{other:?}"),
                };
                let right = expected.remove(&answer.header.request_id).expect("answered once");
                assert_eq!(said, *right, "turn {turn}");
            }
        }
        // 43 gets that a core can answer and one stat, each counted once.
        let after = counter(&info(&mut client).await, "gets_in_memory");
        assert_eq!(after - before, 44 * asked.len() as u64);
    });
}

#[test]
fn gets_that_need_a_table_do_not_hold_up_the_others() {
    let node = TestNode::start(3, |_| {});
    node.world.run_until(async {
        let mut client = node.connect(0).await;
        for index in 0..3_000 {
            client.put(&key(index), &vec![index as u8; 400]).await;
        }
        let before = info(&mut client).await;
        let (mut frames, mut asked) = (Vec::new(), BTreeMap::new());
        // The first are in tables, the last in a memtable.
        for index in (0..100).flat_map(|index| [index, 2_999 - index]) {
            asked.insert(client.encode(&get(&key(index)), 0, &mut frames), index);
        }
        client.stream.write_all(&frames).await.unwrap();
        while !asked.is_empty() {
            let answer = client.receive().await;
            let index = asked.remove(&answer.header.request_id).expect("answered once");
            assert_eq!(answer.value(), Some(vec![index as u8; 400]), "{index}");
        }
        let after = info(&mut client).await;
        let more = |name| counter(&after, name) - counter(&before, name);
        let (in_memory, from_disk) = (more("gets_in_memory"), more("gets_from_disk"));
        assert_eq!(in_memory + from_disk, 200);
        assert!(in_memory >= 50 && from_disk > 0, "{in_memory} in memory, {from_disk} from tables");
    });
}
