//! One write as the ledger keeps it: what it asked for, when, and what is known of its end.

use pinion_engine::{Condition, Durability, HybridTime, Lifetime, Origin, Stamp};

/// The number of a write, in the order of issue.
pub(crate) type Number = usize;

/// A moment of a history: counts everything the ledger is told.
pub(crate) type Event = u32;

/// What a write does to one key.
#[derive(Clone)]
pub(crate) enum Action {
    /// Sets a value.
    Put {
        /// The value.
        value: Vec<u8>,
        /// How long it lives.
        lifetime: Lifetime,
    },
    /// Removes the key.
    Delete,
    /// Adds to the integer that the value spells.
    Add(i64),
    /// Appends to the value.
    Append(Vec<u8>),
    /// Overwrites from an offset on.
    SetRange {
        /// Where.
        offset: u32,
        /// With what.
        bytes: Vec<u8>,
    },
    /// Gives the value another lifetime.
    SetExpiry(Lifetime),
}

impl std::fmt::Debug for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.brief())
    }
}

/// The start of a value: it says who wrote it.
pub(crate) fn brief(value: &[u8]) -> String {
    let shown: Vec<u8> = value.iter().copied().take_while(u8::is_ascii_graphic).take(20).collect();
    format!("{:?} of {} bytes", String::from_utf8_lossy(&shown), value.len())
}

impl Action {
    /// It in a few words, for the report of a failure.
    pub(crate) fn brief(&self) -> String {
        match self {
            Self::Put { value, lifetime } => format!("put {} {lifetime:?}", brief(value)),
            Self::Delete => "delete".to_owned(),
            Self::Add(operand) => format!("add {operand}"),
            Self::Append(bytes) => format!("append {}", brief(bytes)),
            Self::SetRange { offset, bytes } => format!("set range at {offset} {}", brief(bytes)),
            Self::SetExpiry(lifetime) => format!("set expiry {lifetime:?}"),
        }
    }

    /// Whether what it leaves depends on what it finds.
    pub(crate) fn is_update(&self) -> bool {
        !matches!(self, Self::Put { .. } | Self::Delete)
    }
}

/// What is known of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Not answered yet.
    Open,
    /// Answered as applied, or found after a crash.
    Applied,
    /// Answered as superseded. It may lie in the log all the same: what superseded it may have been
    /// buffered, and is lost in a crash before it is.
    Superseded,
    /// It changed nothing and never will: refused, its condition did not hold, or lost in a crash.
    Void,
    /// A crash took the answer, and nothing that was read since tells. It is not seen any more:
    /// a value would have been found.
    Maybe,
}

/// One write.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    /// Keys, by their index, and what is done to them; several for a batch.
    pub(crate) actions: Vec<(usize, Action)>,
    /// What must hold, if it is conditional.
    pub(crate) condition: Option<Condition<'static>>,
    /// When it is answered.
    pub(crate) durability: Durability,
    /// The client's stamp.
    pub(crate) proposed: Option<Stamp>,
    /// The write that this one repeats.
    pub(crate) repeats: Option<Number>,
    /// It is a batch, even of one.
    pub(crate) batch: bool,
    /// Which run of the node it was made in.
    pub(crate) life: u32,
    /// When it was issued.
    pub(crate) issued: Event,
    /// When it had entered the log for certain; `Event::MAX` while that is not known.
    pub(crate) entered: Event,
    /// Its stamp is at least this.
    pub(crate) low: Stamp,
    /// Its stamp is at most this.
    pub(crate) high: Stamp,
    /// What is known of it.
    pub(crate) fate: Fate,
    /// When it was answered as applied; `Event::MAX` before.
    pub(crate) answered: Event,
    /// It must survive every crash.
    pub(crate) durable: bool,
}

/// Greater than every stamp.
pub(crate) const STAMP_MAX: Stamp = Stamp { time: HybridTime(u64::MAX), origin: Origin(u32::MAX) };

impl Attempt {
    /// Whether it enters the log in the step that issues it: the shard stamps it, and it asks for
    /// nothing that stands under its keys.
    pub(crate) fn is_direct(&self) -> bool {
        self.proposed.is_none()
            && self.condition.is_none()
            && !self.actions.iter().any(|(_, action)| action.is_update())
    }

    /// Whether its stamp is known.
    pub(crate) fn is_stamped(&self) -> bool {
        self.low == self.high
    }

    /// Whether it takes effect once it is in the log, as far as is known.
    pub(crate) fn has_effect(&self) -> bool {
        match self.fate {
            Fate::Applied => true,
            Fate::Open => self.is_direct(),
            Fate::Superseded | Fate::Void | Fate::Maybe => false,
        }
    }

    /// Whether its version is newer than that of `other`, for certain.
    pub(crate) fn is_newer_than(&self, other: &Self) -> bool {
        self.low > other.high
    }

    /// Whether a stamp may be its own.
    pub(crate) fn may_have(&self, stamp: Stamp) -> bool {
        self.low <= stamp && stamp <= self.high
    }

    /// The client's stamp is known from the start.
    pub(crate) fn stamp_range(proposed: Option<Stamp>, after: HybridTime) -> (Stamp, Stamp) {
        match proposed {
            Some(stamp) => (stamp, stamp),
            None => (Stamp { time: after.next(), origin: Origin(0) }, STAMP_MAX),
        }
    }
}
