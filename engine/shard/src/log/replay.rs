//! Reading the log back, and deciding where it ends.
//!
//! Pull based: the caller takes a batch, applies it, and may flush before it takes the next.
//!
//! The rules, with P the place where the next block should start:
//! 1. The first block of a later segment says how far the log went when it was written; what lies
//!    at or after the least of these marks is no part of the log. A segment ends exactly there.
//! 2. A bad block at P before a mark is corruption: the error names file and offset. Marks are
//!    taken from every sound block header ahead, in this segment and all later ones, and from the
//!    manifest's release point. A torn block's own header counts too if it is sound.
//! 3. A bad block at P with no mark beyond P ends the log. That is a torn write that was never
//!    acknowledged, zeros, or a block of the segment's earlier life.
//! 4. Block numbers grow by one and segment ids have no gap; anything else is corruption.
//!
//! Not told apart from a torn write: the very last block, if nothing was written after it. What the
//! log acknowledged last is therefore unproven until [`Log::commit_mark`] or the next commit.
//!
//! [`ReplayMode::Salvage`] ends the log at the damage instead of failing, and keeps the damage for
//! the caller to report. The first block written after that says so (rule 1).
//!
//! Memory: a window of 1 MiB and the block that ends behind it, and 1 MiB that is read ahead.

use std::collections::VecDeque;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use pinion_env::{Env, File, OpenMode};

use super::files::{LogFile, SegmentFiles, made_spare_name, segment_name, spare_name};
use super::format::{
    BLOCK_HEADER_BYTES, BLOCKS_START, Binding, BlockFault, BlockHeader, Ops, RECORD_HEADER_BYTES, RecordHead,
};
use super::scan::{FoundSegment, SegmentReader};
use super::writer::LogStart;
use super::{Log, LogOptions, LogPosition};
use crate::codec::COUNTED_MAX;
use crate::error::{Corruption, Error, Result};
use crate::identity::Identity;
use crate::small_file::{is_no_space, remove_if_there};
use crate::stamp::{HybridTime, Stamp};
use crate::together::both;

/// The log's directory within the shard's.
pub const LOG_DIR: &str = "wal";

/// What to do about damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayMode {
    /// Answer with the error.
    Strict,
    /// Take what lies before the first damage, drop the rest, keep the damage for reporting.
    Salvage,
}

/// The log of one shard while it is read back.
pub struct LogReplay<E: Env> {
    env: E,
    dir: PathBuf,
    binding: Binding,
    mode: ReplayMode,
    /// Records at or before it are held by tables.
    from: LogPosition,
    segments: Vec<FoundSegment>,
    spares: Vec<String>,
    files: Rc<SegmentFiles<E>>,
    /// The segment being read, its reader, and where its next block starts.
    index: usize,
    reader: Option<SegmentReader<E>>,
    offset: u32,
    block: Option<OpenBlock>,
    next_number: Option<u64>,
    /// End of the last sound block.
    end: LogPosition,
    greatest_mark: LogPosition,
    clock_ceiling: HybridTime,
    ended: bool,
    /// How many segments, counted from the first, hold blocks or may.
    used: usize,
    damage: Option<Corruption>,
}

struct OpenBlock {
    header: BlockHeader,
    /// Its place in the reader's window.
    at: usize,
    next_record: usize,
    records_left: u32,
}

/// One record read back: a batch that was written atomically.
#[derive(Debug, Clone)]
pub struct ReplayedBatch<'a> {
    stamp: Stamp,
    position: LogPosition,
    ops: Ops<'a>,
}

impl<'a> ReplayedBatch<'a> {
    /// The stamp of all its operations.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Where the record ends.
    pub fn position(&self) -> LogPosition {
        self.position
    }

    /// The operations, in order.
    pub fn ops(&self) -> Ops<'a> {
        self.ops.clone()
    }
}

/// The file of the segment that writing will begin in. Its zeros take the disk while what is read
/// back takes the processor.
pub struct NextSegmentFile<E: Env> {
    files: Rc<SegmentFiles<E>>,
    is_wanted: bool,
}

impl<E: Env> NextSegmentFile<E> {
    /// Makes it beside the replay, unless a file waits to be used again. Ends when both have ended; a
    /// replay that fails stops it. Having no space is no error: [`LogReplay::finish`] meets it again.
    ///
    /// # Errors
    /// The replay's; [`Error::StorageFailed`] if the file cannot be made for another reason.
    pub async fn beside(self, replay: impl Future<Output = Result<()>>) -> Result<()> {
        let replay = async {
            let replayed = replay.await;
            if replayed.is_err() {
                self.files.health().stop();
            }
            replayed
        };
        let making = async { if self.is_wanted { self.files.make_spare().await } else { Ok(()) } };
        let (replayed, made) = both(replay, making).await;
        replayed?;
        match made {
            Err(error) if !is_no_space(&error) => Err(self.files.cannot_make(&made_spare_name(), &error)),
            _ => Ok(()),
        }
    }
}

impl<E: Env> LogReplay<E> {
    /// Looks through `wal/` in the shard's directory, which exists. `from` is the manifest's
    /// release point.
    ///
    /// # Errors
    /// [`Error::Damaged`] for a gap between segments or a bad segment header, [`Error::WrongFormat`]
    /// for a newer or foreign segment.
    pub async fn open(
        env: &E,
        shard_dir: &Path,
        identity: Identity,
        options: LogOptions,
        from: LogPosition,
    ) -> Result<Self> {
        Self::open_as(env, shard_dir, identity, options, from, ReplayMode::Strict).await
    }

    /// Like [`LogReplay::open`], with a choice about damage.
    ///
    /// # Errors
    /// As [`LogReplay::open`]; when salvaging, damage ends the replay instead.
    pub async fn open_as(
        env: &E,
        shard_dir: &Path,
        identity: Identity,
        options: LogOptions,
        from: LogPosition,
        mode: ReplayMode,
    ) -> Result<Self> {
        options.check()?;
        let dir = &shard_dir.join(LOG_DIR);
        let binding = Binding::new(&identity);
        let first = from.segment().max(1);
        let mut spares = Vec::new();
        let mut segments: Vec<FoundSegment> = Vec::new();
        let entries = env.list(dir).await.map_err(|error| Error::io(dir, error))?;
        for entry in entries {
            let path = dir.join(&entry.name);
            match LogFile::of(&entry.name) {
                LogFile::Segment(id) if id >= first => {
                    let expected = segments.last().map_or(first, |last| last.id + 1);
                    let found = if id == expected {
                        FoundSegment::open(env, id, path.clone(), &binding).await
                    } else {
                        Err(missing(dir, expected, Some(id)))
                    };
                    segments.push(match found {
                        Err(Error::Damaged(damage)) if mode == ReplayMode::Salvage => {
                            FoundSegment::broken(id, path, damage)
                        }
                        found => found?,
                    });
                }
                LogFile::Segment(_) | LogFile::Spare => spares.push(entry.name),
                LogFile::Temporary => {
                    remove_if_there(env, &path).await.map_err(|error| Error::io(&path, error))?;
                }
                LogFile::Foreign => {}
            }
        }
        // Nothing of the first segment is needed if the release point lies at its start.
        if segments.is_empty() && from.offset() > BLOCKS_START {
            return Err(missing(dir, first, None));
        }
        let space = env.space(dir).await.map_err(|error| Error::io(dir, error))?;
        let files = SegmentFiles::new(env.clone(), dir.clone(), binding, options, space.block_bytes);
        Ok(Self {
            env: env.clone(),
            dir: dir.clone(),
            binding,
            mode,
            from,
            segments,
            spares,
            files,
            index: 0,
            reader: None,
            offset: BLOCKS_START,
            block: None,
            next_number: None,
            end: from,
            greatest_mark: from,
            clock_ceiling: HybridTime::default(),
            ended: false,
            used: 0,
            damage: None,
        })
    }

    /// The next batch after the release point; `None` at the end of the log.
    ///
    /// # Errors
    /// [`Error::Damaged`] with file and offset, in strict mode; [`Error::Io`].
    pub async fn next(&mut self) -> Result<Option<ReplayedBatch<'_>>> {
        let (at, position) = loop {
            match self.next_record() {
                Some((_, position)) if position <= self.from => {}
                Some(found) => break found,
                None if self.ended => return Ok(None),
                None => match self.next_block().await {
                    Err(Error::Damaged(damage)) if self.mode == ReplayMode::Salvage => {
                        self.damage = Some(Corruption::clone(&damage));
                        self.used = self.segments.len();
                        self.ended = true;
                    }
                    other => other?,
                },
            }
        };
        let reader = self.reader.as_ref().expect("a record was found in its window");
        let head =
            RecordHead::decode(reader.loaded_at(at, RECORD_HEADER_BYTES)).expect("the record was checked");
        let body = &reader.loaded_at(at, head.bytes as usize)[RECORD_HEADER_BYTES..];
        Ok(Some(ReplayedBatch { stamp: head.stamp, position, ops: Ops::new(body, head.ops) }))
    }

    /// What makes the segment that writing will begin in.
    pub fn next_segment_file(&self) -> NextSegmentFile<E> {
        // The last segment is often one that was prepared and has no block yet: it can be used again.
        let has_unused = self.segments.last().is_some_and(|last| last.first_mark.is_none());
        NextSegmentFile { files: self.files.clone(), is_wanted: self.spares.is_empty() && !has_unused }
    }

    /// The greatest clock ceiling read so far.
    pub fn clock_ceiling(&self) -> HybridTime {
        self.clock_ceiling
    }

    /// End of the last sound block read so far.
    pub fn end(&self) -> LogPosition {
        self.end
    }

    /// What salvage stopped at.
    pub fn damage(&self) -> Option<&Corruption> {
        self.damage.as_ref()
    }

    /// Opens the log for writing, in a new segment: nothing is ever written behind an old tail.
    /// What was read stays until it is released. Returns when the first segment is there or space
    /// ran out (appends then answer so until it returns).
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::StorageFailed`].
    ///
    /// # Panics
    /// Before [`LogReplay::next`] has answered `None`.
    pub async fn finish(mut self) -> Result<Log<E>> {
        assert!(self.ended, "the log is read to its end before it is written to");
        // The disk is waited for once: nothing is written before both are done.
        let tail_synced = self.sync_tail();
        let (tail_synced, first_segment) = both(tail_synced, self.first_segment()).await;
        tail_synced?;
        let first_segment = first_segment?;
        let start = LogStart {
            first_segment,
            older: self.segments.iter().map(|segment| segment.id).collect::<VecDeque<u32>>(),
            next_number: self.next_number.unwrap_or(0),
            end: self.end,
            clock_ceiling: self.clock_ceiling,
        };
        Ok(Log::new(self.files, self.binding, start))
    }

    /// The last block may have been read from the device's cache: its write was cut short by the end
    /// of the process, not of the machine. What is written from now on says that it is durable.
    fn sync_tail(&self) -> impl Future<Output = Result<()>> + use<E> {
        let last = self.segments[..self.used].last().filter(|last| last.damage.is_none());
        let (env, path) = (self.env.clone(), last.map(|last| last.path.clone()));
        async move {
            let Some(path) = path else { return Ok(()) };
            let synced = async { env.open(&path, OpenMode::ReadWrite).await?.sync().await };
            synced.await.map_err(|error| Error::io(&path, error))
        }
    }

    /// Has the segment made that writing begins in.
    async fn first_segment(&mut self) -> Result<u32> {
        self.retire_empty_segments().await?;
        let first = self.segments.last().map_or(self.from.segment().max(1), |last| last.id + 1);
        self.files.keep_or_remove(std::mem::take(&mut self.spares));
        self.files.first_try(first).await?;
        Ok(first)
    }

    /// Segments behind the end that were never written to become spares. Last first and synced one
    /// by one, so that a crash leaves no gap.
    async fn retire_empty_segments(&mut self) -> Result<()> {
        while self.segments.len() > self.used {
            let Some(empty) = self.segments.pop() else { break };
            let spare = spare_name(empty.id);
            let renamed = async {
                self.env.rename(&empty.path, &self.dir.join(&spare)).await?;
                self.env.sync_dir(&self.dir).await
            };
            renamed.await.map_err(|error| Error::io(&empty.path, error))?;
            self.spares.push(spare);
        }
        Ok(())
    }

    /// Place and end position of the open block's next record.
    fn next_record(&mut self) -> Option<(usize, LogPosition)> {
        let block = self.block.as_mut()?;
        if block.records_left == 0 {
            self.block = None;
            return None;
        }
        let at = block.at + block.next_record;
        let head = self.reader.as_ref().and_then(|reader| {
            // The block's records were checked when it was opened.
            RecordHead::decode(reader.loaded_at(at, RECORD_HEADER_BYTES))
        })?;
        block.records_left -= 1;
        block.next_record += head.bytes as usize;
        let end = block.header.offset + block.next_record as u32;
        Some((at, LogPosition::new(block.header.segment, end)))
    }

    /// Opens the next block, moves on to the next segment, or ends the log.
    async fn next_block(&mut self) -> Result<()> {
        let Some(segment) = self.segments.get(self.index) else {
            self.used = self.segments.len();
            self.ended = true;
            return Ok(());
        };
        let id = segment.id;
        let place = LogPosition::new(id, self.offset);
        let limit = self.segments[self.index + 1..].iter().filter_map(|later| later.first_mark).min();
        if limit.is_some_and(|limit| place >= limit) {
            if limit.is_some_and(|limit| limit.segment() == id && place > limit && self.offset > BLOCKS_START)
            {
                return Err(self.corruption_here("end of a log segment", limit.unwrap_or_default().offset()));
            }
            self.next_segment();
            return Ok(());
        }
        if let Some(damage) = &segment.damage {
            return Err(Error::Damaged(damage.clone()));
        }
        if self.reader.is_none() {
            self.reader = Some(SegmentReader::open(&self.env, &segment.path).await?);
        }
        let reader = self.reader.as_mut().expect("just opened");
        match reader.block(&self.binding, id, self.offset).await? {
            Ok((header, at)) => self.open_block(header, at),
            Err(fault) => match limit {
                Some(limit) => Err(self.damaged_before(limit, fault)),
                None => self.end_or_damage(fault).await,
            },
        }
    }

    fn open_block(&mut self, header: BlockHeader, at: usize) -> Result<()> {
        if let Some(expected) = self.next_number
            && expected != header.number
        {
            let what = "number of a block";
            let fault = BlockFault::Elsewhere { what, expected, found: header.number };
            return Err(self.corruption(fault).into());
        }
        if header.synced_through > LogPosition::new(header.segment, header.offset) {
            let fault = BlockFault::Elsewhere {
                what: "mark of a block",
                expected: self.end.0,
                found: header.synced_through.0,
            };
            return Err(self.corruption(fault).into());
        }
        let bounds = [
            ("number of a block", COUNTED_MAX, header.number),
            ("clock ceiling of a block", HybridTime::LAST.0, header.clock_ceiling.0),
        ];
        for (what, expected, found) in bounds {
            if found > expected {
                return Err(self.corruption(BlockFault::Elsewhere { what, expected, found }).into());
            }
        }
        self.check_ops(&header, at)?;
        self.next_number = Some(header.number + 1);
        self.end = self.end.max(header.end());
        self.greatest_mark = self.greatest_mark.max(header.synced_through);
        self.clock_ceiling = self.clock_ceiling.max(header.clock_ceiling);
        self.offset += header.block_bytes;
        self.used = self.index + 1;
        let next_record = BLOCK_HEADER_BYTES;
        self.block = Some(OpenBlock { header, at, next_record, records_left: header.records });
        Ok(())
    }

    /// Records whose checksums are right were written by an engine; if their operations cannot be
    /// read, that is never a torn write.
    fn check_ops(&self, header: &BlockHeader, at: usize) -> Result<()> {
        let reader = self.reader.as_ref().expect("the block was read through it");
        let block = reader.loaded_at(at, header.used_bytes as usize);
        let mut next = BLOCK_HEADER_BYTES;
        for _ in 0..header.records {
            let head = RecordHead::decode(&block[next..]).expect("the record was checked");
            let record = &block[next..next + head.bytes as usize];
            if head.stamp.time > HybridTime::LAST {
                let (what, expected, found) = ("stamp of a record", HybridTime::LAST.0, head.stamp.time.0);
                let fault = BlockFault::Record { at: next as u32, what, expected, found };
                return Err(self.corruption(fault).into());
            }
            if !Ops::new(&record[RECORD_HEADER_BYTES..], head.ops).are_sound() {
                let what = "operations of a record";
                let (expected, found) = (u64::from(head.ops), record.len() as u64);
                let fault = BlockFault::Record { at: next as u32, what, expected, found };
                return Err(self.corruption(fault).into());
            }
            next += record.len();
        }
        Ok(())
    }

    fn next_segment(&mut self) {
        self.index += 1;
        self.offset = BLOCKS_START;
        self.reader = None;
    }

    /// A bad block that a later segment proves to have been good.
    fn damaged_before(&self, limit: LogPosition, fault: BlockFault) -> Error {
        let next = self.segments.get(self.index + 1);
        match next {
            // This segment may well end here: what is missing is the start of the next one.
            Some(next) if next.first_mark.is_none() && limit.segment() > self.segments[self.index].id => {
                BlockFault::Elsewhere { what: "first block of a log segment", expected: 1, found: 0 }
                    .corruption(&next.path, BLOCKS_START)
                    .into()
            }
            _ => self.corruption(fault).into(),
        }
    }

    /// A bad block and no later segment that starts with a good one: the end of the log, unless a
    /// mark ahead proves that there was more.
    async fn end_or_damage(&mut self, fault: BlockFault) -> Result<()> {
        let place = LogPosition::new(self.segments[self.index].id, self.offset);
        let mut used = self.used;
        for (index, segment) in self.segments.iter().enumerate().skip(self.index) {
            if let Some(damage) = &segment.damage {
                return Err(Error::Damaged(damage.clone()));
            }
            let mut reader = SegmentReader::<E>::open(&self.env, &segment.path).await?;
            let from = if index == self.index { self.offset } else { BLOCKS_START };
            let Some(mark) = reader.greatest_mark(&self.binding, segment.id, from).await? else { continue };
            used = index + 1;
            if mark > place {
                // Of a later segment only its start can be what is bad.
                let fault = if index == self.index { fault } else { BlockFault::SegmentEnd };
                return Err(fault.corruption(&segment.path, from).into());
            }
        }
        if self.greatest_mark > place {
            return Err(self.corruption(fault).into());
        }
        self.used = used;
        self.ended = true;
        Ok(())
    }

    fn corruption(&self, fault: BlockFault) -> Corruption {
        fault.corruption(&self.segments[self.index].path, self.offset)
    }

    fn corruption_here(&self, what: &'static str, expected: u32) -> Error {
        let found = u64::from(self.offset);
        self.corruption(BlockFault::Elsewhere { what, expected: u64::from(expected), found }).into()
    }
}

fn missing(dir: &Path, expected: u32, found: Option<u32>) -> Error {
    Corruption {
        file: dir.join(segment_name(expected)),
        offset: 0,
        what: "log segment",
        expected: "a file of this name".into(),
        found: found.map_or_else(|| "no later segment either".into(), |id| format!("segment {id} next")),
    }
    .into()
}
