//! Which records a thread asks for: all of them, or those that live on its core.
//!
//! In one process no request passes between cores: a thread that owns some of the shards asks for the
//! records in them and no others, drawn by the workload's distribution (what falls on others is drawn
//! again), as clients do that connect to each core. It inserts the records of a load, and new ones, in the
//! order of their numbers, leaving out those of others.
//!
//! Whose a record is takes a hash of its key, so it is found out once for all that are there when the load
//! begins: a bit for each.

use super::shared::Inserts;
use crate::error::{Error, Result};
use crate::workload::Workload;
use crate::workload::draw::Chooser;
use crate::workload::record::KeyForm;

/// Records of a load that is shared out by cores, at most: 512 MiB of bits for each core.
const RECORDS_MAX: u64 = 1 << 32;
/// Draws for a record of one's own before the next one is taken that is.
const DRAWS_MAX: usize = 1000;
/// How far a thread's inserts may be ahead of those of all threads together, in record numbers.
const AHEAD_MAX: u64 = 1 << 16;

/// See the module.
pub(super) struct Part {
    own: Option<Own>,
}

/// Says whether a key is the thread's own.
type IsOwn = Box<dyn Fn(&[u8]) -> bool>;

struct Own {
    is_own: IsOwn,
    key_form: KeyForm,
    key: Vec<u8>,
    /// The first record, those of which it is known, and whether each is one's own.
    first: u64,
    known: u64,
    bits: Vec<u64>,
    /// Whether any of them is.
    has_any: bool,
    next_insert: u64,
    /// Where the thread is in all records, when it goes through them.
    next_record: u64,
}

impl Part {
    /// All records, shared with the other threads.
    pub(super) const fn whole() -> Self {
        Self { own: None }
    }

    /// Those records whose keys are the thread's own. Takes time in proportion to all.
    ///
    /// # Errors
    /// [`Error::Usage`]: too many records.
    pub(super) fn of(workload: &Workload, is_own: impl Fn(&[u8]) -> bool + 'static) -> Result<Self> {
        let (first, known) = (workload.insert_start, workload.record_count - workload.insert_start);
        if known > RECORDS_MAX {
            return Err(Error::Usage(format!("at most {RECORDS_MAX} records can be shared out by cores")));
        }
        let mut own = Own {
            is_own: Box::new(is_own),
            key_form: workload.key,
            key: Vec::new(),
            first,
            known: 0,
            bits: vec![0; usize::try_from(known.div_ceil(64)).expect("at most 2^26")],
            has_any: false,
            next_insert: workload.record_count,
            next_record: first,
        };
        for index in 0..known {
            if own.holds(first + index) {
                own.bits[(index / 64) as usize] |= 1 << (index % 64);
                own.has_any = true;
            }
        }
        own.known = known;
        Ok(Self { own: Some(own) })
    }

    /// Whether the thread numbers its operations itself.
    pub(super) const fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Whether none of the records that were there at the beginning is the thread's.
    pub(super) fn has_none(&self) -> bool {
        self.own.as_ref().is_some_and(|own| !own.has_any)
    }

    /// The next of all records below `end`, if there is one.
    pub(super) fn next_record(&mut self, end: u64) -> Option<u64> {
        let own = self.own.as_mut()?;
        let number = (own.next_record..end).find(|number| own.holds(*number))?;
        own.next_record = number + 1;
        Some(number)
    }

    /// A record that is there; `None` if the thread has none.
    pub(super) fn draw(&mut self, chooser: &mut Chooser, inserts: &Inserts) -> Option<u64> {
        let last = inserts.last();
        let drawn = chooser.draw(last);
        let Some(own) = &mut self.own else { return Some(drawn) };
        if !own.has_any {
            return None;
        }
        let mut number = drawn;
        for _ in 0..DRAWS_MAX {
            if own.holds(number) {
                return Some(number);
            }
            number = chooser.draw(last);
        }
        // A few records are asked for most of the time, and none of them is here.
        (number..=last).chain(own.first..number).find(|number| own.holds(*number))
    }

    /// The number of a new record; `None` while the thread is too far ahead of others.
    pub(super) fn next_insert(&mut self, inserts: &Inserts) -> Option<u64> {
        let Some(own) = &mut self.own else { return Some(inserts.next()) };
        let end = inserts.last().saturating_add(AHEAD_MAX).saturating_add(1);
        let found = (own.next_insert..end).find(|number| own.holds(*number));
        own.next_insert = found.map_or(own.next_insert.max(end), |number| number + 1);
        found
    }
}

impl Own {
    fn holds(&mut self, number: u64) -> bool {
        let index = number - self.first;
        if index < self.known {
            return self.bits[(index / 64) as usize] >> (index % 64) & 1 == 1;
        }
        self.key.clear();
        self.key_form.append(number, &mut self.key);
        (self.is_own)(&self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::super::shared::Shared;
    use super::*;

    fn workload(properties: &[&str]) -> Workload {
        let properties: Vec<String> = properties.iter().map(|text| (*text).to_owned()).collect();
        Workload::new("small", &[], &properties).unwrap()
    }

    /// Keys of an even number, or of an odd one.
    fn part(workload: &Workload, odd: bool) -> Part {
        let is_odd = |key: &[u8]| key.last().is_some_and(|digit| b"13579bdf".contains(digit));
        Part::of(workload, move |key| is_odd(key) == odd).unwrap()
    }

    #[test]
    fn parts_go_through_all_records_together() {
        let workload = workload(&["recordcount=101", "insertstart=1"]);
        let mut seen = [part(&workload, false), part(&workload, true)]
            .iter_mut()
            .flat_map(|part| std::iter::from_fn(|| part.next_record(101)).collect::<Vec<_>>())
            .collect::<Vec<_>>();
        assert_eq!(seen[..3], [2, 4, 6]);
        seen.sort_unstable();
        assert_eq!(seen, (1..101).collect::<Vec<_>>());
    }

    #[test]
    fn only_own_records_are_drawn_as_often_as_each_other() {
        let workload = workload(&["recordcount=100"]);
        let shared = Shared::new(u64::MAX, 2, 100, None);
        let mut chooser = Chooser::new(workload.distribution, (0, 100), 0, 7, (0, 1));
        let (mut part, mut counts) = (part(&workload, true), [0; 100]);
        for _ in 0..10_000 {
            counts[part.draw(&mut chooser, &shared.inserts).unwrap() as usize] += 1;
        }
        for (number, count) in counts.into_iter().enumerate() {
            let expected = if number % 2 == 1 { 130..270 } else { 0..1 };
            assert!(expected.contains(&count), "record {number}: {count}");
        }
    }

    #[test]
    fn who_has_none_of_the_popular_records_still_ends_its_draw() {
        let workload = workload(&[
            "recordcount=100",
            "requestdistribution=hotspot",
            "hotspotdatafraction=0.01",
            "hotspotopnfraction=1",
        ]);
        let shared = Shared::new(u64::MAX, 2, 100, None);
        let mut chooser = Chooser::new(workload.distribution, (0, 100), 0, 7, (0, 1));
        assert_eq!(part(&workload, true).draw(&mut chooser, &shared.inserts), Some(1));
        let mut nobody = Part::of(&workload, |_| false).unwrap();
        assert_eq!(nobody.draw(&mut chooser, &shared.inserts), None);
    }

    #[test]
    fn inserts_are_one_s_own_and_wait_for_those_who_lag() {
        let workload = workload(&["recordcount=100"]);
        let shared = Shared::new(u64::MAX, 2, 100, None);
        let mut odd = part(&workload, true);
        let ahead = std::iter::from_fn(|| odd.next_insert(&shared.inserts)).collect::<Vec<_>>();
        assert_eq!((ahead[0], ahead.len() as u64), (101, AHEAD_MAX / 2));
        let mut even = part(&workload, false);
        let first = even.next_insert(&shared.inserts).unwrap();
        [first, ahead[0]].into_iter().for_each(|number| shared.inserts.acknowledge(number));
        assert_eq!((first, shared.inserts.last()), (100, 101));
        assert_eq!(odd.next_insert(&shared.inserts), Some(ahead[ahead.len() - 1] + 2));
    }
}
