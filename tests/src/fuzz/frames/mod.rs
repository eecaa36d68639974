//! Bytes from a socket: the class `fuzz-frames`.
//!
//! A seed is a stretch of [`FRAMES_PER_SEED`] frames. Frames are strung to streams, the streams cut
//! into chunks at random places and given to the assembler; each frame that comes out is decoded as a
//! request and as an answer ([`judge`]). What must be true:
//!
//! * nothing panics, and what waits in the assembler is never more than what was received;
//! * the frames are those that a plain walk over the stream finds, whatever the chunks;
//! * an intact message decodes to what it was encoded from;
//! * an accepted request is canonical: it encodes to the same bytes. An accepted answer, which may be
//!   from a newer server, encodes to something that decodes to the same answer;
//! * the short cuts of the hot path (`decode_get`, `Put::decode`) agree with the long way.
//!
//! What a real server does with the same streams is looked at once in [`SERVER_EVERY`] seeds
//! ([`server`]), since a world is thousands of times slower than a decoder.

mod judge;
mod messages;
pub mod server;
mod streams;

use std::sync::OnceLock;

use super::corpus::{self, Kept};
use crate::trials::{Class, Counts, Trials};
use crate::world::Random;

pub use judge::Tally;
pub use streams::{Chunks, Streams, cut};

/// The class.
pub const FUZZ_FRAMES: Class = Class {
    name: "fuzz-frames",
    about: "mutated frames and garbage, through every decoder of the protocol and a server in a world",
    unit: "frames",
    submission: 20_000_000,
    full: 200_000_000,
    release: 2_000_000_000,
    run,
};

/// Frames that one seed tries, at least.
pub const FRAMES_PER_SEED: u64 = 4096;

/// One seed in so many also talks to a server in a world.
pub const SERVER_EVERY: u64 = 64;

/// The count is in frames, rounded up to whole seeds. When a frame breaks a promise the stream is
/// printed as hexadecimal, ready to be kept.
fn run(trials: &Trials) -> Counts {
    let kept = replay_kept();
    let seeds = Trials { count: trials.count.div_ceil(FRAMES_PER_SEED), ..trials.clone() };
    let mut counts = seeds.each_seed(|seed, counts| {
        stretch(seed).add_to(counts);
        if seed.is_multiple_of(SERVER_EVERY) {
            server::talk(seed, counts);
        }
    });
    kept.add_to(&mut counts);
    counts.add("kept inputs replayed", kept_frames().len() as u64);
    counts
}

/// One seed's frames.
///
/// # Panics
/// When a frame breaks a promise.
pub fn stretch(seed: u64) -> Tally {
    let mut random = Random::labelled(seed, 0xF4A3E5);
    let mut streams = Streams::new(&mut random, kept_frames());
    let mut tally = Tally::default();
    let mut chunks = Chunks::default();
    while tally.frames() < FRAMES_PER_SEED {
        streams.next_stream(&mut random);
        let blame = Blame(streams.bytes());
        chunks.draw(&mut random, streams.bytes().len());
        streams::feed(&streams, &chunks, &mut random, &mut tally);
        drop(blame);
    }
    tally
}

/// All kept inputs, fed whole, byte by byte and in odd pieces.
fn replay_kept() -> Tally {
    let mut tally = Tally::default();
    for Kept { name, bytes } in kept_frames() {
        for size in [usize::MAX, 1, 7, 33] {
            let _blame = Blame(bytes);
            streams::feed_kept(name, bytes, size, &mut tally);
        }
    }
    tally
}

/// Golden frames and the corpus.
fn kept_frames() -> &'static [Kept] {
    static KEPT: OnceLock<Vec<Kept>> = OnceLock::new();
    KEPT.get_or_init(|| [corpus::golden_frames(), corpus::kept("frames")].concat())
}

/// Prints the stream that was being fed when something panics.
struct Blame<'a>(&'a [u8]);

impl Drop for Blame<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the stream, {} bytes:\n{}", self.0.len(), corpus::to_hex(self.0));
        }
    }
}
