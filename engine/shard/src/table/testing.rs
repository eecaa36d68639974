//! Records, tables and blocks for the tests of this room and of the block cache.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use pinion_env::{AlignedBuf, create_dir_all};

use super::block_builder::BlockBuilder;
use super::format::{BlockPlace, BlockType};
use super::{Block, Table, TableMeta, TableOptions, TableWriter};
use crate::error::Result;
use crate::identity::{DatabaseId, Identity};
use crate::key::{Key, NamespaceId, OwnedPosition, Partition, Position};
use crate::record::{RecordKind, RecordView};
use crate::stamp::{HybridTime, Origin, Stamp};
use crate::testing::TestEnv;

pub(crate) const DIR: &str = "/shard/table";

pub(crate) fn identity() -> Identity {
    Identity { database: DatabaseId(0x0123_4567_89AB_CDEF), shard: 2, partitions: 64, shards: 4 }
}

/// A record that owns its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) kind: RecordKind,
    pub(crate) stamp: Stamp,
    pub(crate) expiry_ms: u64,
    pub(crate) value: Vec<u8>,
}

impl Owned {
    pub(crate) fn value(time: u64, value: &[u8]) -> Self {
        let stamp = Stamp { time: HybridTime(time), origin: Origin(1) };
        Self { kind: RecordKind::Value, stamp, expiry_ms: 0, value: value.to_vec() }
    }

    pub(crate) fn tombstone(time: u64) -> Self {
        Self { kind: RecordKind::Tombstone, ..Self::value(time, &[]) }
    }

    pub(crate) fn view(&self) -> RecordView<'_> {
        RecordView { kind: self.kind, stamp: self.stamp, expiry_ms: self.expiry_ms, value: &self.value }
    }
}

pub(crate) type Records = BTreeMap<OwnedPosition, Owned>;

pub(crate) fn place(partition: u16, namespace: u32, user: &[u8]) -> OwnedPosition {
    OwnedPosition { partition: Partition(partition), namespace: NamespaceId(namespace), user: user.to_vec() }
}

pub(crate) fn key_at(position: &OwnedPosition) -> Key<'_> {
    Key::placed(position.partition, position.namespace, &position.user)
}

/// `count` records of mixed kinds over a few partitions and namespaces.
pub(crate) fn mixed(count: u32, value_bytes: usize) -> Records {
    let mut records = Records::new();
    for number in 0..count {
        let position =
            place((number % 5) as u16, number % 3, format!("key:{:08}", number * 7919 % 100_003).as_bytes());
        let mut record =
            Owned::value(u64::from(number) + 1, &vec![number as u8; value_bytes + number as usize % 9]);
        if number % 7 == 3 {
            record = Owned::tombstone(u64::from(number) + 1);
        } else if number % 4 == 1 {
            record.expiry_ms = 1_000_000 + u64::from(number);
        }
        records.insert(position, record);
    }
    records
}

/// Writes a table of these records.
pub(crate) async fn write(
    env: &TestEnv,
    number: u64,
    records: &Records,
    options: TableOptions,
) -> Result<TableMeta> {
    let dir = Path::new(DIR);
    create_dir_all(env, dir).await.expect("the test disk has room for a directory");
    let mut writer = TableWriter::create(env, dir, number, &identity(), options).await?;
    for (position, record) in records {
        writer.add(&key_at(position), &record.view());
        if writer.is_full_enough_to_write() {
            writer.write_out().await?;
        }
    }
    writer.finish().await
}

pub(crate) async fn open(env: &TestEnv, meta: &TableMeta) -> Result<Rc<Table<TestEnv>>> {
    Table::open(env, Path::new(DIR), meta.clone(), &identity()).await
}

/// A data block with one record of `value_bytes`.
pub(crate) fn block_of(table: u64, page: u32, value_bytes: usize) -> Block {
    let position = Position { partition: Partition(1), namespace: NamespaceId(0), user: b"key" };
    let (mut builder, mut sealed) = (BlockBuilder::default(), Vec::new());
    builder.push(&position, 0, &Owned::value(1, &vec![7; value_bytes]).view());
    let place = BlockPlace { kind: BlockType::Data, table, page, seed: 3 };
    builder.seal_into(&place, &mut sealed);
    let mut buffer = AlignedBuf::zeroed(sealed.len());
    buffer[..sealed.len()].copy_from_slice(&sealed);
    let bytes = buffer.capacity();
    Block::open(buffer, bytes, table, page, 3).expect("a sealed block opens")
}
