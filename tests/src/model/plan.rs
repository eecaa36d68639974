//! A history written down: what is done, step by step, with which sizes.
//!
//! A plan is plain data, so that it can be run twice, made smaller, and kept in a file. Nothing in
//! it depends on what the engine answers, and any part of its steps is a plan again: keys and
//! namespaces are indexes into what there is (taken modulo its number), and what depends on the
//! present state ("the version that stands there") is looked up in the reference when it is used.
//!
//! Times are multiples of [`UNIT_MS`] with remainders that keep all comparisons far from a tie
//! (lives, lateness, the retry window, whole units of waiting), because two runs of one plan take
//! slightly different times and must still give the same answers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The grid of times, in milliseconds.
pub(super) const UNIT_MS: u64 = 60_000;
/// A life ends so long after a whole unit.
const LIFE_REST_MS: u64 = 35_000;
/// A late stamp lies so far before a whole unit.
const LATE_REST_MS: u64 = 20_000;
/// The retry window ends so long after a whole unit.
const WINDOW_REST_MS: u64 = 40_000;
/// What all operations of a run may take in virtual time without leaving the grid.
pub(super) const DRIFT_MAX: Duration = Duration::from_secs(10);

// The remainders that two times can differ by, all far from whole units: ends of lives, late stamps,
// lives of late values, the window's end against late stamps.
const _: () = {
    let rests = [LIFE_REST_MS, LATE_REST_MS, LIFE_REST_MS - LATE_REST_MS, WINDOW_REST_MS - LATE_REST_MS];
    let drift_ms = DRIFT_MAX.as_millis() as u64;
    let mut at = 0;
    while at < rests.len() {
        assert!(rests[at] > drift_ms && UNIT_MS - rests[at] > drift_ms);
        at += 1;
    }
};

/// Which of the two runs of a plan; the second has other sizes and more steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    First,
    Second,
}

/// One thing for each run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pair<T>(pub T, pub T);

impl<T> Pair<T> {
    pub(super) fn of(&self, side: Side) -> &T {
        match side {
            Side::First => &self.0,
            Side::Second => &self.1,
        }
    }
}

/// A history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    /// Seeds of the worlds: the order of tasks and the time that I/O takes.
    pub worlds: Pair<u64>,
    /// Blocks of the disks, in bytes.
    pub disk_blocks: Pair<u32>,
    /// Whether there is a second run, with the same answers.
    pub twice: bool,
    /// Whether dropping every namespace ends the history, after which no table may be left.
    pub purge: bool,
    /// Retry window, in units (and a rest). It stays: a window that grows would let writes in that
    /// are older than tombstones dropped under the small one.
    pub window_units: u8,
    /// Longest deadline, in units.
    pub deadline_units: u8,
    pub keys: Vec<KeyShape>,
    /// Sizes of the first life.
    pub setup: Pair<Setup>,
    pub steps: Vec<Step>,
}

impl Plan {
    pub(super) fn window_ms(&self) -> u64 {
        u64::from(self.window_units) * UNIT_MS + WINDOW_REST_MS
    }
}

/// A key: `head`, then `count` times `fill`, then `tail`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeyShape {
    pub head: Vec<u8>,
    pub fill: u8,
    pub count: u16,
    pub tail: Vec<u8>,
}

impl KeyShape {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let fill = vec![self.fill; usize::from(self.count)];
        [self.head.as_slice(), &fill, &self.tail].concat()
    }
}

/// The sizes of one life of the shard: see `pinion_engine::Options`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Setup {
    pub log_segment_kib: u32,
    pub log_queue_kib: u32,
    pub log_block_pages: u32,
    pub log_spare_segments: u32,
    pub pending_operations: u32,
    pub memtable_kib: u64,
    pub table_kib: u64,
    pub level_base_kib: u64,
    pub level_growth: u32,
    pub runs: u32,
    #[serde(default = "percent_by_default")]
    pub runs_percent: u32,
    pub block_cache_kib: u64,
    pub row_cache_kib: u64,
    pub step_records: u32,
    pub step_bytes: u32,
    pub scan_records: u32,
    pub scan_bytes: u32,
    pub sweep_s: u64,
}

/// Of plans that were kept before it was drawn.
fn percent_by_default() -> u32 {
    pinion_engine::Options::default().runs_percent
}

/// One thing that is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    Write(Write),
    /// Started one after the other, then awaited; each on its own key.
    Together(Vec<Write>),
    Batch(Batch),
    Get(Get),
    Scan(Scan),
    Refused(Refused),
    Flush,
    Settle,
    /// Compares everything that can be read.
    CheckAll,
    /// Time passes, in units.
    Elapse(u8),
    /// A little time passes, in milliseconds.
    Pause(u8),
    /// The wall clock is set forward or back, in units.
    ShiftClock(i8),
    /// A clean restart with other sizes.
    Reopen(Pair<Setup>),
    /// The process ends at once, with nothing in flight.
    Kill(Pair<Setup>),
    /// The process ends so many turns after writes were started; only in plans that run once.
    KillDuring(Vec<Write>, u8, Pair<Setup>),
    MakeNamespace,
    DropNamespace(u8),
    /// Only in the second run.
    OnlySecond(Box<Step>),
}

/// A write of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Write {
    pub namespace: u8,
    pub key: u16,
    pub change: Change,
    pub proposed: Proposed,
    /// How long a value lives that an update makes.
    pub created: Life,
    pub buffered: bool,
    /// Whether it carries a deadline, which is far away.
    pub deadline: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Change {
    Put(Value, Life),
    Delete,
    PutIf(Wanted, Value, Life),
    DeleteIf(Wanted),
    Add(i64),
    Append(Value),
    SetRange(u32, Value),
    SetExpiry(Life),
}

/// The condition of a conditional write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Wanted {
    Absent,
    Present,
    /// The version that stands there, visible or not.
    Standing,
    /// A version of the same time by somebody else.
    Other,
    /// The version that no record has.
    Zero,
    /// Nothing: it always holds.
    Always,
    /// The bytes that stand there, visible or not; empty ones if there are none.
    Bytes,
    /// A value that never expires.
    Lasting,
    /// A value that expires some time.
    Mortal,
}

/// The stamp that a client proposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Proposed {
    Nothing,
    /// So many units late, and a rest.
    Late(u8),
    /// Ahead of the wall clock, as far as is allowed.
    Ahead,
    /// The last write of this key that carried a client's stamp, repeated as it was.
    Again,
}

impl Proposed {
    /// How late, in milliseconds.
    pub(super) fn late_ms(units: u8) -> u64 {
        u64::from(units) * UNIT_MS + LATE_REST_MS
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Life {
    Forever,
    /// So many units and a rest.
    Units(u8),
    Keep,
}

impl Life {
    pub(super) fn millis(units: u8) -> u64 {
        u64::from(units) * UNIT_MS + LIFE_REST_MS
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Value {
    /// So many bytes, counting up from the second number.
    Bytes(u16, u8),
    /// Decimal text, for `Add`.
    Number(i64),
}

impl Value {
    pub(super) fn bytes(self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes, first) => (0..bytes).map(|at| first.wrapping_add(at as u8)).collect(),
            Self::Number(number) => number.to_string().into_bytes(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Batch {
    pub elements: Vec<Element>,
    /// Repeats the last batch that carried a stamp if it says so.
    pub proposed: Proposed,
    pub buffered: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Element {
    pub namespace: u8,
    pub key: u16,
    /// `None` deletes.
    pub value: Option<Value>,
    pub life: Life,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Get {
    pub namespace: u8,
    pub key: u16,
    /// The way that may read a table, although memory might have answered.
    pub asynchronous: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Scan {
    pub namespace: u8,
    pub kind: Kind,
    /// From the lesser to the greater of two keys.
    pub bounds: Option<(u16, u16)>,
    pub reverse: bool,
    /// What is asked for in a page, and what the caller takes of it; in turn.
    pub pages: Vec<(u16, u16)>,
    /// One after each page, the rest at the end.
    pub between: Vec<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    /// The partition of a key.
    Tag(u16),
    /// Partitions, both included; the lesser first.
    Placed(u16, u16),
    Ordered,
}

/// What must be refused and change nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Refused {
    EmptyKey,
    LongKey,
    LargeValue,
    FarAhead,
    StampedCondition,
    EmptyBatch,
    LongBatch,
    LargeBatch,
    PastDeadline,
}
