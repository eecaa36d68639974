//! A machine made small for one process: a share of one CPU, so that one generator can offer many
//! times what the server can take.
//!
//! By a quota of the CPU controller (cgroups of version 1 or 2) where we may make groups, else by
//! busy neighbours on the server's CPU. A group is removed when it is dropped; what a run that was
//! killed has left is removed by the next one.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

/// The least quota that the kernel takes, in microseconds of CPU in each period. The period follows
/// from the share: a server of 2 % computes for a millisecond and pauses for 49. These pauses are
/// long beside what other work on the machine does to latencies, and part of the unloaded ones too.
const QUOTA_US: u64 = 1_000;

/// Busy neighbours at most.
const NEIGHBOURS_MAX: u64 = 9;

/// What a group's name begins with; the number of the process that made it follows.
const GROUP_PREFIX: &str = "pinion-small-";

/// How long removing a group is tried: its process has been reaped, but may not be gone from it.
const REMOVE_FOR: Duration = Duration::from_secs(2);

/// How a process was made small. Dropping it ends that; the process should have ended before.
#[derive(Debug)]
pub enum Small {
    /// A group with a quota.
    Group {
        /// The version of cgroups.
        version: u8,
        /// The group's directory.
        path: PathBuf,
    },
    /// Threads that compute on the server's CPU.
    Neighbours {
        /// Ends them.
        stop: Arc<AtomicBool>,
        /// The threads.
        threads: Vec<JoinHandle<()>>,
        /// Why there is no group.
        reason: String,
    },
}

impl Small {
    /// Leaves a process `percent` of one CPU. `cpu` is the one that it runs on.
    ///
    /// # Panics
    /// When this process may not even say which CPU a thread of its own runs on.
    pub fn make(pid: u32, cpu: usize, percent: u64) -> Self {
        let mut reasons = Vec::new();
        for (version, parent) in group_parents() {
            match make_group(version, &parent, pid, percent) {
                Ok(path) => return Self::Group { version, path },
                Err(error) => reasons.push(format!("cgroups {version} in {}: {error}", parent.display())),
            }
        }
        if reasons.is_empty() {
            reasons.push("no CPU controller of cgroups is mounted".to_owned());
        }
        let stop = Arc::new(AtomicBool::new(false));
        let neighbours = (100 / percent.max(1)).saturating_sub(1).min(NEIGHBOURS_MAX);
        let threads = (0..neighbours).map(|_| neighbour(cpu, Arc::clone(&stop))).collect();
        Self::Neighbours { stop, threads, reason: reasons.join("; ") }
    }

    /// Why there is no quota, if there is none.
    pub fn without_quota(&self) -> Option<&str> {
        match self {
            Self::Group { .. } => None,
            Self::Neighbours { reason, .. } => Some(reason),
        }
    }
}

impl fmt::Display for Small {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group { version, path } => write!(f, "a quota of cgroups {version}, {}", path.display()),
            Self::Neighbours { threads, reason, .. } => {
                write!(f, "{} busy neighbours, for there is no quota ({reason})", threads.len())
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        match self {
            Self::Group { path, .. } => {
                let begun = Instant::now();
                while fs::remove_dir(&*path).is_err() && path.exists() {
                    if begun.elapsed() > REMOVE_FOR {
                        eprintln!("{} could not be removed", path.display());
                        break;
                    }
                    thread::yield_now();
                }
            }
            Self::Neighbours { stop, threads, .. } => {
                stop.store(true, Ordering::Relaxed);
                threads.drain(..).for_each(|thread| drop(thread.join()));
            }
        }
    }
}

/// Directories in which a group with a CPU quota may be made, with the version of cgroups: those
/// that this process is in.
fn group_parents() -> Vec<(u8, PathBuf)> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut parents = Vec::new();
    for mount in mounts.lines() {
        let fields: Vec<&str> = mount.split(' ').collect();
        let [_, root, kind, options, ..] = fields[..] else { continue };
        let version = match kind {
            "cgroup" if options.split(',').any(|option| option == "cpu") => 1,
            "cgroup2" => 2,
            _ => continue,
        };
        let ours = groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let fits = match version {
                1 => controllers.split(',').any(|name| name == "cpu"),
                _ => controllers.is_empty(),
            };
            fits.then_some(path.trim_start_matches('/'))
        });
        if let Some(ours) = ours {
            parents.push((version, Path::new(root).join(ours)));
        }
    }
    parents
}

fn make_group(version: u8, parent: &Path, pid: u32, percent: u64) -> io::Result<PathBuf> {
    static MADE: AtomicU64 = AtomicU64::new(0);
    remove_abandoned(parent);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let path = parent.join(format!("{GROUP_PREFIX}{}-{number}", std::process::id()));
    fs::create_dir(&path)?;
    let period_us = QUOTA_US * 100 / percent.clamp(1, 100);
    let set = || {
        if version == 1 {
            fs::write(path.join("cpu.cfs_period_us"), period_us.to_string())?;
            fs::write(path.join("cpu.cfs_quota_us"), QUOTA_US.to_string())?;
        } else {
            fs::write(path.join("cpu.max"), format!("{QUOTA_US} {period_us}"))?;
        }
        fs::write(path.join("cgroup.procs"), pid.to_string())
    };
    set().inspect_err(|_| drop(fs::remove_dir(&path)))?;
    Ok(path)
}

/// Removes groups whose maker lives no more. Those with processes in them stay.
fn remove_abandoned(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(GROUP_PREFIX)?.split_once('-'));
        if maker.is_some_and(|(pid, _)| !Path::new("/proc").join(pid).exists()) {
            drop(fs::remove_dir(entry.path()));
        }
    }
}

fn neighbour(cpu: usize, stop: Arc<AtomicBool>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut cpus = CpuSet::new();
        cpus.set(cpu);
        sched_setaffinity(None, &cpus).expect("a thread may choose among the CPUs of its process");
        while !stop.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn groups_are_removed_and_hold_what_they_promise() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let small = Small::make(child.id(), pinion_runtime::online_cpus()[0], 2);
        println!("{small}");
        let group = match &small {
            Small::Group { path, .. } => {
                let members = fs::read_to_string(path.join("cgroup.procs")).unwrap();
                assert_eq!(members.trim(), child.id().to_string());
                Some(path.clone())
            }
            Small::Neighbours { threads, .. } => {
                assert_eq!(threads.len(), 9);
                None
            }
        };
        child.kill().unwrap();
        child.wait().unwrap();
        drop(small);
        assert!(group.is_none_or(|path| !path.exists()));
    }
}
