//! Directories, space and locks.
//!
//! What the ring can do (make, rename, unlink, sync) goes through the ring, whose kernel workers
//! take the blocking part. Listing, space and locks run off the core.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use pinion_env::{DirEntry, FileLock, PAGE_BYTES, Space};

use crate::core::{Core, to_result};
use crate::file::{Descriptor, open_descriptor, retry};
use crate::op::{Request, c_path};
use crate::sys;

/// The smallest block a device may have.
const BLOCK_BYTES_MIN: u32 = 512;

pub(crate) async fn create(core: Rc<Core>, path: PathBuf) -> io::Result<()> {
    run(&core, Request::MakeDirectory { path: c_path(&path)?, mode: 0o750 }).await
}

pub(crate) async fn rename(core: Rc<Core>, from: PathBuf, to: PathBuf) -> io::Result<()> {
    run(&core, Request::Rename { from: c_path(&from)?, to: c_path(&to)? }).await
}

pub(crate) async fn remove(core: Rc<Core>, path: PathBuf) -> io::Result<()> {
    run(&core, Request::Unlink { path: c_path(&path)? }).await
}

pub(crate) async fn sync(core: Rc<Core>, path: PathBuf) -> io::Result<()> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let directory = open_descriptor(&core, Request::Open { path: c_path(&path)?, flags, mode: 0 }).await?;
    run(&core, Request::SyncAll { file: Descriptor::new(&core, directory) }).await
}

async fn run(core: &Rc<Core>, request: Request) -> io::Result<()> {
    let (result, _) = retry(core, request).await;
    to_result(result).map(drop)
}

/// The entries of a directory, sorted by name. Blocks.
pub(crate) fn list(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // Removed between listing and looking.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let is_dir = metadata.is_dir();
        entries.push(DirEntry { name, is_dir, bytes: if is_dir { 0 } else { metadata.len() } });
    }
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// Space and block size of the file system that `path` lives on. Blocks.
pub(crate) fn space(path: &Path) -> io::Result<Space> {
    let (total_bytes, available_bytes) = sys::file_system_bytes(path)?;
    let device = fs::metadata(path)?.dev();
    Ok(Space { total_bytes, available_bytes, block_bytes: block_bytes(device) })
}

/// The larger of the logical and the physical block of a device; a page if the device does not
/// tell, as those of network and memory file systems do not.
fn block_bytes(device: u64) -> u32 {
    let device = format!("/sys/dev/block/{}:{}", libc::major(device), libc::minor(device));
    // A partition has no queue of its own; its disk is the directory above.
    for queue in ["queue", "../queue"] {
        let read = |name: &str| -> Option<u32> {
            fs::read_to_string(format!("{device}/{queue}/{name}")).ok()?.trim().parse().ok()
        };
        if let (Some(logical), Some(physical)) = (read("logical_block_size"), read("physical_block_size")) {
            let block = logical.max(physical).clamp(BLOCK_BYTES_MIN, PAGE_BYTES as u32);
            return block.checked_next_power_of_two().unwrap_or(PAGE_BYTES as u32);
        }
    }
    PAGE_BYTES as u32
}

/// An exclusive lock on a file, made if it is missing; `None` if another holds it. Blocks.
pub(crate) fn lock(path: &Path) -> io::Result<Option<FileLock>> {
    let file =
        fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o640).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(FileLock::new(file))),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}
