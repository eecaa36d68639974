//! A file system that hands everything on to a directory, but for what a fault makes of it.
//!
//! Only what the server needs: files and directories, no links, no renamed directories. The kernel
//! remembers nothing about them between two requests.
//!
//! Short reads and writes end on whole pages, and only a part of what can be short is. The kernel (6.18)
//! goes on with the rest of a short direct write through the page cache; were that short inside of a
//! page, it would lose count of where in the caller's memory it is, and write wrong bytes for io_uring.
//! A short read tells the kernel that the file ends there.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request as Asked, TimeOrNow, WriteFlags,
};

use super::faults::{Effect, Faults, Kind, Request};
use super::fuse::attributes;

/// How long the kernel may believe an answer.
const NOT_AT_ALL: Duration = Duration::ZERO;
/// What is short ends on multiples of this.
const PAGE_BYTES: usize = 4096;

/// The file system.
#[derive(Debug)]
pub(super) struct PassThrough {
    faults: Faults,
    nodes: Mutex<Nodes>,
}

#[derive(Debug)]
struct Nodes {
    paths: HashMap<u64, PathBuf>,
    inodes: HashMap<PathBuf, u64>,
    last_inode: u64,
    files: HashMap<u64, Arc<File>>,
    last_handle: u64,
}

impl PassThrough {
    /// Shows a directory.
    pub(super) fn new(root: PathBuf, faults: Faults) -> Self {
        let nodes = Nodes {
            paths: HashMap::from([(INodeNo::ROOT.0, root.clone())]),
            inodes: HashMap::from([(root, INodeNo::ROOT.0)]),
            last_inode: INodeNo::ROOT.0,
            files: HashMap::new(),
            last_handle: 0,
        };
        Self { faults, nodes: Mutex::new(nodes) }
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, inode: INodeNo) -> io::Result<PathBuf> {
        self.nodes().paths.get(&inode.0).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// A file may have another name, and so be of another kind, than when it was opened.
    fn kind(&self, inode: INodeNo) -> io::Result<Kind> {
        self.path(inode).map(|path| Kind::of(&path))
    }

    fn file(&self, handle: FileHandle) -> io::Result<Arc<File>> {
        self.nodes().files.get(&handle.0).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Fails if there is such a fault and it can happen here.
    fn meet_if(
        &self,
        request: Request,
        kind: Kind,
        can_happen: impl FnOnce(Effect) -> bool,
    ) -> io::Result<Option<Effect>> {
        match self.faults.meet(request, kind, can_happen) {
            Some(Effect::Fails) => Err(rustix::io::Errno::IO.into()),
            Some(Effect::NoSpace) => Err(rustix::io::Errno::NOSPC.into()),
            other => Ok(other),
        }
    }

    fn meet(&self, request: Request, kind: Kind) -> io::Result<Option<Effect>> {
        self.meet_if(request, kind, |_| true)
    }

    fn stat(&self, path: &Path) -> io::Result<FileAttr> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(described(self.nodes().inode(path), &metadata))
    }

    fn make(&self, parent: INodeNo, name: &OsStr, mode: u32) -> io::Result<(FileAttr, FileHandle)> {
        let path = self.path(parent)?.join(name);
        self.meet(Request::Create, Kind::of(&path))?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(&path)?;
        let found = self.stat(&path)?;
        Ok((found, self.nodes().open(file)))
    }

    fn read_some(
        &self,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        bytes: usize,
    ) -> io::Result<Vec<u8>> {
        let file = self.file(handle)?;
        let effect = self.meet_if(Request::Read, self.kind(inode)?, |effect| {
            effect != Effect::Short || bytes > PAGE_BYTES
        })?;
        let mut data = vec![0; bytes];
        let mut done = 0;
        while done < bytes {
            match file.read_at(&mut data[done..], offset + done as u64)? {
                0 => break,
                got => done += got,
            }
        }
        data.truncate(match effect {
            Some(Effect::Short) => shortened(done),
            Some(_) => return Err(rustix::io::Errno::IO.into()),
            None => done,
        });
        Ok(data)
    }

    fn write_some(&self, inode: INodeNo, handle: FileHandle, offset: u64, data: &[u8]) -> io::Result<usize> {
        let file = self.file(handle)?;
        let held_bytes = file.metadata()?.len();
        let effect = self.meet_if(Request::Write, self.kind(inode)?, |effect| match effect {
            // Where something is already there is space.
            Effect::NoSpace => offset + data.len() as u64 > held_bytes,
            Effect::Short | Effect::FailsHalfway => data.len() > PAGE_BYTES,
            Effect::Fails => true,
        })?;
        let bytes = if effect.is_some() { shortened(data.len()) } else { data.len() };
        file.write_all_at(&data[..bytes], offset)?;
        if effect == Some(Effect::FailsHalfway) { Err(rustix::io::Errno::IO.into()) } else { Ok(bytes) }
    }

    fn move_file(&self, from: (INodeNo, &OsStr), to: (INodeNo, &OsStr)) -> io::Result<()> {
        let (from, to) = (self.path(from.0)?.join(from.1), self.path(to.0)?.join(to.1));
        self.meet(Request::Rename, Kind::of(&to))?;
        fs::rename(&from, &to)?;
        let mut nodes = self.nodes();
        if let Some(inode) = nodes.inodes.remove(&from) {
            nodes.inodes.insert(to.clone(), inode);
            nodes.paths.insert(inode, to);
        }
        Ok(())
    }

    fn remove_file(&self, parent: INodeNo, name: &OsStr) -> io::Result<()> {
        let path = self.path(parent)?.join(name);
        self.meet(Request::Remove, Kind::of(&path))?;
        fs::remove_file(&path)?;
        // Open files are known by their handles.
        self.nodes().inodes.remove(&path);
        Ok(())
    }
}

impl Nodes {
    fn inode(&mut self, path: &Path) -> u64 {
        if let Some(inode) = self.inodes.get(path) {
            return *inode;
        }
        self.last_inode += 1;
        self.inodes.insert(path.to_owned(), self.last_inode);
        self.paths.insert(self.last_inode, path.to_owned());
        self.last_inode
    }

    fn open(&mut self, file: File) -> FileHandle {
        self.last_handle += 1;
        self.files.insert(self.last_handle, Arc::new(file));
        FileHandle(self.last_handle)
    }
}

/// About half, in whole pages. Of one page there is no less.
fn shortened(bytes: usize) -> usize {
    (bytes / 2 / PAGE_BYTES * PAGE_BYTES).max(PAGE_BYTES)
}

fn described(inode: u64, metadata: &Metadata) -> FileAttr {
    let kind = if metadata.is_dir() { FileType::Directory } else { FileType::RegularFile };
    FileAttr {
        perm: (metadata.permissions().mode() & 0o7777) as u16,
        blocks: metadata.blocks(),
        nlink: metadata.nlink() as u32,
        ..attributes(inode, kind, metadata.len())
    }
}

/// Gives an answer or its error to a reply.
macro_rules! answer {
    ($reply:ident, $result:expr, |$value:pat_param| $answer:expr) => {
        match $result {
            Ok($value) => $answer,
            Err(error) => $reply.error(Errno::from(error)),
        }
    };
}

impl Filesystem for PassThrough {
    fn lookup(&self, _: &Asked, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.path(parent).and_then(|parent| self.stat(&parent.join(name)));
        answer!(reply, found, |found| reply.entry(&NOT_AT_ALL, &found, Generation(0)));
    }

    fn getattr(&self, _: &Asked, inode: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        let file = handle.and_then(|handle| self.file(handle).ok());
        let found = match file {
            Some(file) => file.metadata().map(|metadata| described(inode.0, &metadata)),
            None => self.path(inode).and_then(|path| self.stat(&path)),
        };
        answer!(reply, found, |found| reply.attr(&NOT_AT_ALL, &found));
    }

    fn setattr(
        &self,
        _: &Asked,
        inode: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let found = self.path(inode).and_then(|path| {
            if let Some(bytes) = size {
                self.meet(Request::Write, Kind::of(&path))?;
                OpenOptions::new().write(true).open(&path)?.set_len(bytes)?;
            }
            self.stat(&path)
        });
        answer!(reply, found, |found| reply.attr(&NOT_AT_ALL, &found));
    }

    fn mkdir(&self, _: &Asked, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let made = self.path(parent).and_then(|parent| {
            self.meet(Request::Create, Kind::Other)?;
            let path = parent.join(name);
            fs::create_dir(&path)?;
            self.stat(&path)
        });
        answer!(reply, made, |made| reply.entry(&NOT_AT_ALL, &made, Generation(0)));
    }

    fn unlink(&self, _: &Asked, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.remove_file(parent, name), |()| reply.ok());
    }

    fn rmdir(&self, _: &Asked, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.path(parent).and_then(|parent| fs::remove_dir(parent.join(name)));
        answer!(reply, removed, |()| reply.ok());
    }

    fn rename(
        &self,
        _: &Asked,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        answer!(reply, self.move_file((parent, name), (new_parent, new_name)), |()| reply.ok());
    }

    fn open(&self, _: &Asked, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let writes = flags.acc_mode() != fuser::OpenAccMode::O_RDONLY;
        let opened = self.path(inode).and_then(|path| {
            let file = OpenOptions::new().read(true).write(writes).open(&path)?;
            Ok(self.nodes().open(file))
        });
        answer!(reply, opened, |handle| reply.opened(handle, FopenFlags::empty()));
    }

    fn create(
        &self,
        _: &Asked,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        answer!(reply, self.make(parent, name, mode), |(found, handle)| {
            reply.created(&NOT_AT_ALL, &found, Generation(0), handle, FopenFlags::empty());
        });
    }

    fn read(
        &self,
        _: &Asked,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        answer!(reply, self.read_some(inode, handle, offset, size as usize), |data| reply.data(&data));
    }

    fn write(
        &self,
        _: &Asked,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        answer!(reply, self.write_some(inode, handle, offset, data), |bytes| reply.written(bytes as u32));
    }

    fn fsync(&self, _: &Asked, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let synced = self.kind(inode).and_then(|kind| self.meet(Request::Sync, kind));
        answer!(reply, synced, |_| reply.ok());
    }

    fn flush(&self, _: &Asked, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Asked,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.nodes().files.remove(&handle.0);
        reply.ok();
    }

    fn readdir(&self, _: &Asked, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = self.path(inode).and_then(|path| {
            let entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
            let mut paths: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
            paths.sort();
            Ok(paths)
        });
        answer!(reply, listed, |paths| {
            for (place, path) in (1..).zip(paths).skip(offset as usize) {
                let kind = if path.is_dir() { FileType::Directory } else { FileType::RegularFile };
                let inode = INodeNo(self.nodes().inode(&path));
                if reply.add(inode, place, kind, path.file_name().unwrap_or_default()) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn fsyncdir(&self, _: &Asked, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let path = self.path(inode);
        let synced = path.and_then(|path| self.meet(Request::SyncDirectory, Kind::of(&path)));
        answer!(reply, synced, |_| reply.ok());
    }

    fn statfs(&self, _: &Asked, inode: INodeNo, reply: ReplyStatfs) {
        let found = self.path(inode).and_then(|path| Ok(rustix::fs::statvfs(path)?));
        answer!(reply, found, |found| {
            let free = if self.faults.is_full() { 0 } else { found.f_bavail };
            let block = found.f_bsize as u32;
            reply.statfs(found.f_blocks, free, free, found.f_files, found.f_ffree, block, 255, block);
        });
    }
}
