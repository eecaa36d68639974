//! Reading a manifest back, and deciding where it ends.
//!
//! Every frame is checked; frame numbers grow by one. A bad frame ends the manifest only if no sound
//! frame header of this file lies anywhere behind it, and only after the snapshot is complete (it
//! was synced before CURRENT named the file).

use std::path::Path;

use pinion_env::{Env, File, OpenMode};

use super::format::{
    Binding, FRAME_HEADER_BYTES, FRAME_STEP_BYTES, FrameFault, FrameHeader, FrameKind, decode_current,
    decode_edit,
};
use super::state::has_room;
use super::{CURRENT_NAME, ManifestState, manifest_name, manifest_number};
use crate::codec::Decoder;
use crate::error::{Corruption, Error, Result};
use crate::log::LOG_DIR;
use crate::small_file::{TEMPORARY_SUFFIX, read_whole};
use crate::together::both;

/// A manifest larger than this is damaged: it would name some hundred thousand tables.
const MANIFEST_BYTES_MAX: u64 = 1 << 30;
const CURRENT_BYTES_MAX: u64 = 64 << 10;

pub(super) struct Found {
    /// `None` if the shard is new.
    pub(super) state: Option<ManifestState>,
    /// The greatest number of any manifest file there is.
    pub(super) last_number: u64,
}

pub(super) async fn read<E: Env>(env: &E, dir: &Path, binding: &Binding) -> Result<Found> {
    let current = dir.join(CURRENT_NAME);
    let entries = env.list(dir).await.map_err(|error| Error::io(dir, error))?;
    let last_number = entries.iter().filter_map(|entry| manifest_number(&entry.name)).max().unwrap_or(0);
    let Some(content) = read_whole(env, &current, CURRENT_BYTES_MAX).await? else {
        refuse_lost_current(env, dir, &current).await?;
        return Ok(Found { state: None, last_number });
    };
    let number = decode_current(&content, binding, &current)?;
    let path = dir.join(manifest_name(number));
    let content = read_whole(env, &path, MANIFEST_BYTES_MAX).await?.ok_or_else(|| Corruption {
        file: path.clone(),
        offset: 0,
        what: "manifest",
        expected: "the file that CURRENT names".into(),
        found: "no such file".into(),
    })?;
    let state = decode(&content, binding, number, &path)?;
    make_durable(env, dir, &path).await?;
    Ok(Found { state: Some(state), last_number })
}

/// What was read may be in the device's cache only, if the process ended in the middle of a write:
/// nobody may act on it before a power cut can no longer take it back.
async fn make_durable<E: Env>(env: &E, dir: &Path, path: &Path) -> Result<()> {
    let file = async { env.open(path, OpenMode::ReadWrite).await?.sync().await };
    let (file, name) = both(file, env.sync_dir(dir)).await;
    file.and(name).map_err(|error| Error::io(path, error))
}

/// A shard has a manifest before it has a table or a log segment.
async fn refuse_lost_current<E: Env>(env: &E, dir: &Path, current: &Path) -> Result<()> {
    for part in ["table", LOG_DIR] {
        let files = env.list(&dir.join(part)).await.unwrap_or_default();
        if let Some(file) = files.iter().find(|file| !file.name.ends_with(TEMPORARY_SUFFIX)) {
            return Err(Corruption {
                file: current.to_path_buf(),
                offset: 0,
                what: "manifest",
                expected: "a file CURRENT beside tables or log segments".into(),
                found: format!("no such file, but {part}/{}", file.name),
            }
            .into());
        }
    }
    Ok(())
}

pub(super) fn decode(content: &[u8], binding: &Binding, number: u64, path: &Path) -> Result<ManifestState> {
    let mut state = ManifestState::default();
    let mut complete = false;
    let mut frames = 0;
    let mut offset = 0;
    while let Some(rest) = content.get(offset..).filter(|rest| !rest.is_empty()) {
        let (header, body) = match frame(rest, binding, number, offset as u32) {
            Ok(found) => found,
            Err(fault) if !complete || sound_frame_behind(content, binding, number, offset) => {
                return Err(fault.error(path, offset as u64));
            }
            Err(_) => break,
        };
        let expected_kind = if complete {
            matches!(header.kind, FrameKind::Edits | FrameKind::Mark)
        } else {
            matches!(header.kind, FrameKind::Snapshot | FrameKind::SnapshotEnd)
        };
        if header.number != frames || !expected_kind {
            let (what, expected) = ("order of manifest frames", u64::from(frames));
            let fault = FrameFault::Field { what, expected, found: u64::from(header.number) };
            return Err(fault.error(path, offset as u64));
        }
        apply(&mut state, body).map_err(|found| Corruption {
            file: path.to_path_buf(),
            offset: offset as u64,
            what: "edits of a manifest frame",
            expected: "edits that fit the state".into(),
            found: found.into(),
        })?;
        complete |= header.kind == FrameKind::SnapshotEnd;
        frames += 1;
        offset += header.frame_bytes as usize;
    }
    if !complete {
        let fault = FrameFault::Field { what: "snapshot of a manifest", expected: 1, found: 0 };
        return Err(fault.error(path, offset as u64));
    }
    Ok(state)
}

fn frame<'a>(
    bytes: &'a [u8],
    binding: &Binding,
    manifest: u64,
    offset: u32,
) -> Result<(FrameHeader, &'a [u8]), FrameFault> {
    let header = FrameHeader::decode(bytes, binding, manifest, offset)?;
    let body = header.body(bytes, binding)?;
    Ok((header, body))
}

fn sound_frame_behind(content: &[u8], binding: &Binding, manifest: u64, offset: usize) -> bool {
    let places = (offset.next_multiple_of(FRAME_STEP_BYTES)..content.len()).step_by(FRAME_STEP_BYTES).skip(1);
    let mut headers = places.filter_map(|at| {
        let bytes = content.get(at..at + FRAME_HEADER_BYTES)?;
        FrameHeader::decode(bytes, binding, manifest, at as u32).ok()
    });
    headers.next().is_some()
}

fn apply(state: &mut ManifestState, body: &[u8]) -> Result<(), &'static str> {
    let mut from = Decoder::new(body);
    while !from.rest().is_empty() {
        let edit = decode_edit(&mut from).ok_or("bytes that are no edit")?;
        if !has_room(&edit) {
            return Err("a number that nothing can count on from");
        }
        state.apply(std::slice::from_ref(&edit))?;
    }
    Ok(())
}
