//! Properties over generated messages and generated garbage: what is encoded comes back, what is
//! accepted is canonical, and no bytes whatsoever panic.

use std::num::NonZeroU64;

use pinion_protocol::{
    Batch, BatchOperation, Condition, Direction, Durability, ErrorCode, ErrorReply, FLAG_RESPONSE, Frames,
    GetReply, HEADER_BYTES, Header, Hello, HelloReply, KeyRequest, Keys, MultiGet, MultiGetReply,
    NamespaceInfo, NamespaceOptions, NamespaceState, Namespaces, Opcode, OperationResult, OperationResults,
    Operations, Outcome, Preface, ProposedStamp, ProtocolError, Put, Record, Records, Request, Response,
    Scan, ScanKind, ScanReply, ShardCores, Stat, StatReply, Ttl, Update, UpdateOperation, Value, ValueItem,
    Values, Version, Write, WriteOutcome, Written, encode_error, encode_value_head, encode_written,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::samples;

/// What messages are made of.
#[derive(Debug, Clone)]
struct Parts {
    numbers: [u64; 4],
    version: [u8; 16],
    keys: Vec<Vec<u8>>,
    value: Vec<u8>,
    text: String,
    name: String,
}

fn parts() -> impl Strategy<Value = Parts> {
    let number = prop_oneof![Just(0), Just(1), Just(u64::MAX), any::<u64>(), 0u64..1000];
    (
        [number.clone(), number.clone(), number.clone(), number],
        any::<[u8; 16]>(),
        vec(vec(any::<u8>(), 0..20), 1..6),
        vec(any::<u8>(), 0..200),
        "\\PC{0,16}",
        "[A-Za-z0-9_.-]{1,64}",
    )
        .prop_map(|(numbers, version, keys, value, text, name)| Parts {
            numbers,
            version,
            keys,
            value,
            text,
            name,
        })
}

impl Parts {
    /// Calls `visit` with one request of every kind.
    fn requests(&self, mut visit: impl FnMut(Request<'_>)) {
        let [a, b, c, d] = self.numbers;
        let key = self.keys[0].as_slice();
        let namespace = a as u32;
        let stamp = (b % 2 == 0)
            .then_some(ProposedStamp { time: c, origin: d as u32 | ProposedStamp::ORIGIN_CLIENT_BIT });
        let durability = if c.is_multiple_of(2) { Durability::Sync } else { Durability::Buffered };
        let ttl = match (d % 3, NonZeroU64::new(a)) {
            (0, Some(ttl_ms)) => Ttl::Millis(ttl_ms),
            (1, _) => Ttl::Never,
            _ => Ttl::NamespaceDefault,
        };
        let version = Version(self.version);
        let condition = match a % 3 {
            0 if !version.is_absent() => Condition::Version(version),
            1 => Condition::Absent,
            _ => Condition::Present,
        };
        let write = Write { namespace, key, durability, stamp };
        let put = Put { write, ttl, value: &self.value };
        let client_name = if self.text.len() <= 64 { self.text.as_str() } else { "" };

        let wanted_core = (b % 3 != 0).then_some((c % 0xFFFF) as u16);
        visit(Request::Hello(Hello { wanted_core, features: d, client_name }));
        visit(Request::Get(KeyRequest { namespace, key }));
        visit(Request::Stat(KeyRequest { namespace, key }));
        let borrowed: Vec<_> = self.keys.iter().map(Vec::as_slice).collect();
        let keys = samples::list::<Keys>(&borrowed);
        visit(Request::MultiGet(MultiGet { namespace, keys: keys.list() }));
        visit(Request::Put(put));
        visit(Request::Delete(write));
        visit(Request::PutIf(put, condition));
        visit(Request::DeleteIf(write, condition));
        for operation in [
            UpdateOperation::Add(b.cast_signed()),
            UpdateOperation::Append(&self.value),
            UpdateOperation::SetRange { offset: c as u32, bytes: &self.value },
            UpdateOperation::SetExpiry { ttl_ms: d },
        ] {
            visit(Request::Update(Update { write, operation }));
        }
        let mut operations: Vec<_> =
            borrowed.iter().map(|key| BatchOperation::Put { key, value: &self.value, ttl }).collect();
        operations.push(BatchOperation::Delete { key });
        let operations = samples::list::<Operations>(&operations);
        visit(Request::Batch(Batch { namespace, durability, stamp, operations: operations.list() }));
        let scan = Scan {
            namespace,
            kind: ScanKind::Placement,
            direction: if a.is_multiple_of(2) { Direction::Forward } else { Direction::Reverse },
            limit: b as u32,
            bytes_max: c as u32,
            keys_only: d % 2 == 1,
            start: b"",
            end: b"",
            prefix: b"",
            cursor: &self.value,
        };
        visit(Request::Scan(scan));
        visit(Request::Scan(Scan { start: key, ..scan }));
        let bounds = Scan { start: key, end: &self.value, prefix: &self.version, ..scan };
        visit(Request::Scan(Scan { kind: ScanKind::Tag(&self.version), ..bounds }));
        visit(Request::Scan(Scan { kind: ScanKind::Ordered { shard: (a % 0xFFFF) as u16 }, ..bounds }));
        let options = NamespaceOptions { name: &self.name, default_ttl_ms: c };
        visit(Request::NamespaceCreate(options));
        visit(Request::NamespaceSet(options));
        visit(Request::NamespaceList);
        visit(Request::NamespaceDrop(&self.name));
        visit(Request::ServerInfo { section: a as u8 });
        visit(Request::Ping(&self.value));
    }

    /// Calls `visit` with one response of every kind.
    fn responses(&self, mut visit: impl FnMut(Response<'_>)) {
        let [a, b, c, d] = self.numbers;
        let version = Version(self.version);
        let value = Value { version, expiry_ms: a, bytes: &self.value };
        let found = b.is_multiple_of(2);
        let written = Written {
            outcome: [WriteOutcome::Applied, WriteOutcome::Superseded, WriteOutcome::Missing]
                [(c % 3) as usize],
            version,
            stamp_seen: b,
            expiry_ms: a,
            number: d.cast_signed(),
        };

        let cores: Vec<u16> = self.version.iter().map(|byte| u16::from(*byte)).collect();
        let shard_cores = samples::list::<ShardCores>(&cores);
        visit(Response::Hello(HelloReply {
            version: a as u16,
            core: b as u16,
            cores: c as u16,
            partitions: d as u32,
            key_bytes_max: a as u32,
            features: b,
            node_id: self.version,
            incarnation: c,
            stamp: d,
            value_bytes_max: a as u32,
            batch_ops_max: b as u32,
            batch_bytes_max: c as u32,
            frame_bytes_max: d as u32,
            in_flight_max: a as u32,
            retry_window_ms: b as u32,
            shard_cores: shard_cores.list(),
        }));
        visit(Response::Get(GetReply { value: found.then_some(value), stamp_seen: d }));
        let stat = Stat { version, expiry_ms: a, value_bytes: c as u32 };
        visit(Response::Stat(StatReply { stat: found.then_some(stat), accesses: b, stamp_seen: d }));
        let values =
            samples::list::<Values>(&[ValueItem::NotRead, ValueItem::Found(value), ValueItem::Missing]);
        visit(Response::MultiGet(MultiGetReply { values: values.list(), stamp_seen: a }));
        for response in
            [Response::Put, Response::Delete, Response::PutIf, Response::DeleteIf, Response::Update]
        {
            visit(response(written));
        }
        let (code, outcome) =
            (ErrorCode::from_u16(a as u16), if found { Outcome::Unknown } else { Outcome::NotApplied });
        let results = samples::list::<OperationResults>(&[
            OperationResult::Applied(version),
            OperationResult::Failed { code, outcome, retry_after_ms: b as u32 },
            OperationResult::Superseded(version),
        ]);
        visit(Response::Batch(pinion_protocol::BatchReply { results: results.list(), stamp_seen: a }));
        let records: Vec<_> = self.keys.iter().map(|key| Record { key, value }).collect();
        let records = samples::list::<Records>(&records);
        visit(Response::Scan(ScanReply {
            done: found,
            stamp_seen: b,
            records: records.list(),
            cursor: &self.value,
        }));
        visit(Response::NamespaceCreate(a as u32));
        visit(Response::NamespaceDrop(b as u32));
        visit(Response::NamespaceSet(c as u32));
        let namespaces = samples::list::<Namespaces>(&[
            NamespaceInfo { id: a as u32, state: NamespaceState::Live, default_ttl_ms: b, name: &self.name },
            NamespaceInfo { id: c as u32, state: NamespaceState::Dropped, default_ttl_ms: d, name: "x" },
        ]);
        visit(Response::NamespaceList(namespaces.list()));
        visit(Response::ServerInfo(&self.text));
        visit(Response::Ping(&self.value));
        let error = ErrorReply {
            code,
            outcome,
            retry_after_ms: c as u32,
            version,
            stamp_seen: d,
            versions: (a as u16, b as u16),
            message: &self.text,
        };
        visit(Response::Error { opcode: d as u8, error });
    }
}

/// Feeds `stream` in chunks of the given sizes (repeated) and collects what comes out.
fn fed(
    stream: &[u8],
    sizes: &[usize],
    frame_bytes_max: u32,
) -> (Vec<(Header, Vec<u8>)>, Option<ProtocolError>) {
    let mut frames = Frames::new(frame_bytes_max);
    let mut found = Vec::new();
    let (mut rest, mut sizes) = (stream, sizes.iter().cycle());
    while !rest.is_empty() {
        let size = sizes.next().map_or(1, |size| *size).clamp(1, rest.len());
        let (mut chunk, later) = rest.split_at(size);
        rest = later;
        loop {
            match frames.next_frame(&mut chunk) {
                Ok(Some(frame)) => found.push((frame.header, frame.body.to_vec())),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(frames.next_frame(&mut chunk), Err(error.clone()), "failure stays");
                    return (found, Some(error));
                }
            }
        }
        assert!(chunk.is_empty(), "a chunk is used up before more is wanted");
        assert!(frames.waiting_bytes() <= stream.len());
    }
    (found, None)
}

/// Decodes a frame both ways; what is accepted must be what its encoding says.
fn decode_anything(header: &Header, body: &[u8]) {
    let plain = Header { frame_bytes: HEADER_BYTES as u32 + body.len() as u32, header_bytes: 32, ..*header };
    if let Ok(request) = Request::decode(header, body) {
        let mut again = Vec::new();
        request
            .encode(header.request_id, header.epoch, header.deadline_us, &mut again)
            .expect("what was decoded fits");
        assert_eq!(Header::read(&again), Ok(Some(plain)));
        assert_eq!(&again[HEADER_BYTES..], body, "an accepted request is canonical");
    }
    if let Ok(response) = Response::decode(header, body) {
        let mut again = Vec::new();
        match response.encode(header.request_id, header.epoch, &mut again) {
            Ok(()) => {
                let header = Header::read(&again).expect("valid").expect("whole");
                assert_eq!(Response::decode(&header, &again[HEADER_BYTES..]), Ok(response));
            }
            // Leniently accepted from a newer server, but nothing that we would send.
            Err(error) => assert!(matches!(error, ProtocolError::TooLarge { .. }), "{error}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_request_survives_its_frame(
        parts in parts(), request_id in any::<u64>(), epoch in any::<u64>(), deadline_us in any::<u32>(),
    ) {
        let mut out = b"before".to_vec();
        parts.requests(|request| {
            out.truncate(6);
            request.encode(request_id, epoch, deadline_us, &mut out).unwrap();
            let header = Header::read(&out[6..]).unwrap().unwrap();
            assert_eq!(header.frame_bytes as usize, out.len() - 6);
            assert_eq!(header.opcode, request.opcode().to_u8());
            assert_eq!((header.request_id, header.epoch, header.deadline_us), (request_id, epoch, deadline_us));
            let body = &out[6 + HEADER_BYTES..];
            assert_eq!(Request::decode(&header, body), Ok(request));
            for short in 0..body.len() {
                assert!(Request::decode(&header, &body[..short]).is_err());
            }
        });
    }

    #[test]
    fn every_response_survives_its_frame(parts in parts(), request_id in any::<u64>(), epoch in any::<u64>()) {
        let mut out = Vec::new();
        parts.responses(|response| {
            out.clear();
            response.encode(request_id, epoch, &mut out).unwrap();
            let header = Header::read(&out).unwrap().unwrap();
            assert_eq!(header.frame_bytes as usize, out.len());
            assert_eq!((header.opcode, header.deadline_us), (response.opcode(), 0));
            let body = &out[HEADER_BYTES..];
            assert_eq!(Response::decode(&header, body), Ok(response));
            for short in 0..body.len() {
                assert!(Response::decode(&header, &body[..short]).is_err());
            }
        });
    }

    #[test]
    fn frames_come_out_the_same_however_they_arrive(
        parts in parts(), sizes in vec(1usize..100, 1..8), grown in 0u16..40,
    ) {
        let (mut stream, mut expected) = (Vec::new(), Vec::new());
        parts.requests(|request| {
            let start = stream.len();
            request.encode(1, 2, 3, &mut stream).unwrap();
            // A later version's longer header is skipped.
            let header_bytes = HEADER_BYTES as u16 + grown;
            let at = start + HEADER_BYTES;
            stream.splice(at..at, std::iter::repeat_n(0xAA, usize::from(grown)));
            let frame_bytes = (stream.len() - start) as u32;
            stream[start..start + 4].copy_from_slice(&frame_bytes.to_le_bytes());
            stream[start + 4..start + 6].copy_from_slice(&header_bytes.to_le_bytes());
            expected.push(stream[at + usize::from(grown)..].to_vec());
        });
        for sizes in [&sizes[..], &[1], &[usize::MAX]] {
            let (found, error) = fed(&stream, sizes, 1 << 20);
            assert_eq!(error, None);
            let bodies: Vec<_> = found.into_iter().map(|(_, body)| body).collect();
            assert_eq!(bodies, expected);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..300), sizes in vec(1usize..64, 1..4)) {
        let whole = fed(&bytes, &[usize::MAX], 256);
        assert_eq!(fed(&bytes, &sizes, 256), whole);
        for (header, body) in whole.0 {
            decode_anything(&header, &body);
        }
        let _ = Preface::read(&bytes);
        for opcode in 0..=u8::MAX {
            for flags in 0..4 {
                let header = Header {
                    frame_bytes: 0, header_bytes: 32, opcode, flags, request_id: 0, epoch: 0, deadline_us: 0,
                };
                decode_anything(&header, &bytes);
            }
        }
    }

    #[test]
    fn mutated_messages_never_panic(
        parts in parts(), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let check = |frame: &[u8]| {
            let mut frame = frame.to_vec();
            for (index, byte) in &changes {
                let at = index.index(frame.len());
                frame[at] = *byte;
            }
            for (header, body) in fed(&frame, &[usize::MAX], 1 << 16).0 {
                decode_anything(&header, &body);
            }
        };
        let mut out = Vec::new();
        parts.requests(|request| {
            out.clear();
            request.encode(1, 2, 3, &mut out).unwrap();
            check(&out);
        });
        parts.responses(|response| {
            out.clear();
            response.encode(1, 2, &mut out).unwrap();
            check(&out);
        });
    }
}

#[test]
fn every_byte_of_every_sample_may_be_anything() {
    let try_all = |frame: &[u8]| {
        let mut frame = frame.to_vec();
        for at in 0..frame.len() {
            let was = frame[at];
            for byte in [0, 1, 2, 3, 0x7F, 0x80, 0xFE, 0xFF, was ^ 1, was.wrapping_add(1)] {
                frame[at] = byte;
                for (header, body) in fed(&frame, &[usize::MAX], 1 << 16).0 {
                    decode_anything(&header, &body);
                }
            }
            frame[at] = was;
        }
    };
    let mut out = Vec::new();
    samples::requests(|_, request| {
        out.clear();
        request.encode(1, 2, 3, &mut out).unwrap();
        try_all(&out);
    });
    samples::responses(|_, response| {
        out.clear();
        response.encode(1, 2, &mut out).unwrap();
        try_all(&out);
    });
}

#[test]
fn direct_encoders_write_what_responses_encode() {
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    samples::responses(|name, response| {
        direct.clear();
        through.clear();
        response.encode(5, 6, &mut through).unwrap();
        match response {
            Response::Put(written) => encode_written(Opcode::Put, &written, 5, 6, &mut direct),
            Response::Delete(written) => encode_written(Opcode::Delete, &written, 5, 6, &mut direct),
            Response::PutIf(written) => encode_written(Opcode::PutIf, &written, 5, 6, &mut direct),
            Response::DeleteIf(written) => encode_written(Opcode::DeleteIf, &written, 5, 6, &mut direct),
            Response::Update(written) => encode_written(Opcode::Update, &written, 5, 6, &mut direct),
            Response::Error { opcode, error } => encode_error(opcode, &error, 5, 6, &mut direct),
            Response::Get(GetReply { value: Some(value), stamp_seen }) => {
                let value_bytes = value.bytes.len() as u32;
                let stat = Stat { version: value.version, expiry_ms: value.expiry_ms, value_bytes };
                encode_value_head(&stat, stamp_seen, 5, 6, &mut direct).unwrap();
                direct.extend_from_slice(value.bytes);
            }
            _ => return,
        }
        assert_eq!(direct, through, "{name}");
    });
}

#[test]
fn strict_requests_and_lenient_responses() {
    let mut out = Vec::new();
    Request::Get(KeyRequest { namespace: 0, key: b"k" }).encode(1, 0, 0, &mut out).unwrap();
    let header = Header::read(&out).unwrap().unwrap();
    let mut body = out[HEADER_BYTES..].to_vec();
    body[6] = 1;
    let error = Request::decode(&header, &body).unwrap_err();
    assert_eq!((error.code(), error.is_fatal()), (ErrorCode::BadRequest, false));
    let unknown = Header { opcode: 18, ..header };
    assert_eq!(Request::decode(&unknown, &body), Err(ProtocolError::UnknownOpcode(18)));
    let response = Header { flags: FLAG_RESPONSE, ..header };
    assert!(Request::decode(&response, &body).is_err());
    let flagged = Header { flags: 8, ..header };
    assert_eq!(Request::decode(&flagged, &body).unwrap_err().code(), ErrorCode::Unsupported);

    out.clear();
    Response::Get(GetReply { value: None, stamp_seen: 1 }).encode(1, 0, &mut out).unwrap();
    let header = Header::read(&out).unwrap().unwrap();
    let mut body = out[HEADER_BYTES..].to_vec();
    body[1] = 1;
    assert!(Response::decode(&header, &body).is_ok());
}

#[test]
fn what_does_not_fit_is_refused_and_leaves_the_buffer() {
    let mut out = b"before".to_vec();
    let long = vec![0; 65_536];
    let text = "x".repeat(65);
    let refused = [
        Request::Get(KeyRequest { namespace: 0, key: &long }),
        Request::Ping(&[0; 65_537]),
        Request::NamespaceDrop(&text),
        Request::NamespaceDrop("with space"),
        Request::Hello(Hello { wanted_core: None, features: 0, client_name: &text }),
    ];
    for request in refused {
        assert!(request.encode(1, 0, 0, &mut out).is_err());
        assert_eq!(out, b"before");
    }
    let shard_cores = samples::list::<ShardCores>(&[0; 65_536]);
    samples::responses(|_, response| {
        if let Response::Hello(hello) = response {
            let hello = HelloReply { shard_cores: shard_cores.list(), ..hello };
            assert!(Response::Hello(hello).encode(1, 0, &mut out).is_err());
            assert_eq!(out, b"before");
        }
    });

    // A long message is cut between characters, never refused.
    out.clear();
    let message = "\u{e4}".repeat(1000);
    encode_error(4, &ErrorReply::new(ErrorCode::BadRequest, &message), 1, 0, &mut out);
    let header = Header::read(&out).unwrap().unwrap();
    match Response::decode(&header, &out[HEADER_BYTES..]).unwrap() {
        Response::Error { error, .. } => assert_eq!(error.message, "\u{e4}".repeat(512)),
        other => panic!("{other:?}"),
    }
}
