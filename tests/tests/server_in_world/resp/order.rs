//! Replies in order, and each command seeing what those before it wrote, whatever is under way.

use pinion_tests::resp::{Args, Reply, encode, words};
use pinion_tests::trials::Class;

use super::client::RespClient;
use crate::client::{Client, TestNode};
use crate::{SEEDS, counter, in_worlds, info};

#[test]
fn pipelines_of_any_mix_answer_as_one_command_after_the_other() {
    let counts = Class::submit("resp-pipelines");
    // What makes it hard has happened.
    for name in ["commands_delayed", "forwarded", "gets_from_disk", "flushes"] {
        assert!(counts.get(name) > counts.get("pipelines") / 20, "{name}: {counts}");
    }
}

fn shown(args: &Args) -> Vec<String> {
    args.iter().map(|arg| arg.escape_ascii().to_string()).collect()
}

#[test]
fn a_pipeline_on_data_larger_than_memory_keeps_its_order() {
    let node = TestNode::start(21, |_| {});
    node.world.run_until(async {
        let mut client = RespClient::connect(&node).await;
        let key = |number: u32| format!("key:{number}");
        for round in 0..20 {
            let puts: Vec<Args> =
                (0..150).map(|at| words(["SET", &key(round * 150 + at), &"7".repeat(400)])).collect();
            client.send(&puts).await;
            assert!(client.receive_all(150).await.iter().all(|reply| *reply == Reply::ok()));
        }
        // What stands in tables is read while others on the same key wait, and on other keys do not.
        let (mut commands, mut expected) = (Vec::new(), Vec::new());
        for number in 0..40 {
            let key = key(number);
            commands.extend([
                words(["STRLEN", &key]),
                words(["GETSET", &key, "1"]),
                words(["INCR", &key]),
                words(["GET", &key]),
                words(["DEL", &key, "no such key"]),
                words(["EXISTS", &key, "key:2999"]),
                words(["SETNX", &key, "new"]),
            ]);
            expected.extend([
                Reply::Integer(400),
                Reply::bulk("7".repeat(400)),
                Reply::Integer(2),
                Reply::bulk("2"),
                Reply::Integer(1),
                Reply::Integer(1),
                Reply::Integer(1),
            ]);
        }
        client.send(&commands).await;
        for (args, expected) in commands.iter().zip(expected) {
            assert_eq!(client.receive().await, expected, "{:?}", shown(args));
        }
        let mut native = node.connect(0).await;
        let told = info(&mut native).await;
        assert!(counter(&told, "gets_from_disk") > 0 && counter(&told, "commands_delayed") > 0, "{told}");
    });
}

#[test]
fn sets_of_one_pipeline_share_their_commits() {
    in_worlds(async |node| {
        let mut native = node.connect(0).await;
        let mut client = RespClient::connect(node).await;
        let commits = async |native: &mut Client| counter(&info(native).await, "log_commits");
        for commands in [
            (0..200).map(|at| words(["SET", &format!("key:{at}"), "v"])).collect::<Vec<_>>(),
            (0..200).map(|_| words(["SET", "one key", "v"])).collect(),
            (0..200).map(|at| words(["MSET", &format!("a:{at}"), "v", &format!("b:{at}"), "v"])).collect(),
        ] {
            let before = commits(&mut native).await;
            client.send(&commands).await;
            assert!(client.receive_all(200).await.iter().all(|reply| *reply == Reply::ok()));
            let commits = commits(&mut native).await - before;
            assert!(commits <= 40, "{commits} commits for 200 writes: {:?}", shown(&commands[0]));
        }
        // Numbers, too, where the core of the connection owns the key: decided before they are durable.
        for core in 0..2 {
            let key = String::from_utf8(native.key_of(core)).unwrap();
            let mut client = RespClient::connect_to(node, core).await;
            client.call(&["SET", &key, "0"]).await;
            let before = commits(&mut native).await;
            client.send(&(0..100).map(|_| words(["INCR", &key])).collect::<Vec<_>>()).await;
            let expected: Vec<Reply> = (1..=100).map(Reply::Integer).collect();
            assert_eq!(client.receive_all(100).await, expected);
            let commits = commits(&mut native).await - before;
            assert!(commits <= 20, "{commits} commits for 100 numbers");
        }
    });
}

#[test]
fn the_last_commands_of_a_client_that_stops_sending_are_answered() {
    in_worlds(async |node| {
        let mut client = RespClient::connect(node).await;
        let mut bytes = Vec::new();
        for args in [words(["SET", "k", "v"]), words(["GET", "k"]), words(["APPEND", "k", "w"])] {
            encode(&args, &mut bytes);
        }
        // The command that waits comes in two chunks.
        let (front, back) = bytes.split_at(40);
        client.send_bytes(front).await;
        client.send_bytes(back).await;
        client.send_bytes(b"GET k\r\nQUIT\r\n").await;
        let replies = client.receive_all(5).await;
        let expected = [Reply::ok(), Reply::bulk("v"), Reply::Integer(2), Reply::bulk("vw"), Reply::ok()];
        assert_eq!(replies, expected);
        assert_eq!(client.try_receive().await, None);
    });
}

#[test]
fn refusals_stand_where_their_commands_stood() {
    for seed in 0..SEEDS {
        let node = TestNode::start(seed, |config| {
            config.limits.core_requests_max = 8;
            config.limits.core_forwards_max = 4;
        });
        node.world.run_until(async {
            let mut client = RespClient::connect(&node).await;
            let commands: Vec<Args> =
                (0..200).map(|at| words(["SET", &format!("key:{at}"), &at.to_string()])).collect();
            client.send(&commands).await;
            let replies = client.receive_all(200).await;
            let refused: Vec<bool> = replies.iter().map(|reply| *reply != Reply::ok()).collect();
            assert!(refused.contains(&true) && refused.contains(&false));
            for (at, reply) in replies.iter().enumerate() {
                let text = reply.error();
                assert!(
                    *reply == Reply::ok()
                        || (text.starts_with("OVERLOADED ") && text.ends_with("(not applied)")),
                    "{reply:?}"
                );
                let value = client.call(&["GET", &format!("key:{at}")]).await;
                let expected = if refused[at] { Reply::Null } else { Reply::bulk(at.to_string()) };
                assert_eq!(value, expected);
            }
        });
    }
}

#[test]
fn stopping_answers_what_is_under_way_in_order() {
    for seed in 0..SEEDS {
        let node = TestNode::start(seed, |_| {});
        let kept = node.world.run_until(async {
            let mut client = RespClient::connect(&node).await;
            let commands: Vec<Args> = (0..100).map(|at| words(["SET", &format!("key:{at}"), "v"])).collect();
            client.send(&commands).await;
            let mut replies = vec![client.receive().await];
            node.served.shut_down();
            while let Some(reply) = client.try_receive().await {
                replies.push(reply);
            }
            node.world.ended(node.served.node).await;
            let refused = |reply: &Reply| reply.error().starts_with("STOPPING ");
            assert!(replies.iter().all(|reply| *reply == Reply::ok() || refused(reply)), "{replies:?}");
            replies.iter().map(|reply| *reply == Reply::ok()).collect::<Vec<_>>()
        });
        assert!(node.served.results.borrow().iter().all(Result::is_ok), "{:?}", node.served.results);
        node.restart(1);
        node.world.run_until(async {
            let mut client = RespClient::connect(&node).await;
            for (at, _) in kept.iter().enumerate().filter(|(_, kept)| **kept) {
                assert_eq!(client.call(&["GET", &format!("key:{at}")]).await, Reply::bulk("v"));
            }
        });
    }
}
