//! What a runtime is made of, its limits, and why it may not start.

use std::io;
use std::net::SocketAddr;

use crate::sys::online_cpus;

/// Settings of a [`Runtime`](crate::Runtime). Every core has the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// The CPU of each core, in order; a CPU may appear more than once.
    pub cpus: Vec<usize>,
    /// The one address that every core accepts connections from; `None` listens on nothing.
    pub listen: Option<SocketAddr>,
    /// Connections that may wait to be accepted. The kernel cuts this at `net.core.somaxconn`.
    pub listen_backlog: u32,
    /// Receive buffers per core: a power of two, at most 32,768.
    pub receive_buffers: u16,
    /// Size of a receive buffer in bytes; also the largest chunk a socket gives.
    pub receive_buffer_bytes: u32,
    /// Entries of each core's submission queue: a power of two. More operations may be in flight.
    pub ring_entries: u32,
    /// Messages that may wait for one core.
    pub message_queue_max: usize,
    /// Threads for off-core jobs, for all cores together.
    pub off_core_threads: usize,
}

impl RuntimeConfig {
    /// The usual settings for cores on these CPUs.
    pub fn new(cpus: Vec<usize>) -> Self {
        Self {
            cpus,
            listen: None,
            listen_backlog: 4096,
            receive_buffers: 256,
            receive_buffer_bytes: 16 << 10,
            ring_entries: 1024,
            message_queue_max: 4096,
            off_core_threads: 2,
        }
    }

    /// Refuses what cannot work.
    pub(crate) fn check(&self) -> Result<(), RuntimeError> {
        let bad = |what| Err(RuntimeError::BadConfig { what });
        if self.cpus.is_empty() {
            return bad("at least one CPU is needed");
        }
        if !self.receive_buffers.is_power_of_two() || self.receive_buffers > 1 << 15 {
            return bad("receive_buffers is a power of two from 1 to 32768");
        }
        if self.receive_buffer_bytes == 0 || self.receive_buffer_bytes > 1 << 24 {
            return bad("receive_buffer_bytes is from 1 to 16 MiB");
        }
        if !self.ring_entries.is_power_of_two() || self.ring_entries > 1 << 14 {
            return bad("ring_entries is a power of two from 1 to 16384");
        }
        if self.message_queue_max == 0 || self.off_core_threads == 0 {
            return bad("message_queue_max and off_core_threads are at least 1");
        }
        let online = online_cpus();
        match self.cpus.iter().find(|cpu| !online.contains(cpu)) {
            Some(cpu) => Err(RuntimeError::BadCpu { cpu: *cpu, online }),
            None => Ok(()),
        }
    }
}

impl Default for RuntimeConfig {
    /// One core on every CPU this process may use.
    fn default() -> Self {
        Self::new(online_cpus())
    }
}

/// Why a runtime does not start. Nothing runs and nothing is bound after any of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// A setting is out of its range.
    #[error("bad runtime setting: {what}")]
    BadConfig {
        /// The rule it breaks.
        what: &'static str,
    },
    /// A CPU does not exist or this process may not run on it.
    #[error("CPU {cpu} is not available to this process; it may use {online:?}")]
    BadCpu {
        /// The CPU asked for.
        cpu: usize,
        /// The CPUs there are.
        online: Vec<usize>,
    },
    /// Another process listens on the address.
    #[error("{addr} is already in use: another process listens there; stop it or choose another port")]
    PortInUse {
        /// The address.
        addr: SocketAddr,
    },
    /// The address cannot be listened on for another reason.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel has io_uring but not for us.
    #[error(
        "io_uring is forbidden here ({source}): set the sysctl kernel.io_uring_disabled to 0 or, in a \
         container, allow the io_uring system calls (with Docker: --security-opt seccomp=unconfined \
         or a seccomp profile that includes them)"
    )]
    IoUringForbidden {
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel lacks something that the ring needs.
    #[error("the kernel ({release}) is too old: Linux 6.1 or newer is needed")]
    KernelTooOld {
        /// What `uname -r` says.
        release: String,
    },
    /// Too little memory may be locked.
    #[error(
        "only {have} bytes of memory may be locked, {need} are needed: raise the limit (ulimit -l {kib}, \
         LimitMEMLOCK= of a systemd unit, --ulimit memlock= of Docker)",
        kib = need.div_ceil(1024)
    )]
    MemlockTooLow {
        /// What is allowed, in bytes.
        have: u64,
        /// What is needed, in bytes.
        need: u64,
    },
    /// A core could not be set up.
    #[error("core {core} does not start: {reason}")]
    Core {
        /// Its number.
        core: usize,
        /// What went wrong.
        reason: String,
    },
    /// A system call that never fails on a healthy system did.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}
