//! One connection of the blocking client, driven by the threads that use it.
//!
//! There is no thread of its own. Of the callers that wait for answers one reads the socket for
//! all of them; when it has its own answer, another takes over. Alone, a caller reads its answer
//! itself, with no hand-over between threads. Requests of several threads are pipelined.
//!
//! Failure: a socket that fails ends every request on it. The next request connects again, not
//! sooner than a growing wait allows; threads that come meanwhile wait for it, at most
//! `connect_timeout`.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::builder::Shared;
use crate::core::connection::Connection;
use crate::core::operation::{Reply, Try};
use crate::core::retry;
use crate::error::{Error, Outcome, Result};

/// Bytes asked of the socket at once.
const RECEIVE_BYTES: usize = 64 << 10;
/// How long the kernel may refuse to take more bytes before the connection is given up.
const SEND_TIMEOUT: Duration = Duration::from_secs(15);
/// The shortest wait for bytes: a socket takes no timeout of zero.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// What a caller gets when it sends and hands back when it waits.
#[derive(Debug)]
pub(super) struct Ticket {
    id: u64,
    outcome_if_lost: Outcome,
}

/// The connection to one core.
#[derive(Debug)]
pub(super) struct Line {
    shared: Arc<Shared>,
    state: Mutex<State>,
    /// Answers have come, or nobody reads or writes any more.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    core: Option<u16>,
    open: Option<Open>,
    /// Answers that nobody has taken yet; at most one for each caller that waits.
    answers: HashMap<u64, Result<Reply>>,
    next_id: u64,
    /// Connections that failed in a row.
    failures: u32,
    not_before: Instant,
}

#[derive(Debug)]
struct Open {
    connection: Connection<u64>,
    socket: Arc<TcpStream>,
    /// A thread is reading or writing the socket without holding the lock.
    reading: bool,
    writing: bool,
    received: Vec<u8>,
}

impl Line {
    /// A line that is not connected yet; `None` = to whichever core answers first.
    pub(super) fn new(shared: Arc<Shared>, core: Option<u16>) -> Self {
        let state = State {
            core,
            open: None,
            answers: HashMap::new(),
            next_id: 0,
            failures: 0,
            not_before: Instant::now(),
        };
        Self { shared, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Sends a request. Each ticket must be waited for.
    pub(super) fn send(&self, attempt: impl Into<Try>, deadline: Instant) -> Result<Ticket> {
        let attempt = attempt.into();
        let mut state = self.lock();
        if state.open.is_none() {
            self.connect(&mut state, deadline)?;
        }
        let outcome_if_lost = attempt.operation.outcome_if_lost();
        let id = state.next_id;
        state.next_id += 1;
        if let Some(open) = &mut state.open {
            open.connection.submit(Instant::now(), id, attempt, deadline);
        }
        self.settle(&mut state, Instant::now());
        drop(self.flush(state));
        Ok(Ticket { id, outcome_if_lost })
    }

    /// Waits for an answer. It comes by the request's deadline, if only as an error.
    pub(super) fn wait(&self, ticket: &Ticket) -> Result<Reply> {
        let mut state = self.lock();
        loop {
            if let Some(answer) = state.answers.remove(&ticket.id) {
                // Another caller may have to take over reading.
                self.changed.notify_all();
                return answer;
            }
            let Some(open) = &mut state.open else {
                let reason = "the connection ended without an answer".to_owned();
                return Err(Error::Disconnected { outcome: ticket.outcome_if_lost, reason });
            };
            if !open.writing && !open.connection.output().is_empty() {
                state = self.flush(state);
            } else if open.reading {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else {
                state = self.read(state);
            }
        }
    }

    /// Reads once for everybody. The lock is not held meanwhile.
    fn read<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let Some(open) = &mut state.open else { return state };
        open.reading = true;
        let timeout = open.connection.timeout();
        let socket = Arc::clone(&open.socket);
        let mut received = std::mem::take(&mut open.received);
        drop(state);
        let result = receive(&socket, timeout, &mut received);
        let now = Instant::now();
        let mut state = self.lock();
        if let Some(open) = state.open_on(&socket) {
            open.reading = false;
            match result {
                Ok(0) => open.connection.lost("closed by the server".to_owned()),
                Ok(bytes) => open.connection.receive(now, &received[..bytes]),
                Err(error) if is_timeout(&error) => open.connection.expire(now),
                Err(error) => open.connection.lost(error.to_string()),
            }
            open.received = received;
            self.settle(&mut state, now);
        }
        self.changed.notify_all();
        state
    }

    /// Sends what is to be sent, unless another thread is doing so: it will send ours, too. The
    /// lock is not held meanwhile.
    fn flush<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        loop {
            let Some(open) = &mut state.open else { return state };
            if open.writing || open.connection.output().is_empty() {
                return state;
            }
            open.writing = true;
            let output = open.connection.take_output(Instant::now());
            let socket = Arc::clone(&open.socket);
            drop(state);
            let result = (&*socket).write_all(&output);
            state = self.lock();
            if let Some(open) = state.open_on(&socket) {
                open.writing = false;
                if let Err(error) = result {
                    // Whoever reads is woken by this, too.
                    let _ = socket.shutdown(std::net::Shutdown::Both);
                    open.connection.lost(error.to_string());
                }
                self.settle(&mut state, Instant::now());
            }
            self.changed.notify_all();
        }
    }

    /// Takes what the connection has learnt and finished; drops it if it has failed.
    fn settle(&self, state: &mut State, now: Instant) {
        let Some(open) = &mut state.open else { return };
        if let Some(welcome) = open.connection.take_welcome() {
            state.failures = 0;
            state.core = state.core.or(Some(welcome.core));
            self.shared.session().welcome(now, &welcome);
        }
        let stamp_seen = open.connection.take_stamp_seen();
        if stamp_seen != 0 {
            self.shared.session().clock.observe(stamp_seen);
        }
        while let Some((id, result)) = open.connection.next_finished() {
            state.answers.insert(id, result);
        }
        if open.connection.failure().is_some() {
            state.open = None;
            self.failed(state, now);
            self.changed.notify_all();
        }
    }

    fn connect(&self, state: &mut State, deadline: Instant) -> Result<()> {
        let now = Instant::now();
        if state.not_before >= deadline {
            return Err(Error::TimedOut { outcome: Outcome::NotApplied });
        }
        std::thread::sleep(state.not_before.saturating_duration_since(now));
        let now = Instant::now();
        let config = &self.shared.config;
        let timeout = config.connect_timeout.min(deadline.saturating_duration_since(now)).max(WAIT_MIN);
        match open_socket(&config.address, timeout) {
            Ok(socket) => {
                state.open = Some(Open {
                    connection: Connection::new(&self.shared.terms(state.core), now),
                    socket: Arc::new(socket),
                    reading: false,
                    writing: false,
                    received: vec![0; RECEIVE_BYTES],
                });
                Ok(())
            }
            Err(error) => {
                self.failed(state, Instant::now());
                Err(Error::Connect { address: config.address.clone(), source: Arc::new(error) })
            }
        }
    }

    /// Counts a failure, unless the connection had been good.
    fn failed(&self, state: &mut State, now: Instant) {
        if state.failures > 0 {
            state.not_before = now + retry::delay(state.failures, &mut self.shared.session().random);
        }
        state.failures += 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every state that a panicking thread can leave behind is one that callers cope with.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The open connection, if it is still the one on this socket.
    fn open_on(&mut self, socket: &Arc<TcpStream>) -> Option<&mut Open> {
        self.open.as_mut().filter(|open| Arc::ptr_eq(&open.socket, socket))
    }
}

fn receive(mut socket: &TcpStream, timeout: Option<Instant>, buffer: &mut [u8]) -> io::Result<usize> {
    let wait = timeout.map(|at| at.saturating_duration_since(Instant::now()).max(WAIT_MIN));
    socket.set_read_timeout(wait)?;
    socket.read(buffer)
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn open_socket(address: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                socket.set_write_timeout(Some(SEND_TIMEOUT))?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
