//! The ledger: what was asked of a shard, what it answered, and what it may therefore hold.
//!
//! Every write is an [`Attempt`]. It entered the log at one moment: writes that look nothing up in
//! the step that issued them, others somewhere between issue and answer. The log is one order for all
//! of them, `sync` and `buffered` alike, and what a crash leaves is a prefix of it. That is the whole
//! oracle for crashes ([`Ledger::recovered`]): there must be one moment such that every key shows
//! what the writes before it left, and none of the writes that had to survive comes after it. A hole,
//! a lost acknowledged write, half a batch or something from the future leaves no such moment.
//!
//! While the shard runs, every read must show a version that may be there, not older than any that
//! was answered before the read began, nor than any that was read before.
//!
//! Versions are ordered by stamps, which are known once answered or read and lie between two readings
//! of the shard's clock before. A stamp belongs to one write for ever, unless damage took the write.

mod answers;
mod attempt;
mod effects;
mod recovery;
mod unsure;
mod views;

pub(crate) use attempt::{Action, Attempt, Event, Fate, Number};
pub use recovery::Recovered;

use std::collections::BTreeMap;

use pinion_engine::{Durability, HybridTime, Stamp};
use pinion_env::Monotonic;

/// How far a shard's clock may be ahead of every wall clock it has seen, in milliseconds: what
/// clients may propose and what a crash may add.
const CLOCK_AHEAD_MS_MAX: u64 = 1_000;

/// A buffered write that was answered so long before a crash has reached the device.
const BUFFERED_NANOS_MAX: u128 = 1_000_000_000;

/// What a reader was shown under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The value.
    pub(crate) value: Vec<u8>,
    /// Its version.
    pub(crate) stamp: Stamp,
    /// Its expiry.
    pub(crate) expiry_ms: u64,
}

impl Seen {
    fn brief(seen: Option<&Self>) -> String {
        let Some(Self { value, stamp, expiry_ms }) = seen else { return "nothing".to_owned() };
        format!("{} stamp {:x} expiry {expiry_ms}", attempt::brief(value), stamp.time.0)
    }
}

/// When a read took place: the ledger's time at its start, the shard's clock around it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// The ledger's time when it began.
    pub(crate) began: Event,
    /// The shard's clock when it began.
    pub(crate) before_ms: u64,
    /// The shard's clock when it ended.
    pub(crate) after_ms: u64,
}

/// A key and the writes on it that still matter, in order of issue.
#[derive(Debug, Clone)]
struct KeyState {
    label: String,
    entries: Vec<Entry>,
    /// The newest version read in this life of the node.
    seen: Stamp,
    /// When a read of this life last found nothing.
    hidden_at: Event,
    /// Versions that were found to have expired.
    expired: Vec<Stamp>,
}

#[derive(Debug, Clone)]
struct Entry {
    number: Number,
    /// Which of the write's actions.
    action: usize,
    /// Answered as superseded, in a batch that was applied otherwise.
    superseded: bool,
    /// A crash and a check lie behind it, and its value was not there.
    dead: bool,
    /// What an update left: the possibilities, once it is answered or seen.
    outcomes: Outcomes,
}

/// What is known of what an update left.
#[derive(Debug, Clone)]
enum Outcomes {
    /// It follows from what it may have found.
    Open,
    /// One of these.
    Known(Vec<Outcome>),
    /// There were too many possibilities.
    Anything,
}

/// A value and when it expires, at the earliest and at the latest; 0 = never.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    value: Vec<u8>,
    expiry_ms: (u64, u64),
}

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Ledger {
    attempts: Vec<Attempt>,
    /// When each was answered, in virtual time.
    answered_at: Vec<Monotonic>,
    keys: Vec<KeyState>,
    stamps: BTreeMap<Stamp, Number>,
    now: Event,
    life: u32,
    open: usize,
    /// Writes before this one are settled: every crash leaves them.
    settled: Number,
    /// The newest time of a write that survives.
    kept_time: HybridTime,
    kept_last: Number,
    wall_max_ms: u64,
    /// The wall clock as it was noted last.
    wall_ms: u64,
    /// When the read under way began: it may show what was there then.
    reading_since: Event,
    retry_window_ms: u64,
    value_bytes_max: usize,
    /// A buffered write that was answered so long before a crash has reached the device.
    buffered_nanos_max: u128,
    /// Writes that nothing can bring to light are forgotten; damage of the log can.
    forgets: bool,
    /// Damage may have taken writes that were durable, and with them what the shard knew of their stamps.
    doubted: bool,
}

impl Ledger {
    /// About keys of these names, on a shard with this retry window and largest value.
    pub(crate) fn new(labels: Vec<String>, retry_window_ms: u64, value_bytes_max: u32) -> Self {
        let key = |label| KeyState {
            label,
            entries: Vec::new(),
            seen: Stamp::ZERO,
            hidden_at: 0,
            expired: Vec::new(),
        };
        Self {
            attempts: Vec::new(),
            answered_at: Vec::new(),
            keys: labels.into_iter().map(key).collect(),
            stamps: BTreeMap::new(),
            now: 1,
            life: 0,
            open: 0,
            settled: 0,
            kept_time: HybridTime::default(),
            kept_last: 0,
            wall_max_ms: 0,
            wall_ms: 0,
            reading_since: Event::MAX,
            retry_window_ms,
            value_bytes_max: value_bytes_max as usize,
            buffered_nanos_max: BUFFERED_NANOS_MAX,
            forgets: true,
            doubted: false,
        }
    }

    /// Writes that were issued and not answered.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// All writes.
    pub(crate) fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// The number that the next write gets.
    pub(crate) fn next_number(&self) -> Number {
        self.attempts.len()
    }

    /// Takes notice of clocks: the wall's, and the shard's, which follows it.
    ///
    /// # Panics
    /// When the shard's clock is further ahead than anything explains: what it calls expired is not.
    pub(crate) fn note_clocks(&mut self, wall_ms: u64, clock: HybridTime) {
        self.wall_max_ms = self.wall_max_ms.max(wall_ms);
        self.wall_ms = wall_ms;
        let limit_ms = self.clock_ms_max();
        assert!(clock.millis() <= limit_ms, "the clock stands at {}, over {limit_ms}", clock.millis());
    }

    fn clock_ms_max(&self) -> u64 {
        self.wall_max_ms + CLOCK_AHEAD_MS_MAX
    }

    /// A read begins now; one at a time. [`Ledger::read_ended`] ends it.
    pub(crate) fn read_begins(&mut self) -> Event {
        self.reading_since = self.now;
        self.now
    }

    /// What the read showed has been told.
    pub(crate) fn read_ended(&mut self) {
        self.reading_since = Event::MAX;
    }

    /// Newest stamp that was read or answered under a key; `None` if there is none.
    pub(crate) fn newest_stamp(&self, key: usize) -> Option<Stamp> {
        let entries = self.keys[key].entries.iter();
        let known = entries
            .map(|entry| &self.attempts[entry.number])
            .filter(|attempt| attempt.is_stamped() && matches!(attempt.fate, Fate::Applied | Fate::Open));
        known.map(|attempt| attempt.low).max()
    }

    /// Writes on a key that are not answered and whose outcome depends on what they find.
    pub(crate) fn open_decisions(&self, key: usize) -> usize {
        let entries = self.keys[key].entries.iter();
        let open = entries.map(|entry| &self.attempts[entry.number]);
        open.filter(|attempt| attempt.fate == Fate::Open && !attempt.is_direct()).count()
    }

    /// A write is about to be given to the shard, whose clock stands at `clock`.
    pub(crate) fn issue(
        &mut self,
        actions: Vec<(usize, Action)>,
        request: Request,
        clock: HybridTime,
    ) -> Number {
        self.now += 1;
        let number = self.attempts.len();
        let (low, high) = Attempt::stamp_range(request.proposed, clock);
        let attempt = Attempt {
            actions,
            condition: request.condition,
            durability: request.durability,
            proposed: request.proposed,
            repeats: request.repeats,
            batch: request.batch,
            life: self.life,
            issued: self.now,
            entered: Event::MAX,
            low,
            high,
            fate: Fate::Open,
            answered: Event::MAX,
            durable: false,
        };
        let entered = if attempt.is_direct() { self.now } else { Event::MAX };
        for (action, (key, _)) in attempt.actions.iter().enumerate() {
            // Of several operations of a batch on one key the last wins.
            if attempt.actions[action + 1..].iter().any(|(later, _)| later == key) {
                continue;
            }
            let entry = Entry { number, action, superseded: false, dead: false, outcomes: Outcomes::Open };
            self.keys[*key].entries.push(entry);
        }
        self.attempts.push(Attempt { entered, ..attempt });
        self.answered_at.push(Monotonic::default());
        self.open += 1;
        number
    }

    /// The call that issued the write has returned; the shard's clock stands at `clock`.
    pub(crate) fn issued(&mut self, number: Number, clock: HybridTime) {
        let attempt = &mut self.attempts[number];
        if attempt.is_direct() && attempt.fate == Fate::Open {
            let origin = pinion_engine::Origin(u32::MAX);
            attempt.high = attempt.high.min(Stamp { time: clock, origin });
        }
    }

    /// All that was answered as applied at this moment or before survives from now on: the shard
    /// has written its memtables out, or was closed.
    pub(crate) fn flushed(&mut self, began: Event) {
        for number in self.settled..self.attempts.len() {
            if self.attempts[number].fate == Fate::Applied && self.attempts[number].answered <= began {
                self.keep(number);
            }
        }
    }

    /// The node has ended in the middle of everything.
    pub(crate) fn crashed(&mut self, at: Monotonic) {
        self.now += 1;
        self.open = 0;
        self.life += 1;
        self.reading_since = Event::MAX;
        for number in self.settled..self.attempts.len() {
            let attempt = &mut self.attempts[number];
            attempt.entered = attempt.entered.min(self.now);
            let answered = attempt.fate == Fate::Applied;
            if answered && at.since(self.answered_at[number]).as_nanos() > self.buffered_nanos_max {
                self.keep(number);
            }
        }
    }

    /// The shard was closed: everything answered is kept, and what was still being looked up never
    /// entered the log.
    ///
    /// # Panics
    /// When a write that was in the log is not answered.
    pub(crate) fn closed(&mut self) {
        self.now += 1;
        for number in self.settled..self.attempts.len() {
            if self.attempts[number].fate == Fate::Open {
                if self.attempts[number].is_direct() {
                    self.fail(number, "not answered by a shard that was closed");
                }
                self.refuse(number);
            }
        }
        self.flushed(Event::MAX);
        self.life += 1;
    }

    /// A write was refused by a shard that is closing.
    pub(crate) fn refuse(&mut self, number: Number) {
        let attempt = &mut self.attempts[number];
        attempt.fate = Fate::Void;
        attempt.entered = attempt.entered.min(self.now);
        self.open -= 1;
    }

    /// A write must survive every crash.
    fn keep(&mut self, number: Number) {
        let attempt = &mut self.attempts[number];
        attempt.durable = true;
        if attempt.is_stamped() {
            let time = attempt.low.time;
            self.keep_time(number, time);
        }
    }

    /// Whether a stamp can be that of a write: nobody else has it, and it lies in its range.
    fn may_own(&self, number: Number, stamp: Stamp) -> bool {
        let attempt = &self.attempts[number];
        let owner = self.stamps.get(&stamp);
        attempt.may_have(stamp) && owner.is_none_or(|owner| *owner == attempt.repeats.unwrap_or(number))
    }

    /// Gives a stamp to a write, or finds that it has it.
    fn own_stamp(&mut self, number: Number, stamp: Stamp) {
        let content = self.attempts[number].repeats.unwrap_or(number);
        let owner = *self.stamps.entry(stamp).or_insert(content);
        if owner != content {
            let other = &self.attempts[owner];
            self.fail(number, &format!("{stamp:?} is the stamp of write {owner} too: {other:?}"));
        }
        let attempt = &self.attempts[number];
        if !attempt.may_have(stamp) {
            self.fail(number, &format!("{stamp:?} is not between {:?} and {:?}", attempt.low, attempt.high));
        }
        let attempt = &mut self.attempts[number];
        (attempt.low, attempt.high) = (stamp, stamp);
        if attempt.durable {
            self.keep_time(number, stamp.time);
        }
    }

    /// The clock never stands before this time again.
    fn keep_time(&mut self, number: Number, time: HybridTime) {
        if time > self.kept_time {
            (self.kept_time, self.kept_last) = (time, number);
        }
    }

    /// An update has left what a reader was shown.
    fn note_outcome(&mut self, key: usize, place: usize, seen: &Seen) {
        let entry = &mut self.keys[key].entries[place];
        if self.attempts[entry.number].actions[entry.action].1.is_update() {
            let expiry_ms = (seen.expiry_ms, seen.expiry_ms);
            entry.outcomes = Outcomes::Known(vec![Outcome { value: seen.value.clone(), expiry_ms }]);
        }
    }

    fn is_sync(&self, number: Number) -> bool {
        self.attempts[number].durability == Durability::Sync
    }

    /// Forgets writes on a key that nothing can bring to light any more.
    fn prune(&mut self, key: usize) {
        let entries = &self.keys[key].entries;
        if !self.forgets
            || entries.len() < 4
            || entries.iter().any(|entry| self.attempts[entry.number].fate == Fate::Open)
        {
            return;
        }
        let kept = entries.iter().filter(|entry| !entry.superseded).map(|entry| &self.attempts[entry.number]);
        let floor = kept.filter(|attempt| {
            attempt.durable && attempt.fate == Fate::Applied && attempt.answered <= self.reading_since
        });
        let Some(floor) = floor.map(|attempt| attempt.low).max() else { return };
        let attempts = &self.attempts;
        self.keys[key].entries.retain(|entry| {
            let attempt = &attempts[entry.number];
            attempt.high >= floor && attempt.fate != Fate::Void
        });
    }

    /// Fails the history over a write.
    fn fail(&self, number: Number, what: &str) -> ! {
        let keys: Vec<String> =
            self.attempts[number].actions.iter().map(|(key, _)| self.describe(*key)).collect();
        panic!("write {number}: {what}\n{}", keys.join("\n"));
    }

    /// What is known of a key, for the report of a failure.
    fn describe(&self, key: usize) -> String {
        use std::fmt::Write as _;
        let state = &self.keys[key];
        let mut text =
            format!("key {key} {}, seen {:?}, nothing at {}", state.label, state.seen, state.hidden_at);
        for entry in &state.entries {
            let attempt = &self.attempts[entry.number];
            let action = attempt.actions[entry.action].1.brief();
            let outcomes = if let Outcomes::Known(outcomes) = &entry.outcomes { &outcomes[..] } else { &[] };
            let outcomes: Vec<String> = outcomes
                .iter()
                .map(|outcome| {
                    format!(" -> {} expiry {:?}", attempt::brief(&outcome.value), outcome.expiry_ms)
                })
                .collect();
            let outcomes = outcomes.concat();
            let _ = write!(
                text,
                "\n  {}: {:?} {:?} issued {} entered {} answered {} durable {} stamp {:x}..{:x} dead {} {action}{outcomes}",
                entry.number,
                attempt.fate,
                attempt.durability,
                attempt.issued,
                attempt.entered,
                attempt.answered,
                attempt.durable,
                attempt.low.time.0,
                attempt.high.time.0,
                entry.dead,
            );
        }
        text
    }
}

/// What goes with a write.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Request {
    /// When it is answered.
    pub(crate) durability: Durability,
    /// What must hold.
    pub(crate) condition: Option<pinion_engine::Condition<'static>>,
    /// The client's stamp.
    pub(crate) proposed: Option<Stamp>,
    /// The write that this one repeats.
    pub(crate) repeats: Option<Number>,
    /// It is a batch, even of one.
    pub(crate) batch: bool,
}
