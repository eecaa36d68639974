//! The end of a node: what is under way is answered, what was acknowledged stays, no core waits for
//! one that has ended, and none ends while another may need it.

use std::collections::BTreeMap;
use std::time::Duration;

use pinion_protocol::{ErrorCode, Response};
use pinion_server::ServerConfig;
use pinion_tests::world::NodeConfig;

use super::client::{TestNode, get, machine, put};
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

/// Longer than [`PATIENCE`]: a core that only goes on because a wait has an end is noticed, too.
fn patient(config: &mut ServerConfig) {
    config.limits.drain_ms_max = 3_600_000;
}

/// Nodes with nothing to do stop in far less.
const PATIENCE: Duration = Duration::from_secs(60);

/// All cores end, and well.
async fn expect_stopped(node: &TestNode, cores: usize, case: &str) {
    node.world.sleep(PATIENCE).await;
    let results = node.served.results.borrow();
    assert_eq!(results.len(), cores, "{case}: {} cores still wait", cores - results.len());
    assert!(results.iter().all(Result::is_ok), "{case}: {results:?}");
}

/// Starts a node and holds back the message that core 1, which is ready, may serve.
async fn hold_back_core_1(node: &TestNode) {
    let served = &node.served;
    served.hold_messages(1, 0);
    node.until(|| served.untaken_messages(1, 0) > 0).await;
    served.hold_messages(0, 1);
    served.release_messages(1, 0);
    node.until(|| served.untaken_messages(0, 1) > 0).await;
}

#[test]
fn a_core_stopped_before_it_serves_answers_those_that_do() {
    for seed in 0..SEEDS {
        let node = TestNode::start(seed, patient);
        let served = &node.served;
        node.world.run_until(async {
            hold_back_core_1(&node).await;
            let mut client = node.connect(0).await;
            let foreign = client.key_of(1);
            client.send(&put(&foreign, b"v")).await;
            node.until(|| served.untaken_messages(0, 1) > 1).await;
            served.shut_down_core(1);
            node.world.sleep(PATIENCE).await;
            served.release_messages(0, 1);
            assert_eq!(client.receive().await.error().code, ErrorCode::ShuttingDown);
            served.shut_down_core(0);
            expect_stopped(&node, 2, &format!("seed {seed}")).await;
        });
    }
}

#[test]
fn core_0_stopped_before_it_serves_waits_for_those_that_do() {
    for seed in 0..SEEDS {
        let node = TestNode::start(seed, patient);
        let served = &node.served;
        // Of itself, core 0 hears last that it is ready, and then that it has to stop.
        served.hold_messages(0, 0);
        node.world.run_until(async {
            node.until(|| served.untaken_messages(0, 0) > 0).await;
            served.shut_down_core(0);
            node.world.sleep(PATIENCE).await;
            served.release_messages(0, 0);

            let mut client = node.connect(1).await;
            node.world.sleep(PATIENCE).await;
            assert_eq!(served.results.borrow().len(), 0, "seed {seed}: core 0 has ended, core 1 serves");
            let (own, foreign) = (client.key_of(1), client.key_of(0));
            let Response::Put(_) = client.put(&own, b"v").await.response() else { panic!() };
            assert_eq!(client.put(&foreign, b"v").await.error().code, ErrorCode::ShuttingDown);
            served.shut_down_core(1);
            expect_stopped(&node, 2, &format!("seed {seed}")).await;
        });
    }
}

#[test]
fn what_a_stopping_core_says_waits_for_room_in_a_full_queue() {
    const MESSAGES_MAX: usize = 16;
    for seed in 0..SEEDS {
        let small = NodeConfig { messages_max: MESSAGES_MAX, ..machine(3) };
        let node = TestNode::start_on(small, seed, patient);
        let served = &node.served;
        node.world.run_until(async {
            hold_back_core_1(&node).await;
            let mut client = node.connect(2).await;
            // Core 0 does not keep up with what core 2 forwards.
            served.hold_messages(2, 0);
            let (foreign, mut frames) = (client.key_of(0), Vec::new());
            (0..MESSAGES_MAX).for_each(|_| _ = client.encode(&get(&foreign), 0, &mut frames));
            client.stream.write_all(&frames).await.unwrap();
            node.until(|| served.untaken_messages(2, 0) == MESSAGES_MAX).await;
            served.shut_down_core(1);
            node.world.sleep(PATIENCE).await;
            served.release_messages(2, 0);
            for _ in 0..MESSAGES_MAX {
                assert_eq!(client.receive().await.value(), None);
            }
            served.release_messages(0, 1);
            served.shut_down_core(0);
            served.shut_down_core(2);
            expect_stopped(&node, 3, &format!("seed {seed}")).await;
        });
    }
}

#[test]
fn a_node_told_to_stop_at_any_moment_of_its_start_stops() {
    /// From before the first core has begun until all serve.
    const MOMENTS: u64 = 40;
    const MOMENT: Duration = Duration::from_millis(1);
    for cores in 1..=3 {
        for moment in 0..MOMENTS {
            let node = TestNode::start_on(machine(cores), moment, patient);
            node.world.run_until(async {
                node.world.sleep(MOMENT * moment as u32).await;
                // The first to be told is another one each time, as is the time until all are.
                for core in 0..cores {
                    node.served.shut_down_core((core + moment as usize) % cores);
                    node.world.sleep(MOMENT * (moment % 3) as u32).await;
                }
                expect_stopped(&node, cores, &format!("{cores} cores, moment {moment}")).await;
            });
            node.restart(cores);
            node.world.run_until(async {
                let mut client = node.connect(0).await;
                let Response::Put(_) = client.put(b"k", b"v").await.response() else { panic!() };
            });
        }
    }
}

#[test]
fn the_directory_is_locked_until_the_last_core_has_ended() {
    let node = TestNode::start(1, patient);
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
