//! `pinion bench hot`, stopped by a signal: its servers and directories go with it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Stdio;

use pinion_runtime::online_cpus;
use pinion_tests::process::{pinion, temporary_directory};
use rustix::process::{Pid, Signal, kill_process};

/// Processes whose command line names a directory.
fn processes_of(dir: &Path) -> usize {
    let dir = dir.to_str().expect("a test's directory has a plain name");
    let processes = fs::read_dir("/proc").expect("Linux tells its processes").flatten();
    // Those that have ended meanwhile cannot be read.
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(dir)).count()
}

#[test]
fn a_comparison_that_is_stopped_leaves_nothing_behind() {
    let dir = temporary_directory();
    let cpus = online_cpus();
    let (first, last) = (cpus[0].to_string(), cpus[cpus.len() - 1].to_string());
    // Both servers of this work are given a path below the directory.
    let mut command = pinion(&["bench", "hot", "--work", "put", "--rounds", "1000", "--keys", "100"]);
    command.args(["--seconds", "0.05", "--warmup", "0", "--server-cpu", &first, "--generator-cpu", &last]);
    command.arg("--dir").arg(dir.path()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut bench = command.spawn().expect("the binary was built");
    let mut said = BufReader::new(bench.stderr.take().expect("standard error is a pipe"));
    let mut line = String::new();
    said.read_line(&mut line).expect("standard error is text");
    assert!(line.contains("round 1 of 1000"), "{line}");

    kill_process(Pid::from_child(&bench), Signal::TERM).expect("it runs");
    let mut rest = String::new();
    said.read_to_string(&mut rest).expect("standard error is text");
    let status = bench.wait().expect("a child can be waited for");
    assert!(!status.success() && rest.contains("stopped by a signal"), "{status}: {rest}");
    assert_eq!(fs::read_dir(dir.path()).expect("the test's directory is there").count(), 0);
    assert_eq!(processes_of(dir.path()), 0);
}
