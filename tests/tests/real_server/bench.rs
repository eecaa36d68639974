//! `pinion bench hot` and `peers`: real servers under the load tool, a report, and nothing left behind,
//! after a signal neither.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

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

/// A comparison in a directory, with rounds of so many seconds on the first and the last cpu.
fn comparison(what: &str, rows: &[&str], seconds: &str, dir: &Path) -> Command {
    let cpus = online_cpus();
    let (first, last) = (cpus[0].to_string(), cpus[cpus.len() - 1].to_string());
    let mut command = pinion(&["bench", what]);
    command.args(rows).args(["--keys", "100", "--connections", "4", "--seconds", seconds, "--warmup", "0"]);
    command.args(["--server-cpu", &first, "--generator-cpu", &last]).arg("--dir").arg(dir);
    command
}

#[test]
fn a_comparison_that_is_stopped_leaves_nothing_behind() {
    // All servers of these are given a path below the directory.
    let comparisons: [(&str, &[&str]); 2] =
        [("hot", &["--work", "put", "--rounds", "1000"]), ("peers", &["--only", "get", "--rounds", "1000"])];
    for (what, rows) in comparisons {
        let dir = temporary_directory();
        let mut command = comparison(what, rows, "0.05", dir.path());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut bench = command.spawn().expect("the binary was built");
        let mut said = BufReader::new(bench.stderr.take().expect("standard error is a pipe"));
        let mut line = String::new();
        while !line.contains("round 1 of 1000") {
            line.clear();
            let bytes = said.read_line(&mut line).expect("standard error is text");
            assert!(bytes > 0, "it ended before its first round");
        }

        kill_process(Pid::from_child(&bench), Signal::TERM).expect("it runs");
        let mut rest = String::new();
        said.read_to_string(&mut rest).expect("standard error is text");
        let status = bench.wait().expect("a child can be waited for");
        assert!(!status.success() && rest.contains("stopped by a signal"), "{status}: {rest}");
        assert_eq!(fs::read_dir(dir.path()).expect("the test's directory is there").count(), 0);
        assert_eq!(processes_of(dir.path()), 0);
    }
}

#[test]
fn peers_are_compared_and_those_that_are_not_here_are_told() {
    let dir = temporary_directory();
    let file = |name: &str| dir.path().join(name);
    let nowhere = file("nowhere").display().to_string();
    let has_redis = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !has_redis {
        println!("skipped: Pinion beside Redis, for redis-server is not installed");
    }
    for redis in ["redis-server", nowhere.as_str()] {
        let rows = ["--only", "get-16,put-buffered-1", "--rounds", "2", "--settle", "0.05", "--redis", redis];
        // Each round must have an operation, also on a machine that is busy with other tests.
        let mut command = comparison("peers", &rows, "0.5", &file("work"));
        command.arg("--json").arg(file("json")).arg("--markdown").arg(file("markdown"));
        let output = command.output().expect("the binary was built");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let text = fs::read_to_string(file("markdown")).expect("the tables were written");
        assert_eq!(text, String::from_utf8_lossy(&output.stdout));
        let json = fs::read(file("json")).expect("the numbers were written");
        let json: serde_json::Value = serde_json::from_slice(&json).expect("it is JSON");
        let rows = json["rows"].as_array().expect("there are rows");
        let sides = rows.iter().flat_map(|row| row["sides"].as_array().expect("there are sides"));
        let mut measured = 0;
        for side in sides {
            if side["peer"] != "pinion" && (!has_redis || redis != "redis-server") {
                assert_eq!(side["state"], "missing", "{side}");
                continue;
            }
            measured += 1;
            assert_eq!(side["state"], "measured", "{side}");
            for round in side["rounds"].as_array().expect("there are rounds") {
                assert_eq!(round["checked"], 100, "{round}");
                assert!(round["operations"].as_u64() > Some(0), "{round}");
            }
            let ratio = side["ratio"]["of_medians"].as_f64();
            assert_eq!(ratio.is_some_and(|ratio| ratio > 0.0), side["peer"] != "pinion", "{side}");
        }
        let is_here = has_redis && redis == "redis-server";
        assert_eq!((measured, text.contains("## Missing")), if is_here { (5, false) } else { (2, true) });
        assert_eq!(fs::read_dir(file("work")).expect("it made its directory").count(), 0);
    }
    assert_eq!(processes_of(dir.path()), 0);
}
