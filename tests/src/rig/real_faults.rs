//! Requests to the disk that fail under a real server: EIO, no space, short reads and writes.
//!
//! The server runs on a file system that hands everything on to a directory in memory, but for one
//! request or all of one sort. After the first failed write or sync the shard must say so and
//! acknowledge nothing any more; running out of space must end by itself; what was done in part must
//! be finished; a failed or short read must be an error or be made good. Then the fault is lifted, the server
//! killed and started again, and every acknowledged write must be there.

use std::path::PathBuf;
use std::sync::Arc;

use pinion_client::blocking::Client;
use pinion_client::{Error, ErrorCode};

use super::faults::{Effect, Fault, Faults, Kind, Request};
use super::fuse::FuseMount;
use super::oracle::{Oracle, Progress, Rules};
use super::pass_through::PassThrough;
use super::place::Place;
use super::skip;
use crate::process::{Random, Rig, Server};
use crate::trials::{Class, Counts, Trials};

/// The class.
pub const REAL_FAULTS: Class = Class {
    name: "real-faults",
    about: "the disk under a real server fails requests: all is told or mended, nothing acknowledged is lost",
    unit: "faults",
    submission: 16,
    full: 300,
    release: 1_000,
    run,
};

/// Acknowledgements before a fault, and until one that nothing has met is given up.
const BEFORE_MAX: u64 = 300;
const UNMET: u64 = 2_500;
/// Acknowledgements after a fault that was mended, and errors after one that was not.
const AFTER: u64 = 100;
const ERRORS_AFTER: u64 = 3 * Oracle::WRITERS;
/// Requests of the chosen sort that are let pass, at most.
const PASSED_MAX: u64 = 12;

/// One lasting fault in so many meets the next start as well.
const START_EVERY: u64 = 2;

/// Writers that go on, so that it is seen that nothing is acknowledged.
fn rules(fault: Fault) -> Rules {
    let is_read = fault.request == Request::Read;
    Rules { ends: if is_read { ends_when_unread } else { ends_when_gone }, one_shard: true }
}

fn ends_when_gone(error: &Error) -> bool {
    match error {
        Error::Server { code: ErrorCode::Overloaded | ErrorCode::StorageFailed, .. } => false,
        Error::Server { code: ErrorCode::DiskFull, .. } => false,
        // Nothing of this ends a server: `judge` finds that it did.
        Error::Disconnected { .. } | Error::Connect { .. } => true,
        error => panic!("a write was answered with: {error}"),
    }
}

/// A file that seems to end too early is damaged.
fn ends_when_unread(error: &Error) -> bool {
    match error {
        Error::Server { code: ErrorCode::Damaged, .. } => false,
        error => ends_when_gone(error),
    }
}

fn run(trials: &Trials) -> Counts {
    if let Err(reason) = FaultyDisk::new() {
        return skip(trials.class, trials.count, &reason);
    }
    let counts = trials.each_seed(trial);
    assert!(counts.get("faults met") * 2 > counts.get("faults"), "most faults were not met: {counts}");
    counts
}

/// A directory in memory behind a file system that can fail.
struct FaultyDisk {
    // Dropped in this order.
    mount: FuseMount,
    faults: Faults,
    _place: Arc<Place>,
}

impl FaultyDisk {
    fn new() -> Result<Self, String> {
        let place = Place::new()?;
        let (behind, at) = (place.directory("behind")?, place.directory("disk")?);
        let faults = Faults::default();
        let mount = FuseMount::new(PassThrough::new(behind, faults.clone()), at)?;
        Ok(Self { mount, faults, _place: Arc::new(place) })
    }

    fn data(&self) -> PathBuf {
        self.mount.path().join("data")
    }
}

fn trial(seed: u64, counts: &mut Counts) {
    let mut random = Random::new(seed);
    let fault = choose(&mut random);
    let disk = FaultyDisk::new().expect("a file system could be mounted a moment ago");
    // One shard, so that one failure is everybody's; small, so that tables are written soon.
    let rig = Rig::with_shards(1).engine("memtable_bytes", "\"256KiB\"").on(disk.data());
    let mut oracle = Oracle::new(random.next_u64());
    let server = rig.start();
    let watcher = server.client();
    let clients = Oracle::clients(&server);
    let (is_met, written) = oracle.write_while(rules(fault), clients, |progress| {
        progress.wait_for(random.below(BEFORE_MAX));
        disk.faults.set(fault);
        let begun = progress.acknowledged();
        progress.wait_until(|progress| {
            disk.faults.hits() > 0 || progress.has_ended() || progress.acknowledged() > begun + UNMET
        });
        let is_met = disk.faults.hits() > 0;
        if is_met {
            judge(fault, &disk.faults, progress, &watcher, counts);
        }
        assert!(!progress.has_ended(), "{fault:?}: the server is gone, or a writer found something wrong");
        disk.faults.lift();
        server.kill();
        is_met
    });
    counts.add("faults", 1);
    counts.add("faults met", u64::from(is_met));
    counts.add("acknowledged writes", written.acknowledged);
    if fault.lasts && random.below(START_EVERY) == 0 {
        disk.faults.set(fault);
        start_under_fault(&rig, counts);
        disk.faults.lift();
    }
    let server = rig.start();
    oracle.verify(&server.client());
    server.kill();
}

/// A start that meets a fault: it is refused with a reason, or the server does without what failed.
fn start_under_fault(rig: &Rig, counts: &mut Counts) {
    match rig.try_start() {
        Ok(server) => {
            counts.add("starts in spite of a fault", 1);
            server.kill();
        }
        Err(refused) => {
            counts.add("starts refused", 1);
            assert!(!refused.status.success() && refused.log.contains("error: "), "no reason: {refused}");
        }
    }
}

/// Some request of some file.
fn choose(random: &mut Random) -> Fault {
    let requests = [
        (Request::Write, &[Effect::Fails, Effect::FailsHalfway, Effect::NoSpace, Effect::Short][..]),
        (Request::Read, &[Effect::Fails, Effect::Short]),
        (Request::Sync, &[Effect::Fails]),
        (Request::Create, &[Effect::Fails, Effect::NoSpace]),
        (Request::Rename, &[Effect::Fails]),
        (Request::Remove, &[Effect::Fails]),
        (Request::SyncDirectory, &[Effect::Fails]),
    ];
    let pick = |random: &mut Random, count: usize| random.below(count as u64) as usize;
    // Writes and syncs are most of what there is.
    let request = if random.below(2) == 0 { pick(random, 3) } else { pick(random, requests.len()) };
    let (request, effects) = requests[request];
    let kinds = [Some(Kind::Log), Some(Kind::Table), Some(Kind::Manifest), None];
    let kind = kinds[pick(random, kinds.len())];
    let effect = effects[pick(random, effects.len())];
    let pass = random.below(PASSED_MAX + 1) * u64::from(random.below(2) == 0);
    Fault { request, kind, effect, pass, lasts: random.below(2) == 0 }
}

/// Whether the first of such faults must stop the shard: what it concerns cannot be trusted.
fn must_stop(fault: Fault) -> bool {
    let is_error = matches!(fault.effect, Effect::Fails | Effect::FailsHalfway);
    let changes = !matches!(fault.request, Request::Read | Request::Remove);
    is_error && changes && fault.kind.is_some()
}

/// The fault was met by a request: what must be seen of it.
fn judge(fault: Fault, faults: &Faults, progress: &Progress, watcher: &Client, counts: &mut Counts) {
    let (acknowledged, errors) = (progress.acknowledged(), progress.errors());
    let goes_on = |progress: &Progress| progress.acknowledged() >= acknowledged + AFTER;
    let is_told = |progress: &Progress| progress.has_failed() && progress.errors() >= errors + ERRORS_AFTER;
    let failed_shards = || Server::storage(watcher, "failed");
    let reason = || watcher.delete("nobody's key").map_err(|error| error.to_string());
    counts.add(&format!("met: {:?} {:?}", fault.request, fault.effect), 1);
    if must_stop(fault) {
        progress.wait_until(|progress| is_told(progress) || goes_on(progress) || progress.has_ended());
        assert!(is_told(progress), "{fault:?}: writes do not end: {progress:?}");
        // A shard whose next log segment could not be made says so at the next commit, which the
        // idle mark brings.
        progress.wait_until(|_| failed_shards() == 1);
        counts.add("shards stopped", 1);
        return;
    }
    if fault.effect == Effect::NoSpace {
        // Full, or the space that it has is enough.
        progress.wait_until(|progress| {
            progress.errors() >= errors + ERRORS_AFTER || goes_on(progress) || progress.has_ended()
        });
        counts.add("disks full", u64::from(progress.errors() > errors));
        faults.lift();
        let lifted = progress.acknowledged();
        progress.wait_until(|progress| {
            progress.acknowledged() >= lifted + AFTER || progress.has_failed() || progress.has_ended()
        });
        assert_eq!(failed_shards(), 0, "{fault:?}: no space is not a failure: {:?}", reason());
        return;
    }
    progress.wait_until(|progress| goes_on(progress) || is_told(progress) || progress.has_ended());
    let failed = failed_shards();
    counts.add("shards stopped", failed);
    if (fault.request, fault.effect) == (Request::Write, Effect::Short) {
        assert_eq!(failed, 0, "{fault:?}: what was done in part can be finished: {:?}", reason());
    }
}
