//! The system calls of a real server: a process of one core, real sockets, a real io_uring, a real disk.
//!
//! The server stands still while a group of requests is sent, then answers them. Twice:
//!
//! * stopped by SIGSTOP, which is possible everywhere. What is counted is what the server itself counts:
//!   how often its ring was entered, going to sleep after each group included, and synced writes;
//! * with ptrace, which sees every system call of its core: those into io_uring, of whichever ring, and
//!   all others. When the last answer has come the core is stopped again, before it could go to sleep:
//!   so this is a server that always has something to do. The group with the fewest counts: what is more
//!   than that is sleeping while a disk is slow.
//!
//! Left out is `clock_gettime`: a function or a system call, as the machine's clock is.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use pinion_client::blocking::Client;

use super::bounds::Figure;
use super::crowd::{Ask, Crowd};
use crate::process::{PATIENCE, Rig, Server};

/// Groups before the counting, and counted.
const WARM_UP: u64 = 4;
const GROUPS: u64 = 16;

/// How often a thread is looked at that runs.
const LOOK_DELAY: Duration = Duration::from_micros(20);

/// Connections, and requests of each in a group.
const SHAPES: [(usize, usize); 2] = [(64, 1), (4, 16)];

const OWN_ENTERS: &str = "ring entered, with sleeps";
pub(super) const SYNCED_WRITES: &str = "synced writes";
const ENTERS: &str = "io_uring_enter";
const OTHERS: &str = "other system calls";

/// What was counted, and what could not be: names with the reason.
#[derive(Debug, Default)]
pub(super) struct Calls {
    pub(super) figures: Vec<Figure>,
    pub(super) skipped: Vec<(String, String)>,
}

/// Counts the calls of a server under all shapes of load.
///
/// # Panics
/// When the server does not start or answer.
pub(super) fn count() -> Calls {
    // Nothing is flushed and no segment is begun meanwhile.
    let rig = Rig::with_shards(1)
        .engine("memtable_bytes", "\"16MiB\"")
        .engine("log_segment_bytes", "\"8MiB\"")
        .engine("log_queue_bytes_max", "\"4MiB\"");
    let server = rig.start();
    let client = server.client();
    let mut calls = Calls::default();
    for (connections, depth) in SHAPES {
        let mut crowd = Crowd::connect(server.address(), connections, depth);
        for (ask, asked) in [(Ask::Put, "put"), (Ask::Get, "get")] {
            let requests = crowd.requests() as f64;
            let name = |what: &str| format!("process: {asked} {connections} x {depth}: {what}");
            let mut add = |what: &str, count: u64, groups: u64| {
                let value = count as f64 / (requests * groups as f64);
                calls.figures.push(Figure { name: name(what), value });
            };
            let own = count_own(&server, &client, &mut crowd, ask);
            assert!(own.enters > 0, "a server that answers enters its ring: it does not count");
            add(OWN_ENTERS, own.enters, GROUPS);
            if ask == Ask::Put {
                assert!(own.synced_writes > 0, "puts are synced: they are not counted");
                add(SYNCED_WRITES, own.synced_writes, GROUPS);
            }
            match count_calls(&server, &mut crowd, ask) {
                Ok(counts) => {
                    assert!(counts.enters > 0, "a server that answers enters its ring: it is not seen");
                    add(ENTERS, counts.enters, 1);
                    add(OTHERS, counts.others.values().sum(), 1);
                    if !counts.others.is_empty() {
                        println!("{}, by number: {:?}", name(OTHERS), counts.others);
                    }
                }
                Err(reason) => {
                    let names = [ENTERS, OTHERS].map(|what| (name(what), reason.clone()));
                    calls.skipped.extend(names);
                }
            }
        }
    }
    drop(client);
    server.stop();
    calls
}

/// What a server counts of itself.
#[derive(Debug, Clone, Copy)]
struct Own {
    enters: u64,
    /// Log blocks and other syncs of the log.
    synced_writes: u64,
}

impl Own {
    fn of(client: &Client) -> Self {
        Self {
            enters: Server::number(client, &["runtime", "ring_enters"]),
            synced_writes: Server::storage(client, "log_commits") + Server::storage(client, "log_syncs"),
        }
    }
}

/// Runs the groups with nobody watching. The few calls that asking the server takes are among the
/// counted.
fn count_own(server: &Server, client: &Client, crowd: &mut Crowd, ask: Ask) -> Own {
    let mut group = || {
        server.pause();
        crowd.send(ask);
        server.resume();
        let start = Instant::now();
        while !crowd.take_answers() {
            assert!(start.elapsed() < PATIENCE, "the server does not answer");
            thread::sleep(LOOK_DELAY);
        }
    };
    (0..WARM_UP).for_each(|_| group());
    let before = Own::of(client);
    (0..GROUPS).for_each(|_| group());
    let after = Own::of(client);
    Own { enters: after.enters - before.enters, synced_writes: after.synced_writes - before.synced_writes }
}

/// Runs the groups and counts every call, or says why that is not possible here. The calls of one group.
fn count_calls(server: &Server, crowd: &mut Crowd, ask: Ask) -> Result<CallCounts, String> {
    let core = Core::stop(server)?;
    let mut group = |_| {
        crowd.send(ask);
        core.run_until(|| crowd.take_answers()).expect("a thread that was stopped can be followed")
    };
    (0..WARM_UP).map(&mut group).for_each(drop);
    let groups = (0..GROUPS).map(group);
    Ok(groups.min_by_key(CallCounts::all).expect("there are groups"))
}

/// System calls of a core.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct CallCounts {
    enters: u64,
    /// By number.
    others: BTreeMap<u64, u64>,
}

/// The thread of a server's only core, stopped, until it is dropped. For the thread that has stopped it.
struct Core {
    thread: Pid,
}

impl Core {
    /// Stops it where it is.
    fn stop(server: &Server) -> Result<Self, String> {
        if !cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
            return Err("system calls are told apart on x86_64 with the GNU C library only".to_owned());
        }
        let thread = core_thread(server.pid()).ok_or("the core's thread is not to be found")?;
        let refused = |error: Errno| format!("ptrace is refused here: {error}");
        ptrace::seize(thread, ptrace::Options::PTRACE_O_TRACESYSGOOD).map_err(refused)?;
        let core = Self { thread };
        core.interrupt().map_err(refused)?;
        Ok(core)
    }

    fn interrupt(&self) -> Result<(), Errno> {
        ptrace::interrupt(self.thread)?;
        self.wait(|| false).map(drop)
    }

    /// Lets it run, and stops it as soon as `done`, which is looked at after every call. The calls that
    /// it has made.
    fn run_until(&self, mut done: impl FnMut() -> bool) -> Result<CallCounts, Errno> {
        let mut counts = CallCounts::default();
        let mut signal = None;
        loop {
            ptrace::syscall(self.thread, signal.take())?;
            match self.wait(&mut done)? {
                None => return self.interrupt().map(|()| counts),
                Some(WaitStatus::PtraceSyscall(_)) => {
                    if let Some(call) = entered(self.thread)? {
                        counts.add(call);
                    } else if done() {
                        return Ok(counts);
                    }
                }
                Some(WaitStatus::Stopped(_, by)) => signal = Some(by).filter(|by| *by != Signal::SIGTRAP),
                Some(WaitStatus::PtraceEvent(..)) => {}
                Some(ended) => panic!("the server's core has ended: {ended:?}"),
            }
        }
    }

    /// Waits until it stops; `None` when it is `done` while it runs.
    fn wait(&self, mut done: impl FnMut() -> bool) -> Result<Option<WaitStatus>, Errno> {
        let start = Instant::now();
        loop {
            match waitpid(self.thread, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG))? {
                WaitStatus::StillAlive if done() => return Ok(None),
                WaitStatus::StillAlive => {
                    assert!(start.elapsed() < PATIENCE, "the server's core does nothing");
                    thread::sleep(LOOK_DELAY);
                }
                stopped => return Ok(Some(stopped)),
            }
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // Cannot fail but for a thread that has ended, which shows soon enough.
        let _ = ptrace::detach(self.thread, None);
    }
}

impl CallCounts {
    fn all(&self) -> u64 {
        self.enters + self.others.values().sum::<u64>()
    }

    fn add(&mut self, call: u64) {
        match i64::try_from(call) {
            Ok(libc::SYS_io_uring_enter) => self.enters += 1,
            Ok(libc::SYS_clock_gettime) => {}
            _ => *self.others.entry(call).or_default() += 1,
        }
    }
}

/// The thread of core 0, by its name.
fn core_thread(pid: u32) -> Option<Pid> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let named = threads.flatten().find(|thread| {
        fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.trim() == "pinion-0")
    })?;
    named.file_name().to_str()?.parse().ok().map(Pid::from_raw)
}

/// The number of the system call that a thread is about to make; `None` when it comes back from one.
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
fn entered(thread: Pid) -> Result<Option<u64>, Errno> {
    let entry = ptrace::syscall_info(thread)?.op == libc::PTRACE_SYSCALL_INFO_ENTRY;
    if entry { ptrace::getregs(thread).map(|registers| Some(registers.orig_rax)) } else { Ok(None) }
}

#[cfg(not(all(target_arch = "x86_64", target_env = "gnu")))]
fn entered(_: Pid) -> Result<Option<u64>, Errno> {
    Err(Errno::ENOSYS)
}
