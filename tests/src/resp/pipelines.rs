//! Pipelines of RESP on a node in a world, against a map: the class `resp-pipelines`.
//!
//! A seed is a node of two cores and a client that sends [`PIPELINES_PER_SEED`] pipelines of any mix of
//! commands on a few keys of either core, cut into chunks anywhere, some without waiting for the replies
//! to the one before. Between them large values go through the memtables, so that the few keys are read
//! from tables. Replies must be those of one command after the other.

use std::time::Duration;

use pinion_engine::Options;
use pinion_protocol::{HEADER_BYTES, Header, Hello, Preface, Request, Response};
use pinion_server::{EngineSizes, ServerConfig};

use super::{Args, Draws, Model, Reply, decode, encode};
use crate::served::ServedNode;
use crate::trials::{Class, Counts, Trials};
use crate::world::{ByteStream, NodeConfig, SimSocket, World};

/// The class.
pub const RESP_PIPELINES: Class = Class {
    name: "resp-pipelines",
    about: "pipelines of RESP on a node in a world, against one command after the other on a map",
    unit: "pipelines",
    submission: 2_000,
    full: 50_000,
    release: 1_000_000,
    run,
};

/// Pipelines of one node.
const PIPELINES_PER_SEED: u64 = 40;

/// Bytes of replies that the client leaves unread before it sends more: over a node's bound it would not
/// be read itself.
const OWED_BYTES_MAX: usize = 256 << 10;

const PORT: u16 = 7600;

/// Large values that are written together, and their size.
const FILLINGS: usize = 12;
const FILLING_BYTES: usize = 20 << 10;

fn run(trials: &Trials) -> Counts {
    let seeds = Trials { count: trials.count.div_ceil(PIPELINES_PER_SEED), ..trials.clone() };
    seeds.each_seed(one)
}

/// Small enough that a few pipelines flush and compact; half of them keep no blocks, and read from disk.
fn options(seed: u64) -> Options {
    Options {
        value_bytes_max: 64 << 10,
        batch_ops_max: 64,
        batch_bytes_max: 512 << 10,
        log_segment_bytes: 1 << 20,
        log_queue_bytes_max: 1 << 20,
        memtable_bytes: 512 << 10,
        table_bytes: 128 << 10,
        level_base_bytes: 512 << 10,
        block_cache_bytes: (seed % 2) * (64 << 10),
        row_cache_bytes: 0,
        disk_reserve_bytes: 0,
        scan_records_max: 50,
        scan_bytes_max: 64 << 10,
        ..Options::default()
    }
}

/// One seed's pipelines.
fn one(seed: u64, counts: &mut Counts) {
    let mut config = ServerConfig::new("data", EngineSizes::Each(Box::new(options(seed))));
    config.partitions = 64;
    config.shards = Some(2);
    config.limits.frame_bytes_max = 1 << 20;
    let world = World::new(seed);
    let machine = NodeConfig { cores: 2, port: PORT, disk_bytes: 1 << 30, ..NodeConfig::default() };
    let served = ServedNode::start(&world, config, machine);
    world.run_until(async {
        let mut client = Client { stream: connect(&world, &served).await, received: Vec::new() };
        let (mut draws, mut model) = (Draws::new(seed, 2 + seed % 9), Model::default());
        let mut expected: Vec<(Args, Reply)> = Vec::new();
        for number in 0..PIPELINES_PER_SEED {
            let mut commands = draws.plain_stream();
            if draws.random().one_in(3) {
                commands.push(filling(number));
            }
            let mut bytes = Vec::new();
            for args in commands {
                encode(&args, &mut bytes);
                let reply = model.apply(&args);
                expected.push((args, reply));
            }
            // In pieces, cut anywhere.
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let longest = if draws.random().one_in(2) { 400 } else { 40_000 };
                let (piece, behind) =
                    rest.split_at((1 + draws.random().below(longest)).min(rest.len() as u64) as usize);
                client.stream.write_all(piece).await.expect("the node reads");
                rest = behind;
                if draws.random().one_in(4) {
                    world.sleep(Duration::from_micros(draws.random().below(500))).await;
                }
            }
            let owed: usize = expected.iter().map(|(_, reply)| bytes_of(reply)).sum();
            if draws.random().one_in(3) && number + 1 < PIPELINES_PER_SEED && owed < OWED_BYTES_MAX {
                continue;
            }
            for (args, expected) in expected.drain(..) {
                let found = client.reply().await;
                assert_eq!(found, expected, "in answer to {}", shown(&args));
                counts.add("commands", 1);
            }
        }
        counts.add("pipelines", PIPELINES_PER_SEED);
        let info = info(connect(&world, &served).await).await;
        for name in ["commands_delayed", "forwarded", "gets_from_disk"] {
            counts.add(name, info["counters"][name].as_u64().expect("the counter is reported"));
        }
        counts.add("flushes", info["storage"]["flushes"].as_u64().expect("the counter is reported"));
    });
}

/// A command whose values fill a memtable.
fn filling(number: u64) -> Args {
    let mut args = vec![b"MSET".to_vec()];
    for at in 0..FILLINGS {
        args.push(format!("filling:{at}").into_bytes());
        args.push(vec![number as u8; FILLING_BYTES]);
    }
    args
}

/// About as many bytes as a reply has.
fn bytes_of(reply: &Reply) -> usize {
    match reply {
        Reply::Bulk(bytes) => bytes.len(),
        _ => reply.members().iter().map(bytes_of).sum(),
    }
}

fn shown(args: &Args) -> String {
    let short = |arg: &Vec<u8>| format!("{} ", arg[..arg.len().min(60)].escape_ascii());
    args.iter().map(short).collect()
}

async fn connect(world: &World, served: &ServedNode) -> ByteStream<SimSocket> {
    loop {
        match world.connect(served.node, PORT).await {
            Ok(socket) => return ByteStream::new(socket),
            Err(_) => world.sleep(Duration::from_millis(1)).await,
        }
    }
}

/// A connection of RESP.
struct Client {
    stream: ByteStream<SimSocket>,
    received: Vec<u8>,
}

impl Client {
    async fn reply(&mut self) -> Reply {
        loop {
            if !self.received.is_empty()
                && let Some((reply, bytes)) = decode(false, &self.received)
            {
                self.received.drain(..bytes);
                return reply;
            }
            self.received.extend(self.stream.read_exact(1).await.expect("the node answers"));
        }
    }
}

/// What the node has counted, asked with frames.
async fn info(mut stream: ByteStream<SimSocket>) -> serde_json::Value {
    let mut bytes = Preface::OURS.to_bytes().to_vec();
    let hello = Hello { wanted_core: Some(0), features: 0, client_name: "test" };
    Request::Hello(hello).encode(1, 0, 0, &mut bytes).expect("a short name fits");
    let mut answers = Vec::new();
    for _ in 0..2 {
        stream.write_all(&bytes).await.expect("the node reads");
        let front = stream.read_exact(HEADER_BYTES).await.expect("the node answers");
        let header = Header::read(&front).ok().flatten().expect("an answer begins with a header");
        let body = stream.read_exact(header.body_bytes() as usize).await.expect("answers are whole");
        answers.push((header, body));
        bytes.clear();
        Request::ServerInfo { section: 0 }.encode(2, 0, 0, &mut bytes).expect("it is short");
    }
    match Response::decode(&answers[1].0, &answers[1].1) {
        Ok(Response::ServerInfo(text)) => serde_json::from_str(text).expect("server info is JSON"),
        other => panic!("SERVER_INFO is answered with {other:?}"),
    }
}
