//! Frames between nodes: messages that a node sends to a core of another one, as a datagram network
//! would carry them.
//!
//! Without faults every frame arrives once, after a latency, and those of one direction between two
//! nodes stay in order. With faults ([`super::LinkFaults`]) frames are late, lost, doubled and
//! overtaken, and a direction between two nodes is cut for a while. [`super::World::cut_frames`] cuts
//! one on purpose; the other direction goes on.
//!
//! Frames to a node that does not run are lost. One that was sent to an earlier life of a node may
//! reach the present one. Frames that wait to be taken are bounded; more are lost and counted.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::link::LATENCY_NANOS_MAX;
use super::link_faults::nanos;
use super::shared::Shared;
use super::trace::Step;

/// Frames that wait for one core of a node.
const FRAMES_WAITING_MAX: usize = 4096;

/// A frame that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFrame {
    /// Which node sent it.
    pub from: super::NodeId,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// All directions between two nodes that have ever carried a frame or been cut.
#[derive(Default)]
pub(super) struct Directions(RefCell<BTreeMap<(u32, u32), Direction>>);

#[derive(Debug, Default, Clone, Copy)]
struct Direction {
    /// When the last frame that may not be overtaken arrives.
    last_arrival: u64,
    /// Frames sent before are lost. `u64::MAX` = until it is mended.
    cut_until: u64,
}

impl Directions {
    pub(super) fn cut(&self, from: u32, to: u32, until: u64) {
        let mut directions = self.0.borrow_mut();
        let direction = directions.entry((from, to)).or_default();
        direction.cut_until = direction.cut_until.max(until);
    }

    pub(super) fn mend(&self, from: u32, to: u32) {
        if let Some(direction) = self.0.borrow_mut().get_mut(&(from, to)) {
            direction.cut_until = 0;
        }
    }

    pub(super) fn mend_all(&self) {
        self.0.borrow_mut().values_mut().for_each(|direction| direction.cut_until = 0);
    }
}

/// The frames that wait for the cores of one process.
pub(super) struct Inbox(RefCell<Vec<Lane>>);

#[derive(Default)]
struct Lane {
    frames: VecDeque<NodeFrame>,
    receiver: Option<Waker>,
}

impl Inbox {
    pub(super) fn new(cores: usize) -> Self {
        Self(RefCell::new((0..cores).map(|_| Lane::default()).collect()))
    }

    /// False when the frame has no place.
    fn put(&self, core: usize, frame: NodeFrame) -> bool {
        let receiver = {
            let mut lanes = self.0.borrow_mut();
            let Some(lane) = lanes.get_mut(core).filter(|lane| lane.frames.len() < FRAMES_WAITING_MAX) else {
                return false;
            };
            lane.frames.push_back(frame);
            lane.receiver.take()
        };
        if let Some(receiver) = receiver {
            receiver.wake();
        }
        true
    }

    pub(super) fn poll(&self, core: usize, context: &mut Context<'_>) -> Poll<NodeFrame> {
        let mut lanes = self.0.borrow_mut();
        let lane = &mut lanes[core];
        match lane.frames.pop_front() {
            Some(frame) => Poll::Ready(frame),
            None => {
                lane.receiver = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Sends a frame on its way from one node to a core of another one.
pub(super) fn send(shared: &Rc<Shared>, from: u32, to: u32, core: usize, bytes: Vec<u8>) {
    let faults = shared.link_faults.get();
    let now = shared.clock.get();
    if shared.happens(faults.cut_one_in) {
        shared.fault("frames cut");
        shared.directions.cut(from, to, now.saturating_add(shared.below(nanos(faults.cut_max))));
    }
    let direction = shared.directions.0.borrow().get(&(from, to)).copied().unwrap_or_default();
    if now < direction.cut_until {
        return shared.fault("frame into a cut");
    }
    if shared.happens(faults.lose_one_in) {
        return shared.fault("frame lost");
    }
    let copies = if shared.happens(faults.duplicate_one_in) {
        shared.fault("frame doubled");
        2
    } else {
        1
    };
    for _ in 0..copies {
        let nanos = shared.below(LATENCY_NANOS_MAX) + shared.lateness_nanos();
        let mut arrival = now.saturating_add(nanos);
        if shared.happens(faults.reorder_one_in) {
            shared.fault("frame out of order");
        } else {
            arrival = arrival.max(direction.last_arrival);
            shared.directions.0.borrow_mut().entry((from, to)).or_default().last_arrival = arrival;
        }
        let frame = NodeFrame { from: super::NodeId(from), bytes: bytes.clone() };
        let world = Rc::clone(shared);
        shared.after(arrival - now, Box::new(move || arrive(&world, to, core, frame)));
    }
}

fn arrive(shared: &Shared, to: u32, core: usize, frame: NodeFrame) {
    shared.note_content(Step::Frame, u64::from(to), &frame.bytes);
    let inbox = {
        let nodes = shared.nodes.borrow();
        nodes.get(&to).and_then(|node| node.running.as_ref()).map(|running| Rc::clone(&running.inbox))
    };
    let taken = inbox.is_some_and(|inbox| inbox.put(core, frame));
    if !taken {
        shared.fault("frame to nobody");
    }
}
