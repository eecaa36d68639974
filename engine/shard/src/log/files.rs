//! The log's files: making segments ahead of need, using released ones again, removing the rest.
//!
//! A segment is made under a temporary name: header page, zeros in steps with yields between them,
//! sync, rename to its id, directory sync. Only then is it written to, so that every durable write
//! lands in extents that are already written (the kernel refuses the cheap write-through path
//! otherwise; it cost 1.6 to 2 times more per commit when measured) and never needs new space.
//! A released segment only needs the rename: its old blocks carry another segment id.
//!
//! One background task does all of this, and only while there is something to do. When space runs
//! out it says so in [`Health`] and tries again after a growing pause. Any other error stops the
//! log.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use pinion_env::{AlignedBuf, Env, File, OpenMode, TaskClass, WriteMode};

use super::format::{BLOCKS_START, Binding, SegmentHeader};
use super::{LogOptions, LogStats, SEGMENT_ID_MAX};
use crate::error::{Error, Result};
use crate::small_file::{TEMPORARY_SUFFIX, is_no_space, remove_if_there};

/// A new segment is zeroed in steps of this size, with a yield after each.
const ZERO_STEP_BYTES: usize = 512 << 10;
/// The first pause after space ran out; doubles up to [`SPACE_RETRY_MS_MAX`].
const SPACE_RETRY_MS_MIN: u64 = 50;
/// The longest pause between two tries.
const SPACE_RETRY_MS_MAX: u64 = 1_000;

/// The name of a segment's file.
pub(super) fn segment_name(id: u32) -> String {
    format!("{id:010}.log")
}

/// The name of a file kept for reuse that holds nothing.
pub(super) fn spare_name(id: u32) -> String {
    format!("spare-{id:010}.log")
}

/// The name of a spare that was made as one: no segment has its id, and so none becomes a spare of this name.
pub(super) fn made_spare_name() -> String {
    spare_name(0)
}

/// What a file in the log's directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogFile {
    Segment(u32),
    Spare,
    Temporary,
    Foreign,
}

impl LogFile {
    pub(super) fn of(name: &str) -> Self {
        let number = |digits: &str| {
            (digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit()))
                .then(|| digits.parse::<u32>().ok())
                .flatten()
        };
        match name.strip_suffix(".log") {
            Some(stem) => match stem.strip_prefix("spare-") {
                Some(digits) if number(digits).is_some() => Self::Spare,
                _ => number(stem)
                    .filter(|id| (1..=SEGMENT_ID_MAX).contains(id))
                    .map_or(Self::Foreign, Self::Segment),
            },
            None if name.ends_with(TEMPORARY_SUFFIX) => Self::Temporary,
            None => Self::Foreign,
        }
    }
}

/// Whether the log takes work. Shared by the log and its background task.
#[derive(Default)]
pub(super) struct Health {
    failure: RefCell<Option<Arc<str>>>,
    stopping: Cell<bool>,
    disk_full: Cell<bool>,
    /// Any of the above, for one test on the hot path.
    refusing: Cell<bool>,
}

impl Health {
    pub(super) fn is_refusing(&self) -> bool {
        self.refusing.get()
    }

    pub(super) fn is_disk_full(&self) -> bool {
        self.disk_full.get()
    }

    /// The first failure stays.
    pub(super) fn fail(&self, what: impl Into<Arc<str>>) -> Error {
        let mut failure = self.failure.borrow_mut();
        let first = failure.get_or_insert_with(|| what.into()).clone();
        self.refusing.set(true);
        Error::StorageFailed(first)
    }

    pub(super) fn stop(&self) {
        self.stopping.set(true);
        self.refusing.set(true);
    }

    fn set_disk_full(&self, full: bool) {
        self.disk_full.set(full);
        self.refusing.set(full || self.stopping.get() || self.failure.borrow().is_some());
    }

    /// The error of everything that is asked after a failure or [`Health::stop`].
    pub(super) fn stopped(&self) -> Option<Error> {
        match &*self.failure.borrow() {
            Some(failure) => Some(Error::StorageFailed(failure.clone())),
            None => self.stopping.get().then_some(Error::ShuttingDown),
        }
    }
}

/// Makes, recycles and removes segment files.
pub(super) struct SegmentFiles<E: Env> {
    pub(super) env: E,
    dir: PathBuf,
    binding: Binding,
    pub(super) options: LogOptions,
    /// What writes are padded to: a block of the file system.
    pub(super) unit_bytes: u32,
    health: Rc<Health>,
    /// The segment asked for and not there yet.
    wanted: Cell<Option<u32>>,
    /// The segment asked for, made and not taken yet.
    ready: RefCell<Option<(u32, E::File)>>,
    /// Names of files that may be used again.
    spares: RefCell<Vec<String>>,
    /// Names of files to remove.
    doomed: RefCell<Vec<String>>,
    running: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
    pub(super) stats: Cell<LogStats>,
}

impl<E: Env> SegmentFiles<E> {
    pub(super) fn new(
        env: E,
        dir: PathBuf,
        binding: Binding,
        options: LogOptions,
        unit_bytes: u32,
    ) -> Rc<Self> {
        Rc::new(Self {
            env,
            dir,
            binding,
            options,
            unit_bytes,
            health: Rc::default(),
            wanted: Cell::new(None),
            ready: RefCell::new(None),
            spares: RefCell::default(),
            doomed: RefCell::default(),
            running: Cell::new(false),
            waiting: RefCell::default(),
            stats: Cell::default(),
        })
    }

    pub(super) fn health(&self) -> &Rc<Health> {
        &self.health
    }

    pub(super) fn path(&self, segment: u32) -> PathBuf {
        self.dir.join(segment_name(segment))
    }

    /// Asks for a segment to be made. Ids are asked for in order, one at a time.
    pub(super) fn want(self: &Rc<Self>, segment: u32) {
        let ready = self.ready.borrow().as_ref().map(|(id, _)| *id);
        if ready != Some(segment) && self.wanted.get() != Some(segment) {
            debug_assert!(ready.is_none() && self.wanted.get().is_none());
            self.wanted.set(Some(segment));
            self.run();
        }
    }

    /// Waits for the segment asked for.
    pub(super) async fn take(self: &Rc<Self>, segment: u32) -> Result<E::File> {
        self.want(segment);
        if self.ready.borrow().is_none() {
            self.count(|stats| stats.segment_waits += 1);
        }
        self.until(|| self.ready.borrow().is_some()).await?;
        let (id, file) = self.ready.borrow_mut().take().expect("waited for it");
        debug_assert_eq!(id, segment);
        Ok(file)
    }

    /// Waits until the segment asked for is there or space ran out.
    pub(super) async fn first_try(self: &Rc<Self>, segment: u32) -> Result<()> {
        self.want(segment);
        self.until(|| self.ready.borrow().is_some() || self.health.is_disk_full()).await
    }

    /// Waits for a condition that the background task brings about.
    fn until(&self, mut holds: impl FnMut() -> bool) -> impl Future<Output = Result<()>> {
        std::future::poll_fn(move |context| {
            if let Some(error) = self.health.stopped() {
                return Poll::Ready(Err(error));
            }
            if holds() {
                return Poll::Ready(Ok(()));
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
    }

    /// Takes files that hold nothing any more: some are kept as spares, the rest removed.
    pub(super) fn recycle(self: &Rc<Self>, names: Vec<String>) {
        self.keep_or_remove(names);
        self.run();
    }

    /// As [`SegmentFiles::recycle`], but removes nothing yet.
    pub(super) fn keep_or_remove(&self, names: Vec<String>) {
        let mut spares = self.spares.borrow_mut();
        for name in names {
            if spares.len() < self.options.spare_segments_max as usize {
                spares.push(name);
            } else {
                self.doomed.borrow_mut().push(name);
            }
        }
    }

    pub(super) fn wake(&self) {
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// Starts the background task unless it runs.
    fn run(self: &Rc<Self>) {
        if !self.running.replace(true) {
            let files = self.clone();
            self.env.spawn(TaskClass::Flush, async move { files.work().await });
        }
    }

    async fn work(self: Rc<Self>) {
        let mut pause_ms = SPACE_RETRY_MS_MIN;
        while self.health.stopped().is_none() {
            let doomed = self.doomed.borrow_mut().pop();
            if let Some(name) = doomed {
                // A file that cannot be removed is only space: the next opening tries again.
                if self.env.remove(&self.dir.join(name)).await.is_ok() {
                    self.count(|stats| stats.segments_removed += 1);
                }
                continue;
            }
            let Some(segment) = self.wanted.get() else { break };
            match self.prepare(segment).await {
                Ok(file) => {
                    self.wanted.set(None);
                    *self.ready.borrow_mut() = Some((segment, file));
                    self.health.set_disk_full(false);
                    pause_ms = SPACE_RETRY_MS_MIN;
                }
                Err(error) if is_no_space(&error) => {
                    self.health.set_disk_full(true);
                    self.count(|stats| stats.space_waits += 1);
                    self.wake();
                    self.env.sleep(Duration::from_millis(pause_ms)).await;
                    pause_ms = (pause_ms * 2).min(SPACE_RETRY_MS_MAX);
                }
                Err(_) if self.health.stopped().is_some() => {}
                Err(error) => _ = self.cannot_make(&segment_name(segment), &error),
            }
            self.wake();
        }
        self.running.set(false);
        self.wake();
    }

    /// A segment file under its id, durably: a spare if one fits, else a new one.
    async fn prepare(&self, segment: u32) -> io::Result<E::File> {
        loop {
            let spare = self.spares.borrow_mut().pop();
            let Some(name) = spare else { break };
            let path = self.dir.join(&name);
            match self.open_spare(&path).await {
                Some(file) => {
                    self.env.rename(&path, &self.path(segment)).await?;
                    self.sync_dir().await?;
                    self.count(|stats| stats.segments_recycled += 1);
                    return Ok(file);
                }
                // Of another size or unreadable: not worth an error, it holds nothing.
                None => remove_if_there(&self.env, &path).await?,
            }
        }
        self.make_as(&self.path(segment)).await
    }

    /// Makes a file to use as a segment later. There are no spares yet.
    pub(super) async fn make_spare(&self) -> io::Result<()> {
        self.make_as(&self.dir.join(made_spare_name())).await?;
        self.spares.borrow_mut().push(made_spare_name());
        Ok(())
    }

    /// The log ends here, because a file could not be made.
    pub(super) fn cannot_make(&self, name: &str, error: &io::Error) -> Error {
        self.health.fail(format!("{}: cannot be made: {error}", self.dir.join(name).display()))
    }

    /// Makes a new segment file under a name, durably.
    async fn make_as(&self, path: &Path) -> io::Result<E::File> {
        let space = self.env.space(&self.dir).await?;
        let needed = u64::from(self.options.segment_bytes) + self.options.disk_reserve_bytes;
        if space.available_bytes < needed {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let temporary = self.dir.join(format!("segment{TEMPORARY_SUFFIX}"));
        remove_if_there(&self.env, &temporary).await?;
        let made = self.make(&temporary).await;
        if let Err(error) = made {
            // What was allocated goes back at once: others need it more.
            remove_if_there(&self.env, &temporary).await?;
            return Err(error);
        }
        let file = made?;
        self.env.rename(&temporary, path).await?;
        self.sync_dir().await?;
        self.count(|stats| stats.segments_made += 1);
        Ok(file)
    }

    async fn open_spare(&self, path: &Path) -> Option<E::File> {
        let file = self.env.open(path, OpenMode::ReadWrite).await.ok()?;
        let page = BLOCKS_START as usize;
        let (read, buffer) = file.read(0, AlignedBuf::zeroed(page), page).await;
        let header = SegmentHeader::decode(&buffer[..read.ok()?], &self.binding, path).ok()?;
        let wanted = u64::from(self.options.segment_bytes);
        let fits = header.segment_bytes == wanted && file.bytes().await.ok()? == wanted;
        fits.then_some(file)
    }

    async fn make(&self, path: &Path) -> io::Result<E::File> {
        let bytes = self.options.segment_bytes as usize;
        let file = self.env.open(path, OpenMode::CreateNew).await?;
        let mut buffer = AlignedBuf::zeroed(ZERO_STEP_BYTES.min(bytes));
        let header = SegmentHeader { unit_bytes: self.unit_bytes, segment_bytes: bytes as u64 };
        header.encode(&self.binding, &mut buffer);
        let mut written = 0;
        while written < bytes {
            if self.health.stopped().is_some() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let step = buffer.capacity().min(bytes - written);
            let (result, returned) = file.write(written as u64, buffer, 0..step, WriteMode::Unsynced).await;
            buffer = returned;
            result?;
            if written == 0 {
                buffer[..BLOCKS_START as usize].fill(0);
            }
            written += step;
            self.env.yield_now().await;
        }
        file.sync().await?;
        self.count(|stats| stats.syncs += 1);
        Ok(file)
    }

    async fn sync_dir(&self) -> io::Result<()> {
        self.count(|stats| stats.syncs += 1);
        self.env.sync_dir(&self.dir).await
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut LogStats)) {
        let mut stats = self.stats.get();
        change(&mut stats);
        self.stats.set(stats);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        assert_eq!(LogFile::of(&segment_name(7)), LogFile::Segment(7));
        assert_eq!(LogFile::of(&segment_name(SEGMENT_ID_MAX)), LogFile::Segment(SEGMENT_ID_MAX));
        assert_eq!(LogFile::of(&segment_name(u32::MAX)), LogFile::Foreign);
        assert_eq!(LogFile::of(&spare_name(7)), LogFile::Spare);
        assert_eq!(LogFile::of("segment.tmp"), LogFile::Temporary);
        for foreign in ["0000000000.log", "9999999999.log", "1.log", "spare-1.log", "+000000001.log", "notes"]
        {
            assert_eq!(LogFile::of(foreign), LogFile::Foreign, "{foreign}");
        }
    }
}
