//! The same bytes, thrown at a whole server in a world.
//!
//! One node of two cores with storage. Hostile connections open properly or not at all, send
//! streams of mutated frames in pieces of the network's choosing, and close or vanish. Beside them a
//! well-behaved client must be served and find its records untouched; every answer to a hostile
//! connection must be a frame that decodes, or a reply of RESP to what may be that; and when the last of
//! them has gone, the node must hold no connection and no request of theirs, and stop when it is told to.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use pinion_engine::Options;
use pinion_env::{NodeEnv, Socket};
use pinion_protocol::{
    Durability, Frames, HEADER_BYTES, Header, Hello, KeyRequest, Preface, Put, Request, Response, Ttl, Write,
    WriteOutcome,
};
use pinion_server::{CoreMessage, EngineSizes, ServerConfig, serve_core};

use super::streams::Streams;
use super::{Blame, kept_frames};
use crate::fuzz::commands;
use crate::resp::{self, Draws};
use crate::trials::Counts;
use crate::world::{ByteStream, NodeConfig, NodeId, Outside, Random, SimEnv, SimHandoff, SimSocket, World};

type Env = SimEnv<CoreMessage<SimHandoff>>;

const CORES: usize = 2;
const PORT: u16 = 7600;

/// Hostile connections of one world.
const CONNECTIONS: u64 = 12;

/// Streams of one of them, at most.
const STREAMS_MAX: u64 = 4;

/// How long a hostile connection listens for answers.
const LISTENS: Duration = Duration::from_millis(20);

/// Longer than anything the server may wait for a connection that says nothing.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(20);

/// Room for everything that is sent, so that the good client is never told that the disk is full.
const DISK_BYTES: u64 = 1 << 30;

/// Talks to a server in the world of this seed.
///
/// # Panics
/// When a promise is broken.
pub fn talk(seed: u64, counts: &mut Counts) {
    let world = World::new(seed);
    let cores = Rc::new(RefCell::new(Vec::new()));
    let failed = Rc::new(RefCell::new(None));
    let node = start(&world, &cores, &failed);
    let mut random = Random::labelled(seed, 0x5E4E4);
    let answers = world.run_until(async {
        let outside = world.outside();
        let mut good = Good::connect(&outside, node).await;
        good.writes_and_reads(0).await;
        let mut answers = 0;
        let mut streams = Streams::new(&mut random, kept_frames());
        for turn in 1..=CONNECTIONS {
            let bytes = hostile_bytes(&mut random, &mut streams);
            let _blame = Blame(&bytes);
            let vanishes = random.one_in(3);
            answers += hostile(&outside, node, &bytes, vanishes).await;
            good.writes_and_reads(turn).await;
        }
        outside.sleep(FORGOTTEN_AFTER).await;
        good.finds_all(CONNECTIONS).await;
        good.is_alone().await;
        answers
    });
    for env in &*cores.borrow() {
        assert!(env.send(env.core(), CoreMessage::shutdown()).is_ok(), "the queue has room");
    }
    world.run_until(world.ended(node));
    assert!(failed.borrow().is_none(), "{:?}", failed.borrow());
    counts.add("servers talked to", 1);
    counts.add("hostile connections", CONNECTIONS);
    counts.add("answers to hostile connections", answers);
}

fn start(world: &World, cores: &Rc<RefCell<Vec<Env>>>, failed: &Rc<RefCell<Option<String>>>) -> NodeId {
    let options = Options {
        value_bytes_max: 64 << 10,
        batch_ops_max: 256,
        batch_bytes_max: 128 << 10,
        log_segment_bytes: 512 << 10,
        log_queue_bytes_max: 512 << 10,
        memtable_bytes: 256 << 10,
        table_bytes: 128 << 10,
        level_base_bytes: 512 << 10,
        block_cache_bytes: 256 << 10,
        row_cache_bytes: 128 << 10,
        disk_reserve_bytes: 0,
        scan_records_max: 50,
        scan_bytes_max: 64 << 10,
        ..Options::default()
    };
    let mut config = ServerConfig::new("data", EngineSizes::Each(Box::new(options)));
    config.partitions = 64;
    config.shards = Some(CORES as u16);
    config.limits.frame_bytes_max = 512 << 10;
    let config = Arc::new(config);
    let (cores, failed) = (Rc::clone(cores), Rc::clone(failed));
    let node = NodeConfig { cores: CORES, port: PORT, disk_bytes: DISK_BYTES, ..NodeConfig::default() };
    world.start_node(node, move |env: Env| {
        cores.borrow_mut().push(env.clone());
        let (config, failed) = (Arc::clone(&config), Rc::clone(&failed));
        async move {
            if let Err(error) = serve_core(env, config, |_| {}).await {
                *failed.borrow_mut() = Some(error.to_string());
            }
        }
    })
}

async fn connect(outside: &Outside, node: NodeId) -> SimSocket {
    loop {
        match outside.connect(node, PORT).await {
            Ok(socket) => return socket,
            Err(_) => outside.sleep(Duration::from_millis(1)).await,
        }
    }
}

fn opening(wanted_core: Option<u16>) -> Vec<u8> {
    let mut bytes = Preface::OURS.to_bytes().to_vec();
    let hello = Hello { wanted_core, features: 0, client_name: "fuzz" };
    Request::Hello(hello).encode(0, 0, 0, &mut bytes).expect("a short name fits");
    bytes
}

/// What one hostile connection sends: mostly a good opening, and streams.
fn hostile_bytes(random: &mut Random, streams: &mut Streams) -> Vec<u8> {
    if random.one_in(4) {
        let mut draws = Draws::new(random.word(), 5);
        return (0..1 + random.below(STREAMS_MAX))
            .flat_map(|_| commands::stream(random, &mut draws))
            .collect();
    }
    let mut bytes = match random.below(4) {
        0 => Vec::new(),
        core => opening(Some(core as u16)),
    };
    for _ in 0..1 + random.below(STREAMS_MAX) {
        streams.next_stream(random);
        bytes.extend_from_slice(streams.bytes());
    }
    bytes
}

/// Sends bytes and listens, or goes as soon as they are sent. Returns how many answers came.
async fn hostile(outside: &Outside, node: NodeId, bytes: &[u8], vanishes: bool) -> u64 {
    let socket = connect(outside, node).await;
    socket.start_streaming();
    socket.start_send(vec![bytes.to_vec()]);
    let received = RefCell::new(Vec::new());
    let sent = Cell::new(false);
    let mut tired = pin!(outside.sleep(LISTENS));
    // Reads beside the sending: a server that pauses because nobody reads is not the point here.
    poll_fn(|context| {
        if tired.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        if !sent.get()
            && let Poll::Ready((result, _)) = socket.poll_sent(context)
        {
            sent.set(true);
            if result.is_err() || vanishes {
                return Poll::Ready(());
            }
        }
        loop {
            match socket.poll_receive(context) {
                Poll::Ready(Ok(Some(chunk))) => received.borrow_mut().extend_from_slice(&chunk),
                Poll::Ready(Ok(None) | Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    drop(socket);
    let (received, mut answers) = (received.take(), 0);
    // What begins as text does is taken for RESP, and answered so.
    if bytes.first().is_some_and(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
        return resp::walk(&received).0;
    }
    let (mut frames, mut rest) = (Frames::new(u32::MAX), received.as_slice());
    while let Some(frame) = frames.next_frame(&mut rest).expect("a server answers with frames") {
        Response::decode(&frame.header, frame.body).expect("a server answers what the protocol says");
        answers += 1;
    }
    answers
}

/// A client that keeps to the protocol.
struct Good {
    stream: ByteStream<SimSocket>,
    next_id: u64,
}

impl Good {
    async fn connect(outside: &Outside, node: NodeId) -> Self {
        let stream = ByteStream::new(connect(outside, node).await);
        let mut good = Self { stream, next_id: 1 };
        good.stream.write_all(&opening(Some(0))).await.expect("the node listens");
        let (header, body) = good.receive().await.expect("HELLO is answered");
        assert!(matches!(Response::decode(&header, &body), Ok(Response::Hello(_))));
        good
    }

    async fn receive(&mut self) -> io::Result<(Header, Vec<u8>)> {
        let front = self.stream.read_exact(HEADER_BYTES).await?;
        let header = Header::read(&front).ok().flatten().expect("an answer begins with a header");
        Ok((header, self.stream.read_exact(header.body_bytes() as usize).await?))
    }

    async fn call(&mut self, request: &Request<'_>) -> (Header, Vec<u8>) {
        let id = self.next_id;
        self.next_id += 1;
        let mut out = Vec::new();
        request.encode(id, 0, 0, &mut out).expect("a small request fits");
        self.stream.write_all(&out).await.expect("a good client stays connected");
        let answer = self.receive().await.expect("a good client is answered");
        assert_eq!(answer.0.request_id, id);
        answer
    }

    async fn writes_and_reads(&mut self, turn: u64) {
        let (key, value) = record(turn);
        let write = Write { namespace: 0, key: &key, durability: Durability::Sync, stamp: None };
        let put = Put { write, ttl: Ttl::Never, value: &value };
        let (header, body) = self.call(&Request::Put(put)).await;
        match Response::decode(&header, &body) {
            Ok(Response::Put(written)) => assert_eq!(written.outcome, WriteOutcome::Applied),
            other => panic!("a good put was answered with {other:?}"),
        }
        self.finds(turn).await;
    }

    async fn finds(&mut self, turn: u64) {
        let (key, value) = record(turn);
        let (header, body) = self.call(&Request::Get(KeyRequest { namespace: 0, key: &key })).await;
        match Response::decode(&header, &body) {
            Ok(Response::Get(reply)) => {
                assert_eq!(reply.value.expect("it was acknowledged").bytes, value);
            }
            other => panic!("a good get was answered with {other:?}"),
        }
    }

    async fn finds_all(&mut self, turns: u64) {
        for turn in 0..=turns {
            self.finds(turn).await;
        }
    }

    /// Nobody else is connected, and the node works on nothing but this question.
    async fn is_alone(&mut self) {
        let (header, body) = self.call(&Request::ServerInfo { section: 0 }).await;
        let Ok(Response::ServerInfo(text)) = Response::decode(&header, &body) else {
            panic!("SERVER_INFO was refused")
        };
        let info: serde_json::Value = serde_json::from_str(text).expect("server info is JSON");
        assert_eq!((&info["connections"], &info["requests"]), (&1.into(), &1.into()), "{text}");
    }
}

/// A record of the good client; no generator draws its key.
fn record(turn: u64) -> (Vec<u8>, Vec<u8>) {
    (format!("the good client's record {turn}").into_bytes(), vec![turn as u8; 100 + turn as usize])
}
