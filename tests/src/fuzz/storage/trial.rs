//! Opens a damaged directory with the unmodified engine and judges every answer.
//!
//! A node in a world gets the directory on its disk, opens it, reads every key and scans everything
//! both ways. In some trials it works on: writes, flushes, compacts, closes, and opens once more, so
//! that damage cannot slip through a rewrite.

use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use pinion_engine::{
    Corruption, DataDir, Error, FormatOptions, Key, Lifetime, NamespaceId, Operation, Origin, Partition,
    RecordView, ScanKind, ScanRange, ScanSink, Shard, WriteOptions,
};
use pinion_env::Env;

use super::image::{DATA, Held, Image, NAMESPACES, PARTITIONS, install, node_config, options};
use super::pieces::FileKind;
use super::recipe::{Damaged, Recipe, apply, last_log_block};
use crate::told::{Told, answer};
use crate::trials::Counts;
use crate::world::{SimEnv, World};

type TestShard = Shard<SimEnv, Told>;

/// Virtual time that a directory may take to be opened and read: far more than any needs.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// Records that a scan of a forged directory may show: more than its files can hold.
const SCAN_RECORDS_MAX: usize = 1_000_000;

/// Records that a trial writes when it works on.
const WRITTEN: u64 = 30;

/// What may come out of a damaged directory.
#[derive(Debug, Clone)]
pub enum Rule {
    /// Right answers, or errors that name one of these files and a place in it.
    Exact {
        /// The files that errors may name, and how long they are.
        suspects: Vec<(PathBuf, u64)>,
        /// The last write may be gone: nothing proved it when its block was damaged.
        may_lose_last: bool,
    },
    /// Anything but a panic, a hang, or memory without end: the bytes were made to deceive.
    Survive,
}

/// The rule for a damaged directory.
pub fn rule(image: &Image, damaged: &Damaged) -> Rule {
    let touched =
        |wanted: FileKind| damaged.touched.iter().filter(move |(path, _)| FileKind::of(path) == wanted);
    // The tail of a file that grows by appending is what a crash leaves: only a single block of it is
    // proven by what follows.
    let tails = touched(FileKind::Log).chain(touched(FileKind::Manifest));
    let whole_tail = tails.clone().any(|(path, range)| spans_pieces(image, path, range));
    if damaged.forged || whole_tail || tails.count() > 1 {
        return Rule::Survive;
    }
    let last = last_log_block(image);
    let hits_last = |(path, range): &(PathBuf, Range<usize>)| {
        last.as_ref()
            .is_some_and(|(of, block)| of == path && range.start < block.end() && block.start < range.end)
    };
    let may_lose_last = damaged.touched.iter().any(hits_last);
    let mut suspects = Vec::new();
    for (path, _) in &damaged.touched {
        // Of these there are two copies, and one is sound: no error is right.
        let copied = |kind| FileKind::of(path) == kind && touched(kind).all(|(other, _)| other == path);
        if copied(FileKind::Meta) || copied(FileKind::Catalogue) {
            continue;
        }
        let size = |path: &PathBuf| {
            let before = image.files.get(path).map_or(0, |file| file.bytes);
            (path.clone(), before.max(damaged.files.get(path).map_or(0, |file| file.bytes)))
        };
        suspects.push(size(path));
        if FileKind::of(path) == FileKind::Current {
            // It may name a manifest that was removed, which is then what is missing.
            let parent = path.parent().unwrap_or(Path::new(""));
            suspects.extend((0..100).map(|number| (parent.join(format!("MANIFEST-{number:010}")), 0)));
        }
    }
    Rule::Exact { suspects, may_lose_last }
}

/// Whether a stretch reaches over more than one piece, or beyond what is used of the file.
fn spans_pieces(image: &Image, path: &Path, range: &Range<usize>) -> bool {
    let Some(file) = image.files.get(path) else { return true };
    let found = super::pieces::pieces(FileKind::of(path), &file.content);
    let inside = |piece: &super::pieces::Piece| piece.start <= range.start && range.end <= piece.end();
    let behind = found.last().is_none_or(|last| last.end() <= range.start);
    let is_one_byte = range.len() == 1;
    !(found.iter().any(inside) || behind && is_one_byte)
}

/// What a trial does beyond reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Opens and reads.
    Read,
    /// Then writes, flushes, compacts, reads, closes, and does it again.
    Work,
}

/// Runs a recipe in the world of a seed.
///
/// # Panics
/// When what comes out is against the rule; the recipe is printed, ready to be kept.
pub fn run(images: &[Image], recipe: &Recipe, seed: u64, effort: Effort, counts: &mut Counts) {
    let image = &images[recipe.image % images.len()];
    let damaged = apply(image, recipe);
    if damaged.touched.is_empty() {
        counts.add("changed nothing", 1);
        return;
    }
    let rule = rule(image, &damaged);
    let _blame = Blame { recipe, rule: &rule };
    counts.add(
        match rule {
            Rule::Exact { .. } => "judged exactly",
            Rule::Survive => "made to deceive",
        },
        1,
    );
    let world = World::new(seed);
    let findings = Rc::new(RefCell::new(Findings::default()));
    // The node's future must not borrow: it gets its own copies.
    let judge =
        Rc::new(Judge { rule: rule.clone(), model: Model::of(image), findings: Rc::clone(&findings) });
    let (files, block_bytes) = (Rc::new(damaged.files), image.block_bytes);
    let node = world.start_node(node_config(image.block_bytes), move |env: SimEnv| {
        let (judge, files) = (Rc::clone(&judge), Rc::clone(&files));
        async move {
            install(&env, &files, block_bytes).await;
            let patience = env.sleep(PATIENCE);
            let mut done = pin!(live(&env, &judge, effort));
            let mut patience = pin!(patience);
            std::future::poll_fn(|context| {
                if done.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                assert!(patience.as_mut().poll(context).is_pending(), "not done in {PATIENCE:?}");
                Poll::Pending
            })
            .await;
        }
    });
    world.run_until(world.ended(node));
    findings.take().add_to(counts);
}

/// Prints the recipe and its rule when something panics.
struct Blame<'a> {
    recipe: &'a Recipe,
    rule: &'a Rule,
}

impl Drop for Blame<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let rule = match self.rule {
                Rule::Exact { may_lose_last: true, .. } => "right answers or errors, but for the last write",
                Rule::Exact { .. } => "right answers or errors",
                Rule::Survive => "anything but this",
            };
            eprintln!("the recipe, by which {rule} should come out:\n{}", self.recipe);
        }
    }
}

#[derive(Debug, Default, Clone)]
struct Findings {
    refused: u64,
    opened: u64,
    reopened: u64,
    wrong_answers_allowed: u64,
    errors: u64,
    right: u64,
    lost_last: u64,
    worked: u64,
}

impl Findings {
    fn add_to(&self, counts: &mut Counts) {
        let named = [
            ("refused at opening", self.refused),
            ("opened", self.opened),
            ("opened again after working on", self.reopened),
            ("answers right", self.right),
            ("answers that were errors", self.errors),
            ("unproven last writes lost", self.lost_last),
            ("answers of deceived shards", self.wrong_answers_allowed),
            ("writes after the damage", self.worked),
        ];
        for (name, count) in named {
            counts.add(name, count);
        }
    }
}

/// What the directory should answer.
struct Model {
    /// By placement: partition, namespace, key.
    placed: Vec<(Partition, NamespaceId, Vec<u8>, Held)>,
}

impl Model {
    fn of(image: &Image) -> Self {
        let mut placed: Vec<_> = image
            .model
            .iter()
            .map(|((namespace, user), held)| {
                let key = Key::new(*namespace, user, PARTITIONS);
                (key.partition, *namespace, user.clone(), held.clone())
            })
            .collect();
        placed.sort_by(|left, right| (left.0, left.1, &left.2).cmp(&(right.0, right.1, &right.2)));
        Self { placed }
    }
}

struct Judge {
    rule: Rule,
    model: Model,
    findings: Rc<RefCell<Findings>>,
}

/// A directory that is open.
struct Opened {
    shard: TestShard,
    _dir: DataDir,
}

async fn live(env: &SimEnv, judge: &Judge, effort: Effort) {
    let Some(opened) = judge.open(env).await else { return };
    judge.findings.borrow_mut().opened += 1;
    let mut written = 0;
    judge.read_all(&opened.shard, written).await;
    if effort == Effort::Read {
        return;
    }
    written = judge.work(&opened.shard).await;
    judge.read_all(&opened.shard, written).await;
    let closed = opened.shard.close().await;
    judge.error_is_allowed(closed.err().as_ref());
    drop(opened);
    let Some(opened) = judge.open(env).await else { return };
    judge.findings.borrow_mut().reopened += 1;
    judge.read_all(&opened.shard, written).await;
}

impl Judge {
    async fn open(&self, env: &SimEnv) -> Option<Opened> {
        let opened = open(env).await;
        match opened {
            Ok(opened) => Some(opened),
            Err(error) => {
                self.findings.borrow_mut().refused += 1;
                self.error_is_allowed(Some(&error));
                None
            }
        }
    }

    /// An error names a file that was damaged, and a place in it.
    fn error_is_allowed(&self, error: Option<&Error>) {
        let (Some(error), Rule::Exact { suspects, .. }) = (error, &self.rule) else { return };
        let Error::Damaged(damage) = error else { panic!("not an error of damage: {error:?}") };
        let Corruption { file, offset, .. } = &**damage;
        let named = suspects.iter().any(|(path, bytes)| path == file && offset <= bytes);
        assert!(named, "the error names something else than {suspects:?}: {error}");
    }

    /// Asks for every key, for keys that were never there, and scans.
    async fn read_all(&self, shard: &TestShard, written: u64) {
        for (_, namespace, user, held) in &self.model.placed {
            self.get(shard, *namespace, user, held).await;
        }
        let absent = Held { value: None, before_last: None };
        for number in 0..6 {
            let user = format!("never/{number}");
            self.get(shard, NAMESPACES[number % 2], user.as_bytes(), &absent).await;
        }
        for number in 0..written {
            let held = Held { value: Some(written_value(number)), before_last: None };
            self.get(shard, NAMESPACES[0], &written_key(number), &held).await;
        }
        for namespace in NAMESPACES {
            for reverse in [false, true] {
                for ordered in [false, true] {
                    self.scan(shard, namespace, reverse, ordered, written).await;
                }
            }
        }
    }

    async fn get(&self, shard: &TestShard, namespace: NamespaceId, user: &[u8], held: &Held) {
        let key = Key::new(namespace, user, PARTITIONS);
        let own = |record: RecordView<'_>| record.value.to_vec();
        let found = match shard.get_now(&key, |record| record.map(own)) {
            Ok(found) => Ok(found),
            Err(_) => shard.get(&key).await.map(|found| found.map(|found| own(found.view()))),
        };
        let findings = &mut *self.findings.borrow_mut();
        match (found, &self.rule) {
            (Err(error), _) => {
                findings.errors += 1;
                self.error_is_allowed(Some(&error));
            }
            (Ok(_), Rule::Survive) => findings.wrong_answers_allowed += 1,
            (Ok(found), Rule::Exact { .. }) if found == held.value => findings.right += 1,
            (Ok(found), Rule::Exact { may_lose_last, .. }) => {
                let lost = *may_lose_last && held.before_last.as_ref() == Some(&found);
                let (user, shown) = (user.escape_ascii(), found.map(|value| value.len()));
                assert!(
                    lost,
                    "{user} holds {shown:?} bytes, {:?} were written",
                    held.value.as_ref().map(Vec::len)
                );
                findings.lost_last += 1;
            }
        }
    }

    async fn scan(
        &self,
        shard: &TestShard,
        namespace: NamespaceId,
        reverse: bool,
        ordered: bool,
        written: u64,
    ) {
        let kind = match ordered {
            true => ScanKind::Ordered,
            false => ScanKind::Placed { first: Partition(0), last: Partition(PARTITIONS as u16 - 1) },
        };
        let mut found = Vec::new();
        let mut resume = None;
        let error = loop {
            let (start, end) = (Vec::new(), None);
            let range = ScanRange { namespace, kind, start, end, resume, reverse, records_max: 30 };
            let mut page = Page(Vec::new());
            match shard.scan(&range, &mut page).await {
                Ok(next) => {
                    assert!(!page.0.is_empty() || next.is_none(), "a page that does not end makes progress");
                    found.append(&mut page.0);
                    assert!(found.len() < SCAN_RECORDS_MAX, "a scan does not end");
                    resume = next;
                    if resume.is_none() {
                        break None;
                    }
                }
                Err(error) => break Some(error),
            }
        };
        self.error_is_allowed(error.as_ref());
        let findings = &mut *self.findings.borrow_mut();
        findings.errors += u64::from(error.is_some());
        let Rule::Exact { may_lose_last, .. } = self.rule else { return };
        let matches = |of: &dyn Fn(&Held) -> Option<Vec<u8>>| {
            let expected = self.expected(namespace, (reverse, ordered), written, of);
            if error.is_some() { expected.starts_with(&found) } else { expected == found }
        };
        let right = matches(&|held| held.value.clone());
        let last_lost = may_lose_last
            && !right
            && matches(&|held| held.before_last.clone().unwrap_or_else(|| held.value.clone()));
        findings.right += u64::from(right);
        findings.lost_last += u64::from(last_lost);
        assert!(right || last_lost, "a scan of {namespace:?} is wrong: {} records, {error:?}", found.len());
    }

    /// What a scan should show.
    fn expected(
        &self,
        namespace: NamespaceId,
        (reverse, ordered): (bool, bool),
        written: u64,
        value: &dyn Fn(&Held) -> Option<Vec<u8>>,
    ) -> Vec<(Vec<u8>, Vec<u8>)> {
        let held = self.model.placed.iter().filter(|(_, of, ..)| *of == namespace);
        let mut expected: Vec<(Partition, Vec<u8>, Vec<u8>)> = held
            .filter_map(|(partition, _, user, held)| Some((*partition, user.clone(), value(held)?)))
            .collect();
        let more = if namespace == NAMESPACES[0] { written } else { 0 };
        expected.extend((0..more).map(|number| {
            let user = written_key(number);
            (Key::new(namespace, &user, PARTITIONS).partition, user, written_value(number))
        }));
        if ordered {
            expected.sort_by(|left, right| left.1.cmp(&right.1));
        } else {
            expected.sort();
        }
        if reverse {
            expected.reverse();
        }
        expected.into_iter().map(|(_, user, value)| (user, value)).collect()
    }

    /// Writes, flushes and compacts. Returns how many writes were acknowledged, one behind the other.
    async fn work(&self, shard: &TestShard) -> u64 {
        let mut written = 0;
        for number in 0..WRITTEN {
            let (user, value) = (written_key(number), written_value(number));
            let key = Key::new(NAMESPACES[0], &user, PARTITIONS);
            let (teller, answer) = answer();
            let operation = Operation::Put { value: &value, lifetime: Lifetime::Forever };
            shard.write(&key, operation, WriteOptions::default(), teller);
            match answer.await {
                Ok(_) => written += 1,
                Err(error) => {
                    // A key that must be looked up first, in a table that cannot be read.
                    self.error_is_allowed(Some(&error));
                    break;
                }
            }
        }
        self.findings.borrow_mut().worked += written;
        let flushed = shard.flush().await;
        self.error_is_allowed(flushed.err().as_ref());
        let settled = shard.settle().await;
        self.error_is_allowed(settled.err().as_ref());
        written
    }
}

fn written_key(number: u64) -> Vec<u8> {
    format!("written/after/{number}").into_bytes()
}

fn written_value(number: u64) -> Vec<u8> {
    vec![number as u8; 200]
}

async fn open(env: &SimEnv) -> Result<Opened, Error> {
    let format = FormatOptions { partitions: PARTITIONS, shards: 1 };
    let dir = DataDir::open_or_format(env, Path::new(DATA), format).await?;
    let (_, catalogue) = dir.catalogue(env).await?;
    let identity = dir.meta().identity(0);
    let shard = Shard::open(env.clone(), dir.shard_dir(0), identity, Origin(1), options()).await?;
    shard.set_live_namespaces(catalogue.live_namespaces());
    Ok(Opened { shard, _dir: dir })
}

/// One page of a scan.
struct Page(Vec<(Vec<u8>, Vec<u8>)>);

impl ScanSink for Page {
    fn push(&mut self, user_key: &[u8], record: RecordView<'_>) -> bool {
        self.0.push((user_key.to_vec(), record.value.to_vec()));
        true
    }
}
