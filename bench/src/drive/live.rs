//! The progress line of a load, on standard error when that is a terminal.

use std::io::{IsTerminal as _, Write as _, stderr};

use super::tally::Second;
use super::{Phase, Plan};

/// One line, written over every second.
pub(super) struct Line<'a> {
    plan: &'a Plan,
    phase: Phase,
    shown: bool,
}

impl<'a> Line<'a> {
    pub(super) const fn new(plan: &'a Plan, phase: Phase) -> Self {
        Self { plan, phase, shown: false }
    }

    /// Shows what one second was like.
    pub(super) fn show(&mut self, left: Option<u64>, second: Option<&Second>) {
        let Some(second) = second.filter(|_| self.plan.progress && stderr().is_terminal()) else { return };
        self.shown = true;
        let line = self.text(left, second);
        // A progress line that cannot be shown is no reason to stop.
        drop(write!(stderr(), "\r\x1b[K{line}"));
    }

    fn text(&self, left: Option<u64>, second: &Second) -> String {
        let now = second.report(1.0);
        let phase = match self.phase {
            Phase::Load => "load",
            Phase::Run => "run",
            Phase::Verify => "verify",
        };
        let failed = if now.failed > 0 { format!(", {} failed", now.failed) } else { String::new() };
        let rate = now.ops_per_second;
        let left =
            self.left(left, second.index, rate).map_or_else(String::new, |left| format!(", {left} left"));
        format!("{phase}: {rate:.0} ops/s, p50 {:.0} us, p99 {:.0} us{failed}{left}", now.p50_us, now.p99_us)
    }

    /// How much is left, in seconds or operations.
    fn left(&self, left: Option<u64>, index: u64, rate: f64) -> Option<String> {
        if let (Phase::Run, Some(seconds)) = (self.phase, self.plan.seconds) {
            return Some(format!("{} s", seconds.as_secs().saturating_sub(index + 1)));
        }
        let left = left?;
        Some(if rate > 0.0 {
            format!("about {:.0} s", left as f64 / rate)
        } else {
            format!("{left} operations")
        })
    }

    pub(super) fn end(&self) {
        if self.shown {
            drop(write!(stderr(), "\r\x1b[K"));
        }
    }
}
