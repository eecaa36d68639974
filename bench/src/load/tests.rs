//! The generator against small servers: one that speaks the protocol, and lies when told to, and
//! one that answers bytes with bytes.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use pinion_protocol::{
    ErrorCode, ErrorReply, FRAME_BYTES_MAX_DEFAULT, Frames, GetReply, HelloReply, ListBuf, Request, Response,
    Value, Version, WriteOutcome, Written,
};

use super::{Dialect, Durability, Load, Order, Plan, Records, Report, Script, Work, run};
use crate::error::Error;

/// What a server does wrong, once on each connection.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Lie {
    Nothing,
    OtherValue,
    NotFound,
    Failure,
    Overload,
    OtherId,
    Garbage,
    Close,
}

/// The request, counted from 1, that a server lies about. A connection of [`plan`] asks for more
/// than that at once.
const LYING_REQUEST: usize = 3;

type Data = Arc<Mutex<HashMap<Vec<u8>, Vec<u8>>>>;

fn serve(lie: Lie) -> SocketAddr {
    let data = Data::default();
    listen(move |socket| speak(socket, &data, lie))
}

fn listen(talk: impl Fn(TcpStream) -> std::io::Result<()> + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let talk = talk.clone();
            // An error is a client that has gone.
            thread::spawn(move || drop(talk(socket)));
        }
    });
    address
}

fn speak(mut socket: TcpStream, data: &Data, lie: Lie) -> std::io::Result<()> {
    let mut frames = Frames::new(FRAME_BYTES_MAX_DEFAULT);
    let (mut greeted, mut requests, mut chunk, mut out) = (false, 0, [0; 3000], Vec::new());
    loop {
        let bytes = socket.read(&mut chunk)?;
        if bytes == 0 {
            return Ok(());
        }
        let mut rest = &chunk[..bytes];
        if !greeted {
            greeted = frames.next_preface(&mut rest).unwrap().is_some();
        }
        while let Some(frame) = frames.next_frame(&mut rest).unwrap() {
            let mut id = frame.header.request_id;
            let request = Request::decode(&frame.header, frame.body).unwrap();
            requests += usize::from(!matches!(request, Request::Hello(_)));
            let lying = requests == LYING_REQUEST;
            if lying && lie == Lie::Close {
                return Ok(());
            }
            id += u64::from(lying && lie == Lie::OtherId);
            let lock = data.lock().unwrap();
            let start = out.len();
            answer(&request, lock, if lying { lie } else { Lie::Nothing }, id, &mut out);
            if lying && lie == Lie::Garbage {
                out[start + 4..].fill(0);
            }
        }
        socket.write_all(&out)?;
        out.clear();
    }
}

fn answer(
    request: &Request<'_>,
    mut data: std::sync::MutexGuard<'_, HashMap<Vec<u8>, Vec<u8>>>,
    lie: Lie,
    id: u64,
    out: &mut Vec<u8>,
) {
    let cores = ListBuf::default();
    let version = Version([3; 16]);
    let response = match request {
        _ if lie == Lie::Failure => {
            let error = ErrorReply::new(ErrorCode::Damaged, "not ever");
            Response::Error { opcode: request.opcode().to_u8(), error }
        }
        _ if lie == Lie::Overload => {
            let error = ErrorReply { retry_after_ms: 1, ..ErrorReply::new(ErrorCode::Overloaded, "not now") };
            Response::Error { opcode: request.opcode().to_u8(), error }
        }
        Request::Hello(_) => Response::Hello(HelloReply {
            version: 1,
            core: 0,
            cores: 1,
            partitions: 64,
            key_bytes_max: 4096,
            features: 0,
            node_id: [0; 16],
            incarnation: 1,
            stamp: 1,
            value_bytes_max: 1 << 20,
            batch_ops_max: 1,
            batch_bytes_max: 1,
            frame_bytes_max: FRAME_BYTES_MAX_DEFAULT,
            in_flight_max: 64,
            retry_window_ms: 1,
            shard_cores: cores.list(),
        }),
        Request::Put(put) => {
            data.insert(put.write.key.to_vec(), put.value.to_vec());
            let outcome = WriteOutcome::Applied;
            Response::Put(Written { outcome, version, stamp_seen: 1, expiry_ms: 0, number: 0 })
        }
        Request::Get(_) if lie == Lie::NotFound => Response::Get(GetReply { value: None, stamp_seen: 1 }),
        Request::Get(get) => {
            let mut bytes = data.get(get.key).map_or(&[][..], |value| value);
            if lie == Lie::OtherValue {
                bytes = &bytes[1..];
            }
            Response::Get(GetReply { value: Some(Value { version, expiry_ms: 0, bytes }), stamp_seen: 1 })
        }
        other => panic!("{other:?}"),
    };
    response.encode(id, 0, out).unwrap();
}

fn plan(target: SocketAddr, work: Work, depth: usize) -> Plan {
    Plan {
        target,
        dialect: Dialect::Native,
        work,
        connections: 3,
        depth,
        keys: 300,
        key_bytes: 32,
        value_bytes: 512,
        seed: 1,
        prepare: true,
        warmup: Duration::from_millis(10),
        measure: Duration::from_millis(100),
        cpu: None,
        server_process: Some(std::process::id()),
    }
}

fn check(report: &Report, sizes: (usize, usize)) {
    assert_eq!(report.flaws.total(), 0, "{:?}", report.flaws);
    assert!(report.operations > 0 && report.ops_per_second > 0.0);
    assert!(report.latency.p50_us <= report.latency.p999_us);
    assert_eq!((report.frames.request_bytes, report.frames.response_bytes), sizes);
    assert!(report.server_cpu_percent.is_some());
}

#[test]
fn every_answer_of_an_honest_server_is_right() {
    let target = serve(Lie::Nothing);
    for depth in [1, 16] {
        check(&run(&plan(target, Work::Get, depth)).unwrap(), (72, 584));
        check(&run(&plan(target, Work::Put, depth)).unwrap(), (608, 80));
    }
}

#[test]
fn raw_frames_are_answered_by_their_number_of_bytes() {
    for (work, request_bytes, response_bytes) in [(Work::Get, 72, 584), (Work::Put, 608, 80)] {
        let target = listen(move |mut socket| {
            let (mut request, response) = (vec![0; request_bytes], vec![0; response_bytes]);
            loop {
                socket.read_exact(&mut request)?;
                socket.write_all(&response)?;
            }
        });
        let plan = Plan { dialect: Dialect::Raw, ..plan(target, work, 7) };
        check(&run(&plan).unwrap(), (request_bytes, response_bytes));
    }
}

#[test]
fn what_is_not_right_is_counted() {
    let lies = |lie| {
        let data = Data::default();
        let lying = data.clone();
        let target = listen(move |socket| speak(socket, &lying, lie));
        let plan = plan(target, Work::Get, 4);
        let records = Records::new(plan.keys, plan.key_bytes, plan.value_bytes).unwrap();
        (0..plan.keys).for_each(|number| {
            data.lock().unwrap().insert(records.key(number), records.value(number));
        });
        let script = Script::new(Work::Get, records, Durability::Sync).unwrap();
        let mut load = Load::connect(&plan, plan.depth, &script).unwrap();
        assert!(load.drive(&script, Order::Each { next: 0, count: plan.keys }, None).unwrap().is_none());
        let flaws = load.tally.flaws();
        // What was refused, once on each connection, is asked again: each record is answered once.
        assert_eq!(load.tally.refusals(), if lie == Lie::Overload { 3 } else { 0 });
        let right = load.tally.answered();
        assert_eq!(right + flaws.total(), plan.keys);
        (flaws.failed, flaws.missing, flaws.wrong, flaws.first.clone().unwrap_or_default())
    };
    // Once on each connection.
    assert_eq!(lies(Lie::Nothing), (0, 0, 0, String::new()));
    assert_eq!(lies(Lie::Overload), (0, 0, 0, String::new()));
    assert_eq!(lies(Lie::Failure), (3, 0, 0, "DAMAGED: not ever".to_owned()));
    assert!(matches!(lies(Lie::NotFound), (0, 3, 0, first) if first.ends_with("is missing")));
    assert!(matches!(lies(Lie::OtherValue), (0, 0, 3, first) if first.ends_with("of 511 bytes")));
}

#[test]
fn an_overloaded_server_gets_its_records_after_a_rest() {
    let target = serve(Lie::Overload);
    for depth in [1, 16] {
        let report = run(&plan(target, Work::Put, depth)).unwrap();
        check(&report, (608, 80));
        // Of each connection that wrote and read the records; the load's own may come in its warm-up.
        assert_eq!(report.refused_preparing, 3);
        assert!(report.refused <= 3);
    }
}

#[test]
fn a_server_that_breaks_the_protocol_ends_the_run() {
    let error = |lie| run(&plan(serve(lie), Work::Put, 1)).unwrap_err();
    assert!(matches!(error(Lie::Failure), Error::Refused(_)));
    assert!(matches!(error(Lie::OtherId), Error::Answer(_)));
    assert!(matches!(error(Lie::Garbage), Error::Protocol(_) | Error::Answer(_)));
    assert!(matches!(error(Lie::Close), Error::Io(_)));
}

#[test]
fn a_plan_that_cannot_be_is_refused() {
    let target = serve(Lie::Nothing);
    let plan = plan(target, Work::Get, 1);
    for wrong in [
        Plan { connections: 0, ..plan.clone() },
        Plan { depth: 0, ..plan.clone() },
        Plan { depth: 1025, ..plan.clone() },
        Plan { keys: 0, ..plan.clone() },
        Plan { value_bytes: 1, ..plan.clone() },
        Plan { measure: Duration::ZERO, ..plan.clone() },
    ] {
        assert!(matches!(run(&wrong), Err(Error::Usage(_))), "{wrong:?}");
    }
    assert!(matches!(run(&Plan { depth: 65, ..plan.clone() }), Err(Error::Refused(_))));
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(matches!(run(&Plan { target: nobody, ..plan }), Err(Error::Connect { .. })));
}
