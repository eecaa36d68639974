//! The file a table is written into: whole pages, front to back, in large unsynced writes.
//!
//! Bytes are gathered in aligned buffers, 128 KiB by default; full ones wait until
//! [`Output::write_out`].
//! What waits is bounded by what the caller appends between two calls.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use pinion_env::{AlignedBuf, Env, File, PAGE_BYTES, WriteMode};
use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, Result};

/// Buffers kept for reuse.
const FREE_BUFFERS_MAX: usize = 2;

pub(crate) struct Output<E: Env> {
    file: E::File,
    current: AlignedBuf,
    filled: usize,
    ready: VecDeque<AlignedBuf>,
    free: Vec<AlignedBuf>,
    page: u32,
    written_bytes: u64,
    checksum: Xxh3,
}

impl<E: Env> Output<E> {
    pub(crate) fn new(file: E::File, seed: u64, write_bytes: usize) -> Self {
        Self {
            file,
            current: AlignedBuf::zeroed(write_bytes),
            filled: 0,
            ready: VecDeque::new(),
            free: Vec::new(),
            page: 0,
            written_bytes: 0,
            checksum: Xxh3::with_seed(seed),
        }
    }

    /// The page that the next append starts at.
    pub(crate) const fn page(&self) -> u32 {
        self.page
    }

    /// Appends `bytes` and zeros up to a whole page.
    ///
    /// # Panics
    /// When the file outgrows 2^32 pages.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        let pages = bytes.len().div_ceil(PAGE_BYTES);
        let padding = pages * PAGE_BYTES - bytes.len();
        self.put(bytes);
        self.put(&[0; PAGE_BYTES][..padding]);
        let pages = u32::try_from(pages).ok().and_then(|pages| self.page.checked_add(pages));
        self.page = pages.expect("a table stays far below 2^32 pages");
    }

    fn put(&mut self, mut bytes: &[u8]) {
        self.checksum.update(bytes);
        while !bytes.is_empty() {
            let count = bytes.len().min(self.current.capacity() - self.filled);
            let (now, later) = bytes.split_at(count);
            self.current[self.filled..self.filled + count].copy_from_slice(now);
            self.filled += count;
            bytes = later;
            if self.filled == self.current.capacity() {
                let fresh = self.free.pop().unwrap_or_else(|| AlignedBuf::zeroed(self.current.capacity()));
                self.ready.push_back(std::mem::replace(&mut self.current, fresh));
                self.filled = 0;
            }
        }
    }

    /// XXH3-64 of everything appended.
    pub(crate) fn checksum(&self) -> u64 {
        self.checksum.digest()
    }

    /// Whether a full buffer waits.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Writes the full buffers.
    pub(crate) async fn write_out(&mut self, path: &Path) -> Result<()> {
        while let Some(buffer) = self.ready.pop_front() {
            let bytes = buffer.capacity();
            self.write(path, buffer, bytes).await?;
        }
        Ok(())
    }

    /// Writes everything and syncs the file.
    pub(crate) async fn finish(mut self, path: &Path) -> Result<()> {
        self.write_out(path).await?;
        if self.filled > 0 {
            let buffer = std::mem::take(&mut self.current);
            self.write(path, buffer, self.filled).await?;
        }
        self.file.sync().await.map_err(|error| write_error(path, &error))
    }

    async fn write(&mut self, path: &Path, buffer: AlignedBuf, bytes: usize) -> Result<()> {
        let written = self.file.write(self.written_bytes, buffer, 0..bytes, WriteMode::Unsynced);
        let (result, buffer) = written.await;
        result.map_err(|error| write_error(path, &error))?;
        self.written_bytes += bytes as u64;
        if self.free.len() < FREE_BUFFERS_MAX {
            self.free.push(buffer);
        }
        Ok(())
    }
}

/// Running out of space ends by itself; everything else stops the shard.
pub(crate) fn write_error(path: &Path, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull,
        _ => Error::StorageFailed(format!("writing {}: {error}", path.display()).into()),
    }
}
