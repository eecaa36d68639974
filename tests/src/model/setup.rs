//! The sizes of the shards: so small that short histories flush, compact and roll their logs.

use pinion_engine::Options;

use super::plan::{Plan, Setup, UNIT_MS};
use crate::world::Random;

/// Longest value, in bytes. The same in every setup: it decides answers.
pub(super) const VALUE_BYTES_MAX: u32 = 16 << 10;
/// Operations in one batch.
pub(super) const BATCH_OPS_MAX: u32 = 24;
/// Bytes of one batch.
pub(super) const BATCH_BYTES_MAX: u32 = 64 << 10;

/// A disk's block, in bytes.
pub(super) fn draw_disk_block(random: &mut Random) -> u32 {
    512 << random.below(4)
}

impl Setup {
    pub(super) fn draw(random: &mut Random) -> Self {
        let memtable_kib = 16 << random.below(4);
        let one_of =
            |random: &mut Random, choices: &[u64]| choices[random.below(choices.len() as u64) as usize];
        Self {
            log_segment_kib: 128 << random.below(3),
            log_queue_kib: 64 << random.below(4),
            log_block_pages: 1 << random.below(6),
            log_spare_segments: random.below(3) as u32,
            pending_operations: one_of(random, &[32, 1024]) as u32,
            memtable_kib,
            table_kib: 8 << random.below(5),
            level_base_kib: 4 << random.below(6),
            level_growth: 2 + random.below(7) as u32,
            runs: 1 + random.below(4) as u32,
            block_cache_kib: one_of(random, &[0, 16, 64, 1024]),
            row_cache_kib: one_of(random, &[0, 0, 64, 256]),
            step_records: 1 + random.below(64) as u32,
            step_bytes: 256 << random.below(9),
            scan_records: 1 + random.below(200) as u32,
            scan_bytes: 64 << random.below(15),
            sweep_s: 1 + random.below(120),
            runs_percent: one_of(random, &[25, 100, 1_000]) as u32,
        }
    }

    pub(super) fn options(&self, plan: &Plan) -> Options {
        Options {
            value_bytes_max: VALUE_BYTES_MAX,
            batch_ops_max: BATCH_OPS_MAX,
            batch_bytes_max: BATCH_BYTES_MAX,
            log_segment_bytes: self.log_segment_kib << 10,
            log_queue_bytes_max: self.log_queue_kib << 10,
            log_block_bytes_max: self.log_block_pages * 4096,
            log_spare_segments_max: self.log_spare_segments,
            pending_ops_max: self.pending_operations,
            manifest_edit_bytes: 64 << 10,
            memtable_bytes: self.memtable_kib << 10,
            table_bytes: self.table_kib << 10,
            table_write_bytes: 16 << 10,
            level_base_bytes: self.level_base_kib << 10,
            level_growth: self.level_growth,
            runs_max: self.runs,
            runs_percent: self.runs_percent,
            block_cache_bytes: self.block_cache_kib << 10,
            row_cache_bytes: self.row_cache_kib << 10,
            step_records_max: self.step_records,
            step_bytes_max: self.step_bytes,
            retry_window_ms_max: plan.window_ms(),
            deadline_ms_max: u64::from(plan.deadline_units) * UNIT_MS,
            stamp_ahead_ms_max: 500,
            disk_reserve_bytes: 0,
            scan_records_max: self.scan_records,
            scan_bytes_max: self.scan_bytes,
            sweep_interval_ms: self.sweep_s * 1000,
        }
    }
}
