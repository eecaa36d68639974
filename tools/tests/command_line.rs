//! The binary without a server: help, and the exit codes of what cannot work.
//!
//! That this file exists makes `cargo test` build the binary, which the tests of real servers
//! start; they live in the crate of tests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn pinion(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pinion")).args(arguments).output().expect("the binary was built")
}

#[test]
fn help_names_every_command() {
    let help = pinion(&["--help"]);
    let text = String::from_utf8_lossy(&help.stdout);
    assert!(help.status.success());
    for command in ["serve", "doctor", "get", "put", "delete", "scan", "import", "export", "status"] {
        assert!(
            text.lines().any(|line| line.trim_start().starts_with(command)),
            "{command} is not in: {text}"
        );
    }
    assert!(pinion(&["serve", "--help"]).status.success());
}

#[test]
fn what_cannot_work_has_its_exit_code() {
    assert_eq!(pinion(&["no-such-command"]).status.code(), Some(2));
    assert_eq!(pinion(&["serve", "--cores", "none"]).status.code(), Some(2));
    assert_eq!(pinion(&["serve", "--config", "/nonexistent.toml"]).status.code(), Some(2));
    // Nothing listens on port 1.
    assert_eq!(pinion(&["--connect", "127.0.0.1:1", "get", "key"]).status.code(), Some(3));
}

#[test]
fn a_load_that_cannot_be_says_what_to_do() {
    let load = |arguments: &[&str]| {
        let output = pinion(&[&["bench", "load"], arguments].concat());
        assert!(output.stdout.is_empty());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = load(&["-p", "recordcont=5"]);
    assert_eq!(
        (code, said.as_str()),
        (Some(2), "pinion: there is no property recordcont; did you mean recordcount?\n")
    );
    let (code, said) = load(&["-p", "recordcount=many"]);
    assert!(code == Some(2) && said.contains("many"), "{said}");
    let (code, said) = load(&["--target", "127.0.0.1:7600"]);
    assert!(code == Some(2) && said.contains("pinion://HOST:PORT"), "{said}");
    // Nothing listens on port 1.
    let (code, said) = load(&["--target", "pinion://127.0.0.1:1"]);
    assert!(
        code == Some(3) && said.contains("connecting to 127.0.0.1:1: ") && said.contains("running"),
        "{said}"
    );
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let dir = tempfile::tempdir().expect("the directory of temporary files can be written");
    let (folded, svg) = (dir.path().join("stacks.folded"), dir.path().join("stacks.svg"));
    std::fs::write(&folded, "main;work 3\n").expect("it was just made");
    let (reader, writer) = std::io::pipe().expect("the system has pipes");
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinion"));
    command
        .args(["bench", "flame"])
        .arg(&folded)
        .arg("--out")
        .arg(&svg)
        .stdout(writer)
        .stderr(Stdio::piped());
    let output = command.output().expect("the binary was built");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(svg.exists());
}

#[test]
fn logs_are_json_when_asked_for_and_tell_what_they_left_out() {
    let mut gateway = Command::new(env!("CARGO_BIN_EXE_pinion"))
        // Nothing listens on port 1, and nothing is asked of it.
        .args(["gateway", "--http", "127.0.0.1:0", "--seeds", "127.0.0.1:1"])
        .args(["--log-format", "json", "--log-repeats", "2"])
        .env("PINION_LOG", "warn,pinion_gateway::handle=debug")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built");
    let mut line = String::new();
    let mut out = BufReader::new(gateway.stdout.take().expect("a pipe"));
    out.read_line(&mut line).expect("a line");
    let address = line.trim_end().strip_prefix("listening on ").expect("where").to_owned();
    for _ in 0..5 {
        let mut socket = TcpStream::connect(&address).expect("it listens");
        socket
            .write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .expect("it reads");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    kill_process(Pid::from_child(&gateway), Signal::TERM).expect("a child can be signalled");
    let mut log = String::new();
    gateway.stderr.take().expect("a pipe").read_to_string(&mut log).expect("text");
    assert!(gateway.wait().expect("it ends").success(), "{log}");
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert_eq!(lines.len(), 3, "{log}");
    for line in &lines[..2] {
        assert_eq!((&line["level"], &line["route"]), (&"DEBUG".into(), &"/livez".into()), "{line}");
        assert!(line["timestamp"].is_string() && line["request"].is_string(), "{line}");
    }
    assert_eq!((&lines[2]["level"], &lines[2]["left_out"]), (&"WARN".into(), &3.into()), "{log}");
    assert!(
        lines[2]["place"].as_str().is_some_and(|place| place.starts_with("DEBUG pinion_gateway::handle"))
    );
}
