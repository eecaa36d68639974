//! Which request of a file system fails, and how.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is asked of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Request {
    Read,
    Write,
    Sync,
    Create,
    Rename,
    Remove,
    SyncDirectory,
}

/// What a file holds, or a directory's files do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Log,
    Table,
    Manifest,
    Other,
}

impl Kind {
    /// By where a file of a shard lies and its name, or by the name of a directory.
    pub(super) fn of(path: &Path) -> Self {
        let mut names = path.iter().rev().map(|name| name.to_string_lossy());
        let name = names.next().unwrap_or_default();
        let parent = names.next().unwrap_or_default();
        if name == "wal" || parent == "wal" {
            Self::Log
        } else if name == "table" || parent == "table" {
            Self::Table
        } else if name.starts_with("shard-") || parent.starts_with("shard-") {
            Self::Manifest
        } else {
            Self::Other
        }
    }
}

/// What happens instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effect {
    /// EIO, and nothing was done.
    Fails,
    /// EIO, but a part was done.
    FailsHalfway,
    /// ENOSPC, and nothing was done.
    NoSpace,
    /// Less is done than was asked for, and said so.
    Short,
}

/// Requests that fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) request: Request,
    /// `None` = files of every kind.
    pub(super) kind: Option<Kind>,
    pub(super) effect: Effect,
    /// Requests that are let pass first.
    pub(super) pass: u64,
    /// Whether all of them fail from then on, until the fault is lifted, or only one.
    pub(super) lasts: bool,
}

/// The fault of a file system, if it has one. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    fault: Option<Fault>,
    hits: u64,
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on there is this fault.
    pub(super) fn set(&self, fault: Fault) {
        *self.state() = State { fault: Some(fault), hits: 0 };
    }

    /// There is none any more.
    pub(super) fn lift(&self) {
        self.state().fault = None;
    }

    /// Requests that have failed of the last fault.
    pub(super) fn hits(&self) -> u64 {
        self.state().hits
    }

    /// Whether the disk is said to have no space.
    pub(super) fn is_full(&self) -> bool {
        let state = self.state();
        state.hits > 0 && state.fault.is_some_and(|fault| fault.effect == Effect::NoSpace && fault.lasts)
    }

    /// What happens to a request instead of what was asked for, if that can happen to it.
    pub(super) fn meet(
        &self,
        request: Request,
        kind: Kind,
        can_happen: impl FnOnce(Effect) -> bool,
    ) -> Option<Effect> {
        let mut state = self.state();
        let fault = state.fault.as_mut()?;
        if fault.request != request
            || fault.kind.is_some_and(|wanted| wanted != kind)
            || !can_happen(fault.effect)
        {
            return None;
        }
        if fault.pass > 0 {
            fault.pass -= 1;
            return None;
        }
        let effect = fault.effect;
        if !fault.lasts {
            state.fault = None;
        }
        state.hits += 1;
        Some(effect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_meets_the_chosen_requests() {
        let faults = Faults::default();
        assert_eq!(faults.meet(Request::Write, Kind::Log, |_| true), None);
        let once = Fault {
            request: Request::Write,
            kind: Some(Kind::Log),
            effect: Effect::Fails,
            pass: 1,
            lasts: false,
        };
        faults.set(once);
        let met = [(Request::Sync, Kind::Log), (Request::Write, Kind::Table), (Request::Write, Kind::Log)]
            .map(|(request, kind)| faults.meet(request, kind, |_| true));
        assert_eq!(met, [None; 3]);
        assert_eq!(faults.meet(Request::Write, Kind::Log, |_| true), Some(Effect::Fails));
        assert_eq!((faults.meet(Request::Write, Kind::Log, |_| true), faults.hits()), (None, 1));

        faults.set(Fault { kind: None, effect: Effect::NoSpace, pass: 0, lasts: true, ..once });
        assert!(!faults.is_full());
        for kind in [Kind::Log, Kind::Table, Kind::Manifest, Kind::Other] {
            assert_eq!(faults.meet(Request::Write, kind, |_| false), None);
            assert_eq!(faults.meet(Request::Write, kind, |_| true), Some(Effect::NoSpace));
        }
        assert!(faults.is_full() && faults.hits() == 4);
        faults.lift();
        assert!(!faults.is_full() && faults.meet(Request::Write, Kind::Log, |_| true).is_none());
    }

    #[test]
    fn places_tell_kinds() {
        let kinds =
            |names: &[&str]| -> Vec<Kind> { names.iter().map(|name| Kind::of(Path::new(name))).collect() };
        assert_eq!(kinds(&["/a/shard-0000/wal/0000000001.log", "shard-0000/wal"]), [Kind::Log; 2]);
        assert_eq!(kinds(&["/a/shard-0000/table/7.table", "/a/shard-0000/table"]), [Kind::Table; 2]);
        assert_eq!(kinds(&["/a/shard-0000/MANIFEST-2", "/a/shard-0000"]), [Kind::Manifest; 2]);
        assert_eq!(kinds(&["/a/META", "/a", "LOCK"]), [Kind::Other; 3]);
    }
}
