//! The core against a server that sends anything: mutated answers of every kind, to requests that
//! were made and to others, in any pieces.
//!
//! Nothing panics; every call ends exactly once, with an answer or an error; and whatever an answer
//! holds goes through what callers do with it: retries, pages of scans, parts of reads and batches.

use pinion_protocol::{HEADER_BYTES, Section};
use pinion_tests::fuzz::corpus;
use pinion_tests::fuzz::frames::{Chunks, Streams};
use pinion_tests::world::Random as Drawn;

use super::*;
use crate::batch::WriteBatch;
use crate::core::call::{Call, Step};
use crate::core::fanout::{BatchParts, ManyReads};
use crate::core::operation::Route;
use crate::core::scan::ScanState;
use crate::scan::ScanRange;

/// Connections, each of which is sent one stream.
const CONNECTIONS: u64 = 60_000;

/// Requests that each of them waits for.
const REQUESTS: u64 = 12;

/// A batch of three, of which parts are tried again.
fn batch() -> WriteBatch {
    WriteBatch::new().put("a", "1").put("b", "2").delete("c")
}

/// One operation of each sort of answer.
fn operations(reads: &mut ManyReads, scan: &mut ScanState) -> Vec<Operation> {
    let map = map();
    let parts = BatchParts::new(batch(), None, &map).expect("a small batch fits");
    let mut all =
        vec![get("k"), put("k"), Operation::NamespaceList, Operation::ServerInfo { section: Section::All }];
    all.push(Operation::Ping { bytes: Bytes::from_static(b"ping"), route: Route::Any });
    all.push(Operation::Stat { namespace: 0, key: Bytes::from_static(b"k") });
    all.push(Operation::NamespaceDrop { name: "n".into() });
    all.extend(parts.parts.into_iter().map(|(_, operation)| operation));
    all.extend(reads.parts(&map).into_iter().map(|part| part.split().1));
    all.extend(scan.requests().into_iter().map(|(_, operation)| operation));
    all
}

/// Makes most frames of a stream answer requests of this connection.
fn address(random: &mut Drawn, stream: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = stream.get_mut(at..at + HEADER_BYTES) {
        let bytes = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if !random.one_in(16) {
            let id = 1 << 32 | random.below(REQUESTS);
            header[8..16].copy_from_slice(&id.to_le_bytes());
            header[7] |= 1;
        }
        at += bytes.max(HEADER_BYTES);
    }
}

/// Does with a reply whatever a caller could: each of these refuses what it did not ask for.
fn consume(reply: &Reply, scan: &mut ScanState, reads: &mut ManyReads) {
    let every = |reply: &Reply| {
        let reply = || reply.clone();
        let refused = [
            reply().entry().is_err(),
            reply().stat().is_err(),
            reply().written().is_err(),
            reply().number().is_err(),
            reply().touched().is_err(),
            reply().namespace().is_err(),
            reply().namespaces().is_err(),
            reply().info().is_err(),
            reply().pong().is_err(),
            reply().page().is_err(),
        ];
        drop(reply().length());
        assert!(refused.iter().filter(|refused| !**refused).count() <= 2, "{:?}", reply());
    };
    every(reply);
    drop(reads.received(&[0, 1, 2], reply.clone()));
    drop(BatchParts::merge(3, vec![(vec![0, 2], Ok(reply.clone())), (vec![1], Ok(reply.clone()))]));
    if let Ok(page) = reply.clone().page() {
        drop(scan.received(0, page));
        while scan.pop().is_some() {}
        scan.requests();
    }
}

#[test]
fn whatever_a_server_sends_every_call_ends_once() {
    let mut random = Drawn::new(0xC11E);
    let mut streams = Streams::new(&mut random, &corpus::golden_frames());
    let mut chunks = Chunks::default();
    let (mut replies, mut errors, mut greeted) = (0_u64, 0_u64, 0_u64);
    for round in 0..CONNECTIONS {
        if round % 4096 == 0 {
            streams = Streams::new(&mut random, &corpus::golden_frames());
        }
        streams.next_stream(&mut random);
        let mut stream = streams.bytes().to_vec();
        let says_hello = random.one_in(8);
        let mut pair = if says_hello { Pair::new() } else { Pair::greeted(64) };
        let mut session = session(pair.now, 4);
        let keys = ["a", "b", "c"].map(|key| Bytes::from_static(key.as_bytes())).to_vec();
        let mut reads = ManyReads::new(keys, &map().limits).expect("short keys fit");
        let mut scan = ScanState::new(ScanRange::all(), &map());
        let mut calls = Vec::new();
        for operation in operations(&mut reads, &mut scan) {
            let mut call = Call::new(operation, pair.now + Duration::from_secs(1), 2);
            let operation = call.operation(&mut session, pair.now);
            if pair.connection.has_room() {
                pair.submit("call", operation);
                calls.push(call);
            }
        }
        address(&mut random, &mut stream);
        chunks.draw(&mut random, stream.len());
        for chunk in chunks.of(&stream) {
            pair.connection.receive(pair.now, chunk);
        }
        if let Some(welcome) = pair.connection.take_welcome() {
            greeted += u64::from(says_hello);
            session.welcome(pair.now, &welcome);
        }
        session.clock.observe(pair.connection.take_stamp_seen());
        pair.connection.lost("the test is over".into());
        let finished = pair.finished();
        assert_eq!(finished.len(), calls.len(), "a call that does not end, or ends twice");
        for ((_, result), mut call) in finished.into_iter().zip(calls) {
            match &result {
                Ok(reply) => {
                    replies += 1;
                    consume(reply, &mut scan, &mut reads);
                }
                Err(_) => errors += 1,
            }
            if let Step::Send(at) = call.finish(&mut session, pair.now, result.clone()) {
                assert!(at < pair.now + Duration::from_secs(1), "a try after the deadline");
                call.operation(&mut session, at);
                // The same nonsense once more: what was narrowed meets the full list.
                call.finish(&mut session, at, result);
            }
        }
    }
    println!("{CONNECTIONS} connections: {replies} replies, {errors} errors, {greeted} odd greetings taken");
    assert!(replies > CONNECTIONS / 5 && errors > CONNECTIONS && greeted > 0);
}
