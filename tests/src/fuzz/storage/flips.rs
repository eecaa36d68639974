//! The class `bit-flips`: one place on the disk is not what was written there.
//!
//! Flips of every byte that is used of a small directory, each at least once in a full run; flips
//! anywhere in larger ones, unused bytes included; blocks that landed in another's place; blocks that
//! kept an older content of their own, or zeros. Whatever it is, every get and scan gives the right
//! answer or an error that names file and offset.
//!
//! One thing cannot be told from a torn write: damage of exactly the last block of the log before
//! something is written behind it. What it held may be lost then; that is counted apart.

use std::path::PathBuf;
use std::sync::OnceLock;

use super::image::{FileImage, Image, images};
use super::pieces::{FileKind, pieces};
use super::recipe::{FileAt, Recipe, Step, end_of_life, last_log_block};
use super::trial::{self, Effort};
use crate::trials::{Class, Counts, Trials};
use crate::world::Random;

/// The class.
pub const BIT_FLIPS: Class = Class {
    name: "bit-flips",
    about: "a flipped bit, a misdirected or a stale block in any file: the right answer or an error that names it",
    unit: "flips",
    submission: 5_000,
    full: 100_000,
    release: 1_000_000,
    run,
};

/// Of so many trials [`SWEEP`] flip the next byte of the first directory.
const ROUND: u64 = 10;
const SWEEP: u64 = 7;

/// One trial in so many goes on working with the damaged directory.
const WORKS_ONE_IN: u64 = 8;

fn run(trials: &Trials) -> Counts {
    let mut counts = trials.each_seed(|seed, counts| {
        let mut random = Random::labelled(seed, 0xF119);
        let (what, recipe) = draw(seed, &mut random);
        counts.add(what, 1);
        let effort = if random.one_in(WORKS_ONE_IN) { Effort::Work } else { Effort::Read };
        trial::run(images(), &recipe, seed, effort, counts);
    });
    let all = positions().len() as u64;
    let swept: u64 = (0..SWEEP).map(|place| (trials.count + ROUND - 1 - place) / ROUND).sum();
    counts.add("meaningful bytes of the first directory", all);
    counts.add("of them flipped at least once", if trials.first_seed == 0 { swept.min(all) } else { 0 });
    counts
}

fn draw(seed: u64, random: &mut Random) -> (&'static str, Recipe) {
    match seed % ROUND {
        place if place < SWEEP => ("flips of the sweep", sweep(seed / ROUND * SWEEP + place)),
        7 => ("flips anywhere", flip_anywhere(random)),
        8 => ("misdirected blocks", misdirect(random)),
        _ => ("stale blocks", stale(random)),
    }
}

/// Every byte of the first directory that means something: of each block up to its padding, and in the
/// log of blocks of the segment's present life. Bytes beyond are flipped too, but not one by one.
fn positions() -> &'static [(FileAt, usize)] {
    static POSITIONS: OnceLock<Vec<(FileAt, usize)>> = OnceLock::new();
    POSITIONS.get_or_init(|| {
        let image = &images()[0];
        let mut all = Vec::new();
        for (at, path, file) in files(image) {
            let end = if at.kind == FileKind::Log { end_of_life(path, file) } else { file.content.len() };
            let found = pieces(at.kind, &file.content);
            for piece in found.into_iter().filter(|piece| piece.end() <= end) {
                let bytes = &file.content[piece.start..piece.end()];
                let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                all.extend((0..used).map(|byte| (at, piece.start + byte)));
            }
        }
        all
    })
}

/// The files of an image with their kinds and numbers.
pub(super) fn files(image: &Image) -> Vec<(FileAt, &PathBuf, &FileImage)> {
    let mut found: Vec<(FileAt, &PathBuf, &FileImage)> = Vec::new();
    for (path, file) in &image.files {
        let kind = FileKind::of(path);
        let number = found.iter().filter(|(at, ..)| at.kind == kind).count();
        found.push((FileAt { kind, number }, path, file));
    }
    found
}

/// The n-th flip of the sweep: places far from each other follow each other, so that a short run has
/// seen every part; a second pass takes another bit.
fn sweep(index: u64) -> Recipe {
    let all = positions();
    let count = all.len() as u64;
    let (file, offset) = all[(index * stride(count) % count) as usize];
    let bit = (index / count + offset as u64 * 5 + offset as u64 / 8) % 8;
    Recipe { image: 0, steps: vec![Step::Flip(file, offset, bit as u8)] }
}

/// A step that visits each of `count` places once before it repeats any.
fn stride(count: u64) -> u64 {
    let golden = (count as f64 * 0.618) as u64;
    let coprime = |step: &u64| {
        let (mut left, mut right) = (count, *step);
        while right != 0 {
            (left, right) = (right, left % right);
        }
        left == 1
    };
    (golden.max(1)..).find(coprime).unwrap_or(1)
}

fn flip_anywhere(random: &mut Random) -> Recipe {
    let image = random.below(images().len() as u64) as usize;
    let all = files(&images()[image]);
    let flip = |at, offset, random: &mut Random| Recipe {
        image,
        steps: vec![Step::Flip(at, offset, random.below(8) as u8)],
    };
    // The one block that nothing proves is small, and deserves more than its share.
    if random.one_in(8)
        && let Some((path, block)) = last_log_block(&images()[image])
        && let Some((at, ..)) = all.iter().find(|(_, of, _)| **of == path)
    {
        return flip(*at, block.start + random.below(block.bytes as u64) as usize, random);
    }
    let (at, _, file) = all[random.below(all.len() as u64) as usize];
    let within = if random.one_in(4) { file.bytes } else { file.content.len() as u64 };
    flip(at, random.below(within.max(1)) as usize, random)
}

/// A file and one of its pieces.
pub(super) fn draw_piece(random: &mut Random, image: &Image) -> (FileAt, usize) {
    let all = files(image);
    let (at, _, file) = all[random.below(all.len() as u64) as usize];
    let count = pieces(at.kind, &file.content).len();
    (at, random.below(count.max(1) as u64) as usize)
}

fn misdirect(random: &mut Random) -> Recipe {
    let image = random.below(images().len() as u64) as usize;
    let (to, over) = draw_piece(random, &images()[image]);
    // Half of them from a file of the same kind, where a block fits best.
    let (from, piece) = loop {
        let drawn = draw_piece(random, &images()[image]);
        if drawn.0.kind == to.kind || random.one_in(4) {
            break drawn;
        }
    };
    Recipe { image, steps: vec![Step::Copy(from, piece, to, over)] }
}

fn stale(random: &mut Random) -> Recipe {
    let image = random.below(images().len() as u64) as usize;
    let (file, piece) = draw_piece(random, &images()[image]);
    let moments = images()[image].earlier.len() as u64;
    let moment = (!random.one_in(3)).then(|| random.below(moments) as usize);
    Recipe { image, steps: vec![Step::Stale(file, piece, moment)] }
}

#[cfg(test)]
mod tests {
    use super::super::image::End;
    use super::*;

    #[test]
    fn a_full_run_flips_every_used_byte() {
        let all = positions().len() as u64;
        println!("{all} used bytes");
        assert!(all <= BIT_FLIPS.full / ROUND * SWEEP, "{all}");
        let mut seen = std::collections::BTreeSet::new();
        for index in 0..all {
            let recipe = sweep(index);
            let Step::Flip(file, offset, _) = recipe.steps[0] else { panic!("a sweep flips") };
            assert!(seen.insert((file.kind, file.number, offset)), "a byte comes twice");
        }
        let second = sweep(all);
        assert_ne!(sweep(0), second, "the second pass takes another bit");
        for kind in FileKind::ALL.into_iter().filter(|kind| *kind != FileKind::Spare) {
            assert!(seen.iter().any(|(of, ..)| *of == kind), "{kind:?} is never flipped");
        }
        assert_eq!(images()[0].end, End::Idle);
    }
}
