//! Reads a whole table and compares everything with everything: each block's checksum and layout,
//! the order of records, index and filters against the records, the properties against a fresh
//! count, the checksum of the whole file. For the scrubber, the inspecting tools and the tests.
//!
//! One step reads at most 128 KiB (or one larger block), so that a caller can pace it.

use std::path::Path;
use std::rc::Rc;

use pinion_env::{AlignedBuf, Env, PAGE_BYTES};
use xxhash_rust::xxh3::Xxh3;

use super::WINDOW_BYTES;
use super::block::tag_of;
use super::format::{Damage, Footer};
use super::meta::TableMeta;
use super::reader::{BlockAt, Table};
use super::tally::Tally;
use crate::error::Result;
use crate::identity::Identity;
use crate::key::key_hash;

/// What a verification looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// Data blocks.
    pub blocks: u64,
    /// Records.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Parts without a filter; no damage.
    pub filters_missing: u64,
}

/// Verifies the table of a number, without a manifest, or against what the manifest says.
///
/// # Errors
/// [`crate::Error::Io`]; [`crate::Error::Damaged`] with the first damage found.
pub async fn verify_table<E: Env>(
    env: &E,
    dir: &Path,
    number: u64,
    expected: Option<TableMeta>,
    identity: &Identity,
) -> Result<VerifyReport> {
    let table = match expected {
        Some(meta) => Table::open(env, dir, meta, identity).await?,
        None => Table::open_number(env, dir, number, identity).await?,
    };
    let mut verifier = TableVerifier::new(table);
    while !verifier.step().await? {
        env.yield_now().await;
    }
    Ok(verifier.report())
}

/// A verification that is under way.
pub struct TableVerifier<E: Env> {
    table: Rc<Table<E>>,
    next: Option<BlockAt>,
    /// First page that was not read yet.
    page: u32,
    buffer: AlignedBuf,
    checksum: Xxh3,
    tally: Tally,
    report: VerifyReport,
    done: bool,
}

impl<E: Env> TableVerifier<E> {
    /// Starts with the first block.
    pub fn new(table: Rc<Table<E>>) -> Self {
        Self {
            next: Some(table.first_block()),
            page: 0,
            buffer: AlignedBuf::default(),
            checksum: Xxh3::with_seed(table.seed()),
            tally: Tally::default(),
            report: VerifyReport {
                filters_missing: table.filters_missing() as u64,
                ..VerifyReport::default()
            },
            done: false,
            table,
        }
    }

    /// Looks at the next 128 KiB; says whether that was the end.
    ///
    /// # Errors
    /// As for [`verify_table`]; the verification is over then.
    pub async fn step(&mut self) -> Result<bool> {
        if self.done {
            return Ok(true);
        }
        if self.page < self.table.data_pages() {
            self.step_data().await?;
        } else {
            self.done = self.step_rest().await?;
        }
        Ok(self.done)
    }

    /// What it has looked at so far.
    pub const fn report(&self) -> VerifyReport {
        self.report
    }

    async fn step_data(&mut self) -> Result<()> {
        let start = self.page;
        let mut blocks = Vec::new();
        while let Some(at) = self.next {
            let handle = self.table.handle(at);
            let end = handle.page + handle.pages;
            if !blocks.is_empty() && (end - start) as usize * PAGE_BYTES > WINDOW_BYTES {
                break;
            }
            blocks.push(at);
            self.page = end;
            self.next = self.table.after(at);
        }
        self.read(start, self.page).await?;
        for at in blocks {
            let handle = self.table.handle(at);
            let offset = (handle.page - start) as usize * PAGE_BYTES;
            let view = self.table.open_in_order(at, &self.buffer[offset..offset + handle.bytes()])?;
            for index in 0..view.len() {
                let position = view.position(index);
                let hash = key_hash(position.namespace, position.user);
                if !self.table.filter_admits(at, hash) || view.tag(index) != tag_of(hash) {
                    let missed = Damage::new(0, "filter or tag", format!("to admit {position:?}"), "refused");
                    return Err(missed.in_file(self.table.path(), handle.offset()).into());
                }
                self.tally.add(&position, &view.record(index));
            }
            self.report.blocks += 1;
            self.report.records += view.len() as u64;
        }
        Ok(())
    }

    /// The pages between the data and the footer; their content was checked at opening.
    async fn step_rest(&mut self) -> Result<bool> {
        let footer_page = (self.table.meta().file_bytes / PAGE_BYTES as u64) as u32 - 1;
        let end = footer_page.min(self.page + (WINDOW_BYTES / PAGE_BYTES) as u32);
        let start = std::mem::replace(&mut self.page, end);
        if start < end {
            self.read(start, end).await?;
            return Ok(false);
        }
        let computed = self.checksum.digest();
        self.read(footer_page, footer_page + 1).await?;
        let meta = self.table.meta();
        let footer_offset = u64::from(footer_page) * PAGE_BYTES as u64;
        let damaged = |what, expected: String, found: String| {
            Damage::new(0, what, expected, found).in_file(self.table.path(), footer_offset)
        };
        let footer = Footer::decode(&self.buffer[..PAGE_BYTES], self.table.seed())
            .map_err(|damage| damage.in_file(self.table.path(), footer_offset))?;
        if computed != meta.checksum || computed != footer.checksum {
            let found = format!("{:#018x}", footer.checksum);
            return Err(damaged("checksum of the file", format!("{computed:#018x}"), found).into());
        }
        let counted = std::mem::take(&mut self.tally).into_meta(meta.number, meta.file_bytes, meta.checksum);
        if counted != *meta {
            return Err(damaged("table properties", format!("{counted:?}"), format!("{meta:?}")).into());
        }
        Ok(true)
    }

    async fn read(&mut self, from: u32, to: u32) -> Result<()> {
        let bytes = (to - from) as usize * PAGE_BYTES;
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.capacity() < bytes {
            buffer = AlignedBuf::zeroed(bytes.max(WINDOW_BYTES));
        }
        self.buffer = self.table.read_raw(u64::from(from) * PAGE_BYTES as u64, buffer, bytes).await?;
        self.checksum.update(&self.buffer[..bytes]);
        self.report.bytes += bytes as u64;
        Ok(())
    }
}
