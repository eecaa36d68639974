//! A damage as text: what a failing trial prints, and what is kept in `tests/corpora/files/`.
//!
//! A recipe names an image and what to do to its files, by kind, number and piece and not by bytes that
//! would have to be sealed for another database. One step a line; `#` begins a comment:
//!
//! ```text
//! image 0
//! put manifest/0 1 48 ffffffff      bytes at an offset of a piece
//! seal manifest/0 1                 its checksums are right again
//! flip log/0 4200 3                 a bit of a byte of a file
//! copy table/1 0 table/0 2          a piece over another piece, as much as fits
//! stale log/0 4 2                   a piece as it was at a moment before; `-` = zeros
//! resize META/1 100                 the file's size in bytes
//! write CURRENT/0 c0ffee            the file's whole content
//! add wal/0000000099.log 00         another file, in the shard's directory (or ../ beside it)
//! ```
//!
//! Numbers of files and pieces count from 0 and wrap around, so that a recipe stays applicable when the
//! images change.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use pinion_env::PAGE_BYTES;

use super::image::{DATA, FileImage, Files, Image};
use super::pieces::{FileKind, Piece, pieces, seal};
use crate::fuzz::corpus::{from_hex, to_hex};

/// A file by its kind and its number among the files of that kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileAt {
    /// Its kind.
    pub kind: FileKind,
    /// Its number, in the order of paths.
    pub number: usize,
}

/// One change of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Bytes at an offset of a piece.
    Put(FileAt, usize, usize, Vec<u8>),
    /// The checksums of a piece are made right.
    Seal(FileAt, usize),
    /// A bit of a byte of a file.
    Flip(FileAt, usize, u8),
    /// A piece over another one: file and piece it is taken from, file and piece it lands on.
    Copy(FileAt, usize, FileAt, usize),
    /// A piece becomes what it was at a moment before; `None` = zeros.
    Stale(FileAt, usize, Option<usize>),
    /// The size of a file.
    Resize(FileAt, u64),
    /// The whole content of a file.
    Write(FileAt, Vec<u8>),
    /// One more file, in the shard's directory or beside it.
    Add(PathBuf, Vec<u8>),
}

/// Steps for one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// Which image, by its number.
    pub image: usize,
    /// What to do to it, in order.
    pub steps: Vec<Step>,
}

/// A directory that was changed, and where.
#[derive(Debug)]
pub struct Damaged {
    /// Its files.
    pub files: Files,
    /// Every stretch that was changed.
    pub touched: Vec<(PathBuf, Range<usize>)>,
    /// Some of what was changed has right checksums: anything may come out.
    pub forged: bool,
}

/// The path of a file of an image.
pub fn path_of(image: &Image, file: FileAt) -> Option<&PathBuf> {
    let count = image.files.keys().filter(|path| FileKind::of(path) == file.kind).count();
    let number = file.number.checked_rem(count)?;
    image.files.keys().filter(|path| FileKind::of(path) == file.kind).nth(number)
}

/// A piece of a file of an image.
pub fn piece_of(image: &Image, file: FileAt, piece: usize) -> Option<(&PathBuf, Piece)> {
    let path = path_of(image, file)?;
    let found = pieces(file.kind, &image.files[path].content);
    Some((path, *found.get(piece.checked_rem(found.len())?)?))
}

/// Applies a recipe. Steps that name a kind of file that the image lacks change nothing.
pub fn apply(image: &Image, recipe: &Recipe) -> Damaged {
    let mut damaged = Damaged { files: image.files.clone(), touched: Vec::new(), forged: false };
    for step in &recipe.steps {
        let _ = apply_step(image, step, &mut damaged);
    }
    damaged
}

fn apply_step(image: &Image, step: &Step, damaged: &mut Damaged) -> Option<()> {
    match step {
        Step::Put(file, piece, offset, bytes) => {
            let (path, piece) = piece_of(image, *file, *piece)?;
            let room = piece.bytes.checked_sub(*offset)?;
            damaged.put(path, piece.start + offset, &bytes[..bytes.len().min(room)]);
        }
        Step::Seal(file, piece) => {
            let (path, piece) = piece_of(image, *file, *piece)?;
            let mut bytes = damaged.files[path].range(piece.start, piece.bytes);
            seal(piece.kind, &mut bytes, &image.identity);
            damaged.put(path, piece.start, &bytes);
            damaged.forged = true;
        }
        Step::Flip(file, offset, bit) => {
            let path = path_of(image, *file)?;
            let byte = damaged.files[path].range(*offset, 1)[0];
            damaged.put(path, *offset, &[byte ^ 1 << (bit % 8)]);
        }
        Step::Copy(from, from_piece, to, to_piece) => {
            let (source, from) = piece_of(image, *from, *from_piece)?;
            let (target, to) = piece_of(image, *to, *to_piece)?;
            let bytes = image.files[source].range(from.start, from.bytes.min(to.bytes));
            damaged.put(target, to.start, &bytes);
        }
        Step::Stale(file, piece, moment) => {
            let (path, piece) = piece_of(image, *file, *piece)?;
            let bytes = match moment {
                Some(moment) => image.earlier.get(*moment)?.get(path)?.range(piece.start, piece.bytes),
                None => vec![0; piece.bytes],
            };
            damaged.put(path, piece.start, &bytes);
        }
        Step::Resize(file, bytes) => {
            let path = path_of(image, *file)?;
            let changed = damaged.files.get_mut(path)?;
            let before = changed.bytes;
            changed.bytes = *bytes;
            changed.content.truncate(*bytes as usize);
            damaged.touched.push((path.clone(), before.min(*bytes) as usize..before.max(*bytes) as usize));
        }
        Step::Write(file, bytes) => {
            let path = path_of(image, *file)?;
            let before = damaged.files.insert(path.clone(), FileImage::of(bytes.clone()))?;
            damaged.touched.push((path.clone(), 0..bytes.len().max(before.bytes as usize)));
        }
        Step::Add(name, bytes) => {
            let path = match name.strip_prefix("..") {
                Ok(beside) => Path::new(DATA).join(beside),
                Err(_) => Path::new(DATA).join("shard-0000").join(name),
            };
            damaged.touched.push((path.clone(), 0..bytes.len()));
            damaged.files.insert(path, FileImage::of(bytes.clone()));
        }
    }
    Some(())
}

impl Damaged {
    /// Puts bytes and notes what they changed, if anything.
    fn put(&mut self, path: &Path, start: usize, bytes: &[u8]) {
        let file = self.files.get_mut(path).expect("files of the image are there");
        let before = file.range(start, bytes.len());
        let first = before.iter().zip(bytes).position(|(before, after)| before != after);
        let last = before.iter().zip(bytes).rposition(|(before, after)| before != after);
        if let (Some(first), Some(last)) = (first, last) {
            file.put(start, bytes);
            self.touched.push((path.to_path_buf(), start + first..start + last + 1));
        }
    }
}

/// The last block of the image's log, where nothing behind it proves it. The segment prepared after it
/// holds none.
pub fn last_log_block(image: &Image) -> Option<(PathBuf, Piece)> {
    let logs = image.files.iter().rev().filter(|(path, _)| FileKind::of(path) == FileKind::Log);
    let mut last = logs.map(|(path, file)| (path, blocks_of_this_life(path, file).last().copied()));
    last.find_map(|(path, block)| Some((path.clone(), block?)))
}

/// Where the blocks end that were written to a segment since it was used last; header page included.
pub fn end_of_life(path: &Path, file: &FileImage) -> usize {
    blocks_of_this_life(path, file).last().map_or(PAGE_BYTES, Piece::end)
}

fn blocks_of_this_life(path: &Path, file: &FileImage) -> Vec<Piece> {
    let id = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u32>().ok());
    let id = id.unwrap_or_default().to_le_bytes();
    let of_this_life = |piece: &Piece| file.content.get(piece.start + 28..piece.start + 32) == Some(&id);
    pieces(FileKind::Log, &file.content).into_iter().skip(1).take_while(of_this_life).collect()
}

impl fmt::Display for FileAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.name(), self.number)
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |bytes: &[u8]| to_hex(bytes).replace('\n', "");
        writeln!(f, "image {}", self.image)?;
        for step in &self.steps {
            match step {
                Step::Put(file, piece, offset, bytes) => {
                    writeln!(f, "put {file} {piece} {offset} {}", hex(bytes))?;
                }
                Step::Seal(file, piece) => writeln!(f, "seal {file} {piece}")?,
                Step::Flip(file, offset, bit) => writeln!(f, "flip {file} {offset} {bit}")?,
                Step::Copy(from, piece, to, over) => writeln!(f, "copy {from} {piece} {to} {over}")?,
                Step::Stale(file, piece, Some(moment)) => writeln!(f, "stale {file} {piece} {moment}")?,
                Step::Stale(file, piece, None) => writeln!(f, "stale {file} {piece} -")?,
                Step::Resize(file, bytes) => writeln!(f, "resize {file} {bytes}")?,
                Step::Write(file, bytes) => writeln!(f, "write {file} {}", hex(bytes))?,
                Step::Add(path, bytes) => writeln!(f, "add {} {}", path.display(), hex(bytes))?,
            }
        }
        Ok(())
    }
}

impl Recipe {
    /// From its text; `None` if that is no recipe.
    pub fn parse(text: &str) -> Option<Self> {
        let mut recipe = Self { image: 0, steps: Vec::new() };
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let mut words = line.split_whitespace();
            let step = match words.next()? {
                "image" => {
                    recipe.image = words.next()?.parse().ok()?;
                    continue;
                }
                "put" => {
                    let (file, piece) = (file(words.next()?)?, number(words.next()?)?);
                    Step::Put(file, piece, number(words.next()?)?, from_hex(words.next()?)?)
                }
                "seal" => Step::Seal(file(words.next()?)?, number(words.next()?)?),
                "flip" => {
                    let (file, offset) = (file(words.next()?)?, number(words.next()?)?);
                    Step::Flip(file, offset, words.next()?.parse().ok()?)
                }
                "copy" => {
                    let (from, piece) = (file(words.next()?)?, number(words.next()?)?);
                    Step::Copy(from, piece, file(words.next()?)?, number(words.next()?)?)
                }
                "stale" => {
                    let (file, piece) = (file(words.next()?)?, number(words.next()?)?);
                    let moment = words.next()?;
                    Step::Stale(file, piece, if moment == "-" { None } else { Some(number(moment)?) })
                }
                "resize" => Step::Resize(file(words.next()?)?, words.next()?.parse().ok()?),
                "write" => Step::Write(file(words.next()?)?, from_hex(words.next().unwrap_or_default())?),
                "add" => Step::Add(words.next()?.into(), from_hex(words.next().unwrap_or_default())?),
                _ => return None,
            };
            recipe.steps.push(step);
        }
        Some(recipe)
    }
}

fn number(word: &str) -> Option<usize> {
    word.parse().ok()
}

fn file(word: &str) -> Option<FileAt> {
    let (kind, number) = word.split_once('/')?;
    let kind = FileKind::ALL.into_iter().find(|known| known.name() == kind)?;
    Some(FileAt { kind, number: number.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_survives_its_text() {
        let (log, table) =
            (FileAt { kind: FileKind::Log, number: 1 }, FileAt { kind: FileKind::Table, number: 0 });
        let steps = vec![
            Step::Put(log, 2, 3, vec![1, 0xFF]),
            Step::Seal(log, 2),
            Step::Flip(table, 4096, 7),
            Step::Copy(log, 1, table, 0),
            Step::Stale(log, 0, Some(2)),
            Step::Stale(log, 0, None),
            Step::Resize(FileAt { kind: FileKind::Meta, number: 1 }, 1 << 40),
            Step::Write(table, Vec::new()),
            Step::Add("wal/notes".into(), vec![9]),
        ];
        let recipe = Recipe { image: 3, steps };
        assert_eq!(Recipe::parse(&format!("# why\n{recipe}")), Some(recipe));
        assert_eq!(Recipe::parse("flip nothing/0 1 1"), None);
        assert_eq!(Recipe::parse("dance"), None);
    }
}
