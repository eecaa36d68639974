//! The load tool on Pinion's engine in this process, on the real runtime and a real disk.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::drive::{Phase, Plan, run};
use crate::error::Error;
use crate::report::RunReport;
use crate::workload::Workload;

fn plan(dir: &Path, threads: usize, workload: &str, properties: &[&str]) -> Plan {
    let properties: Vec<String> = properties.iter().map(|text| (*text).to_owned()).collect();
    Plan {
        workload: Workload::new(workload, &[], &properties).unwrap(),
        target: format!("engine:{}", dir.display()).parse().unwrap(),
        threads,
        connections: threads,
        depth: 8,
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

fn count(report: &RunReport, kind: &str) -> (u64, u64, u64) {
    let kind = report.kinds.iter().find(|report| report.name == kind);
    kind.map_or((0, 0, 0), |kind| (kind.ok, kind.not_found, kind.failed))
}

fn counter(report: &RunReport, name: &str) -> (u64, u64) {
    let counter = report.target_counters.iter().find(|counter| counter.0 == name);
    counter.map(|counter| (counter.1, counter.2)).unwrap()
}

fn fact<'r>(report: &'r RunReport, name: &str) -> &'r str {
    report.target_facts.iter().find(|fact| fact.0 == name).map_or("", |fact| fact.1.as_str())
}

#[test]
fn every_record_is_loaded_changed_and_verified_on_one_core() {
    let dir = TempDir::new().unwrap();
    let mut plan = plan(dir.path(), 1, "f", &["recordcount=300", "operationcount=1500", "fieldcount=3"]);
    plan.verify = true;
    let load = run(&plan, Phase::Load).unwrap();
    assert_eq!((load.operations, count(&load, "INSERT"), load.ended.as_deref()), (300, (300, 0, 0), None));
    assert_eq!(counter(&load, "storage.writes"), (0, 300));
    let (before, after) = counter(&load, "process.write_bytes");
    assert!(after - before > 300 * 300, "{before}, {after}");
    let run = run(&plan, Phase::Run).unwrap();
    let modified = count(&run, "READ-MODIFY-WRITE").0;
    assert_eq!((run.operations, count(&run, "UPDATE").0, count(&run, "READ").0), (1500, modified, 1500));
    assert!((650..850).contains(&modified), "{modified}");
    assert_eq!((count(&run, "VERIFY"), run.warnings.as_slice()), ((300, 0, 0), &[][..]));
    assert_eq!((fact(&run, "shards"), run.phase.as_str()), ("1", "run"));
    assert!(run.target_cpu_percent.is_some());
}

#[test]
fn two_cores_share_out_the_records_and_insert_their_own() {
    let dir = TempDir::new().unwrap();
    let properties = ["recordcount=400", "operationcount=2000", "fieldcount=2", "insertproportion=0.2"];
    let mut plan = plan(dir.path(), 2, "d", &properties);
    plan.verify = true;
    let load = run(&plan, Phase::Load).unwrap();
    assert_eq!((count(&load, "INSERT"), fact(&load, "shards")), ((400, 0, 0), "2"));
    let report = run(&plan, Phase::Run).unwrap();
    assert_eq!((report.operations, report.ended.as_deref(), &*report.warnings), (2000, None, &[][..]));
    let inserted = count(&report, "INSERT").0;
    assert!(inserted > 200, "{inserted}");
    assert_eq!(count(&report, "READ"), (2000 - inserted, 0, 0), "all that is asked for is there");
    assert_eq!(count(&report, "VERIFY"), (400 + inserted, 0, 0));
    // One core reads both shards, and more cores than shards there cannot be.
    plan.threads = 1;
    plan.connections = 1;
    plan.workload.operation_count = 100;
    assert_eq!(run(&plan, Phase::Run).unwrap().operations, 100);
    plan.threads = 3;
    plan.connections = 3;
    let error = run(&plan, Phase::Run).unwrap_err().to_string();
    assert!(error.contains("3 threads") && error.contains("shards for 2"), "{error}");
}

#[test]
fn a_time_a_rate_deletes_and_buffered_writes_work() {
    let dir = TempDir::new().unwrap();
    let mixed = [
        "recordcount=500",
        "readproportion=0.4",
        "updateproportion=0.3",
        "insertproportion=0.1",
        "deleteproportion=0.2",
        "durability=buffered",
        "ttlms=3600000",
    ];
    let mut plan = plan(dir.path(), 2, "small", &mixed);
    plan.depth = 3;
    assert_eq!(run(&plan, Phase::Load).unwrap().operations, 500);
    plan.rate = Some(2000.0);
    plan.workload.operation_count = 400;
    let report = run(&plan, Phase::Run).unwrap();
    assert_eq!((report.operations, report.ended.as_deref()), (400, None));
    assert!(report.seconds >= 0.19, "the last is due after 199.5 ms, not {}", report.seconds);
    let deleted = count(&report, "DELETE");
    assert!(deleted.0 > 40 && deleted.2 == 0, "{deleted:?}");
    assert!(count(&report, "READ").1 > 0, "what was deleted is not found");
    // As many as possible, for a time.
    (plan.rate, plan.workload.operation_count) = (None, 0);
    plan.seconds = Some(Duration::from_millis(200));
    plan.warmup = Duration::from_millis(50);
    let report = run(&plan, Phase::Run).unwrap();
    assert!(report.operations > 0 && (report.seconds - 0.2).abs() < 1e-9, "{report:?}");
}

#[test]
fn scans_read_in_both_orders() {
    let dir = TempDir::new().unwrap();
    let properties = ["recordcount=300", "operationcount=200", "fieldcount=1", "fieldlength=10"];
    let mut plan = plan(dir.path(), 2, "e", &properties);
    plan.verify = true;
    assert_eq!(run(&plan, Phase::Load).unwrap().operations, 300);
    for (order, said) in [("placement", "placement"), ("keys", "order of keys")] {
        let scan_order = format!("scanorder={order}");
        let properties: Vec<String> =
            properties.iter().copied().chain([scan_order.as_str()]).map(str::to_owned).collect();
        plan.workload = Workload::new("e", &[], &properties).unwrap();
        let report = run(&plan, Phase::Run).unwrap();
        let (scans, inserts) = (count(&report, "SCAN"), count(&report, "INSERT"));
        assert_eq!((scans.0 + inserts.0, scans.2 + inserts.2), (200, 0), "{:?}", report.warnings);
        assert!(fact(&report, "scan order").contains(said), "{:?}", report.target_facts);
        assert!(counter(&report, "storage.scans").1 >= scans.0);
        assert_eq!(count(&report, "VERIFY").2, 0, "{:?}", report.warnings);
    }
}

#[test]
fn what_does_not_fit_is_refused_with_what_to_do() {
    let dir = TempDir::new().unwrap();
    let refused = |threads: usize, properties: &[&str], change: fn(&mut Plan)| {
        let mut plan = plan(dir.path(), threads, "a", properties);
        change(&mut plan);
        run(&plan, Phase::Load).unwrap_err().to_string()
    };
    let error = refused(1, &["memorymib=63"], |_| ());
    assert_eq!(error, "property memorymib: 63 is too little: 64 are needed");
    let error = refused(2, &["memorymib=100"], |_| ());
    assert!(error.contains("64 are needed for each of 2 shards"), "{error}");
    let error = refused(1, &[], |plan| plan.connections = 64);
    assert!(error.contains("has no connections"), "{error}");
    let error = refused(1, &["directio=false"], |_| ());
    assert!(error.contains("past the page cache"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made");
    // Shards other than those that there are, and a directory of something else.
    run(&plan(dir.path(), 2, "a", &["recordcount=5"]), Phase::Load).unwrap();
    let error = refused(1, &["shards=3"], |_| ());
    assert!(error.contains("formatted with 2"), "{error}");
    let foreign = TempDir::new().unwrap();
    std::fs::write(foreign.path().join("notes.txt"), "mine").unwrap();
    let error = run(&plan(foreign.path(), 1, "a", &[]), Phase::Load).unwrap_err();
    assert!(matches!(error, Error::Engine(_)) && error.to_string().contains("notes.txt"), "{error}");
}
