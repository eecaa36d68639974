//! The order of a memtable: a two-level sorted array.
//!
//! Leaves hold up to 128 entries as two arrays, heads (16 bytes that order like the positions as
//! far as they reach) and entry references; the upper level is an array of the leaves' first
//! heads, and one of the bytes of their keys that follow, for leaves whose heads are equal. A search is
//! two binary searches over plain numbers; a key itself is looked at only where these are equal. Two
//! levels suffice: 600 k entries make fewer than 10 k leaves, and a split moves at most a few hundred
//! KiB of the upper level.
//!
//! A head is [`Position::prefix`]: it sees ten bytes of the user key, and keys like
//! `user:profile:0001` share more than that. So every leaf may skip a prefix that all its user
//! keys have in common. A leaf takes a longer prefix when it splits with many equal heads, and a
//! shorter one when a key arrives that does not share it; a little slack makes that rare.
//!
//! Leaves are never removed or merged: nothing leaves a memtable.
//!
//! Entries are added many at a time, because every single one would wait for the memory of its leaf:
//! sorted, their leaves are known ahead and asked for while others are filled.

use pinion_env::prefetch;

use super::arena::{Arena, EntryRef};
use crate::key::Position;

/// Entries of a leaf. Inserting moves half of it on average: 1.3 KiB.
const LEAF_ENTRIES: usize = 128;
/// The longest prefix a leaf skips, in bytes.
const SKIP_BYTES_MAX: usize = 48;
/// Of a common prefix, how many bytes are not skipped, so that a key that differs only near the
/// end of it does not make the leaf compute all heads anew.
const SKIP_SLACK_BYTES: usize = 4;
/// How many entries are added at once at most.
pub(super) const ADDED_MAX: usize = 256;
/// How many entries ahead the leaf of one is asked for.
const LEAVES_AHEAD: usize = 4;
/// Bits of a head below partition and namespace.
const USER_BITS: u32 = 80;
/// Bytes of the user key in a [`Position::prefix`].
const PREFIX_USER_BYTES: usize = USER_BITS as usize / 8;

/// Bytes of the user key behind those of the prefix, zero padded. Orders like positions of one prefix, but
/// for those that share it.
type Rest = [u8; 32];

/// Entries in the order of their positions.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// [`Position::prefix`] of every leaf's first entry. The first is not looked at: the first leaf
    /// begins before everything.
    firsts: Vec<u128>,
    /// What follows it in the key, of the same entries. A partition has several leaves in a large
    /// memtable, and keys of one kind often share ten bytes: without it, every search would read the keys
    /// of several leaves, whose memory is far apart.
    rests: Vec<Rest>,
    leaves: Leaves,
    /// Changes when places change.
    version: u64,
}

/// All leaves, in order; boxed, because a leaf is 2.6 KiB and adding one must not move the others.
pub(super) type Leaves = Vec<Box<Leaf>>;

/// Up to [`LEAF_ENTRIES`] neighbours.
#[derive(Debug)]
pub(super) struct Leaf {
    len: usize,
    /// How many bytes of `common` all user keys here share and heads leave out.
    skip: usize,
    common: [u8; SKIP_BYTES_MAX],
    heads: [u128; LEAF_ENTRIES],
    entries: [EntryRef; LEAF_ENTRIES],
}

/// Where an entry stands, as long as [`Order::version`] is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    leaf: usize,
    slot: usize,
}

impl Order {
    /// Adds entries whose positions are not there yet, at most [`ADDED_MAX`], and empties the list.
    pub(super) fn add(&mut self, arena: &Arena, entries: &mut Vec<EntryRef>) {
        let mut sorted = [(0, EntryRef(0)); ADDED_MAX];
        let sorted = &mut sorted[..entries.len()];
        entries.iter().for_each(|entry| arena.prefetch_header(*entry));
        for (place, entry) in sorted.iter_mut().zip(entries.drain(..)) {
            *place = (arena.position(entry).prefix(), entry);
        }
        sorted.sort_unstable_by(|left, right| {
            let by_key = || arena.position(left.1).cmp(&arena.position(right.1));
            left.0.cmp(&right.0).then_with(by_key)
        });
        for index in 0..sorted.len() {
            if let Some((_, later)) = sorted.get(index + LEAVES_AHEAD) {
                self.prefetch_leaf(arena, &arena.position(*later));
            }
            let entry = sorted[index].1;
            self.insert(arena, &arena.position(entry), entry);
        }
    }

    /// Asks for the leaf that a position belongs to, unless one that is split before comes in between.
    fn prefetch_leaf(&self, arena: &Arena, position: &Position<'_>) {
        if self.leaves.is_empty() {
            return;
        }
        let leaf = &self.leaves[self.leaf_of(arena, position)];
        prefetch(&leaf.heads);
        prefetch(&leaf.entries);
    }

    /// Adds an entry whose position is not there yet.
    fn insert(&mut self, arena: &Arena, position: &Position<'_>, entry: EntryRef) {
        self.version += 1;
        if self.leaves.is_empty() {
            self.add_leaf(0, Box::new(Leaf::new()), position);
        }
        let mut index = self.leaf_of(arena, position);
        if self.leaves[index].len == LEAF_ENTRIES {
            index = self.split(arena, position, index);
        }
        let leaf = &mut self.leaves[index];
        leaf.admit(arena, position);
        let slot = leaf.lower_bound(arena, position);
        leaf.insert(slot, head(position, leaf.skip), entry);
    }

    /// Makes room in a full leaf; answers which leaf `position` belongs to now.
    fn split(&mut self, arena: &Arena, position: &Position<'_>, index: usize) -> usize {
        let leaf = &mut self.leaves[index];
        let last = arena.position(leaf.entries[LEAF_ENTRIES - 1]);
        if index + 1 == self.firsts.len() && last < *position {
            // Keys that arrive in order fill leaves whole.
            if leaf.equal_heads() > LEAF_ENTRIES / 8 {
                leaf.tighten(arena);
            }
            let right = Box::new(Leaf::after(leaf));
            self.add_leaf(index + 1, right, position);
            return index + 1;
        }
        let mut right = Box::new(Leaf::after(leaf));
        leaf.move_upper_half(&mut right);
        let retighten = leaf.equal_heads() + right.equal_heads() > LEAF_ENTRIES / 8;
        if retighten {
            leaf.tighten(arena);
            right.tighten(arena);
        }
        let first = arena.position(right.entries[0]);
        let goes_right = first <= *position;
        self.add_leaf(index + 1, right, &first);
        index + usize::from(goes_right)
    }

    fn add_leaf(&mut self, index: usize, leaf: Box<Leaf>, first: &Position<'_>) {
        self.firsts.insert(index, first.prefix());
        self.rests.insert(index, rest(first));
        self.leaves.insert(index, leaf);
    }

    /// The leaf that holds `position` or would.
    fn leaf_of(&self, arena: &Arena, position: &Position<'_>) -> usize {
        let prefix = position.prefix();
        let firsts = &self.firsts[1..];
        let below = firsts.partition_point(|first| *first < prefix);
        if firsts.get(below) != Some(&prefix) {
            return below;
        }
        let equal = firsts[below..].partition_point(|first| *first == prefix);
        let (wanted, rests) = (rest(position), &self.rests[1 + below..1 + below + equal]);
        let less = rests.partition_point(|rest| *rest < wanted);
        let equal = rests[less..].partition_point(|rest| *rest == wanted);
        let below = below + less;
        let ties = &self.leaves[1 + below..1 + below + equal];
        below + ties.partition_point(|leaf| arena.position(leaf.entries[0]) <= *position)
    }

    /// The first entry at or after `position`.
    pub(super) fn seek(&self, arena: &Arena, position: &Position<'_>) -> Option<Place> {
        if self.leaves.is_empty() {
            return None;
        }
        let leaf = self.leaf_of(arena, position);
        let slot = self.leaves[leaf].lower_bound(arena, position);
        if slot < self.leaves[leaf].len { Some(Place { leaf, slot }) } else { self.start_of(leaf + 1) }
    }

    /// The last entry before `position`.
    pub(super) fn seek_before(&self, arena: &Arena, position: &Position<'_>) -> Option<Place> {
        if self.leaves.is_empty() {
            return None;
        }
        let leaf = self.leaf_of(arena, position);
        self.previous(Place { leaf, slot: self.leaves[leaf].lower_bound(arena, position) })
    }

    /// The first entry of all.
    pub(super) fn first(&self) -> Option<Place> {
        self.start_of(0)
    }

    /// The last entry of all.
    pub(super) fn last(&self) -> Option<Place> {
        self.previous(Place { leaf: self.leaves.len(), slot: 0 })
    }

    /// The entry after.
    pub(super) fn next(&self, place: Place) -> Option<Place> {
        if place.slot + 1 < self.leaves[place.leaf].len {
            Some(Place { slot: place.slot + 1, ..place })
        } else {
            self.start_of(place.leaf + 1)
        }
    }

    /// The entry before.
    pub(super) fn previous(&self, place: Place) -> Option<Place> {
        if place.slot > 0 {
            return Some(Place { slot: place.slot - 1, ..place });
        }
        let leaf = place.leaf.checked_sub(1)?;
        Some(Place { leaf, slot: self.leaves[leaf].len - 1 })
    }

    /// Leaves are never empty.
    fn start_of(&self, leaf: usize) -> Option<Place> {
        (leaf < self.leaves.len()).then_some(Place { leaf, slot: 0 })
    }

    /// What stands at a place of this version.
    pub(super) fn entry(&self, place: Place) -> EntryRef {
        self.leaves[place.leaf].entries[place.slot]
    }

    /// What stands this many places later, if that is no further than in the next leaf.
    pub(super) fn later(&self, place: Place, places: usize) -> Option<EntryRef> {
        let leaf = &self.leaves[place.leaf];
        let slot = place.slot + places;
        if slot < leaf.len {
            return Some(leaf.entries[slot]);
        }
        let next = self.leaves.get(place.leaf + 1)?;
        next.entries[..next.len].get(slot - leaf.len).copied()
    }

    /// Changes with every insert; places are good for one version.
    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// Bytes of memory held.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.leaves.len() * size_of::<Leaf>()
            + self.leaves.capacity() * size_of::<Box<Leaf>>()
            + self.firsts.capacity() * size_of::<u128>()
            + self.rests.capacity() * size_of::<Rest>()
    }

    /// At most this much more memory is held after `entries` more inserts.
    pub(super) fn growth_bytes_max(&self, entries: usize) -> usize {
        // A split needs a full leaf and leaves two half full ones.
        let leaves = 1 + entries.div_ceil(LEAF_ENTRIES / 2);
        let upper = size_of::<Box<Leaf>>() + size_of::<u128>() + size_of::<Rest>();
        let grows = self.leaves.len() + leaves > self.leaves.capacity();
        leaves * size_of::<Leaf>() + if grows { (self.leaves.len() + leaves).max(4) * 2 * upper } else { 0 }
    }

    /// The leaves, to be freed a few at a time.
    pub(super) fn into_leaves(self) -> Leaves {
        self.leaves
    }
}

impl Leaf {
    const fn new() -> Self {
        Self {
            len: 0,
            skip: 0,
            common: [0; SKIP_BYTES_MAX],
            heads: [0; LEAF_ENTRIES],
            entries: [EntryRef(0); LEAF_ENTRIES],
        }
    }

    /// An empty leaf that skips what its neighbour skips.
    const fn after(neighbour: &Self) -> Self {
        Self { skip: neighbour.skip, common: neighbour.common, ..Self::new() }
    }

    /// The slot of the first entry at or after `position`.
    fn lower_bound(&self, arena: &Arena, position: &Position<'_>) -> usize {
        let heads = &self.heads[..self.len];
        let common = &self.common[..self.skip];
        if !position.user.starts_with(common) {
            // Heads say nothing about this key, but it stands before or after all keys here that
            // share its partition and namespace.
            let group = position.prefix() >> USER_BITS;
            return if position.user < common {
                heads.partition_point(|head| head >> USER_BITS < group)
            } else {
                heads.partition_point(|head| head >> USER_BITS <= group)
            };
        }
        let wanted = head(position, self.skip);
        let below = heads.partition_point(|head| *head < wanted);
        if below == self.len || heads[below] != wanted {
            return below;
        }
        let equal = heads[below..].partition_point(|head| *head == wanted);
        let ties = &self.entries[below..below + equal];
        below + ties.partition_point(|entry| arena.position(*entry) < *position)
    }

    fn insert(&mut self, slot: usize, head: u128, entry: EntryRef) {
        self.heads.copy_within(slot..self.len, slot + 1);
        self.entries.copy_within(slot..self.len, slot + 1);
        self.heads[slot] = head;
        self.entries[slot] = entry;
        self.len += 1;
    }

    fn move_upper_half(&mut self, right: &mut Self) {
        let half = self.len / 2;
        let moved = self.len - half;
        right.heads[..moved].copy_from_slice(&self.heads[half..self.len]);
        right.entries[..moved].copy_from_slice(&self.entries[half..self.len]);
        right.len = moved;
        self.len = half;
    }

    /// Makes heads comparable with a new key's: skips less if the key shares less.
    fn admit(&mut self, arena: &Arena, position: &Position<'_>) {
        let shared = shared_bytes(&self.common[..self.skip], position.user);
        if shared < self.skip {
            self.skip_to(arena, shared.saturating_sub(SKIP_SLACK_BYTES));
        }
    }

    /// Skips as much as all keys share, less the slack.
    fn tighten(&mut self, arena: &Arena) {
        let first = arena.position(self.entries[0]).user;
        let mut shared = first.len().min(SKIP_BYTES_MAX);
        for entry in &self.entries[1..self.len] {
            shared = shared_bytes(&first[..shared], arena.position(*entry).user);
        }
        let skip = shared.saturating_sub(SKIP_SLACK_BYTES);
        if skip > self.skip {
            self.common[..skip].copy_from_slice(&first[..skip]);
            self.skip_to(arena, skip);
        }
    }

    fn skip_to(&mut self, arena: &Arena, skip: usize) {
        self.skip = skip;
        for (old, entry) in self.heads.iter_mut().zip(&self.entries[..self.len]) {
            *old = head(&arena.position(*entry), skip);
        }
    }

    /// How many neighbours have equal heads.
    fn equal_heads(&self) -> usize {
        self.heads[..self.len].windows(2).filter(|pair| pair[0] == pair[1]).count()
    }
}

/// Orders like the position among positions whose user keys share their first `skip` bytes.
fn head(position: &Position<'_>, skip: usize) -> u128 {
    Position { user: &position.user[skip..], ..*position }.prefix()
}

fn rest(position: &Position<'_>) -> Rest {
    let mut bytes = Rest::default();
    let behind = position.user.get(PREFIX_USER_BYTES..).unwrap_or_default();
    let taken = behind.len().min(bytes.len());
    bytes[..taken].copy_from_slice(&behind[..taken]);
    bytes
}

fn shared_bytes(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}
