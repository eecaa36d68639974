//! Real servers: the `pinion` binary as a child process, killed, stopped and started again.
//!
//! A [`Rig`] is a data directory and the settings of the servers that run on it, one after the
//! other. Sizes are small, so that a few megabytes fill segments, flush and compact. A [`Server`]
//! is one process; dropping it kills it. Everything here panics when something does not happen
//! within [`PATIENCE`]: a guard against hanging, not a measurement.

mod binary;
mod random;
mod raw;
mod server;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use pinion_runtime::online_cpus;
use tempfile::TempDir;

pub use binary::binary;
pub(crate) use binary::{profile_directory, target_directory};
pub use random::Random;
pub use raw::{RawAnswer, RawConnection};
pub use server::{Refused, Server, Starting, patient};

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Memory of one shard: the least there is.
const SHARD_MEMORY_MIB: usize = 64;

/// Engine settings that make a short history flush and compact.
const SMALL_ENGINE: &[(&str, &str)] = &[
    ("batch_bytes_max", "\"256KiB\""),
    ("log_segment_bytes", "\"1MiB\""),
    ("log_queue_bytes_max", "\"1MiB\""),
    ("log_block_bytes_max", "\"256KiB\""),
    ("memtable_bytes", "\"1MiB\""),
    ("table_bytes", "\"256KiB\""),
    ("level_base_bytes", "\"2MiB\""),
    ("block_cache_bytes", "\"4MiB\""),
    ("row_cache_bytes", "\"2MiB\""),
    ("disk_reserve_bytes", "\"8MiB\""),
];

/// A data directory and how servers are started on it.
#[derive(Debug)]
pub struct Rig {
    dir: TempDir,
    data: PathBuf,
    /// Shards to format with.
    pub shards: usize,
    /// Cores to run on.
    pub cores: usize,
    /// The address to listen on.
    pub listen: String,
    settings: BTreeMap<&'static str, BTreeMap<String, String>>,
    flags: BTreeMap<String, String>,
}

impl Rig {
    /// An empty directory for a server of two shards on two cores.
    pub fn new() -> Self {
        Self::with_shards(2)
    }

    /// An empty directory for a server of as many shards as cores.
    pub fn with_shards(shards: usize) -> Self {
        let dir = temporary_directory();
        let data = dir.path().join("data");
        let engine =
            SMALL_ENGINE.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let top = BTreeMap::from([("value_bytes_max".to_owned(), "\"256KiB\"".to_owned())]);
        Self {
            dir,
            data,
            shards,
            cores: shards,
            listen: "127.0.0.1:0".to_owned(),
            settings: BTreeMap::from([("", top), ("engine", engine)]),
            flags: BTreeMap::new(),
        }
    }

    /// The same settings on another data directory.
    pub fn on(&self, data: impl Into<PathBuf>) -> Self {
        Self {
            dir: temporary_directory(),
            data: data.into(),
            shards: self.shards,
            cores: self.cores,
            listen: self.listen.clone(),
            settings: self.settings.clone(),
            flags: self.flags.clone(),
        }
    }

    /// Sets a key of `[engine]`.
    pub fn engine(mut self, key: &str, value: impl ToString) -> Self {
        self.settings.entry("engine").or_default().insert(key.to_owned(), value.to_string());
        self
    }

    /// Sets a key of `[limits]`.
    pub fn limit(mut self, key: &str, value: impl ToString) -> Self {
        self.settings.entry("limits").or_default().insert(key.to_owned(), value.to_string());
        self
    }

    /// Sets a flag of `serve`, by its name without dashes.
    pub fn flag(mut self, name: &str, value: impl ToString) -> Self {
        self.flags.insert(name.to_owned(), value.to_string());
        self
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// A place for the test's own files, beside the data directory.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a server and waits until it listens.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(&self) -> Server {
        self.try_start().unwrap_or_else(|refused| panic!("the server did not start: {refused}"))
    }

    /// Starts a server and waits until it listens or ends.
    ///
    /// # Errors
    /// What it said when it ended.
    pub fn try_start(&self) -> Result<Server, Refused> {
        self.spawn().ready()
    }

    /// Starts a server and waits for nothing.
    pub fn spawn(&self) -> Starting {
        Server::spawn(self.command("serve"))
    }

    /// Runs `doctor` with the same settings.
    pub fn doctor(&self) -> Output {
        self.command("doctor").output().expect("the binary was built")
    }

    fn command(&self, name: &str) -> Command {
        let config = self.beside("pinion.toml");
        let mut text = String::new();
        for (section, settings) in &self.settings {
            if !section.is_empty() {
                text.push_str(&format!("[{section}]\n"));
            }
            settings.iter().for_each(|(key, value)| text.push_str(&format!("{key} = {value}\n")));
        }
        fs::write(&config, text).expect("the test's directory can be written");
        let mut flags = BTreeMap::from([
            ("data".to_owned(), self.data.display().to_string()),
            ("config".to_owned(), config.display().to_string()),
            ("listen".to_owned(), self.listen.clone()),
            ("cores".to_owned(), cpu_list(self.cores)),
            ("shards".to_owned(), self.shards.to_string()),
            ("memory".to_owned(), format!("{}MiB", SHARD_MEMORY_MIB * self.shards)),
        ]);
        flags.extend(self.flags.clone());
        let mut command = pinion(&[name]);
        command.args(flags.into_iter().map(|(name, value)| format!("--{name}={value}")));
        command
    }
}

impl Default for Rig {
    fn default() -> Self {
        Self::new()
    }
}

/// A command of the binary, in an environment without our variables but one: many servers run at once, and
/// the port for HTTP is one, so that there is none unless a flag says so.
pub fn pinion(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PINION_") {
            command.env_remove(name);
        }
    }
    command.env("PINION_HTTP", "none").args(arguments).stdin(Stdio::null());
    command
}

/// A new directory on the file system that holds the build, which is rarely memory.
pub fn temporary_directory() -> TempDir {
    let parent = target_directory().join("tmp");
    fs::create_dir_all(&parent).expect("the build's directory can be written");
    tempfile::Builder::new()
        .prefix("pinion-")
        .tempdir_in(parent)
        .expect("the build's directory can be written")
}

/// A directory of this name that stays from one run of the tests to the next, for what takes long to get.
pub fn scratch(name: &str) -> PathBuf {
    target_directory().join("tmp").join(name)
}

/// As many CPUs as cores are wanted; the same ones again if there are too few.
fn cpu_list(cores: usize) -> String {
    let online = online_cpus();
    let cpus: Vec<String> = (0..cores).map(|core| online[core % online.len()].to_string()).collect();
    format!("{},", cpus.join(","))
}
