//! Other engines in this process: RocksDB and fjall, as their users call them, by threads that wait.
//!
//! Like for like with Pinion's engine:
//!
//! | | Pinion | RocksDB | fjall |
//! |---|---|---|---|
//! | `durability=sync` | `RWF_DSYNC`, group commit | `WriteOptions::sync`, group commit | `persist(SyncData)` after each write |
//! | `durability=buffered` | queued for the log | written to the log's file, not synced | written to the journal's file, not synced |
//! | write buffers | 3 of an eighth of the memory, at least 8 MiB | the same | the same size each |
//! | the rest of the memory | blocks, rows, index, filters | block cache, index and filters in it | block cache; the upper levels' index and filters stay beside it |
//! | compression | none | none | none |
//! | filters | binary fuse | bloom, 10 bits for each key | bloom, 10 bits for each key |
//! | blocks | 4 KiB | 4 KiB | 4 KiB |
//! | files | past the page cache | past the page cache but for the log (`directio=false`: through it) | through the page cache |
//!
//! What is not said here is the engine's default. Their own threads stay on the cpus of the load's threads.
//!
//! Without the feature `peers` nothing of them is compiled.

#[cfg(feature = "peers")]
mod fjall;
#[cfg(feature = "peers")]
mod rocksdb;
#[cfg(test)]
mod tests;

use std::path::Path;

use super::blocking::{self, Store};
use super::crew::{self, Crew};
use super::engine::memory_mib;
use super::operations::Job;
use super::target::Engine;
use crate::error::{Error, Result};
use crate::load::pin_to_cpus;
#[cfg(feature = "peers")]
use crate::workload::WriteDurability;

/// The sizes of a peer.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "peers"), expect(dead_code, reason = "there are no peers to be set up"))]
struct Sizes {
    /// Of one write buffer, in bytes.
    write_buffer_bytes: u64,
    /// Write buffers there may be, the one that is written to included.
    write_buffers: u64,
    /// Of all that is cached, in bytes.
    cache_bytes: u64,
}

impl Sizes {
    /// Splits the memory as Pinion's engine does.
    fn of(job: &Job) -> Result<Self> {
        let memory_bytes = memory_mib(&job.plan.workload, 1)? << 20;
        let options = pinion_engine::Options::for_memory(memory_bytes)?;
        let (write_buffer_bytes, write_buffers) = (options.memtable_bytes, 3);
        Ok(Self {
            write_buffer_bytes,
            write_buffers,
            cache_bytes: memory_bytes - write_buffers * write_buffer_bytes,
        })
    }
}

/// Opens a peer and runs the threads of a load on it.
///
/// # Errors
/// [`Error::Peer`]: it could not be opened; [`Error::Cpu`]; [`Error::Usage`].
pub(super) fn run(job: Job, engine: Engine, dir: &Path) -> Result<Crew> {
    let cpus = &job.plan.cpus;
    if !cpus.is_empty() {
        // The threads of the load and of the engine inherit this.
        pin_to_cpus(cpus).map_err(|error| Error::Cpu { cpu: cpus[0], error })?;
    }
    let store = open(&job, engine, dir, Sizes::of(&job)?)?;
    let store = &*store;
    let before = store.describe();
    let ended = crew::threads(job, |job, index| blocking::run(job, index, store))?;
    Ok(Crew { ended, before, after: store.describe() })
}

#[cfg(not(feature = "peers"))]
fn open(_: &Job, engine: Engine, _: &Path, _: Sizes) -> Result<Box<dyn Store>> {
    let name = engine.name();
    Err(Error::Usage(format!("this build has no {name}: cargo build --release --features peers")))
}

#[cfg(feature = "peers")]
fn open(job: &Job, engine: Engine, dir: &Path, sizes: Sizes) -> Result<Box<dyn Store>> {
    let workload = &job.plan.workload;
    let is_sync = workload.durability == WriteDurability::Sync;
    let failed = |reason: String| Error::Peer { name: engine.name(), dir: dir.to_owned(), reason };
    refuse_foreign(dir, if engine == Engine::Rocksdb { "CURRENT" } else { "version" }).map_err(failed)?;
    match engine {
        Engine::Rocksdb => {
            let direct_io = workload.setup.direct_io.unwrap_or(true);
            Ok(Box::new(rocksdb::Rocksdb::open(dir, sizes, is_sync, direct_io).map_err(failed)?))
        }
        Engine::Fjall => Ok(Box::new(fjall::Fjall::open(dir, sizes, is_sync).map_err(failed)?)),
        Engine::Pinion => Err(Error::Usage("Pinion's engine is not its own peer".to_owned())),
    }
}

/// Makes the directory if it is not there; refuses one that holds something, but not the file that every
/// database of the engine has.
#[cfg(feature = "peers")]
fn refuse_foreign(dir: &Path, marker: &str) -> Result<(), String> {
    let said = |error: std::io::Error| error.to_string();
    std::fs::create_dir_all(dir).map_err(said)?;
    let has_any = std::fs::read_dir(dir).map_err(said)?.next().is_some();
    if has_any && !dir.join(marker).exists() {
        return Err("not empty, and no database of its kind: choose another directory".to_owned());
    }
    Ok(())
}

/// The version of a crate that this was built with.
#[cfg(feature = "peers")]
fn locked_version(name: &str) -> &'static str {
    const LOCK: &str = include_str!("../../../../Cargo.lock");
    let name = format!("name = \"{name}\"\n");
    let entry = LOCK.split("[[package]]").find(|entry| entry.contains(&name));
    let version = entry.and_then(|entry| entry.split("version = \"").nth(1)?.split('"').next());
    version.unwrap_or("unknown")
}
