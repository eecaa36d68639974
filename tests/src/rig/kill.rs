//! Kills a server with SIGKILL again and again under concurrent synced writers, and looks for every
//! acknowledged write after each.
//!
//! The directory lives through all kills of a life, so recoveries are recovered from as well. A kill
//! comes after a random number of acknowledgements, or at a random moment of the start-up. It takes
//! nothing from the kernel, so the data may lie on an ext4 in memory, where a sync costs nothing and
//! more happens between two kills; where none can be made it lies where the build does.

use std::thread;
use std::time::Duration;

use super::cuts::DISK_BYTES;
use super::image::ImageDisk;
use super::lives;
use super::oracle::{Oracle, Rules};
use crate::process::{Random, Rig, Server};
use crate::trials::{Class, Counts, Trials};

/// The class.
pub const KILL: Class = Class {
    name: "kill",
    about: "kill -9 of a real server under synced writes: nothing acknowledged is lost",
    unit: "kills",
    submission: 50,
    full: 1_000,
    release: 10_000,
    run,
};

/// Kills in one life, and how often one hits a start-up.
const KILLS_PER_LIFE: u64 = 25;
const START_KILL_EVERY: u64 = 6;

/// Acknowledgements after which a kill comes.
const ACKNOWLEDGED_MAX: u64 = 1_200;
/// Longest wait before a kill at start-up, in microseconds.
const START_US_MAX: u64 = 80_000;

fn run(trials: &Trials) -> Counts {
    let disk = ImageDisk::try_out(DISK_BYTES);
    if let Err(reason) = &disk {
        println!("{}: on the build's file system, for there is no disk in memory: {reason}", trials.class);
    }
    let counts = lives(trials, KILLS_PER_LIFE, |seed, counts| life(seed, disk.is_ok(), counts));
    // Kills that meet no flush and no compaction show little.
    let kills = counts.get("kills");
    assert!(counts.get("records replayed") > 0, "{counts}");
    assert!(counts.get("flushes") > kills / 2 && counts.get("compactions") > kills / 4, "{counts}");
    counts
}

fn life(seed: u64, in_memory: bool, counts: &mut Counts) {
    let mut random = Random::new(seed);
    let disk = in_memory.then(|| ImageDisk::new(DISK_BYTES, 512).expect("a disk could be made a moment ago"));
    let rig = match &disk {
        Some(disk) => Rig::new().on(disk.mount().path().join("data")),
        None => Rig::new(),
    };
    let mut oracle = Oracle::new(random.next_u64());
    for kill in 1..=KILLS_PER_LIFE {
        counts.add("kills", 1);
        if kill % START_KILL_EVERY == 0 {
            let starting = rig.spawn();
            thread::sleep(Duration::from_micros(random.below(START_US_MAX)));
            starting.kill();
            counts.add("kills at start", 1);
            continue;
        }
        let server = rig.start();
        oracle.verify(&server.client());
        kill_under_load(server, &mut oracle, 1 + random.below(ACKNOWLEDGED_MAX), counts);
    }
    let server = rig.start();
    oracle.verify(&server.client());
    server.stop();
}

/// Lets the writers write until so many writes are acknowledged, then kills the server.
fn kill_under_load(server: Server, oracle: &mut Oracle, until: u64, counts: &mut Counts) {
    let watcher = server.client();
    let clients = Oracle::clients(&server);
    let ((), written) = oracle.write_while(Rules::KILLED, clients, |progress| {
        progress.wait_for(until);
        count_storage(&watcher, counts);
        server.kill();
    });
    counts.add("acknowledged writes", written.acknowledged);
}

/// Adds what the server's storage has done since its start.
pub(super) fn count_storage(client: &pinion_client::blocking::Client, counts: &mut Counts) {
    counts.add("records replayed", Server::storage(client, "records_replayed"));
    counts.add("flushes", Server::storage(client, "flushes"));
    counts.add("compactions", Server::storage(client, "compactions"));
}
