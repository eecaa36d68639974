//! What the runtime's tests share: a deadline, a runtime in a thread, an echo server.
#![expect(dead_code, reason = "each test binary uses a part of this file")]
#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pinion_runtime::env::{Env, Listener, NodeEnv, Socket, TaskClass};
use pinion_runtime::{RealEnv, RealSocket, Remote, Runtime, RuntimeConfig, SocketHandoff, online_cpus};

/// A lost wake-up shows as a hang, and a hang is a failure: ends the process.
const DEADLINE: Duration = Duration::from_secs(120);

/// What the tests' cores tell each other.
pub(crate) enum Message {
    Stop,
    Number(u64),
    Connection(SocketHandoff),
}

/// Aborts the process if the value lives too long.
pub(crate) struct Deadline(mpsc::Sender<()>);

pub(crate) fn deadline(test: &'static str) -> Deadline {
    let (alive, ended) = mpsc::channel::<()>();
    thread::spawn(move || {
        if ended.recv_timeout(DEADLINE) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{test} hangs: a wake-up was lost");
            std::process::abort();
        }
    });
    Deadline(alive)
}

/// `cores` cores, spread over the CPUs there are.
pub(crate) fn config(cores: usize) -> RuntimeConfig {
    let online = online_cpus();
    RuntimeConfig::new((0..cores).map(|core| online[core % online.len()]).collect())
}

/// A runtime that listens and runs in a thread of its own.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) remote: Remote<Message>,
    cores: usize,
    thread: JoinHandle<()>,
}

pub(crate) fn serve<Main, Fut>(mut config: RuntimeConfig, main: Main) -> Server
where
    Main: Fn(RealEnv<Message>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    config.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let cores = config.cpus.len();
    let runtime = Runtime::new(config).unwrap();
    let addr = runtime.local_addr().unwrap();
    let remote = runtime.remote();
    let thread = thread::spawn(move || runtime.run(main).unwrap());
    Server { addr, remote, cores, thread }
}

impl Server {
    pub(crate) fn stop(self) {
        for core in 0..self.cores {
            assert!(self.remote.send(core, Message::Stop).is_ok());
        }
        self.thread.join().unwrap();
    }
}

/// Runs `main` on one core that listens on nothing.
pub(crate) fn run_one<Main, Fut>(main: Main)
where
    Main: Fn(RealEnv<Message>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    Runtime::new(config(1)).unwrap().run(main).unwrap();
}

/// Waits for the next message.
pub(crate) async fn message<E: NodeEnv>(env: &E) -> E::Message {
    poll_fn(|context| env.poll_message(context)).await
}

/// Waits until told to stop.
pub(crate) async fn until_stopped(env: RealEnv<Message>) {
    while !matches!(message(&env).await, Message::Stop) {}
}

/// Accepts connections and serves each with `serve` in a task.
pub(crate) async fn accept_all<F, Fut>(env: RealEnv<Message>, serve: F)
where
    F: Fn(Rc<RealSocket>) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let listener = env.listener();
    env.clone().spawn(TaskClass::Foreground, async move {
        loop {
            if let Ok(socket) = poll_fn(|context| listener.poll_accept(context)).await {
                env.spawn(TaskClass::Foreground, serve(Rc::new(socket)));
            }
        }
    });
}

/// Sends back what comes, until the peer is done.
pub(crate) async fn echo(socket: Rc<RealSocket>) {
    socket.start_streaming();
    while let Ok(Some(chunk)) = poll_fn(|context| socket.poll_receive(context)).await {
        let mut reply = chunk.to_vec();
        drop(chunk);
        while let Some(chunk) = socket.receive_ready() {
            reply.extend_from_slice(&chunk);
        }
        socket.start_send(vec![reply]);
        if poll_fn(|context| socket.poll_sent(context)).await.0.is_err() {
            return;
        }
    }
}
