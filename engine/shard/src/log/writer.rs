//! Appending and committing.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::rc::Rc;
use std::task::{Poll, Waker};

use pinion_env::{Env, File, WriteMode};

use super::files::{SegmentFiles, segment_name};
use super::format::{BLOCK_HEADER_BYTES, Binding};
use super::staging::Staging;
use super::{AppendError, LogOp, LogPosition, LogStats};
use crate::error::{Error, Result};
use crate::quarters::Quarters;
use crate::stamp::{HybridTime, Stamp};

/// A shard's log, open for writing. Comes from [`super::LogReplay::finish`].
///
/// One task commits; everyone appends. Dropping the log stops its background work; what was staged
/// and not committed is lost, as in a crash.
pub struct Log<E: Env> {
    files: Rc<SegmentFiles<E>>,
    binding: Binding,
    staging: RefCell<Staging>,
    /// The segment that blocks are written to now.
    active: RefCell<Option<(u32, E::File)>>,
    /// Ids of the segments before it that still hold something, in order.
    older: RefCell<VecDeque<u32>>,
    segment_bytes: u32,
    start: LogPosition,
    /// End of the last record staged.
    staged_through: Cell<LogPosition>,
    next_number: Cell<u64>,
    synced_through: Cell<LogPosition>,
    /// End of the last block that holds records.
    records_through: Cell<LogPosition>,
    /// The greatest mark that is durable.
    proven_through: Cell<LogPosition>,
    clock_ceiling: Cell<HybridTime>,
    clock_ceiling_durable: Cell<HybridTime>,
    committing: Cell<bool>,
    committer: Cell<Option<Waker>>,
    commit_times: RefCell<Quarters>,
}

/// What replay hands over.
pub(super) struct LogStart {
    pub(super) first_segment: u32,
    pub(super) older: VecDeque<u32>,
    pub(super) next_number: u64,
    pub(super) end: LogPosition,
    pub(super) clock_ceiling: HybridTime,
}

impl<E: Env> Log<E> {
    pub(super) fn new(files: Rc<SegmentFiles<E>>, binding: Binding, start: LogStart) -> Self {
        let first = LogPosition::new(start.first_segment, 0);
        let (options, unit_bytes) = (&files.options, files.unit_bytes);
        let staging = Staging::new(options, unit_bytes, start.first_segment, binding.seed);
        let segment_bytes = options.segment_bytes;
        Self {
            files,
            binding,
            staging: RefCell::new(staging),
            active: RefCell::new(None),
            older: RefCell::new(start.older),
            segment_bytes,
            start: first,
            staged_through: Cell::new(first),
            next_number: Cell::new(start.next_number),
            synced_through: Cell::new(start.end),
            records_through: Cell::new(start.end),
            proven_through: Cell::new(LogPosition::ZERO),
            clock_ceiling: Cell::new(start.clock_ceiling),
            clock_ceiling_durable: Cell::new(start.clock_ceiling),
            committing: Cell::new(false),
            committer: Cell::new(None),
            commit_times: RefCell::default(),
        }
    }

    /// Stages one record: all operations or none will be replayed. Answers with the record's
    /// position; it is durable once a commit returns that position or a later one.
    ///
    /// Allocates nothing unless the record is larger than a usual block or the queue is longer
    /// than it ever was.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was staged then.
    pub fn append(&self, stamp: Stamp, ops: &[LogOp<'_>]) -> Result<LogPosition, AppendError> {
        if self.files.health().is_refusing() {
            return Err(self.refusal());
        }
        let position = self.staging.borrow_mut().append(stamp, ops)?;
        self.staged_through.set(position);
        if let Some(committer) = self.committer.take() {
            committer.wake();
        }
        Ok(position)
    }

    #[cold]
    fn refusal(&self) -> AppendError {
        match self.files.health().stopped() {
            Some(Error::StorageFailed(what)) => AppendError::Failed(what),
            Some(other) => AppendError::Failed(other.to_string().into()),
            None => AppendError::DiskFull,
        }
    }

    /// Waits until a record is staged, or the log has stopped.
    pub fn staged(&self) -> impl Future<Output = ()> {
        std::future::poll_fn(|context| {
            if self.has_staged() || self.files.health().stopped().is_some() {
                return Poll::Ready(());
            }
            self.committer.set(Some(context.waker().clone()));
            Poll::Pending
        })
    }

    /// Whether a record is staged and not being written.
    pub fn has_staged(&self) -> bool {
        self.staging.borrow().has_records()
    }

    /// Writes the oldest staged block, which usually holds everything staged, and returns how far
    /// the log is durable now. Writes nothing if nothing is staged. Waits for space if no segment
    /// can be made.
    ///
    /// # Errors
    /// [`Error::StorageFailed`] after the first failed write, for ever; [`Error::ShuttingDown`]
    /// when the log was shut down while waiting for a segment.
    ///
    /// # Panics
    /// When another commit is in flight.
    pub async fn commit(&self) -> Result<LogPosition> {
        if let Some(error) = self.files.health().stopped() {
            return Err(error);
        }
        let in_flight = InFlight::new(self);
        let segment = self.staging.borrow().front_segment();
        let Some(segment) = segment else { return Ok(self.synced_through.get()) };
        self.activate(segment).await?;
        // Taken only now: the block filled up while the segment was made.
        let mut block = self.staging.borrow_mut().take_front().expect("its segment was just looked up");
        let unit_bytes = self.staging.borrow().unit_bytes();
        let header = block.header(
            unit_bytes,
            self.next_number.get(),
            self.synced_through.get(),
            self.clock_ceiling.get(),
        );
        assert!(header.segment == segment && header.end().offset() <= self.segment_bytes);
        block.encode_header(&header, &self.binding);
        let bytes = header.block_bytes as usize;
        let submitted = self.files.env.now();
        let write = {
            let active = self.active.borrow();
            let (_, file) = active.as_ref().expect("the segment was just activated");
            file.write(u64::from(block.offset), block.buffer, 0..bytes, WriteMode::Durable)
        };
        self.next_number.set(header.number + 1);
        in_flight.writing.set(true);
        let (written, buffer) = write.await;
        in_flight.writing.set(false);
        if let Err(error) = written {
            let path = self.files.path(segment);
            let what =
                format!("{}: writing {bytes} bytes at {} failed: {error}", path.display(), block.offset);
            return Err(self.files.health().fail(what));
        }
        let took = self.files.env.now().nanos().saturating_sub(submitted.nanos());
        self.commit_times.borrow_mut().count(took, 1);
        self.staging.borrow_mut().written(&header, buffer);
        self.proven_through.set(header.synced_through);
        self.synced_through.set(header.end());
        if header.records > 0 {
            self.records_through.set(header.end());
        }
        self.clock_ceiling_durable.set(header.clock_ceiling);
        self.files.count(|stats| {
            stats.commits += 1;
            stats.records += u64::from(header.records);
            stats.logged_bytes += u64::from(header.used_bytes) - BLOCK_HEADER_BYTES as u64;
            stats.written_bytes += u64::from(header.block_bytes);
        });
        if header.end().offset() >= self.segment_bytes / 2 {
            self.files.want(segment + 1);
        }
        Ok(self.synced_through.get())
    }

    /// Like [`Log::commit`], but writes an empty block if nothing is staged: it proves the block
    /// before it and carries the clock's ceiling.
    ///
    /// # Errors
    /// As [`Log::commit`].
    ///
    /// # Panics
    /// As [`Log::commit`].
    pub async fn commit_mark(&self) -> Result<LogPosition> {
        if let Some(error) = self.files.health().stopped() {
            return Err(error);
        }
        self.staging.borrow_mut().stage_mark();
        self.commit().await
    }

    /// Whether the last block with records is not yet proven by a later one, or the clock's ceiling
    /// is not durable: time for [`Log::commit_mark`] when nothing else is to do.
    pub fn needs_mark(&self) -> bool {
        self.proven_through.get() < self.records_through.get()
            || self.clock_ceiling_durable() < self.clock_ceiling()
    }

    /// Makes the segment that blocks go to the active one.
    async fn activate(&self, segment: u32) -> Result<()> {
        let current = self.active.borrow().as_ref().map(|(id, _)| *id);
        if current == Some(segment) {
            return Ok(());
        }
        let file = self.files.take(segment).await?;
        if let Some(current) = current {
            self.older.borrow_mut().push_back(current);
        }
        *self.active.borrow_mut() = Some((segment, file));
        Ok(())
    }

    /// Says that everything at or before `position` is held by tables that the manifest names
    /// durably, and that the manifest has recorded `position`: older segments are used again or
    /// removed.
    pub fn release(&self, position: LogPosition) {
        let mut released = Vec::new();
        let mut older = self.older.borrow_mut();
        while older.front().is_some_and(|id| *id < position.segment()) {
            released.extend(older.pop_front().map(segment_name));
        }
        drop(older);
        if !released.is_empty() {
            self.files.recycle(released);
        }
    }

    /// Where this log starts writing: everything replayed lies before it. After a salvage the
    /// damage is behind once a table holds what was replayed and this position is released.
    pub fn start(&self) -> LogPosition {
        self.start
    }

    /// Position of the last record staged; [`Log::start`] before the first.
    pub fn position(&self) -> LogPosition {
        self.staged_through.get()
    }

    /// Whether a commit is in flight.
    pub fn is_writing(&self) -> bool {
        self.committing.get()
    }

    /// How far the log is durable.
    pub fn synced_through(&self) -> LogPosition {
        self.synced_through.get()
    }

    /// From now on blocks carry this clock ceiling; it never goes back.
    pub fn set_clock_ceiling(&self, ceiling: HybridTime) {
        self.clock_ceiling.set(self.clock_ceiling.get().max(ceiling));
    }

    /// The ceiling that the next block carries.
    pub fn clock_ceiling(&self) -> HybridTime {
        self.clock_ceiling.get()
    }

    /// The greatest ceiling that is durable.
    pub fn clock_ceiling_durable(&self) -> HybridTime {
        self.clock_ceiling_durable.get()
    }

    /// Whether appends are refused because no segment can be made.
    pub fn is_disk_full(&self) -> bool {
        self.files.health().is_disk_full()
    }

    /// Why the log has stopped, if it has.
    pub fn failure(&self) -> Option<Error> {
        self.files.health().stopped()
    }

    /// Ends waiting and background work. Commit what must be kept first.
    pub fn shut_down(&self) {
        self.files.health().stop();
        self.files.wake();
        if let Some(committer) = self.committer.take() {
            committer.wake();
        }
    }

    /// What the log has done since it was opened.
    pub fn stats(&self) -> LogStats {
        LogStats { queued_bytes: self.staging.borrow().queued_bytes(), ..self.files.stats.get() }
    }

    /// How long commits took since the log was opened, from the start of a block's durable write until the
    /// log saw it done; their sum is [`LogStats::commits`]. A write that failed is not among them.
    pub fn commit_times(&self) -> Quarters {
        self.commit_times.borrow().clone()
    }

    /// Segments that hold something, the active one included.
    pub fn segments(&self) -> usize {
        self.older.borrow().len() + usize::from(self.active.borrow().is_some())
    }
}

impl<E: Env> Drop for Log<E> {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Held while a commit runs. A commit that is dropped half-way leaves a write whose fate is
/// unknown, which is a failure like any other.
struct InFlight<'a, E: Env> {
    log: &'a Log<E>,
    writing: Cell<bool>,
}

impl<'a, E: Env> InFlight<'a, E> {
    fn new(log: &'a Log<E>) -> Self {
        assert!(!log.committing.replace(true), "one commit at a time");
        Self { log, writing: Cell::new(false) }
    }
}

impl<E: Env> Drop for InFlight<'_, E> {
    fn drop(&mut self) {
        self.log.committing.set(false);
        if self.writing.get() {
            self.log.files.health().fail("a commit was abandoned while its write was in flight");
        }
    }
}
