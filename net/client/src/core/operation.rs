//! Requests and replies that own their bytes: what a call keeps while its frame travels.
//!
//! The protocol crate's messages borrow from frames; these outlive them, so that a call can be
//! sent again and an answer can leave the connection's buffer.

use std::sync::Arc;

use bytes::Bytes;
use pinion_protocol::{ProposedStamp, Section, TraceParent};

use super::map::ServerMap;
use crate::batch::BatchOperation;
use crate::error::{Error, Outcome, Result};
use crate::record::{Entry, Namespace, Stat, Written};
use crate::scan::{ScanRange, ScanRecord};
use crate::ttl::Ttl;
use crate::{Condition, Durability};

/// A request.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Get {
        namespace: u32,
        key: Bytes,
    },
    GetMany {
        namespace: u32,
        keys: Arc<[Bytes]>,
        route: Route,
    },
    Stat {
        namespace: u32,
        key: Bytes,
    },
    Put {
        write: Write,
        value: Bytes,
        ttl: Ttl,
    },
    Delete {
        write: Write,
    },
    PutIf {
        write: Write,
        value: Bytes,
        ttl: Ttl,
        condition: Condition,
    },
    DeleteIf {
        write: Write,
        condition: Condition,
    },
    Update {
        write: Write,
        update: Update,
    },
    Batch {
        namespace: u32,
        durability: Durability,
        stamp: Option<ProposedStamp>,
        operations: Vec<BatchOperation>,
        route: Route,
    },
    Scan(PageRequest),
    NamespaceCreate {
        name: String,
        default_ttl_ms: u64,
    },
    NamespaceSet {
        name: String,
        default_ttl_ms: u64,
    },
    NamespaceDrop {
        name: String,
    },
    NamespaceList,
    ServerInfo {
        section: Section,
    },
    Ping {
        bytes: Bytes,
        route: Route,
    },
}

/// One try of an operation, on its way to a connection.
#[derive(Debug, Clone)]
pub(crate) struct Try {
    pub(crate) operation: Operation,
    /// The trace that the call belongs to.
    pub(crate) trace: Option<TraceParent>,
}

impl From<Operation> for Try {
    fn from(operation: Operation) -> Self {
        Self { operation, trace: None }
    }
}

/// What every write of one key has.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) namespace: u32,
    pub(crate) key: Bytes,
    pub(crate) durability: Durability,
    pub(crate) stamp: Option<ProposedStamp>,
}

/// A change that depends on the value it finds.
#[derive(Debug, Clone)]
pub(crate) enum Update {
    Add(i64),
    Append(Bytes),
    SetRange {
        offset: u32,
        bytes: Bytes,
    },
    /// Milliseconds; 0 = never.
    SetExpiry {
        ttl_ms: u64,
    },
}

/// A page of a scan.
#[derive(Debug, Clone)]
pub(crate) struct PageRequest {
    pub(crate) namespace: u32,
    pub(crate) range: ScanRange,
    pub(crate) route: Route,
    pub(crate) shard: Option<u16>,
    pub(crate) cursor: Bytes,
    pub(crate) records_max: u32,
    pub(crate) bytes_max: u32,
}

/// Which core a request goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Any,
    Core(u16),
    Shard(u16),
    Tag(Bytes),
}

/// When a request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It changes nothing.
    Always,
    /// Every try carries the same stamp.
    SameStamp,
    /// Only when no earlier try was applied.
    IfNotApplied,
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Entry(Option<Entry>),
    /// In the order of the keys; the outer `None` = not read, ask again.
    Entries(Vec<Option<Option<Entry>>>),
    Stat(Option<Stat>),
    Written(Written),
    /// An update that changed a number or a length.
    Updated {
        written: Written,
        number: i64,
    },
    /// An update that needs a value and found none.
    Missing,
    Batch(Vec<BatchStatus>),
    Page(Page),
    Namespace(u32),
    Namespaces(Vec<Namespace>),
    Info(String),
    Pong(Bytes),
}

/// What became of one operation of a batch.
pub(crate) type BatchStatus = Result<Written>;

/// A page of a scan.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    pub(crate) records: Vec<ScanRecord>,
    pub(crate) cursor: Bytes,
    pub(crate) done: bool,
}

impl Operation {
    /// An empty PING.
    pub(crate) fn ping(route: Route) -> Self {
        Self::Ping { bytes: Bytes::new(), route }
    }

    /// When it may be sent again.
    pub(crate) fn repeat(&self) -> Repeat {
        match self {
            Self::Get { .. }
            | Self::GetMany { .. }
            | Self::Stat { .. }
            | Self::Scan(_)
            | Self::NamespaceList
            | Self::ServerInfo { .. }
            | Self::Ping { .. } => Repeat::Always,
            Self::Put { .. } | Self::Delete { .. } | Self::Batch { .. } => Repeat::SameStamp,
            Self::PutIf { .. }
            | Self::DeleteIf { .. }
            | Self::Update { .. }
            | Self::NamespaceCreate { .. }
            | Self::NamespaceSet { .. }
            | Self::NamespaceDrop { .. } => Repeat::IfNotApplied,
        }
    }

    /// What is known of it when it was sent and no answer came.
    pub(crate) fn outcome_if_lost(&self) -> Outcome {
        if self.repeat() == Repeat::Always { Outcome::NotApplied } else { Outcome::Unknown }
    }

    /// The core to send it to; `home` for what any core answers.
    pub(crate) fn core(&self, map: &ServerMap, home: u16) -> u16 {
        let core = match self {
            Self::Get { key, .. } | Self::Stat { key, .. } => map.core_of(key),
            Self::Put { write, .. }
            | Self::Delete { write }
            | Self::PutIf { write, .. }
            | Self::DeleteIf { write, .. }
            | Self::Update { write, .. } => map.core_of(&write.key),
            Self::GetMany { route, .. }
            | Self::Batch { route, .. }
            | Self::Scan(PageRequest { route, .. })
            | Self::Ping { route, .. } => match route {
                Route::Any => home,
                Route::Core(core) => *core,
                Route::Shard(shard) => map.core_of_shard(*shard),
                Route::Tag(tag) => map.core_of_tag(tag),
            },
            Self::NamespaceCreate { .. }
            | Self::NamespaceSet { .. }
            | Self::NamespaceDrop { .. }
            | Self::NamespaceList
            | Self::ServerInfo { .. } => home,
        };
        if core < map.cores { core } else { home }
    }

    /// Refuses what the server would refuse for its size.
    pub(crate) fn check(&self, map: &ServerMap) -> Result<()> {
        match self {
            Self::Get { key, .. } | Self::Stat { key, .. } => map.limits.check_key(key),
            Self::Put { write, value, .. } | Self::PutIf { write, value, .. } => {
                map.limits.check_key(&write.key)?;
                map.limits.check_value(value)
            }
            Self::Delete { write } | Self::DeleteIf { write, .. } => map.limits.check_key(&write.key),
            Self::Update { write, update } => {
                map.limits.check_key(&write.key)?;
                match update {
                    Update::Append(bytes) | Update::SetRange { bytes, .. } => map.limits.check_value(bytes),
                    Update::Add(_) | Update::SetExpiry { .. } => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// The stamp that it carries.
    pub(crate) fn stamp(&self) -> Option<ProposedStamp> {
        match self {
            Self::Put { write, .. } | Self::Delete { write } => write.stamp,
            Self::Batch { stamp, .. } => *stamp,
            _ => None,
        }
    }

    /// Sets the stamp of an operation that may carry one.
    pub(crate) fn set_stamp(&mut self, proposed: Option<ProposedStamp>) {
        match self {
            Self::Put { write, .. } | Self::Delete { write } => write.stamp = proposed,
            Self::Batch { stamp, .. } => *stamp = proposed,
            _ => {}
        }
    }

    /// Sets the namespace of an operation that has one.
    pub(crate) fn set_namespace(&mut self, id: u32) {
        match self {
            Self::Get { namespace, .. }
            | Self::GetMany { namespace, .. }
            | Self::Stat { namespace, .. }
            | Self::Batch { namespace, .. }
            | Self::Scan(PageRequest { namespace, .. }) => *namespace = id,
            Self::Put { write, .. }
            | Self::Delete { write }
            | Self::PutIf { write, .. }
            | Self::DeleteIf { write, .. }
            | Self::Update { write, .. } => write.namespace = id,
            Self::NamespaceCreate { .. }
            | Self::NamespaceSet { .. }
            | Self::NamespaceDrop { .. }
            | Self::NamespaceList
            | Self::ServerInfo { .. }
            | Self::Ping { .. } => {}
        }
    }

    /// Narrows a batch to the operations at these positions, which are in order.
    pub(crate) fn keep_only(&mut self, positions: &[usize]) {
        if let Self::Batch { operations, .. } = self {
            *operations =
                positions.iter().filter_map(|position| operations.get(*position).cloned()).collect();
        }
    }
}

impl Write {
    /// A write that carries no stamp yet, in a namespace to be filled in.
    pub(crate) fn new(key: &[u8], durability: Durability) -> Self {
        Self { namespace: 0, key: Bytes::copy_from_slice(key), durability, stamp: None }
    }
}

/// What a reply must be; anything else is the server's mistake.
impl Reply {
    pub(crate) fn entry(self) -> Result<Option<Entry>> {
        if let Self::Entry(entry) = self { Ok(entry) } else { Err(self.unexpected()) }
    }

    pub(crate) fn stat(self) -> Result<Option<Stat>> {
        if let Self::Stat(stat) = self { Ok(stat) } else { Err(self.unexpected()) }
    }

    pub(crate) fn written(self) -> Result<Written> {
        if let Self::Written(written) = self { Ok(written) } else { Err(self.unexpected()) }
    }

    pub(crate) fn number(self) -> Result<i64> {
        if let Self::Updated { number, .. } = self { Ok(number) } else { Err(self.unexpected()) }
    }

    pub(crate) fn length(self) -> Result<u64> {
        let error = self.unexpected();
        u64::try_from(self.number()?).map_err(|_| error)
    }

    /// Of an update that changes only what is there.
    pub(crate) fn touched(self) -> Result<Option<Written>> {
        match self {
            Self::Updated { written, .. } => Ok(Some(written)),
            Self::Missing => Ok(None),
            _ => Err(self.unexpected()),
        }
    }

    pub(crate) fn page(self) -> Result<Page> {
        if let Self::Page(page) = self { Ok(page) } else { Err(self.unexpected()) }
    }

    pub(crate) fn namespace(self) -> Result<u32> {
        if let Self::Namespace(id) = self { Ok(id) } else { Err(self.unexpected()) }
    }

    pub(crate) fn namespaces(self) -> Result<Vec<Namespace>> {
        if let Self::Namespaces(list) = self { Ok(list) } else { Err(self.unexpected()) }
    }

    pub(crate) fn info(self) -> Result<String> {
        if let Self::Info(text) = self { Ok(text) } else { Err(self.unexpected()) }
    }

    pub(crate) fn pong(self) -> Result<Bytes> {
        if let Self::Pong(bytes) = self { Ok(bytes) } else { Err(self.unexpected()) }
    }

    /// The error for a reply that does not fit its request.
    pub(crate) fn unexpected(&self) -> Error {
        let outcome = match self {
            Self::Written(_) | Self::Updated { .. } | Self::Batch(_) | Self::Namespace(_) => Outcome::Applied,
            _ => Outcome::NotApplied,
        };
        Error::Protocol { outcome, message: "the answer does not fit the request".into() }
    }
}
