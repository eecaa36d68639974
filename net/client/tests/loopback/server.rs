//! A small server of two cores in this process: the protocol over real sockets, records in a map.
//!
//! It judges stamps as a server does, and can be told to misbehave: to refuse, or to carry a request
//! out and hang up before it answers.

use std::collections::BTreeMap;
use std::io::{Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use pinion_protocol::{
    BatchOperation, BatchReply, Condition, Direction, ErrorCode, ErrorReply, FRAME_BYTES_MAX_DEFAULT, Frames,
    GetReply, HelloReply, ListBuf, MultiGetReply, NamespaceInfo, NamespaceState, OperationResult,
    ProposedStamp, Record, Request, Response, Scan, ScanKind, ScanReply, ShardCores, Stat, StatReply,
    UpdateOperation, Value, ValueItem, Version, WriteOutcome, Written, placement,
};

pub(crate) const CORES: u16 = 2;
pub(crate) const PARTITIONS: u32 = 64;
pub(crate) const KEYS_PER_REPLY_MAX: usize = 3;

/// How the next data requests are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Refuse, not applied.
    Refuse(ErrorCode),
    /// Carry out, then close the connection without an answer.
    HangUp,
}

#[derive(Debug, Default)]
pub(crate) struct Store {
    records: BTreeMap<(u32, Vec<u8>), Stored>,
    namespaces: BTreeMap<String, u32>,
    clock: u64,
    /// Moods of the next data requests, last first.
    pub(crate) moods: Vec<Mood>,
    /// Requests seen, by core.
    pub(crate) seen: [u64; CORES as usize],
    /// Requests for a key that another core owns.
    pub(crate) misplaced: u64,
}

#[derive(Debug, Clone)]
struct Stored {
    stamp: ProposedStamp,
    expiry_ms: u64,
    /// `None` is a tombstone.
    value: Option<Vec<u8>>,
}

pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) store: Arc<Mutex<Store>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let store = Arc::new(Mutex::new(Store { clock: 1_000 << 16, ..Store::default() }));
        let shared = Arc::clone(&store);
        thread::spawn(move || {
            for socket in listener.incoming() {
                let store = Arc::clone(&shared);
                thread::spawn(move || serve(socket.unwrap(), &store));
            }
        });
        Self { address, store }
    }

    pub(crate) fn moods(&self, moods: &[Mood]) {
        self.store.lock().unwrap().moods = moods.iter().rev().copied().collect();
    }
}

fn serve(mut socket: TcpStream, store: &Mutex<Store>) {
    socket.set_nodelay(true).unwrap();
    let mut frames = Frames::new(FRAME_BYTES_MAX_DEFAULT);
    let mut buffer = vec![0; 1 << 16];
    let (mut preface, mut core) = (false, 0);
    loop {
        let Ok(count @ 1..) = socket.read(&mut buffer) else { return };
        let mut chunk = &buffer[..count];
        if !preface {
            preface = frames.next_preface(&mut chunk).unwrap().is_some();
        }
        let mut out = Vec::new();
        while let Some(frame) = frames.next_frame(&mut chunk).unwrap() {
            let request = Request::decode(&frame.header, frame.body).unwrap();
            let id = frame.header.request_id;
            let mut store = store.lock().unwrap();
            if let Request::Hello(hello) = request {
                core = hello.wanted_core.unwrap_or(1);
                welcome(&store, core, id, &mut out);
                continue;
            }
            store.seen[usize::from(core)] += 1;
            let mood = if is_data(&request) { store.moods.pop() } else { None };
            if let Some(Mood::Refuse(code)) = mood {
                let error = ErrorReply::new(code, "told to");
                Response::Error { opcode: frame.header.opcode, error }.encode(id, 0, &mut out).unwrap();
                continue;
            }
            store.answer(core, &request, id, &mut out);
            if mood == Some(Mood::HangUp) {
                return;
            }
        }
        if socket.write_all(&out).is_err() {
            return;
        }
    }
}

fn is_data(request: &Request<'_>) -> bool {
    !matches!(request, Request::Ping(_) | Request::NamespaceList | Request::ServerInfo { .. })
}

fn welcome(store: &Store, core: u16, id: u64, out: &mut Vec<u8>) {
    let mut shard_cores = ListBuf::<ShardCores>::new();
    (0..CORES).for_each(|shard| shard_cores.push(&shard).unwrap());
    let reply = HelloReply {
        version: 1,
        core,
        cores: CORES,
        partitions: PARTITIONS,
        key_bytes_max: 4096,
        features: 0,
        node_id: [1; 16],
        incarnation: 1,
        stamp: store.clock,
        value_bytes_max: 1 << 20,
        batch_ops_max: 1000,
        batch_bytes_max: 1 << 20,
        frame_bytes_max: 4 << 20,
        in_flight_max: 32,
        retry_window_ms: 60_000,
        shard_cores: shard_cores.list(),
    };
    Response::Hello(reply).encode(id, 0, out).unwrap();
}

pub(crate) fn core_of(key: &[u8]) -> u16 {
    let partition = placement::partition_of(key, PARTITIONS).unwrap();
    placement::shard_of(partition, CORES, PARTITIONS).unwrap()
}

fn version_of(stamp: ProposedStamp) -> Version {
    let mut version = [0; 16];
    version[..8].copy_from_slice(&stamp.time.to_le_bytes());
    version[8..12].copy_from_slice(&stamp.origin.to_le_bytes());
    Version(version)
}

impl Store {
    fn answer(&mut self, core: u16, request: &Request<'_>, id: u64, out: &mut Vec<u8>) {
        if let Request::Get(get) = request
            && core_of(get.key) != core
        {
            self.misplaced += 1;
        }
        match *request {
            Request::Get(get) => {
                let value = self.visible(get.namespace, get.key).map(as_value);
                Response::Get(GetReply { value, stamp_seen: self.clock }).encode(id, 0, out)
            }
            Request::MultiGet(request) => {
                let mut values = ListBuf::new();
                for (index, key) in request.keys.iter().enumerate() {
                    let item = match self.visible(request.namespace, key).map(as_value) {
                        _ if index >= KEYS_PER_REPLY_MAX => ValueItem::NotRead,
                        Some(value) => ValueItem::Found(value),
                        None => ValueItem::Missing,
                    };
                    values.push(&item).unwrap();
                }
                let reply = MultiGetReply { values: values.list(), stamp_seen: self.clock };
                Response::MultiGet(reply).encode(id, 0, out)
            }
            Request::Stat(request) => {
                let stat = self.visible(request.namespace, request.key).map(|stored| Stat {
                    version: version_of(stored.stamp),
                    expiry_ms: stored.expiry_ms,
                    value_bytes: stored.value.as_ref().unwrap().len() as u32,
                });
                Response::Stat(StatReply { stat, accesses: 0, stamp_seen: self.clock }).encode(id, 0, out)
            }
            Request::Put(put) => {
                let stamp = self.stamp(put.write.stamp);
                let expiry_ms = expiry(stamp, put.ttl.millis_or(0));
                let written =
                    self.apply(put.write.namespace, put.write.key, stamp, Some(put.value), expiry_ms);
                Response::Put(written).encode(id, 0, out)
            }
            Request::Delete(write) => {
                let stamp = self.stamp(write.stamp);
                Response::Delete(self.apply(write.namespace, write.key, stamp, None, 0)).encode(id, 0, out)
            }
            Request::PutIf(put, condition) => {
                let current =
                    self.visible(put.write.namespace, put.write.key).map(|stored| version_of(stored.stamp));
                if holds(condition, current) {
                    let stamp = self.stamp(None);
                    let written = self.apply(put.write.namespace, put.write.key, stamp, Some(put.value), 0);
                    Response::PutIf(written).encode(id, 0, out)
                } else {
                    let version = current.unwrap_or(Version::ABSENT);
                    let error = ErrorReply { version, ..ErrorReply::new(ErrorCode::ConditionFailed, "") };
                    Response::Error { opcode: request.opcode().to_u8(), error }.encode(id, 0, out)
                }
            }
            Request::DeleteIf(write, _) => {
                let stamp = self.stamp(None);
                Response::DeleteIf(self.apply(write.namespace, write.key, stamp, None, 0)).encode(id, 0, out)
            }
            Request::Update(update) => {
                let (namespace, key) = (update.write.namespace, update.write.key);
                let found = self.visible(namespace, key).cloned();
                let old = found.as_ref().and_then(|stored| stored.value.clone());
                let stamp = self.stamp(None);
                let (value, number, expiry_ms) = match update.operation {
                    UpdateOperation::Add(by) => {
                        let old =
                            old.map_or(0, |value| String::from_utf8(value).unwrap().parse::<i64>().unwrap());
                        ((old + by).to_string().into_bytes(), old + by, 0)
                    }
                    UpdateOperation::Append(bytes) => {
                        let value = [old.unwrap_or_default(), bytes.to_vec()].concat();
                        (value.clone(), value.len() as i64, 0)
                    }
                    UpdateOperation::SetRange { offset, bytes } => {
                        let mut value = old.unwrap_or_default();
                        let end = offset as usize + bytes.len();
                        value.resize(value.len().max(end), 0);
                        value[offset as usize..end].copy_from_slice(bytes);
                        let number = value.len() as i64;
                        (value, number, 0)
                    }
                    UpdateOperation::SetExpiry { ttl_ms } => match old {
                        Some(value) => (value, 0, expiry(stamp, ttl_ms)),
                        None => {
                            let missing = Written {
                                outcome: WriteOutcome::Missing,
                                version: Version::ABSENT,
                                stamp_seen: self.clock,
                                expiry_ms: 0,
                                number: 0,
                            };
                            Response::Update(missing).encode(id, 0, out).unwrap();
                            return;
                        }
                    },
                };
                let written = self.apply(namespace, key, stamp, Some(&value), expiry_ms);
                Response::Update(Written { number, ..written }).encode(id, 0, out)
            }
            Request::Batch(batch) => {
                let stamp = self.stamp(batch.stamp);
                let mut results = ListBuf::new();
                for operation in batch.operations.iter() {
                    let written = match operation {
                        BatchOperation::Put { key, value, ttl } => {
                            let expiry_ms = expiry(stamp, ttl.millis_or(0));
                            self.apply(batch.namespace, key, stamp, Some(value), expiry_ms)
                        }
                        BatchOperation::Delete { key } => self.apply(batch.namespace, key, stamp, None, 0),
                    };
                    let result = match written.outcome {
                        WriteOutcome::Superseded => OperationResult::Superseded(written.version),
                        _ => OperationResult::Applied(written.version),
                    };
                    results.push(&result).unwrap();
                }
                let reply = BatchReply { results: results.list(), stamp_seen: self.clock };
                Response::Batch(reply).encode(id, 0, out)
            }
            Request::Scan(scan) => {
                self.scan(&scan, id, out);
                Ok(())
            }
            Request::NamespaceCreate(options) => {
                let namespace = self.namespaces.len() as u32 + 1;
                self.namespaces.insert(options.name.to_owned(), namespace);
                Response::NamespaceCreate(namespace).encode(id, 0, out)
            }
            Request::NamespaceSet(_) => Response::NamespaceSet(1).encode(id, 0, out),
            Request::NamespaceDrop(name) => {
                let dropped = self.namespaces.remove(name).unwrap_or(0);
                Response::NamespaceDrop(dropped).encode(id, 0, out)
            }
            Request::NamespaceList => {
                let mut list = ListBuf::new();
                for (name, namespace) in &self.namespaces {
                    let state = NamespaceState::Live;
                    list.push(&NamespaceInfo { id: *namespace, state, default_ttl_ms: 0, name }).unwrap();
                }
                Response::NamespaceList(list.list()).encode(id, 0, out)
            }
            Request::ServerInfo { .. } => Response::ServerInfo("{}").encode(id, 0, out),
            Request::Ping(bytes) => Response::Ping(bytes).encode(id, 0, out),
            Request::Hello(_) => unreachable!("answered by the session"),
        }
        .unwrap();
    }

    fn visible(&self, namespace: u32, key: &[u8]) -> Option<&Stored> {
        self.records.get(&(namespace, key.to_vec())).filter(|stored| stored.value.is_some())
    }

    fn stamp(&mut self, proposed: Option<ProposedStamp>) -> ProposedStamp {
        self.clock += 1;
        proposed.unwrap_or(ProposedStamp { time: self.clock, origin: 1 })
    }

    /// The greater stamp wins.
    fn apply(
        &mut self,
        namespace: u32,
        key: &[u8],
        stamp: ProposedStamp,
        value: Option<&[u8]>,
        expiry_ms: u64,
    ) -> Written {
        self.clock = self.clock.max(stamp.time);
        let standing = self.records.get(&(namespace, key.to_vec())).map(|stored| stored.stamp);
        let superseded = standing.filter(|standing| *standing > stamp);
        if superseded.is_none() {
            let stored = Stored { stamp, expiry_ms, value: value.map(<[u8]>::to_vec) };
            self.records.insert((namespace, key.to_vec()), stored);
        }
        Written {
            outcome: if superseded.is_some() { WriteOutcome::Superseded } else { WriteOutcome::Applied },
            version: version_of(superseded.unwrap_or(stamp)),
            stamp_seen: self.clock,
            expiry_ms,
            number: 0,
        }
    }

    /// Pages of at most two records.
    fn scan(&self, scan: &Scan<'_>, id: u64, out: &mut Vec<u8>) {
        let reverse = scan.direction == Direction::Reverse;
        let place = |key: &[u8]| match scan.kind {
            ScanKind::Placement if !key.is_empty() => placement::partition_of(key, PARTITIONS).unwrap(),
            _ => 0,
        };
        let mut keys: Vec<_> = self
            .records
            .iter()
            .filter(|((namespace, key), stored)| {
                *namespace == scan.namespace
                    && stored.value.is_some()
                    && key.starts_with(scan.prefix)
                    && (place(key), key.as_slice()) >= (place(scan.start), scan.start)
                    && (scan.end.is_empty() || key.as_slice() < scan.end)
                    && match scan.kind {
                        ScanKind::Ordered { shard } => core_of(key) == shard,
                        ScanKind::Tag(tag) => placement::tag(key) == tag,
                        ScanKind::Placement => true,
                    }
            })
            .collect();
        keys.sort_by_key(|((_, key), _)| (place(key), key));
        if reverse {
            keys.reverse();
        }
        let from = match scan.open_cursor(0).unwrap() {
            Some(last) => keys.iter().position(|((_, key), _)| key == last).unwrap() + 1,
            None => 0,
        };
        let mut records = ListBuf::new();
        let page = &keys[from..(from + 2).min(keys.len())];
        for ((_, key), stored) in page {
            let value = as_value(stored);
            let value = if scan.keys_only { Value { bytes: &[], ..value } } else { value };
            records.push(&Record { key, value }).unwrap();
        }
        let done = from + page.len() == keys.len();
        let mut cursor = Vec::new();
        if let (false, Some(((_, key), _))) = (done, page.last()) {
            scan.seal_cursor(0, key, &mut cursor).unwrap();
        }
        let reply = ScanReply { done, stamp_seen: self.clock, records: records.list(), cursor: &cursor };
        Response::Scan(reply).encode(id, 0, out).unwrap();
    }
}

fn as_value(stored: &Stored) -> Value<'_> {
    let bytes = stored.value.as_deref().unwrap_or_default();
    Value { version: version_of(stored.stamp), expiry_ms: stored.expiry_ms, bytes }
}

fn expiry(stamp: ProposedStamp, ttl_ms: u64) -> u64 {
    if ttl_ms == 0 { 0 } else { (stamp.time >> 16) + ttl_ms }
}

fn holds(condition: Condition, current: Option<Version>) -> bool {
    match condition {
        Condition::Absent => current.is_none(),
        Condition::Present => current.is_some(),
        Condition::Version(version) => current == Some(version),
    }
}
