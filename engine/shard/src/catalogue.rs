//! The catalogue of namespaces: a pure value, and the file that keeps it.
//!
//! One per node, written by core 0 and handed to the other cores after it is durable. A namespace
//! has a number that is never used again. Dropping takes it out at once; its records are those of a
//! number that was given out and is not live, and shards remove them in their own time (see
//! [`LiveNamespaces`]). `default` is number 0, always there, and can be neither dropped nor emptied.
//!
//! The file is kept in two copies, replaced through temporary files as META's are; the sound copy with
//! the greater sequence wins and takes the other's place. Bytes: `engine/FORMAT.md`.

use std::path::{Path, PathBuf};

use pinion_env::Env;
use xxhash_rust::xxh3::xxh3_64;

use crate::codec::{COUNTED_MAX, Decoder};
use crate::error::{Corruption, Error, Result};
use crate::framing::HeaderKind;
use crate::key::NamespaceId;
use crate::namespaces::LiveNamespaces;
use crate::small_file::{read_whole, replace_copies};

/// Live namespaces, `default` included.
pub const NAMESPACES_MAX: usize = 256;
/// Bytes of a namespace's name.
pub const NAMESPACE_NAME_BYTES_MAX: usize = 64;
/// The name of namespace 0.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The two copies' names, in the order they are renamed.
pub(crate) const CATALOGUE_NAMES: [&str; 2] = ["CATALOGUE", "CATALOGUE.2"];

const CATALOGUE: HeaderKind = HeaderKind { name: "CATALOGUE", magic: *b"PNCA", version: 1, bytes: 48 };
const CATALOGUE_BYTES_MAX: u64 = 1 << 20;

/// One namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Its number; never used for another one.
    pub id: NamespaceId,
    /// Its name: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub name: String,
    /// How long a value lives that is written without a lifetime, in milliseconds; 0 = for ever.
    pub default_ttl_ms: u64,
    /// Reserved for the consistency mode.
    pub mode: u8,
    /// Reserved for the number of replicas.
    pub replication: u8,
}

/// Why the catalogue was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogueError {
    /// The name is empty, too long or has other characters.
    #[error("a namespace's name is 1 to {NAMESPACE_NAME_BYTES_MAX} of A-Z a-z 0-9 . _ -")]
    BadName,
    /// There is one of that name.
    #[error("namespace {0} exists")]
    Exists(String),
    /// There is none of that name.
    #[error("no namespace {0}")]
    NotFound(String),
    /// The limit of live namespaces is reached.
    #[error("there are {NAMESPACES_MAX} namespaces, the most there may be")]
    TooMany,
    /// Numbers are never reused and have run out.
    #[error("all namespace numbers have been used")]
    NoNumbers,
    /// `default` stays.
    #[error("the namespace {DEFAULT_NAMESPACE} can be neither dropped nor emptied")]
    Default,
}

/// The namespaces of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalogue {
    /// Grows with every change.
    sequence: u64,
    next_id: u32,
    /// By number.
    live: Vec<Namespace>,
}

impl Default for Catalogue {
    fn default() -> Self {
        let default = Namespace {
            id: NamespaceId(0),
            name: DEFAULT_NAMESPACE.to_owned(),
            default_ttl_ms: 0,
            mode: 0,
            replication: 0,
        };
        Self { sequence: 1, next_id: 1, live: vec![default] }
    }
}

impl Catalogue {
    /// The live namespaces by number.
    pub fn list(&self) -> &[Namespace] {
        &self.live
    }

    /// The live namespace of a name.
    pub fn get(&self, name: &str) -> Option<&Namespace> {
        self.live.iter().find(|namespace| namespace.name == name)
    }

    /// The live namespace of a number.
    pub fn by_id(&self, id: NamespaceId) -> Option<&Namespace> {
        self.live.binary_search_by_key(&id, |namespace| namespace.id).ok().map(|index| &self.live[index])
    }

    /// What shards must know to tell records of dropped namespaces.
    pub fn live_namespaces(&self) -> LiveNamespaces {
        LiveNamespaces::new(NamespaceId(self.next_id), self.live.iter().map(|namespace| namespace.id))
    }

    /// Grows with every change.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Makes a namespace.
    ///
    /// # Errors
    /// See [`CatalogueError`]; nothing was changed then.
    pub fn create(&mut self, name: &str, default_ttl_ms: u64) -> Result<NamespaceId, CatalogueError> {
        check_name(name)?;
        if self.get(name).is_some() {
            return Err(CatalogueError::Exists(name.to_owned()));
        }
        if self.live.len() >= NAMESPACES_MAX {
            return Err(CatalogueError::TooMany);
        }
        let id = self.take_id()?;
        self.live.push(Namespace { id, name: name.to_owned(), default_ttl_ms, mode: 0, replication: 0 });
        self.sequence += 1;
        Ok(id)
    }

    /// Drops a namespace: its number is refused from now on.
    ///
    /// # Errors
    /// See [`CatalogueError`]; nothing was changed then.
    pub fn drop_namespace(&mut self, name: &str) -> Result<NamespaceId, CatalogueError> {
        let index = self.find_droppable(name)?;
        let namespace = self.live.remove(index);
        self.sequence += 1;
        Ok(namespace.id)
    }

    /// Empties a namespace by giving it a new number, which is returned; the old one is dropped.
    ///
    /// # Errors
    /// See [`CatalogueError`]; nothing was changed then.
    pub fn empty(&mut self, name: &str) -> Result<NamespaceId, CatalogueError> {
        let index = self.find_droppable(name)?;
        let id = self.take_id()?;
        let mut namespace = self.live.remove(index);
        namespace.id = id;
        self.live.push(namespace);
        self.sequence += 1;
        Ok(id)
    }

    /// Changes how long values live that are written from now on; 0 = for ever.
    ///
    /// # Errors
    /// [`CatalogueError::NotFound`].
    pub fn set_ttl(&mut self, name: &str, default_ttl_ms: u64) -> Result<(), CatalogueError> {
        let found = self.live.iter_mut().find(|namespace| namespace.name == name);
        let namespace = found.ok_or_else(|| CatalogueError::NotFound(name.to_owned()))?;
        namespace.default_ttl_ms = default_ttl_ms;
        self.sequence += 1;
        Ok(())
    }

    fn find_droppable(&self, name: &str) -> Result<usize, CatalogueError> {
        if name == DEFAULT_NAMESPACE {
            return Err(CatalogueError::Default);
        }
        let index = self.live.iter().position(|namespace| namespace.name == name);
        index.ok_or_else(|| CatalogueError::NotFound(name.to_owned()))
    }

    fn take_id(&mut self) -> Result<NamespaceId, CatalogueError> {
        let id = NamespaceId(self.next_id);
        self.next_id = self.next_id.checked_add(1).ok_or(CatalogueError::NoNumbers)?;
        Ok(id)
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; CATALOGUE.bytes];
        for namespace in &self.live {
            bytes.extend_from_slice(&namespace.id.0.to_le_bytes());
            bytes.extend_from_slice(&namespace.default_ttl_ms.to_le_bytes());
            bytes.extend_from_slice(&[namespace.mode, namespace.replication, namespace.name.len() as u8]);
            bytes.extend_from_slice(namespace.name.as_bytes());
        }
        let (header, body) = bytes.split_at_mut(CATALOGUE.bytes);
        header[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        header[24..28].copy_from_slice(&self.next_id.to_le_bytes());
        header[28..30].copy_from_slice(&(self.live.len() as u16).to_le_bytes());
        header[32..36].copy_from_slice(&(body.len() as u32).to_le_bytes());
        header[40..48].copy_from_slice(&xxh3_64(body).to_le_bytes());
        CATALOGUE.seal(header, 0);
        bytes
    }

    fn decode(bytes: &[u8], file: &Path) -> Result<Self> {
        let mut fields = CATALOGUE.open(bytes, 0).map_err(|fault| CATALOGUE.error(fault, file, 0))?;
        let mut read = || {
            let (sequence, next_id) = (fields.u64()?, fields.u32()?);
            let (live, _) = (fields.u16()?, fields.u16()?);
            let (body_bytes, _) = (fields.u32()?, fields.u32()?);
            Some((sequence, next_id, live, body_bytes, fields.u64()?))
        };
        let (sequence, next_id, live, body_bytes, found) = read().expect("48 bytes hold the fields");
        let damaged = |expected: String, found: String| Corruption {
            file: file.to_path_buf(),
            offset: CATALOGUE.bytes as u64,
            what: "namespaces",
            expected,
            found,
        };
        let body = &bytes[CATALOGUE.bytes..];
        let body = body
            .get(..body_bytes as usize)
            .ok_or_else(|| damaged(format!("{body_bytes} bytes"), format!("{} bytes", body.len())))?;
        let computed = xxh3_64(body);
        if computed != found {
            return Err(damaged(format!("checksum {computed:016x}"), format!("{found:016x}")).into());
        }
        let mut catalogue = Self { sequence, next_id, live: Vec::new() };
        catalogue
            .decode_body(body, live)
            .ok_or_else(|| damaged("sound entries".into(), "bytes that are none".into()))?;
        Ok(catalogue)
    }

    fn decode_body(&mut self, body: &[u8], live: u16) -> Option<()> {
        let mut from = Decoder::new(body);
        for _ in 0..live {
            let id = NamespaceId(from.u32()?);
            let default_ttl_ms = from.u64()?;
            let (mode, replication, length) = (from.u8()?, from.u8()?, from.u8()?);
            let name = std::str::from_utf8(from.bytes(usize::from(length))?).ok()?.to_owned();
            check_name(&name).ok()?;
            self.live.push(Namespace { id, name, default_ttl_ms, mode, replication });
        }
        let ordered = self.live.windows(2).all(|pair| pair[0].id < pair[1].id);
        let numbered = self.live.last().is_some_and(|last| last.id.0 < self.next_id);
        let default =
            self.live.first().is_some_and(|first| first.id.0 == 0 && first.name == DEFAULT_NAMESPACE);
        let counts_on = self.sequence <= COUNTED_MAX;
        (from.rest().is_empty() && ordered && numbered && default && counts_on).then_some(())
    }
}

fn check_name(name: &str) -> Result<(), CatalogueError> {
    let sound = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    if !sound || name.is_empty() || name.len() > NAMESPACE_NAME_BYTES_MAX {
        return Err(CatalogueError::BadName);
    }
    Ok(())
}

/// The catalogue's file.
pub struct CatalogueFile<E: Env> {
    env: E,
    dir: PathBuf,
}

impl<E: Env> CatalogueFile<E> {
    /// Reads the newer sound copy, and writes it over the other if that is older, missing or
    /// damaged: the loss of one copy later must not bring an old catalogue back, which would give
    /// numbers out a second time. (On a full disk that is left to the next [`CatalogueFile::store`].)
    ///
    /// # Errors
    /// [`Error::Damaged`] if no copy is sound; [`Error::Io`].
    pub async fn load(env: &E, dir: &Path) -> Result<(Self, Catalogue)> {
        let mut newest: Option<Catalogue> = None;
        let mut fault = None;
        let mut same = true;
        for name in CATALOGUE_NAMES {
            let path = dir.join(name);
            let decoded = match read_whole(env, &path, CATALOGUE_BYTES_MAX).await {
                Ok(Some(bytes)) => Catalogue::decode(&bytes, &path),
                Ok(None) => Err(missing(&path)),
                // A copy of a size that it cannot have is as bad as one that fails its checksum.
                Err(error @ Error::Damaged(_)) => Err(error),
                Err(error) => return Err(error),
            };
            same &= decoded.as_ref().is_ok_and(|found| newest.as_ref().is_none_or(|newest| newest == found));
            match decoded {
                Ok(found) if newest.as_ref().is_none_or(|newest| newest.sequence < found.sequence) => {
                    newest = Some(found);
                }
                Ok(_) => {}
                Err(error @ Error::WrongFormat { .. }) => return Err(error),
                Err(error) => fault = fault.or(Some(error)),
            }
        }
        let Some(newest) = newest else { return Err(fault.unwrap_or_else(|| missing(dir))) };
        let file = Self { env: env.clone(), dir: dir.to_path_buf() };
        if !same {
            match file.store(&newest).await {
                Ok(()) | Err(Error::DiskFull) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((file, newest))
    }

    /// Writes the catalogue of a new data directory.
    pub(crate) async fn create(env: &E, dir: &Path) -> Result<()> {
        Self { env: env.clone(), dir: dir.to_path_buf() }.store(&Catalogue::default()).await
    }

    /// Makes a catalogue durable: both copies.
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::Io`]: the next opening finds the old catalogue or the new one.
    pub async fn store(&self, catalogue: &Catalogue) -> Result<()> {
        replace_copies(&self.env, &self.dir, CATALOGUE_NAMES, &catalogue.encode()).await
    }
}

fn missing(path: &Path) -> Error {
    Corruption {
        file: path.to_path_buf(),
        offset: 0,
        what: "catalogue",
        expected: "the file of a formatted directory".into(),
        found: "no such file".into(),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestEnv, assert_golden};

    const GOLDEN: &[u8] = include_bytes!("../golden/catalogue.bin");

    fn sample() -> Catalogue {
        let mut catalogue = Catalogue::default();
        catalogue.create("sessions", 3_600_000).unwrap();
        catalogue.create("old", 0).unwrap();
        catalogue.drop_namespace("old").unwrap();
        catalogue
    }

    #[test]
    fn the_format_is_frozen() {
        assert_golden("catalogue.bin", &sample().encode(), GOLDEN);
        assert_eq!(Catalogue::decode(GOLDEN, Path::new("CATALOGUE")).unwrap(), sample());
    }

    #[test]
    fn numbers_are_never_reused() {
        let mut catalogue = Catalogue::default();
        let first = catalogue.create("a", 0).unwrap();
        assert_eq!(catalogue.drop_namespace("a"), Ok(first));
        let second = catalogue.create("a", 5).unwrap();
        let third = catalogue.empty("a").unwrap();
        assert!(first < second && second < third);
        assert_eq!(catalogue.by_id(third).unwrap().default_ttl_ms, 5);
        assert_eq!(catalogue.by_id(second), None);
        let live = catalogue.live_namespaces();
        assert!(live.is_dropped(first) && live.is_dropped(second));
        assert!(!live.is_dropped(NamespaceId(0)) && !live.is_dropped(third));
        let fourth = catalogue.create("b", 0).unwrap();
        assert!(fourth > third && !live.is_dropped(fourth));
        catalogue.set_ttl("a", 9).unwrap();
        assert_eq!(catalogue.get("a").unwrap().default_ttl_ms, 9);
    }

    #[test]
    fn everything_has_a_limit() {
        let mut catalogue = Catalogue::default();
        let long = "x".repeat(NAMESPACE_NAME_BYTES_MAX + 1);
        for name in ["", "a/b", "a b", "ä", long.as_str()] {
            assert_eq!(catalogue.create(name, 0), Err(CatalogueError::BadName));
        }
        assert_eq!(catalogue.create("default", 0), Err(CatalogueError::Exists("default".into())));
        assert_eq!(catalogue.drop_namespace("default"), Err(CatalogueError::Default));
        assert_eq!(catalogue.empty("default"), Err(CatalogueError::Default));
        assert_eq!(catalogue.set_ttl("none", 1), Err(CatalogueError::NotFound("none".into())));
        for number in 1..NAMESPACES_MAX {
            catalogue.create(&format!("{number}"), 0).unwrap();
        }
        assert_eq!(catalogue.create("more", 0), Err(CatalogueError::TooMany));
        let bytes = catalogue.encode();
        assert_eq!(Catalogue::decode(&bytes, Path::new("C")).unwrap(), catalogue);
        assert!((bytes.len() as u64) < CATALOGUE_BYTES_MAX);
        let before = catalogue.clone();
        catalogue.next_id = u32::MAX;
        assert_eq!(catalogue.empty("2"), Err(CatalogueError::NoNumbers));
        catalogue.next_id = before.next_id;
        assert_eq!(catalogue, before);
        for _ in 0..3_000 {
            catalogue.drop_namespace("1").unwrap();
            catalogue.create("1", 0).unwrap();
        }
    }

    #[test]
    fn any_flipped_byte_of_one_copy_is_survived_and_of_both_found() {
        let env = TestEnv::new(1);
        let dir = Path::new("/");
        let file = CatalogueFile { env: env.clone(), dir: dir.to_path_buf() };
        env.block_on(file.store(&sample())).unwrap();
        for offset in 0..sample().encode().len() as u64 {
            let both = env.fork();
            for name in CATALOGUE_NAMES {
                let env = env.fork();
                env.flip(dir.join(name), offset, 0x80);
                both.flip(dir.join(name), offset, 0x80);
                let (_, found) = env.block_on(CatalogueFile::load(&env, dir)).unwrap();
                assert_eq!(found, sample());
                assert_eq!(env.content("/CATALOGUE"), env.content("/CATALOGUE.2"), "mended");
            }
            let found = both.block_on(CatalogueFile::load(&both, dir)).map(|(_, found)| found);
            assert!(matches!(found, Err(Error::Damaged(_))));
        }
    }

    #[test]
    fn the_newer_copy_wins() {
        let env = TestEnv::new(1);
        let dir = Path::new("/");
        let file = CatalogueFile { env: env.clone(), dir: dir.to_path_buf() };
        env.block_on(file.store(&Catalogue::default())).unwrap();
        let old = env.content("/CATALOGUE.2");
        env.block_on(file.store(&sample())).unwrap();
        for name in CATALOGUE_NAMES {
            let env = env.fork();
            env.put(dir.join(name), &old);
            let (_, found) = env.block_on(CatalogueFile::load(&env, dir)).unwrap();
            assert_eq!(found, sample());
            // The older copy is not left lying in wait for the newer one's end.
            env.crash();
            for name in CATALOGUE_NAMES {
                let env = env.fork();
                env.block_on(env.remove(&dir.join(name))).unwrap();
                let (_, found) = env.block_on(CatalogueFile::load(&env, dir)).unwrap();
                assert_eq!(found, sample());
            }
        }
    }

    #[test]
    fn a_copy_is_mended_when_there_is_room() {
        let env = TestEnv::new(1);
        let dir = Path::new("/");
        let file = CatalogueFile { env: env.clone(), dir: dir.to_path_buf() };
        env.block_on(file.store(&sample())).unwrap();
        env.block_on(env.remove(&dir.join("CATALOGUE"))).unwrap();
        env.set_capacity(1);
        let loaded = env.block_on(CatalogueFile::load(&env, dir)).map(|(_, found)| found);
        assert_eq!(loaded.unwrap(), sample());
        assert!(!env.names("/").contains(&"CATALOGUE".to_owned()));
        env.set_capacity(1 << 20);
        env.block_on(CatalogueFile::load(&env, dir)).map(|_| ()).unwrap();
        assert_eq!(env.content("/CATALOGUE"), env.content("/CATALOGUE.2"));
    }
}
