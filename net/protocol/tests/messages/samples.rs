//! One fixed message of every kind, with every field set to something telling.

use std::num::NonZeroU64;

use pinion_protocol::{
    Batch, BatchOperation, BatchReply, Condition, Direction, Durability, ErrorCode, ErrorReply, GetReply,
    Hello, HelloReply, KeyRequest, Keys, ListBuf, ListKind, MultiGet, MultiGetReply, NamespaceInfo,
    NamespaceOptions, NamespaceState, Namespaces, OperationResult, OperationResults, Operations, Outcome,
    ProposedStamp, Put, Record, Records, Request, Response, Scan, ScanKind, ScanReply, ShardCores, Stat,
    StatReply, TraceParent, Ttl, Update, UpdateOperation, Value, ValueItem, Values, Version, Write,
    WriteOutcome, Written,
};

const STAMP_SEEN: u64 = 0x0190_0000_0000_0005;
const EXPIRY_MS: u64 = 1_718_000_060_000;
/// The trace of the sample request that has one.
pub(crate) const TRACE: TraceParent = TraceParent {
    trace_id: *b"\x4b\xf9\x2f\x35\x77\xb3\x4d\xa6\xa3\xce\x92\x9d\x0e\x0e\x47\x36",
    parent_id: *b"\x00\xf0\x67\xaa\x0b\xa9\x02\xb7",
    flags: 1,
};
const VERSION: Version = Version([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0, 0, 0]);

/// Calls `visit` with the name and the message of every sample request.
pub(crate) fn requests(mut visit: impl FnMut(&str, Request<'_>)) {
    let stamp = Some(ProposedStamp { time: 0x0190_0000_0000_0001, origin: 0x8000_0007 });
    let write = Write { namespace: 7, key: b"key", durability: Durability::Buffered, stamp };
    let plain = Write { namespace: 0, key: b"k", durability: Durability::Sync, stamp: None };
    let put = Put { write, ttl: Ttl::Millis(NonZeroU64::new(60_000).expect("not zero")), value: b"value" };
    let update = |operation| Request::Update(Update { write, operation });

    visit("hello", Request::Hello(Hello { wanted_core: None, features: 0, client_name: "golden" }));
    visit("hello_core", Request::Hello(Hello { wanted_core: Some(3), features: 5, client_name: "" }));
    visit("get", Request::Get(KeyRequest { namespace: 7, key: b"key" }));
    let keys = list::<Keys>(&[b"a", b"", b"\x00\xff{tag}"]);
    visit("multi_get", Request::MultiGet(MultiGet { namespace: 7, keys: keys.list() }));
    visit("put", Request::Put(put));
    visit("put_plain", Request::Put(Put { write: plain, ttl: Ttl::NamespaceDefault, value: b"" }));
    visit("put_never_expires", Request::Put(Put { write: plain, ttl: Ttl::Never, value: b"v" }));
    visit("delete", Request::Delete(write));
    visit("put_if_absent", Request::PutIf(put, Condition::Absent));
    visit("put_if_version", Request::PutIf(put, Condition::Version(VERSION)));
    visit("delete_if_present", Request::DeleteIf(write, Condition::Present));
    visit("update_add", update(UpdateOperation::Add(-2)));
    visit("update_append", update(UpdateOperation::Append(b"tail")));
    visit("update_set_range", update(UpdateOperation::SetRange { offset: 9, bytes: b"middle" }));
    visit("update_set_expiry", update(UpdateOperation::SetExpiry { ttl_ms: 1_000 }));
    let operations = list::<Operations>(&[
        BatchOperation::Put { key: b"{t}a", value: b"1", ttl: Ttl::NamespaceDefault },
        BatchOperation::Delete { key: b"{t}b" },
        BatchOperation::Put { key: b"{t}c", value: b"", ttl: Ttl::Never },
    ]);
    let batch = Batch { namespace: 7, durability: Durability::Sync, stamp, operations: operations.list() };
    visit("batch", Request::Batch(batch));
    let scan = Scan {
        namespace: 7,
        kind: ScanKind::Placement,
        direction: Direction::Forward,
        limit: 100,
        bytes_max: 65_536,
        keys_only: false,
        start: b"",
        end: b"",
        prefix: b"",
        cursor: b"",
    };
    visit("scan_placement", Request::Scan(scan));
    visit("scan_placement_from", Request::Scan(Scan { start: b"key", ..scan }));
    visit("scan_next_page", Request::Scan(Scan { cursor: b"opaque", keys_only: true, ..scan }));
    visit("scan_tag", Request::Scan(Scan { kind: ScanKind::Tag(b"t"), prefix: b"{t}", ..scan }));
    let ordered = Scan { start: b"a", end: b"zz", direction: Direction::Reverse, ..scan };
    visit("scan_ordered", Request::Scan(Scan { kind: ScanKind::Ordered { shard: 2 }, ..ordered }));
    visit("stat", Request::Stat(KeyRequest { namespace: 7, key: b"key" }));
    let options = NamespaceOptions { name: "sessions", default_ttl_ms: 3_600_000 };
    visit("namespace_create", Request::NamespaceCreate(options));
    visit("namespace_list", Request::NamespaceList);
    visit("namespace_drop", Request::NamespaceDrop("sessions"));
    visit("namespace_set", Request::NamespaceSet(NamespaceOptions { default_ttl_ms: 0, ..options }));
    visit("server_info", Request::ServerInfo { section: 1 });
    visit("ping", Request::Ping(b"ping"));
}

/// Calls `visit` with the name and the message of every sample response.
pub(crate) fn responses(mut visit: impl FnMut(&str, Response<'_>)) {
    let value = Value { version: VERSION, expiry_ms: EXPIRY_MS, bytes: b"value" };
    let written = Written {
        outcome: WriteOutcome::Applied,
        version: VERSION,
        stamp_seen: STAMP_SEEN,
        expiry_ms: EXPIRY_MS,
        number: 0,
    };

    let shard_cores = list::<ShardCores>(&[0, 1, 1]);
    let hello = HelloReply {
        version: 1,
        core: 1,
        cores: 2,
        partitions: 1024,
        key_bytes_max: 4096,
        features: 0,
        node_id: *b"0123456789abcdef",
        incarnation: 42,
        stamp: STAMP_SEEN,
        value_bytes_max: 1 << 20,
        batch_ops_max: 1000,
        batch_bytes_max: 4 << 20,
        frame_bytes_max: 20 << 20,
        in_flight_max: 256,
        retry_window_ms: 60_000,
        shard_cores: shard_cores.list(),
    };
    visit("hello", Response::Hello(hello));
    visit("get", Response::Get(GetReply { value: Some(value), stamp_seen: STAMP_SEEN }));
    visit("get_missing", Response::Get(GetReply { value: None, stamp_seen: STAMP_SEEN }));
    let values = list::<Values>(&[ValueItem::Found(value), ValueItem::Missing, ValueItem::NotRead]);
    let multi = MultiGetReply { values: values.list(), stamp_seen: STAMP_SEEN };
    visit("multi_get", Response::MultiGet(multi));
    visit("put", Response::Put(written));
    let superseded = Written { outcome: WriteOutcome::Superseded, expiry_ms: 0, ..written };
    visit("put_superseded", Response::Put(superseded));
    visit("delete", Response::Delete(Written { expiry_ms: 0, ..written }));
    visit("put_if", Response::PutIf(written));
    visit("delete_if", Response::DeleteIf(Written { expiry_ms: 0, ..written }));
    visit("update", Response::Update(Written { number: -2, ..written }));
    let missing = Written { outcome: WriteOutcome::Missing, version: Version::ABSENT, ..written };
    visit("update_missing", Response::Update(Written { expiry_ms: 0, ..missing }));
    let results = list::<OperationResults>(&[
        OperationResult::Applied(VERSION),
        OperationResult::Superseded(VERSION),
        OperationResult::Failed {
            code: ErrorCode::Overloaded,
            outcome: Outcome::NotApplied,
            retry_after_ms: 20,
        },
    ]);
    visit("batch", Response::Batch(BatchReply { results: results.list(), stamp_seen: STAMP_SEEN }));
    let records = list::<Records>(&[
        Record { key: b"key", value },
        Record { key: b"\x00\xff", value: Value { expiry_ms: 0, bytes: b"", ..value } },
    ]);
    let page = ScanReply { done: false, stamp_seen: STAMP_SEEN, records: records.list(), cursor: b"opaque" };
    visit("scan", Response::Scan(page));
    let last = ScanReply { done: true, records: pinion_protocol::List::EMPTY, cursor: b"", ..page };
    visit("scan_done", Response::Scan(last));
    let stat = Stat { version: VERSION, expiry_ms: EXPIRY_MS, value_bytes: 5 };
    visit("stat", Response::Stat(StatReply { stat: Some(stat), accesses: 640, stamp_seen: STAMP_SEEN }));
    visit("stat_missing", Response::Stat(StatReply { stat: None, accesses: 0, stamp_seen: STAMP_SEEN }));
    visit("namespace_create", Response::NamespaceCreate(3));
    let namespaces = list::<Namespaces>(&[
        NamespaceInfo { id: 0, state: NamespaceState::Live, default_ttl_ms: 0, name: "default" },
        NamespaceInfo { id: 3, state: NamespaceState::Dropped, default_ttl_ms: 3_600_000, name: "sessions" },
    ]);
    visit("namespace_list", Response::NamespaceList(namespaces.list()));
    visit("namespace_drop", Response::NamespaceDrop(3));
    visit("namespace_set", Response::NamespaceSet(3));
    visit("server_info", Response::ServerInfo(r#"{"cores":2}"#));
    visit("ping", Response::Ping(b"ping"));
    let error = ErrorReply::new(ErrorCode::Overloaded, "the queue is full");
    visit(
        "error_overloaded",
        Response::Error { opcode: 4, error: ErrorReply { retry_after_ms: 20, ..error } },
    );
    let error = ErrorReply::new(ErrorCode::ConditionFailed, "the version differs");
    let error = ErrorReply { version: VERSION, stamp_seen: STAMP_SEEN, ..error };
    visit("error_condition_failed", Response::Error { opcode: 6, error });
    let error = ErrorReply::new(ErrorCode::Unsupported, "versions 1 to 1");
    visit("error_versions", Response::Error { opcode: 1, error: ErrorReply { versions: (1, 1), ..error } });
    let error = ErrorReply::new(ErrorCode::StorageFailed, "the log's device failed");
    let error = ErrorReply { outcome: Outcome::Unknown, ..error };
    visit("error_unknown_outcome", Response::Error { opcode: 4, error });
}

/// The list of these entries.
pub(crate) fn list<K: ListKind>(items: &[K::Item<'_>]) -> ListBuf<K> {
    let mut list = ListBuf::new();
    for item in items {
        list.push(item).expect("the entries of samples fit their length fields");
    }
    list
}
