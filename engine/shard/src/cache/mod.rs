//! What a shard keeps in memory of its tables, within fixed budgets.

mod row;

pub use row::{ROW_BYTES_MAX, RowCache, RowCacheStats, Ticket};
