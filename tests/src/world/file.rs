//! Open files of a world: operations take virtual time and overlap; their effect is one moment.

use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::rc::Rc;

use pinion_env::{AlignedBuf, File, WriteMode};

use super::disk::{Disk, Inode};
use super::scheduler::ProcessId;
use super::shared::Shared;
use super::trace::Step;

/// Longest time of an operation that need not reach the device.
pub(super) const DISK_NANOS_MAX: u64 = 100_000;

/// Longest time of a durable write or a sync.
const DURABLE_NANOS_MAX: u64 = 400_000;

/// An open file. It stays readable when its name is gone.
pub struct SimFile {
    shared: Rc<Shared>,
    process: ProcessId,
    disk: Rc<Disk>,
    inode: Inode,
    writable: bool,
}

impl SimFile {
    pub(super) fn new(
        shared: Rc<Shared>,
        process: ProcessId,
        disk: Rc<Disk>,
        inode: Inode,
        writable: bool,
    ) -> Self {
        Self { shared, process, disk, inode, writable }
    }
}

impl File for SimFile {
    fn read(
        &self,
        offset: u64,
        mut buffer: AlignedBuf,
        bytes: usize,
    ) -> impl Future<Output = (io::Result<usize>, AlignedBuf)> + 'static {
        let (disk, inode) = (Rc::clone(&self.disk), Rc::clone(&self.inode));
        self.shared.operation(self.process, DISK_NANOS_MAX, false, move |shared| {
            let read = disk.read_at(&inode, offset, &mut buffer, bytes);
            let content = &buffer[..*read.as_ref().unwrap_or(&0)];
            shared.note_content(Step::Read, offset, content);
            (read, buffer)
        })
    }

    fn write(
        &self,
        offset: u64,
        buffer: AlignedBuf,
        range: Range<usize>,
        mode: WriteMode,
    ) -> impl Future<Output = (io::Result<()>, AlignedBuf)> + 'static {
        let (disk, inode, writable) = (Rc::clone(&self.disk), Rc::clone(&self.inode), self.writable);
        let nanos_max = match mode {
            WriteMode::Unsynced => DISK_NANOS_MAX,
            WriteMode::Durable => DURABLE_NANOS_MAX,
        };
        self.shared.operation(self.process, nanos_max, true, move |shared| {
            let written = if writable {
                disk.write_at(&inode, offset, &buffer, range.clone())
            } else {
                Err(io::Error::from(ErrorKind::PermissionDenied))
            };
            let content = if written.is_ok() { &buffer[range] } else { &[] };
            shared.note_content(Step::Write, offset, content);
            (written, buffer)
        })
    }

    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static {
        self.shared.operation(self.process, DURABLE_NANOS_MAX, false, |shared| {
            shared.note(Step::Inspect, 0, 0);
            Ok(())
        })
    }

    fn bytes(&self) -> impl Future<Output = io::Result<u64>> + 'static {
        let inode = Rc::clone(&self.inode);
        self.shared.operation(self.process, DISK_NANOS_MAX, false, move |shared| {
            let bytes = inode.borrow().bytes();
            shared.note(Step::Inspect, bytes, 0);
            Ok(bytes)
        })
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile").field("bytes", &self.inode.borrow().bytes()).finish()
    }
}
