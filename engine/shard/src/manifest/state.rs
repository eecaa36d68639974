//! What a manifest says, and the edits that change it.

use std::collections::BTreeMap;

use crate::codec::COUNTED_MAX;
use crate::key::OwnedPosition;
use crate::log::{LogPosition, SEGMENT_ID_MAX};
use crate::stamp::HybridTime;
use crate::table::TableMeta;

const ADDED_TWICE: &str = "a table that is live is added";
const NOT_LIVE: &str = "a table that is not live is removed";

/// One change of a shard's files. Edits applied together become durable together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// A table is live.
    AddTable {
        /// 0 for runs, else the level below them.
        level: u8,
        /// Which run it belongs to (greater = newer); 0 on other levels.
        run: u64,
        /// Its properties.
        meta: TableMeta,
    },
    /// A table is no longer live.
    RemoveTable {
        /// Its file number.
        number: u64,
    },
    /// Every record of the log up to here is held by live tables. Never goes back.
    LogReleased {
        /// End of the last such record.
        position: LogPosition,
    },
    /// File numbers below this one may have been used. Never goes back.
    NextFile {
        /// The least unused number.
        number: u64,
    },
    /// Where compaction goes on in a level.
    CompactCursor {
        /// The level.
        level: u8,
        /// The end of what it took last.
        position: OwnedPosition,
    },
    /// The hybrid clock has been used up to here: what these edits drop is dead by this time. Never
    /// goes back.
    ClockCeiling {
        /// The shard's clock starts no earlier.
        time: HybridTime,
    },
}

/// The sum of all edits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ManifestState {
    tables: BTreeMap<u64, LiveTable>,
    cursors: BTreeMap<u8, OwnedPosition>,
    /// Every record of the log up to here is held by live tables.
    pub log_released: LogPosition,
    /// The least file number that was never used.
    pub next_file: u64,
    /// The clock starts no earlier.
    pub clock_ceiling: HybridTime,
}

/// Whether what counts on from the numbers of an edit that was read can count on. No shard ever gets
/// near these bounds.
pub(super) fn has_room(edit: &Edit) -> bool {
    match edit {
        Edit::AddTable { run, meta, .. } => {
            meta.number <= COUNTED_MAX && *run <= COUNTED_MAX && meta.stamp_max.time <= HybridTime::LAST
        }
        Edit::NextFile { number } => *number <= COUNTED_MAX,
        Edit::LogReleased { position } => position.segment() <= SEGMENT_ID_MAX,
        Edit::ClockCeiling { time } => *time <= HybridTime::LAST,
        Edit::RemoveTable { .. } | Edit::CompactCursor { .. } => true,
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct LiveTable {
    level: u8,
    run: u64,
    meta: TableMeta,
}

impl ManifestState {
    /// The live tables by file number: level, run, properties.
    pub fn tables(&self) -> impl Iterator<Item = (u8, u64, &TableMeta)> {
        self.tables.values().map(|table| (table.level, table.run, &table.meta))
    }

    /// Where compaction goes on, by level.
    pub fn cursors(&self) -> Vec<Option<OwnedPosition>> {
        let levels = self.cursors.keys().next_back().map_or(0, |level| usize::from(*level) + 1);
        let mut cursors = vec![None; levels];
        for (level, position) in &self.cursors {
            cursors[usize::from(*level)] = Some(position.clone());
        }
        cursors
    }

    /// Whether [`ManifestState::apply`] would succeed.
    pub(super) fn check(&self, edits: &[Edit]) -> Result<(), &'static str> {
        let mut changed = BTreeMap::new();
        for edit in edits {
            let (number, live) = match edit {
                Edit::AddTable { meta, .. } => (meta.number, true),
                Edit::RemoveTable { number } => (*number, false),
                _ => continue,
            };
            let was_live = changed.insert(number, live).unwrap_or_else(|| self.tables.contains_key(&number));
            match (was_live, live) {
                (true, true) => return Err(ADDED_TWICE),
                (false, false) => return Err(NOT_LIVE),
                _ => {}
            }
        }
        Ok(())
    }

    /// Applies edits in order. Fails without a defined state on an edit that does not fit: adding a
    /// table that is live, removing one that is not.
    pub(super) fn apply(&mut self, edits: &[Edit]) -> Result<(), &'static str> {
        for edit in edits {
            match edit {
                Edit::AddTable { level, run, meta } => {
                    let table = LiveTable { level: *level, run: *run, meta: meta.clone() };
                    self.next_file = self.next_file.max(meta.number.saturating_add(1));
                    if self.tables.insert(meta.number, table).is_some() {
                        return Err(ADDED_TWICE);
                    }
                }
                Edit::RemoveTable { number } => {
                    if self.tables.remove(number).is_none() {
                        return Err(NOT_LIVE);
                    }
                }
                Edit::LogReleased { position } => self.log_released = self.log_released.max(*position),
                Edit::NextFile { number } => self.next_file = self.next_file.max(*number),
                Edit::CompactCursor { level, position } => {
                    self.cursors.insert(*level, position.clone());
                }
                Edit::ClockCeiling { time } => self.clock_ceiling = self.clock_ceiling.max(*time),
            }
        }
        Ok(())
    }

    /// Edits that make this state out of nothing, one at a time.
    pub(super) fn snapshot(&self) -> impl Iterator<Item = Edit> {
        let fixed =
            [Edit::LogReleased { position: self.log_released }, Edit::NextFile { number: self.next_file }];
        let cursors = self
            .cursors
            .iter()
            .map(|(level, position)| Edit::CompactCursor { level: *level, position: position.clone() });
        let tables =
            self.tables().map(|(level, run, meta)| Edit::AddTable { level, run, meta: meta.clone() });
        let clock = Edit::ClockCeiling { time: self.clock_ceiling };
        let clock = (self.clock_ceiling > HybridTime::default()).then_some(clock);
        fixed.into_iter().chain(clock).chain(cursors).chain(tables)
    }
}
