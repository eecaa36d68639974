//! One part of the sparse index: which block holds a position.
//!
//! An entry per block: a *separator* (a position greater than every record before the block and
//! not greater than its first record, with a user key as short as that allows) and the page the
//! block starts at. The encoded form is searched as it lies in memory, one flat byte array:
//!
//! * entries of one partition and namespace form a *run*; runs are found by bisection over numbers;
//! * the prefix that all separators of a run share is stored once;
//! * the next eight bytes of each separator stand in an array of numbers, searched by bisection;
//! * a separator that needs more (or ends in a zero byte, which padding would hide) is an
//!   *exception*: its whole rest is stored apart and compared only when the numbers are equal.
//!
//! With ordinary keys that is 12 bytes per block and about 40 per run.

use std::cmp::Ordering;

use super::BlockHandle;
use super::format::Damage;
use crate::codec::Decoder;
use crate::key::{OwnedPosition, Position};

/// Entries, runs, exceptions, end page: u32 each.
const HEADER_BYTES: usize = 16;
/// Entries that a reader accepts; writers make far fewer.
const ENTRIES_MAX: usize = 1 << 16;
const WORD_BYTES: usize = 8;
/// A run: key u64, first entry u32, end of its prefix in the text u32.
const RUN_BYTES: usize = WORD_BYTES + 4 + 4;
/// An entry: head u64, page u32.
const ENTRY_BYTES: usize = WORD_BYTES + 4;
/// An exception: entry u32, end of its rest in the text u32.
const EXCEPTION_BYTES: usize = 8;

/// Collects the entries of one part.
#[derive(Debug, Default)]
pub(crate) struct IndexBuilder {
    entries: Vec<BuiltEntry>,
    /// User keys of the separators, back to back.
    text: Vec<u8>,
}

#[derive(Debug)]
struct BuiltEntry {
    run: u64,
    /// Where its user key ends in the text.
    end: usize,
    page: u32,
    /// Nothing of its partition and namespace stands before it: any shorter user key will do.
    opens: bool,
}

impl IndexBuilder {
    /// Adds the next block by its first record, the record before that, and its page.
    pub(crate) fn push(&mut self, first: &Position<'_>, before: Option<&Position<'_>>, page: u32) {
        let run = run_key(first);
        let neighbour = before.filter(|before| run_key(before) == run);
        let needed = neighbour.map_or(first.user.len(), |before| shared_bytes(before.user, first.user) + 1);
        self.text.extend_from_slice(&first.user[..needed]);
        self.entries.push(BuiltEntry { run, end: self.text.len(), page, opens: neighbour.is_none() });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// About how long the encoded form is, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len() + self.entries.len() * ENTRY_BYTES
    }

    /// A position that the part can be found by: its first separator.
    pub(crate) fn first(&self) -> OwnedPosition {
        self.entries.first().map_or_else(OwnedPosition::default, |entry| {
            let position = Position { user: self.user(0), ..run_start(entry.run) };
            position.to_owned()
        })
    }

    /// The encoded form; `end_page` is where the last block ends. Leaves the builder empty.
    pub(crate) fn take_encoded(&mut self, end_page: u32) -> Vec<u8> {
        let (mut run_keys, mut run_starts, mut run_ends) = (Vec::new(), Vec::new(), Vec::new());
        let (mut heads, mut exceptions) = (Vec::new(), Vec::new());
        let (mut prefixes, mut rests) = (Vec::new(), Vec::new());
        let mut start = 0;
        for run in self.entries.chunk_by(|left, right| left.run == right.run) {
            let end = start + run.len();
            let prefix = self.shared_prefix(start, end);
            prefixes.extend_from_slice(prefix);
            run_keys.extend_from_slice(&run[0].run.to_le_bytes());
            run_starts.extend_from_slice(&(start as u32).to_le_bytes());
            run_ends.extend_from_slice(&(prefixes.len() as u32).to_le_bytes());
            for (index, entry) in (start..end).zip(run) {
                let rest = if entry.opens { &[] } else { &self.user(index)[prefix.len()..] };
                heads.extend_from_slice(&word(rest).to_le_bytes());
                if rest.len() > WORD_BYTES || rest.last() == Some(&0) {
                    rests.extend_from_slice(rest);
                    exceptions.push((index as u32, rests.len()));
                }
            }
            start = end;
        }
        let runs = run_keys.len() / WORD_BYTES;
        let mut out = Vec::with_capacity(HEADER_BYTES + runs * RUN_BYTES + self.bytes() + prefixes.len());
        for number in [self.entries.len() as u32, runs as u32, exceptions.len() as u32, end_page] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for array in [&run_keys, &run_starts, &run_ends, &heads] {
            out.extend_from_slice(array);
        }
        out.extend(self.entries.iter().flat_map(|entry| entry.page.to_le_bytes()));
        for (entry, end) in exceptions {
            out.extend_from_slice(&entry.to_le_bytes());
            out.extend_from_slice(&((prefixes.len() + end) as u32).to_le_bytes());
        }
        out.extend_from_slice(&prefixes);
        out.extend_from_slice(&rests);
        self.entries.clear();
        self.text.clear();
        out
    }

    /// What all user keys of the entries `start..end` of one run share. They are sorted: what the
    /// first and the last share is shared by all.
    fn shared_prefix(&self, start: usize, end: usize) -> &[u8] {
        let first = self.user(start);
        // An entry that opens its run alone needs no user key at all.
        let shared = match end - start {
            1 if self.entries[start].opens => 0,
            _ => shared_bytes(first, self.user(end - 1)),
        };
        &first[..shared]
    }

    fn user(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.entries[before].end);
        &self.text[start..self.entries[index].end]
    }
}

/// One part of the index in memory.
#[derive(Debug)]
pub(crate) struct IndexPart {
    bytes: Box<[u8]>,
    entries: usize,
    runs: usize,
    exceptions: usize,
    end_page: u32,
}

impl IndexPart {
    /// Reads an encoded part; checks all that lookups rely on.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let short = || Damage::new(0, "index length", "an index part", format!("{} bytes", bytes.len()));
        let bad = |what, expected| Damage::new(HEADER_BYTES, what, expected, "something else");
        let mut fields = Decoder::new(bytes);
        let entries = fields.u32().ok_or_else(short)? as usize;
        let runs = fields.u32().ok_or_else(short)? as usize;
        let exceptions = fields.u32().ok_or_else(short)? as usize;
        let end_page = fields.u32().ok_or_else(short)?;
        if !(1..=ENTRIES_MAX).contains(&entries) || !(1..=entries).contains(&runs) || exceptions > entries {
            let found = format!("{entries} entries, {runs} runs, {exceptions} exceptions");
            return Err(Damage::new(0, "index counts", format!("1 to {ENTRIES_MAX} entries"), found));
        }
        let part = Self { bytes: bytes.into(), entries, runs, exceptions, end_page };
        let text = bytes.len().checked_sub(part.text_at()).ok_or_else(short)? as u64;
        let run_keys = part.run_keys();
        if !run_keys.is_sorted_by(|left, right| number(left) < number(right)) {
            return Err(bad("runs of an index", "ascending"));
        }
        if part.run_range(0).0 != 0 || (0..runs).any(|run| part.run_range(run).0 >= part.run_range(run).1) {
            return Err(bad("entries of a run", "at least one each"));
        }
        for run in 0..runs {
            let (start, end) = part.run_range(run);
            if end > entries || !part.heads()[start..end].is_sorted_by_key(number) {
                return Err(bad("separators of a run", "ascending"));
            }
        }
        let pages = (0..entries).map(|entry| part.page(entry)).chain([end_page]);
        if !pages.is_sorted_by(|left, right| left < right) {
            return Err(bad("pages of blocks", "ascending"));
        }
        let mut end = 0;
        for run in 0..runs {
            let next = u64::from(part.prefix_end(run));
            if next < end {
                return Err(bad("prefixes of an index", "one behind the other"));
            }
            end = next;
        }
        let mut entry_min = 0;
        for index in 0..exceptions {
            let (entry, next) = part.exception(index);
            if entry < entry_min || entry as usize >= entries || u64::from(next) <= end {
                return Err(bad("exceptions of an index", "ascending, one behind the other"));
            }
            (entry_min, end) = (entry + 1, u64::from(next));
        }
        if end != text {
            return Err(Damage::new(0, "text of an index", end, text));
        }
        Ok(part)
    }

    /// How many blocks the part has: at least one.
    pub(crate) const fn len(&self) -> usize {
        self.entries
    }

    /// Where a block is.
    pub(crate) fn handle(&self, entry: usize) -> BlockHandle {
        let page = self.page(entry);
        let end = if entry + 1 < self.entries { self.page(entry + 1) } else { self.end_page };
        BlockHandle { page, pages: end - page }
    }

    /// The page behind the last block.
    pub(crate) const fn end_page(&self) -> u32 {
        self.end_page
    }

    /// The only block of the part that may hold a position: the last one whose separator is not
    /// greater. `None` if the position is before the part.
    pub(crate) fn find(&self, position: &Position<'_>) -> Option<usize> {
        let key = run_key(position);
        let run = self.run_keys().partition_point(|run| number(run) <= key).checked_sub(1)?;
        let (start, end) = self.run_range(run);
        if number(&self.run_keys()[run]) < key {
            return Some(end - 1);
        }
        let prefix = self.prefix(run);
        match compare_front(position.user, prefix) {
            Ordering::Less => return start.checked_sub(1),
            Ordering::Greater => return Some(end - 1),
            Ordering::Equal => {}
        }
        let rest = &position.user[prefix.len()..];
        let wanted = word(rest);
        let heads = &self.heads()[start..end];
        let not_greater = heads.partition_point(|head| number(head) <= wanted);
        if self.exceptions == 0 || not_greater == 0 || number(&heads[not_greater - 1]) != wanted {
            return (start + not_greater).checked_sub(1);
        }
        // Entries with the same head: exceptions among them may still be greater.
        let mut low = start + heads[..not_greater].partition_point(|head| number(head) < wanted);
        let mut high = start + not_greater;
        while low < high {
            let middle = low.midpoint(high);
            if self.exception_rest(middle).is_some_and(|exception| exception > rest) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low.checked_sub(1)
    }

    /// Where the separator of a block sorts against a position.
    pub(crate) fn compare_separator(&self, entry: usize, position: &Position<'_>) -> Ordering {
        let run = (0..self.runs).rposition(|run| self.run_range(run).0 <= entry).unwrap_or(0);
        let prefix = self.prefix(run);
        let by_run = number(&self.run_keys()[run]).cmp(&run_key(position));
        by_run.then_with(|| compare_front(position.user, prefix).reverse()).then_with(|| {
            let rest = &position.user[prefix.len()..];
            match self.exception_rest(entry) {
                Some(exception) => exception.cmp(rest),
                None => {
                    let head = number(&self.heads()[entry]);
                    let length = WORD_BYTES - head.trailing_zeros() as usize / 8;
                    head.to_be_bytes()[..length].cmp(rest)
                }
            }
        })
    }

    /// Memory in bytes.
    pub(crate) fn resident_bytes(&self) -> usize {
        size_of::<Self>() + self.bytes.len()
    }

    /// The stored rest of a separator, if it is an exception.
    fn exception_rest(&self, entry: usize) -> Option<&[u8]> {
        let (mut low, mut high) = (0, self.exceptions);
        while low < high {
            let middle = low.midpoint(high);
            if (self.exception(middle).0 as usize) < entry {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if low == self.exceptions || self.exception(low).0 as usize != entry {
            return None;
        }
        let start = if low == 0 { self.prefix_end(self.runs - 1) } else { self.exception(low - 1).1 };
        Some(&self.bytes[self.text_at()..][start as usize..self.exception(low).1 as usize])
    }

    fn run_keys(&self) -> &[[u8; WORD_BYTES]] {
        self.bytes[HEADER_BYTES..][..self.runs * WORD_BYTES].as_chunks().0
    }

    /// First entry of a run and the one behind its last.
    fn run_range(&self, run: usize) -> (usize, usize) {
        let starts = HEADER_BYTES + self.runs * WORD_BYTES;
        let start = |run: usize| self.number_at(starts + run * 4) as usize;
        (start(run), if run + 1 < self.runs { start(run + 1) } else { self.entries })
    }

    fn prefix_end(&self, run: usize) -> u32 {
        self.number_at(HEADER_BYTES + self.runs * (WORD_BYTES + 4) + run * 4)
    }

    fn prefix(&self, run: usize) -> &[u8] {
        let start = run.checked_sub(1).map_or(0, |before| self.prefix_end(before));
        &self.bytes[self.text_at()..][start as usize..self.prefix_end(run) as usize]
    }

    fn heads(&self) -> &[[u8; WORD_BYTES]] {
        self.bytes[HEADER_BYTES + self.runs * RUN_BYTES..][..self.entries * WORD_BYTES].as_chunks().0
    }

    fn page(&self, entry: usize) -> u32 {
        self.number_at(HEADER_BYTES + self.runs * RUN_BYTES + self.entries * WORD_BYTES + entry * 4)
    }

    /// Entry, and where its rest ends in the text.
    fn exception(&self, index: usize) -> (u32, u32) {
        let at = self.text_at() - (self.exceptions - index) * EXCEPTION_BYTES;
        (self.number_at(at), self.number_at(at + 4))
    }

    const fn text_at(&self) -> usize {
        let arrays = self.runs * RUN_BYTES + self.entries * ENTRY_BYTES + self.exceptions * EXCEPTION_BYTES;
        HEADER_BYTES + arrays
    }

    fn number_at(&self, at: usize) -> u32 {
        let bytes = self.bytes[at..].first_chunk().expect("array lengths are checked when the part is read");
        u32::from_le_bytes(*bytes)
    }
}

/// Partition and namespace as a number that sorts like them.
fn run_key(position: &Position<'_>) -> u64 {
    u64::from(position.partition.0) << 32 | u64::from(position.namespace.0)
}

fn run_start(key: u64) -> Position<'static> {
    Position {
        partition: crate::key::Partition((key >> 32) as u16),
        namespace: crate::key::NamespaceId(key as u32),
        user: &[],
    }
}

fn number(word: &[u8; WORD_BYTES]) -> u64 {
    u64::from_le_bytes(*word)
}

/// The first bytes, zero padded, as a number that sorts like them.
fn word(rest: &[u8]) -> u64 {
    if let Some(whole) = rest.first_chunk() {
        return u64::from_be_bytes(*whole);
    }
    let mut bytes = [0; WORD_BYTES];
    bytes[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(bytes)
}

/// Where a user key sorts against a prefix; `Equal` if it starts with it.
fn compare_front(user: &[u8], prefix: &[u8]) -> Ordering {
    user[..user.len().min(prefix.len())].cmp(prefix)
}

/// How many bytes two strings have in common at their front.
fn shared_bytes(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::{NamespaceId, Partition};

    type Place = (u16, u32, Vec<u8>);

    fn position((partition, namespace, user): &Place) -> Position<'_> {
        Position { partition: Partition(*partition), namespace: NamespaceId(*namespace), user }
    }

    /// An index over blocks of which each holds `per_block` of the records.
    fn build(records: &[Place], per_block: usize) -> Vec<u8> {
        let mut builder = IndexBuilder::default();
        for (block, first) in records.iter().step_by(per_block).enumerate() {
            let before = (block * per_block).checked_sub(1).map(|before| position(&records[before]));
            builder.push(&position(first), before.as_ref(), block as u32 * 2 + 10);
        }
        assert!(builder.first().compare(&position(&records[0])).is_le());
        builder.take_encoded(records.len().div_ceil(per_block) as u32 * 2 + 10)
    }

    fn places() -> impl Strategy<Value = Place> {
        let user = prop_oneof![
            prop::collection::vec(prop::sample::select(vec![0u8, 1, b'a', 255]), 1..12),
            (0u32..2000).prop_map(|number| format!("user:{number:09}").into_bytes()),
            prop::collection::vec(any::<u8>(), 1..20),
        ];
        (0u16..3, prop::sample::select(vec![0, 1, u32::MAX]), user)
    }

    proptest! {
        #[test]
        fn every_record_is_found_in_its_block(
            records in prop::collection::btree_set(places(), 1..200),
            probes in prop::collection::vec(places(), 0..60),
            per_block in 1usize..9,
        ) {
            let records: Vec<_> = records.into_iter().collect();
            let part = IndexPart::decode(&build(&records, per_block)).unwrap();
            prop_assert_eq!(part.len(), records.len().div_ceil(per_block));
            for (index, place) in records.iter().enumerate() {
                prop_assert_eq!(part.find(&position(place)), Some(index / per_block));
            }
            for place in records.iter().chain(&probes) {
                let position = position(place);
                let not_greater = |entry: &usize| part.compare_separator(*entry, &position).is_le();
                prop_assert_eq!(part.find(&position), (0..part.len()).rev().find(not_greater));
            }
            for entry in 0..part.len() {
                let first = entry * per_block;
                prop_assert!(part.compare_separator(entry, &position(&records[first])).is_le());
                if let Some(before) = first.checked_sub(1) {
                    prop_assert!(part.compare_separator(entry, &position(&records[before])).is_gt());
                }
                prop_assert_eq!(part.handle(entry), BlockHandle { page: entry as u32 * 2 + 10, pages: 2 });
            }
        }
    }

    #[test]
    fn long_keys_of_many_partitions_take_few_bytes() {
        let of =
            |number: u32| ((number / 200) as u16, 300, format!("customer:{:032}", number * 7).into_bytes());
        let records: Vec<_> = (0..8000).map(of).collect();
        let blocks = records.len().div_ceil(7);
        let encoded = build(&records, 7);
        let runs = 8000 / 200;
        assert!(encoded.len() <= blocks * ENTRY_BYTES + runs * 60, "{} for {blocks} blocks", encoded.len());
    }

    #[test]
    fn a_damaged_part_is_refused_or_searched_without_panic() {
        let of = |number: u32| {
            ((number / 10) as u16, 2, format!("a{:0width$}", number, width = number as usize % 13 + 3))
        };
        let mut records: Vec<_> = (0..40).map(of).map(|(p, n, user)| (p, n, user.into_bytes())).collect();
        records.sort();
        let encoded = build(&records, 1);
        for at in 0..encoded.len() {
            assert!(IndexPart::decode(&encoded[..at]).is_err());
            for mask in [1, 0x80, 0xFF] {
                let mut damaged = encoded.clone();
                damaged[at] ^= mask;
                if let Ok(part) = IndexPart::decode(&damaged) {
                    for place in &records {
                        if let Some(entry) = part.find(&position(place)) {
                            _ = (part.handle(entry), part.compare_separator(entry, &position(place)));
                        }
                    }
                }
            }
        }
    }
}
