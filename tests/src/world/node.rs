//! Nodes: a disk that stays, and processes that come and go on it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::disk::Disk;
use super::frames::Inbox;
use super::listen::Accepting;
use super::random::Random;
use super::scheduler::ProcessId;

/// How a node is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeConfig {
    /// How many cores it runs on; at least 1.
    pub cores: usize,
    /// The port of its listening socket.
    pub port: u16,
    /// Messages that wait for one core; sending more gives them back.
    pub messages_max: usize,
    /// Longest time in microseconds for which a core now and then leaves its messages unread, as one
    /// does that is busy with something else; 0 = it never does.
    pub message_pause_us_max: u64,
    /// Size of the disk in bytes. A restart changes the size of the disk that is there.
    pub disk_bytes: u64,
    /// Block of the disk in bytes: a power of two from 512 to 4,096. A restart keeps the first one.
    pub block_bytes: u32,
}

impl Default for NodeConfig {
    /// One core, port 7600, 1,024 messages read without pauses, 64 GiB in blocks of 4,096 bytes.
    fn default() -> Self {
        Self {
            cores: 1,
            port: 7600,
            messages_max: 1024,
            message_pause_us_max: 0,
            disk_bytes: 64 << 30,
            block_bytes: 4096,
        }
    }
}

/// A node's place in the world, running or not.
pub(super) struct Node {
    pub(super) disk: Rc<Disk>,
    pub(super) lives: u32,
    /// Added to the wall clock, in milliseconds.
    pub(super) wall_shift_ms: Rc<Cell<i64>>,
    pub(super) running: Option<Running>,
    /// Whoever waits for the process to end.
    pub(super) end_waiters: Vec<Waker>,
}

/// What the world must know of a process, whatever its messages are.
pub(super) struct Running {
    pub(super) process: ProcessId,
    pub(super) accepting: Rc<Accepting>,
    pub(super) inbox: Rc<Inbox>,
    /// Cores whose main function has not returned.
    pub(super) mains_left: usize,
    /// Drops the messages that nobody will take.
    pub(super) drop_messages: Box<dyn FnOnce()>,
}

impl Node {
    pub(super) fn new(seed: u64, node: u32, config: &NodeConfig) -> Self {
        // Beside the streams of its cores, whose labels end in a life.
        let random = Random::labelled(seed, u64::from(node) << 48 | u64::from(u16::MAX));
        Self {
            disk: Rc::new(Disk::new(config.disk_bytes, config.block_bytes, random)),
            lives: 0,
            wall_shift_ms: Rc::default(),
            running: None,
            end_waiters: Vec::new(),
        }
    }

    pub(super) fn runs(&self, process: ProcessId) -> bool {
        self.running.as_ref().is_some_and(|running| running.process == process)
    }

    pub(super) fn process(&self) -> Option<(ProcessId, &Rc<Accepting>)> {
        self.running.as_ref().map(|running| (running.process, &running.accepting))
    }
}

/// What the cores of one process share in the world (they do not know that).
pub(super) struct Process<M> {
    pub(super) id: ProcessId,
    pub(super) disk: Rc<Disk>,
    pub(super) accepting: Rc<Accepting>,
    pub(super) inbox: Rc<Inbox>,
    pub(super) wall_shift_ms: Rc<Cell<i64>>,
    cores: Vec<Core<M>>,
    messages_max: usize,
    message_pause_us_max: u64,
}

struct Core<M> {
    random: RefCell<Random>,
    mailbox: RefCell<Mailbox<M>>,
    /// Leaves its messages unread for now.
    pauses: Cell<bool>,
}

/// Messages to one core, by sender: each sender's stay in order, senders overtake each other.
struct Mailbox<M> {
    lanes: Vec<Lane<M>>,
    waiting: usize,
    receiver: Option<Waker>,
}

/// Messages of one sender.
struct Lane<M> {
    messages: VecDeque<M>,
    /// They are under way until a test lets them arrive.
    held: bool,
}

impl<M> Process<M> {
    pub(super) fn new(seed: u64, id: ProcessId, node: &Node, config: &NodeConfig) -> Self {
        let core = |core: usize| {
            let label = u64::from(id.node) << 48 | u64::from(id.life) << 16 | core as u64;
            let lanes = (0..config.cores).map(|_| Lane { messages: VecDeque::new(), held: false }).collect();
            Core {
                random: RefCell::new(Random::labelled(seed, label)),
                mailbox: RefCell::new(Mailbox { lanes, waiting: 0, receiver: None }),
                pauses: Cell::new(false),
            }
        };
        Self {
            id,
            disk: Rc::clone(&node.disk),
            accepting: Rc::new(Accepting::new(config.cores, config.port)),
            inbox: Rc::new(Inbox::new(config.cores)),
            wall_shift_ms: Rc::clone(&node.wall_shift_ms),
            cores: (0..config.cores).map(core).collect(),
            messages_max: config.messages_max,
            message_pause_us_max: config.message_pause_us_max,
        }
    }

    pub(super) fn cores(&self) -> usize {
        self.cores.len()
    }

    pub(super) fn random(&self, core: usize) -> u64 {
        self.cores[core].random.borrow_mut().word()
    }

    /// Puts a message into a core's mailbox, or gives it back.
    pub(super) fn send(&self, from: usize, to: usize, message: M) -> Result<(), M> {
        let receiver = {
            let mut mailbox = self.cores[to].mailbox.borrow_mut();
            if mailbox.waiting >= self.messages_max {
                return Err(message);
            }
            mailbox.waiting += 1;
            mailbox.lanes[from].messages.push_back(message);
            mailbox.receiver.take()
        };
        if let Some(receiver) = receiver {
            receiver.wake();
        }
        Ok(())
    }

    /// Holds back what one core sends another, or lets it arrive.
    pub(super) fn hold(&self, from: usize, to: usize, held: bool) {
        let receiver = {
            let mut mailbox = self.cores[to].mailbox.borrow_mut();
            mailbox.lanes[from].held = held;
            mailbox.receiver.take()
        };
        if let Some(receiver) = receiver {
            receiver.wake();
        }
    }

    /// Messages of one core to another that were not taken.
    pub(super) fn untaken(&self, from: usize, to: usize) -> usize {
        self.cores[to].mailbox.borrow().lanes[from].messages.len()
    }

    /// Whether a core leaves its messages unread for now; if so it is woken when that ends.
    pub(super) fn is_paused(&self, core: usize, context: &Context<'_>) -> bool {
        let pauses = self.cores[core].pauses.get();
        if pauses {
            self.cores[core].mailbox.borrow_mut().receiver = Some(context.waker().clone());
        }
        pauses
    }

    /// Below how many nanoseconds a core with messages may now leave them unread.
    pub(super) fn may_pause(&self, core: usize) -> Option<u64> {
        let waiting = self.cores[core].mailbox.borrow().waiting;
        (self.message_pause_us_max > 0 && waiting > 0).then_some(self.message_pause_us_max * 1_000)
    }

    pub(super) fn pause(&self, core: usize, context: &Context<'_>) {
        self.cores[core].pauses.set(true);
        self.cores[core].mailbox.borrow_mut().receiver = Some(context.waker().clone());
    }

    pub(super) fn end_pause(&self, core: usize) {
        self.cores[core].pauses.set(false);
        let receiver = self.cores[core].mailbox.borrow_mut().receiver.take();
        if let Some(receiver) = receiver {
            receiver.wake();
        }
    }

    /// The next message of a sender drawn by `draw`, and that sender.
    pub(super) fn poll_message(
        &self,
        core: usize,
        draw: impl FnOnce(u64) -> u64,
        context: &mut Context<'_>,
    ) -> Poll<(usize, M)> {
        let mut mailbox = self.cores[core].mailbox.borrow_mut();
        let senders = mailbox.lanes.iter().filter(|lane| lane.has_arrived()).count();
        if senders == 0 {
            mailbox.receiver = Some(context.waker().clone());
            return Poll::Pending;
        }
        mailbox.waiting -= 1;
        let drawn = draw(senders as u64) as usize;
        let filled = mailbox.lanes.iter_mut().enumerate().filter(|(_, lane)| lane.has_arrived());
        let (from, lane) = { filled }.nth(drawn).expect("the draw is below the number of filled lanes");
        Poll::Ready((from, lane.messages.pop_front().expect("the lane is filled")))
    }

    /// Takes all messages and wakers away, to be dropped by the caller.
    pub(super) fn drop_messages(&self) {
        for core in &self.cores {
            let (lanes, receiver) = {
                let mut mailbox = core.mailbox.borrow_mut();
                mailbox.waiting = 0;
                let lanes: Vec<VecDeque<M>> =
                    mailbox.lanes.iter_mut().map(|lane| std::mem::take(&mut lane.messages)).collect();
                (lanes, mailbox.receiver.take())
            };
            drop((lanes, receiver));
        }
    }
}

impl<M> Lane<M> {
    fn has_arrived(&self) -> bool {
        !self.held && !self.messages.is_empty()
    }
}
