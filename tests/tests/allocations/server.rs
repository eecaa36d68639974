//! The whole server: from the bytes of a connection to the bytes of its answers.

use std::sync::Arc;

use pinion_engine::Options;
use pinion_protocol::resp::append_command;
use pinion_protocol::{
    HEADER_BYTES, Header, Hello, KeyRequest, Opcode, Preface, Put, Request, Response, Ttl, Write,
};
use pinion_server::{CoreMessage, EngineSizes, ServerConfig, serve_core};
use pinion_tests::world::{ByteStream, NodeConfig, SimEnv, SimHandoff, SimSocket, World};

use crate::counting::{Count, CountingEnv};
use crate::{GROWTH_PER_OPERATION_MAX, per_operation};

const PORT: u16 = 7600;
const KEYS: u64 = 256;
const DEPTH: u64 = 16;
/// Rounds of one window of requests each: before the counting, and counted.
const WARM_UP: u64 = 100;
const COUNTED: u64 = 500;

type Env = SimEnv<CoreMessage<SimHandoff>>;

/// One node of one core, what it allocates, and a connection to it.
struct Rig {
    count: Count,
    stream: ByteStream<SimSocket>,
    frames: Vec<u8>,
    next: u64,
}

fn with_server(test: impl AsyncFn(&mut Rig)) {
    with_connection(async |rig| {
        rig.frames.extend_from_slice(&Preface::OURS.to_bytes());
        let hello = Hello { wanted_core: Some(0), features: 0, client_name: "test" };
        Request::Hello(hello).encode(0, 0, 0, &mut rig.frames).unwrap();
        rig.stream.write_all(&rig.frames).await.unwrap();
        rig.answer().await;
        test(rig).await;
    });
}

/// As [`with_server`] for a connection that has said nothing.
fn with_connection(test: impl AsyncFn(&mut Rig)) {
    let options = Options {
        log_segment_bytes: 8 << 20,
        log_block_bytes_max: 128 << 10,
        memtable_bytes: 64 << 20,
        disk_reserve_bytes: 0,
        ..Options::default()
    };
    let config = Arc::new(ServerConfig::new("data", EngineSizes::Each(Box::new(options))));
    let world = World::new(3);
    let count = Count::default();
    let main = {
        let count = count.clone();
        move |env: Env| {
            let (config, count) = (Arc::clone(&config), count.clone());
            async move {
                let env = CountingEnv::new(env, &count);
                count.counted(async { serve_core(env, config, |_| {}).await.unwrap() }).await;
            }
        }
    };
    let disk = NodeConfig { port: PORT, disk_bytes: 1 << 30, ..NodeConfig::default() };
    let node = world.start_node(disk, main);
    world.run_until(async {
        let socket = loop {
            match world.connect(node, PORT).await {
                Ok(socket) => break socket,
                Err(_) => world.sleep(std::time::Duration::from_millis(1)).await,
            }
        };
        let mut rig = Rig { count, stream: ByteStream::new(socket), frames: Vec::new(), next: 0 };
        test(&mut rig).await;
    });
}

impl Rig {
    /// The opcode of the next answer; all must be as asked for.
    async fn answer(&mut self) -> Option<Opcode> {
        let front = self.stream.read_exact(HEADER_BYTES).await.unwrap();
        let header = Header::read(&front).unwrap().unwrap();
        let body = self.stream.read_exact(header.body_bytes() as usize).await.unwrap();
        match Response::decode(&header, &body).unwrap() {
            Response::Get(reply) => assert_eq!(reply.value.map(|value| value.bytes.len()), Some(512)),
            Response::Put(_) | Response::Hello(_) => {}
            other => panic!("{other:?}"),
        }
        Opcode::from_u8(header.opcode)
    }

    /// Asks in windows of [`DEPTH`] requests, and returns what the node allocated.
    async fn ask(&mut self, rounds: u64, request: impl Fn(&mut Vec<u8>, &[u8], u64)) -> u64 {
        let before = self.count.get();
        for _ in 0..rounds {
            self.frames.clear();
            for _ in 0..DEPTH {
                let key = format!("{:032}", self.next % KEYS);
                self.next += 1;
                request(&mut self.frames, key.as_bytes(), self.next);
            }
            self.stream.write_all(&self.frames).await.unwrap();
            for _ in 0..DEPTH {
                self.answer().await;
            }
        }
        self.count.get() - before
    }
}

impl Rig {
    /// Sends windows of [`DEPTH`] commands, reads as many replies of so many bytes, and returns what
    /// the node allocated.
    async fn command(&mut self, rounds: u64, args: impl Fn(&[u8], &mut Vec<u8>), reply_bytes: usize) -> u64 {
        let before = self.count.get();
        for _ in 0..rounds {
            self.frames.clear();
            for _ in 0..DEPTH {
                let key = format!("{:032}", self.next % KEYS);
                self.next += 1;
                args(key.as_bytes(), &mut self.frames);
            }
            self.stream.write_all(&self.frames).await.unwrap();
            let replies = self.stream.read_exact(DEPTH as usize * reply_bytes).await.unwrap();
            assert!(replies.ends_with(b"\r\n") && !replies.starts_with(b"-"));
        }
        self.count.get() - before
    }
}

#[test]
fn commands_through_the_server_allocate_next_to_nothing() {
    let set = |key: &[u8], out: &mut Vec<u8>| append_command(out, [&b"SET"[..], key, &[7; 512]].into_iter());
    let get = |key: &[u8], out: &mut Vec<u8>| append_command(out, [&b"GET"[..], key].into_iter());
    with_connection(async |rig| {
        let (ok_bytes, value_bytes) = (b"+OK\r\n".len(), b"$512\r\n".len() + 512 + 2);
        rig.command(WARM_UP, set, ok_bytes).await;
        // As of frames: the arena's chunks and the log's segments.
        let sets = rig.command(COUNTED, set, ok_bytes).await;
        assert!(per_operation("SET", sets, COUNTED * DEPTH) <= GROWTH_PER_OPERATION_MAX / 10.0);
        rig.command(WARM_UP, get, value_bytes).await;
        let gets = rig.command(COUNTED, get, value_bytes).await;
        assert_eq!((per_operation("GET over RESP", gets, COUNTED * DEPTH), gets), (0.0, 0));
    });
}

fn put(frames: &mut Vec<u8>, key: &[u8], id: u64) {
    let write = Write { namespace: 0, key, durability: Default::default(), stamp: None };
    let put = Put { write, ttl: Ttl::NamespaceDefault, value: &[7; 512] };
    Request::Put(put).encode(id, 0, 1_000_000, frames).unwrap();
}

fn get(frames: &mut Vec<u8>, key: &[u8], id: u64) {
    Request::Get(KeyRequest { namespace: 0, key }).encode(id, 0, 1_000_000, frames).unwrap();
}

#[test]
fn gets_and_puts_through_the_server_allocate_next_to_nothing() {
    with_server(async |rig| {
        rig.ask(WARM_UP, put).await;
        // The arena's chunks and the log's segments, as in the engine alone.
        let puts = rig.ask(COUNTED, put).await;
        assert!(per_operation("PUT", puts, COUNTED * DEPTH) <= GROWTH_PER_OPERATION_MAX / 10.0);
        rig.ask(WARM_UP, get).await;
        let gets = rig.ask(COUNTED, get).await;
        assert_eq!((per_operation("GET", gets, COUNTED * DEPTH), gets), (0.0, 0));
    });
}
