//! An open table: finds the one block that may hold a key, and reads it.
//!
//! Index and filters are in memory from [`Table::open`] on, checked so that no lookup can fail.
//! [`Table::locate`] is synchronous and allocates nothing; [`Table::block`] is at most one aligned
//! read. A block that fails a check is [`Error::Damaged`], never a missing record.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use pinion_env::{AlignedBuf, Env, File, OpenMode, PAGE_BYTES};

use super::block::{Block, BlockView};
use super::filter::Filter;
use super::format::{BlockPlace, BlockType, Damage, Footer, Section, SectionKind, open_block};
use super::index::IndexPart;
use super::meta::TableMeta;
use super::parts::{self, PartEntry};
use super::{BlockHandle, table_path};
use crate::cache::{Admission, BlockCache};
use crate::codec::Decoder;
use crate::error::{Corruption, Error, Result};
use crate::identity::Identity;
use crate::key::{Key, OwnedPosition, Position};

/// An open, immutable table.
pub struct Table<E: Env> {
    meta: TableMeta,
    file: E::File,
    path: PathBuf,
    seed: u64,
    parts: Box<[Part]>,
    resident_bytes: usize,
}

struct Part {
    separator: OwnedPosition,
    records: u32,
    index: IndexPart,
    filter: Option<Filter>,
}

/// A data block by its number within the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BlockAt {
    part: usize,
    entry: usize,
}

impl<E: Env> Table<E> {
    /// Opens a table that the manifest names and loads its index and filters.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Damaged`] if the file is not whole, fails a checksum or is not the
    /// one that `meta` describes.
    pub async fn open(env: &E, dir: &Path, meta: TableMeta, identity: &Identity) -> Result<Rc<Self>> {
        let path = table_path(dir, meta.number);
        let opened = Self::open_number(env, dir, meta.number, identity).await?;
        if opened.meta != meta {
            let expected = format!("{meta:?}");
            let found = format!("{:?}", opened.meta);
            let offset = meta.file_bytes;
            return Err(Corruption { file: path, offset, what: "table properties", expected, found }.into());
        }
        Ok(opened)
    }

    /// Opens a table by its number alone, as tools do that have no manifest.
    ///
    /// # Errors
    /// As for [`Table::open`].
    pub async fn open_number(env: &E, dir: &Path, number: u64, identity: &Identity) -> Result<Rc<Self>> {
        let path = table_path(dir, number);
        let file = env.open(&path, OpenMode::Read).await.map_err(|error| Error::io(&path, error))?;
        let file_bytes = file.bytes().await.map_err(|error| Error::io(&path, error))?;
        if file_bytes < 2 * PAGE_BYTES as u64 || !file_bytes.is_multiple_of(PAGE_BYTES as u64) {
            let whole = Damage::new(0, "size of a table", "two or more whole pages", file_bytes);
            return Err(whole.in_file(&path, 0).into());
        }
        let seed = identity.seed();
        let footer_offset = file_bytes - PAGE_BYTES as u64;
        let page = read_exact(&file, &path, footer_offset, PAGE_BYTES).await?;
        let at_footer = |damage: Damage| damage.in_file(&path, footer_offset);
        let footer = Footer::decode(&page, seed).map_err(at_footer)?;
        if (footer.table, footer.file_bytes) != (number, file_bytes) {
            let expected = format!("table {number} of {file_bytes} bytes");
            let found = format!("table {} of {} bytes", footer.table, footer.file_bytes);
            return Err(at_footer(Damage::new(24, "identity of a table", expected, found)).into());
        }
        let data = footer.section(SectionKind::Data).map_err(at_footer)?;
        let list = footer.section(SectionKind::Parts).map_err(at_footer)?;
        let properties = footer.section(SectionKind::Properties).map_err(at_footer)?;

        // All that is not data, in one read.
        let offset = u64::from(data.page + data.pages) * PAGE_BYTES as u64;
        let bytes = read_exact(&file, &path, offset, (footer_offset - offset) as usize).await?;
        let behind = Behind { path: &path, bytes: &bytes, first_page: data.page + data.pages, number, seed };
        let meta = behind.meta(properties, &footer)?;
        let mut parts = Vec::new();
        for entry in behind.list(list)? {
            parts.push(behind.part(entry)?);
            env.yield_now().await;
        }
        if let Err(damage) = check_cover(&parts, &data, &meta) {
            return Err(damage.in_file(&path, offset).into());
        }
        let resident_bytes = size_of::<Self>() + parts.iter().map(Part::resident_bytes).sum::<usize>();
        Ok(Rc::new(Self { meta, file, path, seed, parts: parts.into(), resident_bytes }))
    }

    /// Its properties.
    pub const fn meta(&self) -> &TableMeta {
        &self.meta
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Memory that index and filters take, in bytes.
    pub const fn resident_bytes(&self) -> usize {
        self.resident_bytes
    }

    /// Records of its largest part, which are the keys of its largest filter.
    pub fn part_records_max(&self) -> u64 {
        self.parts.iter().map(|part| u64::from(part.records)).max().unwrap_or(0)
    }

    /// Parts without a filter, because it could not be built.
    pub fn filters_missing(&self) -> usize {
        self.parts.iter().filter(|part| part.filter.is_none()).count()
    }

    /// The only block that may hold a key; `None` if the table does not hold it.
    pub fn locate(&self, key: &Key<'_>) -> Option<BlockHandle> {
        let position = key.position();
        if position < self.meta.first.borrow() || position > self.meta.last.borrow() {
            return None;
        }
        let part = &self.parts[self.part_of(&position)?];
        if part.filter.as_ref().is_some_and(|filter| !filter.may_contain(key.hash)) {
            return None;
        }
        Some(part.index.handle(part.index.find(&position)?))
    }

    /// A block from the cache, or by one read, which fills the cache.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`].
    pub async fn block(&self, handle: BlockHandle, cache: &BlockCache) -> Result<Rc<Block>> {
        self.block_for(handle, cache, Admission::Point).await
    }

    pub(crate) async fn block_for(
        &self,
        handle: BlockHandle,
        cache: &BlockCache,
        admission: Admission,
    ) -> Result<Rc<Block>> {
        let number = self.meta.number;
        if let Some(block) = cache.get_for(number, handle, admission) {
            return Ok(block);
        }
        let buffer = cache.take_buffer(handle.bytes());
        let (result, buffer) = self.file.read(handle.offset(), buffer, handle.bytes()).await;
        cache.count_read(handle.bytes(), admission);
        check_length(&self.path, handle.offset(), handle.bytes(), result)?;
        let block = Block::open(buffer, handle.bytes(), number, handle.page, self.seed)
            .map_err(|damage| damage.in_file(&self.path, handle.offset()))?;
        let block = Rc::new(block);
        cache.insert(number, handle, block.clone(), admission);
        Ok(block)
    }

    /// Takes a block out of what was read ahead, as [`Table::block_for`] would read it; `None` if it
    /// fails a check.
    pub(crate) fn block_in(
        &self,
        bytes: &[u8],
        handle: BlockHandle,
        cache: &BlockCache,
    ) -> Option<Rc<Block>> {
        cache.insert_copy(self.meta.number, handle, bytes, self.seed)
    }

    /// Reads pages as they are, unchecked. The buffer holds at least `bytes` bytes.
    pub(crate) async fn read_raw(&self, offset: u64, buffer: AlignedBuf, bytes: usize) -> Result<AlignedBuf> {
        let (result, buffer) = self.file.read(offset, buffer, bytes).await;
        check_length(&self.path, offset, bytes, result)?;
        Ok(buffer)
    }

    /// Checks a data block as it was read, and that its records are in order and between the
    /// separators around it: what is rewritten by compaction was looked at in full.
    pub(crate) fn open_in_order<'a>(&self, at: BlockAt, bytes: &'a [u8]) -> Result<BlockView<'a>> {
        let handle = self.handle(at);
        let place =
            BlockPlace { kind: BlockType::Data, table: self.meta.number, page: handle.page, seed: self.seed };
        let checked = BlockView::open(bytes, &place).and_then(|view| {
            self.check_order(at, &view)?;
            Ok(view)
        });
        checked.map_err(|damage| damage.in_file(&self.path, handle.offset()).into())
    }

    fn check_order(&self, at: BlockAt, view: &BlockView<'_>) -> Result<(), Damage> {
        let mut last = view.position(0);
        let index = &self.parts[at.part].index;
        let not_before = index.compare_separator(at.entry, &last).is_le();
        for next in 1..view.len() {
            let next = view.position(next);
            if next <= last {
                return Err(Damage::new(
                    0,
                    "order of records",
                    "ascending",
                    format!("{next:?} after {last:?}"),
                ));
            }
            last = next;
        }
        let before_next = self
            .after(at)
            .is_none_or(|next| self.parts[next.part].index.compare_separator(next.entry, &last).is_gt());
        if not_before && before_next {
            Ok(())
        } else {
            let found = format!("{:?} to {last:?}", view.position(0));
            Err(Damage::new(0, "records of a block", "between its separators", found))
        }
    }

    /// Whether the filter of the block's part admits a hash.
    pub(crate) fn filter_admits(&self, at: BlockAt, hash: u64) -> bool {
        self.parts[at.part].filter.as_ref().is_none_or(|filter| filter.may_contain(hash))
    }

    pub(crate) fn first_block(&self) -> BlockAt {
        BlockAt { part: 0, entry: 0 }
    }

    pub(crate) fn last_block(&self) -> BlockAt {
        let part = self.parts.len() - 1;
        BlockAt { part, entry: self.parts[part].index.len() - 1 }
    }

    /// The block that holds a position if any does; `None` before the first block.
    pub(crate) fn block_of(&self, position: &Position<'_>) -> Option<BlockAt> {
        let part = self.part_of(position)?;
        let entry = self.parts[part].index.find(position)?;
        Some(BlockAt { part, entry })
    }

    pub(crate) fn after(&self, at: BlockAt) -> Option<BlockAt> {
        if at.entry + 1 < self.parts[at.part].index.len() {
            Some(BlockAt { entry: at.entry + 1, ..at })
        } else {
            (at.part + 1 < self.parts.len()).then_some(BlockAt { part: at.part + 1, entry: 0 })
        }
    }

    pub(crate) fn before(&self, at: BlockAt) -> Option<BlockAt> {
        if at.entry > 0 {
            return Some(BlockAt { entry: at.entry - 1, ..at });
        }
        let part = at.part.checked_sub(1)?;
        Some(BlockAt { part, entry: self.parts[part].index.len() - 1 })
    }

    pub(crate) fn handle(&self, at: BlockAt) -> BlockHandle {
        self.parts[at.part].index.handle(at.entry)
    }

    /// The page behind the last data block.
    pub(crate) fn data_pages(&self) -> u32 {
        self.parts.last().map_or(0, |part| part.index.end_page())
    }

    pub(crate) const fn seed(&self) -> u64 {
        self.seed
    }

    /// The last part whose separator is not greater.
    fn part_of(&self, position: &Position<'_>) -> Option<usize> {
        let not_greater = |part: &Part| part.separator.compare(position).is_le();
        self.parts.partition_point(not_greater).checked_sub(1)
    }
}

impl Part {
    fn resident_bytes(&self) -> usize {
        let filter = self.filter.as_ref().map_or(0, Filter::resident_bytes);
        size_of::<Self>() + self.separator.user.len() + self.index.resident_bytes() + filter
    }
}

/// What stands behind the data, and how to check it.
struct Behind<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    first_page: u32,
    number: u64,
    seed: u64,
}

impl<'a> Behind<'a> {
    fn block(&self, kind: BlockType, at: BlockHandle) -> Result<&'a [u8]> {
        let place = BlockPlace { kind, table: self.number, page: at.page, seed: self.seed };
        let start = at.page.checked_sub(self.first_page).map(|pages| pages as usize * PAGE_BYTES);
        let block = start.and_then(|start| self.bytes.get(start..start.checked_add(at.bytes())?));
        block
            .ok_or_else(|| Damage::new(0, "place of a block", "behind the data", format!("{at:?}")))
            .and_then(|block| open_block(block, &place))
            .map_err(|damage| self.located(damage, at))
    }

    fn located(&self, damage: Damage, at: BlockHandle) -> Error {
        damage.in_file(self.path, at.offset()).into()
    }

    fn meta(&self, section: Section, footer: &Footer) -> Result<TableMeta> {
        let at = BlockHandle { page: section.page, pages: section.pages };
        let payload = self.block(BlockType::Properties, at)?;
        let mut fields = Decoder::new(payload);
        let meta = TableMeta::decode(&mut fields)
            .filter(|meta| meta.number == self.number && meta.first <= meta.last);
        let meta = meta.ok_or_else(|| {
            let expected = format!("the properties of table {}", self.number);
            self.located(Damage::new(0, "table properties", expected, "something else"), at)
        })?;
        Ok(TableMeta { file_bytes: footer.file_bytes, checksum: footer.checksum, ..meta })
    }

    fn list(&self, section: Section) -> Result<Vec<PartEntry>> {
        let at = BlockHandle { page: section.page, pages: section.pages };
        parts::decode(self.block(BlockType::Parts, at)?).map_err(|damage| self.located(damage, at))
    }

    fn part(&self, entry: PartEntry) -> Result<Part> {
        let payload = self.block(BlockType::Index, entry.index)?;
        let index = IndexPart::decode(payload).map_err(|damage| self.located(damage, entry.index))?;
        let filter = match entry.filter {
            None => None,
            Some(at) => {
                let decoded = Filter::decode(self.block(BlockType::Filter, at)?);
                Some(decoded.map_err(|damage| self.located(damage, at))?)
            }
        };
        Ok(Part { separator: entry.separator, records: entry.records, index, filter })
    }
}

/// The parts cover the data section without a gap and hold all records.
fn check_cover(parts: &[Part], data: &Section, meta: &TableMeta) -> Result<(), Damage> {
    let mut page = data.page;
    for part in parts {
        let first = part.index.handle(0).page;
        if first != page {
            return Err(Damage::new(0, "first page of a part", page, first));
        }
        page = part.index.end_page();
    }
    if page != data.page + data.pages {
        return Err(Damage::new(0, "end of the data", data.page + data.pages, page));
    }
    let records: u64 = parts.iter().map(|part| u64::from(part.records)).sum();
    if records != meta.records {
        return Err(Damage::new(0, "records of all parts", meta.records, records));
    }
    Ok(())
}

async fn read_exact<F: File>(file: &F, path: &Path, offset: u64, bytes: usize) -> Result<AlignedBuf> {
    let (result, buffer) = file.read(offset, AlignedBuf::zeroed(bytes), bytes).await;
    check_length(path, offset, bytes, result)?;
    Ok(buffer)
}

fn check_length(path: &Path, offset: u64, bytes: usize, read: std::io::Result<usize>) -> Result<()> {
    match read {
        Ok(count) if count == bytes => Ok(()),
        Ok(count) => Err(Damage::new(count, "length of a read", bytes, count).in_file(path, offset).into()),
        Err(error) => Err(Error::io(path, error)),
    }
}
