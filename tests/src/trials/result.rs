//! Result files: what was run, where, on which commit, and what was counted.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Counts, Trials};

/// One run as JSON.
pub fn result_json(trials: &Trials, counts: &Counts, took: Duration) -> Value {
    let counts: serde_json::Map<String, Value> =
        counts.iter().map(|(name, count)| (name.to_owned(), json!(count))).collect();
    json!({
        "class": trials.class,
        "commit": said_by("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
        "date": said_by("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
        "profile": if cfg!(debug_assertions) { "dev" } else { "release" },
        "workers": trials.workers,
        "machine": { "cpus": cpus(), "cpu": cpu_model(), "kernel": said_by("uname", &["-sr"]) },
        "first_seed": trials.first_seed,
        "trials": trials.count,
        "seconds": (took.as_secs_f64() * 10.0).round() / 10.0,
        "failures": 0,
        "counts": counts,
    })
}

/// Puts a run into a result file, beside the runs that it holds already.
///
/// # Errors
/// The file cannot be read, is not a list of runs, or cannot be written.
pub fn append_result(path: &Path, result: Value) -> io::Result<()> {
    let mut runs: Vec<Value> = match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    runs.push(result);
    let mut text = serde_json::to_string_pretty(&runs)?;
    text.push('\n');
    fs::write(path, text)
}

fn said_by(program: &str, arguments: &[&str]) -> String {
    let said = Command::new(program).args(arguments).output();
    said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned()).unwrap_or_default()
}

/// Of the machine, whatever this process may use of them.
fn cpus() -> usize {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    text.lines().filter(|line| line.starts_with("processor")).count()
}

fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(": ")).map(|(_, model)| model.to_owned()).unwrap_or_default()
}
