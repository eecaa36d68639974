//! The load tool against a small server that speaks RESP: one that is honest, one that lies, one that
//! dies, one that refuses.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::{Phase, Plan, Target, run};
use crate::error::Error;
use crate::report::RunReport;
use crate::workload::Workload;

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
        for socket in listener.incoming().map_while(Result::ok) {
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
            [b"ZADD", ..] => b":1\r\n".to_vec(),
            [b"ZRANGEBYLEX", _, from, _, _, _, limit] => {
                let limit: usize = String::from_utf8_lossy(limit).parse().unwrap();
                let mut keys: Vec<_> = data.keys().filter(|key| key.as_slice() >= &from[1..]).collect();
                keys.sort();
                list(keys.into_iter().take(limit).map(|key| Some(key.as_slice())))
            }
            [b"MGET", keys @ ..] => list(keys.iter().map(|key| data.get(*key).map(Vec::as_slice))),
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
fn nobody_there_is_an_error() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = run(&plan(address, "a", &["recordcount=5"]), Phase::Load).unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    let error = run(&plan(address, "a", &[]), Phase::Run).unwrap_err();
    assert!(error.to_string().contains("needs an end"), "{error}");
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
    assert_eq!(run(&plan, Phase::Load).unwrap().operations, 300);
    plan.rate = Some(3000.0);
    let report = run(&plan, Phase::Run).unwrap();
    let (scans, inserts) = (count(&report, "SCAN").0, count(&report, "INSERT").0);
    assert_eq!((scans + inserts, report.operations), (300, 300));
    assert!(inserts > 0 && report.seconds >= 0.09, "{report:?}");
}
