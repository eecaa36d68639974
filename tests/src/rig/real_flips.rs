//! Flipped bits in the files of stopped and of running servers.
//!
//! One bit of one file changes. A server that starts on it is refused with the file's name, or runs;
//! under a running one the bit flips in the file that it has open. Then every key is asked for: the
//! answer is right or an error that names the file and the place. Never wrong, never missing, except
//! for the last write, which nothing proves when its own block is hit.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::skip;
use super::template::{Template, check_answers, files, kind};
use crate::process::{Random, Rig};
use crate::trials::{Class, Counts, Trials};

/// The class.
pub const REAL_FLIPS: Class = Class {
    name: "real-flips",
    about: "a bit flips in a file of a stopped or running real server: named with its place, or harmless",
    unit: "flips",
    submission: 10,
    full: 300,
    release: 10_000,
    run,
};

/// One flip in so many hits the front of a file, which is this long.
const FRONT_EVERY: u64 = 3;
const FRONT_BYTES: u64 = 80;

fn run(trials: &Trials) -> Counts {
    match Template::new() {
        Ok(template) => trials.each_seed(|seed, counts| trial(&template, seed, counts)),
        Err(reason) => skip(trials.class, trials.count, &reason),
    }
}

/// A bit that changed.
struct Flip {
    name: String,
    kind: String,
    what: String,
}

fn trial(template: &Template, seed: u64, counts: &mut Counts) {
    let mut random = Random::new(seed);
    let rig = template.copy(&format!("flipped-{seed}"));
    let is_running = random.below(2) == 0;
    let server = is_running.then(|| rig.start());
    let flip = loop {
        if let Some(flip) = flip(rig.data(), &mut random) {
            break flip;
        }
    };
    counts.add("flips", 1);
    counts.add(&format!("flips in {}", flip.kind), 1);
    if let Some(server) = server {
        counts.add("flips under a running server", 1);
        let client = server.client();
        counts.add("damaged answers", check(&client, template, &flip));
        server.kill();
    }
    start_on(&rig, template, &flip, counts);
    fs::remove_dir_all(rig.data()).expect("a copy can be removed");
}

/// Flips a bit of a file of a kind that is chosen first: most files are of few kinds. None if a running server has
/// removed the file meanwhile.
fn flip(data: &Path, random: &mut Random) -> Option<Flip> {
    let mut kinds: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for file in files(data) {
        let name = file.file_name().and_then(|name| name.to_str()).expect("our names are text");
        let content = fs::metadata(data.join(&file)).map_or(0, |metadata| metadata.len());
        if content > 0 && name != "LOCK" {
            kinds.entry(kind(name)).or_default().push(file);
        }
    }
    let chosen = random.below(kinds.len() as u64) as usize;
    let (kind, files) = kinds.into_iter().nth(chosen).expect("it is one of them");
    let file = &files[random.below(files.len() as u64) as usize];
    let path = data.join(file);
    let content = still_there(fs::read(&path))?;
    let used: Vec<usize> = (0..content.len()).filter(|at| content[*at] != 0).collect();
    let offset = if used.is_empty() || random.below(FRONT_EVERY) == 0 {
        random.below(FRONT_BYTES.min(content.len() as u64)) as usize
    } else {
        used[random.below(used.len() as u64) as usize]
    };
    let bit = 1 << random.below(8);
    // In place: a server has it open.
    let opened = still_there(OpenOptions::new().write(true).open(&path))?;
    opened.write_all_at(&[content[offset] ^ bit], offset as u64).expect("our files can be written");
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Some(Flip { name, kind, what: format!("{} at byte {offset}, bit {bit:#x}", file.display()) })
}

fn still_there<T>(result: io::Result<T>) -> Option<T> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        result => Some(result.expect("our files can be read and written")),
    }
}

fn check(client: &pinion_client::blocking::Client, template: &Template, flip: &Flip) -> u64 {
    let may_miss_sentinel = flip.kind == "log";
    check_answers(client, &template.records, may_miss_sentinel, &flip.name, &flip.what) as u64
}

/// A start on a file with a flipped bit.
fn start_on(rig: &Rig, template: &Template, flip: &Flip, counts: &mut Counts) {
    match rig.try_start() {
        Ok(server) => {
            counts.add("damaged answers", check(&server.client(), template, flip));
            server.kill();
        }
        Err(refused) => {
            counts.add("starts refused", 1);
            let what = &flip.what;
            assert!(!refused.status.success(), "{what}");
            let other_copies = flip.kind.starts_with("META") || flip.kind.starts_with("CATALOGUE");
            assert!(!other_copies, "{what}: the other copy is sound, but: {refused}");
            assert!(refused.log.contains(&flip.name), "{what}: the error does not name it: {refused}");
        }
    }
}
