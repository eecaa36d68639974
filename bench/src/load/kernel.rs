//! What the generator asks of the kernel: a ring for its sockets, a cpu, a clock. All of the
//! generator's unsafe code is here.
//!
//! Each connection is a *lane* of the ring: one multishot receive into buffers that all lanes share,
//! and at most one send in flight, from a buffer of the lane that nobody touches meanwhile; what is
//! written to a lane during a turn goes out as one send. A turn is one system call: submit, wait,
//! reap.
//!
//! Limits: [`LANES_MAX`] lanes; nothing else grows but a lane's two buffers, by what the caller
//! appends. Failure: an error of any operation ends the run, for a load with broken connections
//! measures nothing.
#![expect(unsafe_code, reason = "the ring reads and writes memory that the compiler does not see")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::marker::PhantomData;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{BufRingEntry, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

/// Most connections of one generator.
pub(crate) const LANES_MAX: usize = 4096;

/// The smallest receive buffer, in bytes.
const INBOX_BYTES_MIN: usize = 1 << 10;
/// The largest receive buffer, in bytes.
const INBOX_BYTES_MAX: usize = 64 << 10;
/// The group number of the receive buffers: there is only one.
const GROUP: u16 = 0;
/// How often a closing ring waits for its last operations, and for how long each time.
const CLOSE_TURNS_MAX: usize = 20;
const CLOSE_TURN: Duration = Duration::from_millis(100);

/// Kind of an operation, in the lowest bit of its user data; the lane is in the others.
const RECEIVE: u64 = 0;
const SEND: u64 = 1;

/// Keeps the calling thread on one cpu.
///
/// # Errors
/// The system's: there is no such cpu, or the process may not use it.
pub(crate) fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    pin_to_cpus(&[cpu])
}

/// Keeps the calling thread, and those that it starts from now on, on these cpus.
///
/// # Errors
/// The system's: the process may use none of them, or there is no such cpu.
pub(crate) fn pin_to_cpus(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: a set of bits for which all zeros is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for cpu in cpus {
        if *cpu >= 8 * size_of::<libc::cpu_set_t>() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: `cpu` is below the number of bits, checked above.
        unsafe { libc::CPU_SET(*cpu, &mut set) };
    }
    // SAFETY: the kernel reads the given number of bytes of `set`, which outlives the call.
    match unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The cpu time that the calling thread has used.
pub(crate) fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which `time` is.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0, "every thread has a cpu clock");
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The sockets of a generator on one io_uring. Lives and dies on the thread that made it.
pub(crate) struct Ring {
    /// `None` once closed.
    ring: Option<IoUring>,
    inboxes: Option<Inboxes>,
    lanes: Vec<Lane>,
    /// Operations the kernel has, or has queued for it; a multishot receive counts once.
    in_flight: usize,
    /// Of the last turn; kept for its memory.
    reaped: Vec<cqueue::Entry>,
    /// Lanes to which something was written in this turn.
    written: Vec<u32>,
    _one_thread: PhantomData<*const ()>,
}

/// One connection.
struct Lane {
    socket: TcpStream,
    /// What the next send takes.
    filling: Vec<u8>,
    /// What the send in flight reads: not touched until it has ended.
    flying: Vec<u8>,
    /// Bytes of `flying` that are sent.
    sent: usize,
    sending: bool,
    receiving: bool,
}

/// What came of waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    /// There are completions to handle.
    Woken,
    /// Nothing happened in all the time.
    TimedOut,
}

impl Ring {
    /// A ring over connected sockets. `burst_bytes` is what one receive of a lane usually finds: the
    /// size of the receive buffers.
    ///
    /// # Errors
    /// The system's: no io_uring, or too little memory that may be locked.
    pub(crate) fn new(sockets: Vec<TcpStream>, burst_bytes: usize) -> io::Result<Self> {
        if sockets.is_empty() || sockets.len() > LANES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let count = u32::try_from(sockets.len()).expect("at most LANES_MAX");
        // A lane has at most one receive to arm and one send to start between two turns.
        let entries = (2 * count).next_power_of_two();
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(4 * entries)
            .build(entries)?;
        let files: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        ring.submitter().register_files(&files)?;
        let inboxes = Inboxes::register(&ring, 2 * sockets.len(), burst_bytes)?;
        let lane = |socket| Lane {
            socket,
            filling: Vec::new(),
            flying: Vec::new(),
            sent: 0,
            sending: false,
            receiving: false,
        };
        let mut ring = Self {
            ring: Some(ring),
            inboxes: Some(inboxes),
            lanes: sockets.into_iter().map(lane).collect(),
            in_flight: 0,
            reaped: Vec::with_capacity(4 * entries as usize),
            written: Vec::with_capacity(count as usize),
            _one_thread: PhantomData,
        };
        for lane in 0..ring.lanes.len() {
            ring.receive(lane);
        }
        Ok(ring)
    }

    /// Appends to what a lane sends next, and starts the send if none is in flight.
    pub(crate) fn write(&mut self, lane: usize, append: impl FnOnce(&mut Vec<u8>)) {
        append(&mut self.lanes[lane].filling);
        self.send(lane);
    }

    /// Submits what is queued and waits until at least one operation has ended.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn wait(&mut self, timeout: Duration) -> io::Result<Waited> {
        let ring = self.ring.as_mut().expect("only a dropped ring is closed");
        let time = Timespec::from(timeout);
        let args = SubmitArgs::new().timespec(&time);
        match ring.submitter().submit_with_args(1, &args) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => return Ok(Waited::TimedOut),
            // Interrupted, or more has ended than fits: reap and come again.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {}
            Err(error) => return Err(error),
        }
        self.reaped.extend(ring.completion());
        Ok(Waited::Woken)
    }

    /// Handles what has ended: hands received bytes to `on_bytes` with the lane's number and the
    /// buffer to append answers to, then starts one send per lane that has something to send.
    ///
    /// # Errors
    /// What `on_bytes` returns; of a failed operation, or the peer's closing, what `E` makes of it.
    pub(crate) fn handle<E: From<io::Error>>(
        &mut self,
        mut on_bytes: impl FnMut(usize, &[u8], &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut reaped = std::mem::take(&mut self.reaped);
        let mut handled = 0;
        let result = reaped.iter().try_for_each(|entry| {
            handled += 1;
            self.ended(entry, &mut on_bytes)
        });
        // After an error the others stay, for `Drop` to count.
        reaped.drain(..handled);
        self.reaped = reaped;
        result?;
        while let Some(lane) = self.written.pop() {
            self.send(lane as usize);
        }
        Ok(())
    }

    fn ended<E: From<io::Error>>(
        &mut self,
        entry: &cqueue::Entry,
        on_bytes: &mut impl FnMut(usize, &[u8], &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let lane = usize::try_from(entry.user_data() >> 1).expect("lanes are few");
        if entry.user_data() & 1 == SEND {
            self.in_flight -= 1;
            self.lanes[lane].sending = false;
            let bytes = usize::try_from(entry.result()).map_err(|_| failure(entry))?;
            self.lanes[lane].sent += bytes;
            self.send(lane);
            return Ok(());
        }
        if !cqueue::more(entry.flags()) {
            self.in_flight -= 1;
            self.lanes[lane].receiving = false;
        }
        match entry.result() {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            // All buffers were full; they are given back below as they are read.
            result if result == -libc::ENOBUFS => {}
            result if result < 0 => return Err(failure(entry).into()),
            result => {
                let id = cqueue::buffer_select(entry.flags()).expect("every receive selects a buffer");
                let inboxes = self.inboxes.as_mut().expect("only a dropped ring is closed");
                let bytes = inboxes.bytes(id, result.unsigned_abs() as usize);
                let filling = &mut self.lanes[lane].filling;
                let empty = filling.is_empty();
                on_bytes(lane, bytes, filling)?;
                inboxes.give_back(id);
                if empty && !self.lanes[lane].filling.is_empty() {
                    self.written.push(u32::try_from(lane).expect("lanes are few"));
                }
            }
        }
        if !self.lanes[lane].receiving {
            self.receive(lane);
        }
        Ok(())
    }

    fn receive(&mut self, lane: usize) {
        self.lanes[lane].receiving = true;
        let entry = opcode::RecvMulti::new(fixed(lane), GROUP).build();
        self.push(&entry.user_data((lane as u64) << 1 | RECEIVE));
    }

    /// Sends the rest of what is flying, or what was filled meanwhile.
    fn send(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        if lane.sending {
            return;
        }
        if lane.sent == lane.flying.len() {
            if lane.filling.is_empty() {
                return;
            }
            lane.flying.clear();
            lane.sent = 0;
            std::mem::swap(&mut lane.filling, &mut lane.flying);
        }
        lane.sending = true;
        let rest = &lane.flying[lane.sent..];
        let bytes = u32::try_from(rest.len()).expect("a lane's requests in flight are far below 4 GiB");
        let entry = opcode::Send::new(fixed(index), rest.as_ptr(), bytes).flags(libc::MSG_NOSIGNAL).build();
        self.push(&entry.user_data((index as u64) << 1 | SEND));
    }

    fn push(&mut self, entry: &squeue::Entry) {
        let ring = self.ring.as_mut().expect("only a dropped ring is closed");
        // SAFETY: a receive names no memory but the registered buffers, which live until the kernel
        // has let go of them (see `Drop`). A send names `flying` of its lane, which is not touched,
        // moved or freed while `sending` is set: until its completion was reaped.
        let pushed = unsafe { ring.submission().push(entry) };
        pushed.expect("the queue has a place for one receive and one send of each lane");
        self.in_flight += 1;
    }
}

impl Drop for Ring {
    /// Ends all operations before their memory goes. If one does not end, the memory stays.
    fn drop(&mut self) {
        for lane in &self.lanes {
            // Fails when the peer was first: then there is nothing to end.
            drop(lane.socket.shutdown(Shutdown::Both));
        }
        for _ in 0..CLOSE_TURNS_MAX {
            // Of completions that an error left unhandled, too.
            for entry in std::mem::take(&mut self.reaped) {
                self.in_flight -= usize::from(!cqueue::more(entry.flags()));
            }
            if self.in_flight == 0 || self.wait(CLOSE_TURN).is_err() {
                break;
            }
        }
        self.ring = None;
        if self.in_flight > 0 {
            std::mem::forget(self.inboxes.take());
            std::mem::forget(std::mem::take(&mut self.lanes));
        }
    }
}

/// The receive buffers, and the ring in memory by which the kernel takes them.
struct Inboxes {
    /// `count` entries, on a page border.
    entries: NonNull<BufRingEntry>,
    /// `count` buffers of `bytes_each`.
    memory: NonNull<u8>,
    count: u16,
    bytes_each: usize,
    /// Buffers given so far, modulo 2^16; the kernel reads it in the first entry.
    given: u16,
}

impl Inboxes {
    fn register(ring: &IoUring, at_least: usize, bytes_each: usize) -> io::Result<Self> {
        let count = at_least.next_power_of_two().clamp(16, 2 * LANES_MAX);
        let count = u16::try_from(count).expect("clamped");
        let bytes_each = bytes_each.next_power_of_two().clamp(INBOX_BYTES_MIN, INBOX_BYTES_MAX);
        let mut inboxes = Self {
            entries: allocate(Self::entries_layout(count)).cast(),
            memory: allocate(Self::memory_layout(count, bytes_each)),
            count,
            bytes_each,
            given: 0,
        };
        let address = inboxes.entries.as_ptr() as u64;
        // SAFETY: `entries` is zeroed memory of `count` entries on a page border; it is freed only
        // after the ring is closed (`Ring` drops the ring first).
        unsafe { ring.submitter().register_buf_ring_with_flags(address, count, GROUP, 0)? };
        for id in 0..count {
            inboxes.give_back(id);
        }
        Ok(inboxes)
    }

    fn entries_layout(count: u16) -> Layout {
        let bytes = count as usize * size_of::<BufRingEntry>();
        Layout::from_size_align(bytes, 4096).expect("16 bytes for each of at most 2^15")
    }

    fn memory_layout(count: u16, bytes_each: usize) -> Layout {
        Layout::from_size_align(count as usize * bytes_each, 4096).expect("at most 64 KiB for each of 2^15")
    }

    /// The received bytes of a buffer that the kernel has given us.
    fn bytes(&self, id: u16, bytes: usize) -> &[u8] {
        assert!(id < self.count && bytes <= self.bytes_each, "the kernel keeps to the buffers it was given");
        // SAFETY: inside of the allocation by the assertion; initialised, since it was allocated
        // zeroed; not written by the kernel between its completion and `give_back`, which needs
        // `&mut self` and so ends this borrow.
        unsafe {
            std::slice::from_raw_parts(self.memory.as_ptr().add(usize::from(id) * self.bytes_each), bytes)
        }
    }

    fn give_back(&mut self, id: u16) {
        assert!(id < self.count, "the kernel keeps to the buffers it was given");
        let slot = usize::from(self.given & (self.count - 1));
        // SAFETY: `slot` is below `count`, a power of two, and the memory of all entries is zeroed,
        // which is a value of an entry. The kernel does not read an entry between taking its buffer
        // and the new tail below; the fields that are set do not overlap the tail, which lies in
        // the reserved field of the first entry.
        let entry = unsafe { &mut *self.entries.as_ptr().add(slot) };
        // SAFETY: `id` is below `count`: inside of the allocation.
        let address = unsafe { self.memory.as_ptr().add(usize::from(id) * self.bytes_each) };
        entry.set_addr(address as u64);
        entry.set_len(u32::try_from(self.bytes_each).expect("at most 64 KiB"));
        entry.set_bid(id);
        self.given = self.given.wrapping_add(1);
        // SAFETY: the tail is a u16, aligned, in the first entry of the ring, alive as `entries` is;
        // the kernel reads it with acquire, we alone write it.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        tail.store(self.given, Ordering::Release);
    }
}

impl Drop for Inboxes {
    fn drop(&mut self) {
        // SAFETY: both were allocated with these layouts, once, and are freed here only.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), Self::entries_layout(self.count));
            dealloc(self.memory.as_ptr(), Self::memory_layout(self.count, self.bytes_each));
        }
    }
}

fn allocate(layout: Layout) -> NonNull<u8> {
    assert!(layout.size() > 0, "there are at least 16 buffers");
    // SAFETY: the size is not zero.
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| std::alloc::handle_alloc_error(layout))
}

fn fixed(lane: usize) -> Fixed {
    Fixed(u32::try_from(lane).expect("lanes are few"))
}

fn failure(entry: &cqueue::Entry) -> io::Error {
    io::Error::from_raw_os_error(-entry.result())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn bytes_come_back_whole_through_small_buffers() {
        const BYTES: usize = 3_000_000;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let echo = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut buffer = [0; 5000];
            loop {
                match socket.read(&mut buffer) {
                    Ok(0) | Err(_) => return,
                    Ok(bytes) => socket.write_all(&buffer[..bytes]).unwrap(),
                }
            }
        });
        let mut ring = Ring::new(vec![TcpStream::connect(address).unwrap()], 1).unwrap();
        let sent: Vec<u8> = (0..BYTES).map(|at| (at % 251) as u8).collect();
        let mut received = Vec::new();
        ring.write(0, |out| out.extend_from_slice(&sent[..BYTES / 2]));
        ring.write(0, |out| out.extend_from_slice(&sent[BYTES / 2..]));
        while received.len() < BYTES {
            assert_eq!(ring.wait(Duration::from_secs(60)).unwrap(), Waited::Woken);
            ring.handle::<io::Error>(|_, bytes, _| {
                received.extend_from_slice(bytes);
                Ok(())
            })
            .unwrap();
        }
        assert!(received == sent);
        drop(ring);
        echo.join().unwrap();
    }

    #[test]
    fn a_peer_that_closes_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut ring = Ring::new(vec![socket], 1).unwrap();
        drop(listener.accept().unwrap());
        assert_eq!(ring.wait(Duration::from_secs(60)).unwrap(), Waited::Woken);
        let error = ring.handle::<io::Error>(|_, _, _| Ok(())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_thread_can_be_pinned_and_its_time_told() {
        std::thread::spawn(|| {
            pin_to_cpu(0).unwrap();
            assert!(pin_to_cpu(usize::MAX).is_err() && pin_to_cpus(&[]).is_err());
            let before = thread_cpu_time();
            while thread_cpu_time() == before {
                std::hint::spin_loop();
            }
        })
        .join()
        .unwrap();
    }
}
