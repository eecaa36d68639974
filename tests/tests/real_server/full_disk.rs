//! A disk that fills up: reads go on, writes say so, and it ends by itself when space returns.
//!
//! The disk is a small ext4 image on a loop device, which takes root; without it the test is skipped
//! and says so.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use pinion_client::blocking::Client;
use pinion_client::{Error, ErrorCode, Outcome};
use pinion_tests::process::{PATIENCE, Rig, temporary_directory};
use pinion_tests::rig::skip;
use tempfile::TempDir;

const DISK_BYTES: u64 = 96 << 20;
/// What another file takes away at first.
const BALLAST_BYTES: u64 = 40 << 20;
const VALUE_BYTES: usize = 30_000;
/// Of ext4.
const BLOCK_BYTES_MIN: usize = 1 << 10;
const LOOK_DELAY: Duration = Duration::from_millis(20);

/// A mounted image; unmounted when dropped.
struct SmallDisk {
    mounted: PathBuf,
    _dir: TempDir,
}

impl SmallDisk {
    /// The disk, or why there is none.
    fn new() -> Result<Self, String> {
        let dir = temporary_directory();
        let (image, mounted) = (dir.path().join("image"), dir.path().join("disk"));
        File::create(&image).and_then(|file| file.set_len(DISK_BYTES)).map_err(|error| error.to_string())?;
        fs::create_dir(&mounted).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q", "-F", "-m", "0"], &[&image])?;
        run("mount", &["-o", "loop"], &[&image, &mounted])?;
        Ok(Self { mounted, _dir: dir })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A server that was just killed may still hold it for a moment.
        for _ in 0..100 {
            if run("umount", &[], &[&self.mounted]).is_ok() {
                return;
            }
            thread::sleep(LOOK_DELAY);
        }
        eprintln!("{} stays mounted", self.mounted.display());
    }
}

fn run(program: &str, options: &[&str], paths: &[&Path]) -> Result<(), String> {
    let output = Command::new(program).args(options).args(paths).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{program}: {}", said.trim())) }
}

#[test]
fn a_full_disk_refuses_writes_until_space_returns() {
    let disk = match SmallDisk::new() {
        Ok(disk) => disk,
        Err(reason) => return drop(skip("full-disk", 1, &reason)),
    };
    let ballast = disk.mounted.join("ballast");
    fs::write(&ballast, vec![1; BALLAST_BYTES as usize]).expect("the disk is empty");
    let rig = Rig::with_shards(1).flag("partitions", "64").on(disk.mounted.join("data"));
    let server = rig.start();
    let client = server.hasty_client();

    let written = fill(&client, 0);
    assert!(written > 10, "the disk was full after {written} writes");
    check(&client, written);
    // A compaction that meets the end gives back what it had written: then there is a little room
    // again. Somebody else takes all that is left, so it stays full: also for small writes and deletes,
    // and over a restart.
    crowd(&disk.mounted.join("crowd"));
    let written = fill(&client, written);
    let error = client.delete("key 0").expect_err("the disk is full");
    assert_eq!(error.code(), Some(ErrorCode::DiskFull), "{error}");
    server.stop();
    // The last free block goes as well: a start may need none.
    crowd(&disk.mounted.join("crowd"));
    let server = rig.start();
    let client = server.hasty_client();
    check(&client, written);
    let error = client.put("small", "value").expect_err("the disk is full");
    assert_eq!((error.code(), error.outcome()), (Some(ErrorCode::DiskFull), Outcome::NotApplied), "{error}");

    fs::remove_file(&ballast).expect("the ballast is there");
    let start = Instant::now();
    while let Err(error) = client.put("small", "value") {
        assert_eq!(error.code(), Some(ErrorCode::DiskFull), "{error}");
        assert!(start.elapsed() < PATIENCE, "writes are still refused");
        thread::sleep(LOOK_DELAY);
    }
    check(&client, written);
    server.kill();
    let server = rig.start();
    let client = server.client();
    check(&client, written);
    assert_eq!(client.get("small").expect("a get").as_deref(), Some(&b"value"[..]));
    server.stop();
    drop(disk);
}

fn value(number: usize) -> Vec<u8> {
    number.to_le_bytes().repeat(VALUE_BYTES / 8)
}

/// A file that takes what space there is, to the last block.
fn crowd(path: &Path) {
    let file = File::options().create(true).append(true).open(path);
    let mut file = file.expect("an entry in the directory needs no space");
    let mut step = vec![1; 64 << 10];
    while step.len() >= BLOCK_BYTES_MIN {
        // Without a sync for each step the file system would promise more than it has.
        if let Err(error) = file.write_all(&step).and_then(|()| file.sync_data()) {
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
            step.truncate(step.len() / 2);
        }
    }
}

/// Writes on from a number until the disk is full; how many writes were acknowledged in all.
fn fill(client: &Client, mut written: usize) -> usize {
    let start = Instant::now();
    loop {
        match client.put(format!("key {written}"), value(written)) {
            Ok(_) => written += 1,
            Err(Error::Server { code: ErrorCode::DiskFull, outcome, .. }) => {
                assert_eq!(outcome, Outcome::NotApplied);
                return written;
            }
            Err(Error::Server { code: ErrorCode::Overloaded, .. }) => thread::sleep(LOOK_DELAY),
            Err(error) => panic!("after {written} writes: {error}"),
        }
        assert!(start.elapsed() < PATIENCE, "the disk does not fill: {written} writes");
    }
}

/// Everything acknowledged can be read.
fn check(client: &Client, written: usize) {
    for number in 0..written {
        let found = client.get(format!("key {number}")).expect("reads go on");
        assert!(found.as_deref() == Some(&value(number)[..]), "key {number}");
    }
}
