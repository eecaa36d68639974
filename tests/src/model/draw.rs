//! Draws a plan from a seed.
//!
//! Each history has its own weights (swarm testing: Groce and others, 2012): what is rare on
//! average fills some histories and is missing from others, which reaches states that a mixture of
//! everything never does.

use pinion_engine::Partition;

use super::keys::draw_keys;
use super::plan::{
    Batch, Change, Element, Get, Kind, Life, Pair, Plan, Proposed, Refused, Scan, Setup, Step, Value, Wanted,
    Write,
};
use super::run::PARTITIONS;
use super::setup::{VALUE_BYTES_MAX, draw_disk_block};
use crate::world::Random;

/// What a step is drawn from, with its usual weight.
const STEPS: [(Draw, u64); 17] = [
    (Draw::Put, 300),
    (Draw::Delete, 80),
    (Draw::Conditional, 80),
    (Draw::Update, 100),
    (Draw::Batch, 80),
    (Draw::Together, 40),
    (Draw::Get, 120),
    (Draw::Scan, 80),
    (Draw::Refused, 12),
    (Draw::Flush, 14),
    (Draw::Settle, 12),
    (Draw::CheckAll, 4),
    (Draw::Time, 30),
    (Draw::Reopen, 14),
    (Draw::Kill, 10),
    (Draw::MakeNamespace, 8),
    (Draw::DropNamespace, 6),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Draw {
    Put,
    Delete,
    Conditional,
    Update,
    Batch,
    Together,
    Get,
    Scan,
    Refused,
    Flush,
    Settle,
    CheckAll,
    Time,
    Reopen,
    Kill,
    MakeNamespace,
    DropNamespace,
}

/// The plan of a seed.
pub(super) fn draw_plan(seed: u64) -> Plan {
    let mut random = Random::labelled(seed, 0x0de1);
    let twice = !random.one_in(4);
    let keys = draw_keys(&mut random);
    let weights = STEPS.map(|(_, usual)| match random.below(5) {
        0 => usual / 8,
        1 => usual * 3,
        _ => usual,
    });
    let long = random.one_in(24);
    let steps = if long { random.between(300, 700) } else { random.between(30, 130) };
    let value_bytes = [24, 100, 400, 1500][random.below(if long { 4 } else { 3 }) as usize];
    // How often the second run does something between two steps, in thousandths.
    let inserted = [0, 10, 40, 100][random.below(4) as usize];
    let mut drawer = Drawer { random, keys: keys.len() as u64, value_bytes, weights, twice };
    let mut plan = Plan {
        worlds: Pair(drawer.random.word(), drawer.random.word()),
        disk_blocks: Pair(draw_disk_block(&mut drawer.random), draw_disk_block(&mut drawer.random)),
        twice,
        purge: drawer.random.one_in(4),
        window_units: drawer.random.below(3) as u8,
        deadline_units: drawer.random.below(2) as u8,
        keys,
        setup: drawer.setups(),
        steps: Vec::new(),
    };
    for _ in 0..steps {
        if twice && drawer.random.below(1000) < inserted {
            let step = drawer.inserted();
            plan.steps.push(Step::OnlySecond(Box::new(step)));
        }
        let step = drawer.step();
        plan.steps.push(step);
    }
    plan
}

struct Drawer {
    random: Random,
    keys: u64,
    /// Usual length of a value.
    value_bytes: u64,
    weights: [u64; STEPS.len()],
    twice: bool,
}

impl Drawer {
    fn step(&mut self) -> Step {
        let mut drawn = self.random.below(self.weights.iter().sum());
        let mut choice = Draw::Get;
        for ((draw, _), weight) in STEPS.iter().zip(self.weights) {
            if drawn < weight {
                choice = *draw;
                break;
            }
            drawn -= weight;
        }
        match choice {
            Draw::Put | Draw::Delete | Draw::Conditional | Draw::Update => Step::Write(self.write(choice)),
            Draw::Batch => Step::Batch(self.batch()),
            Draw::Together => Step::Together(self.together(16)),
            Draw::Get => Step::Get(Get {
                namespace: self.namespace(),
                key: self.key(),
                asynchronous: self.random.one_in(3),
            }),
            Draw::Scan => Step::Scan(self.scan()),
            Draw::Refused => Step::Refused(self.refused()),
            Draw::Flush => Step::Flush,
            Draw::Settle => Step::Settle,
            Draw::CheckAll => Step::CheckAll,
            Draw::Time => self.time(),
            Draw::Reopen => Step::Reopen(self.setups()),
            Draw::Kill if self.twice || self.random.one_in(3) => Step::Kill(self.setups()),
            Draw::Kill => {
                let writes = self.unconditional(12);
                let turns = self.random.below(120) as u8;
                Step::KillDuring(writes, turns, self.setups())
            }
            Draw::MakeNamespace => Step::MakeNamespace,
            Draw::DropNamespace => Step::DropNamespace(self.random.below(4) as u8),
        }
    }

    /// A step that changes no answer.
    fn inserted(&mut self) -> Step {
        match self.random.below(8) {
            0..3 => Step::Flush,
            3..5 => Step::Settle,
            5 => Step::Kill(self.setups()),
            6 => Step::Pause(self.random.below(50) as u8),
            _ => Step::Reopen(self.setups()),
        }
    }

    fn setups(&mut self) -> Pair<Setup> {
        Pair(Setup::draw(&mut self.random), Setup::draw(&mut self.random))
    }

    fn namespace(&mut self) -> u8 {
        // Most of it happens in one.
        if self.random.one_in(3) { self.random.below(4) as u8 } else { 0 }
    }

    fn key(&mut self) -> u16 {
        // Some keys are hot: caches and memtables meet them again.
        let among = if self.random.one_in(3) { self.keys.min(3) } else { self.keys };
        self.random.below(among) as u16
    }

    fn value(&mut self) -> Value {
        let first = self.random.word() as u8;
        let bytes = match self.random.below(200) {
            0 => u64::from(VALUE_BYTES_MAX) - self.random.below(2),
            1..4 => self.random.below(9_000),
            4..14 => 0,
            14..40 => {
                let edges = [0, 1, -1, i64::MAX, i64::MIN];
                let number = edges.get(self.random.below(8) as usize).copied();
                return Value::Number(number.unwrap_or(self.random.word() as i64 % 10_000));
            }
            _ => self.random.below(self.value_bytes * 2),
        };
        Value::Bytes(bytes as u16, first)
    }

    fn life(&mut self) -> Life {
        match self.random.below(10) {
            0..6 => Life::Forever,
            6 => Life::Keep,
            _ => Life::Units(self.random.below(4) as u8),
        }
    }

    fn write(&mut self, draw: Draw) -> Write {
        let by_version = [Wanted::Absent, Wanted::Present, Wanted::Standing, Wanted::Other, Wanted::Zero];
        let by_content = [Wanted::Always, Wanted::Bytes, Wanted::Lasting, Wanted::Mortal];
        let wanted = [&by_version[..], &by_content].concat();
        let wanted = wanted[self.random.below(wanted.len() as u64) as usize];
        let change = match draw {
            Draw::Delete => Change::Delete,
            Draw::Conditional if self.random.one_in(3) => Change::DeleteIf(wanted),
            Draw::Conditional => Change::PutIf(wanted, self.value(), self.life()),
            Draw::Update => match self.random.below(8) {
                0..3 => Change::Add(match self.random.below(8) {
                    0 => i64::MAX,
                    1 => i64::MIN,
                    _ => self.random.below(2_000) as i64 - 1_000,
                }),
                3 | 4 => Change::Append(self.value()),
                5 => Change::SetRange(self.random.below(300) as u32, self.value()),
                6 => Change::SetRange(self.random.below(20_000) as u32, Value::Bytes(20, 7)),
                _ => Change::SetExpiry(self.life()),
            },
            _ => Change::Put(self.value(), self.life()),
        };
        let stamped = matches!(change, Change::Put(..) | Change::Delete);
        let proposed = if stamped { self.proposed() } else { Proposed::Nothing };
        Write {
            namespace: self.namespace(),
            key: self.key(),
            change,
            proposed,
            created: self.life(),
            buffered: self.random.one_in(5),
            deadline: self.random.one_in(8),
        }
    }

    fn proposed(&mut self) -> Proposed {
        match self.random.below(12) {
            0 | 1 => Proposed::Late(self.random.below(4) as u8),
            2 => Proposed::Ahead,
            3 => Proposed::Again,
            _ => Proposed::Nothing,
        }
    }

    /// Writes of different keys.
    fn together(&mut self, most: u64) -> Vec<Write> {
        let count = self.random.between(2, most);
        let mut writes: Vec<Write> = Vec::new();
        for _ in 0..count {
            let draw = [Draw::Put, Draw::Put, Draw::Delete, Draw::Conditional, Draw::Update]
                [self.random.below(5) as usize];
            let write = self.write(draw);
            if !writes.iter().any(|other| other.key == write.key) {
                writes.push(write);
            }
        }
        writes
    }

    /// Plain puts and deletes of different keys.
    fn unconditional(&mut self, most: u64) -> Vec<Write> {
        let mut writes = self.together(most);
        writes.retain(|write| matches!(write.change, Change::Put(..) | Change::Delete));
        writes.iter_mut().for_each(|write| write.proposed = Proposed::Nothing);
        writes
    }

    fn batch(&mut self) -> Batch {
        let count = self.random.between(1, 12);
        let proposed = self.proposed();
        let mut elements = Vec::new();
        let mut bytes = 0;
        for _ in 0..count {
            let value = (!self.random.one_in(4)).then(|| self.value());
            // Below the limit of a batch, with the longest keys.
            bytes += value.map_or(0, |value| value.bytes().len());
            if bytes > 8 << 10 {
                break;
            }
            elements.push(Element { namespace: self.namespace(), key: self.key(), value, life: self.life() });
        }
        if elements.is_empty() {
            elements.push(Element { namespace: 0, key: self.key(), value: None, life: Life::Forever });
        }
        Batch { elements, proposed, buffered: self.random.one_in(5) }
    }

    fn scan(&mut self) -> Scan {
        let kind = match self.random.below(3) {
            0 => Kind::Tag(self.key()),
            1 => {
                let last = PARTITIONS as u64 - 1;
                let whole = self.random.one_in(2);
                let mut border = || Partition(self.random.below(last + 1) as u16).0;
                if whole { Kind::Placed(0, last as u16) } else { Kind::Placed(border(), border()) }
            }
            _ => Kind::Ordered,
        };
        let pages = (0..self.random.between(1, 3)).map(|_| (self.page(), self.page())).collect();
        let between = if self.random.one_in(3) {
            (0..self.random.between(1, 4)).map(|_| self.between()).collect()
        } else {
            Vec::new()
        };
        let bounds = self.random.one_in(2).then(|| (self.key(), self.key()));
        Scan { namespace: self.namespace(), kind, bounds, reverse: self.random.one_in(2), pages, between }
    }

    fn page(&mut self) -> u16 {
        let most = [3, 30, 200][self.random.below(3) as usize];
        1 + self.random.below(most) as u16
    }

    /// What happens while a scan goes on.
    fn between(&mut self) -> Step {
        match self.random.below(10) {
            0 => Step::Flush,
            1 => Step::Settle,
            2 => Step::Reopen(self.setups()),
            3 => Step::Batch(self.batch()),
            4..6 => Step::Write(self.write(Draw::Delete)),
            _ => Step::Write(self.write(Draw::Put)),
        }
    }

    fn time(&mut self) -> Step {
        match self.random.below(8) {
            0..3 => Step::Elapse(1 + self.random.below(3) as u8),
            3 | 4 => Step::Pause(self.random.below(200) as u8),
            5 => Step::ShiftClock(1 + self.random.below(3) as i8),
            _ => Step::ShiftClock(-1 - self.random.below(3) as i8),
        }
    }

    fn refused(&mut self) -> Refused {
        const ALL: [Refused; 9] = [
            Refused::EmptyKey,
            Refused::LongKey,
            Refused::LargeValue,
            Refused::FarAhead,
            Refused::StampedCondition,
            Refused::EmptyBatch,
            Refused::LongBatch,
            Refused::LargeBatch,
            Refused::PastDeadline,
        ];
        ALL[self.random.below(ALL.len() as u64) as usize]
    }
}
