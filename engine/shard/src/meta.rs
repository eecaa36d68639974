//! META: what a data directory is. One page, in two copies.
//!
//! The copies are replaced through temporary files that are synced before either is renamed, so a crash
//! leaves both whole, and a damaged one is replaced from the other. The copy with the greater
//! incarnation wins. A disk without space for that is no reason not to start: the copies are then
//! overwritten where they stand, one after the other. Bytes: `engine/FORMAT.md`.

use std::path::{Path, PathBuf};

use pinion_env::{Env, page_round_up};

use crate::codec::COUNTED_MAX;
use crate::error::{Corruption, Error, Result};
use crate::framing::HeaderKind;
use crate::identity::{DatabaseId, Identity};
use crate::key::{PARTITIONS_MAX, PARTITIONS_MIN};
use crate::small_file::{overwrite_whole, read_whole, replace_copies};

/// The two copies' names, in the order they are renamed.
pub const META_NAMES: [&str; 2] = ["META", "META.2"];

const META: HeaderKind = HeaderKind { name: "META", magic: *b"PNME", version: 1, bytes: 80 };
const META_BYTES_MAX: u64 = 64 << 10;
/// The hash that placement, filters and checksums use. A directory that names another is refused.
const HASH_NAME: &[u8; 16] = b"xxh3-64\0\0\0\0\0\0\0\0\0";
/// A shard has at least this many partitions.
const PARTITIONS_PER_SHARD_MIN: u32 = 16;

/// What a data directory is; all but the incarnation is fixed when it is formatted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Random; every checksum in the directory is seeded with it.
    pub database: DatabaseId,
    /// Random; names the node to clients and peers.
    pub node: u128,
    /// How many partitions the whole cluster has.
    pub partitions: u32,
    /// How many shards this node has.
    pub shards: u16,
    /// How often the directory has been opened; 0 only while it is being formatted.
    pub incarnation: u64,
}

impl Meta {
    /// The identity of one of the shards.
    pub fn identity(&self, shard: u16) -> Identity {
        Identity { database: self.database, shard, partitions: self.partitions, shards: self.shards }
    }

    /// Checks partitions and shards as they may be formatted.
    ///
    /// # Errors
    /// [`Error::BadOptions`] naming the limit.
    pub(crate) fn check(partitions: u32, shards: u16) -> Result<()> {
        if !partitions.is_power_of_two() || !(PARTITIONS_MIN..=PARTITIONS_MAX).contains(&partitions) {
            return Err(Error::BadOptions(format!(
                "{partitions} partitions: a power of two from {PARTITIONS_MIN} to {PARTITIONS_MAX} is needed"
            )));
        }
        let shards_max = partitions / PARTITIONS_PER_SHARD_MIN;
        if shards == 0 || u32::from(shards) > shards_max {
            return Err(Error::BadOptions(format!(
                "{shards} shards: {partitions} partitions allow 1 to {shards_max}; format with more partitions"
            )));
        }
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        let mut header = vec![0; META.bytes];
        header[16..32].copy_from_slice(&self.database.0.to_le_bytes());
        header[32..48].copy_from_slice(&self.node.to_le_bytes());
        header[48..52].copy_from_slice(&self.partitions.to_le_bytes());
        header[52..54].copy_from_slice(&self.shards.to_le_bytes());
        header[56..64].copy_from_slice(&self.incarnation.to_le_bytes());
        header[64..80].copy_from_slice(HASH_NAME);
        // Not seeded: the seed stands in here.
        META.seal(&mut header, 0);
        header
    }

    fn decode(bytes: &[u8], file: &Path) -> Result<Self> {
        let mut fields = META.open(bytes, 0).map_err(|fault| META.error(fault, file, 0))?;
        let mut read = || {
            let database = DatabaseId(u128::from_le_bytes(fields.array()?));
            let node = u128::from_le_bytes(fields.array()?);
            let (partitions, shards, _) = (fields.u32()?, fields.u16()?, fields.u16()?);
            let incarnation = fields.u64()?;
            Some((Self { database, node, partitions, shards, incarnation }, fields.array::<16>()?))
        };
        let (meta, hash) = read().expect("80 bytes hold the fields");
        if hash != *HASH_NAME {
            let name = hash.escape_ascii().to_string();
            let reason = format!("it uses the hash {name}, this build only knows xxh3-64");
            return Err(Error::WrongFormat { file: file.to_path_buf(), reason });
        }
        Self::check(meta.partitions, meta.shards)?;
        if meta.incarnation > COUNTED_MAX {
            return Err(Corruption {
                file: file.to_path_buf(),
                offset: 56,
                what: "incarnation",
                expected: format!("at most {COUNTED_MAX}"),
                found: meta.incarnation.to_string(),
            }
            .into());
        }
        Ok(meta)
    }

    /// The newer sound copy of those that are there, each with its path; `None` if there is none.
    ///
    /// # Errors
    /// The error of a copy if no copy is sound; [`Error::WrongFormat`] always, since a newer build's
    /// directory must not be written to.
    pub fn newest(copies: impl IntoIterator<Item = (PathBuf, Vec<u8>)>) -> Result<Option<Self>> {
        Self::newest_of(copies.into_iter().map(|(path, bytes)| Self::decode(&bytes, &path)))
    }

    fn newest_of(copies: impl IntoIterator<Item = Result<Self>>) -> Result<Option<Self>> {
        let mut newest: Option<Self> = None;
        let mut fault = None;
        for copy in copies {
            match copy {
                Ok(meta) if newest.is_none_or(|newest| newest.incarnation < meta.incarnation) => {
                    newest = Some(meta);
                }
                Ok(_) => {}
                Err(error @ Error::WrongFormat { .. }) => return Err(error),
                Err(error) => fault = fault.or(Some(error)),
            }
        }
        match (newest, fault) {
            (None, Some(error)) => Err(error),
            (newest, _) => Ok(newest),
        }
    }

    /// Reads both copies for [`Meta::newest`].
    pub(crate) async fn load<E: Env>(env: &E, dir: &Path) -> Result<Option<Self>> {
        let mut copies = Vec::new();
        for name in META_NAMES {
            let path = dir.join(name);
            match read_whole(env, &path, META_BYTES_MAX).await {
                Ok(Some(bytes)) => copies.push(Self::decode(&bytes, &path)),
                Ok(None) => {}
                // A copy of a size that it cannot have is as bad as one that fails its checksum.
                Err(error @ Error::Damaged(_)) => copies.push(Err(error)),
                Err(error) => return Err(error),
            }
        }
        Self::newest_of(copies)
    }

    /// Replaces both copies, also on a full disk.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::DiskFull`] if there is no space and one of the copies is missing or too short.
    pub(crate) async fn store<E: Env>(&self, env: &E, dir: &Path) -> Result<()> {
        match replace_copies(env, dir, META_NAMES, &self.encode()).await {
            Err(Error::DiskFull) => self.overwrite(env, dir).await,
            stored => stored,
        }
    }

    /// Overwrites both copies. The better one stands until the worse is whole again.
    async fn overwrite<E: Env>(&self, env: &E, dir: &Path) -> Result<()> {
        let content = self.encode();
        let mut copies = Vec::new();
        for path in META_NAMES.map(|name| dir.join(name)) {
            let bytes = match read_whole(env, &path, META_BYTES_MAX).await {
                Ok(Some(bytes)) if bytes.len() >= page_round_up(content.len()) => bytes,
                Ok(_) | Err(Error::Damaged(_)) => return Err(Error::DiskFull),
                Err(error) => return Err(error),
            };
            copies.push((Self::decode(&bytes, &path).ok().map(|found| found.incarnation), path));
        }
        copies.sort();
        for (_, path) in copies {
            overwrite_whole(env, &path, &content).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestEnv, assert_golden};

    const GOLDEN: &[u8] = include_bytes!("../golden/meta.bin");

    fn sample() -> Meta {
        Meta {
            database: DatabaseId(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100),
            node: 0x1f1e_1d1c_1b1a_1918_1716_1514_1312_1110,
            partitions: 1024,
            shards: 3,
            incarnation: 7,
        }
    }

    #[test]
    fn the_format_is_frozen() {
        assert_golden("meta.bin", &sample().encode(), GOLDEN);
        assert_eq!(Meta::decode(GOLDEN, Path::new("META")).unwrap(), sample());
    }

    #[test]
    fn any_flipped_byte_of_one_copy_is_survived() {
        let env = TestEnv::new(1);
        let dir = Path::new("/");
        env.block_on(sample().store(&env, dir)).unwrap();
        for name in META_NAMES {
            for offset in 0..80 {
                let env = env.fork();
                env.flip(dir.join(name), offset, 0x10);
                assert_eq!(env.block_on(Meta::load(&env, dir)).unwrap(), Some(sample()));
            }
        }
        for offset in 0..80 {
            let env = env.fork();
            env.flip("/META", offset, 1);
            env.flip("/META.2", 79 - offset, 1);
            let error = env.block_on(Meta::load(&env, dir)).unwrap_err();
            assert!(matches!(error, Error::Damaged(_)), "{error}");
        }
    }

    #[test]
    fn partitions_and_shards_have_limits() {
        assert!(Meta::check(1024, 64).is_ok());
        for (partitions, shards) in [(1024, 65), (1024, 0), (1000, 1), (32, 1), (32_768, 1)] {
            assert!(matches!(Meta::check(partitions, shards), Err(Error::BadOptions(_))));
        }
    }
}
