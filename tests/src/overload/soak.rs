//! A long run under mixed load: memory, descriptors and files must stay flat.
//!
//! Workers write, overwrite, expire, delete and scan a bounded set of keys, in batches and one by
//! one; they make and drop namespaces, and connect anew again and again. The engine is small, so
//! that flushes and compactions never stop. Meanwhile what the server holds is sampled.
//!
//! The first half is warm-up: memtables and caches fill. The second half is judged as a whole: a
//! straight line fitted through its samples may not rise by more than a part of their median, and
//! no sample may stand far above it. Falling is fine.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pinion_client::blocking::Client;
use pinion_client::{PutOptions, ScanRange, WriteBatch};

use super::meter::{Held, files_in};
use crate::process::{Random, Rig, Server, patient};
use crate::trials::{Class, Counts, Trials};

/// Samples of a run.
const SAMPLES: u32 = 80;

/// Workers.
const WORKERS: u64 = 3;

/// Keys of each worker.
const KEYS: u64 = 2_000;

/// Longest value, in bytes.
const VALUE_BYTES_MAX: u64 = 2_000;

/// After so many calls a worker connects anew, and makes and drops a namespace.
const CALLS_PER_CONNECTION: u64 = 400;

/// How long records live that expire.
const TTL: Duration = Duration::from_millis(1_500);

/// How far the line through memory's samples may rise, as a part of their median, and how far the
/// highest sample may stand above it.
const MEMORY: Flat = Flat { rise_max: 0.1, above_max: 0.5, slack: 8.0 * (1 << 20) as f64 };

/// The same of descriptors and of files: tables come and go with compactions.
const NUMBERS: Flat = Flat { rise_max: 0.25, above_max: 1.0, slack: 24.0 };

/// The class `soak`.
pub const SOAK: Class = Class {
    name: "soak",
    about: "mixed load with flushes, expiry, namespaces and reconnects: memory, descriptors, files flat",
    unit: "seconds",
    submission: 180,
    full: 1_200,
    release: 259_200,
    run: |trials: &Trials| soak(trials.count),
};

/// How flat a series must be.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Flat {
    rise_max: f64,
    above_max: f64,
    /// What is allowed in any case, in the series' own unit.
    slack: f64,
}

/// What the judged half of a series is like.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Series {
    median: f64,
    most: f64,
    /// From its beginning to its end, by the fitted line.
    rise: f64,
}

/// Runs for so many seconds.
///
/// # Panics
/// When something grows, or an answer is wrong.
fn soak(seconds: u64) -> Counts {
    let rig = Rig::new().engine("sweep_interval_ms", 1_000);
    let server = rig.start();
    let stop = AtomicBool::new(false);
    let tally = Tally::default();
    let lasts = Duration::from_secs(seconds);
    let mut samples: Vec<(Held, u64)> = Vec::new();
    thread::scope(|scope| {
        let guard = StopOnDrop(&stop);
        for worker in 0..WORKERS {
            let (server, stop, tally) = (&server, &stop, &tally);
            scope.spawn(move || work(server.address(), worker, stop, tally));
        }
        let begun = Instant::now();
        for number in 1..=SAMPLES {
            let at = lasts * number / SAMPLES;
            thread::sleep(at.saturating_sub(begun.elapsed()));
            samples.push((Held::by(server.pid()), files_in(rig.data())));
        }
        drop(guard);
    });
    let client = server.client();
    let mut counts = tally.counts();
    for name in ["flushes", "compactions", "records_expired"] {
        let number = Server::storage(&client, name);
        assert!(number > 0, "the load made no {name}");
        counts.add(name, number);
    }
    drop(client);
    server.stop();
    let series = |value: fn(&(Held, u64)) -> u64| -> Vec<f64> {
        samples.iter().map(|sample| value(sample) as f64).collect()
    };
    judge("memory, bytes", &series(|(held, _)| held.memory_bytes), MEMORY, &mut counts);
    judge("descriptors", &series(|(held, _)| held.descriptors), NUMBERS, &mut counts);
    judge("files", &series(|(_, files)| *files), NUMBERS, &mut counts);
    counts
}

fn judge(name: &str, samples: &[f64], flat: Flat, counts: &mut Counts) {
    let series = Series::of(&samples[samples.len() / 2..]);
    println!("soak: {name}: first {:.0}, then {series}", samples[0]);
    counts.add(&format!("{name}: median"), series.median as u64);
    counts.add(&format!("{name}: most"), series.most as u64);
    assert!(series.is_flat(flat), "{name} does not stay flat: {series}; {samples:.0?}");
}

impl Series {
    fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = samples.len() as f64;
        let (middle_x, middle_y) = ((count - 1.0) / 2.0, samples.iter().sum::<f64>() / count);
        let (mut above, mut below) = (0.0, 0.0);
        for (index, sample) in samples.iter().enumerate() {
            let x = index as f64 - middle_x;
            above += x * (sample - middle_y);
            below += x * x;
        }
        let slope = if below > 0.0 { above / below } else { 0.0 };
        Self { median: sorted[sorted.len() / 2], most: sorted[sorted.len() - 1], rise: slope * (count - 1.0) }
    }

    fn is_flat(&self, flat: Flat) -> bool {
        self.rise <= self.median * flat.rise_max + flat.slack
            && self.most <= self.median * (1.0 + flat.above_max) + flat.slack
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "median {:.0}, most {:.0}, rise {:+.0}", self.median, self.most, self.rise)
    }
}

/// Lets the workers end when sampling fails, too.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Tally {
    calls: AtomicU64,
    connections: AtomicU64,
    namespaces: AtomicU64,
}

impl Tally {
    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        counts.add("calls", self.calls.load(Ordering::Relaxed));
        counts.add("connections", self.connections.load(Ordering::Relaxed));
        counts.add("namespaces made and dropped", self.namespaces.load(Ordering::Relaxed));
        counts
    }
}

fn work(address: &str, worker: u64, stop: &AtomicBool, tally: &Tally) {
    let mut random = Random::new(worker);
    for life in 0_u64.. {
        let client = patient(address).build_blocking().expect("the server takes connections");
        tally.connections.fetch_add(1, Ordering::Relaxed);
        for _ in 0..CALLS_PER_CONNECTION {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            call(&client, worker, &mut random);
            tally.calls.fetch_add(1, Ordering::Relaxed);
        }
        let name = format!("soak-{worker}-{life}");
        client.create_namespace(&name, None).expect("a namespace can be made");
        let inside = client.with_namespace(&name);
        for number in 0..20 {
            inside.put(format!("key {number}"), random.bytes(100)).expect("a put is acknowledged");
        }
        client.drop_namespace(&name).expect("a namespace can be dropped");
        tally.namespaces.fetch_add(1, Ordering::Relaxed);
    }
}

/// One call of any kind. Values begin with their worker's number, so that a foreign one is noticed.
fn call(client: &Client, worker: u64, random: &mut Random) {
    let key = |random: &mut Random| format!("{{worker {worker}}} {:05}", random.below(KEYS));
    let value = |random: &mut Random| {
        let mut bytes = worker.to_le_bytes().to_vec();
        let length = random.below(VALUE_BYTES_MAX) as usize;
        bytes.extend(random.bytes(length));
        bytes
    };
    let name = key(random);
    match random.below(20) {
        0..8 => drop(client.put(name, value(random)).expect("a put is acknowledged")),
        8..10 => {
            let brief = PutOptions::default().ttl(TTL);
            client.put_with(name, value(random), brief).expect("a put is acknowledged");
        }
        10..12 => drop(client.delete(name).expect("a delete is acknowledged")),
        12..14 => {
            let batch = WriteBatch::new().put(&name, value(random)).delete(key(random));
            client.batch(batch).and_then(|results| results.all()).expect("a batch is acknowledged");
        }
        14 => {
            let range = ScanRange::tag(format!("worker {worker}")).limit(50);
            let found = client.scan(range).inspect(|record| assert!(record.is_ok(), "{record:?}")).count();
            assert!(found <= 50, "{found} records of at most 50");
        }
        _ => {
            if let Some(found) = client.get(name).expect("a get is answered") {
                assert_eq!(found[..8], worker.to_le_bytes(), "a value of somebody else");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Around `level`, with noise and a sawtooth as of compactions, rising by `rise` in all.
    fn made(level: f64, rise: f64) -> Series {
        let mut random = Random::new(7);
        let samples: Vec<f64> = (0..40)
            .map(|index| {
                let noise = random.below(100) as f64 / 100.0;
                let tooth = f64::from(index % 5) / 5.0;
                level * (1.0 + 0.05 * noise + 0.05 * tooth) + rise * f64::from(index) / 39.0
            })
            .collect();
        Series::of(&samples)
    }

    #[test]
    fn a_leak_is_seen_through_noise() {
        let flat = Flat { rise_max: 0.1, above_max: 0.5, slack: 0.0 };
        assert!(made(100.0, 0.0).is_flat(flat));
        assert!(made(100.0, -50.0).is_flat(flat), "falling is fine");
        assert!(!made(100.0, 20.0).is_flat(flat), "{}", made(100.0, 20.0));
        let spike = Series::of(&[100.0, 100.0, 260.0, 100.0, 100.0]);
        assert!(!spike.is_flat(flat), "{spike}");
    }
}
