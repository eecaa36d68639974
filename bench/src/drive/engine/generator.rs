//! One core's load: asks its shards, takes their answers, and lets their tasks run.
//!
//! It is a task of the core like those of the shards. What memory answers costs no wait, so operations
//! follow each other in bursts, between which it yields; what has to be read or made durable it awaits
//! together with everything else that is in flight.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use pinion_runtime::env::Env as _;

use super::CoreEnv;
use super::shards::Shards;
use crate::drive::blocking::SLEEP_NS_MIN;
use crate::drive::operations::{Ended, Job, Operations, Then};
use crate::drive::part::Part;
use crate::drive::speech::Answers;
use crate::error::Result;

/// Operations that are begun before other tasks of the core get their turn.
const BURST: usize = 64;

/// Runs a core's part of a load.
pub(super) async fn run(env: &CoreEnv, shards: &Shards, job: Job, index: usize, part: Part) -> Ended {
    let mut operations = Operations::new(job, index, part);
    // Holds the core until the others are ready: it has nothing else to do yet.
    operations.begin();
    let result = drive(env, shards, &mut operations).await;
    operations.end(result)
}

async fn drive(env: &CoreEnv, shards: &Shards, operations: &mut Operations) -> Result<()> {
    let mut answers = Answers::default();
    loop {
        operations.tick();
        while let Some(slot) = operations.rested() {
            shards.ask(slot, operations.ask(slot));
        }
        for _ in 0..BURST {
            let Some(slot) = operations.next() else { break };
            shards.ask(slot, operations.ask(slot));
            take(shards, operations, &mut answers)?;
        }
        if operations.is_over()? {
            return Ok(());
        }
        if operations.has_next() {
            env.yield_now().await;
        } else {
            wait(env, shards, operations).await;
        }
        operations.look();
        take(shards, operations, &mut answers)?;
    }
}

/// Takes what has been answered, as long as there is something.
fn take(shards: &Shards, operations: &mut Operations, answers: &mut Answers) -> Result<()> {
    while shards.inbox.take(answers) {
        operations.look();
        operations.heard();
        for (slot, answer) in &answers.list {
            match operations.answered(*slot, answer, &answers.bytes)? {
                Then::Asks => shards.ask(*slot, operations.ask(*slot)),
                Then::Ends => operations.free(*slot),
                Then::Rests => {}
            }
        }
    }
    Ok(())
}

/// Waits until something is answered or there is something to do.
async fn wait(env: &CoreEnv, shards: &Shards, operations: &Operations) {
    let left_ns = operations.wake_ns().saturating_sub(operations.now_ns());
    if left_ns < SLEEP_NS_MIN {
        return env.yield_now().await;
    }
    let mut sleep = pin!(env.sleep(Duration::from_nanos(left_ns - SLEEP_NS_MIN)));
    poll_fn(|context| match shards.inbox.poll(context) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => sleep.as_mut().poll(context),
    })
    .await;
}
