//! Stacks that begin alike, joined into a tree; with a second profile, how much more or less of the
//! whole each function has.

use std::collections::BTreeMap;

use super::profile::Profile;

/// Functions on each other; what is deeper is counted to the last. perf records 127 at most.
const DEPTH_MAX: usize = 512;

/// A profile ready to be drawn.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) root: Node,
    /// The total of the profile it is compared with.
    pub(super) other_total: Option<u64>,
}

/// A function as called from the functions below it.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Of itself and all that it called.
    pub(super) total: u64,
    /// The same in the other profile.
    pub(super) other: u64,
    pub(super) callees: BTreeMap<String, Self>,
}

impl Tree {
    pub(super) fn new(profile: &Profile, other: Option<&Profile>) -> Self {
        let mut root = Node::default();
        for (stack, count) in profile.stacks() {
            root.add(stack, |node| node.total += count);
        }
        for (stack, count) in other.iter().flat_map(|other| other.stacks()) {
            root.add(stack, |node| node.other += count);
        }
        Self { root, other_total: other.map(Profile::total) }
    }

    /// How much larger a node's share is than in the other profile, -1 to 1. `None` without another.
    pub(super) fn change(&self, node: &Node) -> Option<f64> {
        let other = node.other as f64 / self.other_total? as f64;
        Some(node.total as f64 / self.root.total as f64 - other)
    }
}

impl Node {
    fn add<'f>(&mut self, stack: impl Iterator<Item = &'f str>, mut count: impl FnMut(&mut Self)) {
        count(self);
        let mut node = self;
        for frame in stack.take(DEPTH_MAX) {
            node = node.callees.entry(frame.to_owned()).or_default();
            count(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_hold_what_was_called_and_changes_are_of_shares() {
        let profile = Profile::parse("a;b 3\na;b;c 1\na 2\nd 2\n").unwrap();
        let tree = Tree::new(&profile, None);
        let a = &tree.root.callees["a"];
        assert_eq!((tree.root.total, a.total, a.callees["b"].total), (8, 6, 4));
        assert_eq!(tree.change(a), None);
        // Twice as long a measurement of the same is no change.
        let other = Profile::parse("a;b 8\na 4\nd 4\n").unwrap();
        let tree = Tree::new(&profile, Some(&other));
        let a = &tree.root.callees["a"];
        assert_eq!(tree.change(a), Some(0.0));
        assert_eq!(tree.change(&a.callees["b"].callees["c"]), Some(0.125));
        let fewer = Profile::parse("d 1\n").unwrap();
        let tree = Tree::new(&profile, Some(&fewer));
        assert_eq!(tree.change(&tree.root.callees["d"]), Some(-0.75));
    }
}
