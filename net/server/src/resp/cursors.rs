//! Where scans go on: what the numbers mean that SCAN gives out.
//!
//! A scan goes through the shards in order. Where a page ends at the border of a shard the cursor is the
//! number of the next one and needs no memory. Within a shard it names an entry of a table of the core
//! that owns the shard, by core, place and a number drawn by chance: a cursor of another start of the
//! node, or of an entry that has made room for others, is not known, and says so.
//!
//! | bits | meaning |
//! |---|---|
//! | 0 to 9 | the core; of a cursor that begins a shard, the shard |
//! | 10 to 21 | the place in the table |
//! | 22 to 52 | drawn by chance, not 0; 0 in a cursor that begins a shard |
//!
//! So a cursor fits the 53 bits that a floating-point number keeps: some clients make one of it.
//!
//! Limits: a table has `resp_cursors_max` places, one for a scan whatever its length, with where it
//! stands now and where it stood before, since a client that lost a reply asks again. The scan that was
//! not heard of for longest makes room.

use pinion_engine::OwnedPosition;

/// Bits of a core's or shard's number.
const CORE_BITS: u32 = 10;
/// Bits of a place in the table.
const PLACE_BITS: u32 = 12;
/// Bits drawn by chance.
const CHANCE_BITS: u32 = 31;

/// The most places that a table can have.
pub(crate) const PLACES_MAX: u32 = 1 << PLACE_BITS;

const _: () = assert!(CORE_BITS + PLACE_BITS + CHANCE_BITS == 53);
/// Partitions are at most 16,384 and a shard has at least 16 of them; cores without shards never scan.
const _: () = assert!(pinion_engine::PARTITIONS_MAX / 16 <= 1 << CORE_BITS);

/// What a cursor says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cursor {
    /// Begin with this shard.
    Shard(u16),
    /// Go on where an entry of this core's table says.
    Entry(Entry),
}

/// Names an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) core: u16,
    place: u16,
    chance: u32,
}

impl Cursor {
    /// From the number that a client sent; `None` if no node gives it out.
    pub(super) fn of(number: u64) -> Option<Self> {
        let bits = |from: u32, count: u32| (number >> from) & ((1 << count) - 1);
        if number >> (CORE_BITS + PLACE_BITS + CHANCE_BITS) != 0 {
            return None;
        }
        let (core, place) = (bits(0, CORE_BITS) as u16, bits(CORE_BITS, PLACE_BITS) as u16);
        match (bits(CORE_BITS + PLACE_BITS, CHANCE_BITS) as u32, place) {
            (0, 0) => Some(Self::Shard(core)),
            (0, _) => None,
            (chance, place) => Some(Self::Entry(Entry { core, place, chance })),
        }
    }

    /// The number to send.
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Shard(shard) => u64::from(shard),
            Self::Entry(Entry { core, place, chance }) => {
                u64::from(core)
                    | u64::from(place) << CORE_BITS
                    | u64::from(chance) << (CORE_BITS + PLACE_BITS)
            }
        }
    }
}

/// A scan that has not ended.
#[derive(Debug)]
struct Scan {
    /// Where it stands now, and where it stood before: the number drawn, and the first position that
    /// was not answered.
    now: (u32, OwnedPosition),
    before: Option<(u32, OwnedPosition)>,
    /// When it was heard of, in calls.
    heard: u64,
}

/// The scans of a core.
#[derive(Debug)]
pub(super) struct Cursors {
    places_max: usize,
    scans: Vec<Scan>,
    calls: u64,
}

impl Cursors {
    pub(super) const fn new(places_max: u32) -> Self {
        let places_max = if places_max > PLACES_MAX { PLACES_MAX } else { places_max };
        Self { places_max: places_max as usize, scans: Vec::new(), calls: 0 }
    }

    /// Where a scan goes on; `None` if it is not known.
    pub(super) fn position(&mut self, entry: Entry) -> Option<OwnedPosition> {
        self.calls += 1;
        let scan = self.scans.get_mut(usize::from(entry.place))?;
        let known = [Some(&scan.now), scan.before.as_ref()];
        let (_, position) = known.into_iter().flatten().find(|(chance, _)| *chance == entry.chance)?;
        let position = position.clone();
        scan.heard = self.calls;
        Some(position)
    }

    /// Remembers where a scan goes on: one that was known as `entry`, or a new one. `random` is drawn
    /// by chance.
    pub(super) fn remember(
        &mut self,
        core: u16,
        entry: Option<Entry>,
        position: OwnedPosition,
        random: u64,
    ) -> Cursor {
        self.calls += 1;
        let chance = ((random >> (64 - CHANCE_BITS)) as u32).max(1);
        let known = entry.filter(|entry| {
            let scan = self.scans.get(usize::from(entry.place));
            scan.is_some_and(|scan| {
                scan.now.0 == entry.chance || scan.before.as_ref().is_some_and(|(by, _)| *by == entry.chance)
            })
        });
        let place = match known {
            Some(entry) => {
                let scan = &mut self.scans[usize::from(entry.place)];
                scan.heard = self.calls;
                if scan.now.0 == entry.chance {
                    scan.before = Some(std::mem::replace(&mut scan.now, (chance, position)));
                } else if scan.now.1 == position {
                    // Asked again, and the same page: the same cursor, as whoever got the reply knows.
                    return Cursor::Entry(Entry { core, place: entry.place, chance: scan.now.0 });
                } else {
                    scan.now = (chance, position);
                }
                usize::from(entry.place)
            }
            None => {
                let scan = Scan { now: (chance, position), before: None, heard: self.calls };
                if self.scans.len() < self.places_max {
                    self.scans.push(scan);
                    self.scans.len() - 1
                } else {
                    let oldest = self.scans.iter().enumerate().min_by_key(|(_, scan)| scan.heard);
                    let place = oldest.map_or(0, |(place, _)| place);
                    self.scans[place] = scan;
                    place
                }
            }
        };
        Cursor::Entry(Entry { core, place: place as u16, chance })
    }
}

#[cfg(test)]
mod tests {
    use pinion_engine::{NamespaceId, Partition};

    use super::*;

    fn position(number: u16) -> OwnedPosition {
        OwnedPosition { partition: Partition(number), namespace: NamespaceId(0), user: b"k".to_vec() }
    }

    fn entry(cursor: Cursor) -> Entry {
        match Cursor::of(cursor.number()) {
            Some(Cursor::Entry(entry)) => entry,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn numbers_mean_what_they_were_given_out_for() {
        for shard in [0, 1, 1_023] {
            assert_eq!(Cursor::of(Cursor::Shard(shard).number()), Some(Cursor::Shard(shard)));
        }
        let last = Cursor::Entry(Entry { core: 1_023, place: 4_095, chance: (1 << 31) - 1 });
        assert_eq!((Cursor::of(last.number()), last.number()), (Some(last), (1 << 53) - 1));
        assert_eq!(Cursor::of(1 << 53), None);
        assert_eq!(Cursor::of(1 << CORE_BITS), None, "an entry without a number drawn");
        assert_eq!(Cursor::of(u64::MAX), None);
    }

    #[test]
    fn a_scan_is_known_where_it_stands_and_where_it_stood() {
        let mut cursors = Cursors::new(2);
        let first = entry(cursors.remember(3, None, position(1), 1 << 40));
        assert_eq!((first.core, cursors.position(first)), (3, Some(position(1))));
        let second = entry(cursors.remember(3, Some(first), position(2), 2 << 40));
        assert_eq!(cursors.position(second), Some(position(2)));
        assert_eq!(cursors.position(first), Some(position(1)), "the reply was lost");
        let again = entry(cursors.remember(3, Some(first), position(2), 3 << 40));
        assert_eq!(again, second, "the same page");
        let other = entry(cursors.remember(3, Some(first), position(4), 4 << 40));
        assert_eq!(cursors.position(other), Some(position(4)));
        assert_eq!(cursors.position(second), None, "another took its place");
        let third = entry(cursors.remember(3, Some(other), position(5), 5 << 40));
        assert_eq!((cursors.position(third), cursors.position(first)), (Some(position(5)), None));
    }

    #[test]
    fn the_scan_that_was_not_heard_of_for_longest_makes_room() {
        let mut cursors = Cursors::new(2);
        let first = entry(cursors.remember(0, None, position(1), 1 << 40));
        let second = entry(cursors.remember(0, None, position(2), 2 << 40));
        assert!(cursors.position(first).is_some());
        let third = entry(cursors.remember(0, None, position(3), 3 << 40));
        assert_eq!(cursors.position(second), None);
        assert!(cursors.position(first).is_some() && cursors.position(third).is_some());
        assert_eq!(cursors.scans.len(), 2);
    }
}
