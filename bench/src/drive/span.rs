//! When a phase begins and ends, by one clock for all of its threads, and how busy the target was between.
//!
//! The first thread that is ready begins it, the last that is done ends it: what comes before (connecting,
//! recovery) and after (closing) is not measured.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::load::process_cpu_time;

#[derive(Debug)]
pub(super) struct Span {
    /// The target's.
    process: Option<u32>,
    begin: OnceLock<Moment>,
    end: Mutex<Option<Moment>>,
}

#[derive(Debug, Clone, Copy)]
struct Moment {
    at: Instant,
    /// What the target's process had used until then.
    cpu: Option<Duration>,
}

impl Span {
    /// `process` is the target's, if it is known.
    pub(super) const fn new(process: Option<u32>) -> Self {
        Self { process, begin: OnceLock::new(), end: Mutex::new(None) }
    }

    fn now(&self) -> Moment {
        Moment { cpu: self.process.and_then(process_cpu_time), at: Instant::now() }
    }

    /// Nanoseconds since the beginning, which is now if nobody was here before.
    pub(super) fn elapsed_ns(&self) -> u64 {
        let begin = self.begin.get_or_init(|| self.now());
        u64::try_from(begin.at.elapsed().as_nanos()).expect("a load takes less than 500 years")
    }

    /// A thread is done.
    pub(super) fn end(&self) {
        let now = self.now();
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        if end.is_none_or(|before| before.at < now.at) {
            *end = Some(now);
        }
    }

    fn both(&self) -> Option<(Moment, Moment)> {
        Some((*self.begin.get()?, (*self.end.lock().unwrap_or_else(PoisonError::into_inner))?))
    }

    /// How long it was; nothing if it never began.
    pub(super) fn wall(&self) -> Duration {
        self.both().map_or(Duration::ZERO, |(begin, end)| end.at.saturating_duration_since(begin.at))
    }

    /// Processor time of the target's process in it.
    pub(super) fn target_cpu(&self) -> Option<Duration> {
        let (begin, end) = self.both()?;
        Some(end.cpu?.saturating_sub(begin.cpu?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_begins_and_the_last_ends() {
        let span = Span::new(Some(std::process::id()));
        assert_eq!((span.wall(), span.target_cpu()), (Duration::ZERO, None));
        let first = span.elapsed_ns();
        span.end();
        let wall = span.wall();
        assert!(span.elapsed_ns() >= first);
        span.end();
        assert!(span.wall() > wall && span.target_cpu().is_some());
        assert_eq!(Span::new(None).target_cpu(), None);
    }
}
