//! Servers that stop for a while and disks that become slow: clients run out of patience.
//!
//! What a client gave up on may still happen, also when the server goes on and the client has long
//! written something else: that must win. So every key is watched over many pauses, and a pause
//! ends with the server going on or with its end. While a server is stopped nothing is acknowledged;
//! when it goes on, writes are acknowledged again. Some pauses are longer than a client's stamp may be
//! ahead of the server's clock. On a slow disk every answer is late or a refusal, and all of it holds
//! as well.

use std::thread;
use std::time::Duration;

use pinion_client::blocking::Client;
use pinion_client::{Error, ErrorCode};

use super::cuts::DISK_BYTES;
use super::image::ImageDisk;
use super::oracle::{Oracle, Progress, Rules};
use super::throttle::Throttle;
use super::{SKIPPED, lives, skip};
use crate::process::{Random, Rig, Server};
use crate::trials::{Class, Counts, Trials};

/// The class.
pub const STOPPED: Class = Class {
    name: "stopped",
    about: "a real server is stopped or its disk slow, and clients give up: nothing is lost or undone",
    unit: "pauses",
    submission: 30,
    full: 300,
    release: 3_000,
    run,
};

const PAUSES_PER_LIFE: u64 = 15;
/// One pause in so many is a slow disk, and one ends with the end of the server.
const SLOW_EVERY: u64 = 3;
const KILL_EVERY: u64 = 3;
/// One stop in so many is long.
const LONG_EVERY: u64 = 6;

/// Acknowledgements before a pause, and after it.
const BEFORE_MAX: u64 = 400;
const AFTER: u64 = 40;
/// Length of a pause.
const STOP_MS_MAX: u64 = 250;
const LONG_STOP_MS: u64 = 700;
const SLOW_MS_MAX: u64 = 400;
/// What a slow disk writes each second.
const SLOW_BYTES_MIN: u64 = 16 << 10;
const SLOW_BYTES_MAX: u64 = 1 << 20;

/// How long a client waits for an answer.
const DEADLINE: Duration = Duration::from_millis(60);
const LOOK_DELAY: Duration = Duration::from_millis(1);

/// Clients that go on, whatever they are told.
const IMPATIENT: Rules = Rules { ends: never, one_shard: false };

fn never(error: &Error) -> bool {
    match error {
        Error::TimedOut { .. } | Error::Disconnected { .. } | Error::Connect { .. } | Error::Busy => false,
        Error::Server { code: ErrorCode::Overloaded | ErrorCode::Deadline, .. } => false,
        error => panic!("a write was answered with: {error}"),
    }
}

fn run(trials: &Trials) -> Counts {
    if let Err(reason) = ImageDisk::try_out(DISK_BYTES) {
        return skip(trials.class, trials.count, &reason);
    }
    let slow = ImageDisk::new(DISK_BYTES, 512).and_then(|disk| Throttle::new(disk.place(), disk.device()));
    let slow_skipped = slow.as_ref().err().map(|reason| skip("slow disks", 0, reason));
    drop(slow);
    let counts = lives(trials, PAUSES_PER_LIFE, |seed, counts| life(seed, slow_skipped.is_none(), counts));
    assert!(counts.get("writes in doubt") >= counts.get("pauses"), "pauses that nobody met: {counts}");
    counts
}

fn life(seed: u64, slow_disks: bool, counts: &mut Counts) {
    let mut random = Random::new(seed);
    let disk = ImageDisk::new(DISK_BYTES, 512).expect("a disk could be made a moment ago");
    let throttle = slow_disks.then(|| {
        Throttle::new(disk.place(), disk.device()).expect("a control group could be made a moment ago")
    });
    let rig = Rig::new().on(disk.mount().path().join("data"));
    let mut oracle = Oracle::new(random.next_u64());
    let start = || {
        let server = rig.start();
        if let Some(throttle) = &throttle {
            throttle.add(server.pid()).expect("a running server can be put into a control group");
        }
        server
    };
    let mut server = start();
    for _ in 0..PAUSES_PER_LIFE {
        let is_killed = random.below(KILL_EVERY) == 0;
        let is_slow = random.below(SLOW_EVERY) == 0;
        let clients = impatient_clients(&server);
        let watched = match (&throttle, is_slow) {
            (None, true) => {
                counts.add(SKIPPED, 1);
                continue;
            }
            (Some(throttle), true) => oracle.write_while(IMPATIENT, clients, |progress| {
                slow_down(throttle, server, progress, is_killed, &mut random)
            }),
            (_, false) => oracle
                .write_while(IMPATIENT, clients, |progress| stop(server, progress, is_killed, &mut random)),
        };
        counts.add("pauses", 1);
        counts.add(if is_slow { "slow disks" } else { "stops" }, 1);
        let (survivor, written) = watched;
        counts.add("acknowledged writes", written.acknowledged);
        counts.add("writes in doubt", written.in_doubt);
        server = match survivor {
            Some(server) => {
                // What clients gave up on may still be under way.
                oracle.look(&server.client());
                server
            }
            None => {
                counts.add("kills", 1);
                let server = start();
                oracle.verify(&server.client());
                server
            }
        };
    }
    server.kill();
    let server = rig.start();
    oracle.verify(&server.client());
    server.stop();
}

fn impatient_clients(server: &Server) -> Vec<Client> {
    let builder = Client::builder().connect(server.address()).max_retries(1).deadline(DEADLINE);
    (0..Oracle::WRITERS).map(|_| builder.clone().build_blocking().expect("the server answers")).collect()
}

/// Stops the server for a while under load. Gives it back unless it is killed while it is stopped.
fn stop(server: Server, progress: &Progress, is_killed: bool, random: &mut Random) -> Option<Server> {
    progress.wait_for(1 + random.below(BEFORE_MAX));
    server.pause();
    let before = progress.acknowledged();
    let is_long = random.below(LONG_EVERY) == 0;
    thread::sleep(Duration::from_millis(if is_long { LONG_STOP_MS } else { random.below(STOP_MS_MAX) }));
    let meanwhile = progress.acknowledged() - before;
    // Each writer may have had an answer on its way.
    assert!(meanwhile <= Oracle::WRITERS, "a stopped server acknowledged {meanwhile} writes");
    if is_killed {
        return None;
    }
    server.resume();
    progress.wait_for(before + meanwhile + AFTER);
    Some(server)
}

/// Slows the disk down for a while under load. Gives the server back unless it is killed while its
/// disk is slow.
fn slow_down(
    throttle: &Throttle,
    server: Server,
    progress: &Progress,
    is_killed: bool,
    random: &mut Random,
) -> Option<Server> {
    progress.wait_for(1 + random.below(BEFORE_MAX));
    let bytes_per_second = SLOW_BYTES_MIN + random.below(SLOW_BYTES_MAX - SLOW_BYTES_MIN);
    throttle.limit(bytes_per_second).expect("the group is there");
    thread::sleep(Duration::from_millis(random.below(SLOW_MS_MAX)));
    if is_killed {
        // Ends only when its writes have.
        thread::scope(|scope| {
            scope.spawn(|| server.kill());
            thread::sleep(LOOK_DELAY);
            throttle.limit(0).expect("the group is there");
        });
        return None;
    }
    let before = progress.acknowledged();
    throttle.limit(0).expect("the group is there");
    progress.wait_for(before + AFTER);
    Some(server)
}
