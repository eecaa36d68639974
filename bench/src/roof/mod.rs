//! Roof programs: the least that a server of Pinion's kind must do, with nothing around it.
//!
//! [`echo`] answers requests of a fixed size with responses of a fixed size. [`log`] does the same
//! but first puts the requests into a log that is on the device before any of their responses
//! leaves. Both are one thread with one io_uring and no executor: they are the denominators of
//! Pinion's ratios, so they use the same kernel features as Pinion's runtime (multishot accept and
//! receive, a ring of receive buffers, one send in flight per connection, grouped synced writes)
//! and leave out everything else: frames are told apart by their size only, nothing is checked,
//! looked up or kept.
//!
//! This file is what both share: [`Wire`], the loop over the ring, the listening socket and the
//! connections. What happens between a request and its response is a [`Work`]. [`limits`] measures both,
//! and the disk and the memory beside them.
//!
//! Limits: 1,024 connections; responses that wait for a slow reader pile up without bound, since
//! closed-loop generators never do that.
#![expect(unsafe_code, reason = "a bare ring; see each SAFETY argument")]

pub mod echo;
pub mod limits;
pub mod log;

use std::io;
use std::mem;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use pinion_runtime::env::AlignedBuf;

/// What a roof program serves, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where it listens; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// The CPU it stays on; `None` leaves that to the scheduler.
    pub cpu: Option<usize>,
    /// Bytes of a request.
    pub request_bytes: usize,
    /// Bytes of a response.
    pub response_bytes: usize,
}

const CONNECTIONS_MAX: usize = 1024;
const RING_ENTRIES: u32 = 2048;
/// As many as a core of Pinion keeps in its ring, and as large.
const RECEIVE_BUFFERS: u16 = 64;
const RECEIVE_BUFFER_BYTES: usize = 16 << 10;
const BUFFER_GROUP: u16 = 0;
/// How often an idle server looks whether it should stop.
const STOP_CHECK: Duration = Duration::from_millis(200);

// What a completion is of: the upper half of its user data. The lower half is the connection.
const ACCEPT: u64 = 1 << 32;
const RECEIVE: u64 = 2 << 32;
const SEND: u64 = 3 << 32;
const WORK: u64 = 4 << 32;
const TIMER: u64 = 5 << 32;

/// A connection's place and how often the place was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    place: usize,
    generation: u32,
}

/// Responses that are ready to go.
#[derive(Debug, Default)]
pub(crate) struct Ready(Vec<(Peer, usize)>);

impl Ready {
    /// `responses` more for `peer`.
    pub(crate) fn push(&mut self, peer: Peer, responses: usize) {
        self.0.push((peer, responses));
    }
}

/// What happens between a request and its response.
pub(crate) trait Work {
    /// Bytes have come, and with them `requests` requests are complete.
    fn received(&mut self, peer: Peer, bytes: &[u8], requests: usize, ready: &mut Ready);

    /// A turn is over; starts an operation of its own, if it has any. What the entry points to stays
    /// untouched until the operation's result comes.
    fn turn(&mut self) -> Option<squeue::Entry>;

    /// The result of its operation.
    ///
    /// # Errors
    /// Ends the server.
    fn completed(&mut self, result: i32, ready: &mut Ready) -> io::Result<()>;
}

struct Connection {
    socket: OwnedFd,
    generation: u32,
    /// Bytes of a request that is not complete.
    partial: usize,
    /// Responses that wait while `sending` is with the kernel.
    waiting: Vec<u8>,
    sending: Vec<u8>,
    in_flight: bool,
    receiving: bool,
    /// Waits for the send at the end of the turn.
    queued: bool,
    closed: bool,
}

/// The ring, the listening socket and the connections.
pub(crate) struct Wire {
    uring: IoUring,
    listener: TcpListener,
    buffers: Buffers,
    connections: Vec<Option<Connection>>,
    generations: Vec<u32>,
    /// Connections with responses that no send in flight covers.
    to_send: Vec<usize>,
    request_bytes: usize,
    response: Vec<u8>,
    tick: Box<types::Timespec>,
}

impl Wire {
    /// Pins the thread, listens, makes the ring.
    pub(crate) fn new(options: &Options) -> io::Result<Self> {
        if options.request_bytes == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a request has at least one byte"));
        }
        if let Some(cpu) = options.cpu {
            pin(cpu)?;
        }
        let listener = TcpListener::bind(options.listen)?;
        // SAFETY: plain system calls on a socket of ours; the option's value is read only.
        unsafe {
            let one: i32 = 1;
            libc::listen(listener.as_raw_fd(), 4096);
            // Accepted sockets inherit this.
            libc::setsockopt(
                listener.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_NODELAY,
                (&raw const one).cast(),
                size_of::<i32>() as libc::socklen_t,
            );
        }
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(4 * RING_ENTRIES)
            .build(RING_ENTRIES)?;
        let buffers = Buffers::new(&uring)?;
        Ok(Self {
            uring,
            listener,
            buffers,
            connections: (0..CONNECTIONS_MAX).map(|_| None).collect(),
            generations: vec![0; CONNECTIONS_MAX],
            to_send: Vec::with_capacity(CONNECTIONS_MAX),
            request_bytes: options.request_bytes,
            response: vec![b'r'; options.response_bytes],
            tick: Box::new(types::Timespec::from(STOP_CHECK)),
        })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is set.
    pub(crate) fn run(&mut self, work: &mut impl Work, stop: &AtomicBool) -> io::Result<()> {
        let mut ready = Ready::default();
        let mut batch = Vec::with_capacity(1024);
        self.accept();
        self.set_timer();
        while !stop.load(Ordering::Relaxed) {
            match self.uring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY)) => {}
                Err(error) => return Err(error),
            }
            batch.extend(
                self.uring.completion().map(|entry| (entry.user_data(), entry.result(), entry.flags())),
            );
            for (of, result, flags) in batch.drain(..) {
                let place = (of & 0xffff_ffff) as usize;
                match of - place as u64 {
                    ACCEPT => self.accepted(result, flags),
                    RECEIVE => self.received(place, result, flags, work, &mut ready),
                    SEND => self.sent(place, result),
                    WORK => work.completed(result, &mut ready)?,
                    _ => self.set_timer(),
                }
            }
            for (peer, responses) in ready.0.drain(..) {
                self.respond(peer, responses);
            }
            self.send_all();
            if let Some(entry) = work.turn() {
                self.push(&entry.user_data(WORK));
            }
        }
        Ok(())
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: entries point to receive buffers, a connection's `sending`, a work's buffers or
        // the boxed time: all on the heap and left alone until the completion.
        while unsafe { self.uring.submission().push(entry) }.is_err() {
            // Full: hand over. An error shows at the next enter of the loop.
            drop(self.uring.submit());
        }
    }

    fn accept(&mut self) {
        let entry =
            opcode::AcceptMulti::new(types::Fd(self.listener.as_raw_fd())).flags(libc::SOCK_CLOEXEC).build();
        self.push(&entry.user_data(ACCEPT));
    }

    fn set_timer(&mut self) {
        let entry = opcode::Timeout::new(&raw const *self.tick).build().user_data(TIMER);
        self.push(&entry);
    }

    fn accepted(&mut self, result: i32, flags: u32) {
        if !cqueue::more(flags) {
            self.accept();
        }
        if result < 0 {
            return;
        }
        // SAFETY: the kernel has just made this descriptor for us.
        let socket = unsafe { OwnedFd::from_raw_fd(result) };
        // Without a place the connection is dropped, hence closed.
        let Some(place) = self.connections.iter().position(Option::is_none) else { return };
        self.generations[place] += 1;
        self.connections[place] = Some(Connection {
            socket,
            generation: self.generations[place],
            partial: 0,
            waiting: Vec::new(),
            sending: Vec::new(),
            in_flight: false,
            receiving: false,
            queued: false,
            closed: false,
        });
        self.receive(place);
    }

    fn receive(&mut self, place: usize) {
        let Some(connection) = &mut self.connections[place] else { return };
        connection.receiving = true;
        let entry = opcode::RecvMulti::new(types::Fd(connection.socket.as_raw_fd()), BUFFER_GROUP).build();
        self.push(&entry.user_data(RECEIVE | place as u64));
    }

    fn received(&mut self, place: usize, result: i32, flags: u32, work: &mut impl Work, ready: &mut Ready) {
        let Some(connection) = &mut self.connections[place] else { return };
        connection.receiving = cqueue::more(flags);
        if let (1.., Some(buffer)) = (result, cqueue::buffer_select(flags)) {
            let bytes = self.buffers.bytes(buffer, result as usize);
            let total = connection.partial + bytes.len();
            connection.partial = total % self.request_bytes;
            let peer = Peer { place, generation: connection.generation };
            work.received(peer, bytes, total / self.request_bytes, ready);
            self.buffers.give_back(buffer);
        } else if result != -libc::ENOBUFS {
            connection.closed = true;
            self.close_if_idle(place);
            return;
        }
        if !cqueue::more(flags) {
            self.receive(place);
        }
    }

    fn respond(&mut self, peer: Peer, responses: usize) {
        let Some(connection) = &mut self.connections[peer.place] else { return };
        if connection.generation != peer.generation || connection.closed {
            return;
        }
        for _ in 0..responses {
            connection.waiting.extend_from_slice(&self.response);
        }
        if !connection.in_flight && !mem::replace(&mut connection.queued, true) {
            self.to_send.push(peer.place);
        }
    }

    fn send_all(&mut self) {
        while let Some(place) = self.to_send.pop() {
            let Some(connection) = &mut self.connections[place] else { continue };
            connection.queued = false;
            if connection.waiting.is_empty() {
                continue;
            }
            mem::swap(&mut connection.waiting, &mut connection.sending);
            connection.in_flight = true;
            let socket = types::Fd(connection.socket.as_raw_fd());
            let entry =
                opcode::Send::new(socket, connection.sending.as_ptr(), connection.sending.len() as u32)
                    .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
                    .build();
            self.push(&entry.user_data(SEND | place as u64));
        }
    }

    fn sent(&mut self, place: usize, result: i32) {
        let Some(connection) = &mut self.connections[place] else { return };
        connection.in_flight = false;
        if result < 0 || result as usize != connection.sending.len() {
            connection.closed = true;
        }
        connection.sending.clear();
        if connection.closed {
            // Ends the receive, if one is in flight.
            // SAFETY: a plain system call on a socket of ours.
            unsafe { libc::shutdown(connection.socket.as_raw_fd(), libc::SHUT_RDWR) };
            self.close_if_idle(place);
        } else if !connection.waiting.is_empty() && !mem::replace(&mut connection.queued, true) {
            self.to_send.push(place);
        }
    }

    fn close_if_idle(&mut self, place: usize) {
        if self.connections[place].as_ref().is_some_and(|it| it.closed && !it.in_flight && !it.receiving) {
            self.connections[place] = None;
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // The kernel may still be filling receive buffers or reading responses, and lets go of them
        // some time after the ring is closed. A server ends once, with its process or shortly before.
        mem::forget(mem::take(&mut self.buffers));
        mem::forget(mem::take(&mut self.connections));
    }
}

/// The ring of receive buffers.
#[derive(Default)]
struct Buffers {
    entries: AlignedBuf,
    memory: AlignedBuf,
    tail: u16,
}

impl Buffers {
    fn new(uring: &IoUring) -> io::Result<Self> {
        let mut buffers = Self {
            entries: AlignedBuf::zeroed(usize::from(RECEIVE_BUFFERS) * size_of::<BufRingEntry>()),
            memory: AlignedBuf::lasting(usize::from(RECEIVE_BUFFERS) * RECEIVE_BUFFER_BYTES),
            tail: 0,
        };
        // Touched now, so that receiving does not fault.
        buffers.memory.fill(1);
        let address = buffers.entries.as_mut_ptr() as u64;
        // SAFETY: the address is page-aligned, large enough, and never freed (see `Wire::drop`).
        unsafe {
            uring.submitter().register_buf_ring_with_flags(address, RECEIVE_BUFFERS, BUFFER_GROUP, 0)?;
        }
        for buffer in 0..RECEIVE_BUFFERS {
            buffers.give_back(buffer);
        }
        Ok(buffers)
    }

    fn bytes(&self, buffer: u16, bytes: usize) -> &[u8] {
        let start = usize::from(buffer) * RECEIVE_BUFFER_BYTES;
        &self.memory[start..start + bytes]
    }

    fn give_back(&mut self, buffer: u16) {
        let address = self.bytes(buffer, 0).as_ptr() as u64;
        let entries = self.entries.as_mut_ptr().cast::<BufRingEntry>();
        // SAFETY: the index is masked to the number of entries; the kernel does not read entries at
        // or beyond the tail, and the release store of the tail, which shares entry 0, comes last.
        unsafe {
            let entry = entries.add(usize::from(self.tail & (RECEIVE_BUFFERS - 1)));
            (*entry).set_addr(address);
            (*entry).set_len(RECEIVE_BUFFER_BYTES as u32);
            (*entry).set_bid(buffer);
            self.tail = self.tail.wrapping_add(1);
            AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()).store(self.tail, Ordering::Release);
        }
    }
}

fn pin(cpu: usize) -> io::Result<()> {
    if cpu >= 8 * size_of::<libc::cpu_set_t>() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: the set is plain bits, valid when zeroed; the index is in its range.
    let result = unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
