//! A small data directory with everything in it, and what it must answer.
//!
//! A history in a world writes it: two namespaces, tables of flushes and of a compaction, recycled
//! log segments, records that were overwritten, deleted, that expired, and some that only the log
//! holds. It ends in one of three ways ([`End`]). The content of all files is kept at the end and at
//! some moments before, so that a block can be replaced by what it once was.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Duration;

use pinion_engine::{
    DataDir, FormatOptions, Identity, Key, Lifetime, Meta, NamespaceId, Operation, Options, Origin, Shard,
    WriteOptions,
};
use pinion_env::{AlignedBuf, Env, File, OpenMode, PAGE_BYTES, WriteMode, create_dir_all, page_round_up};

use crate::told::{Told, answer};
use crate::world::{NodeConfig, NodeId, Outside, Random, SimEnv, World};

/// Where the data directory lies on the disk.
pub const DATA: &str = "data";

/// Partitions it is formatted with.
pub const PARTITIONS: u32 = 64;

/// The namespaces that hold records: the default one, and one that is created.
pub const NAMESPACES: [NamespaceId; 2] = [NamespaceId(0), NamespaceId(1)];

/// How much a history writes.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// Different keys of one namespace.
    keys: u64,
    /// Every step has so many times as many operations.
    times: u64,
    /// Values of most keys are so many times as long.
    scale: u64,
}

const SMALL: Size = Size { keys: 24, times: 1, scale: 1 };
const LARGER: Size = Size { keys: 60, times: 2, scale: 6 };

/// A key that is overwritten by long values until log segments are used again, and how often.
const BURNT_KEY: &[u8] = b"burnt";
const BURNS: u64 = 40;
const BURNT_BYTES: usize = 7_000;

/// How the history ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Killed after an idle moment: everything acknowledged is proven by a later block.
    Idle,
    /// Killed when the last write was acknowledged: the block that holds it is the last one.
    AtOnce,
    /// Closed.
    Closed,
}

/// What a key held at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its value; `None`: deleted or expired.
    pub value: Option<Vec<u8>>,
    /// What a loss of the last log block would bring back, where that may be.
    pub before_last: Option<Option<Vec<u8>>>,
}

/// What every key held, by namespace and key.
pub type Model = BTreeMap<(NamespaceId, Vec<u8>), Held>;

/// The content of one file; what is behind `content` is zeros.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileImage {
    /// From the start to the last page that is not all zeros.
    pub content: Vec<u8>,
    /// The file's size in bytes.
    pub bytes: u64,
}

/// The files of a data directory, by their path.
pub type Files = BTreeMap<PathBuf, FileImage>;

/// A data directory.
#[derive(Debug)]
pub struct Image {
    /// How its history ended.
    pub end: End,
    /// Its files.
    pub files: Files,
    /// Its files at moments before, oldest first.
    pub earlier: Vec<Files>,
    /// What it must answer.
    pub model: Model,
    /// The one shard in it.
    pub identity: Identity,
    /// The block of the disk it was written on.
    pub block_bytes: u32,
}

/// The directories that trials damage; the first is the one of which every byte is flipped.
pub fn images() -> &'static [Image] {
    static IMAGES: OnceLock<Vec<Image>> = OnceLock::new();
    IMAGES.get_or_init(|| {
        [
            (End::Idle, 512, SMALL),
            (End::AtOnce, 512, SMALL),
            (End::Closed, 4096, SMALL),
            (End::Idle, 4096, LARGER),
        ]
        .into_iter()
        .zip(1..)
        .map(|((end, block_bytes, size), seed)| write_image(seed, end, block_bytes, size))
        .collect()
    })
}

/// The sizes of the shard: as small as they may be.
pub fn options() -> Options {
    Options {
        value_bytes_max: 8 << 10,
        batch_ops_max: 32,
        batch_bytes_max: 8 << 10,
        log_segment_bytes: 72 << 10,
        log_queue_bytes_max: 64 << 10,
        log_block_bytes_max: 4096,
        log_spare_segments_max: 1,
        pending_ops_max: 256,
        memtable_bytes: 64 << 10,
        table_bytes: 16 << 10,
        level_base_bytes: 64 << 10,
        level_growth: 4,
        runs_max: 2,
        block_cache_bytes: 64 << 10,
        row_cache_bytes: 0,
        step_records_max: 16,
        retry_window_ms_max: 50,
        deadline_ms_max: 50,
        disk_reserve_bytes: 0,
        scan_records_max: 40,
        sweep_interval_ms: 60_000,
        ..Options::default()
    }
}

/// The node that a world runs a directory on.
pub fn node_config(block_bytes: u32) -> NodeConfig {
    NodeConfig { block_bytes, disk_bytes: 1 << 30, ..NodeConfig::default() }
}

impl FileImage {
    /// Of all bytes of a file.
    pub fn of(mut whole: Vec<u8>) -> Self {
        let bytes = whole.len() as u64;
        let used = whole.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        whole.truncate(page_round_up(used).min(whole.len()));
        Self { content: whole, bytes }
    }

    /// The bytes of a range; zeros where nothing is kept.
    pub fn range(&self, start: usize, bytes: usize) -> Vec<u8> {
        let mut range = vec![0; bytes];
        let kept = self.content.get(start..).unwrap_or_default();
        let count = kept.len().min(bytes);
        range[..count].copy_from_slice(&kept[..count]);
        range
    }

    /// Puts bytes at an offset; the file keeps its size, what does not fit is left out.
    pub fn put(&mut self, start: usize, bytes: &[u8]) {
        let end = (start + bytes.len()).min(self.bytes as usize);
        let Some(count) = end.checked_sub(start) else { return };
        if self.content.len() < end {
            self.content.resize(end, 0);
        }
        self.content[start..end].copy_from_slice(&bytes[..count]);
    }
}

/// Puts the files of a directory on an empty disk.
///
/// # Panics
/// When the disk does not take them.
pub async fn install(env: &SimEnv, files: &Files, block_bytes: u32) {
    let mut made = Vec::new();
    for part in ["wal", "table", "quarantine"] {
        let part = Path::new(DATA).join("shard-0000").join(part);
        create_dir_all(env, &part).await.expect("the disk is empty");
        made.push(part);
    }
    for (path, image) in files {
        let directory = path.parent().expect("a file lies in a directory").to_path_buf();
        if !made.contains(&directory) {
            create_dir_all(env, &directory).await.expect("the disk is empty");
            made.push(directory);
        }
        let file = env.open(path, OpenMode::CreateNew).await.expect("the file is new");
        write(&file, 0, &image.content, block_bytes).await;
        // The world's disks keep no pages of zeros, so a long tail costs nothing.
        if image.bytes > image.content.len() as u64 {
            let last = (image.bytes as usize).next_multiple_of(PAGE_BYTES) - PAGE_BYTES;
            if last >= image.content.len() {
                write(&file, last, &vec![0; image.bytes as usize - last], block_bytes).await;
            }
        }
    }
}

/// Writes bytes in whole blocks of the disk.
async fn write(file: &impl File, offset: usize, bytes: &[u8], block_bytes: u32) {
    if bytes.is_empty() {
        return;
    }
    let length = bytes.len().next_multiple_of(block_bytes as usize);
    let mut buffer = AlignedBuf::zeroed(page_round_up(length));
    buffer[..bytes.len()].copy_from_slice(bytes);
    let (written, _) = file.write(offset as u64, buffer, 0..length, WriteMode::Unsynced).await;
    written.expect("the disk has room");
}

/// All files of a node's disk but for the lock.
fn read_all(world: &World, node: NodeId) -> Files {
    let disk = world.disk(node);
    let paths = disk.files().into_iter().filter(|path| !path.ends_with("LOCK"));
    paths
        .map(|path| {
            let whole = disk.read(&path).expect("a file that was listed");
            (path, FileImage::of(whole))
        })
        .collect()
}

/// What the history and its driver share.
#[derive(Default)]
struct Stage {
    /// How far the history is: the number of the moment that was reached.
    reached: Cell<u32>,
    /// The moment after which it may go on.
    allowed: Cell<u32>,
    model: std::cell::RefCell<Model>,
}

impl Stage {
    /// Stops until the driver has looked at the disk.
    async fn moment(&self, env: &SimEnv) {
        self.reached.set(self.reached.get() + 1);
        while self.allowed.get() < self.reached.get() {
            env.sleep(Duration::from_micros(100)).await;
        }
    }
}

fn write_image(seed: u64, end: End, block_bytes: u32, size: Size) -> Image {
    let world = World::new(seed);
    let stage = Rc::new(Stage::default());
    let node = {
        let stage = Rc::clone(&stage);
        world.start_node(node_config(block_bytes), move |env: SimEnv| live(env, Rc::clone(&stage), end, size))
    };
    let mut earlier = Vec::new();
    let reached = |outside: Outside, moment: u32| {
        let stage = Rc::clone(&stage);
        async move {
            while stage.reached.get() < moment {
                outside.sleep(Duration::from_micros(20)).await;
            }
        }
    };
    for moment in 1..=MOMENTS {
        world.run_until(reached(world.outside(), moment));
        earlier.push(read_all(&world, node));
        stage.allowed.set(moment);
    }
    if end == End::Closed {
        world.run_until(world.ended(node));
    } else {
        world.run_until(reached(world.outside(), MOMENTS + 1));
        world.crash(node);
    }
    let files = read_all(&world, node);
    let copies = ["META", "META.2"].map(|name| {
        let path = Path::new(DATA).join(name);
        let content = files[&path].content.clone();
        (path, content)
    });
    let meta = Meta::newest(copies).expect("META is sound").expect("META is there");
    let model = stage.model.take();
    Image { end, files, earlier, model, identity: meta.identity(0), block_bytes }
}

/// Moments at which the files are kept.
const MOMENTS: u32 = 4;

/// The history of one directory.
async fn live(env: SimEnv, stage: Rc<Stage>, end: End, size: Size) {
    let format = FormatOptions { partitions: PARTITIONS, shards: 1 };
    let dir = DataDir::open_or_format(&env, Path::new(DATA), format).await.expect("the disk is empty");
    let (file, mut catalogue) = dir.catalogue(&env).await.expect("it was just made");
    let id = catalogue.create("other", 0).expect("the first namespace");
    assert_eq!(id, NAMESPACES[1]);
    file.store(&catalogue).await.expect("the disk has room");
    let shard: Shard<SimEnv, Told> =
        Shard::open(env.clone(), dir.shard_dir(0), dir.meta().identity(0), Origin(1), options())
            .await
            .expect("a new shard opens");
    shard.set_live_namespaces(catalogue.live_namespaces());
    let mut writer = Writer { shard: &shard, stage: &stage, random: Random::new(size.scale), size };

    writer.some(25).await;
    stage.moment(&env).await;
    writer.burn().await;
    for _ in 0..2 {
        writer.some(40).await;
        shard.flush().await.expect("the disk has room");
    }
    stage.moment(&env).await;
    shard.settle().await.expect("the disk has room");
    writer.some(20).await;
    writer.expiring().await;
    shard.flush().await.expect("the disk has room");
    // Longer than the retry window, so that tombstones may go, and than any short life.
    env.sleep(Duration::from_millis(400)).await;
    shard.settle().await.expect("the disk has room");
    stage.moment(&env).await;
    writer.some(15).await;
    shard.flush().await.expect("the disk has room");
    stage.moment(&env).await;
    writer.some(20).await;
    match end {
        End::Closed => {
            shard.close().await.expect("the disk has room");
            return;
        }
        End::Idle => env.sleep(Duration::from_secs(5)).await,
        End::AtOnce => {
            env.sleep(Duration::from_secs(5)).await;
            writer.last().await;
        }
    }
    stage.reached.set(MOMENTS + 1);
    std::future::pending::<()>().await;
}

struct Writer<'a> {
    shard: &'a Shard<SimEnv, Told>,
    stage: &'a Stage,
    random: Random,
    size: Size,
}

impl Writer<'_> {
    /// Puts and deletes, one after the other.
    async fn some(&mut self, operations: u64) {
        for _ in 0..operations * self.size.times {
            let place = self.draw_place();
            if self.random.one_in(5) {
                self.write(&place, None, Lifetime::Forever).await;
                self.note(place, None);
            } else {
                let value = self.draw_value();
                let lifetime = match self.random.below(4) {
                    0 => Lifetime::Millis(1_000_000_000),
                    _ => Lifetime::Forever,
                };
                self.write(&place, Some(&value), lifetime).await;
                self.note(place, Some(value));
            }
        }
    }

    /// Long values under one key, and a short one at last.
    async fn burn(&self) {
        let place = (NAMESPACES[0], BURNT_KEY.to_vec());
        for number in 0..BURNS {
            let bytes = if number + 1 < BURNS { BURNT_BYTES } else { 10 };
            let value = vec![number as u8; bytes];
            self.write(&place, Some(&value), Lifetime::Forever).await;
            self.note(place.clone(), Some(value));
        }
    }

    /// Records that are gone when they are read.
    async fn expiring(&mut self) {
        for number in 0..6 {
            let place = (NAMESPACES[number % 2], format!("expires/{number}").into_bytes());
            self.write(&place, Some(b"for a moment"), Lifetime::Millis(5)).await;
            self.note(place, None);
        }
    }

    /// One more write of a key that has a value, and of one that has none; nothing after them.
    async fn last(&mut self) {
        let held = self
            .stage
            .model
            .borrow()
            .iter()
            .find(|(_, held)| held.value.is_some())
            .map(|(place, held)| (place.clone(), held.value.clone()));
        let (place, before) = held.expect("some key has a value");
        let value = b"the last write".to_vec();
        self.write(&place, Some(&value), Lifetime::Forever).await;
        let held = Held { value: Some(value), before_last: Some(before) };
        self.stage.model.borrow_mut().insert(place, held);
    }

    fn note(&self, place: (NamespaceId, Vec<u8>), value: Option<Vec<u8>>) {
        self.stage.model.borrow_mut().insert(place, Held { value, before_last: None });
    }

    fn draw_place(&mut self) -> (NamespaceId, Vec<u8>) {
        let namespace = NAMESPACES[self.random.below(2) as usize];
        let number = self.random.below(self.size.keys);
        let key = match number % 3 {
            0 => format!("{{tag}}/{number:03}"),
            1 => format!("key-{number}"),
            _ => format!("a-longer-common-prefix/{number:05}"),
        };
        (namespace, key.into_bytes())
    }

    fn draw_value(&mut self) -> Vec<u8> {
        let bytes = match self.random.below(40) {
            0 => 3_800 + self.random.below(600),
            1..4 => self.random.below(500),
            _ => self.random.below(80),
        };
        let bytes = (bytes * self.size.scale).min(8_000);
        let fill = self.random.word() as u8;
        (0..bytes).map(|at| fill.wrapping_add(at as u8)).collect()
    }

    /// A write that is acknowledged.
    async fn write(&self, place: &(NamespaceId, Vec<u8>), value: Option<&[u8]>, lifetime: Lifetime) {
        let key = Key::new(place.0, &place.1, PARTITIONS);
        let operation = match value {
            Some(value) => Operation::Put { value, lifetime },
            None => Operation::Delete,
        };
        loop {
            let (teller, answer) = answer();
            self.shard.write(&key, operation, WriteOptions::default(), teller);
            match answer.await {
                Err(pinion_engine::Error::Overloaded { .. }) => {
                    self.shard.settle().await.expect("the disk has room");
                }
                written => {
                    written.expect("a write of a good shard");
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pieces::{FileKind, PieceKind, pieces};
    use super::super::recipe::{end_of_life, last_log_block};
    use super::*;

    #[test]
    fn images_hold_every_kind_of_file_and_answer() {
        let mut older_life = 0;
        for image in images() {
            // Released segments keep their names until they are used again: none is called a spare.
            for kind in FileKind::ALL.into_iter().filter(|kind| *kind != FileKind::Spare) {
                assert!(image.files.keys().any(|path| FileKind::of(path) == kind), "no {kind:?}");
            }
            let tables = image.files.keys().filter(|path| FileKind::of(path) == FileKind::Table).count();
            assert!(tables >= 2, "{tables} tables");
            let gone = image.model.values().filter(|held| held.value.is_none()).count();
            assert!(gone >= 10 && image.model.len() - gone >= 20, "{gone} of {} are gone", image.model.len());
            assert_eq!(image.earlier.len(), MOMENTS as usize);
            assert!(last_log_block(image).is_some());
            for (path, file) in image.files.iter().filter(|(path, _)| FileKind::of(path) == FileKind::Log) {
                let found = pieces(FileKind::Log, &file.content);
                let end = end_of_life(path, file);
                let behind =
                    found.iter().filter(|piece| piece.kind == PieceKind::LogBlock && piece.start >= end);
                older_life += behind.count();
            }
        }
        assert!(older_life > 0, "no segment was used twice");
        let lost_last = images()[1].model.values().filter(|held| held.before_last.is_some()).count();
        assert_eq!((images()[1].end, lost_last), (End::AtOnce, 1));
    }
}
