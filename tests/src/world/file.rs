//! Open files of a world: operations take virtual time and overlap; their effect is one moment.

use std::cell::OnceCell;
use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::rc::Rc;

use pinion_env::{AlignedBuf, File, WriteMode};

use super::disk::{Disk, Inode, Operation};
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

    fn operation<T, E>(
        &self,
        operation: Operation,
        nanos_max: u64,
        effect: E,
    ) -> impl Future<Output = T> + use<T, E> + 'static
    where
        T: 'static,
        E: FnOnce(&Shared, &Disk) -> T + 'static,
    {
        self.shared.disk_operation(self.process, &self.disk, operation, nanos_max, effect)
    }
}

impl File for SimFile {
    fn read(
        &self,
        offset: u64,
        mut buffer: AlignedBuf,
        bytes: usize,
    ) -> impl Future<Output = (io::Result<usize>, AlignedBuf)> + 'static {
        let inode = Rc::clone(&self.inode);
        self.operation(Operation::Read, DISK_NANOS_MAX, move |shared, disk| {
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
        let (inode, writable) = (Rc::clone(&self.inode), self.writable);
        let nanos_max = match mode {
            WriteMode::Unsynced => DISK_NANOS_MAX,
            WriteMode::Durable => DURABLE_NANOS_MAX,
        };
        self.operation(Operation::Write, nanos_max, move |shared, disk| {
            let written = if writable {
                disk.write_at(&inode, offset, &buffer, range.clone(), mode)
            } else {
                Err(io::Error::from(ErrorKind::PermissionDenied))
            };
            let content = if written.is_ok() { &buffer[range] } else { &[] };
            shared.note_content(Step::Write, offset, content);
            (written, buffer)
        })
    }

    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static {
        let (inode, mark) = (Rc::clone(&self.inode), Rc::new(OnceCell::new()));
        let begun = Rc::clone(&mark);
        let operation = self.operation(Operation::Sync, DURABLE_NANOS_MAX, {
            let inode = Rc::clone(&inode);
            move |shared, disk| {
                let mark = mark.get().expect("an operation begins before it ends");
                let synced = disk.sync(&inode, *mark);
                shared.note(Step::Inspect, u64::from(synced.is_ok()), 0);
                synced
            }
        });
        async move {
            // Only what is written by now, when it is first polled, is covered.
            begun.get_or_init(|| inode.borrow_mut().begin_sync());
            operation.await
        }
    }

    fn bytes(&self) -> impl Future<Output = io::Result<u64>> + 'static {
        let inode = Rc::clone(&self.inode);
        self.operation(Operation::Inspect, DISK_NANOS_MAX, move |shared, disk| {
            let bytes = disk.bytes(&inode);
            shared.note(Step::Inspect, *bytes.as_ref().unwrap_or(&0), 0);
            bytes
        })
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile").field("bytes", &self.inode.borrow().bytes()).finish()
    }
}
