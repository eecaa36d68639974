//! Memory that clients can make a core hold, and who goes when it is too much: answers that wait
//! to be sent, and frames that are not complete.
//!
//! *Answers.* Everything that waits on a connection counts into one sum of the core, and so does
//! what is gathered for a large answer. Each connection has an equal share of `core_out_bytes_max`
//! (and at most `connection_out_bytes_max`); over its share it is left unread. One answer may pass
//! the share, and reads of tables may all come at once, so the sum can still reach the bound. Then
//! reads get OVERLOADED, and of the connections whose peers have taken nothing of a send for
//! `send_stall_ms_max`, those that have waited longest are closed until a quarter is free. What a
//! closed one was being sent leaves the sum at once and memory when the environment gives up sending
//! (within 5 s). Answers to writes are small and always given.
//!
//! *Incomplete frames.* Over `core_gather_bytes_max` the connection goes whose frame has been
//! incomplete for longest: an honest frame is complete soon, so those who keep frames open pay, not
//! those who come with another. It is told OVERLOADED, and closed.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use pinion_env::Monotonic;

use crate::connection::Connection;
use crate::core::{Core, Ticket};
use crate::counters::{OperationClass, add};
use crate::message::ServerEnv;

/// The smallest share of a connection in a core's answers, in bytes.
const SHARE_BYTES_MIN: u64 = 16 << 10;

/// How often connections that are stuck are looked for, at most.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The sums of one core.
#[derive(Debug, Default)]
pub(crate) struct Pressure {
    /// Bytes of answers: gathered, waiting or being sent.
    out_bytes: Cell<u64>,
    /// Bytes of answers that may wait on one connection before it is left unread.
    out_share: Cell<usize>,
    /// When connections that are stuck were looked for last.
    looked: Cell<Monotonic>,
    /// Bytes of frames that are not complete yet, over all connections.
    gathered_bytes: Cell<u64>,
}

impl Pressure {
    /// Bytes of answers: gathered, waiting or being sent.
    pub(crate) fn answer_bytes(&self) -> u64 {
        self.out_bytes.get()
    }

    /// Bytes of frames that are not complete.
    pub(crate) fn gathered_bytes(&self) -> u64 {
        self.gathered_bytes.get()
    }
}

impl<E: ServerEnv> Core<E> {
    /// Bytes of answers that may wait on one connection before it is left unread.
    pub(crate) fn out_share(&self) -> usize {
        self.pressure.out_share.get()
    }

    /// How long a connection's out buffer may be for one more answer to go there without a look at
    /// anything else: within its share, and within the core's sum.
    pub(crate) fn out_room(&self, connection: &Connection) -> usize {
        let (sending, counted) = (connection.sending_bytes.get(), connection.counted_bytes.get() as u64);
        let others = self.pressure.out_bytes.get().saturating_sub(counted) + sending as u64;
        let left = self.limits().core_out_bytes_max.saturating_sub(others);
        self.out_share().saturating_sub(sending).min(usize::try_from(left).unwrap_or(usize::MAX))
    }

    /// Whether too much is outstanding on a connection to take more requests; once `paused`, until half of its
    /// bytes have left.
    pub(crate) fn is_over(&self, connection: &Connection, paused: bool) -> bool {
        let (out, out_max) = (connection.held_bytes(), self.out_share());
        connection.requests.get() >= self.limits().connection_requests_max
            || out > if paused { out_max / 2 } else { out_max }
    }

    /// Divides the core's bytes of answers anew. Called when a connection comes or goes.
    pub(crate) fn share_out(&self) {
        let limits = self.limits();
        let share = limits.core_out_bytes_max / u64::from(self.connections.open().max(1));
        let share = share.max(SHARE_BYTES_MIN).min(u64::from(limits.connection_out_bytes_max));
        self.pressure.out_share.set(usize::try_from(share).unwrap_or(usize::MAX));
    }

    /// Brings the core's sum up to date with what waits on a connection.
    pub(crate) fn count_out(&self, connection: &Connection) {
        let held = connection.held_bytes();
        let before = connection.counted_bytes.replace(held);
        self.pressure.out_bytes.set(self.pressure.out_bytes.get() + held as u64 - before as u64);
    }

    /// A connection has ended: nothing waits on it any more.
    pub(crate) fn forget_bytes(&self, connection: &Connection) {
        let (out, gathered) = (connection.counted_bytes.take(), connection.gathered_bytes.take());
        self.pressure.out_bytes.set(self.pressure.out_bytes.get() - out as u64);
        self.pressure.gathered_bytes.set(self.pressure.gathered_bytes.get() - gathered as u64);
    }

    /// Whether no more answers may wait than do.
    pub(crate) fn is_out_full(&self) -> bool {
        self.pressure.out_bytes.get() >= self.limits().core_out_bytes_max
    }

    /// Whether a read must be refused because too many answers wait; if so it has been answered.
    pub(crate) fn refuse_full(&self, ticket: &Ticket) -> bool {
        let reads =
            matches!(ticket.class, OperationClass::Read | OperationClass::MultiRead | OperationClass::Scan);
        reads && self.refuse_if_full(ticket)
    }

    /// Whether a request that will be answered with a value must be refused because too many answers
    /// wait; if so it has been answered.
    pub(crate) fn refuse_if_full(&self, ticket: &Ticket) -> bool {
        let refused = self.is_out_full();
        if refused {
            self.close_stuck();
            self.refuse_overloaded(ticket, "too many bytes of answers wait to be sent");
        }
        refused
    }

    /// Closes connections whose sends are stuck, longest first, until a quarter of the sum is free.
    fn close_stuck(&self) {
        let now = self.env.now();
        if now < self.pressure.looked.get().after(LOOK_EVERY) {
            return;
        }
        self.pressure.looked.set(now);
        let stall = Duration::from_millis(u64::from(self.limits().send_stall_ms_max));
        let mut stuck = Vec::new();
        self.connections.for_each(|connection| {
            if connection.sending_bytes.get() > 0
                && connection.sending_since.get().after(stall) <= now
                && !connection.is_doomed()
            {
                stuck.push((connection.sending_since.get(), connection.id, connection.held_bytes() as u64));
            }
        });
        stuck.sort_unstable_by_key(|(since, ..)| *since);
        let max = self.limits().core_out_bytes_max;
        let mut left = self.pressure.out_bytes.get();
        for (_, id, bytes) in stuck {
            if left <= max - max / 4 {
                break;
            }
            left = left.saturating_sub(bytes);
            self.connections.with(id, Connection::doom);
            add(&self.counters.connections_stuck, 1);
        }
    }

    /// Brings the core's sum up to date with a connection's incomplete frame of `gathered` bytes.
    /// `begun`: when it began, if it is another frame than before. Over the bound the frame that has
    /// waited longest has to go, whosever it is: see [`Connection::evicted`].
    pub(crate) fn count_gathered(&self, connection: &Connection, gathered: usize, begun: Option<Monotonic>) {
        if let Some(begun) = begun {
            connection.gathering_since.set(begun);
        }
        let before = connection.gathered_bytes.replace(gathered);
        let sum = self.pressure.gathered_bytes.get() + gathered as u64 - before as u64;
        self.pressure.gathered_bytes.set(sum);
        if gathered > before && sum > self.limits().core_gather_bytes_max {
            self.evict_gathering();
        }
    }

    fn evict_gathering(&self) {
        let mut oldest = None;
        self.connections.for_each(|connection| {
            if connection.gathered_bytes.get() > 0 {
                let this = (connection.gathering_since.get(), connection.id);
                oldest = Some(oldest.map_or(
                    this,
                    |oldest: (Monotonic, _)| {
                        if this.0 < oldest.0 { this } else { oldest }
                    },
                ));
            }
        });
        let Some((_, id)) = oldest else { return };
        self.connections.with(id, |connection| {
            let bytes = connection.gathered_bytes.take();
            self.pressure.gathered_bytes.set(self.pressure.gathered_bytes.get() - bytes as u64);
            connection.evict();
        });
        add(&self.counters.gathers_evicted, 1);
    }
}

/// Bytes of an answer in the making. They count into the core's sum until this is dropped.
pub(crate) struct AnswerBytes<E: ServerEnv> {
    core: Rc<Core<E>>,
    bytes: Cell<u64>,
}

impl<E: ServerEnv> AnswerBytes<E> {
    pub(crate) fn new(core: &Rc<Core<E>>) -> Self {
        Self { core: Rc::clone(core), bytes: Cell::new(0) }
    }

    /// Counts more bytes; false if there is no room for any.
    pub(crate) fn grow(&self, bytes: usize) -> bool {
        let has_room = !self.core.is_out_full();
        if has_room {
            self.count(bytes);
        }
        has_room
    }

    /// Counts more bytes, room or not.
    pub(crate) fn count(&self, bytes: usize) {
        let sum = &self.core.pressure.out_bytes;
        sum.set(sum.get() + bytes as u64);
        self.bytes.set(self.bytes.get() + bytes as u64);
    }
}

impl<E: ServerEnv> Drop for AnswerBytes<E> {
    fn drop(&mut self) {
        let sum = &self.core.pressure.out_bytes;
        sum.set(sum.get() - self.bytes.get());
    }
}
