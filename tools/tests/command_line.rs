//! The binary without a server: help, and the exit codes of what cannot work.
//!
//! That this file exists makes `cargo test` build the binary, which the tests of real servers
//! start; they live in the crate of tests.

use std::process::{Command, Output};

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
