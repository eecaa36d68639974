//! Tables: sorted, immutable files of records.

mod meta;

pub use meta::TableMeta;
