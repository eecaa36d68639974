//! What one key is, as PROTOCOL.md says: a record with a value, a version and an expiry, where the
//! greater stamp wins.
//!
//! What an answer does not tell is kept as a bound, and becomes exact when a later answer tells it:
//! the stamp that the server gave to a write whose answer was lost, and with it the expiry. Expiry is
//! judged by the server's hybrid clock, which may be ahead of the wall clock by [`AHEAD_MS_MAX`] and
//! behind it by [`LATE_MS_MAX`]; in between a record may be there or not, but once it was found
//! expired it stays away.
//!
//! Values are compared by [`Content`]: short ones whole, long ones by their digest.

use std::fmt;
use std::rc::Rc;

use pinion_engine::{HybridTime, Origin, Stamp};
use pinion_protocol::Version;
use xxhash_rust::xxh3::xxh3_64;

use crate::linear::{Model, Operation};

/// How far the server's clock may be ahead of the wall clock: a client's stamp (500 ms), the clock's
/// ceiling after a restart (200 ms), and room.
pub(super) const AHEAD_MS_MAX: u64 = 1_000;
/// How far the server's clock may be behind the wall clock.
pub(super) const LATE_MS_MAX: u64 = 20;

/// Values up to this length are kept whole.
const WHOLE_BYTES_MAX: usize = 4 << 10;

/// Rank of calls that leave no bytes of their own, and of those whose bytes nobody has seen.
const RANK_USUAL: usize = 1 << 20;
const RANK_UNSEEN: usize = 1 << 21;

/// Bytes of a value that a report shows.
const SHOWN_BYTES_MAX: usize = 32;

/// A value, for comparison.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Content {
    Whole(Rc<[u8]>),
    Digest { bytes: usize, hash: u64 },
}

impl Content {
    pub(super) fn of(value: &[u8]) -> Self {
        if value.len() <= WHOLE_BYTES_MAX {
            Self::Whole(value.into())
        } else {
            Self::Digest { bytes: value.len(), hash: xxh3_64(value) }
        }
    }

    /// Whether two are the same value: one that grew is kept whole, however long.
    fn is(&self, other: &Self) -> bool {
        let digest = |content: &Self| match content {
            Self::Whole(value) => Self::of(value),
            digest => digest.clone(),
        };
        self == other || digest(self) == digest(other)
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Whole(value) => value.len(),
            Self::Digest { bytes, .. } => *bytes,
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(value) => {
                let shown = &value[..value.len().min(SHOWN_BYTES_MAX)];
                write!(f, "{:?} of {} bytes", shown.escape_ascii().to_string(), value.len())
            }
            Self::Digest { bytes, hash } => write!(f, "{hash:016x} of {bytes} bytes"),
        }
    }
}

/// The stamp of the newest write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Newest {
    Exactly(Stamp),
    /// The server's choice, which is not known but above this one.
    Above(Stamp),
}

impl Newest {
    fn bound(self) -> Stamp {
        let (Self::Exactly(stamp) | Self::Above(stamp)) = self;
        stamp
    }

    /// What is known when this stamp was seen; `None` if it cannot be.
    fn seen(self, stamp: Stamp) -> Option<Self> {
        let fits = match self {
            Self::Exactly(known) => known == stamp,
            Self::Above(bound) => stamp > bound,
        };
        fits.then_some(Self::Exactly(stamp))
    }
}

/// When a record expires, in milliseconds of the wall clock: some moment from the first to the
/// second, which are equal when it is known. `u64::MAX` = never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Expiry(u64, u64);

impl Expiry {
    const NEVER: Self = Self(u64::MAX, u64::MAX);

    /// As the protocol says it: 0 = never.
    fn exactly(expiry_ms: u64) -> Self {
        let at = if expiry_ms == 0 { u64::MAX } else { expiry_ms };
        Self(at, at)
    }

    /// Of a write that was stamped at this time or later.
    fn later_than(from_ms: u64, ttl_ms: u64) -> Self {
        if ttl_ms == 0 { Self::NEVER } else { Self(from_ms.saturating_add(ttl_ms), u64::MAX - 1) }
    }

    fn seen(self, expiry_ms: u64) -> Option<Self> {
        let seen = Self::exactly(expiry_ms);
        (self.0 <= seen.0 && seen.0 <= self.1).then_some(seen)
    }
}

/// A key's state.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Record {
    newest: Newest,
    /// `None` = deleted, expired or never written.
    visible: Option<(Content, Expiry)>,
}

impl Record {
    pub(super) const NONE: Self = Self { newest: Newest::Exactly(Stamp::ZERO), visible: None };
}

/// A condition on a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Absent,
    Present,
    Version(Stamp),
}

/// A change of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Put { value: Content, ttl_ms: u64 },
    Delete,
    Add(i64),
    Append(Rc<[u8]>),
    SetExpiry { ttl_ms: u64 },
}

/// What a write was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It stands. The number is that of an update.
    Applied { version: Stamp, expiry_ms: Option<u64>, number: Option<i64> },
    /// The condition did not hold; the version that stood there, `None` = no record. Of an update
    /// that found nothing to change too.
    Failed { current: Option<Stamp> },
    /// None came.
    Unknown,
}

/// What a read found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The value, or its length if only that was asked for; `None` if not even that.
    pub(super) value: Result<Content, Option<usize>>,
    pub(super) version: Stamp,
    pub(super) expiry_ms: u64,
}

/// What was asked of one key, and answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    Read(Option<Found>),
    /// A write that the client stamped.
    Stamped {
        stamp: Stamp,
        change: Change,
        answer: Answer,
    },
    /// One that the server stamps.
    Write {
        condition: Option<Condition>,
        change: Change,
        answer: Answer,
    },
    /// A newer stamp than this one stands.
    Superseded(Stamp),
}

/// A call on one key, and the wall clock's milliseconds between which it had its effect.
#[derive(Debug, Clone)]
pub(super) struct KeyCall {
    pub(super) asked: Asked,
    pub(super) from_ms: u64,
    pub(super) until_ms: u64,
    /// Position of the call in the history.
    pub(super) call: usize,
    /// When to try it if its outcome is unknown.
    pub(super) rank: u64,
}

/// The model.
#[derive(Debug)]
pub(super) struct Records;

impl Model for Records {
    type State = Record;
    type Call = KeyCall;

    fn step(&self, state: &Record, call: &KeyCall, next: &mut Vec<Record>) {
        // The record as it may be found: visible or expired.
        let (mut may_live, mut may_be_gone) = (true, false);
        if let Some((_, expiry)) = &state.visible {
            may_live = call.from_ms < expiry.1.saturating_add(LATE_MS_MAX);
            may_be_gone = expiry.0 <= call.until_ms.saturating_add(AHEAD_MS_MAX) && *expiry != Expiry::NEVER;
        }
        if may_live {
            step(state, call, next);
        }
        if may_be_gone {
            step(&Record { newest: state.newest, visible: None }, call, next);
        }
    }

    fn rank(&self, call: &KeyCall) -> u64 {
        call.rank
    }
}

/// As [`Records::step`], with the record visible if it is there.
fn step(state: &Record, call: &KeyCall, next: &mut Vec<Record>) {
    match &call.asked {
        Asked::Read(None) if state.visible.is_none() => next.push(state.clone()),
        Asked::Read(None) => {}
        Asked::Read(Some(found)) => next.extend(read(state, found)),
        Asked::Superseded(stamp) => match state.newest {
            Newest::Exactly(newest) if newest > *stamp => next.push(state.clone()),
            Newest::Exactly(_) => {}
            Newest::Above(bound) => {
                next.push(Record {
                    newest: Newest::Above(bound.max(*stamp)),
                    visible: state.visible.clone(),
                });
            }
        },
        Asked::Stamped { stamp, change, answer } => {
            let may_stand = *stamp > state.newest.bound();
            if !may_stand && *answer == Answer::Unknown {
                // It came too late to change anything.
                next.push(state.clone());
            }
            if let (Newest::Above(bound), Answer::Unknown) = (state.newest, answer) {
                // As it may have if what the server chose is newer.
                let newest = Newest::Above(bound.max(*stamp));
                next.push(Record { newest, visible: state.visible.clone() });
            }
            if may_stand && answered_stamp(*answer).is_none_or(|version| version == *stamp) {
                next.extend(write(state, change, Some(*stamp), *answer, call.from_ms));
            }
        }
        Asked::Write { condition, change, answer } => match answer {
            Answer::Failed { current } => next.extend(failed(state, *condition, change, *current)),
            Answer::Applied { version, .. } if *version <= state.newest.bound() => {}
            _ => {
                if let Some(held) = holding(state, *condition) {
                    next.extend(write(&held, change, answered_stamp(*answer), *answer, call.from_ms));
                }
            }
        },
    }
}

fn answered_stamp(answer: Answer) -> Option<Stamp> {
    match answer {
        Answer::Applied { version, .. } => Some(version),
        Answer::Failed { .. } | Answer::Unknown => None,
    }
}

fn read(state: &Record, found: &Found) -> Option<Record> {
    let (content, expiry) = state.visible.as_ref()?;
    let same = match &found.value {
        Ok(value) => value.is(content),
        Err(bytes) => bytes.is_none_or(|bytes| bytes == content.bytes()),
    };
    let (newest, expiry) = (state.newest.seen(found.version)?, expiry.seen(found.expiry_ms)?);
    same.then(|| Record { newest, visible: Some((content.clone(), expiry)) })
}

/// The state if the condition holds in it.
fn holding(state: &Record, condition: Option<Condition>) -> Option<Record> {
    match condition {
        None => Some(state.clone()),
        Some(Condition::Absent) => state.visible.is_none().then(|| state.clone()),
        Some(Condition::Present) => state.visible.is_some().then(|| state.clone()),
        Some(Condition::Version(stamp)) => {
            let visible = Some(state.visible.clone()?);
            Some(Record { newest: state.newest.seen(stamp)?, visible })
        }
    }
}

/// The state if the condition does not hold in it and this version stands there.
fn failed(
    state: &Record,
    condition: Option<Condition>,
    change: &Change,
    current: Option<Stamp>,
) -> Option<Record> {
    let refuted = match (condition, current) {
        (Some(Condition::Absent), current) => current.is_some(),
        (Some(Condition::Present), current) => current.is_none(),
        (Some(Condition::Version(wanted)), current) => current != Some(wanted),
        // An update has no condition but that there is something to change.
        (None, current) => matches!(change, Change::SetExpiry { .. }) && current.is_none(),
    };
    match (refuted, current, &state.visible) {
        (true, None, None) => Some(state.clone()),
        (true, Some(current), Some(visible)) => {
            Some(Record { newest: state.newest.seen(current)?, visible: Some(visible.clone()) })
        }
        _ => None,
    }
}

/// The state after a change, if it is possible and was answered so.
fn write(
    state: &Record,
    change: &Change,
    stamp: Option<Stamp>,
    answer: Answer,
    from_ms: u64,
) -> Option<Record> {
    let newest = stamp.map_or(Newest::Above(state.newest.bound()), Newest::Exactly);
    let expiring = |ttl_ms: u64| match stamp {
        Some(stamp) if ttl_ms > 0 => Expiry::exactly(stamp.millis().saturating_add(ttl_ms)),
        _ => Expiry::later_than(from_ms.saturating_sub(LATE_MS_MAX), ttl_ms),
    };
    let (visible, number) = match change {
        Change::Put { value, ttl_ms } => (Some((value.clone(), expiring(*ttl_ms))), None),
        Change::Delete => (None, None),
        Change::Add(amount) => {
            let (before, expiry) = match &state.visible {
                Some((Content::Whole(text), expiry)) => {
                    (std::str::from_utf8(text).ok()?.parse().ok()?, *expiry)
                }
                Some(_) => return None,
                None => (0_i64, Expiry::NEVER),
            };
            let sum = before.checked_add(*amount)?;
            (Some((Content::of(sum.to_string().as_bytes()), expiry)), Some(sum))
        }
        Change::Append(bytes) => {
            let (before, expiry) = match &state.visible {
                Some((Content::Whole(before), expiry)) => (&before[..], *expiry),
                Some(_) => return None,
                None => (&[][..], Expiry::NEVER),
            };
            let longer = [before, bytes].concat();
            // Kept whole, however long: it is appended to again.
            let number = longer.len() as i64;
            (Some((Content::Whole(longer.into()), expiry)), Some(number))
        }
        Change::SetExpiry { ttl_ms } => (Some((state.visible.as_ref()?.0.clone(), expiring(*ttl_ms))), None),
    };
    if let Answer::Applied { expiry_ms, number: answered, .. } = answer {
        let expiry = visible.as_ref().map_or(Expiry::NEVER, |(_, expiry)| *expiry);
        let fits = expiry_ms.is_none_or(|expiry_ms| expiry.seen(expiry_ms).is_some());
        if !fits || answered.is_some_and(|answered| number.is_some_and(|number| number != answered)) {
            return None;
        }
    }
    Some(Record { newest, visible })
}

/// Ranks calls on one key: those whose effect was seen come first, and what was appended comes in
/// the order in which it was seen.
pub(super) fn rank(operations: &mut [Operation<KeyCall>]) {
    let values = |operation: &Operation<KeyCall>| match &operation.call.asked {
        Asked::Read(Some(Found { value: Ok(Content::Whole(value)), .. })) => Some(Rc::clone(value)),
        _ => None,
    };
    let mut seen: Vec<Rc<[u8]>> = operations.iter().filter_map(values).collect();
    seen.sort_by_key(|value| std::cmp::Reverse(value.len()));
    for Operation { call, .. } in operations {
        let (Asked::Write { change, .. } | Asked::Stamped { change, .. }) = &call.asked else { continue };
        let place = match change {
            Change::Append(bytes) => seen
                .iter()
                .find_map(|value| value.windows(bytes.len().max(1)).position(|window| window == &bytes[..])),
            Change::Put { value: Content::Whole(value), .. } => seen.contains(value).then_some(0),
            _ => Some(RANK_USUAL),
        };
        call.rank = place.unwrap_or(RANK_UNSEEN) as u64;
    }
}

/// The stamp in a version that a server gave out; `None` = no record.
pub(super) fn stamp_of(version: Version) -> Option<Stamp> {
    let stamp = version.0.first_chunk().map(|bytes| Stamp::from_bytes(*bytes))?;
    (!version.is_absent()).then_some(stamp)
}

/// The version of a stamp.
pub(super) fn version_of(stamp: Stamp) -> Version {
    let mut version = [0; 16];
    version[..Stamp::BYTES].copy_from_slice(&stamp.to_bytes());
    Version(version)
}

/// A stamp of a time and an origin.
pub(super) fn stamp(time: u64, origin: u32) -> Stamp {
    Stamp { time: HybridTime(time), origin: Origin(origin) }
}
