//! The blocking client: the same calls for programs without an asynchronous runtime.
//!
//! ```
//! # fn main() -> Result<(), pinion_client::Error> {
//! # let rig = pinion_tests::process::Rig::with_shards(1);
//! # let server = rig.start();
//! # let address = server.address();
//! use pinion_client::blocking::Client;
//!
//! let client = Client::connect(address)?; // "127.0.0.1:7600"
//! client.put("greeting", "hello")?;
//! assert_eq!(client.get("greeting")?.as_deref(), Some(&b"hello"[..]));
//! # Ok(())
//! # }
//! ```

mod line;
mod scan;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use self::scan::Scan;

use self::line::Line;
use crate::batch::{BatchResults, WriteBatch};
use crate::builder::{Builder, Config, NamespaceCell, Shared};
use crate::core::call::{Call, Step};
use crate::core::fanout::{BatchParts, ManyReads, ReadPart};
use crate::core::operation::{Operation, Reply, Route, Try, Update, Write};
use crate::error::{Error, Outcome, Result};
use crate::record::{Entry, Namespace, PutOptions, Stat, Written};
use crate::scan::ScanRange;
use crate::ttl::{Ttl, millis};
use crate::{Condition, Durability, ErrorCode, Section, TraceParent, Version};

/// A connection to a server that blocks the calling thread. Cheap to clone and free to share
/// between threads; all share one pipelined connection per core of the server.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
    namespace: Arc<NamespaceCell>,
    trace: Option<TraceParent>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    /// The line of each core, by core; at most as many as HELLO named.
    lines: RwLock<Vec<Option<Arc<Line>>>>,
}

impl Client {
    /// Sets up a client; finish with [`Builder::build_blocking`].
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Connects to `address` (`HOST:PORT`) with default settings.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn connect(address: impl Into<String>) -> Result<Self> {
        Self::builder().connect(address).build_blocking()
    }

    pub(crate) fn open(config: Config) -> Result<Self> {
        let namespace = NamespaceCell::new(config.namespace.clone());
        let shared = Shared::new(config)?;
        let first = Arc::new(Line::new(Arc::clone(&shared), None));
        let deadline = Instant::now() + shared.config.connect_timeout;
        first.wait(&first.send(Operation::ping(Route::Any), deadline)?)?;
        let home = usize::from(shared.session().home);
        let mut lines = vec![None; home];
        lines.push(Some(first));
        Ok(Self { inner: Arc::new(Inner { shared, lines: RwLock::new(lines) }), namespace, trace: None })
    }

    /// The same client for the keys of another namespace; shares its connections.
    pub fn with_namespace(&self, name: impl Into<String>) -> Self {
        Self { namespace: NamespaceCell::new(name.into()), ..self.clone() }
    }

    /// The same client, whose calls belong to a trace: the server's log of slow operations names it. Shares
    /// its connections.
    pub fn with_trace(&self, trace: TraceParent) -> Self {
        Self { trace: Some(trace), ..self.clone() }
    }

    /// The value of a key; `None` if there is none.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        Ok(self.get_entry(key)?.map(|entry| entry.value))
    }

    /// The value of a key and its version, for a conditional write.
    pub fn get_with_version(&self, key: impl AsRef<[u8]>) -> Result<Option<(Bytes, Version)>> {
        Ok(self.get_entry(key)?.map(|entry| (entry.value, entry.version)))
    }

    /// The value of a key with its version and expiry.
    pub fn get_entry(&self, key: impl AsRef<[u8]>) -> Result<Option<Entry>> {
        let key = Bytes::copy_from_slice(key.as_ref());
        self.on_namespace(Operation::Get { namespace: 0, key })?.entry()
    }

    /// The values of many keys, in their order. Not one moment: each is read on its own.
    ///
    /// # Errors
    /// The first error of any part.
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<Entry>>> {
        let keys = keys.into_iter().map(|key| Bytes::copy_from_slice(key.as_ref())).collect();
        let mut reads = ManyReads::new(keys, &self.inner.shared.map()?.limits)?;
        loop {
            let parts = reads.parts(&*self.inner.shared.map()?);
            if parts.is_empty() {
                return Ok(reads.finish());
            }
            let (positions, operations): (Vec<_>, Vec<_>) = parts.into_iter().map(ReadPart::split).unzip();
            for (positions, reply) in positions.iter().zip(self.all_on_namespace(operations)?) {
                reads.received(positions, reply?)?;
            }
        }
    }

    /// Version, expiry and length of a value, without reading it.
    pub fn stat(&self, key: impl AsRef<[u8]>) -> Result<Option<Stat>> {
        let key = Bytes::copy_from_slice(key.as_ref());
        self.on_namespace(Operation::Stat { namespace: 0, key })?.stat()
    }

    /// Sets a value. Acknowledged when it is on the server's disk.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<Written> {
        self.put_with(key, value, PutOptions::default())
    }

    /// Sets a value with a TTL or another durability.
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        options: PutOptions,
    ) -> Result<Written> {
        let write = Write::new(key.as_ref(), options.durability);
        self.on_namespace(Operation::Put { write, value: value.into(), ttl: options.ttl })?.written()
    }

    /// Sets a value if the condition holds.
    ///
    /// # Errors
    /// [`Error::ConditionFailed`] with the version that was found.
    pub fn put_if(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        condition: Condition,
    ) -> Result<Written> {
        self.put_if_with(key, value, condition, PutOptions::default())
    }

    /// [`Client::put_if`] with a TTL or another durability.
    ///
    /// # Errors
    /// As [`Client::put_if`].
    pub fn put_if_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        condition: Condition,
        options: PutOptions,
    ) -> Result<Written> {
        let write = Write::new(key.as_ref(), options.durability);
        let operation = Operation::PutIf { write, value: value.into(), ttl: options.ttl, condition };
        self.on_namespace(operation)?.written()
    }

    /// Removes a key. Succeeds whether it was there or not.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<Written> {
        self.delete_with(key, Durability::Sync)
    }

    /// [`Client::delete`] with another durability.
    pub fn delete_with(&self, key: impl AsRef<[u8]>, durability: Durability) -> Result<Written> {
        let write = Write::new(key.as_ref(), durability);
        self.on_namespace(Operation::Delete { write })?.written()
    }

    /// Removes a key if the condition holds.
    ///
    /// # Errors
    /// [`Error::ConditionFailed`] with the version that was found.
    pub fn delete_if(&self, key: impl AsRef<[u8]>, condition: Condition) -> Result<Written> {
        let write = Write::new(key.as_ref(), Durability::Sync);
        self.on_namespace(Operation::DeleteIf { write, condition })?.written()
    }

    /// Adds to a number (decimal text, 64 bits, absent = 0) and returns the sum.
    ///
    /// # Errors
    /// [`ErrorCode::BadRequest`] if the value is no number or the sum does not fit.
    pub fn increment(&self, key: impl AsRef<[u8]>, by: i64) -> Result<i64> {
        self.update(key, Update::Add(by))?.number()
    }

    /// Appends to a value (absent = empty) and returns its new length in bytes.
    pub fn append(&self, key: impl AsRef<[u8]>, bytes: impl Into<Bytes>) -> Result<u64> {
        self.update(key, Update::Append(bytes.into()))?.length()
    }

    /// Overwrites part of a value (absent = empty), padding with zeros up to `offset`, and returns
    /// its new length in bytes.
    pub fn set_range(&self, key: impl AsRef<[u8]>, offset: u32, bytes: impl Into<Bytes>) -> Result<u64> {
        self.update(key, Update::SetRange { offset, bytes: bytes.into() })?.length()
    }

    /// Lets an existing value live this much longer from now; `None` if the key is absent.
    pub fn touch(&self, key: impl AsRef<[u8]>, ttl: Duration) -> Result<Option<Written>> {
        let ttl_ms = Ttl::After(ttl).millis().unwrap_or(0);
        self.update(key, Update::SetExpiry { ttl_ms })?.touched()
    }

    /// Removes the expiry of an existing value; `None` if the key is absent.
    pub fn persist(&self, key: impl AsRef<[u8]>) -> Result<Option<Written>> {
        self.update(key, Update::SetExpiry { ttl_ms: 0 })?.touched()
    }

    /// Carries out a batch; see [`WriteBatch`] for what is atomic.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the batch breaks a limit; then nothing was sent. Anything that happens
    /// to single operations stands in the results.
    pub fn batch(&self, batch: WriteBatch) -> Result<BatchResults> {
        let map = self.inner.shared.map()?;
        let stamp = self.inner.shared.session().clock.issue(Instant::now());
        let parts = BatchParts::new(batch, stamp, &map)?;
        let count = parts.count();
        let (positions, operations): (Vec<_>, Vec<_>) = parts.parts.into_iter().unzip();
        let answers = self.all_on_namespace(operations)?;
        Ok(BatchParts::merge(count, positions.into_iter().zip(answers).collect()))
    }

    /// Yields the records of a range; see [`ScanRange`] for the kinds and their order.
    pub fn scan(&self, range: ScanRange) -> Scan {
        Scan::new(self.clone(), range)
    }

    /// Creates a namespace. Values written to it without a TTL live for `default_ttl`; `None` = for
    /// ever. Returns its number.
    ///
    /// # Errors
    /// [`ErrorCode::NamespaceExists`], [`ErrorCode::TooManyNamespaces`].
    pub fn create_namespace(&self, name: impl Into<String>, default_ttl: Option<Duration>) -> Result<u32> {
        let default_ttl_ms = default_ttl.map_or(0, millis);
        self.call(Operation::NamespaceCreate { name: name.into(), default_ttl_ms })?.namespace()
    }

    /// Changes the default TTL of a namespace, for values written from now on.
    pub fn set_namespace(&self, name: impl Into<String>, default_ttl: Option<Duration>) -> Result<()> {
        let default_ttl_ms = default_ttl.map_or(0, millis);
        self.call(Operation::NamespaceSet { name: name.into(), default_ttl_ms })?.namespace().map(|_| ())
    }

    /// Drops a namespace with all its records.
    pub fn drop_namespace(&self, name: impl Into<String>) -> Result<()> {
        self.call(Operation::NamespaceDrop { name: name.into() })?.namespace().map(|_| ())
    }

    /// The namespaces, with those whose space is still being given back.
    pub fn namespaces(&self) -> Result<Vec<Namespace>> {
        self.call(Operation::NamespaceList)?.namespaces()
    }

    /// What the server says about itself, as JSON: for people and diagnosis.
    pub fn server_info(&self) -> Result<String> {
        self.server_info_section(Section::All)
    }

    /// A part of what the server says about itself, as JSON.
    ///
    /// # Errors
    /// [`ErrorCode::Unsupported`] from a server that does not know the part.
    pub fn server_info_section(&self, section: Section) -> Result<String> {
        self.call(Operation::ServerInfo { section })?.info()
    }

    /// Asks the server for an answer, and returns how long it took.
    pub fn ping(&self) -> Result<Duration> {
        let sent = Instant::now();
        self.call(Operation::ping(Route::Any))?.pong()?;
        Ok(sent.elapsed())
    }

    fn update(&self, key: impl AsRef<[u8]>, update: Update) -> Result<Reply> {
        let write = Write::new(key.as_ref(), Durability::Sync);
        self.on_namespace(Operation::Update { write, update })
    }

    /// Calls an operation on this client's namespace. One that was dropped and created again under
    /// the same name has a new number: looks it up once more.
    fn on_namespace(&self, operation: Operation) -> Result<Reply> {
        self.all_on_namespace(vec![operation])?.pop().unwrap_or(Err(Error::Closed))
    }

    /// [`Client::on_namespace`] for several operations at once, each for another core.
    fn all_on_namespace(&self, mut operations: Vec<Operation>) -> Result<Vec<Result<Reply>>> {
        let id = match self.namespace.id() {
            Some(id) => id,
            None => self.look_up_namespace()?,
        };
        operations.iter_mut().for_each(|operation| operation.set_namespace(id));
        if id == pinion_protocol::NAMESPACE_DEFAULT {
            return Ok(self.call_all(operations));
        }
        let mut results = self.call_all(operations.clone());
        for (result, mut operation) in results.iter_mut().zip(operations) {
            let Err(error) = result else { continue };
            if error.code() == Some(ErrorCode::NoSuchNamespace) && error.outcome() == Outcome::NotApplied {
                let again = self.look_up_namespace()?;
                if again == id {
                    *result = Err(Error::NoSuchNamespace(self.namespace.name().to_owned()));
                } else {
                    operation.set_namespace(again);
                    *result = self.call(operation);
                }
            }
        }
        Ok(results)
    }

    fn look_up_namespace(&self) -> Result<u32> {
        self.namespace.learn(&self.namespaces()?)
    }

    /// One call with its retries.
    fn call(&self, operation: Operation) -> Result<Reply> {
        self.call_all(vec![operation]).pop().unwrap_or(Err(Error::Closed))
    }

    /// Several calls: their first tries travel together, then each is seen through in turn.
    fn call_all(&self, operations: Vec<Operation>) -> Vec<Result<Reply>> {
        let sent: Vec<_> = operations.into_iter().map(|operation| self.start(operation)).collect();
        sent.into_iter().map(|sent| self.finish(sent?)).collect()
    }

    fn start(&self, operation: Operation) -> Result<Started> {
        let mut call = self.inner.shared.call(Try { operation, trace: self.trace }, Instant::now())?;
        let sent = self.send(&mut call);
        Ok(Started { call, sent })
    }

    fn send(&self, call: &mut Call) -> Result<(Arc<Line>, line::Ticket)> {
        let (core, attempt) = self.inner.shared.attempt(call, Instant::now());
        let line = self.inner.line(core);
        let ticket = line.send(attempt, call.deadline())?;
        Ok((line, ticket))
    }

    fn finish(&self, started: Started) -> Result<Reply> {
        let Started { mut call, mut sent } = started;
        loop {
            let result = sent.and_then(|(line, ticket)| line.wait(&ticket));
            let step = call.finish(&mut self.inner.shared.session(), Instant::now(), result);
            match step {
                Step::Done(result) => return result,
                Step::Send(at) => std::thread::sleep(at.saturating_duration_since(Instant::now())),
            }
            sent = self.send(&mut call);
        }
    }
}

/// A call whose first try is on its way.
struct Started {
    call: Call,
    sent: Result<(Arc<Line>, line::Ticket)>,
}

impl Inner {
    /// The line of a core.
    fn line(&self, core: u16) -> Arc<Line> {
        let index = usize::from(core);
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some(line)) = lines.get(index) {
            return Arc::clone(line);
        }
        drop(lines);
        let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        if lines.len() <= index {
            lines.resize(index + 1, None);
        }
        let line =
            lines[index].get_or_insert_with(|| Arc::new(Line::new(Arc::clone(&self.shared), Some(core))));
        Arc::clone(line)
    }
}
