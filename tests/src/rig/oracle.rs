//! What must be found after a crash: concurrent writers, and what is known of each of their keys.
//!
//! Each key has one writer, so what may stand under it after a crash is known exactly: the last
//! acknowledged write, or one attempted after it. Whatever is found then must stay. Groups of keys
//! with one tag are written by batches only: after a crash a group shows one batch, whole.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pinion_client::blocking::Client;
use pinion_client::{Error, ErrorCode, Outcome, ScanRange, WriteBatch, Written};

use crate::process::{PATIENCE, Random, Server};

/// Single keys and groups of one writer.
const KEYS: u64 = 60;
const GROUPS: u64 = 6;
const GROUP_KEYS: u64 = 4;

/// One in so many values is large.
const LARGE_EVERY: u64 = 20;
const LARGE_BYTES_MAX: u64 = 48 << 10;
const SMALL_BYTES_MAX: u64 = 600;

/// How often progress is looked at, and how long a refused writer waits.
const LOOK_DELAY: Duration = Duration::from_millis(1);

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// What writers make of the errors they meet.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Errors after which a writer stops; `false` = it goes on with its next write. May panic.
    pub ends: fn(&Error) -> bool,
    /// There is one shard: once a write was answered with a failed storage and an unknown outcome,
    /// no write that begins later may be acknowledged.
    pub one_shard: bool,
}

impl Rules {
    /// The server may vanish; it may not fail.
    pub const KILLED: Self = Self { ends: ends_when_gone, one_shard: false };
    /// The server may vanish, and its storage may fail.
    pub const CUT: Self = Self { ends: ends_when_failed, one_shard: false };
}

fn ends_when_gone(error: &Error) -> bool {
    match error {
        Error::Server { code: ErrorCode::Overloaded, .. } => false,
        Error::Disconnected { .. } | Error::Connect { .. } => true,
        error => panic!("a write was answered with: {error}"),
    }
}

fn ends_when_failed(error: &Error) -> bool {
    match error {
        Error::Server { code: ErrorCode::StorageFailed | ErrorCode::ShuttingDown, .. } => true,
        error => ends_when_gone(error),
    }
}

/// How far the writers have come.
#[derive(Debug, Default)]
pub struct Progress {
    acknowledged: AtomicU64,
    in_doubt: AtomicU64,
    errors: AtomicU64,
    ended: AtomicU64,
    stop: AtomicBool,
    failed: AtomicBool,
}

impl Progress {
    /// Writes acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Writes answered with an error so far.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::SeqCst)
    }

    /// Whether a write was answered with a failed storage and an unknown outcome.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Whether a writer has stopped: something ended it.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst) > 0
    }

    /// Whether all writers have stopped.
    pub fn have_all_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst) == Oracle::WRITERS
    }

    /// Waits for as many acknowledgements in all, or until a writer has stopped.
    ///
    /// # Panics
    /// When neither happens.
    pub fn wait_for(&self, acknowledged: u64) {
        self.wait_until(|progress| progress.acknowledged() >= acknowledged || progress.has_ended());
    }

    /// Waits until something is so.
    ///
    /// # Panics
    /// When it never is.
    pub fn wait_until(&self, is_so: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            assert!(start.elapsed() < PATIENCE, "the writers do not get there: {self:?}");
            thread::sleep(LOOK_DELAY);
        }
    }
}

/// Counts a writer as ended, also when it panics.
struct Ends<'a>(&'a Progress);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}

/// What came of a time of writing.
#[derive(Debug, Clone, Copy)]
pub struct WrittenMeanwhile {
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Writes of which nobody knows whether they happened.
    pub in_doubt: u64,
}

/// Writers and what is known of their keys.
#[derive(Debug)]
pub struct Oracle {
    writers: Vec<Writer>,
}

impl Oracle {
    /// How many writers there are, each with at most one write under way.
    pub const WRITERS: u64 = 8;

    /// Writers that have written nothing; what they will write follows from the seed.
    pub fn new(seed: u64) -> Self {
        Self { writers: (0..Oracle::WRITERS).map(|id| Writer::new(id, seed)).collect() }
    }

    /// A client for each writer, which gives up soon once the server is gone.
    pub fn clients(server: &Server) -> Vec<Client> {
        (0..Oracle::WRITERS).map(|_| server.hasty_client()).collect()
    }

    /// Lets all writers write, each with a client of its own, until `meanwhile` returns or the rules
    /// end them. Gives what `meanwhile` gave, and what came of the writes.
    ///
    /// # Panics
    /// When a writer finds something wrong.
    pub fn write_while<T>(
        &mut self,
        rules: Rules,
        clients: Vec<Client>,
        meanwhile: impl FnOnce(&Progress) -> T,
    ) -> (T, WrittenMeanwhile) {
        let progress = Progress::default();
        let result = thread::scope(|scope| {
            for (writer, client) in self.writers.iter_mut().zip(clients) {
                let progress = &progress;
                scope.spawn(move || {
                    let _ends = Ends(progress);
                    writer.write(&client, rules, progress);
                });
            }
            // Also when `meanwhile` panics: the scope waits for the writers.
            let _stops = Stops(&progress);
            meanwhile(&progress)
        });
        let acknowledged = progress.acknowledged();
        (result, WrittenMeanwhile { acknowledged, in_doubt: progress.in_doubt.into_inner() })
    }

    /// Reads everything after a restart and compares it with what the writers know. What was found
    /// must stay.
    ///
    /// # Panics
    /// When anything acknowledged is missing, or anything is there that must not be.
    pub fn verify(&mut self, client: &Client) {
        let found = self.read(client);
        self.writers.iter_mut().for_each(|writer| writer.settle(&found, Certainty::Final));
    }

    /// Reads everything while writes that their clients gave up on may still be under way, and
    /// compares it with what the writers know.
    ///
    /// # Panics
    /// When anything acknowledged is missing, or anything is there that must not be.
    pub fn look(&mut self, client: &Client) {
        let found = self.read(client);
        self.writers.iter_mut().for_each(|writer| writer.settle(&found, Certainty::Open));
    }

    /// Everything, read in three ways that must agree.
    fn read(&self, client: &Client) -> Records {
        let mut scanned = Records::new();
        for record in client.scan(ScanRange::all()) {
            let record = record.expect("a scan after recovery");
            let twice = scanned.insert(record.key.to_vec(), record.value.to_vec());
            assert!(twice.is_none(), "{:?} was scanned twice", record.key);
        }
        let ordered = client.scan(ScanRange::prefix("")).map(|record| record.expect("a scan after recovery"));
        let ordered: Vec<_> = ordered.map(|record| (record.key.to_vec(), record.value.to_vec())).collect();
        assert!(ordered.is_sorted(), "a scan in key order is not in key order");
        assert!(
            ordered.len() == scanned.len() && ordered.into_iter().eq(scanned.clone()),
            "two scans differ"
        );

        let keys: Vec<Vec<u8>> = self.writers.iter().flat_map(Writer::keys).collect();
        let values = client.get_many(&keys).expect("gets after recovery");
        let got: Records = keys
            .into_iter()
            .zip(values)
            .filter_map(|(key, entry)| Some((key, entry?.value.to_vec())))
            .collect();
        assert!(got == scanned, "gets and scans differ");
        got
    }
}

struct Stops<'a>(&'a Progress);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}

/// What is known of a key or group: numbers of writes, 0 = none yet.
#[derive(Debug, Default)]
struct Slot {
    acknowledged: u64,
    /// Later writes whose outcome is not known.
    attempted: Vec<u64>,
}

/// Whether writes in doubt may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Certainty {
    Final,
    Open,
}

impl Slot {
    /// Looks for the write that explains what was found. If nothing is open it stands from now on.
    fn settle(&mut self, name: &str, certainty: Certainty, explains: impl Fn(u64) -> bool) {
        let candidates = self.attempted.iter().rev().chain([&self.acknowledged]);
        let found = candidates.copied().find(|number| explains(*number));
        let lost = || panic!("{name}: what stands there is not from the window {self:?}");
        let found = found.unwrap_or_else(lost);
        if certainty == Certainty::Final {
            *self = Self { acknowledged: found, attempted: Vec::new() };
        }
    }
}

/// One thread's keys and what it did to them. Write `number` of a writer is a function of both.
#[derive(Debug)]
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

    /// Writes until told to stop, or the rules say so.
    fn write(&mut self, client: &Client, rules: Rules, progress: &Progress) {
        while !progress.stop.load(Ordering::SeqCst) {
            self.last += 1;
            let number = self.last;
            let is_group = self.random.below(5) == 0;
            let slot = self.random.below(if is_group { GROUPS } else { KEYS });
            let failed_before = progress.failed.load(Ordering::SeqCst);
            let result = if is_group {
                self.write_group(client, slot, number)
            } else {
                self.write_key(client, slot, number)
            };
            let slots = if is_group { &mut self.groups } else { &mut self.keys };
            let known = &mut slots[slot as usize];
            match result {
                Ok(()) => {
                    assert!(
                        !(rules.one_shard && failed_before),
                        "write {number} of writer {} was acknowledged after the storage had failed",
                        self.id
                    );
                    *known = Slot { acknowledged: number, attempted: Vec::new() };
                    progress.acknowledged.fetch_add(1, Ordering::SeqCst);
                }
                Err(error) => {
                    progress.errors.fetch_add(1, Ordering::SeqCst);
                    if error.outcome() != Outcome::NotApplied {
                        known.attempted.push(number);
                        progress.in_doubt.fetch_add(1, Ordering::SeqCst);
                        let failed = error.code() == Some(ErrorCode::StorageFailed);
                        progress.failed.fetch_or(failed, Ordering::SeqCst);
                    }
                    if (rules.ends)(&error) {
                        return;
                    }
                    thread::sleep(LOOK_DELAY);
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
    fn settle(&mut self, found: &Records, certainty: Certainty) {
        let (mut keys, mut groups) = (std::mem::take(&mut self.keys), std::mem::take(&mut self.groups));
        for (slot, known) in keys.iter_mut().enumerate() {
            let key = self.key(slot as u64);
            known.settle(&key.escape_ascii().to_string(), certainty, |number| {
                found.get(&key) == self.content(number, 0).as_ref()
            });
        }
        for (slot, known) in groups.iter_mut().enumerate() {
            let name = format!("group {slot} of writer {}", self.id);
            known.settle(&name, certainty, |number| {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(writer: &Writer, number: u64) -> Records {
        let slots = (0..KEYS).map(|slot| (writer.key(slot), number * u64::from(slot == 3)));
        slots.filter_map(|(key, number)| Some((key, writer.content(number, 0)?))).collect()
    }

    /// A writer of which write 5 to key 3 is acknowledged and writes 7 and 9 are in doubt, and a
    /// write that leaves a value for each of them.
    fn in_doubt() -> (Writer, [u64; 3]) {
        let mut writer = Writer::new(1, 0);
        let mut with_value = (1..).filter(|number| writer.content(*number, 0).is_some());
        let numbers = [(); 3].map(|()| with_value.next().expect("most writes leave a value"));
        writer.keys[3] = Slot { acknowledged: numbers[0], attempted: numbers[1..].to_vec() };
        (writer, numbers)
    }

    #[test]
    fn the_window_is_allowed_and_what_was_found_must_stay() {
        for chosen in 0..3 {
            let (mut writer, numbers) = in_doubt();
            let found = shown(&writer, numbers[chosen]);
            writer.settle(&found, Certainty::Final);
            assert_eq!(writer.keys[3].acknowledged, numbers[chosen]);
            assert!(writer.keys[3].attempted.is_empty());
        }
    }

    #[test]
    #[should_panic(expected = "not from the window")]
    fn a_lost_write_is_found() {
        let (mut writer, _) = in_doubt();
        let found = shown(&writer, 0);
        writer.settle(&found, Certainty::Final);
    }

    #[test]
    #[should_panic(expected = "not from the window")]
    fn half_a_batch_is_found() {
        let mut writer = Writer::new(1, 0);
        let full = |number: &u64| (0..GROUP_KEYS).all(|part| writer.content(*number, part).is_some());
        let number = (1..).find(full).expect("most writes leave a value");
        writer.groups[2] = Slot { acknowledged: 0, attempted: vec![number] };
        let half = (0..GROUP_KEYS / 2).map(|part| {
            (writer.group_key(2, part), writer.content(number, part).expect("chosen for its values"))
        });
        let half = half.collect();
        writer.settle(&half, Certainty::Final);
    }
}
