//! What a shard keeps in memory of its tables, within fixed budgets.

mod block;
mod row;
mod slot_index;

pub use block::{Admission, BlockCache, BlockCacheStats};
pub use row::{ROW_BYTES_MAX, RowCache, RowCacheStats, Ticket};
