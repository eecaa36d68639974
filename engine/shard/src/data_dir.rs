//! The data directory of a node: lock, META, catalogue and one directory per shard.
//!
//! A directory that is not empty and not ours is refused. Formatting writes META with incarnation
//! 0, makes the shard directories and an empty catalogue, and ends with the first opening, which
//! raises the incarnation: a crash before that starts over. From incarnation 1 on everything must
//! be there; a missing shard directory is lost data and refused, never made anew.

use std::io;
use std::path::{Path, PathBuf};

use pinion_env::{Env, FileLock, create_dir_all};

use crate::catalogue::{CATALOGUE_NAMES, Catalogue, CatalogueFile};
use crate::error::{Corruption, Error, Result};
use crate::identity::DatabaseId;
use crate::meta::{META_NAMES, Meta};
use crate::small_file::TEMPORARY_SUFFIX;

const LOCK_NAME: &str = "LOCK";
const SHARD_PREFIX: &str = "shard-";

/// What a directory is formatted with; of no effect on one that is formatted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormatOptions {
    /// Partitions of the whole cluster: a power of two from 64 to 16,384.
    pub partitions: u32,
    /// Shards of this node: 1 to `partitions` / 16.
    pub shards: u16,
}

/// An open data directory. Locked until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    meta: Meta,
    _lock: FileLock,
}

impl DataDir {
    /// Locks and opens a data directory, formatting it if it is empty or missing. Raises the
    /// incarnation.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process has it open; [`Error::WrongFormat`] if it holds foreign
    /// files or was written by a newer version; [`Error::Damaged`] if both copies of META are bad or
    /// a shard is missing; [`Error::BadOptions`] if it cannot be formatted like that.
    pub async fn open_or_format<E: Env>(env: &E, path: &Path, options: FormatOptions) -> Result<Self> {
        create_dir_all(env, path).await.map_err(|error| Error::io(path, error))?;
        refuse_foreign(env, path).await?;
        let lock_path = path.join(LOCK_NAME);
        let lock = env.lock(&lock_path).await.map_err(|error| Error::io(&lock_path, error))?;
        let lock = lock.ok_or_else(|| Error::Locked { dir: path.to_path_buf() })?;
        let mut meta = match Meta::load(env, path).await? {
            Some(meta) => meta,
            None => new_meta(env, path, options).await?,
        };
        if meta.incarnation == 0 {
            format(env, path, &meta).await?;
        }
        for shard in 0..meta.shards {
            refuse_missing(env, &shard_path(path, shard)).await?;
        }
        meta.incarnation += 1;
        meta.store(env, path).await?;
        Ok(Self { path: path.to_path_buf(), meta, _lock: lock })
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The directory of a shard.
    pub fn shard_dir(&self, shard: u16) -> PathBuf {
        shard_path(&self.path, shard)
    }

    /// Reads the catalogue of namespaces.
    ///
    /// # Errors
    /// [`Error::Damaged`] if neither copy is sound.
    pub async fn catalogue<E: Env>(&self, env: &E) -> Result<(CatalogueFile<E>, Catalogue)> {
        CatalogueFile::load(env, &self.path).await
    }
}

fn shard_path(dir: &Path, shard: u16) -> PathBuf {
    dir.join(format!("{SHARD_PREFIX}{shard:04}"))
}

/// Whether a file of this name may stand in a data directory before it is formatted.
fn is_harmless(name: &str) -> bool {
    // A file system's own directory at a mount point, and what an interrupted formatting left.
    name == "lost+found" || name == LOCK_NAME || name.ends_with(TEMPORARY_SUFFIX)
}

async fn refuse_foreign<E: Env>(env: &E, path: &Path) -> Result<()> {
    let entries = env.list(path).await.map_err(|error| Error::io(path, error))?;
    let has = |name: &str| entries.iter().any(|entry| entry.name == name);
    if META_NAMES.iter().any(|name| has(name)) {
        return Ok(());
    }
    let Some(other) = entries.iter().find(|entry| !is_harmless(&entry.name)) else { return Ok(()) };
    let ours = other.name.starts_with(SHARD_PREFIX) || CATALOGUE_NAMES.contains(&other.name.as_str());
    let reason = if ours {
        "META is missing although the directory holds data: restore META from a backup".to_owned()
    } else {
        format!("not empty and no Pinion data directory (it holds {}): choose another one", other.name)
    };
    Err(Error::WrongFormat { file: path.to_path_buf(), reason })
}

async fn refuse_missing<E: Env>(env: &E, shard_dir: &Path) -> Result<()> {
    match env.list(shard_dir).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Corruption {
            file: shard_dir.to_path_buf(),
            offset: 0,
            what: "shard directory",
            expected: "a directory with the shard's files".into(),
            found: "no such directory".into(),
        }
        .into()),
        Err(error) => Err(Error::io(shard_dir, error)),
    }
}

async fn new_meta<E: Env>(env: &E, path: &Path, options: FormatOptions) -> Result<Meta> {
    Meta::check(options.partitions, options.shards)?;
    let random = || u128::from(env.random()) << 64 | u128::from(env.random());
    let meta = Meta {
        database: DatabaseId(random()),
        node: random(),
        partitions: options.partitions,
        shards: options.shards,
        incarnation: 0,
    };
    meta.store(env, path).await?;
    Ok(meta)
}

/// Makes what a formatted directory has. Repeatable.
async fn format<E: Env>(env: &E, path: &Path, meta: &Meta) -> Result<()> {
    CatalogueFile::create(env, path).await?;
    for shard in 0..meta.shards {
        let dir = shard_path(path, shard);
        match env.create_dir(&dir).await {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(Error::io(dir, error)),
            _ => {}
        }
    }
    env.sync_dir(path).await.map_err(|error| Error::io(path, error))?;
    // The directory's own name must last too. Directories above its parent may be closed to us, and
    // are then not ours to have made.
    for (height, above) in path.ancestors().skip(1).enumerate() {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match env.sync_dir(above).await {
            Err(error) if height == 0 => return Err(Error::io(above, error)),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Op, TestEnv};

    const OPTIONS: FormatOptions = FormatOptions { partitions: 64, shards: 2 };

    fn open(env: &TestEnv) -> Result<DataDir> {
        env.block_on(DataDir::open_or_format(env, Path::new("/var/pinion"), OPTIONS))
    }

    #[test]
    fn opening_formats_once_and_counts_incarnations() {
        let env = TestEnv::new(1);
        let first = *open(&env).unwrap().meta();
        assert_eq!((first.partitions, first.shards, first.incarnation), (64, 2, 1));
        env.crash();
        let second = open(&env).unwrap();
        assert_eq!(*second.meta(), Meta { incarnation: 2, ..first });
        assert_eq!(second.shard_dir(1), Path::new("/var/pinion/shard-0001"));
        assert_ne!(second.meta().identity(0).seed(), second.meta().identity(1).seed());
        assert_ne!(*open(&TestEnv::new(2)).unwrap().meta(), first);
    }

    #[test]
    fn a_second_process_is_refused() {
        let env = TestEnv::new(1);
        let held = open(&env).unwrap();
        assert!(matches!(open(&env).unwrap_err(), Error::Locked { .. }));
        drop(held);
        open(&env).unwrap();
    }

    #[test]
    fn foreign_and_incomplete_directories_are_refused() {
        let env = TestEnv::new(1);
        env.block_on(create_dir_all(&env, Path::new("/var/pinion"))).unwrap();
        env.put("/var/pinion/notes.txt", b"mine");
        assert!(matches!(open(&env).unwrap_err(), Error::WrongFormat { .. }));
        assert_eq!(env.names("/var/pinion"), ["notes.txt"]);

        let env = TestEnv::new(1);
        open(&env).unwrap();
        for name in META_NAMES {
            env.block_on(env.remove(&Path::new("/var/pinion").join(name))).unwrap();
        }
        assert!(matches!(open(&env).unwrap_err(), Error::WrongFormat { .. }));
    }

    #[test]
    fn a_crash_while_formatting_starts_over() {
        // Every write, sync, rename and directory sync of formatting and the first opening fails once.
        for op in [Op::Write, Op::Sync, Op::SyncDir, Op::Rename] {
            for number in 0.. {
                let env = TestEnv::new(1);
                env.fail(op, "/", number, 1, io::ErrorKind::Other);
                let failed = open(&env).is_err();
                env.heal();
                env.crash();
                let opened = open(&env).unwrap_or_else(|error| panic!("{op:?} {number}: {error}"));
                env.block_on(opened.catalogue(&env)).unwrap();
                if !failed {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_full_disk_can_be_opened() {
        let copy = |name: &str| Path::new("/var/pinion").join(name);
        let incarnation = |env: &TestEnv| open(env).unwrap().meta().incarnation;
        // Before the sound copy is written, two temporary files found no space, and the damaged copy is whole.
        for (damaged, sound, skip) in [("META", "META.2", 1), ("META.2", "META", 3)] {
            let env = TestEnv::new(1);
            open(&env).unwrap();
            env.set_capacity(0);
            let names = env.names("/var/pinion");
            assert_eq!(incarnation(&env), 2);
            assert_eq!(env.names("/var/pinion"), names);

            env.flip(copy(damaged), 20, 1);
            let crashed = env.fork();
            crashed.fail(Op::Write, &format!("/{sound}"), skip, 1, io::ErrorKind::Other);
            open(&crashed).unwrap_err();
            crashed.heal();
            crashed.crash();
            crashed.flip(copy(sound), 20, 1);
            assert_eq!(incarnation(&crashed), 4, "{sound}");
            assert_eq!([incarnation(&env), incarnation(&env)], [3, 4]);

            env.block_on(env.remove(&copy(damaged))).unwrap();
            assert!(matches!(open(&env).unwrap_err(), Error::DiskFull));
        }
    }

    #[test]
    fn a_missing_shard_is_damage() {
        let env = TestEnv::new(1);
        open(&env).unwrap();
        env.block_on(env.rename(Path::new("/var/pinion/shard-0001"), Path::new("/var/gone"))).unwrap();
        env.remove_dir("/var/pinion/shard-0001");
        assert!(matches!(open(&env).unwrap_err(), Error::Damaged(_)));
    }
}
