//! Clients that do not read, and commands that do not end: others are served, and memory is bounded.

use std::time::Duration;

use pinion_tests::resp::{Reply, encode, words};

use super::client::RespClient;
use crate::client::TestNode;
use crate::{SEEDS, counter, info};

const VALUE_BYTES: usize = 60 << 10;
const CORE_OUT_BYTES_MAX: u64 = 512 << 10;

/// A node that holds little for those who do not read.
fn start_small(seed: u64) -> TestNode {
    TestNode::start(seed, |config| {
        config.limits.connection_out_bytes_max = 64 << 10;
        config.limits.core_out_bytes_max = CORE_OUT_BYTES_MAX;
        config.limits.send_stall_ms_max = 200;
    })
}

#[test]
fn a_pipeline_that_is_never_read_does_not_grow() {
    for seed in 0..SEEDS {
        let node = start_small(seed);
        node.world.run_until(async {
            let mut honest = RespClient::connect(&node).await;
            let value = "x".repeat(VALUE_BYTES);
            for key in ["a", "b", "c"] {
                assert_eq!(honest.call(&["SET", key, &value]).await, Reply::ok());
            }
            let mut native = node.connect(0).await;
            let mut silent = Vec::new();
            for _ in 0..30 {
                let mut client = RespClient::connect(&node).await;
                let mut bytes = Vec::new();
                for _ in 0..10 {
                    for args in [
                        words(["GET", "a"]),
                        words(["GETEX", "b", "PERSIST"]),
                        words(["MGET", "a", "b", "c"]),
                        words(["SET", "d", "small"]),
                        words(["GET", "c"]),
                    ] {
                        encode(&args, &mut bytes);
                    }
                }
                client.send_bytes(&bytes).await;
                silent.push(client);
                let told = info(&mut native).await;
                let waiting = counter(&told, "answer_bytes");
                // On each of two cores one answer may pass the bound, and what is held back counts until
                // the last of it has had its turn.
                let bound = 2 * (CORE_OUT_BYTES_MAX + (512 << 10));
                assert!(waiting <= bound, "{waiting}");
            }
            let mut tries = 0;
            loop {
                let reply = honest.call(&["GET", "a"]).await;
                if reply == Reply::bulk(&value) {
                    break;
                }
                assert!(reply.error().starts_with("OVERLOADED "), "{reply:?}");
                node.world.sleep(Duration::from_millis(10)).await;
                tries += 1;
                assert!(tries < 100, "others are shut out");
            }
            assert_eq!(honest.call(&["SET", "e", "v"]).await, Reply::ok());
            drop(silent);
            node.world.sleep(Duration::from_secs(1)).await;
            let told = info(&mut native).await;
            assert_eq!(counter(&told, "answer_bytes"), 0, "{told}");
        });
    }
}

#[test]
fn what_is_only_sent_back_is_bounded_too() {
    for seed in 0..SEEDS {
        let node = start_small(seed);
        node.world.run_until(async {
            let mut native = node.connect(0).await;
            let mut bytes = Vec::new();
            encode(&words(["ECHO", &"x".repeat(VALUE_BYTES)]), &mut bytes);
            let mut silent = Vec::new();
            for _ in 0..40 {
                let mut client = RespClient::connect(&node).await;
                client.send_bytes(&bytes).await;
                silent.push(client);
                let waiting = counter(&info(&mut native).await, "answer_bytes");
                // On each of two cores one answer may pass the bound.
                assert!(waiting <= 2 * (CORE_OUT_BYTES_MAX + (64 << 10)), "{waiting}");
            }
            assert!(counter(&info(&mut native).await, "overloaded") > 0);
        });
    }
}

#[test]
fn of_commands_that_stay_open_the_oldest_goes() {
    for seed in 0..SEEDS {
        let node = TestNode::start(seed, |config| {
            config.limits.core_gather_bytes_max = 128 << 10;
        });
        node.world.run_until(async {
            let mut bytes = Vec::new();
            encode(&words(["SET", "never", &"x".repeat(VALUE_BYTES)]), &mut bytes);
            let mut half_open = Vec::new();
            for _ in 0..24 {
                let mut client = RespClient::connect(&node).await;
                client.send_bytes(&bytes[..bytes.len() / 2]).await;
                half_open.push(client);
                node.world.sleep(Duration::from_millis(5)).await;
            }
            let reply = half_open.remove(0).receive().await;
            assert!(reply.error().starts_with("OVERLOADED too many bytes of incomplete"), "{reply:?}");
            let mut native = node.connect(0).await;
            let told = info(&mut native).await;
            assert!(counter(&told, "gathered_bytes") <= 2 * (128 << 10), "{told}");
            drop(half_open);
            node.world.sleep(Duration::from_secs(1)).await;
            let told = info(&mut native).await;
            assert!(counter(&told, "gathered_bytes") < 64, "{told}");
        });
    }
}
