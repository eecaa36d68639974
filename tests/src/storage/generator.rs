//! Operations drawn from the seed, given what the ledger knows.

use pinion_engine::{Condition, Durability, HybridTime, Lifetime, Origin, Stamp};

use super::ledger::{Action, Ledger, Number, Request};
use super::shape::{Shape, VALUE_BYTES_MAX};
use crate::world::Random;

/// What to do next.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Write: one key, or a batch.
    Write {
        /// Keys, by their index, and what is done to them.
        actions: Vec<(usize, Action)>,
        /// What goes with it.
        request: Request,
    },
    /// Read one key.
    Get(usize),
    /// Read a range.
    Scan,
    /// Write the memtable out.
    Flush,
    /// Wait so many microseconds.
    Pause(u64),
}

/// Writes on one key whose outcome depends on what they find, at the same time: the oracle goes
/// through all orders.
const DECISIONS_MAX: usize = 2;

impl Step {
    /// The next step. `clock` is the shard's.
    pub(crate) fn draw(random: &mut Random, shape: &Shape, ledger: &Ledger, clock: HybridTime) -> Self {
        let weights = shape.weights.all();
        let mut drawn = random.below(weights.iter().sum());
        let mut choice = 0;
        while drawn >= weights[choice] {
            drawn -= weights[choice];
            choice += 1;
        }
        let mut draw = Draw { random, shape, ledger, clock };
        match choice {
            0 => draw.put(),
            1 => draw.write(Action::Delete, Request::default()),
            2 => draw.stamped(),
            3 => draw.repeat().unwrap_or_else(|| draw.stamped()),
            4 => draw.conditional(),
            5 => draw.update(),
            6 => draw.batch(),
            7 => Self::Get(draw.key()),
            8 => Self::Scan,
            9 => Self::Flush,
            _ => Self::Pause(draw.pause_us()),
        }
    }
}

struct Draw<'d> {
    random: &'d mut Random,
    shape: &'d Shape,
    ledger: &'d Ledger,
    clock: HybridTime,
}

impl Draw<'_> {
    fn key(&mut self) -> usize {
        let keys = self.shape.keys.len() as u64;
        // Half of all go to a quarter of the keys.
        let bound = if self.random.one_in(2) { keys.div_ceil(4) } else { keys };
        self.random.below(bound) as usize
    }

    fn one_in(&mut self, times: u64) -> bool {
        times > 0 && self.random.one_in(times)
    }

    fn durability(&mut self) -> Durability {
        if self.one_in(self.shape.buffered_one_in) { Durability::Buffered } else { Durability::Sync }
    }

    fn lifetime(&mut self) -> Lifetime {
        if self.one_in(self.shape.expiring_one_in) {
            Lifetime::Millis(1 + self.random.below(self.shape.lifetime_ms_max))
        } else {
            Lifetime::Forever
        }
    }

    /// A value that no other write has: it begins with the number of the write that is next.
    fn value(&mut self, key: usize, index: usize) -> Vec<u8> {
        let number = self.ledger.next_number();
        if self.shape.keys[key].counts {
            return format!("{}", (number * 32 + index) * 1_000).into_bytes();
        }
        let large = self.one_in(self.shape.large_one_in);
        let bytes_max = if large { u64::from(VALUE_BYTES_MAX) } else { self.shape.value_bytes };
        let bytes = self.random.below(bytes_max) as usize;
        let mut value = format!("w{number}.{index}:").into_bytes();
        let fill = self.random.word();
        while value.len() < bytes {
            value.push((fill >> (value.len() % 8 * 8)) as u8);
        }
        value.truncate(VALUE_BYTES_MAX as usize);
        value
    }

    fn put_on(&mut self, key: usize, index: usize) -> Action {
        Action::Put { value: self.value(key, index), lifetime: self.lifetime() }
    }

    fn write(&mut self, action: Action, request: Request) -> Step {
        let key = self.key();
        let request = Request { durability: self.durability(), ..request };
        Step::Write { actions: vec![(key, action)], request }
    }

    fn put(&mut self) -> Step {
        let key = self.key();
        let action = self.put_on(key, 0);
        let request = Request { durability: self.durability(), ..Request::default() };
        Step::Write { actions: vec![(key, action)], request }
    }

    /// A stamp that no other write has: late, sometimes early, sometimes too late.
    fn stamp(&mut self) -> Stamp {
        let now_ms = self.clock.millis();
        let window_ms = self.shape.options.retry_window_ms_max;
        let millis = match self.random.below(8) {
            0 => now_ms + self.random.below(400),
            1 => now_ms.saturating_sub(window_ms + self.random.below(50)),
            2 | 3 => now_ms,
            _ => now_ms.saturating_sub(self.random.below(window_ms.min(40) + 2)),
        };
        let origin = Origin(Origin::CLIENT_BIT | self.ledger.next_number() as u32);
        Stamp { time: HybridTime((millis << 16) | self.random.below(1 << 10)), origin }
    }

    fn stamped(&mut self) -> Step {
        let stamp = self.stamp();
        let count = if self.one_in(6) { 1 + self.random.below(5) as usize } else { 1 };
        let actions = self.actions(count);
        let request = Request {
            durability: self.durability(),
            proposed: Some(stamp),
            batch: count > 1 || self.one_in(10),
            ..Request::default()
        };
        Step::Write { actions, request }
    }

    /// A client that got no answer, or not the one it wanted, tries again.
    fn repeat(&mut self) -> Option<Step> {
        let attempts = self.ledger.attempts();
        if attempts.is_empty() {
            return None;
        }
        let reach = attempts.len().min(60) as u64;
        for _ in 0..20 {
            let number = attempts.len() - 1 - self.random.below(reach) as usize;
            let attempt = &attempts[number];
            if attempt.proposed.is_some() && attempt.condition.is_none() {
                let origin: Number = attempt.repeats.unwrap_or(number);
                let request = Request {
                    durability: self.durability(),
                    proposed: attempt.proposed,
                    repeats: Some(origin),
                    batch: attempt.batch,
                    condition: None,
                };
                return Some(Step::Write { actions: attempt.actions.clone(), request });
            }
        }
        None
    }

    fn conditional(&mut self) -> Step {
        let key = self.key();
        if self.ledger.open_decisions(key) >= DECISIONS_MAX {
            return Step::Get(key);
        }
        let newest = self.ledger.newest_stamp(key);
        let condition = match (self.random.below(4), newest) {
            (0, _) => Condition::Absent,
            (1, _) | (_, None) => Condition::Present,
            (2, Some(stamp)) => Condition::VersionIs(stamp),
            (_, Some(stamp)) if self.one_in(3) => Condition::VersionIs(Stamp { origin: Origin(77), ..stamp }),
            (_, Some(stamp)) => Condition::VersionIs(stamp),
        };
        let action = if self.one_in(3) { Action::Delete } else { self.put_on(key, 0) };
        let request =
            Request { durability: self.durability(), condition: Some(condition), ..Request::default() };
        Step::Write { actions: vec![(key, action)], request }
    }

    fn update(&mut self) -> Step {
        let key = self.key();
        if self.ledger.open_decisions(key) >= DECISIONS_MAX {
            return Step::Get(key);
        }
        let tag = format!("+{}", self.ledger.next_number()).into_bytes();
        let action = if self.shape.keys[key].counts && !self.one_in(8) {
            Action::Add(self.random.between(1, 999) as i64 - 300)
        } else {
            match self.random.below(4) {
                0 | 1 => Action::Append(tag),
                2 => Action::SetRange { offset: self.random.below(150) as u32, bytes: tag },
                _ => Action::SetExpiry(self.lifetime()),
            }
        };
        let request = Request { durability: self.durability(), ..Request::default() };
        Step::Write { actions: vec![(key, action)], request }
    }

    fn batch(&mut self) -> Step {
        let count = self.random.between(1, 10) as usize;
        let actions = self.actions(count);
        let request = Request { durability: self.durability(), batch: true, ..Request::default() };
        Step::Write { actions, request }
    }

    /// Puts and deletes that fit one batch.
    fn actions(&mut self, count: usize) -> Vec<(usize, Action)> {
        let mut bytes = 0;
        let mut actions = Vec::new();
        for index in 0..count {
            let key = self.key();
            let action = if self.one_in(4) { Action::Delete } else { self.put_on(key, index) };
            bytes += self.shape.keys[key].user.len();
            bytes += if let Action::Put { value, .. } = &action { value.len() } else { 0 };
            if bytes > self.shape.options.batch_bytes_max as usize {
                break;
            }
            actions.push((key, action));
        }
        actions
    }

    fn pause_us(&mut self) -> u64 {
        match self.random.below(12) {
            0 => self.random.below(400_000),
            1..4 => self.random.below(20_000),
            _ => self.random.below(1_000),
        }
    }
}
