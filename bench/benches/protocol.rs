//! The protocol's hot pieces: making and reading the frames of GET and PUT, and cutting a received
//! chunk into frames.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pinion_protocol::{
    Durability, FRAME_BYTES_MAX_DEFAULT, Frames, GetReply, HEADER_BYTES, Header, KeyRequest, Opcode, Put,
    Request, Response, Stat, Ttl, Value, Version, Write, WriteOutcome, Written, encode_value_head,
    encode_written,
};

const KEY: &[u8] = &[b'k'; 32];
const VALUE: &[u8] = &[b'v'; 512];
/// Frames in a chunk: what a connection of depth 16 finds.
const FRAMES: usize = 16;

fn put() -> Request<'static> {
    let write = Write { namespace: 0, key: KEY, durability: Durability::Sync, stamp: None };
    Request::Put(Put { write, ttl: Ttl::NamespaceDefault, value: VALUE })
}

fn found() -> Response<'static> {
    let value = Some(Value { version: Version([1; 16]), expiry_ms: 0, bytes: VALUE });
    Response::Get(GetReply { value, stamp_seen: 1 })
}

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("request");
    for (name, request) in [("get", Request::Get(KeyRequest { namespace: 0, key: KEY })), ("put", put())] {
        let mut out = Vec::new();
        group.bench_function(format!("{name}/encode"), |b| {
            b.iter(|| {
                out.clear();
                black_box(&request).encode(7, 0, 0, &mut out)
            });
        });
        let header = Header::read(&out).expect("it was just made").expect("it is whole");
        group.bench_function(format!("{name}/decode"), |b| {
            b.iter(|| black_box(Request::decode(&header, black_box(&out[HEADER_BYTES..]))).is_ok());
        });
    }
}

fn replies(c: &mut Criterion) {
    let mut group = c.benchmark_group("reply");
    let mut out = Vec::new();
    group.bench_function("get/encode", |b| {
        let stat = Stat { version: Version([1; 16]), expiry_ms: 0, value_bytes: VALUE.len() as u32 };
        b.iter(|| {
            out.clear();
            let result = encode_value_head(black_box(&stat), 1, 7, 0, &mut out);
            out.extend_from_slice(VALUE);
            result
        });
    });
    let header = Header::read(&out).expect("it was just made").expect("it is whole");
    group.bench_function("get/decode", |b| {
        b.iter(|| black_box(Response::decode(&header, black_box(&out[HEADER_BYTES..]))).is_ok());
    });
    group.bench_function("put/encode", |b| {
        let outcome = WriteOutcome::Applied;
        let version = Version([1; 16]);
        let written = Written { outcome, version, stamp_seen: 1, expiry_ms: 0, number: 0 };
        b.iter(|| {
            out.clear();
            encode_written(Opcode::Put, black_box(&written), 7, 0, &mut out);
        });
    });
}

fn chunks(c: &mut Criterion) {
    let mut group = c.benchmark_group("frames");
    group.throughput(Throughput::Elements(FRAMES as u64));
    let mut chunk = Vec::new();
    for request_id in 0..FRAMES as u64 {
        found().encode(request_id, 0, &mut chunk).expect("it fits");
    }
    let mut frames = Frames::new(FRAME_BYTES_MAX_DEFAULT);
    group.bench_function("in place", |b| {
        b.iter(|| count(&mut frames, black_box(&chunk)));
    });
    // One frame of the chunk spans the two receives.
    group.bench_function("gathered", |b| {
        let (front, back) = chunk.split_at(chunk.len() / 2 + 100);
        b.iter(|| count(&mut frames, black_box(front)) + count(&mut frames, black_box(back)));
    });
}

fn count(frames: &mut Frames, mut chunk: &[u8]) -> usize {
    let mut bytes = 0;
    while let Some(frame) = frames.next_frame(&mut chunk).expect("the frames are good") {
        bytes += frame.body.len();
    }
    bytes
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = requests, replies, chunks
}
criterion_main!(benches);
