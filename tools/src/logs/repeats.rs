//! A bound on how often one place in the code is logged.
//!
//! Lines are counted by the place that they come from, in windows of [`WINDOW`]; there are as many places as
//! the program has, so the table is bounded. What is over the bound is not formatted and not written. A
//! thread that otherwise sleeps tells how many lines were left out, once for each place and window.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// The time in which lines are counted together.
const WINDOW: Duration = Duration::from_secs(10);

/// The layer that lets lines pass or not.
#[derive(Debug)]
pub(super) struct Repeats {
    windows: Arc<Mutex<Windows>>,
    wake: SyncSender<()>,
}

/// Who tells what was left out; at its end, what has not been told yet.
#[derive(Debug)]
pub(crate) struct Teller {
    windows: Arc<Mutex<Windows>>,
    woken: Mutex<Option<Receiver<()>>>,
}

/// Lines by the place they come from.
#[derive(Debug)]
struct Windows {
    /// 0 = no bound.
    lines_max: u32,
    places: HashMap<Identifier, Place>,
}

#[derive(Debug)]
struct Place {
    metadata: &'static Metadata<'static>,
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl Repeats {
    /// At most `lines_max` lines of one place in a window; 0 = no bound.
    pub(super) fn new(lines_max: u32) -> (Self, Teller) {
        let windows = Arc::new(Mutex::new(Windows { lines_max, places: HashMap::new() }));
        let (wake, woken) = mpsc::sync_channel(1);
        let teller = Teller { windows: Arc::clone(&windows), woken: Mutex::new(Some(woken)) };
        (Self { windows, wake }, teller)
    }
}

impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let mut windows = lock(&self.windows);
        let passes = windows.admit(event.metadata(), Instant::now());
        if !passes {
            // Full: it is awake already.
            let _ = self.wake.try_send(());
        }
        passes
    }
}

impl Windows {
    /// Whether a line of this place may be written now.
    fn admit(&mut self, metadata: &'static Metadata<'static>, now: Instant) -> bool {
        if self.lines_max == 0 {
            return true;
        }
        let new = || Place { metadata, since: now, lines: 0, left_out: 0 };
        let place = self.places.entry(metadata.callsite()).or_insert_with(new);
        if now.saturating_duration_since(place.since) >= WINDOW {
            (place.since, place.lines) = (now, 0);
        }
        if place.lines < self.lines_max {
            place.lines += 1;
            return true;
        }
        place.left_out += 1;
        false
    }

    /// How many lines of which places were left out since this was asked last.
    fn left_out(&mut self) -> Vec<(&'static Metadata<'static>, u64)> {
        let places = self.places.values_mut().filter(|place| place.left_out > 0);
        places.map(|place| (place.metadata, std::mem::take(&mut place.left_out))).collect()
    }
}

impl Teller {
    /// Starts the thread. It sleeps until something is left out, and ends with the process.
    pub(super) fn start(&self) -> io::Result<()> {
        let woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (windows, Some(woken)) = (Arc::clone(&self.windows), woken) else { return Ok(()) };
        thread::Builder::new().name("logs".into()).spawn(move || {
            while woken.recv().is_ok() {
                thread::sleep(WINDOW);
                tell(&windows);
            }
        })?;
        Ok(())
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        tell(&self.windows);
    }
}

fn tell(windows: &Mutex<Windows>) {
    let left_out = lock(windows).left_out();
    for (metadata, lines) in left_out {
        let place = format!(
            "{} {} {}:{}",
            metadata.level(),
            metadata.target(),
            metadata.file().unwrap_or_default(),
            metadata.line().unwrap_or_default()
        );
        tracing::warn!(left_out = lines, place, "lines of one place in the code came too often");
    }
}

fn lock(windows: &Mutex<Windows>) -> MutexGuard<'_, Windows> {
    // Nothing panics while it holds the lock.
    windows.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Counts lines that pass.
    struct Lines(Arc<AtomicUsize>);

    impl<S: Subscriber> Layer<S> for Lines {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn one_place_does_not_silence_another_and_is_told_of() {
        let lines = Arc::new(AtomicUsize::new(0));
        let (repeats, teller) = Repeats::new(3);
        let windows = Arc::clone(&teller.windows);
        let subscriber = tracing_subscriber::registry().with(Lines(Arc::clone(&lines))).with(repeats);
        let seen = || lines.load(Ordering::Relaxed);
        tracing::subscriber::with_default(subscriber, || {
            (0..100).for_each(|number| tracing::warn!(number, "the same again"));
            assert_eq!(seen(), 3);
            tracing::warn!("another");
            assert_eq!(seen(), 4);
            let told: Vec<u64> = lock(&windows).left_out().into_iter().map(|(_, lines)| lines).collect();
            assert_eq!(told, [97]);
            assert!(lock(&windows).left_out().is_empty(), "told once");
            (0..2).for_each(|_| tracing::warn!("the same again"));
            drop(teller);
        });
        assert_eq!(seen(), 6, "nothing more was left out");
        let (repeats, teller) = Repeats::new(1);
        let subscriber = tracing_subscriber::registry().with(Lines(Arc::clone(&lines))).with(repeats);
        tracing::subscriber::with_default(subscriber, || {
            (0..5).for_each(|number| tracing::warn!(number, "the same again"));
            drop(teller);
        });
        assert_eq!(seen(), 8, "one passed, and one tells of four");
    }

    #[test]
    fn a_new_window_begins_anew_and_no_bound_is_none() {
        let place = || {
            static SEEN: Mutex<Option<&'static Metadata<'static>>> = Mutex::new(None);
            struct Keep;
            impl<S: Subscriber> Layer<S> for Keep {
                fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
                    *SEEN.lock().unwrap() = Some(event.metadata());
                }
            }
            tracing::subscriber::with_default(tracing_subscriber::registry().with(Keep), || {
                tracing::warn!("a place");
            });
            SEEN.lock().unwrap().expect("it was seen")
        };
        let (metadata, begun) = (place(), Instant::now());
        let mut windows = Windows { lines_max: 2, places: HashMap::new() };
        let passed = |windows: &mut Windows, now| (0..5).filter(|_| windows.admit(metadata, now)).count();
        assert_eq!(passed(&mut windows, begun), 2);
        assert_eq!(passed(&mut windows, begun + WINDOW - Duration::from_millis(1)), 0);
        assert_eq!(passed(&mut windows, begun + WINDOW), 2);
        let told: Vec<u64> = windows.left_out().into_iter().map(|(_, lines)| lines).collect();
        assert_eq!(told, [3 + 5 + 3]);
        let mut unbounded = Windows { lines_max: 0, places: HashMap::new() };
        assert_eq!(passed(&mut unbounded, begun), 5);
    }
}
