//! Mounts of file systems that live in this process.
//!
//! The kernel's requests are answered by threads of this process. When it ends, in whatever way, its
//! file systems answer every request with an error, so nobody waits for them. Code here opens files
//! on such a mount but does not read or write them: a thread that waits for itself cannot be killed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use fuser::{BackgroundSession, Config, FileAttr, FileType, Filesystem, INodeNo, MountOption, Session};

use super::machine::{complain, run, while_busy};

/// A mounted file system of this process; unmounted when dropped.
#[derive(Debug)]
pub(super) struct FuseMount {
    session: Option<BackgroundSession>,
    at: PathBuf,
}

impl FuseMount {
    /// Mounts a file system on a directory.
    pub(super) fn new(system: impl Filesystem, at: PathBuf) -> Result<Self, String> {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("pinion-rig".to_owned())];
        let session = Session::new(system, &at, &config).and_then(Session::spawn);
        let session = session.map_err(|error| format!("a FUSE mount on {}: {error}", at.display()))?;
        Ok(Self { session: Some(session), at })
    }

    pub(super) fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for FuseMount {
    fn drop(&mut self) {
        let unmounted = while_busy(|| run(Command::new("umount").arg(&self.at)));
        let Some(session) = self.session.take() else { return };
        match unmounted {
            Ok(_) => complain(session.join().map_err(|error| error.to_string())),
            Err(error) => {
                // Somebody holds a file of it: its threads go on until that is closed.
                complain(run(Command::new("umount").arg("--lazy").arg(&self.at)));
                complain(Err::<(), _>(error));
            }
        }
    }
}

/// What is said about a file or directory made by the machine that runs this.
pub(super) fn attributes(inode: u64, kind: FileType, bytes: u64) -> FileAttr {
    FileAttr {
        ino: INodeNo(inode),
        size: bytes,
        blocks: bytes.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: 0o700,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}
