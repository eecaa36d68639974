//! What the system says of processes: counters of this one, the same for every engine in it, and where the threads
//! of another may run.

use std::collections::BTreeSet;
use std::fs;

/// Bytes that went to devices and came from them, as the kernel accounts them: logs, tables and
/// whatever else an engine writes, each byte as often as it was written.
pub(super) fn counters() -> Vec<(String, u64)> {
    // Kernels may be built without it.
    parse(&fs::read_to_string("/proc/self/io").unwrap_or_default())
}

/// The cpus on which a process has threads that may run nowhere else.
pub(super) fn pinned_cpus(process: u32) -> BTreeSet<usize> {
    // A process that is gone has none.
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    threads.filter_map(|thread| only_cpu(&fs::read_to_string(thread.path().join("status")).ok()?)).collect()
}

fn only_cpu(status: &str) -> Option<usize> {
    status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?.trim().parse().ok()
}

fn parse(text: &str) -> Vec<(String, u64)> {
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    lines
        .filter(|(name, _)| ["read_bytes", "write_bytes"].contains(name))
        .filter_map(|(name, value)| Some((format!("process.{name}"), value.trim().parse().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_may_run_on_one_cpu_are_found() {
        let status = |list| format!("Name:\tpinion-0\nCpus_allowed:\t1\nCpus_allowed_list:\t{list}\nx:\t1\n");
        assert_eq!(only_cpu(&status("3")), Some(3));
        assert_eq!((only_cpu(&status("0-1")), only_cpu(&status("0,2")), only_cpu("")), (None, None, None));
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let allowed = fs::read_to_string("/proc/self/status").unwrap();
        let list = allowed.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        let cpu: usize = list.trim().split(['-', ',']).next().unwrap().parse().unwrap();
        let thread = std::thread::spawn(move || {
            tell.send(crate::load::pin_to_cpu(cpu)).unwrap();
            ended.recv().unwrap_err();
        });
        told.recv().unwrap().unwrap();
        assert!(pinned_cpus(std::process::id()).contains(&cpu));
        drop(end);
        thread.join().unwrap();
    }

    #[test]
    fn bytes_of_devices_are_found() {
        let text = "rchar: 4292\nwchar: 0\nread_bytes: 12\nwrite_bytes: 34\ncancelled_write_bytes: 56\n";
        let expected = [("process.read_bytes".to_owned(), 12), ("process.write_bytes".to_owned(), 34)];
        assert_eq!(parse(text), expected);
        assert_eq!(parse(""), []);
    }
}
