//! Tests of what goes wrong on links: what must hold anyway, and that it does go wrong.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::Duration;

use pinion_env::{Env, Listener, NodeEnv, Socket, TaskClass};

use super::{ByteStream, LinkFaults, NodeConfig, NodeId, SimEnv, SimSocket, World};

const PORT: u16 = 7600;
const SEEDS: u64 = 500;

/// The byte at a place of the stream that every connection here carries.
fn byte(place: usize) -> u8 {
    (place ^ place >> 8).wrapping_mul(151) as u8
}

/// Sends the same stream to whoever connects, and listens to nobody.
async fn sender(env: SimEnv) {
    let listener = env.listener();
    loop {
        let Ok(socket) = poll_fn(|context| listener.poll_accept(context)).await else { continue };
        env.spawn(TaskClass::Foreground, async move {
            for part in 0..40 {
                let bytes = (part * 100..(part + 1) * 100).map(byte).collect();
                socket.start_send(vec![bytes]);
                if poll_fn(|context| socket.poll_sent(context)).await.0.is_err() {
                    return;
                }
            }
        });
    }
}

/// What came of the stream, and how it ended.
async fn received(socket: SimSocket) -> (Vec<u8>, io::Result<()>) {
    socket.start_streaming();
    let mut bytes = Vec::new();
    loop {
        match poll_fn(|context| socket.poll_receive(context)).await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return (bytes, Ok(())),
            Err(error) => return (bytes, Err(error)),
        }
    }
}

#[test]
fn a_stream_is_a_prefix_whatever_happens_and_whole_after_healing() {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut ends: BTreeMap<Option<ErrorKind>, u64> = BTreeMap::new();
    for seed in 0..SEEDS {
        let run = || {
            let world = World::new(seed);
            let node = world.start_node(NodeConfig::default(), sender);
            world.set_link_faults(LinkFaults::swarm(&mut world.random()));
            let healed = Rc::new(RefCell::new(false));
            let mut streams = Vec::new();
            for _ in 0..6 {
                let (connecting, healed) = (world.connect(node, PORT), Rc::clone(&healed));
                streams.push(world.spawn(async move {
                    let (bytes, end) = match connecting.await {
                        Ok(socket) => received(socket).await,
                        Err(error) => (Vec::new(), Err(error)),
                    };
                    assert!(bytes.iter().enumerate().all(|(place, found)| *found == byte(place)));
                    // The node never closes in the middle.
                    assert!(end.is_err() || bytes.len() == 4_000, "{} bytes", bytes.len());
                    (end.map_err(|error| error.kind()).err(), *healed.borrow())
                }));
            }
            world.run_until(async {
                world.sleep(Duration::from_secs(2)).await;
                world.heal_links();
                *healed.borrow_mut() = true;
                let mut ends = Vec::new();
                for stream in streams {
                    ends.push(stream.await.0);
                }
                let (bytes, end) =
                    received(world.connect(node, PORT).await.expect("healed links connect")).await;
                assert!(bytes.len() == 4_000 && end.is_ok());
                (ends, world.link_fault_counts(), world.trace_hash())
            })
        };
        let once = run();
        if seed % 10 == 0 {
            assert_eq!(once.2, run().2, "seed {seed}");
        }
        once.1.into_iter().for_each(|(name, count)| *counts.entry(name).or_default() += count);
        once.0.into_iter().for_each(|end| *ends.entry(end).or_default() += 1);
    }
    for name in [
        "late",
        "clog",
        "reset",
        "hole one way",
        "hole both ways",
        "gave up",
        "attempt lost",
        "attempt refused",
        "tiny window",
    ] {
        assert!(counts.get(name).is_some_and(|count| *count >= 10), "{name}: {counts:?}");
    }
    for end in [None, Some(ErrorKind::ConnectionReset), Some(ErrorKind::ConnectionRefused)] {
        assert!(ends.get(&end).is_some_and(|count| *count >= 10), "{end:?}: {ends:?}");
    }
}

#[test]
fn a_hole_keeps_what_it_swallowed_until_it_is_healed() {
    let world = World::new(3);
    let node = world.start_node(NodeConfig::default(), |env: SimEnv| async move {
        let listener = env.listener();
        let socket = poll_fn(|context| listener.poll_accept(context)).await.unwrap();
        let mut stream = ByteStream::new(socket);
        let asked = stream.read_exact(4).await.unwrap();
        stream.write_all(&asked).await.unwrap();
        assert!(stream.read_to_end().await.unwrap().is_empty());
    });
    world.run_until(async {
        let mut stream = ByteStream::new(world.connect(node, PORT).await.unwrap());
        world.set_link_faults(LinkFaults { hole_one_in: 1, ..LinkFaults::NONE });
        let asking = world.spawn(async move {
            let sent = stream.write_all(b"echo").await;
            (stream, sent)
        });
        // Shorter than anybody waits in a hole.
        world.sleep(Duration::from_millis(400)).await;
        assert_eq!(world.link_fault_counts().iter().filter(|(name, _)| name.starts_with("hole")).count(), 1);
        world.heal_links();
        let (mut stream, sent) = asking.await;
        sent.unwrap();
        assert_eq!(stream.read_exact(4).await.unwrap(), b"echo");
        drop(stream);
        world.ended(node).await;
    });
}

/// What each node has heard: from whom, which number.
type Heard = Rc<RefCell<BTreeMap<u32, Vec<(u32, u8)>>>>;

/// Nodes that tell each other numbers until each has heard that all have them.
struct Gossip {
    world: World,
    nodes: Vec<NodeId>,
    heard: Heard,
}

/// Numbers that each node tells.
const NUMBERS: u8 = 30;
const NODES: usize = 3;

impl Gossip {
    fn start(seed: u64) -> Self {
        let world = World::new(seed);
        let heard: Heard = Rc::default();
        let mut nodes = Vec::new();
        for index in 0..NODES {
            let heard = Rc::clone(&heard);
            nodes.push(world.start_node(NodeConfig { cores: 2, ..NodeConfig::default() }, move |env| {
                speak_and_listen(env, index as u32, Rc::clone(&heard))
            }));
        }
        Self { world, nodes, heard }
    }

    fn heard_all(&self) -> bool {
        let numbers = |node: u32| {
            let heard = self.heard.borrow();
            heard.get(&node).map_or(0, |list| list.iter().collect::<BTreeSet<_>>().len())
        };
        (0..NODES as u32).all(|node| numbers(node) == (NODES - 1) * usize::from(NUMBERS))
    }

    async fn until_all_is_heard(&self) {
        for _ in 0..10_000 {
            if self.heard_all() {
                return;
            }
            self.world.sleep(Duration::from_millis(10)).await;
        }
        panic!("not everything is heard: {:?}", self.heard.borrow());
    }
}

/// Core 0 repeats numbers until they are confirmed; core 1 listens and confirms.
async fn speak_and_listen(env: SimEnv, index: u32, heard: Heard) {
    if env.core() == 1 {
        loop {
            let frame = poll_fn(|context| env.poll_frame(context)).await;
            heard.borrow_mut().entry(index).or_default().push((frame.from.0, frame.bytes[0]));
            env.send_frame(frame.from, 0, frame.bytes);
        }
    }
    let peers: Vec<u32> = (0..NODES as u32).filter(|peer| *peer != index).collect();
    let open: BTreeSet<(u32, u8)> =
        peers.iter().flat_map(|peer| (0..NUMBERS).map(|number| (*peer, number))).collect();
    let open = Rc::new(RefCell::new(open));
    let (listening, confirmed) = (env.clone(), Rc::clone(&open));
    env.spawn(TaskClass::Foreground, async move {
        loop {
            let frame = poll_fn(|context| listening.poll_frame(context)).await;
            confirmed.borrow_mut().remove(&(frame.from.0, frame.bytes[0]));
        }
    });
    while !open.borrow().is_empty() {
        let now: Vec<(u32, u8)> = open.borrow().iter().copied().collect();
        for (peer, number) in now {
            env.send_frame(NodeId(peer), 1, vec![number]);
        }
        env.sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn frames_between_nodes_come_once_and_in_order_without_faults() {
    for seed in 0..20 {
        let gossip = Gossip::start(seed);
        gossip.world.run_until(gossip.until_all_is_heard());
        for (node, list) in &*gossip.heard.borrow() {
            for peer in (0..NODES as u32).filter(|peer| peer != node) {
                let from: Vec<u8> = { list.iter().filter(|(from, _)| *from == peer) }.map(|f| f.1).collect();
                assert_eq!(from, (0..NUMBERS).collect::<Vec<_>>(), "seed {seed}");
            }
        }
        assert!(gossip.world.link_fault_counts().is_empty());
    }
}

#[test]
fn nodes_that_repeat_hear_each_other_over_faulty_links() {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut doubled, mut overtaken) = (0, 0);
    for seed in 0..SEEDS {
        let run = || {
            let gossip = Gossip::start(seed);
            gossip.world.set_link_faults(LinkFaults::swarm(&mut gossip.world.random()));
            gossip.world.run_until(async {
                gossip.world.sleep(Duration::from_secs(1)).await;
                gossip.world.heal_links();
                gossip.until_all_is_heard().await;
            });
            gossip
        };
        let gossip = run();
        if seed % 10 == 0 {
            assert_eq!(gossip.world.trace_hash(), run().world.trace_hash(), "seed {seed}");
        }
        for (name, count) in gossip.world.link_fault_counts() {
            *counts.entry(name).or_default() += count;
        }
        for list in gossip.heard.borrow().values() {
            doubled += list.len() - list.iter().collect::<BTreeSet<_>>().len();
            overtaken +=
                list.windows(2).filter(|pair| pair[0].0 == pair[1].0 && pair[0].1 > pair[1].1).count();
        }
    }
    for name in
        ["late", "frames cut", "frame into a cut", "frame lost", "frame doubled", "frame out of order"]
    {
        assert!(counts.get(name).is_some_and(|count| *count >= 100), "{name}: {counts:?}");
    }
    assert!(doubled > 100 && overtaken > 100, "{doubled} doubled, {overtaken} overtaken");
}

#[test]
fn a_cut_is_one_way_until_it_is_mended() {
    let gossip = Gossip::start(1);
    let (from, to) = (gossip.nodes[0], gossip.nodes[2]);
    gossip.world.cut_frames(from, to);
    gossip.world.run_until(async {
        gossip.world.sleep(Duration::from_secs(1)).await;
        let heard = |node: NodeId, from: NodeId| {
            let heard = gossip.heard.borrow();
            heard[&node.0].iter().filter(|(peer, _)| *peer == from.0).count()
        };
        assert_eq!(heard(to, from), 0);
        assert!(heard(from, to) >= usize::from(NUMBERS));
        gossip.world.mend_frames(from, to);
        gossip.until_all_is_heard().await;
    });
    // A node that does not run loses what is sent to it, and hears the rest when it runs again.
    let gossip = Gossip::start(2);
    gossip.world.crash(gossip.nodes[1]);
    gossip.world.run_until(gossip.world.sleep(Duration::from_millis(100)));
    let lost = gossip.world.link_fault_counts();
    assert!(lost.iter().any(|(name, count)| *name == "frame to nobody" && *count > 0), "{lost:?}");
    let heard = Rc::clone(&gossip.heard);
    let config = NodeConfig { cores: 2, ..NodeConfig::default() };
    gossip
        .world
        .restart_node(gossip.nodes[1], config, move |env| speak_and_listen(env, 1, Rc::clone(&heard)));
    gossip.world.run_until(gossip.until_all_is_heard());
}
