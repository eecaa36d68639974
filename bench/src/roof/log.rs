//! The bare durable server: requests go into a log, and the responses leave when they are on the
//! device.
//!
//! Group commit in its plainest form: whatever came while one write was under way goes into the
//! next, which starts when the first has ended. A write is O_DIRECT and RWF_DSYNC into a file whose
//! blocks were written before, and wraps around at its end. The log cannot be read back: it has no
//! headers and no checksums.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::mem;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use io_uring::{opcode, squeue, types};
use pinion_runtime::env::{AlignedBuf, PAGE_BYTES, page_round_up};

use super::{Options, Peer, Ready, Wire, Work};

/// Size of the log file.
const LOG_BYTES: u64 = 64 << 20;

/// Size of a batch buffer at start; it doubles when one turn brings more.
const BATCH_BYTES: usize = 1 << 20;

/// Requests that go to the device together, and who waits for them.
#[derive(Default)]
struct Batch {
    buffer: AlignedBuf,
    bytes: usize,
    waiting: Vec<(Peer, usize)>,
}

impl Batch {
    fn push(&mut self, peer: Peer, bytes: &[u8], requests: usize) {
        let end = self.bytes + bytes.len();
        if end > self.buffer.capacity() {
            let mut larger = AlignedBuf::lasting((2 * self.buffer.capacity()).max(end));
            larger[..self.bytes].copy_from_slice(&self.buffer[..self.bytes]);
            self.buffer = larger;
        }
        self.buffer[self.bytes..end].copy_from_slice(bytes);
        self.bytes = end;
        if requests > 0 {
            self.waiting.push((peer, requests));
        }
    }
}

struct Log {
    file: File,
    offset: u64,
    filling: Batch,
    /// With the device.
    writing: Batch,
    in_flight: bool,
}

impl Log {
    /// Makes the file, writes it full of zeros and opens it for direct writes.
    fn create(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        let zeros = vec![0; 1 << 20];
        for _ in 0..LOG_BYTES / zeros.len() as u64 {
            file.write_all(&zeros)?;
        }
        file.sync_all()?;
        let file = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path)?;
        let batch = || Batch { buffer: AlignedBuf::lasting(BATCH_BYTES), ..Batch::default() };
        Ok(Self { file, offset: 0, filling: batch(), writing: batch(), in_flight: false })
    }
}

impl Work for Log {
    fn received(&mut self, peer: Peer, bytes: &[u8], requests: usize, _ready: &mut Ready) {
        self.filling.push(peer, bytes, requests);
    }

    fn turn(&mut self) -> Option<squeue::Entry> {
        if self.in_flight || self.filling.waiting.is_empty() {
            return None;
        }
        mem::swap(&mut self.filling, &mut self.writing);
        let bytes = page_round_up(self.writing.bytes);
        if self.offset + bytes as u64 > LOG_BYTES {
            self.offset = 0;
        }
        let file = types::Fd(self.file.as_raw_fd());
        let entry = opcode::Write::new(file, self.writing.buffer.as_ptr(), bytes as u32)
            .offset(self.offset)
            .rw_flags(libc::RWF_DSYNC)
            .build();
        self.offset += bytes as u64;
        self.in_flight = true;
        Some(entry)
    }

    fn completed(&mut self, result: i32, ready: &mut Ready) -> io::Result<()> {
        if result < 0 {
            return Err(io::Error::from_raw_os_error(-result));
        }
        if result as usize != page_round_up(self.writing.bytes) {
            return Err(io::Error::from(io::ErrorKind::WriteZero));
        }
        self.in_flight = false;
        self.writing.bytes = 0;
        for (peer, requests) in self.writing.waiting.drain(..) {
            ready.push(peer, requests);
        }
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if self.in_flight {
            // The device may still be reading it.
            mem::forget(mem::take(&mut self.writing.buffer));
        }
    }
}

/// Serves on the calling thread until `stop` is set; makes the log at `log`, which must not exist,
/// and tells the address it is bound to.
///
/// # Errors
/// When it cannot listen, make its ring or its log, or when a write to the log fails.
pub fn serve(
    options: &Options,
    log: &Path,
    bound: impl FnOnce(SocketAddr),
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut log = Log::create(log)?;
    let mut wire = Wire::new(options)?;
    bound(wire.local_addr()?);
    wire.run(&mut log, stop)
}

const _: () = assert!(LOG_BYTES.is_multiple_of(PAGE_BYTES as u64));

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpStream;
    use std::sync::atomic::Ordering;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn responses_come_after_their_requests_are_in_the_log() {
        static STOP: AtomicBool = AtomicBool::new(false);
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = dir.path().join("log");
        let options = Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            cpu: None,
            request_bytes: 100,
            response_bytes: 9,
        };
        let (addr, bound) = mpsc::channel();
        let at = path.clone();
        let server = thread::spawn(move || serve(&options, &at, |it| addr.send(it).unwrap(), &STOP));
        let mut stream = TcpStream::connect(bound.recv().unwrap()).unwrap();
        stream.write_all(&[5; 1000]).unwrap();
        let mut responses = [0; 90];
        stream.read_exact(&mut responses).unwrap();
        drop(stream);
        STOP.store(true, Ordering::Relaxed);
        server.join().unwrap().unwrap();
        let log = std::fs::read(&path).unwrap();
        assert_eq!(log.iter().filter(|byte| **byte == 5).count(), 1000);
        assert_eq!(log.len() as u64, LOG_BYTES);
    }
}
