//! Keys and values of records.
//!
//! Keys: YCSB's, `user` and a number (hashed with [`fnv64`], or as it is), or plain ones of one length or of
//! lengths in a range. Values: *fields*, encoded as YCSB's RocksDB binding does (for each field the length
//! of its name, the name, the length of its content, the content; lengths are four bytes, the highest
//! first), or *plain* bytes that do not compress.
//!
//! A value that is to be [verified](Stamp) carries 24 bytes more: the number of its record, its
//! version, and a checksum of all bytes before. In fields they are the content of one called `_v`, the
//! last; a plain value ends with them.

use xxhash_rust::xxh3::xxh3_64;

use super::draw::{Lengths, fnv64};
use crate::load::Random;

/// Bytes of a [`Stamp`] in a value.
pub const STAMP_BYTES: usize = 24;
/// The name of the field that holds a stamp.
const STAMP_FIELD: &str = "_v";

/// How keys look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyForm {
    /// `user` and a number of at least `zero_padding` digits.
    Ycsb {
        /// Whether the number is hashed, so that neighbours in number are none in order.
        hashed: bool,
        /// Digits at least.
        zero_padding: usize,
    },
    /// A number in hexadecimal behind letters. How many bytes that is in all, from `least` (16 or more) to
    /// `most`, is drawn by the number's hash: a record has one key for ever.
    Plain {
        /// Bytes at least.
        least: usize,
        /// Bytes at most.
        most: usize,
    },
}

impl KeyForm {
    /// Appends the key of a record.
    pub fn append(&self, number: u64, key: &mut Vec<u8>) {
        use std::io::Write as _;
        let written = match self {
            Self::Ycsb { hashed, zero_padding } => {
                let number = if *hashed { fnv64(number) } else { number };
                write!(key, "user{number:0zero_padding$}")
            }
            Self::Plain { least, most } => {
                let lengths = (most - least + 1) as u64;
                let bytes = if lengths > 1 { least + (fnv64(number) % lengths) as usize } else { *least };
                key.resize(key.len() + bytes.saturating_sub(16), b'k');
                write!(key, "{number:016x}")
            }
        };
        written.expect("memory takes everything");
    }
}

/// How values look.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueForm {
    /// Fields, YCSB's way.
    Fields {
        /// How many.
        count: u32,
        /// What their names begin with; the rest is a number from 0.
        prefix: String,
        /// Of each field's content, in bytes.
        lengths: Lengths,
    },
    /// Bytes.
    Plain {
        /// How many.
        lengths: Lengths,
    },
}

/// What a verified value says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The number of its record.
    pub number: u64,
    /// Counts the writes of this record, from 1.
    pub version: u64,
}

impl Stamp {
    fn append(self, value: &mut Vec<u8>) {
        value.extend_from_slice(&self.number.to_le_bytes());
        value.extend_from_slice(&self.version.to_le_bytes());
        let checksum = xxh3_64(value);
        value.extend_from_slice(&checksum.to_le_bytes());
    }

    /// The stamp of a value that carries one; `None` if it is damaged or has none.
    pub fn of(value: &[u8]) -> Option<Self> {
        let (covered, checksum) = value.split_last_chunk::<8>()?;
        let (rest, version) = covered.split_last_chunk::<8>()?;
        let (_, number) = rest.split_last_chunk::<8>()?;
        let stamp = Self { number: u64::from_le_bytes(*number), version: u64::from_le_bytes(*version) };
        (xxh3_64(covered) == u64::from_le_bytes(*checksum)).then_some(stamp)
    }
}

impl ValueForm {
    /// Bytes of the largest value, a stamp included.
    pub fn bytes_max(&self) -> u64 {
        let stamp = STAMP_BYTES as u64;
        match self {
            Self::Fields { count, prefix, lengths } => {
                let name = prefix.len() as u64 + u64::from(count.checked_ilog10().unwrap_or(0)) + 1;
                u64::from(*count) * (8 + name + lengths.max()) + 8 + STAMP_FIELD.len() as u64 + stamp
            }
            Self::Plain { lengths } => lengths.max() + stamp,
        }
    }

    /// Appends a whole value, all of it new.
    pub(crate) fn append_new(&self, random: &mut Random, stamp: Option<Stamp>, value: &mut Vec<u8>) {
        let start = value.len();
        match self {
            Self::Fields { count, prefix, lengths } => {
                for index in 0..*count {
                    append_part(format!("{prefix}{index}").as_bytes(), value);
                    let bytes = lengths.draw(random);
                    append_length(bytes as usize, value);
                    append_noise(random, bytes, value);
                }
            }
            Self::Plain { lengths } => {
                let bytes = lengths.draw(random);
                append_noise(random, bytes, value);
            }
        }
        self.append_stamp(stamp, start, value);
    }

    /// Appends what a value becomes when one of its fields is replaced. A plain value, or one that is
    /// not made of fields, is replaced whole.
    pub(crate) fn append_updated(
        &self,
        old: &[u8],
        random: &mut Random,
        stamp: Option<Stamp>,
        value: &mut Vec<u8>,
    ) {
        let Self::Fields { count, lengths, .. } = self else {
            return self.append_new(random, stamp, value);
        };
        let Some(fields) = Fields::of(old) else { return self.append_new(random, stamp, value) };
        let start = value.len();
        let replaced = random.below(u64::from((*count).max(1))) as usize;
        for (index, (name, content)) in
            fields.0.into_iter().filter(|field| field.0 != STAMP_FIELD.as_bytes()).enumerate()
        {
            append_part(name, value);
            if index == replaced {
                let bytes = lengths.draw(random);
                append_length(bytes as usize, value);
                append_noise(random, bytes, value);
            } else {
                append_part(content, value);
            }
        }
        self.append_stamp(stamp, start, value);
    }

    fn append_stamp(&self, stamp: Option<Stamp>, start: usize, value: &mut Vec<u8>) {
        let Some(stamp) = stamp else { return };
        let mut whole = value.split_off(start);
        if matches!(self, Self::Fields { .. }) {
            append_part(STAMP_FIELD.as_bytes(), &mut whole);
            append_length(STAMP_BYTES, &mut whole);
        }
        stamp.append(&mut whole);
        value.append(&mut whole);
    }

    /// Whether a value has this form: the number of its fields, or its length.
    pub fn is_one(&self, value: &[u8], stamped: bool) -> bool {
        match self {
            Self::Fields { count, .. } => {
                let fields = Fields::of(value).map(|fields| fields.0.len());
                fields == Some(*count as usize + usize::from(stamped))
            }
            Self::Plain { lengths } => {
                let stamp = if stamped { STAMP_BYTES as u64 } else { 0 };
                value.len() as u64 <= lengths.max() + stamp && value.len() as u64 >= stamp
            }
        }
    }
}

/// Names and contents of an encoded record.
#[derive(Debug, PartialEq, Eq)]
pub struct Fields<'a>(pub Vec<(&'a [u8], &'a [u8])>);

impl<'a> Fields<'a> {
    /// Decodes a value; `None` if it is none.
    pub fn of(mut value: &'a [u8]) -> Option<Self> {
        let mut fields = Vec::new();
        while !value.is_empty() {
            let name = take_part(&mut value)?;
            fields.push((name, take_part(&mut value)?));
        }
        Some(Self(fields))
    }
}

fn take_part<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = from.split_first_chunk::<4>()?;
    let (part, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *from = rest;
    Some(part)
}

fn append_length(bytes: usize, value: &mut Vec<u8>) {
    let length = u32::try_from(bytes).expect("a value is far below 4 GiB");
    value.extend_from_slice(&length.to_be_bytes());
}

fn append_part(part: &[u8], value: &mut Vec<u8>) {
    append_length(part.len(), value);
    value.extend_from_slice(part);
}

/// Bytes that do not compress.
fn append_noise(random: &mut Random, bytes: u64, value: &mut Vec<u8>) {
    let end = value.len() + bytes as usize;
    while value.len() < end {
        value.extend_from_slice(&random.next().to_le_bytes());
    }
    value.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> ValueForm {
        ValueForm::Fields { count: 10, prefix: "field".to_owned(), lengths: Lengths::Constant(100) }
    }

    #[test]
    fn keys_are_those_of_ycsb() {
        let key = |form: KeyForm, number| {
            let mut key = Vec::new();
            form.append(number, &mut key);
            String::from_utf8(key).unwrap()
        };
        assert_eq!(key(KeyForm::Ycsb { hashed: true, zero_padding: 1 }, 0), "user6284781860667377211");
        assert_eq!(key(KeyForm::Ycsb { hashed: false, zero_padding: 12 }, 42), "user000000000042");
        assert_eq!(key(KeyForm::Plain { least: 20, most: 20 }, 255), "kkkk00000000000000ff");
        assert_eq!(key(KeyForm::Plain { least: 16, most: 16 }, 1).len(), 16);
    }

    #[test]
    fn plain_keys_have_every_length_alike_and_each_record_has_its_own() {
        let form = KeyForm::Plain { least: 16, most: 25 };
        let (mut counts, mut keys) = ([0; 10], std::collections::HashSet::new());
        for number in 0..10_000 {
            let (mut key, mut again) = (Vec::new(), Vec::new());
            form.append(number, &mut key);
            form.append(number, &mut again);
            assert_eq!(key, again);
            counts[key.len() - 16] += 1;
            assert!(keys.insert(key), "{number}");
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }

    #[test]
    fn an_update_replaces_one_field() {
        let (form, mut random) = (fields(), Random::new(1));
        let (mut old, mut new) = (Vec::new(), Vec::new());
        form.append_new(&mut random, None, &mut old);
        assert_eq!(old.len(), 10 * (4 + 6 + 4 + 100));
        assert!(form.bytes_max() >= old.len() as u64 + STAMP_BYTES as u64);
        form.append_updated(&old, &mut random, None, &mut new);
        let (old, new) = (Fields::of(&old).unwrap(), Fields::of(&new).unwrap());
        assert_eq!(old.0[3].0, b"field3");
        let same = old.0.iter().zip(&new.0).filter(|(old, new)| old == new).count();
        assert_eq!((same, new.0.len()), (9, 10));
    }

    #[test]
    fn stamps_survive_updates_and_tell_damage() {
        for form in [fields(), ValueForm::Plain { lengths: Lengths::Uniform(0, 50) }] {
            let mut random = Random::new(2);
            let mut value = b"before".to_vec();
            let first = Stamp { number: 7, version: 1 };
            form.append_new(&mut random, Some(first), &mut value);
            let old = value.split_off(6);
            assert_eq!((Stamp::of(&old), form.is_one(&old, true)), (Some(first), true));
            let second = Stamp { number: 7, version: 2 };
            form.append_updated(&old, &mut random, Some(second), &mut value);
            let mut new = value.split_off(6);
            assert_eq!((Stamp::of(&new), form.is_one(&new, true)), (Some(second), true));
            new[0] ^= 1;
            assert_eq!(Stamp::of(&new), None);
        }
        assert_eq!(Stamp::of(b"short"), None);
        assert!(!fields().is_one(b"no fields", false));
    }
}
