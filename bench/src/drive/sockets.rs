//! The way over the network: one thread of a load with its connections, all on one io_uring.
//!
//! The thread sleeps in the ring until something comes or is due.

use std::net::SocketAddr;
use std::time::Duration;

use super::operations::{Ended, Job, Operations, Then};
use super::part::Part;
use super::speech::{Answers, Talk};
use super::target::Speech;
use crate::error::{Error, Result};
use crate::load::{Ring, Waited, pin_to_cpu};

/// The connections of a thread.
struct Sockets {
    operations: Operations,
    talks: Vec<Talk>,
    /// Operations in flight on each.
    depth: usize,
    answers: Answers,
}

/// Runs one thread's part of a load.
pub(super) fn run(job: Job, index: usize, speech: Speech, address: SocketAddr) -> Ended {
    let cpus = &job.plan.cpus;
    if let Some(cpu) = cpus.get(index % cpus.len().max(1)).copied()
        && let Err(error) = pin_to_cpu(cpu)
    {
        return job.fail(Error::Cpu { cpu, error });
    }
    let (mut sockets, mut ring) = match connect(&job, index, speech, address) {
        Ok(connected) => connected,
        Err(error) => return job.fail(error),
    };
    sockets.operations.begin();
    let result = sockets.drive(&mut ring);
    sockets.operations.end(result)
}

fn connect(job: &Job, index: usize, speech: Speech, address: SocketAddr) -> Result<(Sockets, Ring)> {
    let (depth, options) = (job.plan.depth, job.write_options());
    let (mut sockets, mut talks) = (Vec::new(), Vec::new());
    for _ in 0..job.connections() {
        let (socket, talk) = Talk::open(speech, address, depth, options)?;
        sockets.push(socket);
        talks.push(talk);
    }
    let burst_bytes = usize::try_from(job.plan.workload.value.bytes_max()).unwrap_or(usize::MAX) + 256;
    let ring = Ring::new(sockets, burst_bytes.saturating_mul(depth))?;
    let operations = Operations::new(job.clone(), index, Part::whole());
    Ok((Sockets { operations, talks, depth, answers: Answers::default() }, ring))
}

impl Sockets {
    fn drive(&mut self, ring: &mut Ring) -> Result<()> {
        loop {
            self.operations.tick();
            while let Some(slot) = self.operations.rested() {
                self.write(ring, slot)?;
            }
            while let Some(slot) = self.operations.next() {
                self.write(ring, slot)?;
            }
            if self.operations.is_over()? {
                return Ok(());
            }
            let left_ns = self.operations.wake_ns().saturating_sub(self.operations.now_ns());
            let waited = ring.wait(Duration::from_nanos(left_ns))?;
            self.operations.look();
            if waited == Waited::Woken {
                self.operations.heard();
            }
            ring.handle(|lane, bytes, out| self.receive(lane, bytes, out))?;
        }
    }

    fn write(&mut self, ring: &mut Ring, slot: usize) -> Result<()> {
        let mut result = Ok(());
        ring.write(slot / self.depth, |out| result = self.ask(slot, out));
        result
    }

    /// Sends the present request of a slot, for the first time or again.
    fn ask(&mut self, slot: usize, out: &mut Vec<u8>) -> Result<()> {
        self.talks[slot / self.depth].ask(slot % self.depth, self.operations.ask(slot), out)
    }

    fn receive(&mut self, lane: usize, bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let mut answers = std::mem::take(&mut self.answers);
        answers.clear();
        let received = self.talks[lane].receive(bytes, &mut answers, out);
        for (slot, answer) in &answers.list {
            let slot = lane * self.depth + slot;
            let asks = match self.operations.answered(slot, answer, &answers.bytes)? {
                Then::Asks => true,
                Then::Ends => self.operations.again(slot),
                Then::Rests => false,
            };
            if asks {
                self.ask(slot, out)?;
            }
        }
        self.answers = answers;
        received
    }
}
