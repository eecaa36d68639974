//! Requests over HTTP: the class `fuzz-http`.
//!
//! A seed is a stretch of [`REQUESTS_PER_SEED`] requests, given to the gateway's router in memory, as hyper
//! gives them to it once it has taken a head apart; behind the gateway stands a real server. Requests are
//! written as text ([`draw`]), mutated as such, and then read as requests ([`raw`]): what hyper's own types
//! refuse never reaches us and is not tried. What must be true of every answer ([`judge`]):
//!
//! * nothing panics, and there is an answer;
//! * its status is one that `/openapi.json` lists for what was asked, or one of those that every address has;
//!   nothing that a peer sends makes it one of 500 and more;
//! * an error is a problem document with a known code, and everything else is of the type that it says;
//! * a request that means something does it: what was put is got, by itself, in a batch and in a page.
//!
//! That memory is bounded by what was received is shown in the tests of this crate, where allocations are
//! counted.

mod draw;
mod judge;
mod meant;
mod raw;

use bytes::Bytes;
use hyper::Response;
use pinion_gateway::{Config, Service};
use tokio::runtime::Runtime;

use super::corpus::{self, Kept};
use super::mutate::mutate;
use crate::process::{PATIENCE, Rig};
use crate::trials::{Class, Counts, Trials};
use crate::world::Random;

pub use draw::{BROAD, draw};
pub use raw::{Request, read};

use judge::{Asked, Judge};

/// The class.
pub const FUZZ_HTTP: Class = Class {
    name: "fuzz-http",
    about: "mutated requests over HTTP, through the gateway's router before a real server",
    unit: "requests",
    submission: 20_000,
    full: 1_000_000,
    release: 10_000_000,
    run,
};

/// Requests that one seed tries.
const REQUESTS_PER_SEED: u64 = 512;
/// One request in so many means something and is held to it.
const MEANT_EVERY: u64 = 64;

/// The count is in requests, rounded up to whole seeds.
fn run(trials: &Trials) -> Counts {
    let rig = Rig::with_shards(1);
    let server = rig.start();
    let address = server.address();
    let mut counts = replay_kept(address);
    let seeds = Trials { count: trials.count.div_ceil(REQUESTS_PER_SEED), ..trials.clone() };
    counts.merge(&seeds.each_seed(|seed, counts| stretch(seed, address, counts)));
    server.stop();
    counts
}

/// A gateway in memory before a real server, and the thread that it runs on: that of its caller.
#[derive(Debug)]
pub struct Gate {
    runtime: Runtime,
    service: Service,
}

impl Gate {
    /// A gateway before the server at `address`.
    ///
    /// # Panics
    /// When the system has no descriptors left.
    pub fn open(address: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime is a few descriptors");
        let mut config = Config::new(([127, 0, 0, 1], 0).into(), address);
        config.hosts = vec!["pinion.example".to_owned()];
        // A few records are a page.
        config.limits.page_bytes_max = 128 << 10;
        // A machine that is busy is no failure.
        config.deadline = PATIENCE;
        let service = Service::new(config).expect("a good configuration");
        runtime.block_on(service.connect());
        Self { runtime, service }
    }

    /// The answer to a request.
    pub fn answer(&self, request: Request) -> Response<Bytes> {
        self.runtime.block_on(self.service.answer(request))
    }
}

/// One seed's requests.
fn stretch(seed: u64, address: &str, counts: &mut Counts) {
    let mut random = Random::labelled(seed, 0x4177);
    let gate = Gate::open(address);
    let judge = Judge::of(&gate);
    let mut text = Vec::new();
    for number in 0..REQUESTS_PER_SEED {
        if number % MEANT_EVERY == 0 {
            meant::round_trip(&gate, &mut random, seed << 16 | number);
            counts.add("round trips", 1);
        }
        text.clear();
        draw(&mut random, &mut text);
        if random.one_in(2) {
            let from = if random.one_in(3) { raw::body_at(&text) } else { 0 };
            for _ in 0..1 + random.below(3) {
                mutate(&mut random, &mut text, from, BROAD);
            }
        }
        try_one(&gate, &judge, &text, &mut random, counts);
    }
}

/// Asks what a text says, if it is a request, and judges the answer.
fn try_one(gate: &Gate, judge: &Judge, text: &[u8], random: &mut Random, counts: &mut Counts) {
    let _blame = Blame(text);
    counts.add("requests", 1);
    let Some(request) = read(text, random) else { return counts.add("no requests to hyper", 1) };
    let asked = Asked::of(&request);
    judge.judge(&asked, &gate.answer(request), counts);
}

/// All kept inputs, with their bodies whole and in pieces.
fn replay_kept(address: &str) -> Counts {
    let mut counts = Counts::default();
    let gate = Gate::open(address);
    let judge = Judge::of(&gate);
    for Kept { bytes, name } in corpus::kept("http") {
        for seed in 0..4 {
            try_one(&gate, &judge, &bytes, &mut Random::new(seed), &mut counts);
            assert_eq!(counts.get("no requests to hyper"), 0, "{name} is a request");
        }
        counts.add("kept inputs replayed", 1);
    }
    counts
}

/// Prints the request that was being answered when something panics.
struct Blame<'a>(&'a [u8]);

impl Drop for Blame<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = String::from_utf8_lossy(self.0);
            eprintln!("the request, {} bytes:\n{text}\n{}", self.0.len(), corpus::to_hex(self.0));
        }
    }
}
