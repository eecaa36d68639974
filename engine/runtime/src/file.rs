//! Files on the core's ring, in direct mode.
//!
//! Every operation owns the buffer and a reference to the descriptor until it completes. Short
//! writes are continued; a short read is continued once more at a page border, so that "fewer
//! bytes" means the end of the file and nothing else. Interrupted operations are repeated at most
//! [`RETRIES_MAX`] times.
//!
//! Closing goes through the ring too, to a worker of the kernel: the last close of a removed file
//! frees its blocks, which takes milliseconds and may wait for the file system's journal.

use std::future::Future;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::rc::Rc;

use pinion_env::{AlignedBuf, File, OpenMode, PAGE_BYTES, WriteMode};

use crate::core::{Core, Operation, to_result};
use crate::op::{Op, Progress, Request, c_path};
use crate::sys;

/// Repetitions of an interrupted operation before it counts as failed.
const RETRIES_MAX: usize = 8;

/// The smallest block of any device: where a direct write may go on after a short one.
const BLOCK_BYTES_MIN: usize = 512;

/// An open file. See [`pinion_env::File`]. The descriptor is closed when the file is dropped and
/// its operations have ended.
pub struct RealFile {
    core: Rc<Core>,
    descriptor: Rc<Descriptor>,
}

/// What a file and its operations hold. The last one closes it, without waiting for that.
pub(crate) struct Descriptor {
    core: Rc<Core>,
    /// There until it is dropped.
    file: Option<OwnedFd>,
}

impl Descriptor {
    pub(crate) fn new(core: &Rc<Core>, file: OwnedFd) -> Rc<Self> {
        Rc::new(Self { core: Rc::clone(core), file: Some(file) })
    }

    fn owned(&self) -> &OwnedFd {
        self.file.as_ref().expect("only dropping takes it")
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.owned().as_raw_fd()
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // Refused while the core stops: then dropping the request closes the file at once.
            let request = Request::Close { file };
            self.core.start(Op::Request { request, progress: Progress::Abandoned });
        }
    }
}

impl RealFile {
    pub(crate) async fn open(core: Rc<Core>, path: PathBuf, mode: OpenMode) -> io::Result<Self> {
        let access = match mode {
            OpenMode::Read => libc::O_RDONLY,
            OpenMode::ReadWrite => libc::O_RDWR,
            OpenMode::CreateNew => libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
        };
        let request = Request::Open {
            path: c_path(&path)?,
            flags: access | libc::O_DIRECT | libc::O_CLOEXEC,
            // Whoever may read the data directory's files is the operator's choice of umask.
            mode: 0o640,
        };
        let descriptor = Descriptor::new(&core, open_descriptor(&core, request).await?);
        Ok(Self { core, descriptor })
    }
}

/// Runs an open request.
pub(crate) async fn open_descriptor(core: &Rc<Core>, request: Request) -> io::Result<OwnedFd> {
    let (result, _) = retry(core, request).await;
    to_result(result)?;
    Ok(sys::own(result))
}

/// Runs a request, again if it was interrupted.
pub(crate) async fn retry(core: &Rc<Core>, mut request: Request) -> (i32, Request) {
    for _ in 0..RETRIES_MAX {
        let (result, back) = Operation::new(core, request).await;
        if !matches!(-result, libc::EINTR | libc::EAGAIN) {
            return (result, back);
        }
        request = back;
    }
    Operation::new(core, request).await
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

async fn read(
    core: Rc<Core>,
    file: Rc<Descriptor>,
    offset: u64,
    mut buffer: AlignedBuf,
    bytes: usize,
) -> (io::Result<usize>, AlignedBuf) {
    if bytes > buffer.capacity()
        || !bytes.is_multiple_of(PAGE_BYTES)
        || !offset.is_multiple_of(PAGE_BYTES as u64)
    {
        return (Err(invalid("reads are whole pages that fit the buffer")), buffer);
    }
    let mut done = 0;
    while done < bytes {
        let request = Request::Read {
            file: Rc::clone(&file),
            buffer,
            range: done..bytes,
            offset: offset + done as u64,
        };
        let (result, back) = retry(&core, request).await;
        let Request::Read { buffer: same, .. } = back else {
            unreachable!("requests come back as they went")
        };
        buffer = same;
        match to_result(result) {
            Ok(0) => break,
            Ok(got) => done += got as usize,
            Err(error) => return (Err(error), buffer),
        }
        if !done.is_multiple_of(PAGE_BYTES) {
            // Inside a page: only the end of the file stops a direct read there.
            break;
        }
    }
    (Ok(done), buffer)
}

async fn write(
    core: Rc<Core>,
    file: Rc<Descriptor>,
    offset: u64,
    mut buffer: AlignedBuf,
    range: Range<usize>,
    mode: WriteMode,
) -> (io::Result<()>, AlignedBuf) {
    if range.start > range.end || range.end > buffer.capacity() {
        return (Err(invalid("the range of a write lies inside its buffer")), buffer);
    }
    let mut done = 0;
    while done < range.len() {
        let request = Request::Write {
            file: Rc::clone(&file),
            buffer,
            range: range.start + done..range.end,
            offset: offset + done as u64,
            mode,
        };
        let (result, back) = retry(&core, request).await;
        let Request::Write { buffer: same, .. } = back else {
            unreachable!("requests come back as they went")
        };
        buffer = same;
        match to_result(result) {
            Ok(wrote) => {
                let wrote = wrote as usize;
                done += wrote;
                let aligned = done == range.len() || wrote.is_multiple_of(BLOCK_BYTES_MIN);
                if wrote == 0 || !aligned {
                    return (Err(io::Error::from(io::ErrorKind::WriteZero)), buffer);
                }
            }
            Err(error) => return (Err(error), buffer),
        }
    }
    (Ok(()), buffer)
}

impl File for RealFile {
    fn read(
        &self,
        offset: u64,
        buffer: AlignedBuf,
        bytes: usize,
    ) -> impl Future<Output = (io::Result<usize>, AlignedBuf)> + 'static {
        read(Rc::clone(&self.core), Rc::clone(&self.descriptor), offset, buffer, bytes)
    }

    fn write(
        &self,
        offset: u64,
        buffer: AlignedBuf,
        range: Range<usize>,
        mode: WriteMode,
    ) -> impl Future<Output = (io::Result<()>, AlignedBuf)> + 'static {
        write(Rc::clone(&self.core), Rc::clone(&self.descriptor), offset, buffer, range, mode)
    }

    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static {
        let core = Rc::clone(&self.core);
        let file = Rc::clone(&self.descriptor);
        async move {
            let (result, _) = retry(&core, Request::SyncData { file }).await;
            to_result(result).map(drop)
        }
    }

    fn bytes(&self) -> impl Future<Output = io::Result<u64>> + 'static {
        // The inode of an open file is in memory: asking takes about a microsecond.
        let file = Rc::clone(&self.descriptor);
        async move {
            let file = std::fs::File::from(file.owned().as_fd().try_clone_to_owned()?);
            Ok(file.metadata()?.len())
        }
    }
}

impl std::fmt::Debug for RealFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RealFile").field("descriptor", &self.descriptor.owned()).finish_non_exhaustive()
    }
}
