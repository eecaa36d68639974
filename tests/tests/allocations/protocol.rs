//! The protocol: frames in and out of buffers that exist.

use pinion_protocol::{
    Frames, KeyRequest, Opcode, Put, Request, Stat, Ttl, Version, Write, WriteOutcome, Written,
    encode_value_head, encode_written,
};

use crate::per_operation;

const KEY: [u8; 32] = [b'k'; 32];
const VALUE: [u8; 512] = [7; 512];
const ROUNDS: u64 = 1_000;

fn get() -> Request<'static> {
    Request::Get(KeyRequest { namespace: 0, key: &KEY })
}

fn put() -> Request<'static> {
    let write = Write { namespace: 0, key: &KEY, durability: Default::default(), stamp: None };
    Request::Put(Put { write, ttl: Ttl::NamespaceDefault, value: &VALUE })
}

#[test]
fn requests_are_made_and_read_without_allocating() {
    let mut out = Vec::with_capacity(4_096);
    let mut frames = Frames::new(1 << 20);
    let info = allocation_counter::measure(|| {
        for round in 0..ROUNDS {
            out.clear();
            for request in [get(), put()] {
                request.encode(round, 0, 0, &mut out).unwrap();
            }
            let mut rest = out.as_slice();
            for request in [get(), put()] {
                let frame = frames.next_frame(&mut rest).unwrap().unwrap();
                assert_eq!(Request::decode(&frame.header, frame.body).unwrap(), request);
            }
        }
    });
    assert_eq!(per_operation("requests", info.count_total, 2 * ROUNDS), 0.0);
}

#[test]
fn a_frame_in_pieces_is_gathered_in_a_buffer_that_stays() {
    let mut bytes = Vec::new();
    put().encode(1, 0, 0, &mut bytes).unwrap();
    let mut frames = Frames::new(1 << 20);
    let mut in_pieces = |rounds: u64| {
        for _ in 0..rounds {
            let (mut front, mut back) = bytes.split_at(100);
            assert!(frames.next_frame(&mut front).unwrap().is_none());
            assert!(frames.next_frame(&mut back).unwrap().is_some());
            // The frame goes with the next call.
            assert!(frames.next_frame(&mut back).unwrap().is_none());
        }
    };
    in_pieces(10);
    let info = allocation_counter::measure(|| in_pieces(ROUNDS));
    assert_eq!(per_operation("frames in pieces", info.count_total, ROUNDS), 0.0);
}

#[test]
fn answers_are_made_without_allocating() {
    let mut out = Vec::with_capacity(4_096);
    let version = Version([1; 16]);
    let stat = Stat { version, expiry_ms: 0, value_bytes: VALUE.len() as u32 };
    let written = Written { outcome: WriteOutcome::Applied, version, stamp_seen: 1, expiry_ms: 0, number: 0 };
    let info = allocation_counter::measure(|| {
        for round in 0..ROUNDS {
            out.clear();
            encode_value_head(&stat, 1, round, 0, &mut out).unwrap();
            out.extend_from_slice(&VALUE);
            encode_written(Opcode::Put, &written, round, 0, &mut out);
        }
    });
    assert_eq!(per_operation("answers", info.count_total, 2 * ROUNDS), 0.0);
}
