//! Golden frames: the bytes of every sample message, which may never change within version 1.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use pinion_protocol::{Extension, Frames, HEADER_BYTES, Header, KeyRequest, Request, Response};

use crate::samples;

const REQUEST_ID: u64 = 0x1122_3344_5566_7788;
const EPOCH: u64 = 9;
const DEADLINE_US: u32 = 250_000;
/// The request that is sent as part of a trace too.
const TRACED: Request<'_> = Request::Get(KeyRequest { namespace: 7, key: b"key" });

#[test]
fn messages_encode_to_their_golden_frames() {
    for (name, frame) in encoded() {
        let golden = std::fs::read_to_string(path(&name)).unwrap();
        assert_eq!(dump(&frame), golden, "{name}");
    }
    let files = std::fs::read_dir(path("x").parent().unwrap()).unwrap();
    assert_eq!(files.count(), encoded().len(), "a golden frame without its message");
}

#[test]
fn golden_frames_decode_to_their_messages() {
    samples::requests(|name, request| {
        let frame = golden(&format!("{name}.request"));
        let (header, body) = split(&frame);
        assert_eq!((header.request_id, header.epoch, header.deadline_us), (REQUEST_ID, EPOCH, DEADLINE_US));
        assert!(!header.is_response());
        assert_eq!(Request::decode(&header, body), Ok(request), "{name}");
    });
    samples::responses(|name, response| {
        let frame = golden(&format!("{name}.response"));
        let (header, body) = split(&frame);
        assert_eq!((header.request_id, header.epoch, header.deadline_us), (REQUEST_ID, EPOCH, 0));
        assert_eq!(header.is_error(), matches!(response, Response::Error { .. }));
        assert_eq!(Response::decode(&header, body), Ok(response), "{name}");
    });
}

#[test]
fn the_dumps_of_the_documentation_are_golden_frames() {
    let text = include_str!("../../PROTOCOL.md");
    let mut dumps = 0;
    for block in text.split("```hex ").skip(1) {
        let (block, _) = block.split_once("```").unwrap();
        let (name, lines) = block.split_once('\n').unwrap();
        let mut frame = Vec::new();
        for line in lines.lines() {
            let (offset, rest) = line.split_once("  ").unwrap();
            assert_eq!(usize::from_str_radix(offset, 16), Ok(frame.len()), "{name}: {line}");
            let (bytes, _) = rest.split_once("  ").unwrap();
            frame.extend(bytes.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()));
        }
        assert_eq!(frame, golden(name), "{name}");
        dumps += 1;
    }
    assert_eq!(dumps, 7);
}

#[test]
fn a_request_of_a_trace_is_the_same_request() {
    let (plain, traced) = (golden("get.request"), golden("get_traced.request"));
    let mut frames = Frames::new(1_000);
    let mut rest = traced.as_slice();
    let frame = frames.next_frame(&mut rest).unwrap().unwrap();
    assert_eq!((frame.body, frame.header.is_extended()), (&plain[HEADER_BYTES..], true));
    assert_eq!(Extension::read(frame.extension), Ok(Extension { trace: Some(samples::TRACE) }));
    assert_eq!(Request::decode(&frame.header, frame.body), Ok(TRACED));
    // The short way for GETs leaves it to the long one.
    assert_eq!(KeyRequest::decode_get(&frame.header, frame.body), None);
    let mut rest = plain.as_slice();
    let frame = frames.next_in_place(&mut rest).unwrap();
    assert_eq!((frame.extension, frame.header.is_extended()), (&[][..], false));
    assert!(KeyRequest::decode_get(&frame.header, frame.body).is_some());
}

#[test]
#[ignore = "writes golden/: run it only after a deliberate change of the format"]
fn write_golden_frames() {
    for (name, frame) in encoded() {
        std::fs::write(path(&name), dump(&frame)).unwrap();
    }
}

/// Every sample's frame by the name of its file.
fn encoded() -> BTreeMap<String, Vec<u8>> {
    let mut frames = BTreeMap::new();
    samples::requests(|name, request| {
        let mut frame = Vec::new();
        request.encode(REQUEST_ID, EPOCH, DEADLINE_US, &mut frame).expect("samples fit");
        assert!(frames.insert(format!("{name}.request"), frame).is_none(), "{name} twice");
    });
    let (mut traced, fields) = (Vec::new(), (REQUEST_ID, EPOCH, DEADLINE_US));
    TRACED.encode_traced(fields, &samples::TRACE, &mut traced).expect("it fits");
    frames.insert("get_traced.request".to_owned(), traced);
    samples::responses(|name, response| {
        let mut frame = Vec::new();
        response.encode(REQUEST_ID, EPOCH, &mut frame).expect("samples fit");
        assert!(frames.insert(format!("{name}.response"), frame).is_none(), "{name} twice");
    });
    frames
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.hex"))
}

/// Sixteen bytes a line.
fn dump(frame: &[u8]) -> String {
    let mut text = String::new();
    for line in frame.chunks(16) {
        let bytes: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{}", bytes.join(" ")).expect("a string takes everything");
    }
    text
}

fn golden(name: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(path(name)).expect("the golden file exists");
    text.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).expect("golden files are hexadecimal"))
        .collect()
}

fn split(frame: &[u8]) -> (Header, &[u8]) {
    let header = Header::read(frame).expect("a valid header").expect("a whole header");
    assert_eq!(header.frame_bytes as usize, frame.len());
    (header, &frame[usize::from(header.header_bytes)..])
}
