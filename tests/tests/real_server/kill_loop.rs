//! Kills a server with SIGKILL again and again under concurrent synced writers, and looks for every
//! acknowledged write after each.
//!
//! Each key has one writer, so what may stand under it after a kill is known exactly: the last
//! acknowledged write, or one attempted after it. Whatever is found then must stay. Groups of keys
//! with one tag are written by batches only: after a kill a group shows one batch, whole. The
//! directory lives through all kills, so recoveries are recovered from as well. A kill comes after a
//! random number of acknowledgements, or at a random moment of the start-up.
//!
//! `PINION_TEST_KILLS` and `PINION_TEST_SEED` make a longer or another run of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pinion_client::blocking::Client;
use pinion_client::{Error, ErrorCode, Outcome, ScanRange, WriteBatch, Written};
use pinion_tests::process::{PATIENCE, Random, Rig, Server};

/// Kills of the test unless told otherwise, and how often one hits a start-up.
const KILLS: u64 = 60;
const SEED: u64 = 0x6b69_6c6c;
const START_KILL_EVERY: u64 = 6;

const WRITERS: u64 = 8;
/// Single keys and groups of one writer.
const KEYS: u64 = 60;
const GROUPS: u64 = 6;
const GROUP_KEYS: u64 = 4;

/// Acknowledgements after which a kill comes.
const ACKNOWLEDGED_MAX: u64 = 1_200;
/// Longest wait before a kill at start-up, in microseconds.
const START_US_MAX: u64 = 80_000;
/// How often the killer looks at the count of acknowledgements.
const LOOK_DELAY: Duration = Duration::from_millis(1);

/// One in so many values is large.
const LARGE_EVERY: u64 = 20;
const LARGE_BYTES_MAX: u64 = 48 << 10;
const SMALL_BYTES_MAX: u64 = 600;

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// What the servers were doing when they were killed, summed.
#[derive(Debug, Default)]
struct Seen {
    acknowledged: u64,
    replayed: u64,
    flushes: u64,
    compactions: u64,
}

#[test]
fn every_acknowledged_write_survives_every_kill() {
    let (kills, seed) = (number("PINION_TEST_KILLS", KILLS), number("PINION_TEST_SEED", SEED));
    let rig = Rig::new();
    let mut random = Random::new(seed);
    let mut writers: Vec<Writer> = (0..WRITERS).map(|id| Writer::new(id, seed)).collect();
    let mut seen = Seen::default();
    for kill in 1..=kills {
        if kill % START_KILL_EVERY == 0 {
            let starting = rig.spawn();
            thread::sleep(Duration::from_micros(random.below(START_US_MAX)));
            starting.kill();
            continue;
        }
        let server = rig.start();
        verify(&server.client(), &mut writers);
        kill_under_load(server, &mut writers, 1 + random.below(ACKNOWLEDGED_MAX), &mut seen);
    }
    let server = rig.start();
    verify(&server.client(), &mut writers);
    server.stop();
    println!("{kills} kills from seed {seed}: {seen:?}");
    assert!(seen.replayed > 0 && seen.flushes > kills / 2 && seen.compactions > kills / 4, "{seen:?}");
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("the variable is a number"))
}

/// Lets the writers write until so many writes are acknowledged, then kills the server.
fn kill_under_load(server: Server, writers: &mut [Writer], until: u64, seen: &mut Seen) {
    let client = server.client();
    let acknowledged = AtomicU64::new(0);
    thread::scope(|scope| {
        let start_writer = |writer| {
            let (client, acknowledged) = (server.hasty_client(), &acknowledged);
            scope.spawn(move || Writer::write(writer, &client, acknowledged))
        };
        let threads: Vec<_> = writers.iter_mut().map(start_writer).collect();
        let start = Instant::now();
        // A writer that ends before the kill has found something wrong.
        while acknowledged.load(Ordering::Relaxed) < until
            && !threads.iter().any(|thread| thread.is_finished())
        {
            assert!(start.elapsed() < PATIENCE, "{acknowledged:?} of {until} writes were acknowledged");
            thread::sleep(LOOK_DELAY);
        }
        seen.replayed += Server::storage(&client, "records_replayed");
        seen.flushes += Server::storage(&client, "flushes");
        seen.compactions += Server::storage(&client, "compactions");
        server.kill();
    });
    seen.acknowledged += acknowledged.into_inner();
}

/// Reads everything in three ways, which must agree, and compares it with what the writers know.
fn verify(client: &Client, writers: &mut [Writer]) {
    let mut scanned = Records::new();
    for record in client.scan(ScanRange::all()) {
        let record = record.expect("a scan after recovery");
        let twice = scanned.insert(record.key.to_vec(), record.value.to_vec());
        assert!(twice.is_none(), "{:?} was scanned twice", record.key);
    }
    let ordered = client.scan(ScanRange::prefix("")).map(|record| record.expect("a scan after recovery"));
    let ordered: Vec<_> = ordered.map(|record| (record.key.to_vec(), record.value.to_vec())).collect();
    assert!(ordered.is_sorted(), "a scan in key order is not in key order");
    assert!(ordered.len() == scanned.len() && ordered.into_iter().eq(scanned.clone()), "two scans differ");

    let keys: Vec<Vec<u8>> = writers.iter().flat_map(Writer::keys).collect();
    let values = client.get_many(&keys).expect("gets after recovery");
    let got: Records =
        keys.into_iter().zip(values).filter_map(|(key, entry)| Some((key, entry?.value.to_vec()))).collect();
    assert!(got == scanned, "gets and scans differ");
    writers.iter_mut().for_each(|writer| writer.settle(&got));
}

/// What is known of a key or group: numbers of writes, 0 = none yet.
#[derive(Debug, Default)]
struct Slot {
    acknowledged: u64,
    /// Later writes whose outcome is not known.
    attempted: Vec<u64>,
}

impl Slot {
    /// The write that explains what was found, which stands from now on.
    fn settle(&mut self, name: &str, explains: impl Fn(u64) -> bool) {
        let candidates = self.attempted.iter().rev().chain([&self.acknowledged]);
        let found = candidates.copied().find(|number| explains(*number));
        let lost = || panic!("{name}: what stands there is not from the window {self:?}");
        self.acknowledged = found.unwrap_or_else(lost);
        self.attempted.clear();
    }
}

/// One thread's keys and what it did to them. Write `number` of a writer is a function of both.
struct Writer {
    id: u64,
    random: Random,
    last: u64,
    keys: Vec<Slot>,
    groups: Vec<Slot>,
}

impl Writer {
    fn new(id: u64, seed: u64) -> Self {
        Self {
            id,
            random: Random::new(seed ^ id),
            last: 0,
            keys: (0..KEYS).map(|_| Slot::default()).collect(),
            groups: (0..GROUPS).map(|_| Slot::default()).collect(),
        }
    }

    fn key(&self, slot: u64) -> Vec<u8> {
        format!("writer {} key {slot}", self.id).into_bytes()
    }

    fn group_key(&self, slot: u64, part: u64) -> Vec<u8> {
        format!("{{writer {} group {slot}}} key {part}", self.id).into_bytes()
    }

    fn keys(&self) -> Vec<Vec<u8>> {
        let singles = (0..KEYS).map(|slot| self.key(slot));
        let groups = (0..GROUPS).flat_map(|slot| (0..GROUP_KEYS).map(move |part| self.group_key(slot, part)));
        singles.chain(groups).collect()
    }

    /// What a write leaves under a key; `None` = nothing.
    fn content(&self, number: u64, part: u64) -> Option<Vec<u8>> {
        let mut random = Random::new(self.id << 48 ^ number << 8 ^ part);
        if number == 0 || random.below(6) == 0 {
            return None;
        }
        let large = random.below(LARGE_EVERY) == 0;
        let length = random.below(if large { LARGE_BYTES_MAX } else { SMALL_BYTES_MAX });
        let mut value = format!("{}/{number}/{part}:", self.id).into_bytes();
        value.extend(random.bytes(length as usize));
        Some(value)
    }

    /// Writes until the server is gone.
    fn write(&mut self, client: &Client, acknowledged: &AtomicU64) {
        loop {
            self.last += 1;
            let number = self.last;
            let is_group = self.random.below(5) == 0;
            let slot = self.random.below(if is_group { GROUPS } else { KEYS });
            let result = if is_group {
                self.write_group(client, slot, number)
            } else {
                self.write_key(client, slot, number)
            };
            let slots = if is_group { &mut self.groups } else { &mut self.keys };
            let known = &mut slots[slot as usize];
            match result {
                Ok(()) => {
                    *known = Slot { acknowledged: number, attempted: Vec::new() };
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    if error.outcome() != Outcome::NotApplied {
                        known.attempted.push(number);
                    }
                    match error {
                        Error::Server { code: ErrorCode::Overloaded, .. } => thread::yield_now(),
                        Error::Disconnected { .. } | Error::Connect { .. } => return,
                        error => panic!("write {number} of writer {}: {error}", self.id),
                    }
                }
            }
        }
    }

    fn write_key(&mut self, client: &Client, slot: u64, number: u64) -> Result<(), Error> {
        let (key, content) = (self.key(slot), self.content(number, 0));
        let written = match content.clone() {
            Some(value) => client.put(&key, value)?,
            None => client.delete(&key)?,
        };
        check_applied(&written);
        if self.random.below(8) == 0 {
            // A lost connection says nothing about the write, which is acknowledged.
            if let Ok(found) = client.get(&key) {
                assert!(found.as_deref() == content.as_deref(), "{key:?} does not show its write {number}");
            }
        }
        Ok(())
    }

    fn write_group(&self, client: &Client, slot: u64, number: u64) -> Result<(), Error> {
        let mut batch = WriteBatch::new();
        for part in 0..GROUP_KEYS {
            let key = self.group_key(slot, part);
            batch = match self.content(number, part) {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            };
        }
        for result in client.batch(batch)?.into_vec() {
            check_applied(&result?);
        }
        Ok(())
    }

    /// Compares what stands under the writer's keys with what may stand there.
    fn settle(&mut self, found: &Records) {
        let (mut keys, mut groups) = (std::mem::take(&mut self.keys), std::mem::take(&mut self.groups));
        for (slot, known) in keys.iter_mut().enumerate() {
            let key = self.key(slot as u64);
            known.settle(&key.escape_ascii().to_string(), |number| {
                found.get(&key) == self.content(number, 0).as_ref()
            });
        }
        for (slot, known) in groups.iter_mut().enumerate() {
            let name = format!("group {slot} of writer {}", self.id);
            known.settle(&name, |number| {
                (0..GROUP_KEYS).all(|part| {
                    found.get(&self.group_key(slot as u64, part)) == self.content(number, part).as_ref()
                })
            });
        }
        (self.keys, self.groups) = (keys, groups);
    }
}

/// A key has one writer, so nothing newer can stand there.
fn check_applied(written: &Written) {
    assert!(!written.superseded, "an acknowledged write was taken for an old one");
}
