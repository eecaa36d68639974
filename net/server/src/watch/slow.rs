//! The operations of a core that took long, the last of them.
//!
//! Limits: [`KEPT_MAX`] operations; a line of the log for one in [`LINE_EVERY`].

use std::collections::VecDeque;
use std::time::Duration;

use pinion_env::Monotonic;
use pinion_protocol::TraceParent;

use super::key::KeyFront;

/// Operations that a core remembers.
pub(crate) const KEPT_MAX: usize = 128;

/// A core logs at most one slow operation in this time.
const LINE_EVERY: Duration = Duration::from_millis(100);

/// An operation that took long.
#[derive(Debug, Clone)]
pub(crate) struct SlowOperation {
    /// Counted by its core.
    pub(crate) number: u64,
    /// When it ended, in milliseconds since 1970.
    pub(crate) ended_ms: u64,
    /// The shard of its key, if that was looked at.
    pub(crate) shard: Option<u16>,
    pub(crate) operation: &'static str,
    pub(crate) is_resp: bool,
    /// Its name, if it is about one.
    pub(crate) namespace: Option<String>,
    /// Empty if it has none, or if it ended before that was looked at. Of one with several keys, one of them.
    pub(crate) key: KeyFront,
    /// The connection's number.
    pub(crate) connection: u64,
    pub(crate) client: String,
    pub(crate) peer: String,
    pub(crate) stages: Stages,
    /// `ok`, or the name of the error.
    pub(crate) outcome: &'static str,
    pub(crate) trace: Option<TraceParent>,
}

/// Where its time went, in microseconds, from its receipt until its answer was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stages {
    pub(crate) total_us: u64,
    /// Until it was dealt with.
    pub(crate) queued_us: u64,
    /// Waiting for another core.
    pub(crate) forwarded_us: u64,
    /// The rest: in the engine.
    pub(crate) storage_us: u64,
}

impl Stages {
    /// Of a whole and two parts of it.
    pub(crate) fn of(total: Duration, queued: Duration, forwarded: Duration) -> Self {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let total_us = micros(total);
        let queued_us = micros(queued).min(total_us);
        let forwarded_us = micros(forwarded).min(total_us - queued_us);
        Self { total_us, queued_us, forwarded_us, storage_us: total_us - queued_us - forwarded_us }
    }
}

/// The last slow operations of a core.
#[derive(Debug, Default)]
pub(crate) struct SlowLog {
    kept: VecDeque<SlowOperation>,
    seen: u64,
    /// When one was logged last, and how many were not since.
    logged: Option<Monotonic>,
    unlogged: u64,
}

impl SlowLog {
    /// Remembers an operation, and logs it if its time has come.
    pub(super) fn push(&mut self, core: u16, now: Monotonic, operation: SlowOperation) {
        if self.logged.is_none_or(|last| now >= last.after(LINE_EVERY)) {
            self.logged = Some(now);
            log(core, &operation, std::mem::take(&mut self.unlogged));
        } else {
            self.unlogged += 1;
        }
        if self.kept.len() == KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(SlowOperation { number: self.seen, ..operation });
        self.seen += 1;
    }

    /// Slow operations since the core's start.
    pub(super) const fn seen(&self) -> u64 {
        self.seen
    }

    /// Those that are remembered, oldest first.
    pub(super) fn kept(&self) -> impl Iterator<Item = &SlowOperation> {
        self.kept.iter()
    }

    /// Forgets them.
    pub(super) fn clear(&mut self) {
        self.kept.clear();
    }
}

fn log(core: u16, slow: &SlowOperation, unlogged: u64) {
    let SlowOperation { operation, client, peer, outcome, namespace, .. } = slow;
    let Stages { total_us, queued_us, forwarded_us, storage_us } = slow.stages;
    let trace = slow.trace.map(|trace| trace.to_string()).unwrap_or_default();
    tracing::warn!(
        core,
        operation,
        namespace,
        key = slow.key.text(),
        total_us,
        queued_us,
        forwarded_us,
        storage_us,
        outcome,
        client,
        peer,
        trace,
        unlogged,
        "an operation took long"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation() -> SlowOperation {
        SlowOperation {
            number: 0,
            ended_ms: 1,
            shard: None,
            operation: "get",
            is_resp: false,
            namespace: Some("default".to_owned()),
            key: KeyFront::of(b"k"),
            connection: 1,
            client: String::new(),
            peer: String::new(),
            stages: Stages::of(Duration::from_millis(1), Duration::ZERO, Duration::ZERO),
            outcome: "ok",
            trace: None,
        }
    }

    #[test]
    fn the_last_are_kept() {
        let mut slow = SlowLog::default();
        for index in 0..KEPT_MAX as u64 + 10 {
            slow.push(0, Monotonic::from_nanos(index), operation());
        }
        assert_eq!((slow.seen(), slow.kept().count()), (KEPT_MAX as u64 + 10, KEPT_MAX));
        assert_eq!(slow.kept().next().map(|first| first.number), Some(10));
        assert_eq!(slow.unlogged, KEPT_MAX as u64 + 9, "one line in a while");
        slow.push(0, Monotonic::from_nanos(0).after(LINE_EVERY), operation());
        assert_eq!(slow.unlogged, 0);
        slow.clear();
        assert_eq!((slow.seen(), slow.kept().count()), (KEPT_MAX as u64 + 11, 0));
    }

    #[test]
    fn stages_add_up() {
        let (total, part) = (Duration::from_nanos(10_999), Duration::from_nanos(3_999));
        let stages = Stages::of(total, part, part);
        assert_eq!(stages, Stages { total_us: 10, queued_us: 3, forwarded_us: 3, storage_us: 4 });
        let odd = Stages::of(part, total, total);
        assert_eq!(odd, Stages { total_us: 3, queued_us: 3, forwarded_us: 0, storage_us: 0 });
    }
}
