//! A data directory that is filled once and then damaged in copies.
//!
//! Everything but the last write is proven by later blocks of the log; the last, the sentinel, may be
//! lost when its own block is hit.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use pinion_client::blocking::Client;
use pinion_client::{ErrorCode, ScanRange};

use super::place::Place;
use crate::process::{Random, Rig, Server};

/// Records in tables and then in the log only.
const TABLE_RECORDS: u64 = 2_500;
const LOG_RECORDS: u64 = 60;
const SENTINEL: &[u8] = b"sentinel";

/// Keys that are asked for at once.
const GET_MANY_KEYS: usize = 250;

/// Keys and values.
pub type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// A directory as a kill left it, and what was acknowledged before.
#[derive(Debug)]
pub struct Template {
    /// Settings of the servers, and the directory that is copied.
    pub rig: Rig,
    /// What was acknowledged.
    pub records: Records,
    place: Place,
}

impl Template {
    /// Fills a directory in memory and kills the server.
    ///
    /// # Errors
    /// There is no place for it.
    pub fn new() -> Result<Self, String> {
        let place = Place::new()?;
        let rig = Rig::with_shards(1).flag("partitions", "64").on(place.path("data"));
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
        Ok(Self { rig, records, place })
    }

    /// A server's rig on a copy of the directory.
    ///
    /// # Panics
    /// When there is no room for it.
    pub fn copy(&self, name: &str) -> Rig {
        let to = self.place.path(name);
        copy_directory(self.rig.data(), &to);
        self.rig.on(to)
    }
}

/// Every answer is right, or an error that says damage of the file of this name and where. How many
/// were errors.
///
/// # Panics
/// When an answer is wrong or missing, or another error.
pub fn check_answers(
    client: &Client,
    records: &Records,
    may_miss_sentinel: bool,
    file: &str,
    what: &str,
) -> usize {
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
                    check_damage(&error, file, what);
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
                check_damage(&error, file, what);
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

fn check_damage(error: &pinion_client::Error, file: &str, what: &str) {
    assert_eq!(error.code(), Some(ErrorCode::Damaged), "{what}: {error}");
    let said = error.to_string();
    assert!(said.contains(file) && said.contains("damaged at byte"), "{what}: where? {said}");
}

/// What a file is, by its name.
pub fn kind(name: &str) -> String {
    let kinds = [("MANIFEST", "MANIFEST"), ("spare", "spare log")];
    match kinds.iter().find(|(start, _)| name.starts_with(start)) {
        Some((_, kind)) => (*kind).to_owned(),
        None if name.ends_with(".log") => "log".to_owned(),
        None if name.contains('.') && !name.ends_with(".2") => "table".to_owned(),
        None => name.to_owned(),
    }
}

/// The files below a directory, by their paths from there, in order.
///
/// # Panics
/// When it cannot be read.
pub fn files(root: &Path) -> Vec<PathBuf> {
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
