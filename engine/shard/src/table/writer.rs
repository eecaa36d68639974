//! Writes one table, front to back, from records that arrive in order.
//!
//! [`TableWriter::add`] never waits. It gathers the first records to choose the block unit, then
//! fills blocks; a full block is sealed into the output, and a full part's index is built. The
//! caller calls [`TableWriter::write_out`] whenever [`TableWriter::is_full_enough_to_write`] says
//! so, which bounds what waits in memory to one write, the hashes of a part and one record. There
//! the part's filter is built, between yields: sorting and building the filter of at most 4,096
//! keys are the longest pieces of work here.
//!
//! A table counts only when [`TableWriter::finish`] has returned, its directory is synced and the
//! manifest names it. Any error before leaves an orphan file; remove it ([`TableWriter::abandon`],
//! or by its path) or let the next opening of the shard do so.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use pinion_env::{Env, OpenMode, PAGE_BYTES};

use super::WINDOW_BYTES;
use super::block_builder::{BlockBuilder, record_bytes};
use super::filter::{self, FilterWidth};
use super::format::{BLOCK_HEADER_BYTES, BlockPlace, BlockType, Footer, Section, SectionKind, seal_block};
use super::index::IndexBuilder;
use super::meta::TableMeta;
use super::output::{Output, write_error};
use super::parts::{self, PartEntry};
use super::tally::Tally;
use super::unit::BlockUnit;
use super::{BlockHandle, PART_RECORDS_MAX, table_path};
use crate::cache::BlockCache;
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::key::{Key, NamespaceId, OwnedPosition, Partition, Position, key_hash};
use crate::record::{RecordKind, RecordView};
use crate::stamp::Stamp;

/// Bytes of records that the choice of the block unit looks at.
const SAMPLE_BYTES: usize = 64 << 10;
/// A part is closed early when its index grows to this, so that long keys make no huge part.
const PART_INDEX_BYTES_MAX: usize = 128 << 10;

/// How a table is written.
#[derive(Debug, Clone, Copy)]
pub struct TableOptions {
    /// Bits per fingerprint of its filters.
    pub filter: FilterWidth,
    /// The unit of its data blocks; `None` chooses by the first 64 KiB of records.
    pub unit: Option<BlockUnit>,
    /// Records per part, 1 to [`PART_RECORDS_MAX`]. A part ends at a block's border.
    pub part_records_max: usize,
    /// Bytes of one write, whole pages.
    pub write_bytes: usize,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self {
            filter: FilterWidth::Sixteen,
            unit: None,
            part_records_max: PART_RECORDS_MAX,
            write_bytes: WINDOW_BYTES,
        }
    }
}

/// Writes one table.
pub struct TableWriter<E: Env> {
    env: E,
    path: PathBuf,
    number: u64,
    seed: u64,
    options: TableOptions,
    output: Output<E>,
    /// Until the unit is chosen.
    sample: Option<Sample>,
    unit: BlockUnit,
    block: BlockBuilder,
    /// The first record of the block being filled, the record before it, and its hashes.
    block_first: OwnedPosition,
    block_before: Option<OwnedPosition>,
    block_hashes: Vec<u64>,
    index: IndexBuilder,
    hashes: Vec<u64>,
    parts: Vec<FinishedPart>,
    /// Of the parts, in order, those whose filter has been built.
    filters_done: usize,
    parts_bytes: usize,
    filters_failed: u64,
    tally: Tally,
    scratch: Vec<u8>,
    /// The cache that the block being filled goes into as well.
    kept_in: Option<Rc<BlockCache>>,
}

struct FinishedPart {
    separator: OwnedPosition,
    records: u32,
    index: Vec<u8>,
    filter: PartFilter,
}

enum PartFilter {
    /// To be built of these hashes.
    Wanted(Vec<u64>),
    /// `None` if it could not be built.
    Built(Option<Vec<u8>>),
}

impl<E: Env> TableWriter<E> {
    /// Creates the file of a new table in the shard's table directory.
    ///
    /// # Errors
    /// [`Error::DiskFull`], or [`Error::StorageFailed`] (also if the file exists already: numbers
    /// are never reused).
    ///
    /// # Panics
    /// When `part_records_max` is out of its range.
    pub async fn create(
        env: &E,
        dir: &Path,
        number: u64,
        identity: &Identity,
        options: TableOptions,
    ) -> Result<Self> {
        assert!(
            (1..=PART_RECORDS_MAX).contains(&options.part_records_max),
            "part_records_max is out of range"
        );
        let path = table_path(dir, number);
        let file = env.open(&path, OpenMode::CreateNew).await.map_err(|error| write_error(&path, &error))?;
        let seed = identity.seed();
        Ok(Self {
            env: env.clone(),
            path,
            number,
            seed,
            options,
            output: Output::new(file, seed, options.write_bytes),
            sample: options.unit.is_none().then(Sample::default),
            unit: options.unit.unwrap_or(BlockUnit::Four),
            block: BlockBuilder::default(),
            block_first: OwnedPosition::default(),
            block_before: None,
            block_hashes: Vec::new(),
            index: IndexBuilder::default(),
            hashes: Vec::new(),
            parts: Vec::new(),
            filters_done: 0,
            parts_bytes: 0,
            filters_failed: 0,
            tally: Tally::default(),
            scratch: Vec::new(),
            kept_in: None,
        })
    }

    /// Adds a record behind all others.
    ///
    /// # Panics
    /// When the key is not greater than the last one (noticed at the latest by
    /// [`TableWriter::finish`]): such a table must never be installed.
    pub fn add(&mut self, key: &Key<'_>, record: &RecordView<'_>) {
        let Some(sample) = &mut self.sample else {
            return self.push(&key.position(), key.hash, record);
        };
        sample.add(key, record);
        if sample.bytes.len() >= SAMPLE_BYTES {
            self.leave_sampling();
        }
    }

    /// The block that the record added last is in goes into `cache` as well.
    pub fn keep_block(&mut self, cache: &Rc<BlockCache>) {
        self.kept_in.get_or_insert_with(|| Rc::clone(cache));
    }

    /// Whether [`TableWriter::write_out`] has something to do.
    pub fn is_full_enough_to_write(&self) -> bool {
        self.output.has_ready() || self.wants_filter()
    }

    /// Writes what is complete, unsynced, in writes of `write_bytes`, and builds the filter of a part
    /// that is complete.
    ///
    /// # Errors
    /// [`Error::DiskFull`] or [`Error::StorageFailed`]; the table is lost.
    pub async fn write_out(&mut self) -> Result<()> {
        self.output.write_out(&self.path).await?;
        while self.wants_filter() {
            self.build_filter().await;
        }
        Ok(())
    }

    /// Records so far.
    pub fn records(&self) -> u64 {
        self.tally.records() + self.sample.as_ref().map_or(0, |sample| sample.records.len() as u64)
    }

    /// About how large the file would be if it were finished now.
    pub fn file_bytes(&self) -> u64 {
        let sampled = self.sample.as_ref().map_or(0, |sample| sample.bytes.len());
        let open_part = self.index.bytes() + self.filter_bytes(self.hashes.len());
        let waiting = sampled + self.block.bytes() + self.parts_bytes + open_part;
        u64::from(self.output.page()) * PAGE_BYTES as u64 + waiting as u64
    }

    /// Parts whose filter could not be built.
    pub const fn filters_failed(&self) -> u64 {
        self.filters_failed
    }

    /// The unit of data blocks, once it is chosen.
    pub fn unit(&self) -> Option<BlockUnit> {
        self.sample.is_none().then_some(self.unit)
    }

    /// Completes the file: index, filters, properties, footer, and a sync of the file. The
    /// directory is not synced.
    ///
    /// # Errors
    /// [`Error::DiskFull`] or [`Error::StorageFailed`]; the file is an orphan.
    ///
    /// # Panics
    /// When nothing was added.
    pub async fn finish(mut self) -> Result<TableMeta> {
        self.leave_sampling();
        assert!(self.tally.records() > 0, "a table holds at least one record");
        self.close_block();
        self.close_part();
        self.write_out().await?;
        let data = Section { kind: SectionKind::Data as u32, page: 0, pages: self.output.page() };

        let mut entries = Vec::with_capacity(self.parts.len());
        for part in std::mem::take(&mut self.parts) {
            let index = self.append_block(BlockType::Index, &part.index);
            let PartFilter::Built(filter) = part.filter else { unreachable!("writing out builds them all") };
            let filter = filter.map(|filter| self.append_block(BlockType::Filter, &filter));
            entries.push(PartEntry { records: part.records, index, filter, separator: part.separator });
            if self.is_full_enough_to_write() {
                self.write_out().await?;
            }
        }
        let counted: u64 = entries.iter().map(|entry| u64::from(entry.records)).sum();
        assert!(counted == self.tally.records(), "every record is in one part");
        let pages = self.output.page() - data.pages;
        let part_blocks = Section { kind: SectionKind::PartBlocks as u32, page: data.pages, pages };

        let mut encoded = Vec::new();
        parts::encode(&entries, &mut encoded);
        let list = self.append_block(BlockType::Parts, &encoded);
        let meta = std::mem::take(&mut self.tally).into_meta(self.number, 0, 0);
        encoded.clear();
        meta.encode(&mut encoded);
        let properties = self.append_block(BlockType::Properties, &encoded);

        // Size and checksum are known only now: the properties carry zeros, the footer has them.
        let file_bytes = (u64::from(self.output.page()) + 1) * PAGE_BYTES as u64;
        let checksum = self.output.checksum();
        let section = |kind: SectionKind, at: BlockHandle| Section {
            kind: kind as u32,
            page: at.page,
            pages: at.pages,
        };
        let sections = vec![
            data,
            part_blocks,
            section(SectionKind::Parts, list),
            section(SectionKind::Properties, properties),
        ];
        let mut page = [0; PAGE_BYTES];
        Footer { table: self.number, file_bytes, checksum, sections }.encode(&mut page, self.seed);
        self.output.append(&page);
        self.output.finish(&self.path).await?;
        Ok(TableMeta { file_bytes, checksum, ..meta })
    }

    /// Gives up and removes the file.
    ///
    /// # Errors
    /// [`Error::Io`]: the file stays behind as an orphan.
    pub async fn abandon(self) -> Result<()> {
        let Self { env, path, output, .. } = self;
        drop(output);
        env.remove(&path).await.map_err(|error| Error::io(path, error))
    }

    /// Chooses the unit and adds what was gathered.
    fn leave_sampling(&mut self) {
        let Some(sample) = self.sample.take() else { return };
        self.unit = BlockUnit::choose(&sample.sizes());
        let kept_in = self.kept_in.take();
        sample.for_each(|position, record| {
            self.push(position, key_hash(position.namespace, position.user), record);
            self.kept_in.clone_from(&kept_in);
        });
    }

    fn push(&mut self, position: &Position<'_>, hash: u64, record: &RecordView<'_>) {
        let last = self.tally.last();
        assert!(last.is_none_or(|last| last < *position), "records arrive in order, each key once");
        if !self.block.is_empty() && self.block.bytes_with(position, record) > self.unit.bytes() {
            self.close_block();
        }
        if self.block.is_empty() {
            self.block_first.copy_from(position);
            if let Some(last) = self.tally.last() {
                self.block_before.get_or_insert_default().copy_from(&last);
            }
        }
        self.block.push(position, hash, record);
        self.block_hashes.push(hash);
        self.tally.add(position, record);
    }

    fn close_block(&mut self) {
        if self.block.is_empty() {
            return;
        }
        let too_many = self.hashes.len() + self.block_hashes.len() > self.options.part_records_max;
        if !self.index.is_empty() && (too_many || self.index.bytes() >= PART_INDEX_BYTES_MAX) {
            self.close_part();
        }
        let page = self.output.page();
        let place = BlockPlace { kind: BlockType::Data, table: self.number, page, seed: self.seed };
        self.block.seal_into(&place, &mut self.scratch);
        self.output.append(&self.scratch);
        let handle = BlockHandle { page, pages: self.output.page() - page };
        if let Some(cache) = self.kept_in.take().filter(|cache| cache.takes(handle)) {
            let kept = cache.insert_copy(self.number, handle, &self.scratch, self.seed);
            assert!(kept.is_some(), "a block that was sealed just now passes its checks");
        }
        let before = self.block_before.as_ref().map(OwnedPosition::borrow);
        self.index.push(&self.block_first.borrow(), before.as_ref(), page);
        self.hashes.append(&mut self.block_hashes);
    }

    /// Builds the index of the blocks so far and leaves the filter to the next
    /// [`TableWriter::write_out`]; they are written at the end.
    fn close_part(&mut self) {
        let separator = self.index.first();
        let records = self.hashes.len() as u32;
        let index = self.index.take_encoded(self.output.page());
        self.parts_bytes += index.len() + self.filter_bytes(self.hashes.len());
        let filter = PartFilter::Wanted(std::mem::take(&mut self.hashes));
        self.parts.push(FinishedPart { separator, records, index, filter });
    }

    /// About how large the filter of so many keys is.
    fn filter_bytes(&self, keys: usize) -> usize {
        let fingerprint_bytes = match self.options.filter {
            FilterWidth::Eight => 1,
            FilterWidth::Sixteen => 2,
        };
        keys * fingerprint_bytes * 5 / 4
    }

    fn wants_filter(&self) -> bool {
        self.filters_done < self.parts.len()
    }

    /// Builds the next part's filter, in two steps and with yields around them.
    async fn build_filter(&mut self) {
        let part = &mut self.parts[self.filters_done];
        self.filters_done += 1;
        let PartFilter::Wanted(hashes) = &mut part.filter else { return };
        self.env.yield_now().await;
        hashes.sort_unstable();
        self.env.yield_now().await;
        let filter = filter::build(self.options.filter, hashes);
        self.filters_failed += u64::from(filter.is_none());
        part.filter = PartFilter::Built(filter);
        self.env.yield_now().await;
    }

    fn append_block(&mut self, kind: BlockType, payload: &[u8]) -> BlockHandle {
        let page = self.output.page();
        self.scratch.clear();
        self.scratch.resize(BLOCK_HEADER_BYTES, 0);
        self.scratch.extend_from_slice(payload);
        seal_block(&mut self.scratch, &BlockPlace { kind, table: self.number, page, seed: self.seed });
        self.output.append(&self.scratch);
        BlockHandle { page, pages: self.output.page() - page }
    }
}

/// The first records, until the unit is chosen by their sizes.
#[derive(Default)]
struct Sample {
    records: Vec<SampledRecord>,
    /// Keys and values, back to back.
    bytes: Vec<u8>,
}

struct SampledRecord {
    partition: Partition,
    namespace: NamespaceId,
    user_bytes: usize,
    value_bytes: usize,
    kind: RecordKind,
    stamp: Stamp,
    expiry_ms: u64,
}

impl Sample {
    fn add(&mut self, key: &Key<'_>, record: &RecordView<'_>) {
        self.bytes.extend_from_slice(key.user);
        self.bytes.extend_from_slice(record.value);
        self.records.push(SampledRecord {
            partition: key.partition,
            namespace: key.namespace,
            user_bytes: key.user.len(),
            value_bytes: record.value.len(),
            kind: record.kind,
            stamp: record.stamp,
            expiry_ms: record.expiry_ms,
        });
    }

    fn sizes(&self) -> Vec<usize> {
        let mut sizes = Vec::with_capacity(self.records.len());
        self.for_each(|position, record| sizes.push(record_bytes(position.user.len(), record, false)));
        sizes
    }

    fn for_each(&self, mut visit: impl FnMut(&Position<'_>, &RecordView<'_>)) {
        let mut rest = self.bytes.as_slice();
        for record in &self.records {
            let (user, after) = rest.split_at(record.user_bytes);
            let (value, after) = after.split_at(record.value_bytes);
            rest = after;
            let position = Position { partition: record.partition, namespace: record.namespace, user };
            let SampledRecord { kind, stamp, expiry_ms, .. } = *record;
            visit(&position, &RecordView { kind, stamp, expiry_ms, value });
        }
    }
}
