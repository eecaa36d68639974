//! The clients that people have: redis-cli, redis-benchmark, redis-py, ioredis.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use pinion_tests::process::{Rig, Server};

use super::redis::is_installed;

/// A Redis program told where the server is; `None`, with a printed reason, if it is not installed.
fn program(name: &str, server: &Server) -> Option<Command> {
    if !is_installed(name) {
        println!("skipped: there is no {name}");
        return None;
    }
    let (host, port) = server.address().rsplit_once(':').expect("an address has a port");
    let mut command = Command::new(name);
    command.args(["-h", host, "-p", port]).stdin(Stdio::null());
    Some(command)
}

fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn redis_cli_sets_gets_scans_and_loads() {
    let rig = Rig::new();
    let server = rig.start();
    let Some(mut first) = program("redis-cli", &server) else { return };
    let cli = |args: &[&str]| {
        let mut command = program("redis-cli", &server).expect("it was there a moment ago");
        said(&command.args(args).output().expect("redis-cli runs"))
    };
    assert_eq!(said(&first.args(["SET", "greeting", "hello"]).output().expect("redis-cli runs")), "OK\n");
    assert_eq!(cli(&["GET", "greeting"]), "hello\n");
    assert!(cli(&["-3", "HELLO", "3"]).starts_with("server"));
    assert_eq!(cli(&["INCRBY", "n", "41"]), "41\n");
    assert_eq!(cli(&["-r", "2", "INCR", "n"]), "42\n43\n");
    assert!(cli(&["INFO", "server"]).contains("redis_version:7"));
    assert!(cli(&["LPUSH", "a", "b"]).starts_with("ERR unknown command"));

    // Ten thousand commands in one pipeline, then all keys.
    let mut pipe = program("redis-cli", &server).expect("it was there a moment ago");
    pipe.arg("--pipe").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut loading = pipe.spawn().expect("redis-cli runs");
    let mut input = loading.stdin.take().expect("standard input is a pipe");
    for number in 0..10_000 {
        write!(input, "*3\r\n$3\r\nSET\r\n$9\r\nload:{number:04}\r\n$1\r\nv\r\n").expect("redis-cli reads");
    }
    drop(input);
    let loaded = said(&loading.wait_with_output().expect("redis-cli ends"));
    assert!(loaded.contains("errors: 0, replies: 10000"), "{loaded}");
    let found = cli(&["--scan", "--pattern", "load:*"]);
    let mut keys: Vec<&str> = found.lines().collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 10_000);
    assert_eq!(cli(&["DBSIZE"]), "10002\n");

    let mut stat = program("redis-cli", &server).expect("it was there a moment ago");
    stat.args(["--stat", "-i", "0.01"]).stdout(Stdio::piped());
    let mut stat = stat.spawn().expect("redis-cli runs");
    let lines = BufReader::new(stat.stdout.take().expect("standard output is a pipe")).lines();
    let lines: Vec<String> = lines.take(4).map(|line| line.expect("it says text")).collect();
    stat.kill().expect("it runs");
    stat.wait().expect("it can be waited for");
    assert!(lines[0].starts_with("------- data ------"), "{lines:?}");
    assert!(lines[2..].iter().all(|line| line.starts_with(char::is_numeric)), "{lines:?}");
    server.stop();
}

#[test]
fn redis_benchmark_runs_through() {
    let rig = Rig::new();
    let server = rig.start();
    for pipeline in ["1", "16"] {
        let Some(mut command) = program("redis-benchmark", &server) else { return };
        command.args(["-t", "ping,set,get,incr,mset", "-n", "2000", "-c", "20", "-r", "1000"]);
        command.args(["--csv", "-P", pipeline]);
        let text = said(&command.output().expect("redis-benchmark runs"));
        for name in ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET (10 keys)"] {
            assert!(text.contains(&format!("\"{name}\"")), "{name} in {text}");
        }
        assert!(!text.to_lowercase().contains("error"), "{text}");
    }
    let client = server.client();
    assert!(Server::number(&client, &["counters", "commands"]) > 20_000);
    assert_eq!(Server::number(&client, &["counters", "errors"]), 0);
    server.stop();
}

#[test]
fn redis_py_shakes_hands_and_works() {
    let Some(packages) = redis_py() else { return };
    let rig = Rig::new();
    let server = rig.start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/redis_py.py");
    let mut command = Command::new("python3");
    command.arg(&script).arg(server.address()).env("PYTHONPATH", packages);
    let text = said(&command.output().expect("python3 runs"));
    assert!(text.starts_with("ok "), "{text}");
    server.stop();
}

/// Where redis-py is, installed now if need be; `None`, with a printed reason, if it cannot be.
fn redis_py() -> Option<PathBuf> {
    if !is_installed("python3") {
        println!("skipped: there is no python3");
        return None;
    }
    let packages = pinion_tests::process::scratch("redis-py");
    let imports = |packages: &Path| {
        let mut python = Command::new("python3");
        python.args(["-c", "import redis"]).env("PYTHONPATH", packages);
        python.output().is_ok_and(|output| output.status.success())
    };
    if imports(&packages) {
        return Some(packages);
    }
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"])
        .arg(&packages)
        .arg("redis");
    let installed = pip.stdin(Stdio::null()).output().is_ok_and(|output| output.status.success());
    if installed && imports(&packages) {
        return Some(packages);
    }
    println!("skipped: redis-py cannot be installed");
    None
}

#[test]
fn ioredis_shakes_hands_and_works() {
    let Some(packages) = ioredis() else { return };
    let rig = Rig::new();
    let server = rig.start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("javascript/ioredis.js");
    let mut command = Command::new("node");
    command.arg(&script).arg(server.address()).env("NODE_PATH", packages.join("node_modules"));
    let text = said(&command.output().expect("node runs"));
    assert!(text.starts_with("ok "), "{text}");
    server.stop();
}

/// Where ioredis is, installed now if need be; `None`, with a printed reason, if it cannot be.
fn ioredis() -> Option<PathBuf> {
    if !is_installed("node") || !is_installed("npm") {
        println!("skipped: there is no node or no npm");
        return None;
    }
    let packages = pinion_tests::process::scratch("ioredis");
    let package = packages.join("node_modules/ioredis/package.json");
    if !package.exists() {
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]);
        let installed = npm.arg(&packages).arg("ioredis").stdin(Stdio::null()).output();
        if !installed.is_ok_and(|output| output.status.success()) || !package.exists() {
            println!("skipped: ioredis cannot be installed");
            return None;
        }
    }
    Some(packages)
}
