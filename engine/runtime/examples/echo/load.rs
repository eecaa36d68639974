//! A closed loop of pipelined frames over a bare io_uring, with as little work per frame as can be:
//! what answers complete is asked again, in one send.
#![expect(unsafe_code, reason = "a bare ring; see each SAFETY argument")]

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read};
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, types};

/// What to load.
pub(crate) struct Plan {
    pub(crate) addr: SocketAddr,
    pub(crate) cpu: usize,
    pub(crate) connections: usize,
    pub(crate) depth: usize,
    pub(crate) frame_bytes: usize,
    pub(crate) seconds: u64,
}

/// What it gave.
pub(crate) struct Report {
    frames_per_second: f64,
    p50_us: u64,
    p99_us: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} frames/s, p50 {} us, p99 {} us", self.frames_per_second, self.p50_us, self.p99_us)
    }
}

struct Connection {
    socket: TcpStream,
    received: Vec<u8>,
    /// Bytes of an answer that is not complete.
    partial: usize,
    /// When groups of frames were sent, and how many.
    asked: VecDeque<(Instant, usize)>,
    /// Answered and not asked again, because a send is in flight.
    free: usize,
    in_flight: bool,
}

const RECEIVE: u64 = 0;
const SEND: u64 = 1 << 32;
const WARM_UP: Duration = Duration::from_secs(1);
const HISTOGRAM_US: usize = 100_000;

/// Runs the load on this thread.
pub(crate) fn run(plan: &Plan) -> io::Result<Report> {
    // SAFETY: the set is plain bits, valid when zeroed.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(plan.cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
    let mut ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(4096)?;
    let frames = vec![7u8; plan.depth * plan.frame_bytes];
    let mut connections = Vec::new();
    for _ in 0..plan.connections {
        let mut socket = TcpStream::connect(plan.addr)?;
        socket.set_nodelay(true)?;
        // Fails early if the server does not answer.
        io::Write::write_all(&mut socket, &frames[..plan.frame_bytes])?;
        socket.read_exact(&mut vec![0; plan.frame_bytes])?;
        connections.push(Connection {
            socket,
            received: vec![0; (plan.depth * plan.frame_bytes).max(4096)],
            partial: 0,
            asked: VecDeque::new(),
            free: plan.depth,
            in_flight: false,
        });
    }
    let push = |ring: &mut IoUring, entry: io_uring::squeue::Entry| {
        // SAFETY: entries point to `frames` or to a connection's `received`, which live to the end
        // of this function and are not touched while the operation runs. On an early return the
        // process ends.
        while unsafe { ring.submission().push(&entry) }.is_err() {
            drop(ring.submit());
        }
    };
    let receive = |connection: &mut Connection, number: usize| {
        let buffer = &mut connection.received;
        opcode::Recv::new(types::Fd(connection.socket.as_raw_fd()), buffer.as_mut_ptr(), buffer.len() as u32)
            .build()
            .user_data(RECEIVE | number as u64)
    };
    let send = |connection: &mut Connection, number: usize, now: Instant| {
        let count = mem::take(&mut connection.free);
        connection.asked.push_back((now, count));
        connection.in_flight = true;
        opcode::Send::new(
            types::Fd(connection.socket.as_raw_fd()),
            frames.as_ptr(),
            (count * plan.frame_bytes) as u32,
        )
        .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
        .build()
        .user_data(SEND | number as u64)
    };
    let start = Instant::now();
    for (number, connection) in connections.iter_mut().enumerate() {
        push(&mut ring, receive(connection, number));
        push(&mut ring, send(connection, number, start));
    }
    let mut histogram = vec![0u64; HISTOGRAM_US];
    let mut total = 0u64;
    let measured = Duration::from_secs(plan.seconds);
    let mut batch = Vec::with_capacity(4096);
    loop {
        ring.submit_and_wait(1)?;
        let now = Instant::now();
        let since = now.duration_since(start);
        if since > WARM_UP + measured {
            break;
        }
        batch.extend(ring.completion().map(|entry| (entry.user_data(), entry.result())));
        for (of, result) in batch.drain(..) {
            let number = (of & 0xffff_ffff) as usize;
            let connection = &mut connections[number];
            if result <= 0 {
                return Err(io::Error::other(format!("connection {number} ended: {result}")));
            }
            if of & SEND != 0 {
                connection.in_flight = false;
            } else {
                let bytes = connection.partial + result as usize;
                connection.partial = bytes % plan.frame_bytes;
                let mut answered = bytes / plan.frame_bytes;
                connection.free += answered;
                while answered > 0 {
                    let Some((asked, left)) = connection.asked.front_mut() else {
                        return Err(io::Error::other("more answers than questions"));
                    };
                    let step = answered.min(*left);
                    if since > WARM_UP {
                        let micros = now.duration_since(*asked).as_micros() as usize;
                        histogram[micros.min(HISTOGRAM_US - 1)] += step as u64;
                        total += step as u64;
                    }
                    answered -= step;
                    *left -= step;
                    if *left == 0 {
                        connection.asked.pop_front();
                    }
                }
                push(&mut ring, receive(connection, number));
            }
            if connection.free > 0 && !connection.in_flight {
                push(&mut ring, send(connection, number, now));
            }
        }
    }
    let percentile = |share: f64| {
        let mut left = (total as f64 * share) as u64;
        histogram.iter().position(|count| {
            let here = left < *count;
            left = left.saturating_sub(*count);
            here
        })
    };
    Ok(Report {
        frames_per_second: total as f64 / measured.as_secs_f64(),
        p50_us: percentile(0.5).unwrap_or(HISTOGRAM_US) as u64,
        p99_us: percentile(0.99).unwrap_or(HISTOGRAM_US) as u64,
    })
}
