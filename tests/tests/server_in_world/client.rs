//! A node in a world, and a plain client that speaks frames to it.

use std::time::Duration;

use pinion_engine::Options;
use pinion_protocol::{
    Frames, HEADER_BYTES, Header, Hello, KeyRequest, Opcode, Preface, Put, Request, Response, Ttl, Write,
    placement,
};
use pinion_server::{EngineSizes, ServerConfig};
use pinion_tests::served::ServedNode;
use pinion_tests::world::{ByteStream, NodeConfig, SimSocket, World};

use super::key;

pub(crate) const PORT: u16 = 7600;
pub(crate) const PARTITIONS: u32 = 64;

/// A world with one node of two cores and two shards in it.
pub(crate) struct TestNode {
    pub(crate) world: World,
    pub(crate) served: ServedNode,
}

/// Small enough that a short test flushes and compacts.
pub(crate) fn small_options() -> Options {
    Options {
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
    }
}

/// A machine of so many cores.
pub(crate) fn machine(cores: usize) -> NodeConfig {
    NodeConfig { cores, port: PORT, disk_bytes: 1 << 30, ..NodeConfig::default() }
}

impl TestNode {
    /// Starts a node with what `change` makes of a small configuration.
    pub(crate) fn start(seed: u64, change: impl FnOnce(&mut ServerConfig)) -> Self {
        Self::start_on(machine(2), seed, change)
    }

    /// As [`TestNode::start`] on such a machine.
    pub(crate) fn start_on(machine: NodeConfig, seed: u64, change: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut config = ServerConfig::new("data", EngineSizes::Each(Box::new(small_options())));
        config.partitions = PARTITIONS;
        config.shards = Some(2);
        config.limits.frame_bytes_max = 512 << 10;
        change(&mut config);
        let world = World::new(seed);
        let served = ServedNode::start(&world, config, machine);
        Self { world, served }
    }

    /// Starts the node again on its disk, with this many cores.
    pub(crate) fn restart(&self, cores: usize) {
        self.served.restart(&self.world, cores);
    }

    /// Connects to a core.
    pub(crate) async fn connect(&self, core: u16) -> Client {
        let mut client = self.connect_bare().await;
        client.say_hello(Some(core)).await;
        assert_eq!(client.core, core);
        client
    }

    /// Connects and says nothing. Tries again while the node is starting.
    pub(crate) async fn connect_bare(&self) -> Client {
        loop {
            match self.world.connect(self.served.node, PORT).await {
                Ok(socket) => return Client::new(socket),
                Err(_) => self.world.sleep(Duration::from_millis(1)).await,
            }
        }
    }

    /// Waits until `done`.
    pub(crate) async fn until(&self, done: impl Fn() -> bool) {
        while !done() {
            self.world.sleep(Duration::from_millis(1)).await;
        }
    }
}

/// A whole frame.
pub(crate) struct Answer {
    pub(crate) header: Header,
    body: Vec<u8>,
}

impl Answer {
    pub(crate) fn response(&self) -> Response<'_> {
        Response::decode(&self.header, &self.body).expect("the node answers what the protocol says")
    }

    /// The code of an error answer.
    pub(crate) fn error(&self) -> pinion_protocol::ErrorReply<'_> {
        match self.response() {
            Response::Error { error, .. } => error,
            other => panic!("not an error: {other:?}"),
        }
    }

    /// The value of a GET's answer.
    pub(crate) fn value(&self) -> Option<Vec<u8>> {
        match self.response() {
            Response::Get(reply) => reply.value.map(|value| value.bytes.to_vec()),
            other => panic!("not the answer to a GET: {other:?}"),
        }
    }
}

/// A connection.
pub(crate) struct Client {
    pub(crate) stream: ByteStream<SimSocket>,
    /// The core that answered HELLO.
    pub(crate) core: u16,
    /// The core of each shard.
    pub(crate) shard_cores: Vec<u16>,
    pub(crate) in_flight_max: u32,
    next_id: u64,
}

impl Client {
    pub(crate) fn new(socket: SimSocket) -> Self {
        let stream = ByteStream::new(socket);
        Self { stream, core: u16::MAX, shard_cores: Vec::new(), in_flight_max: 0, next_id: 1 }
    }

    pub(crate) fn opening(wanted_core: Option<u16>) -> Vec<u8> {
        let mut bytes = Preface::OURS.to_bytes().to_vec();
        let hello = Hello { wanted_core, features: 0, client_name: "test" };
        Request::Hello(hello).encode(77, 0, 0, &mut bytes).expect("a short name fits");
        bytes
    }

    pub(crate) async fn say_hello(&mut self, wanted_core: Option<u16>) {
        self.stream.write_all(&Self::opening(wanted_core)).await.expect("the node listens");
        self.hear_hello().await;
    }

    pub(crate) async fn hear_hello(&mut self) {
        let answer = self.receive().await;
        assert_eq!(answer.header.request_id, 77);
        let Response::Hello(hello) = answer.response() else { panic!("{:?}", answer.response()) };
        assert_eq!(hello.partitions, PARTITIONS);
        assert!(hello.stamp > 0);
        self.core = hello.core;
        self.in_flight_max = hello.in_flight_max;
        self.shard_cores = hello.shard_cores.iter().collect();
    }

    /// Appends a request to `out`; answers its id.
    pub(crate) fn encode(&mut self, request: &Request<'_>, deadline_us: u32, out: &mut Vec<u8>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        request.encode(id, 0, deadline_us, out).expect("tests ask what fits a frame");
        id
    }

    /// Sends a request; answers its id.
    pub(crate) async fn send(&mut self, request: &Request<'_>) -> u64 {
        let mut out = Vec::new();
        let id = self.encode(request, 0, &mut out);
        self.stream.write_all(&out).await.expect("the node listens");
        id
    }

    /// The next frame.
    pub(crate) async fn receive(&mut self) -> Answer {
        let front = self.stream.read_exact(HEADER_BYTES).await.expect("the node answers");
        let header = Header::read(&front).ok().flatten().expect("an answer begins with a header");
        let body = self.stream.read_exact(header.body_bytes() as usize).await.expect("answers are whole");
        Answer { header, body }
    }

    /// Asks and waits for the answer; nothing else may be under way.
    pub(crate) async fn call(&mut self, request: &Request<'_>) -> Answer {
        let id = self.send(request).await;
        let answer = self.receive().await;
        assert_eq!(answer.header.request_id, id);
        answer
    }

    pub(crate) async fn put(&mut self, key: &[u8], value: &[u8]) -> Answer {
        self.call(&put(key, value)).await
    }

    pub(crate) async fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        self.call(&get(key)).await.value()
    }

    /// Everything until the node closes, cut into frames.
    pub(crate) async fn receive_to_end(&mut self) -> Vec<Answer> {
        let bytes = self.stream.read_to_end().await.unwrap_or_default();
        let (mut frames, mut rest, mut answers) = (Frames::new(u32::MAX), &bytes[..], Vec::new());
        while let Some(frame) = frames.next_frame(&mut rest).expect("the node sends frames") {
            answers.push(Answer { header: frame.header, body: frame.body.to_vec() });
        }
        assert_eq!(frames.waiting_bytes(), 0, "the last frame was cut off");
        answers
    }

    /// The core that owns a key.
    pub(crate) fn owner(&self, key: &[u8]) -> u16 {
        let partition = placement::partition_of(key, PARTITIONS).expect("a power of two");
        let shards = self.shard_cores.len() as u16;
        let shard = placement::shard_of(partition, shards, PARTITIONS).expect("the partition is one of them");
        self.shard_cores[usize::from(shard)]
    }

    /// A key that a core owns.
    pub(crate) fn key_of(&self, core: u16) -> Vec<u8> {
        (0..).map(key).find(|key| self.owner(key) == core).expect("the core owns keys")
    }
}

pub(crate) fn write(key: &[u8]) -> Write<'_> {
    Write { namespace: 0, key, durability: Default::default(), stamp: None }
}

pub(crate) fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Request<'a> {
    Request::Put(Put { write: write(key), ttl: Ttl::NamespaceDefault, value })
}

pub(crate) fn get(key: &[u8]) -> Request<'_> {
    Request::Get(KeyRequest { namespace: 0, key })
}

/// The opcode of an answer.
pub(crate) fn opcode(answer: &Answer) -> Option<Opcode> {
    Opcode::from_u8(answer.header.opcode)
}
