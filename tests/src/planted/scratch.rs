//! A copy of the repository to break, with a build of its own.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::Patch;
use crate::process::target_directory;

/// Longest part of what a run said that is kept, in bytes from its end.
const SAID_BYTES_MAX: usize = 64 << 10;

/// How a class ended.
pub(super) enum Outcome {
    Passed,
    /// With what it said.
    Failed(String),
}

/// The copy.
pub(super) struct Scratch {
    source: PathBuf,
    copy: PathBuf,
    target: PathBuf,
}

impl Scratch {
    /// The copy of this repository; [`Scratch::restore`] fills it.
    pub(super) fn new() -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let place = target_directory().join("planted");
        let (copy, target) = (place.join("copy"), place.join("target"));
        fs::create_dir_all(&copy).expect("the target directory can be written");
        // Its own repository: patches are applied to it and not to the one around it.
        if !copy.join(".git").exists() {
            expect_success("git init", git(&copy, &["init", "--quiet"], None));
        }
        Self { source, copy, target }
    }

    /// Makes the copy equal to the repository. Files that are equal already keep their times, so
    /// that cargo does not build them again.
    pub(super) fn restore(&self) {
        let listed =
            git(&self.source, &["ls-files", "-z", "--cached", "--others", "--exclude-standard"], None);
        let listed = expect_success("git ls-files", listed);
        let mut kept = Vec::new();
        for name in listed.split('\0').filter(|name| !name.is_empty()) {
            // Listed and removed since: not there.
            let Ok(content) = fs::read(self.source.join(name)) else { continue };
            let to = self.copy.join(name);
            if fs::read(&to).ok().as_ref() != Some(&content) {
                fs::create_dir_all(to.parent().expect("a file is in a directory")).expect("it can be made");
                fs::write(&to, content).expect("the copy can be written");
            }
            kept.push(to);
        }
        kept.sort_unstable();
        remove_others(&self.copy, &kept);
    }

    /// Plants a bug.
    pub(super) fn apply(&self, patch: &Patch) {
        let applied = git(&self.copy, &["apply", "--whitespace=nowarn", "-"], Some(patch.text));
        expect_success(&format!("the patch {} does not fit any more", patch.name), applied);
    }

    /// Builds the classes.
    pub(super) fn build(&self) {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args([
            "build",
            "--quiet",
            "--locked",
            "--offline",
            "--package",
            "pinion-tests",
            "--bin",
            "pinion-tests",
        ]);
        // A mistake may leave something unused.
        cargo.arg("--manifest-path").arg(self.copy.join("Cargo.toml")).env("RUSTFLAGS", "--cap-lints=allow");
        cargo.arg("--target-dir").arg(&self.target).stdin(Stdio::null());
        expect_success("the planted copy", cargo.output().expect("cargo runs"));
    }

    /// Runs trials of a class as it was built last.
    pub(super) fn run(&self, class: &str, trials: u64) -> Outcome {
        let mut run = Command::new(self.target.join("debug/pinion-tests"));
        run.arg(class).arg("--count").arg(trials.to_string()).env_remove("PINION_SEED").stdin(Stdio::null());
        let output = run.output().expect("what was built runs");
        if output.status.success() {
            return Outcome::Passed;
        }
        let mut said = String::from_utf8_lossy(&output.stderr).into_owned();
        let mut from = said.len().saturating_sub(SAID_BYTES_MAX);
        while !said.is_char_boundary(from) {
            from += 1;
        }
        Outcome::Failed(said.split_off(from))
    }
}

/// Removes files that are not kept, except git's.
fn remove_others(directory: &Path, kept: &[PathBuf]) {
    let entries = fs::read_dir(directory).expect("the copy can be read");
    for entry in entries.map(|entry| entry.expect("the copy can be read")) {
        let path = entry.path();
        if path.ends_with(".git") {
            continue;
        }
        if path.is_dir() {
            remove_others(&path, kept);
        } else if kept.binary_search(&path).is_err() {
            fs::remove_file(&path).expect("the copy can be written");
        }
    }
}

fn git(directory: &Path, arguments: &[&str], input: Option<&str>) -> Output {
    let mut git = Command::new("git");
    git.current_dir(directory).args(arguments);
    git.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = git.spawn().expect("git runs");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input.unwrap_or_default().as_bytes()).expect("git reads its input");
    drop(stdin);
    child.wait_with_output().expect("git ends")
}

fn expect_success(what: &str, output: Output) -> String {
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("names in the repository are UTF-8")
}
