//! Finds tables full of dead records: expired values and tombstones whose time is over.
//!
//! Leveled compaction alone gives their space back only when new data pushes them down, and an
//! idle shard has none. The sweep judges by a table's properties, which hold ranges and counts but
//! no distributions, so it estimates: within a range, stamps and expiries are taken to be evenly
//! spread. An estimate that is too high costs one rewrite and cannot repeat itself: afterwards the
//! least expiry and the oldest tombstone lie past the moment of the rewrite.

use super::levels::PickOptions;
use crate::table::TableMeta;

/// A table is rewritten when about this share of its records is dead, in thousandths.
const DEAD_SHARE_MIN: u64 = 250;
/// Of a table in which only some values expire, the greatest expiry is unknown. It is looked at
/// when an eighth of the shortest life has passed since the first expiry: lives of one minute to one
/// year then cost about a hundred rewrites at most, however they are mixed.
const MIXED_LIFE_SHARE: u64 = 8;

/// Whether every record of a table may go as soon as nothing older lies beneath.
pub(super) fn is_wholly_dead(table: &TableMeta, options: &PickOptions<'_>) -> bool {
    table.expiry_max_ms <= options.now_ms && table.stamp_max.time <= options.drop_horizon
}

/// About how many thousandths of a table's records are dead, if it is worth a rewrite.
pub(super) fn dead_share(table: &TableMeta, options: &PickOptions<'_>) -> Option<u64> {
    let horizon = options.drop_horizon.millis();
    let stamp_max = table.stamp_max.millis();
    let tombstones = if table.tombstones == 0 || table.oldest_tombstone.time > options.drop_horizon {
        0
    } else {
        table.tombstones * passed(table.oldest_tombstone.millis(), stamp_max, horizon) / 1000
    };
    let expired = if table.expiring == 0 || table.stamp_min.time > options.drop_horizon {
        0
    } else {
        let old_enough = passed(table.stamp_min.millis(), stamp_max, horizon);
        table.expiring * expired_share(table, options.now_ms).min(old_enough) / 1000
    };
    let share = (tombstones + expired) * 1000 / table.records.max(1);
    (share >= DEAD_SHARE_MIN).then_some(share)
}

/// Thousandths of the values with an expiry whose time is over.
fn expired_share(table: &TableMeta, now_ms: u64) -> u64 {
    let least = table.expiry_min_ms;
    if least > now_ms {
        return 0;
    }
    if table.expiry_max_ms != u64::MAX {
        return passed(least, table.expiry_max_ms, now_ms);
    }
    // Values written over some time with one life expire over as much time.
    let written_over = table.stamp_max.millis() - table.stamp_min.millis().min(table.stamp_max.millis());
    let life = least.saturating_sub(table.stamp_min.millis());
    if now_ms - least >= written_over.max(life / MIXED_LIFE_SHARE) { 1000 } else { 0 }
}

/// How many thousandths of the way from `from` to `to` lie at or before `now`.
fn passed(from: u64, to: u64, now: u64) -> u64 {
    if now >= to {
        1000
    } else if now < from {
        0
    } else {
        ((u128::from(now - from) * 1000) / u128::from(to - from)) as u64
    }
}
