//! How much memory this process may use: what the machine has, or what its cgroup allows.

use std::fs;
use std::path::Path;

/// Where cgroups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
/// What is assumed of a machine that does not tell, in bytes.
const UNKNOWN_BYTES: u64 = 1 << 30;

/// The least of the machine's memory and the limits of all cgroups this process is in, in bytes.
pub(crate) fn allowed_bytes() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = limit_files(&groups)
        .iter()
        .filter_map(|file| fs::read_to_string(Path::new(CGROUPS).join(file)).ok())
        // "max" is no number: no limit.
        .filter_map(|text| text.trim().parse().ok())
        .min();
    machine.unwrap_or(UNKNOWN_BYTES).min(limit.unwrap_or(u64::MAX))
}

/// `MemTotal` of /proc/meminfo in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

/// The files below [`CGROUPS`] that may hold a limit, from /proc/self/cgroup: those of the group and
/// of every group around it, in both versions of cgroups.
fn limit_files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let (root, name) = match controllers {
            "" => ("", "memory.max"),
            list if list.split(',').any(|controller| controller == "memory") => {
                ("memory/", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mut path = path.trim_matches('/');
        loop {
            let slash = if path.is_empty() { "" } else { "/" };
            files.push(format!("{root}{path}{slash}{name}"));
            if path.is_empty() {
                break;
            }
            path = path.rsplit_once('/').map_or("", |(above, _)| above);
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_tells() {
        assert!(allowed_bytes() > 16 << 20);
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       2048 kB\n"), Some(2 << 20));
        assert_eq!(total(""), None);
    }

    #[test]
    fn every_group_around_ours_counts() {
        assert_eq!(limit_files("0::/a/b\n"), ["a/b/memory.max", "a/memory.max", "memory.max"]);
        let old = "7:cpu,cpuacct:/x\n4:memory:/docker/1\n";
        assert_eq!(
            limit_files(old),
            [
                "memory/docker/1/memory.limit_in_bytes",
                "memory/docker/memory.limit_in_bytes",
                "memory/memory.limit_in_bytes"
            ]
        );
    }
}
