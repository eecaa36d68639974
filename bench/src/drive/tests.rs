//! The load tool against a small server that speaks RESP: one that is honest, one that lies, one that
//! dies, one that refuses.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::{Phase, Plan, Target, find_max, not_begun, rate_least, run, sharing};
use crate::error::Error;
use crate::report::RunReport;
use crate::workload::draw::Distribution;
use crate::workload::{Kind, Workload};

/// What a server does wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Nothing,
    /// The write of this number, counted from 1, is acknowledged and forgotten.
    Forgets(usize),
    /// Every read gives the value of some other record.
    CrossesOver,
    /// Closes every connection at the request of this number.
    Dies(usize),
    /// Refuses every third write.
    Refuses,
    /// Is not there any more after so many connections.
    Leaves(usize),
}

#[derive(Default)]
struct State {
    data: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
    requests: AtomicUsize,
    writes: AtomicUsize,
}

fn serve(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let state = Arc::new(State::default());
    thread::spawn(move || {
        let most = if let Fault::Leaves(connections) = fault { connections } else { usize::MAX };
        for socket in listener.incoming().map_while(Result::ok).take(most) {
            let state = Arc::clone(&state);
            // An error is a client that has gone.
            thread::spawn(move || drop(speak(socket, &state, fault)));
        }
    });
    address
}

fn speak(mut socket: TcpStream, state: &State, fault: Fault) -> std::io::Result<()> {
    let mut reader = BufReader::new(socket.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let count: usize = line.trim().trim_start_matches('*').parse().unwrap();
        let mut words = Vec::new();
        for _ in 0..count {
            line.clear();
            reader.read_line(&mut line)?;
            let mut word = vec![0; line.trim().trim_start_matches('$').parse::<usize>().unwrap() + 2];
            reader.read_exact(&mut word)?;
            word.truncate(word.len() - 2);
            words.push(word);
        }
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let mut data = state.data.lock().unwrap();
        let answer = match words.as_slice() {
            [b"PING"] => b"+PONG\r\n".to_vec(),
            [b"INFO"] => b"$22\r\nredis_version:7.7\r\nx:1\r\n".to_vec(),
            [b"CONFIG", b"GET", b"appendfsync"] => {
                list([&b"appendfsync"[..], b"everysec"].into_iter().map(Some))
            }
            [b"GET", key] => {
                let crossed =
                    (fault == Fault::CrossesOver).then(|| data.iter().find(|(other, _)| other != key));
                let value = crossed.flatten().map(|(_, value)| value).or_else(|| data.get(*key));
                bulk(value.map(Vec::as_slice))
            }
            [b"SET", key, value] => {
                let write = 1 + state.writes.fetch_add(1, Ordering::Relaxed);
                if fault == Fault::Refuses && write.is_multiple_of(3) {
                    b"-OOM not now\r\n".to_vec()
                } else {
                    if fault != Fault::Forgets(write) {
                        data.insert(key.to_vec(), value.to_vec());
                    }
                    b"+OK\r\n".to_vec()
                }
            }
            [b"MSET", pairs @ ..] => {
                let records = pairs.chunks(2).map(|pair| (pair[0].to_vec(), pair[1].to_vec()));
                data.extend(records);
                b"+OK\r\n".to_vec()
            }
            [b"ZADD", ..] => b":1\r\n".to_vec(),
            [b"ZRANGEBYLEX", _, from, _, _, _, limit] => {
                let limit: usize = String::from_utf8_lossy(limit).parse().unwrap();
                let mut keys: Vec<_> = data.keys().filter(|key| key.as_slice() >= &from[1..]).collect();
                keys.sort();
                list(keys.into_iter().take(limit).map(|key| Some(key.as_slice())))
            }
            [b"MGET", keys @ ..] => {
                let mut keys = keys.to_vec();
                keys.rotate_left(usize::from(fault == Fault::CrossesOver));
                list(keys.iter().map(|key| data.get(*key).map(Vec::as_slice)))
            }
            other => panic!("{other:?}"),
        };
        drop(data);
        if matches!(fault, Fault::Dies(at) if 1 + state.requests.fetch_add(1, Ordering::Relaxed) >= at) {
            return Ok(());
        }
        socket.write_all(&answer)?;
    }
}

fn bulk(value: Option<&[u8]>) -> Vec<u8> {
    match value {
        None => b"$-1\r\n".to_vec(),
        Some(value) => [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat(),
    }
}

fn list<'a>(values: impl ExactSizeIterator<Item = Option<&'a [u8]>>) -> Vec<u8> {
    let mut answer = format!("*{}\r\n", values.len()).into_bytes();
    values.for_each(|value| answer.extend(bulk(value)));
    answer
}

fn plan(address: SocketAddr, workload: &str, properties: &[&str]) -> Plan {
    let properties: Vec<String> = properties.iter().map(|text| (*text).to_owned()).collect();
    Plan {
        workload: Workload::new(workload, &[], &properties).unwrap(),
        target: format!("redis://{address}").parse::<Target>().unwrap(),
        threads: 2,
        connections: 4,
        depth: 3,
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

fn verified(fault: Fault) -> [RunReport; 2] {
    let mut plan = plan(serve(fault), "f", &["recordcount=200", "operationcount=2000", "fieldcount=3"]);
    plan.verify = true;
    [Phase::Load, Phase::Run].map(|phase| run(&plan, phase).unwrap())
}

fn count(report: &RunReport, kind: &str) -> (u64, u64, u64) {
    let kind = report.kinds.iter().find(|report| report.name == kind);
    kind.map_or((0, 0, 0), |kind| (kind.ok, kind.not_found, kind.failed))
}

#[test]
fn every_operation_is_done_once_and_every_value_is_right() {
    let [load, run] = verified(Fault::Nothing);
    assert_eq!((load.phase.as_str(), load.operations, count(&load, "INSERT")), ("load", 200, (200, 0, 0)));
    assert_eq!((run.operations, run.ended.as_deref()), (2000, None));
    let modified = count(&run, "READ-MODIFY-WRITE").0;
    assert_eq!(count(&run, "UPDATE"), (modified, 0, 0));
    assert_eq!(count(&run, "READ"), (2000, 0, 0), "each operation reads once");
    assert!((900..1100).contains(&modified), "{modified}");
    assert_eq!(count(&run, "VERIFY"), (200, 0, 0));
    assert!(run.target_facts.contains(&("redis_version".to_owned(), "7.7".to_owned())));
    assert_eq!(run.target_counters, [("x".to_owned(), 1, 1)]);
}

#[test]
fn writes_that_a_server_does_not_sync_are_told() {
    let warned = |workload: &str, durability: &str| {
        let properties = ["recordcount=20", "operationcount=20", durability];
        let plan = plan(serve(Fault::Nothing), workload, &properties);
        run(&plan, Phase::Load).unwrap();
        let report = run(&plan, Phase::Run).unwrap();
        assert!(report.target_facts.contains(&("appendfsync".to_owned(), "everysec".to_owned())));
        report.warnings.iter().any(|said| said.contains("not synced: the server has appendfsync everysec"))
    };
    assert!(warned("f", "durability=sync"));
    assert!(!warned("f", "durability=buffered"));
    assert!(!warned("c", "durability=sync"), "nothing was written");
}

#[test]
fn a_lost_write_and_crossed_values_are_found() {
    // The load writes 200 times.
    let [_, run] = verified(Fault::Forgets(1000));
    let failed: u64 = run.kinds.iter().map(|kind| kind.failed).sum();
    assert!(failed > 0 && run.warnings[0].contains("was acknowledged"), "{:?}", run.warnings);
    let [_, run] = verified(Fault::CrossesOver);
    assert!(
        count(&run, "VERIFY").2 > 190 && run.warnings[0].contains("holds the value of record"),
        "{:?}",
        run.warnings
    );
}

#[test]
fn refused_writes_are_made_again() {
    let [load, run] = verified(Fault::Refuses);
    assert_eq!((count(&load, "INSERT"), count(&run, "VERIFY")), ((200, 0, 0), (200, 0, 0)));
    assert!(load.kinds[0].refused > 50);
}

#[test]
fn a_target_that_dies_leaves_a_valid_part_of_a_report() {
    let report = run(&plan(serve(Fault::Dies(500)), "a", &["recordcount=5000"]), Phase::Load).unwrap();
    assert!(report.ended.is_some(), "{report:?}");
    assert!((1..500).contains(&report.operations), "{}", report.operations);
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<RunReport>(&text).unwrap().operations, report.operations);
}

#[test]
fn a_search_ends_with_its_target_and_keeps_what_it_found() {
    let mut plan = plan(serve(Fault::Dies(1000)), "c", &["recordcount=100", "operationcount=200"]);
    plan.rate = Some(2000.0);
    let mut told = 0;
    let found = find_max(&plan, &["p99<100s".parse().unwrap()], |_, _, _| told += 1).unwrap();
    assert!(found.ended.is_some_and(|run| run.ended.is_some_and(|why| why.contains("closed a connection"))));
    // Each run asks 200 times, and some more for what the target says of itself.
    assert!((1..5).contains(&told) && found.tried.len() == told, "{:?}", found.tried);
}

#[test]
fn a_search_keeps_what_it_found_when_nobody_is_there_any_more() {
    // One run has four connections, and one before and after for what the target says of itself.
    let mut plan = plan(serve(Fault::Leaves(6)), "c", &["recordcount=100", "operationcount=200"]);
    plan.rate = Some(2000.0);
    let found = find_max(&plan, &["p99<100s".parse().unwrap()], |_, _, _| {}).unwrap();
    assert!(found.tried.len() == 1 && found.ended.is_some(), "{found:?}");
}

#[test]
fn rates_are_tried_that_have_a_percentile() {
    let plan = plan(serve(Fault::Nothing), "c", &["recordcount=100", "operationcount=50"]);
    let slos = |promises: &[&str]| promises.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
    assert_eq!(rate_least(&plan, &slos(&["p99.9<1ms"])), 1.0, "its operations end it");
    let for_time = Plan { seconds: Some(Duration::from_secs(4)), ..plan.clone() };
    assert!((rate_least(&for_time, &slos(&["p99<1s", "p99.9<2s", "p50<1s"])) - 250.0).abs() < 1e-6);
    // Nothing is as fast as that, so the search goes down to where it cannot tell.
    let short = Plan { seconds: Some(Duration::from_millis(50)), ..plan };
    let found = find_max(&short, &slos(&["p99<0.001us"]), |_, _, _| {}).unwrap();
    let tried: Vec<f64> = found.tried.iter().map(|(rate, _)| *rate).collect();
    assert!(found.best.is_none() && tried == [2000.0], "{tried:?}");
}

#[test]
fn nobody_there_is_an_error() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = run(&plan(address, "a", &["recordcount=5"]), Phase::Load).unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    let report = not_begun(&plan(address, "a", &["recordcount=5"]), Phase::Load, &error);
    assert_eq!((report.ended, report.operations), (Some(error.to_string()), 0));
    assert!(report.kinds.is_empty() && report.properties.contains(&("recordcount".into(), "5".into())));
    let error = run(&plan(address, "a", &[]), Phase::Run).unwrap_err();
    assert!(error.to_string().contains("needs an end"), "{error}");
}

#[test]
fn records_that_were_not_loaded_are_told() {
    let address = serve(Fault::Nothing);
    let with = |records| plan(address, "c", &[records, "operationcount=200", "requestdistribution=uniform"]);
    let missing = |report: &RunReport| report.warnings.iter().any(|said| said.contains("was not there"));
    let mut plan = with("recordcount=100");
    assert!(!missing(&run(&plan, Phase::Load).unwrap()) && !missing(&run(&plan, Phase::Run).unwrap()));
    plan = with("recordcount=1000");
    let report = run(&plan, Phase::Run).unwrap();
    assert!(missing(&report) && report.ended.is_none(), "{:?}", report.warnings);
    plan.workload.ttl_ms = 60_000;
    assert!(!missing(&run(&plan, Phase::Run).unwrap()), "they may have expired");
}

#[test]
fn batches_write_every_record_once() {
    let properties = ["recordcount=1010", "batchsize=100", "valuebytes=8", "operationcount=50"];
    let mut plan = plan(serve(Fault::Nothing), "small", &properties);
    let load = run(&plan, Phase::Load).unwrap();
    assert_eq!((load.operations, count(&load, "INSERT")), (11, (11, 0, 0)));
    plan.workload.shares = vec![(Kind::Insert, 0.5), (Kind::Update, 0.5)];
    let written = run(&plan, Phase::Run).unwrap();
    let inserted = count(&written, "INSERT").0;
    assert_eq!((inserted + count(&written, "UPDATE").0, inserted > 0), (50, true));
    // Every record of the load and of the inserts is there.
    (plan.workload.insert_count, plan.workload.batch_records) = (1010 + 100 * inserted, 1);
    (plan.workload.record_count, plan.workload.operation_count) = (plan.workload.insert_count, 5000);
    (plan.workload.shares, plan.workload.distribution) = (vec![(Kind::Read, 1.0)], Distribution::Sequential);
    assert_eq!(count(&run(&plan, Phase::Run).unwrap(), "READ"), (5000, 0, 0));

    plan.workload.batch_records = 2;
    let refused = |plan: &Plan| run(plan, Phase::Run).unwrap_err().to_string();
    assert!(refused(&Plan { verify: true, ..plan.clone() }).contains("verified"));
    plan.workload.ttl_ms = 5;
    assert!(refused(&plan).contains("expire"));
}

#[test]
fn who_shares_cpus_is_told() {
    let unknown = BTreeSet::new();
    assert!(sharing(&[], &unknown, 1, 8).is_some_and(|said| said.contains("--cpus")));
    assert_eq!(sharing(&[1], &unknown, 1, 2), None);
    assert_eq!(sharing(&[1, 1], &unknown, 1, 2), None);
    assert!(sharing(&[1], &unknown, 2, 2).is_some_and(|said| said.contains("--cores")));
    let pinned = BTreeSet::from([0]);
    assert_eq!(sharing(&[1], &pinned, 1, 2), None);
    assert!(sharing(&[1, 0], &pinned, 1, 2).is_some_and(|said| said.contains("on cpu 0")));
}

#[test]
fn new_records_are_expected_as_operations_or_time_tell() {
    let address = ([127, 0, 0, 1], 1).into();
    let expected = |properties: &[&str], rate, seconds| {
        let plan = plan(address, "e", properties);
        let seconds = Some(seconds).filter(|seconds| *seconds > 0).map(Duration::from_secs);
        Plan { rate, seconds, ..plan }.expected_inserts()
    };
    // A twentieth of them are inserts.
    assert_eq!(expected(&["operationcount=2000", "recordcount=100"], Some(1e6), 60), 200);
    assert_eq!(expected(&["recordcount=1000"], Some(1000.0), 60), 6000);
    assert_eq!(expected(&["recordcount=1000"], Some(1e6), 60), 9000);
    assert_eq!(expected(&["recordcount=1000"], None, 60), 1000);
    let readers = plan(address, "c", &["recordcount=1000"]);
    assert_eq!(Plan { seconds: Some(Duration::from_secs(9)), ..readers }.expected_inserts(), 0);
}

#[test]
fn scans_inserts_and_a_given_rate_work() {
    let mut plan = plan(serve(Fault::Nothing), "e", &["recordcount=300", "operationcount=300"]);
    plan.verify = true;
    assert_eq!(run(&plan, Phase::Load).unwrap().operations, 300);
    plan.rate = Some(3000.0);
    let report = run(&plan, Phase::Run).unwrap();
    let (scans, inserts) = (count(&report, "SCAN").0, count(&report, "INSERT").0);
    assert_eq!((scans + inserts, report.operations), (300, 300));
    assert!(inserts > 0 && report.seconds >= 0.09, "{report:?}");
    assert_eq!((count(&report, "SCAN").2, count(&report, "VERIFY")), (0, (300 + inserts, 0, 0)));
}

#[test]
fn a_scan_that_shows_other_values_or_leaves_out_its_first_is_found() {
    let properties = [
        "recordcount=300",
        "operationcount=3000",
        "insertproportion=0",
        "requestdistribution=uniform",
        "maxscanlength=10",
        "fieldcount=1",
    ];
    let failed = |fault| {
        let plan = Plan { verify: true, ..plan(serve(fault), "e", &properties) };
        run(&plan, Phase::Load).unwrap();
        let report = run(&plan, Phase::Run).unwrap();
        assert!(report.ended.is_none(), "{report:?}");
        (count(&report, "SCAN").2, report.warnings[0].clone())
    };
    let (scans, why) = failed(Fault::CrossesOver);
    assert!(scans > 2000 && why.contains("the value of record"), "{scans}: {why}");
    let (scans, why) = failed(Fault::Forgets(150));
    assert!((1..100).contains(&scans) && why.contains("does not show record"), "{scans}: {why}");
}
