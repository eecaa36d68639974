//! Stacks and how often each was seen; as text, one line each: `outermost;..;innermost count`.
//!
//! The text is the usual one of flame graphs, so that profiles can be kept, cut with the tools of the
//! shell, compared, and drawn by other programs.

use std::collections::BTreeMap;
use std::fmt;

use super::room::Room;
use super::script;

/// Counted stacks, in the order of their text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile(BTreeMap<String, u64>);

impl Profile {
    /// From the text of `perf script` or from folded stacks, whichever it is.
    ///
    /// # Errors
    /// Which line is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        if script::is_script(text) {
            return script::parse(text);
        }
        let mut profile = Self::default();
        for (line, number) in text.lines().map(str::trim).zip(1..) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let counted = line.rsplit_once(' ').and_then(|(stack, count)| Some((stack, count.parse().ok()?)));
            let (stack, count) = counted.ok_or_else(|| format!("line {number} has no count: {line}"))?;
            profile.add_text(stack.trim().to_owned(), count);
        }
        Ok(profile)
    }

    /// Adds to a stack, outermost frame first.
    pub(super) fn add(&mut self, stack: &[String], count: u64) {
        self.add_text(stack.join(";"), count);
    }

    fn add_text(&mut self, stack: String, count: u64) {
        if count > 0 {
            let counted = self.0.entry(stack).or_default();
            *counted = counted.saturating_add(count);
        }
    }

    /// Frames of each stack, outermost first, and its count.
    pub(super) fn stacks(&self) -> impl Iterator<Item = (impl Iterator<Item = &str>, u64)> {
        self.0.iter().map(|(stack, count)| (stack.split(';'), *count))
    }

    /// All counts together.
    pub fn total(&self) -> u64 {
        self.0.values().fold(0, |total, count| total.saturating_add(*count))
    }

    /// How much of the total the innermost frames of each room have; largest first.
    pub(super) fn by_room(&self) -> Vec<(Room, u64)> {
        let mut by_room: BTreeMap<Room, u64> = BTreeMap::new();
        for (stack, count) in self.stacks() {
            *by_room.entry(Room::of(stack.last().unwrap_or_default())).or_default() += count;
        }
        let mut by_room: Vec<_> = by_room.into_iter().collect();
        by_room.sort_by_key(|(room, own)| (std::cmp::Reverse(*own), *room));
        by_room
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(stack, count)| writeln!(f, "{stack} {count}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_stacks_are_counted_together_and_the_text_reads_back() {
        let profile = Profile::parse("# kept\n\na b;f<x> 2\na b;f<x> 3\na b 1\nc;d 0\n").unwrap();
        assert_eq!(profile.to_string(), "a b 1\na b;f<x> 5\n");
        assert_eq!(Profile::parse(&profile.to_string()), Ok(profile.clone()));
        assert_eq!(profile.total(), 6);
        for wrong in ["a;b", "a;b x", "a;b -1"] {
            assert!(Profile::parse(wrong).unwrap_err().starts_with("line 1"), "{wrong}");
        }
    }

    #[test]
    fn the_innermost_frame_says_whose_time_it_is() {
        let profile =
            Profile::parse("p;pinion_engine::a 2\np;pinion_engine::a;b_[k] 5\np;c_[k] 1\n").unwrap();
        assert_eq!(profile.by_room(), [(Room::Kernel, 6), (Room::Engine, 2)]);
    }
}
