//! What one core counts: plain numbers and one latency histogram per class of operation.
//!
//! Nothing is shared between cores: server info gathers copies by message. Recording a latency
//! allocates nothing; the histograms have fixed bounds and two significant digits (about 30 KiB
//! each).

use std::cell::{Cell, RefCell};

use hdrhistogram::Histogram;
use pinion_engine::Quarters;
use pinion_protocol::Opcode;

use crate::buckets;

/// Longest latency that is told apart, in nanoseconds: a minute.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Classes of operations whose latencies are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OperationClass {
    /// GET, STAT.
    Read,
    /// MULTI_GET.
    MultiRead,
    /// PUT, DELETE and their conditional forms, UPDATE.
    Write,
    /// BATCH.
    Batch,
    /// SCAN.
    Scan,
    /// Everything else.
    Other,
}

impl OperationClass {
    pub(crate) const ALL: [Self; 6] =
        [Self::Read, Self::MultiRead, Self::Write, Self::Batch, Self::Scan, Self::Other];

    pub(crate) const fn of(opcode: Opcode) -> Self {
        match opcode {
            Opcode::Get | Opcode::Stat => Self::Read,
            Opcode::MultiGet => Self::MultiRead,
            Opcode::Put | Opcode::Delete | Opcode::PutIf | Opcode::DeleteIf | Opcode::Update => Self::Write,
            Opcode::Batch => Self::Batch,
            Opcode::Scan => Self::Scan,
            _ => Self::Other,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::MultiRead => "multi_read",
            Self::Write => "write",
            Self::Batch => "batch",
            Self::Scan => "scan",
            Self::Other => "other",
        }
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The numbers of one core, counted since its start.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $($(#[$doc])* pub(crate) $name: Cell<u64>,)*
        }

        impl Counters {
            /// Names and values, in a fixed order.
            pub(crate) fn values(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)*]
            }
        }
    };
}

counters! {
    /// Connections accepted by this core.
    connections_accepted,
    /// Connections answered with TOO_MANY_CONNECTIONS or dropped at once.
    connections_refused,
    /// Connections handed to the core that HELLO named.
    connections_handed_off,
    /// Connections taken over from other cores.
    connections_adopted,
    /// Connections that began with RESP.
    connections_resp,
    /// Connections that did not finish HELLO in time.
    hello_timeouts,
    /// Accepting failed (out of descriptors, for example).
    accept_errors,
    /// Bytes received.
    received_bytes,
    /// Chunks received.
    received_chunks,
    /// Bytes sent.
    sent_bytes,
    /// Sends started: answers of one connection and turn share one.
    sends,
    /// Frames received.
    frames,
    /// Frames that spanned receive buffers and had to be gathered.
    frames_gathered,
    /// Connections closed because what they sent was no frame.
    frames_bad,
    /// Incomplete frames that had to go because all of them were too many bytes.
    gathers_evicted,
    /// Connections closed because their peers took nothing while too many answers waited.
    connections_stuck,
    /// Commands of RESP connections received.
    commands,
    /// Commands of RESP connections that waited for an earlier one on their key.
    commands_delayed,
    /// RESP connections closed because what they sent was no command.
    commands_bad,
    /// Answers given.
    answers,
    /// Answers that were errors.
    errors,
    /// Requests refused as OVERLOADED.
    overloaded,
    /// Requests, and parts forwarded from other cores, whose deadline had passed when they were looked at.
    deadlines_missed,
    /// Requests forwarded to another core of the node.
    forwarded,
    /// Requests taken from other cores of the node.
    forwarded_here,
    /// Gets answered without reading a table.
    gets_in_memory,
    /// Gets that read a table.
    gets_from_disk,
    /// Times that a connection was left unread because it had too much outstanding.
    receive_pauses,
    /// Messages that found the queue to another core full and waited.
    messages_delayed,
}

/// Adds to a counter.
pub(crate) fn add(counter: &Cell<u64>, amount: u64) {
    counter.set(counter.get().wrapping_add(amount));
}

/// Turns of a connection that hold its core for less are no stalls, in nanoseconds.
const STALL_NS_MIN: u64 = 100_000;

/// Times of one core.
#[derive(Debug)]
pub(crate) struct Latencies {
    /// From the receipt of a request until its answer's send starts.
    classes: RefCell<[Histogram<u64>; OperationClass::ALL.len()]>,
    /// From the receipt of a request until it is dealt with, but for those that are dealt with at once.
    queue_delays: RefCell<Quarters>,
    undelayed: Cell<u64>,
    /// Turns of connections that held the core for [`STALL_NS_MIN`] or longer.
    stalls: RefCell<Quarters>,
}

/// Copies of a core's histograms.
#[derive(Debug)]
pub(crate) struct LatencyReport {
    /// By class.
    pub(crate) classes: Vec<Histogram<u64>>,
    pub(crate) queue_delay: Histogram<u64>,
    pub(crate) stall: Histogram<u64>,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        Self {
            classes: RefCell::new(std::array::from_fn(|_| empty_histogram())),
            queue_delays: RefCell::default(),
            undelayed: Cell::new(0),
            stalls: RefCell::default(),
        }
    }

    /// Records that `count` requests were dealt with so many nanoseconds after they were received.
    #[inline]
    pub(crate) fn queued(&self, delay_ns: u64, count: u64) {
        if delay_ns == 0 {
            add(&self.undelayed, count);
        } else {
            self.queue_delays.borrow_mut().count(delay_ns, count);
        }
    }

    /// Records that a turn of a connection held its core for so many nanoseconds.
    #[inline]
    pub(crate) fn turn(&self, held_ns: u64) {
        if held_ns >= STALL_NS_MIN {
            self.stalls.borrow_mut().count(held_ns, 1);
        }
    }

    /// Records `count` operations that took so many nanoseconds each.
    pub(crate) fn record(&self, class: OperationClass, took_ns: u64, count: u64) {
        self.classes.borrow_mut()[class as usize].saturating_record_n(took_ns.max(1), count);
    }

    /// A copy to be sent to another core.
    pub(crate) fn copy(&self) -> LatencyReport {
        let mut queue_delay = buckets::histogram([&*self.queue_delays.borrow()]);
        queue_delay.saturating_record_n(1, self.undelayed.get());
        let stall = buckets::histogram([&*self.stalls.borrow()]);
        LatencyReport { classes: self.classes.borrow().to_vec(), queue_delay, stall }
    }
}

/// An empty histogram with the bounds that all share, so that they can be added.
pub(crate) fn empty_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 2).expect("the bounds are constants that fit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_index_their_histograms() {
        let latencies = Latencies::new();
        for (index, class) in OperationClass::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, index);
            latencies.record(class, 10_000, index as u64);
        }
        let copy = latencies.copy().classes;
        assert!(copy.iter().enumerate().all(|(index, histogram)| histogram.len() == index as u64));
        latencies.record(OperationClass::Read, u64::MAX, 1);
        assert_eq!(latencies.copy().classes[0].len(), 1);
    }

    #[test]
    fn what_did_not_wait_counts_among_what_did() {
        let latencies = Latencies::new();
        latencies.queued(0, 98);
        latencies.queued(5_000_000, 2);
        latencies.turn(STALL_NS_MIN);
        latencies.turn(STALL_NS_MIN - 1);
        let copy = latencies.copy();
        assert_eq!((copy.queue_delay.len(), copy.stall.len()), (100, 1));
        assert_eq!(copy.queue_delay.value_at_percentile(98.0), 1);
        assert!(copy.queue_delay.max() >= 5_000_000);
    }

    #[test]
    fn counters_have_names() {
        let counters = Counters::default();
        add(&counters.forwarded, 3);
        assert!(counters.values().contains(&("forwarded", 3)));
    }
}
