//! Bytes on disk that are not what was written there: torn tails are forgotten, damage before the
//! tail is named, and no flipped byte of any file ever makes an answer wrong.
//!
//! One directory is filled once and then damaged in copies. Everything but the last write is
//! proven by later blocks of the log; the last, the sentinel, may be lost when its own block is hit.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use pinion_client::blocking::Client;
use pinion_client::{ErrorCode, ScanRange};
use pinion_tests::process::{Random, Rig, Server};

use crate::log_file::{blocks, segment_path};

/// Records in tables and then in the log only.
const TABLE_RECORDS: u64 = 2_500;
const LOG_RECORDS: u64 = 60;
const SENTINEL: &[u8] = b"sentinel";

/// Flips per file, at its front and anywhere in what is used of it.
const FRONT_FLIPS: u64 = 2;
const BODY_FLIPS: u64 = 4;
const FRONT_BYTES: u64 = 80;

/// Tables and segments of which every kind of damage is tried.
const FILES_PER_KIND: usize = 2;

/// Keys that are asked for at once.
const GET_MANY_KEYS: usize = 250;

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// A directory as a kill left it, and what was acknowledged before.
struct Template {
    rig: Rig,
    records: Records,
}

impl Template {
    fn get() -> &'static Self {
        static TEMPLATE: OnceLock<Template> = OnceLock::new();
        TEMPLATE.get_or_init(Self::new)
    }

    fn new() -> Self {
        let rig = Rig::with_shards(1).flag("partitions", "64");
        let server = rig.start();
        let client = server.client();
        client.create_namespace("other", None).expect("a namespace is created");
        let mut random = Random::new(7);
        let mut records = Records::new();
        let mut put = |range: std::ops::Range<u64>| {
            for number in range {
                let (key, value) =
                    (format!("key {number}").into_bytes(), random.bytes(200 + number as usize % 400));
                client.put(&key, value.clone()).expect("a put is acknowledged");
                records.insert(key, value);
            }
        };
        put(0..TABLE_RECORDS);
        while Server::storage(&client, "tables") == 0 {
            put(0..100);
        }
        put(TABLE_RECORDS..TABLE_RECORDS + LOG_RECORDS);
        client.put(SENTINEL, "the last write").expect("a put is acknowledged");
        records.insert(SENTINEL.to_vec(), b"the last write".to_vec());
        server.kill();
        Self { rig, records }
    }

    /// A server's rig on a copy of the directory.
    fn copy(&self, name: &str) -> Rig {
        let to = self.rig.beside(name);
        copy_directory(self.rig.data(), &to);
        self.rig.on(to)
    }
}

#[test]
fn a_flipped_byte_never_makes_an_answer_wrong() {
    let template = Template::get();
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
                    damaged += check_answers(&server.client(), &template.records, kind == "log", &what);
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
fn a_torn_tail_is_forgotten() {
    let template = Template::get();
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
        assert_eq!(check_answers(&server.client(), &template.records, false, name), 0);
        // Nothing of the tail comes back later either.
        server.client().put("after", "the tear").expect("a put is acknowledged");
        server.kill();
        let server = rig.start();
        assert_eq!(server.client().get("after").expect("a get").as_deref(), Some(&b"the tear"[..]));
        check_answers(&server.client(), &with_after(&template.records), false, name);
    }

    // The last block itself torn off: nothing but what only it held is gone.
    let rig = template.copy("cut");
    overwrite(&segment_path(&shard_of(&rig), last.segment), last.offset + 100, &[0xEE; 64]);
    check_answers(&rig.start().client(), &template.records, true, "cut");
}

#[test]
fn damage_in_the_middle_of_the_log_is_refused_with_file_and_offset() {
    let template = Template::get();
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

/// Every answer is right or an error that says damage. How many were errors.
fn check_answers(client: &Client, records: &Records, may_miss_sentinel: bool, what: &str) -> usize {
    let mut errors = 0;
    let all: Vec<_> = records.iter().collect();
    for some in all.chunks(GET_MANY_KEYS) {
        let found = match client.get_many(some.iter().map(|(key, _)| key)) {
            Ok(found) => found.into_iter().map(|entry| Ok(entry.map(|entry| entry.value))).collect(),
            // One of them: ask one by one.
            Err(_) => some.iter().map(|(key, _)| client.get(key)).collect::<Vec<_>>(),
        };
        for ((key, value), found) in some.iter().zip(found) {
            match found {
                Ok(Some(found)) => assert!(found == *value, "{what}: {} is wrong", key.escape_ascii()),
                Ok(None) => {
                    let allowed = may_miss_sentinel && *key == SENTINEL;
                    assert!(allowed, "{what}: {} is missing", key.escape_ascii());
                }
                Err(error) => {
                    assert_eq!(error.code(), Some(ErrorCode::Damaged), "{what}: {error}");
                    errors += 1;
                }
            }
        }
    }
    let mut scanned = Records::new();
    for record in client.scan(ScanRange::all()) {
        match record {
            Ok(record) => drop(scanned.insert(record.key.to_vec(), record.value.to_vec())),
            Err(error) => {
                assert_eq!(error.code(), Some(ErrorCode::Damaged), "{what}: {error}");
                errors += 1;
            }
        }
    }
    assert!(scanned.iter().all(|record| records.get(record.0) == Some(record.1)), "{what}: a scan is wrong");
    if errors == 0 {
        let missing = records.len() - scanned.len();
        assert!(missing == 0 || (may_miss_sentinel && missing == 1), "{what}: a scan misses {missing}");
    }
    errors
}

fn with_after(records: &Records) -> Records {
    let mut records = records.clone();
    records.insert(b"after".to_vec(), b"the tear".to_vec());
    records
}

fn shard_of(rig: &Rig) -> PathBuf {
    rig.data().join("shard-0000")
}

/// What a file is, by its name.
fn kind(name: &str) -> String {
    let kinds = [("MANIFEST", "MANIFEST"), ("spare", "spare log")];
    match kinds.iter().find(|(start, _)| name.starts_with(start)) {
        Some((_, kind)) => (*kind).to_owned(),
        None if name.ends_with(".log") => "log".to_owned(),
        None if name.contains('.') && !name.ends_with(".2") => "table".to_owned(),
        None => name.to_owned(),
    }
}

/// The files below a directory, by their paths from there, in order.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(root.join(&directory)).expect("our directories can be read") {
            let entry = entry.expect("our directories can be read");
            let path = directory.join(entry.file_name());
            if entry.path().is_dir() { directories.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

fn copy_directory(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).expect("an old copy can be removed");
    }
    for file in files(from) {
        let target = to.join(&file);
        fs::create_dir_all(target.parent().expect("a file lies in a directory")).expect("there is room");
        fs::copy(from.join(&file), target).expect("there is room");
    }
    // Directories without files count too.
    for part in ["wal", "table", "quarantine"] {
        fs::create_dir_all(to.join("shard-0000").join(part)).expect("there is room");
    }
}

fn overwrite(path: &Path, offset: usize, bytes: &[u8]) {
    let mut content = fs::read(path).expect("our files can be read");
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
    fs::write(path, content).expect("our files can be written");
}
