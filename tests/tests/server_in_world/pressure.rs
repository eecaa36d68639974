//! Clients that make the node hold memory: others are served, and the sums stay under their bounds.

use std::time::Duration;

use pinion_protocol::{ErrorCode, Outcome, Request, Response};

use super::client::{Client, TestNode, get, put};
use super::{SEEDS, counter, info};

/// Bytes of the values here: close to the largest.
const VALUE_BYTES: usize = 60 << 10;

/// A key that core 0 owns.
async fn own_key(client: &Client) -> Vec<u8> {
    let names = (0..).map(|number| format!("key {number}").into_bytes());
    names.into_iter().find(|name| client.owner(name) == 0).expect("both cores own keys")
}

#[test]
fn a_connection_for_any_core_goes_where_there_is_room() {
    for seed in 0..SEEDS {
        let node = TestNode::start(seed, |config| config.limits.connections_max = 8);
        node.world.run_until(async {
            let mut open = Vec::new();
            for _ in 0..4 {
                open.push(node.connect(0).await);
            }
            for number in 0..4 {
                let mut client = node.connect_bare().await;
                client.say_hello(None).await;
                assert_eq!(client.core, 1, "number {number}");
                open.push(client);
            }
            for wanted in [None, Some(0), Some(1)] {
                let mut refused = node.connect_bare().await;
                refused.stream.write_all(&Client::opening(wanted)).await.unwrap();
                let answers = refused.receive_to_end().await;
                assert_eq!(answers[0].error().code, ErrorCode::TooManyConnections);
            }
        });
    }
}

#[test]
fn of_frames_that_stay_open_the_oldest_goes() {
    for seed in 0..SEEDS {
        let node = TestNode::start(seed, |config| config.limits.core_gather_bytes_max = 128 << 10);
        node.world.run_until(async {
            let mut honest = node.connect(0).await;
            let key = own_key(&honest).await;
            let mut half_open = Vec::new();
            for _ in 0..8 {
                let mut client = node.connect(0).await;
                let mut frame = Vec::new();
                let id = client.encode(&put(b"never", &[1; VALUE_BYTES]), 0, &mut frame);
                // Those that were told to go may be gone.
                let _ = client.stream.write_all(&frame[..frame.len() / 2]).await;
                half_open.push((client, id));
                node.world.sleep(Duration::from_millis(5)).await;
                // An honest frame in pieces goes through.
                let mut frame = Vec::new();
                honest.encode(&put(&key, &[2; VALUE_BYTES]), 0, &mut frame);
                let (front, rest) = frame.split_at(frame.len() / 2);
                honest.stream.write_all(front).await.unwrap();
                node.world.sleep(Duration::from_millis(1)).await;
                honest.stream.write_all(rest).await.unwrap();
                let Response::Put(_) = honest.receive().await.response() else { panic!() };
            }
            let told = info(&mut honest).await;
            let evicted = counter(&told, "gathers_evicted");
            assert!(evicted > 0, "{told}");
            assert!(counter(&told, "gathered_bytes") <= 128 << 10, "{told}");
            // The first was the oldest; it was told so by the id of its request.
            let (mut first, id) = half_open.remove(0);
            let answers = first.receive_to_end().await;
            assert_eq!(answers.len(), 1);
            assert_eq!(answers[0].header.request_id, id);
            let error = answers[0].error();
            assert_eq!((error.code, error.outcome), (ErrorCode::Overloaded, Outcome::NotApplied));
            // The last was not.
            let (last, _) = half_open.pop().unwrap();
            drop((first, half_open));
            node.world.sleep(Duration::from_millis(100)).await;
            let told = info(&mut honest).await;
            assert!(counter(&told, "gathered_bytes") > VALUE_BYTES as u64 / 4, "{told}");
            drop(last);
            node.world.sleep(Duration::from_millis(100)).await;
            let told = info(&mut honest).await;
            // But the question's own bytes, if it came in pieces.
            assert!(counter(&told, "gathered_bytes") < 64, "{told}");
        });
    }
}

#[test]
fn answers_that_nobody_takes_are_bounded_and_do_not_shut_others_out() {
    const CORE_OUT_BYTES_MAX: u64 = 512 << 10;
    for seed in 0..SEEDS {
        let node = TestNode::start(seed, |config| {
            config.limits.connection_out_bytes_max = 64 << 10;
            config.limits.core_out_bytes_max = CORE_OUT_BYTES_MAX;
            config.limits.send_stall_ms_max = 200;
        });
        node.world.run_until(async {
            let mut honest = node.connect(0).await;
            let key = own_key(&honest).await;
            let Response::Put(_) = honest.put(&key, &[3; VALUE_BYTES]).await.response() else { panic!() };
            let mut silent = Vec::new();
            for _ in 0..40 {
                let mut client = node.connect(0).await;
                let mut frames = Vec::new();
                for _ in 0..30 {
                    client.encode(&get(&key), 0, &mut frames);
                }
                client.stream.write_all(&frames).await.unwrap();
                silent.push(client);
                let told = info(&mut honest).await;
                let waiting = counter(&told, "answer_bytes");
                // One answer may pass the bound, and this one's head.
                assert!(waiting <= CORE_OUT_BYTES_MAX + (65 << 10), "{waiting}");
            }
            // As a client does: again after what the refusal says.
            let mut tries = 0;
            loop {
                let answer = honest.call(&get(&key)).await;
                match answer.response() {
                    Response::Get(reply) => break assert_eq!(reply.value.unwrap().bytes.len(), VALUE_BYTES),
                    Response::Error { error, .. } => {
                        assert_eq!(error.code, ErrorCode::Overloaded);
                        node.world.sleep(Duration::from_millis(u64::from(error.retry_after_ms))).await;
                    }
                    other => panic!("{other:?}"),
                }
                tries += 1;
                assert!(tries < 100, "others are shut out");
            }
            // Writes are answered all the while.
            let Response::Put(_) = honest.put(&key, b"small").await.response() else { panic!() };
            let told = info(&mut honest).await;
            assert!(counter(&told, "connections_stuck") > 0, "{told}");
            drop(silent);
            node.world.sleep(Duration::from_secs(1)).await;
            let Response::Ping(_) = honest.call(&Request::Ping(b"")).await.response() else { panic!() };
            let told = info(&mut honest).await;
            assert_eq!(counter(&told, "answer_bytes"), 0, "{told}");
        });
    }
}
