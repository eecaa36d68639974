//! Directories for images and mounts, and what an earlier run that was killed has left there.
//!
//! A place is a directory in memory with a locked file in it. The lock ends with the process, so a
//! place whose lock can be had belongs to nobody: its server is ended, its mounts, loop devices and
//! control groups are removed, then the directory. That happens once in each process, before its
//! first place is made.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::machine::{complain, run};

/// Names of places begin so. Their control groups have the same names.
const PREFIX: &str = "pinion-rig-";
/// Held while a place is made or looked for.
const GATE: &str = "pinion-rig.lock";
/// Inside a place.
const LOCK: &str = "lock";

/// Where control groups that throttle a disk live.
pub(super) const THROTTLES: &str = "/sys/fs/cgroup/blkio";

/// A directory for one life.
#[derive(Debug)]
pub(super) struct Place {
    dir: TempDir,
    _lock: File,
}

impl Place {
    /// A new one.
    pub(super) fn new() -> Result<Self, String> {
        static SWEPT: Once = Once::new();
        let said = |error: std::io::Error| format!("no place in {}: {error}", parent().display());
        let gate = File::create(parent().join(GATE)).map_err(said)?;
        gate.lock().map_err(said)?;
        SWEPT.call_once(sweep);
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent()).map_err(said)?;
        let lock = File::create(dir.path().join(LOCK)).map_err(said)?;
        lock.lock().map_err(said)?;
        Ok(Self { dir, _lock: lock })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new directory in it.
    pub(super) fn directory(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.path(name);
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }

    /// Its name, which no other place has.
    pub(super) fn name(&self) -> &str {
        self.dir.path().file_name().and_then(|name| name.to_str()).expect("our names are text")
    }
}

/// Memory, where there is a file system in it.
fn parent() -> &'static Path {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory } else { Path::new("/tmp") }
}

fn sweep() {
    for entry in fs::read_dir(parent()).into_iter().flatten().flatten() {
        let is_place = entry.file_name().to_string_lossy().starts_with(PREFIX) && entry.path().is_dir();
        let lock = File::open(entry.path().join(LOCK));
        if is_place && lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
            println!("cleaning up {}, left by a run that was ended", entry.path().display());
            remove(&entry.path());
        }
    }
}

fn remove(place: &Path) {
    let inside = format!("{}/", place.display());
    end_servers(&inside);
    for mounted in mounts_below(&inside) {
        complain(run(Command::new("umount").arg("-l").arg(mounted)));
    }
    let listed = run(Command::new("losetup").args(["--list", "--noheadings", "--output", "NAME,BACK-FILE"]));
    for line in listed.unwrap_or_default().lines() {
        if let Some((device, file)) = line.split_once(' ')
            && file.trim().starts_with(&inside)
        {
            complain(run(Command::new("losetup").arg("--detach").arg(device)));
        }
    }
    let group = Path::new(THROTTLES).join(place.file_name().expect("a place has a name"));
    if group.is_dir() {
        complain(fs::remove_dir(&group).map_err(|error| format!("{}: {error}", group.display())));
    }
    complain(fs::remove_dir_all(place).map_err(|error| format!("{}: {error}", place.display())));
}

/// Ends processes that were told to work on data in the place.
fn end_servers(inside: &str) {
    let data = format!("--data={inside}");
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let is_ours =
            arguments.split(|byte| *byte == 0).any(|argument| argument.starts_with(data.as_bytes()));
        if let Some(process) = Pid::from_raw(number).filter(|_| is_ours) {
            complain(
                kill_process(process, Signal::KILL).map_err(|error| format!("process {number}: {error}")),
            );
        }
    }
}

/// Mount points below a directory, the latest first.
fn mounts_below(inside: &str) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let mut points: Vec<String> =
        points.filter(|point| point.starts_with(inside)).map(str::to_owned).collect();
    points.reverse();
    points
}
