//! A node of one core, and one connection to it: from the bytes of requests to the bytes of answers.
//!
//! What is counted is all that the server does; the client does not count. Values have 512 bytes, keys
//! 32.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pinion_engine::{Options, PARTITIONS_MIN};
use pinion_protocol::resp::append_command;
use pinion_protocol::{
    Direction, HEADER_BYTES, Header, Hello, KeyRequest, Preface, Put, Request, Response, Scan, ScanKind, Ttl,
    Write,
};
use pinion_server::{CoreMessage, EngineSizes, ServerConfig, serve_core};

use super::{Meter, MeteredEnv};
use crate::world::{ByteStream, NodeConfig, SimEnv, SimHandoff, SimSocket, World};

const PORT: u16 = 7600;
const VALUE: [u8; 512] = [7; 512];
const DISK_BYTES: u64 = 1 << 30;
/// How long requests may take, in microseconds: clients say so, and it is looked at.
const DEADLINE_US: u32 = 1_000_000;

type Env = SimEnv<CoreMessage<SimHandoff>>;

/// A connection to a node whose work is metered.
pub struct Rig<'w> {
    world: &'w World,
    stream: ByteStream<SimSocket>,
    frames: Vec<u8>,
    next: u64,
}

impl fmt::Debug for Rig<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rig").field("next", &self.next).finish_non_exhaustive()
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// A value.
    Get,
    /// A synced write.
    Put,
    /// A page of so many records in placement order.
    Scan(u32),
}

/// What is asked for over RESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// A value.
    Get,
    /// A synced write.
    Set,
}

/// As [`with_connection`], for one that speaks frames and has said HELLO.
///
/// # Panics
/// When the node does not start, and with whatever the test panics.
pub fn with_server<M: Meter>(meter: &M, test: impl AsyncFn(&mut Rig<'_>)) {
    with_connection(meter, async |rig| {
        rig.frames.extend_from_slice(&Preface::OURS.to_bytes());
        let hello = Hello { wanted_core: Some(0), features: 0, client_name: "test" };
        rig.encode(&Request::Hello(hello));
        rig.send().await;
        rig.answer().await;
        test(rig).await;
    });
}

/// Runs `test` with a new connection to a new node that neither flushes nor starts a log segment during a few thousand
/// writes. Links cut nothing.
///
/// # Panics
/// When the node does not start, and with whatever the test panics.
pub fn with_connection<M: Meter>(meter: &M, test: impl AsyncFn(&mut Rig<'_>)) {
    let options = Options {
        log_segment_bytes: 8 << 20,
        log_block_bytes_max: 128 << 10,
        memtable_bytes: 64 << 20,
        disk_reserve_bytes: 0,
        ..Options::default()
    };
    let mut config = ServerConfig::new("data", EngineSizes::Each(Box::new(options)));
    // Few, so that a page does not have a partition for each record.
    config.partitions = PARTITIONS_MIN;
    let config = Arc::new(config);
    let world = World::new(3);
    world.keep_pieces_whole();
    let meter = meter.clone();
    let main = move |env: Env| {
        let (config, meter) = (Arc::clone(&config), meter.clone());
        async move {
            let env = MeteredEnv::new(env, &meter);
            let served = super::metered(&meter, serve_core(env, config, |_| {})).await;
            served.expect("the node starts and stops");
        }
    };
    let disk = NodeConfig { port: PORT, disk_bytes: DISK_BYTES, ..NodeConfig::default() };
    let node = world.start_node(disk, main);
    world.run_until(async {
        let socket = loop {
            match world.connect(node, PORT).await {
                Ok(socket) => break socket,
                Err(_) => world.sleep(Duration::from_millis(1)).await,
            }
        };
        let stream = ByteStream::new(socket);
        let mut rig = Rig { world: &world, stream, frames: Vec::new(), next: 0 };
        test(&mut rig).await;
    });
}

impl Rig<'_> {
    /// Asks `depth` requests in one send, for keys that follow each other below `keys`, and waits for
    /// their answers, all this `rounds` times.
    ///
    /// # Panics
    /// When an answer is not what was asked for.
    pub async fn ask(&mut self, ask: Ask, rounds: u64, depth: u64, keys: u64) {
        for _ in 0..rounds {
            self.frames.clear();
            for _ in 0..depth {
                let key = format!("{:032}", self.next % keys);
                match ask {
                    Ask::Get => self.encode(&Request::Get(KeyRequest { namespace: 0, key: key.as_bytes() })),
                    Ask::Put => {
                        let write = Write {
                            namespace: 0,
                            key: key.as_bytes(),
                            durability: Default::default(),
                            stamp: None,
                        };
                        self.encode(&Request::Put(Put { write, ttl: Ttl::NamespaceDefault, value: &VALUE }));
                    }
                    Ask::Scan(limit) => self.encode(&Request::Scan(placement(limit))),
                }
            }
            self.send().await;
            for _ in 0..depth {
                self.answer().await;
            }
        }
    }

    /// As [`Rig::ask`], over RESP.
    ///
    /// # Panics
    /// When a reply is not what was asked for.
    pub async fn command(&mut self, command: Command, rounds: u64, depth: u64, keys: u64) {
        let reply = match command {
            Command::Set => b"+OK\r\n".to_vec(),
            Command::Get => [&b"$512\r\n"[..], &VALUE, b"\r\n"].concat(),
        };
        for _ in 0..rounds {
            self.frames.clear();
            for _ in 0..depth {
                let key = format!("{:032}", self.next % keys);
                self.next += 1;
                let args = [&b"SET"[..], key.as_bytes(), &VALUE];
                match command {
                    Command::Set => append_command(&mut self.frames, args.into_iter()),
                    Command::Get => append_command(&mut self.frames, [b"GET", args[1]].into_iter()),
                }
            }
            self.send().await;
            for _ in 0..depth {
                let replied = self.stream.read_exact(reply.len()).await.expect("the node answers");
                assert_eq!(replied, reply);
            }
        }
    }

    /// Lets the server end what it does after its answers have left.
    pub async fn quiet(&self) {
        self.world.sleep(Duration::from_millis(5)).await;
    }

    fn encode(&mut self, request: &Request<'_>) {
        request.encode(self.next, 0, DEADLINE_US, &mut self.frames).expect("the request fits a frame");
        self.next += 1;
    }

    async fn send(&mut self) {
        self.stream.write_all(&self.frames).await.expect("the node serves");
    }

    /// Takes the next answer; all must be as asked for.
    async fn answer(&mut self) {
        let front = self.stream.read_exact(HEADER_BYTES).await.expect("the node answers");
        let header = Header::read(&front).expect("the node sends frames").expect("it is a whole header");
        let body = self.stream.read_exact(header.body_bytes() as usize).await.expect("the node answers");
        match Response::decode(&header, &body).expect("the node sends answers") {
            Response::Get(reply) => assert_eq!(reply.value.map(|value| value.bytes.len()), Some(VALUE.len())),
            Response::Scan(page) => assert!(!page.records.is_empty(), "there are records"),
            Response::Put(_) | Response::Hello(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The first page of the namespace.
fn placement(limit: u32) -> Scan<'static> {
    Scan {
        namespace: 0,
        kind: ScanKind::Placement,
        direction: Direction::Forward,
        limit,
        bytes_max: 0,
        keys_only: false,
        start: b"",
        end: b"",
        prefix: b"",
        cursor: b"",
    }
}
