//! The class `fuzz-files`: anything at all stands in a file.
//!
//! Most trials change a block so that it makes other sense and seal it again, so that what lies
//! behind the checksums is reached; others change bytes as rot does, sizes, whole files, and put
//! files where none should be. A sealed lie may be believed; nothing may panic, hang, or take memory
//! that the size of the files does not explain (a test counts that on a sample).

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use super::flips::{draw_piece, files};
use super::image::{FileImage, Image, images};
use super::pieces::PieceKind;
use super::recipe::{FileAt, Recipe, Step, piece_of};
use super::trial::{self, Effort};
use crate::fuzz::mutate::{mutate, number};
use crate::trials::{Class, Counts, Trials};
use crate::world::Random;

/// The class.
pub const FUZZ_FILES: Class = Class {
    name: "fuzz-files",
    about: "mutated blocks (sealed again or not), sizes and files of every kind, opened and read by a shard",
    unit: "inputs",
    submission: 8_000,
    full: 200_000,
    release: 2_000_000,
    run,
};

/// Mutations of one block, at most.
const MUTATIONS_MAX: u64 = 4;

/// Bytes of garbage or growth, at most.
const GARBAGE_BYTES_MAX: u64 = 6_000;

/// The longest file that is made, in bytes: beyond every limit on a file that is read whole.
const LARGE_BYTES: u64 = 3 << 20;

fn run(trials: &Trials) -> Counts {
    let mut counts = Counts::default();
    for (name, recipe) in kept() {
        let mut one = Counts::default();
        for effort in [Effort::Read, Effort::Work] {
            let _blame = Kept(name);
            trial::run(images(), recipe, 0, effort, &mut one);
        }
        counts.merge(&one);
        counts.add("kept inputs replayed", 1);
    }
    counts.merge(&trials.each_seed(one));
    counts
}

/// One seed's input.
///
/// # Panics
/// When the engine panics, or a right answer was due and another came.
pub fn one(seed: u64, counts: &mut Counts) {
    let mut random = Random::labelled(seed, 0xF11E5);
    let (what, recipe) = draw(&mut random);
    counts.add(what, 1);
    let effort = if random.one_in(3) { Effort::Work } else { Effort::Read };
    trial::run(images(), &recipe, seed, effort, counts);
}

/// The inputs kept in `tests/corpora/files/`.
pub fn kept() -> &'static [(String, Recipe)] {
    static KEPT: OnceLock<Vec<(String, Recipe)>> = OnceLock::new();
    KEPT.get_or_init(|| {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpora/files");
        let entries =
            fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let mut kept: Vec<_> = entries
            .map(|entry| {
                let path = entry.expect("a directory of the repository can be read").path();
                let text = fs::read_to_string(&path).unwrap_or_default();
                let recipe =
                    Recipe::parse(&text).unwrap_or_else(|| panic!("{} is no recipe", path.display()));
                (path.display().to_string(), recipe)
            })
            .collect();
        kept.sort_by(|left, right| left.0.cmp(&right.0));
        kept
    })
}

/// Says which kept input panicked.
struct Kept<'a>(&'a str);

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept input {}", self.0);
        }
    }
}

fn draw(random: &mut Random) -> (&'static str, Recipe) {
    let number = random.below(images().len() as u64) as usize;
    let image = &images()[number];
    let (what, steps) = match random.below(16) {
        0..9 => {
            let mut steps = Vec::new();
            for _ in 0..1 + random.below(8) / 7 {
                steps.extend(mutated_piece(random, image, true));
            }
            ("blocks changed and sealed", steps)
        }
        9..12 => ("blocks changed", mutated_piece(random, image, false)),
        12 => ("sizes changed", vec![resized(random, image)]),
        13 | 14 => ("files replaced", vec![replaced(random, image)]),
        _ => ("files added", vec![added(random, image)]),
    };
    (what, Recipe { image: number, steps })
}

/// Changes a block, mostly behind its prelude, which says what and where it is.
fn mutated_piece(random: &mut Random, image: &Image, sealed: bool) -> Vec<Step> {
    let (file, piece) = draw_piece(random, image);
    let Some((path, place)) = piece_of(image, file, piece) else { return Vec::new() };
    let before = image.files[path].range(place.start, place.bytes);
    let meaningful = before.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
    let mut after = before[..meaningful].to_vec();
    let prelude = if random.one_in(16) { 0 } else { prelude_bytes(place.kind) };
    // Near the front of the block are counts and lengths; behind are entries.
    let from = if random.one_in(2) { prelude } else { prelude + random.below(meaningful as u64) as usize };
    let from = from.min(after.len());
    for _ in 0..1 + random.below(MUTATIONS_MAX) {
        if place.kind == PieceKind::Footer || random.one_in(4) {
            set_field(random, &mut after, prelude);
        } else {
            mutate(random, &mut after, from, &before);
        }
    }
    after.resize(place.bytes, 0);
    let Some(first) = after.iter().zip(&before).position(|(after, before)| after != before) else {
        return Vec::new();
    };
    let last = after.iter().zip(&before).rposition(|(after, before)| after != before).unwrap_or(first);
    let mut steps = vec![Step::Put(file, piece, first, after[first..=last].to_vec())];
    if sealed {
        steps.push(Step::Seal(file, piece));
    }
    steps
}

/// Sets an aligned integer among the first of a block.
fn set_field(random: &mut Random, bytes: &mut [u8], prelude: usize) {
    let value = number(random, bytes.len()).to_le_bytes();
    let width = 1 << random.below(4);
    let at = prelude + random.below(16) as usize * 4;
    if let Some(field) = bytes.get_mut(at..at + width) {
        field.copy_from_slice(&value[..width]);
    }
}

/// Bytes at the front of a block that say which one it is.
fn prelude_bytes(kind: PieceKind) -> usize {
    match kind {
        PieceKind::Header(_) | PieceKind::Catalogue | PieceKind::Footer => 16,
        PieceKind::Frame => 48,
        PieceKind::LogBlock => 48,
        PieceKind::TableBlock(_) => 20,
    }
}

fn draw_file<'a>(random: &mut Random, image: &'a Image) -> (FileAt, &'a FileImage) {
    let all = files(image);
    let (at, _, file) = all[random.below(all.len() as u64) as usize];
    (at, file)
}

fn resized(random: &mut Random, image: &Image) -> Step {
    let (at, file) = draw_file(random, image);
    let bytes = match random.below(6) {
        0 => 0,
        1 => random.below(file.bytes + 1),
        2 => file.bytes.saturating_sub(512 * (1 + random.below(16))),
        3 => file.bytes + 512 * (1 + random.below(16)),
        4 => random.below(4096),
        _ => LARGE_BYTES,
    };
    Step::Resize(at, bytes.next_multiple_of(512))
}

fn replaced(random: &mut Random, image: &Image) -> Step {
    let (at, file) = draw_file(random, image);
    let content = match random.below(4) {
        0 => Vec::new(),
        1 => garbage(random),
        2 => draw_file(random, image).1.content.clone(),
        _ => {
            // Garbage behind a good front.
            let mut content = file.content.clone();
            let at = random.below(content.len() as u64 + 1) as usize;
            content.truncate(at);
            content.extend(garbage(random));
            content
        }
    };
    Step::Write(at, content)
}

fn added(random: &mut Random, image: &Image) -> Step {
    let names = [
        "wal/4294967295.log",
        "wal/0000000099.log",
        "wal/0000000001.log",
        "wal/spare-0000000001.log",
        "wal/segment.tmp",
        "wal/notes",
        "table/ffffffffffffffff.table",
        "table/0000000000000000.table",
        "table/0000000000000063.table",
        "table/notes",
        "MANIFEST-9999999999",
        "MANIFEST-18446744073709551615",
        "MANIFEST-0000000001",
        "CURRENT.tmp",
        "quarantine/0000000000000001.table",
        "../CATALOGUE.tmp",
        "../META.3",
        "../shard-0001/CURRENT",
    ];
    let name = names[random.below(names.len() as u64) as usize];
    let content = match random.below(3) {
        0 => Vec::new(),
        1 => garbage(random),
        _ => draw_file(random, image).1.content.clone(),
    };
    Step::Add(name.into(), content)
}

fn garbage(random: &mut Random) -> Vec<u8> {
    let words = random.below(GARBAGE_BYTES_MAX / 8);
    (0..words).flat_map(|_| random.word().to_le_bytes()).collect()
}
