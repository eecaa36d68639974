//! The log's files as a test sees them: where the blocks lie. Written from `engine/FORMAT.md`.

use std::fs;
use std::path::{Path, PathBuf};

/// Blocks start on multiples of this, behind the header page.
const STEP_BYTES: usize = 512;
const BLOCKS_START: usize = 4096;
const BLOCK_MAGIC: &[u8; 4] = b"PNWB";

/// A block that once was written; those of a recycled segment's earlier life are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Block {
    /// Counts the blocks of the shard.
    pub(crate) number: u64,
    pub(crate) segment: u32,
    pub(crate) offset: usize,
    /// With padding.
    pub(crate) bytes: usize,
    pub(crate) records: u32,
}

/// The file of a segment.
pub(crate) fn segment_path(shard: &Path, segment: u32) -> PathBuf {
    shard.join("wal").join(format!("{segment:010}.log"))
}

/// The blocks of a shard's log, by number.
pub(crate) fn blocks(shard: &Path) -> Vec<Block> {
    let mut blocks = Vec::new();
    for entry in fs::read_dir(shard.join("wal")).expect("the shard has a log") {
        let path = entry.expect("the directory can be read").path();
        let stem = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        let Ok(segment) = stem.parse::<u32>() else { continue };
        let content = fs::read(&path).expect("a segment can be read");
        let mut at = BLOCKS_START;
        while let Some(block) = block_at(&content, at).filter(|block| block.segment == segment) {
            at += block.bytes;
            blocks.push(block);
        }
    }
    blocks.sort();
    blocks
}

fn block_at(content: &[u8], offset: usize) -> Option<Block> {
    let header = content.get(offset..offset + 96)?;
    let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let number = u64::from_le_bytes(header[32..40].try_into().expect("eight bytes"));
    let (found_offset, bytes) = (u32_at(40) as usize, u32_at(44) as usize);
    let sound = header[8..12] == *BLOCK_MAGIC
        && found_offset == offset
        && bytes > 0
        && bytes % STEP_BYTES == 0
        && offset + bytes <= content.len();
    sound.then(|| Block { number, segment: u32_at(28), offset, bytes, records: u32_at(52) })
}
