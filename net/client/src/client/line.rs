//! The task that drives one connection of the asynchronous client.
//!
//! A line serves one core for as long as the client lives. It connects when the first request
//! comes, and again when one comes after the connection was lost, not sooner than a growing wait
//! allows. Callers hand it requests through a bounded channel and wait for their answers on their
//! own; one that stops waiting costs nothing but its answer.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Sleep, sleep_until};

use crate::builder::Shared;
use crate::core::connection::Connection;
use crate::core::operation::{Reply, Try};
use crate::core::retry;
use crate::error::{Error, Result};

/// Bytes asked of the socket at once.
const RECEIVE_BYTES: usize = 64 << 10;
/// Turns of a line before other tasks get theirs.
const TURNS_MAX: u32 = 16;

/// A request on its way to a line.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) attempt: Try,
    pub(crate) deadline: Instant,
    pub(crate) ticket: oneshot::Sender<Result<Reply>>,
}

/// Starts the line of a core; `None` = of whichever core answers first. It ends when every sender
/// is gone and nothing is waited for.
pub(crate) fn start(shared: Arc<Shared>, core: Option<u16>) -> mpsc::Sender<Command> {
    let (sender, commands) = mpsc::channel(shared.config.queue_max);
    tokio::spawn(run(shared, core, commands));
    sender
}

async fn run(shared: Arc<Shared>, mut core: Option<u16>, mut commands: mpsc::Receiver<Command>) {
    let mut failures = 0;
    while let Some(first) = commands.recv().await {
        let now = Instant::now();
        let wait = if failures == 0 {
            std::time::Duration::ZERO
        } else {
            retry::delay(failures, &mut shared.session().random)
        };
        let mut terms = shared.terms(core);
        terms.greeting_max += wait;
        let mut line = Line {
            connection: Connection::new(&terms, now),
            shared: &shared,
            commands: &mut commands,
            open: true,
            socket: Socket::Connecting(Box::pin(connect(shared.config.address.clone(), now + wait))),
            timer: Box::pin(sleep_until(now.into())),
            timer_set: None,
            received: vec![0; RECEIVE_BYTES],
            core: None,
        };
        line.connection.submit(now, first.ticket, first.attempt, first.deadline);
        poll_fn(|context| line.poll(context)).await;
        failures = if line.core.is_some() { 0 } else { failures + 1 };
        core = core.or(line.core);
    }
}

async fn connect(address: String, not_before: Instant) -> io::Result<TcpStream> {
    sleep_until(not_before.into()).await;
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// One connection from its first request to its end.
struct Line<'a> {
    connection: Connection<oneshot::Sender<Result<Reply>>>,
    shared: &'a Shared,
    commands: &'a mut mpsc::Receiver<Command>,
    /// Whether more commands may come.
    open: bool,
    socket: Socket,
    timer: Pin<Box<Sleep>>,
    timer_set: Option<Instant>,
    received: Vec<u8>,
    /// The core that answered HELLO.
    core: Option<u16>,
}

enum Socket {
    Connecting(Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>),
    Open(TcpStream),
}

impl Line<'_> {
    /// Ready when the connection is over and all its requests are finished.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURNS_MAX {
            let now = Instant::now();
            let progress = self.take_commands(now, context) | self.poll_socket(now, context);
            self.deliver(now);
            if self.connection.failure().is_some() || (!self.open && self.connection.is_idle()) {
                return Poll::Ready(());
            }
            if !progress && !self.poll_timer(now, context) {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn take_commands(&mut self, now: Instant, context: &mut Context<'_>) -> bool {
        let mut progress = false;
        while self.open && self.connection.has_room() {
            match self.commands.poll_recv(context) {
                Poll::Ready(Some(command)) => {
                    progress = true;
                    self.connection.submit(now, command.ticket, command.attempt, command.deadline);
                }
                Poll::Ready(None) => self.open = false,
                Poll::Pending => break,
            }
        }
        progress
    }

    fn poll_socket(&mut self, now: Instant, context: &mut Context<'_>) -> bool {
        let socket = match &mut self.socket {
            Socket::Connecting(connecting) => {
                match connecting.as_mut().poll(context) {
                    Poll::Pending => return false,
                    Poll::Ready(Ok(socket)) => self.socket = Socket::Open(socket),
                    Poll::Ready(Err(error)) => {
                        let address = self.shared.config.address.clone();
                        self.connection.refused(Error::Connect { address, source: Arc::new(error) });
                    }
                }
                return true;
            }
            Socket::Open(socket) => socket,
        };
        let mut progress = false;
        while !self.connection.output().is_empty() {
            let sent = match socket.try_write(self.connection.output()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if socket.poll_write_ready(context).is_pending() {
                        break;
                    }
                    continue;
                }
                sent => sent,
            };
            match sent {
                Ok(bytes) => self.connection.wrote(now, bytes),
                Err(error) => self.connection.lost(error.to_string()),
            }
            progress = true;
        }
        if self.connection.failure().is_some() {
            return true;
        }
        match socket.try_read(&mut self.received) {
            Ok(0) => self.connection.lost("closed by the server".to_owned()),
            Ok(bytes) => self.connection.receive(now, &self.received[..bytes]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return socket.poll_read_ready(context).is_ready() | progress;
            }
            Err(error) => self.connection.lost(error.to_string()),
        }
        true
    }

    /// Whether time has ended something.
    fn poll_timer(&mut self, now: Instant, context: &mut Context<'_>) -> bool {
        let Some(timeout) = self.connection.timeout() else { return false };
        // A timer that fires too early is set again; one that is too late must be moved.
        if self.timer_set.is_none_or(|set| set > timeout || set <= now) {
            self.timer.as_mut().reset(timeout.into());
            self.timer_set = Some(timeout);
        }
        if self.timer.as_mut().poll(context).is_pending() {
            return false;
        }
        self.timer_set = None;
        self.connection.expire(Instant::now());
        true
    }

    /// Hands results to those who wait, after the session has learnt what they may rely on.
    fn deliver(&mut self, now: Instant) {
        if let Some(welcome) = self.connection.take_welcome() {
            self.core = Some(welcome.core);
            self.shared.session().welcome(now, &welcome);
        }
        let stamp_seen = self.connection.take_stamp_seen();
        if stamp_seen != 0 {
            self.shared.session().clock.observe(stamp_seen);
        }
        while let Some((ticket, result)) = self.connection.next_finished() {
            // The caller may have stopped waiting.
            let _ = ticket.send(result);
        }
    }
}
