//! Valid messages of every kind, drawn so that sizes and numbers stand at their limits often.

use std::num::NonZeroU64;

use pinion_protocol::{
    Batch, BatchOperation, BatchReply, CLIENT_NAME_BYTES_MAX, CURSOR_BYTES_MAX, Condition, Direction,
    Durability, ERROR_MESSAGE_BYTES_MAX, ErrorCode, ErrorReply, GetReply, HEADER_BYTES, Header, Hello,
    HelloReply, KeyRequest, Keys, ListBuf, ListKind, MultiGet, MultiGetReply, NAMESPACE_NAME_BYTES_MAX,
    NamespaceInfo, NamespaceOptions, NamespaceState, Namespaces, OperationResult, OperationResults,
    Operations, Outcome, PING_BYTES_MAX, ProposedStamp, Put, Record, Records, Request, Response, Scan,
    ScanKind, ScanReply, ShardCores, Stat, StatReply, TraceParent, Ttl, Update, UpdateOperation, Value,
    ValueItem, Values, Version, Write, WriteOutcome, Written,
};

use crate::fuzz::mutate::number;
use crate::world::Random;

/// The node that seals the cursors of scans.
pub(super) const NODE: u64 = 0x0DE5_EA15;

/// Sets of messages that one seed works with.
const SETS: usize = 2;

/// The position in a sealed cursor: a key, and what a server puts before it.
const POSITION: &[u8] = b"\x01\x07\x00key";

/// What the messages of one set are made of.
struct Parts {
    numbers: [u64; 4],
    version: [u8; 16],
    keys: Vec<Vec<u8>>,
    value: Vec<u8>,
    text: String,
    name: String,
}

/// Some encoded messages of every kind; each was found to survive being encoded and decoded.
///
/// # Panics
/// When one does not.
pub(super) fn draw(random: &mut Random) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for _ in 0..SETS {
        let parts = Parts::draw(random);
        let (request_id, epoch, deadline_us) = (random.word(), number(random, 0), number(random, 0) as u32);
        parts.requests(|request| {
            let mut frame = Vec::new();
            request.encode(request_id, epoch, deadline_us, &mut frame).expect("a drawn request fits");
            let header = Header::read(&frame).expect("our own header").expect("is whole");
            assert_eq!(Request::decode(&header, &frame[HEADER_BYTES..]).as_ref(), Ok(request));
            frames.push(frame);
            if random.one_in(4) {
                let trace =
                    TraceParent { trace_id: parts.version, parent_id: [7; 8], flags: parts.version[0] };
                let (fields, mut traced) = ((request_id, epoch, deadline_us), Vec::new());
                request.encode_traced(fields, &trace, &mut traced).expect("a drawn request fits");
                frames.push(traced);
            }
        });
        parts.responses(|response| {
            let mut frame = Vec::new();
            response.encode(request_id, epoch, &mut frame).expect("a drawn answer fits");
            let header = Header::read(&frame).expect("our own header").expect("is whole");
            assert_eq!(Response::decode(&header, &frame[HEADER_BYTES..]).as_ref(), Ok(response));
            frames.push(frame);
        });
    }
    frames
}

/// A length: short ones, and each limit and its neighbours below.
fn length(random: &mut Random, max: usize) -> usize {
    let limit = [1, 16, 64, 255, 256, 4096, 65_535, 65_536][random.below(8) as usize];
    let length = match random.below(8) {
        0 => limit,
        1 => limit - 1,
        2 => random.below(300) as usize,
        _ => random.below(24) as usize,
    };
    length.min(max)
}

fn bytes(random: &mut Random, max: usize) -> Vec<u8> {
    let length = length(random, max);
    let fill = random.word();
    (0..length).map(|at| (fill >> (at % 8 * 8)) as u8 ^ at as u8).collect()
}

fn text(random: &mut Random, max: usize) -> String {
    let mut text = String::new();
    let wanted = length(random, max);
    loop {
        let next = ['a', '}', '\0', '\u{e4}', '\u{20ac}', '\u{1f600}'][random.below(6) as usize];
        if text.len() + next.len_utf8() > wanted {
            return text;
        }
        text.push(next);
    }
}

fn name(random: &mut Random) -> String {
    let length = length(random, NAMESPACE_NAME_BYTES_MAX).max(1);
    let allowed = b"abcXYZ019_.-";
    (0..length).map(|_| char::from(allowed[random.below(allowed.len() as u64) as usize])).collect()
}

fn list<K: ListKind>(items: &[K::Item<'_>]) -> ListBuf<K> {
    let mut list = ListBuf::new();
    for item in items {
        list.push(item).expect("drawn entries fit");
    }
    list
}

impl Parts {
    fn draw(random: &mut Random) -> Self {
        let version = if random.one_in(8) { 0 } else { u128::from(random.word()) << 32 | 1 };
        Self {
            numbers: [(); 4].map(|()| number(random, 0)),
            version: version.to_le_bytes(),
            keys: (0..1 + random.below(6)).map(|_| bytes(random, 65_535)).collect(),
            value: bytes(random, PING_BYTES_MAX),
            text: text(random, ERROR_MESSAGE_BYTES_MAX),
            name: name(random),
        }
    }

    fn durability(&self) -> Durability {
        if self.numbers[2].is_multiple_of(2) { Durability::Sync } else { Durability::Buffered }
    }

    fn ttl(&self) -> Ttl {
        let [a, .., d] = self.numbers;
        match (d % 3, NonZeroU64::new(a)) {
            (0, Some(ttl_ms)) => Ttl::Millis(ttl_ms),
            (1, _) => Ttl::Never,
            _ => Ttl::NamespaceDefault,
        }
    }

    fn write(&self) -> Write<'_> {
        let [a, b, c, d] = self.numbers;
        let origin = d as u32 | ProposedStamp::ORIGIN_CLIENT_BIT;
        let stamp = (b % 2 == 0).then_some(ProposedStamp { time: c, origin });
        Write { namespace: a as u32, key: &self.keys[0], durability: self.durability(), stamp }
    }

    fn requests(&self, mut visit: impl FnMut(&Request<'_>)) {
        let [a, b, c, d] = self.numbers;
        let write = self.write();
        let (namespace, key) = (write.namespace, write.key);
        let put = Put { write, ttl: self.ttl(), value: &self.value };
        let version = Version(self.version);
        let condition = match a % 3 {
            0 if !version.is_absent() => Condition::Version(version),
            1 => Condition::Absent,
            _ => Condition::Present,
        };
        let client_name = &self.text[..self.text.floor_char_boundary(CLIENT_NAME_BYTES_MAX)];
        let wanted_core = (b % 3 != 0).then_some((c % 0xFFFF) as u16);
        visit(&Request::Hello(Hello { wanted_core, features: d, client_name }));
        visit(&Request::Get(KeyRequest { namespace, key }));
        visit(&Request::Stat(KeyRequest { namespace, key }));
        let keys: Vec<_> = self.keys.iter().map(Vec::as_slice).collect();
        let list_of_keys = list::<Keys>(&keys);
        visit(&Request::MultiGet(MultiGet { namespace, keys: list_of_keys.list() }));
        visit(&Request::Put(put));
        visit(&Request::Delete(write));
        visit(&Request::PutIf(put, condition));
        visit(&Request::DeleteIf(write, condition));
        for operation in [
            UpdateOperation::Add(b.cast_signed()),
            UpdateOperation::Append(&self.value),
            UpdateOperation::SetRange { offset: c as u32, bytes: &self.value },
            UpdateOperation::SetExpiry { ttl_ms: d },
        ] {
            visit(&Request::Update(Update { write, operation }));
        }
        let short = &self.value[..self.value.len().min(100)];
        let mut operations: Vec<_> =
            keys.iter().map(|key| BatchOperation::Put { key, value: short, ttl: self.ttl() }).collect();
        operations.push(BatchOperation::Delete { key });
        let operations = list::<Operations>(&operations);
        visit(&Request::Batch(Batch {
            namespace,
            durability: write.durability,
            stamp: write.stamp,
            operations: operations.list(),
        }));
        self.scans(namespace, &mut visit);
        let options = NamespaceOptions { name: &self.name, default_ttl_ms: c };
        visit(&Request::NamespaceCreate(options));
        visit(&Request::NamespaceSet(options));
        visit(&Request::NamespaceList);
        visit(&Request::NamespaceDrop(&self.name));
        visit(&Request::ServerInfo { section: a as u8 });
        visit(&Request::Ping(&self.value));
    }

    /// One scan of each kind, with an empty, a sealed and an odd cursor.
    fn scans(&self, namespace: u32, visit: &mut impl FnMut(&Request<'_>)) {
        let [a, b, c, d] = self.numbers;
        let key = self.keys[0].as_slice();
        let placement = Scan {
            namespace,
            kind: ScanKind::Placement,
            direction: if a.is_multiple_of(2) { Direction::Forward } else { Direction::Reverse },
            limit: b as u32,
            bytes_max: c as u32,
            keys_only: d % 2 == 1,
            start: b"",
            end: b"",
            prefix: b"",
            cursor: b"",
        };
        let bounded = Scan { start: key, end: &self.version, prefix: b"k", ..placement };
        let kinds = [
            Scan { start: if c % 2 == 1 { key } else { b"" }, ..placement },
            Scan { kind: ScanKind::Tag(b"tag"), ..bounded },
            Scan { kind: ScanKind::Ordered { shard: (a % 0xFFFF) as u16 }, ..bounded },
        ];
        let odd = &self.value[..self.value.len().min(CURSOR_BYTES_MAX)];
        for scan in kinds {
            let mut sealed = Vec::new();
            scan.seal_cursor(NODE, POSITION, &mut sealed).expect("the position is short");
            for cursor in [b"", sealed.as_slice(), odd] {
                visit(&Request::Scan(Scan { cursor, ..scan }));
            }
        }
    }

    fn responses(&self, mut visit: impl FnMut(&Response<'_>)) {
        let [a, b, c, d] = self.numbers;
        let found = a % 2 == 0;
        let version = Version(self.version);
        let value = Value { version, expiry_ms: a, bytes: &self.value };
        let outcome =
            [WriteOutcome::Applied, WriteOutcome::Superseded, WriteOutcome::Missing][(c % 3) as usize];
        let written = Written { outcome, version, stamp_seen: b, expiry_ms: a, number: d.cast_signed() };
        for response in
            [Response::Put, Response::Delete, Response::PutIf, Response::DeleteIf, Response::Update]
        {
            visit(&response(written));
        }
        visit(&Response::Get(GetReply { value: found.then_some(value), stamp_seen: d }));
        let stat = Stat { version, expiry_ms: a, value_bytes: c as u32 };
        visit(&Response::Stat(StatReply { stat: found.then_some(stat), accesses: b, stamp_seen: d }));
        let values = list::<Values>(&[ValueItem::NotRead, ValueItem::Found(value), ValueItem::Missing]);
        visit(&Response::MultiGet(MultiGetReply { values: values.list(), stamp_seen: a }));
        let code = ErrorCode::from_u16(a as u16);
        let known = if found { Outcome::Unknown } else { Outcome::NotApplied };
        let results = list::<OperationResults>(&[
            OperationResult::Applied(version),
            OperationResult::Failed { code, outcome: known, retry_after_ms: b as u32 },
            OperationResult::Superseded(version),
        ]);
        visit(&Response::Batch(BatchReply { results: results.list(), stamp_seen: a }));
        let short = Value { bytes: &self.value[..self.value.len().min(100)], ..value };
        let records: Vec<_> = self.keys.iter().map(|key| Record { key, value: short }).collect();
        let records = list::<Records>(&records);
        let cursor = &self.value[..self.value.len().min(CURSOR_BYTES_MAX)];
        visit(&Response::Scan(ScanReply { done: found, stamp_seen: b, records: records.list(), cursor }));
        self.rare_responses(&mut visit);
        let error = ErrorReply {
            code,
            outcome: known,
            retry_after_ms: c as u32,
            version,
            stamp_seen: d,
            versions: (a as u16, b as u16),
            message: &self.text,
        };
        visit(&Response::Error { opcode: d as u8, error });
    }

    fn rare_responses(&self, visit: &mut impl FnMut(&Response<'_>)) {
        let [a, b, c, d] = self.numbers;
        let cores: Vec<u16> = self.version.iter().map(|byte| u16::from(*byte)).collect();
        let shard_cores = list::<ShardCores>(&cores);
        visit(&Response::Hello(HelloReply {
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
        visit(&Response::NamespaceCreate(a as u32));
        visit(&Response::NamespaceDrop(b as u32));
        visit(&Response::NamespaceSet(c as u32));
        let namespaces = list::<Namespaces>(&[
            NamespaceInfo { id: a as u32, state: NamespaceState::Live, default_ttl_ms: b, name: &self.name },
            NamespaceInfo { id: c as u32, state: NamespaceState::Dropped, default_ttl_ms: d, name: "x" },
        ]);
        visit(&Response::NamespaceList(namespaces.list()));
        visit(&Response::ServerInfo(&self.text));
        visit(&Response::Ping(&self.value));
    }
}
