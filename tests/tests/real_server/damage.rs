//! Bytes on disk that are not what was written there: torn tails are forgotten, damage before the
//! tail is named, and no flipped byte of any file ever makes an answer wrong.
//!
//! One directory is filled once and then damaged in copies. Everything but the last write is
//! proven by later blocks of the log; the last, the sentinel, may be lost when its own block is hit.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use pinion_tests::process::{Random, Rig};
use pinion_tests::rig::{Records, Template, check_answers, files, kind};
use pinion_tests::trials::Class;

use crate::log_file::{blocks, segment_path};

/// Flips per file, at its front and anywhere in what is used of it.
const FRONT_FLIPS: u64 = 2;
const BODY_FLIPS: u64 = 4;
const FRONT_BYTES: u64 = 80;

/// Tables and segments of which every kind of damage is tried.
const FILES_PER_KIND: usize = 2;

fn template() -> &'static Template {
    static TEMPLATE: OnceLock<Template> = OnceLock::new();
    TEMPLATE.get_or_init(|| Template::new().expect("there is a directory for temporary files"))
}

#[test]
fn a_flipped_byte_never_makes_an_answer_wrong() {
    let template = template();
    let mut random = Random::new(0xf11b);
    let (mut flips, mut refused, mut damaged) = (0, 0, 0);
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for file in files(template.rig.data()) {
        let name = file.file_name().and_then(|name| name.to_str()).expect("our names are text").to_owned();
        let kind = kind(&name);
        let tried = kinds.entry(kind.clone()).or_default();
        if kind == "LOCK" || *tried == FILES_PER_KIND {
            continue;
        }
        *tried += 1;
        let content = fs::read(template.rig.data().join(&file)).expect("our files can be read");
        let used: Vec<u64> = (0..content.len() as u64).filter(|at| content[*at as usize] != 0).collect();
        if used.is_empty() {
            continue;
        }
        for flip in 0..FRONT_FLIPS + BODY_FLIPS {
            let offset = if flip < FRONT_FLIPS {
                random.below(FRONT_BYTES.min(content.len() as u64))
            } else {
                used[random.below(used.len() as u64) as usize]
            };
            let what = format!("{} at byte {offset}", file.display());
            let rig = template.copy("flipped");
            let path = rig.data().join(&file);
            let mut bytes = content.clone();
            bytes[offset as usize] ^= 1 << random.below(8);
            fs::write(&path, bytes).expect("our files can be written");
            flips += 1;
            match rig.try_start() {
                Err(refusal) => {
                    refused += 1;
                    assert!(!refusal.status.success(), "{what}");
                    let other_copies = kind.starts_with("META") || kind.starts_with("CATALOGUE");
                    assert!(!other_copies, "{what}: the other copy is sound, but: {refusal}");
                    assert!(refusal.log.contains(&name), "{what}: the error does not name it: {refusal}");
                }
                Ok(server) => {
                    damaged +=
                        check_answers(&server.client(), &template.records, kind == "log", &name, &what);
                }
            }
            fs::remove_dir_all(rig.data()).expect("the copy can be removed");
        }
    }
    println!("{flips} flips in {kinds:?}: {refused} refused at start, {damaged} answers were errors");
    for kind in ["META", "META.2", "CATALOGUE", "CATALOGUE.2", "CURRENT", "MANIFEST", "log", "table"] {
        assert!(kinds.contains_key(kind), "no {kind} among {kinds:?}");
    }
    assert!(refused > 0 && damaged > 0);
}

#[test]
fn a_flipped_bit_is_told_or_harmless_also_under_a_running_server() {
    let counts = Class::submit("real-flips");
    assert_eq!(counts.get("flips") + counts.get("skipped"), 10);
}

#[test]
fn a_torn_tail_is_forgotten() {
    let template = template();
    let shard = shard_of(&template.rig);
    let last = *blocks(&shard).last().expect("the log has blocks");
    let end = last.offset + last.bytes;
    let mut garbage = Random::new(3).bytes(4096);
    // What the last block would look like if it had been meant for the next place and was torn.
    let content = fs::read(segment_path(&shard, last.segment)).expect("a segment can be read");
    let torn = content[last.offset..last.offset + 512].to_vec();
    for (name, tail) in [("garbage", std::mem::take(&mut garbage)), ("torn", torn)] {
        let rig = template.copy(name);
        overwrite(&segment_path(&shard_of(&rig), last.segment), end, &tail);
        let server = rig.start();
        assert_eq!(check_answers(&server.client(), &template.records, false, "", name), 0);
        // Nothing of the tail comes back later either.
        server.client().put("after", "the tear").expect("a put is acknowledged");
        server.kill();
        let server = rig.start();
        assert_eq!(server.client().get("after").expect("a get").as_deref(), Some(&b"the tear"[..]));
        check_answers(&server.client(), &with_after(&template.records), false, "", name);
    }

    // The last block itself torn off: nothing but what only it held is gone.
    let rig = template.copy("cut");
    overwrite(&segment_path(&shard_of(&rig), last.segment), last.offset + 100, &[0xEE; 64]);
    check_answers(&rig.start().client(), &template.records, true, "", "cut");
}

#[test]
fn damage_in_the_middle_of_the_log_is_refused_with_file_and_offset() {
    let template = template();
    let blocks = blocks(&shard_of(&template.rig));
    let proven: Vec<_> = blocks.iter().rev().skip(5).filter(|block| block.records > 0).take(3).collect();
    assert!(!proven.is_empty());
    for block in proven {
        for inside in [0, 20, 100, 130] {
            let rig = template.copy("middle");
            let path = segment_path(&shard_of(&rig), block.segment);
            let at = block.offset + inside;
            let byte = fs::read(&path).expect("a segment can be read")[at];
            overwrite(&path, at, &[byte ^ 0x40]);
            let refusal = rig.try_start().map(|_| ()).expect_err("the log is damaged before its end");
            assert!(!refusal.status.success());
            let name = path.file_name().and_then(|name| name.to_str()).expect("our names are text");
            let (_, said) = refusal.log.split_once("damaged at byte ").expect("the error names the offset");
            let offset: usize = said.split(':').next().and_then(|text| text.parse().ok()).expect("a number");
            let within = block.offset..block.offset + block.bytes;
            assert!(refusal.log.contains(name) && within.contains(&offset), "{block:?}: {refusal}");
            fs::remove_dir_all(rig.data()).expect("the copy can be removed");
        }
    }
}

fn with_after(records: &Records) -> Records {
    let mut records = records.clone();
    records.insert(b"after".to_vec(), b"the tear".to_vec());
    records
}

fn shard_of(rig: &Rig) -> PathBuf {
    rig.data().join("shard-0000")
}

fn overwrite(path: &Path, offset: usize, bytes: &[u8]) {
    let mut content = fs::read(path).expect("our files can be read");
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
    fs::write(path, content).expect("our files can be written");
}
