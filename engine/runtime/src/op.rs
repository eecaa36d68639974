//! Operations in flight, and the memory they lend to the kernel.
//!
//! An [`Op`] owns everything its submission entry points to: the file or socket, the buffer, the
//! paths. It sits in the core's slab from submission to its last completion, whatever becomes of
//! the future that asked for it, and that is the whole safety argument of this crate: entries are
//! built only here ([`Op::entry`]), from memory the op owns, and an op leaves the slab only when
//! the kernel is done with it.

use std::ffi::CString;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::rc::Rc;

use io_uring::{opcode, squeue, types};
use pinion_env::{AlignedBuf, WriteMode};

use crate::file::Descriptor;
use crate::listener::ListenerState;
use crate::pool::BUFFER_GROUP;
use crate::socket::SocketState;
use crate::waker::WakerSlot;

/// What the kernel may be asked for.
pub(crate) enum Op {
    /// Connections, until cancelled.
    Accept(Rc<ListenerState>),
    /// Bytes: one chunk, or chunks until cancelled.
    Receive { socket: Rc<SocketState>, streaming: bool },
    /// The buffers of one `start_send`.
    Send { socket: Rc<SocketState>, outgoing: Box<Outgoing> },
    /// Something with one result that a future waits for.
    Request { request: Request, progress: Progress },
}

/// Where a request stands.
pub(crate) enum Progress {
    /// With the kernel; the waker is of the task that waits.
    Running(WakerSlot),
    /// Completed, not yet collected.
    Done(i32),
    /// Nobody waits any more; dropped when it completes.
    Abandoned,
}

/// An operation with one result.
pub(crate) enum Request {
    Read {
        file: Rc<Descriptor>,
        buffer: AlignedBuf,
        range: Range<usize>,
        offset: u64,
    },
    Write {
        file: Rc<Descriptor>,
        buffer: AlignedBuf,
        range: Range<usize>,
        offset: u64,
        mode: WriteMode,
    },
    /// File content and size.
    SyncData {
        file: Rc<Descriptor>,
    },
    /// Everything, including a directory's entries.
    SyncAll {
        file: Rc<Descriptor>,
    },
    /// Off the core: it may take long.
    Close {
        file: OwnedFd,
    },
    Open {
        path: CString,
        flags: i32,
        mode: libc::mode_t,
    },
    MakeDirectory {
        path: CString,
        mode: libc::mode_t,
    },
    Rename {
        from: CString,
        to: CString,
    },
    Unlink {
        path: CString,
    },
}

impl Op {
    /// Whether it is a write to a log: the device has nothing to do until it is submitted.
    pub(crate) fn is_durable_write(&self) -> bool {
        matches!(self, Self::Request { request: Request::Write { mode: WriteMode::Durable, .. }, .. })
    }

    /// Whether it is a read of a file.
    pub(crate) fn is_file_read(&self) -> bool {
        matches!(self, Self::Request { request: Request::Read { .. }, .. })
    }

    /// The submission entry, pointing into this op. The op must already be at its place in the
    /// slab: what entries point to lies on the heap or in the pool, never in the op itself.
    pub(crate) fn entry(&mut self) -> squeue::Entry {
        match self {
            Self::Accept(listener) => {
                opcode::AcceptMulti::new(types::Fd(listener.descriptor())).flags(libc::SOCK_CLOEXEC).build()
            }
            Self::Receive { socket, streaming: false } => {
                opcode::Recv::new(types::Fd(socket.descriptor()), std::ptr::null_mut(), 0)
                    .buf_group(BUFFER_GROUP)
                    .build()
                    .flags(squeue::Flags::BUFFER_SELECT)
            }
            Self::Receive { socket, streaming: true } => {
                opcode::RecvMulti::new(types::Fd(socket.descriptor()), BUFFER_GROUP).build()
            }
            Self::Send { socket, outgoing } => outgoing.entry(socket.descriptor()),
            Self::Request { request, .. } => request.entry(),
        }
    }
}

impl Request {
    fn entry(&mut self) -> squeue::Entry {
        const HERE: types::Fd = types::Fd(libc::AT_FDCWD);
        match self {
            Self::Read { file, buffer, range, offset } => {
                let target = &mut buffer[range.clone()];
                opcode::Read::new(types::Fd(file.as_raw_fd()), target.as_mut_ptr(), length(target))
                    .offset(*offset)
                    .build()
            }
            Self::Write { file, buffer, range, offset, mode } => {
                let source = &buffer[range.clone()];
                let flags = match mode {
                    WriteMode::Unsynced => 0,
                    WriteMode::Durable => libc::RWF_DSYNC,
                };
                opcode::Write::new(types::Fd(file.as_raw_fd()), source.as_ptr(), length(source))
                    .offset(*offset)
                    .rw_flags(flags)
                    .build()
            }
            Self::SyncData { file } => {
                opcode::Fsync::new(types::Fd(file.as_raw_fd())).flags(types::FsyncFlags::DATASYNC).build()
            }
            Self::SyncAll { file } => opcode::Fsync::new(types::Fd(file.as_raw_fd())).build(),
            Self::Close { file } => {
                opcode::Close::new(types::Fd(file.as_raw_fd())).build().flags(squeue::Flags::ASYNC)
            }
            Self::Open { path, flags, mode } => {
                opcode::OpenAt::new(HERE, path.as_ptr()).flags(*flags).mode(*mode).build()
            }
            Self::MakeDirectory { path, mode } => {
                opcode::MkDirAt::new(HERE, path.as_ptr()).mode(*mode).build()
            }
            Self::Rename { from, to } => {
                opcode::RenameAt::new(HERE, from.as_ptr(), HERE, to.as_ptr()).build()
            }
            Self::Unlink { path } => opcode::UnlinkAt::new(HERE, path.as_ptr()).build(),
        }
    }

    /// Lets go of a request that completed with nobody waiting.
    pub(crate) fn discard(self, result: i32) {
        match self {
            Self::Open { .. } if result >= 0 => drop(crate::sys::own(result)),
            // The number is free again, and perhaps somebody else's, unless it was never begun.
            Self::Close { file } if result != -libc::ECANCELED => {
                let _ = file.into_raw_fd();
            }
            _ => {}
        }
    }
}

/// A path as the kernel wants it.
pub(crate) fn c_path(path: &Path) -> io::Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Length for an entry; longer operations complete short and are continued.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(1 << 30)
}

/// Buffers on their way out, and how far they have got. Boxed, so that the header that the kernel
/// reads does not move.
pub(crate) struct Outgoing {
    buffers: Vec<Vec<u8>>,
    /// The first buffer not yet sent whole, and how much of it was sent.
    buffer: usize,
    byte: usize,
    vectors: Vec<libc::iovec>,
    header: libc::msghdr,
}

impl Outgoing {
    /// Vectors in one message: what the kernel takes at most.
    const VECTORS_MAX: usize = 1024;
    const FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;

    pub(crate) fn new() -> Box<Self> {
        let header = libc::msghdr {
            msg_name: std::ptr::null_mut(),
            msg_namelen: 0,
            msg_iov: std::ptr::null_mut(),
            msg_iovlen: 0,
            msg_control: std::ptr::null_mut(),
            msg_controllen: 0,
            msg_flags: 0,
        };
        Box::new(Self { buffers: Vec::new(), buffer: 0, byte: 0, vectors: Vec::new(), header })
    }

    /// Starts over with other buffers.
    pub(crate) fn load(&mut self, buffers: Vec<Vec<u8>>) {
        self.buffers = buffers;
        self.buffer = 0;
        self.byte = 0;
        self.skip_empty();
    }

    /// Gives the buffers back.
    pub(crate) fn unload(&mut self) -> Vec<Vec<u8>> {
        self.vectors.clear();
        std::mem::take(&mut self.buffers)
    }

    /// Whether everything was sent.
    pub(crate) fn is_finished(&self) -> bool {
        self.buffer == self.buffers.len()
    }

    /// Notes that the kernel took `bytes`.
    pub(crate) fn advance(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let left = self.buffers[self.buffer].len() - self.byte;
            let step = left.min(bytes);
            self.byte += step;
            bytes -= step;
            self.skip_empty();
        }
    }

    /// Moves on from buffers of which nothing is left.
    fn skip_empty(&mut self) {
        while self.buffer < self.buffers.len() && self.byte == self.buffers[self.buffer].len() {
            self.buffer += 1;
            self.byte = 0;
        }
    }

    fn entry(&mut self, socket: RawFd) -> squeue::Entry {
        let mut skip = self.byte;
        self.vectors.clear();
        for buffer in &mut self.buffers[self.buffer..] {
            let rest = &mut buffer[skip..];
            skip = 0;
            if !rest.is_empty() {
                self.vectors.push(libc::iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: rest.len() });
            }
            if self.vectors.len() == Self::VECTORS_MAX {
                break;
            }
        }
        if let [only] = self.vectors[..] {
            let bytes = u32::try_from(only.iov_len).unwrap_or(1 << 30);
            return opcode::Send::new(types::Fd(socket), only.iov_base.cast_const().cast(), bytes)
                .flags(Self::FLAGS)
                .build();
        }
        self.header.msg_iov = self.vectors.as_mut_ptr();
        self.header.msg_iovlen = self.vectors.len();
        opcode::SendMsg::new(types::Fd(socket), &raw const self.header).flags(Self::FLAGS as u32).build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outgoing_buffers_are_sent_in_order_and_whole() {
        let mut outgoing = Outgoing::new();
        outgoing.load(vec![vec![], vec![1, 2, 3], vec![], vec![4], vec![]]);
        assert!(!outgoing.is_finished());
        outgoing.entry(0);
        assert_eq!(outgoing.vectors.len(), 2);
        outgoing.advance(2);
        outgoing.entry(0);
        assert_eq!(outgoing.vectors[0].iov_len, 1);
        outgoing.advance(1);
        outgoing.entry(0);
        assert_eq!(outgoing.vectors.len(), 1);
        outgoing.advance(1);
        assert!(outgoing.is_finished());
        assert_eq!(outgoing.unload().len(), 5);

        outgoing.load(vec![vec![], vec![]]);
        assert!(outgoing.is_finished());
        outgoing.load(vec![]);
        assert!(outgoing.is_finished());
    }

    #[test]
    fn a_message_has_a_bounded_number_of_vectors() {
        let mut outgoing = Outgoing::new();
        outgoing.load(vec![vec![7]; 3 * Outgoing::VECTORS_MAX]);
        outgoing.entry(0);
        assert_eq!(outgoing.vectors.len(), Outgoing::VECTORS_MAX);
        outgoing.advance(Outgoing::VECTORS_MAX);
        assert!(!outgoing.is_finished());
    }
}
