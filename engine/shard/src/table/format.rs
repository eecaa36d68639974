//! What every block of a table file starts with, and the footer the file ends with.
//!
//! A file is a row of blocks, each on a page border and padded with zeros to whole pages, and one
//! footer page. A block's header names the file, the page it stands at and its type, and its
//! checksum is seeded with the database and the shard: a block that was misdirected, torn, rotten
//! or written by another database fails. See FORMAT.md for the byte tables.

use std::path::Path;

use pinion_env::PAGE_BYTES;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::codec::Decoder;
use crate::error::Corruption;

/// Bytes in front of every block's payload.
pub(crate) const BLOCK_HEADER_BYTES: usize = 32;
/// Format of blocks and of the footer. A reader refuses greater ones.
pub(crate) const FORMAT_VERSION: u16 = 1;
/// The first bytes of a footer.
const MAGIC: [u8; 8] = *b"PINTABLE";
/// Sections a footer may list.
const SECTIONS_MAX: usize = 16;

/// What a block holds. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum BlockType {
    /// Records.
    Data = 1,
    /// One part of the sparse index.
    Index = 2,
    /// The filter of one part.
    Filter = 3,
    /// The list of parts.
    Parts = 4,
    /// The table's properties.
    Properties = 5,
}

/// How a payload is stored. 1 and 2 are reserved for LZ4 and Zstandard.
const CODEC_NONE: u8 = 0;

/// A failed check, before file and offset are known.
#[derive(Debug)]
pub(crate) struct Damage {
    /// Bytes from the start of what was checked.
    pub(crate) at: u64,
    /// Which check failed.
    pub(crate) what: &'static str,
    /// What should stand there.
    pub(crate) expected: String,
    /// What stands there.
    pub(crate) found: String,
}

impl Damage {
    pub(crate) fn new(
        at: usize,
        what: &'static str,
        expected: impl std::fmt::Display,
        found: impl std::fmt::Display,
    ) -> Self {
        Self { at: at as u64, what, expected: expected.to_string(), found: found.to_string() }
    }

    /// Adds what the caller knows: the file, and where the checked bytes stand in it.
    pub(crate) fn in_file(self, file: &Path, offset: u64) -> Corruption {
        Corruption {
            file: file.to_path_buf(),
            offset: offset + self.at,
            what: self.what,
            expected: self.expected,
            found: self.found,
        }
    }
}

/// Where a block stands and what it should be: what its header is checked against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockPlace {
    pub(crate) kind: BlockType,
    /// Number of the file.
    pub(crate) table: u64,
    /// Page the block starts at.
    pub(crate) page: u32,
    /// Seed of the checksums of this shard.
    pub(crate) seed: u64,
}

/// Fills in the header of a block: `block` is [`BLOCK_HEADER_BYTES`] of anything and the payload.
pub(crate) fn seal_block(block: &mut [u8], place: &BlockPlace) {
    let payload = (block.len() - BLOCK_HEADER_BYTES) as u32;
    block[8..16].copy_from_slice(&place.table.to_le_bytes());
    block[16..20].copy_from_slice(&place.page.to_le_bytes());
    block[20..24].copy_from_slice(&payload.to_le_bytes());
    block[24..28].copy_from_slice(&payload.to_le_bytes());
    block[28] = place.kind as u8;
    block[29] = CODEC_NONE;
    block[30..32].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    let checksum = xxh3_64_with_seed(&block[8..], place.seed);
    block[..8].copy_from_slice(&checksum.to_le_bytes());
}

/// Checks a block (with any padding behind it) and gives its payload.
pub(crate) fn open_block<'a>(block: &'a [u8], place: &BlockPlace) -> Result<&'a [u8], Damage> {
    let short = || Damage::new(0, "block length", "a block header", format!("{} bytes", block.len()));
    let mut fields = Decoder::new(block);
    let checksum = fields.u64().ok_or_else(short)?;
    let table = fields.u64().ok_or_else(short)?;
    let page = fields.u32().ok_or_else(short)?;
    let stored = fields.u32().ok_or_else(short)?;
    let raw = fields.u32().ok_or_else(short)?;
    let kind = fields.u8().ok_or_else(short)?;
    let codec = fields.u8().ok_or_else(short)?;
    let version = fields.u16().ok_or_else(short)?;
    let space = fields.rest().len();
    if stored as usize > space {
        return Err(Damage::new(20, "stored length", format!("at most {space}"), stored));
    }
    let end = BLOCK_HEADER_BYTES + stored as usize;
    let computed = xxh3_64_with_seed(&block[8..end], place.seed);
    if computed != checksum {
        return Err(Damage::new(0, "block checksum", hex(computed), hex(checksum)));
    }
    if version > FORMAT_VERSION {
        return Err(Damage::new(30, "block format", format!("at most {FORMAT_VERSION}"), version));
    }
    if table != place.table {
        return Err(Damage::new(8, "table number of a block", place.table, table));
    }
    if page != place.page {
        return Err(Damage::new(16, "page of a block", place.page, page));
    }
    if kind != place.kind as u8 {
        return Err(Damage::new(28, "block type", place.kind as u8, kind));
    }
    if codec != CODEC_NONE {
        return Err(Damage::new(29, "codec", CODEC_NONE, codec));
    }
    if raw != stored {
        return Err(Damage::new(24, "raw length", stored, raw));
    }
    Ok(&block[BLOCK_HEADER_BYTES..end])
}

/// What a section of the file is. The numbers are stored; readers skip those they do not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum SectionKind {
    /// All data blocks.
    Data = 1,
    /// Index and filter blocks of all parts.
    PartBlocks = 2,
    /// The one block that lists the parts.
    Parts = 3,
    /// The one block of properties.
    Properties = 4,
}

/// A run of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) kind: u32,
    pub(crate) page: u32,
    pub(crate) pages: u32,
}

/// The last page of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) table: u64,
    pub(crate) file_bytes: u64,
    /// XXH3-64 of all bytes before the footer, with the shard's seed.
    pub(crate) checksum: u64,
    pub(crate) sections: Vec<Section>,
}

impl Footer {
    /// Writes the footer over one page of zeros.
    ///
    /// # Panics
    /// With more than 16 sections.
    pub(crate) fn encode(&self, page: &mut [u8], seed: u64) {
        assert!(self.sections.len() <= SECTIONS_MAX, "a footer lists few sections");
        let mut bytes = Vec::with_capacity(PAGE_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&u32::from(FORMAT_VERSION).to_le_bytes());
        bytes.extend_from_slice(&(self.sections.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.table.to_le_bytes());
        bytes.extend_from_slice(&self.file_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.checksum.to_le_bytes());
        for section in &self.sections {
            for number in [section.kind, section.page, section.pages] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        page[..bytes.len()].copy_from_slice(&bytes);
        let checksum = xxh3_64_with_seed(&page[16..], seed);
        page[8..16].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Checks and reads a footer page.
    pub(crate) fn decode(page: &[u8], seed: u64) -> Result<Self, Damage> {
        let short = || Damage::new(0, "footer length", "one page", format!("{} bytes", page.len()));
        let mut fields = Decoder::new(page);
        let magic = fields.array::<8>().ok_or_else(short)?;
        let checksum = fields.u64().ok_or_else(short)?;
        if magic != MAGIC {
            return Err(Damage::new(0, "footer magic", MAGIC.escape_ascii(), magic.escape_ascii()));
        }
        let computed = xxh3_64_with_seed(fields.rest(), seed);
        if computed != checksum {
            return Err(Damage::new(8, "footer checksum", hex(computed), hex(checksum)));
        }
        let version = fields.u32().ok_or_else(short)?;
        if version > u32::from(FORMAT_VERSION) {
            let known = format!("at most {FORMAT_VERSION}: written by a newer version");
            return Err(Damage::new(16, "table format", known, version));
        }
        let count = fields.u32().ok_or_else(short)? as usize;
        if count > SECTIONS_MAX {
            return Err(Damage::new(20, "sections", format!("at most {SECTIONS_MAX}"), count));
        }
        let table = fields.u64().ok_or_else(short)?;
        let file_bytes = fields.u64().ok_or_else(short)?;
        let whole = fields.u64().ok_or_else(short)?;
        let footer_page = file_bytes / PAGE_BYTES as u64;
        let mut sections = Vec::with_capacity(count);
        for index in 0..count {
            let mut number = || fields.u32().ok_or_else(short);
            let section = Section { kind: number()?, page: number()?, pages: number()? };
            if u64::from(section.page) + u64::from(section.pages) >= footer_page {
                let at = 48 + 12 * index;
                return Err(Damage::new(at, "section", format!("below page {footer_page}"), section.page));
            }
            sections.push(section);
        }
        Ok(Self { table, file_bytes, checksum: whole, sections })
    }

    /// The section of a kind.
    pub(crate) fn section(&self, kind: SectionKind) -> Result<Section, Damage> {
        let found = self.sections.iter().find(|section| section.kind == kind as u32).copied();
        found.ok_or_else(|| Damage::new(20, "sections", format!("a section of kind {}", kind as u32), "none"))
    }
}

fn hex(number: u64) -> String {
    format!("{number:#018x}")
}

const _: () = assert!(48 + 12 * SECTIONS_MAX <= PAGE_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: BlockPlace = BlockPlace { kind: BlockType::Data, table: 7, page: 3, seed: 11 };

    fn sealed() -> Vec<u8> {
        let mut block = vec![0; BLOCK_HEADER_BYTES];
        block.extend_from_slice(b"payload");
        seal_block(&mut block, &PLACE);
        block
    }

    #[test]
    fn a_block_opens_only_where_it_belongs() {
        let block = sealed();
        assert_eq!(open_block(&block, &PLACE).unwrap(), b"payload");
        let elsewhere = [
            (BlockPlace { table: 8, ..PLACE }, "table number of a block"),
            (BlockPlace { page: 4, ..PLACE }, "page of a block"),
            (BlockPlace { kind: BlockType::Index, ..PLACE }, "block type"),
            (BlockPlace { seed: 12, ..PLACE }, "block checksum"),
        ];
        for (place, what) in elsewhere {
            assert_eq!(open_block(&block, &place).unwrap_err().what, what);
        }
    }

    #[test]
    fn every_flipped_or_missing_byte_of_a_block_is_noticed() {
        let block = sealed();
        for at in 0..block.len() {
            for mask in [1, 0x80, 0xFF] {
                let mut flipped = block.clone();
                flipped[at] ^= mask;
                assert!(open_block(&flipped, &PLACE).is_err(), "byte {at}");
            }
            assert!(open_block(&block[..at], &PLACE).is_err());
        }
    }

    #[test]
    fn a_footer_survives_encoding_and_no_flip() {
        let footer = Footer {
            table: 9,
            file_bytes: 5 * PAGE_BYTES as u64,
            checksum: 77,
            sections: vec![Section { kind: 1, page: 0, pages: 2 }, Section { kind: 99, page: 2, pages: 2 }],
        };
        let mut page = vec![0; PAGE_BYTES];
        footer.encode(&mut page, 5);
        assert_eq!(Footer::decode(&page, 5).unwrap(), footer);
        assert!(footer.section(SectionKind::Data).is_ok());
        assert!(footer.section(SectionKind::Parts).is_err());
        assert!(Footer::decode(&page, 6).is_err());
        for at in 0..PAGE_BYTES {
            page[at] ^= 4;
            assert!(Footer::decode(&page, 5).is_err(), "byte {at}");
            page[at] ^= 4;
        }
    }
}
