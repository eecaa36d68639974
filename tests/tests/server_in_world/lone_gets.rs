//! Gets that come alone, on many connections at the same time: each is answered for itself, whatever happens to
//! its connection and to the others meanwhile.

use std::time::Duration;

use pinion_protocol::{ErrorCode, Response};
use pinion_tests::world::{LinkFaults, NodeId, Outside, Random};

use crate::SEEDS;
use crate::client::{Answer, Client, PORT, TestNode, get, machine};
use crate::key;

const CLIENTS: u64 = 48;
const STEPS: u32 = 50;
/// The records that are there, and keys that are asked for.
const KEYS: u32 = 60;
const ASKED: u64 = 70;
/// So many others are written after them that some of them lie in tables.
const OTHERS: u32 = 1_500;

fn value(index: u32) -> Vec<u8> {
    vec![index as u8; index as usize * 37 % 900]
}

/// One connection after the other, each with one request under way most of the time.
struct Caller {
    outside: Outside,
    node: NodeId,
    random: Random,
    client: Client,
    /// Of the key that only this one writes.
    own: Option<Vec<u8>>,
    own_key: Vec<u8>,
}

impl Caller {
    async fn connect(outside: &Outside, node: NodeId) -> Client {
        let mut client = Client::new(outside.connect(node, PORT).await.expect("the node listens"));
        client.say_hello(Some(0)).await;
        client
    }

    async fn run(outside: Outside, node: NodeId, seed: u64, number: u64) {
        let client = Self::connect(&outside, node).await;
        let own_key = format!("own-{number}").into_bytes();
        let random = Random::labelled(seed, number);
        let mut caller = Self { outside, node, random, client, own: None, own_key };
        for _ in 0..STEPS {
            caller.step().await;
        }
    }

    fn draw(&mut self) -> u32 {
        self.random.below(ASKED) as u32
    }

    async fn step(&mut self) {
        let index = self.draw();
        match self.random.below(16) {
            // The second comes while the first is answered, or before.
            0 => {
                let other = self.draw();
                let ids =
                    [self.client.send(&get(&key(index))).await, self.client.send(&get(&key(other))).await];
                let mut answers = [self.client.receive().await, self.client.receive().await];
                answers.sort_by_key(|answer| answer.header.request_id);
                for ((answer, id), index) in answers.iter().zip(ids).zip([index, other]) {
                    assert_eq!(answer.header.request_id, id);
                    expect_value(answer, index);
                }
            }
            // It goes some time after it is answered.
            1 => {
                self.client.send(&get(&key(index))).await;
                self.client = Self::connect(&self.outside, self.node).await;
            }
            // It goes at once: the end of the stream may come with the request.
            2 => {
                let next = Self::connect(&self.outside, self.node).await;
                let mut client = std::mem::replace(&mut self.client, next);
                client.send(&get(&key(index))).await;
            }
            3 => {
                let value = vec![index as u8; self.random.below(3_000) as usize];
                let Response::Put(_) = self.client.put(&self.own_key, &value).await.response() else {
                    panic!("a put is answered by something else")
                };
                self.own = Some(value);
            }
            4 => assert_eq!(self.client.get(&self.own_key).await, self.own),
            // Not whole at first.
            5 => {
                let mut frame = Vec::new();
                self.client.encode(&get(&key(index)), 0, &mut frame);
                let cut = self.random.between(1, frame.len() as u64 - 1) as usize;
                self.client.stream.write_all(&frame[..cut]).await.expect("the node listens");
                self.outside.sleep(Duration::from_micros(self.random.below(100))).await;
                self.client.stream.write_all(&frame[cut..]).await.expect("the node listens");
                expect_value(&self.client.receive().await, index);
            }
            6 => {
                let mut frame = Vec::new();
                let deadline_us = self.random.between(1, 200) as u32;
                self.client.encode(&get(&key(index)), deadline_us, &mut frame);
                self.client.stream.write_all(&frame).await.expect("the node listens");
                let answer = self.client.receive().await;
                match answer.response() {
                    Response::Error { error, .. } => assert_eq!(error.code, ErrorCode::Deadline),
                    _ => expect_value(&answer, index),
                }
            }
            _ => expect_value(&self.client.call(&get(&key(index))).await, index),
        }
    }
}

fn expect_value(answer: &Answer, index: u32) {
    assert_eq!(answer.value(), (index < KEYS).then(|| value(index)), "{index}");
}

#[test]
fn each_get_that_comes_alone_has_the_answer_to_itself() {
    let mut together_max = 0;
    for seed in 0..2 * SEEDS {
        let node = TestNode::start_on(machine(1), seed, |_| {});
        if seed % 2 == 0 {
            node.world.keep_pieces_whole();
        }
        node.world.run_until(async {
            let mut client = node.connect(0).await;
            for index in 0..KEYS {
                client.put(&key(index), &value(index)).await;
            }
            for index in 0..OTHERS {
                client.put(&key(10_000 + index), &[7; 400]).await;
            }
            let late = LinkFaults {
                late_one_in: 20,
                late_max: Duration::from_micros(300),
                clog_one_in: 50,
                clog_max: Duration::from_millis(1),
                ..LinkFaults::NONE
            };
            node.world.set_link_faults(late);
            let outside = node.world.outside();
            let callers: Vec<_> = (0..CLIENTS)
                .map(|number| node.world.spawn(Caller::run(outside.clone(), node.served.node, seed, number)))
                .collect();
            for caller in callers {
                caller.await;
            }
        });
        together_max = together_max.max(node.world.answered_together_max());
    }
    assert!(together_max >= 12, "at most {together_max} came together");
}
