//! Checks of the data directory and the file system it lives on.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use pinion_engine::{META_NAMES, Meta, Options};
use pinion_runtime::env::{AlignedBuf, PAGE_BYTES};
use rustix::fs::{OFlags, statfs};

use super::Check;
use crate::size::ByteSize;

/// What is said of a kind of file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fitness {
    Good,
    CopyOnWrite,
    Memory,
    Remote,
}

/// Kinds of file systems by the number that statfs gives (linux/magic.h and the kinds' own sources).
const KINDS: &[(u32, &str, Fitness)] = &[
    (0xEF53, "ext4", Fitness::Good),
    (0x5846_5342, "xfs", Fitness::Good),
    (0xF2F5_2010, "f2fs", Fitness::Good),
    (0x9123_683E, "btrfs", Fitness::CopyOnWrite),
    (0x2FC1_2FC1, "zfs", Fitness::CopyOnWrite),
    (0xCA45_1A4E, "bcachefs", Fitness::CopyOnWrite),
    (0x0102_1994, "tmpfs", Fitness::Memory),
    (0x8584_58F6, "ramfs", Fitness::Memory),
    (0x6969, "nfs", Fitness::Remote),
    (0xFF53_4D42, "cifs", Fitness::Remote),
    (0xFE53_4D42, "smb", Fitness::Remote),
    (0x0102_1997, "9p", Fitness::Remote),
    (0x6573_5546, "fuse", Fitness::Remote),
];

/// Log segments that a busy shard holds at once.
const SEGMENTS_PER_SHARD: u64 = 4;

/// Largest META that is looked at, in bytes.
const META_BYTES_MAX: u64 = 64 << 10;

/// The file system under the data directory: kind, direct I/O, space.
pub(super) fn place(data: &Path, shards: u16, options: &Options) -> Vec<Check> {
    let dir = nearest(data);
    vec![kind(&dir), direct_io(&dir), space(&dir, shards, options)]
}

/// What a data directory is; `None` if it is not formatted.
///
/// # Errors
/// A newer version, or no sound copy of META.
pub(crate) fn read_meta(data: &Path) -> Result<Option<Meta>, pinion_engine::Error> {
    let mut copies = Vec::new();
    for name in META_NAMES {
        let path = data.join(name);
        let found = fs::metadata(&path).and_then(|metadata| {
            if metadata.len() > META_BYTES_MAX { Ok(Vec::new()) } else { fs::read(&path) }
        });
        match found {
            Ok(bytes) => copies.push((path, bytes)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(pinion_engine::Error::io(path, error)),
        }
    }
    Meta::newest(copies)
}

/// What the data directory holds, and whether a node runs on it.
pub(super) fn contents(data: &Path) -> (Vec<Check>, Option<Meta>, bool) {
    let subject = "data directory";
    let shown = data.display();
    let meta = match read_meta(data) {
        Ok(meta) => meta,
        Err(error) => return (vec![Check::fail(subject, error.to_string())], None, false),
    };
    let locked = is_locked(data);
    let mut checks = Vec::new();
    checks.push(match (&meta, first_name(data)) {
        (Some(meta), _) => {
            let Meta { shards, partitions, incarnation, .. } = meta;
            let text =
                format!("{shown}: {shards} shards, {partitions} partitions, started {incarnation} times");
            Check::ok(subject, text)
        }
        (None, None) => {
            Check::ok(subject, format!("{shown} is empty or missing: the first start formats it"))
        }
        (None, Some(name)) => Check::fail(
            subject,
            format!("{shown} is no Pinion data directory (it holds {name}): choose another one with --data"),
        ),
    });
    if locked {
        let text = format!("{shown} is in use: a node is running on it; a second one would be refused");
        checks.push(Check::warn("lock", text));
    }
    (checks, meta, locked)
}

fn kind(dir: &Path) -> Check {
    let subject = "file system";
    let shown = dir.display();
    let number = match statfs(dir) {
        // The number is 32 bits wide whatever the field's type.
        Ok(found) => found.f_type as u32,
        Err(error) => return Check::fail(subject, format!("{shown} cannot be looked at: {error}")),
    };
    match KINDS.iter().find(|(known, ..)| *known == number) {
        Some((_, name, Fitness::Good)) => Check::ok(subject, format!("{name} at {shown}")),
        Some((_, name, Fitness::CopyOnWrite)) => Check::warn(
            subject,
            format!(
                "{name} at {shown} copies on write: every synced write becomes several and the log scatters; \
                 prefer ext4 or xfs (or a directory without copy-on-write: `chattr +C` on btrfs)"
            ),
        ),
        Some((_, name, Fitness::Memory)) => Check::warn(
            subject,
            format!("{name} at {shown} is memory: nothing survives a restart of the machine; use a disk"),
        ),
        Some((_, name, Fitness::Remote)) => Check::warn(
            subject,
            format!(
                "{name} at {shown}: locks and synced writes are only as good as what is behind it; prefer a local \
                 ext4 or xfs"
            ),
        ),
        None => Check::warn(
            subject,
            format!(
                "{shown} is of a kind that is not known here ({number:#x}); ext4 and xfs are known to work"
            ),
        ),
    }
}

/// Writes one page past the page cache into a file without a name.
fn direct_io(dir: &Path) -> Check {
    let subject = "direct I/O";
    let shown = dir.display();
    let flags = OFlags::DIRECT | OFlags::TMPFILE;
    let opened =
        OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(flags.bits() as i32).open(dir);
    let page = AlignedBuf::zeroed(PAGE_BYTES);
    let written = opened.and_then(|file| file.write_all_at(&page, 0));
    match written.map_err(|error| (error.kind(), error.raw_os_error(), error)) {
        Ok(()) => Check::ok(subject, format!("works in {shown}")),
        Err((io::ErrorKind::InvalidInput, ..)) => Check::fail(
            subject,
            format!("the file system of {shown} knows no direct I/O (O_DIRECT): use ext4 or xfs"),
        ),
        Err((io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem, _, error)) => Check::fail(
            subject,
            format!(
                "{shown} cannot be written to ({error}): give this user the right to, or choose another --data"
            ),
        ),
        Err((io::ErrorKind::StorageFull, ..)) => Check::warn(subject, "not tried: the disk is full"),
        Err((_, _, error)) => Check::warn(subject, format!("could not be tried in {shown}: {error}")),
    }
}

fn space(dir: &Path, shards: u16, options: &Options) -> Check {
    let subject = "free space";
    let Ok(found) = statfs(dir) else {
        return Check::warn(subject, format!("{} does not tell", dir.display()));
    };
    let free = ByteSize(found.f_bavail.saturating_mul(found.f_bsize as u64));
    let reserve = ByteSize(options.disk_reserve_bytes);
    let logs = ByteSize(u64::from(shards) * SEGMENTS_PER_SHARD * u64::from(options.log_segment_bytes));
    if free <= reserve {
        let text = format!("{free}: below the reserve of {reserve} writes are refused until space returns");
        return Check::warn(subject, text);
    }
    if free.0 < reserve.0 + logs.0 {
        let text = format!(
            "{free} are little: the logs of {shards} shards take up to {logs}, {reserve} are kept free"
        );
        return Check::warn(subject, text);
    }
    Check::ok(subject, format!("{free}"))
}

/// The directory, or what is there already of the path to it.
fn nearest(data: &Path) -> PathBuf {
    let existing = data.ancestors().find(|dir| dir.is_dir());
    let existing = existing.filter(|dir| !dir.as_os_str().is_empty());
    existing.unwrap_or(Path::new(".")).to_owned()
}

fn is_locked(data: &Path) -> bool {
    let Ok(lock) = File::open(data.join("LOCK")) else { return false };
    matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// The first name in a directory that is not that of a file system's own directory or ours.
fn first_name(data: &Path) -> Option<String> {
    let entries = fs::read_dir(data).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name != "lost+found" && name != "LOCK" && !name.ends_with(".tmp")).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::Level;

    #[test]
    fn a_missing_directory_is_judged_by_what_is_above_it() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a/b");
        assert_eq!(nearest(&data), dir.path());
        assert_eq!(nearest(Path::new("pinion-data-that-is-not-here")), Path::new("."));
        let (checks, meta, locked) = contents(&data);
        assert_eq!((checks[0].level, meta, locked), (Level::Ok, None, false));
        assert!(place(&data, 1, &Options::default()).iter().all(|check| check.level != Level::Fail));
    }

    #[test]
    fn foreign_and_damaged_directories_fail() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("LOCK"), "").unwrap();
        fs::write(dir.path().join("letter.txt"), "dear").unwrap();
        let (checks, ..) = contents(dir.path());
        assert!(checks[0].level == Level::Fail && checks[0].text.contains("letter.txt"));
        fs::write(dir.path().join("META"), "no header").unwrap();
        let (checks, ..) = contents(dir.path());
        assert!(checks[0].level == Level::Fail && checks[0].text.contains("META"));
    }

    #[test]
    fn a_lock_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let lock = File::create(dir.path().join("LOCK")).unwrap();
        assert!(!is_locked(dir.path()));
        lock.lock().unwrap();
        assert!(is_locked(dir.path()));
    }
}
