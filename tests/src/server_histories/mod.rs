//! Whole-server histories: the unmodified server in a world, clients that retry, reconnect and give
//! up over faulty links, a node that crashes and comes back.
//!
//! The promise: what was acknowledged is there, whatever happened; what nobody knows happened once
//! or not at all; what was refused did not happen; no retry is applied over a newer write; reads of a
//! key never go backwards; of conditional writes on one version one succeeds. All of it follows from
//! one check: for each key there is one order of all calls, within the times they ran, that explains
//! every answer ([`crate::linear`] looks for it, `model` says what a key is).
//!
//! Every history ends by healing: links work again, the node runs, everything is read; then it is
//! killed once more and everything is read again.
//!
//! Not covered here: writes that ask for no durability (`buffered`), and failing disks, which the
//! storage classes have.

mod client;
mod history;
mod lane;
mod model;
mod plan;
mod scan;
mod wire;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use pinion_protocol::{NamespaceOptions, Request, Response};

use self::client::{Client, Ended};
use self::lane::{Lane, Scene};
use self::plan::{Ending, Plan};
use crate::served::ServedNode;
use crate::trials::{Class, Counts, Trials};
use crate::world::{NodeConfig, Random, World};

/// How long nothing is asked before the last reads: longer than anything takes to arrive.
const SETTLE: Duration = Duration::from_secs(40);

/// One history in so many runs twice and must leave the same trace.
const TWICE_ONE_IN: u64 = 100;

/// The class.
pub const SERVER_HISTORIES: Class = Class {
    name: "server-histories",
    about: "a server in the world, clients over failing links, crashes: one order per key explains all answers",
    unit: "histories",
    submission: 2_000,
    full: 20_000,
    release: 500_000,
    run,
};

/// One key in so many may be left undecided, its calls printed: dozens of appends or sums of unknown
/// outcome in one history have more orders than anybody can try.
const KEYS_PER_UNDECIDED: u64 = 10_000;

/// Runs the histories of a class.
fn run(trials: &Trials) -> Counts {
    let counts = trials.each_seed(|seed, counts| {
        let trace = history(seed, counts);
        if seed % TWICE_ONE_IN == 0 {
            let again = history(seed, &mut Counts::default());
            assert_eq!(trace, again, "seed {seed} leaves two traces");
            counts.add("histories run twice", 1);
        }
    });
    let undecided = counts.get("keys undecided");
    assert!(
        undecided <= 1 + counts.get("keys judged") / KEYS_PER_UNDECIDED,
        "too much is left open: {counts}"
    );
    counts
}

/// Runs one history and judges it; gives the hash of its trace.
///
/// # Panics
/// When the server broke its promise.
pub fn history(seed: u64, counts: &mut Counts) -> u64 {
    let mut random = Random::labelled(seed, 0x5E57);
    let plan = Plan::draw_from(&mut random);
    let world = World::new(seed);
    let mut pauses = Random::labelled(seed, 0x9A05E);
    let machine = NodeConfig {
        // A core that is slow to hear of others: what was answered must hold there as well.
        message_pause_us_max: if pauses.one_in(2) { 1 << pauses.between(8, 17) } else { 0 },
        cores: plan.cores,
        port: wire::PORT,
        disk_bytes: 1 << 30,
        block_bytes: 512 << random.below(4),
        ..NodeConfig::default()
    };
    let served = ServedNode::start(&world, plan.config.clone(), machine);
    let scene = Rc::new(Scene::new(plan));
    let settled = world.run_until(live(&world, &served, &scene, &mut random, counts));
    counts.add("histories", 1);
    counts.add("calls", scene.history.calls() as u64);
    for (name, count) in world.link_fault_counts() {
        counts.add(&format!("fault {name}"), count);
    }
    if let Err(wrong) = scene.history.judge(settled, counts) {
        panic!("seed {seed}: {wrong}");
    }
    world.trace_hash()
}

/// From the first call to the last read; gives the moment at which everything was settled.
async fn live(
    world: &World,
    served: &ServedNode,
    scene: &Rc<Scene>,
    random: &mut Random,
    counts: &mut Counts,
) -> u64 {
    let plan = &scene.plan;
    let lane = |client: &Rc<Client>, line: usize, random: &mut Random| Lane {
        scene: Rc::clone(scene),
        client: Rc::clone(client),
        line,
        random: RefCell::new(Random::new(random.word())),
        seen: RefCell::default(),
    };
    let judge = Client::new(world.outside(), served.node, 1, Random::new(random.word()));
    judge.insist();
    create_second(&judge, scene).await;
    world.set_link_faults(plan.faults);

    let (mut running, mut clients) = (Vec::new(), Vec::new());
    for _ in 0..plan.clients {
        let client = Client::new(world.outside(), served.node, plan.lines, Random::new(random.word()));
        for index in 0..plan.lanes {
            let lane = lane(&client, index % client.lines(), random);
            let calls = plan.calls_per_lane;
            running.push(world.spawn(async move { lane.run(calls).await }));
        }
        clients.push(client);
    }
    let over = Rc::new(std::cell::Cell::new(false));
    let done = Rc::clone(&over);
    let all = world.spawn(async move {
        for lane in running {
            lane.await;
        }
        done.set(true);
    });
    for accident in &plan.accidents {
        while (scene.history.calls() as u64) < accident.at_call && !over.get() {
            world.sleep(Duration::from_micros(500)).await;
        }
        end(world, served, accident.ending, counts).await;
        world.shift_wall_clock(served.node, accident.shift_ms);
        scene.history.shift(accident.shift_ms);
        world.sleep(accident.pause).await;
        served.restart(world, accident.cores);
    }
    all.await;
    for client in &clients {
        (0..client.lines()).for_each(|line| client.hang_up(line));
    }

    world.heal_links();
    world.sleep(SETTLE).await;
    let settled = scene.history.moment();
    read_all(&lane(&judge, 0, random)).await;
    counts_of_server(&judge, counts).await;
    end(world, served, Ending::Crash, counts).await;
    served.restart(world, plan.cores);
    read_all(&lane(&judge, 0, random)).await;
    for client in clients.iter().chain([&judge]) {
        counts.merge(&client.counts.borrow());
    }
    settled
}

/// Ends the node's process.
async fn end(world: &World, served: &ServedNode, ending: Ending, counts: &mut Counts) {
    match ending {
        Ending::Crash => {
            counts.add("crashes", 1);
            world.crash(served.node);
        }
        Ending::PowerCut => {
            counts.add("power cuts", 1);
            world.power_cut(served.node);
        }
        Ending::Shutdown => {
            counts.add("shutdowns", 1);
            served.shut_down();
            world.ended(served.node).await;
        }
    }
}

/// Creates the second namespace if this history has one.
async fn create_second(judge: &Client, scene: &Scene) {
    let Some(default_ttl_ms) = scene.plan.second_ttl_ms else { return };
    let options = NamespaceOptions { name: "second", default_ttl_ms };
    let manner = client::Manner { line: 0, tries_max: 1, repeat: true, deadline_us: 0 };
    let ended = judge.call(&Request::NamespaceCreate(options), manner, || (0, 0)).await;
    let Ended::Answered { reply, .. } = ended else { panic!("a namespace can be created") };
    let Response::NamespaceCreate(second) = reply.response() else { panic!("{:?}", reply.response()) };
    scene.namespaces.borrow_mut().insert(second, default_ttl_ms);
}

/// Reads every key, one by one and by scanning.
async fn read_all(lane: &Lane) {
    for name in lane.scene.history.names() {
        lane.get(&name).await;
    }
    let namespaces: Vec<u32> = lane.scene.namespaces.borrow().keys().copied().collect();
    for namespace in namespaces {
        scan::everything(lane, namespace, 0).await;
    }
}

/// What the server says of its own work.
async fn counts_of_server(judge: &Client, counts: &mut Counts) {
    let manner = client::Manner { line: 0, tries_max: 1, repeat: true, deadline_us: 0 };
    let ended = judge.call(&Request::ServerInfo { section: 0 }, manner, || (0, 0)).await;
    let Ended::Answered { reply, .. } = ended else { panic!("the node tells about itself") };
    let Response::ServerInfo(text) = reply.response() else { panic!("{:?}", reply.response()) };
    for name in ["flushes", "compactions"] {
        let (_, after) = text.split_once(&format!("\"{name}\":")).expect("the counter is reported");
        let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
        if digits != "0" {
            counts.add(&format!("histories whose last process made {name}"), 1);
        }
    }
}
