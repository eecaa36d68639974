//! What shows that the other tests can fail: bugs planted into a scratch copy of the repository, disks
//! that lie, and the canary. `cargo run -p pinion-tests -- planted --size full` plants all bugs.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use pinion_tests::planted::{CANARY, LIES, PATCHES, PLANTED};
use pinion_tests::trials::Class;

#[test]
fn planted_bugs_are_caught() {
    let counts = Class::submit(PLANTED.name);
    assert!(counts.get("caught") >= 1 && counts.get("classes passed on sound code") >= 1);
}

/// Only two are built with every submission; that all still fit is known at once.
#[test]
fn every_patch_fits() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for patch in PATCHES {
        let mut git = Command::new("git");
        git.current_dir(&root).args(["apply", "--check", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut git = git.spawn().expect("git runs");
        let mut stdin = git.stdin.take().expect("it is piped");
        stdin.write_all(patch.text.as_bytes()).expect("git reads its input");
        drop(stdin);
        let checked = git.wait_with_output().expect("git ends");
        let said = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{}: {said}", patch.name);
    }
}

#[test]
fn lying_disks_are_caught() {
    assert!(Class::submit(LIES.name).get("lies caught") >= 1);
}

fn canary(seed: &str, count: &str) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinion-tests"));
    command.args([CANARY.name, "--seed", seed, "--count", count, "--workers", "1"]);
    let output = command.env_remove("PINION_SEED").output().expect("the command runs");
    let said = String::from_utf8(output.stderr.clone()).expect("it is UTF-8");
    (output, said)
}

#[test]
fn the_canary_fails_and_says_so() {
    let (output, said) = canary("0", "4");
    assert!(!output.status.success(), "{said}");
    assert!(output.stdout.is_empty(), "a failed run gives no counts");
    assert!(said.contains("seed 1: the canary is dead"), "{said}");
    assert!(said.contains("replay: cargo run") && said.contains(" -- canary --seed 1 --count 1\n"), "{said}");
    // A release build ends with its first failure.
    if cfg!(debug_assertions) {
        assert!(said.contains(" -- canary --seed 3 --count 1\n"), "{said}");
        assert!(said.contains("canary: 2 trials failed: [1, 3]"), "{said}");
    }
    let (output, said) = canary("1", "1");
    assert!(!output.status.success(), "what it says replays the failure: {said}");
    let (output, said) = canary("0", "1");
    assert!(output.status.success() && said.is_empty(), "the canary that lives: {said}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 canaries alive"));
}
