//! One server process: its output, its signals, its end.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pinion_client::Builder;
use pinion_client::blocking::Client;
use rustix::process::{Pid, Signal, kill_process};

use super::PATIENCE;

/// What the last line of the start-up begins with.
const LISTENING: &str = "listening on ";

/// How often a patient client tries a call again.
const RETRIES_MAX: u32 = 10_000;

/// How often a process is looked at that shall end.
const LOOK_DELAY: Duration = Duration::from_millis(2);

/// A client that tries again for as long as anything here is waited for: a machine that stands still, a disk that
/// is slow to flush, and a server that says OVERLOADED are no failures, unless they last.
pub fn patient(address: &str) -> Builder {
    Client::builder()
        .connect(address)
        .deadline(PATIENCE)
        .connect_timeout(PATIENCE)
        .max_retries(RETRIES_MAX)
        .retry_budget(RETRIES_MAX)
}

/// A process that has been started and may not listen yet. Dropping it kills it.
#[derive(Debug)]
pub struct Starting {
    process: Process,
}

/// A server that listens. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    process: Process,
    address: String,
}

/// A server that ended instead of listening.
#[derive(Debug)]
pub struct Refused {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard error.
    pub log: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.log)
    }
}

impl Starting {
    /// Waits until the server listens or ends.
    ///
    /// # Errors
    /// What it said when it ended.
    pub fn ready(self) -> Result<Server, Refused> {
        let address = self.process.out.wait_for(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix(LISTENING))
                .map(|address| address.trim().to_owned())
        });
        match address {
            Some(address) => Ok(Server { process: self.process, address }),
            None => {
                let (status, log) = self.process.wait();
                Err(Refused { status, log })
            }
        }
    }

    /// Kills it with SIGKILL and waits for its end.
    pub fn kill(self) {
        drop(self);
    }
}

impl Server {
    /// Starts `command`, which runs a server.
    ///
    /// # Panics
    /// When there is no such program.
    pub fn spawn(mut command: Command) -> Starting {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary was built");
        let out = Output::collect(child.stdout.take().expect("standard output is a pipe"));
        let log = Output::collect(child.stderr.take().expect("standard error is a pipe"));
        Starting { process: Process { child, out, log } }
    }

    /// Where it listens: `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The rest of the line of its start-up that begins so.
    ///
    /// # Panics
    /// When there is no such line.
    pub fn start_line(&self, begin: &str) -> String {
        let text = self.process.out.text();
        let found = text.lines().find_map(|line| line.strip_prefix(begin));
        found.unwrap_or_else(|| panic!("no {begin:?} in: {text}")).to_owned()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// A [`patient`] client.
    ///
    /// # Panics
    /// When the server does not answer.
    pub fn client(&self) -> Client {
        self.connect(patient(self.address()))
    }

    /// A client that gives up soon once the server is gone.
    ///
    /// # Panics
    /// When the server does not answer.
    pub fn hasty_client(&self) -> Client {
        self.connect(patient(self.address()).max_retries(2))
    }

    fn connect(&self, builder: Builder) -> Client {
        builder.build_blocking().unwrap_or_else(|error| panic!("{error}; {}", self.process.log.text()))
    }

    /// A number of `server info`, by its path of names.
    ///
    /// # Panics
    /// When there is no such number.
    pub fn number(client: &Client, path: &[&str]) -> u64 {
        let text = client.server_info().expect("the server answers");
        let info: serde_json::Value = serde_json::from_str(&text).expect("server info is JSON");
        let found = path.iter().fold(&info, |value, name| &value[*name]);
        found.as_u64().unwrap_or_else(|| panic!("no number {path:?} in {text}"))
    }

    /// A number of the storage, summed over all shards.
    ///
    /// # Panics
    /// When there is no such number.
    pub fn storage(client: &Client, name: &str) -> u64 {
        Self::number(client, &["storage", name])
    }

    /// CPU time that all its threads have used, from /proc.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("the process lives");
        // The name, in parentheses, may hold blanks; utime and stime are the 14th and 15th field.
        let fields: Vec<&str> = stat.rsplit_once(')').expect("the name ends").1.split_whitespace().collect();
        let ticks: u64 = [11, 12].iter().map(|at| fields[*at].parse::<u64>().expect("a number")).sum();
        Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second())
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Stops all its threads with SIGSTOP and waits until they have.
    ///
    /// # Panics
    /// When they do not.
    pub fn pause(&self) {
        self.process.signal(Signal::STOP);
        let start = Instant::now();
        while !self.is_paused() {
            assert!(start.elapsed() < PATIENCE, "the server does not stop");
            thread::sleep(LOOK_DELAY);
        }
    }

    /// Lets it go on after [`Server::pause`].
    pub fn resume(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Whether every thread is stopped.
    fn is_paused(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("the process lives");
        let stats = threads.flatten().map(|thread| fs::read_to_string(thread.path().join("stat")));
        // A thread that has just ended is not one that runs.
        stats.flatten().all(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" T")))
    }

    /// Kills it with SIGKILL and waits for its end.
    pub fn kill(self) {
        drop(self);
    }

    /// Stops it with SIGTERM.
    ///
    /// # Panics
    /// When it does not end with exit code 0.
    pub fn stop(self) {
        self.terminate();
        let (status, log) = self.wait();
        assert!(status.success(), "{status}: {log}");
    }

    /// Waits until it ends; how, and what it logged.
    ///
    /// # Panics
    /// When it does not end.
    pub fn wait(self) -> (ExitStatus, String) {
        self.process.wait()
    }

    /// Waits until it has logged a text.
    ///
    /// # Panics
    /// When it ends without.
    pub fn wait_for_log(&self, text: &str) {
        let found = self.process.log.wait_for(|log| log.contains(text).then_some(()));
        assert!(found.is_some(), "no {text:?} in: {}", self.process.log.text());
    }
}

#[derive(Debug)]
struct Process {
    child: Child,
    out: Output,
    log: Output,
}

impl Process {
    fn signal(&self, signal: Signal) {
        // Not reaped yet, so the number is still its own.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    fn wait(mut self) -> (ExitStatus, String) {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return (status, self.log.finish());
            }
            assert!(start.elapsed() < PATIENCE, "the server does not end: {}", self.log.text());
            thread::sleep(LOOK_DELAY);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What a process has written to one of its pipes.
#[derive(Debug)]
struct Output {
    shared: Arc<Written>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Written {
    state: Mutex<(String, bool)>,
    moved: Condvar,
}

impl Output {
    fn collect(pipe: impl Read + Send + 'static) -> Self {
        let shared = Arc::new(Written::default());
        let written = Arc::clone(&shared);
        let reader = thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while matches!(pipe.read_until(b'\n', &mut line), Ok(read) if read > 0) {
                let mut state = written.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.0.push_str(&String::from_utf8_lossy(&line));
                line.clear();
                written.moved.notify_all();
            }
            written.state.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
            written.moved.notify_all();
        });
        Self { shared, reader: Some(reader) }
    }

    fn text(&self) -> String {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Waits until `look` finds something; `None` if the pipe ends first.
    fn wait_for<T>(&self, look: impl Fn(&str) -> Option<T>) -> Option<T> {
        let start = Instant::now();
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = look(&state.0) {
                return Some(found);
            }
            if state.1 {
                return None;
            }
            let left = PATIENCE.saturating_sub(start.elapsed());
            assert!(!left.is_zero(), "nothing came of: {}", state.0);
            state = self.shared.moved.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Everything, after the process has ended.
    fn finish(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
        self.text()
    }
}
