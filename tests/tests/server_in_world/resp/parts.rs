//! Commands of several keys of which a part fails: what they answer, and what they have done.
//!
//! A shard takes so few writes at once that it refuses those that come in greater numbers.

use pinion_protocol::placement;
use pinion_server::{EngineSizes, ServerConfig};
use pinion_tests::resp::{Args, Reply, words};
use pinion_tests::world::{Fault, Faults, Filter, Operation};

use super::client::RespClient;
use crate::client::{PARTITIONS, TestNode, small_options};
use crate::{SEEDS, counter, in_worlds, info};

/// Two for each of two cores.
const SHARDS: u16 = 4;

/// A node whose shards refuse more writes than these at once.
fn start_narrow(seed: u64, pending_ops_max: u32, change: impl FnOnce(&mut ServerConfig)) -> TestNode {
    TestNode::start(seed, |config| {
        let options = pinion_engine::Options { pending_ops_max, ..small_options() };
        config.engine = EngineSizes::Each(Box::new(options));
        config.shards = Some(SHARDS);
        change(config);
    })
}

/// So many keys of each shard whose names begin alike.
fn names(name: &str, counts: [usize; SHARDS as usize]) -> Vec<String> {
    let shard_of = |tag: &str| {
        let partition = placement::partition_of(tag.as_bytes(), PARTITIONS).expect("a power of two");
        placement::shard_of(partition, SHARDS, PARTITIONS).expect("the partition is one of them")
    };
    let tag_of = |shard| {
        let mut tags = (0..).map(|tag| format!("{{{tag}}}"));
        tags.find(|tag| shard_of(tag) == shard).expect("every shard has keys")
    };
    let all = (0..SHARDS).zip(counts).map(|(shard, count)| {
        let tag = tag_of(shard);
        (0..count).map(move |at| format!("{tag}{name}:{at}"))
    });
    all.flatten().collect()
}

fn set(name: &str) -> Args {
    words(["SET", name, "v"])
}

fn mset(names: &[String]) -> Args {
    let pairs = names.iter().flat_map(|name| [name.clone().into_bytes(), b"v".to_vec()]);
    std::iter::once(b"MSET".to_vec()).chain(pairs).collect()
}

fn with_name(command: &str, names: &[String]) -> Args {
    std::iter::once(command)
        .chain(names.iter().map(String::as_str))
        .map(|arg| arg.as_bytes().to_vec())
        .collect()
}

/// How many of these keys there are; asked one by one.
async fn living(client: &mut RespClient, names: &[String]) -> usize {
    let mut found = 0;
    for name in names {
        found += usize::from(client.call(&["EXISTS", name]).await == Reply::Integer(1));
    }
    found
}

#[test]
fn an_mset_says_ok_only_if_every_key_was_written() {
    for seed in 0..SEEDS / 2 {
        let node = start_narrow(seed, 2, |_| {});
        node.world.run_until(async {
            for core in 0..2 {
                let mut client = RespClient::connect_to(&node, core).await;
                // Every shard gets no key, one, or more than it takes.
                for mix in 1..81 {
                    let counts = [mix % 3, mix / 3 % 3, mix / 9 % 3, mix / 27].map(|draw| [0, 1, 3][draw]);
                    let written = counts.iter().filter(|count| **count == 1).count();
                    let refused = counts.contains(&3);
                    let names = names(&format!("{core}:{mix}"), counts);
                    let reply = client.call_bytes(mset(&names)).await;
                    let text = reply.error();
                    let outcome = if written > 0 { " (outcome unknown)" } else { " (not applied)" };
                    let expected = match refused {
                        true => text.starts_with("OVERLOADED ") && text.ends_with(outcome),
                        false => reply == Reply::ok(),
                    };
                    assert!(expected, "{counts:?} on core {core}: {reply:?}");
                    assert_eq!(living(&mut client, &names).await, written, "{counts:?} on core {core}");
                }
            }
        });
    }
}

#[test]
fn an_mset_is_not_sure_if_a_shard_that_stopped_is_not() {
    for seed in 0..SEEDS {
        let node = start_narrow(seed, 2, |_| {});
        node.world.run_until(async {
            let mut clients =
                [RespClient::connect_to(&node, 0).await, RespClient::connect_to(&node, 1).await];
            let disk = node.world.disk(node.served.node);
            disk.fail_from(Filter::from(Operation::Write).on("shard-0000"), 1, Fault::Error);
            // The last part that fails knows that it was not applied.
            for (round, counts) in [[1, 0, 0, 0], [1, 3, 0, 0], [1, 0, 3, 0], [1, 0, 3, 3]].iter().enumerate()
            {
                for client in &mut clients {
                    let reply = client.call_bytes(mset(&names(&round.to_string(), *counts))).await;
                    assert!(reply.error().ends_with(" (outcome unknown)"), "{counts:?}: {reply:?}");
                }
            }
        });
    }
}

#[test]
fn a_del_says_not_applied_only_if_nothing_is_gone() {
    for seed in 0..SEEDS {
        let node = start_narrow(seed, 2, |config| config.limits.core_forwards_max = 2);
        node.world.run_until(async {
            let mut client = RespClient::connect_to(&node, 0).await;
            let here = names("here", [1, 0, 0, 0]);
            let there = names("there", [0, 0, 2, 0]);
            let others = names("other", [0, 0, 2, 0]);
            for name in here.iter().chain(&there) {
                assert_eq!(client.call(&["SET", name, "v"]).await, Reply::ok());
            }
            // Writes stay under way longer than messages.
            let disk = node.world.disk(node.served.node);
            disk.set_faults(Faults::none().with(Operation::Write, Fault::Slow, 1));
            let both = [&here[..], &there].concat();
            for (under_way, names, gone, refused, outcome) in [
                // The other core's shard takes no more.
                (1, &there, 1, true, " (outcome unknown)"),
                (1, &both, 2, true, " (outcome unknown)"),
                // Nothing more is forwarded.
                (2, &there, 0, true, " (not applied)"),
                (2, &both, 1, true, " (outcome unknown)"),
                (0, &both, 3, false, ""),
            ] {
                for name in &both {
                    assert_eq!(client.call(&["SET", name, "v"]).await, Reply::ok());
                }
                let mut commands: Vec<Args> = others[..under_way].iter().map(|name| set(name)).collect();
                commands.push(with_name("DEL", names));
                client.send(&commands).await;
                let replies = client.receive_all(commands.len()).await;
                let context = format!("{under_way} under way, {names:?}: {replies:?}");
                assert!(replies[..under_way].iter().all(|reply| *reply == Reply::ok()), "{context}");
                let reply = &replies[under_way];
                match refused {
                    true => assert!(reply.error().ends_with(outcome), "{context}"),
                    false => assert_eq!(*reply, Reply::Integer(gone as i64)),
                }
                let left = living(&mut client, &both).await;
                assert_eq!(left, both.len() - gone, "{context}");
            }
        });
    }
}

#[test]
fn a_flushall_says_not_applied_only_if_nothing_is_gone() {
    for seed in 0..SEEDS / 2 {
        for (counts, outcome) in [
            // A page of more keys than a shard takes.
            ([45, 0, 45, 0], " (not applied)"),
            // After what its core has removed already.
            ([3, 45, 45, 0], " (outcome unknown)"),
            // After what the other core has removed.
            ([45, 0, 3, 0], " (outcome unknown)"),
            ([3, 0, 45, 0], " (outcome unknown)"),
            ([45, 0, 3, 45], " (outcome unknown)"),
        ] {
            let node = start_narrow(seed, 40, |config| config.resp.sweeping = true);
            node.world.run_until(async {
                let mut client = RespClient::connect_to(&node, 0).await;
                let names = names("k", counts);
                for name in &names {
                    assert_eq!(client.call(&["SET", name, "v"]).await, Reply::ok());
                }
                let reply = client.call(&["FLUSHALL"]).await;
                let text = reply.error();
                assert!(text.starts_with("OVERLOADED ") && text.ends_with(outcome), "{counts:?}: {reply:?}");
                let gone: usize = counts.iter().filter(|count| **count < 40).sum();
                assert_eq!(living(&mut client, &names).await, names.len() - gone, "{counts:?}");
            });
        }
    }
}

#[test]
fn an_mget_of_too_many_bytes_is_told_so_whoever_owns_the_keys() {
    for seed in 0..SEEDS {
        let node = TestNode::start(seed, |config| config.shards = Some(SHARDS));
        node.world.run_until(async {
            for core in 0..2 {
                let mut client = RespClient::connect_to(&node, core).await;
                let value = "x".repeat(60_000);
                for counts in [[12, 0, 0, 0], [0, 0, 12, 0], [0, 6, 6, 0]] {
                    let names = names("large", counts);
                    for name in &names {
                        assert_eq!(client.call(&["SET", name, &value]).await, Reply::ok());
                    }
                    let reply = client.call_bytes(with_name("MGET", &names)).await;
                    let text = reply.error();
                    assert!(text.starts_with("ERR the values are more bytes "), "{counts:?}: {reply:?}");
                    let reply = client.call_bytes(with_name("MGET", &names[..8])).await;
                    assert_eq!(reply.members().len(), 8);
                }
            }
        });
    }
}

#[test]
fn too_many_keys_are_refused_before_they_are_looked_at() {
    in_worlds(async |node| {
        let mut client = RespClient::connect(node).await;
        let mut native = node.connect(0).await;
        let many = vec!["k".to_owned(); 257];
        for (name, fits) in
            [("DEL", false), ("EXISTS", false), ("MGET", false), ("MSET", false), ("DEL", true)]
        {
            let before = counter(&info(&mut native).await, "commands_delayed");
            let args = match name {
                "MSET" => mset(&many),
                _ => with_name(name, &many[usize::from(fits)..]),
            };
            // It would have to wait if it were carried out.
            client.send(&[set("k"), args]).await;
            let replies = client.receive_all(2).await;
            assert_eq!(replies[0], Reply::ok());
            let delayed = counter(&info(&mut native).await, "commands_delayed") - before;
            match fits {
                true => assert_eq!(replies[1], Reply::Integer(1)),
                false => {
                    let refused = "ERR command (keys) of 257 is over the limit of 256 (not applied)";
                    assert_eq!((replies[1].error(), delayed), (refused, 0), "{name}");
                }
            }
        }
    });
}
