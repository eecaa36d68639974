//! The manifest of one shard: which tables are live, how far the log is released.
//!
//! A file `MANIFEST-<n>` of checksummed frames; `CURRENT` names the one that counts. The file
//! starts with a snapshot of the state and goes on with one frame per [`Manifest::apply`]. Frames
//! are durable writes into a file that was zero-filled and synced when it was made, so that an
//! applied edit needs no new space. A full file is followed by a new one: snapshot, sync, directory
//! sync, then CURRENT is replaced (temporary file, sync, rename, directory sync), then the old
//! one is removed. The file read at opening is never written to again: the first edit after opening
//! starts a new one, and opening an existing shard writes nothing (it works on a full disk).
//!
//! Each frame of edits is followed by a *mark*, an empty frame in a write of its own. A bad frame
//! with any sound frame behind it is therefore corruption; only a frame whose mark is missing
//! too is a torn write, whose edits were never answered, and ends the manifest.
//!
//! Failure: a failed write or sync is final ([`Error::StorageFailed`]). Making a new file may find
//! no space: that is [`Error::DiskFull`], changes nothing, and may be tried again.

mod format;
mod read;
mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pinion_env::{AlignedBuf, Env, File, OpenMode, WriteMode, page_round_up};

pub use state::{Edit, ManifestState};

use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::small_file::{is_no_space, remove_if_there, replace_whole};
use format::{Binding, FRAME_HEADER_BYTES, FrameKind, encode_current, put_edit, put_frame};

/// A manifest has room for one frame of edits and its mark, and for as much again.
const ROOM_BYTES_MIN: usize = 16 << 10;
/// Snapshots are written in frames of about this size.
const SNAPSHOT_FRAME_BYTES: usize = 64 << 10;

const CURRENT_NAME: &str = "CURRENT";
const MANIFEST_PREFIX: &str = "MANIFEST-";

/// The greatest number of a manifest that is taken for ours: its names have ten digits.
const MANIFEST_NUMBER_MAX: u64 = 9_999_999_998;

fn manifest_name(number: u64) -> String {
    format!("{MANIFEST_PREFIX}{number:010}")
}

fn manifest_number(name: &str) -> Option<u64> {
    let number = name.strip_prefix(MANIFEST_PREFIX)?.parse().ok()?;
    (number <= MANIFEST_NUMBER_MAX && manifest_name(number) == name).then_some(number)
}

/// The open manifest. One task at a time applies edits.
pub struct Manifest<E: Env> {
    env: E,
    dir: PathBuf,
    binding: Binding,
    state: ManifestState,
    /// The greatest number any manifest file may have.
    last_number: u64,
    file: Option<OpenManifest<E::File>>,
    /// Room that a file has beside its snapshot.
    edit_bytes: u32,
    failure: Option<Arc<str>>,
}

/// The file being appended to.
struct OpenManifest<F> {
    file: F,
    number: u64,
    frames: u32,
    offset: u32,
    file_bytes: u32,
    unit_bytes: u32,
}

impl<E: Env> Manifest<E> {
    /// Reads the manifest of the shard in `dir`, or makes the first one of a new shard. Files made
    /// from now on have room for `edit_bytes` beside their snapshot, or for the first edits if those
    /// are larger.
    ///
    /// # Errors
    /// [`Error::Damaged`] with file and offset, also if CURRENT is missing where tables or log
    /// segments are; [`Error::WrongFormat`] for a newer version or another shard's files.
    pub async fn open(
        env: &E,
        dir: &Path,
        identity: Identity,
        edit_bytes: u32,
    ) -> Result<(Self, ManifestState)> {
        let binding = Binding::new(&identity);
        let found = read::read(env, dir, &binding).await?;
        let is_new = found.state.is_none();
        let state = found.state.unwrap_or_default();
        let mut manifest = Self {
            env: env.clone(),
            dir: dir.to_path_buf(),
            binding,
            state: state.clone(),
            last_number: found.last_number,
            file: None,
            edit_bytes,
            failure: None,
        };
        if is_new {
            manifest.rotate(0).await?;
        }
        Ok((manifest, state))
    }

    /// Makes edits durable, all or none.
    ///
    /// # Errors
    /// [`Error::DiskFull`]: none was applied, try again. [`Error::StorageFailed`]: unknown whether
    /// they were, and final.
    ///
    /// # Panics
    /// When an edit does not fit the state: adding a table that is live, removing one that is not.
    pub async fn apply(&mut self, edits: &[Edit]) -> Result<()> {
        if let Some(failure) = &self.failure {
            return Err(Error::StorageFailed(failure.clone()));
        }
        if let Err(what) = self.state.check(edits) {
            panic!("an edit does not fit the manifest: {what}");
        }
        let mut body = Vec::new();
        for edit in edits {
            put_edit(&mut body, edit);
        }
        let has_room = self.file.as_ref().is_some_and(|open| open.has_room(body.len()));
        if !has_room {
            self.rotate(body.len()).await?;
        }
        let open = self.file.as_mut().expect("there is a file with room");
        let written = async {
            open.append(&self.binding, FrameKind::Edits, &body).await?;
            open.append(&self.binding, FrameKind::Mark, &[]).await
        };
        if let Err(error) = written.await {
            let path = self.dir.join(manifest_name(open.number));
            return Err(self.fail(&path, &error));
        }
        self.state.apply(edits).expect("the edits were checked");
        Ok(())
    }

    /// The sum of all edits.
    pub fn state(&self) -> &ManifestState {
        &self.state
    }

    /// Starts a new file with room for at least `body_bytes` of edits.
    async fn rotate(&mut self, body_bytes: usize) -> Result<()> {
        let number = self.last_number + 1;
        let path = self.dir.join(manifest_name(number));
        let made = self.make(number, &path, body_bytes).await;
        let open = match made {
            Ok(open) => open,
            Err(error) => {
                // Nothing counts on it yet. What cannot be removed is an orphan for the next opening.
                let removed = remove_if_there(&self.env, &path).await;
                if is_no_space(&error) && removed.is_ok() {
                    return Err(Error::DiskFull);
                }
                return Err(self.fail(&path, &error));
            }
        };
        let current = encode_current(&self.binding, number);
        match replace_whole(&self.env, &self.dir, CURRENT_NAME, &current).await {
            Ok(()) => {}
            Err(Error::DiskFull) => return Err(Error::DiskFull),
            Err(error) => return Err(self.fail(&path, &io::Error::other(error.to_string()))),
        }
        self.last_number = number;
        let old = self.file.replace(open);
        drop(old);
        self.remove_others(number).await;
        Ok(())
    }

    /// A file with the state as it is now and zeros behind it, synced with its directory.
    async fn make(&self, number: u64, path: &Path, body_bytes: usize) -> io::Result<OpenManifest<E::File>> {
        remove_if_there(&self.env, path).await?;
        let unit_bytes = self.env.space(&self.dir).await?.block_bytes;
        let content = self.encode_snapshot(number, unit_bytes as usize).await;
        let room = (self.edit_bytes as usize).max(2 * body_bytes + ROOM_BYTES_MIN);
        let file_bytes = page_round_up(content.bytes.len() + room);
        let file = self.env.open(path, OpenMode::CreateNew).await?;
        let mut buffer = AlignedBuf::zeroed(SNAPSHOT_FRAME_BYTES);
        let mut written = 0;
        while written < file_bytes {
            let step = buffer.capacity().min(file_bytes - written);
            let rest = content.bytes.get(written..).unwrap_or_default();
            let shared = rest.len().min(step);
            buffer[..shared].copy_from_slice(&rest[..shared]);
            buffer[shared..].fill(0);
            let (result, returned) = file.write(written as u64, buffer, 0..step, WriteMode::Unsynced).await;
            result?;
            buffer = returned;
            written += step;
        }
        file.sync().await?;
        self.env.sync_dir(&self.dir).await?;
        Ok(OpenManifest {
            file,
            number,
            frames: content.frames,
            offset: content.bytes.len() as u32,
            file_bytes: file_bytes as u32,
            unit_bytes,
        })
    }

    async fn encode_snapshot(&self, number: u64, unit_bytes: usize) -> Encoded {
        let mut encoded = Encoded { bytes: Vec::new(), frames: 0 };
        let mut body = Vec::new();
        let mut put = |kind, body: &[u8]| {
            let place = (number, encoded.frames, encoded.bytes.len() as u32);
            put_frame(&mut encoded.bytes, &self.binding, kind, place, body, unit_bytes);
            encoded.frames += 1;
        };
        for edit in self.state.snapshot() {
            put_edit(&mut body, &edit);
            if body.len() >= SNAPSHOT_FRAME_BYTES {
                put(FrameKind::Snapshot, &body);
                body.clear();
                self.env.yield_now().await;
            }
        }
        put(FrameKind::SnapshotEnd, &body);
        encoded
    }

    /// Removes manifests that CURRENT does not name. Failing to is no harm.
    async fn remove_others(&self, number: u64) {
        for entry in self.env.list(&self.dir).await.unwrap_or_default() {
            if manifest_number(&entry.name).is_some_and(|found| found != number) {
                // What cannot be removed now is tried again at the next rotation.
                drop(self.env.remove(&self.dir.join(&entry.name)).await);
            }
        }
    }

    fn fail(&mut self, path: &Path, error: &io::Error) -> Error {
        let what: Arc<str> = format!("{}: {error}", path.display()).into();
        Error::StorageFailed(self.failure.get_or_insert(what).clone())
    }
}

struct Encoded {
    bytes: Vec<u8>,
    frames: u32,
}

impl<F: File> OpenManifest<F> {
    /// Whether a frame of this many bytes and its mark fit.
    fn has_room(&self, body_bytes: usize) -> bool {
        let frame = (FRAME_HEADER_BYTES + body_bytes).next_multiple_of(self.unit_bytes as usize);
        self.offset as usize + frame + self.unit_bytes as usize <= self.file_bytes as usize
    }

    async fn append(&mut self, binding: &Binding, kind: FrameKind, body: &[u8]) -> io::Result<()> {
        let mut frame = Vec::new();
        let place = (self.number, self.frames, self.offset);
        put_frame(&mut frame, binding, kind, place, body, self.unit_bytes as usize);
        let mut buffer = AlignedBuf::zeroed(frame.len());
        buffer[..frame.len()].copy_from_slice(&frame);
        let offset = u64::from(self.offset);
        let (written, _) = self.file.write(offset, buffer, 0..frame.len(), WriteMode::Durable).await;
        self.frames += 1;
        self.offset += frame.len() as u32;
        written
    }
}
