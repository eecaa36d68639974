//! The order of a RESP connection: its replies, and what its commands may overtake.
//!
//! Replies have no ids, so they leave in the order of their commands. Each command has a slot from its
//! start to its reply. The reply of the oldest goes straight into the connection's out buffer; one that
//! is ready before its turn is held back here.
//!
//! A command sees what the commands before it wrote, and nothing of those after it. So a command that
//! touches a key on which an earlier one is still under way waits, unless both only read, or both write
//! and it is decided what the first does: then the shard keeps their order, and one group commit takes
//! both. Runs of SETs and of reads are therefore under way together; the first conflict ends a run.
//! Keys are told apart by their hash: two that share it wait for each other in vain, and that is all.
//!
//! Limits: as many slots as a connection may have requests. What is held counts as answers that wait
//! on the connection; its memory is used again when none of it waits any more.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

/// Bytes of capacity that an idle connection keeps for replies held back.
const HELD_BYTES_KEPT_MAX: usize = 16 << 10;

/// What a command does to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reads it.
    Read,
    /// Writes it whatever stands there: decided when it reaches the shard.
    Write,
    /// Writes it by what stands there: that may take a look into a table.
    Change,
}

/// What a command touches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Touches {
    /// No key.
    #[default]
    Nothing,
    /// The key of this hash.
    Key(Access, u64),
    /// The keys of these hashes.
    Keys(Access, Box<[u64]>),
    /// Every key there is.
    Everything,
}

impl Touches {
    /// The same once it is decided what a change does.
    pub(crate) fn decided(self) -> Self {
        match self {
            Self::Key(Access::Change, hash) => Self::Key(Access::Write, hash),
            Self::Keys(Access::Change, hashes) => Self::Keys(Access::Write, hashes),
            other => other,
        }
    }

    /// Its keys, as far as they can be told.
    fn keys(&self) -> Option<(Access, &[u64])> {
        match self {
            Self::Nothing | Self::Everything => None,
            Self::Key(access, hash) => Some((*access, std::slice::from_ref(hash))),
            Self::Keys(access, hashes) => Some((*access, hashes)),
        }
    }
}

/// Commands under way on one key.
#[derive(Debug, Clone, Copy, Default)]
struct UnderWay {
    reads: u32,
    writes: u32,
    /// Of those, how many are not decided.
    undecided: u32,
}

impl UnderWay {
    const fn conflicts(self, access: Access) -> bool {
        match access {
            Access::Read => self.writes > 0,
            Access::Write | Access::Change => self.reads > 0 || self.undecided > 0,
        }
    }

    fn count(&mut self, access: Access) {
        match access {
            Access::Read => self.reads += 1,
            Access::Write => self.writes += 1,
            Access::Change => (self.writes, self.undecided) = (self.writes + 1, self.undecided + 1),
        }
    }

    fn release(&mut self, access: Access) {
        match access {
            Access::Read => self.reads -= 1,
            Access::Write => self.writes -= 1,
            Access::Change => (self.writes, self.undecided) = (self.writes - 1, self.undecided - 1),
        }
    }

    const fn is_over(self) -> bool {
        self.reads == 0 && self.writes == 0
    }
}

/// Hashes are their own hashes.
#[derive(Debug, Clone, Copy, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        // Not used: keys are u64.
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A command from its start to its turn.
#[derive(Debug, Default)]
struct Slot {
    /// Where in [`Replies::held`] its reply is; `None` while it is under way.
    reply: Option<Range<usize>>,
    touches: Touches,
}

/// The commands of a connection that are under way or wait for their turn.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    /// Number of the oldest.
    first: u64,
    slots: VecDeque<Slot>,
    /// Replies that wait for their turn, and some whose turn has come.
    held: Vec<u8>,
    /// Bytes of those that wait.
    waiting_bytes: usize,
    keys: HashMap<u64, UnderWay, BuildHasherDefault<AsItIs>>,
    /// Commands under way that touch everything.
    sweeps: u32,
}

impl Replies {
    /// Whether a command must wait for one that is under way.
    #[inline]
    pub(crate) fn conflicts(&self, touches: &Touches) -> bool {
        match touches {
            _ if self.slots.is_empty() => false,
            Touches::Nothing => false,
            Touches::Everything => true,
            _ if self.sweeps > 0 => true,
            Touches::Key(access, hash) => self.keys.get(hash).is_some_and(|under| under.conflicts(*access)),
            Touches::Keys(access, hashes) => {
                let conflicts = |hash| self.keys.get(hash).is_some_and(|under| under.conflicts(*access));
                hashes.iter().any(conflicts)
            }
        }
    }

    /// A slot for a command that starts; its number.
    #[inline]
    pub(crate) fn push(&mut self) -> u64 {
        self.slots.push_back(Slot::default());
        self.first + self.slots.len() as u64 - 1
    }

    /// Remembers what a command touches, unless it has been answered.
    #[inline]
    pub(crate) fn register(&mut self, number: u64, touches: Touches) {
        let Some(slot) = slot(&mut self.slots, self.first, number) else { return };
        if slot.reply.is_some() {
            return;
        }
        if let Some((access, hashes)) = touches.keys() {
            hashes.iter().for_each(|hash| self.keys.entry(*hash).or_default().count(access));
        }
        self.sweeps += u32::from(touches == Touches::Everything);
        slot.touches = touches;
    }

    /// Takes the reply of a command: `encode` appends it to `out` or, before its turn, to what is held.
    #[inline]
    pub(crate) fn answer(&mut self, number: u64, out: &mut Vec<u8>, encode: impl FnOnce(&mut Vec<u8>)) {
        let Some(slot) = slot(&mut self.slots, self.first, number) else { return };
        let touches = std::mem::take(&mut slot.touches);
        if number != self.first {
            let start = self.held.len();
            encode(&mut self.held);
            self.waiting_bytes += self.held.len() - start;
            slot.reply = Some(start..self.held.len());
            return self.release(&touches);
        }
        encode(out);
        self.slots.pop_front();
        self.first += 1;
        while let Some(reply) = self.slots.front().and_then(|slot| slot.reply.clone()) {
            self.waiting_bytes -= reply.len();
            out.extend_from_slice(&self.held[reply]);
            self.slots.pop_front();
            self.first += 1;
        }
        if self.waiting_bytes == 0 && !self.held.is_empty() {
            self.held.clear();
            if self.held.capacity() > HELD_BYTES_KEPT_MAX {
                self.held = Vec::new();
            }
        }
        self.release(&touches);
    }

    /// Bytes of replies held back, those that have left lately included.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held.len()
    }

    #[inline]
    fn release(&mut self, touches: &Touches) {
        self.sweeps -= u32::from(*touches == Touches::Everything);
        let Some((access, hashes)) = touches.keys() else { return };
        for hash in hashes {
            let Some(under) = self.keys.get_mut(hash) else { continue };
            under.release(access);
            if under.is_over() {
                self.keys.remove(hash);
            }
        }
    }
}

fn slot(slots: &mut VecDeque<Slot>, first: u64, number: u64) -> Option<&mut Slot> {
    slots.get_mut(usize::try_from(number.checked_sub(first)?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(text: &str) -> impl FnOnce(&mut Vec<u8>) {
        move |out| out.extend_from_slice(text.as_bytes())
    }

    fn key(access: Access, hash: u64) -> Touches {
        Touches::Key(access, hash)
    }

    #[test]
    fn replies_leave_in_the_order_of_their_commands() {
        let (mut replies, mut out) = (Replies::default(), Vec::new());
        let numbers: Vec<u64> = (0..5).map(|_| replies.push()).collect();
        replies.answer(numbers[3], &mut out, put("d"));
        replies.answer(numbers[1], &mut out, put("b"));
        assert_eq!((out.as_slice(), replies.held_bytes()), (&b""[..], 2));
        replies.answer(numbers[0], &mut out, put("a"));
        assert_eq!(out, b"ab");
        replies.answer(numbers[4], &mut out, put("e"));
        replies.answer(numbers[2], &mut out, put("c"));
        assert_eq!((out.as_slice(), replies.held_bytes()), (&b"abcde"[..], 0));
        replies.answer(numbers[2], &mut out, put("twice"));
        assert_eq!(replies.push(), 5);
        replies.answer(5, &mut out, put("f"));
        assert_eq!(out, b"abcdef");
    }

    #[test]
    fn only_what_would_see_too_much_or_too_little_waits() {
        use Access::{Change, Read, Write};
        let mut replies = Replies::default();
        for (under_way, decided, next, waits) in [
            (Read, false, Read, false),
            (Read, false, Write, true),
            (Read, false, Change, true),
            (Write, true, Read, true),
            (Write, true, Write, false),
            (Write, true, Change, false),
            (Change, false, Read, true),
            (Change, false, Write, true),
            (Change, false, Change, true),
            (Change, true, Read, true),
            (Change, true, Write, false),
            (Change, true, Change, false),
        ] {
            let number = replies.push();
            assert!(!replies.conflicts(&key(next, 7)));
            let touches = key(under_way, 7);
            replies.register(number, if decided { touches.decided() } else { touches });
            assert_eq!(replies.conflicts(&key(next, 7)), waits, "{next:?} after {under_way:?}");
            assert!(!replies.conflicts(&key(next, 8)));
            let several = |hashes: &[u64]| Touches::Keys(next, hashes.into());
            assert_eq!(replies.conflicts(&several(&[8, 7])), waits);
            assert!(!replies.conflicts(&several(&[8, 9])) && !replies.conflicts(&Touches::Nothing));
            assert!(replies.conflicts(&Touches::Everything));
            replies.answer(number, &mut Vec::new(), put("x"));
            assert!(!replies.conflicts(&key(next, 7)));
        }
        assert!(replies.keys.is_empty());
        let number = replies.push();
        replies.register(number, Touches::Everything);
        assert!(replies.conflicts(&key(Read, 1)) && !replies.conflicts(&Touches::Nothing));
        replies.answer(number, &mut Vec::new(), put("x"));
        assert!(!replies.conflicts(&Touches::Everything));
    }

    #[test]
    fn keys_are_free_when_the_last_command_on_them_is_answered() {
        let (mut replies, mut out) = (Replies::default(), Vec::new());
        let [first, second, third] = [0; 3].map(|_| replies.push());
        replies.register(first, Touches::Keys(Access::Change, [1, 1, 2].into()));
        replies.register(second, key(Access::Write, 1));
        replies.answer(third, &mut out, put("c"));
        replies.register(third, key(Access::Write, 3));
        assert!(!replies.conflicts(&key(Access::Read, 3)), "it was answered before");
        replies.answer(second, &mut out, put("b"));
        assert!(replies.conflicts(&key(Access::Write, 1)) && replies.conflicts(&key(Access::Read, 2)));
        replies.answer(first, &mut out, put("a"));
        assert!(replies.keys.is_empty() && replies.slots.is_empty());
        assert_eq!(out, b"abc");
    }
}
