//! Messages between cores, and waking a core that sleeps.
//!
//! Each core has one bounded queue that any thread may push to; messages of one sender stay in
//! order. A sender makes a system call only if the receiving core sleeps: the core announces sleep
//! and then looks at its queues once more, a sender pushes and then looks for the announcement,
//! with a full fence between the two steps on both sides. So at least one of them sees the other,
//! and no message is left lying beside a sleeping core. The first sender to see the announcement
//! takes it back, so that one sleep costs one call.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam_queue::ArrayQueue;

use crate::sys;

/// Wakes one core. The core's ring signals the same eventfd.
pub(crate) struct Doorbell {
    eventfd: File,
    sleeping: AtomicBool,
}

impl Doorbell {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { eventfd: File::from(sys::eventfd()?), sleeping: AtomicBool::new(false) })
    }

    pub(crate) fn eventfd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }

    /// Wakes the core if it sleeps. Call after making something visible to it.
    pub(crate) fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel) {
            self.signal();
        }
    }

    /// Makes the eventfd readable, asleep or not.
    pub(crate) fn signal(&self) {
        // Fails only if the counter is full, and then it is readable.
        drop((&self.eventfd).write_all(&1u64.to_ne_bytes()));
    }

    /// Announces sleep. The core looks at its queues after this, and only then sleeps.
    pub(crate) fn announce_sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Takes the announcement back.
    pub(crate) fn end_sleep(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }
}

/// What other threads can reach of one core.
pub(crate) struct Mailbox<M> {
    pub(crate) messages: ArrayQueue<M>,
    /// Numbers of off-core jobs of this core that have finished.
    pub(crate) finished_jobs: ArrayQueue<u32>,
    pub(crate) doorbell: Doorbell,
}

impl<M> Mailbox<M> {
    /// A queue of at most `messages_max` messages and `jobs_max` finished jobs.
    pub(crate) fn new(messages_max: usize, jobs_max: usize) -> io::Result<Self> {
        Ok(Self {
            messages: ArrayQueue::new(messages_max),
            finished_jobs: ArrayQueue::new(jobs_max),
            doorbell: Doorbell::new()?,
        })
    }
}

/// Sends messages to the cores from any thread, a signal thread for example. Works before, while
/// and after the cores run; messages sent outside that time stay in the queue.
pub struct Remote<M> {
    mailboxes: Arc<[Mailbox<M>]>,
}

impl<M: Send + 'static> Remote<M> {
    pub(crate) fn new(mailboxes: Arc<[Mailbox<M>]>) -> Self {
        Self { mailboxes }
    }

    /// How many cores there are.
    pub fn cores(&self) -> usize {
        self.mailboxes.len()
    }

    /// Sends a message to a core, waking it if it sleeps.
    ///
    /// # Errors
    /// Gives the message back when the core's queue is full or there is no such core.
    pub fn send(&self, core: usize, message: M) -> Result<(), M> {
        let Some(mailbox) = self.mailboxes.get(core) else { return Err(message) };
        mailbox.messages.push(message)?;
        mailbox.doorbell.ring();
        Ok(())
    }
}

impl<M> Clone for Remote<M> {
    fn clone(&self) -> Self {
        Self { mailboxes: Arc::clone(&self.mailboxes) }
    }
}

impl<M> std::fmt::Debug for Remote<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("cores", &self.mailboxes.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_gives_the_message_back() {
        let remote = Remote::new(Arc::from([Mailbox::new(1, 1).unwrap()]));
        assert_eq!(remote.send(0, 'a'), Ok(()));
        assert_eq!(remote.send(0, 'b'), Err('b'));
        assert_eq!(remote.send(1, 'c'), Err('c'));
    }
}
