//! An honest client beside the abuse.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::LOOK_DELAY;
use crate::process::{PATIENCE, patient};

/// Calls that must have been answered for [`Bystander::goes_on`].
const CALLS: u64 = 200;

/// Bytes of its large values: more than a receive buffer, so that the server gathers them.
const LARGE_BYTES: usize = 100 << 10;

/// Writes and reads small and large values, one after the other, until it is finished.
#[derive(Debug)]
pub struct Bystander {
    answered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bystander {
    /// Starts one. It panics, and so the scene fails, when a call is not answered rightly.
    pub fn start(address: &str) -> Self {
        let (answered, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let client = patient(address).build_blocking().expect("the server takes its connections");
        let thread = thread::spawn({
            let (answered, stop) = (Arc::clone(&answered), Arc::clone(&stop));
            move || {
                for number in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let large = number.is_multiple_of(4);
                    let value = vec![number as u8; if large { LARGE_BYTES } else { 50 }];
                    let key = format!("bystander {}", number % 16);
                    client.put(&key, value.clone()).expect("the bystander's put is acknowledged");
                    let found = client.get(&key).expect("the bystander's get is answered");
                    assert_eq!(found.as_deref(), Some(&*value));
                    answered.fetch_add(2, Ordering::Relaxed);
                }
            }
        });
        Self { answered, stop, thread: Some(thread) }
    }

    /// Waits until some more calls have been answered.
    ///
    /// # Panics
    /// When they are not.
    pub fn goes_on(&self) {
        let (begun, before) = (Instant::now(), self.answered.load(Ordering::Relaxed));
        while self.answered.load(Ordering::Relaxed) < before + CALLS {
            let lives = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
            assert!(lives, "the bystander has failed");
            assert!(begun.elapsed() < PATIENCE, "the bystander is not served");
            thread::sleep(LOOK_DELAY);
        }
    }

    /// Ends it. How many calls were answered.
    ///
    /// # Panics
    /// When one was not.
    pub fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is finished once");
        assert!(thread.join().is_ok(), "the bystander has failed");
        self.answered.load(Ordering::Relaxed)
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
