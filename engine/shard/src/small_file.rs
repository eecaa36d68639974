//! Files that are read whole and replaced whole: META, CATALOGUE, CURRENT.
//!
//! Replacing writes a temporary file, syncs it, renames it over the old one and syncs the
//! directory: a crash leaves the old content or the new, never a mixture.

use std::io;
use std::path::{Path, PathBuf};

use pinion_env::{AlignedBuf, Env, File, OpenMode, WriteMode, page_round_up};

use crate::error::{Corruption, Error, Result};
use crate::together::both;

/// What a temporary file's name ends with. Whoever opens a directory removes them.
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

/// Whether an I/O error means that space or quota ran out.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The whole content (padding included) of a file of at most `bytes_max` bytes; `None` if there is
/// no such file.
pub(crate) async fn read_whole<E: Env>(env: &E, path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>> {
    let file = match env.open(path, OpenMode::Read).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(path, error)),
    };
    let bytes = file.bytes().await.map_err(|error| Error::io(path, error))?;
    if bytes > bytes_max {
        return Err(Corruption {
            file: path.to_path_buf(),
            offset: bytes_max,
            what: "file size",
            expected: format!("at most {bytes_max} bytes"),
            found: format!("{bytes} bytes"),
        }
        .into());
    }
    let capacity = page_round_up(bytes as usize);
    let (read, buffer) = file.read(0, AlignedBuf::zeroed(capacity), capacity).await;
    let read = read.map_err(|error| Error::io(path, error))?;
    if (read as u64) < bytes {
        // Half of a file may look whole.
        return Err(Corruption {
            file: path.to_path_buf(),
            offset: read as u64,
            what: "length of a read",
            expected: format!("{bytes} bytes"),
            found: format!("{read} bytes"),
        }
        .into());
    }
    Ok(Some(buffer[..read].to_vec()))
}

/// Makes `content`, zero-padded to whole pages, the durable content of `dir/name`.
///
/// # Errors
/// [`Error::DiskFull`] or [`Error::Io`]; the old content stands then, or the new one if only the
/// last directory sync failed.
pub(crate) async fn replace_whole<E: Env>(env: &E, dir: &Path, name: &str, content: &[u8]) -> Result<()> {
    let replaced = async {
        write_temporary(env, dir, name, content).await?;
        env.rename(&temporary_path(dir, name), &dir.join(name)).await?;
        env.sync_dir(dir).await
    };
    replaced.await.map_err(|error| change_error(dir.join(name), error))
}

/// As [`replace_whole`], for a file that is kept in two copies: both contents are on the disk before the
/// first name changes, so each copy is whole at every moment. Waits for the disk twice, not four times.
///
/// # Errors
/// As [`replace_whole`]; each copy has the old content then, or the new one. Without space for both,
/// nothing has changed and nothing is taken.
pub(crate) async fn replace_copies<E: Env>(
    env: &E,
    dir: &Path,
    names: [&str; 2],
    content: &[u8],
) -> Result<()> {
    let [first, second] = names.map(|name| write_temporary(env, dir, name, content));
    let (first, second) = both(first, second).await;
    for (name, written) in names.into_iter().zip([first, second]) {
        let Err(error) = written else { continue };
        if is_no_space(&error) {
            for name in names {
                let path = temporary_path(dir, name);
                remove_if_there(env, &path).await.map_err(|error| Error::io(path, error))?;
            }
        }
        return Err(change_error(dir.join(name), error));
    }
    for name in names {
        let renamed = env.rename(&temporary_path(dir, name), &dir.join(name)).await;
        renamed.map_err(|error| change_error(dir.join(name), error))?;
    }
    env.sync_dir(dir).await.map_err(|error| change_error(dir.join(names[0]), error))
}

fn temporary_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}{TEMPORARY_SUFFIX}"))
}

/// What will be renamed to `name`, synced.
async fn write_temporary<E: Env>(env: &E, dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let temporary = temporary_path(dir, name);
    remove_if_there(env, &temporary).await?;
    let file = env.open(&temporary, OpenMode::CreateNew).await?;
    let (buffer, bytes) = in_pages(content);
    file.write(0, buffer, 0..bytes, WriteMode::Unsynced).await.0?;
    file.sync().await
}

/// Makes `content` durable where the file's old content stands. It takes no space where overwriting takes
/// none; a crash may leave neither the old content nor the new.
///
/// # Errors
/// [`Error::DiskFull`] or [`Error::Io`]; the file's content is unknown then.
pub(crate) async fn overwrite_whole<E: Env>(env: &E, path: &Path, content: &[u8]) -> Result<()> {
    let overwritten = async {
        let file = env.open(path, OpenMode::ReadWrite).await?;
        let (buffer, bytes) = in_pages(content);
        file.write(0, buffer, 0..bytes, WriteMode::Durable).await.0
    };
    overwritten.await.map_err(|error| change_error(path, error))
}

fn in_pages(content: &[u8]) -> (AlignedBuf, usize) {
    let bytes = page_round_up(content.len());
    let mut buffer = AlignedBuf::zeroed(bytes);
    buffer[..content.len()].copy_from_slice(content);
    (buffer, bytes)
}

fn change_error(path: impl Into<PathBuf>, error: io::Error) -> Error {
    if is_no_space(&error) { Error::DiskFull } else { Error::io(path, error) }
}

/// Removes a file; it need not be there.
pub(crate) async fn remove_if_there<E: Env>(env: &E, path: &Path) -> io::Result<()> {
    match env.remove(path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Op, TestEnv};

    #[test]
    fn a_crash_while_replacing_leaves_old_or_new() {
        for op in [Op::Write, Op::Sync, Op::Rename, Op::SyncDir] {
            let env = TestEnv::new(1);
            let dir = Path::new("/");
            env.block_on(async {
                replace_whole(&env, dir, "F", b"old").await.unwrap();
                env.fail(op, "", 0, 1, io::ErrorKind::Other);
                assert!(replace_whole(&env, dir, "F", b"new").await.is_err());
                env.crash();
                let content = read_whole(&env, Path::new("/F"), 4096).await.unwrap().unwrap();
                assert_eq!(&content[..3], b"old");
                replace_whole(&env, dir, "F", b"new").await.unwrap();
                env.crash();
                let content = read_whole(&env, Path::new("/F"), 4096).await.unwrap().unwrap();
                assert_eq!((&content[..3], content.len()), (&b"new"[..], 4096));
                assert!(read_whole(&env, Path::new("/F"), 4095).await.is_err());
                assert!(read_whole(&env, Path::new("/none"), 1).await.unwrap().is_none());
            });
        }
    }

    #[test]
    fn a_crash_while_replacing_copies_leaves_each_old_or_new() {
        let names = ["F", "F.2"];
        let content = |env: &TestEnv, name: &str| {
            let read = env.block_on(read_whole(env, &Path::new("/").join(name), 4096));
            read.unwrap().unwrap()[..3].to_vec()
        };
        for op in [Op::Write, Op::Sync, Op::Rename, Op::SyncDir] {
            for number in 0.. {
                let env = TestEnv::new(1);
                let dir = Path::new("/");
                env.block_on(replace_copies(&env, dir, names, b"old")).unwrap();
                env.fail(op, "", number, 1, io::ErrorKind::Other);
                let failed = env.block_on(replace_copies(&env, dir, names, b"new")).is_err();
                env.heal();
                env.crash();
                for name in names {
                    let found = content(&env, name);
                    assert!(found == b"new" || failed && found == b"old", "{op:?} {number}: {found:?}");
                }
                if !failed {
                    assert!(number >= 1, "{op:?} was never met");
                    break;
                }
            }
        }
    }
}
