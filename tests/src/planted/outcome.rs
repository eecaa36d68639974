//! A class run as a process of its own, and what it said.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::profile_directory;

/// Longest part of what a run said that is kept, in bytes from its end.
const SAID_BYTES_MAX: usize = 256 << 10;

/// Characters shown before and after what was expected: some lines hold whole histories.
const SHOWN_AROUND: usize = 60;

/// How a class ended.
pub(super) enum Outcome {
    Passed,
    Failed(Said),
}

/// What a class that failed said.
pub(super) struct Said(String);

impl Said {
    /// What is expected and what stands around it in its line.
    ///
    /// # Panics
    /// When it was not said: then `what` was not caught but something else went wrong.
    pub(super) fn line_with(&self, expected: &str, what: &str) -> String {
        let found = self.0.lines().find_map(|line| Some((line, line.find(expected)?)));
        let (line, at) =
            found.unwrap_or_else(|| panic!("{what}: failed, but not by {expected:?}:\n{}", self.0));
        let before = line[..at].chars().rev().take(SHOWN_AROUND).count();
        let skipped = line[..at].chars().count() - before;
        let shown = before + expected.chars().count() + SHOWN_AROUND;
        line.chars().skip(skipped).take(shown).collect::<String>().trim().to_owned()
    }
}

/// The command of this crate, of this build.
pub(super) fn command() -> PathBuf {
    profile_directory().join("pinion-tests")
}

/// Runs trials of a class.
pub(super) fn outcome(command: &Path, class: &str, first_seed: u64, trials: u64) -> Outcome {
    let mut run = Command::new(command);
    run.arg(class).args(["--seed", &first_seed.to_string(), "--count", &trials.to_string()]);
    // One after the other: a release build ends with its first failure, which must be the same each time.
    run.args(["--workers", "1"]);
    // Nothing from around may choose the seed, another server or another output.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PINION_")) {
        run.env_remove(name);
    }
    run.stdin(Stdio::null());
    let output = run.output().unwrap_or_else(|error| panic!("{} runs: {error}", command.display()));
    if output.status.success() {
        return Outcome::Passed;
    }
    let mut said = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut from = said.len().saturating_sub(SAID_BYTES_MAX);
    while !said.is_char_boundary(from) {
        from += 1;
    }
    Outcome::Failed(Said(said.split_off(from)))
}
