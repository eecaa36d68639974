//! The names on a disk: what they are now, what a cut would leave, and the changes in between.
//!
//! Each creation, rename and removal is a change of one directory (a rename between directories: of
//! two). It is pending in a journal until that directory is synced. A cut keeps some of the journal
//! and replays it over the durable names. Changes keep their meaning or are dropped: a creation
//! needs a free name, a rename and a removal need the very file that they were about, and what lies
//! in a directory whose own creation was dropped is gone with it. So a rename that was dropped leaves
//! the old name and the old target, as journaling file systems do: a rename is never half done.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::content::Inode;
use super::cut::PowerCut;
use super::tally::{Outcome, Tally};
use crate::world::random::Random;

#[derive(Debug, Clone)]
pub(super) enum Entry {
    Directory,
    File(Inode),
}

pub(super) type Names = BTreeMap<PathBuf, Entry>;

#[derive(Debug)]
pub(super) struct Tree {
    /// As the node sees them.
    names: Names,
    durable: Names,
    /// Changes that no sync has made durable, in the order they were made.
    journal: Vec<Change>,
    last: u64,
}

#[derive(Debug)]
struct Change {
    number: u64,
    /// Its sync has failed: no later one covers it, and a cut may keep or drop it.
    in_limbo: bool,
    what: What,
}

#[derive(Debug)]
enum What {
    Created { path: PathBuf, entry: Entry },
    Renamed { from: PathBuf, to: PathBuf, file: Inode },
    Removed { path: PathBuf, file: Inode },
}

impl Tree {
    pub(super) fn new() -> Self {
        let root = Names::from([(PathBuf::new(), Entry::Directory)]);
        Self { names: root.clone(), durable: root, journal: Vec::new(), last: 0 }
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    pub(super) fn get(&self, path: &Path) -> Option<&Entry> {
        self.names.get(path)
    }

    /// The files, each once.
    pub(super) fn files(&self) -> impl Iterator<Item = (&PathBuf, &Inode)> {
        self.names.iter().filter_map(|(path, entry)| match entry {
            Entry::Directory => None,
            Entry::File(inode) => Some((path, inode)),
        })
    }

    /// The number of the last change: what a sync that begins now will make durable.
    pub(super) fn last_change(&self) -> u64 {
        self.last
    }

    pub(super) fn create(&mut self, path: PathBuf, entry: Entry) {
        self.names.insert(path.clone(), entry.clone());
        self.note(What::Created { path, entry });
    }

    pub(super) fn rename(&mut self, from: PathBuf, to: PathBuf, file: Inode) {
        self.names.remove(&from);
        self.names.insert(to.clone(), Entry::File(file.clone()));
        self.note(What::Renamed { from, to, file });
    }

    pub(super) fn remove(&mut self, path: PathBuf, file: Inode) {
        self.names.remove(&path);
        self.note(What::Removed { path, file });
    }

    /// Takes a file away, durably and whatever its name was.
    pub(super) fn forget(&mut self, path: &Path, file: &Inode) {
        self.names.remove(path);
        self.durable.retain(|_, entry| !is(entry, file));
        self.journal.retain(|change| !change.is_about(file));
    }

    /// Makes the changes of a directory up to a number durable, but for those that `done` says it
    /// has failed for.
    pub(super) fn sync(&mut self, directory: &Path, up_to: u64, mut done: impl FnMut() -> bool) {
        // A file that comes from elsewhere takes its earlier names along: the inode has one journal.
        let moved: BTreeSet<*const _> = self
            .journal
            .iter()
            .filter(|change| change.number <= up_to && change.touches(directory))
            .filter_map(Change::crosses)
            .map(Rc::as_ptr)
            .collect();
        for mut change in std::mem::take(&mut self.journal) {
            let wanted = change.touches(directory)
                || (!moved.is_empty() && change.file().is_some_and(|file| moved.contains(&Rc::as_ptr(file))));
            if change.number > up_to || !wanted || change.in_limbo {
                self.journal.push(change);
            } else if !done() || !change.apply(&mut self.durable) {
                // It failed, or builds on a change that did.
                change.in_limbo = true;
                self.journal.push(change);
            }
        }
    }

    /// Keeps some of what is pending, drops the rest, and goes on from there.
    pub(super) fn cut(&mut self, cut: &PowerCut, random: &mut Random, tally: &mut Tally) {
        let mut dropped = false;
        for change in std::mem::take(&mut self.journal) {
            dropped = (dropped && cut.names_in_order) || PowerCut::happens(cut.name_dropped, random);
            let kept = !dropped && change.apply(&mut self.durable);
            tally.add(change.outcome(kept), 1);
        }
        let mut names = Names::new();
        // Parents are ordered before what they hold.
        for (path, entry) in std::mem::take(&mut self.durable) {
            let parent = path.parent().map(|parent| names.get(parent));
            if !matches!(parent, Some(None | Some(Entry::File(_)))) {
                names.insert(path, entry);
            }
        }
        self.names.clone_from(&names);
        self.durable = names;
    }

    fn note(&mut self, what: What) {
        self.last += 1;
        self.journal.push(Change { number: self.last, in_limbo: false, what });
    }
}

impl Change {
    fn touches(&self, directory: &Path) -> bool {
        let inside = |path: &Path| path.parent() == Some(directory);
        match &self.what {
            What::Created { path, .. } | What::Removed { path, .. } => inside(path),
            What::Renamed { from, to, .. } => inside(from) || inside(to),
        }
    }

    fn file(&self) -> Option<&Inode> {
        match &self.what {
            What::Created { entry: Entry::Directory, .. } => None,
            What::Created { entry: Entry::File(file), .. }
            | What::Renamed { file, .. }
            | What::Removed { file, .. } => Some(file),
        }
    }

    fn is_about(&self, file: &Inode) -> bool {
        self.file().is_some_and(|own| Rc::ptr_eq(own, file))
    }

    /// The file of a rename from one directory to another.
    fn crosses(&self) -> Option<&Inode> {
        match &self.what {
            What::Renamed { from, to, file } if from.parent() != to.parent() => Some(file),
            _ => None,
        }
    }

    /// Does it again, if it still means what it meant.
    fn apply(&self, names: &mut Names) -> bool {
        let stands =
            |names: &Names, path: &PathBuf, file| names.get(path).is_some_and(|entry| is(entry, file));
        match &self.what {
            What::Created { path, entry } => {
                let free = !names.contains_key(path);
                if free {
                    names.insert(path.clone(), entry.clone());
                }
                free
            }
            What::Renamed { from, to, file } => {
                let there = stands(names, from, file);
                if there {
                    names.remove(from);
                    names.insert(to.clone(), Entry::File(file.clone()));
                }
                there
            }
            What::Removed { path, file } => {
                let there = stands(names, path, file);
                if there {
                    names.remove(path);
                }
                there
            }
        }
    }

    fn outcome(&self, kept: bool) -> Outcome {
        match (&self.what, kept) {
            (What::Created { entry: Entry::Directory, .. }, true) => Outcome::DirectoryKept,
            (What::Created { entry: Entry::Directory, .. }, false) => Outcome::DirectoryDropped,
            (What::Created { .. }, true) => Outcome::CreationKept,
            (What::Created { .. }, false) => Outcome::CreationDropped,
            (What::Renamed { .. }, true) => Outcome::RenameKept,
            (What::Renamed { .. }, false) => Outcome::RenameDropped,
            (What::Removed { .. }, true) => Outcome::RemovalKept,
            (What::Removed { .. }, false) => Outcome::RemovalDropped,
        }
    }
}

fn is(entry: &Entry, file: &Inode) -> bool {
    matches!(entry, Entry::File(inode) if Rc::ptr_eq(inode, file))
}
