//! The asynchronous client.

mod line;
mod many;
mod scan;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep_until, timeout_at};

pub use self::scan::ScanStream;

use self::line::Command;
use self::many::All;
use crate::batch::{BatchResults, WriteBatch};
use crate::builder::{Builder, Config, NamespaceCell, Shared};
use crate::core::call::{Call, Step};
use crate::core::fanout::{BatchParts, ManyReads, ReadPart};
use crate::core::map::Limits;
use crate::core::operation::{Operation, Reply, Route, Try, Update, Write};
use crate::error::{Error, Outcome, Result};
use crate::record::{Entry, Namespace, PutOptions, Stat, Written};
use crate::scan::ScanRange;
use crate::ttl::{Ttl, millis};
use crate::{Condition, Durability, ErrorCode, Section, TraceParent, Version};

/// A connection to a server, for tokio. Cheap to clone; all clones share one pipelined connection
/// per core of the server, opened when first needed.
///
/// Every method may be dropped half-way without harm to the client or to other calls; a write that
/// is dropped may or may not happen.
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
    lines: RwLock<Vec<Option<mpsc::Sender<Command>>>>,
}

impl Client {
    /// Sets up a client.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Connects to `address` (`HOST:PORT`) with default settings.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub async fn connect(address: impl Into<String>) -> Result<Self> {
        Self::builder().connect(address).build().await
    }

    pub(crate) async fn open(config: Config) -> Result<Self> {
        let namespace = NamespaceCell::new(config.namespace.clone());
        let shared = Shared::new(config)?;
        let first = line::start(Arc::clone(&shared), None);
        let deadline = Instant::now() + shared.config.connect_timeout;
        send(&first, Operation::ping(Route::Any), deadline).await?;
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
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        Ok(self.get_entry(key).await?.map(|entry| entry.value))
    }

    /// The value of a key and its version, for a conditional write.
    pub async fn get_with_version(&self, key: impl AsRef<[u8]>) -> Result<Option<(Bytes, Version)>> {
        Ok(self.get_entry(key).await?.map(|entry| (entry.value, entry.version)))
    }

    /// The value of a key with its version and expiry.
    pub async fn get_entry(&self, key: impl AsRef<[u8]>) -> Result<Option<Entry>> {
        let key = Bytes::copy_from_slice(key.as_ref());
        self.on_namespace(Operation::Get { namespace: 0, key }).await?.entry()
    }

    /// The values of many keys, in their order. Not one moment: each is read on its own.
    ///
    /// # Errors
    /// The first error of any part.
    pub async fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Entry>>> {
        let keys = keys.into_iter().map(|key| Bytes::copy_from_slice(key.as_ref())).collect();
        let mut reads = ManyReads::new(keys, &self.inner.shared.map()?.limits)?;
        loop {
            let parts = reads.parts(&*self.inner.shared.map()?);
            if parts.is_empty() {
                return Ok(reads.finish());
            }
            let answer = |part: ReadPart| async {
                let (positions, operation) = part.split();
                (positions, self.on_namespace(operation).await)
            };
            for (positions, reply) in All::new(parts.into_iter().map(answer)).await {
                reads.received(&positions, reply?)?;
            }
        }
    }

    /// Version, expiry and length of a value, without reading it.
    pub async fn stat(&self, key: impl AsRef<[u8]>) -> Result<Option<Stat>> {
        let key = Bytes::copy_from_slice(key.as_ref());
        self.on_namespace(Operation::Stat { namespace: 0, key }).await?.stat()
    }

    /// Sets a value. Acknowledged when it is on the server's disk.
    pub async fn put(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<Written> {
        self.put_with(key, value, PutOptions::default()).await
    }

    /// Sets a value with a TTL or another durability.
    pub async fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        options: PutOptions,
    ) -> Result<Written> {
        let write = Write::new(key.as_ref(), options.durability);
        self.on_namespace(Operation::Put { write, value: value.into(), ttl: options.ttl }).await?.written()
    }

    /// Sets a value if the condition holds.
    ///
    /// # Errors
    /// [`Error::ConditionFailed`] with the version that was found.
    pub async fn put_if(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        condition: Condition,
    ) -> Result<Written> {
        self.put_if_with(key, value, condition, PutOptions::default()).await
    }

    /// [`Client::put_if`] with a TTL or another durability.
    ///
    /// # Errors
    /// As [`Client::put_if`].
    pub async fn put_if_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        condition: Condition,
        options: PutOptions,
    ) -> Result<Written> {
        let write = Write::new(key.as_ref(), options.durability);
        let operation = Operation::PutIf { write, value: value.into(), ttl: options.ttl, condition };
        self.on_namespace(operation).await?.written()
    }

    /// Removes a key. Succeeds whether it was there or not.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<Written> {
        self.delete_with(key, Durability::Sync).await
    }

    /// [`Client::delete`] with another durability.
    pub async fn delete_with(&self, key: impl AsRef<[u8]>, durability: Durability) -> Result<Written> {
        let write = Write::new(key.as_ref(), durability);
        self.on_namespace(Operation::Delete { write }).await?.written()
    }

    /// Removes a key if the condition holds.
    ///
    /// # Errors
    /// [`Error::ConditionFailed`] with the version that was found.
    pub async fn delete_if(&self, key: impl AsRef<[u8]>, condition: Condition) -> Result<Written> {
        let write = Write::new(key.as_ref(), Durability::Sync);
        self.on_namespace(Operation::DeleteIf { write, condition }).await?.written()
    }

    /// Adds to a number (decimal text, 64 bits, absent = 0) and returns the sum.
    ///
    /// # Errors
    /// [`ErrorCode::BadRequest`] if the value is no number or the sum does not fit.
    pub async fn increment(&self, key: impl AsRef<[u8]>, by: i64) -> Result<i64> {
        self.update(key, Update::Add(by)).await?.number()
    }

    /// Appends to a value (absent = empty) and returns its new length in bytes.
    pub async fn append(&self, key: impl AsRef<[u8]>, bytes: impl Into<Bytes>) -> Result<u64> {
        self.update(key, Update::Append(bytes.into())).await?.length()
    }

    /// Overwrites part of a value (absent = empty), padding with zeros up to `offset`, and returns
    /// its new length in bytes.
    pub async fn set_range(
        &self,
        key: impl AsRef<[u8]>,
        offset: u32,
        bytes: impl Into<Bytes>,
    ) -> Result<u64> {
        self.update(key, Update::SetRange { offset, bytes: bytes.into() }).await?.length()
    }

    /// Lets an existing value live this much longer from now; `None` if the key is absent.
    pub async fn touch(&self, key: impl AsRef<[u8]>, ttl: Duration) -> Result<Option<Written>> {
        let ttl_ms = Ttl::After(ttl).millis().unwrap_or(0);
        self.update(key, Update::SetExpiry { ttl_ms }).await?.touched()
    }

    /// Removes the expiry of an existing value; `None` if the key is absent.
    pub async fn persist(&self, key: impl AsRef<[u8]>) -> Result<Option<Written>> {
        self.update(key, Update::SetExpiry { ttl_ms: 0 }).await?.touched()
    }

    /// Carries out a batch; see [`WriteBatch`] for what is atomic.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the batch breaks a limit; then nothing was sent. Anything that happens
    /// to single operations stands in the results.
    pub async fn batch(&self, batch: WriteBatch) -> Result<BatchResults> {
        let map = self.inner.shared.map()?;
        let stamp = self.inner.shared.session().clock.issue(Instant::now());
        let parts = BatchParts::new(batch, stamp, &map)?;
        let count = parts.count();
        let answer = |(positions, operation)| async { (positions, self.on_namespace(operation).await) };
        Ok(BatchParts::merge(count, All::new(parts.parts.into_iter().map(answer)).await))
    }

    /// Yields the records of a range; see [`ScanRange`] for the kinds and their order.
    pub fn scan(&self, range: ScanRange) -> ScanStream {
        ScanStream::new(self.clone(), range)
    }

    /// Creates a namespace. Values written to it without a TTL live for `default_ttl`; `None` = for
    /// ever. Returns its number.
    ///
    /// # Errors
    /// [`ErrorCode::NamespaceExists`], [`ErrorCode::TooManyNamespaces`].
    pub async fn create_namespace(
        &self,
        name: impl Into<String>,
        default_ttl: Option<Duration>,
    ) -> Result<u32> {
        let default_ttl_ms = default_ttl.map_or(0, millis);
        self.call(Operation::NamespaceCreate { name: name.into(), default_ttl_ms }).await?.namespace()
    }

    /// Changes the default TTL of a namespace, for values written from now on.
    pub async fn set_namespace(&self, name: impl Into<String>, default_ttl: Option<Duration>) -> Result<()> {
        let default_ttl_ms = default_ttl.map_or(0, millis);
        self.call(Operation::NamespaceSet { name: name.into(), default_ttl_ms })
            .await?
            .namespace()
            .map(|_| ())
    }

    /// Drops a namespace with all its records.
    pub async fn drop_namespace(&self, name: impl Into<String>) -> Result<()> {
        self.call(Operation::NamespaceDrop { name: name.into() }).await?.namespace().map(|_| ())
    }

    /// The namespaces, with those whose space is still being given back.
    pub async fn namespaces(&self) -> Result<Vec<Namespace>> {
        self.call(Operation::NamespaceList).await?.namespaces()
    }

    /// What the server says about itself, as JSON: for people and diagnosis.
    pub async fn server_info(&self) -> Result<String> {
        self.server_info_section(Section::All).await
    }

    /// A part of what the server says about itself, as JSON.
    ///
    /// # Errors
    /// [`ErrorCode::Unsupported`] from a server that does not know the part.
    pub async fn server_info_section(&self, section: Section) -> Result<String> {
        self.call(Operation::ServerInfo { section }).await?.info()
    }

    /// Asks the server for an answer, and returns how long it took.
    pub async fn ping(&self) -> Result<Duration> {
        let sent = Instant::now();
        self.call(Operation::ping(Route::Any)).await?.pong()?;
        Ok(sent.elapsed())
    }

    /// Asks one core of the server for an answer, over the connection to that core, and returns how
    /// long it took. A number that no core has goes to any core.
    pub async fn ping_core(&self, core: u16) -> Result<Duration> {
        let sent = Instant::now();
        self.call(Operation::ping(Route::Core(core))).await?.pong()?;
        Ok(sent.elapsed())
    }

    /// How many cores the server has, as it told at the newest HELLO.
    pub fn cores(&self) -> Result<u16> {
        Ok(self.inner.shared.map()?.cores)
    }

    /// The largest sizes that the server takes, as it told them at the newest HELLO.
    pub fn limits(&self) -> Result<Limits> {
        Ok(self.inner.shared.map()?.limits)
    }

    async fn update(&self, key: impl AsRef<[u8]>, update: Update) -> Result<Reply> {
        let write = Write::new(key.as_ref(), Durability::Sync);
        self.on_namespace(Operation::Update { write, update }).await
    }

    /// Calls an operation on this client's namespace. One that was dropped and created again under
    /// the same name has a new number: looks it up once more.
    async fn on_namespace(&self, mut operation: Operation) -> Result<Reply> {
        let id = match self.namespace.id() {
            Some(id) => id,
            None => self.look_up_namespace().await?,
        };
        operation.set_namespace(id);
        if id == pinion_protocol::NAMESPACE_DEFAULT {
            return self.call(operation).await;
        }
        let result = self.call(operation.clone()).await;
        match result {
            Err(error)
                if error.code() == Some(ErrorCode::NoSuchNamespace)
                    && error.outcome() == Outcome::NotApplied =>
            {
                let again = self.look_up_namespace().await?;
                if again == id {
                    return Err(Error::NoSuchNamespace(self.namespace.name().to_owned()));
                }
                operation.set_namespace(again);
                self.call(operation).await
            }
            result => result,
        }
    }

    async fn look_up_namespace(&self) -> Result<u32> {
        self.namespace.learn(&self.namespaces().await?)
    }

    /// One call with its retries.
    async fn call(&self, operation: Operation) -> Result<Reply> {
        let shared = &self.inner.shared;
        let mut call: Call = shared.call(Try { operation, trace: self.trace }, Instant::now())?;
        loop {
            let (core, attempt) = shared.attempt(&mut call, Instant::now());
            let result = send(&self.inner.line(core), attempt, call.deadline()).await;
            let step = call.finish(&mut shared.session(), Instant::now(), result);
            match step {
                Step::Done(result) => return result,
                Step::Send(at) => sleep_until(at.into()).await,
            }
        }
    }
}

impl Inner {
    /// The line of a core, started now if there is none or its runtime is gone.
    fn line(&self, core: u16) -> mpsc::Sender<Command> {
        let index = usize::from(core);
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some(line)) = lines.get(index)
            && !line.is_closed()
        {
            return line.clone();
        }
        drop(lines);
        let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        if lines.len() <= index {
            lines.resize(index + 1, None);
        }
        match &mut lines[index] {
            Some(line) if !line.is_closed() => line.clone(),
            slot => slot.insert(line::start(Arc::clone(&self.shared), Some(core))).clone(),
        }
    }
}

/// Sends one try and waits for its answer. The line answers in time, whatever happens to it.
async fn send(line: &mpsc::Sender<Command>, attempt: impl Into<Try>, deadline: Instant) -> Result<Reply> {
    let attempt = attempt.into();
    let outcome_if_lost = attempt.operation.outcome_if_lost();
    let (ticket, answer) = oneshot::channel();
    match line.try_send(Command { attempt, deadline, ticket }) {
        Ok(()) => {}
        Err(TrySendError::Full(command)) => match timeout_at(deadline.into(), line.send(command)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Error::Closed),
            Err(_) => return Err(Error::TimedOut { outcome: Outcome::NotApplied }),
        },
        Err(TrySendError::Closed(_)) => return Err(Error::Closed),
    }
    answer.await.unwrap_or_else(|_| {
        let reason = "the runtime of the connection ended".to_owned();
        Err(Error::Disconnected { outcome: outcome_if_lost, reason })
    })
}
