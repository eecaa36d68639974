//! Pieces that are called directly: frames, and a shard.

use std::hint::black_box;

use pinion_engine::Options;
use pinion_protocol::{
    Frames, Put, Request, Stat, Ttl, Version, Write, WriteOutcome, Written, encode_value_head, encode_written,
};

use super::{KNOWN_BYTES, KNOWN_REQUESTS, marked};
use crate::counts::marks::Marks;
use crate::metered::engine::{Rig, roomy, with_shard};

const KEY: [u8; 32] = [b'k'; 32];
const VALUE: [u8; 512] = [7; 512];

/// Keys that are there before anything counts.
const KEYS: u64 = 2_000;
/// Requests that count: few, because a step takes long.
const GETS: u64 = 4;
const PUTS_ALONE: u64 = 2;
const BURST: u64 = 16;
const SCAN_RECORDS: u32 = 16;

pub(super) fn known(marks: Marks) -> u64 {
    let from = vec![7_u8; KNOWN_BYTES];
    let mut to = vec![0_u8; KNOWN_BYTES];
    marked(marks, KNOWN_REQUESTS, || {
        black_box(to.as_mut_slice()).copy_from_slice(black_box(&from));
        black_box(Box::new(1_u64))
    })
}

pub(super) fn request_in(marks: Marks) -> u64 {
    let write = Write { namespace: 0, key: &KEY, durability: Default::default(), stamp: None };
    let put = Request::Put(Put { write, ttl: Ttl::NamespaceDefault, value: &VALUE });
    let mut bytes = Vec::new();
    put.encode(1, 0, 0, &mut bytes).expect("the request fits a frame");
    let mut frames = Frames::new(1 << 20);
    marked(marks, GETS, || {
        let mut rest = bytes.as_slice();
        let frame = frames.next_frame(&mut rest).expect("it is a frame").expect("it is whole");
        let request = Request::decode(&frame.header, frame.body).expect("it was encoded");
        assert!(matches!(black_box(request), Request::Put(_)));
    })
}

pub(super) fn value_out(marks: Marks) -> u64 {
    let mut out = Vec::with_capacity(4_096);
    let version = Version([1; 16]);
    let stat = Stat { version, expiry_ms: 0, value_bytes: VALUE.len() as u32 };
    let written = Written { outcome: WriteOutcome::Applied, version, stamp_seen: 1, expiry_ms: 0, number: 0 };
    marked(marks, GETS, || {
        out.clear();
        encode_value_head(&stat, 1, 1, 0, &mut out).expect("the value fits a frame");
        out.extend_from_slice(&VALUE);
        encode_written(pinion_protocol::Opcode::Put, &written, 1, 0, &mut out);
        black_box(&out).len()
    })
}

pub(super) fn get_in_memtable(marks: Marks) -> u64 {
    shard(marks, &roomy(), async move |rig| {
        rig.put(0..KEYS, BURST).await;
        gets(marks, rig, KEYS);
    });
    GETS
}

pub(super) fn get_in_row_cache(marks: Marks) -> u64 {
    shard(marks, &Options { block_cache_bytes: 0, ..roomy() }, async move |rig| {
        rig.cache(500).await;
        let before = rig.shard.stats().counters.row_cache_hits;
        gets(marks, rig, 500);
        assert_eq!(rig.shard.stats().counters.row_cache_hits - before, 2 * GETS);
    });
    GETS
}

pub(super) fn get_in_block(marks: Marks) -> u64 {
    shard(marks, &Options { row_cache_bytes: 0, ..roomy() }, async move |rig| {
        rig.cache(500).await;
        let before = rig.shard.stats().counters.blocks_searched;
        gets(marks, rig, 500);
        assert_eq!(rig.shard.stats().counters.blocks_searched - before, 2 * GETS);
    });
    GETS
}

/// Once without marks, once with them.
fn gets(marks: Marks, rig: &Rig<Marks>, keys: u64) {
    let numbers = (0..GETS).map(|number| number * 37 % keys);
    rig.get(numbers.clone());
    marks.arm();
    rig.get(numbers);
    marks.disarm();
}

pub(super) fn put_alone(marks: Marks) -> u64 {
    puts(marks, PUTS_ALONE, 1)
}

pub(super) fn put_in_16(marks: Marks) -> u64 {
    puts(marks, BURST, BURST)
}

fn puts(marks: Marks, count: u64, burst: u64) -> u64 {
    shard(marks, &roomy(), async move |rig| {
        rig.put((0..KEYS).chain(0..KEYS), BURST).await;
        rig.quiet().await;
        marks.arm();
        rig.put((0..count).map(|number| number * 37 % KEYS), burst).await;
        rig.quiet().await;
        marks.disarm();
    });
    count
}

pub(super) fn scan(marks: Marks) -> u64 {
    shard(marks, &roomy(), async move |rig| {
        rig.put(0..KEYS, BURST).await;
        rig.scan(SCAN_RECORDS).await;
        marks.arm();
        let records = rig.scan(SCAN_RECORDS).await;
        marks.disarm();
        assert_eq!(records, u64::from(SCAN_RECORDS));
    });
    1
}

fn shard(marks: Marks, options: &Options, test: impl AsyncFn(&Rig<Marks>) + Clone + 'static) {
    with_shard(options, &marks, test);
}
