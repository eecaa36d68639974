//! The reference: a map from key to record, and what each operation makes of it.
//!
//! Written from the documentation of the operations, not from the engine's code. A key that was
//! deleted or has expired stays in the map with its stamp: a late write must not come back over it.

use std::collections::BTreeMap;

use pinion_engine::{Lifetime, Partition, Stamp};

use super::plan::{Change, Life, Wanted};
use super::setup::VALUE_BYTES_MAX;

/// Partition, namespace, user key: the order of records.
pub(super) type Place = (Partition, u32, Vec<u8>);

/// What stands under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// `None` = deleted.
    pub value: Option<Vec<u8>>,
    /// Absolute; 0 = never.
    pub expiry_ms: u64,
    pub stamp: Stamp,
}

impl Entry {
    pub(super) fn is_visible(&self, now_ms: u64) -> bool {
        self.value.is_some() && (self.expiry_ms == 0 || self.expiry_ms > now_ms)
    }
}

/// What becomes of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// New value (`None` = deleted) and expiry, and the number in the answer.
    Becomes { value: Option<Vec<u8>>, expiry_ms: u64, number: i64 },
    /// The condition does not hold; nothing changes.
    Fails,
    /// The value does not fit the operation.
    Unfit,
    /// The value would be longer than is allowed.
    TooLarge,
}

/// The map.
#[derive(Debug, Default)]
pub(super) struct Reference {
    entries: BTreeMap<Place, Entry>,
}

impl Reference {
    pub(super) fn get(&self, place: &Place) -> Option<&Entry> {
        self.entries.get(place)
    }

    /// The stamp that stands under a key; [`Stamp::ZERO`] if none does.
    pub(super) fn stamp(&self, place: &Place) -> Stamp {
        self.entries.get(place).map_or(Stamp::ZERO, |entry| entry.stamp)
    }

    pub(super) fn set(&mut self, place: Place, entry: Entry) {
        self.entries.insert(place, entry);
    }

    pub(super) fn drop_namespace(&mut self, namespace: u32) {
        self.entries.retain(|(_, of, _), _| *of != namespace);
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&Place, &Entry)> {
        self.entries.iter()
    }
}

/// The engine's form of a life.
pub(super) fn lifetime(life: Life) -> Lifetime {
    match life {
        Life::Forever => Lifetime::Forever,
        Life::Units(units) => Lifetime::Millis(Life::millis(units)),
        Life::Keep => Lifetime::Keep,
    }
}

/// When a value ends: counted from the stamp of its write.
pub(super) fn expiry_ms(life: Life, stamp: Stamp, kept: u64) -> u64 {
    match life {
        Life::Forever => 0,
        Life::Units(units) => stamp.millis() + Life::millis(units),
        Life::Keep => kept,
    }
}

/// Whether a condition holds of the visible entry. What it asks for of version and bytes is taken from
/// the entry that stands there, visible or not.
fn holds(wanted: Wanted, visible: Option<&Entry>) -> bool {
    match wanted {
        Wanted::Absent => visible.is_none(),
        Wanted::Present | Wanted::Standing | Wanted::Bytes => visible.is_some(),
        Wanted::Other | Wanted::Zero => false,
        Wanted::Always => true,
        Wanted::Lasting => visible.is_some_and(|entry| entry.expiry_ms == 0),
        Wanted::Mortal => visible.is_some_and(|entry| entry.expiry_ms != 0),
    }
}

/// What a change makes of a key under which `entry` stands.
pub(super) fn effect(
    change: &Change,
    entry: Option<&Entry>,
    now_ms: u64,
    stamp: Stamp,
    created: Life,
) -> Effect {
    let visible = entry.filter(|entry| entry.is_visible(now_ms));
    let kept = visible.map_or(0, |entry| entry.expiry_ms);
    let present = visible.and_then(|entry| entry.value.as_deref()).unwrap_or_default();
    let becomes = |value: Vec<u8>, life: Life, number: i64| {
        if value.len() > VALUE_BYTES_MAX as usize {
            return Effect::TooLarge;
        }
        Effect::Becomes { value: Some(value), expiry_ms: expiry_ms(life, stamp, kept), number }
    };
    let deleted = Effect::Becomes { value: None, expiry_ms: 0, number: 0 };
    // An update keeps the life of what it changes; what it makes lives as the caller says.
    let life = if visible.is_some() { Life::Keep } else { created };
    match change {
        // Nothing is replaced by a plain put: there is no life to keep.
        Change::Put(value, Life::Keep) => becomes(value.bytes(), Life::Forever, 0),
        Change::Put(value, life) => becomes(value.bytes(), *life, 0),
        Change::Delete => deleted,
        Change::PutIf(wanted, ..) | Change::DeleteIf(wanted) if !holds(*wanted, visible) => Effect::Fails,
        Change::PutIf(_, value, life) => becomes(value.bytes(), *life, 0),
        Change::DeleteIf(_) => deleted,
        Change::Add(operand) => {
            let number = if visible.is_some() { integer(present) } else { Some(0) };
            match number.and_then(|number| number.checked_add(*operand)) {
                Some(sum) => becomes(sum.to_string().into_bytes(), life, sum),
                None => Effect::Unfit,
            }
        }
        Change::Append(value) => {
            let appended = [present, &value.bytes()].concat();
            let length = appended.len() as i64;
            becomes(appended, life, length)
        }
        Change::SetRange(offset, value) => {
            let (offset, bytes) = (*offset as usize, value.bytes());
            if offset + bytes.len() > VALUE_BYTES_MAX as usize {
                return Effect::TooLarge;
            }
            // Writing nothing makes nothing longer.
            let length =
                if bytes.is_empty() { present.len() } else { present.len().max(offset + bytes.len()) };
            let changed: Vec<u8> = (0..length)
                .map(|at| match at.checked_sub(offset).and_then(|inside| bytes.get(inside)) {
                    Some(byte) => *byte,
                    None => present.get(at).copied().unwrap_or(0),
                })
                .collect();
            becomes(changed, life, length as i64)
        }
        Change::SetExpiry(_) if visible.is_none() => Effect::Fails,
        Change::SetExpiry(life) => becomes(present.to_vec(), *life, 0),
    }
}

/// A 64-bit integer in the only way to write it: decimal, no sign but a minus, no leading zeros.
fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let plain = match digits {
        [] => false,
        [b'0', ..] => text == b"0",
        _ => digits.iter().all(u8::is_ascii_digit),
    };
    if plain { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}
