//! Little-endian reading and writing of the engine's file formats.
//!
//! A [`Decoder`] never reads past its bytes and never trusts a length: every read says whether
//! there was enough, and the caller turns `None` into a [`crate::Corruption`] with file and offset.

use crate::key::{NamespaceId, OwnedPosition, Partition, Position};
use crate::stamp::Stamp;

/// The greatest number that a file may say of something that is counted up: blocks, files, runs,
/// changes, starts. More than there can have been, and room to count on.
pub(crate) const COUNTED_MAX: u64 = 1 << 62;

/// Reads fields from the front of a byte slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read yet.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn stamp(&mut self) -> Option<Stamp> {
        self.array().map(Stamp::from_bytes)
    }

    /// Partition u16, namespace u32, key length u16, key.
    pub(crate) fn position(&mut self) -> Option<OwnedPosition> {
        let partition = Partition(self.u16()?);
        let namespace = NamespaceId(self.u32()?);
        let length = self.u16()?;
        let user = self.bytes(usize::from(length))?.to_vec();
        Some(OwnedPosition { partition, namespace, user })
    }
}

/// Appends the encoding that [`Decoder::position`] reads.
pub(crate) fn put_position(out: &mut Vec<u8>, position: &Position<'_>) {
    out.extend_from_slice(&position.partition.0.to_le_bytes());
    out.extend_from_slice(&position.namespace.0.to_le_bytes());
    out.extend_from_slice(&(position.user.len() as u16).to_le_bytes());
    out.extend_from_slice(position.user);
}
