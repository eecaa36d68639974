//! Reading segments: a window over one file, the read of what follows it, and the search for blocks
//! behind a bad one.

use std::future::{Future, poll_fn};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use pinion_env::{AlignedBuf, Env, File, OpenMode, PAGE_BYTES, page_round_up};

use super::LogPosition;
use super::format::{
    BLOCK_STEP_BYTES, BLOCKS_START, Binding, BlockFault, BlockHeader, SegmentHeader, looks_like_block,
};
use crate::error::{Corruption, Error, Result};

/// How much is read at once; a larger block is read whole.
const WINDOW_BYTES: usize = 1 << 20;
/// How much is read to look at a segment: its header page and the header of its first block.
const HEAD_BYTES: usize = BLOCKS_START as usize + PAGE_BYTES;

/// A segment as it was found.
pub(super) struct FoundSegment {
    pub(super) id: u32,
    pub(super) path: PathBuf,
    /// What its first block says was durable before it; `None` without a sound first block.
    pub(super) first_mark: Option<LogPosition>,
    /// Why it cannot be read at all; only while salvaging.
    pub(super) damage: Option<Arc<Corruption>>,
}

impl FoundSegment {
    /// A segment that cannot be read.
    pub(super) fn broken(id: u32, path: PathBuf, damage: Arc<Corruption>) -> Self {
        Self { id, path, first_mark: None, damage: Some(damage) }
    }

    /// Checks the header page and looks at the first block's header.
    pub(super) async fn open<E: Env>(env: &E, id: u32, path: PathBuf, binding: &Binding) -> Result<Self> {
        let mut reader = SegmentReader::<E>::open_with(env, &path, HEAD_BYTES).await?;
        let bytes = reader.file_bytes;
        let page = reader.window(0, PAGE_BYTES as u32).await?;
        let header = SegmentHeader::decode(page, binding, &path)?;
        if header.segment_bytes != u64::from(bytes) {
            return Err(Corruption {
                file: path,
                offset: u64::from(bytes),
                what: "size of a log segment",
                expected: header.segment_bytes.to_string(),
                found: bytes.to_string(),
            }
            .into());
        }
        let first = reader.window(BLOCKS_START, PAGE_BYTES as u32).await?;
        let first_mark = BlockHeader::decode(first, binding, id, BLOCKS_START).ok();
        let first_mark = first_mark.map(|header| header.synced_through);
        Ok(Self { id, path, first_mark, damage: None })
    }
}

/// Reads a segment through a window that moves forward.
pub(super) struct SegmentReader<E: Env> {
    file: E::File,
    path: PathBuf,
    pub(super) file_bytes: u32,
    /// How much is read at once.
    window_bytes: usize,
    buffer: AlignedBuf,
    /// The window: `buffer[..loaded]` holds the file from `start`.
    start: u32,
    loaded: usize,
    ahead: Option<ReadAhead>,
}

/// What a read gives: how much, and its buffer.
type ReadResult = (io::Result<usize>, AlignedBuf);

/// The read of what follows the window, under way while the window's records are put back.
struct ReadAhead {
    start: u32,
    span: usize,
    reading: Pin<Box<dyn Future<Output = ReadResult>>>,
    /// What it gave, if it has ended and nobody has taken it.
    ended: Option<ReadResult>,
}

impl ReadAhead {
    /// Starts the read: it is asked for when it is first polled.
    async fn start(start: u32, span: usize, reading: Pin<Box<dyn Future<Output = ReadResult>>>) -> Self {
        let mut ahead = Self { start, span, reading, ended: None };
        poll_fn(|context| {
            if let Poll::Ready(result) = ahead.reading.as_mut().poll(context) {
                ahead.ended = Some(result);
            }
            Poll::Ready(())
        })
        .await;
        ahead
    }

    async fn end(self) -> ReadResult {
        match self.ended {
            Some(result) => result,
            None => self.reading.await,
        }
    }
}

impl<E: Env> SegmentReader<E> {
    pub(super) async fn open(env: &E, path: &Path) -> Result<Self> {
        Self::open_with(env, path, WINDOW_BYTES).await
    }

    async fn open_with(env: &E, path: &Path, window_bytes: usize) -> Result<Self> {
        let file = env.open(path, OpenMode::Read).await.map_err(|error| Error::io(path, error))?;
        let bytes = file.bytes().await.map_err(|error| Error::io(path, error))?;
        let file_bytes = u32::try_from(bytes).map_err(|_| Corruption {
            file: path.to_path_buf(),
            offset: u64::from(u32::MAX),
            what: "size of a log segment",
            expected: "less than 4 GiB".into(),
            found: format!("{bytes} bytes"),
        })?;
        let path = path.to_path_buf();
        let buffer = AlignedBuf::default();
        Ok(Self { file, path, file_bytes, window_bytes, buffer, start: 0, loaded: 0, ahead: None })
    }

    /// The file's bytes from `offset` on: `bytes` of them, fewer only at the end of the file.
    pub(super) async fn window(&mut self, offset: u32, bytes: u32) -> Result<&[u8]> {
        let at = self.load(offset, bytes).await?;
        Ok(self.loaded_at(at, bytes as usize))
    }

    /// Bytes that [`SegmentReader::load`] has brought in, fewer at the end of the file.
    pub(super) fn loaded_at(&self, at: usize, bytes: usize) -> &[u8] {
        let end = (at + bytes).min(self.loaded);
        &self.buffer[at.min(end)..end]
    }

    /// Makes sure that bytes are loaded; gives their place for [`SegmentReader::loaded_at`].
    async fn load(&mut self, offset: u32, bytes: u32) -> Result<usize> {
        while !self.holds(offset, bytes) && self.take_ahead(offset).await? {}
        if !self.holds(offset, bytes) {
            self.ahead = None;
            let start = offset - offset % PAGE_BYTES as u32;
            let span = page_round_up((offset - start) as usize + bytes as usize).max(self.window_bytes);
            let span = self.within_file(start, span);
            let mut buffer = std::mem::take(&mut self.buffer);
            if buffer.capacity() < span {
                buffer = AlignedBuf::zeroed(span);
            }
            self.loaded = 0;
            let (read, buffer) = self.file.read(u64::from(start), buffer, span).await;
            self.buffer = buffer;
            self.loaded = self.check_read(start, span, read)?;
            self.start = start;
        }
        Ok((offset - self.start) as usize)
    }

    /// Whether bytes, up to the end of the file, lie in the window.
    fn holds(&self, offset: u32, bytes: u32) -> bool {
        let wanted_end = offset.saturating_add(bytes).min(self.file_bytes);
        self.loaded > 0 && offset >= self.start && wanted_end as usize <= self.start as usize + self.loaded
    }

    /// Whole pages from `start`, `span` of them or up to the end of the file.
    fn within_file(&self, start: u32, span: usize) -> usize {
        span.min(page_round_up(self.file_bytes.saturating_sub(start) as usize))
    }

    /// How much was read, which must be all that there is.
    fn check_read(&self, start: u32, span: usize, read: io::Result<usize>) -> Result<usize> {
        let loaded = read.map_err(|error| Error::io(&self.path, error))?;
        let there = span.min(self.file_bytes.saturating_sub(start) as usize);
        if loaded < there {
            // Not the end of the file, so not the end of the log either.
            return Err(Corruption {
                file: self.path.clone(),
                offset: u64::from(start) + loaded as u64,
                what: "length of a read",
                expected: format!("{there} bytes"),
                found: format!("{loaded} bytes"),
            }
            .into());
        }
        Ok(loaded)
    }

    /// Starts to read what follows the window, unless that is under way.
    async fn read_ahead(&mut self, buffer: AlignedBuf) {
        let start = self.start + self.loaded as u32;
        if self.ahead.is_some() || start >= self.file_bytes {
            return;
        }
        let span = self.within_file(start, self.window_bytes);
        let buffer = if buffer.capacity() < span { AlignedBuf::zeroed(span) } else { buffer };
        let reading = Box::pin(self.file.read(u64::from(start), buffer, span));
        self.ahead = Some(ReadAhead::start(start, span, reading).await);
    }

    /// Moves the window to `offset` and on by what was read ahead, and reads on. What the window holds
    /// from `offset` on stays: a block may begin in it and end behind it. False when nothing was read
    /// ahead that follows.
    async fn take_ahead(&mut self, offset: u32) -> Result<bool> {
        let Some(ahead) = self.ahead.take() else { return Ok(false) };
        let start = offset - offset % PAGE_BYTES as u32;
        let end = self.start + self.loaded as u32;
        if ahead.start != end || !(self.start..=end).contains(&start) {
            return Ok(false);
        }
        let (from, span) = (ahead.start, ahead.span);
        let (read, behind) = ahead.end().await;
        let read = self.check_read(from, span, read)?;
        let kept = (start - self.start) as usize..self.loaded;
        let loaded = kept.len() + read;
        let room = page_round_up(loaded);
        if self.buffer.capacity() < room {
            let small = std::mem::replace(&mut self.buffer, AlignedBuf::zeroed(room));
            self.buffer[..kept.len()].copy_from_slice(&small[kept.clone()]);
        } else {
            self.buffer.copy_within(kept.clone(), 0);
        }
        self.buffer[kept.len()..loaded].copy_from_slice(&behind[..read]);
        self.start = start;
        self.loaded = loaded;
        self.read_ahead(behind).await;
        Ok(true)
    }

    /// The sound block of `segment` at `offset`, records checked, and its place for
    /// [`SegmentReader::loaded_at`].
    pub(super) async fn block(
        &mut self,
        binding: &Binding,
        segment: u32,
        offset: u32,
    ) -> Result<Result<(BlockHeader, usize), BlockFault>> {
        if offset >= self.file_bytes {
            return Ok(Err(BlockFault::SegmentEnd));
        }
        let bytes = self.window(offset, BLOCK_STEP_BYTES).await?;
        let header = match BlockHeader::decode(bytes, binding, segment, offset) {
            Ok(header) => header,
            Err(fault) => return Ok(Err(fault)),
        };
        if header.block_bytes > self.file_bytes - offset {
            return Ok(Err(BlockFault::SegmentEnd));
        }
        let at = self.load(offset, header.used_bytes).await?;
        self.read_ahead(AlignedBuf::default()).await;
        let block = self.loaded_at(at, header.used_bytes as usize);
        if block.len() < header.used_bytes as usize {
            return Ok(Err(BlockFault::SegmentEnd));
        }
        Ok(header.check_records(block, binding).map(|()| (header, at)))
    }

    /// The greatest mark of any sound block header of `segment` at or after `from`; `None` if there
    /// is no such header.
    pub(super) async fn greatest_mark(
        &mut self,
        binding: &Binding,
        segment: u32,
        from: u32,
    ) -> Result<Option<LogPosition>> {
        let mut greatest = None;
        let mut offset = from.next_multiple_of(BLOCK_STEP_BYTES);
        while offset < self.file_bytes {
            let bytes = self.window(offset, BLOCK_STEP_BYTES).await?;
            if looks_like_block(bytes)
                && let Ok(header) = BlockHeader::decode(bytes, binding, segment, offset)
            {
                greatest = greatest.max(Some(header.synced_through));
            }
            offset += BLOCK_STEP_BYTES;
        }
        Ok(greatest)
    }
}
