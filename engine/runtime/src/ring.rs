//! One io_uring and the rules of driving it.
//!
//! Flags: SINGLE_ISSUER and DEFER_TASKRUN (completions are made only when this thread enters the
//! kernel, so they never interrupt a task), TASKRUN_FLAG (user space sees whether entering would
//! make any). One enter makes at most about 20 completions, so "nothing more" is true only when
//! the flag is clear, nothing is left to submit and the completion queue is empty.
//!
//! To sleep, the ring signals an eventfd. The kernel signals it only for the first deferred item
//! of an empty list, so [`Ring::quiet_with_wakeups`] enables the eventfd first and then enters
//! until the list is known to be empty: whatever comes later is a first item and signals.
//!
//! The kernel clears TASKRUN before it runs deferred items, in parts. An item that is added while the
//! last part runs sets the flag and is run with it: the flag then stays with nothing behind it, and
//! entering does not clear it, because there is nothing to run. [`Ring::quiet_with_wakeups`] gives
//! the kernel an item to run then; without it the core would spin until something completes.
//!
//! Interrupted or refused enters (EINTR, EAGAIN, EBUSY) are not errors but "not yet": the caller
//! reaps what there is and comes back. Entries that find the submission queue full are submitted
//! at once; if the kernel takes none, they wait in a backlog, in order.
#![expect(unsafe_code, reason = "submission entries carry addresses; see each SAFETY argument")]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

/// Completions taken from the ring at a time.
pub(crate) const REAP_MAX: usize = 128;

/// `IORING_ENTER_GETEVENTS`: run deferred work and flush an overflown completion queue.
const GET_EVENTS: u32 = 1;

/// One completion.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Completion {
    pub(crate) user_data: u64,
    /// Result of the operation, or a negated error number.
    pub(crate) result: i32,
    flags: u32,
}

impl Completion {
    /// Whether the operation goes on and will complete again.
    pub(crate) fn more(self) -> bool {
        cqueue::more(self.flags)
    }

    /// The receive buffer that holds the data.
    pub(crate) fn buffer(self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

/// How an enter went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entered {
    /// The kernel took everything and did what there was to do, up to its limit per enter.
    Done,
    /// There was nothing to enter for.
    Skipped,
    /// Interrupted or short of something: come back later.
    NotYet,
}

/// User data of entries whose completion concerns nobody (cancellations, alarm updates).
pub(crate) const NOBODY: u64 = u64::MAX;

/// User data of the alarm.
pub(crate) const ALARM: u64 = u64::MAX - 1;

/// What a ring has done since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RingCounters {
    /// Times the kernel was entered: system calls.
    pub(crate) enters: u64,
    /// Entries queued: operations, cancellations, alarms.
    pub(crate) entries: u64,
    /// Completions taken.
    pub(crate) completions: u64,
}

/// The ring of one core. Made, used and dropped on that core's thread.
pub(crate) struct Ring {
    uring: IoUring,
    counters: RingCounters,
    backlog: VecDeque<squeue::Entry>,
    /// When the alarm in flight completes, in nanoseconds of the monotonic clock.
    alarm: Option<u64>,
    /// What alarm entries point to; the kernel copies it when they are submitted.
    alarm_time: Box<types::Timespec>,
}

impl Ring {
    /// A ring with a submission queue of `entries` and a completion queue of four times that.
    pub(crate) fn new(entries: u32) -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(entries * 4)
            .setup_clamp()
            .dontfork()
            .build(entries)?;
        if !uring.params().is_feature_nodrop() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(Self {
            uring,
            counters: RingCounters::default(),
            backlog: VecDeque::new(),
            alarm: None,
            alarm_time: Box::default(),
        })
    }

    /// Has completions signalled on `eventfd`, disabled until [`Ring::quiet_with_wakeups`].
    pub(crate) fn register_eventfd(&mut self, eventfd: BorrowedFd<'_>) -> io::Result<()> {
        self.disable_wakeups();
        self.uring.submitter().register_eventfd(eventfd.as_raw_fd())
    }

    /// Gives the kernel a ring of receive buffers at `address`.
    ///
    /// # Safety
    /// `address` is page-aligned and valid for `entries` buffer entries, and the buffers they name
    /// are valid, until this ring is dropped and no operation is in flight.
    pub(crate) unsafe fn register_buffers(
        &mut self,
        address: u64,
        entries: u16,
        group: u16,
    ) -> io::Result<()> {
        // SAFETY: the caller vouches for the address and its lifetime.
        unsafe { self.uring.submitter().register_buf_ring_with_flags(address, entries, group, 0) }
    }

    /// Queues an entry; the next enter submits it.
    ///
    /// # Safety
    /// The memory that the entry points to stays valid and untouched until its last completion.
    pub(crate) unsafe fn push(&mut self, entry: squeue::Entry) {
        self.counters.entries += 1;
        if self.backlog.is_empty() {
            // SAFETY: passed on to the caller.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return;
            }
            // Full: hand over what there is, without reaping, and try again.
            let entered = self.enter(0);
            // SAFETY: passed on to the caller.
            if entered == Entered::Done && unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    /// Submits what is queued now, not at the next turn. What the kernel does not take stays queued.
    pub(crate) fn submit(&mut self) {
        self.submit_backlog();
        self.enter(0);
    }

    /// Submits what is queued and lets the kernel make completions, if there is reason to.
    pub(crate) fn enter_if_needed(&mut self) -> Entered {
        self.submit_backlog();
        let submission = self.uring.submission();
        if submission.is_empty() && !submission.taskrun() && !submission.cq_overflow() {
            return Entered::Skipped;
        }
        drop(submission);
        self.enter(GET_EVENTS)
    }

    /// Moves up to [`REAP_MAX`] completions into `batch`.
    pub(crate) fn reap(&mut self, batch: &mut Vec<Completion>) {
        let before = batch.len();
        let completions = self.uring.completion();
        batch.extend(completions.take(REAP_MAX).map(|entry| Completion {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
        self.counters.completions += (batch.len() - before) as u64;
    }

    /// What it has done so far.
    pub(crate) fn counters(&self) -> RingCounters {
        self.counters
    }

    /// Whether entries wait for an enter.
    pub(crate) fn has_unsubmitted(&mut self) -> bool {
        !self.backlog.is_empty() || !self.uring.submission().is_empty()
    }

    /// Turns wake-ups on and looks once more. True: the ring is quiet, and whatever completes from
    /// now on signals the eventfd. False: there is, or may be, something to do; wake-ups are off.
    pub(crate) fn quiet_with_wakeups(&mut self) -> bool {
        // Each round runs the deferred items there are, up to the kernel's limit.
        const ROUNDS_MAX: usize = 4;
        // After so many with nothing to reap, the flag has nothing behind it.
        const ROUNDS_STALE: usize = 2;
        self.uring.completion().enable_eventfd();
        for round in 1..=ROUNDS_MAX {
            self.submit_backlog();
            if self.enter(GET_EVENTS) == Entered::NotYet || !self.uring.completion().is_empty() {
                break;
            }
            let submission = self.uring.submission();
            let taskrun = submission.taskrun();
            let quiet = submission.is_empty() && !taskrun && !submission.cq_overflow();
            drop(submission);
            if quiet && self.backlog.is_empty() && self.uring.completion().is_empty() {
                return true;
            }
            if taskrun && round == ROUNDS_STALE {
                self.end_alarm();
            }
        }
        self.disable_wakeups();
        false
    }

    /// Has the alarm complete now, which is a deferred item: running it clears TASKRUN.
    fn end_alarm(&mut self) {
        if self.alarm.is_none() {
            self.set_alarm(u64::MAX);
        }
        let entry = opcode::TimeoutRemove::new(ALARM).build().user_data(NOBODY);
        // SAFETY: the entry points to no memory.
        unsafe { self.push(entry) };
    }

    /// Sees to it that something completes at `nanos` of the monotonic clock or earlier.
    pub(crate) fn set_alarm(&mut self, nanos: u64) {
        if self.alarm.is_some_and(|alarm| alarm <= nanos) {
            return;
        }
        const NANOS: u64 = 1_000_000_000;
        // The kernel takes seconds as a signed number; the far future is far enough.
        let seconds = (nanos / NANOS).min(i64::MAX as u64 / NANOS);
        *self.alarm_time = types::Timespec::new().sec(seconds).nsec((nanos % NANOS) as u32);
        let time = &raw const *self.alarm_time;
        let flags = types::TimeoutFlags::ABS;
        let entry = match self.alarm {
            None => opcode::Timeout::new(time).flags(flags).build().user_data(ALARM),
            // Completes as not found if the alarm has just gone off; its completion says so then.
            Some(_) => opcode::TimeoutUpdate::new(ALARM, time).flags(flags).build().user_data(NOBODY),
        };
        self.alarm = Some(nanos);
        // SAFETY: the entry points to the boxed time, which lives as long as the ring; the kernel
        // copies it inside the enter that submits the entry, so changing it later is harmless.
        unsafe { self.push(entry) };
    }

    /// The alarm has completed.
    pub(crate) fn alarm_ended(&mut self) {
        self.alarm = None;
    }

    /// Stops signalling the eventfd.
    pub(crate) fn disable_wakeups(&mut self) {
        self.uring.completion().disable_eventfd();
    }

    /// Blocks until something completes or `timeout` is over. For shutting down only.
    pub(crate) fn wait(&mut self, timeout: Duration) {
        self.submit_backlog();
        let timespec = types::Timespec::from(timeout);
        let arguments = types::SubmitArgs::new().timespec(&timespec);
        // An error (time over, interrupted) means that there may be nothing to reap.
        drop(self.uring.submitter().submit_with_args(1, &arguments));
    }

    fn submit_backlog(&mut self) {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: whoever pushed it vouched for the entry until its last completion.
            if unsafe { self.uring.submission().push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
    }

    fn enter(&mut self, flags: u32) -> Entered {
        self.counters.enters += 1;
        let queued = self.uring.submission().len() as u32;
        // SAFETY: no argument structure is passed, and the flags ask for nothing that needs one.
        let entered = unsafe { self.uring.submitter().enter::<libc::sigset_t>(queued, 0, flags, None) };
        match entered {
            Ok(taken) if taken as u32 == queued => Entered::Done,
            Ok(_) => Entered::NotYet,
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => Entered::NotYet,
                // Nothing on this core can go on without its ring.
                _ => panic!("entering the io_uring failed: {error}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ptr;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const TASKRUN: u32 = 1 << 2;

    /// Sets the flag as the kernel leaves it when it has run the item that it stands for.
    fn leave_taskrun_set(ring: &Ring) {
        // `sq_off.flags` of `struct io_uring_params`, which `Parameters` is a transparent wrapper of.
        const FLAGS_OFFSET_AT: usize = 56;
        let params = ptr::from_ref(ring.uring.params()).cast::<u8>();
        // SAFETY: the structure is 120 bytes long, and this field is four of them.
        let offset = unsafe { params.add(FLAGS_OFFSET_AT).cast::<u32>().read_unaligned() } as usize;
        let (protection, descriptor) = (libc::PROT_READ | libc::PROT_WRITE, ring.uring.as_raw_fd());
        // SAFETY: a new mapping of the ring's first page at a place that the kernel chooses.
        let rings = unsafe { libc::mmap(ptr::null_mut(), 4096, protection, libc::MAP_SHARED, descriptor, 0) };
        assert_ne!(rings, libc::MAP_FAILED, "mapping the ring: {}", io::Error::last_os_error());
        assert!(offset + 4 <= 4096, "the flags lie in the first page");
        // SAFETY: the flags lie in the mapping, aligned; the kernel changes them atomically too.
        let flags = unsafe { AtomicU32::from_ptr(rings.cast::<u8>().add(offset).cast()) };
        flags.fetch_or(TASKRUN, Ordering::AcqRel);
        // SAFETY: nothing refers to the mapping any more.
        assert_eq!(unsafe { libc::munmap(rings, 4096) }, 0);
    }

    fn quiet_within(ring: &mut Ring, tries: usize) -> bool {
        let mut batch = Vec::new();
        for _ in 0..tries {
            if ring.quiet_with_wakeups() {
                return true;
            }
            batch.clear();
            ring.reap(&mut batch);
            if batch.iter().any(|completion| completion.user_data == ALARM) {
                ring.alarm_ended();
            }
        }
        false
    }

    #[test]
    fn a_flag_with_nothing_behind_it_does_not_keep_the_core_awake() {
        let mut ring = Ring::new(8).expect("a ring");
        assert!(quiet_within(&mut ring, 1), "a new ring is quiet");
        for alarm in [None, Some(u64::MAX / 2)] {
            if let Some(alarm) = alarm {
                ring.set_alarm(alarm);
            }
            leave_taskrun_set(&ring);
            assert!(ring.uring.submission().taskrun(), "the flag was found");
            assert!(quiet_within(&mut ring, 3), "quiet with the alarm at {alarm:?}");
            assert_eq!(ring.alarm, None, "whoever sleeps next sets it anew");
        }
    }
}
