//! Abuse: clients that cost a node much and give it nothing, by the thousand.
//!
//! Each scene has a server of its own with small limits, and a [`Bystander`]: an honest client that
//! goes on all the while and must be answered every time. What the abuse may cost is computed from
//! the limits: descriptors from the number of connections, memory from the bytes that HELLO,
//! `connection_out_bytes_max`, `core_out_bytes_max` and `core_gather_bytes_max` allow. When the
//! clients have gone, their descriptors must be back. Nothing is judged by time.

mod bystander;
mod crowds;
mod frames;
mod readers;

use std::thread;
use std::time::{Duration, Instant};

pub use bystander::Bystander;

use super::meter::{Held, raise_descriptors};
use crate::process::{PATIENCE, Rig, Server};
use crate::rig;
use crate::trials::{Class, Counts, Trials};

/// Connections that do nothing.
const IDLE: usize = 10_000;

/// Connections that read or write a few bytes at a time.
const SLOW: usize = 1_000;

/// Descriptors that this process and the server need beside those of abusive connections.
const DESCRIPTORS_SPARE: u64 = 500;

/// What the server's memory may grow by in any scene: the engine's memtables and caches fill
/// (`SMALL_ENGINE` of `process`: 3 x 1 MiB, 4 MiB, 2 MiB in each of two shards), the allocator's
/// arenas and the buffers that a core keeps for reuse (256 of at most 256 KiB are possible; answers
/// are far smaller here) come on top.
const GROWTH_BYTES_MAX: u64 = 48 << 20;

/// Files that the engine may open more than before: those of a log and of tables.
const FILES_MAX: u64 = 100;

/// What one connection may cost in memory when nothing waits on it, in bytes.
const CONNECTION_BYTES_MAX: u64 = 8 << 10;

/// How often something that must come is looked for.
const LOOK_DELAY: Duration = Duration::from_millis(5);

/// The limits that the scenes are computed from; all far below their defaults.
pub(crate) mod limits {
    /// `connection_out_bytes_max`.
    pub(crate) const CONNECTION_OUT_BYTES_MAX: u64 = 256 << 10;
    /// `core_out_bytes_max`.
    pub(crate) const CORE_OUT_BYTES_MAX: u64 = 16 << 20;
    /// `core_gather_bytes_max`.
    pub(crate) const CORE_GATHER_BYTES_MAX: u64 = 16 << 20;
    /// `send_stall_ms_max`.
    pub(crate) const SEND_STALL_MS_MAX: u64 = 2_000;
    /// `core_reads_max`.
    pub(crate) const CORE_READS_MAX: u64 = 64;
    /// `core_forwards_max`.
    pub(crate) const CORE_FORWARDS_MAX: u64 = 512;
    /// `connection_requests_max`.
    pub(crate) const CONNECTION_REQUESTS_MAX: u64 = 128;
    /// `value_bytes_max`, as [`Rig`](crate::process::Rig) sets it.
    pub(crate) const VALUE_BYTES_MAX: u64 = 256 << 10;
    /// Cores of the server.
    pub(crate) const CORES: u64 = 2;
}

/// The class `abuse`: one trial is all scenes.
pub const ABUSE: Class = Class {
    name: "abuse",
    about: "idle, slow, half-open, vanishing and never reading clients: bounded, and others served",
    unit: "rounds of all scenes",
    submission: 1,
    full: 10,
    release: 100,
    run: abuse,
};

fn abuse(trials: &Trials) -> Counts {
    // The scenes need the machine's descriptors and ports for themselves.
    let alone = Trials { workers: 1, ..trials.clone() };
    alone.each_seed(|_, counts| {
        crowds::idle(counts);
        crowds::storm(counts);
        crowds::too_many(counts);
        crowds::beyond_in_flight(counts);
        frames::half_open(counts);
        frames::dribbled(counts);
        frames::vanishing(counts);
        readers::slow(counts);
        readers::never(counts);
        readers::never_from_disk(counts);
    })
}

/// A server under abuse and its bystander.
struct Scene {
    name: &'static str,
    server: Server,
    bystander: Bystander,
    before: Held,
    most: Held,
    _rig: Rig,
}

impl Scene {
    fn open(name: &'static str, rig: Rig) -> Self {
        let rig = rig
            .limit("connection_out_bytes_max", limits::CONNECTION_OUT_BYTES_MAX)
            .limit("core_out_bytes_max", limits::CORE_OUT_BYTES_MAX)
            .limit("send_stall_ms_max", limits::SEND_STALL_MS_MAX)
            .limit("core_reads_max", limits::CORE_READS_MAX)
            .limit("core_forwards_max", limits::CORE_FORWARDS_MAX)
            .limit("core_gather_bytes_max", limits::CORE_GATHER_BYTES_MAX)
            .limit("connection_requests_max", limits::CONNECTION_REQUESTS_MAX);
        let server = rig.start();
        let bystander = Bystander::start(server.address());
        bystander.goes_on();
        let before = Held::by(server.pid());
        Self { name, server, bystander, before, most: before, _rig: rig }
    }

    /// Looks at what the server holds now.
    fn look(&mut self) {
        let now = Held::by(self.server.pid());
        self.most.memory_bytes = self.most.memory_bytes.max(now.memory_bytes);
        self.most.descriptors = self.most.descriptors.max(now.descriptors);
        self.most.sockets = self.most.sockets.max(now.sockets);
    }

    /// The server holds at most so much more than before the abuse, besides what it may always.
    fn holds_at_most(&mut self, descriptors: u64, memory_bytes: u64) {
        self.look();
        let Self { name, before, most, .. } = self;
        let descriptors = before.descriptors + descriptors + FILES_MAX;
        let memory_bytes = before.memory_bytes + memory_bytes + GROWTH_BYTES_MAX;
        println!(
            "abuse: {name}: {} of {descriptors} descriptors, {} of {} MiB, {} before",
            most.descriptors,
            most.memory_bytes >> 20,
            memory_bytes >> 20,
            before.memory_bytes >> 20
        );
        assert!(most.descriptors <= descriptors, "{name}: {most:?}, at most {descriptors} descriptors");
        assert!(most.memory_bytes <= memory_bytes, "{name}: {most:?}, at most {memory_bytes} bytes");
    }

    /// A number of the server's counters.
    fn counted(&self, name: &str) -> u64 {
        Server::number(&self.server.client(), &["counters", name])
    }

    /// Waits until the abusive connections have left the server, then ends the scene.
    fn close(mut self, counts: &mut Counts) {
        self.bystander.goes_on();
        let begun = Instant::now();
        // What the bystander, and the clients that asked for counters, still hold.
        while Held::by(self.server.pid()).sockets > self.before.sockets + 4 {
            assert!(begun.elapsed() < PATIENCE, "{}: {:?} stay", self.name, Held::by(self.server.pid()));
            thread::sleep(LOOK_DELAY);
        }
        self.look();
        let client = self.server.client();
        let requests = Server::number(&client, &["requests"]);
        // The question itself, and what the bystander is asking.
        assert!(requests <= 3, "{}: {requests} requests are left", self.name);
        let served = self.bystander.finish();
        drop(client);
        counts.add("scenes", 1);
        counts.add("bystanders' calls answered", served);
        self.server.stop();
    }
}

/// Makes room for so many connections in this process and in servers that it starts; says how many
/// there may be, and counts a skip if that is fewer.
fn room_for(connections: usize, counts: &mut Counts) -> usize {
    let allowed = raise_descriptors(connections as u64 + DESCRIPTORS_SPARE);
    let room = usize::try_from(allowed.saturating_sub(DESCRIPTORS_SPARE)).unwrap_or(usize::MAX);
    if room < connections {
        let reason = format!("a process may open {allowed} files here");
        counts.merge(&rig::skip("the connections of abuse", (connections - room) as u64, &reason));
    }
    room.min(connections)
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "it does not come: {what}");
        thread::sleep(LOOK_DELAY);
    }
}
