//! Power cuts: the disk under a running server loses what it was not asked to keep.
//!
//! A server runs on an ext4 of its own, under concurrent synced writes. Then the disk is cut off,
//! everything fails, the server is ended, the file system is mounted from what is left, and the next
//! server is asked for every acknowledged write. The disk lives through all cuts of a life. Cuts come
//! under load after a random number of acknowledgements, at a random moment of a start-up, and
//! during a stop.

use std::path::Path;
use std::thread;
use std::time::Duration;

use super::image::ImageDisk;
use super::kill::count_storage;
use super::oracle::{Oracle, Rules};
use super::{lives, skip};
use crate::process::{Random, Rig, Server};
use crate::trials::{Class, Counts, Trials};

/// The class of cuts by the shutdown of ext4: files lose what the file system had not yet given to
/// the device.
pub const POWER_CUT: Class = Class {
    name: "power-cut",
    about: "ext4 under a real server is shut down under synced writes: nothing acknowledged is lost",
    unit: "cuts",
    submission: 50,
    full: 500,
    release: 5_000,
    run: run_power_cuts,
};

/// Cuts in one life.
const CUTS_PER_LIFE: u64 = 10;
/// One cut in so many hits a start-up, and one a stop.
const START_CUT_EVERY: u64 = 6;
const STOP_CUT_EVERY: u64 = 7;

/// Acknowledgements after which a cut comes.
const ACKNOWLEDGED_MAX: u64 = 1_000;
/// Longest wait before a cut at start-up or during a stop, in microseconds.
const START_US_MAX: u64 = 80_000;
const STOP_US_MAX: u64 = 10_000;

/// How long a cut may wait for the request it hits: under load, and when there will soon be none.
const LOAD_WAIT: Duration = Duration::from_secs(3);
const LEAVING_WAIT: Duration = Duration::from_millis(20);

/// Size of the disk, which is sparse.
pub(super) const DISK_BYTES: u64 = 192 << 20;
/// Sectors of a disk are of one of these sizes, life by life.
const SECTOR_BYTES: [u32; 2] = [512, 4096];

/// A disk that can lose its power.
pub(super) trait CutDisk: Sized {
    /// An empty one.
    fn new(sector_bytes: u32, random: &mut Random) -> Result<Self, String>;
    /// Where it is mounted.
    fn path(&self) -> &Path;
    /// The power fails, now or at a request that the disk chooses and that comes within `wait`.
    fn cut(&mut self, wait: Duration, random: &mut Random, counts: &mut Counts) -> Result<(), String>;
    /// The power returns. Nobody uses the disk.
    fn restore(&mut self) -> Result<(), String>;
}

impl CutDisk for ImageDisk {
    fn new(sector_bytes: u32, _: &mut Random) -> Result<Self, String> {
        Self::new(DISK_BYTES, sector_bytes)
    }

    fn path(&self) -> &Path {
        self.mount().path()
    }

    fn cut(&mut self, _: Duration, _: &mut Random, _: &mut Counts) -> Result<(), String> {
        self.mount().shut_down()
    }

    fn restore(&mut self) -> Result<(), String> {
        self.remount()
    }
}

fn run_power_cuts(trials: &Trials) -> Counts {
    match ImageDisk::try_out(DISK_BYTES) {
        Ok(()) => run::<ImageDisk>(trials),
        Err(reason) => skip(trials.class, trials.count, &reason),
    }
}

pub(super) fn run<D: CutDisk>(trials: &Trials) -> Counts {
    let counts = lives(trials, CUTS_PER_LIFE, life::<D>);
    // Cuts that meet no recovery and no flush show little.
    assert!(counts.get("records replayed") > 0, "{counts}");
    assert!(counts.get("flushes") > counts.get("cuts") / 4, "{counts}");
    counts
}

fn life<D: CutDisk>(seed: u64, counts: &mut Counts) {
    let mut random = Random::new(seed);
    let sector_bytes = SECTOR_BYTES[(seed % 2) as usize];
    let mut disk = D::new(sector_bytes, &mut random).expect("a disk could be made a moment ago");
    let rig = Rig::new().on(disk.path().join("data"));
    let mut oracle = Oracle::new(random.next_u64());
    for _ in 0..CUTS_PER_LIFE {
        cut_once(&rig, &mut disk, &mut oracle, &mut random, counts);
        disk.restore().expect("what a cut leaves can be mounted");
        counts.add("cuts", 1);
    }
    let server = rig.start();
    oracle.verify(&server.client());
    server.stop();
}

/// Starts a server, cuts the power somewhere, and ends the server.
fn cut_once(
    rig: &Rig,
    disk: &mut impl CutDisk,
    oracle: &mut Oracle,
    random: &mut Random,
    counts: &mut Counts,
) {
    let mut cut = |wait: Duration, random: &mut Random, counts: &mut Counts| {
        disk.cut(wait, random, counts).expect("a disk could be cut off a moment ago");
    };
    if random.below(START_CUT_EVERY) == 0 {
        let starting = rig.spawn();
        thread::sleep(Duration::from_micros(random.below(START_US_MAX)));
        cut(LEAVING_WAIT, random, counts);
        starting.kill();
        counts.add("cuts at start", 1);
        return;
    }
    let server = rig.start();
    let watcher = server.client();
    oracle.verify(&watcher);
    let until = 1 + random.below(ACKNOWLEDGED_MAX);
    let is_stop = random.below(STOP_CUT_EVERY) == 0;
    let clients = Oracle::clients(&server);
    let (server, written) = oracle.write_while(Rules::CUT, clients, |progress| {
        progress.wait_for(until);
        count_storage(&watcher, counts);
        if is_stop {
            server.terminate();
            thread::sleep(Duration::from_micros(random.below(STOP_US_MAX)));
            counts.add("cuts at stop", 1);
        }
        cut(if is_stop { LEAVING_WAIT } else { LOAD_WAIT }, random, counts);
        // Every writer meets the failure: nothing is acknowledged by memory alone.
        progress.wait_until(|progress| progress.have_all_ended());
        server
    });
    counts.add("acknowledged writes", written.acknowledged);
    Server::kill(server);
}
