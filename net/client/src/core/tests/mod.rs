//! The core against a scripted server, on a time that only the tests move.

mod call;
mod connection;
mod fanout;
mod hostile;

use std::time::{Duration, Instant};

use bytes::Bytes;
use pinion_protocol::{
    ErrorReply, FRAME_BYTES_MAX_DEFAULT, Frames, HelloReply, ListBuf, Opcode, PREFACE_BYTES, Preface,
    Request, Response, ShardCores, VERSION_HIGHEST, WriteOutcome, Written,
};

use super::connection::{Connection, Terms};
use super::operation::{Operation, Reply, Write};
use super::session::{Session, Welcome};
use crate::core::map::{Limits, ServerMap};
use crate::core::random::Random;
use crate::error::Result;
use crate::ttl::Ttl;
use crate::{Durability, ErrorCode, Version};

/// A request as the scripted server saw it.
struct Seen {
    request_id: u64,
    deadline_us: u32,
    opcode: u8,
    stamp: Option<u64>,
}

/// A connection and the server at its other end.
struct Pair {
    now: Instant,
    connection: Connection<&'static str>,
    frames: Frames,
}

impl Pair {
    /// A connection that has sent its HELLO.
    fn new() -> Self {
        let now = Instant::now();
        let terms = Terms {
            wanted_core: Some(1),
            client_name: "test".into(),
            greeting_max: Duration::from_secs(1),
            waiting_max: 4,
        };
        let connection = Connection::new(&terms, now);
        Self { now, connection, frames: Frames::new(FRAME_BYTES_MAX_DEFAULT) }
    }

    /// A connection whose HELLO was answered.
    fn greeted(in_flight_max: u32) -> Self {
        let mut pair = Self::new();
        assert_eq!(pair.seen().len(), 1);
        pair.greet(in_flight_max);
        pair
    }

    fn greet(&mut self, in_flight_max: u32) {
        let mut shard_cores = ListBuf::<ShardCores>::new();
        shard_cores.push(&0).unwrap();
        shard_cores.push(&1).unwrap();
        let reply = HelloReply {
            version: VERSION_HIGHEST,
            core: 1,
            cores: 2,
            partitions: 1024,
            key_bytes_max: 4096,
            features: 0,
            node_id: [7; 16],
            incarnation: 1,
            stamp: 1_000 << 16,
            value_bytes_max: 1 << 20,
            batch_ops_max: 100,
            batch_bytes_max: 1 << 20,
            frame_bytes_max: 2 << 20,
            in_flight_max,
            retry_window_ms: 10_000,
            shard_cores: shard_cores.list(),
        };
        self.answer(0, &Response::Hello(reply));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.connection.expire(self.now);
    }

    fn submit(&mut self, ticket: &'static str, operation: Operation) {
        self.connection.submit(self.now, ticket, operation, self.now + Duration::from_secs(1));
    }

    /// What the server receives now.
    fn seen(&mut self) -> Vec<Seen> {
        let output = self.connection.output().to_vec();
        self.connection.wrote(self.now, output.len());
        let mut bytes = output.as_slice();
        if bytes.starts_with(&Preface::OURS.to_bytes()) {
            bytes = &bytes[PREFACE_BYTES..];
        }
        let mut seen = Vec::new();
        while let Some(frame) = self.frames.next_frame(&mut bytes).unwrap() {
            let stamp = match Request::decode(&frame.header, frame.body).unwrap() {
                Request::Put(put) => put.write.stamp,
                Request::Delete(write) => write.stamp,
                Request::Batch(batch) => batch.stamp,
                _ => None,
            };
            seen.push(Seen {
                request_id: frame.header.request_id,
                deadline_us: frame.header.deadline_us,
                opcode: frame.header.opcode,
                stamp: stamp.map(|stamp| stamp.time),
            });
        }
        seen
    }

    fn answer(&mut self, request_id: u64, response: &Response<'_>) {
        let mut bytes = Vec::new();
        response.encode(request_id, 0, &mut bytes).unwrap();
        self.connection.receive(self.now, &bytes);
    }

    fn finished(&mut self) -> Vec<(&'static str, Result<Reply>)> {
        std::iter::from_fn(|| self.connection.next_finished()).collect()
    }

    fn one_finished(&mut self) -> (&'static str, Result<Reply>) {
        let mut finished = self.finished();
        assert_eq!(finished.len(), 1);
        finished.remove(0)
    }
}

fn get(key: &'static str) -> Operation {
    Operation::Get { namespace: 0, key: Bytes::from_static(key.as_bytes()) }
}

fn put(key: &'static str) -> Operation {
    let write = Write::new(key.as_bytes(), Durability::Sync);
    Operation::Put { write, value: Bytes::from_static(b"value"), ttl: Ttl::Default }
}

fn applied(outcome: WriteOutcome) -> Written {
    Written { outcome, version: Version([1; 16]), stamp_seen: 5_000 << 16, expiry_ms: 0, number: 0 }
}

fn error(code: ErrorCode) -> Response<'static> {
    Response::Error { opcode: Opcode::Put.to_u8(), error: ErrorReply::new(code, "") }
}

/// A server of two shards on two cores.
fn map() -> ServerMap {
    ServerMap {
        cores: 2,
        partitions: 1024,
        shard_cores: vec![0, 1],
        limits: Limits {
            key_bytes_max: 4096,
            value_bytes_max: 1 << 20,
            batch_operations_max: 4,
            batch_bytes_max: 1000,
            frame_bytes_max: 2 << 20,
        },
        retry_window: Duration::from_secs(10),
    }
}

/// A session that has been welcomed.
fn session(now: Instant, retry_tokens: u32) -> Session {
    let mut session = Session::new(Random::seeded(1), retry_tokens);
    let welcome = Welcome { map: map(), core: 1, stamp: 1_000 << 16, in_flight_max: 10 };
    session.welcome(now, &welcome);
    session
}
