//! A ring over one file opened with O_DIRECT, with a fixed number of places for operations.
//!
//! Each place has a buffer and at most one operation in flight. The buffers belong to the ring and are
//! reached through it only while their place is free, so the callers need no unsafe code and no care.
//!
//! Failure: a failed or short operation is an error of [`Direct::wait`]; the rest ends in `Drop`, which
//! waits for it, since the device may still write to the buffers.
#![expect(unsafe_code, reason = "the ring reads and writes memory that the compiler does not see")]

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, squeue, types};
use pinion_runtime::env::AlignedBuf;

/// The ring, its file and its places.
pub struct Direct {
    uring: IoUring,
    file: File,
    places: Vec<Place>,
    in_flight: usize,
}

struct Place {
    buffer: AlignedBuf,
    busy: bool,
}

impl Direct {
    /// `places` operations at a time, each of `bytes` rounded up to whole pages.
    ///
    /// # Errors
    /// The system's: no io_uring.
    ///
    /// # Panics
    /// When there would be no place, or no bytes.
    pub fn new(file: File, places: usize, bytes: usize) -> io::Result<Self> {
        assert!(places > 0 && bytes > 0, "there is something to do");
        let entries = u32::try_from(places).expect("places are few").next_power_of_two();
        let uring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(entries)?;
        let mut places: Vec<Place> =
            (0..places).map(|_| Place { buffer: AlignedBuf::zeroed(bytes), busy: false }).collect();
        // Touched now, so that no operation faults.
        places.iter_mut().for_each(|place| place.buffer.fill(1));
        Ok(Self { uring, file, places, in_flight: 0 })
    }

    /// The buffer of a free place.
    ///
    /// # Panics
    /// When the place is not free; starting an operation does, too.
    pub fn buffer(&mut self, place: usize) -> &mut [u8] {
        let place = &mut self.places[place];
        assert!(!place.busy, "the buffer of a free place");
        &mut place.buffer
    }

    /// Fills the buffer of a free place from the file.
    pub fn read(&mut self, place: usize, offset: u64) {
        let file = types::Fd(self.file.as_raw_fd());
        let buffer = self.buffer(place);
        let entry = opcode::Read::new(file, buffer.as_mut_ptr(), bytes_of(buffer)).offset(offset).build();
        self.push(place, entry);
    }

    /// Writes the buffer of a free place to the file; ends when it is on the device (RWF_DSYNC).
    pub fn write_synced(&mut self, place: usize, offset: u64) {
        let file = types::Fd(self.file.as_raw_fd());
        let buffer = self.buffer(place);
        let entry = opcode::Write::new(file, buffer.as_ptr(), bytes_of(buffer))
            .offset(offset)
            .rw_flags(libc::RWF_DSYNC)
            .build();
        self.push(place, entry);
    }

    fn push(&mut self, place: usize, entry: squeue::Entry) {
        let entry = entry.user_data(place as u64);
        // SAFETY: the entry names the place's buffer, on the heap, as long as it is. With `busy` set
        // nobody reaches it until the completion was reaped, and `Drop` frees no busy buffer.
        let pushed = unsafe { self.uring.submission().push(&entry) };
        pushed.expect("the queue has an entry for each place");
        self.places[place].busy = true;
        self.in_flight += 1;
    }

    /// Submits what was started, waits until at least one operation has ended, and adds the places that
    /// became free to `ended`.
    ///
    /// # Errors
    /// Of the ring, or of an operation.
    ///
    /// # Panics
    /// When nothing is in flight.
    pub fn wait(&mut self, ended: &mut Vec<usize>) -> io::Result<()> {
        assert!(self.in_flight > 0, "there is something to wait for");
        match self.uring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {}
            Err(error) => return Err(error),
        }
        let mut result = Ok(());
        for entry in self.uring.completion() {
            let number = usize::try_from(entry.user_data()).expect("places are few");
            let place = &mut self.places[number];
            place.busy = false;
            self.in_flight -= 1;
            match usize::try_from(entry.result()) {
                Err(_) => result = Err(io::Error::from_raw_os_error(-entry.result())),
                Ok(bytes) if bytes != place.buffer.capacity() => {
                    result = Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(_) => ended.push(number),
            }
        }
        result
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        while self.in_flight > 0 {
            let before = self.in_flight;
            // A failed operation has ended, too; a ring that brings nothing more never will.
            if self.wait(&mut Vec::new()).is_err() && self.in_flight == before {
                mem::forget(mem::take(&mut self.places));
                return;
            }
        }
    }
}

fn bytes_of(buffer: &[u8]) -> u32 {
    u32::try_from(buffer.len()).expect("buffers are small")
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    #[test]
    fn what_was_written_is_read_and_the_end_is_an_error() {
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let mut ring = Direct::new(file, 3, 5000).unwrap();
        for place in 0..3 {
            ring.buffer(place).fill(place as u8 + 1);
            ring.write_synced(place, 8192 * place as u64);
        }
        let mut ended = Vec::new();
        while ended.len() < 3 {
            ring.wait(&mut ended).unwrap();
        }
        ended.sort_unstable();
        assert_eq!(ended, [0, 1, 2]);
        ring.read(0, 16384);
        ring.wait(&mut ended).unwrap();
        assert!(ring.buffer(0).len() == 8192 && ring.buffer(0).iter().all(|byte| *byte == 3));
        ring.read(1, 20480);
        assert_eq!(ring.wait(&mut ended).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        // Dropped with operations in flight.
        ring.read(0, 0);
        ring.read(2, 8192);
    }

    #[test]
    fn an_operation_that_fails_is_an_error() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = dir.path().join("file");
        let file = OpenOptions::new().write(true).create_new(true).open(path).unwrap();
        let mut ring = Direct::new(file, 1, 4096).unwrap();
        ring.read(0, 0);
        assert_eq!(ring.wait(&mut Vec::new()).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
