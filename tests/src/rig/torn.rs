//! Torn and dropped sectors: ext4 on a loop device over a disk with a volatile cache.
//!
//! Below the file system nothing is kept but what was synced, so this checks what the shutdown of an
//! ext4 cannot: that every write that must be durable was flushed to the device, and that what was
//! not flushed may be there in any part.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cuts::{self, CutDisk, DISK_BYTES};
use super::fuse::FuseMount;
use super::image::{LoopDevice, Mount, format};
use super::place::Place;
use super::skip;
use super::volatile::{DISK_NAME, VolatileDisk, VolatileSystem};
use crate::process::Random;
use crate::trials::{Class, Counts, Trials};

/// The class.
pub const TORN: Class = Class {
    name: "torn",
    about: "the disk under a real server tears and drops unsynced sectors: nothing acknowledged is lost",
    unit: "cuts",
    submission: 20,
    full: 300,
    release: 3_000,
    run,
};

fn run(trials: &Trials) -> Counts {
    match try_out() {
        Ok(()) => {
            let counts = cuts::run::<TornDisk>(trials);
            let (cuts, dropped) = (counts.get("cuts"), counts.get("unsynced sectors dropped"));
            // Of a few cuts, all may fall where little waits.
            assert!(cuts < TORN.full || dropped >= 5 * cuts, "{counts}");
            counts
        }
        Err(reason) => skip(trials.class, trials.count, &reason),
    }
}

/// Whether such a disk can be made, cut off and mounted again here.
fn try_out() -> Result<(), String> {
    let mut random = Random::new(0);
    let mut disk = TornDisk::new(512, &mut random)?;
    disk.cut(Duration::ZERO, &mut random, &mut Counts::default())?;
    if std::fs::File::create(disk.path().join("after")).and_then(|file| file.sync_all()).is_ok() {
        return Err("a disk that was cut off can still be synced".to_owned());
    }
    disk.restore()
}

/// An ext4 on a disk with a volatile cache.
struct TornDisk {
    // Dropped in this order.
    mounts: Option<Mounts>,
    disk: VolatileDisk,
    sector_bytes: u32,
    at: PathBuf,
    below: PathBuf,
    _place: Place,
}

struct Mounts {
    // Dropped in this order.
    mount: Mount,
    _attached: Attached,
}

struct Attached {
    // Dropped in this order.
    device: LoopDevice,
    _system: FuseMount,
}

impl TornDisk {
    /// The disk on a loop device. Each time anew, so that no cache of the kernel remembers more than
    /// the disk does.
    fn attach(&self) -> Result<Attached, String> {
        let system = FuseMount::new(VolatileSystem(self.disk.clone()), self.below.clone())?;
        let device = LoopDevice::attach(&system.path().join(DISK_NAME), self.sector_bytes)?;
        Ok(Attached { device, _system: system })
    }

    fn mount(&mut self) -> Result<(), String> {
        let attached = self.attach()?;
        let mount = Mount::new(&attached.device, self.at.clone())?;
        self.mounts = Some(Mounts { mount, _attached: attached });
        Ok(())
    }
}

impl CutDisk for TornDisk {
    fn new(sector_bytes: u32, _: &mut Random) -> Result<Self, String> {
        let place = Place::new()?;
        let (at, below) = (place.directory("disk")?, place.directory("below")?);
        let disk = VolatileDisk::new(DISK_BYTES as usize, sector_bytes as usize);
        let mut torn = Self { mounts: None, disk, sector_bytes, at, below, _place: place };
        format(&torn.attach()?.device)?;
        torn.mount()?;
        Ok(torn)
    }

    fn path(&self) -> &Path {
        self.mounts.as_ref().expect("it is mounted but for a moment in `restore`").mount.path()
    }

    fn cut(&mut self, wait: Duration, random: &mut Random, counts: &mut Counts) -> Result<(), String> {
        let fate = self.disk.cut(wait, random);
        counts.add("unsynced sectors", fate.waited);
        counts.add("unsynced sectors dropped", fate.dropped);
        counts.add("cuts that dropped sectors", u64::from(fate.dropped > 0));
        counts.add("unsynced sectors stale", fate.stale);
        Ok(())
    }

    fn restore(&mut self) -> Result<(), String> {
        self.mounts = None;
        self.disk.restore();
        self.mount()
    }
}
