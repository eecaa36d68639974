//! A thread that waits for an engine in this process: one operation at a time, as its users call it.
//!
//! Latency is the call's. In an open loop the thread sleeps until an operation is due, and looks at the
//! clock without sleeping when that is soon.

use std::hint::spin_loop;
use std::thread;
use std::time::Duration;

use super::operations::{Ended, Job, Operations, Then};
use super::part::Part;
use super::speech::{Answer, Ask};
use super::target::Description;
use crate::error::Result;

/// Nobody sleeps for less: the system wakes that late.
pub(super) const SLEEP_NS_MIN: u64 = 100_000;

/// An engine whose calls wait until they are done. Errors are what it says; what has become of a write
/// that failed is not known.
pub(super) trait Store: Send + Sync {
    /// Appends the value of a key; false if it has none.
    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, String>;
    /// Sets the value of a key, as durable as was said when the store was opened.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), String>;
    /// Removes a key, as durable as a put.
    fn delete(&self, key: &[u8]) -> Result<(), String>;
    /// Appends keys and values of up to `limit` records from a key on; how many.
    fn scan(&self, start: &[u8], limit: u64, records: &mut Vec<u8>) -> Result<u64, String>;
    /// What it says of itself.
    fn describe(&self) -> Description;
}

/// Runs one thread's part of a load.
pub(super) fn run(job: Job, index: usize, store: &dyn Store) -> Ended {
    let mut operations = Operations::new(job, index, Part::whole());
    operations.begin();
    let result = drive(&mut operations, store);
    operations.end(result)
}

fn drive(operations: &mut Operations, store: &dyn Store) -> Result<()> {
    let mut bytes = Vec::new();
    loop {
        operations.tick();
        if operations.is_over()? {
            return Ok(());
        }
        let Some(slot) = operations.rested().or_else(|| operations.next()) else {
            wait(operations.wake_ns().saturating_sub(operations.now_ns()));
            operations.look();
            continue;
        };
        loop {
            bytes.clear();
            let answer = ask(store, operations.ask(slot), &mut bytes);
            operations.look();
            operations.heard();
            match operations.answered(slot, &answer, &bytes)? {
                Then::Asks => {}
                Then::Ends => {
                    operations.free(slot);
                    break;
                }
                Then::Rests => break,
            }
        }
    }
}

fn wait(ns: u64) {
    if ns < SLEEP_NS_MIN {
        spin_loop();
    } else {
        thread::sleep(Duration::from_nanos(ns - SLEEP_NS_MIN));
    }
}

fn ask(store: &dyn Store, ask: Ask<'_>, bytes: &mut Vec<u8>) -> Answer {
    let answer = match ask {
        Ask::Get { key } => store
            .get(key, bytes)
            .map(|found| if found { Answer::Value(0..bytes.len()) } else { Answer::Absent }),
        Ask::Put { key, value, .. } => store.put(key, value).map(|()| Answer::Done),
        Ask::Delete { key } => store.delete(key).map(|()| Answer::Done),
        Ask::Scan { start, limit } => store.scan(start, limit, bytes).map(Answer::Scanned),
    };
    let is_write = matches!(ask, Ask::Put { .. } | Ask::Delete { .. });
    answer.unwrap_or_else(|message| Answer::Failed { is_unknown: is_write, message })
}
