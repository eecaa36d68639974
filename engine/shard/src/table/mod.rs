//! Tables: sorted, immutable files of records.
//!
//! A table is written once, front to back ([`TableWriter`]): data blocks, then per part (at most
//! 4,096 records) an index block and a filter block, the list of parts, the properties, and a
//! footer page. Open ([`Table`]), its index and filters stay in memory, so that a lookup costs no
//! read for nearly every absent key and one aligned read of one block for a present one.
//!
//! | file | subject |
//! |---|---|
//! | `format` | block headers and the footer: checksums bound to file, place and database |
//! | `block`, `block_builder` | records within a data block |
//! | `index`, `filter`, `parts` | what a part is found and refused by |
//! | `meta`, `tally` | properties, and counting them |
//! | `writer`, `output`, `unit` | writing |
//! | `reader`, `cursor`, `ahead` | point reads, ordered reads, reading ahead |
//! | `verify` | reading everything and believing nothing |
//!
//! Every byte read from disk is checked before it is used; what fails is [`crate::Corruption`]
//! with file and offset, never a missing record. The layout is in `engine/FORMAT.md`.

mod ahead;
mod block;
mod block_builder;
mod cursor;
mod filter;
mod format;
mod index;
mod meta;
mod output;
mod parts;
mod reader;
mod tally;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod unit;
mod verify;
mod writer;

use std::path::{Path, PathBuf};

use pinion_env::PAGE_BYTES;

pub use block::Block;
pub use cursor::{ReadStyle, TableCursor};
pub use filter::FilterWidth;
pub use meta::TableMeta;
pub(crate) use output::write_error;
pub use reader::Table;
pub use unit::BlockUnit;
pub use verify::{TableVerifier, VerifyReport, verify_table};
pub use writer::{TableOptions, TableWriter};

/// Records that share one filter and one part of the index. Closing a part is the longest
/// synchronous step of writing. Measured: 135 us for sorting the hashes and building the filter
/// of 4,096 records; 280 us for 8,192, which would save half a bit per key but break the limit of
/// 200 us.
pub const PART_RECORDS_MAX: usize = 4096;
/// Bytes of one write, and of one read in order.
pub(crate) const WINDOW_BYTES: usize = 128 << 10;
/// The largest unit of data blocks.
pub(crate) const UNIT_BYTES_MAX: usize = 16 << 10;

const FILE_SUFFIX: &str = ".table";

/// Where a block stands in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockHandle {
    /// First page.
    pub page: u32,
    /// Length in pages of 4 KiB; at least one.
    pub pages: u32,
}

impl BlockHandle {
    /// Offset in the file.
    pub const fn offset(&self) -> u64 {
        self.page as u64 * PAGE_BYTES as u64
    }

    /// Length in bytes, padding included.
    pub const fn bytes(&self) -> usize {
        self.pages as usize * PAGE_BYTES
    }
}

/// The path of a table within the shard's table directory.
pub fn table_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}{FILE_SUFFIX}"))
}

/// The number in the name of a table file; `None` for any other name.
pub fn table_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(FILE_SUFFIX)?;
    let plain = digits.len() == 16 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if plain { u64::from_str_radix(digits, 16).ok() } else { None }
}
