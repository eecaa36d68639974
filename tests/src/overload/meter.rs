//! What a process and a directory take up, from /proc and the file system.

use std::fs;
use std::path::Path;

/// What a process holds at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Memory that is in use (resident), in bytes.
    pub memory_bytes: u64,
    /// Open file descriptors.
    pub descriptors: u64,
    /// Those that are sockets.
    pub sockets: u64,
}

impl Held {
    /// Of a process of ours.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn by(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
        let kib = line.trim().strip_suffix("kB").expect("the unit of the kernel").trim();
        let memory_bytes = kib.parse::<u64>().expect("a number") << 10;
        let (mut descriptors, mut sockets) = (0, 0);
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives").flatten() {
            descriptors += 1;
            // One that has been closed meanwhile is none.
            let target = fs::read_link(entry.path()).unwrap_or_default();
            sockets += u64::from(target.to_string_lossy().starts_with("socket:"));
        }
        Self { memory_bytes, descriptors, sockets }
    }
}

/// How many files lie in a directory and below it. Files that go while it is looked at do not count.
pub fn files_in(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let kinds = entries.flatten().filter_map(|entry| Some((entry.path(), entry.file_type().ok()?)));
    kinds.map(|(path, kind)| if kind.is_dir() { files_in(&path) } else { 1 }).sum()
}

/// Raises the limit of open files of this process, and so of its children, to `wanted` if the
/// system allows it; gives what holds from now on.
pub fn raise_descriptors(wanted: u64) -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let hard = now.maximum.unwrap_or(u64::MAX);
    let target = Rlimit { current: Some(wanted), maximum: Some(wanted.max(hard)) };
    if now.current.is_none_or(|current| current >= wanted) || setrlimit(Resource::Nofile, target).is_ok() {
        return wanted;
    }
    let most = Rlimit { current: now.maximum, maximum: now.maximum };
    match setrlimit(Resource::Nofile, most) {
        Ok(()) => hard,
        Err(_) => now.current.unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_descriptors_are_seen() {
        let before = Held::by(std::process::id());
        let open: Vec<_> = (0..64).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        // Nobody reads it, so that without this it need not be there.
        let full = std::hint::black_box(vec![1_u8; 64 << 20]);
        let after = Held::by(std::process::id());
        assert!(after.descriptors + 32 >= before.descriptors + open.len() as u64, "{before:?} {after:?}");
        assert!(after.memory_bytes >= full.len() as u64, "{after:?}");
    }

    #[test]
    fn files_are_counted_below_too() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("below")).unwrap();
        for name in ["one", "below/two", "below/three"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(files_in(dir.path()), 3);
        assert_eq!(files_in(&dir.path().join("absent")), 0);
    }
}
