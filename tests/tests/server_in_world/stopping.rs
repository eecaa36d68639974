//! The end of a node: what is under way is answered, what was acknowledged stays, no core waits for
//! one that has ended.

use std::collections::BTreeMap;
use std::time::Duration;

use pinion_protocol::{ErrorCode, Response};

use super::client::{TestNode, put};
use super::{SEEDS, key};

#[test]
fn stopping_answers_what_is_under_way_and_keeps_it() {
    for seed in 0..SEEDS {
        let node = TestNode::start(seed, |_| {});
        let acknowledged = node.world.run_until(async {
            let mut client = node.connect(0).await;
            let mut frames = Vec::new();
            let asked: BTreeMap<u64, u32> = (0..200)
                .map(|index| (client.encode(&put(&key(index), b"kept"), 0, &mut frames), index))
                .collect();
            client.stream.write_all(&frames).await.unwrap();
            let mut answers = vec![client.receive().await];
            node.served.shut_down();
            answers.extend(client.receive_to_end().await);
            node.world.ended(node.served.node).await;
            let mut acknowledged = Vec::new();
            for answer in &answers {
                match answer.response() {
                    Response::Put(_) => acknowledged.push(asked[&answer.header.request_id]),
                    _ => assert_eq!(answer.error().code, ErrorCode::ShuttingDown),
                }
            }
            acknowledged
        });
        assert!(!acknowledged.is_empty());
        assert!(node.served.results.borrow().iter().all(Result::is_ok), "{:?}", node.served.results);

        // Fewer cores than shards.
        node.restart(1);
        node.world.run_until(async {
            let mut client = node.connect(0).await;
            assert_eq!(client.shard_cores, [0, 0]);
            for index in acknowledged {
                assert_eq!(client.get(&key(index)).await.unwrap(), b"kept");
            }
            node.served.shut_down();
            node.world.ended(node.served.node).await;
        });
        // More cores than shards.
        node.restart(3);
        node.world.run_until(async {
            let mut client = node.connect(2).await;
            assert_eq!(client.shard_cores, [0, 1]);
            client.put(b"through a core without data", b"v").await;
            assert_eq!(client.get(b"through a core without data").await.unwrap(), b"v");
        });
    }
}

#[test]
fn a_second_shutdown_ends_at_once() {
    let node = TestNode::start(1, |_| {});
    node.world.run_until(async {
        let _client = node.connect(0).await;
        node.served.shut_down();
        node.served.shut_down();
        node.world.ended(node.served.node).await;
    });
    assert!(node.served.results.borrow().iter().all(Result::is_err));
}

#[test]
fn a_core_stopped_before_it_serves_keeps_no_other_waiting() {
    for seed in 0..SEEDS {
        // Longer than this test has patience: a core that only goes on because such a wait has an end
        // is noticed, too.
        let node = TestNode::start(seed, |config| config.limits.drain_ms_max = 3_600_000);
        let served = &node.served;
        served.hold_messages(1, 0);
        node.world.run_until(async {
            while served.untaken_messages(1, 0) == 0 {
                node.world.sleep(Duration::from_millis(1)).await;
            }
            // Core 1 has said that it is ready; it does not hear that it may go.
            served.hold_messages(0, 1);
            served.release_messages(1, 0);
            let _client = node.connect(0).await;
            served.shut_down();
            // The node has nothing to do that would take any of this time.
            node.world.sleep(Duration::from_secs(60)).await;
        });
        let results = served.results.borrow();
        assert_eq!(
            results.len(),
            2,
            "seed {seed}: core 0 waits for core 1, which never served and has ended"
        );
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }
}

#[test]
fn the_directory_is_locked_until_the_last_core_has_ended() {
    let node = TestNode::start(1, |_| {});
    let served = &node.served;
    node.world.run_until(async {
        let mut client = node.connect(1).await;
        served.shut_down_core(0);
        served.shut_down_core(0);
        node.until(|| served.results.borrow().len() == 1).await;
        let own = client.key_of(1);
        let Response::Put(_) = client.put(&own, b"kept").await.response() else { panic!() };
        assert!(served.is_locked().await, "core 1 serves");
        served.shut_down_core(1);
        served.shut_down_core(1);
        node.world.ended(served.node).await;
    });
    node.restart(2);
    node.world.run_until(async {
        let mut client = node.connect(1).await;
        let own = client.key_of(1);
        assert_eq!(client.get(&own).await.unwrap(), b"kept");
    });
}
