//! The disk: synced writes to a log, and random reads, by the bare ring over one file.
//!
//! A log is written in a circle in a file whose blocks were all written before, so that a write changes
//! nothing of the file system: one write at a time, as a group commit is. Reads are of pages anywhere in
//! a file, `depth` at a time; each that ends is followed by the next. Both use bytes that do not
//! compress and O_DIRECT, so neither the kernel's page cache nor a clever device makes them faster.
//!
//! Latencies run from handing an operation to the ring to seeing that it has ended: with several in
//! flight the wait for the others of the turn is in it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use pinion_runtime::env::{AlignedBuf, PAGE_BYTES};
use serde::Serialize;

use super::direct::Direct;
use super::{LimitsPlan, tell};
use crate::error::{Error, Result};
use crate::load::{Latency, Random, latency_histogram};
use crate::ratio::stop::Running;

/// Size of the log file, as that of the bare log server.
const LOG_BYTES: u64 = 64 << 20;
/// Sizes of synced writes: one page, and groups.
const LOG_WRITE_BYTES: [usize; 4] = [PAGE_BYTES, 64 << 10, 256 << 10, 1 << 20];
/// Reads in flight.
const READ_DEPTHS: [usize; 4] = [1, 8, 32, 128];
/// What files are filled with at a time, in bytes.
const FILL_BYTES: usize = 1 << 20;

const _: () = assert!(LOG_BYTES.is_multiple_of(FILL_BYTES as u64));

/// What one kind of operation came to.
#[derive(Debug, Clone, Serialize)]
pub struct Disk {
    /// Bytes of an operation.
    pub bytes: usize,
    /// Operations in flight.
    pub depth: usize,
    /// How long it was measured.
    pub seconds: f64,
    /// Operations that ended in that time.
    pub operations: u64,
    /// The same per second.
    pub ops_per_second: f64,
    /// Millions of bytes per second.
    pub mb_per_second: f64,
    /// Of an operation.
    pub latency: Latency,
}

/// Synced writes to a log, one at a time, in each size.
pub(super) fn log(plan: &LimitsPlan, scratch: &Path, running: &Running) -> Result<Vec<Disk>> {
    let path = scratch.join("log");
    fill(&path, LOG_BYTES, running)?;
    let mut found = Vec::new();
    for bytes in LOG_WRITE_BYTES {
        let file = open(&path, OpenOptions::new().write(true))?;
        let mut ring = Direct::new(file, 1, bytes)?;
        randomise(&mut Random::new(bytes as u64), ring.buffer(0));
        let mut offset = 0;
        let write = |ring: &mut Direct, place| {
            ring.write_synced(place, offset);
            offset = (offset + bytes as u64) % LOG_BYTES;
        };
        let disk = drive(plan, ring, (1, bytes), running, write).map_err(at(&path))?;
        tell(&format!("synced write {} KiB", bytes >> 10), disk.ops_per_second, "writes/s");
        found.push(disk);
    }
    remove(&path)?;
    Ok(found)
}

/// Random reads of one page, at each depth.
pub(super) fn reads(plan: &LimitsPlan, scratch: &Path, running: &Running) -> Result<Vec<Disk>> {
    let path = scratch.join("reads");
    fill(&path, plan.file_bytes, running)?;
    let pages = plan.file_bytes / PAGE_BYTES as u64;
    let mut found = Vec::new();
    for depth in READ_DEPTHS {
        let file = open(&path, OpenOptions::new().read(true))?;
        let ring = Direct::new(file, depth, PAGE_BYTES)?;
        let mut random = Random::new(depth as u64);
        let read = |ring: &mut Direct, place| ring.read(place, random.below(pages) * PAGE_BYTES as u64);
        let disk = drive(plan, ring, (depth, PAGE_BYTES), running, read).map_err(at(&path))?;
        tell(&format!("random read, depth {depth}"), disk.ops_per_second, "reads/s");
        found.push(disk);
    }
    remove(&path)?;
    Ok(found)
}

/// Keeps `depth` operations in flight until the time is over, and reports those that ended after
/// warming up.
fn drive(
    plan: &LimitsPlan,
    mut ring: Direct,
    (depth, bytes): (usize, usize),
    running: &Running,
    mut start: impl FnMut(&mut Direct, usize),
) -> Result<Disk> {
    let mut latency_ns = latency_histogram();
    let warm = Instant::now() + plan.warmup();
    let end = warm + plan.measure;
    let mut now = Instant::now();
    let mut started = vec![now; depth];
    for place in 0..depth {
        start(&mut ring, place);
    }
    let mut ended = Vec::with_capacity(depth);
    while now < end {
        if running.is_stopped() {
            return Err(Error::Stopped);
        }
        ring.wait(&mut ended)?;
        now = Instant::now();
        for place in ended.drain(..) {
            if now >= warm {
                latency_ns.saturating_record(nanos(now - started[place]));
            }
            started[place] = now;
            start(&mut ring, place);
        }
    }
    let (seconds, operations) = ((now - warm).as_secs_f64(), latency_ns.len());
    let ops_per_second = operations as f64 / seconds;
    Ok(Disk {
        bytes,
        depth,
        seconds,
        operations,
        ops_per_second,
        mb_per_second: ops_per_second * bytes as f64 / 1e6,
        latency: Latency::of(&latency_ns),
    })
}

/// Makes a file of bytes that do not compress, on the device.
fn fill(path: &Path, bytes: u64, running: &Running) -> Result<()> {
    let file = open(path, OpenOptions::new().write(true).create_new(true))?;
    let mut chunk = AlignedBuf::zeroed(FILL_BYTES);
    let mut random = Random::new(bytes);
    for start in (0..bytes).step_by(FILL_BYTES) {
        if running.is_stopped() {
            return Err(Error::Stopped);
        }
        randomise(&mut random, &mut chunk);
        let bytes = usize::try_from(bytes - start).map_or(FILL_BYTES, |rest| rest.min(FILL_BYTES));
        file.write_all_at(&chunk[..bytes], start).map_err(Error::file(path))?;
    }
    file.sync_all().map_err(Error::file(path))
}

fn open(path: &Path, options: &mut OpenOptions) -> Result<File> {
    options.custom_flags(libc::O_DIRECT).open(path).map_err(Error::file(path))
}

fn remove(path: &Path) -> Result<()> {
    std::fs::remove_file(path).map_err(Error::file(path))
}

/// What the ring says is of its file.
fn at(path: &Path) -> impl FnOnce(Error) -> Error {
    move |error| match error {
        Error::Io(error) => Error::file(path)(error),
        other => other,
    }
}

pub(super) fn randomise(random: &mut Random, bytes: &mut [u8]) {
    for word in bytes.chunks_exact_mut(size_of::<u64>()) {
        word.copy_from_slice(&random.next().to_le_bytes());
    }
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("a run takes less than 500 years")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::roof::limits::tests::plan;

    #[test]
    fn a_file_is_filled_with_bytes_that_do_not_repeat() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = dir.path().join("file");
        fill(&path, (1 << 20) + 8192, &Running::default()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), (1 << 20) + 8192);
        let mut words: Vec<&[u8]> = bytes.chunks(8).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), bytes.len() / 8);
    }

    #[test]
    fn writes_and_reads_are_counted_and_their_files_removed() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let plan = plan(dir.path());
        let reads = reads(&plan, dir.path(), &Running::default()).unwrap();
        assert_eq!(reads.iter().map(|disk| disk.depth).collect::<Vec<_>>(), READ_DEPTHS);
        let log = log(&plan, dir.path(), &Running::default()).unwrap();
        assert_eq!(log.iter().map(|disk| disk.bytes).collect::<Vec<_>>(), LOG_WRITE_BYTES);
        for disk in reads.iter().chain(&log) {
            assert!(disk.operations > 0 && disk.seconds >= plan.measure.as_secs_f64(), "{disk:?}");
            let mb = disk.operations as f64 * disk.bytes as f64 / 1e6 / disk.seconds;
            assert!((disk.mb_per_second / mb - 1.0).abs() < 1e-6);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_failure_names_the_file() {
        let missing = Path::new("/nowhere/file");
        assert!(matches!(fill(missing, 1 << 20, &Running::default()), Err(Error::File { .. })));
        let error = at(missing)(Error::Io(io::ErrorKind::WriteZero.into()));
        assert!(error.to_string().starts_with("/nowhere/file: "));
        assert!(matches!(at(missing)(Error::Stopped), Error::Stopped));
    }
}
