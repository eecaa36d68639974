//! The shards of one core, and what is asked of them.
//!
//! What is in memory is answered at once. A read of a table, and a scan, is a task of its own, as in a
//! server; there are at most as many as operations in flight.

use std::rc::Rc;
use std::sync::Arc;

use pinion_engine::{
    DataDir, Durability, Identity, Key, Lifetime, Meta, NamespaceId, Operation, Options, Origin,
    OwnedPosition, Partition, RecordView, ScanKind, ScanRange, ScanSink, Shard, ShardStats, WriteOptions,
    partition_of,
};
use pinion_runtime::env::{Env as _, NodeEnv as _, TaskClass};

use super::CoreEnv;
use super::inbox::{Ended, Inbox};
use crate::drive::operations::Job;
use crate::drive::part::Part;
use crate::drive::speech::{Answer, Ask, append_record};
use crate::error::Result;
use crate::workload::{ScanOrder, Workload, WriteDurability};

/// The namespace that a client has without naming one.
const NAMESPACE: NamespaceId = NamespaceId(0);

type CoreShard = Shard<CoreEnv, Ended>;

/// What all cores are given.
#[derive(Clone)]
pub(super) struct Dealt {
    /// Held open, with its lock, by whoever has a shard of it.
    pub(super) directory: Arc<DataDir>,
    pub(super) meta: Meta,
    /// Of each shard.
    pub(super) options: Options,
}

/// The shards of one core, in order.
pub(super) struct Shards {
    env: CoreEnv,
    _directory: Arc<DataDir>,
    meta: Meta,
    /// The number of the first.
    first: u16,
    open: Vec<CoreShard>,
    pub(super) inbox: Rc<Inbox>,
    write_options: WriteOptions,
    lifetime: Lifetime,
    scan_order: ScanOrder,
    /// Whether somebody looks at the records of a scan.
    is_verified: bool,
}

impl Shards {
    /// Opens the shards of this core: they are dealt in contiguous ranges, as in a node.
    ///
    /// # Errors
    /// The engine's.
    pub(super) async fn open(env: &CoreEnv, job: &Job, dealt: &Dealt) -> Result<Self> {
        let Dealt { directory, meta, options } = dealt;
        let numbers = (0..meta.shards)
            .filter(|shard| usize::from(*shard) * env.cores() / usize::from(meta.shards) == env.core());
        let mut open = Vec::new();
        for shard in numbers.clone() {
            let dir = directory.shard_dir(shard);
            let (identity, origin) = (meta.identity(shard), Origin(u32::from(shard)));
            open.push(Shard::open(env.clone(), dir, identity, origin, options.clone()).await?);
        }
        let asked = job.ask_options();
        let durability = match asked.durability {
            WriteDurability::Sync => Durability::Sync,
            WriteDurability::Buffered => Durability::Buffered,
        };
        Ok(Self {
            env: env.clone(),
            _directory: Arc::clone(directory),
            meta: *meta,
            first: numbers.clone().next().unwrap_or(0),
            open,
            inbox: Rc::default(),
            write_options: WriteOptions { durability, ..WriteOptions::default() },
            lifetime: if asked.ttl_ms == 0 { Lifetime::Forever } else { Lifetime::Millis(asked.ttl_ms) },
            scan_order: asked.scan_order,
            is_verified: asked.verified,
        })
    }

    /// The records that live here.
    ///
    /// # Errors
    /// Too many records.
    pub(super) fn part(&self, workload: &Workload) -> Result<Part> {
        if self.open.len() == usize::from(self.meta.shards) {
            return Ok(Part::whole());
        }
        let own = self.first..self.first + self.open.len() as u16;
        let Identity { shards, partitions, .. } = self.meta.identity(0);
        Part::of(workload, move |key| own.contains(&partition_of(key, partitions).shard(shards, partitions)))
    }

    pub(super) fn stats(&self) -> Vec<ShardStats> {
        self.open.iter().map(Shard::stats).collect()
    }

    /// # Errors
    /// The engine's: what was acknowledged is in the log all the same.
    pub(super) async fn close(&self) -> Result<()> {
        for shard in &self.open {
            shard.close().await?;
        }
        Ok(())
    }

    fn shard_of(&self, key: &Key<'_>) -> Option<&CoreShard> {
        let shard = key.partition.shard(self.meta.shards, self.meta.partitions);
        self.open.get(usize::from(shard.checked_sub(self.first)?))
    }

    /// Asks for what a slot needs; the answer goes to the inbox, now or later.
    pub(super) fn ask(&self, slot: usize, ask: Ask<'_>) {
        let refuse = |message: &str| {
            self.inbox.put(slot, Answer::Failed { is_unknown: false, message: message.to_owned() });
        };
        let key = match ask {
            Ask::Get { key } | Ask::Put { key, .. } | Ask::Delete { key } | Ask::Scan { start: key, .. } => {
                key
            }
            // The plan was refused.
            Ask::PutMany { .. } => return refuse("engines in this process write one by one"),
        };
        let key = Key::new(NAMESPACE, key, self.meta.partitions);
        let Some(shard) = self.shard_of(&key) else { return refuse("the record is another core's") };
        let ended = || Ended { slot, inbox: Rc::clone(&self.inbox) };
        match ask {
            Ask::Get { .. } => {
                let in_memory = shard.get_now(&key, |record| match record {
                    Some(record) => self.inbox.put_value(slot, record.value),
                    None => self.inbox.put(slot, Answer::Absent),
                });
                if in_memory.is_err() {
                    self.read(slot, shard, &key);
                }
            }
            Ask::Put { value, .. } => {
                let put = Operation::Put { value, lifetime: self.lifetime };
                shard.write(&key, put, self.write_options, ended());
            }
            Ask::Delete { .. } => {
                shard.write(&key, Operation::Delete, self.write_options, ended());
            }
            Ask::Scan { limit, .. } => self.scan(slot, &key, limit),
            // Refused above.
            Ask::PutMany { .. } => {}
        }
    }

    /// Reads a table.
    fn read(&self, slot: usize, shard: &CoreShard, key: &Key<'_>) {
        let (shard, inbox, partitions) = (shard.clone(), Rc::clone(&self.inbox), self.meta.partitions);
        let user = key.user.to_vec();
        self.env.spawn(TaskClass::Foreground, async move {
            match shard.get(&Key::new(NAMESPACE, &user, partitions)).await {
                Ok(Some(found)) => inbox.put_value(slot, found.view().value),
                Ok(None) => inbox.put(slot, Answer::Absent),
                Err(error) => inbox.put_error(slot, &error),
            }
        });
    }

    /// Reads up to `limit` records from a key on, in all shards of the core.
    fn scan(&self, slot: usize, key: &Key<'_>, limit: u64) {
        let position = key.position().to_owned();
        let (inbox, scan_order) = (Rc::clone(&self.inbox), self.scan_order);
        let mut taken = Taken { is_kept: self.is_verified, ..Taken::default() };
        let start = key.partition.shard(self.meta.shards, self.meta.partitions) - self.first;
        let shards: Vec<CoreShard> = match scan_order {
            ScanOrder::Placement => self.open.iter().skip(usize::from(start)).cloned().collect(),
            ScanOrder::Keys => self.open.clone(),
        };
        self.env.spawn(TaskClass::Foreground, async move {
            let read = match scan_order {
                ScanOrder::Placement => placed(&shards, position, limit, &mut taken).await,
                ScanOrder::Keys => ordered(&shards, &position.user, limit, &mut taken).await,
            };
            match read {
                Ok(found) => inbox.put_scanned(slot, found, &taken.bytes),
                Err(error) => inbox.put_error(slot, &error),
            }
        });
    }
}

/// Takes the records of a scan, as its caller would: with their bytes.
#[derive(Default)]
struct Taken {
    records: u64,
    bytes: Vec<u8>,
    /// Whether the bytes stay beyond their page.
    is_kept: bool,
}

impl ScanSink for Taken {
    fn push(&mut self, user_key: &[u8], record: RecordView<'_>) -> bool {
        self.records += 1;
        append_record(user_key, record.value, &mut self.bytes);
        true
    }
}

type Read = pinion_engine::Result<u64>;

/// From a position on, through the partitions of one shard after the other.
async fn placed(shards: &[CoreShard], from: OwnedPosition, limit: u64, taken: &mut Taken) -> Read {
    let mut resume = Some(from);
    for shard in shards {
        let first = resume.as_ref().map_or(Partition(0), |position| position.partition);
        let kind = ScanKind::Placed { first, last: Partition(u16::MAX) };
        pages(shard, kind, &[], resume.take(), limit, taken).await?;
        if taken.records >= limit {
            break;
        }
    }
    Ok(taken.records.min(limit))
}

/// By key: as many from each shard, of which a merge would give the first.
async fn ordered(shards: &[CoreShard], from: &[u8], limit: u64, taken: &mut Taken) -> Read {
    let mut found = 0;
    for shard in shards {
        taken.records = 0;
        pages(shard, ScanKind::Ordered, from, None, limit, taken).await?;
        found += taken.records;
    }
    Ok(found.min(limit))
}

/// Reads pages of one shard until there are enough records or no more.
async fn pages(
    shard: &CoreShard,
    kind: ScanKind,
    start: &[u8],
    mut resume: Option<OwnedPosition>,
    limit: u64,
    taken: &mut Taken,
) -> pinion_engine::Result<()> {
    loop {
        let range = ScanRange {
            namespace: NAMESPACE,
            kind,
            start: start.to_vec(),
            end: None,
            resume,
            reverse: false,
            records_max: u32::try_from(limit - taken.records).unwrap_or(u32::MAX),
        };
        resume = shard.scan(&range, taken).await?;
        // What was read is the caller's until the next page, unless somebody looks at it in the end.
        if !taken.is_kept {
            taken.bytes.clear();
        }
        if resume.is_none() || taken.records >= limit {
            return Ok(());
        }
    }
}
