//! What can be asked of a shard, and how a write is answered.

use pinion_env::Monotonic;

use crate::error::Result;
use crate::key::Key;
use crate::record::RecordView;
use crate::stamp::Stamp;

/// When a write is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// After the device has it. Survives kill -9 and power cuts.
    #[default]
    Sync,
    /// When it is queued for the log, and visible from then on. A crash of the process or the
    /// machine can take the writes of about the last commit (tens of milliseconds at most while
    /// the device is healthy); what it leaves is a prefix of what was acknowledged.
    Buffered,
}

/// How long a value lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Lifetime {
    /// Until it is overwritten or deleted.
    #[default]
    Forever,
    /// This many milliseconds, counted from the write's stamp, so that a retried write is identical.
    Millis(u64),
    /// Until this moment, in milliseconds since 1970. One that has passed is allowed: the value is
    /// never seen.
    Until(u64),
    /// As long as the value it replaces (`update` does this).
    Keep,
}

impl Lifetime {
    /// The absolute expiry of a write with this stamp, in milliseconds; 0 = never. `kept` is the
    /// expiry of the record it replaces.
    pub const fn expiry_ms(self, stamp: Stamp, kept: u64) -> u64 {
        match self {
            Self::Forever => 0,
            Self::Millis(millis) => stamp.millis().saturating_add(millis),
            // 0 stands for never.
            Self::Until(0) => 1,
            Self::Until(moment_ms) => moment_ms,
            Self::Keep => kept,
        }
    }
}

/// What must hold of the newest version of a key (pending ones included) for a conditional write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Condition<'a> {
    /// Nothing: the write looks at what it replaces ([`Waiter::decided`], [`Lifetime::Keep`]), and
    /// happens in any case.
    Always,
    /// No visible value.
    Absent,
    /// A visible value.
    Present,
    /// A visible value of exactly this version.
    VersionIs(Stamp),
    /// A visible value of exactly these bytes.
    ValueIs(&'a [u8]),
    /// A visible value that expires then.
    Expires(Expiring),
}

/// A set of moments at which a value may expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Expiring {
    /// The first, in milliseconds since 1970.
    pub from_ms: u64,
    /// The last. Before `from_ms`: no moment at all.
    pub to_ms: u64,
    /// Whether never is one of them.
    pub never: bool,
}

impl Condition<'_> {
    /// Whether it holds when the newest visible version is `current`.
    pub fn holds(self, current: Option<&RecordView<'_>>) -> bool {
        match self {
            Self::Always => true,
            Self::Absent => current.is_none(),
            Self::Present => current.is_some(),
            Self::VersionIs(stamp) => current.is_some_and(|record| record.stamp == stamp),
            Self::ValueIs(bytes) => current.is_some_and(|record| record.value == bytes),
            Self::Expires(Expiring { from_ms, to_ms, never }) => {
                current.is_some_and(|record| match record.expiry_ms {
                    0 => never,
                    moment_ms => (from_ms..=to_ms).contains(&moment_ms),
                })
            }
        }
    }
}

/// The closed set of read-modify-write operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Update<'a> {
    /// Adds to a decimal 64-bit integer in text, as Redis INCRBY does; an absent key counts as 0.
    /// Fails on anything else and on overflow.
    Add(i64),
    /// Appends bytes; an absent key counts as empty.
    Append(&'a [u8]),
    /// Overwrites bytes from an offset, padding with zeros; an absent key counts as empty.
    SetRange {
        /// First byte to overwrite.
        offset: u32,
        /// What to write there.
        bytes: &'a [u8],
    },
    /// Sets or removes the expiry of an existing value ("touch"); changes nothing on an absent key.
    SetExpiry(Lifetime),
}

/// One operation on one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation<'a> {
    /// Sets the value.
    Put {
        /// The new value.
        value: &'a [u8],
        /// How long it lives.
        lifetime: Lifetime,
    },
    /// Removes the key.
    Delete,
    /// Sets the value if the condition holds.
    PutIf {
        /// What must hold.
        condition: Condition<'a>,
        /// The new value.
        value: &'a [u8],
        /// How long it lives.
        lifetime: Lifetime,
    },
    /// Removes the key if the condition holds.
    DeleteIf {
        /// What must hold.
        condition: Condition<'a>,
    },
    /// Changes the value in place.
    Update(Update<'a>),
    /// Changes the value in place if the condition holds.
    UpdateIf {
        /// What must hold.
        condition: Condition<'a>,
        /// The change.
        update: Update<'a>,
    },
}

/// One element of a batch: only unconditional puts and deletes, so that a batch never reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchOperation<'a> {
    /// The key; all keys of a batch belong to one shard.
    pub key: Key<'a>,
    /// The value to set, or `None` to delete.
    pub value: Option<&'a [u8]>,
    /// How long the value lives.
    pub lifetime: Lifetime,
}

/// What goes with a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct WriteOptions {
    /// When it is acknowledged.
    pub durability: Durability,
    /// A stamp proposed by the client; the shard issues one if there is none. Only for
    /// unconditional writes: a conditional one decides by what it finds.
    pub stamp: Option<Stamp>,
    /// How long a value lives that an update makes where none was.
    pub created: Lifetime,
    /// After this point the write is refused if it has not entered the log.
    pub deadline: Option<Monotonic>,
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// It is the newest version (or was: later writes may have followed). A retried write that
    /// had been applied before answers this too.
    Applied,
    /// An equal or newer version was there; nothing changed.
    Superseded,
    /// The condition did not hold; nothing changed. [`Written::stamp`] is the version found, or
    /// [`Stamp::ZERO`] if no value was visible.
    ConditionFailed,
}

/// The answer to a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// What happened.
    pub effect: Effect,
    /// The version written, or the one that stood in the way.
    pub stamp: Stamp,
    /// The expiry of the version written, in milliseconds; 0 = never.
    pub expiry_ms: u64,
    /// The new integer (`Add`) or the new length (`Append`, `SetRange`); 0 otherwise.
    pub number: i64,
    /// For a batch in which some operations were superseded: their indexes, ascending. Of several
    /// operations on one key the last speaks for all.
    pub superseded: Vec<u32>,
}

/// Whoever waits for a write. Told exactly once, on the shard's core, possibly before the call
/// that started the write returns.
pub trait Waiter: 'static {
    /// A conditional write or update is decided, before it is durable: by this visible value, which may
    /// be pending itself. For whoever answers with what was replaced. Plain writes do not look.
    fn decided(&mut self, _present: Option<&RecordView<'_>>) {}

    /// This write and others have become durable and are about to be told so. Of those that are told one
    /// after the other only the first is asked.
    fn first_of_many(&self) {}

    /// Whether it is answered together with another one: whoever tells both does not stop between them,
    /// if that can be helped.
    fn goes_with(&self, _other: &Self) -> bool {
        false
    }

    /// The write, or the first operation of a batch, is visible now under this key; [`Waiter::complete`]
    /// follows. Not told of what changed nothing.
    fn published(&self, _key: &Key<'_>) {}

    /// The write has ended.
    fn complete(self, result: Result<Written>);
}
