//! A copy of the repository to break, with a build of its own.
//!
//! What the build costs: a target directory shared with the build around it would do without the
//! dependencies, but cargo names the output of a member by its path *within* the workspace, so the
//! broken crates would take the place of the sound ones. So the copy has a target directory of its
//! own, and before the first build there it is given what `<target>/debug` holds of third-party
//! crates: their output as hard links, the records that cargo compares as copies with their times
//! (cargo writes those in place). Nothing of our own crates, so that a link never leads from a broken
//! build into a sound one. Features are resolved for the whole workspace, as in `cargo test
//! --workspace`, and compiler flags stay as they are: otherwise cargo would find other dependencies
//! than those there. Whatever does not fit is built; a release build has nothing to give and pays for
//! all of it once. Our own crates are built without optimisation: the few hundred trials that a bug
//! is given take less than the optimiser. But for the class that counts instructions: its bounds hold
//! for code that is built as tests are.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::{Outcome, Patch, outcome};
use crate::process::target_directory;

/// What the names of our own crates' output contain.
const OURS: &str = "pinion";

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
        if !target.exists() {
            let part = place.join("target.part");
            take_dependencies(&target_directory().join("debug"), &part.join("debug"))
                .and_then(|()| fs::rename(&part, &target))
                .expect("the target directory can be written");
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

    /// Builds the classes, as tests are built or without optimisation.
    pub(super) fn build(&self, as_tests: bool) {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--locked", "--offline", "--workspace"]);
        // With a test, so that dependencies have the features of dev-dependencies too.
        cargo.args(["--bin", "pinion-tests", "--test", "tidy"]);
        cargo.arg("--manifest-path").arg(self.copy.join("Cargo.toml"));
        cargo.arg("--target-dir").arg(&self.target).stdin(Stdio::null());
        if !as_tests {
            // One by one: a setting for all would have the dependencies built again.
            let lock = fs::read_to_string(self.copy.join("Cargo.lock")).expect("the copy has its lock file");
            let names = lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
            for name in names.filter(|name| name.starts_with(OURS)) {
                for setting in ["opt-level=0", "debug=0"] {
                    cargo.arg("--config").arg(format!("profile.dev.package.{name}.{setting}"));
                }
            }
        }
        expect_success("the planted copy", cargo.output().expect("cargo runs"));
    }

    /// Runs trials of a class as it was built last.
    pub(super) fn run(&self, class: &str, trials: u64) -> Outcome {
        outcome(&self.target.join("debug/pinion-tests"), class, 0, trials)
    }
}

/// Gives a new target directory what another one holds of third-party crates.
fn take_dependencies(from: &Path, to: &Path) -> io::Result<()> {
    match fs::remove_dir_all(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir_all(to)?,
    }
    for (part, linked) in [("deps", true), (".fingerprint", false), ("build", false)] {
        if from.join(part).exists() {
            take(&from.join(part), &to.join(part), linked)?;
        }
    }
    Ok(())
}

fn take(from: &Path, to: &Path, linked: bool) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (entry, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        if name.to_string_lossy().contains(OURS) {
            continue;
        }
        let to = to.join(name);
        if entry.is_dir() {
            take(&entry, &to, linked)?;
        } else if !linked || fs::hard_link(&entry, &to).is_err() {
            fs::copy(&entry, &to)?;
            File::open(&to)?.set_modified(entry.metadata()?.modified()?)?;
        }
    }
    Ok(())
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
