//! Connections: order, bounds, deadlines and how they end.

use std::time::Duration;

use pinion_protocol::{ErrorReply, Extension, GetReply, Opcode, Response, TraceParent, Value, WriteOutcome};

use super::*;
use crate::core::call::Call;
use crate::core::operation::Try;
use crate::error::{Error, Outcome};

fn found(bytes: &'static [u8]) -> Response<'static> {
    let value = Value { version: Version([2; 16]), expiry_ms: 0, bytes };
    Response::Get(GetReply { value: Some(value), stamp_seen: 3 })
}

fn value(result: Result<Reply>) -> Bytes {
    result.unwrap().entry().unwrap().unwrap().value
}

#[test]
fn nothing_follows_hello_until_it_is_answered() {
    let mut pair = Pair::new();
    pair.submit("early", get("k"));
    let seen = pair.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].opcode, Opcode::Hello.to_u8());
    pair.greet(10);
    let welcome = pair.connection.take_welcome().unwrap();
    assert_eq!((welcome.core, welcome.stamp), (1, 1_000 << 16));
    assert_eq!(pair.seen()[0].opcode, Opcode::Get.to_u8());
}

#[test]
fn answers_are_matched_by_request_id_in_any_order() {
    let mut pair = Pair::greeted(10);
    pair.submit("first", get("a"));
    pair.submit("second", get("b"));
    let seen = pair.seen();
    pair.answer(seen[1].request_id, &found(b"B"));
    pair.answer(seen[0].request_id, &found(b"A"));
    let finished = pair.finished();
    assert_eq!((finished[0].0, finished[1].0), ("second", "first"));
    let values: Vec<_> = finished.into_iter().map(|(_, result)| value(result)).collect();
    assert_eq!(values, [&b"B"[..], b"A"]);
    assert!(pair.connection.is_idle());
    assert_eq!(pair.connection.take_stamp_seen(), 3);
}

#[test]
fn every_try_of_a_traced_call_names_its_trace() {
    let trace = TraceParent { trace_id: [3; 16], parent_id: [4; 8], flags: 1 };
    let mut pair = Pair::greeted(10);
    let mut session = session(pair.now, 4);
    let mut call = Call::new(put("k"), pair.now + Duration::from_secs(1), 2).traced(Some(trace));
    for _ in 0..2 {
        let attempt = call.attempt(&mut session, pair.now);
        pair.connection.submit(pair.now, "traced", attempt, pair.now + Duration::from_secs(1));
    }
    pair.connection.submit(pair.now, "plain", Try::from(put("k")), pair.now + Duration::from_secs(1));
    let mut output = pair.connection.output();
    let mut traces = Vec::new();
    while let Some(frame) = pair.frames.next_frame(&mut output).unwrap() {
        assert!(matches!(Request::decode(&frame.header, frame.body), Ok(Request::Put(_))));
        traces.push(Extension::read(frame.extension).unwrap().trace);
    }
    assert_eq!(traces, [Some(trace), Some(trace), None]);
}

#[test]
fn an_error_to_no_request_says_why_the_server_closes() {
    let mut pair = Pair::greeted(1);
    pair.submit("sent", get("a"));
    pair.submit("waiting", get("b"));
    assert_eq!(pair.seen().len(), 1);
    let error = ErrorReply::new(ErrorCode::Overloaded, "too much");
    pair.answer(0, &Response::Error { opcode: 0, error });
    for (name, result) in pair.finished() {
        let error = result.unwrap_err();
        assert!(error.is_retryable(), "{name}: {error:?}");
        assert!(error.to_string().contains("too much"), "{name}: {error}");
    }
}

#[test]
fn an_answer_may_come_in_pieces() {
    let mut pair = Pair::greeted(10);
    pair.submit("get", get("a"));
    let id = pair.seen()[0].request_id;
    let mut bytes = Vec::new();
    found(b"value").encode(id, 0, &mut bytes).unwrap();
    for byte in bytes {
        assert!(pair.finished().is_empty());
        pair.connection.receive(pair.now, &[byte]);
    }
    assert_eq!(value(pair.one_finished().1), &b"value"[..]);
}

#[test]
fn requests_in_flight_and_waiting_are_bounded() {
    let mut pair = Pair::greeted(2);
    for ticket in ["a", "b", "c", "d", "e", "f"] {
        pair.submit(ticket, get("k"));
    }
    let seen = pair.seen();
    assert_eq!(seen.len(), 2, "two on the wire, four waiting");
    assert!(!pair.connection.has_room());
    pair.submit("g", get("k"));
    let (ticket, result) = pair.one_finished();
    assert!(ticket == "g" && matches!(result, Err(Error::Busy)));
    pair.answer(seen[0].request_id, &found(b"x"));
    assert_eq!(pair.seen().len(), 1);
    assert!(pair.connection.has_room());
}

#[test]
fn a_deadline_leaves_a_sent_write_unknown_and_a_waiting_one_not_applied() {
    let mut pair = Pair::greeted(2);
    pair.submit("write", put("k"));
    pair.submit("read", get("k"));
    pair.submit("waiting", put("k"));
    let seen = pair.seen();
    assert!(seen[0].deadline_us < 1_000_000, "the server gives up before the client does");
    assert!(seen[0].deadline_us > 900_000);
    assert_eq!(pair.connection.timeout(), Some(pair.now + Duration::from_secs(1)));
    pair.pass(Duration::from_secs(1));
    let outcomes: Vec<_> =
        pair.finished().into_iter().map(|(ticket, result)| (ticket, result.unwrap_err().outcome())).collect();
    let expected =
        [("write", Outcome::Unknown), ("read", Outcome::NotApplied), ("waiting", Outcome::NotApplied)];
    assert_eq!(outcomes, expected);

    // The server still owes both answers: their places stay taken, and late answers are dropped.
    pair.submit("next", get("k"));
    assert!(pair.seen().is_empty());
    pair.answer(seen[0].request_id, &Response::Put(applied(WriteOutcome::Applied)));
    assert!(pair.finished().is_empty());
    assert_eq!(pair.seen().len(), 1);
    assert!(pair.connection.failure().is_none());
}

#[test]
fn a_lost_connection_ends_every_request_with_its_outcome() {
    let mut pair = Pair::greeted(2);
    pair.submit("write", put("k"));
    pair.submit("read", get("k"));
    pair.submit("waiting", put("k"));
    pair.seen();
    pair.connection.lost("reset".into());
    let outcomes: Vec<_> =
        pair.finished().into_iter().map(|(ticket, result)| (ticket, result.unwrap_err().outcome())).collect();
    let expected =
        [("write", Outcome::Unknown), ("read", Outcome::NotApplied), ("waiting", Outcome::NotApplied)];
    assert_eq!(outcomes, expected);
    pair.submit("after", put("k"));
    assert_eq!(pair.one_finished().1.unwrap_err().outcome(), Outcome::NotApplied);
    assert_eq!(pair.connection.timeout(), None);
}

#[test]
fn a_silent_server_is_taken_for_dead_only_while_it_owes_something() {
    let mut pair = Pair::greeted(2);
    pair.pass(Duration::from_secs(3600));
    assert!(pair.connection.failure().is_none());
    let until = pair.now + Duration::from_secs(3600);
    pair.connection.submit(pair.now, "get", get("k"), until);
    let silence = pair.connection.timeout().unwrap() - pair.now;
    assert!(silence < Duration::from_secs(60));
    pair.pass(silence);
    assert!(matches!(pair.one_finished().1, Err(Error::Disconnected { .. })));
    assert!(pair.connection.failure().is_some());
}

#[test]
fn hello_may_be_refused_or_never_answered() {
    let mut pair = Pair::new();
    pair.submit("get", get("k"));
    pair.seen();
    let error = ErrorReply::new(ErrorCode::TooManyConnections, "full");
    pair.answer(0, &Response::Error { opcode: Opcode::Hello.to_u8(), error });
    let refused = pair.one_finished().1.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::TooManyConnections));
    assert!(refused.is_retryable());

    let mut pair = Pair::new();
    pair.submit("get", get("k"));
    pair.pass(Duration::from_secs(1));
    assert!(pair.connection.failure().is_some());
    assert!(pair.one_finished().1.is_err());
}

#[test]
fn a_server_that_breaks_the_protocol_loses_the_connection() {
    let mut pair = Pair::greeted(2);
    pair.submit("write", put("k"));
    pair.submit("read", get("k"));
    let seen = pair.seen();
    let mut bytes = Vec::new();
    Response::Put(applied(WriteOutcome::Applied)).encode(seen[0].request_id, 0, &mut bytes).unwrap();
    bytes.pop();
    let shorter = bytes.len() as u32;
    bytes[..4].copy_from_slice(&shorter.to_le_bytes());
    pair.connection.receive(pair.now, &bytes);
    let finished = pair.finished();
    let outcomes: Vec<_> = finished.into_iter().map(|(_, result)| result.unwrap_err().outcome()).collect();
    assert_eq!(outcomes, [Outcome::Applied, Outcome::NotApplied]);
    assert!(matches!(pair.connection.failure(), Some(Error::Protocol { .. })));

    let mut pair = Pair::greeted(2);
    pair.answer(77, &found(b"x"));
    assert!(pair.connection.failure().is_some(), "an answer that nobody asked for");

    let mut pair = Pair::greeted(2);
    pair.connection.receive(pair.now, b"HTTP/1.1 400 Bad Request\r\n\r\n and then some more");
    assert!(pair.connection.failure().is_some());
}

#[test]
fn a_request_that_cannot_be_a_frame_is_refused_alone() {
    let mut pair = Pair::greeted(2);
    let write = Write::new(b"k", Durability::Sync);
    let big = Operation::Put { write, value: Bytes::from(vec![0; 3 << 20]), ttl: Ttl::Default };
    pair.submit("big", big);
    assert!(matches!(pair.one_finished().1, Err(Error::Invalid(_))));
    pair.submit("get", get("k"));
    assert_eq!(pair.seen().len(), 1);
}
