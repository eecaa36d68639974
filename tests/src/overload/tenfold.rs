//! Ten times the sustainable load.
//!
//! The server gets a small share of one CPU ([`Small`]), so that one generator can offer it ten
//! times what it sustains. A *block* is:
//!
//! 1. *Sustainable*: as many requests as HELLO allows are always in flight; what is answered per
//!    second is the most that there is.
//! 2. *Unloaded*: a quarter of that rate, evenly; its p99 is the measure of all that follows.
//! 3. *Overload*: ten times the sustainable rate. Goodput and the accepted requests' p99 count.
//! 4. *Recovery*: a quarter of the sustainable rate again, until a window's p99 is at most twice
//!    the unloaded one.
//!
//! Blocks follow each other, and all phases of a kind count together: goodput as a sum over them,
//! latencies by the median block. So what else the machine and the server's own flushes do spreads
//! over all phases. Recovery must come in every block.

use std::time::{Duration, Instant};

use super::open_loop::{OpenLoop, Pace, Round};
use super::small::Small;
use crate::process::{Rig, Server};
use crate::rig;
use crate::trials::{Class, Counts, Trials};

/// Connections of the generator.
const CONNECTIONS: usize = 16;

/// What the server has of one CPU.
const CPU_PERCENT: u64 = 2;

/// Requests of one connection in flight, as HELLO tells: a small server promises little. All
/// connections together may queue what the server answers within a few of its pauses.
const IN_FLIGHT_MAX: u32 = 128;

/// How many times the sustainable load is offered.
const TIMES: f64 = 10.0;

/// What *unloaded* means, as a part of the sustainable load.
const UNLOADED: f64 = 0.25;

/// A block's length without its recovery, in seconds.
const BLOCK_SECONDS: u64 = 9;

/// How long the server works before the first block.
const WARM_UP: Duration = Duration::from_secs(3);

/// How long each phase runs before it counts.
const SETTLE: Duration = Duration::from_millis(500);

/// How long the phases count whose goodput is compared.
const MEASURE: Duration = Duration::from_millis(2_500);

/// How long the unloaded phase counts.
const MEASURE_UNLOADED: Duration = Duration::from_millis(1_500);

/// How long one window of the recovery is.
const WINDOW: Duration = Duration::from_millis(500);

/// What is promised of an overloaded node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Goodput at least, as a part of the sustainable rate.
    pub goodput_min: f64,
    /// The accepted requests' p99 at most, in unloaded ones.
    pub p99_max: f64,
    /// How long recovery may take.
    pub recovery_max: Duration,
    /// The p99 that is called recovered, in unloaded ones.
    pub recovered_p99: f64,
}

impl Bounds {
    /// What is promised.
    pub const PROMISED: Self =
        Self { goodput_min: 0.8, p99_max: 5.0, recovery_max: Duration::from_secs(10), recovered_p99: 2.0 };

    /// What holds even in a short run beside other work: that goodput does not collapse, latency
    /// does not grow with the length of the overload, and it ends.
    pub const ROBUST: Self =
        Self { goodput_min: 0.5, p99_max: 25.0, recovery_max: Duration::from_secs(60), recovered_p99: 5.0 };
}

/// What one block came to.
#[derive(Debug, Clone, Copy)]
struct Block {
    sustainable: f64,
    goodput: f64,
    /// In unloaded ones.
    p99: f64,
}

/// The class `overload`.
pub const OVERLOAD: Class = Class {
    name: "overload",
    about: "ten times the sustainable load: goodput, latency of what is accepted, recovery",
    unit: "seconds",
    submission: 60,
    full: 300,
    release: 3_600,
    run: overload,
};

fn overload(trials: &Trials) -> Counts {
    tenfold(trials.count, &Bounds::PROMISED)
}

/// Runs for about so many seconds.
///
/// # Panics
/// When a bound does not hold, an answer is wrong or missing.
pub fn tenfold(seconds: u64, bounds: &Bounds) -> Counts {
    // Memtables so small that one is written out in most phases: a flush takes its share of so little CPU,
    // and must not meet phases of one kind only.
    let rig = Rig::with_shards(1)
        .limit("connection_requests_max", IN_FLIGHT_MAX)
        .engine("memtable_bytes", "\"2MiB\"")
        .engine("log_segment_bytes", "\"4MiB\"");
    let server = rig.start();
    let cpu = pinion_runtime::online_cpus()[0];
    let mut load = OpenLoop::connect(server.address(), CONNECTIONS);
    let small = Small::make(server.pid(), cpu, CPU_PERCENT);
    println!("overload: {CPU_PERCENT} % of a CPU by {small}");
    let mut counts = Counts::default();
    if let Some(reason) = small.without_quota() {
        counts.merge(&rig::skip("a quota of overload", 1, reason));
    }
    // What is touched and made for the first time costs more.
    tally(&load.round(Pace::AsAnswered, WARM_UP), &mut counts);
    tally(&load.drain(), &mut counts);
    let blocks = (seconds / BLOCK_SECONDS).max(1);
    let results: Vec<Block> = (0..blocks).map(|_| block(&mut load, bounds, &mut counts)).collect();
    check_answers(&server, &mut counts);
    // The server ends before its group goes.
    drop(load);
    server.kill();
    drop(small);
    let sum = |part: fn(&Block) -> f64| results.iter().map(part).sum::<f64>();
    let goodput = sum(|block| block.goodput) / sum(|block| block.sustainable);
    let p99 = median(results.iter().map(|block| block.p99));
    counts.add("goodput, thousandths of sustainable", (goodput * 1_000.0) as u64);
    counts.add("accepted p99, thousandths of unloaded", (p99 * 1_000.0) as u64);
    assert!(goodput >= bounds.goodput_min, "goodput of {goodput:.2}: {results:?}");
    assert!(p99 <= bounds.p99_max, "p99 of {p99:.1} times the unloaded one: {results:?}");
    counts
}

fn block(load: &mut OpenLoop, bounds: &Bounds, counts: &mut Counts) -> Block {
    let full = phase(load, Pace::AsAnswered, MEASURE, counts);
    tally(&load.drain(), counts);
    let light = Pace::PerSecond(full.goodput() * UNLOADED);
    let unloaded = phase(load, light, MEASURE_UNLOADED, counts);
    let over = phase(load, Pace::PerSecond(full.goodput() * TIMES), MEASURE, counts);
    let ended = Instant::now();
    let recovered_us = unloaded.p99_us() as f64 * bounds.recovered_p99;
    let mut windows = Vec::new();
    let recovery = loop {
        let window = load.round(light, WINDOW);
        tally(&window, counts);
        windows.push(window.p99_us());
        if window.p99_us() as f64 <= recovered_us {
            break ended.elapsed();
        }
        assert!(ended.elapsed() <= bounds.recovery_max, "no recovery from the overload: {windows:?}");
    };
    tally(&load.drain(), counts);
    let goodput = over.goodput();
    let p99 = over.p99_us() as f64 / unloaded.p99_us() as f64;
    counts.add("blocks", 1);
    counts.add("recoveries, ms", recovery.as_millis() as u64);
    println!(
        "overload: sustainable {:.0}/s; unloaded p99 {} us; at {TIMES} times {goodput:.0}/s ({:.2}), p99 {} us \
         ({p99:.1}); recovered in {} ms; generator away {} us unloaded, {} us overloaded",
        full.goodput(),
        unloaded.p99_us(),
        goodput / full.goodput(),
        over.p99_us(),
        recovery.as_millis(),
        unloaded.away_us_max,
        over.away_us_max,
    );
    Block { sustainable: full.goodput(), goodput, p99 }
}

/// One phase, without its first moments.
fn phase(load: &mut OpenLoop, pace: Pace, lasts: Duration, counts: &mut Counts) -> Round {
    let settling = load.round(pace, SETTLE);
    let round = load.round(pace, lasts);
    tally(&settling, counts);
    tally(&round, counts);
    round
}

fn tally(round: &Round, counts: &mut Counts) {
    counts.add("offered", round.offered);
    counts.add("accepted", round.accepted);
    counts.add("held back by in-flight", round.held_back);
    counts.add("held back by retry-after", round.rested);
    counts.add("refused by the server", round.refused);
}

/// The server has answered all that it has taken, and says the same.
fn check_answers(server: &Server, counts: &mut Counts) {
    let client = server.client();
    let (frames, answers) =
        (Server::number(&client, &["counters", "frames"]), Server::number(&client, &["counters", "answers"]));
    counts.add("frames that the server counted", frames);
    // The question is a frame without an answer yet.
    assert!(frames - answers <= 2, "{frames} frames, {answers} answers");
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
