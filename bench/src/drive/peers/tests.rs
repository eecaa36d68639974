//! Threads that wait for an engine: one in memory that is honest or forgets, and the peers, if they were
//! compiled in.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::Duration;

use crate::drive::blocking::{self, Store};
use crate::drive::operations::Job;
use crate::drive::shared::{Ledger, Shared};
use crate::drive::span::Span;
use crate::drive::tally::Tally;
use crate::drive::target::Description;
use crate::drive::{Phase, Plan, crew};
use crate::report::KindReport;
use crate::workload::Workload;

/// In memory; the write of a number, counted from 1, is acknowledged and forgotten.
#[derive(Default)]
struct InMemory {
    records: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    writes: AtomicUsize,
    forgets: usize,
}

impl Store for InMemory {
    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, String> {
        let records = self.records.lock().unwrap();
        Ok(records.get(key).map(|found| value.extend_from_slice(found)).is_some())
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), String> {
        if self.writes.fetch_add(1, Ordering::Relaxed) + 1 != self.forgets {
            self.records.lock().unwrap().insert(key.to_vec(), value.to_vec());
        }
        Ok(())
    }

    fn delete(&self, key: &[u8]) -> Result<(), String> {
        self.records.lock().unwrap().remove(key);
        Ok(())
    }

    fn scan(&self, start: &[u8], limit: u64, records: &mut Vec<u8>) -> Result<u64, String> {
        let all = self.records.lock().unwrap();
        let found = all.range(start.to_vec()..).take(limit as usize);
        Ok(found.map(|(key, _)| records.extend_from_slice(key)).count() as u64)
    }

    fn describe(&self) -> Description {
        Description::default()
    }
}

fn plan(target: &str, workload: &str, properties: &[&str]) -> Plan {
    let properties: Vec<String> = properties.iter().map(|text| (*text).to_owned()).collect();
    Plan {
        workload: Workload::new(workload, &[], &properties).unwrap(),
        target: target.parse().unwrap(),
        threads: 2,
        connections: 2,
        depth: 1,
        rate: None,
        seconds: None,
        warmup: Duration::ZERO,
        verify: false,
        seed: 1,
        cpus: Vec::new(),
        target_process: None,
        progress: false,
    }
}

/// One phase on a store, and how long it took.
fn phase(store: &InMemory, plan: &Plan, phase: Phase, ledger: &Arc<Ledger>) -> (Tally, Duration) {
    let budget = if phase == Phase::Run { plan.workload.operation_count } else { plan.workload.insert_count };
    let first = if phase == Phase::Load { 0 } else { plan.workload.record_count };
    let span = Arc::new(Span::new(None));
    let (seconds, _told) = mpsc::channel();
    let job = Job {
        plan: Arc::new(plan.clone()),
        phase,
        shared: Arc::new(Shared::new(budget, plan.threads, first, Some(Arc::clone(ledger)))),
        ready: Arc::new(Barrier::new(plan.threads)),
        span: Arc::clone(&span),
        seconds,
    };
    let mut sum = Tally::default();
    for (tally, error) in crew::threads(job, |job, index| blocking::run(job, index, store)).unwrap() {
        assert!(error.is_none(), "{error:?}");
        sum.add(tally);
    }
    (sum, span.wall())
}

fn count(kinds: &[KindReport], name: &str) -> (u64, u64, u64) {
    let kind = kinds.iter().find(|kind| kind.name == name);
    kind.map_or((0, 0, 0), |kind| (kind.ok, kind.not_found, kind.failed))
}

#[test]
fn threads_that_wait_do_every_operation_once() {
    let store = InMemory::default();
    let mut plan = plan("engine:unused", "f", &["recordcount=200", "operationcount=1000", "fieldcount=2"]);
    let ledger = Arc::new(Ledger::new(0, 200, 0));
    assert_eq!(count(&phase(&store, &plan, Phase::Load, &ledger).0.report(), "INSERT"), (200, 0, 0));
    plan.rate = Some(10_000.0);
    let (tally, wall) = phase(&store, &plan, Phase::Run, &ledger);
    assert_eq!((tally.operations(), count(&tally.report(), "READ")), (1000, (1000, 0, 0)));
    assert!(wall >= Duration::from_millis(99), "the last is due after 99.9 ms, not {wall:?}");
    assert_eq!(count(&phase(&store, &plan, Phase::Verify, &ledger).0.report(), "VERIFY"), (200, 0, 0));
}

#[test]
fn what_a_store_forgets_is_found() {
    // The load writes 200 times; half of all operations write again.
    let store = InMemory { forgets: 150, ..InMemory::default() };
    let plan = plan("engine:unused", "c", &["recordcount=200", "operationcount=100", "fieldcount=2"]);
    let ledger = Arc::new(Ledger::new(0, 200, 0));
    phase(&store, &plan, Phase::Load, &ledger);
    let (tally, _) = phase(&store, &plan, Phase::Verify, &ledger);
    assert_eq!(count(&tally.report(), "VERIFY"), (199, 0, 1));
    assert!(tally.first_failure.unwrap().contains("is missing, version"));
}

#[cfg(feature = "peers")]
mod compiled_in {
    use tempfile::TempDir;

    use super::*;
    use crate::drive::run;

    const PEERS: [&str; 2] = ["rocksdb", "fjall"];

    #[test]
    fn every_record_is_loaded_changed_and_verified() {
        for peer in PEERS {
            for durability in ["sync", "buffered"] {
                let dir = TempDir::new().unwrap();
                let properties = [
                    "recordcount=200",
                    "operationcount=600",
                    "fieldcount=3",
                    "memorymib=64",
                    &format!("durability={durability}"),
                ];
                let target = format!("{peer}:{}", dir.path().join("made").display());
                let mut plan = plan(&target, "f", &properties);
                plan.verify = true;
                let load = run(&plan, Phase::Load).unwrap();
                assert_eq!(count(&load.kinds, "INSERT"), (200, 0, 0), "{target}");
                let report = run(&plan, Phase::Run).unwrap();
                let modified = count(&report.kinds, "READ-MODIFY-WRITE").0;
                assert_eq!((report.operations, report.ended.as_deref()), (600, None));
                assert!((230..370).contains(&modified), "{modified}");
                assert_eq!(count(&report.kinds, "VERIFY"), (200, 0, 0), "{:?}", report.warnings);
                let facts: Vec<&str> = report.target_facts.iter().map(|fact| fact.0.as_str()).collect();
                assert_eq!(facts, ["product", "version", "memory", "files", "tables"]);
                let version = &report.target_facts[1].1;
                assert!(version.contains('.'), "{version}");
            }
        }
    }

    #[test]
    fn scans_inserts_deletes_and_a_rate_work() {
        for peer in PEERS {
            let dir = TempDir::new().unwrap();
            let properties = [
                "recordcount=300",
                "operationcount=300",
                "deleteproportion=0.1",
                "fieldcount=1",
                "memorymib=64",
            ];
            let mut plan = plan(&format!("{peer}:{}", dir.path().display()), "e", &properties);
            assert_eq!(run(&plan, Phase::Load).unwrap().operations, 300);
            plan.rate = Some(5000.0);
            let report = run(&plan, Phase::Run).unwrap();
            let [scans, inserts, deletes] =
                ["SCAN", "INSERT", "DELETE"].map(|kind| count(&report.kinds, kind));
            assert_eq!((scans.0 + inserts.0 + deletes.0, report.operations), (300, 300));
            assert!(deletes.0 > 0 && inserts.0 > 0, "{deletes:?} {inserts:?}");
            assert_eq!(scans.2 + inserts.2 + deletes.2, 0, "{:?}", report.warnings);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_to_do() {
        for peer in PEERS {
            let dir = TempDir::new().unwrap();
            let target = format!("{peer}:{}", dir.path().display());
            let refused = |properties: &[&str], depth| {
                let mut plan = plan(&target, "a", properties);
                plan.depth = depth;
                run(&plan, Phase::Load).unwrap_err().to_string()
            };
            assert!(refused(&[], 2).contains("--threads, not --depth"));
            assert!(refused(&["ttlms=5"], 1).contains("time to live"));
            assert!(refused(&["shards=2"], 1).contains("no shards"));
            assert!(refused(&["memorymib=8"], 1).contains("64 are needed"));
            std::fs::write(dir.path().join("notes.txt"), "mine").unwrap();
            let error = refused(&[], 1);
            assert!(error.contains("choose another directory"), "{error}");
        }
    }
}
