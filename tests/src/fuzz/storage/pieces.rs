//! Where blocks stand in the engine's files, and how they are sealed.
//!
//! Written after `engine/FORMAT.md`, sharing no code with the engine: a second opinion on the format.
//! A *piece* is what one checksum (or one header with its checksums) covers, with its padding.

use std::path::Path;

use pinion_engine::Identity;
use pinion_env::PAGE_BYTES;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// What a file of a data directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// META and META.2.
    Meta,
    /// CATALOGUE and CATALOGUE.2.
    Catalogue,
    /// CURRENT.
    Current,
    /// MANIFEST-n.
    Manifest,
    /// A log segment.
    Log,
    /// A log segment that waits to be used again.
    Spare,
    /// A table.
    Table,
    /// Something else.
    Other,
}

impl FileKind {
    /// Every kind that the engine writes.
    pub const ALL: [Self; 7] =
        [Self::Meta, Self::Catalogue, Self::Current, Self::Manifest, Self::Log, Self::Spare, Self::Table];

    /// By the file's name.
    pub fn of(path: &Path) -> Self {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match name {
            "META" | "META.2" => Self::Meta,
            "CATALOGUE" | "CATALOGUE.2" => Self::Catalogue,
            "CURRENT" => Self::Current,
            _ if name.starts_with("MANIFEST-") => Self::Manifest,
            _ if name.starts_with("spare-") => Self::Spare,
            _ if name.ends_with(".log") => Self::Log,
            _ if name.ends_with(".table") => Self::Table,
            _ => Self::Other,
        }
    }

    /// In words, for counts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "META",
            Self::Catalogue => "CATALOGUE",
            Self::Current => "CURRENT",
            Self::Manifest => "manifest",
            Self::Log => "log",
            Self::Spare => "spare",
            Self::Table => "table",
            Self::Other => "other",
        }
    }
}

/// What a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PieceKind {
    /// A header of so many bytes whose checksum has no seed: META, CURRENT, the page of a segment.
    Header(usize),
    /// A catalogue: header and entries.
    Catalogue,
    /// A frame of a manifest.
    Frame,
    /// A block of the log.
    LogBlock,
    /// A block of a table, of this type.
    TableBlock(u8),
    /// The last page of a table.
    Footer,
}

/// A stretch of a file that is checked as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// What it is.
    pub kind: PieceKind,
    /// Where it starts.
    pub start: usize,
    /// How long it is, with its padding.
    pub bytes: usize,
}

impl Piece {
    /// Where it ends.
    pub fn end(&self) -> usize {
        self.start + self.bytes
    }
}

const TABLE_HEADER_BYTES: usize = 32;
const LOG_HEADER_BYTES: usize = 96;
const RECORD_HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 72;
const CATALOGUE_HEADER_BYTES: usize = 48;

/// The pieces of a file's content, in order.
pub fn pieces(kind: FileKind, content: &[u8]) -> Vec<Piece> {
    let whole = |kind| vec![Piece { kind, start: 0, bytes: content.len() }];
    match kind {
        FileKind::Meta => whole(PieceKind::Header(80)),
        FileKind::Current => whole(PieceKind::Header(40)),
        FileKind::Catalogue => whole(PieceKind::Catalogue),
        FileKind::Manifest => walk(content, 0, b"PNMF", PieceKind::Frame),
        FileKind::Log | FileKind::Spare => {
            let mut found = vec![Piece { kind: PieceKind::Header(48), start: 0, bytes: PAGE_BYTES }];
            found.extend(walk(content, PAGE_BYTES, b"PNWB", PieceKind::LogBlock));
            found
        }
        FileKind::Table => table_pieces(content),
        FileKind::Other => Vec::new(),
    }
}

/// Blocks or frames back to back: the magic at 8, the length with padding at 44.
fn walk(content: &[u8], mut start: usize, magic: &[u8], kind: PieceKind) -> Vec<Piece> {
    let mut found = Vec::new();
    while content.get(start + 8..start + 12) == Some(magic) {
        let bytes = u32_at(content, start + 44) as usize;
        if bytes == 0 {
            break;
        }
        found.push(Piece { kind, start, bytes });
        start += bytes;
    }
    found
}

fn table_pieces(content: &[u8]) -> Vec<Piece> {
    let mut found = Vec::new();
    let mut start = 0;
    while start + PAGE_BYTES < content.len() {
        let stored = u32_at(content, start + 20) as usize;
        let bytes = (TABLE_HEADER_BYTES + stored).next_multiple_of(PAGE_BYTES);
        found.push(Piece { kind: PieceKind::TableBlock(content[start + 28]), start, bytes });
        start += bytes;
    }
    found.push(Piece { kind: PieceKind::Footer, start, bytes: PAGE_BYTES });
    found
}

/// Makes all checksums of a piece right again; `piece` is its bytes. Where lengths in it make no
/// sense, as far as they do.
pub fn seal(kind: PieceKind, piece: &mut [u8], identity: &Identity) {
    let seed = identity.seed();
    match kind {
        PieceKind::Header(bytes) => seal_header(piece, bytes, 0),
        PieceKind::Catalogue => {
            let body = u32_at(piece, 32) as usize;
            let checksum = xxh3_64(within(piece, CATALOGUE_HEADER_BYTES, body));
            put_u64(piece, 40, checksum);
            seal_header(piece, CATALOGUE_HEADER_BYTES, 0);
        }
        PieceKind::Frame => {
            let body = u32_at(piece, 48) as usize;
            let checksum = xxh3_64_with_seed(within(piece, FRAME_HEADER_BYTES, body), seed);
            put_u64(piece, 56, checksum);
            seal_header(piece, FRAME_HEADER_BYTES, seed);
        }
        PieceKind::LogBlock => {
            let fold = seal_records(piece, seed);
            put_u64(piece, 80, fold);
            seal_header(piece, LOG_HEADER_BYTES, seed);
        }
        PieceKind::TableBlock(_) => {
            let stored = u32_at(piece, 20) as usize;
            let checksum = xxh3_64_with_seed(within(piece, 8, 24 + stored), seed);
            put_u64(piece, 0, checksum);
        }
        PieceKind::Footer => {
            let checksum = xxh3_64_with_seed(within(piece, 16, PAGE_BYTES - 16), seed);
            put_u64(piece, 8, checksum);
        }
    }
}

fn seal_header(piece: &mut [u8], bytes: usize, seed: u64) {
    let checksum = xxh3_64_with_seed(within(piece, 8, bytes - 8), seed);
    put_u64(piece, 0, checksum);
}

/// Seals the records of a log block, one behind the other, and folds their checksums.
fn seal_records(piece: &mut [u8], seed: u64) -> u64 {
    let used = (u32_at(piece, 48) as usize).min(piece.len());
    let (mut at, mut fold) = (LOG_HEADER_BYTES, 0_u64);
    for _ in 0..u32_at(piece, 52) {
        let bytes = u32_at(piece, at + 8) as usize;
        if bytes < RECORD_HEADER_BYTES || at + bytes > used {
            break;
        }
        let checksum = xxh3_64_with_seed(&piece[at + 8..at + bytes], seed);
        put_u64(piece, at, checksum);
        fold = (fold ^ checksum).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31);
        at += bytes;
    }
    fold
}

fn within(bytes: &[u8], start: usize, count: usize) -> &[u8] {
    let start = start.min(bytes.len());
    &bytes[start..(start + count).min(bytes.len())]
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn put_u64(bytes: &mut [u8], at: usize, number: u64) {
    if let Some(field) = bytes.get_mut(at..at + 8) {
        field.copy_from_slice(&number.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::image::images;
    use super::*;

    #[test]
    fn sealing_what_is_sealed_changes_nothing_and_pieces_cover_what_is_used() {
        let mut kinds = std::collections::BTreeMap::new();
        for image in images() {
            for (path, file) in &image.files {
                let kind = FileKind::of(path);
                let found = pieces(kind, &file.content);
                assert!(!found.is_empty(), "{}", path.display());
                let mut end = 0;
                for piece in &found {
                    assert_eq!(piece.start, end, "{}: a gap", path.display());
                    end = piece.end();
                    *kinds.entry(piece.kind).or_insert(0) += 1;
                    let sealed = file.range(piece.start, piece.bytes);
                    let mut again = sealed.clone();
                    seal(piece.kind, &mut again, &image.identity);
                    // A recycled segment ends in whatever was there before, cut off anywhere.
                    let last_of_log =
                        matches!(kind, FileKind::Log | FileKind::Spare) && end >= file.content.len();
                    assert!(again == sealed || last_of_log, "{}: {piece:?}", path.display());
                }
            }
        }
        for kind in [PieceKind::Frame, PieceKind::LogBlock, PieceKind::Footer, PieceKind::Catalogue] {
            assert!(kinds.contains_key(&kind), "{kinds:?}");
        }
        for kind in 1..=5 {
            assert!(kinds.contains_key(&PieceKind::TableBlock(kind)), "{kinds:?}");
        }
    }
}
