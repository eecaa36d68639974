//! What is received or stored bounds what decoding it allocates, whatever its headers claim.
//!
//! Counted by an allocator that counts per thread, on a sample of what the classes try.

use pinion_protocol::resp::Commands;
use pinion_protocol::{Frames, GATHERED_BYTES_KEPT_MAX, Request, Response};
use pinion_tests::fuzz::corpus;
use pinion_tests::fuzz::frames::{Chunks, Streams};
use pinion_tests::fuzz::http;
use pinion_tests::fuzz::mutate::mutate;
use pinion_tests::fuzz::storage::files;
use pinion_tests::fuzz::storage::image::{Image, images};
use pinion_tests::process::Rig;
use pinion_tests::trials::Counts;
use pinion_tests::world::Random;

const STREAMS: u64 = 30_000;

const FILE_INPUTS: u64 = 400;

const REQUESTS: u64 = 4_000;

/// A request may cost this many times its bytes: itself while it is gathered, what is parsed of it, what the
/// client sends of that, and the answer.
const TIMES_ASKED_MAX: u64 = 6;

/// What the smallest request may cost: a page that ends with the largest value, as it is received and as text.
const ANSWER_BYTES: u64 = 3 << 20;

/// The buffer holds at most twice what came; while it grows, the smaller one before it is there too.
const TIMES_RECEIVED_MAX: u64 = 3;

/// What an error or a header may cost beside the bytes: the 32 bytes of a refused header.
const SMALL_CHANGE_BYTES: u64 = 64;

#[test]
fn the_assembler_is_bounded_by_what_came_and_decoding_takes_nothing() {
    let mut random = Random::new(17);
    let (mut peak, mut received) = (0, 0);
    let mut streams = Streams::new(&mut random, &corpus::kept("frames"));
    let mut chunks = Chunks::default();
    for _ in 0..STREAMS {
        streams.next_stream(&mut random);
        chunks.draw(&mut random, streams.bytes().len());
        let cost = allocation_counter::measure(|| read(&streams, &chunks));
        let bytes = streams.bytes().len() as u64;
        let bound = TIMES_RECEIVED_MAX * bytes + SMALL_CHANGE_BYTES;
        assert!(cost.bytes_max <= bound, "{} for {bytes} bytes", cost.bytes_max);
        peak = peak.max(cost.bytes_max);
        received += bytes;
    }
    println!("{STREAMS} streams, {received} bytes, at most {peak} bytes held by one");
    assert!(peak > 0, "nothing was gathered");
}

/// Reads a stream as a server does, and decodes each frame both ways.
fn read(streams: &Streams, chunks: &Chunks) {
    let mut frames = Frames::new(streams.frame_bytes_max());
    for mut chunk in chunks.of(streams.bytes()) {
        loop {
            match frames.next_frame(&mut chunk) {
                Ok(Some(frame)) => {
                    let decoding = allocation_counter::measure(|| {
                        let decoded = (
                            Request::decode(&frame.header, frame.body).is_ok(),
                            Response::decode(&frame.header, frame.body).is_ok(),
                        );
                        assert_ne!(decoded, (true, true));
                    });
                    assert_eq!(decoding.count_total, 0, "decoding reads in place");
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

#[test]
fn requests_over_http_explain_what_answering_them_takes() {
    let rig = Rig::with_shards(1);
    let server = rig.start();
    let gate = http::Gate::open(server.address());
    let mut random = Random::new(23);
    let (mut peak, mut asked, mut text) = (0, 0, Vec::new());
    for number in 0..REQUESTS {
        text.clear();
        match number {
            // Trees where a time or a text should be, which a careless parser would build.
            0 => tree("PUT /kv/k", "{\"value\":\"v\",\"ttl\":[", &mut text),
            1 => tree("POST /kv:batch", "{\"items\":[{\"op\":\"get\",\"key\":[", &mut text),
            2 => tree("POST /kv:batch", "{\"items\":[{\"op\":\"get\",\"x\":[", &mut text),
            3 => tree("POST /kv:batch", "[", &mut text),
            _ => {
                http::draw(&mut random, &mut text);
                if random.one_in(2) {
                    mutate(&mut random, &mut text, 0, http::BROAD);
                }
            }
        }
        let Some(request) = http::read(&text, &mut random) else { continue };
        let cost = allocation_counter::measure(|| drop(gate.answer(request))).bytes_max;
        let bound = TIMES_ASKED_MAX * text.len() as u64 + ANSWER_BYTES;
        assert!(cost <= bound, "{cost} for {} bytes: {}", text.len(), corpus::to_hex(&text));
        peak = peak.max(cost);
        asked += text.len();
    }
    drop(gate);
    server.stop();
    println!("{REQUESTS} requests, {asked} bytes, at most {peak} bytes held by one");
}

/// A request whose body goes on with a long list.
fn tree(line: &str, begin: &str, out: &mut Vec<u8>) {
    let head = "HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\r\n";
    out.extend_from_slice(format!("{line} {head}{begin}").as_bytes());
    out.extend_from_slice(&b"1,".repeat(300_000));
}

#[test]
fn a_peer_that_only_claims_costs_nothing() {
    for claimed in [1 << 20, 1 << 30, u32::MAX] {
        let mut header = vec![0; 32];
        header[..4].copy_from_slice(&u32::to_le_bytes(claimed));
        header[4] = 32;
        let cost = allocation_counter::measure(|| {
            let mut frames = Frames::new(u32::MAX);
            let mut chunk = header.as_slice();
            assert_eq!(frames.next_frame(&mut chunk).unwrap(), None);
            assert_eq!(frames.waiting_bytes(), 32);
        });
        assert!(cost.bytes_max <= 2 * 32, "{claimed}: {}", cost.bytes_max);
    }
}

#[test]
fn a_long_frame_is_forgotten_when_it_was_read() {
    let mut frames = Frames::new(u32::MAX);
    let mut frame = Vec::new();
    let text = "x".repeat(4 * GATHERED_BYTES_KEPT_MAX);
    Response::ServerInfo(&text).encode(1, 0, &mut frame).unwrap();
    let cost = allocation_counter::measure(|| {
        for part in frame.chunks(1000) {
            let mut chunk = part;
            while frames.next_frame(&mut chunk).unwrap().is_some() {}
        }
        assert_eq!(frames.next_frame(&mut &[][..]).unwrap(), None);
    });
    assert_eq!(frames.gathered_frames(), 1);
    assert!(cost.bytes_current <= GATHERED_BYTES_KEPT_MAX as i64, "{} bytes are kept", cost.bytes_current);
}

#[test]
fn a_command_that_waits_costs_what_is_counted_and_is_forgotten_when_it_was_read() {
    const ARGS: usize = 100_000;
    // Nothing says less on the wire than an empty argument.
    let argument = &b"$0\r\n\r\n"[..];
    let stream = [format!("*{ARGS}\r\n").as_bytes(), &argument.repeat(ARGS - 1)].concat();
    for chunk_bytes in [100, 16 << 10, stream.len()] {
        let mut commands = Commands::new(u32::MAX);
        let waiting = allocation_counter::measure(|| {
            for mut chunk in stream.chunks(chunk_bytes) {
                assert!(commands.next_command(&mut chunk).unwrap().is_none());
            }
        });
        let counted = commands.waiting_bytes() as u64;
        let bound = TIMES_RECEIVED_MAX * counted + SMALL_CHANGE_BYTES;
        assert!(waiting.bytes_max <= bound, "{} of which {counted} are counted", waiting.bytes_max);
        let read = allocation_counter::measure(|| {
            let mut chunk = argument;
            assert_eq!(commands.next_command(&mut chunk).unwrap().map(|command| command.len()), Some(ARGS));
            assert!(commands.next_command(&mut chunk).unwrap().is_none());
        });
        let kept = waiting.bytes_current + read.bytes_current;
        assert!(kept <= GATHERED_BYTES_KEPT_MAX as i64, "{kept} bytes are kept");
    }
}

#[test]
fn a_line_is_forgotten_when_it_was_read() {
    let mut commands = Commands::new(u32::MAX);
    let line = ["PING", &" a".repeat(30_000), "\r\n"].concat();
    let cost = allocation_counter::measure(|| {
        let mut chunk = line.as_bytes();
        assert_eq!(commands.next_command(&mut chunk).unwrap().map(|command| command.len()), Some(30_001));
        assert!(commands.next_command(&mut chunk).unwrap().is_none());
    });
    assert_eq!(cost.bytes_current, 0, "are kept");
}

#[test]
fn files_explain_what_opening_and_reading_them_takes() {
    // The world, the engine's buffers and caches, and two copies of the largest file that is made.
    const BYTES_MAX: u64 = 8 << 20;
    let stored = |image: &Image| image.files.values().map(|file| file.bytes).sum::<u64>();
    let largest = images().iter().map(stored).max().expect("there are images");
    let mut counts = Counts::default();
    files::kept();
    let mut peak = 0;
    for seed in 0..FILE_INPUTS {
        let cost = allocation_counter::measure(|| files::one(seed, &mut counts));
        assert!(cost.bytes_max <= BYTES_MAX, "{} bytes for the input of seed {seed}", cost.bytes_max);
        peak = peak.max(cost.bytes_max);
    }
    println!(
        "{FILE_INPUTS} inputs of about {largest} bytes at most, at most {peak} bytes held by one: {counts}"
    );
    assert!(counts.get("blocks changed and sealed") > FILE_INPUTS / 4, "{counts}");
}
